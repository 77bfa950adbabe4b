/* gru.c - GRU cells from their pieces, and cells that follow one another.
 *
 *     h' = (1 - z) * n + z * h,   z = sigmoid(..), r = sigmoid(..),
 *     n = tanh(a + r * b)         a linear in x, b in h     (linear_before_reset)
 *     n = tanh(a + (r * h) R)                               (the other)
 *
 * written so, as n + z * (h - n), or as n - z * (n - h), is GRU of one step; ONNX has the gates in
 * the order z r h. Cells of the same weights that pass their state on are GRU of as many steps.
 */
#include "pass/cell.h"

enum { Z, R, N, N_GATES };

typedef struct found {
    kiln_cell_match m;
    kiln_gate gate[N_GATES];
    kiln_gate inner; /* what r scales: linear_before_reset */
    bool before_reset;
    kiln_value *x, *h, *n;
    const kiln_node *z;          /* the Sigmoid */
    kiln_gate_product r_product; /* of the h gate with the state */
} found;

/* v = Sigmoid * other: the Sigmoid, which serves nothing else, and the other. */
static const kiln_node *gated(const kiln_node *mul, int side, kiln_value **other) {
    *other = mul->in[1 - side];
    return kiln_made_by(mul->in[side], "Sigmoid");
}

/* h' = base (+ or -) z * (a - b) */
static bool read_difference(found *f, const kiln_node *last) {
    bool minus = kiln_is_op(last, "Sub");
    for (int order = minus; order < 2; order++) {
        const kiln_node *mul = kiln_made_by_only(last->in[order], "Mul");
        kiln_value *n = last->in[1 - order];
        for (int side = 0; mul && side < 2; side++) {
            kiln_value *other;
            f->z = gated(mul, side, &other);
            const kiln_node *sub = f->z ? kiln_made_by_only(other, "Sub") : NULL;
            if (sub && sub->in[minus ? 0 : 1] == n) {
                f->n = n;
                f->h = sub->in[minus ? 1 : 0];
                return kiln_cell_touch(&f->m, mul) && kiln_cell_touch(&f->m, sub);
            }
        }
    }
    return false;
}

/* mul = (1 - z) * n */
static bool read_rest(found *f, const kiln_node *mul, const kiln_value *z) {
    for (int side = 0; side < 2; side++) {
        const kiln_node *sub = kiln_made_by_only(mul->in[side], "Sub");
        if (sub && sub->in[1] == z && kiln_scalar_is(sub->in[0], 1.0)) {
            f->n = mul->in[1 - side];
            return kiln_cell_touch(&f->m, sub);
        }
    }
    return false;
}

/* h' = (1 - z) * n + z * h */
static bool read_blend(found *f, const kiln_node *last) {
    for (int order = 0; order < 2 && kiln_is_op(last, "Add"); order++) {
        const kiln_node *keep = kiln_made_by_only(last->in[order], "Mul");
        const kiln_node *take = kiln_made_by_only(last->in[1 - order], "Mul");
        for (int side = 0; keep && take && side < 2; side++) {
            f->z = gated(keep, side, &f->h);
            if (f->z && read_rest(f, take, f->z->out[0])) {
                return kiln_cell_touch(&f->m, keep) && kiln_cell_touch(&f->m, take);
            }
        }
    }
    return false;
}

/* Both gates with the state are linear in x and h. */
static bool read_gate(found *f, const kiln_node *sigmoid, kiln_gate *gate) {
    if (!kiln_cell_touch(&f->m, sigmoid) || !kiln_gate_read(&f->m, sigmoid->in[0], gate) ||
        gate->mul || gate->n_products != 2 || !kiln_gate_with(gate, f->h)) {
        return false;
    }
    kiln_value *x = gate->product[gate->product[0].x == f->h].x;
    bool first = !f->x;
    f->x = first ? x : f->x;
    return x == f->x && x != f->h;
}

/* n = tanh(a + r * b): r and b. */
static bool read_before_reset(found *f, const kiln_node **r) {
    const kiln_node *mul = f->gate[N].mul;
    f->before_reset = true;
    for (int side = 0; side < 2; side++) {
        kiln_value *b;
        *r = gated(mul, side, &b);
        if (*r && kiln_gate_read(&f->m, b, &f->inner) && !f->inner.mul &&
            f->inner.n_products == 1 && f->inner.product[0].x == f->h) {
            f->r_product = f->inner.product[0];
            return kiln_cell_touch(&f->m, mul) && f->gate[N].n_products == 1;
        }
    }
    return false;
}

/* n = tanh(a + (r * h) R): r. */
static bool read_after_reset(found *f, const kiln_node **r) {
    const kiln_gate *g = &f->gate[N];
    for (int k = 0; k < 2 && g->n_products == 2; k++) {
        const kiln_node *mul = kiln_made_by_only(g->product[k].x, "Mul");
        for (int side = 0; mul && side < 2; side++) {
            kiln_value *h;
            *r = gated(mul, side, &h);
            if (*r && h == f->h) {
                f->r_product = g->product[k];
                return kiln_cell_touch(&f->m, mul);
            }
        }
    }
    return false;
}

static bool read_cell(found *f, const kiln_node *last) {
    const kiln_node *r, *squash = kiln_made_by(f->n, "Tanh");
    if (!squash || !kiln_same_type(f->h, last->out[0]) || !kiln_same_type(f->n, f->h) ||
        kiln_value_is_const(f->h) || !kiln_cell_touch(&f->m, last) ||
        !kiln_cell_touch(&f->m, squash) || !kiln_gate_read(&f->m, squash->in[0], &f->gate[N]) ||
        !(f->gate[N].mul ? read_before_reset(f, &r) : read_after_reset(f, &r)) ||
        !read_gate(f, f->z, &f->gate[Z]) || !read_gate(f, r, &f->gate[R])) {
        return false;
    }
    return kiln_gate_with(&f->gate[N], f->x) && kiln_dim_at(f->x, 0) == kiln_dim_at(f->h, 0) &&
           f->r_product.n == f->m.hidden;
}

static kiln_status make(kiln_patch *p, const kiln_node *n, const found *f) {
    const kiln_gate_product *w[N_GATES], *r[N_GATES];
    const kiln_gate *input[N_GATES], *state[N_GATES] = {[N] = f->before_reset ? &f->inner : NULL};
    bool none;
    for (int k = 0; k < N_GATES; k++) {
        w[k] = kiln_gate_with(&f->gate[k], f->x);
        r[k] = k == N ? &f->r_product : kiln_gate_with(&f->gate[k], f->h);
        input[k] = &f->gate[k];
    }
    for (int i = 0; i < f->m.n_touched; i++) {
        kiln_patch_touch(p, f->m.touched[i]);
    }
    kiln_value *bias = kiln_cell_bias(p, &f->m, f->h->type.dtype, input, state, N_GATES, &none);
    if (!none && !bias) {
        return KILN_OK;
    }
    kiln_value *in[] = {kiln_cell_axis(p, "Unsqueeze", f->x),
                        kiln_cell_weight(p, &f->m, w, N_GATES),
                        kiln_cell_weight(p, &f->m, r, N_GATES),
                        bias,
                        NULL,
                        kiln_cell_axis(p, "Unsqueeze", f->h)};
    kiln_node *gru = kiln_patch_node_outs(p, "GRU", in, KILN_COUNT_OF(in), 2);
    if (!gru || !in[1] || !in[2]) {
        return KILN_OK;
    }
    kiln_patch_int(p, gru->out[0], "hidden_size", f->m.hidden);
    kiln_patch_int(p, gru->out[0], "linear_before_reset", f->before_reset);
    kiln_patch_replace(p, n->out[0], kiln_cell_axis(p, "Squeeze", gru->out[1]));
    return kiln_patch_commit(p, "GRU cell");
}

static kiln_status from_pieces(kiln_patch *p, const kiln_node *n) {
    if (!kiln_is_float(n->out[0]) || kiln_rank(n->out[0]) != 2 || kiln_dim_at(n->out[0], 1) < 1) {
        return KILN_OK;
    }
    for (int way = 0; way < 2; way++) {
        found f = {.m = {.hidden = kiln_dim_at(n->out[0], 1)}};
        if ((way ? read_blend(&f, n) : read_difference(&f, n)) && read_cell(&f, n)) {
            return make(p, n, &f);
        }
    }
    return KILN_OK;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    if (!kiln_patch_can(p, "GRU")) {
        return KILN_OK;
    }
    if (kiln_is_op(n, "GRU")) {
        return kiln_cell_chain(p, n, false);
    }
    return kiln_is_op(n, "Add") || kiln_is_op(n, "Sub") ? from_pieces(p, n) : KILN_OK;
}

const kiln_pass kiln_pass_gru = {.name = "gru", .visit = visit};
