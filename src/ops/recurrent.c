/* recurrent.c - LSTM, GRU and RNN.
 *
 * Legend: T steps, B batch, I input size, H hidden size, D directions, G gates. X [T, B, I] or,
 * with layout 1, [B, T, I]; W [D, G*H, I]; R [D, G*H, H]; bias [D, 2*G*H]; Y [T, D, B, H] or [B, T,
 * D, H]. A sequence shorter than T ends early: its Y is zero from there on, and its reverse
 * direction begins at its own last step. */
#include <math.h>
#include <string.h>

#include "ops/bulk.h"
#include "ops/expect.h"
#include "ops/matmul_core.h"
#include "ops/recurrent.h"

static const char *const directions[] = {"forward", "reverse", "bidirectional", NULL};

#define COMMON_ROWS                                                                         \
    KILN_A_FLOATS(kiln_rnn_attrs, activation_alpha),                                        \
        KILN_A_FLOATS(kiln_rnn_attrs, activation_beta),                                     \
        KILN_A_STRINGS(kiln_rnn_attrs, activations), KILN_A_FLOAT(kiln_rnn_attrs, clip, 0), \
        KILN_A_ENUM(kiln_rnn_attrs, direction, directions, 0),                              \
        KILN_A_INT(kiln_rnn_attrs, hidden_size, KILN_ABSENT),                               \
        KILN_A_INT(kiln_rnn_attrs, layout, 0)

static const kiln_attr rnn_table[] = {COMMON_ROWS};
static const kiln_attr gru_table[] = {COMMON_ROWS,
                                      KILN_A_INT(kiln_rnn_attrs, linear_before_reset, 0)};
static const kiln_attr lstm_table[] = {COMMON_ROWS, KILN_A_INT(kiln_rnn_attrs, input_forget, 0)};

/* ---- Inference ---- */

typedef struct sizes {
    kiln_dim steps, batch, input, hidden;
    int64_t dirs;
} sizes;

static kiln_status read_sizes(const kiln_infer *c, sizes *s) {
    const kiln_rnn_attrs *a = c->attrs;
    if (a->layout != 0 && a->layout != 1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "layout is %lld, not 0 or 1", (long long)a->layout);
    }
    if (!(a->clip >= 0)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "clip is %g", (double)a->clip);
    }
    KILN_TRY(kiln_infer_rank(c, KILN_RNN_X, 3, 3));
    KILN_TRY(kiln_infer_rank(c, KILN_RNN_R, 3, 3));
    s->dirs = a->direction == 2 ? 2 : 1;
    s->steps = kiln_infer_dim(c, KILN_RNN_X, a->layout ? 1 : 0);
    s->batch = kiln_infer_dim(c, KILN_RNN_X, a->layout ? 0 : 1);
    s->input = kiln_infer_dim(c, KILN_RNN_X, 2);
    s->hidden = kiln_infer_dim(c, KILN_RNN_R, 2);
    if (a->hidden_size != KILN_ABSENT) {
        if (a->hidden_size < 1 || kiln_dim_differ(a->hidden_size, s->hidden)) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "hidden_size is %lld, R has %lld columns",
                                   (long long)a->hidden_size, (long long)s->hidden);
        }
        s->hidden = a->hidden_size;
    }
    return KILN_OK;
}

static kiln_status check_inputs(const kiln_infer *c, kiln_cell cell, const sizes *s) {
    const kiln_rnn_attrs *a = c->attrs;
    kiln_dim rows = kiln_dim_mul(c->dims, s->hidden, kiln_cell_gates(cell));
    kiln_dim w[] = {s->dirs, rows, s->input}, r[] = {s->dirs, rows, s->hidden};
    kiln_dim b[] = {s->dirs, kiln_dim_mul(c->dims, rows, 2)}, lens[] = {s->batch};
    kiln_dim h[] = {a->layout ? s->batch : s->dirs, a->layout ? s->dirs : s->batch, s->hidden};
    kiln_dim p[] = {s->dirs, kiln_dim_mul(c->dims, s->hidden, 3)};
    KILN_TRY(kiln_expect_shape(c, KILN_RNN_W, "W", 3, w));
    KILN_TRY(kiln_expect_shape(c, KILN_RNN_R, "R", 3, r));
    KILN_TRY(kiln_expect_shape(c, KILN_RNN_B, "B", 2, b));
    KILN_TRY(kiln_expect_shape(c, KILN_RNN_LENS, "sequence_lens", 1, lens));
    KILN_TRY(kiln_expect_shape(c, KILN_RNN_H0, "initial_h", 3, h));
    KILN_TRY(kiln_expect_shape(c, KILN_RNN_C0, "initial_c", 3, h));
    KILN_TRY(kiln_expect_shape(c, KILN_RNN_P, "P", 2, p));
    KILN_TRY(kiln_infer_dtype(c, KILN_RNN_X, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, KILN_RNN_LENS, KILN_T(I32)));
    for (int32_t i = KILN_RNN_W; i <= KILN_RNN_P; i++) {
        if (i != KILN_RNN_LENS) {
            KILN_TRY(kiln_infer_same_dtype(c, KILN_RNN_X, i));
        }
    }
    return KILN_OK;
}

static kiln_status infer_cell(kiln_infer *c, kiln_cell cell) {
    const kiln_rnn_attrs *a = c->attrs;
    kiln_cell_activation act[6];
    sizes s = {0};
    KILN_TRY(read_sizes(c, &s));
    KILN_TRY(check_inputs(c, cell, &s));
    KILN_TRY(kiln_cell_activations(cell, a, c->diag, act));
    kiln_dtype dtype = c->in[KILN_RNN_X].type.dtype;
    kiln_dim y[2][4] = {{s.steps, s.dirs, s.batch, s.hidden}, {s.batch, s.steps, s.dirs, s.hidden}};
    kiln_dim h[2][3] = {{s.dirs, s.batch, s.hidden}, {s.batch, s.dirs, s.hidden}};
    KILN_TRY(kiln_infer_output(c, 0, dtype, 4, y[a->layout]));
    for (int32_t i = 1; i < c->n_out; i++) {
        KILN_TRY(kiln_infer_output(c, i, dtype, 3, h[a->layout]));
    }
    return KILN_OK;
}

/* ---- Reference ---- */

typedef struct layer {
    kiln_cell cell;
    const kiln_rnn_attrs *a;
    int64_t steps, batch, input, hidden, dirs, width; /* width = gates * hidden */
    kiln_cell_activation act[6];
    /* One direction: */
    const kiln_cell_activation *f;
    double *xw;       /* [rows of X, width] X W^T + bias */
    double *rt;       /* [hidden, width] R transposed */
    double *rb;       /* [hidden] R's bias of the h gate, linear_before_reset only */
    double *peephole; /* [3 * hidden], zero where there is none */
    /* One sequence: */
    double *h, *c, *gate, *work;
} layer;

/* Row number of (t, b) in X. */
static int64_t x_row(const layer *l, int64_t t, int64_t b) {
    return l->a->layout ? b * l->steps + t : t * l->batch + b;
}

/* First element of (t, direction, b) in Y. */
static int64_t y_at(const layer *l, int64_t t, int64_t dir, int64_t b) {
    int64_t row =
        l->a->layout ? (b * l->steps + t) * l->dirs + dir : (t * l->dirs + dir) * l->batch + b;
    return row * l->hidden;
}

/* First element of (direction, b) in initial and last states. */
static int64_t state_at(const layer *l, int64_t dir, int64_t b) {
    return (l->a->layout ? b * l->dirs + dir : dir * l->batch + b) * l->hidden;
}

static double clipped(const layer *l, double v) {
    double limit = l->a->clip;
    return limit == 0 ? v : v > limit ? limit : v < -limit ? -limit : v;
}

static double activate(const layer *l, int which, double v) {
    return kiln_cell_apply(&l->f[which], clipped(l, v));
}

/* dst[j] += sum over k of v[k] * R[first + j][k], j < count. */
static void add_recurrent(const layer *l, const double *v, int64_t first, int64_t count,
                          double *dst) {
    for (int64_t k = 0; k < l->hidden; k++) {
        const double *row = l->rt + k * l->width + first;
        double s = v[k];
        for (int64_t j = 0; j < count; j++) {
            dst[j] += s * row[j];
        }
    }
}

static void step_rnn(layer *l) {
    add_recurrent(l, l->h, 0, l->hidden, l->gate);
    for (int64_t j = 0; j < l->hidden; j++) {
        l->h[j] = activate(l, 0, l->gate[j]);
    }
}

static void step_gru(layer *l) {
    int64_t n = l->hidden;
    double *z = l->gate, *r = z + n, *g = r + n;
    add_recurrent(l, l->h, 0, 2 * n, z);
    for (int64_t j = 0; j < n; j++) {
        z[j] = activate(l, 0, z[j]);
        r[j] = activate(l, 0, r[j]);
    }
    if (l->a->linear_before_reset) {
        memcpy(l->work, l->rb, (size_t)n * sizeof *l->work);
        add_recurrent(l, l->h, 2 * n, n, l->work);
        for (int64_t j = 0; j < n; j++) {
            g[j] += r[j] * l->work[j];
        }
    } else {
        for (int64_t j = 0; j < n; j++) {
            l->work[j] = r[j] * l->h[j];
        }
        add_recurrent(l, l->work, 2 * n, n, g);
    }
    for (int64_t j = 0; j < n; j++) {
        l->h[j] = (1 - z[j]) * activate(l, 1, g[j]) + z[j] * l->h[j];
    }
}

static void step_lstm(layer *l) {
    int64_t n = l->hidden;
    const double *i = l->gate, *o = i + n, *f = o + n, *g = f + n, *p = l->peephole;
    add_recurrent(l, l->h, 0, 4 * n, l->gate);
    for (int64_t j = 0; j < n; j++) {
        double c = l->c[j], in = activate(l, 0, i[j] + p[j] * c);
        double keep = l->a->input_forget ? 1 - in : activate(l, 0, f[j] + p[2 * n + j] * c);
        c = keep * c + in * activate(l, 1, g[j]);
        l->c[j] = c;
        l->h[j] = activate(l, 0, o[j] + p[n + j] * c) * kiln_cell_apply(&l->f[2], c);
    }
}

/* Bias of gate row j in a direction's 2 * width biases; the part of R that comes later
 * is left out. */
static double bias_of(const layer *l, const double *b, int64_t j) {
    bool later = l->cell == KILN_CELL_GRU && l->a->linear_before_reset && j >= 2 * l->hidden;
    return b[j] + (later ? 0 : b[l->width + j]);
}

static kiln_status load_direction(kiln_ref *c, layer *l, int64_t dir) {
    const kiln_tensor *x = kiln_ref_in(c, KILN_RNN_X), *w = kiln_ref_in(c, KILN_RNN_W);
    const kiln_tensor *r = kiln_ref_in(c, KILN_RNN_R), *bias = kiln_ref_in(c, KILN_RNN_B);
    const kiln_tensor *p = kiln_ref_in(c, KILN_RNN_P);
    int64_t width = l->width, n = l->hidden, rows = l->steps * l->batch;
    kiln_product product = {.a = x,
                            .b = w,
                            .m = rows,
                            .k = l->input,
                            .n = width,
                            .a_row = l->input,
                            .a_col = 1,
                            .b_at = dir * width * l->input,
                            .b_row = 1,
                            .b_col = l->input};
    double *line;
    KILN_ALLOC(line, c->arena, 2 * width + n);
    memset(l->xw, 0, (size_t)(rows * width) * sizeof *l->xw);
    KILN_TRY(kiln_product_f64(c, &product, l->xw));
    if (bias) {
        kiln_load_f64(bias, dir * 2 * width, 2 * width, line);
        for (int64_t j = 0; j < width; j++) {
            double add = bias_of(l, line, j);
            for (int64_t i = 0; i < rows; i++) {
                l->xw[i * width + j] += add;
            }
        }
        memcpy(l->rb, line + 2 * width - n, (size_t)n * sizeof *l->rb);
    }
    for (int64_t j = 0; j < width; j++) {
        kiln_load_f64(r, (dir * width + j) * n, n, line);
        for (int64_t k = 0; k < n; k++) {
            l->rt[k * width + j] = line[k];
        }
    }
    if (p) {
        kiln_load_f64(p, dir * 3 * n, 3 * n, l->peephole);
    }
    l->f = l->act + dir * kiln_cell_act_count(l->cell);
    return KILN_OK;
}

static kiln_status sequence_length(const kiln_ref *c, const layer *l, int64_t b, int64_t *out) {
    const kiln_tensor *lens = kiln_ref_in(c, KILN_RNN_LENS);
    *out = lens ? ((const int32_t *)lens->data)[b] : l->steps;
    if (*out < 0 || *out > l->steps) {
        return kiln_fail(c->diag, KILN_F_VALUE, "sequence_lens[%lld] is %lld, X has %lld steps",
                         (long long)b, (long long)*out, (long long)l->steps);
    }
    return KILN_OK;
}

static kiln_status run_sequence(kiln_ref *c, layer *l, int64_t dir, int64_t b) {
    static void (*const step[])(layer *) = {
        [KILN_CELL_RNN] = step_rnn, [KILN_CELL_GRU] = step_gru, [KILN_CELL_LSTM] = step_lstm};
    const kiln_tensor *h0 = kiln_ref_in(c, KILN_RNN_H0), *c0 = kiln_ref_in(c, KILN_RNN_C0);
    kiln_tensor *y = kiln_ref_out(c, 0), *y_h = kiln_ref_out(c, 1), *y_c = kiln_ref_out(c, 2);
    bool back = l->a->direction == 1 || dir == 1;
    int64_t n = l->hidden, at = state_at(l, dir, b), len;
    KILN_TRY(sequence_length(c, l, b, &len));
    memset(l->h, 0, (size_t)n * sizeof *l->h);
    memset(l->c, 0, (size_t)n * sizeof *l->c);
    if (h0) {
        kiln_load_f64(h0, at, n, l->h);
    }
    if (c0) {
        kiln_load_f64(c0, at, n, l->c);
    }
    for (int64_t s = 0; s < len; s++) {
        int64_t t = back ? len - 1 - s : s;
        KILN_TRY(kiln_ref_poll(c));
        memcpy(l->gate, l->xw + x_row(l, t, b) * l->width, (size_t)l->width * sizeof *l->gate);
        step[l->cell](l);
        if (y) {
            kiln_store_f64(y, y_at(l, t, dir, b), n, l->h);
        }
    }
    if (y_h) {
        kiln_store_f64(y_h, at, n, l->h);
    }
    if (y_c) {
        kiln_store_f64(y_c, at, n, l->c);
    }
    return KILN_OK;
}

static kiln_status ref_cell(kiln_ref *c, kiln_cell cell) {
    const kiln_rnn_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, KILN_RNN_X), *r = kiln_ref_in(c, KILN_RNN_R);
    layer l = {.cell = cell, .a = a, .input = x->dims[2], .hidden = r->dims[2], .dirs = r->dims[0]};
    l.steps = x->dims[a->layout ? 1 : 0];
    l.batch = x->dims[a->layout ? 0 : 1];
    l.width = kiln_cell_gates(cell) * l.hidden;
    KILN_TRY(kiln_cell_activations(cell, a, c->diag, l.act));
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    kiln_tensor xw;
    const int64_t xw_dims[] = {l.steps, l.batch, l.width};
    KILN_TRY(kiln_ref_scratch(c, &xw, KILN_DTYPE_F64, 3, xw_dims));
    l.xw = xw.data;
    KILN_ALLOC(l.rt, c->arena, l.hidden * l.width);
    KILN_ALLOC(l.rb, c->arena, l.hidden);
    KILN_ALLOC(l.peephole, c->arena, 3 * l.hidden);
    KILN_ALLOC(l.h, c->arena, l.hidden);
    KILN_ALLOC(l.c, c->arena, l.hidden);
    KILN_ALLOC(l.gate, c->arena, l.width);
    KILN_ALLOC(l.work, c->arena, l.hidden);
    for (int64_t dir = 0; dir < l.dirs; dir++) {
        KILN_TRY(load_direction(c, &l, dir));
        for (int64_t b = 0; b < l.batch; b++) {
            KILN_TRY(run_sequence(c, &l, dir, b));
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

/* Rows of X times (W + R). */
static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    kiln_tensor x = {0}, w = {0}, r = {0};
    int64_t weights, rows;
    (void)node;
    (void)out;
    if (kiln_type_to_tensor(&in[KILN_RNN_X].type, &x) &&
        kiln_type_to_tensor(&in[KILN_RNN_W].type, &w) &&
        kiln_type_to_tensor(&in[KILN_RNN_R].type, &r) && x.rank == 3 &&
        kiln_mul_i64(x.dims[0], x.dims[1], &rows) &&
        kiln_add_i64(kiln_tensor_count(&w), kiln_tensor_count(&r), &weights) &&
        !kiln_mul_i64(rows, weights, &result->macs)) {
        result->macs = INT64_MAX;
    }
}

#define OPERATOR(id, onnx, which, table, inputs, outputs)               \
    static kiln_status infer_##id(kiln_infer *c) {                      \
        return infer_cell(c, which);                                    \
    }                                                                   \
    static kiln_status ref_##id(kiln_ref *c) {                          \
        return ref_cell(c, which);                                      \
    }                                                                   \
    const kiln_op kiln_op_##id = {.name = onnx,                         \
                                  .domain = "",                         \
                                  .since = 22,                          \
                                  .min_in = 3,                          \
                                  .max_in = inputs,                     \
                                  .min_out = 0,                         \
                                  .max_out = outputs,                   \
                                  KILN_OP_ATTRS(table, kiln_rnn_attrs), \
                                  .tolerance = KILN_TOL_REDUCE,         \
                                  .infer = infer_##id,                  \
                                  .ref = ref_##id,                      \
                                  .cost = cost};

OPERATOR(rnn, "RNN", KILN_CELL_RNN, rnn_table, 6, 2)
OPERATOR(gru, "GRU", KILN_CELL_GRU, gru_table, 6, 2)
OPERATOR(lstm, "LSTM", KILN_CELL_LSTM, lstm_table, 8, 3)
