/* Unit tests of the C core, without Python: run by Makefile under sanitizers and valgrind. */
#include "bounds.h"
#include "coarsen.h"
#include "heuristics.h"
#include "refute.h"
#include "search.h"
#include "series.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { MAX_TASKS = 64, MAX_DEVICES = 3, MAX_EDGES = MAX_TASKS * 4 };

/* A drawn problem and the arrays behind it. Devices 0 and 1 have a core each, device 2 has both. */
typedef struct drawn {
    int64_t exec_ns[MAX_TASKS * MAX_DEVICES];
    int64_t release_ns[MAX_TASKS * MAX_DEVICES];
    int64_t delivery_ns[MAX_TASKS * MAX_DEVICES];
    int64_t edges[2 * MAX_EDGES];
    int64_t copy_class[MAX_EDGES];
    int64_t copy_ns[2 * MAX_DEVICES * MAX_DEVICES];
    int64_t resource_begin[MAX_DEVICES + 1];
    int64_t resources[4];
    int64_t set_of_task[MAX_TASKS];
    int64_t memory_bytes[MAX_DEVICES];
    int64_t weight_bytes[MAX_TASKS * MAX_DEVICES];
    int64_t output_bytes[MAX_TASKS];
    cpga_problem_data data;
} drawn;

static void draw(drawn *self, uint64_t seed, int32_t tasks, int memory) {
    cpga_rng rng;
    int32_t edges = 0, devices = MAX_DEVICES;
    memset(self, 0, sizeof *self);
    cpga_rng_seed(&rng, seed);
    for (int32_t i = 0; i < tasks * devices; i++) {
        self->exec_ns[i] = i % devices != 1 && cpga_rng_below(&rng, 8) == 0
                               ? CPGA_CANNOT_RUN
                               : (int64_t)cpga_rng_below(&rng, 100);
        self->release_ns[i] = cpga_rng_below(&rng, 20);
        self->delivery_ns[i] = cpga_rng_below(&rng, 20);
    }
    for (int32_t dst = 1; dst < tasks; dst++) {
        for (int32_t src = dst > 6 ? dst - 6 : 0; src < dst && edges < MAX_EDGES; src++) {
            if (cpga_rng_below(&rng, 3) == 0) {
                self->edges[2 * edges] = src;
                self->edges[2 * edges + 1] = dst;
                self->copy_class[edges++] = cpga_rng_below(&rng, 2);
            }
        }
    }
    for (int32_t i = 0; i < 2 * devices * devices; i++) {
        int diagonal = i % (devices * devices) / devices == i % devices;
        self->copy_ns[i] = diagonal ? 0 : (int64_t)cpga_rng_below(&rng, 200);
    }
    const int64_t begin[] = {0, 1, 2, 4}, resources[] = {0, 1, 0, 1};
    memcpy(self->resource_begin, begin, sizeof begin);
    memcpy(self->resources, resources, sizeof resources);
    for (int32_t i = 0; i < tasks; i++) {
        self->set_of_task[i] = i;
        for (int32_t on = 0; on < devices; on++)
            self->weight_bytes[i * devices + on] = cpga_rng_below(&rng, 10);
        self->output_bytes[i] = cpga_rng_below(&rng, 10);
    }
    for (int32_t i = 0; i < devices; i++)
        self->memory_bytes[i] = memory ? 6 * tasks : CPGA_UNLIMITED;
    self->data = (cpga_problem_data){tasks,
                                     devices,
                                     edges,
                                     2,
                                     2,
                                     tasks,
                                     self->exec_ns,
                                     self->release_ns,
                                     self->delivery_ns,
                                     self->edges,
                                     self->copy_class,
                                     self->copy_ns,
                                     self->resource_begin,
                                     self->resources,
                                     self->set_of_task,
                                     self->memory_bytes,
                                     self->weight_bytes,
                                     self->output_bytes};
}

static cpga_params quick_params(void) {
    return (cpga_params){3, 1000, 20, 104858, 52429, 1049, {50, 50, 16, 16, 3, {25, 35, 50, 4, 6}}};
}

static void test_rng_is_unbiased_and_repeats(void) {
    cpga_rng a, b;
    int64_t counts[3] = {0, 0, 0};
    cpga_rng_seed(&a, 0);
    cpga_rng_seed(&b, 0);
    for (int i = 0; i < 300000; i++) {
        uint32_t value = cpga_rng_below(&a, 3);
        CHECK(value == cpga_rng_below(&b, 3));
        counts[value]++;
    }
    for (int i = 0; i < 3; i++)
        CHECK(counts[i] > 98500 && counts[i] < 101500);
    cpga_rng known = {{1, 2, 3, 4}};
    CHECK(cpga_rng_next(&known) == 11520);
    CHECK(cpga_rng_next(&known) == 0);
    CHECK(cpga_rng_next(&known) == 1509978240);
}

static void test_every_broken_invariant_is_refused(void) {
    drawn d;
    cpga_problem problem;
#define REFUSED(change, status)                                                                    \
    do {                                                                                           \
        draw(&d, 1, 10, 0);                                                                        \
        change;                                                                                    \
        CHECK(cpga_problem_init(&problem, &d.data) == (status));                                   \
        cpga_problem_free(&problem);                                                               \
    } while (0)
    REFUSED((void)0, CPGA_OK);
    REFUSED(d.data.num_devices = 0, CPGA_ERR_SIZE);
    REFUSED(d.data.num_tasks = -1, CPGA_ERR_SIZE);
    REFUSED(d.data.num_classes = INT32_MAX, CPGA_ERR_SIZE);
    REFUSED(d.edges[1] = 10, CPGA_ERR_EDGE_RANGE);
    REFUSED(d.edges[0] = -1, CPGA_ERR_EDGE_RANGE);
    REFUSED(d.edges[0] = d.edges[1], CPGA_ERR_EDGE_ORDER);
    REFUSED((d.edges[2] = d.edges[0], d.edges[3] = d.edges[1]), CPGA_ERR_EDGE_TWICE);
    REFUSED(d.copy_class[0] = 2, CPGA_ERR_CLASS_RANGE);
    REFUSED(d.exec_ns[0] = -2, CPGA_ERR_NEGATIVE);
    REFUSED(d.copy_ns[1] = -1, CPGA_ERR_NEGATIVE);
    REFUSED(d.weight_bytes[0] = -1, CPGA_ERR_NEGATIVE);
    REFUSED(d.copy_ns[0] = 1, CPGA_ERR_DIAGONAL);
    REFUSED((d.exec_ns[0] = CPGA_MAX_TOTAL_NS - 1, d.exec_ns[3] = 100), CPGA_ERR_OVERFLOW);
    REFUSED(d.output_bytes[0] = INT64_MAX, CPGA_ERR_OVERFLOW);
    REFUSED(d.resources[0] = 2, CPGA_ERR_RESOURCE);
    REFUSED(d.resource_begin[1] = 0, CPGA_ERR_RESOURCE);
    REFUSED(d.set_of_task[0] = 10, CPGA_ERR_SET);
    REFUSED(d.set_of_task[0] = 1, CPGA_ERR_SET);
    REFUSED((d.exec_ns[0] = -1, d.exec_ns[1] = -1, d.exec_ns[2] = -1), CPGA_ERR_NO_DEVICE);
#undef REFUSED
    for (int status = CPGA_OK; status <= CPGA_ERR_VALUE + 1; status++)
        CHECK(strlen(cpga_strerror(status)) > 0);
}

/* Insertion then sorting gives an order that appending decodes to no worse a schedule. */
static void test_heuristics_and_decoders_agree(void) {
    drawn d;
    cpga_problem problem;
    int32_t order[MAX_TASKS], device[MAX_TASKS];
    int64_t finish[MAX_TASKS], again[MAX_TASKS], makespan;
    for (uint64_t seed = 0; seed < 50; seed++) {
        cpga_timeline timeline;
        draw(&d, seed, 1 + (int32_t)seed % MAX_TASKS, 0);
        CHECK(cpga_problem_init(&problem, &d.data) == CPGA_OK);
        CHECK(cpga_timeline_init(&timeline, &problem) == CPGA_OK);
        for (int kind = CPGA_HEFT; kind <= CPGA_FASTEST; kind++) {
            CHECK(cpga_heuristic_run(&problem, (cpga_heuristic)kind, 0, order, device, finish,
                                     &makespan) == CPGA_OK);
            CHECK(cpga_decode(&timeline, order, device, CPGA_INSERT, again) == makespan);
            CHECK(memcmp(finish, again, (size_t)problem.num_tasks * sizeof *finish) == 0);
            cpga_sort_by_start(&problem, device, finish, order);
            CHECK(cpga_decode(&timeline, order, device, CPGA_APPEND, again) <= makespan);
        }
        cpga_timeline_free(&timeline);
        cpga_problem_free(&problem);
    }
}

/* The heads, tails and makespan that a plan keeps are those of a plan that is computed anew. */
static void check_plan(const cpga_paths *plan) {
    cpga_paths anew;
    size_t tasks = (size_t)plan->problem->num_tasks;
    CHECK(cpga_paths_init(&anew, plan->problem) == CPGA_OK);
    cpga_paths_load(&anew, plan->order, plan->device);
    CHECK(anew.makespan == plan->makespan);
    if (!plan->touched) {
        CHECK(memcmp(anew.finish, plan->finish, tasks * sizeof *anew.finish) == 0);
        CHECK(memcmp(anew.rest, plan->rest, tasks * sizeof *anew.rest) == 0);
    }
    cpga_paths_free(&anew);
}

static void test_plans_stay_exact_and_budgets_hold(void) {
    drawn d;
    cpga_problem problem;
    cpga_search search;
    cpga_params params = quick_params();
    for (uint64_t seed = 0; seed < 12; seed++) {
        draw(&d, seed, 5 + 4 * (int32_t)seed, seed % 3 == 2);
        CHECK(cpga_problem_init(&problem, &d.data) == CPGA_OK);
        CHECK(cpga_search_init(&search, &problem, &params, seed) == CPGA_OK);
        int64_t best = search.annealer.best.makespan, overflow = search.annealer.best.overflow;
        while (search.annealer.evaluations < 4000) {
            cpga_search_run(&search, 50, 4000);
            check_plan(&search.annealer.plan);
            CHECK(search.annealer.best.overflow <= overflow);
            CHECK(search.annealer.best.overflow < overflow ||
                  search.annealer.best.makespan <= best);
            best = search.annealer.best.makespan;
            overflow = search.annealer.best.overflow;
        }
        CHECK(search.annealer.evaluations == 4000);
        cpga_search_free(&search);
        cpga_problem_free(&problem);
    }
}

/* However the work is cut, the same search comes out. */
static void test_slices_change_nothing(void) {
    drawn d;
    cpga_problem problem;
    cpga_search whole, sliced;
    cpga_params params = quick_params();
    draw(&d, 3, 40, 0);
    size_t bytes = (size_t)d.data.num_tasks * sizeof(int32_t);
    CHECK(cpga_problem_init(&problem, &d.data) == CPGA_OK);
    CHECK(cpga_search_init(&whole, &problem, &params, 5) == CPGA_OK);
    CHECK(cpga_search_init(&sliced, &problem, &params, 5) == CPGA_OK);
    cpga_search_run(&whole, 9000, 9000);
    for (int slice = 1; sliced.annealer.evaluations < 9000; slice += 7)
        cpga_search_run(&sliced, slice, 9000);
    CHECK(memcmp(whole.annealer.rng.s, sliced.annealer.rng.s, sizeof whole.annealer.rng.s) == 0);
    CHECK(whole.annealer.best.makespan == sliced.annealer.best.makespan);
    CHECK(memcmp(whole.annealer.plan.order, sliced.annealer.plan.order, bytes) == 0);
    CHECK(memcmp(whole.annealer.plan.device, sliced.annealer.plan.device, bytes) == 0);
    cpga_search_free(&whole);
    cpga_search_free(&sliced);
    cpga_problem_free(&problem);
}

typedef struct thread_job {
    const cpga_problem *problem;
    uint64_t seed;
    int64_t makespan;
} thread_job;

static void *run_job(void *argument) {
    thread_job *job = argument;
    cpga_search search;
    cpga_params params = quick_params();
    CHECK(cpga_search_init(&search, job->problem, &params, job->seed) == CPGA_OK);
    cpga_search_run(&search, 3000, 3000);
    job->makespan = search.annealer.best.makespan;
    cpga_search_free(&search);
    return NULL;
}

static void test_threads_share_a_problem(void) {
    drawn d;
    cpga_problem problem;
    pthread_t threads[4];
    thread_job jobs[4], alone;
    draw(&d, 8, 48, 0);
    CHECK(cpga_problem_init(&problem, &d.data) == CPGA_OK);
    for (uint64_t i = 0; i < 4; i++) {
        jobs[i] = (thread_job){&problem, i / 2, 0};
        CHECK(pthread_create(&threads[i], NULL, run_job, &jobs[i]) == 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    alone = (thread_job){&problem, 1, 0};
    run_job(&alone);
    CHECK(jobs[0].makespan == jobs[1].makespan && jobs[2].makespan == jobs[3].makespan);
    CHECK(jobs[3].makespan == alone.makespan);
    cpga_problem_free(&problem);
}

/* Make the drawn edges pass by no multiple of `size`, and all tasks lie between two of those. */
static void make_series(drawn *self, int32_t size) {
    int32_t tasks = self->data.num_tasks, edges = 0, copy_class = 0;
    for (int32_t task = 1; task < tasks; task++) {
        int32_t cut = (task - 1) / size * size, next = cut + size;
        const int32_t to[2] = {task, next};
        for (int32_t i = 0; i < 2; i++) {
            int32_t from = i == 0 ? cut : task;
            if (to[i] <= from || to[i] >= tasks || edges == MAX_EDGES)
                continue;
            self->edges[2 * edges] = from;
            self->edges[2 * edges + 1] = to[i];
            self->copy_class[edges++] = copy_class ^= 1;
        }
    }
    self->data.num_edges = edges;
}

/* What is found is feasible, no longer than it was valued, and no heuristic beats its bound; with
 * next to no budget it is given up. */
static void test_series_are_solved_within_budgets(void) {
    drawn d;
    cpga_problem problem;
    cpga_series series;
    cpga_timeline timeline;
    int32_t order[MAX_TASKS], device[MAX_TASKS], position[MAX_TASKS], proven = 0, given_up = 0;
    int64_t finish[MAX_TASKS], makespan, checked[2][MAX_TASKS];
    for (uint64_t seed = 0; seed < 60; seed++) {
        int64_t most = seed % 3 ? 200000 : 100;
        draw(&d, seed, 1 + (int32_t)(seed * 7) % MAX_TASKS, 0);
        make_series(&d, 2 + (int32_t)seed % 5);
        CHECK(cpga_problem_init(&problem, &d.data) == CPGA_OK);
        CHECK(cpga_timeline_init(&timeline, &problem) == CPGA_OK);
        CHECK(cpga_series_init(&series, &problem) == CPGA_OK);
        CHECK(cpga_series_solve(&series, &problem, seed % 2 ? 2000 : 60, most) == CPGA_OK);
        CHECK(series.num_segments >= series.num_distinct);
        CHECK(series.work <= most + MAX_TASKS * problem.num_devices);
        given_up += series.num_segments == 0;
        for (int32_t i = 0; i < problem.num_tasks && series.num_segments > 0; i++) {
            checked[0][i] = series.order[i];
            checked[1][i] = series.device[i];
        }
        if (series.num_segments > 0) {
            CHECK(cpga_check_chromosome(&problem, checked[0], checked[1], position) == CPGA_OK);
            makespan = cpga_decode(&timeline, series.order, series.device, CPGA_APPEND, finish);
            CHECK(makespan >= series.bound);
            proven += makespan == series.bound;
        }
        for (int kind = CPGA_HEFT; kind <= CPGA_FASTEST; kind++) {
            CHECK(cpga_heuristic_run(&problem, (cpga_heuristic)kind, 0, order, device, finish,
                                     &makespan) == CPGA_OK);
            CHECK(makespan >= series.bound);
        }
        cpga_series_free(&series);
        cpga_timeline_free(&timeline);
        cpga_problem_free(&problem);
    }
    CHECK(proven > 10 && given_up > 5 && given_up < 21);
    draw(&d, 3, 40, 1);
    CHECK(cpga_problem_init(&problem, &d.data) == CPGA_OK);
    CHECK(cpga_series_init(&series, &problem) == CPGA_OK);
    CHECK(cpga_series_solve(&series, &problem, 100, 100) == CPGA_OK);
    CHECK(series.num_segments == 0); /* memory is limited */
    cpga_series_free(&series);
    cpga_problem_free(&problem);
}

/* Blocks are numbered so that no edge goes back, each has a device, and bounds hold. */
static void test_blocks_and_bounds(void) {
    drawn d;
    cpga_problem problem;
    int32_t order[MAX_TASKS], device[MAX_TASKS], block[MAX_TASKS], count, fewer = 0, raised = 0;
    int64_t finish[MAX_TASKS], makespan, bound;
    for (uint64_t seed = 0; seed < 60; seed++) {
        draw(&d, seed, 1 + (int32_t)(seed * 7) % MAX_TASKS, seed % 3 == 2);
        CHECK(cpga_problem_init(&problem, &d.data) == CPGA_OK);
        CHECK(cpga_coarsen(&problem, (int32_t)seed % 9, block, &count) == CPGA_OK);
        fewer += count < problem.num_tasks;
        for (int32_t task = 0; task < problem.num_tasks; task++) {
            CHECK(block[task] >= 0 && block[task] < count);
            for (int32_t k = problem.succ_begin[task]; k < problem.succ_begin[task + 1]; k++)
                CHECK(block[task] <= block[problem.succ[k].task]);
        }
        CHECK(cpga_lower_bound(&problem, &bound) == CPGA_OK);
        CHECK(cpga_heuristic_run(&problem, CPGA_HEFT, 0, order, device, finish, &makespan) ==
              CPGA_OK);
        CHECK(bound > 0 && bound <= makespan);
        int64_t refuted = bound;
        CHECK(cpga_refute(&problem, (int64_t)(seed * seed * 100), &refuted) == CPGA_OK);
        CHECK(refuted >= bound && refuted <= makespan);
        raised += refuted > bound;
        cpga_problem_free(&problem);
    }
    CHECK(fewer > 30 && raised > 20);
}

int main(void) {
    test_rng_is_unbiased_and_repeats();
    test_every_broken_invariant_is_refused();
    test_heuristics_and_decoders_agree();
    test_plans_stay_exact_and_budgets_hold();
    test_slices_change_nothing();
    test_threads_share_a_problem();
    test_series_are_solved_within_budgets();
    test_blocks_and_bounds();
    puts("all C tests passed");
    return 0;
}
