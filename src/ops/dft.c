/* dft.c - DFT and STFT: Fourier transforms along an axis, and of windows sliding over a signal. */
#include "ops/fourier.h"
#include "ops/index.h"

typedef struct dft_attrs {
    int64_t inverse, onesided;
} dft_attrs;

static const kiln_attr dft_table[] = {
    KILN_A_INT(dft_attrs, inverse, 0),
    KILN_A_INT(dft_attrs, onesided, 0),
};
static const kiln_attr stft_table[] = {KILN_A_INT(dft_attrs, onesided, 1)};

static const int64_t max_length = INT64_C(1) << 40;

/* The value of a scalar input as a dim, `absent` when left out. */
static kiln_status scalar(kiln_infer *c, int32_t i, kiln_dim absent, kiln_dim *out) {
    int64_t n, len = kiln_infer_length(c, i);
    *out = absent;
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_dtype(c, i, KILN_T_INDEX));
    if (kiln_infer_in_rank(c, i) > 1 || (len >= 0 && len != 1)) {
        return KILN_INFER_FAIL(c, SHAPE, "input %d must be a scalar", i);
    }
    const kiln_dim *v = kiln_infer_contents(c, i, &n);
    *out = v && n == 1 ? v[0] : KILN_DIM_UNKNOWN;
    return KILN_OK;
}

static kiln_dim half_spectrum(kiln_infer *c, kiln_dim n) {
    return kiln_dim_add(c->dims, kiln_dim_div(c->dims, n, 2), 1);
}

static kiln_status check_length(const kiln_infer *c, kiln_dim n, const char *what) {
    if (kiln_dim_known(n) && (n < 1 || n > max_length)) {
        return KILN_INFER_FAIL(c, VALUE, "%s = %lld is out of range", what, (long long)n);
    }
    return KILN_OK;
}

static kiln_status dft_infer(kiln_infer *c) {
    const dft_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0), axis = 0;
    bool real_out = a->inverse && a->onesided;
    kiln_dim length, where, parts = kiln_infer_dim(c, 0, -1);
    KILN_TRY(kiln_infer_rank(c, 0, 2, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(scalar(c, 2, -2, &where));
    if (kiln_dim_known(parts) &&
        (parts < 1 || parts > 2 || (a->onesided && parts != 1 + real_out))) {
        return KILN_INFER_FAIL(c, SHAPE, "the last dim is %lld", (long long)parts);
    }
    bool known = rank >= 0 && kiln_dim_known(where);
    if (known) {
        KILN_TRY(kiln_infer_axis(c, where, rank, "axis", &axis));
        if (axis == rank - 1) {
            return KILN_INFER_FAIL(c, VALUE, "axis = %lld is the last one, of complex numbers",
                                   (long long)where);
        }
    }
    kiln_dim n = known ? kiln_infer_dim(c, 0, axis) : KILN_DIM_UNKNOWN;
    kiln_dim whole = real_out ? kiln_dim_mul(c->dims, kiln_dim_sub(c->dims, n, 1), 2) : n;
    KILN_TRY(scalar(c, 1, whole, &length));
    KILN_TRY(check_length(c, length, "dft_length"));
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < rank; d++) {
        out[d] = !known ? KILN_DIM_UNKNOWN : c->in[0].type.dims[d];
    }
    if (rank >= 0) {
        out[rank - 1] = real_out ? 1 : 2;
    }
    if (known) {
        out[axis] = a->onesided && !a->inverse ? half_spectrum(c, length) : length;
    }
    return KILN_OK;
}

/* One row of the transform: reads `have` numbers of `parts` values each. */
typedef struct row {
    const kiln_tensor *x;
    int64_t parts, have, stride; /* stride between numbers, in numbers */
} row;

static void load(const row *r, int64_t at, int64_t length, double *z) {
    for (int64_t k = 0; k < length; k++) {
        int64_t i = (at + k * r->stride) * r->parts;
        z[2 * k] = k < r->have ? kiln_get_f64(r->x->dtype, r->x->data, i) : 0;
        z[2 * k + 1] =
            k < r->have && r->parts == 2 ? kiln_get_f64(r->x->dtype, r->x->data, i + 1) : 0;
    }
}

/* Half a spectrum becomes whole: the upper half mirrors the lower, conjugated. As numpy's irfft,
 * the imaginary parts of the first number and of the middle one of an even length are ignored. */
static void mirror(double *z, int64_t have, int64_t n) {
    z[1] = 0;
    for (int64_t k = 1; k <= n / 2; k++) {
        bool there = k < have;
        double re = there ? z[2 * k] : 0, im = there && 2 * k != n ? z[2 * k + 1] : 0;
        z[2 * k] = re;
        z[2 * k + 1] = im;
        z[2 * (n - k)] = re;
        z[2 * (n - k) + 1] = 2 * k == n ? 0 : -im;
    }
}

static kiln_status dft_ref(kiln_ref *c) {
    const dft_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *given = kiln_ref_in(c, 1),
                      *where = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t axis = where ? kiln_get_i64(where->dtype, where->data, 0) : -2;
    axis = axis < 0 ? axis + x->rank : axis;
    bool real_out = a->inverse && a->onesided;
    int64_t n = x->dims[axis], whole = real_out ? 2 * (n - 1) : n;
    int64_t length = given ? kiln_get_i64(given->dtype, given->data, 0) : whole;
    int64_t inner = kiln_index_span(x->dims + axis + 1, x->rank - 2 - (int32_t)axis);
    int64_t rows = kiln_index_span(x->dims, (int32_t)axis) * inner, parts = y->dims[y->rank - 1];
    row r = {x, x->dims[x->rank - 1], n < length ? n : length, inner};
    double *z, scale = a->inverse ? 1.0 / (double)length : 1.0;
    KILN_ALLOC(z, c->arena, 2 * length);
    for (int64_t i = 0; i < rows; i++) {
        KILN_TRY(kiln_ref_poll(c));
        load(&r, i / inner * n * inner + i % inner, length, z);
        if (real_out) {
            mirror(z, r.have, length);
        }
        KILN_TRY(kiln_fourier(z, length, a->inverse != 0, c->arena));
        for (int64_t k = 0; k < y->dims[axis]; k++) {
            int64_t to = (i / inner * y->dims[axis] + k) * inner + i % inner;
            for (int64_t p = 0; p < parts; p++) {
                kiln_set_f64(y->dtype, y->data, to * parts + p, z[2 * k + p] * scale);
            }
        }
    }
    return KILN_OK;
}

/* Frame length from input 3, the window or the signal. */
static kiln_status frame_length(kiln_infer *c, kiln_dim *length) {
    kiln_dim window = kiln_infer_has(c, 2) ? kiln_infer_dim(c, 2, 0) : KILN_DIM_UNKNOWN;
    kiln_dim otherwise = kiln_infer_has(c, 2) ? window : kiln_infer_dim(c, 0, 1);
    KILN_TRY(scalar(c, 3, otherwise, length));
    KILN_TRY(check_length(c, *length, "frame_length"));
    if (kiln_infer_has(c, 2) && kiln_dim_differ(window, *length)) {
        return KILN_INFER_FAIL(c, SHAPE, "the window has %lld entries for frames of %lld",
                               (long long)window, (long long)*length);
    }
    return KILN_OK;
}

static kiln_status stft_infer(kiln_infer *c) {
    const dft_attrs *a = c->attrs;
    kiln_dim step, length, parts = kiln_infer_dim(c, 0, 2), n = kiln_infer_dim(c, 0, 1);
    KILN_TRY(kiln_infer_rank(c, 0, 2, 3));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(kiln_infer_rank(c, 2, 1, 1));
    KILN_TRY(scalar(c, 1, KILN_DIM_UNKNOWN, &step));
    KILN_TRY(check_length(c, step, "frame_step"));
    KILN_TRY(frame_length(c, &length));
    if (kiln_dim_known(parts) && (parts < 1 || parts > 2 || (a->onesided && parts != 1))) {
        return KILN_INFER_FAIL(c, SHAPE, "the last dim is %lld", (long long)parts);
    }
    if (kiln_dim_known(n) && kiln_dim_known(length) && length > n) {
        return KILN_INFER_FAIL(c, SHAPE, "frames of %lld do not fit a signal of %lld",
                               (long long)length, (long long)n);
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, 4);
    if (!out) {
        return KILN_E_MEMORY;
    }
    out[0] = kiln_infer_dim(c, 0, 0);
    out[1] =
        kiln_dim_add(c->dims, kiln_dim_div(c->dims, kiln_dim_sub(c->dims, n, length), step), 1);
    out[2] = a->onesided ? half_spectrum(c, length) : length;
    out[3] = 2;
    return KILN_OK;
}

static kiln_status stft_ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *hop = kiln_ref_in(c, 1), *window = kiln_ref_in(c, 2);
    const kiln_tensor *given = kiln_ref_in(c, 3);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t n = x->dims[1], step = kiln_get_i64(hop->dtype, hop->data, 0), bins = y->dims[2];
    int64_t length = given    ? kiln_get_i64(given->dtype, given->data, 0)
                     : window ? window->dims[0]
                              : n;
    row r = {x, x->rank == 3 ? x->dims[2] : 1, length, 1};
    double *z;
    KILN_ALLOC(z, c->arena, 2 * length);
    for (int64_t i = 0; i < y->dims[0] * y->dims[1]; i++) {
        KILN_TRY(kiln_ref_poll(c));
        load(&r, i / y->dims[1] * n + i % y->dims[1] * step, length, z);
        for (int64_t k = 0; window && k < 2 * length; k++) {
            z[k] *= kiln_get_f64(window->dtype, window->data, k / 2);
        }
        KILN_TRY(kiln_fourier(z, length, false, c->arena));
        for (int64_t k = 0; k < 2 * bins; k++) {
            kiln_set_f64(y->dtype, y->data, i * 2 * bins + k, z[k]);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_dft = {
    .name = "DFT",
    .domain = "",
    .since = 20,
    .min_in = 1,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(dft_table, dft_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = dft_infer,
    .ref = dft_ref,
};

const kiln_op kiln_op_stft = {
    .name = "STFT",
    .domain = "",
    .since = 17,
    .min_in = 2,
    .max_in = 4,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(stft_table, dft_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = stft_infer,
    .ref = stft_ref,
};
