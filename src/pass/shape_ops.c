/* shape_ops.c - shape computations vanish: integers that inference knows become constants, and
 * targets that say only what the input's shape says become targets of 0 and -1. */
#include "pass/fold.h"

static bool is_known(const kiln_value *v) {
    int64_t n = kiln_static_count(v);
    if (v->constant || n < 0 || !v->contents || v->n_contents != n) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!kiln_dim_known(v->contents[i])) {
            return false;
        }
    }
    return kiln_dtype_is_int(v->type.dtype) || v->type.dtype == KILN_DTYPE_BOOL;
}

static kiln_value *from_contents(kiln_patch *p, const kiln_value *v) {
    kiln_tensor t = {.rank = 0};
    if (!kiln_type_to_tensor(&v->type, &t) || kiln_dtype_size(t.dtype) == 0) {
        return NULL;
    }
    t.data = kiln_patch_scratch(p, v->n_contents, kiln_dtype_size(t.dtype));
    for (int64_t i = 0; t.data && i < v->n_contents; i++) {
        kiln_set_i64(t.dtype, t.data, i, v->contents[i]);
        if (kiln_get_i64(t.dtype, t.data, i) != v->contents[i]) {
            return NULL;
        }
    }
    return t.data ? kiln_patch_constant(p, &t) : NULL;
}

static kiln_status known_outputs(kiln_patch *p, const kiln_node *n) {
    for (int32_t k = 0; k < n->n_out; k++) {
        const kiln_value *v = n->out[k];
        bool settled = kiln_is_op(n, "Identity") && v->n_outputs > 0;
        if (settled || !is_known(v) || (v->n_users == 0 && v->n_outputs == 0)) {
            continue;
        }
        kiln_value *c = from_contents(p, v);
        if (c && !kiln_patch_may_replace(p, v, c)) {
            c = kiln_patch_node(p, "Identity", &c, 1);
        }
        if (!c) {
            kiln_patch_drop(p);
            return KILN_OK;
        }
        kiln_patch_replace(p, v, c);
    }
    return kiln_patch_commit(p, "known contents");
}

static kiln_status reshape(kiln_patch *p, const kiln_node *n) {
    if (n->in[1]->constant) {
        return KILN_OK;
    }
    kiln_value *y = kiln_patch_reshape(p, n->in[0], &n->out[0]->type);
    if (!y) {
        return KILN_OK;
    }
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, "target follows from the input");
}

/* Expand's target is a number where the result's dim is one, and 1 where the input's dim passes. */
static kiln_status expand(kiln_patch *p, const kiln_node *n) {
    int64_t target[KILN_MAX_RANK];
    int32_t rank = kiln_rank(n->out[0]), shift = rank - kiln_rank(n->in[0]);
    if (n->in[1]->constant || rank < 0 || kiln_rank(n->in[0]) < 0) {
        return KILN_OK;
    }
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim out = kiln_dim_at(n->out[0], d);
        kiln_dim in = d < shift ? KILN_DIM_UNKNOWN : n->in[0]->type.dims[d - shift];
        if (!kiln_dim_known(out) && (out == KILN_DIM_UNKNOWN || in != out)) {
            return KILN_OK;
        }
        target[d] = kiln_dim_known(out) ? out : 1;
    }
    kiln_value *in[] = {n->in[0], kiln_patch_vector(p, target, rank)};
    kiln_patch_replace(p, n->out[0], kiln_patch_node(p, "Expand", in, 2));
    return kiln_patch_commit(p, "target follows from the input");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    if (!(n->op->flags & KILN_OP_RANDOM)) {
        KILN_TRY(known_outputs(p, n));
    }
    if (kiln_patch_taken(p, n) || !kiln_target_is_sure(n)) {
        return KILN_OK;
    }
    if (kiln_is_op(n, "Reshape")) {
        return reshape(p, n);
    }
    return kiln_is_op(n, "Expand") ? expand(p, n) : KILN_OK;
}

const kiln_pass kiln_pass_shape_ops = {.name = "shape_ops", .visit = visit};
