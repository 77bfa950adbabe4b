/* conv_f32.c - convolution and transposed convolution over channels-last activations, with
 * everything elementwise that follows fused. Depthwise problems have prims of their own.
 * Activations and sums are float32; the weights are held in float32, or in 16 bits where the node's
 * precision asks for that (half.h). */
#include <string.h>

#include "backend/cpu/fuse.h"
#include "backend/cpu/kernels/blocking.h"
#include "backend/cpu/kernels/conv_shape.h"
#include "backend/cpu/kernels/half.h"
#include "backend/cpu/prims/conv.h"
#include "backend/cpu/prims/depthwise.h"

typedef struct conv_params {
    kiln_fused fused;
    kiln_window window;
    kiln_conv_args args; /* what the weights' layout depends on; sizes follow at bind */
    bool depthwise;
    bool few;    /* an image to few channels: lines are staged from either layout */
    bool planar; /* reads NCHW as it comes: few channels */
} conv_params;

typedef struct conv_state {
    const kiln_conv_prims *conv;
    const kiln_depthwise_prims *depthwise; /* or NULL */
    kiln_stage stage;
    kiln_fused_state fused;
    kiln_conv_args args;
    int64_t tiles;
} conv_state;

/* Input channels up to which a planar image is read in place rather than converted first; where
 * there are few output channels too, lines are staged, from either layout. */
enum { PLANAR_CHANNELS = 4, FEW_CHANNELS = 4 };

/* The form of the prims for a kernel. */
static const kiln_conv_prims *form_of(const kiln_cpu_target *target, const kiln_claim *claim) {
    const kiln_prims *p = target->prims;
    const kiln_dtype dtype = claim->kernel->computes;
    return dtype == KILN_DTYPE_BF16  ? p->conv_bf16
           : dtype == KILN_DTYPE_F16 ? p->conv_f16
                                     : p->conv;
}

static const kiln_gemm_prims *products_of(const kiln_cpu_target *target, const kiln_claim *claim) {
    const kiln_prims *p = target->prims;
    return claim->kernel->computes == KILN_DTYPE_BF16 ? p->gemm_bf16 : p->gemm_f16;
}

/* The ways to cut the work and to gather patches, as kiln_kernel.tactics lists them: other ways to
 * gather than the rules' take twice the time, more often than not. */
enum {
    TACTIC_RULES,
    TACTIC_BLOCKINGS,
    TACTIC_LINES = TACTIC_BLOCKINGS KILN_BLOCKINGS(KILN_BLOCKING_COUNT),
    TACTIC_GATHER,
    TACTIC_PATCH,
    TACTIC_PLANAR,
    N_TACTICS,
};
static const char *const conv_tactics[] = {KILN_BLOCKINGS(KILN_BLOCKING_NAME) "lines", "gather",
                                           "patch", "planar", NULL};

/* Why a convolution cannot run in the way that is asked for; NULL: it can. */
static const char *why_not(int32_t tactic, const conv_params *p, bool is_image) {
    const kiln_conv_args *g = &p->args;
    const bool pointwise = g->kernel[0] * g->kernel[1] * g->kernel[2] == 1 &&
                           g->stride[0] * g->stride[1] * g->stride[2] == 1;
    if (tactic == TACTIC_RULES) {
        return NULL;
    }
    if (p->depthwise) {
        return "a depthwise convolution runs in one way";
    }
    if (tactic == TACTIC_PLANAR && !is_image) {
        return "planar images have few channels";
    }
    if (tactic == TACTIC_LINES && (g->transposed || p->window.n > 2)) {
        return "lines are copied for ordinary convolutions of one or two axes";
    }
    if (tactic == TACTIC_PATCH && g->transposed) {
        return "a transposed convolution gathers";
    }
    return tactic >= TACTIC_LINES && pointwise ? "there are no patches" : NULL;
}

/* An image whose convolution gives few channels. */
static bool is_few(const conv_params *p) {
    const kiln_conv_args *g = &p->args;
    return g->c_out <= FEW_CHANNELS && p->window.n <= 2 && g->kernel[1] * g->kernel[2] > 1;
}

/* Which form the input comes in and how patches are made. False: refused. */
static bool choose_form(kiln_claimer *c, conv_params *p, bool half) {
    static const kiln_conv_tactic forms[N_TACTICS] = {[TACTIC_LINES] = KILN_CONV_LINES,
                                                      [TACTIC_GATHER] = KILN_CONV_GATHER,
                                                      [TACTIC_PATCH] = KILN_CONV_PATCH};
    kiln_conv_args *g = &p->args;
    const bool is_image =
        !half && !g->transposed && g->groups == 1 && !p->depthwise && g->c_in <= PLANAR_CHANNELS;
    const char *reason = why_not(c->tactic, p, is_image);
    if (reason) {
        kiln_claim_refuse(c, "%s", reason);
        return false;
    }
    const bool ruled = c->tactic < TACTIC_LINES;
    p->few = c->tactic == TACTIC_RULES && is_image && is_few(p);
    const bool lines =
        c->tactic == TACTIC_LINES || (ruled && is_image && p->window.n <= 2 && !p->few);
    p->planar = is_image && (lines || ruled || c->tactic == TACTIC_PLANAR);
    g->planar = p->planar && !lines && !p->few;
    g->tactic = lines ? KILN_CONV_LINES : ruled ? KILN_CONV_AUTO : forms[c->tactic];
    g->blocking = kiln_blocking_at(ruled ? c->tactic - TACTIC_BLOCKINGS : -1);
    return true;
}

static kiln_claim *claim_for(kiln_claimer *c, kiln_node *node, const kiln_kernel *kernel) {
    kiln_claim *r = kiln_conv_begin(c, node, kernel, sizeof(conv_params));
    if (!r) {
        return NULL;
    }
    conv_params *p = r->params;
    kiln_conv_args *g = &p->args;
    if (!kiln_conv_read(c, node, &p->window, g)) {
        return NULL;
    }
    const bool half = kernel->computes != KILN_DTYPE_NONE;
    p->depthwise = kiln_conv_is_depthwise(g);
    if (half && p->depthwise) {
        return kiln_claim_refuse(c, "depthwise convolutions run in float32: their weights are few");
    }
    if (!choose_form(c, p, half)) {
        return NULL;
    }
    r->in_layouts[0] = p->few ? KILN_LAYOUT_ANY : p->planar ? KILN_LAYOUT_ROW : KILN_LAYOUT_LAST;
    if (!kiln_fuse_chain(c, r, &p->fused, node->out[0], 1, kiln_node_in(node, 2), KILN_LAYOUT_LAST,
                         false)) {
        return NULL;
    }
    kiln_stage_hold(c, r, g->c_in / g->groups);
    if (p->depthwise && kiln_target_holds_half(c->target)) {
        r->in_held[0] = KILN_HELD_HALF;
    }
    kiln_fuse_hold(c, r, &p->fused);
    return r;
}

static kiln_status pack(kiln_packer *k) {
    const conv_params *p = k->claim->params;
    const kiln_conv_prims *conv = form_of(k->target, k->claim);
    const kiln_depthwise_prims *dw = k->target->prims->depthwise;
    int64_t bytes = p->depthwise ? dw->packed_bytes(&p->args) : conv->packed_bytes(&p->args);
    kiln_status status;
    void *dst = kiln_pack_blob(k, (size_t)bytes, &status);
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

static size_t scratch_by(const conv_state *s, kiln_conv_tactic tactic) {
    kiln_conv_args a = s->args;
    a.tactic = tactic;
    return (size_t)s->conv->scratch_bytes(&a);
}

/* kiln_binder.way: how patches are made. Where rules decide, they either gather or copy, which need
 * different scratch. Blockings all come to the same where there is one unit. */
static uint64_t way_of(const conv_state *s, size_t scratch) {
    const kiln_gemm_blocking *asked = &s->args.blocking;
    const bool cut =
        asked->tile_rows > 0 || asked->block_rows > 0 || asked->group_bytes > 0 || asked->rows_last;
    if (s->args.c_out <= FEW_CHANNELS || (cut && kiln_blocking_way(asked, s->tiles) == 0)) {
        return 0;
    }
    const size_t gather = scratch_by(s, KILN_CONV_GATHER), patch = scratch_by(s, KILN_CONV_PATCH);
    kiln_conv_tactic form = s->args.tactic;
    if (form == KILN_CONV_AUTO && gather != patch) {
        form = scratch == gather ? KILN_CONV_GATHER : scratch == patch ? KILN_CONV_PATCH : form;
    }
    return 4 * (uint64_t)(form + 1) + (s->args.planar ? 2 : 0) + (s->tiles <= 1 ? 1 : 0);
}

/* Where the staged pixels stand: dense, the channels of each group in whole words. */
static void bind_stage(conv_state *s, kiln_binder *b) {
    const kiln_gemm_prims *gemm = products_of(b->target, b->claim);
    kiln_conv_args *a = &s->args;
    int64_t pixels = a->batch * a->in[0] * a->in[1] * a->in[2], channels = a->c_in / a->groups;
    kiln_stage_bind(&s->stage, b, gemm, pixels * a->groups, channels);
    if (s->stage.in_words) {
        a->x_stride[2] = a->groups * ((channels + gemm->step - 1) / gemm->step);
        a->x_stride[1] = a->in[2] * a->x_stride[2];
        a->x_stride[0] = a->in[1] * a->x_stride[1];
        a->x_batch = a->in[0] * a->x_stride[0];
    }
}

/* Depthwise sums never rest. */
static void bind_matrix(conv_state *s, kiln_binder *b) {
    const kiln_conv_args *a = &s->args;
    const kiln_gemm_prims *gemm = products_of(b->target, b->claim);
    const int64_t words = (a->c_in / a->groups + gemm->step - 1) / gemm->step;
    const bool half = s->depthwise && b->in[0].tensor.dtype == KILN_DTYPE_BF16;
    const bool rests = a->kernel[0] * a->kernel[1] * a->kernel[2] * words > gemm->whole;
    kiln_fuse_bind_matrix(&s->fused, b, half || s->stage.in_words, !s->depthwise && rests);
}

/* The prims for what the input is held in. */
static const kiln_depthwise_prims *depthwise_of(const kiln_binder *b) {
    const kiln_prims *p = b->target->prims;
    return b->in[0].tensor.dtype == KILN_DTYPE_BF16 ? p->depthwise_half : p->depthwise;
}

static kiln_status bind(kiln_binder *b) {
    const conv_params *p = b->claim->params;
    conv_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->args = p->args;
    KILN_TRY(kiln_conv_resolve(b, &p->window, &s->args));
    s->conv = form_of(b->target, b->claim);
    if (b->claim->kernel->computes != KILN_DTYPE_NONE) {
        bind_stage(s, b);
    }
    s->depthwise = p->depthwise ? depthwise_of(b) : NULL;
    s->args.epilogue = KILN_EPILOGUE_NONE;
    kiln_fuse_bind(&s->fused, &p->fused, b, s->args.c_out);
    bind_matrix(s, b);
    s->tiles = s->depthwise ? s->depthwise->tiles(&s->args) : s->conv->tiles(&s->args);
    b->scratch_bytes = (size_t)(s->depthwise ? s->depthwise->scratch_bytes(&s->args)
                                             : s->conv->scratch_bytes(&s->args));
    b->way = s->depthwise ? 0 : way_of(s, b->scratch_bytes);
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const conv_state *s = call->state;
    const float *x = kiln_stage_run(&s->stage, call, team);
    int64_t begin, end;
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_conv_args args = s->args;
    kiln_program_post_args post;
    args.x = x;
    args.w = call->blobs[0].data;
    args.y = kiln_fuse_matrix(&s->fused, call);
    kiln_fuse_resolve(&s->fused, call, &args.epilogue, &post);
    char *scratch = call->scratch + (size_t)team->rank * call->scratch_bytes;
    if (s->depthwise) {
        s->depthwise->run(&args, begin, end, scratch);
    } else {
        s->conv->run(&args, begin, end, scratch);
    }
}

KILN_PRODUCT_KERNEL(conv_f32, NONE, NULL, conv_tactics)
KILN_PRODUCT_KERNEL(conv_bf16, BF16, kiln_half_reference, conv_tactics)
KILN_PRODUCT_KERNEL(conv_f16, F16, kiln_half_reference, conv_tactics)
