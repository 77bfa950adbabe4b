/* requantize.h - int32 sums back to 8 bits: sat(round_half_even(float(acc) * m) + zero point).
 *
 * All in float32, multiply and add not contracted; kernels must give the same bits. */
#ifndef KILN_OPS_REQUANTIZE_H
#define KILN_OPS_REQUANTIZE_H

#include <math.h>

#include "ops/util.h"

/* m = x_scale * w_scale / y_scale, evaluated in float32 from the left. */
static inline float kiln_requantize_scale(float x_scale, float w_scale, float y_scale) {
    float product = x_scale * w_scale;
    return product / y_scale;
}

/* Least and greatest value of an integer dtype of at most 32 bits. */
void kiln_int_range(kiln_dtype dtype, int64_t *lo, int64_t *hi);

/* round_half_even(v) + zero, saturated to dtype. NaN counts as 0. */
int64_t kiln_quantize_saturate(double v, int64_t zero, kiln_dtype dtype);

static inline int64_t kiln_requantize(int32_t acc, float m, int64_t zero, kiln_dtype dtype) {
    float v = (float)acc * m;
    return kiln_quantize_saturate(v, zero, dtype);
}

#endif
