/* grid_sample.c - GridSample and AffineGrid: reading an image at points that are data. */
#include <math.h>

#include "ops/index.h"

typedef struct grid_attrs {
    int64_t align_corners;
    int32_t mode, padding_mode; /* GridSample */
} grid_attrs;

enum { LINEAR, NEAREST, CUBIC, BILINEAR, BICUBIC };
enum { ZEROS, BORDER, REFLECTION };
static const char *const mode_words[] = {"linear", "nearest", "cubic", "bilinear", "bicubic", NULL};
static const char *const padding_words[] = {"zeros", "border", "reflection", NULL};

static const kiln_attr sample_table[] = {
    KILN_A_INT(grid_attrs, align_corners, 0),
    KILN_A_ENUM(grid_attrs, mode, mode_words, LINEAR),
    KILN_A_ENUM(grid_attrs, padding_mode, padding_words, ZEROS),
};
static const kiln_attr affine_table[] = {KILN_A_INT(grid_attrs, align_corners, 0)};

enum { MAX_AXES = 3 };

static kiln_status sample_infer(kiln_infer *c) {
    int32_t rank = kiln_infer_in_rank(c, 0);
    KILN_TRY(kiln_infer_rank(c, 0, 3, 2 + MAX_AXES));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_NUMBER | KILN_T(BOOL)));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_FLOAT));
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    if (rank < 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_rank(c, 1, rank, rank));
    kiln_dim n = kiln_infer_dim(c, 0, 0), grids = kiln_infer_dim(c, 1, 0),
             k = kiln_infer_dim(c, 1, -1);
    if (kiln_dim_differ(n, grids) || kiln_dim_differ(k, rank - 2)) {
        return KILN_INFER_FAIL(c, SHAPE,
                               "%lld grids of %lld coordinates for %lld images of %d axes",
                               (long long)grids, (long long)k, (long long)n, rank - 2);
    }
    out[0] = kiln_dim_merge(n, grids);
    out[1] = kiln_infer_dim(c, 0, 1);
    for (int32_t d = 2; d < rank; d++) {
        out[d] = kiln_infer_dim(c, 1, d - 1);
    }
    return KILN_OK;
}

/* v mirrored at lo and hi until it lies between them. */
static double reflect(double v, double lo, double hi) {
    double span = hi - lo;
    if (!(span > 0)) {
        return lo;
    }
    double d = fmod(fabs(v - lo), 2 * span);
    return d > span ? hi - (d - span) : lo + d;
}

/* One axis: its size and the points where padding by reflection turns. */
typedef struct axis {
    int64_t n, stride;
    double lo, hi;
} axis;

/* Where index i of the axis reads, or -1 for zero. */
static int64_t pixel(const axis *x, int32_t padding, double i) {
    if (i >= 0 && i <= (double)(x->n - 1)) {
        return (int64_t)i;
    }
    if (padding == ZEROS) {
        return -1;
    }
    double v = padding == BORDER ? i : reflect(i, x->lo, x->hi);
    return v > 0 ? (v < (double)(x->n - 1) ? (int64_t)v : x->n - 1) : 0;
}

static double cubic(double x) {
    const double a = -0.75;
    x = fabs(x);
    return x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
}

/* Taps of one axis around `at`: positions and weights. Returns their number. */
static int32_t taps(const axis *x, const grid_attrs *a, double at, int64_t *pos, double *w) {
    double low = floor(at);
    int32_t n = a->mode == NEAREST ? 1 : a->mode == LINEAR || a->mode == BILINEAR ? 2 : 4;
    double first = n == 1 ? at : n == 2 ? low : low - 1;
    for (int32_t k = 0; k < n; k++) {
        double p = first + k;
        pos[k] = pixel(x, a->padding_mode, p);
        w[k] = n == 1 ? 1 : n == 2 ? 1 - fabs(p - at) : cubic(p - at);
    }
    return n;
}

/* A coordinate in [-1, 1] as a position on the axis. */
static double locate(const axis *x, const grid_attrs *a, double v) {
    double n = (double)x->n;
    double at = (float)(a->align_corners ? (v + 1) / 2 * (n - 1) : ((v + 1) * n - 1) / 2);
    if (isnan(at)) {
        return x->lo;
    }
    at = a->mode == NEAREST ? rint(at) : at;
    if (at < x->lo || at > x->hi) {
        bool smooth = a->mode == CUBIC || a->mode == BICUBIC; /* its taps are clamped one by one */
        if (a->padding_mode == BORDER && !smooth) {
            return at < 0 ? 0 : fmin(at, n - 1);
        }
        if (a->padding_mode == REFLECTION) {
            return reflect(at, x->lo, x->hi);
        }
    }
    return at;
}

/* The value of a plane at a point: all combinations of the axes' taps. */
static double sample(const kiln_tensor *x, int64_t plane, const axis *axes, int32_t n,
                     int64_t pos[][4], double w[][4], int32_t per_axis) {
    int32_t k[MAX_AXES] = {0};
    double sum = 0;
    for (;;) {
        int64_t at = plane;
        double weight = 1;
        bool inside = true;
        for (int32_t d = 0; d < n; d++) {
            inside = inside && pos[d][k[d]] >= 0;
            at += pos[d][k[d]] * axes[d].stride;
            weight *= w[d][k[d]];
        }
        if (inside) {
            sum += weight * kiln_get_f64(x->dtype, x->data, at);
        }
        int32_t d = n - 1;
        while (d >= 0 && ++k[d] == per_axis) {
            k[d--] = 0;
        }
        if (d < 0) {
            return sum;
        }
    }
}

static kiln_status sample_ref(kiln_ref *c) {
    const grid_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *grid = kiln_ref_in(c, 1);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int32_t n = x->rank - 2, per_axis = 0;
    axis axes[MAX_AXES];
    int64_t channels = x->dims[1], plane = kiln_index_span(x->dims + 2, n), pos[MAX_AXES][4];
    int64_t points = kiln_index_span(y->dims + 2, n), strides[KILN_MAX_RANK];
    double w[MAX_AXES][4];
    kiln_strides(x->dims, x->rank, strides);
    for (int32_t d = 0; d < n; d++) {
        double half = a->align_corners ? 0 : 0.5;
        axes[d] =
            (axis){x->dims[d + 2], strides[d + 2], -half, (double)(x->dims[d + 2] - 1) + half};
    }
    if (plane == 0) {
        return KILN_OK;
    }
    for (int64_t i = 0; i < y->dims[0] * points; i++) {
        KILN_TRY(kiln_ref_poll(c));
        for (int32_t d = 0; d < n; d++) { /* the grid names the innermost axis first */
            double v = kiln_get_f64(grid->dtype, grid->data, i * n + (n - 1 - d));
            per_axis = taps(&axes[d], a, locate(&axes[d], a, v), pos[d], w[d]);
        }
        for (int64_t ch = 0; ch < channels; ch++) {
            int64_t image = i / points * channels + ch;
            double v = sample(x, image * plane, axes, n, pos, w, per_axis);
            kiln_set_f64(y->dtype, y->data, image * points + i % points, v);
        }
    }
    return KILN_OK;
}

static kiln_status affine_infer(kiln_infer *c) {
    int64_t n, len = kiln_infer_length(c, 1);
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_rank(c, 0, 3, 3));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    if (len >= 0 && len != 4 && len != 5) {
        return KILN_INFER_FAIL(c, SHAPE, "size has %lld entries, needs 4 or 5", (long long)len);
    }
    const kiln_dim *size = kiln_infer_contents(c, 1, &n);
    int32_t rank = len < 0 ? KILN_RANK_UNKNOWN : (int32_t)len, axes = rank - 2;
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    if (rank < 0) {
        return KILN_OK;
    }
    if (kiln_dim_differ(kiln_infer_dim(c, 0, 1), axes) ||
        kiln_dim_differ(kiln_infer_dim(c, 0, 2), axes + 1) ||
        (size && kiln_dim_differ(size[0], kiln_infer_dim(c, 0, 0)))) {
        return KILN_INFER_FAIL(c, SHAPE, "theta must be %d matrices of %d x %d",
                               size ? (int)size[0] : -1, axes, axes + 1);
    }
    out[0] = kiln_infer_dim(c, 0, 0);
    for (int32_t d = 0; d < axes; d++) {
        out[d + 1] = size ? size[d + 2] : KILN_DIM_UNKNOWN;
        if (kiln_dim_known(out[d + 1]) && out[d + 1] < 0) {
            return KILN_INFER_FAIL(c, VALUE, "size[%d] = %lld is negative", d + 2,
                                   (long long)out[d + 1]);
        }
    }
    out[rank - 1] = axes;
    return KILN_OK;
}

/* Position i of n as a coordinate in [-1, 1]. */
static double coordinate(int64_t i, int64_t n, bool align) {
    if (align) {
        return n == 1 ? 0 : -1 + 2.0 * (double)i / (double)(n - 1);
    }
    return (2.0 * (double)i + 1) / (double)n - 1;
}

static kiln_status affine_ref(kiln_ref *c) {
    const kiln_tensor *theta = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    bool align = ((const grid_attrs *)c->attrs)->align_corners != 0;
    int32_t n = y->rank - 2;
    int64_t i = 0;
    kiln_walk walk;
    kiln_walk_init(&walk, y->dims, y->rank - 1);
    for (bool more = !kiln_walk_empty(&walk); more; more = kiln_walk_next(&walk)) {
        for (int32_t row = 0; row < n; row++) {
            int64_t at = (walk.idx[0] * n + row) * (n + 1);
            double sum = kiln_get_f64(theta->dtype, theta->data, at + n);
            for (int32_t d = 0; d < n; d++) { /* x, the innermost axis, first */
                double v = coordinate(walk.idx[n - d], y->dims[n - d], align);
                sum += v * kiln_get_f64(theta->dtype, theta->data, at + d);
            }
            kiln_set_f64(y->dtype, y->data, i++, sum);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_grid_sample = {
    .name = "GridSample",
    .domain = "",
    .since = 22,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(sample_table, grid_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = sample_infer,
    .ref = sample_ref,
};

const kiln_op kiln_op_affine_grid = {
    .name = "AffineGrid",
    .domain = "",
    .since = 20,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(affine_table, grid_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = affine_infer,
    .ref = affine_ref,
};
