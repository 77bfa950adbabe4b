/* causal_conv.c - CausalConvWithState: depthwise 1-D convolution over past_state ++ input.
 *
 * Legend: input [N, C, L], weight [C, 1, K], past and present state [N, C, K-1]. */
#include <math.h>

#include "ops/window.h"

typedef struct causal_conv_attrs {
    int32_t activation;
} causal_conv_attrs;

enum { NO_ACTIVATION };
static const char *const words[] = {"none", "silu", "swish", NULL};
static const kiln_attr table[] = {KILN_A_ENUM(causal_conv_attrs, activation, words, NO_ACTIVATION)};

enum { INPUT, WEIGHT, BIAS, PAST };

static kiln_status check_dim(const kiln_infer *c, int32_t i, int32_t d, kiln_dim want) {
    kiln_dim got = kiln_infer_dim(c, i, d);
    if (kiln_dim_differ(got, want)) {
        return KILN_INFER_FAIL(c, SHAPE, "dim %d of input %d is %lld, it must be %lld", d, i,
                               (long long)got, (long long)want);
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, INPUT, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_rank(c, INPUT, 3, 3));
    KILN_TRY(kiln_infer_rank(c, WEIGHT, 3, 3));
    for (int32_t i = WEIGHT; i <= PAST; i++) {
        KILN_TRY(kiln_infer_same_dtype(c, INPUT, i));
    }
    kiln_dim channels = kiln_infer_dim(c, INPUT, 1), taps = kiln_infer_dim(c, WEIGHT, 2);
    if (kiln_dim_known(taps) && taps < 1) {
        return KILN_INFER_FAIL(c, SHAPE, "the kernel has %lld taps", (long long)taps);
    }
    KILN_TRY(check_dim(c, WEIGHT, 0, channels));
    KILN_TRY(check_dim(c, WEIGHT, 1, 1));
    KILN_TRY(kiln_infer_vector(c, BIAS, channels, "the bias"));
    kiln_dim state = kiln_dim_sub(c->dims, taps, 1);
    if (kiln_infer_has(c, PAST)) {
        KILN_TRY(kiln_infer_rank(c, PAST, 3, 3));
        KILN_TRY(check_dim(c, PAST, 0, kiln_infer_dim(c, INPUT, 0)));
        KILN_TRY(check_dim(c, PAST, 1, channels));
        KILN_TRY(check_dim(c, PAST, 2, state));
    }
    for (int32_t i = 0; i < c->n_out; i++) {
        kiln_dim *dims = kiln_infer_dims(c, i, c->in[INPUT].type.dtype, 3);
        if (!dims) {
            return KILN_E_MEMORY;
        }
        dims[0] = kiln_infer_dim(c, INPUT, 0);
        dims[1] = channels;
        dims[2] = i == 0 ? kiln_infer_dim(c, INPUT, 2) : state;
    }
    return KILN_OK;
}

/* Position p of past ++ input for row r (image and channel); p counts from the start of the past.
 * */
static double element(const kiln_ref *c, int64_t r, int64_t p, int64_t state) {
    const kiln_tensor *x = kiln_ref_in(c, INPUT), *past = kiln_ref_in(c, PAST);
    if (p >= state) {
        return kiln_get_f64(x->dtype, x->data, r * x->dims[2] + p - state);
    }
    return past ? kiln_get_f64(past->dtype, past->data, r * state + p) : 0;
}

static kiln_status ref(kiln_ref *c) {
    const causal_conv_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, INPUT), *w = kiln_ref_in(c, WEIGHT);
    const kiln_tensor *bias = kiln_ref_in(c, BIAS);
    kiln_tensor *y = kiln_ref_out(c, 0), *present = kiln_ref_out(c, 1);
    int64_t length = x->dims[2], taps = w->dims[2], state = taps - 1;
    for (int64_t r = 0; r < x->dims[0] * x->dims[1]; r++) {
        int64_t ch = r % x->dims[1];
        for (int64_t i = 0; i < length; i++) {
            double sum = bias ? kiln_get_f64(bias->dtype, bias->data, ch) : 0;
            for (int64_t k = 0; k < taps; k++) {
                sum += kiln_get_f64(w->dtype, w->data, ch * taps + k) * element(c, r, i + k, state);
            }
            if (a->activation != NO_ACTIVATION) {
                sum = sum / (1 + exp(-sum));
            }
            kiln_set_f64(y->dtype, y->data, r * length + i, sum);
        }
        for (int64_t p = 0; present && p < state; p++) {
            kiln_set_f64(present->dtype, present->data, r * state + p,
                         element(c, r, length + p, state));
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_causal_conv_with_state = {
    .name = "CausalConvWithState",
    .domain = "",
    .since = 27,
    .min_in = 2,
    .max_in = 4,
    .min_out = 1,
    .max_out = 2,
    KILN_OP_ATTRS(table, causal_conv_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
