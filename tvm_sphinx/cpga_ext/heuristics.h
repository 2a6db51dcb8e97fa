/* List-scheduling heuristics: what a search has to beat, and what it starts from.
 *
 * HEFT and CPOP: Topcuoglu, Hariri, Wu: "Performance-effective and low-complexity task scheduling
 * for heterogeneous computing", IEEE TPDS 13(3), 2002. PEFT: Arabnejad, Barbosa: "List scheduling
 * algorithm for heterogeneous systems by an optimistic cost table", IEEE TPDS 25(3), 2014.
 * Means are taken over the devices that can run a task, and over the pairs of distinct devices. */
#ifndef CPGA_HEURISTICS_H
#define CPGA_HEURISTICS_H

#include "decode.h"

typedef enum cpga_heuristic {
    CPGA_HEFT = 0,
    CPGA_CPOP = 1,
    CPGA_PEFT = 2,
    CPGA_FASTEST = 3, /* every task on its fastest device, by upward rank */
    CPGA_SINGLE = 4,  /* all tasks on one device, by upward rank */
} cpga_heuristic;

/* Run a heuristic with the insertion rule. `only` is the device of CPGA_SINGLE.
 *
 * order, device, finish: num_tasks, set. makespan: set. CPGA_ERR_NO_DEVICE if CPGA_SINGLE names a
 * device that cannot run every task. */
int cpga_heuristic_run(const cpga_problem *problem, cpga_heuristic heuristic, int32_t only,
                       int32_t *order, int32_t *device, int64_t *finish, int64_t *makespan);

/* Upward ranks (num_tasks), in units of 2**-shift ns, where shift is returned. */
int cpga_upward_rank(const cpga_problem *problem, int64_t *rank);

#endif
