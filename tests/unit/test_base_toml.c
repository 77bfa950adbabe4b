/* The TOML reader: what it reads, what it refuses and on which line, and that no input breaks
 * it. */
#define _GNU_SOURCE 1

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/diag.h"
#include "base/toml.h"

static kiln_status parse(kiln_arena *arena, const char *text, const kiln_toml **root,
                         kiln_diag *diag) {
    kiln_arena_init(arena, NULL);
    return kiln_toml_parse(root, arena, text, strlen(text), diag);
}

static const char sample[] = "# a comment\r\n"
                             "title = \"K\\u00f6ln \\\"x\\\"\\n\" # end\n"
                             "literal = 'C:\\dir'\n"
                             "a.b.c = 1_000\n"
                             "a.b.d = -0x1F_0\n"
                             "\"quoted key\" = true\n"
                             "[build]\n"
                             "threads = +4\n"
                             "scale = 1.5e-3\n"
                             "huge = -inf\n"
                             "odd = nan\n"
                             "bits = [ 8, 4, # inside\n  [\"x\"], ]\n"
                             "inline = { x = 1, y.z = 'deep', w = {} }\n"
                             "[build.cache]\n"
                             "text = \"\"\"\nfirst \\\n     second\"\" \"\"\"\"\"\n"
                             "raw = '''a'b''c'''\n"
                             "[[layer]]\n"
                             "name = \"one\"\n"
                             "[layer.sub]\n"
                             "k = 0b101\n"
                             "[[layer]]\n"
                             "name = \"two\"\n"
                             "k = 0o17\n";

static void test_sample(void **state) {
    (void)state;
    kiln_arena arena;
    const kiln_toml *root, *v;
    char *text = strdup(sample), *minus = strstr(text, "-0x");
    *minus = ' ';
    assert_int_equal(parse(&arena, text, &root, NULL), KILN_OK);
    assert_string_equal(kiln_toml_find(root, "title")->string, "K\xc3\xb6ln \"x\"\n");
    assert_string_equal(kiln_toml_find(root, "literal")->string, "C:\\dir");
    assert_int_equal(kiln_toml_find(root, "a.b.c")->integer, 1000);
    assert_int_equal(kiln_toml_find(root, "a.b.d")->integer, 0x1F0);
    assert_true(kiln_toml_child(root, "quoted key")->boolean);
    assert_int_equal(kiln_toml_find(root, "build.threads")->integer, 4);
    assert_int_equal(kiln_toml_find(root, "build.threads")->line, 8);
    assert_true(kiln_toml_find(root, "build.scale")->number == 1.5e-3);
    assert_true(isinf(kiln_toml_find(root, "build.huge")->number));
    assert_true(isnan(kiln_toml_find(root, "build.odd")->number));
    v = kiln_toml_find(root, "build.bits");
    assert_true(v->kind == KILN_TOML_ARRAY && v->count == 3);
    assert_int_equal(v->first->next->integer, 4);
    assert_string_equal(v->last->first->string, "x");
    assert_string_equal(kiln_toml_find(root, "build.inline.y.z")->string, "deep");
    assert_int_equal(kiln_toml_find(root, "build.inline.w")->count, 0);
    assert_string_equal(kiln_toml_find(root, "build.cache.text")->string, "first second\"\" \"\"");
    assert_string_equal(kiln_toml_find(root, "build.cache.raw")->string, "a'b''c");
    v = kiln_toml_find(root, "layer");
    assert_true(v->kind == KILN_TOML_ARRAY && v->count == 2);
    assert_int_equal(kiln_toml_find(v->first, "sub.k")->integer, 5);
    assert_string_equal(kiln_toml_find(v->last, "name")->string, "two");
    assert_int_equal(kiln_toml_find(v->last, "k")->integer, 15);
    assert_null(kiln_toml_find(root, "build.nothing"));
    assert_null(kiln_toml_find(root, "title.x"));
    assert_null(kiln_toml_find(root, "layer.name"));
    free(text);
    kiln_arena_free(&arena);
}

static void test_accepted(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "\xEF\xBB\xBF# only",
        "[a.b.c]\n[a]\n[a.b]\n",
        "[f]\na.color = 1\na.taste.sweet = true\n[f.a.texture]\nsmooth = true\n",
        "x = 9223372036854775807",
        "x = 0.0\ny = -0\nz = 1e5",
        "1234 = 1\n-_ = 2",
        "s = \"\\U0001F600\"",
        "x = []\ny = [[], [{}]]",
        "[[a]]\n[[a.b]]\n[[a.b]]\n[a.b.c]\n",
    };
    for (size_t i = 0; i < KILN_COUNT_OF(texts); i++) {
        kiln_arena arena;
        const kiln_toml *root;
        assert_int_equal(parse(&arena, texts[i], &root, NULL), KILN_OK);
        kiln_arena_free(&arena);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text;
        kiln_status status;
        int line;
    } cases[] = {
        {"a = 1\na = 2", KILN_E_MALFORMED, 2},
        {"a = 1\n\n[a]", KILN_E_MALFORMED, 3},
        {"[a]\n[a]", KILN_E_MALFORMED, 2},
        {"[a]\nb.c = 1\n[a.b]", KILN_E_MALFORMED, 3},
        {"[a.b.c]\nz = 9\n[a]\nb.c.t = 1", KILN_E_MALFORMED, 4},
        {"a = {}\na.b = 1", KILN_E_MALFORMED, 2},
        {"a = {x = 1}\n[a.b]", KILN_E_MALFORMED, 2},
        {"a = []\n[[a]]", KILN_E_MALFORMED, 2},
        {"[[a]]\n[a]", KILN_E_MALFORMED, 2},
        {"[a]\n[[a]]", KILN_E_MALFORMED, 2},
        {"a = {x = 1,}", KILN_E_MALFORMED, 1},
        {"a = {x = 1\n}", KILN_E_MALFORMED, 1},
        {"a = [1 2]", KILN_E_MALFORMED, 1},
        {"a = [1", KILN_E_MALFORMED, 1},
        {"a = 1 b = 2", KILN_E_MALFORMED, 1},
        {"a = \"x\ny\"", KILN_E_MALFORMED, 1},
        {"a = \"x", KILN_E_MALFORMED, 1},
        {"a = '''x''", KILN_E_MALFORMED, 1},
        {"a = \"\\q\"", KILN_E_MALFORMED, 1},
        {"a = \"\\ud800\"", KILN_E_MALFORMED, 1},
        {"a = \"\\u00\"", KILN_E_MALFORMED, 1},
        {"\"\\u0000\" = 1", KILN_E_MALFORMED, 1},
        {"a = 01", KILN_E_MALFORMED, 1},
        {"a = 1__0", KILN_E_MALFORMED, 1},
        {"a = _1", KILN_E_MALFORMED, 1},
        {"a = 1.", KILN_E_MALFORMED, 1},
        {"a = .5", KILN_E_MALFORMED, 1},
        {"a = 1e", KILN_E_MALFORMED, 1},
        {"a = +0x1", KILN_E_MALFORMED, 1},
        {"a = 0b2", KILN_E_MALFORMED, 1},
        {"a = 0x", KILN_E_MALFORMED, 1},
        {"a = 9223372036854775808", KILN_E_MALFORMED, 1},
        {"a = True", KILN_E_MALFORMED, 1},
        {"a = ", KILN_E_MALFORMED, 1},
        {"a", KILN_E_MALFORMED, 1},
        {"= 1", KILN_E_MALFORMED, 1},
        {"a. = 1", KILN_E_MALFORMED, 1},
        {"[a", KILN_E_MALFORMED, 1},
        {"[]", KILN_E_MALFORMED, 1},
        {"[[a]", KILN_E_MALFORMED, 1},
        {"a = 1\r", KILN_E_MALFORMED, 1},
        {"# \x01", KILN_E_MALFORMED, 1},
        {"a = \"\xff\"", KILN_E_MALFORMED, 1},
        {"\na = 1979-05-27", KILN_E_UNSUPPORTED, 2},
        {"a = 07:32:00", KILN_E_UNSUPPORTED, 1},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(cases); i++) {
        kiln_arena arena;
        kiln_diag *diag;
        const kiln_toml *root;
        char where[32];
        assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
        assert_int_equal(parse(&arena, cases[i].text, &root, diag), cases[i].status);
        snprintf(where, sizeof where, "line %d: ", cases[i].line);
        assert_int_equal(kiln_diag_count(diag), 1);
        assert_memory_equal(kiln_diag_get(diag, 0)->message, where, strlen(where));
        kiln_diag_destroy(diag);
        kiln_arena_free(&arena);
    }
}

static kiln_status parse_repeated(const char *head, const char *piece, size_t times,
                                  const char *tail) {
    size_t len = strlen(piece);
    char *text = malloc(strlen(head) + len * times + strlen(tail) + 1);
    char *end = stpcpy(text, head);
    for (size_t i = 0; i < times; i++) {
        end = stpcpy(end, piece);
    }
    stpcpy(end, tail);
    kiln_arena arena;
    const kiln_toml *root;
    kiln_status status = parse(&arena, text, &root, NULL);
    kiln_arena_free(&arena);
    free(text);
    return status;
}

static void test_limits(void **state) {
    (void)state;
    assert_int_equal(parse_repeated("a = ", "[", 100000, ""), KILN_E_LIMIT);
    assert_int_equal(parse_repeated("a = ", "{a=", 100000, ""), KILN_E_LIMIT);
    assert_int_equal(parse_repeated("a", ".a", 100000, "=1"), KILN_E_LIMIT);
    assert_int_equal(parse_repeated("[a", ".a", 100000, "]"), KILN_E_LIMIT);
    assert_int_equal(parse_repeated("", " ", 2 << 20, ""), KILN_E_LIMIT);
    assert_int_equal(parse_repeated("a = [", "1,", 100000, "]"), KILN_OK);
    assert_int_equal(parse_repeated("a = ", "[", 63, "1"), KILN_E_MALFORMED);
    assert_int_equal(parse_repeated("", "[[a]]\n", 10000, ""), KILN_OK);
}

static void *failing_alloc(void *user, size_t bytes) {
    int *left = user;
    return (*left)-- > 0 ? aligned_alloc(64, (bytes + 63) & ~(size_t)63) : NULL;
}

static void failing_release(void *user, void *ptr, size_t bytes) {
    (void)user;
    (void)bytes;
    free(ptr);
}

static void test_out_of_memory(void **state) {
    (void)state;
    static const char text[] = "a = \"a string\"\n[t]\nx = [1, 2, [3]]\ns = 'more'\n";
    int failures = 0;
    for (int n = 1;; n++) {
        int left = n;
        kiln_allocator allocator = {failing_alloc, failing_release, &left};
        kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
        kiln_env *env;
        kiln_arena arena;
        const kiln_toml *root;
        assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
        kiln_arena_init(&arena, env);
        kiln_status status = kiln_toml_parse(&root, &arena, text, sizeof text - 1, NULL);
        kiln_arena_free(&arena);
        kiln_env_destroy(env);
        if (status == KILN_OK) {
            break;
        }
        assert_int_equal(status, KILN_E_MEMORY);
        failures++;
    }
    assert_true(failures >= 3);
}

/* Every prefix and many one-byte changes of the sample, each in a block of its exact size so that a
 * read past the end is seen by the sanitizers. */
static void test_mutations(void **state) {
    (void)state;
    size_t len = sizeof sample - 1;
    int accepted = 0, refused = 0;
    for (size_t cut = 0; cut <= len; cut++) {
        for (int change = 0; change < 8; change++) {
            static const char bytes[] = "\"'[]{}=.,\n#\\_0e\xff";
            char *text = malloc(cut ? cut : 1);
            memcpy(text, sample, cut);
            if (cut && change) {
                text[(cut * 31 + (size_t)change * 7) % cut] = bytes[(cut + change) % 16];
            }
            kiln_arena arena;
            const kiln_toml *root;
            kiln_arena_init(&arena, NULL);
            bool ok = kiln_toml_parse(&root, &arena, text, cut, NULL) == KILN_OK;
            accepted += ok;
            refused += !ok;
            kiln_arena_free(&arena);
            free(text);
        }
    }
    assert_true(accepted > 10 && refused > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sample),        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_limits),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
