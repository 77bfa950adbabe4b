/* test_prims_rnn.c - LSTM, GRU and RNN steps of backend/cpu/prims/rnn.h against the ONNX equations
 * in double precision, on every instruction set present, with every option and several splits. */
#include "prims_util.h"

#include "backend/cpu/prims/rnn.h"

ISA_TABLE(kiln_rnn_prims);

typedef struct model {
    kiln_rnn_args a;
    const float *r_plain; /* [gates * hidden, hidden] */
} model;

static double act(const kiln_rnn_args *a, int which, double x, bool clip) {
    double alpha = a->alpha[which], beta = a->beta[which], c = a->clip;
    x = clip && c > 0 ? (x < -c ? -c : x > c ? c : x) : x;
    switch (a->act[which]) {
    case KILN_ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case KILN_ACT_TANH:
        return tanh(x);
    case KILN_ACT_RELU:
        return x > 0 ? x : 0;
    case KILN_ACT_AFFINE:
        return alpha * x + beta;
    case KILN_ACT_LEAKY_RELU:
        return x < 0 ? alpha * x : x;
    case KILN_ACT_THRESHOLDED_RELU:
        return x >= alpha ? x : 0;
    case KILN_ACT_SCALED_TANH:
        return alpha * tanh(beta * x);
    case KILN_ACT_HARD_SIGMOID:
        return fmax(0, fmin(1, alpha * x + beta));
    case KILN_ACT_ELU:
        return x < 0 ? alpha * expm1(x) : x;
    case KILN_ACT_SOFTSIGN:
        return x / (1 + fabs(x));
    case KILN_ACT_SOFTPLUS:
        return log1p(exp(-fabs(x))) + fmax(x, 0);
    }
    return NAN;
}

static double dot(const model *m, int64_t gate, int64_t unit, const double *h) {
    double s = 0;
    for (int64_t k = 0; k < m->a.hidden; k++) {
        s += (double)m->r_plain[(gate * m->a.hidden + unit) * m->a.hidden + k] * h[k];
    }
    return s;
}

static double peep(const kiln_rnn_args *a, int which, int64_t u, double c) {
    return a->peephole == NULL ? 0 : (double)a->peephole[which * a->hidden + u] * c;
}

/* One sample: y [steps][hidden], h and c updated. */
static void reference(const model *m, int64_t b, double *y, double *h, double *c) {
    const kiln_rnn_args *a = &m->a;
    int64_t H = a->hidden;
    int64_t len = a->lens == NULL ? a->steps : a->lens[b];
    double *next = malloc((size_t)H * 8), *rh = malloc((size_t)H * 8), *z = malloc((size_t)H * 8);
    for (int64_t i = 0; i < a->steps * H; i++) {
        y[i] = 0;
    }
    for (int64_t s = 0; s < len; s++) {
        int64_t t = a->reverse ? len - 1 - s : s;
        const float *x = a->xw + t * a->xw_step + b * a->xw_batch;
        for (int64_t u = 0; u < H && a->kind == KILN_RNN_GRU; u++) {
            z[u] = act(a, 0, (double)x[u] + dot(m, 0, u, h), true);
            rh[u] = act(a, 0, (double)x[H + u] + dot(m, 1, u, h), true);
            rh[u] *= a->linear_before_reset
                         ? dot(m, 2, u, h) + (a->rb_h == NULL ? 0 : (double)a->rb_h[u])
                         : h[u];
        }
        for (int64_t u = 0; u < H; u++) {
            if (a->kind == KILN_RNN_SIMPLE) {
                next[u] = act(a, 0, (double)x[u] + dot(m, 0, u, h), true);
            } else if (a->kind == KILN_RNN_GRU) {
                double p = a->linear_before_reset ? rh[u] : dot(m, 2, u, rh);
                double g = act(a, 1, (double)x[2 * H + u] + p, true);
                next[u] = (1 - z[u]) * g + z[u] * h[u];
            } else {
                double i = act(a, 0, (double)x[u] + dot(m, 0, u, h) + peep(a, 0, u, c[u]), true);
                double f =
                    act(a, 0, (double)x[2 * H + u] + dot(m, 2, u, h) + peep(a, 2, u, c[u]), true);
                double g = act(a, 1, (double)x[3 * H + u] + dot(m, 3, u, h), true);
                c[u] = (a->input_forget ? 1 - i : f) * c[u] + i * g;
                double o =
                    act(a, 0, (double)x[H + u] + dot(m, 1, u, h) + peep(a, 1, u, c[u]), true);
                next[u] = o * act(a, 2, c[u], false);
            }
        }
        memcpy(h, next, (size_t)H * 8);
        memcpy(y + t * H, next, (size_t)H * 8);
    }
    free(next);
    free(rh);
    free(z);
}

/* The whole recurrence cut into `ways` hidden ranges and `ways` batch ranges, phase by phase. */
static void run_split(const kiln_rnn_prims *prims, const kiln_rnn_args *a, int ways) {
    int64_t blocks = kiln_rnn_blocks(a->hidden);
    for (int w = 0; w < ways; w++) {
        prims->begin(a, a->batch * w / ways, a->batch * (w + 1) / ways);
    }
    for (int64_t s = 0; s < a->steps; s++) {
        for (int phase = 0; phase < kiln_rnn_phases(a); phase++) {
            for (int w = ways - 1; w >= 0; w--) {
                for (int v = 0; v < ways; v++) {
                    prims->step(a, s, phase, blocks * w / ways, blocks * (w + 1) / ways,
                                a->batch * v / ways, a->batch * (v + 1) / ways);
                }
            }
        }
    }
    prims->end(a, 0, a->batch);
}

enum {
    OPT_REVERSE = 1,
    OPT_LENS = 2,
    OPT_PEEP_OR_RB = 4,
    OPT_CLIP = 8,
    OPT_VARIANT = 16,
    OPT_INIT = 32,
    OPT_BYTES = 64 /* R is scale * byte */
};

/* y, y_h and y_c of a finished run against double arithmetic. */
static void compare_with_reference(const model *m) {
    int64_t steps = m->a.steps, batch = m->a.batch, hidden = m->a.hidden, state = batch * hidden;
    double *want = malloc((size_t)(steps * hidden) * 8), *h = malloc((size_t)hidden * 8);
    double *c = malloc((size_t)hidden * 8);
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t u = 0; u < hidden; u++) {
            h[u] = m->a.h0 == NULL ? 0 : (double)m->a.h0[b * hidden + u];
            c[u] = m->a.c0 == NULL ? 0 : (double)m->a.c0[b * hidden + u];
        }
        reference(m, b, want, h, c);
        for (int64_t i = 0; i < steps * hidden; i++) {
            float got = m->a.y[i / hidden * state + b * hidden + i % hidden];
            assert_close("y", i, got, want[i], 2e-5, 2e-5);
        }
        for (int64_t u = 0; u < hidden; u++) {
            assert_close("y_h", u, m->a.y_h[b * hidden + u], h[u], 2e-5, 2e-5);
            if (m->a.kind == KILN_RNN_LSTM) {
                assert_close("y_c", u, m->a.y_c[b * hidden + u], c[u], 2e-5, 2e-5);
            }
        }
    }
    free(want);
    free(h);
    free(c);
}

/* Makes r[gates * hidden, hidden] products of a scale for each row and a byte, and packs these. */
static void pack_bytes(kiln_rnn_args *a, float *r, int8_t *bytes, float *scales) {
    int64_t rows = kiln_rnn_gates(a->kind) * a->hidden;
    int8_t *plain = malloc((size_t)(rows * a->hidden));
    float *scale = malloc((size_t)rows * sizeof *scale);
    for (int64_t i = 0; i < rows * a->hidden; i++) {
        scale[i / a->hidden] = 0.3f / (float)(127 + i / a->hidden % 7);
        plain[i] = (int8_t)lrintf(r[i] / scale[i / a->hidden]);
        r[i] = (float)plain[i] * scale[i / a->hidden];
    }
    kiln_rnn_pack_bytes(bytes, a->kind, a->hidden, plain);
    kiln_rnn_pack_scales(scales, a->kind, a->hidden, scale);
    a->r = NULL;
    a->r8 = bytes;
    a->r_scale = scales;
    free(plain);
    free(scale);
}

static void check(int isa, kiln_rnn_kind kind, int64_t steps, int64_t batch, int64_t hidden,
                  int options, kiln_rnn_act act0) {
    int64_t gates = kiln_rnn_gates(kind), state = batch * hidden, ny = steps * state;
    float *xw = guard_floats(ny * gates, 1), *r = guard_floats(gates * hidden * hidden, 0);
    float *packed = guard_floats(kiln_rnn_packed(kind, hidden), 0);
    float *peephole = guard_floats(3 * hidden, 1), *h0 = guard_floats(state, 1);
    float *c0 = guard_floats(state, 1), *y = guard_floats(ny, 1), *y_h = guard_floats(state, 1);
    float *y_c = guard_floats(state, 1), *first = guard_floats(ny, 0);
    float *scales = guard_floats(kiln_rnn_scales(kind, hidden), 0);
    int32_t *lens = malloc((size_t)batch * 4);
    rng g = {.state = (uint64_t)(hidden * 100 + options + 1)};
    rng_fill(&g, xw, ny * gates, -1, 1);
    rng_fill(&g, r, gates * hidden * hidden, -0.3f, 0.3f);
    rng_fill(&g, peephole, 3 * hidden, -0.5f, 0.5f);
    rng_fill(&g, h0, state, -1, 1);
    rng_fill(&g, c0, state, -1, 1);
    for (int64_t b = 0; b < batch; b++) {
        lens[b] = (int32_t)(b * 3 % (steps + 1));
    }
    model m = {.r_plain = r};
    m.a = (kiln_rnn_args){.kind = kind,
                          .steps = steps,
                          .batch = batch,
                          .hidden = hidden,
                          .reverse = options & OPT_REVERSE,
                          .xw = xw,
                          .xw_step = batch * gates * hidden,
                          .xw_batch = gates * hidden,
                          .r = packed,
                          .y = y,
                          .y_step = state,
                          .y_batch = hidden,
                          .y_h = y_h,
                          .act = {act0, KILN_ACT_TANH, KILN_ACT_TANH},
                          .alpha = {0.4f},
                          .beta = {0.3f}};
    m.a.lens = options & OPT_LENS ? lens : NULL;
    m.a.clip = options & OPT_CLIP ? 0.4f : 0.0f;
    m.a.input_forget = m.a.linear_before_reset = (options & OPT_VARIANT) != 0;
    m.a.peephole = options & OPT_PEEP_OR_RB && kind == KILN_RNN_LSTM ? peephole : NULL;
    m.a.rb_h = options & OPT_PEEP_OR_RB && m.a.linear_before_reset ? peephole : NULL;
    m.a.h0 = options & OPT_INIT ? h0 : NULL;
    m.a.c0 = options & OPT_INIT ? c0 : NULL;
    m.a.y_c = kind == KILN_RNN_LSTM ? y_c : NULL;
    float *work = guard_floats(kiln_rnn_state(&m.a), 0);
    m.a.state = work;
    if (options & OPT_BYTES) {
        pack_bytes(&m.a, r, (int8_t *)packed, scales);
    } else {
        kiln_rnn_pack(packed, kind, hidden, r);
    }
    for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
        memset(y, 0x66, (size_t)ny * 4);
        run_split(prims_of[isa], &m.a, split_ways[w]);
        if (w == 0) {
            memcpy(first, y, (size_t)ny * 4);
        }
        assert_memory_equal(first, y, (size_t)ny * 4);
    }
    const kiln_team alone = {.size = 1};
    kiln_rnn_run(prims_of[isa], &m.a, &alone);
    assert_memory_equal(first, y, (size_t)ny * 4);
    compare_with_reference(&m);
    free(lens);
    float *all[] = {xw, r, packed, peephole, h0, c0, y, y_h, y_c, first, work, scales};
    for (size_t i = 0; i < KILN_COUNT_OF(all); i++) {
        guard_free(all[i]);
    }
}

static void test_options(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int kind = 0; isa_present(isa) && kind < 3; kind++) {
            for (int options = 0; options < 128; options++) {
                check(isa, (kiln_rnn_kind)kind, 4, 3, 21, options, KILN_ACT_SIGMOID);
            }
        }
    }
}

static void test_sizes(void **state) {
    (void)state;
    const int64_t sizes[][3] = {{1, 1, 1}, {3, 1, 16}, {2, 40, 5}, {3, 2, 130}, {5, 7, 33}};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int kind = 0; isa_present(isa) && kind < 3; kind++) {
            for (size_t k = 0; k < KILN_COUNT_OF(sizes); k++) {
                const int64_t *s = sizes[k];
                check(isa, (kiln_rnn_kind)kind, s[0], s[1], s[2], OPT_INIT, KILN_ACT_SIGMOID);
                check(isa, (kiln_rnn_kind)kind, s[0], s[1], s[2], OPT_LENS | OPT_REVERSE,
                      KILN_ACT_SIGMOID);
                check(isa, (kiln_rnn_kind)kind, s[0], s[1], s[2], OPT_BYTES | OPT_INIT,
                      KILN_ACT_SIGMOID);
            }
        }
    }
}

static void test_activations(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int act0 = 0; isa_present(isa) && act0 <= KILN_ACT_SOFTPLUS; act0++) {
            check(isa, KILN_RNN_LSTM, 3, 2, 19, OPT_INIT, (kiln_rnn_act)act0);
            check(isa, KILN_RNN_SIMPLE, 3, 2, 19, OPT_INIT, (kiln_rnn_act)act0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_options), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_activations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
