/* q8_lanes.h - four vectors of channels at once, for the dot product of four bytes.
 *
 * Four rows of bytes are interleaved within 128-bit lanes, which is what shuffles do in one
 * instruction: vector j of the four then holds, in lane L, the channels 16 L + 4 j .. 16 L + 4 j + 3,
 * the bytes of a channel side by side. Tables of 32-bit elements are brought into that order as they
 * are loaded; packing results to bytes within lanes brings them back. For p rows of 4 * KILN_VLEN
 * channels:
 *
 *     lanes_load(scale, e->scale);
 *     lanes_interleave(x, p, 3);                          x[j] = {p[0], p[1], p[2], 0} by channel
 *     ... sums, v[j] = rounded results ...
 *     lanes_store(y, v, zero, lo, hi);                    bytes clamp(sat(v + zero), lo, hi) */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_LANES_H
#define KILN_BACKEND_CPU_PRIMS_Q8_LANES_H

#include "backend/cpu/prims/simd.h"

enum { LANES_CHANNELS = 4 * KILN_VLEN };

#if defined(KILN_ISA_avx512)
KILN_INLINE void lanes_interleave(kiln_vi x[4], const uint8_t *const *p, int n) {
    __m512i r[4];
    KILN_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        r[i] = i < n ? _mm512_loadu_si512(p[i]) : _mm512_setzero_si512();
    }
    __m512i a = _mm512_unpacklo_epi8(r[0], r[1]), b = _mm512_unpackhi_epi8(r[0], r[1]);
    __m512i c = _mm512_unpacklo_epi8(r[2], r[3]), d = _mm512_unpackhi_epi8(r[2], r[3]);
    x[0] = (kiln_vi)_mm512_unpacklo_epi16(a, c);
    x[1] = (kiln_vi)_mm512_unpackhi_epi16(a, c);
    x[2] = (kiln_vi)_mm512_unpacklo_epi16(b, d);
    x[3] = (kiln_vi)_mm512_unpackhi_epi16(b, d);
}

/* Lane L of vector j and lane j of vector L change places. */
KILN_INLINE void lanes_turn(kiln_vi v[4]) {
    __m512i a = _mm512_shuffle_i32x4((__m512i)v[0], (__m512i)v[1], 0x44);
    __m512i b = _mm512_shuffle_i32x4((__m512i)v[2], (__m512i)v[3], 0x44);
    __m512i c = _mm512_shuffle_i32x4((__m512i)v[0], (__m512i)v[1], 0xee);
    __m512i d = _mm512_shuffle_i32x4((__m512i)v[2], (__m512i)v[3], 0xee);
    v[0] = (kiln_vi)_mm512_shuffle_i32x4(a, b, 0x88);
    v[1] = (kiln_vi)_mm512_shuffle_i32x4(a, b, 0xdd);
    v[2] = (kiln_vi)_mm512_shuffle_i32x4(c, d, 0x88);
    v[3] = (kiln_vi)_mm512_shuffle_i32x4(c, d, 0xdd);
}

KILN_INLINE void lanes_store(uint8_t *y, const kiln_vi v[4], int32_t zero, uint8_t lo, uint8_t hi) {
    const __m512i z = _mm512_set1_epi16((short)zero);
    __m512i a = _mm512_packs_epi32((__m512i)v[0], (__m512i)v[1]);
    __m512i b = _mm512_packs_epi32((__m512i)v[2], (__m512i)v[3]);
    __m512i u = _mm512_packus_epi16(_mm512_adds_epi16(a, z), _mm512_adds_epi16(b, z));
    u = _mm512_min_epu8(_mm512_max_epu8(u, _mm512_set1_epi8((char)lo)), _mm512_set1_epi8((char)hi));
    _mm512_storeu_si512(y, u);
}
#else
/* Channel of element i of vector j. */
KILN_INLINE int lanes_channel(int j, int i) {
    return i / 4 * 16 + 4 * j + i % 4;
}

KILN_INLINE void lanes_interleave(kiln_vi x[4], const uint8_t *const *p, int n) {
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < KILN_VLEN; i++) {
            uint32_t word = 0;
            for (int k = 0; k < n; k++) {
                word |= (uint32_t)p[k][lanes_channel(j, i)] << 8 * k;
            }
            x[j][i] = (int32_t)word;
        }
    }
}

KILN_INLINE void lanes_turn(kiln_vi v[4]) {
    int32_t from[4 * KILN_VLEN];
    memcpy(from, v, sizeof from);
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < KILN_VLEN; i++) {
            v[j][i] = from[lanes_channel(j, i)];
        }
    }
}

KILN_INLINE int32_t lanes_clamp(int32_t v, int32_t lo, int32_t hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

KILN_INLINE void lanes_store(uint8_t *y, const kiln_vi v[4], int32_t zero, uint8_t lo, uint8_t hi) {
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < KILN_VLEN; i++) {
            int32_t word = lanes_clamp(v[j][i], INT16_MIN, INT16_MAX) + zero;
            y[lanes_channel(j, i)] = (uint8_t)lanes_clamp(word, lo, hi);
        }
    }
}
#endif

KILN_INLINE void lanes_load(kiln_vi v[4], const void *table) {
    memcpy(v, table, 4 * sizeof(kiln_vi));
    lanes_turn(v);
}

#endif
