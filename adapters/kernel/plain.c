/* For any processor: the compiler finds what it can. */
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

#define SEARCH search_plain
#define EXPERTS experts_plain
#define ADD add_plain
#define ORDER order_plain
#include "search.inc"
#include "experts.inc"
#include "mix.inc"
#include "solve.inc"
#include "add.inc"
#include "order.inc"
