/* q8_finish.h - from int32 sums to results: kiln_q8_epilogue over one vector of columns.
 *
 *     const q8_columns q = q8_columns_of(e, column);
 *     for each row: q8_finish(&q, sum, residual or NULL, to_float, c, lanes);
 *
 * The columns' numbers stay in registers over the rows. Exactly `lanes` elements of the residual
 * and of c are touched. Bytes of two rows of two vectors are stored by fewer instructions together,
 * for sums that stand in memory: beside a register tile's there are too few registers.
 *
 *     q8_finish_four(q, sum, residual or NULL, ld_residual, c, ldc);       q, sum: of two vectors
 */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_FINISH_H
#define KILN_BACKEND_CPU_PRIMS_Q8_FINISH_H

#include "backend/cpu/prims/gemm_q8.h"
#include "backend/cpu/prims/q8_dot.h"

typedef struct q8_columns {
    kiln_vf scale, offset, lo, hi, residual_scale;
    kiln_vi zero, residual_zero;
    kiln_vi zero_words;        /* `zero` in 16 bits each */
    const kiln_q8_epilogue *e; /* for what is rarely needed */
} q8_columns;

KILN_INLINE q8_columns q8_columns_of(const kiln_q8_epilogue *e, int64_t column) {
    return (q8_columns){.scale = vf_load(e->scale + column),
                        .offset = vf_load(e->offset + column),
                        .lo = vf_set1(e->lo),
                        .hi = vf_set1(e->hi),
                        .residual_scale = vf_set1(e->residual_scale),
                        .zero = vi_set1(e->zero),
                        .residual_zero = vi_set1(e->residual_zero),
                        .zero_words = vi_set1((int32_t)((uint32_t)e->zero * 0x10001u)),
                        .e = e};
}

/* The result before it is rounded. */
KILN_INLINE kiln_vf q8_value(const q8_columns *q, kiln_vi sum, const uint8_t *residual,
                             int64_t lanes) {
    const bool whole = lanes == KILN_VLEN;
    kiln_vf x = vf_add(vf_mul(vf_from_vi(sum), q->scale), q->offset);
    if (residual) {
        if (q->e->inner) {
            x = vf_min(vf_max(x, vf_set1(q->e->inner_lo)), vf_set1(q->e->inner_hi));
            x = vf_mul(vf_round(x), vf_set1(q->e->inner_scale));
        }
        kiln_vi r = whole ? vi_load_u8(residual) : vi_load_u8_tail(residual, lanes);
        x = vf_add(x, vf_mul(vf_from_vi(vi_sub(r, q->residual_zero)), q->residual_scale));
    }
    return vf_min(vf_max(x, q->lo), q->hi);
}

KILN_INLINE void q8_finish(const q8_columns *q, kiln_vi sum, const uint8_t *residual, bool to_float,
                           void *c, int64_t lanes) {
    const kiln_vf x = q8_value(q, sum, residual, lanes);
    if (to_float) {
        vf_store_tail(c, lanes, x);
        return;
    }
    kiln_vi v = vi_add(vi_from_vf(x), q->zero);
    if (lanes == KILN_VLEN) {
        vi_store_u8(c, v);
    } else {
        vi_store_u8_tail(c, lanes, v);
    }
}

/* Bytes v + zero of two rows of two vectors, each within 0..255. */
KILN_INLINE void q8_store_four(const q8_columns *q, kiln_vi v[2][2], uint8_t *c, int64_t ldc) {
#if defined(Q8_BITS)
    const q8_bits zero = (q8_bits)q->zero_words;
    const q8_bits a = Q8_BITS(packs_epi32)((q8_bits)v[0][0], (q8_bits)v[0][1]);
    const q8_bits b = Q8_BITS(packs_epi32)((q8_bits)v[1][0], (q8_bits)v[1][1]);
    q8_bits u = Q8_BITS(packus_epi16)(Q8_BITS(add_epi16)(a, zero), Q8_BITS(add_epi16)(b, zero));
#if defined(KILN_ISA_avx512)
    u = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), u);
    _mm256_storeu_si256((__m256i *)(void *)c, _mm512_castsi512_si256(u));
    _mm256_storeu_si256((__m256i *)(void *)(c + ldc), _mm512_extracti64x4_epi64(u, 1));
#else
    u = _mm256_permutevar8x32_epi32(u, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm_storeu_si128((__m128i *)(void *)c, _mm256_castsi256_si128(u));
    _mm_storeu_si128((__m128i *)(void *)(c + ldc), _mm256_extracti128_si256(u, 1));
#endif
#else
    for (int i = 0; i < 2; i++) {
        vi_store_u8(c + i * ldc, vi_add(v[i][0], q->zero));
        vi_store_u8(c + i * ldc + KILN_VLEN, vi_add(v[i][1], q->zero));
    }
#endif
}

KILN_INLINE void q8_finish_four(const q8_columns q[2], kiln_vi sum[2][2], const uint8_t *residual,
                                int64_t ld_residual, uint8_t *c, int64_t ldc) {
    kiln_vi v[2][2];
    KILN_UNROLL(2) for (int i = 0; i < 2; i++) {
        const uint8_t *r = residual ? residual + i * ld_residual : NULL;
        v[i][0] = vi_from_vf(q8_value(&q[0], sum[i][0], r, KILN_VLEN));
        v[i][1] = vi_from_vf(q8_value(&q[1], sum[i][1], r ? r + KILN_VLEN : NULL, KILN_VLEN));
    }
    q8_store_four(&q[0], v, c, ldc);
}

#endif
