#include "search.h"

#include "heuristics.h"

#include <stdlib.h>
#include <string.h>

/* With fewer cycles than this a population is not worth it: one long annealing is better. */
#define MIN_CYCLES 4
/* The population grows to one member for so many cycles of the whole search. */
#define CYCLES_PER_MEMBER 3
/* Evaluations per task of a cycle beyond which there are more cycles instead of longer ones. */
#define MAX_EFFORT 5000
#define MIN_EFFORT 300

int32_t cpga_search_max_seeds(const cpga_search *self) {
    return CPGA_SINGLE + self->problem->num_devices + 2;
}

/* Evaluations per task of a cycle below which it starts colder, to have the time to cool down. */
#define HOT_EFFORT 256

static int64_t mean_exec_ns(const cpga_problem *problem) {
    int64_t sum = 0;
    for (int32_t task = 0; task < problem->num_tasks; task++)
        sum += cpga_fastest_exec(problem, task);
    return problem->num_tasks > 0 ? sum / problem->num_tasks : 0;
}

/* Evaluations per task that a cycle takes at least. Where copies are short, slow annealing finds
 * what no crossover does. Where they are long, only clusters of tasks can move, every annealing
 * ends in a valley of its own, and many short ones with their crossovers get further. So it falls
 * with the square of the communication-to-computation ratio, here of the longest copy of an edge to
 * a task on its fastest device. */
static int64_t effort_for(const cpga_problem *problem, int64_t exec_ns) {
    int64_t sum = 0;
    for (int32_t i = 0; i < problem->num_edges; i++)
        sum += cpga_longest_copy(problem, problem->pred[i].copy);
    int64_t copy_ns = problem->num_edges > 0 ? sum / problem->num_edges : 0;
    int64_t quarters = cpga_min(1000, copy_ns / cpga_max(1, exec_ns / 4));
    int64_t effort = MAX_EFFORT * INT64_C(160) / cpga_max(1, quarters * quarters);
    return cpga_max(MIN_EFFORT, cpga_min(MAX_EFFORT, effort));
}

static int init_chromosomes(cpga_chromosome **to, int32_t count, const cpga_problem *problem) {
    *to = cpga_calloc(count, (int64_t)sizeof **to);
    int status = *to == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
    for (int32_t i = 0; i < count && status == CPGA_OK; i++)
        status = cpga_chromosome_init(&(*to)[i], problem);
    return status;
}

/* Put the annealer's plan among the seeds, best first; equal ones in the order of their heuristics.
 */
static void insert_seed(cpga_search *self) {
    int32_t place = self->num_seeds++;
    cpga_chromosome spare = self->seed[place];
    cpga_annealer_store(&self->annealer, &spare);
    for (; place > 0 && cpga_better(&spare, &self->seed[place - 1]); place--)
        self->seed[place] = self->seed[place - 1];
    self->seed[place] = spare;
}

static int run_heuristics(cpga_search *self) {
    const cpga_problem *problem = self->problem;
    int32_t tasks = problem->num_tasks;
    cpga_chromosome plan = {0};
    int64_t *finish = cpga_calloc(tasks, (int64_t)sizeof *finish);
    int status = finish == NULL ? CPGA_ERR_MEMORY : cpga_chromosome_init(&plan, problem);
    for (int32_t i = 0; i < CPGA_SINGLE + problem->num_devices && status == CPGA_OK; i++) {
        int32_t kind = cpga_imin(i, CPGA_SINGLE);
        status = cpga_heuristic_run(problem, (cpga_heuristic)kind, i - CPGA_SINGLE, plan.order,
                                    plan.device, finish, &plan.makespan);
        if (status == CPGA_ERR_NO_DEVICE && kind == CPGA_SINGLE) {
            status = CPGA_OK;
        } else if (status == CPGA_OK) {
            cpga_sort_by_start(problem, plan.device, finish, plan.order);
            cpga_annealer_load(&self->annealer, plan.order, plan.device);
            insert_seed(self);
        }
    }
    free(finish);
    cpga_chromosome_free(&plan);
    return status;
}

int cpga_search_init(cpga_search *self, const cpga_problem *problem, const cpga_params *params,
                     uint64_t seed) {
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->params = *params;
    self->mean_exec_ns = mean_exec_ns(problem);
    self->effort = effort_for(problem, self->mean_exec_ns);
    int status = cpga_annealer_init(&self->annealer, problem, &params->anneal, seed);
    if (status == CPGA_OK)
        status = init_chromosomes(&self->member, params->population, problem);
    if (status == CPGA_OK)
        status = init_chromosomes(&self->seed, cpga_search_max_seeds(self), problem);
    if (status == CPGA_OK)
        status = run_heuristics(self);
    if (status != CPGA_OK)
        cpga_search_free(self);
    return status;
}

int cpga_search_start(cpga_search *self, const int32_t *order, const int32_t *device) {
    if (self->cycle > 0 || self->num_seeds == cpga_search_max_seeds(self))
        return CPGA_ERR_STATE;
    cpga_annealer_load(&self->annealer, order, device);
    insert_seed(self);
    return CPGA_OK;
}

void cpga_search_free(cpga_search *self) {
    for (int32_t i = 0; self->member != NULL && i < self->params.population; i++)
        cpga_chromosome_free(&self->member[i]);
    for (int32_t i = 0; self->seed != NULL && i < cpga_search_max_seeds(self); i++)
        cpga_chromosome_free(&self->seed[i]);
    free(self->member);
    free(self->seed);
    cpga_annealer_free(&self->annealer);
    memset(self, 0, sizeof *self);
}

/* Give every set a random device, in the present plan. */
static void randomise(cpga_search *self) {
    const cpga_sets *sets = &self->problem->sets;
    cpga_annealer *annealer = &self->annealer;
    for (int32_t set = 0; set < sets->num_sets; set++) {
        int32_t begin = sets->choice_begin[set];
        int32_t choices = sets->choice_begin[set + 1] - begin;
        int32_t to = sets->choices[begin + cpga_rng_index(&annealer->rng, choices)];
        for (int32_t i = sets->begin[set]; i < sets->begin[set + 1]; i++)
            annealer->plan.device[sets->members[i]] = to;
    }
}

/* Mark a connected region of an eighth to five eighths of the tasks; return how many, in region. */
static int32_t draw_region(cpga_search *self, int32_t *region) {
    const cpga_problem *problem = self->problem;
    cpga_move *move = &self->annealer.move;
    cpga_rng *rng = &self->annealer.rng;
    int32_t tasks = problem->num_tasks, count = 0;
    int32_t size = 1 + tasks / 8 + cpga_rng_index(rng, tasks / 2 + 1);
    int32_t next = cpga_rng_index(rng, tasks);
    for (int32_t tries = 0; next != -1 && count < size && tries < 4 * size; tries++) {
        if (move->mark[next] != move->stamp) {
            move->mark[next] = move->stamp;
            region[count++] = next;
        }
        next = cpga_draw_neighbour(problem, rng, region[cpga_rng_index(rng, count)]);
    }
    return count;
}

/* Make the present plan the better of two members, with a region's devices from the other one. */
static void cross(cpga_search *self) {
    cpga_annealer *annealer = &self->annealer;
    cpga_paths *plan = &annealer->plan;
    const cpga_sets *sets = &self->problem->sets;
    int32_t a = cpga_rng_index(&annealer->rng, self->num_members);
    int32_t b = cpga_rng_index(&annealer->rng, self->num_members - 1);
    b += b >= a;
    int swap = cpga_better(&self->member[b], &self->member[a]);
    const cpga_chromosome *better = &self->member[swap ? b : a];
    const cpga_chromosome *other = &self->member[swap ? a : b];
    cpga_paths_load(plan, better->order, better->device);
    cpga_move_stamp(&annealer->move, self->problem);
    int32_t count = draw_region(self, annealer->old_window);
    for (int32_t i = 0; i < count; i++) {
        int32_t task = annealer->old_window[i], set = sets->of_task[task];
        for (int32_t k = sets->begin[set]; k < sets->begin[set + 1]; k++)
            plan->device[sets->members[k]] = other->device[task];
    }
}

/* Take the next individual: a heuristic's plan, its order with random devices, or a child. */
static void take_individual(cpga_search *self) {
    cpga_annealer *annealer = &self->annealer;
    self->is_child = self->num_members >= self->wanted_members && self->num_members > 1;
    if (self->is_child) {
        cross(self);
    } else if (self->is_one && self->cycle > 0) {
        cpga_paths_load(&annealer->plan, annealer->best.order, annealer->best.device);
    } else {
        const cpga_chromosome *seed = &self->seed[self->cycle % self->num_seeds];
        cpga_paths_load(&annealer->plan, seed->order, seed->device);
        if (self->cycle % 3 != 0)
            randomise(self);
    }
    cpga_annealer_load(annealer, annealer->plan.order, annealer->plan.device);
    cpga_paths_sort(&annealer->plan);
}

/* How many cycles the whole budget allows, by the present plan for it. */
static int64_t count_cycles(const cpga_search *self, int64_t left, int64_t wanted) {
    return cpga_max(0, self->cycle - 1) + left / wanted;
}

/* Set the length of the present cycle so that a whole number of them fills what is left, and the
 * members that so many cycles are good for. A budget that is too short for several gets one long
 * annealing, after two short ones that find something good early. Depends on nothing but the
 * horizon and where the cycle began. */
static void lay_out_cycle(cpga_search *self, int64_t horizon) {
    const cpga_params *params = &self->params;
    int64_t tasks = self->problem->num_tasks, left = cpga_max(1, horizon - self->cycle_begin);
    int64_t least = params->effort > 0 ? params->effort : self->effort;
    int64_t most = cpga_max(least, MAX_EFFORT) * tasks;
    int64_t wanted = cpga_max(least * tasks, cpga_min(most, horizon / params->cycles));
    int64_t count = left / wanted;
    int64_t members = count_cycles(self, left, wanted) / CYCLES_PER_MEMBER;
    self->wanted_members = (int32_t)cpga_max(1, cpga_min(params->population, members));
    self->is_one = horizon / wanted < MIN_CYCLES;
    self->cycle_length = count < 2 ? left : left / count;
    if (self->is_one && self->cycle_begin == 0)
        self->cycle_length = cpga_max(1, horizon / 32);
    else if (self->is_one)
        self->cycle_length = self->cycle_begin < horizon / 16 ? cpga_max(1, horizon / 8) : left;
}

static void begin_cycle(cpga_search *self, int64_t horizon) {
    cpga_annealer *annealer = &self->annealer;
    self->cycle_begin = self->cycle == 0 ? 0 : annealer->evaluations;
    annealer->temperature =
        self->hot > 0 ? self->hot
                      : 1 + cpga_min(annealer->best.makespan >> 8, self->mean_exec_ns >> 2);
    annealer->worse_seen = annealer->worse_taken = 0;
    annealer->since_sort = 0;
    self->hot = 0;
    take_individual(self);
    self->cycle++;
    lay_out_cycle(self, horizon);
}

/* Put the plan of a cycle that is over into the population, unless its like is there already. */
static void end_cycle(cpga_search *self) {
    cpga_annealer *annealer = &self->annealer;
    int32_t worst = 0;
    cpga_paths_sort(&annealer->plan);
    if (self->num_members < self->wanted_members) {
        cpga_annealer_store(annealer, &self->member[self->num_members++]);
        return;
    }
    for (int32_t i = 0; i < self->num_members; i++) {
        if (self->member[i].makespan == annealer->plan.makespan &&
            self->member[i].overflow == annealer->overflow)
            return;
        if (cpga_better(&self->member[worst], &self->member[i]))
            worst = i;
    }
    cpga_chromosome *out = &self->member[worst];
    if (annealer->overflow < out->overflow ||
        (annealer->overflow == out->overflow && annealer->plan.makespan < out->makespan))
        cpga_annealer_store(annealer, out);
}

/* The share of changes for the worse that the annealer should accept now. */
static int64_t target_share(const cpga_search *self, int64_t progress) {
    const cpga_params *params = &self->params;
    int again = self->is_child || (self->is_one && self->cycle > 1);
    int64_t first = again ? params->accept_again : params->accept_first;
    int64_t effort = self->cycle_length / self->problem->num_tasks;
    first = cpga_max(params->accept_last, first * cpga_min(effort, HOT_EFFORT) / HOT_EFFORT);
    return cpga_fixed_temperature(&self->annealer.fixed, first, params->accept_last, progress);
}

void cpga_search_run(cpga_search *self, int64_t max_evaluations, int64_t horizon) {
    cpga_annealer *annealer = &self->annealer;
    int64_t end = cpga_min(annealer->evaluations + max_evaluations, horizon);
    if (self->problem->num_tasks == 0)
        return;
    lay_out_cycle(self, horizon);
    while (annealer->evaluations < end) {
        int64_t done = annealer->evaluations - self->cycle_begin;
        if (self->cycle == 0 || done >= self->cycle_length) {
            if (self->cycle > 0)
                end_cycle(self);
            begin_cycle(self, horizon);
            done = annealer->evaluations - self->cycle_begin;
        }
        int64_t progress = cpga_min(65536, (done << 16) / self->cycle_length);
        if (self->hot == 0 && progress > 6554)
            self->hot = annealer->temperature;
        annealer->critical_percent =
            progress < 32768 ? annealer->params.critical_percent : annealer->params.late_percent;
        int64_t left = cpga_min(self->cycle_length - done, horizon - annealer->evaluations);
        cpga_annealer_visit(annealer, target_share(self, progress), left);
    }
}
