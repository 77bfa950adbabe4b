/* test_prims_gemm.c - the float32 GEMM prims of every instruction set against a sum in double.
 *
 * Bound: |c - reference| <= 2 * sqrt(K + 4) * eps * S, where S is the sum of |a||b| plus |bias| and
 * |residual| and eps is 2^-24: rounding errors of a chain of K sums behave like a random walk. */
#include "prims_matrix.h"
#include "prims_wide.h"

#include <math.h>

static const kiln_gemm_prims *const isas[ISA_COUNT] = {
    &kiln_gemm_prims_portable,
    &kiln_gemm_prims_wide,
    &kiln_gemm_prims_avx2,
    &kiln_gemm_prims_avx512,
};

static double act(const kiln_epilogue *e, double s) {
    s = s < 0 ? s * (double)e->slope : s;
    s = e->hard_swish ? s * fmin(fmax(s / 6 + 0.5, 0), 1) : s;
    return fmin(fmax(s, (double)e->lo), (double)e->hi);
}

typedef struct problem {
    kiln_gemm_args g;
    guarded a, w, b, c, bias, residual;
    double *want, *bound;
} problem;

/* A is m x k with rows k + a_gap apart, W is k x n; everything random. */
static problem problem_new(int64_t m, int64_t n, int64_t k, int64_t gap, uint64_t seed) {
    problem p = {0};
    uint64_t state = seed;
    p.a = guarded_random(m * k + (m > 0 ? (m - 1) * gap : 0), &state);
    p.w = guarded_random(k * n, &state);
    p.bias = guarded_random(n, &state);
    p.residual = guarded_random(m * n + (m > 0 ? (m - 1) * gap : 0), &state);
    p.c = guarded_new(m * n + (m > 0 ? (m - 1) * gap : 0));
    p.g = (kiln_gemm_args){.m = m,
                           .n = n,
                           .k = k,
                           .a = p.a.p,
                           .lda = k + gap,
                           .c = p.c.p,
                           .ldc = n + gap,
                           .epilogue = KILN_EPILOGUE_NONE};
    p.want = calloc((size_t)(m * n) + 1, sizeof *p.want);
    p.bound = calloc((size_t)(m * n) + 1, sizeof *p.bound);
    return p;
}

static void problem_free(problem *p) {
    guarded_free(&p->a);
    guarded_free(&p->w);
    guarded_free(&p->bias);
    guarded_free(&p->residual);
    guarded_free(&p->c);
    free(p->want);
    free(p->bound);
}

static void reference(problem *p) {
    const kiln_gemm_args *g = &p->g;
    const kiln_epilogue *e = &g->epilogue;
    double unit = 2 * sqrt((double)g->k + 4) * 0x1p-24;
    for (int64_t i = 0; i < g->m * g->n; i++) {
        int64_t m = i / g->n;
        int64_t n = i % g->n;
        double s = e->bias ? (double)e->bias[n] : 0;
        double size = fabs(s);
        for (int64_t k = 0; k < g->k; k++) {
            double term = (double)g->a[m * g->lda + k] * (double)p->w.p[k * g->n + n];
            s += term;
            size += fabs(term);
        }
        double r = e->residual ? (double)e->residual[m * e->ld_residual + n] : 0;
        p->want[i] = e->act_first ? act(e, s) + r : act(e, s + r);
        p->bound[i] = unit * (size + fabs(r)) * (e->hard_swish ? 2 : 1);
    }
}

static void pack_for(problem *p, const kiln_gemm_prims *isa) {
    int64_t floats = isa->packed_bytes(p->g.k, p->g.n) / 4;
    p->b = guarded_new(floats);
    isa->pack(p->b.p, p->w.p, p->g.k, p->g.n, p->g.n, 1, 0, isa->panels(p->g.n));
    p->g.b = p->b.p;
}

static void check_values(const problem *p, const kiln_gemm_prims *isa) {
    const kiln_gemm_args *g = &p->g;
    for (int64_t i = 0; i < g->m * g->n; i++) {
        double got = (double)g->c[i / g->n * g->ldc + i % g->n];
        if (!(fabs(got - p->want[i]) <= p->bound[i])) {
            fail_msg("%s %lldx%lldx%lld: element %lld is %.9g, want %.9g +- %.2g", isa->isa,
                     (long long)g->m, (long long)g->n, (long long)g->k, (long long)i, got,
                     p->want[i], p->bound[i]);
        }
    }
    for (int64_t m = 0; m + 1 < g->m; m++) {
        for (int64_t n = g->n; n < g->ldc; n++) {
            assert_true(is_canary(g->c + m * g->ldc + n));
        }
    }
}

/* Runs split into `parts` ranges, last range first. */
static void run_split(const kiln_gemm_prims *isa, const kiln_gemm_args *g, int64_t parts) {
    int64_t n = isa->tiles(g);
    for (int64_t i = parts - 1; i >= 0; i--) {
        isa->run(g, n * i / parts, n * (i + 1) / parts);
    }
}

static void check_splits(problem *p, const kiln_gemm_prims *isa) {
    size_t bytes = (size_t)p->c.count * sizeof(float);
    float *whole = malloc(bytes + 1);
    memcpy(whole, p->c.p, bytes);
    for (int64_t parts = 2; parts <= 7; parts += parts == 3 ? 4 : 1) {
        set_canaries(p->c.p, p->c.count);
        run_split(isa, &p->g, parts);
        assert_memory_equal(whole, p->c.p, bytes);
    }
    static const int32_t heights[] = {1, 3, 4, 6, 8, 12};
    for (size_t i = 0; i < sizeof heights / sizeof *heights; i++) {
        p->g.blocking.tile_rows = heights[i];
        set_canaries(p->c.p, p->c.count);
        run_split(isa, &p->g, 2);
        assert_memory_equal(whole, p->c.p, bytes);
    }
    p->g.blocking.tile_rows = 0;
    free(whole);
}

/* Gathers the same rows through a pointer table, K cut into `taps` pieces: the same bits. */
static void check_gather(problem *p, const kiln_gemm_prims *isa, int64_t taps) {
    kiln_gemm_args *g = &p->g;
    size_t bytes = (size_t)p->c.count * sizeof(float);
    float *whole = malloc(bytes + 1);
    memcpy(whole, p->c.p, bytes);
    const float **rows = malloc((size_t)(g->m * taps) * sizeof *rows);
    for (int64_t i = 0; i < g->m * taps; i++) {
        rows[i] = g->a + i / taps * g->lda + i % taps * (g->k / taps);
    }
    set_canaries(p->c.p, p->c.count);
    kiln_gemm_gather v = {.m = g->m,
                          .n = g->n,
                          .taps = taps,
                          .depth = g->k / taps,
                          .row = rows,
                          .b = g->b,
                          .c = g->c,
                          .ldc = g->ldc,
                          .epilogue = &g->epilogue,
                          .bias = g->epilogue.bias,
                          .residual = g->epilogue.residual};
    isa->gather(&v);
    assert_memory_equal(whole, p->c.p, bytes);
    free(rows);
    free(whole);
}

static void check_all(problem *p, bool thorough) {
    reference(p);
    for (int i = 0; i < ISA_COUNT; i++) {
        if (!isa_present(i)) {
            continue;
        }
        pack_for(p, isas[i]);
        set_canaries(p->c.p, p->c.count);
        run_split(isas[i], &p->g, 1);
        check_values(p, isas[i]);
        if (thorough) {
            check_splits(p, isas[i]);
            if (p->g.k > 0 && p->g.m > 0 && p->g.n > 0) {
                check_gather(p, isas[i], p->g.k % 3 == 0 ? 3 : 1);
            }
        }
        guarded_free(&p->b);
    }
}

static void test_every_small_shape(void **unused) {
    (void)unused;
    static const int64_t ms[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 17, 25};
    static const int64_t ns[] = {1, 3, 4, 5, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 64, 65, 97, 130};
    static const int64_t ks[] = {0, 1, 2, 5, 16, 37};
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++) {
            for (size_t k = 0; k < sizeof ks / sizeof *ks; k++) {
                problem p = problem_new(ms[i], ns[j], ks[k], (int64_t)(seed % 3), seed);
                p.g.epilogue.bias = seed % 2 ? p.bias.p : NULL;
                check_all(&p, seed % 4 == 0);
                problem_free(&p);
                seed++;
            }
        }
    }
}

static void test_blocked_shapes(void **unused) {
    (void)unused;
    static const int64_t shapes[][3] = {
        {49, 130, 769}, {197, 96, 641}, {1, 1000, 1031}, {2, 515, 700},  {3, 260, 1200},
        {400, 33, 64},  {97, 257, 127}, {64, 64, 2049},  {785, 17, 321}, {50, 1, 999},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        problem p = problem_new(shapes[i][0], shapes[i][1], shapes[i][2], 5, i + 100);
        p.g.epilogue.bias = p.bias.p;
        p.g.epilogue.residual = p.residual.p;
        p.g.epilogue.ld_residual = shapes[i][1] + 5;
        check_all(&p, true);
        problem_free(&p);
    }
}

static void test_epilogues(void **unused) {
    (void)unused;
    for (uint64_t bits = 0; bits < 64; bits++) {
        problem p = problem_new(19, 37, bits & 1 ? 23 : 700, 2, bits + 7);
        kiln_epilogue *e = &p.g.epilogue;
        e->bias = bits & 2 ? p.bias.p : NULL;
        e->residual = bits & 4 ? p.residual.p : NULL;
        e->ld_residual = 39;
        e->act_first = (bits & 8) != 0;
        e->slope = bits & 16 ? 0.125f : 1.0f;
        e->lo = bits & 16 ? -1.0f : 0.0f;
        e->hi = bits & 1 ? 6.0f : INFINITY;
        e->hard_swish = (bits & 32) != 0;
        check_all(&p, true);
        problem_free(&p);
    }
}

/* Adds 1000 to what it is given and counts, so that a block missed or run twice shows. */
static void add_thousand(const void *arg, float *c, int64_t ldc, int64_t row0, int64_t rows,
                         int64_t col0, int64_t cols) {
    const kiln_gemm_args *g = arg;
    assert_ptr_equal(c, g->c + row0 * ldc + col0);
    assert_int_equal(ldc, g->ldc);
    for (int64_t i = 0; i < rows * cols; i++) {
        c[i / cols * ldc + i % cols] += 1000.0f;
    }
}

static void test_post(void **unused) {
    (void)unused;
    problem p = problem_new(131, 150, 65, 3, 5);
    p.g.epilogue.post = add_thousand;
    p.g.epilogue.post_arg = &p.g;
    reference(&p);
    for (int64_t i = 0; i < p.g.m * p.g.n; i++) {
        p.want[i] += 1000;
        p.bound[i] += 1e-4;
    }
    for (int i = 0; i < ISA_COUNT; i++) {
        if (isa_present(i)) {
            pack_for(&p, isas[i]);
            run_split(isas[i], &p.g, 3);
            check_values(&p, isas[i]);
            guarded_free(&p.b);
        }
    }
    problem_free(&p);
}

static void test_nan_passes_relu(void **unused) {
    (void)unused;
    problem p = problem_new(14, 40, 9, 0, 3);
    p.a.p[5 * 9 + 2] = NAN;
    p.a.p[6 * 9 + 2] = INFINITY;
    p.w.p[2 * 40 + 7] = 0.0f;
    p.g.epilogue.lo = 0.0f;
    p.g.epilogue.hi = 6.0f;
    for (int i = 0; i < ISA_COUNT; i++) {
        if (!isa_present(i)) {
            continue;
        }
        pack_for(&p, isas[i]);
        run_split(isas[i], &p.g, 1);
        for (int64_t n = 0; n < 40; n++) {
            assert_true(isnan(p.c.p[5 * 40 + n]));
            float w = p.w.p[2 * 40 + n];
            float got = p.c.p[6 * 40 + n];
            assert_true(w == 0.0f ? isnan(got) : got == (w > 0.0f ? 6.0f : 0.0f));
        }
        guarded_free(&p.b);
    }
    problem_free(&p);
}

/* Packing from row-major, transposed and strided sources, whole and by ranges: one result. */
static void test_pack(void **unused) {
    (void)unused;
    const int64_t k = 45;
    const int64_t n = 71;
    uint64_t state = 9;
    guarded w = guarded_random(k * n, &state);
    guarded wt = guarded_new(k * n);
    guarded strided = guarded_new(2 * k * n - 1);
    for (int64_t i = 0; i < k * n; i++) {
        wt.p[i % n * k + i / n] = w.p[i];
        strided.p[2 * i] = w.p[i];
    }
    for (int i = 0; i < ISA_COUNT; i++) {
        const kiln_gemm_prims *isa = isas[i];
        if (!isa_present(i)) {
            continue;
        }
        int64_t count = isa->panels(n);
        size_t bytes = (size_t)isa->packed_bytes(k, n);
        assert_int_equal(bytes, (size_t)(count * isa->nr * k) * sizeof(float));
        guarded want = guarded_new((int64_t)(bytes / 4));
        guarded got = guarded_new((int64_t)(bytes / 4));
        isa->pack(want.p, w.p, k, n, n, 1, 0, count);
        for (int64_t j = 0; j < want.count; j++) {
            int64_t col = j / (k * isa->nr) * isa->nr + j % isa->nr;
            int64_t row = j / isa->nr % k;
            assert_true(want.p[j] == (col < n ? w.p[row * n + col] : 0.0f));
        }
        isa->pack(got.p, wt.p, k, n, 1, k, 1, count);
        isa->pack(got.p, wt.p, k, n, 1, k, 0, 1);
        assert_memory_equal(want.p, got.p, bytes);
        isa->pack(got.p, strided.p, k, n, 2 * n, 2, 0, count);
        assert_memory_equal(want.p, got.p, bytes);
        guarded_free(&want);
        guarded_free(&got);
    }
    guarded_free(&w);
    guarded_free(&wt);
    guarded_free(&strided);
}

static void test_empty(void **unused) {
    (void)unused;
    for (int i = 0; i < ISA_COUNT; i++) {
        kiln_gemm_args g = {.m = 0, .n = 5, .k = 5, .epilogue = KILN_EPILOGUE_NONE};
        assert_int_equal(isas[i]->tiles(&g), 0);
        g = (kiln_gemm_args){.m = 5, .n = 0, .k = 5, .epilogue = KILN_EPILOGUE_NONE};
        assert_int_equal(isas[i]->tiles(&g), 0);
    }
}

/* The comparison itself: one wrong bit in C must be seen. */
static void test_checker_sees_a_wrong_element(void **unused) {
    (void)unused;
    problem p = problem_new(7, 19, 33, 0, 11);
    reference(&p);
    pack_for(&p, isas[0]);
    run_split(isas[0], &p.g, 1);
    uint32_t word;
    memcpy(&word, p.c.p + 40, sizeof word);
    word ^= 1u << 12;
    memcpy(p.c.p + 40, &word, sizeof word);
    double error = fabs((double)p.c.p[40] - p.want[40]);
    assert_true(error > p.bound[40]);
    guarded_free(&p.b);
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_small_shape),
        cmocka_unit_test(test_blocked_shapes),
        cmocka_unit_test(test_epilogues),
        cmocka_unit_test(test_post),
        cmocka_unit_test(test_nan_passes_relu),
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_checker_sees_a_wrong_element),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
