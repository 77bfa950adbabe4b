/* op_rules.h - what 8 bits mean for each operator: one line each in op_rules.c. */
#ifndef KILN_QUANT_OP_RULES_H
#define KILN_QUANT_OP_RULES_H

#include "ir/graph.h"

typedef enum kiln_quant_kind {
    KILN_QUANT_NONE,     /* stays float */
    KILN_QUANT_WEIGHTED, /* products: the reason to quantize anything */
    KILN_QUANT_SUM,      /* Add, Mul of activations: worth it between quantized layers */
    KILN_QUANT_SAME,     /* moves or compares elements: one scale in and out */
    KILN_QUANT_AVERAGE,  /* pools and resizes that compute: a scale of its own */
    KILN_QUANT_CLAMP,    /* Relu, Clip: folded into the range of the result */
    KILN_QUANT_UNARY,    /* other activations: part of the layer before them */
} kiln_quant_kind;

typedef struct kiln_op_rule {
    const kiln_op *op;
    kiln_quant_kind kind;
    bool on_request; /* only when a rule names the type or the node */
} kiln_op_rule;

/* The operator's line; of kind NONE for those that have none. Never NULL. */
const kiln_op_rule *kiln_op_rule_of(const kiln_op *op);

/* A weight: constant input `in` of a WEIGHTED node. */
typedef struct kiln_weight_use {
    int32_t in;
    int32_t axis; /* of the constant that runs along the output channels; -1: one scale for all */
    int32_t bias; /* input whose elements belong to the channels, or -1 */
} kiln_weight_use;

enum { KILN_MAX_WEIGHTS = 2 };

/* What a WEIGHTED node quantizes: activations and weights by input number. */
typedef struct kiln_layer_use {
    int32_t x[2];
    int32_t n_x;
    kiln_weight_use w[KILN_MAX_WEIGHTS];
    int32_t n_w;
    double alpha; /* factor of the product */
} kiln_layer_use;

/* NULL, with *use filled, or why this very node cannot be quantized. */
const char *kiln_layer_use_of(const kiln_node *node, kiln_layer_use *use);

/* The node's kind, by its attributes and operands: a Pad with another value than 0 or a Resize that
 * interpolates does not what SAME promises, a factor before a layer (kiln_seam.inlet) is part of
 * what makes its operand. */
kiln_quant_kind kiln_quant_kind_of(const kiln_node *node);
/* Number of inputs of a SAME node that carry data, from the first on. */
int32_t kiln_data_inputs(const kiln_node *node);

/* A float32 tensor of known rank. */
bool kiln_is_f32_tensor(const kiln_value *v);

#endif
