/* Kernels: x86 code of TVM's CUDA source (kernel.h), run block by block, the threads of a block as
 * fibers. */
#define _GNU_SOURCE
#include "gpu.h"
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

enum { FIBER_STACK = 64 << 10, MAX_THREADS = 1024, WARP = 32, MAX_FUNCTIONS = 1 << 16 };

typedef struct {
    uint32_t num_params, has_barriers;
    uint32_t param_bytes[MAX_PARAMS];
    uint32_t is_pointer[MAX_PARAMS];
} kernel_info; /* as in kernel.h */

typedef struct {
    const char *name;
    void (*thread)(void **params);
    const kernel_info *info;
} function;

/* What kernels see of where they are; kernel.h names it. */
struct {
    uint32_t thread[3], block[3], block_size[3], grid_size[3];
} fake_place;

typedef enum { READY, AT_BLOCK, AT_WARP, ENDED } fiber_state;

typedef struct {
#ifdef __x86_64__
    void *stack_pointer;
#else
    ucontext_t context;
#endif
    fiber_state state;
    uint32_t thread[3];
    uint64_t slot[2]; /* what a shuffle hands to the others of the warp */
} fiber;

static struct {
    void *modules[MAX_FUNCTIONS];
    function functions[MAX_FUNCTIONS];
    uint32_t num_modules, num_functions;
    fiber fibers[MAX_THREADS], home;
    uint32_t num_fibers, current;
    char *stacks;
    const char *name; /* of the kernel that runs */
    uint32_t device;
    void (*thread)(void **params);
    void **params;
    void *escape[5];
    volatile int error;
    volatile bool armed;
} kernels;

void load_module(const char *path) {
    reply result = {.result = -1};
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module)
        snprintf(result.text, sizeof result.text, "%s", dlerror());
    else if (kernels.num_modules < MAX_FUNCTIONS) {
        kernels.modules[kernels.num_modules] = module;
        result.result = (int32_t)kernels.num_modules++;
    }
    answer(&result);
}

void find_function(uint32_t module, const char *name) {
    reply result = {.result = -1};
    char symbol[512];
    snprintf(symbol, sizeof symbol, "%s__fake_thread", name);
    void *thread = dlsym(kernels.modules[module], symbol);
    snprintf(symbol, sizeof symbol, "%s__fake_info", name);
    const kernel_info *info = dlsym(kernels.modules[module], symbol);
    if (thread && info && kernels.num_functions < MAX_FUNCTIONS) {
        function *made = &kernels.functions[kernels.num_functions];
        made->name = strdup(name);
        memcpy(&made->thread, &thread, sizeof thread);
        made->info = info;
        result.num_params = info->num_params;
        memcpy(result.param_bytes, info->param_bytes, sizeof result.param_bytes);
        result.result = (int32_t)kernels.num_functions++;
    }
    answer(&result);
}

const char *function_name(uint32_t number) { return kernels.functions[number].name; }

void leave_command(int error) {
    kernels.error = error;
    __builtin_longjmp(kernels.escape, 1);
}

static void on_signal(int number) {
    if (!kernels.armed) {
        fprintf(stderr, "fake gpu: signal %d outside of a command\n", number);
        _Exit(99);
    }
    leave_command(number == SIGFPE ? 719 : 700);
}

/* Not setjmp: its checks do not know that fibers have stacks of their own. */
static __attribute__((noinline)) int run_guarded(void (*run)(const command *),
                                                 const command *given) {
    kernels.error = 0;
    if (__builtin_setjmp(kernels.escape) == 0)
        run(given);
    return kernels.error;
}

int guarded(void (*run)(const command *), const command *given) {
    static bool is_set;
    if (!is_set) {
        static char signal_stack[1 << 16];
        sigaltstack(&(stack_t){.ss_sp = signal_stack, .ss_size = sizeof signal_stack}, NULL);
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER | SA_ONSTACK};
        sigaction(SIGSEGV, &action, NULL);
        sigaction(SIGBUS, &action, NULL);
        sigaction(SIGFPE, &action, NULL);
        is_set = true;
    }
    kernels.armed = true;
    int error = run_guarded(run, given);
    kernels.armed = false;
    return error;
}

#ifdef __x86_64__
/* Keep what a call has to keep, change stacks. ucontext's calls ask the system for each switch. */
void fake_switch(void **from, void *to);
__asm__(".text\n.globl fake_switch\n.type fake_switch, @function\nfake_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".size fake_switch, .-fake_switch\n");
#define SWITCH(FROM, TO) fake_switch(&(FROM)->stack_pointer, (TO)->stack_pointer)
#else
#define SWITCH(FROM, TO) swapcontext(&(FROM)->context, &(TO)->context)
#endif

static void stop_here(fiber_state state) {
    fiber *self = &kernels.fibers[kernels.current];
    self->state = state;
    SWITCH(self, &kernels.home);
}

static void fiber_main(void) {
    kernels.thread(kernels.params);
    stop_here(ENDED);
    abort();
}

/* What kernel.h calls. */
void fake_barrier(void), fake_warp_barrier(void);
void fake_put(const void *value, size_t bytes);
void fake_take(void *value, size_t bytes, uint32_t lane);
void fake_barrier(void) { stop_here(AT_BLOCK); }
void fake_warp_barrier(void) { stop_here(AT_WARP); }
void fake_put(const void *value, size_t bytes) {
    memcpy(kernels.fibers[kernels.current].slot, value, bytes);
    fake_warp_barrier();
}
void fake_take(void *value, size_t bytes, uint32_t lane) {
    uint32_t from = (kernels.current & ~(uint32_t)(WARP - 1)) | (lane & (WARP - 1));
    memcpy(value, kernels.fibers[from < kernels.num_fibers ? from : kernels.current].slot, bytes);
    fake_warp_barrier();
}

static void prepare(uint32_t number) {
    fiber *self = &kernels.fibers[number];
    char *stack = kernels.stacks + (size_t)number * FIBER_STACK;
    self->state = READY;
#ifdef __x86_64__
    void **top = (void **)(void *)(stack + FIBER_STACK - 64);
    void (*start)(void) = fiber_main;
    memset(top - 8, 0, 8 * sizeof *top);
    memcpy(top - 2, &start, sizeof start); /* top - 1: as if called, so that the stack is aligned */
    self->stack_pointer = top - 8;
#else
    getcontext(&self->context);
    self->context.uc_stack.ss_sp = stack;
    self->context.uc_stack.ss_size = FIBER_STACK;
    makecontext(&self->context, fiber_main, 0);
#endif
}

/* Let those go on that wait where all the living of their warp, or of the block, have come to. */
static bool release_barriers(uint32_t *living) {
    uint32_t at_block = 0, alive = 0;
    bool released = false;
    for (uint32_t first = 0; first < kernels.num_fibers; first += WARP) {
        uint32_t end = first + WARP < kernels.num_fibers ? first + WARP : kernels.num_fibers;
        uint32_t at_warp = 0, here = 0;
        for (uint32_t i = first; i < end; i++) {
            here += kernels.fibers[i].state != ENDED;
            at_warp += kernels.fibers[i].state == AT_WARP;
            at_block += kernels.fibers[i].state == AT_BLOCK;
        }
        alive += here;
        for (uint32_t i = first; at_warp && at_warp == here && i < end; i++)
            if (kernels.fibers[i].state == AT_WARP) {
                kernels.fibers[i].state = READY;
                released = true;
            }
    }
    for (uint32_t i = 0; at_block && at_block == alive && i < kernels.num_fibers; i++)
        if (kernels.fibers[i].state == AT_BLOCK) {
            kernels.fibers[i].state = READY;
            released = true;
        }
    *living = alive;
    return released;
}

static void stop_hanging(void) {
    fail(kernels.device, 719,
         "threads of a block of %s wait at different barriers: a GPU would hang", kernels.name);
    leave_command(-719);
}

static void run_block(void) {
    const uint32_t *size = fake_place.block_size;
    uint32_t n = kernels.num_fibers, living = n;
    for (uint32_t i = 0; i < n; i++) {
        prepare(i);
        uint32_t *thread = kernels.fibers[i].thread;
        thread[0] = i % size[0], thread[1] = i / size[0] % size[1],
        thread[2] = i / size[0] / size[1];
    }
    /* Threads run in an order of their own between barriers, so that a missing barrier is seen. */
    uint32_t offset = (uint32_t)random_below(n);
    bool backwards = random_below(2);
    while (living) {
        for (uint32_t k = 0; k < n; k++) {
            uint32_t i = (offset + (backwards ? n - 1 - k : k)) % n;
            if (kernels.fibers[i].state != READY)
                continue;
            kernels.current = i;
            memcpy(fake_place.thread, kernels.fibers[i].thread, sizeof fake_place.thread);
            SWITCH(&kernels.home, &kernels.fibers[i]);
        }
        if (!release_barriers(&living) && living)
            stop_hanging();
    }
}

static void run_block_without_barriers(void) {
    const uint32_t *size = fake_place.block_size;
    uint32_t *at = fake_place.thread;
    for (at[2] = 0; at[2] < size[2]; at[2]++)
        for (at[1] = 0; at[1] < size[1]; at[1]++)
            for (at[0] = 0; at[0] < size[0]; at[0]++)
                kernels.thread(kernels.params);
}

static void run_grid(const command *launch) {
    const function *of = &kernels.functions[launch->function];
    void *params[MAX_PARAMS];
    const char *at = (const char *)(launch + 1);
    for (uint32_t i = 0; i < of->info->num_params; i++) {
        params[i] = (void *)(uintptr_t)at;
        uint64_t pointer;
        if (of->info->is_pointer[i]) {
            memcpy(&pointer, at, sizeof pointer);
            if (pointer && !is_gpu_address(pointer)) { /* by chance we may have something there */
                fail(launch->device, 700, "argument %u of %s, 0x%llx, is no address of the GPU", i,
                     of->name, (unsigned long long)pointer);
                leave_command(-700);
            }
        }
        at += (of->info->param_bytes[i] + 15) & ~15u;
    }
    kernels.name = of->name;
    kernels.device = launch->device;
    kernels.thread = of->thread;
    kernels.params = params;
    memcpy(fake_place.block_size, launch->block, sizeof launch->block);
    memcpy(fake_place.grid_size, launch->grid, sizeof launch->grid);
    kernels.num_fibers = launch->block[0] * launch->block[1] * launch->block[2];
    uint32_t *block = fake_place.block;
    for (block[2] = 0; block[2] < launch->grid[2]; block[2]++)
        for (block[1] = 0; block[1] < launch->grid[1]; block[1]++)
            for (block[0] = 0; block[0] < launch->grid[0]; block[0]++)
                (of->info->has_barriers ? run_block : run_block_without_barriers)();
}

int run_kernel(const command *launch) {
    if (!kernels.stacks) {
        kernels.stacks =
            mmap((void *)STACKS_AT, (size_t)MAX_THREADS * FIBER_STACK, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (kernels.stacks == MAP_FAILED)
            return 2;
    }
    return guarded(run_grid, launch);
}
