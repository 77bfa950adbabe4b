/* q8_stage.h - rows of uint8 as the 8-bit products read them.
 *
 * A staged row is K elements, uint16 for pairs (group 2) and uint8 for quads (group 4), followed by
 * zeros up to a multiple of 64 bytes; a row is written piece by piece:
 *
 *     int64_t at = 0;
 *     stage_copy(wide, row, at, src, n), at += n;
 *     stage_fill(wide, row, at, zero_point, n), at += n;
 *     stage_end(wide, row, at);
 *
 * stage_copy may write up to KILN_VLEN elements past its end: pieces are written in order, and a
 * row's buffer has room for that (STAGE_SLACK). It reads no further than src[n - 1]. */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_STAGE_H
#define KILN_BACKEND_CPU_PRIMS_Q8_STAGE_H

#include "backend/cpu/prims/simd.h"

enum { STAGE_SLACK = 64 };

KILN_INLINE int64_t stage_row_bytes(bool wide, int64_t k) {
    return (k * (wide ? 2 : 1) + 4 + 63) / 64 * 64;
}

/* Sixteen bytes as words. */
KILN_INLINE void widen16(uint16_t *dst, const uint8_t *src) {
#if defined(KILN_ISA_avx2) || defined(KILN_ISA_avx512)
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)src);
    _mm256_storeu_si256((__m256i *)(void *)dst, _mm256_cvtepu8_epi16(x));
#else
    for (int i = 0; i < 16; i++) {
        dst[i] = src[i];
    }
#endif
}

KILN_INLINE void stage_copy(bool wide, void *row, int64_t at, const uint8_t *src, int64_t n) {
    if (!wide) {
        memcpy((uint8_t *)row + at, src, (size_t)n);
        return;
    }
    uint16_t *dst = (uint16_t *)row + at;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        widen16(dst + i, src + i);
    }
    if (i < n && n >= 16) {
        widen16(dst + n - 16, src + n - 16);
        return;
    }
    for (; i < n; i++) {
        dst[i] = src[i];
    }
}

KILN_INLINE void stage_fill(bool wide, void *row, int64_t at, uint8_t value, int64_t n) {
    if (!wide) {
        memset((uint8_t *)row + at, value, (size_t)n);
        return;
    }
    uint16_t *dst = (uint16_t *)row + at;
    for (int64_t i = 0; i < n; i++) {
        dst[i] = value;
    }
}

KILN_INLINE void stage_end(bool wide, void *row, int64_t k) {
    memset((char *)row + k * (wide ? 2 : 1), 0, 4);
}

#endif
