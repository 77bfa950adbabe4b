/* einsum.c - Einsum taken apart: sums, transposes, and matrix products or elementwise ones.
 *
 * Operands are contracted from the left, two at a time. The labels of a pair (A, B), after those
 * that one alone has and nothing needs are summed away, are of four kinds: batch (in both, needed
 * later), K (in both, summed here), M (in A alone) and N (in B alone). With K and an M or N it is
 *
 *     A [.. M, batch, last M, K] x B [batch, K, N] -> [.. M, batch, last M, N]
 *
 * where K and N are each taken together as one dim; without K, or without M and N, a broadcast Mul
 * with a sum behind it. Labels that repeat within a term, K dims that might broadcast, and dims
 * taken together whose sizes a Reshape could not say stay an Einsum. */
#include "ops/einsum.h"

#include <string.h>

#include "pass/match.h"

enum { MOST = KILN_MAX_RANK, LABELS = KILN_EINSUM_LABELS };

typedef struct labels {
    int32_t n;
    int8_t at[MOST];
} labels;

/* A value and the label of each of its dims. */
typedef struct operand {
    kiln_value *v;
    labels l;
    kiln_dim dim[LABELS]; /* by label */
} operand;

typedef struct pair {
    labels all, batch, k, m, n;
} pair;

static void add(labels *l, int8_t label) {
    l->at[l->n++] = label;
}

static void append(labels *l, const labels *more) {
    for (int32_t i = 0; i < more->n; i++) {
        add(l, more->at[i]);
    }
}

static int32_t find(const labels *l, int8_t label) {
    for (int32_t i = 0; i < l->n; i++) {
        if (l->at[i] == label) {
            return i;
        }
    }
    return -1;
}

/* ---- Nodes ---- */

/* An operator of one input and a list of axes. */
static void with_axes(kiln_patch *p, operand *x, const char *op, const int64_t *axes, int32_t n) {
    kiln_value *in[] = {x->v, kiln_patch_vector(p, axes, n)};
    x->v = kiln_patch_node(p, op, in, 2);
}

static void permute(kiln_patch *p, operand *x, const labels *order) {
    int64_t perm[MOST];
    bool moved = false;
    for (int32_t i = 0; i < order->n; i++) {
        perm[i] = find(&x->l, order->at[i]);
        moved = moved || perm[i] != i;
    }
    if (moved) {
        x->v = kiln_patch_node(p, "Transpose", &x->v, 1);
        kiln_patch_ints(p, x->v, "perm", perm, order->n);
    }
    x->l = *order;
}

static void sum(kiln_patch *p, operand *x, const bool *keep) {
    int64_t axes[MOST];
    int32_t n = 0;
    labels left = {0};
    for (int32_t i = 0; i < x->l.n; i++) {
        if (keep[x->l.at[i]]) {
            add(&left, x->l.at[i]);
        } else {
            axes[n++] = i;
        }
    }
    if (n) {
        with_axes(p, x, "ReduceSum", axes, n);
        kiln_patch_int(p, x->v, "keepdims", 0);
    }
    x->l = left;
}

/* From dims to dims; false when no Reshape can say it. */
static bool reshape(kiln_patch *p, operand *x, kiln_dim *from, int32_t n_from, kiln_dim *to,
                    int32_t n_to) {
    const kiln_value was = {.type = {.kind = KILN_KIND_TENSOR, .rank = n_from, .dims = from}};
    const kiln_type type = {.kind = KILN_KIND_TENSOR, .rank = n_to, .dims = to};
    int64_t target[MOST];
    if (!kiln_reshape_target(&was, &type, target)) {
        return false;
    }
    kiln_value *in[] = {x->v, kiln_patch_vector(p, target, n_to)};
    x->v = kiln_patch_node(p, "Reshape", in, 2);
    return true;
}

/* Dims of x as lists: those of `l`, or their product when `one`. Returns the new length. */
static int32_t put_dims(kiln_patch *p, kiln_dim *dims, int32_t n, const operand *x, const labels *l,
                        bool one) {
    kiln_dim *first = dims + n;
    for (int32_t i = 0; i < l->n; i++) {
        dims[n++] = x->dim[l->at[i]];
    }
    if (one && l->n > 1) {
        *first = kiln_dim_product(p->root->dims, first, l->n);
        n = (int32_t)(first - dims) + 1;
    }
    return n;
}

/* x lies as head, then `a`, then `b`; a and b become one dim each. */
static bool merge(kiln_patch *p, operand *x, const labels *head, const labels *a, const labels *b) {
    kiln_dim from[MOST], to[MOST];
    if (a->n <= 1 && b->n <= 1) {
        return true;
    }
    int32_t n_from = put_dims(p, from, 0, x, head, false),
            n_to = put_dims(p, to, 0, x, head, false);
    n_from = put_dims(p, from, n_from, x, a, false);
    n_from = put_dims(p, from, n_from, x, b, false);
    n_to = put_dims(p, to, n_to, x, a, true);
    n_to = put_dims(p, to, n_to, x, b, true);
    return reshape(p, x, from, n_from, to, n_to);
}

/* ---- One contraction ---- */

/* x with its dims in the order of `all`, and dims of 1 between them for the labels it lacks. */
static void spread(kiln_patch *p, operand *x, const labels *all) {
    labels own = {0};
    int64_t axes[MOST];
    int32_t n = 0, lead = 0;
    for (int32_t i = 0; i < all->n; i++) {
        if (find(&x->l, all->at[i]) >= 0) {
            add(&own, all->at[i]);
        } else if (own.n == 0) {
            lead++; /* broadcasting adds these */
        } else {
            axes[n++] = i - lead;
        }
    }
    permute(p, x, &own);
    if (n) {
        with_axes(p, x, "Unsqueeze", axes, n);
    }
}

/* y = a * b, broadcast, summed over K. */
static void multiply(kiln_patch *p, operand *a, operand *b, const pair *g, const bool *keep,
                     operand *y) {
    spread(p, a, &g->all);
    spread(p, b, &g->all);
    kiln_value *in[] = {a->v, b->v};
    y->v = kiln_patch_node(p, "Mul", in, 2);
    y->l = g->all;
    sum(p, y, keep);
}

/* y = a x b as matrices; false when dims cannot be taken together. */
static bool product(kiln_patch *p, operand *a, operand *b, const pair *g, operand *y) {
    static const labels none = {0};
    labels left = {0}, right = g->batch, head = {0}, rows;
    for (int32_t i = 0; i + 1 < g->m.n; i++) {
        add(&head, g->m.at[i]);
    }
    append(&head, &g->batch);
    if (g->m.n) {
        add(&head, g->m.at[g->m.n - 1]);
    }
    left = rows = head;
    append(&left, &g->k);
    append(&right, &g->k);
    append(&right, &g->n);
    permute(p, a, &left);
    permute(p, b, &right);
    if (!merge(p, a, &head, &g->k, &none) || !merge(p, b, &g->batch, &g->k, &g->n)) {
        return false;
    }
    const int64_t row = g->batch.n, column = g->batch.n + 1;
    bool no_m = !g->m.n, no_n = !g->n.n;
    if (no_m) {
        with_axes(p, a, "Unsqueeze", &row, 1);
    }
    if (no_n) {
        with_axes(p, b, "Unsqueeze", &column, 1);
    }
    kiln_value *in[] = {a->v, b->v};
    y->v = kiln_patch_node(p, "MatMul", in, 2);
    if (no_m || no_n) {
        const int64_t axis = no_m ? -2 : -1;
        with_axes(p, y, "Squeeze", &axis, 1);
    }
    y->l = rows;
    append(&y->l, &g->n);
    if (g->n.n > 1) {
        kiln_dim from[MOST], to[MOST];
        int32_t n_to = put_dims(p, to, 0, y, &y->l, false);
        int32_t n_from = put_dims(p, from, 0, y, &rows, false);
        n_from = put_dims(p, from, n_from, y, &g->n, true);
        return reshape(p, y, from, n_from, to, n_to);
    }
    return true;
}

static void add_kind(const operand *a, const operand *b, int8_t l, const bool *keep, pair *g) {
    bool in_a = find(&a->l, l) >= 0, in_b = find(&b->l, l) >= 0;
    if ((in_a || in_b) && find(&g->all, l) < 0) {
        add(&g->all, l);
        add(in_a && in_b ? (keep[l] ? &g->batch : &g->k) : in_a ? &g->m : &g->n, l);
    }
}

/* The kind of each label of a and b, in the order of `out`, then of a, then of b. */
static void group(const operand *a, const operand *b, const labels *out, const bool *keep,
                  pair *g) {
    const labels *lists[] = {out, &a->l, &b->l};
    memset(g, 0, sizeof *g);
    for (size_t k = 0; k < KILN_COUNT_OF(lists); k++) {
        for (int32_t i = 0; i < lists[k]->n; i++) {
            add_kind(a, b, lists[k]->at[i], keep, g);
        }
    }
}

/* The first of M and N in the result is of N. */
static bool reversed(const pair *g) {
    for (int32_t i = 0; i < g->all.n; i++) {
        int8_t l = g->all.at[i];
        if (find(&g->m, l) >= 0 || find(&g->n, l) >= 0) {
            return find(&g->n, l) >= 0;
        }
    }
    return false;
}

/* The sizes of the result's labels; false when K dims might broadcast, or dims not fit. */
static bool result_dims(kiln_patch *p, const operand *a, const operand *b, const pair *g,
                        operand *y) {
    for (int32_t i = 0; i < g->k.n; i++) {
        kiln_dim d = a->dim[g->k.at[i]];
        if (d == KILN_DIM_UNKNOWN || d != b->dim[g->k.at[i]]) {
            return false;
        }
        y->dim[g->k.at[i]] = d;
    }
    for (int32_t i = 0; i < g->batch.n; i++) {
        int8_t l = g->batch.at[i];
        if (!kiln_dim_broadcast(p->root->dims, a->dim[l], b->dim[l], &y->dim[l])) {
            return false;
        }
    }
    for (int32_t i = 0; i < g->m.n; i++) {
        y->dim[g->m.at[i]] = a->dim[g->m.at[i]];
    }
    for (int32_t i = 0; i < g->n.n; i++) {
        y->dim[g->n.at[i]] = b->dim[g->n.at[i]];
    }
    return true;
}

/* *a becomes the contraction of a and b that keeps the labels `keep`. */
static bool contract(kiln_patch *p, operand *a, operand *b, const labels *out, const bool *keep) {
    operand y;
    pair g;
    memset(&y, 0, sizeof y);
    group(a, b, out, keep, &g);
    if (g.m.n ? reversed(&g) : g.n.n > 1) {
        operand was = *a; /* what comes first in the output comes from the left */
        *a = *b;
        *b = was;
        group(a, b, out, keep, &g);
    }
    if (!result_dims(p, a, b, &g, &y)) {
        return false;
    }
    if (!g.k.n || (!g.m.n && !g.n.n)) {
        multiply(p, a, b, &g, keep, &y);
    } else if (!product(p, a, b, &g, &y)) {
        return false;
    }
    *a = y;
    return true;
}

/* ---- The pass ---- */

/* Operand k as the equation sees it; false when a label repeats. */
static bool open_operand(const kiln_einsum *e, const kiln_node *n, int32_t k, operand *x) {
    const kiln_einsum_term *t = &e->in[k];
    memset(x, 0, sizeof *x);
    x->v = n->in[k];
    for (int32_t d = 0; d < t->n; d++) {
        if (find(&x->l, t->label[d]) >= 0) {
            return false;
        }
        add(&x->l, t->label[d]);
        x->dim[t->label[d]] = n->in[k]->type.dims[d];
    }
    return true;
}

static bool take_apart(kiln_patch *p, const kiln_einsum *e, const kiln_node *n, kiln_value **y) {
    operand acc, next;
    labels out = {.n = e->out.n};
    bool keep[LABELS], either[LABELS];
    memcpy(out.at, e->out.label, (size_t)out.n);
    if (!open_operand(e, n, 0, &acc)) {
        return false;
    }
    kiln_einsum_needed(e, 0, keep);
    sum(p, &acc, keep);
    for (int32_t k = 1; k < e->n_in; k++) {
        if (!open_operand(e, n, k, &next)) {
            return false;
        }
        kiln_einsum_needed(e, k, keep);
        memcpy(either, keep, sizeof keep);
        for (int32_t i = 0; i < acc.l.n; i++) {
            either[acc.l.at[i]] = true;
        }
        sum(p, &next, either);
        memcpy(either, keep, sizeof keep);
        for (int32_t i = 0; i < next.l.n; i++) {
            either[next.l.at[i]] = true;
        }
        sum(p, &acc, either);
        if (!contract(p, &acc, &next, &out, keep)) {
            return false;
        }
    }
    permute(p, &acc, &out);
    *y = acc.v;
    return true;
}

/* What MatMul, Mul and ReduceSum all take. */
static bool fits(const kiln_node *n) {
    static const uint32_t dtypes = KILN_T(F32) | KILN_T(F64) | KILN_T(F16) | KILN_T(BF16) |
                                   KILN_T(I32) | KILN_T(I64) | KILN_T(U32) | KILN_T(U64);
    for (int32_t i = 0; i < n->n_in; i++) {
        if (kiln_rank(n->in[i]) < 0) {
            return false;
        }
    }
    return (dtypes >> n->in[0]->type.dtype & 1) != 0;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    kiln_value *y;
    kiln_einsum e;
    if (!kiln_is_op(n, "Einsum") || !fits(n)) {
        return KILN_OK;
    }
    const kiln_einsum_attrs *a = n->attrs;
    kiln_einsum_term *terms = kiln_patch_scratch(p, n->n_in, sizeof *terms);
    int32_t *ranks = kiln_patch_scratch(p, n->n_in, sizeof *ranks);
    if (!terms || !ranks) {
        return KILN_OK;
    }
    for (int32_t i = 0; i < n->n_in; i++) {
        ranks[i] = kiln_rank(n->in[i]);
    }
    if (kiln_einsum_parse(&e, a->equation, terms, ranks, n->n_in) || !take_apart(p, &e, n, &y)) {
        kiln_patch_drop(p);
        return KILN_OK;
    }
    if (y == n->in[0] && !kiln_patch_may_replace(p, n->out[0], y)) {
        y = kiln_patch_node(p, "Identity", &y, 1);
    }
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, "sums, transposes and products");
}

const kiln_pass kiln_pass_einsum = {.name = "einsum", .visit = visit};
