/* gather_elements.c - GatherElements and GatherND: single elements, or slices, chosen by index. */
#include "ops/attrs.h"
#include "ops/index.h"

static const kiln_attr elements_table[] = {KILN_A_INT(kiln_axis_attrs, axis, 0)};
static const kiln_attr nd_table[] = {KILN_A_INT(kiln_gather_nd_attrs, batch_dims, 0)};

static kiln_status elements_infer(kiln_infer *c) {
    int32_t rank = kiln_infer_in_rank(c, 0), axis;
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_INDEX));
    KILN_TRY(kiln_infer_like(c, 0, 1, c->in[0].type.dtype));
    if (rank < 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_axis(c, ((const kiln_axis_attrs *)c->attrs)->axis, rank, "axis", &axis));
    KILN_TRY(kiln_infer_rank(c, 1, rank, rank));
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim x = kiln_infer_dim(c, 0, d), i = kiln_infer_dim(c, 1, d);
        if (d != axis && kiln_dim_known(x) && kiln_dim_known(i) && i > x) {
            return KILN_INFER_FAIL(c, SHAPE, "indices have %lld in dim %d, data only %lld",
                                   (long long)i, d, (long long)x);
        }
    }
    return KILN_OK;
}

static kiln_status elements_ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *index = kiln_ref_in(c, 1);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t axis = ((const kiln_axis_attrs *)c->attrs)->axis, strides[KILN_MAX_RANK], j = 0, k = 0;
    axis = axis < 0 ? axis + x->rank : axis;
    kiln_strides(x->dims, x->rank, strides);
    int64_t along = strides[axis];
    strides[axis] = 0;
    kiln_walk w;
    kiln_walk_init(&w, index->dims, index->rank);
    kiln_walk_operand(&w, strides);
    for (bool more = !kiln_walk_empty(&w); more; more = kiln_walk_next(&w), j++) {
        KILN_TRY(
            kiln_index_in(c->diag, kiln_get_i64(index->dtype, index->data, j), x->dims[axis], &k));
        kiln_copy_elements(y->dtype, y->data, j, x->data, w.offset[0] + k * along, 1);
    }
    return KILN_OK;
}

static kiln_status nd_infer(kiln_infer *c) {
    int64_t b = ((const kiln_gather_nd_attrs *)c->attrs)->batch_dims;
    int32_t rank = kiln_infer_in_rank(c, 0), q = kiln_infer_in_rank(c, 1);
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    kiln_dim depth = kiln_infer_dim(c, 1, -1);
    if (b < 0 || (rank >= 0 && b >= rank) || (q >= 0 && b >= q)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE,
                               "batch_dims = %lld is out of range for ranks %d and %d",
                               (long long)b, rank, q);
    }
    bool known = rank >= 0 && q >= 0 && kiln_dim_known(depth);
    if (known && (depth < 1 || depth > rank - b)) {
        return KILN_INFER_FAIL(c, SHAPE, "indices have %lld entries each, need 1 to %lld",
                               (long long)depth, (long long)(rank - b));
    }
    for (int32_t d = 0; known && d < b; d++) {
        if (kiln_dim_differ(kiln_infer_dim(c, 0, d), kiln_infer_dim(c, 1, d))) {
            return KILN_INFER_FAIL(c, SHAPE, "batch dim %d is %lld in data and %lld in indices", d,
                                   (long long)kiln_infer_dim(c, 0, d),
                                   (long long)kiln_infer_dim(c, 1, d));
        }
    }
    int32_t n = known ? q - 1 + rank - (int32_t)(depth + b) : KILN_RANK_UNKNOWN;
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, n);
    for (int32_t d = 0; out && d < n; d++) {
        out[d] = d < q - 1 ? kiln_infer_dim(c, 1, d)
                           : kiln_infer_dim(c, 0, d - (q - 1) + (int32_t)(depth + b));
    }
    return out ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status nd_ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *index = kiln_ref_in(c, 1);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int32_t b = (int32_t)((const kiln_gather_nd_attrs *)c->attrs)->batch_dims;
    int32_t depth = (int32_t)index->dims[index->rank - 1];
    int64_t batches = kiln_index_span(x->dims, b);
    int64_t n = kiln_index_span(index->dims + b, index->rank - 1 - b);
    int64_t inner = kiln_index_span(x->dims + b + depth, x->rank - b - depth);
    for (int64_t i = 0; i < batches * n; i++) {
        int64_t at = i / n, k = 0;
        for (int32_t d = 0; d < depth; d++) {
            int64_t v = kiln_get_i64(index->dtype, index->data, i * depth + d);
            KILN_TRY(kiln_index_in(c->diag, v, x->dims[b + d], &k));
            at = at * x->dims[b + d] + k;
        }
        kiln_copy_elements(y->dtype, y->data, i * inner, x->data, at * inner, inner);
    }
    return KILN_OK;
}

const kiln_op kiln_op_gather_elements = {
    .name = "GatherElements",
    .domain = "",
    .since = 13,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(elements_table, kiln_axis_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = elements_infer,
    .ref = elements_ref,
};

const kiln_op kiln_op_gather_nd = {
    .name = "GatherND",
    .domain = "",
    .since = 13,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(nd_table, kiln_gather_nd_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = nd_infer,
    .ref = nd_ref,
};
