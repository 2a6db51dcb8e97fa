#include "moves.h"

#include <stdlib.h>
#include <string.h>

int cpga_move_init(cpga_move *self, const cpga_problem *problem) {
    memset(self, 0, sizeof *self);
    self->moved = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->moved);
    self->old_device = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->old_device);
    self->mark = cpga_calloc(problem->num_tasks, (int64_t)sizeof *self->mark);
    if (self->moved == NULL || self->old_device == NULL || self->mark == NULL) {
        cpga_move_free(self);
        return CPGA_ERR_MEMORY;
    }
    return CPGA_OK;
}

void cpga_move_free(cpga_move *self) {
    free(self->moved);
    free(self->old_device);
    free(self->mark);
    memset(self, 0, sizeof *self);
}

void cpga_move_undo(const cpga_move *self, cpga_paths *plan) {
    for (int32_t i = 0; i < self->num_moved; i++)
        plan->device[self->moved[i]] = self->old_device[i];
}

void cpga_move_stamp(cpga_move *self, const cpga_problem *problem) {
    if (self->stamp == INT32_MAX) {
        memset(self->mark, 0, (size_t)problem->num_tasks * sizeof *self->mark);
        self->stamp = 0;
    }
    self->stamp++;
}

static int can_take(const cpga_problem *problem, int32_t set, int32_t device) {
    const cpga_sets *sets = &problem->sets;
    for (int32_t i = sets->choice_begin[set]; i < sets->choice_begin[set + 1]; i++) {
        if (sets->choices[i] == device)
            return 1;
    }
    return 0;
}

/* True if all tasks of a set lie where changes can be made now. */
static int in_focus(const cpga_paths *plan, int32_t set) {
    const cpga_sets *sets = &plan->problem->sets;
    for (int32_t i = sets->begin[set]; i < sets->begin[set + 1]; i++) {
        int32_t place = plan->position[sets->members[i]];
        if (place < plan->begin || place > plan->end)
            return 0;
    }
    return 1;
}

/* Write a new device for all tasks of a set, and widen the window to hold them. */
static void move_set(cpga_move *self, cpga_paths *plan, int32_t set, int32_t device) {
    const cpga_sets *sets = &plan->problem->sets;
    for (int32_t i = sets->begin[set]; i < sets->begin[set + 1]; i++) {
        int32_t task = sets->members[i], p = plan->position[task];
        self->mark[task] = self->stamp;
        if (plan->device[task] == device)
            continue;
        self->moved[self->num_moved] = task;
        self->old_device[self->num_moved++] = plan->device[task];
        plan->device[task] = device;
        self->first = cpga_imin(self->first, p);
        self->last = cpga_imax(self->last, p);
    }
}

static void copy_window(const cpga_move *self, cpga_paths *plan) {
    memcpy(plan->window, plan->order + self->first,
           (size_t)(self->last - self->first + 1) * sizeof *plan->window);
}

int32_t cpga_draw_neighbour(const cpga_problem *problem, cpga_rng *rng, int32_t task) {
    int32_t preds = problem->pred_begin[task + 1] - problem->pred_begin[task];
    int32_t succs = problem->succ_begin[task + 1] - problem->succ_begin[task];
    if (preds + succs == 0)
        return -1;
    int32_t k = cpga_rng_index(rng, preds + succs);
    return k < preds ? problem->pred[problem->pred_begin[task] + k].task
                     : problem->succ[problem->succ_begin[task] + k - preds].task;
}

/* Grow a connected block of tasks, and move it as one: at high communication cost no task pays for
 * moving alone. It is grown on the device of `task`, or gathered from all devices. */
static int draw_block(cpga_move *self, cpga_paths *plan, const cpga_move_params *params,
                      cpga_rng *rng, int32_t task, int32_t to) {
    const cpga_sets *sets = &plan->problem->sets;
    int32_t own = plan->device[task];
    int gather = cpga_rng_index(rng, 100) < params->gather_percent;
    int32_t bits = 1 + cpga_rng_index(rng, params->max_block_bits);
    int32_t size = 2 + cpga_rng_index(rng, 1 << bits);
    move_set(self, plan, sets->of_task[task], to);
    for (int32_t tries = 0; tries < 3 * size && self->num_moved < size; tries++) {
        int32_t from = self->moved[cpga_rng_index(rng, self->num_moved)];
        int32_t next = cpga_draw_neighbour(plan->problem, rng, from);
        if (next == -1)
            break;
        if (self->mark[next] != self->stamp && plan->device[next] != to &&
            (gather || plan->device[next] == own) &&
            can_take(plan->problem, sets->of_task[next], to) && in_focus(plan, sets->of_task[next]))
            move_set(self, plan, sets->of_task[next], to);
    }
    copy_window(self, plan);
    return 1;
}

/* The places that a task can take in the order, given all others. */
static void free_places(const cpga_paths *plan, int32_t task, int32_t *lowest, int32_t *highest) {
    const cpga_problem *problem = plan->problem;
    *lowest = plan->begin;
    *highest = plan->end;
    for (int32_t i = problem->pred_begin[task]; i < problem->pred_begin[task + 1]; i++)
        *lowest = cpga_imax(*lowest, plan->position[problem->pred[i].task] + 1);
    for (int32_t i = problem->succ_begin[task]; i < problem->succ_begin[task + 1]; i++)
        *highest = cpga_imin(*highest, plan->position[problem->succ[i].task] - 1);
}

/* Move one task to another place of the order, and its set to a device. */
static int draw_place(cpga_move *self, cpga_paths *plan, const cpga_move_params *params,
                      cpga_rng *rng, int32_t task, int32_t to) {
    const cpga_sets *sets = &plan->problem->sets;
    int32_t at = plan->position[task], lowest, highest;
    int32_t span = 2 << cpga_rng_index(rng, params->max_span_bits);
    free_places(plan, task, &lowest, &highest);
    lowest = cpga_imax(lowest, at - span);
    highest = cpga_imin(highest, at + span);
    int32_t place = lowest + cpga_rng_index(rng, highest - lowest + 1);
    if (place == at && to == plan->device[task])
        return 0;
    self->first = cpga_imin(at, place);
    self->last = cpga_imax(at, place);
    if (to != plan->device[task])
        move_set(self, plan, sets->of_task[task], to);
    copy_window(self, plan);
    int32_t *window = plan->window - self->first;
    size_t distance = (size_t)(at > place ? at - place : place - at);
    if (place < at)
        memmove(window + place + 1, window + place, distance * sizeof *window);
    else
        memmove(window + at, window + at + 1, distance * sizeof *window);
    window[place] = task;
    plan->moved = place == at ? -1 : task;
    return 1;
}

/* Exchange the devices of a task and of one near it in the order. */
static int draw_swap(cpga_move *self, cpga_paths *plan, const cpga_move_params *params,
                     cpga_rng *rng, int32_t task) {
    const cpga_sets *sets = &plan->problem->sets;
    int32_t at = plan->position[task], span = 2 << cpga_rng_index(rng, params->max_span_bits);
    int32_t lowest = cpga_imax(plan->begin, at - span);
    int32_t highest = cpga_imin(plan->end, at + span);
    int32_t other = plan->order[lowest + cpga_rng_index(rng, highest - lowest + 1)];
    int32_t here = plan->device[task], there = plan->device[other];
    int32_t set = sets->of_task[task], other_set = sets->of_task[other];
    if (here == there || set == other_set || !in_focus(plan, other_set) ||
        !can_take(plan->problem, set, there) || !can_take(plan->problem, other_set, here))
        return 0;
    move_set(self, plan, set, there);
    move_set(self, plan, other_set, here);
    copy_window(self, plan);
    return 1;
}

int cpga_move_draw(cpga_move *self, cpga_paths *plan, const cpga_move_params *params, cpga_rng *rng,
                   int32_t task) {
    const cpga_sets *sets = &plan->problem->sets;
    int32_t set = sets->of_task[task];
    int32_t begin = sets->choice_begin[set];
    int32_t choices = sets->choice_begin[set + 1] - begin;
    int32_t kind = cpga_rng_index(rng, 100);
    cpga_move_stamp(self, plan->problem);
    self->num_moved = 0;
    plan->moved = -1;
    self->first = self->last = plan->position[task];
    if (!in_focus(plan, set))
        return 0;
    if (kind < params->swap_percent)
        return draw_swap(self, plan, params, rng, task);
    int32_t to = sets->choices[begin + cpga_rng_index(rng, choices)];
    kind -= params->swap_percent;
    if (kind < params->block_percent && to != plan->device[task])
        return draw_block(self, plan, params, rng, task, to);
    if (kind & 1)
        to = plan->device[task];
    return draw_place(self, plan, params, rng, task, to);
}
