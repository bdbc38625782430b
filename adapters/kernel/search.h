/* The search of ivf.py over packed codes, with the instructions of the processor at hand. */
#ifndef CROSSFADE_SEARCH_H
#define CROSSFADE_SEARCH_H

#include <stddef.h>
#include <stdint.h>

enum { ROWS = 32 };                        /* keys of a block that is scanned */
enum { LANES = 16, GROUP = 4 };            /* outputs or lists of a block; numbers of each that lie together */
enum { MOST = 127, ZERO = 64, SHIFT = 6 }; /* largest code of a query; a list's code of nought; bits its scores lose */

/* What ivf.py packs. codes are [block][narrow / 4][32 keys], two pairs of numbers in each byte; rows name the keys of
 * each block, -1 where it is filled up; starts are the first block of each list, and the end; keys (n, dim) are whole
 * rows; centroids are codes of the lists, [block][narrow / 4][16 lists][4]; directions are those on which a query is narrowed, [block][wide / 4][16][4],
 * where wide is dim up to a multiple of two GROUPs. */
typedef struct {
  const uint8_t *codes, *centroids, *directions;
  const int32_t *rows, *starts;
  const int8_t *keys;
  size_t lists, narrow, wide, dim;
  float unit, reach; /* of keys; the length of a list's centroid in codes */
} Index;

/* What is asked: probes (count, dim) of any length, how many of the best lists are visited, and how many candidates are
 * kept by code, then by key. By code fewer are kept where scores are more than `margin` below the last of the best `top`,
 * in units of the length of the query in whole numbers. Of the lists, a quarter are visited, and the others where their
 * cosine reaches near * (that of the best)^4 - below. */
typedef struct {
  const float *probes;
  size_t count, visited, kept, top;
  float margin, near, below;
} Query;

/* Leave rows and scores (count, top), best first, equal ones by row; row -1 where fewer were found. The return value is
 * 0, or -1 for want of memory. */
typedef int Search(const Index *index, const Query *query, int32_t *rows, float *scores);
Search search_plain, search_avx2, search_vnni;

/* Local experts: codes are [expert][block of 16 outputs][narrow / 4][16][4], scales (experts, blocks * 16) what one is
 * worth, offsets (experts, dim); narrow is the source's dimensions, filled up to a multiple of two GROUPs. With `nibbles`
 * codes are [expert][block][narrow / 8][16][4], two in a byte, and 8 is their nought. */
typedef struct {
  const uint8_t *codes;
  const float *scales, *offsets, *routes; /* routes (experts, source), or NULL where scores by them are given */
  size_t experts, source, narrow, blocks, dim;
  int nibbles; /* 0 or 1 */
} Experts;

/* Add to out (count, dim) what the `active` best experts by scores (count, experts), or by their routes, make of given
 * (count, source). */
typedef int Correct(const Experts *experts, const float *given, const float *scores, size_t count, size_t active,
                    float temperature, float *out);
Correct experts_plain, experts_avx2, experts_vnni;

/* What is done with values (known, dim) in units (known,) of the rows found (count, top) to out (count, dim). `add` adds
 * them by second * softmax(score / first); `order` turns out so that their products with it come nearer to first *
 * scores, with second as the ridge. The return value is 0, or -1 for want of memory. */
typedef int OnFound(const int32_t *rows, const float *scores, size_t count, size_t top, const int8_t *values,
                    const float *units, size_t known, size_t dim, float first, float second, float *out);
OnFound add_plain, add_avx2, add_vnni, order_plain, order_avx2, order_vnni;

#endif
