/* cmd_bench.c - timing: trtexec's performance block, sweeps over threads and batches. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "bench.h"

enum { MAX_SWEEP = 64 };

static int64_t machine_cores(void) {
    kiln_machine m;
    kiln_machine_describe(&m);
    return m.cores_usable;
}

/* ---- Output ---- */

static void json_result(json *j, const bench_row *r) {
    const kiln_bench_result *b = &r->result;
    json_open(j, '{');
    json_key_int(j, "threads", r->threads);
    json_key_int(j, "streams", r->streams);
    json_key_int(j, "batch", r->batch);
    json_key_int(j, "runs", (int64_t)b->runs);
    json_key_int(j, "warm_up_runs", (int64_t)b->warm_up_runs);
    json_key_number(j, "throughput_per_s", b->throughput_per_s);
    json_key_number(j, "samples_per_s", b->throughput_per_s * (double)r->batch);
    json_stats(j, "latency_ms", &b->latency);
    json_stats(j, "enqueue_ms", &b->enqueue);
    json_stats(j, "h2d_ms", &b->h2d);
    json_stats(j, "compute_ms", &b->compute);
    json_stats(j, "d2h_ms", &b->d2h);
    json_key_number(j, "total_walltime_ms", b->walltime_ms);
    json_key_number(j, "total_compute_ms", b->total_compute_ms);
    json_key_number(j, "variation_percent", b->variation_percent);
    json_key_number(j, "other_load_cores", b->other_load < 0 ? NAN : b->other_load);
    json_key_bool(j, "cancelled", b->cancelled);
    json_key(j, "percentiles_ms");
    json_open(j, '{');
    for (size_t i = 0; i < r->n_percentiles; i++) {
        json_key_number(j, keepf("p%g", r->percentiles[i]),
                        kiln_bench_percentile(r->bench, r->percentiles[i]));
    }
    json_close(j);
    json_key(j, "warnings");
    json_open(j, '[');
    const char *text;
    for (size_t i = 0; (text = bench_warning(r, i)) != NULL; i++) {
        json_text(j, text);
    }
    json_close(j);
    if (r->layers.count > 0) {
        bench_json_layers(j, r);
    }
    json_close(j);
}

static void show_json(const cli *c, const bench_own *o, const session *s, const bench_row *rows,
                      size_t n) {
    json j = json_begin(c, "kiln.bench/1");
    json_key_text(&j, "model", s->path);
    json_machine(&j);
    json_key(&j, "conditions");
    json_open(&j, '{');
    json_key_number(&j, "warm_up_ms", o->warm_up);
    json_key_number(&j, "duration_s", o->duration);
    json_key_int(&j, "iterations", o->iterations);
    json_key_number(&j, "idle_ms", o->idle);
    json_key_bool(&j, "transfers", false);
    json_close(&j);
    json_key_number(&j, "open_ms", s->open_ms);
    json_key(&j, "results");
    json_open(&j, '[');
    for (size_t i = 0; i < n; i++) {
        json_result(&j, &rows[i]);
    }
    json_close(&j);
    json_end(&j);
}

static void stat_row(table *t, const bench_row *r, const char *name, const kiln_stats *s,
                     bool constant) {
    table_cell(t, "%s", name);
    const double fixed[] = {s->min_ms, s->max_ms, s->mean_ms, s->median_ms};
    for (size_t i = 0; i < COUNT_OF(fixed); i++) {
        table_cell(t, "%.3f", fixed[i]);
    }
    for (size_t i = 0; i < r->n_percentiles; i++) {
        table_cell(t, "%.3f", constant ? 0 : kiln_bench_percentile(r->bench, r->percentiles[i]));
    }
}

/* trtexec's block for one measurement. */
static void show_block(const cli *c, const bench_row *r) {
    const kiln_bench_result *b = &r->result;
    const char *heads = "ms|>min|>max|>mean|>median";
    for (size_t i = 0; i < r->n_percentiles; i++) {
        heads = keepf("%s|>p%g", heads, r->percentiles[i]);
    }
    table *t = table_new(heads);
    stat_row(t, r, "latency", &b->latency, false);
    stat_row(t, r, "enqueue", &b->enqueue, false);
    stat_row(t, r, "h2d", &b->h2d, true);
    stat_row(t, r, "compute", &b->compute, false);
    stat_row(t, r, "d2h", &b->d2h, true);
    table_print(t, c->format);
    if (c->format == FORMAT_TABLE) {
        printf("\nthroughput      %.2f runs/s", b->throughput_per_s);
        if (r->batch > 1) {
            printf(", %.2f samples/s", b->throughput_per_s * (double)r->batch);
        }
        if (r->streams > 1) {
            printf("\nstreams         %lld, of %lld thread%s each", (long long)r->streams,
                   (long long)r->threads, r->threads == 1 ? "" : "s");
        }
        printf("\ntotal walltime  %.3f s\ntotal compute   %.3f s\nruns            %zu after %zu to "
               "warm up\n",
               1e-3 * b->walltime_ms, 1e-3 * b->total_compute_ms, b->runs, b->warm_up_runs);
    }
}

/* One row for each measurement of a sweep. */
static void show_sweep(const cli *c, const bench_row *rows, size_t n) {
    table *t = table_new(">threads|>batch|>median ms|>mean "
                         "ms|>stddev|>min|>p90|>p95|>p99|>max|>runs|>runs/s|>samples/s");
    for (size_t i = 0; i < n; i++) {
        const kiln_bench_result *b = &rows[i].result;
        const double times[] = {b->latency.median_ms, b->latency.mean_ms, b->latency.stddev_ms,
                                b->latency.min_ms,    b->latency.p90_ms,  b->latency.p95_ms,
                                b->latency.p99_ms,    b->latency.max_ms};
        table_cell(t, "%lld", (long long)rows[i].threads);
        table_cell(t, "%lld", (long long)rows[i].batch);
        for (size_t k = 0; k < COUNT_OF(times); k++) {
            table_cell(t, "%.3f", times[k]);
        }
        table_cell(t, "%zu", b->runs);
        table_cell(t, "%.2f", b->throughput_per_s);
        table_cell(t, "%.2f", b->throughput_per_s * (double)rows[i].batch);
    }
    table_print(t, c->format);
}

static void show(cli *c, const bench_own *o, const session *s, const bench_row *rows, size_t n) {
    const char *text;
    if (c->format == FORMAT_JSON) {
        show_json(c, o, s, rows, n);
    } else if (n == 1 && c->format == FORMAT_TABLE) {
        show_block(c, &rows[0]);
    } else {
        show_sweep(c, rows, n);
    }
    for (size_t i = 0; i < n; i++) {
        if (rows[i].layers.count > 0 && c->format != FORMAT_JSON) {
            putchar('\n');
            bench_show_layers(c, &rows[i]);
        }
        for (size_t k = 0; (text = bench_warning(&rows[i], k)) != NULL; k++) {
            say(c, KILN_LOG_WARN, "%s", text);
        }
    }
}

/* ---- Measuring ---- */

/* The session, and others of its engine with inputs and contexts of their own. */
typedef struct streams {
    session *others;
    kiln_context **contexts;
    size_t n;
} streams;

static void close_streams(streams *all) {
    for (size_t i = 0; i < all->n; i++) {
        all->others[i].engine = NULL;
        session_close(&all->others[i]);
    }
}

/* Inputs of the streams are the same files, and made up of other seeds; nothing is said of them. */
static int open_streams(cli *c, const bench_own *o, session *s, const bench_row *r, streams *all) {
    const int64_t batch = o->batches.count > 0 ? r->batch : 0, seed = c->seed;
    const kiln_log_level level = c->level;
    int failed = session_inputs(c, s, batch);
    all->others = allocate((size_t)r->streams * sizeof *all->others);
    all->contexts = allocate((size_t)r->streams * sizeof *all->contexts);
    for (int64_t i = 1; i < r->streams && failed == 0; i++) {
        session *other = &all->others[all->n++];
        *other = (session){.engine = s->engine, .path = s->path};
        c->level = level < KILN_LOG_WARN ? level : KILN_LOG_WARN;
        c->seed = (seed ? seed : 1) + i;
        failed = session_inputs(c, other, batch);
        failed = failed ? failed : session_context(c, other, r->threads);
        all->contexts[i - 1] = other->context;
    }
    c->level = level;
    c->seed = seed;
    return failed ? failed : session_context(c, s, r->threads);
}

static int measure(cli *c, const bench_own *o, session *s, bench_row *r, const streams *all) {
    kiln_progress progress = watch_progress(c, keepf("bench %lld threads", (long long)r->threads));
    kiln_bench_options b = {.size = sizeof b,
                            .warm_up_ms = o->warm_up > 0 ? o->warm_up : -1,
                            .duration_s = o->duration > 0 ? o->duration : -1,
                            .iterations = o->iterations,
                            .idle_ms = o->idle,
                            .profile = o->profile || o->export_profile,
                            .progress = &progress,
                            .beside = all->contexts,
                            .n_beside = all->n};
    kiln_status status = kiln_bench_run(&r->bench, s->context, c->env, &b, c->diag);
    end_progress(c);
    if (status != KILN_OK && status != KILN_E_CANCELLED) {
        return finish(c, status);
    }
    kiln_bench_summary(r->bench, &r->result);
    bench_read_layers(r, s);
    return status == KILN_OK ? 0 : interrupted();
}

int bench_measure(cli *c, const bench_own *o, session *s, bench_row *r) {
    streams all = {0};
    int failed = open_streams(c, o, s, r, &all);
    failed = failed ? failed : measure(c, o, s, r, &all);
    close_streams(&all);
    cancel_on_signal(s->context);
    return failed;
}

/* Every thread count with every batch; what was measured before a signal is kept. */
static int measure_all(cli *c, const bench_own *o, session *s, bench_row *rows, size_t n,
                       size_t *done) {
    int status = 0;
    for (size_t i = 0; i < n && status == 0; i++) {
        status = bench_measure(c, o, s, &rows[i]);
        *done += rows[i].bench != NULL;
    }
    return status;
}

static int make_rows(cli *c, const bench_own *o, bench_row **out, size_t *n) {
    static const double usual[] = {90, 95, 99};
    int64_t threads[MAX_SWEEP] = {0}, batches[MAX_SWEEP] = {0};
    size_t nt = o->threads.count, nb = o->batches.count;
    double *percentiles = allocate((o->percentiles.count + COUNT_OF(usual)) * sizeof *percentiles);
    if (nt > MAX_SWEEP || nb > MAX_SWEEP) {
        return usage_error(c, NULL, "a sweep has at most %d steps", MAX_SWEEP);
    }
    if (!parse_int_list(c, "threads", &o->threads, 1, threads, nt) ||
        !parse_int_list(c, "batch", &o->batches, 1, batches, nb) ||
        !parse_number_list(c, "percentile", &o->percentiles, percentiles, o->percentiles.count)) {
        return kiln_status_exit_code(KILN_E_USAGE);
    }
    for (size_t i = 0; i < o->percentiles.count; i++) {
        if (percentiles[i] < 0 || percentiles[i] > 100) {
            return usage_error(c, NULL, "--percentile takes numbers from 0 to 100");
        }
    }
    if (o->percentiles.count == 0) {
        memcpy(percentiles, usual, sizeof usual);
    }
    if (nt == 0) {
        const int64_t share = machine_cores() / o->streams;
        threads[nt++] = share > 1 ? share : 1;
    }
    if (nb == 0) {
        batches[nb++] = 1;
    }
    bench_row *rows = allocate(nt * nb * sizeof *rows);
    for (size_t i = 0; i < nt * nb; i++) {
        rows[i].threads = threads[i / nb];
        rows[i].batch = batches[i % nb];
        rows[i].streams = o->streams;
        rows[i].percentiles = percentiles;
        rows[i].n_percentiles = o->percentiles.count ? o->percentiles.count : COUNT_OF(usual);
    }
    *out = rows;
    *n = nt * nb;
    return 0;
}

/* A network whose first dim is fixed has its own batch; one with a profile usually runs at opt. */
static int settle_batch(cli *c, const session *s, const bench_own *o, bench_row *rows, size_t n) {
    kiln_io io;
    bool free_batch = false;
    int64_t fixed = 0, usual = 0;
    for (size_t i = 0; kiln_engine_input(s->engine, i, &io); i++) {
        free_batch = free_batch || io.rank < 0 || (io.rank > 0 && io.dims[0] < 0);
        fixed = io.rank > 0 && fixed == 0 ? io.dims[0] : fixed;
        usual = io.has_range && io.rank > 0 && io.dims[0] < 0 && usual == 0 ? io.opt[0] : usual;
    }
    for (size_t i = 0; i < n && usual > 0 && o->batches.count == 0; i++) {
        rows[i].batch = usual;
    }
    for (size_t i = 0; i < n && !free_batch && fixed > 0; i++) {
        if (o->batches.count > 0 && rows[i].batch != fixed) {
            return usage_error(c, "--override-shape changes the shape of a model",
                               "the network's batch is %lld, not %lld", (long long)fixed,
                               (long long)rows[i].batch);
        }
        rows[i].batch = fixed;
    }
    return 0;
}

static int save(cli *c, const bench_own *o, const session *s) {
    return o->output ? finish(c, kiln_engine_save(s->engine, o->output, c->diag)) : 0;
}

static int bench(cli *c, bench_own *o, session *s) {
    bench_row *rows;
    size_t n, done = 0;
    int status = make_rows(c, o, &rows, &n);
    if (status == 0 && o->last_level > o->first_level) {
        return n == 1 ? bench_levels(c, o, &rows[0])
                      : usage_error(c, NULL, "a sweep is over levels, or threads and batches");
    }
    s->tune = status ? NULL : session_tune(c, o->first_level, rows[0].threads);
    status = status ? status : session_open(c, s, c->operands.items[0]);
    status = status ? status : settle_batch(c, s, o, rows, n);
    status = status ? status : save(c, o, s);
    if (status != 0 || c->dry_run || o->skip_inference) {
        return status;
    }
    if (o->serve) {
        return bench_serve(c, o, s, &rows[0]);
    }
    status = measure_all(c, o, s, rows, n, &done);
    bool partial = status != 0 && interrupted();
    if (done > 0 && (status == 0 || partial)) {
        show(c, o, s, rows, done);
        int failed = bench_export(c, o, s, &rows[done - 1]);
        status = status ? status : failed;
        verdict(c, status == 0, "%s", partial ? "interrupted" : "");
    }
    for (size_t i = 0; i < done; i++) {
        kiln_bench_destroy(rows[i].bench);
    }
    return status;
}

static int run(cli *c, void *given) {
    bench_own *o = given;
    session s = {0};
    o->warm_up = 200;
    o->duration = 3;
    if ((o->warm_up_text && (!parse_number(o->warm_up_text, &o->warm_up) || o->warm_up < 0)) ||
        (o->duration_text && (!parse_number(o->duration_text, &o->duration) || o->duration < 0))) {
        return usage_error(c, NULL, "--warm-up and --duration take numbers of at least 0");
    }
    o->iterations = o->iterations ? o->iterations : 10;
    o->streams = o->streams ? o->streams : 1;
    if (o->streams > MAX_SWEEP || (o->streams > 1 && o->serve)) {
        return usage_error(c, NULL, "--streams takes at most %d, and none with --serve", MAX_SWEEP);
    }
    int status = session_levels(c, 0, true, &o->first_level, &o->last_level);
    status = status ? status : bench(c, o, &s);
    session_close(&s);
    return status;
}

static const opt options[] = {
    {.name = "threads",
     .kind = OPT_LIST,
     .value = "N[,N]",
     .at = offsetof(bench_own, threads),
     .help = "threads of a run; several make a sweep [all usable cores, shared by the streams]"},
    {.name = "streams",
     .kind = OPT_INT,
     .value = "N",
     .min = 1,
     .at = offsetof(bench_own, streams),
     .help = "so many runs at once, each with its own context, inputs and threads; throughput is "
             "that of all, latency that of any [1]"},
    {.name = "batch",
     .kind = OPT_LIST,
     .value = "N[,N]",
     .at = offsetof(bench_own, batches),
     .help = "size of dynamic first dims; several make a sweep [opt of the profile, else 1]"},
    {.name = "duration",
     .kind = OPT_TEXT,
     .value = "S",
     .at = offsetof(bench_own, duration_text),
     .help = "measure at least so many seconds [3]"},
    {.name = "warm-up",
     .kind = OPT_TEXT,
     .value = "MS",
     .at = offsetof(bench_own, warm_up_text),
     .help = "run so many milliseconds before [200]"},
    {.name = "iterations",
     .kind = OPT_INT,
     .value = "N",
     .min = 1,
     .at = offsetof(bench_own, iterations),
     .help = "and at least so many runs [10]"},
    {.name = "idle",
     .kind = OPT_NUMBER,
     .value = "MS",
     .at = offsetof(bench_own, idle),
     .help = "pause between two runs [0]"},
    {.name = "percentile",
     .kind = OPT_LIST,
     .value = "P[,P]",
     .at = offsetof(bench_own, percentiles),
     .help = "percentiles to show [90,95,99]"},
    {.name = "profile",
     .kind = OPT_FLAG,
     .at = offsetof(bench_own, profile),
     .help = "time each layer too, and those of bodies, in runs of their own"},
    {.name = "output",
     .letter = 'o',
     .kind = OPT_TEXT,
     .value = "FILE",
     .at = offsetof(bench_own, output),
     .help = "save the engine"},
    {.name = "skip-inference",
     .kind = OPT_FLAG,
     .at = offsetof(bench_own, skip_inference),
     .help = "stop after building and saving"},
    {.name = "print-outputs",
     .kind = OPT_FLAG,
     .at = offsetof(bench_own, print_outputs),
     .help = "show the outputs of the last run, on stderr"},
    {.name = "export-times",
     .kind = OPT_TEXT,
     .value = "FILE",
     .at = offsetof(bench_own, export_times),
     .help = "write the times of every run as trtexec's JSON"},
    {.name = "export-profile",
     .kind = OPT_TEXT,
     .value = "FILE",
     .at = offsetof(bench_own, export_profile),
     .help = "write the time of each layer as trtexec's JSON"},
    {.name = "export-output",
     .kind = OPT_TEXT,
     .value = "FILE",
     .at = offsetof(bench_own, export_output),
     .help = "write the outputs of the last run as trtexec's JSON"},
    {.name = "serve",
     .kind = OPT_FLAG,
     .at = offsetof(bench_own, serve),
     .help = "print `ready`, then answer each line `run K` on stdin by {\"times_ms\": [...]} until "
             "`quit`"},
};

static const example examples[] = {
    {"kiln bench net.onnx", "builds and times a model on generated inputs"},
    {"kiln bench net.kiln --streams 4 --threads 1", "the most runs a second of four cores"},
    {"kiln bench net.onnx --opt-level 0-5", "what building by measuring costs and gains"},
    {"kiln bench net.kiln --threads 1,2,4 --batch 1,8 --format csv", "a sweep, one row each"},
    {"kiln bench net.onnx --profile --duration 1", "where the time goes, layer by layer"},
};

static const opt_group *const groups[] = {&group_input, &group_picture, &group_build,
                                          &group_tune,  &group_common,  NULL};

const verb verb_bench = {
    .name = "bench",
    .summary = "time a model or engine",
    .operands = "MODEL|ENGINE",
    .about = "Runs over and over and reports trtexec's performance block. On a CPU inputs and "
             "outputs are used where "
             "they lie, so h2d and d2h are 0, and the caller's thread works along, so enqueue "
             "equals compute. What "
             "makes the numbers doubtful (variation, other load, too many threads) is said.",
    EXAMPLES(examples),
    OPTIONS(options, bench_own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .trtexec = true,
    .run = run};
