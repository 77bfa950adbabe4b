/* rnn_f32.c - LSTM, GRU and RNN with constant weights, float32, one direction or both: see
 * rnn_core.h. */
#include "backend/cpu/kernels/rnn_core.h"
#include "backend/cpu/prims/gemm.h"
#include "ops/ops.h"

enum { BLOB_W, BLOB_BIAS, BLOB_R, BLOB_RB, BLOB_PEEPHOLE };

typedef struct rnn_state {
    kiln_rnn_bound core;
    const kiln_gemm_prims *gemm;
    kiln_gemm_args product;
    int64_t tiles;
} rnn_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_rnn_params p;
    if (!kiln_rnn_read(c, node, &p)) {
        return NULL;
    }
    if (!node->in[KILN_RNN_W]->constant || !node->in[KILN_RNN_R]->constant) {
        return kiln_claim_refuse(c, "the weights are not constant");
    }
    kiln_claim *r =
        kiln_claim_new(c, &kiln_kernel_rnn_f32, node, 0, KILN_RNN_OUTS, sizeof(kiln_rnn_params));
    if (!r || !kiln_rnn_operands(c, r, &p, node->in[KILN_RNN_X])) {
        return NULL;
    }
    *(kiln_rnn_params *)r->params = p;
    return r;
}

/* Adds a blob; *out stays NULL while measuring. */
static kiln_status add_floats(kiln_packer *k, int64_t n, float **out) {
    kiln_status status;
    *out = kiln_pack_blob(k, (size_t)n * sizeof(float), &status);
    return status;
}

static kiln_status pack(kiln_packer *k) {
    const kiln_rnn_params *p = k->claim->params;
    const kiln_node *node = k->claim->anchor;
    const kiln_gemm_prims *gemm = k->target->prims->gemm;
    kiln_rnn_kind kind = p->args[0].kind;
    int64_t n = p->dirs * p->width, r_floats = kiln_rnn_packed(kind, p->hidden);
    float *w, *bias, *r, *rb, *peephole = NULL;
    kiln_tensor t;
    KILN_TRY(add_floats(k, gemm->packed_bytes(p->input, n) / (int64_t)sizeof(float), &w));
    KILN_TRY(add_floats(k, n, &bias));
    KILN_TRY(add_floats(k, p->dirs * r_floats, &r));
    KILN_TRY(add_floats(k, p->dirs * p->hidden, &rb));
    if (p->peephole) {
        KILN_TRY(add_floats(k, p->dirs * 3 * p->hidden, &peephole));
    }
    if (k->measuring) {
        return KILN_OK;
    }
    KILN_TRY(kiln_pack_constant(k, node->in[KILN_RNN_W], &t));
    gemm->pack(w, t.data, p->input, n, 1, p->input, 0, gemm->panels(n));
    KILN_TRY(kiln_pack_constant(k, node->in[KILN_RNN_R], &t));
    for (int64_t d = 0; d < p->dirs; d++) {
        kiln_rnn_pack(r + d * r_floats, kind, p->hidden,
                      (const float *)t.data + d * p->width * p->hidden);
    }
    return kiln_rnn_pack_vectors(k, p, bias, rb, peephole);
}

static kiln_status bind(kiln_binder *b) {
    const kiln_rnn_params *p = b->claim->params;
    rnn_state *s;
    KILN_ALLOC(s, b->arena, 1);
    int64_t n = p->dirs * p->width;
    kiln_rnn_bind(&s->core, p, b);
    s->core.weights = (kiln_rnn_weights){
        .r = b->blobs[BLOB_R].data,
        .rb = b->blobs[BLOB_RB].data,
        .peephole = p->peephole ? b->blobs[BLOB_PEEPHOLE].data : NULL,
    };
    s->gemm = b->target->prims->gemm;
    s->product = (kiln_gemm_args){.m = s->core.rows,
                                  .n = n,
                                  .k = p->input,
                                  .lda = p->input,
                                  .ldc = n,
                                  .epilogue = KILN_EPILOGUE_NONE};
    s->tiles = s->gemm->tiles(&s->product);
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const rnn_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin < end) {
        kiln_gemm_args args = s->product;
        args.a = call->in[0];
        args.b = call->blobs[BLOB_W].data;
        args.c = call->shared;
        args.epilogue.bias = call->blobs[BLOB_BIAS].data;
        s->gemm->run(&args, begin, end);
    }
    kiln_rnn_recur(&s->core, call, team);
}

const kiln_kernel kiln_kernel_rnn_f32 = {
    .name = "rnn_f32",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
