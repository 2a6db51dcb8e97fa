#include "anneal.h"

#include <stdlib.h>
#include <string.h>

/* Changes for the worse between two looks at how many of them were accepted. */
#define STEERING_SAMPLE 1000
/* One visit in so many sees the whole order, so that blocks of any extent can move. */
#define WHOLE_ONE_IN 32

int cpga_chromosome_init(cpga_chromosome *self, const cpga_problem *problem) {
    self->order = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->order);
    self->device = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->device);
    self->makespan = self->overflow = INT64_MAX;
    return self->order == NULL || self->device == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
}

void cpga_chromosome_free(cpga_chromosome *self) {
    free(self->order);
    free(self->device);
    memset(self, 0, sizeof *self);
}

int cpga_better(const cpga_chromosome *a, const cpga_chromosome *b) {
    return a->overflow < b->overflow || (a->overflow == b->overflow && a->makespan < b->makespan);
}

int cpga_annealer_init(cpga_annealer *self, const cpga_problem *problem,
                       const cpga_anneal_params *params, uint64_t seed) {
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->params = *params;
    self->num_critical = -1;
    cpga_rng_seed(&self->rng, seed);
    cpga_fixed_init(&self->fixed);
    self->critical = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->critical);
    self->old_window = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->old_window);
    int status = self->critical == NULL || self->old_window == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
    if (status == CPGA_OK)
        status = cpga_paths_init(&self->plan, problem);
    if (status == CPGA_OK)
        status = cpga_move_init(&self->move, problem);
    if (status == CPGA_OK)
        status = cpga_memory_init(&self->memory, problem);
    if (status == CPGA_OK)
        status = cpga_chromosome_init(&self->best, problem);
    if (status != CPGA_OK)
        cpga_annealer_free(self);
    return status;
}

void cpga_annealer_free(cpga_annealer *self) {
    cpga_paths_free(&self->plan);
    cpga_move_free(&self->move);
    cpga_memory_free(&self->memory);
    cpga_chromosome_free(&self->best);
    free(self->critical);
    free(self->old_window);
    memset(self, 0, sizeof *self);
}

void cpga_annealer_store(const cpga_annealer *self, cpga_chromosome *to) {
    size_t bytes = (size_t)self->problem->num_tasks * sizeof *to->order;
    memcpy(to->order, self->plan.order, bytes);
    memcpy(to->device, self->plan.device, bytes);
    to->makespan = self->plan.makespan;
    to->overflow = self->overflow;
}

static void keep_best(cpga_annealer *self) {
    if (self->overflow > self->best.overflow ||
        (self->overflow == self->best.overflow && self->plan.makespan >= self->best.makespan))
        return;
    cpga_annealer_store(self, &self->best);
    self->last_improvement = self->evaluations;
}

void cpga_annealer_load(cpga_annealer *self, const int32_t *order, const int32_t *device) {
    cpga_paths_load(&self->plan, order, device);
    self->overflow = cpga_memory_overflow(&self->memory, self->plan.device, self->plan.finish);
    self->num_critical = -1;
    self->evaluations++;
    keep_best(self);
}

/* A task to change: of a critical path as often as is wanted at present, any task in focus
 * otherwise. */
static int32_t draw_task(cpga_annealer *self) {
    const cpga_paths *plan = &self->plan;
    if (cpga_rng_index(&self->rng, 100) < self->critical_percent) {
        if (self->num_critical < 0)
            self->num_critical = cpga_paths_critical(plan, self->critical);
        if (self->num_critical > 0)
            return self->critical[cpga_rng_index(&self->rng, self->num_critical)];
    }
    return plan->order[plan->begin + cpga_rng_index(&self->rng, plan->end - plan->begin + 1)];
}

/* Apply the change that was tried, unless it needs more memory than before; true if applied. */
static int apply_if_it_fits(cpga_annealer *self) {
    cpga_paths *plan = &self->plan;
    cpga_move *move = &self->move;
    if (!self->problem->has_memory_limit) {
        cpga_paths_apply(plan, move->first, move->last);
        return 1;
    }
    size_t bytes = (size_t)(move->last - move->first + 1) * sizeof *plan->order;
    memcpy(self->old_window, plan->order + move->first, bytes);
    cpga_paths_apply(plan, move->first, move->last);
    int64_t overflow = cpga_memory_overflow(&self->memory, plan->device, plan->finish);
    if (overflow <= self->overflow) {
        self->overflow = overflow;
        return 1;
    }
    cpga_move_undo(move, plan);
    memcpy(plan->window, self->old_window, bytes);
    cpga_paths_apply(plan, move->first, move->last);
    return 0;
}

/* Draw a change, value it, and accept or refuse it. */
static void step(cpga_annealer *self) {
    cpga_paths *plan = &self->plan;
    cpga_move *move = &self->move;
    int32_t task = draw_task(self);
    self->evaluations++;
    if (!cpga_move_draw(move, plan, &self->params.moves, &self->rng, task))
        return;
    int64_t limit =
        plan->makespan + cpga_fixed_allowance(&self->fixed, &self->rng, self->temperature);
    if (self->overflow > 0)
        limit = CPGA_ABOVE_LIMIT - 1; /* first of all it has to fit */
    int64_t value = cpga_paths_try(plan, move->first, move->last, limit);
    self->worse_seen += value > plan->makespan;
    if (value == CPGA_ABOVE_LIMIT) {
        cpga_move_undo(move, plan);
        return;
    }
    self->worse_taken += value > plan->makespan;
    if (apply_if_it_fits(self)) {
        self->num_critical = -1;
        keep_best(self);
    }
}

static void choose_focus(cpga_annealer *self) {
    int32_t tasks = self->problem->num_tasks, size = self->params.focus;
    self->num_critical = -1;
    if (++self->since_sort >= self->params.sort_every) {
        cpga_paths_sort(&self->plan);
        self->since_sort = 0;
    }
    /* Tasks of a memory-limited problem are checked against the whole schedule at every change. */
    int whole = size >= tasks || self->problem->has_memory_limit;
    if (whole || cpga_rng_index(&self->rng, WHOLE_ONE_IN) == 0) {
        cpga_paths_focus(&self->plan, 0, tasks - 1);
        return;
    }
    int32_t begin = cpga_rng_index(&self->rng, tasks) - size / 2;
    begin = cpga_imax(0, cpga_imin(begin, tasks - size));
    cpga_paths_focus(&self->plan, begin, begin + size - 1);
}

void cpga_annealer_visit(cpga_annealer *self, int64_t target, int64_t max_evaluations) {
    /* A focus costs time linear in the tasks: stay longer where there are many. */
    int64_t stay = self->params.visit + self->problem->num_tasks / 8;
    int64_t end = self->evaluations + cpga_min(stay, max_evaluations);
    choose_focus(self);
    while (self->evaluations < end)
        step(self);
    if (self->worse_seen < STEERING_SAMPLE)
        return;
    if ((self->worse_taken << 20) > target * self->worse_seen)
        self->temperature -= self->temperature / 16;
    else
        self->temperature += self->temperature / 16 + 1;
    self->temperature = cpga_min(self->temperature, self->problem->total_ns);
    self->worse_seen = self->worse_taken = 0;
}
