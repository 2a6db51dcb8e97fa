/* A scheduling problem in the form that the decoders read: owned, checked once, then constant. */
#ifndef CPGA_PROBLEM_H
#define CPGA_PROBLEM_H

#include "sets.h"
#include "status.h"

#define CPGA_UNLIMITED (-1)
/* No sum over a problem passes this, so no time of any schedule overflows int64. */
#define CPGA_MAX_TOTAL_NS (INT64_C(1) << 62)

/* The other end of an edge, and where its copy table starts in cpga_problem.copy_ns. */
typedef struct cpga_edge {
    int32_t task;
    int32_t copy;
} cpga_edge;

/* What cpga_problem_init reads; every array belongs to the caller and is copied.
 *
 * exec_ns, release_ns, delivery_ns, weight_bytes: num_tasks x num_devices. edges: num_edges x 2,
 * source below destination. copy_class: num_edges. copy_ns: num_classes x source device x
 * destination device. resource_begin (num_devices + 1) and resources list, for each device, the
 * exclusive resources that it occupies. set_of_task: num_tasks labels 0..num_sets-1, tasks of a set
 * share one device. memory_bytes: num_devices; output_bytes: num_tasks. */
typedef struct cpga_problem_data {
    int32_t num_tasks;
    int32_t num_devices;
    int32_t num_edges;
    int32_t num_classes;
    int32_t num_resources;
    int32_t num_sets;
    const int64_t *exec_ns;
    const int64_t *release_ns;
    const int64_t *delivery_ns;
    const int64_t *edges;
    const int64_t *copy_class;
    const int64_t *copy_ns;
    const int64_t *resource_begin;
    const int64_t *resources;
    const int64_t *set_of_task;
    const int64_t *memory_bytes;
    const int64_t *weight_bytes;
    const int64_t *output_bytes;
} cpga_problem_data;

typedef struct cpga_problem {
    int32_t num_tasks;
    int32_t num_devices;
    int32_t num_edges;
    int32_t num_classes;
    int32_t num_resources;
    int has_memory_limit;
    int64_t total_ns;        /* no path of any schedule is longer; below CPGA_MAX_TOTAL_NS */
    int64_t *exec_ns;        /* [task][device] */
    int64_t *release_ns;     /* [task][device] */
    int64_t *delivery_ns;    /* [task][device] */
    int64_t *copy_ns;        /* [class][destination device][source device] */
    int32_t *pred_begin;     /* num_tasks + 1 */
    cpga_edge *pred;         /* num_edges, by destination, sources ascending */
    int32_t *succ_begin;     /* num_tasks + 1 */
    cpga_edge *succ;         /* num_edges, by source, destinations ascending */
    int32_t *resource_begin; /* num_devices + 1 */
    int32_t *resource;
    int64_t *shortest_ns;  /* num_resources: no task occupies it for less */
    int64_t *memory_bytes; /* num_devices */
    int64_t *weight_bytes; /* [task][device] */
    int64_t *output_bytes; /* num_tasks */
    cpga_sets sets;        /* colocated tasks, and every other task by itself */
} cpga_problem;

/* Copy and check; on failure self is left empty, and cpga_problem_free is harmless. */
int cpga_problem_init(cpga_problem *self, const cpga_problem_data *data);
void cpga_problem_free(cpga_problem *self);

static inline int64_t cpga_exec(const cpga_problem *self, int32_t task, int32_t device) {
    return self->exec_ns[(int64_t)task * self->num_devices + device];
}

static inline int64_t cpga_weight(const cpga_problem *self, int32_t task, int32_t device) {
    return self->weight_bytes[(int64_t)task * self->num_devices + device];
}

static inline int64_t cpga_copy(const cpga_problem *self, int32_t copy, int32_t source,
                                int32_t destination) {
    return self->copy_ns[copy + destination * self->num_devices + source];
}

/* The longest copy of an edge, over all pairs of devices. */
int64_t cpga_longest_copy(const cpga_problem *problem, int32_t copy);

/* The mean over pairs of distinct devices of what an edge costs, times 2**shift. */
int64_t cpga_mean_copy(const cpga_problem *problem, int32_t copy, int shift);

/* The time that a task takes on its fastest device. */
int64_t cpga_fastest_exec(const cpga_problem *problem, int32_t task);

#endif
