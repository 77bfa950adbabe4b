/* quantize_simd.c - see quantize.h. Compiled once per ISA. */
#include "backend/cpu/prims/quantize.h"
#include "backend/cpu/prims/simd.h"

/* vf_min and vf_max return their second operand when either is NaN. */
static void range(const float *x, int64_t n, float *lo, float *hi) {
    kiln_vf low = vf_set1(*lo), high = vf_set1(*hi);
    int64_t i = 0;
    for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
        kiln_vf v = vf_load(x + i);
        low = vf_min(v, low);
        high = vf_max(v, high);
    }
    /* Lanes past the end count as zero, which [lo, hi] need not hold. */
    for (; i < n; i++) {
        *lo = x[i] < *lo ? x[i] : *lo;
        *hi = x[i] > *hi ? x[i] : *hi;
    }
    float l = vf_hmin(low), h = vf_hmax(high);
    *lo = l < *lo ? l : *lo;
    *hi = h > *hi ? h : *hi;
}

KILN_INLINE kiln_vi quantized(kiln_vf x, kiln_vf scale, kiln_vf lo, kiln_vf hi, kiln_vi zero) {
    kiln_vf q = vf_div(x, scale);
    q = vf_select(vf_isnan(q), vf_zero(), q);
    return vi_add(vi_from_vf(vf_min(vf_max(q, lo), hi)), zero);
}

static void quantize(uint8_t *y, const float *x, int64_t n, float scale, int32_t zero) {
    const kiln_vf s = vf_set1(scale), lo = vf_set1((float)-zero), hi = vf_set1((float)(255 - zero));
    const kiln_vi z = vi_set1(zero);
    int64_t i = 0;
    for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
        vi_store_u8(y + i, quantized(vf_load(x + i), s, lo, hi, z));
    }
    if (i < n) {
        vi_store_u8_tail(y + i, n - i, quantized(vf_load_tail(x + i, n - i), s, lo, hi, z));
    }
}

const kiln_quantize_prims KILN_ISA_SYMBOL(kiln_quantize_prims) = {
    .isa = KILN_ISA_NAME,
    .range = range,
    .quantize = quantize,
};
