#include "search.h"

#include "heuristics.h"

#include <stdlib.h>
#include <string.h>

static int chromosome_init(cpga_chromosome *self, const cpga_problem *problem)
{
    self->order = cpga_calloc(problem->num_tasks, (int64_t) sizeof *self->order);
    self->device = cpga_calloc(problem->num_tasks, (int64_t) sizeof *self->device);
    self->makespan = self->overflow = INT64_MAX;
    return self->order == NULL || self->device == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
}

static void keep_best(cpga_search *self)
{
    size_t bytes = (size_t) self->problem->num_tasks * sizeof(int32_t);
    if (self->overflow > self->best.overflow
        || (self->overflow == self->best.overflow && self->plan.makespan >= self->best.makespan))
        return;
    memcpy(self->best.order, self->plan.order, bytes);
    memcpy(self->best.device, self->plan.device, bytes);
    self->best.makespan = self->plan.makespan;
    self->best.overflow = self->overflow;
    self->last_improvement = self->evaluations;
}

/* Run all heuristics and leave the best of their plans. */
static int seed_plan(cpga_search *self)
{
    const cpga_problem *problem = self->problem;
    int32_t tasks = problem->num_tasks, last = CPGA_SINGLE + problem->num_devices;
    int32_t *order = cpga_calloc(tasks, (int64_t) sizeof *order);
    int32_t *device = cpga_calloc(tasks, (int64_t) sizeof *device);
    int64_t *finish = cpga_calloc(tasks, (int64_t) sizeof *finish), makespan;
    int status = order == NULL || device == NULL || finish == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
    for (int32_t i = 0; i < last && status == CPGA_OK; i++) {
        int32_t kind = cpga_imin(i, CPGA_SINGLE);
        status = cpga_heuristic_run(problem, (cpga_heuristic) kind, i - CPGA_SINGLE, order, device,
            finish, &makespan);
        if (status == CPGA_ERR_NO_DEVICE && kind == CPGA_SINGLE) {
            status = CPGA_OK;
        } else if (status == CPGA_OK) {
            cpga_sort_by_start(problem, device, finish, order);
            cpga_plan_load(&self->plan, order, device);
            self->overflow = cpga_memory_overflow(&self->memory, device, self->plan.finish);
            self->evaluations++;
            keep_best(self);
        }
    }
    free(order);
    free(device);
    free(finish);
    if (status == CPGA_OK) {
        cpga_plan_load(&self->plan, self->best.order, self->best.device);
        self->overflow = self->best.overflow;
    }
    return status;
}

int cpga_search_init(cpga_search *self, const cpga_problem *problem, const cpga_units *tied,
    const cpga_params *params, uint64_t seed)
{
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->tied = tied;
    self->params = *params;
    self->num_critical = -1;
    cpga_rng_seed(&self->rng, seed);
    cpga_cooling_init(&self->cooling);
    self->critical = cpga_calloc(problem->num_tasks, (int64_t) sizeof *self->critical);
    self->old_window = cpga_calloc(problem->num_tasks, (int64_t) sizeof *self->old_window);
    int status = self->critical == NULL || self->old_window == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
    if (status == CPGA_OK)
        status = cpga_plan_init(&self->plan, problem);
    if (status == CPGA_OK)
        status = cpga_move_init(&self->move, problem);
    if (status == CPGA_OK)
        status = cpga_memory_init(&self->memory, problem);
    if (status == CPGA_OK)
        status = chromosome_init(&self->best, problem);
    if (status == CPGA_OK)
        status = seed_plan(self);
    if (status != CPGA_OK)
        cpga_search_free(self);
    return status;
}

void cpga_search_start(cpga_search *self, const int32_t *order, const int32_t *device)
{
    cpga_plan_load(&self->plan, order, device);
    self->overflow = cpga_memory_overflow(&self->memory, self->plan.device, self->plan.finish);
    self->evaluations++;
    self->num_critical = -1;
    keep_best(self);
    cpga_plan_load(&self->plan, self->best.order, self->best.device);
    self->overflow = self->best.overflow;
}

void cpga_search_free(cpga_search *self)
{
    cpga_plan_free(&self->plan);
    cpga_move_free(&self->move);
    cpga_memory_free(&self->memory);
    free(self->old_window);
    free(self->best.order);
    free(self->best.device);
    free(self->critical);
    memset(self, 0, sizeof *self);
}

/* A task to change: of a critical path as often as params say, any task otherwise. */
static int32_t draw_task(cpga_search *self)
{
    if (cpga_rng_index(&self->rng, 100) >= self->params.critical_percent)
        return cpga_rng_index(&self->rng, self->problem->num_tasks);
    if (self->num_critical < 0)
        self->num_critical = cpga_plan_critical(&self->plan, self->critical);
    return self->critical[cpga_rng_index(&self->rng, self->num_critical)];
}

/* Apply the change that was tried, unless it needs more memory than there is; true if applied. */
static int apply_if_it_fits(cpga_search *self)
{
    cpga_plan *plan = &self->plan;
    cpga_move *move = &self->move;
    if (!self->problem->has_memory_limit) {
        cpga_plan_apply(plan, move->first, move->last);
        return 1;
    }
    size_t bytes = (size_t) (move->last - move->first + 1) * sizeof *plan->order;
    memcpy(self->old_window, plan->order + move->first, bytes);
    cpga_plan_apply(plan, move->first, move->last);
    int64_t overflow = cpga_memory_overflow(&self->memory, plan->device, plan->finish);
    if (overflow <= self->overflow) {
        self->overflow = overflow;
        return 1;
    }
    cpga_move_undo(move, plan);
    memcpy(plan->window, self->old_window, bytes);
    cpga_plan_apply(plan, move->first, move->last);
    return 0;
}

/* One step of annealing. */
static void step(cpga_search *self, const cpga_units *units, int64_t temperature)
{
    int32_t task = draw_task(self);
    cpga_plan *plan = &self->plan;
    cpga_move *move = &self->move;
    self->evaluations++;
    if (!cpga_move_draw(move, plan, units, &self->params.moves, &self->rng, task))
        return;
    int64_t limit = plan->makespan + cpga_allowance(&self->cooling, &self->rng, temperature);
    if (self->overflow > 0)
        limit = CPGA_ABOVE_LIMIT - 1; /* first of all it has to fit */
    if (cpga_plan_try(plan, move->first, move->last, limit) == CPGA_ABOVE_LIMIT) {
        cpga_move_undo(move, plan);
        return;
    }
    if (apply_if_it_fits(self)) {
        self->num_critical = -1;
        keep_best(self);
    }
}

int cpga_search_run(cpga_search *self, int64_t max_evaluations, int64_t horizon)
{
    int64_t end = self->evaluations + max_evaluations, temperature = 0;
    int64_t scale = self->best.makespan / 1000000, rest = self->best.makespan % 1000000;
    int64_t hot = scale * self->params.hot_ppm + rest * self->params.hot_ppm / 1000000;
    int64_t cold = scale * self->params.cold_ppm + rest * self->params.cold_ppm / 1000000;
    if (self->problem->num_tasks == 0)
        return CPGA_OK;
    for (; self->evaluations < end; ) {
        int64_t done = cpga_min(self->evaluations, horizon);
        int64_t progress = horizon > 0 ? (done << 16) / horizon : 65536;
        int tied = self->tied != NULL && progress * 100 < (int64_t) self->params.tied_percent << 16;
        temperature = cpga_temperature(&self->cooling, hot, cold, progress);
        int64_t stop = cpga_min(end, self->evaluations + self->params.sort_every - self->since_sort);
        for (; self->evaluations < stop; self->since_sort++)
            step(self, tied ? self->tied : &self->problem->units, temperature);
        if (self->since_sort >= self->params.sort_every) {
            cpga_plan_sort(&self->plan);
            self->num_critical = -1;
            self->since_sort = 0;
        }
    }
    return CPGA_OK;
}
