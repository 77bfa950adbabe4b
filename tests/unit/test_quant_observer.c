/* Observers: counts that depend on the data alone. */
#include "test_quant_common.h"

#include "base/half.h"

enum { N = 20000 };

/* What the bins must be, counted the obvious way. */
static void test_counts(void **state) {
    (void)state;
    for (int kind = 0; kind < N_SHAPES; kind++) {
        bench b;
        kiln_observer o;
        bench_open(&b);
        kiln_observer_init(&o);
        float *x = draw_all(&b, (shape_of_data)kind, N, 7);
        observe(&b, &o, x, N);
        uint64_t want[2][KILN_BINS] = {{0}}, zeros = 0;
        double amax = 0, width = kiln_observer_width(&o);
        for (int i = 0; i < N; i++) {
            double v = (double)x[i];
            amax = fabs(v) > amax ? fabs(v) : amax;
            zeros += v == 0 ? 1 : 0;
            if (v != 0) {
                want[v > 0][(int)floor(fabs(v) / width)]++;
            }
        }
        assert_true(ldexp(1, o.exponent) > amax && ldexp(1, o.exponent - 1) <= amax);
        assert_true(o.zeros == zeros && o.count == N);
        assert_true((double)kiln_observer_amax(&o) == amax);
        assert_memory_equal(want[0], o.bins[0], sizeof want[0]);
        assert_memory_equal(want[1], o.bins[1], sizeof want[1]);
        bench_close(&b);
    }
}

/* Any order, any batches, any merging: the same. */
static void test_splits(void **state) {
    (void)state;
    for (int kind = 0; kind < N_SHAPES; kind++) {
        bench b;
        kiln_observer whole, parts, halves[2];
        uint64_t seed = 3;
        bench_open(&b);
        float *x = draw_all(&b, (shape_of_data)kind, N, 11);
        /* Magnitudes that grow, so that the range doubles again and again. */
        for (int i = 0; i < N; i++) {
            x[i] *= ldexpf(1, i / 500 - 20);
        }
        kiln_observer_init(&whole);
        kiln_observer_init(&parts);
        kiln_observer_init(&halves[0]);
        kiln_observer_init(&halves[1]);
        observe(&b, &whole, x, N);
        for (int64_t at = 0; at < N;) {
            int64_t n = (int64_t)(next_unit(&seed) * 900);
            n = n < N - at ? n : N - at;
            observe(&b, &parts, x + at, n);
            at += n;
        }
        assert_same(&whole, &parts);
        observe(&b, &halves[0], x, N / 3);
        observe(&b, &halves[1], x + N / 3, N - N / 3);
        for (int first = 0; first < 2; first++) {
            kiln_observer sum;
            kiln_observer_init(&sum);
            for (int i = 0; i < 2; i++) {
                assert_int_equal(
                    kiln_observer_merge(&sum, &halves[(first + i) % 2], &b.arena, b.diag), KILN_OK);
            }
            assert_same(&whole, &sum);
        }
        x[N - 1] = nextafterf(x[N - 1], 0); /* the comparison can fail */
        kiln_observer other;
        kiln_observer_init(&other);
        x[0] = 12345;
        observe(&b, &other, x, N);
        assert_false(other.exponent == whole.exponent && other.max == whole.max &&
                     memcmp(other.bins[1], whole.bins[1], KILN_BINS * 8) == 0);
        bench_close(&b);
    }
}

static void test_special_values(void **state) {
    (void)state;
    bench b;
    kiln_observer o;
    bench_open(&b);
    kiln_observer_init(&o);
    observe(&b, &o, NULL, 0);
    assert_true(o.count == 0 && !o.bins[0] && kiln_observer_amax(&o) == 0);
    float zeros[] = {0, -0.0f, 0}, odd[] = {NAN, INFINITY, -INFINITY, -NAN};
    observe(&b, &o, odd, 4);
    assert_true(o.count == 0 && o.nans == 2 && o.infs == 2 && !o.bins[0]);
    observe(&b, &o, zeros, 3);
    assert_true(o.count == 3 && o.zeros == 3 && !o.bins[0]);
    assert_true(o.min == 0 && o.max == 0 && !signbit(o.min) && !signbit(o.max));
    float some[] = {1, NAN, -2, INFINITY, 0};
    observe(&b, &o, some, 5);
    assert_true(o.count == 6 && o.zeros == 4 && o.nans == 3 && o.infs == 3);
    assert_true(o.min == -2 && o.max == 1 && o.exponent == 2);
    assert_true(o.bins[0][KILN_BINS / 2] == 1 && o.bins[1][KILN_BINS / 4] == 1);
    bench_close(&b);
}

/* The whole width of float32, up and down. */
static void test_extremes(void **state) {
    (void)state;
    bench b;
    kiln_observer o, tiny;
    bench_open(&b);
    kiln_observer_init(&o);
    kiln_observer_init(&tiny);
    float some[] = {1, -2};
    observe(&b, &o, some, 2);
    float least = 0x1p-149f, most = 0x1.fffffep127f;
    observe(&b, &o, &least, 1);
    observe(&b, &o, &most, 1);
    assert_true(o.exponent == 128 && o.bins[1][KILN_BINS - 1] == 1);
    assert_true(o.bins[0][0] == 1 && o.bins[1][0] == 2 && o.count == 4);
    observe(&b, &tiny, &least, 1);
    assert_true(tiny.exponent == -148 && tiny.bins[1][KILN_BINS / 2] == 1);
    bench_close(&b);
}

/* Half-width and double tensors count as their values in float32; others are refused. */
static void test_dtypes(void **state) {
    (void)state;
    bench b;
    bench_open(&b);
    enum { M = 3000 };
    float *x = draw_all(&b, GAUSS, M, 5);
    uint16_t *half = kiln_arena_array(&b.arena, M, sizeof *half);
    double *wide = kiln_arena_array(&b.arena, M, sizeof *wide);
    assert_true(half && wide);
    for (int i = 0; i < M; i++) {
        half[i] = kiln_f32_to_f16(x[i]);
        x[i] = kiln_f16_to_f32(half[i]);
        wide[i] = (double)x[i];
    }
    kiln_observer a, c, d;
    kiln_observer_init(&a);
    kiln_observer_init(&c);
    kiln_observer_init(&d);
    observe(&b, &a, x, M);
    kiln_tensor t = {.dtype = KILN_DTYPE_F16, .rank = 1, .dims = {M}, .data = half};
    assert_int_equal(kiln_observer_add(&c, &t, &b.arena, b.diag), KILN_OK);
    assert_same(&a, &c);
    t.dtype = KILN_DTYPE_F64;
    t.data = wide;
    assert_int_equal(kiln_observer_add(&d, &t, &b.arena, b.diag), KILN_OK);
    assert_same(&a, &d);
    t.dtype = KILN_DTYPE_I64;
    assert_int_equal(kiln_observer_add(&d, &t, &b.arena, b.diag), KILN_E_MALFORMED);
    assert_same(&a, &d);
    bench_close(&b);
}

static void test_limit(void **state) {
    (void)state;
    bench b;
    kiln_observer o, other;
    float one = 1;
    bench_open(&b);
    kiln_observer_init(&o);
    kiln_observer_init(&other);
    observe(&b, &o, &one, 1);
    observe(&b, &other, &one, 1);
    o.count = KILN_OBSERVER_MAX_COUNT;
    kiln_tensor t = flat(&one, 1);
    assert_int_equal(kiln_observer_add(&o, &t, &b.arena, b.diag), KILN_E_LIMIT);
    assert_int_equal(kiln_observer_merge(&o, &other, &b.arena, b.diag), KILN_E_LIMIT);
    assert_true(o.bins[1][KILN_BINS / 2] == 1);
    bench_close(&b);
}

static void test_channels(void **state) {
    (void)state;
    float w[] = {1, -2, 3, 4, NAN, -6, 0.5f, INFINITY, 0, 0, 0, NAN}; /* [2, 3, 2] */
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 3, .dims = {2, 3, 2}, .data = w};
    float lo[3], hi[3];
    int64_t odd;
    kiln_channel_ranges(&t, 1, lo, hi, &odd);
    const float want_lo[] = {-2, 0, -6}, want_hi[] = {1, 4, 0};
    assert_int_equal(odd, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(lo[i] == want_lo[i] && hi[i] == want_hi[i]);
    }
    kiln_channel_ranges(&t, 0, lo, hi, &odd);
    assert_true(lo[0] == -6 && hi[0] == 4 && lo[1] == 0 && hi[1] == 0.5f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),         cmocka_unit_test(test_splits),
        cmocka_unit_test(test_special_values), cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_dtypes),         cmocka_unit_test(test_limit),
        cmocka_unit_test(test_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
