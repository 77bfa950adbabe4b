/* rnn_q8.c - LSTM, GRU and RNN between DequantizeLinear: x is uint8 with one scale and zero point,
 * which may be known at run time only; W and R are constant, int8 with zero point 0 or uint8 with
 * 128, with a scale for each row of a direction's matrix, or one.
 *
 * X W^T is an exact sum of products of bytes; it, its scale and the bias each round once. The state
 * stays float32, so that the recurrent products are float too: each sums h[k] q[k], the bytes of R
 * brought to float in registers, and is scaled when it is done. See rnn_core.h. */
#include <math.h>

#include "backend/cpu/kernels/q8_region.h"
#include "backend/cpu/kernels/rnn_core.h"
#include "backend/cpu/operand.h"
#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

enum { BLOB_W, BLOB_TABLES, BLOB_R, BLOB_R_SCALE, BLOB_RB, BLOB_PEEPHOLE };

typedef struct rnn_q8_params {
    kiln_rnn_params core;
    const kiln_node *w, *r;    /* their DequantizeLinear */
    int32_t scale_in, zero_in; /* numbers of the claim's inputs; zero_in -1: zero */
} rnn_q8_params;

typedef struct rnn_q8_state {
    kiln_rnn_bound core;
    const rnn_q8_params *p;
    const kiln_gemm_q8_prims *gemm;
    kiln_gemm_q8_args product;
    int64_t tiles, n;
    size_t tables_at; /* in the shared memory: scale and start of this run */
} rnn_q8_state;

/* ---- Claim ---- */

/* The DequantizeLinear of constant weights, taken along; NULL: refused. */
static const kiln_node *take_weights(kiln_claimer *c, kiln_claim *r, const kiln_value *v) {
    kiln_node *dq = kiln_claim_producer(c, v, &kiln_op_dequantize_linear);
    const char *wrong = dq ? kiln_q8_check_weights(dq, 1) : "the weights are not dequantized";
    if (wrong) {
        kiln_claim_refuse(c, "%s", wrong);
        return NULL;
    }
    return kiln_claim_add(c, r, dq) ? dq : NULL;
}

/* x is dequantized from uint8 by one float32 scale, whatever that is. */
static kiln_node *dequantized(const kiln_claimer *c, const kiln_value *v) {
    kiln_node *dq = kiln_claim_producer(c, v, &kiln_op_dequantize_linear);
    bool fits = dq && dq->in[0]->type.dtype == KILN_DTYPE_U8 && kiln_value_is_f32(dq->in[1]) &&
                kiln_type_elements(&dq->in[1]->type) == 1 &&
                ((const kiln_quant_attrs *)dq->attrs)->block_size == 0;
    return fits ? dq : NULL;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_rnn_params core;
    if (!kiln_rnn_read(c, node, &core)) {
        return NULL;
    }
    kiln_node *x = dequantized(c, node->in[KILN_RNN_X]);
    if (!x) {
        return kiln_claim_refuse(c, "its input is not dequantized from uint8 by one scale");
    }
    if (core.input < 1 || core.input > KILN_Q8_MAX_K) {
        return kiln_claim_refuse(c, "a sum would be empty, or too long for 32 bits");
    }
    kiln_claim *r =
        kiln_claim_new(c, &kiln_kernel_rnn_q8, node, 0, KILN_RNN_OUTS, sizeof(rnn_q8_params));
    if (!r || !kiln_claim_add(c, r, x) || !kiln_rnn_operands(c, r, &core, x->in[0])) {
        return NULL;
    }
    rnn_q8_params *p = r->params;
    kiln_value *zero = kiln_node_in(x, 2);
    p->core = core;
    p->scale_in = kiln_claim_input(c, r, x->in[1], KILN_LAYOUT_ROW);
    p->zero_in = zero ? kiln_claim_input(c, r, zero, KILN_LAYOUT_ROW) : -1;
    p->w = take_weights(c, r, node->in[KILN_RNN_W]);
    p->r = p->w ? take_weights(c, r, node->in[KILN_RNN_R]) : NULL;
    return p->r && c->status == KILN_OK ? r : NULL;
}

/* ---- Pack ---- */

/* The scales of the rows of a direction, which its weights' DequantizeLinear has along axis 1. */
static kiln_status read_scales(kiln_packer *k, const kiln_node *dq, int64_t width, float **out) {
    kiln_tensor t;
    KILN_TRY(kiln_pack_constant(k, dq->in[1], &t));
    KILN_ALLOC(*out, k->scratch, width);
    int64_t count = kiln_tensor_count(&t);
    for (int64_t i = 0; i < width; i++) {
        (*out)[i] = ((const float *)t.data)[i % count];
    }
    return KILN_OK;
}

/* Tables: the constant part of the factor, the bias, and the sums of the rows. */
static kiln_status pack_input(kiln_packer *k, const rnn_q8_params *p, void *w, float *tables) {
    const int64_t width = p->core.width, n = p->core.dirs * width, depth = p->core.input;
    const kiln_gemm_q8_prims *gemm = k->target->prims->gemm_q8;
    int32_t *sums = (int32_t *)(void *)(tables + 2 * kiln_q8_stride(n));
    kiln_tensor t;
    float *scales;
    KILN_TRY(kiln_q8_bytes(k, p->w->in[0], &t));
    KILN_TRY(read_scales(k, p->w, width, &scales));
    const int8_t *src = t.data;
    for (int64_t i = 0; i < n; i++) {
        tables[i] = scales[i % width];
        for (int64_t j = 0; j < depth; j++) {
            sums[i] += src[i * depth + j];
        }
    }
    gemm->pack(w, src, depth, n, 1, depth, 0, 0, gemm->panels(n));
    return KILN_OK;
}

static kiln_status pack_recurrent(kiln_packer *k, const rnn_q8_params *p, int8_t *r,
                                  float *r_scale) {
    const kiln_rnn_params *core = &p->core;
    kiln_rnn_kind kind = core->args[0].kind;
    kiln_tensor t;
    float *scales;
    KILN_TRY(kiln_q8_bytes(k, p->r->in[0], &t));
    KILN_TRY(read_scales(k, p->r, core->width, &scales));
    for (int64_t d = 0; d < core->dirs; d++) {
        kiln_rnn_pack_bytes(r + d * kiln_rnn_packed(kind, core->hidden), kind, core->hidden,
                            (const int8_t *)t.data + d * core->width * core->hidden);
        kiln_rnn_pack_scales(r_scale + d * kiln_rnn_scales(kind, core->hidden), kind, core->hidden,
                             scales);
    }
    return KILN_OK;
}

static kiln_status add_blob(kiln_packer *k, size_t bytes, void **out) {
    kiln_status status;
    *out = kiln_pack_blob(k, bytes, &status);
    return status;
}

static kiln_status pack(kiln_packer *k) {
    const rnn_q8_params *p = k->claim->params;
    const kiln_rnn_params *core = &p->core;
    const kiln_gemm_q8_prims *gemm = k->target->prims->gemm_q8;
    kiln_rnn_kind kind = core->args[0].kind;
    const int64_t n = core->dirs * core->width;
    void *w, *tables, *r, *r_scale, *rb, *peephole = NULL;
    KILN_TRY(add_blob(k, (size_t)gemm->packed_bytes(core->input, n), &w));
    KILN_TRY(add_blob(k, (size_t)kiln_q8_table_bytes(n, 1), &tables));
    KILN_TRY(add_blob(k, (size_t)(core->dirs * kiln_rnn_packed(kind, core->hidden)), &r));
    KILN_TRY(add_blob(k, (size_t)(core->dirs * kiln_rnn_scales(kind, core->hidden)) * sizeof(float),
                      &r_scale));
    KILN_TRY(add_blob(k, (size_t)(core->dirs * core->hidden) * sizeof(float), &rb));
    if (core->peephole) {
        KILN_TRY(add_blob(k, (size_t)(core->dirs * 3 * core->hidden) * sizeof(float), &peephole));
    }
    if (k->measuring) {
        return KILN_OK;
    }
    KILN_TRY(pack_input(k, p, w, tables));
    KILN_TRY(pack_recurrent(k, p, r, r_scale));
    return kiln_rnn_pack_vectors(k, core, (float *)tables + kiln_q8_stride(n), rb, peephole);
}

/* ---- Bind and run ---- */

static kiln_status bind(kiln_binder *b) {
    const rnn_q8_params *p = b->claim->params;
    rnn_q8_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->p = p;
    s->n = p->core.dirs * p->core.width;
    kiln_rnn_bind(&s->core, &p->core, b);
    s->core.weights = (kiln_rnn_weights){
        .r8 = b->blobs[BLOB_R].data,
        .r_scale = b->blobs[BLOB_R_SCALE].data,
        .rb = b->blobs[BLOB_RB].data,
        .peephole = p->core.peephole ? b->blobs[BLOB_PEEPHOLE].data : NULL,
    };
    s->tables_at = (b->shared_bytes + 63) & ~(size_t)63;
    b->shared_bytes = s->tables_at + 2 * (size_t)kiln_q8_stride(s->n) * sizeof(float);
    s->gemm = b->target->prims->gemm_q8;
    s->product =
        (kiln_gemm_q8_args){.m = s->core.rows,
                            .n = s->n,
                            .k = p->core.input,
                            .lda = p->core.input,
                            .b = b->blobs[BLOB_W].data,
                            .ldc = s->n,
                            .epilogue = {.lo = -INFINITY, .hi = INFINITY, .to_float = true}};
    s->tiles = s->gemm->tiles(&s->product);
    b->scratch_bytes = (size_t)s->gemm->scratch_bytes(&s->product);
    b->state = s;
    return KILN_OK;
}

/* The tables of this run, by all of the team, which then meets. */
static void make_tables(const rnn_q8_state *s, const kiln_call *call, const kiln_team *team,
                        kiln_q8_epilogue *out) {
    const int64_t stride = kiln_q8_stride(s->n);
    const float *factor = call->blobs[BLOB_TABLES].data, *bias = factor + stride;
    const int32_t *sums = (const int32_t *)(const void *)(bias + stride);
    float x_scale = *(const float *)call->in[s->p->scale_in];
    float *scale = (float *)(void *)((char *)call->shared + s->tables_at);
    int32_t *start = (int32_t *)(void *)(scale + stride);
    int32_t zero = s->p->zero_in >= 0 ? *(const uint8_t *)call->in[s->p->zero_in] : 0;
    int64_t begin, end;
    kiln_team_split(team, stride, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        scale[i] = factor[i] * x_scale;
        start[i] = -zero * sums[i];
    }
    kiln_team_barrier(team);
    out->scale = scale;
    out->start = start;
    out->offset = bias;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const rnn_q8_state *s = call->state;
    kiln_gemm_q8_args args = s->product;
    int64_t begin, end;
    make_tables(s, call, team, &args.epilogue);
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin < end) {
        args.a = call->in[0];
        args.c = call->shared;
        s->gemm->run(&args, begin, end, call->scratch + (size_t)team->rank * call->scratch_bytes);
    }
    kiln_rnn_recur(&s->core, call, team);
}

const kiln_kernel kiln_kernel_rnn_q8 = {
    .name = "rnn_q8",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
