/* attention_f32.c - softmax(scale Q K^T + mask) V in one step, float32: the operator Attention, and the
 * same thing spelled MatMul, Mul or Div, Add, Softmax, MatMul.
 *
 * Transposes that only serve the heads are taken along and become strides. The claim is made at the
 * first node of the region, which may be such a Transpose. Legend: B batch, H query heads, G key and
 * value heads, S queries, L keys, D head size. */
#include <math.h>
#include <string.h>

#include "backend/cpu/operand.h"
#include "backend/cpu/prims/attention.h"
#include "ops/attrs.h"
#include "ops/ops.h"

/* Inputs of the operator Attention. */
enum { IN_Q, IN_K, IN_V, IN_MASK, IN_PAST_K, IN_PAST_V, IN_NONPAD };
enum { OUT_Y, OUT_PRESENT_K, OUT_PRESENT_V, OUT_SCORES };

/* What an axis of an operand means. */
enum { BATCH, HEAD, LINE, SIZE, ROLES };

/* Where the axes of an operand are: axis[role], or -1. `packed` is the head count when heads and sizes
 * share the last axis, else 0. */
typedef struct mapping {
    int32_t axis[ROLES]; /* batches and heads of -1 are one */
    int64_t packed;
} mapping;

/* Something added to the scores, its leading dims (all one) beyond theirs left away. */
typedef struct added_mask {
    kiln_value *value;
    int32_t drop;
} added_mask;
enum { MAX_MASKS = 2 };

typedef struct attention_params {
    mapping q, k, v, y;
    float scale; /* 0: 1 / sqrt(D) */
    float softcap;
    bool causal, zero_empty;
    int64_t ahead; /* causal: how many keys past its own a query sees */
    int32_t scores_rank; /* what masks are broadcast to: 4, or 3 without heads */
    added_mask masks[MAX_MASKS];
    int32_t n_masks; /* two are constants, summed when packing */
    /* Numbers of the claim's operands, or -1. */
    int32_t mask_in, past_k_in, past_v_in, present_k_out, present_v_out;
} attention_params;

static const mapping plain = {.axis = {0, 1, 2, 3}};

/* ---- Claim ---- */

enum { MAX_NODES = 32 };

typedef struct region {
    kiln_claimer *c;
    attention_params p;
    kiln_node *nodes[MAX_NODES];
    int32_t n_nodes;
    kiln_node *center; /* the last product */
    kiln_value *q, *k, *v, *past_k, *past_v, *y;
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
    const kiln_ints *perm = KILN_IS(n, transpose) ? &((const kiln_perm_attrs *)n->attrs)->perm : NULL;
    return perm && perm->v && perm->n == rank ? perm : NULL;
}

/* The node that makes v, if the region may take it along: v has no other use. */
static kiln_node *maker(const region *r, const kiln_value *v) {
    kiln_node *n = v->producer;
    bool alone = n && v->n_users == 1 && v->n_outputs == 0 && v->home == r->c->graph && n->n_bodies == 0;
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

/* A view that only adds or leaves out dims of one: axis_of[d] is where dim d of the result was, or -1. */
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
static kiln_node *step_up(const region *r, kiln_value **v, mapping *m, float *scale) {
    kiln_node *n = maker(r, *v);
    const kiln_ints *perm = n ? perm_of(n, (*v)->type.rank) : NULL;
    int32_t axis_of[KILN_MAX_RANK];
    if (perm) {
        for (int32_t d = 0; d < perm->n; d++) {
            axis_of[d] = (int32_t)perm->v[d];
        }
    } else if (n && scale && is_scaling(n, v, scale)) {
        return n;
    } else if (!n || !is_unit_view(n, axis_of) || axis_of[m->axis[LINE]] < 0 || axis_of[m->axis[SIZE]] < 0) {
        return NULL;
    }
    for (int32_t role = 0; role < ROLES; role++) {
        m->axis[role] = m->axis[role] < 0 ? -1 : axis_of[m->axis[role]];
    }
    *v = n->in[0];
    return n;
}

/* Reads operand *v from as far up as it still can be read by strides. False when the sizes of a line lie
 * side by side nowhere. */
static bool read_through(region *r, kiln_value **v, mapping *m, bool scales) {
    kiln_value *at = *v;
    mapping here = *m;
    float scale = r->p.scale;
    bool found = false;
    int32_t n_nodes = r->n_nodes;
    for (;;) {
        if (here.axis[SIZE] == at->type.rank - 1) {
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

/* Writes the result through the Transpose that follows. Not with a second output: its users may stand
 * before that Transpose. */
static void write_through(region *r) {
    kiln_value *y = r->center->out[0];
    bool single = !is_used(r->center, OUT_PRESENT_K) && !is_used(r->center, OUT_PRESENT_V);
    kiln_node *n = r->p.y.packed || !single ? NULL : kiln_claim_next(r->c, y);
    const kiln_ints *perm = n ? perm_of(n, y->type.rank) : NULL;
    r->y = y;
    if (!perm || perm->v[perm->n - 1] != perm->n - 1) {
        return;
    }
    mapping m = r->p.y;
    for (int32_t role = 0; role < ROLES; role++) {
        for (int64_t d = 0; d < perm->n; d++) {
            if (perm->v[d] == r->p.y.axis[role]) {
                m.axis[role] = (int32_t)d;
            }
        }
    }
    r->p.y = m;
    r->y = n->out[0];
    take(r, n);
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
        return refuse(r, precise ? "a window to the left hides keys" : "softmax_precision is not float32");
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
    mapping three = {.axis = {0, -1, 1, 2}};
    bool packed = in[IN_Q]->type.rank == 3;
    r->p.q = r->p.k = r->p.v = r->p.y = packed ? three : plain;
    if (packed) {
        r->p.q.packed = r->p.y.packed = a->q_num_heads;
        r->p.k.packed = r->p.v.packed = a->kv_num_heads;
    }
    if (in[IN_MASK] && !covers_keys(n, in[IN_MASK], r->p.k.axis[LINE])) {
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
        if (scores && kiln_type_same_shape(&x->type, &n->out[0]->type) && kiln_value_is_f32(n->in[side])) {
            return side;
        }
    }
    return -1;
}

/* A view that puts one dim of one before all others, or takes it away again. */
static bool is_lead_view(const kiln_node *n, int32_t grow) {
    int32_t axis_of[KILN_MAX_RANK];
    const kiln_type *more = &(grow > 0 ? n->out[0] : n->in[0])->type, *less = &(grow > 0 ? n->in[0] : n->out[0])->type;
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
    int32_t side = n && KILN_IS(n, add) && r->p.n_masks < MAX_MASKS ? mask_side(r, n) : -1;
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
    r->p.masks[r->p.n_masks++] = (added_mask){.value = mask_value, .drop = drop};
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
        constant = constant && r->p.masks[i].value->constant && kiln_type_is_static(&r->p.masks[i].value->type);
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
    mapping three = {.axis = {0, -1, 1, 2}};
    r->p.q = r->p.k = r->p.v = r->p.y = rank == 4 ? plain : three;
    r->p.k.axis[SIZE] = rank - 2;
    r->p.k.axis[LINE] = rank - 1;
    r->p.scores_rank = rank;
    return true;
}

static bool may_be_inner(const kiln_node *n) {
    return KILN_IS(n, matmul) || KILN_IS(n, mul) || KILN_IS(n, div) || KILN_IS(n, add) || KILN_IS(n, softmax) ||
           KILN_IS(n, transpose) || (n->op->flags & KILN_OP_VIEW);
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
    bool side_by_side = read_through(r, &r->q, &r->p.q, !is_op);
    side_by_side = read_through(r, &r->k, &r->p.k, !is_op) && side_by_side;
    side_by_side = read_through(r, &r->v, &r->p.v, false) && side_by_side;
    write_through(r);
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

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
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
    kiln_claim *claim = kiln_claim_new(c, &kiln_kernel_attention_f32, node, 0, 3, sizeof(attention_params));
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
    claim->out[0] = r.y;
    claim->n_out = 1;
    r.p.present_k_out = add_output(&r, claim, OUT_PRESENT_K);
    r.p.present_v_out = add_output(&r, claim, OUT_PRESENT_V);
    *(attention_params *)claim->params = r.p;
    return c->status == KILN_OK ? claim : NULL;
}

/* ---- Pack ---- */

/* The dims a mask is seen with. */
static void mask_dims(const added_mask *m, kiln_operand *o) {
    kiln_type_to_tensor(&m->value->type, &o->tensor);
    o->layout = KILN_LAYOUT_ROW;
    o->tensor.rank -= m->drop;
    memmove(o->tensor.dims, o->tensor.dims + m->drop, (size_t)o->tensor.rank * sizeof *o->tensor.dims);
}

/* The sum of two masks: each dim is that of either. */
static void sum_dims(const attention_params *p, kiln_operand *sum) {
    *sum = (kiln_operand){.layout = KILN_LAYOUT_ROW, .tensor = {.dtype = KILN_DTYPE_F32, .rank = p->scores_rank}};
    for (int32_t d = 0; d < p->scores_rank; d++) {
        sum->tensor.dims[d] = 1;
    }
    for (int32_t i = 0; i < p->n_masks; i++) {
        kiln_operand m = {0};
        mask_dims(&p->masks[i], &m);
        int32_t lead = p->scores_rank - m.tensor.rank;
        for (int32_t d = 0; d < m.tensor.rank; d++) {
            int64_t n = m.tensor.dims[d];
            sum->tensor.dims[lead + d] = n != 1 ? n : sum->tensor.dims[lead + d];
        }
    }
}

static void add_mask(float *dst, const kiln_operand *sum, const kiln_operand *m, const float *src) {
    int64_t strides[KILN_MAX_RANK], n = kiln_tensor_count(&sum->tensor);
    kiln_operand_strides(m, sum, strides);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, at = 0;
        for (int32_t d = sum->tensor.rank - 1; d >= 0; d--) {
            at += rest % sum->tensor.dims[d] * strides[d];
            rest /= sum->tensor.dims[d];
        }
        dst[i] += src[at];
    }
}

static kiln_status pack(kiln_packer *k) {
    const attention_params *p = k->claim->params;
    if (p->n_masks < 2) {
        return KILN_OK;
    }
    kiln_operand sum;
    kiln_status status;
    sum_dims(p, &sum);
    float *dst = kiln_pack_blob(k, kiln_tensor_bytes(&sum.tensor), &status);
    for (int32_t i = 0; dst && i < p->n_masks; i++) {
        kiln_operand m = {0};
        kiln_tensor t;
        mask_dims(&p->masks[i], &m);
        KILN_TRY(kiln_pack_constant(k, p->masks[i].value, &t));
        add_mask(dst, &sum, &m, t.data);
    }
    return status;
}

/* ---- Bind ---- */

/* One of K and V with its past put before it: [B, G, past + added, D]. */
typedef struct joined {
    bool used;
    int64_t past, added, size;
    int64_t stride[3]; /* of what is added */
    size_t shared;     /* offset of the whole in the shared buffer, unless it is an output */
} joined;

typedef struct attention_state {
    const attention_params *p;
    const kiln_attention_prims *prims;
    kiln_attention_args args; /* all but addresses */
    joined k, v;
    bool bool_mask; /* made additive in the shared buffer */
    int64_t mask_count;
} attention_state;

typedef struct lines {
    int64_t batch, heads, count, size;
    int64_t stride[3];
} lines;

static lines read_lines(const kiln_operand *o, const mapping *m) {
    int64_t strides[KILN_MAX_RANK];
    const int64_t *dims = o->tensor.dims;
    kiln_logical_strides(o, strides);
    lines l = {.batch = 1, .heads = 1, .count = dims[m->axis[LINE]], .size = dims[m->axis[SIZE]]};
    if (m->axis[BATCH] >= 0) {
        l.batch = dims[m->axis[BATCH]];
        l.stride[0] = strides[m->axis[BATCH]];
    }
    l.stride[2] = strides[m->axis[LINE]];
    if (m->packed) {
        l.heads = m->packed;
        l.size /= m->packed;
        l.stride[1] = l.size;
    } else if (m->axis[HEAD] >= 0) {
        l.heads = dims[m->axis[HEAD]];
        l.stride[1] = strides[m->axis[HEAD]];
    }
    return l;
}

/* Plans the join of K or V; *l then describes the result. */
static void bind_joined(kiln_binder *b, joined *j, lines *l, int32_t past_in, int32_t present_out) {
    j->used = past_in >= 0 || present_out >= 0;
    if (!j->used) {
        return;
    }
    j->past = past_in >= 0 ? b->in[past_in].tensor.dims[2] : 0;
    j->added = l->count;
    j->size = l->size;
    memcpy(j->stride, l->stride, sizeof j->stride);
    l->count += j->past;
    l->stride[2] = l->size;
    l->stride[1] = l->count * l->size;
    l->stride[0] = l->heads * l->stride[1];
    if (present_out < 0) {
        j->shared = b->shared_bytes;
        b->shared_bytes += ((size_t)(l->batch * l->stride[0]) * sizeof(float) + 63) & ~(size_t)63;
    }
}

static void bind_mask(kiln_binder *b, attention_state *s) {
    const attention_params *p = s->p;
    if (p->n_masks == 0) {
        return;
    }
    kiln_operand seen, scores = {.layout = KILN_LAYOUT_ROW, .tensor = {.rank = p->scores_rank}};
    if (p->n_masks == 1) {
        seen = b->in[p->mask_in];
        const int64_t *dims = b->in[p->mask_in].tensor.dims;
        seen.tensor.rank -= p->masks[0].drop;
        memcpy(seen.tensor.dims, dims + p->masks[0].drop, (size_t)seen.tensor.rank * sizeof *dims);
    } else {
        sum_dims(p, &seen);
    }
    /* A mask axis per axis of [B, H, S, L]; without heads the second is left out. */
    kiln_attention_args *a = &s->args;
    const int64_t dims[4] = {a->batch, a->heads, a->q_len, a->kv_len};
    int64_t strides[KILN_MAX_RANK];
    for (int32_t d = 0, axis = 0; axis < 4; axis++) {
        if (p->scores_rank == 4 || axis != HEAD) {
            scores.tensor.dims[d++] = dims[axis];
        }
    }
    kiln_operand_strides(&seen, &scores, strides);
    for (int32_t d = 0, axis = 0; axis < 4; axis++) {
        a->mask_stride[axis] = p->scores_rank == 4 || axis != HEAD ? strides[d++] : 0;
    }
    s->bool_mask = seen.tensor.dtype == KILN_DTYPE_BOOL;
    s->mask_count = kiln_tensor_count(&seen.tensor);
    if (s->bool_mask) {
        b->shared_bytes += ((size_t)s->mask_count * sizeof(float) + 63) & ~(size_t)63;
    }
}

static kiln_status bind(kiln_binder *b) {
    const attention_params *p = b->claim->params;
    attention_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->p = p;
    s->prims = b->target->prims->attention;
    kiln_attention_args *a = &s->args;
    lines q = read_lines(&b->in[IN_Q], &p->q), k = read_lines(&b->in[IN_K], &p->k);
    lines v = read_lines(&b->in[IN_V], &p->v), y = read_lines(&b->out[0], &p->y);
    *a = (kiln_attention_args){.batch = q.batch, .heads = q.heads, .kv_heads = k.heads, .q_len = q.count,
                               .qk_dim = q.size, .v_dim = v.size, .softcap = p->softcap,
                               .causal = p->causal, .zero_empty = p->zero_empty};
    a->scale = p->scale != 0 ? p->scale : 1 / sqrtf((float)q.size);
    a->kv_len = k.count + (p->past_k_in >= 0 ? b->in[p->past_k_in].tensor.dims[2] : 0);
    a->causal_offset = a->kv_len - k.count + p->ahead;
    bind_mask(b, s);
    bind_joined(b, &s->k, &k, p->past_k_in, p->present_k_out);
    bind_joined(b, &s->v, &v, p->past_v_in, p->present_v_out);
    memcpy(a->q_stride, q.stride, sizeof a->q_stride);
    memcpy(a->k_stride, k.stride, sizeof a->k_stride);
    memcpy(a->v_stride, v.stride, sizeof a->v_stride);
    memcpy(a->y_stride, y.stride, sizeof a->y_stride);
    b->scratch_bytes = (size_t)kiln_attention_scratch(a) * sizeof(float);
    b->state = s;
    return KILN_OK;
}

/* ---- Run ---- */

/* Copies this member's share of the lines of past and added into dst. */
static void join(const attention_state *s, const joined *j, const float *past, const float *added, float *dst,
                 const kiln_team *team) {
    int64_t begin, end, total = j->past + j->added, heads = s->args.kv_heads;
    size_t bytes = (size_t)j->size * sizeof(float);
    kiln_team_split(team, s->args.batch * heads * total, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t head = i / total, line = i % total;
        const float *src = line < j->past
                               ? past + (head * j->past + line) * j->size
                               : added + head / heads * j->stride[0] + head % heads * j->stride[1] +
                                     (line - j->past) * j->stride[2];
        memcpy(dst + i * j->size, src, bytes);
    }
}

static const float *join_input(const kiln_call *call, const attention_state *s, const joined *j, int32_t in,
                               int32_t past_in, int32_t present_out, const kiln_team *team) {
    if (!j->used) {
        return call->in[in];
    }
    float *dst = present_out >= 0 ? call->out[present_out] : (float *)((char *)call->shared + j->shared);
    join(s, j, past_in >= 0 ? call->in[past_in] : NULL, call->in[in], dst, team);
    return dst;
}

static const float *additive_mask(const kiln_call *call, const attention_state *s, const kiln_team *team) {
    if (s->p->n_masks != 1) {
        return s->p->n_masks == 0 ? NULL : call->blobs[0].data;
    }
    if (!s->bool_mask) {
        return call->in[s->p->mask_in];
    }
    const uint8_t *seen = call->in[s->p->mask_in];
    float *dst = call->shared;
    int64_t begin, end;
    kiln_team_split(team, s->mask_count, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        dst[i] = seen[i] ? 0.0f : -INFINITY;
    }
    return dst;
}

/* Without keys every result is zero. */
static void write_zeros(const kiln_attention_args *a) {
    for (int64_t i = 0; i < a->batch * a->heads * a->q_len; i++) {
        int64_t line = i % a->q_len, head = i / a->q_len;
        memset(a->y + head / a->heads * a->y_stride[0] + head % a->heads * a->y_stride[1] +
                   line * a->y_stride[2],
               0, (size_t)a->v_dim * sizeof(float));
    }
}

static void run(const kiln_call *call, const kiln_team *team) {
    const attention_state *s = call->state;
    const attention_params *p = s->p;
    kiln_attention_args args = s->args;
    args.q = call->in[IN_Q];
    args.k = join_input(call, s, &s->k, IN_K, p->past_k_in, p->present_k_out, team);
    args.v = join_input(call, s, &s->v, IN_V, p->past_v_in, p->present_v_out, team);
    args.mask = additive_mask(call, s, team);
    args.y = call->out[0];
    if (s->k.used || s->v.used || s->bool_mask) {
        kiln_team_barrier(team);
    }
    if (args.kv_len == 0) {
        if (team->rank == 0) {
            write_zeros(&args);
        }
        return;
    }
    int64_t begin, end;
    kiln_team_split(team, kiln_attention_units(&args), &begin, &end);
    if (begin < end) {
        float *scratch = (float *)(call->scratch + (size_t)team->rank * call->scratch_bytes);
        s->prims->attention(&args, scratch, begin, end);
    }
}

const kiln_kernel kiln_kernel_attention_f32 = {
    .name = "attention_f32",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
