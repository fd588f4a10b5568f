/*
 * machrv._direct: those calls of the compiled module that pay for being made without CFFI, as a Python module of its own.
 *
 * What belongs here: what every child does that claims its rights, and the constants on its way, since CFFI, with the types of
 * everything that the headers declare, costs a child more than the claim itself (claim.c); and what is done with every
 * plain message, where CFFI takes an eighth of the time (again.c). What must never happen here: anything
 * that machrv/native/linux does not offer to CFFI too.
 *
 * Both modules are in one shared library; `machrv.constants` says how this one is found in it.
 */

#include "direct.h"

#include "machrv/kern_return.h"
#include "machrv/port.h"
#include "machrv/rendezvous.h"

#define CONSTANT(name) {#name, (long)(name)}

static const struct {
    const char *name;
    long value;
} constants[] = {
    CONSTANT(KERN_RESOURCE_SHORTAGE), /* what is said where nothing more can be loaded */
    CONSTANT(MACHRV_REQUEST_ID),
    CONSTANT(MACH_MSGH_BITS_COMPLEX),
    CONSTANT(MACH_MSG_TYPE_COPY_SEND),
    CONSTANT(MACH_MSG_TYPE_MAKE_SEND),
    CONSTANT(MACH_MSG_TYPE_MAKE_SEND_ONCE),
    CONSTANT(MACH_MSG_TYPE_MOVE_RECEIVE),
    CONSTANT(MACH_MSG_TYPE_MOVE_SEND),
    CONSTANT(MACH_MSG_TYPE_MOVE_SEND_ONCE),
    CONSTANT(MACH_MSG_TYPE_PORT_RECEIVE),
    CONSTANT(MACH_MSG_TYPE_PORT_SEND),
    CONSTANT(MACH_MSG_TYPE_PORT_SEND_ONCE),
    CONSTANT(MACH_PORT_DEAD),
    CONSTANT(MACH_PORT_LIMITS_INFO),
    CONSTANT(MACH_PORT_NULL),
    CONSTANT(MACH_PORT_RIGHT_DEAD_NAME),
    CONSTANT(MACH_PORT_RIGHT_PORT_SET),
    CONSTANT(MACH_PORT_RIGHT_RECEIVE),
    CONSTANT(MACH_PORT_RIGHT_SEND),
    CONSTANT(MACH_PORT_RIGHT_SEND_ONCE),
    /* In words of 32 bits: how large a machrv_arrived is, */
    {"ARRIVED", sizeof(machrv_arrived) / 4},
    /* and where a machrv_received has the number of its descriptors, which follow. */
    {"NFDS", offsetof(machrv_received, nfds) / 4},
};

static int fill(PyObject *module)
{
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value))
            return -1;
    return PyModule_AddFunctions(module, machrv_claim_methods) || PyModule_AddFunctions(module, machrv_again_methods) ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "machrv._direct", "What is called without CFFI.", 0, NULL, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__direct(void) { return PyModuleDef_Init(&definition); }
