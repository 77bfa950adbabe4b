/* shape.c - Shape and Size: the dims of a tensor as data. */
#include "ops/move.h"

typedef struct kiln_shape_attrs {
    int64_t start, end;
} kiln_shape_attrs;

static const kiln_attr shape_table[] = {
    KILN_A_INT(kiln_shape_attrs, start, 0),
    KILN_A_INT(kiln_shape_attrs, end, KILN_ABSENT),
};

static int32_t clamp_axis(int64_t axis, int32_t rank) {
    if (axis < 0) {
        axis = axis < -(int64_t)rank ? 0 : axis + rank;
    }
    return (int32_t)(axis > rank ? rank : axis);
}

static void range(const kiln_shape_attrs *a, int32_t rank, int32_t *lo, int32_t *n) {
    *lo = clamp_axis(a->start, rank);
    int32_t hi = a->end == KILN_ABSENT ? rank : clamp_axis(a->end, rank);
    *n = hi > *lo ? hi - *lo : 0;
}

static kiln_status shape_infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 0, -1));
    int32_t rank = kiln_infer_in_rank(c, 0), lo, n;
    kiln_dim *dims = kiln_infer_dims(c, 0, KILN_DTYPE_I64, 1);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    if (rank < 0) {
        return KILN_OK;
    }
    range(c->attrs, rank, &lo, &n);
    dims[0] = n;
    return kiln_infer_set_contents(c, 0, c->in[0].type.dims + lo, n);
}

static kiln_status shape_ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    int32_t lo, n;
    range(c->attrs, x->rank, &lo, &n);
    for (int32_t i = 0; i < n; i++) {
        ((int64_t *)kiln_ref_out(c, 0)->data)[i] = x->dims[lo + i];
    }
    return KILN_OK;
}

static kiln_status size_infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 0, -1));
    if (!kiln_infer_dims(c, 0, KILN_DTYPE_I64, 0)) {
        return KILN_E_MEMORY;
    }
    int32_t rank = kiln_infer_in_rank(c, 0);
    if (rank < 0) {
        return KILN_OK;
    }
    kiln_dim n = kiln_dim_product(c->dims, c->in[0].type.dims, rank);
    return kiln_infer_set_contents(c, 0, &n, 1);
}

static kiln_status size_ref(kiln_ref *c) {
    ((int64_t *)kiln_ref_out(c, 0)->data)[0] = kiln_tensor_count(kiln_ref_in(c, 0));
    return KILN_OK;
}

const kiln_op kiln_op_shape = {
    .name = "Shape",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(shape_table, kiln_shape_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = shape_infer,
    .ref = shape_ref,
};

const kiln_op kiln_op_size = {
    .name = "Size",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .tolerance = KILN_TOL_EXACT,
    .infer = size_infer,
    .ref = size_ref,
};
