/* bulk.h - runs of elements to and from doubles, for references that compute in double. */
#ifndef KILN_OPS_BULK_H
#define KILN_OPS_BULK_H

#include "ops/util.h"

/* dst[0..n) = elements at..at+n of t. Any numeric dtype. */
void kiln_load_f64(const kiln_tensor *t, int64_t at, int64_t n, double *dst);
/* Elements at..at+n of t = src[0..n), rounded to the dtype (kiln_set_f64). */
void kiln_store_f64(kiln_tensor *t, int64_t at, int64_t n, const double *src);
/* v rounded to a float dtype. */
double kiln_round_to(kiln_dtype dtype, double v);

#endif
