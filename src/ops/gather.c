/* gather.c - Gather: whole slices of an axis, chosen by index. */
#include "ops/attrs.h"
#include "ops/index.h"
#include "ops/move.h"

static const kiln_attr table[] = {KILN_A_INT(kiln_axis_attrs, axis, 0)};

static kiln_status gather(kiln_diag *diag, int32_t axis, const kiln_tensor *x,
                          const kiln_tensor *index, kiln_tensor *y) {
    int64_t outer = kiln_index_span(x->dims, axis), n = x->dims[axis];
    int64_t inner = kiln_index_span(x->dims + axis + 1, x->rank - axis - 1);
    int64_t count = kiln_tensor_count(index), at = 0, k = 0;
    for (int64_t j = 0; j < count; j++) {
        KILN_TRY(kiln_index_in(diag, kiln_get_i64(index->dtype, index->data, j), n, &k));
    }
    for (int64_t i = 0; i < outer; i++) {
        for (int64_t j = 0; j < count; j++) {
            k = kiln_get_i64(index->dtype, index->data, j);
            k = k < 0 ? k + n : k;
            kiln_copy_elements(y->dtype, y->data, at, x->data, (i * n + k) * inner, inner);
            at += inner;
        }
    }
    return KILN_OK;
}

static kiln_status check_known(kiln_infer *c, kiln_dim n) {
    const int64_t *v;
    int64_t count, k;
    KILN_TRY(kiln_infer_ints(c, 1, &v, &count));
    for (int64_t i = 0; v && kiln_dim_known(n) && i < count; i++) {
        KILN_TRY(kiln_index_in(c->diag, v[i], n, &k));
    }
    return KILN_OK;
}

static kiln_status gather_contents(kiln_infer *c, int32_t axis) {
    kiln_tensor x, index, y;
    if (!kiln_contents_in(c, 0, &x) || !kiln_contents_in(c, 1, &index)) {
        return KILN_OK;
    }
    for (int64_t i = 0, n = kiln_tensor_count(&index); i < n; i++) {
        if (!kiln_dim_known(((const kiln_dim *)index.data)[i])) {
            return KILN_OK;
        }
    }
    KILN_TRY(kiln_contents_out(c, 0, &y));
    return y.data ? gather(c->diag, axis, &x, &index, &y) : KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 0, -1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_INDEX));
    int32_t rank = kiln_infer_in_rank(c, 0), q = kiln_infer_in_rank(c, 1), axis = 0;
    if (rank >= 0) {
        KILN_TRY(
            kiln_infer_axis(c, ((const kiln_axis_attrs *)c->attrs)->axis, rank, "axis", &axis));
        KILN_TRY(check_known(c, c->in[0].type.dims[axis]));
    }
    bool known = rank >= 0 && q >= 0;
    kiln_dim *out =
        kiln_infer_dims(c, 0, c->in[0].type.dtype, known ? rank - 1 + q : KILN_RANK_UNKNOWN);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; known && d < rank - 1 + q; d++) {
        out[d] = d < axis       ? c->in[0].type.dims[d]
                 : d < axis + q ? c->in[1].type.dims[d - axis]
                                : c->in[0].type.dims[d - q + 1];
    }
    return known ? gather_contents(c, axis) : KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    int64_t axis = ((const kiln_axis_attrs *)c->attrs)->axis;
    return gather(c->diag, (int32_t)(axis < 0 ? axis + x->rank : axis), x, kiln_ref_in(c, 1),
                  kiln_ref_out(c, 0));
}

const kiln_op kiln_op_gather = {
    .name = "Gather",
    .domain = "",
    .since = 13,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_axis_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
