/* cumulative.c - CumSum and CumProd along an axis given by input 1. */
#include "ops/attrs.h"
#include "ops/lanes.h"

static const kiln_attr table[] = {
    KILN_A_INT(kiln_cumulative_attrs, exclusive, 0),
    KILN_A_INT(kiln_cumulative_attrs, reverse, 0),
};

static kiln_status infer(kiln_infer *c) {
    const int64_t *v;
    int64_t n;
    int32_t rank = kiln_infer_in_rank(c, 0), axis;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT | KILN_T_INDEX | KILN_T(U32) | KILN_T(U64)));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_INDEX));
    KILN_TRY(kiln_infer_rank(c, 1, 0, 1));
    KILN_TRY(kiln_infer_ints(c, 1, &v, &n));
    if (kiln_infer_length(c, 1) >= 0 && kiln_infer_length(c, 1) != 1) {
        return KILN_INFER_FAIL(c, SHAPE, "axis has %lld elements, it must be one",
                               (long long)kiln_infer_length(c, 1));
    }
    if (v && rank > 0) {
        KILN_TRY(kiln_infer_axis(c, v[0], rank, "axis", &axis));
    }
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

static void lane(const kiln_cumulative_attrs *a, const kiln_tensor *x, kiln_tensor *y,
                 const kiln_lanes *l, int64_t at, bool product) {
    bool is_float = kiln_dtype_is_float(x->dtype);
    double acc = product;
    uint64_t bits = product;
    for (int64_t i = 0; i < l->n; i++) {
        int64_t p = at + (a->reverse ? l->n - 1 - i : i) * l->inner;
        for (int32_t pass = 0; pass < 2; pass++) {
            if (pass == (a->exclusive ? 1 : 0)) {
                double v = kiln_get_f64(x->dtype, x->data, p);
                uint64_t b = (uint64_t)kiln_get_i64(x->dtype, x->data, p);
                acc = product ? acc * v : acc + v;
                bits = product ? bits * b : bits + b;
            } else if (is_float) {
                kiln_set_f64(y->dtype, y->data, p, acc);
            } else {
                kiln_set_i64(y->dtype, y->data, p, (int64_t)bits);
            }
        }
    }
}

static kiln_status apply(kiln_ref *c, bool product) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *which = kiln_ref_in(c, 1);
    int64_t axis = kiln_get_i64(which->dtype, which->data, 0);
    kiln_lanes l = kiln_lanes_of(x, (int32_t)(axis < 0 ? axis + x->rank : axis));
    for (int64_t k = 0; k < l.outer * l.inner; k++) {
        lane(c->attrs, x, kiln_ref_out(c, 0), &l, kiln_lane_start(&l, k), product);
    }
    return KILN_OK;
}

static kiln_status ref_sum(kiln_ref *c) {
    return apply(c, false);
}
static kiln_status ref_product(kiln_ref *c) {
    return apply(c, true);
}

const kiln_op kiln_op_cum_sum = {
    .name = "CumSum",
    .domain = "",
    .since = 14,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_cumulative_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref_sum,
};

const kiln_op kiln_op_cum_prod = {
    .name = "CumProd",
    .domain = "",
    .since = 26,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_cumulative_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref_product,
};
