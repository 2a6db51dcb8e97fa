#include "memory.h"

#include <stdlib.h>
#include <string.h>

int cpga_memory_init(cpga_memory *self, const cpga_problem *problem) {
    int64_t events = 2 * ((int64_t)problem->num_tasks + problem->num_edges);
    memset(self, 0, sizeof *self);
    self->problem = problem;
    if (!problem->has_memory_limit)
        return CPGA_OK;
    self->event = cpga_calloc(events, (int64_t)sizeof *self->event);
    self->last_use = cpga_calloc(problem->num_devices, (int64_t)sizeof *self->last_use);
    self->peak = cpga_calloc(problem->num_devices, (int64_t)sizeof *self->peak);
    if (self->event != NULL && self->last_use != NULL && self->peak != NULL)
        return CPGA_OK;
    cpga_memory_free(self);
    return CPGA_ERR_MEMORY;
}

void cpga_memory_free(cpga_memory *self) {
    free(self->event);
    free(self->last_use);
    free(self->peak);
    memset(self, 0, sizeof *self);
}

static int compare_int64(int64_t a, int64_t b) { return (a > b) - (a < b); }

/* By device, then time; what disappears goes before what appears at the same moment. */
static int compare_events(const void *a, const void *b) {
    const cpga_memory_event *first = a, *second = b;
    int by_device = compare_int64(first->device, second->device);
    int by_time = compare_int64(first->time, second->time);
    if (by_device != 0)
        return by_device;
    return by_time != 0 ? by_time : compare_int64(first->change, second->change);
}

static int64_t add_interval(cpga_memory *self, int64_t count, int32_t device, int64_t begin,
                            int64_t end, int64_t bytes) {
    if (end <= begin)
        return count;
    self->event[count++] = (cpga_memory_event){begin, bytes, device};
    self->event[count++] = (cpga_memory_event){end, -bytes, device};
    return count;
}

/* Add the intervals during which the outputs of one task are held somewhere. */
static int64_t add_task(cpga_memory *self, int64_t count, const int32_t *device,
                        const int64_t *finish, int32_t task, int64_t end_of_all) {
    const cpga_problem *problem = self->problem;
    int32_t home = device[task], begin = problem->succ_begin[task];
    int32_t stop = problem->succ_begin[task + 1];
    int64_t bytes = problem->output_bytes[task], last = -1;
    if (bytes == 0)
        return count;
    for (int32_t i = begin; i < stop; i++)
        self->last_use[device[problem->succ[i].task]] = -1;
    for (int32_t i = begin; i < stop; i++) {
        int32_t reader = problem->succ[i].task;
        int64_t *use = &self->last_use[device[reader]];
        *use = cpga_max(*use, finish[reader]);
        last = cpga_max(last, finish[reader]);
    }
    int64_t start = finish[task] - cpga_exec(problem, task, home);
    count = add_interval(self, count, home, start, begin == stop ? end_of_all : last, bytes);
    for (int32_t i = begin; i < stop; i++) {
        int32_t on = device[problem->succ[i].task];
        if (on != home && self->last_use[on] >= 0)
            count = add_interval(self, count, on, finish[task], self->last_use[on], bytes);
        self->last_use[on] = -1; /* once per device */
    }
    return count;
}

int64_t cpga_memory_overflow(cpga_memory *self, const int32_t *device, const int64_t *finish) {
    const cpga_problem *problem = self->problem;
    int64_t count = 0, end_of_all = 0, overflow = 0, level = 0;
    if (!problem->has_memory_limit)
        return 0;
    memset(self->peak, 0, (size_t)problem->num_devices * sizeof *self->peak);
    for (int32_t task = 0; task < problem->num_tasks; task++)
        end_of_all = cpga_max(end_of_all, finish[task]);
    for (int32_t task = 0; task < problem->num_tasks; task++)
        count = add_task(self, count, device, finish, task, end_of_all);
    qsort(self->event, (size_t)count, sizeof *self->event, compare_events);
    for (int64_t i = 0; i < count; i++) {
        /* Every device's changes sum to zero, so the level is back at zero where the next begins.
         */
        level += self->event[i].change;
        int64_t *peak = &self->peak[self->event[i].device];
        *peak = cpga_max(*peak, level);
    }
    for (int32_t task = 0; task < problem->num_tasks; task++)
        self->peak[device[task]] += cpga_weight(problem, task, device[task]);
    for (int32_t on = 0; on < problem->num_devices; on++) {
        if (problem->memory_bytes[on] != CPGA_UNLIMITED)
            overflow += cpga_max(0, self->peak[on] - problem->memory_bytes[on]);
    }
    return overflow;
}
