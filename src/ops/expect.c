/* expect.c - see expect.h. */
#include "ops/expect.h"

kiln_status kiln_expect_dim(const kiln_infer *c, int32_t i, int32_t d, kiln_dim want,
                            const char *what) {
    kiln_dim got = kiln_infer_has(c, i) ? kiln_infer_dim(c, i, d) : KILN_DIM_UNKNOWN;
    if (kiln_dim_differ(got, want)) {
        return KILN_INFER_FAIL(c, SHAPE, "dim %d of %s is %lld, it must be %lld", d, what,
                               (long long)got, (long long)want);
    }
    return KILN_OK;
}

kiln_status kiln_expect_shape(const kiln_infer *c, int32_t i, const char *what, int32_t rank,
                              const kiln_dim *want) {
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_rank(c, i, rank, rank));
    for (int32_t d = 0; d < rank; d++) {
        KILN_TRY(kiln_expect_dim(c, i, d, want[d], what));
    }
    return KILN_OK;
}

kiln_status kiln_expect_single(const kiln_infer *c, int32_t i, const char *what) {
    int32_t rank = kiln_infer_has(c, i) ? kiln_infer_in_rank(c, i) : 0;
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim n = kiln_infer_dim(c, i, d);
        if (kiln_dim_differ(n, 1)) {
            return KILN_INFER_FAIL(c, SHAPE, "%s must be a single element, dim %d is %lld", what, d,
                                   (long long)n);
        }
    }
    return KILN_OK;
}

kiln_status kiln_infer_output(kiln_infer *c, int32_t i, kiln_dtype dtype, int32_t rank,
                              const kiln_dim *dims) {
    kiln_dim *out = kiln_infer_dims(c, i, dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < rank; d++) {
        out[d] = dims[d];
    }
    return KILN_OK;
}

kiln_status kiln_expect_product(const kiln_infer *c, int64_t a, int64_t b, const char *what,
                                int64_t *out) {
    if (!kiln_mul_i64(a, b, out) || *out > -KILN_DIM_MIN) {
        return KILN_INFER_FAIL(c, OVERFLOW, "%s: %lld times %lld is too large", what, (long long)a,
                               (long long)b);
    }
    return KILN_OK;
}

kiln_status kiln_expect_split(const kiln_infer *c, kiln_dim dim, int64_t parts, const char *what,
                              kiln_dim *out) {
    *out = KILN_DIM_UNKNOWN;
    if (parts < 1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "%s: %lld parts", what, (long long)parts);
    }
    if (kiln_dim_known(dim)) {
        if (dim % parts != 0) {
            return KILN_INFER_FAIL(c, SHAPE, "%s: %lld do not divide into %lld equal parts", what,
                                   (long long)dim, (long long)parts);
        }
        *out = dim / parts;
    } else {
        *out = kiln_dim_div(c->dims, dim, parts);
    }
    return KILN_OK;
}
