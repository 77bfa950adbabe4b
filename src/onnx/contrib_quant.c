/* contrib_quant.c - see contrib.h: quantized operators as DequantizeLinear, the operator,
 * QuantizeLinear, and products of run-time integers as MatMulInteger, Cast, Mul. */
#include <string.h>

#include "onnx/contrib.h"

/* Inputs i, i + 1, i + 2 are x, scale and zero point: the float value. */
static kiln_value *dequantize(kiln_contrib *c, int32_t i) {
    return KILN_CONTRIB_NODE(c, "DequantizeLinear", kiln_contrib_need(c, i),
                             kiln_contrib_need(c, i + 1), kiln_contrib_in(c, i + 2));
}

/* The last node: x quantized with inputs i (scale) and i + 1 (zero point), in the type of
 * `like`. */
static void quantize(kiln_contrib *c, kiln_value *x, int32_t i, kiln_value *like) {
    kiln_value *scale = kiln_contrib_need(c, i), *zero = kiln_contrib_in(c, i + 1);
    zero = zero ? zero : kiln_contrib_scalar_like(c, 0, like);
    KILN_CONTRIB_LAST(c, "QuantizeLinear", x, scale, zero);
}

/* "QLinearAdd" is Add. */
static const char *plain_name(const kiln_contrib *c) {
    return c->s->op + strlen("QLinear");
}

void kiln_contrib_qlinear_binary(kiln_contrib *c) {
    kiln_value *a = dequantize(c, 0), *b = dequantize(c, 3);
    quantize(c, KILN_CONTRIB_NODE(c, plain_name(c), a, b), 6, kiln_contrib_in(c, 0));
}

void kiln_contrib_qlinear_unary(kiln_contrib *c) {
    kiln_value *x = dequantize(c, 0);
    if (strcmp(c->s->op, "QLinearLeakyRelu") == 0) {
        kiln_contrib_float(c, "alpha", kiln_contrib_get_float(c, "alpha", 0.01f));
    }
    quantize(c, KILN_CONTRIB_NODE(c, plain_name(c), x), 3, kiln_contrib_in(c, 0));
}

void kiln_contrib_qlinear_where(kiln_contrib *c) {
    kiln_value *x = dequantize(c, 1), *y = dequantize(c, 4);
    quantize(c, KILN_CONTRIB_NODE(c, "Where", kiln_contrib_need(c, 0), x, y), 7,
             kiln_contrib_in(c, 1));
}

/* Inputs: the output's scale and zero point, then three for each tensor. */
void kiln_contrib_qlinear_concat(kiln_contrib *c) {
    int32_t n = (c->s->n_in - 2) / 3;
    if (n < 1 || c->s->n_in != 2 + 3 * n) {
        c->status = kiln_fail(c->im->d.diag, KILN_F_ARITY,
                              "has %d inputs, needs 2 and 3 for each tensor", c->s->n_in);
        return;
    }
    kiln_value **parts = kiln_arena_array(&c->im->temp, (size_t)n, sizeof *parts);
    if (!parts) {
        c->status = KILN_E_MEMORY;
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        parts[i] = dequantize(c, 2 + 3 * i);
    }
    kiln_contrib_int(c, "axis", kiln_contrib_get_int(c, "axis", 0));
    quantize(c, kiln_contrib_node(c, "Concat", parts, n), 0, kiln_contrib_in(c, 2));
}

/* Softmax as the operator set in attribute `opset` defines it. */
void kiln_contrib_qlinear_softmax(kiln_contrib *c) {
    int64_t opset = kiln_contrib_get_int(c, "opset", 13);
    int64_t axis = kiln_contrib_get_int(c, "axis", opset < 13 ? 1 : -1);
    kiln_value *x = dequantize(c, 0);
    kiln_value *flat = x;
    if (opset < 13 && axis != -1) {
        kiln_contrib_int(c, "axis", axis);
        flat = KILN_CONTRIB_NODE(c, "Flatten", x);
        axis = -1;
    }
    kiln_contrib_int(c, "axis", axis);
    kiln_value *y = KILN_CONTRIB_NODE(c, "Softmax", flat);
    if (flat != x) {
        y = KILN_CONTRIB_NODE(c, "Reshape", y, KILN_CONTRIB_NODE(c, "Shape", x));
    }
    quantize(c, y, 3, kiln_contrib_in(c, 0));
}

void kiln_contrib_qlinear_reduce_mean(kiln_contrib *c) {
    kiln_ints axes = kiln_contrib_get_ints(c, "axes");
    kiln_value *x = dequantize(c, 0), *list = axes.n ? kiln_contrib_list(c, axes.v, axes.n) : NULL;
    kiln_contrib_int(c, "keepdims", kiln_contrib_get_int(c, "keepdims", 1));
    quantize(c, KILN_CONTRIB_NODE(c, "ReduceMean", x, list), 3, kiln_contrib_in(c, 0));
}

/* Attributes that pools and convolutions have in common. */
static int64_t window_attrs(kiln_contrib *c) {
    kiln_ints kernel = kiln_contrib_get_ints(c, "kernel_shape");
    const char *pad = kiln_contrib_get_text(c, "auto_pad", NULL);
    kiln_contrib_ints(c, "kernel_shape", kernel);
    kiln_contrib_ints(c, "pads", kiln_contrib_get_ints(c, "pads"));
    kiln_contrib_ints(c, "strides", kiln_contrib_get_ints(c, "strides"));
    if (pad) {
        kiln_contrib_text(c, "auto_pad", pad);
    }
    return kernel.n;
}

/* Number of spatial dims, from the kernel. */
static int64_t spatial_dims(kiln_contrib *c) {
    return kiln_contrib_get_ints(c, "kernel_shape").n;
}

void kiln_contrib_qlinear_average_pool(kiln_contrib *c) {
    bool nhwc = kiln_contrib_get_int(c, "channels_last", 0) != 0;
    int64_t spatial = spatial_dims(c);
    kiln_value *x = dequantize(c, 0), *like = kiln_contrib_in(c, 0);
    x = nhwc ? kiln_contrib_to_nchw(c, x, spatial) : x;
    window_attrs(c);
    kiln_contrib_int(c, "ceil_mode", kiln_contrib_get_int(c, "ceil_mode", 0));
    kiln_contrib_int(c, "count_include_pad", kiln_contrib_get_int(c, "count_include_pad", 0));
    x = KILN_CONTRIB_NODE(c, "AveragePool", x);
    if (!nhwc) {
        quantize(c, x, 3, like);
        return;
    }
    kiln_value *zero = kiln_contrib_in(c, 4);
    zero = zero ? zero : kiln_contrib_scalar_like(c, 0, like);
    x = KILN_CONTRIB_NODE(c, "QuantizeLinear", x, kiln_contrib_need(c, 3), zero);
    kiln_contrib_last_to_nhwc(c, x, spatial);
}

/* Channels last: the mean over axes 1 to rank - 2, a list that inference knows once it knows the
 * rank. */
static kiln_value *middle_axes(kiln_contrib *c, kiln_value *x) {
    kiln_value *one = NULL;
    if (c->status) {
        return NULL;
    }
    c->status = kiln_make_int(c->im, c->frame, 1, &one);
    kiln_value *rank = KILN_CONTRIB_NODE(c, "Size", KILN_CONTRIB_NODE(c, "Shape", x));
    return KILN_CONTRIB_NODE(c, "Range", one, KILN_CONTRIB_NODE(c, "Sub", rank, one), one);
}

void kiln_contrib_qlinear_global_pool(kiln_contrib *c) {
    bool nhwc = kiln_contrib_get_int(c, "channels_last", 0) != 0;
    kiln_value *x = dequantize(c, 0);
    x = nhwc ? KILN_CONTRIB_NODE(c, "ReduceMean", x, middle_axes(c, kiln_contrib_in(c, 0)))
             : KILN_CONTRIB_NODE(c, "GlobalAveragePool", x);
    quantize(c, x, 3, kiln_contrib_in(c, 0));
}

void kiln_contrib_qlinear_conv(kiln_contrib *c) {
    bool nhwc = kiln_contrib_get_int(c, "channels_last", 0) != 0;
    int64_t spatial = spatial_dims(c), group = kiln_contrib_get_int(c, "group", 1);
    kiln_ints dilations = kiln_contrib_get_ints(c, "dilations");
    kiln_value *in[9];
    for (int32_t i = 0; i < 9; i++) {
        in[i] = kiln_contrib_in(c, i);
    }
    in[0] = nhwc ? kiln_contrib_to_nchw(c, kiln_contrib_need(c, 0), spatial) : in[0];
    window_attrs(c);
    kiln_contrib_int(c, "group", group);
    kiln_contrib_ints(c, "dilations", dilations);
    if (nhwc) {
        kiln_contrib_last_to_nhwc(c, kiln_contrib_node(c, "QLinearConv", in, 9), spatial);
    } else {
        kiln_contrib_last(c, "QLinearConv", in, 9);
    }
}

void kiln_contrib_nhwc_max_pool(kiln_contrib *c) {
    int64_t spatial = spatial_dims(c);
    kiln_value *x = kiln_contrib_to_nchw(c, kiln_contrib_need(c, 0), spatial);
    window_attrs(c);
    kiln_contrib_ints(c, "dilations", kiln_contrib_get_ints(c, "dilations"));
    kiln_contrib_int(c, "ceil_mode", kiln_contrib_get_int(c, "ceil_mode", 0));
    kiln_contrib_last_to_nhwc(c, KILN_CONTRIB_NODE(c, "MaxPool", x), spatial);
}

/* ---- Products ---- */

static kiln_value *product_scale(kiln_contrib *c, kiln_value *a, kiln_value *b) {
    return KILN_CONTRIB_NODE(c, "Mul", a, b);
}

/* (a - a_zero) (b - b_zero) * scale + bias as float32, the last node. */
static void scaled_product(kiln_contrib *c, kiln_value *a, kiln_value *b, kiln_value *a_zero,
                           kiln_value *b_zero, kiln_value *scale, kiln_value *bias) {
    kiln_value *sums = KILN_CONTRIB_NODE(c, "MatMulInteger", a, b, a_zero, b_zero);
    kiln_contrib_int(c, "to", KILN_DTYPE_F32);
    sums = KILN_CONTRIB_NODE(c, "Cast", sums);
    if (bias) {
        sums = KILN_CONTRIB_NODE(c, "Mul", sums, scale);
        KILN_CONTRIB_LAST(c, "Add", sums, bias);
    } else {
        KILN_CONTRIB_LAST(c, "Mul", sums, scale);
    }
}

void kiln_contrib_matmul_integer_to_float(kiln_contrib *c) {
    kiln_value *scale = product_scale(c, kiln_contrib_need(c, 2), kiln_contrib_need(c, 3));
    scaled_product(c, kiln_contrib_need(c, 0), kiln_contrib_need(c, 1), kiln_contrib_in(c, 4),
                   kiln_contrib_in(c, 5), scale, kiln_contrib_in(c, 6));
}

void kiln_contrib_dynamic_quantize_matmul(kiln_contrib *c) {
    kiln_value *x = kiln_contrib_need(c, 0), *q[3] = {NULL, NULL, NULL};
    kiln_contrib_emit(c, "DynamicQuantizeLinear", &x, 1, q, 3);
    kiln_value *scale = product_scale(c, q[1], kiln_contrib_need(c, 2));
    scaled_product(c, q[0], kiln_contrib_need(c, 1), q[2], kiln_contrib_in(c, 3), scale,
                   kiln_contrib_in(c, 4));
}

/* DequantizeLinear of inputs i to i + 2 along an axis, should there be several scales. */
static kiln_value *dequantize_along(kiln_contrib *c, int32_t i, int64_t axis) {
    kiln_contrib_int(c, "axis", axis);
    return dequantize(c, i);
}

/* Inputs: A, scale, zero, B, scale, zero, int32 C (in steps of alpha times both scales), scale and
 * zero point of the output, absent for a float one. */
void kiln_contrib_qgemm(kiln_contrib *c) {
    int64_t trans_a = kiln_contrib_get_int(c, "transA", 0) != 0;
    int64_t trans_b = kiln_contrib_get_int(c, "transB", 0) != 0;
    float alpha = kiln_contrib_get_float(c, "alpha", 1);
    kiln_value *in[3] = {dequantize_along(c, 0, 0), dequantize_along(c, 3, trans_b ? 0 : 1), NULL};
    kiln_value *bias = kiln_contrib_in(c, 6);
    if (bias) {
        kiln_value *scale = product_scale(c, kiln_contrib_need(c, 1), kiln_contrib_need(c, 4));
        if (alpha != 1) {
            scale = KILN_CONTRIB_NODE(c, "Mul", scale, kiln_contrib_scalar_like(c, alpha, scale));
        }
        kiln_contrib_int(c, "axis", -1);
        in[2] = KILN_CONTRIB_NODE(c, "DequantizeLinear", bias, scale);
    }
    kiln_contrib_int(c, "transA", trans_a);
    kiln_contrib_int(c, "transB", trans_b);
    kiln_contrib_float(c, "alpha", alpha);
    if (!kiln_contrib_in(c, 7)) {
        kiln_contrib_last(c, "Gemm", in, 3);
        return;
    }
    kiln_value *y = kiln_contrib_node(c, "Gemm", in, 3);
    KILN_CONTRIB_LAST(c, "QuantizeLinear", y, kiln_contrib_need(c, 7), kiln_contrib_need(c, 8));
}

/* Inputs i to i + 2 with the last two dims of the first exchanged, as LSTM has its weights. One
 * scale and zero point for all, or one for each direction, or for each row of a direction: [scales]
 * or [directions, scales]. */
static kiln_value *lstm_weights(kiln_contrib *c, int32_t matrix, int32_t i) {
    static const int64_t last_two[] = {0, 2, 1}, all = -1;
    kiln_value *scale = kiln_contrib_need(c, i), *zero = kiln_contrib_in(c, i + 1);
    kiln_value *q = kiln_contrib_need(c, matrix);
    if (c->status) {
        return NULL;
    }
    const bool by_row = scale->type.rank == 2;
    if (by_row && scale->type.dims[0] != 1) {
        kiln_contrib_refuse(c, "a scale for each row of several directions");
    }
    if (by_row) {
        kiln_value *flat = kiln_contrib_list(c, &all, 1);
        scale = KILN_CONTRIB_NODE(c, "Reshape", scale, flat);
        zero = zero ? KILN_CONTRIB_NODE(c, "Reshape", zero, flat) : NULL;
    }
    kiln_contrib_ints(c, "perm", (kiln_ints){last_two, 3});
    q = KILN_CONTRIB_NODE(c, "Transpose", q);
    kiln_contrib_int(c, "axis", by_row ? 1 : 0);
    return KILN_CONTRIB_NODE(c, "DequantizeLinear", q, scale, zero);
}

/* LSTM with weights of 8 bits. Its inputs and states stay float: what ONNX Runtime rounds there, to
 * save time, is not part of the network. Inputs: those of LSTM, then scale and zero point of W and
 * R. */
void kiln_contrib_dynamic_quantize_lstm(kiln_contrib *c) {
    kiln_value *in[8], *out[3] = {NULL, NULL, NULL};
    for (int32_t i = 0; i < 8; i++) {
        in[i] = i == 1 || i == 2 ? lstm_weights(c, i, 6 + 2 * i) : kiln_contrib_in(c, i);
    }
    for (int32_t i = 0; i < 3 && i < c->s->n_out; i++) {
        out[i] = c->s->out[i];
    }
    kiln_contrib_text(c, "direction", kiln_contrib_get_text(c, "direction", "forward"));
    kiln_contrib_int(c, "hidden_size", kiln_contrib_get_int(c, "hidden_size", 0));
    kiln_contrib_int(c, "input_forget", kiln_contrib_get_int(c, "input_forget", 0));
    kiln_contrib_emit(c, "LSTM", in, 8, out, 3);
}

/* Inputs: x, weight, bias, their two scales, mask, their two zero points, past. */
void kiln_contrib_qattention(kiln_contrib *c) {
    kiln_value *x = KILN_CONTRIB_NODE(c, "DequantizeLinear", kiln_contrib_need(c, 0),
                                      kiln_contrib_need(c, 3), kiln_contrib_in(c, 6));
    kiln_contrib_int(c, "axis", 1);
    kiln_value *w = KILN_CONTRIB_NODE(c, "DequantizeLinear", kiln_contrib_need(c, 1),
                                      kiln_contrib_need(c, 4), kiln_contrib_in(c, 7));
    kiln_value *in[] = {x, w, kiln_contrib_in(c, 2), kiln_contrib_in(c, 5), kiln_contrib_in(c, 8)};
    kiln_value *out[] = {c->s->n_out > 0 ? c->s->out[0] : NULL,
                         c->s->n_out > 1 ? c->s->out[1] : NULL};
    kiln_contrib_int(c, "num_heads", kiln_contrib_get_int(c, "num_heads", 0));
    kiln_contrib_int(c, "unidirectional", kiln_contrib_get_int(c, "unidirectional", 0));
    kiln_contrib_float(c, "mask_filter_value",
                       kiln_contrib_get_float(c, "mask_filter_value", -10000));
    kiln_contrib_float(c, "scale", kiln_contrib_get_float(c, "scale", 0));
    if (kiln_contrib_get_int(c, "do_rotary", 0) ||
        kiln_contrib_get_int(c, "past_present_share_buffer", 0)) {
        kiln_contrib_refuse(c, "do_rotary or past_present_share_buffer");
    }
    c->domain = "com.microsoft";
    kiln_contrib_emit(c, "Attention", in, 5, out, c->s->n_out > 1 ? 2 : 1);
}
