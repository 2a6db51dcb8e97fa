#define _GNU_SOURCE
#include "lanes_core.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lanes_state.h"

enum { POLL_NS = 100000000 };
/* A caller sleeps until this long before the end that the run before lets it expect, and looks from
 * then on: being woken takes some 50 us on a machine whose cores are many and idle. */
enum { EARLY_NS = 150000, LATE_NS = 300000 };

_Thread_local worker *lanes_current;

/* A child process has none of the threads, so every object has to learn of a fork. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t registry_once = PTHREAD_ONCE_INIT;
static lanes *registry;

static void forget_threads(lanes *self) {
    const lanes_program *program = self->program;
    lanes_signal *signals[] = {&self->start, &self->done, &self->ready};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        *signals[i] = (lanes_signal){0};
    for (int32_t i = 0; i < program->num_teams; i++) {
        share *shares = self->teams[i].shares;
        int64_t *before = self->teams[i].before;
        size_t size = (size_t)program->team_sizes[i];
        memset(&self->teams[i], 0, sizeof self->teams[i]);
        memset(shares, 0, size * sizeof *shares);
        self->teams[i].shares = shares;
        self->teams[i].before = before;
        self->teams[i].num_helpers = (uint32_t)size - 1;
        lanes_deal(&self->teams[i], (int32_t)size, program->speeds[i]);
        atomic_init(&self->teams[i].gate.value, LANES_CLOSED);
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
    lanes_current = NULL;
    for (lanes *each = registry; each; each = each->next)
        forget_threads(each);
}
static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static void enter_registry(lanes *self) {
    pthread_once(&registry_once, watch_forks);
    pthread_mutex_lock(&registry_lock);
    self->next = registry;
    self->link = &registry;
    if (registry)
        registry->link = &self->next;
    registry = self;
    pthread_mutex_unlock(&registry_lock);
}

static void leave_registry(lanes *self) {
    if (!self->link)
        return;
    pthread_mutex_lock(&registry_lock);
    *self->link = self->next;
    if (self->next)
        self->next->link = self->link;
    pthread_mutex_unlock(&registry_lock);
}

void lanes_fail(lanes *self, int32_t step) {
    self->hooks.on_error(self->hooks.user, step);
    atomic_store(&self->failed, 1);
    atomic_store(&self->stopping, 1);
}

void lanes_delay(worker *self) {
    int64_t most = self->lanes->max_delay_ns;
    if (!most)
        return;
    self->rng ^= self->rng << 13; /* xorshift64, Marsaglia 2003 */
    self->rng ^= self->rng >> 7;
    self->rng ^= self->rng << 17;
    if (self->rng & 1)
        return;
    int64_t pause_ns = (int64_t)((self->rng >> 1) % (uint64_t)most);
    nanosleep(&(struct timespec){.tv_sec = pause_ns / 1000000000, .tv_nsec = pause_ns % 1000000000},
              NULL);
}

void lanes_slow_down(const worker *self, int64_t begin_ns, int64_t taken_ns) {
    int64_t until = begin_ns + taken_ns * self->slow_permille / 1000;
    while (lanes_now_ns() < until)
        lanes_pause();
}

/* --- workers -----------------------------------------------------------------------------------
 */

static void run_entry(worker *self, const lanes_entry *entry) {
    lanes *lanes = self->lanes;
    team *team = entry->team < 0 ? NULL : &lanes->teams[entry->team];
    /* After an error nothing is computed any more, but every hand-over still happens, so that all
     * lanes come to their ends and the counters stay in step. */
    if (!atomic_load_explicit(&lanes->stopping, memory_order_relaxed)) {
        int64_t *stamps = lanes->stamps ? &lanes->stamps[2 * entry->step] : NULL;
        self->leading = team;
        if (team)
            team->step = entry->step;
        int64_t begin = stamps || self->slow_permille ? lanes_now_ns() : 0;
        self->shared_ns = 0;
        if (lanes->hooks.run_step(lanes->hooks.user, entry->step) != 0)
            lanes_fail(lanes, entry->step);
        if (self->slow_permille) {
            int64_t own_ns = lanes_now_ns() - begin - self->shared_ns;
            lanes_slow_down(self, begin + self->shared_ns, own_ns);
        }
        if (stamps) {
            stamps[0] = begin;
            stamps[1] = lanes_now_ns();
        }
        self->leading = NULL;
    } else if (lanes->hooks.skip_step) {
        lanes->hooks.skip_step(lanes->hooks.user, entry->step);
    }
    if (team)
        lanes_end_step(team);
}

/* Nobody wakes those who wait for a counter, and a feeder has to look after what it feeds: they
 * poll. */
static void poll_until(worker *self, const lanes_entry *entry, _Atomic uint32_t *value,
                       uint32_t target) {
    lanes *lanes = self->lanes;
    int is_feeder = self->index >= lanes->program->num_workers - lanes->program->num_feeders;
    int watches = is_feeder && lanes->hooks.watch;
    int64_t begin = lanes_now_ns();
    while (!lanes_poll(value, target, lanes_now_ns() - begin < lanes->wait_spin_ns))
        if (watches && lanes->hooks.watch(lanes->hooks.user, self->index) != 0) {
            lanes_fail(lanes, entry->step);
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
        for (int32_t k = 0; k < entry->num_waits; k++)
            await(self, entry, entry->waits[k], run);
        lanes_delay(self);
        if (entry->member == 0)
            run_entry(self, entry);
        else
            lanes_help(self, entry);
        lanes_delay(self);
        if (entry->publishes)
            lanes_signal_set(&self->progress, run * (uint32_t)count + (uint32_t)i + 1);
    }
}

static int bind_to_core(int32_t core) {
    if (core < 0)
        return LANES_OK;
    size_t number = (size_t)core, size = CPU_ALLOC_SIZE(number + 1);
    cpu_set_t *set = CPU_ALLOC(number + 1);
    if (!set)
        return LANES_NO_MEMORY;
    CPU_ZERO_S(size, set);
    CPU_SET_S(number, size, set);
    int status =
        pthread_setaffinity_np(pthread_self(), size, set) == 0 ? LANES_OK : LANES_NO_THREAD;
    CPU_FREE(set);
    return status;
}

static void *work(void *argument) {
    worker *self = argument;
    lanes *lanes = self->lanes;
    int32_t core = lanes->program->cores[self->index];
    lanes_current = self;
    int refused =
        lanes->hooks.on_start && lanes->hooks.on_start(lanes->hooks.user, self->index, core) != 0;
    self->start_status = refused ? LANES_NO_THREAD : bind_to_core(core);
    lanes_signal_add(&lanes->ready);
    for (uint32_t run = 0;; run++) {
        lanes_signal_wait(&lanes->start, run + 1, atomic_load(&lanes->idle_spin_ns));
        if (lanes->quit)
            return NULL;
        self->rng = lanes->delay_seed + 0x9E3779B97F4A7C15u * (run + 1) +
                    (uint64_t)self->index * 0x2545F491u;
        walk(self, run);
        if (atomic_fetch_sub(&lanes->running, 1) == 1)
            lanes_signal_set(&lanes->done, run + 1);
    }
}

static void join_threads(lanes *self, int32_t count) {
    self->quit = 1;
    lanes_signal_add(&self->start);
    for (int32_t i = 0; i < count; i++)
        pthread_join(self->workers[i].thread, NULL);
    forget_threads(self);
}

static int start_threads(lanes *self) {
    int32_t num_workers = self->program->num_workers, started = 0;
    int status = LANES_OK;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all,
                    &before); /* signals are for the threads of the application */
    for (; started < num_workers && status == LANES_OK; started++) {
        worker *each = &self->workers[started];
        if (pthread_create(&each->thread, NULL, work, each) != 0) {
            status = LANES_NO_THREAD;
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    lanes_signal_wait(&self->ready, (uint32_t)started, 0);
    for (int32_t i = 0; i < started && status == LANES_OK; i++)
        status = self->workers[i].start_status;
    if (status != LANES_OK) {
        join_threads(self, started);
        return status;
    }
    self->threads_started = 1;
    return LANES_OK;
}

/* --- the object --------------------------------------------------------------------------------
 */

static int check_entry(const lanes_program *program, int32_t worker, const lanes_entry *entry) {
    if (entry->step < 0 || entry->step >= program->num_steps || entry->num_waits < 0)
        return 0;
    for (int32_t k = 0; k < entry->num_waits; k++) {
        lanes_wait wait = entry->waits[k];
        if (wait.worker < 0 || wait.worker >= program->num_workers + program->num_counters)
            return 0;
        if (wait.position < 0)
            return 0;
        if (wait.worker >= program->num_workers)
            continue;
        if (wait.position >= program->num_entries[wait.worker])
            return 0;
        if (!program->entries[wait.worker][wait.position].publishes)
            return 0;
    }
    if (entry->team == -1)
        return entry->member == 0;
    if (entry->team < 0 || entry->team >= program->num_teams)
        return 0;
    if (entry->member < 0 || entry->member >= program->team_sizes[entry->team])
        return 0;
    return program->teams[entry->team][entry->member] == worker;
}

static int check_program(const lanes_program *program) {
    if (program->num_workers < 1 || program->num_steps < 0 || program->num_teams < 0)
        return 0;
    if (program->num_feeders < 0 || program->num_feeders > program->num_workers)
        return 0;
    for (int32_t i = 0; i < program->num_teams; i++) {
        if (program->team_sizes[i] < 2)
            return 0;
        for (int32_t k = 0; k < program->team_sizes[i]; k++)
            if (program->teams[i][k] < 0 || program->teams[i][k] >= program->num_workers ||
                program->speeds[i][k] < 1 || program->speeds[i][k] > LANES_MOST_SPEED)
                return 0;
    }
    for (int32_t i = 0; i < program->num_workers; i++)
        for (int32_t k = 0; k < program->num_entries[i]; k++)
            if (!check_entry(program, i, &program->entries[i][k]))
                return 0;
    return 1;
}

static void *alloc_zeroed(size_t count, size_t size) {
    size_t bytes = (count * size + LANES_ALIGN) / LANES_ALIGN * LANES_ALIGN;
    void *memory = aligned_alloc(LANES_ALIGN, bytes);
    if (memory)
        memset(memory, 0, bytes);
    return memory;
}

/* Whether this process has a core left beside those of the workers. */
static int has_spare_core(const lanes_program *program) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > program->num_workers;
}

int lanes_alloc(const lanes_program *program, const lanes_hooks *hooks, lanes **out) {
    int status = LANES_NO_MEMORY;
    *out = NULL;
    if (!check_program(program))
        return LANES_BAD_PROGRAM;
    lanes *self = alloc_zeroed(1, sizeof *self);
    if (!self)
        return LANES_NO_MEMORY;
    self->program = program;
    self->hooks = *hooks;
    self->wait_spin_ns = 500000;
    atomic_init(&self->idle_spin_ns, 200000);
    self->caller_looks = has_spare_core(program);
    self->workers = alloc_zeroed((size_t)program->num_workers, sizeof *self->workers);
    self->teams = alloc_zeroed((size_t)program->num_teams, sizeof *self->teams);
    if (!self->workers || !self->teams)
        goto out;
    for (int32_t i = 0; i < program->num_workers; i++) {
        worker *each = &self->workers[i];
        each->lanes = self;
        each->index = i;
        each->helped = calloc((size_t)program->num_teams + 1, sizeof *each->helped);
        each->last = calloc((size_t)program->num_teams + 1, sizeof *each->last);
        if (!each->helped || !each->last)
            goto out;
    }
    for (int32_t i = 0; i < program->num_teams; i++) {
        self->teams[i].shares = alloc_zeroed((size_t)program->team_sizes[i], sizeof(share));
        self->teams[i].before =
            calloc((size_t)program->team_sizes[i] + 1, sizeof *self->teams[i].before);
        if (!self->teams[i].shares || !self->teams[i].before)
            goto out;
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
    if (!self)
        return;
    if (self->threads_started)
        join_threads(self, self->program->num_workers);
    leave_registry(self);
    for (int32_t i = 0; self->workers && i < self->program->num_workers; i++) {
        free(self->workers[i].helped);
        free(self->workers[i].last);
    }
    for (int32_t i = 0; self->teams && i < self->program->num_teams; i++) {
        free(self->teams[i].shares);
        free(self->teams[i].before);
    }
    if (self->link)
        pthread_mutex_destroy(&self->turn);
    free(self->workers);
    free(self->teams);
    free(self);
}

/* Be awake when a run ends that takes as long as the one before. */
static void look_for_end(lanes *self, uint32_t target) {
    int64_t begin = lanes_now_ns(), expected = self->last_run_ns, early = expected / 8;
    if (!self->caller_looks || !expected)
        return;
    if (early > EARLY_NS)
        early = EARLY_NS;
    if (expected > 2 * EARLY_NS)
        lanes_signal_sleep(&self->done, target - 1, expected - early);
    int64_t until = begin + expected + (expected < LATE_NS ? expected : LATE_NS);
    while (!lanes_poll(&self->done.value, target, 1))
        if (lanes_now_ns() > until)
            return;
}

int lanes_run(lanes *self, const lanes_run_options *options) {
    pthread_mutex_lock(&self->turn);
    int status =
        options->prepare && options->prepare(options->argument) != 0 ? LANES_REFUSED : LANES_OK;
    self->stamps = options->stamps;
    if (status == LANES_OK && !self->threads_started)
        status = start_threads(self);
    if (status == LANES_OK) {
        uint32_t target = atomic_load(&self->start.value) + 1;
        atomic_store(&self->stopping, 0);
        atomic_store(&self->failed, 0);
        atomic_store(&self->running, self->program->num_workers);
        int64_t begin = lanes_now_ns();
        lanes_signal_set(&self->start, target);
        look_for_end(self, target);
        while (!lanes_reached(atomic_load(&self->done.value), target)) {
            lanes_signal_sleep(&self->done, target - 1, POLL_NS);
            if (lanes_reached(atomic_load(&self->done.value), target) || status != LANES_OK)
                continue;
            if (self->hooks.poll && self->hooks.poll(self->hooks.user) != 0) {
                status = LANES_STOPPED;
                atomic_store(&self->stopping, 1);
            }
        }
        self->last_run_ns = status == LANES_OK && !options->stamps ? lanes_now_ns() - begin : 0;
        if (status == LANES_OK && atomic_load(&self->failed))
            status = LANES_TASK_FAILED;
    }
    if (options->finish)
        options->finish(options->argument);
    pthread_mutex_unlock(&self->turn);
    return status;
}

void lanes_set_delays(lanes *self, uint64_t seed, int64_t max_ns) {
    pthread_mutex_lock(&self->turn);
    self->delay_seed = seed;
    self->max_delay_ns = max_ns;
    pthread_mutex_unlock(&self->turn);
}

void lanes_set_slowdown(lanes *self, int32_t worker, int64_t permille) {
    pthread_mutex_lock(&self->turn);
    self->workers[worker].slow_permille = permille;
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
    case LANES_OK:
        return "no error";
    case LANES_NO_MEMORY:
        return "out of memory";
    case LANES_NO_THREAD:
        return "the operating system refused a thread, or to bind it to its core";
    case LANES_BAD_PROGRAM:
        return "the lane program does not hold together";
    case LANES_TASK_FAILED:
        return "a task failed";
    case LANES_STOPPED:
        return "the run was stopped";
    case LANES_REFUSED:
        return "the run was refused";
    default:
        return "unknown status";
    }
}
