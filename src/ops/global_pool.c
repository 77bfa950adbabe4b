/* global_pool.c - GlobalAveragePool, GlobalMaxPool, GlobalLpPool: all spatial dims become 1. */
#include <math.h>

#include "ops/attrs.h"
#include "ops/util.h"

static const kiln_attr lp_table[] = {KILN_A_INT(kiln_pool_attrs, p, 2)};

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_rank(c, 0, 2, -1));
    int32_t rank = kiln_infer_in_rank(c, 0);
    kiln_dim *dims = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    for (int32_t i = 0; i < rank; i++) {
        dims[i] = i < 2 ? kiln_infer_dim(c, 0, i) : 1;
    }
    return KILN_OK;
}

static kiln_status infer_lp(kiln_infer *c) {
    const kiln_pool_attrs *a = c->attrs;
    if (a->p < 1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "p is %lld, it must be at least 1", (long long)a->p);
    }
    return infer(c);
}

/* Folds one element into the accumulator. */
typedef double fold_fn(double acc, double v, double p);
static double fold_sum(double acc, double v, double p) {
    (void)p;
    return acc + v;
}
static double fold_max(double acc, double v, double p) {
    (void)p;
    return isnan(v) || v > acc ? v : acc;
}
static double fold_lp(double acc, double v, double p) {
    return acc + pow(fabs(v), p);
}

static kiln_status apply(kiln_ref *c, fold_fn *fold, double start, double p) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t planes = kiln_tensor_count(y), size = planes ? 1 : 0;
    for (int32_t i = 2; i < x->rank; i++) {
        size *= x->dims[i];
    }
    for (int64_t k = 0; k < planes; k++) {
        double acc = start;
        KILN_TRY(kiln_ref_poll(c));
        for (int64_t i = 0; i < size; i++) {
            acc = fold(acc, kiln_get_f64(x->dtype, x->data, k * size + i), p);
        }
        if (fold == fold_sum) {
            acc = acc / (double)size;
        } else if (fold == fold_lp) {
            acc = pow(acc, 1 / p);
        }
        kiln_set_f64(y->dtype, y->data, k, acc);
    }
    return KILN_OK;
}

static kiln_status ref_average(kiln_ref *c) {
    return apply(c, fold_sum, 0, 1);
}
static kiln_status ref_max(kiln_ref *c) {
    return apply(c, fold_max, -INFINITY, 1);
}
static kiln_status ref_lp(kiln_ref *c) {
    const kiln_pool_attrs *a = c->attrs;
    return apply(c, fold_lp, 0, (double)a->p);
}

static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    kiln_tensor x = {0};
    (void)node;
    (void)out;
    result->macs = kiln_type_to_tensor(&in->type, &x) ? kiln_tensor_count(&x) : 0;
}

#define OPERATOR(id, onnx, infer_fn, ref_fn, tol, ...) \
    const kiln_op kiln_op_##id = {.name = onnx,        \
                                  .domain = "",        \
                                  .since = 22,         \
                                  .min_in = 1,         \
                                  .max_in = 1,         \
                                  .min_out = 1,        \
                                  .max_out = 1,        \
                                  .tolerance = tol,    \
                                  .infer = infer_fn,   \
                                  .ref = ref_fn,       \
                                  .cost = cost,        \
                                  __VA_ARGS__};

OPERATOR(global_average_pool, "GlobalAveragePool", infer, ref_average, KILN_TOL_REDUCE,
         .attrs = NULL)
OPERATOR(global_max_pool, "GlobalMaxPool", infer, ref_max, KILN_TOL_EXACT, .attrs = NULL)
OPERATOR(global_lp_pool, "GlobalLpPool", infer_lp, ref_lp, KILN_TOL_REDUCE,
         KILN_OP_ATTRS(lp_table, kiln_pool_attrs))
