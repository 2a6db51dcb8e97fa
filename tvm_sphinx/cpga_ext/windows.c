#include "windows.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ROUNDS 2
/* Tasks of a part in which orders are kept, at most. */
#define MAX_ORDERED 512

static void fill_shares(const cpga_problem *problem, uint8_t *shares) {
    const int32_t *begin = problem->resource_begin, *resource = problem->resource;
    for (int32_t a = 0; a < problem->num_devices; a++) {
        for (int32_t b = 0; b < problem->num_devices; b++) {
            for (int32_t i = begin[a]; i < begin[a + 1]; i++) {
                for (int32_t k = begin[b]; k < begin[b + 1]; k++)
                    shares[(int64_t)a * problem->num_devices + b] |= resource[i] == resource[k];
            }
        }
    }
}

int cpga_propagation_init(cpga_propagation *self, const cpga_problem *problem, int32_t most_tasks,
                          const int64_t *weight) {
    int64_t cells = (int64_t)most_tasks * problem->num_devices;
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->weight = weight;
    self->reach = cpga_calloc(cells, (int64_t)sizeof *self->reach);
    self->is_reached = cpga_calloc(most_tasks, 1);
    self->items = cpga_calloc(most_tasks, (int64_t)sizeof *self->items);
    self->heads = cpga_calloc(most_tasks, (int64_t)sizeof *self->heads);
    self->placed = cpga_calloc(most_tasks, (int64_t)sizeof *self->placed);
    self->device = cpga_calloc(most_tasks, (int64_t)sizeof *self->device);
    self->shares = cpga_calloc(problem->num_devices, problem->num_devices);
    if (self->shares != NULL)
        fill_shares(problem, self->shares);
    self->trial_weight = cpga_calloc(problem->num_resources, (int64_t)sizeof *self->trial_weight);
    if (problem->num_resources <= CPGA_MAX_SINGLE) {
        int64_t rows = (int64_t)most_tasks * problem->num_resources;
        self->resource_head = cpga_calloc(rows, (int64_t)sizeof *self->resource_head);
        self->resource_tail = cpga_calloc(rows, (int64_t)sizeof *self->resource_tail);
        if (self->resource_head == NULL || self->resource_tail == NULL) {
            cpga_propagation_free(self);
            return CPGA_ERR_MEMORY;
        }
    }
    if (self->trial_weight != NULL && self->placed != NULL && self->device != NULL &&
        self->shares != NULL && self->reach != NULL && self->is_reached != NULL &&
        self->items != NULL && self->heads != NULL)
        return CPGA_OK;
    cpga_propagation_free(self);
    return CPGA_ERR_MEMORY;
}

void cpga_propagation_free(cpga_propagation *self) {
    free(self->reach);
    free(self->is_reached);
    free(self->items);
    free(self->heads);
    free(self->resource_head);
    free(self->resource_tail);
    free(self->trial_weight);
    free(self->placed);
    free(self->device);
    free(self->shares);
    memset(self, 0, sizeof *self);
}

int32_t cpga_order_words(int32_t tasks) { return tasks <= MAX_ORDERED ? (tasks + 63) / 64 : 0; }

int64_t cpga_windows_bytes(const cpga_problem *problem, int32_t tasks) {
    int64_t cells = (int64_t)tasks * problem->num_devices;
    int64_t words = 2 * cells + (int64_t)tasks * cpga_order_words(tasks);
    return 8 * words + (cells + 7) / 8 * 8;
}

cpga_windows cpga_windows_at(const cpga_problem *problem, int32_t tasks, void *block) {
    int64_t cells = (int64_t)tasks * problem->num_devices;
    int64_t *head = block, *tail = head + cells;
    uint64_t *before = (uint64_t *)(tail + cells);
    uint8_t *can = (uint8_t *)(before + (int64_t)tasks * cpga_order_words(tasks));
    return (cpga_windows){head, tail, before, can};
}

/* All tasks that lead to one run before it. */
static void open_order(const cpga_propagation *self, cpga_windows *windows) {
    const cpga_problem *problem = self->problem;
    int32_t tasks = self->part.end - self->part.begin, words = cpga_order_words(tasks);
    memset(windows->before, 0, (size_t)tasks * (size_t)words * sizeof *windows->before);
    for (int32_t task = 0; task < tasks && words > 0; task++) {
        int32_t from = problem->pred_begin[task + self->part.begin];
        int32_t to = problem->pred_begin[task + self->part.begin + 1];
        for (int32_t k = from; k < to; k++) {
            int32_t before = problem->pred[k].task - self->part.begin;
            if (before < 0)
                continue;
            for (int32_t w = 0; w < words; w++)
                windows->before[(int64_t)task * words + w] |=
                    windows->before[(int64_t)before * words + w];
            cpga_set_before(windows, tasks, before, task);
        }
    }
}

void cpga_windows_open(const cpga_propagation *self, cpga_windows *windows) {
    const cpga_problem *problem = self->problem;
    const cpga_part *part = &self->part;
    open_order(self, windows);
    for (int32_t task = part->begin; task < part->end; task++) {
        for (int32_t on = 0; on < problem->num_devices; on++) {
            int64_t from = (int64_t)task * problem->num_devices + on;
            int64_t to = (int64_t)(task - part->begin) * problem->num_devices + on;
            windows->head[to] = part->entry < 0 ? problem->release_ns[from] : 0;
            windows->tail[to] = part->is_last ? problem->delivery_ns[from] : 0;
            windows->can[to] =
                problem->exec_ns[from] != CPGA_CANNOT_RUN &&
                (task < part->end - 1 || part->exit_device < 0 || on == part->exit_device);
        }
        for (int32_t k = problem->pred_begin[task]; k < problem->pred_begin[task + 1]; k++) {
            if (part->entry < 0 || problem->pred[k].task != part->entry)
                continue;
            for (int32_t on = 0; on < problem->num_devices; on++) {
                int64_t *head =
                    &windows->head[(int64_t)(task - part->begin) * problem->num_devices + on];
                *head = cpga_max(*head,
                                 cpga_copy(problem, problem->pred[k].copy, part->entry_device, on));
            }
        }
    }
}

void cpga_windows_fix(const cpga_propagation *self, cpga_windows *windows, int32_t task,
                      int32_t device) {
    uint8_t *can = windows->can + (int64_t)task * self->problem->num_devices;
    for (int32_t on = 0; on < self->problem->num_devices; on++)
        can[on] = can[on] && on == device;
}

/* The edges that lead to a task, or, looking back from the end of all, from it. */
static const cpga_edge *edges_of(const cpga_problem *problem, int32_t task, int is_back,
                                 int32_t *count) {
    const int32_t *begin = is_back ? problem->succ_begin : problem->pred_begin;
    *count = begin[task + 1] - begin[task];
    return (is_back ? problem->succ : problem->pred) + begin[task];
}

/* The copy between a device of the task at the other end of an edge and one of the task at hand. */
static int64_t copy_of(const cpga_problem *problem, const cpga_edge *edge, int32_t other,
                       int32_t on, int is_back) {
    return is_back ? cpga_copy(problem, edge->copy, on, other)
                   : cpga_copy(problem, edge->copy, other, on);
}

static int is_within(const cpga_part *part, int32_t task) {
    return task >= part->begin && task < part->end;
}

/* Strike out devices on which a task ends too late; -1 if it has none left, else whether any was
 * struck out. */
static int strike(const cpga_propagation *self, cpga_windows *windows, int32_t task) {
    int64_t row = (int64_t)(task - self->part.begin) * self->problem->num_devices;
    int left = 0, struck = 0;
    for (int32_t on = 0; on < self->problem->num_devices; on++) {
        if (!windows->can[row + on])
            continue;
        if (windows->head[row + on] + cpga_exec(self->problem, task, on) + windows->tail[row + on] >
            self->limit) {
            windows->can[row + on] = 0;
            struck = 1;
        } else {
            left++;
        }
    }
    return left == 0 ? -1 : struck;
}

/* Raise the earliest starts, or the tails, by each edge by itself; -1: refuted, else whether
 * anything changed. */
static int follow_edges(cpga_propagation *self, cpga_windows *windows, int is_back) {
    const cpga_problem *problem = self->problem;
    int32_t devices = problem->num_devices, tasks = self->part.end - self->part.begin, count;
    int64_t *bound = is_back ? windows->tail : windows->head;
    int changed = 0;
    for (int32_t i = 0; i < tasks; i++) {
        int32_t task = is_back ? self->part.end - 1 - i : self->part.begin + i;
        int64_t row = (int64_t)(task - self->part.begin) * devices;
        const cpga_edge *edges = edges_of(problem, task, is_back, &count);
        for (int32_t k = 0; k < count; k++) {
            if (!is_within(&self->part, edges[k].task))
                continue;
            int64_t from = (int64_t)(edges[k].task - self->part.begin) * devices;
            for (int32_t on = 0; on < devices; on++) {
                int64_t least = INT64_MAX;
                if (!windows->can[row + on])
                    continue;
                for (int32_t other = 0; other < devices; other++) {
                    if (windows->can[from + other])
                        least = cpga_min(
                            least, bound[from + other] + cpga_exec(problem, edges[k].task, other) +
                                       copy_of(problem, &edges[k], other, on, is_back));
                }
                if (least > bound[row + on]) {
                    bound[row + on] = least;
                    changed = 1;
                }
            }
        }
        self->work -= (int64_t)count * devices * devices + devices;
        int struck = strike(self, windows, task);
        if (struck < 0)
            return -1;
        changed |= struck;
    }
    return changed;
}

/* For all tasks that lead to one on a device, the least time from their finish on each device to
 * its start. */
static void fill_reach(cpga_propagation *self, const cpga_windows *windows, int32_t task,
                       int32_t on, int is_back) {
    const cpga_problem *problem = self->problem;
    int32_t devices = problem->num_devices, tasks = self->part.end - self->part.begin, count;
    memset(self->is_reached, 0, (size_t)tasks);
    self->is_reached[task - self->part.begin] = 1;
    for (int32_t at = task; is_within(&self->part, at); at += is_back ? 1 : -1) {
        if (!self->is_reached[at - self->part.begin])
            continue;
        int64_t row = (int64_t)(at - self->part.begin) * devices;
        const cpga_edge *edges = edges_of(problem, at, is_back, &count);
        for (int32_t k = 0; k < count; k++) {
            int32_t before = edges[k].task - self->part.begin;
            if (!is_within(&self->part, edges[k].task))
                continue;
            int64_t *reach = self->reach + (int64_t)before * devices;
            if (!self->is_reached[before])
                memset(reach, 0, (size_t)devices * sizeof *reach);
            self->is_reached[before] = 1;
            for (int32_t other = 0; other < devices; other++) {
                int64_t least = INT64_MAX;
                if (!windows->can[(int64_t)before * devices + other])
                    continue;
                if (at == task)
                    least = copy_of(problem, &edges[k], other, on, is_back);
                for (int32_t here = 0; at != task && here < devices; here++) {
                    if (windows->can[row + here])
                        least = cpga_min(least, copy_of(problem, &edges[k], other, here, is_back) +
                                                    cpga_exec(problem, at, here) +
                                                    self->reach[row + here]);
                }
                reach[other] = cpga_max(reach[other], least);
            }
        }
        self->work -= (int64_t)count * devices * devices;
    }
}

/* The tasks that were reached whose data comes too late from elsewhere, by falling heads: when each
 * is done if it runs on the device itself, and when at the soonest its data is there if it runs
 * elsewhere. */
static int32_t list_items(cpga_propagation *self, const cpga_windows *windows, int32_t task,
                          int32_t on, const int64_t *bound) {
    int32_t devices = self->problem->num_devices, count = 0;
    int64_t start = bound[(int64_t)(task - self->part.begin) * devices + on];
    for (int32_t at = self->part.begin; at < self->part.end; at++) {
        int64_t row = (int64_t)(at - self->part.begin) * devices;
        if (at == task || !self->is_reached[at - self->part.begin])
            continue;
        cpga_item item = {bound[row + on], cpga_exec(self->problem, at, on), INT64_MAX,
                          self->reach[row + on], at};
        for (int32_t other = 0; other < devices; other++) {
            if (other != on && windows->can[row + other])
                item.remote =
                    cpga_min(item.remote, bound[row + other] + cpga_exec(self->problem, at, other) +
                                              self->reach[row + other]);
        }
        if (windows->can[row + on] && item.remote > start)
            self->items[count++] = item;
    }
    self->work -= 2 * (int64_t)(self->part.end - self->part.begin);
    cpga_sort_items(self, count);
    return count;
}

/* The soonest start of a task on a device, given a soonest so far.
 *
 * All tasks before it whose data would come too late from elsewhere run on the same device, one
 * after the other (Papadimitriou, Yannakakis: "Towards an architecture-independent analysis of
 * parallel algorithms", SIAM J. Comput. 19(2), 1990, here with unlike devices). Either that ends in
 * time, or one of them does run elsewhere. */
static int64_t serial_start(cpga_propagation *self, int32_t count, int64_t start) {
    for (;;) {
        int64_t sum = 0, serial = 0, soonest = INT64_MAX, rest = INT64_MAX;
        for (int32_t i = 0; i < count; i++) {
            const cpga_item *item = &self->items[i];
            if (item->remote <= start)
                continue;
            sum += item->exec;
            soonest = cpga_min(soonest, item->remote);
            rest = cpga_min(rest, item->rest);
            serial = cpga_max(serial, item->head + sum + rest);
        }
        self->work -= count;
        if (serial <= start)
            return start;
        start = cpga_min(serial, soonest);
        if (start > self->limit)
            return start;
    }
}

static int follow_joins(cpga_propagation *self, cpga_windows *windows, int is_back) {
    int32_t devices = self->problem->num_devices, tasks = self->part.end - self->part.begin;
    int64_t *bound = is_back ? windows->tail : windows->head;
    int changed = 0;
    for (int32_t i = 0; i < tasks && self->work > 0; i++) {
        int32_t task = is_back ? self->part.end - 1 - i : self->part.begin + i;
        int64_t row = (int64_t)(task - self->part.begin) * devices;
        for (int32_t on = 0; on < devices; on++) {
            if (!windows->can[row + on])
                continue;
            fill_reach(self, windows, task, on, is_back);
            int32_t count = list_items(self, windows, task, on, bound);
            int64_t start = serial_start(self, count, bound[row + on]);
            changed |= start > bound[row + on];
            bound[row + on] = start;
        }
        int struck = strike(self, windows, task);
        if (struck < 0)
            return -1;
        changed |= struck;
    }
    return changed;
}

/* Let tasks that share a device have the same choice. */
static int follow_sets(cpga_propagation *self, cpga_windows *windows) {
    const cpga_sets *sets = &self->problem->sets;
    int32_t devices = self->problem->num_devices, tasks = self->part.end - self->part.begin;
    int changed = 0;
    if (sets->num_sets == self->problem->num_tasks)
        return 0;
    for (int32_t task = 0; task < tasks; task++) {
        int32_t set = sets->of_task[task + self->part.begin];
        for (int32_t k = sets->begin[set]; k < sets->begin[set + 1]; k++) {
            if (!is_within(&self->part, sets->members[k]))
                continue;
            for (int32_t on = 0; on < devices; on++) {
                uint8_t *can =
                    &windows->can[(int64_t)(sets->members[k] - self->part.begin) * devices + on];
                if (*can && !windows->can[(int64_t)task * devices + on]) {
                    *can = 0;
                    changed = 1;
                }
            }
            if (strike(self, windows, sets->members[k]) < 0)
                return -1;
        }
    }
    return changed;
}

int cpga_windows_narrow(cpga_propagation *self, cpga_windows *windows) {
    for (int32_t round = 0; round < MAX_ROUNDS && self->work > 0; round++) {
        int changed = 0;
        for (int is_back = 0; is_back < 2; is_back++) {
            int found = follow_edges(self, windows, is_back);
            if (found < 0)
                return 0;
            changed |= found;
        }
        int kept = follow_sets(self, windows);
        if (kept < 0)
            return 0;
        changed |= kept;
        if (!changed || round == 0) {
            if (!cpga_are_loads_kept(self, windows))
                return 0;
            int ordered = cpga_follow_orders(self, windows);
            int forth = ordered < 0 ? -1 : follow_joins(self, windows, 0);
            int back = forth < 0 ? -1 : follow_joins(self, windows, 1);
            if (back < 0)
                return 0;
            changed |= ordered | forth | back;
        }
        if (!changed)
            break;
    }
    return 1;
}
