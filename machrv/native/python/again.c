/*
 * A plain message, again, without CFFI: see machrv/native/linux/again.c.
 *
 * What belongs here: the three calls that are made for every plain message. What must never happen here: a wait. The GIL is
 * held: to let it go takes longer than most of these calls, none of which waits, and whoever is inside the gate does not
 * wait for it.
 */

#include "direct.h"

PyDoc_STRVAR(send_doc, "send_again(gate, message): whether machrv_send_again has sent it.");

static PyObject *send_again(PyObject *module, PyObject *const *given, Py_ssize_t count)
{
    char *message;
    Py_ssize_t size;
    machrv_gate *gate;
    (void)module;
    if (!machrv_expect(count, 2) || PyBytes_AsStringAndSize(given[1], &message, &size) || !(gate = PyLong_AsVoidPtr(given[0])))
        return NULL;
    return PyBool_FromLong(machrv_send_again(gate, message, (size_t)size) == 0);
}

PyDoc_STRVAR(send_bare_doc, "send_bare_again(gate, name, id, body): whether machrv_send_bare_again has sent it.");

static PyObject *send_bare_again(PyObject *module, PyObject *const *given, Py_ssize_t count)
{
    char *body;
    Py_ssize_t size;
    machrv_gate *gate;
    unsigned long name;
    long id;
    (void)module;
    if (!machrv_expect(count, 4) || PyBytes_AsStringAndSize(given[3], &body, &size) || !(gate = PyLong_AsVoidPtr(given[0])))
        return NULL;
    name = PyLong_AsUnsignedLong(given[1]);
    id = PyLong_AsLong(given[2]);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(name <= UINT32_MAX && id >= INT32_MIN && id <= INT32_MAX &&
                           machrv_send_bare_again(gate, (uint32_t)name, (int32_t)id, body, (size_t)size) == 0);
}

PyDoc_STRVAR(receive_doc,
             "receive_again(exchange, name): the message that machrv_receive_again has received.\n\n"
             "If it brought rights, or is not plain, the result of that instead: the exchange is held then. Below 0: none.");

static PyObject *receive_again(PyObject *module, PyObject *const *given, Py_ssize_t count)
{
    machrv_exchange *what;
    unsigned long name;
    int result;
    PyObject *message;
    (void)module;
    if (!machrv_expect(count, 2) || !(what = PyLong_AsVoidPtr(given[0])))
        return NULL;
    name = PyLong_AsUnsignedLong(given[1]);
    if (PyErr_Occurred())
        return NULL;
    result = name <= UINT32_MAX ? machrv_receive_again(what, (uint32_t)name) : -1;
    if (result <= 0 || result & 1)
        return PyLong_FromLong(result);
    message = PyBytes_FromStringAndSize(what->into->body - sizeof(mach_msg_header_t), result);
    machrv_let_go(what);
    return message;
}

PyMethodDef machrv_again_methods[] = {
    DIRECT("send_again", send_again, send_doc),
    DIRECT("send_bare_again", send_bare_again, send_bare_doc),
    DIRECT("receive_again", receive_again, receive_doc),
    {NULL, NULL, 0, NULL},
};
