/* contrib.c - see contrib.h: float operators, and the table of all rewrites. */
#include "onnx/contrib.h"

#include <string.h>

/* ---- Activations ---- */

static void gelu(kiln_contrib *c) {
    KILN_CONTRIB_LAST(c, "Gelu", kiln_contrib_need(c, 0));
}

static void bias_gelu(kiln_contrib *c) {
    kiln_value *sum = kiln_contrib_add(c, kiln_contrib_need(c, 0), kiln_contrib_need(c, 1));
    KILN_CONTRIB_LAST(c, "Gelu", sum);
}

static void fast_gelu(kiln_contrib *c) {
    kiln_value *sum = kiln_contrib_add(c, kiln_contrib_need(c, 0), kiln_contrib_in(c, 1));
    kiln_contrib_text(c, "approximate", "tanh");
    KILN_CONTRIB_LAST(c, "Gelu", sum);
}

static void quick_gelu(kiln_contrib *c) {
    kiln_contrib_float(c, "alpha", kiln_contrib_get_float(c, "alpha", 1.702f));
    KILN_CONTRIB_LAST(c, "Swish", kiln_contrib_need(c, 0));
}

static void gemm_fast_gelu(kiln_contrib *c) {
    kiln_value *y =
        KILN_CONTRIB_NODE(c, "MatMul", kiln_contrib_need(c, 0), kiln_contrib_need(c, 1));
    y = kiln_contrib_add(c, y, kiln_contrib_in(c, 2));
    kiln_contrib_text(c, "approximate", "tanh");
    KILN_CONTRIB_LAST(c, "Gelu", y);
}

static void bias_add(kiln_contrib *c) {
    kiln_value *sum = kiln_contrib_add(c, kiln_contrib_need(c, 0), kiln_contrib_need(c, 1));
    KILN_CONTRIB_LAST(c, "Add", sum, kiln_contrib_need(c, 2));
}

/* The last dim in two halves: left * gelu(right). */
static void bias_split_gelu(kiln_contrib *c) {
    kiln_value *half[2] = {NULL, NULL};
    kiln_value *sum = kiln_contrib_add(c, kiln_contrib_need(c, 0), kiln_contrib_need(c, 1));
    kiln_contrib_int(c, "axis", -1);
    kiln_contrib_int(c, "num_outputs", 2);
    kiln_contrib_emit(c, "Split", &sum, 1, half, 2);
    kiln_value *gate = KILN_CONTRIB_NODE(c, "Gelu", half[1]);
    KILN_CONTRIB_LAST(c, "Mul", half[0], gate);
}

/* ---- Normalizations ---- */

static void simplified_layer_norm(kiln_contrib *c) {
    kiln_contrib_int(c, "axis", kiln_contrib_get_int(c, "axis", -1));
    kiln_contrib_float(c, "epsilon", kiln_contrib_get_float(c, "epsilon", 1e-5f));
    kiln_contrib_int(c, "stash_type", kiln_contrib_get_int(c, "stash_type", 1));
    kiln_contrib_unused(c, 1);
    KILN_CONTRIB_LAST(c, "RMSNormalization", kiln_contrib_need(c, 0), kiln_contrib_need(c, 1));
}

/* input + skip + bias, which is also output 3 of the node. */
static kiln_value *skip_sum(kiln_contrib *c, kiln_value *bias) {
    kiln_value *in[] = {kiln_contrib_need(c, 0), kiln_contrib_need(c, 1)};
    kiln_value *out = c->s->n_out > 3 ? c->s->out[3] : NULL;
    if (bias) {
        in[0] = KILN_CONTRIB_NODE(c, "Add", in[0], in[1]);
        in[1] = bias;
    }
    kiln_contrib_emit(c, "Add", in, 2, &out, 1);
    return out;
}

static void skip_layer_norm(kiln_contrib *c) {
    kiln_value *out[3] = {NULL, NULL, NULL};
    kiln_value *sum = skip_sum(c, kiln_contrib_in(c, 4));
    kiln_value *in[] = {sum, kiln_contrib_need(c, 2), kiln_contrib_in(c, 3)};
    int32_t n = 1;
    for (int32_t i = 0; i < 3 && i < c->s->n_out; i++) {
        out[i] = c->s->out[i];
        n = out[i] ? i + 1 : n;
    }
    kiln_contrib_int(c, "axis", -1);
    kiln_contrib_float(c, "epsilon", kiln_contrib_get_float(c, "epsilon", 1e-12f));
    kiln_contrib_emit(c, "LayerNormalization", in, 3, out, n);
}

static void skip_simplified_layer_norm(kiln_contrib *c) {
    kiln_value *sum = skip_sum(c, kiln_contrib_in(c, 3));
    kiln_contrib_unused(c, 1);
    kiln_contrib_unused(c, 2);
    kiln_contrib_int(c, "axis", -1);
    kiln_contrib_float(c, "epsilon", kiln_contrib_get_float(c, "epsilon", 1e-12f));
    KILN_CONTRIB_LAST(c, "RMSNormalization", sum, kiln_contrib_need(c, 2));
}

/* Rows of the position table: by id, or the first as many as there are words. */
static kiln_value *positions(kiln_contrib *c, kiln_value *ids) {
    const int64_t zero = 0;
    kiln_value *table = kiln_contrib_need(c, 3), *by = kiln_contrib_in(c, 8);
    if (by) {
        return KILN_CONTRIB_NODE(c, "Gather", table, by);
    }
    kiln_value *first = kiln_contrib_list(c, &zero, 1);
    kiln_contrib_int(c, "start", 1);
    kiln_value *count = KILN_CONTRIB_NODE(c, "Shape", ids);
    return KILN_CONTRIB_NODE(c, "Slice", table, first, count, first);
}

/* Output 1: how many words of each row the mask keeps; zeros without a mask. */
static void mask_index(kiln_contrib *c, kiln_value *ids) {
    const int64_t one = 1;
    kiln_value *mask = kiln_contrib_in(c, 7), *out = c->s->n_out > 1 ? c->s->out[1] : NULL;
    kiln_value *counted = mask ? mask : ids, *axis = kiln_contrib_list(c, &one, 1);
    if (!out) {
        return;
    }
    if (!mask) {
        counted = KILN_CONTRIB_NODE(c, "Sub", ids, ids);
    }
    kiln_value *in[] = {counted, axis};
    kiln_contrib_int(c, "keepdims", 0);
    kiln_contrib_emit(c, "ReduceSum", in, 2, &out, 1);
}

static void embed_layer_norm(kiln_contrib *c) {
    kiln_value *ids = kiln_contrib_need(c, 0), *segments = kiln_contrib_in(c, 1);
    kiln_value *sum = KILN_CONTRIB_NODE(c, "Gather", kiln_contrib_need(c, 2), ids);
    kiln_value *out = c->s->n_out > 2 ? c->s->out[2] : NULL;
    kiln_value *in[] = {sum, positions(c, ids)};
    kiln_contrib_get_int(c, "mask_index_type", 0);
    mask_index(c, ids);
    if (segments) {
        in[0] = KILN_CONTRIB_NODE(c, "Add", in[0], in[1]);
        in[1] = KILN_CONTRIB_NODE(c, "Gather", kiln_contrib_need(c, 4), segments);
    }
    kiln_contrib_emit(c, "Add", in, 2, &out, 1);
    kiln_contrib_int(c, "axis", -1);
    kiln_contrib_float(c, "epsilon", kiln_contrib_get_float(c, "epsilon", 1e-12f));
    KILN_CONTRIB_LAST(c, "LayerNormalization", out, kiln_contrib_need(c, 5),
                      kiln_contrib_need(c, 6));
}

/* Images only: rank 4. */
static void group_norm(kiln_contrib *c) {
    bool nhwc = kiln_contrib_get_int(c, "channels_last", 1) != 0;
    bool silu = kiln_contrib_get_int(c, "activation", 0) != 0;
    kiln_value *x = kiln_contrib_need(c, 0);
    kiln_value *like[] = {kiln_contrib_need(c, 1), x}, *like_bias[] = {kiln_contrib_need(c, 2), x};
    kiln_value *gamma = kiln_contrib_node(c, "CastLike", like, 2);
    kiln_value *beta = kiln_contrib_node(c, "CastLike", like_bias, 2);
    x = nhwc ? kiln_contrib_to_nchw(c, x, 2) : x;
    kiln_contrib_int(c, "num_groups", kiln_contrib_get_int(c, "groups", 0));
    kiln_contrib_float(c, "epsilon", kiln_contrib_get_float(c, "epsilon", 1e-5f));
    x = KILN_CONTRIB_NODE(c, "GroupNormalization", x, gamma, beta);
    x = silu ? KILN_CONTRIB_NODE(c, "Swish", x) : x;
    if (nhwc) {
        kiln_contrib_last_to_nhwc(c, x, 2);
    } else {
        KILN_CONTRIB_LAST(c, "Identity", x);
    }
}

/* ---- Fused activations ---- */

typedef struct fused_act {
    const char *name;
    const char *params[2]; /* attribute names, in the order of activation_params */
} fused_act;

static const fused_act fused_acts[] = {
    {"Relu", {NULL, NULL}},
    {"Tanh", {NULL, NULL}},
    {"Sigmoid", {NULL, NULL}},
    {"Softplus", {NULL, NULL}},
    {"Softsign", {NULL, NULL}},
    {"LeakyRelu", {"alpha", NULL}},
    {"Elu", {"alpha", NULL}},
    {"ThresholdedRelu", {"alpha", NULL}},
    {"HardSigmoid", {"alpha", "beta"}},
    {"HardSwish", {NULL, NULL}},
};

/* The activation that attribute `activation` names, as the last node; params may be empty. */
static void activate(kiln_contrib *c, kiln_value *x, kiln_floats params) {
    const char *name = kiln_contrib_get_text(c, "activation", NULL);
    if (!name || name[0] == '\0') {
        KILN_CONTRIB_LAST(c, "Identity", x);
        return;
    }
    if (strcmp(name, "Clip") == 0 && params.n == 2) {
        kiln_value *lo = kiln_contrib_scalar_like(c, params.v[0], x);
        KILN_CONTRIB_LAST(c, "Clip", x, lo, kiln_contrib_scalar_like(c, params.v[1], x));
        return;
    }
    for (size_t i = 0; i < KILN_COUNT_OF(fused_acts); i++) {
        const fused_act *f = &fused_acts[i];
        if (strcmp(name, f->name) != 0) {
            continue;
        }
        for (int64_t p = 0; p < 2 && p < params.n && f->params[p]; p++) {
            kiln_contrib_float(c, f->params[p], params.v[p]);
        }
        KILN_CONTRIB_LAST(c, name, x);
        return;
    }
    kiln_contrib_refuse(c, "this fused activation");
}

static void fused_conv(kiln_contrib *c) {
    kiln_value *x = kiln_contrib_need(c, 0), *w = kiln_contrib_need(c, 1);
    const char *pad = kiln_contrib_get_text(c, "auto_pad", NULL);
    kiln_contrib_int(c, "group", kiln_contrib_get_int(c, "group", 1));
    kiln_contrib_ints(c, "pads", kiln_contrib_get_ints(c, "pads"));
    kiln_contrib_ints(c, "strides", kiln_contrib_get_ints(c, "strides"));
    kiln_contrib_ints(c, "dilations", kiln_contrib_get_ints(c, "dilations"));
    kiln_contrib_ints(c, "kernel_shape", kiln_contrib_get_ints(c, "kernel_shape"));
    if (pad) {
        kiln_contrib_text(c, "auto_pad", pad);
    }
    x = KILN_CONTRIB_NODE(c, "Conv", x, w, kiln_contrib_in(c, 2));
    x = kiln_contrib_add(c, x, kiln_contrib_in(c, 3));
    activate(c, x, kiln_contrib_get_floats(c, "activation_params"));
}

static void fused_gemm(kiln_contrib *c) {
    float params[] = {kiln_contrib_get_float(c, "activation_alpha", 0),
                      kiln_contrib_get_float(c, "activation_beta", 0)};
    bool given = kiln_source_attr_find(c->s, "activation_alpha") != NULL;
    if (kiln_contrib_get_float(c, "activation_gamma", 0) != 0) {
        kiln_contrib_refuse(c, "activation_gamma");
    }
    kiln_contrib_float(c, "alpha", kiln_contrib_get_float(c, "alpha", 1));
    kiln_contrib_float(c, "beta", kiln_contrib_get_float(c, "beta", 1));
    kiln_contrib_int(c, "transA", kiln_contrib_get_int(c, "transA", 0));
    kiln_contrib_int(c, "transB", kiln_contrib_get_int(c, "transB", 0));
    kiln_value *y = KILN_CONTRIB_NODE(c, "Gemm", kiln_contrib_need(c, 0), kiln_contrib_need(c, 1),
                                      kiln_contrib_in(c, 2));
    activate(c, y, (kiln_floats){params, given ? 2 : 0});
}

/* ---- Shapes ---- */

static void expand_dims(kiln_contrib *c) {
    const int64_t one = 1;
    kiln_contrib_int(c, "to", KILN_DTYPE_I64);
    kiln_value *axis = KILN_CONTRIB_NODE(c, "Cast", kiln_contrib_need(c, 1));
    axis = KILN_CONTRIB_NODE(c, "Reshape", axis, kiln_contrib_list(c, &one, 1));
    KILN_CONTRIB_LAST(c, "Unsqueeze", kiln_contrib_need(c, 0), axis);
}

/* Outputs: values, inverse indices, counts. */
static void unique(kiln_contrib *c) {
    kiln_value *x = kiln_contrib_need(c, 0), *out[4] = {NULL, NULL, NULL, NULL};
    for (int32_t i = 0; i < 3 && i < c->s->n_out; i++) {
        out[i ? i + 1 : 0] = c->s->out[i];
    }
    kiln_contrib_int(c, "sorted", 0);
    kiln_contrib_emit(c, "Unique", &x, 1, out, 4);
}

/* The words of operator set 16. */
static void grid_sample(kiln_contrib *c) {
    const char *mode = kiln_contrib_get_text(c, "mode", "bilinear");
    const char *padding = kiln_contrib_get_text(c, "padding_mode", "zeros");
    mode = strcmp(mode, "bilinear") == 0 ? "linear" : strcmp(mode, "bicubic") == 0 ? "cubic" : mode;
    kiln_contrib_text(c, "mode", mode);
    kiln_contrib_text(c, "padding_mode", padding);
    kiln_contrib_int(c, "align_corners", kiln_contrib_get_int(c, "align_corners", 0));
    KILN_CONTRIB_LAST(c, "GridSample", kiln_contrib_need(c, 0), kiln_contrib_need(c, 1));
}

/* Start, limit and delta may also be of one element in one dim, and delta is 1 if left out. */
static void range(kiln_contrib *c) {
    kiln_value *in[3], *scalar = kiln_contrib_list(c, NULL, 0);
    for (int32_t i = 0; i < 3; i++) {
        in[i] = i < 2 ? kiln_contrib_need(c, i) : kiln_contrib_in(c, i);
        in[i] = in[i] ? KILN_CONTRIB_NODE(c, "Reshape", in[i], scalar)
                      : kiln_contrib_scalar_like(c, 1, in[0]);
    }
    kiln_contrib_last(c, "Range", in, 3);
}

/* ---- The table ---- */

typedef struct rule {
    const char *op;
    kiln_contrib_rewrite *function;
} rule;

static const rule rules[] = {
    {"BiasAdd", bias_add},
    {"BiasGelu", bias_gelu},
    {"BiasSplitGelu", bias_split_gelu},
    {"DynamicQuantizeLSTM", kiln_contrib_dynamic_quantize_lstm},
    {"DynamicQuantizeMatMul", kiln_contrib_dynamic_quantize_matmul},
    {"EmbedLayerNormalization", embed_layer_norm},
    {"ExpandDims", expand_dims},
    {"FastGelu", fast_gelu},
    {"FusedConv", fused_conv},
    {"FusedGemm", fused_gemm},
    {"Gelu", gelu},
    {"GemmFastGelu", gemm_fast_gelu},
    {"GroupNorm", group_norm},
    {"GridSample", grid_sample},
    {"MatMulIntegerToFloat", kiln_contrib_matmul_integer_to_float},
    {"NhwcMaxPool", kiln_contrib_nhwc_max_pool},
    {"QAttention", kiln_contrib_qattention},
    {"QGemm", kiln_contrib_qgemm},
    {"QLinearAdd", kiln_contrib_qlinear_binary},
    {"QLinearAveragePool", kiln_contrib_qlinear_average_pool},
    {"QLinearConcat", kiln_contrib_qlinear_concat},
    {"QLinearConv", kiln_contrib_qlinear_conv},
    {"QLinearGlobalAveragePool", kiln_contrib_qlinear_global_pool},
    {"QLinearLeakyRelu", kiln_contrib_qlinear_unary},
    {"QLinearMul", kiln_contrib_qlinear_binary},
    {"QLinearReduceMean", kiln_contrib_qlinear_reduce_mean},
    {"QLinearSigmoid", kiln_contrib_qlinear_unary},
    {"QLinearSoftmax", kiln_contrib_qlinear_softmax},
    {"QLinearWhere", kiln_contrib_qlinear_where},
    {"QuickGelu", quick_gelu},
    {"Range", range},
    {"SkipLayerNormalization", skip_layer_norm},
    {"SkipSimplifiedLayerNormalization", skip_simplified_layer_norm},
    {"Unique", unique},
};

static kiln_status check_attrs(kiln_importer *im, const kiln_source *s) {
    for (int32_t i = 0; i < s->n_attrs; i++) {
        if (!s->attrs[i].used) {
            kiln_view name = s->attrs[i].pb.name;
            return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE, "the operator has no attribute \"%.*s\"",
                             (int)name.n, name.p);
        }
    }
    return KILN_OK;
}

static kiln_status apply(kiln_importer *im, kiln_frame *frame, kiln_source *s,
                         kiln_contrib_rewrite *function) {
    kiln_contrib c = {.im = im, .frame = frame, .s = s};
    for (int32_t i = 0; i < s->n_attrs; i++) {
        s->attrs[i].used = false;
    }
    kiln_diag_at_node(im->d.diag, s->name, s->op);
    kiln_diag_at_offset(im->d.diag, s->offset);
    function(&c);
    KILN_TRY(c.status);
    im->out->n_upgraded++;
    return check_attrs(im, s);
}

kiln_status kiln_contrib_apply(kiln_importer *im, kiln_frame *frame, kiln_source *s, bool *done) {
    /* Written without a domain, although no standard operator has that name. */
    bool simplified = strcmp(s->op, "SimplifiedLayerNormalization") == 0;
    *done = simplified;
    if (simplified) {
        return apply(im, frame, s, simplified_layer_norm);
    }
    for (size_t i = 0; strcmp(s->domain, "com.microsoft") == 0 && i < KILN_COUNT_OF(rules); i++) {
        if (strcmp(rules[i].op, s->op) == 0) {
            *done = true;
            return apply(im, frame, s, rules[i].function);
        }
    }
    return KILN_OK;
}
