#include "flow/timing.h"

#include <stdlib.h>
#include <string.h>

#include "base/timer.h"
#include "engine/engine.h"
#include "ops/ops.h"

enum { LEAST_ROUNDS = 5, MOST_ROUNDS = 100, WARM_UP_RUNS = 2 };
static const double most_rounds_won = 0.7;

/* ---- Rounds ---- */

/* Times of both in every round. */
typedef struct rounds {
    double *a, *b;
    int64_t n;
} rounds;

static kiln_status summarize(kiln_race *out, const rounds *r, kiln_arena *arena) {
    double *sorted;
    kiln_stats s;
    int64_t wins = 0;
    KILN_ALLOC(sorted, arena, r->n + 1);
    *out = (kiln_race){.rounds = r->n};
    for (int64_t i = 0; i < r->n; i++) {
        sorted[i] = r->a[i] > 0 ? r->b[i] / r->a[i] : 1;
        wins += r->b[i] < r->a[i];
    }
    kiln_stats_of(&s, sorted, (size_t)r->n);
    out->ratio = s.median_ms;
    out->wins = r->n > 0 ? (double)wins / (double)r->n : 0;
    memcpy(sorted, r->a, (size_t)r->n * sizeof *sorted);
    kiln_stats_of(&s, sorted, (size_t)r->n);
    out->a_ms = s.median_ms;
    memcpy(sorted, r->b, (size_t)r->n * sizeof *sorted);
    kiln_stats_of(&s, sorted, (size_t)r->n);
    out->b_ms = s.median_ms;
    return KILN_OK;
}

static bool go_on(int64_t round, int64_t begin_ns, double budget_ms) {
    double spent_ms = 1e-6 * (double)(kiln_now_ns() - begin_ns);
    return round < LEAST_ROUNDS || (round < MOST_ROUNDS && spent_ms < budget_ms);
}

static kiln_status warm_up(const kiln_timed *a, const kiln_timed *b, kiln_diag *diag) {
    for (int i = 0; i < WARM_UP_RUNS; i++) {
        KILN_TRY(kiln_context_run(a->context, diag));
        KILN_TRY(kiln_context_run(b->context, diag));
    }
    return KILN_OK;
}

static kiln_status run_timed(double *ms, const kiln_timed *t, kiln_diag *diag) {
    int64_t start_ns = kiln_now_ns();
    KILN_TRY(kiln_context_run(t->context, diag));
    *ms = 1e-6 * (double)(kiln_now_ns() - start_ns);
    return KILN_OK;
}

static kiln_status race(kiln_race *out, const kiln_timed *a, const kiln_timed *b, double budget_ms,
                        kiln_arena *arena, kiln_diag *diag) {
    rounds r = {0};
    KILN_ALLOC(r.a, arena, MOST_ROUNDS);
    KILN_ALLOC(r.b, arena, MOST_ROUNDS);
    KILN_TRY(warm_up(a, b, diag));
    for (int64_t begin_ns = kiln_now_ns(); go_on(r.n, begin_ns, budget_ms); r.n++) {
        KILN_TRY(run_timed(&r.a[r.n], a, diag));
        KILN_TRY(run_timed(&r.b[r.n], b, diag));
    }
    return summarize(out, &r, arena);
}

kiln_status kiln_race_run(kiln_race *out, const kiln_timed *a, const kiln_timed *b,
                          double budget_ms, const kiln_env *env, kiln_diag *diag) {
    kiln_arena arena;
    kiln_arena_init(&arena, env);
    kiln_status status = race(out, a, b, budget_ms, &arena, diag);
    kiln_arena_free(&arena);
    return status;
}

bool kiln_race_is_won(const kiln_race *race, double margin) {
    return race->ratio <= 1 - margin && race->wins >= most_rounds_won;
}

/* ---- Cells ---- */

/* Nodes by name, and which of them one step runs together. */
typedef struct cells {
    kiln_arena *arena;
    const char **names; /* sorted, each once */
    size_t n_names, cap_names;
    int32_t *parent; /* per name; follow until it stays */
    size_t n_layers;
    int32_t *layer_cell; /* per layer asked for; -1: none */
    rounds *rounds;      /* per name that is the root of a cell */
} cells;

static bool converts(const kiln_node *n) {
    return n->op == &kiln_op_quantize_linear || n->op == &kiln_op_dequantize_linear;
}

/* The node whose result these conversions are of; of an input's, the one that reads it. NULL when
 * there is none. */
static const kiln_node *behind(const kiln_node *n) {
    const kiln_node *first = n;
    while (n && converts(n)) {
        first = n;
        n = n->in[0] ? n->in[0]->producer : NULL;
    }
    while (!n && first && converts(first)) {
        const kiln_value *y = first->out[0];
        first = y->n_users > 0 ? y->users[0] : NULL;
        n = first && !converts(first) ? first : NULL;
    }
    return n;
}

/* Node k of a step; a conversion of layout counts for the node that made what it converts. NULL:
 * none; false past the end. */
static bool step_node(const kiln_step *step, int32_t k, const kiln_node **out) {
    const kiln_claim *claim = step->claim;
    if (claim->n_nodes > 0) {
        *out = k < claim->n_nodes ? behind(claim->nodes[k]) : NULL;
        return k < claim->n_nodes;
    }
    const kiln_value *v = claim->n_out > 0 ? claim->out[0] : NULL;
    const kiln_node *n = v && v->producer ? v->producer : v && v->n_users > 0 ? v->users[0] : NULL;
    *out = n ? behind(n) : NULL;
    return k == 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int32_t find_name(const cells *c, const char *name) {
    const char **at =
        c->n_names > 0 ? bsearch(&name, c->names, c->n_names, sizeof *c->names, by_name) : NULL;
    return at ? (int32_t)(at - c->names) : -1;
}

static int32_t root_of(const cells *c, int32_t id) {
    while (id >= 0 && c->parent[id] != id) {
        c->parent[id] = c->parent[c->parent[id]];
        id = c->parent[id];
    }
    return id;
}

static kiln_status add_names(cells *c, const kiln_plan *plan) {
    const kiln_node *n;
    for (size_t s = 0; s < plan->n_steps; s++) {
        for (int32_t k = 0; step_node(&plan->steps[s], k, &n); k++) {
            if (n) {
                KILN_PUSH(c->arena, c->names, c->n_names, c->cap_names, n->name);
            }
        }
    }
    return KILN_OK;
}

static kiln_status sort_names(cells *c) {
    size_t kept = 0;
    if (c->n_names > 1) {
        qsort(c->names, c->n_names, sizeof *c->names, by_name);
    }
    for (size_t i = 0; i < c->n_names; i++) {
        if (kept == 0 || strcmp(c->names[kept - 1], c->names[i]) != 0) {
            c->names[kept++] = c->names[i];
        }
    }
    c->n_names = kept;
    KILN_ALLOC(c->parent, c->arena, kept + 1);
    KILN_ALLOC(c->rounds, c->arena, kept + 1);
    for (size_t i = 0; i < kept; i++) {
        c->parent[i] = (int32_t)i;
    }
    return KILN_OK;
}

static int32_t step_cell(const cells *c, const kiln_step *step) {
    const kiln_node *n;
    for (int32_t k = 0; step_node(step, k, &n); k++) {
        if (n) {
            return root_of(c, find_name(c, n->name));
        }
    }
    return -1;
}

static void unite(cells *c, const kiln_plan *plan) {
    const kiln_node *n;
    for (size_t s = 0; s < plan->n_steps; s++) {
        int32_t first = step_cell(c, &plan->steps[s]);
        for (int32_t k = 0; step_node(&plan->steps[s], k, &n); k++) {
            if (n && first >= 0) {
                c->parent[root_of(c, find_name(c, n->name))] = root_of(c, first);
            }
        }
    }
}

static kiln_status make_cells(cells *c, const kiln_timed *a, const kiln_timed *b,
                              const char *const *layers, size_t n) {
    KILN_TRY(add_names(c, a->engine->plan));
    KILN_TRY(add_names(c, b->engine->plan));
    KILN_TRY(sort_names(c));
    unite(c, a->engine->plan);
    unite(c, b->engine->plan);
    KILN_ALLOC(c->layer_cell, c->arena, n + 1);
    for (size_t i = 0; i < n; i++) {
        int32_t root = root_of(c, find_name(c, layers[i]));
        c->layer_cell[i] = root;
        if (root >= 0 && !c->rounds[root].a) {
            KILN_ALLOC(c->rounds[root].a, c->arena, MOST_ROUNDS);
            KILN_ALLOC(c->rounds[root].b, c->arena, MOST_ROUNDS);
        }
    }
    return KILN_OK;
}

/* ---- Times of cells ---- */

/* One run of t, its steps' times added up by cell. */
static kiln_status run_cells(cells *c, const kiln_timed *t, bool is_b, int64_t round,
                             kiln_diag *diag) {
    int64_t t_ns, runs;
    kiln_context_set_profile(t->context, true); /* from zero again */
    KILN_TRY(kiln_context_run(t->context, diag));
    for (size_t s = 0; kiln_context_profile(t->context, s, &t_ns, &runs); s++) {
        int32_t cell = step_cell(c, &t->engine->plan->steps[s]);
        rounds *r = cell >= 0 ? &c->rounds[cell] : NULL;
        if (r && r->a) {
            (is_b ? r->b : r->a)[round] += 1e-6 * (double)t_ns;
        }
    }
    return KILN_OK;
}

static kiln_status time_rounds(cells *c, const kiln_timed *a, const kiln_timed *b, double budget_ms,
                               int64_t *n, kiln_diag *diag) {
    KILN_TRY(warm_up(a, b, diag));
    for (int64_t begin_ns = kiln_now_ns(); go_on(*n, begin_ns, budget_ms); (*n)++) {
        KILN_TRY(run_cells(c, a, false, *n, diag));
        KILN_TRY(run_cells(c, b, true, *n, diag));
    }
    return KILN_OK;
}

static kiln_status time_cells(cells *c, kiln_cell_time *out, const char *const *layers, size_t n,
                              const kiln_timed *a, const kiln_timed *b, double budget_ms,
                              kiln_diag *diag) {
    int64_t n_rounds = 0;
    KILN_TRY(make_cells(c, a, b, layers, n));
    kiln_status status = time_rounds(c, a, b, budget_ms, &n_rounds, diag);
    kiln_context_set_profile(a->context, false);
    kiln_context_set_profile(b->context, false);
    KILN_TRY(status);
    for (size_t i = 0; i < n; i++) {
        out[i] = (kiln_cell_time){.cell = c->layer_cell[i]};
        if (out[i].cell >= 0) {
            rounds *r = &c->rounds[out[i].cell];
            r->n = n_rounds;
            KILN_TRY(summarize(&out[i].race, r, c->arena));
        }
    }
    return KILN_OK;
}

kiln_status kiln_time_cells(kiln_cell_time *out, const char *const *layers, size_t n,
                            const kiln_timed *a, const kiln_timed *b, double budget_ms,
                            const kiln_env *env, kiln_diag *diag) {
    kiln_arena arena;
    kiln_arena_init(&arena, env);
    cells c = {.arena = &arena, .n_layers = n};
    kiln_status status = time_cells(&c, out, layers, n, a, b, budget_ms, diag);
    kiln_arena_free(&arena);
    return status;
}

/* ---- Inputs ---- */

kiln_status kiln_timed_inputs(kiln_tensors **list, const kiln_timed *t, const kiln_env *env,
                              kiln_diag *diag) {
    const kiln_generate_options g = {.size = sizeof g, .seed = 1};
    kiln_io io;
    *list = NULL;
    KILN_TRY(kiln_tensors_create(list, env));
    for (size_t i = 0; kiln_engine_input(t->engine, i, &io); i++) {
        KILN_TRY(kiln_tensors_generate(*list, &io, &g, diag));
    }
    return kiln_tensors_bind(*list, t->engine, t->context, diag);
}
