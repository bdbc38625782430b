/* What the files of the module share: arrays come as buffers, and the functions of the processor at hand are called. */
#ifndef CROSSFADE_MODULE_H
#define CROSSFADE_MODULE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "search.h"

enum { CODES, BLOCK_ROWS, STARTS, CENTROIDS, DIRECTIONS, KEYS, INDEX_BUFFERS };
enum { FEW = 16 }; /* queries that are computed without letting go of the interpreter */

extern Search *search;
extern Correct *correct;
extern OnFound *add, *order;

/* Take the arrays of an index, whose dim and narrow are set; whether their sizes agree with each other. */
int take_index(const Py_buffer *given, Index *index, const Query *query);

/* Hold the buffers of the first arguments, those from `written` on to write to; None is one of no bytes, and costs
 * nothing. The number held, less on an error. */
size_t hold(PyObject *const *given, size_t count, size_t written, Py_buffer *held);
void let_go(Py_buffer *held, size_t count);

PyObject *py_serve(PyObject *self, PyObject *const *given, Py_ssize_t count);

#endif
