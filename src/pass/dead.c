/* dead.c - nodes nothing uses go, and trailing outputs nothing uses. */
#include "pass/match.h"

static bool is_wanted(const kiln_value *v) {
    return v->n_users > 0 || v->n_outputs > 0;
}

/* The number of outputs says something else than how many are wanted. */
static bool counts_outputs(const kiln_node *n) {
    return n->n_bodies > 0 || n->op->max_out < 0;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    int32_t keep = n->n_out;
    while (keep > 0 && !is_wanted(n->out[keep - 1])) {
        keep--;
    }
    if (keep == 0 && n->n_out > 0) {
        kiln_patch_remove(p, n);
        return kiln_patch_commit(p, "unused node");
    }
    keep = keep < n->op->min_out ? n->op->min_out : keep;
    if (keep == n->n_out || counts_outputs(n)) {
        return KILN_OK;
    }
    const kiln_node *less = kiln_patch_like(p, n, n->in, n->n_in, keep);
    for (int32_t k = 0; less && k < keep; k++) {
        kiln_patch_replace(p, n->out[k], less->out[k]);
    }
    return kiln_patch_commit(p, "unused outputs");
}

const kiln_pass kiln_pass_dead = {.name = "dead", .visit = visit};
