/* resize.c - Resize: separable interpolation, one axis after the other.
 *
 * For each output position of an axis a table gives the first input position and the weights of
 * those it is made of; nearest has one, so that it moves elements of any type.
 */
#include <math.h>
#include <string.h>

#include "ops/attrs.h"
#include "ops/bulk.h"
#include "ops/index.h"
#include "ops/move.h"

enum { NEAREST, LINEAR, CUBIC };
enum { STRETCH, NOT_LARGER, NOT_SMALLER };
enum { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL };
enum { X, ROI, SCALES, SIZES };

static const char *const mode_words[] = {"nearest", "linear", "cubic", NULL};
static const char *const policy_words[] = {"stretch", "not_larger", "not_smaller", NULL};
static const char *const nearest_words[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                            "ceil", NULL};
static const char *const coord_words[] = {"half_pixel",
                                          "half_pixel_symmetric",
                                          "pytorch_half_pixel",
                                          "align_corners",
                                          "asymmetric",
                                          "tf_crop_and_resize",
                                          NULL};

static const kiln_attr table[] = {
    KILN_A_INT(kiln_resize_attrs, antialias, 0),
    KILN_A_INTS(kiln_resize_attrs, axes),
    KILN_A_ENUM(kiln_resize_attrs, coordinate_transformation_mode, coord_words,
                KILN_RESIZE_HALF_PIXEL),
    KILN_A_FLOAT(kiln_resize_attrs, cubic_coeff_a, -0.75f),
    KILN_A_INT(kiln_resize_attrs, exclude_outside, 0),
    KILN_A_FLOAT(kiln_resize_attrs, extrapolation_value, 0.0f),
    KILN_A_ENUM(kiln_resize_attrs, keep_aspect_ratio_policy, policy_words, STRETCH),
    KILN_A_ENUM(kiln_resize_attrs, mode, mode_words, NEAREST),
    KILN_A_ENUM(kiln_resize_attrs, nearest_mode, nearest_words, PREFER_FLOOR),
};

/* ---- Inference ---- */

/* An input that is there and not known to be empty. */
static bool given(const kiln_infer *c, int32_t i) {
    return kiln_infer_has(c, i) && kiln_infer_length(c, i) != 0;
}

/* floor(n * scale), the product rounded to float as the scale is. */
static kiln_status scaled(kiln_infer *c, kiln_dim n, double scale, kiln_dim *out) {
    if (!(scale > 0) || scale > 1e30) {
        return KILN_INFER_FAIL(c, VALUE, "a scale of %g", scale);
    }
    double inverse = 1 / scale;
    *out = KILN_DIM_UNKNOWN;
    if (kiln_dim_known(n)) {
        double size = (float)(scale * (double)n);
        if (size >= 0x1p48) {
            return KILN_INFER_FAIL(c, OVERFLOW, "a dim of %lld scaled by %g is too large",
                                   (long long)n, scale);
        }
        *out = (int64_t)size;
    } else if (scale == floor(scale) && scale < 0x1p31) {
        *out = kiln_dim_mul(c->dims, n, (int64_t)scale);
    } else if (inverse == floor(inverse) && inverse < 0x1p31) {
        *out = kiln_dim_div(c->dims, n, (int64_t)inverse);
    }
    return KILN_OK;
}

/* With a policy, one scale for all axes decides: the smallest or largest. */
static kiln_status keep_ratio(kiln_infer *c, int32_t policy, const int32_t *axes, int32_t n,
                              kiln_dim *out) {
    double best = 0;
    for (int32_t i = 0; i < n; i++) {
        kiln_dim dim = c->in[X].type.dims[axes[i]];
        if (!kiln_dim_known(dim) || !kiln_dim_known(out[axes[i]]) || dim == 0) {
            for (int32_t k = 0; k < n; k++) {
                out[axes[k]] = KILN_DIM_UNKNOWN;
            }
            return KILN_OK;
        }
        double scale = (double)out[axes[i]] / (double)dim;
        best = i == 0 || (policy == NOT_LARGER ? scale < best : scale > best) ? scale : best;
    }
    for (int32_t i = 0; i < n; i++) {
        double size = floor(best * (double)c->in[X].type.dims[axes[i]] + 0.5);
        if (size >= 0x1p48) {
            return KILN_INFER_FAIL(c, OVERFLOW, "axis %d would be resized to %g", axes[i], size);
        }
        out[axes[i]] = (int64_t)size;
    }
    return KILN_OK;
}

static kiln_status check_roi(kiln_infer *c, int32_t n) {
    const kiln_resize_attrs *a = c->attrs;
    int64_t len = kiln_infer_length(c, ROI);
    if (a->coordinate_transformation_mode != KILN_RESIZE_TF_CROP) {
        return KILN_OK;
    }
    if (!kiln_infer_has(c, ROI) || (len >= 0 && len != 2 * n)) {
        return KILN_INFER_FAIL(c, SHAPE, "roi has %lld entries, needs %d",
                               (long long)(kiln_infer_has(c, ROI) ? len : 0), 2 * n);
    }
    return kiln_infer_dtype(c, ROI, KILN_T_FLOAT);
}

static kiln_status output_dims(kiln_infer *c, const int32_t *axes, int32_t n, kiln_dim *out) {
    const kiln_resize_attrs *a = c->attrs;
    const double *scales;
    int64_t len, which = given(c, SIZES) ? SIZES : SCALES;
    KILN_TRY(kiln_infer_floats(c, SCALES, &scales, &len));
    const kiln_dim *sizes = kiln_infer_contents(c, SIZES, &len);
    len = kiln_infer_length(c, (int32_t)which);
    if (len >= 0 && len != n) {
        return KILN_INFER_FAIL(c, SHAPE, "%s has %lld entries for %d axes",
                               which == SIZES ? "sizes" : "scales", (long long)len, n);
    }
    for (int32_t i = 0; i < n; i++) {
        kiln_dim dim = c->in[X].type.dims[axes[i]], *to = &out[axes[i]];
        *to = which == SIZES && sizes ? sizes[i] : KILN_DIM_UNKNOWN;
        if (which == SCALES && scales) {
            KILN_TRY(scaled(c, dim, scales[i], to));
        }
        if (kiln_dim_known(*to) && (*to < 0 || (*to > 0 && dim == 0))) {
            return KILN_INFER_FAIL(c, SHAPE, "axis %d of size %lld cannot be resized to %lld",
                                   axes[i], (long long)dim, (long long)*to);
        }
    }
    return which == SIZES && a->keep_aspect_ratio_policy != STRETCH
               ? keep_ratio(c, a->keep_aspect_ratio_policy, axes, n, out)
               : KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const kiln_resize_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, X), axes[KILN_MAX_RANK];
    bool seen[KILN_MAX_RANK] = {false};
    KILN_TRY(kiln_infer_rank(c, X, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, SCALES, KILN_T(F32)));
    KILN_TRY(kiln_infer_dtype(c, SIZES, KILN_T(I64)));
    if (a->mode != NEAREST) {
        KILN_TRY(kiln_infer_dtype(c, X, KILN_T_NUMBER));
    }
    if (a->mode == NEAREST && a->antialias) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "mode \"nearest\" has no antialias");
    }
    bool open = kiln_infer_length(c, SCALES) < 0 && kiln_infer_length(c, SIZES) < 0;
    if (given(c, SCALES) == given(c, SIZES) &&
        !(open && kiln_infer_has(c, SCALES) && kiln_infer_has(c, SIZES))) {
        return KILN_INFER_FAIL(c, ARITY, "one of scales and sizes must be given");
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[X].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    if (rank < 0) {
        return KILN_OK;
    }
    int32_t n = a->axes.v ? (int32_t)(a->axes.n < KILN_MAX_RANK ? a->axes.n : KILN_MAX_RANK) : rank;
    for (int32_t d = 0; d < rank; d++) {
        out[d] = c->in[X].type.dims[d];
    }
    for (int32_t i = 0; i < n; i++) {
        KILN_TRY(kiln_infer_axis(c, a->axes.v ? a->axes.v[i] : i, rank, "axes", &axes[i]));
        if (seen[axes[i]]) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "axes names axis %d twice", axes[i]);
        }
        seen[axes[i]] = true;
    }
    KILN_TRY(check_roi(c, n));
    return output_dims(c, axes, n, out);
}

/* ---- Reference ---- */

/* How one axis is resized. A length l of the input corresponds to l * up / down of the output. */
typedef struct axis {
    int32_t at;
    int64_t n, out;
    double up, down;
    double from, to; /* region of interest */
} axis;

static double source(const kiln_resize_attrs *a, const axis *x, double i) {
    double n = (double)x->n,
           size = n * x->up / x->down; /* of the whole output, perhaps no integer */
    double half = (i + 0.5) * x->down / x->up - 0.5;
    switch (a->coordinate_transformation_mode) {
    case KILN_RESIZE_ALIGN_CORNERS:
        return size == 1 ? 0 : i * (n - 1) / (size - 1);
    case KILN_RESIZE_ASYMMETRIC:
        return i * x->down / x->up;
    case KILN_RESIZE_TF_CROP: {
        double span = (x->to - x->from) * (n - 1);
        return x->from * (n - 1) + (size == 1 ? span / 2 : i * span / (size - 1));
    }
    case KILN_RESIZE_PYTORCH_HALF_PIXEL:
        return x->out == 1 ? 0 : half;
    case KILN_RESIZE_HALF_PIXEL_SYMMETRIC:
        /* Centre on centre, whatever part of a pixel the output lacks. */
        return (i + 0.5 - (double)x->out / 2) * x->down / x->up + n / 2 - 0.5;
    default:
        return half;
    }
}

static bool outside(const kiln_resize_attrs *a, const axis *x, double at) {
    return a->coordinate_transformation_mode == KILN_RESIZE_TF_CROP &&
           !(at >= 0 && at <= (double)(x->n - 1));
}

static int64_t clamp(double v, int64_t n) {
    return v > 0 ? (v < (double)(n - 1) ? (int64_t)v : n - 1) : 0;
}

static int64_t nearest(const kiln_resize_attrs *a, const axis *x, double at) {
    double low = floor(at), ratio = at - low;
    bool up = a->nearest_mode == PREFER_FLOOR  ? ratio > 0.5
              : a->nearest_mode == PREFER_CEIL ? ratio >= 0.5
                                               : a->nearest_mode == CEIL && ratio > 0;
    return clamp(low + up, x->n);
}

static double cubic(double a, double x) {
    x = fabs(x);
    if (x <= 1) {
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    }
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Weights of n_taps inputs around `at`, the first of which is *first. Antialias widens the filter
 * by the factor by which the axis shrinks. */
static void weigh(const kiln_resize_attrs *a, const axis *x, double at, int64_t n_taps, double *w,
                  double *first) {
    double shrink = a->antialias ? fmin(x->up / x->down, 1) : 1, low = floor(at), sum = 0;
    *first = at == low ? low - (double)(n_taps / 2) : low - (double)(n_taps / 2) + 1;
    for (int64_t k = 0; k < n_taps; k++) {
        double p = *first + (double)k, d = (p - at) * shrink;
        w[k] = a->mode == CUBIC ? cubic(a->cubic_coeff_a, d) : fmax(1 - fabs(d), 0);
        if (a->exclude_outside && (p < 0 || p > (double)(x->n - 1))) {
            w[k] = 0;
        }
        sum += w[k];
    }
    for (int64_t k = 0; k < n_taps && (a->exclude_outside || a->antialias) && sum != 0; k++) {
        w[k] /= sum;
    }
}

static int64_t count_taps(const kiln_resize_attrs *a, const axis *x) {
    double shrink = a->antialias ? fmin(x->up / x->down, 1) : 1;
    return 2 - 2 * (int64_t)(floor((a->mode == CUBIC ? -2 : -1) / shrink) + 1);
}

/* One axis of `dims` from src to dst, its size changing from x->n to x->out. */
static kiln_status resize_axis(kiln_ref *c, const axis *x, const int64_t *dims, int32_t rank,
                               const double *src, double *dst) {
    const kiln_resize_attrs *a = c->attrs;
    int64_t outer = kiln_index_span(dims, x->at), taps = count_taps(a, x);
    int64_t inner = kiln_index_span(dims + x->at + 1, rank - x->at - 1);
    double *w, first;
    KILN_ALLOC(w, c->arena, taps);
    for (int64_t i = 0; i < x->out; i++) {
        double at = source(a, x, (double)i);
        bool fill = outside(a, x, at);
        KILN_TRY(kiln_ref_poll(c));
        weigh(a, x, at, taps, w, &first);
        for (int64_t o = 0; o < outer; o++) {
            double *to = dst + (o * x->out + i) * inner;
            for (int64_t j = 0; j < inner; j++) {
                to[j] = fill ? a->extrapolation_value : 0;
            }
            for (int64_t k = 0; k < taps && !fill; k++) {
                const double *from = src + (o * x->n + clamp(first + (double)k, x->n)) * inner;
                for (int64_t j = 0; j < inner && w[k] != 0; j++) {
                    to[j] += w[k] * from[j];
                }
            }
        }
    }
    return KILN_OK;
}

static kiln_status resize_nearest(kiln_ref *c, const axis *axes, int32_t n) {
    const kiln_resize_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, X);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t strides[KILN_MAX_RANK], **map;
    uint64_t fill[2] = {0, 0};
    if (kiln_dtype_is_float(x->dtype) || kiln_dtype_is_int(x->dtype)) {
        kiln_set_f64(x->dtype, fill, 0, a->extrapolation_value);
    }
    kiln_strides(x->dims, x->rank, strides);
    KILN_TRY(kiln_move_map(c->arena, y->rank, y->dims, &map));
    for (int32_t d = 0; d < y->rank; d++) {
        for (int64_t i = 0; i < y->dims[d]; i++) {
            map[d][i] = i * strides[d];
        }
    }
    for (int32_t k = 0; k < n; k++) {
        int32_t d = axes[k].at;
        for (int64_t i = 0; i < y->dims[d]; i++) {
            double at = source(a, &axes[k], (double)i);
            map[d][i] = outside(a, &axes[k], at) ? -1 : nearest(a, &axes[k], at) * strides[d];
        }
    }
    kiln_move_mapped(y->dtype, y->rank, y->dims, y->data, x->data, map, fill);
    return KILN_OK;
}

static double load_at(const kiln_tensor *t, int64_t i) {
    return kiln_get_f64(t->dtype, t->data, i);
}

static int32_t axis_at(const kiln_resize_attrs *a, int32_t i, int32_t rank) {
    int64_t d = a->axes.v ? a->axes.v[i] : i;
    return (int32_t)(d < 0 ? d + rank : d);
}

/* The one scale of n axes under a policy, by sizes; 0: each has its own. */
static double common_scale(const kiln_resize_attrs *a, const kiln_tensor *x,
                           const kiln_tensor *sizes, int32_t n) {
    double ratio = 0;
    for (int32_t i = 0; i < n && a->keep_aspect_ratio_policy != STRETCH; i++) {
        double s = load_at(sizes, i) / (double)x->dims[axis_at(a, i, x->rank)];
        bool taken = a->keep_aspect_ratio_policy == NOT_LARGER ? s < ratio : s > ratio;
        ratio = i == 0 || taken ? s : ratio;
    }
    return ratio;
}

/* The axes that change, with their scales. Returns how many. */
static int32_t read_axes(kiln_ref *c, axis *axes) {
    const kiln_resize_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, X), *roi = kiln_ref_in(c, ROI),
                      *scales = kiln_ref_in(c, SCALES);
    const kiln_tensor *y = kiln_ref_out(c, 0), *sizes = kiln_ref_in(c, SIZES);
    int32_t n = a->axes.v ? (int32_t)a->axes.n : x->rank, kept = 0;
    bool crop = a->coordinate_transformation_mode == KILN_RESIZE_TF_CROP;
    bool by_size = sizes && kiln_tensor_count(sizes) > 0;
    double ratio = by_size ? common_scale(a, x, sizes, n) : 0;
    for (int32_t i = 0; i < n; i++) {
        axis k = {.at = axis_at(a, i, x->rank), .down = 1, .to = 1};
        k.n = x->dims[k.at];
        k.out = y->dims[k.at];
        k.up = by_size ? ratio : load_at(scales, i);
        if (by_size && ratio == 0) {
            k.up = (double)k.out;
            k.down = (double)k.n;
        }
        if (crop) {
            k.from = load_at(roi, i);
            k.to = load_at(roi, n + i);
        }
        if (k.n != k.out || k.up != k.down || k.from != 0 || k.to != 1) {
            axes[kept++] = k;
        }
    }
    return kept;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_resize_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, X);
    kiln_tensor *y = kiln_ref_out(c, 0);
    axis axes[KILN_MAX_RANK];
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    int32_t n = read_axes(c, axes);
    if (a->mode == NEAREST) {
        return resize_nearest(c, axes, n);
    }
    double *from, *to;
    int64_t dims[KILN_MAX_RANK];
    KILN_TRY(kiln_ref_doubles(c, x, &from));
    memcpy(dims, x->dims, sizeof dims);
    for (int32_t i = 0; i < n; i++) {
        dims[axes[i].at] = axes[i].out;
        KILN_ALLOC(to, c->arena, kiln_index_span(dims, x->rank));
        KILN_TRY(resize_axis(c, &axes[i], dims, x->rank, from, to));
        from = to;
    }
    bool whole = !kiln_dtype_is_float(y->dtype);
    for (int64_t i = 0, count = kiln_tensor_count(y); i < count && whole; i++) {
        double lo =
            kiln_dtype_is_signed_int(y->dtype) ? -ldexp(1, kiln_dtype_bits(y->dtype) - 1) : 0;
        double hi = ldexp(1, kiln_dtype_bits(y->dtype) - kiln_dtype_is_signed_int(y->dtype)) - 1;
        from[i] = fmin(fmax(nearbyint(from[i]), lo), hi);
    }
    kiln_store_f64(y, 0, kiln_tensor_count(y), from);
    return KILN_OK;
}

const kiln_op kiln_op_resize = {
    .name = "Resize",
    .domain = "",
    .since = 19,
    .min_in = 1,
    .max_in = 4,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_resize_attrs),
    .tolerance = KILN_TOL_ROUND,
    .infer = infer,
    .ref = ref,
};
