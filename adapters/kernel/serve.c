/* All that a residual does to a batch, in one call: steps of some microseconds each are not worth a way through Python. */
#include "serve.h"
#include "module.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PART = 16, WHOLE = 64 }; /* queries that are searched for together, and that weights are read for together */

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

/* Room for what is known of up to WHOLE queries; noughts are the scores of a base, which is always asked. */
typedef struct {
  float *probes, *noughts, *scores;
  int32_t *rows;
} Room;

static void centre_rows(const float *vectors, const float *centre, size_t count, size_t dim, float *probes) {
  for (size_t one = 0; one < count; one++, vectors += dim, probes += dim)
    for (size_t place = 0; place < dim; place++) probes[place] = vectors[place] - centre[place];
}

/* Correct what is mapped by the nearest pairs of probes (count, source). */
static int add_nearest(const Residual *map, const float *probes, size_t count, Room room, float *out) {
  size_t dim = map->base.dim, top = map->query.top;
  const float *with = map->numbers, *scores = room.scores;
  Query query = map->query;
  query.probes = probes;
  query.count = count;
  if (search(&map->index, &query, room.rows, room.scores) < 0 ||
      add(room.rows, scores, count, top, map->values, map->units, map->known, dim, with[TEMPERATURE], with[WEIGHT],
          out) < 0)
    return -1;
  if (map->turning > 0 && order(room.rows, scores, count, top, map->targets, map->target_units, map->turning, dim,
                                with[SPREAD], with[RIDGE], out) < 0)
    return -1;
  if (map->normalise) normalise_rows(out, count, dim);
  return 0;
}

/* Map at most WHOLE vectors (count, source) to out (count, dim), where what is not in bytes has left what it gives. */
static int serve_whole(const Residual *map, const float *vectors, size_t count, Room room, float *out) {
  size_t source = map->index.dim, dim = map->base.dim;
  centre_rows(vectors, map->base_centre, count, source, room.probes);
  if (map->base.codes != NULL) {
    memset(out, 0, count * dim * sizeof *out);
    if (correct(&map->base, room.probes, room.noughts, count, 1, 1.0f, out) < 0) return -1;
  }
  if (map->experts.codes != NULL &&
      correct(&map->experts, room.probes, NULL, count, map->active, map->numbers[GATING], out) < 0)
    return -1;
  if (map->base_centre != map->centre) centre_rows(vectors, map->centre, count, source, room.probes);
  for (size_t one = 0; one < count; one += PART)
    if (add_nearest(map, room.probes + one * source, count - one < PART ? count - one : PART, room, out + one * dim) < 0)
      return -1;
  return 0;
}

int serve(const Residual *map, const float *vectors, size_t count, float *out) {
  size_t source = map->index.dim, dim = map->base.dim, top = map->query.top, most = count < WHOLE ? count : WHOLE;
  Room room = {malloc((most * source + 1) * sizeof(float)), calloc(most + 1, sizeof(float)),
               malloc((PART * top + 1) * sizeof(float)), malloc((PART * top + 1) * sizeof(int32_t))};
  int failed = room.probes && room.noughts && room.scores && room.rows ? 0 : -1;
  for (size_t one = 0; failed == 0 && one < count; one += WHOLE)
    failed = serve_whole(map, vectors + one * source, count - one < WHOLE ? count - one : WHOLE, room, out + one * dim);
  free(room.probes);
  free(room.noughts);
  free(room.scores);
  free(room.rows);
  return failed;
}
