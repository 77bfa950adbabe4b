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
 * A chain of dependent steps leaves most of a core idle, and its window of instructions is too
 * short to begin many of the next ones: loops should give several vectors at once to the forms that
 * end in _n, which take their steps side by side (vf_silu_n(x, 4, alpha): x[0] to x[3]). A lane's
 * result is the same in both forms. VF_TOGETHER is how many fit the registers.
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

enum { VF_TOGETHER = 4 };
/* Before a statement over the vectors i of a form for several. */
#define VF_EACH(n) KILN_UNROLL(4) for (int i = 0; i < (n); i++)

/* y = p[0] + p[1] x + ... + p[terms-1] x^(terms-1) by Horner's rule; terms and n are constants at
 * every call. */
KILN_INLINE void vf_poly_n(kiln_vf *y, const kiln_vf *x, int n, const float *p, int terms) {
    VF_EACH(n) {
        y[i] = vf_set1(p[terms - 1]);
    }
    KILN_UNROLL(12)
    for (int k = terms - 2; k >= 0; k--) {
        VF_EACH(n) {
            y[i] = vf_fma(y[i], x[i], vf_set1(p[k]));
        }
    }
}
#define VF_POLY_N(y, x, n, ...)                      \
    vf_poly_n(y, x, n, (const float[]){__VA_ARGS__}, \
              (int)(sizeof((const float[]){__VA_ARGS__}) / 4))

KILN_INLINE kiln_vf vf_poly(kiln_vf x, const float *p, int terms) {
    kiln_vf y;
    vf_poly_n(&y, &x, 1, p, terms);
    return y;
}
#define VF_POLY(x, ...) \
    vf_poly(x, (const float[]){__VA_ARGS__}, (int)(sizeof((const float[]){__VA_ARGS__}) / 4))

#define VF_LN2_HI 0.693359375f
#define VF_LN2_LO -2.12194440e-4f
#define VF_LOG2E 1.44269504f
/* 1.5 * 2^23: adding it leaves round(x) in the low mantissa bits. */
#define VF_ROUND_MAGIC 12582912.0f

/* x = k ln 2 + r with |r| <= ln2 / 2; x becomes r. Needs |x| < 2^21. bits: k in the low nine bits,
 * as a number modulo 512, so that bits << 23 is k << 23. */
KILN_INLINE void vf_exp_reduce_n(kiln_vf *x, kiln_vi *bits, int n) {
    const kiln_vf magic = vf_set1(VF_ROUND_MAGIC);
    kiln_vf k[VF_TOGETHER];
    VF_EACH(n) {
        k[i] = vf_fma(x[i], vf_set1(VF_LOG2E), magic);
        bits[i] = vf_bits(k[i]);
        k[i] = vf_sub(k[i], magic);
    }
    VF_EACH(n) {
        x[i] = vf_fnma(k[i], vf_set1(VF_LN2_HI), x[i]);
    }
    VF_EACH(n) {
        x[i] = vf_fnma(k[i], vf_set1(VF_LN2_LO), x[i]);
    }
}

/* 2^(k + shift), from bits as vf_exp_reduce_n leaves them; -126 <= k + shift <= 127. */
KILN_INLINE kiln_vf vf_power2(kiln_vi bits, int32_t shift) {
    return vi_as_vf(vi_add(vi_shl(bits, 23), vi_set1((127 + shift) * (1 << 23))));
}

/* The number k in those bits. */
KILN_INLINE kiln_vi vf_exponent(kiln_vi bits) {
    return vi_sub(bits, vf_bits(vf_set1(VF_ROUND_MAGIC)));
}

/* r becomes exp(r) - 1; |r| <= ln2 / 2. */
KILN_INLINE void vf_expm1_core_n(kiln_vf *r, int n) {
    kiln_vf p[VF_TOGETHER];
    VF_POLY_N(p, r, n, 5.000000095e-01f, 1.666651884e-01f, 4.166620583e-02f, 8.368889558e-03f,
              1.395048916e-03f);
    VF_EACH(n) {
        r[i] = vf_fma(vf_mul(r[i], r[i]), p[i], r[i]);
    }
}

KILN_INLINE void vf_exp_n(kiln_vf *x, int n) {
    kiln_vi bits[VF_TOGETHER];
    VF_EACH(n) {
        x[i] = vf_clamp(x[i], vf_set1(-104.0f), vf_set1(88.75f));
    }
    vf_exp_reduce_n(x, bits, n);
    vf_expm1_core_n(x, n);
    VF_EACH(n) {
        x[i] = vf_scale2(vf_add(x[i], vf_set1(1.0f)), vf_exponent(bits[i]));
    }
}

/* One vector by a form for several. */
#define VF_SINGLE(name)                   \
    KILN_INLINE kiln_vf name(kiln_vf x) { \
        name##_n(&x, 1);                  \
        return x;                         \
    }
VF_SINGLE(vf_exp)

/* 2^n (e + 1) - 1 = 2 (2^(n-1) e + (2^(n-1) - 1/2)), which reaches n = 128 and is exact at n =
 * 0. */
KILN_INLINE kiln_vf vf_expm1(kiln_vf x) {
    kiln_vi bits;
    kiln_vf r = vf_clamp(x, vf_set1(-40.0f), vf_set1(89.0f));
    vf_exp_reduce_n(&r, &bits, 1);
    vf_expm1_core_n(&r, 1);
    kiln_vf s = vf_power2(bits, -1);
    kiln_vf half = vf_fma(s, r, vf_sub(s, vf_set1(0.5f)));
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

/* x becomes 1 + exp(-x), reached as 2 (2^(k-1) e) + 1 so that k may be 128: up to infinity. */
KILN_INLINE void vf_logistic_n(kiln_vf *x, int n) {
    const kiln_vf one = vf_set1(1.0f);
    kiln_vi bits[VF_TOGETHER];
    VF_EACH(n) {
        x[i] = vf_clamp(vf_neg(x[i]), vf_set1(-80.0f), vf_set1(88.75f));
    }
    vf_exp_reduce_n(x, bits, n);
    vf_expm1_core_n(x, n);
    VF_EACH(n) {
        const kiln_vf half = vf_mul(vf_add(x[i], one), vf_power2(bits[i], -1));
        x[i] = vf_fma(half, vf_set1(2.0f), one);
    }
}

KILN_INLINE void vf_sigmoid_n(kiln_vf *x, int n) {
    vf_logistic_n(x, n);
    VF_EACH(n) {
        x[i] = vf_div(vf_set1(1.0f), x[i]);
    }
}
VF_SINGLE(vf_sigmoid)

/* tanh |x| = t / (t + 2) with t = expm1(2 |x|); 1 from |x| = 10 on. */
KILN_INLINE void vf_tanh_n(kiln_vf *x, int n) {
    kiln_vf t[VF_TOGETHER];
    kiln_vi bits[VF_TOGETHER];
    VF_EACH(n) {
        t[i] = vf_min(vf_set1(10.0f), vf_abs(x[i]));
        t[i] = vf_add(t[i], t[i]);
    }
    vf_exp_reduce_n(t, bits, n);
    vf_expm1_core_n(t, n);
    VF_EACH(n) {
        const kiln_vf s = vf_power2(bits[i], 0);
        t[i] = vf_fma(s, t[i], vf_sub(s, vf_set1(1.0f)));
    }
    VF_EACH(n) {
        x[i] = vf_copysign(vf_div(t[i], vf_add(t[i], vf_set1(2.0f))), x[i]);
    }
}
VF_SINGLE(vf_tanh)

/* Below 1: x P(x^2). From 1 on: 1 - exp(-Q(|x|)), Q = -log erfc; erf rounds to 1 before 4. */
KILN_INLINE void vf_erf_n(kiln_vf *x, int n) {
    kiln_vf a[VF_TOGETHER], square[VF_TOGETHER], small[VF_TOGETHER], large[VF_TOGETHER];
    kiln_vi bits[VF_TOGETHER];
    VF_EACH(n) {
        a[i] = vf_min(vf_set1(4.0f), vf_abs(x[i]));
    }
    VF_POLY_N(large, a, n, -1.880402334e-04f, 1.129578424e+00f, 6.332198931e-01f, 1.084185774e-01f,
              -2.520825675e-02f, 4.204561877e-03f, -4.413363776e-04f, 2.168684998e-05f);
    VF_EACH(n) {
        large[i] = vf_neg(large[i]);
    }
    vf_exp_reduce_n(large, bits, n);
    vf_expm1_core_n(large, n);
    VF_EACH(n) {
        const kiln_vf s = vf_power2(bits[i], 0);
        large[i] = vf_sub(vf_set1(1.0f), vf_fma(s, large[i], s));
        square[i] = vf_mul(a[i], a[i]);
    }
    VF_POLY_N(small, square, n, 1.128379166e+00f, -3.761262714e-01f, 1.128360018e-01f,
              -2.685444459e-02f, 5.189535340e-03f, -8.020841281e-04f, 7.889119535e-05f);
    VF_EACH(n) {
        const kiln_vm below = vf_lt(a[i], vf_set1(1.0f));
        x[i] = vf_copysign(vf_select(below, vf_mul(a[i], small[i]), large[i]), x[i]);
    }
}
VF_SINGLE(vf_erf)

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

/* x Phi(x), Phi the normal distribution function: max(x, 0) - |x|/2 erfc(|x| / sqrt 2), erfc as
 * exp(-a P(a)). P is fitted up to 5.8, where the difference falls below an ulp of its largest;
 * beyond that a P(a) grows on. */
KILN_INLINE void vf_gelu_n(kiln_vf *x, int n) {
    kiln_vf a[VF_TOGETHER], q[VF_TOGETHER];
    kiln_vi bits[VF_TOGETHER];
    VF_EACH(n) {
        a[i] = vf_min(vf_set1(30.0f), vf_abs(x[i]));
    }
    VF_POLY_N(q, a, n, 7.978873298e-01f, 3.182832317e-01f, 3.642348583e-02f, -4.922333244e-03f,
              8.541720871e-05f, 1.537377143e-04f, -4.164723450e-05f, 5.703332482e-06f,
              -4.225557288e-07f, 1.340479435e-08f);
    VF_EACH(n) {
        q[i] = vf_max(vf_set1(-86.0f), vf_neg(vf_mul(q[i], a[i])));
    }
    vf_exp_reduce_n(q, bits, n);
    vf_expm1_core_n(q, n);
    VF_EACH(n) {
        const kiln_vf s = vf_mul(vf_power2(bits[i], -1), a[i]);
        x[i] = vf_sub(vf_max(vf_zero(), x[i]), vf_fma(s, q[i], s));
    }
}
VF_SINGLE(vf_gelu)

/* 0.5 x (1 + tanh(z)) = x sigmoid(2 z), z = sqrt(2/pi) (x + 0.044715 x^3). */
KILN_INLINE void vf_gelu_tanh_n(kiln_vf *x, int n) {
    kiln_vf d[VF_TOGETHER];
    VF_EACH(n) {
        d[i] = vf_fma(vf_mul(x[i], x[i]), vf_set1(0.0713548163f), vf_set1(1.59576912f));
        d[i] = vf_mul(x[i], d[i]);
    }
    vf_logistic_n(d, n);
    VF_EACH(n) {
        x[i] = vf_div(vf_max(vf_set1(-1e4f), x[i]), d[i]);
    }
}
VF_SINGLE(vf_gelu_tanh)

/* x max(0, min(1, x / 6 + 1/2)). */
KILN_INLINE kiln_vf vf_hard_swish(kiln_vf x) {
    const kiln_vf gate = vf_fma(x, vf_set1(1.0f / 6.0f), vf_set1(0.5f));
    return vf_mul(x, vf_clamp(gate, vf_zero(), vf_set1(1.0f)));
}

/* x sigmoid(alpha x). */
KILN_INLINE void vf_silu_n(kiln_vf *x, int n, kiln_vf alpha) {
    kiln_vf d[VF_TOGETHER];
    VF_EACH(n) {
        d[i] = vf_mul(alpha, x[i]);
    }
    vf_logistic_n(d, n);
    VF_EACH(n) {
        x[i] = vf_div(x[i], d[i]);
        x[i] = vf_select(vf_eq(d[i], vf_set1(INFINITY)), vf_zero(), x[i]);
    }
}

/* max / min that return NaN when either operand is NaN. */
KILN_INLINE kiln_vf vf_max_nan(kiln_vf a, kiln_vf b) {
    return vf_select(vf_isnan(a), a, vf_max(a, b));
}
KILN_INLINE kiln_vf vf_min_nan(kiln_vf a, kiln_vf b) {
    return vf_select(vf_isnan(a), a, vf_min(a, b));
}

#endif
