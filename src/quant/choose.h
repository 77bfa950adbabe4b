/* choose.h - which nodes compute in 8 bits, and which values are quantized for them.
 *
 * Layers with weights are why anything is quantized: their inputs are wanted in 8 bits. What stands
 * between two of them follows when that pays: an Add whose result is wanted takes its residual
 * operand in 8 bits and leaves the other to the layer that makes it, which adds in its epilogue;
 * Relu, Clip and other activations belong to the layer before them, so that the value after them is
 * quantized and not the one before; what only moves or compares elements passes the wish on and
 * shares one scale with its operand. Values that no such node reads stay float: what goes into a
 * normalization or a Softmax, the residual stream of a transformer, the outputs of the graph.
 *
 *     kiln_choice c;
 *     KILN_TRY(kiln_choose(&c, graph, &options, arena, diag));
 *     for (each value v) { if (kiln_choice_wants(&c, v)) { ... its range is needed ... } }
 */
#ifndef KILN_QUANT_CHOOSE_H
#define KILN_QUANT_CHOOSE_H

#include "kiln/quant.h"
#include "quant/op_rules.h"
#include "quant/rules.h"

typedef struct kiln_place_options {
    kiln_qdq_style style;
    bool dynamic;                    /* scales of activations at run time: dynamic.h */
    kiln_rules rules;                /* empty: int8 wherever it can be had */
    kiln_dtype others;               /* what is not int8 and has no rule: BF16, F16, or NONE */
    int32_t keep_first, keep_last;   /* layers with weights that stay float */
    const kiln_layer_option *layers; /* n_layers of them */
    size_t n_layers;
    const kiln_float_node *keep; /* n_keep of them */
    size_t n_keep;
} kiln_place_options;

/* What becomes of a node, by its id in its graph. */
typedef struct kiln_node_choice {
    bool int8;
    bool asked;         /* a rule names it int8 */
    const char *reason; /* why it is not int8, for nodes that could be or were asked to; or NULL */
} kiln_node_choice;

typedef struct kiln_value_choice {
    bool want;     /* gets QuantizeLinear and DequantizeLinear */
    bool feeds;    /* activations behind it are wanted: its producer is worth quantizing */
    int32_t group; /* id of the value whose scale it shares; follow until it stays */
} kiln_value_choice;

typedef struct kiln_choice {
    const kiln_graph *graph;
    const kiln_place_options *options;
    kiln_node_choice *nodes;   /* per node of the graph */
    kiln_value_choice *values; /* per value id */
    const bool *barred;        /* per node, or NULL: not to be chosen */
    bool *may;                 /* per node: nothing speaks against int8 but its surroundings */
    bool changed;              /* by the sweep */
} kiln_choice;

/* Why layers in bodies stay float where scales come from calibration. */
extern const char kiln_body_reason[];

/* Chooses for an indexed, inferred graph, apart from the bodies in it. Nodes with barred[id] (may
 * be NULL) stay float, for `barred_reason`. KILN_F_PRECISION when a rule demands int8 of a node or
 * type that cannot have it, and when int8 is wanted of a graph that is quantized already. */
kiln_status kiln_choose(kiln_choice *out, const kiln_graph *graph,
                        const kiln_place_options *options, const bool *barred,
                        const char *barred_reason, kiln_arena *arena, kiln_diag *diag);

static inline bool kiln_choice_wants(const kiln_choice *c, const kiln_value *v) {
    return !v->constant && c->values[v->id].want;
}
/* The id that stands for all values sharing v's scale. */
int32_t kiln_choice_group(const kiln_choice *c, const kiln_value *v);
/* `user` reads v dequantized rather than as it was made. */
bool kiln_choice_reads(const kiln_choice *c, const kiln_value *v, const kiln_node *user);
/* The options of a node; defaults filled in. */
kiln_layer_option kiln_layer_option_of(const kiln_place_options *options, const kiln_node *node);

#endif
