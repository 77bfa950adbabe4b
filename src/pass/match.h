/* match.h - what patterns are made of: producers, single uses, scalar constants, static shapes.
 *
 *     const kiln_node *mul = node;
 *     for (int32_t side = 0; side < 2; side++) {              // commutative: both ways round
 *         const kiln_node *sig = kiln_made_by_only(mul->in[side], "Sigmoid");
 *         if (sig && sig->in[0] == mul->in[1 - side]) { ... }
 *     }
 */
#ifndef KILN_PASS_MATCH_H
#define KILN_PASS_MATCH_H

#include "ops/attrs.h"
#include "ops/util.h"
#include "pass/pass.h"

/* The node is this operator of the standard domain. */
bool kiln_is_op(const kiln_node *node, const char *op);
/* The node that makes v if it is this operator, else NULL. v may be NULL. */
const kiln_node *kiln_made_by(const kiln_value *v, const char *op);
/* The same, and nothing but one node input uses v. */
const kiln_node *kiln_made_by_only(const kiln_value *v, const char *op);
/* Exactly one node input uses v, and no graph output does. */
bool kiln_used_once(const kiln_value *v);
/* The only user of the node's first output, if it is this operator of the same graph; else NULL. */
const kiln_node *kiln_only_user(const kiln_node *node, const char *op);

/* v is a stored constant of one element, read as a double. */
bool kiln_scalar(const kiln_value *v, double *out);
/* v is such a constant equal to x within a relative 1e-6 (about 8 float ulps: exporters round
 * constants such as sqrt(2) in several ways); exactly for x == 0. */
bool kiln_scalar_is(const kiln_value *v, double x);
/* Of a two-input node: the input that is a one-element constant within 1e-6 of x; *other gets the
 * other input. */
bool kiln_split_scalar(const kiln_node *node, double x, kiln_value **other);
/* The same for any one-element constant; *scalar gets its value. */
bool kiln_split_any_scalar(const kiln_node *node, double *scalar, kiln_value **other);
/* Every element of a stored constant equals x exactly (with the sign of zero). */
bool kiln_all_equal(const kiln_value *v, double x);
/* Integers of a constant (or fully known contents): count, or -1. At most `cap` are written. */
int64_t kiln_known_ints(const kiln_value *v, int64_t *out, int64_t cap);

static inline bool kiln_is_tensor(const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR;
}
/* Rank, or KILN_RANK_UNKNOWN (also for NULL and for what is no tensor). */
int32_t kiln_rank(const kiln_value *v);
/* Dim d (negative from the end), KILN_DIM_UNKNOWN where it is not known. */
kiln_dim kiln_dim_at(const kiln_value *v, int32_t d);
/* Shapes known to be the same, dim by dim (symbolic dims compare structurally). */
bool kiln_same_shape(const kiln_value *a, const kiln_value *b);
/* Same dtype and shape. */
bool kiln_same_type(const kiln_value *a, const kiln_value *b);
/* Float tensor of a type that carries gradients: f16, bf16, f32, f64. */
bool kiln_is_float(const kiln_value *v);
/* Elements of a static shape, or -1. */
int64_t kiln_static_count(const kiln_value *v);

/* Attributes by name: the value, or `def` when the operator has none of that name. */
int64_t kiln_node_int(const kiln_node *node, const char *attr, int64_t def);
float kiln_node_float(const kiln_node *node, const char *attr, float def);
/* NULL when absent. */
const kiln_ints *kiln_node_ints(const kiln_node *node, const char *attr);
/* Address and size of what the attribute of a row points at, or of its field. */
const void *kiln_attr_content(const kiln_attr *row, const void *attrs, size_t *bytes);
/* Two nodes of one operator have equal attributes; those that are tensors or lists of strings only
 * when they are the same object. */
bool kiln_same_attrs(const kiln_node *a, const kiln_node *b);
/* Nothing is left to check about the node's target (KILN_OP_TARGET) when it runs: every entry is
 * known, or an expression over dims. Where not, inference may still know the result's dims, as the
 * only ones that are possible, but only a run can tell whether the target says the same: such a
 * node must stay. True for all other operators. */
bool kiln_target_is_sure(const kiln_node *node);
/* The permutation of a Transpose of known rank, defaults filled in; false when unknown. */
bool kiln_transpose_perm(const kiln_node *node, int64_t *perm, int32_t *rank);
/* The axes of a Reduce* node as a set of bits, for a known rank <= 32; false when not known. */
bool kiln_reduce_axes(const kiln_node *node, uint32_t *axes);
/* The axes are the last n of the rank (n >= 1). */
bool kiln_axes_are_last(uint32_t axes, int32_t rank, int32_t *n);

/* The operator is there to be made. */
static inline bool kiln_patch_can(const kiln_patch *p, const char *op) {
    return p->find("", op) != NULL;
}
/* A constant Reshape target that gives `shape` from an input of type `from`: its numbers, 0 where
 * a dim that is no number is copied, -1 for one other such dim. False when that does not say it
 * all. */
bool kiln_reshape_target(const kiln_value *from, const kiln_type *shape, int64_t *target);
/* A new Reshape of x to that target, touching nothing; NULL when there is none (or out of memory).
 * */
kiln_value *kiln_patch_reshape(kiln_patch *p, kiln_value *x, const kiln_type *shape);
/* A constant of one number of the given dtype, rank 0. */
kiln_value *kiln_patch_scalar(kiln_patch *p, kiln_dtype dtype, double v);
/* Replaces node's only output by a value that exists, as a rewrite of its own. */
kiln_status kiln_patch_bypass(kiln_patch *p, const kiln_node *node, kiln_value *by,
                              const char *what);

#endif
