#include "windows.h"

#include <stdlib.h>

/* Earliest starts that loads are counted from. */
#define NUM_HEADS 12
/* As many are sorted by insertion; and steps of work that sorting one takes. */
#define FEW_ITEMS 32
#define SORT_WORK 24

/* By task where equal, so that the order is one on every machine. */
static int compare_heads(const void *a, const void *b) {
    const cpga_item *first = a, *second = b;
    if (first->head != second->head)
        return first->head > second->head ? -1 : 1;
    return (first->task > second->task) - (first->task < second->task);
}

void cpga_sort_items(cpga_propagation *self, int32_t count) {
    self->work -= (int64_t)count * SORT_WORK;
    if (count > FEW_ITEMS) {
        qsort(self->items, (size_t)count, sizeof *self->items, compare_heads);
        return;
    }
    for (int32_t i = 1; i < count; i++) {
        cpga_item item = self->items[i];
        int32_t k = i;
        for (; k > 0 && compare_heads(&item, &self->items[k - 1]) < 0; k--)
            self->items[k] = self->items[k - 1];
        self->items[k] = item;
    }
}

static int64_t least_work(const cpga_propagation *self, const cpga_windows *windows, int32_t task,
                          const int64_t *price) {
    int32_t devices = self->problem->num_devices;
    int64_t least = INT64_MAX;
    for (int32_t on = 0; on < devices; on++) {
        if (windows->can[(int64_t)(task - self->part.begin) * devices + on])
            least = cpga_min(least, cpga_exec(self->problem, task, on) * price[on]);
    }
    return least;
}

/* What all resources can do by the limit between the heads and tails on them of the tasks so far,
 * of which the next is one more; each counts by its weight. */
static int64_t room_with(const cpga_propagation *self, int32_t task, int64_t *first, int64_t *last,
                         const int64_t *weight) {
    int32_t resources = self->problem->num_resources;
    const int64_t *head = self->resource_head + (int64_t)(task - self->part.begin) * resources;
    const int64_t *tail = self->resource_tail + (int64_t)(task - self->part.begin) * resources;
    int64_t room = 0;
    for (int32_t r = 0; r < resources; r++) {
        first[r] = cpga_min(first[r], head[r]);
        last[r] = cpga_min(last[r], tail[r]);
        if (first[r] <= self->limit && last[r] <= self->limit)
            room += weight[r] * cpga_max(0, self->limit - first[r] - last[r]);
    }
    return room;
}

/* Whether what has to be done after an earliest start and before a tail fits in between; items are
 * sorted by falling tails (in their heads), `rest` is their soonest start. */
static int is_load_kept(cpga_propagation *self, int32_t count, const int64_t *weight) {
    int32_t resources = self->problem->num_resources;
    int is_apart = resources <= CPGA_MAX_SINGLE;
    int64_t capacity = 0, first[CPGA_MAX_SINGLE], last[CPGA_MAX_SINGLE];
    for (int32_t r = 0; r < resources; r++)
        capacity += weight[r];
    for (int32_t i = 0; i < NUM_HEADS; i++) {
        int64_t head = self->heads[(int64_t)i * (count - 1) / (NUM_HEADS - 1)], done = 0;
        if (i > 0 && head == self->heads[(int64_t)(i - 1) * (count - 1) / (NUM_HEADS - 1)])
            continue;
        for (int32_t r = 0; r < resources && is_apart; r++)
            first[r] = last[r] = INT64_MAX;
        for (int32_t k = 0; k < count; k++) {
            const cpga_item *item = &self->items[k];
            if (item->rest < head || item->exec == 0)
                continue;
            done += item->exec;
            if (done > (self->limit - head - item->head) * capacity ||
                (is_apart && done > room_with(self, item->task, first, last, weight)))
                return 0;
        }
        self->work -= 2 * (int64_t)count * (is_apart ? resources : 1);
    }
    return 1;
}

/* The least heads and tails of each task on each resource. */
static void list_resources(cpga_propagation *self, const cpga_windows *windows) {
    const cpga_problem *problem = self->problem;
    int32_t devices = problem->num_devices, tasks = self->part.end - self->part.begin;
    for (int64_t i = 0; i < (int64_t)tasks * problem->num_resources; i++)
        self->resource_head[i] = self->resource_tail[i] = INT64_MAX;
    for (int32_t task = 0; task < tasks; task++) {
        int64_t *head = self->resource_head + (int64_t)task * problem->num_resources;
        int64_t *tail = self->resource_tail + (int64_t)task * problem->num_resources;
        for (int32_t on = 0; on < devices; on++) {
            int64_t cell = (int64_t)task * devices + on;
            for (int32_t k = problem->resource_begin[on];
                 k < problem->resource_begin[on + 1] && windows->can[cell]; k++) {
                int32_t r = problem->resource[k];
                head[r] = cpga_min(head[r], windows->head[cell]);
                tail[r] = cpga_min(tail[r], windows->tail[cell]);
            }
        }
    }
    self->work -= 2 * (int64_t)tasks * devices;
}

static int compare_times(const void *a, const void *b) {
    const int64_t *first = a, *second = b;
    return (*first > *second) - (*first < *second);
}

static void list_loads(cpga_propagation *self, const cpga_windows *windows) {
    int32_t devices = self->problem->num_devices, tasks = self->part.end - self->part.begin;
    for (int32_t task = 0; task < tasks; task++) {
        cpga_item *item = &self->items[task];
        *item = (cpga_item){INT64_MAX, 0, 0, INT64_MAX, task + self->part.begin};
        for (int32_t on = 0; on < devices; on++) {
            int64_t cell = (int64_t)task * devices + on;
            if (!windows->can[cell])
                continue;
            item->head = cpga_min(item->head, windows->tail[cell]);
            item->rest = cpga_min(item->rest, windows->head[cell]);
        }
        self->heads[task] = item->rest;
    }
    cpga_sort_items(self, tasks);
    qsort(self->heads, (size_t)tasks, sizeof *self->heads, compare_times);
    self->work -= (int64_t)tasks * (devices + SORT_WORK);
}

int cpga_are_loads_kept(cpga_propagation *self, const cpga_windows *windows) {
    const cpga_problem *problem = self->problem;
    int32_t tasks = self->part.end - self->part.begin, resources = problem->num_resources;
    int32_t singles = resources <= CPGA_MAX_SINGLE ? resources : 0;
    int64_t *price = self->reach, *weight = self->trial_weight;
    list_loads(self, windows);
    if (singles > 0)
        list_resources(self, windows);
    for (int32_t kind = 0; kind < singles + 2; kind++) {
        for (int32_t r = 0; r < resources; r++)
            weight[r] = kind < singles ? r == kind : kind == singles ? 1 : self->weight[r];
        for (int32_t on = 0; on < problem->num_devices; on++) {
            price[on] = 0;
            for (int32_t k = problem->resource_begin[on]; k < problem->resource_begin[on + 1]; k++)
                price[on] += weight[problem->resource[k]];
        }
        for (int32_t i = 0; i < tasks; i++)
            self->items[i].exec = least_work(self, windows, self->items[i].task, price);
        self->work -= (int64_t)tasks * problem->num_devices;
        if (!is_load_kept(self, tasks, weight))
            return 0;
    }
    return 1;
}

typedef struct ranked_task {
    int64_t least; /* time, on its best device */
    int32_t task;
} ranked_task;

static int compare_ranks(const void *a, const void *b) {
    const ranked_task *first = a, *second = b;
    if (first->least != second->least)
        return first->least > second->least ? -1 : 1;
    return (first->task > second->task) - (first->task < second->task);
}

/* Note how long a task occupies each resource at least, if that is less than all before it do. */
static void shorten(const cpga_problem *problem, int32_t task, int64_t *shortest) {
    for (int32_t on = 0; on < problem->num_devices; on++) {
        int64_t exec = cpga_exec(problem, task, on);
        for (int32_t k = problem->resource_begin[on];
             exec != CPGA_CANNOT_RUN && k < problem->resource_begin[on + 1]; k++)
            shortest[problem->resource[k]] = cpga_min(shortest[problem->resource[k]], exec);
    }
}

/* The soonest time, `from` or later, by which so many tasks fit on all resources, each a whole
 * number of times. */
static int64_t time_for(const int64_t *shortest, int32_t resources, int32_t tasks, int64_t from) {
    for (;;) {
        int64_t places = 0, next = INT64_MAX;
        for (int32_t r = 0; r < resources; r++) {
            if (shortest[r] == INT64_MAX)
                continue;
            places += from / shortest[r];
            next = cpga_min(next, (from / shortest[r] + 1) * shortest[r]);
        }
        if (places >= tasks)
            return from;
        from = next;
    }
}

int cpga_count_bound(const cpga_problem *problem, int64_t *work, int64_t *bound) {
    ranked_task *ranked = cpga_calloc(problem->num_tasks, (int64_t)sizeof *ranked);
    int64_t *shortest = cpga_calloc(problem->num_resources, (int64_t)sizeof *shortest);
    int status = ranked == NULL || shortest == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
    for (int32_t task = 0; task < problem->num_tasks && status == CPGA_OK; task++)
        ranked[task] = (ranked_task){cpga_fastest_exec(problem, task), task};
    for (int32_t r = 0; r < problem->num_resources && status == CPGA_OK; r++)
        shortest[r] = INT64_MAX;
    if (status == CPGA_OK)
        qsort(ranked, (size_t)problem->num_tasks, sizeof *ranked, compare_ranks);
    for (int32_t i = 0; i < problem->num_tasks && status == CPGA_OK; i++) {
        if (ranked[i].least == 0 || *work <= 0)
            break;
        shorten(problem, ranked[i].task, shortest);
        *bound = time_for(shortest, problem->num_resources, i + 1, *bound);
        *work -= 4 * ((int64_t)problem->num_resources + problem->num_devices);
    }
    free(ranked);
    free(shortest);
    return status;
}
