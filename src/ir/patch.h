/* patch.h - what a pass wants changed, as data.
 *
 * A pass looks at a const graph and describes *rewrites*: new nodes, values replaced by others,
 * nodes removed. Nothing changes until kiln_patch_apply makes all rewrites of a sweep at once, in
 * linear time. One rewrite:
 *
 *     kiln_patch_touch(p, sigmoid);                          // nodes the rewrite takes part in
 *     kiln_value *y = kiln_patch_node(p, "Swish", &x, 1);     // a new node; y is its output
 *     kiln_patch_replace(p, mul->out[0], y);                 // every use, graph outputs included
 *     KILN_TRY(kiln_patch_commit(p, "x * sigmoid(x)"));       // ends the rewrite
 *
 * Rules:
 *  - A replacement computes the same value from inputs that stand before what it replaces.
 *  - A rewrite whose touched nodes overlap those of an earlier one of the sweep is dropped; the
 *    pass meets them again in the next sweep, in their new form.
 *  - Nodes that nothing uses any more because of a rewrite disappear with it.
 *  - New nodes inherit sources, precision and file offset from the touched nodes; the node and the
 *    value that stand for a replaced one take over its name, so that names keep their meaning and
 *    graph outputs their public names.
 *  - The builders return NULL when out of memory and take NULL in turn; the commit reports it.
 */
#ifndef KILN_IR_PATCH_H
#define KILN_IR_PATCH_H

#include "ir/graph.h"

typedef enum kiln_edit_kind {
    KILN_EDIT_ADD,     /* node */
    KILN_EDIT_REPLACE, /* old by value */
    KILN_EDIT_REMOVE,  /* node */
    KILN_EDIT_TOUCH,   /* node */
    KILN_EDIT_ADOPT,   /* the nodes of a body of node, into the graph around it */
} kiln_edit_kind;

typedef struct kiln_edit {
    kiln_edit_kind kind;
    kiln_node *node;
    kiln_value *old, *value;
    kiln_graph *body;
} kiln_edit;

/* What the sweep knows of a value; indexed by its id. New values get ids after those of the graph.
 * A node is known by its first output. */
typedef struct kiln_patch_mark {
    kiln_value *now;       /* what it was replaced by, or NULL */
    size_t rewrite;        /* of the node: 1 + number of the rewrite whose nodes go before it */
    uint32_t uses;         /* by nodes and graph outputs, while the patch is applied */
    bool touched, removed; /* the node */
    bool released;         /* the node no longer counts as a user */
    bool is_output;
} kiln_patch_mark;

typedef struct kiln_patch {
    /* Set by the runner before the sweep. */
    kiln_graph *root;        /* indexed */
    const kiln_graph *graph; /* the one the pass looks at: root or a body */
    kiln_arena *arena;       /* of the sweep */
    kiln_diag *diag;
    const kiln_op *(*find)(const char *domain, const char *name);
    const char *pass;    /* for the log */
    size_t max_rewrites; /* commits beyond are dropped; SIZE_MAX: no limit */
    /* Made by the patch. */
    size_t n_rewrites;
    kiln_status status; /* first failure of a builder */
    kiln_edit *edits;
    size_t n_edits, cap_edits;
    size_t first;   /* edit where the open rewrite begins */
    size_t *starts; /* first edit of each rewrite */
    size_t cap_starts;
    kiln_patch_mark *marks;
    size_t n_marks, cap_marks;
    /* Made by kiln_patch_apply: nodes that are new or whose inputs changed. */
    kiln_node **dirty;
    size_t n_dirty, cap_dirty;
} kiln_patch;

/* An empty patch of an indexed graph; the fields that the runner sets must be set. */
kiln_status kiln_patch_init(kiln_patch *p);
/* n zeroed items that live until the pass ends. NULL makes the patch fail with KILN_E_MEMORY, like
 * every other call here that runs out of it. */
void *kiln_patch_scratch(kiln_patch *p, int64_t n, size_t item_bytes);

/* A new node of operator `op` ("Mul", or "com.microsoft:Gelu") with one output, which is returned;
 * attributes stand at their defaults. `in` is copied. An unknown operator drops the rewrite. */
kiln_value *kiln_patch_node(kiln_patch *p, const char *op, kiln_value *const *in, int32_t n_in);
/* The same with n_out outputs; the node is returned. */
kiln_node *kiln_patch_node_outs(kiln_patch *p, const char *op, kiln_value *const *in, int32_t n_in,
                                int32_t n_out);
/* A new node with the operator and attributes of `like`, which must have no bodies. */
kiln_node *kiln_patch_like(kiln_patch *p, const kiln_node *like, kiln_value *const *in,
                           int32_t n_in, int32_t n_out);
/* Sets an attribute of the new node that gives `value`. A name the operator lacks is an internal
 * error. Lists are copied. */
void kiln_patch_int(kiln_patch *p, kiln_value *value, const char *attr, int64_t v);
void kiln_patch_float(kiln_patch *p, kiln_value *value, const char *attr, float v);
void kiln_patch_ints(kiln_patch *p, kiln_value *value, const char *attr, const int64_t *v,
                     int64_t n);
/* New constants; the tensor's data is copied. */
kiln_value *kiln_patch_constant(kiln_patch *p, const kiln_tensor *tensor);
kiln_value *kiln_patch_vector(kiln_patch *p, const int64_t *v, int64_t n); /* int64, 1-D */
/* A new constant that is an operator applied to constants, evaluated when it is needed. The caller
 * states the result's type; attributes are set as for new nodes. */
kiln_value *kiln_patch_expr(kiln_patch *p, const char *op, kiln_value *const *in, int32_t n_in,
                            const kiln_tensor *type);
/* The same with the operator and attributes of `like`, for its output `out`. */
kiln_value *kiln_patch_expr_like(kiln_patch *p, const kiln_node *like, kiln_value *const *in,
                                 int32_t out, const kiln_tensor *type);

/* The node takes part in the rewrite. The producers of replaced values do by themselves. */
void kiln_patch_touch(kiln_patch *p, const kiln_node *node);
/* Every use of `old`, in bodies too, becomes one of `value`. */
void kiln_patch_replace(kiln_patch *p, const kiln_value *old, kiln_value *value);
/* Removes a node whose outputs nothing uses. */
void kiln_patch_remove(kiln_patch *p, const kiln_node *node);
/* Moves the nodes of a body into the graph around it, where the node stood, and replaces the node's
 * outputs by the body's. The body must have no inputs of its own. */
void kiln_patch_adopt(kiln_patch *p, const kiln_node *node, kiln_graph *body);

/* Ends the open rewrite: it is kept, or dropped when it overlaps, would change a precision the user
 * asked for, take away a graph output's name, or comes after the last allowed one. */
kiln_status kiln_patch_commit(kiln_patch *p, const char *what);
/* Forgets the open rewrite. */
void kiln_patch_drop(kiln_patch *p);

/* The node belongs to a rewrite of this sweep already. */
bool kiln_patch_taken(const kiln_patch *p, const kiln_node *node);
/* What the value will be after the rewrites committed so far. */
kiln_value *kiln_patch_now(const kiln_patch *p, const kiln_value *value);
/* `old` may be replaced by a value that exists already: it is no graph output, or its public name
 * can pass to `value`. */
bool kiln_patch_may_replace(const kiln_patch *p, const kiln_value *old, const kiln_value *value);

/* Makes all rewrites. Afterwards the graph must be sorted (which indexes it) and inferred. */
kiln_status kiln_patch_apply(kiln_patch *p);

#endif
