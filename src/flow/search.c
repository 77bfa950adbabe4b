/* search.c - which layers in 8 bits? As many as pay, within what the metric may lose.
 *
 * Every layer is measured by itself: the noise it brings and the time it saves. Layers that save
 * none stay float from the start. If the rest loses too much, they are ordered by noise per
 * millisecond, and the shortest head of that list that must stay float is found by halving; then
 * the layers of the head are offered 8 bits again, the most saving first. Every choice is built,
 * run over all evaluation samples and timed beside the float network; nothing is believed that was
 * not measured so. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/text.h"
#include "engine/engine.h"
#include "flow/study.h"
#include "flow/timing.h"
#include "quant/rules.h"

enum { SECOND_CHANCES = 16 };
static const double cells_budget_ms = 600, race_budget_ms = 400;
static const double lost_margin = 0.05;

typedef struct finder {
    kiln_study_job job;
    kiln_gauge *gauge; /* of the evaluation data */
    kiln_tensors *inputs;
    double *gain;  /* per layer: milliseconds, or multiply-accumulates without timing */
    bool *slow;    /* saves nothing */
    size_t *order; /* of layers that are not slow, by noise per gain */
    size_t n_order;
    size_t planned, done; /* evaluations, for the progress */
    const bool *best;
} finder;

/* ---- Choices ---- */

static double exact_metric(const finder *f) {
    const kiln_gauged *g = kiln_gauge_float(f->gauge);
    return isnan(g->top1) ? g->agreement : g->top1;
}

static kiln_status name_choice(finder *f, const bool *int8, const char **out) {
    kiln_study *s = f->job.study;
    kiln_hash128 h = kiln_hash_128(int8, s->n_layers * sizeof *int8);
    *out = kiln_arena_printf(&s->arena, "choice %d %016llx %016llx%016llx", f->job.how.no_timing,
                             (unsigned long long)kiln_gauge_hash(f->gauge).low,
                             (unsigned long long)h.high, (unsigned long long)h.low);
    return *out ? KILN_OK : KILN_E_MEMORY;
}

/* Beside the float network, which stands in the same gauge. */
static kiln_status time_choice(finder *f, const kiln_engine *engine, kiln_context *context,
                               kiln_race *race) {
    const kiln_timed exact = {kiln_gauge_engine(f->gauge), kiln_gauge_context(f->gauge)};
    const kiln_timed mine = {engine, context};
    kiln_tensors *a = NULL, *b = NULL;
    const kiln_env *env = f->job.study->env;
    kiln_status status = kiln_timed_inputs(&a, &exact, env, f->job.diag);
    status = status ? status : kiln_timed_inputs(&b, &mine, env, f->job.diag);
    status = status ? status : kiln_race_run(race, &exact, &mine, race_budget_ms, env, f->job.diag);
    kiln_tensors_destroy(a);
    kiln_tensors_destroy(b);
    return status;
}

static kiln_status measure(finder *f, const bool *int8, double numbers[6]) {
    kiln_model *model = NULL;
    kiln_engine *engine = NULL;
    kiln_context *context = NULL;
    kiln_gauged g;
    kiln_race race = {.a_ms = NAN, .b_ms = NAN, .ratio = NAN};
    KILN_TRY(kiln_study_quantize(&f->job, int8, &model));
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

/* What is to be least: the share of the float network's time, or of its gains not had. */
static double cost_of(const finder *f, const bool *int8, const kiln_tried *t) {
    double all = 0, had = 0;
    if (!f->job.how.no_timing) {
        return t->time_ratio;
    }
    for (size_t i = 0; f->gain && i < f->job.study->n_layers; i++) {
        all += f->gain[i];
        had += int8[i] ? f->gain[i] : 0;
    }
    return all > 0 ? 1 - had / all : 1;
}

static kiln_status record(finder *f, const bool *int8, const double *numbers, kiln_tried *out) {
    kiln_study *s = f->job.study;
    double noise = isnan(numbers[1]) ? INFINITY : numbers[1];
    bool *own;
    KILN_ALLOC(own, &s->arena, s->n_layers + 1);
    memcpy(own, int8, s->n_layers * sizeof *own);
    *out = (kiln_tried){.metric = numbers[0],
                        .drop = 100 * (exact_metric(f) - numbers[0]),
                        .sqnr_db = -10 * log10(noise),
                        .ms = numbers[2],
                        .float_ms = numbers[3],
                        .time_ratio = numbers[4]};
    for (size_t i = 0; i < s->n_layers; i++) {
        out->int8_layers += int8[i] ? 1 : 0;
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
static kiln_status evaluate(finder *f, const bool *int8, kiln_tried *out) {
    const char *item;
    double numbers[6] = {0};
    KILN_TRY(name_choice(f, int8, &item));
    const double *known = kiln_journal_find(f->job.journal, item);
    if (!known) {
        KILN_TRY(measure(f, int8, numbers));
        KILN_TRY(
            kiln_journal_add(f->job.journal, item, numbers, KILN_COUNT_OF(numbers), f->job.diag));
        known = kiln_journal_find(f->job.journal, item);
    }
    f->done++;
    return record(f, int8, known, out);
}

/* ---- What layers gain ---- */

/* Without timing: multiply-accumulates say what a layer is worth. */
static void gain_by_macs(finder *f) {
    const kiln_engine *e = kiln_gauge_engine(f->job.gauge);
    kiln_layer l;
    for (size_t i = 0; i < f->job.study->n_layers; i++) {
        f->gain[i] = 1;
        for (size_t k = 0; kiln_engine_layer(e, k, &l); k++) {
            if (strcmp(l.name, f->job.study->layers[i].name) == 0) {
                f->gain[i] += (double)l.macs;
            }
        }
    }
}

static kiln_status time_cells(finder *f, kiln_cell_time *cells) {
    kiln_study *s = f->job.study;
    kiln_model *all = NULL;
    kiln_engine *engine = NULL;
    kiln_context *context = NULL;
    kiln_tensors *a = NULL, *b = NULL;
    const char **names;
    KILN_ALLOC(names, &s->arena, s->n_layers + 1);
    for (size_t i = 0; i < s->n_layers; i++) {
        names[i] = s->layers[i].name;
    }
    KILN_TRY(kiln_study_quantize(&f->job, NULL, &all));
    kiln_status status = kiln_gauge_build(f->gauge, all, &engine, &context, f->job.diag);
    const kiln_timed exact = {kiln_gauge_engine(f->gauge), kiln_gauge_context(f->gauge)};
    const kiln_timed mine = {engine, context};
    status = status ? status : kiln_timed_inputs(&a, &exact, s->env, f->job.diag);
    status = status ? status : kiln_timed_inputs(&b, &mine, s->env, f->job.diag);
    status = status ? status
                    : kiln_time_cells(cells, names, s->n_layers, &exact, &mine, cells_budget_ms,
                                      s->env, f->job.diag);
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    kiln_model_destroy(all);
    kiln_tensors_destroy(a);
    kiln_tensors_destroy(b);
    return status;
}

/* A cell's time is shared by its layers. */
static kiln_status keep_times(finder *f, const kiln_cell_time *cells) {
    kiln_study *s = f->job.study;
    for (size_t i = 0; i < s->n_layers; i++) {
        double sharers = 0;
        for (size_t k = 0; k < s->n_layers; k++) {
            sharers += cells[k].cell == cells[i].cell ? 1 : 0;
        }
        const kiln_race *r = &cells[i].race;
        double known = cells[i].cell >= 0 ? 1 : NAN;
        const double numbers[] = {known * r->a_ms / sharers, known * r->b_ms / sharers, r->ratio,
                                  r->wins};
        const char *item = kiln_arena_printf(&s->arena, "time %s", s->layers[i].name);
        KILN_TRY(item ? KILN_OK : KILN_E_MEMORY);
        KILN_TRY(
            kiln_journal_add(f->job.journal, item, numbers, KILN_COUNT_OF(numbers), f->job.diag));
    }
    return KILN_OK;
}

/* Fills in from the journal; false when a layer's time is not there. */
static bool recall_times(finder *f) {
    kiln_study *s = f->job.study;
    for (size_t i = 0; i < s->n_layers; i++) {
        const char *item = kiln_arena_printf(&s->arena, "time %s", s->layers[i].name);
        const double *known = item ? kiln_journal_find(f->job.journal, item) : NULL;
        if (!known) {
            return false;
        }
        s->layers[i].float_ms = known[0];
        s->layers[i].int8_ms = known[1];
        const kiln_race back = {.ratio = known[2] > 0 ? 1 / known[2] : 1, .wins = 1 - known[3]};
        f->slow[i] = !isnan(known[0]) && kiln_race_is_won(&back, lost_margin);
        f->gain[i] = isnan(known[0]) ? 0 : known[0] - known[1];
    }
    return true;
}

static kiln_status find_gains(finder *f) {
    kiln_study *s = f->job.study;
    kiln_cell_time *cells;
    KILN_ALLOC(f->gain, &s->arena, s->n_layers + 1);
    KILN_ALLOC(f->slow, &s->arena, s->n_layers + 1);
    if (f->job.how.no_timing) {
        gain_by_macs(f);
        return KILN_OK;
    }
    if (recall_times(f)) {
        return KILN_OK;
    }
    KILN_ALLOC(cells, &s->arena, s->n_layers + 1);
    KILN_TRY(time_cells(f, cells));
    KILN_TRY(keep_times(f, cells));
    return recall_times(f) ? KILN_OK : KILN_E_MEMORY;
}

/* ---- The order ---- */

/* Noise per gain: what should stay float first has most. */
static double burden(const finder *f, size_t i) {
    double noise = pow(10, -0.1 * f->job.study->layers[i].sqnr_db), sum = 0;
    for (size_t k = 0; k < f->job.study->n_layers; k++) {
        sum += f->gain[k] > 0 ? f->gain[k] : 0;
    }
    double least = 1e-3 * sum / (double)f->job.study->n_layers + 1e-12;
    return noise / (f->gain[i] > least ? f->gain[i] : least);
}

typedef struct ranked {
    double by;
    size_t layer;
} ranked;

static int by_falling(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    int order = (x->by < y->by) - (x->by > y->by);
    return order ? order : (x->layer > y->layer) - (x->layer < y->layer);
}

static kiln_status make_order(finder *f) {
    kiln_study *s = f->job.study;
    ranked *list;
    KILN_ALLOC(list, &s->arena, s->n_layers + 1);
    KILN_ALLOC(f->order, &s->arena, s->n_layers + 1);
    for (size_t i = 0; i < s->n_layers; i++) {
        if (!f->slow[i]) {
            list[f->n_order++] = (ranked){burden(f, i), i};
        }
    }
    if (f->n_order > 1) {
        qsort(list, f->n_order, sizeof *list, by_falling);
    }
    for (size_t i = 0; i < f->n_order; i++) {
        f->order[i] = list[i].layer;
    }
    return KILN_OK;
}

/* ---- The search ---- */

/* All but the slow ones and the first n of the order. */
static void choose_tail(const finder *f, size_t n, bool *int8) {
    memset(int8, 0, f->job.study->n_layers * sizeof *int8);
    for (size_t i = n; i < f->n_order; i++) {
        int8[f->order[i]] = true;
    }
}

/* The shortest head that must stay float, into *head. */
static kiln_status halve(finder *f, bool *int8, size_t *head) {
    size_t bad = 0, good = f->n_order;
    kiln_tried t;
    while (good - bad > 1) {
        size_t middle = bad + (good - bad) / 2;
        choose_tail(f, middle, int8);
        KILN_TRY(evaluate(f, int8, &t));
        *(t.within ? &good : &bad) = middle;
    }
    *head = good;
    return KILN_OK;
}

/* Offers the head's layers 8 bits again, the most saving first. */
static kiln_status offer_again(finder *f, bool *int8, size_t head) {
    ranked *list;
    kiln_tried t;
    KILN_ALLOC(list, &f->job.study->arena, head + 1);
    for (size_t i = 0; i < head; i++) {
        list[i] = (ranked){f->gain[f->order[i]], f->order[i]};
    }
    if (head > 1) {
        qsort(list, head, sizeof *list, by_falling);
    }
    choose_tail(f, head, int8);
    for (size_t i = 0; i < head && i < SECOND_CHANCES; i++) {
        int8[list[i].layer] = true;
        KILN_TRY(evaluate(f, int8, &t));
        int8[list[i].layer] = t.within;
    }
    return KILN_OK;
}

static kiln_status search(finder *f) {
    kiln_study *s = f->job.study;
    bool *int8;
    size_t head = 0;
    kiln_tried t;
    KILN_ALLOC(int8, &s->arena, s->n_layers + 1);
    for (size_t n = f->n_order; n > 0; n /= 2) {
        f->planned++;
    }
    const double exact[6] = {exact_metric(f), 0, NAN, NAN, 1};
    KILN_TRY(record(f, int8, exact, &t));
    KILN_TRY(find_gains(f));
    KILN_TRY(make_order(f));
    choose_tail(f, 0, int8);
    KILN_TRY(f->n_order > 0 ? evaluate(f, int8, &t) : KILN_OK);
    if (t.within || f->n_order == 0) {
        return KILN_OK;
    }
    KILN_TRY(halve(f, int8, &head));
    if (head < 2) {
        return KILN_OK; /* that layer's 8 bits were too much just now */
    }
    f->planned += head < SECOND_CHANCES ? head : SECOND_CHANCES;
    return offer_again(f, int8, head);
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

/* The rules that give the best choice: the user's own, then a line for each layer left float. */
static kiln_status write_rules(finder *f) {
    kiln_study *s = f->job.study;
    kiln_text text;
    kiln_text_init(&text, s->env);
    kiln_text_printf(&text, "# %s\n",
                     f->job.options.precision ? "as asked for" : "8 bits but where said otherwise");
    kiln_text_printf(&text, "%s\n", f->job.options.precision ? f->job.options.precision : "int8");
    for (size_t i = 0; i < s->n_layers; i++) {
        s->layers[i].int8 = f->best && f->best[i];
        if (!s->layers[i].int8) {
            kiln_text_puts(&text, "name:");
            kiln_rule_escape(&text, s->layers[i].name);
            kiln_text_puts(&text, "=fp32\n");
        }
    }
    s->rules = kiln_text_ok(&text) ? kiln_arena_text(&s->arena, text.data, text.len) : NULL;
    kiln_text_free(&text);
    return s->rules ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status run(finder *f) {
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
        made = made ? made : kiln_study_quantize(&f.job, NULL, best);
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
