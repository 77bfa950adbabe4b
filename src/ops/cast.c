/* cast.c - Cast, CastLike, BitCast: between all element types but string and complex. */
#include <string.h>

#include "ops/attrs.h"
#include "ops/elementwise.h"
#include "ops/narrow.h"

static const char *const round_words[] = {"up", "down", "nearest", NULL};

static const kiln_attr cast_table[] = {
    KILN_A_ENUM(kiln_cast_attrs, round_mode, round_words, KILN_ROUND_UP),
    KILN_A_INT(kiln_cast_attrs, saturate, 1),
    KILN_A_INT_REQUIRED(kiln_cast_attrs, to),
};
static const kiln_attr like_table[] = {
    KILN_A_ENUM(kiln_cast_attrs, round_mode, round_words, KILN_ROUND_UP),
    KILN_A_INT(kiln_cast_attrs, saturate, 1),
};
static const kiln_attr bit_table[] = {KILN_A_INT_REQUIRED(kiln_cast_attrs, to)};

#define T_NO_CAST (KILN_T(STRING) | KILN_T(C64) | KILN_T(C128))

/* The contents of integers pass where the result holds them; truth values become 0 or 1. */
static kiln_dim pass(const kiln_infer *c, const kiln_dim *x) {
    if (c->out[0].type.dtype != KILN_DTYPE_BOOL) {
        return x[0];
    }
    return kiln_dim_known(x[0]) ? x[0] != 0 : KILN_DIM_UNKNOWN;
}

static kiln_status check_to(const kiln_infer *c, int64_t to) {
    if (to <= KILN_DTYPE_NONE || to >= KILN_DTYPE_COUNT) {
        return KILN_INFER_FAIL(c, VARIANT, "to is %lld, which is no element type Kiln holds",
                               (long long)to);
    }
    return KILN_OK;
}

static kiln_status infer_to(kiln_infer *c, int64_t to) {
    kiln_dtype from = c->in[0].type.dtype;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_ANY));
    KILN_TRY(check_to(c, to));
    if (((T_NO_CAST >> from) & 1) || ((T_NO_CAST >> to) & 1)) {
        return from == (kiln_dtype)to
                   ? kiln_infer_like(c, 0, 0, from)
                   : KILN_INFER_FAIL(c, VARIANT, "casting %s to %s", kiln_dtype_name(from),
                                     kiln_dtype_name((kiln_dtype)to));
    }
    KILN_TRY(kiln_infer_like(c, 0, 0, (kiln_dtype)to));
    bool from_int = kiln_dtype_is_int(from) || from == KILN_DTYPE_BOOL;
    return from_int ? kiln_contents_map(c, 1, pass) : KILN_OK;
}

static kiln_status infer_cast(kiln_infer *c) {
    const kiln_cast_attrs *a = c->attrs;
    return infer_to(c, a->to);
}

static kiln_status infer_like(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_ANY));
    return infer_to(c, c->in[1].type.dtype);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_cast_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    const kiln_cast_rule rule = {.saturate = a->saturate != 0,
                                 .round_mode = (kiln_round_mode)a->round_mode};
    int64_t n = kiln_tensor_count(x);
    bool from_int = kiln_dtype_is_int(x->dtype) || x->dtype == KILN_DTYPE_BOOL;
    bool to_int = kiln_dtype_is_int(y->dtype) || y->dtype == KILN_DTYPE_BOOL;
    if (x->dtype == y->dtype) {
        kiln_copy_elements(x->dtype, y->data, 0, x->data, 0, n);
        return KILN_OK;
    }
    for (int64_t i = 0; i < n; i++) {
        if (from_int && to_int) {
            kiln_set_i64(y->dtype, y->data, i, kiln_get_i64(x->dtype, x->data, i));
        } else {
            kiln_store_cast(y, i, kiln_get_f64(x->dtype, x->data, i), &rule);
        }
    }
    return KILN_OK;
}

static kiln_status infer_bits(kiln_infer *c) {
    const kiln_cast_attrs *a = c->attrs;
    kiln_dtype from = c->in[0].type.dtype;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_ANY & ~KILN_T(STRING)));
    KILN_TRY(check_to(c, a->to));
    if (from != KILN_DTYPE_NONE && kiln_dtype_bits(from) != kiln_dtype_bits((kiln_dtype)a->to)) {
        return KILN_INFER_FAIL(c, DTYPE, "%s and %s have different widths", kiln_dtype_name(from),
                               kiln_dtype_name((kiln_dtype)a->to));
    }
    return kiln_infer_like(c, 0, 0, (kiln_dtype)a->to);
}

static kiln_status ref_bits(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    size_t bytes = kiln_tensor_bytes(x);
    if (bytes) {
        memcpy(kiln_ref_out(c, 0)->data, x->data, bytes);
    }
    return KILN_OK;
}

const kiln_op kiln_op_cast = {
    .name = "Cast",
    .domain = "",
    .since = 28,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    KILN_OP_ATTRS(cast_table, kiln_cast_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_cast,
    .ref = ref,
};

const kiln_op kiln_op_cast_like = {
    .name = "CastLike",
    .domain = "",
    .since = 25,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(like_table, kiln_cast_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_like,
    .ref = ref,
};

const kiln_op kiln_op_bit_cast = {
    .name = "BitCast",
    .domain = "",
    .since = 26,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE | KILN_OP_VIEW,
    KILN_OP_ATTRS(bit_table, kiln_cast_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_bits,
    .ref = ref_bits,
};
