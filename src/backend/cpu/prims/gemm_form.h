/* gemm_form.h - in which form products hold their weights: what differs between them.
 *
 * A file that includes gemm_simd.c or conv_simd.c sets KILN_FORM first; as they stand they are the
 * float32 form.
 *
 *     FORM_F32    weights as they are
 *     FORM_BF16   weights in bfloat16, widened as they are loaded; A is rounded to bfloat16 and
 *                 stays float32 in memory, so that a product is exact and rounds once when added
 *     FORM_DOT    weights and A in bfloat16, two elements of K in each 32-bit word: the dot-product
 *                 instruction adds the product of the odd elements, then that of the even ones
 *     FORM_TILES  the same words, multiplied in tile registers (tiles.h)
 *     FORM_F16    weights in float16, widened as they are loaded; A is float32
 *
 * An item is what one column of a packed panel holds for a word of A. Results of FORM_BF16,
 * FORM_DOT and FORM_TILES differ by the order of additions, and by denormal numbers, which the
 * instructions take for zero. */
#ifndef KILN_BACKEND_CPU_PRIMS_GEMM_FORM_H
#define KILN_BACKEND_CPU_PRIMS_GEMM_FORM_H

#include "backend/cpu/prims/gemm.h"
#include "backend/cpu/prims/simd.h"
#include "backend/cpu/prims/vecmath.h"
#include "base/half.h"

#define FORM_F32 0
#define FORM_BF16 1
#define FORM_DOT 2
#define FORM_F16 3
#define FORM_TILES 4

#ifndef KILN_FORM
#define KILN_FORM FORM_F32
#endif

#define FORM_IS_F32 (KILN_FORM == FORM_F32)
#define FORM_IS_TILES (KILN_FORM == FORM_TILES)
#define FORM_IS_PAIRS (KILN_FORM == FORM_DOT || FORM_IS_TILES)
#define FORM_STEP (FORM_IS_PAIRS ? 2 : 1)
#if FORM_IS_TILES
#define FORM_GEMM_PRIMS kiln_gemm_tile_prims
#define FORM_CONV_PRIMS kiln_conv_tile_prims
#elif KILN_FORM == FORM_DOT
#define FORM_GEMM_PRIMS kiln_gemm_dot_prims
#define FORM_CONV_PRIMS kiln_conv_dot_prims
#elif KILN_FORM == FORM_BF16
#define FORM_GEMM_PRIMS kiln_gemm_bf16_prims
#define FORM_CONV_PRIMS kiln_conv_bf16_prims
#elif KILN_FORM == FORM_F16
#define FORM_GEMM_PRIMS kiln_gemm_f16_prims
#define FORM_CONV_PRIMS kiln_conv_f16_prims
#else
#define FORM_GEMM_PRIMS kiln_gemm_prims
#define FORM_CONV_PRIMS kiln_conv_prims
#endif

#if KILN_FORM == FORM_F32
typedef float form_item;
#elif FORM_IS_PAIRS
typedef uint32_t form_item;
#else
typedef uint16_t form_item;
#endif

/* Words of k elements. */
KILN_INLINE int64_t form_words(int64_t k) {
    return (k + FORM_STEP - 1) / FORM_STEP;
}

/* ---- Packing: word i of k elements `stride` apart ---- */

KILN_INLINE form_item form_pack(const float *src, int64_t stride, int64_t k, int64_t i) {
#if KILN_FORM == FORM_F32
    (void)k;
    return src[i * stride];
#elif KILN_FORM == FORM_BF16
    (void)k;
    return kiln_f32_to_bf16(src[i * stride]);
#elif KILN_FORM == FORM_F16
    (void)k;
    return kiln_f32_to_f16(src[i * stride]);
#else
    uint32_t even = kiln_f32_to_bf16(src[2 * i * stride]);
    uint32_t odd = 2 * i + 1 < k ? kiln_f32_to_bf16(src[(2 * i + 1) * stride]) : 0u;
    return even | odd << 16;
#endif
}

/* ---- Staging rows of A ---- */

#if KILN_FORM == FORM_BF16
/* Rounded to the upper half of the float; NaN stays NaN. */
KILN_INLINE kiln_vf form_round(kiln_vf v) {
    kiln_vi bits = vf_bits(v);
    kiln_vi odd = vi_and(vi_shr_logical(bits, 16), vi_set1(1));
    kiln_vi rounded = vi_add(bits, vi_add(odd, vi_set1(0x7fff)));
    kiln_vi quiet = vi_or(bits, vi_set1(0x400000));
    return vi_as_vf(vi_and(vi_select(vf_isnan(v), quiet, rounded), vi_set1(-0x10000)));
}

KILN_INLINE void form_stage(float *dst, const float *src, int64_t rows, int64_t n) {
    int64_t i = 0;
    for (; i + KILN_VLEN <= rows * n; i += KILN_VLEN) {
        vf_store(dst + i, form_round(vf_load(src + i)));
    }
    if (i < rows * n) {
        vf_store_tail(dst + i, rows * n - i, form_round(vf_load_tail(src + i, rows * n - i)));
    }
}
#define FORM_STAGE form_stage
#elif FORM_IS_PAIRS
/* A vector, rounded. */
KILN_INLINE void form_store_half(uint16_t *p, kiln_vf v) {
#if defined(KILN_ISA_avx512)
    __m256i words;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(words) : "v"(v));
    memcpy(p, &words, sizeof words);
#else
    vf_store_bf16(p, v);
#endif
}

KILN_INLINE void form_stage_row(float *dst, const float *src, int64_t n) {
    uint16_t *out = (uint16_t *)(void *)dst;
    int64_t i = 0;
    for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
        form_store_half(out + i, vf_load(src + i));
    }
    if (i < n) {
        vf_store_bf16_tail(out + i, n - i, vf_load_tail(src + i, n - i));
    }
    if (n % 2) {
        out[n] = 0;
    }
}

/* Rows of few elements, an odd number: several at once, each with a zero behind it. */
KILN_INLINE void form_stage_short(float *dst, const float *src, int64_t rows, int64_t n) {
    float padded[32 * KILN_VLEN] = {0};
    const int64_t wide = 2 * form_words(n), most = 32 * KILN_VLEN / wide;
    for (int64_t first = 0, count; first < rows; first += count) {
        count = rows - first < most ? rows - first : most;
        for (int64_t i = 0; i < count; i++) {
            for (int64_t j = 0; j < n; j++) {
                padded[i * wide + j] = *src++;
            }
        }
        form_stage_row(dst + first * form_words(n), padded, count * wide);
    }
}

KILN_INLINE void form_stage(float *dst, const float *src, int64_t rows, int64_t n) {
    if (n == 3) { /* colours */
        form_stage_short(dst, src, rows, 3);
    } else if (n % 2 == 1 && n < KILN_VLEN) {
        form_stage_short(dst, src, rows, n);
    } else {
        for (int64_t i = 0; i < rows; i++) {
            form_stage_row(dst + i * form_words(n), src + i * n, n);
        }
    }
}
#define FORM_STAGE form_stage
#else
#define FORM_STAGE NULL
#endif

/* ---- The inner step ---- */

#if FORM_IS_TILES
/* gemm_tile_simd.c */
#elif KILN_FORM == FORM_DOT

KILN_INLINE kiln_vf form_load_a(const float *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return vi_as_vf(vi_set1(word));
}

KILN_INLINE kiln_vf form_load_b(const form_item *p) {
    kiln_vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

#if defined(KILN_ISA_avx512)
/* As assembly: gcc 12 moves the accumulators of the intrinsic through memory. */
KILN_INLINE kiln_vf form_multiply(kiln_vf a, kiln_vf b, kiln_vf sum) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}
#else
KILN_VFN(kiln_vf, form_even, (kiln_vf v), vi_as_vf(vi_shl(vf_bits(v), 16)))
KILN_VFN(kiln_vf, form_odd, (kiln_vf v), vi_as_vf(vi_and(vf_bits(v), vi_set1(-0x10000))))
KILN_INLINE kiln_vf form_multiply(kiln_vf a, kiln_vf b, kiln_vf sum) {
    sum = vf_fma(form_odd(a), form_odd(b), sum);
    return vf_fma(form_even(a), form_even(b), sum);
}
#endif

#else

KILN_VFN(kiln_vf, form_load_a, (const float *p), vf_set1(*p))
KILN_VFN(kiln_vf, form_multiply, (kiln_vf a, kiln_vf b, kiln_vf sum), vf_fma(a, b, sum))
#if KILN_FORM == FORM_BF16
KILN_VFN(kiln_vf, form_load_b, (const form_item *p), vf_load_bf16(p))
#elif KILN_FORM == FORM_F16
KILN_VFN(kiln_vf, form_load_b, (const form_item *p), vf_load_f16(p))
#else
KILN_VFN(kiln_vf, form_load_b, (const form_item *p), vf_load(p))
#endif

#endif

#endif
