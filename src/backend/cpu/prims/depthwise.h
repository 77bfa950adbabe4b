/* depthwise.h - float32 depthwise convolution: every group has one input channel.
 *
 * The problem is a kiln_conv_args (conv.h) with groups == c_in and c_out a multiple of c_in, not
 * transposed, not planar, x_channel == 1; tactic is ignored. Use is as for kiln_conv_prims: pack at
 * build time, one scratch for each thread, any split of the tiles.
 *
 * Channels lie along the vector. A strip of up to eight neighbouring outputs of a line is held in
 * registers; kernels of width 3, 5 and 7 with stride 1 and of width 3 and 5 with stride 2 load
 * every input column once for all outputs of the strip that see it, others load it for each tap.
 * Kernel rows that fall into the padding are skipped, columns that do read a row of zeros. An
 * output is one chain of multiply-adds in tap order that starts at the bias, whatever the strip, so
 * the bits do not depend on the split.
 *
 * kiln_depthwise_half_prims: x is bfloat16, its strides count such elements, and the epilogue's
 * `result` (gemm.h) is where results go, rounded, unless it is NULL.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_DEPTHWISE_H
#define KILN_BACKEND_CPU_PRIMS_DEPTHWISE_H

#include "backend/cpu/prims/conv.h"

typedef struct kiln_depthwise_prims {
    const char *isa;
    /* Packed weights [tap][c_out]; depends on c_out and kernel alone. Source:
     * [c_out][1][D][H][W]. */
    int64_t (*packed_bytes)(const kiln_conv_args *args);
    void (*pack)(void *dst, const float *src, const kiln_conv_args *args);
    /* Bytes of scratch for each thread that calls run, 64-byte aligned, contents irrelevant. */
    int64_t (*scratch_bytes)(const kiln_conv_args *args);
    int64_t (*tiles)(const kiln_conv_args *args);
    void (*run)(const kiln_conv_args *args, int64_t tile_begin, int64_t tile_end, void *scratch);
} kiln_depthwise_prims;

extern const kiln_depthwise_prims kiln_depthwise_prims_portable;
extern const kiln_depthwise_prims kiln_depthwise_prims_avx2;
extern const kiln_depthwise_prims kiln_depthwise_prims_avx512;

#endif
