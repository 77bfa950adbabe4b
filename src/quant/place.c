#include "quant/place.h"

#include <string.h>

#include "ops/attrs.h"
#include "ops/ops.h"
#include "quant/calibration.h"
#include "quant/dynamic.h"
#include "quant/mark.h"
#include "quant/rewrite.h"
#include "quant/scales.h"

/* ---- What is needed ---- */

/* How its first reader wants the range to be found. */
static const kiln_calibrate_options *how_to(const kiln_choice *c, const kiln_value *v) {
    for (int32_t i = 0; i < v->n_users; i++) {
        const kiln_calibrate_options *how =
            c->nodes[v->users[i]->id].int8
                ? kiln_layer_option_of(c->options, v->users[i]).activations
                : NULL;
        if (how) {
            return how;
        }
    }
    return NULL;
}

/* Calls `see` for every value that is quantized, in the order in which they are computed. */
typedef kiln_status (*see_fn)(void *user, const kiln_value *v);

static kiln_status each_wanted(const kiln_choice *c, see_fn see, void *user) {
    const kiln_graph *g = c->graph;
    for (size_t i = 0; i < g->n_inputs; i++) {
        KILN_TRY(kiln_choice_wants(c, g->inputs[i]) ? see(user, g->inputs[i]) : KILN_OK);
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int32_t k = 0; k < g->nodes[i]->n_out; k++) {
            const kiln_value *v = g->nodes[i]->out[k];
            KILN_TRY(kiln_choice_wants(c, v) ? see(user, v) : KILN_OK);
        }
    }
    return KILN_OK;
}

typedef struct listing {
    const kiln_choice *choice;
    kiln_arena *arena;
    kiln_needed *items;
    size_t n, cap;
} listing;

static kiln_status list_value(void *user, const kiln_value *v) {
    listing *l = user;
    kiln_needed item = {v->name, how_to(l->choice, v)};
    KILN_PUSH(l->arena, l->items, l->n, l->cap, item);
    return KILN_OK;
}

kiln_status kiln_place_needed(kiln_needed **out, size_t *n, const kiln_graph *graph,
                              const kiln_place_options *options, kiln_arena *arena,
                              kiln_diag *diag) {
    kiln_choice choice;
    if (options->dynamic) {
        *out = NULL;
        *n = 0;
        return KILN_OK;
    }
    KILN_TRY(kiln_choose(&choice, graph, options, NULL, NULL, arena, diag));
    listing l = {.choice = &choice, .arena = arena};
    KILN_TRY(each_wanted(&choice, list_value, &l));
    *out = l.items;
    *n = l.n;
    return KILN_OK;
}

/* ---- Ranges of groups ---- */

/* One scale, made into constants when it is first used. */
typedef struct group {
    bool known;
    double lo, hi;
    kiln_qparams q;
    kiln_value *scale, *zero;
} group;

typedef struct placer {
    kiln_rewrite r;
    const kiln_place_options *options;
    const kiln_ranges *ranges;
    kiln_choice choice;
    group *groups;          /* per value id of the group */
    kiln_value **quantized; /* per value id: what 8-bit readers read instead */
    size_t n_quantized;
} placer;

static group *group_of(const placer *p, const kiln_value *v) {
    return &p->groups[kiln_choice_group(&p->choice, v)];
}

static kiln_status widen_group(void *user, const kiln_value *v) {
    placer *p = user;
    const kiln_range *r = kiln_ranges_find(p->ranges, v->name);
    group *g = group_of(p, v);
    if (r) {
        g->lo = g->known && g->lo < r->lo ? g->lo : r->lo;
        g->hi = g->known && g->hi > r->hi ? g->hi : r->hi;
        g->known = true;
    }
    return KILN_OK;
}

static kiln_status find_ranges(placer *p) {
    const kiln_scheme scheme = {8, p->options->style == KILN_QDQ_TENSORRT};
    KILN_ALLOC(p->groups, &p->r.scratch, p->r.graph->n_values);
    KILN_TRY(each_wanted(&p->choice, widen_group, p));
    for (int32_t i = 0; i < p->r.graph->n_values; i++) {
        p->groups[i].q = kiln_qparams_of(p->groups[i].lo, p->groups[i].hi, &scheme);
    }
    return KILN_OK;
}

/* Bars the 8-bit readers and makers of values without a range; *n counts them. */
static kiln_status bar_unknown(placer *p, bool *barred, size_t *n) {
    const kiln_choice *c = &p->choice;
    *n = 0;
    for (size_t i = 0; i < p->r.graph->n_nodes; i++) {
        const kiln_node *node = p->r.graph->nodes[i];
        bool missing = false;
        for (int32_t k = 0; k < node->n_in + node->n_out; k++) {
            const kiln_value *v = k < node->n_in ? node->in[k] : node->out[k - node->n_in];
            bool reads = v && kiln_choice_wants(c, v) && c->nodes[node->id].int8;
            /* What a layer gives is the wish of those who read it. */
            bool own = k < node->n_in || kiln_op_rule_of(node->op)->kind != KILN_QUANT_WEIGHTED ||
                       p->options->style == KILN_QDQ_ONNXRUNTIME;
            missing = missing || (reads && own && !group_of(p, v)->known);
        }
        *n += missing && !barred[node->id] ? 1 : 0;
        barred[node->id] = barred[node->id] || missing;
    }
    return KILN_OK;
}

/* Chooses until every value that is wanted has a range. */
static kiln_status choose_known(placer *p, size_t *n_missing) {
    bool *barred;
    size_t n;
    *n_missing = 0;
    KILN_ALLOC(barred, &p->r.scratch, p->r.graph->n_nodes);
    do {
        KILN_TRY(kiln_choose(&p->choice, p->r.graph, p->options, barred,
                             "the calibration has no range for a value it reads", &p->r.scratch,
                             p->r.diag));
        KILN_TRY(find_ranges(p));
        KILN_TRY(bar_unknown(p, barred, &n));
    } while (n > 0);
    for (size_t i = 0; i < p->r.graph->n_nodes; i++) {
        const kiln_node *node = p->r.graph->nodes[i];
        bool layer = kiln_op_rule_of(node->op)->kind == KILN_QUANT_WEIGHTED;
        *n_missing += barred[node->id] && layer ? 1 : 0;
    }
    if (*n_missing > 0) {
        kiln_warn(p->r.diag, KILN_F_CALIBRATION,
                  "%zu layers stay float: the calibration has no range for what they read",
                  *n_missing);
    }
    return KILN_OK;
}

/* ---- New nodes ---- */

static kiln_status group_constants(placer *p, group *g, const char *name) {
    if (g->scale) {
        return KILN_OK;
    }
    uint8_t zero = (uint8_t)g->q.zero;
    kiln_tensor t = {.dtype = g->q.dtype, .cap_bytes = 1};
    t.data = kiln_arena_copy(p->r.graph->arena, &zero, 1);
    KILN_TRY(t.data ? KILN_OK : KILN_E_MEMORY);
    KILN_TRY(kiln_graph_scalar(&g->scale, p->r.graph, g->q.scale));
    KILN_TRY(kiln_graph_constant(&g->zero, p->r.graph, NULL, &t));
    KILN_TRY(kiln_rewrite_name(&p->r, g->scale, name, "scale"));
    return kiln_rewrite_name(&p->r, g->zero, name, "zero_point");
}

/* QuantizeLinear and DequantizeLinear of a value that has just been made. */
static kiln_status quantize(placer *p, kiln_value *v) {
    group *g = group_of(p, v);
    kiln_node *q, *d;
    if (!kiln_choice_wants(&p->choice, v)) {
        return KILN_OK;
    }
    KILN_TRY(group_constants(p, g, v->name));
    kiln_value *const in[] = {v, g->scale, g->zero};
    KILN_TRY(kiln_rewrite_node(&p->r, &q, &kiln_op_quantize_linear, in, 3, 1, v->name, "quantized",
                               v->producer));
    kiln_value *const back[] = {q->out[0], g->scale, g->zero};
    KILN_TRY(kiln_rewrite_node(&p->r, &d, &kiln_op_dequantize_linear, back, 3, 1, v->name,
                               "dequantized", v->producer));
    p->quantized[v->id] = d->out[0];
    p->n_quantized++;
    return KILN_OK;
}

/* ---- Weights ---- */

/* The bias that becomes int32, one element for each channel; NULL where it stays float. */
static kiln_value *int_bias(const placer *p, const kiln_node *n, const kiln_weight_use *use) {
    kiln_value *b = use->bias >= 0 ? kiln_node_in(n, use->bias) : NULL;
    const kiln_type *w = &n->in[use->in]->type;
    bool fits = p->options->style == KILN_QDQ_ONNXRUNTIME && b && b->constant &&
                kiln_is_f32_tensor(b) && b->type.rank == 1;
    return fits && (use->axis < 0 || b->type.dims[0] == w->dims[use->axis]) ? b : NULL;
}

static kiln_status place_weight(placer *p, kiln_node *n, const kiln_layer_use *layer,
                                const kiln_weight_use *use) {
    kiln_layer_option o = kiln_layer_option_of(p->options, n);
    kiln_value *w = n->in[use->in], *bias = int_bias(p, n, use);
    int32_t axis = o.per_tensor ? -1 : use->axis;
    kiln_weight_job job = {.weight = w,
                           .bias = bias,
                           .axis = axis,
                           .bits = o.weight_bits,
                           .calibrator = o.weight_calibrator,
                           .percentile = o.weight_percentile,
                           .alpha = layer->alpha,
                           .x_scale = (double)group_of(p, n->in[layer->x[0]])->q.scale};
    kiln_value *done = kiln_weight_find(&p->r.cache, &job);
    if (!done) {
        kiln_weight made;
        KILN_TRY(kiln_rewrite_weight(&p->r, &made, &job, n));
        KILN_TRY(kiln_rewrite_dequantize(&p->r, &done, &made, axis, w->name, n));
        KILN_TRY(kiln_weight_keep(&p->r.cache, &job, done, &p->r.scratch));
        if (bias) {
            KILN_TRY(
                kiln_rewrite_dequantize(&p->r, &n->in[use->bias], made.bias, 0, bias->name, n));
        }
    }
    n->in[use->in] = done;
    return KILN_OK;
}

/* ---- The graph ---- */

static kiln_status place_node(placer *p, kiln_node *n) {
    kiln_value **old = n->in;
    kiln_layer_use use;
    bool int8 = p->choice.nodes[n->id].int8;
    KILN_ALLOC(n->in, p->r.graph->arena, n->n_in);
    memcpy(n->in, old, (size_t)n->n_in * sizeof(kiln_value *));
    bool layer =
        int8 && kiln_op_rule_of(n->op)->kind == KILN_QUANT_WEIGHTED && !kiln_layer_use_of(n, &use);
    for (int32_t i = 0; layer && i < use.n_w; i++) {
        KILN_TRY(place_weight(p, n, &use, &use.w[i]));
    }
    for (int32_t i = 0; i < n->n_in; i++) {
        bool reads = old[i] && kiln_choice_reads(&p->choice, old[i], n);
        n->in[i] = reads ? p->quantized[old[i]->id] : n->in[i];
    }
    KILN_TRY(kiln_rewrite_append(&p->r, n));
    for (int32_t i = 0; i < n->n_out; i++) {
        KILN_TRY(quantize(p, n->out[i]));
    }
    return KILN_OK;
}

/* ---- The report ---- */

static kiln_status add_report(kiln_placed *out, const kiln_node *n, const kiln_node_choice *c,
                              kiln_arena *arena) {
    kiln_node_precision item = {.name = n->name,
                                .op = n->op->name,
                                .layer = kiln_op_rule_of(n->op)->kind == KILN_QUANT_WEIGHTED,
                                .int8 = c->int8,
                                .asked = c->asked,
                                .reason = c->int8 ? NULL : c->reason};
    if (item.reason) {
        item.reason = kiln_arena_text(arena, item.reason, strlen(item.reason));
        KILN_TRY(item.reason ? KILN_OK : KILN_E_MEMORY);
    }
    bool half = n->precision.dtype != KILN_DTYPE_NONE;
    item.dtype = c->int8 ? KILN_DTYPE_I8 : half ? n->precision.dtype : KILN_DTYPE_F32;
    out->n_layers += item.layer ? 1 : 0;
    out->n_int8_layers += item.layer && item.int8 ? 1 : 0;
    if (kiln_op_rule_of(n->op)->kind != KILN_QUANT_NONE) {
        KILN_PUSH(arena, out->nodes, out->n_nodes, out->cap_nodes, item);
    }
    return KILN_OK;
}

static kiln_status report_bodies(kiln_placed *out, const kiln_graph *g, kiln_arena *arena) {
    const kiln_node_choice floats = {.reason = kiln_body_reason};
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int32_t b = 0; b < g->nodes[i]->n_bodies; b++) {
            const kiln_graph *body = g->nodes[i]->bodies[b];
            for (size_t k = 0; k < body->n_nodes; k++) {
                bool layer = kiln_op_rule_of(body->nodes[k]->op)->kind == KILN_QUANT_WEIGHTED;
                KILN_TRY(layer ? add_report(out, body->nodes[k], &floats, arena) : KILN_OK);
            }
            KILN_TRY(report_bodies(out, body, arena));
        }
    }
    return KILN_OK;
}

kiln_status kiln_placed_report(kiln_placed *out, const kiln_choice *choice, kiln_arena *arena) {
    const kiln_graph *g = choice->graph;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        KILN_TRY(add_report(out, n, &choice->nodes[n->id], arena));
    }
    return choice->options->dynamic ? KILN_OK : report_bodies(out, g, arena);
}

/* ---- All of it ---- */

static kiln_status place_all(placer *p, kiln_placed *out) {
    kiln_graph *g = p->r.graph;
    KILN_TRY(choose_known(p, &out->n_missing));
    KILN_ALLOC(p->quantized, &p->r.scratch, g->n_values);
    KILN_TRY(kiln_mark_nodes(&p->choice, p->r.diag));
    KILN_TRY(kiln_placed_report(out, &p->choice, g->arena));
    for (size_t i = 0; i < g->n_inputs; i++) {
        KILN_TRY(quantize(p, g->inputs[i]));
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        KILN_TRY(place_node(p, g->nodes[i]));
    }
    out->n_quantized = p->n_quantized;
    return kiln_rewrite_finish(&p->r);
}

kiln_status kiln_place(kiln_placed *out, kiln_graph *graph, const kiln_place_options *options,
                       const kiln_ranges *ranges, kiln_diag *diag) {
    placer p = {.r = {.graph = graph, .diag = diag}, .options = options, .ranges = ranges};
    *out = (kiln_placed){0};
    if (options->dynamic) {
        return kiln_place_dynamic(out, graph, options, diag);
    }
    kiln_arena_init(&p.r.scratch, graph->env);
    kiln_status status = place_all(&p, out);
    kiln_arena_free(&p.r.scratch);
    return status;
}
