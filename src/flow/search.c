/* search.c - which layers in 8 bits, which in bfloat16? What pays, within what the metric may lose.
 *
 * Every layer is measured by itself, in each precision that it is offered: the noise it brings and
 * the time it saves. Offers that save none are dropped from the start. If the rest, each layer in
 * its fastest precision, loses too much, offers are ordered by noise per millisecond, and the
 * shortest head of that list that must go is found by halving; then the offers of the head are made
 * again, the most saving first. Every choice is built, run over all evaluation samples and timed
 * beside the float network; nothing is believed that was not measured so. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/env.h"
#include "base/text.h"
#include "engine/engine.h"
#include "flow/study.h"
#include "flow/timing.h"

enum { SECOND_CHANCES = 16 };
static const double cells_budget_ms = 600, race_budget_ms = 400;
static const double lost_margin = 0.05;

/* Precisions besides float32. */
enum { INT8, BF16, KINDS };
static const kiln_dtype dtypes[KINDS] = {KILN_DTYPE_I8, KILN_DTYPE_BF16};

/* A layer in such a precision. */
typedef struct offer {
    size_t layer;
    int kind;
    bool had;    /* the layer can run so, and that pays */
    double gain; /* milliseconds, or multiply-accumulates without timing */
    double noise;
} offer;

typedef struct finder {
    kiln_study_job job;
    kiln_gauge *gauge; /* of the evaluation data */
    kiln_tensors *inputs;
    uint32_t precisions;
    offer *offers[KINDS]; /* per layer */
    int32_t *calibrators; /* per layer */
    offer **order;        /* those that are had, by noise per gain */
    size_t n_order;
    bool *allowed;        /* of them */
    size_t planned, done; /* evaluations, for the progress */
    const kiln_form *best;
} finder;

/* ---- Choices ---- */

static double exact_metric(const finder *f) {
    const kiln_gauged *g = kiln_gauge_float(f->gauge);
    return isnan(g->top1) ? g->agreement : g->top1;
}

static kiln_status name_choice(finder *f, const kiln_form *forms, const char **out) {
    kiln_study *s = f->job.study;
    kiln_hash128 h = kiln_hash_128(forms, s->n_layers * sizeof *forms);
    *out = kiln_arena_printf(&s->arena, "choice %d %016llx %016llx%016llx", f->job.how.no_timing,
                             (unsigned long long)kiln_gauge_hash(f->gauge).low,
                             (unsigned long long)h.high, (unsigned long long)h.low);
    return *out ? KILN_OK : KILN_E_MEMORY;
}

/* Beside the float network, which stands in the same gauge. */
static kiln_status time_choice(finder *f, const kiln_engine *engine, kiln_context *context,
                               kiln_race *race) {
    const kiln_timing_limits limits = {.budget_ms = race_budget_ms};
    const kiln_env *env = f->job.study->env;
    kiln_timed exact, mine = {0};
    kiln_status status = kiln_timed_borrow(&exact, kiln_gauge_engine(f->gauge),
                                           kiln_gauge_context(f->gauge), env, f->job.diag);
    status = status ? status : kiln_timed_borrow(&mine, engine, context, env, f->job.diag);
    status = status ? status : kiln_race_run(race, &exact, &mine, &limits, env, f->job.diag);
    kiln_timed_close(&exact);
    kiln_timed_close(&mine);
    return status;
}

static kiln_status measure(finder *f, const kiln_form *forms, double numbers[6]) {
    kiln_model *model = NULL;
    kiln_engine *engine = NULL;
    kiln_context *context = NULL;
    kiln_gauged g;
    kiln_race race = {.a_ms = NAN, .b_ms = NAN, .ratio = NAN};
    KILN_TRY(kiln_study_quantize(&f->job, forms, &model));
    double at = (double)f->done / (double)(f->planned + 1);
    kiln_gauge_span(f->gauge, at, (double)(f->done + 1) / (double)(f->planned + 1));
    kiln_status status = kiln_gauge_build(f->gauge, model, &engine, &context, f->job.diag);
    status = status ? status : kiln_gauge_run(f->gauge, context, &g, f->job.diag);
    if (status == KILN_OK && !f->job.how.no_timing) {
        status = time_choice(f, engine, context, &race);
    }
    if (status == KILN_OK) {
        numbers[0] = isnan(kiln_gauge_float(f->gauge)->top1) ? g.agreement : g.top1;
        numbers[1] = g.noise;
        numbers[2] = race.b_ms;
        numbers[3] = race.a_ms;
        numbers[4] = race.ratio;
    }
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    return status;
}

static double gain_of(const finder *f, size_t layer, const kiln_form *form) {
    for (int k = 0; k < KINDS; k++) {
        if (f->offers[k] && dtypes[k] == form->dtype) {
            return f->offers[k][layer].gain;
        }
    }
    return 0;
}

/* What is to be least: the share of the float network's time, or of its gains not had. */
static double cost_of(const finder *f, const kiln_form *forms, const kiln_tried *t) {
    const kiln_form int8 = {.dtype = KILN_DTYPE_I8};
    double all = 0, had = 0;
    if (!f->job.how.no_timing) {
        return t->time_ratio;
    }
    for (size_t i = 0; i < f->job.study->n_layers; i++) {
        all += gain_of(f, i, &int8);
        had += gain_of(f, i, &forms[i]);
    }
    return all > 0 ? 1 - had / all : 1;
}

static kiln_status record(finder *f, const kiln_form *forms, const double *numbers,
                          kiln_tried *out) {
    kiln_study *s = f->job.study;
    double noise = isnan(numbers[1]) ? INFINITY : numbers[1];
    kiln_form *own;
    KILN_ALLOC(own, &s->arena, s->n_layers + 1);
    memcpy(own, forms, s->n_layers * sizeof *own);
    *out = (kiln_tried){.metric = numbers[0],
                        .drop = 100 * (exact_metric(f) - numbers[0]),
                        .sqnr_db = -10 * log10(noise),
                        .ms = numbers[2],
                        .float_ms = numbers[3],
                        .time_ratio = numbers[4]};
    for (size_t i = 0; i < s->n_layers; i++) {
        out->int8_layers += forms[i].dtype == KILN_DTYPE_I8 ? 1 : 0;
        out->bf16_layers += forms[i].dtype == KILN_DTYPE_BF16 ? 1 : 0;
    }
    out->within = out->drop <= f->job.how.max_drop + 1e-9;
    out->cost = cost_of(f, own, out);
    bool better = out->within && (s->best < 0 || out->cost < s->tried[s->best].cost);
    KILN_PUSH(&s->arena, s->tried, s->n_tried, s->cap_tried, *out);
    if (better) {
        s->best = (int64_t)s->n_tried - 1;
        f->best = own;
    }
    return KILN_OK;
}

/* Measures a choice, or finds it in the journal. */
static kiln_status evaluate(finder *f, const kiln_form *forms, kiln_tried *out) {
    const char *item;
    double numbers[6] = {0};
    KILN_TRY(name_choice(f, forms, &item));
    const double *known = kiln_journal_find(f->job.journal, item);
    if (!known) {
        KILN_TRY(measure(f, forms, numbers));
        KILN_TRY(
            kiln_journal_add(f->job.journal, item, numbers, KILN_COUNT_OF(numbers), f->job.diag));
        known = kiln_journal_find(f->job.journal, item);
    }
    f->done++;
    return record(f, forms, known, out);
}

/* ---- What layers gain ---- */

/* Without timing: multiply-accumulates say what a layer is worth. */
static void gain_by_macs(finder *f, int kind) {
    const kiln_engine *e = kiln_gauge_engine(f->job.gauge);
    kiln_layer l;
    for (size_t i = 0; i < f->job.study->n_layers; i++) {
        offer *o = &f->offers[kind][i];
        double macs = 1;
        for (size_t k = 0; kiln_engine_layer(e, k, &l); k++) {
            macs += strcmp(l.name, f->job.study->layers[i].name) == 0 ? (double)l.macs : 0;
        }
        o->gain = kind == BF16 ? macs / 2 : macs;
        o->had = kind == INT8 || o->had;
    }
}

/* The layers that the engine really runs in bfloat16. */
static void find_half(finder *f, const kiln_engine *engine) {
    kiln_layer l;
    for (size_t k = 0; kiln_engine_layer(engine, k, &l); k++) {
        for (size_t i = 0; i < f->job.study->n_layers; i++) {
            bool mine = strcmp(l.name, f->job.study->layers[i].name) == 0;
            f->offers[BF16][i].had =
                f->offers[BF16][i].had || (mine && strcmp(l.precision, "bf16") == 0);
        }
    }
}

/* The network with all layers in the precision, where they can be. */
static kiln_status build_all(finder *f, int kind, kiln_engine **engine, kiln_context **context) {
    kiln_study_job job = f->job;
    kiln_model *all = NULL;
    if (kind == BF16) {
        job.options.precision = "bf16";
    }
    KILN_TRY(kiln_study_quantize(&job, NULL, &all));
    kiln_status status = kiln_gauge_build(f->gauge, all, engine, context, f->job.diag);
    kiln_model_destroy(all);
    return status;
}

static kiln_status time_cells(finder *f, kiln_cell_time *cells, const kiln_engine *engine,
                              kiln_context *context) {
    const kiln_timing_limits limits = {.budget_ms = cells_budget_ms};
    kiln_study *s = f->job.study;
    kiln_timed exact, mine = {0};
    const char **names;
    KILN_ALLOC(names, &s->arena, s->n_layers + 1);
    for (size_t i = 0; i < s->n_layers; i++) {
        names[i] = s->layers[i].name;
    }
    kiln_status status = kiln_timed_borrow(&exact, kiln_gauge_engine(f->gauge),
                                           kiln_gauge_context(f->gauge), s->env, f->job.diag);
    status = status ? status : kiln_timed_borrow(&mine, engine, context, s->env, f->job.diag);
    status = status ? status
                    : kiln_time_cells(cells, names, s->n_layers, &exact, &mine, &limits, s->env,
                                      f->job.diag);
    kiln_timed_close(&exact);
    kiln_timed_close(&mine);
    return status;
}

static const char *name_time(finder *f, int kind, size_t i) {
    return kiln_arena_printf(&f->job.study->arena, kind == BF16 ? "bf16 time %s" : "time %s",
                             f->job.study->layers[i].name);
}

/* A cell's time is shared by its layers. */
static kiln_status keep_times(finder *f, int kind, const kiln_cell_time *cells) {
    kiln_study *s = f->job.study;
    for (size_t i = 0; i < s->n_layers; i++) {
        double sharers = 0;
        for (size_t k = 0; k < s->n_layers; k++) {
            sharers += cells[k].cell == cells[i].cell ? 1 : 0;
        }
        const kiln_race *r = &cells[i].race;
        double known = cells[i].cell >= 0 ? 1 : NAN;
        const double numbers[] = {known * r->a_ms / sharers, known * r->b_ms / sharers, r->ratio,
                                  r->wins, kind == BF16 && f->offers[BF16][i].had};
        const char *item = name_time(f, kind, i);
        KILN_TRY(item ? KILN_OK : KILN_E_MEMORY);
        KILN_TRY(
            kiln_journal_add(f->job.journal, item, numbers, KILN_COUNT_OF(numbers), f->job.diag));
    }
    return KILN_OK;
}

/* 8 bits are offered unless they lose time, bfloat16 where it saves some. */
static void judge_time(finder *f, int kind, size_t i, const double *known) {
    offer *o = &f->offers[kind][i];
    kiln_layer_cost *c = &f->job.study->layers[i];
    const kiln_race race = {.ratio = known[2], .wins = known[3]};
    const kiln_race back = {.ratio = known[2] > 0 ? 1 / known[2] : 1, .wins = 1 - known[3]};
    c->float_ms = kind == INT8 || isnan(c->float_ms) ? known[0] : c->float_ms;
    *(kind == BF16 ? &c->bf16_ms : &c->int8_ms) = known[1];
    o->had = kind == INT8
                 ? isnan(known[0]) || !kiln_race_is_won(&back, lost_margin)
                 : known[4] > 0 && !isnan(known[0]) && kiln_race_is_won(&race, lost_margin);
    o->gain = isnan(known[0]) ? 0 : known[0] - known[1];
}

/* Fills in from the journal; false when a layer's time is not there. */
static bool recall_times(finder *f, int kind) {
    for (size_t i = 0; i < f->job.study->n_layers; i++) {
        const char *item = name_time(f, kind, i);
        const double *known = item ? kiln_journal_find(f->job.journal, item) : NULL;
        if (!known) {
            return false;
        }
        judge_time(f, kind, i, known);
    }
    return true;
}

static kiln_status measure_gains(finder *f, int kind, const kiln_engine *engine,
                                 kiln_context *context) {
    kiln_cell_time *cells;
    if (kind == BF16) {
        find_half(f, engine);
    }
    if (f->job.how.no_timing) {
        gain_by_macs(f, kind);
        return KILN_OK;
    }
    KILN_ALLOC(cells, &f->job.study->arena, f->job.study->n_layers + 1);
    KILN_TRY(time_cells(f, cells, engine, context));
    KILN_TRY(keep_times(f, kind, cells));
    return recall_times(f, kind) ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status find_gains(finder *f, int kind) {
    kiln_engine *engine = NULL;
    kiln_context *context = NULL;
    KILN_ALLOC(f->offers[kind], &f->job.study->arena, f->job.study->n_layers + 1);
    if (kind == INT8 && f->job.how.no_timing) {
        gain_by_macs(f, kind);
        return KILN_OK;
    }
    if (!f->job.how.no_timing && recall_times(f, kind)) {
        return KILN_OK;
    }
    kiln_status status = build_all(f, kind, &engine, &context);
    status = status ? status : measure_gains(f, kind, engine, context);
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    return status;
}

/* ---- What layers lose ---- */

/* The calibrator that the layer alone errs least by. */
static kiln_status find_calibrator(finder *f, size_t i) {
    kiln_study_job *job = &f->job;
    kiln_layer_cost *c = &job->study->layers[i];
    for (int32_t k = 1; k <= job->n_calibrators; k++) {
        const kiln_form form = {KILN_DTYPE_I8, k};
        kiln_gauged g;
        if (!kiln_study_calibrator_differs(job, i, k)) {
            continue;
        }
        KILN_TRY(kiln_study_layer_in(job, i, &form, &g));
        if (-10 * log10(g.noise) > c->sqnr_db) {
            kiln_study_tell(job, i, &g);
            c->calibrator = job->calibrators[k - 1].calibrator;
            c->percentile = job->calibrators[k - 1].percentile;
            f->calibrators[i] = k;
        }
    }
    return KILN_OK;
}

static kiln_status find_noise(finder *f, int kind) {
    const kiln_form half = {.dtype = KILN_DTYPE_BF16};
    for (size_t i = 0; i < f->job.study->n_layers; i++) {
        offer *o = &f->offers[kind][i];
        kiln_layer_cost *c = &f->job.study->layers[i];
        kiln_gauged g;
        if (kind == BF16 && o->had) {
            KILN_TRY(kiln_study_layer_in(&f->job, i, &half, &g));
            c->bf16_sqnr_db = -10 * log10(g.noise);
        }
        o->layer = i;
        o->kind = kind;
        o->noise = pow(10, -0.1 * (kind == BF16 ? c->bf16_sqnr_db : c->sqnr_db));
    }
    return KILN_OK;
}

static kiln_status find_offers(finder *f) {
    kiln_study *s = f->job.study;
    KILN_ALLOC(f->calibrators, &s->arena, s->n_layers + 1);
    if (f->job.how.calibrators) {
        KILN_TRY(kiln_study_calibrators(&f->job));
    }
    for (size_t i = 0; i < s->n_layers; i++) {
        KILN_TRY(find_calibrator(f, i));
    }
    for (int k = 0; k < KINDS; k++) {
        if (k == INT8 || f->precisions & KILN_SEARCH_BF16) {
            KILN_TRY(find_gains(f, k));
            KILN_TRY(find_noise(f, k));
        }
    }
    return KILN_OK;
}

/* ---- The order ---- */

/* The offer is worse in all than the layer's other one. */
static bool is_beaten(const finder *f, const offer *o) {
    const offer *half = f->offers[BF16] ? &f->offers[BF16][o->layer] : NULL;
    return o->kind == INT8 && half && half->had && half->gain >= o->gain && half->noise <= o->noise;
}

/* Noise per gain, beyond those of the layer's next offer: what should go first has most. */
static double burden(const finder *f, const offer *o) {
    const kiln_study *s = f->job.study;
    const offer *next = o->kind == INT8 && f->offers[BF16] ? &f->offers[BF16][o->layer] : NULL;
    double gain = o->gain, noise = o->noise, sum = 0;
    if (next && next->had) {
        gain -= next->gain;
        noise -= next->noise;
    }
    for (size_t k = 0; k < s->n_layers; k++) {
        sum += f->offers[INT8][k].gain > 0 ? f->offers[INT8][k].gain : 0;
    }
    double least = 1e-3 * sum / (double)s->n_layers + 1e-12;
    return noise / (gain > least ? gain : least);
}

typedef struct ranked {
    double by;
    size_t at;
} ranked;

static int by_falling(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    int order = (x->by < y->by) - (x->by > y->by);
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

static kiln_status make_order(finder *f) {
    kiln_study *s = f->job.study;
    ranked *list;
    offer **all;
    size_t n = 0;
    KILN_ALLOC(list, &s->arena, KINDS * s->n_layers + 1);
    KILN_ALLOC(all, &s->arena, KINDS * s->n_layers + 1);
    KILN_ALLOC(f->order, &s->arena, KINDS * s->n_layers + 1);
    KILN_ALLOC(f->allowed, &s->arena, KINDS * s->n_layers + 1);
    for (int k = 0; k < KINDS; k++) {
        bool offered =
            f->offers[k] && f->precisions & (k == BF16 ? KILN_SEARCH_BF16 : KILN_SEARCH_INT8);
        for (size_t i = 0; offered && i < s->n_layers; i++) {
            offer *o = &f->offers[k][i];
            if (o->had && !is_beaten(f, o)) {
                list[n] = (ranked){burden(f, o), n};
                all[n++] = o;
            }
        }
    }
    if (n > 1) {
        qsort(list, n, sizeof *list, by_falling);
    }
    for (size_t i = 0; i < n; i++) {
        f->order[i] = all[list[i].at];
    }
    f->n_order = n;
    return KILN_OK;
}

/* ---- The search ---- */

/* Each layer in the most gaining precision of those allowed. */
static void choose_allowed(const finder *f, kiln_form *forms) {
    for (size_t i = 0; i < f->job.study->n_layers; i++) {
        forms[i] = (kiln_form){.dtype = KILN_DTYPE_F32};
    }
    for (size_t i = 0; i < f->n_order; i++) {
        const offer *o = f->order[i];
        kiln_form *form = &forms[o->layer];
        if (f->allowed[i] &&
            (form->dtype == KILN_DTYPE_F32 || o->gain > gain_of(f, o->layer, form))) {
            *form = (kiln_form){dtypes[o->kind], o->kind == INT8 ? f->calibrators[o->layer] : 0};
        }
    }
}

/* All offers but the first n of the order. */
static void choose_tail(finder *f, size_t n, kiln_form *forms) {
    for (size_t i = 0; i < f->n_order; i++) {
        f->allowed[i] = i >= n;
    }
    choose_allowed(f, forms);
}

/* The shortest head that must go, into *head. */
static kiln_status halve(finder *f, kiln_form *forms, size_t *head) {
    size_t bad = 0, good = f->n_order;
    kiln_tried t;
    while (good - bad > 1) {
        size_t middle = bad + (good - bad) / 2;
        choose_tail(f, middle, forms);
        KILN_TRY(evaluate(f, forms, &t));
        *(t.within ? &good : &bad) = middle;
    }
    *head = good;
    return KILN_OK;
}

/* Makes the head's offers again, the most saving first. */
static kiln_status offer_again(finder *f, kiln_form *forms, size_t head) {
    ranked *list;
    kiln_tried t;
    KILN_ALLOC(list, &f->job.study->arena, head + 1);
    for (size_t i = 0; i < head; i++) {
        list[i] = (ranked){f->order[i]->gain, i};
    }
    if (head > 1) {
        qsort(list, head, sizeof *list, by_falling);
    }
    choose_tail(f, head, forms);
    for (size_t i = 0; i < head && i < SECOND_CHANCES; i++) {
        f->allowed[list[i].at] = true;
        choose_allowed(f, forms);
        KILN_TRY(evaluate(f, forms, &t));
        f->allowed[list[i].at] = t.within;
    }
    return KILN_OK;
}

static kiln_status search(finder *f) {
    kiln_study *s = f->job.study;
    kiln_form *forms;
    size_t head = 0;
    kiln_tried t;
    KILN_ALLOC(forms, &s->arena, s->n_layers + 1);
    const double exact[6] = {exact_metric(f), 0, NAN, NAN, 1};
    choose_allowed(f, forms);
    KILN_TRY(record(f, forms, exact, &t));
    KILN_TRY(find_offers(f));
    KILN_TRY(make_order(f));
    for (size_t n = f->n_order; n > 0; n /= 2) {
        f->planned++;
    }
    choose_tail(f, 0, forms);
    KILN_TRY(f->n_order > 0 ? evaluate(f, forms, &t) : KILN_OK);
    if (t.within || f->n_order == 0) {
        return KILN_OK;
    }
    KILN_TRY(halve(f, forms, &head));
    if (head < 2) {
        return KILN_OK; /* that offer was too much just now */
    }
    f->planned += head < SECOND_CHANCES ? head : SECOND_CHANCES;
    return offer_again(f, forms, head);
}

/* ---- Around it ---- */

static kiln_status open_eval(finder *f) {
    const kiln_study_options *how = &f->job.how;
    const kiln_calibrate_run *run = how->eval ? how->eval : how->data;
    const kiln_gauge_spec spec = {.feed = {.data = run->data,
                                           .labels = how->eval ? how->eval_labels : how->labels,
                                           .preprocess = run->preprocess,
                                           .input = run->input,
                                           .count = run->count,
                                           .shuffle = run->shuffle,
                                           .seed = run->seed},
                                  .samples = how->eval_samples,
                                  .build = how->build,
                                  .threads = how->threads,
                                  .progress = run->progress};
    KILN_TRY(kiln_gauge_open(&f->gauge, f->job.model, &spec, f->job.study->env, f->job.diag));
    kiln_study_info *info = &f->job.study->info;
    info->eval_samples = kiln_gauge_float(f->gauge)->samples;
    info->eval_metric = exact_metric(f);
    if (isnan(info->eval_metric)) {
        return kiln_hint(f->job.diag,
                         kiln_fail(f->job.diag, KILN_F_DATA_MISSING,
                                   "the first output has no scores of classes, so that there is "
                                   "no metric to hold"),
                         "`kiln sensitivity` ranks layers by the noise of the outputs");
    }
    return KILN_OK;
}

/* No other choice loses less in less time. */
static void mark_front(kiln_study *s) {
    for (size_t i = 0; i < s->n_tried; i++) {
        kiln_tried *t = &s->tried[i];
        t->front = true;
        t->best = (int64_t)i == s->best;
        for (size_t k = 0; k < s->n_tried; k++) {
            const kiln_tried *o = &s->tried[k];
            bool better = o->drop <= t->drop && o->cost <= t->cost &&
                          (o->drop < t->drop || o->cost < t->cost || k < i);
            t->front = t->front && !(k != i && better);
        }
    }
}

/* The rules that give the best choice. */
static kiln_status write_rules(finder *f) {
    kiln_study *s = f->job.study;
    kiln_text text;
    kiln_text_init(&text, s->env);
    kiln_study_write_rules(&f->job, f->best, &text);
    for (size_t i = 0; i < s->n_layers; i++) {
        s->layers[i].dtype = f->best[i].dtype;
    }
    s->rules = kiln_text_ok(&text) ? kiln_arena_text(&s->arena, text.data, text.len) : NULL;
    kiln_text_free(&text);
    return s->rules ? KILN_OK : KILN_E_MEMORY;
}

/* bfloat16 takes more time than float32 where the processor has no products of it. */
static uint32_t precisions_of(const kiln_study_options *how) {
    bool half = kiln_cpu_features() & (KILN_CPU_BF16 | KILN_CPU_AMX_BF16);
    return how->precisions ? how->precisions : KILN_SEARCH_INT8 | (half ? KILN_SEARCH_BF16 : 0u);
}

static kiln_status run(finder *f) {
    f->precisions = precisions_of(&f->job.how);
    KILN_TRY(open_eval(f));
    KILN_TRY(kiln_study_layers(&f->job));
    return search(f);
}

kiln_status kiln_search(kiln_study **out, kiln_model **best, const kiln_model *model,
                        const kiln_calibration *calibration, const kiln_quantize_options *options,
                        const kiln_study_options *how, kiln_diag *diag) {
    finder f = {0};
    kiln_diag_enter(diag, "searching precisions");
    *best = NULL;
    kiln_status status = kiln_study_begin(&f.job, model, calibration, options, how, diag);
    if (status == KILN_OK) {
        status = run(&f);
    }
    if (f.job.study && f.best && (status == KILN_OK || status == KILN_E_CANCELLED)) {
        kiln_status made = write_rules(&f);
        f.job.options.precision = f.job.study->rules; /* what the rules say is what is built */
        made = made ? made : kiln_study_quantize(&f.job, f.best, best);
        mark_front(f.job.study);
        status = made == KILN_OK ? status : made;
    }
    kiln_gauge_close(f.gauge);
    kiln_diag_leave(diag);
    return kiln_study_end(&f.job, status, out);
}

bool kiln_study_tried(const kiln_study *study, size_t i, kiln_tried *out) {
    if (i >= study->n_tried) {
        return false;
    }
    *out = study->tried[i];
    return true;
}

const char *kiln_study_rules(const kiln_study *study) {
    return study->rules;
}
