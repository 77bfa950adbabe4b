/* matmul_integer.c - MatMulInteger by constant weights and what follows it (q8_dynamic.h): the
 * products of dynamically quantized networks. All leading dims of the activations are rows of one
 * matrix. */
#include "backend/cpu/axes.h"
#include "backend/cpu/kernels/q8_dynamic.h"
#include "ops/ops.h"

typedef struct matmul_integer_params {
    kiln_q8_dynamic d;
    int64_t k;
} matmul_integer_params;

typedef struct matmul_integer_state {
    const kiln_gemm_q8_prims *prims;
    kiln_q8_dynamic_bound bound;
    kiln_gemm_q8_args args;
    int64_t tiles;
} matmul_integer_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, matmul_integer)) {
        return kiln_claim_refuse(c, "it runs MatMulInteger");
    }
    const kiln_type *w = &node->in[1]->type;
    if (w->rank != 2 || !kiln_type_is_static(w)) {
        return kiln_claim_refuse(c, "the second operand is no matrix of known size");
    }
    if (w->dims[0] < 1 || w->dims[0] > KILN_Q8_MAX_K) {
        return kiln_claim_refuse(c, "a sum would be empty, or too long for 32 bits");
    }
    kiln_claim *r =
        kiln_claim_new(c, &kiln_kernel_matmul_integer, node, 1, 1, sizeof(matmul_integer_params));
    if (!r) {
        return NULL;
    }
    matmul_integer_params *p = r->params;
    p->k = w->dims[0];
    int32_t channel = node->out[0]->type.rank - 1;
    return kiln_q8_dynamic_claim(c, r, &p->d, channel, w->dims[1], KILN_LAYOUT_ROW) ? r : NULL;
}

static kiln_status pack(kiln_packer *k) {
    const matmul_integer_params *p = k->claim->params;
    const kiln_gemm_q8_prims *gemm = k->target->prims->gemm_q8;
    const int64_t n = p->d.n;
    kiln_status status, second;
    void *w = kiln_pack_blob(k, (size_t)gemm->packed_bytes(p->k, n), &status);
    float *tables = kiln_q8_dynamic_blob(k, &p->d, &second);
    if (!w || !tables) {
        return status ? status : second;
    }
    kiln_tensor source;
    KILN_TRY(kiln_q8_bytes(k, k->claim->anchor->in[1], &source));
    const int8_t *src = source.data;
    int32_t *sums = kiln_q8_dynamic_sums(&p->d, tables);
    for (int64_t i = 0; i < p->k * n; i++) {
        sums[i % n] += src[i];
    }
    gemm->pack(w, src, p->k, n, n, 1, 0, 0, gemm->panels(n));
    return kiln_q8_dynamic_pack(k, &p->d, tables);
}

static kiln_status bind(kiln_binder *b) {
    const matmul_integer_params *p = b->claim->params;
    matmul_integer_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[0].tensor;
    int64_t m = kiln_matrix_rows(x);
    s->prims = b->target->prims->gemm_q8;
    s->args = (kiln_gemm_q8_args){
        .m = m, .n = p->d.n, .k = p->k, .lda = p->k, .b = b->blobs[0].data, .ldc = p->d.n};
    kiln_q8_dynamic_bind(&s->bound, &p->d, b);
    s->tiles = s->prims->tiles(&s->args);
    b->scratch_bytes = (size_t)s->prims->scratch_bytes(&s->args);
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const matmul_integer_state *s = call->state;
    kiln_gemm_q8_args args = s->args;
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
        args.a = call->in[0];
        args.c = call->out[0];
        s->prims->run(&args, begin, end, call->scratch + (size_t)team->rank * call->scratch_bytes);
    }
}

const kiln_kernel kiln_kernel_matmul_integer = {
    .name = "matmul_integer",
    .computes = KILN_DTYPE_I8,
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
