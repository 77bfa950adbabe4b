/* bench_levels.c - `kiln bench NET --opt-level A-B`: what each level of building by measuring costs
 * and gains. */
#include <string.h>

#include "bench.h"

enum { MOST_LEVELS = 6 };

typedef struct level_row {
    int32_t level;
    double build_ms;
    size_t weight_bytes, activation_bytes, scratch_bytes;
    kiln_bench_result result;
    size_t ways, chosen; /* tried, and taken */
} level_row;

static void count_ways(const kiln_engine *engine, level_row *out) {
    kiln_tried_way w;
    for (size_t i = 0; kiln_engine_tried(engine, i, &w); i++) {
        out->ways++;
        out->chosen += w.chosen;
    }
}

static int measure_level(cli *c, const bench_own *o, session *s, const bench_row *like,
                         level_row *out) {
    bench_row r = *like;
    kiln_engine_info info;
    s->tune = session_tune(c, out->level, like->threads);
    int status = session_open(c, s, c->operands.items[0]);
    if (status == 0 && !s->model) {
        return usage_error(c, NULL, "levels are for models: %s is an engine", s->path);
    }
    status = status ? status : bench_measure(c, o, s, &r);
    if (status == 0) {
        kiln_engine_get_info(s->engine, &info);
        out->build_ms = s->open_ms;
        out->weight_bytes = info.weight_bytes;
        out->activation_bytes = kiln_context_memory(s->context, &out->scratch_bytes);
        out->result = r.result;
        count_ways(s->engine, out);
    }
    kiln_bench_destroy(r.bench);
    return status;
}

static void show_json(const cli *c, const level_row *rows, size_t n) {
    json j = json_begin(c, "kiln.bench.levels/1");
    json_machine(&j);
    json_key(&j, "levels");
    json_open(&j, '[');
    for (size_t i = 0; i < n; i++) {
        const level_row *r = &rows[i];
        json_open(&j, '{');
        json_key_int(&j, "level", r->level);
        json_key_number(&j, "build_ms", r->build_ms);
        json_stats(&j, "compute_ms", &r->result.compute);
        json_key_int(&j, "weight_bytes", (int64_t)r->weight_bytes);
        json_key_int(&j, "activation_bytes", (int64_t)r->activation_bytes);
        json_key_int(&j, "scratch_bytes", (int64_t)r->scratch_bytes);
        json_key_int(&j, "ways_tried", (int64_t)r->ways);
        json_key_int(&j, "ways_taken", (int64_t)r->chosen);
        json_close(&j);
    }
    json_close(&j);
    json_end(&j);
}

static void show_table(const cli *c, const level_row *rows, size_t n) {
    table *t = table_new(">level|>build s|>median ms|>min ms|>stddev ms|>weights|>activations|"
                         ">scratch|>ways tried|>taken");
    for (size_t i = 0; i < n; i++) {
        const level_row *r = &rows[i];
        table_cell(t, "%d", r->level);
        table_cell(t, "%.1f", 1e-3 * r->build_ms);
        table_cell(t, "%.4f", r->result.compute.median_ms);
        table_cell(t, "%.4f", r->result.compute.min_ms);
        table_cell(t, "%.4f", r->result.compute.stddev_ms);
        table_cell(t, "%s", bytes_text((double)r->weight_bytes));
        table_cell(t, "%s", bytes_text((double)r->activation_bytes));
        table_cell(t, "%s", bytes_text((double)r->scratch_bytes));
        table_cell(t, "%zu", r->ways);
        table_cell(t, "%zu", r->chosen);
    }
    table_print(t, c->format);
}

int bench_levels(cli *c, const bench_own *o, const bench_row *like) {
    level_row rows[MOST_LEVELS] = {0};
    size_t n = 0;
    int status = 0;
    for (int32_t level = o->first_level; level <= o->last_level && status == 0; level++) {
        session s = {0};
        rows[n].level = level;
        status = measure_level(c, o, &s, like, &rows[n]);
        n += status == 0;
        session_close(&s);
    }
    if (n > 0 && (status == 0 || interrupted())) {
        if (c->format == FORMAT_JSON) {
            show_json(c, rows, n);
        } else {
            show_table(c, rows, n);
        }
        verdict(c, status == 0, "%s", status ? "interrupted" : "");
    }
    return status;
}
