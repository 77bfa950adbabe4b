/* test_prims_reduce.c - reductions and argmax/argmin of backend/cpu/prims/reduce.h against double
 * precision, on every instruction set present. */
#include "prims_util.h"

#include "backend/cpu/prims/reduce.h"

ISA_TABLE(kiln_reduce_prims);

static double reference(kiln_reduce_op op, const float *x, int64_t n, int64_t ld) {
    double sum = 0, abs_sum = 0, square = 0, prod = 1, max = -INFINITY, min = INFINITY, e = 0;
    bool has_nan = false;
    for (int64_t i = 0; i < n; i++) {
        double v = x[i * ld];
        has_nan = has_nan || isnan(v);
        sum += v;
        abs_sum += fabs(v);
        square += v * v;
        prod *= v;
        max = v > max ? v : max;
        min = v < min ? v : min;
    }
    double shift = isinf(max) ? 0 : max;
    for (int64_t i = 0; i < n; i++) {
        e += exp((double)x[i * ld] - shift);
    }
    const double results[KILN_REDUCE_COUNT] = {
        [KILN_REDUCE_SUM] = sum,         [KILN_REDUCE_MEAN] = sum / (double)n,
        [KILN_REDUCE_MAX] = max,         [KILN_REDUCE_MIN] = min,
        [KILN_REDUCE_PROD] = prod,       [KILN_REDUCE_L1] = abs_sum,
        [KILN_REDUCE_L2] = sqrt(square), [KILN_REDUCE_SUMSQ] = square,
        [KILN_REDUCE_LOGSUM] = log(sum), [KILN_REDUCE_LOGSUMEXP] = log(e) + shift,
    };
    return has_nan ? NAN : results[op];
}

typedef struct job {
    const kiln_reduce_prims *prims;
    const kiln_reduce_args *args;
    const kiln_argreduce_args *arg_args;
} job;

static void run_job(void *arg, int64_t a, int64_t b) {
    job *j = arg;
    if (j->args != NULL) {
        j->prims->reduce(j->args, a, b);
    } else {
        j->prims->argreduce(j->arg_args, a, b);
    }
}

/* fill: 0 random, 1 one NaN, 2 all -inf, 3 one +inf */
static void fill(float *x, int64_t count, kiln_reduce_op op, int kind) {
    rng r = {.state = (uint64_t)count + op + 1};
    float lo = op == KILN_REDUCE_PROD ? 0.97f : op == KILN_REDUCE_LOGSUM ? 0.0f : -3.0f;
    rng_fill(&r, x, count, lo, op == KILN_REDUCE_PROD ? 1.03f : 3.0f);
    for (int64_t i = 0; i < count && kind == 2; i++) {
        x[i] = -INFINITY;
    }
    if (kind == 1 || kind == 3) {
        x[count / 2] = kind == 1 ? NAN : INFINITY;
    }
}

static void check(int isa, kiln_reduce_op op, int64_t outer, int64_t n, int64_t inner, int kind) {
    int64_t count = outer * n * inner;
    float *x = guard_floats(count, 1), *y = guard_floats(outer * inner, 1);
    float *first = guard_floats(outer * inner, 0);
    if (count > 0) {
        fill(x, count, op, kind);
    }
    kiln_reduce_args a = {.op = op, .n = n, .inner = inner, .x = x, .y = y};
    job j = {prims_of[isa], &a, NULL};
    for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
        memset(y, 0x44, (size_t)(outer * inner) * 4);
        in_pieces(outer * inner, split_ways[w], run_job, &j);
        if (w == 0) {
            memcpy(first, y, (size_t)(outer * inner) * 4);
        }
        assert_memory_equal(first, y, (size_t)(outer * inner) * 4);
    }
    for (int64_t i = 0; i < outer * inner; i++) {
        const float *xs = x + i / inner * n * inner + i % inner;
        double want = reference(op, xs, n, inner);
        double scale = isfinite(want) ? reference(KILN_REDUCE_L1, xs, n, inner) : 1;
        bool sums = op == KILN_REDUCE_SUM || op == KILN_REDUCE_MEAN || op == KILN_REDUCE_LOGSUM;
        double tol = op == KILN_REDUCE_MEAN     ? scale / (double)n
                     : op == KILN_REDUCE_LOGSUM ? 10
                                                : scale;
        double rel = op == KILN_REDUCE_PROD ? 6e-8 * (double)(n + 4) : 1e-6;
        assert_close("reduce", i, y[i], want, sums ? 5e-7 * tol : 1e-6, rel);
    }
    guard_free(x);
    guard_free(y);
    guard_free(first);
}

static const int64_t shapes[][3] = {{1, 1, 1},     {5, 3, 1},  {4, 64, 1},  {3, 1000, 1},
                                    {1, 20001, 1}, {2, 5, 3},  {3, 70, 16}, {1, 49, 77},
                                    {4, 2, 130},   {2, 131, 9}};

static void test_reduce(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int op = 0; isa_present(isa) && op < KILN_REDUCE_COUNT; op++) {
            for (size_t k = 0; k < KILN_COUNT_OF(shapes); k++) {
                for (int kind = 0; kind < 4; kind++) {
                    check(isa, (kiln_reduce_op)op, shapes[k][0], shapes[k][1], shapes[k][2], kind);
                }
            }
            check(isa, (kiln_reduce_op)op, 3, 0, 1, 0);
            check(isa, (kiln_reduce_op)op, 3, 0, 5, 0);
        }
    }
}

static int64_t reference_arg(const float *x, int64_t n, int64_t ld, bool min, bool last) {
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++) {
        float v = x[i * ld], best = x[at * ld];
        bool better = min ? v < best : v > best;
        if (!isnan(best) && (better || isnan(v) || (last && v == best))) {
            at = i;
        }
    }
    return at;
}

static void check_arg(int isa, int64_t outer, int64_t n, int64_t inner, bool min, bool last,
                      bool with_nan) {
    int64_t count = outer * n * inner;
    float *x = guard_floats(count, 1);
    int64_t *y = guard_bytes((size_t)(outer * inner) * 8, 8);
    rng r = {.state = 21};
    for (int64_t i = 0; i < count; i++) {
        x[i] = (float)(rng_u32(&r) % 9);
        if (with_nan && rng_u32(&r) % 40 == 0) {
            x[i] = NAN;
        }
    }
    kiln_argreduce_args a = {.min = min, .last = last, .n = n, .inner = inner, .x = x, .y = y};
    job j = {prims_of[isa], NULL, &a};
    for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
        in_pieces(outer * inner, split_ways[w], run_job, &j);
        for (int64_t i = 0; i < outer * inner; i++) {
            const float *xs = x + i / inner * n * inner + i % inner;
            assert_int_equal(y[i], reference_arg(xs, n, inner, min, last));
        }
    }
    guard_free(x);
    guard_free(y);
}

static void test_arg(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(shapes); k++) {
            for (int flags = 0; flags < 8; flags++) {
                check_arg(isa, shapes[k][0], shapes[k][1], shapes[k][2], flags & 1, flags & 2,
                          flags & 4);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reduce), cmocka_unit_test(test_arg)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
