/* conv_transpose.c - ConvTranspose: every input element adds a scaled kernel to the output.
 *
 * Legend: X [N, C, in...], W [C, M/G, kernel...], Y [N, M, out...]. It is the adjoint of a
 * convolution from Y to X, and its kiln_window is that convolution's: window.in holds Y's sizes,
 * window.out X's. */
#include "ops/conv_transpose.h"

#include <string.h>

#include "ops/bulk.h"

static const kiln_attr table[] = {
    KILN_A_ENUM(kiln_conv_transpose_attrs, auto_pad, kiln_auto_pad_words, KILN_PAD_NOTSET),
    KILN_A_INTS(kiln_conv_transpose_attrs, dilations),
    KILN_A_INT(kiln_conv_transpose_attrs, group, 1),
    KILN_A_INTS(kiln_conv_transpose_attrs, kernel_shape),
    KILN_A_INTS(kiln_conv_transpose_attrs, output_padding),
    KILN_A_INTS(kiln_conv_transpose_attrs, output_shape),
    KILN_A_INTS(kiln_conv_transpose_attrs, pads),
    KILN_A_INTS(kiln_conv_transpose_attrs, strides),
};

static bool is_same(const kiln_conv_transpose_attrs *a) {
    return a->auto_pad == KILN_PAD_SAME_UPPER || a->auto_pad == KILN_PAD_SAME_LOWER;
}

static kiln_status read_window(kiln_window *w, const kiln_conv_transpose_attrs *a, int32_t n,
                               const int64_t *kernel, kiln_diag *diag) {
    const kiln_window_attrs attrs = {
        .auto_pad = a->auto_pad, .dilations = a->dilations, .pads = a->pads, .strides = a->strides};
    return kiln_window_read(w, diag, n, &attrs, kernel);
}

static int64_t extra(const kiln_conv_transpose_attrs *a, int32_t i) {
    return a->output_padding.v ? a->output_padding.v[i] : 0;
}

/* The stated output size of spatial dim i; output_shape may also name N and C before them. */
static int64_t stated(const kiln_conv_transpose_attrs *a, int32_t n, int32_t i) {
    return a->output_shape.v[a->output_shape.n - n + i];
}

static kiln_status check_lists(const kiln_infer *c, const kiln_window *w) {
    const kiln_conv_transpose_attrs *a = c->attrs;
    if (a->output_padding.v && a->output_padding.n != w->n) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "output_padding has %lld items for %d spatial dims",
                               (long long)a->output_padding.n, w->n);
    }
    for (int32_t i = 0; i < w->n; i++) {
        int64_t most = w->stride[i] > w->dilation[i] ? w->stride[i] : w->dilation[i];
        if (extra(a, i) < 0 || extra(a, i) >= most) {
            return KILN_INFER_FAIL(c, ATTR_VALUE,
                                   "output_padding[%d] is %lld, it must be in [0, %lld)", i,
                                   (long long)extra(a, i), (long long)most);
        }
    }
    if (!a->output_shape.v) {
        return KILN_OK;
    }
    if (a->output_shape.n != w->n && a->output_shape.n != w->n + 2) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "output_shape has %lld items for %d spatial dims",
                               (long long)a->output_shape.n, w->n);
    }
    for (int32_t i = 0; i < w->n; i++) {
        if (stated(a, w->n, i) < 1 || stated(a, w->n, i) > INT32_MAX) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "output_shape[%d] is %lld", i,
                                   (long long)stated(a, w->n, i));
        }
    }
    return KILN_OK;
}

static kiln_status output_size(kiln_infer *c, const kiln_window *w, int32_t i, kiln_dim in,
                               kiln_dim *out) {
    const kiln_conv_transpose_attrs *a = c->attrs;
    if (a->output_shape.v) {
        *out = stated(a, w->n, i);
        return KILN_OK;
    }
    if (is_same(a)) {
        *out = kiln_dim_mul(c->dims, in, w->stride[i]);
        return KILN_OK;
    }
    int64_t fixed = extra(a, i) + kiln_window_extent(w, i) - w->pad_begin[i] - w->pad_end[i];
    kiln_dim span = kiln_dim_mul(c->dims, kiln_dim_sub(c->dims, in, 1), w->stride[i]);
    *out = kiln_dim_add(c->dims, span, fixed);
    if (kiln_dim_known(*out) && *out < 0) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "pads leave an output of %lld in spatial dim %d",
                               (long long)*out, i);
    }
    return KILN_OK;
}

static kiln_status check_channels(const kiln_infer *c) {
    const kiln_conv_transpose_attrs *a = c->attrs;
    kiln_dim channels = kiln_infer_dim(c, 0, 1), rows = kiln_infer_dim(c, 1, 0);
    if (a->group < 1 || a->group > INT32_MAX) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "group is %lld", (long long)a->group);
    }
    if (kiln_dim_differ(channels, rows)) {
        return KILN_INFER_FAIL(c, SHAPE, "the input has %lld channels, the weight takes %lld",
                               (long long)channels, (long long)rows);
    }
    if (kiln_dim_known(rows) && rows % a->group != 0) {
        return KILN_INFER_FAIL(c, SHAPE, "%lld channels do not divide into %lld groups",
                               (long long)rows, (long long)a->group);
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const kiln_conv_transpose_attrs *a = c->attrs;
    kiln_dtype dtype = c->in[0].type.dtype;
    int64_t kernel[KILN_MAX_SPATIAL];
    int32_t n;
    bool known;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(kiln_window_rank(c, 0, &n));
    if (n < 0) {
        return kiln_infer_dims(c, 0, dtype, KILN_RANK_UNKNOWN) ? KILN_OK : KILN_E_MEMORY;
    }
    KILN_TRY(kiln_window_kernel(c, 1, n, &a->kernel_shape, kernel, &known));
    KILN_TRY(check_channels(c));
    kiln_dim *dims = kiln_infer_dims(c, 0, dtype, n + 2);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    dims[0] = kiln_infer_dim(c, 0, 0);
    dims[1] = kiln_dim_mul(c->dims, kiln_infer_dim(c, 1, 1), a->group);
    if (known) {
        kiln_window w;
        KILN_TRY(read_window(&w, a, n, kernel, c->diag));
        KILN_TRY(check_lists(c, &w));
        for (int32_t i = 0; i < n; i++) {
            KILN_TRY(output_size(c, &w, i, kiln_infer_dim(c, 0, i + 2), &dims[i + 2]));
        }
    }
    return kiln_infer_vector(c, 2, dims[1], "the bias");
}

kiln_status kiln_conv_transpose_window(kiln_window *w, const kiln_conv_transpose_attrs *a,
                                       const kiln_tensor *x, const kiln_tensor *weight,
                                       const kiln_tensor *y, kiln_diag *diag) {
    int32_t n = x->rank - 2;
    KILN_TRY(read_window(w, a, n, weight->dims + 2, diag));
    bool derived = a->output_shape.v || is_same(a);
    w->auto_pad = KILN_PAD_NOTSET;
    for (int32_t i = 0; derived && i < n; i++) {
        int64_t full = w->stride[i] * (x->dims[i + 2] - 1) + extra(a, i) + kiln_window_extent(w, i);
        int64_t total = full > y->dims[i + 2] ? full - y->dims[i + 2] : 0;
        bool upper = a->auto_pad == KILN_PAD_SAME_UPPER;
        w->pad_begin[i] = upper ? total / 2 : total - total / 2;
        w->pad_end[i] = total - w->pad_begin[i];
    }
    kiln_window_resolve(w, y->dims + 2, x->dims + 2);
    return KILN_OK;
}

/* acc[i * stride + shift] += weight * plane[i] for the input positions i of tap number k. */
static void scatter_tap(const kiln_window *w, int64_t number, double weight, const double *plane,
                        double *acc) {
    int64_t k[KILN_MAX_SPATIAL], lo[KILN_MAX_SPATIAL], hi[KILN_MAX_SPATIAL], o[KILN_MAX_SPATIAL];
    kiln_unflatten(number, w->kernel, w->n, k);
    for (int32_t i = 0; i < w->n; i++) {
        kiln_window_span(w, i, k[i], &lo[i], &hi[i]);
        if (hi[i] <= lo[i]) {
            return;
        }
        o[i] = lo[i];
    }
    int32_t last = w->n - 1;
    for (;;) {
        int64_t from = 0, to = 0;
        for (int32_t i = 0; i <= last; i++) {
            int64_t at = o[i] * w->stride[i] + k[i] * w->dilation[i] - w->pad_begin[i];
            from = from * w->out[i] + o[i];
            to = to * w->in[i] + at;
        }
        for (int64_t j = 0; j < hi[last] - lo[last]; j++) {
            acc[to + j * w->stride[last]] += weight * plane[from + j];
        }
        int32_t i = last - 1;
        while (i >= 0 && ++o[i] == hi[i]) {
            o[i] = lo[i];
            i--;
        }
        if (i < 0) {
            return;
        }
    }
}

static kiln_status ref(kiln_ref *c) {
    const kiln_conv_transpose_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *w = kiln_ref_in(c, 1), *bias = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    kiln_window win;
    KILN_TRY(kiln_conv_transpose_window(&win, a, x, w, y, c->diag));
    int64_t channels = x->dims[1], per_group = w->dims[1], image = y->dims[1] * win.in_count;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    double *plane, *acc;
    KILN_ALLOC(plane, c->arena, win.out_count);
    KILN_ALLOC(acc, c->arena, image);
    for (int64_t n = 0; n < x->dims[0]; n++) {
        for (int64_t i = 0; i < image; i++) {
            acc[i] = bias ? kiln_get_f64(bias->dtype, bias->data, i / win.in_count) : 0;
        }
        for (int64_t ch = 0; ch < channels; ch++) {
            int64_t first = ch / (channels / a->group) * per_group;
            KILN_TRY(kiln_ref_poll(c));
            kiln_load_f64(x, (n * channels + ch) * win.out_count, win.out_count, plane);
            for (int64_t t = 0; t < per_group * win.taps; t++) {
                double v = kiln_get_f64(w->dtype, w->data, ch * per_group * win.taps + t);
                double *dst = acc + (first + t / win.taps) * win.in_count;
                scatter_tap(&win, t % win.taps, v, plane, dst);
            }
        }
        kiln_store_f64(y, n * image, image, acc);
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    (void)node;
    (void)out;
    result->macs = kiln_conv_macs(&in[1], &in[0]);
}

const kiln_op kiln_op_conv_transpose = {
    .name = "ConvTranspose",
    .domain = "",
    .since = 22,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_conv_transpose_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
    .cost = cost,
};
