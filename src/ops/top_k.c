/* top_k.c - TopK: the K largest or smallest elements along an axis; of equals, the lower index. */
#include "ops/attrs.h"
#include "ops/index.h"
#include "ops/order.h"

static const kiln_attr table[] = {
    KILN_A_INT(kiln_top_k_attrs, axis, -1),
    KILN_A_INT(kiln_top_k_attrs, largest, 1),
    KILN_A_INT(kiln_top_k_attrs, sorted, 1),
};

static kiln_status infer(kiln_infer *c) {
    int32_t rank = kiln_infer_in_rank(c, 0), axis = 0;
    const uint32_t set = KILN_T_NUMBER;
    KILN_TRY(kiln_infer_dtype(c, 0, set));
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 0, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    int64_t len = kiln_infer_length(c, 1), n;
    if (len >= 0 && len != 1) {
        return KILN_INFER_FAIL(c, SHAPE, "K has %lld elements, needs 1", (long long)len);
    }
    if (rank >= 0) {
        KILN_TRY(
            kiln_infer_axis(c, ((const kiln_top_k_attrs *)c->attrs)->axis, rank, "axis", &axis));
    }
    const kiln_dim *v = kiln_infer_contents(c, 1, &n);
    kiln_dim size = rank < 0 ? KILN_DIM_UNKNOWN : kiln_infer_dim(c, 0, axis);
    kiln_dim k = v && n == 1 ? v[0] : KILN_DIM_UNKNOWN;
    if (kiln_dim_known(k) && (k < 0 || (kiln_dim_known(size) && k > size))) {
        return KILN_INFER_FAIL(c, VALUE, "K = %lld is out of range for an axis of size %lld",
                               (long long)k, (long long)size);
    }
    if (k == KILN_DIM_UNKNOWN) {
        k = kiln_dim_found(c->dims, size);
    }
    for (int32_t i = 0; i < 2; i++) {
        kiln_dim *out = kiln_infer_dims(c, i, i ? KILN_DTYPE_I64 : c->in[0].type.dtype, rank);
        if (!out) {
            return KILN_E_MEMORY;
        }
        for (int32_t d = 0; d < rank; d++) {
            out[d] = d == axis ? k : c->in[0].type.dims[d];
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_top_k_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *values = kiln_ref_out(c, 0), *indices = kiln_ref_out(c, 1);
    int32_t axis = (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    int64_t n = x->dims[axis], inner = kiln_index_span(x->dims + axis + 1, x->rank - axis - 1);
    int64_t k = values->dims[axis], rows = k && inner ? kiln_tensor_count(values) / k : 0;
    int64_t *keys, *items;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_ALLOC(keys, c->arena, n);
    KILN_ALLOC(items, c->arena, k);
    for (int64_t i = 0; i < rows; i++) {
        int64_t outer = i / inner, column = i % inner;
        int64_t from = outer * n * inner + column;
        KILN_TRY(kiln_ref_poll(c));
        kiln_order_keys(x, from, inner, n, a->largest != 0, keys);
        kiln_order_first(keys, n, k, items);
        for (int64_t j = 0; j < k; j++) {
            int64_t to = (outer * k + j) * inner + column;
            kiln_copy_elements(x->dtype, values->data, to, x->data, from + items[j] * inner, 1);
            if (indices) {
                ((int64_t *)indices->data)[to] = items[j];
            }
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_top_k = {
    .name = "TopK",
    .domain = "",
    .since = 24,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 2,
    KILN_OP_ATTRS(table, kiln_top_k_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
