/* batch_norm.c - BatchNormalization, with running statistics in training mode. */
#include <math.h>

#include "ops/lanes.h"
#include "ops/window.h"

static const kiln_attr table[] = {
    KILN_A_FLOAT(kiln_batch_norm_attrs, epsilon, 1e-5f),
    KILN_A_FLOAT(kiln_batch_norm_attrs, momentum, 0.9f),
    KILN_A_INT(kiln_batch_norm_attrs, training_mode, 0),
};

enum { X, SCALE, BIAS, MEAN, VAR };

static kiln_status infer(kiln_infer *c) {
    static const char *const names[] = {"X", "scale", "B", "input_mean", "input_var"};
    const kiln_batch_norm_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, X);
    kiln_dim channels = rank < 0 ? KILN_DIM_UNKNOWN : rank < 2 ? 1 : kiln_infer_dim(c, X, 1);
    KILN_TRY(kiln_infer_rank(c, X, 1, -1));
    for (int32_t i = X; i <= VAR; i++) {
        KILN_TRY(kiln_infer_dtype(c, i, KILN_T_FLOAT));
        if (i > X) {
            KILN_TRY(kiln_infer_vector(c, i, channels, names[i]));
        }
    }
    if (c->n_out > 1 && !a->training_mode) {
        return KILN_INFER_FAIL(c, ARITY, "%d outputs without training_mode", c->n_out);
    }
    KILN_TRY(kiln_infer_like(c, 0, X, KILN_DTYPE_NONE));
    for (int32_t i = 1; i < c->n_out; i++) {
        kiln_dim *dims = kiln_infer_dims(c, i, c->in[MEAN].type.dtype, 1);
        if (!dims) {
            return KILN_E_MEMORY;
        }
        dims[0] = kiln_dim_merge(channels, kiln_infer_dim(c, MEAN, 0));
    }
    return KILN_OK;
}

static void channel_stats(const kiln_tensor *x, const kiln_lanes *l, int64_t ch, double *mean,
                          double *var) {
    double sum = 0, squares = 0, n = (double)(l->outer * l->inner);
    for (int64_t k = 0; k < l->outer * l->inner; k++) {
        sum += kiln_get_f64(x->dtype, x->data, kiln_lane_start(l, k) + ch * l->inner);
    }
    for (int64_t k = 0; k < l->outer * l->inner; k++) {
        double v = kiln_get_f64(x->dtype, x->data, kiln_lane_start(l, k) + ch * l->inner);
        squares += (v - sum / n) * (v - sum / n);
    }
    *mean = sum / n;
    *var = squares / n;
}

static double element(const kiln_ref *c, int32_t i, int64_t ch) {
    const kiln_tensor *t = kiln_ref_in(c, i);
    return kiln_get_f64(t->dtype, t->data, ch);
}

/* running = old * momentum + observed * (1 - momentum) */
static void store_running(kiln_ref *c, int32_t out, int32_t in, int64_t ch, double observed) {
    const kiln_batch_norm_attrs *a = c->attrs;
    kiln_tensor *t = kiln_ref_out(c, out);
    if (t) {
        double momentum = a->momentum;
        double v = element(c, in, ch) * momentum + observed * (1 - momentum);
        kiln_set_f64(t->dtype, t->data, ch, v);
    }
}

static kiln_status ref(kiln_ref *c) {
    const kiln_batch_norm_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, X);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_lanes l = kiln_lanes_of(x, 1);
    for (int64_t ch = 0; ch < l.n; ch++) {
        double mean = element(c, MEAN, ch), var = element(c, VAR, ch);
        if (a->training_mode) {
            channel_stats(x, &l, ch, &mean, &var);
            store_running(c, 1, MEAN, ch, mean);
            store_running(c, 2, VAR, ch, var);
        }
        double factor = element(c, SCALE, ch) / sqrt(var + a->epsilon), bias = element(c, BIAS, ch);
        for (int64_t k = 0; k < l.outer * l.inner; k++) {
            int64_t at = kiln_lane_start(&l, k) + ch * l.inner;
            double v = (kiln_get_f64(x->dtype, x->data, at) - mean) * factor + bias;
            kiln_set_f64(y->dtype, y->data, at, v);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_batch_normalization = {
    .name = "BatchNormalization",
    .domain = "",
    .since = 15,
    .min_in = 5,
    .max_in = 5,
    .min_out = 1,
    .max_out = 3,
    KILN_OP_ATTRS(table, kiln_batch_norm_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
