/* transpose.c - transposes meet and cancel.
 *
 * Two in a row become one; one that moves only dims of size 1 becomes a Reshape. A transpose is
 * moved down through a node when that removes one: when all data inputs of the node are transposes
 * of the same permutation (or constants, which are permuted instead), or when a chain of
 * elementwise nodes leads on to another transpose.
 *
 * Notation: T_q(x) has dims x.dims[q[d]]. T_p(T_q(x)) = T_r(x) with r[d] = q[p[d]].
 */
#include "pass/fold.h"

typedef struct perm {
    int64_t v[KILN_MAX_RANK];
    int32_t rank;
} perm;

static bool read_perm(const kiln_value *v, perm *out) {
    const kiln_node *t = kiln_made_by(v, "Transpose");
    return t && kiln_transpose_perm(t, out->v, &out->rank);
}

static bool same_perm(const perm *a, const perm *b) {
    for (int32_t d = 0; a->rank == b->rank && d < a->rank; d++) {
        if (a->v[d] != b->v[d]) {
            return false;
        }
    }
    return a->rank == b->rank;
}

static kiln_value *make_transpose(kiln_patch *p, kiln_value *x, const perm *q) {
    kiln_value *y = kiln_patch_node(p, "Transpose", &x, 1);
    kiln_patch_ints(p, y, "perm", q->v, q->rank);
    return y;
}

/* ---- Two in a row, and none at all ---- */

static kiln_status merge(kiln_patch *p, const kiln_node *n, const perm *outer, const perm *inner) {
    perm joint = {.rank = inner->rank};
    bool identity = true;
    for (int32_t d = 0; d < inner->rank; d++) {
        joint.v[d] = inner->v[outer->v[d]];
        identity = identity && joint.v[d] == d;
    }
    kiln_value *x = n->in[0]->producer->in[0];
    if (kiln_used_once(n->in[0])) {
        kiln_patch_touch(p, n->in[0]->producer);
    }
    kiln_patch_replace(p, n->out[0], identity ? x : make_transpose(p, x, &joint));
    return kiln_patch_commit(p, identity ? "transposes cancel" : "transposes merge");
}

/* Dims other than those of size 1 keep their order. */
static bool moves_units_only(const kiln_value *x, const perm *q) {
    int64_t last = -1;
    for (int32_t d = 0; d < q->rank; d++) {
        if (kiln_dim_at(x, (int32_t)q->v[d]) != 1) {
            if (q->v[d] < last) {
                return false;
            }
            last = q->v[d];
        }
    }
    return true;
}

/* ---- Down through other nodes ---- */

/* Inputs that are data: the others (bounds of Clip, axes of Reduce) keep their form. */
static int32_t data_inputs(const kiln_node *n) {
    if (kiln_is_op(n, "Clip") || kiln_is_op(n, "QuantizeLinear") ||
        kiln_is_op(n, "DequantizeLinear")) {
        return 1;
    }
    return n->n_in;
}

/* Elementwise, without attributes that name an axis. */
static bool is_pointwise(const kiln_node *n) {
    return (n->op->flags & KILN_OP_ELEMENTWISE) && n->n_out == 1 && !kiln_is_op(n, "PRelu") &&
           !kiln_is_op(n, "QuantizeLinear") && !kiln_is_op(n, "DequantizeLinear");
}

/* Input k of n can be had without the permutation q: it is such a transpose, or a constant. */
static bool can_undo(const kiln_value *v, const perm *q, int *n_transposes) {
    perm other;
    if (v->constant) {
        return kiln_type_is_static(&v->type) && v->type.rank <= q->rank;
    }
    if (!kiln_used_once(v) || !read_perm(v, &other) || !same_perm(&other, q)) {
        return false;
    }
    ++*n_transposes;
    return true;
}

/* The constant c seen before T_q: its dims, padded with ones to q's rank, permuted back. */
static kiln_value *permute_constant(kiln_patch *p, kiln_value *c, const perm *q) {
    kiln_tensor wide = {.dtype = c->type.dtype, .rank = q->rank}, out = wide;
    int64_t inverse[KILN_MAX_RANK], target[KILN_MAX_RANK];
    int32_t shift = q->rank - c->type.rank;
    if (kiln_static_count(c) == 1 && c->type.rank == 0) {
        return c;
    }
    for (int32_t d = 0; d < q->rank; d++) {
        target[d] = wide.dims[d] = d < shift ? 1 : c->type.dims[d - shift];
        inverse[q->v[d]] = d;
    }
    for (int32_t d = 0; d < q->rank; d++) {
        out.dims[d] = wide.dims[inverse[d]];
    }
    kiln_value *in[] = {c, kiln_patch_vector(p, target, q->rank)};
    kiln_value *padded = kiln_fold_make(p, "Reshape", in, 2, &wide);
    kiln_value *y = padded ? kiln_patch_expr(p, "Transpose", &padded, 1, &out) : NULL;
    kiln_patch_ints(p, y, "perm", inverse, q->rank);
    return y ? kiln_fold_settle(p, y) : NULL;
}

/* From n down: only pointwise nodes of one data input, each used once, until a Transpose. */
static bool leads_to_transpose(const kiln_node *n) {
    for (int i = 0; i < 16; i++) {
        const kiln_value *v = n->out[0];
        if (!kiln_used_once(v)) {
            return false;
        }
        n = v->users[0];
        if (kiln_is_op(n, "Transpose")) {
            return true;
        }
        int others = 0;
        for (int32_t k = 0; k < data_inputs(n); k++) {
            others += n->in[k] && n->in[k] != v && !n->in[k]->constant;
        }
        if (!is_pointwise(n) || n->n_bodies > 0 || others) {
            return false;
        }
    }
    return false;
}

/* The permutation that a data input of n came through; false when the first that is no constant
 * came through none. */
static bool find_perm(const kiln_node *n, int32_t n_data, perm *q) {
    for (int32_t k = 0; k < n_data; k++) {
        if (n->in[k] && !n->in[k]->constant) {
            return read_perm(n->in[k], q);
        }
    }
    return false;
}

static bool can_sink(const kiln_node *n, int32_t n_data, const perm *q) {
    int n_transposes = 0;
    for (int32_t k = 0; k < n_data; k++) {
        if (n->in[k] && !can_undo(n->in[k], q, &n_transposes)) {
            return false;
        }
    }
    return n_transposes >= 2 || leads_to_transpose(n);
}

enum { MAX_POINTWISE = 8 };

static kiln_status sink_pointwise(kiln_patch *p, const kiln_node *n) {
    perm q;
    kiln_value *in[MAX_POINTWISE];
    int32_t n_data = data_inputs(n);
    if (n->n_in > MAX_POINTWISE || !find_perm(n, n_data, &q) || !can_sink(n, n_data, &q)) {
        return KILN_OK;
    }
    for (int32_t k = 0; k < n->n_in; k++) {
        kiln_value *v = n->in[k];
        bool through = v && k < n_data;
        if (through && !v->constant) {
            kiln_patch_touch(p, v->producer);
        }
        in[k] = !through ? v : v->constant ? permute_constant(p, v, &q) : v->producer->in[0];
    }
    kiln_node *moved = kiln_patch_like(p, n, in, n->n_in, 1);
    kiln_patch_replace(p, n->out[0], moved ? make_transpose(p, moved->out[0], &q) : NULL);
    return kiln_patch_commit(p, "transpose moves down");
}

/* Softmax and Concat along one axis; Reduce over several, keeping them. */
static kiln_status sink_axis(kiln_patch *p, const kiln_node *n) {
    perm q, other;
    int64_t axis = kiln_node_int(n, "axis", -1);
    if (n->n_out != 1 || n->n_in < 1 || !read_perm(n->in[0], &q)) {
        return KILN_OK;
    }
    for (int32_t k = 0; k < n->n_in; k++) {
        if (!kiln_used_once(n->in[k]) || !read_perm(n->in[k], &other) || !same_perm(&q, &other)) {
            return KILN_OK;
        }
    }
    if (n->n_in < 2 && !leads_to_transpose(n)) {
        return KILN_OK;
    }
    kiln_value **in;
    KILN_ALLOC(in, p->arena, n->n_in);
    for (int32_t k = 0; k < n->n_in; k++) {
        kiln_patch_touch(p, n->in[k]->producer);
        in[k] = n->in[k]->producer->in[0];
    }
    kiln_node *moved = kiln_patch_like(p, n, in, n->n_in, 1);
    kiln_value *y = moved ? moved->out[0] : NULL;
    kiln_patch_int(p, y, "axis", q.v[axis < 0 ? axis + q.rank : axis]);
    kiln_patch_replace(p, n->out[0], y ? make_transpose(p, y, &q) : NULL);
    return kiln_patch_commit(p, "transpose moves down");
}

/* Reduce over T_q(x): over q[axes] of x. Without keepdims the remaining transpose shrinks. */
static kiln_status sink_reduce(kiln_patch *p, const kiln_node *n) {
    perm q, rest = {.rank = 0};
    uint32_t axes, gone = 0;
    int64_t list[KILN_MAX_RANK];
    int64_t n_list = 0;
    bool keep = kiln_node_int(n, "keepdims", 1) != 0;
    if (!kiln_used_once(n->in[0]) || !read_perm(n->in[0], &q) || !kiln_reduce_axes(n, &axes)) {
        return KILN_OK;
    }
    for (int32_t d = 0; d < q.rank; d++) {
        if (axes >> d & 1) {
            list[n_list++] = q.v[d];
            gone |= UINT32_C(1) << q.v[d];
        }
    }
    bool identity = true;
    for (int32_t d = 0; d < q.rank; d++) {
        if (keep || !(axes >> d & 1)) {
            int64_t below = 0;
            for (int64_t e = 0; e < q.v[d] && !keep; e++) {
                below += gone >> e & 1;
            }
            identity = identity && q.v[d] - below == rest.rank;
            rest.v[rest.rank++] = q.v[d] - below;
        }
    }
    if (n_list == 0 || (!identity && !leads_to_transpose(n))) {
        return KILN_OK;
    }
    kiln_value *in[] = {n->in[0]->producer->in[0], kiln_patch_vector(p, list, n_list)};
    kiln_patch_touch(p, n->in[0]->producer);
    kiln_node *moved = kiln_patch_like(p, n, in, 2, 1);
    kiln_value *y = moved ? moved->out[0] : NULL;
    kiln_patch_replace(p, n->out[0], identity || !y ? y : make_transpose(p, y, &rest));
    return kiln_patch_commit(p, "transpose moves down");
}

static kiln_status visit_transpose(kiln_patch *p, const kiln_node *n) {
    perm q, inner;
    if (!kiln_transpose_perm(n, q.v, &q.rank)) {
        return KILN_OK;
    }
    if (read_perm(n->in[0], &inner) && inner.rank == q.rank) {
        return merge(p, n, &q, &inner);
    }
    if (!moves_units_only(n->in[0], &q)) {
        return KILN_OK;
    }
    kiln_value *y = kiln_patch_reshape(p, n->in[0], &n->out[0]->type);
    if (!y) {
        return KILN_OK;
    }
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, "moves dims of size 1");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    static const char *const reductions[] = {"ReduceMean",     "ReduceSum", "ReduceMax",
                                             "ReduceMin",      "ReduceL2",  "ReduceProd",
                                             "ReduceSumSquare"};
    if (kiln_is_op(n, "Transpose")) {
        return visit_transpose(p, n);
    }
    if (is_pointwise(n)) {
        return sink_pointwise(p, n);
    }
    if (kiln_is_op(n, "Softmax") || kiln_is_op(n, "LogSoftmax") || kiln_is_op(n, "Concat")) {
        return sink_axis(p, n);
    }
    for (size_t i = 0; i < KILN_COUNT_OF(reductions); i++) {
        if (kiln_is_op(n, reductions[i])) {
            return sink_reduce(p, n);
        }
    }
    return KILN_OK;
}

const kiln_pass kiln_pass_transpose = {.name = "transpose", .visit = visit};
