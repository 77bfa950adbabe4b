/* vecmath.h - elementary functions over one kiln_vf, for kernel files (*_simd.c).
 *
 * Every function works lane by lane, without memory, branches that depend on data (but the rare
 * large-argument path of sine and cosine) or errno, so a value's result never depends on its
 * neighbours. Errors below bound what was seen against double precision over random sweeps of the
 * float range (tests/unit/test_prims_program.c repeats them), with FMA; the portable rung adds
 * about one ulp. NaN in gives NaN out. Denormal inputs and results are flushed when the thread runs
 * with FTZ/DAZ, and handled when it does not.
 *
 *     vf_exp      2 ulp     overflows to +inf above 88.7228, reaches 0 below -103.97
 *     vf_expm1    3 ulp     -1 at -inf
 *     vf_log      2 ulp     -inf at 0, NaN below 0
 *     vf_log1p    4 ulp     -inf at -1
 *     vf_sigmoid  4 ulp     0 and 1 at the infinities
 *     vf_tanh     4 ulp     odd; -1 and 1 at the infinities
 *     vf_erf      4 ulp     odd; -1 and 1 at the infinities
 *     vf_sin/cos  4 ulp of 1 (absolute 2.5e-7) for |x| <= 8192, libm beyond
 *
 * Polynomials are weighted minimax fits (Lawson iteration on Chebyshev nodes in double precision).
 * Argument reduction for exp and log splits ln 2, and for sine pi/2, into parts with trailing zero
 * bits (Cody and Waite), so that it is as good without FMA.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_VECMATH_H
#define KILN_BACKEND_CPU_PRIMS_VECMATH_H

#include "backend/cpu/prims/simd.h"

#include <math.h>

/* The first min(n, KILN_VLEN) lanes at p, n >= 1: a whole-vector access wherever it fits, because
 * masked stores are many times slower on some processors. */
KILN_INLINE kiln_vf vf_load_upto(const float *p, int64_t n) {
    return n >= KILN_VLEN ? vf_load(p) : vf_load_tail(p, n);
}
KILN_INLINE void vf_store_upto(float *p, int64_t n, kiln_vf v) {
    if (n >= KILN_VLEN) {
        vf_store(p, v);
    } else {
        vf_store_tail(p, n, v);
    }
}

/* p[0] + p[1] x + ... + p[n-1] x^(n-1) by Horner's rule; n is a constant at every call. */
KILN_INLINE kiln_vf vf_poly(kiln_vf x, const float *p, int n) {
    kiln_vf y = vf_set1(p[n - 1]);
    KILN_UNROLL(12)
    for (int i = n - 2; i >= 0; i--) {
        y = vf_fma(y, x, vf_set1(p[i]));
    }
    return y;
}
#define VF_POLY(x, ...) \
    vf_poly(x, (const float[]){__VA_ARGS__}, (int)(sizeof((const float[]){__VA_ARGS__}) / 4))

#define VF_LN2_HI 0.693359375f
#define VF_LN2_LO -2.12194440e-4f
#define VF_LOG2E 1.44269504f
/* 1.5 * 2^23: adding it leaves round(x) in the low mantissa bits. */
#define VF_ROUND_MAGIC 12582912.0f

/* x = n ln 2 + r with |r| <= ln2 / 2; returns r and *n. Needs |x| < 2^21. */
KILN_INLINE kiln_vf vf_exp_reduce(kiln_vf x, kiln_vi *n) {
    const kiln_vf magic = vf_set1(VF_ROUND_MAGIC);
    kiln_vf t = vf_fma(x, vf_set1(VF_LOG2E), magic);
    kiln_vf nf = vf_sub(t, magic);
    *n = vi_sub(vf_bits(t), vf_bits(magic));
    return vf_fnma(nf, vf_set1(VF_LN2_LO), vf_fnma(nf, vf_set1(VF_LN2_HI), x));
}

/* exp(r) - 1 for |r| <= ln2 / 2. */
KILN_INLINE kiln_vf vf_expm1_core(kiln_vf r) {
    kiln_vf p = VF_POLY(r, 5.000000095e-01f, 1.666651884e-01f, 4.166620583e-02f, 8.368889558e-03f,
                        1.395048916e-03f);
    return vf_fma(vf_mul(r, r), p, r);
}

KILN_INLINE kiln_vf vf_exp(kiln_vf x) {
    kiln_vi n;
    kiln_vf r = vf_exp_reduce(vf_clamp(x, vf_set1(-104.0f), vf_set1(88.75f)), &n);
    return vf_scale2(vf_add(vf_expm1_core(r), vf_set1(1.0f)), n);
}

/* 2^n (e + 1) - 1 = 2 (2^(n-1) e + (2^(n-1) - 1/2)), which reaches n = 128 and is exact at n =
 * 0. */
KILN_INLINE kiln_vf vf_expm1(kiln_vf x) {
    kiln_vi n;
    kiln_vf r = vf_exp_reduce(vf_clamp(x, vf_set1(-40.0f), vf_set1(89.0f)), &n);
    kiln_vf s = vi_as_vf(vi_shl(vi_add(n, vi_set1(126)), 23));
    kiln_vf half = vf_fma(s, vf_expm1_core(r), vf_sub(s, vf_set1(0.5f)));
    kiln_vf y = vf_add(half, half);
    return vf_select(vf_lt(vf_abs(x), vf_set1(1e-5f)), vf_fma(vf_mul(x, x), vf_set1(0.5f), x), y);
}

KILN_INLINE kiln_vf vf_log(kiln_vf x) {
    const kiln_vi sqrt_half = vf_bits(vf_set1(0.707106781f));
    kiln_vm tiny = vf_lt(x, vf_set1(1.17549435e-38f));
    kiln_vf scaled = vf_select(tiny, vf_mul(x, vf_set1(8388608.0f)), x);
    kiln_vi e = vi_shr(vi_sub(vf_bits(scaled), sqrt_half), 23);
    kiln_vf f = vf_sub(vi_as_vf(vi_sub(vf_bits(scaled), vi_shl(e, 23))), vf_set1(1.0f));
    kiln_vf ef = vf_from_vi(vi_sub(e, vi_select(tiny, vi_set1(23), vi_set1(0))));
    kiln_vf p = VF_POLY(f, 3.333331044e-01f, -2.499998663e-01f, 2.000222670e-01f, -1.666924946e-01f,
                        1.421865543e-01f, -1.238437030e-01f, 1.187301626e-01f, -1.178969556e-01f,
                        6.915146943e-02f);
    kiln_vf f2 = vf_mul(f, f);
    kiln_vf low = vf_fma(vf_mul(f2, f), p, vf_mul(ef, vf_set1(VF_LN2_LO)));
    low = vf_fnma(f2, vf_set1(0.5f), low);
    kiln_vf y = vf_fma(ef, vf_set1(VF_LN2_HI), vf_add(f, low));
    y = vf_select(vf_eq(x, vf_set1(INFINITY)), x, y);
    y = vf_select(vf_eq(x, vf_zero()), vf_set1(-INFINITY), y);
    return vf_select(vf_ge(x, vf_zero()), y, vf_set1(NAN));
}

/* With u = 1 + x rounded: log(1 + x) = log(u) + (x - (u - 1)) / u up to second order of the
 * rounding error. */
KILN_INLINE kiln_vf vf_log1p(kiln_vf x) {
    const kiln_vf one = vf_set1(1.0f);
    kiln_vf u = vf_add(one, x);
    kiln_vf y = vf_add(vf_log(u), vf_div(vf_sub(x, vf_sub(u, one)), u));
    kiln_vf end = vf_log(u);
    kiln_vm special = vm_or(vf_eq(u, vf_set1(INFINITY)), vf_eq(u, vf_zero()));
    y = vf_select(special, end, y);
    return vf_select(vf_lt(vf_abs(x), vf_set1(1e-7f)), x, y);
}

KILN_INLINE kiln_vf vf_sigmoid(kiln_vf x) {
    const kiln_vf one = vf_set1(1.0f);
    return vf_div(one, vf_add(one, vf_exp(vf_neg(x))));
}

/* tanh |x| = t / (t + 2) with t = expm1(2 |x|); 1 from |x| = 10 on. */
KILN_INLINE kiln_vf vf_tanh(kiln_vf x) {
    kiln_vf a = vf_min(vf_set1(10.0f), vf_abs(x));
    kiln_vi n;
    kiln_vf r = vf_exp_reduce(vf_add(a, a), &n);
    kiln_vf s = vi_as_vf(vi_shl(vi_add(n, vi_set1(127)), 23));
    kiln_vf t = vf_fma(s, vf_expm1_core(r), vf_sub(s, vf_set1(1.0f)));
    return vf_copysign(vf_div(t, vf_add(t, vf_set1(2.0f))), x);
}

/* Below 1: x P(x^2). From 1 on: 1 - exp(-Q(|x|)), Q = -log erfc; erf rounds to 1 before 4. */
KILN_INLINE kiln_vf vf_erf(kiln_vf x) {
    kiln_vf a = vf_min(vf_set1(4.0f), vf_abs(x));
    kiln_vf small =
        VF_POLY(vf_mul(a, a), 1.128379166e+00f, -3.761262714e-01f, 1.128360018e-01f,
                -2.685444459e-02f, 5.189535340e-03f, -8.020841281e-04f, 7.889119535e-05f);
    kiln_vf q = VF_POLY(a, -1.880402334e-04f, 1.129578424e+00f, 6.332198931e-01f, 1.084185774e-01f,
                        -2.520825675e-02f, 4.204561877e-03f, -4.413363776e-04f, 2.168684998e-05f);
    kiln_vi n;
    kiln_vf r = vf_exp_reduce(vf_neg(q), &n);
    kiln_vf s = vi_as_vf(vi_shl(vi_add(n, vi_set1(127)), 23));
    kiln_vf erfc = vf_fma(s, vf_expm1_core(r), s);
    kiln_vf large = vf_sub(vf_set1(1.0f), erfc);
    kiln_vf y = vf_select(vf_lt(a, vf_set1(1.0f)), vf_mul(a, small), large);
    return vf_copysign(y, x);
}

/* sin(x + quarter * pi/2), quarter 0 or 1. */
KILN_INLINE kiln_vf vf_sin_shifted(kiln_vf x, int quarter) {
    const kiln_vf magic = vf_set1(VF_ROUND_MAGIC);
    kiln_vf t = vf_fma(x, vf_set1(0.636619772f), magic);
    kiln_vf n = vf_sub(t, magic);
    kiln_vi k = vi_add(vi_sub(vf_bits(t), vf_bits(magic)), vi_set1(quarter));
    kiln_vf r = vf_fnma(n, vf_set1(1.5703125f), x);
    r = vf_fnma(n, vf_set1(4.837512969970703125e-4f), r);
    r = vf_fnma(n, vf_set1(7.549789948768648e-8f), r);
    kiln_vf u = vf_mul(r, r);
    kiln_vf ps = VF_POLY(u, -1.666665487e-01f, 8.332173533e-03f, -1.951665472e-04f);
    kiln_vf pc = VF_POLY(u, 4.166664675e-02f, -1.388736143e-03f, 2.443772818e-05f);
    kiln_vf s = vf_fma(vf_mul(u, r), ps, r);
    kiln_vf c = vf_fma(vf_mul(u, u), pc, vf_fnma(u, vf_set1(0.5f), vf_set1(1.0f)));
    kiln_vf y = vf_select(vi_eq(vi_and(k, vi_set1(1)), vi_set1(0)), s, c);
    return vi_as_vf(vi_xor(vf_bits(y), vi_shl(vi_and(k, vi_set1(2)), 30)));
}

#define VF_SIN_LIKE(name, quarter, libm)                              \
    KILN_INLINE kiln_vf name(kiln_vf x) {                             \
        kiln_vf y = vf_sin_shifted(x, quarter);                       \
        if (vm_any(vf_gt(vf_abs(x), vf_set1(8192.0f)))) {             \
            float xs[KILN_VLEN];                                      \
            float ys[KILN_VLEN];                                      \
            vf_store(xs, x);                                          \
            vf_store(ys, y);                                          \
            for (int i = 0; i < KILN_VLEN; i++) {                     \
                ys[i] = fabsf(xs[i]) > 8192.0f ? libm(xs[i]) : ys[i]; \
            }                                                         \
            y = vf_load(ys);                                          \
        }                                                             \
        return y;                                                     \
    }
VF_SIN_LIKE(vf_sin, 0, sinf)
VF_SIN_LIKE(vf_cos, 1, cosf)

/* log(1 + exp(x)) without overflow. */
KILN_INLINE kiln_vf vf_softplus(kiln_vf x) {
    return vf_add(vf_max(vf_zero(), x), vf_log1p(vf_exp(vf_neg(vf_abs(x)))));
}

/* x tanh(log(1 + e)) = x m / (m + 2) with e = exp(x), m = e (e + 2); the ratio is 1 from 20 on. */
KILN_INLINE kiln_vf vf_mish(kiln_vf x) {
    kiln_vf e = vf_exp(vf_min(vf_set1(20.0f), x));
    kiln_vf m = vf_mul(e, vf_add(e, vf_set1(2.0f)));
    kiln_vf y = vf_mul(x, vf_div(m, vf_add(m, vf_set1(2.0f))));
    return vf_select(vf_eq(x, vf_set1(-INFINITY)), vf_zero(), y);
}

/* x Phi(x), Phi the normal distribution function. */
KILN_INLINE kiln_vf vf_gelu(kiln_vf x) {
    kiln_vf half = vf_mul(x, vf_set1(0.5f));
    kiln_vf y = vf_fma(half, vf_erf(vf_mul(x, vf_set1(0.707106781f))), half);
    return vf_select(vf_eq(x, vf_set1(-INFINITY)), vf_zero(), y);
}

/* 0.5 x (1 + tanh(z)) = x sigmoid(2 z), z = sqrt(2/pi) (x + 0.044715 x^3). */
KILN_INLINE kiln_vf vf_gelu_tanh(kiln_vf x) {
    kiln_vf c = vf_fma(vf_mul(x, x), vf_set1(0.0713548163f), vf_set1(1.59576912f));
    kiln_vf y = vf_mul(x, vf_sigmoid(vf_mul(x, c)));
    return vf_select(vf_eq(x, vf_set1(-INFINITY)), vf_zero(), y);
}

/* x sigmoid(alpha x). */
KILN_INLINE kiln_vf vf_silu(kiln_vf x, kiln_vf alpha) {
    kiln_vf y = vf_mul(x, vf_sigmoid(vf_mul(alpha, x)));
    return vf_select(vf_eq(x, vf_set1(-INFINITY)), vf_zero(), y);
}

/* max / min that return NaN when either operand is NaN. */
KILN_INLINE kiln_vf vf_max_nan(kiln_vf a, kiln_vf b) {
    return vf_select(vf_isnan(a), a, vf_max(a, b));
}
KILN_INLINE kiln_vf vf_min_nan(kiln_vf a, kiln_vf b) {
    return vf_select(vf_isnan(a), a, vf_min(a, b));
}

#endif
