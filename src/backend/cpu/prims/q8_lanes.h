/* q8_lanes.h - four vectors of channels at once.
 *
 * Rows of bytes are interleaved within 128-bit lanes, which is what shuffles do in one instruction:
 * vector j of the four then holds, in lane L, the channels 16 L + 4 j .. 16 L + 4 j + 3, the
 * numbers of a channel side by side as dot (q8_dot.h) wants. Tables of 32-bit elements are brought
 * into that order as they are loaded; packing results to bytes within lanes brings them back. For p
 * rows of LANES_CHANNELS bytes:
 *
 *     lanes_load(scale, e->scale);
 *     lanes_interleave(QUADS, x, p, 3);                   x[j] = {p[0], p[1], p[2], 0} by channel
 *     ... sums, v[j] = rounded results ...
 *     lanes_store(y, v, zero, lo, hi);                    bytes clamp(sat(v + zero), lo, hi) */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_LANES_H
#define KILN_BACKEND_CPU_PRIMS_Q8_LANES_H

#include "backend/cpu/prims/q8_dot.h"

enum { LANES_CHANNELS = 4 * KILN_VLEN };

#ifdef Q8_BITS

#if defined(KILN_ISA_avx512)

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
/* Lane L of vector j and lane j of vector L change places: there and back are one. */
KILN_INLINE void lanes_back(kiln_vi v[4]) {
    lanes_turn(v);
}
#else

KILN_INLINE kiln_vi lanes_low(kiln_vi a, kiln_vi b) {
    return (kiln_vi)_mm256_permute2x128_si256((__m256i)a, (__m256i)b, 0x20);
}
KILN_INLINE kiln_vi lanes_high(kiln_vi a, kiln_vi b) {
    return (kiln_vi)_mm256_permute2x128_si256((__m256i)a, (__m256i)b, 0x31);
}
KILN_INLINE void lanes_turn(kiln_vi v[4]) {
    kiln_vi a = v[0], b = v[1], c = v[2], d = v[3];
    v[0] = lanes_low(a, c);
    v[1] = lanes_high(a, c);
    v[2] = lanes_low(b, d);
    v[3] = lanes_high(b, d);
}
KILN_INLINE void lanes_back(kiln_vi v[4]) {
    kiln_vi a = v[0], b = v[1], c = v[2], d = v[3];
    v[0] = lanes_low(a, b);
    v[1] = lanes_low(c, d);
    v[2] = lanes_high(a, b);
    v[3] = lanes_high(c, d);
}
#endif

/* n <= form rows. */
KILN_INLINE void lanes_interleave(int form, kiln_vi x[4], const uint8_t *const *p, int n) {
    const q8_bits zero = {0};
    q8_bits r[QUADS];
    KILN_UNROLL(4)
    for (int i = 0; i < QUADS; i++) {
        r[i] = zero;
        if (i < n) {
            memcpy(&r[i], p[i], sizeof r[i]);
        }
    }
    if (form == PAIRS && n == 1) {
        r[2] = zero;
        r[1] = zero;
    }
    q8_bits a = Q8_BITS(unpacklo_epi8)(r[0], r[1]), b = Q8_BITS(unpackhi_epi8)(r[0], r[1]);
    if (form == PAIRS && n == 2) {
        x[0] = (kiln_vi)Q8_BITS(unpacklo_epi8)(a, zero);
        x[1] = (kiln_vi)Q8_BITS(unpackhi_epi8)(a, zero);
        x[2] = (kiln_vi)Q8_BITS(unpacklo_epi8)(b, zero);
        x[3] = (kiln_vi)Q8_BITS(unpackhi_epi8)(b, zero);
        return;
    }
    q8_bits c = Q8_BITS(unpacklo_epi8)(r[2], r[3]), d = Q8_BITS(unpackhi_epi8)(r[2], r[3]);
    x[0] = (kiln_vi)Q8_BITS(unpacklo_epi16)(a, c);
    x[1] = (kiln_vi)Q8_BITS(unpackhi_epi16)(a, c);
    x[2] = (kiln_vi)Q8_BITS(unpacklo_epi16)(b, d);
    x[3] = (kiln_vi)Q8_BITS(unpackhi_epi16)(b, d);
}

KILN_INLINE void lanes_store(uint8_t *y, const kiln_vi v[4], int32_t zero, uint8_t lo, uint8_t hi) {
    const q8_bits z = Q8_BITS(set1_epi16)((short)zero);
    q8_bits a = Q8_BITS(packs_epi32)((q8_bits)v[0], (q8_bits)v[1]);
    q8_bits b = Q8_BITS(packs_epi32)((q8_bits)v[2], (q8_bits)v[3]);
    q8_bits u = Q8_BITS(packus_epi16)(Q8_BITS(adds_epi16)(a, z), Q8_BITS(adds_epi16)(b, z));
    u = Q8_BITS(max_epu8)(u, Q8_BITS(set1_epi8)((char)lo));
    u = Q8_BITS(min_epu8)(u, Q8_BITS(set1_epi8)((char)hi));
    memcpy(y, &u, sizeof u);
}
#else
/* Channel of element i of vector j. */
KILN_INLINE int lanes_channel(int j, int i) {
    return i / 4 * 16 + 4 * j + i % 4;
}

KILN_INLINE void lanes_interleave(int form, kiln_vi x[4], const uint8_t *const *p, int n) {
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < KILN_VLEN; i++) {
            uint32_t word = 0;
            for (int k = 0; k < n; k++) {
                word |= (uint32_t)p[k][lanes_channel(j, i)] << (32 / form) * k;
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

KILN_INLINE void lanes_back(kiln_vi v[4]) {
    int32_t to[4 * KILN_VLEN];
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < KILN_VLEN; i++) {
            to[lanes_channel(j, i)] = v[j][i];
        }
    }
    memcpy(v, to, sizeof to);
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

/* The int8 side of LANES_CHANNELS channels, packed as dot's b. */
KILN_INLINE void lanes_load_b(int form, kiln_vi v[4], const int8_t *p) {
    KILN_UNROLL(4)
    for (int j = 0; j < 4; j++) {
        v[j] = load_b(form, p + j * form * KILN_VLEN);
    }
    lanes_turn(v);
}

#endif
