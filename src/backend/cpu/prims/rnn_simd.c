/* rnn_simd.c - one step of a recurrence.
 *
 * Per block of 16 hidden units: the products h R^T of all its gates for up to ROWS samples, R in
 * chunks of DEPTH rows that stay in the first-level cache while all samples use them; then the gate
 * arithmetic on whole vectors.
 */
#include "backend/cpu/prims/rnn.h"
#include "backend/cpu/prims/vecmath.h"

enum {
    LANES = KILN_RNN_LANES,
    NV = LANES / KILN_VLEN, /* vectors per gate */
    ROWS = 32,
    DEPTH = 64,
};

/* For `rows` samples (acc rows ACC apart, h rows h_ld apart) and `width` of the `vecs` vectors of
 * all gates: acc[v] += sum over k of h[k] r[k][v]. Each sum is PARTS sums over k mod PARTS, added
 * at the end of the chunk, whatever the tile: a sample's bits do not depend on its neighbours. */
enum { ACC = 4 * LANES };

KILN_INLINE kiln_vf load_weights(const void *r, int64_t i, bool bytes) {
    return bytes ? vf_from_vi(vi_load_s8((const int8_t *)r + i)) : vf_load((const float *)r + i);
}

KILN_INLINE void product_tile(float *acc, const float *h, int64_t h_ld, const void *r,
                              int64_t first, int64_t depth, int rows, int width, int vecs,
                              int parts, bool bytes) {
    kiln_vf s[24];
    KILN_UNROLL(24)
    for (int t = 0; t < rows * width * parts; t++) {
        const float *a = acc + t / (width * parts) * ACC + t % width * KILN_VLEN;
        s[t] = t / width % parts == 0 ? vf_load(a) : vf_zero();
    }
    int64_t k = 0;
    for (; k + parts <= depth; k += parts) {
        KILN_UNROLL(8)
        for (int p = 0; p < parts; p++) {
            kiln_vf w[8];
            KILN_UNROLL(8)
            for (int v = 0; v < width; v++) {
                w[v] = load_weights(r, first + ((k + p) * vecs + v) * KILN_VLEN, bytes);
            }
            KILN_UNROLL(3)
            for (int i = 0; i < rows; i++) {
                kiln_vf x = vf_set1(h[i * h_ld + k + p]);
                KILN_UNROLL(8)
                for (int v = 0; v < width; v++) {
                    int t = (i * parts + p) * width + v;
                    s[t] = vf_fma(x, w[v], s[t]);
                }
            }
        }
    }
    for (; k < depth; k++) {
        for (int i = 0; i < rows; i++) {
            kiln_vf x = vf_set1(h[i * h_ld + k]);
            for (int v = 0; v < width; v++) {
                int t = i * parts * width + v;
                kiln_vf w = load_weights(r, first + (k * vecs + v) * KILN_VLEN, bytes);
                s[t] = vf_fma(x, w, s[t]);
            }
        }
    }
    KILN_UNROLL(3)
    for (int i = 0; i < rows; i++) {
        KILN_UNROLL(8)
        for (int v = 0; v < width; v++) {
            kiln_vf sum = s[i * parts * width + v];
            KILN_UNROLL(8)
            for (int p = 1; p < parts; p++) {
                sum = vf_add(sum, s[(i * parts + p) * width + v]);
            }
            vf_store(acc + i * ACC + v * KILN_VLEN, sum);
        }
    }
}

/* All gates of a group for `rows` samples: three at a time while R's vectors are in registers, the
 * rest alone. parts: enough independent sums to hide the latency of the multiply-add. */
enum { TILE_ROWS = 3 };
#define PRODUCT(name, type, gates, parts)                                                         \
    static void name(float *acc, const float *h, int64_t h_ld, const void *r, int64_t depth,      \
                     int64_t rows) {                                                              \
        enum { VECS = (gates)*NV, TILE = VECS < 4 ? VECS : 4, ALONE = VECS < 8 ? VECS : 8 };      \
        const bool bytes = sizeof(type) == 1;                                                     \
        int64_t i = 0;                                                                            \
        for (; i + TILE_ROWS <= rows; i += TILE_ROWS) {                                           \
            for (int v = 0; v < VECS; v += TILE) {                                                \
                product_tile(acc + i * ACC + v * KILN_VLEN, h + i * h_ld, h_ld, r, v * KILN_VLEN, \
                             depth, TILE_ROWS, TILE, VECS, parts, bytes);                         \
            }                                                                                     \
        }                                                                                         \
        for (; i < rows; i++) {                                                                   \
            for (int v = 0; v < VECS; v += ALONE) {                                               \
                product_tile(acc + i * ACC + v * KILN_VLEN, h + i * h_ld, h_ld, r, v * KILN_VLEN, \
                             depth, 1, ALONE, VECS, parts, bytes);                                \
            }                                                                                     \
        }                                                                                         \
    }
#if KILN_VREGS >= 32
enum { PARTS4 = 2, PARTS2 = 4, PARTS1 = 8 };
#elif KILN_VLEN == 8
enum { PARTS4 = 1, PARTS2 = 1, PARTS1 = 2 };
#else
enum { PARTS4 = 1, PARTS2 = 1, PARTS1 = 1 };
#endif
PRODUCT(product4, float, 4, PARTS4)
PRODUCT(product2, float, 2, PARTS2)
PRODUCT(product1, float, 1, PARTS1)
PRODUCT(product4_s8, int8_t, 4, PARTS4)
PRODUCT(product2_s8, int8_t, 2, PARTS2)
PRODUCT(product1_s8, int8_t, 1, PARTS1)

static kiln_vf activate(const kiln_rnn_args *a, int which, kiln_vf x) {
    kiln_vf alpha = vf_set1(a->alpha[which]);
    kiln_vf beta = vf_set1(a->beta[which]);
    const kiln_vf zero = vf_zero();
    const kiln_vf one = vf_set1(1.0f);
    switch (a->act[which]) {
    case KILN_ACT_SIGMOID:
        return vf_sigmoid(x);
    case KILN_ACT_TANH:
        return vf_tanh(x);
    case KILN_ACT_RELU:
        return vf_max(zero, x);
    case KILN_ACT_AFFINE:
        return vf_fma(alpha, x, beta);
    case KILN_ACT_LEAKY_RELU:
        return vf_select(vf_lt(x, zero), vf_mul(alpha, x), x);
    case KILN_ACT_THRESHOLDED_RELU:
        return vf_select(vf_ge(x, alpha), x, zero);
    case KILN_ACT_SCALED_TANH:
        return vf_mul(alpha, vf_tanh(vf_mul(beta, x)));
    case KILN_ACT_HARD_SIGMOID:
        return vf_clamp(vf_fma(alpha, x, beta), zero, one);
    case KILN_ACT_ELU:
        return vf_select(vf_lt(x, zero), vf_mul(alpha, vf_expm1(vf_min(zero, x))), x);
    case KILN_ACT_SOFTSIGN:
        return vf_div(x, vf_add(one, vf_abs(x)));
    case KILN_ACT_SOFTPLUS:
        return vf_softplus(x);
    }
    return x;
}

static kiln_vf clip_act(const kiln_rnn_args *a, int which, kiln_vf x) {
    if (a->clip > 0.0f) {
        x = vf_clamp(x, vf_set1(-a->clip), vf_set1(a->clip));
    }
    return activate(a, which, x);
}

/* The parts of `state`. */
static float *hidden_state(const kiln_rnn_args *a, int64_t step) {
    return a->state + (step % 2) * a->batch * a->hidden;
}
static float *part(const kiln_rnn_args *a, int64_t i) {
    return a->state + i * a->batch * a->hidden;
}

/* One vector of units of one sample at one step: what the gate functions work on. */
typedef struct cell {
    const kiln_rnn_args *a;
    const float *acc[4]; /* h R^T of each gate */
    const float *xw;     /* gate 0; gates are `hidden` apart */
    int64_t unit, n;     /* first unit, units left */
    int64_t at;          /* index of the first unit in [batch, hidden] arrays */
    const float *h;      /* [batch, hidden] before the step */
} cell;

KILN_INLINE kiln_vf gate_input(const cell *c, int64_t gate) {
    return vf_load_upto(c->xw + gate * c->a->hidden + c->unit, c->n);
}

KILN_INLINE kiln_vf gate_sum(const cell *c, int64_t gate) {
    return vf_add(gate_input(c, gate), vf_load(c->acc[gate]));
}

KILN_INLINE kiln_vf add_peephole(const cell *c, kiln_vf x, int64_t which, kiln_vf state) {
    if (c->a->peephole == NULL) {
        return x;
    }
    const float *p = c->a->peephole + which * c->a->hidden + c->unit;
    return vf_fma(vf_load_upto(p, c->n), state, x);
}

static kiln_vf lstm_cell(const cell *c) {
    const kiln_rnn_args *a = c->a;
    float *state = part(a, 2) + c->at;
    kiln_vf old = vf_load_upto(state, c->n);
    kiln_vf i = clip_act(a, 0, add_peephole(c, gate_sum(c, 0), 0, old));
    kiln_vf f = a->input_forget ? vf_sub(vf_set1(1.0f), i)
                                : clip_act(a, 0, add_peephole(c, gate_sum(c, 2), 2, old));
    kiln_vf g = clip_act(a, 1, gate_sum(c, 3));
    kiln_vf fresh = vf_fma(f, old, vf_mul(i, g));
    kiln_vf o = clip_act(a, 0, add_peephole(c, gate_sum(c, 1), 1, fresh));
    vf_store_upto(state, c->n, fresh);
    return vf_mul(o, activate(a, 2, fresh));
}

/* (1 - z) g + z h. */
KILN_INLINE kiln_vf gru_blend(kiln_vf z, kiln_vf g, kiln_vf h) {
    return vf_fma(z, vf_sub(h, g), g);
}

static kiln_vf gru_cell(const cell *c) {
    const kiln_rnn_args *a = c->a;
    kiln_vf z = clip_act(a, 0, gate_sum(c, 0));
    kiln_vf r = clip_act(a, 0, gate_sum(c, 1));
    kiln_vf product = vf_load(c->acc[2]);
    if (a->rb_h != NULL) {
        product = vf_add(product, vf_load_upto(a->rb_h + c->unit, c->n));
    }
    kiln_vf g = clip_act(a, 1, vf_fma(r, product, gate_input(c, 2)));
    return gru_blend(z, g, vf_load_upto(c->h + c->at, c->n));
}

/* First phase: keeps z and r h. */
static void gru_gates(const cell *c) {
    kiln_vf z = clip_act(c->a, 0, gate_sum(c, 0));
    kiln_vf r = clip_act(c->a, 0, gate_sum(c, 1));
    vf_store_upto(part(c->a, 3) + c->at, c->n, z);
    vf_store_upto(part(c->a, 4) + c->at, c->n, vf_mul(r, vf_load_upto(c->h + c->at, c->n)));
}

static kiln_vf gru_finish(const cell *c) {
    kiln_vf g = clip_act(c->a, 1, gate_sum(c, 2));
    kiln_vf z = vf_load_upto(part(c->a, 3) + c->at, c->n);
    return gru_blend(z, g, vf_load_upto(c->h + c->at, c->n));
}

static kiln_vf simple_cell(const cell *c) {
    return clip_act(c->a, 0, gate_sum(c, 0));
}

/* Whether sample b is still within its sequence at this step, and which time it reads. */
static bool time_of(const kiln_rnn_args *a, int64_t step, int64_t b, int64_t *t) {
    int64_t len = a->lens == NULL || a->lens[b] > a->steps ? a->steps : a->lens[b];
    bool live = step < len;
    *t = a->reverse && live ? len - 1 - step : step;
    return live;
}

/* Past a sequence's end: zeros out, states carried on. */
static void pass_over(const kiln_rnn_args *a, int64_t step, int64_t t, int64_t unit, int64_t n,
                      int64_t b) {
    int64_t at = b * a->hidden + unit;
    memcpy(hidden_state(a, step + 1) + at, hidden_state(a, step) + at, (size_t)n * sizeof(float));
    if (a->y != NULL) {
        memset(a->y + t * a->y_step + b * a->y_batch + unit, 0, (size_t)n * sizeof(float));
    }
}

typedef float accumulators[ROWS][4][LANES] KILN_ALIGNED(64);

/* Gates of one block and sample. */
static void finish_sample(const kiln_rnn_args *a, int64_t step, int phase, int64_t block, int64_t b,
                          float (*acc)[LANES]) {
    int64_t unit0 = block * LANES;
    int64_t units = a->hidden - unit0 < LANES ? a->hidden - unit0 : LANES;
    int64_t t;
    bool last_phase = phase == kiln_rnn_phases(a) - 1;
    if (!time_of(a, step, b, &t)) {
        if (last_phase) {
            pass_over(a, step, t, unit0, units, b);
        }
        return;
    }
    cell c = {.a = a, .xw = a->xw + t * a->xw_step + b * a->xw_batch, .h = hidden_state(a, step)};
    for (int64_t i = 0; i < units; i += KILN_VLEN) {
        for (int g = 0; g < 4; g++) {
            c.acc[g] = &acc[g][i];
        }
        c.unit = unit0 + i;
        c.n = units - i;
        c.at = b * a->hidden + c.unit;
        if (!last_phase) {
            gru_gates(&c);
            continue;
        }
        kiln_vf h = a->kind == KILN_RNN_LSTM     ? lstm_cell(&c)
                    : a->kind == KILN_RNN_SIMPLE ? simple_cell(&c)
                    : phase == 1                 ? gru_finish(&c)
                                                 : gru_cell(&c);
        vf_store_upto(hidden_state(a, step + 1) + c.at, c.n, h);
        if (a->y != NULL) {
            vf_store_upto(a->y + t * a->y_step + b * a->y_batch + c.unit, c.n, h);
        }
    }
}

/* The products become those by scale * byte. */
static void scale_rows(float *acc, const float *scale, int gates, int64_t rows) {
    for (int64_t i = 0; i < rows; i++) {
        for (int v = 0; v < gates * LANES; v += KILN_VLEN) {
            vf_store(acc + i * ACC + v, vf_mul(vf_load(acc + i * ACC + v), vf_load(scale + v)));
        }
    }
}

/* acc[row][gate0 ..] of `gates` gates for samples [b0, b0 + rows) of h against element `first` and
 * on of the packed R. */
static void multiply(const kiln_rnn_args *a, const float *h, int64_t first, int64_t block,
                     int gates, int gate0, int64_t b0, int64_t rows, accumulators acc) {
    typedef void product_fn(float *, const float *, int64_t, const void *, int64_t, int64_t);
    static product_fn *const floats[] = {NULL, product1, product2, NULL, product4};
    static product_fn *const bytes[] = {NULL, product1_s8, product2_s8, NULL, product4_s8};
    for (int64_t k = 0; k < a->hidden; k += DEPTH) {
        int64_t depth = a->hidden - k < DEPTH ? a->hidden - k : DEPTH;
        int64_t at = first + k * gates * LANES;
        const float *x = h + b0 * a->hidden + k;
        if (a->r) {
            floats[gates](acc[0][gate0], x, a->hidden, a->r + at, depth, rows);
        } else {
            bytes[gates](acc[0][gate0], x, a->hidden, a->r8 + at, depth, rows);
        }
    }
    if (!a->r) {
        const float *scale = a->r_scale + (block * kiln_rnn_gates(a->kind) + gate0) * LANES;
        scale_rows(acc[0][gate0], scale, gates, rows);
    }
}

static void step_block(const kiln_rnn_args *a, int64_t step, int phase, int64_t block, int64_t b0,
                       int64_t rows) {
    accumulators acc;
    memset(acc, 0, (size_t)rows * sizeof acc[0]);
    int64_t gates = kiln_rnn_gates(a->kind), r = block * a->hidden * gates * LANES;
    const float *h = hidden_state(a, step);
    if (a->kind != KILN_RNN_GRU) {
        multiply(a, h, r, block, (int)gates, 0, b0, rows, acc);
    } else {
        int64_t r_h = r + a->hidden * 2 * LANES;
        if (phase == 0) {
            multiply(a, h, r, block, 2, 0, b0, rows, acc);
        }
        if (phase == 1 || a->linear_before_reset) {
            multiply(a, phase == 1 ? part(a, 4) : h, r_h, block, 1, 2, b0, rows, acc);
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        finish_sample(a, step, phase, block, b0 + i, acc[i]);
    }
}

static void step(const kiln_rnn_args *a, int64_t s, int phase, int64_t block0, int64_t block1,
                 int64_t batch0, int64_t batch1) {
    for (int64_t block = block0; block < block1; block++) {
        for (int64_t b = batch0; b < batch1; b += ROWS) {
            step_block(a, s, phase, block, b, batch1 - b < ROWS ? batch1 - b : ROWS);
        }
    }
}

/* dst = src, or zeros. */
static void set_state(float *dst, const float *src, size_t bytes) {
    if (src != NULL) {
        memcpy(dst, src, bytes);
    } else {
        memset(dst, 0, bytes);
    }
}

static void begin(const kiln_rnn_args *a, int64_t batch0, int64_t batch1) {
    int64_t at = batch0 * a->hidden;
    size_t bytes = (size_t)((batch1 - batch0) * a->hidden) * sizeof(float);
    set_state(part(a, 0) + at, a->h0 == NULL ? NULL : a->h0 + at, bytes);
    set_state(part(a, 2) + at, a->c0 == NULL ? NULL : a->c0 + at, bytes);
    /* Samples past their end skip the first phase, but the second multiplies what it left. */
    set_state(part(a, 4) + at, NULL, bytes);
}

static void end(const kiln_rnn_args *a, int64_t batch0, int64_t batch1) {
    int64_t at = batch0 * a->hidden;
    size_t bytes = (size_t)((batch1 - batch0) * a->hidden) * sizeof(float);
    if (a->y_h != NULL) {
        memcpy(a->y_h + at, hidden_state(a, a->steps) + at, bytes);
    }
    if (a->y_c != NULL) {
        memcpy(a->y_c + at, part(a, 2) + at, bytes);
    }
}

const kiln_rnn_prims KILN_ISA_SYMBOL(kiln_rnn_prims) = {.begin = begin, .step = step, .end = end};
