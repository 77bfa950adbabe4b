/* reduce.h - sets of axes. */
#ifndef KILN_OPS_REDUCE_H
#define KILN_OPS_REDUCE_H

#include "ops/attrs.h"
#include "ops/util.h"

/* mask[i] (KILN_MAX_RANK of them): axis i is reduced. n axes, which may be negative; none means all
 * unless noop. Fails on an axis out of range or named twice. */
kiln_status kiln_reduce_mask(const kiln_infer *c, const int64_t *axes, int64_t n, int32_t rank,
                             bool noop, bool *mask);

/* Strides of x's axes in the reduced output: 0 for masked ones. */
void kiln_reduce_strides(const kiln_tensor *x, const bool *mask, int64_t *strides);

#endif
