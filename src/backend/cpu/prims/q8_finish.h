/* q8_finish.h - from int32 sums to results: kiln_q8_epilogue over one vector of columns.
 *
 *     const q8_columns q = q8_columns_of(e, column);
 *     for each row: q8_finish(&q, sum, residual or NULL, to_float, c, lanes);
 *
 * The columns' numbers stay in registers over the rows. Exactly `lanes` elements of the residual
 * and of c are touched. */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_FINISH_H
#define KILN_BACKEND_CPU_PRIMS_Q8_FINISH_H

#include "backend/cpu/prims/gemm_q8.h"
#include "backend/cpu/prims/simd.h"

typedef struct q8_columns {
    kiln_vf scale, offset, lo, hi, residual_scale;
    kiln_vi zero, residual_zero;
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
                        .e = e};
}

KILN_INLINE void q8_finish(const q8_columns *q, kiln_vi sum, const uint8_t *residual, bool to_float,
                           void *c, int64_t lanes) {
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
    x = vf_min(vf_max(x, q->lo), q->hi);
    if (to_float) {
        vf_store_tail(c, lanes, x);
        return;
    }
    kiln_vi v = vi_add(vi_from_vf(x), q->zero);
    if (whole) {
        vi_store_u8(c, v);
    } else {
        vi_store_u8_tail(c, lanes, v);
    }
}

#endif
