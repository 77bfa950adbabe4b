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

/* A network and what came of it. */
typedef struct scorer {
    kiln_context *context;
    kiln_classify score;
    bool scoring; /* score is initialized */
    double *times;
    size_t n_times, cap_times;
    const kiln_tensor *y; /* of the batch */
    kiln_evaluate_result result;
} scorer;

typedef struct job {
    const kiln_engine *engine;
    kiln_evaluate_options o;
    kiln_feed *feed;
    kiln_io out;
    size_t out_index;
    kiln_arena arena; /* of the classifiers and the times */
    scorer own, reference;
    int64_t samples, gained, lost;
    kiln_compare versus;
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

static kiln_status begin_scoring(job *j, scorer *s, int64_t rows) {
    const kiln_tensor *y = s->y;
    int64_t count = kiln_tensor_count(y);
    if (rows < 1 || count < rows || count % rows != 0 || kiln_values_per_element(y->dtype) != 1) {
        return kiln_fail(j->diag, KILN_F_DATA_MISSING,
                         "output \"%s\" has %lld values for %lld samples: no scores of classes",
                         j->out.name, (long long)count, (long long)rows);
    }
    int64_t classes = count / rows;
    s->result.has_scores = !(classes == 1 && kiln_dtype_is_int(y->dtype));
    if (classes == 1 && s->result.has_scores) {
        return kiln_fail(j->diag, KILN_F_DATA_MISSING, "output \"%s\" has one score a sample",
                         j->out.name);
    }
    if (!s->result.has_scores) {
        int64_t named = kiln_feed_classes(j->feed);
        classes = named > 0 ? named : KILN_CLASSIFY_MAX_CONFUSION;
    }
    s->scoring = true;
    s->result.classes = classes;
    return kiln_classify_init(&s->score, classes, &j->arena, j->diag);
}

static kiln_status score_sample(job *j, scorer *s, const kiln_fed *fed, int64_t i) {
    const kiln_labels *l = &fed->labels[i];
    if (!s->scoring) {
        KILN_TRY(begin_scoring(j, s, fed->rows));
    }
    if (!s->result.has_scores) {
        return kiln_classify_add_class(&s->score, kiln_get_i64(s->y->dtype, s->y->data, i),
                                       l->values, l->count, j->diag);
    }
    kiln_tensor flat = *s->y;
    flat.rank = 2;
    flat.dims[0] = fed->rows;
    flat.dims[1] = kiln_tensor_count(s->y) / fed->rows;
    return kiln_classify_add(&s->score, &flat, i, l->values, l->count, j->diag);
}

static kiln_status score_batch(job *j, const kiln_fed *fed) {
    for (int64_t i = 0; i < fed->count && kiln_feed_has_labels(j->feed); i++) {
        kiln_scored seen = {.sample = j->samples + i, .reference = -1};
        KILN_TRY(score_sample(j, &j->own, fed, i));
        seen.label = fed->labels[i].values[0];
        seen.predicted = j->own.score.last;
        if (j->o.reference) {
            KILN_TRY(score_sample(j, &j->reference, fed, i));
            seen.reference = j->reference.score.last;
            j->gained += j->own.score.last_hit && !j->reference.score.last_hit;
            j->lost += !j->own.score.last_hit && j->reference.score.last_hit;
        }
        if (j->o.scored) {
            j->o.scored(j->o.scored_user, &seen);
        }
    }
    j->samples += fed->count;
    return KILN_OK;
}

static kiln_status run_on(job *j, scorer *s) {
    int64_t start_ns = kiln_now_ns();
    KILN_TRY(kiln_feed_bind(j->feed, s->context, j->diag));
    KILN_TRY(kiln_context_run(s->context, j->diag));
    s->y = kiln_context_output(s->context, j->out_index);
    double took_ms = 1e-6 * (double)(kiln_now_ns() - start_ns);
    KILN_PUSH(&j->arena, s->times, s->n_times, s->cap_times, took_ms);
    return s->y ? KILN_OK
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

static kiln_status run_batch(job *j, const kiln_fed *fed) {
    KILN_TRY(run_on(j, &j->own));
    if (j->o.reference) {
        KILN_TRY(run_on(j, &j->reference));
        kiln_tensor e = real_rows(j->reference.y, fed), a = real_rows(j->own.y, fed);
        int64_t values = kiln_tensor_count(j->reference.y);
        j->versus.row = values % fed->rows == 0 ? values / fed->rows : values;
        KILN_TRY(kiln_compare_add(&j->versus, &e, &a, j->diag));
    }
    return score_batch(j, fed);
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

/* ---- Results ---- */

static void summarize(job *j, scorer *s, int64_t *confusion) {
    kiln_evaluate_result *r = &s->result;
    kiln_classify_report report = {0};
    if (s->scoring) {
        kiln_classify_finish(&s->score, &report);
    }
    r->samples = s->scoring ? report.samples : j->samples;
    r->top1 = s->scoring ? report.top1 : NAN;
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
    kiln_stats_of(&r->latency, s->times, s->n_times);
    r->agreement = r->sqnr_db = r->cosine = r->mse = r->psnr_db = NAN;
    size_t n = s->scoring && s->score.confusion ? (size_t)(r->classes * r->classes) : 0;
    if (confusion && n > 0 && n <= j->o.confusion_cap) {
        memcpy(confusion, s->score.confusion, n * sizeof *confusion);
    }
}

/* What there is, also after a part of the data. */
static void finish(job *j, int64_t started_ns, bool cancelled, kiln_evaluate_result *out) {
    kiln_evaluate_result *r = &j->own.result;
    summarize(j, &j->own, j->o.confusion);
    r->cancelled = j->reference.result.cancelled = cancelled;
    r->walltime_ms = 1e-6 * (double)(kiln_now_ns() - started_ns);
    if (j->o.reference) {
        kiln_compare_report v;
        kiln_compare_finish(&j->versus, &v);
        r->agreement = v.top1_agreement;
        r->sqnr_db = v.sqnr_db;
        r->cosine = v.cosine;
        r->mse = v.rmse * v.rmse;
        r->psnr_db = v.psnr_db;
        r->gained = j->gained;
        r->lost = j->lost;
        summarize(j, &j->reference, j->o.reference_confusion);
        j->reference.result.walltime_ms = r->walltime_ms;
        if (j->o.reference_result) {
            *j->o.reference_result = j->reference.result;
        }
    }
    *out = *r;
}

kiln_status kiln_evaluate(kiln_evaluate_result *out, const kiln_engine *engine,
                          kiln_context *context, const kiln_env *env,
                          const kiln_evaluate_options *options, kiln_diag *diag) {
    job j = {.engine = engine, .own = {.context = context}, .diag = diag};
    if (kiln_options_read(&j.o, sizeof j.o, options) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the options have no size, or unknown fields");
    }
    int64_t started_ns = kiln_now_ns();
    j.reference.context = j.o.reference;
    kiln_arena_init(&j.arena, env);
    kiln_status status = choose_output(&j);
    status = status == KILN_OK ? open_feed(&j) : status;
    status = status == KILN_OK ? run_all(&j) : status;
    if (status == KILN_OK || status == KILN_E_CANCELLED) {
        finish(&j, started_ns, status == KILN_E_CANCELLED, out);
    }
    kiln_feed_close(j.feed);
    kiln_arena_free(&j.arena);
    return kiln_diag_close(diag, status);
}
