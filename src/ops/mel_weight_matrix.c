/* mel_weight_matrix.c - MelWeightMatrix: triangles on the mel scale over the bins of a spectrum. */
#include <math.h>

#include "ops/util.h"

typedef struct mel_attrs {
    int64_t output_datatype;
} mel_attrs;

static const kiln_attr table[] = {KILN_A_INT(mel_attrs, output_datatype, KILN_DTYPE_F32)};
enum { BINS, LENGTH, RATE, LOW, HIGH };

static double mel(double hertz) {
    return 2595.0 * log10(1.0 + hertz / 700.0);
}

static double hertz(double m) {
    return 700.0 * (pow(10.0, m / 2595.0) - 1.0);
}

/* The spectrum bin at point i of the n + 2 equal steps between two frequencies. */
static double bin(const double *v, int64_t i) {
    double low = mel(v[LOW]), step = (mel(v[HIGH]) - low) / (v[BINS] + 2);
    return floor((v[LENGTH] + 1) * hertz((double)i * step + low) / v[RATE]);
}

static kiln_status check_values(const kiln_infer *c, const double *v) {
    bool ok = v[BINS] >= 0 && v[BINS] < 0x1p31 && v[LENGTH] >= 1 && v[LENGTH] < 0x1p40 &&
              v[RATE] > 0 && v[LOW] > -700 && v[HIGH] >= v[LOW] && v[HIGH] <= 1e30;
    if (ok && v[BINS] > 0) {
        ok = bin(v, 0) >= 0 && bin(v, (int64_t)v[BINS] + 1) < floor(v[LENGTH] / 2) + 1;
    }
    if (!ok) {
        return KILN_INFER_FAIL(
            c, VALUE,
            "%g mel bins from %g to %g hertz do not fit a transform of length %g at %g hertz",
            v[BINS], v[LOW], v[HIGH], v[LENGTH], v[RATE]);
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    int64_t dtype = ((const mel_attrs *)c->attrs)->output_datatype, n;
    const uint32_t set = KILN_T_NUMBER;
    double v[5];
    bool known = true;
    if (dtype <= 0 || dtype >= KILN_DTYPE_COUNT || !(set >> dtype & 1)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "output_datatype = %lld is not supported",
                               (long long)dtype);
    }
    for (int32_t i = 0; i < 5; i++) {
        const double *p;
        KILN_TRY(kiln_infer_dtype(c, i, i < LOW ? KILN_T_INDEX : KILN_T_FLOAT));
        int64_t len = kiln_infer_length(c, i);
        if (kiln_infer_in_rank(c, i) > 1 || (len >= 0 && len != 1)) {
            return KILN_INFER_FAIL(c, SHAPE, "input %d must be a scalar", i);
        }
        KILN_TRY(kiln_infer_floats(c, i, &p, &n));
        known = known && p;
        v[i] = p ? p[0] : 0;
    }
    kiln_dim *out = kiln_infer_dims(c, 0, (kiln_dtype)dtype, 2);
    if (!out) {
        return KILN_E_MEMORY;
    }
    if (known) {
        KILN_TRY(check_values(c, v));
        out[0] = (int64_t)(v[LENGTH] / 2) + 1;
        out[1] = (int64_t)v[BINS];
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    kiln_tensor *y = kiln_ref_out(c, 0);
    double v[5];
    for (int32_t i = 0; i < 5; i++) {
        v[i] = kiln_get_f64(kiln_ref_in(c, i)->dtype, kiln_ref_in(c, i)->data, 0);
    }
    int64_t columns = y->dims[1];
    for (int64_t i = 0; i < columns; i++) {
        int64_t left = (int64_t)bin(v, i), top = (int64_t)bin(v, i + 1),
                right = (int64_t)bin(v, i + 2);
        for (int64_t j = left; j < top; j++) {
            kiln_set_f64(y->dtype, y->data, j * columns + i,
                         (double)(j - left) / (double)(top - left));
        }
        kiln_set_f64(y->dtype, y->data, top * columns + i, 1);
        for (int64_t j = top + 1; j < right; j++) {
            kiln_set_f64(y->dtype, y->data, j * columns + i,
                         (double)(right - j) / (double)(right - top));
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_mel_weight_matrix = {
    .name = "MelWeightMatrix",
    .domain = "",
    .since = 17,
    .min_in = 5,
    .max_in = 5,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, mel_attrs),
    .tolerance = KILN_TOL_ROUND,
    .infer = infer,
    .ref = ref,
};
