/* det.c - Det: determinants of the last two dims, by elimination with row pivoting. */
#include <math.h>

#include "ops/bulk.h"

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_rank(c, 0, 2, -1));
    int32_t rank = kiln_infer_in_rank(c, 0);
    kiln_dim rows = kiln_infer_dim(c, 0, -2), cols = kiln_infer_dim(c, 0, -1);
    if (kiln_dim_differ(rows, cols)) {
        return KILN_INFER_FAIL(c, SHAPE, "the matrices are %lld x %lld, not square",
                               (long long)rows, (long long)cols);
    }
    kiln_dim *dims =
        kiln_infer_dims(c, 0, c->in[0].type.dtype, rank < 0 ? KILN_RANK_UNKNOWN : rank - 2);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    for (int32_t i = 0; i + 2 < rank; i++) {
        dims[i] = kiln_infer_dim(c, 0, i);
    }
    return KILN_OK;
}

/* Determinant of m [n, n], which is destroyed. */
static double determinant(double *m, int64_t n) {
    double det = 1;
    for (int64_t k = 0; k < n; k++) {
        int64_t pivot = k;
        for (int64_t i = k + 1; i < n; i++) {
            pivot = fabs(m[i * n + k]) > fabs(m[pivot * n + k]) ? i : pivot;
        }
        for (int64_t j = k; pivot != k && j < n; j++) {
            double v = m[k * n + j];
            m[k * n + j] = m[pivot * n + j];
            m[pivot * n + j] = v;
        }
        det *= pivot == k ? m[k * n + k] : -m[k * n + k];
        if (m[k * n + k] == 0) {
            return 0;
        }
        for (int64_t i = k + 1; i < n; i++) {
            double f = m[i * n + k] / m[k * n + k];
            for (int64_t j = k + 1; j < n; j++) {
                m[i * n + j] -= f * m[k * n + j];
            }
        }
    }
    return det;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t n = x->dims[x->rank - 1], count = kiln_tensor_count(y);
    int64_t size = kiln_tensor_count(x) ? n * n : 0; /* the determinant of a 0 x 0 matrix is 1 */
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    double *m;
    KILN_ALLOC(m, c->arena, size);
    for (int64_t i = 0; i < count; i++) {
        kiln_load_f64(x, i * size, size, m);
        kiln_set_f64(y->dtype, y->data, i, determinant(m, size ? n : 0));
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_det = {
    .name = "Det",
    .domain = "",
    .since = 22,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
