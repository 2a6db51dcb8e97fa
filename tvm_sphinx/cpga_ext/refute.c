#include "refute.h"

#include "bounds.h"
#include "cuts.h"
#include "windows.h"

#include <stdlib.h>
#include <string.h>

/* Times are weighted by up to 2**12 and summed, so longer problems (18 minutes) are left alone. */
#define MAX_TOTAL_NS (INT64_C(1) << 40)
/* Bytes of the windows of all tasks that are tried one after the other. */
#define MAX_TRAIL (INT64_C(1) << 24)
/* One in so many of the work left for a part goes into one supposed time. */
#define ONE_IN 2
/* Depth of what is tried, in tasks of the part: their devices, and then their orders. */
#define DEPTH_PER_TASK INT64_C(4)
#define OUT_OF_REACH INT64_MAX

/* What is tried at a depth: the devices of a task, or, with another one, which of them runs first.
 */
typedef struct trial {
    int32_t task;
    int32_t other; /* or -1 */
    int32_t count; /* tried so far */
} trial;

typedef struct refuter {
    cpga_propagation propagation;
    int32_t tasks; /* in the part */
    int64_t bytes; /* of the windows of a part */
    int64_t room;  /* bytes of the trail */
    int32_t depth; /* windows that fit in it */
    char *trail;   /* windows, one for each task that is tried */
    trial *tried;  /* what is tried at each depth */
} refuter;

static cpga_windows windows_at(const refuter *self, int32_t depth) {
    return cpga_windows_at(self->propagation.problem, self->tasks,
                           self->trail + depth * self->bytes);
}

static int32_t count_devices(const refuter *self, const cpga_windows *windows, int32_t task) {
    int32_t devices = self->propagation.problem->num_devices, count = 0;
    for (int32_t on = 0; on < devices; on++)
        count += windows->can[(int64_t)task * devices + on];
    return count;
}

/* The task with the fewest devices left, two or more; of these the one whose earliest and latest
 * start lie closest together. -1: each has one. */
static int32_t choose_task(const refuter *self, const cpga_windows *windows) {
    const cpga_problem *problem = self->propagation.problem;
    int32_t devices = problem->num_devices, best = -1, fewest = INT32_MAX;
    int64_t closest = INT64_MAX;
    for (int32_t task = 0; task < self->tasks; task++) {
        int32_t count = count_devices(self, windows, task);
        int64_t slack = 0;
        for (int32_t on = 0; on < devices; on++) {
            int64_t cell = (int64_t)task * devices + on;
            if (windows->can[cell])
                slack += self->propagation.limit - windows->head[cell] - windows->tail[cell] -
                         cpga_exec(problem, task + self->propagation.part.begin, on);
        }
        if (count < 2 || count > fewest || (count == fewest && slack / count >= closest))
            continue;
        best = task;
        fewest = count;
        closest = slack / count;
    }
    return best;
}

/* Find what to try next; 0 if all tasks have a place and an order. */
static int choose(refuter *self, const cpga_windows *windows, trial *next) {
    *next = (trial){choose_task(self, windows), -1, 0};
    return next->task >= 0 ||
           cpga_choose_pair(&self->propagation, windows, &next->task, &next->other);
}

/* Take the next of what can be tried out of `now`, and try it in `next`; 0 if nothing is left. */
static int take_next(const refuter *self, trial *at, cpga_windows *now, cpga_windows *next) {
    int32_t devices = self->propagation.problem->num_devices, on = 0;
    uint8_t *can = now->can + (int64_t)at->task * devices;
    if (at->other >= 0) {
        memcpy(next->head, now->head, (size_t)self->bytes);
        cpga_set_before(next, self->tasks, at->count == 0 ? at->task : at->other,
                        at->count == 0 ? at->other : at->task);
        return at->count++ < 2;
    }
    while (on < devices && !can[on])
        on++;
    if (on == devices)
        return 0;
    memcpy(next->head, now->head, (size_t)self->bytes);
    cpga_windows_fix(&self->propagation, next, at->task, on);
    can[on] = 0;
    return 1;
}

/* Try all that a task can do, depth first, until nothing is left (1), all tasks have a place and an
 * order and nothing is refuted, or the work is used up (0). */
static int is_refuted_by_trial(refuter *self) {
    cpga_propagation *propagation = &self->propagation;
    int32_t depth = 0;
    cpga_windows first = windows_at(self, 0);
    if (!choose(self, &first, &self->tried[0]))
        return 0;
    while (propagation->work > 0 && depth + 1 < self->depth) {
        cpga_windows now = windows_at(self, depth), next = windows_at(self, depth + 1);
        if (!take_next(self, &self->tried[depth], &now, &next)) {
            if (depth-- == 0)
                return 1;
            continue;
        }
        if (!cpga_windows_narrow(propagation, &next))
            continue;
        depth++;
        if (!choose(self, &next, &self->tried[depth]))
            return 0;
    }
    return 0;
}

/* Whether nothing can end by a time, as far as so much work can tell. */
static int is_refuted(refuter *self, int64_t limit, int64_t work) {
    cpga_windows windows = windows_at(self, 0);
    self->propagation.limit = limit;
    self->propagation.work = work;
    cpga_windows_open(&self->propagation, &windows);
    if (!cpga_windows_narrow(&self->propagation, &windows))
        return 1;
    return is_refuted_by_trial(self);
}

/* The longest of all tasks with what comes before and after each, where that is least. */
static int64_t longest_path(refuter *self, int64_t work) {
    const cpga_problem *problem = self->propagation.problem;
    cpga_windows windows = windows_at(self, 0);
    int64_t longest = 0;
    self->propagation.limit = 2 * MAX_TOTAL_NS;
    self->propagation.work = work;
    cpga_windows_open(&self->propagation, &windows);
    if (!cpga_windows_narrow(&self->propagation, &windows))
        return OUT_OF_REACH;
    for (int32_t task = 0; task < self->tasks; task++) {
        int64_t least = OUT_OF_REACH;
        for (int32_t on = 0; on < problem->num_devices; on++) {
            int64_t cell = (int64_t)task * problem->num_devices + on;
            if (windows.can[cell])
                least = cpga_min(least,
                                 windows.head[cell] + windows.tail[cell] +
                                     cpga_exec(problem, task + self->propagation.part.begin, on));
        }
        longest = cpga_max(longest, least);
    }
    return longest;
}

/* Raise the bound of a part as far as so much work allows; whether more could not raise it. */
static int bound_of_part(refuter *self, const cpga_part *part, int64_t *bound, int64_t *work) {
    self->propagation.part = *part;
    self->tasks = part->end - part->begin;
    self->bytes = cpga_windows_bytes(self->propagation.problem, self->tasks);
    self->depth = (int32_t)cpga_min(DEPTH_PER_TASK * self->tasks + 1, self->room / self->bytes);
    *bound = cpga_max(*bound, longest_path(self, *work));
    *work = self->propagation.work;
    if (*bound == OUT_OF_REACH)
        return 1;
    int64_t open = INT64_MAX, step = 1 + *bound / 64;
    int is_certain = 0;
    while (*bound < open && *work > self->tasks) {
        int64_t limit = open == INT64_MAX ? *bound - 1 + step : *bound + (open - *bound) / 2;
        int64_t share = *work / ONE_IN + 1;
        if (is_refuted(self, limit, share)) {
            *bound = limit + 1;
            step *= 2;
        } else {
            open = limit;
            is_certain = self->propagation.work > 0;
        }
        *work -= share - self->propagation.work;
    }
    return *bound == open && is_certain;
}

static int refuter_init(refuter *self, const cpga_problem *problem, int32_t most_tasks,
                        const int64_t *weight) {
    memset(self, 0, sizeof *self);
    int64_t bytes = cpga_windows_bytes(problem, most_tasks);
    self->room =
        cpga_max(2 * bytes, cpga_min((DEPTH_PER_TASK * most_tasks + 1) * bytes, MAX_TRAIL));
    self->trail = cpga_calloc(self->room, 1);
    self->tried = cpga_calloc(DEPTH_PER_TASK * most_tasks + 1, (int64_t)sizeof *self->tried);
    if (self->trail == NULL || self->tried == NULL)
        return CPGA_ERR_MEMORY;
    return cpga_propagation_init(&self->propagation, problem, most_tasks, weight);
}

static void refuter_free(refuter *self) {
    cpga_propagation_free(&self->propagation);
    free(self->trail);
    free(self->tried);
}

/* Parts between cuts, and the bounds of each by the devices of the cuts around it. */
typedef struct series {
    const cpga_problem *problem;
    int32_t num_parts;
    cpga_segment *part;
    int32_t *same;      /* an earlier part that is equal, or the part itself */
    int64_t *bound;     /* [part][entry device][exit device] */
    uint8_t *is_closed; /* the same: whether more work brings nothing */
    int32_t *came;      /* [part][exit device]: entry device on the shortest path */
    int64_t *open;      /* what can be made longer */
    int64_t *finish;    /* [device]: of the cut before a part, and of the one after it */
} series;

/* Parts with this many devices, at most, are told apart by the devices of the cuts. */
#define MAX_DEVICES 8
/* One in so many of the work left goes into the parts on one shortest path. */
#define AT_ONCE 4

static int series_init(series *self, const cpga_problem *problem) {
    int32_t tasks = problem->num_tasks;
    int64_t devices = problem->num_devices;
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->part = cpga_calloc(tasks, (int64_t)sizeof *self->part);
    self->same = cpga_calloc(tasks + 1, (int64_t)sizeof *self->same);
    self->finish = cpga_calloc(2 * devices, (int64_t)sizeof *self->finish);
    if (self->part == NULL || self->same == NULL || self->finish == NULL)
        return CPGA_ERR_MEMORY;
    int32_t num_cuts = devices > MAX_DEVICES ? 0 : cpga_find_cuts(problem, self->same), begin = 0;
    for (int32_t k = 0; k < num_cuts && self->same[k] < tasks - 1; k++) {
        self->part[self->num_parts++] = (cpga_segment){begin, self->same[k] + 1, begin - 1, 0, 0};
        begin = self->same[k] + 1;
    }
    self->part[self->num_parts++] = (cpga_segment){begin, tasks, begin - 1, 1, 0};
    self->bound = cpga_calloc(self->num_parts * devices, devices * (int64_t)sizeof *self->bound);
    self->is_closed = cpga_calloc(self->num_parts * devices, devices);
    self->came = cpga_calloc(self->num_parts * devices, (int64_t)sizeof *self->came);
    self->open = cpga_calloc(self->num_parts, (int64_t)sizeof *self->open);
    return self->bound == NULL || self->is_closed == NULL || self->came == NULL ||
                   self->open == NULL
               ? CPGA_ERR_MEMORY
               : CPGA_OK;
}

static void series_free(series *self) {
    free(self->part);
    free(self->same);
    free(self->bound);
    free(self->is_closed);
    free(self->came);
    free(self->open);
    free(self->finish);
}

static void find_equal(series *self) {
    for (int32_t i = 0; i < self->num_parts; i++) {
        int32_t k = 0;
        while (k < i && !(self->same[k] == k &&
                          cpga_equal_segments(self->problem, &self->part[k], &self->part[i])))
            k++;
        self->same[i] = k;
    }
}

static int can_run(const series *self, int32_t task, int32_t on) {
    return task < 0 ? on == 0 : cpga_exec(self->problem, task, on) != CPGA_CANNOT_RUN;
}

/* Close the pairs of devices that the cuts cannot run on. */
static void open_parts(series *self, int64_t known) {
    int32_t devices = self->problem->num_devices;
    for (int32_t i = 0; i < self->num_parts; i++) {
        const cpga_segment *at = &self->part[i];
        for (int32_t pair = 0; pair < devices * devices; pair++) {
            int64_t cell = (int64_t)i * devices * devices + pair;
            self->is_closed[cell] =
                (uint8_t)(self->same[i] != i || !can_run(self, at->entry, pair / devices) ||
                          (at->is_last ? pair % devices > 0
                                       : !can_run(self, at->end - 1, pair % devices)));
            self->bound[cell] = self->is_closed[cell] ? OUT_OF_REACH : known;
        }
    }
}

/* The shortest path over the devices of the cuts: its length; `came` says how it goes. */
static int64_t shortest_path(series *self) {
    int32_t devices = self->problem->num_devices;
    int64_t *finish = self->finish, *next = self->finish + devices;
    for (int32_t on = 0; on < devices; on++)
        finish[on] = on == 0 ? 0 : OUT_OF_REACH;
    for (int32_t i = 0; i < self->num_parts; i++) {
        const int64_t *bound = self->bound + (int64_t)self->same[i] * devices * devices;
        for (int32_t to = 0; to < devices; to++) {
            next[to] = OUT_OF_REACH;
            for (int32_t from = 0; from < devices; from++) {
                int64_t length = bound[from * devices + to];
                if (finish[from] == OUT_OF_REACH || length == OUT_OF_REACH ||
                    finish[from] + length >= next[to])
                    continue;
                next[to] = finish[from] + length;
                self->came[(int64_t)i * devices + to] = from;
            }
        }
        memcpy(finish, next, (size_t)devices * sizeof *finish);
    }
    return finish[0];
}

/* List the parts, and devices around them, on the shortest path that more work can make longer. */
static int32_t list_open(series *self) {
    int32_t devices = self->problem->num_devices, count = 0, to = 0;
    for (int32_t i = self->num_parts - 1; i >= 0; i--) {
        int32_t from = self->came[(int64_t)i * devices + to];
        int64_t cell = ((int64_t)self->same[i] * devices + from) * devices + to;
        if (!self->is_closed[cell]) {
            self->is_closed[cell] = 1; /* listed once */
            self->open[count++] = cell;
        }
        to = from;
    }
    return count;
}

/* Work on one part for one pair of devices. */
static void raise_bound(series *self, refuter *refuter, int64_t cell, int64_t *work) {
    int32_t devices = self->problem->num_devices;
    int32_t i = (int32_t)(cell / devices / devices);
    const cpga_segment *at = &self->part[i];
    int32_t from = (int32_t)(cell / devices % devices), to = (int32_t)(cell % devices);
    cpga_part part = {at->begin, at->end, at->entry, from, at->is_last ? -1 : to, at->is_last};
    self->is_closed[cell] = (uint8_t)bound_of_part(refuter, &part, &self->bound[cell], work);
}

/* Make the shortest path longer, until the work is used up or nothing on it is open. */
static int64_t raise_path(series *self, refuter *refuter, int64_t work) {
    int64_t length = shortest_path(self);
    while (work > 0 && length != OUT_OF_REACH) {
        int32_t count = list_open(self);
        if (count == 0)
            return length;
        int64_t share = (self->num_parts == 1 ? work : work / AT_ONCE) / count + 1;
        for (int32_t k = 0; k < count; k++) {
            int64_t left = share;
            raise_bound(self, refuter, self->open[k], &left);
            work -= share - left;
        }
        length = shortest_path(self);
    }
    return length;
}

int cpga_refute(const cpga_problem *problem, int64_t max_work, int64_t *bound) {
    series parts = {0};
    refuter refuter = {0};
    int64_t *weight = NULL;
    int32_t most_tasks = 0;
    if (problem->num_tasks == 0 || problem->total_ns >= MAX_TOTAL_NS)
        return CPGA_OK;
    int status = series_init(&parts, problem);
    for (int32_t i = 0; i < parts.num_parts; i++)
        most_tasks = cpga_imax(most_tasks, parts.part[i].end - parts.part[i].begin);
    weight = cpga_calloc(problem->num_resources, (int64_t)sizeof *weight);
    if (status == CPGA_OK)
        status = weight == NULL ? CPGA_ERR_MEMORY : cpga_load_weights(problem, weight);
    if (status == CPGA_OK)
        status = cpga_count_bound(problem, &max_work, bound);
    if (status == CPGA_OK)
        status = refuter_init(&refuter, problem, most_tasks, weight);
    if (status == CPGA_OK) {
        find_equal(&parts);
        open_parts(&parts, parts.num_parts == 1 ? *bound : 0);
        int64_t length = raise_path(&parts, &refuter, max_work);
        *bound = cpga_max(*bound, length == OUT_OF_REACH ? 0 : length);
    }
    series_free(&parts);
    refuter_free(&refuter);
    free(weight);
    return status;
}
