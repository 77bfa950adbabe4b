/* lower.h - from the canonical graph to the one that the CPU kernels want.
 *
 * A short list of rewrites, each with a name that switches it off (kiln_build_options.off). They
 * change the plan's own graph, never the canonical one that is exported and inspected:
 *
 *     widen       half-width floats become float32 (widen.h)
 *     unsigned    int8 activations become uint8 (quantized.h)
 *     split       a DequantizeLinear for each reader
 *     unquantize  dequantized constants that no kernel reads as integers become floats
 *
 *     if (kiln_needs_lowering(graph, &target)) {
 *         ... clone the graph: the original is what is exported ...
 *         KILN_TRY(kiln_lower(graph, &target, &n_widened, diag));
 *     } */
#ifndef KILN_BUILD_LOWER_H
#define KILN_BUILD_LOWER_H

#include "backend/kernel.h"

/* The name of rewrite i, NULL past the end; whether one has this name. */
const char *kiln_lowering_at(size_t i);
bool kiln_lowering_exists(const char *name);

/* Whether any rewrite that is not off finds work in the graph or its bodies. */
bool kiln_needs_lowering(const kiln_graph *graph, const kiln_cpu_target *target);

/* Rewrites an indexed, inferred root graph, which is so afterwards. *n_widened: nodes that now work
 * on float32. Errors: MEMORY. */
kiln_status kiln_lower(kiln_graph *graph, const kiln_cpu_target *target, size_t *n_widened,
                       kiln_diag *diag);

#endif
