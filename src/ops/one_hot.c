/* one_hot.c - OneHot: indices as rows with one entry "on". */
#include "ops/attrs.h"
#include "ops/index.h"
#include "ops/move.h"

static const kiln_attr table[] = {KILN_A_INT(kiln_axis_attrs, axis, -1)};

static kiln_status read_depth(kiln_infer *c, kiln_dim *depth) {
    const int64_t *v;
    int64_t n, len = kiln_infer_length(c, 1);
    if (kiln_infer_in_rank(c, 1) > 1 || (len >= 0 && len != 1)) {
        return KILN_INFER_FAIL(c, SHAPE, "depth must be a scalar");
    }
    const kiln_dim *d = kiln_infer_contents(c, 1, &n);
    KILN_TRY(kiln_infer_ints(c, 1, &v, &n));
    *depth = v ? v[0] : d ? d[0] : kiln_dim_found(c->dims, KILN_DIM_UNKNOWN);
    if (v && v[0] < 0) {
        return KILN_INFER_FAIL(c, VALUE, "depth = %lld is negative", (long long)v[0]);
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    int32_t rank = kiln_infer_in_rank(c, 0), axis = 0;
    kiln_dim depth = KILN_DIM_UNKNOWN, values = kiln_infer_dim(c, 2, 0);
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK - 1));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_NUMBER));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_NUMBER));
    KILN_TRY(kiln_infer_rank(c, 2, 1, 1));
    if (kiln_dim_differ(values, 2)) {
        return KILN_INFER_FAIL(c, SHAPE, "values has %lld entries, needs 2", (long long)values);
    }
    if (rank >= 0) {
        KILN_TRY(
            kiln_infer_axis(c, ((const kiln_axis_attrs *)c->attrs)->axis, rank + 1, "axis", &axis));
    }
    KILN_TRY(read_depth(c, &depth));
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[2].type.dtype, rank < 0 ? rank : rank + 1);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; rank >= 0 && d <= rank; d++) {
        out[d] = d == axis ? depth : c->in[0].type.dims[d < axis ? d : d - 1];
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *values = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t axis = ((const kiln_axis_attrs *)c->attrs)->axis;
    axis = axis < 0 ? axis + y->rank : axis;
    int64_t depth = y->dims[axis], inner = kiln_index_span(x->dims + axis, x->rank - (int32_t)axis);
    kiln_move_fill(y->dtype, y->data, 0, kiln_tensor_count(y), values->data);
    for (int64_t i = 0, n = kiln_tensor_count(x); i < n; i++) {
        int64_t k = kiln_get_i64(x->dtype, x->data, i);
        if (k < -depth || k >= depth) {
            continue;
        }
        k = k < 0 ? k + depth : k;
        kiln_copy_elements(y->dtype, y->data, (i / inner * depth + k) * inner + i % inner,
                           values->data, 1, 1);
    }
    return KILN_OK;
}

const kiln_op kiln_op_one_hot = {
    .name = "OneHot",
    .domain = "",
    .since = 28,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_axis_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
