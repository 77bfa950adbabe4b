/* bench.h - what `kiln bench` is made of: cmd_bench.c measures and shows, bench_more.c does the
 * layers, the exports and the line protocol. */
#ifndef KILN_CLI_BENCH_H
#define KILN_CLI_BENCH_H

#include "cli.h"

typedef struct bench_own {
    list threads, batches, percentiles;
    const char *duration_text, *warm_up_text;
    double duration, warm_up, idle; /* s, ms, ms */
    int64_t iterations, streams;
    bool profile, skip_inference, print_outputs, serve;
    const char *output, *export_times, *export_profile, *export_output;
    int32_t first_level, last_level; /* --opt-level */
} bench_own;

typedef struct layer_time {
    kiln_layer layer;
    int64_t t_ns, runs;
} layer_time;

/* In the order they run, those of bodies after the layer that holds them. */
typedef struct layer_times {
    layer_time *items;
    size_t count, cap;
    int64_t layers_ns;      /* of all of them */
    int64_t total_ns, runs; /* of whole runs */
} layer_times;

/* One measurement. */
typedef struct bench_row {
    int64_t threads, batch; /* of a stream */
    int64_t streams;
    kiln_bench *bench; /* NULL until measured */
    kiln_bench_result result;
    const double *percentiles;
    size_t n_percentiles;
    layer_times layers; /* of a profiled run */
} bench_row;

/* Measures one row, of the session's engine. Returns the exit status. */
int bench_measure(cli *c, const bench_own *o, session *s, bench_row *r);
/* A table of levels: builds the model on each, and measures a row like `like`. Returns the exit
 * status. */
int bench_levels(cli *c, const bench_own *o, const bench_row *like);
/* The library's warnings, then one about threads; NULL past the end. */
const char *bench_warning(const bench_row *r, size_t i);
/* Takes the layer times of the context; none when it was not profiled. */
void bench_read_layers(bench_row *r, const session *s);
void bench_show_layers(const cli *c, const bench_row *r);
void bench_json_layers(json *j, const bench_row *r);
/* Writes what --export-* and --print-outputs ask for. Returns the exit status. */
int bench_export(cli *c, const bench_own *o, const session *s, const bench_row *r);
/* The line protocol of --serve. Returns the exit status. */
int bench_serve(cli *c, const bench_own *o, session *s, const bench_row *r);

#endif
