/* List scheduling: from an order of the tasks and a device for each to start times.
 *
 * Tasks are placed one by one, in an order in which every task comes after its predecessors. With
 * the append rule a task starts when its data is there and its device has finished all earlier
 * tasks. With the insertion rule it starts in the earliest idle interval that holds it (Topcuoglu,
 * Hariri, Wu: "Performance-effective and low-complexity task scheduling for heterogeneous
 * computing", IEEE TPDS 13(3), 2002). A device is idle when all its resources are. */
#ifndef CPGA_DECODE_H
#define CPGA_DECODE_H

#include "problem.h"

typedef enum cpga_rule {
    CPGA_APPEND = 0,
    CPGA_INSERT = 1,
} cpga_rule;

/* An idle interval of a resource, closed at both ends. */
typedef struct cpga_gap {
    int64_t begin;
    int64_t end;
} cpga_gap;

/* When every resource is idle, while tasks are being placed. */
typedef struct cpga_timeline {
    const cpga_problem *problem;
    cpga_gap *gap;     /* num_resources rows of num_tasks + 1; ascending, the last never ends */
    int32_t *num_gaps; /* num_resources */
    int64_t *free_at;  /* num_resources: end of the last task */
} cpga_timeline;

int cpga_timeline_init(cpga_timeline *self, const cpga_problem *problem);
void cpga_timeline_free(cpga_timeline *self);
void cpga_timeline_clear(cpga_timeline *self);

/* The earliest start >= ready of a task of that length on a device. */
int64_t cpga_timeline_find(const cpga_timeline *self, int32_t device, int64_t ready, int64_t length,
                           cpga_rule rule);

/* Occupy a device from start on; the interval must be idle. */
void cpga_timeline_take(cpga_timeline *self, int32_t device, int64_t start, int64_t length);

/* When the data of all predecessors, and the model inputs, can be used on a device. */
int64_t cpga_ready_ns(const cpga_problem *problem, const int32_t *device, const int64_t *finish,
                      int32_t task, int32_t on);

/* Place all tasks; finish (num_tasks) is set, and the makespan returned. */
int64_t cpga_decode(cpga_timeline *self, const int32_t *order, const int32_t *device,
                    cpga_rule rule, int64_t *finish);

/* CPGA_OK if order is a topological order of all tasks; position (num_tasks) is set to its inverse.
 */
int cpga_check_order(const cpga_problem *problem, const int64_t *order, int32_t *position);

/* CPGA_OK if order is a topological order of all tasks, and every device can run its task. */
int cpga_check_chromosome(const cpga_problem *problem, const int64_t *order, const int64_t *device,
                          int32_t *position);

/* Sort an order by start time (then finish time, then place in the order): still topological.
 * The order is nearly sorted as a rule, so that this takes linear time. */
void cpga_sort_by_start(const cpga_problem *problem, const int32_t *device, const int64_t *finish,
                        int32_t *order);

#endif
