/* What the files of the binding share: the two objects, and how values pass from and to Python.
 *
 * Only the files that include this one know Python; they parse, convert, call the core, and raise.
 * They keep to Python's limited API, so that one build serves CPython 3.11 and all later ones.
 */
#ifndef CPGA_BINDING_H
#define CPGA_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include "search.h"
#include "series.h"

typedef struct {
    PyTypeObject *problem_type;
    PyTypeObject *search_type;
} module_state;

typedef struct {
    PyObject_HEAD cpga_problem core;
} problem_object;

typedef struct {
    PyObject_HEAD problem_object *problem;
    cpga_search core;
    int busy; /* a run that has released the GIL; only ever read or written with the GIL held */
} search_object;

extern PyType_Spec cpga_problem_spec;
extern PyType_Spec cpga_search_spec;

/* Free an object of a type of ours, and let go of the type. */
void free_object(PyObject *object);

/* Set the exception that a status of the core stands for; NULL. */
PyObject *raise_status(int status);

/* Take a C-contiguous int64 buffer; `extents` has -1 where any length is fine, and is filled in.
 * Otherwise -1, with view->obj NULL and an exception that names the argument. */
int get_int64(PyObject *object, const char *name, Py_ssize_t ndim, Py_ssize_t *extents,
              Py_buffer *view);

/* Read an order and devices from int64 buffers, checked against the problem; both are to be freed.
 */
int read_chromosome(const cpga_problem *problem, PyObject *orders, PyObject *devices,
                    int32_t **order, int32_t **device);

/* Bytes of int64. */
PyObject *widened(const int32_t *values, Py_ssize_t count);

/* (makespan, order, device, finish), the arrays as bytes of int64. */
PyObject *plan_tuple(const cpga_problem *problem, int64_t makespan, const int32_t *order,
                     const int32_t *device, const int64_t *finish);

#endif
