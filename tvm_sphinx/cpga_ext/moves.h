/* Changes of a plan: which tasks of which window of the order go where. */
#ifndef CPGA_MOVES_H
#define CPGA_MOVES_H

#include "longest_paths.h"
#include "rng.h"

/* A change that is written into a plan's devices and window, but not applied. */
typedef struct cpga_move {
    int32_t first;
    int32_t last;
    int32_t num_moved;   /* tasks whose device differs */
    int32_t *moved;      /* num_tasks */
    int32_t *old_device; /* num_tasks */
    int32_t *mark;       /* num_tasks: == stamp for tasks of the block that is being grown */
    int32_t stamp;
} cpga_move;

/* How often each kind of change is drawn, in percent, and how far it reaches. */
typedef struct cpga_move_params {
    int32_t block_percent;
    int32_t swap_percent;
    int32_t gather_percent; /* of the blocks: tasks join from whatever device they are on */
    int32_t max_block_bits;
    int32_t max_span_bits;
} cpga_move_params;

int cpga_move_init(cpga_move *self, const cpga_problem *problem);
void cpga_move_free(cpga_move *self);

/* Begin a new set of marked tasks. */
void cpga_move_stamp(cpga_move *self, const cpga_problem *problem);

/* A random task joined to `task` by an edge, or -1. */
int32_t cpga_draw_neighbour(const cpga_problem *problem, cpga_rng *rng, int32_t task);

/* Draw a change around a task: its set to another device or place, a block of connected tasks to
 * one device, or an exchange of devices. Returns 0 if what was drawn changes nothing. */
int cpga_move_draw(cpga_move *self, cpga_paths *plan, const cpga_move_params *params, cpga_rng *rng,
                   int32_t task);

/* Put the devices back. */
void cpga_move_undo(const cpga_move *self, cpga_paths *plan);

#endif
