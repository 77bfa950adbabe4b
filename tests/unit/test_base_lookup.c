/* Numbers by name: every name of a long list is found, others are not; of equal ones the first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/lookup.h"

enum { N = 1000 };

static void test_every_name_is_found(void **state) {
    static char texts[N][16];
    const char *names[N + 3];
    kiln_arena arena;
    kiln_lookup l;
    (void)state;
    kiln_arena_init(&arena, NULL);
    for (int i = 0; i < N; i++) {
        snprintf(texts[i], sizeof texts[i], "n%d", (i * 617) % N);
        names[i] = texts[i];
    }
    names[N] = texts[7];
    names[N + 1] = NULL;
    names[N + 2] = "";
    assert_int_equal(kiln_lookup_make(&l, names, N + 3, &arena), KILN_OK);
    assert_int_equal(l.count, N + 1);
    for (int i = 0; i < N; i++) {
        assert_int_equal(kiln_lookup_find(&l, texts[i]), i);
    }
    assert_int_equal(kiln_lookup_find(&l, ""), N + 2);
    assert_int_equal(kiln_lookup_find(&l, "n"), -1);
    assert_int_equal(kiln_lookup_find(&l, "n1000"), -1);
    kiln_arena_free(&arena);
}

static void test_none(void **state) {
    kiln_arena arena;
    kiln_lookup l;
    (void)state;
    kiln_arena_init(&arena, NULL);
    assert_int_equal(kiln_lookup_make(&l, NULL, 0, &arena), KILN_OK);
    assert_int_equal(kiln_lookup_find(&l, "x"), -1);
    kiln_arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_is_found),
        cmocka_unit_test(test_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
