/* For AVX-512 with VNNI: one instruction multiplies and adds the four numbers of sixteen keys. */
#include "search.h"

#ifdef __x86_64__
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,popcnt,prefer-vector-width=512")
#include <immintrin.h>
#include <math.h>

static inline __m512i load(const uint8_t *codes) { return _mm512_loadu_si512((const void *)codes); }

static inline __m512i four_of(const int8_t *probe) {
  int32_t four;
  __builtin_memcpy(&four, probe, sizeof four);
  return _mm512_set1_epi32(four);
}

/* One block for one query: even and odd groups are summed apart, since a sum waits for the one before it. */
static inline void sum_one(const uint8_t *codes, size_t groups, const int8_t *probe, int32_t *sums) {
  __m512i even = _mm512_setzero_si512(), odd = even;
  for (size_t group = 0; group < groups; group += 2, codes += 2 * LANES * GROUP, probe += 2 * GROUP) {
    even = _mm512_dpbusd_epi32(even, load(codes), four_of(probe));
    odd = _mm512_dpbusd_epi32(odd, load(codes + LANES * GROUP), four_of(probe + GROUP));
  }
  _mm512_storeu_si512((void *)sums, _mm512_add_epi32(even, odd));
}

/* One block for four queries, whose sums do not wait for each other. */
static inline void sum_four(const uint8_t *codes, size_t groups, const int8_t *const *probes, int32_t (*sums)[LANES]) {
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (size_t at = 0; at < groups * GROUP; at += GROUP) {
    __m512i block = load(codes + at * LANES);
    a = _mm512_dpbusd_epi32(a, block, four_of(probes[0] + at));
    b = _mm512_dpbusd_epi32(b, block, four_of(probes[1] + at));
    c = _mm512_dpbusd_epi32(c, block, four_of(probes[2] + at));
    d = _mm512_dpbusd_epi32(d, block, four_of(probes[3] + at));
  }
  _mm512_storeu_si512((void *)sums[0], a);
  _mm512_storeu_si512((void *)sums[1], b);
  _mm512_storeu_si512((void *)sums[2], c);
  _mm512_storeu_si512((void *)sums[3], d);
}

static inline void sum_block(const uint8_t *codes, size_t groups, const int8_t *const *probes, int number,
                             int32_t (*sums)[LANES]) {
  if (number == 1)
    sum_one(codes, groups, probes[0], sums[0]);
  else
    sum_four(codes, groups, probes, sums);
}

#define SCORES_ROWS
/* Keys are signed, and one side must not be: 128 is added to theirs, twice what was added to those of `nought`. */
static inline int32_t score_row(const int8_t *key, const int8_t *probe, size_t dim, int32_t nought) {
  __m512i total = _mm512_setzero_si512(), above = _mm512_set1_epi8((char)0x80);
  for (size_t place = 0; place < dim; place += 64) {
    __mmask64 real = dim - place < 64 ? ((__mmask64)1 << (dim - place)) - 1 : ~(__mmask64)0;
    __m512i own = _mm512_xor_si512(_mm512_maskz_loadu_epi8(real, key + place), above);
    total = _mm512_dpbusd_epi32(total, own, _mm512_loadu_si512((const void *)(probe + place)));
  }
  return _mm512_reduce_add_epi32(total) - 128 / ZERO * nought;
}

#define REACHES
/* A bit for each of LANES scores that reaches a threshold. */
static inline uint32_t reaching(const int16_t *scores, int16_t threshold) {
  return _mm256_cmpge_epi16_mask(_mm256_loadu_si256((const __m256i *)scores), _mm256_set1_epi16(threshold));
}

#define SUMS_NIBBLES
/* Sums of 16 outputs by 4-bit weights: low nibbles are of the first four of a probe's eight numbers. */
static inline __attribute__((always_inline)) void sum_nibbles(const uint8_t *codes, size_t narrow, const int8_t *const *probes, int number,
                               int32_t (*sums)[LANES]) {
  const __m512i mask = _mm512_set1_epi8(15);
  __m512i own[4];
  for (int one = 0; one < 4; one++) own[one] = _mm512_setzero_si512();
  for (size_t place = 0; place < narrow; place += 8) {
    __m512i both = load(codes + place * 8);
    __m512i low = _mm512_and_si512(both, mask), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    for (int one = 0; one < number; one++) {
      own[one] = _mm512_dpbusd_epi32(own[one], low, four_of(probes[one] + place));
      own[one] = _mm512_dpbusd_epi32(own[one], high, four_of(probes[one] + place + GROUP));
    }
  }
  for (int one = 0; one < number; one++) _mm512_storeu_si512((void *)sums[one], own[one]);
}

#include "shuffle.inc"
#include "pairs.inc"

#define SEARCH search_vnni
#define EXPERTS experts_vnni
#define ADD add_vnni
#define ORDER order_vnni
#include "search.inc"
#include "experts.inc"
#include "mix.inc"
#include "solve.inc"
#include "add.inc"
#include "order.inc"
#endif
