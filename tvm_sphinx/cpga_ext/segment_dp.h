/* Optimal schedules of a few tasks: dynamic programming over the sets of tasks that are done.
 *
 * After Ramamoorthy, Chandy, Gonzalez: "Optimal scheduling strategies in a multiprocessor system",
 * IEEE Trans. Computers C-21(2), 1972, with unlike devices and copies. A state is a set of tasks
 * that is closed under predecessors, the devices and finish times of those whose data is still to
 * be read, and when each resource is free. Of two states with equal sets and devices, one that is
 * nowhere later dominates the other one. States whose lower bound passes what a first, narrow
 * beam has found are left out. */
#ifndef CPGA_SEGMENT_DP_H
#define CPGA_SEGMENT_DP_H

#include "cuts.h"

/* Sets of tasks are bits of a word. */
#define CPGA_MAX_SEGMENT_TASKS 64
#define CPGA_MAX_SEGMENT_DEVICES 255

typedef struct cpga_segment_dp {
    const cpga_problem *problem;
    int64_t max_states; /* of one size of set, beyond which the best ones are kept */
    int64_t work;       /* tasks placed, and half as much for each two states compared, so far */
    int64_t max_work;   /* beyond which it is given up */
    int64_t max_wide;   /* beyond which beams stay narrow */
    int64_t max_each;   /* work of wide beams for one segment and entry device */
    int is_exact; /* nothing that may be better was left out so far; if not, beams stay narrow */
} cpga_segment_dp;

/* Find the schedules of a segment that end first, by the device of its last task.
 * CPGA_ERR_BUDGET if that takes more than max_work.
 *
 * Times count from the finish of the entry, which is on entry_device. finish (num_devices) is set;
 * -1 where that device is never of use. order and device (num_devices rows of as many as the
 * segment has tasks) are set for the others. Of the last segment all are in the first row, and its
 * finish includes the deliveries. Of all other segments, deliveries are left out of account, and so
 * are model inputs that are released later than the first segment ends. */
int cpga_segment_dp_solve(cpga_segment_dp *self, const cpga_segment *segment, int32_t entry_device,
                          int64_t *finish, int32_t *order, int32_t *device);

#endif
