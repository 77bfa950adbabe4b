/* gemm.c - Gemm: Y = alpha * A' * B' + beta * C, A' [M, K] and B' [K, N] transposed on request. */
#include "ops/attrs.h"
#include "ops/elementwise.h"
#include "ops/matmul_core.h"

static const kiln_attr table[] = {
    KILN_A_FLOAT(kiln_gemm_attrs, alpha, 1.0f),
    KILN_A_FLOAT(kiln_gemm_attrs, beta, 1.0f),
    KILN_A_INT(kiln_gemm_attrs, transA, 0),
    KILN_A_INT(kiln_gemm_attrs, transB, 0),
};

static kiln_status infer(kiln_infer *c) {
    const kiln_gemm_attrs *a = c->attrs;
    uint32_t ints = KILN_T_INDEX | KILN_T(U32) | KILN_T(U64);
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT | ints));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(kiln_infer_rank(c, 0, 2, 2));
    KILN_TRY(kiln_infer_rank(c, 1, 2, 2));
    kiln_dim ka = kiln_infer_dim(c, 0, a->transA ? 0 : 1);
    kiln_dim kb = kiln_infer_dim(c, 1, a->transB ? 1 : 0);
    if (kiln_dim_differ(ka, kb)) {
        return KILN_INFER_FAIL(c, SHAPE, "A' has %lld columns, B' has %lld rows", (long long)ka,
                               (long long)kb);
    }
    kiln_dim *dims = kiln_infer_dims(c, 0, c->in[0].type.dtype, 2);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    dims[0] = kiln_infer_dim(c, 0, a->transA ? 1 : 0);
    dims[1] = kiln_infer_dim(c, 1, a->transB ? 0 : 1);
    if (!kiln_infer_has(c, 2)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_rank(c, 2, 0, 2));
    for (int32_t i = 1; i <= kiln_infer_in_rank(c, 2); i++) {
        kiln_dim d = kiln_infer_dim(c, 2, -i);
        if (kiln_dim_differ(d, 1) && kiln_dim_differ(d, dims[2 - i])) {
            return KILN_INFER_FAIL(c, SHAPE, "C has %lld where the product has %lld", (long long)d,
                                   (long long)dims[2 - i]);
        }
    }
    return KILN_OK;
}

static kiln_product product(const kiln_gemm_attrs *a, const kiln_tensor *lhs,
                            const kiln_tensor *rhs, const kiln_tensor *y) {
    int64_t lhs_cols = lhs->dims[1], rhs_cols = rhs->dims[1];
    return (kiln_product){.a = lhs,
                          .b = rhs,
                          .m = y->dims[0],
                          .k = lhs->dims[a->transA ? 0 : 1],
                          .n = y->dims[1],
                          .a_row = a->transA ? 1 : lhs_cols,
                          .a_col = a->transA ? lhs_cols : 1,
                          .b_row = a->transB ? 1 : rhs_cols,
                          .b_col = a->transB ? rhs_cols : 1};
}

/* y = alpha * sums + beta * C; integers stay exact while alpha and beta are 1. */
static void finish(const kiln_gemm_attrs *a, kiln_tensor *y, const kiln_tensor *bias,
                   const double *sums, const uint64_t *bits) {
    const kiln_tensor *in[1] = {bias ? bias : y};
    kiln_rows r;
    kiln_rows_init(&r, y, in, 1);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            int64_t o = r.out + k, at = r.at[0] + k * r.step[0];
            if (sums) {
                double add = bias ? a->beta * kiln_get_f64(bias->dtype, bias->data, at) : 0;
                kiln_set_f64(y->dtype, y->data, o, a->alpha * sums[o] + add);
                continue;
            }
            int64_t v = (int64_t)bits[o],
                    add = bias ? kiln_get_i64(bias->dtype, bias->data, at) : 0;
            v = a->alpha == 1 ? v : (int64_t)(a->alpha * (double)v);
            add = a->beta == 1 ? add : (int64_t)(a->beta * (double)add);
            kiln_set_i64(y->dtype, y->data, o, (int64_t)((uint64_t)v + (uint64_t)add));
        }
    }
}

static kiln_status ref(kiln_ref *c) {
    const kiln_gemm_attrs *a = c->attrs;
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_product p = product(a, kiln_ref_in(c, 0), kiln_ref_in(c, 1), y);
    int64_t n = kiln_tensor_count(y);
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    if (n == 0) {
        return KILN_OK;
    }
    if (kiln_dtype_is_float(y->dtype)) {
        double *sums;
        KILN_ALLOC(sums, c->arena, n);
        KILN_TRY(kiln_product_f64(c, &p, sums));
        finish(a, y, kiln_ref_in(c, 2), sums, NULL);
    } else {
        uint64_t *sums;
        KILN_ALLOC(sums, c->arena, n);
        KILN_TRY(kiln_product_u64(c, &p, sums));
        finish(a, y, kiln_ref_in(c, 2), NULL, sums);
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    const kiln_gemm_attrs *a = node->attrs;
    const kiln_type *lhs = &in[0].type;
    result->macs = lhs->rank == 2 ? kiln_matmul_macs(out, lhs->dims[a->transA ? 0 : 1]) : 0;
}

const kiln_op kiln_op_gemm = {
    .name = "Gemm",
    .domain = "",
    .since = 13,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_gemm_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
    .cost = cost,
};
