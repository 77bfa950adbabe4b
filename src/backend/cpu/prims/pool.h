/* pool.h - pooling over channels-last images of floats or bytes.
 *
 * x[batch, D, H, W, C] -> y[batch, OD, OH, OW, C], float32; lower ranks have leading dims of 1.
 * Output dims are given (ceil_mode is the caller's arithmetic); windows may hang over the padding's
 * far end, and only the padded image counts for include_pad. The unit of work is one output pixel,
 * numbered row-major over [batch, OD, OH, OW]; any cut of their range gives the same bits.
 *
 *     kiln_pool_args a = {.op = KILN_POOL_MAX, .batch = 1, .channels = 64,
 *                         .in = {1, 112, 112}, .out = {1, 56, 56}, .kernel = {1, 3, 3},
 *                         .stride = {1, 2, 2}, .dilation = {1, 1, 1}, .pad = {0, 1, 1},
 *                         .pad_end = {0, 1, 1}, .x = x, .y = y};
 *     prims->pool(&a, 0, 56 * 56);
 *
 * MAX gives NaN when the window holds one, -inf where it holds no element. An average over no
 * element is NaN (0 with include_pad).
 */
#ifndef KILN_BACKEND_CPU_PRIMS_POOL_H
#define KILN_BACKEND_CPU_PRIMS_POOL_H

#include "base/compiler.h"

typedef enum kiln_pool_op { KILN_POOL_MAX, KILN_POOL_AVG, KILN_POOL_LP } kiln_pool_op;

/* Spatial arrays are {depth, height, width}. */
typedef struct kiln_pool_args {
    kiln_pool_op op;
    int32_t p;        /* LP: (sum |x|^p)^(1/p), p >= 1 */
    bool include_pad; /* AVG: padding counts as elements of value 0 */
    int64_t batch, channels;
    int64_t in[3], out[3];
    int64_t kernel[3], stride[3], dilation[3];
    int64_t pad[3], pad_end[3]; /* before and after; pad_end matters for include_pad alone */
    bool half_x, half_y;        /* the elements are bfloat16; y is rounded to it */
    const void *x;
    void *y;
} kiln_pool_args;

/* Global pooling: y[batch, C] over x[batch, spatial, C]. */
typedef struct kiln_global_pool_args {
    kiln_pool_op op;
    int32_t p;
    int64_t spatial, channels;
    bool half_x; /* the elements of x are bfloat16 */
    const void *x;
    float *y;
} kiln_global_pool_args;

/* Pools of bytes. MAX takes uint8 or int8 and gives the same. AVG takes uint8 and sums integers:
 * with s = sum of (x - x_zero) over the elements inside, n what the average divides by, and
 * m = x_step / n, the result is float(s) * m, or with q bytes
 * sat(round_half_even(float(s) * m) + y_zero), m = x_step / (n * y_step): m is computed in double
 * and rounded to float once. Fewer than 2^23 elements to a window. */
typedef struct kiln_pool_q8_args {
    kiln_pool_args shape; /* its x and y are not used */
    bool is_signed;       /* MAX: int8 */
    bool to_float;        /* AVG: y is float32 */
    int32_t x_zero, y_zero;
    double x_step, y_step;
    const uint8_t *x;
    void *y;
} kiln_pool_q8_args;

typedef struct kiln_pool_prims {
    /* Output pixels [begin, end). */
    void (*pool)(const kiln_pool_args *args, int64_t begin, int64_t end);
    /* Results [begin, end) of 0 .. batch * channels, by partial sums of 64 pixels. */
    void (*global_pool)(const kiln_global_pool_args *args, int64_t begin, int64_t end);
    /* Output pixels [begin, end). */
    void (*pool_q8)(const kiln_pool_q8_args *args, int64_t begin, int64_t end);
} kiln_pool_prims;

extern const kiln_pool_prims kiln_pool_prims_portable;
extern const kiln_pool_prims kiln_pool_prims_avx2;
extern const kiln_pool_prims kiln_pool_prims_avx512;

#endif
