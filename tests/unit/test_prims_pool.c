/* test_prims_pool.c - pools of backend/cpu/prims/pool.h against a direct double-precision model, on
 * every instruction set present. */
#include "prims_util.h"

#include "backend/cpu/prims/pool.h"
#include "base/half.h"

ISA_TABLE(kiln_pool_prims);

/* The window of output pixel o and channel c, tap by tap. */
static double reference(const kiln_pool_args *a, int64_t n, const int64_t *o, int64_t c) {
    double max = -INFINITY, sum = 0, count = 0;
    for (int64_t i = 0; i < a->kernel[0] * a->kernel[1] * a->kernel[2]; i++) {
        int64_t k[3] = {i / (a->kernel[1] * a->kernel[2]), i / a->kernel[2] % a->kernel[1],
                        i % a->kernel[2]};
        int64_t at[3];
        bool inside = true, padded = true;
        for (int d = 0; d < 3; d++) {
            at[d] = o[d] * a->stride[d] - a->pad[d] + k[d] * a->dilation[d];
            inside = inside && at[d] >= 0 && at[d] < a->in[d];
            padded = padded && at[d] < a->in[d] + a->pad_end[d];
        }
        count += inside || (a->include_pad && padded);
        if (!inside) {
            continue;
        }
        const int64_t pixel = ((n * a->in[0] + at[0]) * a->in[1] + at[1]) * a->in[2] + at[2];
        double v = ((const float *)a->x)[pixel * a->channels + c];
        max = isnan(max) || isnan(v) ? NAN : v > max ? v : max;
        sum += a->op == KILN_POOL_LP ? pow(fabs(v), a->p) : v;
    }
    return a->op == KILN_POOL_MAX   ? max
           : a->op == KILN_POOL_AVG ? sum / count
                                    : pow(sum, 1.0 / a->p);
}

typedef struct job {
    const kiln_pool_prims *prims;
    const kiln_pool_args *args;
    const kiln_global_pool_args *global;
} job;

static void run_job(void *arg, int64_t a, int64_t b) {
    job *j = arg;
    if (j->args != NULL) {
        j->prims->pool(j->args, a, b);
    } else {
        j->prims->global_pool(j->global, a, b);
    }
}

/* Elements of x rounded to bfloat16 in place, and as such. */
static uint16_t *rounded(float *x, int64_t n) {
    uint16_t *half = guard_bytes((size_t)n * sizeof *half, sizeof *half);
    for (int64_t i = 0; i < n; i++) {
        half[i] = kiln_f32_to_bf16(x[i]);
        x[i] = kiln_bf16_to_f32(half[i]);
    }
    return half;
}

/* What is held in bfloat16 gives the bits of the same numbers as floats, rounded on request. */
static void check_half(int isa, kiln_pool_args a, int64_t in, int64_t pixels) {
    const int64_t out = pixels * a.channels;
    float *x = guard_floats(in, 1), *want = guard_floats(out, 1), *y = guard_floats(out, 1);
    uint16_t *half_y = guard_bytes((size_t)out * sizeof *half_y, sizeof *half_y);
    memcpy(x, a.x, (size_t)in * sizeof *x);
    uint16_t *half_x = rounded(x, in);
    kiln_pool_args same = a, from = a, both = a;
    same.x = x;
    same.y = want;
    from.x = both.x = half_x;
    from.half_x = both.half_x = both.half_y = true;
    from.y = y;
    both.y = half_y;
    prims_of[isa]->pool(&same, 0, pixels);
    prims_of[isa]->pool(&from, 0, pixels);
    prims_of[isa]->pool(&both, 0, pixels);
    assert_memory_equal(want, y, (size_t)out * sizeof *y);
    for (int64_t i = 0; i < out; i++) {
        const float narrow = kiln_bf16_to_f32(half_y[i]);
        assert_true(isnan(y[i]) ? isnan(narrow) : half_y[i] == kiln_f32_to_bf16(y[i]));
    }
    guard_free(x);
    guard_free(want);
    guard_free(y);
    guard_free(half_x);
    guard_free(half_y);
}

static void check(int isa, kiln_pool_args a) {
    int64_t in = a.batch * a.in[0] * a.in[1] * a.in[2] * a.channels;
    int64_t pixels = a.batch * a.out[0] * a.out[1] * a.out[2];
    float *x = guard_floats(in, 1), *y = guard_floats(pixels * a.channels, 1);
    float *first = guard_floats(pixels * a.channels, 0);
    rng r = {.state = 5};
    rng_fill(&r, x, in, -2, 2);
    if (a.op == KILN_POOL_MAX) {
        x[in / 2] = NAN;
        x[in / 3] = -INFINITY;
    }
    a.x = x;
    a.y = y;
    job j = {prims_of[isa], &a, NULL};
    for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
        memset(y, 0x44, (size_t)(pixels * a.channels) * 4);
        in_pieces(pixels, split_ways[w], run_job, &j);
        if (w == 0) {
            memcpy(first, y, (size_t)(pixels * a.channels) * 4);
        }
        assert_memory_equal(first, y, (size_t)(pixels * a.channels) * 4);
    }
    for (int64_t i = 0; i < pixels * a.channels; i++) {
        int64_t p = i / a.channels;
        int64_t o[3] = {p / (a.out[1] * a.out[2]) % a.out[0], p / a.out[2] % a.out[1],
                        p % a.out[2]};
        int64_t n = p / (a.out[0] * a.out[1] * a.out[2]);
        assert_close("pool", i, y[i], reference(&a, n, o, i % a.channels), 1e-6, 2e-6);
    }
    check_half(isa, a, in, pixels);
    guard_free(x);
    guard_free(y);
    guard_free(first);
}

static const kiln_pool_args cases[] = {
    {.batch = 1,
     .channels = 64,
     .in = {1, 13, 12},
     .out = {1, 7, 6},
     .kernel = {1, 3, 3},
     .stride = {1, 2, 2},
     .dilation = {1, 1, 1},
     .pad = {0, 1, 1},
     .pad_end = {0, 1, 1}},
    {.batch = 2,
     .channels = 5,
     .in = {1, 9, 8},
     .out = {1, 8, 7},
     .kernel = {1, 2, 2},
     .stride = {1, 1, 1},
     .dilation = {1, 1, 1}},
    {.batch = 2,
     .channels = 37,
     .in = {4, 5, 6},
     .out = {3, 4, 3},
     .kernel = {2, 3, 3},
     .stride = {1, 1, 2},
     .dilation = {1, 2, 1},
     .pad = {0, 1, 0},
     .pad_end = {0, 2, 1}},
    /* ceil_mode: the last window hangs two past the padding */
    {.batch = 1,
     .channels = 16,
     .in = {1, 1, 10},
     .out = {1, 1, 5},
     .kernel = {1, 1, 3},
     .stride = {1, 1, 3},
     .dilation = {1, 1, 1},
     .pad = {0, 0, 2},
     .pad_end = {0, 0, 1}},
    {.batch = 1,
     .channels = 1,
     .in = {1, 6, 6},
     .out = {1, 2, 2},
     .kernel = {1, 5, 5},
     .stride = {1, 3, 3},
     .dilation = {1, 1, 1},
     .pad = {0, 2, 2},
     .pad_end = {0, 2, 2}},
    {.batch = 1,
     .channels = 100,
     .in = {1, 7, 7},
     .out = {1, 1, 1},
     .kernel = {1, 7, 7},
     .stride = {1, 1, 1},
     .dilation = {1, 1, 1}},
};

static void test_pool(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(cases); k++) {
            for (int v = 0; v < 6; v++) {
                kiln_pool_args a = cases[k];
                a.op = v == 0 ? KILN_POOL_MAX : v < 3 ? KILN_POOL_AVG : KILN_POOL_LP;
                a.include_pad = v == 2;
                a.p = v - 2;
                check(isa, a);
            }
        }
    }
}

static void check_global(int isa, kiln_pool_op op, int32_t p, int64_t batch, int64_t spatial,
                         int64_t channels) {
    int64_t in = batch * spatial * channels;
    float *x = guard_floats(in, 1), *y = guard_floats(batch * channels, 1);
    float *first = guard_floats(batch * channels, 0);
    rng r = {.state = 6};
    rng_fill(&r, x, in, -1, 2);
    kiln_global_pool_args a = {
        .op = op, .p = p, .spatial = spatial, .channels = channels, .x = x, .y = y};
    job j = {prims_of[isa], NULL, &a};
    for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
        in_pieces(batch * channels, split_ways[w], run_job, &j);
        if (w == 0) {
            memcpy(first, y, (size_t)(batch * channels) * 4);
        }
        assert_memory_equal(first, y, (size_t)(batch * channels) * 4);
    }
    for (int64_t i = 0; i < batch * channels; i++) {
        double max = -INFINITY, sum = 0;
        for (int64_t s = 0; s < spatial; s++) {
            double v = x[(i / channels * spatial + s) * channels + i % channels];
            max = fmax(max, v);
            sum += op == KILN_POOL_LP ? pow(fabs(v), p) : v;
        }
        double want = op == KILN_POOL_MAX   ? max
                      : op == KILN_POOL_AVG ? sum / (double)spatial
                                            : pow(sum, 1.0 / p);
        assert_close("global", i, y[i], want, 1e-6, 3e-6);
    }
    uint16_t *half = rounded(x, in);
    prims_of[isa]->global_pool(&a, 0, batch * channels);
    memcpy(first, y, (size_t)(batch * channels) * 4);
    a.x = half;
    a.half_x = true;
    prims_of[isa]->global_pool(&a, 0, batch * channels);
    assert_memory_equal(first, y, (size_t)(batch * channels) * 4);
    guard_free(half);
    guard_free(x);
    guard_free(y);
    guard_free(first);
}

static void test_global(void **state) {
    (void)state;
    const int64_t sizes[][3] = {{1, 1, 1}, {3, 49, 130}, {1, 200, 64}, {2, 7, 3}, {1, 3136, 33}};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(sizes); k++) {
            const int64_t *s = sizes[k];
            check_global(isa, KILN_POOL_MAX, 0, s[0], s[1], s[2]);
            check_global(isa, KILN_POOL_AVG, 0, s[0], s[1], s[2]);
            for (int32_t p = 1; p <= 3; p++) {
                check_global(isa, KILN_POOL_LP, p, s[0], s[1], s[2]);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pool), cmocka_unit_test(test_global)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
