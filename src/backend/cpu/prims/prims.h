/* prims.h - the vector code of one instruction set: a table per family, compiled once per rung.
 *
 * A rung is an instruction set, with or without the dot products of 8-bit or bfloat16 numbers that
 * only some of its processors have: the families of such kernels have a table of their own for
 * those. */
#ifndef KILN_BACKEND_CPU_PRIMS_PRIMS_H
#define KILN_BACKEND_CPU_PRIMS_PRIMS_H

#include "base/compiler.h"

typedef struct kiln_prims {
    const char *isa; /* "portable", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16",
                       "amx" */
    const struct kiln_gemm_prims *gemm;
    const struct kiln_conv_prims *conv;
    const struct kiln_depthwise_prims *depthwise;
    const struct kiln_winograd_prims *winograd;
    const struct kiln_program_prims *program;
    const struct kiln_norm_prims *norm;
    const struct kiln_pool_prims *pool;
    const struct kiln_move_prims *move;
    const struct kiln_reduce_prims *reduce;
    const struct kiln_attention_prims *attention;
    const struct kiln_rnn_prims *rnn;
    const struct kiln_quantize_prims *quantize;
    const struct kiln_boxes_prims *boxes;
    const struct kiln_probe_prims *probe;
    const struct kiln_gemm_q8_prims *gemm_q8;
    const struct kiln_conv_q8_prims *conv_q8;
    const struct kiln_depthwise_q8_prims *depthwise_q8;
    const struct kiln_gemm_prims *gemm_bf16, *gemm_f16; /* other forms of the weights */
    const struct kiln_conv_prims *conv_bf16, *conv_f16;
    const struct kiln_depthwise_prims *depthwise_half; /* NULL: conv_bf16 takes no pairs */
} kiln_prims;

#endif
