#include "quant/calibrators.h"

#include <string.h>

#include "base/options.h"

enum { CELLS = 2 * KILN_BINS };

/* ---- Sums ---- */

static uint64_t count_of(const kiln_observer *o, int32_t cell) {
    return cell < KILN_BINS ? o->bins[0][KILN_BINS - 1 - cell] : o->bins[1][cell - KILN_BINS];
}

/* The middle of a cell, or the extreme value that lies before it. */
static double middle_of(const kiln_spread *s, int32_t cell) {
    double v = (cell - KILN_BINS + 0.5) * s->width;
    v = v < (double)s->o->min ? (double)s->o->min : v;
    return v > (double)s->o->max ? (double)s->o->max : v;
}

kiln_status kiln_spread_init(kiln_spread *s, const kiln_observer *o, kiln_arena *arena) {
    *s = (kiln_spread){.o = o, .arena = arena};
    if (!o->bins[0]) {
        return KILN_OK;
    }
    s->width = kiln_observer_width(o);
    KILN_ALLOC(s->n, arena, CELLS + 1);
    KILN_ALLOC(s->nv, arena, CELLS + 1);
    KILN_ALLOC(s->nvv, arena, CELLS + 1);
    KILN_ALLOC(s->h, arena, KILN_ENTROPY_BINS + 1);
    KILN_ALLOC(s->filled, arena, KILN_ENTROPY_BINS + 1);
    for (int32_t k = 0; k < CELLS; k++) {
        double n = (double)count_of(o, k), v = middle_of(s, k);
        s->n[k + 1] = s->n[k] + n;
        s->nv[k + 1] = s->nv[k] + n * v;
        s->nvv[k + 1] = s->nvv[k] + n * v * v;
    }
    s->signal = s->nvv[CELLS];
    return KILN_OK;
}

/* Number of cells whose middle lies below x. */
static int32_t cells_below(const kiln_spread *s, double x) {
    double k = ceil(x / s->width + KILN_BINS - 0.5);
    return k <= 0 ? 0 : k >= CELLS ? CELLS : (int32_t)k;
}

/* Sum of squared distances to `level` of the cells from one to the other. */
static double distance(const kiln_spread *s, int32_t from, int32_t to, double level) {
    double sum = s->nvv[to] - s->nvv[from] - 2 * level * (s->nv[to] - s->nv[from]) +
                 level * level * (s->n[to] - s->n[from]);
    return to > from && sum > 0 ? sum : 0;
}

double kiln_spread_error(const kiln_spread *s, const kiln_qparams *q) {
    double error = 0;
    if (!s->n) {
        return 0;
    }
    for (int32_t i = q->qlo, from = 0; i <= q->qhi; i++) {
        double level = (double)(i - q->zero) * (double)q->scale;
        int32_t to = i == q->qhi ? CELLS : cells_below(s, level + 0.5 * (double)q->scale);
        error += distance(s, from, to, level);
        from = to;
    }
    return error;
}

double kiln_spread_cut(const kiln_spread *s, const kiln_qparams *q) {
    double lo = (double)(q->qlo - q->zero) * (double)q->scale;
    double hi = (double)(q->qhi - q->zero) * (double)q->scale;
    return s->n
               ? distance(s, 0, cells_below(s, lo), lo) + distance(s, cells_below(s, hi), CELLS, hi)
               : 0;
}

double kiln_spread_sqnr(const kiln_spread *s, double error) {
    return error > 0 ? 10 * log10(s->signal / error) : (double)INFINITY;
}

/* ---- Ranges ---- */

/* [lo, hi] cut to what was seen, with 0 inside, and its error. Symmetric: the larger side on both.
 * A range without extent, such as the 99th percentile of values that are mostly 0, would lose all
 * there is: then everything seen is the range. */
static kiln_range make_range(const kiln_spread *s, const kiln_scheme *scheme, double lo, double hi,
                             kiln_calibrator calibrator) {
    double amax = (double)kiln_observer_amax(s->o);
    double least = s->o->count ? (double)s->o->min : 0, most = s->o->count ? (double)s->o->max : 0;
    kiln_range r = {.calibrator = calibrator};
    if (!(lo < 0) && !(hi > 0)) {
        lo = least;
        hi = most;
    }
    if (scheme->symmetric) {
        r.hi = -lo > hi ? -lo : hi;
        r.hi = r.hi < amax ? r.hi : amax;
        r.lo = -r.hi;
    } else {
        r.lo = lo > least ? lo : least;
        r.hi = hi < most ? hi : most;
        r.lo = r.lo < 0 ? r.lo : 0;
        r.hi = r.hi > 0 ? r.hi : 0;
    }
    kiln_qparams q = kiln_qparams_of(r.lo, r.hi, scheme);
    r.sqnr_db = kiln_spread_sqnr(s, kiln_spread_error(s, &q));
    return r;
}

kiln_range kiln_range_max(const kiln_spread *s, const kiln_scheme *scheme) {
    double amax = (double)kiln_observer_amax(s->o);
    return make_range(s, scheme, -amax, amax, KILN_CALIBRATOR_MAX);
}

/* ---- Percentile ---- */

/* The |x| below which `want` of the elements counted by bins[] lie, `base` of which are 0. */
static double quantile(const uint64_t *a, const uint64_t *b, double base, double want,
                       double width) {
    double below = base;
    if (want <= below) {
        return 0;
    }
    for (int32_t i = 0; i < KILN_BINS; i++) {
        double n = (double)a[i] + (b ? (double)b[i] : 0);
        if (n > 0 && below + n >= want) {
            return (i + (want - below) / n) * width;
        }
        below += n;
    }
    return KILN_BINS * width;
}

kiln_range kiln_range_percentile(const kiln_spread *s, const kiln_scheme *scheme, double p) {
    const kiln_observer *o = s->o;
    double lo = 0, hi = 0, count = (double)o->count;
    if (s->n && scheme->symmetric) {
        hi = quantile(o->bins[0], o->bins[1], (double)o->zeros, count * p / 100, s->width);
        lo = -hi;
    } else if (s->n) {
        double inside = count * (1 - (100 - p) / 200);
        double below = s->n[KILN_BINS], above = s->n[CELLS] - below, zeros = (double)o->zeros;
        hi = quantile(o->bins[1], NULL, below + zeros, inside, s->width);
        lo = -quantile(o->bins[0], NULL, above + zeros, inside, s->width);
    }
    kiln_range r = make_range(s, scheme, lo, hi, KILN_CALIBRATOR_PERCENTILE);
    r.percentile = p;
    return r;
}

/* ---- Entropy ---- */

/* Spreads the bins of |x| over KILN_ENTROPY_BINS bins of [0, amax], in proportion where they
 * straddle an edge. Left are running sums: h[i] elements and filled[i] bins that are not empty,
 * below bin i. */
static void fold_bins(const kiln_spread *s) {
    const kiln_observer *o = s->o;
    double per_bin = KILN_ENTROPY_BINS / (double)kiln_observer_amax(o) * s->width;
    memset(s->h, 0, (KILN_ENTROPY_BINS + 1) * sizeof *s->h);
    for (int32_t i = 0; i < KILN_BINS; i++) {
        double n = (double)o->bins[0][i] + (double)o->bins[1][i];
        if (n > 0) {
            double at = i * per_bin, end = (i + 1) * per_bin;
            int32_t bin = (int32_t)at;
            bin = bin < KILN_ENTROPY_BINS ? bin : KILN_ENTROPY_BINS - 1;
            double share = end > bin + 1 ? (bin + 1 - at) / per_bin : 1;
            bool last = bin == KILN_ENTROPY_BINS - 1;
            s->h[bin + 1] += last ? n : n * share;
            s->h[bin + 2 - last] += last ? 0 : n * (1 - share);
        }
    }
    s->filled[0] = 0;
    for (int32_t i = 1; i <= KILN_ENTROPY_BINS; i++) {
        s->filled[i] = s->filled[i - 1] + (s->h[i] > 0 ? 1 : 0);
        s->h[i] += s->h[i - 1];
    }
}

static const double EMPTY = 1e-4;

static double x_log_x(double x) {
    return x > 0 ? x * log(x) : 0;
}

/* sum P log(P / Q) for the first m bins, `p_log_p` being sum x log x over the first m - 1 of them:
 * P has what lies beyond on its last bin; Q is P without that, averaged over the filled bins of
 * each of KILN_ENTROPY_LEVELS equal parts. Where P has something and Q nothing, which only the last
 * part can bring, Q counts as EMPTY elements. */
static double divergence(const kiln_spread *s, int32_t m, double p_log_p) {
    double total = s->h[KILN_ENTROPY_BINS], kept = s->h[m], outside = total - kept;
    double last = s->h[m] - s->h[m - 1] + outside, p_log_q = 0;
    bool last_empty = s->filled[m] == s->filled[m - 1];
    for (int32_t k = 0; k < KILN_ENTROPY_LEVELS; k++) {
        int32_t a = (int32_t)((int64_t)k * m / KILN_ENTROPY_LEVELS);
        int32_t b = (int32_t)((int64_t)(k + 1) * m / KILN_ENTROPY_LEVELS);
        bool is_last = k == KILN_ENTROPY_LEVELS - 1;
        double mass = s->h[b] - s->h[a], p = mass + (is_last ? outside : 0);
        double filled = s->filled[b] - s->filled[a] + (is_last && last_empty && last > 0 ? 1 : 0);
        p_log_q += p > 0 ? p * log(mass > 0 ? mass / filled : EMPTY) : 0;
    }
    /* P is normed by total, Q by kept. */
    return kept > 0 ? (p_log_p + x_log_x(last) - p_log_q) / total + log(kept / total)
                    : (double)INFINITY;
}

kiln_range kiln_range_entropy(const kiln_spread *s, const kiln_scheme *scheme) {
    double best = (double)INFINITY, amax = (double)kiln_observer_amax(s->o), p_log_p = 0;
    int32_t best_m = KILN_ENTROPY_BINS;
    if (s->n) {
        fold_bins(s);
        for (int32_t m = 1; m <= KILN_ENTROPY_BINS; m++) {
            double d = m < KILN_ENTROPY_LEVELS ? (double)INFINITY : divergence(s, m, p_log_p);
            if (d < best) {
                best = d;
                best_m = m;
            }
            p_log_p += x_log_x(s->h[m] - s->h[m - 1]);
        }
    }
    /* The middle of the last bin kept. */
    double t = best_m == KILN_ENTROPY_BINS ? amax : amax * (best_m - 0.5) / KILN_ENTROPY_BINS;
    return make_range(s, scheme, -t, t, KILN_CALIBRATOR_ENTROPY);
}

/* ---- Least squares ---- */

enum { GRID = 512, COARSE = 32 };

typedef struct search {
    const kiln_spread *s;
    const kiln_scheme *scheme;
    double cut_weight;
    double lo, hi, error; /* the best so far */
} search;

static bool try_range(search *t, double lo, double hi) {
    kiln_qparams q = kiln_qparams_of(lo, hi, t->scheme);
    double error = kiln_spread_error(t->s, &q);
    error += t->cut_weight > 1 ? (t->cut_weight - 1) * kiln_spread_cut(t->s, &q) : 0;
    if (lo > hi || lo > 0 || hi < 0 || !(hi > lo) || !(error < t->error)) {
        return false;
    }
    t->lo = lo;
    t->hi = hi;
    t->error = error;
    return true;
}

/* Walks downhill in steps that get smaller; `free_lo`, `free_hi`: the ends that may move. Ends stay
 * within [least, most]. */
static void refine(search *t, double least, double most, double step, bool free_lo, bool free_hi) {
    for (double stop = step / 64; step > stop; step /= 2) {
        bool moved = true;
        for (int32_t round = 0; moved && round < COARSE; round++) {
            double lo = t->lo, hi = t->hi;
            moved = false;
            for (int32_t a = -1; a <= 1; a++) {
                for (int32_t b = -1; b <= 1; b++) {
                    double x = lo + (free_lo ? a * step : 0), y = hi + (free_hi ? b * step : 0);
                    moved |= x >= least && y <= most && try_range(t, x, y);
                }
            }
        }
    }
}

kiln_range kiln_range_mse(const kiln_spread *s, const kiln_scheme *scheme, double cut_weight) {
    kiln_range all = kiln_range_max(s, scheme);
    search t = {s, scheme, cut_weight, all.lo, all.hi, (double)INFINITY};
    if (s->n) {
        bool one = scheme->symmetric || all.lo == 0 || all.hi == 0;
        try_range(&t, all.lo, all.hi);
        for (int32_t i = 1; one && i <= GRID; i++) {
            try_range(&t, all.lo * i / GRID, all.hi * i / GRID);
        }
        for (int32_t i = 1; !one && i <= COARSE; i++) {
            for (int32_t k = 1; k <= COARSE; k++) {
                try_range(&t, all.lo * i / COARSE, all.hi * k / COARSE);
            }
        }
        double extent = all.hi - all.lo;
        if (!scheme->symmetric) {
            refine(&t, all.lo, all.hi, extent / (one ? GRID : COARSE), all.lo<0, all.hi> 0);
        }
    }
    return make_range(s, scheme, t.lo, t.hi, KILN_CALIBRATOR_MSE);
}

/* ---- The choice ---- */

static const double default_percentiles[] = {99.9, 99.99, 99.999};

static const char *const names[KILN_CALIBRATOR_COUNT] = {"auto", "max", "percentile", "entropy",
                                                         "mse"};

const char *kiln_calibrator_name(kiln_calibrator calibrator) {
    return (unsigned)calibrator < KILN_CALIBRATOR_COUNT ? names[calibrator] : "?";
}

kiln_calibrator kiln_calibrator_parse(const char *name) {
    int i = 0;
    while (i < KILN_CALIBRATOR_COUNT && !(name && strcmp(names[i], name) == 0)) {
        i++;
    }
    return (kiln_calibrator)i;
}

kiln_status kiln_calibrate_plan_of(kiln_calibrate_plan *out, const kiln_calibrate_options *options,
                                   kiln_diag *diag) {
    kiln_calibrate_options o;
    if (kiln_options_read(&o, sizeof o, options) != KILN_OK ||
        (unsigned)o.calibrator >= KILN_CALIBRATOR_COUNT) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "the calibration options have no size, unknown fields or no calibrator");
    }
    *out = (kiln_calibrate_plan){.scheme = {o.bits ? o.bits : 8, o.symmetric},
                                 .calibrator = o.calibrator,
                                 .percentiles = o.percentiles,
                                 .n_percentiles = o.n_percentiles,
                                 .cut_weight = 1};
    if (o.bits && (o.bits < 2 || o.bits > 8)) {
        return kiln_fail(diag, KILN_F_OPTION, "%d bits: 2 to 8 can be had", o.bits);
    }
    if (!o.percentiles || !o.n_percentiles) {
        out->percentiles = default_percentiles;
        out->n_percentiles = KILN_COUNT_OF(default_percentiles);
    }
    if (out->n_percentiles > KILN_MAX_PERCENTILES) {
        return kiln_fail(diag, KILN_F_OPTION, "%zu percentiles: at most %d are tried",
                         out->n_percentiles, KILN_MAX_PERCENTILES);
    }
    if (o.cut_weight > 0 || o.cut_weight < 0) {
        out->cut_weight = o.cut_weight;
    }
    if (!(out->cut_weight >= 1 && out->cut_weight <= 1e6)) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "what is cut off cannot count %g times: 1 to 1000000 are possible",
                         o.cut_weight);
    }
    for (size_t i = 0; i < out->n_percentiles; i++) {
        if (!(out->percentiles[i] > 50 && out->percentiles[i] <= 100)) {
            return kiln_fail(diag, KILN_F_OPTION, "percentile %g is not above 50 and at most 100",
                             out->percentiles[i]);
        }
    }
    return KILN_OK;
}

/* Puts r where its SQNR ranks; of equals the first stays first. */
static size_t insert(kiln_range *out, size_t n, kiln_range r) {
    size_t at = n;
    for (; at > 0 && out[at - 1].sqnr_db < r.sqnr_db; at--) {
        out[at] = out[at - 1];
    }
    out[at] = r;
    return n + 1;
}

size_t kiln_find_ranges(const kiln_spread *s, const kiln_calibrate_plan *plan,
                        kiln_range out[KILN_MAX_CANDIDATES]) {
    const kiln_scheme *scheme = &plan->scheme;
    kiln_calibrator c = plan->calibrator;
    bool all = c == KILN_CALIBRATOR_AUTO;
    size_t n = 0;
    if (all || c == KILN_CALIBRATOR_MAX) {
        n = insert(out, n, kiln_range_max(s, scheme));
    }
    for (size_t i = 0; i < plan->n_percentiles && (all || c == KILN_CALIBRATOR_PERCENTILE); i++) {
        n = insert(out, n, kiln_range_percentile(s, scheme, plan->percentiles[i]));
    }
    if (all || c == KILN_CALIBRATOR_ENTROPY) {
        n = insert(out, n, kiln_range_entropy(s, scheme));
    }
    if (all || c == KILN_CALIBRATOR_MSE) {
        n = insert(out, n, kiln_range_mse(s, scheme, plan->cut_weight));
    }
    return n;
}
