/* fold.c - nodes whose inputs are constants become constants. */
#include "pass/fold.h"

#include <string.h>

#include "base/env.h"

/* ---- Expressions ---- */

/* Counts the nodes an evaluation of v visits; false once the budget or the depth is spent. The
 * depth of the recursion is bounded by KILN_FOLD_DEPTH. */
static bool fits(const kiln_value *v, int depth, int *budget) {
    const kiln_node *n = v && v->constant && !v->constant->tensor.data ? v->constant->expr : NULL;
    if (!n) {
        return true;
    }
    if (depth >= KILN_FOLD_DEPTH || --*budget < 0) {
        return false;
    }
    for (int32_t k = 0; k < n->n_in; k++) {
        if (!fits(n->in[k], depth + 1, budget)) {
            return false;
        }
    }
    return true;
}

kiln_status kiln_fold_data(const kiln_value *v, kiln_tensor *out, kiln_arena *arena,
                           kiln_diag *diag) {
    size_t findings = diag ? kiln_diag_count(diag) : 0;
    kiln_status status = kiln_const_eval(v, out, arena, diag);
    if (status != KILN_OK && status != KILN_E_MEMORY && diag) {
        kiln_diag_truncate(diag, findings);
        kiln_diag_at_node(diag, NULL, NULL);
    }
    return status;
}

/* kiln_fold_data for a patch, which fails when memory runs out. */
static bool evaluate(kiln_patch *p, const kiln_value *v, kiln_tensor *out, kiln_arena *arena) {
    kiln_status status = kiln_fold_data(v, out, arena, p->diag);
    if (status == KILN_E_MEMORY && p->status == KILN_OK) {
        p->status = status;
    }
    return status == KILN_OK && out->data;
}

/* Gives an expression constant its bytes. False when they cannot be computed. */
static bool settle(kiln_patch *p, kiln_value *v) {
    kiln_arena scratch;
    kiln_tensor t;
    kiln_arena_init(&scratch, p->root->env);
    bool ok = evaluate(p, v, &t, &scratch);
    if (ok) {
        t.cap_bytes = kiln_tensor_bytes(&t);
        t.data = kiln_arena_copy(p->root->arena, t.data, t.cap_bytes);
        ok = t.data != NULL;
        p->status = ok ? p->status : KILN_E_MEMORY;
    }
    if (ok) {
        v->constant->tensor = t;
        v->constant->expr = NULL;
    }
    kiln_arena_free(&scratch);
    return ok;
}

static kiln_value *finish(kiln_patch *p, kiln_value *v, size_t bytes) {
    int budget = KILN_FOLD_NODES;
    if (v && (bytes <= KILN_FOLD_NOW_BYTES || !fits(v, 0, &budget)) && !settle(p, v)) {
        return NULL;
    }
    return v;
}

kiln_value *kiln_fold_make(kiln_patch *p, const char *op, kiln_value *const *in, int32_t n_in,
                           const kiln_tensor *type) {
    kiln_value *v = kiln_patch_expr(p, op, in, n_in, type);
    return finish(p, v, kiln_tensor_bytes(type));
}

kiln_value *kiln_fold_settle(kiln_patch *p, kiln_value *v) {
    return v ? finish(p, v, kiln_tensor_bytes(&v->constant->tensor)) : NULL;
}

double *kiln_fold_doubles(kiln_patch *p, const kiln_value *v, int64_t *n) {
    kiln_tensor t;
    if (!kiln_value_is_const(v) || !evaluate(p, v, &t, p->arena) ||
        !(kiln_dtype_is_float(t.dtype) || kiln_dtype_is_int(t.dtype))) {
        return NULL;
    }
    *n = kiln_tensor_count(&t);
    double *out = kiln_patch_scratch(p, *n, sizeof *out);
    for (int64_t i = 0; out && i < *n; i++) {
        out[i] = kiln_get_f64(t.dtype, t.data, i);
    }
    return out;
}

bool kiln_fold_same(const kiln_value *a, const kiln_value *b) {
    if (a == b) {
        return true;
    }
    if (!kiln_value_is_const(a) || !kiln_value_is_const(b)) {
        return false;
    }
    const kiln_tensor *x = &a->constant->tensor, *y = &b->constant->tensor;
    const kiln_node *f = a->constant->expr, *g = b->constant->expr;
    if (x->dtype != y->dtype || x->dtype == KILN_DTYPE_STRING || x->rank != y->rank ||
        !x->data != !y->data ||
        memcmp(x->dims, y->dims, (size_t)x->rank * sizeof x->dims[0]) != 0) {
        return false;
    }
    if (x->data) {
        return x->data == y->data || memcmp(x->data, y->data, kiln_tensor_bytes(x)) == 0;
    }
    bool same = f && g && f->op == g->op && f->n_in == g->n_in && kiln_same_attrs(f, g) &&
                a->constant->expr_out == b->constant->expr_out;
    for (int32_t k = 0; same && k < f->n_in; k++) {
        same = kiln_fold_same(f->in[k], g->in[k]);
    }
    return same;
}

kiln_value *kiln_fold_vector(kiln_patch *p, kiln_dtype dtype, const double *v, int32_t rank,
                             const int64_t *dims) {
    kiln_tensor t = {.dtype = dtype, .rank = rank};
    for (int32_t d = 0; d < rank; d++) {
        t.dims[d] = dims[d];
    }
    int64_t n = kiln_tensor_count(&t);
    t.data = kiln_patch_scratch(p, n, kiln_dtype_size(dtype));
    for (int64_t i = 0; t.data && i < n; i++) {
        kiln_set_f64(dtype, t.data, i, v[i]);
    }
    return t.data ? kiln_patch_constant(p, &t) : NULL;
}

/* ---- The pass ---- */

/* DequantizeLinear stays: an int8 weight and its scale say more than the float they stand for. */
static bool may_fold(const kiln_node *n) {
    return !(n->op->flags & KILN_OP_RANDOM) && n->n_bodies == 0 && n->n_out > 0 &&
           !kiln_is_op(n, "DequantizeLinear");
}

static bool is_wanted(const kiln_value *v) {
    return v->n_users > 0 || v->n_outputs > 0;
}

/* A graph output keeps its name through an Identity of the constant. */
static void replace(kiln_patch *p, const kiln_value *old, kiln_value *by) {
    bool is_output = by && !kiln_patch_may_replace(p, old, by);
    kiln_patch_replace(p, old, is_output ? kiln_patch_node(p, "Identity", &by, 1) : by);
}

/* Types that evaluation has to find out (NonZero of a constant): only from little data. */
static kiln_status fold_unsized(kiln_patch *p, const kiln_node *n, kiln_value *const *in) {
    kiln_arena scratch;
    kiln_datum *args;
    size_t bytes = 0, findings = p->diag ? kiln_diag_count(p->diag) : 0;
    KILN_ALLOC(args, p->arena, n->n_in + n->n_out);
    for (int32_t k = 0; k < n->n_in; k++) {
        const kiln_tensor *t = kiln_value_data(in[k]);
        bytes += t ? kiln_tensor_bytes(t) : 0;
        if ((in[k] && !t) || bytes > KILN_FOLD_NOW_BYTES) {
            return KILN_OK;
        }
        if (t) {
            args[k] = (kiln_datum){.kind = KILN_KIND_TENSOR, .tensor = *t};
        }
    }
    kiln_arena_init(&scratch, p->root->env);
    kiln_status status = kiln_eval_node(n, args, args + n->n_in, NULL, &scratch, p->diag);
    for (int32_t k = 0; k < n->n_out && status == KILN_OK; k++) {
        const kiln_tensor *t = &args[n->n_in + k].tensor;
        if (is_wanted(n->out[k]) && kiln_tensor_bytes(t) <= KILN_FOLD_NOW_BYTES && t->data) {
            replace(p, n->out[k], kiln_patch_constant(p, t));
        }
    }
    kiln_arena_free(&scratch);
    if (status != KILN_OK && status != KILN_E_MEMORY) {
        kiln_diag_truncate(p->diag, findings);
        kiln_diag_at_node(p->diag, NULL, NULL);
        return KILN_OK;
    }
    return status == KILN_OK ? kiln_patch_commit(p, "computed") : status;
}

static kiln_status fold(kiln_patch *p, const kiln_node *n, kiln_value *const *in) {
    bool made = true;
    for (int32_t k = 0; k < n->n_out; k++) {
        kiln_tensor t = {.rank = 0};
        if (!is_wanted(n->out[k])) {
            continue;
        }
        if (n->out[k]->type.kind != KILN_KIND_TENSOR) {
            return KILN_OK;
        }
        if (!kiln_type_to_tensor(&n->out[k]->type, &t)) {
            kiln_patch_drop(p);
            return fold_unsized(p, n, in);
        }
        size_t bytes = kiln_tensor_bytes(&t);
        if (bytes > kiln_env_limits(p->root->env)->fold_bytes || t.dtype == KILN_DTYPE_STRING) {
            return KILN_OK;
        }
        kiln_value *v = finish(p, kiln_patch_expr_like(p, n, in, k, &t), bytes);
        made = made && v;
        if (v) {
            replace(p, n->out[k], v);
        }
    }
    return made ? kiln_patch_commit(p, "constant inputs") : KILN_OK;
}

/* Inputs as they will be once this sweep is applied, so that a chain folds in one sweep. */
static kiln_status fold_node(kiln_patch *p, const kiln_node *n) {
    kiln_value **in;
    if (!may_fold(n) || (kiln_is_op(n, "Identity") && n->out[0]->n_outputs > 0)) {
        return KILN_OK;
    }
    for (int32_t k = 0; k < n->n_in; k++) {
        if (n->in[k] && !kiln_value_is_const(kiln_patch_now(p, n->in[k]))) {
            return KILN_OK;
        }
    }
    KILN_ALLOC(in, p->arena, n->n_in);
    for (int32_t k = 0; k < n->n_in; k++) {
        in[k] = n->in[k] ? kiln_patch_now(p, n->in[k]) : NULL;
    }
    return fold(p, n, in);
}

/* If with a known condition: the branch's nodes take its place. */
static kiln_status fold_if(kiln_patch *p, const kiln_node *n) {
    double condition;
    int32_t branch = -1;
    if (!kiln_scalar(kiln_patch_now(p, n->in[0]), &condition)) {
        return KILN_OK;
    }
    for (int32_t i = 0, b = 0; i < n->op->n_attrs; i++) {
        if (n->op->attrs[i].kind == KILN_ATTR_GRAPH) {
            bool is_then = strcmp(n->op->attrs[i].name, "then_branch") == 0;
            branch = is_then == (condition != 0.0) ? b : branch;
            b++;
        }
    }
    if (branch < 0 || n->bodies[branch]->n_inputs > 0 ||
        n->bodies[branch]->n_outputs != (size_t)n->n_out) {
        return KILN_OK;
    }
    kiln_patch_adopt(p, n, n->bodies[branch]);
    return kiln_patch_commit(p, "condition is constant");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    return kiln_is_op(n, "If") ? fold_if(p, n) : fold_node(p, n);
}

const kiln_pass kiln_pass_fold = {.name = "fold", .visit = visit};
