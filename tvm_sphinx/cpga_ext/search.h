/* CPGA: a genetic search whose individuals are annealed along their critical paths.
 *
 * A memetic algorithm (Moscato: "On evolution, search, optimization, genetic algorithms and martial
 * arts", Caltech C3P 826, 1989). The search runs in cycles. Each takes an individual, anneals it,
 * and puts it into the population. The first ones start from the heuristics and from random
 * devices; later ones from a crossover of two members: the better one, with a region's devices from
 * the other one. Bounded work per call, all state owned, one seed one result. */
#ifndef CPGA_SEARCH_H
#define CPGA_SEARCH_H

#include "anneal.h"

#define CPGA_MAX_POPULATION 64

typedef struct cpga_params {
    int32_t population;
    int32_t cycles;       /* that a budget is cut into, if their length allows it: */
    int32_t effort;       /* a cycle's least evaluations per task; 0: by the problem */
    int32_t accept_first; /* changes for the worse accepted, in 2**-20: by a new individual, */
    int32_t accept_again; /* by the child of a crossover, or the best that is annealed again, */
    int32_t accept_last;  /* and at the end of either's annealing */
    cpga_anneal_params anneal;
} cpga_params;

typedef struct cpga_search {
    const cpga_problem *problem;
    cpga_params params;
    cpga_annealer annealer;
    cpga_chromosome *seed;   /* what the heuristics found, best first */
    int32_t num_seeds;       /* cpga_search_max_seeds at most */
    cpga_chromosome *member; /* params.population */
    int32_t num_members;
    int32_t wanted_members; /* the population grows up to here */
    int32_t is_child;       /* the individual at hand comes from a crossover */
    int32_t is_one;         /* one long annealing after two short ones, not many of one length */
    int64_t cycle;          /* cycles begun */
    int64_t cycle_begin;    /* evaluations when it began */
    int64_t cycle_length;   /* evaluations that it takes */
    int64_t hot;            /* temperature that a tenth of a cycle settled at */
    int64_t effort;         /* evaluations per task that a cycle of this problem takes at least */
    int64_t mean_exec_ns;   /* over the tasks, each on its fastest device */
} cpga_search;

/* Run the heuristics. The problem must outlive the search. */
int cpga_search_init(cpga_search *self, const cpga_problem *problem, const cpga_params *params,
                     uint64_t seed);
/* Put a feasible plan among the seeds. CPGA_ERR_STATE if two were given, or the search has begun.
 */
int cpga_search_start(cpga_search *self, const int32_t *order, const int32_t *device);
void cpga_search_free(cpga_search *self);
/* Seeds at most: one per heuristic and single device, and two that are given. */
int32_t cpga_search_max_seeds(const cpga_search *self);

/* Go on for at least max_evaluations, to the end of a visit, but not beyond `horizon` evaluations
 * since init; cycles are laid out so that the last one ends there. How the work is cut into calls
 * makes no difference as long as the horizon stays the same. */
void cpga_search_run(cpga_search *self, int64_t max_evaluations, int64_t horizon);

#endif
