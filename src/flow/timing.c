#include "flow/timing.h"

#include <string.h>

#include "base/lookup.h"
#include "base/timer.h"
#include "engine/engine.h"
#include "ops/ops.h"

enum {
    WARM_UP_RUNS = 2,
    LEAST_ROUNDS = KILN_RACE_LEAST_RUNS - WARM_UP_RUNS,
    MOST_ROUNDS = 100,
};
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
    out->ratio = r->n > 0 ? s.median_ms : 1;
    out->wins = r->n > 0 ? (double)wins / (double)r->n : 0;
    memcpy(sorted, r->a, (size_t)r->n * sizeof *sorted);
    kiln_stats_of(&s, sorted, (size_t)r->n);
    out->a_ms = s.median_ms;
    memcpy(sorted, r->b, (size_t)r->n * sizeof *sorted);
    kiln_stats_of(&s, sorted, (size_t)r->n);
    out->b_ms = s.median_ms;
    return KILN_OK;
}

/* The limits of one measurement while it goes on. */
typedef struct stopwatch {
    const kiln_timing_limits *limits;
    int64_t begin_ns;
    bool ended; /* by what ends it sooner */
} stopwatch;

static stopwatch start_watch(const kiln_timing_limits *limits) {
    return (stopwatch){.limits = limits, .begin_ns = kiln_now_ns()};
}

/* Another run may begin. */
static bool may_run(stopwatch *c) {
    const kiln_timing_limits *l = c->limits;
    c->ended = c->ended || (l->end_ns > 0 && kiln_now_ns() >= l->end_ns) ||
               (l->go_on && !l->go_on(l->user));
    return !c->ended;
}

static bool wants_round(const stopwatch *c, int64_t round) {
    double spent_ms = 1e-6 * (double)(kiln_now_ns() - c->begin_ns);
    return !c->ended &&
           (round < LEAST_ROUNDS || (round < MOST_ROUNDS && spent_ms < c->limits->budget_ms));
}

/* What is left of the rounds when the watch says how they ended. */
static int64_t rounds_told(const stopwatch *c, int64_t n) {
    return c->ended && n < LEAST_ROUNDS ? 0 : n;
}

static kiln_status warm_up(stopwatch *c, const kiln_timed *a, const kiln_timed *b,
                           kiln_diag *diag) {
    for (int i = 0; i < 2 * WARM_UP_RUNS && may_run(c); i++) {
        KILN_TRY(kiln_context_run((i % 2 ? b : a)->context, diag));
    }
    return KILN_OK;
}

static kiln_status run_timed(double *ms, const kiln_timed *t, kiln_diag *diag) {
    int64_t start_ns = kiln_now_ns();
    KILN_TRY(kiln_context_run(t->context, diag));
    *ms = 1e-6 * (double)(kiln_now_ns() - start_ns);
    return KILN_OK;
}

static kiln_status race(kiln_race *out, const kiln_timed *a, const kiln_timed *b,
                        const kiln_timing_limits *limits, kiln_arena *arena, kiln_diag *diag) {
    rounds r = {0};
    KILN_ALLOC(r.a, arena, MOST_ROUNDS);
    KILN_ALLOC(r.b, arena, MOST_ROUNDS);
    stopwatch c = start_watch(limits);
    KILN_TRY(warm_up(&c, a, b, diag));
    while (wants_round(&c, r.n) && may_run(&c)) {
        KILN_TRY(run_timed(&r.a[r.n], a, diag));
        if (may_run(&c)) {
            KILN_TRY(run_timed(&r.b[r.n], b, diag));
            r.n++;
        }
    }
    r.n = rounds_told(&c, r.n);
    return summarize(out, &r, arena);
}

kiln_status kiln_race_run(kiln_race *out, const kiln_timed *a, const kiln_timed *b,
                          const kiln_timing_limits *limits, const kiln_env *env, kiln_diag *diag) {
    kiln_arena arena;
    kiln_arena_init(&arena, env);
    kiln_status status = race(out, a, b, limits, &arena, diag);
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
    const char **names; /* of steps' nodes; those that are equal are the first of them */
    size_t n_names, cap_names;
    kiln_lookup places;
    int32_t *parent;     /* per name; follow until it stays */
    int32_t *layer_cell; /* per layer asked for; -1: none */
    int32_t *step_cell;  /* per step of one plan and then of the other */
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

static int32_t find_name(const cells *c, const char *name) {
    return (int32_t)kiln_lookup_find(&c->places, name);
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

static kiln_status join_names(cells *c) {
    KILN_TRY(kiln_lookup_make(&c->places, c->names, c->n_names, c->arena));
    KILN_ALLOC(c->parent, c->arena, c->n_names);
    KILN_ALLOC(c->rounds, c->arena, c->n_names);
    for (size_t i = 0; i < c->n_names; i++) {
        c->parent[i] = (int32_t)i;
    }
    return KILN_OK;
}

static int32_t cell_of(const cells *c, const kiln_step *step) {
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
        int32_t first = cell_of(c, &plan->steps[s]);
        for (int32_t k = 0; step_node(&plan->steps[s], k, &n); k++) {
            if (n && first >= 0) {
                c->parent[root_of(c, find_name(c, n->name))] = root_of(c, first);
            }
        }
    }
}

static kiln_status make_cells(cells *c, const kiln_timed *a, const kiln_timed *b,
                              const char *const *layers, size_t n) {
    const kiln_plan *plans[] = {a->engine->plan, b->engine->plan};
    KILN_TRY(add_names(c, plans[0]));
    KILN_TRY(add_names(c, plans[1]));
    KILN_TRY(join_names(c));
    unite(c, plans[0]);
    unite(c, plans[1]);
    KILN_ALLOC(c->layer_cell, c->arena, n);
    for (size_t i = 0; i < n; i++) {
        int32_t root = root_of(c, find_name(c, layers[i]));
        c->layer_cell[i] = root;
        if (root >= 0 && !c->rounds[root].a) {
            KILN_ALLOC(c->rounds[root].a, c->arena, MOST_ROUNDS);
            KILN_ALLOC(c->rounds[root].b, c->arena, MOST_ROUNDS);
        }
    }
    KILN_ALLOC(c->step_cell, c->arena, plans[0]->n_steps + plans[1]->n_steps);
    for (size_t p = 0, at = 0; p < KILN_COUNT_OF(plans); p++) {
        for (size_t s = 0; s < plans[p]->n_steps; s++) {
            c->step_cell[at++] = cell_of(c, &plans[p]->steps[s]);
        }
    }
    return KILN_OK;
}

/* ---- Times of cells ---- */

/* One run of t, its steps' times added up by cell. */
static kiln_status run_cells(cells *c, const kiln_timed *t, const int32_t *step_cell, bool is_b,
                             int64_t round, kiln_diag *diag) {
    int64_t t_ns, runs;
    kiln_context_set_profile(t->context, true); /* from zero again */
    KILN_TRY(kiln_context_run(t->context, diag));
    for (size_t s = 0; kiln_context_profile(t->context, s, &t_ns, &runs); s++) {
        rounds *r = step_cell[s] >= 0 ? &c->rounds[step_cell[s]] : NULL;
        if (r && r->a) {
            (is_b ? r->b : r->a)[round] += 1e-6 * (double)t_ns;
        }
    }
    return KILN_OK;
}

static kiln_status time_rounds(cells *c, const kiln_timed *a, const kiln_timed *b,
                               const kiln_timing_limits *limits, int64_t *n, kiln_diag *diag) {
    const int32_t *a_cell = c->step_cell, *b_cell = a_cell + a->engine->plan->n_steps;
    stopwatch k = start_watch(limits);
    KILN_TRY(warm_up(&k, a, b, diag));
    while (wants_round(&k, *n) && may_run(&k)) {
        KILN_TRY(run_cells(c, a, a_cell, false, *n, diag));
        if (may_run(&k)) {
            KILN_TRY(run_cells(c, b, b_cell, true, *n, diag));
            (*n)++;
        }
    }
    *n = rounds_told(&k, *n);
    return KILN_OK;
}

static kiln_status time_cells(cells *c, kiln_cell_time *out, const char *const *layers, size_t n,
                              const kiln_timed *a, const kiln_timed *b,
                              const kiln_timing_limits *limits, kiln_diag *diag) {
    int64_t n_rounds = 0;
    KILN_TRY(make_cells(c, a, b, layers, n));
    kiln_status status = time_rounds(c, a, b, limits, &n_rounds, diag);
    kiln_context_set_profile(a->context, false);
    kiln_context_set_profile(b->context, false);
    KILN_TRY(status);
    for (size_t i = 0; i < n; i++) {
        out[i] = (kiln_cell_time){.cell = c->layer_cell[i], .race = {.ratio = 1}};
        if (out[i].cell >= 0) {
            rounds *r = &c->rounds[out[i].cell];
            r->n = n_rounds;
            KILN_TRY(summarize(&out[i].race, r, c->arena));
        }
    }
    return KILN_OK;
}

kiln_status kiln_time_cells(kiln_cell_time *out, const char *const *layers, size_t n,
                            const kiln_timed *a, const kiln_timed *b,
                            const kiln_timing_limits *limits, const kiln_env *env,
                            kiln_diag *diag) {
    kiln_arena arena;
    kiln_arena_init(&arena, env);
    cells c = {.arena = &arena};
    kiln_status status = time_cells(&c, out, layers, n, a, b, limits, diag);
    kiln_arena_free(&arena);
    return status;
}

/* ---- Networks ---- */

static kiln_status make_inputs(kiln_timed *t, const kiln_env *env, kiln_diag *diag) {
    const kiln_generate_options g = {.size = sizeof g, .seed = 1};
    kiln_io io;
    KILN_TRY(kiln_tensors_create(&t->inputs, env));
    for (size_t i = 0; kiln_engine_input(t->engine, i, &io); i++) {
        KILN_TRY(kiln_tensors_generate(t->inputs, &io, &g, diag));
    }
    return kiln_tensors_bind(t->inputs, t->engine, t->context, diag);
}

kiln_status kiln_timed_open(kiln_timed *out, kiln_engine *engine, kiln_pool *pool,
                            const kiln_env *env, kiln_diag *diag) {
    const kiln_context_options o = {.size = sizeof o, .pool = pool, .threads = pool ? 0 : 1};
    *out = (kiln_timed){.engine = engine, .is_own = true};
    KILN_TRY(kiln_context_create(&out->context, engine, &o, diag));
    return make_inputs(out, env, diag);
}

kiln_status kiln_timed_borrow(kiln_timed *out, const kiln_engine *engine, kiln_context *context,
                              const kiln_env *env, kiln_diag *diag) {
    *out = (kiln_timed){.engine = engine, .context = context};
    return make_inputs(out, env, diag);
}

void kiln_timed_close(kiln_timed *t) {
    if (t->is_own) {
        kiln_context_destroy(t->context);
        kiln_engine_destroy((kiln_engine *)t->engine);
    }
    kiln_tensors_destroy(t->inputs);
    *t = (kiln_timed){0};
}
