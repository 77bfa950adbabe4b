/* flatten.c - Flatten: two dims, the axes before `axis` and those from it on. */
#include "ops/attrs.h"
#include "ops/move.h"

static const kiln_attr table[] = {KILN_A_INT(kiln_axis_attrs, axis, 1)};

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 0, -1));
    int64_t axis = ((const kiln_axis_attrs *)c->attrs)->axis;
    int32_t rank = kiln_infer_in_rank(c, 0);
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, 2);
    if (!out) {
        return KILN_E_MEMORY;
    }
    if (rank < 0) {
        return KILN_OK;
    }
    if (axis < -(int64_t)rank || axis > rank) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "axis = %lld is out of range for rank %d",
                               (long long)axis, rank);
    }
    int32_t at = (int32_t)(axis < 0 ? axis + rank : axis);
    out[0] = kiln_dim_product(c->dims, c->in[0].type.dims, at);
    out[1] = kiln_dim_product(c->dims, c->in[0].type.dims + at, rank - at);
    return kiln_contents_pass(c, 0, 0);
}

const kiln_op kiln_op_flatten = {
    .name = "Flatten",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_VIEW,
    KILN_OP_ATTRS(table, kiln_axis_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = kiln_ref_view,
};
