/* Python's side of serve.c: what is given, and whether its sizes agree; what it means says residual.py. */
#include "module.h"
#include "serve.h"

#include <string.h>

enum {
  VALUES = INDEX_BUFFERS, UNITS, TARGETS, TARGET_UNITS, CENTRE, BASE_CODES, BASE_SCALES, BASE_OFFSETS, BASE_CENTRE,
  EXPERT_CODES, EXPERT_SCALES, EXPERT_OFFSETS, ROUTES, VECTORS, OUT, BUFFERS
};
enum { DIM, NARROW, VISITED, KEPT, TOP, OUT_DIM, ACTIVE, NIBBLES, NORMALISE, COUNT, SIZES };
/* Experts whose arrays lie from `codes` on; whether their sizes agree. Those without codes are not there. */
static int take_experts(const Py_buffer *held, const size_t *sizes, size_t number, int nibbles, Experts *experts) {
  size_t dim = sizes[OUT_DIM], wide = (sizes[DIM] + 2 * GROUP - 1) / (2 * GROUP) * 2 * GROUP;
  size_t blocks = (dim + LANES - 1) / LANES, outputs = number * blocks * LANES;
  *experts = (Experts){.scales = held[1].buf, .offsets = held[2].buf, .experts = number, .source = sizes[DIM],
                       .narrow = wide, .blocks = blocks, .dim = dim, .nibbles = nibbles};
  if (held[0].len == 0) return 1;
  experts->codes = held[0].buf;
  return (size_t)held[0].len == outputs * wide >> nibbles && (size_t)held[1].len == outputs * sizeof(float) &&
         (size_t)held[2].len == number * dim * sizeof(float);
}

/* Take what is given; whether the sizes of the arrays agree with each other. */
static int take_map(const Py_buffer *held, const size_t *sizes, Residual *map) {
  size_t dim = sizes[OUT_DIM], centre = sizes[DIM] * sizeof(float);
  map->index = (Index){.dim = sizes[DIM], .narrow = sizes[NARROW], .unit = map->numbers[UNIT], .reach = map->numbers[REACH]};
  map->query = (Query){.visited = sizes[VISITED], .kept = sizes[KEPT], .top = sizes[TOP], .margin = map->numbers[MARGIN],
                       .near = map->numbers[NEAR], .below = map->numbers[BELOW]};
  map->values = held[VALUES].buf, map->units = held[UNITS].buf;
  map->targets = held[TARGETS].buf, map->target_units = held[TARGET_UNITS].buf;
  map->centre = held[CENTRE].buf;
  map->base_centre = held[BASE_CENTRE].len > 0 ? held[BASE_CENTRE].buf : map->centre;
  map->known = (size_t)held[UNITS].len / sizeof(float), map->turning = (size_t)held[TARGET_UNITS].len / sizeof(float);
  map->active = sizes[ACTIVE];
  map->normalise = sizes[NORMALISE] != 0;
  if (!take_index(held, &map->index, &map->query) || dim == 0) return 0;
  size_t experts = (size_t)held[ROUTES].len / centre;
  int agree = take_experts(held + BASE_CODES, sizes, 1, 0, &map->base) &&
              take_experts(held + EXPERT_CODES, sizes, experts, sizes[NIBBLES] != 0, &map->experts);
  map->experts.routes = held[ROUTES].buf;
  return agree && (size_t)held[ROUTES].len == experts * centre &&
         (map->experts.codes == NULL || (map->active > 0 && map->active <= experts)) &&
         (size_t)held[VALUES].len == map->known * dim && (size_t)held[TARGETS].len == map->turning * dim &&
         (size_t)held[CENTRE].len == centre &&
         (held[BASE_CENTRE].len == 0 || (size_t)held[BASE_CENTRE].len == centre) &&
         (size_t)held[VECTORS].len == sizes[COUNT] * centre &&
         (size_t)held[OUT].len == sizes[COUNT] * dim * sizeof(float);
}

/* serve(the arrays of the first enum, numbers, sizes, of which COUNT is the last, vectors, out): arrays in their order. */
PyObject *py_serve(PyObject *self, PyObject *const *given, Py_ssize_t count) {
  (void)self;
  size_t sizes[SIZES];
  Residual map = {0};
  if (count != BUFFERS + SIZES + NUMBERS) {
    PyErr_SetString(PyExc_TypeError, "serve takes twenty-one arrays, ten numbers and ten sizes, in another order");
    return NULL;
  }
  PyObject *arrays[BUFFERS];
  memcpy(arrays, given, VECTORS * sizeof *arrays);
  for (size_t at = 0; at < NUMBERS; at++) map.numbers[at] = (float)PyFloat_AsDouble(given[VECTORS + at]);
  for (size_t at = 0; at < SIZES; at++) sizes[at] = PyLong_AsSize_t(given[VECTORS + NUMBERS + at]);
  arrays[VECTORS] = given[count - 2], arrays[OUT] = given[count - 1];
  if (PyErr_Occurred()) return NULL;
  Py_buffer held[BUFFERS];
  size_t got = hold(arrays, BUFFERS, OUT, held);
  PyObject *result = NULL;
  if (got == BUFFERS) {
    int failed = 0;
    if (!take_map(held, sizes, &map))
      PyErr_SetString(PyExc_ValueError, "serve: the sizes of its arrays do not agree");
    else {
      if (sizes[COUNT] <= FEW) { /* over before another thread would have begun */
        failed = serve(&map, held[VECTORS].buf, sizes[COUNT], held[OUT].buf);
      } else {
        Py_BEGIN_ALLOW_THREADS
        failed = serve(&map, held[VECTORS].buf, sizes[COUNT], held[OUT].buf);
        Py_END_ALLOW_THREADS
      }
      if (failed < 0) PyErr_NoMemory();
      else result = Py_NewRef(Py_None);
    }
  }
  let_go(held, got);
  return result;
}
