/* order.h - sorting indices by the elements they stand for.
 *
 * A stable bottom-up merge sort: equal elements keep the order of their indices, NaN counts as the
 * greatest (as in numpy), and no recursion depends on the data.
 */
#ifndef KILN_OPS_ORDER_H
#define KILN_OPS_ORDER_H

#include "ops/util.h"

/* Negative, zero or positive as item a comes before, with or after item b. */
typedef int kiln_order_fn(const void *user, int64_t a, int64_t b);

/* Sorts items[0..n) with scratch[0..n). */
void kiln_order_sort(int64_t *items, int64_t *scratch, int64_t n, kiln_order_fn *compare,
                     const void *user);
/* Elements at, at + stride, ... of a tensor of numbers as n integers in the same order, or in the
 * opposite one: for selecting and sorting many. NaN counts as the greatest. */
void kiln_order_keys(const kiln_tensor *t, int64_t at, int64_t stride, int64_t n, bool descending,
                     int64_t *keys);
/* items[0..k): the indices of the k smallest of n keys, in order; of equals the lower index is
 * first. k <= n. Takes n log k steps. */
void kiln_order_first(const int64_t *keys, int64_t n, int64_t k, int64_t *items);
/* Compares elements a and b of t. */
int kiln_order_elements(const kiln_tensor *t, int64_t a, int64_t b);

#endif
