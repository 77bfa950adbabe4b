/* runner.c - sweeps the passes over a graph and its bodies to a fixed point. */
#include <string.h>

#include "base/env.h"
#include "ops/ops.h"
#include "pass/pass.h"

#define KILN_PASS(id) extern const kiln_pass kiln_pass_##id;
#include "pass/passes.def"
#undef KILN_PASS

static const kiln_pass *const table[] = {
#define KILN_PASS(id) &kiln_pass_##id,
#include "pass/passes.def"
#undef KILN_PASS
};
enum { N_PASSES = KILN_COUNT_OF(table) };

/* Bounds on what is a fixed point in all but broken cases. Merging halves a chain, so that 64
 * sweeps are more than any chain needs. */
enum { MAX_SWEEPS = 64, MAX_ROUNDS = 16 };

typedef struct runner {
    kiln_graph *graph;
    const kiln_pass_options *options;
    kiln_pass_info *infos;
    kiln_diag *diag;
    kiln_arena scratch;
    size_t applied;            /* rewrites of all passes */
    size_t clean_at[N_PASSES]; /* 1 + `applied` when the pass last found nothing */
} runner;

bool kiln_pass_exists(const char *name) {
    for (size_t i = 0; i < N_PASSES; i++) {
        if (strcmp(table[i]->name, name) == 0) {
            return true;
        }
    }
    return false;
}

const char *kiln_pass_name(size_t i) {
    return i < N_PASSES ? table[i]->name : NULL;
}

/* ---- Inference of what changed ---- */

typedef struct change {
    uint8_t *dirty;   /* per value id: its producer must be inferred (first output) */
    uint8_t *changed; /* per value id: its type or contents are new */
    kiln_diag *diag;
} change;

static bool same_type(const kiln_type *a, const kiln_type *b) {
    if (a->kind != b->kind || a->dtype != b->dtype || a->rank != b->rank) {
        return false;
    }
    if (a->kind != KILN_KIND_TENSOR) {
        return kiln_type_equal(a, b);
    }
    for (int32_t i = 0; i < a->rank; i++) {
        if (a->dims[i] != b->dims[i]) {
            return false;
        }
    }
    return true;
}

static bool same_fact(const kiln_fact *a, const kiln_value *b) {
    if (!same_type(&a->type, &b->type) || !a->contents != !b->contents ||
        a->n_contents != b->n_contents) {
        return false;
    }
    return !a->contents ||
           memcmp(a->contents, b->contents, (size_t)a->n_contents * sizeof *a->contents) == 0;
}

/* Something in the body needs inference, which the node that owns it drives. */
static bool is_stale(const change *c, const kiln_graph *g);

static bool is_node_stale(const change *c, const kiln_node *n) {
    if (n->n_out > 0 && c->dirty[n->out[0]->id]) {
        return true;
    }
    for (int32_t k = 0; k < n->n_in; k++) {
        if (n->in[k] && c->changed[n->in[k]->id]) {
            return true;
        }
    }
    for (int32_t b = 0; b < n->n_bodies; b++) {
        if (is_stale(c, n->bodies[b])) {
            return true;
        }
    }
    return false;
}

static bool is_stale(const change *c, const kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (is_node_stale(c, g->nodes[i])) {
            return true;
        }
    }
    return false;
}

static kiln_status infer_one(const change *c, kiln_graph *g, kiln_node *n, kiln_arena *scratch) {
    kiln_fact *before;
    kiln_arena_mark mark = kiln_arena_here(scratch);
    KILN_ALLOC(before, scratch, n->n_out);
    for (int32_t k = 0; k < n->n_out; k++) {
        before[k] = kiln_value_fact(n->out[k]);
    }
    KILN_TRY(kiln_infer_node(g, n, c->diag));
    for (int32_t k = 0; k < n->n_out; k++) {
        c->changed[n->out[k]->id] = !same_fact(&before[k], n->out[k]);
    }
    kiln_arena_rewind(scratch, mark);
    return KILN_OK;
}

static kiln_status infer_changed(runner *r, const kiln_patch *p) {
    change c = {.diag = r->diag};
    KILN_ALLOC(c.dirty, &r->scratch, r->graph->n_values);
    KILN_ALLOC(c.changed, &r->scratch, r->graph->n_values);
    for (size_t i = 0; i < p->n_dirty; i++) {
        c.dirty[p->dirty[i]->out[0]->id] = 1;
    }
    for (size_t i = 0; i < r->graph->n_nodes; i++) {
        kiln_node *n = r->graph->nodes[i];
        if (is_node_stale(&c, n)) {
            KILN_TRY(infer_one(&c, r->graph, n, &r->scratch));
        }
    }
    return KILN_OK;
}

/* ---- One sweep of one pass ---- */

static kiln_status look(kiln_patch *p, const kiln_pass *pass, const kiln_graph *g) {
    p->graph = g;
    if (pass->scan) {
        KILN_TRY(pass->scan(p, g));
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(look(p, pass, n->bodies[b]));
            p->graph = g;
        }
        if (pass->visit && !kiln_patch_taken(p, n)) {
            KILN_TRY(pass->visit(p, n));
            KILN_TRY(p->status);
            kiln_patch_drop(p);
        }
    }
    return KILN_OK;
}

static kiln_status sweep(runner *r, size_t i, size_t *n_rewrites) {
    size_t limit =
        r->options->stop_after > 0 ? (size_t)r->options->stop_after - r->applied : SIZE_MAX;
    kiln_patch p = {.root = r->graph,
                    .arena = &r->scratch,
                    .diag = r->diag,
                    .find = kiln_op_find,
                    .pass = table[i]->name,
                    .max_rewrites = limit};
    KILN_TRY(kiln_patch_init(&p));
    KILN_TRY(look(&p, table[i], r->graph));
    *n_rewrites = p.n_rewrites;
    if (p.n_rewrites == 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_patch_apply(&p));
    KILN_TRY(kiln_graph_sort(r->graph, r->diag));
    KILN_TRY(kiln_graph_verify(r->graph, r->diag));
    return infer_changed(r, &p);
}

static bool is_off(const runner *r, const char *name) {
    const kiln_pass_options *o = r->options;
    if (o->only) {
        return strcmp(o->only, name) != 0;
    }
    for (const char *const *off = o->off; off && *off; off++) {
        if (strcmp(*off, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_spent(const runner *r) {
    return r->options->stop_after > 0 && r->applied >= (size_t)r->options->stop_after;
}

static kiln_status run_pass(runner *r, size_t i) {
    kiln_pass_info *info = &r->infos[i];
    size_t found = 1;
    for (int k = 0; k < MAX_SWEEPS && found && !is_spent(r); k++) {
        size_t before = kiln_graph_count(r->graph);
        kiln_arena_recycle(&r->scratch);
        KILN_TRY(sweep(r, i, &found));
        r->applied += found;
        info->rewrites += found;
        if (found) {
            if (info->rewrites == found) {
                info->nodes_before = before;
            }
            info->nodes_after = kiln_graph_count(r->graph);
        }
    }
    r->clean_at[i] = r->applied + 1;
    return KILN_OK;
}

static kiln_status run_all(runner *r) {
    for (int round = 0; round < MAX_ROUNDS; round++) {
        size_t before = r->applied;
        for (size_t i = 0; i < N_PASSES; i++) {
            if (r->infos[i].off || r->clean_at[i] == r->applied + 1) {
                continue;
            }
            kiln_diag_enter(r->diag, "pass %s", table[i]->name);
            kiln_status status = run_pass(r, i);
            if (status != KILN_OK) {
                kiln_diag_leave(r->diag);
                return status;
            }
            kiln_diag_leave(r->diag);
        }
        if (r->applied == before) {
            return KILN_OK;
        }
    }
    return KILN_OK;
}

kiln_status kiln_passes_run(kiln_graph *graph, const kiln_pass_options *options,
                            kiln_pass_info **infos, size_t *n_infos, kiln_diag *diag) {
    const kiln_pass_options defaults = {0};
    runner r = {.graph = graph, .options = options ? options : &defaults, .diag = diag};
    KILN_ALLOC(r.infos, graph->arena, N_PASSES);
    for (size_t i = 0; i < N_PASSES; i++) {
        r.infos[i].name = table[i]->name;
        r.infos[i].off = is_off(&r, table[i]->name);
        r.infos[i].nodes_before = r.infos[i].nodes_after = kiln_graph_count(graph);
    }
    *infos = r.infos;
    *n_infos = N_PASSES;
    KILN_TRY(kiln_graph_sort(graph, diag));
    KILN_TRY(kiln_graph_verify(graph, diag));
    kiln_arena_init(&r.scratch, graph->env);
    kiln_status status = run_all(&r);
    kiln_arena_free(&r.scratch);
    return status;
}
