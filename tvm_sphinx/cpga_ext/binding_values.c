/* Values from and to Python. */
#include "binding.h"

void free_object(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF((PyObject *)type);
}

PyObject *raise_status(int status) {
    if (status == CPGA_ERR_MEMORY)
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, cpga_strerror(status));
    return NULL;
}

int get_int64(PyObject *object, const char *name, Py_ssize_t ndim, Py_ssize_t *extents,
              Py_buffer *view) {
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
    PyErr_Format(
        is_int64 ? PyExc_ValueError : PyExc_TypeError,
        "Expected %s to be a C-contiguous int64 array of %zd dimensions and matching extents; "
        "got format '%s', %d dimensions.",
        name, ndim, format, view->ndim);
    PyBuffer_Release(view);
    view->obj = NULL;
    return -1;
}

/* A bytes object that holds int32 values widened to int64. */
PyObject *widened(const int32_t *values, Py_ssize_t count) {
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int64_t));
    if (bytes == NULL)
        return NULL;
    char *out = PyBytes_AsString(bytes);
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t value = values[i];
        memcpy(out + i * (Py_ssize_t)sizeof value, &value, sizeof value);
    }
    return bytes;
}

PyObject *plan_tuple(const cpga_problem *problem, int64_t makespan, const int32_t *order,
                     const int32_t *device, const int64_t *finish) {
    Py_ssize_t tasks = problem->num_tasks;
    PyObject *orders = widened(order, tasks), *devices = widened(device, tasks);
    PyObject *ends =
        PyBytes_FromStringAndSize((const char *)finish, tasks * (Py_ssize_t)sizeof *finish);
    PyObject *result = NULL;
    if (orders != NULL && devices != NULL && ends != NULL)
        result = Py_BuildValue("LOOO", (long long)makespan, orders, devices, ends);
    Py_XDECREF(orders);
    Py_XDECREF(devices);
    Py_XDECREF(ends);
    return result;
}

int read_chromosome(const cpga_problem *problem, PyObject *orders, PyObject *devices,
                    int32_t **order, int32_t **device) {
    Py_ssize_t extents[1] = {problem->num_tasks};
    int64_t tasks = problem->num_tasks;
    Py_buffer views[2];
    int status = CPGA_ERR_MEMORY;
    if (get_int64(orders, "order", 1, extents, &views[0]) != 0)
        return -1;
    if (get_int64(devices, "device", 1, extents, &views[1]) != 0) {
        PyBuffer_Release(&views[0]);
        return -1;
    }
    *order = cpga_calloc(tasks, (int64_t)sizeof **order);
    *device = cpga_calloc(tasks, (int64_t)sizeof **device);
    if (*order != NULL && *device != NULL) {
        const int64_t *given_order = views[0].buf, *given_device = views[1].buf;
        status = cpga_check_chromosome(problem, given_order, given_device, *order);
        for (int64_t i = 0; i < tasks && status == CPGA_OK; i++) {
            (*order)[i] = (int32_t)given_order[i];
            (*device)[i] = (int32_t)given_device[i];
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
