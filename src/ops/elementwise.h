/* elementwise.h - what operators that broadcast element by element share.
 *
 * In ref, the output is walked row by row; each input has a start and a step within the row (0
 * where it is repeated):
 *
 *     kiln_rows r;
 *     kiln_rows_init(&r, out, in, 2);
 *     for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
 *         for (int64_t k = 0; k < r.n; k++) {
 *             y[r.out + k] = a[r.at[0] + k * r.step[0]] + b[r.at[1] + k * r.step[1]];
 *         }
 *     }
 *
 * In infer, kiln_contents_map computes the known elements of small integer outputs, which is how
 * the shape arithmetic of exported models vanishes.
 */
#ifndef KILN_OPS_ELEMENTWISE_H
#define KILN_OPS_ELEMENTWISE_H

#include "ops/util.h"

enum { KILN_ROWS_OPERANDS = 3 };

typedef struct kiln_rows {
    kiln_walk walk;
    int64_t n;   /* elements of a row; 0 when the output is empty */
    int64_t out; /* index of the row's first output element */
    int64_t at[KILN_ROWS_OPERANDS];
    int64_t step[KILN_ROWS_OPERANDS];
    int32_t n_in;
} kiln_rows;

/* Starts at the first row. Every input must broadcast to out's shape (infer checked it). */
void kiln_rows_init(kiln_rows *r, const kiln_tensor *out, const kiln_tensor *const *in,
                    int32_t n_in);
/* Moves to the next row; false after the last. */
bool kiln_rows_next(kiln_rows *r);

/* If output 0 is a small int32, int64 or bool tensor of known shape, sets its contents to fn(c,
 * elements of inputs 0..n_in-1 broadcast to it). Elements of inputs that are not known are given as
 * KILN_DIM_UNKNOWN, as fn may answer. Results outside int32 become unknown in int32 outputs. */
kiln_status kiln_contents_map(kiln_infer *c, int32_t n_in,
                              kiln_dim (*fn)(const kiln_infer *c, const kiln_dim *x));

/* The dim is surely >= 0: sizes are, and sums, products, quotients and minima of such. */
bool kiln_dim_nonneg(const kiln_dims *dims, kiln_dim d);

#endif
