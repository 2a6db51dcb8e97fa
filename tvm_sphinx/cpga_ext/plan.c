#include "plan.h"

#include <stdlib.h>
#include <string.h>

int cpga_plan_init(cpga_plan *self, const cpga_problem *problem)
{
    int64_t tasks = problem->num_tasks, rows = (tasks + 1) * problem->num_resources;
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->order = cpga_calloc(tasks, (int64_t) sizeof *self->order);
    self->position = cpga_calloc(tasks, (int64_t) sizeof *self->position);
    self->device = cpga_calloc(tasks, (int64_t) sizeof *self->device);
    self->window = cpga_calloc(tasks, (int64_t) sizeof *self->window);
    self->finish = cpga_calloc(tasks, (int64_t) sizeof *self->finish);
    self->rest = cpga_calloc(tasks, (int64_t) sizeof *self->rest);
    self->delivered = cpga_calloc(tasks, (int64_t) sizeof *self->delivered);
    self->trial_finish = cpga_calloc(tasks, (int64_t) sizeof *self->trial_finish);
    self->free_at = cpga_calloc(rows, (int64_t) sizeof *self->free_at);
    self->need = cpga_calloc(rows, (int64_t) sizeof *self->need);
    self->trial_free = cpga_calloc(problem->num_resources, (int64_t) sizeof *self->trial_free);
    if (self->order == NULL || self->position == NULL || self->device == NULL
        || self->window == NULL || self->finish == NULL || self->rest == NULL
        || self->delivered == NULL || self->trial_finish == NULL || self->free_at == NULL
        || self->need == NULL || self->trial_free == NULL) {
        cpga_plan_free(self);
        return CPGA_ERR_MEMORY;
    }
    return CPGA_OK;
}

void cpga_plan_free(cpga_plan *self)
{
    free(self->order);
    free(self->position);
    free(self->device);
    free(self->window);
    free(self->finish);
    free(self->rest);
    free(self->delivered);
    free(self->trial_finish);
    free(self->free_at);
    free(self->need);
    free(self->trial_free);
    memset(self, 0, sizeof *self);
}


/* Store a row of resource times; true if that changed it. */
static inline int store_row(int64_t *row, const int64_t *values, int32_t count)
{
    int64_t difference = 0;
    for (int32_t r = 0; r < count; r++) {
        difference |= row[r] ^ values[r];
        row[r] = values[r];
    }
    return difference != 0;
}

/* Recompute the heads from a place on; past `last` stop where nothing differs any more. */
static void update_heads(cpga_plan *self, int32_t first, int32_t last)
{
    const cpga_problem *problem = self->problem;
    int32_t resources = problem->num_resources, dirty = last;
    int64_t *row = self->free_at + (int64_t) first * resources, *values = self->trial_free;
    memcpy(values, row, (size_t) resources * sizeof *values);
    for (int32_t p = first; p < problem->num_tasks; p++) {
        int32_t task = self->order[p], on = self->device[task];
        int32_t begin = problem->resource_begin[on], stop = problem->resource_begin[on + 1];
        int64_t cell = (int64_t) task * problem->num_devices + on;
        int64_t end = cpga_ready_ns(problem, self->device, self->finish, task, on);
        for (int32_t i = begin; i < stop; i++)
            end = cpga_max(end, values[problem->resource[i]]);
        end += problem->exec_ns[cell];
        for (int32_t i = begin; i < stop; i++)
            values[problem->resource[i]] = end;
        if (p <= last || self->finish[task] != end) {
            for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++)
                dirty = cpga_imax(dirty, self->position[problem->succ[i].task]);
        }
        self->finish[task] = end;
        self->delivered[task] = end + problem->delivery_ns[cell];
        row += resources;
        if (!store_row(row, values, resources) && p >= dirty)
            break;
    }
}

/* How long the schedule still runs once a task has finished on a device, by its data alone. */
static inline int64_t data_tail_ns(const cpga_plan *self, int32_t task, int32_t on)
{
    const cpga_problem *problem = self->problem;
    int64_t tail = problem->delivery_ns[(int64_t) task * problem->num_devices + on];
    for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
        cpga_edge edge = problem->succ[i];
        int64_t copy = cpga_copy(problem, edge.copy, on, self->device[edge.task]);
        tail = cpga_max(tail, copy + self->rest[edge.task]);
    }
    return tail;
}

/* Recompute the tails from a place down; before `first` stop where nothing differs any more. */
static void update_tails(cpga_plan *self, int32_t first, int32_t last)
{
    const cpga_problem *problem = self->problem;
    int32_t resources = problem->num_resources, dirty = first;
    int64_t *row = self->need + ((int64_t) last + 1) * resources, *values = self->trial_free;
    memcpy(values, row, (size_t) resources * sizeof *values);
    for (int32_t p = last; p >= 0; p--) {
        int32_t task = self->order[p], on = self->device[task];
        int32_t begin = problem->resource_begin[on], stop = problem->resource_begin[on + 1];
        int64_t rest = data_tail_ns(self, task, on);
        for (int32_t i = begin; i < stop; i++)
            rest = cpga_max(rest, values[problem->resource[i]]);
        rest += cpga_exec(problem, task, on);
        for (int32_t i = begin; i < stop; i++)
            values[problem->resource[i]] = rest;
        if (p >= first || self->rest[task] != rest) {
            for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++)
                dirty = cpga_imin(dirty, self->position[problem->pred[i].task]);
        }
        self->rest[task] = rest;
        row -= resources;
        if (!store_row(row, values, resources) && p <= dirty)
            break;
    }
}

static void update(cpga_plan *self, int32_t first, int32_t last)
{
    update_heads(self, first, last);
    update_tails(self, first, last);
    int64_t makespan = 0;
    for (int32_t task = 0; task < self->problem->num_tasks; task++)
        makespan = cpga_max(makespan, self->delivered[task]);
    self->makespan = makespan;
}

void cpga_plan_load(cpga_plan *self, const int32_t *order, const int32_t *device)
{
    int32_t tasks = self->problem->num_tasks;
    size_t row = (size_t) self->problem->num_resources * sizeof *self->need;
    if (order != self->order)
        memcpy(self->order, order, (size_t) tasks * sizeof *order);
    if (device != self->device)
        memcpy(self->device, device, (size_t) tasks * sizeof *device);
    for (int32_t p = 0; p < tasks; p++)
        self->position[self->order[p]] = p;
    memset(self->free_at, 0, row);
    memset(self->need + (int64_t) tasks * self->problem->num_resources, 0, row);
    self->makespan = 0;
    if (tasks > 0)
        update(self, 0, tasks - 1);
}

int64_t cpga_plan_try(cpga_plan *self, int32_t first, int32_t last, int64_t limit)
{
    const cpga_problem *problem = self->problem;
    int32_t resources = problem->num_resources, devices = problem->num_devices;
    const int64_t *need = self->need + ((int64_t) last + 1) * resources;
    int64_t *values = self->trial_free, *trial = self->trial_finish, longest = 0;
    memcpy(values, self->free_at + (int64_t) first * resources, (size_t) resources * sizeof *values);
    for (int32_t p = 0; p <= last - first; p++) {
        int32_t task = self->window[p], on = self->device[task];
        int64_t cell = (int64_t) task * devices + on, end = problem->release_ns[cell];
        for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++) {
            cpga_edge edge = problem->pred[i];
            const int64_t *at = self->position[edge.task] >= first ? trial : self->finish;
            end = cpga_max(
                end, at[edge.task] + cpga_copy(problem, edge.copy, self->device[edge.task], on));
        }
        int32_t begin = problem->resource_begin[on], stop = problem->resource_begin[on + 1];
        for (int32_t i = begin; i < stop; i++)
            end = cpga_max(end, values[problem->resource[i]]);
        end += problem->exec_ns[cell];
        trial[task] = end;
        int64_t tail = problem->delivery_ns[cell];
        for (int32_t i = begin; i < stop; i++) {
            values[problem->resource[i]] = end;
            tail = cpga_max(tail, need[problem->resource[i]]);
        }
        for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
            cpga_edge edge = problem->succ[i];
            if (self->position[edge.task] > last)
                tail = cpga_max(tail,
                    cpga_copy(problem, edge.copy, on, self->device[edge.task])
                        + self->rest[edge.task]);
        }
        longest = cpga_max(longest, end + tail);
        if (longest > limit)
            return CPGA_ABOVE_LIMIT;
    }
    return longest;
}

void cpga_plan_apply(cpga_plan *self, int32_t first, int32_t last)
{
    for (int32_t p = first; p <= last; p++) {
        self->order[p] = self->window[p - first];
        self->position[self->order[p]] = p;
    }
    update(self, first, last);
}

void cpga_plan_sort(cpga_plan *self)
{
    cpga_sort_by_start(self->problem, self->device, self->finish, self->order);
    cpga_plan_load(self, self->order, self->device);
}

int32_t cpga_plan_critical(const cpga_plan *self, int32_t *critical)
{
    const cpga_problem *problem = self->problem;
    int32_t count = 0;
    for (int32_t p = 0; p < problem->num_tasks; p++) {
        int32_t task = self->order[p];
        int64_t start = self->finish[task] - cpga_exec(problem, task, self->device[task]);
        if (start + self->rest[task] == self->makespan)
            critical[count++] = task;
    }
    return count;
}
