/* quantize.c - which calibrator? Each is tried, and calibration samples decide. */
#include <math.h>
#include <string.h>

#include "base/options.h"
#include "flow/gauge.h"
#include "quant/calibration.h"
#include "quant/calibrators.h"

enum { MAX_TRIALS = KILN_MAX_CANDIDATES + 3, LEAST_SAMPLES = 16, MOST_SAMPLES = 128 };
/* Of mse, times what is asked for. */
static const double cut_weights[] = {1, 4, 16};
static const int64_t macs_a_trial = INT64_C(200000000000);

typedef struct job {
    const kiln_model *model;
    const kiln_calibration *calibration;
    kiln_quantize_options options;
    kiln_calibrate_options base; /* the options' own, without calibrator */
    kiln_trial_options how;
    kiln_gauge *gauge;
    kiln_trial trials[MAX_TRIALS];
    kiln_gauged gauged[MAX_TRIALS];
    size_t n;
    kiln_diag *diag;
} job;

/* ---- What to try ---- */

static void add_trial(job *j, kiln_calibrator calibrator, double percentile, double cut_weight) {
    if (j->n < MAX_TRIALS) {
        j->trials[j->n++] = (kiln_trial){
            .calibrator = calibrator, .percentile = percentile, .cut_weight = cut_weight};
    }
}

/* Tensor by tensor first: of equal results the first counts. */
static kiln_status plan(job *j) {
    kiln_calibrate_plan p;
    if (kiln_options_read(&j->base, sizeof j->base, j->options.calibrate) != KILN_OK) {
        return kiln_fail(j->diag, KILN_F_OPTION, "the calibration options have no size");
    }
    KILN_TRY(kiln_calibrate_plan_of(&p, &j->base, j->diag));
    add_trial(j, KILN_CALIBRATOR_AUTO, 0, 1);
    add_trial(j, KILN_CALIBRATOR_MAX, 0, 1);
    for (size_t i = 0; i < p.n_percentiles; i++) {
        add_trial(j, KILN_CALIBRATOR_PERCENTILE, p.percentiles[i], 1);
    }
    add_trial(j, KILN_CALIBRATOR_ENTROPY, 0, 1);
    for (size_t i = 0; i < KILN_COUNT_OF(cut_weights); i++) {
        add_trial(j, KILN_CALIBRATOR_MSE, 0, p.cut_weight * cut_weights[i]);
    }
    return KILN_OK;
}

static kiln_status quantize(job *j, const kiln_trial *t, kiln_model **out) {
    kiln_calibrate_options c = j->base;
    kiln_quantize_options o = j->options;
    c.calibrator = t->calibrator;
    c.cut_weight = t->cut_weight;
    if (t->calibrator == KILN_CALIBRATOR_PERCENTILE) {
        c.percentiles = &t->percentile;
        c.n_percentiles = 1;
    }
    o.calibrate = &c;
    return kiln_quantize(out, j->model, j->calibration, j->how.ranges, &o, j->diag);
}

/* ---- Trying ---- */

static kiln_status open_gauge(job *j) {
    const kiln_calibrate_run *run = j->how.data;
    int64_t most = j->how.samples > 0
                       ? j->how.samples
                       : kiln_gauge_share(j->model, macs_a_trial, LEAST_SAMPLES, MOST_SAMPLES);
    const kiln_gauge_spec spec = {.feed = {.data = run->data,
                                           .preprocess = run->preprocess,
                                           .input = run->input,
                                           .count = run->count,
                                           .shuffle = run->shuffle,
                                           .seed = run->seed},
                                  .samples = most,
                                  .build = j->how.build,
                                  .threads = j->how.threads,
                                  .progress = run->progress};
    return kiln_gauge_open(&j->gauge, j->model, &spec, j->calibration->env, j->diag);
}

/* What a trial warns of, the chosen one says again. */
static kiln_status try_one(job *j, size_t i) {
    kiln_model *model = NULL;
    kiln_trial *t = &j->trials[i];
    size_t said = kiln_diag_count(j->diag);
    KILN_TRY(quantize(j, t, &model));
    kiln_gauge_span(j->gauge, (double)i / (double)j->n, (double)(i + 1) / (double)j->n);
    kiln_status status = kiln_gauge_model(j->gauge, model, &j->gauged[i], j->diag);
    kiln_model_destroy(model);
    KILN_TRY(status);
    kiln_diag_truncate(j->diag, said);
    const kiln_gauged *g = &j->gauged[i];
    t->samples = g->samples;
    t->sqnr_db = g->sqnr_db;
    t->cosine = g->cosine;
    t->agreement = g->agreement;
    t->top1 = g->top1;
    t->float_top1 = kiln_gauge_float(j->gauge)->top1;
    return KILN_OK;
}

/* The least noise among those that lose no more right answers than chance explains. */
static size_t choose(const job *j) {
    size_t top = 0, best = MAX_TRIALS;
    for (size_t i = 1; i < j->n; i++) {
        top = j->trials[i].top1 > j->trials[top].top1 ? i : top;
    }
    for (size_t i = 0; i < j->n; i++) {
        bool good = !kiln_gauge_worse(&j->gauged[top], &j->gauged[i]);
        if (good && (best == MAX_TRIALS || j->gauged[i].noise < j->gauged[best].noise)) {
            best = i;
        }
    }
    return best;
}

static kiln_status try_all(job *j, kiln_model **out) {
    KILN_TRY(plan(j));
    KILN_TRY(open_gauge(j));
    for (size_t i = 0; i < j->n; i++) {
        KILN_TRY(try_one(j, i));
    }
    size_t best = choose(j);
    j->trials[best].chosen = true;
    return quantize(j, &j->trials[best], out);
}

static kiln_status read_options(job *j, const kiln_quantize_options *options,
                                const kiln_trial_options *how) {
    if (!j->model || !j->calibration || !how ||
        kiln_options_read(&j->options, sizeof j->options, options) != KILN_OK ||
        kiln_options_read(&j->how, sizeof j->how, how) != KILN_OK || !j->how.data) {
        return kiln_fail(j->diag, KILN_F_OPTION,
                         "there is no model, calibration or data, or options have no size or "
                         "unknown fields");
    }
    return j->how.data->data ? KILN_OK
                             : kiln_fail(j->diag, KILN_F_OPTION,
                                         "trying calibrators reads the data again, which a "
                                         "function's cannot be");
}

kiln_status kiln_quantize_best(kiln_model **out, const kiln_model *model,
                               const kiln_calibration *calibration,
                               const kiln_quantize_options *options, const kiln_trial_options *how,
                               kiln_trial *trials, size_t cap, size_t *n, kiln_diag *diag) {
    job j = {.model = model, .calibration = calibration, .diag = diag};
    kiln_diag_enter(diag, "choosing a calibrator");
    kiln_status status = read_options(&j, options, how);
    status = status == KILN_OK ? try_all(&j, out) : status;
    kiln_gauge_close(j.gauge);
    kiln_diag_leave(diag);
    for (size_t i = 0; i < j.n && i < cap && trials; i++) {
        trials[i] = j.trials[i];
    }
    if (n) {
        *n = j.n;
    }
    return kiln_diag_close(diag, status);
}
