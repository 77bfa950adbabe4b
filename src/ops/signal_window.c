/* signal_window.c - BlackmanWindow, HammingWindow and HannWindow: sums of cosines. */
#include <math.h>

#include "ops/util.h"

typedef struct window_attrs {
    int64_t output_datatype;
    int64_t periodic;
} window_attrs;

static const kiln_attr table[] = {
    KILN_A_INT(window_attrs, output_datatype, KILN_DTYPE_F32),
    KILN_A_INT(window_attrs, periodic, 1),
};

static kiln_status infer(kiln_infer *c) {
    const window_attrs *a = c->attrs;
    const int64_t *v;
    int64_t n, len = kiln_infer_length(c, 0);
    const uint32_t set = KILN_T_NUMBER;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_INDEX));
    if (kiln_infer_in_rank(c, 0) > 1 || (len >= 0 && len != 1)) {
        return KILN_INFER_FAIL(c, SHAPE, "size must be a scalar");
    }
    if (a->output_datatype <= 0 || a->output_datatype >= KILN_DTYPE_COUNT ||
        !(set >> a->output_datatype & 1)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "output_datatype = %lld is not supported",
                               (long long)a->output_datatype);
    }
    kiln_dim *out = kiln_infer_dims(c, 0, (kiln_dtype)a->output_datatype, 1);
    if (!out) {
        return KILN_E_MEMORY;
    }
    const kiln_dim *d = kiln_infer_contents(c, 0, &n);
    KILN_TRY(kiln_infer_ints(c, 0, &v, &n));
    out[0] = v ? v[0] : d ? d[0] : kiln_dim_found(c->dims, KILN_DIM_UNKNOWN);
    if (v && v[0] < 0) {
        return KILN_INFER_FAIL(c, VALUE, "size = %lld is negative", (long long)v[0]);
    }
    return KILN_OK;
}

/* a0 - a1 cos(2 pi i / n) + a2 cos(4 pi i / n), n the size or, for a symmetric window, one less. */
static kiln_status cosines(kiln_ref *c, double a0, double a1, double a2) {
    const window_attrs *a = c->attrs;
    kiln_tensor *y = kiln_ref_out(c, 0);
    double n = (double)(a->periodic ? y->dims[0] : y->dims[0] - 1);
    for (int64_t i = 0; i < y->dims[0]; i++) {
        double angle = 2 * 3.14159265358979323846 * (double)i / n;
        kiln_set_f64(y->dtype, y->data, i, a0 - a1 * cos(angle) + a2 * cos(2 * angle));
    }
    return KILN_OK;
}

static kiln_status blackman_ref(kiln_ref *c) {
    return cosines(c, 0.42, 0.5, 0.08);
}

static kiln_status hamming_ref(kiln_ref *c) {
    return cosines(c, 25.0 / 46.0, 21.0 / 46.0, 0);
}

static kiln_status hann_ref(kiln_ref *c) {
    return cosines(c, 0.5, 0.5, 0);
}

#define WINDOW_OP(id, onnx_name)            \
    const kiln_op kiln_op_##id##_window = { \
        .name = onnx_name,                  \
        .domain = "",                       \
        .since = 17,                        \
        .min_in = 1,                        \
        .max_in = 1,                        \
        .min_out = 1,                       \
        .max_out = 1,                       \
        KILN_OP_ATTRS(table, window_attrs), \
        .tolerance = KILN_TOL_ROUND,        \
        .infer = infer,                     \
        .ref = id##_ref,                    \
    }

WINDOW_OP(blackman, "BlackmanWindow");
WINDOW_OP(hamming, "HammingWindow");
WINDOW_OP(hann, "HannWindow");
