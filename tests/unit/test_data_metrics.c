/* Metrics: values worked out by hand, and every element type. */
#include <math.h>

#include "unit/test_data_common.h"

#include "data/metrics.h"
#include "data/values.h"

static kiln_tensor tensor(kiln_dtype dtype, int32_t rank, int64_t d0, int64_t d1,
                          const void *data) {
    return (kiln_tensor){
        .dtype = dtype, .rank = rank, .dims = {d0, d1}, .data = (void *)(uintptr_t)data};
}

static void top1_top5_and_loss(void **state) {
    fixture *f = *state;
    /* Row 0: label 6 wins. Row 1: label 0 is fifth. Row 2: label 3 is sixth. */
    static const float scores[3][7] = {
        {0, 1, 2, 3, 4, 5, 6}, {2, 6, 5, 4, 3, 1, 0}, {6, 5, 4, 1, 3, 2, 0.5f}};
    static const int64_t labels[] = {6, 0, 3};
    kiln_classify c;
    kiln_classify_report r;
    kiln_tensor t = tensor(KILN_DTYPE_F32, 2, 3, 7, scores);
    assert_ok(f, kiln_classify_init(&c, 7, &f->arena, f->diag));
    double loss = 0;
    for (int64_t i = 0; i < 3; ++i) {
        double sum = 0;
        assert_ok(f, kiln_classify_add(&c, &t, i, &labels[i], 1, f->diag));
        for (int k = 0; k < 7; ++k) {
            sum += exp((double)scores[i][k]);
        }
        loss += log(sum) - (double)scores[i][labels[i]];
    }
    kiln_classify_finish(&c, &r);
    assert_int_equal(r.samples, 3);
    assert_near(r.top1, 1.0 / 3, 1e-15);
    assert_near(r.top5, 2.0 / 3, 1e-15);
    assert_near(r.loss, loss / 3, 1e-12);
    assert_int_equal(c.confusion[0 * 7 + 1], 1);
    assert_int_equal(c.confusion[3 * 7 + 0], 1);
    assert_int_equal(c.confusion[6 * 7 + 6], 1);
}

/* Labels 0 0 1 1 1 2, predicted 0 1 1 1 0 1: precision 1/2, 2/4, 0; recall 1/2, 2/3, 0. */
static void precision_recall_f1(void **state) {
    static const int64_t labels[] = {0, 0, 1, 1, 1, 2};
    static const int64_t predicted[] = {0, 1, 1, 1, 0, 1};
    fixture *f = *state;
    kiln_classify c;
    kiln_classify_report r;
    assert_ok(f, kiln_classify_init(&c, 5, &f->arena, f->diag));
    for (int i = 0; i < 6; ++i) {
        assert_ok(f, kiln_classify_add_class(&c, predicted[i], &labels[i], 1, f->diag));
    }
    kiln_classify_finish(&c, &r);
    double f1 = 2 * 0.5 * (2.0 / 3) / (0.5 + 2.0 / 3);
    assert_near(r.macro_precision, (0.5 + 0.5 + 0) / 3, 1e-15);
    assert_near(r.macro_recall, (0.5 + 2.0 / 3) / 3, 1e-15);
    assert_near(r.macro_f1, (0.5 + f1) / 3, 1e-15);
    assert_near(r.weighted_precision, (2 * 0.5 + 3 * 0.5) / 6, 1e-15);
    assert_near(r.weighted_recall, 0.5, 1e-15);
    assert_near(r.weighted_f1, (2 * 0.5 + 3 * f1) / 6, 1e-15);
    assert_true(isnan(r.loss));
    kiln_class_score one = kiln_classify_class(&c, 1);
    assert_int_equal(one.samples, 3);
    assert_near(one.f1, f1, 1e-15);
}

static void ties_nan_and_accepted_labels(void **state) {
    fixture *f = *state;
    kiln_classify c;
    kiln_classify_report r;
    static const float tie[] = {1, 1, 1};
    static const float nan_first[] = {NAN, 0.25f, 0.75f};
    static const float probabilities[] = {0.25f, 0.25f, 0.5f};
    static const int64_t zero = 0;
    static const int64_t accepted[] = {1, 2};
    kiln_tensor t = tensor(KILN_DTYPE_F32, 1, 3, 0, tie);
    assert_ok(f, kiln_classify_init(&c, 3, &f->arena, f->diag));
    assert_ok(f, kiln_classify_add(&c, &t, 0, &zero, 1, f->diag));
    kiln_classify_finish(&c, &r);
    assert_near(r.top1, 1, 0);
    assert_near(r.loss, log(3), 1e-12);
    t.data = (void *)(uintptr_t)nan_first;
    assert_ok(f, kiln_classify_add(&c, &t, 0, &zero, 1, f->diag));
    kiln_classify_finish(&c, &r);
    assert_near(r.top1, 0.5, 0);
    assert_int_equal(r.nan_rows, 1);
    assert_near(r.loss, log(3), 1e-12);

    assert_ok(f, kiln_classify_init(&c, 3, &f->arena, f->diag));
    t.data = (void *)(uintptr_t)probabilities;
    assert_ok(f, kiln_classify_add(&c, &t, 0, accepted, 2, f->diag));
    kiln_classify_finish(&c, &r);
    assert_near(r.top1, 1, 0);
    assert_near(r.loss, -log(0.75), 1e-12);
    assert_int_equal(c.actual[2], 1);
}

static void refuses_labels_that_do_not_fit(void **state) {
    fixture *f = *state;
    kiln_classify c;
    static const float row[3] = {0};
    static const int64_t three = 3;
    static const int64_t zero = 0;
    kiln_tensor t = tensor(KILN_DTYPE_F32, 2, 1, 3, row);
    assert_refused(f, kiln_classify_init(&c, 0, &f->arena, f->diag), KILN_E_USAGE, "class");
    assert_ok(f, kiln_classify_init(&c, 3, &f->arena, f->diag));
    assert_refused(f, kiln_classify_add(&c, &t, 0, &three, 1, f->diag), KILN_E_USAGE, "label 3");
    assert_refused(f, kiln_classify_add(&c, &t, 1, &zero, 1, f->diag), KILN_E_USAGE, "row 1");
    assert_refused(f, kiln_classify_add(&c, &t, 0, &zero, 0, f->diag), KILN_E_USAGE, "no label");
    t.dims[1] = 2;
    assert_refused(f, kiln_classify_add(&c, &t, 0, &zero, 1, f->diag), KILN_E_USAGE,
                   "3 class scores");
    assert_int_equal(c.samples, 0);
}

static void comparison_by_hand(void **state) {
    fixture *f = *state;
    static const float e[] = {1, -2, 3, 0, 10, 20};
    static const float a[] = {1, -2.5f, 3, 0.25f, 20, 10};
    kiln_tensor te = tensor(KILN_DTYPE_F32, 2, 3, 2, e);
    kiln_tensor ta = tensor(KILN_DTYPE_F32, 2, 3, 2, a);
    kiln_compare c = {.atol = 0.25, .rtol = 0.1};
    kiln_compare_report r;
    assert_ok(f, kiln_compare_add(&c, &te, &ta, f->diag));
    kiln_compare_finish(&c, &r);
    assert_int_equal(r.count, 6);
    assert_int_equal(r.passed, 3); /* 1, 3, and 0.25 just within */
    assert_false(r.pass);
    assert_near(r.max_abs, 10, 0);
    assert_int_equal(r.worst, 4);
    assert_near(r.worst_expected, 10, 0);
    assert_near(r.max_rel, 1, 0);
    assert_near(r.mean_abs, 20.75 / 6, 1e-15);
    double error = 0.25 + 0.0625 + 200;
    double ee = 1 + 4 + 9 + 100 + 400;
    double aa = 1 + 6.25 + 9 + 0.0625 + 400 + 100;
    assert_near(r.rmse, sqrt(error / 6), 1e-12);
    assert_near(r.cosine, (1 + 5 + 9 + 200 + 200) / sqrt(ee * aa), 1e-12);
    assert_near(r.sqnr_db, 10 * log10(ee / error), 1e-12);
    assert_near(r.psnr_db, 10 * log10(22.0 * 22 * 6 / error), 1e-12);
    assert_near(r.range, 22, 0);
    assert_near(r.top1_agreement, 2.0 / 3, 1e-15);
}

static void equal_tensors_and_nonfinite(void **state) {
    fixture *f = *state;
    static const double e[] = {NAN, INFINITY, -INFINITY, 1, INFINITY, NAN};
    static const double a[] = {NAN, INFINITY, INFINITY, 1, 2, 3};
    kiln_tensor te = tensor(KILN_DTYPE_F64, 1, 6, 0, e);
    kiln_tensor ta = tensor(KILN_DTYPE_F64, 1, 6, 0, a);
    kiln_compare c = {.atol = 0};
    kiln_compare_report r;
    assert_ok(f, kiln_compare_add(&c, &te, &ta, f->diag));
    kiln_compare_finish(&c, &r);
    assert_int_equal(r.expected_nan, 2);
    assert_int_equal(r.actual_nan, 1);
    assert_int_equal(r.expected_inf, 3);
    assert_int_equal(r.actual_inf, 2);
    assert_int_equal(r.nonfinite_mismatch, 3);
    assert_int_equal(r.passed, 3);
    c = (kiln_compare){.atol = 0};
    assert_ok(f, kiln_compare_add(&c, &te, &te, f->diag));
    kiln_compare_finish(&c, &r);
    assert_true(r.pass);
    assert_true(isinf(r.sqnr_db));
    assert_near(r.cosine, 1, 1e-15);
}

/* Two halves give what the whole gives. */
static void comparison_streams(void **state) {
    fixture *f = *state;
    float e[2000];
    float a[2000];
    for (int i = 0; i < 2000; ++i) {
        e[i] = (float)sin(i);
        a[i] = e[i] + (float)cos(3 * i) * 0.01f;
    }
    kiln_tensor te = tensor(KILN_DTYPE_F32, 2, 200, 10, e);
    kiln_tensor ta = tensor(KILN_DTYPE_F32, 2, 200, 10, a);
    kiln_compare whole = {.atol = 0.005};
    kiln_compare halves = {.atol = 0.005};
    assert_ok(f, kiln_compare_add(&whole, &te, &ta, f->diag));
    te.dims[0] = ta.dims[0] = 100;
    assert_ok(f, kiln_compare_add(&halves, &te, &ta, f->diag));
    te.data = e + 1000;
    ta.data = a + 1000;
    assert_ok(f, kiln_compare_add(&halves, &te, &ta, f->diag));
    assert_memory_equal(&whole, &halves, sizeof whole);
    ta.dims[1] = 5;
    assert_refused(f, kiln_compare_add(&halves, &te, &ta, f->diag), KILN_E_USAGE, "shape");
    ta = te;
    ta.dtype = KILN_DTYPE_STRING;
    assert_refused(f, kiln_compare_add(&halves, &te, &ta, f->diag), KILN_E_UNSUPPORTED, "string");
}

static void values_of_every_type(void **state) {
    (void)state;
    static const int8_t s8[] = {-128};
    static const uint64_t u64[] = {UINT64_MAX};
    static const int64_t i64[] = {INT64_MIN};
    static const uint16_t half[] = {0xc000};
    static const uint16_t brain[] = {0x4040};
    static const uint8_t bits[] = {0x8f, 0xe4};
    static const uint8_t f8[] = {0x38};
    static const struct {
        kiln_dtype dtype;
        const void *data;
        int64_t index;
        double want;
    } cases[] = {
        {KILN_DTYPE_I8, s8, 0, -128},
        {KILN_DTYPE_U8, s8, 0, 128},
        {KILN_DTYPE_U64, u64, 0, 18446744073709551616.0},
        {KILN_DTYPE_I64, i64, 0, -9223372036854775808.0},
        {KILN_DTYPE_F16, half, 0, -2},
        {KILN_DTYPE_BF16, brain, 0, 3},
        {KILN_DTYPE_U4, bits, 0, 15},
        {KILN_DTYPE_U4, bits, 1, 8},
        {KILN_DTYPE_I4, bits, 0, -1},
        {KILN_DTYPE_I4, bits, 1, -8},
        {KILN_DTYPE_U2, bits + 1, 1, 1},
        {KILN_DTYPE_U2, bits + 1, 3, 3},
        {KILN_DTYPE_I2, bits + 1, 2, -2},
        {KILN_DTYPE_F8E4M3FN, f8, 0, 1},
        {KILN_DTYPE_BOOL, bits, 0, 1},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(cases); ++i) {
        kiln_tensor t = tensor(cases[i].dtype, 1, 8, 0, cases[i].data);
        assert_int_equal(kiln_values_per_element(cases[i].dtype), 1);
        assert_near(kiln_value_at(&t, cases[i].index), cases[i].want, 0);
    }
    assert_int_equal(kiln_values_per_element(KILN_DTYPE_STRING), 0);
    assert_int_equal(kiln_values_per_element((kiln_dtype)99), 0);
    assert_int_equal(kiln_values_per_element(KILN_DTYPE_C64), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(top1_top5_and_loss, set_up, tear_down),
        cmocka_unit_test_setup_teardown(precision_recall_f1, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ties_nan_and_accepted_labels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_labels_that_do_not_fit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(comparison_by_hand, set_up, tear_down),
        cmocka_unit_test_setup_teardown(equal_tensors_and_nonfinite, set_up, tear_down),
        cmocka_unit_test_setup_teardown(comparison_streams, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_of_every_type, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
