/* For AVX2: products of bytes are added in pairs to 16 bits, which codes up to MOST cannot exceed. */
#include "search.h"

#ifdef __x86_64__
#pragma GCC target("avx2,fma")
#include <immintrin.h>

static inline __m256i add_products(__m256i sum, const uint8_t *codes, __m256i probe) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_loadu_si256((const __m256i *)codes), probe);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline __attribute__((always_inline)) void sum_block(const uint8_t *codes, size_t groups,
                                                            const int8_t *const *probes, const int number,
                                                            int32_t (*sums)[LANES]) {
  __m256i low[4], high[4];
  for (int one = 0; one < number; one++) low[one] = high[one] = _mm256_setzero_si256();
  for (size_t group = 0; group < groups; group++)
    for (int one = 0; one < number; one++) {
      int32_t four;
      __builtin_memcpy(&four, probes[one] + group * GROUP, sizeof four);
      low[one] = add_products(low[one], codes + group * LANES * GROUP, _mm256_set1_epi32(four));
      high[one] = add_products(high[one], codes + group * LANES * GROUP + 32, _mm256_set1_epi32(four));
    }
  for (int one = 0; one < number; one++) {
    _mm256_storeu_si256((__m256i *)sums[one], low[one]);
    _mm256_storeu_si256((__m256i *)(sums[one] + 8), high[one]);
  }
}

#define SEARCH search_avx2
#define EXPERTS experts_avx2
#define ADD add_avx2
#define ORDER order_avx2
#include "search.inc"
#include "experts.inc"
#include "add.inc"
#include "order.inc"
#endif
