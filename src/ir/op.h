/* op.h - the descriptor of an operator: semantics only, no ONNX bytes, no kernels, no threads.
 *
 * One file in src/ops/ defines one `const kiln_op kiln_op_<id>` (families that differ by one
 * formula share a file); src/ops/ops.def names it. Operators exist in their newest form only: the
 * importer upgrades older ones (an `axes` attribute becomes an input, and so on).
 *
 *  - attrs: a plain struct per operator; its table tells the importer, the exporter, the text form
 *    and the engine file how to decode, print and store it.
 *  - infer: from the facts of the inputs (types, known contents, constant data) to the facts of the
 *    outputs. It is also the check: every attribute is held against real sizes here, before
 *    anything else trusts it. The runner calls it again with concrete shapes before each ref, so
 *    that ref may rely on it.
 *  - ref: the reference, the oracle of every kernel. Plain loops; no assumption but what infer
 *    checked.
 */
#ifndef KILN_IR_OP_H
#define KILN_IR_OP_H

#include <stdatomic.h>

#include "base/diag.h"
#include "ir/type.h"

typedef struct kiln_op kiln_op;
typedef struct kiln_node kiln_node;
typedef struct kiln_graph kiln_graph;
typedef struct kiln_value kiln_value;

/* ---- Attributes ---- */

typedef enum kiln_attr_kind {
    KILN_ATTR_INT,     /* int64_t */
    KILN_ATTR_FLOAT,   /* float */
    KILN_ATTR_STRING,  /* const char *, NULL when absent */
    KILN_ATTR_ENUM,    /* int32_t: index into `words` */
    KILN_ATTR_INTS,    /* kiln_ints */
    KILN_ATTR_FLOATS,  /* kiln_floats */
    KILN_ATTR_STRINGS, /* kiln_strings */
    KILN_ATTR_TENSOR,  /* const kiln_tensor *, NULL when absent */
    KILN_ATTR_GRAPH,   /* no field: the graph is node->bodies[i], i counting GRAPH rows */
} kiln_attr_kind;

typedef struct kiln_ints {
    const int64_t *v; /* NULL when the attribute is absent */
    int64_t n;
} kiln_ints;
typedef struct kiln_floats {
    const float *v;
    int64_t n;
} kiln_floats;
typedef struct kiln_strings {
    const char *const *v;
    int64_t n;
} kiln_strings;

/* Default of an INT that tells "absent" from every real value. */
#define KILN_ABSENT INT64_MIN

typedef struct kiln_attr {
    const char *name;
    kiln_attr_kind kind;
    bool required;
    uint16_t offset;            /* in the attribute struct */
    int64_t int_default;        /* INT; ENUM: index */
    float float_default;        /* FLOAT */
    const char *string_default; /* STRING */
    const char *const *words;   /* ENUM: NULL-terminated */
} kiln_attr;

/* Rows of an attribute table: KILN_A_INT(conv_attrs, group, 1). The field's name is ONNX's name. */
#define KILN_A_INT(type, field, def) \
    { .name = #field, .kind = KILN_ATTR_INT, .offset = offsetof(type, field), .int_default = (def) }
#define KILN_A_FLOAT(type, field, def)                                            \
    {                                                                             \
        .name = #field, .kind = KILN_ATTR_FLOAT, .offset = offsetof(type, field), \
        .float_default = (def)                                                    \
    }
#define KILN_A_STRING(type, field, def)                                            \
    {                                                                              \
        .name = #field, .kind = KILN_ATTR_STRING, .offset = offsetof(type, field), \
        .string_default = (def)                                                    \
    }
#define KILN_A_ENUM(type, field, list, def)                                      \
    {                                                                            \
        .name = #field, .kind = KILN_ATTR_ENUM, .offset = offsetof(type, field), \
        .int_default = (def), .words = (list)                                    \
    }
#define KILN_A_INTS(type, field) \
    { .name = #field, .kind = KILN_ATTR_INTS, .offset = offsetof(type, field) }
#define KILN_A_FLOATS(type, field) \
    { .name = #field, .kind = KILN_ATTR_FLOATS, .offset = offsetof(type, field) }
#define KILN_A_STRINGS(type, field) \
    { .name = #field, .kind = KILN_ATTR_STRINGS, .offset = offsetof(type, field) }
#define KILN_A_TENSOR(type, field) \
    { .name = #field, .kind = KILN_ATTR_TENSOR, .offset = offsetof(type, field) }
#define KILN_A_GRAPH(attr_name) \
    { .name = (attr_name), .kind = KILN_ATTR_GRAPH, .required = true }
#define KILN_A_INT_REQUIRED(type, field) \
    { .name = #field, .kind = KILN_ATTR_INT, .offset = offsetof(type, field), .required = true }
#define KILN_A_INTS_REQUIRED(type, field) \
    { .name = #field, .kind = KILN_ATTR_INTS, .offset = offsetof(type, field), .required = true }

/* ---- Inference ---- */

typedef struct kiln_infer kiln_infer;
struct kiln_infer {
    const kiln_node *node;
    const void *attrs; /* node->attrs, to be assigned to the operator's struct pointer */
    int32_t n_in, n_out;
    const kiln_fact *in; /* an input left out has kind NONE */
    kiln_fact *out;      /* filled by infer; outputs nobody wants must still be filled */
    kiln_arena *arena;   /* for out's dims and contents */
    kiln_dims *dims;
    kiln_diag *diag;
    const kiln_limits *limits;
    /* Operators with bodies: infers `body` for the given facts of its inputs. */
    kiln_status (*body)(kiln_infer *self, const kiln_graph *body, const kiln_fact *inputs,
                        int32_t n_inputs, kiln_fact *outputs);
    void *driver;
};

/* ---- Reference execution ---- */

/* A value at run time. */
typedef struct kiln_datum kiln_datum;
struct kiln_datum {
    kiln_kind kind;     /* NONE: left out, or an optional that holds nothing */
    kiln_tensor tensor; /* TENSOR */
    kiln_datum *items;  /* SEQUENCE: n_items of them; OPTIONAL: one, or none */
    int64_t n_items;
};

typedef struct kiln_ref kiln_ref;
struct kiln_ref {
    const kiln_node *node;
    const void *attrs;
    int32_t n_in, n_out;
    const kiln_datum *in;
    kiln_datum *out;        /* tensors whose size infer knew are allocated and zeroed; others have
                          tensor.data == NULL and are made by kiln_ref_output. */
    const kiln_fact *facts; /* what infer said of the outputs */
    kiln_arena *arena;      /* outputs and scratch */
    kiln_diag *diag;
    const kiln_limits *limits;
    uint64_t seed;               /* for random operators */
    const atomic_int *cancelled; /* looked at by kiln_ref_poll; NULL: never */
    /* Operators with bodies: runs `body`; outputs are allocated in the arena. */
    kiln_status (*body)(kiln_ref *self, const kiln_graph *body, const kiln_datum *inputs,
                        int32_t n_inputs, kiln_datum *outputs);
    void *driver;
};

/* ---- The operator ---- */

enum {
    KILN_OP_ELEMENTWISE =
        1 << 0, /* output element i depends on inputs' element i (broadcast) alone */
    KILN_OP_COMMUTATIVE = 1 << 1,
    KILN_OP_RANDOM = 1 << 2,     /* never folded, never merged */
    KILN_OP_VIEW = 1 << 3,       /* row-major bytes of input 0 pass through unchanged */
    KILN_OP_DATA_SIZED = 1 << 4, /* output sizes depend on input values */
    KILN_OP_MONOTONE = 1 << 5,   /* non-decreasing elementwise: commutes with max */
    KILN_OP_ANY_KIND = 1 << 6,   /* takes sequences and optionals, not tensors alone */
    KILN_OP_TARGET = 1 << 7,     /* input 1 says the result's dims, and inference may know them
                                    without it: runs then hold one against the other */
};

/* How a kernel's result may differ from ref's. */
typedef enum kiln_op_tolerance {
    KILN_TOL_EXACT,  /* bit for bit: integers, data movement */
    KILN_TOL_ROUND,  /* a few ulp: elementwise float */
    KILN_TOL_REDUCE, /* grows with the square root of the reduction length */
    KILN_TOL_RANDOM, /* shape and type only */
} kiln_op_tolerance;

typedef struct kiln_cost {
    int64_t macs; /* multiply-accumulates, or element operations for what has none */
} kiln_cost;

typedef struct kiln_op {
    const char *name;                         /* ONNX's name: "Conv" */
    const char *domain;                       /* "" or "com.microsoft" */
    int16_t since;                            /* the opset version whose semantics this is */
    int16_t min_in, max_in, min_out, max_out; /* -1: any number */
    uint32_t flags;
    const kiln_attr *attrs;
    uint16_t n_attrs;
    uint16_t attrs_bytes; /* sizeof the attribute struct */
    kiln_op_tolerance tolerance;
    kiln_status (*infer)(kiln_infer *ctx);
    kiln_status (*ref)(kiln_ref *ctx);
    /* Work for concrete input and output types; NULL: one operation per output element. */
    void (*cost)(const kiln_node *node, const kiln_fact *in, const kiln_fact *out, kiln_cost *cost);
} kiln_op;

#define KILN_OP_ATTRS(table, type) \
    .attrs = (table), .n_attrs = KILN_COUNT_OF(table), .attrs_bytes = sizeof(type)

#endif
