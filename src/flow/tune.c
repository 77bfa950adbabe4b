/* tune.c - an engine whose layers run in the ways that were fastest here.
 *
 * The network as rules would have it runs in turn with one that has the next way at every layer
 * which has one left, so that each way is timed where it will run: after the layer before it, with
 * weights that the rest of the network has pushed out of the caches. Answers are compared first. */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/env.h"
#include "base/host.h"
#include "base/lookup.h"
#include "base/options.h"
#include "base/text.h"
#include "base/timer.h"
#include "flow/answers.h"
#include "flow/crowd.h"
#include "flow/ways.h"

/* What must be gained for a way to be chosen: a share of the layer's time, and in all of the
 * network's. */
static const double layer_margin = 0.02, network_margin = 0.005;
/* What each level spends: ways of a layer, time on each of them, and seconds in all. */
static const struct {
    int32_t ways;
    double way_ms, race_ms, all_s;
} levels[] = {{0, 0, 0, 0},      {2, 100, 100, 5},      {4, 200, 200, 15},
              {8, 400, 400, 45}, {16, 1500, 1500, 300}, {1 << 20, 5000, 5000, INFINITY}};

typedef struct job {
    const kiln_env *env;
    const kiln_model *model;
    kiln_build_options build;
    kiln_tune_options how;
    kiln_pool *pool;
    int32_t n_beside; /* runs of the rules' network beside what is timed: for throughput */
    kiln_arena arena;
    kiln_timings *timings;
    int64_t begin_ns;
    kiln_timed rules;
    double open_s, first_s, run_s; /* to build a network, its first run, and one of the later */
    kiln_text place;               /* what all layers' times depend on */
    kiln_ways ways;
    kiln_answers *answers; /* what layers give, as they are listed */
    const char **names;    /* of layers that are timed */
    size_t *timed;         /* their numbers */
    kiln_way *choices;
    size_t n_choices;
    double known;      /* share of the ways */
    bool stopped;      /* by the caller */
    kiln_timed proven; /* the network with the best choices, where it has been raced */
    kiln_diag *diag;
} job;

/* ---- Networks ---- */

static kiln_status open_engine(job *j, kiln_engine **out) {
    kiln_build_options b = j->build;
    size_t said = kiln_diag_count(j->diag);
    b.choices = j->choices;
    b.n_choices = j->n_choices;
    kiln_status status = kiln_engine_build(out, j->model, &b, j->diag);
    if (status == KILN_OK && j->rules.engine) {
        kiln_diag_truncate(j->diag, said); /* the same warnings again */
    }
    return status;
}

/* The network with the choices that are set. */
static kiln_status open_network(job *j, kiln_timed *t) {
    kiln_engine *engine;
    KILN_TRY(open_engine(j, &engine));
    return kiln_timed_open(t, engine, j->pool, j->env, j->diag);
}

static double spent_s(const job *j) {
    return 1e-9 * (double)(kiln_now_ns() - j->begin_ns);
}

/* ---- The budget ---- */

/* The least that a race with another network takes: to build it, its first run, and those of both
 * that a race takes. */
static double race_s(const job *j) {
    return j->open_s + j->first_s + 2 * KILN_RACE_LEAST_RUNS * j->run_s;
}

/* What a round leaves for the proof of what it finds. */
static double proof_s(const job *j) {
    return 1.25 * race_s(j);
}

static bool fits(const job *j, double more_s) {
    return spent_s(j) + more_s <= j->how.budget_s;
}

static bool may_go_on(void *user) {
    job *j = user;
    const kiln_progress *p = j->how.progress;
    j->stopped = j->stopped || (p && !p->step(p->user, j->known));
    return !j->stopped;
}

/* For the measurements of a round, which leave time for the proof. */
static kiln_timing_limits round_limits(job *j) {
    const double left_s = j->how.budget_s - proof_s(j);
    return (kiln_timing_limits){.budget_ms = levels[j->how.level].way_ms,
                                .end_ns =
                                    isfinite(left_s) ? j->begin_ns + (int64_t)(1e9 * left_s) : 0,
                                .go_on = may_go_on,
                                .user = j};
}

/* ---- Keys ---- */

static kiln_status put_place(job *j) {
    kiln_text *t = &j->place;
    kiln_cpu_info cpu;
    kiln_cpu_describe(&cpu);
    kiln_text_printf(t, "%s %s %s %d\n", kiln_version(), cpu.model,
                     kiln_target_isa(&j->rules.engine->target), j->how.threads);
    if (j->build.goal == KILN_GOAL_THROUGHPUT) {
        kiln_text_printf(t, "%d at once\n", j->n_beside + 1);
    }
    for (size_t i = 0; i < kiln_tensors_count(j->rules.inputs); i++) {
        const kiln_tensor *x = kiln_tensors_get(j->rules.inputs, i, NULL);
        for (int32_t d = 0; x && d < x->rank; d++) {
            kiln_text_printf(t, "%lld,", (long long)x->dims[d]);
        }
    }
    return kiln_text_ok(t) ? KILN_OK : KILN_E_MEMORY;
}

/* The key of all choices together. */
static kiln_status key_of_all(job *j, kiln_hash128 *out) {
    kiln_text t;
    kiln_text_init(&t, j->env);
    kiln_text_append(&t, j->place.data, j->place.len);
    for (size_t i = 0; i < j->ways.n_layers; i++) {
        const kiln_layer_kind *k = j->ways.layers[i].kind;
        kiln_text_append(&t, &k->key, sizeof k->key);
        kiln_text_printf(&t, "%s\n", k->chosen >= 0 ? k->ways[k->chosen].name : "/");
    }
    kiln_status status = kiln_text_ok(&t) ? KILN_OK : KILN_E_MEMORY;
    *out = status == KILN_OK ? kiln_hash_128(t.data, t.len) : (kiln_hash128){0};
    kiln_text_free(&t);
    return status;
}

/* ---- Layers ---- */

static void look_up(const job *j, const kiln_layer_kind *k) {
    for (size_t i = 0; i < k->n_ways; i++) {
        const kiln_timing *t = kiln_timings_find(j->timings, k->key, k->ways[i].name);
        k->ways[i].known = t != NULL;
        k->ways[i].timing = t ? *t : (kiln_timing){0};
    }
}

/* The made-up inputs, in the graph's order. */
static kiln_status list_inputs(job *j, const kiln_datum **out) {
    const kiln_graph *g = j->rules.engine->graph;
    kiln_datum *inputs;
    KILN_ALLOC(inputs, &j->arena, g->n_inputs);
    for (size_t i = 0; i < g->n_inputs; i++) {
        const kiln_tensor *t = kiln_tensors_find(j->rules.inputs, g->inputs[i]->name);
        inputs[i].kind = g->inputs[i]->type.kind;
        if (t && inputs[i].kind == KILN_KIND_TENSOR) {
            inputs[i].tensor = *t;
            inputs[i].tensor.data = NULL;
        }
    }
    *out = inputs;
    return KILN_OK;
}

/* Until when ways may be told apart: a twentieth of the budget. */
static int64_t telling_end_ns(const job *j) {
    const double share_s = 0.05 * j->how.budget_s;
    return isfinite(share_s) ? kiln_now_ns() + (int64_t)(1e9 * share_s) : INT64_MAX;
}

static kiln_status list_layers(job *j) {
    kiln_ways *w = &j->ways;
    kiln_ways_wanted wanted = {.rules = j->rules.engine,
                               .place = &j->place,
                               .most = (size_t)levels[j->how.level].ways,
                               .end_ns = telling_end_ns(j)};
    KILN_TRY(list_inputs(j, &wanted.inputs));
    KILN_TRY(kiln_ways_list(w, &wanted, &j->arena));
    if (w->n_left_out > 0) {
        kiln_note(j->diag, KILN_F_TIMING,
                  "%zu layers run as rules decide: those with the most multiply-adds are timed, %d "
                  "of a network",
                  w->n_left_out, (int)KILN_MOST_TIMED_LAYERS);
    }
    for (size_t i = 0; i < w->n_kinds; i++) {
        look_up(j, &w->kinds[i]);
    }
    KILN_ALLOC(j->names, &j->arena, w->n_layers);
    KILN_ALLOC(j->timed, &j->arena, w->n_layers);
    KILN_ALLOC(j->choices, &j->arena, w->n_layers);
    return KILN_OK;
}

/* Runs the rules' network: how long that takes, and what its layers give. */
static kiln_status keep_answers(job *j) {
    const char **outputs;
    int64_t begin_ns = kiln_now_ns();
    KILN_ALLOC(outputs, &j->arena, j->ways.n_layers);
    for (size_t i = 0; i < j->ways.n_layers; i++) {
        outputs[i] = j->ways.layers[i].output;
    }
    KILN_TRY(
        kiln_answers_keep(&j->answers, &j->rules, outputs, j->ways.n_layers, &j->arena, j->diag));
    j->first_s = j->run_s = 1e-9 * (double)(kiln_now_ns() - begin_ns);
    if (may_go_on(j) && fits(j, j->first_s)) { /* the first also binds and fills the caches */
        begin_ns = kiln_now_ns();
        KILN_TRY(kiln_context_run(j->rules.context, j->diag));
        j->run_s = 1e-9 * (double)(kiln_now_ns() - begin_ns);
    }
    return KILN_OK;
}

/* ---- Rounds ---- */

/* Makes a list of what is chosen. */
static void list_choices(job *j) {
    j->n_choices = 0;
    for (size_t i = 0; i < j->ways.n_layers; i++) {
        const kiln_timed_layer *l = &j->ways.layers[i];
        if (l->kind->chosen >= 0) {
            const kiln_layer_way *w = &l->kind->ways[l->kind->chosen];
            j->names[j->n_choices] = l->name;
            j->timed[j->n_choices] = i;
            j->choices[j->n_choices++] = (kiln_way){l->name, w->kernel, w->tactic, true};
        }
    }
}

/* The first way of each layer that has not been timed; false when none is left. */
static bool choose_next(job *j) {
    for (size_t i = 0; i < j->ways.n_kinds; i++) {
        kiln_layer_kind *k = &j->ways.kinds[i];
        k->chosen = -1;
        for (size_t w = 0; w < k->n_ways && k->chosen < 0; w++) {
            k->chosen = k->ways[w].known ? -1 : (int64_t)w;
        }
    }
    list_choices(j);
    return j->n_choices > 0;
}

/* What was found of the way that is chosen. */
static kiln_status note(job *j, kiln_layer_kind *k, const kiln_timing *timing) {
    kiln_layer_way *w = &k->ways[k->chosen];
    w->timing = *timing;
    w->known = true;
    return kiln_timings_add(j->timings, k->key, w->name, timing, j->diag);
}

static kiln_status refuse(job *j, kiln_layer_kind *k, const char *reason) {
    const char *kept = kiln_arena_text(&j->arena, reason, strlen(reason));
    const kiln_timing none = {.race = {.ratio = 1}, .refused = kept};
    return kept ? note(j, k, &none) : KILN_E_MEMORY;
}

/* The layers of a network by their anchors: places among its claims. */
static kiln_status list_anchors(kiln_lookup *out, const kiln_plan *plan, kiln_arena *arena) {
    const char **names;
    KILN_ALLOC(names, arena, plan->n_claims);
    for (size_t i = 0; i < plan->n_claims; i++) {
        names[i] = plan->claims[i]->anchor->name;
    }
    return kiln_lookup_make(out, names, plan->n_claims, arena);
}

/* The layer runs in the way that was chosen. */
static bool runs_so(const kiln_timed *n, const kiln_lookup *anchors, const kiln_timed_layer *l) {
    const kiln_layer_way *w = &l->kind->ways[l->kind->chosen];
    int64_t at = kiln_lookup_find(anchors, l->name);
    const kiln_claim *c = at >= 0 ? n->engine->plan->claims[at] : NULL;
    return c && strcmp(c->kernel->name, w->kernel) == 0 &&
           strcmp(kiln_tactic_name(c), w->tactic) == 0;
}

/* Why the way that was chosen for the layer could not be had. */
static const char *why_not(const kiln_timed *n, const kiln_timed_layer *l) {
    const kiln_layer_way *w = &l->kind->ways[l->kind->chosen];
    for (size_t i = 0; i < n->engine->n_refusals; i++) {
        const kiln_refusal *r = &n->engine->refusals[i];
        if (strcmp(r->node, l->name) == 0 && strcmp(r->kernel, w->kernel) == 0) {
            return r->reason;
        }
    }
    return "the layers around it do not leave it its nodes";
}

/* A wrong answer makes those of the layers after it wrong: only the first is refused for it, and
 * the others wait for a round without it. */
static kiln_status check_answers(job *j, const kiln_timed *n, bool *right, kiln_arena *scratch) {
    kiln_lookup anchors;
    KILN_TRY(kiln_answers_compare(j->answers, n, j->diag));
    KILN_TRY(list_anchors(&anchors, n->engine->plan, scratch));
    *right = true;
    for (size_t i = 0; i < j->ways.n_layers && *right; i++) {
        const kiln_timed_layer *l = &j->ways.layers[i];
        if (l->kind->chosen < 0) {
            continue;
        }
        if (!runs_so(n, &anchors, l)) {
            KILN_TRY(refuse(j, l->kind, why_not(n, l)));
        } else if (kiln_answers_differ(j->answers, i)) {
            KILN_TRY(refuse(j, l->kind, "its answer differs from that of the rules' way"));
            *right = false;
        }
    }
    return KILN_OK;
}

/* What a round showed of kinds: sums over their layers. */
typedef struct tally {
    kiln_race sum;
    double n;
} tally;

static kiln_race mean_race(const tally *t) {
    const double n = t->n > 0 ? t->n : 1;
    return (kiln_race){.a_ms = t->sum.a_ms / n,
                       .b_ms = t->sum.b_ms / n,
                       .ratio = t->n > 0 ? t->sum.ratio / n : 1,
                       .wins = t->sum.wins / n,
                       .rounds = t->sum.rounds};
}

static void count(tally *t, const kiln_race *r) {
    t->sum.a_ms += r->a_ms;
    t->sum.b_ms += r->b_ms;
    t->sum.ratio += r->ratio;
    t->sum.wins += r->wins;
    t->sum.rounds += r->rounds;
    t->n++;
}

/* What a round that was cut short did not tell is left for another. */
static kiln_status time_round(job *j, const kiln_timed *n, kiln_arena *scratch) {
    const kiln_timing_limits limits = round_limits(j);
    kiln_cell_time *cells;
    tally *tallies;
    KILN_ALLOC(cells, scratch, j->n_choices);
    KILN_ALLOC(tallies, scratch, j->ways.n_kinds);
    kiln_crowd *crowd;
    KILN_TRY(kiln_crowd_start(&crowd, j->rules.engine, j->n_beside, j->env, j->diag));
    kiln_status status =
        kiln_time_cells(cells, j->names, j->n_choices, &j->rules, n, &limits, j->env, j->diag);
    kiln_crowd_stop(crowd);
    KILN_TRY(status);
    const bool cut = j->stopped || (limits.end_ns > 0 && kiln_now_ns() >= limits.end_ns);
    for (size_t i = 0; i < j->n_choices; i++) {
        const kiln_layer_kind *k = j->ways.layers[j->timed[i]].kind;
        if (cells[i].race.rounds > 0) {
            count(&tallies[k - j->ways.kinds], &cells[i].race);
        }
    }
    for (size_t i = 0; i < j->ways.n_kinds; i++) {
        kiln_layer_kind *k = &j->ways.kinds[i];
        if (k->chosen >= 0 && !k->ways[k->chosen].known && (tallies[i].n > 0 || !cut)) {
            const kiln_timing t = {.race = mean_race(&tallies[i])};
            KILN_TRY(note(j, k, &t));
        }
    }
    return KILN_OK;
}

static kiln_status measure_round(job *j) {
    kiln_timed n = {0};
    bool right = false;
    kiln_arena scratch;
    kiln_arena_init(&scratch, j->env);
    kiln_status status = open_network(j, &n);
    status = status ? status : check_answers(j, &n, &right, &scratch);
    status = status == KILN_OK && right ? time_round(j, &n, &scratch) : status;
    kiln_timed_close(&n);
    kiln_arena_free(&scratch);
    return status;
}

static bool go_on(job *j) {
    size_t ways = 0, known = 0;
    for (size_t i = 0; i < j->ways.n_kinds; i++) {
        for (size_t w = 0; w < j->ways.kinds[i].n_ways; w++) {
            ways++;
            known += j->ways.kinds[i].ways[w].known;
        }
    }
    j->known = ways > 0 ? (double)known / (double)ways : 1;
    return !j->how.frozen && may_go_on(j) && choose_next(j) && fits(j, race_s(j) + proof_s(j));
}

/* Times ways until all are known or the budget is spent. */
static kiln_status measure_rounds(job *j) {
    bool any = false;
    if (!j->how.frozen && choose_next(j) && fits(j, 0)) {
        KILN_TRY(keep_answers(j));
    }
    for (; go_on(j); any = true) {
        KILN_TRY(measure_round(j));
    }
    if (!any && !j->how.frozen && !j->stopped && choose_next(j)) {
        kiln_warn(j->diag, KILN_F_TIMING,
                  "layers are not timed: that takes %.3g s at least, and the time budget is %.3g s",
                  spent_s(j) + race_s(j) + proof_s(j), j->how.budget_s);
    }
    return KILN_OK;
}

/* ---- Choosing ---- */

static void choose_best(job *j) {
    for (size_t i = 0; i < j->ways.n_kinds; i++) {
        kiln_layer_kind *k = &j->ways.kinds[i];
        double best = INFINITY;
        k->chosen = -1;
        for (size_t w = 0; w < k->n_ways; w++) {
            const kiln_timing *t = &k->ways[w].timing;
            bool won = k->ways[w].known && !t->refused && t->race.rounds > 0 &&
                       kiln_race_is_won(&t->race, layer_margin);
            if (won && t->race.ratio < best) {
                best = t->race.ratio;
                k->chosen = (int64_t)w;
            }
        }
    }
    list_choices(j);
}

static void forget_choices(job *j) {
    for (size_t i = 0; i < j->ways.n_kinds; i++) {
        j->ways.kinds[i].chosen = -1;
    }
    list_choices(j);
}

/* Layers that are fast each may be slow together, by what they leave in the caches: the network as
 * a whole must gain, or rules decide. */
static kiln_status prove(job *j) {
    const kiln_timing_limits limits = {
        .budget_ms = fmin(levels[j->how.level].race_ms, 1e3 * (j->how.budget_s - spent_s(j))),
        .go_on = may_go_on,
        .user = j};
    kiln_timing t = {0};
    kiln_hash128 key;
    KILN_TRY(key_of_all(j, &key));
    const kiln_timing *known = kiln_timings_find(j->timings, key, "network");
    if (known) {
        t = *known;
    } else if (!j->how.frozen && may_go_on(j) && fits(j, 0.75 * race_s(j))) {
        kiln_crowd *crowd;
        KILN_TRY(open_network(j, &j->proven));
        KILN_TRY(kiln_crowd_start(&crowd, j->rules.engine, j->n_beside, j->env, j->diag));
        kiln_status status =
            kiln_race_run(&t.race, &j->rules, &j->proven, &limits, j->env, j->diag);
        kiln_crowd_stop(crowd);
        KILN_TRY(status);
        KILN_TRY(t.race.rounds > 0 ? kiln_timings_add(j->timings, key, "network", &t, j->diag)
                                   : KILN_OK);
    }
    if (t.race.rounds == 0 || t.race.ratio > 1 - network_margin) {
        forget_choices(j);
    }
    return KILN_OK;
}

/* ---- The job ---- */

static kiln_status keep_tried(const job *j, kiln_engine *e) {
    size_t n = 0;
    for (size_t i = 0; i < j->ways.n_layers; i++) {
        n += j->ways.layers[i].kind->n_ways;
    }
    KILN_ALLOC(e->tried, &e->arena, n);
    for (size_t i = 0; i < j->ways.n_layers; i++) {
        const kiln_timed_layer *l = &j->ways.layers[i];
        const char *name = kiln_arena_text(&e->arena, l->name, strlen(l->name));
        KILN_TRY(name ? KILN_OK : KILN_E_MEMORY);
        for (size_t k = 0; k < l->kind->n_ways; k++) {
            const kiln_layer_way *w = &l->kind->ways[k];
            const char *refused = w->timing.refused;
            refused = refused ? kiln_arena_text(&e->arena, refused, strlen(refused)) : NULL;
            KILN_TRY(refused || !w->timing.refused ? KILN_OK : KILN_E_MEMORY);
            if (w->known) {
                e->tried[e->n_tried++] = (kiln_tried_way){.layer = name,
                                                          .kernel = w->kernel,
                                                          .tactic = w->tactic,
                                                          .ms = w->timing.race.b_ms,
                                                          .rules_ms = w->timing.race.a_ms,
                                                          .refused = refused,
                                                          .chosen = l->kind->chosen == (int64_t)k};
            }
        }
    }
    return KILN_OK;
}

/* The engine of a timed network, which has none then. */
static kiln_engine *take_engine(kiln_timed *t) {
    kiln_engine *e = (kiln_engine *)t->engine;
    kiln_context_destroy(t->context);
    t->context = NULL;
    t->engine = NULL;
    return e;
}

static kiln_status finish(job *j, kiln_engine **out) {
    kiln_engine *e = NULL;
    if (j->n_choices == 0) {
        e = take_engine(&j->rules);
    } else if (j->proven.engine) {
        e = take_engine(&j->proven);
    } else {
        KILN_TRY(open_engine(j, &e));
    }
    kiln_status status = keep_tried(j, e);
    if (status == KILN_OK) {
        *out = e;
    } else {
        kiln_engine_destroy(e);
    }
    return status;
}

static kiln_status measure(job *j, kiln_engine *rules) {
    KILN_TRY(kiln_timed_open(&j->rules, rules, j->pool, j->env, j->diag));
    KILN_TRY(put_place(j));
    KILN_TRY(list_layers(j));
    KILN_TRY(measure_rounds(j));
    choose_best(j);
    return j->n_choices > 0 ? prove(j) : KILN_OK;
}

/* A network that made-up inputs do not fit (indices, shapes that the data decides) can be built,
 * but not timed. */
static kiln_status tune(job *j, kiln_engine **out) {
    kiln_engine *rules;
    KILN_TRY(kiln_timings_open(&j->timings, j->how.cache, j->env, j->diag));
    const int64_t begin_ns = kiln_now_ns();
    KILN_TRY(open_engine(j, &rules));
    j->open_s = 1e-9 * (double)(kiln_now_ns() - begin_ns);
    const size_t said = kiln_diag_count(j->diag);
    kiln_status status = measure(j, rules);
    if (status != KILN_OK && status != KILN_E_MEMORY && status != KILN_E_IO) {
        kiln_diag_truncate(j->diag, said);
        kiln_warn(j->diag, KILN_F_TIMING,
                  "layers run as rules decide: the network does not run with made-up inputs");
        forget_choices(j);
        status = KILN_OK;
    }
    return status == KILN_OK ? finish(j, out) : status;
}

static kiln_status begin(job *j, const kiln_build_options *build, const kiln_tune_options *how) {
    if (!j->model || kiln_options_read(&j->build, sizeof j->build, build) != KILN_OK ||
        kiln_options_read(&j->how, sizeof j->how, how) != KILN_OK || j->build.n_choices > 0) {
        return kiln_fail(j->diag, KILN_F_OPTION,
                         "there is no model, options have no size or unknown fields, or layers are "
                         "chosen already");
    }
    j->how.level = j->how.level == 0 ? 3 : j->how.level;
    if (j->how.level < 1 || (size_t)j->how.level >= KILN_COUNT_OF(levels)) {
        return kiln_fail(j->diag, KILN_F_OPTION, "level %d is not 1 to 5", j->how.level);
    }
    if (!(j->how.budget_s > 0)) {
        j->how.budget_s = levels[j->how.level].all_s;
    }
    if (j->build.goal == KILN_GOAL_THROUGHPUT) {
        j->n_beside = (j->how.threads > 0 ? j->how.threads : kiln_host_cores()) - 1;
    }
    if (j->how.threads == 1 || j->build.goal == KILN_GOAL_THROUGHPUT) {
        return KILN_OK;
    }
    const kiln_pool_options p = {.size = sizeof p, .threads = j->how.threads};
    return kiln_pool_create(&j->pool, j->env, &p);
}

kiln_status kiln_engine_build_timed(kiln_engine **out, const kiln_model *model,
                                    const kiln_build_options *build, const kiln_tune_options *how,
                                    const kiln_env *env, kiln_diag *diag) {
    job j = {.env = env, .model = model, .begin_ns = kiln_now_ns(), .diag = diag};
    kiln_arena_init(&j.arena, env);
    kiln_text_init(&j.place, env);
    kiln_diag_enter(diag, "timing layers");
    kiln_status status = begin(&j, build, how);
    status = status == KILN_OK ? tune(&j, out) : status;
    kiln_diag_leave(diag);
    kiln_timed_close(&j.rules);
    kiln_timed_close(&j.proven);
    kiln_timings_close(j.timings);
    kiln_pool_destroy(j.pool);
    kiln_text_free(&j.place);
    kiln_arena_free(&j.arena);
    return kiln_diag_close(diag, status);
}
