/* sizes.c - a record of `kiln eval --calib-sizes` as a picture: what larger calibration sets bring.
 */
#include <math.h>
#include <stdlib.h>

#include "report/record.h"

typedef struct size {
    double samples, value, interval;
    const char *tooltip;
} size;

typedef struct sizes {
    size *items;
    size_t n;
    double exact; /* of the float network; NaN: none */
    const char *caption, *unit;
} sizes;

/* The measure that the record has: top-1 with labels, else agreement, else the noise. */
static void choose(sizes *s, const json_t *root, const json_t *first, const char **key,
                   double *factor) {
    static const struct {
        const char *key, *caption, *unit;
        double factor;
    } known[] = {{"top1", "top-1, %", " %", 100},
                 {"agreement", "agreement with the float network, %", " %", 100},
                 {"sqnr_db", "SQNR, dB", " dB", 1}};
    size_t k = 0;
    while (k < 2 && isnan(kiln_record_number(first, known[k].key))) {
        k++;
    }
    *key = known[k].key;
    *factor = known[k].factor;
    s->caption = known[k].caption;
    s->unit = known[k].unit;
    s->exact = k == 0 ? 100 * kiln_record_number(root, "top1") : k == 1 ? 100 : NAN;
}

static int by_samples(const void *a, const void *b) {
    const size *x = a, *y = b;
    return (x->samples > y->samples) - (x->samples < y->samples);
}

static kiln_status read(sizes *s, const kiln_record *r) {
    const json_t *list;
    const char *key;
    double factor;
    KILN_TRY(kiln_record_list(r, "sizes", &list));
    s->n = json_array_size(list);
    KILN_ALLOC(s->items, r->arena, s->n);
    choose(s, r->root, json_array_get(list, 0), &key, &factor);
    for (size_t i = 0; i < s->n; i++) {
        const json_t *from = json_array_get(list, i);
        double interval = kiln_record_number(from, "top1_change_interval_points");
        size *z = &s->items[i];
        *z = (size){.samples = kiln_record_number(from, "calibration_samples"),
                    .value = factor * kiln_record_number(from, key),
                    .interval = *key == 't' ? interval : NAN};
        if (!(z->samples >= 1)) {
            return kiln_fail(r->diag, KILN_F_DATA_FORMAT, "a size of the record is no number");
        }
        z->tooltip =
            kiln_arena_printf(r->arena, "%g samples: %.2f%s", z->samples, z->value, s->unit);
        KILN_TRY(z->tooltip ? KILN_OK : KILN_E_MEMORY);
    }
    if (s->n > 1) {
        qsort(s->items, s->n, sizeof *s->items, by_samples);
    }
    return KILN_OK;
}

static void widen(double bounds[2], double x) {
    if (isfinite(x)) {
        bounds[0] = x < bounds[0] ? x : bounds[0];
        bounds[1] = x > bounds[1] ? x : bounds[1];
    }
}

kiln_status kiln_draw_sizes(const kiln_record *r, kiln_text *svg) {
    sizes s = {0};
    double *x, *y;
    KILN_TRY(read(&s, r));
    KILN_ALLOC(x, r->arena, s.n);
    KILN_ALLOC(y, r->arena, s.n);
    double high[2] = {INFINITY, -INFINITY};
    widen(high, s.exact);
    for (size_t i = 0; i < s.n; i++) {
        const size *z = &s.items[i];
        double around = isfinite(z->interval) ? z->interval : 0;
        widen(high, z->value - around);
        widen(high, z->value + around);
        x[i] = z->samples;
        y[i] = z->value;
    }
    bool none = high[0] > high[1]; /* no size has a finite value */
    kiln_plot p = {.title = kiln_record_text(r->root, "model"),
                   .x = "calibration samples",
                   .y = s.caption,
                   .log_x = true};
    kiln_plot_begin(&p, svg, x[0], x[s.n - 1], none ? 0 : high[0], none ? 1 : high[1]);
    const double exact[] = {s.exact, s.exact}, ends[] = {x[0], x[s.n - 1]};
    kiln_plot_line(&p, ends, exact, 2, "#d62728");
    kiln_plot_line(&p, x, y, s.n, "#1f77b4");
    for (size_t i = 0; i < s.n; i++) {
        const double at[] = {x[i], x[i]};
        const double bar[] = {y[i] - s.items[i].interval, y[i] + s.items[i].interval};
        kiln_plot_line(&p, at, bar, 2, "#999");
        kiln_plot_point(&p, x[i], y[i], "#1f77b4", 4, s.items[i].tooltip);
    }
    kiln_plot_end(&p);
    return KILN_OK;
}
