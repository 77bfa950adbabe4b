/* matmul.c - MatMul: numpy.matmul. */
#include "ops/bulk.h"
#include "ops/matmul_core.h"

static kiln_status infer(kiln_infer *c) {
    uint32_t ints = KILN_T_INDEX | KILN_T(U32) | KILN_T(U64);
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT | ints));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    return kiln_matmul_infer(c, 0, 1, c->in[0].type.dtype);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *a = kiln_ref_in(c, 0), *b = kiln_ref_in(c, 1);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t n = kiln_tensor_count(y);
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    if (kiln_dtype_is_float(y->dtype)) {
        double *sums;
        KILN_ALLOC(sums, c->arena, n);
        KILN_TRY(kiln_matmul_f64(c, a, b, y, sums));
        kiln_store_f64(y, 0, n, sums);
    } else {
        uint64_t *sums;
        KILN_ALLOC(sums, c->arena, n);
        KILN_TRY(kiln_matmul_u64(c, a, b, y, sums));
        for (int64_t i = 0; i < n; i++) {
            kiln_set_i64(y->dtype, y->data, i, (int64_t)sums[i]);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_matmul = {
    .name = "MatMul",
    .domain = "",
    .since = 13,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
    .cost = kiln_matmul_cost,
};
