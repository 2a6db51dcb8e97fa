/* The type Problem: a checked problem, its heuristics and decoders. */
#include "binding.h"

#include "bounds.h"
#include "coarsen.h"
#include "heuristics.h"
#include "refute.h"

enum {
    EXEC,
    RELEASE,
    DELIVERY,
    EDGES,
    CLASS,
    COPY,
    BEGIN,
    RESOURCE,
    SET,
    MEMORY,
    WEIGHT,
    OUTPUT,
    NUM_ARRAYS
};

/* Check the shapes of the twelve arrays against each other, and fill data with them. */
static int fill_problem_data(PyObject **objects, Py_buffer *views, cpga_problem_data *data) {
    static const char *const names[NUM_ARRAYS] = {"exec_ns",        "release_ns",   "delivery_ns",
                                                  "edges",          "copy_class",   "copy_ns",
                                                  "resource_begin", "resources",    "set_of_task",
                                                  "memory_bytes",   "weight_bytes", "output_bytes"};
    Py_ssize_t cells[2] = {-1, -1}, pairs[2] = {-1, 2}, table[3] = {-1, -1, -1};
    Py_ssize_t edge[1], begin[1], any[1] = {-1}, task[1], device[1];
    if (get_int64(objects[EXEC], names[EXEC], 2, cells, &views[EXEC]) != 0 ||
        get_int64(objects[RELEASE], names[RELEASE], 2, cells, &views[RELEASE]) != 0 ||
        get_int64(objects[DELIVERY], names[DELIVERY], 2, cells, &views[DELIVERY]) != 0 ||
        get_int64(objects[EDGES], names[EDGES], 2, pairs, &views[EDGES]) != 0)
        return -1;
    edge[0] = pairs[0];
    begin[0] = cells[1] + 1;
    task[0] = cells[0];
    device[0] = table[1] = table[2] = cells[1];
    if (get_int64(objects[CLASS], names[CLASS], 1, edge, &views[CLASS]) != 0 ||
        get_int64(objects[COPY], names[COPY], 3, table, &views[COPY]) != 0 ||
        get_int64(objects[BEGIN], names[BEGIN], 1, begin, &views[BEGIN]) != 0 ||
        get_int64(objects[RESOURCE], names[RESOURCE], 1, any, &views[RESOURCE]) != 0 ||
        get_int64(objects[SET], names[SET], 1, task, &views[SET]) != 0 ||
        get_int64(objects[MEMORY], names[MEMORY], 1, device, &views[MEMORY]) != 0 ||
        get_int64(objects[WEIGHT], names[WEIGHT], 2, cells, &views[WEIGHT]) != 0 ||
        get_int64(objects[OUTPUT], names[OUTPUT], 1, task, &views[OUTPUT]) != 0)
        return -1;
    const int64_t *begins = views[BEGIN].buf;
    if (begins[cells[1]] != any[0]) {
        PyErr_SetString(PyExc_ValueError, "Expected resource_begin to end at len(resources).");
        return -1;
    }
    data->num_tasks = (int32_t)cells[0];
    data->num_devices = (int32_t)cells[1];
    data->num_edges = (int32_t)pairs[0];
    data->num_classes = (int32_t)table[0];
    data->exec_ns = views[EXEC].buf;
    data->release_ns = views[RELEASE].buf;
    data->delivery_ns = views[DELIVERY].buf;
    data->edges = views[EDGES].buf;
    data->copy_class = views[CLASS].buf;
    data->copy_ns = views[COPY].buf;
    data->resource_begin = views[BEGIN].buf;
    data->resources = views[RESOURCE].buf;
    data->set_of_task = views[SET].buf;
    data->memory_bytes = views[MEMORY].buf;
    data->weight_bytes = views[WEIGHT].buf;
    data->output_bytes = views[OUTPUT].buf;
    return 0;
}

static PyObject *problem_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {
        "exec_ns",      "release_ns",     "delivery_ns",   "edges",       "copy_class",
        "copy_ns",      "resource_begin", "resources",     "set_of_task", "memory_bytes",
        "weight_bytes", "output_bytes",   "num_resources", "num_sets",    NULL};
    PyObject *objects[NUM_ARRAYS];
    Py_buffer views[NUM_ARRAYS];
    cpga_problem_data data;
    memset(views, 0, sizeof views);
    memset(&data, 0, sizeof data);
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOOOOOOOOOOii:Problem", keywords, &objects[0], &objects[1], &objects[2],
            &objects[3], &objects[4], &objects[5], &objects[6], &objects[7], &objects[8],
            &objects[9], &objects[10], &objects[11], &data.num_resources, &data.num_sets))
        return NULL;
    problem_object *self = NULL;
    if (fill_problem_data(objects, views, &data) == 0)
        self = (problem_object *)PyType_GenericAlloc(type, 0);
    if (self != NULL) {
        int status = cpga_problem_init(&self->core, &data);
        if (status != CPGA_OK) {
            raise_status(status);
            Py_CLEAR(self);
        }
    }
    for (int i = 0; i < NUM_ARRAYS; i++) {
        if (views[i].obj != NULL)
            PyBuffer_Release(&views[i]);
    }
    return (PyObject *)self;
}

static void problem_dealloc(problem_object *self) {
    cpga_problem_free(&self->core);
    free_object((PyObject *)self);
}

static PyObject *problem_heuristic(problem_object *self, PyObject *args) {
    int kind, only = 0;
    if (!PyArg_ParseTuple(args, "i|i:heuristic", &kind, &only))
        return NULL;
    if (kind < CPGA_HEFT || kind > CPGA_SINGLE || only < 0 || only >= self->core.num_devices)
        return raise_status(CPGA_ERR_VALUE);
    int64_t tasks = self->core.num_tasks, makespan = 0;
    int32_t *order = cpga_calloc(tasks, (int64_t)sizeof *order);
    int32_t *device = cpga_calloc(tasks, (int64_t)sizeof *device);
    int64_t *finish = cpga_calloc(tasks, (int64_t)sizeof *finish);
    int status = CPGA_ERR_MEMORY;
    PyObject *result = NULL;
    if (order != NULL && device != NULL && finish != NULL)
        status = cpga_heuristic_run(&self->core, (cpga_heuristic)kind, only, order, device, finish,
                                    &makespan);
    if (status == CPGA_OK)
        result = plan_tuple(&self->core, makespan, order, device, finish);
    else
        raise_status(status);
    free(order);
    free(device);
    free(finish);
    return result;
}

static PyObject *problem_decode(problem_object *self, PyObject *args) {
    PyObject *orders, *devices, *result = NULL;
    int rule;
    long long repeats = 1;
    int32_t *order, *device;
    if (!PyArg_ParseTuple(args, "OOi|L:decode", &orders, &devices, &rule, &repeats))
        return NULL;
    if ((rule != CPGA_APPEND && rule != CPGA_INSERT) || repeats < 1)
        return raise_status(CPGA_ERR_VALUE);
    if (read_chromosome(&self->core, orders, devices, &order, &device) != 0)
        return NULL;
    cpga_timeline timeline;
    int64_t *finish = cpga_calloc(self->core.num_tasks, (int64_t)sizeof *finish);
    if (finish != NULL && cpga_timeline_init(&timeline, &self->core) == CPGA_OK) {
        int64_t makespan = 0;
        Py_BEGIN_ALLOW_THREADS for (long long i = 0; i < repeats; i++) makespan =
            cpga_decode(&timeline, order, device, (cpga_rule)rule, finish);
        Py_END_ALLOW_THREADS cpga_timeline_free(&timeline);
        result = plan_tuple(&self->core, makespan, order, device, finish);
    } else {
        PyErr_NoMemory();
    }
    free(order);
    free(device);
    free(finish);
    return result;
}

static PyObject *problem_lower_bound(problem_object *self, PyObject *Py_UNUSED(ignored)) {
    int64_t bound = 0;
    int status;
    Py_BEGIN_ALLOW_THREADS status = cpga_lower_bound(&self->core, &bound);
    Py_END_ALLOW_THREADS return status == CPGA_OK ? PyLong_FromLongLong((long long)bound)
                                                  : raise_status(status);
}

/* A bound of at least the one given, after at most so much work. */
static PyObject *problem_refute(problem_object *self, PyObject *args) {
    long long known, max_work;
    if (!PyArg_ParseTuple(args, "LL:refute", &known, &max_work))
        return NULL;
    if (known < 0 || known > CPGA_MAX_TOTAL_NS || max_work < 0)
        return raise_status(CPGA_ERR_VALUE);
    int64_t bound = known;
    int status;
    Py_BEGIN_ALLOW_THREADS status = cpga_refute(&self->core, max_work, &bound);
    Py_END_ALLOW_THREADS return status == CPGA_OK ? PyLong_FromLongLong((long long)bound)
                                                  : raise_status(status);
}

/* (blocks, block of each task as int64). */
static PyObject *problem_coarsen(problem_object *self, PyObject *args) {
    int target, status;
    int32_t num_blocks = 0;
    if (!PyArg_ParseTuple(args, "i:coarsen", &target))
        return NULL;
    if (target < 0)
        return raise_status(CPGA_ERR_VALUE);
    int32_t *block = cpga_calloc(self->core.num_tasks, (int64_t)sizeof *block);
    if (block == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS status = cpga_coarsen(&self->core, target, block, &num_blocks);
    Py_END_ALLOW_THREADS PyObject *blocks =
        status == CPGA_OK ? widened(block, self->core.num_tasks) : raise_status(status);
    free(block);
    return blocks == NULL ? NULL : Py_BuildValue("iN", num_blocks, blocks);
}

/* (plan, bound, segments, work, distinct segments as int64: begin, end, entry devices that it was
 * solved for); plan is None, and there are no segments, if the problem does not fall apart or that
 * took too much work. */
static PyObject *problem_series(problem_object *self, PyObject *args) {
    long long max_states, max_work;
    if (!PyArg_ParseTuple(args, "LL:series", &max_states, &max_work))
        return NULL;
    if (max_states < 1 || max_states > INT32_MAX / 2 || max_work < 0)
        return raise_status(CPGA_ERR_VALUE);
    cpga_series series;
    cpga_timeline timeline;
    int64_t makespan = 0;
    int64_t *finish = cpga_calloc(self->core.num_tasks, (int64_t)sizeof *finish);
    PyObject *result = NULL;
    int status = finish == NULL ? CPGA_ERR_MEMORY : cpga_series_init(&series, &self->core);
    if (status != CPGA_OK) {
        free(finish);
        return raise_status(status);
    }
    status = cpga_timeline_init(&timeline, &self->core);
    int have_timeline = status == CPGA_OK;
    if (status == CPGA_OK) {
        Py_BEGIN_ALLOW_THREADS status =
            cpga_series_solve(&series, &self->core, max_states, max_work);
        if (status == CPGA_OK && series.num_segments > 0)
            makespan = cpga_decode(&timeline, series.order, series.device, CPGA_APPEND, finish);
        Py_END_ALLOW_THREADS
    }
    if (status == CPGA_OK) {
        PyObject *plan = series.num_segments > 0 ? plan_tuple(&self->core, makespan, series.order,
                                                              series.device, finish)
                                                 : Py_NewRef(Py_None);
        PyObject *distinct = widened(series.distinct, 3 * (Py_ssize_t)series.num_distinct);
        if (plan != NULL && distinct != NULL)
            result = Py_BuildValue("OLiLO", plan, (long long)series.bound, series.num_segments,
                                   (long long)series.work, distinct);
        Py_XDECREF(plan);
        Py_XDECREF(distinct);
    } else {
        raise_status(status);
    }
    if (have_timeline)
        cpga_timeline_free(&timeline);
    cpga_series_free(&series);
    free(finish);
    return result;
}

static PyObject *problem_memory_overflow(problem_object *self, PyObject *args) {
    PyObject *devices, *ends;
    Py_ssize_t extents[1] = {self->core.num_tasks};
    Py_buffer views[2];
    if (!PyArg_ParseTuple(args, "OO:memory_overflow", &devices, &ends))
        return NULL;
    if (get_int64(devices, "device", 1, extents, &views[0]) != 0)
        return NULL;
    if (get_int64(ends, "finish", 1, extents, &views[1]) != 0) {
        PyBuffer_Release(&views[0]);
        return NULL;
    }
    const int64_t *given = views[0].buf;
    int64_t overflow = 0;
    cpga_memory memory;
    int32_t *device = cpga_calloc(self->core.num_tasks, (int64_t)sizeof *device);
    int status = device == NULL ? CPGA_ERR_MEMORY : cpga_memory_init(&memory, &self->core);
    int have_memory = device != NULL && status == CPGA_OK;
    for (int32_t task = 0; task < self->core.num_tasks && status == CPGA_OK; task++) {
        if (given[task] < 0 || given[task] >= self->core.num_devices)
            status = CPGA_ERR_DEVICE;
        else
            device[task] = (int32_t)given[task];
    }
    if (status == CPGA_OK)
        overflow = cpga_memory_overflow(&memory, device, views[1].buf);
    if (have_memory)
        cpga_memory_free(&memory);
    free(device);
    PyBuffer_Release(&views[0]);
    PyBuffer_Release(&views[1]);
    return status == CPGA_OK ? PyLong_FromLongLong((long long)overflow) : raise_status(status);
}

static PyMethodDef problem_methods[] = {
    {"memory_overflow", (PyCFunction)problem_memory_overflow, METH_VARARGS, NULL},
    {"heuristic", (PyCFunction)problem_heuristic, METH_VARARGS, NULL},
    {"coarsen", (PyCFunction)problem_coarsen, METH_VARARGS, NULL},
    {"refute", (PyCFunction)problem_refute, METH_VARARGS, NULL},
    {"lower_bound", (PyCFunction)problem_lower_bound, METH_NOARGS, NULL},
    {"series", (PyCFunction)problem_series, METH_VARARGS, NULL},
    {"decode", (PyCFunction)problem_decode, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot problem_slots[] = {
    {Py_tp_new, problem_new},
    {Py_tp_dealloc, problem_dealloc},
    {Py_tp_methods, problem_methods},
    {0, NULL},
};

PyType_Spec cpga_problem_spec = {
    .name = "tvm_sphinx.cpga_ext._cpga.Problem",
    .basicsize = sizeof(problem_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = problem_slots,
};
