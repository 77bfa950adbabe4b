/* bench.c - timing runs of a context. The clock is read twice a run and nothing else happens
 * between two runs but storing the sample; progress is told every 50 ms. */
#include <errno.h>
#include <math.h>
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
} sample;

struct kiln_bench {
    const kiln_env *env;
    kiln_arena arena;
    sample *samples;
    size_t count, cap;
    double *sorted; /* compute times in ms */
    kiln_bench_result result;
    const char *warnings[MAX_WARNINGS];
    size_t n_warnings;
};

/* What one call of kiln_bench_run keeps. */
typedef struct job {
    kiln_bench *b;
    kiln_context *context;
    const kiln_bench_options *o;
    kiln_diag *diag;
    int64_t told_ns;
} job;

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

static kiln_status tell(job *j, int64_t now_ns, double share) {
    const kiln_progress *p = j->o->progress;
    if (!p || now_ns - j->told_ns < progress_every_ns) {
        return KILN_OK;
    }
    j->told_ns = now_ns;
    return p->step(p->user, share) ? KILN_OK : KILN_E_CANCELLED;
}

static kiln_status warm_up(job *j) {
    double until_ms = j->o->warm_up_ms;
    int64_t start_ns = kiln_now_ns(), now_ns = start_ns;
    while (until_ms > 0 && ms(now_ns - start_ns) < until_ms) {
        KILN_TRY(kiln_context_run(j->context, j->diag));
        j->b->result.warm_up_runs++;
        now_ns = kiln_now_ns();
        KILN_TRY(tell(j, now_ns, -1));
    }
    return KILN_OK;
}

static kiln_status measure(job *j) {
    kiln_bench *b = j->b;
    double duration_ms = 1e3 * j->o->duration_s;
    int64_t begin_ns = kiln_now_ns(), end_ns = begin_ns;
    while (ms(end_ns - begin_ns) < duration_ms || (int64_t)b->count < j->o->iterations) {
        if (j->o->idle_ms > 0 && b->count > 0) {
            pause_ms(j->o->idle_ms);
        }
        sample s = {.start_ns = kiln_now_ns()};
        KILN_TRY(kiln_context_run(j->context, j->diag));
        end_ns = kiln_now_ns();
        s.compute_ns = end_ns - s.start_ns;
        s.start_ns -= begin_ns;
        KILN_PUSH(&b->arena, b->samples, b->count, b->cap, s);
        b->result.walltime_ms = ms(end_ns - begin_ns);
        double by_time = duration_ms > 0 ? ms(end_ns - begin_ns) / duration_ms : 1;
        double by_runs = (double)b->count / (double)j->o->iterations;
        KILN_TRY(tell(j, end_ns, by_time < by_runs ? by_time : by_runs));
    }
    return KILN_OK;
}

/* Timing layers costs two clock readings each, so it has runs of its own: a fifth of the time. */
static kiln_status profile(job *j) {
    int64_t begin_ns = kiln_now_ns();
    kiln_context_set_profile(j->context, true);
    double until_ms = 200 * (j->o->duration_s > 0 ? j->o->duration_s : 0);
    kiln_status status = KILN_OK;
    for (int64_t i = 0; status == KILN_OK; i++) {
        if (i >= j->o->iterations && ms(kiln_now_ns() - begin_ns) >= until_ms) {
            break;
        }
        status = kiln_context_run(j->context, j->diag);
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
    if (!isfinite(o->warm_up_ms) || !isfinite(o->duration_s) ||
        !(o->idle_ms >= 0 && o->idle_ms < 1e9)) {
        return kiln_fail(diag, KILN_F_OPTION, "a time of the measurement is impossible");
    }
    return KILN_OK;
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
    job j = {b, context, &o, diag, kiln_now_ns()};
    kiln_status status = kiln_context_prepare(context, diag);
    status = status == KILN_OK ? warm_up(&j) : status;
    kiln_load_probe probe;
    kiln_load_start(&probe);
    status = status == KILN_OK ? measure(&j) : status;
    b->result.other_load = kiln_load_others(&probe);
    b->result.cancelled = status == KILN_E_CANCELLED;
    status = status == KILN_OK && o.profile ? profile(&j) : status;
    if (status == KILN_OK || b->result.cancelled) {
        kiln_status summed = summarize(b);
        status = summed == KILN_OK ? status : summed;
    }
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
                               .compute_ms = t_ms};
    return true;
}

double kiln_bench_percentile(const kiln_bench *bench, double p) {
    return percentile(bench->sorted, bench->count, p);
}

const char *kiln_bench_warning(const kiln_bench *bench, size_t i) {
    return i < bench->n_warnings ? bench->warnings[i] : NULL;
}
