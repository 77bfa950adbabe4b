/* sensitivity.c - each layer quantized alone, and what the outputs make of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/options.h"
#include "flow/study.h"
#include "quant/calibration.h"

enum { LEAST_SAMPLES = 32, MOST_SAMPLES = 256 };
static const int64_t macs_a_layer = INT64_C(100000000000);

/* ---- Metrics ---- */

double kiln_study_metric(const kiln_study_job *job, const kiln_gauged *g) {
    bool labelled = !isnan(kiln_gauge_float(job->gauge)->top1);
    return labelled ? g->top1 : g->agreement;
}

double kiln_study_drop(const kiln_study_job *job, const kiln_gauged *g) {
    double exact = kiln_study_metric(job, kiln_gauge_float(job->gauge));
    return 100 * (exact - kiln_study_metric(job, g));
}

/* ---- Layers ---- */

/* The layers of the network with all of them quantized. */
static kiln_status list_layers(kiln_study_job *job, const kiln_model *model) {
    kiln_study *s = job->study;
    kiln_node_precision p;
    for (size_t i = 0; kiln_model_precision(model, i, &p); i++) {
        const char *last = s->n_layers > 0 ? s->layers[s->n_layers - 1].name : NULL;
        if (!p.layer || !p.int8 || (last && strcmp(last, p.name) == 0)) {
            continue;
        }
        kiln_layer_cost c = {.name = kiln_arena_text(&s->arena, p.name, strlen(p.name)),
                             .op = kiln_arena_text(&s->arena, p.op, strlen(p.op)),
                             .sqnr_db = NAN,
                             .cosine = NAN,
                             .agreement = NAN,
                             .top1 = NAN,
                             .drop = NAN,
                             .input_sqnr_db = NAN,
                             .float_ms = NAN,
                             .int8_ms = NAN,
                             .bf16_sqnr_db = NAN,
                             .bf16_ms = NAN,
                             .dtype = KILN_DTYPE_F32};
        KILN_TRY(c.name && c.op ? KILN_OK : KILN_E_MEMORY);
        KILN_PUSH(&s->arena, s->layers, s->n_layers, s->cap_layers, c);
    }
    s->info.layers = s->n_layers;
    KILN_ALLOC(job->keep, &s->arena, job->options.n_keep + s->n_layers + 1);
    for (size_t i = 0; i < job->options.n_keep; i++) {
        job->keep[i] = job->options.keep[i];
    }
    return s->n_layers > 0 ? KILN_OK
                           : kiln_fail(job->diag, KILN_F_PRECISION,
                                       "no layer of the network would be quantized");
}

/* ---- Beginning ---- */

static kiln_status open_gauge(kiln_study_job *job) {
    const kiln_calibrate_run *run = job->how.data;
    int64_t samples = job->how.samples > 0
                          ? job->how.samples
                          : kiln_gauge_share(job->model, macs_a_layer, LEAST_SAMPLES, MOST_SAMPLES);
    const kiln_gauge_spec spec = {.feed = {.data = run->data,
                                           .labels = job->how.labels,
                                           .preprocess = run->preprocess,
                                           .input = run->input,
                                           .count = run->count,
                                           .shuffle = run->shuffle,
                                           .seed = run->seed},
                                  .samples = samples,
                                  .build = job->how.build,
                                  .threads = job->how.threads,
                                  .progress = run->progress};
    KILN_TRY(kiln_gauge_open(&job->gauge, job->model, &spec, job->study->env, job->diag));
    const kiln_gauged *exact = kiln_gauge_float(job->gauge);
    job->study->info.metric = isnan(exact->top1) ? "agreement" : "top1";
    job->study->info.float_metric = kiln_study_metric(job, exact);
    job->study->info.samples = exact->samples;
    return KILN_OK;
}

/* Ranges once for all networks, unless layers find theirs in their own forms. */
static kiln_status find_ranges(kiln_study_job *job) {
    const kiln_quantize_options *o = &job->options;
    kiln_calibrate_options how;
    kiln_range const *r;
    for (size_t i = 0; i < o->n_layers; i++) {
        if (o->layers[i].activations) {
            return KILN_OK;
        }
    }
    if (kiln_options_read(&how, sizeof how, o->calibrate) != KILN_OK) {
        return kiln_fail(job->diag, KILN_F_OPTION, "the calibration options have no size");
    }
    how.symmetric = how.symmetric || o->style == KILN_QDQ_TENSORRT;
    KILN_TRY(kiln_ranges_create(&job->ranges, job->study->env));
    KILN_TRY(kiln_ranges_calibrate(job->ranges, job->calibration, &how, job->diag));
    for (size_t i = 0; job->how.ranges && (r = kiln_ranges_get(job->how.ranges, i)); i++) {
        KILN_TRY(kiln_ranges_set(job->ranges, r, job->diag));
    }
    return KILN_OK;
}

/* The numbers that every measurement depends on. */
static kiln_status open_journal(kiln_study_job *job) {
    kiln_calibration_info calibration;
    kiln_model_info model;
    const kiln_range *r;
    kiln_text text;
    kiln_calibration_get_info(job->calibration, &calibration);
    kiln_model_get_info(job->model, &model);
    kiln_hash128 outputs = kiln_gauge_hash(job->gauge);
    const char *precision = job->options.precision ? job->options.precision : "";
    kiln_text_init(&text, job->study->env);
    kiln_text_printf(&text, "%s %s %llx%llx %d %lld %s", model.hash, calibration.data_hash,
                     (unsigned long long)outputs.high, (unsigned long long)outputs.low,
                     (int)job->options.style, (long long)kiln_gauge_float(job->gauge)->samples,
                     precision);
    for (size_t i = 0; job->ranges && (r = kiln_ranges_get(job->ranges, i)); i++) {
        kiln_text_printf(&text, " %s %a %a", r->name, r->lo, r->hi);
    }
    for (size_t i = 0; i < job->study->n_layers; i++) {
        kiln_text_printf(&text, " %s", job->study->layers[i].name);
    }
    kiln_status status = kiln_text_ok(&text) ? KILN_OK : KILN_E_MEMORY;
    if (status == KILN_OK) {
        status = kiln_journal_open(&job->journal, job->how.state,
                                   kiln_hash_128(text.data, text.len), job->study->env, job->diag);
    }
    kiln_text_free(&text);
    if (status == KILN_OK) {
        job->study->info.resumed = kiln_journal_resumed(job->journal);
    }
    return status;
}

static kiln_status read_options(kiln_study_job *job, const kiln_quantize_options *options,
                                const kiln_study_options *how) {
    if (!job->model || !job->calibration || !how ||
        kiln_options_read(&job->options, sizeof job->options, options) != KILN_OK ||
        kiln_options_read(&job->how, sizeof job->how, how) != KILN_OK || !job->how.data ||
        !job->how.data->data) {
        return kiln_fail(job->diag, KILN_F_OPTION,
                         "there is no model, calibration or data that can be read again, or "
                         "options have no size or unknown fields");
    }
    return KILN_OK;
}

/* The network with all layers quantized: lists them, and measures what all do together. */
static kiln_status begin_with_all(kiln_study_job *job) {
    kiln_model *all = NULL;
    kiln_engine *engine = NULL;
    kiln_context *context = NULL;
    kiln_gauged g;
    KILN_TRY(kiln_study_quantize(job, NULL, &all));
    kiln_status status = list_layers(job, all);
    status = status ? status : open_journal(job);
    status = status ? status : kiln_gauge_build(job->gauge, all, &engine, &context, job->diag);
    status = status ? status : kiln_gauge_run(job->gauge, context, &g, job->diag);
    if (status == KILN_OK) {
        job->study->info.drop = kiln_study_drop(job, &g);
        job->study->info.sqnr_db = g.sqnr_db;
        status = kiln_study_taps(job, engine, context);
    }
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    kiln_model_destroy(all);
    return status;
}

static kiln_status begin(kiln_study_job *job, const kiln_quantize_options *options,
                         const kiln_study_options *how) {
    KILN_TRY(read_options(job, options, how));
    KILN_TRY(open_gauge(job));
    KILN_TRY(find_ranges(job));
    return begin_with_all(job);
}

kiln_status kiln_study_begin(kiln_study_job *job, const kiln_model *model,
                             const kiln_calibration *calibration,
                             const kiln_quantize_options *options, const kiln_study_options *how,
                             kiln_diag *diag) {
    *job = (kiln_study_job){.model = model, .calibration = calibration, .diag = diag};
    const kiln_env *env = calibration ? calibration->env : NULL;
    job->study = kiln_env_alloc(env, sizeof *job->study);
    if (!job->study) {
        return KILN_E_MEMORY;
    }
    memset(job->study, 0, sizeof *job->study);
    job->study->env = env;
    job->study->best = -1;
    kiln_arena_init(&job->study->arena, env);
    return begin(job, options, how);
}

/* ---- One layer after the other ---- */

static kiln_status measure(kiln_study_job *job, size_t i, const kiln_form *form, kiln_gauged *g) {
    kiln_model *model = NULL;
    kiln_form *forms;
    kiln_study *s = job->study;
    KILN_ALLOC(forms, &s->arena, s->n_layers);
    for (size_t k = 0; k < s->n_layers; k++) {
        forms[k].dtype = KILN_DTYPE_F32;
    }
    forms[i] = *form;
    KILN_TRY(kiln_study_quantize(job, forms, &model));
    kiln_gauge_span(job->gauge, (double)i / (double)s->n_layers,
                    (double)(i + 1) / (double)s->n_layers);
    kiln_status status = kiln_gauge_model(job->gauge, model, g, job->diag);
    kiln_model_destroy(model);
    return status;
}

/* The item of the journal: that of 8 bits by the options' own calibrator has no more words. */
static const char *name_item(kiln_study_job *job, size_t i, const kiln_form *form) {
    kiln_arena *arena = &job->study->arena;
    const char *name = job->study->layers[i].name;
    if (form->dtype != KILN_DTYPE_I8) {
        return kiln_arena_printf(arena, "%s layer %s", kiln_dtype_name(form->dtype), name);
    }
    const kiln_study_calibrator *c = &job->calibrators[form->calibrator - 1];
    return form->calibrator == 0
               ? kiln_arena_printf(arena, "layer %s", name)
               : kiln_arena_printf(arena, "%s %g layer %s", kiln_calibrator_name(c->calibrator),
                                   c->percentile, name);
}

kiln_status kiln_study_layer_in(kiln_study_job *job, size_t i, const kiln_form *form,
                                kiln_gauged *out) {
    kiln_gauged g = {0};
    const char *item = name_item(job, i, form);
    KILN_TRY(item ? KILN_OK : KILN_E_MEMORY);
    const double *known = kiln_journal_find(job->journal, item);
    if (!known) {
        KILN_TRY(measure(job, i, form, &g));
        const double numbers[] = {g.noise, g.cosine, g.agreement, g.top1};
        KILN_TRY(kiln_journal_add(job->journal, item, numbers, KILN_COUNT_OF(numbers), job->diag));
        known = kiln_journal_find(job->journal, item);
    }
    *out = (kiln_gauged){.noise = isnan(known[0]) ? INFINITY : known[0],
                         .cosine = known[1],
                         .agreement = known[2],
                         .top1 = known[3]};
    return KILN_OK;
}

void kiln_study_tell(kiln_study_job *job, size_t i, const kiln_gauged *g) {
    kiln_layer_cost *c = &job->study->layers[i];
    c->sqnr_db = -10 * log10(g->noise);
    c->cosine = g->cosine;
    c->agreement = g->agreement;
    c->top1 = g->top1;
    c->drop = kiln_study_drop(job, g);
}

kiln_status kiln_study_layers(kiln_study_job *job) {
    const kiln_form int8 = {.dtype = KILN_DTYPE_I8};
    for (size_t i = 0; i < job->study->n_layers; i++) {
        kiln_gauged g;
        KILN_TRY(kiln_study_layer_in(job, i, &int8, &g));
        kiln_study_tell(job, i, &g);
        job->study->info.measured++;
    }
    return KILN_OK;
}

/* ---- The end ---- */

/* Most noise first; what was not measured last. */
static int by_noise(const void *a, const void *b) {
    const kiln_layer_cost *x = a, *y = b;
    if (isnan(x->sqnr_db) || isnan(y->sqnr_db)) {
        return isnan(x->sqnr_db) - isnan(y->sqnr_db);
    }
    return (x->sqnr_db > y->sqnr_db) - (x->sqnr_db < y->sqnr_db);
}

kiln_status kiln_study_end(kiln_study_job *job, kiln_status status, kiln_study **out) {
    kiln_gauge_close(job->gauge);
    kiln_journal_close(job->journal);
    kiln_ranges_destroy(job->ranges);
    kiln_study_calibrators_free(job);
    if (status == KILN_OK || status == KILN_E_CANCELLED) {
        if (job->study->n_layers > 1) {
            qsort(job->study->layers, job->study->n_layers, sizeof *job->study->layers, by_noise);
        }
        *out = job->study;
    } else {
        kiln_study_destroy(job->study);
    }
    return kiln_diag_close(job->diag, status);
}

kiln_status kiln_sensitivity(kiln_study **out, const kiln_model *model,
                             const kiln_calibration *calibration,
                             const kiln_quantize_options *options, const kiln_study_options *how,
                             kiln_diag *diag) {
    kiln_study_job job;
    kiln_diag_enter(diag, "studying layers");
    kiln_status status = kiln_study_begin(&job, model, calibration, options, how, diag);
    status = status == KILN_OK ? kiln_study_layers(&job) : status;
    kiln_diag_leave(diag);
    return kiln_study_end(&job, status, out);
}

void kiln_study_destroy(kiln_study *study) {
    if (study) {
        kiln_arena_free(&study->arena);
        kiln_env_release(study->env, study, sizeof *study);
    }
}

void kiln_study_get_info(const kiln_study *study, kiln_study_info *out) {
    *out = study->info;
}

bool kiln_study_layer(const kiln_study *study, size_t i, kiln_layer_cost *out) {
    if (i >= study->n_layers) {
        return false;
    }
    *out = study->layers[i];
    return true;
}
