/* evaluate.c - a labelled data set through a network, and through another beside it: run, score. */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "base/options.h"
#include "base/timer.h"
#include "data/metrics.h"
#include "data/values.h"
#include "flow/feed.h"
#include "ops/util.h"

typedef struct job {
    const kiln_engine *engine;
    kiln_context *context;
    kiln_evaluate_options o;
    kiln_feed *feed;
    kiln_io out;
    size_t out_index;
    kiln_arena arena; /* of the classifier and the times */
    kiln_classify score;
    bool scoring; /* score is initialized */
    kiln_compare versus;
    double *times;
    size_t n_times, cap_times;
    kiln_evaluate_result *result;
    kiln_diag *diag;
} job;

static kiln_status choose_output(job *j) {
    kiln_io io;
    for (size_t i = 0; kiln_engine_output(j->engine, i, &io); i++) {
        if (j->o.output ? strcmp(io.name, j->o.output) == 0 : i == 0) {
            j->out = io;
            j->out_index = i;
            return KILN_OK;
        }
    }
    return kiln_fail(j->diag, KILN_F_RUN_INPUT, "there is no output \"%s\"",
                     j->o.output ? j->o.output : "");
}

/* Without labels only a comparison is left to make. */
static kiln_status open_feed(job *j) {
    const kiln_evaluate_options *o = &j->o;
    kiln_feed_spec spec = {.data = o->data,
                           .kind = o->kind,
                           .labels = o->labels,
                           .preprocess = o->preprocess,
                           .input = o->input,
                           .count = o->count,
                           .batch = o->batch,
                           .shape = o->shape,
                           .shuffle = o->shuffle,
                           .seed = o->seed,
                           .next = o->next,
                           .user = o->user};
    KILN_TRY(kiln_feed_open(&j->feed, j->engine, &spec, j->arena.env, j->diag));
    if (!kiln_feed_has_labels(j->feed) && !o->reference) {
        return kiln_hint(j->diag,
                         kiln_fail(j->diag, KILN_F_DATA_MISSING, "%s has no labels",
                                   o->data ? o->data : "the function's data"),
                         "--labels names a file, or an array of an .npz");
    }
    return KILN_OK;
}

/* ---- One batch ---- */

static kiln_status begin_scoring(job *j, const kiln_tensor *y, int64_t rows) {
    int64_t count = kiln_tensor_count(y);
    if (rows < 1 || count < rows || count % rows != 0 || kiln_values_per_element(y->dtype) != 1) {
        return kiln_fail(j->diag, KILN_F_DATA_MISSING,
                         "output \"%s\" has %lld values for %lld samples: no scores of classes",
                         j->out.name, (long long)count, (long long)rows);
    }
    int64_t classes = count / rows;
    j->result->has_scores = !(classes == 1 && kiln_dtype_is_int(y->dtype));
    if (classes == 1 && j->result->has_scores) {
        return kiln_fail(j->diag, KILN_F_DATA_MISSING, "output \"%s\" has one score a sample",
                         j->out.name);
    }
    if (!j->result->has_scores) {
        int64_t named = kiln_feed_classes(j->feed);
        classes = named > 0 ? named : KILN_CLASSIFY_MAX_CONFUSION;
    }
    j->scoring = true;
    j->result->classes = classes;
    return kiln_classify_init(&j->score, classes, &j->arena, j->diag);
}

static kiln_status score_batch(job *j, const kiln_tensor *y, const kiln_fed *fed) {
    if (!kiln_feed_has_labels(j->feed)) {
        j->result->samples += fed->count;
        return KILN_OK;
    }
    if (!j->scoring) {
        KILN_TRY(begin_scoring(j, y, fed->rows));
    }
    kiln_tensor flat = *y;
    flat.rank = 2;
    flat.dims[0] = fed->rows;
    flat.dims[1] = kiln_tensor_count(y) / fed->rows;
    for (int64_t i = 0; i < fed->count; i++) {
        const kiln_labels *l = &fed->labels[i];
        if (j->result->has_scores) {
            KILN_TRY(kiln_classify_add(&j->score, &flat, i, l->values, l->count, j->diag));
        } else {
            KILN_TRY(kiln_classify_add_class(&j->score, kiln_get_i64(y->dtype, y->data, i),
                                             l->values, l->count, j->diag));
        }
    }
    return KILN_OK;
}

static kiln_status run_on(job *j, kiln_context *context, const kiln_tensor **y) {
    KILN_TRY(kiln_feed_bind(j->feed, context, j->diag));
    KILN_TRY(kiln_context_run(context, j->diag));
    *y = kiln_context_output(context, j->out_index);
    return *y ? KILN_OK
              : kiln_fail(j->diag, KILN_F_DATA_MISSING, "output \"%s\" is empty", j->out.name);
}

/* The rows that stand for samples; a batch filled up repeats its last. */
static kiln_tensor real_rows(const kiln_tensor *y, const kiln_fed *fed) {
    kiln_tensor t = *y;
    if (t.rank > 0 && t.dims[0] == fed->rows) {
        t.dims[0] = fed->count;
    }
    return t;
}

static kiln_status compare_batch(job *j, const kiln_tensor *y, const kiln_fed *fed) {
    const kiln_tensor *want;
    KILN_TRY(run_on(j, j->o.reference, &want));
    kiln_tensor e = real_rows(want, fed), a = real_rows(y, fed);
    j->versus.row = kiln_tensor_count(want) / fed->rows;
    return kiln_compare_add(&j->versus, &e, &a, j->diag);
}

static kiln_status run_batch(job *j, const kiln_fed *fed) {
    const kiln_tensor *y;
    int64_t start_ns = kiln_now_ns();
    KILN_TRY(run_on(j, j->context, &y));
    double took_ms = 1e-6 * (double)(kiln_now_ns() - start_ns);
    KILN_PUSH(&j->arena, j->times, j->n_times, j->cap_times, took_ms);
    KILN_TRY(score_batch(j, y, fed));
    return j->o.reference ? compare_batch(j, y, fed) : KILN_OK;
}

static kiln_status run_all(job *j) {
    int64_t total = kiln_feed_count(j->feed), done = 0;
    for (;;) {
        kiln_fed fed;
        KILN_TRY(kiln_feed_next(j->feed, &fed, j->diag));
        if (fed.count == 0) {
            return KILN_OK;
        }
        KILN_TRY(run_batch(j, &fed));
        done += fed.count;
        const kiln_progress *p = j->o.progress;
        if (p && !p->step(p->user, total > 0 ? (double)done / (double)total : -1)) {
            return KILN_E_CANCELLED;
        }
    }
}

static void summarize(job *j, int64_t started_ns) {
    kiln_evaluate_result *r = j->result;
    kiln_classify_report report = {0};
    if (j->scoring) {
        kiln_classify_finish(&j->score, &report);
        r->samples = report.samples;
    }
    r->top1 = j->scoring ? report.top1 : NAN;
    r->top5 = r->has_scores ? report.top5 : NAN;
    r->loss = r->has_scores ? report.loss : NAN;
    r->macro_precision = report.macro_precision;
    r->macro_recall = report.macro_recall;
    r->macro_f1 = report.macro_f1;
    r->weighted_precision = report.weighted_precision;
    r->weighted_recall = report.weighted_recall;
    r->weighted_f1 = report.weighted_f1;
    r->nan_samples = report.nan_rows;
    r->batch = kiln_feed_batch(j->feed);
    r->walltime_ms = 1e-6 * (double)(kiln_now_ns() - started_ns);
    kiln_stats_of(&r->latency, j->times, j->n_times);
    r->agreement = r->sqnr_db = r->cosine = r->mse = r->psnr_db = NAN;
    if (j->o.reference) {
        kiln_compare_report v;
        kiln_compare_finish(&j->versus, &v);
        r->agreement = v.top1_agreement;
        r->sqnr_db = v.sqnr_db;
        r->cosine = v.cosine;
        r->mse = v.rmse * v.rmse;
        r->psnr_db = v.psnr_db;
    }
}

kiln_status kiln_evaluate(kiln_evaluate_result *out, const kiln_engine *engine,
                          kiln_context *context, const kiln_env *env,
                          const kiln_evaluate_options *options, kiln_diag *diag) {
    kiln_evaluate_result result = {0};
    job j = {.engine = engine, .context = context, .result = &result, .diag = diag};
    if (kiln_options_read(&j.o, sizeof j.o, options) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the options have no size, or unknown fields");
    }
    int64_t started_ns = kiln_now_ns();
    kiln_arena_init(&j.arena, env);
    kiln_status status = choose_output(&j);
    status = status == KILN_OK ? open_feed(&j) : status;
    status = status == KILN_OK ? run_all(&j) : status;
    if (status == KILN_OK || status == KILN_E_CANCELLED) {
        result.cancelled = status == KILN_E_CANCELLED;
        summarize(&j, started_ns);
        *out = result;
    }
    kiln_feed_close(j.feed);
    kiln_arena_free(&j.arena);
    return kiln_diag_close(diag, status);
}
