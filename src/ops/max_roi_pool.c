/* max_roi_pool.c - MaxRoiPool: each region of an image, cut into a fixed grid, the maximum of each
 * cell (Girshick, Fast R-CNN, 2015). Rois are [image, x1, y1, x2, y2] per row. */
#include <math.h>

#include "ops/util.h"

typedef struct max_roi_pool_attrs {
    kiln_ints pooled_shape;
    float spatial_scale;
} max_roi_pool_attrs;

static const kiln_attr table[] = {
    KILN_A_INTS_REQUIRED(max_roi_pool_attrs, pooled_shape),
    KILN_A_FLOAT(max_roi_pool_attrs, spatial_scale, 1.0f),
};

static kiln_status infer(kiln_infer *c) {
    const max_roi_pool_attrs *a = c->attrs;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    KILN_TRY(kiln_infer_rank(c, 0, 4, 4));
    KILN_TRY(kiln_infer_rank(c, 1, 2, 2));
    if (kiln_dim_differ(kiln_infer_dim(c, 1, 1), 5)) {
        return KILN_INFER_FAIL(c, SHAPE, "a roi has %lld numbers, it needs 5",
                               (long long)kiln_infer_dim(c, 1, 1));
    }
    if (a->pooled_shape.n != 2 || a->pooled_shape.v[0] < 1 || a->pooled_shape.v[1] < 1 ||
        a->pooled_shape.v[0] > INT32_MAX || a->pooled_shape.v[1] > INT32_MAX) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "pooled_shape must be two positive numbers");
    }
    kiln_dim *dims = kiln_infer_dims(c, 0, c->in[0].type.dtype, 4);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    dims[0] = kiln_infer_dim(c, 1, 0);
    dims[1] = kiln_infer_dim(c, 0, 1);
    dims[2] = a->pooled_shape.v[0];
    dims[3] = a->pooled_shape.v[1];
    return KILN_OK;
}

static int64_t clamp(double v, int64_t most) {
    return v > 0 ? v < (double)most ? (int64_t)v : most : 0;
}

/* Cell `cell` of `cells` between the rounded coordinates first and last, cut to [0, size). */
static void cell_range(double first, double last, int64_t cell, int64_t cells, int64_t size,
                       int64_t *lo, int64_t *hi) {
    double bin = fmax(last - first + 1, 1) / (double)cells;
    *lo = clamp(floor((double)cell * bin) + first, size);
    *hi = clamp(ceil((double)(cell + 1) * bin) + first, size);
}

static double cell_max(const kiln_tensor *x, int64_t plane, const int64_t *rows,
                       const int64_t *cols) {
    bool empty = rows[0] >= rows[1] || cols[0] >= cols[1];
    double best = empty ? 0 : -INFINITY;
    for (int64_t r = rows[0]; r < rows[1]; r++) {
        for (int64_t k = cols[0]; k < cols[1]; k++) {
            int64_t at = (plane * x->dims[2] + r) * x->dims[3] + k;
            best = fmax(best, kiln_get_f64(x->dtype, x->data, at));
        }
    }
    return best;
}

static kiln_status ref(kiln_ref *c) {
    const max_roi_pool_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *rois = kiln_ref_in(c, 1);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t n = kiln_tensor_count(y);
    for (int64_t i = 0; i < n; i++) {
        int64_t pw = i % y->dims[3], ph = i / y->dims[3] % y->dims[2];
        int64_t ch = i / (y->dims[3] * y->dims[2]) % y->dims[1];
        int64_t roi = i / (y->dims[3] * y->dims[2] * y->dims[1]);
        double box[5];
        for (int32_t k = 0; k < 5; k++) {
            double v = kiln_get_f64(rois->dtype, rois->data, roi * 5 + k);
            box[k] = k ? round(v * a->spatial_scale) : v;
        }
        if (!(box[0] >= 0 && box[0] < (double)x->dims[0])) {
            return KILN_INFER_FAIL(c, INDEX, "roi %lld names image %g of %lld", (long long)roi,
                                   box[0], (long long)x->dims[0]);
        }
        KILN_TRY(kiln_ref_poll(c));
        int64_t rows[2], cols[2], plane = (int64_t)box[0] * x->dims[1] + ch;
        cell_range(box[2], box[4], ph, y->dims[2], x->dims[2], &rows[0], &rows[1]);
        cell_range(box[1], box[3], pw, y->dims[3], x->dims[3], &cols[0], &cols[1]);
        kiln_set_f64(y->dtype, y->data, i, cell_max(x, plane, rows, cols));
    }
    return KILN_OK;
}

const kiln_op kiln_op_max_roi_pool = {
    .name = "MaxRoiPool",
    .domain = "",
    .since = 22,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, max_roi_pool_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
