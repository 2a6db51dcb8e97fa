/* The type Search: a search that runs in bounded calls with the GIL released. */
#include "binding.h"

enum { NUM_PARAMS = 16 };

static int read_params(PyObject *object, cpga_params *params) {
    Py_ssize_t extents[1] = {NUM_PARAMS};
    Py_buffer view;
    if (get_int64(object, "params", 1, extents, &view) != 0)
        return -1;
    const int64_t *values = view.buf;
    cpga_anneal_params *anneal = &params->anneal;
    const struct {
        int32_t *field;
        int64_t lowest;
        int64_t highest;
    } fields[NUM_PARAMS] = {
        {&params->population, 1, CPGA_MAX_POPULATION},
        {&params->cycles, 1, 1000000},
        {&params->effort, 0, 1000000},
        {&params->accept_first, 1, 1 << 20},
        {&params->accept_again, 1, 1 << 20},
        {&params->accept_last, 1, 1 << 20},
        {&anneal->critical_percent, 0, 100},
        {&anneal->late_percent, 0, 100},
        {&anneal->focus, 2, INT32_MAX / 2},
        {&anneal->visit, 1, 1000000},
        {&anneal->sort_every, 1, 1000000},
        {&anneal->moves.block_percent, 0, 100},
        {&anneal->moves.swap_percent, 0, 100},
        {&anneal->moves.gather_percent, 0, 100},
        {&anneal->moves.max_block_bits, 1, 16},
        {&anneal->moves.max_span_bits, 1, 16},
    };
    int ok = 1;
    for (int i = 0; i < NUM_PARAMS; i++) {
        ok = ok && values[i] >= fields[i].lowest && values[i] <= fields[i].highest;
        *fields[i].field = ok ? (int32_t)values[i] : 0;
    }
    PyBuffer_Release(&view);
    if (!ok)
        raise_status(CPGA_ERR_VALUE);
    return ok ? 0 : -1;
}

static PyObject *search_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"problem", "params", "seed", NULL};
    PyObject *problem, *params_object, *seed_object;
    cpga_params params;
    module_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OO!:Search", keywords, state->problem_type,
                                     &problem, &params_object, &PyLong_Type, &seed_object) ||
        read_params(params_object, &params) != 0)
        return NULL;
    unsigned long long seed = PyLong_AsUnsignedLongLong(seed_object);
    if (PyErr_Occurred())
        return NULL;
    search_object *self = (search_object *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->problem = (problem_object *)Py_NewRef(problem);
    int status = cpga_search_init(&self->core, &self->problem->core, &params, (uint64_t)seed);
    if (status != CPGA_OK) {
        Py_DECREF(self);
        return raise_status(status);
    }
    return (PyObject *)self;
}

static void search_dealloc(search_object *self) {
    cpga_search_free(&self->core);
    Py_XDECREF((PyObject *)self->problem);
    free_object((PyObject *)self);
}

static int check_idle(search_object *self) {
    if (!self->busy)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "This search is running in another thread.");
    return -1;
}

static PyObject *search_run(search_object *self, PyObject *args) {
    long long max_evaluations, horizon;
    if (!PyArg_ParseTuple(args, "LL:run", &max_evaluations, &horizon) || check_idle(self) != 0)
        return NULL;
    if (max_evaluations < 0 || horizon < 0 || max_evaluations > (1LL << 46) ||
        horizon > (1LL << 46))
        return raise_status(CPGA_ERR_VALUE);
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS cpga_search_run(&self->core, max_evaluations, horizon);
    Py_END_ALLOW_THREADS self->busy = 0;
    Py_RETURN_NONE;
}

static PyObject *search_start(search_object *self, PyObject *args) {
    PyObject *orders, *devices;
    int32_t *order, *device;
    if (!PyArg_ParseTuple(args, "OO:start", &orders, &devices) || check_idle(self) != 0 ||
        read_chromosome(&self->problem->core, orders, devices, &order, &device) != 0)
        return NULL;
    int status = cpga_search_start(&self->core, order, device);
    free(order);
    free(device);
    if (status != CPGA_OK)
        return raise_status(status);
    Py_RETURN_NONE;
}

static PyObject *search_best(search_object *self, PyObject *Py_UNUSED(ignored)) {
    if (check_idle(self) != 0)
        return NULL;
    const cpga_problem *problem = &self->problem->core;
    const cpga_chromosome *best = &self->core.annealer.best;
    cpga_timeline timeline;
    PyObject *result = NULL;
    int64_t *finish = cpga_calloc(problem->num_tasks, (int64_t)sizeof *finish);
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

static PyObject *search_progress(search_object *self, PyObject *Py_UNUSED(ignored)) {
    if (check_idle(self) != 0)
        return NULL;
    const cpga_annealer *annealer = &self->core.annealer;
    return Py_BuildValue("LLLL", (long long)annealer->evaluations,
                         (long long)annealer->best.makespan, (long long)annealer->last_improvement,
                         (long long)annealer->best.overflow);
}

static PyMethodDef search_methods[] = {
    {"start", (PyCFunction)search_start, METH_VARARGS, NULL},
    {"run", (PyCFunction)search_run, METH_VARARGS, NULL},
    {"best", (PyCFunction)search_best, METH_NOARGS, NULL},
    {"progress", (PyCFunction)search_progress, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot search_slots[] = {
    {Py_tp_new, search_new},
    {Py_tp_dealloc, search_dealloc},
    {Py_tp_methods, search_methods},
    {0, NULL},
};

PyType_Spec cpga_search_spec = {
    .name = "tvm_sphinx.cpga_ext._cpga.Search",
    .basicsize = sizeof(search_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = search_slots,
};
