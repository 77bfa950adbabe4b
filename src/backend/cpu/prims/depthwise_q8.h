/* depthwise_q8.h - 8-bit depthwise convolution: every group has one input channel.
 *
 * The problem is a kiln_conv_q8_args (conv_q8.h) with groups == c_in and c_out a multiple of c_in,
 * not transposed. Use is as for kiln_conv_q8_prims.
 *
 * Channels lie along the vector. Kernels of width 3, 5 and 7 that are one row or square, with
 * stride 1 or 2, build every input column once for all outputs that see it: two (or four) kernel
 * rows of a column are interleaved, so that one multiply-add takes them all. Others go tap by tap.
 * Padding is a line of zero points. */
#ifndef KILN_BACKEND_CPU_PRIMS_DEPTHWISE_Q8_H
#define KILN_BACKEND_CPU_PRIMS_DEPTHWISE_Q8_H

#include "backend/cpu/prims/conv_q8.h"

typedef struct kiln_depthwise_q8_prims {
    const char *isa;
    /* Packed weights; depends on c_in, c_out, kernel, stride and dilation. Source, int8:
     * [c_out][D][H][W]. */
    int64_t (*packed_bytes)(const kiln_conv_args *shape);
    void (*pack)(void *dst, const int8_t *src, const kiln_conv_args *shape);
    /* Bytes of scratch for each thread that calls run, 64-byte aligned, contents irrelevant. */
    int64_t (*scratch_bytes)(const kiln_conv_args *shape, bool narrows);
    int64_t (*tiles)(const kiln_conv_args *shape);
    void (*run)(const kiln_conv_q8_args *args, int64_t tile_begin, int64_t tile_end, void *scratch);
} kiln_depthwise_q8_prims;

extern const kiln_depthwise_q8_prims kiln_depthwise_q8_prims_portable;
extern const kiln_depthwise_q8_prims kiln_depthwise_q8_prims_avx2;
extern const kiln_depthwise_q8_prims kiln_depthwise_q8_prims_avxvnni;
extern const kiln_depthwise_q8_prims kiln_depthwise_q8_prims_avx512;
extern const kiln_depthwise_q8_prims kiln_depthwise_q8_prims_avx512vnni;

#endif
