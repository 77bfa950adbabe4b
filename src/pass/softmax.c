/* softmax.c - exp(z) / sum(exp(z)) along one axis, with or without z = x - max(x), is Softmax of x;
 * log of a Softmax is LogSoftmax. */
#include "pass/match.h"

/* The single axis of a reduction that keeps it, or -1. */
static int32_t kept_axis(const kiln_node *reduce) {
    uint32_t axes;
    if (!reduce || kiln_node_int(reduce, "keepdims", 1) == 0 || !kiln_reduce_axes(reduce, &axes)) {
        return -1;
    }
    for (int32_t d = 0; d < kiln_rank(reduce->in[0]); d++) {
        if (axes == UINT32_C(1) << d) {
            return d;
        }
    }
    return -1;
}

static kiln_status from_pieces(kiln_patch *p, const kiln_node *n) {
    const kiln_value *e = n->in[0];
    const kiln_node *exp_ = kiln_made_by(e, "Exp"), *sum = kiln_made_by_only(n->in[1], "ReduceSum");
    int32_t axis = kept_axis(sum);
    if (!exp_ || axis < 0 || sum->in[0] != e || !kiln_is_float(e)) {
        return KILN_OK;
    }
    kiln_value *x = exp_->in[0];
    const kiln_node *sub = kiln_made_by_only(x, "Sub");
    const kiln_node *max = sub ? kiln_made_by(sub->in[1], "ReduceMax") : NULL;
    if (max && max->in[0] == sub->in[0] && kept_axis(max) == axis) {
        x = sub->in[0];
        kiln_patch_touch(p, sub);
        kiln_patch_touch(p, max);
    }
    kiln_patch_touch(p, sum);
    kiln_patch_touch(p, exp_);
    kiln_value *y = kiln_patch_node(p, "Softmax", &x, 1);
    kiln_patch_int(p, y, "axis", axis);
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, "exp / sum(exp)");
}

static kiln_status log_softmax(kiln_patch *p, const kiln_node *n) {
    const kiln_node *softmax = kiln_made_by_only(n->in[0], "Softmax");
    if (!softmax || !kiln_patch_can(p, "LogSoftmax")) {
        return KILN_OK;
    }
    kiln_patch_touch(p, softmax);
    kiln_value *y = kiln_patch_node(p, "LogSoftmax", &softmax->in[0], 1);
    kiln_patch_int(p, y, "axis", kiln_node_int(softmax, "axis", -1));
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, "log(softmax)");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    if (kiln_is_op(n, "Div")) {
        return from_pieces(p, n);
    }
    return kiln_is_op(n, "Log") ? log_softmax(p, n) : KILN_OK;
}

const kiln_pass kiln_pass_softmax = {.name = "softmax", .visit = visit};
