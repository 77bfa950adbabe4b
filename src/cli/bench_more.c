/* bench_more.c - layer times, trtexec's JSON files, and the line protocol of --serve. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

const char *bench_warning(const bench_row *r, size_t i) {
    size_t n = 0;
    while (kiln_bench_warning(r->bench, n)) {
        n++;
    }
    if (i < n) {
        return kiln_bench_warning(r->bench, i);
    }
    kiln_machine m;
    kiln_machine_describe(&m);
    const int64_t threads = r->threads * r->streams;
    if (i > n || threads <= m.cores_usable) {
        return NULL;
    }
    return keepf("%lld threads on %d usable cores (affinity and CPU quota)", (long long)threads,
                 m.cores_usable);
}

/* ---- Layers ---- */

static void add_layer(layer_times *l, const layer_time *t) {
    if (t->runs > 0) {
        l->items = grow(l->items, l->count, &l->cap, sizeof *l->items);
        l->items[l->count++] = *t;
        l->layers_ns += t->t_ns;
    }
}

/* Whether the layer's node holds that body: "node.attribute". */
static bool holds(const kiln_layer *l, const char *body) {
    size_t n = strlen(l->name);
    return l->ops[0] && strncmp(body, l->name, n) == 0 && body[n] == '.' &&
           !strchr(body + n + 1, '.');
}

/* Adds a layer and those of its bodies, which stand behind it among the inner ones; names that
 * occur twice show them once. Nesting is as deep as the importer allows graphs to be. */
static void add_with_bodies(layer_times *l, const session *s, const layer_time *outer, size_t first,
                            bool *seen) {
    layer_time t;
    add_layer(l, outer);
    for (size_t i = first; kiln_engine_inner_layer(s->engine, i, &t.layer); i++) {
        if (!seen[i] && holds(&outer->layer, t.layer.body) &&
            kiln_context_profile_inner(s->context, i, &t.t_ns, &t.runs)) {
            seen[i] = true;
            add_with_bodies(l, s, &t, i + 1, seen);
        }
    }
}

void bench_read_layers(bench_row *r, const session *s) {
    layer_time t;
    layer_times *l = &r->layers;
    size_t n = 0;
    while (kiln_engine_inner_layer(s->engine, n, &t.layer)) {
        n++;
    }
    bool *seen = allocate((n + 1) * sizeof *seen);
    memset(seen, 0, (n + 1) * sizeof *seen);
    for (size_t i = 0; kiln_engine_layer(s->engine, i, &t.layer); i++) {
        if (kiln_context_profile(s->context, i, &t.t_ns, &t.runs)) {
            add_with_bodies(l, s, &t, 0, seen);
        }
    }
    kiln_context_profile_total(s->context, &l->total_ns, &l->runs);
}

static double share(const layer_times *l, int64_t t_ns) {
    return l->total_ns > 0 ? 100.0 * (double)t_ns / (double)l->total_ns : 0;
}

/* Of a run of the whole, in which a body's layer may run often or not at all. */
static double average_ms(const layer_times *l, int64_t t_ns) {
    return 1e-6 * (double)t_ns / (double)(l->runs ? l->runs : 1);
}

/* What no layer took. */
static int64_t rest_ns(const layer_times *l) {
    return l->total_ns > l->layers_ns ? l->total_ns - l->layers_ns : 0;
}

/* Types whose dims are long expressions would push all else off the screen. */
static const char *short_type(const char *text) {
    enum { MOST = 48 };
    return !text ? "" : strlen(text) > MOST ? keepf("%.*s...", MOST - 3, text) : text;
}

void bench_show_layers(const cli *c, const bench_row *r) {
    const layer_times *all = &r->layers;
    table *t = table_new("layer|kernel|ops|output|>MACs|>ms|>%|>GMAC/s");
    for (size_t i = 0; i < all->count; i++) {
        const layer_time *l = &all->items[i];
        double ms = average_ms(all, l->t_ns), once_ms = ms * (double)all->runs / (double)l->runs;
        table_cell(t, "%s%s%s", l->layer.body ? l->layer.body : "", l->layer.body ? ": " : "",
                   l->layer.name);
        table_cell(t, "%s", l->layer.kernel);
        table_cell(t, "%s", l->layer.ops ? l->layer.ops : "");
        table_cell(t, "%s", short_type(l->layer.output));
        table_cell(t, "%s", l->layer.macs ? count_text((double)l->layer.macs) : "");
        table_cell(t, "%.4f", ms);
        table_cell(t, "%.1f", share(all, l->t_ns));
        table_cell(t, "%s",
                   l->layer.macs && ms > 0 ? keepf("%.1f", 1e-6 * (double)l->layer.macs / once_ms)
                                           : "");
    }
    table_print(t, c->format);
    if (c->format == FORMAT_TABLE) {
        printf("%zu layers, %.4f ms of the %.4f ms of a run\n", all->count,
               average_ms(all, all->layers_ns), average_ms(all, all->total_ns));
        if (share(all, rest_ns(all)) > 2) {
            printf("%.4f ms (%.1f %%) are not accounted for: between layers, or in binding shapes "
                   "that data decides\n",
                   average_ms(all, rest_ns(all)), share(all, rest_ns(all)));
        }
    }
}

void bench_json_layers(json *j, const bench_row *r) {
    const layer_times *all = &r->layers;
    json_key(j, "profile");
    json_open(j, '{');
    json_key_int(j, "runs", all->runs);
    json_key_number(j, "average_ms", average_ms(all, all->total_ns));
    json_key_number(j, "layers_ms", average_ms(all, all->layers_ns));
    json_key_number(j, "unaccounted_ms", average_ms(all, rest_ns(all)));
    json_key_number(j, "unaccounted_percent", share(all, rest_ns(all)));
    json_close(j);
    json_key(j, "layers");
    json_open(j, '[');
    for (size_t i = 0; i < all->count; i++) {
        const layer_time *l = &all->items[i];
        json_open(j, '{');
        json_key_text(j, "name", l->layer.name);
        json_key_text(j, "body", l->layer.body);
        json_key_text(j, "kernel", l->layer.kernel);
        json_key_text(j, "ops", l->layer.ops);
        json_key_int(j, "macs", l->layer.macs);
        json_key_int(j, "runs", l->runs);
        json_key_number(j, "average_ms", average_ms(all, l->t_ns));
        json_key_number(j, "share_percent", share(all, l->t_ns));
        json_close(j);
    }
    json_close(j);
}

/* ---- trtexec's files ---- */

static int export_times(cli *c, const char *path, const bench_row *r) {
    FILE *f = open_output(c, path);
    if (!f) {
        return kiln_status_exit_code(KILN_E_IO);
    }
    json j = {.to = f};
    kiln_bench_sample s;
    json_open(&j, '[');
    for (size_t i = 0; kiln_bench_get(r->bench, i, &s); i++) {
        double end = s.start_ms + s.compute_ms;
        const struct {
            const char *key;
            double value;
        } rows[] = {{"startEnqMs", s.start_ms},
                    {"endEnqMs", end},
                    {"startH2dMs", s.start_ms},
                    {"endH2dMs", s.start_ms},
                    {"startComputeMs", s.start_ms},
                    {"endComputeMs", end},
                    {"startD2hMs", end},
                    {"endD2hMs", end},
                    {"h2dMs", s.h2d_ms},
                    {"computeMs", s.compute_ms},
                    {"d2hMs", s.d2h_ms},
                    {"latencyMs", s.latency_ms}};
        json_open(&j, '{');
        for (size_t k = 0; k < COUNT_OF(rows); k++) {
            json_key_number(&j, rows[k].key, rows[k].value);
        }
        json_close(&j);
    }
    json_end(&j);
    return close_output(c, f, path);
}

/* Layers are timed as sums over the runs, so that there is no median: it is written as null. */
static int export_profile(cli *c, const char *path, const bench_row *r) {
    FILE *f = open_output(c, path);
    if (!f) {
        return kiln_status_exit_code(KILN_E_IO);
    }
    json j = {.to = f};
    json_open(&j, '[');
    json_open(&j, '{');
    json_key_int(&j, "count", r->layers.runs);
    json_close(&j);
    for (size_t i = 0; i < r->layers.count; i++) {
        const layer_time *l = &r->layers.items[i];
        json_open(&j, '{');
        json_key_text(&j, "name", l->layer.name);
        json_key_number(&j, "timeMs", 1e-6 * (double)l->t_ns);
        json_key_number(&j, "averageMs", average_ms(&r->layers, l->t_ns));
        json_key_text(&j, "medianMs", NULL);
        json_key_number(&j, "percentage", share(&r->layers, l->t_ns));
        json_close(&j);
    }
    json_end(&j);
    return close_output(c, f, path);
}

/* Elements as numbers where the type is float32 or int64, else null: trtexec's own files have no
 * others than these in practice. */
static void write_values(json *j, const kiln_tensor *t) {
    int64_t n = kiln_tensor_count(t);
    json_open(j, '[');
    for (int64_t i = 0; i < n; i++) {
        if (t->dtype == KILN_DTYPE_F32) {
            json_number(j, (double)((const float *)t->data)[i]);
        } else if (t->dtype == KILN_DTYPE_I64) {
            json_int(j, ((const int64_t *)t->data)[i]);
        } else {
            json_text(j, NULL);
        }
    }
    json_close(j);
}

static int export_output(cli *c, const char *path, const session *s) {
    FILE *f = open_output(c, path);
    kiln_io io;
    if (!f) {
        return kiln_status_exit_code(KILN_E_IO);
    }
    json j = {.to = f};
    json_open(&j, '[');
    for (size_t i = 0; kiln_engine_output(s->engine, i, &io); i++) {
        const kiln_tensor *t = kiln_context_output(s->context, i);
        if (t) {
            json_open(&j, '{');
            json_key_text(&j, "name", io.name);
            json_key_text(&j, "dimensions", dims_text(t->dims, t->rank));
            json_key(&j, "values");
            write_values(&j, t);
            json_close(&j);
        }
    }
    json_end(&j);
    return close_output(c, f, path);
}

static void print_outputs(const session *s) {
    kiln_io io;
    for (size_t i = 0; kiln_engine_output(s->engine, i, &io); i++) {
        const kiln_tensor *t = kiln_context_output(s->context, i);
        if (t) {
            fprintf(stderr, "%s %s: ", safe(io.name), dims_text(t->dims, t->rank));
            json j = {.to = stderr};
            write_values(&j, t);
            fputc('\n', stderr);
        }
    }
}

int bench_export(cli *c, const bench_own *o, const session *s, const bench_row *r) {
    int status = o->export_times ? export_times(c, o->export_times, r) : 0;
    int failed = o->export_profile ? export_profile(c, o->export_profile, r) : 0;
    status = status ? status : failed;
    failed = o->export_output ? export_output(c, o->export_output, s) : 0;
    status = status ? status : failed;
    if (o->print_outputs) {
        print_outputs(s);
    }
    return status;
}

/* ---- The line protocol ---- */

static int time_runs(cli *c, session *s, double *times, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        double start = now_ms();
        kiln_status status = kiln_context_run(s->context, c->diag);
        times[i] = now_ms() - start;
        if (status != KILN_OK) {
            return finish(c, status);
        }
    }
    fputs("{\"times_ms\": [", stdout);
    for (int64_t i = 0; i < count; i++) {
        printf("%s%.6f", i ? ", " : "", times[i]);
    }
    puts("]}");
    return fflush(stdout) == 0 ? 0 : kiln_status_exit_code(KILN_E_IO);
}

/* A server may live long: its buffers do not wait for the end of the command. */
static int serve_runs(cli *c, session *s, int64_t count) {
    double *times = calloc((size_t)count, sizeof *times);
    int status = times ? time_runs(c, s, times, count) : finish(c, KILN_E_MEMORY);
    free(times);
    return status;
}

int bench_serve(cli *c, const bench_own *o, session *s, const bench_row *r) {
    enum { MOST = 10000000 };
    char line[64];
    int status = session_inputs(c, s, o->batches.count > 0 ? r->batch : 0);
    status = status ? status : session_context(c, s, r->threads);
    if (status == 0) {
        kiln_status ready = kiln_context_prepare(s->context, c->diag);
        status = finish(c, ready);
    }
    if (status != 0) {
        return status;
    }
    puts("ready");
    fflush(stdout);
    while (status == 0 && fgets(line, sizeof line, stdin)) {
        int64_t count;
        line[strcspn(line, "\r\n")] = '\0';
        if (strcmp(line, "quit") == 0) {
            break;
        }
        bool known = strncmp(line, "run ", 4) == 0 && parse_int(line + 4, &count) && count > 0 &&
                     count <= MOST;
        status = known ? serve_runs(c, s, count)
                       : usage_error(c, NULL, "\"%s\" is neither `run K` nor `quit`", line);
    }
    return status ? status : interrupted();
}
