/* The binding: parse, convert, call, raise. All else is in the C core, which knows nothing of Python. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "heuristics.h"
#include "search.h"

typedef struct {
    PyTypeObject *problem_type;
    PyTypeObject *search_type;
} module_state;

typedef struct {
    PyObject_HEAD
    cpga_problem core;
} problem_object;

typedef struct {
    PyObject_HEAD
    problem_object *problem;
    cpga_units tied;
    cpga_search core;
    int busy; /* a run that has released the GIL; only ever read or written with the GIL held */
} search_object;

static PyObject *raise_status(int status)
{
    if (status == CPGA_ERR_MEMORY)
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, cpga_strerror(status));
    return NULL;
}

/* Take a C-contiguous int64 buffer; `extents` has -1 where any length is fine, and is filled in. */
static int get_int64(
    PyObject *object, const char *name, Py_ssize_t ndim, Py_ssize_t *extents, Py_buffer *view)
{
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0) {
        view->obj = NULL;
        return -1;
    }
    const char *format = view->format != NULL ? view->format : "B";
    int is_int64 = view->itemsize == 8 && (strcmp(format, "l") == 0 || strcmp(format, "q") == 0);
    int fits = is_int64 && view->ndim == ndim;
    for (Py_ssize_t i = 0; fits && i < ndim; i++) {
        fits = (extents[i] == -1 || extents[i] == view->shape[i]) && view->shape[i] < INT32_MAX;
        if (fits)
            extents[i] = view->shape[i];
    }
    if (fits)
        return 0;
    PyErr_Format(is_int64 ? PyExc_ValueError : PyExc_TypeError,
        "Expected %s to be a C-contiguous int64 array of %zd dimensions and matching extents; "
        "got format '%s', %d dimensions.",
        name, ndim, format, view->ndim);
    PyBuffer_Release(view);
    view->obj = NULL;
    return -1;
}

/* A bytes object that holds int32 values widened to int64. */
static PyObject *widened(const int32_t *values, Py_ssize_t count)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t) sizeof(int64_t));
    if (bytes == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(bytes);
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t value = values[i];
        memcpy(out + i * (Py_ssize_t) sizeof value, &value, sizeof value);
    }
    return bytes;
}

/* (makespan, order, device, finish), the arrays as bytes of int64. */
static PyObject *plan_tuple(const cpga_problem *problem, int64_t makespan, const int32_t *order,
    const int32_t *device, const int64_t *finish)
{
    Py_ssize_t tasks = problem->num_tasks;
    PyObject *orders = widened(order, tasks), *devices = widened(device, tasks);
    PyObject *ends
        = PyBytes_FromStringAndSize((const char *) finish, tasks * (Py_ssize_t) sizeof *finish);
    PyObject *result = NULL;
    if (orders != NULL && devices != NULL && ends != NULL)
        result = Py_BuildValue("LOOO", (long long) makespan, orders, devices, ends);
    Py_XDECREF(orders);
    Py_XDECREF(devices);
    Py_XDECREF(ends);
    return result;
}

enum { EXEC, RELEASE, DELIVERY, EDGES, CLASS, COPY, BEGIN, RESOURCE, UNIT, MEMORY, WEIGHT, OUTPUT,
    NUM_ARRAYS };

/* Check the shapes of the twelve arrays against each other, and fill data with them. */
static int fill_problem_data(PyObject **objects, Py_buffer *views, cpga_problem_data *data)
{
    static const char *const names[NUM_ARRAYS] = { "exec_ns", "release_ns", "delivery_ns", "edges",
        "copy_class", "copy_ns", "resource_begin", "resources", "unit", "memory_bytes",
        "weight_bytes", "output_bytes" };
    Py_ssize_t cells[2] = { -1, -1 }, pairs[2] = { -1, 2 }, table[3] = { -1, -1, -1 };
    Py_ssize_t edge[1], begin[1], any[1] = { -1 }, task[1], device[1];
    if (get_int64(objects[EXEC], names[EXEC], 2, cells, &views[EXEC]) != 0
        || get_int64(objects[RELEASE], names[RELEASE], 2, cells, &views[RELEASE]) != 0
        || get_int64(objects[DELIVERY], names[DELIVERY], 2, cells, &views[DELIVERY]) != 0
        || get_int64(objects[EDGES], names[EDGES], 2, pairs, &views[EDGES]) != 0)
        return -1;
    edge[0] = pairs[0];
    begin[0] = cells[1] + 1;
    task[0] = cells[0];
    device[0] = table[1] = table[2] = cells[1];
    if (get_int64(objects[CLASS], names[CLASS], 1, edge, &views[CLASS]) != 0
        || get_int64(objects[COPY], names[COPY], 3, table, &views[COPY]) != 0
        || get_int64(objects[BEGIN], names[BEGIN], 1, begin, &views[BEGIN]) != 0
        || get_int64(objects[RESOURCE], names[RESOURCE], 1, any, &views[RESOURCE]) != 0
        || get_int64(objects[UNIT], names[UNIT], 1, task, &views[UNIT]) != 0
        || get_int64(objects[MEMORY], names[MEMORY], 1, device, &views[MEMORY]) != 0
        || get_int64(objects[WEIGHT], names[WEIGHT], 1, task, &views[WEIGHT]) != 0
        || get_int64(objects[OUTPUT], names[OUTPUT], 1, task, &views[OUTPUT]) != 0)
        return -1;
    const int64_t *begins = views[BEGIN].buf;
    if (begins[cells[1]] != any[0]) {
        PyErr_SetString(PyExc_ValueError, "Expected resource_begin to end at len(resources).");
        return -1;
    }
    data->num_tasks = (int32_t) cells[0];
    data->num_devices = (int32_t) cells[1];
    data->num_edges = (int32_t) pairs[0];
    data->num_classes = (int32_t) table[0];
    data->exec_ns = views[EXEC].buf;
    data->release_ns = views[RELEASE].buf;
    data->delivery_ns = views[DELIVERY].buf;
    data->edges = views[EDGES].buf;
    data->copy_class = views[CLASS].buf;
    data->copy_ns = views[COPY].buf;
    data->resource_begin = views[BEGIN].buf;
    data->resources = views[RESOURCE].buf;
    data->unit = views[UNIT].buf;
    data->memory_bytes = views[MEMORY].buf;
    data->weight_bytes = views[WEIGHT].buf;
    data->output_bytes = views[OUTPUT].buf;
    return 0;
}

static PyObject *problem_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = { "exec_ns", "release_ns", "delivery_ns", "edges", "copy_class",
        "copy_ns", "resource_begin", "resources", "unit", "memory_bytes", "weight_bytes",
        "output_bytes", "num_resources", "num_units", NULL };
    PyObject *objects[NUM_ARRAYS];
    Py_buffer views[NUM_ARRAYS];
    cpga_problem_data data;
    memset(views, 0, sizeof views);
    memset(&data, 0, sizeof data);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOOOOOOii:Problem", keywords, &objects[0],
            &objects[1], &objects[2], &objects[3], &objects[4], &objects[5], &objects[6], &objects[7],
            &objects[8], &objects[9], &objects[10], &objects[11], &data.num_resources,
            &data.num_units))
        return NULL;
    problem_object *self = NULL;
    if (fill_problem_data(objects, views, &data) == 0)
        self = (problem_object *) type->tp_alloc(type, 0);
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
    return (PyObject *) self;
}

static void problem_dealloc(problem_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cpga_problem_free(&self->core);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *problem_heuristic(problem_object *self, PyObject *args)
{
    int kind, only = 0;
    if (!PyArg_ParseTuple(args, "i|i:heuristic", &kind, &only))
        return NULL;
    if (kind < CPGA_HEFT || kind > CPGA_SINGLE || only < 0 || only >= self->core.num_devices)
        return raise_status(CPGA_ERR_VALUE);
    int64_t tasks = self->core.num_tasks, makespan = 0;
    int32_t *order = cpga_calloc(tasks, (int64_t) sizeof *order);
    int32_t *device = cpga_calloc(tasks, (int64_t) sizeof *device);
    int64_t *finish = cpga_calloc(tasks, (int64_t) sizeof *finish);
    int status = CPGA_ERR_MEMORY;
    PyObject *result = NULL;
    if (order != NULL && device != NULL && finish != NULL)
        status = cpga_heuristic_run(
            &self->core, (cpga_heuristic) kind, only, order, device, finish, &makespan);
    if (status == CPGA_OK)
        result = plan_tuple(&self->core, makespan, order, device, finish);
    else
        raise_status(status);
    free(order);
    free(device);
    free(finish);
    return result;
}

/* Read an order and devices from int64 buffers, checked against the problem. */
static int read_chromosome(problem_object *self, PyObject *orders, PyObject *devices, int32_t **order,
    int32_t **device)
{
    Py_ssize_t extents[1] = { self->core.num_tasks };
    int64_t tasks = self->core.num_tasks;
    Py_buffer views[2];
    int status = CPGA_ERR_MEMORY;
    if (get_int64(orders, "order", 1, extents, &views[0]) != 0)
        return -1;
    if (get_int64(devices, "device", 1, extents, &views[1]) != 0) {
        PyBuffer_Release(&views[0]);
        return -1;
    }
    *order = cpga_calloc(tasks, (int64_t) sizeof **order);
    *device = cpga_calloc(tasks, (int64_t) sizeof **device);
    if (*order != NULL && *device != NULL) {
        const int64_t *given_order = views[0].buf, *given_device = views[1].buf;
        status = cpga_check_chromosome(&self->core, given_order, given_device, *order);
        for (int64_t i = 0; i < tasks && status == CPGA_OK; i++) {
            (*order)[i] = (int32_t) given_order[i];
            (*device)[i] = (int32_t) given_device[i];
        }
    }
    PyBuffer_Release(&views[0]);
    PyBuffer_Release(&views[1]);
    if (status == CPGA_OK)
        return 0;
    free(*order);
    free(*device);
    raise_status(status);
    return -1;
}

static PyObject *problem_decode(problem_object *self, PyObject *args)
{
    PyObject *orders, *devices, *result = NULL;
    int rule;
    int32_t *order, *device;
    if (!PyArg_ParseTuple(args, "OOi:decode", &orders, &devices, &rule))
        return NULL;
    if (rule != CPGA_APPEND && rule != CPGA_INSERT)
        return raise_status(CPGA_ERR_VALUE);
    if (read_chromosome(self, orders, devices, &order, &device) != 0)
        return NULL;
    cpga_timeline timeline;
    int64_t *finish = cpga_calloc(self->core.num_tasks, (int64_t) sizeof *finish);
    if (finish != NULL && cpga_timeline_init(&timeline, &self->core) == CPGA_OK) {
        int64_t makespan = cpga_decode(&timeline, order, device, (cpga_rule) rule, finish);
        cpga_timeline_free(&timeline);
        result = plan_tuple(&self->core, makespan, order, device, finish);
    } else {
        PyErr_NoMemory();
    }
    free(order);
    free(device);
    free(finish);
    return result;
}

static PyObject *problem_memory_overflow(problem_object *self, PyObject *args)
{
    PyObject *devices, *ends;
    Py_ssize_t extents[1] = { self->core.num_tasks };
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
    int32_t *device = cpga_calloc(self->core.num_tasks, (int64_t) sizeof *device);
    int status = device == NULL ? CPGA_ERR_MEMORY : cpga_memory_init(&memory, &self->core);
    int have_memory = device != NULL && status == CPGA_OK;
    for (int32_t task = 0; task < self->core.num_tasks && status == CPGA_OK; task++) {
        if (given[task] < 0 || given[task] >= self->core.num_devices)
            status = CPGA_ERR_DEVICE;
        else
            device[task] = (int32_t) given[task];
    }
    if (status == CPGA_OK)
        overflow = cpga_memory_overflow(&memory, device, views[1].buf);
    if (have_memory)
        cpga_memory_free(&memory);
    free(device);
    PyBuffer_Release(&views[0]);
    PyBuffer_Release(&views[1]);
    return status == CPGA_OK ? PyLong_FromLongLong((long long) overflow) : raise_status(status);
}

static PyMethodDef problem_methods[] = {
    { "memory_overflow", (PyCFunction) problem_memory_overflow, METH_VARARGS, NULL },
    { "heuristic", (PyCFunction) problem_heuristic, METH_VARARGS, NULL },
    { "decode", (PyCFunction) problem_decode, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyType_Slot problem_slots[] = {
    { Py_tp_new, problem_new },
    { Py_tp_dealloc, problem_dealloc },
    { Py_tp_methods, problem_methods },
    { 0, NULL },
};

static PyType_Spec problem_spec = {
    .name = "tvm_sphinx.cpga_ext._cpga.Problem",
    .basicsize = sizeof(problem_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = problem_slots,
};

enum { NUM_PARAMS = 16 };

static int read_params(PyObject *object, cpga_params *params)
{
    Py_ssize_t extents[1] = { NUM_PARAMS };
    Py_buffer view;
    if (get_int64(object, "params", 1, extents, &view) != 0)
        return -1;
    const int64_t *values = view.buf;
    cpga_anneal_params *anneal = &params->anneal;
    int32_t *fields[NUM_PARAMS] = { &params->population, &params->effort, &params->accept_first,
        &params->accept_again, &params->accept_last, &params->tied_percent, &params->keep_critical,
        &anneal->critical_percent, &anneal->focus, &anneal->visit, &anneal->sort_every,
        &anneal->moves.block_percent, &anneal->moves.swap_percent, &anneal->moves.gather_percent,
        &anneal->moves.max_block_bits, &anneal->moves.max_span_bits };
    static const int64_t lowest[NUM_PARAMS] = { 1, 1, 1, 1, 1, 0, 0, 0, 2, 1, 1, 0, 0, 0, 1, 1 };
    static const int64_t highest[NUM_PARAMS]
        = { CPGA_MAX_POPULATION, 1000000, 1 << 20, 1 << 20, 1 << 20, 100, 1, 100, INT32_MAX / 2, 1000000,
              1000000, 100, 100, 100, 16, 16 };
    int ok = 1;
    for (int i = 0; i < NUM_PARAMS; i++) {
        ok = ok && values[i] >= lowest[i] && values[i] <= highest[i];
        *fields[i] = ok ? (int32_t) values[i] : 0;
    }
    PyBuffer_Release(&view);
    if (!ok)
        raise_status(CPGA_ERR_VALUE);
    return ok ? 0 : -1;
}

static int read_tied(search_object *self, PyObject *labels, int32_t num_units)
{
    Py_ssize_t extents[1] = { self->problem->core.num_tasks };
    Py_buffer view;
    if (get_int64(labels, "tied", 1, extents, &view) != 0)
        return -1;
    int status = cpga_units_init(&self->tied, &self->problem->core, num_units, view.buf);
    PyBuffer_Release(&view);
    if (status != CPGA_OK)
        raise_status(status);
    return status == CPGA_OK ? 0 : -1;
}

static PyObject *search_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = { "problem", "tied", "num_tied", "params", "seed", NULL };
    PyObject *problem, *tied, *params_object;
    int num_tied;
    unsigned long long seed;
    cpga_params params;
    module_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OiOK:Search", keywords, state->problem_type,
            &problem, &tied, &num_tied, &params_object, &seed)
        || read_params(params_object, &params) != 0)
        return NULL;
    search_object *self = (search_object *) type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->problem = (problem_object *) Py_NewRef(problem);
    if (tied != Py_None && read_tied(self, tied, num_tied) != 0) {
        Py_DECREF(self);
        return NULL;
    }
    int status = cpga_search_init(&self->core, &self->problem->core,
        tied == Py_None ? NULL : &self->tied, &params, (uint64_t) seed);
    if (status != CPGA_OK) {
        Py_DECREF(self);
        return raise_status(status);
    }
    return (PyObject *) self;
}

static void search_dealloc(search_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cpga_search_free(&self->core);
    cpga_units_free(&self->tied);
    Py_XDECREF(self->problem);
    type->tp_free(self);
    Py_DECREF(type);
}

static int check_idle(search_object *self)
{
    if (!self->busy)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "This search is running in another thread.");
    return -1;
}

static PyObject *search_run(search_object *self, PyObject *args)
{
    long long max_evaluations, horizon;
    if (!PyArg_ParseTuple(args, "LL:run", &max_evaluations, &horizon) || check_idle(self) != 0)
        return NULL;
    if (max_evaluations < 0 || horizon < 0 || max_evaluations > (1LL << 46)
        || horizon > (1LL << 46))
        return raise_status(CPGA_ERR_VALUE);
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    cpga_search_run(&self->core, max_evaluations, horizon);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    Py_RETURN_NONE;
}

static PyObject *search_best(search_object *self, PyObject *Py_UNUSED(ignored))
{
    if (check_idle(self) != 0)
        return NULL;
    const cpga_problem *problem = &self->problem->core;
    const cpga_chromosome *best = &self->core.annealer.best;
    cpga_timeline timeline;
    PyObject *result = NULL;
    int64_t *finish = cpga_calloc(problem->num_tasks, (int64_t) sizeof *finish);
    if (finish != NULL && cpga_timeline_init(&timeline, problem) == CPGA_OK) {
        int64_t makespan = cpga_decode(&timeline, best->order, best->device, CPGA_APPEND, finish);
        cpga_timeline_free(&timeline);
        result = plan_tuple(problem, makespan, best->order, best->device, finish);
    } else {
        PyErr_NoMemory();
    }
    free(finish);
    return result;
}

static PyObject *search_progress(search_object *self, PyObject *Py_UNUSED(ignored))
{
    if (check_idle(self) != 0)
        return NULL;
    const cpga_annealer *annealer = &self->core.annealer;
    return Py_BuildValue("LLLL", (long long) annealer->evaluations,
        (long long) annealer->best.makespan, (long long) annealer->last_improvement,
        (long long) annealer->best.overflow);
}

static PyObject *search_save(search_object *self, PyObject *Py_UNUSED(ignored))
{
    if (check_idle(self) != 0)
        return NULL;
    int64_t count = cpga_search_state_size(&self->core);
    int64_t *state = cpga_calloc(count, (int64_t) sizeof *state);
    if (state == NULL)
        return PyErr_NoMemory();
    cpga_search_save(&self->core, state);
    PyObject *result = PyBytes_FromStringAndSize(
        (const char *) state, (Py_ssize_t) count * (Py_ssize_t) sizeof *state);
    free(state);
    return result;
}

static PyObject *search_restore(search_object *self, PyObject *state)
{
    if (check_idle(self) != 0)
        return NULL;
    Py_ssize_t extents[1] = { (Py_ssize_t) cpga_search_state_size(&self->core) };
    Py_buffer view;
    if (get_int64(state, "state", 1, extents, &view) != 0)
        return NULL;
    int status = cpga_search_restore(&self->core, view.buf);
    PyBuffer_Release(&view);
    if (status != CPGA_OK)
        return raise_status(status);
    Py_RETURN_NONE;
}

static PyMethodDef search_methods[] = {
    { "save", (PyCFunction) search_save, METH_NOARGS, NULL },
    { "restore", (PyCFunction) search_restore, METH_O, NULL },
    { "run", (PyCFunction) search_run, METH_VARARGS, NULL },
    { "best", (PyCFunction) search_best, METH_NOARGS, NULL },
    { "progress", (PyCFunction) search_progress, METH_NOARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyType_Slot search_slots[] = {
    { Py_tp_new, search_new },
    { Py_tp_dealloc, search_dealloc },
    { Py_tp_methods, search_methods },
    { 0, NULL },
};

static PyType_Spec search_spec = {
    .name = "tvm_sphinx.cpga_ext._cpga.Search",
    .basicsize = sizeof(search_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = search_slots,
};

static int module_exec(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    state->problem_type = (PyTypeObject *) PyType_FromModuleAndSpec(module, &problem_spec, NULL);
    if (state->problem_type == NULL || PyModule_AddType(module, state->problem_type) != 0)
        return -1;
    state->search_type = (PyTypeObject *) PyType_FromModuleAndSpec(module, &search_spec, NULL);
    if (state->search_type == NULL || PyModule_AddType(module, state->search_type) != 0)
        return -1;
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->problem_type);
    Py_VISIT(state->search_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->problem_type);
    Py_CLEAR(state->search_type);
    return 0;
}

static void module_free(void *module)
{
    module_clear((PyObject *) module);
}

static PyModuleDef_Slot module_slots[] = {
    { Py_mod_exec, module_exec },
    { 0, NULL },
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tvm_sphinx.cpga_ext._cpga",
    .m_doc = "Native core of the schedule search; see tvm_sphinx.search.",
    .m_size = sizeof(module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__cpga(void)
{
    return PyModuleDef_Init(&module_def);
}
