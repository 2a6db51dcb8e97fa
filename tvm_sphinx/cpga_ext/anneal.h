/* Annealing of one plan, with a temperature that follows how many worse changes are accepted.
 *
 * Simulated annealing: Kirkpatrick, Gelatt, Vecchi, Science 220, 1983. The temperature is steered
 * as by Lam and Delosme ("Performance of a new annealing schedule", DAC 1988), towards a share of
 * accepted worse changes that falls geometrically, so that no problem needs temperatures of its
 * own. */
#ifndef CPGA_ANNEAL_H
#define CPGA_ANNEAL_H

#include "fixed_point.h"
#include "memory.h"
#include "moves.h"

typedef struct cpga_anneal_params {
    int32_t critical_percent; /* changes that start from a task of a critical path: while hot, */
    int32_t late_percent;     /* and in the colder half of an annealing, a local search */
    int32_t focus;            /* places that a visit may change */
    int32_t visit;            /* evaluations of a visit, for up to some hundred tasks */
    int32_t sort_every;       /* visits between sorts of the order by start time */
    cpga_move_params moves;
} cpga_anneal_params;

/* An order, devices, and how good they are. */
typedef struct cpga_chromosome {
    int32_t *order;
    int32_t *device;
    int64_t makespan;
    int64_t overflow; /* bytes above the memory capacities; 0 if it fits */
} cpga_chromosome;

typedef struct cpga_annealer {
    const cpga_problem *problem;
    cpga_anneal_params params;
    cpga_rng rng;
    cpga_fixed_tables fixed;
    cpga_paths plan;
    cpga_move move;
    cpga_memory memory;
    cpga_chromosome best; /* of all plans since init */
    int64_t overflow;     /* of the present plan */
    int64_t temperature;
    int32_t critical_percent; /* at present */
    int64_t evaluations;
    int64_t last_improvement; /* value of evaluations when best last improved */
    int64_t worse_seen;       /* since the temperature was last steered */
    int64_t worse_taken;
    int32_t since_sort;
    int32_t num_critical; /* -1: not known for the present plan */
    int32_t *critical;
    int32_t *old_window; /* scratch */
} cpga_annealer;

int cpga_chromosome_init(cpga_chromosome *self, const cpga_problem *problem);
void cpga_chromosome_free(cpga_chromosome *self);

/* True if a is better than b: it fits better, or is shorter. */
int cpga_better(const cpga_chromosome *a, const cpga_chromosome *b);

int cpga_annealer_init(cpga_annealer *self, const cpga_problem *problem,
                       const cpga_anneal_params *params, uint64_t seed);
void cpga_annealer_free(cpga_annealer *self);

/* Go on from an order and devices; counts as one evaluation. */
void cpga_annealer_load(cpga_annealer *self, const int32_t *order, const int32_t *device);

/* Write the present plan to a chromosome. */
void cpga_annealer_store(const cpga_annealer *self, cpga_chromosome *to);

/* One visit of up to max_evaluations: choose a focus, change tasks in it, and steer the temperature
 * towards accepting `target` in 2**20 of the changes for the worse. */
void cpga_annealer_visit(cpga_annealer *self, int64_t target, int64_t max_evaluations);

#endif
