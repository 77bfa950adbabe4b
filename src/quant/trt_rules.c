#include "quant/trt_rules.h"

#include <math.h>

#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"
#include "quant/op_rules.h"

static bool is_q(const kiln_node *n) {
    return n && n->op == &kiln_op_quantize_linear;
}

static bool is_dq(const kiln_node *n) {
    return n && n->op == &kiln_op_dequantize_linear;
}

/* The integers' side of a Q or DQ node, and its type. */
static const kiln_value *integers(const kiln_node *n) {
    return is_q(n) ? n->out[0] : n->in[0];
}

/* A constant, or one that is quantized in the graph. */
static bool is_fixed(const kiln_value *v) {
    return v->constant || (is_q(v->producer) && v->producer->in[0]->constant);
}

/* ---- One Q or DQ ---- */

/* Each returns what is wrong, or NULL. */
typedef const char *(*rule_fn)(const kiln_node *n);

static const char *rule_dtype(const kiln_node *n) {
    const uint32_t set = KILN_T(I8) | KILN_T(I4) | KILN_T(F8E4M3FN);
    return set >> integers(n)->type.dtype & 1 ? NULL
                                              : "the integers are neither int8 nor int4 nor float8";
}

static const char *rule_zero_point(const kiln_node *n) {
    const kiln_value *zero = kiln_node_in(n, 2);
    const kiln_tensor *t = kiln_value_data(zero);
    if (zero && !t) {
        return "the zero point is no stored constant";
    }
    for (int64_t i = 0, count = t ? kiln_tensor_count(t) : 0; i < count; i++) {
        if (kiln_get_f64(t->dtype, t->data, i) != 0) {
            return "a zero point is not 0";
        }
    }
    return NULL;
}

static const char *rule_scale(const kiln_node *n) {
    const kiln_tensor *t = kiln_value_data(n->in[1]);
    if (!t) {
        return "the scale is no stored constant";
    }
    for (int64_t i = 0, count = kiln_tensor_count(t); i < count; i++) {
        double s = kiln_get_f64(t->dtype, t->data, i);
        if (!(s > 0) || isinf(s)) {
            return "a scale is not positive and finite";
        }
    }
    return NULL;
}

static const char *rule_scale_dtype(const kiln_node *n) {
    const uint32_t set = KILN_T(F32) | KILN_T(F16) | KILN_T(BF16);
    return set >> n->in[1]->type.dtype & 1 ? NULL : "the scale is not float32, float16, bfloat16";
}

static const char *rule_shape(const kiln_node *n) {
    const kiln_quant_attrs *a = n->attrs;
    bool single = kiln_tensor_count(&n->in[1]->constant->tensor) == 1;
    return single || a->block_size > 0 || is_fixed(n->in[0])
               ? NULL
               : "an activation has more than one scale";
}

static const char *rule_block(const kiln_node *n) {
    const kiln_quant_attrs *a = n->attrs;
    return a->block_size == 0 || integers(n)->type.dtype == KILN_DTYPE_I4
               ? NULL
               : "only int4 can have scales by block";
}

/* Input of a layer that is a weight with an axis; -1: not one, or any axis will do. */
static int32_t weight_axis(const kiln_node *layer, const kiln_value *v) {
    int32_t rank = v->type.rank;
    if (kiln_node_in(layer, 1) != v) {
        return -1;
    }
    return layer->op == &kiln_op_conv             ? 0
           : layer->op == &kiln_op_conv_transpose ? 1
           : layer->op == &kiln_op_gemm ? (((const kiln_gemm_attrs *)layer->attrs)->transB ? 0 : 1)
           : layer->op == &kiln_op_matmul ? rank - 1
                                          : -1;
}

static const char *rule_axis(const kiln_node *n) {
    const kiln_quant_attrs *a = n->attrs;
    const kiln_value *v = n->out[0];
    if (!is_dq(n) || a->block_size > 0 || v->type.rank < 1 ||
        kiln_tensor_count(&n->in[1]->constant->tensor) == 1) {
        return NULL;
    }
    for (int32_t i = 0; i < v->n_users; i++) {
        int32_t want = weight_axis(v->users[i], v);
        if (want >= 0 && want != (a->axis < 0 ? a->axis + v->type.rank : a->axis)) {
            return "the scales do not lie along the layer's output channels";
        }
    }
    return NULL;
}

static const char *rule_pair(const kiln_node *n) {
    const kiln_value *q = is_q(n) ? n->out[0] : NULL;
    for (int32_t i = 0; q && i < q->n_users; i++) {
        if (!is_dq(q->users[i])) {
            return "what it gives is read by another operator than DequantizeLinear";
        }
    }
    return q && (q->n_outputs > 0 || q->n_users == 0)
               ? "what it gives leaves the graph, or nothing "
                 "reads it"
               : NULL;
}

static const struct {
    const char *name;
    rule_fn broken;
} rules[] = {
    {"dtype", rule_dtype}, {"zero-point", rule_zero_point},
    {"scale", rule_scale}, {"scale-dtype", rule_scale_dtype},
    {"shape", rule_shape}, {"block", rule_block},
    {"axis", rule_axis},   {"pair", rule_pair},
};

/* ---- Layers ---- */

static bool is_dequantized(const kiln_node *n, int32_t in) {
    const kiln_value *v = kiln_node_in(n, in);
    return v && is_dq(v->producer);
}

/* Both operands or none. */
static const char *rule_weights(const kiln_node *n) {
    bool layer = kiln_op_rule_of(n->op)->kind == KILN_QUANT_WEIGHTED && n->n_in >= 2;
    if (!layer || is_dequantized(n, 0) == is_dequantized(n, 1)) {
        return NULL;
    }
    return is_dequantized(n, 0) ? "its input is dequantized, its weights are not"
                                : "its weights are dequantized, its input is not";
}

static size_t check_node(const kiln_node *n, kiln_diag *diag) {
    const char *name = "weights", *wrong = rule_weights(n);
    for (size_t i = 0; (is_q(n) || is_dq(n)) && i < KILN_COUNT_OF(rules) && !wrong; i++) {
        name = rules[i].name;
        wrong = rules[i].broken(n);
    }
    if (wrong) {
        kiln_diag_at_node(diag, n->name, n->op->name);
        (void)kiln_fail(diag, KILN_F_LINT, "TensorRT's rule \"%s\": %s", name, wrong);
        kiln_diag_at_node(diag, NULL, NULL);
    }
    return wrong ? 1 : 0;
}

size_t kiln_trt_check(const kiln_graph *graph, kiln_diag *diag) {
    size_t n = 0;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const kiln_node *node = graph->nodes[i];
        n += check_node(node, diag);
        for (int32_t b = 0; b < node->n_bodies; b++) {
            n += kiln_trt_check(node->bodies[b], diag);
        }
    }
    return n;
}
