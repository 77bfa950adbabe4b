/* flow.h - what control flow and sequences share: merging types, copying and handing over values,
 * stacking the slices of scan outputs.
 *
 * A body's carried values are inferred by fixpoint: the body is inferred for the types its inputs
 * have at first; a dim that comes out different is not known, and the body is inferred again.
 * Ranks are given up after that, so that few rounds suffice whatever the nesting.
 */
#ifndef KILN_OPS_FLOW_H
#define KILN_OPS_FLOW_H

#include "ops/util.h"

/* The type of a value that is one of a or b: dims that differ are unknown, as are ranks. Fails
 * when kinds or element types differ, but of an optional and what it holds takes the latter.
 * *changed is set (never cleared) when *out says other or less than a.
 * Dims are made in arena; out may be a. */
kiln_status kiln_type_merge(kiln_type *out, const kiln_type *a, const kiln_type *b,
                            kiln_arena *arena, kiln_diag *diag, bool *changed);

/* Infers `body` until its carried values keep their types: inputs[first_in + k] and
 * outputs[first_out + k], k < n. inputs: facts of all body inputs, the carried ones starting at
 * their initial types and widened here; outputs: body->n_outputs facts. Ends with facts that hold
 * for every iteration. */
kiln_status kiln_flow_infer(kiln_infer *c, const kiln_graph *body, kiln_fact *inputs,
                            int32_t first_in, kiln_fact *outputs, int32_t first_out, int32_t n);

/* A copy of a value and all it holds in `arena`. */
kiln_status kiln_datum_copy(kiln_datum *dst, const kiln_datum *src, kiln_arena *arena,
                            kiln_diag *diag);
/* Output i becomes `d`: copied into the buffer it has when shapes agree, else shared. */
void kiln_ref_give(kiln_ref *c, int32_t i, const kiln_datum *d);

/* Tensors of one shape, one after the other in a buffer that grows in an arena. */
typedef struct kiln_stack {
    kiln_tensor item; /* type and dims of each; data unused */
    int64_t count, cap;
    void *data;
} kiln_stack;
/* Fails when the shape differs from the first one's or the limit of tensor bytes is reached. */
kiln_status kiln_stack_push(kiln_ref *c, kiln_stack *s, const kiln_tensor *item, kiln_arena *arena);
/* The stack as one tensor with its count as leading dim. For an empty stack `type`, that of the
 * whole, gives the other dims (0 where they are not known). */
void kiln_stack_tensor(const kiln_stack *s, const kiln_type *type, kiln_tensor *out);

#endif
