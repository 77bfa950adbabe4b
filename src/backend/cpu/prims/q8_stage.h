/* q8_stage.h - rows of uint8 as the 8-bit products read them, and how products are cut into units.
 *
 * A staged row is K elements, uint16 for pairs (group 2) and uint8 for quads (group 4), followed by
 * zeros up to a multiple of 64 bytes; a row is written piece by piece:
 *
 *     int64_t at = 0;
 *     stage_copy(wide, row, at, src, n), at += n;
 *     stage_fill(wide, row, at, zero_point, n), at += n;
 *     stage_end(wide, row, at);
 *
 * Exactly n elements are read and written. Products read up to a word, tile registers up to
 * STAGE_SLACK bytes, past the last row. */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_STAGE_H
#define KILN_BACKEND_CPU_PRIMS_Q8_STAGE_H

#include "backend/cpu/prims/gemm.h"
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

/* Pieces are short: a call would take longer than the copy. */
KILN_INLINE void copy_bytes(uint8_t *dst, const uint8_t *src, int64_t n) {
#if defined(KILN_ISA_avx512)
    for (; n >= 64; n -= 64, src += 64, dst += 64) {
        _mm512_storeu_si512(dst, _mm512_loadu_si512(src));
    }
    const __mmask64 mask = (1ULL << n) - 1;
    _mm512_mask_storeu_epi8(dst, mask, _mm512_maskz_loadu_epi8(mask, src));
#else
    memcpy(dst, src, (size_t)n);
#endif
}

KILN_INLINE void stage_copy(bool wide, void *row, int64_t at, const uint8_t *src, int64_t n) {
    if (!wide) {
        copy_bytes((uint8_t *)row + at, src, n);
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

/* ---- Units ---- */

enum {
    STAGE_BYTES = 160 * 1024, /* of staged rows in a unit: they stay in the second-level cache */
    STAGE_NEAR_BYTES = 32 * 1024, /* for tile registers, which want them in the first */
    STAGE_ROWS = 192,
    TILE_REGISTER_ROWS = 16, /* blocks of more rows are those of tile registers */
    STAGE_COLUMNS = 128,     /* fewer columns do not repay staging their rows */
    UNITS_WANTED = 64,       /* enough for 16 threads to share evenly */
    UNIT_MACS = 512 * 1024,  /* no unit smaller than this for the sake of more units */
};

/* A unit of a product: rows times panels of columns. */
typedef struct q8_unit {
    int64_t rows, panels;
} q8_unit;

/* Cuts m rows of k, times `panels` panels of nr columns, `copies` times over. Thin blocks of rows
 * are cheap, since B flows faster than it is used; few columns are not. What is asked for is a
 * limit, from which units are made smaller alike. */
KILN_INLINE q8_unit q8_cut(int64_t m, int64_t k, int64_t panels, int64_t nr, int64_t mr,
                           int64_t row_bytes, int64_t copies, const kiln_gemm_blocking *asked) {
    const int64_t macs = m * k * panels * nr * copies;
    const bool tiles = mr > TILE_REGISTER_ROWS;
    const int64_t least = tiles ? 3 * UNIT_MACS : UNIT_MACS;
    const int64_t fewest = tiles ? mr : 2 * mr, few = tiles ? mr : 4 * mr;
    const int64_t rows = tiles ? STAGE_NEAR_BYTES / row_bytes / mr * mr : STAGE_BYTES / row_bytes;
    q8_unit u = {i64_min(STAGE_ROWS, i64_max(fewest, rows)), panels};
    u.rows = asked->block_rows > 0 ? asked->block_rows : u.rows;
    u.rows = i64_max(1, i64_min(u.rows, m));
    if (asked->group_bytes > 0) {
        u.panels = i64_max(1, i64_min(panels, asked->group_bytes / i64_max(1, nr * k)));
    }
    for (;;) {
        int64_t units = i64_ceil_div(m, u.rows) * i64_ceil_div(panels, u.panels) * copies;
        if (units >= UNITS_WANTED || macs / units < 2 * least) {
            return u;
        }
        if (u.rows > few) {
            u.rows = i64_max(few, i64_ceil_div(u.rows, 2));
        } else if (u.panels * nr > STAGE_COLUMNS) {
            u.panels = i64_ceil_div(u.panels, 2);
        } else if (u.rows > fewest) {
            u.rows = fewest;
        } else if (u.panels > 1) {
            u.panels = i64_ceil_div(u.panels, 2);
        } else {
            return u;
        }
    }
}

#endif
