/* range.c - Range: start, start + delta, ... below (or above) a limit. */
#include <math.h>

#include "ops/move.h"

typedef struct range_attrs {
    int64_t stash_type;
} range_attrs;

static const kiln_attr table[] = {KILN_A_INT(range_attrs, stash_type, 1)};

static kiln_dim int_count(kiln_infer *c, kiln_dim start, kiln_dim limit, kiln_dim delta) {
    kiln_dim span = kiln_dim_sub(c->dims, limit, start);
    if (!kiln_dim_known(delta)) {
        return KILN_DIM_UNKNOWN;
    }
    if (delta < 0) {
        span = kiln_dim_sub(c->dims, start, limit);
        delta = -delta;
    }
    kiln_dim n = kiln_dim_div(c->dims, kiln_dim_add(c->dims, span, delta - 1), delta);
    /* A size minus nothing is never negative. */
    return start == 0 && !kiln_dim_known(n) ? n : kiln_dim_max(c->dims, n, 0);
}

static kiln_status int_infer(kiln_infer *c, kiln_dim *out) {
    kiln_dim v[3];
    for (int32_t i = 0; i < 3; i++) {
        int64_t n;
        const kiln_dim *p = kiln_infer_contents(c, i, &n);
        v[i] = p && n == 1 ? p[0] : KILN_DIM_UNKNOWN;
    }
    if (v[2] == 0) {
        return KILN_INFER_FAIL(c, VALUE, "delta is 0");
    }
    *out = int_count(c, v[0], v[1], v[2]);
    bool numbers = kiln_dim_known(v[0]) && kiln_dim_known(v[1]) && kiln_dim_known(v[2]);
    if (*out == KILN_DIM_UNKNOWN && numbers) {
        return KILN_INFER_FAIL(c, OVERFLOW, "a range from %lld to %lld is too long",
                               (long long)v[0], (long long)v[1]);
    }
    kiln_tensor y;
    if (numbers) {
        KILN_TRY(kiln_contents_out(c, 0, &y));
        for (int64_t i = 0; y.data && i < *out; i++) {
            ((kiln_dim *)y.data)[i] = v[0] + i * v[2];
        }
    }
    return KILN_OK;
}

static kiln_status float_infer(kiln_infer *c, kiln_dim *out) {
    double v[3];
    for (int32_t i = 0; i < 3; i++) {
        const double *p;
        int64_t n;
        KILN_TRY(kiln_infer_floats(c, i, &p, &n));
        if (!p || n != 1) {
            return KILN_OK;
        }
        v[i] = p[0];
    }
    double n = ceil((v[1] - v[0]) / v[2]);
    if (isnan(n) || v[2] == 0) {
        return KILN_INFER_FAIL(c, VALUE, "a range from %g to %g by %g has no size", v[0], v[1],
                               v[2]);
    }
    if (n > 0x1p48) {
        return KILN_INFER_FAIL(c, OVERFLOW, "a range from %g to %g by %g is too long", v[0], v[1],
                               v[2]);
    }
    *out = n > 0 ? (int64_t)n : 0;
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const uint32_t set = KILN_T_FLOAT | KILN_T_INT;
    for (int32_t i = 0; i < 3; i++) {
        KILN_TRY(kiln_infer_dtype(c, i, set));
        KILN_TRY(kiln_infer_same_dtype(c, 0, i));
        int64_t n = kiln_infer_length(c, i);
        if (kiln_infer_in_rank(c, i) > 1 || (n >= 0 && n != 1)) {
            return KILN_INFER_FAIL(c, SHAPE, "input %d must be a scalar", i);
        }
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, 1);
    if (!out) {
        return KILN_E_MEMORY;
    }
    KILN_TRY((kiln_dtype_is_float(c->in[0].type.dtype) ? float_infer : int_infer)(c, out));
    if (*out == KILN_DIM_UNKNOWN) {
        *out = kiln_dim_found(c->dims, KILN_DIM_UNKNOWN);
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *start = kiln_ref_in(c, 0), *delta = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    for (int64_t i = 0; i < y->dims[0]; i++) {
        if (kiln_dtype_is_float(y->dtype)) {
            double a = kiln_get_f64(start->dtype, start->data, 0);
            kiln_set_f64(y->dtype, y->data, i,
                         a + (double)i * kiln_get_f64(delta->dtype, delta->data, 0));
        } else {
            uint64_t a = (uint64_t)kiln_get_i64(start->dtype, start->data, 0);
            uint64_t step = (uint64_t)kiln_get_i64(delta->dtype, delta->data, 0);
            kiln_set_i64(y->dtype, y->data, i, (int64_t)(a + (uint64_t)i * step));
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_range = {
    .name = "Range",
    .domain = "",
    .since = 27,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, range_attrs),
    .tolerance = KILN_TOL_ROUND,
    .infer = infer,
    .ref = ref,
};
