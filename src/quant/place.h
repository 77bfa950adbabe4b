/* place.h - a float graph with QuantizeLinear and DequantizeLinear where 8 bits are to be used.
 *
 *     kiln_place_options o = {.style = KILN_QDQ_KILN};
 *     KILN_TRY(kiln_rules_parse(&o.rules, "int8,type:Gemm=fp32", arena, diag));
 *     kiln_needed *needed;                            // 1. what to watch on calibration data
 *     KILN_TRY(kiln_place_needed(&needed, &n, graph, &o, arena, diag));
 *     ...                                             // 2. a range for each of those names
 *     kiln_placed placed;                             // 3. on a copy: kiln_graph_clone
 *     KILN_TRY(kiln_place(&placed, copy, &o, ranges, diag));
 *
 * What is not int8 is marked with the precision it is to have (mark.h).
 *
 * What is quantized where: choose.h. The result computes in float what 8-bit kernels compute in
 * integers, exports as ONNX, and is in the form in which the kernels' claims look for it:
 *
 *   - A value is quantized once, right after it is made; all its 8-bit readers share the pair.
 *   - Weights are int8 constants behind a DequantizeLinear along the output channels.
 *   - What a convolution gives is quantized for ONNX Runtime, whoever reads it: its integer kernels
 *     give nothing else, while those of products give floats too.
 *   - Biases stay float; for ONNX Runtime they are int32 of scale x_scale * w_scale, zero point 0,
 *     behind one, and weight scales are large enough that they fit.
 *   - Values that share a scale have the union of their ranges.
 *   - Graph inputs and outputs keep their types.
 *
 * With options.dynamic scales are found at run time instead: dynamic.h. No range is needed then.
 */
#ifndef KILN_QUANT_PLACE_H
#define KILN_QUANT_PLACE_H

#include "quant/choose.h"

/* A value whose range placing will ask for. */
typedef struct kiln_needed {
    const char *name;
    const kiln_calibrate_options *how; /* of the first reader that says so, or NULL */
} kiln_needed;

/* Lists them in the order in which they are computed; none with options->dynamic. The graph
 * is indexed and inferred. Errors: as of kiln_choose. */
kiln_status kiln_place_needed(kiln_needed **out, size_t *n, const kiln_graph *graph,
                              const kiln_place_options *options, kiln_arena *arena,
                              kiln_diag *diag);

typedef struct kiln_placed {
    kiln_node_precision *nodes; /* in the graph's order, bodies last; those that have an 8-bit
                                  form */
    size_t n_nodes, cap_nodes;
    size_t n_layers, n_int8_layers;
    size_t n_quantized; /* values */
    size_t n_missing;   /* layers left float because a range is missing */
} kiln_placed;

/* Adds the nodes and layers that were chosen for to *out, made in `arena`; unless choices are made
 * for bodies too, the layers there as well. */
kiln_status kiln_placed_report(kiln_placed *out, const kiln_choice *choice, kiln_arena *arena);

/* Rewrites an indexed, inferred root graph, which is so again afterwards. A value that has no range
 * leaves its readers float; *out and a warning say how many. Errors: as of kiln_choose;
 * KILN_F_PRECISION for weights that are not finite; MEMORY. */
kiln_status kiln_place(kiln_placed *out, kiln_graph *graph, const kiln_place_options *options,
                       const kiln_ranges *ranges, kiln_diag *diag);

#endif
