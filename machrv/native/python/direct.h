/*
 * The parts of machrv._direct, each of which is a table of functions: see module.c.
 */

#ifndef MACHRV_DIRECT_H
#define MACHRV_DIRECT_H

#include <pyconfig.h>
#if !defined(Py_GIL_DISABLED) && !defined(Py_TRACE_REFS) /* as CFFI does: with those there is no stable ABI */
#define Py_LIMITED_API 0x030A0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "machrv/linux.h"
#include "machrv/message.h"

#pragma GCC visibility push(hidden)

extern PyMethodDef machrv_claim_methods[]; /* claim.c */
extern PyMethodDef machrv_again_methods[]; /* again.c */

#pragma GCC visibility pop

/* Whether there are so many arguments; otherwise an error has been raised. */
static inline int machrv_expect(Py_ssize_t count, Py_ssize_t expected)
{
    if (count != expected)
        PyErr_Format(PyExc_TypeError, "%zd arguments expected", expected);
    return count == expected;
}

/* A function that is given its arguments one by one. */
#define DIRECT(name, function, doc) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, doc}

#endif
