#include "longest_paths.h"

#include <stdlib.h>
#include <string.h>

int cpga_paths_init(cpga_paths *self, const cpga_problem *problem) {
    int64_t tasks = problem->num_tasks, rows = (tasks + 1) * problem->num_resources;
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->order = cpga_calloc(tasks, (int64_t)sizeof *self->order);
    self->position = cpga_calloc(tasks, (int64_t)sizeof *self->position);
    self->device = cpga_calloc(tasks, (int64_t)sizeof *self->device);
    self->window = cpga_calloc(tasks, (int64_t)sizeof *self->window);
    self->home = cpga_calloc(tasks, (int64_t)sizeof *self->home);
    self->mark = cpga_calloc(tasks, (int64_t)sizeof *self->mark);
    self->differs = cpga_calloc(problem->num_resources, (int64_t)sizeof *self->differs);
    self->moved = -1;
    self->finish = cpga_calloc(tasks, (int64_t)sizeof *self->finish);
    self->rest = cpga_calloc(tasks, (int64_t)sizeof *self->rest);
    self->trial_finish = cpga_calloc(tasks, (int64_t)sizeof *self->trial_finish);
    self->free_at = cpga_calloc(rows, (int64_t)sizeof *self->free_at);
    self->need = cpga_calloc(rows, (int64_t)sizeof *self->need);
    self->trial_free = cpga_calloc(problem->num_resources, (int64_t)sizeof *self->trial_free);
    if (self->home == NULL || self->mark == NULL || self->differs == NULL || self->order == NULL ||
        self->position == NULL || self->device == NULL || self->window == NULL ||
        self->finish == NULL || self->rest == NULL || self->trial_finish == NULL ||
        self->free_at == NULL || self->need == NULL || self->trial_free == NULL) {
        cpga_paths_free(self);
        return CPGA_ERR_MEMORY;
    }
    return CPGA_OK;
}

void cpga_paths_free(cpga_paths *self) {
    free(self->order);
    free(self->position);
    free(self->device);
    free(self->window);
    free(self->home);
    free(self->mark);
    free(self->differs);
    free(self->finish);
    free(self->rest);
    free(self->trial_finish);
    free(self->free_at);
    free(self->need);
    free(self->trial_free);
    memset(self, 0, sizeof *self);
}

/* Store a row of resource times, and note which of them that changes; true if any. */
static inline int store_row(int64_t *row, const int64_t *values, char *differs, int32_t count) {
    int any = 0;
    for (int32_t r = 0; r < count; r++) {
        differs[r] = row[r] != values[r];
        any |= differs[r];
        row[r] = values[r];
    }
    return any;
}

/* Begin a new set of marked tasks; all resources differ, or none. */
static void begin_marking(cpga_paths *self, char differs) {
    if (self->stamp == INT32_MAX) {
        memset(self->mark, 0, (size_t)self->problem->num_tasks * sizeof *self->mark);
        self->stamp = 0;
    }
    self->stamp++;
    memset(self->differs, differs, (size_t)self->problem->num_resources);
}

/* True if a task has to be looked at: what it reads, or when its device is free, has changed. */
static inline int is_affected(const cpga_paths *self, int32_t task, int32_t begin, int32_t stop) {
    int affected = self->mark[task] == self->stamp;
    for (int32_t i = begin; i < stop; i++)
        affected |= self->differs[self->problem->resource[i]];
    return affected;
}

/* Recompute the heads of places first..stop_at; past `dirty` stop where nothing differs any more.
 * Tasks up to `changed` count as changed whatever they finish. */
static void update_heads(cpga_paths *self, int32_t first, int32_t changed, int32_t dirty,
                         int32_t stop_at) {
    const cpga_problem *problem = self->problem;
    int32_t resources = problem->num_resources;
    int64_t *row = self->free_at + (int64_t)first * resources, *values = self->trial_free;
    memcpy(values, row, (size_t)resources * sizeof *values);
    int32_t dirty_until = dirty;
    begin_marking(self, 1);
    for (int32_t p = first; p <= stop_at; p++) {
        int32_t task = self->order[p], on = self->device[task];
        int32_t begin = problem->resource_begin[on], stop = problem->resource_begin[on + 1];
        int64_t end = self->finish[task];
        if (p <= dirty || is_affected(self, task, begin, stop)) {
            end = cpga_ready_ns(problem, self->device, self->finish, task, on);
            for (int32_t i = begin; i < stop; i++)
                end = cpga_max(end, values[problem->resource[i]]);
            end += cpga_exec(problem, task, on);
        }
        for (int32_t i = begin; i < stop; i++)
            values[problem->resource[i]] = end;
        if (p <= changed || self->finish[task] != end) {
            for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
                int32_t reader = problem->succ[i].task;
                self->mark[reader] = self->stamp;
                dirty_until = cpga_imax(dirty_until, self->position[reader]);
            }
        }
        self->finish[task] = end;
        row += resources;
        if (!store_row(row, values, self->differs, resources) && p >= dirty_until)
            break;
    }
}

/* How long the schedule still runs once a task has finished on a device, by its data alone. */
static inline int64_t data_tail_ns(const cpga_paths *self, int32_t task, int32_t on) {
    const cpga_problem *problem = self->problem;
    int64_t tail = problem->delivery_ns[(int64_t)task * problem->num_devices + on];
    for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
        cpga_edge edge = problem->succ[i];
        int64_t copy = cpga_copy(problem, edge.copy, on, self->device[edge.task]);
        tail = cpga_max(tail, copy + self->rest[edge.task]);
    }
    return tail;
}

/* Recompute the tails of places last..stop_at, downwards; before `dirty` stop where nothing differs
 * any more. Tasks from `changed` on count as changed whatever their tail. */
static void update_tails(cpga_paths *self, int32_t last, int32_t changed, int32_t dirty,
                         int32_t stop_at) {
    const cpga_problem *problem = self->problem;
    int32_t resources = problem->num_resources, dirty_until = dirty;
    int64_t *row = self->need + ((int64_t)last + 1) * resources, *values = self->trial_free;
    memcpy(values, row, (size_t)resources * sizeof *values);
    begin_marking(self, 1);
    for (int32_t p = last; p >= stop_at; p--) {
        int32_t task = self->order[p], on = self->device[task];
        int32_t begin = problem->resource_begin[on], stop = problem->resource_begin[on + 1];
        int64_t rest = self->rest[task];
        if (p >= dirty || is_affected(self, task, begin, stop)) {
            rest = data_tail_ns(self, task, on);
            for (int32_t i = begin; i < stop; i++)
                rest = cpga_max(rest, values[problem->resource[i]]);
            rest += cpga_exec(problem, task, on);
        }
        for (int32_t i = begin; i < stop; i++)
            values[problem->resource[i]] = rest;
        if (p >= changed || self->rest[task] != rest) {
            for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++) {
                int32_t source = problem->pred[i].task;
                self->mark[source] = self->stamp;
                dirty_until = cpga_imin(dirty_until, self->position[source]);
            }
        }
        self->rest[task] = rest;
        row -= resources;
        if (!store_row(row, values, self->differs, resources) && p <= dirty_until)
            break;
    }
}

/* The longest path through the tasks in focus, or around them. */
static int64_t longest_path(const cpga_paths *self) {
    int64_t longest = self->around;
    for (int32_t p = self->begin; p <= self->end; p++) {
        int32_t task = self->order[p];
        int64_t length = cpga_exec(self->problem, task, self->device[task]);
        longest = cpga_max(longest, self->finish[task] - length + self->rest[task]);
    }
    return longest;
}

/* The longest path that no task in focus is on, from heads computed as if those tasks did not
 * exist. */
static int64_t path_around(cpga_paths *self) {
    const cpga_problem *problem = self->problem;
    int64_t *values = self->trial_free, *trial = self->trial_finish, longest = 0;
    memcpy(values, self->free_at + (int64_t)self->begin * problem->num_resources,
           (size_t)problem->num_resources * sizeof *values);
    for (int32_t p = 0; p < self->begin; p++) {
        int32_t task = self->order[p];
        int64_t cell = (int64_t)task * problem->num_devices + self->device[task];
        longest = cpga_max(longest, self->finish[task] + problem->delivery_ns[cell]);
    }
    for (int32_t p = self->end + 1; p < problem->num_tasks; p++) {
        int32_t task = self->order[p], on = self->device[task];
        int64_t cell = (int64_t)task * problem->num_devices + on, end = problem->release_ns[cell];
        for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++) {
            cpga_edge edge = problem->pred[i];
            int32_t place = self->position[edge.task];
            int64_t copy = cpga_copy(problem, edge.copy, self->device[edge.task], on);
            if (place < self->begin)
                end = cpga_max(end, self->finish[edge.task] + copy);
            else if (place > self->end)
                end = cpga_max(end, trial[edge.task] + copy);
        }
        int32_t begin = problem->resource_begin[on], stop = problem->resource_begin[on + 1];
        for (int32_t i = begin; i < stop; i++)
            end = cpga_max(end, values[problem->resource[i]]);
        end += problem->exec_ns[cell];
        for (int32_t i = begin; i < stop; i++)
            values[problem->resource[i]] = end;
        trial[task] = end;
        longest = cpga_max(longest, end + problem->delivery_ns[cell]);
    }
    return longest;
}

/* Bring heads right of the focus and tails left of it up to date. */
static void propagate(cpga_paths *self) {
    const cpga_problem *problem = self->problem;
    int32_t highest = 0, lowest = problem->num_tasks - 1;
    if (!self->touched)
        return;
    for (int32_t p = self->begin; p <= self->end; p++) {
        int32_t task = self->order[p];
        for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++)
            highest = cpga_imax(highest, self->position[problem->succ[i].task]);
        for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++)
            lowest = cpga_imin(lowest, self->position[problem->pred[i].task]);
    }
    update_heads(self, self->end + 1, self->end, highest, problem->num_tasks - 1);
    update_tails(self, self->begin - 1, self->begin, lowest, 0);
    self->touched = 0;
}

void cpga_paths_load(cpga_paths *self, const int32_t *order, const int32_t *device) {
    int32_t tasks = self->problem->num_tasks, last = tasks - 1;
    size_t row = (size_t)self->problem->num_resources * sizeof *self->need;
    if (order != self->order)
        memcpy(self->order, order, (size_t)tasks * sizeof *order);
    if (device != self->device)
        memcpy(self->device, device, (size_t)tasks * sizeof *device);
    for (int32_t p = 0; p < tasks; p++)
        self->position[self->order[p]] = p;
    memcpy(self->home, self->device, (size_t)tasks * sizeof *self->home);
    memset(self->free_at, 0, row);
    memset(self->need + (int64_t)tasks * self->problem->num_resources, 0, row);
    update_heads(self, 0, last, last, last);
    update_tails(self, last, 0, 0, 0);
    self->begin = 0;
    self->end = last;
    self->around = 0;
    self->touched = 0;
    self->makespan = longest_path(self);
}

void cpga_paths_focus(cpga_paths *self, int32_t begin, int32_t end) {
    propagate(self);
    self->begin = begin;
    self->end = end;
    self->around = path_around(self);
}

/* Note that the resources of a device are free at other times than before, or are not. */
static inline void note_device(cpga_paths *self, int32_t device, char differs) {
    const cpga_problem *problem = self->problem;
    for (int32_t i = problem->resource_begin[device]; i < problem->resource_begin[device + 1]; i++)
        self->differs[problem->resource[i]] = differs;
}

/* When a task of a window finishes, if that begins at place `first`. */
static inline int64_t trial_finish_ns(const cpga_paths *self, int32_t task, int32_t on,
                                      int32_t first) {
    const cpga_problem *problem = self->problem;
    int64_t cell = (int64_t)task * problem->num_devices + on, end = problem->release_ns[cell];
    const int64_t *copy_ns = problem->copy_ns + on * problem->num_devices;
    for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++) {
        cpga_edge edge = problem->pred[i];
        const int64_t *at = self->position[edge.task] >= first ? self->trial_finish : self->finish;
        end = cpga_max(end, at[edge.task] + copy_ns[edge.copy + self->device[edge.task]]);
    }
    for (int32_t i = problem->resource_begin[on]; i < problem->resource_begin[on + 1]; i++)
        end = cpga_max(end, self->trial_free[problem->resource[i]]);
    return end + problem->exec_ns[cell];
}

/* How long the schedule runs after a task that ends a path in the window; its readers are marked.
 */
static inline int64_t trial_tail_ns(cpga_paths *self, int32_t task, int32_t on, int32_t last) {
    const cpga_problem *problem = self->problem;
    const int64_t *need = self->need + ((int64_t)last + 1) * problem->num_resources;
    int64_t tail = problem->delivery_ns[(int64_t)task * problem->num_devices + on];
    for (int32_t i = problem->resource_begin[on]; i < problem->resource_begin[on + 1]; i++)
        tail = cpga_max(tail, need[problem->resource[i]]);
    for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
        cpga_edge edge = problem->succ[i];
        if (self->position[edge.task] > last) {
            int64_t copy = cpga_copy(problem, edge.copy, on, self->device[edge.task]);
            tail = cpga_max(tail, copy + self->rest[edge.task]);
        } else {
            self->mark[edge.task] = self->stamp;
        }
    }
    return tail;
}

int64_t cpga_paths_try(cpga_paths *self, int32_t first, int32_t last, int64_t limit) {
    const cpga_problem *problem = self->problem;
    int64_t *values = self->trial_free, longest = 0;
    memcpy(values, self->free_at + (int64_t)first * problem->num_resources,
           (size_t)problem->num_resources * sizeof *values);
    begin_marking(self, 0);
    int32_t left = self->moved >= 0 ? self->position[self->moved] - first : -1;
    for (int32_t p = 0; p <= last - first; p++) {
        int32_t task = self->window[p], on = self->device[task];
        if (p == left)
            note_device(self, self->home[self->moved], 1);
        int32_t begin = problem->resource_begin[on], stop = problem->resource_begin[on + 1];
        int changes = task == self->moved || on != self->home[task];
        int64_t end = self->finish[task];
        if (changes || is_affected(self, task, begin, stop)) {
            end = trial_finish_ns(self, task, on, first);
            if (changes)
                note_device(self, self->home[task], 1);
            changes = changes || end != self->finish[task];
            note_device(self, on, (char)changes);
            if (changes) {
                longest = cpga_max(longest, end + trial_tail_ns(self, task, on, last));
                if (longest > limit)
                    return CPGA_ABOVE_LIMIT;
            }
        }
        self->trial_finish[task] = end;
        for (int32_t i = begin; i < stop; i++)
            values[problem->resource[i]] = end;
    }
    return longest;
}

void cpga_paths_apply(cpga_paths *self, int32_t first, int32_t last) {
    for (int32_t p = first; p <= last; p++) {
        self->order[p] = self->window[p - first];
        self->position[self->order[p]] = p;
        self->home[self->order[p]] = self->device[self->order[p]];
    }
    update_heads(self, first, last, last, self->end);
    update_tails(self, last, first, first, self->begin);
    self->touched = 1;
    self->makespan = longest_path(self);
}

void cpga_paths_sort(cpga_paths *self) {
    propagate(self);
    cpga_sort_by_start(self->problem, self->device, self->finish, self->order);
    cpga_paths_load(self, self->order, self->device);
}

int32_t cpga_paths_critical(const cpga_paths *self, int32_t *critical) {
    int32_t count = 0;
    for (int32_t p = self->begin; p <= self->end; p++) {
        int32_t task = self->order[p];
        int64_t length = cpga_exec(self->problem, task, self->device[task]);
        if (self->finish[task] - length + self->rest[task] == self->makespan)
            critical[count++] = task;
    }
    return count;
}
