/* What a schedule holds in the memory of each device, and by how much that passes the capacities.
 */
#ifndef CPGA_MEMORY_H
#define CPGA_MEMORY_H

#include "problem.h"

/* A tensor that appears on a device (change > 0) or disappears from it. */
typedef struct cpga_memory_event {
    int64_t time;
    int64_t change;
    int32_t device;
} cpga_memory_event;

typedef struct cpga_memory {
    const cpga_problem *problem;
    cpga_memory_event *event; /* 2 x (tasks + edges) */
    int64_t *last_use;        /* num_devices: of the task at hand, -1 where it is not held */
    int64_t *peak;            /* num_devices */
} cpga_memory;

int cpga_memory_init(cpga_memory *self, const cpga_problem *problem);
void cpga_memory_free(cpga_memory *self);

/* Bytes above the capacities, summed over the devices; 0 if the schedule fits.
 *
 * A device holds the weights of its tasks all the time, a task's outputs from its start until the
 * last reader anywhere has finished (to the end, if none reads them), and copies of outputs from
 * the finish of their producer until its own last reader has finished. */
int64_t cpga_memory_overflow(cpga_memory *self, const int32_t *device, const int64_t *finish);

#endif
