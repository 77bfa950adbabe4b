/* Findings: recording, places and chains, formatting of hostile names, running out of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/diag.h"
#include "base/text.h"

static void *failing_alloc(void *user, size_t bytes) {
    int *left = user;
    return (*left)-- > 0 ? aligned_alloc(64, (bytes + 63) & ~(size_t)63) : NULL;
}

static void failing_release(void *user, void *ptr, size_t bytes) {
    (void)user;
    (void)bytes;
    free(ptr);
}

static void test_format(void **state) {
    (void)state;
    kiln_diag *diag;
    char buf[512];
    assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
    kiln_diag_at_file(diag, "net.onnx");
    kiln_diag_at_node(diag, "c", "Conv");
    assert_int_equal(
        kiln_hint(diag, kiln_fail(diag, KILN_F_SHAPE, "%d is not %d", 1, 2), "try %d", 3),
        KILN_E_MALFORMED);
    size_t len = kiln_finding_format(kiln_diag_get(diag, 0), buf, sizeof buf);
    assert_string_equal(buf, "error[E0401] net.onnx: node \"c\" (Conv): 1 is not 2\nhint: try 3");
    assert_int_equal(len, strlen(buf));
    assert_int_equal(kiln_finding_format(kiln_diag_get(diag, 0), buf, 10), len);
    assert_string_equal(buf, "error[E04");
    assert_int_equal(kiln_finding_format(kiln_diag_get(diag, 0), NULL, 0), len);

    kiln_diag_at_node(diag, NULL, NULL);
    kiln_diag_at_offset(diag, 0x1a40);
    kiln_diag_enter(diag, "importing %s", "X");
    kiln_diag_enter(diag, "pass %s", "Y");
    kiln_warn(diag, KILN_F_WIRE_TRUNCATED, "cut");
    kiln_diag_leave(diag);
    kiln_note(diag, KILN_F_LINT, "said");
    kiln_finding_format(kiln_diag_get(diag, 1), buf, sizeof buf);
    assert_string_equal(buf,
                        "warning[E0101] net.onnx (offset 0x1a40): cut\nwhile importing X > pass Y");
    assert_int_equal(kiln_diag_get(diag, 1)->status, KILN_OK);
    assert_string_equal(kiln_diag_get(diag, 2)->chain, "importing X");
    assert_null(kiln_diag_get(diag, 3));
    kiln_diag_clear(diag);
    assert_int_equal(kiln_diag_count(diag), 0);
    kiln_diag_destroy(diag);
}

static void test_hostile_names(void **state) {
    (void)state;
    kiln_diag *diag;
    assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
    char *name = malloc((1 << 20) + 1), buf[4096];
    memset(name, 'x', 1 << 20);
    name[1 << 20] = '\0';
    kiln_diag_at_node(diag, name, "Conv\x1b[2J\xe2\x80\xae");
    kiln_fail(diag, KILN_F_GRAPH, "value \"%s\" is defined twice", name);
    size_t len = kiln_finding_format(kiln_diag_get(diag, 0), buf, sizeof buf);
    assert_true(len < 1500 && len == strlen(buf));
    assert_non_null(strstr(buf, "xxx...\" (Conv\\x1B[2J\\xE2\\x80\\xAE): value \"xxx"));
    assert_non_null(strstr(buf, " ... xxx"));
    assert_non_null(strstr(buf, "is defined twice"));
    assert_null(strchr(buf, 0x1b));
    free(name);
    kiln_diag_destroy(diag);
}

static void test_escape(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"Gr\xc3\xb6\xc3\x9f\x65 \xe6\x97\xa5 \xf0\x9f\x98\x80",
         "Gr\xc3\xb6\xc3\x9f\x65 \xe6\x97\xa5 \xf0\x9f\x98\x80"},
        {"a\r\n\tb\x7f", "a\\r\\n\\tb\\x7F"},
        {"\xc2\x9b", "\\xC2\\x9B"},
        {"\xff\xc3", "\\xFF\\xC3"},
        {"\xed\xa0\x80", "\\xED\\xA0\\x80"},
        {"\xc0\xaf", "\\xC0\\xAF"},
        {"\xe2\x81\xa6", "\\xE2\\x81\\xA6"},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(cases); i++) {
        char buf[64];
        kiln_text text;
        kiln_text_init_fixed(&text, buf, sizeof buf);
        kiln_text_escape(&text, cases[i].in, strlen(cases[i].in), 0);
        assert_string_equal(buf, cases[i].out);
    }
    char buf[64];
    kiln_text text;
    kiln_text_init_fixed(&text, buf, sizeof buf);
    kiln_text_escape(&text, "ab\xc3\xb6", 4, 3);
    assert_string_equal(buf, "ab...");
}

static void test_truncate_and_null(void **state) {
    (void)state;
    kiln_diag *diag;
    assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
    for (int i = 0; i < 1000; i++) {
        kiln_warn(diag, KILN_F_LINT, "finding %d", i);
    }
    const kiln_finding *early = kiln_diag_get(diag, 3);
    kiln_diag_truncate(diag, 5);
    kiln_fail(diag, KILN_F_LINT, "again");
    assert_int_equal(kiln_diag_count(diag), 6);
    assert_ptr_equal(kiln_diag_get(diag, 3), early);
    assert_string_equal(early->message, "finding 3");
    assert_string_equal(kiln_diag_get(diag, 5)->message, "again");
    for (int i = 0; i < 40; i++) {
        kiln_diag_enter(diag, "%0100d", i);
    }
    kiln_fail(diag, KILN_F_LINT, "deep");
    for (int i = 0; i < 40; i++) {
        kiln_diag_leave(diag);
    }
    kiln_diag_leave(diag);
    kiln_fail(diag, KILN_F_LINT, "flat");
    assert_true(strlen(kiln_diag_get(diag, 6)->chain) < 1024);
    assert_null(kiln_diag_get(diag, 7)->chain);
    kiln_diag_destroy(diag);

    assert_int_equal(kiln_fail(NULL, KILN_F_FILE_OPEN, "x"), KILN_E_IO);
    assert_int_equal(kiln_hint(NULL, KILN_E_IO, "x"), KILN_E_IO);
    kiln_diag_enter(NULL, "x");
    kiln_diag_leave(NULL);
    kiln_diag_truncate(NULL, 0);
    assert_int_equal(kiln_diag_count(NULL), 0);
    assert_null(kiln_diag_get(NULL, 0));
    assert_string_equal(kiln_finding_meaning("E9001"), "out of memory");
    assert_null(kiln_finding_meaning("E9999"));
    assert_null(kiln_finding_meaning(NULL));
}

static void test_out_of_memory(void **state) {
    (void)state;
    for (int n = 2; n < 12; n++) {
        int left = n;
        kiln_allocator allocator = {failing_alloc, failing_release, &left};
        kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
        kiln_env *env;
        kiln_diag *diag;
        assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
        assert_int_equal(kiln_diag_create(&diag, env), KILN_OK);
        for (int i = 0; i < 300; i++) {
            kiln_warn(diag, KILN_F_LINT, "a long warning with its number %d", i);
        }
        kiln_fail(diag, KILN_F_SHAPE, "failed with %d", 7);
        const kiln_finding *last = kiln_diag_get(diag, kiln_diag_count(diag) - 1);
        assert_non_null(last);
        assert_string_equal(last->code, "E0401");
        assert_int_equal(kiln_diag_close(diag, KILN_E_MEMORY), KILN_E_MEMORY);
        kiln_diag_destroy(diag);
        kiln_env_destroy(env);
    }
}

static void test_close(void **state) {
    (void)state;
    kiln_diag *diag;
    assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
    assert_int_equal(kiln_diag_close(diag, KILN_E_MEMORY), KILN_E_MEMORY);
    assert_int_equal(kiln_diag_close(diag, KILN_E_MEMORY), KILN_E_MEMORY);
    assert_int_equal(kiln_diag_count(diag), 1);
    assert_string_equal(kiln_diag_get(diag, 0)->code, "E9001");
    kiln_diag_destroy(diag);
    kiln_diag_destroy(NULL);
}

static void test_text(void **state) {
    (void)state;
    kiln_text text;
    kiln_text_init(&text, NULL);
    for (int i = 0; i < 1000; i++) {
        kiln_text_printf(&text, "%03d,", i);
    }
    assert_true(kiln_text_ok(&text) && text.len == 4000);
    assert_memory_equal(text.data + 3996, "999,", 5);
    kiln_text_free(&text);
    int left = 2;
    kiln_allocator allocator = {failing_alloc, failing_release, &left};
    kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
    kiln_env *env;
    assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
    kiln_text_init(&text, env);
    kiln_text_puts(&text, "short");
    for (int i = 0; i < 100; i++) {
        kiln_text_puts(&text, "more and more");
    }
    assert_false(kiln_text_ok(&text));
    kiln_text_free(&text);
    kiln_env_destroy(env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_escape),        cmocka_unit_test(test_truncate_and_null),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_close),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
