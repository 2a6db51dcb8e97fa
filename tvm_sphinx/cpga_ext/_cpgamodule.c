/* The module: its two types, and nothing else. */
#include "binding.h"

static int module_exec(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    state->problem_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &cpga_problem_spec, NULL);
    if (state->problem_type == NULL || PyModule_AddType(module, state->problem_type) != 0)
        return -1;
    state->search_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &cpga_search_spec, NULL);
    if (state->search_type == NULL || PyModule_AddType(module, state->search_type) != 0)
        return -1;
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->problem_type);
    Py_VISIT(state->search_type);
    return 0;
}

static int module_clear(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->problem_type);
    Py_CLEAR(state->search_type);
    return 0;
}

static void module_free(void *module) { module_clear((PyObject *)module); }

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
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

PyMODINIT_FUNC PyInit__cpga(void) { return PyModuleDef_Init(&module_def); }
