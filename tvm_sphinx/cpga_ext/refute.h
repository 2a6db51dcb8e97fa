/* A lower bound by refutation: the longest makespan that is shown to be too short. */
#ifndef CPGA_REFUTE_H
#define CPGA_REFUTE_H

#include "problem.h"

/* Raise a lower bound, as far as so many steps of work allow.
 *
 * A problem is taken apart at its cuts (cuts.h). For each part, and the devices of the cuts around
 * it, a time is supposed and refuted by propagation (windows.h), and by trying the devices of one
 * task after the other, and then the orders on a resource. The parts add up
 * along the shortest path over the devices of the cuts. */
int cpga_refute(const cpga_problem *problem, int64_t max_work, int64_t *bound);

#endif
