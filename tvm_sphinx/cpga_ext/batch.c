#include "batch.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define CPGA_HAVE_AVX512 1
#include <immintrin.h>
#else
#define CPGA_HAVE_AVX512 0
#endif

/* Lockstep lanes look times up in registers: up to 64 pairs of devices, times below 2**31. */
#define MAX_WIDE_DEVICES 8
#define MAX_WIDE_RESOURCES 16

static int machine_is_wide(void) {
#if CPGA_HAVE_AVX512
    return __builtin_cpu_supports("avx512f");
#else
    return 0;
#endif
}

/* Memory aligned to a cache line, zeroed. */
static int32_t *alloc_rows(int64_t rows, int64_t width) {
    size_t bytes = (size_t)(rows + 1) * (size_t)width * sizeof(int32_t);
    bytes = (bytes + 63) / 64 * 64;
    int32_t *memory = aligned_alloc(64, bytes);
    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

static void fill_rows(const cpga_problem *problem, const int64_t *from, int32_t *to) {
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        for (int32_t on = 0; on < problem->num_devices; on++) {
            int64_t value = from[(int64_t)task * problem->num_devices + on];
            to[(int64_t)task * CPGA_LANES + on] = (int32_t)value;
        }
    }
}

static int init_wide(cpga_batch *self) {
    const cpga_problem *problem = self->problem;
    int32_t pairs = problem->num_devices * problem->num_devices;
    self->stride = pairs <= CPGA_LANES ? CPGA_LANES : 4 * CPGA_LANES;
    self->copy = alloc_rows(problem->num_classes, self->stride);
    self->exec = alloc_rows(problem->num_tasks, CPGA_LANES);
    self->release = alloc_rows(problem->num_tasks, CPGA_LANES);
    self->delivery = alloc_rows(problem->num_tasks, CPGA_LANES);
    self->finish = alloc_rows(problem->num_tasks, CPGA_LANES);
    if (self->copy == NULL || self->exec == NULL || self->release == NULL ||
        self->delivery == NULL || self->finish == NULL)
        return CPGA_ERR_MEMORY;
    for (int64_t row = 0; row < problem->num_classes; row++) {
        for (int32_t i = 0; i < pairs; i++)
            self->copy[row * self->stride + i] = (int32_t)problem->copy_ns[row * pairs + i];
    }
    fill_rows(problem, problem->exec_ns, self->exec);
    fill_rows(problem, problem->release_ns, self->release);
    fill_rows(problem, problem->delivery_ns, self->delivery);
    for (int32_t on = 0; on < problem->num_devices; on++) {
        for (int32_t i = problem->resource_begin[on]; i < problem->resource_begin[on + 1]; i++)
            self->uses[on] |= 1 << problem->resource[i];
    }
    return CPGA_OK;
}

int cpga_batch_init(cpga_batch *self, const cpga_problem *problem, int allow_wide) {
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->wide = allow_wide && machine_is_wide() && problem->num_devices <= MAX_WIDE_DEVICES &&
                 problem->num_resources <= MAX_WIDE_RESOURCES && problem->total_ns < INT32_MAX;
    self->lane_device = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->lane_device);
    self->lane_finish = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->lane_finish);
    int status = cpga_timeline_init(&self->timeline, problem);
    if (self->lane_device == NULL || self->lane_finish == NULL)
        status = CPGA_ERR_MEMORY;
    if (status == CPGA_OK && self->wide)
        status = init_wide(self);
    if (status != CPGA_OK)
        cpga_batch_free(self);
    return status;
}

void cpga_batch_free(cpga_batch *self) {
    free(self->copy);
    free(self->exec);
    free(self->release);
    free(self->delivery);
    free(self->finish);
    free(self->lane_device);
    free(self->lane_finish);
    cpga_timeline_free(&self->timeline);
    memset(self, 0, sizeof *self);
}

#if CPGA_HAVE_AVX512

/* Look up 16 indices below 16 or 64 in a table of that length. */
__attribute__((target("avx512f"))) static inline __m512i look_up(const int32_t *table,
                                                                 int32_t stride, __m512i index) {
    __m512i first = _mm512_load_si512(table);
    if (stride == CPGA_LANES)
        return _mm512_permutexvar_epi32(index, first);
    __m512i low = _mm512_permutex2var_epi32(first, index, _mm512_load_si512(table + 16));
    __m512i high = _mm512_permutex2var_epi32(_mm512_load_si512(table + 32), index,
                                             _mm512_load_si512(table + 48));
    __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
    return _mm512_mask_mov_epi32(low, upper, high);
}

__attribute__((target("avx512f"))) static void
decode_wide(cpga_batch *self, const int32_t *order, const int32_t *device, int64_t *makespan) {
    const cpga_problem *problem = self->problem;
    int32_t stride = self->stride, resources = problem->num_resources;
    int32_t pairs = problem->num_devices * problem->num_devices;
    __m512i longest = _mm512_setzero_si512(), uses = _mm512_loadu_si512(self->uses);
    __m512i devices = _mm512_set1_epi32(problem->num_devices), free_at[MAX_WIDE_RESOURCES];
    for (int32_t r = 0; r < resources; r++)
        free_at[r] = _mm512_setzero_si512();
    for (int32_t p = 0; p < problem->num_tasks; p++) {
        int64_t task = order[p], row = task * CPGA_LANES;
        __m512i on = _mm512_loadu_si512(device + row);
        __m512i end = look_up(self->release + row, CPGA_LANES, on);
        __m512i base = _mm512_mullo_epi32(on, devices);
        for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++) {
            int64_t source = (int64_t)problem->pred[i].task * CPGA_LANES;
            const int32_t *table = self->copy + (int64_t)(problem->pred[i].copy / pairs) * stride;
            __m512i index = _mm512_add_epi32(base, _mm512_loadu_si512(device + source));
            __m512i arrival = _mm512_add_epi32(_mm512_load_si512(self->finish + source),
                                               look_up(table, stride, index));
            end = _mm512_max_epi32(end, arrival);
        }
        __m512i bits = _mm512_permutexvar_epi32(on, uses);
        for (int32_t r = 0; r < resources; r++) {
            __mmask16 used = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(1 << r));
            end = _mm512_mask_max_epi32(end, used, end, free_at[r]);
        }
        end = _mm512_add_epi32(end, look_up(self->exec + row, CPGA_LANES, on));
        for (int32_t r = 0; r < resources; r++) {
            __mmask16 used = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(1 << r));
            free_at[r] = _mm512_mask_mov_epi32(free_at[r], used, end);
        }
        _mm512_store_si512(self->finish + row, end);
        __m512i delivered = _mm512_add_epi32(end, look_up(self->delivery + row, CPGA_LANES, on));
        longest = _mm512_max_epi32(longest, delivered);
    }
    int32_t lanes[CPGA_LANES];
    _mm512_storeu_si512(lanes, longest);
    for (int lane = 0; lane < CPGA_LANES; lane++)
        makespan[lane] = lanes[lane];
}

#endif

static void decode_scalar(cpga_batch *self, const int32_t *order, const int32_t *device,
                          int64_t *makespan) {
    for (int lane = 0; lane < CPGA_LANES; lane++) {
        for (int32_t task = 0; task < self->problem->num_tasks; task++)
            self->lane_device[task] = device[(int64_t)task * CPGA_LANES + lane];
        makespan[lane] =
            cpga_decode(&self->timeline, order, self->lane_device, CPGA_APPEND, self->lane_finish);
    }
}

void cpga_batch_decode(cpga_batch *self, const int32_t *order, const int32_t *device,
                       int64_t *makespan) {
#if CPGA_HAVE_AVX512
    if (self->wide) {
        decode_wide(self, order, device, makespan);
        return;
    }
#endif
    decode_scalar(self, order, device, makespan);
}
