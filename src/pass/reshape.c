/* reshape.c - everything that only renames dims becomes one Reshape with a constant target. */
#include "pass/match.h"

static bool is_renaming(const kiln_node *n) {
    return (kiln_is_op(n, "Reshape") && kiln_target_is_sure(n)) || kiln_is_op(n, "Flatten") ||
           kiln_is_op(n, "Squeeze") || kiln_is_op(n, "Unsqueeze");
}

static bool has_constant_target(const kiln_node *n) {
    return kiln_is_op(n, "Reshape") && n->in[1]->constant;
}

/* The value before all renaming above v; bounded, as the next sweep goes on from there. */
static kiln_value *origin(kiln_value *v) {
    for (int i = 0; i < 64 && !v->constant && v->producer && is_renaming(v->producer); i++) {
        v = v->producer->in[0];
    }
    return v;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    int64_t target[KILN_MAX_RANK];
    if (!is_renaming(n) || n->out[0]->type.kind != KILN_KIND_TENSOR) {
        return KILN_OK;
    }
    kiln_value *x = origin(n->in[0]);
    if (!kiln_reshape_target(x, &n->out[0]->type, target)) {
        x = n->in[0]; /* dims that only the nearer input has */
    }
    if (x == n->in[0] && has_constant_target(n)) {
        return KILN_OK;
    }
    kiln_value *y = kiln_patch_reshape(p, x, &n->out[0]->type);
    if (!y) {
        return KILN_OK;
    }
    if (x != n->in[0] && kiln_used_once(n->in[0])) {
        kiln_patch_touch(p, n->in[0]->producer);
    }
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, x == n->in[0] ? "renames dims" : "renames dims again");
}

const kiln_pass kiln_pass_reshape = {.name = "reshape", .visit = visit};
