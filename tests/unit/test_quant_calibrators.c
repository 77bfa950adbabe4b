/* Calibrators against the plain definitions, on the data itself and in double. */
#include "test_quant_common.h"

enum { N = 40000 };

/* Quantizing and dequantizing each element, as ONNX defines it. */
static double true_error(const float *x, int64_t n, const kiln_qparams *q) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = (double)x[i] - (double)kiln_dequantize_value(q, kiln_quantize_value(q, x[i]));
        sum += e * e;
    }
    return sum;
}

static double signal_of(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

static const kiln_scheme schemes[] = {{8, true}, {8, false}, {4, true}, {5, false}, {2, false}};

static kiln_spread spread_of(bench *b, float *x, int64_t n) {
    kiln_observer *o = kiln_arena_array(&b->arena, 1, sizeof *o);
    kiln_spread s;
    assert_non_null(o);
    kiln_observer_init(o);
    observe(b, o, x, n);
    assert_int_equal(kiln_spread_init(&s, o, &b->arena), KILN_OK);
    return s;
}

/* The error on the histogram is the error on the data, within 2 %. */
static void test_error(void **state) {
    (void)state;
    for (int kind = 0; kind < N_SHAPES; kind++) {
        bench b;
        bench_open(&b);
        float *x = draw_all(&b, (shape_of_data)kind, N, 21);
        kiln_spread s = spread_of(&b, x, N);
        double lo = (double)s.o->min, hi = (double)s.o->max;
        assert_true(fabs(s.signal / signal_of(x, N) - 1) < 0.02);
        for (size_t k = 0; k < KILN_COUNT_OF(schemes); k++) {
            for (int part = 2; part <= 8; part++) {
                kiln_qparams q = kiln_qparams_of(lo * part / 8, hi * part / 8, &schemes[k]);
                double have = kiln_spread_error(&s, &q), want = true_error(x, N, &q);
                if (fabs(have - want) > 0.02 * want) {
                    fail_msg("data %d scheme %zu part %d: error %g, really %g", kind, k, part, have,
                             want);
                }
            }
        }
        bench_close(&b);
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Distance to the element of rank ceil(share * n) of the sorted values; share * n may be rounded to
 * either side of an integer. */
static double off_rank(double have, const double *v, double share) {
    double off = (double)INFINITY;
    for (int side = -1; side <= 1; side += 2) {
        int rank = (int)ceil(share * N + side * 1e-6) - 1;
        double want = v[rank < 0 ? 0 : rank > N - 1 ? N - 1 : rank];
        off = fmin(off, fabs(have - want));
    }
    return off;
}

static void test_percentile(void **state) {
    (void)state;
    const double ps[] = {51, 90, 99, 99.9, 99.99, 100};
    for (int kind = 0; kind < N_SHAPES; kind++) {
        bench b;
        bench_open(&b);
        float *x = draw_all(&b, (shape_of_data)kind, N, 33);
        kiln_spread s = spread_of(&b, x, N);
        static double positive[N], negative[N], magnitude[N]; /* cut off at 0 */
        for (int i = 0; i < N; i++) {
            positive[i] = fmax((double)x[i], 0);
            negative[i] = fmax(-(double)x[i], 0);
            magnitude[i] = fabs((double)x[i]);
        }
        qsort(positive, N, sizeof *positive, by_value);
        qsort(negative, N, sizeof *negative, by_value);
        qsort(magnitude, N, sizeof *magnitude, by_value);
        for (size_t i = 0; i < KILN_COUNT_OF(ps); i++) {
            kiln_range r = kiln_range_percentile(&s, &schemes[0], ps[i]);
            assert_true(r.lo == -r.hi && r.percentile == ps[i]);
            assert_true(off_rank(r.hi, magnitude, ps[i] / 100) <= s.width);
            r = kiln_range_percentile(&s, &schemes[1], ps[i]);
            double share = 1 - (100 - ps[i]) / 200;
            assert_true(off_rank(r.hi, positive, share) <= s.width);
            assert_true(off_rank(-r.lo, negative, share) <= s.width);
        }
        bench_close(&b);
    }
}

/* No range of a grid over all there are does better, on the data itself, than by 1 %. */
static void test_mse(void **state) {
    (void)state;
    enum { STEPS = 40, M = 4000 };
    for (int kind = 0; kind < N_SHAPES; kind++) {
        bench b;
        bench_open(&b);
        float *x = draw_all(&b, (shape_of_data)kind, M, 55);
        kiln_spread s = spread_of(&b, x, M);
        for (size_t k = 0; k < KILN_COUNT_OF(schemes); k++) {
            kiln_range r = kiln_range_mse(&s, &schemes[k], 1);
            kiln_qparams q = kiln_qparams_of(r.lo, r.hi, &schemes[k]);
            double have = true_error(x, M, &q), best = (double)INFINITY;
            bool sym = schemes[k].symmetric;
            for (int i = 0; i <= STEPS; i++) {
                for (int j = sym ? i : 0; j <= (sym ? i : STEPS); j++) {
                    double lo = (double)s.o->min * i / STEPS, hi = (double)s.o->max * j / STEPS;
                    kiln_qparams p = kiln_qparams_of(lo, hi, &schemes[k]);
                    double e = hi > lo ? true_error(x, M, &p) : (double)INFINITY;
                    best = e < best ? e : best;
                }
            }
            if (have > 1.01 * best) {
                fail_msg("data %d scheme %zu: [%g, %g] has error %g, %g can be had", kind, k, r.lo,
                         r.hi, have, best);
            }
            double said = pow(10, -r.sqnr_db / 10) * signal_of(x, M);
            assert_true(fabs(said / have - 1) < 0.05);
        }
        bench_close(&b);
    }
}

/* Migacz's procedure step by step, in double, on the same 2048 bins. */
static double plain_divergence(const double *bins, int m) {
    double total = 0, kept = 0, sum = 0;
    static double p[KILN_ENTROPY_BINS], q[KILN_ENTROPY_BINS];
    for (int i = 0; i < KILN_ENTROPY_BINS; i++) {
        total += bins[i];
        kept += i < m ? bins[i] : 0;
    }
    memcpy(p, bins, (size_t)m * sizeof *p);
    p[m - 1] += total - kept;
    for (int k = 0; k < KILN_ENTROPY_LEVELS; k++) {
        int a = k * m / KILN_ENTROPY_LEVELS, e = (k + 1) * m / KILN_ENTROPY_LEVELS, filled = 0;
        double mass = 0;
        for (int i = a; i < e; i++) {
            mass += bins[i];
            filled += p[i] > 0 ? 1 : 0;
        }
        for (int i = a; i < e; i++) {
            q[i] = mass > 0 ? mass / filled : 1e-4;
        }
    }
    for (int i = 0; i < m; i++) {
        if (p[i] > 0) {
            sum += p[i] / total * log(p[i] / total / (q[i] / kept));
        }
    }
    return sum;
}

static void test_entropy(void **state) {
    (void)state;
    for (int kind = 0; kind < N_SHAPES; kind++) {
        bench b;
        bench_open(&b);
        float *x = draw_all(&b, (shape_of_data)kind, N, 77);
        kiln_spread s = spread_of(&b, x, N);
        kiln_range r = kiln_range_entropy(&s, &schemes[0]);
        double amax = (double)kiln_observer_amax(s.o), best = (double)INFINITY;
        static double bins[KILN_ENTROPY_BINS];
        for (int i = 0; i < KILN_ENTROPY_BINS; i++) {
            bins[i] = s.h[i + 1] - s.h[i];
        }
        int best_m = KILN_ENTROPY_BINS;
        for (int m = KILN_ENTROPY_LEVELS; m <= KILN_ENTROPY_BINS; m++) {
            double d = plain_divergence(bins, m);
            if (d < best - 1e-12) {
                best = d;
                best_m = m;
            }
        }
        int have =
            r.hi == amax ? KILN_ENTROPY_BINS : (int)lround(r.hi / amax * KILN_ENTROPY_BINS + 0.5);
        if (fabs(plain_divergence(bins, have) - best) > 1e-9) {
            fail_msg("data %d: threshold at bin %d, the least divergence %g is at %d", kind, have,
                     best, best_m);
        }
        /* The folded bins are those of the data, each boundary within one of the observer's. */
        double below = 0, sum = 0;
        for (int i = 0; i < N; i++) {
            below += x[i] != 0 && fabs((double)x[i]) < amax / 4 ? 1 : 0;
            sum += x[i] != 0 ? 1 : 0;
        }
        assert_true(fabs(s.h[KILN_ENTROPY_BINS] - sum) < 1e-6 * sum);
        assert_true(fabs(s.h[KILN_ENTROPY_BINS / 4] - below) < 0.005 * sum);
        if (kind == OUTLIER) { /* 160 among values up to 5 is cut off */
            assert_true(r.hi < 80);
        }
        bench_close(&b);
    }
}

static void test_choice(void **state) {
    (void)state;
    bench b;
    kiln_calibrate_plan plan;
    kiln_range all[KILN_MAX_CANDIDATES];
    const double ps[] = {99, 99.5};
    kiln_calibrate_options o = {
        .size = sizeof o, .percentiles = ps, .n_percentiles = 2, .symmetric = true};
    bench_open(&b);
    kiln_spread s = spread_of(&b, draw_all(&b, OUTLIER, N, 3), N);
    assert_int_equal(kiln_calibrate_plan_of(&plan, &o, b.diag), KILN_OK);
    assert_int_equal(kiln_find_ranges(&s, &plan, all), 5);
    for (size_t i = 1; i < 5; i++) {
        assert_true(all[i - 1].sqnr_db >= all[i].sqnr_db);
    }
    assert_int_equal(all[0].calibrator, KILN_CALIBRATOR_MSE);
    o.calibrator = KILN_CALIBRATOR_PERCENTILE;
    assert_int_equal(kiln_calibrate_plan_of(&plan, &o, b.diag), KILN_OK);
    assert_int_equal(kiln_find_ranges(&s, &plan, all), 2);
    for (int c = 0; c < KILN_CALIBRATOR_COUNT; c++) {
        assert_int_equal(kiln_calibrator_parse(kiln_calibrator_name((kiln_calibrator)c)), c);
    }
    assert_int_equal(kiln_calibrator_parse("mean"), KILN_CALIBRATOR_COUNT);
    const double bad[] = {50, 100.1, NAN};
    for (size_t i = 0; i < 3; i++) {
        o.percentiles = &bad[i];
        o.n_percentiles = 1;
        assert_int_equal(kiln_calibrate_plan_of(&plan, &o, b.diag), KILN_E_USAGE);
    }
    o.percentiles = ps;
    o.bits = 9;
    assert_int_equal(kiln_calibrate_plan_of(&plan, &o, b.diag), KILN_E_USAGE);
    bench_close(&b);
}

/* What is cut off is what lies beyond the end levels; the more it counts, the less there is. */
static void test_cut_weight(void **state) {
    (void)state;
    enum { M = 4000 };
    for (int kind = 0; kind < N_SHAPES; kind++) {
        bench b;
        bench_open(&b);
        float *x = draw_all(&b, (shape_of_data)kind, M, 56);
        kiln_spread s = spread_of(&b, x, M);
        for (size_t k = 0; k < KILN_COUNT_OF(schemes); k++) {
            double before = (double)INFINITY;
            for (double weight = 1; weight < 1e5; weight *= 8) {
                kiln_range r = kiln_range_mse(&s, &schemes[k], weight);
                kiln_qparams q = kiln_qparams_of(r.lo, r.hi, &schemes[k]);
                double cut = kiln_spread_cut(&s, &q), want = 0;
                double lo = (double)kiln_dequantize_value(&q, q.qlo);
                double hi = (double)kiln_dequantize_value(&q, q.qhi);
                for (int i = 0; i < M; i++) {
                    double v = (double)x[i], over = v > hi ? v - hi : v < lo ? lo - v : 0;
                    want += over * over;
                }
                double all = kiln_spread_error(&s, &q);
                assert_true(fabs(cut - want) <= 0.02 * want + 1e-3 * all);
                assert_true(cut <= before * 1.0001 && cut <= all * 1.0001);
                before = cut;
            }
        }
        bench_close(&b);
    }
}

/* Nothing, zeros, one value, NaN alone: ranges that can be used. */
static void test_degenerate(void **state) {
    (void)state;
    float cases[][4] = {{0, 0, 0, 0},      {5, 5, 5, 5},
                        {-5, -5, -5, -5},  {NAN, INFINITY, NAN, -INFINITY},
                        {1e-42f, 0, 0, 0}, {0x1.fffffep127f, -0x1.fffffep127f, 0, 0}};
    for (size_t c = 0; c <= KILN_COUNT_OF(cases); c++) {
        for (size_t k = 0; k < KILN_COUNT_OF(schemes); k++) {
            bench b;
            kiln_calibrate_plan plan;
            kiln_range all[KILN_MAX_CANDIDATES];
            bench_open(&b);
            bool none = c == KILN_COUNT_OF(cases);
            kiln_spread s = spread_of(&b, none ? NULL : cases[c], none ? 0 : 4);
            assert_int_equal(kiln_calibrate_plan_of(&plan, NULL, b.diag), KILN_OK);
            plan.scheme = schemes[k];
            size_t n = kiln_find_ranges(&s, &plan, all);
            assert_int_equal(n, 6);
            for (size_t i = 0; i < n; i++) {
                assert_true(isfinite(all[i].lo) && isfinite(all[i].hi));
                assert_true(all[i].lo <= 0 && all[i].hi >= 0 && !isnan(all[i].sqnr_db));
                kiln_qparams q = kiln_qparams_of(all[i].lo, all[i].hi, &schemes[k]);
                assert_true(isnormal(q.scale) && q.scale > 0);
                for (int j = 0; (c == 1 || c == 2) && j < 4; j++) {
                    float y = kiln_dequantize_value(&q, kiln_quantize_value(&q, cases[c][j]));
                    assert_true(fabsf(y - cases[c][j]) < 0.05f);
                }
            }
            bench_close(&b);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),      cmocka_unit_test(test_percentile),
        cmocka_unit_test(test_mse),        cmocka_unit_test(test_cut_weight),
        cmocka_unit_test(test_entropy),    cmocka_unit_test(test_choice),
        cmocka_unit_test(test_degenerate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
