/* All that a residual does to a batch, in one call: steps of some microseconds each are not worth a way through Python. */
#include "module.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  VALUES = INDEX_BUFFERS, UNITS, TARGETS, TARGET_UNITS, BASE_CODES, BASE_SCALES, BASE_OFFSETS, CENTRE, VECTORS, OUT,
  BUFFERS
};
enum { DIM, NARROW, VISITED, KEPT, TOP, OUT_DIM, NORMALISE, COUNT, SIZES };
enum { UNIT, REACH, MARGIN, NEAR, BELOW, TEMPERATURE, WEIGHT, SPREAD, RIDGE, NUMBERS };

/* A residual map (residual.py): an index, what is done with the rows found, and the map under it, if it is in bytes. */
typedef struct {
  Index index;
  Query query;
  Experts base;
  const int8_t *values, *targets;
  const float *units, *target_units, *centre;
  size_t known, turning; /* values, and targets; 0 where nothing turns */
  int normalise;
  float numbers[NUMBERS];
} Residual;

static void normalise_rows(float *out, size_t count, size_t dim) {
  for (size_t one = 0; one < count; one++, out += dim) {
    float sums[16] = {0.0f}, square = 0.0f;
    size_t at = 0;
    for (; at + 16 <= dim; at += 16)
      for (size_t lane = 0; lane < 16; lane++) sums[lane] += out[at + lane] * out[at + lane];
    for (; at < dim; at++) square += out[at] * out[at];
    for (size_t lane = 0; lane < 16; lane++) square += sums[lane];
    float scale = square > 0.0f ? 1.0f / sqrtf(square) : 1.0f;
    for (size_t place = 0; place < dim; place++) out[place] *= scale;
  }
}

/* Map vectors (count, source) to out (count, dim), where a base that is not in bytes has left what it gives. */
static int serve(const Residual *map, const float *vectors, size_t count, float *out) {
  size_t source = map->index.dim, dim = map->base.dim, top = map->query.top;
  float *probes = malloc((count * source + 1) * sizeof *probes), *nought = calloc(count + 1, sizeof *nought);
  float *scores = malloc((count * top + 1) * sizeof *scores);
  int32_t *rows = malloc((count * top + 1) * sizeof *rows);
  int failed = probes && nought && scores && rows ? 0 : -1;
  for (size_t one = 0; failed == 0 && one < count; one++)
    for (size_t place = 0; place < source; place++)
      probes[one * source + place] = vectors[one * source + place] - map->centre[place];
  Query query = map->query;
  query.probes = probes;
  query.count = count;
  const float *with = map->numbers;
  if (failed == 0 && map->base.codes != NULL) {
    memset(out, 0, count * dim * sizeof *out);
    failed = correct(&map->base, probes, nought, count, 1, 1.0f, out);
  }
  if (failed == 0) failed = search(&map->index, &query, rows, scores);
  if (failed == 0)
    failed = add(rows, scores, count, top, map->values, map->units, map->known, dim, with[TEMPERATURE], with[WEIGHT], out);
  if (failed == 0 && map->turning > 0)
    failed = order(rows, scores, count, top, map->targets, map->target_units, map->turning, dim, with[SPREAD],
                   with[RIDGE], out);
  if (failed == 0 && map->normalise) normalise_rows(out, count, dim);
  free(probes);
  free(nought);
  free(scores);
  free(rows);
  return failed;
}

/* Take what is given; whether the sizes of the arrays agree with each other. */
static int take_map(const Py_buffer *held, const size_t *sizes, Residual *map) {
  size_t dim = sizes[OUT_DIM], wide = (sizes[DIM] + 2 * GROUP - 1) / (2 * GROUP) * 2 * GROUP;
  size_t blocks = (dim + LANES - 1) / LANES;
  map->index = (Index){.dim = sizes[DIM], .narrow = sizes[NARROW], .unit = map->numbers[UNIT], .reach = map->numbers[REACH]};
  map->query = (Query){.visited = sizes[VISITED], .kept = sizes[KEPT], .top = sizes[TOP], .margin = map->numbers[MARGIN],
                       .near = map->numbers[NEAR], .below = map->numbers[BELOW]};
  map->base = (Experts){.scales = held[BASE_SCALES].buf, .offsets = held[BASE_OFFSETS].buf, .experts = 1,
                        .source = sizes[DIM], .narrow = wide, .blocks = blocks, .dim = dim};
  if (held[BASE_CODES].len > 0) map->base.codes = held[BASE_CODES].buf;
  map->values = held[VALUES].buf, map->units = held[UNITS].buf;
  map->targets = held[TARGETS].buf, map->target_units = held[TARGET_UNITS].buf;
  map->centre = held[CENTRE].buf;
  map->known = (size_t)held[UNITS].len / sizeof(float), map->turning = (size_t)held[TARGET_UNITS].len / sizeof(float);
  map->normalise = sizes[NORMALISE] != 0;
  return take_index(held, &map->index, &map->query) && dim > 0 && (size_t)held[VALUES].len == map->known * dim &&
         (size_t)held[TARGETS].len == map->turning * dim && (size_t)held[CENTRE].len == sizes[DIM] * sizeof(float) &&
         (map->base.codes == NULL || ((size_t)held[BASE_CODES].len == blocks * LANES * wide &&
                                      (size_t)held[BASE_SCALES].len == blocks * LANES * sizeof(float) &&
                                      (size_t)held[BASE_OFFSETS].len == dim * sizeof(float))) &&
         (size_t)held[VECTORS].len == sizes[COUNT] * sizes[DIM] * sizeof(float) &&
         (size_t)held[OUT].len == sizes[COUNT] * dim * sizeof(float);
}

/* serve(the arrays of the first enum, numbers, sizes, of which COUNT is the last, vectors, out): arrays in their order. */
PyObject *py_serve(PyObject *self, PyObject *const *given, Py_ssize_t count) {
  (void)self;
  size_t sizes[SIZES];
  Residual map = {0};
  if (count != BUFFERS + SIZES + NUMBERS) {
    PyErr_SetString(PyExc_TypeError, "serve takes sixteen arrays, nine numbers and eight sizes, in another order");
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
