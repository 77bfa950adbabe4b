/* The text form: what is written reads back the same, and what is wrong is refused with its line.
 * */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "ops/ops.h"

static kiln_status parse(kiln_arena *arena, kiln_dims *dims, const char *text, kiln_graph **g,
                         kiln_diag *diag) {
    kiln_arena_init(arena, NULL);
    kiln_dims_init(dims, arena);
    return kiln_graph_parse(g, text, strlen(text), kiln_op_find, arena, dims, NULL, diag);
}

static void check_round(const char *text) {
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *g;
    kiln_text out;
    assert_int_equal(parse(&arena, &dims, text, &g, NULL), KILN_OK);
    kiln_text_init(&out, NULL);
    assert_int_equal(kiln_graph_dump(&out, g), KILN_OK);
    assert_string_equal(out.data, text);
    kiln_text_free(&out);
    kiln_arena_free(&arena);
}

static void test_round(void **state) {
    (void)state;
    check_round("graph \"all kinds\"\n"
                "in x: float32[N,H*2-1,?,min(N,4)]\n"
                "in s: seq(int64[...])\n"
                "in \"an \\\"odd\\\" name\\x0A\": bool[]\n"
                "const w: float32[8,8] = rand(7)\n"
                "const h: float16[2] = {0.5, nan}\n"
                "const e: uint8[0] = {}\n"
                "const t: float32[8,8] = Transpose(w) {perm=[1,0]}\n"
                "const i: int64[3] = {-1, 0, 9223372036854775807}\n"
                "a = Conv(x, w) {group=2, pads=[1,1]} @conv from one \"two three\"\n"
                "b = Clip(a, _, h)\n"
                "c, \"in\" = Split(b, e) {num_outputs=2}\n"
                "d = MatMul(c, t)\n"
                "f = Reshape(d, i)\n"
                "z = If(\"an \\\"odd\\\" name\\x0A\") {\n"
                "  then_branch = graph \"t\"\n"
                "    p = Neg(f)\n"
                "    out p\n"
                "  end\n"
                "  else_branch = graph \"e\"\n"
                "    out f\n"
                "  end\n"
                "}\n"
                "out z\n"
                "out \"in\"\n"
                "end\n");
}

static void test_refusals(void **state) {
    static const struct {
        const char *text;
        int line;
    } cases[] = {
        {"", 1},
        {"graph \"g\"\n", 2},
        {"graph \"g\"\nin x: float33[1]\nend\n", 2},
        {"graph \"g\"\nin x: float32[1]\nin x: float32[1]\nend\n", 3},
        {"graph \"g\"\nin x: float32[1]\ny = Rulu(x)\nend\n", 3},
        {"graph \"g\"\nin x: float32[1]\n\n# a comment\ny = Relu(z)\nend\n", 5},
        {"graph \"g\"\nin x: float32[1]\ny = LeakyRelu(x) {alpha=0.1 alpha=0.2}\nend\n", 3},
        {"graph \"g\"\nin x: float32[1]\ny = LeakyRelu(x) {beta=0.1}\nend\n", 3},
        {"graph \"g\"\nconst c: uint8[1] = {256}\nend\n", 2},
        {"graph \"g\"\nconst c: uint8[2] = {1}\nend\n", 2},
        {"graph \"g\"\nconst c: uint8[N] = {1}\nend\n", 2},
        {"graph \"g\"\nconst c: uint8[99] = hash(0123456789abcdef)\nend\n", 2},
        {"graph \"g\"\nconst c: float32[4611686018427387904,4] = rand(1)\nend\n", 2},
        {"graph \"g\"\nin x: float32[1]\ny = Relu(x) trailing\nend\n", 3},
        {"graph \"g\"\nend\nmore\n", 3},
        {"graph \"g\"\nin \"\\x00\": float32[]\nend\n", 2},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kiln_arena arena;
        kiln_dims dims;
        kiln_graph *g;
        kiln_diag *diag;
        char expected[32];
        assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
        assert_int_equal(parse(&arena, &dims, cases[i].text, &g, diag), KILN_E_MALFORMED);
        snprintf(expected, sizeof expected, "line %d:", cases[i].line);
        const char *message = kiln_diag_get(diag, 0)->message;
        if (strncmp(message, expected, strlen(expected)) != 0) {
            fail_msg("case %zu: \"%s\" instead of %s", i, message, expected);
        }
        kiln_diag_destroy(diag);
        kiln_arena_free(&arena);
    }
}

/* Nesting and truncation: no crash, an error. */
static void test_hostile(void **state) {
    static const char base[] = "graph \"g\"\nin x: float32[((((N))))]\nconst c: int8[2] = {1, 2}\n"
                               "y = Concat(x, x) {axis=0} @n from a b\nout y\nend\n";
    char deep[4096] = "graph \"g\"\nin x: float32[";
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *g;
    (void)state;
    memset(deep + strlen(deep), '(', 4000);
    assert_int_equal(parse(&arena, &dims, deep, &g, NULL), KILN_E_MALFORMED);
    kiln_arena_free(&arena);
    for (size_t len = 0; len < sizeof base - 2; len++) {
        kiln_arena_init(&arena, NULL);
        kiln_dims_init(&dims, &arena);
        char *copy = test_malloc(len + 1); /* so that a read past the end is seen */
        memcpy(copy, base, len);
        assert_int_not_equal(
            kiln_graph_parse(&g, copy, len, kiln_op_find, &arena, &dims, NULL, NULL), KILN_OK);
        test_free(copy);
        kiln_arena_free(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
