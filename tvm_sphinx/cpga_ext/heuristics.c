#include "heuristics.h"

#include <stdlib.h>
#include <string.h>

/* What list scheduling needs beside the problem; all arrays are num_tasks long unless noted. */
typedef struct lister {
    const cpga_problem *problem;
    int shift;          /* ranks count units of 2**-shift ns, so that means lose next to nothing */
    int64_t *mean_exec; /* scaled */
    int64_t *priority;  /* scaled; ready tasks with the highest go first, then the lowest id */
    int64_t *bias;      /* [task][device] added to the finish time when devices are compared */
    int32_t *forced;    /* the device that a task has to take, or -1 */
    int32_t *waiting;   /* predecessors not placed yet */
    int32_t *heap;
    int64_t *room; /* num_devices: capacity not yet taken by weights */
    cpga_timeline timeline;
} lister;

static int rank_shift(const cpga_problem *problem) {
    int shift = 0;
    while (shift < 12 && (problem->total_ns >> (61 - shift)) == 0)
        shift++;
    return shift;
}

static int64_t mean_exec(const cpga_problem *problem, int32_t task, int shift) {
    int64_t count = 0, mean = 0, left = 0;
    for (int32_t device = 0; device < problem->num_devices; device++)
        count += cpga_exec(problem, task, device) != CPGA_CANNOT_RUN;
    for (int32_t device = 0; device < problem->num_devices; device++) {
        int64_t exec = cpga_exec(problem, task, device);
        if (exec != CPGA_CANNOT_RUN) {
            mean += (exec << shift) / count;
            left += (exec << shift) % count;
        }
    }
    return mean + left / count;
}

int cpga_upward_rank(const cpga_problem *problem, int64_t *rank) {
    int shift = rank_shift(problem);
    for (int32_t task = problem->num_tasks - 1; task >= 0; task--) {
        int64_t longest = 0;
        for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
            cpga_edge edge = problem->succ[i];
            longest =
                cpga_max(longest, cpga_mean_copy(problem, edge.copy, shift) + rank[edge.task]);
        }
        rank[task] = longest + mean_exec(problem, task, shift);
    }
    return shift;
}

static void lister_free(lister *self) {
    free(self->mean_exec);
    free(self->priority);
    free(self->bias);
    free(self->forced);
    free(self->waiting);
    free(self->heap);
    free(self->room);
    cpga_timeline_free(&self->timeline);
}

static int lister_init(lister *self, const cpga_problem *problem) {
    int64_t tasks = problem->num_tasks;
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->shift = rank_shift(problem);
    self->mean_exec = cpga_calloc(tasks, (int64_t)sizeof *self->mean_exec);
    self->priority = cpga_calloc(tasks, (int64_t)sizeof *self->priority);
    self->bias = cpga_calloc(tasks * problem->num_devices, (int64_t)sizeof *self->bias);
    self->forced = cpga_calloc(tasks, (int64_t)sizeof *self->forced);
    self->waiting = cpga_calloc(tasks, (int64_t)sizeof *self->waiting);
    self->heap = cpga_calloc(tasks, (int64_t)sizeof *self->heap);
    self->room = cpga_calloc(problem->num_devices, (int64_t)sizeof *self->room);
    int status = cpga_timeline_init(&self->timeline, problem);
    if (self->mean_exec == NULL || self->priority == NULL || self->bias == NULL ||
        self->forced == NULL || self->waiting == NULL || self->heap == NULL || self->room == NULL ||
        status != CPGA_OK) {
        lister_free(self);
        return CPGA_ERR_MEMORY;
    }
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        self->mean_exec[task] = mean_exec(problem, task, self->shift);
        self->waiting[task] = problem->pred_begin[task + 1] - problem->pred_begin[task];
        self->forced[task] = -1;
    }
    for (int32_t device = 0; device < problem->num_devices; device++) {
        int64_t limit = problem->memory_bytes[device];
        self->room[device] = limit == CPGA_UNLIMITED ? INT64_MAX : limit;
    }
    return CPGA_OK;
}

static int goes_before(const lister *self, int32_t a, int32_t b) {
    if (self->priority[a] != self->priority[b])
        return self->priority[a] > self->priority[b];
    return a < b;
}

static void heap_push(lister *self, int32_t *size, int32_t task) {
    int32_t i = (*size)++;
    for (; i > 0 && goes_before(self, task, self->heap[(i - 1) / 2]); i = (i - 1) / 2)
        self->heap[i] = self->heap[(i - 1) / 2];
    self->heap[i] = task;
}

static int32_t heap_pop(lister *self, int32_t *size) {
    int32_t top = self->heap[0], last = self->heap[--(*size)], i = 0;
    for (;;) {
        int32_t child = 2 * i + 1;
        if (child >= *size)
            break;
        if (child + 1 < *size && goes_before(self, self->heap[child + 1], self->heap[child]))
            child++;
        if (!goes_before(self, self->heap[child], last))
            break;
        self->heap[i] = self->heap[child];
        i = child;
    }
    if (*size > 0)
        self->heap[i] = last;
    return top;
}

static int64_t set_weight(const cpga_problem *problem, int32_t set, int32_t on) {
    int64_t bytes = 0;
    for (int32_t i = problem->sets.begin[set]; i < problem->sets.begin[set + 1]; i++)
        bytes += cpga_weight(problem, problem->sets.members[i], on);
    return bytes;
}

/* The device on which a task finishes first, bias included; its set is bound to it. */
static int32_t choose_device(lister *self, int32_t task, const int32_t *device,
                             const int64_t *finish) {
    const cpga_problem *problem = self->problem;
    const cpga_sets *sets = &problem->sets;
    int32_t set = sets->of_task[task], best = -1;
    int best_fits = 0;
    int64_t best_value = 0;
    for (int32_t i = sets->choice_begin[set]; i < sets->choice_begin[set + 1]; i++) {
        int32_t on = sets->choices[i];
        int64_t length = cpga_exec(problem, task, on);
        int64_t ready = cpga_ready_ns(problem, device, finish, task, on);
        int64_t start = cpga_timeline_find(&self->timeline, on, ready, length, CPGA_INSERT);
        int64_t cell = (int64_t)task * problem->num_devices + on;
        int64_t value = start + length + problem->delivery_ns[cell] + self->bias[cell];
        int64_t weight = problem->has_memory_limit ? set_weight(problem, set, on) : 0;
        int fits = self->room[on] >= weight;
        if (best == -1 || fits > best_fits || (fits == best_fits && value < best_value)) {
            best = on;
            best_fits = fits;
            best_value = value;
        }
    }
    return best;
}

/* Place ready tasks by priority, each where it is forced to go or finishes first. */
static int64_t place_all(lister *self, int32_t *order, int32_t *device, int64_t *finish) {
    const cpga_problem *problem = self->problem;
    const cpga_sets *sets = &problem->sets;
    int64_t makespan = 0;
    int32_t size = 0;
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        if (self->waiting[task] == 0)
            heap_push(self, &size, task);
    }
    for (int32_t p = 0; size > 0; p++) {
        int32_t task = heap_pop(self, &size), on = self->forced[task];
        if (on == -1)
            on = choose_device(self, task, device, finish);
        int32_t set = sets->of_task[task];
        for (int32_t i = sets->begin[set]; i < sets->begin[set + 1]; i++)
            self->forced[sets->members[i]] = on;
        if (self->room[on] != INT64_MAX)
            self->room[on] -= cpga_weight(problem, task, on);
        int64_t length = cpga_exec(problem, task, on);
        int64_t ready = cpga_ready_ns(problem, device, finish, task, on);
        int64_t start = cpga_timeline_find(&self->timeline, on, ready, length, CPGA_INSERT);
        cpga_timeline_take(&self->timeline, on, start, length);
        order[p] = task;
        device[task] = on;
        finish[task] = start + length;
        int64_t cell = (int64_t)task * problem->num_devices + on;
        makespan = cpga_max(makespan, finish[task] + problem->delivery_ns[cell]);
        for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
            if (--self->waiting[problem->succ[i].task] == 0)
                heap_push(self, &size, problem->succ[i].task);
        }
    }
    return makespan;
}

/* Tell all tasks of a critical path to take the device that runs all of it soonest (CPOP). */
static void force_critical_path(lister *self, const int64_t *priority) {
    const cpga_problem *problem = self->problem;
    int32_t *path = self->heap, length = 0, task = -1, best = -1;
    int64_t best_missing = 0, best_sum = 0;
    for (int32_t i = 0; i < problem->num_tasks; i++) {
        if (self->waiting[i] == 0 && (task == -1 || priority[i] > priority[task]))
            task = i;
    }
    while (task != -1) {
        int32_t next = -1;
        path[length++] = task;
        for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
            int32_t succ = problem->succ[i].task;
            if (next == -1 || priority[succ] > priority[next])
                next = succ;
        }
        task = next;
    }
    for (int32_t device = 0; device < problem->num_devices; device++) {
        int64_t missing = 0, sum = 0;
        for (int32_t i = 0; i < length; i++) {
            int64_t exec = cpga_exec(problem, path[i], device);
            missing += exec == CPGA_CANNOT_RUN;
            sum += cpga_max(exec, 0);
        }
        if (best == -1 || missing < best_missing || (missing == best_missing && sum < best_sum)) {
            best = device;
            best_missing = missing;
            best_sum = sum;
        }
    }
    const cpga_sets *sets = &problem->sets;
    for (int32_t i = 0; i < length; i++) {
        int32_t set = sets->of_task[path[i]];
        for (int32_t c = sets->choice_begin[set]; c < sets->choice_begin[set + 1]; c++) {
            if (sets->choices[c] == best)
                self->forced[path[i]] = best;
        }
    }
}

/* CPOP: priority is the length of the longest mean path through a task. */
static void prepare_cpop(lister *self) {
    const cpga_problem *problem = self->problem;
    int64_t *down = self->bias; /* free until the end of this function */
    cpga_upward_rank(problem, self->priority);
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        int64_t longest = 0;
        for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++) {
            cpga_edge edge = problem->pred[i];
            int64_t path = down[edge.task] + self->mean_exec[edge.task];
            longest = cpga_max(longest, path + cpga_mean_copy(problem, edge.copy, self->shift));
        }
        down[task] = longest;
    }
    for (int32_t task = 0; task < problem->num_tasks; task++)
        self->priority[task] += down[task];
    for (int32_t task = 0; task < problem->num_tasks; task++)
        down[task] = 0;
    force_critical_path(self, self->priority);
}

/* PEFT: the optimistic cost table says what is still to come after a task on each device. */
static void prepare_peft(lister *self) {
    const cpga_problem *problem = self->problem;
    int32_t devices = problem->num_devices;
    for (int32_t task = problem->num_tasks - 1; task >= 0; task--) {
        int64_t *row = self->bias + (int64_t)task * devices, mean = 0, left = 0, count = 0;
        for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
            cpga_edge edge = problem->succ[i];
            int64_t first = (int64_t)edge.task * devices, elsewhere = INT64_MAX;
            for (int64_t cell = first; cell < first + devices; cell++) {
                if (problem->exec_ns[cell] != CPGA_CANNOT_RUN)
                    elsewhere = cpga_min(elsewhere, self->bias[cell] + problem->exec_ns[cell]);
            }
            elsewhere += cpga_mean_copy(problem, edge.copy, 0);
            for (int32_t on = 0; on < devices; on++) {
                int64_t best = elsewhere;
                if (problem->exec_ns[first + on] != CPGA_CANNOT_RUN)
                    best = cpga_min(best, self->bias[first + on] + problem->exec_ns[first + on]);
                row[on] = cpga_max(row[on], best);
            }
        }
        for (int32_t on = 0; on < devices; on++)
            count += cpga_exec(problem, task, on) != CPGA_CANNOT_RUN;
        for (int32_t on = 0; on < devices; on++) {
            if (cpga_exec(problem, task, on) != CPGA_CANNOT_RUN) {
                mean += (row[on] << self->shift) / count;
                left += (row[on] << self->shift) % count;
            }
        }
        self->priority[task] = mean + left / count;
    }
}

static void force_fastest(lister *self) {
    const cpga_sets *sets = &self->problem->sets;
    for (int32_t set = 0; set < sets->num_sets; set++) {
        int32_t best = -1;
        int64_t best_sum = 0;
        for (int32_t c = sets->choice_begin[set]; c < sets->choice_begin[set + 1]; c++) {
            int64_t sum = 0;
            for (int32_t i = sets->begin[set]; i < sets->begin[set + 1]; i++)
                sum += cpga_exec(self->problem, sets->members[i], sets->choices[c]);
            if (best == -1 || sum < best_sum) {
                best = sets->choices[c];
                best_sum = sum;
            }
        }
        for (int32_t i = sets->begin[set]; i < sets->begin[set + 1]; i++)
            self->forced[sets->members[i]] = best;
    }
}

int cpga_heuristic_run(const cpga_problem *problem, cpga_heuristic heuristic, int32_t only,
                       int32_t *order, int32_t *device, int64_t *finish, int64_t *makespan) {
    lister self;
    int status = lister_init(&self, problem);
    if (status != CPGA_OK)
        return status;
    if (heuristic == CPGA_CPOP) {
        prepare_cpop(&self);
    } else if (heuristic == CPGA_PEFT) {
        prepare_peft(&self);
    } else {
        cpga_upward_rank(problem, self.priority);
        if (heuristic == CPGA_FASTEST)
            force_fastest(&self);
    }
    for (int32_t task = 0; task < problem->num_tasks && heuristic == CPGA_SINGLE; task++) {
        self.forced[task] = only;
        if (cpga_exec(problem, task, only) == CPGA_CANNOT_RUN)
            status = CPGA_ERR_NO_DEVICE;
    }
    if (status == CPGA_OK)
        *makespan = place_all(&self, order, device, finish);
    lister_free(&self);
    return status;
}
