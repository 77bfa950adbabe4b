/* tile.c - Tile: a tensor repeated along its axes. */
#include "ops/move.h"

static kiln_status tile(kiln_arena *arena, const kiln_tensor *x, kiln_tensor *y) {
    int64_t strides[KILN_MAX_RANK], **map;
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    kiln_strides(x->dims, x->rank, strides);
    KILN_TRY(kiln_move_map(arena, y->rank, y->dims, &map));
    for (int32_t d = 0; d < y->rank; d++) {
        for (int64_t i = 0; i < y->dims[d]; i++) {
            map[d][i] = i % x->dims[d] * strides[d];
        }
    }
    kiln_move_mapped(y->dtype, y->rank, y->dims, y->data, x->data, map, NULL);
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    int64_t len = kiln_infer_length(c, 1), n;
    const kiln_dim *repeats = kiln_infer_contents(c, 1, &n);
    int32_t rank = kiln_infer_in_rank(c, 0);
    if (rank >= 0 && len >= 0 && len != rank) {
        return KILN_INFER_FAIL(c, SHAPE, "repeats has %lld entries for rank %d", (long long)len,
                               rank);
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; repeats && d < rank; d++) {
        kiln_dim dim = c->in[0].type.dims[d];
        if (kiln_dim_known(repeats[d]) && repeats[d] < 0) {
            return KILN_INFER_FAIL(c, VALUE, "repeats[%d] = %lld is negative", d,
                                   (long long)repeats[d]);
        }
        out[d] = kiln_dim_mul(c->dims, dim, repeats[d]);
        if (out[d] == KILN_DIM_UNKNOWN && kiln_dim_known(dim) && kiln_dim_known(repeats[d])) {
            return KILN_INFER_FAIL(c, OVERFLOW,
                                   "dim %d of size %lld repeated %lld times is too large", d,
                                   (long long)dim, (long long)repeats[d]);
        }
    }
    kiln_tensor x, y;
    if (kiln_contents_in(c, 0, &x)) {
        KILN_TRY(kiln_contents_out(c, 0, &y));
        if (y.data) {
            return tile(c->arena, &x, &y);
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    return tile(c->arena, kiln_ref_in(c, 0), kiln_ref_out(c, 0));
}

const kiln_op kiln_op_tile = {
    .name = "Tile",
    .domain = "",
    .since = 13,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
