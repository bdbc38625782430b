/* What a residual map is to the kernel. */
#ifndef CROSSFADE_SERVE_H
#define CROSSFADE_SERVE_H

#include "search.h"

enum { UNIT, REACH, MARGIN, NEAR, BELOW, TEMPERATURE, WEIGHT, SPREAD, RIDGE, GATING, NUMBERS };

/* A residual map (residual.py): an index, what is done with the rows found, and what lies under it in bytes: a linear
 * map, and experts that correct it. What is not there has no codes. */
typedef struct {
  Index index;
  Query query;
  Experts base, experts;
  const int8_t *values, *targets;
  const float *units, *target_units, *centre, *base_centre;
  size_t known, turning, active; /* values, targets, which are none where nothing turns, and experts that are asked */
  int normalise;
  float numbers[NUMBERS];
} Residual;

/* Map vectors (count, source) to out (count, dim), where what is not in bytes has left what it gives. The return value
 * is 0, or -1 for want of memory. */
int serve(const Residual *map, const float *vectors, size_t count, float *out);

#endif
