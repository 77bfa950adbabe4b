/* scales.h - from a range to scale and zero point, and the reference of what they do.
 *
 * Symmetric: signed, zero point 0, the greatest |x| on qmax = 2^(bits-1) - 1. Asymmetric: unsigned,
 * lo on 0 and hi on 2^bits - 1, then moved so that 0.0 falls on an integer, the zero point. Either
 * way 0.0 is represented exactly and scales are float32, positive and normal whatever the range:
 *
 *     kiln_qparams q = kiln_qparams_of(lo, hi, &(kiln_scheme){.bits = 8});
 *     kiln_quantize_value(&q, x), kiln_dequantize_value(&q, n)
 *
 * are what QuantizeLinear and DequantizeLinear compute with these parameters.
 */
#ifndef KILN_QUANT_SCALES_H
#define KILN_QUANT_SCALES_H

#include "ops/requantize.h"

/* Scales stay within these bounds, so that the product of two of them is a normal float32. A tensor
 * that never leaves 127 * KILN_SCALE_MIN counts as zero. */
#define KILN_SCALE_MIN 0x1p-60f
#define KILN_SCALE_MAX 0x1p60f

typedef struct kiln_scheme {
    int32_t bits; /* 2..8 */
    bool symmetric;
} kiln_scheme;

typedef struct kiln_qparams {
    float scale;
    int32_t zero;
    int32_t qlo, qhi; /* least and greatest integer used */
    kiln_dtype dtype; /* that holds them: I8 symmetric, U8 asymmetric */
} kiln_qparams;

/* For values in [lo, hi], widened to hold 0; finite, lo <= hi. A range without extent gives scale
 * 1. */
kiln_qparams kiln_qparams_of(double lo, double hi, const kiln_scheme *scheme);

/* Saturates to the integers used; NaN counts as 0. */
static inline int32_t kiln_quantize_value(const kiln_qparams *q, float x) {
    float v = x / q->scale;
    int64_t n = kiln_quantize_saturate(v, q->zero, q->dtype);
    return (int32_t)(n < q->qlo ? q->qlo : n > q->qhi ? q->qhi : n);
}
static inline float kiln_dequantize_value(const kiln_qparams *q, int32_t n) {
    float shifted = (float)(n - q->zero);
    return shifted * q->scale;
}

/* ---- Weights ---- */

/* Symmetric scale of values whose greatest magnitude is amax; 1 for amax = 0. */
float kiln_weight_scale(double amax, int32_t bits);

/* The least scale of a weight whose bias is added as an int32 of scale x_scale * w_scale: it leaves
 * half of int32 to the sum. A weight channel that is (almost) zero beside a large bias would
 * otherwise overflow. KILN_SCALE_MIN for bias 0. */
float kiln_weight_scale_floor(double bias, double x_scale);

/* Quantizes a float tensor with scale[c] per index of `axis`, or scale[0] for all when axis < 0,
 * zero point 0, to `bits` bits held in int8. `out` has room for as many bytes. */
void kiln_quantize_weight(int8_t *out, const kiln_tensor *w, int32_t axis, const float *scale,
                          int32_t bits);

#endif
