/* test_prims_gemm_q8.c - the 8-bit GEMM prims of every instruction set against plain loops, bit for
 * bit. */
#include "prims_util.h"

#include "base/cpu.h"
#include "prims_wide.h"

static const struct {
    const kiln_gemm_q8_prims *prims;
    kiln_isa isa;
    uint32_t flag;
} forms[] = {
#define FORM(isa, rung, flag) {&kiln_gemm_q8_prims_##isa, rung, flag},
    Q8_FORMS(FORM) Q8_TILE_FORMS(FORM)
#undef FORM
};
enum { FORMS = sizeof forms / sizeof *forms };

static bool present(int i) {
    uint32_t cpu = kiln_cpu_features();
    return kiln_cpu_isa(cpu) >= forms[i].isa && (cpu & forms[i].flag) == forms[i].flag;
}

typedef struct problem {
    kiln_gemm_q8_args g;
    uint8_t *a, *residual;
    int8_t *w;
    char *c, *want;
    size_t c_bytes;
    int32_t *start;
    float *scale, *offset;
} problem;

/* How a problem's numbers are chosen. */
typedef struct style {
    bool extreme; /* A and W at the ends of their ranges, where sums and pairs are largest */
    bool residual, to_float;
    int64_t gap; /* between rows */
    float step;  /* size of the scales */
    float lo, hi;
    int32_t zero;
} style;

static const style plain = {.step = 1e-3f, .lo = -128, .hi = 127, .zero = 128};

static int32_t byte_of(rng *r, bool extreme, int32_t lo, int32_t hi) {
    uint32_t v = rng_u32(r);
    return extreme ? (v % 8 ? hi : lo) : lo + (int32_t)(v % (uint32_t)(hi - lo + 1));
}

static problem problem_new(int64_t m, int64_t n, int64_t k, const style *s, uint64_t seed) {
    problem p = {0};
    rng r = {seed};
    int64_t lda = k + s->gap, ldc = n + s->gap, item = s->to_float ? 4 : 1;
    p.a = guard_bytes((size_t)((m - 1) * lda + k), 1);
    for (int64_t i = 0; i < (m - 1) * lda + k; i++) {
        p.a[i] = (uint8_t)byte_of(&r, s->extreme, 0, 255);
    }
    p.w = guard_bytes((size_t)(k * n), 1);
    for (int64_t i = 0; i < k * n; i++) {
        p.w[i] = (int8_t)byte_of(&r, s->extreme, 127, -128);
    }
    p.c_bytes = (size_t)(((m - 1) * ldc + n) * item);
    p.c = guard_bytes(p.c_bytes, (size_t)item);
    p.want = malloc(p.c_bytes);
    memset(p.c, 0x5a, p.c_bytes);
    memset(p.want, 0x5a, p.c_bytes);
    p.residual = guard_bytes((size_t)((m - 1) * ldc + n), 1);
    for (int64_t i = 0; i < (m - 1) * ldc + n; i++) {
        p.residual[i] = (uint8_t)rng_u32(&r);
    }
    size_t table = (size_t)n + KILN_Q8_TABLE_PAD;
    p.start = calloc(table, sizeof *p.start);
    p.scale = calloc(table, sizeof *p.scale);
    p.offset = calloc(table, sizeof *p.offset);
    for (int64_t i = 0; i < n; i++) {
        p.start[i] = (int32_t)(rng_u32(&r) % 20001) - 10000;
        p.scale[i] = s->step * rng_float(&r, 0.25f, 1.0f);
        p.offset[i] = rng_float(&r, -20, 20);
    }
    p.g = (kiln_gemm_q8_args){
        .m = m,
        .n = n,
        .k = k,
        .a = p.a,
        .lda = lda,
        .c = p.c,
        .ldc = ldc,
        .epilogue = {.start = p.start,
                     .scale = p.scale,
                     .offset = p.offset,
                     .residual = s->residual ? p.residual : NULL,
                     .ld_residual = ldc,
                     .residual_zero = (int32_t)(rng_u32(&r) % 256),
                     .residual_scale = rng_float(&r, 0.2f, 1.5f),
                     .lo = s->lo,
                     .hi = s->hi,
                     .zero = s->zero,
                     .to_float = s->to_float},
    };
    return p;
}

static void problem_free(problem *p) {
    guard_free(p->a);
    guard_free(p->w);
    guard_free(p->c);
    guard_free(p->residual);
    free(p->want);
    free(p->start);
    free(p->scale);
    free(p->offset);
}

static void reference(problem *p) {
    const kiln_gemm_q8_args *g = &p->g;
    const kiln_q8_epilogue *e = &g->epilogue;
    for (int64_t i = 0; i < g->m; i++) {
        for (int64_t j = 0; j < g->n; j++) {
            int64_t s = e->start[j];
            for (int64_t k = 0; k < g->k; k++) {
                s += g->a[i * g->lda + k] * p->w[k * g->n + j];
            }
            assert_true(s == (int32_t)s);
            float product = (float)(int32_t)s * e->scale[j];
            float v = product + e->offset[j];
            if (e->residual) {
                int32_t r = e->residual[i * e->ld_residual + j] - e->residual_zero;
                float skip = (float)r * e->residual_scale;
                v = v + skip;
            }
            v = v > e->lo ? v : e->lo;
            v = v < e->hi ? v : e->hi;
            int64_t at = i * g->ldc + j;
            if (e->to_float) {
                memcpy(p->want + 4 * at, &v, sizeof v);
            } else {
                p->want[at] = (char)(uint8_t)((int32_t)nearbyintf(v) + e->zero);
            }
        }
    }
}

/* Runs one form, split into `parts` ranges, last range first, and compares. */
static void check(problem *p, int form, int64_t parts) {
    const kiln_gemm_q8_prims *isa = forms[form].prims;
    kiln_gemm_q8_args *g = &p->g;
    void *b = guard_bytes((size_t)isa->packed_bytes(g->k, g->n), 0);
    isa->pack(b, p->w, g->k, g->n, g->n, 1, 0, 0, isa->panels(g->n));
    g->b = b;
    void *scratch = guard_bytes((size_t)isa->scratch_bytes(g), 0);
    memset(p->c, 0x5a, p->c_bytes);
    int64_t n = isa->tiles(g);
    for (int64_t i = parts - 1; i >= 0; i--) {
        isa->run(g, n * i / parts, n * (i + 1) / parts, scratch);
    }
    if (memcmp(p->c, p->want, p->c_bytes) != 0) {
        size_t at = 0;
        while (p->c[at] == p->want[at]) {
            at++;
        }
        fail_msg("%s group %d, %lldx%lldx%lld: byte %zu is %d, want %d", isa->isa, isa->group,
                 (long long)g->m, (long long)g->n, (long long)g->k, at, (uint8_t)p->c[at],
                 (uint8_t)p->want[at]);
    }
    guard_free(b);
    guard_free(scratch);
}

static void check_all(int64_t m, int64_t n, int64_t k, const style *s, uint64_t seed) {
    problem p = problem_new(m, n, k, s, seed);
    reference(&p);
    for (int i = 0; i < FORMS; i++) {
        if (present(i)) {
            check(&p, i, 1 + (int64_t)(seed % 3));
        }
    }
    problem_free(&p);
}

static void test_every_small_shape(void **unused) {
    (void)unused;
    static const int64_t columns[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40};
    for (int64_t m = 1; m <= 26; m++) {
        for (size_t j = 0; j < sizeof columns / sizeof *columns; j++) {
            int64_t k = 1 + (m * 7 + columns[j] * 3) % 37;
            check_all(m, columns[j], k, &plain, (uint64_t)(m * 100 + columns[j]));
        }
    }
}

static void test_depths(void **unused) {
    (void)unused;
    for (int64_t k = 1; k <= 70; k++) {
        check_all(7, 21, k, &plain, (uint64_t)k);
    }
}

static void test_blocked_shapes(void **unused) {
    (void)unused;
    static const int64_t shapes[][3] = {{300, 70, 50},  {49, 130, 1031}, {1, 515, 700},
                                        {193, 33, 900}, {24, 300, 4610}, {401, 16, 64}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_all(shapes[i][0], shapes[i][1], shapes[i][2], &plain, i + 1);
    }
}

/* The largest sums there are, 255 * 128 * K, and pairs that a saturating instruction would clip. */
static void test_extremes(void **unused) {
    (void)unused;
    style s = plain;
    s.extreme = true;
    s.step = 1e-7f;
    check_all(13, 33, 64, &s, 1);
    check_all(5, 17, 4609, &s, 2);
    problem p = problem_new(2, 3, KILN_Q8_MAX_K, &plain, 3);
    memset(p.a, 255, (size_t)(2 * KILN_Q8_MAX_K));
    memset(p.w, 0x80, (size_t)(3 * KILN_Q8_MAX_K));
    for (int i = 0; i < 3; i++) {
        p.start[i] = 0;
        p.scale[i] = 0x1p-25f;
    }
    reference(&p);
    for (int i = 0; i < FORMS; i++) {
        if (present(i)) {
            check(&p, i, 1);
        }
    }
    problem_free(&p);
}

static void test_epilogues(void **unused) {
    (void)unused;
    uint64_t seed = 1;
    for (int bits = 0; bits < 8; bits++) {
        style s = plain;
        s.residual = bits & 1;
        s.gap = bits & 2 ? 5 : 0;
        s.step = bits & 4 ? 0.4f : 1e-3f; /* most results saturate, or few */
        check_all(19, 37, 41, &s, seed++);
        s.zero = 0;
        s.lo = 0;
        s.hi = 255;
        check_all(8, 24, 16, &s, seed++);
        s.zero = 255;
        s.lo = -200;
        s.hi = 0;
        check_all(9, 40, 23, &s, seed++);
        s.to_float = true;
        s.lo = -1.5f;
        s.hi = 30.25f;
        check_all(9, 29, 30, &s, seed++);
    }
}

/* Halves round to even; NaN and infinite values end at the bounds. */
static void test_rounding(void **unused) {
    (void)unused;
    problem p = problem_new(6, 20, 1, &plain, 5);
    for (int64_t i = 0; i < 20; i++) {
        p.start[i] = (int32_t)i - 10;
        p.scale[i] = i == 17 ? INFINITY : i == 18 ? -INFINITY : i == 19 ? NAN : 0.5f;
        p.offset[i] = i == 16 ? 3e38f : 0;
        p.w[i] = 1;
    }
    for (int64_t i = 0; i < 6; i++) {
        p.a[i] = (uint8_t)i;
    }
    reference(&p);
    assert_int_equal((uint8_t)p.want[0], 128 - 5);
    assert_int_equal((uint8_t)p.want[1], 128 - 4);
    assert_int_equal((uint8_t)p.want[19], 0);
    for (int i = 0; i < FORMS; i++) {
        if (present(i)) {
            check(&p, i, 1);
        }
    }
    problem_free(&p);
}

/* Packing from columns, from wider strides, of single panels, and of uint8. */
static void test_pack(void **unused) {
    (void)unused;
    const int64_t k = 45, n = 71;
    rng r = {9};
    uint8_t w[45 * 71], wt[45 * 71], strided[2 * 45 * 71];
    for (int64_t i = 0; i < k * n; i++) {
        w[i] = (uint8_t)rng_u32(&r);
        wt[i % n * k + i / n] = w[i];
        strided[2 * i] = (uint8_t)(w[i] ^ 0x80);
    }
    for (int i = 0; i < FORMS; i++) {
        const kiln_gemm_q8_prims *isa = forms[i].prims;
        if (!present(i)) {
            continue;
        }
        size_t bytes = (size_t)isa->packed_bytes(k, n);
        int64_t count = isa->panels(n);
        int8_t *want = guard_bytes(bytes, 0), *got = guard_bytes(bytes, 0);
        isa->pack(want, w, k, n, n, 1, 0, 0, count);
        isa->pack(got, wt, k, n, 1, k, 0, 1, count);
        isa->pack(got, wt, k, n, 1, k, 0, 0, 1);
        assert_memory_equal(want, got, bytes);
        memset(got, 1, bytes);
        isa->pack(got, strided, k, n, 2 * n, 2, 0x80, 0, count);
        assert_memory_equal(want, got, bytes);
        guard_free(want);
        guard_free(got);
    }
}

static void test_empty(void **unused) {
    (void)unused;
    for (int i = 0; i < FORMS; i++) {
        kiln_gemm_q8_args g = {.m = 0, .n = 5, .k = 5};
        assert_int_equal(forms[i].prims->tiles(&g), 0);
        assert_int_equal(forms[i].prims->scratch_bytes(&g), 0);
        g = (kiln_gemm_q8_args){.m = 5, .n = 0, .k = 5};
        assert_int_equal(forms[i].prims->tiles(&g), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_small_shape),
        cmocka_unit_test(test_depths),
        cmocka_unit_test(test_blocked_shapes),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_epilogues),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
