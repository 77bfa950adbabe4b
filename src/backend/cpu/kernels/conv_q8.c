/* conv_q8.c - 8-bit convolution and transposed convolution (see q8_region.h) over channels-last
 * activations. Depthwise problems have prims of their own. */
#include "backend/cpu/kernels/blocking.h"
#include "backend/cpu/kernels/conv_q8_pack.h"
#include "backend/cpu/kernels/conv_shape.h"
#include "backend/cpu/kernels/q8_region.h"
#include "ops/ops.h"

typedef struct conv_q8_params {
    kiln_q8_region region; /* first: kiln_q8_reference */
    kiln_window window;
    kiln_conv_args shape; /* what the weights' layout depends on; sizes follow at bind */
    bool depthwise;
} conv_q8_params;

typedef struct conv_q8_state {
    kiln_q8_bound bound;
    kiln_conv_q8_args args;
    int64_t tiles;
    void (*run)(const kiln_conv_q8_args *args, int64_t begin, int64_t end, void *scratch);
} conv_q8_state;

/* As kiln_kernel.tactics lists them. */
enum { TACTIC_RULES, TACTIC_PATCH, TACTIC_BLOCKINGS };
static const char *const tactics[] = {"patch", KILN_BLOCKINGS_Q8(KILN_BLOCKING_NAME) NULL};

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    bool transposed = KILN_IS(node, conv_transpose);
    if (!KILN_IS(node, conv) && !transposed) {
        return kiln_claim_refuse(c, "it runs Conv and ConvTranspose");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_conv_q8, node, 1, 1, sizeof(conv_q8_params));
    if (!r) {
        return NULL;
    }
    conv_q8_params *p = r->params;
    if (!kiln_conv_read(c, node, &p->window, &p->shape) ||
        !kiln_q8_begin(c, r, &p->region, 1, transposed, kiln_node_in(node, 2), KILN_LAYOUT_LAST)) {
        return NULL;
    }
    p->depthwise = kiln_conv_is_depthwise(&p->shape);
    const kiln_conv_args *g = &p->shape;
    if (c->tactic > 0 && p->depthwise) {
        return kiln_claim_refuse(c, "a depthwise convolution runs in one way");
    }
    if (c->tactic == TACTIC_PATCH &&
        (g->transposed || g->kernel[0] > 1 || g->kernel[1] * g->kernel[2] == 1)) {
        return kiln_claim_refuse(c, "patches are what the rules copy");
    }
    p->shape.tactic = c->tactic == TACTIC_PATCH ? KILN_CONV_PATCH : KILN_CONV_AUTO;
    p->shape.blocking = kiln_blocking_q8_at(c->tactic - TACTIC_BLOCKINGS);
    return kiln_q8_extend(c, r, &p->region, KILN_LAYOUT_LAST) ? r : NULL;
}

/* ---- Packing ---- */

static kiln_status pack(kiln_packer *k) {
    const conv_q8_params *p = k->claim->params;
    const kiln_conv_args *a = &p->shape;
    const int64_t rows = kiln_conv_q8_start_rows(a), ld = kiln_q8_stride(a->c_out);
    kiln_status status, second;
    void *w = kiln_pack_blob(k, kiln_conv_q8_packed_bytes(k, a, p->depthwise), &status);
    float *tables = kiln_pack_blob(k, (size_t)kiln_q8_table_bytes(a->c_out, rows), &second);
    if (!w || !tables) {
        return status ? status : second;
    }
    kiln_tensor source;
    int32_t *start = (int32_t *)(void *)(tables + 2 * ld);
    KILN_TRY(kiln_q8_bytes(k, p->region.w->in[0], &source));
    KILN_TRY(kiln_conv_q8_pack(k, a, p->depthwise, w, source.data, start, ld));
    for (int64_t i = 0; i < rows * ld; i++) {
        start[i] *= -p->region.x.zero;
    }
    return kiln_q8_tables(&p->region, a->c_out, tables, k->scratch, k->diag);
}

/* ---- Binding and running ---- */

static kiln_status bind(kiln_binder *b) {
    const conv_q8_params *p = b->claim->params;
    conv_q8_state *s;
    KILN_ALLOC(s, b->arena, 1);
    kiln_q8_bind(&s->bound, &p->region, b, p->shape.c_out);
    const kiln_conv_q8_prims *conv = b->target->prims->conv_q8;
    const kiln_depthwise_q8_prims *dw = b->target->prims->depthwise_q8;
    kiln_conv_args *a = &s->args.shape;
    *a = p->shape;
    KILN_TRY(kiln_conv_resolve(b, &p->window, a));
    s->args.x_zero = (uint8_t)p->region.x.zero;
    s->args.w = b->blobs[0].data;
    s->args.epilogue = kiln_q8_epilogue_of(&p->region, a->c_out, b->blobs[1].data);
    s->args.epilogue.ld_residual = a->c_out;
    s->args.ld_start = kiln_q8_stride(a->c_out);
    s->run = p->depthwise ? dw->run : conv->run;
    s->tiles = p->depthwise ? dw->tiles(a) : conv->tiles(a);
    b->way = kiln_blocking_way(&a->blocking, s->tiles);
    if (s->tiles > 0) {
        bool narrows = s->args.epilogue.narrows;
        b->scratch_bytes = (size_t)(p->depthwise ? dw->scratch_bytes(a, narrows)
                                                 : conv->scratch_bytes(a, narrows));
    }
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const conv_q8_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_conv_q8_args args = s->args;
    kiln_epilogue floats;
    kiln_program_post_args post;
    args.x = call->in[0];
    args.y = call->out[0];
    kiln_q8_resolve(&s->bound, call, &args.epilogue, &floats, &post);
    s->run(&args, begin, end, call->scratch + (size_t)team->rank * call->scratch_bytes);
}

const kiln_kernel kiln_kernel_conv_q8 = {
    .name = "conv_q8",
    .tactics = tactics,
    .computes = KILN_DTYPE_I8,
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
    .reference = kiln_q8_reference,
};
