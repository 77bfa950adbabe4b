/* widen.h - float16 and bfloat16 graphs executed in float32, and float32 graphs written in them.
 *
 * The CPU kernels compute in float32. kiln_widen rewrites a graph so that nodes of half-width
 * floats work on float32 instead: constants are converted (expressions, evaluated when weights are
 * packed), inputs pass through a Cast, outputs through the Cast back, so that the graph's own
 * inputs and outputs keep their types. Results differ from a half-width run only by being rounded
 * later. Nodes that must stay as they are (with bodies, random, of sequences, that state a half
 * type of their own) keep their types between Casts.
 *
 *     if (kiln_needs_widening(graph)) {
 *
 *         KILN_TRY(kiln_widen(graph, &n, diag));     // on a copy: the original is what is exported
 *
 *     } */
#ifndef KILN_BUILD_WIDEN_H
#define KILN_BUILD_WIDEN_H

#include "ir/graph.h"

/* Whether any node of the graph or its bodies takes or gives float16 or bfloat16. */
bool kiln_needs_widening(const kiln_graph *graph);

/* Rewrites an indexed, inferred root graph; *n_nodes is how many nodes now work on float32.
 * Afterwards the graph is indexed and inferred. Errors: MEMORY. */
kiln_status kiln_widen(kiln_graph *graph, size_t *n_nodes, kiln_diag *diag);

/* The other way: nodes whose precision is `dtype`, F16 or BF16, work on that type, between Casts
 * where their neighbours do not. Inputs and outputs of the graph keep their types, as do nodes that
 * do not take the type. For export: engines take precisions as they are. *n_nodes and errors as
 * above. */
kiln_status kiln_narrow(kiln_graph *graph, kiln_dtype dtype, size_t *n_nodes, kiln_diag *diag);

#endif
