/* test_prims_norm.c - every normalisation of backend/cpu/prims/norm.h against double precision, on
 * every instruction set present, with odd sizes, guard bands, NaN and range splits. */
#include "prims_util.h"

#include "backend/cpu/prims/norm.h"

ISA_TABLE(kiln_norm_prims);

typedef struct job {
    void (*fn)(const void *args, int64_t a, int64_t b);
    const void *args;
} job;

static void run_job(void *arg, int64_t a, int64_t b) {
    job *j = arg;
    j->fn(j->args, a, b);
}

/* Runs fn over [0, units) in 1, 2, 3 and 7 pieces into y and asserts equal bits. The function
 * pointers differ in their args type alone. */
#define RUN_SPLITS(fn_ptr, args_ptr, units, y, count)                            \
    do {                                                                         \
        job j_ = {(void (*)(const void *, int64_t, int64_t))(fn_ptr), args_ptr}; \
        float *first_ = malloc((size_t)(count)*4 + 4);                           \
        for (size_t w_ = 0; w_ < KILN_COUNT_OF(split_ways); w_++) {              \
            memset(y, 0x33, (size_t)(count)*4);                                  \
            in_pieces(units, split_ways[w_], run_job, &j_);                      \
            if (w_ == 0) {                                                       \
                memcpy(first_, y, (size_t)(count)*4);                            \
            }                                                                    \
            assert_memory_equal(first_, y, (size_t)(count)*4);                   \
        }                                                                        \
        free(first_);                                                            \
    } while (0)

static void check_layernorm(int isa, int64_t rows, int64_t cols, int flags, float offset) {
    rng r = {.state = (uint64_t)(rows * 1000 + cols)};
    int64_t n = rows * cols;
    float *x = guard_floats(n, 1), *res = guard_floats(n, 2), *sum = guard_floats(n, 3);
    float *y = guard_floats(n, 1), *scale = guard_floats(cols, 0), *bias = guard_floats(cols, 1);
    float *add = guard_floats(cols, 2), *mean = guard_floats(rows, 0), *inv = guard_floats(rows, 0);
    rng_fill(&r, x, n, -1 + offset, 1 + offset);
    rng_fill(&r, res, n, -1, 1);
    rng_fill(&r, scale, cols, 0.5f, 1.5f);
    rng_fill(&r, bias, cols, -1, 1);
    rng_fill(&r, add, cols, -1, 1);
    kiln_layernorm_args a = {.cols = cols,
                             .eps = 1e-5f,
                             .rms = (flags & 1) != 0,
                             .x = x,
                             .x_ld = cols,
                             .y = y,
                             .y_ld = cols,
                             .mean = mean,
                             .inv_std = inv};
    if (flags & 2) {
        a.residual = res;
        a.residual_ld = cols;
        a.sum = sum;
        a.sum_ld = cols;
    }
    a.add = flags & 4 ? add : NULL;
    a.scale = flags & 8 ? scale : NULL;
    a.bias = flags & 16 ? bias : NULL;
    RUN_SPLITS(prims_of[isa]->layernorm, &a, rows, y, n);
    for (int64_t i = 0; i < rows; i++) {
        double m = 0, v = 0;
        double *s = malloc((size_t)cols * sizeof *s);
        for (int64_t c = 0; c < cols; c++) {
            s[c] = (double)x[i * cols + c] + (flags & 2 ? (double)res[i * cols + c] : 0.0) +
                   (flags & 4 ? (double)add[c] : 0.0);
            m += s[c] / (double)cols;
        }
        m = flags & 1 ? 0 : m;
        for (int64_t c = 0; c < cols; c++) {
            v += (s[c] - m) * (s[c] - m) / (double)cols;
        }
        double k = 1 / sqrt(v + 1e-5);
        assert_close("mean", i, mean[i], m, 1e-6 * (1 + fabs((double)offset)), 1e-5);
        assert_close("inv", i, inv[i], k, 0, cols < 3 ? 1e-2 : 2e-5);
        for (int64_t c = 0; c < cols; c++) {
            double want = (s[c] - m) * k * (flags & 8 ? (double)scale[c] : 1.0) +
                          (flags & 16 ? (double)bias[c] : 0.0);
            double tol = cols < 3 ? 2e-2 : 1e-5 + 3e-7 * fabs((double)offset) * k;
            assert_close("layernorm", i * cols + c, y[i * cols + c], want, tol, 1e-5);
            if (flags & 2) {
                assert_close("sum", i, sum[i * cols + c], s[c], 1e-6, 1e-6);
            }
        }
        free(s);
    }
    float *all[] = {x, res, sum, y, scale, bias, add, mean, inv};
    for (size_t i = 0; i < KILN_COUNT_OF(all); i++) {
        guard_free(all[i]);
    }
}

static void test_layernorm(void **state) {
    (void)state;
    const int64_t sizes[][2] = {{9, 1},  {9, 3},   {8, 16},  {7, 33},
                                {5, 64}, {4, 127}, {3, 768}, {2, 9001}};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(sizes); k++) {
            for (int flags = 0; flags < 32; flags++) {
                check_layernorm(isa, sizes[k][0], sizes[k][1], flags, 0.0f);
            }
            check_layernorm(isa, sizes[k][0], sizes[k][1], 24, 100.0f);
        }
    }
}

static void check_groupnorm(int isa, int64_t batch, int64_t spatial, int64_t channels,
                            int64_t groups, bool first) {
    rng r = {.state = (uint64_t)(spatial * 1000 + channels)};
    int64_t n = batch * spatial * channels;
    float *x = guard_floats(n, 1), *y = guard_floats(n, 2);
    float *scale = guard_floats(channels, 0), *bias = guard_floats(channels, 0);
    rng_fill(&r, x, n, 1, 3);
    rng_fill(&r, scale, channels, 0.5f, 1.5f);
    rng_fill(&r, bias, channels, -1, 1);
    kiln_groupnorm_args a = {.batch = batch,
                             .spatial = spatial,
                             .channels = channels,
                             .groups = groups,
                             .eps = 1e-3f,
                             .x = x,
                             .scale = scale,
                             .bias = bias,
                             .y = y};
    if (first) {
        RUN_SPLITS(prims_of[isa]->groupnorm_first, &a, batch * groups, y, n);
    } else {
        RUN_SPLITS(prims_of[isa]->groupnorm_last, &a, kiln_groupnorm_units(&a), y, n);
    }
    int64_t width = channels / groups;
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t g = 0; g < groups; g++) {
            double m = 0, v = 0;
            for (int pass = 0; pass < 3; pass++) {
                for (int64_t i = 0; i < width * spatial; i++) {
                    int64_t c = g * width + i / spatial, s = i % spatial;
                    int64_t at =
                        first ? (b * channels + c) * spatial + s : (b * spatial + s) * channels + c;
                    double count = (double)(width * spatial);
                    if (pass == 0) {
                        m += (double)x[at] / count;
                    } else if (pass == 1) {
                        v += ((double)x[at] - m) * ((double)x[at] - m) / count;
                    } else {
                        double want = ((double)x[at] - m) / sqrt(v + 1e-3) * (double)scale[c] +
                                      (double)bias[c];
                        assert_close("groupnorm", at, y[at], want, 2e-5, 1e-5);
                    }
                }
            }
        }
    }
    guard_free(x);
    guard_free(y);
    guard_free(scale);
    guard_free(bias);
}

static void test_groupnorm(void **state) {
    (void)state;
    const int64_t shapes[][4] = {{1, 1, 1, 1},     {2, 9, 7, 7},    {3, 49, 64, 64},
                                 {2, 130, 64, 32}, {1, 65, 48, 16}, {2, 33, 1200, 2},
                                 {1, 300, 100, 1}, {1, 20, 36, 3}};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(shapes); k++) {
            const int64_t *s = shapes[k];
            check_groupnorm(isa, s[0], s[1], s[2], s[3], false);
            check_groupnorm(isa, s[0], s[1], s[2], s[3], true);
        }
    }
}

/* what: 0 softmax, 1 log-softmax, 2 L1, 3 L2. */
static void check_axis(int isa, int64_t outer, int64_t n, int64_t inner, int what) {
    rng r = {.state = (uint64_t)(outer * 31 + n * 7 + inner)};
    int64_t count = outer * n * inner;
    float *x = guard_floats(count, 1), *y = guard_floats(count, 1);
    rng_fill(&r, x, count, -8, 8);
    if (count > 40) {
        x[0] = -INFINITY;
        x[3] = 500.0f;
    }
    kiln_softmax_args sm = {.n = n, .inner = inner, .log = what == 1, .x = x, .y = y};
    kiln_lpnorm_args lp = {.n = n, .inner = inner, .p = what - 1, .x = x, .y = y};
    int64_t units = kiln_lane_units(outer, inner);
    if (what < 2) {
        RUN_SPLITS(prims_of[isa]->softmax, &sm, units, y, count);
    } else {
        x[0] = 1.0f;
        RUN_SPLITS(prims_of[isa]->lpnorm, &lp, units, y, count);
    }
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t i = 0; i < inner; i++) {
            const float *xs = x + o * n * inner + i;
            const float *ys = y + o * n * inner + i;
            double max = -INFINITY, sum = 0;
            for (int64_t k = 0; k < n; k++) {
                max = fmax(max, xs[k * inner]);
            }
            for (int64_t k = 0; k < n; k++) {
                double v = xs[k * inner];
                sum += what < 2 ? exp(v - max) : what == 2 ? fabs(v) : v * v;
            }
            for (int64_t k = 0; k < n; k++) {
                double v = xs[k * inner];
                double want = what == 0   ? exp(v - max) / sum
                              : what == 1 ? v - max - log(sum)
                              : what == 2 ? v / sum
                                          : v / sqrt(sum);
                assert_close("axis", k, ys[k * inner], want, what == 1 ? 2e-6 : 1e-37, 2e-6);
            }
        }
    }
    guard_free(x);
    guard_free(y);
}

static void test_axis_norms(void **state) {
    (void)state;
    const int64_t shapes[][3] = {{1, 1, 1}, {5, 7, 1},  {9, 128, 1}, {3, 1000, 1}, {7, 31, 1},
                                 {2, 5, 3}, {3, 9, 64}, {2, 21, 77}, {4, 3, 130},  {1, 50, 8}};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(shapes); k++) {
            for (int what = 0; what < 4; what++) {
                check_axis(isa, shapes[k][0], shapes[k][1], shapes[k][2], what);
            }
        }
    }
}

static void test_softmax_special(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!isa_present(isa)) {
            continue;
        }
        for (int64_t inner = 1; inner <= 2; inner++) {
            float x[2 * 40];
            float y[2 * 40];
            for (int i = 0; i < 80; i++) {
                x[i] = 0.5f;
            }
            x[2 * 17] = NAN;
            if (inner == 1) {
                for (int i = 40; i < 80; i++) {
                    x[i] = -INFINITY;
                }
            }
            kiln_softmax_args a = {.n = 40, .inner = inner, .x = x, .y = y};
            prims_of[isa]->softmax(&a, 0, inner == 1 ? 2 : 1);
            for (int i = 0; i < 80; i++) {
                assert_int_equal(isnan(y[i]) != 0, inner == 1 || i % 2 == 0);
            }
        }
        float zeros[5] = {0};
        kiln_lpnorm_args lp = {.n = 5, .inner = 1, .p = 2, .x = zeros, .y = zeros};
        prims_of[isa]->lpnorm(&lp, 0, 1);
        assert_true(zeros[0] == 0.0f && zeros[4] == 0.0f);
    }
}

static void check_lrn(int isa, int64_t rows, int64_t channels, int64_t size, float beta) {
    rng r = {.state = 9};
    int64_t n = rows * channels;
    float *x = guard_floats(n, 1), *y = guard_floats(n, 0), *k = guard_floats(channels, 0);
    rng_fill(&r, x, n, -3, 3);
    rng_fill(&r, k, channels, -3, 3);
    kiln_lrn_args a = {.channels = channels,
                       .size = size,
                       .alpha = 0.3f,
                       .beta = beta,
                       .bias = 2.0f,
                       .x = x,
                       .y = y};
    RUN_SPLITS(prims_of[isa]->lrn, &a, rows, y, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t c = i % channels;
        double sum = 0;
        for (int64_t j = c - (size - 1) / 2; j <= c + size / 2; j++) {
            double v = j >= 0 && j < channels ? x[i - c + j] : 0;
            sum += v * v;
        }
        double want = (double)x[i] * pow(2.0 + (double)0.3f / (double)size * sum, -(double)beta);
        assert_close("lrn", i, y[i], want, 1e-7, 3e-6);
    }
    kiln_affine_args f = {.cols = channels,
                          .x = x,
                          .x_ld = channels,
                          .scale = k,
                          .shift = k,
                          .y = y,
                          .y_ld = channels};
    RUN_SPLITS(prims_of[isa]->affine, &f, rows, y, n);
    for (int64_t i = 0; i < n; i++) {
        double s = k[i % channels];
        assert_close("affine", i, y[i], (double)x[i] * s + s, 1e-6, 1e-6);
    }
    guard_free(x);
    guard_free(y);
    guard_free(k);
}

static void test_lrn_affine(void **state) {
    (void)state;
    const float betas[] = {0.75f, 0.5f, 1.0f, 0.6f};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t b = 0; isa_present(isa) && b < KILN_COUNT_OF(betas); b++) {
            check_lrn(isa, 9, 64, 5, betas[b]);
            check_lrn(isa, 3, 3, 5, betas[b]);
            check_lrn(isa, 8, 37, 4, betas[b]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layernorm),  cmocka_unit_test(test_groupnorm),
        cmocka_unit_test(test_axis_norms), cmocka_unit_test(test_softmax_special),
        cmocka_unit_test(test_lrn_affine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
