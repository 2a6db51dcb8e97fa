#include "lanes_state.h"

/* Parts of a loop for each worker, at least and at most: more let a fast one take over from a slow
 * one, and are dealt out more exactly. */
enum { LEAST_PARTS = 8, MOST_PARTS_EACH = 16 };
/* Of a loop; counts of them have 16 bits. */
enum { MOST_PARTS = 0xFFFF };

/* The first of a member's parts, and the end of those of the member before. */
static int64_t first_part(const team *team, int64_t num_parts, int32_t member) {
    int64_t all = team->before[team->num_helpers + 1];
    return (2 * num_parts * team->before[member] + all) / (2 * all);
}

/* How much longer the last member takes than all would if parts could be of any size, in permille.
 */
static int64_t imbalance(const team *team, int64_t num_parts) {
    int64_t all = team->before[team->num_helpers + 1], worst = 0;
    for (int32_t i = 0; i <= (int32_t)team->num_helpers; i++) {
        int64_t own = first_part(team, num_parts, i + 1) - first_part(team, num_parts, i);
        int64_t time = 1000 * own * all / (team->speeds[i] * num_parts);
        if (time > worst)
            worst = time;
    }
    return worst;
}

void lanes_deal(team *team, int32_t size, const int32_t *speeds) {
    team->speeds = speeds;
    for (int32_t i = 0; i < size; i++)
        team->before[i + 1] = team->before[i] + speeds[i];
    team->most_parts = size * LEAST_PARTS;
    for (int parts = team->most_parts; parts <= size * MOST_PARTS_EACH; parts++)
        if (imbalance(team, parts) < imbalance(team, team->most_parts))
            team->most_parts = parts;
}

/* Whether the owner of parts, `left` of which nobody has begun, ends later without this member's
 * help. The leader helps in any case: it may be the only one who is there. */
static int is_worth_helping(const team *team, int32_t member, int32_t owner, uint32_t left) {
    return member == 0 || member == owner ||
           2 * (int64_t)team->speeds[owner] <
               (int64_t)team->speeds[member] * (2 * (int64_t)left + 1);
}

/* Take one of the owner's parts, its first or, for another member, its last; -1 if none is left. */
static int take_part(team *team, int32_t member, int32_t owner) {
    int from_back = member != owner;
    uint32_t begin = (uint32_t)first_part(team, team->num_parts, owner);
    uint32_t end = (uint32_t)first_part(team, team->num_parts, owner + 1);
    uint64_t loop = (uint64_t)team->number << 32, seen = atomic_load(&team->shares[owner].taken);
    uint32_t front, back;
    do {
        uint32_t counts = seen >> 32 == team->number ? (uint32_t)seen : 0;
        front = counts >> 16;
        back = counts & 0xFFFF;
        if (begin + front + back >= end ||
            !is_worth_helping(team, member, owner, end - begin - front - back))
            return -1;
    } while (
        !atomic_compare_exchange_weak(&team->shares[owner].taken, &seen,
                                      loop | (front + !from_back) << 16 | (back + !!from_back)));
    return (int)(from_back ? end - 1 - back : begin + front);
}

static int run_part(worker *self, team *team, int id, lanes_group *group) {
    if (!self->slow_permille)
        return team->part(id, group, team->data);
    int64_t begin = lanes_now_ns();
    int status = team->part(id, group, team->data);
    lanes_slow_down(self, begin, lanes_now_ns() - begin);
    return status;
}

/* Run parts until none is left, or, of parts that need one another, the member's own one. */
static int run_share(worker *self, team *team, int32_t member) {
    lanes_group group = {.sync_handle = team, .num_task = team->num_parts};
    int32_t size = (int32_t)team->num_helpers + 1;
    int status = 0;
    self->in_part++;
    if (team->together)
        status = run_part(self, team, member, &group);
    else
        for (int32_t i = 0; i < size; i++)
            for (int id; status == 0 && (id = take_part(team, member, (member + i) % size)) >= 0;)
                status = run_part(self, team, id, &group);
    self->in_part--;
    return status;
}

static void help_inside(worker *self, const lanes_entry *entry, team *team) {
    uint32_t *last = &self->last[entry->team];
    if (*last == team->number)
        return;
    *last = team->number;
    lanes_delay(self);
    if (run_share(self, team, entry->member) != 0) {
        atomic_store(&team->part_failed, 1);
        lanes_fail(self->lanes, team->step);
    }
    if (team->together)
        lanes_signal_add(&team->joined);
}

void lanes_help(worker *self, const lanes_entry *entry) {
    team *team = &self->lanes->teams[entry->team];
    uint32_t target = ++self->helped[entry->team];
    for (;;) {
        uint32_t epoch = atomic_load(&team->epoch.value);
        if (lanes_reached(atomic_load(&team->steps_ended), target))
            return;
        if (!(atomic_fetch_add(&team->gate.value, 1) & LANES_CLOSED))
            help_inside(self, entry, team);
        lanes_signal_subtract(&team->gate);
        lanes_signal_wait(&team->epoch, epoch + 1, self->lanes->wait_spin_ns);
    }
}

void lanes_end_step(team *team) {
    atomic_fetch_add(&team->steps_ended, 1);
    lanes_signal_add(&team->epoch);
}

/* Run a loop on the calling thread alone. */
static int run_alone(lanes_part part, void *data, int num_parts) {
    lanes_group group = {.sync_handle = NULL, .num_task = num_parts};
    int status = 0;
    for (int id = 0; id < num_parts && status == 0; id++)
        status = part(id, &group, data);
    return status;
}

static int launch(lanes_part part, void *data, int num_parts, int together) {
    worker *self = lanes_current;
    team *team = self && !self->in_part ? self->leading : NULL;
    if (!team)
        return run_alone(part, data, num_parts > 0 && !together ? num_parts : 1);
    int64_t spin_ns = self->lanes->wait_spin_ns;
    int64_t begin = self->slow_permille ? lanes_now_ns() : 0;
    int size = (int)team->num_helpers + 1;
    /* The gate is closed and nobody is inside. */
    team->number++;
    team->num_joint += together != 0;
    team->part = part;
    team->data = data;
    team->num_parts = together ? size : num_parts > 0 ? num_parts : team->most_parts;
    if (team->num_parts > MOST_PARTS)
        team->num_parts = MOST_PARTS; /* each takes more, by group.num_task */
    team->together = together;
    atomic_fetch_and(&team->gate.value, ~LANES_CLOSED);
    lanes_signal_add(&team->epoch);
    int status = run_share(self, team, 0);
    if (together)
        lanes_signal_wait(&team->joined, team->num_joint * team->num_helpers, spin_ns);
    atomic_fetch_or(&team->gate.value, LANES_CLOSED);
    lanes_signal_wait_equal(&team->gate, LANES_CLOSED, spin_ns);
    if (self->slow_permille)
        self->shared_ns += lanes_now_ns() - begin;
    return status != 0 || atomic_exchange(&team->part_failed, 0) ? -1 : 0;
}

int lanes_parallel_launch(lanes_part part, void *data, int num_task) {
    return launch(part, data, num_task, 0);
}

int lanes_parallel_launch_together(lanes_part part, void *data, int num_task) {
    (void)num_task;
    return launch(part, data, 0, 1);
}

int lanes_parallel_barrier(int task_id, lanes_group *group) {
    (void)task_id;
    team *team = group->sync_handle;
    if (!team || group->num_task <= 1)
        return 0;
    uint32_t generation = atomic_load(&team->barrier.value);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == (uint32_t)group->num_task) {
        atomic_store(&team->arrived, 0);
        lanes_signal_add(&team->barrier);
    } else {
        lanes_signal_wait(&team->barrier, generation + 1, lanes_current->lanes->wait_spin_ns);
    }
    return 0;
}
