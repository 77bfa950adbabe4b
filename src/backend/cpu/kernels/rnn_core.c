#include "backend/cpu/kernels/rnn_core.h"

#include <string.h>

#include "base/diag.h"
#include "ops/ops.h"

enum { OUT_Y, OUT_H, OUT_C };

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

/* NULL when the operands are ones the kernels take, else why not. */
static const char *check(const kiln_node *node) {
    const kiln_rnn_attrs *a = node->attrs;
    for (int32_t i = 0; i < node->n_in; i++) {
        const kiln_value *v = node->in[i];
        bool fixed = i == KILN_RNN_B || i == KILN_RNN_P;
        if (v && i != KILN_RNN_LENS && !kiln_value_is_f32_of_any_rank(v)) {
            return "it takes float32"; /* inference holds operands to the operator's ranks */
        }
        if (v && fixed && (!v->constant || !kiln_type_is_static(&v->type))) {
            return "the biases are not constant";
        }
        if ((i == KILN_RNN_W || i == KILN_RNN_R) && !kiln_type_is_static(&v->type)) {
            return "the weights have no known size";
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

static bool read_attributes(const kiln_node *node, kiln_rnn_params *p) {
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

bool kiln_rnn_read(kiln_claimer *c, const kiln_node *node, kiln_rnn_params *p) {
    const char *why = find_cell(node, &p->cell) ? check(node) : "it runs LSTM, GRU and RNN";
    if (!why && !read_attributes(node, p)) {
        why = "its activations are unknown";
    }
    if (why) {
        kiln_claim_refuse(c, "%s", why);
    }
    return !why;
}

static int32_t add_input(kiln_claimer *c, kiln_claim *r, const kiln_node *node, int32_t i) {
    kiln_value *v = kiln_node_in(node, i);
    return v ? kiln_claim_input(c, r, v, KILN_LAYOUT_ROW) : -1;
}

bool kiln_rnn_operands(kiln_claimer *c, kiln_claim *r, kiln_rnn_params *p, kiln_value *x) {
    const kiln_node *node = r->anchor;
    kiln_claim_input(c, r, x, KILN_LAYOUT_ROW);
    p->lens_in = add_input(c, r, node, KILN_RNN_LENS);
    p->h0_in = add_input(c, r, node, KILN_RNN_H0);
    p->c0_in = p->cell == KILN_CELL_LSTM ? add_input(c, r, node, KILN_RNN_C0) : -1;
    r->n_out = 0;
    for (int32_t i = 0; i < KILN_RNN_OUTS; i++) {
        p->out[i] = is_used(node, i) ? r->n_out : -1;
        if (p->out[i] >= 0) {
            r->out[r->n_out++] = node->out[i];
        }
    }
    return c->status == KILN_OK;
}

/* ---- Pack ---- */

/* Both biases summed, but for gates that add theirs later. */
static void pack_bias(const kiln_rnn_params *p, const float *b, float *bias, float *rb) {
    for (int64_t d = 0; d < p->dirs; d++, b += 2 * p->width) {
        int64_t later = p->keeps_rb ? 2 * p->hidden : p->width;
        for (int64_t j = 0; j < p->width; j++) {
            bias[d * p->width + j] = b[j] + (j < later ? b[p->width + j] : 0.0f);
        }
        memcpy(rb + d * p->hidden, b + 2 * p->width - p->hidden, (size_t)p->hidden * sizeof *rb);
    }
}

kiln_status kiln_rnn_pack_vectors(kiln_packer *k, const kiln_rnn_params *p, float *bias, float *rb,
                                  float *peephole) {
    const kiln_node *node = k->claim->anchor;
    kiln_tensor t;
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

void kiln_rnn_bind(kiln_rnn_bound *s, const kiln_rnn_params *p, kiln_binder *b) {
    const int64_t *x = b->in[0].tensor.dims;
    int64_t steps = x[p->batch_first], batch = x[!p->batch_first], n = p->dirs * p->width;
    s->p = p;
    s->prims = b->target->prims->rnn;
    s->rows = steps * batch;
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
    size_t floats = (size_t)s->rows * (size_t)n;
    s->state_at = (floats * sizeof(float) + 63) & ~(size_t)63;
    b->shared_bytes = s->state_at + (size_t)(p->dirs * kiln_rnn_state(&s->args[0])) * sizeof(float);
}

/* ---- Run ---- */

static float *at(float *base, int64_t offset) {
    return base ? base + offset : NULL;
}

static void *operand(void *const *list, int32_t i) {
    return i >= 0 ? list[i] : NULL;
}

static void set_addresses(const kiln_call *call, const kiln_rnn_bound *s, int64_t d,
                          kiln_rnn_args *a) {
    const kiln_rnn_params *p = s->p;
    int64_t state = d * s->args[d].batch * p->hidden;
    *a = s->args[d];
    a->lens = operand(call->in, p->lens_in);
    a->xw = (const float *)call->shared + d * p->width;
    const kiln_rnn_weights *w = &s->weights;
    int64_t packed = d * kiln_rnn_packed(a->kind, p->hidden);
    a->r = w->r ? w->r + packed : NULL;
    a->r8 = w->r8 ? w->r8 + packed : NULL;
    a->r_scale = w->r8 ? w->r_scale + d * kiln_rnn_scales(a->kind, p->hidden) : NULL;
    a->rb_h = p->keeps_rb ? w->rb + d * p->hidden : NULL;
    a->peephole = p->peephole ? w->peephole + d * 3 * p->hidden : NULL;
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

static split choose_split(const kiln_rnn_bound *s, int32_t members) {
    const kiln_rnn_args *a = &s->args[0];
    int64_t share = a->batch / members, macs = a->hidden * s->p->width;
    bool cached = macs * (int64_t)sizeof(float) <= CACHED_BYTES;
    if (members == 1 || (cached && share >= 2) || share >= BATCH_TILE) {
        return BY_BATCH;
    }
    return macs * a->batch / members >= UNITS_MACS ? BY_UNITS : ALONE;
}

/* The samples of this member from first step to last. */
static void run_samples(const kiln_rnn_bound *s, const kiln_rnn_args *a, int64_t begin,
                        int64_t end) {
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
static void run_units(const kiln_rnn_bound *s, const kiln_rnn_args *a, const kiln_team *group,
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

static void run_direction(const kiln_call *call, const kiln_rnn_bound *s, int64_t d,
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

static void check_lengths(const kiln_call *call, const kiln_rnn_bound *s) {
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

void kiln_rnn_recur(const kiln_rnn_bound *s, const kiln_call *call, const kiln_team *team) {
    int64_t dirs = s->p->dirs;
    if (team->rank == 0) {
        check_lengths(call, s);
    }
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
