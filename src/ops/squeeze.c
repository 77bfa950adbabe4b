/* squeeze.c - Squeeze and Unsqueeze: dims of size 1 removed and added. */
#include "ops/move.h"

/* Marks the axes that input 1 names. *known is false when its values are not known. */
static kiln_status read_axes(kiln_infer *c, int32_t rank, bool *marked, bool *known) {
    const int64_t *axes;
    int64_t n;
    KILN_TRY(kiln_infer_ints(c, 1, &axes, &n));
    *known = axes != NULL;
    for (int64_t i = 0; axes && i < n; i++) {
        int32_t axis;
        KILN_TRY(kiln_infer_axis(c, axes[i], rank, "axes", &axis));
        if (marked[axis]) {
            return KILN_INFER_FAIL(c, VALUE, "axes names axis %d twice", axis);
        }
        marked[axis] = true;
    }
    return KILN_OK;
}

static kiln_status some_rank(kiln_infer *c, int32_t rank) {
    return kiln_infer_dims(c, 0, c->in[0].type.dtype, rank) ? KILN_OK : KILN_E_MEMORY;
}

/* Without axes, every dim of 1 goes: the output's rank is known once all dims are numbers. */
static kiln_status squeeze_ones(kiln_infer *c, int32_t rank, bool *marked, bool *known) {
    *known = true;
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim dim = kiln_infer_dim(c, 0, d);
        *known = *known && kiln_dim_known(dim);
        marked[d] = dim == 1;
    }
    return KILN_OK;
}

static kiln_status squeeze_infer(kiln_infer *c) {
    bool marked[KILN_MAX_RANK] = {false}, known;
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    KILN_TRY(kiln_infer_rank(c, 1, 0, 1));
    int32_t rank = kiln_infer_in_rank(c, 0), n = 0;
    if (rank < 0) {
        return some_rank(c, KILN_RANK_UNKNOWN);
    }
    bool given = kiln_infer_has(c, 1);
    KILN_TRY((given ? read_axes : squeeze_ones)(c, rank, marked, &known));
    if (!known) {
        int64_t len = given ? kiln_infer_length(c, 1) : -1;
        return some_rank(c, len < 0 || len > rank ? KILN_RANK_UNKNOWN : rank - (int32_t)len);
    }
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim dim = c->in[0].type.dims[d];
        if (marked[d] && kiln_dim_differ(dim, 1)) {
            return KILN_INFER_FAIL(c, SHAPE, "axes names axis %d, which has size %lld, not 1", d,
                                   (long long)dim);
        }
        n += !marked[d];
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, n);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0, k = 0; d < rank; d++) {
        if (!marked[d]) {
            out[k++] = c->in[0].type.dims[d];
        }
    }
    return kiln_contents_pass(c, 0, 0);
}

static kiln_status unsqueeze_infer(kiln_infer *c) {
    bool marked[KILN_MAX_RANK] = {false}, known;
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    KILN_TRY(kiln_infer_rank(c, 1, 0, 1));
    int32_t rank = kiln_infer_in_rank(c, 0);
    int64_t n = kiln_infer_length(c, 1);
    if (rank < 0 || n < 0) {
        return some_rank(c, KILN_RANK_UNKNOWN);
    }
    if (n > KILN_MAX_RANK - rank) {
        return KILN_INFER_FAIL(c, VARIANT,
                               "%lld axes added to rank %d; at most %d dims are supported",
                               (long long)n, rank, KILN_MAX_RANK);
    }
    int32_t total = rank + (int32_t)n;
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, total);
    if (!out) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(read_axes(c, total, marked, &known));
    for (int32_t d = 0, k = 0; known && d < total; d++) {
        out[d] = marked[d] ? 1 : c->in[0].type.dims[k++];
    }
    return kiln_contents_pass(c, 0, 0);
}

const kiln_op kiln_op_squeeze = {
    .name = "Squeeze",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_VIEW,
    .tolerance = KILN_TOL_EXACT,
    .infer = squeeze_infer,
    .ref = kiln_ref_view,
};

const kiln_op kiln_op_unsqueeze = {
    .name = "Unsqueeze",
    .domain = "",
    .since = 25,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_VIEW,
    .tolerance = KILN_TOL_EXACT,
    .infer = unsqueeze_infer,
    .ref = kiln_ref_view,
};
