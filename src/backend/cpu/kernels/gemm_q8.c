/* gemm_q8.c - 8-bit Gemm and MatMul by constant weights (see q8_region.h). All leading dims of the
 * activations are rows of one matrix. */
#include "backend/cpu/axes.h"
#include "backend/cpu/kernels/blocking.h"
#include "backend/cpu/kernels/q8_region.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct gemm_q8_params {
    kiln_q8_region region; /* first: kiln_q8_reference */
    int64_t n, k;
    bool trans_b;
} gemm_q8_params;

typedef struct gemm_q8_state {
    kiln_q8_bound bound;
    const kiln_gemm_q8_prims *prims;
    kiln_gemm_q8_args args;
    int64_t tiles;
} gemm_q8_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    bool gemm = KILN_IS(node, gemm);
    if (!gemm && !KILN_IS(node, matmul)) {
        return kiln_claim_refuse(c, "it runs Gemm and MatMul");
    }
    const kiln_type *x = &node->in[0]->type, *w = &node->in[1]->type;
    if (x->rank < 2 || w->rank != 2) {
        return kiln_claim_refuse(c, "the second operand is no matrix, or the first has no rows");
    }
    const kiln_gemm_attrs *a = node->attrs;
    kiln_value *bias = gemm ? kiln_node_in(node, 2) : NULL;
    if (gemm && (a->transA || (bias && a->beta != 1.0f))) {
        return kiln_claim_refuse(c, "transA is set, or beta is not 1");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_gemm_q8, node, 1, 1, sizeof(gemm_q8_params));
    if (!r) {
        return NULL;
    }
    gemm_q8_params *p = r->params;
    p->trans_b = gemm && a->transB;
    int32_t channel = node->out[0]->type.rank - 1;
    if (!kiln_q8_begin(c, r, &p->region, channel, !p->trans_b, bias, KILN_LAYOUT_ROW)) {
        return NULL;
    }
    p->region.alpha = gemm ? (double)a->alpha : 1;
    p->k = w->dims[p->trans_b];
    p->n = w->dims[!p->trans_b];
    return kiln_q8_extend(c, r, &p->region, KILN_LAYOUT_ROW) ? r : NULL;
}

static kiln_status pack(kiln_packer *k) {
    const gemm_q8_params *p = k->claim->params;
    const kiln_q8_matrix w = {
        .k = p->k, .n = p->n, .transposed = p->trans_b, .factor = -p->region.x.zero};
    float *tables;
    KILN_TRY(kiln_q8_pack_matrix(k, p->region.w->in[0], &w, &tables));
    return tables ? kiln_q8_tables(&p->region, p->n, tables, k->scratch, k->diag) : KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const gemm_q8_params *p = b->claim->params;
    gemm_q8_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[0].tensor;
    int64_t m = kiln_matrix_rows(x);
    kiln_q8_bind(&s->bound, &p->region, b, p->n);
    s->prims = b->target->prims->gemm_q8;
    s->args = (kiln_gemm_q8_args){
        .m = m,
        .n = p->n,
        .k = p->k,
        .lda = p->k,
        .b = b->blobs[0].data,
        .ldc = p->n,
        .epilogue = kiln_q8_epilogue_of(&p->region, p->n, b->blobs[1].data),
        .blocking = kiln_blocking_q8_at(b->claim->tactic - 1),
    };
    s->args.epilogue.ld_residual = p->n;
    s->tiles = s->prims->tiles(&s->args);
    b->scratch_bytes = (size_t)s->prims->scratch_bytes(&s->args);
    b->way = kiln_blocking_way(&s->args.blocking, s->tiles);
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const gemm_q8_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_gemm_q8_args args = s->args;
    kiln_epilogue floats;
    kiln_program_post_args post;
    args.a = call->in[0];
    args.c = call->out[0];
    kiln_q8_resolve(&s->bound, call, &args.epilogue, &floats, &post);
    s->prims->run(&args, begin, end, call->scratch + (size_t)team->rank * call->scratch_bytes);
}

static const char *const tactics[] = {KILN_BLOCKINGS_Q8(KILN_BLOCKING_NAME) NULL};

const kiln_kernel kiln_kernel_gemm_q8 = {
    .name = "gemm_q8",
    .tactics = tactics,
    .computes = KILN_DTYPE_I8,
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
    .reference = kiln_q8_reference,
};
