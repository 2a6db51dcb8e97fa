/* Lower bounds on the makespan: what no schedule of a problem can beat. */
#ifndef CPGA_BOUNDS_H
#define CPGA_BOUNDS_H

#include "problem.h"

/* With no device ever busy: the soonest start of each task on each device, and the least time from
 * its finish there to the end. */
void cpga_heads(const cpga_problem *problem, int64_t *head);
void cpga_tails(const cpga_problem *problem, int64_t *tail);

/* The best of the longest chain and of the load of a set of tasks plus what must come before and
 * after all of it. */
int cpga_lower_bound(const cpga_problem *problem, int64_t *bound);

#endif
