/* arg_reduce.c - ArgMax and ArgMin: where along an axis the extreme stands. NaN counts as extreme.
 * */
#include <math.h>

#include "ops/attrs.h"
#include "ops/lanes.h"

static const kiln_attr table[] = {
    KILN_A_INT(kiln_arg_attrs, axis, 0),
    KILN_A_INT(kiln_arg_attrs, keepdims, 1),
    KILN_A_INT(kiln_arg_attrs, select_last_index, 0),
};

static kiln_status infer(kiln_infer *c) {
    const kiln_arg_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0), axis = 0;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_NUMBER));
    if (rank < 0) {
        return kiln_infer_dims(c, 0, KILN_DTYPE_I64, KILN_RANK_UNKNOWN) ? KILN_OK : KILN_E_MEMORY;
    }
    if (rank > 0) {
        KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
        if (kiln_infer_dim(c, 0, axis) == 0) {
            return KILN_INFER_FAIL(c, SHAPE, "axis %d has no elements to choose from", axis);
        }
    }
    kiln_dim *dims = kiln_infer_dims(c, 0, KILN_DTYPE_I64, a->keepdims || !rank ? rank : rank - 1);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    for (int32_t i = 0, o = 0; i < rank; i++) {
        if (i != axis) {
            dims[o++] = kiln_infer_dim(c, 0, i);
        } else if (a->keepdims) {
            dims[o++] = 1;
        }
    }
    return KILN_OK;
}

/* Element i is greater (less, for sign < 0) than element j. */
static bool beats(const kiln_tensor *x, int64_t i, int64_t j, int sign) {
    if (kiln_dtype_is_float(x->dtype)) {
        double a = kiln_get_f64(x->dtype, x->data, i), b = kiln_get_f64(x->dtype, x->data, j);
        return sign * a > sign * b || (isnan(a) && !isnan(b));
    }
    int64_t a = kiln_get_i64(x->dtype, x->data, i), b = kiln_get_i64(x->dtype, x->data, j);
    if (x->dtype == KILN_DTYPE_U64) {
        return sign > 0 ? (uint64_t)a > (uint64_t)b : (uint64_t)a < (uint64_t)b;
    }
    return sign > 0 ? a > b : a < b;
}

static kiln_status apply(kiln_ref *c, int sign) {
    const kiln_arg_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    int64_t *y = kiln_ref_out(c, 0)->data;
    kiln_lanes l = kiln_lanes_of(x, (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis));
    for (int64_t k = 0; k < l.outer * l.inner; k++) {
        int64_t at = kiln_lane_start(&l, k), best = 0;
        for (int64_t i = 1; i < l.n; i++) {
            int64_t here = at + i * l.inner, old = at + best * l.inner;
            bool better =
                a->select_last_index ? !beats(x, old, here, sign) : beats(x, here, old, sign);
            best = better ? i : best;
        }
        y[k] = best;
    }
    return KILN_OK;
}

static kiln_status ref_max(kiln_ref *c) {
    return apply(c, 1);
}
static kiln_status ref_min(kiln_ref *c) {
    return apply(c, -1);
}

const kiln_op kiln_op_arg_max = {
    .name = "ArgMax",
    .domain = "",
    .since = 13,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_arg_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref_max,
};

const kiln_op kiln_op_arg_min = {
    .name = "ArgMin",
    .domain = "",
    .since = 13,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_arg_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref_min,
};
