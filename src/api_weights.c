/* api_weights.c - a model with its matrices in 8 or 4 bits and everything else in floats. */
#include <string.h>

#include "api.h"
#include "base/env.h"
#include "base/options.h"
#include "quant/op_rules.h"
#include "quant/weight_only.h"

static kiln_status check(const kiln_weight_options *o, kiln_diag *diag) {
    bool bits = o->bits == 8 || o->bits == 4;
    bool block = o->block == 0 || (o->block >= 16 && o->block <= 4096);
    return bits && block ? KILN_OK
                         : kiln_fail(diag, KILN_F_OPTION,
                                     "weights of %d bits in blocks of %lld cannot be had: 8 or 4 "
                                     "bits, blocks of 16 to 4096",
                                     o->bits, (long long)o->block);
}

static kiln_status report_graph(kiln_model *m, const kiln_graph *g, const char *done,
                                kiln_arena *arena) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        const kiln_value *w = n->n_in > 1 ? n->in[1] : NULL;
        bool layer = kiln_op_rule_of(n->op)->kind == KILN_QUANT_WEIGHTED;
        bool packed = layer && w && w->producer && !w->constant &&
                      strcmp(w->producer->op->name, "DequantizeLinear") == 0;
        kiln_node_precision item = {.name = n->name,
                                    .op = n->op->name,
                                    .layer = true,
                                    .reason = packed ? done : "it has no large constant matrix"};
        if (layer) {
            KILN_PUSH(arena, m->placed.nodes, m->placed.n_nodes, m->placed.cap_nodes, item);
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(report_graph(m, n->bodies[b], done, arena));
        }
    }
    return KILN_OK;
}

/* What each layer became, for kiln_model_precision; listed before it changes. */
static kiln_status report(kiln_model *m, const kiln_weight_options *o, kiln_arena *arena) {
    const char *done = kiln_arena_printf(arena,
                                         o->block ? "its weights alone: %d bits in blocks of %lld"
                                                  : "its weights alone: %d bits",
                                         o->bits, (long long)o->block);
    return done ? report_graph(m, m->import.graph, done, arena) : KILN_E_MEMORY;
}

static kiln_status quantize(kiln_model *m, const kiln_model *from, const kiln_weight_options *o,
                            kiln_diag *diag) {
    kiln_rules rules;
    KILN_TRY(check(o, diag));
    KILN_TRY(kiln_hold_new(&m->hold, m->env));
    kiln_hold_keep(m->hold, from->hold);
    kiln_arena *arena = kiln_hold_arena(m->hold);
    KILN_TRY(kiln_rules_parse(&rules, o->precision, arena, diag));
    KILN_TRY(kiln_model_canonical(m, from, o->off, diag));
    kiln_weight_only job = {.bits = o->bits, .block = o->block, .rules = &rules};
    KILN_TRY(kiln_weight_only_place(&job, m->import.graph, diag));
    kiln_note(diag, KILN_F_PRECISION,
              "%zu matrices in %d bits and %zu tables in 8, of %lld weights together",
              job.n_matrices, o->bits, job.n_tables, (long long)job.weights);
    if (job.n_matrices + job.n_tables == 0) {
        kiln_warn(diag, KILN_F_PRECISION, "the network has no large constant matrices to quantize");
    }
    KILN_TRY(report(m, o, arena));
    return kiln_model_complete(m, diag);
}

kiln_status kiln_quantize_weights(kiln_model **out, const kiln_model *model,
                                  const kiln_weight_options *options, kiln_diag *diag) {
    kiln_weight_options o;
    if (!model || kiln_options_read(&o, sizeof o, options) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "there is no model, or the options have no size or unknown fields");
    }
    kiln_model *m = kiln_env_alloc(model->env, sizeof *m);
    if (!m) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(m, 0, sizeof *m);
    m->env = model->env;
    o.bits = o.bits ? o.bits : 8;
    kiln_diag_enter(diag, "quantizing weights");
    kiln_status status = quantize(m, model, &o, diag);
    kiln_diag_leave(diag);
    if (status == KILN_OK) {
        *out = m;
    } else {
        kiln_model_destroy(m);
    }
    return kiln_diag_close(diag, status);
}
