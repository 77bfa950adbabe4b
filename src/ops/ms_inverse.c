/* ms_inverse.c - com.microsoft Inverse: the inverses of square matrices in the last two dims, by
 * Gauss-Jordan elimination with row pivots. A singular matrix gives infinities or NaN. */
#include <math.h>

#include "ops/bulk.h"
#include "ops/expect.h"

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T(F16) | KILN_T(F32) | KILN_T(F64)));
    KILN_TRY(kiln_infer_rank(c, 0, 2, -1));
    KILN_TRY(kiln_expect_dim(c, 0, -1, kiln_infer_dim(c, 0, -2), "X"));
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

static void swap_rows(double *m, int64_t width, int64_t a, int64_t b) {
    for (int64_t j = 0; j < width; j++) {
        double t = m[a * width + j];
        m[a * width + j] = m[b * width + j];
        m[b * width + j] = t;
    }
}

/* m [n, 2 n] = [X | 1] becomes [1 | inverse]. */
static void eliminate(double *m, int64_t n) {
    int64_t width = 2 * n;
    for (int64_t k = 0; k < n; k++) {
        int64_t best = k;
        for (int64_t i = k + 1; i < n; i++) {
            best = fabs(m[i * width + k]) > fabs(m[best * width + k]) ? i : best;
        }
        swap_rows(m, width, k, best);
        double pivot = m[k * width + k];
        for (int64_t j = 0; j < width; j++) {
            m[k * width + j] /= pivot;
        }
        for (int64_t i = 0; i < n; i++) {
            double f = i == k ? 0 : m[i * width + k];
            for (int64_t j = 0; f != 0 && j < width; j++) {
                m[i * width + j] -= f * m[k * width + j];
            }
        }
    }
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0), work;
    int64_t n = x->dims[x->rank - 1], total = kiln_tensor_count(x);
    const int64_t dims[] = {n, 2, n};
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(kiln_ref_scratch(c, &work, KILN_DTYPE_F64, 3, dims));
    double *m = work.data;
    for (int64_t at = 0; at < total; at += n * n) {
        for (int64_t i = 0; i < n; i++) {
            kiln_load_f64(x, at + i * n, n, m + 2 * i * n);
            for (int64_t j = 0; j < n; j++) {
                m[2 * i * n + n + j] = i == j;
            }
        }
        eliminate(m, n);
        for (int64_t i = 0; i < n; i++) {
            kiln_store_f64(y, at + i * n, n, m + 2 * i * n + n);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_ms_inverse = {
    .name = "Inverse",
    .domain = "com.microsoft",
    .since = 1,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
