#include "quant/choose.h"

#include <string.h>

#include "ops/ops.h"
#include "ops/util.h"

const char kiln_body_reason[] =
    "it stands in the body of a loop or branch, whose values are not calibrated";

/* ---- Options ---- */

kiln_layer_option kiln_layer_option_of(const kiln_place_options *options, const kiln_node *node) {
    kiln_layer_option found = {.pattern = ""};
    for (size_t i = 0; i < options->n_layers; i++) {
        found = kiln_pattern_fits(options->layers[i].pattern, node) ? options->layers[i] : found;
    }
    found.weight_bits = found.weight_bits ? found.weight_bits : 8;
    found.weight_percentile = found.weight_percentile > 0 ? found.weight_percentile : 99.99;
    return found;
}

/* Why the node is kept float by its name, or NULL. */
static const char *kept_by_name(const kiln_place_options *o, const kiln_node *node) {
    for (size_t i = 0; i < o->n_keep; i++) {
        if (strcmp(o->keep[i].name, node->name) == 0) {
            return o->keep[i].reason;
        }
    }
    return NULL;
}

/* ---- What may be int8 ---- */

static bool is_layer(const kiln_node *n) {
    return kiln_op_rule_of(n->op)->kind == KILN_QUANT_WEIGHTED;
}

static kiln_status refuse_demand(const kiln_node *n, const char *reason, kiln_diag *diag) {
    kiln_diag_at_node(diag, n->name, n->op->name);
    kiln_status status = kiln_fail(diag, KILN_F_PRECISION, "int8 cannot be had: %s", reason);
    kiln_diag_at_node(diag, NULL, NULL);
    return status;
}

/* Why the node cannot be int8 whatever is around it, or NULL. */
static const char *unfit(const kiln_node *n) {
    kiln_layer_use use;
    switch (kiln_quant_kind_of(n)) {
    case KILN_QUANT_NONE:
        return "Kiln has no 8-bit form of this operator";
    case KILN_QUANT_WEIGHTED:
        return kiln_layer_use_of(n, &use);
    default:
        return kiln_is_f32_tensor(kiln_node_in(n, 0)) && kiln_is_f32_tensor(n->out[0])
                   ? NULL
                   : "it does not compute on float32 tensors";
    }
}

static kiln_status judge(kiln_choice *c, const kiln_node *n, bool kept, const char *barred_reason,
                         kiln_diag *diag) {
    kiln_node_choice *choice = &c->nodes[n->id];
    const kiln_rule *rule = kiln_rules_find(&c->options->rules, n);
    const char *wrong = unfit(n), *by_name = kept_by_name(c->options, n);
    bool no_op = kiln_op_rule_of(n->op)->kind == KILN_QUANT_NONE;
    choice->asked = rule && rule->kind != KILN_RULE_ALL && rule->dtype == KILN_DTYPE_I8;
    if (choice->asked && wrong && (no_op || rule->kind == KILN_RULE_NAME)) {
        return refuse_demand(n, wrong, diag);
    }
    if (rule && rule->dtype != KILN_DTYPE_I8) {
        choice->reason = "a rule gives it another precision";
    } else if (by_name) {
        choice->reason = by_name;
    } else if (kept) {
        choice->reason = "the first and last layers stay float";
    } else if (c->barred && c->barred[n->id]) {
        choice->reason = barred_reason;
    } else if (kiln_op_rule_of(n->op)->on_request && !choice->asked && !c->options->dynamic) {
        choice->reason = "8 bits cost time here: only on request";
    } else {
        choice->reason = no_op ? NULL : wrong;
        c->may[n->id] = !wrong;
    }
    return KILN_OK;
}

/* Scales of values in bodies are known at run time alone: a rule cannot have a layer there. */
static kiln_status judge_body(const kiln_graph *g, const kiln_rules *rules, kiln_diag *diag) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        const kiln_rule *rule = kiln_rules_find(rules, n);
        if (is_layer(n) && rule && rule->kind == KILN_RULE_NAME && rule->dtype == KILN_DTYPE_I8) {
            return refuse_demand(n, kiln_body_reason, diag);
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(judge_body(n->bodies[b], rules, diag));
        }
    }
    return KILN_OK;
}

static kiln_status judge_all(kiln_choice *c, const char *barred_reason, kiln_diag *diag) {
    const kiln_graph *g = c->graph;
    int32_t layers = 0, seen = 0;
    const bool wanted = kiln_rules_want_int8(&c->options->rules);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        layers += is_layer(n) ? 1 : 0;
        bool pair = n->op == &kiln_op_quantize_linear || n->op == &kiln_op_dequantize_linear;
        if (pair && wanted) {
            return refuse_demand(n, "the graph is quantized already", diag);
        }
        for (int32_t b = 0; b < n->n_bodies && !c->options->dynamic; b++) {
            KILN_TRY(judge_body(n->bodies[b], &c->options->rules, diag));
        }
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        bool layer = is_layer(g->nodes[i]);
        bool kept =
            layer && (seen < c->options->keep_first || seen >= layers - c->options->keep_last);
        KILN_TRY(judge(c, g->nodes[i], kept, barred_reason, diag));
        seen += layer ? 1 : 0;
    }
    return KILN_OK;
}

/* ---- Values ---- */

/* Halves the way on the way. */
static int32_t group_of(const kiln_choice *c, int32_t id) {
    kiln_value_choice *v = c->values;
    while (v[id].group != id) {
        v[id].group = v[v[id].group].group;
        id = v[id].group;
    }
    return id;
}

int32_t kiln_choice_group(const kiln_choice *c, const kiln_value *v) {
    return group_of(c, v->id);
}

static void unite(kiln_choice *c, const kiln_value *a, const kiln_value *b) {
    int32_t x = group_of(c, a->id), y = group_of(c, b->id);
    c->values[x > y ? x : y].group = x > y ? y : x;
}

static void want(kiln_choice *c, const kiln_value *v) {
    if (!v->constant && kiln_is_f32_tensor(v) && !c->values[v->id].want) {
        c->values[v->id].want = true;
        c->changed = true;
    }
}

static void feed(kiln_choice *c, const kiln_value *v) {
    if (!c->values[v->id].feeds) {
        c->values[v->id].feeds = true;
        c->changed = true;
    }
}

static void choose_node(kiln_choice *c, const kiln_node *n) {
    if (!c->nodes[n->id].int8) {
        c->nodes[n->id].int8 = true;
        c->changed = true;
    }
}

/* Something behind the value runs on 8 bits. */
static bool is_useful(const kiln_choice *c, const kiln_value *v) {
    return c->values[v->id].want || c->values[v->id].feeds;
}

static bool read_once(const kiln_value *v) {
    return v->n_users == 1 && v->n_outputs == 0;
}

/* The node that makes v, if it may be int8. */
static const kiln_node *maker(const kiln_choice *c, const kiln_value *v) {
    const kiln_node *n = v->constant ? NULL : v->producer;
    return n && c->may[n->id] ? n : NULL;
}

/* v is the result of a layer, or of what a layer's kernel does right after it, for one reader. */
static bool is_epilogue(const kiln_choice *c, const kiln_value *v) {
    for (;;) {
        const kiln_node *n = read_once(v) ? maker(c, v) : NULL;
        kiln_quant_kind kind = n ? kiln_quant_kind_of(n) : KILN_QUANT_NONE;
        if (kind == KILN_QUANT_WEIGHTED || kind == KILN_QUANT_SUM) {
            return true;
        }
        if (kind != KILN_QUANT_CLAMP && kind != KILN_QUANT_UNARY) {
            return false;
        }
        v = n->in[0];
    }
}

/* All others that read v do so in 8 bits, or would for `but`. */
static bool readers_agree(const kiln_choice *c, const kiln_value *v, const kiln_node *but) {
    for (int32_t i = 0; i < v->n_users; i++) {
        const kiln_node *u = v->users[i];
        if (u != but && !c->nodes[u->id].int8) {
            return false;
        }
    }
    return v->n_outputs == 0;
}

/* v can be wanted by a node that is not a layer: it is already, or nobody minds. */
static bool may_want(const kiln_choice *c, const kiln_value *v, const kiln_node *by) {
    return !v->constant && kiln_is_f32_tensor(v) &&
           (c->values[v->id].want || readers_agree(c, v, by));
}

/* ---- Nodes, from the outputs up ---- */

static bool is_convolution(const kiln_node *n) {
    return n->op == &kiln_op_conv || n->op == &kiln_op_conv_transpose;
}

/* ONNX Runtime's integer convolutions give 8 bits, its integer products floats too. */
static void visit_layer(kiln_choice *c, const kiln_node *n) {
    kiln_layer_use use;
    if (kiln_layer_use_of(n, &use)) {
        return;
    }
    choose_node(c, n);
    for (int32_t i = 0; i < use.n_x; i++) {
        want(c, n->in[use.x[i]]);
    }
    const kiln_value *y = n->out[0];
    if (c->options->style == KILN_QDQ_ONNXRUNTIME && is_convolution(n) && !c->values[y->id].feeds &&
        y->n_users > 0) {
        want(c, y);
    }
}

/* A layer makes v, perhaps with a bias, and can add more to it before it rounds. */
static bool is_anchor(const kiln_choice *c, const kiln_value *v, const kiln_type *shape) {
    while (read_once(v) && kiln_type_same_shape(&v->type, shape)) {
        const kiln_node *n = maker(c, v);
        if (!n || n->op != &kiln_op_add) {
            return n && is_layer(n);
        }
        int32_t side = n->in[0]->constant ? 1 : 0;
        if (!n->in[1 - side]->constant) {
            return false;
        }
        v = n->in[side];
    }
    return false;
}

/* The operand that its layer takes along, the one made last of several; -1: none. */
static int32_t anchor_of(const kiln_choice *c, const kiln_node *n) {
    int32_t best = -1;
    for (int32_t i = 0; i < 2; i++) {
        bool fits = n->op == &kiln_op_add && c->options->style != KILN_QDQ_ONNXRUNTIME &&
                    is_anchor(c, n->in[i], &n->out[0]->type);
        if (fits && (best < 0 || n->in[i]->producer->id > n->in[best]->producer->id)) {
            best = i;
        }
    }
    return best;
}

static void visit_sum(kiln_choice *c, const kiln_node *n) {
    int32_t anchor = anchor_of(c, n);
    bool worth = anchor >= 0, ort = c->options->style == KILN_QDQ_ONNXRUNTIME;
    bool take[2] = {false, false};
    if (!is_useful(c, n->out[0]) || n->in[0] == n->in[1]) {
        return;
    }
    for (int32_t i = 0; i < 2; i++) {
        const kiln_value *v = n->in[i];
        bool whole = ort || kiln_type_same_shape(&v->type, &n->out[0]->type);
        take[i] = i != anchor && whole && maker(c, v) != NULL;
        worth = worth || take[i];
    }
    if (worth) {
        choose_node(c, n);
        for (int32_t i = 0; i < 2; i++) {
            if (take[i]) {
                want(c, n->in[i]);
            }
        }
    }
}

static bool any_wanted(const kiln_choice *c, const kiln_node *n) {
    for (int32_t i = 0; i < n->n_out; i++) {
        if (c->values[n->out[i]->id].want) {
            return true;
        }
    }
    return false;
}

/* One scale through the node. */
static void choose_mover(kiln_choice *c, const kiln_node *n) {
    choose_node(c, n);
    for (int32_t i = 0; i < kiln_data_inputs(n); i++) {
        want(c, n->in[i]);
        unite(c, n->in[0], n->in[i]);
    }
    for (int32_t i = 0; i < n->n_out; i++) {
        want(c, n->out[i]);
        unite(c, n->in[0], n->out[i]);
    }
}

/* If every operand can be had in 8 bits. */
static void visit_mover(kiln_choice *c, const kiln_node *n) {
    bool fits = any_wanted(c, n);
    for (int32_t i = 0; i < kiln_data_inputs(n); i++) {
        fits = fits && may_want(c, n->in[i], n);
    }
    if (fits) {
        choose_mover(c, n);
    }
}

/* v can be wanted by those of its readers that are marked: the others have it in 8 bits. */
static bool may_want_all(const kiln_choice *c, const kiln_value *v, const bool *marked) {
    if (v->constant || !kiln_is_f32_tensor(v)) {
        return false;
    }
    bool agree = v->n_outputs == 0;
    for (int32_t i = 0; i < v->n_users; i++) {
        int32_t u = v->users[i]->id;
        agree = agree && (c->nodes[u].int8 || marked[u]);
    }
    return c->values[v->id].want || agree;
}

/* Movers that read one value, as two halves of it, wait for each other: all that fit when all of
 * them do are chosen at once. */
static void choose_together(kiln_choice *c, bool *marked) {
    const kiln_graph *g = c->graph;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        marked[n->id] = c->may[n->id] && !c->nodes[n->id].int8 &&
                        kiln_quant_kind_of(n) == KILN_QUANT_SAME && any_wanted(c, n);
    }
    for (bool settled = false; !settled;) {
        settled = true;
        for (size_t i = 0; i < g->n_nodes; i++) {
            const kiln_node *n = g->nodes[i];
            bool fits = true;
            for (int32_t k = 0; marked[n->id] && k < kiln_data_inputs(n); k++) {
                fits = fits && may_want_all(c, n->in[k], marked);
            }
            if (!fits) {
                marked[n->id] = false;
                settled = false;
            }
        }
    }
    for (size_t i = g->n_nodes; i > 0; i--) {
        const kiln_node *n = g->nodes[i - 1];
        if (marked[n->id]) {
            choose_mover(c, n);
        }
    }
}

static void visit_average(kiln_choice *c, const kiln_node *n) {
    if (is_useful(c, n->out[0]) && may_want(c, n->in[0], n)) {
        choose_node(c, n);
        want(c, n->in[0]);
    }
}

/* Behind a layer the activation is part of it; elsewhere it takes 8 bits where its operand has
 * them, but for factors, which are there since 8 bits before them would be too coarse. */
static void visit_activation(kiln_choice *c, const kiln_node *n, kiln_quant_kind kind) {
    const kiln_value *x = n->in[0];
    bool apart = kind == KILN_QUANT_UNARY && c->options->style == KILN_QDQ_ONNXRUNTIME;
    if (!is_useful(c, n->out[0])) {
        return;
    }
    if (is_epilogue(c, x) && !apart) {
        choose_node(c, n);
        feed(c, x);
    } else if (!n->stays && maker(c, x) && may_want(c, x, n)) {
        choose_node(c, n);
        want(c, x);
    }
}

static void visit(kiln_choice *c, const kiln_node *n) {
    kiln_quant_kind kind = kiln_quant_kind_of(n);
    switch (kind) {
    case KILN_QUANT_WEIGHTED:
        visit_layer(c, n);
        break;
    case KILN_QUANT_SUM:
        visit_sum(c, n);
        break;
    case KILN_QUANT_SAME:
        visit_mover(c, n);
        break;
    case KILN_QUANT_AVERAGE:
        visit_average(c, n);
        break;
    case KILN_QUANT_CLAMP:
    case KILN_QUANT_UNARY:
        visit_activation(c, n, kind);
        break;
    default:
        break;
    }
}

/* Nodes that could be int8 and are not. */
static void explain(kiln_choice *c) {
    for (size_t i = 0; i < c->graph->n_nodes; i++) {
        kiln_node_choice *n = &c->nodes[c->graph->nodes[i]->id];
        if (c->may[c->graph->nodes[i]->id] && !n->int8) {
            n->reason = "no 8-bit layer reads its result, or its operands are read as floats";
        }
    }
}

/* Wishes only grow, so that this ends; one sweep settles all but what waits for a reader further
 * up. */
static void settle(kiln_choice *c, bool *marked) {
    const kiln_graph *g = c->graph;
    do {
        c->changed = false;
        for (size_t i = g->n_nodes; i > 0; i--) {
            const kiln_node *n = g->nodes[i - 1];
            if (c->may[n->id]) {
                visit(c, n);
            }
        }
        if (!c->changed) {
            choose_together(c, marked);
        }
    } while (c->changed);
}

/* Layers that find their scales themselves do not look at what is around them, which may be outside
 * this graph. */
static void choose_layers(kiln_choice *c) {
    for (size_t i = 0; i < c->graph->n_nodes; i++) {
        const kiln_node *n = c->graph->nodes[i];
        if (c->may[n->id] && is_layer(n)) {
            visit_layer(c, n);
        }
    }
}

kiln_status kiln_choose(kiln_choice *out, const kiln_graph *graph,
                        const kiln_place_options *options, const bool *barred,
                        const char *barred_reason, kiln_arena *arena, kiln_diag *diag) {
    kiln_choice *c = out;
    *c = (kiln_choice){.graph = graph, .options = options, .barred = barred};
    KILN_ALLOC(c->nodes, arena, graph->n_nodes);
    KILN_ALLOC(c->may, arena, graph->n_nodes);
    const int32_t n_values = kiln_graph_root(graph)->n_values;
    KILN_ALLOC(c->values, arena, n_values);
    for (int32_t i = 0; i < n_values; i++) {
        c->values[i].group = i;
    }
    bool *marked;
    KILN_ALLOC(marked, arena, graph->n_nodes);
    KILN_TRY(judge_all(c, barred_reason, diag));
    if (options->dynamic) {
        choose_layers(c);
    } else {
        settle(c, marked);
    }
    explain(c);
    return KILN_OK;
}

bool kiln_choice_reads(const kiln_choice *c, const kiln_value *v, const kiln_node *user) {
    if (!kiln_choice_wants(c, v) || user->n_bodies > 0) {
        return false;
    }
    const kiln_node *made = v->producer;
    return c->nodes[user->id].int8 || (made && c->nodes[made->id].int8);
}
