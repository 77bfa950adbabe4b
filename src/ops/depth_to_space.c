/* depth_to_space.c - DepthToSpace and SpaceToDepth: blocks of pixels to channels and back.
 *
 * Both see the deep tensor as [n, b, b, c, h, w] (DCR) or [n, c, b, b, h, w] (CRD), and the wide
 * one as [n, c, h, b, w, b]: a transposition of six axes. */
#include "ops/attrs.h"
#include "ops/move.h"

static const char *const modes[] = {"DCR", "CRD", NULL};
static const kiln_attr table[] = {
    {.name = "blocksize",
     .kind = KILN_ATTR_INT,
     .required = true,
     .offset = offsetof(kiln_blocks_attrs, blocksize)},
    KILN_A_ENUM(kiln_blocks_attrs, mode, modes, 0),
};

static kiln_status check(kiln_infer *c, int64_t *b) {
    *b = ((const kiln_blocks_attrs *)c->attrs)->blocksize;
    KILN_TRY(kiln_infer_rank(c, 0, 4, 4));
    if (*b < 1 || *b > INT32_MAX) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "blocksize = %lld is out of range", (long long)*b);
    }
    return KILN_OK;
}

static kiln_status divisible(const kiln_infer *c, int32_t d, int64_t by) {
    kiln_dim dim = kiln_infer_dim(c, 0, d);
    if (kiln_dim_known(dim) && dim % by != 0) {
        return KILN_INFER_FAIL(c, SHAPE, "dim %d of size %lld is not a multiple of %lld", d,
                               (long long)dim, (long long)by);
    }
    return KILN_OK;
}

static kiln_status to_space_infer(kiln_infer *c) {
    int64_t b;
    KILN_TRY(check(c, &b));
    KILN_TRY(divisible(c, 1, b * b));
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, 4);
    if (!out) {
        return KILN_E_MEMORY;
    }
    out[0] = kiln_infer_dim(c, 0, 0);
    out[1] = kiln_dim_div(c->dims, kiln_infer_dim(c, 0, 1), b * b);
    out[2] = kiln_dim_mul(c->dims, kiln_infer_dim(c, 0, 2), b);
    out[3] = kiln_dim_mul(c->dims, kiln_infer_dim(c, 0, 3), b);
    return KILN_OK;
}

static kiln_status to_depth_infer(kiln_infer *c) {
    int64_t b;
    KILN_TRY(check(c, &b));
    KILN_TRY(divisible(c, 2, b));
    KILN_TRY(divisible(c, 3, b));
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, 4);
    if (!out) {
        return KILN_E_MEMORY;
    }
    out[0] = kiln_infer_dim(c, 0, 0);
    out[1] = kiln_dim_mul(c->dims, kiln_infer_dim(c, 0, 1), b * b);
    out[2] = kiln_dim_div(c->dims, kiln_infer_dim(c, 0, 2), b);
    out[3] = kiln_dim_div(c->dims, kiln_infer_dim(c, 0, 3), b);
    return KILN_OK;
}

/* Walks the wide tensor as [n, c, h, by, w, bx] together with the deep one. */
static kiln_status move(kiln_ref *c, const kiln_tensor *deep, const kiln_tensor *wide,
                        bool to_depth) {
    const kiln_blocks_attrs *a = c->attrs;
    int64_t b = a->blocksize, channels = wide->dims[1], h = deep->dims[2], w = deep->dims[3];
    int64_t dims[6] = {wide->dims[0], channels, h, b, w, b}, strides[6], plane = h * w;
    int64_t per_block = a->mode ? plane : channels * plane,
            per_channel = a->mode ? b * b * plane : plane;
    int64_t other[6] = {b * b * channels * plane, per_channel, w, b * per_block, 1, per_block};
    kiln_strides(dims, 6, strides);
    if (to_depth) {
        kiln_move_box(deep->dtype, 6, dims, deep->data, 0, other, wide->data, 0, strides);
    } else {
        kiln_move_box(deep->dtype, 6, dims, wide->data, 0, strides, deep->data, 0, other);
    }
    return KILN_OK;
}

static kiln_status to_space_ref(kiln_ref *c) {
    return move(c, kiln_ref_in(c, 0), kiln_ref_out(c, 0), false);
}

static kiln_status to_depth_ref(kiln_ref *c) {
    return move(c, kiln_ref_out(c, 0), kiln_ref_in(c, 0), true);
}

const kiln_op kiln_op_depth_to_space = {
    .name = "DepthToSpace",
    .domain = "",
    .since = 28,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_blocks_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = to_space_infer,
    .ref = to_space_ref,
};

const kiln_op kiln_op_space_to_depth = {
    .name = "SpaceToDepth",
    .domain = "",
    .since = 28,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_blocks_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = to_depth_infer,
    .ref = to_depth_ref,
};
