/* profile.h - the shapes an engine is built for.
 *
 * A profile holds a range for every tensor input with dynamic dims: min, opt and max of each dim.
 * It is held against the graph once, when the engine is built or loaded. After that a dim whose
 * range is one number is that number in the graph too, contexts make room for max, and binding
 * refuses what is outside. An engine without a profile takes any shape.
 *
 *     kiln_shape_range *profile;              // per graph input; NULL when none was given
 *     kiln_profile_resolve(&profile, graph, given, n, arena, diag);
 *     kiln_profile_infer(graph, profile, diag);
 */
#ifndef KILN_ENGINE_PROFILE_H
#define KILN_ENGINE_PROFILE_H

#include "ir/graph.h"

/* The range of each graph input, its name NULL where it has none (static inputs, sequences).
 * Inputs left out take the ranges of dims that share their symbols. *out is NULL when n is 0.
 * Errors: USAGE for what does not fit the graph or itself, LIMIT. */
kiln_status kiln_profile_resolve(kiln_shape_range **out, const kiln_graph *graph,
                                 const kiln_shape_range *given, size_t n, kiln_arena *arena,
                                 kiln_diag *diag);
/* Infers a copy of the graph at min, opt and max: fails at the node that cannot have one of them.
 */
kiln_status kiln_profile_infer(const kiln_graph *graph, const kiln_shape_range *profile,
                               kiln_diag *diag);
/* Makes dims whose range is one number that number, and infers the graph again. */
kiln_status kiln_profile_fix(kiln_graph *graph, const kiln_shape_range *profile, kiln_diag *diag);
/* Refuses a tensor outside the range. */
kiln_status kiln_profile_check(const kiln_shape_range *range, const kiln_tensor *tensor,
                               kiln_diag *diag);
/* The largest a graph input may be: dims that nothing bounds are 1. `range` may be NULL. */
void kiln_profile_largest(const kiln_shape_range *range, const kiln_value *input, kiln_datum *out);
/* "x:1..4..8x3x224", as the command takes it; arena string, NULL when out of memory. */
const char *kiln_profile_text(const kiln_shape_range *range, kiln_arena *arena);

#endif
