/* gemm_f32.c - Gemm and MatMul by constant weights, with everything elementwise that follows fused.
 * All leading dims of the activations are rows of one matrix. Activations and sums are float32; the
 * weights are held in float32, or in 16 bits where the node's precision asks for that (half.h). */
#include <math.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/fuse.h"
#include "backend/cpu/kernels/blocking.h"
#include "backend/cpu/kernels/half.h"
#include "backend/cpu/operand.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct gemm_params {
    kiln_fused fused;
    int64_t n, k;
    bool trans_b;
    float alpha;
} gemm_params;

typedef struct gemm_state {
    const kiln_gemm_prims *prims;
    kiln_stage stage;
    kiln_fused_state fused;
    kiln_gemm_args args;
    int64_t tiles;
} gemm_state;

/* The form of the prims for a kernel. */
static const kiln_gemm_prims *form_of(const kiln_cpu_target *target, const kiln_claim *claim) {
    const kiln_prims *p = target->prims;
    const kiln_dtype dtype = claim->kernel->computes;
    return dtype == KILN_DTYPE_BF16  ? p->gemm_bf16
           : dtype == KILN_DTYPE_F16 ? p->gemm_f16
                                     : p->gemm;
}

/* The region around the product, whose columns lie along this axis. */
static kiln_claim *extend(kiln_claimer *c, kiln_node *node, kiln_claim *r, int32_t columns,
                          kiln_value *bias) {
    gemm_params *p = r->params;
    if (!kiln_fuse_chain(c, r, &p->fused, node->out[0], columns, bias, KILN_LAYOUT_ROW, false)) {
        return NULL;
    }
    kiln_stage_hold(c, r, p->k);
    kiln_fuse_hold(c, r, &p->fused);
    return r;
}

static kiln_claim *claim_gemm(kiln_claimer *c, kiln_node *node, kiln_claim *r) {
    const kiln_gemm_attrs *a = node->attrs;
    gemm_params *p = r->params;
    kiln_value *bias = kiln_node_in(node, 2);
    if (a->transA) {
        return kiln_claim_refuse(c, "transA is set");
    }
    if (a->beta != 1.0f && bias) {
        return kiln_claim_refuse(c, "beta is not 1");
    }
    if (bias && (!kiln_value_is_f32(bias) || !kiln_is_axis_vector(bias, &node->out[0]->type, 1))) {
        return kiln_claim_refuse(c, "the third operand is no vector along the columns");
    }
    p->alpha = a->alpha;
    p->trans_b = a->transB != 0;
    return extend(c, node, r, 1, bias);
}

static kiln_claim *claim_for(kiln_claimer *c, kiln_node *node, const kiln_kernel *kernel) {
    if (!KILN_IS(node, gemm) && !KILN_IS(node, matmul)) {
        return kiln_claim_refuse(c, "it runs Gemm and MatMul");
    }
    kiln_value *x = node->in[0], *w = node->in[1];
    if (!kiln_value_is_f32(x) || !kiln_value_is_f32(w) || !kiln_value_is_f32(node->out[0])) {
        return kiln_claim_refuse(c, "it takes float32");
    }
    if (!w->constant || w->type.rank != 2 || x->type.rank < 2) {
        return kiln_claim_refuse(c, "the second operand is no constant matrix");
    }
    kiln_claim *r = kiln_half_asked(c, node, kernel)
                        ? kiln_claim_new(c, kernel, node, 1, 1, sizeof(gemm_params))
                        : NULL;
    if (!r) {
        return NULL;
    }
    gemm_params *p = r->params;
    bool trans_b = KILN_IS(node, gemm) && ((const kiln_gemm_attrs *)node->attrs)->transB;
    p->k = w->type.dims[trans_b];
    p->n = w->type.dims[!trans_b];
    p->alpha = 1;
    r->in[0] = x;
    if (KILN_IS(node, gemm)) {
        return claim_gemm(c, node, r);
    }
    return extend(c, node, r, node->out[0]->type.rank - 1, NULL);
}

static kiln_status pack(kiln_packer *k) {
    const gemm_params *p = k->claim->params;
    const kiln_gemm_prims *gemm = form_of(k->target, k->claim);
    kiln_status status;
    void *dst = kiln_pack_blob(k, (size_t)gemm->packed_bytes(p->k, p->n), &status);
    if (!dst) {
        return status;
    }
    kiln_tensor w;
    KILN_TRY(kiln_pack_constant(k, k->claim->anchor->in[1], &w));
    const float *src = w.data;
    if (p->alpha != 1.0f) {
        int64_t count = p->k * p->n;
        float *scaled;
        KILN_ALLOC(scaled, k->scratch, count);
        for (int64_t i = 0; i < count; i++) {
            scaled[i] = src[i] * p->alpha;
        }
        src = scaled;
    }
    gemm->pack(dst, src, p->k, p->n, p->trans_b ? 1 : p->n, p->trans_b ? p->k : 1, 0,
               gemm->panels(p->n));
    return KILN_OK;
}

/* Few rows are never cut: then units are groups of columns, in one order. */
static uint64_t way_of(const kiln_gemm_args *a, int64_t tiles) {
    enum { FEW_ROWS = 8 };
    return a->m <= FEW_ROWS && a->blocking.tile_rows == 0 ? 1 + (uint64_t)tiles
                                                          : kiln_blocking_way(&a->blocking, tiles);
}

static kiln_status bind(kiln_binder *b) {
    const gemm_params *p = b->claim->params;
    gemm_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[0].tensor;
    int64_t m = kiln_matrix_rows(x);
    s->prims = form_of(b->target, b->claim);
    const int64_t words = (p->k + s->prims->step - 1) / s->prims->step;
    s->args = (kiln_gemm_args){.m = m,
                               .n = p->n,
                               .k = words,
                               .lda = words,
                               .ldc = p->n,
                               .epilogue = KILN_EPILOGUE_NONE,
                               .blocking = kiln_blocking_at(b->claim->tactic - 1)};
    kiln_stage_bind(&s->stage, b, s->prims, m, p->k);
    kiln_fuse_bind(&s->fused, &p->fused, b, p->n);
    kiln_fuse_bind_matrix(&s->fused, b, s->stage.in_words, words > s->prims->whole);
    s->tiles = s->prims->tiles(&s->args);
    b->way = way_of(&s->args, s->tiles);
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const gemm_state *s = call->state;
    const float *a = kiln_stage_run(&s->stage, call, team);
    int64_t begin, end;
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_gemm_args args = s->args;
    kiln_program_post_args post;
    args.a = a;
    args.b = call->blobs[0].data;
    args.c = kiln_fuse_matrix(&s->fused, call);
    kiln_fuse_resolve(&s->fused, call, &args.epilogue, &post);
    s->prims->run(&args, begin, end);
}

static const char *const gemm_tactics[] = {KILN_BLOCKINGS(KILN_BLOCKING_NAME) NULL};

KILN_PRODUCT_KERNEL(gemm_f32, NONE, NULL, gemm_tactics)
KILN_PRODUCT_KERNEL(gemm_bf16, BF16, kiln_half_reference, gemm_tactics)
KILN_PRODUCT_KERNEL(gemm_f16, F16, kiln_half_reference, gemm_tactics)
