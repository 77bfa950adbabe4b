/* roi_align.c - RoiAlign: regions of images resampled to one size. */
#include <math.h>

#include "ops/index.h"

typedef struct roi_attrs {
    int32_t coordinate_transformation_mode, mode;
    int64_t output_height, output_width, sampling_ratio;
    float spatial_scale;
} roi_attrs;

enum { HALF_PIXEL, OUTPUT_HALF_PIXEL };
enum { AVG, MAX };
static const char *const coord_words[] = {"half_pixel", "output_half_pixel", NULL};
static const char *const mode_words[] = {"avg", "max", NULL};

static const kiln_attr table[] = {
    KILN_A_ENUM(roi_attrs, coordinate_transformation_mode, coord_words, HALF_PIXEL),
    KILN_A_ENUM(roi_attrs, mode, mode_words, AVG),
    KILN_A_INT(roi_attrs, output_height, 1),
    KILN_A_INT(roi_attrs, output_width, 1),
    KILN_A_INT(roi_attrs, sampling_ratio, 0),
    KILN_A_FLOAT(roi_attrs, spatial_scale, 1.0f),
};

/* Samples per output pixel and axis; more only costs time. */
enum { MAX_SAMPLES = 1 << 14 };

static kiln_status infer(kiln_infer *c) {
    const roi_attrs *a = c->attrs;
    KILN_TRY(kiln_infer_rank(c, 0, 4, 4));
    KILN_TRY(kiln_infer_rank(c, 1, 2, 2));
    KILN_TRY(kiln_infer_rank(c, 2, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    KILN_TRY(kiln_infer_dtype(c, 2, KILN_T(I64)));
    if (a->output_height < 1 || a->output_width < 1 || a->sampling_ratio < 0 ||
        a->sampling_ratio > MAX_SAMPLES || !isfinite(a->spatial_scale)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE,
                               "output %lld x %lld, sampling_ratio %lld, spatial_scale %g",
                               (long long)a->output_height, (long long)a->output_width,
                               (long long)a->sampling_ratio, (double)a->spatial_scale);
    }
    kiln_dim rois = kiln_infer_dim(c, 1, 0), four = kiln_infer_dim(c, 1, 1),
             batches = kiln_infer_dim(c, 2, 0);
    if (kiln_dim_differ(four, 4) || kiln_dim_differ(rois, batches)) {
        return KILN_INFER_FAIL(c, SHAPE, "rois are %lld x %lld with %lld batch indices",
                               (long long)rois, (long long)four, (long long)batches);
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, 4);
    if (!out) {
        return KILN_E_MEMORY;
    }
    out[0] = kiln_dim_merge(rois, batches);
    out[1] = kiln_infer_dim(c, 0, 1);
    out[2] = a->output_height;
    out[3] = a->output_width;
    return KILN_OK;
}

/* One axis of a region: where it begins, the size of an output pixel, samples in each. */
typedef struct span {
    double start, bin;
    int64_t samples, n; /* n: size of the image */
} span;

static kiln_status make_span(kiln_ref *c, double lo, double hi, int64_t bins, int64_t n, span *s) {
    const roi_attrs *a = c->attrs;
    bool half = a->coordinate_transformation_mode == HALF_PIXEL;
    double shift = half ? 0.5 : 0, scale = a->spatial_scale;
    double size = (hi * scale - shift) - (lo * scale - shift);
    size = half ? size : fmax(size, 1);
    *s = (span){lo * scale - shift, size / (double)bins, a->sampling_ratio, n};
    double samples = ceil(size / (double)bins);
    if (!(samples <= MAX_SAMPLES)) {
        return KILN_INFER_FAIL(c, VALUE,
                               "a region from %g to %g needs more than %d samples a pixel", lo, hi,
                               (int)MAX_SAMPLES);
    }
    if (s->samples == 0) {
        s->samples = samples > 0 ? (int64_t)samples : 0;
    }
    return KILN_OK;
}

/* Sample i of pixel p: the two image positions around it and the weight of the second; false
 * outside. */
static bool place(const span *s, int64_t p, int64_t i, int64_t pos[2], double *w) {
    double v = s->start + (double)p * s->bin + ((double)i + 0.5) * s->bin / (double)s->samples;
    if (!(v >= -1 && v <= (double)s->n)) {
        return false;
    }
    v = v > 0 ? v : 0;
    pos[0] = (int64_t)v;
    pos[1] = pos[0] + 1;
    if (pos[0] >= s->n - 1) {
        pos[0] = pos[1] = s->n - 1;
        v = (double)pos[0];
    }
    *w = v - (double)pos[0];
    return true;
}

static double pool(const kiln_tensor *x, int64_t plane, const span *h, const span *w, int64_t ph,
                   int64_t pw, int32_t mode) {
    double sum = 0, most = 0;
    bool first = true;
    for (int64_t iy = 0; iy < h->samples; iy++) {
        for (int64_t ix = 0; ix < w->samples; ix++) {
            int64_t y[2] = {0, 0}, z[2] = {0, 0};
            double wy, wx, v[4] = {0, 0, 0, 0};
            if (place(h, ph, iy, y, &wy) && place(w, pw, ix, z, &wx)) {
                for (int k = 0; k < 4; k++) {
                    double weight = (k / 2 ? wy : 1 - wy) * (k % 2 ? wx : 1 - wx);
                    v[k] = weight *
                           kiln_get_f64(x->dtype, x->data, plane + y[k / 2] * w->n + z[k % 2]);
                }
            }
            double best = fmax(fmax(v[0], v[1]), fmax(v[2], v[3]));
            most = first ? best : fmax(most, best);
            first = false;
            sum += v[0] + v[1] + v[2] + v[3];
        }
    }
    int64_t count = h->samples * w->samples;
    return mode == MAX ? most : sum / (double)(count > 0 ? count : 1);
}

static kiln_status ref(kiln_ref *c) {
    const roi_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *rois = kiln_ref_in(c, 1),
                      *batches = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t channels = x->dims[1], height = x->dims[2], width = x->dims[3], to = 0, b = 0;
    if (kiln_tensor_count(y) > 0 && height * width == 0) {
        return KILN_INFER_FAIL(c, SHAPE, "regions of an empty image");
    }
    for (int64_t r = 0; r < y->dims[0]; r++) {
        double box[4];
        span h, w;
        for (int k = 0; k < 4; k++) {
            box[k] = kiln_get_f64(rois->dtype, rois->data, r * 4 + k);
        }
        KILN_TRY(kiln_index_in(c->diag, ((const int64_t *)batches->data)[r], x->dims[0], &b));
        KILN_TRY(make_span(c, box[1], box[3], a->output_height, height, &h));
        KILN_TRY(make_span(c, box[0], box[2], a->output_width, width, &w));
        for (int64_t ch = 0; ch < channels; ch++) {
            int64_t plane = (b * channels + ch) * height * width;
            KILN_TRY(kiln_ref_poll(c));
            for (int64_t p = 0; p < a->output_height * a->output_width; p++) {
                double v =
                    pool(x, plane, &h, &w, p / a->output_width, p % a->output_width, a->mode);
                kiln_set_f64(y->dtype, y->data, to++, v);
            }
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_roi_align = {
    .name = "RoiAlign",
    .domain = "",
    .since = 22,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, roi_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
