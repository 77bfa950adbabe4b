#include "engine/workspace.h"

#include "base/diag.h"
#include "engine/trial.h"

/* Which ways need too much. */
typedef struct limiter {
    kiln_engine *engine;
    kiln_bans *bans;
    kiln_datum *inputs; /* the largest */
    kiln_diag *diag;
} limiter;

static kiln_status ban(limiter *l, const kiln_cover_trial_call *c) {
    kiln_arena *arena = &l->engine->arena;
    const kiln_ban **list = &l->bans->of[c->claim->anchor->id];
    kiln_ban *b;
    KILN_ALLOC(b, arena, 1);
    *b = (kiln_ban){.next = *list,
                    .kernel = c->claim->kernel,
                    .tactic = c->claim->tactic,
                    .bytes = c->bytes,
                    .reason = kiln_arena_printf(
                        arena, "tactic %s needs %zu bytes beside its operands, more than %zu",
                        kiln_tactic_name(c->claim), c->bytes, l->engine->workspace_bytes)};
    *list = b;
    return b->reason ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status ban_large(limiter *l, const kiln_cover_trial *trial, bool *any) {
    kiln_cover_trial_call c;
    for (size_t i = 0; kiln_cover_trial_get(trial, i, &c); i++) {
        if (c.claim->anchor && c.bytes > l->engine->workspace_bytes) {
            *any = true;
            KILN_TRY(ban(l, &c));
        }
    }
    return KILN_OK;
}

/* What no kernel may run would be left to the reference, which is slow. */
static kiln_status check_left(const limiter *l, const kiln_plan *plan) {
    const kiln_kernel *reference = kiln_kernel_at(kiln_kernel_count() - 1);
    for (size_t i = 0; i < plan->n_claims; i++) {
        const kiln_claim *c = plan->claims[i];
        size_t least = SIZE_MAX;
        for (const kiln_ban *b = l->bans->of[c->anchor->id]; b; b = b->next) {
            least = b->bytes < least ? b->bytes : least;
        }
        if (c->kernel == reference && least < SIZE_MAX) {
            kiln_diag_at_node(l->diag, c->anchor->name, c->anchor->op->name);
            kiln_status status =
                kiln_fail(l->diag, KILN_F_RUN_LIMIT,
                          "it needs %zu bytes beside its operands at least, the workspace is %zu",
                          least, l->engine->workspace_bytes);
            kiln_diag_at_node(l->diag, NULL, NULL);
            return status;
        }
    }
    return KILN_OK;
}

/* Bans what needs too much as the graph is covered now; *more: there was such. A network that
 * cannot have the shapes that are taken for those nothing bounds is not limited. */
static kiln_status try_cover(limiter *l, bool *more) {
    const kiln_engine *e = l->engine;
    const size_t said = kiln_diag_count(l->diag);
    kiln_cover_trial trial;
    *more = false;
    kiln_status status =
        kiln_cover_trial_open(&trial, e->graph, &e->target, l->inputs, e->env, l->diag);
    if (status == KILN_OK) {
        status = ban_large(l, &trial, more);
    } else if (status != KILN_E_MEMORY) {
        kiln_diag_truncate(l->diag, said);
        kiln_warn(l->diag, KILN_F_RUN_LIMIT,
                  "the workspace of layers is not limited: with 1 for dims that nothing bounds the "
                  "network cannot run");
        kiln_hint(l->diag, KILN_OK, "give a profile (--dynamic-shape)");
        status = KILN_OK;
    }
    status = status == KILN_OK && trial.plan ? check_left(l, trial.plan) : status;
    kiln_cover_trial_close(&trial);
    return status;
}

static kiln_status limit(kiln_engine *e, kiln_diag *diag) {
    limiter l = {.engine = e, .diag = diag};
    KILN_ALLOC(l.bans, &e->arena, 1);
    KILN_ALLOC(l.bans->of, &e->arena, e->graph->n_nodes);
    KILN_ALLOC(l.inputs, &e->arena, e->graph->n_inputs);
    l.bans->graph = e->graph;
    e->target.bans = l.bans;
    for (size_t i = 0; i < e->graph->n_inputs; i++) {
        kiln_profile_largest(e->profile ? &e->profile[i] : NULL, e->graph->inputs[i], &l.inputs[i]);
    }
    for (bool more = true; more;) { /* a round bans ways that no later one has */
        KILN_TRY(try_cover(&l, &more));
    }
    return KILN_OK;
}

/* What was read of the model's files is packed. */
static void rest(void *user) {
    kiln_hold_rest(((const kiln_engine *)user)->hold);
}

kiln_status kiln_engine_plan(kiln_engine *engine, kiln_refusal_fn refused, void *user,
                             kiln_diag *diag) {
    if (engine->workspace_bytes > 0) {
        KILN_TRY(limit(engine, diag));
    }
    KILN_TRY(kiln_cpu_plan_graph(&engine->plan, engine->graph, NULL, &engine->target,
                                 &engine->arena, refused, user, diag));
    const kiln_packing packing = {.rest = rest, .user = engine};
    rest(engine);
    KILN_TRY(kiln_cpu_pack(engine->plan, &engine->target, &packing, &engine->arena, diag));
    rest(engine);
    return KILN_OK;
}
