/* lstm.c - LSTM cells from their pieces, and cells that follow one another.
 *
 *     c' = sigmoid(f) * c + sigmoid(i) * tanh(g),  h' = sigmoid(o) * tanh(c')
 *
 * with i, f, g, o linear in x and h (pass/cell.h) is LSTM of one step; ONNX has the gates in the
 * order i o f g. Cells of the same weights that pass their states on are LSTM of as many steps.
 */
#include "pass/cell.h"

enum { I, O, F, G, N_GATES };

typedef struct found {
    kiln_cell_match m;
    kiln_gate gate[N_GATES];
    kiln_value *x, *h, *c, *c_next;
} found;

/* A product f(a) * b: a and b. Both values serve nothing else where `b` is NULL on entry. */
static const kiln_node *factor(const kiln_node *mul, int side, const char *f) {
    return kiln_made_by_only(mul->in[side], f);
}

/* i * g: the two activations of mul. */
static bool read_pair(const kiln_node *mul, const kiln_node **sigmoid, const kiln_node **tanh_) {
    for (int side = 0; side < 2; side++) {
        *sigmoid = factor(mul, side, "Sigmoid");
        *tanh_ = factor(mul, 1 - side, "Tanh");
        if (*sigmoid && *tanh_) {
            return true;
        }
    }
    return false;
}

static bool read_gates(found *f, const kiln_node *const *activations) {
    for (int k = 0; k < N_GATES; k++) {
        if (!kiln_gate_read(&f->m, activations[k]->in[0], &f->gate[k]) || f->gate[k].mul ||
            f->gate[k].n_products != 2 || !kiln_cell_touch(&f->m, activations[k])) {
            return false;
        }
    }
    return true;
}

/* Where a value was cut out of. */
static const kiln_value *source(const kiln_value *v) {
    static const char *const cuts[] = {"Split",   "Slice",   "Gather",   "Reshape",
                                       "Squeeze", "Flatten", "Unsqueeze"};
    for (int depth = 0; depth < 8 && !v->constant && v->producer; depth++) {
        bool cut = false;
        for (size_t i = 0; i < KILN_COUNT_OF(cuts); i++) {
            cut = cut || kiln_is_op(v->producer, cuts[i]);
        }
        if (!cut) {
            break;
        }
        v = v->producer->in[0];
    }
    return v;
}

/* How much v looks like the state that belongs to c. Input and state are alike to the arithmetic
 * of one cell; that the state is told right lets cells join. */
static int likeness(const kiln_value *v, const kiln_value *c) {
    const kiln_node *mul = kiln_made_by(v, "Mul");
    for (int side = 0; mul && side < 2; side++) {
        const kiln_node *squash = kiln_made_by(mul->in[side], "Tanh");
        if (squash && squash->in[0] == c) {
            return 3;
        }
    }
    const kiln_value *from = source(v);
    return from == source(c) ? 2 : !from->producer ? 1 : 0;
}

static bool read_operands(found *f) {
    const kiln_gate *g = &f->gate[0];
    int best = -1;
    for (int k = 0; k < 2; k++) {
        const kiln_gate_product *state = &g->product[k];
        int like = likeness(state->x, f->c);
        if (state->n == f->m.hidden && like > best && kiln_same_type(state->x, f->c)) {
            best = like;
            f->h = state->x;
            f->x = g->product[1 - k].x;
        }
    }
    for (int k = 0; best >= 0 && k < N_GATES; k++) {
        if (!kiln_gate_with(&f->gate[k], f->x) || !kiln_gate_with(&f->gate[k], f->h)) {
            return false;
        }
    }
    return best >= 0 && f->x != f->h && kiln_dim_at(f->x, 0) == kiln_dim_at(f->h, 0);
}

/* n = sigmoid(o) * tanh(c'), c' = first + second, first = sigmoid(f) * c at `side`. */
static bool read_cell(found *f, const kiln_node *n, const kiln_node *o, const kiln_node *squash,
                      int order, int side) {
    const kiln_node *sum = kiln_made_by(squash->in[0], "Add");
    const kiln_node *keep = sum ? kiln_made_by_only(sum->in[order], "Mul") : NULL;
    const kiln_node *take = sum ? kiln_made_by_only(sum->in[1 - order], "Mul") : NULL;
    const kiln_node *act[N_GATES] = {[O] = o};
    if (!keep || !take || !read_pair(take, &act[I], &act[G])) {
        return false;
    }
    act[F] = factor(keep, side, "Sigmoid");
    f->c = keep->in[1 - side];
    f->c_next = sum->out[0];
    if (!act[F] || !kiln_same_type(f->c, f->c_next) || !kiln_same_type(n->out[0], f->c_next)) {
        return false;
    }
    const kiln_node *const inner[] = {n, squash, sum, keep, take};
    for (size_t i = 0; i < KILN_COUNT_OF(inner); i++) {
        if (!kiln_cell_touch(&f->m, inner[i])) {
            return false;
        }
    }
    return read_gates(f, act) && read_operands(f);
}

static kiln_status make(kiln_patch *p, const kiln_node *n, const found *f) {
    const kiln_gate_product *w[N_GATES], *r[N_GATES];
    const kiln_gate *with_input[N_GATES], *with_state[N_GATES] = {NULL};
    bool none;
    for (int k = 0; k < N_GATES; k++) {
        w[k] = kiln_gate_with(&f->gate[k], f->x);
        r[k] = kiln_gate_with(&f->gate[k], f->h);
        with_input[k] = &f->gate[k];
    }
    for (int i = 0; i < f->m.n_touched; i++) {
        kiln_patch_touch(p, f->m.touched[i]);
    }
    kiln_dtype dtype = f->c->type.dtype;
    kiln_value *bias = kiln_cell_bias(p, &f->m, dtype, with_input, with_state, N_GATES, &none);
    if (!none && !bias) {
        return KILN_OK;
    }
    kiln_value *in[] = {kiln_cell_axis(p, "Unsqueeze", f->x),
                        kiln_cell_weight(p, &f->m, w, N_GATES),
                        kiln_cell_weight(p, &f->m, r, N_GATES),
                        bias,
                        NULL,
                        kiln_cell_axis(p, "Unsqueeze", f->h),
                        kiln_cell_axis(p, "Unsqueeze", f->c)};
    kiln_node *lstm = kiln_patch_node_outs(p, "LSTM", in, KILN_COUNT_OF(in), 3);
    if (!lstm || !in[1] || !in[2]) {
        return KILN_OK;
    }
    kiln_patch_int(p, lstm->out[0], "hidden_size", f->m.hidden);
    kiln_patch_replace(p, n->out[0], kiln_cell_axis(p, "Squeeze", lstm->out[1]));
    kiln_patch_replace(p, f->c_next, kiln_cell_axis(p, "Squeeze", lstm->out[2]));
    return kiln_patch_commit(p, "LSTM cell");
}

static kiln_status from_pieces(kiln_patch *p, const kiln_node *n) {
    const kiln_node *o, *squash;
    if (!kiln_is_float(n->out[0]) || kiln_rank(n->out[0]) != 2 || !read_pair(n, &o, &squash)) {
        return KILN_OK;
    }
    for (int way = 0; way < 4; way++) {
        found f = {.m = {.hidden = kiln_dim_at(n->out[0], 1)}};
        if (f.m.hidden > 0 && read_cell(&f, n, o, squash, way & 1, way >> 1)) {
            return make(p, n, &f);
        }
    }
    return KILN_OK;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    if (!kiln_patch_can(p, "LSTM")) {
        return KILN_OK;
    }
    if (kiln_is_op(n, "LSTM")) {
        return kiln_cell_chain(p, n, true);
    }
    return kiln_is_op(n, "Mul") ? from_pieces(p, n) : KILN_OK;
}

const kiln_pass kiln_pass_lstm = {.name = "lstm", .visit = visit};
