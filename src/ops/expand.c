/* expand.c - Expand: broadcast to a shape that is data. */
#include "ops/move.h"

static void expand(const kiln_tensor *x, kiln_tensor *y) {
    int64_t src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    kiln_broadcast_strides(x->dims, x->rank, y->dims, y->rank, src);
    kiln_strides(y->dims, y->rank, dst);
    kiln_move_box(y->dtype, y->rank, y->dims, y->data, 0, dst, x->data, 0, src);
}

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    int64_t n = kiln_infer_length(c, 1), count;
    const kiln_dim *shape = kiln_infer_contents(c, 1, &count);
    int32_t rank = kiln_infer_in_rank(c, 0);
    if (n > KILN_MAX_RANK) {
        return KILN_INFER_FAIL(c, VARIANT, "shape has %lld entries; at most %d dims are supported",
                               (long long)n, KILN_MAX_RANK);
    }
    int32_t wide = n < 0 || rank < 0 ? KILN_RANK_UNKNOWN : n > rank ? (int32_t)n : rank;
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, wide);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < wide; d++) {
        int32_t i = d - (wide - rank), k = d - (wide - (int32_t)n);
        kiln_dim a = i < 0 ? 1 : c->in[0].type.dims[i];
        kiln_dim b = k < 0 ? 1 : shape ? shape[k] : KILN_DIM_UNKNOWN;
        if ((kiln_dim_known(b) && b < 0) || !kiln_dim_broadcast(c->dims, a, b, &out[d])) {
            return KILN_INFER_FAIL(c, SHAPE, "dim %d of size %lld does not expand to %lld", i,
                                   (long long)a, (long long)b);
        }
    }
    kiln_tensor x, y;
    if (kiln_contents_in(c, 0, &x)) {
        KILN_TRY(kiln_contents_out(c, 0, &y));
        if (y.data) {
            expand(&x, &y);
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    expand(kiln_ref_in(c, 0), kiln_ref_out(c, 0));
    return KILN_OK;
}

const kiln_op kiln_op_expand = {
    .name = "Expand",
    .domain = "",
    .since = 13,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_TARGET,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
