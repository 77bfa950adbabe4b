/* weight_only.h - constant matrices in 8 or 4 bits, everything else in floats.
 *
 * For products of few rows, which take as long as their weights take from memory: language models,
 * recurrent decoders, heads of batch 1. No calibration is needed. Each matrix becomes integers
 * behind a DequantizeLinear with a scale for every `block` of weights that are summed (opset 21's
 * block_size); 8 bits without a block have one for each output. Scales are symmetric: the greatest
 * magnitude of a block, or, for 4 bits, the share of it that errs least. Tables that Gather chooses
 * rows of become 8 bits with a scale for each row: what is chosen is brought to floats, the table
 * is not.
 *
 *     kiln_weight_only job = {.bits = 4, .block = 32};
 *     KILN_TRY(kiln_weight_only_place(&job, graph, diag));        // job.n_matrices, ... */
#ifndef KILN_QUANT_WEIGHT_ONLY_H
#define KILN_QUANT_WEIGHT_ONLY_H

#include "quant/rules.h"

typedef struct kiln_weight_only {
    int32_t bits;            /* 8 or 4 */
    int64_t block;           /* 0: a scale for each output */
    const kiln_rules *rules; /* int8 or nothing said: these; NULL: all */
    /* Done: */
    size_t n_matrices, n_tables;
    int64_t weights;
} kiln_weight_only;

/* Rewrites the Gemm, MatMul and Gather nodes of an indexed, inferred root graph and its bodies that
 * read a constant float32 matrix; they are so again afterwards. KILN_F_PRECISION for weights that
 * are not finite and graphs that are quantized already; KILN_E_MEMORY. */
kiln_status kiln_weight_only_place(kiln_weight_only *job, kiln_graph *graph, kiln_diag *diag);

#endif
