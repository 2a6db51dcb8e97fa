#include "cuts.h"

#include <stdlib.h>
#include <string.h>

/* Edges point to higher tasks, so all lower
 * ones have to come before: each of them has a successor that is not above the cut, and so on up to
 * it. Likewise, each higher one has a predecessor that is not below. */
int32_t cpga_find_cuts(const cpga_problem *problem, int32_t *cut) {
    int32_t tasks = problem->num_tasks, count = 0, highest = 0, lowest = tasks;
    for (int32_t task = 0; task < tasks; task++) {
        if (highest <= task)
            cut[count++] = task;
        int32_t first = problem->succ_begin[task];
        int32_t next = first < problem->succ_begin[task + 1] ? problem->succ[first].task : tasks;
        highest = cpga_imax(highest, next);
    }
    int32_t kept = count, place = count - 1;
    for (int32_t task = tasks - 1; task >= 0 && place >= 0; task--) {
        if (cut[place] == task) {
            if (lowest >= task)
                cut[--kept] = task;
            place--;
        }
        int32_t last = problem->pred_begin[task + 1] - 1;
        lowest =
            cpga_imin(lowest, last >= problem->pred_begin[task] ? problem->pred[last].task : -1);
    }
    for (int32_t i = kept; i < count; i++)
        cut[i - kept] = cut[i];
    return count - kept;
}

/* The least time from the finish of each task to the end, with no copies. */
static void fill_tails(const cpga_problem *problem, int64_t *tail) {
    for (int32_t task = problem->num_tasks - 1; task >= 0; task--) {
        tail[task] = 0;
        for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
            int32_t next = problem->succ[i].task;
            tail[task] = cpga_max(tail[task], cpga_fastest_exec(problem, next) + tail[next]);
        }
    }
}

/* The first cut above a task. */
static int32_t first_above(const int32_t *cut, int32_t num_cuts, int32_t task) {
    int32_t low = 0, high = num_cuts;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (cut[middle] > task)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The first of the cuts [low, high) by which the data of a task has surely arrived everywhere. The
 * longest path from a task goes through all cuts above it, so the tails tell how much time lies
 * between. */
static int32_t first_after_arrival(const int64_t *tail, const int32_t *cut, int32_t low,
                                   int32_t high, int32_t task, int64_t longest_copy) {
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (tail[task] - tail[cut[middle]] >= longest_copy)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Count for each cut the edges whose data may still be on its way when it ends. */
static void count_pending(const cpga_problem *problem, const int64_t *tail, const int32_t *cut,
                          int32_t num_cuts, int32_t *pending) {
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        int32_t above = first_above(cut, num_cuts, task);
        for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++) {
            int64_t longest = cpga_longest_copy(problem, problem->succ[i].copy);
            int32_t below = first_above(cut, num_cuts, problem->succ[i].task - 1);
            pending[above]++;
            pending[first_after_arrival(tail, cut, above, below, task, longest)]--;
        }
    }
    for (int32_t k = 1; k < num_cuts; k++)
        pending[k] += pending[k - 1];
}

static int64_t slack_of(const cpga_problem *problem, int32_t task) {
    int64_t slack = 0;
    for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++)
        slack = cpga_max(slack, cpga_longest_copy(problem, problem->succ[i].copy));
    return slack;
}

int32_t cpga_find_segments(const cpga_problem *problem, cpga_segment *segment) {
    int32_t tasks = problem->num_tasks, count = 0, begin = 0;
    int64_t *tail = cpga_calloc(tasks, (int64_t)sizeof *tail);
    int32_t *cut = cpga_calloc(2 * (int64_t)tasks + 1, (int64_t)sizeof *cut);
    int32_t *pending = cut + tasks;
    if (tail != NULL && cut != NULL) {
        int32_t num_cuts = cpga_find_cuts(problem, cut);
        fill_tails(problem, tail);
        count_pending(problem, tail, cut, num_cuts, pending);
        for (int32_t k = 0; k < num_cuts; k++) {
            if (pending[k] > 0 || cut[k] == tasks - 1)
                continue;
            segment[count++] =
                (cpga_segment){begin, cut[k] + 1, begin - 1, 0, slack_of(problem, cut[k])};
            begin = cut[k] + 1;
        }
        segment[count++] = (cpga_segment){begin, tasks, begin - 1, 1, 0};
    } else {
        count = -1;
    }
    free(tail);
    free(cut);
    return count;
}

/* The edges of a task that count in its segment, which are the last of its predecessors. */
static int32_t first_pred(const cpga_problem *problem, const cpga_segment *segment, int32_t task) {
    int32_t first = problem->pred_begin[task];
    while (first < problem->pred_begin[task + 1] &&
           problem->pred[first].task < cpga_imax(0, segment->entry))
        first++;
    return first;
}

static int equal_tasks(const cpga_problem *problem, const cpga_segment *a, const cpga_segment *b,
                       int32_t place) {
    int32_t task = a->begin + place, other = b->begin + place, devices = problem->num_devices;
    int32_t i = first_pred(problem, a, task), k = first_pred(problem, b, other);
    if (problem->pred_begin[task + 1] - i != problem->pred_begin[other + 1] - k ||
        memcmp(problem->exec_ns + (int64_t)task * devices,
               problem->exec_ns + (int64_t)other * devices,
               (size_t)devices * sizeof *problem->exec_ns) != 0)
        return 0;
    for (; i < problem->pred_begin[task + 1]; i++, k++) {
        const cpga_edge *first = &problem->pred[i], *second = &problem->pred[k];
        if (first->task - a->begin != second->task - b->begin ||
            memcmp(problem->copy_ns + first->copy, problem->copy_ns + second->copy,
                   (size_t)devices * (size_t)devices * sizeof *problem->copy_ns) != 0)
            return 0;
    }
    return 1;
}

int cpga_equal_segments(const cpga_problem *problem, const cpga_segment *a, const cpga_segment *b) {
    int32_t tasks = a->end - a->begin;
    if (a->entry < 0 || b->entry < 0 || a->is_last || b->is_last || b->end - b->begin != tasks ||
        a->slack != b->slack)
        return 0;
    for (int32_t place = 0; place < tasks; place++) {
        if (!equal_tasks(problem, a, b, place))
            return 0;
    }
    return 1;
}
