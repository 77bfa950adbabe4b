/* test_prims_conv.c - convolution, transposed convolution and depthwise prims of every instruction
 * set against sums in double.
 *
 * Bound: |y - reference| <= 2 * sqrt(K + 4) * eps * S as in test_prims_gemm.c, K the taps times the
 * channels of a group. */
#include "prims_matrix.h"
#include "prims_wide.h"

#include <math.h>
#include <stdio.h>

/* The functions conv and depthwise prims have in common. */
typedef struct isa_prims {
    const char *name;
    int64_t (*packed_bytes)(const kiln_conv_args *args);
    void (*pack)(void *dst, const float *src, const kiln_conv_args *args);
    int64_t (*scratch_bytes)(const kiln_conv_args *args);
    int64_t (*tiles)(const kiln_conv_args *args);
    void (*run)(const kiln_conv_args *args, int64_t tile_begin, int64_t tile_end, void *scratch);
} isa_prims;

static isa_prims prims_of(int isa, bool depthwise) {
    static const kiln_conv_prims *const convs[ISA_COUNT] = {
        &kiln_conv_prims_portable,
        &kiln_conv_prims_wide,
        &kiln_conv_prims_avx2,
        &kiln_conv_prims_avx512,
    };
    static const kiln_depthwise_prims *const depthwises[ISA_COUNT] = {
        &kiln_depthwise_prims_portable,
        &kiln_depthwise_prims_wide,
        &kiln_depthwise_prims_avx2,
        &kiln_depthwise_prims_avx512,
    };
    const kiln_conv_prims *c = convs[isa];
    const kiln_depthwise_prims *d = depthwises[isa];
    if (depthwise) {
        return (isa_prims){d->isa, d->packed_bytes, d->pack, d->scratch_bytes, d->tiles, d->run};
    }
    return (isa_prims){c->isa, c->packed_bytes, c->pack, c->scratch_bytes, c->tiles, c->run};
}

typedef struct geometry {
    int64_t batch, groups, c_in, c_out;
    int64_t in[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
    bool transposed; /* pad_end is then the output padding minus the end pad */
} geometry;

typedef struct problem {
    kiln_conv_args a;
    guarded x, weights, bias, residual, y, w, scratch;
    double *want, *bound;
    bool depthwise;
} problem;

static int64_t product(const int64_t v[3]) {
    return v[0] * v[1] * v[2];
}

/* Lays the problem out: channels-last with `gap` floats after each pixel, or with planar weights,
 * the image then in either layout. */
static problem problem_new(const geometry *q, int64_t gap, bool planar, uint64_t seed) {
    problem p = {0};
    kiln_conv_args *a = &p.a;
    *a = (kiln_conv_args){.batch = q->batch,
                          .groups = q->groups,
                          .c_in = q->c_in,
                          .c_out = q->c_out,
                          .transposed = q->transposed,
                          .planar = planar,
                          .epilogue = KILN_EPILOGUE_NONE};
    for (int i = 0; i < 3; i++) {
        int64_t reach = q->dilation[i] * (q->kernel[i] - 1) + 1;
        a->in[i] = q->in[i];
        a->kernel[i] = q->kernel[i];
        a->stride[i] = q->stride[i];
        a->dilation[i] = q->dilation[i];
        a->pad[i] = q->pad[i];
        a->out[i] = q->transposed
                        ? (q->in[i] - 1) * q->stride[i] - q->pad[i] + q->pad_end[i] + reach
                        : (q->in[i] + q->pad[i] + q->pad_end[i] - reach) / q->stride[i] + 1;
        assert_true(a->out[i] > 0);
    }
    int64_t pixels = product(a->in);
    bool planes = planar && seed % 3;
    a->x_channel = planes ? pixels : 1;
    a->x_stride[2] = planes ? 1 : q->c_in + gap;
    a->x_stride[1] = a->in[2] * a->x_stride[2];
    a->x_stride[0] = a->in[1] * a->x_stride[1];
    a->x_batch = pixels * (q->c_in + gap);
    a->ldy = q->c_out + gap;
    int64_t rows = q->batch * product(a->out);
    uint64_t state = seed;
    p.x = guarded_random(q->batch * a->x_batch - gap, &state);
    p.weights = guarded_random(q->c_in * q->c_out / q->groups * product(a->kernel), &state);
    p.bias = guarded_random(q->c_out, &state);
    p.residual = guarded_random(rows * a->ldy - gap, &state);
    p.y = guarded_new(rows * a->ldy - gap);
    a->x = p.x.p;
    a->y = p.y.p;
    a->epilogue.bias = seed % 3 ? p.bias.p : NULL;
    a->epilogue.residual = seed % 4 == 1 ? p.residual.p : NULL;
    a->epilogue.ld_residual = a->ldy;
    a->epilogue.act_first = seed % 8 == 1;
    a->epilogue.lo = seed % 2 ? 0.0f : -INFINITY;
    a->epilogue.slope = seed % 5 == 4 ? 0.25f : 1.0f;
    p.want = calloc((size_t)(rows * q->c_out), sizeof *p.want);
    p.bound = calloc((size_t)(rows * q->c_out), sizeof *p.bound);
    return p;
}

static void problem_free(problem *p) {
    guarded_free(&p->x);
    guarded_free(&p->weights);
    guarded_free(&p->bias);
    guarded_free(&p->residual);
    guarded_free(&p->y);
    free(p->want);
    free(p->bound);
}

/* Input coordinates of output pixel `o` under tap k; false in the padding or off the lattice. */
static bool source(const kiln_conv_args *a, const int64_t o[3], const int64_t k[3], int64_t at[3]) {
    for (int i = 0; i < 3; i++) {
        int64_t v = o[i] * a->stride[i] - a->pad[i] + k[i] * a->dilation[i];
        if (a->transposed) {
            v = o[i] + a->pad[i] - k[i] * a->dilation[i];
            if (v < 0 || v % a->stride[i] != 0) {
                return false;
            }
            v /= a->stride[i];
        }
        if (v < 0 || v >= a->in[i]) {
            return false;
        }
        at[i] = v;
    }
    return true;
}

static void unravel(int64_t i, const int64_t dims[3], int64_t out[3]) {
    out[2] = i % dims[2];
    out[1] = i / dims[2] % dims[1];
    out[0] = i / dims[2] / dims[1];
}

/* Sum and sum of magnitudes of output channel c of a pixel. */
static double raw_sum(const problem *p, int64_t n, const int64_t o[3], int64_t c, double *size) {
    const kiln_conv_args *a = &p->a;
    int64_t depth = a->c_in / a->groups;
    int64_t cols = a->c_out / a->groups;
    int64_t taps = product(a->kernel);
    double sum = 0;
    for (int64_t t = 0; t < taps; t++) {
        int64_t k[3];
        int64_t at[3];
        unravel(t, a->kernel, k);
        if (!source(a, o, k, at)) {
            continue;
        }
        const float *x = a->x + n * a->x_batch + at[0] * a->x_stride[0] + at[1] * a->x_stride[1] +
                         at[2] * a->x_stride[2];
        for (int64_t i = 0; i < depth; i++) {
            int64_t channel = c / cols * depth + i;
            int64_t w =
                a->transposed ? (channel * cols + c % cols) * taps + t : (c * depth + i) * taps + t;
            double term = (double)x[channel * a->x_channel] * (double)p->weights.p[w];
            sum += term;
            *size += fabs(term);
        }
    }
    return sum;
}

static double act(const kiln_epilogue *e, double s) {
    s = s < 0 ? s * (double)e->slope : s;
    s = e->hard_swish ? s * fmin(fmax(s / 6 + 0.5, 0), 1) : s;
    return fmin(fmax(s, (double)e->lo), (double)e->hi);
}

static void reference(problem *p) {
    const kiln_conv_args *a = &p->a;
    const kiln_epilogue *e = &a->epilogue;
    int64_t pixels = product(a->out);
    double terms = (double)(a->c_in / a->groups * product(a->kernel));
    double unit = 2 * sqrt(terms + 4) * 0x1p-24;
    for (int64_t i = 0; i < a->batch * pixels * a->c_out; i++) {
        int64_t row = i / a->c_out;
        int64_t c = i % a->c_out;
        int64_t o[3];
        unravel(row % pixels, a->out, o);
        double size = 0;
        double s = raw_sum(p, row / pixels, o, c, &size);
        double b = e->bias ? (double)e->bias[c] : 0;
        double r = e->residual ? (double)e->residual[row * e->ld_residual + c] : 0;
        p->want[i] = e->act_first ? act(e, s + b) + r : act(e, s + b + r);
        p->bound[i] = unit * (size + fabs(b) + fabs(r)) * (e->hard_swish ? 2 : 1);
    }
}

static void check_values(const problem *p, const char *isa) {
    const kiln_conv_args *a = &p->a;
    int64_t rows = a->batch * product(a->out);
    for (int64_t i = 0; i < rows * a->c_out; i++) {
        double got = (double)a->y[i / a->c_out * a->ldy + i % a->c_out];
        if (!(fabs(got - p->want[i]) <= p->bound[i])) {
            fail_msg("%s%s c %lld->%lld g %lld kernel %lldx%lldx%lld tactic %d: element %lld is "
                     "%.9g, want %.9g +- %.2g",
                     isa, p->depthwise ? " depthwise" : "", (long long)a->c_in, (long long)a->c_out,
                     (long long)a->groups, (long long)a->kernel[0], (long long)a->kernel[1],
                     (long long)a->kernel[2], (int)a->tactic, (long long)i, got, p->want[i],
                     p->bound[i]);
        }
    }
    for (int64_t r = 0; r + 1 < rows; r++) {
        for (int64_t c = a->c_out; c < a->ldy; c++) {
            assert_true(is_canary(a->y + r * a->ldy + c));
        }
    }
}

static void run_split(problem *p, const isa_prims *isa, int64_t parts) {
    int64_t n = isa->tiles(&p->a);
    set_canaries(p->y.p, p->y.count);
    for (int64_t i = parts - 1; i >= 0; i--) {
        set_canaries(p->scratch.p, p->scratch.count);
        isa->run(&p->a, n * i / parts, n * (i + 1) / parts, p->scratch.p);
    }
}

/* Lines copied from a planar image, for weights in the order of taps. */
static void check_planar_lines(problem *p, const isa_prims *isa) {
    guarded old = p->scratch;
    p->a.planar = false;
    p->a.tactic = KILN_CONV_LINES;
    p->scratch = guarded_new((isa->scratch_bytes(&p->a) + 63) / 64 * 16);
    isa->pack(p->w.p, p->weights.p, &p->a);
    run_split(p, isa, 3);
    check_values(p, isa->name);
    guarded_free(&p->scratch);
    p->scratch = old;
    p->a.tactic = KILN_CONV_AUTO;
    p->a.planar = true;
}

/* One tactic on one instruction set: values, then the same bits for other splits. */
static void check_isa(problem *p, const isa_prims *isa) {
    int64_t floats = isa->packed_bytes(&p->a) / 4;
    int64_t scratch = (isa->scratch_bytes(&p->a) + 63) / 64 * 16;
    p->w = guarded_new(floats);
    p->scratch = guarded_new(scratch);
    isa->pack(p->w.p, p->weights.p, &p->a);
    p->a.w = p->w.p;
    run_split(p, isa, 1);
    check_values(p, isa->name);
    size_t bytes = (size_t)p->y.count * sizeof(float);
    float *whole = malloc(bytes);
    memcpy(whole, p->y.p, bytes);
    static const int64_t splits[] = {2, 3, 7};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        run_split(p, isa, splits[i]);
        assert_memory_equal(whole, p->y.p, bytes);
    }
    if (!p->depthwise && !p->a.planar && !p->a.transposed) {
        for (int tactic = KILN_CONV_GATHER; tactic <= KILN_CONV_LINES; tactic++) {
            guarded old = p->scratch;
            p->a.tactic = (kiln_conv_tactic)tactic;
            p->scratch = guarded_new((isa->scratch_bytes(&p->a) + 63) / 64 * 16);
            run_split(p, isa, 1);
            assert_memory_equal(whole, p->y.p, bytes);
            guarded_free(&p->scratch);
            p->scratch = old;
        }
        p->a.tactic = KILN_CONV_AUTO;
    }
    if (p->a.planar) {
        check_planar_lines(p, isa);
    }
    free(whole);
    guarded_free(&p->w);
    guarded_free(&p->scratch);
}

static void check_geometry(const geometry *q, bool planar, uint64_t seed) {
    problem p = problem_new(q, planar ? 0 : (int64_t)(seed % 3), planar, seed);
    reference(&p);
    bool can_depthwise = q->groups == q->c_in && !q->transposed && !planar;
    for (int i = 0; i < ISA_COUNT; i++) {
        if (!isa_present(i)) {
            continue;
        }
        isa_prims conv = prims_of(i, false);
        isa_prims depthwise = prims_of(i, true);
        p.depthwise = false;
        check_isa(&p, &conv);
        if (can_depthwise) {
            p.depthwise = true;
            check_isa(&p, &depthwise);
        }
    }
    problem_free(&p);
}

/* The two-dimensional ones, written short: batch, groups, channels, H, W, kernel, stride, dilation,
 * pads top, left, bottom, right. */
typedef struct flat {
    int64_t batch, groups, c_in, c_out, h, w, kh, kw, sh, sw, dh, dw, top, left, bottom, right;
} flat;

static geometry from_flat(const flat *f, bool transposed) {
    return (geometry){.batch = f->batch,
                      .groups = f->groups,
                      .c_in = f->c_in,
                      .c_out = f->c_out,
                      .in = {1, f->h, f->w},
                      .kernel = {1, f->kh, f->kw},
                      .stride = {1, f->sh, f->sw},
                      .dilation = {1, f->dh, f->dw},
                      .pad = {0, f->top, f->left},
                      .pad_end = {0, f->bottom, f->right},
                      .transposed = transposed};
}

/* Channels last, and planar. */
static void check_flat(const flat *f, uint64_t seed) {
    geometry q = from_flat(f, false);
    check_geometry(&q, false, seed + 1);
    check_geometry(&q, true, seed + 2);
}

static void test_conv_shapes(void **unused) {
    (void)unused;
    static const flat shapes[] = {
        {1, 1, 16, 16, 7, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {2, 1, 17, 33, 9, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 1, 64, 40, 6, 5, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
        {1, 1, 3, 32, 23, 21, 7, 7, 2, 2, 1, 1, 3, 3, 3, 3},
        {2, 1, 3, 24, 16, 17, 3, 3, 2, 2, 1, 1, 0, 0, 1, 1},
        {1, 1, 1, 8, 11, 13, 5, 5, 1, 1, 1, 1, 2, 2, 2, 2},
        {3, 1, 20, 50, 5, 7, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
        {2, 1, 130, 70, 5, 7, 1, 1, 2, 2, 1, 1, 0, 0, 0, 0},
        {1, 1, 12, 9, 10, 10, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2},
        {1, 1, 8, 19, 12, 9, 3, 5, 2, 1, 1, 3, 0, 4, 2, 1},
        {1, 1, 33, 20, 1, 40, 1, 5, 1, 1, 1, 1, 0, 2, 0, 2},
        {1, 2, 16, 24, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 8, 32, 32, 6, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {2, 3, 9, 51, 7, 6, 3, 3, 2, 1, 1, 1, 1, 0, 1, 2},
        {1, 1, 600, 30, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 1, 64, 512, 7, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 1, 4, 6, 3, 3, 3, 3, 1, 1, 1, 1, 5, 4, 5, 4},
        {1, 1, 5, 7, 9, 9, 3, 3, 1, 1, 1, 1, -1, -2, 1, 0},
        {1, 1, 64, 64, 30, 30, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_flat(&shapes[i], i);
    }
}

/* Few output channels, whose vectors lie along W. */
static void test_few_channels(void **unused) {
    (void)unused;
    static const flat shapes[] = {
        {1, 1, 3, 3, 18, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {2, 1, 3, 3, 5, 71, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 1, 16, 1, 9, 130, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 1, 17, 2, 6, 47, 5, 5, 1, 1, 1, 1, 2, 2, 2, 2},
        {2, 1, 33, 4, 5, 49, 3, 3, 1, 1, 1, 1, 0, 0, 1, 2},
        {1, 1, 8, 3, 9, 600, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 1, 130, 4, 4, 300, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 1, 5, 3, 11, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
        {1, 1, 4, 2, 11, 70, 5, 4, 1, 3, 1, 1, 2, 1, 2, 3},
        {2, 1, 6, 3, 12, 40, 3, 3, 1, 1, 3, 2, 3, 2, 3, 2},
        {1, 1, 2, 4, 3, 40, 3, 5, 2, 2, 2, 3, 4, 9, 5, 7},
        {1, 1, 7, 1, 6, 40, 3, 3, 1, 1, 1, 1, -1, -3, 2, -1},
        {1, 1, 1, 1, 1, 90, 1, 31, 1, 1, 1, 1, 0, 15, 0, 15},
        {3, 1, 20, 3, 1, 33, 1, 3, 1, 1, 1, 1, 0, 40, 0, 41},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (uint64_t seed = i; seed < i + 60; seed += 13) {
            check_flat(&shapes[i], seed);
        }
    }
}

static void test_volumes(void **unused) {
    (void)unused;
    static const geometry shapes[] = {
        {1, 1, 20, 17, {4, 5, 6}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, false},
        {2, 2, 6, 10, {5, 4, 6}, {2, 3, 1}, {2, 1, 2}, {1, 2, 1}, {1, 2, 0}, {0, 1, 1}, false},
        {1, 9, 9, 9, {4, 5, 9}, {3, 3, 3}, {1, 2, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, false},
        {2, 1, 12, 10, {3, 4, 5}, {3, 2, 4}, {2, 2, 2}, {1, 1, 1}, {1, 0, 1}, {1, 0, -1}, true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_geometry(&shapes[i], false, i + 40);
    }
}

static void test_transposed_shapes(void **unused) {
    (void)unused;
    static const flat shapes[] = {
        {1, 1, 16, 8, 5, 6, 4, 4, 2, 2, 1, 1, 1, 1, -1, -1},
        {2, 1, 19, 33, 4, 5, 2, 2, 2, 2, 1, 1, 0, 0, 0, 0},
        {1, 1, 8, 20, 6, 6, 3, 3, 1, 1, 1, 1, 1, 1, -1, -1},
        {1, 2, 12, 10, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1, 0, 0},
        {1, 1, 7, 5, 4, 4, 2, 2, 3, 3, 1, 1, 0, 0, 0, 0},
        {1, 1, 7, 9, 4, 6, 3, 3, 2, 2, 2, 2, 1, 2, 0, -1},
        {1, 1, 9, 9, 3, 3, 5, 3, 4, 3, 3, 2, 0, 3, 2, -1},
        {1, 6, 6, 6, 5, 5, 4, 4, 2, 2, 1, 1, 1, 1, -1, -1},
        {2, 1, 10, 21, 1, 17, 1, 5, 1, 2, 1, 1, 0, 2, 0, 1},
        {1, 1, 64, 64, 9, 9, 4, 4, 2, 2, 1, 1, 1, 1, -1, -1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        geometry q = from_flat(&shapes[i], true);
        check_geometry(&q, false, i + 1);
    }
}

static void test_depthwise_shapes(void **unused) {
    (void)unused;
    static const int64_t channels[] = {1, 3, 4, 8, 15, 16, 17, 29, 32, 100};
    static const int64_t widths[] = {1, 2, 3, 5, 7, 8, 9, 14, 17};
    uint64_t seed = 3;
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        for (size_t j = 0; j < sizeof widths / sizeof *widths; j++) {
            for (int64_t kernel = 1; kernel <= 7; kernel += 2) {
                int64_t c = channels[i];
                int64_t stride = 1 + (int64_t)(seed / 3 % 3);
                int64_t dilation = seed % 7 == 0 ? 2 : 1;
                int64_t pad = dilation * (kernel / 2);
                flat f = {1 + (int64_t)(seed % 2),
                          c,
                          c,
                          c,
                          5,
                          widths[j],
                          kernel,
                          kernel,
                          stride,
                          stride,
                          dilation,
                          dilation,
                          pad,
                          pad,
                          pad,
                          pad};
                geometry q = from_flat(&f, false);
                check_geometry(&q, false, seed++);
            }
        }
    }
}

static void test_depthwise_multiplier(void **unused) {
    (void)unused;
    static const flat shapes[] = {
        {1, 5, 5, 10, 6, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {2, 8, 8, 24, 5, 9, 3, 3, 2, 2, 1, 1, 0, 1, 1, 0},
        {1, 1, 1, 33, 8, 8, 5, 5, 1, 1, 1, 1, 2, 2, 2, 2},
        {1, 64, 64, 128, 4, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        geometry q = from_flat(&shapes[i], false);
        check_geometry(&q, false, i + 5);
    }
}

static void add_thousand(const void *arg, float *c, int64_t ldc, int64_t row0, int64_t rows,
                         int64_t col0, int64_t cols) {
    const kiln_conv_args *a = arg;
    assert_ptr_equal(c, a->y + row0 * ldc + col0);
    assert_int_equal(ldc, a->ldy);
    for (int64_t i = 0; i < rows * cols; i++) {
        c[i / cols * ldc + i % cols] += 1000.0f;
    }
}

static void check_post(const geometry *q) {
    problem p = problem_new(q, 1, false, 2);
    p.a.epilogue.post = add_thousand;
    p.a.epilogue.post_arg = &p.a;
    reference(&p);
    for (int64_t i = 0; i < q->batch * product(p.a.out) * q->c_out; i++) {
        p.want[i] += 1000;
        p.bound[i] += 1e-4;
    }
    for (int i = 0; i < ISA_COUNT; i++) {
        if (isa_present(i)) {
            isa_prims conv = prims_of(i, false);
            isa_prims depthwise = prims_of(i, true);
            p.depthwise = q->groups == q->c_in;
            check_isa(&p, p.depthwise ? &depthwise : &conv);
        }
    }
    problem_free(&p);
}

static void test_post(void **unused) {
    (void)unused;
    static const flat shapes[] = {
        {2, 1, 9, 37, 12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {2, 70, 70, 70, 12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
        {1, 2, 32, 32, 12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        geometry q = from_flat(&shapes[i], false);
        check_post(&q);
    }
    geometry q = from_flat(&(flat){2, 1, 9, 37, 6, 5, 4, 4, 2, 2, 1, 1, 1, 1, -1, -1}, true);
    check_post(&q);
}

/* Random geometries of all kinds; the seed of a failing one is printed by the message above it. */
/* Kernel, stride, dilation, size and pads of one axis such that there is at least one output. */
static void random_axis(geometry *q, int i, bool one, uint64_t *s) {
    q->kernel[i] = one ? 1 : random_int(s, 1, 4);
    q->stride[i] = one ? 1 : random_int(s, 1, 3);
    q->dilation[i] = one ? 1 : random_int(s, 1, 2);
    int64_t reach = (q->kernel[i] - 1) * q->dilation[i] + 1;
    q->in[i] = one ? 1 : random_int(s, reach > 7 ? reach : 2, 9);
    q->pad[i] = one ? 0 : random_int(s, 0, reach - 1);
    q->pad_end[i] = one ? 0 : random_int(s, 0, reach - 1);
    if (q->transposed) {
        q->pad[i] = q->pad[i] < 2 ? q->pad[i] : 1;
        q->pad_end[i] = q->stride[i] > 1 ? random_int(s, 0, 1) : 0;
    } else if (q->in[i] + q->pad[i] + q->pad_end[i] < reach) {
        q->in[i] = reach;
    }
    if (q->transposed && (q->in[i] - 1) * q->stride[i] - q->pad[i] + q->pad_end[i] + reach < 1) {
        q->pad[i] = 0;
    }
}

static void test_random_geometries(void **unused) {
    (void)unused;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        uint64_t s = seed * 977;
        geometry q = {.batch = random_int(&s, 1, 2), .transposed = random_int(&s, 0, 2) == 0};
        q.groups = random_int(&s, 0, 1) ? 1 : random_int(&s, 2, 5);
        q.c_in = q.groups * random_int(&s, 1, q.groups == 1 ? 40 : 12);
        q.c_out = q.groups * random_int(&s, 1, q.groups == 1 ? 70 : 20);
        for (int i = 0; i < 3; i++) {
            random_axis(&q, i, i == 0 && seed % 3 != 0, &s);
        }
        check_geometry(&q, !q.transposed && seed % 5 == 0, seed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv_shapes),
        cmocka_unit_test(test_few_channels),
        cmocka_unit_test(test_volumes),
        cmocka_unit_test(test_transposed_shapes),
        cmocka_unit_test(test_depthwise_shapes),
        cmocka_unit_test(test_depthwise_multiplier),
        cmocka_unit_test(test_post),
        cmocka_unit_test(test_random_geometries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
