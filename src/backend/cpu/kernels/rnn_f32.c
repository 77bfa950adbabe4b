/* rnn_f32.c - LSTM, GRU and RNN with constant weights, float32, one direction or both.
 *
 * X W^T + bias of all steps and directions is one matrix product into a shared buffer; the
 * recurrences follow. Directions go to two halves of the team. Within a direction the samples are
 * split, which needs no barrier, or the hidden units, with one per phase.
 *
 * Legend: T steps, B batch, I input size, H hidden size, D directions, width = gates * H.
 * X [T, B, I], Y [T, D, B, H]; with layout 1 X [B, T, I], Y [B, T, D, H]. */
#include <math.h>
#include <string.h>

#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/gemm.h"
#include "backend/cpu/prims/rnn.h"
#include "base/diag.h"
#include "ops/ops.h"
#include "ops/recurrent.h"

enum { OUT_Y, OUT_H, OUT_C, N_OUT };
enum { BLOB_W, BLOB_BIAS, BLOB_R, BLOB_RB, BLOB_PEEPHOLE };
enum { MAX_DIRS = 2 };

typedef struct rnn_params {
    kiln_cell cell;
    int64_t dirs, input, hidden, width;
    bool batch_first;
    bool keeps_rb; /* GRU whose h gate adds its recurrent bias before the reset */
    bool peephole;
    int32_t lens_in, h0_in, c0_in; /* numbers of the claim's inputs, or -1 */
    int32_t out[N_OUT];            /* numbers of the claim's outputs, or -1 */
    kiln_rnn_args args[MAX_DIRS];  /* what attributes decide */
} rnn_params;

typedef struct rnn_state {
    const rnn_params *p;
    const kiln_gemm_prims *gemm;
    const kiln_rnn_prims *prims;
    kiln_gemm_args product;
    int64_t tiles;
    kiln_rnn_args args[MAX_DIRS]; /* all but addresses */
    int64_t y_dir;                /* elements from one direction to the next in Y */
    size_t state_at;              /* in the shared buffer, behind the product */
} rnn_state;

/* ---- Claim ---- */

static bool find_cell(const kiln_node *node, kiln_cell *cell) {
    static const struct {
        const kiln_op *op;
        kiln_cell cell;
    } cells[] = {{&kiln_op_lstm, KILN_CELL_LSTM},
                 {&kiln_op_gru, KILN_CELL_GRU},
                 {&kiln_op_rnn, KILN_CELL_RNN}};
    for (size_t i = 0; i < KILN_COUNT_OF(cells); i++) {
        if (cells[i].op == node->op) {
            *cell = cells[i].cell;
            return true;
        }
    }
    return false;
}

static bool is_used(const kiln_node *n, int32_t out) {
    return out < n->n_out && (n->out[out]->n_users > 0 || n->out[out]->n_outputs > 0);
}

/* NULL when the operands are ones the kernel takes, else why not. */
static const char *check(const kiln_node *node) {
    const kiln_rnn_attrs *a = node->attrs;
    for (int32_t i = 0; i < node->n_in; i++) {
        const kiln_value *v = node->in[i];
        bool weight = i == KILN_RNN_W || i == KILN_RNN_R || i == KILN_RNN_B || i == KILN_RNN_P;
        if (v && i != KILN_RNN_LENS && !kiln_value_is_f32_of_any_rank(v)) {
            return "it takes float32"; /* inference holds operands to the operator's ranks */
        }
        if (v && weight && (!v->constant || !kiln_type_is_static(&v->type))) {
            return "the weights are not constant";
        }
    }
    bool states = kiln_node_in(node, KILN_RNN_H0) || kiln_node_in(node, KILN_RNN_C0) ||
                  is_used(node, OUT_H) || is_used(node, OUT_C);
    if (a->direction == 2 && a->layout != 0 && states) {
        return "the states of two directions alternate";
    }
    return NULL;
}

/* The two enums list the same functions. */
_Static_assert((int)KILN_ACT_SIGMOID == (int)KILN_CELL_SIGMOID &&
                   (int)KILN_ACT_AFFINE == (int)KILN_CELL_AFFINE &&
                   (int)KILN_ACT_HARD_SIGMOID == (int)KILN_CELL_HARD_SIGMOID &&
                   (int)KILN_ACT_SOFTPLUS == (int)KILN_CELL_SOFTPLUS,
               "activations are numbered alike");

static bool read_attributes(const kiln_node *node, rnn_params *p) {
    static const kiln_rnn_kind kinds[] = {[KILN_CELL_RNN] = KILN_RNN_SIMPLE,
                                          [KILN_CELL_GRU] = KILN_RNN_GRU,
                                          [KILN_CELL_LSTM] = KILN_RNN_LSTM};
    const kiln_rnn_attrs *a = node->attrs;
    const kiln_type *w = &node->in[KILN_RNN_W]->type, *r = &node->in[KILN_RNN_R]->type;
    kiln_cell_activation act[6];
    if (kiln_cell_activations(p->cell, a, NULL, act) != KILN_OK) {
        return false;
    }
    p->dirs = w->dims[0];
    p->input = w->dims[2];
    p->hidden = r->dims[2];
    p->width = w->dims[1];
    p->batch_first = a->layout != 0;
    p->keeps_rb =
        p->cell == KILN_CELL_GRU && a->linear_before_reset && kiln_node_in(node, KILN_RNN_B);
    p->peephole = kiln_node_in(node, KILN_RNN_P) != NULL;
    int32_t each = kiln_cell_act_count(p->cell);
    for (int64_t d = 0; d < p->dirs; d++) {
        kiln_rnn_args *g = &p->args[d];
        *g = (kiln_rnn_args){.kind = kinds[p->cell],
                             .hidden = p->hidden,
                             .reverse = a->direction == 1 || d == 1,
                             .linear_before_reset = a->linear_before_reset != 0,
                             .input_forget = a->input_forget != 0,
                             .clip = a->clip};
        for (int32_t i = 0; i < each; i++) {
            const kiln_cell_activation *f = &act[d * each + i];
            g->act[i] = (kiln_rnn_act)f->kind;
            g->alpha[i] = f->alpha;
            g->beta[i] = f->beta;
        }
    }
    return true;
}

static int32_t add_input(kiln_claimer *c, kiln_claim *r, const kiln_node *node, int32_t i) {
    kiln_value *v = kiln_node_in(node, i);
    return v ? kiln_claim_input(c, r, v, KILN_LAYOUT_ROW) : -1;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_cell cell;
    if (!find_cell(node, &cell)) {
        return kiln_claim_refuse(c, "it runs LSTM, GRU and RNN");
    }
    const char *why = check(node);
    if (why) {
        return kiln_claim_refuse(c, "%s", why);
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_rnn_f32, node, 0, N_OUT, sizeof(rnn_params));
    if (!r) {
        return NULL;
    }
    rnn_params *p = r->params;
    p->cell = cell;
    if (!read_attributes(node, p)) {
        return kiln_claim_refuse(c, "its activations are unknown");
    }
    add_input(c, r, node, KILN_RNN_X);
    p->lens_in = add_input(c, r, node, KILN_RNN_LENS);
    p->h0_in = add_input(c, r, node, KILN_RNN_H0);
    p->c0_in = cell == KILN_CELL_LSTM ? add_input(c, r, node, KILN_RNN_C0) : -1;
    r->n_out = 0;
    for (int32_t i = 0; i < N_OUT; i++) {
        p->out[i] = is_used(node, i) ? r->n_out : -1;
        if (p->out[i] >= 0) {
            r->out[r->n_out++] = node->out[i];
        }
    }
    return c->status == KILN_OK ? r : NULL;
}

/* ---- Pack ---- */

/* Adds a blob; *out stays NULL while measuring. */
static kiln_status add_floats(kiln_packer *k, int64_t n, float **out) {
    kiln_status status;
    *out = kiln_pack_blob(k, (size_t)n * sizeof(float), &status);
    return status;
}

/* Both biases summed, but for gates that add theirs later. */
static void pack_bias(const rnn_params *p, const float *b, float *bias, float *rb) {
    for (int64_t d = 0; d < p->dirs; d++, b += 2 * p->width) {
        int64_t later = p->keeps_rb ? 2 * p->hidden : p->width;
        for (int64_t j = 0; j < p->width; j++) {
            bias[d * p->width + j] = b[j] + (j < later ? b[p->width + j] : 0.0f);
        }
        memcpy(rb + d * p->hidden, b + 2 * p->width - p->hidden, (size_t)p->hidden * sizeof *rb);
    }
}

static kiln_status pack(kiln_packer *k) {
    const rnn_params *p = k->claim->params;
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
    if (kiln_node_in(node, KILN_RNN_B)) {
        KILN_TRY(kiln_pack_constant(k, node->in[KILN_RNN_B], &t));
        pack_bias(p, t.data, bias, rb);
    }
    if (p->peephole) {
        KILN_TRY(kiln_pack_constant(k, node->in[KILN_RNN_P], &t));
        memcpy(peephole, t.data, (size_t)(p->dirs * 3 * p->hidden) * sizeof *peephole);
    }
    return KILN_OK;
}

/* ---- Bind ---- */

static kiln_status bind(kiln_binder *b) {
    const rnn_params *p = b->claim->params;
    rnn_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const int64_t *x = b->in[0].tensor.dims;
    int64_t steps = x[p->batch_first], batch = x[!p->batch_first], n = p->dirs * p->width;
    s->p = p;
    s->gemm = b->target->prims->gemm;
    s->prims = b->target->prims->rnn;
    s->product = (kiln_gemm_args){.m = steps * batch,
                                  .n = n,
                                  .k = p->input,
                                  .lda = p->input,
                                  .ldc = n,
                                  .epilogue = KILN_EPILOGUE_NONE};
    s->tiles = s->gemm->tiles(&s->product);
    s->y_dir = p->batch_first ? p->hidden : batch * p->hidden;
    for (int64_t d = 0; d < p->dirs; d++) {
        kiln_rnn_args *a = &s->args[d];
        *a = p->args[d];
        a->steps = steps;
        a->batch = batch;
        a->xw_step = p->batch_first ? n : batch * n;
        a->xw_batch = p->batch_first ? steps * n : n;
        a->y_step = p->batch_first ? p->dirs * p->hidden : p->dirs * batch * p->hidden;
        a->y_batch = p->batch_first ? steps * p->dirs * p->hidden : p->hidden;
    }
    size_t floats = (size_t)(steps * batch) * (size_t)n;
    s->state_at = (floats * sizeof(float) + 63) & ~(size_t)63;
    b->shared_bytes = s->state_at + (size_t)(p->dirs * kiln_rnn_state(&s->args[0])) * sizeof(float);
    b->state = s;
    return KILN_OK;
}

/* ---- Run ---- */

static float *at(float *base, int64_t offset) {
    return base ? base + offset : NULL;
}

static void *operand(void *const *list, int32_t i) {
    return i >= 0 ? list[i] : NULL;
}

static void set_addresses(const kiln_call *call, const rnn_state *s, int64_t d, kiln_rnn_args *a) {
    const rnn_params *p = s->p;
    int64_t state = d * s->args[d].batch * p->hidden;
    *a = s->args[d];
    a->lens = operand(call->in, p->lens_in);
    a->xw = (const float *)call->shared + d * p->width;
    a->r = (const float *)call->blobs[BLOB_R].data + d * kiln_rnn_packed(a->kind, p->hidden);
    a->rb_h = p->keeps_rb ? (const float *)call->blobs[BLOB_RB].data + d * p->hidden : NULL;
    a->peephole =
        p->peephole ? (const float *)call->blobs[BLOB_PEEPHOLE].data + d * 3 * p->hidden : NULL;
    a->h0 = at(operand(call->in, p->h0_in), state);
    a->c0 = at(operand(call->in, p->c0_in), state);
    a->y = at(operand(call->out, p->out[OUT_Y]), d * s->y_dir);
    a->y_h = at(operand(call->out, p->out[OUT_H]), state);
    a->y_c = at(operand(call->out, p->out[OUT_C]), state);
    a->state = (float *)((char *)call->shared + s->state_at) + d * kiln_rnn_state(a);
}

/* How the members that share a direction split it. */
typedef enum split { BY_BATCH, BY_UNITS, ALONE } split;

/* Below this many multiply-adds per member and step a barrier costs more than it brings; up to
 * this many bytes every member's cache holds all of R. */
enum { UNITS_MACS = 12 * 1024, CACHED_BYTES = 384 * 1024, BATCH_TILE = 8 };

static split choose_split(const rnn_state *s, int32_t members) {
    const kiln_rnn_args *a = &s->args[0];
    int64_t share = a->batch / members, macs = a->hidden * s->p->width;
    bool cached = macs * (int64_t)sizeof(float) <= CACHED_BYTES;
    if (members == 1 || (cached && share >= 2) || share >= BATCH_TILE) {
        return BY_BATCH;
    }
    return macs * a->batch / members >= UNITS_MACS ? BY_UNITS : ALONE;
}

/* The samples of this member from first step to last. */
static void run_samples(const rnn_state *s, const kiln_rnn_args *a, int64_t begin, int64_t end) {
    int64_t blocks = kiln_rnn_blocks(a->hidden);
    if (begin >= end) {
        return;
    }
    s->prims->begin(a, begin, end);
    for (int64_t t = 0; t < a->steps; t++) {
        for (int phase = 0; phase < kiln_rnn_phases(a); phase++) {
            s->prims->step(a, t, phase, 0, blocks, begin, end);
        }
    }
    s->prims->end(a, begin, end);
}

/* The hidden units of this member; the barriers are the whole team's. */
static void run_units(const rnn_state *s, const kiln_rnn_args *a, const kiln_team *group,
                      const kiln_team *team) {
    int64_t block0, block1, batch0, batch1;
    kiln_team_split(group, kiln_rnn_blocks(a->hidden), &block0, &block1);
    kiln_team_split(group, a->batch, &batch0, &batch1);
    s->prims->begin(a, batch0, batch1);
    kiln_team_barrier(team);
    for (int64_t t = 0; t < a->steps; t++) {
        for (int phase = 0; phase < kiln_rnn_phases(a); phase++) {
            s->prims->step(a, t, phase, block0, block1, 0, a->batch);
            kiln_team_barrier(team);
        }
    }
    s->prims->end(a, batch0, batch1);
}

static void run_direction(const kiln_call *call, const rnn_state *s, int64_t d,
                          const kiln_team *group, const kiln_team *team, split how) {
    kiln_rnn_args a;
    int64_t begin = 0, end;
    set_addresses(call, s, d, &a);
    if (how == BY_UNITS) {
        run_units(s, &a, group, team);
        return;
    }
    kiln_team_split(group, a.batch, &begin, &end);
    if (how == ALONE) {
        begin = 0;
        end = group->rank == 0 ? a.batch : 0;
    }
    run_samples(s, &a, begin, end);
}

static void check_lengths(const kiln_call *call, const rnn_state *s) {
    const int32_t *lens = operand(call->in, s->p->lens_in);
    const kiln_rnn_args *a = &s->args[0];
    for (int64_t b = 0; lens && b < a->batch; b++) {
        if (lens[b] < 0 || lens[b] > a->steps) {
            call->env->status = kiln_fail(call->env->diag, KILN_F_VALUE,
                                          "sequence_lens[%lld] is %lld, X has %lld steps",
                                          (long long)b, (long long)lens[b], (long long)a->steps);
            return;
        }
    }
}

static void run_product(const kiln_call *call, const rnn_state *s, const kiln_team *team) {
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
}

static void run(const kiln_call *call, const kiln_team *team) {
    const rnn_state *s = call->state;
    int64_t dirs = s->p->dirs;
    if (team->rank == 0) {
        check_lengths(call, s);
    }
    run_product(call, s, team);
    kiln_team_barrier(team);
    if (dirs == 1 || team->size == 1) {
        for (int64_t d = 0; d < dirs; d++) {
            run_direction(call, s, d, team, team, choose_split(s, team->size));
        }
        return;
    }
    /* Both halves take the same decision, since they meet at the same barriers. */
    int32_t half = team->size / 2;
    bool second = team->rank >= half;
    kiln_team group = {.size = second ? team->size - half : half,
                       .rank = second ? team->rank - half : team->rank};
    run_direction(call, s, second, &group, team, choose_split(s, half));
}

const kiln_kernel kiln_kernel_rnn_f32 = {
    .name = "rnn_f32",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
