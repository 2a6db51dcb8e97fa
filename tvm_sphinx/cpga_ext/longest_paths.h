/* A schedule with its longest paths, so that a change can be valued by the tasks that it touches.
 *
 * A plan is an order and a device for each task, decoded with the append rule. Besides when each
 * task finishes ("head") it knows how long the schedule still runs from the start of each task
 * ("tail"); both are longest paths in the disjunctive graph (Balas: "Machine sequencing via
 * disjunctive graphs", Operations Research 17(6), 1969), and as in tabu search for job shops
 * (Taillard: "Parallel taboo search techniques for the job shop scheduling problem", ORSA JoC 6(2),
 * 1994) they give the makespan after a change from the changed tasks alone: here exactly, not as an
 * estimate, since all tasks of the changed window of the order are decoded again. Changes are made
 * in a focus, a range of places: only heads and tails in it are kept up to date, so that a change
 * costs no more in a large plan than in a small one. */
#ifndef CPGA_LONGEST_PATHS_H
#define CPGA_LONGEST_PATHS_H

#include "decode.h"

/* What cpga_paths_try returns for a makespan above its limit. */
#define CPGA_ABOVE_LIMIT INT64_MAX

typedef struct cpga_paths {
    const cpga_problem *problem;
    int32_t *order;
    int32_t *position; /* inverse of order */
    int32_t *device;
    int64_t *finish;  /* end of each task */
    int64_t *rest;    /* from the start of each task to the end of all that waits for it */
    int64_t *free_at; /* [place in the order][resource]: end of the last task before it */
    int64_t *need;    /* [place in the order][resource]: rest of the first task from it on */
    int64_t makespan;
    int32_t begin; /* the focus: changes are made at places begin..end, both included */
    int32_t end;
    int64_t around;  /* the longest path that avoids all tasks in focus */
    int touched;     /* true if heads right of the focus and tails left of it are out of date */
    int32_t *home;   /* the devices that all of the above was computed for */
    int32_t moved;   /* the task that the window moves to another place, or -1 */
    int32_t *window; /* scratch: the tasks of a window in their new order */
    int32_t *mark;   /* scratch: == stamp for tasks that read something that changed */
    int32_t stamp;
    char *differs;         /* scratch, num_resources: is free at another time than before */
    int64_t *trial_finish; /* scratch */
    int64_t *trial_free;   /* scratch, num_resources */
} cpga_paths;

int cpga_paths_init(cpga_paths *self, const cpga_problem *problem);
void cpga_paths_free(cpga_paths *self);

/* Take over an order and devices, and compute everything; the focus is the whole order. */
void cpga_paths_load(cpga_paths *self, const int32_t *order, const int32_t *device);

/* Confine changes to places begin..end, so that making one costs no more than that. */
void cpga_paths_focus(cpga_paths *self, int32_t begin, int32_t end);

/* The makespan if the tasks at places first..last (in focus) were ordered as in self->window, with
 * the devices of self->device, which may already differ from what was loaded for these tasks only.
 * Against the present order at most one task changes its place among the others: self->moved.
 *
 * Exact if it is above the present makespan; otherwise the new makespan lies between the value and
 * the present makespan. CPGA_ABOVE_LIMIT as soon as it is known to be above the limit. */
int64_t cpga_paths_try(cpga_paths *self, int32_t first, int32_t last, int64_t limit);

/* Make the change that was tried; the makespan is exact. */
void cpga_paths_apply(cpga_paths *self, int32_t first, int32_t last);

/* Bring everything up to date, sort the order by start times, so that a place in it is a moment,
 * and focus on the whole order; the schedule stays the same. */
void cpga_paths_sort(cpga_paths *self);

/* Write the tasks in focus that lie on a longest path to critical; return how many. */
int32_t cpga_paths_critical(const cpga_paths *self, int32_t *critical);

#endif
