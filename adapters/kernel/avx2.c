/* For AVX2: products of bytes are added in pairs to 16 bits, which codes up to MOST cannot exceed. */
#include "search.h"

#ifdef __x86_64__
#pragma GCC target("avx2,fma")
#include <immintrin.h>
#include <math.h>
#include <string.h>

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

#define SCORES_ROWS
/* Keys and probes are from -127 to 127: the sign of one goes to the other, and pairs of products fit into 16 bits. */
static inline __m256i add_row_products(__m256i sum, const int8_t *key, const int8_t *probe) {
  __m256i own = _mm256_loadu_si256((const __m256i *)key);
  __m256i turned = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)probe), own);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(own), turned), _mm256_set1_epi16(1)));
}

static inline int32_t score_row(const int8_t *key, const int8_t *probe, size_t dim, int32_t nought) {
  __m256i total = _mm256_setzero_si256(), other = total;
  size_t place = 0;
  (void)nought;
  for (; place + 64 <= dim; place += 64) {
    total = add_row_products(total, key + place, probe + place);
    other = add_row_products(other, key + place + 32, probe + place + 32);
  }
  total = _mm256_add_epi32(total, other);
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  int32_t score = _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
  for (; place < dim; place++) score += key[place] * probe[place];
  return score;
}

#define REACHES
/* A bit for each of LANES scores that reaches a threshold. */
static inline uint32_t reaching(const int16_t *scores, int16_t threshold) {
  __m256i below = _mm256_cmpgt_epi16(_mm256_set1_epi16(threshold), _mm256_loadu_si256((const __m256i *)scores));
  __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(below), _mm256_extracti128_si256(below, 1));
  return ~(uint32_t)_mm_movemask_epi8(bytes) & 0xffffu;
}

#include "nibbles.inc"
#include "shuffle.inc"
#include "pairs.inc"

#define SEARCH search_avx2
#define EXPERTS experts_avx2
#define ADD add_avx2
#define ORDER order_avx2
#include "search.inc"
#include "experts.inc"
#include "mix.inc"
#include "solve.inc"
#include "add.inc"
#include "order.inc"
#endif
