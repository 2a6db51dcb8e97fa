/* Streams, events and graphs as one thing: nodes with edges, of which any that is ready may run
 * next. */
#define _GNU_SOURCE
#include "gpu.h"
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    bool used, blocking;
    uint32_t device, chain;
    uint64_t issued;
    node *last;
    vclock done; /* of the last node that is done */
} stream;

typedef struct {
    uint32_t num_nodes, num_edges, num_chains, first_chain;
    command **commands;
    uint32_t (*edges)[2];
    uint32_t *chain, *order; /* per node: its chain; nodes, each after those that it waits for */
    node *end;               /* of the last launch: launches of one graph take turns */
} graph;

static struct {
    stream streams[MAX_STREAMS];
    node *events[MAX_EVENTS];
    graph *graphs;
    uint32_t num_graphs;
    uint32_t *ticks, num_chains; /* per chain: nodes that ran */
    node **ready;
    size_t num_ready, room;
    node *host_functions[256];
} all;

void clock_join(vclock *self, const vclock *other) {
    if (self->size < other->size) {
        self->tick = must_allocate(self->tick, other->size * sizeof *self->tick);
        memset(self->tick + self->size, 0, (other->size - self->size) * sizeof *self->tick);
        self->size = other->size;
    }
    for (uint32_t i = 0; i < other->size; i++)
        if (self->tick[i] < other->tick[i])
            self->tick[i] = other->tick[i];
}

bool clock_covers(const vclock *self, uint32_t chain, uint32_t tick) {
    return chain < self->size && self->tick[chain] >= tick;
}

void clock_free(vclock *self) {
    free(self->tick);
    *self = (vclock){0};
}

static uint32_t add_chain(void) {
    all.ticks = must_allocate(all.ticks, (all.num_chains + 1) * sizeof *all.ticks);
    all.ticks[all.num_chains] = 0;
    return all.num_chains++;
}

void add_stream(uint32_t id, uint32_t device, bool blocking) {
    all.streams[id] =
        (stream){.used = true, .blocking = blocking, .device = device, .chain = add_chain()};
}

static size_t command_bytes(const command *given) { return sizeof *given + given->param_bytes; }

static command *copy_command(const command *given) {
    command *copy = must_allocate(NULL, command_bytes(given));
    memcpy(copy, given, command_bytes(given));
    return copy;
}

static node *new_node(const command *given, uint32_t device, uint32_t chain) {
    node *self = must_allocate(NULL, sizeof *self);
    /* missing: one for its maker, so that it does not start before all its edges are there */
    *self = (node){.references = 1,
                   .missing = 1,
                   .device = device,
                   .chain = chain,
                   .stream = MAX_STREAMS,
                   .event = -1,
                   .command = copy_command(given)};
    return self;
}

static void release(node *self) {
    if (!self || --self->references)
        return;
    clock_free(&self->clock);
    free(self->next);
    free(self->command);
    free(self);
}

static node *hold(node *self) {
    self->references++;
    return self;
}

static void wait_for(node *self, node *before) {
    if (!before)
        return;
    if (before->done) {
        clock_join(&self->clock, &before->clock);
        return;
    }
    before->next = must_allocate(before->next, (before->num_next + 1) * sizeof(node *));
    before->next[before->num_next++] = self;
    self->missing++;
}

/* What a copy to pinned memory will write, the host must not read before: let it find no old result
 * there. */
static void poison_target(node *self) {
    const command *given = self->command;
    uint64_t at = given->to - WINDOW_BASE, from = given->from - WINDOW_BASE;
    if (given->kind != COMMAND_COPY || at / SPAN_BYTES != PINNED || from / SPAN_BYTES == PINNED)
        return;
    if (!atomic_load(&gpu.shared->error[self->device]))
        memset((void *)given->to, 0xFF, given->bytes);
}

static void finish_edges(node *self) {
    if (--self->missing)
        return;
    poison_target(self);
    /* Some commands are late, so that what should have been waited for is seen to be missing. */
    if (gpu.delay_ns && random_below(8) == 0)
        self->due_ns = now_ns() + (int64_t)random_below(gpu.delay_ns);
    if (all.num_ready == all.room) {
        all.room = all.room ? 2 * all.room : 64;
        all.ready = must_allocate(all.ready, all.room * sizeof *all.ready);
    }
    all.ready[all.num_ready++] = self;
}

/* Make a node that follows what its stream has to wait for; the caller adds edges and finishes
 * them. */
static node *append(uint32_t id, const command *given) {
    stream *to = &all.streams[id];
    node *self = new_node(given, to->device, to->chain);
    clock_join(&gpu.host, &gpu.flags);
    clock_join(&self->clock, &gpu.host);
    wait_for(self, to->last);
    if (id < gpu.num_devices) { /* the legacy stream waits for all that block, and they for it */
        for (uint32_t other = gpu.num_devices; other < MAX_STREAMS && all.streams[other].used;
             other++)
            if (all.streams[other].blocking && all.streams[other].device == to->device)
                wait_for(self, all.streams[other].last);
    } else if (to->blocking) {
        wait_for(self, all.streams[to->device].last);
    }
    release(to->last);
    to->last = hold(self);
    self->stream = id;
    self->position = ++to->issued;
    return self;
}

void enqueue(uint32_t id, const command *given) { finish_edges(append(id, given)); }

void enqueue_record(uint32_t id, uint32_t event) {
    node *self = append(id, &(command){.kind = COMMAND_EMPTY});
    self->event = (int32_t)event;
    release(all.events[event]);
    all.events[event] = hold(self);
    finish_edges(self);
}

void enqueue_wait(uint32_t id, uint32_t event) {
    node *self = append(id, &(command){.kind = COMMAND_EMPTY});
    wait_for(self, all.events[event]);
    finish_edges(self);
}

/* Order the nodes, and cover them with chains: each continues that of one it waits for, where it
 * can. */
static void cover_with_chains(graph *self) {
    uint32_t n = self->num_nodes, head = 0, tail = 0;
    uint32_t *missing = calloc(n + 1, sizeof *missing);
    bool *is_continued = calloc(n + 1, sizeof *is_continued);
    for (uint32_t e = 0; e < self->num_edges; e++)
        missing[self->edges[e][1]]++;
    for (uint32_t i = 0; i < n; i++) {
        self->chain[i] = UINT32_MAX;
        if (!missing[i])
            self->order[tail++] = i;
    }
    while (head < tail) {
        uint32_t i = self->order[head++];
        if (self->chain[i] == UINT32_MAX)
            self->chain[i] = add_chain();
        for (uint32_t e = 0; e < self->num_edges; e++) {
            uint32_t to = self->edges[e][1];
            if (self->edges[e][0] != i)
                continue;
            if (self->chain[to] == UINT32_MAX && !is_continued[i]) {
                self->chain[to] = self->chain[i];
                is_continued[i] = true;
            }
            if (!--missing[to])
                self->order[tail++] = to;
        }
    }
    free(missing);
    free(is_continued);
}

void add_graph(uint32_t exec, uint32_t num_nodes, uint32_t num_edges, const void *body) {
    if (exec >= all.num_graphs) {
        all.graphs = must_allocate(all.graphs, (exec + 1) * sizeof *all.graphs);
        memset(all.graphs + all.num_graphs, 0, (exec + 1 - all.num_graphs) * sizeof *all.graphs);
        all.num_graphs = exec + 1;
    }
    graph *self = &all.graphs[exec];
    *self = (graph){.num_nodes = num_nodes, .num_edges = num_edges};
    self->commands = must_allocate(NULL, (num_nodes + 1) * sizeof *self->commands);
    self->edges = must_allocate(NULL, (num_edges + 1) * sizeof *self->edges);
    self->chain = must_allocate(NULL, (num_nodes + 1) * sizeof *self->chain);
    self->order = must_allocate(NULL, (num_nodes + 1) * sizeof *self->order);
    const char *at = body;
    for (uint32_t i = 0; i < num_nodes; i++) {
        self->commands[i] = copy_command((const command *)(const void *)at);
        at += command_bytes(self->commands[i]);
    }
    if (num_edges)
        memcpy(self->edges, at, num_edges * sizeof *self->edges);
    cover_with_chains(self);
}

void launch_graph(uint32_t id, uint32_t exec) {
    graph *self = &all.graphs[exec];
    node *begin = append(id, &(command){.kind = COMMAND_EMPTY});
    wait_for(begin, self->end);
    node *end = append(id, &(command){.kind = COMMAND_EMPTY});
    node **made = must_allocate(NULL, (self->num_nodes + 1) * sizeof *made);
    bool *has_next = calloc(self->num_nodes + 1, sizeof *has_next);
    for (uint32_t i = 0; i < self->num_nodes; i++) {
        made[i] = new_node(self->commands[i], self->commands[i]->device, self->chain[i]);
        made[i]->exec = exec + 1; /* 0: in no graph */
        made[i]->place = i;
        wait_for(made[i], begin);
    }
    for (uint32_t e = 0; e < self->num_edges; e++) {
        wait_for(made[self->edges[e][1]], made[self->edges[e][0]]);
        has_next[self->edges[e][0]] = true;
    }
    for (uint32_t i = 0; i < self->num_nodes; i++)
        if (!has_next[i])
            wait_for(end, made[i]);
    release(self->end);
    self->end = hold(end);
    for (uint32_t i = 0; i < self->num_nodes; i++)
        finish_edges(made[i]);
    finish_edges(begin);
    finish_edges(end);
    free(made);
    free(has_next);
    atomic_fetch_add(&gpu.shared->graph_launches, 1);
}

void host_knows_stream(uint32_t id) { clock_join(&gpu.host, &all.streams[id].done); }

void host_knows_event(uint32_t event) {
    if (all.events[event] && all.events[event]->done)
        clock_join(&gpu.host, &all.events[event]->clock);
}

static void tell_progress(void) {
    atomic_fetch_add(&gpu.shared->progress, 1);
    if (atomic_load(&gpu.shared->waiters))
        syscall(SYS_futex, &gpu.shared->progress, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void complete(node *self) {
    self->done = true;
    for (size_t i = 0; i < self->num_next; i++) {
        clock_join(&self->next[i]->clock, &self->clock);
        finish_edges(self->next[i]);
    }
    self->num_next = 0;
    if (self->stream < MAX_STREAMS) {
        if (self->event >= 0)
            atomic_store(&gpu.shared->event_ns[self->event], now_ns());
        clock_join(&all.streams[self->stream].done, &self->clock);
        atomic_store(&gpu.shared->stream_done[self->stream], self->position);
        tell_progress();
    }
    release(self);
}

static void start(node *self) {
    uint32_t tick = ++all.ticks[self->chain];
    uint32_t size = self->chain + 1;
    uint32_t *own = calloc(size, sizeof *own);
    own[self->chain] = tick;
    clock_join(&self->clock, &(vclock){own, size});
    free(own);
    execute(self);
    if (self->command->kind != COMMAND_HOST || atomic_load(&gpu.shared->error[self->device])) {
        complete(self);
        return;
    }
    for (uint64_t i = 0; i < 256; i++)
        if (!all.host_functions[i]) {
            all.host_functions[i] = self;
            call_host(self->command->function_pointer, self->command->user_data, i);
            return;
        }
    fail(self->device, 719, "more than 256 host functions at once");
    complete(self);
}

void host_function_done(uint64_t token) {
    node *self = all.host_functions[token];
    all.host_functions[token] = NULL;
    clock_join(&gpu.host, &self->clock); /* what it called may have told the rest of the program */
    complete(self);
}

bool is_waiting(void) { return all.num_ready > 0; }

bool run_one(void) {
    int64_t now = now_ns(), earliest = INT64_MAX;
    size_t found = SIZE_MAX, count = 0;
    for (size_t i = 0; i < all.num_ready; i++) {
        if (!is_runnable(all.ready[i]))
            continue;
        if (all.ready[i]->due_ns > now) {
            if (all.ready[i]->due_ns < earliest)
                earliest = all.ready[i]->due_ns;
            continue;
        }
        if (random_below(++count) == 0)
            found = i;
    }
    if (found == SIZE_MAX) {
        if (earliest == INT64_MAX)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = (long)(earliest - now)}, NULL);
        return true;
    }
    node *self = all.ready[found];
    all.ready[found] = all.ready[--all.num_ready];
    start(self);
    return true;
}
