/* pareto.c - a record of `kiln search` as a picture: what each choice of layers costs and loses. */
#include <math.h>
#include <stdlib.h>

#include "report/record.h"

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

static kiln_status read_choice(choice *c, const json_t *from, kiln_arena *arena) {
    *c = (choice){.cost = 100 * kiln_record_number(from, "cost"),
                  .drop = kiln_record_number(from, "drop_points"),
                  .front = json_is_true(json_object_get(from, "front")),
                  .best = json_is_true(json_object_get(from, "best")),
                  .within = json_is_true(json_object_get(from, "within"))};
    double half = kiln_record_number(from, "bf16_layers");
    c->tooltip = kiln_arena_printf(
        arena, "%g layers in int8, %g in bf16: %.1f %%, loses %.2f points",
        kiln_record_number(from, "int8_layers"), isnan(half) ? 0 : half, c->cost, c->drop);
    return c->tooltip ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status read_record(record *out, const kiln_record *r) {
    const json_t *tried;
    KILN_TRY(kiln_record_list(r, "tried", &tried));
    out->n = json_array_size(tried);
    KILN_ALLOC(out->items, r->arena, out->n);
    for (size_t i = 0; i < out->n; i++) {
        KILN_TRY(read_choice(&out->items[i], json_array_get(tried, i), r->arena));
    }
    out->max_drop = kiln_record_number(r->root, "max_drop_points");
    out->model = kiln_record_text(r->root, "model");
    out->metric = kiln_record_text(r->root, "metric");
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
    return KILN_OK;
}

kiln_status kiln_draw_search(const kiln_record *r, kiln_text *svg) {
    record own = {0};
    KILN_TRY(read_record(&own, r));
    return draw(svg, &own, r->arena);
}
