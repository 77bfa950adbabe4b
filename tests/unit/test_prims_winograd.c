/* test_prims_winograd.c - Winograd prims of every instruction set against sums in double.
 *
 * Bound: the norm of the error is at most 4e-6 of that of the outputs before the activation, the
 * factor four over what winograd.h states. The bits are those of one unit for any cut. */
#include "prims_matrix.h"
#include "prims_wide.h"

#include <math.h>
#include <stdio.h>

#define NORM_ERROR 4e-6

static const kiln_winograd_prims *const prims[ISA_COUNT] = {
    &kiln_winograd_prims_portable,
    &kiln_winograd_prims_wide,
    &kiln_winograd_prims_avx2,
    &kiln_winograd_prims_avx512,
};

typedef struct geometry {
    int64_t batch, c_in, c_out, h, w, pad[4]; /* top, left, bottom, right */
} geometry;

typedef struct problem {
    kiln_conv_args a;
    guarded x, weights, bias, residual, y, w, scratch;
    double *want;
    int64_t rows;
    uint8_t *posted; /* per output */
} problem;

/* Channels-last with `gap` floats between pixels. */
static problem problem_new(const geometry *q, int64_t gap, uint64_t seed) {
    problem p = {.a = {.batch = q->batch,
                       .groups = 1,
                       .c_in = q->c_in,
                       .c_out = q->c_out,
                       .in = {1, q->h, q->w},
                       .kernel = {1, 3, 3},
                       .stride = {1, 1, 1},
                       .dilation = {1, 1, 1},
                       .pad = {0, q->pad[0], q->pad[1]},
                       .x_channel = 1,
                       .ldy = q->c_out + gap,
                       .epilogue = KILN_EPILOGUE_NONE}};
    kiln_conv_args *a = &p.a;
    a->out[0] = 1;
    a->out[1] = q->h + q->pad[0] + q->pad[2] - 2;
    a->out[2] = q->w + q->pad[1] + q->pad[3] - 2;
    a->x_stride[2] = q->c_in + gap;
    a->x_stride[1] = q->w * a->x_stride[2];
    a->x_batch = a->x_stride[0] = q->h * a->x_stride[1];
    p.rows = q->batch * a->out[1] * a->out[2];
    uint64_t state = seed;
    p.x = guarded_random(q->batch * a->x_batch - gap, &state);
    p.weights = guarded_random(q->c_in * q->c_out * 9, &state);
    p.bias = guarded_random(q->c_out, &state);
    p.residual = guarded_random(p.rows * a->ldy - gap, &state);
    p.y = guarded_new(p.rows * a->ldy - gap);
    a->x = p.x.p;
    a->y = p.y.p;
    a->epilogue.bias = seed % 3 ? p.bias.p : NULL;
    a->epilogue.residual = seed % 4 ? p.residual.p : NULL;
    a->epilogue.ld_residual = a->ldy;
    a->epilogue.act_first = seed % 4 == 1;
    a->epilogue.lo = seed % 2 ? 0.0f : -INFINITY;
    a->epilogue.slope = seed % 5 == 4 ? 0.25f : 1.0f;
    p.want = calloc((size_t)(p.rows * q->c_out), sizeof *p.want);
    p.posted = calloc((size_t)(p.rows * q->c_out), 1);
    assert_true(p.want && p.posted);
    return p;
}

static void problem_free(problem *p) {
    guarded *const all[] = {&p->x, &p->weights, &p->bias, &p->residual, &p->y};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        guarded_free(all[i]);
    }
    free(p->want);
    free(p->posted);
}

static double raw_sum(const problem *p, int64_t row, int64_t c) {
    const kiln_conv_args *a = &p->a;
    int64_t w = row % a->out[2], h = row / a->out[2] % a->out[1], n = row / a->out[2] / a->out[1];
    double sum = 0;
    for (int64_t t = 0; t < 9; t++) {
        int64_t y = h - a->pad[1] + t / 3, x = w - a->pad[2] + t % 3;
        if (y < 0 || y >= a->in[1] || x < 0 || x >= a->in[2]) {
            continue;
        }
        const float *src = a->x + n * a->x_batch + y * a->x_stride[1] + x * a->x_stride[2];
        for (int64_t i = 0; i < a->c_in; i++) {
            sum += (double)src[i] * (double)p->weights.p[(c * a->c_in + i) * 9 + t];
        }
    }
    return sum;
}

static double act(const kiln_epilogue *e, double s) {
    s = s < 0 ? s * (double)e->slope : s;
    return fmax(s, (double)e->lo);
}

/* Fills in what is wanted; returns the norm of the outputs before the activation. */
static double reference(problem *p) {
    const kiln_conv_args *a = &p->a;
    const kiln_epilogue *e = &a->epilogue;
    double norm = 0;
    for (int64_t i = 0; i < p->rows * a->c_out; i++) {
        int64_t row = i / a->c_out, c = i % a->c_out;
        double s = raw_sum(p, row, c) + (e->bias ? (double)e->bias[c] : 0);
        double r = e->residual ? (double)e->residual[row * e->ld_residual + c] : 0;
        p->want[i] = e->act_first ? act(e, s) + r : act(e, s + r);
        norm += s * s;
    }
    return sqrt(norm);
}

static double distance(const problem *p) {
    const kiln_conv_args *a = &p->a;
    double off = 0;
    for (int64_t i = 0; i < p->rows * a->c_out; i++) {
        double d = (double)a->y[i / a->c_out * a->ldy + i % a->c_out] - p->want[i];
        off += d * d;
    }
    return sqrt(off);
}

/* Each output once. */
static void note_post(const void *arg, float *c, int64_t ldc, int64_t row0, int64_t rows,
                      int64_t col0, int64_t cols) {
    const problem *p = arg;
    assert_ptr_equal(c, p->a.y + row0 * ldc + col0);
    assert_true(row0 + rows <= p->rows && col0 + cols <= p->a.c_out);
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t at = (row0 + i / cols) * p->a.c_out + col0 + i % cols;
        assert_int_equal(p->posted[at]++, 0);
    }
}

static void expect_gaps_untouched(const problem *p) {
    const kiln_conv_args *a = &p->a;
    for (int64_t row = 0; row + 1 < p->rows; row++) {
        for (int64_t c = a->c_out; c < a->ldy; c++) {
            assert_true(is_canary(a->y + row * a->ldy + c));
        }
    }
}

/* Runs as so many threads would, the last unit first. */
static void run_as(problem *p, const kiln_winograd_prims *k, int64_t tile, int32_t threads) {
    const kiln_winograd_args g = {.conv = &p->a, .tile = tile};
    const int64_t n = k->units(&g, threads);
    assert_true(n >= 1);
    set_canaries(p->y.p, p->y.count);
    memset(p->posted, 0, (size_t)(p->rows * p->a.c_out));
    for (int64_t i = n; i-- > 0;) {
        set_canaries(p->scratch.p, p->scratch.count);
        k->run(&g, n, i, i + 1, p->scratch.p);
    }
}

static void check(const geometry *q, int64_t tile, uint64_t seed) {
    problem p = problem_new(q, (int64_t)(seed % 3), seed);
    const kiln_winograd_args g = {.conv = &p.a, .tile = tile};
    const double norm = reference(&p);
    p.a.epilogue.post = seed % 2 ? note_post : NULL;
    p.a.epilogue.post_arg = &p;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!isa_present(isa)) {
            continue;
        }
        const kiln_winograd_prims *k = prims[isa];
        p.w = guarded_new(k->packed_bytes(&g) / (int64_t)sizeof(float));
        p.scratch = guarded_new(k->scratch_bytes(&g) / (int64_t)sizeof(float));
        k->pack(p.w.p, p.weights.p, &g);
        p.a.w = p.w.p;
        run_as(&p, k, tile, 1);
        double off = distance(&p);
        if (!(off <= NORM_ERROR * norm)) {
            fail_msg("%s, tile %d: off by %.3g of the norm", k->isa, (int)tile, off / norm);
        }
        guarded one = guarded_new(p.y.count);
        memcpy(one.p, p.y.p, (size_t)p.y.count * sizeof *one.p);
        for (int32_t threads = 1; threads <= 16; threads += threads < 4 ? 1 : 6) {
            run_as(&p, k, tile, threads);
            assert_memory_equal(one.p, p.y.p, (size_t)p.y.count * sizeof *one.p);
            expect_gaps_untouched(&p);
            for (int64_t i = 0; p.a.epilogue.post && i < p.rows * p.a.c_out; i++) {
                assert_int_equal(p.posted[i], 1);
            }
        }
        guarded_free(&one);
        guarded_free(&p.w);
        guarded_free(&p.scratch);
    }
    problem_free(&p);
}

static void shapes_of_all_kinds(void **state) {
    static const geometry all[] = {
        {1, 1, 1, 3, 3, {0, 0, 0, 0}},     {1, 1, 1, 1, 1, {1, 1, 1, 1}},
        {1, 8, 16, 6, 5, {1, 1, 1, 1}},    {3, 5, 3, 4, 9, {1, 0, 2, 1}},
        {2, 17, 33, 7, 7, {1, 1, 1, 1}},   {1, 31, 65, 9, 10, {0, 1, 0, 1}},
        {1, 16, 129, 5, 13, {3, 3, 3, 3}}, {5, 3, 70, 8, 8, {1, 1, 1, 1}},
        {2, 48, 64, 17, 18, {1, 1, 1, 1}}, {1, 130, 200, 4, 6, {1, 1, 1, 1}},
    };
    (void)state;
    for (uint64_t i = 0; i < sizeof all / sizeof *all; i++) {
        check(&all[i], 2, 2 * i + 1);
        check(&all[i], 4, 3 * i + 2);
    }
}

static void random_shapes(void **state) {
    uint64_t r = 41;
    (void)state;
    for (uint64_t i = 0; i < 30; i++) {
        geometry q = {.batch = random_int(&r, 1, 3),
                      .c_in = random_int(&r, 1, 70),
                      .c_out = random_int(&r, 1, 140),
                      .h = random_int(&r, 3, 14),
                      .w = random_int(&r, 3, 14)};
        for (int k = 0; k < 4; k++) {
            q.pad[k] = random_int(&r, 0, 2);
        }
        check(&q, i % 2 ? 2 : 4, i + 100);
    }
}

/* The error of many channels, and that the test can tell one from another. */
static void errors_stay_small(void **state) {
    const geometry q = {1, 512, 16, 12, 12, {1, 1, 1, 1}};
    (void)state;
    check(&q, 2, 4);
    check(&q, 4, 4);
    problem p = problem_new(&q, 0, 4);
    double norm = reference(&p);
    memset(p.y.p, 0, (size_t)p.y.count * sizeof *p.y.p);
    assert_true(distance(&p) > 0.1 * norm);
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_of_all_kinds),
        cmocka_unit_test(random_shapes),
        cmocka_unit_test(errors_stay_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
