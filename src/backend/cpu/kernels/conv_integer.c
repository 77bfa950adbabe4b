/* conv_integer.c - ConvInteger by constant weights and what follows it (q8_dynamic.h), over
 * channels-last activations. Depthwise problems have prims of their own. */
#include "backend/cpu/kernels/conv_q8_pack.h"
#include "backend/cpu/kernels/conv_shape.h"
#include "backend/cpu/kernels/q8_dynamic.h"
#include "ops/ops.h"

typedef struct conv_integer_params {
    kiln_q8_dynamic d;
    kiln_window window;
    kiln_conv_args shape; /* what the weights' layout depends on; sizes follow at bind */
    bool depthwise;
} conv_integer_params;

typedef struct conv_integer_state {
    kiln_q8_dynamic_bound bound;
    kiln_conv_q8_args args;
    int64_t tiles;
    void (*run)(const kiln_conv_q8_args *args, int64_t begin, int64_t end, void *scratch);
} conv_integer_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, conv_integer)) {
        return kiln_claim_refuse(c, "it runs ConvInteger");
    }
    kiln_claim *r =
        kiln_claim_new(c, &kiln_kernel_conv_integer, node, 1, 1, sizeof(conv_integer_params));
    conv_integer_params *p = r ? r->params : NULL;
    if (!r || !kiln_conv_read(c, node, &p->window, &p->shape)) {
        return NULL;
    }
    const kiln_conv_args *a = &p->shape;
    int64_t depth = a->c_in / a->groups * a->kernel[0] * a->kernel[1] * a->kernel[2];
    if (depth < 1 || depth > KILN_Q8_MAX_K) {
        return kiln_claim_refuse(c, "a sum would be empty, or too long for 32 bits");
    }
    p->depthwise = kiln_conv_is_depthwise(a);
    return kiln_q8_dynamic_claim(c, r, &p->d, 1, a->c_out, KILN_LAYOUT_LAST) ? r : NULL;
}

static kiln_status pack(kiln_packer *k) {
    const conv_integer_params *p = k->claim->params;
    const kiln_conv_args *a = &p->shape;
    kiln_status status, second;
    void *w = kiln_pack_blob(k, kiln_conv_q8_packed_bytes(k, a, p->depthwise), &status);
    float *tables = kiln_q8_dynamic_blob(k, &p->d, &second);
    if (!w || !tables) {
        return status ? status : second;
    }
    kiln_tensor source;
    int32_t *sums = kiln_q8_dynamic_sums(&p->d, tables);
    KILN_TRY(kiln_q8_bytes(k, k->claim->anchor->in[1], &source));
    KILN_TRY(kiln_conv_q8_pack(k, a, p->depthwise, w, source.data, sums, kiln_q8_stride(a->c_out)));
    return kiln_q8_dynamic_pack(k, &p->d, tables);
}

static kiln_status bind(kiln_binder *b) {
    const conv_integer_params *p = b->claim->params;
    const kiln_conv_q8_prims *conv = b->target->prims->conv_q8;
    const kiln_depthwise_q8_prims *dw = b->target->prims->depthwise_q8;
    conv_integer_state *s;
    KILN_ALLOC(s, b->arena, 1);
    kiln_q8_dynamic_bind(&s->bound, &p->d, b);
    kiln_conv_args *a = &s->args.shape;
    *a = p->shape;
    KILN_TRY(kiln_conv_resolve(b, &p->window, a));
    s->args.w = b->blobs[0].data;
    s->args.ld_start = kiln_q8_stride(a->c_out);
    s->run = p->depthwise ? dw->run : conv->run;
    s->tiles = p->depthwise ? dw->tiles(a) : conv->tiles(a);
    if (s->tiles > 0) {
        b->scratch_bytes =
            (size_t)(p->depthwise ? dw->scratch_bytes(a, false) : conv->scratch_bytes(a, false));
    }
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const conv_integer_state *s = call->state;
    kiln_conv_q8_args args = s->args;
    kiln_epilogue floats;
    kiln_program_post_args post;
    int64_t begin, end;
    if (s->tiles == 0) {
        return;
    }
    kiln_q8_dynamic_begin(&s->bound, call, team, call->blobs[1].data, &args.epilogue, &floats,
                          &post);
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin < end) {
        args.x_zero = (uint8_t)kiln_q8_dynamic_zero(&s->bound, call);
        args.x = call->in[0];
        args.y = call->out[0];
        s->run(&args, begin, end, call->scratch + (size_t)team->rank * call->scratch_bytes);
    }
}

const kiln_kernel kiln_kernel_conv_integer = {
    .name = "conv_integer",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
