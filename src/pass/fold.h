/* fold.h - constants made of constants: computed at once when small, kept as expressions when
 * large. */
#ifndef KILN_PASS_FOLD_H
#define KILN_PASS_FOLD_H

#include "pass/match.h"

/* Results up to this size are computed at once. */
enum { KILN_FOLD_NOW_BYTES = 4096 };
/* An expression is computed once it is deeper than this, or would evaluate more nodes than
 * KILN_FOLD_NODES (shared parts count each time, as evaluation does not cache). */
enum { KILN_FOLD_DEPTH = 32, KILN_FOLD_NODES = 128 };

/* The stored data of a constant, or its expression evaluated into arena. */
kiln_status kiln_fold_data(const kiln_value *v, kiln_tensor *out, kiln_arena *arena,
                           kiln_diag *diag);
/* A new constant op(in...) of the type given, as the rules above have it. NULL when it cannot be
 * computed or out of memory. */
kiln_value *kiln_fold_make(kiln_patch *p, const char *op, kiln_value *const *in, int32_t n_in,
                           const kiln_tensor *type);
/* A new expression constant whose attributes are set, computed when the rules above say so. NULL
 * when it cannot be. */
kiln_value *kiln_fold_settle(kiln_patch *p, kiln_value *v);
/* The elements of a constant as doubles in p's arena, or NULL (not numeric, cannot be computed). */
double *kiln_fold_doubles(kiln_patch *p, const kiln_value *v, int64_t *n);
/* The two constants are the same: the same bytes, or the same expression of the same constants. */
bool kiln_fold_same(const kiln_value *a, const kiln_value *b);
/* A new constant of these numbers. */
kiln_value *kiln_fold_vector(kiln_patch *p, kiln_dtype dtype, const double *v, int32_t rank,
                             const int64_t *dims);

#endif
