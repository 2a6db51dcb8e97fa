#include "decode.h"

#include <stdlib.h>
#include <string.h>

int cpga_timeline_init(cpga_timeline *self, const cpga_problem *problem) {
    int64_t resources = problem->num_resources;
    self->problem = problem;
    self->gap =
        cpga_calloc(resources * ((int64_t)problem->num_tasks + 1), (int64_t)sizeof *self->gap);
    self->num_gaps = cpga_calloc(resources, (int64_t)sizeof *self->num_gaps);
    self->free_at = cpga_calloc(resources, (int64_t)sizeof *self->free_at);
    if (self->gap == NULL || self->num_gaps == NULL || self->free_at == NULL) {
        cpga_timeline_free(self);
        return CPGA_ERR_MEMORY;
    }
    cpga_timeline_clear(self);
    return CPGA_OK;
}

void cpga_timeline_free(cpga_timeline *self) {
    free(self->gap);
    free(self->num_gaps);
    free(self->free_at);
    memset(self, 0, sizeof *self);
}

static cpga_gap *gaps_of(const cpga_timeline *self, int32_t resource) {
    return self->gap + (int64_t)resource * (self->problem->num_tasks + 1);
}

void cpga_timeline_clear(cpga_timeline *self) {
    for (int32_t r = 0; r < self->problem->num_resources; r++) {
        cpga_gap *gap = gaps_of(self, r);
        gap->begin = 0;
        gap->end = INT64_MAX;
        self->num_gaps[r] = 1;
        self->free_at[r] = 0;
    }
}

/* The earliest start on one resource. Most tasks start near its end: look from there. */
static inline int64_t find_gap(const cpga_gap *gap, int32_t count, int64_t ready, int64_t length) {
    int32_t i = count - 1;
    while (i > 0 && gap[i - 1].end >= ready + length)
        i--;
    for (;; i++) {
        int64_t start = cpga_max(gap[i].begin, ready);
        if (start + length <= gap[i].end)
            return start;
    }
}

/* Split the gap that holds [start, end]; pieces that no task fits are dropped. */
static inline void take_gap(cpga_gap *gap, int32_t *count, int64_t start, int64_t end,
                            int64_t shortest) {
    int32_t i = *count - 1;
    while (gap[i].begin > start || gap[i].end < end)
        i--;
    int64_t left = start - gap[i].begin, right = gap[i].end - end;
    int keep_left = left > 0 && left >= shortest;
    int keep_right = right > 0 && right >= shortest;
    if (keep_left && keep_right) {
        memmove(gap + i + 1, gap + i, (size_t)(*count - i) * sizeof *gap);
        gap[i].end = start;
        gap[i + 1].begin = end;
        (*count)++;
    } else if (keep_left) {
        gap[i].end = start;
    } else if (keep_right) {
        gap[i].begin = end;
    } else {
        memmove(gap + i, gap + i + 1, (size_t)(*count - i - 1) * sizeof *gap);
        (*count)--;
    }
}

static int64_t find_common_gap(const cpga_timeline *self, int32_t device, int64_t ready,
                               int64_t length) {
    const cpga_problem *problem = self->problem;
    int64_t start = ready;
    for (;;) {
        int64_t latest = start;
        for (int32_t i = problem->resource_begin[device]; i < problem->resource_begin[device + 1];
             i++) {
            int32_t r = problem->resource[i];
            latest = find_gap(gaps_of(self, r), self->num_gaps[r], latest, length);
        }
        if (latest == start)
            return start;
        start = latest;
    }
}

int64_t cpga_timeline_find(const cpga_timeline *self, int32_t device, int64_t ready, int64_t length,
                           cpga_rule rule) {
    const cpga_problem *problem = self->problem;
    int32_t begin = problem->resource_begin[device], end = problem->resource_begin[device + 1];
    if (rule == CPGA_INSERT) {
        int32_t r = problem->resource[begin];
        if (end - begin == 1)
            return find_gap(gaps_of(self, r), self->num_gaps[r], ready, length);
        return find_common_gap(self, device, ready, length);
    }
    for (int32_t i = begin; i < end; i++)
        ready = cpga_max(ready, self->free_at[problem->resource[i]]);
    return ready;
}

void cpga_timeline_take(cpga_timeline *self, int32_t device, int64_t start, int64_t length) {
    const cpga_problem *problem = self->problem;
    int64_t end = start + length;
    for (int32_t i = problem->resource_begin[device]; i < problem->resource_begin[device + 1];
         i++) {
        int32_t r = problem->resource[i];
        take_gap(gaps_of(self, r), &self->num_gaps[r], start, end, problem->shortest_ns[r]);
        self->free_at[r] = cpga_max(self->free_at[r], end);
    }
}

int64_t cpga_ready_ns(const cpga_problem *problem, const int32_t *device, const int64_t *finish,
                      int32_t task, int32_t on) {
    int32_t devices = problem->num_devices;
    int64_t ready = problem->release_ns[(int64_t)task * devices + on];
    const int64_t *copy_ns = problem->copy_ns + on * devices;
    int32_t end = problem->pred_begin[task + 1];
    for (int32_t i = problem->pred_begin[task]; i < end; i++) {
        cpga_edge edge = problem->pred[i];
        ready = cpga_max(ready, finish[edge.task] + copy_ns[edge.copy + device[edge.task]]);
    }
    return ready;
}

static int64_t decode_append(cpga_timeline *self, const int32_t *order, const int32_t *device,
                             int64_t *finish) {
    const cpga_problem *problem = self->problem;
    int64_t makespan = 0, *free_at = self->free_at;
    for (int32_t r = 0; r < problem->num_resources; r++)
        free_at[r] = 0;
    for (int32_t p = 0; p < problem->num_tasks; p++) {
        int32_t task = order[p], on = device[task];
        int64_t cell = (int64_t)task * problem->num_devices + on;
        int64_t end = cpga_ready_ns(problem, device, finish, task, on);
        int32_t first = problem->resource_begin[on], last = problem->resource_begin[on + 1];
        for (int32_t i = first; i < last; i++)
            end = cpga_max(end, free_at[problem->resource[i]]);
        end += problem->exec_ns[cell];
        for (int32_t i = first; i < last; i++)
            free_at[problem->resource[i]] = end;
        finish[task] = end;
        makespan = cpga_max(makespan, end + problem->delivery_ns[cell]);
    }
    return makespan;
}

int64_t cpga_decode(cpga_timeline *self, const int32_t *order, const int32_t *device,
                    cpga_rule rule, int64_t *finish) {
    const cpga_problem *problem = self->problem;
    if (rule == CPGA_APPEND)
        return decode_append(self, order, device, finish);
    int64_t makespan = 0;
    cpga_timeline_clear(self);
    for (int32_t p = 0; p < problem->num_tasks; p++) {
        int32_t task = order[p], on = device[task];
        int64_t cell = (int64_t)task * problem->num_devices + on;
        int64_t ready = cpga_ready_ns(problem, device, finish, task, on);
        int64_t length = problem->exec_ns[cell];
        int64_t start = cpga_timeline_find(self, on, ready, length, rule);
        cpga_timeline_take(self, on, start, length);
        finish[task] = start + length;
        makespan = cpga_max(makespan, finish[task] + problem->delivery_ns[cell]);
    }
    return makespan;
}

int cpga_check_order(const cpga_problem *problem, const int64_t *order, int32_t *position) {
    int32_t tasks = problem->num_tasks;
    for (int32_t task = 0; task < tasks; task++)
        position[task] = -1;
    for (int32_t p = 0; p < tasks; p++) {
        if (order[p] < 0 || order[p] >= tasks || position[order[p]] != -1)
            return CPGA_ERR_NOT_TOPOLOGICAL;
        position[order[p]] = p;
    }
    for (int32_t task = 0; task < tasks; task++) {
        for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++) {
            if (position[problem->pred[i].task] > position[task])
                return CPGA_ERR_NOT_TOPOLOGICAL;
        }
    }
    return CPGA_OK;
}

int cpga_check_chromosome(const cpga_problem *problem, const int64_t *order, const int64_t *device,
                          int32_t *position) {
    int status = cpga_check_order(problem, order, position);
    for (int32_t task = 0; task < problem->num_tasks && status == CPGA_OK; task++) {
        if (device[task] < 0 || device[task] >= problem->num_devices ||
            cpga_exec(problem, task, (int32_t)device[task]) == CPGA_CANNOT_RUN)
            return CPGA_ERR_DEVICE;
        int32_t set = problem->sets.of_task[task];
        if (device[problem->sets.members[problem->sets.begin[set]]] != device[task])
            return CPGA_ERR_DEVICE;
    }
    return status;
}

void cpga_sort_by_start(const cpga_problem *problem, const int32_t *device, const int64_t *finish,
                        int32_t *order) {
    for (int32_t p = 1; p < problem->num_tasks; p++) {
        int32_t task = order[p], q = p;
        int64_t end = finish[task], start = end - cpga_exec(problem, task, device[task]);
        for (; q > 0; q--) {
            int32_t other = order[q - 1];
            int64_t other_end = finish[other];
            int64_t other_start = other_end - cpga_exec(problem, other, device[other]);
            if (other_start < start || (other_start == start && other_end <= end))
                break;
            order[q] = other;
        }
        order[q] = task;
    }
}
