/* The JSON writer and the numbers it writes. */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

static void write_sample(kiln_json *json) {
    kiln_json_open(json, '{');
    kiln_json_key(json, "a");
    kiln_json_open(json, '[');
    kiln_json_int(json, INT64_MIN);
    kiln_json_uint(json, UINT64_MAX);
    kiln_json_bool(json, true);
    kiln_json_null(json);
    kiln_json_open(json, '{');
    kiln_json_close(json);
    kiln_json_close(json);
    kiln_json_key(json, "q\"");
    kiln_json_string(json, "\x01\n\\/\xff\xc3\xa9");
    kiln_json_key(json, "x");
    kiln_json_double(json, (double)NAN);
    kiln_json_key(json, "y");
    kiln_json_float(json, 0.1f);
    kiln_json_key(json, "z");
    kiln_json_string(json, NULL);
    kiln_json_close(json);
}

static void test_document(void **state) {
    (void)state;
    kiln_text text;
    kiln_json json;
    kiln_text_init(&text, NULL);
    kiln_json_init(&json, &text, 0);
    write_sample(&json);
    assert_int_equal(kiln_json_finish(&json), KILN_OK);
    assert_string_equal(text.data,
                        "{\"a\":[-9223372036854775808,18446744073709551615,true,null,{}],\"q\\\"\":"
                        "\"\\u0001\\n\\\\/\\ufffd\xc3\xa9\",\"x\":null,\"y\":0.1,\"z\":null}");
    kiln_text_free(&text);
    kiln_json_init(&json, &text, 2);
    kiln_json_open(&json, '{');
    kiln_json_key(&json, "k");
    kiln_json_open(&json, '[');
    kiln_json_int(&json, 1);
    kiln_json_int(&json, 2);
    kiln_json_close(&json);
    kiln_json_close(&json);
    assert_int_equal(kiln_json_finish(&json), KILN_OK);
    assert_string_equal(text.data, "{\n  \"k\": [\n    1,\n    2\n  ]\n}\n");
    kiln_text_free(&text);
}

static void misuse(int which, kiln_json *json) {
    kiln_json_open(json, which == 2 ? '[' : '{');
    switch (which) {
    case 0:
        kiln_json_int(json, 1); /* no key */
        break;
    case 1:
        kiln_json_key(json, "k"); /* no value */
        break;
    case 2:
        kiln_json_key(json, "k"); /* in an array */
        kiln_json_int(json, 1);
        break;
    case 3:
        return; /* not closed */
    default:
        kiln_json_close(json); /* two documents */
        kiln_json_open(json, '{');
    }
    kiln_json_close(json);
}

static void test_misuse_is_reported(void **state) {
    (void)state;
    for (int which = 0; which < 5; which++) {
        kiln_text text;
        kiln_json json;
        kiln_text_init(&text, NULL);
        kiln_json_init(&json, &text, 0);
        misuse(which, &json);
        assert_int_equal(kiln_json_finish(&json), KILN_E_INTERNAL);
        kiln_text_free(&text);
    }
    kiln_text text;
    kiln_json json;
    kiln_text_init(&text, NULL);
    kiln_json_init(&json, &text, 0);
    for (int i = 0; i < KILN_JSON_MAX_DEPTH; i++) {
        kiln_json_open(&json, '[');
    }
    for (int i = 0; i < KILN_JSON_MAX_DEPTH; i++) {
        kiln_json_close(&json);
    }
    assert_int_equal(kiln_json_finish(&json), KILN_OK);
    assert_int_equal(text.len, 2 * KILN_JSON_MAX_DEPTH);
    kiln_text_free(&text);
}

static bool take(void *user, const char *data, size_t len) {
    size_t *total = user;
    (void)data;
    *total += len;
    return *total < 200000;
}

static void test_sink(void **state) {
    (void)state;
    for (int n = 10000; n <= 100000; n += 90000) {
        kiln_text text;
        kiln_json json;
        size_t total = 0;
        kiln_text_init(&text, NULL);
        kiln_json_init(&json, &text, 0);
        json.sink = take;
        json.user = &total;
        kiln_json_open(&json, '[');
        for (int i = 0; i < n; i++) {
            kiln_json_int(&json, 1000000);
        }
        kiln_json_close(&json);
        assert_int_equal(kiln_json_finish(&json), n == 10000 ? KILN_OK : KILN_E_IO);
        assert_true(n != 10000 || total == 80001);
        assert_true(text.cap < 100000);
        kiln_text_free(&text);
    }
}

static void check_double(double x) {
    kiln_text text;
    double back = 0;
    char buf[64];
    kiln_text_init_fixed(&text, buf, sizeof buf);
    kiln_text_double(&text, x);
    assert_true(kiln_parse_double(buf, text.len, &back));
    assert_memory_equal(&x, &back, sizeof x);
}

static void test_numbers_round_trip(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t bits = seed ^ seed >> 29;
        double x;
        memcpy(&x, &bits, sizeof x);
        if (isfinite(x)) {
            check_double(x);
            float f = (float)ldexp(x, -ilogb(x) + (int)(seed >> 60));
            kiln_text text;
            char buf[64];
            double back = 0;
            kiln_text_init_fixed(&text, buf, sizeof buf);
            kiln_text_float(&text, f);
            assert_true(kiln_parse_double(buf, text.len, &back) && (float)back == f);
        }
    }
    static const double special[] = {0.0, -0.0, 0.1, 1e22, 5e-324, 1.7976931348623157e308, 1e100};
    for (size_t i = 0; i < KILN_COUNT_OF(special); i++) {
        check_double(special[i]);
    }
}

static void test_parse(void **state) {
    (void)state;
    double x;
    int64_t n;
    assert_true(kiln_parse_double("-1.5e3", 6, &x) && x == -1500);
    assert_true(kiln_parse_double("12.5xyz", 4, &x) && x == 12.5);
    assert_false(kiln_parse_double("1,5", 3, &x));
    assert_false(kiln_parse_double(" 1", 2, &x));
    assert_false(kiln_parse_double("1 ", 2, &x));
    assert_false(kiln_parse_double("", 0, &x));
    assert_false(kiln_parse_double("1\0", 2, &x));
    assert_true(kiln_parse_i64("-9223372036854775808", 20, &n) && n == INT64_MIN);
    assert_false(kiln_parse_i64("9223372036854775808", 19, &n));
    assert_false(kiln_parse_i64("0x10", 4, &n));
    assert_false(kiln_parse_i64("1.0", 3, &n));
    assert_false(kiln_parse_i64("-", 1, &n));
}

/* Where the machine has a locale with a decimal comma, the numbers are the same. */
static void test_locale(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    for (size_t i = 0; i < KILN_COUNT_OF(names); i++) {
        if (setlocale(LC_ALL, names[i])) {
            check_double(1.5);
            check_double(1e-7);
            setlocale(LC_ALL, "C");
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_document), cmocka_unit_test(test_misuse_is_reported),
        cmocka_unit_test(test_sink),     cmocka_unit_test(test_numbers_round_trip),
        cmocka_unit_test(test_parse),    cmocka_unit_test(test_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
