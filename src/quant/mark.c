#include "quant/mark.h"

#include <math.h>
#include <string.h>

#include "ops/ops.h"

static bool is_layer(const kiln_node *n) {
    return kiln_op_rule_of(n->op)->kind == KILN_QUANT_WEIGHTED;
}

/* A rule for the node itself, not one whose stars happen to fit it. */
static bool names_it(const kiln_rule *rule) {
    return rule->kind == KILN_RULE_TYPE || !strpbrk(rule->pattern, "*?");
}

/* Some weight of a layer becomes infinite in float16. */
static kiln_status overflows(const kiln_node *n, kiln_arena *scratch, kiln_diag *diag, bool *out) {
    kiln_layer_use use;
    *out = false;
    if (!is_layer(n) || kiln_layer_use_of(n, &use)) {
        return KILN_OK;
    }
    for (int32_t k = 0; k < use.n_w; k++) {
        const kiln_value *v = n->in[use.w[k].in];
        kiln_tensor t;
        KILN_TRY(kiln_const_eval(v, &t, scratch, diag));
        const float *w = t.data;
        for (int64_t i = 0, count = kiln_tensor_count(&t); i < count; i++) {
            /* 65520 lies half-way to what would be the next number. */
            *out = *out || (isfinite(w[i]) && fabsf(w[i]) >= 65520.0f);
        }
    }
    return KILN_OK;
}

static kiln_status mark(kiln_precision *out, const char **reason, const kiln_node *node,
                        const kiln_place_options *options, kiln_arena *scratch, kiln_diag *diag) {
    const kiln_rule *rule = kiln_rules_find(&options->rules, node);
    kiln_dtype dtype = rule ? rule->dtype : KILN_DTYPE_NONE;
    bool mine = dtype == KILN_DTYPE_BF16 || dtype == KILN_DTYPE_F16;
    bool large = false;
    *out = (kiln_precision){KILN_DTYPE_NONE, false};
    if (dtype == KILN_DTYPE_F32 || (!mine && options->others == KILN_DTYPE_NONE)) {
        return KILN_OK;
    }
    out->dtype = mine ? dtype : options->others;
    out->obey = mine && rule->kind != KILN_RULE_ALL &&
                (is_layer(node) ? rule->kind == KILN_RULE_NAME : names_it(rule));
    if (out->dtype == KILN_DTYPE_F16) {
        KILN_TRY(overflows(node, scratch, diag, &large));
    }
    if (large && out->obey) {
        kiln_diag_at_node(diag, node->name, node->op->name);
        kiln_status status = kiln_fail(diag, KILN_F_PRECISION,
                                       "float16 cannot be had: a weight is larger than 65504");
        kiln_diag_at_node(diag, NULL, NULL);
        return status;
    }
    if (large) {
        *out = (kiln_precision){KILN_DTYPE_NONE, false};
        *reason = "a weight is too large for float16";
    }
    return KILN_OK;
}

static kiln_status mark_node(kiln_node *n, const char **reason, const kiln_place_options *options,
                             const kiln_graph *g, kiln_diag *diag) {
    kiln_arena weights;
    kiln_arena_init(&weights, g->env);
    kiln_status status = mark(&n->precision, reason, n, options, &weights, diag);
    kiln_arena_free(&weights);
    return status;
}

static kiln_status mark_bodies(const kiln_node *around, const kiln_place_options *options,
                               kiln_diag *diag) {
    for (int32_t b = 0; b < around->n_bodies; b++) {
        const kiln_graph *g = around->bodies[b];
        for (size_t i = 0; i < g->n_nodes; i++) {
            const char *unused;
            KILN_TRY(mark_node(g->nodes[i], &unused, options, g, diag));
            KILN_TRY(mark_bodies(g->nodes[i], options, diag));
        }
    }
    return KILN_OK;
}

kiln_status kiln_mark_nodes(const kiln_choice *choice, kiln_diag *diag) {
    const kiln_graph *g = choice->graph;
    kiln_status status = KILN_OK;
    for (size_t i = 0; i < g->n_nodes && status == KILN_OK; i++) {
        kiln_node *n = g->nodes[i];
        kiln_node_choice *c = &choice->nodes[n->id];
        if (!c->int8) {
            status = mark_node(n, &c->reason, choice->options, g, diag);
        }
        if (status == KILN_OK && !choice->options->dynamic) {
            status = mark_bodies(n, choice->options, diag);
        }
    }
    return status;
}
