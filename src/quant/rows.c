#include "quant/rows.h"

#include <string.h>

#include "ops/attrs.h"
#include "ops/ops.h"

bool kiln_row_source_of(kiln_row_source *out, const kiln_node *node, const kiln_type *weight) {
    const int64_t *d = weight->dims;
    *out = (kiln_row_source){.node = node, .weight = weight, .groups = 1, .stride_k = 1};
    if (!kiln_type_is_static(weight) || weight->rank < 2) {
        return false;
    }
    if (node->op == &kiln_op_conv && weight->rank >= 3) {
        out->conv = true;
        out->groups = ((const kiln_conv_attrs *)node->attrs)->group;
        out->n_out = d[0];
        out->k = 1;
        for (int32_t i = 1; i < weight->rank; i++) {
            out->k *= d[i];
        }
        out->stride_out = out->k;
        return out->groups > 0 && out->k > 0 && d[0] > 0 && d[0] % out->groups == 0;
    }
    bool gemm = node->op == &kiln_op_gemm, flip = false;
    if (gemm) {
        const kiln_gemm_attrs *a = node->attrs;
        flip = a->transB != 0;
        gemm = !a->transA;
    }
    if (weight->rank != 2 || (!gemm && node->op != &kiln_op_matmul)) {
        return false;
    }
    out->n_out = d[flip ? 0 : 1];
    out->k = d[flip ? 1 : 0];
    out->stride_out = flip ? out->k : 1;
    out->stride_k = flip ? 1 : out->n_out;
    return out->k > 0 && out->n_out > 0;
}

/* Output sizes of a convolution over these input sizes. */
static bool find_sizes(const kiln_window *w, const int64_t *in, int64_t *out) {
    for (int32_t i = 0; i < w->n; i++) {
        int64_t extent = kiln_window_extent(w, i), room = in[i] - extent;
        if (w->auto_pad == KILN_PAD_SAME_UPPER || w->auto_pad == KILN_PAD_SAME_LOWER) {
            out[i] = (in[i] + w->stride[i] - 1) / w->stride[i];
            continue;
        }
        room += w->auto_pad == KILN_PAD_NOTSET ? w->pad_begin[i] + w->pad_end[i] : 0;
        if (room < 0) {
            return false;
        }
        out[i] = room / w->stride[i] + 1;
    }
    return true;
}

static bool bind_conv(kiln_row_source *s, const kiln_tensor *x) {
    const kiln_conv_attrs *a = s->node->attrs;
    const kiln_window_attrs attrs = {
        .auto_pad = a->auto_pad, .dilations = a->dilations, .pads = a->pads, .strides = a->strides};
    int64_t out[KILN_MAX_SPATIAL];
    if (x->rank != s->weight->rank || x->rank > KILN_MAX_SPATIAL + 2 ||
        x->dims[1] != s->weight->dims[1] * s->groups ||
        kiln_window_read(&s->win, NULL, x->rank - 2, &attrs, s->weight->dims + 2) ||
        !find_sizes(&s->win, x->dims + 2, out)) {
        return false;
    }
    kiln_window_resolve(&s->win, x->dims + 2, out);
    s->channels = x->dims[1];
    s->plane = s->win.in_count;
    s->positions = x->dims[0] * s->win.out_count;
    return true;
}

bool kiln_row_source_bind(kiln_row_source *s, const kiln_tensor *x) {
    if (s->conv) {
        return bind_conv(s, x);
    }
    int64_t count = kiln_tensor_count(x);
    s->positions = count / s->k;
    return x->rank > 0 && x->dims[x->rank - 1] == s->k;
}

/* Where tap t reads at output position o, in the plane of a channel; -1: padding. */
static int64_t read_at(const kiln_window *w, const int64_t *o, int64_t t) {
    int64_t k[KILN_MAX_SPATIAL], at = 0;
    kiln_unflatten(t, w->kernel, w->n, k);
    for (int32_t i = 0; i < w->n; i++) {
        int64_t in = o[i] * w->stride[i] + k[i] * w->dilation[i] - w->pad_begin[i];
        if (in < 0 || in >= w->in[i]) {
            return -1;
        }
        at = at * w->in[i] + in;
    }
    return at;
}

void kiln_row_get(const kiln_row_source *s, const float *x, int64_t p, float *row) {
    if (!s->conv) {
        memcpy(row, x + p * s->k, (size_t)s->k * sizeof *row);
        return;
    }
    int64_t o[KILN_MAX_SPATIAL], taps = s->win.taps;
    const float *image = x + p / s->win.out_count * s->channels * s->plane;
    kiln_unflatten(p % s->win.out_count, s->win.out, s->win.n, o);
    for (int64_t t = 0; t < taps; t++) {
        int64_t at = read_at(&s->win, o, t);
        for (int64_t c = 0; c < s->channels; c++) {
            row[c * taps + t] = at < 0 ? 0 : image[c * s->plane + at];
        }
    }
}
