/* classify.c - IsNaN and IsInf: float elements to truth values. */
#include <math.h>

#include "ops/util.h"

#define T_F8 (KILN_T(F8E4M3FN) | KILN_T(F8E4M3FNUZ) | KILN_T(F8E5M2) | KILN_T(F8E5M2FNUZ))

typedef struct is_inf_attrs {
    int64_t detect_negative, detect_positive;
} is_inf_attrs;

static const kiln_attr is_inf_table[] = {KILN_A_INT(is_inf_attrs, detect_negative, 1),
                                         KILN_A_INT(is_inf_attrs, detect_positive, 1)};

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT | T_F8));
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_BOOL);
}

static kiln_status ref_is_nan(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    uint8_t *y = kiln_ref_out(c, 0)->data;
    int64_t n = kiln_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        double v = kiln_get_f64(x->dtype, x->data, i);
        y[i] = v != v;
    }
    return KILN_OK;
}

static kiln_status ref_is_inf(kiln_ref *c) {
    const is_inf_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    uint8_t *y = kiln_ref_out(c, 0)->data;
    int64_t n = kiln_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        double v = kiln_get_f64(x->dtype, x->data, i);
        y[i] = isinf(v) && (v > 0 ? a->detect_positive != 0 : a->detect_negative != 0);
    }
    return KILN_OK;
}

const kiln_op kiln_op_is_nan = {
    .name = "IsNaN",
    .domain = "",
    .since = 20,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref_is_nan,
};

const kiln_op kiln_op_is_inf = {
    .name = "IsInf",
    .domain = "",
    .since = 20,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    KILN_OP_ATTRS(is_inf_table, is_inf_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref_is_inf,
};
