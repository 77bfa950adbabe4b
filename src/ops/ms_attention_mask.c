/* ms_attention_mask.c - see ms_attention.h. */
#include <float.h>
#include <math.h>

#include "ops/ms_attention.h"

static kiln_status check_mask(const kiln_infer *c, int32_t i, kiln_dim batch, kiln_dim q_len,
                              kiln_dim kv_len) {
    int32_t rank = kiln_infer_in_rank(c, i);
    kiln_dim n = kiln_infer_dim(c, i, 0), any = KILN_DIM_UNKNOWN;
    kiln_dim two[] = {batch, kv_len}, three[] = {batch, q_len, kv_len},
             four[] = {batch, 1, any, any};
    KILN_TRY(kiln_infer_dtype(c, i, KILN_T(I32)));
    KILN_TRY(kiln_infer_rank(c, i, 1, 4));
    switch (rank) {
    case 1:
        if (kiln_dim_differ(n, batch) && kiln_dim_differ(n, kiln_dim_mul(c->dims, batch, 2)) &&
            n != 1) {
            return KILN_INFER_FAIL(c, VARIANT,
                                   "a mask of %lld lengths for a batch of %lld is not supported",
                                   (long long)n, (long long)batch);
        }
        return KILN_OK;
    case 2:
        return kiln_expect_shape(c, i, "the mask", 2, two);
    case 3:
        return kiln_expect_shape(c, i, "the mask", 3, three);
    case 4:
        for (int32_t d = 2; d < 4; d++) {
            kiln_dim m = kiln_infer_dim(c, i, d);
            if (kiln_dim_known(m) && kiln_dim_known(kv_len) && m < kv_len) {
                return KILN_INFER_FAIL(c, SHAPE, "the mask is for %lld keys, there are %lld",
                                       (long long)m, (long long)kv_len);
            }
        }
        return kiln_expect_shape(c, i, "the mask", 4, four);
    default:
        return KILN_OK;
    }
}

kiln_status kiln_ms_masks_check(const kiln_infer *c, int32_t i, int32_t j, kiln_dim batch,
                                kiln_dim heads, kiln_dim q_len, kiln_dim kv_len) {
    kiln_dim first[] = {batch, heads}, any = KILN_DIM_UNKNOWN, bias[] = {any, any, q_len, kv_len};
    if (kiln_infer_has(c, i)) {
        KILN_TRY(check_mask(c, i, batch, q_len, kv_len));
    }
    if (!kiln_infer_has(c, j)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_dtype(c, j, KILN_T_FLOAT));
    KILN_TRY(kiln_expect_shape(c, j, "the attention bias", 4, bias));
    for (int32_t d = 0; d < 2; d++) {
        kiln_dim n = kiln_infer_dim(c, j, d);
        if (kiln_dim_differ(n, 1) && kiln_dim_differ(n, first[d])) {
            return KILN_INFER_FAIL(c, SHAPE,
                                   "dim %d of the attention bias is %lld, it must be 1 or %lld", d,
                                   (long long)n, (long long)first[d]);
        }
    }
    return KILN_OK;
}

/* Whether query i of image b sees key j, by the mask alone. */
static bool sees(const kiln_ms_masks *m, int64_t b, int64_t i, int64_t j) {
    const kiln_tensor *t = m->mask;
    const int32_t *v = t->data;
    int64_t n = t->dims[t->rank - 1];
    switch (t->rank) {
    case 1:
        if (n == 1) {
            return j < v[0];
        }
        return j < v[b] && (n == m->batch || j >= v[m->batch + b]);
    case 2:
        return v[b * n + j] > 0;
    case 3:
        return v[(b * m->q_len + i) * n + j] > 0;
    default:
        return v[(b * t->dims[2] + m->past + i) * n + j] > 0;
    }
}

void kiln_ms_masks_add(const void *user, int64_t b, int64_t h, int64_t i, double *row) {
    const kiln_ms_masks *m = user;
    const kiln_tensor *bias = m->bias;
    for (int64_t j = 0; j < m->kv_len; j++) {
        if (m->mask && !sees(m, b, i, j)) {
            row[j] += m->filter;
        }
        if (m->causal && j > m->past + i) {
            row[j] = -(double)FLT_MAX;
        }
    }
    if (bias) {
        int64_t image = bias->dims[0] == 1 ? 0 : b, head = bias->dims[1] == 1 ? 0 : h;
        int64_t at = ((image * bias->dims[1] + head) * m->q_len + i) * m->kv_len;
        for (int64_t j = 0; j < m->kv_len; j++) {
            row[j] += kiln_get_f64(bias->dtype, bias->data, at + j);
        }
    }
}

kiln_status kiln_ms_attention_check(const kiln_infer *c, int64_t num_heads, float scale) {
    if (num_heads < 1 || num_heads > INT32_MAX || !(scale >= 0) || isinf(scale)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "num_heads is %lld, scale is %g",
                               (long long)num_heads, (double)scale);
    }
    return KILN_OK;
}
