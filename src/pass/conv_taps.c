/* conv_taps.c - taps of a convolution that never leave the padding go.
 *
 * At each output position o, tap r of a dim of size n reads element o * stride + r * dilation -
 * pad. Where that is outside [0, n) for all o, the tap's weights multiply nothing but zeros: the
 * outer taps of a 3x3 convolution over a single pixel, or of one whose dilation exceeds the image.
 * The live taps are neighbours; the kernel is cut down to them, and the padding with it.
 */
#include "pass/fold.h"

enum { MAX_SPATIAL = KILN_MAX_RANK - 2 };

typedef struct window {
    int64_t first, last; /* live taps */
    int64_t kernel, dilation, stride, before, after;
} window;

/* Tap r reads some element of n at one of `out` positions. */
static bool is_live(const window *w, int64_t r, int64_t n, int64_t out) {
    int64_t from, to;
    if (!kiln_mul_i64(r, w->dilation, &from) || !kiln_mul_i64(out - 1, w->stride, &to)) {
        return true;
    }
    int64_t lo = w->before - from; /* o * stride >= lo, < lo + n */
    int64_t o = lo <= 0 ? 0 : (lo + w->stride - 1) / w->stride * w->stride;
    return o <= to && o - lo < n;
}

/* Finds the live taps; false when there are none. */
static bool find_live(window *w, int64_t n, int64_t out) {
    w->first = 0;
    w->last = w->kernel - 1;
    while (w->first < w->kernel && !is_live(w, w->first, n, out)) {
        w->first++;
    }
    while (w->last > w->first && !is_live(w, w->last, n, out)) {
        w->last--;
    }
    return w->first < w->kernel;
}

/* One spatial dim of the node; false when its sizes are not known or it cannot be cut. */
static bool read_window(const kiln_node *n, int32_t d, window *w) {
    const kiln_ints *pads = kiln_node_ints(n, "pads"), *strides = kiln_node_ints(n, "strides"),
                    *dilations = kiln_node_ints(n, "dilations");
    int32_t spatial = kiln_rank(n->in[0]) - 2;
    int64_t size = kiln_dim_at(n->in[0], 2 + d), out = kiln_dim_at(n->out[0], 2 + d);
    if (!pads || pads->n != 2 * spatial || (strides && strides->n != spatial) ||
        (dilations && dilations->n != spatial)) {
        return false;
    }
    w->kernel = kiln_dim_at(n->in[1], 2 + d);
    w->before = pads->v[d];
    w->after = pads->v[spatial + d];
    w->stride = strides ? strides->v[d] : 1;
    w->dilation = dilations ? dilations->v[d] : 1;
    if (size < 1 || out < 1 || w->kernel < 1 || w->stride < 1 || w->dilation < 1 || w->before < 0 ||
        w->after < 0 || !find_live(w, size, out)) {
        return false;
    }
    w->before -= w->first * w->dilation;
    w->after -= (w->kernel - 1 - w->last) * w->dilation;
    return w->before >= 0 && w->after >= 0;
}

/* The weight's live taps. */
static kiln_value *cut_weight(kiln_patch *p, kiln_value *weight, const window *w, int32_t spatial) {
    kiln_tensor t = {.rank = 0};
    int64_t first[MAX_SPATIAL], end[MAX_SPATIAL], axes[MAX_SPATIAL];
    kiln_type_to_tensor(&weight->type, &t);
    for (int32_t d = 0; d < spatial; d++) {
        first[d] = w[d].first;
        end[d] = w[d].last + 1;
        axes[d] = 2 + d;
        t.dims[2 + d] = end[d] - first[d];
    }
    kiln_value *in[] = {weight, kiln_patch_vector(p, first, spatial),
                        kiln_patch_vector(p, end, spatial), kiln_patch_vector(p, axes, spatial)};
    return kiln_fold_make(p, "Slice", in, 4, &t);
}

static kiln_status cut(kiln_patch *p, const kiln_node *n, const window *w, int32_t spatial) {
    int64_t pads[2 * MAX_SPATIAL], kernel[MAX_SPATIAL], dilations[MAX_SPATIAL];
    kiln_value *in[3] = {n->in[0], cut_weight(p, n->in[1], w, spatial), kiln_node_in(n, 2)};
    kiln_node *made = in[1] ? kiln_patch_like(p, n, in, n->n_in, 1) : NULL;
    if (!made) {
        return KILN_OK;
    }
    for (int32_t d = 0; d < spatial; d++) {
        kernel[d] = w[d].last - w[d].first + 1;
        dilations[d] = kernel[d] > 1 ? w[d].dilation : 1;
        pads[d] = w[d].before;
        pads[spatial + d] = w[d].after;
    }
    kiln_patch_ints(p, made->out[0], "kernel_shape", kernel, spatial);
    kiln_patch_ints(p, made->out[0], "dilations", dilations, spatial);
    kiln_patch_ints(p, made->out[0], "pads", pads, 2 * spatial);
    kiln_patch_replace(p, n->out[0], made->out[0]);
    return kiln_patch_commit(p, "taps that read only padding");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    window w[MAX_SPATIAL];
    bool any = false;
    if (!kiln_is_op(n, "Conv") || !kiln_value_is_const(n->in[1]) ||
        kiln_node_int(n, "auto_pad", KILN_PAD_NOTSET) != KILN_PAD_NOTSET ||
        !kiln_type_is_static(&n->in[1]->type)) {
        return KILN_OK;
    }
    int32_t spatial = kiln_rank(n->in[1]) - 2;
    if (spatial < 1 || kiln_rank(n->in[0]) != spatial + 2) {
        return KILN_OK;
    }
    for (int32_t d = 0; d < spatial; d++) {
        if (!read_window(n, d, &w[d])) {
            return KILN_OK;
        }
        any = any || w[d].last - w[d].first + 1 < w[d].kernel;
    }
    return any ? cut(p, n, w, spatial) : KILN_OK;
}

const kiln_pass kiln_pass_conv_taps = {.name = "conv_taps", .visit = visit};
