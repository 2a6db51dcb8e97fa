/* The lanes: one thread per core, each walking a fixed list of entries, run after run.
 *
 * This core knows function pointers only, nothing of TVM or Python, so that it can be tested alone
 * under sanitizers. `_lanes.c` binds it to TVM.
 *
 * A device of one core is one worker; a device of several cores is a *team*: its tasks stand in the
 * list of each of its workers, the first of which leads. So devices that share cores exclude each
 * other by construction, and no core ever has two threads of ours.
 */
#ifndef TVM_SPHINX_LANES_CORE_H_
#define TVM_SPHINX_LANES_CORE_H_

#include <stdatomic.h>
#include <stdint.h>

enum lanes_status {
    LANES_OK = 0,
    LANES_NO_MEMORY,
    LANES_NO_THREAD, /* the operating system refused a thread, or to bind it to its core */
    LANES_BAD_PROGRAM,
    LANES_TASK_FAILED, /* a task returned nonzero; `lanes_hooks.on_error` was told */
    LANES_STOPPED,     /* `lanes_hooks.poll` asked for a stop */
    LANES_REFUSED,     /* `lanes_run_options.prepare` refused the run */
};

/* Wait until `worker` has finished the entry at `position` of its list; from `num_workers` on it is
 * a counter that stands for a list which no worker walks, such as that of a GPU's stream. */
typedef struct {
    int32_t worker;
    int32_t position;
} lanes_wait;

typedef struct {
    int32_t step;   /* index into the steps */
    int32_t team;   /* team that runs the step, or -1 for this worker alone */
    int32_t member; /* position in the team: 0 runs the step, the others help; 0 without a team */
    int32_t publishes; /* 1: others wait for this entry */
    int32_t num_waits;
    lanes_wait *waits;
} lanes_entry;

/* Of `lanes_program.speeds`. */
enum { LANES_MOST_SPEED = 1000000 };

typedef struct {
    int32_t num_workers;
    int32_t num_steps;
    int32_t num_teams;
    int32_t
        num_feeders; /* the last of the workers; `lanes_hooks.watch` is called while they wait */
    int32_t num_counters;  /* see `lanes_hooks.counter` */
    int32_t *cores;        /* (num_workers) core of each worker, or -1 to leave it unbound */
    int32_t *team_sizes;   /* (num_teams) */
    int32_t **teams;       /* (num_teams) the workers of each team; the first leads */
    int32_t **speeds;      /* (num_teams) of each of them, > 0: loops are dealt out in proportion */
    int32_t *num_entries;  /* (num_workers) */
    lanes_entry **entries; /* (num_workers) */
} lanes_program;

typedef struct {
    void *user;
    /* Called once on each worker's thread before it runs anything; nonzero refuses the thread. */
    int (*on_start)(void *user, int32_t worker, int32_t core);
    /* Runs a step on the calling thread; nonzero is an error. */
    int (*run_step)(void *user, int32_t step);
    /* Called on the thread on which a step, or a part of it, failed. */
    void (*on_error)(void *user, int32_t step);
    /* Called in the place of `run_step` once a run is stopping; may be NULL. */
    void (*skip_step)(void *user, int32_t step);
    /* A counter that others raise to `position + 1` in each run, from 0; NULL where there are none.
     */
    _Atomic uint32_t *(*counter)(void *user, int32_t index);
    /* Called now and then on a feeder's thread while it waits; nonzero is an error in what it
     * feeds. */
    int (*watch)(void *user, int32_t worker);
    /* Called on the caller's thread while it waits, after signals and every 100 ms; nonzero stops.
     */
    int (*poll)(void *user);
} lanes_hooks;

typedef struct lanes lanes;

/* The part of a step that each member of a team runs, as TVM's generated code passes it. */
typedef struct {
    void *sync_handle;
    int32_t num_task;
} lanes_group;
typedef int (*lanes_part)(int task_id, lanes_group *group, void *data);

/* Check the program and start the threads. The program is borrowed and has to outlive the lanes. */
int lanes_alloc(const lanes_program *program, const lanes_hooks *hooks, lanes **out);
/* Stop and join the threads. No run may be in progress. */
void lanes_free(lanes *self);

typedef struct {
    int (*prepare)(void *argument); /* called when this caller has its turn; nonzero refuses the
                                       run; or NULL */
    void (*finish)(void *argument); /* called before the next caller gets its turn; may be NULL */
    void *argument;
    int64_t *stamps; /* (num_steps, 2) begin and end of each step, CLOCK_MONOTONIC ns; or NULL */
} lanes_run_options;

/* Run all steps once. Callers take turns. After LANES_TASK_FAILED or LANES_STOPPED the steps that
 * had not begun were skipped, no step is running any more, and the next run starts afresh. */
int lanes_run(lanes *self, const lanes_run_options *options);

/* For tests: delay lanes at random by up to `max_ns`; 0 turns it off. */
void lanes_set_delays(lanes *self, uint64_t seed, int64_t max_ns);
/* For tests: make all that a worker runs take `permille` / 1000 times as long, at least 1000. */
void lanes_set_slowdown(lanes *self, int32_t worker, int64_t permille);
/* How long to spin before sleeping: for another lane, and for the next run. */
void lanes_set_spin(lanes *self, int64_t wait_ns, int64_t idle_ns);

/* To be called from inside a step: run `part` for task ids 0 .. num_task - 1 (or as many as suit,
 * for num_task = 0) on the workers of the team, as they come. Elsewhere, on a device of one core,
 * and inside a part, the calling thread runs it alone. Same contract as TVMBackendParallelLaunch.
 */
int lanes_parallel_launch(lanes_part part, void *data, int num_task);
/* The same for parts that wait for one another: one on each worker of the team, all at once. */
int lanes_parallel_launch_together(lanes_part part, void *data, int num_task);
/* To be called from inside such a part: wait for the other parts. As TVMBackendParallelBarrier. */
int lanes_parallel_barrier(int task_id, lanes_group *group);

int64_t lanes_now_ns(void);
const char *lanes_strerror(int status);

#endif
