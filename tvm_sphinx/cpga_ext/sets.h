/* Tasks that have to share a device. */
#ifndef CPGA_SETS_H
#define CPGA_SETS_H

#include <stdint.h>

/* In place of the time that a task takes on a device that cannot run it. */
#define CPGA_CANNOT_RUN (-1)

/* A partition of the tasks into sets that are placed as one, and the devices that each may use.
 *
 * Set s holds members[begin[s] .. begin[s + 1]), ascending, and may run on
 * choices[choice_begin[s] .. choice_begin[s + 1]), ascending. */
typedef struct cpga_sets {
    int32_t num_sets;
    int32_t *of_task;
    int32_t *begin;
    int32_t *members;
    int32_t *choice_begin;
    int32_t *choices;
} cpga_sets;

/* Build a partition from labels 0..num_sets-1 of the tasks; every set must be non-empty, and some
 * device must run all of it. exec_ns: num_tasks x num_devices. */
int cpga_sets_init(cpga_sets *self, int32_t num_tasks, int32_t num_devices, const int64_t *exec_ns,
                   int32_t num_sets, const int64_t *label);
void cpga_sets_free(cpga_sets *self);

#endif
