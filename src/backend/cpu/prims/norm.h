/* norm.h - normalisations: layer, RMS, instance, group and batch norm, softmax, Lp, LRN.
 *
 * float32, accumulated in float32 by fixed trees; variances are centred (two passes), because
 * E[x^2] - E[x]^2 loses all digits when the mean is large. Every function works on a range of
 * independent units (rows, or (outer, lane-block) pairs) that the caller may cut anywhere: results
 * do not depend on the cut. y may be x (same strides) everywhere but in lrn. LD = elements between
 * rows.
 *
 *     kiln_layernorm_args a = {.cols = 768, .eps = 1e-5f, .x = x, .x_ld = 768, .residual = r,
 *                              .residual_ld = 768, .scale = g, .bias = b, .y = y, .y_ld = 768};
 *     prims->layernorm(&a, row0, row1);
 */
#ifndef KILN_BACKEND_CPU_PRIMS_NORM_H
#define KILN_BACKEND_CPU_PRIMS_NORM_H

#include "base/compiler.h"

/* y[r] = (s - mean(s)) / sqrt(var(s) + eps) * scale + bias, s = x[r] + residual[r] + add.
 * NULL pointers leave their part out. */
typedef struct kiln_layernorm_args {
    int64_t cols;
    float eps;
    bool rms;       /* no mean: s / sqrt(mean(s^2) + eps) */
    const float *x; /* [rows, cols] */
    int64_t x_ld;
    const float *residual; /* [rows, cols] or NULL */
    int64_t residual_ld;
    const float *add; /* [cols] or NULL: added to every row before the norm */
    float *sum;       /* [rows, cols] or NULL: s; may be x or residual */
    int64_t sum_ld;
    const float *scale; /* [cols] or NULL */
    const float *bias;  /* [cols] or NULL */
    float *y;           /* [rows, cols] */
    int64_t y_ld;
    float *mean;    /* [rows] or NULL: mean(s) */
    float *inv_std; /* [rows] or NULL: 1 / sqrt(var + eps) */
} kiln_layernorm_args;

/* Group norm over x[batch, spatial, channels] (channels last). Groups of channels/groups
 * neighbours; groups == channels is instance norm. scale and bias: [channels] or NULL. */
typedef struct kiln_groupnorm_args {
    int64_t batch, spatial, channels, groups;
    float eps;
    const float *x;
    const float *scale;
    const float *bias;
    float *y;
} kiln_groupnorm_args;

/* The same over x[batch, channels, spatial] (channels first). Unit: one (batch, group). */

/* y[r, c] = x[r, c] * scale[c] + shift[c]: batch norm with folded statistics. shift may be NULL. */
typedef struct kiln_affine_args {
    int64_t cols;
    const float *x;
    int64_t x_ld;
    const float *scale;
    const float *shift;
    float *y;
    int64_t y_ld;
} kiln_affine_args;

/* Softmax or log-softmax of x[outer, n, inner] along n, max taken away first. A slice with NaN, or
 * with all elements -inf, gives NaN, as numpy does. y has x's layout. */
typedef struct kiln_softmax_args {
    int64_t n, inner;
    bool log;
    const float *x;
    float *y;
} kiln_softmax_args;

/* y = x / (sum |x|^p)^(1/p) of x[outer, n, inner] along n, p 1 or 2. A zero norm gives zeros. */
typedef struct kiln_lpnorm_args {
    int64_t n, inner;
    int32_t p;
    const float *x;
    float *y;
} kiln_lpnorm_args;

/* Local response normalisation across the channels of x[rows, channels], ONNX LRN:
 * y = x / (bias + alpha / size * sum of x^2 over `size` neighbours)^beta, the window reaching
 * (size-1)/2 down and size/2 up (rounded down and up). y is not x. */
typedef struct kiln_lrn_args {
    int64_t channels, size;
    float alpha, beta, bias;
    const float *x;
    float *y;
} kiln_lrn_args;

/* Along a middle axis, and in channels-last group norm, units are blocks of neighbouring lanes so
 * that a thread streams whole cache lines. */
enum { KILN_NORM_LANES = 64 };

typedef struct kiln_norm_prims {
    void (*layernorm)(const kiln_layernorm_args *args, int64_t row0, int64_t row1);
    /* Units 0 .. kiln_groupnorm_units(args). */
    void (*groupnorm_last)(const kiln_groupnorm_args *args, int64_t unit0, int64_t unit1);
    /* Units 0 .. batch * groups. */
    void (*groupnorm_first)(const kiln_groupnorm_args *args, int64_t unit0, int64_t unit1);
    void (*affine)(const kiln_affine_args *args, int64_t row0, int64_t row1);
    /* Units 0 .. kiln_lane_units(outer, inner). */
    void (*softmax)(const kiln_softmax_args *args, int64_t unit0, int64_t unit1);
    void (*lpnorm)(const kiln_lpnorm_args *args, int64_t unit0, int64_t unit1);
    void (*lrn)(const kiln_lrn_args *args, int64_t row0, int64_t row1);
} kiln_norm_prims;

extern const kiln_norm_prims kiln_norm_prims_portable;
extern const kiln_norm_prims kiln_norm_prims_avx2;
extern const kiln_norm_prims kiln_norm_prims_avx512;

/* Units of x[outer, n, inner]: KILN_NORM_LANES neighbours of inner together (rows when inner is
 * 1). */
static inline int64_t kiln_lane_units(int64_t outer, int64_t inner) {
    return outer * ((inner + KILN_NORM_LANES - 1) / KILN_NORM_LANES);
}

/* Groups per unit: at least KILN_NORM_LANES channels where there are as many. */
static inline int64_t kiln_groupnorm_block(const kiln_groupnorm_args *args) {
    int64_t width = args->channels / args->groups;
    int64_t together = (KILN_NORM_LANES + width - 1) / width;
    return together < args->groups ? together : args->groups;
}

static inline int64_t kiln_groupnorm_units(const kiln_groupnorm_args *args) {
    int64_t block = kiln_groupnorm_block(args);
    return args->batch * ((args->groups + block - 1) / block);
}

#endif
