/* bench.c - timing runs of a context, or of several at once. The clock is read twice a run and
 * nothing else happens between two runs but storing the sample; progress is told every 50 ms. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/env.h"
#include "base/options.h"
#include "base/timer.h"
#include "flow/flow.h"

enum { MAX_WARNINGS = 8, FEW_RUNS = 10 };
static const int64_t progress_every_ns = 50 * 1000000;
static const double shaky_percent = 2.5, busy_share = 0.1;

typedef struct sample {
    int64_t start_ns, compute_ns;
    size_t stream;
} sample;

struct kiln_bench {
    const kiln_env *env;
    kiln_arena arena;
    sample *samples;
    size_t count;
    double *sorted; /* compute times in ms */
    kiln_bench_result result;
    const char *warnings[MAX_WARNINGS];
    size_t n_warnings;
};

typedef struct job job;

/* One context that runs over and over. */
typedef struct stream {
    job *job;
    size_t number; /* 0: the caller's thread, which tells progress and ends the others */
    kiln_context *context;
    kiln_arena arena;
    sample *samples;
    size_t count, cap, warm_up_runs;
    kiln_diag *diag;
    kiln_status status;
    pthread_t thread;
} stream;

/* What one call of kiln_bench_run keeps. */
struct job {
    kiln_bench *b;
    const kiln_bench_options *o;
    kiln_diag *diag;
    stream *streams;
    size_t n_streams;
    pthread_mutex_t lock; /* of the next three */
    pthread_cond_t opened;
    size_t n_warm, n_expected; /* streams that have warmed up; that will */
    int64_t begin_ns;          /* of measuring; 0: some are still warming up */
    atomic_bool ended;
    int64_t told_ns;
};

static double ms(int64_t ns) {
    return 1e-6 * (double)ns;
}

/* ---- Statistics ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The sample of rank ceil(p/100 n); the tiny shift keeps a rank that is whole from being rounded
 * up. */
static double percentile(const double *sorted, size_t n, double p) {
    double rank = ceil(p / 100 * (double)n - 1e-9);
    size_t i = rank < 1 ? 0 : (size_t)rank - 1;
    return n == 0 ? 0 : sorted[i < n ? i : n - 1];
}

void kiln_stats_of(kiln_stats *out, double *times_ms, size_t n) {
    memset(out, 0, sizeof *out);
    out->count = n;
    if (n == 0) {
        return;
    }
    qsort(times_ms, n, sizeof *times_ms, by_value);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += times_ms[i];
    }
    out->mean_ms = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        squares += (times_ms[i] - out->mean_ms) * (times_ms[i] - out->mean_ms);
    }
    out->stddev_ms = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
    out->min_ms = times_ms[0];
    out->max_ms = times_ms[n - 1];
    out->median_ms = n % 2 ? times_ms[n / 2] : 0.5 * (times_ms[n / 2 - 1] + times_ms[n / 2]);
    out->p90_ms = percentile(times_ms, n, 90);
    out->p95_ms = percentile(times_ms, n, 95);
    out->p99_ms = percentile(times_ms, n, 99);
}

/* ---- Measuring ---- */

static void pause_ms(double t_ms) {
    struct timespec left = {(time_t)(t_ms / 1e3), (long)(fmod(t_ms, 1e3) * 1e6)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static kiln_status tell(stream *s, int64_t now_ns, double share) {
    job *j = s->job;
    const kiln_progress *p = j->o->progress;
    if (!p || s->number > 0 || now_ns - j->told_ns < progress_every_ns) {
        return KILN_OK;
    }
    j->told_ns = now_ns;
    return p->step(p->user, share) ? KILN_OK : KILN_E_CANCELLED;
}

static kiln_status warm_up(stream *s) {
    const double until_ms = s->job->o->warm_up_ms;
    int64_t start_ns = kiln_now_ns(), now_ns = start_ns;
    while (until_ms > 0 && ms(now_ns - start_ns) < until_ms && !atomic_load(&s->job->ended)) {
        KILN_TRY(kiln_context_run(s->context, s->diag));
        s->warm_up_runs++;
        now_ns = kiln_now_ns();
        KILN_TRY(tell(s, now_ns, -1));
    }
    return KILN_OK;
}

/* The first stream has run long and often enough, or another cannot go on. */
static bool is_over(const stream *s, int64_t now_ns) {
    const job *j = s->job;
    const bool over =
        ms(now_ns - j->begin_ns) >= 1e3 * j->o->duration_s && (int64_t)s->count >= j->o->iterations;
    return atomic_load_explicit(&j->ended, memory_order_relaxed) || (s->number == 0 && over);
}

static kiln_status measure(stream *s) {
    const job *j = s->job;
    const double duration_ms = 1e3 * j->o->duration_s;
    int64_t end_ns = j->begin_ns;
    while (!is_over(s, end_ns)) {
        if (j->o->idle_ms > 0 && s->count > 0) {
            pause_ms(j->o->idle_ms);
        }
        sample one = {.start_ns = kiln_now_ns(), .stream = s->number};
        KILN_TRY(kiln_context_run(s->context, s->diag));
        end_ns = kiln_now_ns();
        one.compute_ns = end_ns - one.start_ns;
        one.start_ns -= j->begin_ns;
        KILN_PUSH(&s->arena, s->samples, s->count, s->cap, one);
        double by_time = duration_ms > 0 ? ms(end_ns - j->begin_ns) / duration_ms : 1;
        double by_runs = (double)s->count / (double)j->o->iterations;
        KILN_TRY(tell(s, end_ns, by_time < by_runs ? by_time : by_runs));
    }
    return KILN_OK;
}

/* Waits until every stream has come here. */
static void meet(job *j) {
    pthread_mutex_lock(&j->lock);
    j->n_warm++;
    if (j->n_warm == j->n_expected) {
        j->begin_ns = kiln_now_ns();
        pthread_cond_broadcast(&j->opened);
    }
    while (j->begin_ns == 0) {
        pthread_cond_wait(&j->opened, &j->lock);
    }
    pthread_mutex_unlock(&j->lock);
}

/* Warms up, waits for the others, and measures. The first stream and one that fails end all. */
static void work(stream *s) {
    job *j = s->job;
    s->status = warm_up(s);
    if (s->status != KILN_OK) {
        atomic_store(&j->ended, true);
    }
    meet(j);
    s->status = s->status == KILN_OK ? measure(s) : s->status;
    if (s->number == 0 || s->status != KILN_OK) {
        atomic_store(&j->ended, true);
    }
}

static void *work_beside(void *user) {
    work(user);
    return NULL;
}

/* ---- Streams ---- */

static kiln_status open_streams(job *j, kiln_context *context) {
    KILN_ALLOC(j->streams, &j->b->arena, j->o->n_beside + 1);
    j->n_streams = j->o->n_beside + 1;
    for (size_t i = 0; i < j->n_streams; i++) {
        stream *s = &j->streams[i];
        *s = (stream){.job = j,
                      .number = i,
                      .context = i == 0 ? context : j->o->beside[i - 1],
                      .diag = i == 0 ? j->diag : NULL};
        kiln_arena_init(&s->arena, j->b->env);
    }
    for (size_t i = 0; i < j->n_streams; i++) {
        stream *s = &j->streams[i];
        KILN_TRY(i > 0 ? kiln_diag_create(&s->diag, j->b->env) : KILN_OK);
        KILN_TRY(kiln_context_prepare(s->context, j->diag));
    }
    return KILN_OK;
}

/* The first stream that did not end well; NULL: none. */
static const stream *find_failed(const job *j) {
    for (size_t i = 0; i < j->n_streams; i++) {
        if (j->streams[i].status != KILN_OK) {
            return &j->streams[i];
        }
    }
    return NULL;
}

static kiln_status take_failure(const job *j, const stream *s) {
    const kiln_finding *f = s->number > 0 ? kiln_diag_get(s->diag, 0) : NULL;
    if (f) {
        kiln_warn(j->diag, KILN_F_RUN_LIMIT, "stream %zu: %s", s->number, f->message);
    }
    return s->status;
}

static kiln_status run_streams(job *j) {
    size_t n = 1;
    j->n_expected = j->n_streams;
    while (n < j->n_streams &&
           pthread_create(&j->streams[n].thread, NULL, work_beside, &j->streams[n]) == 0) {
        n++;
    }
    if (n < j->n_streams) {
        pthread_mutex_lock(&j->lock);
        j->n_expected = n;
        pthread_mutex_unlock(&j->lock);
        atomic_store(&j->ended, true);
    }
    work(&j->streams[0]);
    for (size_t i = 1; i < n; i++) {
        pthread_join(j->streams[i].thread, NULL);
    }
    const stream *failed = find_failed(j);
    return failed ? take_failure(j, failed)
           : n < j->n_streams
               ? kiln_fail(j->diag, KILN_F_RUN_LIMIT, "only %zu of %zu streams could be started", n,
                           j->n_streams)
               : KILN_OK;
}

static int by_start(const void *a, const void *b) {
    const sample *x = a, *y = b;
    return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

/* The runs of all streams in order of time. */
static kiln_status gather(job *j) {
    kiln_bench *b = j->b;
    size_t n = 0;
    for (size_t i = 0; i < j->n_streams; i++) {
        n += j->streams[i].count;
    }
    KILN_ALLOC(b->samples, &b->arena, n);
    for (size_t i = 0; i < j->n_streams; i++) {
        const stream *s = &j->streams[i];
        b->result.warm_up_runs += s->warm_up_runs;
        for (size_t k = 0; k < s->count; k++) {
            const double end_ms = ms(s->samples[k].start_ns + s->samples[k].compute_ns);
            b->samples[b->count++] = s->samples[k];
            b->result.walltime_ms = fmax(b->result.walltime_ms, end_ms);
        }
    }
    qsort(b->samples, b->count, sizeof *b->samples, by_start);
    return KILN_OK;
}

static void close_streams(job *j) {
    for (size_t i = 0; i < j->n_streams; i++) {
        kiln_arena_free(&j->streams[i].arena);
        if (i > 0) {
            kiln_diag_destroy(j->streams[i].diag);
        }
    }
}

/* Timing layers costs two clock readings each, so it has runs of its own: a fifth of the time. */
static kiln_status profile(const job *j) {
    kiln_context *context = j->streams[0].context;
    int64_t begin_ns = kiln_now_ns();
    kiln_context_set_profile(context, true);
    double until_ms = 200 * (j->o->duration_s > 0 ? j->o->duration_s : 0);
    kiln_status status = KILN_OK;
    for (int64_t i = 0; status == KILN_OK; i++) {
        if (i >= j->o->iterations && ms(kiln_now_ns() - begin_ns) >= until_ms) {
            break;
        }
        status = kiln_context_run(context, j->diag);
    }
    return status;
}

/* ---- What to say of it ---- */

static void warn(kiln_bench *b, const char *text) {
    if (text && b->n_warnings < MAX_WARNINGS) {
        b->warnings[b->n_warnings++] = text;
    }
}

static void judge(kiln_bench *b) {
    const kiln_bench_result *r = &b->result;
    kiln_machine m;
    kiln_machine_describe(&m);
    if (r->runs < FEW_RUNS) {
        warn(b, kiln_arena_printf(&b->arena, "only %zu runs: percentiles say little", r->runs));
    }
    if (r->variation_percent > shaky_percent) {
        warn(b,
             kiln_arena_printf(
                 &b->arena, "compute time varies by %.1f %% (standard deviation / mean) > %.1f %%",
                 r->variation_percent, shaky_percent));
    }
    if (r->other_load > busy_share) {
        warn(b, kiln_arena_printf(&b->arena, "other tasks kept %.1f of %d cores busy meanwhile",
                                  r->other_load, m.cores_allowed));
    }
    if (m.governor[0] && strcmp(m.governor, "performance") != 0) {
        warn(b, kiln_arena_printf(&b->arena,
                                  "the cores' frequency governor is \"%s\", not performance",
                                  m.governor));
    }
}

static kiln_status summarize(kiln_bench *b) {
    kiln_bench_result *r = &b->result;
    KILN_ALLOC(b->sorted, &b->arena, b->count);
    for (size_t i = 0; i < b->count; i++) {
        b->sorted[i] = ms(b->samples[i].compute_ns);
        r->total_compute_ms += b->sorted[i];
    }
    kiln_stats_of(&r->compute, b->sorted, b->count);
    r->latency = r->enqueue = r->compute;
    r->h2d.count = r->d2h.count = b->count;
    r->runs = b->count;
    r->throughput_per_s = r->walltime_ms > 0 ? 1e3 * (double)b->count / r->walltime_ms : 0;
    r->variation_percent =
        r->compute.mean_ms > 0 ? 100 * r->compute.stddev_ms / r->compute.mean_ms : 0;
    judge(b);
    return KILN_OK;
}

static kiln_status read_options(kiln_bench_options *o, const kiln_bench_options *given,
                                kiln_diag *diag) {
    if (kiln_options_read(o, sizeof *o, given) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the bench options have no size, or unknown fields");
    }
    o->warm_up_ms = o->warm_up_ms == 0 ? 200 : o->warm_up_ms;
    o->duration_s = o->duration_s == 0 ? 3 : o->duration_s;
    o->iterations = o->iterations <= 0 ? 10 : o->iterations;
    if (o->n_beside > 0 && !o->beside) {
        return kiln_fail(diag, KILN_F_OPTION, "the streams are NULL");
    }
    if (!isfinite(o->warm_up_ms) || !isfinite(o->duration_s) ||
        !(o->idle_ms >= 0 && o->idle_ms < 1e9)) {
        return kiln_fail(diag, KILN_F_OPTION, "a time of the measurement is impossible");
    }
    return KILN_OK;
}

/* Measures on; what a cancelled measurement found by then counts. */
static kiln_status run_job(job *j, kiln_context *context) {
    kiln_bench *b = j->b;
    KILN_TRY(open_streams(j, context));
    kiln_load_probe probe;
    kiln_load_start(&probe);
    kiln_status status = run_streams(j);
    b->result.other_load = kiln_load_others(&probe);
    b->result.cancelled = status == KILN_E_CANCELLED;
    status = status == KILN_OK && j->o->profile ? profile(j) : status;
    if (status == KILN_OK || b->result.cancelled) {
        KILN_TRY(gather(j));
        KILN_TRY(summarize(b));
    }
    return status;
}

static kiln_status run(kiln_bench *b, kiln_context *context, const kiln_bench_options *o,
                       kiln_diag *diag) {
    job j = {.b = b, .o = o, .diag = diag, .told_ns = kiln_now_ns()};
    if (pthread_mutex_init(&j.lock, NULL) != 0) {
        return KILN_E_MEMORY;
    }
    kiln_status status = KILN_E_MEMORY;
    if (pthread_cond_init(&j.opened, NULL) == 0) {
        status = run_job(&j, context);
        pthread_cond_destroy(&j.opened);
    }
    pthread_mutex_destroy(&j.lock);
    close_streams(&j);
    return status;
}

kiln_status kiln_bench_run(kiln_bench **out, kiln_context *context, const kiln_env *env,
                           const kiln_bench_options *options, kiln_diag *diag) {
    kiln_bench_options o;
    KILN_TRY(read_options(&o, options, diag));
    kiln_bench *b = kiln_env_alloc(env, sizeof *b);
    if (!b) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(b, 0, sizeof *b);
    b->env = env;
    kiln_arena_init(&b->arena, env);
    kiln_status status = run(b, context, &o, diag);
    if (status != KILN_OK && status != KILN_E_CANCELLED) {
        kiln_bench_destroy(b);
        return kiln_diag_close(diag, status);
    }
    *out = b;
    return status;
}

void kiln_bench_destroy(kiln_bench *bench) {
    if (bench) {
        kiln_arena_free(&bench->arena);
        kiln_env_release(bench->env, bench, sizeof *bench);
    }
}

void kiln_bench_summary(const kiln_bench *bench, kiln_bench_result *out) {
    *out = bench->result;
}

bool kiln_bench_get(const kiln_bench *bench, size_t i, kiln_bench_sample *out) {
    if (i >= bench->count) {
        return false;
    }
    double t_ms = ms(bench->samples[i].compute_ns);
    *out = (kiln_bench_sample){.start_ms = ms(bench->samples[i].start_ns),
                               .latency_ms = t_ms,
                               .enqueue_ms = t_ms,
                               .compute_ms = t_ms,
                               .stream = bench->samples[i].stream};
    return true;
}

double kiln_bench_percentile(const kiln_bench *bench, double p) {
    return percentile(bench->sorted, bench->count, p);
}

const char *kiln_bench_warning(const kiln_bench *bench, size_t i) {
    return i < bench->n_warnings ? bench->warnings[i] : NULL;
}
