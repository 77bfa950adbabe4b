/* scatter.c - ScatterElements and ScatterND. */
#include "ops/scatter.h"

#include "ops/index.h"

const char *const kiln_scatter_words[] = {"none", "add", "mul", "min", "max", NULL};

static double reduce_f64(kiln_scatter_mode mode, double a, double b) {
    switch (mode) {
    case KILN_SCATTER_ADD:
        return a + b;
    case KILN_SCATTER_MUL:
        return a * b;
    case KILN_SCATTER_MIN:
        return b < a ? b : a;
    default:
        return b > a ? b : a;
    }
}

/* In unsigned arithmetic, which wraps as the stored width does. */
static uint64_t reduce_int(kiln_scatter_mode mode, bool is_signed, uint64_t a, uint64_t b) {
    bool less = is_signed ? (int64_t)b < (int64_t)a : b < a;
    switch (mode) {
    case KILN_SCATTER_ADD:
        return a + b;
    case KILN_SCATTER_MUL:
        return a * b;
    case KILN_SCATTER_MIN:
        return less ? b : a;
    default:
        return less ? a : b;
    }
}

void kiln_scatter_element(kiln_dtype dtype, kiln_scatter_mode mode, void *dst, int64_t i,
                          const void *src, int64_t j) {
    if (mode == KILN_SCATTER_NONE) {
        kiln_copy_elements(dtype, dst, i, src, j, 1);
    } else if (kiln_dtype_is_float(dtype)) {
        double a = kiln_get_f64(dtype, dst, i), b = kiln_get_f64(dtype, src, j);
        kiln_set_f64(dtype, dst, i, reduce_f64(mode, a, b));
    } else {
        uint64_t a = (uint64_t)kiln_get_i64(dtype, dst, i),
                 b = (uint64_t)kiln_get_i64(dtype, src, j);
        kiln_set_i64(dtype, dst, i,
                     (int64_t)reduce_int(mode, kiln_dtype_is_signed_int(dtype), a, b));
    }
}

static const kiln_attr elements_table[] = {
    KILN_A_INT(kiln_scatter_attrs, axis, 0),
    KILN_A_ENUM(kiln_scatter_attrs, reduction, kiln_scatter_words, KILN_SCATTER_NONE),
};
static const kiln_attr nd_table[] = {
    KILN_A_ENUM(kiln_scatter_attrs, reduction, kiln_scatter_words, KILN_SCATTER_NONE),
};

static kiln_status check_reduction(const kiln_infer *c) {
    const kiln_scatter_attrs *a = c->attrs;
    kiln_dtype d = c->in[0].type.dtype;
    if (a->reduction != KILN_SCATTER_NONE && d != KILN_DTYPE_NONE && d != KILN_DTYPE_BOOL &&
        !kiln_dtype_is_float(d) && !kiln_dtype_is_int(d)) {
        return KILN_INFER_FAIL(c, DTYPE, "reduction \"%s\" does not work on %s",
                               kiln_scatter_words[a->reduction], kiln_dtype_name(d));
    }
    return KILN_OK;
}

static kiln_status elements_infer(kiln_infer *c) {
    const kiln_scatter_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0), axis;
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_INDEX));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(check_reduction(c));
    KILN_TRY(kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE));
    if (rank < 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
    KILN_TRY(kiln_infer_rank(c, 1, rank, rank));
    KILN_TRY(kiln_infer_rank(c, 2, rank, rank));
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim x = kiln_infer_dim(c, 0, d), i = kiln_infer_dim(c, 1, d),
                 u = kiln_infer_dim(c, 2, d);
        if (kiln_dim_differ(i, u) ||
            (d != axis && kiln_dim_known(x) && kiln_dim_known(i) && i > x)) {
            return KILN_INFER_FAIL(c, SHAPE, "dim %d: data has %lld, indices %lld, updates %lld", d,
                                   (long long)x, (long long)i, (long long)u);
        }
    }
    return KILN_OK;
}

static kiln_status elements_ref(kiln_ref *c) {
    const kiln_scatter_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *index = kiln_ref_in(c, 1),
                      *updates = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t axis = a->axis < 0 ? a->axis + x->rank : a->axis, strides[KILN_MAX_RANK], j = 0, k = 0;
    kiln_copy_elements(x->dtype, y->data, 0, x->data, 0, kiln_tensor_count(x));
    kiln_strides(x->dims, x->rank, strides);
    int64_t along = strides[axis];
    strides[axis] = 0;
    kiln_walk w;
    kiln_walk_init(&w, index->dims, index->rank);
    kiln_walk_operand(&w, strides);
    for (bool more = !kiln_walk_empty(&w); more; more = kiln_walk_next(&w), j++) {
        KILN_TRY(
            kiln_index_in(c->diag, kiln_get_i64(index->dtype, index->data, j), x->dims[axis], &k));
        kiln_scatter_element(y->dtype, (kiln_scatter_mode)a->reduction, y->data,
                             w.offset[0] + k * along, updates->data, j);
    }
    return KILN_OK;
}

static kiln_status nd_infer(kiln_infer *c) {
    int32_t rank = kiln_infer_in_rank(c, 0), q = kiln_infer_in_rank(c, 1);
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(check_reduction(c));
    KILN_TRY(kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE));
    kiln_dim depth = kiln_infer_dim(c, 1, -1);
    if (rank < 0 || q < 0 || !kiln_dim_known(depth)) {
        return KILN_OK;
    }
    if (depth > rank) {
        return KILN_INFER_FAIL(c, SHAPE, "indices have %lld entries each for rank %d",
                               (long long)depth, rank);
    }
    int32_t want = q - 1 + rank - (int32_t)depth;
    KILN_TRY(kiln_infer_rank(c, 2, want, want));
    for (int32_t d = 0; kiln_infer_in_rank(c, 2) >= 0 && d < want; d++) {
        kiln_dim need = d < q - 1 ? kiln_infer_dim(c, 1, d)
                                  : kiln_infer_dim(c, 0, d - (q - 1) + (int32_t)depth);
        if (kiln_dim_differ(kiln_infer_dim(c, 2, d), need)) {
            return KILN_INFER_FAIL(c, SHAPE, "updates have %lld in dim %d, need %lld",
                                   (long long)kiln_infer_dim(c, 2, d), d, (long long)need);
        }
    }
    return KILN_OK;
}

static kiln_status nd_ref(kiln_ref *c) {
    const kiln_scatter_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *index = kiln_ref_in(c, 1),
                      *updates = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_copy_elements(x->dtype, y->data, 0, x->data, 0, kiln_tensor_count(x));
    int32_t depth = (int32_t)index->dims[index->rank - 1];
    int64_t n = kiln_index_span(index->dims, index->rank - 1);
    int64_t inner = kiln_index_span(x->dims + depth, x->rank - depth);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = 0, k = 0;
        for (int32_t d = 0; d < depth; d++) {
            int64_t v = kiln_get_i64(index->dtype, index->data, i * depth + d);
            KILN_TRY(kiln_index_in(c->diag, v, x->dims[d], &k));
            at = at * x->dims[d] + k;
        }
        for (int64_t j = 0; j < inner; j++) {
            kiln_scatter_element(y->dtype, (kiln_scatter_mode)a->reduction, y->data, at * inner + j,
                                 updates->data, i * inner + j);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_scatter_elements = {
    .name = "ScatterElements",
    .domain = "",
    .since = 18,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(elements_table, kiln_scatter_attrs),
    .tolerance = KILN_TOL_ROUND,
    .infer = elements_infer,
    .ref = elements_ref,
};

const kiln_op kiln_op_scatter_nd = {
    .name = "ScatterND",
    .domain = "",
    .since = 18,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(nd_table, kiln_scatter_attrs),
    .tolerance = KILN_TOL_ROUND,
    .infer = nd_infer,
    .ref = nd_ref,
};
