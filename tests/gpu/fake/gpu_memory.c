/* What commands read and write: each byte of the window knows its last writer and its readers
 * since.
 *
 * Two accesses of a byte, one of them a write, have to be ordered by streams, events, graph edges
 * or the host (vector clocks, as FastTrack, Flanagan and Freund 2009). What is found does not
 * depend on which of the two happened to run first. */
#define _GNU_SOURCE
#include "gpu_shadow.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define IS_SET 0x80000000u

typedef struct {
    uint32_t chain, tick;
    uint32_t stream, exec, place;
    uint64_t position;
    const char *what;
} access;

typedef struct {
    uint32_t base, added;
} reader_set; /* of one more reader than base, which is an access or a set */

static struct {
    access *accesses;
    size_t num_accesses, room;
    reader_set *sets;
    size_t num_sets, set_room;
    struct {
        uint64_t address, alias, bytes;
    } registered[256];
    size_t num_registered;
} memory;

/* The command that runs. */
static struct {
    bool on;
    uint32_t id, spans; /* bit per span that it may touch */
    const node *node;
    uint32_t ordered; /* the last access seen that lies before */
    uint32_t reported_with;
} current;

void map_memory(void) {
    void *at = mmap((void *)WINDOW_BASE, WINDOW_BYTES, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, FD_WINDOW, 0);
    if (at != (void *)WINDOW_BASE) {
        perror("fake gpu: device memory");
        exit(97);
    }
    map_shadow();
    memory.num_accesses = FIRST_ACCESS;
}

void allocate_memory(uint64_t address, uint64_t bytes, uint64_t red_zone) {
    uint64_t at = address - WINDOW_BASE;
    bool pinned = at / SPAN_BYTES == PINNED;
    set_shadow(at, at + bytes, pinned ? HOST : UNWRITTEN);
    set_shadow(at + bytes, at + bytes + red_zone, NOWHERE);
    if (!pinned) /* the driver has poisoned pinned memory, before the host could write to it */
        memset((void *)address, 0xFF, bytes);
}

void free_memory(uint64_t address, uint64_t bytes) {
    clear_shadow(address - WINDOW_BASE, address - WINDOW_BASE + bytes);
    uint64_t first = (address + 4095) & ~4095ull, last = (address + bytes) & ~4095ull;
    if (first < last)
        madvise((void *)first, last - first, MADV_REMOVE);
}

void register_memory(uint64_t address, uint64_t alias, uint64_t bytes) {
    void *at = mmap((void *)address, bytes, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_FIXED_NOREPLACE, FD_WINDOW, (off_t)(alias - WINDOW_BASE));
    bool taken = at != (void *)address || memory.num_registered == 256;
    if (!taken) {
        size_t i = memory.num_registered++;
        memory.registered[i].address = address;
        memory.registered[i].alias = alias;
        memory.registered[i].bytes = bytes;
        allocate_memory(alias, bytes, 0);
    }
    reply result = {.result = taken ? -1 : 0};
    answer(&result);
}

void unregister_memory(uint64_t address) {
    for (size_t i = 0; i < memory.num_registered; i++)
        if (memory.registered[i].address == address) {
            free_memory(memory.registered[i].alias, memory.registered[i].bytes);
            munmap((void *)address, memory.registered[i].bytes);
            memory.registered[i] = memory.registered[--memory.num_registered];
            return;
        }
}

/* Return the offset in the window of an address, registered host memory by its alias; WINDOW_BYTES:
 * none. */
static uint64_t offset_of(uint64_t address) {
    if (address - WINDOW_BASE < WINDOW_BYTES)
        return address - WINDOW_BASE;
    for (size_t i = 0; i < memory.num_registered; i++)
        if (address - memory.registered[i].address < memory.registered[i].bytes)
            return address - memory.registered[i].address + memory.registered[i].alias -
                   WINDOW_BASE;
    return WINDOW_BYTES;
}

bool is_gpu_address(uint64_t address) { return offset_of(address) < WINDOW_BYTES; }

static const char *describe(uint32_t id, char *text, size_t bytes) {
    const access *of = &memory.accesses[id];
    if (of->exec)
        snprintf(text, bytes, "%s (node %u of graph %u)", of->what, of->place, of->exec);
    else
        snprintf(text, bytes, "%s (command %llu of stream %u)", of->what,
                 (unsigned long long)of->position, of->stream);
    return text;
}

void begin_access(node *self, const char *what) {
    if (memory.num_accesses >= memory.room) {
        memory.room = memory.room ? 2 * memory.room : 4096;
        memory.accesses = must_allocate(memory.accesses, memory.room * sizeof *memory.accesses);
    }
    current.id = (uint32_t)memory.num_accesses++;
    current.node = self;
    current.ordered = current.reported_with = 0;
    current.spans = 1u << PINNED;
    for (uint32_t d = 0; d < gpu.num_devices; d++) {
        bool copies = self->command->kind != COMMAND_KERNEL;
        if (d == self->device || copies || (gpu.peers[self->device] & (1u << d)))
            current.spans |= 1u << d;
    }
    current.on = gpu.checks;
    memory.accesses[current.id] = (access){self->chain,  self->clock.tick[self->chain],
                                           self->stream, self->exec,
                                           self->place,  self->position,
                                           what};
}

void end_access(void) { current.on = false; }

static bool is_before(uint32_t id) {
    if (id < FIRST_ACCESS || id == current.id || id == current.ordered)
        return true;
    const access *of = &memory.accesses[id];
    if (!clock_covers(&current.node->clock, of->chain, of->tick))
        return false;
    current.ordered = id;
    return true;
}

static void report_race(uint64_t at, const char *doing, uint32_t other, const char *did) {
    if (current.reported_with == other)
        return;
    current.reported_with = other;
    char mine[300], theirs[300];
    fail(current.node->device, 719, "race: %s %s 0x%llx, and nothing orders it and %s, which %s it",
         describe(current.id, mine, sizeof mine), doing, (unsigned long long)(WINDOW_BASE + at),
         describe(other, theirs, sizeof theirs), did);
}

static void report_place(uint64_t at, const char *doing, const char *what) {
    char mine[300];
    fail(current.node->device, 700, "%s %s 0x%llx, %s", describe(current.id, mine, sizeof mine),
         doing, (unsigned long long)(WINDOW_BASE + at), what);
    leave_command(-700);
}

static uint32_t with_reader(uint32_t base) {
    for (size_t i = memory.num_sets; i-- > 0 && i + 64 > memory.num_sets;)
        if (memory.sets[i].base == base && memory.sets[i].added == current.id)
            return IS_SET | (uint32_t)i;
    if (memory.num_sets == memory.set_room) {
        memory.set_room = memory.set_room ? 2 * memory.set_room : 1024;
        memory.sets = must_allocate(memory.sets, memory.set_room * sizeof *memory.sets);
    }
    memory.sets[memory.num_sets] = (reader_set){base, current.id};
    return IS_SET | (uint32_t)memory.num_sets++;
}

/* Return the reader in a set, or the one reader, that is not before this command; 0: there is none.
 */
static uint32_t unordered_reader(uint32_t readers) {
    for (; readers & IS_SET; readers = memory.sets[readers & ~IS_SET].base)
        if (!is_before(memory.sets[readers & ~IS_SET].added))
            return memory.sets[readers & ~IS_SET].added;
    return is_before(readers) ? 0 : readers;
}

static bool has_read(uint32_t readers) {
    return readers == current.id ||
           ((readers & IS_SET) && memory.sets[readers & ~IS_SET].added == current.id);
}

static cell read_cell(uint64_t at, cell now) {
    if (now.writer == NOWHERE)
        report_place(at, "reads", "which is not allocated");
    if (now.writer == UNWRITTEN && current.node->command->kind == COMMAND_KERNEL) {
        char mine[300];
        fail(current.node->device, 719, "%s reads 0x%llx, which nothing has written",
             describe(current.id, mine, sizeof mine), (unsigned long long)(WINDOW_BASE + at));
        leave_command(-719);
    }
    if (!is_before(now.writer))
        report_race(at, "reads", now.writer, "writes");
    if (now.writer != current.id && !has_read(now.readers))
        now.readers = unordered_reader(now.readers) ? with_reader(now.readers) : current.id;
    return now;
}

static cell write_cell(uint64_t at, cell now) {
    if (now.writer == NOWHERE)
        report_place(at, "writes", "which is not allocated");
    if (!is_before(now.writer))
        report_race(at, "writes", now.writer, "writes");
    uint32_t other = now.readers ? unordered_reader(now.readers) : 0;
    if (other)
        report_race(at, "writes", other, "reads");
    return (cell){current.id, 0};
}

/* A flag is ordered by who waits for it, so never a race. */
static cell write_flag(uint64_t at, cell now) {
    if (now.writer == NOWHERE)
        report_place(at, "writes", "which is not allocated");
    return (cell){HOST, now.readers};
}

static cell read_flag(uint64_t at, cell now) {
    if (now.writer == NOWHERE)
        report_place(at, "reads", "which is not allocated");
    return now;
}

/* Return the offset of a range that the command may touch. */
static uint64_t place_of(uint64_t address, const char *doing) {
    uint64_t at = offset_of(address);
    if (at < WINDOW_BYTES && !(current.spans & (1u << (at / SPAN_BYTES))))
        report_place(at, doing, "memory of another device without access to it as a peer");
    return at;
}

void check_read(uint64_t address, uint64_t bytes) {
    uint64_t at = current.on ? place_of(address, "reads") : WINDOW_BYTES;
    if (at >= WINDOW_BYTES)
        return; /* shared memory, a stack; what is mapped nowhere faults by itself */
    uint64_t end = at + bytes;
    while (at < end && (shadow_at(at).readers == current.id || shadow_at(at).writer == current.id))
        at++;
    if (at < end)
        update_shadow(at, end, read_cell);
}

void check_write(uint64_t address, uint64_t bytes) {
    uint64_t at = current.on ? place_of(address, "writes") : WINDOW_BYTES;
    if (at >= WINDOW_BYTES)
        return;
    uint64_t end = at + bytes;
    while (at < end && shadow_at(at).writer == current.id && !shadow_at(at).readers)
        at++;
    if (at < end)
        update_shadow(at, end, write_cell);
}

/* A copy may take along what nothing has written, as when only its time is asked for; where it
 * comes to on a device is then as before. What the host gets are NaNs. */
void check_copy(uint64_t to, uint64_t from, uint64_t bytes) {
    check_read(from, bytes);
    check_write(to, bytes);
    uint64_t at = offset_of(to), source = offset_of(from);
    if (current.on && at / SPAN_BYTES < PINNED && source < WINDOW_BYTES)
        copy_unwritten(at, source, bytes);
}

void check_flag(uint64_t address, uint64_t bytes, bool writes) {
    uint64_t at = offset_of(address);
    if (current.on && at < WINDOW_BYTES)
        update_shadow(at, at + bytes, writes ? write_flag : read_flag);
}

/* What g++ calls before each access of a kernel that it compiles with -fsanitize=thread. */
#define HOOKS(BYTES)                                                                               \
    void __tsan_read##BYTES(void *at) { check_read((uintptr_t)at, BYTES); }                        \
    void __tsan_write##BYTES(void *at) { check_write((uintptr_t)at, BYTES); }                      \
    void __tsan_unaligned_read##BYTES(void *at) { check_read((uintptr_t)at, BYTES); }              \
    void __tsan_unaligned_write##BYTES(void *at) { check_write((uintptr_t)at, BYTES); }
void __tsan_init(void), __tsan_atomic_thread_fence(int);
void __tsan_func_entry(void *), __tsan_func_exit(void *);
void __tsan_read_range(void *, size_t), __tsan_write_range(void *, size_t);
#define DECLARE(BYTES)                                                                             \
    void __tsan_read##BYTES(void *), __tsan_write##BYTES(void *);                                  \
    void __tsan_unaligned_read##BYTES(void *), __tsan_unaligned_write##BYTES(void *);
#define SIZES(X) X(1) X(2) X(4) X(8) X(16)
SIZES(DECLARE)
SIZES(HOOKS)
void __tsan_init(void) {}
void __tsan_atomic_thread_fence(int order) { (void)order; }
void __tsan_func_entry(void *caller) { (void)caller; }
void __tsan_func_exit(void *caller) { (void)caller; }
void __tsan_read_range(void *at, size_t bytes) { check_read((uintptr_t)at, bytes); }
void __tsan_write_range(void *at, size_t bytes) { check_write((uintptr_t)at, bytes); }
