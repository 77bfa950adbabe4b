#include "quant/op_rules.h"

#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

#define RULE(id, kind_) \
    { .op = &kiln_op_##id, .kind = KILN_QUANT_##kind_, }
#define ON_REQUEST(id, kind_) \
    { .op = &kiln_op_##id, .kind = KILN_QUANT_##kind_, .on_request = true, }

/* LSTM and GRU: the state is float, so that the bytes of R are brought to float at each step, which
 * saves memory and costs some time while float weights fit the cache. */
static const kiln_op_rule rules[] = {
    RULE(conv, WEIGHTED),
    RULE(conv_transpose, WEIGHTED),
    RULE(gemm, WEIGHTED),
    RULE(matmul, WEIGHTED),
    ON_REQUEST(lstm, WEIGHTED),
    ON_REQUEST(gru, WEIGHTED),
    RULE(add, SUM),
    RULE(mul, SUM),
    RULE(max_pool, SAME),
    RULE(global_max_pool, SAME),
    RULE(reduce_max, SAME),
    RULE(reduce_min, SAME),
    RULE(concat, SAME),
    RULE(depth_to_space, SAME),
    RULE(expand, SAME),
    RULE(flatten, SAME),
    RULE(gather, SAME),
    RULE(gather_elements, SAME),
    RULE(identity, SAME),
    RULE(pad, SAME),
    RULE(reshape, SAME),
    RULE(resize, SAME),
    RULE(slice, SAME),
    RULE(space_to_depth, SAME),
    RULE(split, SAME),
    RULE(squeeze, SAME),
    RULE(tile, SAME),
    RULE(transpose, SAME),
    RULE(unsqueeze, SAME),
    RULE(average_pool, AVERAGE),
    RULE(global_average_pool, AVERAGE),
    RULE(reduce_mean, AVERAGE),
    RULE(relu, CLAMP),
    RULE(clip, CLAMP),
    RULE(elu, UNARY),
    RULE(gelu, UNARY),
    RULE(hard_sigmoid, UNARY),
    RULE(hard_swish, UNARY),
    RULE(leaky_relu, UNARY),
    RULE(mish, UNARY),
    RULE(prelu, UNARY),
    RULE(sigmoid, UNARY),
    RULE(swish, UNARY),
    RULE(tanh, UNARY),
};

static const kiln_op_rule none = {.kind = KILN_QUANT_NONE};

const kiln_op_rule *kiln_op_rule_of(const kiln_op *op) {
    for (size_t i = 0; i < KILN_COUNT_OF(rules); i++) {
        if (rules[i].op == op) {
            return &rules[i];
        }
    }
    return &none;
}

bool kiln_is_f32_tensor(const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR && v->type.dtype == KILN_DTYPE_F32 &&
           v->type.rank >= 0;
}

/* ---- Layers ---- */

static bool is_weight(const kiln_node *n, int32_t in) {
    const kiln_value *v = kiln_node_in(n, in);
    return kiln_is_f32_tensor(v) && v->constant && v->type.rank >= 2 &&
           kiln_type_is_static(&v->type);
}

static bool is_activation(const kiln_node *n, int32_t in) {
    const kiln_value *v = kiln_node_in(n, in);
    return kiln_is_f32_tensor(v) && !v->constant;
}

static const char *conv_use(const kiln_node *n, kiln_layer_use *use) {
    bool transposed = n->op == &kiln_op_conv_transpose;
    int64_t group = transposed ? ((const kiln_conv_transpose_attrs *)n->attrs)->group
                               : ((const kiln_conv_attrs *)n->attrs)->group;
    if (!is_activation(n, 0) || !is_weight(n, 1)) {
        return "its input is no float32 tensor, or its weights are not constant";
    }
    use->x[0] = 0;
    use->n_x = 1;
    /* Channels of several groups share an index of ConvTranspose's axis 1. */
    use->w[0] = (kiln_weight_use){1, transposed ? (group == 1 ? 1 : -1) : 0, 2};
    use->n_w = 1;
    return NULL;
}

static const char *gemm_use(const kiln_node *n, kiln_layer_use *use) {
    const kiln_gemm_attrs *a = n->attrs;
    if (!is_activation(n, 0) || !is_weight(n, 1)) {
        return "its input is no float32 tensor, or its weights are not constant";
    }
    use->x[0] = 0;
    use->n_x = 1;
    use->w[0] = (kiln_weight_use){1, a->transB ? 0 : 1, a->beta == 1 ? 2 : -1};
    use->n_w = 1;
    use->alpha = (double)a->alpha;
    return NULL;
}

/* One operand may be constant; its scales run along the dim that is not summed. */
static const char *matmul_use(const kiln_node *n, kiln_layer_use *use) {
    for (int32_t i = 0; i < 2; i++) {
        if (is_weight(n, i)) {
            int32_t rank = n->in[i]->type.rank;
            use->w[use->n_w++] = (kiln_weight_use){i, i == 0 ? rank - 2 : rank - 1, -1};
        } else if (is_activation(n, i) && n->in[i]->type.rank >= 2) {
            use->x[use->n_x++] = i;
        } else {
            return "an operand is no float32 matrix";
        }
    }
    return use->n_x > 0 ? NULL : "both operands are constant";
}

/* X, W and R, the same rows of both directions sharing a scale; the state between the steps stays
 * float. */
static const char *recurrent_use(const kiln_node *n, kiln_layer_use *use) {
    if (!is_activation(n, 0) || !is_weight(n, 1) || !is_weight(n, 2)) {
        return "its input is no float32 tensor, or its weights are not constant";
    }
    use->x[0] = 0;
    use->n_x = 1;
    for (int32_t i = 0; i < 2; i++) {
        use->w[use->n_w++] = (kiln_weight_use){i + 1, 1, -1};
    }
    return NULL;
}

const char *kiln_layer_use_of(const kiln_node *node, kiln_layer_use *use) {
    *use = (kiln_layer_use){.alpha = 1};
    if (node->op == &kiln_op_gemm) {
        return gemm_use(node, use);
    }
    if (node->op == &kiln_op_matmul) {
        return matmul_use(node, use);
    }
    return node->op == &kiln_op_lstm || node->op == &kiln_op_gru ? recurrent_use(node, use)
                                                                 : conv_use(node, use);
}

/* ---- Movers ---- */

/* The value that Pad fills in is 0, which every scale represents. */
static bool pads_with_zero(const kiln_node *n) {
    const kiln_value *fill = kiln_node_in(n, 2);
    const kiln_tensor *t = kiln_value_data(fill);
    return !fill || ((const kiln_pad_attrs *)n->attrs)->mode != 0 ||
           (t && kiln_tensor_count(t) == 1 && kiln_get_f64(t->dtype, t->data, 0) == 0);
}

kiln_quant_kind kiln_quant_kind_of(const kiln_node *node) {
    kiln_quant_kind kind = kiln_op_rule_of(node->op)->kind;
    if (node->op == &kiln_op_mul && node->stays) {
        return KILN_QUANT_UNARY;
    }
    if (node->op == &kiln_op_pad) {
        return pads_with_zero(node) ? kind : KILN_QUANT_NONE;
    }
    if (node->op == &kiln_op_resize) {
        const kiln_resize_attrs *a = node->attrs;
        return a->coordinate_transformation_mode == KILN_RESIZE_TF_CROP ? KILN_QUANT_NONE
               : a->mode == 0                                           ? kind
                                                                        : KILN_QUANT_AVERAGE;
    }
    if (node->op == &kiln_op_max_pool && node->n_out > 1) {
        return KILN_QUANT_NONE;
    }
    return kind;
}

int32_t kiln_data_inputs(const kiln_node *node) {
    return node->op == &kiln_op_concat ? node->n_in : 1;
}
