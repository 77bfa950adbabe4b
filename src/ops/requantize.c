/* requantize.c - see requantize.h. */
#include "ops/requantize.h"

void kiln_int_range(kiln_dtype dtype, int64_t *lo, int64_t *hi) {
    int bits = kiln_dtype_bits(dtype);
    bool is_signed = kiln_dtype_is_signed_int(dtype);
    *lo = is_signed ? -(INT64_C(1) << (bits - 1)) : 0;
    *hi = (INT64_C(1) << (is_signed ? bits - 1 : bits)) - 1;
}

int64_t kiln_quantize_saturate(double v, int64_t zero, kiln_dtype dtype) {
    int64_t lo, hi;
    kiln_int_range(dtype, &lo, &hi);
    double q = isnan(v) ? (double)zero : nearbyint(v) + (double)zero;
    return q < (double)lo ? lo : q > (double)hi ? hi : (int64_t)q;
}
