/* Times a compute-bound and a memory-bound kernel on each core in turn. Loaded with ctypes. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Calls of each kernel in one turn of a core; the least time counts. */
enum { COMPUTE_CALLS = 32, MEMORY_CALLS = 3 };
/* Of the memory-bound kernel: more than a core's own caches. */
enum { BUFFER_BYTES = 8 << 20 };
enum { COMPUTE_STEPS = 12000, ACCUMULATORS = 10 };

typedef float vector __attribute__((vector_size(32)));

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Chains of products and sums that do not depend on each other, as those of a matrix product. */
#define COMPUTE_BODY                                                                               \
    vector sums[ACCUMULATORS], factor = {0}, total = {0};                                          \
    for (int k = 0; k < 8; k++)                                                                    \
        factor[k] = 0.999f;                                                                        \
    for (int i = 0; i < ACCUMULATORS; i++)                                                         \
        sums[i] = factor * (float)i;                                                               \
    for (int step = 0; step < COMPUTE_STEPS; step++)                                               \
        for (int i = 0; i < ACCUMULATORS; i++)                                                     \
            sums[i] = sums[i] * factor + factor;                                                   \
    for (int i = 0; i < ACCUMULATORS; i++)                                                         \
        total += sums[i];                                                                          \
    return total[0] + total[7];

static float compute_plain(void) { COMPUTE_BODY }

#if defined(__x86_64__)
/* What kernels of an x86 processor are made of, if it has these instructions. */
__attribute__((target("avx2,fma"))) static float compute_wide(void) { COMPUTE_BODY }

static float compute(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? compute_wide()
                                                                           : compute_plain();
}
#else
static float compute(void) { return compute_plain(); }
#endif

static uint64_t read_through(const uint64_t *buffer) {
    uint64_t sums[4] = {0};
    for (size_t i = 0; i < BUFFER_BYTES / sizeof *buffer; i += 4)
        for (size_t k = 0; k < 4; k++)
            sums[k] += buffer[i + k];
    return sums[0] + sums[1] + sums[2] + sums[3];
}

typedef struct {
    double slowed; /* by how much the core is made slower; 1 leaves it as it is */
    int64_t compute_ns, memory_ns;
    volatile uint64_t sink;
} turn;

/* Return how long what began then has taken, after the wait of a core that is made slower. */
static int64_t taken_ns(const turn *self, int64_t begin) {
    int64_t end = now_ns(), until = begin + (int64_t)((double)(end - begin) * self->slowed);
    while (end < until)
        end = now_ns();
    return end - begin;
}

static void keep_least(int64_t *least, int64_t taken) {
    if (*least == 0 || taken < *least)
        *least = taken;
}

static void *take_turn(void *argument) {
    turn *self = argument;
    uint64_t *buffer = aligned_alloc(4096, BUFFER_BYTES);
    if (!buffer)
        return NULL;
    memset(buffer, 1, BUFFER_BYTES); /* on this core's node */
    for (int i = 0; i < MEMORY_CALLS; i++) {
        int64_t begin = now_ns();
        self->sink = read_through(buffer);
        keep_least(&self->memory_ns, taken_ns(self, begin));
    }
    for (int i = 0; i < COMPUTE_CALLS; i++) {
        int64_t begin = now_ns();
        self->sink = (uint64_t)compute();
        keep_least(&self->compute_ns, taken_ns(self, begin));
    }
    free(buffer);
    return NULL;
}

static int run_on_core(int32_t core, turn *self) {
    size_t number = (size_t)core, size = CPU_ALLOC_SIZE(number + 1);
    pthread_t thread;
    pthread_attr_t attributes;
    cpu_set_t *set = CPU_ALLOC(number + 1);
    if (!set)
        return -1;
    CPU_ZERO_S(size, set);
    CPU_SET_S(number, size, set);
    pthread_attr_init(&attributes);
    int status = pthread_attr_setaffinity_np(&attributes, size, set) ||
                 pthread_create(&thread, &attributes, take_turn, self);
    if (status == 0)
        pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    CPU_FREE(set);
    return status == 0 && self->compute_ns > 0 ? 0 : -1;
}

/* Time the kernels on each of `count` cores in turn, until `budget_ns` is over or `max_rounds` are
 * done, twice at least; write the least times to `compute_ns` and `memory_ns`. Return 0, or the
 * 1-based position of a core that no thread can be bound to. */
int core_probe(int32_t count, const int32_t *cores, const double *slowed, int32_t max_rounds,
               int64_t budget_ns, int64_t *compute_ns, int64_t *memory_ns);

int core_probe(int32_t count, const int32_t *cores, const double *slowed, int32_t max_rounds,
               int64_t budget_ns, int64_t *compute_ns, int64_t *memory_ns) {
    int64_t begin = now_ns(), last = 0;
    memset(compute_ns, 0, (size_t)count * sizeof *compute_ns);
    memset(memory_ns, 0, (size_t)count * sizeof *memory_ns);
    for (int32_t round = 0; round < max_rounds; round++) {
        int64_t round_begin = now_ns();
        if (round >= 2 && round_begin - begin + last > budget_ns)
            break;
        for (int32_t i = 0; i < count; i++) {
            turn each = {.slowed = slowed[i]};
            if (run_on_core(cores[i], &each) != 0)
                return i + 1;
            keep_least(&compute_ns[i], each.compute_ns);
            keep_least(&memory_ns[i], each.memory_ns);
        }
        last = now_ns() - round_begin;
    }
    return 0;
}
