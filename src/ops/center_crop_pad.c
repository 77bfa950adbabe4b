/* center_crop_pad.c - CenterCropPad: axes cut or padded with zeros around their middle. */
#include "ops/attrs.h"
#include "ops/move.h"

static const kiln_attr table[] = {KILN_A_INTS(kiln_axes_attrs, axes)};

static kiln_status infer(kiln_infer *c) {
    const kiln_ints *axes = &((const kiln_axes_attrs *)c->attrs)->axes;
    int32_t rank = kiln_infer_in_rank(c, 0);
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_INDEX));
    int64_t len = kiln_infer_length(c, 1), n;
    const kiln_dim *shape = kiln_infer_contents(c, 1, &n);
    n = axes->v ? axes->n : rank;
    if (len >= 0 && n >= 0 && len != n) {
        return KILN_INFER_FAIL(c, SHAPE, "shape has %lld entries for %lld axes", (long long)len,
                               (long long)n);
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    bool seen[KILN_MAX_RANK] = {false};
    for (int32_t d = 0; d < rank; d++) {
        out[d] = c->in[0].type.dims[d];
    }
    for (int64_t i = 0; rank >= 0 && i < n; i++) {
        int32_t axis;
        KILN_TRY(kiln_infer_axis(c, axes->v ? axes->v[i] : i, rank, "axes", &axis));
        if (seen[axis] || (shape && kiln_dim_known(shape[i]) && shape[i] < 0)) {
            return KILN_INFER_FAIL(c, VALUE, "axis %d is named twice or has a negative size", axis);
        }
        seen[axis] = true;
        out[axis] = shape ? shape[i] : KILN_DIM_UNKNOWN;
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    static const uint64_t zero[2] = {0, 0};
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t strides[KILN_MAX_RANK], **map;
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    kiln_strides(x->dims, x->rank, strides);
    KILN_TRY(kiln_move_map(c->arena, y->rank, y->dims, &map));
    for (int32_t d = 0; d < y->rank; d++) {
        int64_t extra = y->dims[d] - x->dims[d];
        int64_t shift = extra < 0 ? -(-extra / 2) : extra / 2;
        for (int64_t i = 0; i < y->dims[d]; i++) {
            int64_t k = i - shift;
            map[d][i] = k < 0 || k >= x->dims[d] ? -1 : k * strides[d];
        }
    }
    kiln_move_mapped(y->dtype, y->rank, y->dims, y->data, x->data, map, zero);
    return KILN_OK;
}

const kiln_op kiln_op_center_crop_pad = {
    .name = "CenterCropPad",
    .domain = "",
    .since = 18,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_axes_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
