/* conv_q8_pack.h - constant weights of 8-bit convolutions as the prims want them. */
#ifndef KILN_BACKEND_CPU_KERNELS_CONV_Q8_PACK_H
#define KILN_BACKEND_CPU_KERNELS_CONV_Q8_PACK_H

#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/depthwise_q8.h"

/* Rows of the start table: one for each residue of a transposed convolution. */
static inline int64_t kiln_conv_q8_start_rows(const kiln_conv_args *a) {
    return a->transposed ? a->stride[0] * a->stride[1] * a->stride[2] : 1;
}

/* Bytes of the packed weights; `depthwise` says for which prims. */
size_t kiln_conv_q8_packed_bytes(const kiln_packer *k, const kiln_conv_args *a, bool depthwise);

/* Packs `src`, weights in ONNX's order, into `dst`, and adds them up: sums[row * ld + channel] of
 * each start row and output channel. KILN_E_MEMORY. */
kiln_status kiln_conv_q8_pack(kiln_packer *k, const kiln_conv_args *a, bool depthwise, void *dst,
                              const int8_t *src, int32_t *sums, int64_t ld);

#endif
