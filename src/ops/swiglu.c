/* swiglu.c - SwiGLU: a * sigmoid(alpha * a) * b; the inputs have one shape. */
#include <math.h>

#include "ops/attrs.h"
#include "ops/util.h"

static const kiln_attr table[] = {KILN_A_FLOAT(kiln_activation_attrs, alpha, 1.0f)};

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    int32_t ra = kiln_infer_in_rank(c, 0), rb = kiln_infer_in_rank(c, 1);
    if (ra >= 0 && rb >= 0 && ra != rb) {
        return KILN_INFER_FAIL(c, SHAPE, "A has rank %d, B has rank %d", ra, rb);
    }
    for (int32_t i = 0; i < ra && i < rb; i++) {
        kiln_dim a = kiln_infer_dim(c, 0, i), b = kiln_infer_dim(c, 1, i);
        if (kiln_dim_differ(a, b)) {
            return KILN_INFER_FAIL(c, SHAPE, "dim %d is %lld in A, %lld in B", i, (long long)a,
                                   (long long)b);
        }
    }
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_activation_attrs *a = c->attrs;
    const kiln_tensor *gate = kiln_ref_in(c, 0), *value = kiln_ref_in(c, 1);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t n = kiln_tensor_count(y);
    for (int64_t i = 0; i < n; i++) {
        double g = kiln_get_f64(gate->dtype, gate->data, i);
        double v = kiln_get_f64(value->dtype, value->data, i);
        kiln_set_f64(y->dtype, y->data, i, g / (1 + exp(-(double)a->alpha * g)) * v);
    }
    return KILN_OK;
}

const kiln_op kiln_op_swiglu = {
    .name = "SwiGLU",
    .domain = "",
    .since = 28,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    KILN_OP_ATTRS(table, kiln_activation_attrs),
    .tolerance = KILN_TOL_ROUND,
    .infer = infer,
    .ref = ref,
};
