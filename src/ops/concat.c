/* concat.c - Concat: tensors one after the other along an axis. */
#include "ops/attrs.h"
#include "ops/move.h"

static const kiln_attr table[] = {KILN_A_INT_REQUIRED(kiln_axis_attrs, axis)};

/* Contents of 1-D inputs; elements of an input whose length alone is known are unknown dims. */
static kiln_status concat_contents(kiln_infer *c) {
    kiln_tensor y;
    bool some = false;
    for (int32_t i = 0; i < c->n_in; i++) {
        int64_t n;
        some = some || kiln_infer_contents(c, i, &n);
    }
    if (!some || c->out[0].type.rank != 1) {
        return KILN_OK;
    }
    KILN_TRY(kiln_contents_out(c, 0, &y));
    for (int32_t i = 0, at = 0; y.data && i < c->n_in; i++) {
        int64_t n, len = kiln_infer_length(c, i);
        const kiln_dim *v = kiln_infer_contents(c, i, &n);
        for (int64_t k = 0; k < len; k++) {
            ((kiln_dim *)y.data)[at++] = v ? v[k] : KILN_DIM_UNKNOWN;
        }
    }
    return KILN_OK;
}

static kiln_status merge_input(kiln_infer *c, int32_t i, int32_t rank, int32_t axis,
                               kiln_dim *out) {
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim dim = c->in[i].type.dims[d];
        if (d == axis) {
            out[d] = kiln_dim_add(c->dims, out[d], dim);
        } else if (kiln_dim_differ(out[d], dim)) {
            return KILN_INFER_FAIL(c, SHAPE,
                                   "input %d has %lld in dim %d where the others have %lld", i,
                                   (long long)dim, d, (long long)out[d]);
        } else {
            out[d] = kiln_dim_merge(out[d], dim);
        }
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    int32_t rank = KILN_RANK_UNKNOWN, axis = 0;
    bool all = true;
    for (int32_t i = 0; i < c->n_in; i++) {
        KILN_TRY(kiln_infer_same_dtype(c, 0, i));
        KILN_TRY(kiln_infer_rank(c, i, rank < 0 ? 1 : rank, rank));
        if (!kiln_infer_has(c, i)) {
            return KILN_INFER_FAIL(c, ARITY, "input %d is left out", i);
        }
        int32_t r = kiln_infer_in_rank(c, i);
        all = all && r >= 0;
        rank = r >= 0 ? r : rank;
    }
    if (rank >= 0) {
        KILN_TRY(
            kiln_infer_axis(c, ((const kiln_axis_attrs *)c->attrs)->axis, rank, "axis", &axis));
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    if (rank >= 0) {
        out[axis] = all ? 0 : KILN_DIM_UNKNOWN;
    }
    for (int32_t i = 0; i < c->n_in; i++) {
        if (kiln_infer_in_rank(c, i) >= 0) {
            KILN_TRY(merge_input(c, i, rank, axis, out));
        }
    }
    return concat_contents(c);
}

static kiln_status ref(kiln_ref *c) {
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t axis = ((const kiln_axis_attrs *)c->attrs)->axis, at = 0;
    axis = axis < 0 ? axis + y->rank : axis;
    int64_t dst[KILN_MAX_RANK], src[KILN_MAX_RANK];
    kiln_strides(y->dims, y->rank, dst);
    for (int32_t i = 0; i < c->n_in; i++) {
        const kiln_tensor *x = kiln_ref_in(c, i);
        kiln_strides(x->dims, x->rank, src);
        kiln_move_box(x->dtype, x->rank, x->dims, y->data, at * dst[axis], dst, x->data, 0, src);
        at += x->dims[axis];
    }
    return KILN_OK;
}

const kiln_op kiln_op_concat = {
    .name = "Concat",
    .domain = "",
    .since = 13,
    .min_in = 1,
    .max_in = -1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_axis_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
