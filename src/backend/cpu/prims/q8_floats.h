/* q8_floats.h - what follows a float result of the 8-bit kernels: a kiln_epilogue over a finished
 * block while it is near. Where the results narrow (gemm_q8.h) the blocks stand in scratch. */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_FLOATS_H
#define KILN_BACKEND_CPU_PRIMS_Q8_FLOATS_H

#include "backend/cpu/prims/gemm_q8.h"
#include "backend/cpu/prims/vecmath.h"

/* Moves the tables and the residual on to element (row, column). */
KILN_INLINE void q8_aim(kiln_q8_epilogue *e, int64_t row, int64_t column) {
    e->start += column;
    e->scale += column;
    e->offset += column;
    e->residual = e->residual ? e->residual + row * e->ld_residual + column : NULL;
}

KILN_INLINE kiln_vf floats_activate(const kiln_epilogue *e, kiln_vf x) {
    x = vf_select(vf_lt(x, vf_zero()), vf_mul(x, vf_set1(e->slope)), x);
    if (e->hard_swish) {
        x = vf_hard_swish(x);
    }
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

/* Block [row0, row0 + rows) x [col0, col0 + cols) of the result, which stands at `c`. */
KILN_INLINE void floats_at(const kiln_epilogue *e, float *c, int64_t ldc, int64_t row0,
                           int64_t rows, int64_t col0, int64_t cols) {
    bool plain = !e->hard_swish && !e->bias && !e->residual && e->slope == 1.0f &&
                 e->lo == -INFINITY && e->hi == INFINITY;
    for (int64_t i = 0; i < rows && !plain; i++) {
        const float *residual = e->residual;
        floats_row(e, c + i * ldc, e->bias ? e->bias + col0 : NULL,
                   residual ? residual + (row0 + i) * e->ld_residual + col0 : NULL, cols);
    }
    if (e->post) {
        e->post(e->post_arg, c, ldc, row0, rows, col0, cols);
    }
}

/* The same block in the result that begins at `result`. */
KILN_INLINE void floats_block(const kiln_q8_epilogue *q, void *result, int64_t ldc, int64_t row0,
                              int64_t rows, int64_t col0, int64_t cols) {
    if (q->to_float && q->floats && !q->narrows) {
        floats_at(q->floats, (float *)result + row0 * ldc + col0, ldc, row0, rows, col0, cols);
    }
}

/* ---- Results that narrow ---- */

enum { NARROW_BYTES = 64 * 1024 }; /* of floats that wait in scratch: near, with the rows of A */

/* Columns of a slice of a block of `rows` rows: whole panels of nr. */
KILN_INLINE int64_t narrow_columns(int64_t rows, int64_t nr) {
    int64_t row_bytes = i64_max(1, rows) * nr * (int64_t)sizeof(float);
    return i64_max(1, NARROW_BYTES / row_bytes) * nr;
}

/* Bytes of a slice, a multiple of 64 for nr >= 16. */
KILN_INLINE int64_t narrow_bytes(int64_t rows, int64_t nr) {
    return (rows * narrow_columns(rows, nr) * (int64_t)sizeof(float) + 63) / 64 * 64;
}

/* Runs the block, whose first element is (row0, col0) of the result, slice by slice. */
KILN_INLINE void narrow_block(const kiln_gemm_q8_block *k, int64_t nr, int group,
                              void (*run)(const kiln_gemm_q8_block *), int64_t row0, int64_t col0,
                              float *slice) {
    const int64_t width = narrow_columns(k->m, nr), words = k->pieces * k->words;
    for (int64_t n = 0; n < k->n; n += width) {
        kiln_q8_epilogue e = *k->epilogue;
        kiln_gemm_q8_block s = *k;
        q8_aim(&e, 0, n);
        s.n = i64_min(width, k->n - n);
        s.b = (const int8_t *)k->b + n * words * group;
        s.c = slice;
        s.ldc = width;
        s.epilogue = &e;
        run(&s);
        floats_at(e.floats, slice, width, row0, k->m, col0 + n, s.n);
    }
}

#endif
