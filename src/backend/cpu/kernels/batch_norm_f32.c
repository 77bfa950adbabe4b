/* batch_norm_f32.c - float32 BatchNormalization that no convolution could take in, with
 * everything elementwise that follows fused: a depthwise convolution by one tap, its weights and
 * bias folded from the statistics. */
#include <math.h>

#include "backend/cpu/fuse.h"
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/depthwise.h"
#include "ops/attrs.h"
#include "ops/ops.h"

enum { X, SCALE, BIAS, MEAN, VAR };
enum { WEIGHT_BLOB, SHIFT_BLOB };

typedef struct norm_params {
    kiln_fused fused;
    kiln_conv_args args; /* channels and kernel; sizes follow at bind */
} norm_params;

typedef struct norm_state {
    const kiln_depthwise_prims *prims;
    kiln_fused_state fused;
    kiln_conv_args args;
    int64_t tiles;
} norm_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, batch_normalization)) {
        return kiln_claim_refuse(c, "it runs BatchNormalization");
    }
    const kiln_type *x = &node->in[X]->type;
    if (!kiln_value_is_f32(node->in[X]) || x->rank < 2 ||
        ((const kiln_batch_norm_attrs *)node->attrs)->training_mode) {
        return kiln_claim_refuse(c, "it takes float32 of rank 2 and above, without training_mode");
    }
    for (int32_t i = SCALE; i <= VAR; i++) {
        const kiln_value *v = node->in[i];
        if (!v->constant || !kiln_value_is_f32(v) || v->type.dims[0] != x->dims[1] ||
            x->dims[1] < 1) {
            return kiln_claim_refuse(c, "input %d is no constant of float32, one per channel", i);
        }
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_batch_norm_f32, node, 1, 1, sizeof(norm_params));
    if (!r) {
        return NULL;
    }
    norm_params *p = r->params;
    int64_t channels = x->dims[1];
    p->args = (kiln_conv_args){.groups = channels,
                               .c_in = channels,
                               .c_out = channels,
                               .kernel = {1, 1, 1},
                               .stride = {1, 1, 1},
                               .dilation = {1, 1, 1},
                               .x_channel = 1};
    r->in[0] = node->in[X];
    r->in_layouts[0] = KILN_LAYOUT_LAST;
    /* The node's own bias takes the place of the epilogue's; run puts the folded shift there. */
    if (!kiln_fuse_chain(c, r, &p->fused, node->out[0], 1, node->in[BIAS], KILN_LAYOUT_LAST,
                         false)) {
        return NULL;
    }
    kiln_fuse_hold(c, r, &p->fused);
    r->in_held[X] = r->out_held[0];
    return r;
}

/* factor = scale / sqrt(var + eps), shift = bias - mean * factor. */
static kiln_status fold(kiln_packer *k, int64_t n, float **factor, float *shift) {
    const kiln_node *node = k->claim->anchor;
    const kiln_batch_norm_attrs *a = node->attrs;
    const float *v[VAR + 1];
    for (int32_t i = SCALE; i <= VAR; i++) {
        kiln_tensor t;
        KILN_TRY(kiln_pack_constant(k, node->in[i], &t));
        v[i] = t.data;
    }
    KILN_ALLOC(*factor, k->scratch, n);
    for (int64_t i = 0; i < n; i++) {
        double f = (double)v[SCALE][i] / sqrt((double)v[VAR][i] + (double)a->epsilon);
        (*factor)[i] = (float)f;
        shift[i] = (float)((double)v[BIAS][i] - (double)v[MEAN][i] * f);
    }
    return KILN_OK;
}

static kiln_status pack(kiln_packer *k) {
    const norm_params *p = k->claim->params;
    const kiln_depthwise_prims *prims = k->target->prims->depthwise;
    kiln_status status;
    float *factor, *weight = kiln_pack_blob(k, (size_t)prims->packed_bytes(&p->args), &status);
    KILN_TRY(status);
    float *shift = kiln_pack_blob(k, (size_t)p->args.c_out * sizeof *shift, &status);
    KILN_TRY(status);
    if (k->measuring) {
        return KILN_OK;
    }
    KILN_TRY(fold(k, p->args.c_out, &factor, shift));
    prims->pack(weight, factor, &p->args);
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const norm_params *p = b->claim->params;
    norm_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[X].tensor;
    int64_t count = kiln_tensor_count(x), spatial = count > 0 ? count / x->dims[0] / x->dims[1] : 0;
    int64_t line = x->rank > 2 ? x->dims[x->rank - 1] : 1, rows = line > 0 ? spatial / line : 0;
    const kiln_prims *prims = b->target->prims;
    const bool half = x->dtype == KILN_DTYPE_BF16;
    s->prims = half ? prims->depthwise_half : prims->depthwise;
    s->args = p->args;
    s->args.batch = x->dims[0];
    const int64_t size[3] = {1, rows, line};
    for (int32_t i = 0; i < 3; i++) {
        s->args.in[i] = s->args.out[i] = size[i];
    }
    s->args.x_batch = spatial * s->args.c_in;
    s->args.x_stride[1] = line * s->args.c_in;
    s->args.x_stride[2] = s->args.c_in;
    s->args.ldy = s->args.c_out;
    s->args.epilogue = KILN_EPILOGUE_NONE;
    kiln_fuse_bind(&s->fused, &p->fused, b, s->args.c_out);
    kiln_fuse_bind_matrix(&s->fused, b, half, false);
    s->tiles = count > 0 ? s->prims->tiles(&s->args) : 0;
    b->scratch_bytes = count > 0 ? (size_t)s->prims->scratch_bytes(&s->args) : 0;
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const norm_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_conv_args args = s->args;
    kiln_program_post_args post;
    args.x = call->in[X];
    args.w = call->blobs[WEIGHT_BLOB].data;
    args.y = kiln_fuse_matrix(&s->fused, call);
    kiln_fuse_resolve(&s->fused, call, &args.epilogue, &post);
    args.epilogue.bias = call->blobs[SHIFT_BLOB].data;
    s->prims->run(&args, begin, end, call->scratch + (size_t)team->rank * call->scratch_bytes);
}

const kiln_kernel kiln_kernel_batch_norm_f32 = {
    .name = "batch_norm_f32",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
