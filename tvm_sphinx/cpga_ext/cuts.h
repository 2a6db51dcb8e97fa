/* Where a problem falls apart: tasks that every other task comes before or after.
 *
 * When such a task ends, all earlier ones have ended and no later one has begun, so every device is
 * idle. If the data of no earlier task can still be on its way, all that the rest depends on is the
 * device and the finish time of the cut: the problem is a series of smaller ones. */
#ifndef CPGA_CUTS_H
#define CPGA_CUTS_H

#include "problem.h"

/* A run of tasks, [begin, end); `entry` is the cut before it, or -1. Unless it is the last one, its
 * last task is a cut. */
typedef struct cpga_segment {
    int32_t begin;
    int32_t end;
    int32_t entry;
    int32_t is_last;
    /* Ending later than on another device by more than this, its last task is on the wrong one. */
    int64_t slack;
} cpga_segment;

/* List the tasks that every other task comes before or after, ascending; cut (num_tasks) is set,
 * and their number returned. */
int32_t cpga_find_cuts(const cpga_problem *problem, int32_t *cut);

/* Find the segments of a problem; segment (num_tasks) is set, and their number returned, or -1 if
 * there is no memory. */
int32_t cpga_find_segments(const cpga_problem *problem, cpga_segment *segment);

/* Whether two segments are alike but for the numbers of their tasks: never the first or the last.
 */
int cpga_equal_segments(const cpga_problem *problem, const cpga_segment *a, const cpga_segment *b);

#endif
