#include "windows.h"

/* List the tasks that have one device left and take time there; their number. */
static int32_t list_placed(cpga_propagation *self, const cpga_windows *windows) {
    int32_t devices = self->problem->num_devices, tasks = self->part.end - self->part.begin;
    int32_t count = 0;
    for (int32_t task = 0; task < tasks; task++) {
        int32_t left = 0, last = 0;
        for (int32_t on = 0; on < devices; on++) {
            if (windows->can[(int64_t)task * devices + on]) {
                left++;
                last = on;
            }
        }
        self->device[task] = last;
        if (left == 1 && cpga_exec(self->problem, task + self->part.begin, last) > 0)
            self->placed[count++] = task;
    }
    self->work -= (int64_t)tasks * devices + 2 * (int64_t)count * count;
    return count;
}

static int is_apart(const cpga_propagation *self, int32_t first, int32_t second) {
    return !self->shares[(int64_t)self->device[first] * self->problem->num_devices +
                         self->device[second]];
}

/* What would be left of the limit if one placed task ran right before another one. */
static int64_t slack_of(const cpga_propagation *self, const cpga_windows *windows, int32_t first,
                        int32_t second) {
    int32_t devices = self->problem->num_devices;
    int32_t on = self->device[first], other = self->device[second];
    return self->limit - windows->head[(int64_t)first * devices + on] -
           cpga_exec(self->problem, first + self->part.begin, on) -
           cpga_exec(self->problem, second + self->part.begin, other) -
           windows->tail[(int64_t)second * devices + other];
}

/* Let one placed task wait for another one; whether that changes anything. */
static int let_wait(const cpga_propagation *self, cpga_windows *windows, int32_t first,
                    int32_t second) {
    int32_t devices = self->problem->num_devices;
    int32_t on = self->device[first], other = self->device[second];
    int64_t *head = &windows->head[(int64_t)second * devices + other];
    int64_t *tail = &windows->tail[(int64_t)first * devices + on];
    int64_t soonest = windows->head[(int64_t)first * devices + on] +
                      cpga_exec(self->problem, first + self->part.begin, on);
    int64_t rest = windows->tail[(int64_t)second * devices + other] +
                   cpga_exec(self->problem, second + self->part.begin, other);
    int changed = soonest > *head || rest > *tail;
    *head = cpga_max(*head, soonest);
    *tail = cpga_max(*tail, rest);
    return changed;
}

int cpga_follow_orders(cpga_propagation *self, cpga_windows *windows) {
    int32_t tasks = self->part.end - self->part.begin;
    int32_t count = cpga_order_words(tasks) > 0 ? list_placed(self, windows) : 0;
    int changed = 0;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t k = i + 1; k < count; k++) {
            int32_t a = self->placed[i], b = self->placed[k];
            if (is_apart(self, a, b))
                continue;
            int forth = cpga_is_before(windows, tasks, a, b);
            int back = cpga_is_before(windows, tasks, b, a);
            if (!forth && !back) {
                forth = slack_of(self, windows, b, a) < 0;
                back = slack_of(self, windows, a, b) < 0;
                if (forth)
                    cpga_set_before(windows, tasks, a, b);
                if (back)
                    cpga_set_before(windows, tasks, b, a);
            }
            if (forth && back)
                return -1;
            if (forth)
                changed |= let_wait(self, windows, a, b);
            if (back)
                changed |= let_wait(self, windows, b, a);
        }
    }
    return changed;
}

int cpga_choose_pair(cpga_propagation *self, const cpga_windows *windows, int32_t *first,
                     int32_t *second) {
    int32_t tasks = self->part.end - self->part.begin;
    int32_t count = cpga_order_words(tasks) > 0 ? list_placed(self, windows) : 0;
    int64_t least = INT64_MAX;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t k = i + 1; k < count; k++) {
            int32_t a = self->placed[i], b = self->placed[k];
            if (is_apart(self, a, b) || cpga_is_before(windows, tasks, a, b) ||
                cpga_is_before(windows, tasks, b, a))
                continue;
            int64_t forth = slack_of(self, windows, a, b), back = slack_of(self, windows, b, a);
            if (cpga_min(forth, back) >= least)
                continue;
            least = cpga_min(forth, back);
            *first = forth >= back ? a : b;
            *second = forth >= back ? b : a;
        }
    }
    return least < INT64_MAX;
}
