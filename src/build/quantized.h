/* quantized.h - quantized graphs as the CPU kernels want them: uint8 activations, a
 * DequantizeLinear for each reader, and floats where no kernel reads weights as integers.
 *
 * These rewrites are exact and belong to the plan's own graph, not to the one that is exported.
 *
 *     KILN_TRY(kiln_make_unsigned(graph, &n_values, diag));
 *     KILN_TRY(kiln_split_dequantize(graph, &n_nodes, diag));
 *     KILN_TRY(kiln_fold_weights(graph, &target, &n_nodes, diag));
 *
 * kiln_make_unsigned: int8 values that only stand between QuantizeLinear and DequantizeLinear, also
 * through nodes that move or compare elements, become uint8, their zero points 128 more: q + 128
 * saturates where q does. Constants (weights), graph inputs and outputs, and values that any other
 * node reads or makes stay int8.
 *
 * kiln_split_dequantize: a DequantizeLinear that several nodes read becomes one for each of them,
 * so that every kernel can take its own into its region.
 *
 * kiln_fold_weights: a DequantizeLinear of constants that no kernel takes into a region becomes a
 * constant, which float kernels pack like any other weight: it would be computed in every run
 * otherwise. A cover for trial tells which they are. Copies that no kernel took become one again.
 *
 * kiln_make_signed is for exports: uint8 values all of whose zero points are 128 become int8 with
 * zero points of 0, which is what TensorRT takes; constants behind DequantizeLinear too. There also
 * kiln_fold_biases: int32 constants behind DequantizeLinear become floats. */
#ifndef KILN_BUILD_QUANTIZED_H
#define KILN_BUILD_QUANTIZED_H

#include "backend/kernel.h"

/* Whether a node of the graph or its bodies is QuantizeLinear or DequantizeLinear. */
bool kiln_is_quantized(const kiln_graph *graph);

/* Rewrites an indexed, inferred root graph; *n_values is how many values are uint8 now. Afterwards
 * the graph is indexed and inferred. Errors: MEMORY. */
kiln_status kiln_make_unsigned(kiln_graph *graph, size_t *n_values, kiln_diag *diag);

/* Likewise; *n_values is how many are int8 now. */
kiln_status kiln_make_signed(kiln_graph *graph, size_t *n_values, kiln_diag *diag);

/* Likewise; *n_nodes is how many nodes were added. */
kiln_status kiln_split_dequantize(kiln_graph *graph, size_t *n_nodes, kiln_diag *diag);

/* Likewise; *n_nodes is how many nodes became constants or merged. */
kiln_status kiln_fold_weights(kiln_graph *graph, const kiln_cpu_target *target, size_t *n_nodes,
                              kiln_diag *diag);
kiln_status kiln_fold_biases(kiln_graph *graph, size_t *n_nodes, kiln_diag *diag);

#endif
