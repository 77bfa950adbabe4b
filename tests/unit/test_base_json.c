/* The JSON writer and the numbers it writes. */
#define _GNU_SOURCE 1

#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
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

/* A locale of our own with a decimal comma, made by localedef; false where that cannot be done. */
static bool enter_comma_locale(void) {
    static const char source[] = "comment_char %\nescape_char /\nLC_NUMERIC\ndecimal_point \",\"\n"
                                 "thousands_sep \".\"\ngrouping 3;3\nEND LC_NUMERIC\n";
    char folder[] = "/tmp/kiln-locale-XXXXXX", path[64], command[256];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/comma.txt", folder);
    FILE *file = fopen(path, "w");
    assert_true(file && fputs(source, file) >= 0 && fclose(file) == 0);
    snprintf(command, sizeof command, "localedef -c -f ANSI_X3.4-1968 -i %s %s/comma > %s/log 2>&1",
             path, folder, folder);
    (void)!system(command);
    setenv("LOCPATH", folder, 1);
    bool entered = setlocale(LC_NUMERIC, "comma") != NULL;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    return entered;
}

/* What is written and read in a locale with a decimal comma is the same, and the locale stays. */
static void test_locale(void **state) {
    (void)state;
    if (!enter_comma_locale()) {
        print_message("localedef makes no locale with a decimal comma here\n");
        return;
    }
    char buf[64];
    snprintf(buf, sizeof buf, "%g", 1.5);
    assert_string_equal(buf, "1,5");
    check_double(1.5);
    check_double(1e-7);
    kiln_text text;
    kiln_text_init_fixed(&text, buf, sizeof buf);
    kiln_text_printf(&text, "%.1f %g", 2.5, 0.25);
    assert_string_equal(buf, "2.5 0.25");
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    assert_string_equal(kiln_arena_printf(&arena, "%.2f", 1.25), "1.25");
    kiln_arena_free(&arena);
    assert_string_equal(setlocale(LC_NUMERIC, NULL), "comma");
    snprintf(buf, sizeof buf, "%g", 1.5);
    assert_string_equal(buf, "1,5");
    setlocale(LC_ALL, "C");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_document), cmocka_unit_test(test_misuse_is_reported),
        cmocka_unit_test(test_sink),     cmocka_unit_test(test_numbers_round_trip),
        cmocka_unit_test(test_parse),    cmocka_unit_test(test_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
