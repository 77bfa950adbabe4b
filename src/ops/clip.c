/* clip.c - Clip: Min(max, Max(x, min)); either bound may be left out. */
#include <math.h>

#include "ops/elementwise.h"

static kiln_status check_bound(kiln_infer *c, int32_t i, const char *name) {
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_same_dtype(c, 0, i));
    const kiln_type *t = &c->in[i].type;
    for (int32_t d = 0; d < t->rank; d++) {
        if (kiln_dim_differ(t->dims[d], 1)) {
            return KILN_INFER_FAIL(c, SHAPE, "%s must be a scalar, its dim %d is %lld", name, d,
                                   (long long)t->dims[d]);
        }
    }
    return KILN_OK;
}

/* Element x held against bound i by fn (max or min), if that bound is there. */
static kiln_dim hold(kiln_infer *c, kiln_dim x, int32_t i,
                     kiln_dim (*fn)(kiln_dims *, kiln_dim, kiln_dim)) {
    int64_t n = 0;
    if (!kiln_infer_has(c, i)) {
        return x;
    }
    const kiln_dim *v = kiln_infer_contents(c, i, &n);
    return v && n == 1 ? fn(c->dims, x, v[0]) : KILN_DIM_UNKNOWN;
}

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_NUMBER));
    KILN_TRY(check_bound(c, 1, "min"));
    KILN_TRY(check_bound(c, 2, "max"));
    KILN_TRY(kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE));
    int64_t n = 0;
    const kiln_dim *x = kiln_infer_contents(c, 0, &n);
    if (!x || kiln_dtype_is_float(c->in[0].type.dtype)) {
        return KILN_OK;
    }
    kiln_dim *v;
    KILN_ALLOC(v, c->arena, n);
    for (int64_t i = 0; i < n; i++) {
        v[i] = hold(c, hold(c, x[i], 1, kiln_dim_max), 2, kiln_dim_min);
    }
    return kiln_infer_set_contents(c, 0, v, n);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *lo = kiln_ref_in(c, 1), *hi = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t n = kiln_tensor_count(x);
    if (kiln_dtype_is_float(x->dtype)) {
        double a = lo ? kiln_get_f64(lo->dtype, lo->data, 0) : -INFINITY;
        double b = hi ? kiln_get_f64(hi->dtype, hi->data, 0) : INFINITY;
        for (int64_t i = 0; i < n; i++) {
            double v = kiln_get_f64(x->dtype, x->data, i);
            v = v < a ? a : v;
            kiln_set_f64(y->dtype, y->data, i, v > b ? b : v);
        }
        return KILN_OK;
    }
    /* Flipping the top bit lets unsigned numbers be compared as signed ones. */
    uint64_t flip = kiln_dtype_is_signed_int(x->dtype) ? 0 : UINT64_C(1) << 63;
    int64_t a = lo ? (int64_t)((uint64_t)kiln_get_i64(lo->dtype, lo->data, 0) ^ flip) : INT64_MIN;
    int64_t b = hi ? (int64_t)((uint64_t)kiln_get_i64(hi->dtype, hi->data, 0) ^ flip) : INT64_MAX;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = (int64_t)((uint64_t)kiln_get_i64(x->dtype, x->data, i) ^ flip);
        v = v < a ? a : v;
        v = v > b ? b : v;
        kiln_set_i64(y->dtype, y->data, i, (int64_t)((uint64_t)v ^ flip));
    }
    return KILN_OK;
}

const kiln_op kiln_op_clip = {
    .name = "Clip",
    .domain = "",
    .since = 13,
    .min_in = 1,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE | KILN_OP_MONOTONE,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
