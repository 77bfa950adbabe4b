/* lanes.h - a tensor seen as [outer, n, inner] around one axis. */
#ifndef KILN_OPS_LANES_H
#define KILN_OPS_LANES_H

#include "ops/util.h"

typedef struct kiln_lanes {
    int64_t outer, n, inner; /* all 0 when the tensor is empty */
} kiln_lanes;

/* axis in [0, rank); rank 0 counts as [1, 1, 1]. */
static inline kiln_lanes kiln_lanes_of(const kiln_tensor *t, int32_t axis) {
    kiln_lanes l = {1, 1, 1};
    if (kiln_tensor_count(t) <= 0) {
        return (kiln_lanes){0, 0, 0};
    }
    for (int32_t i = 0; i < t->rank; i++) {
        int64_t *part = i < axis ? &l.outer : i == axis ? &l.n : &l.inner;
        *part *= t->dims[i];
    }
    return l;
}

/* Index of the first element of lane k of outer * inner; steps of l->inner follow it. */
static inline int64_t kiln_lane_start(const kiln_lanes *l, int64_t k) {
    return k / l->inner * l->n * l->inner + k % l->inner;
}

#endif
