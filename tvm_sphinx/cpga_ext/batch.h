/* Decode many device assignments that share one order, sixteen in lockstep where AVX-512 is there.
 *
 * The same append rule in int32 lanes, taken only where every sum fits, so that the result is that
 * of the scalar decoder bit for bit. Chosen at run time; elsewhere each lane is decoded by itself.
 */
#ifndef CPGA_BATCH_H
#define CPGA_BATCH_H

#include "decode.h"

#define CPGA_LANES 16

typedef struct cpga_batch {
    const cpga_problem *problem;
    int wide;       /* true if the lanes run in lockstep */
    int32_t stride; /* int32 values of a copy table: 16 or 64 */
    int32_t *copy;  /* [class][stride]: at destination * devices + source */
    int32_t *exec;  /* [task][16] by device; so are release and delivery */
    int32_t *release;
    int32_t *delivery;
    int32_t uses[16];     /* by device: a bit for every resource */
    int32_t *finish;      /* [task][16 lanes] */
    int32_t *lane_device; /* num_tasks */
    int64_t *lane_finish; /* num_tasks */
    cpga_timeline timeline;
} cpga_batch;

/* allow_wide: 0 keeps to the scalar decoder. */
int cpga_batch_init(cpga_batch *self, const cpga_problem *problem, int allow_wide);
void cpga_batch_free(cpga_batch *self);

/* device: [task][16 lanes]; makespan: 16, set. */
void cpga_batch_decode(cpga_batch *self, const int32_t *order, const int32_t *device,
                       int64_t *makespan);

#endif
