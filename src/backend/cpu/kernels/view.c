/* view.c - nodes that give the same bytes another shape: no work at all.
 *
 * Besides the row-major views (Reshape, Flatten, Squeeze, Unsqueeze, Identity) that holds for
 *  - views that keep batch and channels, in either layout: only spatial dims merge or split;
 *  - transposes that move dims of 1 alone;
 *  - transposes between channels-first and channels-last: a change of layout, not of bytes. */
#include "backend/cpu/axes.h"
#include "ops/attrs.h"
#include "ops/ops.h"

static bool same_dim(const kiln_type *a, const kiln_type *b, int32_t d) {
    return a->dims[d] != KILN_DIM_UNKNOWN && a->dims[d] == b->dims[d];
}

/* Batch and channels stay, whatever happens to the rest. */
static bool keeps_channels(const kiln_type *a, const kiln_type *b) {
    return a->rank >= 2 && b->rank >= 2 && same_dim(a, b, 0) && same_dim(a, b, 1);
}

enum { LOOK_BACK = 16 };

/* Whether v probably lies channels-last: made by an operator of images, with nothing but
 * elementwise nodes and views that keep the channels between. */
static bool comes_last(const kiln_value *v) {
    for (int32_t i = 0; i < LOOK_BACK && v->producer; i++) {
        const kiln_node *n = v->producer;
        if (KILN_IS(n, conv) || KILN_IS(n, conv_transpose) || KILN_IS(n, max_pool) ||
            KILN_IS(n, average_pool) || KILN_IS(n, resize)) {
            return true;
        }
        const kiln_value *x = kiln_node_in(n, 0);
        bool through = (n->op->flags & (KILN_OP_ELEMENTWISE | KILN_OP_VIEW)) != 0;
        if (!x || !through || !keeps_channels(&x->type, &n->out[0]->type)) {
            return false;
        }
        v = x;
    }
    return false;
}

static kiln_claim *make(kiln_claimer *c, kiln_node *node, kiln_layout in, kiln_layout out) {
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_view, node, 1, 1, 1);
    if (!r) {
        return NULL;
    }
    r->in[0] = node->in[0];
    r->in_layouts[0] = (uint8_t)in;
    r->out_layouts[0] = (uint8_t)out;
    r->same_layout = in == KILN_LAYOUT_ANY;
    r->alias = true;
    kiln_claim_hold_alike(r);
    return kiln_claim_shape_inputs(c, r, node, 1) ? r : NULL;
}

static kiln_claim *claim_transpose(kiln_claimer *c, kiln_node *node) {
    const kiln_type *x = &node->in[0]->type;
    bool to_last = kiln_puts_channels_last(node, x->rank);
    bool to_first = kiln_puts_channels_first(node, x->rank);
    if (kiln_moves_units(node, x)) {
        return make(c, node, KILN_LAYOUT_ROW, KILN_LAYOUT_ROW);
    }
    if (to_last && (!to_first || comes_last(node->in[0]))) {
        return make(c, node, KILN_LAYOUT_LAST, KILN_LAYOUT_ROW);
    }
    if (to_first) {
        return make(c, node, KILN_LAYOUT_ROW, KILN_LAYOUT_LAST);
    }
    return kiln_claim_refuse(c, "the transpose moves elements");
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    bool view = (node->op->flags & KILN_OP_VIEW) != 0;
    if (!view && !KILN_IS(node, transpose)) {
        return kiln_claim_refuse(c, "it takes views and transposes");
    }
    const kiln_value *x = kiln_node_in(node, 0), *y = node->out[0];
    if (!x || node->n_out != 1 || x->type.kind != KILN_KIND_TENSOR ||
        y->type.kind != KILN_KIND_TENSOR || x->type.rank < 0 || y->type.rank < 0 ||
        x->type.dtype != y->type.dtype || kiln_move_bytes(x->type.dtype) == 0) {
        return kiln_claim_refuse(c, "it takes tensors of known rank whose element type stays");
    }
    if (!view) {
        return claim_transpose(c, node);
    }
    kiln_layout any = keeps_channels(&x->type, &y->type) ? KILN_LAYOUT_ANY : KILN_LAYOUT_ROW;
    return make(c, node, any, any);
}

static kiln_status bind(kiln_binder *b) {
    b->state = NULL;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    (void)call;
    (void)team;
}

const kiln_kernel kiln_kernel_view = {
    .name = "view",
    .claim = claim,
    .bind = bind,
    .run = run,
};
