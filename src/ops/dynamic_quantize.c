/* dynamic_quantize.c - DynamicQuantizeLinear: uint8 with scale and zero point from the data's
 * range, widened to hold 0. */
#include <math.h>

#include "ops/requantize.h"

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T(F32)));
    KILN_TRY(kiln_infer_like(c, 0, 0, KILN_DTYPE_U8));
    if (!kiln_infer_dims(c, 1, KILN_DTYPE_F32, 0) || !kiln_infer_dims(c, 2, KILN_DTYPE_U8, 0)) {
        return KILN_E_MEMORY;
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0), *scale_out = kiln_ref_out(c, 1);
    kiln_tensor *zero_out = kiln_ref_out(c, 2);
    const float *v = x->data;
    int64_t n = kiln_tensor_count(x);
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < n; i++) {
        lo = v[i] < lo ? v[i] : lo;
        hi = v[i] > hi ? v[i] : hi;
    }
    float scale = hi == lo ? 1.0f / 255.0f : (hi - lo) / 255.0f;
    float exact = -lo / scale;
    int64_t zero = kiln_quantize_saturate(exact, 0, KILN_DTYPE_U8);
    for (int64_t i = 0; i < n; i++) {
        float q = v[i] / scale;
        kiln_set_i64(KILN_DTYPE_U8, y->data, i, kiln_quantize_saturate(q, zero, KILN_DTYPE_U8));
    }
    if (scale_out) {
        kiln_set_f64(KILN_DTYPE_F32, scale_out->data, 0, scale);
    }
    if (zero_out) {
        kiln_set_i64(KILN_DTYPE_U8, zero_out->data, 0, zero);
    }
    return KILN_OK;
}

const kiln_op kiln_op_dynamic_quantize_linear = {
    .name = "DynamicQuantizeLinear",
    .domain = "",
    .since = 11,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 3,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
