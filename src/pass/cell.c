#include "pass/cell.h"

#include <string.h>

enum { MAX_DEPTH = 16 };

bool kiln_cell_touch(kiln_cell_match *m, const kiln_node *n) {
    for (int i = 0; i < m->n_touched; i++) {
        if (m->touched[i] == n) {
            return true;
        }
    }
    if (m->n_touched == KILN_CELL_TOUCHED) {
        return false;
    }
    m->touched[m->n_touched++] = n;
    return true;
}

/* ---- Reading ---- */

/* v [batch, any], columns [at, at + hidden) of which belong to the gate. */
typedef struct columns {
    kiln_value *v;
    int64_t at;
} columns;

static bool read_sum(kiln_cell_match *m, columns c, int depth, kiln_gate *gate);

static bool add_product(kiln_gate *gate, const kiln_gate_product *product) {
    if (gate->n_products == KILN_GATE_PRODUCTS) {
        return false;
    }
    gate->product[gate->n_products++] = *product;
    return true;
}

/* The operand, or each of those it was joined from along its columns. */
static bool add_operand(kiln_cell_match *m, kiln_gate *gate, kiln_gate_product product) {
    const kiln_node *join = kiln_made_by(product.x, "Concat");
    int64_t axis = join ? kiln_node_int(join, "axis", 0) : 0;
    if (!join || (axis != 1 && axis != -1)) {
        product.n = kiln_dim_at(product.x, 1);
        return product.n > 0 && add_product(gate, &product);
    }
    for (int32_t i = 0; i < join->n_in; i++) {
        product.x = join->in[i];
        product.n = kiln_dim_at(product.x, 1);
        if (product.n < 1 || !add_product(gate, &product)) {
            return false;
        }
        product.row += product.n;
    }
    return kiln_cell_touch(m, join);
}

static bool add_matrix(kiln_cell_match *m, kiln_gate *gate, const kiln_node *n, bool transposed,
                       int64_t at) {
    kiln_value *w = n->in[1];
    if (!kiln_value_is_const(w) || kiln_rank(w) != 2 || !kiln_type_is_static(&w->type) ||
        kiln_rank(n->in[0]) != 2 || kiln_value_is_const(n->in[0])) {
        return false;
    }
    kiln_gate_product product = {
        .x = n->in[0], .weight = w, .transposed = transposed, .row = 0, .col = at};
    return kiln_cell_touch(m, n) && add_operand(m, gate, product);
}

/* A constant that repeats over the batch. */
static bool add_bias(const kiln_cell_match *m, kiln_gate *gate, kiln_value *v, int64_t at) {
    int32_t rank = kiln_rank(v);
    int64_t n = rank > 0 ? kiln_dim_at(v, -1) : 1;
    if (!kiln_value_is_const(v) || rank > 2 || (rank == 2 && kiln_dim_at(v, 0) != 1) ||
        (n != 1 && n < at + m->hidden) || gate->n_biases == KILN_GATE_BIASES) {
        return false;
    }
    gate->bias[gate->n_biases++] = (kiln_gate_bias){v, n == 1 ? 0 : at};
    return true;
}

static bool read_gemm(kiln_cell_match *m, const kiln_node *n, int64_t at, kiln_gate *gate) {
    kiln_value *c = kiln_node_in(n, 2);
    bool transposed = kiln_node_int(n, "transB", 0) != 0;
    if (kiln_node_int(n, "transA", 0) != 0 || kiln_node_float(n, "alpha", 1) != 1.0f ||
        (c && (kiln_node_float(n, "beta", 1) != 1.0f || !add_bias(m, gate, c, at)))) {
        return false;
    }
    return add_matrix(m, gate, n, transposed, at);
}

/* Each operand is a bias, or has the sum's shape. */
static bool read_add(kiln_cell_match *m, const kiln_node *n, columns c, int depth,
                     kiln_gate *gate) {
    for (int32_t k = 0; k < 2; k++) {
        kiln_value *term = n->in[k];
        bool whole = kiln_same_type(term, c.v) && !kiln_value_is_const(term);
        if (whole ? !read_sum(m, (columns){term, c.at}, depth + 1, gate)
                  : !add_bias(m, gate, term, c.at)) {
            return false;
        }
    }
    return kiln_cell_touch(m, n);
}

static bool read_split(kiln_cell_match *m, const kiln_node *n, columns c, int depth,
                       kiln_gate *gate) {
    int64_t axis = kiln_node_int(n, "axis", 0);
    if (axis != 1 && axis != -1) {
        return false;
    }
    for (int32_t i = 0; i < c.v->producer_out; i++) {
        kiln_dim before = kiln_dim_at(n->out[i], 1);
        if (before < 0) {
            return false;
        }
        c.at += before;
    }
    return kiln_cell_touch(m, n) && read_sum(m, (columns){n->in[0], c.at}, depth + 1, gate);
}

static bool read_slice(kiln_cell_match *m, const kiln_node *n, columns c, int depth,
                       kiln_gate *gate) {
    int64_t start, axis = 0, step = 1, width = kiln_dim_at(n->in[0], 1);
    bool known = kiln_known_ints(n->in[1], &start, 1) == 1 &&
                 (!kiln_node_in(n, 3) || kiln_known_ints(n->in[3], &axis, 1) == 1) &&
                 (!kiln_node_in(n, 4) || kiln_known_ints(n->in[4], &step, 1) == 1);
    if (!known || (axis != 1 && axis != -1) || step != 1 || width < 1) {
        return false;
    }
    start = start < 0 ? start + width : start;
    if (start < 0 || start > width) {
        return false;
    }
    return kiln_cell_touch(m, n) && read_sum(m, (columns){n->in[0], c.at + start}, depth + 1, gate);
}

static bool read_sum(kiln_cell_match *m, columns c, int depth, kiln_gate *gate) {
    const kiln_node *n = c.v->constant ? NULL : c.v->producer;
    if (depth == MAX_DEPTH || !n || kiln_rank(c.v) != 2 || c.v->n_outputs > 0) {
        return false;
    }
    if (kiln_is_op(n, "Add")) {
        return read_add(m, n, c, depth, gate);
    }
    if (kiln_is_op(n, "Split")) {
        return read_split(m, n, c, depth, gate);
    }
    if (kiln_is_op(n, "Slice")) {
        return read_slice(m, n, c, depth, gate);
    }
    if (kiln_is_op(n, "Gemm")) {
        return read_gemm(m, n, c.at, gate);
    }
    if (kiln_is_op(n, "MatMul")) {
        return add_matrix(m, gate, n, false, c.at);
    }
    bool first = kiln_is_op(n, "Mul") && !gate->mul && c.at == 0 && kiln_used_once(c.v);
    gate->mul = first ? n : gate->mul;
    return first && kiln_dim_at(c.v, 1) == m->hidden;
}

bool kiln_gate_read(kiln_cell_match *m, kiln_value *v, kiln_gate *gate) {
    *gate = (kiln_gate){.n_products = 0};
    return kiln_dim_at(v, 1) == m->hidden && read_sum(m, (columns){v, 0}, 0, gate);
}

const kiln_gate_product *kiln_gate_with(const kiln_gate *gate, const kiln_value *x) {
    for (int i = 0; i < gate->n_products; i++) {
        if (gate->product[i].x == x) {
            return &gate->product[i];
        }
    }
    return NULL;
}

/* ---- Making ---- */

/* The product's block of its matrix as [hidden, n]. */
static kiln_value *block(kiln_patch *p, const kiln_cell_match *m, const kiln_gate_product *part) {
    int64_t rows = part->n, cols = m->hidden, axes[2] = {0, 1};
    int64_t first[2] = {part->row, part->col}, end[2] = {part->row + rows, part->col + cols};
    kiln_tensor t = {.dtype = part->weight->type.dtype, .rank = 2, .dims = {rows, cols}};
    kiln_tensor out = {.dtype = t.dtype, .rank = 2, .dims = {cols, rows}};
    if (part->transposed) {
        axes[0] = 1;
        axes[1] = 0;
        t = out;
    }
    kiln_value *in[] = {part->weight, kiln_patch_vector(p, first, 2), kiln_patch_vector(p, end, 2),
                        kiln_patch_vector(p, axes, 2)};
    kiln_value *v = kiln_patch_expr(p, "Slice", in, 4, &t);
    return part->transposed ? v : kiln_patch_expr(p, "Transpose", &v, 1, &out);
}

kiln_value *kiln_cell_weight(kiln_patch *p, const kiln_cell_match *m,
                             const kiln_gate_product *const *parts, int n) {
    kiln_value *blocks[4];
    int64_t target[3] = {1, n * m->hidden, parts[0]->n};
    kiln_tensor joined = {
        .dtype = parts[0]->weight->type.dtype, .rank = 2, .dims = {target[1], target[2]}};
    kiln_tensor out = {.dtype = joined.dtype, .rank = 3, .dims = {1, target[1], target[2]}};
    for (int i = 0; i < n; i++) {
        blocks[i] = block(p, m, parts[i]);
    }
    kiln_value *v = kiln_patch_expr(p, "Concat", blocks, n, &joined);
    kiln_patch_int(p, v, "axis", 0);
    kiln_value *in[] = {v, kiln_patch_vector(p, target, 3)};
    return kiln_fold_settle(p, kiln_patch_expr(p, "Reshape", in, 2, &out));
}

static bool add_biases(kiln_patch *p, const kiln_gate *gate, int64_t hidden, double *sum) {
    for (int i = 0; gate && i < gate->n_biases; i++) {
        int64_t n;
        const double *e = kiln_fold_doubles(p, gate->bias[i].v, &n);
        if (!e) {
            return false;
        }
        for (int64_t j = 0; j < hidden; j++) {
            sum[j] += n == 1 ? e[0] : e[gate->bias[i].at + j];
        }
    }
    return true;
}

kiln_value *kiln_cell_bias(kiln_patch *p, const kiln_cell_match *m, kiln_dtype dtype,
                           const kiln_gate *const *input, const kiln_gate *const *state, int n,
                           bool *none) {
    int64_t width = n * m->hidden, dims[] = {1, 2 * width};
    *none = true;
    for (int i = 0; i < n; i++) {
        *none = *none && input[i]->n_biases == 0 && (!state[i] || state[i]->n_biases == 0);
    }
    double *sum = *none ? NULL : kiln_patch_scratch(p, 2 * width, sizeof *sum);
    for (int i = 0; sum && i < n; i++) {
        if (!add_biases(p, input[i], m->hidden, sum + i * m->hidden) ||
            !add_biases(p, state[i], m->hidden, sum + width + i * m->hidden)) {
            return NULL;
        }
    }
    return sum ? kiln_fold_vector(p, dtype, sum, 2, dims) : NULL;
}

kiln_value *kiln_cell_axis(kiln_patch *p, const char *op, kiln_value *v) {
    const int64_t zero = 0;
    kiln_value *in[] = {v, kiln_patch_vector(p, &zero, 1)};
    return kiln_patch_node(p, op, in, 2);
}

/* ---- Chains ---- */

enum { X, W, R, B, LENS, H0, C0, P };
enum { MAX_CHAIN = 512, MAX_WALK = 4096 };

typedef struct chain {
    const kiln_node **nodes; /* last first */
    int n;
    bool has_c;
} chain;

static bool is_plain(const kiln_node *n) {
    return n->n_out >= 2 && !kiln_node_in(n, LENS) && !kiln_node_in(n, P) && n->n_in > H0 &&
           kiln_node_int(n, "direction", 0) == 0 && kiln_node_int(n, "layout", 0) == 0 &&
           kiln_dim_at(n->in[X], 0) > 0;
}

/* b goes on where a ended. */
static bool follows(const kiln_node *a, const kiln_node *b, bool has_c) {
    return a->op == b->op && is_plain(a) && is_plain(b) && kiln_same_attrs(a, b) &&
           b->in[H0] == a->out[1] &&
           (!has_c ||
            (a->n_out > 2 && kiln_node_in(b, C0) == a->out[2] && kiln_used_once(a->out[2]))) &&
           kiln_fold_same(a->in[W], b->in[W]) && kiln_fold_same(a->in[R], b->in[R]) &&
           kiln_fold_same(kiln_node_in(a, B), kiln_node_in(b, B));
}

static const kiln_node *successor(const kiln_node *n, bool has_c) {
    for (int32_t i = 0; n->n_out > 1 && i < n->out[1]->n_users; i++) {
        const kiln_node *user = n->out[1]->users[i];
        if (user->op == n->op && user != n && follows(n, user, has_c)) {
            return user;
        }
    }
    return NULL;
}

/* Whether v is computed from a node of the chain but the last; also when that takes too long to
 * find out. */
static bool depends(kiln_patch *p, const kiln_value *v, const chain *c) {
    const kiln_node **todo = kiln_patch_scratch(p, MAX_WALK, sizeof *todo);
    int n = 0, seen = 0;
    const kiln_node *first = c->nodes[c->n - 1];
    if (!todo) {
        return true;
    }
    if (v->producer) {
        todo[n++] = v->producer;
    }
    while (seen < n) {
        const kiln_node *at = todo[seen++];
        if (at->id < first->id) {
            continue;
        }
        if (at->op == first->op || at->n_bodies > 0) {
            for (int i = 1; i < c->n; i++) {
                if (c->nodes[i] == at) {
                    return true;
                }
            }
        }
        if (at->n_bodies > 0) {
            return true;
        }
        for (int32_t k = 0; k < at->n_in; k++) {
            const kiln_node *from = at->in[k] ? at->in[k]->producer : NULL;
            if (from && at->in[k]->home == v->home) {
                if (n == MAX_WALK) {
                    return true;
                }
                todo[n++] = from;
            }
        }
    }
    return false;
}

/* Steps [from, to) of y. */
static kiln_value *steps(kiln_patch *p, kiln_value *y, int64_t from, int64_t to) {
    const int64_t axis = 0;
    kiln_value *in[] = {y, kiln_patch_vector(p, &from, 1), kiln_patch_vector(p, &to, 1),
                        kiln_patch_vector(p, &axis, 1)};
    return kiln_patch_node(p, "Slice", in, 4);
}

static bool is_used(const kiln_value *v) {
    return v->n_users > 0 || v->n_outputs > 0;
}

static kiln_status join(kiln_patch *p, const chain *c) {
    const kiln_node *first = c->nodes[c->n - 1], *last = c->nodes[0];
    kiln_value **xs = kiln_patch_scratch(p, c->n, sizeof *xs);
    for (int i = 0; xs && i < c->n; i++) {
        xs[i] = c->nodes[c->n - 1 - i]->in[X];
        kiln_patch_touch(p, c->nodes[i]);
    }
    kiln_value *x = xs ? kiln_patch_node(p, "Concat", xs, c->n) : NULL;
    kiln_patch_int(p, x, "axis", 0);
    kiln_value *in[] = {x,    first->in[W],  first->in[R],           kiln_node_in(first, B),
                        NULL, first->in[H0], kiln_node_in(first, C0)};
    kiln_node *node = kiln_patch_like(p, last, in, c->has_c ? C0 + 1 : H0 + 1, c->has_c ? 3 : 2);
    int64_t t = 0;
    for (int i = c->n - 1; node && i >= 0; i--) {
        const kiln_node *one = c->nodes[i];
        int64_t n = kiln_dim_at(one->in[X], 0);
        if (is_used(one->out[0])) {
            kiln_patch_replace(p, one->out[0], steps(p, node->out[0], t, t + n));
        }
        t += n;
        if (i > 0 && is_used(one->out[1])) {
            kiln_value *h = steps(p, node->out[0], t - 1, t);
            kiln_patch_replace(p, one->out[1], kiln_cell_axis(p, "Squeeze", h));
        }
    }
    for (int32_t k = 1; node && k < node->n_out; k++) {
        if (is_used(last->out[k])) {
            kiln_patch_replace(p, last->out[k], node->out[k]);
        }
    }
    return kiln_patch_commit(p, "steps of one sequence");
}

kiln_status kiln_cell_chain(kiln_patch *p, const kiln_node *n, bool has_cell_state) {
    /* One chain a sweep: two that feed each other could each be joined, but not both. */
    if (p->n_rewrites > 0 || !is_plain(n) || successor(n, has_cell_state)) {
        return KILN_OK;
    }
    chain c = {.nodes = kiln_patch_scratch(p, MAX_CHAIN, sizeof *c.nodes), .has_c = has_cell_state};
    const kiln_node *at = n;
    while (c.nodes && at && c.n < MAX_CHAIN) {
        c.nodes[c.n++] = at;
        const kiln_node *before = at->in[H0] ? at->in[H0]->producer : NULL;
        at = before && follows(before, at, has_cell_state) ? before : NULL;
    }
    for (int i = 0; i < c.n; i++) {
        if (depends(p, c.nodes[i]->in[X], &c)) {
            return KILN_OK;
        }
    }
    return c.n > 1 ? join(p, &c) : KILN_OK;
}
