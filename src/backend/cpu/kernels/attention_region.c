#include "backend/cpu/kernels/attention_region.h"

#include "backend/cpu/operand.h"
#include "ops/attrs.h"
#include "ops/ops.h"

/* Inputs and outputs of the operator Attention. */
enum { IN_Q, IN_K, IN_V, IN_MASK, IN_PAST_K, IN_PAST_V, IN_NONPAD };
enum { OUT_Y, OUT_PRESENT_K, OUT_PRESENT_V, OUT_SCORES };

static const kiln_head_axes plain = {.axis = {0, 1, 2, 3}};

enum { MAX_NODES = 32 };

typedef struct region {
    kiln_claimer *c;
    kiln_attention_params p;
    kiln_node *nodes[MAX_NODES];
    int32_t n_nodes;
    kiln_node *center; /* the last product */
    kiln_value *q, *k, *v, *past_k, *past_v;
} region;

/* False when the region is full. */
static bool take(region *r, kiln_node *n) {
    if (r->n_nodes == MAX_NODES) {
        return false;
    }
    r->nodes[r->n_nodes++] = n;
    return true;
}

static const kiln_ints *perm_of(const kiln_node *n, int32_t rank) {
    const kiln_ints *perm =
        KILN_IS(n, transpose) ? &((const kiln_perm_attrs *)n->attrs)->perm : NULL;
    return perm && perm->v && perm->n == rank ? perm : NULL;
}

/* The node that makes v, if the region may take it along: v has no other use. */
static kiln_node *maker(const region *r, const kiln_value *v) {
    kiln_node *n = v->producer;
    bool alone =
        n && v->n_users == 1 && v->n_outputs == 0 && v->home == r->c->graph && n->n_bodies == 0;
    return alone && r->c->is_free(r->c, n) ? n : NULL;
}

/* v times or over a number: *other is the other operand, *scale is multiplied. */
static bool is_scaling(const kiln_node *n, kiln_value **other, float *scale) {
    if (!KILN_IS(n, mul) && !KILN_IS(n, div)) {
        return false;
    }
    for (int32_t side = KILN_IS(n, div) ? 1 : 0; side < 2; side++) {
        const kiln_tensor *t = kiln_small_data(n->in[side]);
        kiln_value *x = n->in[1 - side];
        if (t && t->dtype == KILN_DTYPE_F32 && kiln_tensor_count(t) == 1 &&
            kiln_type_same_shape(&x->type, &n->out[0]->type)) {
            float s = *(const float *)t->data;
            *scale *= KILN_IS(n, mul) ? s : 1 / s;
            *other = x;
            return true;
        }
    }
    return false;
}

/* A view that only adds or leaves out dims of one: axis_of[d] is where dim d of the result was, or
 * -1. */
static bool is_unit_view(const kiln_node *n, int32_t axis_of[KILN_MAX_RANK]) {
    if (!(n->op->flags & KILN_OP_VIEW) || n->n_out != 1 || !kiln_value_is_f32(n->in[0]) ||
        !kiln_value_is_f32(n->out[0])) {
        return false;
    }
    const kiln_type *from = &n->in[0]->type, *to = &n->out[0]->type;
    int32_t i = 0, d = 0;
    while (i < from->rank || d < to->rank) {
        if (d < to->rank && to->dims[d] == 1) {
            axis_of[d++] = -1;
        } else if (i < from->rank && from->dims[i] == 1) {
            i++;
        } else if (i < from->rank && d < to->rank && from->dims[i] == to->dims[d] &&
                   to->dims[d] != KILN_DIM_UNKNOWN) {
            axis_of[d++] = i++;
        } else {
            return false;
        }
    }
    return true;
}

/* One node up from *v, if it only moves axes about (or scales, where `scale` is not NULL). */
static kiln_node *step_up(const region *r, kiln_value **v, kiln_head_axes *m, float *scale) {
    kiln_node *n = maker(r, *v);
    const kiln_ints *perm = n ? perm_of(n, (*v)->type.rank) : NULL;
    int32_t axis_of[KILN_MAX_RANK];
    if (perm) {
        for (int32_t d = 0; d < perm->n; d++) {
            axis_of[d] = (int32_t)perm->v[d];
        }
    } else if (n && scale && is_scaling(n, v, scale)) {
        return n;
    } else if (!n || !is_unit_view(n, axis_of) || axis_of[m->axis[KILN_HEADS_LINE]] < 0 ||
               axis_of[m->axis[KILN_HEADS_SIZE]] < 0) {
        return NULL;
    }
    for (int32_t role = 0; role < KILN_HEADS_ROLES; role++) {
        m->axis[role] = m->axis[role] < 0 ? -1 : axis_of[m->axis[role]];
    }
    *v = n->in[0];
    return n;
}

/* Reads operand *v from as far up as it still can be read by strides. False when the sizes of a
 * line lie side by side nowhere. */
static bool read_through(region *r, kiln_value **v, kiln_head_axes *m, bool scales) {
    kiln_value *at = *v;
    kiln_head_axes here = *m;
    float scale = r->p.scale;
    bool found = false;
    int32_t n_nodes = r->n_nodes;
    for (;;) {
        if (here.axis[KILN_HEADS_SIZE] == at->type.rank - 1) {
            *v = at;
            *m = here;
            r->p.scale = scale;
            n_nodes = r->n_nodes;
            found = true;
        }
        kiln_node *n = m->packed ? NULL : step_up(r, &at, &here, scales ? &scale : NULL);
        if (!n || !take(r, n)) {
            break;
        }
    }
    r->n_nodes = n_nodes;
    return found;
}

static bool is_used(const kiln_node *n, int32_t out) {
    return out < n->n_out && (n->out[out]->n_users > 0 || n->out[out]->n_outputs > 0);
}

/* Takes a QuantizeLinear along, and writes the result through the Transpose that follows. Not with
 * a second output: its users may stand before those. */
static bool write_through(region *r, kiln_claim *claim) {
    if (is_used(r->center, OUT_PRESENT_K) || is_used(r->center, OUT_PRESENT_V)) {
        return true;
    }
    int32_t columns = r->center->out[0]->type.rank - 1;
    if (!kiln_fuse_quantizer(r->c, claim, &r->p.fused, claim->out[0], columns, KILN_LAYOUT_ROW)) {
        return false;
    }
    kiln_fuse_hold(r->c, claim, &r->p.fused);
    kiln_value *y = claim->out[0];
    kiln_node *n = r->p.y.packed ? NULL : kiln_claim_next(r->c, y);
    const kiln_ints *perm = n ? perm_of(n, y->type.rank) : NULL;
    if (!perm || perm->v[perm->n - 1] != perm->n - 1) {
        return true;
    }
    kiln_head_axes m = r->p.y;
    for (int32_t role = 0; role < KILN_HEADS_ROLES; role++) {
        for (int64_t d = 0; d < perm->n; d++) {
            if (perm->v[d] == r->p.y.axis[role]) {
                m.axis[role] = (int32_t)d;
            }
        }
    }
    r->p.y = m;
    claim->out[0] = n->out[0];
    return kiln_claim_add(r->c, claim, n);
}

static bool refuse(const region *r, const char *why) {
    kiln_claim_refuse(r->c, "%s", why);
    return false;
}

/* The mask covers every key: past its end nothing would be seen. */
static bool covers_keys(const kiln_node *n, const kiln_value *mask, int32_t line_axis) {
    kiln_dim keys = n->in[IN_K]->type.dims[line_axis];
    if (kiln_node_in(n, IN_PAST_K)) {
        bool known = n->n_out > OUT_PRESENT_K && n->out[OUT_PRESENT_K]->type.rank == 4;
        keys = known ? n->out[OUT_PRESENT_K]->type.dims[2] : KILN_DIM_UNKNOWN;
    }
    return keys != KILN_DIM_UNKNOWN && mask->type.dims[mask->type.rank - 1] == keys;
}

static bool read_attributes(region *r, const kiln_attention_attrs *a) {
    bool precise = a->softmax_precision == KILN_ABSENT || a->softmax_precision == KILN_DTYPE_F32;
    if (!precise || a->left_window_size >= 0) {
        return refuse(r, precise ? "a window to the left hides keys"
                                 : "softmax_precision is not float32");
    }
    r->p.scale = a->scale;
    r->p.softcap = a->softcap;
    r->p.zero_empty = true;
    r->p.causal = a->is_causal || a->right_window_size >= 0;
    r->p.ahead = a->is_causal ? 0 : a->right_window_size;
    return true;
}

/* The operator Attention. */
static bool read_operator(region *r) {
    const kiln_node *n = r->center;
    const kiln_attention_attrs *a = n->attrs;
    kiln_value *in[IN_NONPAD];
    for (int32_t i = 0; i < IN_NONPAD; i++) {
        in[i] = kiln_node_in(n, i);
        bool fits = !in[i] || kiln_value_is_f32(in[i]) ||
                    (i == IN_MASK && in[i]->type.dtype == KILN_DTYPE_BOOL && in[i]->type.rank > 0);
        if (!fits) {
            return refuse(r, "it takes float32 and masks of bool");
        }
    }
    if (kiln_node_in(n, IN_NONPAD) || is_used(n, OUT_SCORES) || !kiln_value_is_f32(n->out[0])) {
        return refuse(r, "it gives no scores and counts no padding");
    }
    kiln_head_axes three = {.axis = {0, -1, 1, 2}};
    bool packed = in[IN_Q]->type.rank == 3;
    r->p.q = r->p.k = r->p.v = r->p.y = packed ? three : plain;
    if (packed) {
        r->p.q.packed = r->p.y.packed = a->q_num_heads;
        r->p.k.packed = r->p.v.packed = a->kv_num_heads;
    }
    if (in[IN_MASK] && !covers_keys(n, in[IN_MASK], r->p.k.axis[KILN_HEADS_LINE])) {
        return refuse(r, "the mask may not cover all keys");
    }
    r->q = in[IN_Q];
    r->k = in[IN_K];
    r->v = in[IN_V];
    r->p.masks[0].value = in[IN_MASK];
    r->p.n_masks = in[IN_MASK] != NULL;
    r->past_k = in[IN_PAST_K];
    r->past_v = in[IN_PAST_V];
    r->p.scores_rank = 4;
    return read_attributes(r, a);
}

/* Takes the scalings off v. */
static kiln_value *strip_scale(region *r, kiln_value *v) {
    for (kiln_node *n = maker(r, v); n && is_scaling(n, &v, &r->p.scale); n = maker(r, v)) {
        take(r, n);
    }
    return v;
}

static bool is_product(const kiln_node *n) {
    return n && KILN_IS(n, matmul) && kiln_value_is_f32(n->in[0]) && kiln_value_is_f32(n->in[1]) &&
           kiln_value_is_f32(n->out[0]);
}

/* The operand of an Add that the scores come from: a constant or what stands before is the mask. */
static int32_t mask_side(const region *r, const kiln_node *n) {
    for (int32_t side = 0; side < 2; side++) {
        const kiln_value *x = n->in[1 - side];
        const kiln_node *made = maker(r, x);
        bool scores = made && (is_product(made) || KILN_IS(made, add) || KILN_IS(made, mul) ||
                               KILN_IS(made, div) || (made->op->flags & KILN_OP_VIEW));
        if (scores && kiln_type_same_shape(&x->type, &n->out[0]->type) &&
            kiln_value_is_f32(n->in[side])) {
            return side;
        }
    }
    return -1;
}

/* A view that puts one dim of one before all others, or takes it away again. */
static bool is_lead_view(const kiln_node *n, int32_t grow) {
    int32_t axis_of[KILN_MAX_RANK];
    const kiln_type *more = &(grow > 0 ? n->out[0] : n->in[0])->type,
                    *less = &(grow > 0 ? n->in[0] : n->out[0])->type;
    if (!is_unit_view(n, axis_of) || more->rank != less->rank + 1 || more->dims[0] != 1) {
        return false;
    }
    for (int32_t d = 0; d < less->rank; d++) {
        if (less->dims[d] != more->dims[d + 1]) {
            return false;
        }
    }
    return true;
}

/* Scores plus a mask that does not enlarge them; perhaps added with one more dim in front. */
static kiln_value *strip_mask(region *r, kiln_value *v) {
    kiln_node *n = maker(r, v), *outer = n && is_lead_view(n, -1) ? n : NULL, *inner = NULL;
    if (outer) {
        n = maker(r, outer->in[0]);
    }
    int32_t side = n && KILN_IS(n, add) && r->p.n_masks < KILN_MAX_MASKS ? mask_side(r, n) : -1;
    if (side < 0) {
        return v;
    }
    kiln_value *mask_value = n->in[side], *scores = n->in[1 - side];
    if (outer) {
        inner = maker(r, scores);
        if (!inner || !is_lead_view(inner, 1)) {
            return v;
        }
        scores = inner->in[0];
    }
    int32_t rank = v->type.rank, drop = mask_value->type.rank > rank;
    if (mask_value->type.rank > rank + drop || (drop && mask_value->type.dims[0] != 1)) {
        return v;
    }
    r->p.masks[r->p.n_masks++] = (kiln_added_mask){.value = mask_value, .drop = drop};
    take(r, n);
    if (outer) {
        take(r, outer);
        take(r, inner);
    }
    return scores;
}

static kiln_value *strip_masks(region *r, kiln_value *v) {
    for (kiln_value *before = NULL; before != v;) {
        before = v;
        v = strip_mask(r, v);
    }
    return v;
}

/* Two masks must be known when packing. */
static bool masks_fit(const region *r) {
    bool constant = true;
    for (int32_t i = 0; i < r->p.n_masks; i++) {
        constant = constant && r->p.masks[i].value->constant &&
                   kiln_type_is_static(&r->p.masks[i].value->type);
    }
    return r->p.n_masks < 2 || constant;
}

static bool same_leading(const kiln_value *a, const kiln_value *b) {
    for (int32_t d = 0; d + 2 < a->type.rank; d++) {
        if (a->type.dims[d] != b->type.dims[d] || a->type.dims[d] == KILN_DIM_UNKNOWN) {
            return false;
        }
    }
    return a->type.rank == b->type.rank;
}

/* softmax(...) times V, walked backwards. */
static bool read_pattern(region *r) {
    kiln_node *softmax = maker(r, r->center->in[0]);
    if (!is_product(r->center) || !softmax || !KILN_IS(softmax, softmax)) {
        return refuse(r, "no softmax stands before it");
    }
    int32_t rank = r->center->in[0]->type.rank;
    int64_t axis = ((const kiln_axis_attrs *)softmax->attrs)->axis;
    if (rank < 3 || rank > 4 || (axis != -1 && axis != rank - 1)) {
        return refuse(r, "the softmax is not over the keys of 3 or 4 dims");
    }
    take(r, softmax);
    r->p.scale = 1;
    kiln_node *product = maker(r, strip_scale(r, strip_masks(r, softmax->in[0])));
    if (!is_product(product)) {
        return refuse(r, "no product gives the scores");
    }
    if (!masks_fit(r)) {
        return refuse(r, "two masks are added and not both are constant");
    }
    take(r, product);
    r->q = product->in[0];
    r->k = product->in[1];
    r->v = r->center->in[1];
    if (!same_leading(r->q, r->k) || !same_leading(r->q, r->v) || r->q->type.rank != rank) {
        return refuse(r, "the batches of Q, K and V differ");
    }
    kiln_head_axes three = {.axis = {0, -1, 1, 2}};
    r->p.q = r->p.k = r->p.v = r->p.y = rank == 4 ? plain : three;
    r->p.k.axis[KILN_HEADS_SIZE] = rank - 2;
    r->p.k.axis[KILN_HEADS_LINE] = rank - 1;
    r->p.scores_rank = rank;
    return true;
}

static bool may_be_inner(const kiln_node *n) {
    return KILN_IS(n, matmul) || KILN_IS(n, mul) || KILN_IS(n, div) || KILN_IS(n, add) ||
           KILN_IS(n, softmax) || KILN_IS(n, transpose) || (n->op->flags & KILN_OP_VIEW);
}

/* The last product of the attention that `node` would be the first node of. */
static kiln_node *find_center(const kiln_claimer *c, kiln_node *node) {
    enum { REACH = 12 };
    for (int32_t i = 0; node && i < REACH; i++) {
        const kiln_node *before = KILN_IS(node, matmul) ? node->in[0]->producer : NULL;
        if (KILN_IS(node, attention) || (before && KILN_IS(before, softmax))) {
            return node;
        }
        node = may_be_inner(node) ? kiln_claim_next(c, node->out[0]) : NULL;
    }
    return NULL;
}

static bool read_region(region *r) {
    take(r, r->center);
    bool is_op = KILN_IS(r->center, attention);
    if (!(is_op ? read_operator(r) : read_pattern(r))) {
        return false;
    }
    bool scales = r->p.scale != 0;
    bool side_by_side = read_through(r, &r->q, &r->p.q, scales);
    side_by_side = read_through(r, &r->k, &r->p.k, scales) && side_by_side;
    side_by_side = read_through(r, &r->v, &r->p.v, false) && side_by_side;
    return side_by_side || refuse(r, "the keys are not transposed in one step");
}

static int32_t add_input(const region *r, kiln_claim *claim, kiln_value *v) {
    return v ? kiln_claim_input(r->c, claim, v, KILN_LAYOUT_ROW) : -1;
}

static int32_t add_output(const region *r, kiln_claim *claim, int32_t out) {
    if (!KILN_IS(r->center, attention) || !is_used(r->center, out)) {
        return -1;
    }
    claim->out[claim->n_out] = r->center->out[out];
    return claim->n_out++;
}

kiln_claim *kiln_attention_claim(kiln_claimer *c, const kiln_kernel *kernel, kiln_node *node) {
    region r = {.c = c};
    r.center = find_center(c, node);
    if (!r.center) {
        return kiln_claim_refuse(c, "it begins no attention");
    }
    if (!read_region(&r)) {
        return NULL;
    }
    const kiln_node *first = r.center;
    for (int32_t i = 0; i < r.n_nodes; i++) {
        first = r.nodes[i]->id < first->id ? r.nodes[i] : first;
    }
    if (first != node) {
        return kiln_claim_refuse(c, "the attention begins at another node");
    }
    kiln_claim *claim = kiln_claim_new(c, kernel, node, 0, 3, sizeof(kiln_attention_params));
    if (!claim) {
        return NULL;
    }
    for (int32_t i = 0; i < r.n_nodes; i++) {
        if (r.nodes[i] != node && !kiln_claim_add(c, claim, r.nodes[i])) {
            return NULL;
        }
    }
    add_input(&r, claim, r.q);
    add_input(&r, claim, r.k);
    add_input(&r, claim, r.v);
    r.p.mask_in = r.p.n_masks == 1 ? add_input(&r, claim, r.p.masks[0].value) : -1;
    r.p.past_k_in = add_input(&r, claim, r.past_k);
    r.p.past_v_in = add_input(&r, claim, r.past_v);
    claim->out[0] = r.center->out[0];
    claim->n_out = 1;
    if (!write_through(&r, claim)) {
        return NULL;
    }
    r.p.present_k_out = add_output(&r, claim, OUT_PRESENT_K);
    r.p.present_v_out = add_output(&r, claim, OUT_PRESENT_V);
    *(kiln_attention_params *)claim->params = r.p;
    return c->status == KILN_OK ? claim : NULL;
}
