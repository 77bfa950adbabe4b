/* non_zero.c - NonZero: where a tensor is not zero, one column an element, row-major order. */
#include "ops/move.h"

static kiln_status infer(kiln_infer *c) {
    int32_t rank = kiln_infer_in_rank(c, 0);
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_ANY & ~KILN_T(STRING)));
    kiln_dim *out = kiln_infer_dims(c, 0, KILN_DTYPE_I64, 2);
    if (!out) {
        return KILN_E_MEMORY;
    }
    kiln_dim all =
        rank < 0 ? KILN_DIM_UNKNOWN : kiln_dim_product(c->dims, c->in[0].type.dims, rank);
    out[0] = rank < 0 ? KILN_DIM_UNKNOWN : rank;
    out[1] = kiln_dim_found(c->dims, all);
    return KILN_OK;
}

static bool holds(const kiln_tensor *x, int64_t i) {
    return kiln_dtype_is_float(x->dtype) ? kiln_get_f64(x->dtype, x->data, i) != 0
                                         : kiln_get_i64(x->dtype, x->data, i) != 0;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    int64_t all = kiln_tensor_count(x), n = 0;
    for (int64_t i = 0; i < all; i++) {
        n += holds(x, i);
    }
    KILN_TRY(kiln_ref_output(c, 0, KILN_DTYPE_I64, 2, (int64_t[]){x->rank, n}));
    int64_t *y = kiln_ref_out(c, 0)->data, at = 0, i = 0;
    kiln_walk w;
    kiln_walk_init(&w, x->dims, x->rank);
    for (bool more = !kiln_walk_empty(&w); more; more = kiln_walk_next(&w), i++) {
        if (!holds(x, i)) {
            continue;
        }
        for (int32_t d = 0; d < x->rank; d++) {
            y[d * n + at] = w.idx[d];
        }
        at++;
    }
    return KILN_OK;
}

const kiln_op kiln_op_non_zero = {
    .name = "NonZero",
    .domain = "",
    .since = 13,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_DATA_SIZED,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
