/* q8_dot.h - the inner products of the 8-bit kernels: int32 lanes plus two or four products each.
 *
 * A lane of `a` holds `form` elements of the uint8 side: PAIRS two 16-bit numbers, QUADS four
 * bytes. A lane of `b` holds as many of the int8 side, PAIRS widened to 16 bits. Both are exact:
 * the multiply-add of words never saturates with these ranges, and neither does the dot product
 * of bytes, which adds to 32 bits at once.
 *
 * The dot product stands in inline assembly: as an intrinsic, gcc copies and spills the sums of a
 * register tile. */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_DOT_H
#define KILN_BACKEND_CPU_PRIMS_Q8_DOT_H

#include "backend/cpu/prims/simd.h"

enum { PAIRS = 2, QUADS = 4 };

/* Intrinsics of the width at hand, and their type. */
#if defined(KILN_ISA_avx512)
#define Q8_BITS(name) _mm512_##name
typedef __m512i q8_bits;
#elif defined(KILN_ISA_avx2)
#define Q8_BITS(name) _mm256_##name
typedef __m256i q8_bits;
#endif

#ifdef Q8_BITS
KILN_INLINE kiln_vi dot_pairs(kiln_vi sum, kiln_vi a, kiln_vi b) {
    return vi_add(sum, (kiln_vi)Q8_BITS(madd_epi16)((q8_bits)a, (q8_bits)b));
}
KILN_INLINE kiln_vi load_b_pairs(const int8_t *p) {
#if defined(KILN_ISA_avx512)
    return (kiln_vi)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
#else
    return (kiln_vi)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
#endif
}
KILN_INLINE kiln_vi dot_quads(kiln_vi sum, kiln_vi a, kiln_vi b) {
#if defined(KILN_ISA_avx512)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
#endif
    return sum;
}
#else
KILN_INLINE kiln_vi dot_pairs(kiln_vi sum, kiln_vi a, kiln_vi b) {
    kiln_vi low = vi_mul(vi_shr(vi_shl(a, 16), 16), vi_shr(vi_shl(b, 16), 16));
    return vi_add(sum, vi_add(low, vi_mul(vi_shr(a, 16), vi_shr(b, 16))));
}
KILN_INLINE kiln_vi load_b_pairs(const int8_t *p) {
    kiln_vi v;
    for (int i = 0; i < KILN_VLEN; i++) {
        v[i] = (int32_t)((uint32_t)(uint16_t)p[2 * i] | (uint32_t)(uint16_t)p[2 * i + 1] << 16);
    }
    return v;
}
KILN_INLINE kiln_vi dot_quads(kiln_vi sum, kiln_vi a, kiln_vi b) {
    for (int i = 0; i < 32; i += 8) {
        kiln_vi x = vi_and(vi_shr_logical(a, i), vi_set1(255));
        sum = vi_add(sum, vi_mul(x, vi_shr(vi_shl(b, 24 - i), 24)));
    }
    return sum;
}
#endif

KILN_INLINE kiln_vi dot(int form, kiln_vi sum, kiln_vi a, kiln_vi b) {
    return form == PAIRS ? dot_pairs(sum, a, b) : dot_quads(sum, a, b);
}

KILN_INLINE kiln_vi load_b(int form, const int8_t *p) {
    return form == PAIRS ? load_b_pairs(p) : vi_load((const int32_t *)(const void *)p);
}

/* One vector of channels, n <= form rows interleaved: lane i holds p[0][i], p[1][i] ... as dot
 * wants them. Reads KILN_VLEN bytes of each row. */
#if defined(KILN_ISA_avx512)
KILN_INLINE __m128i row_bytes(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}
KILN_INLINE kiln_vi interleave_two(const uint8_t *const *p, int64_t at) {
    __m128i a = row_bytes(p[0] + at), b = row_bytes(p[1] + at);
    __m256i both = _mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b));
    return (kiln_vi)_mm512_cvtepu8_epi16(both);
}
#elif defined(KILN_ISA_avx2)
KILN_INLINE __m128i row_bytes(const uint8_t *p) {
    return _mm_loadl_epi64((const __m128i *)(const void *)p);
}
KILN_INLINE kiln_vi interleave_two(const uint8_t *const *p, int64_t at) {
    __m128i both = _mm_unpacklo_epi8(row_bytes(p[0] + at), row_bytes(p[1] + at));
    return (kiln_vi)_mm256_cvtepu8_epi16(both);
}
#else
KILN_INLINE kiln_vi interleave_two(const uint8_t *const *p, int64_t at) {
    return vi_or(vi_load_u8(p[0] + at), vi_shl(vi_load_u8(p[1] + at), 16));
}
#endif

KILN_INLINE kiln_vi interleave(int form, int n, const uint8_t *const *p, int64_t at) {
    if (form == PAIRS && n == 2) {
        return interleave_two(p, at);
    }
    kiln_vi x = vi_load_u8(p[0] + at);
    for (int i = 1; i < n; i++) {
        x = vi_or(x, vi_shl(vi_load_u8(p[i] + at), 8 * i));
    }
    return x;
}

#endif
