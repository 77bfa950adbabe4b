/* import.h - what the parts of the importer share.
 *
 * The importer keeps a stack of frames, each a run of NodeProtos to turn into nodes of one graph:
 * the model's graph, a body of If, Loop or Scan, or a function's body. Nothing here recurses; a
 * node with bodies, or a call, pushes frames.
 *
 * A frame first declares the names its nodes produce (frame.c), then takes one node at a time: the
 * NodeProto is read into a kiln_source, attributes that name a function's parameter are resolved
 * (source.c), upgrade.c brings it into the newest form, and emit.c decodes its attributes into the
 * operator's struct and appends the node.
 */
#ifndef KILN_ONNX_IMPORT_H
#define KILN_ONNX_IMPORT_H

#include "onnx/names.h"
#include "onnx/onnx.h"
#include "onnx/tensor.h"

enum {
    KILN_OPSET_MIN = 1,
    KILN_OPSET_MAX = 28,       /* the newest of onnx 1.23 */
    KILN_MAX_EDGES = 1 << 20,  /* inputs or outputs of one node */
    KILN_MAX_UNSUPPORTED = 50, /* operators listed before giving up */
};

typedef struct kiln_frame kiln_frame;

/* The operator sets one model or function imports. */
typedef struct kiln_opset {
    kiln_view domain; /* "" for ai.onnx */
    int64_t version;
} kiln_opset;
typedef struct kiln_opsets {
    kiln_opset *items;
    size_t count;
} kiln_opsets;

/* An attribute of a node, or one that an upgrade made. */
typedef struct kiln_source_attr {
    kiln_pb_attribute pb;
    const kiln_frame *home; /* where names in its graph are looked up */
    const int64_t *ints;    /* INTS that an upgrade made: pb.n_ints of them */
    bool used;
} kiln_source_attr;

/* A node on its way in: inputs and outputs resolved to values, attributes still encoded. All memory
 * is the importer's `temp`. */
typedef struct kiln_source {
    const char *domain, *op; /* NUL-terminated */
    const char *name;        /* with the prefixes of the calls around it */
    const char *origin;      /* the name of the node an upgrade made it from, or NULL */
    kiln_view overload;
    int64_t version; /* of the operator set of its domain */
    int64_t offset;
    kiln_value **in;
    int32_t n_in;
    kiln_value **out;
    int32_t n_out;
    kiln_source_attr *attrs;
    int32_t n_attrs;
} kiln_source;

struct kiln_frame {
    kiln_frame *below;
    kiln_arena_mark mark; /* of the stack arena, before the frame was made */
    kiln_graph *graph;    /* where its nodes go */
    kiln_names names;
    const kiln_opsets *opsets;
    const kiln_source_attr *bindings; /* the attributes of the call; NULL outside of functions */
    int32_t n_bindings;
    bool in_function;
    const char *prefix; /* of names: "" or "call/" */
    kiln_msg at;        /* NodeProtos still to do */
    uint32_t node_field;
    uint32_t nested_graphs, calls; /* depth */
};

/* A model-local function. */
typedef struct kiln_local_function {
    kiln_pb_function pb;
    uint64_t nodes; /* after expansion; see function.c */
    uint32_t depth; /* of calls below and including it */
    int state;
} kiln_local_function;

/* An operator that cannot be run, with the first node that uses it. */
typedef struct kiln_unsupported {
    const char *domain, *op, *node;
    int64_t version, offset;
    size_t uses;
} kiln_unsupported;

/* A node that an upgrade made and that types may show to be simpler; see settle.c. */
typedef struct kiln_unsettled {
    kiln_graph *graph;
    kiln_node *node;
    kiln_node *first; /* coerced softmax: its Flatten; else NULL */
} kiln_unsettled;

typedef struct kiln_importer {
    kiln_decoder d;
    kiln_import *out;
    const kiln_env *env;
    kiln_dims *dims;
    kiln_arena *arena; /* the model's */
    kiln_arena stack;  /* frames; rewound when they end */
    kiln_arena temp;   /* one node; rewound before the next */
    kiln_arena lists;  /* until the import ends */
    kiln_frame *top;
    kiln_opsets opsets;
    kiln_local_function *functions;
    size_t n_functions;
    kiln_names function_names;
    kiln_names used; /* value names of bodies and functions, so that names stay unique */
    kiln_frame *root;
    size_t n_nodes;
    uint64_t seed;
    uint32_t renamed; /* for names made unique */
    kiln_unsupported *unsupported;
    size_t n_unsupported, cap_unsupported;
    kiln_unsettled *unsettled;
    size_t n_unsettled, cap_unsettled;
    kiln_value **dropped; /* outputs that only training has */
    size_t n_dropped, cap_dropped;
} kiln_importer;

/* ---- frame.c ---- */

/* Begins the graph `msg`: declares inputs, initializers and node outputs, resolves its outputs, and
 * pushes its frame. `scope` is the frame whose names it may use (NULL: the model's graph). */
kiln_status kiln_import_graph(kiln_importer *im, const kiln_msg *msg, kiln_graph *graph,
                              const kiln_frame *scope);
/* Takes one node of the top frame, or ends the frame. */
kiln_status kiln_import_step(kiln_importer *im);
/* A value for `name` in the frame, unique in the model. */
kiln_status kiln_import_value(kiln_importer *im, const kiln_frame *frame, kiln_view name,
                              const void *at, kiln_value **out);
/* Declares the outputs of the frame's nodes; values in `results` (may be NULL) are used for their
 * names. Constant nodes become constants. */
kiln_status kiln_import_declare(kiln_importer *im, kiln_frame *frame, const kiln_names *results);
/* Makes `value` the constant `stored`. */
kiln_status kiln_import_constant(kiln_importer *im, kiln_value *value,
                                 const kiln_stored_tensor *stored);
/* Reads the `count` opset_import entries of a model or function into arena. */
kiln_status kiln_import_opsets(kiln_importer *im, kiln_arena *arena, const kiln_msg *msg,
                               uint32_t field, size_t count, kiln_opsets *out);

/* ---- types.c ---- */

/* A TypeProto as a type. Dims without a number become symbols: by their name, or "NAME_dI". With
 * `body`, they become unknown instead. */
kiln_status kiln_import_type(kiln_importer *im, const kiln_msg *msg, kiln_view name, bool body,
                             kiln_type *out);
/* "optional(seq(tensor(float32)))": how attributes of type TYPE_PROTO reach operators. */
kiln_status kiln_type_spell(kiln_importer *im, const kiln_msg *msg, const char **out);

/* ---- source.c ---- */

/* Reads a NodeProto and its attributes; edges only with `edges`. */
kiln_status kiln_source_read(kiln_importer *im, const kiln_frame *frame, const kiln_msg *msg,
                             bool edges, kiln_source *out);
/* The attribute, or NULL. Marks it as used. */
kiln_source_attr *kiln_source_attr_find(kiln_source *s, const char *name);
/* Values of attributes, with defaults where they are absent; other kinds are refused. Arrays come
 * from the model's arena. */
kiln_status kiln_source_int(kiln_importer *im, kiln_source *s, const char *name, int64_t def,
                            int64_t *out);
kiln_status kiln_source_float(kiln_importer *im, kiln_source *s, const char *name, float def,
                              float *out);
kiln_status kiln_source_text(kiln_importer *im, kiln_source *s, const char *name, const char *def,
                             const char **out);
kiln_status kiln_source_ints(kiln_importer *im, kiln_source *s, const char *name, kiln_ints *out);
kiln_status kiln_source_floats(kiln_importer *im, kiln_source *s, const char *name,
                               kiln_floats *out);
/* The lists of one attribute, from the model's arena. */
kiln_status kiln_attr_ints(kiln_importer *im, const kiln_source_attr *a, kiln_ints *out);
kiln_status kiln_attr_floats(kiln_importer *im, const kiln_source_attr *a, kiln_floats *out);
kiln_status kiln_attr_strings(kiln_importer *im, const kiln_source_attr *a, kiln_strings *out);
/* Adds or replaces an attribute. The name must be static. */
kiln_status kiln_source_set_int(kiln_importer *im, kiln_source *s, const char *name, int64_t v);
kiln_status kiln_source_set_float(kiln_importer *im, kiln_source *s, const char *name, float v);
kiln_status kiln_source_set_text(kiln_importer *im, kiln_source *s, const char *name,
                                 const char *v);
kiln_status kiln_source_set_ints(kiln_importer *im, kiln_source *s, const char *name,
                                 const int64_t *v, size_t n);
/* home: where the graph looks up names that are not its own. */
kiln_status kiln_source_set_graph(kiln_importer *im, kiln_source *s, const char *name,
                                  const kiln_msg *graph, const kiln_frame *home);
void kiln_source_drop(kiln_source *s, const char *name);
/* Makes room for input i (left out so far) and sets it. */
kiln_status kiln_source_set_input(kiln_importer *im, kiln_source *s, int32_t i, kiln_value *value);
/* A node that an upgrade makes: standard domain, name and offset of `from`, n inputs and
 * outputs. */
kiln_status kiln_source_make(kiln_importer *im, const kiln_source *from, const char *op,
                             kiln_value *const *in, int32_t n_in, kiln_value *const *out,
                             int32_t n_out, kiln_source *made);

/* ---- constant.c ---- */

/* The tensor a Constant node holds, whichever of its attributes says so. */
kiln_status kiln_import_constant_node(kiln_importer *im, kiln_source *s, kiln_stored_tensor *out);

/* ---- upgrade.c ---- */

/* Brings a node into the newest form and emits it, or the nodes that stand for it. */
kiln_status kiln_upgrade(kiln_importer *im, kiln_frame *frame, kiln_source *s);

/* ---- emit.c ---- */

/* Appends the node to the frame's graph. `out` (may be NULL) gets it, or NULL for an operator Kiln
 * does not have, which is recorded. */
kiln_status kiln_emit(kiln_importer *im, kiln_frame *frame, kiln_source *s, kiln_node **out);

/* ---- function.c ---- */

/* Reads the functions of the model and checks calls: no recursion, depth, and the size of the model
 * after expansion, all before anything is expanded. */
kiln_status kiln_functions_read(kiln_importer *im, const kiln_pb_model *model);
/* The function a node calls, or NULL. */
kiln_local_function *kiln_function_find(const kiln_importer *im, const char *domain, const char *op,
                                        kiln_view overload);
/* Pushes the frame of a call. */
kiln_status kiln_function_call(kiln_importer *im, kiln_frame *frame, kiln_source *s,
                               const kiln_local_function *f);

/* ---- settle.c ---- */

/* After the graph is sorted and indexed: removes what upgrades added in case and types show to be
 * unnecessary. */
kiln_status kiln_settle(kiln_importer *im);

#endif
