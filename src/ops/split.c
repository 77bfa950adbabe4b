/* split.c - Split: pieces of a tensor along an axis. */
#include "ops/attrs.h"
#include "ops/move.h"

static const kiln_attr table[] = {
    KILN_A_INT(kiln_split_attrs, axis, 0),
    KILN_A_INT(kiln_split_attrs, num_outputs, KILN_ABSENT),
};

/* Piece i of the axis cut into n_out pieces of equal size, the last one smaller. */
static kiln_dim equal_piece(kiln_infer *c, kiln_dim dim, int32_t i) {
    kiln_dim up = kiln_dim_add(c->dims, dim, c->n_out - 1);
    kiln_dim piece = kiln_dim_div(c->dims, up, c->n_out);
    if (i < c->n_out - 1) {
        return piece;
    }
    return kiln_dim_sub(c->dims, dim, kiln_dim_mul(c->dims, piece, c->n_out - 1));
}

static kiln_status check_sizes(const kiln_infer *c, const kiln_dim *sizes, kiln_dim dim) {
    int64_t sum = 0;
    for (int32_t i = 0; i < c->n_out; i++) {
        if (!kiln_dim_known(sizes[i])) {
            return KILN_OK;
        }
        if (sizes[i] < 0 || !kiln_add_i64(sum, sizes[i], &sum)) {
            return KILN_INFER_FAIL(c, VALUE, "split[%d] = %lld is out of range", i,
                                   (long long)sizes[i]);
        }
    }
    if (kiln_dim_differ(sum, dim)) {
        return KILN_INFER_FAIL(c, SHAPE, "split adds up to %lld, the axis has size %lld",
                               (long long)sum, (long long)dim);
    }
    return KILN_OK;
}

/* The pieces' sizes into sizes[n_out]. */
static kiln_status read_sizes(kiln_infer *c, kiln_dim dim, kiln_dim *sizes) {
    const kiln_split_attrs *a = c->attrs;
    int64_t n = kiln_infer_length(c, 1);
    const kiln_dim *given = NULL;
    if (kiln_infer_has(c, 1)) {
        given = kiln_infer_contents(c, 1, &n);
        if (n > 0 && n != c->n_out) {
            return KILN_INFER_FAIL(c, SHAPE, "split has %lld entries for %d outputs", (long long)n,
                                   c->n_out);
        }
    } else if (a->num_outputs != KILN_ABSENT && a->num_outputs != c->n_out) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "num_outputs = %lld for %d outputs",
                               (long long)a->num_outputs, c->n_out);
    }
    for (int32_t i = 0; i < c->n_out; i++) {
        sizes[i] = kiln_infer_has(c, 1) ? (given && n == c->n_out ? given[i] : KILN_DIM_UNKNOWN)
                                        : equal_piece(c, dim, i);
    }
    return check_sizes(c, sizes, dim);
}

/* Piece i begins at `at` of the axis. */
static void take(const kiln_tensor *x, int32_t axis, int64_t at, kiln_tensor *y) {
    int64_t src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    kiln_strides(x->dims, x->rank, src);
    kiln_strides(y->dims, y->rank, dst);
    kiln_move_box(y->dtype, y->rank, y->dims, y->data, 0, dst, x->data, at * src[axis], src);
}

static kiln_status split_contents(kiln_infer *c, int32_t axis, const kiln_dim *sizes) {
    kiln_tensor x, y;
    if (!kiln_contents_in(c, 0, &x)) {
        return KILN_OK;
    }
    int64_t at = 0;
    for (int32_t i = 0; i < c->n_out && kiln_dim_known(sizes[i]); at += sizes[i++]) {
        KILN_TRY(kiln_contents_out(c, i, &y));
        if (y.data) {
            take(&x, axis, at, &y);
        }
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const kiln_split_attrs *a = c->attrs;
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    int32_t rank = kiln_infer_in_rank(c, 0), axis = 0;
    if (rank >= 0) {
        KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
    }
    kiln_dim *sizes;
    KILN_ALLOC(sizes, c->arena, c->n_out);
    KILN_TRY(read_sizes(c, rank < 0 ? KILN_DIM_UNKNOWN : kiln_infer_dim(c, 0, axis), sizes));
    for (int32_t i = 0; i < c->n_out; i++) {
        kiln_dim *out = kiln_infer_dims(c, i, c->in[0].type.dtype, rank);
        if (!out) {
            return KILN_E_MEMORY;
        }
        for (int32_t d = 0; d < rank; d++) {
            out[d] = d == axis ? sizes[i] : c->in[0].type.dims[d];
        }
    }
    return split_contents(c, axis, sizes);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    int64_t axis = ((const kiln_split_attrs *)c->attrs)->axis, at = 0;
    axis = axis < 0 ? axis + x->rank : axis;
    for (int32_t i = 0; i < c->n_out; i++) {
        kiln_tensor *y = kiln_ref_out(c, i);
        take(x, (int32_t)axis, at, y);
        at += y->dims[axis];
    }
    return KILN_OK;
}

const kiln_op kiln_op_split = {
    .name = "Split",
    .domain = "",
    .since = 18,
    .min_in = 1,
    .max_in = 2,
    .min_out = 1,
    .max_out = -1,
    KILN_OP_ATTRS(table, kiln_split_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
