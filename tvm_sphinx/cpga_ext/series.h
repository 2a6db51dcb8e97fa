/* Scheduling a series of segments: each by itself for every pair of devices of the cuts at its
 * ends, equal ones once, joined by a shortest path over the devices of the cuts. */
#ifndef CPGA_SERIES_H
#define CPGA_SERIES_H

#include "cuts.h"

typedef struct cpga_series {
    int32_t num_segments; /* 0: this problem does not fall into segments that are small enough, or
                             finding their plans takes more work than there may be */
    int32_t num_distinct; /* segments that no earlier one equals */
    int64_t work;         /* tasks placed in partial schedules, and half the pairs compared */
    int64_t bound;        /* no schedule is shorter; 0 if that is not known */
    int32_t *order;       /* num_tasks */
    int32_t *device;      /* num_tasks */
    int32_t *distinct;    /* [num_distinct][3]: first task, end, entry devices it was solved for */
} cpga_series;

int cpga_series_init(cpga_series *self, const cpga_problem *problem);
void cpga_series_free(cpga_series *self);

/* Find a plan, and a bound if the search was exhaustive; decoded with the append rule, a plan as
 * long as the bound is optimal. The search keeps at most max_states partial schedules of a size.
 * Where a segment takes too many of max_work, no proof is possible, and what is left of the
 * work is done by narrow beams; where they are used up, it is given up. */
int cpga_series_solve(cpga_series *self, const cpga_problem *problem, int64_t max_states,
                      int64_t max_work);

#endif
