#include "backend/cpu/kernels/conv_shape.h"

#include "backend/cpu/axes.h"
#include "backend/cpu/kernels/half.h"
#include "backend/cpu/operand.h"
#include "ops/conv_transpose.h"

static void lift(const int64_t *src, int32_t n, int64_t lead, int64_t dst[3]) {
    for (int32_t i = 0; i < 3; i++) {
        dst[i] = i < 3 - n ? lead : src[i - (3 - n)];
    }
}

kiln_claim *kiln_conv_begin(kiln_claimer *c, kiln_node *node, const kiln_kernel *kernel,
                            size_t params_bytes) {
    if (!KILN_IS(node, conv) && !KILN_IS(node, conv_transpose)) {
        return kiln_claim_refuse(c, "it runs Conv and ConvTranspose");
    }
    if (!kiln_value_is_f32(node->in[0]) || !kiln_value_is_f32(node->in[1]) ||
        !kiln_value_is_f32(node->out[0])) {
        return kiln_claim_refuse(c, "it takes float32");
    }
    if (!node->in[1]->constant) {
        return kiln_claim_refuse(c, "the weights are not constant");
    }
    kiln_claim *r = kiln_half_asked(c, node, kernel)
                        ? kiln_claim_new(c, kernel, node, 1, 1, params_bytes)
                        : NULL;
    if (r) {
        r->in[0] = node->in[0];
    }
    return r;
}

bool kiln_conv_read(kiln_claimer *c, const kiln_node *node, kiln_window *window,
                    kiln_conv_args *g) {
    const kiln_type *w = &node->in[1]->type;
    bool transposed = KILN_IS(node, conv_transpose);
    kiln_window_attrs wa = {0};
    int64_t group;
    if (transposed) {
        const kiln_conv_transpose_attrs *a = node->attrs;
        wa = (kiln_window_attrs){.auto_pad = a->auto_pad,
                                 .dilations = a->dilations,
                                 .pads = a->pads,
                                 .strides = a->strides};
        group = a->group;
    } else {
        const kiln_conv_attrs *a = node->attrs;
        wa = (kiln_window_attrs){.auto_pad = a->auto_pad,
                                 .dilations = a->dilations,
                                 .pads = a->pads,
                                 .strides = a->strides};
        group = a->group;
    }
    int32_t n = w->rank - 2;
    if (!kiln_type_is_static(w) || n < 1 || n > 3 ||
        kiln_window_read(window, NULL, n, &wa, w->dims + 2) != KILN_OK) {
        kiln_claim_refuse(c, "it takes 1 to 3 spatial dims and weights of known size");
        return false;
    }
    g->groups = group;
    g->c_in = transposed ? w->dims[0] : w->dims[1] * group;
    g->c_out = transposed ? w->dims[1] * group : w->dims[0];
    g->transposed = transposed;
    lift(window->kernel, n, 1, g->kernel);
    lift(window->stride, n, 1, g->stride);
    lift(window->dilation, n, 1, g->dilation);
    if (g->c_in <= 0 || g->c_out <= 0) {
        kiln_claim_refuse(c, "it has no channels");
        return false;
    }
    return true;
}

kiln_status kiln_conv_resolve(kiln_binder *b, const kiln_window *window, kiln_conv_args *args) {
    const kiln_node *anchor = b->claim->anchor;
    const kiln_tensor *x = &b->in[0].tensor;
    kiln_window w = *window;
    kiln_tensor y;
    KILN_TRY(kiln_bind_tensor(b, anchor->out[0], &y));
    if (args->transposed) {
        kiln_tensor weight = {0};
        kiln_type_to_tensor(&anchor->in[1]->type, &weight);
        KILN_TRY(kiln_conv_transpose_window(&w, anchor->attrs, x, &weight, &y, b->diag));
    } else {
        kiln_window_resolve_tensors(&w, x, &y);
    }
    int64_t strides[KILN_MAX_RANK];
    kiln_logical_strides(&b->in[0], strides);
    args->x_batch = strides[0];
    args->x_channel = strides[1];
    lift(strides + 2, w.n, 0, args->x_stride);
    args->batch = x->dims[0];
    lift(x->dims + 2, w.n, 1, args->in);
    lift(y.dims + 2, w.n, 1, args->out);
    lift(w.pad_begin, w.n, 0, args->pad);
    args->ldy = args->c_out;
    return KILN_OK;
}
