/*
 * machrv._claim: what a child needs of the compiled module to claim its rights, as a Python module of its own.
 *
 * What belongs here: that one call, giving up what came of it, and the constants on its way. CFFI, with the types of
 * everything that the headers declare, costs a child more than the claim itself: most children do without. What must never
 * happen here: a way to ask that machrv/native/linux does not offer to CFFI too.
 *
 * Both modules are in one shared library; `machrv.constants` says how this one is found in it.
 */

#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030A0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "machrv/kern_return.h"
#include "machrv/linux.h"
#include "machrv/message.h"
#include "machrv/port.h"
#include "machrv/rendezvous.h"

/* What this process is, to machrv_ask: unknown. A server is another process, or its kernel is more than this. */
static const machrv_identity nobody = {.pid = -1};

/* Whether all rights are what nearly all are: in the body, and each the only one to its port. */
static int usual(const char *message, const machrv_arrived *rights, int count)
{
    uint32_t bits;
    memcpy(&bits, message, sizeof bits);
    if (bits & 0xFF)
        return 0;
    for (int i = 0; i < count; i++)
        if (rights[i].references > 1)
            return 0;
    return 1;
}

/* Appends; takes the reference. */
static int append(PyObject *list, PyObject *item)
{
    int failed = !item || PyList_Append(list, item);
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

static PyObject *bytes_of(const void *start, size_t size) { return PyBytes_FromStringAndSize(start, (Py_ssize_t)size); }

/* The message, and in `came` what it came with: nothing of it is lost if that fails. */
static PyObject *told(PyObject *came, int result, int answer, const machrv_received *packet, const machrv_arrived *rights)
{
    const char *laid_out = packet->body - sizeof(mach_msg_header_t);
    PyObject *message, *what;
    if (result < 0 && answer < 0)
        Py_RETURN_NONE;
    message = PyByteArray_FromStringAndSize(laid_out, result > 0 ? result : 0);
    if (result > 0)
        what = bytes_of(rights, sizeof *rights * (size_t)packet->nfds);
    else
        what = bytes_of(packet, result ? 0 : sizeof *packet);
    if (!append(came, what) && message && !append(came, PyLong_FromLong(answer)) &&
        !append(came, PyLong_FromLong(result)) && !append(came, PyBool_FromLong(result > 0 && usual(laid_out, rights, packet->nfds))))
        return message;
    Py_XDECREF(message);
    if (result >= 0)
        machrv_close_all(packet->fds, packet->nfds);
    if (answer >= 0)
        machrv_close(answer);
    PyList_SetSlice(came, 0, PyList_Size(came), NULL);
    return NULL;
}

PyDoc_STRVAR(ask_doc,
             "ask(link, id, space, milliseconds, came): see machrv_ask in include/machrv/linux.h.\n\n"
             "None if nothing was sent. Otherwise the message, if the result is positive, and `came`, a list, gets the\n"
             "machrv_arrived of its rights (the machrv_received, if the result is 0), the socket that the answer comes to, the\n"
             "result, and whether the rights are as usual.");

static PyObject *ask(PyObject *module, PyObject *arguments)
{
    const char *link;
    int id, space, milliseconds, answer, result;
    PyObject *came, *message;
    machrv_received *packet;
    machrv_arrived *rights;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "yiiiO!", &link, &id, &space, &milliseconds, &PyList_Type, &came))
        return NULL;
    /* Not zeroed: pages that are not touched cost nothing. */
    packet = PyMem_Malloc(sizeof *packet);
    rights = PyMem_Malloc(sizeof *rights * MACHRV_MAX_FDS);
    if (packet && rights) {
        packet->nfds = 0;
        Py_BEGIN_ALLOW_THREADS
        result = machrv_ask(link, id, space, milliseconds, packet, rights, &nobody, &answer);
        Py_END_ALLOW_THREADS
        message = told(came, result, answer, packet, rights);
    } else
        message = PyErr_NoMemory();
    PyMem_Free(packet);
    PyMem_Free(rights);
    return message;
}

PyDoc_STRVAR(close_doc, "close(fd): machrv_close.");

static PyObject *close_fd(PyObject *module, PyObject *fd)
{
    long number = PyLong_AsLong(fd);
    (void)module;
    if (number == -1 && PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    machrv_close((int)number);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyDoc_STRVAR(destroy_doc, "destroy(fd, space): give the send-once right `fd` up unused, and say so to its receiver.");

static PyObject *destroy(PyObject *module, PyObject *arguments)
{
    static const char nothing[24];
    int fd, space;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "ii", &fd, &space))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    machrv_send(fd, nothing, sizeof nothing, 0, 0, MACHRV_WIRE_DESTROYED, space, 0, NULL, 0, NULL, 0);
    machrv_close(fd);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"ask", ask, METH_VARARGS, ask_doc},
    {"close", close_fd, METH_O, close_doc},
    {"destroy", destroy, METH_VARARGS, destroy_doc},
    {NULL, NULL, 0, NULL},
};

#define CONSTANT(name) {#name, (long)(name)}

static const struct {
    const char *name;
    long value;
} constants[] = {
    CONSTANT(KERN_RESOURCE_SHORTAGE), /* what is said where nothing more can be loaded */
    CONSTANT(MACHRV_REPLY_ID),
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
    /* Where the descriptors of a message begin, behind their count, and what a machrv_arrived has before its id and in all:
     * in words of 32 bits. */
    {"DESCRIPTORS", sizeof(mach_msg_header_t) / 4 + 1},
    {"BEFORE_ID", offsetof(machrv_arrived, id) / 4},
    {"ARRIVED", sizeof(machrv_arrived) / 4},
    /* Where a machrv_received has the number of its descriptors, which follow. */
    {"NFDS", offsetof(machrv_received, nfds) / 4},
};

static int fill(PyObject *module)
{
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value))
            return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "machrv._claim", "What a child needs to claim its rights.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__claim(void) { return PyModuleDef_Init(&definition); }
