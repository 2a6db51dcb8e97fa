#include "problem.h"

#include <stdlib.h>
#include <string.h>

/* True if every member of a set can run on the device. */
static int all_can_run(const cpga_units *self, const cpga_problem *problem, int32_t unit,
                       int32_t device) {
    for (int32_t i = self->begin[unit]; i < self->begin[unit + 1]; i++) {
        if (cpga_exec(problem, self->members[i], device) == CPGA_CANNOT_RUN)
            return 0;
    }
    return 1;
}

static int fill_members(cpga_units *self, const cpga_problem *problem, const int64_t *label) {
    int32_t num_units = self->num_units;
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        if (label[task] < 0 || label[task] >= num_units)
            return CPGA_ERR_UNIT;
        self->of_task[task] = (int32_t)label[task];
        self->begin[label[task] + 1]++;
    }
    for (int32_t unit = 0; unit < num_units; unit++) {
        if (self->begin[unit + 1] == 0)
            return CPGA_ERR_UNIT;
        self->begin[unit + 1] += self->begin[unit];
    }
    for (int32_t task = 0; task < problem->num_tasks; task++)
        self->members[self->begin[self->of_task[task]]++] = task;
    for (int32_t unit = num_units; unit > 0; unit--)
        self->begin[unit] = self->begin[unit - 1];
    self->begin[0] = 0;
    return CPGA_OK;
}

static int fill_choices(cpga_units *self, const cpga_problem *problem) {
    int32_t filled = 0;
    for (int32_t unit = 0; unit < self->num_units; unit++) {
        for (int32_t device = 0; device < problem->num_devices; device++) {
            if (all_can_run(self, problem, unit, device))
                self->choices[filled++] = device;
        }
        if (filled == self->choice_begin[unit])
            return CPGA_ERR_NO_DEVICE;
        self->choice_begin[unit + 1] = filled;
    }
    return CPGA_OK;
}

int cpga_units_init(cpga_units *self, const cpga_problem *problem, int32_t num_units,
                    const int64_t *label) {
    int64_t tasks = problem->num_tasks;
    memset(self, 0, sizeof *self);
    if (num_units < 0 || num_units > tasks || (int64_t)num_units * problem->num_devices > INT32_MAX)
        return CPGA_ERR_UNIT;
    self->num_units = num_units;
    self->of_task = cpga_calloc(tasks, (int64_t)sizeof(int32_t));
    self->members = cpga_calloc(tasks, (int64_t)sizeof(int32_t));
    self->begin = cpga_calloc(num_units + 1, (int64_t)sizeof(int32_t));
    self->choice_begin = cpga_calloc(num_units + 1, (int64_t)sizeof(int32_t));
    self->choices =
        cpga_calloc((int64_t)num_units * problem->num_devices, (int64_t)sizeof(int32_t));
    int status = CPGA_ERR_MEMORY;
    if (self->of_task != NULL && self->members != NULL && self->begin != NULL &&
        self->choice_begin != NULL && self->choices != NULL)
        status = fill_members(self, problem, label);
    if (status == CPGA_OK)
        status = fill_choices(self, problem);
    if (status != CPGA_OK)
        cpga_units_free(self);
    return status;
}

void cpga_units_free(cpga_units *self) {
    free(self->of_task);
    free(self->members);
    free(self->begin);
    free(self->choice_begin);
    free(self->choices);
    memset(self, 0, sizeof *self);
}
