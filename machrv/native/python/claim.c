/*
 * A claim without CFFI: the request, its answer, and giving up what came of it.
 *
 * What belongs here: what a child does with its rights at least. What must never happen here: a way to ask that
 * machrv/native/linux does not offer to CFFI too.
 */

#include "direct.h"

#include <stdlib.h>

/* What this process is, to machrv_ask: unknown. A server is another process, or its kernel is more than this. */
static const machrv_identity nobody = {.pid = -1};

/* Takes the reference to the value; NULL is an error that has been raised. */
static int put(PyObject *dict, long long key, PyObject *value)
{
    PyObject *number = value ? PyLong_FromLongLong(key) : NULL;
    int failed = !number || PyDict_SetItem(dict, number, value);
    Py_XDECREF(number);
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

/* Whether it is a reply with send rights and nothing else, each the only one to its port. */
static int usual(const machrv_exchange *what)
{
    return what->ports && what->ports <= MACHRV_MAX_FDS && what->ports == what->nrights;
}

/* What `ask` returns: `came` has all that came with it. */
static PyObject *told(PyObject *came, const machrv_exchange *what, int result)
{
    const machrv_received *packet = what->into;
    PyObject *token = NULL;
    int failed = 0;
    if (result < 0 && what->fd < 0)
        Py_RETURN_NONE;
    if (result > 0 && usual(what)) {
        for (uint32_t i = 0; !failed && i < what->ports; i++)
            failed = put(came, what->keyed[i].key, PyLong_FromUnsignedLong(what->keyed[i].right));
        if (!failed)
            token = PyBytes_FromStringAndSize((const char *)what->token, sizeof what->token);
    } else {
        size_t told = result > 0 ? sizeof *what->rights * (size_t)packet->nfds : result ? 0 : sizeof *packet;
        failed = put(came, -1,
                     Py_BuildValue("iidy#y#", result, what->fd, result > 0 ? 0 : what->waited,
                                   result > 0 ? (const char *)what->rights : (const char *)packet, (Py_ssize_t)told,
                                   packet->body - sizeof(mach_msg_header_t), (Py_ssize_t)(result > 0 ? result : 0)));
        if (!failed)
            token = PyBytes_FromStringAndSize(NULL, 0);
    }
    if (token)
        return token;
    PyDict_Clear(came);
    if (result >= 0)
        machrv_close_all(packet->fds, packet->nfds);
    if (what->fd >= 0)
        machrv_close(what->fd);
    return NULL;
}

PyDoc_STRVAR(ask_doc,
             "ask(link, id, space, timeout, came): see machrv_ask in include/machrv/linux.h.\n\n"
             "None if nothing was sent. Where the answer is as nearly all are, its audit token as bytes, and `came`, a dict,\n"
             "gets the sockets of send rights by their keys. Otherwise b'', and came[-1] is a tuple: the result, the\n"
             "socket that the answer comes to, how long it was waited for, the machrv_arrived of its rights (of the result\n"
             "0, the machrv_received), and the message.");

static PyObject *ask(PyObject *module, PyObject *const *given, Py_ssize_t count)
{
    const char *link = machrv_expect(count, 5) ? PyBytes_AsString(given[0]) : NULL;
    long id, space;
    double timeout;
    int result;
    PyObject *came, *token;
    machrv_exchange what;
    (void)module;
    if (!link)
        return NULL;
    id = PyLong_AsLong(given[1]);
    space = PyLong_AsLong(given[2]);
    timeout = PyFloat_AsDouble(given[3]);
    came = given[4];
    if (PyErr_Occurred())
        return NULL;
    what.own = &nobody;
    what.nspent = 0;
    /* Not zeroed: pages that are not touched cost nothing. */
    what.into = PyMem_Malloc(sizeof *what.into);
    what.rights = PyMem_Malloc(sizeof *what.rights * MACHRV_MAX_FDS);
    if (what.into && what.rights) {
        what.into->nfds = 0;
        Py_BEGIN_ALLOW_THREADS
        result = machrv_ask(&what, link, (int)id, (int)space, timeout);
        Py_END_ALLOW_THREADS
        token = told(came, &what, result);
    } else
        token = PyErr_NoMemory();
    PyMem_Free(what.into);
    PyMem_Free(what.rights);
    return token;
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

PyDoc_STRVAR(environment_doc,
             "environment(name): a variable of the environment, as bytes; b'' if there is none. What os.environ sets is seen\n"
             "here; asking it takes several times as long.");

/* With the GIL, which whoever changes os.environ has too. */
static PyObject *environment(PyObject *module, PyObject *name)
{
    const char *bytes = PyBytes_AsString(name), *value = bytes ? getenv(bytes) : NULL;
    (void)module;
    return bytes ? PyBytes_FromString(value ? value : "") : NULL;
}

PyMethodDef machrv_claim_methods[] = {
    DIRECT("ask", ask, ask_doc),
    {"close", close_fd, METH_O, close_doc},
    {"environment", environment, METH_O, environment_doc},
    {NULL, NULL, 0, NULL},
};
