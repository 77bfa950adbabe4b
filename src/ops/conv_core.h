/* conv_core.h - what convolutions share: inference, and the sums of one image.
 *
 * Legend: N images, C input channels, M output channels, G groups; X [N, C, in...],
 * W [M, C/G, kernel...], Y [N, M, out...]. */
#ifndef KILN_OPS_CONV_CORE_H
#define KILN_OPS_CONV_CORE_H

#include "ops/window.h"

/* Checks X (input x), W (input w) and the attributes, and makes output 0 of `dtype`. *channels is M
 * (KILN_DIM_UNKNOWN when not known). */
kiln_status kiln_conv_infer(kiln_infer *c, int32_t x, int32_t w, kiln_dtype dtype,
                            kiln_dim *channels);

/* The window of a convolution whose shapes infer has accepted. */
kiln_status kiln_conv_window(kiln_window *win, const kiln_conv_attrs *a, const kiln_tensor *x,
                             const kiln_tensor *w, const kiln_tensor *y, kiln_diag *diag);

typedef struct kiln_conv_job {
    kiln_window win;
    const kiln_tensor *x, *w;
    int64_t group;
    double x_zero;        /* subtracted from every element of X; padding stays 0 */
    const double *w_zero; /* [M] subtracted from the channels of W, or NULL */
    double *plane;        /* scratch: in_count doubles */
} kiln_conv_job;

/* Adds the sums of image `n` to acc [M, out_count]. Exact for 8-bit integers. Errors: CANCELLED. */
kiln_status kiln_conv_image(const kiln_ref *c, const kiln_conv_job *job, int64_t n, double *acc);

void kiln_conv_cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                    kiln_cost *cost);
/* out elements * (elements of one output channel of the weight): MACs of any convolution. */
int64_t kiln_conv_macs(const kiln_fact *weight, const kiln_fact *out);

extern const kiln_attr kiln_conv_table[6];

#endif
