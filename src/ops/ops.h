/* ops.h - the registry of operators, and running them one at a time.
 *
 * kiln_infer_graph computes the type and known contents of every value. kiln_eval_node and
 * kiln_eval_graph run the references: they are how constants are folded, how kernels and whole
 * engines are checked, and what the CPU backend falls back to.
 */
#ifndef KILN_OPS_OPS_H
#define KILN_OPS_OPS_H

#include "ir/graph.h"

#define KILN_OP(id) extern const kiln_op kiln_op_##id;
#include "ops/ops.def"
#undef KILN_OP

/* The operator, or NULL. "ai.onnx" is the same domain as "". */
const kiln_op *kiln_op_find(const char *domain, const char *name);
/* Operator i of kiln_op_count(). */
const kiln_op *kiln_op_at(size_t i);
size_t kiln_op_count(void);

/* ---- Inference of a graph ---- */

/* Sets type and contents of every value the graph's nodes produce, in order. Graph inputs must have
 * types. Fails with the node named. Bodies are inferred with their nodes. */
kiln_status kiln_infer_graph(kiln_graph *graph, kiln_diag *diag);
/* Infers one node from the facts its input values hold; writes its outputs' types and contents. */
kiln_status kiln_infer_node(kiln_graph *graph, kiln_node *node, kiln_diag *diag);
/* The fact a value holds: its type, contents and stored constant data. */
kiln_fact kiln_value_fact(const kiln_value *v);

/* Infers one node from concrete facts (as kiln_datum_fact makes them): what the runner does before
 * each ref and at each binding. out must hold node->n_out facts; dims and contents go to arena. */
kiln_status kiln_infer_concrete(const kiln_node *node, const kiln_fact *in, kiln_fact *out,
                                kiln_arena *arena, kiln_dims *dims, const kiln_env *env,
                                kiln_diag *diag);

/* ---- Reference execution ---- */

/* The type of a datum, whose data is not read (dims made in arena). */
kiln_status kiln_datum_type(const kiln_datum *datum, kiln_arena *arena, kiln_type *out);
/* The fact of a datum: concrete type, data, and contents when it is a small integer tensor (made in
 * arena). */
kiln_status kiln_datum_fact(const kiln_datum *datum, kiln_arena *arena, kiln_fact *out);

/* What a node with bodies, or a random one, needs while it runs, and who runs it. */
typedef struct kiln_hooks {
    kiln_status (*instead)(kiln_ref *self); /* of the operator's ref; NULL: that */
    kiln_status (*body)(kiln_ref *self, const kiln_graph *body, const kiln_datum *inputs,
                        int32_t n_inputs, kiln_datum *outputs);
    void *driver; /* kiln_ref's driver */
    uint64_t seed;
    const atomic_int *cancelled; /* not 0: the run is to end; may be NULL */
} kiln_hooks;

/* Runs one node. in: node->n_in data (kind NONE where left out); out: node->n_out data, made in
 * arena. hooks may be NULL for nodes without bodies. */
kiln_status kiln_eval_node(const kiln_node *node, const kiln_datum *in, kiln_datum *out,
                           const kiln_hooks *hooks, kiln_arena *arena, kiln_diag *diag);

/* Runs an indexed graph on its inputs; outputs are made in arena. `tap` (may be NULL) sees every
 * value once it is computed. */
typedef struct kiln_eval_options {
    const struct kiln_scope *outer; /* for a body: the values around it; NULL for a root */
    uint64_t seed;
    const atomic_int *cancelled; /* as in kiln_hooks */
    kiln_status (*tap)(void *user, const kiln_value *value, const kiln_datum *datum);
    void *tap_user;
} kiln_eval_options;
kiln_status kiln_eval_graph(const kiln_graph *graph, const kiln_datum *inputs, kiln_datum *outputs,
                            const kiln_eval_options *options, kiln_arena *arena, kiln_diag *diag);

/* The bytes of a constant: its stored tensor, or its expression evaluated into arena (uncached). */
kiln_status kiln_const_eval(const kiln_value *value, kiln_tensor *out, kiln_arena *arena,
                            kiln_diag *diag);

#endif
