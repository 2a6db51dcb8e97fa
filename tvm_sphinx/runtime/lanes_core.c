#define _GNU_SOURCE
#include "lanes_core.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lanes_signal.h"

enum { POLL_NS = 100000000 };

/* Parts of a loop for each worker: more let a fast one take over from a slow one. */
enum { PARTS_PER_WORKER = 8 };
/* Of a loop; counts of them have 16 bits. */
enum { MOST_PARTS = 0xFFFF };

/* Flag of a team's gate. */
#define CLOSED 0x80000000u

/* What has been taken of a member's parts: the number of the loop in the upper half, and in the lower how
 * many from the front (16 bits) and from the back. Counts of an earlier loop stand for none, so that nobody
 * has to reset them. */
typedef struct {
  _Alignas(LANES_ALIGN) _Atomic uint64_t taken;
} share;

/* The workers of a device of several cores, or what they share of it.
 *
 * The leader opens an *epoch* for each parallel loop of its step. A helper that comes in time takes parts
 * of it; the leader takes parts too, and waits for those alone who are inside when none is left. So a
 * helper that the operating system has put aside holds nobody up, unless the parts need one another.
 *
 * Parts are split evenly, in order. Each member takes its own from the front, and then, from the back, those
 * that others have not come to (affinity scheduling, Markatos and LeBlanc 1994): what a core has written, it
 * mostly reads itself in the next loop, and members seldom touch the same counter. */
typedef struct {
  lanes_signal epoch; /* raised when a loop begins and when a step ends */
  lanes_signal gate;  /* helpers inside the loop, plus CLOSED while there is none to enter */
  lanes_signal joined; /* parts that helpers have run in loops whose parts need one another */
  lanes_signal barrier;
  _Atomic uint32_t arrived; /* at the barrier */
  _Atomic uint32_t steps_ended;
  _Atomic int part_failed;
  share *shares; /* (num_helpers + 1) */
  uint32_t num_helpers;
  /* Written by the leader while the gate is closed, read by helpers inside. */
  uint32_t number; /* of the loop, over all runs */
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
  uint32_t *helped;   /* (num_teams) steps of each team that this worker has seen the end of */
  uint32_t *last;     /* (num_teams) number of the last loop that it took part in */
  team *leading;      /* team of the step that this worker runs */
  int in_part;        /* inside a part, where no further parallel loop may start */
  uint64_t rng;
  int start_status;
} worker;

struct lanes {
  lanes_signal start; /* number of runs begun */
  lanes_signal done;  /* number of runs finished */
  lanes_signal ready; /* number of threads that have started */
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
  uint64_t delay_seed;
  lanes *next, **link; /* all lanes of the process, see after_fork */
};

static _Thread_local worker *current;

/* A child process has none of the threads, so every object has to learn of a fork. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t registry_once = PTHREAD_ONCE_INIT;
static lanes *registry;

static void forget_threads(lanes *self) {
  const lanes_program *program = self->program;
  lanes_signal *signals[] = {&self->start, &self->done, &self->ready};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) *signals[i] = (lanes_signal){0};
  for (int32_t i = 0; i < program->num_teams; i++) {
    share *shares = self->teams[i].shares;
    size_t size = (size_t)program->team_sizes[i];
    memset(&self->teams[i], 0, sizeof self->teams[i]);
    memset(shares, 0, size * sizeof *shares);
    self->teams[i].shares = shares;
    self->teams[i].num_helpers = (uint32_t)size - 1;
    atomic_init(&self->teams[i].gate.value, CLOSED);
  }
  for (int32_t i = 0; i < program->num_workers; i++) {
    self->workers[i].progress = (lanes_signal){0};
    memset(self->workers[i].helped, 0, (size_t)program->num_teams * sizeof(uint32_t));
    memset(self->workers[i].last, 0, (size_t)program->num_teams * sizeof(uint32_t));
  }
  self->threads_started = 0;
  self->quit = 0;
  pthread_mutex_init(&self->turn, NULL);
}

static void before_fork(void) { pthread_mutex_lock(&registry_lock); }
static void after_fork_in_parent(void) { pthread_mutex_unlock(&registry_lock); }
static void after_fork_in_child(void) {
  pthread_mutex_init(&registry_lock, NULL);
  current = NULL;
  for (lanes *each = registry; each; each = each->next) forget_threads(each);
}
static void watch_forks(void) {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static void enter_registry(lanes *self) {
  pthread_once(&registry_once, watch_forks);
  pthread_mutex_lock(&registry_lock);
  self->next = registry;
  self->link = &registry;
  if (registry) registry->link = &self->next;
  registry = self;
  pthread_mutex_unlock(&registry_lock);
}

static void leave_registry(lanes *self) {
  if (!self->link) return;
  pthread_mutex_lock(&registry_lock);
  *self->link = self->next;
  if (self->next) self->next->link = self->link;
  pthread_mutex_unlock(&registry_lock);
}

static void fail(lanes *self, int32_t step) {
  self->hooks.on_error(self->hooks.user, step);
  atomic_store(&self->failed, 1);
  atomic_store(&self->stopping, 1);
}

static void delay(worker *self) {
  int64_t most = self->lanes->max_delay_ns;
  if (!most) return;
  self->rng ^= self->rng << 13; /* xorshift64, Marsaglia 2003 */
  self->rng ^= self->rng >> 7;
  self->rng ^= self->rng << 17;
  if (self->rng & 1) return;
  int64_t pause_ns = (int64_t)((self->rng >> 1) % (uint64_t)most);
  nanosleep(&(struct timespec){.tv_sec = pause_ns / 1000000000, .tv_nsec = pause_ns % 1000000000}, NULL);
}

/* --- teams ------------------------------------------------------------------------------------- */

/* Take one of a member's parts, the first or the last that is left; -1 if none is. */
static int take_part(team *team, int32_t owner, int from_back) {
  int64_t size = (int64_t)team->num_helpers + 1;
  uint32_t begin = (uint32_t)(team->num_parts * (int64_t)owner / size);
  uint32_t end = (uint32_t)(team->num_parts * ((int64_t)owner + 1) / size);
  uint64_t loop = (uint64_t)team->number << 32, seen = atomic_load(&team->shares[owner].taken);
  uint32_t front, back;
  do {
    uint32_t counts = seen >> 32 == team->number ? (uint32_t)seen : 0;
    front = counts >> 16;
    back = counts & 0xFFFF;
    if (begin + front + back >= end) return -1;
  } while (!atomic_compare_exchange_weak(&team->shares[owner].taken, &seen,
                                         loop | (front + !from_back) << 16 | (back + !!from_back)));
  return (int)(from_back ? end - 1 - back : begin + front);
}

/* Run parts until none is left, or, of parts that need one another, the member's own one. */
static int run_share(worker *self, team *team, int32_t member) {
  lanes_group group = {.sync_handle = team, .num_task = team->num_parts};
  int32_t size = (int32_t)team->num_helpers + 1;
  int status = 0;
  self->in_part++;
  if (team->together)
    status = team->part(member, &group, team->data);
  else
    for (int32_t i = 0; i < size; i++)
      for (int id; status == 0 && (id = take_part(team, (member + i) % size, i > 0)) >= 0;)
        status = team->part(id, &group, team->data);
  self->in_part--;
  return status;
}

static void help_inside(worker *self, const lanes_entry *entry, team *team) {
  uint32_t *last = &self->last[entry->team];
  if (*last == team->number) return;
  *last = team->number;
  delay(self);
  if (run_share(self, team, entry->member) != 0) {
    atomic_store(&team->part_failed, 1);
    fail(self->lanes, team->step);
  }
  if (team->together) lanes_signal_add(&team->joined);
}

/* Help the leader with the loops of one step. */
static void help(worker *self, const lanes_entry *entry) {
  team *team = &self->lanes->teams[entry->team];
  uint32_t target = ++self->helped[entry->team];
  for (;;) {
    uint32_t epoch = atomic_load(&team->epoch.value);
    if (lanes_reached(atomic_load(&team->steps_ended), target)) return;
    if (!(atomic_fetch_add(&team->gate.value, 1) & CLOSED)) help_inside(self, entry, team);
    lanes_signal_subtract(&team->gate);
    lanes_signal_wait(&team->epoch, epoch + 1, self->lanes->wait_spin_ns);
  }
}

static void end_step(team *team) {
  atomic_fetch_add(&team->steps_ended, 1);
  lanes_signal_add(&team->epoch);
}

/* Run a loop on the calling thread alone. */
static int run_alone(lanes_part part, void *data, int num_parts) {
  lanes_group group = {.sync_handle = NULL, .num_task = num_parts};
  int status = 0;
  for (int id = 0; id < num_parts && status == 0; id++) status = part(id, &group, data);
  return status;
}

static int launch(lanes_part part, void *data, int num_parts, int together) {
  worker *self = current;
  team *team = self && !self->in_part ? self->leading : NULL;
  if (!team) return run_alone(part, data, num_parts > 0 && !together ? num_parts : 1);
  int64_t spin_ns = self->lanes->wait_spin_ns;
  int size = (int)team->num_helpers + 1;
  /* The gate is closed and nobody is inside. */
  team->number++;
  team->num_joint += together != 0;
  team->part = part;
  team->data = data;
  team->num_parts = together ? size : num_parts > 0 ? num_parts : size * PARTS_PER_WORKER;
  if (team->num_parts > MOST_PARTS) team->num_parts = MOST_PARTS; /* each takes more, by group.num_task */
  team->together = together;
  atomic_fetch_and(&team->gate.value, ~CLOSED);
  lanes_signal_add(&team->epoch);
  int status = run_share(self, team, 0);
  if (together) lanes_signal_wait(&team->joined, team->num_joint * team->num_helpers, spin_ns);
  atomic_fetch_or(&team->gate.value, CLOSED);
  lanes_signal_wait_equal(&team->gate, CLOSED, spin_ns);
  return status != 0 || atomic_exchange(&team->part_failed, 0) ? -1 : 0;
}

int lanes_parallel_launch(lanes_part part, void *data, int num_task) {
  return launch(part, data, num_task, 0);
}

int lanes_parallel_launch_together(lanes_part part, void *data, int num_task) {
  (void)num_task;
  return launch(part, data, 0, 1);
}

int lanes_parallel_barrier(int task_id, lanes_group *group) {
  (void)task_id;
  team *team = group->sync_handle;
  if (!team || group->num_task <= 1) return 0;
  uint32_t generation = atomic_load(&team->barrier.value);
  if (atomic_fetch_add(&team->arrived, 1) + 1 == (uint32_t)group->num_task) {
    atomic_store(&team->arrived, 0);
    lanes_signal_add(&team->barrier);
  } else {
    lanes_signal_wait(&team->barrier, generation + 1, current->lanes->wait_spin_ns);
  }
  return 0;
}

/* --- workers ----------------------------------------------------------------------------------- */

static void run_entry(worker *self, const lanes_entry *entry) {
  lanes *lanes = self->lanes;
  team *team = entry->team < 0 ? NULL : &lanes->teams[entry->team];
  /* After an error nothing is computed any more, but every hand-over still happens, so that all
   * lanes come to their ends and the counters stay in step. */
  if (!atomic_load_explicit(&lanes->stopping, memory_order_relaxed)) {
    int64_t *stamps = lanes->stamps ? &lanes->stamps[2 * entry->step] : NULL;
    self->leading = team;
    if (team) team->step = entry->step;
    if (stamps) stamps[0] = lanes_now_ns();
    if (lanes->hooks.run_step(lanes->hooks.user, entry->step) != 0) fail(lanes, entry->step);
    if (stamps) stamps[1] = lanes_now_ns();
    self->leading = NULL;
  } else if (lanes->hooks.skip_step) {
    lanes->hooks.skip_step(lanes->hooks.user, entry->step);
  }
  if (team) end_step(team);
}

/* Nobody wakes those who wait for a counter, and a feeder has to look after what it feeds: they poll. */
static void poll_until(worker *self, const lanes_entry *entry, _Atomic uint32_t *value, uint32_t target) {
  lanes *lanes = self->lanes;
  int is_feeder = self->index >= lanes->program->num_workers - lanes->program->num_feeders;
  int watches = is_feeder && lanes->hooks.watch;
  int64_t begin = lanes_now_ns();
  while (!lanes_poll(value, target, lanes_now_ns() - begin < lanes->wait_spin_ns))
    if (watches && lanes->hooks.watch(lanes->hooks.user, self->index) != 0) {
      fail(lanes, entry->step);
      watches = 0;
    }
}

static void await(worker *self, const lanes_entry *entry, lanes_wait wait, uint32_t run) {
  lanes *lanes = self->lanes;
  const lanes_program *program = lanes->program;
  uint32_t target = (uint32_t)wait.position + 1;
  if (wait.worker >= program->num_workers) {
    int32_t counter = wait.worker - program->num_workers;
    poll_until(self, entry, lanes->hooks.counter(lanes->hooks.user, counter), target);
    return;
  }
  lanes_signal *progress = &lanes->workers[wait.worker].progress;
  target += run * (uint32_t)program->num_entries[wait.worker];
  if (self->index >= program->num_workers - program->num_feeders)
    poll_until(self, entry, &progress->value, target);
  else
    lanes_signal_wait(progress, target, lanes->wait_spin_ns);
}

static void walk(worker *self, uint32_t run) {
  lanes *lanes = self->lanes;
  const lanes_program *program = lanes->program;
  int32_t count = program->num_entries[self->index];
  const lanes_entry *entries = program->entries[self->index];
  for (int32_t i = 0; i < count; i++) {
    const lanes_entry *entry = &entries[i];
    for (int32_t k = 0; k < entry->num_waits; k++) await(self, entry, entry->waits[k], run);
    delay(self);
    if (entry->member == 0)
      run_entry(self, entry);
    else
      help(self, entry);
    delay(self);
    if (entry->publishes) lanes_signal_set(&self->progress, run * (uint32_t)count + (uint32_t)i + 1);
  }
}

static int bind_to_core(int32_t core) {
  if (core < 0) return LANES_OK;
  size_t number = (size_t)core, size = CPU_ALLOC_SIZE(number + 1);
  cpu_set_t *set = CPU_ALLOC(number + 1);
  if (!set) return LANES_NO_MEMORY;
  CPU_ZERO_S(size, set);
  CPU_SET_S(number, size, set);
  int status = pthread_setaffinity_np(pthread_self(), size, set) == 0 ? LANES_OK : LANES_NO_THREAD;
  CPU_FREE(set);
  return status;
}

static void *work(void *argument) {
  worker *self = argument;
  lanes *lanes = self->lanes;
  int32_t core = lanes->program->cores[self->index];
  current = self;
  int refused = lanes->hooks.on_start && lanes->hooks.on_start(lanes->hooks.user, self->index, core) != 0;
  self->start_status = refused ? LANES_NO_THREAD : bind_to_core(core);
  lanes_signal_add(&lanes->ready);
  for (uint32_t run = 0;; run++) {
    lanes_signal_wait(&lanes->start, run + 1, atomic_load(&lanes->idle_spin_ns));
    if (lanes->quit) return NULL;
    self->rng = lanes->delay_seed + 0x9E3779B97F4A7C15u * (run + 1) + (uint64_t)self->index * 0x2545F491u;
    walk(self, run);
    if (atomic_fetch_sub(&lanes->running, 1) == 1) lanes_signal_set(&lanes->done, run + 1);
  }
}

static void join_threads(lanes *self, int32_t count) {
  self->quit = 1;
  lanes_signal_add(&self->start);
  for (int32_t i = 0; i < count; i++) pthread_join(self->workers[i].thread, NULL);
  forget_threads(self);
}

static int start_threads(lanes *self) {
  int32_t num_workers = self->program->num_workers, started = 0;
  int status = LANES_OK;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of the application */
  for (; started < num_workers && status == LANES_OK; started++) {
    worker *each = &self->workers[started];
    if (pthread_create(&each->thread, NULL, work, each) != 0) {
      status = LANES_NO_THREAD;
      break;
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  lanes_signal_wait(&self->ready, (uint32_t)started, 0);
  for (int32_t i = 0; i < started && status == LANES_OK; i++) status = self->workers[i].start_status;
  if (status != LANES_OK) {
    join_threads(self, started);
    return status;
  }
  self->threads_started = 1;
  return LANES_OK;
}

/* --- the object -------------------------------------------------------------------------------- */

static int check_entry(const lanes_program *program, int32_t worker, const lanes_entry *entry) {
  if (entry->step < 0 || entry->step >= program->num_steps || entry->num_waits < 0) return 0;
  for (int32_t k = 0; k < entry->num_waits; k++) {
    lanes_wait wait = entry->waits[k];
    if (wait.worker < 0 || wait.worker >= program->num_workers + program->num_counters) return 0;
    if (wait.position < 0) return 0;
    if (wait.worker >= program->num_workers) continue;
    if (wait.position >= program->num_entries[wait.worker]) return 0;
    if (!program->entries[wait.worker][wait.position].publishes) return 0;
  }
  if (entry->team == -1) return entry->member == 0;
  if (entry->team < 0 || entry->team >= program->num_teams) return 0;
  if (entry->member < 0 || entry->member >= program->team_sizes[entry->team]) return 0;
  return program->teams[entry->team][entry->member] == worker;
}

static int check_program(const lanes_program *program) {
  if (program->num_workers < 1 || program->num_steps < 0 || program->num_teams < 0) return 0;
  if (program->num_feeders < 0 || program->num_feeders > program->num_workers) return 0;
  for (int32_t i = 0; i < program->num_teams; i++) {
    if (program->team_sizes[i] < 2) return 0;
    for (int32_t k = 0; k < program->team_sizes[i]; k++)
      if (program->teams[i][k] < 0 || program->teams[i][k] >= program->num_workers) return 0;
  }
  for (int32_t i = 0; i < program->num_workers; i++)
    for (int32_t k = 0; k < program->num_entries[i]; k++)
      if (!check_entry(program, i, &program->entries[i][k])) return 0;
  return 1;
}

static void *alloc_zeroed(size_t count, size_t size) {
  size_t bytes = (count * size + LANES_ALIGN) / LANES_ALIGN * LANES_ALIGN;
  void *memory = aligned_alloc(LANES_ALIGN, bytes);
  if (memory) memset(memory, 0, bytes);
  return memory;
}

int lanes_alloc(const lanes_program *program, const lanes_hooks *hooks, lanes **out) {
  int status = LANES_NO_MEMORY;
  *out = NULL;
  if (!check_program(program)) return LANES_BAD_PROGRAM;
  lanes *self = alloc_zeroed(1, sizeof *self);
  if (!self) return LANES_NO_MEMORY;
  self->program = program;
  self->hooks = *hooks;
  self->wait_spin_ns = 500000;
  atomic_init(&self->idle_spin_ns, 200000);
  self->workers = alloc_zeroed((size_t)program->num_workers, sizeof *self->workers);
  self->teams = alloc_zeroed((size_t)program->num_teams, sizeof *self->teams);
  if (!self->workers || !self->teams) goto out;
  for (int32_t i = 0; i < program->num_workers; i++) {
    worker *each = &self->workers[i];
    each->lanes = self;
    each->index = i;
    each->helped = calloc((size_t)program->num_teams + 1, sizeof *each->helped);
    each->last = calloc((size_t)program->num_teams + 1, sizeof *each->last);
    if (!each->helped || !each->last) goto out;
  }
  for (int32_t i = 0; i < program->num_teams; i++) {
    self->teams[i].shares = alloc_zeroed((size_t)program->team_sizes[i], sizeof(share));
    if (!self->teams[i].shares) goto out;
  }
  forget_threads(self);
  enter_registry(self);
  status = start_threads(self);
out:
  if (status != LANES_OK) {
    lanes_free(self);
    self = NULL;
  }
  *out = self;
  return status;
}

void lanes_free(lanes *self) {
  if (!self) return;
  if (self->threads_started) join_threads(self, self->program->num_workers);
  leave_registry(self);
  for (int32_t i = 0; self->workers && i < self->program->num_workers; i++) {
    free(self->workers[i].helped);
    free(self->workers[i].last);
  }
  for (int32_t i = 0; self->teams && i < self->program->num_teams; i++) free(self->teams[i].shares);
  if (self->link) pthread_mutex_destroy(&self->turn);
  free(self->workers);
  free(self->teams);
  free(self);
}

int lanes_run(lanes *self, const lanes_run_options *options) {
  pthread_mutex_lock(&self->turn);
  int status = options->prepare && options->prepare(options->argument) != 0 ? LANES_REFUSED : LANES_OK;
  self->stamps = options->stamps;
  if (status == LANES_OK && !self->threads_started) status = start_threads(self);
  if (status == LANES_OK) {
    uint32_t target = atomic_load(&self->start.value) + 1;
    atomic_store(&self->stopping, 0);
    atomic_store(&self->failed, 0);
    atomic_store(&self->running, self->program->num_workers);
    lanes_signal_set(&self->start, target);
    while (!lanes_reached(atomic_load(&self->done.value), target)) {
      lanes_signal_sleep(&self->done, target - 1, POLL_NS);
      if (lanes_reached(atomic_load(&self->done.value), target) || status != LANES_OK) continue;
      if (self->hooks.poll && self->hooks.poll(self->hooks.user) != 0) {
        status = LANES_STOPPED;
        atomic_store(&self->stopping, 1);
      }
    }
    if (status == LANES_OK && atomic_load(&self->failed)) status = LANES_TASK_FAILED;
  }
  if (options->finish) options->finish(options->argument);
  pthread_mutex_unlock(&self->turn);
  return status;
}

void lanes_set_delays(lanes *self, uint64_t seed, int64_t max_ns) {
  pthread_mutex_lock(&self->turn);
  self->delay_seed = seed;
  self->max_delay_ns = max_ns;
  pthread_mutex_unlock(&self->turn);
}

void lanes_set_spin(lanes *self, int64_t wait_ns, int64_t idle_ns) {
  pthread_mutex_lock(&self->turn);
  self->wait_spin_ns = wait_ns;
  /* Idle workers read this one without the lock; it only shortens or lengthens a spin. */
  atomic_store_explicit(&self->idle_spin_ns, idle_ns, memory_order_relaxed);
  pthread_mutex_unlock(&self->turn);
}

const char *lanes_strerror(int status) {
  switch (status) {
    case LANES_OK: return "no error";
    case LANES_NO_MEMORY: return "out of memory";
    case LANES_NO_THREAD: return "the operating system refused a thread, or to bind it to its core";
    case LANES_BAD_PROGRAM: return "the lane program does not hold together";
    case LANES_TASK_FAILED: return "a task failed";
    case LANES_STOPPED: return "the run was stopped";
    case LANES_REFUSED: return "the run was refused";
    default: return "unknown status";
  }
}
