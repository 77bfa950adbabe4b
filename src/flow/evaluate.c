/* evaluate.c - a labelled data set through a network: read, fit to the input, run, score. */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "base/options.h"
#include "base/timer.h"
#include "data/dataset.h"
#include "data/metrics.h"
#include "data/values.h"
#include "flow/flow.h"
#include "ops/util.h"

/* Where the samples of one input come from. */
typedef struct feed {
    kiln_io io;
    int32_t array; /* of the set */
} feed;

typedef struct job {
    const kiln_engine *engine;
    kiln_context *context;
    kiln_evaluate_options o;
    kiln_dataset *set;
    kiln_io in; /* takes the samples of a set without names */
    feed *feeds;
    size_t n_feeds, cap_feeds;
    kiln_io out;
    size_t out_index;
    int64_t batch;    /* samples a run */
    bool fixed_batch; /* shorter batches are filled up */
    kiln_arena arena; /* of the classifier and the times */
    kiln_arena scratch;
    kiln_classify score;
    bool scoring; /* score is initialized */
    double *times;
    size_t n_times, cap_times;
    kiln_evaluate_result *result;
    kiln_diag *diag;
} job;

static kiln_status choose_io(job *j) {
    bool found = false;
    kiln_io io;
    for (size_t i = 0; kiln_engine_input(j->engine, i, &io); i++) {
        if (j->o.input ? strcmp(io.name, j->o.input) == 0 : i == 0) {
            j->in = io;
            found = true;
        }
    }
    if (!found) {
        return kiln_fail(j->diag, KILN_F_RUN_INPUT, "there is no input \"%s\"",
                         j->o.input ? j->o.input : "");
    }
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

/* The kind by its name; raw samples have the input's type and dims. */
static kiln_status choose_kind(const job *j, kiln_dataset_spec *spec) {
    const char *kind = j->o.kind ? j->o.kind : kiln_dataset_kind_name(KILN_DATASET_AUTO);
    while (spec->kind < KILN_DATASET_KINDS &&
           strcmp(kind, kiln_dataset_kind_name(spec->kind)) != 0) {
        spec->kind++;
    }
    if (spec->kind == KILN_DATASET_KINDS) {
        return kiln_fail(j->diag, KILN_F_OPTION, "no kind of data set is called \"%s\"", kind);
    }
    if (spec->kind != KILN_DATASET_RAW) {
        return KILN_OK;
    }
    spec->dtype = j->in.dtype;
    spec->rank = j->in.rank - 1;
    for (int32_t d = 1; d < j->in.rank; d++) {
        spec->dims[d - 1] = j->in.dims[d];
        if (j->in.dims[d] < 0) {
            spec->rank = -1;
        }
    }
    if (spec->rank < 1) {
        return kiln_hint(j->diag,
                         kiln_fail(j->diag, KILN_F_DATA_MISSING,
                                   "raw samples have the dims of input \"%s\", which are not known",
                                   j->in.name),
                         "--override-shape %s:... gives them", j->in.name);
    }
    return KILN_OK;
}

static kiln_status open_set(job *j) {
    kiln_dataset_spec spec = {.path = j->o.data,
                              .labels = j->o.labels,
                              .input = j->in.name,
                              .count = j->o.count,
                              .shuffle = j->o.shuffle,
                              .seed = j->o.seed};
    if (!j->o.data) {
        return kiln_fail(j->diag, KILN_F_OPTION, "no data set is given");
    }
    if (j->o.preprocess) {
        KILN_TRY(kiln_preprocess_parse(&spec.preprocess, j->o.preprocess, j->diag));
    }
    KILN_TRY(choose_kind(j, &spec));
    KILN_TRY(kiln_dataset_open(&j->set, &spec, j->arena.env, j->diag));
    if (!kiln_dataset_has_labels(j->set)) {
        return kiln_hint(j->diag,
                         kiln_fail(j->diag, KILN_F_DATA_MISSING, "%s has no labels", j->o.data),
                         "--labels names a file, or an array of an .npz");
    }
    return KILN_OK;
}

/* ---- Arrays to inputs ---- */

/* The names of the set's arrays, for messages. */
static const char *array_names(job *j) {
    const char *text = NULL;
    for (int32_t k = 0; k < kiln_dataset_inputs(j->set); k++) {
        const char *name = kiln_dataset_input(j->set, k);
        text = text ? kiln_arena_printf(&j->arena, "%s, %s", text, name) : name;
        if (!text) {
            return "";
        }
    }
    return text ? text : "";
}

/* By name; the input chosen takes the only array whatever it is called. */
static kiln_status add_feed(job *j, const kiln_io *io) {
    int32_t n = kiln_dataset_inputs(j->set), array = 0;
    while (array < n && strcmp(kiln_dataset_input(j->set, array), io->name) != 0) {
        array++;
    }
    if (array == n && n == 1 && strcmp(io->name, j->in.name) == 0) {
        array = 0;
    }
    if (io->is_sequence) {
        return kiln_fail(j->diag, KILN_F_RUN_INPUT,
                         "input \"%s\" is a sequence, which no data set fills", io->name);
    }
    if (array == n) {
        return kiln_hint(j->diag,
                         kiln_fail(j->diag, KILN_F_DATA_MISSING,
                                   "the data set has no array for input \"%s\"", io->name),
                         "it has %s", array_names(j));
    }
    feed f = {*io, array};
    KILN_PUSH(&j->arena, j->feeds, j->n_feeds, j->cap_feeds, f);
    return KILN_OK;
}

static kiln_status choose_feeds(job *j) {
    kiln_io io;
    for (size_t i = 0; kiln_engine_input(j->engine, i, &io); i++) {
        KILN_TRY(add_feed(j, &io));
    }
    if ((int32_t)j->n_feeds < kiln_dataset_inputs(j->set)) {
        kiln_warn(j->diag, KILN_F_DATA_MISSING, "%d arrays of the data set are no input's",
                  kiln_dataset_inputs(j->set) - (int32_t)j->n_feeds);
    }
    return KILN_OK;
}

/* A fixed first dim of any input decides. */
static kiln_status choose_batch(job *j) {
    int64_t fixed = -1;
    for (size_t i = 0; i < j->n_feeds; i++) {
        const kiln_io *io = &j->feeds[i].io;
        int64_t first = io->rank > 0 ? io->dims[0] : -1;
        if (fixed > 0 && first > 0 && first != fixed) {
            return kiln_fail(j->diag, KILN_F_DATA_MISSING,
                             "the first dims of the inputs are %lld and %lld, so that they count "
                             "no samples",
                             (long long)fixed, (long long)first);
        }
        fixed = first > 0 ? first : fixed;
    }
    j->fixed_batch = fixed > 0;
    j->batch = fixed > 0 ? fixed : j->o.batch > 0 ? j->o.batch : 1;
    if (fixed > 0 && j->o.batch > 0 && j->o.batch != fixed) {
        return kiln_hint(j->diag,
                         kiln_fail(j->diag, KILN_F_OPTION, "the network's batch is %lld, not %lld",
                                   (long long)fixed, (long long)j->o.batch),
                         "--override-shape changes the shape of a model");
    }
    return KILN_OK;
}

/* ---- One batch ---- */

/* Gives the batch the input's rank where only dims of 1 are missing or too many: [n,8,8] for
 * [N,1,8,8]. */
static kiln_status fit_dims(const job *j, const kiln_io *in, kiln_tensor *t) {
    if (in->rank < 1 || in->rank == t->rank) {
        return KILN_OK;
    }
    int64_t dims[KILN_MAX_RANK];
    int32_t from = 1;
    dims[0] = t->dims[0];
    for (int32_t d = 1; d < in->rank; d++) {
        bool same = from < t->rank && (in->dims[d] < 0 || t->dims[from] == in->dims[d]);
        dims[d] = same ? t->dims[from] : 1;
        from += same;
    }
    kiln_tensor fitted = *t;
    fitted.rank = in->rank;
    memcpy(fitted.dims, dims, (size_t)in->rank * sizeof dims[0]);
    if (kiln_tensor_count(&fitted) != kiln_tensor_count(t)) {
        return kiln_fail(j->diag, KILN_F_DATA_MISSING,
                         "samples of rank %d do not fit input \"%s\" of rank %d", t->rank - 1,
                         in->name, in->rank);
    }
    *t = fitted;
    return KILN_OK;
}

/* A short last batch repeats its last sample up to the network's fixed batch. */
static kiln_status fill_up(job *j, kiln_tensor *t) {
    if (!j->fixed_batch || t->dims[0] == j->batch) {
        return KILN_OK;
    }
    size_t have = kiln_tensor_bytes(t), one = have / (size_t)t->dims[0];
    kiln_tensor full = *t;
    full.dims[0] = j->batch;
    full.cap_bytes = kiln_tensor_bytes(&full);
    full.data = full.cap_bytes == SIZE_MAX ? NULL : kiln_arena_raw(&j->scratch, full.cap_bytes);
    if (!full.data) {
        return KILN_E_MEMORY;
    }
    memcpy(full.data, t->data, have);
    for (size_t at = have; at < full.cap_bytes; at += one) {
        memcpy((char *)full.data + at, (const char *)t->data + have - one, one);
    }
    *t = full;
    return KILN_OK;
}

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
        classes = kiln_dataset_classes(j->set) > 0 ? kiln_dataset_classes(j->set)
                                                   : KILN_CLASSIFY_MAX_CONFUSION;
    }
    j->scoring = true;
    j->result->classes = classes;
    return kiln_classify_init(&j->score, classes, &j->arena, j->diag);
}

static kiln_status score_batch(job *j, const kiln_tensor *y, const kiln_batch *b, int64_t rows) {
    if (!j->scoring) {
        KILN_TRY(begin_scoring(j, y, rows));
    }
    kiln_tensor flat = *y;
    flat.rank = 2;
    flat.dims[0] = rows;
    flat.dims[1] = kiln_tensor_count(y) / (rows ? rows : 1);
    for (int64_t i = 0; i < b->count; i++) {
        const kiln_labels *l = &b->labels[i];
        if (j->result->has_scores) {
            KILN_TRY(kiln_classify_add(&j->score, &flat, i, l->values, l->count, j->diag));
        } else {
            KILN_TRY(kiln_classify_add_class(&j->score, kiln_get_i64(y->dtype, y->data, i),
                                             l->values, l->count, j->diag));
        }
    }
    return KILN_OK;
}

static kiln_status run_batch(job *j, const kiln_batch *b) {
    for (size_t i = 0; i < j->n_feeds; i++) {
        const feed *f = &j->feeds[i];
        kiln_tensor x;
        KILN_TRY(kiln_tensor_cast(&x, &b->inputs[f->array], f->io.dtype, &j->scratch, j->diag));
        KILN_TRY(fit_dims(j, &f->io, &x));
        KILN_TRY(fill_up(j, &x));
        KILN_TRY(kiln_context_bind(j->context, f->io.name, &x, j->diag));
    }
    int64_t start_ns = kiln_now_ns();
    KILN_TRY(kiln_context_run(j->context, j->diag));
    double took_ms = 1e-6 * (double)(kiln_now_ns() - start_ns);
    KILN_PUSH(&j->arena, j->times, j->n_times, j->cap_times, took_ms);
    const kiln_tensor *y = kiln_context_output(j->context, j->out_index);
    if (!y) {
        return kiln_fail(j->diag, KILN_F_DATA_MISSING, "output \"%s\" is empty", j->out.name);
    }
    return score_batch(j, y, b, j->fixed_batch ? j->batch : b->count);
}

static kiln_status run_all(job *j) {
    int64_t total = kiln_dataset_count(j->set), done = 0;
    for (;;) {
        kiln_batch b;
        KILN_TRY(kiln_dataset_next(j->set, j->batch, &b, j->diag));
        if (b.count == 0) {
            return KILN_OK;
        }
        KILN_TRY(run_batch(j, &b));
        kiln_arena_recycle(&j->scratch);
        done += b.count;
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
    }
    r->samples = report.samples;
    r->top1 = report.top1;
    r->top5 = r->has_scores ? report.top5 : NAN;
    r->loss = r->has_scores ? report.loss : NAN;
    r->macro_f1 = report.macro_f1;
    r->weighted_f1 = report.weighted_f1;
    r->nan_samples = report.nan_rows;
    r->batch = j->batch;
    r->walltime_ms = 1e-6 * (double)(kiln_now_ns() - started_ns);
    kiln_stats_of(&r->latency, j->times, j->n_times);
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
    kiln_arena_init(&j.scratch, env);
    kiln_status status = choose_io(&j);
    status = status == KILN_OK ? open_set(&j) : status;
    status = status == KILN_OK ? choose_feeds(&j) : status;
    status = status == KILN_OK ? choose_batch(&j) : status;
    status = status == KILN_OK ? run_all(&j) : status;
    if (status == KILN_OK || status == KILN_E_CANCELLED) {
        result.cancelled = status == KILN_E_CANCELLED;
        summarize(&j, started_ns);
        *out = result;
    }
    if (j.set) {
        kiln_dataset_close(j.set);
    }
    kiln_arena_free(&j.scratch);
    kiln_arena_free(&j.arena);
    return kiln_diag_close(diag, status);
}
