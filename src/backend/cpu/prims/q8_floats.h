/* q8_floats.h - what follows a float result of the 8-bit kernels: a kiln_epilogue over a finished
 * block while it is near. */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_FLOATS_H
#define KILN_BACKEND_CPU_PRIMS_Q8_FLOATS_H

#include "backend/cpu/prims/gemm_q8.h"
#include "backend/cpu/prims/simd.h"

KILN_INLINE kiln_vf floats_activate(const kiln_epilogue *e, kiln_vf x) {
    x = vf_select(vf_lt(x, vf_zero()), vf_mul(x, vf_set1(e->slope)), x);
    return vf_clamp(x, vf_set1(e->lo), vf_set1(e->hi));
}

/* One row; c, bias and residual stand at its first column. */
KILN_INLINE void floats_row(const kiln_epilogue *e, float *c, const float *bias,
                            const float *residual, int64_t cols) {
    for (int64_t i = 0; i < cols; i += KILN_VLEN) {
        int64_t lanes = i64_min(KILN_VLEN, cols - i);
        kiln_vf x = vf_load_tail(c + i, lanes);
        kiln_vf r = residual ? vf_load_tail(residual + i, lanes) : vf_zero();
        if (bias) {
            x = vf_add(x, vf_load_tail(bias + i, lanes));
        }
        if (e->act_first) {
            x = vf_add(floats_activate(e, x), r);
        } else {
            x = floats_activate(e, residual ? vf_add(x, r) : x);
        }
        vf_store_tail(c + i, lanes, x);
    }
}

/* Block [row0, row0 + rows) x [col0, col0 + cols) of the result that begins at `c`. */
KILN_INLINE void floats_block(const kiln_q8_epilogue *q, void *result, int64_t ldc, int64_t row0,
                              int64_t rows, int64_t col0, int64_t cols) {
    const kiln_epilogue *e = q->floats;
    if (!q->to_float || !e) {
        return;
    }
    float *c = (float *)result + row0 * ldc + col0;
    bool plain =
        !e->bias && !e->residual && e->slope == 1.0f && e->lo == -INFINITY && e->hi == INFINITY;
    for (int64_t i = 0; i < rows && !plain; i++) {
        const float *residual = e->residual;
        floats_row(e, c + i * ldc, e->bias ? e->bias + col0 : NULL,
                   residual ? residual + (row0 + i) * e->ld_residual + col0 : NULL, cols);
    }
    if (e->post) {
        e->post(e->post_arg, c, ldc, row0, rows, col0, cols);
    }
}

#endif
