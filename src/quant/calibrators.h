/* calibrators.h - from a histogram to the ranges worth trying, each with the error it causes.
 *
 * A kiln_spread holds running sums of an observer's histogram, so that the squared error of a
 * quantization costs one look-up for each of its levels instead of a walk over all bins:
 *
 *     kiln_spread s;
 *     KILN_TRY(kiln_spread_init(&s, observer, arena));
 *     kiln_range all[KILN_MAX_CANDIDATES];
 *     size_t n = kiln_find_ranges(&s, &plan, all);          // best first
 *
 * Errors count every element of a bin at the bin's middle. With at least 4096 bins below the
 * greatest value and at most 256 levels, that changes an error by less than a percent.
 */
#ifndef KILN_QUANT_CALIBRATORS_H
#define KILN_QUANT_CALIBRATORS_H

#include "kiln/quant.h"
#include "quant/observer.h"
#include "quant/scales.h"

enum {
    KILN_MAX_PERCENTILES = 16,
    KILN_MAX_CANDIDATES = KILN_MAX_PERCENTILES + 3,
    KILN_ENTROPY_BINS = 2048,
    KILN_ENTROPY_LEVELS = 128,
};

/* Cell k of 2 * KILN_BINS stands for values around (k - KILN_BINS + 0.5) * width. */
typedef struct kiln_spread {
    const kiln_observer *o;
    kiln_arena *arena;
    double width;
    double *n, *nv, *nvv; /* [cells + 1] sums over cells below: elements, times value, squared */
    double *h, *filled;   /* [KILN_ENTROPY_BINS + 1] scratch of the entropy search */
    double signal;        /* sum of squares of all elements */
} kiln_spread;

/* Sums of an observer, which must stay as it is. KILN_E_MEMORY. */
kiln_status kiln_spread_init(kiln_spread *s, const kiln_observer *o, kiln_arena *arena);

/* Sum of squared errors of these parameters; 0 when nothing but zeros was seen. */
double kiln_spread_error(const kiln_spread *s, const kiln_qparams *q);
/* The part of it that comes from elements beyond the least and the greatest level. */
double kiln_spread_cut(const kiln_spread *s, const kiln_qparams *q);
/* 10 log10(signal / error); infinite without error. */
double kiln_spread_sqnr(const kiln_spread *s, double error);

/* The ranges of kiln_calibrator; each holds 0 and lies within [min, max] widened to it, symmetric
 * ones within the greatest magnitude. */
kiln_range kiln_range_max(const kiln_spread *s, const kiln_scheme *scheme);
/* p in (50, 100]: interpolated within a bin. */
kiln_range kiln_range_percentile(const kiln_spread *s, const kiln_scheme *scheme, double p);
kiln_range kiln_range_entropy(const kiln_spread *s, const kiln_scheme *scheme);
/* What the range cuts off counts cut_weight times: errors of rounding cancel on the way to the
 * outputs, while a sample that goes beyond a range does so in many elements at once. */
kiln_range kiln_range_mse(const kiln_spread *s, const kiln_scheme *scheme, double cut_weight);

/* What to try. */
typedef struct kiln_calibrate_plan {
    kiln_scheme scheme;
    kiln_calibrator calibrator; /* AUTO: all */
    const double *percentiles;
    size_t n_percentiles; /* at most KILN_MAX_PERCENTILES */
    double cut_weight;    /* of mse */
} kiln_calibrate_plan;

/* Defaults filled in; percentiles stay borrowed. KILN_F_OPTION. */
kiln_status kiln_calibrate_plan_of(kiln_calibrate_plan *out, const kiln_calibrate_options *options,
                                   kiln_diag *diag);
/* Writes the ranges of the plan, by falling SQNR, and returns how many there are (at least one). */
size_t kiln_find_ranges(const kiln_spread *s, const kiln_calibrate_plan *plan,
                        kiln_range out[KILN_MAX_CANDIDATES]);

#endif
