/* cover.c - which kernel takes which nodes, and their weights. */
#include <string.h>

#include "backend/cpu/kernel.h"
#include "base/diag.h"
#include "base/lookup.h"
#include "ops/ops.h"

typedef struct cover {
    kiln_claim **owner;  /* per node id: the claim it is in, or NULL */
    kiln_lookup choices; /* of the target, by layer */
} cover;

static bool is_free(const kiln_claimer *self, const kiln_node *node) {
    const cover *cv = self->cover;
    return !cv->owner[node->id];
}

static kiln_status take(kiln_plan *plan, cover *cv, kiln_claim *claim) {
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        cv->owner[claim->nodes[i]->id] = claim;
    }
    KILN_PUSH(plan->graph->arena, plan->claims, plan->n_claims, plan->cap_claims, claim);
    return KILN_OK;
}

static kiln_status start(const kiln_plan *plan, const kiln_cpu_target *target, kiln_arena *arena,
                         cover *cv, kiln_claimer *c) {
    KILN_ALLOC(cv->owner, arena, plan->graph->n_nodes);
    *c = (kiln_claimer){.graph = (kiln_graph *)plan->graph,
                        .target = target,
                        .arena = arena,
                        .is_free = is_free,
                        .cover = cv};
    return KILN_OK;
}

/* ---- Tactics ---- */

const char *kiln_tactic_name(const kiln_claim *claim) {
    return claim->tactic > 0 ? claim->kernel->tactics[claim->tactic - 1] : "rules";
}

/* The number of a kernel's tactic of that name, NULL: 0; or -1. */
static int32_t find_tactic(const kiln_kernel *kernel, const char *name) {
    if (!name || strcmp(name, "rules") == 0) {
        return 0;
    }
    for (int32_t i = 0; kernel->tactics && kernel->tactics[i]; i++) {
        if (strcmp(kernel->tactics[i], name) == 0) {
            return i + 1;
        }
    }
    return -1;
}

/* The ban of that way to run the region around the node, or NULL. */
static const kiln_ban *find_ban(const kiln_claimer *c, const kiln_node *node,
                                const kiln_kernel *kernel, int32_t tactic) {
    const kiln_bans *bans = c->target->bans;
    const kiln_ban *b = bans && bans->graph == c->graph ? bans->of[node->id] : NULL;
    while (b && (b->kernel != kernel || b->tactic != tactic)) {
        b = b->next;
    }
    return b;
}

/* A claim of `kernel` for the node, all of whose nodes are free; NULL with c->reason. */
static kiln_claim *try_kernel(kiln_claimer *c, const kiln_kernel *kernel, int32_t tactic,
                              kiln_node *node) {
    if (kiln_target_is_off(c->target, kernel->name)) {
        return kiln_claim_refuse(c, "switched off");
    }
    if (kernel->norm_error > 0 && kiln_target_is_off(c->target, "approximate")) {
        return kiln_claim_refuse(c, "it approximates, which is switched off");
    }
    if (kernel->expands_weights && kiln_target_is_off(c->target, "expanded_weights")) {
        return kiln_claim_refuse(c, "it packs weights into more bytes, which is switched off");
    }
    const kiln_ban *ban = find_ban(c, node, kernel, tactic);
    if (ban) {
        return kiln_claim_refuse(c, "%s", ban->reason);
    }
    c->tactic = tactic;
    kiln_claim *claim = kernel->claim(c, node);
    for (int32_t i = 0; claim && i < claim->n_nodes; i++) {
        if (!is_free(c, claim->nodes[i])) {
            return kiln_claim_refuse(c, "node \"%s\" is taken", claim->nodes[i]->name);
        }
    }
    return claim;
}

/* The same by names. */
static kiln_claim *try_named(kiln_claimer *c, const char *kernel_name, const char *tactic_name,
                             kiln_node *node) {
    const kiln_kernel *kernel = kiln_kernel_find(kernel_name);
    int32_t tactic = kernel ? find_tactic(kernel, tactic_name) : -1;
    return tactic >= 0 ? try_kernel(c, kernel, tactic, node)
                       : kiln_claim_refuse(c, "there is no kernel or tactic of that name");
}

static kiln_status list_choices(cover *cv, const kiln_cpu_target *target, kiln_arena *arena) {
    const char **layers;
    KILN_ALLOC(layers, arena, target->n_choices);
    for (size_t i = 0; i < target->n_choices; i++) {
        layers[i] = target->choices[i].layer;
    }
    return kiln_lookup_make(&cv->choices, layers, target->n_choices, arena);
}

/* What was chosen for the node; NULL: nothing. */
static const kiln_way *choice_for(const cover *cv, const kiln_cpu_target *target,
                                  const kiln_node *node) {
    int64_t at = kiln_lookup_find(&cv->choices, node->name);
    return at >= 0 ? &target->choices[at] : NULL;
}

/* ---- Covering ---- */

/* Regions begin at the node that computes and take what dequantizes its operands along, so that a
 * DequantizeLinear waits until all others have chosen. */
static bool waits(const kiln_node *node) {
    return KILN_IS(node, dequantize_linear);
}

/* The kernel's claim as rules make it; where that is banned, by the first of its tactics that can
 * be had. */
static kiln_status claim_by(kiln_claim **out, kiln_claimer *c, const kiln_kernel *kernel,
                            kiln_node *node, kiln_refusal_fn refused, void *user) {
    const bool banned = find_ban(c, node, kernel, 0) != NULL;
    *out = NULL;
    for (int32_t t = 0; !*out && (t == 0 || (banned && kernel->tactics && kernel->tactics[t - 1]));
         t++) {
        *out = try_kernel(c, kernel, t, node);
        KILN_TRY(c->status);
        if (!*out && refused) {
            refused(user, node, kernel, c->reason);
        }
    }
    return KILN_OK;
}

static kiln_status cover_node(kiln_plan *plan, cover *cv, kiln_claimer *c, kiln_node *node,
                              kiln_refusal_fn refused, void *user, kiln_diag *diag) {
    kiln_claim *claim = NULL;
    const kiln_way *choice = is_free(c, node) ? choice_for(cv, c->target, node) : NULL;
    if (choice) {
        claim = try_named(c, choice->kernel, choice->tactic, node);
        KILN_TRY(c->status);
    }
    if (choice && !claim && refused) {
        refused(user, node, kiln_kernel_find(choice->kernel), c->reason);
    }
    for (size_t k = 0; is_free(c, node) && !claim && k < kiln_kernel_count(); k++) {
        KILN_TRY(claim_by(&claim, c, kiln_kernel_at(k), node, refused, user));
    }
    if (claim) {
        return take(plan, cv, claim);
    }
    if (is_free(c, node)) {
        return kiln_fail(diag, KILN_F_INTERNAL, "no kernel takes node \"%s\" (%s)", node->name,
                         node->op->name);
    }
    return KILN_OK;
}

kiln_status kiln_cpu_cover(kiln_plan *plan, const kiln_cpu_target *target, kiln_arena *arena,
                           kiln_refusal_fn refused, void *user, kiln_diag *diag) {
    cover cv;
    kiln_claimer c;
    KILN_TRY(start(plan, target, arena, &cv, &c));
    KILN_TRY(list_choices(&cv, target, arena));
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < plan->graph->n_nodes; i++) {
            if (waits(plan->graph->nodes[i]) == (round == 1)) {
                KILN_TRY(cover_node(plan, &cv, &c, plan->graph->nodes[i], refused, user, diag));
            }
        }
    }
    return KILN_OK;
}

/* The decision whose region is anchored at each node, or NULL. */
static kiln_status list_by_anchor(const kiln_plan *plan, const kiln_decision *decisions, size_t n,
                                  const kiln_decision ***out, kiln_arena *arena, kiln_diag *diag) {
    KILN_ALLOC(*out, arena, plan->graph->n_nodes);
    for (size_t i = 0; i < n; i++) {
        const kiln_decision *d = &decisions[i];
        if (d->anchor < 0 || (size_t)d->anchor >= plan->graph->n_nodes || (*out)[d->anchor]) {
            return kiln_fail(diag, KILN_F_ENGINE_DAMAGED,
                             "region %zu (kernel \"%s\") has no node of its own", i, d->kernel);
        }
        (*out)[d->anchor] = d;
    }
    return KILN_OK;
}

static kiln_status reclaim_node(kiln_plan *plan, cover *cv, kiln_claimer *c, const kiln_decision *d,
                                size_t i, kiln_diag *diag) {
    kiln_claim *claim = NULL;
    if (!cv->owner[i]) {
        claim = try_named(c, d->kernel, d->tactic, plan->graph->nodes[i]);
        KILN_TRY(c->status);
    }
    if (!claim || claim->n_nodes != d->n_nodes) {
        return kiln_fail(diag, KILN_F_ENGINE_DAMAGED,
                         "the region at node %zu (kernel \"%s\") cannot be made again", i,
                         d->kernel);
    }
    return take(plan, cv, claim);
}

void kiln_cpu_mark(const kiln_graph *graph, const kiln_decision *decisions, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const kiln_kernel *kernel = kiln_kernel_find(decisions[i].kernel);
        bool half =
            kernel && (kernel->computes == KILN_DTYPE_BF16 || kernel->computes == KILN_DTYPE_F16);
        int32_t at = decisions[i].anchor;
        if (half && at >= 0 && (size_t)at < graph->n_nodes) {
            graph->nodes[at]->precision.dtype = kernel->computes;
        }
    }
}

/* Which nodes a region takes depends on those that are taken already, so regions are made again
 * in the order in which kiln_cpu_cover made them: that of their anchors. */
kiln_status kiln_cpu_reclaim(kiln_plan *plan, const kiln_cpu_target *target,
                             const kiln_decision *decisions, size_t n, kiln_arena *arena,
                             kiln_diag *diag) {
    cover cv;
    kiln_claimer c;
    const kiln_decision **by_anchor;
    kiln_cpu_mark(plan->graph, decisions, n);
    KILN_TRY(start(plan, target, arena, &cv, &c));
    KILN_TRY(list_by_anchor(plan, decisions, n, &by_anchor, arena, diag));
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < plan->graph->n_nodes; i++) {
            if (by_anchor[i] && waits(plan->graph->nodes[i]) == (round == 1)) {
                KILN_TRY(reclaim_node(plan, &cv, &c, by_anchor[i], i, diag));
            }
        }
    }
    for (size_t i = 0; i < plan->graph->n_nodes; i++) {
        if (!cv.owner[i]) {
            return kiln_fail(diag, KILN_F_ENGINE_DAMAGED, "node %zu is in no region", i);
        }
    }
    return KILN_OK;
}

/* ---- Candidates ---- */

struct kiln_finder {
    const kiln_plan *plan;
    cover cv; /* all of the plan's claims but the one that is looked at */
    kiln_claimer c;
    kiln_arena scratch; /* claims and list of one call */
};

static void set_owner(kiln_finder *f, const kiln_claim *claim, kiln_claim *owner) {
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        f->cv.owner[claim->nodes[i]->id] = owner;
    }
}

kiln_status kiln_finder_create(kiln_finder **out, const kiln_plan *plan,
                               const kiln_cpu_target *target, kiln_arena *arena) {
    kiln_finder *f;
    KILN_ALLOC(f, arena, 1);
    f->plan = plan;
    kiln_arena_within(&f->scratch, arena);
    KILN_TRY(start(plan, target, arena, &f->cv, &f->c));
    f->c.arena = &f->scratch;
    for (size_t i = 0; i < plan->n_claims; i++) {
        set_owner(f, plan->claims[i], plan->claims[i]);
    }
    *out = f;
    return KILN_OK;
}

static bool covers_same(const kiln_claim *a, const kiln_claim *b) {
    bool same = a && a->n_nodes == b->n_nodes;
    for (int32_t i = 0; same && i < a->n_nodes; i++) {
        same = a->nodes[i] == b->nodes[i];
    }
    return same;
}

/* A kernel's ways to run what `own` runs, but the way that it does. */
static kiln_status list_ways(kiln_candidate **out, size_t *n, size_t *cap,
                             const kiln_kernel *kernel, const kiln_claim *own, kiln_claimer *c) {
    for (int32_t t = 0; t == 0 || (kernel->tactics && kernel->tactics[t - 1]); t++) {
        bool is_own = kernel == own->kernel && t == own->tactic;
        kiln_claim *claim = is_own ? NULL : try_kernel(c, kernel, t, own->anchor);
        KILN_TRY(c->status);
        if (covers_same(claim, own)) {
            kiln_candidate way = {kernel->name, kiln_tactic_name(claim)};
            KILN_PUSH(c->arena, *out, *n, *cap, way);
        }
    }
    return KILN_OK;
}

static kiln_status list_kernels(kiln_candidate **out, size_t *n, const kiln_claim *own,
                                kiln_claimer *c) {
    size_t cap = 0;
    *out = NULL;
    *n = 0;
    /* The last kernel is the reference, which no other is slower than. */
    for (size_t k = 0; k + 1 < kiln_kernel_count(); k++) {
        if (kiln_kernel_at(k)->computes == own->kernel->computes) {
            KILN_TRY(list_ways(out, n, &cap, kiln_kernel_at(k), own, c));
        }
    }
    return KILN_OK;
}

kiln_status kiln_finder_ways(kiln_finder *f, size_t at, const kiln_candidate **out, size_t *n) {
    kiln_claim *own = f->plan->claims[at];
    kiln_candidate *list;
    kiln_arena_recycle(&f->scratch);
    set_owner(f, own, NULL);
    kiln_status status = list_kernels(&list, n, own, &f->c);
    set_owner(f, own, own);
    *out = list;
    return status;
}

/* ---- Weights ---- */

enum { REST_BYTES = 16 << 20 };

/* Adds the bytes of these blobs to what was packed since the last rest. */
static void count_packed(const kiln_packing *how, const kiln_packer *p, size_t *bytes) {
    for (int32_t b = 0; b < p->n_blobs; b++) {
        *bytes += p->blobs[b].bytes;
    }
    if (how->rest && *bytes >= REST_BYTES) {
        how->rest(how->user);
        *bytes = 0;
    }
}

kiln_status kiln_cpu_pack(kiln_plan *plan, const kiln_cpu_target *target, const kiln_packing *how,
                          kiln_arena *arena, kiln_diag *diag) {
    size_t bytes = 0;
    kiln_arena scratch;
    kiln_arena_init(&scratch, arena->env);
    KILN_ALLOC(plan->blobs, arena, plan->n_claims);
    KILN_ALLOC(plan->n_blobs, arena, plan->n_claims);
    kiln_status status = KILN_OK;
    for (size_t i = 0; i < plan->n_claims && status == KILN_OK; i++) {
        const kiln_claim *claim = plan->claims[i];
        kiln_packer p = {.claim = claim,
                         .target = target,
                         .measuring = how->measuring,
                         .arena = arena,
                         .scratch = &scratch,
                         .diag = diag};
        if (claim->kernel->pack) {
            kiln_diag_at_node(diag, claim->anchor->name, claim->anchor->op->name);
            status = claim->kernel->pack(&p);
        }
        plan->blobs[i] = p.blobs;
        plan->n_blobs[i] = p.n_blobs;
        kiln_arena_free(&scratch);
        count_packed(how, &p, &bytes);
    }
    kiln_arena_free(&scratch);
    for (size_t b = 0; b < plan->n_bodies && status == KILN_OK; b++) {
        status = kiln_cpu_pack(plan->bodies[b], target, how, arena, diag);
    }
    return status;
}

kiln_status kiln_cpu_plan_graph(kiln_plan **out, const kiln_graph *graph, kiln_plan *parent,
                                const kiln_cpu_target *target, kiln_arena *arena,
                                kiln_refusal_fn refused, void *user, kiln_diag *diag) {
    kiln_plan *p;
    KILN_ALLOC(p, arena, 1);
    p->graph = graph;
    p->parent = parent;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        for (int32_t b = 0; b < graph->nodes[i]->n_bodies; b++) {
            kiln_plan *body;
            KILN_TRY(kiln_cpu_plan_graph(&body, graph->nodes[i]->bodies[b], p, target, arena,
                                         refused, user, diag));
            KILN_TRY(kiln_plan_add_body(p, body, arena));
        }
    }
    KILN_TRY(kiln_cpu_cover(p, target, arena, refused, user, diag));
    KILN_TRY(kiln_cpu_compile(p, arena));
    *out = p;
    return KILN_OK;
}
