/* pareto.c - a record of `kiln search` as a picture: what each choice of layers costs and loses. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/diag.h"
#include "base/file.h"
#include "kiln/tools.h"
#include "report/plot.h"

enum { MAX_CHOICES = 10000 };
static const char schema[] = "kiln.search/1";

typedef struct choice {
    double cost, drop; /* percent, points */
    bool front, best, within;
    const char *tooltip;
} choice;

typedef struct record {
    choice *items;
    size_t n;
    double max_drop;
    const char *model, *metric;
} record;

static double number(const json_t *of, const char *key) {
    const json_t *x = json_object_get(of, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static const char *text(const json_t *of, const char *key) {
    const char *s = json_string_value(json_object_get(of, key));
    return s ? s : "";
}

static kiln_status read_choice(choice *c, const json_t *from, kiln_arena *arena) {
    *c = (choice){.cost = 100 * number(from, "cost"),
                  .drop = number(from, "drop_points"),
                  .front = json_is_true(json_object_get(from, "front")),
                  .best = json_is_true(json_object_get(from, "best")),
                  .within = json_is_true(json_object_get(from, "within"))};
    double half = number(from, "bf16_layers");
    c->tooltip =
        kiln_arena_printf(arena, "%g layers in int8, %g in bf16: %.1f %%, loses %.2f points",
                          number(from, "int8_layers"), isnan(half) ? 0 : half, c->cost, c->drop);
    return c->tooltip ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status read_record(record *r, const json_t *root, kiln_arena *arena, kiln_diag *diag) {
    const json_t *tried = json_object_get(root, "tried");
    size_t n = json_array_size(tried);
    if (strcmp(text(root, "schema"), schema) != 0 || n == 0 || n > MAX_CHOICES) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the record is no %s with choices", schema);
    }
    KILN_ALLOC(r->items, arena, n);
    for (size_t i = 0; i < n; i++) {
        KILN_TRY(read_choice(&r->items[i], json_array_get(tried, i), arena));
    }
    r->n = n;
    r->max_drop = number(root, "max_drop_points");
    r->model = text(root, "model");
    r->metric = text(root, "metric");
    return KILN_OK;
}

static int by_cost(const void *a, const void *b) {
    const choice *x = a, *y = b;
    return (x->cost > y->cost) - (x->cost < y->cost);
}

/* The front as steps from choice to choice. */
static kiln_status draw_front(kiln_plot *p, const record *r, kiln_arena *arena) {
    double *x, *y;
    size_t n = 0;
    KILN_ALLOC(x, arena, 2 * r->n);
    KILN_ALLOC(y, arena, 2 * r->n);
    for (size_t i = 0; i < r->n; i++) {
        if (r->items[i].front && isfinite(r->items[i].cost)) {
            if (n > 0) {
                x[n] = r->items[i].cost;
                y[n] = y[n - 1];
                n++;
            }
            x[n] = r->items[i].cost;
            y[n++] = r->items[i].drop;
        }
    }
    kiln_plot_line(p, x, y, n, "#1f77b4");
    return KILN_OK;
}

static kiln_status draw(kiln_text *out, record *r, kiln_arena *arena) {
    double x[2] = {100, 100}, y[2] = {0, isfinite(r->max_drop) ? r->max_drop : 0};
    const char *caption = kiln_arena_printf(arena, "loss of %s, points", r->metric);
    KILN_TRY(caption ? KILN_OK : KILN_E_MEMORY);
    if (r->n > 1) {
        qsort(r->items, r->n, sizeof *r->items, by_cost);
    }
    for (size_t i = 0; i < r->n; i++) {
        const choice *c = &r->items[i];
        x[0] = c->cost < x[0] ? c->cost : x[0];
        x[1] = c->cost > x[1] ? c->cost : x[1];
        y[0] = c->drop < y[0] ? c->drop : y[0];
        y[1] = c->drop > y[1] ? c->drop : y[1];
    }
    kiln_plot p = {.title = r->model, .x = "cost, % of the float network", .y = caption};
    kiln_plot_begin(&p, out, x[0], x[1], y[0], y[1]);
    const double budget[] = {r->max_drop, r->max_drop}, across[] = {p.axis[0].lo, p.axis[0].hi};
    kiln_plot_line(&p, across, budget, 2, "#d62728");
    KILN_TRY(draw_front(&p, r, arena));
    for (size_t i = 0; i < r->n; i++) {
        const choice *c = &r->items[i];
        kiln_plot_point(&p, c->cost, c->drop,
                        c->best     ? "#2ca02c"
                        : c->within ? "#1f77b4"
                                    : "#999",
                        c->best ? 6 : 4, c->tooltip);
    }
    kiln_plot_end(&p);
    return kiln_text_ok(out) ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_report_pareto(const kiln_env *env, const char *json, size_t len, const char *path,
                               kiln_diag *diag) {
    kiln_arena arena;
    kiln_text svg;
    record r = {0};
    json_t *root = json && path ? json_loadb(json, len, 0, NULL) : NULL;
    if (!root) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the record is no JSON");
    }
    kiln_arena_init(&arena, env);
    kiln_text_init(&svg, env);
    kiln_status status = read_record(&r, root, &arena, diag);
    status = status ? status : draw(&svg, &r, &arena);
    status = status ? status : kiln_file_write(path, svg.data, svg.len, diag);
    kiln_text_free(&svg);
    kiln_arena_free(&arena);
    json_decref(root);
    return kiln_diag_close(diag, status);
}
