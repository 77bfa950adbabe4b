#include "quant/reach.h"

#include <math.h>
#include <stdlib.h>

#include "ops/lanes.h"

/* One row of so many makes the tail. */
enum { TAIL_SHARE = 32 };
/* The least beta, of the greatest value: few rows may end alike by chance. */
#define LEAST_BETA 0.01

/* ---- Seeing ---- */

kiln_status kiln_channels_init(kiln_channels_seen *s, kiln_arena *arena) {
    KILN_ALLOC(s->lo, arena, s->n);
    KILN_ALLOC(s->hi, arena, s->n);
    KILN_ALLOC(s->top, arena, s->n * 2 * KILN_REACH_TOP);
    KILN_ALLOC(s->squares, arena, s->n);
    KILN_ALLOC(s->live, arena, s->n);
    return KILN_OK;
}

/* Puts x where it ranks. */
static void keep_top(float *top, float x) {
    int32_t at = KILN_REACH_TOP - 1;
    if (!(x > top[at])) {
        return;
    }
    for (; at > 0 && top[at - 1] < x; at--) {
        top[at] = top[at - 1];
    }
    top[at] = x;
}

static void see_row(kiln_channels_seen *s, int64_t c, const float *row, int64_t n) {
    float lo = 0, hi = 0;
    double squares = 0;
    int64_t live = 0;
    for (int64_t i = 0; i < n; i++) {
        lo = row[i] < lo ? row[i] : lo;
        hi = row[i] > hi ? row[i] : hi;
        live += row[i] < 0 || row[i] > 0 ? 1 : 0;
        squares += (double)row[i] * (double)row[i];
    }
    s->lo[c] = lo < s->lo[c] ? lo : s->lo[c];
    s->hi[c] = hi > s->hi[c] ? hi : s->hi[c];
    s->live[c] += (double)live;
    s->squares[c] += squares;
    keep_top(s->top + (2 * c + 0) * KILN_REACH_TOP, -lo);
    keep_top(s->top + (2 * c + 1) * KILN_REACH_TOP, hi);
}

void kiln_channels_see(kiln_channels_seen *s, const kiln_tensor *t) {
    if (t->dtype != KILN_DTYPE_F32 || t->rank <= s->axis) {
        return;
    }
    kiln_lanes l = kiln_lanes_of(t, s->axis);
    const float *x = t->data;
    if (l.n != s->n) {
        return;
    }
    for (int64_t o = 0; o < l.outer; o++) {
        for (int64_t c = 0; c < l.n; c++) {
            see_row(s, c, x + (o * l.n + c) * l.inner, l.inner);
        }
    }
    s->count += (double)(l.outer * l.inner);
    s->rows += (double)l.outer;
}

/* ---- Tails ---- */

/* Values that a tail is made of, for so many rows. */
static int32_t tail_of(double rows) {
    double m = floor(rows / TAIL_SHARE);
    return m < 1 ? 1 : m > KILN_REACH_TOP - 1 ? KILN_REACH_TOP - 1 : (int32_t)m;
}

static kiln_tail make_tail(const float *top, double rows) {
    const int32_t m = tail_of(rows);
    kiln_tail t = {.far = (double)top[0], .from = (double)top[m]};
    for (int32_t i = 0; i < m; i++) {
        t.beta += ((double)top[i] - t.from) / m;
    }
    t.beta = fmax(t.beta, LEAST_BETA * t.far);
    t.share = rows > 0 && t.far > 0 ? fmin(m / rows, 1) : 0;
    return t;
}

kiln_reach kiln_reach_of(const kiln_channels_seen *s, int64_t first, int64_t repeat) {
    float top[2][KILN_REACH_TOP] = {{0}};
    double count = s->count > 0 ? s->count * (double)repeat : 1, squares = 0, live = 0;
    for (int64_t i = first; i < first + repeat; i++) {
        for (int32_t k = 0; k < KILN_REACH_TOP; k++) {
            keep_top(top[0], s->top[(2 * i + 0) * KILN_REACH_TOP + k]);
            keep_top(top[1], s->top[(2 * i + 1) * KILN_REACH_TOP + k]);
        }
        squares += s->squares[i];
        live += s->live[i];
    }
    kiln_reach r = {.mean = squares / count, .live = live / count};
    const int32_t m = tail_of(s->rows);
    r.inner = s->rows > 0 ? count / s->rows : 1;
    for (int32_t side = 0; side < 2; side++) {
        r.side[side] = make_tail(top[side], s->rows);
        r.known = r.known || top[side][m] > 0;
    }
    return r;
}

enum { FROM, BETA, SHARE, FIELDS };

static double *field_of(kiln_tail *t, int32_t field) {
    return field == FROM ? &t->from : field == BETA ? &t->beta : &t->share;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The middle one of those that are known; 0 without any. */
static double median_of(kiln_reach *r, int64_t n, int32_t side, int32_t field, double *scratch) {
    int64_t known = 0;
    for (int64_t i = 0; i < n; i++) {
        if (r[i].known) {
            scratch[known++] = *field_of(&r[i].side[side], field);
        }
    }
    qsort(scratch, (size_t)known, sizeof *scratch, by_value);
    return known > 0 ? scratch[known / 2] : 0;
}

void kiln_reach_fill(kiln_reach *r, int64_t n, double *scratch) {
    for (int32_t side = 0; side < 2; side++) {
        for (int32_t field = 0; field < FIELDS; field++) {
            double usual = median_of(r, n, side, field, scratch);
            for (int64_t i = 0; i < n; i++) {
                double *v = field_of(&r[i].side[side], field);
                *v = r[i].known ? *v : fmax(*v, usual);
            }
        }
    }
}

double kiln_reach_end(const kiln_reach *r, int32_t side) {
    const kiln_tail *t = &r->side[side];
    return t->share > 0 ? fmax(t->far, t->from) + t->beta : 0;
}

double kiln_reach_cut(const kiln_reach *r, int32_t side, double limit) {
    const kiln_tail *t = &r->side[side];
    double over = limit - t->from, row;
    if (!(t->share > 0)) {
        return 0;
    }
    if (over >= 0) {
        row = exp(-over / t->beta) * 2 * t->beta * t->beta;
    } else {
        row = over * over - 2 * over * t->beta + 2 * t->beta * t->beta;
    }
    return t->share * row / r->inner;
}
