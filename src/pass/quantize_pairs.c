/* quantize_pairs.c - QuantizeLinear and DequantizeLinear that undo each other vanish.
 *
 * Facts used, all for one positive scale and 8- or 16-bit integers (kiln_quant): Q(DQ(q)) = q; Q
 * and DQ are monotone, so that they change places with max and min. Hence Q(f(DQ(Q(x)))) =
 * Q(f(x)) for every f made of Relu and Clip, and min and max of integers right after Q are min and
 * max of floats right before it, where kernels take them along. */
#include <math.h>

#include "ops/quantize.h"
#include "ops/requantize.h"
#include "pass/fold.h"

/* The node that makes v if it is of this operator with constant parameters equal to `like`. */
static const kiln_node *made_alike(const kiln_value *v, const char *op, const kiln_quant *like) {
    const kiln_node *n = kiln_made_by(v, op);
    kiln_quant q;
    return n && kiln_quant_read(n, &q) && kiln_quant_same(&q, like) ? n : NULL;
}

static bool is_clamp(const kiln_node *n) {
    return kiln_is_op(n, "Relu") || kiln_is_op(n, "Clip");
}

/* ---- Q after DQ ---- */

/* DQ, clamps, n, with the same parameters, where a QuantizeLinear of those stands before: the first
 * pair goes. */
static kiln_status skip_first(kiln_patch *p, const kiln_node *n, const kiln_quant *q) {
    const kiln_value *v = n->in[0];
    while (v->producer && is_clamp(v->producer) && kiln_used_once(v)) {
        kiln_patch_touch(p, v->producer);
        v = v->producer->in[0];
    }
    const kiln_node *d = kiln_used_once(v) ? made_alike(v, "DequantizeLinear", q) : NULL;
    const kiln_node *first =
        d && kiln_used_once(d->in[0]) ? made_alike(d->in[0], "QuantizeLinear", q) : NULL;
    if (!first || v == n->in[0] || q->n != 1) {
        kiln_patch_drop(p);
        return KILN_OK;
    }
    kiln_patch_touch(p, first);
    kiln_patch_replace(p, d->out[0], first->in[0]);
    return kiln_patch_commit(p, "quantized again with the same parameters");
}

static kiln_status visit_quantize(kiln_patch *p, const kiln_node *n) {
    kiln_quant q;
    if (!kiln_quant_read(n, &q)) {
        return KILN_OK;
    }
    const kiln_node *d = made_alike(n->in[0], "DequantizeLinear", &q);
    return d ? kiln_patch_bypass(p, n, d->in[0], "undoes a DequantizeLinear")
             : skip_first(p, n, &q);
}

/* ---- Clamps beside Q and DQ ---- */

/* What a clamp lets through; false when that is not known. */
static bool bounds(const kiln_node *n, double *lo, double *hi) {
    bool relu = kiln_is_op(n, "Relu");
    const kiln_value *low = relu ? NULL : kiln_node_in(n, 1), *high = kiln_node_in(n, 2);
    *lo = relu ? 0 : -INFINITY;
    *hi = INFINITY;
    return (!low || kiln_scalar(low, lo)) && (!high || kiln_scalar(high, hi));
}

/* Least and greatest integer that a clamp of integers lets through. */
static bool int_bounds(const kiln_node *n, kiln_dtype dtype, int64_t *lo, int64_t *hi) {
    double low, high;
    if (!bounds(n, &low, &high)) {
        return false;
    }
    kiln_int_range(dtype, lo, hi);
    *lo = low > (double)*lo ? (int64_t)low : *lo;
    *hi = high < (double)*hi ? (int64_t)high : *hi;
    return *lo <= *hi;
}

/* Q, Clip: Clip, Q. The float bounds are those that quantize to the integer ones. */
static kiln_status clip_before(kiln_patch *p, const kiln_node *n) {
    const kiln_node *before = kiln_made_by_only(n->in[0], "QuantizeLinear");
    kiln_quant q;
    int64_t least, most, lo, hi;
    if (!before || !kiln_quant_read(before, &q) || !int_bounds(n, q.dtype, &lo, &hi)) {
        return KILN_OK;
    }
    kiln_int_range(q.dtype, &least, &most);
    if (lo == least && hi == most) {
        return kiln_patch_bypass(p, n, n->in[0], "clips nothing");
    }
    if (q.n != 1) {
        return KILN_OK;
    }
    int64_t zero = kiln_quant_zero(&q, 0);
    float low = (float)(lo - zero) * q.scale[0], high = (float)(hi - zero) * q.scale[0];
    kiln_value *in[] = {before->in[0],
                        lo > least ? kiln_patch_scalar(p, KILN_DTYPE_F32, low) : NULL,
                        hi < most ? kiln_patch_scalar(p, KILN_DTYPE_F32, high) : NULL};
    in[0] = kiln_patch_node(p, "Clip", in, in[2] ? 3 : 2);
    in[1] = before->in[1];
    in[2] = kiln_node_in(before, 2);
    kiln_node *moved = kiln_patch_like(p, before, in, before->n_in, 1);
    kiln_patch_touch(p, before);
    kiln_patch_replace(p, n->out[0], moved ? moved->out[0] : NULL);
    return kiln_patch_commit(p, "clip moves before quantization");
}

/* DQ, clamp: nothing is clamped when all that DQ can give lies within. */
static kiln_status clamp_after(kiln_patch *p, const kiln_node *n) {
    const kiln_node *d = kiln_made_by(n->in[0], "DequantizeLinear");
    double lo, hi;
    int64_t least, most;
    kiln_quant q;
    if (!d || !kiln_quant_read(d, &q) || !bounds(n, &lo, &hi)) {
        return KILN_OK;
    }
    kiln_int_range(q.dtype, &least, &most);
    for (int64_t i = 0; i < q.n; i++) {
        int64_t zero = kiln_quant_zero(&q, i);
        if ((float)(least - zero) * q.scale[i] < lo || (float)(most - zero) * q.scale[i] > hi) {
            return KILN_OK;
        }
    }
    return kiln_patch_bypass(p, n, n->in[0], "clips nothing that can be dequantized");
}

/* ---- Shapes of parameters ---- */

/* [1] becomes a scalar. */
static kiln_value *as_scalar(kiln_patch *p, const kiln_value *v) {
    const kiln_tensor *t = v ? kiln_value_data(v) : NULL;
    if (!t || t->rank != 1 || t->dims[0] != 1 || kiln_dtype_size(t->dtype) == 0) {
        return NULL;
    }
    kiln_tensor scalar = *t;
    scalar.rank = 0;
    return kiln_patch_constant(p, &scalar);
}

/* One scale for the whole tensor is written as a scalar, which is how other runtimes want it. */
static kiln_status scalar_parameters(kiln_patch *p, const kiln_node *n) {
    kiln_value *in[3] = {n->in[0], n->in[1], kiln_node_in(n, 2)};
    bool made = false;
    if (kiln_node_int(n, "block_size", 0) != 0) {
        return KILN_OK;
    }
    for (int32_t k = 1; k < 3; k++) {
        kiln_value *scalar = as_scalar(p, in[k]);
        made = made || scalar;
        in[k] = scalar ? scalar : in[k];
    }
    if (!made) {
        return KILN_OK;
    }
    kiln_node *y = kiln_patch_like(p, n, in, n->n_in, 1);
    kiln_patch_replace(p, n->out[0], y ? y->out[0] : NULL);
    return kiln_patch_commit(p, "one scale is a scalar");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    bool quantizes = kiln_is_op(n, "QuantizeLinear");
    if (quantizes || kiln_is_op(n, "DequantizeLinear")) {
        KILN_TRY(scalar_parameters(p, n));
    }
    if (quantizes && !kiln_patch_taken(p, n)) {
        return visit_quantize(p, n);
    }
    if (!is_clamp(n)) {
        return KILN_OK;
    }
    return kiln_is_float(n->in[0]) ? clamp_after(p, n) : clip_before(p, n);
}

const kiln_pass kiln_pass_quantize_pairs = {.name = "quantize_pairs", .visit = visit};
