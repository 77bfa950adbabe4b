/* tensor_scatter.c - TensorScatter: new steps written into a cache of keys or values. */
#include "ops/index.h"

typedef struct tensor_scatter_attrs {
    int64_t axis;
    int32_t mode;
} tensor_scatter_attrs;

enum { LINEAR, CIRCULAR };
static const char *const modes[] = {"linear", "circular", NULL};
static const kiln_attr table[] = {
    KILN_A_INT(tensor_scatter_attrs, axis, -2),
    KILN_A_ENUM(tensor_scatter_attrs, mode, modes, LINEAR),
};

static kiln_status infer(kiln_infer *c) {
    int32_t rank = kiln_infer_in_rank(c, 0), axis;
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    KILN_TRY(kiln_infer_rank(c, 0, 2, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 2, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 2, KILN_T(I64)));
    KILN_TRY(kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE));
    if (rank < 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_rank(c, 1, rank, rank));
    KILN_TRY(
        kiln_infer_axis(c, ((const tensor_scatter_attrs *)c->attrs)->axis, rank, "axis", &axis));
    if (axis == 0) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "axis = 0 is the batch");
    }
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim x = kiln_infer_dim(c, 0, d), u = kiln_infer_dim(c, 1, d);
        if (d == axis ? kiln_dim_known(x) && kiln_dim_known(u) && u > x : kiln_dim_differ(x, u)) {
            return KILN_INFER_FAIL(c, SHAPE, "dim %d is %lld in the cache and %lld in the update",
                                   d, (long long)x, (long long)u);
        }
    }
    if (kiln_dim_differ(kiln_infer_dim(c, 2, 0), kiln_infer_dim(c, 0, 0)) && kiln_infer_has(c, 2)) {
        return KILN_INFER_FAIL(c, SHAPE, "write_indices has %lld entries for a batch of %lld",
                               (long long)kiln_infer_dim(c, 2, 0),
                               (long long)kiln_infer_dim(c, 0, 0));
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const tensor_scatter_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *u = kiln_ref_in(c, 1), *write = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int32_t axis = (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    int64_t steps = x->dims[axis], news = u->dims[axis];
    int64_t inner = kiln_index_span(x->dims + axis + 1, x->rank - axis - 1);
    int64_t per_batch = kiln_index_span(x->dims + 1, axis - 1);
    kiln_copy_elements(x->dtype, y->data, 0, x->data, 0, kiln_tensor_count(x));
    for (int64_t o = 0; o < x->dims[0] * per_batch; o++) {
        int64_t first = write ? ((const int64_t *)write->data)[o / per_batch] : 0;
        if (first < 0 || (a->mode == LINEAR && first > steps - news)) {
            return KILN_INFER_FAIL(
                c, INDEX, "write_indices[%lld] = %lld: %lld new steps in a cache of %lld",
                (long long)(o / per_batch), (long long)first, (long long)news, (long long)steps);
        }
        for (int64_t s = 0; s < news; s++) {
            int64_t to = a->mode == CIRCULAR ? (first % steps + s) % steps : first + s;
            kiln_copy_elements(x->dtype, y->data, (o * steps + to) * inner, u->data,
                               (o * news + s) * inner, inner);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_tensor_scatter = {
    .name = "TensorScatter",
    .domain = "",
    .since = 24,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, tensor_scatter_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
