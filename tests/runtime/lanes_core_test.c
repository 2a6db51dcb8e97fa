/* Tests the lanes without TVM or Python, under sanitizers; test_lanes_core.py builds and runs it.
 *
 * Every step checks that what it has to come after has ended, by plain, unsynchronised memory: a
 * missing hand-over is a wrong value, and under the thread sanitizer a reported race.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lanes_core.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition);               \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { MOST_STEPS = 64, MOST_WORKERS = 4, MOST_TEAMS = 3, PARTS_PER_STEP = 3, MOST_PARTS = 64 };

/* A random program with everything that it points to, and the values that its steps compute. */
typedef struct {
    lanes_program program;
    int32_t cores[MOST_WORKERS], team_sizes[MOST_TEAMS], counts[MOST_WORKERS];
    int32_t members[MOST_TEAMS][MOST_WORKERS], *teams[MOST_TEAMS];
    int32_t each_speed[MOST_TEAMS][MOST_WORKERS], *speeds[MOST_TEAMS];
    lanes_entry entries[MOST_WORKERS][MOST_STEPS], *lists[MOST_WORKERS];
    lanes_wait waits[MOST_STEPS][2 * MOST_WORKERS];
    int32_t team_of[MOST_STEPS], leader[MOST_STEPS], place[MOST_STEPS];
    int32_t num_sources[MOST_STEPS], sources[MOST_STEPS][2];
    int64_t value[MOST_STEPS], expected[MOST_STEPS], shares[MOST_STEPS][MOST_WORKERS];
    int64_t loose[MOST_STEPS][MOST_PARTS];
    int64_t input;
    int failing_step, failing_part; /* -1: none */
    int errors, polls_until_stop;
    lanes *lanes;
} scene;

typedef struct {
    scene *scene;
    int32_t step;
    int64_t sum;
} part_data;

static uint64_t rng_state;
static uint32_t draw(uint32_t below) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33) % below;
}

static void add_wait(scene *self, lanes_entry *entry, int32_t step) {
    if (self->leader[step] == self->leader[entry->step])
        return;
    entry->waits[entry->num_waits++] = (lanes_wait){self->leader[step], self->place[step]};
    self->entries[self->leader[step]][self->place[step]].publishes = 1;
}

/* The step joins the list of each of its workers; its leader waits for the step before on each. */
static void place_step(scene *self, int32_t step, int32_t team, int32_t worker) {
    int32_t alone[1] = {worker};
    const int32_t *workers = team < 0 ? alone : self->members[team];
    int32_t size = team < 0 ? 1 : self->team_sizes[team];
    self->team_of[step] = team;
    self->leader[step] = workers[0];
    self->place[step] = self->counts[workers[0]];
    lanes_entry *leading = NULL;
    for (int32_t i = 0; i < size; i++) {
        lanes_entry *entry = &self->entries[workers[i]][self->counts[workers[i]]++];
        *entry = (lanes_entry){.step = step, .team = team, .member = i};
        if (i == 0)
            leading = entry;
    }
    leading->waits = self->waits[step];
    for (int32_t i = 1; i < size; i++)
        if (self->counts[workers[i]] > 1)
            add_wait(self, leading, self->entries[workers[i]][self->counts[workers[i]] - 2].step);
    for (int32_t k = 0; k < self->num_sources[step]; k++)
        add_wait(self, leading, self->sources[step][k]);
}

static scene *make_scene(uint64_t seed) {
    scene *self = calloc(1, sizeof *self);
    rng_state = seed * 2 + 1;
    lanes_program *program = &self->program;
    program->num_workers = 1 + (int32_t)draw(MOST_WORKERS);
    program->num_steps = 1 + (int32_t)draw(MOST_STEPS);
    program->num_teams = program->num_workers > 1 ? (int32_t)draw(MOST_TEAMS + 1) : 0;
    for (int32_t i = 0; i < program->num_teams; i++) {
        int32_t first = (int32_t)draw((uint32_t)program->num_workers);
        self->team_sizes[i] = 2 + (int32_t)draw((uint32_t)program->num_workers - 1);
        for (int32_t k = 0; k < self->team_sizes[i]; k++) {
            self->members[i][k] = (first + k) % program->num_workers;
            self->each_speed[i][k] = draw(3) ? 100 * (1 + (int32_t)draw(10)) : LANES_MOST_SPEED;
        }
        self->teams[i] = self->members[i];
        self->speeds[i] = self->each_speed[i];
    }
    for (int32_t step = 0; step < program->num_steps; step++) {
        self->num_sources[step] = step ? (int32_t)draw(3) : 0;
        for (int32_t k = 0; k < self->num_sources[step]; k++)
            self->sources[step][k] = (int32_t)draw((uint32_t)step);
        int32_t team = (int32_t)draw((uint32_t)program->num_teams + 2) - 2;
        place_step(self, step, team < 0 ? -1 : team, (int32_t)draw((uint32_t)program->num_workers));
    }
    for (int32_t i = 0; i < program->num_workers; i++) {
        self->cores[i] = -1;
        self->lists[i] = self->entries[i];
    }
    program->cores = self->cores;
    program->team_sizes = self->team_sizes;
    program->teams = self->teams;
    program->speeds = self->speeds;
    program->num_entries = self->counts;
    program->entries = self->lists;
    self->failing_step = self->failing_part = -1;
    return self;
}

static int run_part(int id, lanes_group *group, void *argument) {
    part_data *data = argument;
    scene *self = data->scene;
    if (self->failing_step == data->step && self->failing_part == id)
        return -1;
    self->shares[data->step][id] = data->sum + id;
    if (lanes_parallel_barrier(id, group) != 0)
        return -1;
    /* After the barrier every part sees the shares of all. */
    int64_t sum = 0;
    for (int i = 0; i < group->num_task; i++)
        sum += self->shares[data->step][i] - i;
    return sum == data->sum * group->num_task ? 0 : -1;
}

static int run_loose_part(int id, lanes_group *group, void *argument) {
    part_data *data = argument;
    CHECK(id < group->num_task && group->num_task <= MOST_PARTS);
    data->scene->loose[data->step][id] += data->sum + id;
    return 0;
}

static int run_step(void *user, int32_t step) {
    scene *self = user;
    int64_t sum = self->input + step;
    for (int32_t k = 0; k < self->num_sources[step]; k++)
        sum += 3 * self->value[self->sources[step][k]];
    if (self->failing_step == step && self->failing_part < 0)
        return -1;
    if (self->team_of[step] >= 0)
        for (int i = 0; i < PARTS_PER_STEP; i++) {
            part_data data = {self, step, sum + i};
            int num_parts = (step + i) % MOST_PARTS; /* 0 leaves the number open */
            memset(self->loose[step], 0, sizeof self->loose[step]);
            if (lanes_parallel_launch(run_loose_part, &data, num_parts) != 0)
                return -1;
            for (int id = 0; id < num_parts; id++)
                CHECK(self->loose[step][id] == data.sum + id);
            if (lanes_parallel_launch_together(run_part, &data, 0) != 0)
                return -1;
        }
    self->value[step] = sum;
    return 0;
}

static void on_error(void *user, int32_t step) {
    scene *self = user;
    CHECK(step == self->failing_step);
    __atomic_add_fetch(&self->errors, 1, __ATOMIC_SEQ_CST);
}

static int poll_stop(void *user) {
    scene *self = user;
    return self->polls_until_stop > 0 && --self->polls_until_stop == 0;
}

static void start(scene *self) {
    lanes_hooks hooks = {
        .user = self, .run_step = run_step, .on_error = on_error, .poll = poll_stop};
    CHECK(lanes_alloc(&self->program, &hooks, &self->lanes) == LANES_OK);
    if (draw(4) == 0)
        lanes_set_slowdown(self->lanes, (int32_t)draw((uint32_t)self->program.num_workers), 2500);
}

static void end(scene *self) {
    lanes_free(self->lanes);
    free(self);
}

static int run(scene *self, int64_t input) {
    self->input = input;
    memset(self->value, 0, sizeof self->value);
    return lanes_run(self->lanes, &(lanes_run_options){0});
}

static void check_values(const scene *self) {
    int64_t expected[MOST_STEPS];
    for (int32_t step = 0; step < self->program.num_steps; step++) {
        expected[step] = self->input + step;
        for (int32_t k = 0; k < self->num_sources[step]; k++)
            expected[step] += 3 * expected[self->sources[step][k]];
        CHECK(self->value[step] == expected[step]);
    }
}

static void test_random_programs(int num_programs, int num_runs) {
    for (int seed = 0; seed < num_programs; seed++) {
        scene *self = make_scene((uint64_t)seed);
        start(self);
        lanes_set_spin(self->lanes, seed % 3 ? 20000 : 0, seed % 2 ? 1000 : 0);
        if (seed % 4 == 0)
            lanes_set_delays(self->lanes, (uint64_t)seed, 50000);
        for (int i = 0; i < (seed % 4 ? num_runs : num_runs / 20 + 1); i++) {
            CHECK(run(self, i) == LANES_OK);
            check_values(self);
        }
        end(self);
    }
}

static void test_errors(int num_programs) {
    for (int seed = 0; seed < num_programs; seed++) {
        scene *self = make_scene((uint64_t)seed);
        start(self);
        self->failing_step = (int)draw((uint32_t)self->program.num_steps);
        int32_t team = self->team_of[self->failing_step];
        if (team >= 0 && seed % 2)
            self->failing_part = -1; /* a part that fails at a barrier would hang it */
        CHECK(run(self, 1) == LANES_TASK_FAILED);
        CHECK(self->errors >= 1);
        self->failing_step = -1;
        CHECK(run(self, 2) == LANES_OK);
        check_values(self);
        end(self);
    }
}

static int failing_part(int id, lanes_group *group, void *argument) {
    (void)group;
    return *(int *)argument == id ? -1 : 0;
}

static int run_failing_part(void *user, int32_t step) {
    scene *self = user;
    (void)step;
    return lanes_parallel_launch_together(failing_part, &self->failing_part, 0);
}

/* One step of a team of two. */
static scene *make_team_of_two(void) {
    scene *self = make_scene(0);
    self->program.num_workers = 2;
    self->program.num_teams = 1;
    self->program.num_steps = 1;
    memset(self->counts, 0, sizeof self->counts);
    self->team_sizes[0] = 2;
    self->members[0][0] = 0;
    self->members[0][1] = 1;
    self->teams[0] = self->members[0];
    self->each_speed[0][0] = self->each_speed[0][1] = 1000;
    self->speeds[0] = self->each_speed[0];
    self->num_sources[0] = 0;
    place_step(self, 0, 0, 0);
    return self;
}

static void test_failing_part(void) {
    scene *self = make_team_of_two();
    lanes_hooks hooks = {.user = self, .run_step = run_failing_part, .on_error = on_error};
    CHECK(lanes_alloc(&self->program, &hooks, &self->lanes) == LANES_OK);
    for (int part = -1; part < 2; part++) {
        self->failing_part = part;
        self->failing_step = 0;
        CHECK(lanes_run(self->lanes, &(lanes_run_options){0}) ==
              (part < 0 ? LANES_OK : LANES_TASK_FAILED));
    }
    end(self);
}

static int count_part(int id, lanes_group *group, void *argument) {
    CHECK(id < group->num_task);
    __atomic_add_fetch((int64_t *)argument, group->num_task, __ATOMIC_SEQ_CST);
    return 0;
}

/* More parts than the counts of a member's have bits for: all of the loop is done, in fewer. */
static int run_many_parts(void *user, int32_t step) {
    (void)user;
    (void)step;
    for (int64_t wanted = 1000; wanted <= 100000; wanted *= 10) {
        int64_t sum = 0, parts = wanted < 0xFFFF ? wanted : 0xFFFF;
        if (lanes_parallel_launch(count_part, &sum, (int)wanted) != 0)
            return -1;
        CHECK(sum == parts * parts);
    }
    return 0;
}

static void test_many_parts(void) {
    scene *self = make_team_of_two();
    lanes_hooks hooks = {.user = self, .run_step = run_many_parts, .on_error = on_error};
    CHECK(lanes_alloc(&self->program, &hooks, &self->lanes) == LANES_OK);
    CHECK(lanes_run(self->lanes, &(lanes_run_options){0}) == LANES_OK);
    end(self);
}

typedef struct {
    int64_t begin_ns, ran[MOST_PARTS]; /* number of parts, as each part sees it */
} dealt;

static int note_part(int id, lanes_group *group, void *argument) {
    dealt *self = argument;
    self->ran[id] += group->num_task;
    return 0;
}

static int run_dealt(void *user, int32_t step) {
    dealt *self = user;
    (void)step;
    memset(self, 0, sizeof *self);
    self->begin_ns = lanes_now_ns();
    return lanes_parallel_launch(note_part, self, 0);
}

/* A loop has as many parts as can be dealt out in the members' proportion; each runs once, however
 * fast the members really are. */
static void test_dealing(void) {
    static const int32_t speeds[][3] = {
        {1000, 1000, 16}, {1000, 400, 21}, {500, 1000, 18}, {LANES_MOST_SPEED, 1, 16}};
    for (int i = 0; i < 8; i++) {
        scene *self = make_team_of_two();
        dealt found;
        memcpy(self->each_speed[0], speeds[i / 2], 2 * sizeof **speeds);
        lanes_hooks hooks = {.user = &found, .run_step = run_dealt, .on_error = on_error};
        CHECK(lanes_alloc(&self->program, &hooks, &self->lanes) == LANES_OK);
        lanes_set_slowdown(self->lanes, i % 2, 20000);
        for (int k = 0; k < 20; k++) {
            CHECK(lanes_run(self->lanes, &(lanes_run_options){0}) == LANES_OK);
            for (int id = 0; id < MOST_PARTS; id++)
                CHECK(found.ran[id] == (id < speeds[i / 2][2] ? speeds[i / 2][2] : 0));
        }
        end(self);
    }
}

/* What a slowed worker runs takes so many times as long, in loops of its team and outside. */
static void test_slowdown(void) {
    scene *self = make_team_of_two();
    dealt found;
    lanes_hooks hooks = {.user = &found, .run_step = run_dealt, .on_error = on_error};
    CHECK(lanes_alloc(&self->program, &hooks, &self->lanes) == LANES_OK);
    lanes_set_slowdown(self->lanes, 0, 1000000);
    int64_t stamps[2];
    CHECK(lanes_run(self->lanes, &(lanes_run_options){.stamps = stamps}) == LANES_OK);
    CHECK(stamps[0] <= found.begin_ns &&
          stamps[1] - stamps[0] > 1000 * (found.begin_ns - stamps[0]));
    end(self);
}

static int sleep_step(void *user, int32_t step) {
    (void)user;
    (void)step;
    nanosleep(&(struct timespec){.tv_nsec = 150000000}, NULL);
    return 0;
}

static void test_stop(void) {
    scene *self = make_scene(5);
    lanes_hooks hooks = {
        .user = self, .run_step = sleep_step, .on_error = on_error, .poll = poll_stop};
    CHECK(lanes_alloc(&self->program, &hooks, &self->lanes) == LANES_OK);
    self->polls_until_stop = 1;
    int64_t begin = lanes_now_ns();
    CHECK(lanes_run(self->lanes, &(lanes_run_options){0}) == LANES_STOPPED);
    CHECK(lanes_now_ns() - begin < 2000000000); /* the steps that had not begun were skipped */
    end(self);
}

static void *run_many(void *argument) {
    for (int i = 0; i < 50; i++)
        CHECK(lanes_run(argument, &(lanes_run_options){0}) == LANES_OK);
    return NULL;
}

static void test_callers_take_turns(void) {
    scene *self = make_scene(7);
    start(self);
    pthread_t callers[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&callers[i], NULL, run_many, self->lanes);
    for (int i = 0; i < 4; i++)
        pthread_join(callers[i], NULL);
    check_values(self);
    end(self);
}

static void test_trace(void) {
    scene *self = make_scene(11);
    start(self);
    int64_t stamps[MOST_STEPS][2] = {{0}};
    CHECK(lanes_run(self->lanes, &(lanes_run_options){.stamps = &stamps[0][0]}) == LANES_OK);
    for (int32_t step = 0; step < self->program.num_steps; step++) {
        CHECK(stamps[step][0] > 0 && stamps[step][0] <= stamps[step][1]);
        for (int32_t k = 0; k < self->num_sources[step]; k++)
            CHECK(stamps[self->sources[step][k]][1] <= stamps[step][0]);
    }
    end(self);
}

static void test_fork(void) {
    scene *self = make_scene(13);
    start(self);
    CHECK(run(self, 1) == LANES_OK);
    pid_t child = fork();
    if (child == 0) {
        if (run(self, 2) != LANES_OK)
            _exit(2);
        check_values(self);
        lanes_free(self->lanes);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(run(self, 3) == LANES_OK);
    check_values(self);
    end(self);
}

static void test_bad_programs(void) {
    lanes *made = NULL;
    lanes_hooks hooks = {.run_step = run_step, .on_error = on_error};
    for (int fault = 0; fault < 5; fault++) {
        scene *self = make_scene(3);
        lanes_entry *entry = &self->entries[self->leader[0]][self->place[0]];
        lanes_wait wait = {0, 0};
        if (fault == 0)
            entry->step = self->program.num_steps;
        if (fault == 1)
            entry->team = self->program.num_teams;
        if (fault == 2)
            entry->member = 9;
        if (fault == 3)
            wait.worker = self->program.num_workers;
        if (fault == 4)
            wait.position = MOST_STEPS;
        if (fault >= 3) {
            entry->num_waits = 1;
            entry->waits = &wait;
        }
        CHECK(lanes_alloc(&self->program, &hooks, &made) == LANES_BAD_PROGRAM && made == NULL);
        free(self);
    }
    static const int32_t bad_speeds[] = {0, -1, LANES_MOST_SPEED + 1};
    for (int i = 0; i < 3; i++) {
        scene *self = make_team_of_two();
        self->each_speed[0][1] = bad_speeds[i];
        CHECK(lanes_alloc(&self->program, &hooks, &made) == LANES_BAD_PROGRAM && made == NULL);
        free(self);
    }
}

int main(int argc, char **argv) {
    int scale = argc > 1 ? atoi(argv[1]) : 1;
    test_bad_programs();
    test_random_programs(12 * scale, 40);
    test_errors(12 * scale);
    test_failing_part();
    test_many_parts();
    test_dealing();
    test_slowdown();
    test_stop();
    test_callers_take_turns();
    test_trace();
    if (argc > 2)
        test_fork(); /* the thread sanitizer does not follow threads into a child */
    puts("ok");
    return 0;
}
