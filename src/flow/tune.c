/* tune.c - an engine whose layers run in the ways that were fastest here.
 *
 * The network as rules would have it runs in turn with one that has the next way at every layer
 * which has one left, so that each way is timed where it will run: after the layer before it, with
 * weights that the rest of the network has pushed out of the caches. Answers are compared first. */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/env.h"
#include "base/options.h"
#include "base/timer.h"
#include "engine/engine.h"
#include "flow/timings.h"
#include "ir/text.h"
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

typedef struct way {
    const char *kernel, *tactic;
    kiln_timing timing;
    bool known;
} way;

/* A layer that can run in more than one way. */
typedef struct layer {
    const char *name, *output;
    kiln_hash128 key;
    way *ways;
    size_t n_ways;
    int64_t chosen; /* of the ways, or -1 */
    double *sample; /* of its output, as rules compute it */
    int64_t n_sample;
    bool wrong;
} layer;

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
    layer *layers;
    size_t n_layers, cap_layers;
    const char **names; /* of layers that are timed */
    size_t *timed;      /* their numbers */
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

/* What all layers' times depend on. */
static kiln_status put_place(job *j, kiln_text *t) {
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

static void put_layouts(kiln_text *t, const kiln_plan *plan, const kiln_step *step) {
    for (int32_t i = 0; i < step->claim->n_in; i++) {
        kiln_text_printf(t, " %d", step->in[i] >= 0 ? (int)plan->slots[step->in[i]].layout : 0);
    }
    for (int32_t i = 0; i < step->claim->n_out; i++) {
        kiln_text_printf(t, " %d", (int)plan->slots[step->out[i]].layout);
    }
}

static kiln_status key_of(job *j, const kiln_step *step, kiln_hash128 *out) {
    const kiln_plan *plan = j->rules.engine->plan;
    kiln_text t;
    kiln_text_init(&t, j->env);
    kiln_status status = put_place(j, &t);
    for (int32_t i = 0; i < step->claim->n_nodes && status == KILN_OK; i++) {
        status = kiln_node_describe(&t, plan->graph, step->claim->nodes[i]);
        kiln_text_char(&t, '\n');
    }
    put_layouts(&t, plan, step);
    kiln_text_puts(&t, step->claim->kernel->name);
    status = status == KILN_OK && !kiln_text_ok(&t) ? KILN_E_MEMORY : status;
    *out = status == KILN_OK ? kiln_hash_128(t.data, t.len) : (kiln_hash128){0};
    kiln_text_free(&t);
    return status;
}

/* ---- Layers ---- */

static const char *way_name(job *j, const way *w) {
    return kiln_arena_printf(&j->arena, "%s/%s", w->kernel, w->tactic);
}

static kiln_status look_up(job *j, const layer *l, way *w) {
    const char *name = way_name(j, w);
    KILN_TRY(name ? KILN_OK : KILN_E_MEMORY);
    const kiln_timing *t = kiln_timings_find(j->timings, l->key, name);
    w->known = t != NULL;
    w->timing = t ? *t : (kiln_timing){0};
    return KILN_OK;
}

static kiln_status list_layer(job *j, const kiln_step *step) {
    kiln_engine *e = j->rules.engine;
    kiln_candidate *ways;
    size_t n;
    KILN_TRY(
        kiln_cpu_candidates(&ways, &n, e->plan, (size_t)step->claim_index, &e->target, &j->arena));
    n = n < (size_t)levels[j->how.level].ways ? n : (size_t)levels[j->how.level].ways;
    if (n == 0) {
        return KILN_OK;
    }
    layer l = {.name = step->claim->anchor->name,
               .output = step->claim->out[0]->name,
               .n_ways = n,
               .chosen = -1};
    KILN_TRY(key_of(j, step, &l.key));
    KILN_ALLOC(l.ways, &j->arena, n);
    for (size_t i = 0; i < n; i++) {
        l.ways[i] = (way){.kernel = ways[i].kernel, .tactic = ways[i].tactic};
        KILN_TRY(look_up(j, &l, &l.ways[i]));
    }
    KILN_PUSH(&j->arena, j->layers, j->n_layers, j->cap_layers, l);
    return KILN_OK;
}

static kiln_status list_layers(job *j) {
    const kiln_plan *plan = j->rules.engine->plan;
    for (size_t s = 0; s < plan->n_steps; s++) {
        const kiln_step *step = &plan->steps[s];
        if (step->claim_index >= 0 && step->claim->n_out > 0 && !step->claim->alias) {
            KILN_TRY(list_layer(j, step));
        }
    }
    KILN_ALLOC(j->names, &j->arena, j->n_layers + 1);
    KILN_ALLOC(j->timed, &j->arena, j->n_layers + 1);
    KILN_ALLOC(j->choices, &j->arena, j->n_layers + 1);
    return KILN_OK;
}

/* ---- Answers ---- */

enum { SAMPLED = 4096 };

static layer *layer_of_output(const job *j, const char *name) {
    for (size_t i = 0; i < j->n_layers; i++) {
        if (strcmp(j->layers[i].output, name) == 0) {
            return &j->layers[i];
        }
    }
    return NULL;
}

static bool wants(void *user, const char *name) {
    return layer_of_output(user, name) != NULL;
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
    layer *l = layer_of_output(j, name);
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
    l->sample = data;
    l->n_sample = n;
    return KILN_OK;
}

/* Integers may be off by one where a float that was rounded to them lies between two. */
static kiln_status compare_sample(void *user, const char *name, const char *node,
                                  const kiln_tensor *tensor, bool replayed) {
    job *j = user;
    layer *l = layer_of_output(j, name);
    double most = 0, error = 0;
    (void)node;
    (void)replayed;
    for (int64_t i = 0; i < l->n_sample; i++) {
        const double want = l->sample[i], have = sampled(tensor, i, l->n_sample);
        const bool same = have == want || (isnan(have) && isnan(want));
        most = fmax(most, isfinite(want) ? fabs(want) : 0);
        error = same ? error : isfinite(have - want) ? fmax(error, fabs(have - want)) : INFINITY;
    }
    const bool whole = !kiln_dtype_is_float(tensor->dtype);
    l->wrong = error > (whole ? 1 : float_tolerance * most);
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

/* The first way of each layer that has not been timed; false when none is left. */
static bool choose_next(job *j) {
    j->n_choices = 0;
    for (size_t i = 0; i < j->n_layers; i++) {
        layer *l = &j->layers[i];
        l->chosen = -1;
        for (size_t w = 0; w < l->n_ways && l->chosen < 0; w++) {
            l->chosen = l->ways[w].known ? -1 : (int64_t)w;
        }
        if (l->chosen >= 0) {
            const way *w = &l->ways[l->chosen];
            j->names[j->n_choices] = l->name;
            j->timed[j->n_choices] = i;
            j->choices[j->n_choices++] = (kiln_way){l->name, w->kernel, w->tactic, true};
        }
    }
    return j->n_choices > 0;
}

static bool is_same(const layer *a, const layer *b) {
    return a->key.low == b->key.low && a->key.high == b->key.high;
}

/* Layers alike in all that their times depend on share what is found of their ways. */
static kiln_status note(job *j, const layer *of, int64_t at, const kiln_timing *timing) {
    const char *name = way_name(j, &of->ways[at]);
    for (size_t i = 0; i < j->n_layers; i++) {
        layer *l = &j->layers[i];
        if (is_same(l, of)) {
            l->ways[at].timing = *timing;
            l->ways[at].known = true;
        }
    }
    return name ? kiln_timings_add(j->timings, of->key, name, timing, j->diag) : KILN_E_MEMORY;
}

static kiln_status refuse(job *j, const layer *l, const char *reason) {
    const kiln_timing none = {.race = {.ratio = 1}, .refused = reason};
    return note(j, l, l->chosen, &none);
}

/* The layer runs in the way that was chosen, and runs the same nodes. */
static bool runs_so(const network *n, const layer *l) {
    const kiln_plan *plan = n->engine->plan;
    const way *w = &l->ways[l->chosen];
    for (size_t s = 0; s < plan->n_steps; s++) {
        const kiln_claim *c = plan->steps[s].claim;
        if (c->anchor && strcmp(c->anchor->name, l->name) == 0) {
            return strcmp(c->kernel->name, w->kernel) == 0 &&
                   strcmp(kiln_tactic_name(c), w->tactic) == 0;
        }
    }
    return false;
}

/* A wrong answer makes those of the layers after it wrong: only the first is refused for it, and
 * the others wait for a round without it. */
static kiln_status check_answers(job *j, const network *n, bool *right) {
    for (size_t i = 0; i < j->n_layers; i++) {
        j->layers[i].wrong = false;
    }
    KILN_TRY(run_tapped(j, n, compare_sample));
    *right = true;
    for (size_t i = 0; i < j->n_layers && *right; i++) {
        layer *l = &j->layers[i];
        if (l->chosen >= 0 && !runs_so(n, l)) {
            KILN_TRY(refuse(j, l, "the layers around it do not leave it its nodes"));
        } else if (l->wrong && l->chosen >= 0) {
            KILN_TRY(refuse(j, l, "its answer differs from that of the rules' way"));
            *right = false;
        }
    }
    return KILN_OK;
}

/* What the round showed of the way that `of` was timed in: the mean over layers that are alike. */
static kiln_race mean_race(const job *j, const layer *of, const kiln_cell_time *cells) {
    kiln_race sum = {0};
    double n = 0;
    for (size_t i = 0; i < j->n_choices; i++) {
        const layer *l = &j->layers[j->timed[i]];
        const kiln_race *r = &cells[i].race;
        if (is_same(l, of) && l->chosen == of->chosen && r->rounds > 0) {
            sum.a_ms += r->a_ms;
            sum.b_ms += r->b_ms;
            sum.ratio += r->ratio;
            sum.wins += r->wins;
            sum.rounds += r->rounds;
            n++;
        }
    }
    n = n > 0 ? n : 1;
    return (kiln_race){.a_ms = sum.a_ms / n,
                       .b_ms = sum.b_ms / n,
                       .ratio = sum.ratio / n,
                       .wins = sum.wins / n,
                       .rounds = sum.rounds};
}

static kiln_status time_round(job *j, const network *n) {
    kiln_cell_time *cells;
    KILN_ALLOC(cells, &j->arena, j->n_choices);
    KILN_TRY(kiln_time_cells(cells, j->names, j->n_choices, &j->rules.timed, &n->timed,
                             levels[j->how.level].way_ms, j->env, j->diag));
    for (size_t i = 0; i < j->n_choices; i++) {
        layer *l = &j->layers[j->timed[i]];
        if (!l->ways[l->chosen].known) {
            const kiln_timing t = {.race = mean_race(j, l, cells)};
            KILN_TRY(note(j, l, l->chosen, &t));
        }
    }
    return KILN_OK;
}

static kiln_status measure_round(job *j) {
    network n = {0};
    bool right = false;
    kiln_status status = open_network(j, &n);
    status = status ? status : check_answers(j, &n, &right);
    status = status == KILN_OK && right ? time_round(j, &n) : status;
    close_network(&n);
    return status;
}

static double spent_s(const job *j) {
    return 1e-9 * (double)(kiln_now_ns() - j->begin_ns);
}

static bool go_on(job *j) {
    size_t ways = 0, known = 0;
    for (size_t i = 0; i < j->n_layers; i++) {
        for (size_t w = 0; w < j->layers[i].n_ways; w++) {
            ways++;
            known += j->layers[i].ways[w].known;
        }
    }
    const kiln_progress *p = j->how.progress;
    bool wanted = !p || p->step(p->user, ways > 0 ? (double)known / (double)ways : 1);
    return wanted && !j->how.frozen && spent_s(j) < j->how.budget_s && choose_next(j);
}

/* ---- Choosing ---- */

static void choose_best(job *j) {
    j->n_choices = 0;
    for (size_t i = 0; i < j->n_layers; i++) {
        layer *l = &j->layers[i];
        double best = INFINITY;
        l->chosen = -1;
        for (size_t w = 0; w < l->n_ways; w++) {
            const kiln_timing *t = &l->ways[w].timing;
            bool won = l->ways[w].known && !t->refused && t->race.rounds > 0 &&
                       kiln_race_is_won(&t->race, layer_margin);
            if (won && t->race.ratio < best) {
                best = t->race.ratio;
                l->chosen = (int64_t)w;
            }
        }
        if (l->chosen >= 0) {
            const way *w = &l->ways[l->chosen];
            j->choices[j->n_choices++] = (kiln_way){l->name, w->kernel, w->tactic, true};
        }
    }
}

/* The key of all choices together. */
static kiln_status key_of_all(job *j, kiln_hash128 *out) {
    kiln_text t;
    kiln_text_init(&t, j->env);
    kiln_status status = put_place(j, &t);
    for (size_t i = 0; i < j->n_layers; i++) {
        const layer *l = &j->layers[i];
        const way *w = l->chosen >= 0 ? &l->ways[l->chosen] : NULL;
        kiln_text_append(&t, &l->key, sizeof l->key);
        kiln_text_printf(&t, "%s/%s\n", w ? w->kernel : "", w ? w->tactic : "");
    }
    status = status == KILN_OK && !kiln_text_ok(&t) ? KILN_E_MEMORY : status;
    *out = status == KILN_OK ? kiln_hash_128(t.data, t.len) : (kiln_hash128){0};
    kiln_text_free(&t);
    return status;
}

static void forget_choices(job *j) {
    j->n_choices = 0;
    for (size_t i = 0; i < j->n_layers; i++) {
        j->layers[i].chosen = -1;
    }
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
    for (size_t i = 0; i < j->n_layers; i++) {
        n += j->layers[i].n_ways;
    }
    KILN_ALLOC(e->tried, &e->arena, n);
    for (size_t i = 0; i < j->n_layers; i++) {
        const layer *l = &j->layers[i];
        for (size_t k = 0; k < l->n_ways; k++) {
            const way *w = &l->ways[k];
            const char *refused = w->timing.refused;
            const char *name = kiln_arena_text(&e->arena, l->name, strlen(l->name));
            refused = refused ? kiln_arena_text(&e->arena, refused, strlen(refused)) : NULL;
            KILN_TRY(name && (refused || !w->timing.refused) ? KILN_OK : KILN_E_MEMORY);
            if (w->known) {
                e->tried[e->n_tried++] = (kiln_tried_way){.layer = name,
                                                          .kernel = w->kernel,
                                                          .tactic = w->tactic,
                                                          .ms = w->timing.race.b_ms,
                                                          .rules_ms = w->timing.race.a_ms,
                                                          .refused = refused,
                                                          .chosen = l->chosen == (int64_t)k};
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
    kiln_diag_enter(diag, "timing layers");
    kiln_status status = begin(&j, build, how);
    status = status == KILN_OK ? tune(&j, out) : status;
    kiln_diag_leave(diag);
    close_network(&j.rules);
    kiln_timings_close(j.timings);
    kiln_pool_destroy(j.pool);
    kiln_arena_free(&j.arena);
    return kiln_diag_close(diag, status);
}
