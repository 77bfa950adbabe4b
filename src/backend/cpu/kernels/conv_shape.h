/* conv_shape.h - the geometry of Conv and ConvTranspose nodes as the convolution prims want it:
 * always D, H, W, whatever the rank. */
#ifndef KILN_BACKEND_CPU_KERNELS_CONV_SHAPE_H
#define KILN_BACKEND_CPU_KERNELS_CONV_SHAPE_H

#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/conv.h"
#include "ops/window.h"

/* A claim of the kernel for a Conv or ConvTranspose of float32 with constant weights, at the
 * precision it computes in; input 0 is the activations. NULL: refused (c->reason). */
kiln_claim *kiln_conv_begin(kiln_claimer *c, kiln_node *node, const kiln_kernel *kernel,
                            size_t params_bytes);

/* What is known at claim time, from the attributes and the weights' dims: the window, groups,
 * channels, kernel, stride, dilation, transposed. False: the claim is refused (c->reason). */
bool kiln_conv_read(kiln_claimer *c, const kiln_node *node, kiln_window *window,
                    kiln_conv_args *args);

/* Every group has one input channel, and there are several. */
static inline bool kiln_conv_is_depthwise(const kiln_conv_args *a) {
    return !a->transposed && a->groups > 1 && a->groups == a->c_in;
}

/* The rest at bind time, from the claim's anchor, its input 0 and the anchor's output: batch,
 * sizes, pads, input strides, ldy. */
kiln_status kiln_conv_resolve(kiln_binder *b, const kiln_window *window, kiln_conv_args *args);

#endif
