/* simd.h - one small vector vocabulary for the kernel files of every instruction set.
 *
 * A kernel file `foo_simd.c` is compiled once per instruction set with -DKILN_ISA=<isa> and
 * -DKILN_ISA_<isa>=1, <isa> being portable, avx2 or avx512, and exports one const struct of
 * function pointers named by KILN_ISA_SYMBOL. It is written once, in terms of
 *
 *     kiln_vf    KILN_VLEN float lanes        (4 portable, 8 AVX2, 16 AVX-512)
 *     kiln_vi    KILN_VLEN int32 lanes
 *     kiln_vm    a mask of KILN_VLEN lanes    (its representation differs: use vm_* only)
 *
 *     void scale(float *y, const float *x, float s, int64_t n) {
 *         kiln_vf k = vf_set1(s);
 *         int64_t i = 0;
 *         for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
 *             vf_store(y + i, vf_mul(vf_load(x + i), k));
 *         }
 *         if (i < n) {
 *             vf_store_tail(y + i, n - i, vf_mul(vf_load_tail(x + i, n - i), k));
 *         }
 *     }
 *
 * Conventions
 *  - Loads and stores take any address. Tail forms touch exactly the first n lanes' memory
 *    (0 <= n <= KILN_VLEN); lanes beyond n load as zero.
 *  - vf_min(a, b) and vf_max(a, b) return b when either operand is NaN, so vf_max(lo, x) lets a NaN
 *    in x through.
 *  - vf_fma(a, b, c) = a*b + c, one rounding where the instruction set has it, two in the portable
 *    rung. Nothing else contracts: kernel files are compiled with -ffp-contract=off.
 *  - Horizontal reductions halve the vector repeatedly (lane i with lane i + w/2): a fixed tree.
 *  - With KILN_ISA_portable, KILN_VEC_BITS (128, 256, 512) and KILN_VREGS (16, 32) may be set,
 *    to run the tiles of a wider rung on a machine without it; tests use that.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_SIMD_H
#define KILN_BACKEND_CPU_PRIMS_SIMD_H

#include "base/compiler.h"

#include <string.h>

#if defined(KILN_ISA_avx2) || defined(KILN_ISA_avx512)
#include <immintrin.h>
#endif

#ifndef KILN_ISA
#define KILN_ISA portable
#endif
#define KILN_ISA_PASTE2(name, isa) name##_##isa
#define KILN_ISA_PASTE(name, isa) KILN_ISA_PASTE2(name, isa)
#define KILN_ISA_SYMBOL(name) KILN_ISA_PASTE(name, KILN_ISA)
#define KILN_ISA_STRING2(isa) #isa
#define KILN_ISA_STRING1(isa) KILN_ISA_STRING2(isa)
#define KILN_ISA_NAME KILN_ISA_STRING1(KILN_ISA)

#if defined(KILN_ISA_avx512)
#define KILN_VEC_BITS 512
#define KILN_VREGS 32
#elif defined(KILN_ISA_avx2)
#define KILN_VEC_BITS 256
#define KILN_VREGS 16
#else
#ifndef KILN_VEC_BITS
#define KILN_VEC_BITS 128
#endif
#ifndef KILN_VREGS
#define KILN_VREGS 16
#endif
#endif

#define KILN_VLEN (KILN_VEC_BITS / 32)
#define KILN_INLINE static inline __attribute__((always_inline, unused))

/* Before a loop whose count, at most n, is a constant once all is inlined: unrolls it whole, so
 * that its counter indexes registers. clang does that only when no number is named. */
#define KILN_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define KILN_UNROLL(n) KILN_PRAGMA(unroll)
#else
#define KILN_UNROLL(n) KILN_PRAGMA(GCC unroll n)
#endif

typedef float kiln_vf __attribute__((vector_size(KILN_VEC_BITS / 8)));
typedef int32_t kiln_vi __attribute__((vector_size(KILN_VEC_BITS / 8)));
typedef uint32_t kiln_vu __attribute__((vector_size(KILN_VEC_BITS / 8)));

/* Integers for cutting work: i64_part is the start of part i when m things are cut into n parts
 * whose sizes differ by at most one, the larger ones first. */
KILN_INLINE int64_t i64_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
KILN_INLINE int64_t i64_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}
KILN_INLINE int64_t i64_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
KILN_INLINE int64_t i64_part(int64_t m, int64_t n, int64_t i) {
    return m / n * i + i64_min(i, m % n);
}

/* One-expression functions, one line each. */
#define KILN_VFN(type, name, params, expr) \
    KILN_INLINE type name params {         \
        return expr;                       \
    }

/* Arithmetic that vector operators express on every instruction set. Integer add, sub and mul wrap.
 * Shift counts are 0..31; vi_shr is arithmetic, vi_shr_logical shifts zeros in. */
KILN_VFN(kiln_vf, vf_set1, (float x), x - (kiln_vf){0})
KILN_VFN(kiln_vf, vf_zero, (void), (kiln_vf){0})
KILN_VFN(kiln_vi, vi_set1, (int32_t x), x - (kiln_vi){0})
KILN_VFN(kiln_vf, vf_add, (kiln_vf a, kiln_vf b), a + b)
KILN_VFN(kiln_vf, vf_sub, (kiln_vf a, kiln_vf b), a - b)
KILN_VFN(kiln_vf, vf_mul, (kiln_vf a, kiln_vf b), a *b)
KILN_VFN(kiln_vf, vf_div, (kiln_vf a, kiln_vf b), a / b)
KILN_VFN(kiln_vi, vi_add, (kiln_vi a, kiln_vi b), (kiln_vi)((kiln_vu)a + (kiln_vu)b))
KILN_VFN(kiln_vi, vi_sub, (kiln_vi a, kiln_vi b), (kiln_vi)((kiln_vu)a - (kiln_vu)b))
KILN_VFN(kiln_vi, vi_mul, (kiln_vi a, kiln_vi b), (kiln_vi)((kiln_vu)a *(kiln_vu)b))
KILN_VFN(kiln_vi, vi_and, (kiln_vi a, kiln_vi b), a &b)
KILN_VFN(kiln_vi, vi_or, (kiln_vi a, kiln_vi b), a | b)
KILN_VFN(kiln_vi, vi_xor, (kiln_vi a, kiln_vi b), a ^ b)
KILN_VFN(kiln_vi, vi_not, (kiln_vi a), ~a)
KILN_VFN(kiln_vi, vi_shl, (kiln_vi a, int n), (kiln_vi)((kiln_vu)a << n))
KILN_VFN(kiln_vi, vi_shr, (kiln_vi a, int n), a >> n)
KILN_VFN(kiln_vi, vi_shr_logical, (kiln_vi a, int n), (kiln_vi)((kiln_vu)a >> n))
/* The bits of a float vector as integers and back. */
KILN_VFN(kiln_vi, vf_bits, (kiln_vf a), (kiln_vi)a)
KILN_VFN(kiln_vf, vi_as_vf, (kiln_vi a), (kiln_vf)a)
KILN_VFN(kiln_vf, vf_abs, (kiln_vf a), (kiln_vf)((kiln_vi)a &vi_set1(0x7fffffff)))
KILN_VFN(kiln_vf, vf_neg, (kiln_vf a), (kiln_vf)((kiln_vi)a ^ vi_set1(INT32_MIN)))
KILN_VFN(kiln_vf, vf_and, (kiln_vf a, kiln_vf b), (kiln_vf)((kiln_vi)a &(kiln_vi)b))
KILN_VFN(kiln_vf, vf_or, (kiln_vf a, kiln_vf b), (kiln_vf)((kiln_vi)a | (kiln_vi)b))
KILN_VFN(kiln_vf, vf_xor, (kiln_vf a, kiln_vf b), (kiln_vf)((kiln_vi)a ^ (kiln_vi)b))
/* |magnitude| with the sign of `sign`. */
KILN_VFN(kiln_vf, vf_copysign, (kiln_vf magnitude, kiln_vf sign),
         (kiln_vf)(((kiln_vi)magnitude & vi_set1(0x7fffffff)) |
                   ((kiln_vi)sign & vi_set1(INT32_MIN))))

/* Whole-vector loads and stores, any alignment. */
KILN_INLINE kiln_vf vf_load(const float *p) {
    kiln_vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
KILN_INLINE void vf_store(float *p, kiln_vf v) {
    memcpy(p, &v, sizeof v);
}
KILN_INLINE kiln_vi vi_load(const int32_t *p) {
    kiln_vi v;
    memcpy(&v, p, sizeof v);
    return v;
}
KILN_INLINE void vi_store(int32_t *p, kiln_vi v) {
    memcpy(p, &v, sizeof v);
}
/* Ask for the cache line at p, which need not be readable, into the first or second level. */
KILN_INLINE void v_prefetch(const void *p) {
    __builtin_prefetch(p, 0, 3);
}

KILN_INLINE void v_prefetch_l2(const void *p) {
    __builtin_prefetch(p, 0, 2);
}

/* Masks, comparisons (ordered: false on NaN, except vf_ne), selection, tails. */
#if defined(KILN_ISA_avx512)

typedef __mmask16 kiln_vm;
#define KILN_VCMP_F(a, b, op) _mm512_cmp_ps_mask((__m512)(a), (__m512)(b), op)
#define KILN_VCMP_I(a, b, op) _mm512_cmp_epi32_mask((__m512i)(a), (__m512i)(b), op)
KILN_VFN(kiln_vm, vf_lt, (kiln_vf a, kiln_vf b), KILN_VCMP_F(a, b, _CMP_LT_OQ))
KILN_VFN(kiln_vm, vf_le, (kiln_vf a, kiln_vf b), KILN_VCMP_F(a, b, _CMP_LE_OQ))
KILN_VFN(kiln_vm, vf_eq, (kiln_vf a, kiln_vf b), KILN_VCMP_F(a, b, _CMP_EQ_OQ))
KILN_VFN(kiln_vm, vf_ne, (kiln_vf a, kiln_vf b), KILN_VCMP_F(a, b, _CMP_NEQ_UQ))
KILN_VFN(kiln_vm, vi_lt, (kiln_vi a, kiln_vi b), KILN_VCMP_I(a, b, _MM_CMPINT_LT))
KILN_VFN(kiln_vm, vi_eq, (kiln_vi a, kiln_vi b), KILN_VCMP_I(a, b, _MM_CMPINT_EQ))
KILN_VFN(kiln_vm, vm_and, (kiln_vm a, kiln_vm b), (kiln_vm)(a &b))
KILN_VFN(kiln_vm, vm_or, (kiln_vm a, kiln_vm b), (kiln_vm)(a | b))
KILN_VFN(kiln_vm, vm_not, (kiln_vm a), (kiln_vm)~a)
KILN_VFN(bool, vm_any, (kiln_vm a), a != 0)
KILN_VFN(kiln_vm, vm_tail, (int64_t n), (kiln_vm)((1u << n) - 1u))
KILN_VFN(kiln_vf, vf_select, (kiln_vm m, kiln_vf yes, kiln_vf no),
         (kiln_vf)_mm512_mask_blend_ps(m, (__m512)no, (__m512)yes))
KILN_VFN(kiln_vi, vi_select, (kiln_vm m, kiln_vi yes, kiln_vi no),
         (kiln_vi)_mm512_mask_blend_epi32(m, (__m512i)no, (__m512i)yes))
KILN_VFN(kiln_vf, vf_load_mask, (const float *p, kiln_vm m), (kiln_vf)_mm512_maskz_loadu_ps(m, p))
KILN_INLINE void vf_store_mask(float *p, kiln_vm m, kiln_vf v) {
    _mm512_mask_storeu_ps(p, m, (__m512)v);
}

#else

typedef kiln_vi kiln_vm;
KILN_VFN(kiln_vm, vf_lt, (kiln_vf a, kiln_vf b), (kiln_vm)(a < b))
KILN_VFN(kiln_vm, vf_le, (kiln_vf a, kiln_vf b), (kiln_vm)(a <= b))
KILN_VFN(kiln_vm, vf_eq, (kiln_vf a, kiln_vf b), (kiln_vm)(a == b))
KILN_VFN(kiln_vm, vf_ne, (kiln_vf a, kiln_vf b), (kiln_vm)(a != b))
KILN_VFN(kiln_vm, vi_lt, (kiln_vi a, kiln_vi b), (kiln_vm)(a < b))
KILN_VFN(kiln_vm, vi_eq, (kiln_vi a, kiln_vi b), (kiln_vm)(a == b))
KILN_VFN(kiln_vm, vm_and, (kiln_vm a, kiln_vm b), a &b)
KILN_VFN(kiln_vm, vm_or, (kiln_vm a, kiln_vm b), a | b)
KILN_VFN(kiln_vm, vm_not, (kiln_vm a), ~a)

/* Lane i of the result is on when i < n. */
KILN_INLINE kiln_vm vm_tail(int64_t n) {
    static const int32_t window[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                       -1, -1, -1, -1, -1, 0,  0,  0,  0,  0,  0,
                                       0,  0,  0,  0,  0,  0,  0,  0,  0,  0};
    return vi_load(window + 16 - n);
}

#if defined(KILN_ISA_avx2)
KILN_VFN(bool, vm_any, (kiln_vm a), _mm256_movemask_ps((__m256)a) != 0)
KILN_VFN(kiln_vf, vf_select, (kiln_vm m, kiln_vf yes, kiln_vf no),
         (kiln_vf)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)m))
KILN_VFN(kiln_vi, vi_select, (kiln_vm m, kiln_vi yes, kiln_vi no),
         (kiln_vi)_mm256_blendv_epi8((__m256i)no, (__m256i)yes, (__m256i)m))
KILN_VFN(kiln_vf, vf_load_mask, (const float *p, kiln_vm m),
         (kiln_vf)_mm256_maskload_ps(p, (__m256i)m))
KILN_INLINE void vf_store_mask(float *p, kiln_vm m, kiln_vf v) {
    _mm256_maskstore_ps(p, (__m256i)m, (__m256)v);
}
#else
KILN_VFN(kiln_vf, vf_select, (kiln_vm m, kiln_vf yes, kiln_vf no),
         (kiln_vf)((m & (kiln_vi)yes) | (~m & (kiln_vi)no)))
KILN_VFN(kiln_vi, vi_select, (kiln_vm m, kiln_vi yes, kiln_vi no), (m & yes) | (~m & no))
KILN_INLINE bool vm_any(kiln_vm m) {
    int32_t any = 0;
    for (int i = 0; i < KILN_VLEN; i++) {
        any |= m[i];
    }
    return any != 0;
}
KILN_INLINE kiln_vf vf_load_mask(const float *p, kiln_vm m) {
    kiln_vf v = {0};
    for (int i = 0; i < KILN_VLEN; i++) {
        if (m[i]) {
            v[i] = p[i];
        }
    }
    return v;
}
KILN_INLINE void vf_store_mask(float *p, kiln_vm m, kiln_vf v) {
    for (int i = 0; i < KILN_VLEN; i++) {
        if (m[i]) {
            p[i] = v[i];
        }
    }
}
#endif
#endif

KILN_VFN(kiln_vf, vf_load_tail, (const float *p, int64_t n), vf_load_mask(p, vm_tail(n)))
KILN_INLINE void vf_store_tail(float *p, int64_t n, kiln_vf v) {
    vf_store_mask(p, vm_tail(n), v);
}
KILN_INLINE kiln_vi vi_load_tail(const int32_t *p, int64_t n) {
    kiln_vi v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}
KILN_INLINE void vi_store_tail(int32_t *p, int64_t n, kiln_vi v) {
    memcpy(p, &v, (size_t)n * sizeof *p);
}
KILN_VFN(kiln_vm, vf_gt, (kiln_vf a, kiln_vf b), vf_lt(b, a))
KILN_VFN(kiln_vm, vf_ge, (kiln_vf a, kiln_vf b), vf_le(b, a))
KILN_VFN(kiln_vm, vf_isnan, (kiln_vf a), vf_ne(a, a))
KILN_VFN(bool, vm_all, (kiln_vm a), !vm_any(vm_not(a)))

/* What needs an instruction of its own: fma, min, max, sqrt, rounding, conversion.
 *  vf_round        to the nearest integer, ties to even;   vf_floor: towards -inf
 *  vi_from_vf      rounds to nearest even;  vi_trunc: towards zero (both for |x| < 2^31)
 *  vf_scale2(x, n) x * 2^n for x around 1 and -250 <= n <= 250, denormal or infinite as it falls
 *  vf_fnma         c - a*b */
#if defined(KILN_ISA_avx512)

#define KILN_VROUND(a, mode) (kiln_vf) _mm512_roundscale_ps((__m512)(a), (mode) | _MM_FROUND_NO_EXC)
KILN_VFN(kiln_vf, vf_fma, (kiln_vf a, kiln_vf b, kiln_vf c),
         (kiln_vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c))
KILN_VFN(kiln_vf, vf_fnma, (kiln_vf a, kiln_vf b, kiln_vf c),
         (kiln_vf)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c))
KILN_VFN(kiln_vf, vf_min, (kiln_vf a, kiln_vf b), (kiln_vf)_mm512_min_ps((__m512)a, (__m512)b))
KILN_VFN(kiln_vf, vf_max, (kiln_vf a, kiln_vf b), (kiln_vf)_mm512_max_ps((__m512)a, (__m512)b))
KILN_VFN(kiln_vf, vf_sqrt, (kiln_vf a), (kiln_vf)_mm512_sqrt_ps((__m512)a))
KILN_VFN(kiln_vi, vi_min, (kiln_vi a, kiln_vi b), (kiln_vi)_mm512_min_epi32((__m512i)a, (__m512i)b))
KILN_VFN(kiln_vi, vi_max, (kiln_vi a, kiln_vi b), (kiln_vi)_mm512_max_epi32((__m512i)a, (__m512i)b))
KILN_VFN(kiln_vf, vf_round, (kiln_vf a), KILN_VROUND(a, _MM_FROUND_TO_NEAREST_INT))
KILN_VFN(kiln_vf, vf_floor, (kiln_vf a), KILN_VROUND(a, _MM_FROUND_TO_NEG_INF))
KILN_VFN(kiln_vi, vi_from_vf, (kiln_vf a), (kiln_vi)_mm512_cvtps_epi32((__m512)a))
KILN_VFN(kiln_vi, vi_trunc, (kiln_vf a), (kiln_vi)_mm512_cvttps_epi32((__m512)a))
KILN_VFN(kiln_vf, vf_from_vi, (kiln_vi a), (kiln_vf)_mm512_cvtepi32_ps((__m512i)a))
KILN_VFN(kiln_vf, vf_scale2, (kiln_vf x, kiln_vi n),
         (kiln_vf)_mm512_scalef_ps((__m512)x, _mm512_cvtepi32_ps((__m512i)n)))

#elif defined(KILN_ISA_avx2)

#define KILN_VROUND(a, mode) (kiln_vf) _mm256_round_ps((__m256)(a), (mode) | _MM_FROUND_NO_EXC)
KILN_VFN(kiln_vf, vf_fma, (kiln_vf a, kiln_vf b, kiln_vf c),
         (kiln_vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c))
KILN_VFN(kiln_vf, vf_fnma, (kiln_vf a, kiln_vf b, kiln_vf c),
         (kiln_vf)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c))
KILN_VFN(kiln_vf, vf_min, (kiln_vf a, kiln_vf b), (kiln_vf)_mm256_min_ps((__m256)a, (__m256)b))
KILN_VFN(kiln_vf, vf_max, (kiln_vf a, kiln_vf b), (kiln_vf)_mm256_max_ps((__m256)a, (__m256)b))
KILN_VFN(kiln_vf, vf_sqrt, (kiln_vf a), (kiln_vf)_mm256_sqrt_ps((__m256)a))
KILN_VFN(kiln_vi, vi_min, (kiln_vi a, kiln_vi b), (kiln_vi)_mm256_min_epi32((__m256i)a, (__m256i)b))
KILN_VFN(kiln_vi, vi_max, (kiln_vi a, kiln_vi b), (kiln_vi)_mm256_max_epi32((__m256i)a, (__m256i)b))
KILN_VFN(kiln_vf, vf_round, (kiln_vf a), KILN_VROUND(a, _MM_FROUND_TO_NEAREST_INT))
KILN_VFN(kiln_vf, vf_floor, (kiln_vf a), KILN_VROUND(a, _MM_FROUND_TO_NEG_INF))
KILN_VFN(kiln_vi, vi_from_vf, (kiln_vf a), (kiln_vi)_mm256_cvtps_epi32((__m256)a))
KILN_VFN(kiln_vi, vi_trunc, (kiln_vf a), (kiln_vi)_mm256_cvttps_epi32((__m256)a))
KILN_VFN(kiln_vf, vf_from_vi, (kiln_vi a), (kiln_vf)_mm256_cvtepi32_ps((__m256i)a))

#else

KILN_VFN(kiln_vf, vf_fma, (kiln_vf a, kiln_vf b, kiln_vf c), a *b + c)
KILN_VFN(kiln_vf, vf_fnma, (kiln_vf a, kiln_vf b, kiln_vf c), c - a * b)
KILN_VFN(kiln_vf, vf_min, (kiln_vf a, kiln_vf b), vf_select(vf_lt(a, b), a, b))
KILN_VFN(kiln_vf, vf_max, (kiln_vf a, kiln_vf b), vf_select(vf_lt(b, a), a, b))
KILN_VFN(kiln_vi, vi_min, (kiln_vi a, kiln_vi b), vi_select(vi_lt(a, b), a, b))
KILN_VFN(kiln_vi, vi_max, (kiln_vi a, kiln_vi b), vi_select(vi_lt(b, a), a, b))
KILN_VFN(kiln_vf, vf_from_vi, (kiln_vi a), __builtin_convertvector(a, kiln_vf))
KILN_VFN(kiln_vi, vi_trunc, (kiln_vf a), __builtin_convertvector(a, kiln_vi))
KILN_INLINE kiln_vf vf_sqrt(kiln_vf a) {
    for (int i = 0; i < KILN_VLEN; i++) {
        a[i] = __builtin_sqrtf(a[i]);
    }
    return a;
}
/* Adding and taking away 2^23 leaves the integer part; larger magnitudes are integers already. */
KILN_INLINE kiln_vf vf_round(kiln_vf a) {
    kiln_vf magic = vf_copysign(vf_set1(8388608.0f), a);
    kiln_vf r = vf_copysign((a + magic) - magic, a);
    return vf_select(vf_lt(vf_abs(a), vf_set1(8388608.0f)), r, a);
}
KILN_INLINE kiln_vf vf_floor(kiln_vf a) {
    kiln_vf r = vf_round(a);
    return vf_select(vf_lt(a, r), r - vf_set1(1.0f), r);
}
KILN_VFN(kiln_vi, vi_from_vf, (kiln_vf a), vi_trunc(vf_round(a)))

#endif

KILN_VFN(kiln_vf, vf_ceil, (kiln_vf a), vf_neg(vf_floor(vf_neg(a))))
KILN_VFN(kiln_vf, vf_truncate, (kiln_vf a), vf_copysign(vf_floor(vf_abs(a)), a))
/* Clamps to [lo, hi]; NaN stays NaN. */
KILN_VFN(kiln_vf, vf_clamp, (kiln_vf x, kiln_vf lo, kiln_vf hi), vf_min(hi, vf_max(lo, x)))

#if !defined(KILN_ISA_avx512)
/* 2^n in two factors, so that neither leaves the exponent range. */
KILN_INLINE kiln_vf vf_scale2(kiln_vf x, kiln_vi n) {
    kiln_vi half = vi_shr(n, 1);
    kiln_vi rest = vi_sub(n, half);
    kiln_vf a = vi_as_vf(vi_shl(vi_add(half, vi_set1(127)), 23));
    kiln_vf b = vi_as_vf(vi_shl(vi_add(rest, vi_set1(127)), 23));
    return x * a * b;
}
#endif

/* Horizontal reductions. vf_hmax and vf_hmin ignore the sign of zero and are unspecified on NaN. */
#define KILN_HREDUCE(name, combine)                      \
    KILN_INLINE float name(kiln_vf v) {                  \
        float lane[KILN_VLEN];                           \
        vf_store(lane, v);                               \
        for (int w = KILN_VLEN / 2; w >= 1; w /= 2) {    \
            for (int i = 0; i < w; i++) {                \
                lane[i] = combine(lane[i], lane[i + w]); \
            }                                            \
        }                                                \
        return lane[0];                                  \
    }
#define KILN_SCALAR_ADD(a, b) ((a) + (b))
#define KILN_SCALAR_MAX(a, b) ((a) > (b) ? (a) : (b))
#define KILN_SCALAR_MIN(a, b) ((a) < (b) ? (a) : (b))
KILN_HREDUCE(vf_hsum, KILN_SCALAR_ADD)
KILN_HREDUCE(vf_hmax, KILN_SCALAR_MAX)
KILN_HREDUCE(vf_hmin, KILN_SCALAR_MIN)

/* Bytes and 16-bit words in memory, int32 in registers. Loads extend by the type's sign.
 * vi_store_u8 and _s8 saturate to the type's range; vi_store_u16 needs values in 0..65535. */
#if defined(KILN_ISA_avx512)
KILN_VFN(kiln_vi, vi_load_u16, (const uint16_t *p),
         (kiln_vi)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)))
KILN_VFN(kiln_vi, vi_load_u8, (const uint8_t *p),
         (kiln_vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)))
KILN_VFN(kiln_vi, vi_load_s8, (const int8_t *p),
         (kiln_vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)))
KILN_INLINE void vi_store_u16(uint16_t *p, kiln_vi v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16((__m512i)v));
}
KILN_INLINE void vi_store_u8(uint8_t *p, kiln_vi v) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8((__m512i)vi_max(v, vi_set1(0))));
}
KILN_INLINE void vi_store_s8(int8_t *p, kiln_vi v) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8((__m512i)v));
}
#elif defined(KILN_ISA_avx2)
KILN_VFN(kiln_vi, vi_load_u16, (const uint16_t *p),
         (kiln_vi)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)))
KILN_VFN(kiln_vi, vi_load_u8, (const uint8_t *p),
         (kiln_vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)))
KILN_VFN(kiln_vi, vi_load_s8, (const int8_t *p),
         (kiln_vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)))
KILN_INLINE void vi_store_u16(uint16_t *p, kiln_vi v) {
    __m128i hi = _mm256_extracti128_si256((__m256i)v, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), hi));
}
KILN_INLINE void vi_store_u8(uint8_t *p, kiln_vi v) {
    __m128i hi = _mm256_extracti128_si256((__m256i)v, 1);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), hi);
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
KILN_INLINE void vi_store_s8(int8_t *p, kiln_vi v) {
    __m128i hi = _mm256_extracti128_si256((__m256i)v, 1);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), hi);
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
}
#else
#define KILN_NARROW(type, load, store, lo, hi)           \
    KILN_INLINE kiln_vi load(const type *p) {            \
        kiln_vi v;                                       \
        for (int i = 0; i < KILN_VLEN; i++) {            \
            v[i] = p[i];                                 \
        }                                                \
        return v;                                        \
    }                                                    \
    KILN_INLINE void store(type *p, kiln_vi v) {         \
        v = vi_min(vi_max(v, vi_set1(lo)), vi_set1(hi)); \
        for (int i = 0; i < KILN_VLEN; i++) {            \
            p[i] = (type)v[i];                           \
        }                                                \
    }
KILN_NARROW(uint16_t, vi_load_u16, vi_store_u16, 0, 65535)
KILN_NARROW(uint8_t, vi_load_u8, vi_store_u8, 0, 255)
KILN_NARROW(int8_t, vi_load_s8, vi_store_s8, -128, 127)
#endif

/* Half precision in memory, float in registers. Stores round to nearest even and keep NaN a NaN. */
KILN_VFN(kiln_vf, vf_load_bf16, (const uint16_t *p), vi_as_vf(vi_shl(vi_load_u16(p), 16)))
KILN_INLINE void vf_store_bf16(uint16_t *p, kiln_vf v) {
    kiln_vi bits = vf_bits(v);
    kiln_vi odd = vi_and(vi_shr_logical(bits, 16), vi_set1(1));
    kiln_vi rounded = vi_shr_logical(vi_add(bits, vi_add(odd, vi_set1(0x7fff))), 16);
    kiln_vi quiet = vi_or(vi_shr_logical(bits, 16), vi_set1(0x40));
    vi_store_u16(p, vi_select(vf_isnan(v), quiet, rounded));
}
#if defined(KILN_ISA_avx512)
KILN_VFN(kiln_vf, vf_load_f16, (const uint16_t *p),
         (kiln_vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)))
KILN_INLINE void vf_store_f16(uint16_t *p, kiln_vf v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(KILN_ISA_avx2)
KILN_VFN(kiln_vf, vf_load_f16, (const uint16_t *p),
         (kiln_vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)))
KILN_INLINE void vf_store_f16(uint16_t *p, kiln_vf v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
#else
/* Widening: the 15 magnitude bits, moved to the float's place, lack 112 in the exponent. Denormals
 * go through an integer conversion, so that flush-to-zero modes do not touch them. */
KILN_INLINE kiln_vf vf_load_f16(const uint16_t *p) {
    kiln_vi h = vi_load_u16(p);
    kiln_vi magnitude = vi_and(h, vi_set1(0x7fff));
    kiln_vi moved = vi_shl(magnitude, 13);
    kiln_vf tiny = vf_from_vi(magnitude) * vf_set1(0x1p-24f);
    kiln_vi value = vi_add(moved, vi_set1(112 << 23));
    value = vi_select(vi_lt(magnitude, vi_set1(0x400)), vf_bits(tiny), value);
    value = vi_select(vi_lt(magnitude, vi_set1(0x7c00)), value, vi_or(moved, vi_set1(0x7f800000)));
    return vi_as_vf(vi_or(value, vi_shl(vi_and(h, vi_set1(0x8000)), 16)));
}
/* Narrowing: normals round by integer addition; below 2^-14 adding 0.5 aligns the half denormal's
 * last bit with the float's, so the FPU rounds. */
KILN_INLINE void vf_store_f16(uint16_t *p, kiln_vf v) {
    kiln_vi bits = vf_bits(vf_abs(v));
    kiln_vi sign = vi_and(vi_shr_logical(vf_bits(v), 16), vi_set1(0x8000));
    kiln_vi odd = vi_and(vi_shr_logical(bits, 13), vi_set1(1));
    kiln_vi biased = vi_add(bits, vi_add(odd, vi_set1(0xfff - (112 << 23))));
    kiln_vi normal = vi_min(vi_shr_logical(biased, 13), vi_set1(0x7c00));
    kiln_vi tiny = vi_sub(vf_bits(vi_as_vf(bits) + vf_set1(0.5f)), vi_set1(0x3f000000));
    kiln_vi h = vi_select(vi_lt(bits, vi_set1(0x38800000)), tiny, normal);
    h = vi_select(vi_lt(bits, vi_set1(0x47800000)), h, vi_set1(0x7c00));
    h = vi_select(vf_isnan(v), vi_set1(0x7e00), h);
    vi_store_u16(p, vi_or(h, sign));
}
#endif

/* Tails of the narrow types, through a whole vector on the stack. */
#define KILN_NARROW_TAILS(value, type, load, store)              \
    KILN_INLINE value load##_tail(const type *p, int64_t n) {    \
        type lane[KILN_VLEN] = {0};                              \
        memcpy(lane, p, (size_t)n * sizeof *p);                  \
        return load(lane);                                       \
    }                                                            \
    KILN_INLINE void store##_tail(type *p, int64_t n, value v) { \
        type lane[KILN_VLEN];                                    \
        store(lane, v);                                          \
        memcpy(p, lane, (size_t)n * sizeof *p);                  \
    }
KILN_NARROW_TAILS(kiln_vf, uint16_t, vf_load_f16, vf_store_f16)
KILN_NARROW_TAILS(kiln_vf, uint16_t, vf_load_bf16, vf_store_bf16)
KILN_NARROW_TAILS(kiln_vi, uint8_t, vi_load_u8, vi_store_u8)
KILN_NARROW_TAILS(kiln_vi, int8_t, vi_load_s8, vi_store_s8)

#endif
