/* For any processor: the compiler finds what it can. */
#include <math.h>

#include "search.h"

static inline __attribute__((always_inline)) void sum_block(const uint8_t *codes, size_t groups,
                                                            const int8_t *const *probes, const int number,
                                                            int32_t (*sums)[LANES]) {
  for (int one = 0; one < number; one++) {
    int32_t own[LANES] = {0};
    for (size_t group = 0; group < groups; group++)
      for (size_t key = 0; key < LANES; key++)
        for (size_t part = 0; part < GROUP; part++)
          own[key] += codes[(group * LANES + key) * GROUP + part] * probes[one][group * GROUP + part];
    for (size_t key = 0; key < LANES; key++) sums[one][key] = own[key];
  }
}

void add_values(const int32_t *rows, const float *scores, size_t count, size_t top, const float *values, size_t known,
                size_t dim, float temperature, float weight, float *out) {
  for (size_t one = 0; one < count; one++, rows += top, scores += top, out += dim) {
    float total = 0.0f;
    size_t found = 0;
    while (found < top && rows[found] >= 0 && (size_t)rows[found] < known) found++;
    for (size_t at = 0; at < found; at++) total += expf((scores[at] - scores[0]) / temperature);
    for (size_t at = 0; at < found; at++) {
      float gate = weight * expf((scores[at] - scores[0]) / temperature) / total;
      const float *value = values + (size_t)rows[at] * dim;
      for (size_t place = 0; place < dim; place++) out[place] += gate * value[place];
    }
  }
}

#define SEARCH search_plain
#define EXPERTS experts_plain
#include "search.inc"
#include "experts.inc"
