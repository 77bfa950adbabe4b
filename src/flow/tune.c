/* tune.c - an engine whose layers run in the ways that were fastest here.
 *
 * The network as rules would have it runs in turn with one that has the next way at every layer
 * which has one left, so that each way is timed where it will run: after the layer before it, with
 * weights that the rest of the network has pushed out of the caches. Answers are compared first. */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/env.h"
#include "base/lookup.h"
#include "base/options.h"
#include "base/text.h"
#include "base/timer.h"
#include "flow/ways.h"
#include "kiln/tools.h"
#include "ops/util.h"

/* What must be gained for a way to be chosen: a share of the layer's time, and in all of the
 * network's. */
static const double layer_margin = 0.02, network_margin = 0.005;
/* Parts of the largest value by which floats of two ways may differ: the errors that ways declare
 * add up over the layers before. */
static const double float_tolerance = 1e-3;

/* What each level spends: ways of a layer, time on each of them, and seconds in all. */
static const struct {
    int32_t ways;
    double way_ms, race_ms, all_s;
} levels[] = {{0, 0, 0, 0},      {2, 100, 100, 5},      {4, 200, 200, 15},
              {8, 400, 400, 45}, {16, 1500, 1500, 300}, {1 << 20, 5000, 5000, INFINITY}};

/* What a layer gives. */
typedef struct answer {
    double *sample; /* of its output, as rules compute it */
    int64_t n_sample;
    bool wrong; /* as it was last computed */
} answer;

typedef struct network {
    kiln_engine *engine;
    kiln_tensors *inputs;
    kiln_timed timed;
} network;

typedef struct job {
    const kiln_env *env;
    const kiln_model *model;
    kiln_build_options build;
    kiln_tune_options how;
    kiln_pool *pool;
    kiln_arena arena;
    kiln_timings *timings;
    int64_t begin_ns;
    network rules;
    kiln_text place; /* what all layers' times depend on */
    kiln_ways ways;
    answer *answers;     /* per layer */
    kiln_lookup outputs; /* the layers by their outputs */
    const char **names;  /* of layers that are timed */
    size_t *timed;       /* their numbers */
    kiln_way *choices;
    size_t n_choices;
    kiln_diag *diag;
} job;

/* ---- Networks ---- */

static void close_network(network *n) {
    kiln_context_destroy(n->timed.context);
    kiln_engine_destroy(n->engine);
    kiln_tensors_destroy(n->inputs);
    *n = (network){0};
}

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
static kiln_status open_network(job *j, network *n) {
    const kiln_context_options o = {.size = sizeof o, .pool = j->pool, .threads = j->pool ? 0 : 1};
    KILN_TRY(n->engine ? KILN_OK : open_engine(j, &n->engine));
    n->timed.engine = n->engine;
    KILN_TRY(kiln_context_create(&n->timed.context, n->engine, &o, j->diag));
    return kiln_timed_inputs(&n->inputs, &n->timed, j->env, j->diag);
}

/* ---- Keys ---- */

static kiln_status put_place(job *j) {
    kiln_text *t = &j->place;
    kiln_cpu_info cpu;
    kiln_cpu_describe(&cpu);
    kiln_text_printf(t, "%s %s %s %d\n", kiln_version(), cpu.model,
                     kiln_target_isa(&j->rules.engine->target), j->how.threads);
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

static kiln_status list_layers(job *j) {
    kiln_ways *w = &j->ways;
    const char **outputs;
    KILN_TRY(kiln_ways_list(w, j->rules.engine, &j->place, (size_t)levels[j->how.level].ways,
                            &j->arena));
    if (w->n_left_out > 0) {
        kiln_note(j->diag, KILN_F_TIMING,
                  "%zu layers run as rules decide: those with the most multiply-adds are timed, %d "
                  "of a network",
                  w->n_left_out, (int)KILN_MOST_TIMED_LAYERS);
    }
    for (size_t i = 0; i < w->n_kinds; i++) {
        look_up(j, &w->kinds[i]);
    }
    KILN_ALLOC(j->answers, &j->arena, w->n_layers);
    KILN_ALLOC(j->names, &j->arena, w->n_layers);
    KILN_ALLOC(j->timed, &j->arena, w->n_layers);
    KILN_ALLOC(j->choices, &j->arena, w->n_layers);
    KILN_ALLOC(outputs, &j->arena, w->n_layers);
    for (size_t i = 0; i < w->n_layers; i++) {
        outputs[i] = w->layers[i].output;
    }
    return kiln_lookup_make(&j->outputs, outputs, w->n_layers, &j->arena);
}

/* ---- Answers ---- */

enum { SAMPLED = 4096 };

static bool wants(void *user, const char *name) {
    return kiln_lookup_find(&((const job *)user)->outputs, name) >= 0;
}

static answer *answer_of(const job *j, const char *name) {
    return &j->answers[kiln_lookup_find(&j->outputs, name)];
}

/* Element i of those that are compared, evenly spread. */
static double sampled(const kiln_tensor *t, int64_t i, int64_t n) {
    int64_t at = i * (kiln_tensor_count(t) / n);
    return kiln_dtype_is_float(t->dtype) ? kiln_get_f64(t->dtype, t->data, at)
                                         : (double)kiln_get_i64(t->dtype, t->data, at);
}

static bool is_number(const kiln_tensor *t) {
    return t->dtype != KILN_DTYPE_STRING && t->dtype != KILN_DTYPE_BOOL;
}

static kiln_status keep_sample(void *user, const char *name, const char *node,
                               const kiln_tensor *tensor, bool replayed) {
    job *j = user;
    answer *a = answer_of(j, name);
    (void)node;
    (void)replayed;
    int64_t n = kiln_tensor_count(tensor) < SAMPLED ? kiln_tensor_count(tensor) : SAMPLED;
    double *data;
    if (!is_number(tensor) || n == 0) {
        return KILN_OK;
    }
    KILN_ALLOC(data, &j->arena, n);
    for (int64_t i = 0; i < n; i++) {
        data[i] = sampled(tensor, i, n);
    }
    a->sample = data;
    a->n_sample = n;
    return KILN_OK;
}

/* Integers may be off by one where a float that was rounded to them lies between two. */
static kiln_status compare_sample(void *user, const char *name, const char *node,
                                  const kiln_tensor *tensor, bool replayed) {
    job *j = user;
    answer *a = answer_of(j, name);
    double most = 0, error = 0;
    (void)node;
    (void)replayed;
    for (int64_t i = 0; i < a->n_sample; i++) {
        const double want = a->sample[i], have = sampled(tensor, i, a->n_sample);
        const bool same = have == want || (isnan(have) && isnan(want));
        most = fmax(most, isfinite(want) ? fabs(want) : 0);
        error = same ? error : isfinite(have - want) ? fmax(error, fabs(have - want)) : INFINITY;
    }
    const bool whole = !kiln_dtype_is_float(tensor->dtype);
    a->wrong = error > (whole ? 1 : float_tolerance * most);
    return KILN_OK;
}

/* Runs once; `see` gets the layers' outputs. */
static kiln_status run_tapped(job *j, const network *n,
                              kiln_status (*see)(void *, const char *, const char *,
                                                 const kiln_tensor *, bool)) {
    const kiln_tap tap = {.wants = wants, .see = see, .user = j};
    kiln_context_set_tap(n->timed.context, &tap);
    kiln_status status = kiln_context_run(n->timed.context, j->diag);
    kiln_context_set_tap(n->timed.context, NULL);
    return status;
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
    const kiln_timing none = {.race = {.ratio = 1}, .refused = reason};
    return note(j, k, &none);
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
static bool runs_so(const network *n, const kiln_lookup *anchors, const kiln_timed_layer *l) {
    const kiln_layer_way *w = &l->kind->ways[l->kind->chosen];
    int64_t at = kiln_lookup_find(anchors, l->name);
    const kiln_claim *c = at >= 0 ? n->engine->plan->claims[at] : NULL;
    return c && strcmp(c->kernel->name, w->kernel) == 0 &&
           strcmp(kiln_tactic_name(c), w->tactic) == 0;
}

/* A wrong answer makes those of the layers after it wrong: only the first is refused for it, and
 * the others wait for a round without it. */
static kiln_status check_answers(job *j, const network *n, bool *right, kiln_arena *scratch) {
    kiln_lookup anchors;
    for (size_t i = 0; i < j->ways.n_layers; i++) {
        j->answers[i].wrong = false;
    }
    KILN_TRY(run_tapped(j, n, compare_sample));
    KILN_TRY(list_anchors(&anchors, n->engine->plan, scratch));
    *right = true;
    for (size_t i = 0; i < j->ways.n_layers && *right; i++) {
        const kiln_timed_layer *l = &j->ways.layers[i];
        if (l->kind->chosen < 0) {
            continue;
        }
        if (!runs_so(n, &anchors, l)) {
            KILN_TRY(refuse(j, l->kind, "the layers around it do not leave it its nodes"));
        } else if (j->answers[i].wrong) {
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

static kiln_status time_round(job *j, const network *n, kiln_arena *scratch) {
    kiln_cell_time *cells;
    tally *tallies;
    KILN_ALLOC(cells, scratch, j->n_choices);
    KILN_ALLOC(tallies, scratch, j->ways.n_kinds);
    KILN_TRY(kiln_time_cells(cells, j->names, j->n_choices, &j->rules.timed, &n->timed,
                             levels[j->how.level].way_ms, j->env, j->diag));
    for (size_t i = 0; i < j->n_choices; i++) {
        const kiln_layer_kind *k = j->ways.layers[j->timed[i]].kind;
        if (cells[i].race.rounds > 0) {
            count(&tallies[k - j->ways.kinds], &cells[i].race);
        }
    }
    for (size_t i = 0; i < j->ways.n_kinds; i++) {
        kiln_layer_kind *k = &j->ways.kinds[i];
        if (k->chosen >= 0 && !k->ways[k->chosen].known) {
            const kiln_timing t = {.race = mean_race(&tallies[i])};
            KILN_TRY(note(j, k, &t));
        }
    }
    return KILN_OK;
}

static kiln_status measure_round(job *j) {
    network n = {0};
    bool right = false;
    kiln_arena scratch;
    kiln_arena_init(&scratch, j->env);
    kiln_status status = open_network(j, &n);
    status = status ? status : check_answers(j, &n, &right, &scratch);
    status = status == KILN_OK && right ? time_round(j, &n, &scratch) : status;
    close_network(&n);
    kiln_arena_free(&scratch);
    return status;
}

static double spent_s(const job *j) {
    return 1e-9 * (double)(kiln_now_ns() - j->begin_ns);
}

static bool go_on(job *j) {
    size_t ways = 0, known = 0;
    for (size_t i = 0; i < j->ways.n_kinds; i++) {
        for (size_t w = 0; w < j->ways.kinds[i].n_ways; w++) {
            ways++;
            known += j->ways.kinds[i].ways[w].known;
        }
    }
    const kiln_progress *p = j->how.progress;
    bool wanted = !p || p->step(p->user, ways > 0 ? (double)known / (double)ways : 1);
    return wanted && !j->how.frozen && spent_s(j) < j->how.budget_s && choose_next(j);
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
    network n = {0};
    kiln_timing t = {0};
    kiln_hash128 key;
    KILN_TRY(key_of_all(j, &key));
    const kiln_timing *known = kiln_timings_find(j->timings, key, "network");
    if (known) {
        t = *known;
    } else if (!j->how.frozen) {
        kiln_status status = open_network(j, &n);
        status = status ? status
                        : kiln_race_run(&t.race, &j->rules.timed, &n.timed,
                                        levels[j->how.level].race_ms, j->env, j->diag);
        close_network(&n);
        KILN_TRY(status);
        KILN_TRY(kiln_timings_add(j->timings, key, "network", &t, j->diag));
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

static kiln_status finish(job *j, kiln_engine **out) {
    kiln_engine *e = NULL;
    if (j->n_choices == 0) {
        e = j->rules.engine;
        j->rules.engine = NULL;
        kiln_context_destroy(j->rules.timed.context);
        j->rules.timed.context = NULL;
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

static kiln_status measure(job *j) {
    KILN_TRY(open_network(j, &j->rules));
    KILN_TRY(put_place(j));
    KILN_TRY(list_layers(j));
    if (choose_next(j) && !j->how.frozen) {
        KILN_TRY(run_tapped(j, &j->rules, keep_sample));
    }
    while (go_on(j)) {
        KILN_TRY(measure_round(j));
    }
    choose_best(j);
    return j->n_choices > 0 ? prove(j) : KILN_OK;
}

/* A network that made-up inputs do not fit (indices, shapes that the data decides) can be built,
 * but not timed. */
static kiln_status tune(job *j, kiln_engine **out) {
    KILN_TRY(kiln_timings_open(&j->timings, j->how.cache, j->env, j->diag));
    KILN_TRY(open_engine(j, &j->rules.engine));
    const size_t said = kiln_diag_count(j->diag);
    kiln_status status = measure(j);
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
    if (j->how.threads == 1) {
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
    close_network(&j.rules);
    kiln_timings_close(j.timings);
    kiln_pool_destroy(j.pool);
    kiln_text_free(&j.place);
    kiln_arena_free(&j.arena);
    return kiln_diag_close(diag, status);
}
