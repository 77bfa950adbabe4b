#include "quant/scales.h"

#include "ops/lanes.h"

static float bounded(double scale) {
    double s = scale < (double)KILN_SCALE_MIN ? (double)KILN_SCALE_MIN : scale;
    return (float)(s > (double)KILN_SCALE_MAX ? (double)KILN_SCALE_MAX : s);
}

kiln_qparams kiln_qparams_of(double lo, double hi, const kiln_scheme *scheme) {
    int32_t half = 1 << (scheme->bits - 1);
    kiln_qparams q = {.scale = 1};
    lo = lo < 0 ? lo : 0;
    hi = hi > 0 ? hi : 0;
    if (scheme->symmetric) {
        double amax = -lo > hi ? -lo : hi;
        q.dtype = KILN_DTYPE_I8;
        q.qlo = -half;
        q.qhi = half - 1;
        q.scale = kiln_weight_scale(amax, scheme->bits);
        return q;
    }
    q.dtype = KILN_DTYPE_U8;
    q.qhi = 2 * half - 1;
    if (hi > lo) {
        q.scale = bounded((hi - lo) / q.qhi);
        double zero = nearbyint(-lo / (double)q.scale);
        q.zero = (int32_t)(zero > q.qhi ? q.qhi : zero);
    }
    return q;
}

/* ---- Weights ---- */

float kiln_weight_scale(double amax, int32_t bits) {
    return amax > 0 ? bounded(amax / ((1 << (bits - 1)) - 1)) : 1;
}

float kiln_weight_scale_floor(double bias, double x_scale) {
    return bounded(fabs(bias) / (x_scale * 0x1p30));
}

void kiln_quantize_weight(int8_t *out, const kiln_tensor *w, int32_t axis, const float *scale,
                          int32_t bits) {
    kiln_lanes l = kiln_lanes_of(w, axis < 0 ? 0 : axis);
    int32_t half = 1 << (bits - 1);
    kiln_qparams q = {.qlo = 1 - half, .qhi = half - 1, .dtype = KILN_DTYPE_I8};
    int64_t count = kiln_tensor_count(w);
    for (int64_t i = 0; i < count; i++) {
        q.scale = scale[axis < 0 ? 0 : i / l.inner % l.n];
        out[i] = (int8_t)kiln_quantize_value(&q, (float)kiln_get_f64(w->dtype, w->data, i));
    }
}
