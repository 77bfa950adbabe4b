/* conv_f32.c - float32 convolution and transposed convolution over channels-last activations, with
 * everything elementwise that follows fused. Depthwise problems have prims of their own. */
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/fuse.h"
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/conv.h"
#include "backend/cpu/prims/depthwise.h"
#include "ops/conv_transpose.h"
#include "ops/window.h"

typedef struct conv_params {
    kiln_fused fused;
    kiln_window window;
    kiln_conv_args args; /* what the weights' layout depends on; sizes follow at bind */
    bool depthwise;
    bool planar; /* reads NCHW as it comes: few channels */
} conv_params;

typedef struct conv_state {
    const kiln_conv_prims *conv;
    const kiln_depthwise_prims *depthwise; /* or NULL */
    kiln_fused_state fused;
    kiln_conv_args args;
    int64_t tiles;
} conv_state;

/* Input channels up to which a planar image is read in place rather than converted first. */
enum { PLANAR_CHANNELS = 4 };

static void lift(const int64_t *src, int32_t n, int64_t lead, int64_t dst[3]) {
    for (int32_t i = 0; i < 3; i++) {
        dst[i] = i < 3 - n ? lead : src[i - (3 - n)];
    }
}

/* The attributes as D, H, W, from the weight's known dims. */
static bool read_geometry(kiln_claimer *c, const kiln_node *node, conv_params *p) {
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
        kiln_window_read(&p->window, NULL, n, &wa, w->dims + 2) != KILN_OK) {
        kiln_claim_refuse(c, "it takes 1 to 3 spatial dims and weights of known size");
        return false;
    }
    kiln_conv_args *g = &p->args;
    g->groups = group;
    g->c_in = transposed ? w->dims[0] : w->dims[1] * group;
    g->c_out = transposed ? w->dims[1] * group : w->dims[0];
    g->transposed = transposed;
    lift(p->window.kernel, n, 1, g->kernel);
    lift(p->window.stride, n, 1, g->stride);
    lift(p->window.dilation, n, 1, g->dilation);
    p->depthwise = !transposed && group > 1 && group == g->c_in && w->dims[1] == 1;
    p->planar = !transposed && group == 1 && g->c_in <= PLANAR_CHANNELS;
    g->planar = p->planar;
    return g->c_in > 0 && g->c_out > 0;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, conv) && !KILN_IS(node, conv_transpose)) {
        return kiln_claim_refuse(c, "it runs Conv and ConvTranspose");
    }
    kiln_value *bias = kiln_node_in(node, 2);
    if (!kiln_value_is_f32(node->in[0]) || !kiln_value_is_f32(node->in[1]) ||
        !kiln_value_is_f32(node->out[0])) {
        return kiln_claim_refuse(c, "it takes float32");
    }
    if (!node->in[1]->constant) {
        return kiln_claim_refuse(c, "the weights are not constant");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_conv_f32, node, 1, 1, sizeof(conv_params));
    if (!r) {
        return NULL;
    }
    conv_params *p = r->params;
    if (!read_geometry(c, node, p)) {
        return c->reason ? NULL : kiln_claim_refuse(c, "it has no channels");
    }
    r->in[0] = node->in[0];
    r->in_layouts[0] = p->planar ? KILN_LAYOUT_ROW : KILN_LAYOUT_LAST;
    return kiln_fuse_chain(c, r, &p->fused, node->out[0], 1, bias, KILN_LAYOUT_LAST) ? r : NULL;
}

static kiln_status pack(kiln_packer *k) {
    const conv_params *p = k->claim->params;
    const kiln_conv_prims *conv = k->target->prims->conv;
    const kiln_depthwise_prims *dw = k->target->prims->depthwise;
    int64_t bytes = p->depthwise ? dw->packed_bytes(&p->args) : conv->packed_bytes(&p->args);
    kiln_status status;
    float *dst = kiln_pack_blob(k, (size_t)bytes, &status);
    if (!dst) {
        return status;
    }
    kiln_tensor w;
    KILN_TRY(kiln_pack_constant(k, k->claim->anchor->in[1], &w));
    if (p->depthwise) {
        dw->pack(dst, w.data, &p->args);
    } else {
        conv->pack(dst, w.data, &p->args);
    }
    return KILN_OK;
}

/* Input strides in elements for D, H, W and the channel, from where the operand lies. */
static void set_input(kiln_conv_args *g, const kiln_operand *x) {
    int64_t strides[KILN_MAX_RANK];
    int32_t n = x->tensor.rank - 2;
    kiln_logical_strides(x, strides);
    g->x_batch = strides[0];
    g->x_channel = strides[1];
    lift(strides + 2, n, 0, g->x_stride);
}

static kiln_status bind(kiln_binder *b) {
    const conv_params *p = b->claim->params;
    conv_state *s;
    KILN_ALLOC(s, b->arena, 1);
    kiln_tensor y;
    KILN_TRY(kiln_bind_tensor(b, b->claim->anchor->out[0], &y));
    kiln_window w = p->window;
    const kiln_tensor *x = &b->in[0].tensor;
    if (p->args.transposed) {
        kiln_tensor weight = {0};
        kiln_type_to_tensor(&b->claim->anchor->in[1]->type, &weight);
        KILN_TRY(kiln_conv_transpose_window(&w, b->claim->anchor->attrs, x, &weight, &y, b->diag));
    } else {
        kiln_window_resolve_tensors(&w, x, &y);
    }
    s->args = p->args;
    s->args.batch = x->dims[0];
    lift(x->dims + 2, w.n, 1, s->args.in);
    lift(y.dims + 2, w.n, 1, s->args.out);
    lift(w.pad_begin, w.n, 0, s->args.pad);
    set_input(&s->args, &b->in[0]);
    s->args.ldy = s->args.c_out;
    s->conv = b->target->prims->conv;
    s->depthwise = p->depthwise ? b->target->prims->depthwise : NULL;
    s->args.epilogue = KILN_EPILOGUE_NONE;
    kiln_fuse_bind(&s->fused, &p->fused, b, s->args.c_out);
    s->tiles = s->depthwise ? s->depthwise->tiles(&s->args) : s->conv->tiles(&s->args);
    b->scratch_bytes = (size_t)(s->depthwise ? s->depthwise->scratch_bytes(&s->args)
                                             : s->conv->scratch_bytes(&s->args));
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const conv_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_conv_args args = s->args;
    kiln_program_post_args post;
    args.x = call->in[0];
    args.w = call->blobs[0].data;
    args.y = call->out[0];
    kiln_fuse_resolve(&s->fused, call, &args.epilogue, &post);
    char *scratch = call->scratch + (size_t)team->rank * call->scratch_bytes;
    if (s->depthwise) {
        s->depthwise->run(&args, begin, end, scratch);
    } else {
        s->conv->run(&args, begin, end, scratch);
    }
}

const kiln_kernel kiln_kernel_conv_f32 = {
    .name = "conv_f32",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
