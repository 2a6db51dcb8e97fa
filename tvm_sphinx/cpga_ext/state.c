/* Saving a search and going on from it. */
#include "search.h"

#include <string.h>

#define STATE_MAGIC INT64_C(0x4350474132)
#define NUM_SCALARS 21

static int64_t chromosome_size(const cpga_search *self) {
    return 2 + 2 * (int64_t)self->problem->num_tasks;
}

int64_t cpga_search_state_size(const cpga_search *self) {
    /* The scalars, the present plan, the best, the population and the seeds. */
    int64_t chromosomes = 2 + (int64_t)self->params.population + cpga_search_max_seeds(self);
    return NUM_SCALARS + chromosomes * chromosome_size(self);
}

static int64_t *write_chromosome(const cpga_search *self, const cpga_chromosome *from,
                                 int64_t *to) {
    *to++ = from->makespan;
    *to++ = from->overflow;
    for (int32_t i = 0; i < self->problem->num_tasks; i++)
        *to++ = from->order[i];
    for (int32_t i = 0; i < self->problem->num_tasks; i++)
        *to++ = from->device[i];
    return to;
}

static void read_chromosome(const cpga_search *self, cpga_chromosome *to, const int64_t *from) {
    to->makespan = *from++;
    to->overflow = *from++;
    for (int32_t i = 0; i < self->problem->num_tasks; i++)
        to->order[i] = (int32_t)*from++;
    for (int32_t i = 0; i < self->problem->num_tasks; i++)
        to->device[i] = (int32_t)*from++;
}

static void write_scalars(const cpga_search *self, int64_t *to) {
    const cpga_annealer *annealer = &self->annealer;
    const int64_t scalars[NUM_SCALARS] = {STATE_MAGIC,
                                          self->problem->num_tasks,
                                          self->params.population,
                                          self->num_members,
                                          self->is_child,
                                          self->cycle,
                                          self->cycle_begin,
                                          self->cycle_length,
                                          self->hot,
                                          annealer->temperature,
                                          annealer->evaluations,
                                          annealer->last_improvement,
                                          annealer->worse_seen,
                                          annealer->worse_taken,
                                          annealer->since_sort,
                                          self->problem->total_ns,
                                          self->num_seeds};
    memcpy(to, scalars, sizeof scalars);
    memcpy(to + NUM_SCALARS - 4, annealer->rng.s, sizeof annealer->rng.s);
}

void cpga_search_save(cpga_search *self, int64_t *state) {
    cpga_annealer *annealer = &self->annealer;
    cpga_chromosome present = {annealer->plan.order, annealer->plan.device, annealer->plan.makespan,
                               annealer->overflow};
    write_scalars(self, state);
    state = write_chromosome(self, &present, state + NUM_SCALARS);
    state = write_chromosome(self, &annealer->best, state);
    for (int32_t i = 0; i < self->params.population; i++)
        state = write_chromosome(self, &self->member[i], state);
    for (int32_t i = 0; i < cpga_search_max_seeds(self); i++)
        state = write_chromosome(self, &self->seed[i], state);
}

static int check_chromosomes(const cpga_search *self, const int64_t *from, int64_t count) {
    int32_t tasks = self->problem->num_tasks;
    for (int64_t i = 0; i < count; i++, from += chromosome_size(self)) {
        if (from[0] < 0 || from[1] < 0 ||
            cpga_check_chromosome(self->problem, from + 2, from + 2 + tasks,
                                  self->annealer.old_window) != CPGA_OK)
            return CPGA_ERR_STATE;
    }
    return CPGA_OK;
}

/* Check all chromosomes that are in use, so that nothing unchecked gets into the search. */
static int check_state(const cpga_search *self, const int64_t *state) {
    const cpga_problem *problem = self->problem;
    int64_t size = chromosome_size(self);
    if (state[0] != STATE_MAGIC || state[1] != problem->num_tasks ||
        state[2] != self->params.population || state[15] != problem->total_ns)
        return CPGA_ERR_STATE;
    for (int i = 3; i < 15; i++) {
        if (state[i] < 0 || state[i] > CPGA_MAX_TOTAL_NS)
            return CPGA_ERR_STATE;
    }
    if (state[3] > state[2] || state[4] > 1 || state[7] < (state[5] > 0) ||
        state[14] > self->params.anneal.sort_every)
        return CPGA_ERR_STATE;
    if (state[16] < 1 || state[16] > cpga_search_max_seeds(self))
        return CPGA_ERR_STATE;
    const int64_t *random = state + NUM_SCALARS - 4;
    if ((random[0] | random[1] | random[2] | random[3]) == 0)
        return CPGA_ERR_STATE;
    const int64_t *first = state + NUM_SCALARS;
    int status = check_chromosomes(self, first, 2 + state[3]);
    return status == CPGA_OK ? check_chromosomes(self, first + (2 + state[2]) * size, state[16])
                             : status;
}

int cpga_search_restore(cpga_search *self, const int64_t *state) {
    cpga_annealer *annealer = &self->annealer;
    int64_t size = chromosome_size(self);
    int status = check_state(self, state);
    if (status != CPGA_OK)
        return status;
    const int64_t *from = state + NUM_SCALARS;
    read_chromosome(self, &annealer->best, from); /* the present plan, for a moment */
    cpga_annealer_load(annealer, annealer->best.order, annealer->best.device);
    read_chromosome(self, &annealer->best, from + size);
    for (int32_t i = 0; i < state[3]; i++)
        read_chromosome(self, &self->member[i], from + (2 + i) * size);
    for (int32_t i = 0; i < state[16]; i++)
        read_chromosome(self, &self->seed[i], from + (2 + state[2] + i) * size);
    self->num_seeds = (int32_t)state[16];
    self->num_members = (int32_t)state[3];
    self->is_child = (int32_t)state[4];
    self->cycle = state[5];
    self->cycle_begin = state[6];
    self->cycle_length = state[7];
    self->hot = state[8];
    annealer->temperature = state[9];
    annealer->evaluations = state[10];
    annealer->last_improvement = state[11];
    annealer->worse_seen = state[12];
    annealer->worse_taken = state[13];
    annealer->since_sort = (int32_t)state[14];
    memcpy(annealer->rng.s, state + NUM_SCALARS - 4, sizeof annealer->rng.s);
    return CPGA_OK;
}
