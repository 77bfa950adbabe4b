/* api.c - the pipeline on one screen: import -> canonicalise -> lower -> cover -> compile ->
 * pack. */
#include <string.h>

#include "api.h"
#include "base/cpu.h"
#include "base/diag.h"
#include "base/env.h"
#include "base/options.h"
#include "build/lower.h"
#include "engine/workspace.h"
#include "ops/cost.h"
#include "pass/pass.h"

/* ---- Options ---- */

static kiln_status check_off(const char *const *off, kiln_diag *diag) {
    for (; off && *off; off++) {
        if (!kiln_pass_exists(*off) && !kiln_lowering_exists(*off) && !kiln_kernel_find(*off) &&
            !kiln_fusion_exists(*off)) {
            return kiln_hint(diag,
                             kiln_fail(diag, KILN_F_OPTION,
                                       "no pass, rewrite, kernel or fusion is called \"%s\"", *off),
                             "`kiln inspect --off-names` lists them");
        }
    }
    return KILN_OK;
}

static kiln_status copy_off(kiln_engine *e, const kiln_build_options *o) {
    const char *const *off = o->off;
    size_t n = 0;
    while (off && off[n]) {
        n++;
    }
    KILN_ALLOC(e->off, &e->arena, n + 3);
    for (size_t i = 0; i < n; i++) {
        e->off[i] = kiln_arena_text(&e->arena, off[i], strlen(off[i]));
        if (!e->off[i]) {
            return KILN_E_MEMORY;
        }
    }
    if (o->exact) {
        e->off[n++] = "approximate";
    }
    if (o->goal == KILN_GOAL_MEMORY) {
        e->off[n++] = "expanded_weights";
    }
    return KILN_OK;
}

static kiln_status choose_target(kiln_engine *e, const kiln_build_options *o, kiln_diag *diag) {
    uint32_t features = kiln_cpu_features();
    if (o->max_isa && !kiln_cpu_limit(o->max_isa, &features)) {
        return kiln_fail(diag, KILN_F_OPTION, "\"%s\" is no instruction set", o->max_isa);
    }
    if ((unsigned)o->goal > KILN_GOAL_MEMORY) {
        return kiln_fail(diag, KILN_F_OPTION, "there is no goal %d", (int)o->goal);
    }
    KILN_TRY(check_off(o->off, diag));
    KILN_TRY(copy_off(e, o));
    e->workspace_bytes = o->workspace_bytes;
    kiln_cpu_target_init(&e->target, features, e->off);
    e->info.isa = kiln_target_isa(&e->target);
    return KILN_OK;
}

/* ---- The pipeline ---- */

static void note_refusal(void *user, const kiln_node *node, const kiln_kernel *kernel,
                         const char *reason) {
    kiln_engine *e = user;
    kiln_refusal r = {.node = node->name, .kernel = kernel->name, .reason = reason};
    kiln_refusal *grown =
        kiln_arena_grow(&e->arena, e->refusals, e->n_refusals, &e->cap_refusals, sizeof *grown);
    if (grown) {
        e->refusals = grown;
        grown[e->n_refusals++] = r;
    }
}

/* The command that makes this engine again, from its model. */
static kiln_status write_command(kiln_engine *e, const kiln_model *m, const kiln_build_options *o) {
    const char *text =
        o->portable ? "kiln build MODEL.onnx -o FILE --portable" : "kiln build MODEL.onnx -o FILE";
    if (o->max_isa) {
        text = kiln_arena_printf(&e->arena, "%s --max-isa %s", text, o->max_isa);
    }
    if (o->exact && text) {
        text = kiln_arena_printf(&e->arena, "%s --exact", text);
    }
    if (o->goal != KILN_GOAL_LATENCY && text) {
        text = kiln_arena_printf(&e->arena, "%s --goal %s", text,
                                 o->goal == KILN_GOAL_MEMORY ? "memory" : "throughput");
    }
    if (o->workspace_bytes > 0 && text) {
        text = kiln_arena_printf(&e->arena, "%s --workspace %zuB", text, o->workspace_bytes);
    }
    for (const char *const *off = o->off; off && *off && text; off++) {
        text = kiln_arena_printf(&e->arena, "%s --off %s", text, *off);
    }
    for (size_t i = 0; e->profile && i < m->import.graph->n_inputs && text; i++) {
        if (e->profile[i].name) {
            const char *range = kiln_profile_text(&e->profile[i], &e->arena);
            text =
                range ? kiln_arena_printf(&e->arena, "%s --dynamic-shape %s", text, range) : NULL;
        }
    }
    e->info.command = text;
    return text ? KILN_OK : KILN_E_MEMORY;
}

/* The model's graph at the profile's shapes, where there is one. */
static kiln_status clone(kiln_engine *e, const kiln_model *m, const kiln_build_options *o,
                         kiln_diag *diag) {
    const kiln_graph *g = m->import.graph;
    if (o->n_profile > 0 && !o->profile) {
        return kiln_fail(diag, KILN_F_OPTION, "the profile is NULL");
    }
    KILN_TRY(kiln_profile_resolve(&e->profile, g, o->profile, o->n_profile, &e->arena, diag));
    KILN_TRY(kiln_graph_clone(&e->graph, g, &e->arena, &e->dims, e->env));
    if (!e->profile) {
        return KILN_OK;
    }
    KILN_TRY(kiln_profile_infer(g, e->profile, diag));
    return kiln_profile_fix(e->graph, e->profile, diag);
}

/* What the CPU kernels want of a graph, in one of the plan's own: the canonical one is kept. */
static kiln_status lower(kiln_engine *e, kiln_diag *diag) {
    size_t n_widened;
    if (!kiln_needs_lowering(e->graph, &e->target)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_graph_clone(&e->canonical, e->graph, &e->arena, &e->canonical_dims, e->env));
    KILN_TRY(kiln_lower(e->graph, &e->target, &n_widened, diag));
    e->n_widened = (uint32_t)n_widened;
    return KILN_OK;
}

/* Which layers kiln_quantize left float, and why. */
static kiln_status keep_reasons(kiln_engine *e, const kiln_model *m) {
    KILN_ALLOC(e->left_float, &e->arena, m->placed.n_nodes);
    for (size_t i = 0; i < m->placed.n_nodes; i++) {
        const kiln_node_precision *p = &m->placed.nodes[i];
        if (p->layer && p->dtype == KILN_DTYPE_F32 && p->reason) {
            kiln_left_float *f = &e->left_float[e->n_left_float++];
            f->node = kiln_arena_text(&e->arena, p->name, strlen(p->name));
            f->reason = kiln_arena_text(&e->arena, p->reason, strlen(p->reason));
            KILN_TRY(f->node && f->reason ? KILN_OK : KILN_E_MEMORY);
        }
    }
    return KILN_OK;
}

/* ---- Precisions ---- */

static bool is_half(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_BF16 || dtype == KILN_DTYPE_F16;
}

/* Why the kernel of that precision did not take the node: the kernel that knows the operator. */
static const char *why_not(const kiln_engine *e, const kiln_node *n) {
    const char *reason = NULL;
    bool conv = strncmp(n->op->name, "Conv", 4) == 0;
    for (size_t i = 0; i < e->n_refusals; i++) {
        const kiln_refusal *r = &e->refusals[i];
        const kiln_kernel *k = kiln_kernel_find(r->kernel);
        bool mine =
            k && k->computes == n->precision.dtype && (strncmp(r->kernel, "conv", 4) == 0) == conv;
        reason = mine && strcmp(r->node, n->name) == 0 ? r->reason : reason;
    }
    return reason ? reason : "another kernel takes it along";
}

/* Every precision that is demanded is there; how many of those wished for are not. */
static kiln_status check_precisions(const kiln_engine *e, const kiln_plan *plan, size_t *missed,
                                    kiln_diag *diag) {
    for (size_t i = 0; i < plan->graph->n_nodes; i++) {
        const kiln_node *n = plan->graph->nodes[i];
        bool done = !is_half(n->precision.dtype);
        for (size_t k = 0; !done && k < plan->n_claims; k++) {
            const kiln_claim *c = plan->claims[k];
            done = c->anchor == n && c->kernel->computes == n->precision.dtype;
        }
        if (!done && n->precision.obey) {
            kiln_diag_at_node(diag, n->name, n->op->name);
            kiln_status status =
                kiln_fail(diag, KILN_F_PRECISION, "%s cannot be had on this CPU: %s",
                          kiln_dtype_name(n->precision.dtype), why_not(e, n));
            kiln_diag_at_node(diag, NULL, NULL);
            return status;
        }
        *missed += !done && kiln_node_macs(n, e->env) > 0 ? 1 : 0;
    }
    for (size_t b = 0; b < plan->n_bodies; b++) {
        KILN_TRY(check_precisions(e, plan->bodies[b], missed, diag));
    }
    return KILN_OK;
}

/* ---- Choices ---- */

/* The claim whose layer is so called, in the plan or one of its bodies' plans. */
static const kiln_claim *find_layer(const kiln_plan *plan, const char *name) {
    for (size_t i = 0; i < plan->n_claims; i++) {
        if (strcmp(plan->claims[i]->anchor->name, name) == 0) {
            return plan->claims[i];
        }
    }
    const kiln_claim *found = NULL;
    for (size_t b = 0; b < plan->n_bodies && !found; b++) {
        found = find_layer(plan->bodies[b], name);
    }
    return found;
}

static const char *why_not_chosen(const kiln_engine *e, const kiln_way *c) {
    const char *reason = NULL;
    for (size_t i = 0; i < e->n_refusals && !reason; i++) {
        const kiln_refusal *r = &e->refusals[i];
        bool mine = strcmp(r->node, c->layer) == 0 && strcmp(r->kernel, c->kernel) == 0;
        reason = mine ? r->reason : NULL;
    }
    return reason ? reason : "another layer takes it along";
}

/* Every layer runs as it was chosen to. */
static kiln_status check_choices(const kiln_engine *e, const kiln_build_options *o,
                                 kiln_diag *diag) {
    for (size_t i = 0; i < o->n_choices; i++) {
        const kiln_way *c = &o->choices[i];
        const char *tactic = c->tactic ? c->tactic : "rules";
        const kiln_claim *claim = c->wish ? NULL : find_layer(e->plan, c->layer);
        bool done = claim && strcmp(claim->kernel->name, c->kernel) == 0 &&
                    strcmp(kiln_tactic_name(claim), tactic) == 0;
        if (!c->wish && !claim) {
            return kiln_fail(diag, KILN_F_OPTION, "no layer is called \"%s\"", c->layer);
        }
        if (!c->wish && !done) {
            return kiln_fail(diag, KILN_F_OPTION, "layer \"%s\" cannot run by %s, tactic %s: %s",
                             c->layer, c->kernel, tactic, why_not_chosen(e, c));
        }
    }
    return KILN_OK;
}

static kiln_status check_choice_names(const kiln_build_options *o, kiln_diag *diag) {
    for (size_t i = 0; i < o->n_choices; i++) {
        const kiln_way *c = &o->choices[i];
        if (!c->layer || !c->kernel || !kiln_kernel_find(c->kernel)) {
            return kiln_fail(diag, KILN_F_OPTION,
                             "choice %zu names no layer or no kernel of Kiln's", i);
        }
    }
    return KILN_OK;
}

static kiln_status plan(kiln_engine *e, const kiln_build_options *o, kiln_diag *diag) {
    size_t missed = 0;
    KILN_TRY(check_choice_names(o, diag));
    KILN_TRY(lower(e, diag));
    e->target.choices = o->choices;
    e->target.n_choices = o->n_choices;
    KILN_TRY(kiln_engine_plan(e, note_refusal, e, diag));
    e->target.choices = NULL;
    e->target.n_choices = 0;
    KILN_TRY(check_choices(e, o, diag));
    KILN_TRY(check_precisions(e, e->plan, &missed, diag));
    if (missed > 0) {
        kiln_note(diag, KILN_F_PRECISION,
                  "%zu layers stay float32: no kernel holds them in 16 bits", missed);
    }
    return KILN_OK;
}

static kiln_status build(kiln_engine *e, const kiln_model *m, const kiln_build_options *o,
                         kiln_diag *diag) {
    e->hold = kiln_hold_take(m->hold);
    e->info.version = kiln_version();
    e->info.portable = o->portable;
    memcpy(e->info.model_hash, m->info.hash, sizeof e->info.model_hash);
    KILN_TRY(choose_target(e, o, diag));
    KILN_TRY(clone(e, m, o, diag));
    KILN_TRY(write_command(e, m, o));
    KILN_TRY(keep_reasons(e, m));
    KILN_TRY(e->dims.oom ? KILN_E_MEMORY : KILN_OK);
    kiln_pass_options passes = {.off = o->off, .stop_after = o->stop_after};
    KILN_TRY(kiln_passes_run(e->graph, &passes, &e->passes, &e->n_passes, diag));
    KILN_TRY(e->dims.oom ? KILN_E_MEMORY : KILN_OK);
    if (!o->canonical_only) {
        KILN_TRY(plan(e, o, diag));
    }
    KILN_TRY(kiln_engine_describe(e));
    return e->dims.oom ? KILN_E_MEMORY : KILN_OK;
}

kiln_status kiln_engine_build(kiln_engine **out, const kiln_model *model,
                              const kiln_build_options *options, kiln_diag *diag) {
    kiln_build_options o;
    kiln_engine *e;
    if (!model || kiln_options_read(&o, sizeof o, options) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "there is no model, or the build options have no size or unknown fields");
    }
    kiln_diag_enter(diag, "building");
    kiln_status status = kiln_engine_new(&e, model->env);
    if (status == KILN_OK) {
        status = build(e, model, &o, diag);
        if (status == KILN_OK) {
            *out = e;
        } else {
            kiln_engine_destroy(e);
        }
    }
    kiln_diag_leave(diag);
    return kiln_diag_close(diag, status);
}

kiln_status kiln_engine_export(const kiln_engine *engine, const char *path,
                               size_t external_threshold, kiln_diag *diag) {
    if (!path) {
        return kiln_fail(diag, KILN_F_OPTION, "there is no path to export to");
    }
    kiln_export_options o = {.external_threshold = external_threshold,
                             .producer_version = kiln_version()};
    const kiln_graph *graph = engine->canonical ? engine->canonical : engine->graph;
    if (!engine->canonical && engine->n_widened > 0) {
        kiln_warn(diag, KILN_F_PRECISION,
                  "%u nodes of float16 or bfloat16 are exported in float32, as they run: an engine "
                  "file keeps no other form",
                  engine->n_widened);
        kiln_hint(diag, KILN_OK, "export from the model to keep their types");
    }
    return kiln_diag_close(diag, kiln_export_file(graph, path, &o, engine->env, diag));
}
