/* window.c - see window.h. */
#include "ops/window.h"

#include <string.h>

const char *const kiln_auto_pad_words[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", NULL};

/* Copies a list attribute of `count` items in [lo, 2^31), or the default for each. */
static kiln_status read_list(kiln_diag *diag, const kiln_ints *list, int32_t count, int64_t lo,
                             int64_t absent, const char *name, int64_t *out) {
    if (list->v && list->n != count) {
        return kiln_fail(diag, KILN_F_ATTR_VALUE, "%s has %lld items, the input's rank asks for %d",
                         name, (long long)list->n, count);
    }
    for (int32_t i = 0; i < count; i++) {
        out[i] = list->v ? list->v[i] : absent;
        if (out[i] < lo || out[i] > INT32_MAX) {
            return kiln_fail(diag, KILN_F_ATTR_VALUE, "%s[%d] is %lld, it must be in [%lld, 2^31)",
                             name, i, (long long)out[i], (long long)lo);
        }
    }
    return KILN_OK;
}

kiln_status kiln_window_read(kiln_window *w, kiln_diag *diag, int32_t n,
                             const kiln_window_attrs *attrs, const int64_t *kernel) {
    memset(w, 0, sizeof *w);
    if (n < 1 || n > KILN_MAX_SPATIAL) {
        return kiln_fail(diag, KILN_F_VARIANT, "%d spatial dims; 1 to %d are supported", n,
                         KILN_MAX_SPATIAL);
    }
    int64_t pads[2 * KILN_MAX_SPATIAL];
    const kiln_ints sizes = {.v = kernel, .n = n};
    w->n = n;
    w->auto_pad = (kiln_auto_pad)attrs->auto_pad;
    w->ceil_mode = attrs->ceil_mode != 0;
    KILN_TRY(read_list(diag, &sizes, n, 1, 1, "kernel_shape", w->kernel));
    KILN_TRY(read_list(diag, &attrs->strides, n, 1, 1, "strides", w->stride));
    KILN_TRY(read_list(diag, &attrs->dilations, n, 1, 1, "dilations", w->dilation));
    KILN_TRY(read_list(diag, &attrs->pads, 2 * n, 0, 0, "pads", pads));
    if (w->auto_pad == KILN_PAD_NOTSET) {
        memcpy(w->pad_begin, pads, (size_t)n * sizeof pads[0]);
        memcpy(w->pad_end, pads + n, (size_t)n * sizeof pads[0]);
    }
    return KILN_OK;
}

/* One output size; d is the table of dims. The last window of ceil_mode starts at or before the
 * last position that is not padding at the end: (in + pad_begin - 1) / stride. */
static kiln_dim out_size(const kiln_window *w, kiln_dims *d, int32_t i, kiln_dim in) {
    int64_t stride = w->stride[i];
    bool same = w->auto_pad == KILN_PAD_SAME_UPPER || w->auto_pad == KILN_PAD_SAME_LOWER;
    if (same) {
        return kiln_dim_div(d, kiln_dim_add(d, in, stride - 1), stride);
    }
    kiln_dim room = kiln_dim_add(d, in, w->pad_begin[i] + w->pad_end[i] - kiln_window_extent(w, i));
    if (!w->ceil_mode) {
        return kiln_dim_add(d, kiln_dim_div(d, room, stride), 1);
    }
    kiln_dim steps = kiln_dim_div(d, kiln_dim_add(d, room, stride - 1), stride);
    kiln_dim last = kiln_dim_div(d, kiln_dim_add(d, in, w->pad_begin[i] - 1), stride);
    if (stride == 1 && w->pad_end[i] < kiln_window_extent(w, i)) {
        return kiln_dim_add(d, steps, 1);
    }
    return kiln_dim_add(d, kiln_dim_min(d, steps, last), 1);
}

kiln_status kiln_window_out(const kiln_window *w, const kiln_infer *c, const kiln_dim *in,
                            kiln_dim *out) {
    for (int32_t i = 0; i < w->n; i++) {
        bool same = w->auto_pad == KILN_PAD_SAME_UPPER || w->auto_pad == KILN_PAD_SAME_LOWER;
        int64_t extent = kiln_window_extent(w, i), pads = w->pad_begin[i] + w->pad_end[i];
        if (!same && kiln_dim_known(in[i]) && in[i] + pads < extent) {
            return KILN_INFER_FAIL(
                c, SHAPE, "the window spans %lld in spatial dim %d, the padded input has %lld",
                (long long)extent, i, (long long)(in[i] + pads));
        }
        out[i] = out_size(w, c->dims, i, in[i]);
    }
    return KILN_OK;
}

/* a * b, or INT64_MAX: counts of empty tensors may not fit. */
static int64_t saturating(int64_t a, int64_t b) {
    int64_t product;
    return kiln_mul_i64(a, b, &product) ? product : INT64_MAX;
}

void kiln_window_resolve(kiln_window *w, const int64_t *in, const int64_t *out) {
    w->in_count = w->out_count = w->taps = 1;
    for (int32_t i = 0; i < w->n; i++) {
        w->in[i] = in[i];
        w->out[i] = out[i];
        w->in_count = saturating(w->in_count, in[i]);
        w->out_count = saturating(w->out_count, out[i]);
        w->taps = saturating(w->taps, w->kernel[i]);
        if (w->auto_pad == KILN_PAD_SAME_UPPER || w->auto_pad == KILN_PAD_SAME_LOWER) {
            int64_t total = (out[i] - 1) * w->stride[i] + kiln_window_extent(w, i) - in[i];
            total = total < 0 ? 0 : total;
            bool lower = w->auto_pad == KILN_PAD_SAME_LOWER;
            w->pad_begin[i] = lower ? total - total / 2 : total / 2;
            w->pad_end[i] = total - w->pad_begin[i];
        }
    }
}

void kiln_window_resolve_tensors(kiln_window *w, const kiln_tensor *x, const kiln_tensor *y) {
    kiln_window_resolve(w, x->dims + 2, y->dims + 2);
}

void kiln_unflatten(int64_t flat, const int64_t *dims, int32_t n, int64_t *index) {
    for (int32_t i = n - 1; i >= 0; i--) {
        index[i] = flat % dims[i];
        flat /= dims[i];
    }
}

void kiln_window_span(const kiln_window *w, int32_t i, int64_t k, int64_t *lo, int64_t *hi) {
    /* o * stride + shift must lie in [0, in). */
    int64_t s = w->stride[i], shift = k * w->dilation[i] - w->pad_begin[i];
    int64_t first = shift >= 0 ? 0 : (-shift + s - 1) / s;
    int64_t end = w->in[i] > shift ? (w->in[i] - shift + s - 1) / s : 0;
    end = end > w->out[i] ? w->out[i] : end;
    *lo = first;
    *hi = end < first ? first : end;
}

kiln_status kiln_window_rank(const kiln_infer *c, int32_t input, int32_t *n) {
    KILN_TRY(kiln_infer_rank(c, input, 3, KILN_MAX_SPATIAL + 2));
    int32_t rank = kiln_infer_in_rank(c, input);
    *n = rank < 0 ? -1 : rank - 2;
    return KILN_OK;
}

kiln_status kiln_window_kernel(const kiln_infer *c, int32_t weight, int32_t n,
                               const kiln_ints *kernel_shape, int64_t *kernel, bool *known) {
    KILN_TRY(kiln_infer_rank(c, weight, n + 2, n + 2));
    if (kernel_shape->v && kernel_shape->n != n) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "kernel_shape has %lld items for %d spatial dims",
                               (long long)kernel_shape->n, n);
    }
    *known = true;
    for (int32_t i = 0; i < n; i++) {
        kiln_dim k = kiln_infer_dim(c, weight, i + 2);
        kiln_dim stated = kernel_shape->v ? kernel_shape->v[i] : KILN_DIM_UNKNOWN;
        if (kernel_shape->v && kiln_dim_known(k) && k != stated) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "kernel_shape[%d] is %lld, the weight has %lld",
                                   i, (long long)stated, (long long)k);
        }
        kernel[i] = kiln_dim_known(k) ? k : stated;
        *known = *known && kiln_dim_known(kernel[i]);
    }
    return KILN_OK;
}

kiln_status kiln_infer_vector(const kiln_infer *c, int32_t i, kiln_dim size, const char *what) {
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_rank(c, i, 1, 1));
    kiln_dim n = kiln_infer_dim(c, i, 0);
    if (kiln_dim_differ(n, size)) {
        return KILN_INFER_FAIL(c, SHAPE, "%s has %lld elements, %lld are needed", what,
                               (long long)n, (long long)size);
    }
    return KILN_OK;
}
