/* engine.c - making, describing and giving back engines. */
#include "engine/engine.h"

#include <string.h>

#include "base/diag.h"
#include "base/env.h"
#include "base/text.h"
#include "kiln/quant.h"
#include "ops/cost.h"

kiln_status kiln_engine_new(kiln_engine **out, const kiln_env *env) {
    kiln_engine *e = kiln_env_alloc(env, sizeof *e);
    if (!e) {
        return KILN_E_MEMORY;
    }
    memset(e, 0, sizeof *e);
    e->env = env;
    kiln_arena_init(&e->arena, env);
    kiln_dims_init(&e->dims, &e->arena);
    kiln_dims_init(&e->canonical_dims, &e->arena);
    *out = e;
    return KILN_OK;
}

void kiln_engine_destroy(kiln_engine *engine) {
    if (!engine) {
        return;
    }
    const kiln_env *env = engine->env;
    if (engine->file) {
        kiln_file_close(engine->file);
    }
    kiln_hold_drop(engine->hold);
    kiln_arena_free(&engine->arena);
    kiln_env_release(env, engine, sizeof *engine);
}

void kiln_free(const kiln_env *env, void *ptr, size_t len) {
    kiln_env_release(env, ptr, len);
}

static kiln_status describe_io(kiln_io *out, const kiln_graph *graph, const kiln_value *v) {
    const kiln_type *t = &v->type;
    out->name = v->name;
    out->is_sequence = t->kind == KILN_KIND_SEQUENCE;
    if (t->kind == KILN_KIND_OPTIONAL && t->elem) {
        out->is_sequence = t->elem->kind == KILN_KIND_SEQUENCE;
    }
    while (t->kind != KILN_KIND_TENSOR && t->elem) {
        t = t->elem;
    }
    out->dtype = t->dtype;
    out->rank = t->rank;
    for (int32_t d = 0; d < t->rank; d++) {
        out->dims[d] = t->dims[d] >= 0 ? t->dims[d] : -1;
    }
    out->type = kiln_type_text(graph->dims, &v->type, graph->arena);
    return out->type ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_ios_make(kiln_ios *out, const kiln_graph *graph) {
    KILN_ALLOC(out->in, graph->arena, graph->n_inputs);
    KILN_ALLOC(out->out, graph->arena, graph->n_outputs);
    out->n_in = graph->n_inputs;
    out->n_out = graph->n_outputs;
    for (size_t i = 0; i < out->n_in; i++) {
        KILN_TRY(describe_io(&out->in[i], graph, graph->inputs[i]));
    }
    for (size_t i = 0; i < out->n_out; i++) {
        KILN_TRY(describe_io(&out->out[i], graph, graph->outputs[i]));
    }
    return KILN_OK;
}

bool kiln_ios_get(const kiln_io *items, size_t n, size_t i, kiln_io *out) {
    if (i >= n) {
        return false;
    }
    *out = items[i];
    return true;
}

/* ---- Layers ---- */

/* "Conv+Relu+Add"; sources joined by ", ". NULL: out of memory. */
static const char *join(kiln_arena *arena, const kiln_claim *claim, bool sources) {
    kiln_text t;
    kiln_text_init(&t, arena->env);
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        const kiln_node *n = claim->nodes[i];
        if (!sources) {
            kiln_text_puts(&t, i ? "+" : "");
            kiln_text_puts(&t, n->op->name);
        }
        for (int32_t k = 0; sources && k < n->n_sources; k++) {
            kiln_text_puts(&t, t.len ? ", " : "");
            kiln_text_puts(&t, n->sources[k]);
        }
    }
    const char *text =
        kiln_text_ok(&t) ? kiln_arena_text(arena, t.data ? t.data : "", t.len) : NULL;
    kiln_text_free(&t);
    return text;
}

static const char *precision_text(const kiln_claim *claim) {
    const kiln_type *y = claim->n_out > 0 ? &claim->out[0]->type : NULL;
    switch (claim->kernel->computes) {
    case KILN_DTYPE_I8:
        return "int8";
    case KILN_DTYPE_BF16:
        return "bf16";
    case KILN_DTYPE_F16:
        return "fp16 weights";
    default:
        return !y || y->kind != KILN_KIND_TENSOR ? ""
               : y->dtype == KILN_DTYPE_F32      ? "fp32"
                                                 : kiln_dtype_name(y->dtype);
    }
}

static kiln_status describe_layer(kiln_engine *e, const kiln_plan *plan, size_t s, kiln_layer *l) {
    const kiln_step *step = &plan->steps[s];
    const kiln_claim *claim = step->claim;
    kiln_arena *arena = &e->arena;
    l->kernel = claim->kernel->name;
    l->tactic = kiln_tactic_name(claim);
    l->precision = precision_text(claim);
    l->name = claim->anchor ? claim->anchor->name : claim->out[0]->name;
    l->ops = claim->n_nodes > 0 ? join(arena, claim, false) : "";
    l->sources = join(arena, claim, true);
    const char *type = "";
    if (claim->n_out > 0) {
        type = kiln_type_text(e->graph->dims, &claim->out[0]->type, arena);
        const kiln_slot *slot = &plan->slots[step->out[0]];
        type = type ? kiln_arena_printf(arena, "%s%s%s", type,
                                        slot->layout == KILN_LAYOUT_LAST ? " nhwc" : "",
                                        slot->half ? " as bfloat16" : "")
                    : NULL;
    }
    l->output = type;
    if (!l->ops || !l->sources || !type) {
        return KILN_E_MEMORY;
    }
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        l->macs += kiln_node_macs(claim->nodes[i], e->env);
    }
    for (int32_t b = 0; step->claim_index >= 0 && b < plan->n_blobs[step->claim_index]; b++) {
        l->weight_bytes += plan->blobs[step->claim_index][b].bytes;
    }
    return KILN_OK;
}

/* The name of attribute number i among those that are graphs. */
static const char *graph_attribute(const kiln_op *op, int32_t i) {
    for (int32_t k = 0; k < op->n_attrs; k++) {
        if (op->attrs[k].kind == KILN_ATTR_GRAPH && i-- == 0) {
            return op->attrs[k].name;
        }
    }
    return "";
}

/* "loop_3.body" for a body of the plan; NULL: out of memory. */
static const char *body_text(const kiln_plan *plan, const kiln_graph *body, kiln_arena *arena) {
    for (size_t i = 0; i < plan->graph->n_nodes; i++) {
        const kiln_node *n = plan->graph->nodes[i];
        for (int32_t b = 0; b < n->n_bodies; b++) {
            if (n->bodies[b] == body) {
                return kiln_arena_printf(arena, "%s.%s", n->name, graph_attribute(n->op, b));
            }
        }
    }
    return "";
}

static kiln_status describe_bodies(kiln_engine *e, const kiln_plan *plan, size_t *cap) {
    for (size_t b = 0; b < plan->n_bodies; b++) {
        const kiln_plan *body = plan->bodies[b];
        const char *text = body_text(plan, plan->body_graphs[b], &e->arena);
        if (!text) {
            return KILN_E_MEMORY;
        }
        for (size_t s = 0; s < body->n_steps; s++) {
            kiln_layer l = {.body = text};
            KILN_TRY(describe_layer(e, body, s, &l));
            KILN_PUSH(&e->arena, e->inner, e->n_inner, *cap, l);
        }
        KILN_TRY(describe_bodies(e, body, cap));
    }
    return KILN_OK;
}

static size_t plan_weights(const kiln_plan *p) {
    size_t sum = 0;
    for (size_t i = 0; i < p->n_claims; i++) {
        for (int32_t b = 0; b < p->n_blobs[i]; b++) {
            sum += p->blobs[i][b].bytes;
        }
    }
    for (size_t i = 0; i < p->n_slots; i++) {
        if (p->slots[i].value->constant && p->slots[i].layout == KILN_LAYOUT_ROW) {
            sum += kiln_tensor_bytes(&p->slots[i].value->constant->tensor);
        }
    }
    for (size_t i = 0; i < p->n_bodies; i++) {
        sum += plan_weights(p->bodies[i]);
    }
    return sum;
}

static void describe_ranges(kiln_engine *e) {
    for (size_t i = 0; e->profile && i < e->ios.n_in; i++) {
        const kiln_shape_range *r = &e->profile[i];
        kiln_io *io = &e->ios.in[i];
        io->has_range = r->name != NULL;
        memcpy(io->min, r->min, sizeof io->min);
        memcpy(io->opt, r->opt, sizeof io->opt);
        memcpy(io->max, r->max, sizeof io->max);
    }
}

kiln_status kiln_engine_describe(kiln_engine *e) {
    e->info.nodes = kiln_graph_count(e->canonical ? e->canonical : e->graph);
    e->info.macs = kiln_graph_macs(e->graph);
    KILN_TRY(kiln_ios_make(&e->ios, e->graph));
    describe_ranges(e);
    if (!e->plan) {
        return KILN_OK;
    }
    e->info.weight_bytes = plan_weights(e->plan);
    KILN_ALLOC(e->layers, &e->arena, e->plan->n_steps);
    for (size_t s = 0; s < e->plan->n_steps; s++) {
        KILN_TRY(describe_layer(e, e->plan, s, &e->layers[s]));
    }
    size_t cap = 0;
    e->inner = NULL;
    e->n_inner = 0;
    return describe_bodies(e, e->plan, &cap);
}

/* ---- Looking at an engine ---- */

bool kiln_engine_input(const kiln_engine *engine, size_t i, kiln_io *out) {
    return kiln_ios_get(engine->ios.in, engine->ios.n_in, i, out);
}

bool kiln_engine_output(const kiln_engine *engine, size_t i, kiln_io *out) {
    return kiln_ios_get(engine->ios.out, engine->ios.n_out, i, out);
}

void kiln_engine_get_info(const kiln_engine *engine, kiln_engine_info *out) {
    *out = engine->info;
}

bool kiln_engine_layer(const kiln_engine *engine, size_t i, kiln_layer *out) {
    if (!engine->plan || i >= engine->plan->n_steps) {
        return false;
    }
    *out = engine->layers[i];
    return true;
}

bool kiln_engine_inner_layer(const kiln_engine *engine, size_t i, kiln_layer *out) {
    if (i >= engine->n_inner) {
        return false;
    }
    *out = engine->inner[i];
    return true;
}

const char *kiln_engine_refusal(const kiln_engine *engine, const char *layer, size_t i) {
    for (size_t k = 0; k < engine->n_refusals; k++) {
        if (strcmp(engine->refusals[k].node, layer) == 0 && i-- == 0) {
            return engine->refusals[k].reason;
        }
    }
    return NULL;
}

bool kiln_engine_left_float(const kiln_engine *engine, size_t i, const char **layer,
                            const char **reason) {
    if (i >= engine->n_left_float) {
        return false;
    }
    *layer = engine->left_float[i].node;
    *reason = engine->left_float[i].reason;
    return true;
}

bool kiln_engine_tried(const kiln_engine *engine, size_t i, kiln_tried_way *out) {
    if (i >= engine->n_tried) {
        return false;
    }
    *out = engine->tried[i];
    return true;
}

static kiln_status list_choices(kiln_way **out, size_t *n, const kiln_engine *e,
                                const kiln_step *step, kiln_arena *arena) {
    kiln_finder *finder;
    const kiln_candidate *ways;
    KILN_TRY(kiln_finder_create(&finder, e->plan, &e->target, arena));
    KILN_TRY(kiln_finder_ways(finder, (size_t)step->claim_index, &ways, n));
    if (*n == 0) {
        return KILN_OK;
    }
    *out = kiln_env_alloc(e->env, *n * sizeof **out);
    for (size_t i = 0; *out && i < *n; i++) {
        (*out)[i] = (kiln_way){
            .layer = step->claim->anchor->name, .kernel = ways[i].kernel, .tactic = ways[i].tactic};
    }
    return *out ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_engine_candidates(kiln_way **out, size_t *n, const kiln_engine *engine,
                                   size_t layer, kiln_diag *diag) {
    *out = NULL;
    *n = 0;
    if (!engine->plan || layer >= engine->plan->n_steps) {
        return kiln_fail(diag, KILN_F_OPTION, "the engine has no layer %zu", layer);
    }
    const kiln_step *step = &engine->plan->steps[layer];
    if (step->claim_index < 0) {
        return KILN_OK;
    }
    kiln_arena arena;
    kiln_arena_init(&arena, engine->env);
    kiln_status status = list_choices(out, n, engine, step, &arena);
    kiln_arena_free(&arena);
    return kiln_diag_close(diag, status);
}

bool kiln_engine_pass(const kiln_engine *engine, size_t i, kiln_pass_info *out) {
    if (i >= engine->n_passes) {
        return false;
    }
    *out = engine->passes[i];
    return true;
}
