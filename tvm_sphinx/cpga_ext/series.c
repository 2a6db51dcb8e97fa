#include "series.h"

#include "segment_dp.h"

#include <stdlib.h>
#include <string.h>

/* Narrow beams may take one in so many of the work, wide ones the rest, and one in so many
 * for one segment and entry device. */
#define NARROW_ONE_IN 4
#define EACH_ONE_IN 3
/* Numbers in the tables of all segments, at most. */
#define MAX_TABLES (INT64_C(1) << 24)

/* The plans of a segment, by the devices of the cuts before and after it. */
typedef struct table {
    const cpga_segment *segment;
    uint64_t hash; /* equal for equal segments */
    int is_solved[CPGA_MAX_SEGMENT_DEVICES];
    int64_t *finish; /* [entry device][last device] */
    int32_t *order;  /* [entry device][last device][task], counted from the first of the segment */
    int32_t *device;
} table;

typedef struct chain {
    const cpga_problem *problem;
    int32_t num_segments;
    cpga_segment *segment;
    int32_t num_tables;
    table *tables;
    int32_t *table_of; /* num_segments */
    int64_t *finish;   /* [segments before][device of the cut]: soonest finish; -1: of no use */
    int32_t *came;     /* [segments before][device of the cut]: device of the cut before */
} chain;

static int init_table(table *self, const cpga_problem *problem, const cpga_segment *segment) {
    int64_t devices = problem->num_devices, pairs = devices * devices;
    int64_t tasks = segment->end - segment->begin;
    self->segment = segment;
    self->finish = cpga_calloc(pairs, (int64_t)sizeof *self->finish);
    self->order = cpga_calloc(pairs * tasks, (int64_t)sizeof *self->order);
    self->device = cpga_calloc(pairs * tasks, (int64_t)sizeof *self->device);
    return self->finish != NULL && self->order != NULL && self->device != NULL ? CPGA_OK
                                                                               : CPGA_ERR_MEMORY;
}

static uint64_t hash_of(const cpga_problem *problem, const cpga_segment *segment) {
    int64_t first = (int64_t)segment->begin * problem->num_devices;
    int64_t last = (int64_t)segment->end * problem->num_devices;
    uint64_t hash = (uint64_t)(segment->end - segment->begin);
    for (int64_t i = first; i < last; i++)
        hash = (hash ^ (uint64_t)problem->exec_ns[i]) * UINT64_C(0x9E3779B97F4A7C15);
    return hash;
}

/* Give equal segments one table. */
static int make_tables(chain *self) {
    for (int32_t i = 0; i < self->num_segments; i++) {
        int32_t k = 0;
        uint64_t hash = hash_of(self->problem, &self->segment[i]);
        while (k < self->num_tables &&
               (self->tables[k].hash != hash ||
                !cpga_equal_segments(self->problem, self->tables[k].segment, &self->segment[i])))
            k++;
        self->table_of[i] = k;
        if (k < self->num_tables)
            continue;
        self->num_tables++;
        self->tables[k].hash = hash;
        int status = init_table(&self->tables[k], self->problem, &self->segment[i]);
        if (status != CPGA_OK)
            return status;
    }
    return CPGA_OK;
}

static int init_chain(chain *self, const cpga_problem *problem) {
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->segment = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->segment);
    if (self->segment == NULL)
        return CPGA_ERR_MEMORY;
    self->num_segments = cpga_find_segments(problem, self->segment);
    if (self->num_segments < 0)
        return CPGA_ERR_MEMORY;
    int64_t points = (int64_t)(self->num_segments + 1) * problem->num_devices;
    self->tables = cpga_calloc(self->num_segments, (int64_t)sizeof *self->tables);
    self->table_of = cpga_calloc(self->num_segments, (int64_t)sizeof *self->table_of);
    self->finish = cpga_calloc(points, (int64_t)sizeof *self->finish);
    self->came = cpga_calloc(points, (int64_t)sizeof *self->came);
    return self->tables != NULL && self->table_of != NULL && self->finish != NULL &&
                   self->came != NULL
               ? CPGA_OK
               : CPGA_ERR_MEMORY;
}

static void free_chain(chain *self) {
    for (int32_t i = 0; i < self->num_tables; i++) {
        free(self->tables[i].finish);
        free(self->tables[i].order);
        free(self->tables[i].device);
    }
    free(self->segment);
    free(self->tables);
    free(self->table_of);
    free(self->finish);
    free(self->came);
}

static int solve_table(table *self, cpga_segment_dp *solver, int32_t entry_device) {
    int32_t devices = solver->problem->num_devices;
    int32_t tasks = self->segment->end - self->segment->begin;
    int64_t row = (int64_t)entry_device * devices;
    if (self->is_solved[entry_device])
        return CPGA_OK;
    self->is_solved[entry_device] = 1;
    int status = cpga_segment_dp_solve(solver, self->segment, entry_device, self->finish + row,
                                       self->order + row * tasks, self->device + row * tasks);
    for (int64_t i = row * tasks; i < (row + devices) * tasks; i++)
        self->order[i] -= self->segment->begin;
    return status;
}

/* Drop the devices of a cut on which it ends so late that another one is better for all that
 * follows. */
static void drop_late(const chain *self, int64_t *finish, int64_t slack) {
    int64_t soonest = INT64_MAX;
    for (int32_t on = 0; on < self->problem->num_devices; on++) {
        if (finish[on] >= 0)
            soonest = cpga_min(soonest, finish[on]);
    }
    for (int32_t on = 0; on < self->problem->num_devices; on++) {
        if (finish[on] > soonest + slack)
            finish[on] = -1;
    }
}

static int walk(chain *self, cpga_segment_dp *solver) {
    int32_t devices = self->problem->num_devices;
    int status = CPGA_OK;
    for (int32_t i = 0; i < (self->num_segments + 1) * devices; i++)
        self->finish[i] = i == 0 ? 0 : -1;
    for (int32_t i = 0; i < self->num_segments && status == CPGA_OK; i++) {
        table *at = &self->tables[self->table_of[i]];
        const int64_t *before = self->finish + (int64_t)i * devices;
        int64_t *after = self->finish + (int64_t)(i + 1) * devices;
        for (int32_t from = 0; from < devices && status == CPGA_OK; from++) {
            if (before[from] < 0)
                continue;
            status = solve_table(at, solver, from);
            for (int32_t to = 0; to < devices && status == CPGA_OK; to++) {
                int64_t length = at->finish[from * devices + to];
                if (length < 0 || (after[to] >= 0 && after[to] <= before[from] + length))
                    continue;
                after[to] = before[from] + length;
                self->came[(int64_t)(i + 1) * devices + to] = from;
            }
        }
        if (status == CPGA_OK)
            drop_late(self, after, self->segment[i].slack);
    }
    return status;
}

/* Write the plan along the shortest path, from its end. */
static void write_plan(const chain *self, cpga_series *to) {
    int32_t devices = self->problem->num_devices, on = 0;
    for (int32_t i = self->num_segments - 1; i >= 0; i--) {
        const table *at = &self->tables[self->table_of[i]];
        int32_t begin = self->segment[i].begin, tasks = self->segment[i].end - begin;
        int32_t from = self->came[(int64_t)(i + 1) * devices + on];
        int64_t row = ((int64_t)from * devices + on) * tasks;
        for (int32_t place = 0; place < tasks; place++) {
            int32_t task = begin + at->order[row + place];
            to->order[begin + place] = task;
            to->device[task] = at->device[row + place];
        }
        on = from;
    }
}

/* Whether a problem is of the kind that is solved here. */
static int is_fit(const chain *self) {
    const cpga_problem *problem = self->problem;
    for (int32_t i = 0; i < self->num_segments; i++) {
        if (self->segment[i].end - self->segment[i].begin > CPGA_MAX_SEGMENT_TASKS)
            return 0;
    }
    int64_t pairs = (int64_t)problem->num_devices * problem->num_devices;
    return problem->num_tasks > 0 && !problem->has_memory_limit &&
           problem->num_tasks <= MAX_TABLES / pairs &&
           problem->sets.num_sets == problem->num_tasks &&
           problem->num_devices <= CPGA_MAX_SEGMENT_DEVICES;
}

int cpga_series_init(cpga_series *self, const cpga_problem *problem) {
    memset(self, 0, sizeof *self);
    self->order = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->order);
    self->device = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->device);
    self->distinct = cpga_calloc(problem->num_tasks, 3 * (int64_t)sizeof *self->distinct);
    if (self->order != NULL && self->device != NULL && self->distinct != NULL)
        return CPGA_OK;
    cpga_series_free(self);
    return CPGA_ERR_MEMORY;
}

void cpga_series_free(cpga_series *self) {
    free(self->order);
    free(self->device);
    free(self->distinct);
    memset(self, 0, sizeof *self);
}

/* Say which segments were solved, each for how many devices of the cut before it. */
static void write_distinct(const chain *self, cpga_series *to) {
    to->num_segments = self->num_segments;
    to->num_distinct = self->num_tables;
    for (int32_t k = 0; k < self->num_tables; k++) {
        const table *at = &self->tables[k];
        int32_t *row = to->distinct + 3 * (int64_t)k;
        row[0] = at->segment->begin;
        row[1] = at->segment->end;
        for (int32_t from = 0; from < self->problem->num_devices; from++)
            row[2] += at->is_solved[from];
    }
}

int cpga_series_solve(cpga_series *self, const cpga_problem *problem, int64_t max_states,
                      int64_t max_work) {
    chain work;
    cpga_segment_dp solver = {problem,
                              max_states,
                              0,
                              max_work,
                              max_work - max_work / NARROW_ONE_IN,
                              max_work / EACH_ONE_IN,
                              1};
    int status = init_chain(&work, problem);
    int fits = status == CPGA_OK && is_fit(&work);
    if (fits)
        status = make_tables(&work);
    if (fits && status == CPGA_OK)
        status = walk(&work, &solver);
    self->work = solver.work;
    fits = fits && status != CPGA_ERR_BUDGET;
    if (status == CPGA_ERR_BUDGET)
        status = CPGA_OK;
    if (fits && status == CPGA_OK) {
        write_plan(&work, self);
        write_distinct(&work, self);
        int64_t end = work.finish[(int64_t)work.num_segments * problem->num_devices];
        self->bound = solver.is_exact ? end : 0;
    }
    free_chain(&work);
    return status;
}
