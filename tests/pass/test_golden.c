/* Each pass on the graphs of tests/pass/<pass>.in gives those of <pass>.out, and computes the same.
 *
 * A graph whose name begins with "not" must be left alone; in all others the pass must find
 * something. KILN_GOLDEN_UPDATE=1 writes the .out files instead of comparing: read the difference
 * before keeping it.
 */
#include "pass/graphs.h"

static void path_of(char *path, size_t cap, const char *pass, const char *kind) {
    snprintf(path, cap, "tests/pass/%s.%s", pass, kind);
}

static void dump(kiln_text *text, const world *w) {
    assert_int_equal(kiln_graph_dump(text, w->graph), KILN_OK);
}

/* The text form survives a round. */
static void check_round_trip(const world *w) {
    kiln_text first, second;
    world again;
    kiln_text_init(&first, NULL);
    kiln_text_init(&second, NULL);
    dump(&first, w);
    world_open(&again, first.data, first.len);
    dump(&second, &again);
    assert_string_equal(first.data, second.data);
    world_close(&again);
    kiln_text_free(&first);
    kiln_text_free(&second);
}

static void run_case(const char *pass, const char *src, size_t len, kiln_text *result) {
    world before, after;
    world_open(&before, src, len);
    world_open(&after, src, len);
    check_round_trip(&before);
    size_t n = run_passes(&after, pass, 0);
    bool refused = strncmp(after.graph->name, "not", 3) == 0;
    if (refused != (n == 0)) {
        fail_msg("%s: %zu rewrites of graph \"%s\"", pass, n, after.graph->name);
    }
    compare_worlds(&before, &after, pass);
    kiln_text_printf(result, "# %zu rewrites\n", n);
    dump(result, &after);
    kiln_text_char(result, '\n');
    world_close(&before);
    world_close(&after);
}

static void compare_with_golden(const char *pass, const kiln_text *result) {
    char path[256];
    size_t len;
    path_of(path, sizeof path, pass, "out");
    if (getenv("KILN_GOLDEN_UPDATE")) {
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(result->data, 1, result->len, f), result->len);
        fclose(f);
        return;
    }
    char *golden = read_text(path, &len);
    assert_non_null(golden);
    assert_string_equal(result->data, golden);
    test_free(golden);
}

static void test_every_pass(void **state) {
    (void)state;
    for (size_t i = 0; kiln_pass_name(i); i++) {
        const char *pass = kiln_pass_name(i), *start;
        char path[256];
        size_t len, count = 0;
        kiln_text result;
        path_of(path, sizeof path, pass, "in");
        char *text = read_text(path, &len);
        if (!text) {
            fail_msg("%s is missing", path);
        }
        kiln_text_init(&result, NULL);
        for (const char *at = text; next_graph(&at, &start, &len); count++) {
            run_case(pass, start, len, &result);
        }
        assert_true(count > 0);
        compare_with_golden(pass, &result);
        kiln_text_free(&result);
        test_free(text);
    }
}

/* All passes together, and stopped after each number of rewrites. */
static void test_all_together(void **state) {
    (void)state;
    for (size_t i = 0; kiln_pass_name(i); i++) {
        const char *start;
        char path[256];
        size_t len;
        path_of(path, sizeof path, kiln_pass_name(i), "in");
        char *text = read_text(path, &len);
        assert_non_null(text);
        for (const char *at = text; next_graph(&at, &start, &len);) {
            size_t total = 1;
            for (int32_t stop = 1; stop <= (int32_t)total; stop++) {
                world before, after;
                world_open(&before, start, len);
                world_open(&after, start, len);
                size_t n = run_passes(&after, NULL, stop);
                assert_true(n <= (size_t)stop);
                total = n == (size_t)stop ? total + 1 : total;
                compare_worlds(&before, &after, "all passes");
                world_close(&before);
                world_close(&after);
            }
        }
        test_free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pass),
        cmocka_unit_test(test_all_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
