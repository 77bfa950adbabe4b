/* lp_norm.c - LpNormalization, MeanVarianceNormalization, LRN. */
#include <math.h>

#include "ops/bulk.h"
#include "ops/lanes.h"
#include "ops/reduce.h"

/* ---- LpNormalization: x / |x|_p along an axis; where the norm is 0, 0 ---- */

static const kiln_attr lp_table[] = {
    KILN_A_INT(kiln_lp_norm_attrs, axis, -1),
    KILN_A_INT(kiln_lp_norm_attrs, p, 2),
};

static kiln_status infer_lp(kiln_infer *c) {
    const kiln_lp_norm_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0), axis;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_rank(c, 0, 1, -1));
    if (a->p != 1 && a->p != 2) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "p is %lld; only 1 and 2 exist", (long long)a->p);
    }
    if (rank > 0) {
        KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
    }
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

static kiln_status ref_lp(kiln_ref *c) {
    const kiln_lp_norm_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_lanes l = kiln_lanes_of(x, (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis));
    for (int64_t k = 0; k < l.outer * l.inner; k++) {
        int64_t at = kiln_lane_start(&l, k);
        double norm = 0;
        for (int64_t i = 0; i < l.n; i++) {
            double v = kiln_get_f64(x->dtype, x->data, at + i * l.inner);
            norm += a->p == 1 ? fabs(v) : v * v;
        }
        norm = a->p == 1 ? norm : sqrt(norm);
        for (int64_t i = 0; i < l.n; i++) {
            double v = kiln_get_f64(x->dtype, x->data, at + i * l.inner);
            kiln_set_f64(y->dtype, y->data, at + i * l.inner, norm == 0 ? 0 : v / norm);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_lp_normalization = {
    .name = "LpNormalization",
    .domain = "",
    .since = 22,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(lp_table, kiln_lp_norm_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer_lp,
    .ref = ref_lp,
};

/* ---- MeanVarianceNormalization: (x - mean) / (sqrt(variance) + 1e-9) over axes ---- */

static const kiln_attr mvn_table[] = {KILN_A_INTS(kiln_axes_attrs, axes)};
static const int64_t mvn_axes[] = {0, 2, 3};

static kiln_ints axes_of(const kiln_axes_attrs *a) {
    return a->axes.v ? a->axes : (kiln_ints){.v = mvn_axes, .n = KILN_COUNT_OF(mvn_axes)};
}

static kiln_status infer_mvn(kiln_infer *c) {
    kiln_ints axes = axes_of(c->attrs);
    int32_t rank = kiln_infer_in_rank(c, 0);
    bool mask[KILN_MAX_RANK];
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    if (rank >= 0) {
        KILN_TRY(kiln_reduce_mask(c, axes.v, axes.n, rank, false, mask));
    }
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

/* sums[o] += (x - mean)^power / count over the elements of set o. */
static void moments(const kiln_tensor *x, const int64_t *strides, const double *mean, double count,
                    double *sums) {
    kiln_walk w;
    kiln_walk_init(&w, x->dims, x->rank);
    kiln_walk_operand(&w, strides);
    int64_t i = 0;
    do {
        int64_t o = w.offset[0];
        double v = kiln_get_f64(x->dtype, x->data, i++);
        sums[o] += (mean ? (v - mean[o]) * (v - mean[o]) : v) / count;
    } while (kiln_walk_next(&w));
}

static kiln_status ref_mvn(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_ints axes = axes_of(c->attrs);
    int64_t n = kiln_tensor_count(x), strides[KILN_MAX_RANK], i = 0;
    bool mask[KILN_MAX_RANK] = {false};
    double count = 1, *mean, *var;
    if (n == 0) {
        return KILN_OK;
    }
    for (int32_t d = 0; d < x->rank; d++) {
        mask[d] = axes.n == 0;
    }
    for (int64_t k = 0; k < axes.n; k++) {
        mask[axes.v[k] < 0 ? axes.v[k] + x->rank : axes.v[k]] = true;
    }
    for (int32_t d = 0; d < x->rank; d++) {
        count *= mask[d] ? (double)x->dims[d] : 1;
    }
    kiln_reduce_strides(x, mask, strides);
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_ALLOC(mean, c->arena, n);
    KILN_ALLOC(var, c->arena, n);
    moments(x, strides, NULL, count, mean);
    moments(x, strides, mean, count, var);
    kiln_walk w;
    kiln_walk_init(&w, x->dims, x->rank);
    kiln_walk_operand(&w, strides);
    do {
        int64_t o = w.offset[0];
        double v = kiln_get_f64(x->dtype, x->data, i) - mean[o];
        kiln_set_f64(y->dtype, y->data, i++, v / (sqrt(var[o]) + 1e-9));
    } while (kiln_walk_next(&w));
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_mean_variance_normalization = {
    .name = "MeanVarianceNormalization",
    .domain = "",
    .since = 13,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(mvn_table, kiln_axes_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer_mvn,
    .ref = ref_mvn,
};

/* ---- LRN: x / (bias + alpha / size * sum of squares over neighbouring channels) ^ beta ---- */

static const kiln_attr lrn_table[] = {
    KILN_A_FLOAT(kiln_lrn_attrs, alpha, 0.0001f),
    KILN_A_FLOAT(kiln_lrn_attrs, beta, 0.75f),
    KILN_A_FLOAT(kiln_lrn_attrs, bias, 1.0f),
    KILN_A_INT_REQUIRED(kiln_lrn_attrs, size),
};

static kiln_status infer_lrn(kiln_infer *c) {
    const kiln_lrn_attrs *a = c->attrs;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_rank(c, 0, 3, -1));
    if (a->size < 1 || a->size > INT32_MAX) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "size is %lld", (long long)a->size);
    }
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

static kiln_status ref_lrn(kiln_ref *c) {
    const kiln_lrn_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_lanes l = kiln_lanes_of(x, 1);
    int64_t before = (a->size - 1) / 2, after = a->size - 1 - before;
    for (int64_t k = 0; k < l.outer * l.inner; k++) {
        int64_t at = kiln_lane_start(&l, k);
        for (int64_t ch = 0; ch < l.n; ch++) {
            int64_t lo = ch > before ? ch - before : 0;
            int64_t hi = l.n - 1 - ch > after ? ch + after : l.n - 1;
            double sum = 0, v = kiln_get_f64(x->dtype, x->data, at + ch * l.inner);
            for (int64_t i = lo; i <= hi; i++) {
                double u = kiln_get_f64(x->dtype, x->data, at + i * l.inner);
                sum += u * u;
            }
            v /= pow(a->bias + (double)a->alpha / (double)a->size * sum, a->beta);
            kiln_set_f64(y->dtype, y->data, at + ch * l.inner, v);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_lrn = {
    .name = "LRN",
    .domain = "",
    .since = 13,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(lrn_table, kiln_lrn_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer_lrn,
    .ref = ref_lrn,
};
