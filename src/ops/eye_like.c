/* eye_like.c - EyeLike: a matrix of the input's shape with ones on one diagonal. */
#include "ops/move.h"

typedef struct eye_attrs {
    int64_t dtype; /* KILN_ABSENT: the input's */
    int64_t k;
} eye_attrs;

static const kiln_attr table[] = {
    KILN_A_INT(eye_attrs, dtype, KILN_ABSENT),
    KILN_A_INT(eye_attrs, k, 0),
};

static kiln_status infer(kiln_infer *c) {
    const eye_attrs *a = c->attrs;
    const uint32_t set = KILN_T_NUMBER | KILN_T(BOOL);
    KILN_TRY(kiln_infer_rank(c, 0, 2, 2));
    kiln_dtype dtype = c->in[0].type.dtype;
    if (a->dtype != KILN_ABSENT) {
        if (a->dtype <= 0 || a->dtype >= KILN_DTYPE_COUNT) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "dtype = %lld is no element type",
                                   (long long)a->dtype);
        }
        dtype = (kiln_dtype)a->dtype;
    }
    if (!(set >> dtype & 1)) {
        return KILN_INFER_FAIL(c, DTYPE, "%s has no one", kiln_dtype_name(dtype));
    }
    return kiln_infer_like(c, 0, 0, dtype);
}

static kiln_status ref(kiln_ref *c) {
    int64_t k = ((const eye_attrs *)c->attrs)->k;
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t rows = y->dims[0], columns = y->dims[1];
    if (k > columns || k < -rows) {
        return KILN_OK;
    }
    for (int64_t i = k < 0 ? -k : 0; i < rows && i + k < columns; i++) {
        kiln_set_i64(y->dtype, y->data, i * columns + i + k, 1);
    }
    return KILN_OK;
}

const kiln_op kiln_op_eye_like = {
    .name = "EyeLike",
    .domain = "",
    .since = 22,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, eye_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
