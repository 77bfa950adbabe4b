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
/* Compares elements a and b of t. */
int kiln_order_elements(const kiln_tensor *t, int64_t a, int64_t b);

#endif
