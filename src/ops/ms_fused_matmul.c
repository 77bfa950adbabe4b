/* ms_fused_matmul.c - com.microsoft FusedMatMul (TransposeMatMul is its old name): alpha A' B'.
 *
 * transA and transB swap the last two dims; transBatchA and transBatchB then move the first dim to
 * the place before the last: a tensor [M, batch..., K] counts as [batch..., M, K]. */
#include "ops/matmul_core.h"

#include <string.h>

typedef struct fused_attrs {
    float alpha;
    int64_t transA, transB, transBatchA, transBatchB;
} fused_attrs;

static const kiln_attr table[] = {
    KILN_A_FLOAT(fused_attrs, alpha, 1),     KILN_A_INT(fused_attrs, transA, 0),
    KILN_A_INT(fused_attrs, transB, 0),      KILN_A_INT(fused_attrs, transBatchA, 0),
    KILN_A_INT(fused_attrs, transBatchB, 0),
};

/* order[i] is the dim of the operand that stands at place i of the product. A vector
 * keeps its dim. */
static void find_order(int32_t rank, bool swap, bool batch, int32_t *order) {
    for (int32_t i = 0; i < rank; i++) {
        order[i] = i;
    }
    if (rank < 2) {
        return;
    }
    if (batch) {
        memmove(order, order + 1, (size_t)(rank - 2) * sizeof *order);
        order[rank - 2] = 0;
    }
    if (swap) {
        int32_t last = order[rank - 1];
        order[rank - 1] = order[rank - 2];
        order[rank - 2] = last;
    }
}

static void operand_order(const fused_attrs *a, int32_t i, int32_t rank, int32_t *order) {
    find_order(rank, i ? a->transB != 0 : a->transA != 0,
               i ? a->transBatchB != 0 : a->transBatchA != 0, order);
}

static kiln_status infer(kiln_infer *c) {
    const fused_attrs *a = c->attrs;
    kiln_fact facts[2];
    kiln_infer view = *c;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    for (int32_t i = 0; i < 2; i++) {
        int32_t order[KILN_MAX_RANK], rank = kiln_infer_in_rank(c, i);
        kiln_dim *dims;
        facts[i] = (kiln_fact){.type = c->in[i].type};
        if (rank < 0) {
            continue;
        }
        KILN_ALLOC(dims, c->arena, rank + 1);
        operand_order(a, i, rank, order);
        for (int32_t d = 0; d < rank; d++) {
            dims[d] = c->in[i].type.dims[order[d]];
        }
        facts[i].type.dims = dims;
    }
    view.in = facts;
    return kiln_matmul_infer(&view, 0, 1, c->in[0].type.dtype);
}

/* t with its dims in this order, copied where that changes anything. */
static kiln_status arrange(kiln_ref *c, const kiln_tensor *t, const int32_t *order,
                           kiln_tensor *out) {
    int64_t dims[KILN_MAX_RANK], strides[KILN_MAX_RANK], from[KILN_MAX_RANK], k = 0;
    kiln_walk w;
    kiln_strides(t->dims, t->rank, strides);
    for (int32_t d = 0; d < t->rank; d++) {
        dims[d] = t->dims[order[d]];
        from[d] = strides[order[d]];
    }
    KILN_TRY(kiln_ref_scratch(c, out, t->dtype, t->rank, dims));
    kiln_walk_init(&w, dims, t->rank);
    kiln_walk_operand(&w, from);
    if (kiln_walk_empty(&w)) {
        return KILN_OK;
    }
    do {
        kiln_copy_elements(t->dtype, out->data, k++, t->data, w.offset[0], 1);
    } while (kiln_walk_next(&w));
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const fused_attrs *a = c->attrs;
    kiln_tensor *y = kiln_ref_out(c, 0), in[2];
    int64_t n = kiln_tensor_count(y);
    double *sums;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    for (int32_t i = 0; i < 2; i++) {
        int32_t order[KILN_MAX_RANK];
        const kiln_tensor *t = kiln_ref_in(c, i);
        operand_order(a, i, t->rank, order);
        KILN_TRY(arrange(c, t, order, &in[i]));
    }
    KILN_ALLOC(sums, c->arena, n);
    KILN_TRY(kiln_matmul_f64(c, &in[0], &in[1], y, sums));
    for (int64_t i = 0; i < n; i++) {
        kiln_set_f64(y->dtype, y->data, i, (double)a->alpha * sums[i]);
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    const fused_attrs *a = node->attrs;
    const kiln_type *t = &in[0].type;
    int32_t order[KILN_MAX_RANK];
    if (t->rank > 0 && t->rank <= KILN_MAX_RANK) {
        operand_order(a, 0, t->rank, order);
        result->macs = kiln_matmul_macs(out, t->dims[order[t->rank - 1]]);
    }
}

#define OPERATOR(id, onnx)                                           \
    const kiln_op kiln_op_##id = {.name = onnx,                      \
                                  .domain = "com.microsoft",         \
                                  .since = 1,                        \
                                  .min_in = 2,                       \
                                  .max_in = 2,                       \
                                  .min_out = 1,                      \
                                  .max_out = 1,                      \
                                  KILN_OP_ATTRS(table, fused_attrs), \
                                  .tolerance = KILN_TOL_REDUCE,      \
                                  .infer = infer,                    \
                                  .ref = ref,                        \
                                  .cost = cost};

OPERATOR(ms_fused_matmul, "FusedMatMul")
OPERATOR(ms_transpose_matmul, "TransposeMatMul")
