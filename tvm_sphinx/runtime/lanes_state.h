/* What `lanes_core.c` (threads and runs) and `lanes_teams.c` (parallel loops) share. */
#ifndef TVM_SPHINX_LANES_STATE_H_
#define TVM_SPHINX_LANES_STATE_H_

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "lanes_core.h"
#include "lanes_signal.h"

/* Flag of a team's gate. */
#define LANES_CLOSED 0x80000000u

/* What has been taken of a member's parts: the number of the loop in the upper half, and in the
 * lower how many from the front (16 bits) and from the back. Counts of an earlier loop stand for
 * none, so that nobody has to reset them. */
typedef struct {
    _Alignas(LANES_ALIGN) _Atomic uint64_t taken;
} share;

/* The workers of a device of several cores, or what they share of it.
 *
 * The leader opens an *epoch* for each parallel loop of its step. A helper that comes in time takes
 * parts of it; the leader takes parts too, and waits for those alone who are inside when none is
 * left. So a helper that the operating system has put aside holds nobody up, unless the parts need
 * one another.
 *
 * Parts are split in proportion to what members are said to be able to do, in order. Each member
 * takes its own from the front, and then, from the back, those that others have not come to
 * (affinity scheduling, Markatos and LeBlanc 1994): what a core has written, it mostly reads itself
 * in the next loop, and members seldom touch the same counter. A slow member leaves the last parts
 * of a fast one alone, which ends sooner without its help. Who runs a part changes nothing in what
 * it computes. */
typedef struct {
    lanes_signal epoch; /* raised when a loop begins and when a step ends */
    lanes_signal gate; /* helpers inside the loop, plus LANES_CLOSED while there is none to enter */
    lanes_signal joined; /* parts that helpers have run in loops whose parts need one another */
    lanes_signal barrier;
    _Atomic uint32_t arrived; /* at the barrier */
    _Atomic uint32_t steps_ended;
    _Atomic int part_failed;
    share *shares;         /* (num_helpers + 1) */
    const int32_t *speeds; /* (num_helpers + 1) */
    int64_t *before;       /* (num_helpers + 2) sum of the speeds of the members before each */
    int most_parts;        /* of a loop that takes as many as suit */
    uint32_t num_helpers;
    /* Written by the leader while the gate is closed, read by helpers inside. */
    uint32_t number;    /* of the loop, over all runs */
    uint32_t num_joint; /* loops so far whose parts need one another */
    int32_t step;
    lanes_part part;
    void *data;
    int num_parts;
    int together; /* each worker runs exactly one part, all at once */
} team;

typedef struct {
    lanes_signal progress; /* entries finished, over all runs */
    lanes *lanes;
    int32_t index;
    pthread_t thread;
    uint32_t *helped; /* (num_teams) steps of each team that this worker has seen the end of */
    uint32_t *last;   /* (num_teams) number of the last loop that it took part in */
    team *leading;    /* team of the step that this worker runs */
    int in_part;      /* inside a part, where no further parallel loop may start */
    uint64_t rng;
    int64_t slow_permille; /* 0: not slowed */
    int64_t shared_ns;     /* of the step that it runs, spent in loops of its team */
    int start_status;
} worker;

struct lanes {
    lanes_signal start;      /* number of runs begun */
    lanes_signal done;       /* number of runs finished */
    lanes_signal ready;      /* number of threads that have started */
    _Atomic int32_t running; /* workers that have not finished the run */
    _Atomic int stopping;    /* steps are skipped */
    _Atomic int failed;
    int quit;
    int threads_started;
    pthread_mutex_t turn;
    const lanes_program *program;
    lanes_hooks hooks;
    worker *workers;
    team *teams;
    int64_t *stamps;
    _Atomic int64_t idle_spin_ns;
    int64_t wait_spin_ns, max_delay_ns;
    int caller_looks; /* there is a core for it */
    int64_t last_run_ns;
    uint64_t delay_seed;
    lanes *next, **link; /* all lanes of the process, see after_fork */
};

/* The worker of this thread, NULL on threads of others. */
extern _Thread_local worker *lanes_current;

/* On a worker's thread: note that a step has failed; pause at random, if that is asked for. */
void lanes_fail(lanes *self, int32_t step);
void lanes_delay(worker *self);
/* Wait as long as a slowed worker takes longer for what began then and took so long up to now. */
void lanes_slow_down(const worker *self, int64_t begin_ns, int64_t taken_ns);
/* Decide how a team's loops are dealt out. */
void lanes_deal(team *team, int32_t size, const int32_t *speeds);
/* Help the leader with the loops of one step; for the leader: tell helpers that there are no more.
 */
void lanes_help(worker *self, const lanes_entry *entry);
void lanes_end_step(team *team);

#endif
