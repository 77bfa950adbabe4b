/* deform_conv.c - DeformConv in 2-D: each tap reads at a position moved by an offset of its own,
 * interpolated between the four pixels around (pixels outside count 0), and scaled by a mask.
 *
 * Legend: X [N, C, H, W], weight [M, C/G, kH, kW], offset [N, D * kH * kW * 2, oH, oW] (D offset
 * groups; row then column), mask [N, D * kH * kW, oH, oW]. */
#include <math.h>

#include "ops/bulk.h"
#include "ops/conv_core.h"

static const kiln_attr table[] = {
    KILN_A_INTS(kiln_deform_conv_attrs, dilations),
    KILN_A_INT(kiln_deform_conv_attrs, group, 1),
    KILN_A_INTS(kiln_deform_conv_attrs, kernel_shape),
    KILN_A_INT(kiln_deform_conv_attrs, offset_group, 1),
    KILN_A_INTS(kiln_deform_conv_attrs, pads),
    KILN_A_INTS(kiln_deform_conv_attrs, strides),
};

enum { X, WEIGHT, OFFSET, BIAS, MASK };

static kiln_status read_window(kiln_window *w, const kiln_deform_conv_attrs *a,
                               const int64_t *kernel, kiln_diag *diag) {
    const kiln_window_attrs attrs = {
        .dilations = a->dilations, .pads = a->pads, .strides = a->strides};
    return kiln_window_read(w, diag, 2, &attrs, kernel);
}

static kiln_status check_groups(const kiln_infer *c) {
    const kiln_deform_conv_attrs *a = c->attrs;
    kiln_dim channels = kiln_infer_dim(c, X, 1), outputs = kiln_infer_dim(c, WEIGHT, 0);
    kiln_dim per_group = kiln_infer_dim(c, WEIGHT, 1);
    if (a->group < 1 || a->group > INT32_MAX || a->offset_group < 1 ||
        a->offset_group > INT32_MAX) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "group is %lld, offset_group is %lld",
                               (long long)a->group, (long long)a->offset_group);
    }
    if (kiln_dim_known(channels) && (channels % a->group != 0 || channels % a->offset_group != 0 ||
                                     kiln_dim_differ(per_group, channels / a->group))) {
        return KILN_INFER_FAIL(c, SHAPE,
                               "%lld channels do not fit %lld groups, %lld offset groups and a "
                               "weight of %lld channels",
                               (long long)channels, (long long)a->group, (long long)a->offset_group,
                               (long long)per_group);
    }
    if (kiln_dim_known(outputs) && outputs % a->group != 0) {
        return KILN_INFER_FAIL(c, SHAPE, "%lld output channels do not divide into %lld groups",
                               (long long)outputs, (long long)a->group);
    }
    return KILN_OK;
}

/* Input i must be [N, channels, oH, oW]. */
static kiln_status check_field(const kiln_infer *c, int32_t i, int64_t channels, const char *what) {
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_same_dtype(c, 0, i));
    KILN_TRY(kiln_infer_rank(c, i, 4, 4));
    const kiln_dim *y = c->out[0].type.dims;
    const kiln_dim want[4] = {y[0], channels, y[2], y[3]};
    for (int32_t d = 0; d < 4; d++) {
        kiln_dim got = kiln_infer_dim(c, i, d);
        if (kiln_dim_differ(got, want[d])) {
            return KILN_INFER_FAIL(c, SHAPE, "dim %d of %s is %lld, it must be %lld", d, what,
                                   (long long)got, (long long)want[d]);
        }
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const kiln_deform_conv_attrs *a = c->attrs;
    int64_t kernel[KILN_MAX_SPATIAL], taps;
    bool known;
    KILN_TRY(kiln_infer_dtype(c, X, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, X, WEIGHT));
    KILN_TRY(kiln_infer_same_dtype(c, X, BIAS));
    int32_t rank = kiln_infer_in_rank(c, X);
    if (rank >= 0 && rank != 4) {
        return KILN_INFER_FAIL(c, VARIANT,
                               "the input has rank %d; only 2-D images (4) are supported", rank);
    }
    KILN_TRY(kiln_window_kernel(c, WEIGHT, 2, &a->kernel_shape, kernel, &known));
    KILN_TRY(check_groups(c));
    kiln_dim *dims = kiln_infer_dims(c, 0, c->in[X].type.dtype, 4);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    dims[0] = kiln_infer_dim(c, X, 0);
    dims[1] = kiln_infer_dim(c, WEIGHT, 0);
    KILN_TRY(kiln_infer_vector(c, BIAS, dims[1], "the bias"));
    if (!known || rank < 0) {
        return KILN_OK;
    }
    kiln_window w;
    KILN_TRY(read_window(&w, a, kernel, c->diag));
    KILN_TRY(kiln_window_out(&w, c, c->in[X].type.dims + 2, dims + 2));
    if (!kiln_mul_i64(kernel[0] * kernel[1], a->offset_group, &taps) || taps > INT64_MAX / 2) {
        return KILN_INFER_FAIL(c, OVERFLOW, "offset_group %lld times the kernel is too large",
                               (long long)a->offset_group);
    }
    KILN_TRY(check_field(c, OFFSET, 2 * taps, "offset"));
    return check_field(c, MASK, taps, "mask");
}

static double pixel(const double *plane, const kiln_window *w, int64_t row, int64_t col) {
    bool inside = row >= 0 && row < w->in[0] && col >= 0 && col < w->in[1];
    return inside ? plane[row * w->in[1] + col] : 0;
}

static double sample(const double *plane, const kiln_window *w, double row, double col) {
    if (!(row > -1 && row < (double)w->in[0] && col > -1 && col < (double)w->in[1])) {
        return 0;
    }
    double r0 = floor(row), c0 = floor(col), dr = row - r0, dc = col - c0;
    int64_t r = (int64_t)r0, k = (int64_t)c0;
    return (1 - dr) * ((1 - dc) * pixel(plane, w, r, k) + dc * pixel(plane, w, r, k + 1)) +
           dr * ((1 - dc) * pixel(plane, w, r + 1, k) + dc * pixel(plane, w, r + 1, k + 1));
}

/* column[o] = what tap `tap` of input channel ch reads for output position o of image n. */
static void read_tap(const kiln_ref *c, const kiln_window *w, int64_t n, int64_t ch, int64_t tap,
                     const double *plane, double *column) {
    const kiln_deform_conv_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, X), *offset = kiln_ref_in(c, OFFSET);
    const kiln_tensor *mask = kiln_ref_in(c, MASK);
    int64_t field = ch / (x->dims[1] / a->offset_group) * w->taps + tap;
    int64_t at = (n * a->offset_group * w->taps + field) * w->out_count;
    for (int64_t o = 0; o < w->out_count; o++) {
        int64_t oh = o / w->out[1], ow = o % w->out[1];
        int64_t row = oh * w->stride[0] - w->pad_begin[0] + tap / w->kernel[1] * w->dilation[0];
        int64_t col = ow * w->stride[1] - w->pad_begin[1] + tap % w->kernel[1] * w->dilation[1];
        double dr = kiln_get_f64(offset->dtype, offset->data, 2 * at + o);
        double dc = kiln_get_f64(offset->dtype, offset->data, 2 * at + w->out_count + o);
        double m = mask ? kiln_get_f64(mask->dtype, mask->data, at + o) : 1;
        column[o] = m * sample(plane, w, (double)row + dr, (double)col + dc);
    }
}

static kiln_status ref(kiln_ref *c) {
    const kiln_deform_conv_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, X), *weight = kiln_ref_in(c, WEIGHT);
    const kiln_tensor *bias = kiln_ref_in(c, BIAS);
    kiln_tensor *y = kiln_ref_out(c, 0);
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    kiln_window w;
    KILN_TRY(read_window(&w, a, weight->dims + 2, c->diag));
    kiln_window_resolve_tensors(&w, x, y);
    int64_t channels = x->dims[1], per_group = weight->dims[1];
    int64_t outputs = weight->dims[0] / a->group, image = y->dims[1] * w.out_count;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    double *plane, *column, *acc;
    KILN_ALLOC(plane, c->arena, w.in_count);
    KILN_ALLOC(column, c->arena, w.out_count);
    KILN_ALLOC(acc, c->arena, image);
    for (int64_t n = 0; n < y->dims[0]; n++) {
        for (int64_t i = 0; i < image; i++) {
            acc[i] = bias ? kiln_get_f64(bias->dtype, bias->data, i / w.out_count) : 0;
        }
        for (int64_t ct = 0; ct < channels * w.taps; ct++) {
            int64_t ch = ct / w.taps, tap = ct % w.taps, first = ch / per_group * outputs;
            kiln_load_f64(x, (n * channels + ch) * w.in_count, w.in_count, plane);
            KILN_TRY(kiln_ref_poll(c));
            read_tap(c, &w, n, ch, tap, plane, column);
            for (int64_t m = first; m < first + outputs; m++) {
                int64_t at = (m * per_group + ch % per_group) * w.taps + tap;
                double v = kiln_get_f64(weight->dtype, weight->data, at);
                for (int64_t o = 0; o < w.out_count; o++) {
                    acc[m * w.out_count + o] += v * column[o];
                }
            }
        }
        kiln_store_f64(y, n * image, image, acc);
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_deform_conv = {
    .name = "DeformConv",
    .domain = "",
    .since = 22,
    .min_in = 3,
    .max_in = 5,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_deform_conv_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
    .cost = kiln_conv_cost,
};
