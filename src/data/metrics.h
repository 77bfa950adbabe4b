/* metrics.h - how good are the outputs: classification scores and tensor comparison.
 *
 * Both are streaming: values are added batch by batch, nothing is kept but sums, and the report can
 * be asked for at any time. All arithmetic is in double, whatever the element type.
 *
 *     kiln_classify c;
 *     KILN_TRY(kiln_classify_init(&c, 10, arena, diag));
 *     while (...) { KILN_TRY(kiln_classify_add(&c, &scores, i, labels, label_count, diag)); }
 *     kiln_classify_report r;
 *     kiln_classify_finish(&c, &r);                  // r.top1, r.top5, r.macro_f1, ...
 *
 *     kiln_compare c = {.atol = 1e-4, .rtol = 1e-3};
 *     KILN_TRY(kiln_compare_add(&c, &expected, &actual, diag));
 *     kiln_compare_report r;
 *     kiln_compare_finish(&c, &r);                   // r.max_abs, r.cosine, r.sqnr_db, ...
 */
#ifndef KILN_DATA_METRICS_H
#define KILN_DATA_METRICS_H

#include "base/arena.h"
#include "base/diag.h"

/* ---- Classification ---- */

enum { KILN_CLASSIFY_TOP = 5, KILN_CLASSIFY_MAX_CONFUSION = 4096 };

/* Running counts over samples with `classes` classes. Treat as opaque. */
typedef struct kiln_classify {
    int64_t classes;
    int64_t samples;
    int64_t top1_hits;
    int64_t top5_hits;
    int64_t nan_rows;   /* samples with a NaN score */
    double loss_sum;    /* -log of the label's probability, natural logarithm */
    int64_t loss_rows;  /* samples whose loss is defined */
    int64_t *actual;    /* [classes] samples with this label */
    int64_t *predicted; /* [classes] samples predicted so */
    int64_t *hits;      /* [classes] samples of this label predicted right */
    int64_t
        *confusion; /* [classes, classes] row = label, column = prediction; NULL when too many */
    int64_t last;   /* class predicted for the sample added last; -1: none */
    bool last_hit;
} kiln_classify;

typedef struct kiln_classify_report {
    int64_t samples;
    double top1, top5;                              /* shares, 0..1 */
    double loss;                                    /* mean cross-entropy in nats, or NaN */
    double macro_precision, macro_recall, macro_f1; /* plain mean over classes seen */
    double weighted_precision, weighted_recall, weighted_f1; /* mean weighted by true samples */
    int64_t nan_rows;
} kiln_classify_report;

/* Precision, recall and F1 of one class; a 0/0 counts as 0. */
typedef struct kiln_class_score {
    int64_t samples;
    double precision, recall, f1;
} kiln_class_score;

/* Arrays come from `arena`. The confusion matrix is kept up to KILN_CLASSIFY_MAX_CONFUSION classes.
 * KILN_E_USAGE when classes < 1, KILN_E_MEMORY. */
kiln_status kiln_classify_init(kiln_classify *c, int64_t classes, kiln_arena *arena,
                               kiln_diag *diag);

/* Adds row `row` of scores, a tensor [rows, classes] (trailing or middle dims of 1 are ignored; a
 * rank-1 tensor is one row). labels[0..label_count) are the accepted classes: a hit on any counts,
 * and the confusion row is labels[0] unless the prediction is another accepted label.
 * A class ranks before another when its score is higher, or equal and its index lower; NaN ranks
 * last. Scores that are non-negative and sum to 1 within 1e-3 are taken as probabilities for the
 * loss, others as logits.
 * KILN_E_USAGE when the row's width is not `classes` or a label is outside 0..classes-1. */
kiln_status kiln_classify_add(kiln_classify *c, const kiln_tensor *scores, int64_t row,
                              const int64_t *labels, int32_t label_count, kiln_diag *diag);

/* The same for a network that outputs class numbers: no top-5, no loss. */
kiln_status kiln_classify_add_class(kiln_classify *c, int64_t predicted, const int64_t *labels,
                                    int32_t label_count, kiln_diag *diag);

void kiln_classify_finish(const kiln_classify *c, kiln_classify_report *out);
kiln_class_score kiln_classify_class(const kiln_classify *c, int64_t label);

/* ---- Tensor comparison ---- */

/* Running sums over pairs of elements. Set the first block, zero the rest. */
typedef struct kiln_compare {
    double atol, rtol; /* an element passes when |a - e| <= atol + rtol * |e| */
    int64_t row;       /* row length for top-1 agreement; 0: the last dim of the tensors */
    double peak;       /* signal peak for PSNR; 0: the range of the expected values */

    int64_t count, passed, finite;
    int64_t expected_nan, actual_nan, expected_inf, actual_inf;
    int64_t nonfinite_mismatch; /* pairs where one is NaN or Inf and the other is not the same */
    int64_t rows, rows_agree;
    int64_t worst; /* flat index, counted over all added tensors, of max_abs */
    double worst_expected, worst_actual;
    double max_abs, max_rel, sum_abs;
    double dot, expected_sq, actual_sq, error_sq;
    double expected_min, expected_max;
} kiln_compare;

typedef struct kiln_compare_report {
    int64_t count, passed; /* elements, elements within tolerance */
    double max_abs;        /* over finite pairs, as all below */
    double max_rel;        /* |a - e| / |e|, over pairs with e != 0 */
    double mean_abs;
    double rmse;
    double cosine;         /* 1 when both are all zero, 0 when one is */
    double sqnr_db;        /* 10 log10(sum e^2 / sum (a - e)^2); +inf when equal */
    double psnr_db;        /* 10 log10(peak^2 / mean (a - e)^2); +inf when equal */
    double range;          /* max - min of the expected values */
    double top1_agreement; /* share of rows with the same largest element; NaN without rows */
    int64_t expected_nan, actual_nan, expected_inf, actual_inf, nonfinite_mismatch;
    int64_t worst; /* flat index of max_abs, -1 when nothing was compared */
    double worst_expected, worst_actual;
    bool pass; /* every element passed */
} kiln_compare_report;

/* Adds all elements of two tensors of equal dims; dtypes may differ (an INT8 output against FP32).
 * NaN equals NaN and an infinity equals itself. KILN_E_USAGE when the dims differ,
 * KILN_E_UNSUPPORTED for strings. */
kiln_status kiln_compare_add(kiln_compare *c, const kiln_tensor *expected,
                             const kiln_tensor *actual, kiln_diag *diag);
void kiln_compare_finish(const kiln_compare *c, kiln_compare_report *out);

#endif
