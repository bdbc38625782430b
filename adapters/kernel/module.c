/* Python's side: arrays come as buffers, whose sizes are checked here; what they mean say ivf.py and experts.py. */
#include "module.h"

#include <string.h>

Search *search = search_plain;
Correct *correct = experts_plain;
OnFound *add = add_plain;
OnFound *order = order_plain;
static const char *instructions = "plain";
enum { CALLS = 4 }; /* one more whenever functions take something else than they did; native.py says which it calls */

static int use(Search *own_search, Correct *own_correct, OnFound *own_add, OnFound *own_order, const char *name) {
  search = own_search;
  correct = own_correct;
  add = own_add;
  order = own_order;
  instructions = name;
  return 1;
}

/* Take the functions of these instructions, if this processor has them. */
static int take(const char *name) {
  if (strcmp(name, "plain") == 0) return use(search_plain, experts_plain, add_plain, order_plain, "plain");
#ifdef __x86_64__
  __builtin_cpu_init();
  int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  int vnni = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
  if (avx2 && strcmp(name, "avx2") == 0) return use(search_avx2, experts_avx2, add_avx2, order_avx2, "avx2");
  if (vnni && strcmp(name, "vnni") == 0) return use(search_vnni, experts_vnni, add_vnni, order_vnni, "vnni");
#endif
  return 0;
}

/* instructions(name=None): those in use, after taking others; all are for tests, which compare them. */
static PyObject *py_instructions(PyObject *self, PyObject *arguments) {
  (void)self;
  const char *name = NULL;
  if (!PyArg_ParseTuple(arguments, "|s", &name)) return NULL;
  if (name != NULL && !take(name)) return PyErr_Format(PyExc_ValueError, "no search for %s on this processor", name);
  return PyUnicode_FromString(instructions);
}

enum { PROBES = INDEX_BUFFERS, BEST_ROWS, SCORES, BUFFERS };
enum { SIZES = 6, NUMBERS = 5 }; /* dim, narrow, count, visited, kept, top; unit, reach, margin, near, below */

int take_index(const Py_buffer *given, Index *index, const Query *query) {
  size_t blocks = (size_t)given[BLOCK_ROWS].len / (ROWS * sizeof(int32_t));
  index->codes = given[CODES].buf;
  index->rows = given[BLOCK_ROWS].buf;
  index->starts = given[STARTS].buf;
  index->keys = given[KEYS].buf;
  index->lists = (size_t)given[STARTS].len / sizeof(int32_t) - 1;
  index->wide = (index->dim + 2 * GROUP - 1) / (2 * GROUP) * 2 * GROUP;
  index->directions = given[DIRECTIONS].buf;
  index->centroids = given[CENTROIDS].buf;
  return given[STARTS].len > 0 && given[KEYS].len > 0 && index->dim > 0 && index->narrow % LANES == 0 &&
         index->narrow > 0 && index->narrow <= 2048 && query->kept > 0 && query->top > 0 && query->visited > 0 &&
         (size_t)given[CODES].len == blocks * (ROWS / 4) * index->narrow &&
         (size_t)index->starts[index->lists] == blocks &&
         (size_t)given[DIRECTIONS].len == index->narrow * index->wide &&
         (size_t)given[CENTROIDS].len == (index->lists + LANES - 1) / LANES * LANES * index->narrow;
}

static PyObject *run(const Py_buffer *given, Index index, Query query) {
  query.probes = given[PROBES].buf;
  if (!take_index(given, &index, &query) || (size_t)given[PROBES].len != query.count * index.dim * sizeof(float) ||
      (size_t)given[BEST_ROWS].len != query.count * query.top * sizeof(int32_t) ||
      (size_t)given[SCORES].len != query.count * query.top * sizeof(float)) {
    PyErr_SetString(PyExc_ValueError, "search: the sizes of its arrays do not agree");
    return NULL;
  }
  int done;
  if (query.count <= FEW) { /* over before another thread would have begun */
    done = search(&index, &query, given[BEST_ROWS].buf, given[SCORES].buf);
  } else {
    Py_BEGIN_ALLOW_THREADS
    done = search(&index, &query, given[BEST_ROWS].buf, given[SCORES].buf);
    Py_END_ALLOW_THREADS
  }
  if (done < 0) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

size_t hold(PyObject *const *given, size_t count, size_t written, Py_buffer *held) {
  size_t at = 0;
  for (; at < count; at++)
    if (given[at] == Py_None)
      held[at] = (Py_buffer){0};
    else if (PyObject_GetBuffer(given[at], &held[at], at >= written ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0) break;
  return at;
}

void let_go(Py_buffer *held, size_t count) {
  while (count > 0) PyBuffer_Release(&held[--count]);
}

static PyObject *py_search(PyObject *self, PyObject *const *given, Py_ssize_t count) {
  (void)self;
  size_t sizes[SIZES];
  float numbers[NUMBERS];
  if (count != BUFFERS + SIZES + NUMBERS) {
    PyErr_SetString(PyExc_TypeError, "search takes nine arrays, six sizes and five numbers");
    return NULL;
  }
  for (size_t at = 0; at < SIZES; at++) sizes[at] = PyLong_AsSize_t(given[BUFFERS + at]);
  for (size_t at = 0; at < NUMBERS; at++) numbers[at] = (float)PyFloat_AsDouble(given[BUFFERS + SIZES + at]);
  if (PyErr_Occurred()) return NULL;
  Py_buffer held[BUFFERS];
  size_t got = hold(given, BUFFERS, BEST_ROWS, held);
  PyObject *result = NULL;
  if (got == BUFFERS)
    result = run(held, (Index){.dim = sizes[0], .narrow = sizes[1], .unit = numbers[0], .reach = numbers[1]},
                 (Query){.count = sizes[2], .visited = sizes[3], .kept = sizes[4], .top = sizes[5],
                         .margin = numbers[2], .near = numbers[3], .below = numbers[4]});
  let_go(held, got);
  return result;
}

/* What is done with the rows found, by name: (rows, scores, values, units, out, count, top, dim, first, second), where
 * first and second are the temperature and the weight of `add`, the spread and the ridge of `order`. */
static PyObject *run_found(PyObject *const *given, Py_ssize_t arguments, const char *name, OnFound *function) {
  enum { FOUND, FOUND_SCORES, VALUES, UNITS, SUM, FOUND_BUFFERS };
  if (arguments != FOUND_BUFFERS + 5) return PyErr_Format(PyExc_TypeError, "%s takes five arrays and five numbers", name);
  size_t count = PyLong_AsSize_t(given[5]), top = PyLong_AsSize_t(given[6]), dim = PyLong_AsSize_t(given[7]);
  double first = PyFloat_AsDouble(given[8]), second = PyFloat_AsDouble(given[9]);
  if (PyErr_Occurred()) return NULL;
  Py_buffer held[FOUND_BUFFERS];
  size_t got = hold(given, FOUND_BUFFERS, SUM, held);
  PyObject *result = NULL;
  if (got == FOUND_BUFFERS) {
    size_t known = (size_t)held[UNITS].len / sizeof(float);
    if ((size_t)held[FOUND].len != count * top * sizeof(int32_t) || held[FOUND_SCORES].len != held[FOUND].len ||
        (size_t)held[VALUES].len != known * dim || (size_t)held[SUM].len != count * dim * sizeof(float) || top == 0)
      PyErr_Format(PyExc_ValueError, "%s: the sizes of its arrays do not agree", name);
    else if (function(held[FOUND].buf, held[FOUND_SCORES].buf, count, top, held[VALUES].buf, held[UNITS].buf, known,
                      dim, (float)first, (float)second, held[SUM].buf) < 0)
      PyErr_NoMemory();
    else {
      result = Py_None;
      Py_IncRef(result);
    }
  }
  let_go(held, got);
  return result;
}

static PyObject *py_add(PyObject *self, PyObject *const *given, Py_ssize_t arguments) {
  (void)self;
  return run_found(given, arguments, "add", add);
}

static PyObject *py_order(PyObject *self, PyObject *const *given, Py_ssize_t arguments) {
  (void)self;
  return run_found(given, arguments, "order", order);
}

enum { EXPERT_CODES, SCALES, OFFSETS, GIVEN, EXPERT_SCORES, OUT, EXPERT_BUFFERS };

static PyObject *run_experts(const Py_buffer *held, Experts experts, size_t count, size_t active, float temperature) {
  experts.codes = held[EXPERT_CODES].buf;
  experts.scales = held[SCALES].buf;
  experts.offsets = held[OFFSETS].buf;
  experts.narrow = (experts.source + 2 * GROUP - 1) / (2 * GROUP) * 2 * GROUP;
  experts.blocks = (experts.dim + LANES - 1) / LANES;
  size_t outputs = experts.experts * experts.blocks * LANES;
  if (experts.source == 0 || experts.dim == 0 || active == 0 || active > experts.experts ||
      (size_t)held[EXPERT_CODES].len != outputs * experts.narrow >> experts.nibbles ||
      (size_t)held[SCALES].len != outputs * sizeof(float) ||
      (size_t)held[OFFSETS].len != experts.experts * experts.dim * sizeof(float) ||
      (size_t)held[GIVEN].len != count * experts.source * sizeof(float) ||
      (size_t)held[EXPERT_SCORES].len != count * experts.experts * sizeof(float) ||
      (size_t)held[OUT].len != count * experts.dim * sizeof(float)) {
    PyErr_SetString(PyExc_ValueError, "correct: the sizes of its arrays do not agree");
    return NULL;
  }
  int done;
  if (count <= FEW) {
    done = correct(&experts, held[GIVEN].buf, held[EXPERT_SCORES].buf, count, active, temperature, held[OUT].buf);
  } else {
    Py_BEGIN_ALLOW_THREADS
    done = correct(&experts, held[GIVEN].buf, held[EXPERT_SCORES].buf, count, active, temperature, held[OUT].buf);
    Py_END_ALLOW_THREADS
  }
  if (done < 0) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

/* correct(codes, scales, offsets, given, scores, out, experts, source, dim, count, active, nibbles, temperature) */
static PyObject *py_correct(PyObject *self, PyObject *const *given, Py_ssize_t arguments) {
  (void)self;
  size_t sizes[6];
  if (arguments != EXPERT_BUFFERS + 7) {
    PyErr_SetString(PyExc_TypeError, "correct takes six arrays, six sizes and a temperature");
    return NULL;
  }
  for (size_t at = 0; at < 6; at++) sizes[at] = PyLong_AsSize_t(given[EXPERT_BUFFERS + at]);
  double temperature = PyFloat_AsDouble(given[EXPERT_BUFFERS + 6]);
  if (PyErr_Occurred()) return NULL;
  Py_buffer held[EXPERT_BUFFERS];
  size_t got = hold(given, EXPERT_BUFFERS, OUT, held);
  PyObject *result = NULL;
  if (got == EXPERT_BUFFERS)
    result = run_experts(held, (Experts){.experts = sizes[0], .source = sizes[1], .dim = sizes[2], .nibbles = sizes[5] != 0},
                         sizes[3], sizes[4], (float)temperature);
  let_go(held, got);
  return result;
}

static PyMethodDef functions[] = {
    {"search", (PyCFunction)(void (*)(void))py_search, METH_FASTCALL, "Rows and scores of the nearest keys."},
    {"serve", (PyCFunction)(void (*)(void))py_serve, METH_FASTCALL, "Map vectors and correct them by nearest pairs."},
    {"add", (PyCFunction)(void (*)(void))py_add, METH_FASTCALL, "Add the gated values of the rows found."},
    {"order", (PyCFunction)(void (*)(void))py_order, METH_FASTCALL, "Turn mapped queries by the rows found."},
    {"correct", (PyCFunction)(void (*)(void))py_correct, METH_FASTCALL, "Add what local experts correct."},
    {"instructions", py_instructions, METH_VARARGS, "The instructions in use, after taking those named."},
    {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", "Products of bytes.", -1, functions,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) {
  if (!take("vnni") && !take("avx2")) take("plain");
  PyObject *module = PyModule_Create(&definition);
  if (module != NULL && PyModule_AddIntConstant(module, "CALLS", CALLS) < 0) Py_CLEAR(module);
  return module;
}
