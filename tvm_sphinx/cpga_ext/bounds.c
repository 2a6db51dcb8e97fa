#include "bounds.h"

#include <stdlib.h>
#include <string.h>

/* Steps of the search for resource weights, what they sum to meanwhile, and how they are rounded.
 */
#define WEIGHT_STEPS 80
#define WEIGHT_BITS 30
#define ROUNDED_BITS 10
/* Earliest starts that the combined bound tries. */
#define NUM_HEADS 64

void cpga_heads(const cpga_problem *problem, int64_t *head) {
    int64_t devices = problem->num_devices;
    memcpy(head, problem->release_ns, (size_t)(problem->num_tasks * devices) * sizeof *head);
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        for (int32_t k = problem->pred_begin[task]; k < problem->pred_begin[task + 1]; k++) {
            const cpga_edge *edge = &problem->pred[k];
            for (int32_t on = 0; on < devices; on++)
                head[task * devices + on] =
                    cpga_max(head[task * devices + on],
                             cpga_least_through(problem, edge, head + edge->task * devices, on, 0));
        }
    }
}

void cpga_tails(const cpga_problem *problem, int64_t *tail) {
    int64_t devices = problem->num_devices;
    memcpy(tail, problem->delivery_ns, (size_t)(problem->num_tasks * devices) * sizeof *tail);
    for (int32_t task = problem->num_tasks - 1; task >= 0; task--) {
        for (int32_t k = problem->succ_begin[task]; k < problem->succ_begin[task + 1]; k++) {
            const cpga_edge *edge = &problem->succ[k];
            for (int32_t on = 0; on < devices; on++)
                tail[task * devices + on] =
                    cpga_max(tail[task * devices + on],
                             cpga_least_through(problem, edge, tail + edge->task * devices, on, 1));
        }
    }
}

static int64_t weight_of_device(const cpga_problem *problem, const int64_t *weight, int32_t on) {
    int64_t sum = 0;
    for (int32_t r = problem->resource_begin[on]; r < problem->resource_begin[on + 1]; r++)
        sum += weight[problem->resource[r]];
    return sum;
}

/* Right shift of times after which their sum over all tasks, each by a weight of at most so much,
 * is below 2**62. */
static int32_t shift_for(const cpga_problem *problem, int64_t weight) {
    int32_t shift = 0;
    while ((problem->total_ns >> shift) >= CPGA_MAX_TOTAL_NS / weight)
        shift++;
    return shift;
}

/* Place each task where its weighted time is least; the load of each resource, and their weighted
 * sum. */
static int64_t least_load(const cpga_problem *problem, const int64_t *price, int32_t shift,
                          int64_t *load) {
    int64_t sum = 0;
    memset(load, 0, (size_t)problem->num_resources * sizeof *load);
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        int64_t least = INT64_MAX;
        int32_t best = 0;
        for (int32_t on = 0; on < problem->num_devices; on++) {
            int64_t exec = cpga_exec(problem, task, on);
            if (exec != CPGA_CANNOT_RUN && (exec >> shift) * price[on] < least) {
                least = (exec >> shift) * price[on];
                best = on;
            }
        }
        sum += least;
        for (int32_t r = problem->resource_begin[best]; r < problem->resource_begin[best + 1]; r++)
            load[problem->resource[r]] += cpga_exec(problem, task, best) >> shift;
    }
    return sum;
}

/* Multiply each weight by 1 - (1 - load / highest) / (2 + step / 4), and let them sum to
 * 2**WEIGHT_BITS again; at least 1 each, so that none is lost. */
static void shift_weights(int64_t *weight, const int64_t *load, int32_t count, int32_t step) {
    int64_t highest = 0, sum = 0;
    int32_t bits = 0;
    for (int32_t r = 0; r < count; r++)
        highest = cpga_max(highest, load[r]);
    while ((highest >> bits) >= (INT64_C(1) << 30))
        bits++;
    highest = cpga_max(1, highest >> bits);
    for (int32_t r = 0; r < count; r++) {
        int64_t idle = highest - (load[r] >> bits);
        weight[r] = cpga_max(1, weight[r] - weight[r] * idle / highest * 4 / (8 + step));
        sum += weight[r];
    }
    for (int32_t r = 0; r < count; r++)
        weight[r] = cpga_max(1, (weight[r] << WEIGHT_BITS) / sum);
}

/* Non-negative weights of the resources for a strong load bound, num_resources, set.
 *
 * For any weights, the sum over tasks of the least weighted time that each takes is at most the sum
 * of the weights times the makespan: the Lagrangian dual of assigning the tasks to the devices so
 * that no resource is busy for longer than the makespan. */
int cpga_load_weights(const cpga_problem *problem, int64_t *weight) {
    int32_t resources = problem->num_resources;
    int32_t shift = shift_for(problem, (INT64_C(1) << WEIGHT_BITS) + resources);
    int64_t *price = cpga_calloc(problem->num_devices, (int64_t)sizeof *price);
    int64_t *load = cpga_calloc(resources, (int64_t)sizeof *load);
    int64_t *now = cpga_calloc(resources, (int64_t)sizeof *now), best = -1;
    int status = price == NULL || load == NULL || now == NULL ? CPGA_ERR_MEMORY : CPGA_OK;
    for (int32_t r = 0; r < resources && status == CPGA_OK; r++)
        now[r] = (INT64_C(1) << WEIGHT_BITS) / resources;
    for (int32_t step = 0; step < WEIGHT_STEPS && status == CPGA_OK; step++) {
        for (int32_t on = 0; on < problem->num_devices; on++)
            price[on] = weight_of_device(problem, now, on);
        int64_t value = least_load(problem, price, shift, load);
        if (value > best) {
            best = value;
            for (int32_t r = 0; r < resources; r++)
                weight[r] = (now[r] + (INT64_C(1) << (WEIGHT_BITS - ROUNDED_BITS - 1))) >>
                            (WEIGHT_BITS - ROUNDED_BITS);
        }
        shift_weights(now, load, resources, step);
    }
    int64_t sum = 0;
    for (int32_t r = 0; r < resources && status == CPGA_OK; r++)
        sum += weight[r];
    for (int32_t r = 0; r < resources && status == CPGA_OK && sum == 0; r++)
        weight[r] = 1; /* so many resources that each share rounds to nothing */
    free(price);
    free(load);
    free(now);
    return status;
}

typedef struct bounded_task {
    int64_t head; /* on its best device */
    int64_t tail;
    int64_t work; /* least weighted time */
    int32_t task;
} bounded_task;

static int compare_tails(const void *a, const void *b) {
    const bounded_task *first = a, *second = b;
    if (first->tail != second->tail)
        return first->tail > second->tail ? -1 : 1;
    return (first->task > second->task) - (first->task < second->task);
}

static int compare_times(const void *a, const void *b) {
    const int64_t *first = a, *second = b;
    return (*first > *second) - (*first < *second);
}

static void fill_work(const cpga_problem *problem, bounded_task *tasks, const int64_t *weight,
                      int32_t shift) {
    for (int32_t i = 0; i < problem->num_tasks; i++) {
        tasks[i].work = INT64_MAX;
        for (int32_t on = 0; on < problem->num_devices; on++) {
            int64_t exec = cpga_exec(problem, tasks[i].task, on);
            if (exec != CPGA_CANNOT_RUN)
                tasks[i].work = cpga_min(tasks[i].work,
                                         (exec >> shift) * weight_of_device(problem, weight, on));
        }
    }
}

/* Tasks by falling tail: all that start at `head` or later, and end so long before the end, are
 * done in between. */
static int64_t load_bound(const cpga_problem *problem, const bounded_task *tasks, int64_t head,
                          int64_t total, int32_t shift) {
    int64_t done = 0, best = 0;
    for (int32_t i = 0; i < problem->num_tasks; i++) {
        if (tasks[i].head < head)
            continue;
        done += tasks[i].work;
        int64_t least = shift > 0 ? (done / total) << shift : (done + total - 1) / total;
        best = cpga_max(best, head + least + tasks[i].tail);
    }
    return best;
}

static int64_t combined_bound(const cpga_problem *problem, bounded_task *tasks,
                              const int64_t *heads, const int64_t *weight) {
    int64_t total = 0, best = 0, last = -1;
    for (int32_t r = 0; r < problem->num_resources; r++)
        total += weight[r];
    int32_t shift = shift_for(problem, total);
    fill_work(problem, tasks, weight, shift);
    for (int32_t i = 0; i < NUM_HEADS; i++) {
        int64_t head = heads[(int64_t)i * (problem->num_tasks - 1) / (NUM_HEADS - 1)];
        if (head != last)
            best = cpga_max(best, load_bound(problem, tasks, head, total, shift));
        last = head;
    }
    return best;
}

/* The best device for each: heads in order, tasks by tail; and the longest chain. */
static int64_t fill_tasks(const cpga_problem *problem, const int64_t *head, const int64_t *tail,
                          bounded_task *tasks, int64_t *heads) {
    int64_t longest = 0;
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        int64_t least = INT64_MAX;
        tasks[task] = (bounded_task){INT64_MAX, INT64_MAX, 0, task};
        for (int32_t on = 0; on < problem->num_devices; on++) {
            int64_t row = (int64_t)task * problem->num_devices + on;
            if (problem->exec_ns[row] == CPGA_CANNOT_RUN)
                continue;
            tasks[task].head = cpga_min(tasks[task].head, head[row]);
            tasks[task].tail = cpga_min(tasks[task].tail, tail[row]);
            least = cpga_min(least, head[row] + problem->exec_ns[row] + tail[row]);
        }
        heads[task] = tasks[task].head;
        longest = cpga_max(longest, least);
    }
    qsort(heads, (size_t)problem->num_tasks, sizeof *heads, compare_times);
    qsort(tasks, (size_t)problem->num_tasks, sizeof *tasks, compare_tails);
    return longest;
}

int cpga_lower_bound(const cpga_problem *problem, int64_t *bound) {
    int64_t cells = (int64_t)problem->num_tasks * problem->num_devices;
    int64_t *head = cpga_calloc(cells, (int64_t)sizeof *head);
    int64_t *tail = cpga_calloc(cells, (int64_t)sizeof *tail);
    int64_t *heads = cpga_calloc(problem->num_tasks, (int64_t)sizeof *heads);
    int64_t *weight = cpga_calloc(problem->num_resources, (int64_t)sizeof *weight);
    bounded_task *tasks = cpga_calloc(problem->num_tasks, (int64_t)sizeof *tasks);
    int status = head == NULL || tail == NULL || heads == NULL || weight == NULL || tasks == NULL
                     ? CPGA_ERR_MEMORY
                     : CPGA_OK;
    *bound = 0;
    if (status == CPGA_OK && problem->num_tasks > 0) {
        cpga_heads(problem, head);
        cpga_tails(problem, tail);
        *bound = fill_tasks(problem, head, tail, tasks, heads);
        for (int32_t r = 0; r < problem->num_resources; r++)
            weight[r] = 1;
        *bound = cpga_max(*bound, combined_bound(problem, tasks, heads, weight));
        status = cpga_load_weights(problem, weight);
        if (status == CPGA_OK)
            *bound = cpga_max(*bound, combined_bound(problem, tasks, heads, weight));
    }
    free(head);
    free(tail);
    free(heads);
    free(weight);
    free(tasks);
    return status;
}
