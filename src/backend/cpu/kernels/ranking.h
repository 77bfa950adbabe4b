/* ranking.h - the order of numbers by sorting integers: what TopK and NonMaxSuppression share.
 *
 * A number of at most 32 bits becomes a key, an unsigned integer in the same order or the opposite
 * one; NaN counts as the greatest, the two zeros as equal, as in ops/order.h. Pairs of a key and
 * its index are sorted by radix, eight bits at a time, so that of equals the lower index is first
 * and no time depends on how the numbers lie.
 *
 *     kiln_ranking r = kiln_ranking_at(scratch, n);          // kiln_ranking_bytes(n) bytes
 *     m = kiln_ranking_load(&r, dtype, x, 1, n, true);
 *     kiln_ranking_first(&r, k);                             // r.items[0..k)
 */
#ifndef KILN_BACKEND_CPU_KERNELS_RANKING_H
#define KILN_BACKEND_CPU_KERNELS_RANKING_H

#include "kiln/kiln.h"

#include "base/compiler.h"

typedef struct kiln_ranking {
    uint32_t *keys;
    int32_t *items;
    uint32_t *other_keys; /* scratch */
    int32_t *other_items;
    int64_t n;
} kiln_ranking;

/* Bytes for n pairs and their scratch, a multiple of 64; n below 2^31. */
size_t kiln_ranking_bytes(int64_t n);
/* Lays out n pairs in memory of that size, aligned to 64. */
kiln_ranking kiln_ranking_at(void *memory, int64_t n);

/* Whether elements of the type have keys. */
bool kiln_ranking_takes(kiln_dtype dtype);
/* Pairs of x[0], x[stride], ... and their numbers 0 .. n-1; the least key is that of the smallest,
 * or of the greatest. */
void kiln_ranking_load(kiln_ranking *r, kiln_dtype dtype, const void *x, int64_t stride, int64_t n,
                       bool descending);
/* The key of a float, ascending. */
uint32_t kiln_ranking_key(float x);

/* Sorts the n pairs by key; equal keys stay in their order. */
void kiln_ranking_sort(kiln_ranking *r);
/* The k <= n first pairs in order; the others are lost. */
void kiln_ranking_first(kiln_ranking *r, int64_t k);

#endif
