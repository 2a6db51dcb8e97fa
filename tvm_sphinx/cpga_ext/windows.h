/* Where and when each task of a part of a problem can still run, if all of it has to end in time.
 *
 * Constraint propagation for destructive bounds (Klein, Scholl: "Computing lower bounds by
 * destructive improvement", EJOR 112(2), 1999): a device that a task cannot use in time is struck
 * out, and a task that has none left refutes the time. */
#ifndef CPGA_WINDOWS_H
#define CPGA_WINDOWS_H

#include "problem.h"

/* The loads of so many resources are counted one by one, and from the soonest start on each. */
#define CPGA_MAX_SINGLE 8

/* A run of tasks, [begin, end): all of a problem, or what lies between two cuts. */
typedef struct cpga_part {
    int32_t begin;
    int32_t end;
    int32_t entry;        /* the cut before it, which ends at time 0, or -1 */
    int32_t entry_device; /* of the cut before it */
    int32_t exit_device;  /* that the last task has to run on, or -1 for any */
    int32_t is_last;      /* whether what is delivered counts */
} cpga_part;

/* Rows are tasks counted from the first of the part, columns devices. */
typedef struct cpga_windows {
    int64_t *head;    /* no earlier start */
    int64_t *tail;    /* no less between the finish and the end of all */
    uint64_t *before; /* bits of the tasks that run before it, in cpga_order_words words */
    uint8_t *can;     /* whether the task may run there */
} cpga_windows;

/* A task that others wait for, or that is part of a load: see there. */
typedef struct cpga_item {
    int64_t head;
    int64_t exec;
    int64_t remote;
    int64_t rest;
    int32_t task;
} cpga_item;

typedef struct cpga_propagation {
    const cpga_problem *problem;
    cpga_part part;
    int64_t limit;          /* all has to end by then */
    int64_t work;           /* steps left */
    const int64_t *weight;  /* num_resources: of the resources, for the load of all of them */
    int64_t *reach;         /* scratch: least time from the finish of each task there to another */
    uint8_t *is_reached;    /* scratch */
    cpga_item *items;       /* scratch */
    int64_t *heads;         /* scratch */
    int64_t *trial_weight;  /* scratch, num_resources */
    int64_t *resource_head; /* scratch: tasks x resources, if these are few */
    int64_t *resource_tail; /* scratch */
    int32_t *placed;        /* scratch: tasks that have one device left */
    int32_t *device;        /* scratch: of each task, or -1 */
    uint8_t *shares;        /* [device][device]: whether they share a resource */
} cpga_propagation;

int cpga_propagation_init(cpga_propagation *self, const cpga_problem *problem, int32_t most_tasks,
                          const int64_t *weight);
void cpga_propagation_free(cpga_propagation *self);

/* Words for one bit a task; none in parts that are too large to keep the order of their tasks. */
int32_t cpga_order_words(int32_t tasks);

static inline int cpga_is_before(const cpga_windows *windows, int32_t tasks, int32_t first,
                                 int32_t second) {
    uint64_t word = windows->before[(int64_t)second * cpga_order_words(tasks) + first / 64];
    return (int)(word >> (first % 64) & 1);
}

/* Let a task run before another one; both counted from the first of the part. */
static inline void cpga_set_before(cpga_windows *windows, int32_t tasks, int32_t first,
                                   int32_t second) {
    windows->before[(int64_t)second * cpga_order_words(tasks) + first / 64] |= UINT64_C(1)
                                                                               << (first % 64);
}

/* Sort the items by falling heads. */
void cpga_sort_items(cpga_propagation *self, int32_t count);

/* Whether the loads of each resource, of all alike, and of all by their weights can be done. */
int cpga_are_loads_kept(cpga_propagation *self, const cpga_windows *windows);

/* Raise a bound by counting: a resource is occupied by a whole number of tasks, so that 80 equal
 * tasks on 70 devices need two rounds. Looks at the longest tasks, one more each time. */
int cpga_count_bound(const cpga_problem *problem, int64_t *work, int64_t *bound);

/* Order tasks on devices that share a resource (Carlier, Pinson: "An algorithm for solving the
 * job-shop problem", Management Science 35(2), 1989); -1: refuted, else whether anything changed.
 */
int cpga_follow_orders(cpga_propagation *self, cpga_windows *windows);

/* Of two tasks that are placed on devices that share a resource, in no order so far, those with the
 * least time to spare; 0: there are none. The first is the one that can better run first. */
int cpga_choose_pair(cpga_propagation *self, const cpga_windows *windows, int32_t *first,
                     int32_t *second);

/* Bytes of the windows of so many tasks, and windows in such a block. */
int64_t cpga_windows_bytes(const cpga_problem *problem, int32_t tasks);
cpga_windows cpga_windows_at(const cpga_problem *problem, int32_t tasks, void *block);

/* Windows that only the ends of a part limit. */
void cpga_windows_open(const cpga_propagation *self, cpga_windows *windows);

/* Narrow windows until nothing changes, or for some rounds; 0 if a task has no device left, or too
 * much has to be done in too short a time: then nothing ends by the limit. */
int cpga_windows_narrow(cpga_propagation *self, cpga_windows *windows);

/* Let a task, counted from the first of the part, run on one device only. */
void cpga_windows_fix(const cpga_propagation *self, cpga_windows *windows, int32_t task,
                      int32_t device);

#endif
