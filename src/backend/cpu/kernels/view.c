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

static int64_t axis_from(const kiln_node *node, int32_t rank, int32_t d) {
    kiln_ints perm = ((const kiln_perm_attrs *)node->attrs)->perm;
    return perm.v ? perm.v[d] : rank - 1 - d;
}

/* Dims that are not surely 1 keep their order. */
static bool moves_units(const kiln_node *node, const kiln_type *x) {
    int64_t last = -1;
    for (int32_t d = 0; d < x->rank; d++) {
        int64_t from = axis_from(node, x->rank, d);
        if (x->dims[from] != 1) {
            if (from < last) {
                return false;
            }
            last = from;
        }
    }
    return true;
}

/* Axis 1 goes to the end, the others close up. */
static bool puts_channels_last(const kiln_node *node, int32_t rank) {
    for (int32_t d = 0; d < rank; d++) {
        if (axis_from(node, rank, d) != (d == 0 ? 0 : d == rank - 1 ? 1 : d + 1)) {
            return false;
        }
    }
    return rank >= 3;
}

/* The last axis goes to place 1. */
static bool puts_channels_first(const kiln_node *node, int32_t rank) {
    for (int32_t d = 0; d < rank; d++) {
        if (axis_from(node, rank, d) != (d == 0 ? 0 : d == 1 ? rank - 1 : d - 1)) {
            return false;
        }
    }
    return rank >= 3;
}

enum { LOOK_BACK = 16 };

/* Whether v probably lies channels-last: made by an operator of images, with nothing but elementwise
 * nodes and views that keep the channels between. */
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
    return kiln_claim_shape_inputs(c, r, node, 1) ? r : NULL;
}

static kiln_claim *claim_transpose(kiln_claimer *c, kiln_node *node) {
    const kiln_type *x = &node->in[0]->type;
    bool to_last = puts_channels_last(node, x->rank), to_first = puts_channels_first(node, x->rank);
    if (moves_units(node, x)) {
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
    if (!x || node->n_out != 1 || x->type.kind != KILN_KIND_TENSOR || y->type.kind != KILN_KIND_TENSOR ||
        x->type.rank < 0 || y->type.rank < 0 || x->type.dtype != y->type.dtype ||
        kiln_move_bytes(x->type.dtype) == 0) {
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
