/* conv_core.c - see conv_core.h. */
#include "ops/conv_core.h"

#include <string.h>

#include "ops/bulk.h"

const kiln_attr kiln_conv_table[6] = {
    KILN_A_ENUM(kiln_conv_attrs, auto_pad, kiln_auto_pad_words, KILN_PAD_NOTSET),
    KILN_A_INTS(kiln_conv_attrs, dilations),
    KILN_A_INT(kiln_conv_attrs, group, 1),
    KILN_A_INTS(kiln_conv_attrs, kernel_shape),
    KILN_A_INTS(kiln_conv_attrs, pads),
    KILN_A_INTS(kiln_conv_attrs, strides),
};

static kiln_window_attrs window_attrs(const kiln_conv_attrs *a) {
    return (kiln_window_attrs){
        .auto_pad = a->auto_pad, .dilations = a->dilations, .pads = a->pads, .strides = a->strides};
}

/* C = G * W's channels, and G divides M. */
static kiln_status check_channels(const kiln_infer *c, int32_t x, int32_t w, int64_t group) {
    if (group < 1 || group > INT32_MAX) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "group is %lld", (long long)group);
    }
    kiln_dim channels = kiln_infer_dim(c, x, 1), per_group = kiln_infer_dim(c, w, 1);
    kiln_dim outputs = kiln_infer_dim(c, w, 0);
    if (kiln_dim_known(channels) && kiln_dim_known(per_group) &&
        (channels % group != 0 || channels / group != per_group)) {
        return KILN_INFER_FAIL(c, SHAPE,
                               "the input has %lld channels, the weight takes %lld in %lld groups",
                               (long long)channels, (long long)per_group, (long long)group);
    }
    if (kiln_dim_known(outputs) && outputs % group != 0) {
        return KILN_INFER_FAIL(c, SHAPE, "%lld output channels do not divide into %lld groups",
                               (long long)outputs, (long long)group);
    }
    return KILN_OK;
}

kiln_status kiln_conv_infer(kiln_infer *c, int32_t x, int32_t w, kiln_dtype dtype,
                            kiln_dim *channels) {
    const kiln_conv_attrs *a = c->attrs;
    int32_t n;
    *channels = KILN_DIM_UNKNOWN;
    KILN_TRY(kiln_window_rank(c, x, &n));
    if (n < 0) {
        return kiln_infer_dims(c, 0, dtype, KILN_RANK_UNKNOWN) ? KILN_OK : KILN_E_MEMORY;
    }
    int64_t kernel[KILN_MAX_SPATIAL];
    bool known;
    KILN_TRY(kiln_window_kernel(c, w, n, &a->kernel_shape, kernel, &known));
    KILN_TRY(check_channels(c, x, w, a->group));
    kiln_dim *dims = kiln_infer_dims(c, 0, dtype, n + 2);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    dims[0] = kiln_infer_dim(c, x, 0);
    dims[1] = *channels = kiln_infer_dim(c, w, 0);
    if (!known) {
        return KILN_OK;
    }
    kiln_window win;
    const kiln_window_attrs attrs = window_attrs(a);
    KILN_TRY(kiln_window_read(&win, c->diag, n, &attrs, kernel));
    return kiln_window_out(&win, c, c->in[x].type.dims + 2, dims + 2);
}

kiln_status kiln_conv_window(kiln_window *win, const kiln_conv_attrs *a, const kiln_tensor *x,
                             const kiln_tensor *w, const kiln_tensor *y, kiln_diag *diag) {
    const kiln_window_attrs attrs = window_attrs(a);
    KILN_TRY(kiln_window_read(win, diag, x->rank - 2, &attrs, w->dims + 2));
    kiln_window_resolve_tensors(win, x, y);
    return KILN_OK;
}

/* The output positions that one tap contributes to, and where it reads. */
typedef struct tap {
    int64_t lo[KILN_MAX_SPATIAL], hi[KILN_MAX_SPATIAL];
    int64_t shift[KILN_MAX_SPATIAL]; /* input index = output index * stride + shift */
    bool empty;
} tap;

static tap make_tap(const kiln_window *w, int64_t number) {
    tap t = {.empty = false};
    int64_t k[KILN_MAX_SPATIAL];
    kiln_unflatten(number, w->kernel, w->n, k);
    for (int32_t i = 0; i < w->n; i++) {
        kiln_window_span(w, i, k[i], &t.lo[i], &t.hi[i]);
        t.shift[i] = k[i] * w->dilation[i] - w->pad_begin[i];
        t.empty = t.empty || t.hi[i] <= t.lo[i];
    }
    return t;
}

/* dst[k] += weight * src[k * stride]; in fours where the source is dense. */
static void add_row(double *dst, const double *src, double weight, int64_t n, int64_t stride) {
    int64_t k = 0;
    for (; stride == 1 && k + 4 <= n; k += 4) {
        for (int64_t i = 0; i < 4; i++) {
            dst[k + i] += weight * src[k + i];
        }
    }
    for (; k < n; k++) {
        dst[k] += weight * src[k * stride];
    }
}

/* acc[o] += weight * plane[o * stride + shift] over the tap's positions. */
static void add_tap(const kiln_window *w, const tap *t, double weight, const double *plane,
                    double *acc) {
    int32_t last = w->n - 1;
    int64_t o[KILN_MAX_SPATIAL], stride = w->stride[last];
    memcpy(o, t->lo, sizeof o);
    for (;;) {
        int64_t in = 0, out = 0;
        for (int32_t i = 0; i < last; i++) {
            in = (in + o[i] * w->stride[i] + t->shift[i]) * w->in[i + 1];
            out = (out + o[i]) * w->out[i + 1];
        }
        double *dst = acc + out;
        const double *src = plane + in + t->shift[last];
        add_row(dst + t->lo[last], src + t->lo[last] * stride, weight, t->hi[last] - t->lo[last],
                stride);
        int32_t i = last - 1;
        while (i >= 0 && ++o[i] == t->hi[i]) {
            o[i] = t->lo[i];
            i--;
        }
        if (i < 0) {
            return;
        }
    }
}

kiln_status kiln_conv_image(const kiln_ref *c, const kiln_conv_job *job, int64_t n, double *acc) {
    const kiln_window *win = &job->win;
    int64_t channels = job->x->dims[1], per_group = job->w->dims[1];
    int64_t outputs = job->w->dims[0] / job->group;
    for (int64_t ch = 0; ch < channels; ch++) {
        int64_t first = ch / per_group * outputs;
        kiln_load_f64(job->x, (n * channels + ch) * win->in_count, win->in_count, job->plane);
        for (int64_t i = 0; job->x_zero != 0 && i < win->in_count; i++) {
            job->plane[i] -= job->x_zero;
        }
        for (int64_t k = 0; k < win->taps; k++) {
            tap t = make_tap(win, k);
            KILN_TRY(kiln_ref_poll(c));
            for (int64_t m = first; !t.empty && m < first + outputs; m++) {
                int64_t at = (m * per_group + ch % per_group) * win->taps + k;
                double v = kiln_get_f64(job->w->dtype, job->w->data, at);
                v -= job->w_zero ? job->w_zero[m] : 0;
                add_tap(win, &t, v, job->plane, acc + m * win->out_count);
            }
        }
    }
    return KILN_OK;
}

int64_t kiln_conv_macs(const kiln_fact *weight, const kiln_fact *out) {
    kiln_tensor w = {0}, y = {0};
    int64_t macs = 0;
    if (kiln_type_to_tensor(&weight->type, &w) && kiln_type_to_tensor(&out->type, &y) &&
        w.rank > 0 && w.dims[0] > 0) {
        int64_t per_output = kiln_tensor_count(&w) / w.dims[0];
        if (!kiln_mul_i64(kiln_tensor_count(&y), per_output, &macs)) {
            macs = INT64_MAX;
        }
    }
    return macs;
}

void kiln_conv_cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                    kiln_cost *cost) {
    (void)node;
    cost->macs = kiln_conv_macs(&in[1], out);
}
