/* What each command does. */
#define _GNU_SOURCE
#include "gpu.h"
#include <stdlib.h>
#include <string.h>

/* Flags that stream memory operations have written: what was done before, and the value. */
typedef struct {
    uint64_t address, value;
    vclock clock;
} flag;
static flag *flags;
static size_t num_flags;

static flag *find_flag(uint64_t address) {
    for (size_t i = 0; i < num_flags; i++)
        if (flags[i].address == address)
            return &flags[i];
    return NULL;
}

static uint64_t load(uint64_t address, uint32_t bytes) {
    if (bytes == 8)
        return atomic_load((_Atomic uint64_t *)address);
    return atomic_load((_Atomic uint32_t *)address);
}

static bool is_met(const command *given) {
    uint64_t value = load(given->to, given->value_bytes);
    switch ((wait_condition)given->condition) {
    case WAIT_GEQ: /* cyclic, as the driver's */
        if (given->value_bytes == 8)
            return (int64_t)(value - given->value) >= 0;
        return (int32_t)((uint32_t)value - (uint32_t)given->value) >= 0;
    case WAIT_EQ:
        return value == given->value;
    case WAIT_AND:
        return (value & given->value) != 0;
    default:
        return (uint32_t)~(value | given->value) != 0;
    }
}

bool is_runnable(const node *self) {
    if (self->command->kind != COMMAND_WAIT || atomic_load(&gpu.shared->error[self->device]))
        return true;
    return !is_gpu_address(self->command->to) || is_met(self->command);
}

static void write_value(node *self) {
    const command *given = self->command;
    check_flag(given->to, given->value_bytes, true);
    flag *to = find_flag(given->to);
    if (!to) {
        flags = must_allocate(flags, (num_flags + 1) * sizeof *flags);
        to = &flags[num_flags++];
        *to = (flag){.address = given->to};
    }
    clock_join(&to->clock, &self->clock);
    to->value = given->value;
    if ((given->to - WINDOW_BASE) / SPAN_BYTES >= PINNED)
        clock_join(&gpu.flags, &self->clock); /* the host may have seen it from now on */
    if (given->value_bytes == 8)
        atomic_store((_Atomic uint64_t *)given->to, given->value);
    else
        atomic_store((_Atomic uint32_t *)given->to, (uint32_t)given->value);
}

/* Learn what lies before the value that was waited for: a stream's flag, or else the host wrote it.
 */
static void wait_value(node *self) {
    const command *given = self->command;
    check_flag(given->to, given->value_bytes, false);
    const flag *from = find_flag(given->to);
    if (from)
        clock_join(&self->clock, &from->clock);
    if (!from || from->value != load(given->to, given->value_bytes)) {
        clock_join(&gpu.host, &gpu.flags);
        clock_join(&self->clock, &gpu.host);
    }
}

static void set(const command *given) {
    check_write(given->to, given->bytes);
    if (given->value_bytes == 1) {
        memset((void *)given->to, (int)given->value, given->bytes);
        return;
    }
    for (uint64_t at = 0; at < given->bytes; at += given->value_bytes)
        memcpy((char *)given->to + at, &given->value, given->value_bytes);
}

static void copy(const command *given) {
    check_copy(given->to, given->from, given->bytes);
    memmove((void *)given->to, (const void *)given->from, given->bytes);
}

static node *current;
static void value(const command *given) {
    (given->kind == COMMAND_WRITE ? write_value : wait_value)(current);
}

static const char *name_of(const command *given) {
    static const char *const names[] = {"nothing",     "kernel",     "copy",         "set",
                                        "value write", "value wait", "host function"};
    return given->kind == COMMAND_KERNEL ? function_name(given->function) : names[given->kind];
}

void execute(node *self) {
    const command *given = self->command;
    if (atomic_load(&gpu.shared->error[self->device]) || given->kind == COMMAND_EMPTY ||
        given->kind == COMMAND_HOST)
        return;
    begin_access(self, name_of(given));
    current = self;
    int error = 0;
    if (given->kind == COMMAND_KERNEL) {
        atomic_fetch_add(&gpu.shared->launches, 1);
        error = run_kernel(given);
    } else {
        void (*run)(const command *) = given->kind == COMMAND_COPY  ? copy
                                       : given->kind == COMMAND_SET ? set
                                                                    : value;
        error = guarded(run, given);
    }
    end_access();
    if (error > 0)
        fail(self->device, error, "%s touched memory that the GPU does not have", name_of(given));
}
