/* The search: bounded work per call, all state owned, one seed one result. */
#ifndef CPGA_SEARCH_H
#define CPGA_SEARCH_H

#include "cooling.h"
#include "memory.h"
#include "moves.h"

typedef struct cpga_params {
    int32_t hot_ppm;          /* temperatures, in millionths of the makespan */
    int32_t cold_ppm;
    int32_t critical_percent; /* changes that start from a task of a critical path */
    int32_t tied_percent;     /* share of the search with tied genes, if there are any */
    int32_t sort_every;       /* evaluations between sorts of the order by start time */
    cpga_move_params moves;
} cpga_params;

/* An order, devices and their makespan. */
typedef struct cpga_chromosome {
    int32_t *order;
    int32_t *device;
    int64_t makespan;
    int64_t overflow;         /* bytes above the memory capacities; 0 if it fits */
} cpga_chromosome;

typedef struct cpga_search {
    const cpga_problem *problem;
    const cpga_units *tied;   /* NULL: nothing is tied beyond the problem's own units */
    cpga_params params;
    cpga_rng rng;
    cpga_cooling cooling;
    cpga_plan plan;
    cpga_move move;
    cpga_memory memory;
    int64_t overflow;         /* of the present plan */
    int32_t *old_window;      /* scratch: a window before the change */
    cpga_chromosome best;
    int32_t *critical;
    int32_t num_critical;     /* -1: not known for the present plan */
    int32_t since_sort;
    int64_t evaluations;
    int64_t last_improvement; /* value of evaluations when best last fell */
} cpga_search;

/* Start from the best of the heuristics. The problem and the units must outlive the search. */
int cpga_search_init(cpga_search *self, const cpga_problem *problem, const cpga_units *tied,
    const cpga_params *params, uint64_t seed);
/* Go on from a given plan, if it is better than the best so far. It must be feasible. */
void cpga_search_start(cpga_search *self, const int32_t *order, const int32_t *device);
void cpga_search_free(cpga_search *self);

/* Value up to max_evaluations changes; the temperature falls so that it is cold at `horizon`
 * evaluations, counted from the start of the search. */
int cpga_search_run(cpga_search *self, int64_t max_evaluations, int64_t horizon);

#endif
