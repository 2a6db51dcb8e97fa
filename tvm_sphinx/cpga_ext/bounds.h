/* Lower bounds on the makespan: what no schedule of a problem can beat. */
#ifndef CPGA_BOUNDS_H
#define CPGA_BOUNDS_H

#include "problem.h"

/* The least, over the devices of a neighbour, of its time there, what lies beyond it (beyond, per
 * device of it), and the copy from it to a device of the task at hand, or back. */
static inline int64_t cpga_least_through(const cpga_problem *problem, const cpga_edge *edge,
                                         const int64_t *beyond, int32_t on, int is_back) {
    int64_t least = INT64_MAX;
    for (int32_t other = 0; other < problem->num_devices; other++) {
        int64_t exec = cpga_exec(problem, edge->task, other);
        int64_t copy = is_back ? cpga_copy(problem, edge->copy, on, other)
                               : cpga_copy(problem, edge->copy, other, on);
        if (exec != CPGA_CANNOT_RUN)
            least = cpga_min(least, beyond[other] + exec + copy);
    }
    return least;
}

/* With no device ever busy: the soonest start of each task on each device, and the least time from
 * its finish there to the end. */
void cpga_heads(const cpga_problem *problem, int64_t *head);
void cpga_tails(const cpga_problem *problem, int64_t *tail);

/* Non-negative weights of the resources for a strong load bound, num_resources, set: their sum is
 * positive, and about 2**10. */
int cpga_load_weights(const cpga_problem *problem, int64_t *weight);

/* The best of the longest chain and of the load of a set of tasks plus what must come before and
 * after all of it. */
int cpga_lower_bound(const cpga_problem *problem, int64_t *bound);

#endif
