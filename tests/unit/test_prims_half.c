/* test_prims_half.c - GEMM and convolution prims with weights in 16 bits, of every instruction set
 * and form, against sums in double over the operands as the form rounds them.
 *
 * Bound: 2 * sqrt(K + 4) * eps * S, as in test_prims_gemm.c: the operands rounded, what is left are
 * the roundings of a float32 sum. Numbers stay clear of denormals, which dot products flush. */
#include "prims_matrix.h"

#include <math.h>

#include "base/cpu.h"
#include "base/half.h"
#include "prims_wide.h"

typedef enum form { BF16, F16 } form;

extern const kiln_gemm_prims kiln_gemm_bf16_prims_portable, kiln_gemm_f16_prims_portable;
extern const kiln_conv_prims kiln_conv_bf16_prims_portable, kiln_conv_f16_prims_portable;
#if defined(__x86_64__)
extern const kiln_gemm_prims kiln_gemm_bf16_prims_avx2, kiln_gemm_f16_prims_avx2;
extern const kiln_conv_prims kiln_conv_bf16_prims_avx2, kiln_conv_f16_prims_avx2;
extern const kiln_gemm_prims kiln_gemm_bf16_prims_avx512, kiln_gemm_f16_prims_avx512,
    kiln_gemm_dot_prims_avx512, kiln_gemm_tile_prims_avx512;
extern const kiln_conv_prims kiln_conv_bf16_prims_avx512, kiln_conv_f16_prims_avx512,
    kiln_conv_dot_prims_avx512, kiln_conv_tile_prims_avx512;
#endif

static const struct {
    const kiln_gemm_prims *gemm;
    const kiln_conv_prims *conv;
    form form;
    kiln_isa isa;
    uint32_t flag;
} sets[] = {
    {&kiln_gemm_bf16_prims_portable, &kiln_conv_bf16_prims_portable, BF16, KILN_ISA_PORTABLE, 0},
    {&kiln_gemm_f16_prims_portable, &kiln_conv_f16_prims_portable, F16, KILN_ISA_PORTABLE, 0},
    {&kiln_gemm_bf16_prims_wide, &kiln_conv_bf16_prims_wide, BF16, KILN_ISA_PORTABLE, 0},
    {&kiln_gemm_dot_prims_wide, &kiln_conv_dot_prims_wide, BF16, KILN_ISA_PORTABLE, 0},
    {&kiln_gemm_tile_prims_wide, &kiln_conv_tile_prims_wide, BF16, KILN_ISA_PORTABLE, 0},
#if defined(__x86_64__)
    {&kiln_gemm_bf16_prims_avx2, &kiln_conv_bf16_prims_avx2, BF16, KILN_ISA_AVX2, 0},
    {&kiln_gemm_f16_prims_avx2, &kiln_conv_f16_prims_avx2, F16, KILN_ISA_AVX2, 0},
    {&kiln_gemm_bf16_prims_avx512, &kiln_conv_bf16_prims_avx512, BF16, KILN_ISA_AVX512, 0},
    {&kiln_gemm_f16_prims_avx512, &kiln_conv_f16_prims_avx512, F16, KILN_ISA_AVX512, 0},
    {&kiln_gemm_dot_prims_avx512, &kiln_conv_dot_prims_avx512, BF16, KILN_ISA_AVX512,
     KILN_CPU_BF16},
    {&kiln_gemm_tile_prims_avx512, &kiln_conv_tile_prims_avx512, BF16, KILN_ISA_AVX512,
     KILN_CPU_AMX_BF16},
#endif
};
enum { SETS = sizeof sets / sizeof *sets };

static bool present(int i) {
    uint32_t cpu = kiln_cpu_features();
    return kiln_cpu_isa(cpu) >= sets[i].isa && (cpu & sets[i].flag) == sets[i].flag;
}

static double bf16(float v) {
    return (double)kiln_bf16_to_f32(kiln_f32_to_bf16(v));
}

/* The operands as the form rounds them. */
static double left(form f, float v) {
    return f == BF16 ? bf16(v) : (double)v;
}
static double right(form f, float v) {
    return f == BF16 ? bf16(v) : (double)kiln_f16_to_f32(kiln_f32_to_f16(v));
}

/* `rows` rows of n elements as the prims read them; the words of a row through *words. */
static guarded stage(const kiln_gemm_prims *p, const float *src, int64_t rows, int64_t n,
                     int64_t *words) {
    *words = (n + p->step - 1) / p->step;
    guarded out = guarded_new(rows * *words);
    if (p->stage) {
        p->stage(out.p, src, rows, n);
    } else {
        memcpy(out.p, src, (size_t)(rows * n) * sizeof *src);
    }
    return out;
}

/* ---- GEMM ---- */

static void check_gemm(int set, int64_t m, int64_t n, int64_t k, bool transposed) {
    const kiln_gemm_prims *p = sets[set].gemm;
    uint64_t state = (uint64_t)(m * 131 + n * 17 + k);
    int64_t words;
    guarded x = guarded_random(m * k, &state), w = guarded_random(k * n, &state);
    guarded bias = guarded_random(n, &state), c = guarded_new(m * n);
    guarded a = stage(p, x.p, m, k, &words);
    guarded b = guarded_new((p->packed_bytes(k, n) + 3) / 4);
    p->pack(b.p, w.p, k, n, transposed ? 1 : n, transposed ? k : 1, 0, p->panels(n));
    kiln_gemm_args g = {.m = m,
                        .n = n,
                        .k = words,
                        .a = a.p,
                        .lda = words,
                        .b = b.p,
                        .c = c.p,
                        .ldc = n,
                        .epilogue = KILN_EPILOGUE_NONE};
    g.epilogue.bias = bias.p;
    p->run(&g, 0, p->tiles(&g));
    for (int64_t i = 0; i < m * n; i++) {
        double sum = (double)bias.p[i % n], size = fabs(sum);
        for (int64_t j = 0; j < k; j++) {
            float v = transposed ? w.p[i % n * k + j] : w.p[j * n + i % n];
            double term = left(sets[set].form, x.p[i / n * k + j]) * right(sets[set].form, v);
            sum += term;
            size += fabs(term);
        }
        double bound = 2 * sqrt((double)k + 4) * 0x1p-24 * size;
        if (!(fabs((double)c.p[i] - sum) <= bound)) {
            fail_msg("set %d %lldx%lldx%lld: element %lld is %.9g, want %.9g +- %.2g", set,
                     (long long)m, (long long)n, (long long)k, (long long)i, (double)c.p[i], sum,
                     bound);
        }
    }
    float *whole = malloc((size_t)(m * n) * sizeof *whole + 1);
    memcpy(whole, c.p, (size_t)(m * n) * sizeof *whole);
    for (int64_t parts = 2; parts <= 5; parts++) {
        int64_t tiles = p->tiles(&g);
        set_canaries(c.p, c.count);
        for (int64_t i = parts - 1; i >= 0; i--) {
            p->run(&g, tiles * i / parts, tiles * (i + 1) / parts);
        }
        assert_memory_equal(whole, c.p, (size_t)(m * n) * sizeof *whole);
    }
    free(whole);
    guarded_free(&x);
    guarded_free(&w);
    guarded_free(&bias);
    guarded_free(&c);
    guarded_free(&a);
    guarded_free(&b);
}

static void test_gemm(void **unused) {
    (void)unused;
    static const int64_t sizes[][3] = {{1, 1, 1},    {1, 7, 5},     {2, 65, 33},  {3, 130, 64},
                                       {4, 16, 96},  {5, 31, 31},   {6, 32, 400}, {7, 33, 1},
                                       {12, 48, 65}, {13, 64, 130}, {25, 17, 7},  {64, 96, 700}};
    for (int s = 0; s < SETS; s++) {
        for (size_t i = 0; present(s) && i < sizeof sizes / sizeof *sizes; i++) {
            check_gemm(s, sizes[i][0], sizes[i][1], sizes[i][2], i % 2);
        }
    }
}

/* ---- Convolution ---- */

typedef struct geometry {
    int64_t h, w, c_in, c_out, groups, kernel, stride, pad;
    bool transposed;
} geometry;

static kiln_conv_args conv_of(const geometry *g, int64_t depth) {
    int64_t oh = g->transposed ? (g->h - 1) * g->stride - 2 * g->pad + g->kernel
                               : (g->h + 2 * g->pad - g->kernel) / g->stride + 1;
    int64_t ow = g->transposed ? (g->w - 1) * g->stride - 2 * g->pad + g->kernel
                               : (g->w + 2 * g->pad - g->kernel) / g->stride + 1;
    int64_t pixel = g->groups * depth;
    return (kiln_conv_args){.batch = 1,
                            .groups = g->groups,
                            .c_in = g->c_in,
                            .c_out = g->c_out,
                            .in = {1, g->h, g->w},
                            .out = {1, oh, ow},
                            .kernel = {1, g->kernel, g->kernel},
                            .stride = {1, g->stride, g->stride},
                            .dilation = {1, 1, 1},
                            .pad = {0, g->pad, g->pad},
                            .transposed = g->transposed,
                            .x_batch = g->h * g->w * pixel,
                            .x_stride = {g->h * g->w * pixel, g->w * pixel, pixel},
                            .x_channel = 1,
                            .ldy = g->c_out,
                            .epilogue = KILN_EPILOGUE_NONE};
}

/* Output element by the definition; *size: the sum of the terms' magnitudes. */
static double conv_element(const geometry *g, form f, const kiln_conv_args *a, const float *x,
                           const float *w, int64_t pixel, int64_t channel, double *size) {
    int64_t depth = g->c_in / g->groups, cols = g->c_out / g->groups, group = channel / cols;
    int64_t oy = pixel / a->out[2], ox = pixel % a->out[2];
    double sum = 0;
    *size = 0;
    for (int64_t t = 0; t < g->kernel * g->kernel; t++) {
        int64_t ky = t / g->kernel, kx = t % g->kernel;
        int64_t y = g->transposed ? oy + g->pad - ky : oy * g->stride - g->pad + ky;
        int64_t z = g->transposed ? ox + g->pad - kx : ox * g->stride - g->pad + kx;
        if (g->transposed && (y % g->stride || z % g->stride)) {
            continue;
        }
        y /= g->transposed ? g->stride : 1;
        z /= g->transposed ? g->stride : 1;
        for (int64_t c = 0; y >= 0 && z >= 0 && y < g->h && z < g->w && c < depth; c++) {
            int64_t at =
                g->transposed ? (group * depth + c) * cols + channel % cols : channel * depth + c;
            double term = left(f, x[(y * g->w + z) * g->c_in + group * depth + c]) *
                          right(f, w[at * g->kernel * g->kernel + t]);
            sum += term;
            *size += fabs(term);
        }
    }
    return sum;
}

/* Every way to bring the rows together gives the bits of y. */
static void check_tactics(const kiln_conv_prims *p, kiln_conv_args a, const guarded *y) {
    const size_t bytes = (size_t)y->count * sizeof(float);
    float *want = malloc(bytes);
    memcpy(want, y->p, bytes);
    for (int tactic = KILN_CONV_GATHER; tactic <= KILN_CONV_LINES; tactic++) {
        a.tactic = (kiln_conv_tactic)tactic;
        guarded scratch = guarded_new((p->scratch_bytes(&a) + 63) / 64 * 16);
        set_canaries(scratch.p, scratch.count);
        set_canaries(y->p, y->count);
        for (int64_t i = p->tiles(&a); i > 0; i--) {
            p->run(&a, i - 1, i, scratch.p);
        }
        assert_memory_equal(want, y->p, bytes);
        guarded_free(&scratch);
    }
    free(want);
}

static void check_conv(int set, const geometry *g, size_t number) {
    const kiln_conv_prims *p = sets[set].conv;
    uint64_t state = 77;
    int64_t depth, taps = g->kernel * g->kernel;
    guarded x = guarded_random(g->h * g->w * g->c_in, &state);
    guarded w = guarded_random(g->c_out * g->c_in / g->groups * taps, &state);
    guarded words =
        stage(sets[set].gemm, x.p, g->h * g->w * g->groups, g->c_in / g->groups, &depth);
    kiln_conv_args a = conv_of(g, depth);
    int64_t pixels = a.out[1] * a.out[2];
    guarded b = guarded_new((p->packed_bytes(&a) + 3) / 4), y = guarded_new(pixels * g->c_out);
    guarded scratch = guarded_new((p->scratch_bytes(&a) + 63) / 64 * 16);
    a.x = words.p;
    a.w = b.p;
    a.y = y.p;
    p->pack(b.p, w.p, &a);
    for (int64_t i = p->tiles(&a); i > 0; i--) {
        p->run(&a, i - 1, i, scratch.p);
    }
    for (int64_t i = 0; i < pixels * g->c_out; i++) {
        double size;
        double want =
            conv_element(g, sets[set].form, &a, x.p, w.p, i / g->c_out, i % g->c_out, &size);
        double bound = 2 * sqrt((double)(taps * depth * 2) + 4) * 0x1p-24 * size;
        if (!(fabs((double)y.p[i] - want) <= bound)) {
            fail_msg("set %d, convolution %zu: element %lld is %.9g, want %.9g +- %.2g", set,
                     number, (long long)i, (double)y.p[i], want, bound);
        }
    }
    if (!g->transposed) {
        check_tactics(p, a, &y);
    }
    guarded_free(&x);
    guarded_free(&w);
    guarded_free(&words);
    guarded_free(&b);
    guarded_free(&y);
    guarded_free(&scratch);
}

static void test_conv(void **unused) {
    (void)unused;
    static const geometry all[] = {
        {5, 7, 8, 16, 1, 3, 1, 1, false},  {9, 9, 3, 33, 1, 3, 2, 1, false},
        {6, 5, 7, 40, 1, 1, 1, 0, false},  {4, 4, 64, 64, 1, 1, 1, 0, false},
        {7, 7, 12, 8, 4, 3, 1, 1, false},  {11, 8, 33, 70, 1, 3, 1, 1, false},
        {8, 8, 17, 5, 1, 5, 2, 2, false},  {4, 5, 8, 6, 1, 4, 2, 1, true},
        {5, 3, 9, 35, 1, 3, 2, 1, true},   {4, 4, 6, 10, 2, 2, 2, 0, true},
        {7, 7, 64, 40, 1, 3, 1, 1, false}, {13, 15, 32, 33, 1, 3, 2, 1, false},
        {6, 9, 64, 48, 2, 3, 1, 1, false}, {20, 35, 32, 8, 1, 5, 1, 2, false},
        {7, 9, 96, 18, 3, 3, 2, 0, false}, {9, 9, 32, 20, 1, 1, 2, 0, false},
    };
    for (int s = 0; s < SETS; s++) {
        for (size_t i = 0; present(s) && i < sizeof all / sizeof *all; i++) {
            check_conv(s, &all[i], i);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_conv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
