/* index.h - indices that data decides: checked, then used. */
#ifndef KILN_OPS_INDEX_H
#define KILN_OPS_INDEX_H

#include "ops/util.h"

/* Index `i` in [-n, n) made non-negative into *out; fails otherwise, naming the place. */
static inline kiln_status kiln_index_in(kiln_diag *diag, int64_t i, int64_t n, int64_t *out) {
    if (i < -n || i >= n) {
        return kiln_fail(diag, KILN_F_INDEX, "index %lld is out of range for an axis of size %lld",
                         (long long)i, (long long)n);
    }
    *out = i < 0 ? i + n : i;
    return KILN_OK;
}

/* The product of n sizes (which belong to tensors that exist). */
static inline int64_t kiln_index_span(const int64_t *dims, int32_t n) {
    int64_t p = 1;
    for (int32_t i = 0; i < n; i++) {
        p *= dims[i];
    }
    return p;
}

#endif
