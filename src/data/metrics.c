/* metrics.c - streaming classification scores and tensor comparison (metrics.h). */
#include "data/metrics.h"

#include <inttypes.h>
#include <math.h>

#include "base/checked.h"
#include "data/values.h"

/* Elements converted to double at a time: both blocks stay in the first-level cache. */
enum { BLOCK = 512 };

/* How far a row of probabilities may be from summing to 1. */
#define PROBABILITY_SLACK 1e-3

kiln_status kiln_classify_init(kiln_classify *c, int64_t classes, kiln_arena *arena,
                               kiln_diag *diag) {
    *c = (kiln_classify){.classes = classes};
    if (classes < 1) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         "classification needs at least one class, got %" PRId64, classes);
    }
    KILN_ALLOC(c->actual, arena, classes);
    KILN_ALLOC(c->predicted, arena, classes);
    KILN_ALLOC(c->hits, arena, classes);
    if (classes <= KILN_CLASSIFY_MAX_CONFUSION) {
        KILN_ALLOC(c->confusion, arena, classes * classes);
    }
    return KILN_OK;
}

static kiln_status check_labels(const kiln_classify *c, const int64_t *labels, int32_t count,
                                kiln_diag *diag) {
    if (count < 1) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "a sample has no label");
    }
    for (int32_t i = 0; i < count; ++i) {
        if (labels[i] < 0 || labels[i] >= c->classes) {
            return kiln_fail(diag, KILN_F_DATA_MISSING,
                             "label %" PRId64 " is outside the network's %" PRId64 " classes",
                             labels[i], c->classes);
        }
    }
    return KILN_OK;
}

static bool contains(const int64_t *labels, int32_t count, int64_t wanted) {
    for (int32_t i = 0; i < count; ++i) {
        if (labels[i] == wanted) {
            return true;
        }
    }
    return false;
}

/* Counts a prediction; -1 means none could be made. */
static void count_prediction(kiln_classify *c, int64_t predicted, const int64_t *labels,
                             int32_t count) {
    bool hit = contains(labels, count, predicted);
    int64_t label = hit ? predicted : labels[0];
    c->last = predicted;
    c->last_hit = hit;
    c->samples++;
    c->actual[label]++;
    c->top1_hits += hit;
    c->hits[label] += hit;
    if (predicted >= 0) {
        c->predicted[predicted]++;
        if (c->confusion) {
            c->confusion[label * c->classes + predicted]++;
        }
    }
}

/* What one walk over a row of scores finds. */
typedef struct row_facts {
    int64_t best[KILN_CLASSIFY_TOP]; /* indices, best first; -1 where the row is shorter */
    double best_score[KILN_CLASSIFY_TOP];
    double sum, min;
    bool has_nan;
} row_facts;

static void insert_best(row_facts *f, int64_t index, double score) {
    int32_t at = KILN_CLASSIFY_TOP;
    while (at > 0 && (f->best[at - 1] < 0 || score > f->best_score[at - 1])) {
        --at;
    }
    for (int32_t i = KILN_CLASSIFY_TOP - 1; i > at; --i) {
        f->best[i] = f->best[i - 1];
        f->best_score[i] = f->best_score[i - 1];
    }
    if (at < KILN_CLASSIFY_TOP) {
        f->best[at] = index;
        f->best_score[at] = score;
    }
}

static void scan_row(row_facts *f, const kiln_tensor *scores, int64_t first, int64_t width) {
    *f = (row_facts){.min = INFINITY};
    for (int32_t i = 0; i < KILN_CLASSIFY_TOP; ++i) {
        f->best[i] = -1;
    }
    double block[BLOCK];
    for (int64_t at = 0; at < width; at += BLOCK) {
        int64_t n = width - at < BLOCK ? width - at : BLOCK;
        kiln_values_load(block, scores, first + at, n);
        for (int64_t i = 0; i < n; ++i) {
            if (isnan(block[i])) {
                f->has_nan = true;
                continue;
            }
            f->sum += block[i];
            f->min = block[i] < f->min ? block[i] : f->min;
            insert_best(f, at + i, block[i]);
        }
    }
}

/* sum of exp(score - top) over the row, the softmax denominator without overflow. */
static double exp_sum(const kiln_tensor *scores, int64_t first, int64_t width, double top) {
    double block[BLOCK];
    double sum = 0;
    for (int64_t at = 0; at < width; at += BLOCK) {
        int64_t n = width - at < BLOCK ? width - at : BLOCK;
        kiln_values_load(block, scores, first + at, n);
        for (int64_t i = 0; i < n; ++i) {
            sum += exp(block[i] - top);
        }
    }
    return sum;
}

/* Cross-entropy of one row; accepted labels count as one class (their probabilities add up). */
static void add_loss(kiln_classify *c, const row_facts *f, const kiln_tensor *scores, int64_t first,
                     const int64_t *labels, int32_t count) {
    if (f->has_nan) {
        return;
    }
    bool probabilities = f->min >= 0 && fabs(f->sum - 1) <= PROBABILITY_SLACK;
    double top = f->best_score[0];
    double scale = probabilities ? 1 : 1 / exp_sum(scores, first, c->classes, top);
    double p = 0;
    for (int32_t i = 0; i < count; ++i) {
        double score = kiln_value_at(scores, first + labels[i]);
        p += probabilities ? score : exp(score - top) * scale;
    }
    /* A label that gets probability 0 has infinite loss; the smallest normal double keeps the mean
     * a number, as the usual libraries do with an epsilon. */
    c->loss_sum -= log(p > 2.2250738585072014e-308 ? p : 2.2250738585072014e-308);
    c->loss_rows++;
}

kiln_status kiln_classify_add(kiln_classify *c, const kiln_tensor *scores, int64_t row,
                              const int64_t *labels, int32_t label_count, kiln_diag *diag) {
    int64_t rows = scores->rank > 1 ? scores->dims[0] : 1;
    int64_t count = kiln_tensor_count(scores);
    if (kiln_values_per_element(scores->dtype) != 1 || count < 0 || row < 0 || row >= rows ||
        count / rows != c->classes || count % rows != 0) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         "output with %" PRId64 " %s values in %" PRId64
                         " rows does not hold %" PRId64 " class scores for row %" PRId64,
                         count, kiln_dtype_name(scores->dtype), rows, c->classes, row);
    }
    KILN_TRY(check_labels(c, labels, label_count, diag));
    row_facts facts;
    int64_t first = row * c->classes;
    scan_row(&facts, scores, first, c->classes);
    count_prediction(c, facts.best[0], labels, label_count);
    for (int32_t i = 0; i < KILN_CLASSIFY_TOP; ++i) {
        if (facts.best[i] >= 0 && contains(labels, label_count, facts.best[i])) {
            c->top5_hits++;
            break;
        }
    }
    c->nan_rows += facts.has_nan;
    add_loss(c, &facts, scores, first, labels, label_count);
    return KILN_OK;
}

kiln_status kiln_classify_add_class(kiln_classify *c, int64_t predicted, const int64_t *labels,
                                    int32_t label_count, kiln_diag *diag) {
    KILN_TRY(check_labels(c, labels, label_count, diag));
    if (predicted < 0 || predicted >= c->classes) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         "predicted class %" PRId64 " is outside the %" PRId64 " classes",
                         predicted, c->classes);
    }
    count_prediction(c, predicted, labels, label_count);
    c->top5_hits += contains(labels, label_count, predicted);
    return KILN_OK;
}

static double ratio(double num, double den) {
    return den > 0 ? num / den : 0;
}

kiln_class_score kiln_classify_class(const kiln_classify *c, int64_t label) {
    kiln_class_score s = {.samples = c->actual[label]};
    s.precision = ratio((double)c->hits[label], (double)c->predicted[label]);
    s.recall = ratio((double)c->hits[label], (double)c->actual[label]);
    s.f1 = ratio(2 * s.precision * s.recall, s.precision + s.recall);
    return s;
}

void kiln_classify_finish(const kiln_classify *c, kiln_classify_report *out) {
    double n = (double)c->samples;
    *out = (kiln_classify_report){
        .samples = c->samples,
        .top1 = ratio((double)c->top1_hits, n),
        .top5 = ratio((double)c->top5_hits, n),
        .loss = c->loss_rows > 0 ? c->loss_sum / (double)c->loss_rows : NAN,
        .nan_rows = c->nan_rows,
    };
    double seen = 0;
    for (int64_t i = 0; i < c->classes; ++i) {
        if (c->actual[i] == 0 && c->predicted[i] == 0) {
            continue;
        }
        kiln_class_score s = kiln_classify_class(c, i);
        double weight = ratio((double)s.samples, n);
        seen += 1;
        out->macro_precision += s.precision;
        out->macro_recall += s.recall;
        out->macro_f1 += s.f1;
        out->weighted_precision += weight * s.precision;
        out->weighted_recall += weight * s.recall;
        out->weighted_f1 += weight * s.f1;
    }
    out->macro_precision = ratio(out->macro_precision, seen);
    out->macro_recall = ratio(out->macro_recall, seen);
    out->macro_f1 = ratio(out->macro_f1, seen);
}

/* ---- Comparison ---- */

static void add_finite(kiln_compare *c, double e, double a, int64_t index) {
    double err = fabs(a - e);
    if (c->finite == 0 || err > c->max_abs) {
        c->max_abs = err;
        c->worst = index;
        c->worst_expected = e;
        c->worst_actual = a;
    }
    if (e != 0 && err / fabs(e) > c->max_rel) {
        c->max_rel = err / fabs(e);
    }
    c->expected_min = c->finite == 0 || e < c->expected_min ? e : c->expected_min;
    c->expected_max = c->finite == 0 || e > c->expected_max ? e : c->expected_max;
    c->sum_abs += err;
    c->dot += e * a;
    c->expected_sq += e * e;
    c->actual_sq += a * a;
    c->error_sq += err * err;
    c->passed += err <= c->atol + c->rtol * fabs(e);
    c->finite++;
}

static void add_pair(kiln_compare *c, double e, double a, int64_t index) {
    if (isfinite(e) && isfinite(a)) {
        add_finite(c, e, a, index);
        return;
    }
    c->expected_nan += isnan(e);
    c->actual_nan += isnan(a);
    c->expected_inf += isinf(e) != 0;
    c->actual_inf += isinf(a) != 0;
    bool same = (isnan(e) && isnan(a)) || e == a;
    c->nonfinite_mismatch += !same;
    c->passed += same;
}

/* The largest element seen so far in the current row of both tensors; NaN never wins. */
typedef struct row_best {
    int64_t filled;
    int64_t expected, actual;
    double expected_value, actual_value;
} row_best;

static void add_to_row(kiln_compare *c, row_best *best, int64_t row, double e, double a) {
    if (best->filled == 0) {
        *best = (row_best){.expected_value = -INFINITY, .actual_value = -INFINITY};
    }
    if (e > best->expected_value) {
        best->expected_value = e;
        best->expected = best->filled;
    }
    if (a > best->actual_value) {
        best->actual_value = a;
        best->actual = best->filled;
    }
    if (++best->filled == row) {
        c->rows++;
        c->rows_agree += best->expected == best->actual;
        best->filled = 0;
    }
}

static bool same_dims(const kiln_tensor *a, const kiln_tensor *b) {
    if (a->rank != b->rank) {
        return false;
    }
    for (int32_t i = 0; i < a->rank; ++i) {
        if (a->dims[i] != b->dims[i]) {
            return false;
        }
    }
    return true;
}

kiln_status kiln_compare_add(kiln_compare *c, const kiln_tensor *expected,
                             const kiln_tensor *actual, kiln_diag *diag) {
    int64_t count = kiln_tensor_count(expected);
    if (!same_dims(expected, actual) || count < 0) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         "tensors of %" PRId64 " and %" PRId64
                         " elements differ in shape and cannot be compared",
                         count, kiln_tensor_count(actual));
    }
    int32_t per = kiln_values_per_element(expected->dtype);
    if (per == 0 || per != kiln_values_per_element(actual->dtype)) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, "%s cannot be compared with %s",
                         kiln_dtype_name(expected->dtype), kiln_dtype_name(actual->dtype));
    }
    if (!kiln_mul_i64(count, per, &count)) {
        return kiln_fail(diag, KILN_F_OVERFLOW, "a tensor is too large to compare");
    }
    int64_t row =
        c->row > 0 ? c->row : (expected->rank > 0 ? expected->dims[expected->rank - 1] : 0);
    if (row < 2 || count % row != 0 || per != 1) {
        row = 0;
    }
    double e[BLOCK];
    double a[BLOCK];
    row_best best = {.filled = 0};
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        kiln_values_load(e, expected, at, n);
        kiln_values_load(a, actual, at, n);
        for (int64_t i = 0; i < n; ++i) {
            add_pair(c, e[i], a[i], c->count + at + i);
            if (row > 0) {
                add_to_row(c, &best, row, e[i], a[i]);
            }
        }
    }
    c->count += count;
    return KILN_OK;
}

/* 10 log10(signal / noise), +inf without noise. */
static double decibels(double signal, double noise) {
    return noise > 0 ? 10 * log10(signal / noise) : INFINITY;
}

static double cosine(const kiln_compare *c) {
    if (c->expected_sq > 0 && c->actual_sq > 0) {
        return c->dot / (sqrt(c->expected_sq) * sqrt(c->actual_sq));
    }
    return c->expected_sq == c->actual_sq ? 1 : 0;
}

void kiln_compare_finish(const kiln_compare *c, kiln_compare_report *out) {
    double n = c->finite > 0 ? (double)c->finite : 1;
    double range = c->expected_max - c->expected_min;
    double peak = c->peak > 0 ? c->peak : range;
    *out = (kiln_compare_report){
        .count = c->count,
        .passed = c->passed,
        .max_abs = c->max_abs,
        .max_rel = c->max_rel,
        .mean_abs = c->sum_abs / n,
        .rmse = sqrt(c->error_sq / n),
        .cosine = cosine(c),
        .sqnr_db = decibels(c->expected_sq, c->error_sq),
        .psnr_db = decibels(peak * peak, c->error_sq / n),
        .range = range,
        .top1_agreement = c->rows > 0 ? (double)c->rows_agree / (double)c->rows : NAN,
        .expected_nan = c->expected_nan,
        .actual_nan = c->actual_nan,
        .expected_inf = c->expected_inf,
        .actual_inf = c->actual_inf,
        .nonfinite_mismatch = c->nonfinite_mismatch,
        .worst = c->finite > 0 ? c->worst : -1,
        .worst_expected = c->worst_expected,
        .worst_actual = c->worst_actual,
        .pass = c->passed == c->count,
    };
}
