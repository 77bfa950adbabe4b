/* rounding.h - which of its two neighbours on the grid each weight goes to.
 *
 * To the nearest is best for each weight and not for their sum. With rows x of what a layer reads,
 * its output is off by e x for the errors e = q * scale - w of one row of weights, on average
 *
 *     E[(e x)^2] = e H e^T            H = E[x^T x], or the covariance where a bias takes the mean
 *
 * (Nagel et al., "Up or Down? Adaptive Rounding", ICML 2020; the choice between floor and ceil is
 * theirs). Starting from the nearest, one weight after the other moves to the neighbour that gives
 * the least sum while the others stay, which is the one nearest to w - (e H)[k without its own
 * part] / H[k,k], until a sweep moves none: cyclic coordinate descent, which never makes the sum
 * larger and needs no inverse of H (Behdin et al., "QuantEase", 2023).
 *
 *     kiln_gram g;
 *     KILN_TRY(kiln_gram_init(&g, groups, k, true, arena));
 *     for (rows of x) { kiln_gram_add(&g, x, q, n); }
 *     kiln_gram_finish(&g, centered);
 *     moved = kiln_round_row(q, w, scale, half, kiln_gram_matrix(&g, group), k, scratch); */
#ifndef KILN_QUANT_ROUNDING_H
#define KILN_QUANT_ROUNDING_H

#include "base/arena.h"
#include "base/diag.h"

/* Sums over rows of `groups` vectors of k elements. */
typedef struct kiln_gram {
    int64_t groups, k;
    double rows;
    double *sum_x, *sum_q; /* [groups, k] of the rows as they are and as they are quantized */
    float *h;              /* [groups, k, k] products of quantized ones; or NULL */
} kiln_gram;

/* KILN_E_MEMORY. */
kiln_status kiln_gram_init(kiln_gram *g, int64_t groups, int64_t k, bool products,
                           kiln_arena *arena);
/* Bytes that it takes. Saturates. */
size_t kiln_gram_bytes(int64_t groups, int64_t k, bool products);
/* Adds n rows [groups, k], dense. */
void kiln_gram_add(kiln_gram *g, const float *x, const float *q, int64_t n);
/* Sums become means, and the matrices whole; with `centered`, covariances. What two elements have
 * in common is believed to the extent rows / (rows + k): few rows do not pretend to know more
 * directions than they are (shrinkage towards the diagonal). */
void kiln_gram_finish(kiln_gram *g, bool centered);

static inline const float *kiln_gram_matrix(const kiln_gram *g, int64_t group) {
    return g->h + group * g->k * g->k;
}

/* Rounds w[k] to q[k] * scale, |q| <= half - 1, from the nearest on; returns how many went the
 * other way. scratch: 2 k floats. */
int64_t kiln_round_row(int8_t *q, const float *w, float scale, int32_t half, const float *h,
                       int64_t k, float *scratch);

#endif
