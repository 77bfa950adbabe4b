/* qlinear.c - QLinearConv and QLinearMatMul in the Q/DQ form: DequantizeLinear, the operator on
 * floats, QuantizeLinear.
 *
 * The int32 bias counts in steps of x_scale * w_scale and becomes a DequantizeLinear of that scale.
 * In real arithmetic both forms are the same number before it is rounded to 8 bits. The rounding
 * itself is what ONNX leaves open: the old operators multiply an integer sum by a rounded quotient
 * of scales, the Q/DQ form divides a rounded float sum; at ties they may differ by one step. */
#include "pass/fold.h"

/* x dequantized along `axis` where it has several scales. */
static kiln_value *dequantize(kiln_patch *p, kiln_value *x, kiln_value *scale, kiln_value *zero,
                              int64_t axis) {
    kiln_value *in[] = {x, scale, zero};
    kiln_value *y = kiln_patch_node(p, "DequantizeLinear", in, zero ? 3 : 2);
    if (y && kiln_static_count(scale) != 1) {
        kiln_patch_int(p, y, "axis", axis);
    }
    return y;
}

static kiln_status finish(kiln_patch *p, const kiln_node *n, kiln_value *y, int32_t scale,
                          const char *what) {
    kiln_value *in[] = {y, n->in[scale], n->in[scale + 1]};
    kiln_patch_replace(p, n->out[0], kiln_patch_node(p, "QuantizeLinear", in, 3));
    return kiln_patch_commit(p, what);
}

/* One scale, or one for each of the n indices of an axis; the zero point of the same count. A
 * count that is not known is neither. */
static bool are_paired(const kiln_value *scale, const kiln_value *zero, kiln_dim n) {
    int64_t count = kiln_static_count(scale);
    return kiln_static_count(zero) == count && kiln_rank(scale) <= 1 && kiln_rank(zero) <= 1 &&
           (count == 1 || count == n);
}

/* The product of two scales: a constant where both are. */
static kiln_value *product(kiln_patch *p, kiln_value *a, kiln_value *b) {
    kiln_value *in[] = {a, b};
    kiln_value *longer = kiln_static_count(b) > 1 ? b : a;
    kiln_tensor t = {.rank = 0};
    if (!kiln_value_is_const(a) || !kiln_value_is_const(b)) {
        return kiln_patch_node(p, "Mul", in, 2);
    }
    longer = kiln_rank(b) > kiln_rank(longer) ? b : longer;
    return kiln_type_to_tensor(&longer->type, &t) ? kiln_fold_make(p, "Mul", in, 2, &t) : NULL;
}

/* Inputs: x, its scale and zero point; w, its; those of y; bias. */
static kiln_status conv(kiln_patch *p, const kiln_node *n) {
    kiln_value *in[3] = {NULL, NULL, NULL}, *bias = kiln_node_in(n, 8);
    if (!are_paired(n->in[1], n->in[2], 1) ||
        !are_paired(n->in[4], n->in[5], kiln_dim_at(n->in[3], 0))) {
        return KILN_OK;
    }
    in[0] = dequantize(p, n->in[0], n->in[1], n->in[2], 0);
    in[1] = dequantize(p, n->in[3], n->in[4], n->in[5], 0);
    if (bias) {
        kiln_value *scale = product(p, n->in[1], n->in[4]);
        if (!scale) {
            kiln_patch_drop(p);
            return KILN_OK;
        }
        in[2] = dequantize(p, bias, scale, NULL, 0);
    }
    const kiln_conv_attrs *a = n->attrs;
    kiln_value *y = kiln_patch_node(p, "Conv", in, bias ? 3 : 2);
    kiln_patch_int(p, y, "auto_pad", a->auto_pad);
    kiln_patch_int(p, y, "group", a->group);
    const kiln_ints *lists[] = {&a->dilations, &a->kernel_shape, &a->pads, &a->strides};
    static const char *const names[] = {"dilations", "kernel_shape", "pads", "strides"};
    for (size_t i = 0; i < KILN_COUNT_OF(names); i++) {
        if (lists[i]->v) {
            kiln_patch_ints(p, y, names[i], lists[i]->v, lists[i]->n);
        }
    }
    return finish(p, n, y, 6, "quantized convolution");
}

/* Inputs: a, its scale and zero point; b, its; those of y. Scales of the columns of b may differ;
 * those of rows of a stay with the operator. */
static kiln_status matmul(kiln_patch *p, const kiln_node *n) {
    int32_t rank = kiln_rank(n->in[3]);
    if (rank < 1 || !are_paired(n->in[1], n->in[2], 1) || !are_paired(n->in[6], n->in[7], 1) ||
        !are_paired(n->in[4], n->in[5], rank < 2 ? 1 : kiln_dim_at(n->in[3], -1))) {
        return KILN_OK;
    }
    kiln_value *in[] = {dequantize(p, n->in[0], n->in[1], n->in[2], 0),
                        dequantize(p, n->in[3], n->in[4], n->in[5], rank - 1)};
    return finish(p, n, kiln_patch_node(p, "MatMul", in, 2), 6, "quantized matrix product");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    if (kiln_is_op(n, "QLinearConv")) {
        return conv(p, n);
    }
    return kiln_is_op(n, "QLinearMatMul") ? matmul(p, n) : KILN_OK;
}

const kiln_pass kiln_pass_qlinear = {.name = "qlinear", .visit = visit};
