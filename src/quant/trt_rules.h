/* trt_rules.h - what TensorRT demands of a graph with QuantizeLinear and DequantizeLinear, as its
 * developer guide ("Working with Quantized Types": explicit quantization) and the ONNX parser's
 * operator table state it. TensorRT cannot be asked here; this stands for it.
 *
 *     size_t n = kiln_trt_check(graph, diag);       // one finding for each thing it would refuse
 */
#ifndef KILN_QUANT_TRT_RULES_H
#define KILN_QUANT_TRT_RULES_H

#include "ir/graph.h"

/* Rules by name, in the order in which they are looked at; a node breaks the first that it does.
 *
 *   dtype        integers of Q and DQ are int8, int4 or float8e4m3fn: no uint8, no int32 bias
 *   zero-point   zero points are constant and all 0
 *   scale        scales are constant, finite and positive
 *   scale-dtype  scales are float32, float16 or bfloat16
 *   shape        one scale, or one for each index of a constant's axis; activations have one
 *   block        only int4 has scales by block
 *   axis         scales of weights lie along the output channels of their layer
 *   pair         what Q gives goes to DQ alone, not to other operators and not out of the graph
 *   weights      a layer with a dequantized input has dequantized weights, and the reverse
 */
/* Appends an error for each node of the graph and its bodies that breaks a rule, beginning with the
 * rule's name. The graph is indexed. Returns how many. */
size_t kiln_trt_check(const kiln_graph *graph, kiln_diag *diag);

#endif
