/* reduce.h - reductions of x[outer, n, inner] along n.
 *
 * One contiguous group of reduced dims, collapsed by the caller (several groups: permute first).
 * Results y[outer, inner], numbered outer * inner + inner index, are independent; the caller cuts
 * their range anywhere. Along the inner axis (inner == 1) a result is a row's, summed by four
 * partial vectors per segment of 4096; otherwise lanes are neighbouring results and partial sums of
 * 64 elements are added in order. Both trees depend on n alone.
 *
 *     kiln_reduce_args a = {.op = KILN_REDUCE_MEAN, .n = 49, .inner = 512, .x = x, .y = y};
 *     prims->reduce(&a, 0, outer * 512);
 *
 * n == 0 gives the op's neutral element: 0 (sums, norms), NaN (mean), 1 (prod), -inf (max,
 * logsum, logsumexp), +inf (min). MAX and MIN give NaN when there is one, argmax and argmin its
 * place, as numpy does.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_REDUCE_H
#define KILN_BACKEND_CPU_PRIMS_REDUCE_H

#include "base/compiler.h"

typedef enum kiln_reduce_op {
    KILN_REDUCE_SUM,
    KILN_REDUCE_MEAN,
    KILN_REDUCE_MAX,
    KILN_REDUCE_MIN,
    KILN_REDUCE_PROD,
    KILN_REDUCE_L1,        /* sum |x| */
    KILN_REDUCE_L2,        /* sqrt(sum x^2) */
    KILN_REDUCE_SUMSQ,     /* sum x^2 */
    KILN_REDUCE_LOGSUM,    /* log(sum x) */
    KILN_REDUCE_LOGSUMEXP, /* log(sum exp(x)), without overflow */
    KILN_REDUCE_COUNT,
} kiln_reduce_op;

typedef struct kiln_reduce_args {
    kiln_reduce_op op;
    int64_t n, inner;
    const float *x; /* [outer, n, inner] */
    float *y;       /* [outer, inner] */
} kiln_reduce_args;

typedef struct kiln_argreduce_args {
    bool min;  /* argmin instead of argmax */
    bool last; /* the last of equal elements instead of the first */
    int64_t n; /* 1 .. 2^31 - 1 */
    int64_t inner;
    const float *x; /* [outer, n, inner] */
    int64_t *y;     /* [outer, inner]: index along n */
} kiln_argreduce_args;

typedef struct kiln_reduce_prims {
    /* Results [begin, end) of 0 .. outer * inner. */
    void (*reduce)(const kiln_reduce_args *args, int64_t begin, int64_t end);
    void (*argreduce)(const kiln_argreduce_args *args, int64_t begin, int64_t end);
} kiln_reduce_prims;

extern const kiln_reduce_prims kiln_reduce_prims_portable;
extern const kiln_reduce_prims kiln_reduce_prims_avx2;
extern const kiln_reduce_prims kiln_reduce_prims_avx512;

#endif
