#include "sets.h"

#include "status.h"

#include <stdlib.h>
#include <string.h>

/* True if every member of a set can run on the device. */
static int all_can_run(const cpga_sets *self, int32_t num_devices, const int64_t *exec_ns,
                       int32_t set, int32_t device) {
    for (int32_t i = self->begin[set]; i < self->begin[set + 1]; i++) {
        if (exec_ns[(int64_t)self->members[i] * num_devices + device] == CPGA_CANNOT_RUN)
            return 0;
    }
    return 1;
}

static int fill_members(cpga_sets *self, int32_t num_tasks, const int64_t *label) {
    int32_t num_sets = self->num_sets;
    for (int32_t task = 0; task < num_tasks; task++) {
        if (label[task] < 0 || label[task] >= num_sets)
            return CPGA_ERR_SET;
        self->of_task[task] = (int32_t)label[task];
        self->begin[label[task] + 1]++;
    }
    for (int32_t set = 0; set < num_sets; set++) {
        if (self->begin[set + 1] == 0)
            return CPGA_ERR_SET;
        self->begin[set + 1] += self->begin[set];
    }
    for (int32_t task = 0; task < num_tasks; task++)
        self->members[self->begin[self->of_task[task]]++] = task;
    for (int32_t set = num_sets; set > 0; set--)
        self->begin[set] = self->begin[set - 1];
    self->begin[0] = 0;
    return CPGA_OK;
}

static int fill_choices(cpga_sets *self, int32_t num_devices, const int64_t *exec_ns) {
    int32_t filled = 0;
    for (int32_t set = 0; set < self->num_sets; set++) {
        for (int32_t device = 0; device < num_devices; device++) {
            if (all_can_run(self, num_devices, exec_ns, set, device))
                self->choices[filled++] = device;
        }
        if (filled == self->choice_begin[set])
            return CPGA_ERR_NO_DEVICE;
        self->choice_begin[set + 1] = filled;
    }
    return CPGA_OK;
}

int cpga_sets_init(cpga_sets *self, int32_t num_tasks, int32_t num_devices, const int64_t *exec_ns,
                   int32_t num_sets, const int64_t *label) {
    int64_t tasks = num_tasks;
    memset(self, 0, sizeof *self);
    if (num_sets < 0 || num_sets > tasks || (int64_t)num_sets * num_devices > INT32_MAX)
        return CPGA_ERR_SET;
    self->num_sets = num_sets;
    self->of_task = cpga_calloc(tasks, (int64_t)sizeof(int32_t));
    self->members = cpga_calloc(tasks, (int64_t)sizeof(int32_t));
    self->begin = cpga_calloc(num_sets + 1, (int64_t)sizeof(int32_t));
    self->choice_begin = cpga_calloc(num_sets + 1, (int64_t)sizeof(int32_t));
    self->choices = cpga_calloc((int64_t)num_sets * num_devices, (int64_t)sizeof(int32_t));
    int status = CPGA_ERR_MEMORY;
    if (self->of_task != NULL && self->members != NULL && self->begin != NULL &&
        self->choice_begin != NULL && self->choices != NULL)
        status = fill_members(self, num_tasks, label);
    if (status == CPGA_OK)
        status = fill_choices(self, num_devices, exec_ns);
    if (status != CPGA_OK)
        cpga_sets_free(self);
    return status;
}

void cpga_sets_free(cpga_sets *self) {
    free(self->of_task);
    free(self->members);
    free(self->begin);
    free(self->choice_begin);
    free(self->choices);
    memset(self, 0, sizeof *self);
}
