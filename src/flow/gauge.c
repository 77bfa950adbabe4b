#include "flow/gauge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/timer.h"
#include "data/metrics.h"
#include "data/values.h"
#include "ops/util.h"

/* One run of the float network. */
typedef struct batch {
    kiln_fed fed;         /* labels copied; NULL without */
    kiln_tensor *inputs;  /* as bound, or NULL: to be read again */
    kiln_tensor *outputs; /* per output; no data where it is not compared */
} batch;

struct kiln_gauge {
    const kiln_env *env;
    kiln_gauge_spec spec;
    kiln_build_options build;
    kiln_arena arena;
    kiln_pool *pool; /* NULL: one thread */
    kiln_feed *feed;
    kiln_engine *engine; /* of the float network */
    kiln_context *context;
    size_t n_in, n_out;
    batch *batches;
    size_t n_batches, cap_batches;
    int64_t samples, seen; /* chosen, read */
    bool held;             /* inputs are kept */
    bool labelled;
    double from, to; /* of progress */
    kiln_gauged exact;
};

/* ---- Samples ---- */

/* Of every `seen` samples read, an even share is taken. */
static bool takes(const kiln_gauge *g, const kiln_fed *fed) {
    int64_t total = kiln_feed_count(g->feed), want = g->spec.samples;
    if (want <= 0) {
        return true;
    }
    return total <= want ? g->samples < want
                         : (double)g->samples * (double)total <
                                   (double)(g->seen + fed->count) * (double)want &&
                               g->samples < want;
}

static kiln_status copy_tensor(kiln_gauge *g, kiln_tensor *out, const kiln_tensor *from) {
    size_t bytes = kiln_tensor_bytes(from);
    *out = *from;
    out->cap_bytes = bytes;
    out->data = kiln_arena_raw(&g->arena, bytes ? bytes : 1);
    if (!out->data) {
        return KILN_E_MEMORY;
    }
    if (bytes > 0) {
        memcpy(out->data, from->data, bytes);
    }
    return KILN_OK;
}

static kiln_status copy_labels(kiln_gauge *g, kiln_fed *fed) {
    kiln_labels *own;
    if (!fed->labels || !kiln_feed_has_labels(g->feed)) {
        fed->labels = NULL;
        return KILN_OK;
    }
    KILN_ALLOC(own, &g->arena, fed->count);
    for (int64_t i = 0; i < fed->count; i++) {
        const kiln_labels *l = &fed->labels[i];
        own[i].count = l->count;
        own[i].values =
            kiln_arena_copy(&g->arena, l->values, (size_t)l->count * sizeof l->values[0]);
        if (l->count > 0 && !own[i].values) {
            return KILN_E_MEMORY;
        }
    }
    fed->labels = own;
    return KILN_OK;
}

static kiln_status copy_inputs(kiln_gauge *g, batch *b) {
    KILN_ALLOC(b->inputs, &g->arena, g->n_in + 1);
    for (size_t i = 0; i < g->n_in; i++) {
        KILN_TRY(copy_tensor(g, &b->inputs[i], kiln_feed_input(g->feed, i)));
    }
    return KILN_OK;
}

/* The rows that stand for samples; a batch filled up repeats its last. */
static kiln_tensor real_rows(const kiln_tensor *t, const kiln_fed *fed) {
    kiln_tensor part = *t;
    if (part.rank > 0 && part.dims[0] == fed->rows) {
        part.dims[0] = fed->count;
    }
    return part;
}

static kiln_status copy_outputs(kiln_gauge *g, batch *b) {
    kiln_io io;
    KILN_ALLOC(b->outputs, &g->arena, g->n_out + 1);
    for (size_t i = 0; kiln_engine_output(g->engine, i, &io); i++) {
        const kiln_tensor *t = kiln_context_output(g->context, i);
        if (t && t->data && !io.is_sequence && kiln_values_per_element(t->dtype) == 1) {
            kiln_tensor part = real_rows(t, &b->fed);
            KILN_TRY(copy_tensor(g, &b->outputs[i], &part));
        }
    }
    return KILN_OK;
}

/* ---- Scores ---- */

/* Sums of one network over the batches. */
typedef struct score {
    kiln_compare *versus; /* per output */
    kiln_classify classify;
    bool classifies, broken; /* an output has another shape than the float network's */
    uint8_t *right;
    int64_t done;
    double *times_ms;
} score;

/* Elements of the first output for each sample; 0 when they are no scores of classes. */
static int64_t score_width(const batch *b) {
    const kiln_tensor *y = &b->outputs[0];
    int64_t count = y->data ? kiln_tensor_count(y) : 0;
    bool fits = b->fed.count > 0 && count % b->fed.count == 0 && count / b->fed.count > 1;
    return fits ? count / b->fed.count : 0;
}

static kiln_status score_begin(kiln_gauge *g, score *s) {
    int64_t width = g->n_out > 0 && g->n_batches > 0 ? score_width(&g->batches[0]) : 0;
    *s = (score){0};
    KILN_ALLOC(s->versus, &g->arena, g->n_out + 1);
    KILN_ALLOC(s->times_ms, &g->arena, g->n_batches + 1);
    s->versus[0].row = width;
    s->classifies = g->labelled && width > 1;
    if (s->classifies) {
        KILN_ALLOC(s->right, &g->arena, g->samples);
        KILN_TRY(kiln_classify_init(&s->classify, width, &g->arena, NULL));
    }
    return KILN_OK;
}

/* Labels that are no classes of the first output say that nothing is classified. */
static void score_labels(score *s, const kiln_tensor *y, const batch *b) {
    kiln_tensor flat = *y;
    flat.rank = 2;
    flat.dims[0] = b->fed.count;
    flat.dims[1] = score_width(b);
    for (int64_t i = 0; s->classifies && i < b->fed.count; i++) {
        const kiln_labels *l = &b->fed.labels[i];
        int64_t before = s->classify.top1_hits;
        s->classifies =
            l->count > 0 && flat.dims[1] == s->classify.classes &&
            kiln_classify_add(&s->classify, &flat, i, l->values, l->count, NULL) == KILN_OK;
        s->right[s->done + i] = s->classify.top1_hits > before;
    }
}

static bool same_dims(const kiln_tensor *a, const kiln_tensor *b) {
    return a->rank == b->rank &&
           (a->rank == 0 || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0);
}

static kiln_status score_batch(kiln_gauge *g, score *s, const batch *b, kiln_context *context,
                               kiln_diag *diag) {
    for (size_t i = 0; i < g->n_out; i++) {
        const kiln_tensor *want = &b->outputs[i], *have = kiln_context_output(context, i);
        if (!want->data) {
            continue;
        }
        kiln_tensor part = have ? real_rows(have, &b->fed) : *want;
        if (!have || !same_dims(want, &part)) {
            s->broken = true;
            continue;
        }
        KILN_TRY(kiln_compare_add(&s->versus[i], want, &part, diag));
        if (i == 0 && s->classifies) {
            score_labels(s, &part, b);
        }
    }
    s->done += b->fed.count;
    return KILN_OK;
}

static void score_end(const kiln_gauge *g, score *s, kiln_gauged *out) {
    kiln_stats times;
    size_t compared = 0;
    *out = (kiln_gauged){.samples = s->done, .cosine = 1, .agreement = NAN, .top1 = NAN};
    for (size_t i = 0; i < g->n_out; i++) {
        kiln_compare_report r;
        if (s->versus[i].count == 0) {
            continue;
        }
        kiln_compare_finish(&s->versus[i], &r);
        double signal = s->versus[i].expected_sq, error = s->versus[i].error_sq;
        out->noise += r.nonfinite_mismatch > 0 ? INFINITY
                      : error > 0              ? error / (signal > 0 ? signal : error)
                                               : 0;
        out->cosine = r.cosine < out->cosine ? r.cosine : out->cosine;
        compared++;
    }
    out->noise = s->broken ? INFINITY : compared > 0 ? out->noise / (double)compared : 0;
    out->sqnr_db = -10 * log10(out->noise);
    if (s->versus[0].row > 1 && s->versus[0].rows > 0) {
        out->agreement = (double)s->versus[0].rows_agree / (double)s->versus[0].rows;
    }
    if (s->classifies && s->classify.samples > 0) {
        out->top1 = (double)s->classify.top1_hits / (double)s->classify.samples;
        out->right = s->right;
    }
    kiln_stats_of(&times, s->times_ms, g->n_batches);
    out->median_ms = times.median_ms;
}

/* ---- Runs ---- */

static kiln_status tell(const kiln_gauge *g, double share) {
    const kiln_progress *p = g->spec.progress;
    double at = share < 0 ? -1 : g->from + share * (g->to - g->from);
    return !p || p->step(p->user, at) ? KILN_OK : KILN_E_CANCELLED;
}

static kiln_status bind(kiln_gauge *g, const batch *b, kiln_context *context, kiln_diag *diag) {
    kiln_io io;
    if (!b->inputs) {
        return kiln_feed_bind(g->feed, context, diag);
    }
    for (size_t i = 0; kiln_engine_input(g->engine, i, &io); i++) {
        KILN_TRY(kiln_context_bind(context, io.name, &b->inputs[i], diag));
    }
    return KILN_OK;
}

/* Reads on to the next batch that was taken. */
static kiln_status read_on(kiln_gauge *g, int64_t *done, kiln_diag *diag) {
    for (;;) {
        kiln_fed fed;
        KILN_TRY(kiln_feed_next(g->feed, &fed, diag));
        g->samples = *done;
        bool taken = takes(g, &fed);
        g->seen += fed.count;
        if (fed.count == 0 || taken) {
            *done += fed.count;
            return KILN_OK;
        }
    }
}

static kiln_status run_all(kiln_gauge *g, kiln_context *context, score *s, kiln_diag *diag) {
    int64_t done = 0;
    if (!g->held) {
        kiln_feed_rewind(g->feed);
        g->seen = 0;
    }
    for (size_t k = 0; k < g->n_batches; k++) {
        const batch *b = &g->batches[k];
        if (!g->held) {
            KILN_TRY(read_on(g, &done, diag));
        }
        KILN_TRY(bind(g, b, context, diag));
        int64_t start_ns = kiln_now_ns();
        KILN_TRY(kiln_context_run(context, diag));
        s->times_ms[k] = 1e-6 * (double)(kiln_now_ns() - start_ns);
        KILN_TRY(score_batch(g, s, b, context, diag));
        KILN_TRY(tell(g, (double)(k + 1) / (double)g->n_batches));
    }
    return KILN_OK;
}

kiln_status kiln_gauge_run(kiln_gauge *gauge, kiln_context *context, kiln_gauged *out,
                           kiln_diag *diag) {
    score s;
    int64_t samples = gauge->samples;
    KILN_TRY(score_begin(gauge, &s));
    kiln_status status = run_all(gauge, context, &s, diag);
    gauge->samples = samples;
    if (status == KILN_OK) {
        score_end(gauge, &s, out);
    }
    return status;
}

kiln_status kiln_gauge_build(const kiln_gauge *gauge, const kiln_model *model, kiln_engine **engine,
                             kiln_context **context, kiln_diag *diag) {
    kiln_context_options o = {
        .size = sizeof o, .pool = gauge->pool, .threads = gauge->pool ? 0 : 1};
    KILN_TRY(kiln_engine_build(engine, model, &gauge->build, diag));
    kiln_status status = kiln_context_create(context, *engine, &o, diag);
    if (status != KILN_OK) {
        kiln_engine_destroy(*engine);
        *engine = NULL;
    }
    return status;
}

kiln_status kiln_gauge_model(kiln_gauge *gauge, const kiln_model *model, kiln_gauged *out,
                             kiln_diag *diag) {
    kiln_engine *engine = NULL;
    kiln_context *context = NULL;
    KILN_TRY(kiln_gauge_build(gauge, model, &engine, &context, diag));
    kiln_status status = kiln_gauge_run(gauge, context, out, diag);
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    return status;
}

/* ---- The float network ---- */

static void count_ios(kiln_gauge *g) {
    kiln_io io;
    while (kiln_engine_input(g->engine, g->n_in, &io)) {
        g->n_in++;
    }
    while (kiln_engine_output(g->engine, g->n_out, &io)) {
        g->n_out++;
    }
}

/* Whether the inputs of all batches can be kept, judged by the first. */
static bool can_hold(const kiln_gauge *g, const kiln_fed *fed) {
    int64_t total = kiln_feed_count(g->feed), want = g->spec.samples;
    size_t one = 0;
    if (total < 0) {
        return true;
    }
    for (size_t i = 0; i < g->n_in; i++) {
        one += kiln_tensor_bytes(kiln_feed_input(g->feed, i));
    }
    total = want > 0 && want < total ? want : total;
    return (double)one / (double)fed->count * (double)total <= (double)KILN_GAUGE_BYTES;
}

static kiln_status take_batch(kiln_gauge *g, const kiln_fed *fed, kiln_diag *diag) {
    batch b = {.fed = *fed};
    if (g->n_batches == 0) {
        g->held = can_hold(g, fed);
        g->labelled = kiln_feed_has_labels(g->feed) && fed->labels;
    }
    KILN_TRY(copy_labels(g, &b.fed));
    if (g->held) {
        KILN_TRY(copy_inputs(g, &b));
    }
    KILN_TRY(kiln_feed_bind(g->feed, g->context, diag));
    KILN_TRY(kiln_context_run(g->context, diag));
    KILN_TRY(copy_outputs(g, &b));
    KILN_PUSH(&g->arena, g->batches, g->n_batches, g->cap_batches, b);
    g->samples += fed->count;
    return KILN_OK;
}

static kiln_status run_float(kiln_gauge *g, kiln_diag *diag) {
    int64_t total = kiln_feed_count(g->feed);
    for (;;) {
        kiln_fed fed;
        KILN_TRY(kiln_feed_next(g->feed, &fed, diag));
        if (fed.count == 0) {
            break;
        }
        if (takes(g, &fed)) {
            KILN_TRY(take_batch(g, &fed, diag));
        }
        g->seen += fed.count;
        KILN_TRY(tell(g, total > 0 ? (double)g->seen / (double)total : -1));
    }
    return g->n_batches > 0
               ? KILN_OK
               : kiln_fail(diag, KILN_F_DATA_MISSING, "the data has no sample to compare with");
}

/* Its own scores, from what was kept. */
static kiln_status score_float(kiln_gauge *g) {
    score s;
    KILN_TRY(score_begin(g, &s));
    for (size_t k = 0; k < g->n_batches; k++) {
        if (s.classifies) {
            score_labels(&s, &g->batches[k].outputs[0], &g->batches[k]);
        }
        s.done += g->batches[k].fed.count;
    }
    score_end(g, &s, &g->exact);
    g->exact.agreement = s.versus[0].row > 1 ? 1 : NAN;
    return KILN_OK;
}

static kiln_status open_all(kiln_gauge *g, const kiln_model *model, kiln_diag *diag) {
    if (g->spec.threads != 1) {
        kiln_pool_options p = {.size = sizeof p, .threads = g->spec.threads};
        KILN_TRY(kiln_pool_create(&g->pool, g->env, &p));
    }
    KILN_TRY(kiln_gauge_build(g, model, &g->engine, &g->context, diag));
    count_ios(g);
    KILN_TRY(kiln_feed_open(&g->feed, g->engine, &g->spec.feed, g->env, diag));
    KILN_TRY(run_float(g, diag));
    return score_float(g);
}

kiln_status kiln_gauge_open(kiln_gauge **out, const kiln_model *model, const kiln_gauge_spec *spec,
                            const kiln_env *env, kiln_diag *diag) {
    kiln_gauge *g = kiln_env_alloc(env, sizeof *g);
    if (!g) {
        return KILN_E_MEMORY;
    }
    memset(g, 0, sizeof *g);
    g->env = env;
    g->spec = *spec;
    g->build = spec->build ? *spec->build : (kiln_build_options){.size = sizeof g->build};
    g->build.portable = false;
    g->to = 1;
    kiln_arena_init(&g->arena, env);
    kiln_status status = open_all(g, model, diag);
    if (status != KILN_OK) {
        kiln_gauge_close(g);
        return status;
    }
    *out = g;
    return KILN_OK;
}

void kiln_gauge_close(kiln_gauge *gauge) {
    if (!gauge) {
        return;
    }
    kiln_feed_close(gauge->feed);
    kiln_context_destroy(gauge->context);
    kiln_engine_destroy(gauge->engine);
    kiln_pool_destroy(gauge->pool);
    kiln_arena_free(&gauge->arena);
    kiln_env_release(gauge->env, gauge, sizeof *gauge);
}

const kiln_gauged *kiln_gauge_float(const kiln_gauge *gauge) {
    return &gauge->exact;
}

const kiln_engine *kiln_gauge_engine(const kiln_gauge *gauge) {
    return gauge->engine;
}

kiln_context *kiln_gauge_context(const kiln_gauge *gauge) {
    return gauge->context;
}

bool kiln_gauge_bind(kiln_gauge *gauge, size_t k, kiln_context *context, kiln_diag *diag) {
    return k < gauge->n_batches && gauge->held &&
           bind(gauge, &gauge->batches[k], context, diag) == KILN_OK;
}

const kiln_tensor *kiln_gauge_input(const kiln_gauge *gauge, size_t k, const char *name) {
    kiln_io io;
    bool has = k < gauge->n_batches && gauge->held;
    for (size_t i = 0; has && kiln_engine_input(gauge->engine, i, &io); i++) {
        if (strcmp(io.name, name) == 0) {
            return &gauge->batches[k].inputs[i];
        }
    }
    return NULL;
}

kiln_hash128 kiln_gauge_hash(const kiln_gauge *gauge) {
    kiln_hash128 parts[2] = {{0}};
    for (size_t k = 0; k < gauge->n_batches; k++) {
        for (size_t i = 0; i < gauge->n_out; i++) {
            const kiln_tensor *t = &gauge->batches[k].outputs[i];
            if (t->data) {
                parts[1] = kiln_hash_128(t->data, kiln_tensor_bytes(t));
                parts[0] = kiln_hash_128(parts, sizeof parts);
            }
        }
    }
    return parts[0];
}

void kiln_gauge_span(kiln_gauge *gauge, double from, double to) {
    gauge->from = from;
    gauge->to = to;
}

int64_t kiln_gauge_share(const kiln_model *model, int64_t cost_macs, int64_t least, int64_t most) {
    kiln_model_info info;
    kiln_model_get_info(model, &info);
    int64_t n = info.macs > 0 ? cost_macs / info.macs : most;
    return n < least ? least : n > most ? most : n;
}

bool kiln_gauge_worse(const kiln_gauged *a, const kiln_gauged *b) {
    int64_t only_a = 0, only_b = 0;
    for (int64_t i = 0; a->right && b->right && i < a->samples && i < b->samples; i++) {
        only_a += a->right[i] && !b->right[i];
        only_b += b->right[i] && !a->right[i];
    }
    return (double)(only_a - only_b) > 2 * sqrt((double)(only_a + only_b));
}
