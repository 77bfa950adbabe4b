/* activations.c - activations in pieces become the operator they are. */
#include <math.h>

#include "pass/match.h"

static kiln_status become(kiln_patch *p, const kiln_node *n, kiln_value *y, const char *what) {
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, what);
}

/* ---- x * f(x) ---- */

/* sigmoid(a*x) * x = Swish with alpha a. */
static kiln_status swish(kiln_patch *p, const kiln_node *n, kiln_value *x,
                         const kiln_node *sigmoid) {
    double alpha = 1.0;
    kiln_value *inner = sigmoid->in[0];
    const kiln_node *scale = kiln_made_by_only(inner, "Mul");
    if (inner != x) {
        kiln_value *other;
        if (!scale || !kiln_split_any_scalar(scale, &alpha, &other) || other != x ||
            !kiln_same_type(inner, x)) {
            return KILN_OK;
        }
        kiln_patch_touch(p, scale);
    }
    kiln_patch_touch(p, sigmoid);
    kiln_value *y = kiln_patch_node(p, "Swish", &x, 1);
    kiln_patch_float(p, y, "alpha", (float)alpha);
    return become(p, n, y, "x * sigmoid(x)");
}

static kiln_status times_self(kiln_patch *p, const kiln_node *n, kiln_value *x, kiln_value *f) {
    const kiln_node *a = kiln_made_by_only(f, "Sigmoid");
    if (a && kiln_patch_can(p, "Swish")) {
        KILN_TRY(swish(p, n, x, a));
    }
    a = kiln_made_by_only(f, "HardSigmoid");
    if (a && a->in[0] == x && fabsf(kiln_node_float(a, "alpha", 0) - 1.0f / 6) < 1e-7f &&
        kiln_node_float(a, "beta", 0) == 0.5f) {
        kiln_patch_touch(p, a);
        return become(p, n, kiln_patch_node(p, "HardSwish", &x, 1), "x * hardsigmoid(x)");
    }
    a = kiln_made_by_only(f, "Tanh");
    const kiln_node *inner = a ? kiln_made_by_only(a->in[0], "Softplus") : NULL;
    if (inner && inner->in[0] == x) {
        kiln_patch_touch(p, a);
        kiln_patch_touch(p, inner);
        return become(p, n, kiln_patch_node(p, "Mish", &x, 1), "x * tanh(softplus(x))");
    }
    return KILN_OK;
}

/* ---- Hard sigmoid and hard swish from Clip(x + 3, 0, 6) ---- */

/* The x of Clip(x + 3, 0, 6), whose nodes are touched; NULL when v is something else. */
static kiln_value *relu6_of_x_plus_3(kiln_patch *p, const kiln_value *v) {
    const kiln_node *clip = kiln_made_by_only(v, "Clip");
    const kiln_node *add = clip ? kiln_made_by_only(clip->in[0], "Add") : NULL;
    kiln_value *x;
    if (!add || !kiln_split_scalar(add, 3.0, &x) || !kiln_scalar_is(kiln_node_in(clip, 1), 0.0) ||
        !kiln_scalar_is(kiln_node_in(clip, 2), 6.0) || !kiln_same_type(x, v)) {
        return NULL;
    }
    kiln_patch_touch(p, clip);
    kiln_patch_touch(p, add);
    return x;
}

/* n is v / 6 or v * (1/6); *v is what is divided. */
static bool is_sixth(const kiln_node *n, kiln_value **v) {
    if (kiln_is_op(n, "Div") && kiln_scalar_is(n->in[1], 6.0)) {
        *v = n->in[0];
        return true;
    }
    return kiln_is_op(n, "Mul") && kiln_split_scalar(n, 1.0 / 6.0, v);
}

static kiln_status sixth(kiln_patch *p, const kiln_node *n, kiln_value *v) {
    kiln_value *x = relu6_of_x_plus_3(p, v);
    if (x && kiln_is_float(x) && kiln_same_type(x, n->out[0])) {
        kiln_value *y = kiln_patch_node(p, "HardSigmoid", &x, 1);
        kiln_patch_float(p, y, "alpha", 1.0f / 6.0f);
        kiln_patch_float(p, y, "beta", 0.5f);
        return become(p, n, y, "clip(x + 3, 0, 6) / 6");
    }
    const kiln_node *mul = kiln_made_by_only(v, "Mul");
    for (int32_t side = 0; mul && side < 2; side++) {
        kiln_patch_drop(p);
        x = relu6_of_x_plus_3(p, mul->in[side]);
        if (x && x == mul->in[1 - side] && kiln_is_float(x) && kiln_same_type(x, n->out[0])) {
            kiln_patch_touch(p, mul);
            return become(p, n, kiln_patch_node(p, "HardSwish", &x, 1),
                          "x * clip(x + 3, 0, 6) / 6");
        }
    }
    kiln_patch_drop(p);
    return KILN_OK;
}

/* ---- Bounds ---- */

typedef struct bounds {
    double lo, hi;
} bounds;

/* n is Relu, Clip, or Max or Min with a scalar: y = min(max(x, lo), hi), lo <= hi. */
static bool read_bounds(const kiln_node *n, bounds *b, kiln_value **x) {
    *b = (bounds){-INFINITY, INFINITY};
    if (!n || !kiln_is_float(n->out[0])) {
        return false;
    }
    *x = n->in[0];
    if (kiln_is_op(n, "Relu")) {
        b->lo = 0.0;
        return true;
    }
    if (kiln_is_op(n, "Clip")) {
        const kiln_value *lo = kiln_node_in(n, 1), *hi = kiln_node_in(n, 2);
        return (!lo || kiln_scalar(lo, &b->lo)) && (!hi || kiln_scalar(hi, &b->hi)) &&
               b->lo <= b->hi;
    }
    bool is_max = kiln_is_op(n, "Max");
    return (is_max || kiln_is_op(n, "Min")) && n->n_in == 2 &&
           kiln_split_any_scalar(n, is_max ? &b->lo : &b->hi, x) && kiln_same_type(*x, n->out[0]);
}

/* Two bounds in a row are one: clamp to [lo1, hi1], then to [lo2, hi2]. */
static kiln_status clip(kiln_patch *p, const kiln_node *n) {
    bounds outer, inner;
    kiln_value *mid, *x;
    if (!read_bounds(n, &outer, &mid) || !kiln_used_once(mid) ||
        !read_bounds(mid->constant ? NULL : mid->producer, &inner, &x)) {
        return KILN_OK;
    }
    double lo = fmin(fmax(inner.lo, outer.lo), outer.hi);
    double hi = fmax(fmin(inner.hi, outer.hi), outer.lo);
    kiln_dtype dtype = n->out[0]->type.dtype;
    kiln_patch_touch(p, mid->producer);
    kiln_value *in[3] = {x, NULL, NULL};
    if (lo > -INFINITY) {
        in[1] = kiln_patch_scalar(p, dtype, lo);
    }
    if (hi < INFINITY) {
        in[2] = kiln_patch_scalar(p, dtype, hi);
    }
    bool is_relu = lo == 0.0 && hi == INFINITY;
    kiln_value *y = kiln_patch_node(p, is_relu ? "Relu" : "Clip", in, is_relu ? 1 : in[2] ? 3 : 2);
    return become(p, n, y, "bounds in a row");
}

/* Max(x, a*x) with 0 <= a <= 1 is LeakyRelu. */
static kiln_status leaky(kiln_patch *p, const kiln_node *n) {
    double alpha;
    kiln_value *x;
    for (int32_t side = 0; side < 2 && n->n_in == 2; side++) {
        const kiln_node *mul = kiln_made_by_only(n->in[side], "Mul");
        if (mul && kiln_split_any_scalar(mul, &alpha, &x) && x == n->in[1 - side] && alpha >= 0.0 &&
            alpha <= 1.0 && kiln_is_float(x) && kiln_same_type(x, n->out[0])) {
            kiln_patch_touch(p, mul);
            kiln_value *y = kiln_patch_node(p, "LeakyRelu", &x, 1);
            kiln_patch_float(p, y, "alpha", (float)alpha);
            return become(p, n, y, "max(x, a*x)");
        }
    }
    return KILN_OK;
}

/* ---- log(1 + exp(x)) ---- */

static kiln_status softplus(kiln_patch *p, const kiln_node *n) {
    const kiln_node *add = kiln_made_by_only(n->in[0], "Add");
    kiln_value *e;
    if (!add || !kiln_split_scalar(add, 1.0, &e)) {
        return KILN_OK;
    }
    const kiln_node *exp_ = kiln_made_by_only(e, "Exp");
    if (!exp_ || !kiln_same_type(exp_->in[0], n->out[0])) {
        return KILN_OK;
    }
    kiln_patch_touch(p, add);
    kiln_patch_touch(p, exp_);
    return become(p, n, kiln_patch_node(p, "Softplus", &exp_->in[0], 1), "log(1 + exp(x))");
}

/* ---- Powers ---- */

static kiln_status power(kiln_patch *p, const kiln_node *n) {
    double e;
    if (!kiln_is_float(n->in[0]) || !kiln_scalar(n->in[1], &e) ||
        !kiln_same_type(n->in[0], n->out[0])) {
        return KILN_OK;
    }
    kiln_value *xx[] = {n->in[0], n->in[0]};
    const char *op = e == 2.0 ? "Mul" : e == 0.5 ? "Sqrt" : e == -1.0 ? "Reciprocal" : NULL;
    if (!op) {
        return KILN_OK;
    }
    return become(p, n, kiln_patch_node(p, op, xx, e == 2.0 ? 2 : 1), "small power");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    kiln_value *v;
    if (n->n_out != 1) {
        return KILN_OK;
    }
    if (kiln_is_op(n, "Mul") && kiln_is_float(n->out[0])) {
        for (int32_t side = 0; side < 2 && !kiln_patch_taken(p, n); side++) {
            if (kiln_same_type(n->in[side], n->out[0])) {
                KILN_TRY(times_self(p, n, n->in[side], n->in[1 - side]));
            }
        }
    }
    if (kiln_patch_taken(p, n)) {
        return KILN_OK;
    }
    if (is_sixth(n, &v)) {
        return sixth(p, n, v);
    }
    if (kiln_is_op(n, "Log")) {
        return softplus(p, n);
    }
    if (kiln_is_op(n, "Pow")) {
        return power(p, n);
    }
    if (kiln_is_op(n, "Max")) {
        KILN_TRY(leaky(p, n));
    }
    return kiln_patch_taken(p, n) ? KILN_OK : clip(p, n);
}

const kiln_pass kiln_pass_activations = {.name = "activations", .visit = visit};
