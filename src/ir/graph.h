/* graph.h - values, nodes and graphs.
 *
 * A graph owns nothing but arena memory. Nodes stand in topological order. A body graph (If, Loop,
 * Scan) may use values of the graphs around it directly; kiln_graph_index finds them as captures.
 * Quantization is QuantizeLinear and DequantizeLinear nodes, nothing beside them.
 *
 *     kiln_node *node;
 *     kiln_value *in[] = {x, w}, *out;
 *     KILN_TRY(kiln_graph_node(g, kiln_op_find("", "Conv"), "conv1", in, 2, 1, &node));
 *     ((kiln_conv_attrs *)node->attrs)->group = 1;      // attrs start at their defaults
 *     out = node->out[0];
 */
#ifndef KILN_IR_GRAPH_H
#define KILN_IR_GRAPH_H

#include "ir/op.h"

/* A constant: bytes, or an expression over constants that is evaluated when it is needed. */
typedef struct kiln_const {
    kiln_tensor tensor; /* data == NULL for an expression; dims are set in both cases */
    kiln_node *expr;    /* expression: a node that stands in no graph, its inputs constants */
    int32_t expr_out;   /* which of its outputs */
    bool big;           /* bytes are a view of a mapped file or the caller's, not of an arena */
} kiln_const;

struct kiln_value {
    const char *name; /* never NULL; unique in its model */
    kiln_type type;
    kiln_const *constant;     /* or NULL */
    const kiln_dim *contents; /* known elements (see kiln_fact), or NULL */
    int64_t n_contents;
    int64_t offset; /* byte offset in the model file where it was named, or -1 */
    /* The index: valid after kiln_graph_index, until the next edit. */
    kiln_node *producer; /* NULL for inputs and constants */
    int32_t producer_out;
    kiln_node *
        *users; /* one entry per use; a use inside a body counts for the node with the body */
    int32_t n_users, cap_users; /* uses by nodes; graph outputs are counted in n_outputs */
    int32_t n_outputs;          /* how often it is an output of its graph */
    int32_t id;                 /* dense number over the graph and its bodies */
    kiln_graph *home;           /* the graph whose input or node output it is; NULL for constants */
    const kiln_graph *mark;     /* scratch of the index */
};

/* What the user demands of a node's precision; NONE: free. */
typedef struct kiln_precision {
    kiln_dtype dtype;
    bool obey; /* refuse rather than ignore */
} kiln_precision;

struct kiln_node {
    const kiln_op *op;
    void *attrs; /* op->attrs_bytes, filled with defaults */
    const char *name;
    kiln_value **in; /* NULL: left out */
    int32_t n_in;
    kiln_value **out; /* never NULL */
    int32_t n_out;
    kiln_graph **bodies;
    int32_t n_bodies;
    const char **sources; /* names of the ONNX nodes this one came from */
    int32_t n_sources;
    kiln_precision precision;
    bool stays;     /* passes do not move it into its neighbours */
    int64_t offset; /* byte offset in the model file, or -1 */
    int32_t id;     /* position in its graph after kiln_graph_index */
};

struct kiln_graph {
    kiln_arena *arena; /* shared by a model's graphs */
    kiln_dims *dims;   /* likewise */
    const kiln_env *env;
    const char *name;
    kiln_graph *parent; /* the graph around a body, or NULL */
    kiln_value **inputs;
    size_t n_inputs, cap_inputs;
    kiln_value **outputs;
    size_t n_outputs, cap_outputs;
    kiln_node **nodes; /* topological */
    size_t n_nodes, cap_nodes;
    kiln_value **captures; /* values of outer graphs used here or deeper; by kiln_graph_index */
    size_t n_captures, cap_captures;
    int32_t n_values;         /* ids given out by kiln_graph_index (root graph) */
    int32_t first_id, end_id; /* ids of this graph's inputs and node outputs, bodies' among them */
    uint32_t next_name;       /* for kiln_graph_fresh_name */
};

/* A new empty graph in `arena`, which must outlive it. `parent` for a body, else NULL. */
kiln_status kiln_graph_create(kiln_graph **out, kiln_arena *arena, kiln_dims *dims,
                              const kiln_env *env, kiln_graph *parent, const char *name);

/* A value that nothing produces yet. A NULL name gets a fresh one. */
kiln_status kiln_graph_value(kiln_value **out, kiln_graph *graph, const char *name);
/* A value and graph input of this type (copied). */
kiln_status kiln_graph_input(kiln_value **out, kiln_graph *graph, const char *name,
                             const kiln_type *type);
kiln_status kiln_graph_output(kiln_graph *graph, kiln_value *value);
/* A constant value. `tensor->data` is borrowed for the graph's lifetime (copy it into the arena
 * first where it would not last). */
kiln_status kiln_graph_constant(kiln_value **out, kiln_graph *graph, const char *name,
                                const kiln_tensor *tensor);
/* A constant of int64s (1-D), copied. */
kiln_status kiln_graph_ints(kiln_value **out, kiln_graph *graph, const int64_t *v, int64_t n);
/* A float32 scalar constant. */
kiln_status kiln_graph_scalar(kiln_value **out, kiln_graph *graph, float v);

/* A node that stands in no graph yet: attrs at defaults, in copied, `n_out` fresh values as
 * outputs. */
kiln_status kiln_graph_detached(kiln_node **out, kiln_graph *graph, const kiln_op *op,
                                const char *name, kiln_value *const *in, int32_t n_in,
                                int32_t n_out);
/* The same, appended to the graph's nodes. */
kiln_status kiln_graph_node(kiln_node **out, kiln_graph *graph, const kiln_op *op, const char *name,
                            kiln_value *const *in, int32_t n_in, int32_t n_out);
kiln_status kiln_graph_append(kiln_graph *graph, kiln_node *node);

/* Fills the attributes of `node` with the table's defaults. */
void kiln_node_default_attrs(kiln_node *node);
/* Adds source names, skipping those it has. */
kiln_status kiln_node_add_sources(kiln_graph *graph, kiln_node *node, const kiln_node *from);

/* Sorts the nodes topologically if they are not (stable), body graphs too. Fails on a cycle, naming
 * a node of it. Iterative and linear. */
kiln_status kiln_graph_sort(kiln_graph *graph, kiln_diag *diag);
/* Computes producer, users, ids and captures of the graph and all bodies. */
kiln_status kiln_graph_index(kiln_graph *graph);
/* Structure: every value used is an input, a constant, produced before, or of an outer graph; one
 * producer each; arities fit the operators. The graph must be indexed. */
kiln_status kiln_graph_verify(const kiln_graph *graph, kiln_diag *diag);

/* The graph that no other stands around. */
static inline const kiln_graph *kiln_graph_root(const kiln_graph *graph) {
    while (graph->parent) {
        graph = graph->parent;
    }
    return graph;
}
/* Number of nodes in the graph and all bodies. */
size_t kiln_graph_count(const kiln_graph *graph);
/* "prefix_12", unique among fresh names; arena string or NULL. */
const char *kiln_graph_fresh_name(kiln_graph *graph, const char *prefix);

/* A deep copy in `arena` and `dims`, constants' bytes shared with the original, which must outlive
 * it where they are. Both graphs must be roots. */
kiln_status kiln_graph_clone(kiln_graph **out, const kiln_graph *graph, kiln_arena *arena,
                             kiln_dims *dims, const kiln_env *env);

static inline kiln_value *kiln_node_in(const kiln_node *node, int32_t i) {
    return i < node->n_in ? node->in[i] : NULL;
}
static inline bool kiln_value_is_const(const kiln_value *v) {
    return v && v->constant;
}
/* The stored bytes of a constant that needs no evaluation, or NULL. */
static inline const kiln_tensor *kiln_value_data(const kiln_value *v) {
    return v && v->constant && v->constant->tensor.data ? &v->constant->tensor : NULL;
}

#endif
