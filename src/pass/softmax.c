/* softmax.c - Softmax and LogSoftmax from their pieces, along one axis.
 *
 *     Softmax:     e / sum(e), e * (1 / sum(e)),   e = exp(z)
 *     LogSoftmax:  z - log(sum(exp(z))),  x - (max(x) + log(sum(exp(z)))),  log(Softmax)
 *
 * with z = x, or z = x - max(x). A reduction may keep its axis or get it back by a Reshape; it may
 * be spread over the axis by an Expand, and a maximum may be held against -infinity.
 */
#include <math.h>

#include "pass/match.h"

enum { MAX_TOUCHED = 24, MAX_DEPTH = 6 };

typedef struct found {
    const kiln_node *touched[MAX_TOUCHED];
    int n_touched;
} found;

static void touch(found *f, const kiln_node *n) {
    if (n && f->n_touched < MAX_TOUCHED) {
        f->touched[f->n_touched++] = n;
    }
}

/* ---- Reductions ---- */

/* The input of n that is all there is to n: of renamed dims, of a maximum with -infinity, and of
 * `through`, an operator of one input (may be NULL). */
static kiln_value *step_back(const kiln_node *n, const char **through) {
    double s;
    kiln_value *x;
    if (!kiln_target_is_sure(n)) {
        return NULL;
    }
    if (kiln_is_op(n, "Reshape") || kiln_is_op(n, "Squeeze") || kiln_is_op(n, "Unsqueeze")) {
        return n->in[0];
    }
    if (kiln_is_op(n, "Max") && kiln_split_any_scalar(n, &s, &x) && s == -INFINITY) {
        return x;
    }
    if (*through && kiln_is_op(n, *through)) {
        *through = NULL;
        return n->in[0];
    }
    return NULL;
}

/* The axis of x that is one in `type`, all others being the same, or -1. */
static int32_t axis_kept(const kiln_type *type, const kiln_value *x, uint32_t axes) {
    int32_t rank = kiln_rank(x), axis = -1;
    for (int32_t d = 0; d < rank; d++) {
        axis = axes == UINT32_C(1) << d ? d : axis;
    }
    if (axis < 0 || type->kind != KILN_KIND_TENSOR || type->rank != rank) {
        return -1;
    }
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim want = d == axis ? 1 : kiln_dim_at(x, d);
        if (type->dims[d] != want || want == KILN_DIM_UNKNOWN) {
            return -1;
        }
    }
    return axis;
}

/* The reduction `op` along one axis that v is, in the shape of its input with that axis one; NULL
 * when it is none. Between the two stands an operator `through`, if given. */
static const kiln_node *reduction(found *f, const kiln_value *v, const char *op,
                                  const char *through, int32_t *axis) {
    const kiln_node *expand = kiln_made_by(v, "Expand");
    if (expand && !kiln_target_is_sure(expand)) {
        return NULL;
    }
    v = expand ? expand->in[0] : v;
    touch(f, expand);
    const kiln_type *shape = v ? &v->type : NULL;
    for (int depth = 0; depth < MAX_DEPTH && v && !v->constant && v->producer; depth++) {
        const kiln_node *n = v->producer;
        touch(f, n);
        if (kiln_is_op(n, op)) {
            uint32_t axes;
            *axis = !through && kiln_reduce_axes(n, &axes) ? axis_kept(shape, n->in[0], axes) : -1;
            return *axis >= 0 ? n : NULL;
        }
        v = step_back(n, &through);
    }
    return NULL;
}

/* The node of that operator that makes x, or NULL; noted. */
static const kiln_node *made(found *f, const kiln_value *x, const char *op) {
    const kiln_node *n = kiln_made_by(x, op);
    touch(f, n);
    return n;
}

/* z = x - max(x) along the axis: x; else z itself. */
static kiln_value *unshifted(found *f, kiln_value *z, int32_t axis) {
    int before = f->n_touched;
    int32_t of;
    const kiln_node *sub = made(f, z, "Sub");
    const kiln_node *max = sub ? reduction(f, sub->in[1], "ReduceMax", NULL, &of) : NULL;
    if (max && max->in[0] == sub->in[0] && of == axis) {
        return sub->in[0];
    }
    f->n_touched = before;
    return z;
}

/* v = log(sum(exp(z))) along one axis: z, or NULL. */
static kiln_value *log_sum_exp(found *f, const kiln_value *v, int32_t *axis) {
    static const struct {
        const char *op, *through;
        bool has_exp;
    } forms[] = {
        {"ReduceLogSumExp", NULL, false}, {"ReduceLogSum", NULL, true}, {"ReduceSum", "Log", true}};
    int before = f->n_touched;
    for (size_t i = 0; i < KILN_COUNT_OF(forms); i++) {
        f->n_touched = before;
        const kiln_node *n = reduction(f, v, forms[i].op, forms[i].through, axis);
        const kiln_node *e = n && forms[i].has_exp ? made(f, n->in[0], "Exp") : NULL;
        if (n && (e || !forms[i].has_exp)) {
            return e ? e->in[0] : n->in[0];
        }
    }
    return NULL;
}

/* ---- Rewrites ---- */

static kiln_status make(kiln_patch *p, const kiln_node *n, const found *f, const char *op,
                        kiln_value *x, int32_t axis, const char *what) {
    if (!kiln_patch_can(p, op) || !kiln_is_float(x) || !kiln_same_type(x, n->out[0])) {
        return KILN_OK;
    }
    for (int i = 0; i < f->n_touched; i++) {
        kiln_patch_touch(p, f->touched[i]);
    }
    kiln_value *y = kiln_patch_node(p, op, &x, 1);
    kiln_patch_int(p, y, "axis", axis);
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, what);
}

/* n = e / sum, or by way of the inverse of the sum. */
static kiln_status quotient(kiln_patch *p, const kiln_node *n, kiln_value *e, const kiln_value *sum,
                            const kiln_node *inverse) {
    found f = {.n_touched = 0};
    int32_t axis;
    touch(&f, inverse);
    const kiln_node *exp_ = made(&f, e, "Exp");
    const kiln_node *reduce = exp_ ? reduction(&f, sum, "ReduceSum", NULL, &axis) : NULL;
    if (!reduce || reduce->in[0] != e) {
        return KILN_OK;
    }
    return make(p, n, &f, "Softmax", unshifted(&f, exp_->in[0], axis), axis, "exp / sum(exp)");
}

static kiln_status product(kiln_patch *p, const kiln_node *n) {
    for (int side = 0; side < 2; side++) {
        const kiln_node *inverse = kiln_made_by_only(n->in[side], "Reciprocal");
        const kiln_node *div = kiln_made_by_only(n->in[side], "Div");
        inverse = inverse ? inverse : div && kiln_scalar_is(div->in[0], 1.0) ? div : NULL;
        if (inverse) {
            return quotient(p, n, n->in[1 - side], inverse->in[inverse->n_in - 1], inverse);
        }
    }
    return KILN_OK;
}

/* n = z - log(sum(exp(z))) */
static kiln_status difference(kiln_patch *p, const kiln_node *n) {
    found f = {.n_touched = 0};
    int32_t axis, of;
    if (log_sum_exp(&f, n->in[1], &axis) == n->in[0]) {
        return make(p, n, &f, "LogSoftmax", unshifted(&f, n->in[0], axis), axis,
                    "z - log(sum(exp(z)))");
    }
    const kiln_node *add = kiln_made_by_only(n->in[1], "Add");
    for (int side = 0; add && side < 2; side++) {
        f.n_touched = 0;
        touch(&f, add);
        const kiln_node *max = reduction(&f, add->in[side], "ReduceMax", NULL, &of);
        kiln_value *z = max ? log_sum_exp(&f, add->in[1 - side], &axis) : NULL;
        if (z && max->in[0] == n->in[0] && of == axis && z != n->in[0] &&
            unshifted(&f, z, axis) == n->in[0]) {
            return make(p, n, &f, "LogSoftmax", n->in[0], axis, "x - log(sum(exp(x)))");
        }
    }
    return KILN_OK;
}

static kiln_status logarithm(kiln_patch *p, const kiln_node *n) {
    found f = {.n_touched = 0};
    const kiln_node *softmax = kiln_made_by_only(n->in[0], "Softmax");
    if (!softmax) {
        return KILN_OK;
    }
    touch(&f, softmax);
    return make(p, n, &f, "LogSoftmax", softmax->in[0], (int32_t)kiln_node_int(softmax, "axis", -1),
                "log(softmax)");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    if (kiln_is_op(n, "Div")) {
        return quotient(p, n, n->in[0], n->in[1], NULL);
    }
    if (kiln_is_op(n, "Mul")) {
        return product(p, n);
    }
    if (kiln_is_op(n, "Sub")) {
        return difference(p, n);
    }
    return kiln_is_op(n, "Log") ? logarithm(p, n) : KILN_OK;
}

const kiln_pass kiln_pass_softmax = {.name = "softmax", .visit = visit};
