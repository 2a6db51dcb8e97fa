#include "segment_dp.h"

#include "bounds.h"

#include <stdlib.h>
#include <string.h>

/* States of a size that the first beam keeps. */
#define NARROW 48

/* How a state came about; nodes of all sizes stand in one list. */
typedef struct node {
    int32_t parent;
    int16_t task;
    int16_t device;
} node;

typedef struct state {
    uint64_t done;
    uint64_t ready; /* not done, but all before it is */
    uint64_t live;  /* done, and still to be read: only these have times and devices */
    int64_t bound;  /* the segment ends no earlier */
    int32_t next;   /* of the same bucket */
    int32_t node;
    node came;
    int32_t is_alive;
} state;

/* States of one size of set, each followed by its times and its devices. */
typedef struct pool {
    unsigned char *bytes;
    int64_t count;
    int64_t room;
} pool;

typedef struct solver {
    cpga_segment_dp *limits;
    const cpga_problem *problem;
    const cpga_segment *segment;
    int32_t entry_device;
    int64_t last_work; /* beyond which only a narrow beam goes on */
    int64_t placed;
    int64_t compared;
    int32_t tasks;
    int32_t num_times; /* when each resource is free, what is delivered, when each task is done */
    int64_t stride;
    uint64_t before[CPGA_MAX_SEGMENT_TASKS];
    uint64_t after[CPGA_MAX_SEGMENT_TASKS];
    int32_t num_words; /* of eight devices each */
    int64_t *tail;     /* [task][device]: least time from its finish to the end of the segment */
    int64_t work[CPGA_MAX_SEGMENT_TASKS];
    int64_t least_tail[CPGA_MAX_SEGMENT_TASKS]; /* on the best device */
    int32_t by_tail[CPGA_MAX_SEGMENT_TASKS];    /* tasks, the longest tail first */
    int64_t limit;                              /* later is of no use */
    int was_cut;                                /* states were left out that are within the limit */
    pool now;
    pool then;
    int32_t *kept;
    int64_t num_kept;
    int64_t room_kept;
    node *nodes;
    int64_t num_nodes;
    int64_t room_nodes;
    int32_t *bucket;
    int64_t num_buckets;
} solver;

static state *state_at(const solver *self, const pool *from, int64_t index) {
    return (state *)(void *)(from->bytes + index * self->stride);
}

static int64_t *times_of(state *at) { return (int64_t *)(void *)(at + 1); }

static uint8_t *devices_of(const solver *self, state *at) {
    return (uint8_t *)(times_of(at) + self->num_times);
}

static int64_t *finish_of(const solver *self, state *at) {
    return times_of(at) + self->problem->num_resources + 1;
}

static int64_t *delivered_of(const solver *self, state *at) {
    return times_of(at) + self->problem->num_resources;
}

/* Make room for one more of `size` bytes. */
static int reserve(void **items, int64_t *room, int64_t count, int64_t size) {
    if (count < *room)
        return CPGA_OK;
    int64_t wanted = cpga_max(256, 2 * *room);
    if (wanted > INT32_MAX)
        return CPGA_ERR_MEMORY;
    void *larger = realloc(*items, (size_t)(wanted * size));
    if (larger == NULL)
        return CPGA_ERR_MEMORY;
    *items = larger;
    *room = wanted;
    return CPGA_OK;
}

static void fill_relations(solver *self) {
    const cpga_problem *problem = self->problem;
    int32_t begin = self->segment->begin;
    for (int32_t i = 0; i < self->tasks; i++) {
        int32_t task = begin + i;
        for (int32_t k = problem->pred_begin[task]; k < problem->pred_begin[task + 1]; k++) {
            int32_t from = problem->pred[k].task - begin;
            if (from < 0)
                continue;
            self->before[i] |= UINT64_C(1) << from;
            self->after[from] |= UINT64_C(1) << i;
        }
    }
}

static void fill_tails(solver *self) {
    const cpga_problem *problem = self->problem;
    int32_t begin = self->segment->begin, devices = problem->num_devices;
    for (int32_t i = self->tasks - 1; i >= 0; i--) {
        int32_t task = begin + i;
        self->work[i] = self->least_tail[i] = INT64_MAX;
        for (int32_t on = 0; on < devices; on++) {
            int64_t exec = cpga_exec(problem, task, on);
            int64_t width = problem->resource_begin[on + 1] - problem->resource_begin[on];
            if (exec != CPGA_CANNOT_RUN)
                self->work[i] = cpga_min(self->work[i], exec * width);
            int64_t tail =
                self->segment->is_last ? problem->delivery_ns[(int64_t)task * devices + on] : 0;
            for (int32_t k = problem->succ_begin[task]; k < problem->succ_begin[task + 1]; k++) {
                const cpga_edge *edge = &problem->succ[k];
                if (edge->task < self->segment->end)
                    tail = cpga_max(tail, cpga_least_through(
                                              problem, edge,
                                              self->tail + (edge->task - begin) * devices, on, 1));
            }
            self->tail[i * devices + on] = tail;
            if (exec != CPGA_CANNOT_RUN)
                self->least_tail[i] = cpga_min(self->least_tail[i], tail);
        }
        int32_t place = self->tasks - 1 - i;
        for (; place > 0 && self->least_tail[self->by_tail[place - 1]] < self->least_tail[i];
             place--)
            self->by_tail[place] = self->by_tail[place - 1];
        self->by_tail[place] = i;
    }
}

static uint64_t hash_of(const solver *self, state *at) {
    const uint8_t *device = devices_of(self, at);
    uint64_t hash = at->done * UINT64_C(0x9E3779B97F4A7C15);
    for (int32_t i = 0; i < self->num_words; i++) {
        uint64_t word;
        memcpy(&word, device + 8 * i, sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9FB21C651E98DF25);
        hash ^= hash >> 32;
    }
    hash *= UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ (hash >> 29);
}

static int is_like(const solver *self, state *a, state *b) {
    return a->done == b->done &&
           memcmp(devices_of(self, a), devices_of(self, b), 8 * (size_t)self->num_words) == 0;
}

/* Of two states that are alike. */
static int dominates(const solver *self, state *a, state *b) {
    const int64_t *first = times_of(a), *second = times_of(b);
    for (int32_t i = 0; i <= self->problem->num_resources; i++) {
        if (first[i] > second[i])
            return 0;
    }
    first = finish_of(self, a);
    second = finish_of(self, b);
    for (uint64_t rest = a->live; rest != 0; rest &= rest - 1) {
        int32_t i = __builtin_ctzll(rest);
        if (first[i] > second[i])
            return 0;
    }
    return 1;
}

static int is_read_later(const solver *self, uint64_t done, int32_t task) {
    int is_end = !self->segment->is_last && task == self->tasks - 1;
    return is_end || (self->after[task] & ~done) != 0;
}

/* No task that is not done can start before: what was free before that is as good as free then. */
static void forget_idle_time(const solver *self, state *at) {
    const cpga_problem *problem = self->problem;
    const int64_t *finish = finish_of(self, at);
    int64_t *free_at = times_of(at), soonest = INT64_MAX;
    for (uint64_t ready = at->ready; ready != 0; ready &= ready - 1) {
        int64_t start = 0;
        for (uint64_t rest = self->before[__builtin_ctzll(ready)]; rest != 0; rest &= rest - 1)
            start = cpga_max(start, finish[__builtin_ctzll(rest)]);
        soonest = cpga_min(soonest, start);
    }
    if (soonest == INT64_MAX)
        return;
    for (int32_t r = 0; r < problem->num_resources; r++)
        free_at[r] = cpga_max(free_at[r], soonest);
}

static int64_t bound_of(const solver *self, state *at) {
    const cpga_problem *problem = self->problem;
    const int64_t *finish = finish_of(self, at), *free_at = times_of(at);
    const uint8_t *device = devices_of(self, at);
    int64_t bound = *delivered_of(self, at), load = 0, most = 0;
    for (uint64_t rest = at->live; rest != 0; rest &= rest - 1) {
        int32_t i = __builtin_ctzll(rest);
        bound = cpga_max(bound, finish[i] + self->tail[i * problem->num_devices + device[i]]);
    }
    for (int32_t r = 0; r < problem->num_resources; r++)
        load += free_at[r];
    /* All tasks with at least that tail have to be done before it. */
    for (int32_t i = 0; i < self->tasks; i++) {
        int32_t task = self->by_tail[i];
        if ((at->done >> task) & 1)
            continue;
        load += self->work[task];
        most = cpga_max(most, load + self->least_tail[task] * problem->num_resources);
    }
    return cpga_max(bound, (most + problem->num_resources - 1) / problem->num_resources);
}

/* When a task can start on a device, by its data and the resources. */
static int64_t start_of(const solver *self, state *from, int32_t task, int32_t on) {
    const cpga_problem *problem = self->problem;
    int32_t begin = self->segment->begin, global = begin + task;
    const int64_t *finish = finish_of(self, from), *free_at = times_of(from);
    const uint8_t *device = devices_of(self, from);
    int64_t start = self->segment->entry < 0
                        ? problem->release_ns[(int64_t)global * problem->num_devices + on]
                        : 0;
    for (int32_t k = problem->pred_begin[global]; k < problem->pred_begin[global + 1]; k++) {
        int32_t source = problem->pred[k].task, copy = problem->pred[k].copy;
        if (source >= begin)
            start = cpga_max(start, finish[source - begin] +
                                        cpga_copy(problem, copy, device[source - begin], on));
        else if (source == self->segment->entry)
            start = cpga_max(start, cpga_copy(problem, copy, self->entry_device, on));
    }
    for (int32_t r = problem->resource_begin[on]; r < problem->resource_begin[on + 1]; r++)
        start = cpga_max(start, free_at[problem->resource[r]]);
    return start;
}

/* Write the state that comes of placing a task; false if it is of no use. */
static int place(const solver *self, state *from, int32_t task, int32_t on, state *to) {
    const cpga_problem *problem = self->problem;
    int64_t row = (int64_t)(self->segment->begin + task) * problem->num_devices + on;
    int64_t finish = start_of(self, from, task, on) + problem->exec_ns[row];
    if (finish + self->tail[task * problem->num_devices + on] > self->limit)
        return 0;
    memcpy(to, from, (size_t)self->stride);
    to->done |= UINT64_C(1) << task;
    to->ready &= ~(UINT64_C(1) << task);
    for (uint64_t rest = self->after[task]; rest != 0; rest &= rest - 1) {
        if ((self->before[__builtin_ctzll(rest)] & ~to->done) == 0)
            to->ready |= rest & -rest;
    }
    to->came = (node){from->node, (int16_t)task, (int16_t)on};
    to->is_alive = 1;
    for (int32_t r = problem->resource_begin[on]; r < problem->resource_begin[on + 1]; r++)
        times_of(to)[problem->resource[r]] = finish;
    if (self->segment->is_last)
        *delivered_of(self, to) =
            cpga_max(*delivered_of(self, to), finish + problem->delivery_ns[row]);
    if (is_read_later(self, to->done, task)) {
        to->live |= UINT64_C(1) << task;
        finish_of(self, to)[task] = finish;
        devices_of(self, to)[task] = (uint8_t)on;
    }
    forget_idle_time(self, to);
    for (uint64_t rest = self->before[task]; rest != 0; rest &= rest - 1) {
        int32_t i = __builtin_ctzll(rest);
        if (!is_read_later(self, to->done, i)) {
            to->live &= ~(rest & -rest);
            finish_of(self, to)[i] = 0;
            devices_of(self, to)[i] = 0;
        }
    }
    to->bound = cpga_max(from->bound, bound_of(self, to));
    return to->bound <= self->limit;
}

/* Keep the state at the end of the pool, unless another dominates it; leave out what it dominates.
 */
static void keep(solver *self) {
    state *fresh = state_at(self, &self->then, self->then.count);
    int32_t *bucket = &self->bucket[hash_of(self, fresh) & (uint64_t)(self->num_buckets - 1)];
    for (int32_t i = *bucket; i >= 0; i = state_at(self, &self->then, i)->next) {
        state *other = state_at(self, &self->then, i);
        self->compared++;
        if (!other->is_alive || !is_like(self, fresh, other))
            continue;
        if (dominates(self, other, fresh))
            return;
        if (dominates(self, fresh, other))
            other->is_alive = 0;
    }
    fresh->next = *bucket;
    *bucket = (int32_t)self->then.count++;
}

static int grow_buckets(solver *self) {
    if (self->then.count < self->num_buckets)
        return CPGA_OK;
    int64_t wanted = cpga_max(1024, 2 * self->num_buckets);
    int32_t *larger = realloc(self->bucket, (size_t)wanted * sizeof *larger);
    if (larger == NULL)
        return CPGA_ERR_MEMORY;
    self->bucket = larger;
    self->num_buckets = wanted;
    memset(larger, 0xFF, (size_t)wanted * sizeof *larger);
    for (int64_t i = 0; i < self->then.count; i++) {
        state *at = state_at(self, &self->then, i);
        int32_t *bucket = &larger[hash_of(self, at) & (uint64_t)(wanted - 1)];
        at->next = *bucket;
        *bucket = (int32_t)i;
    }
    return CPGA_OK;
}

static int expand(solver *self, int64_t index) {
    const cpga_problem *problem = self->problem;
    state *from = state_at(self, &self->now, index);
    for (uint64_t rest = from->ready; rest != 0; rest &= rest - 1) {
        int32_t task = __builtin_ctzll(rest);
        for (int32_t on = 0; on < problem->num_devices; on++) {
            if (cpga_exec(problem, self->segment->begin + task, on) == CPGA_CANNOT_RUN)
                continue;
            void *bytes = self->then.bytes;
            int status = reserve(&bytes, &self->then.room, self->then.count, self->stride);
            self->then.bytes = bytes;
            if (status == CPGA_OK)
                status = grow_buckets(self);
            if (status != CPGA_OK)
                return status;
            self->placed++;
            if (place(self, from, task, on, state_at(self, &self->then, self->then.count)))
                keep(self);
        }
    }
    return CPGA_OK;
}

typedef struct ranked {
    int64_t bound;
    int32_t index;
} ranked;

static int compare_ranked(const void *a, const void *b) {
    const ranked *first = a, *second = b;
    if (first->bound != second->bound)
        return first->bound < second->bound ? -1 : 1;
    return (first->index > second->index) - (first->index < second->index);
}

/* List the states that go on, at most `most`, those with the lowest bounds, and note how they came.
 */
static int select_states(solver *self, int64_t most) {
    int64_t alive = 0;
    ranked *rank = malloc((size_t)(self->now.count + 1) * sizeof *rank);
    if (rank == NULL)
        return CPGA_ERR_MEMORY;
    for (int64_t i = 0; i < self->now.count; i++) {
        state *at = state_at(self, &self->now, i);
        if (at->is_alive)
            rank[alive++] = (ranked){at->bound, (int32_t)i};
    }
    if (alive > most) {
        qsort(rank, (size_t)alive, sizeof *rank, compare_ranked);
        alive = most;
        self->was_cut = 1;
    }
    int status = CPGA_OK;
    for (self->num_kept = 0; self->num_kept < alive && status == CPGA_OK; self->num_kept++) {
        void *items = self->kept;
        status = reserve(&items, &self->room_kept, self->num_kept, (int64_t)sizeof *self->kept);
        self->kept = items;
        items = self->nodes;
        if (status == CPGA_OK)
            status =
                reserve(&items, &self->room_nodes, self->num_nodes, (int64_t)sizeof *self->nodes);
        self->nodes = items;
        if (status != CPGA_OK)
            break;
        state *at = state_at(self, &self->now, rank[self->num_kept].index);
        at->node = (int32_t)self->num_nodes;
        self->nodes[self->num_nodes++] = at->came;
        self->kept[self->num_kept] = rank[self->num_kept].index;
    }
    free(rank);
    return status;
}

static int start_states(solver *self) {
    void *bytes = self->now.bytes;
    int status = reserve(&bytes, &self->now.room, 0, self->stride);
    self->now.bytes = bytes;
    if (status != CPGA_OK)
        return status;
    state *first = state_at(self, &self->now, 0);
    memset(first, 0, (size_t)self->stride);
    for (int32_t i = 0; i < self->tasks; i++) {
        if (self->before[i] == 0)
            first->ready |= UINT64_C(1) << i;
    }
    first->came = (node){-1, -1, -1};
    first->is_alive = 1;
    self->now.count = 1;
    self->num_nodes = 0;
    return select_states(self, 1);
}

static int64_t work_of(const solver *self) {
    return self->limits->work + self->placed + self->compared / 2;
}

/* Place all tasks, with at most `most` states of each size; the last states are those kept. */
static int run(solver *self, int64_t most) {
    self->was_cut = 0;
    int status = start_states(self);
    for (int32_t size = 0; size < self->tasks && status == CPGA_OK; size++) {
        self->then.count = 0;
        if (self->num_buckets > 0)
            memset(self->bucket, 0xFF, (size_t)self->num_buckets * sizeof *self->bucket);
        for (int64_t i = 0; i < self->num_kept && status == CPGA_OK; i++) {
            status = expand(self, self->kept[i]);
            if (work_of(self) > self->limits->max_work)
                return CPGA_ERR_BUDGET;
            if (work_of(self) > self->last_work && most > NARROW) {
                self->was_cut = 1;
                self->num_kept = 0;
                return status;
            }
        }
        pool spare = self->now;
        self->now = self->then;
        self->then = spare;
        if (status == CPGA_OK)
            status = select_states(self, most);
    }
    return status;
}

/* Write the best plan for each device of the last task, if it is better than what is there. */
static void read_plans(const solver *self, int64_t *finish, int32_t *order, int32_t *device) {
    for (int64_t i = 0; i < self->num_kept; i++) {
        state *at = state_at(self, &self->now, self->kept[i]);
        int32_t row = self->segment->is_last ? 0 : devices_of(self, at)[self->tasks - 1];
        int64_t value =
            self->segment->is_last ? *delivered_of(self, at) : finish_of(self, at)[self->tasks - 1];
        if (finish[row] >= 0 && finish[row] <= value)
            continue;
        finish[row] = value;
        const node *from = &self->nodes[at->node];
        for (int32_t place = self->tasks - 1; place >= 0; place--) {
            order[row * self->tasks + place] = self->segment->begin + from->task;
            device[row * self->tasks + place] = from->device;
            from = &self->nodes[from->parent];
        }
    }
}

static int64_t soonest(const int64_t *finish, int32_t devices) {
    int64_t least = INT64_MAX;
    for (int32_t on = 0; on < devices; on++) {
        if (finish[on] >= 0)
            least = cpga_min(least, finish[on]);
    }
    return least;
}

int cpga_segment_dp_solve(cpga_segment_dp *self, const cpga_segment *segment, int32_t entry_device,
                          int64_t *finish, int32_t *order, int32_t *device) {
    const cpga_problem *problem = self->problem;
    int32_t tasks = segment->end - segment->begin, devices = problem->num_devices;
    solver work = {.limits = self,
                   .problem = problem,
                   .segment = segment,
                   .entry_device = entry_device,
                   .last_work = cpga_min(self->max_wide, self->work + self->max_each),
                   .tasks = tasks,
                   .num_times = problem->num_resources + 1 + tasks,
                   .limit = INT64_MAX};
    if (tasks < 1 || tasks > CPGA_MAX_SEGMENT_TASKS || devices > CPGA_MAX_SEGMENT_DEVICES)
        return CPGA_ERR_SIZE;
    work.num_words = (tasks + 7) / 8;
    work.stride = (int64_t)sizeof(state) + 8 * ((int64_t)work.num_times + work.num_words);
    work.tail = cpga_calloc((int64_t)tasks * devices, (int64_t)sizeof *work.tail);
    int status = work.tail == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
    for (int32_t on = 0; on < devices; on++)
        finish[on] = -1;
    if (status == CPGA_OK) {
        fill_relations(&work);
        fill_tails(&work);
        status = run(&work, NARROW);
    }
    if (status == CPGA_OK)
        read_plans(&work, finish, order, device);
    for (int64_t most = NARROW;
         status == CPGA_OK && self->is_exact && work.was_cut && most < self->max_states;) {
        most = cpga_min(8 * most, self->max_states);
        work.limit = soonest(finish, devices) + segment->slack;
        status = run(&work, most);
        if (status == CPGA_OK)
            read_plans(&work, finish, order, device);
    }
    self->is_exact = self->is_exact && !work.was_cut;
    self->work = work_of(&work);
    free(work.tail);
    free(work.now.bytes);
    free(work.then.bytes);
    free(work.kept);
    free(work.nodes);
    free(work.bucket);
    return status;
}
