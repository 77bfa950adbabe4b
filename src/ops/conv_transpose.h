/* conv_transpose.h - the geometry of ConvTranspose for kernels.
 *
 * The window is that of the convolution from Y to X: window.in holds Y's spatial sizes, window.out
 * X's, and input position i adds tap k to output position i * stride + k * dilation - pad_begin. */
#ifndef KILN_OPS_CONV_TRANSPOSE_H
#define KILN_OPS_CONV_TRANSPOSE_H

#include "ops/conv_core.h"

/* The window for shapes that infer has accepted; pads of output_shape and auto_pad resolved. */
kiln_status kiln_conv_transpose_window(kiln_window *w, const kiln_conv_transpose_attrs *a,
                                       const kiln_tensor *x, const kiln_tensor *weight,
                                       const kiln_tensor *y, kiln_diag *diag);

#endif
