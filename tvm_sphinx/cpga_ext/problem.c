#include "problem.h"

#include <stdlib.h>
#include <string.h>

static int64_t *copy_array(const int64_t *values, int64_t count) {
    int64_t *copy = cpga_calloc(count, (int64_t)sizeof *copy);
    if (copy != NULL && count > 0)
        memcpy(copy, values, (size_t)count * sizeof *copy);
    return copy;
}

/* Add a non-negative value to a total; true if the total reaches the limit. */
static int add_overflows(int64_t *total, int64_t value) {
    if (value >= CPGA_MAX_TOTAL_NS - *total)
        return 1;
    *total += value;
    return 0;
}

static int check_sizes(const cpga_problem_data *data) {
    int64_t devices = data->num_devices;
    if (devices < 1 || data->num_resources < 1 || data->num_tasks < 0 || data->num_edges < 0)
        return CPGA_ERR_SIZE;
    if (data->num_classes < 0 || devices > 32767)
        return CPGA_ERR_SIZE;
    if (data->num_classes > INT32_MAX / (devices * devices))
        return CPGA_ERR_SIZE;
    return CPGA_OK;
}

/* Check a tasks x devices array of times, and add the largest of each row to the total. */
static int check_times(const cpga_problem_data *data, const int64_t *times, int64_t lowest,
                       int64_t *total) {
    for (int64_t task = 0; task < data->num_tasks; task++) {
        int64_t largest = 0;
        for (int64_t device = 0; device < data->num_devices; device++) {
            int64_t value = times[task * data->num_devices + device];
            if (value < lowest)
                return CPGA_ERR_NEGATIVE;
            largest = cpga_max(largest, value);
        }
        if (add_overflows(total, largest))
            return CPGA_ERR_OVERFLOW;
    }
    return CPGA_OK;
}

static int check_copies(const cpga_problem_data *data, int64_t *total) {
    int64_t devices = data->num_devices, table = devices * devices;
    for (int64_t i = 0; i < data->num_classes * table; i++) {
        if (data->copy_ns[i] < 0)
            return CPGA_ERR_NEGATIVE;
        if (data->copy_ns[i] != 0 && i % table / devices == i % devices)
            return CPGA_ERR_DIAGONAL;
    }
    for (int64_t edge = 0; edge < data->num_edges; edge++) {
        int64_t src = data->edges[2 * edge], dst = data->edges[2 * edge + 1], largest = 0;
        if (src < 0 || dst < 0 || src >= data->num_tasks || dst >= data->num_tasks)
            return CPGA_ERR_EDGE_RANGE;
        if (src >= dst)
            return CPGA_ERR_EDGE_ORDER;
        if (data->copy_class[edge] < 0 || data->copy_class[edge] >= data->num_classes)
            return CPGA_ERR_CLASS_RANGE;
        for (int64_t i = 0; i < table; i++)
            largest = cpga_max(largest, data->copy_ns[data->copy_class[edge] * table + i]);
        if (add_overflows(total, largest))
            return CPGA_ERR_OVERFLOW;
    }
    return CPGA_OK;
}

static int check_bytes(const cpga_problem_data *data) {
    int64_t total = 0;
    for (int64_t device = 0; device < data->num_devices; device++) {
        if (data->memory_bytes[device] < CPGA_UNLIMITED)
            return CPGA_ERR_NEGATIVE;
    }
    for (int64_t task = 0; task < data->num_tasks; task++) {
        int64_t largest = 0;
        for (int64_t device = 0; device < data->num_devices; device++) {
            int64_t weight = data->weight_bytes[task * data->num_devices + device];
            if (weight < 0)
                return CPGA_ERR_NEGATIVE;
            largest = cpga_max(largest, weight);
        }
        if (data->output_bytes[task] < 0)
            return CPGA_ERR_NEGATIVE;
        if (add_overflows(&total, largest) || add_overflows(&total, data->output_bytes[task]))
            return CPGA_ERR_OVERFLOW;
    }
    return CPGA_OK;
}

/* Check everything; total is set to a sum that no time of any schedule passes. */
static int check_data(const cpga_problem_data *data, int64_t *total) {
    int status = check_sizes(data);
    *total = 0;
    if (status == CPGA_OK)
        status = check_times(data, data->exec_ns, CPGA_CANNOT_RUN, total);
    if (status == CPGA_OK)
        status = check_times(data, data->release_ns, 0, total);
    if (status == CPGA_OK)
        status = check_times(data, data->delivery_ns, 0, total);
    if (status == CPGA_OK)
        status = check_copies(data, total);
    if (status == CPGA_OK)
        status = check_bytes(data);
    return status;
}

/* Fill one direction of the graph: rows by `row_end` (0 source, 1 destination) of each edge. */
static void fill_csr(const cpga_problem_data *data, int row_end, const int32_t *sequence,
                     int32_t *begin, cpga_edge *edges) {
    int32_t table = data->num_devices * data->num_devices;
    for (int32_t i = 0; i < data->num_edges; i++)
        begin[data->edges[2 * i + row_end] + 1]++;
    for (int32_t task = 0; task < data->num_tasks; task++)
        begin[task + 1] += begin[task];
    for (int32_t i = 0; i < data->num_edges; i++) {
        int32_t edge = sequence[i];
        int32_t row = (int32_t)data->edges[2 * edge + row_end];
        cpga_edge *slot = &edges[begin[row]++];
        slot->task = (int32_t)data->edges[2 * edge + 1 - row_end];
        slot->copy = (int32_t)data->copy_class[edge] * table;
    }
    for (int32_t task = data->num_tasks; task > 0; task--)
        begin[task] = begin[task - 1];
    begin[0] = 0;
}

/* Sort the edges by one end with a counting sort that keeps equal ones in their order. */
static int sort_edges(const cpga_problem_data *data, int end, const int32_t *from, int32_t *to) {
    int32_t *slot = cpga_calloc((int64_t)data->num_tasks + 1, (int64_t)sizeof *slot);
    if (slot == NULL)
        return CPGA_ERR_MEMORY;
    for (int32_t i = 0; i < data->num_edges; i++)
        slot[data->edges[2 * i + end] + 1]++;
    for (int32_t task = 0; task < data->num_tasks; task++)
        slot[task + 1] += slot[task];
    for (int32_t i = 0; i < data->num_edges; i++)
        to[slot[data->edges[2 * from[i] + end]]++] = from[i];
    free(slot);
    return CPGA_OK;
}

static int init_graph(cpga_problem *self, const cpga_problem_data *data) {
    int status = CPGA_ERR_MEMORY;
    int64_t tasks = data->num_tasks, edges = data->num_edges;
    int32_t *given = cpga_calloc(edges, (int64_t)sizeof *given);
    int32_t *by_src = cpga_calloc(edges, (int64_t)sizeof *by_src);
    int32_t *by_dst = cpga_calloc(edges, (int64_t)sizeof *by_dst);
    self->pred_begin = cpga_calloc(tasks + 1, (int64_t)sizeof *self->pred_begin);
    self->succ_begin = cpga_calloc(tasks + 1, (int64_t)sizeof *self->succ_begin);
    self->pred = cpga_calloc(edges, (int64_t)sizeof *self->pred);
    self->succ = cpga_calloc(edges, (int64_t)sizeof *self->succ);
    if (given == NULL || by_src == NULL || by_dst == NULL || self->pred_begin == NULL ||
        self->succ_begin == NULL || self->pred == NULL || self->succ == NULL)
        goto out;
    for (int32_t i = 0; i < data->num_edges; i++)
        given[i] = i;
    status = sort_edges(data, 0, given, by_src);
    if (status == CPGA_OK)
        status = sort_edges(data, 1, given, by_dst);
    if (status != CPGA_OK)
        goto out;
    fill_csr(data, 1, by_src, self->pred_begin, self->pred);
    fill_csr(data, 0, by_dst, self->succ_begin, self->succ);
    for (int32_t task = 0; task < data->num_tasks; task++) {
        for (int32_t i = self->pred_begin[task] + 1; i < self->pred_begin[task + 1]; i++) {
            if (self->pred[i].task == self->pred[i - 1].task)
                status = CPGA_ERR_EDGE_TWICE;
        }
    }
out:
    free(given);
    free(by_src);
    free(by_dst);
    return status;
}

static int init_resources(cpga_problem *self, const cpga_problem_data *data) {
    int64_t total = data->resource_begin[data->num_devices];
    if (data->resource_begin[0] != 0 || total < 0 || total > INT32_MAX)
        return CPGA_ERR_RESOURCE;
    self->resource_begin = cpga_calloc(data->num_devices + 1, (int64_t)sizeof(int32_t));
    self->resource = cpga_calloc(total, (int64_t)sizeof *self->resource);
    self->shortest_ns = cpga_calloc(data->num_resources, (int64_t)sizeof *self->shortest_ns);
    if (self->resource_begin == NULL || self->resource == NULL || self->shortest_ns == NULL)
        return CPGA_ERR_MEMORY;
    for (int32_t r = 0; r < data->num_resources; r++)
        self->shortest_ns[r] = CPGA_MAX_TOTAL_NS;
    for (int32_t device = 0; device < data->num_devices; device++) {
        int64_t begin = data->resource_begin[device], end = data->resource_begin[device + 1];
        if (begin >= end || end > total)
            return CPGA_ERR_RESOURCE;
        self->resource_begin[device + 1] = (int32_t)end;
        for (int64_t i = begin; i < end; i++) {
            if (data->resources[i] < 0 || data->resources[i] >= data->num_resources)
                return CPGA_ERR_RESOURCE;
            if (i > begin && data->resources[i] <= data->resources[i - 1])
                return CPGA_ERR_RESOURCE;
            self->resource[i] = (int32_t)data->resources[i];
            for (int32_t task = 0; task < data->num_tasks; task++) {
                int64_t exec = data->exec_ns[(int64_t)task * data->num_devices + device];
                int64_t *shortest = &self->shortest_ns[data->resources[i]];
                if (exec != CPGA_CANNOT_RUN && exec < *shortest)
                    *shortest = exec;
            }
        }
    }
    return CPGA_OK;
}

/* Copy the copy tables with the source device innermost, as the decoders walk predecessors. */
static int init_copies(cpga_problem *self, const cpga_problem_data *data) {
    int64_t devices = data->num_devices, table = devices * devices;
    self->copy_ns = cpga_calloc(data->num_classes * table, (int64_t)sizeof *self->copy_ns);
    if (self->copy_ns == NULL)
        return CPGA_ERR_MEMORY;
    for (int64_t i = 0; i < data->num_classes * table; i++) {
        int64_t src = i % table / devices, dst = i % devices;
        self->copy_ns[i / table * table + dst * devices + src] = data->copy_ns[i];
    }
    return CPGA_OK;
}

static int init_arrays(cpga_problem *self, const cpga_problem_data *data) {
    int64_t cells = (int64_t)data->num_tasks * data->num_devices;
    self->num_tasks = data->num_tasks;
    self->num_devices = data->num_devices;
    self->num_edges = data->num_edges;
    self->num_classes = data->num_classes;
    self->num_resources = data->num_resources;
    self->exec_ns = copy_array(data->exec_ns, cells);
    self->release_ns = copy_array(data->release_ns, cells);
    self->delivery_ns = copy_array(data->delivery_ns, cells);
    self->memory_bytes = copy_array(data->memory_bytes, data->num_devices);
    self->weight_bytes = copy_array(data->weight_bytes, cells);
    self->output_bytes = copy_array(data->output_bytes, data->num_tasks);
    if (self->exec_ns == NULL || self->release_ns == NULL || self->delivery_ns == NULL ||
        self->memory_bytes == NULL || self->weight_bytes == NULL || self->output_bytes == NULL)
        return CPGA_ERR_MEMORY;
    for (int32_t device = 0; device < data->num_devices; device++)
        self->has_memory_limit |= data->memory_bytes[device] != CPGA_UNLIMITED;
    return CPGA_OK;
}

int cpga_problem_init(cpga_problem *self, const cpga_problem_data *data) {
    memset(self, 0, sizeof *self);
    int status = check_data(data, &self->total_ns);
    if (status == CPGA_OK)
        status = init_arrays(self, data);
    if (status == CPGA_OK)
        status = init_copies(self, data);
    if (status == CPGA_OK)
        status = init_graph(self, data);
    if (status == CPGA_OK)
        status = init_resources(self, data);
    if (status == CPGA_OK)
        status = cpga_sets_init(&self->sets, data->num_tasks, data->num_devices, data->exec_ns,
                                data->num_sets, data->set_of_task);
    if (status != CPGA_OK)
        cpga_problem_free(self);
    return status;
}

void cpga_problem_free(cpga_problem *self) {
    free(self->exec_ns);
    free(self->release_ns);
    free(self->delivery_ns);
    free(self->copy_ns);
    free(self->pred_begin);
    free(self->pred);
    free(self->succ_begin);
    free(self->succ);
    free(self->resource_begin);
    free(self->resource);
    free(self->shortest_ns);
    free(self->memory_bytes);
    free(self->weight_bytes);
    free(self->output_bytes);
    cpga_sets_free(&self->sets);
    memset(self, 0, sizeof *self);
}

int64_t cpga_mean_copy(const cpga_problem *problem, int32_t copy, int shift) {
    int64_t devices = problem->num_devices, pairs = devices * (devices - 1), mean = 0, left = 0;
    if (pairs == 0)
        return 0;
    for (int64_t i = 0; i < devices * devices; i++) {
        /* Whole parts and remainders apart, so that the sum over all pairs cannot overflow. */
        mean += (problem->copy_ns[copy + i] << shift) / pairs;
        left += (problem->copy_ns[copy + i] << shift) % pairs;
    }
    return mean + left / pairs;
}

int64_t cpga_longest_copy(const cpga_problem *problem, int32_t copy) {
    int64_t longest = 0, table = (int64_t)problem->num_devices * problem->num_devices;
    for (int64_t i = 0; i < table; i++)
        longest = cpga_max(longest, problem->copy_ns[copy + i]);
    return longest;
}

int64_t cpga_fastest_exec(const cpga_problem *problem, int32_t task) {
    int64_t fastest = INT64_MAX;
    for (int32_t on = 0; on < problem->num_devices; on++) {
        int64_t exec = cpga_exec(problem, task, on);
        if (exec != CPGA_CANNOT_RUN)
            fastest = cpga_min(fastest, exec);
    }
    return fastest;
}
