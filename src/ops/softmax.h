/* softmax.h - the softmax of one row of scores, as Softmax and the attention operators use it. */
#ifndef KILN_OPS_SOFTMAX_H
#define KILN_OPS_SOFTMAX_H

#include "ir/type.h"

/* v[0..n) becomes exp(v) / sum of exp(v), n >= 1. `sink` (or NULL) is one more score that takes
 * part in the sum alone. In float16 and bfloat16 each step is rounded as by NumPy, whose results
 * the backend tests expect: a float16 sum is rounded once, a bfloat16 sum after every addition.
 * Other dtypes round nothing. NaN makes the whole row NaN, and so does a row of -inf. */
void kiln_softmax_row(double *v, int64_t n, kiln_dtype dtype, const double *sink);

#endif
