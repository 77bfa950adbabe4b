/* softmax.c - Softmax, LogSoftmax, Hardmax along one axis. */
#include "ops/softmax.h"

#include <math.h>

#include "ops/attrs.h"
#include "ops/bulk.h"
#include "ops/lanes.h"

static const kiln_attr table[] = {KILN_A_INT(kiln_axis_attrs, axis, -1)};

static kiln_status infer(kiln_infer *c) {
    const kiln_axis_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0), axis;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    if (rank > 0) {
        KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
    } else if (rank == 0 && a->axis != 0 && a->axis != -1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "axis is %lld for a scalar", (long long)a->axis);
    }
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

/* One lane in place: n doubles, of a tensor of this dtype. */
typedef void lane_fn(double *v, int64_t n, kiln_dtype dtype);

static double greatest(const double *v, int64_t n) {
    double m = v[0];
    for (int64_t i = 1; i < n; i++) {
        m = v[i] > m || isnan(v[i]) ? v[i] : m;
    }
    return m;
}

static bool is_half(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_F16 || dtype == KILN_DTYPE_BF16;
}

static double half(kiln_dtype dtype, double v) {
    return is_half(dtype) ? kiln_round_to(dtype, v) : v;
}

void kiln_softmax_row(double *v, int64_t n, kiln_dtype dtype, const double *sink) {
    double m = greatest(v, n), sum = 0;
    m = sink && *sink > m ? *sink : m;
    if (sink) {
        sum = half(dtype, exp(half(dtype, *sink - m)));
    }
    for (int64_t i = 0; i < n; i++) {
        v[i] = half(dtype, exp(half(dtype, v[i] - m)));
        sum += v[i];
        sum = dtype == KILN_DTYPE_BF16 ? half(dtype, sum) : sum;
    }
    sum = half(dtype, sum);
    for (int64_t i = 0; i < n; i++) {
        v[i] = half(dtype, v[i] / sum);
    }
}

static void lane_softmax(double *v, int64_t n, kiln_dtype dtype) {
    kiln_softmax_row(v, n, dtype, NULL);
}

static void lane_log_softmax(double *v, int64_t n, kiln_dtype dtype) {
    (void)dtype;
    double m = greatest(v, n), sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += exp(v[i] - m);
    }
    for (int64_t i = 0; i < n; i++) {
        v[i] = v[i] - m - log(sum);
    }
}

static void lane_hardmax(double *v, int64_t n, kiln_dtype dtype) {
    (void)dtype;
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        best = v[i] > v[best] ? i : best;
    }
    for (int64_t i = 0; i < n; i++) {
        v[i] = i == best;
    }
}

static kiln_status apply(kiln_ref *c, lane_fn *f) {
    const kiln_axis_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_lanes l = kiln_lanes_of(x, (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis));
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    double *v;
    KILN_ALLOC(v, c->arena, l.n);
    for (int64_t k = 0; k < l.outer * l.inner; k++) {
        int64_t at = kiln_lane_start(&l, k);
        for (int64_t i = 0; i < l.n; i++) {
            v[i] = kiln_get_f64(x->dtype, x->data, at + i * l.inner);
        }
        f(v, l.n, x->dtype);
        for (int64_t i = 0; i < l.n; i++) {
            kiln_set_f64(y->dtype, y->data, at + i * l.inner, v[i]);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

#define OPERATOR(id, onnx, lane, tol)                                    \
    static kiln_status ref_##id(kiln_ref *c) {                           \
        return apply(c, lane);                                           \
    }                                                                    \
    const kiln_op kiln_op_##id = {.name = onnx,                          \
                                  .domain = "",                          \
                                  .since = 13,                           \
                                  .min_in = 1,                           \
                                  .max_in = 1,                           \
                                  .min_out = 1,                          \
                                  .max_out = 1,                          \
                                  KILN_OP_ATTRS(table, kiln_axis_attrs), \
                                  .tolerance = tol,                      \
                                  .infer = infer,                        \
                                  .ref = ref_##id};

OPERATOR(softmax, "Softmax", lane_softmax, KILN_TOL_REDUCE)
OPERATOR(log_softmax, "LogSoftmax", lane_log_softmax, KILN_TOL_REDUCE)
OPERATOR(hardmax, "Hardmax", lane_hardmax, KILN_TOL_EXACT)
