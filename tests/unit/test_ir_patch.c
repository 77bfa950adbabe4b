/* Patches: what a commit keeps and drops, and who inherits what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "ops/ops.h"
#include "pass/pass.h"

typedef struct fixture {
    kiln_arena arena, sweep;
    kiln_dims dims;
    kiln_graph *graph;
    kiln_patch patch;
} fixture;

static void open_fixture(fixture *f, const char *text) {
    memset(f, 0, sizeof *f);
    kiln_arena_init(&f->arena, NULL);
    kiln_arena_init(&f->sweep, NULL);
    kiln_dims_init(&f->dims, &f->arena);
    assert_int_equal(kiln_graph_parse(&f->graph, text, strlen(text), kiln_op_find, &f->arena,
                                      &f->dims, NULL, NULL),
                     KILN_OK);
    f->patch = (kiln_patch){.root = f->graph,
                            .graph = f->graph,
                            .arena = &f->sweep,
                            .find = kiln_op_find,
                            .pass = "test",
                            .max_rewrites = SIZE_MAX};
    assert_int_equal(kiln_patch_init(&f->patch), KILN_OK);
}

static void close_fixture(fixture *f) {
    kiln_arena_free(&f->sweep);
    kiln_arena_free(&f->arena);
}

static void expect_text(fixture *f, const char *expected) {
    kiln_text text;
    assert_int_equal(kiln_patch_apply(&f->patch), KILN_OK);
    assert_int_equal(kiln_graph_sort(f->graph, NULL), KILN_OK);
    assert_int_equal(kiln_graph_verify(f->graph, NULL), KILN_OK);
    kiln_text_init(&text, NULL);
    assert_int_equal(kiln_graph_dump(&text, f->graph), KILN_OK);
    assert_string_equal(text.data, expected);
    kiln_text_free(&text);
}

static const char chain[] =
    "graph \"g\"\nin x: float32[2]\na = Neg(x)\nb = Exp(a)\ny = Neg(b) @last\nout y\nend\n";

/* The second rewrite shares node b with the first. */
static void test_overlap(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, chain);
    kiln_patch *p = &f.patch;
    kiln_node **n = f.graph->nodes;
    kiln_patch_touch(p, n[0]);
    kiln_patch_replace(p, n[1]->out[0], kiln_patch_node(p, "Sin", f.graph->inputs, 1));
    assert_int_equal(kiln_patch_commit(p, "first"), KILN_OK);
    assert_true(kiln_patch_taken(p, n[0]));
    kiln_patch_touch(p, n[1]);
    kiln_patch_replace(p, n[2]->out[0], kiln_patch_node(p, "Cos", f.graph->inputs, 1));
    assert_int_equal(kiln_patch_commit(p, "second"), KILN_OK);
    assert_int_equal(p->n_rewrites, 1);
    expect_text(
        &f, "graph \"g\"\nin x: float32[2]\nb = Sin(x) from a b\ny = Neg(b) @last\nout y\nend\n");
    close_fixture(&f);
}

/* One rewrite's new node reads what another replaces. */
static void test_forwarding(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, chain);
    kiln_patch *p = &f.patch;
    kiln_node **n = f.graph->nodes;
    kiln_patch_replace(p, n[2]->out[0], kiln_patch_node(p, "Cos", n[1]->out, 1));
    assert_int_equal(kiln_patch_commit(p, "last"), KILN_OK);
    kiln_patch_replace(p, n[1]->out[0], n[0]->out[0]);
    assert_int_equal(kiln_patch_commit(p, "middle"), KILN_OK);
    kiln_patch_replace(p, n[0]->out[0], f.graph->inputs[0]);
    assert_int_equal(kiln_patch_commit(p, "first"), KILN_OK);
    assert_int_equal(p->n_rewrites, 3);
    expect_text(&f, "graph \"g\"\nin x: float32[2]\ny = Cos(x) @last\nout y\nend\n");
    close_fixture(&f);
}

static void test_refused(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, chain);
    kiln_patch *p = &f.patch;
    kiln_node **n = f.graph->nodes;
    /* An input cannot take the name of an output. */
    assert_false(kiln_patch_may_replace(p, n[2]->out[0], f.graph->inputs[0]));
    kiln_patch_replace(p, n[2]->out[0], f.graph->inputs[0]);
    assert_int_equal(kiln_patch_commit(p, "output"), KILN_OK);
    /* Two precisions that differ cannot be joined. */
    n[0]->precision.dtype = KILN_DTYPE_F32;
    n[1]->precision.dtype = KILN_DTYPE_F16;
    kiln_patch_touch(p, n[0]);
    kiln_patch_replace(p, n[1]->out[0], kiln_patch_node(p, "Sin", f.graph->inputs, 1));
    assert_int_equal(kiln_patch_commit(p, "precision"), KILN_OK);
    assert_int_equal(p->n_rewrites, 0);
    expect_text(&f, chain);
    close_fixture(&f);
}

/* What a pass gets wrong is an error, not a crash. */
static void test_misuse(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, chain);
    kiln_patch *p = &f.patch;
    kiln_value *y = kiln_patch_node(p, "NoSuchOperator", f.graph->inputs, 1);
    assert_null(y);
    kiln_patch_int(p, y, "axis", 1);
    kiln_patch_replace(p, f.graph->nodes[1]->out[0], y);
    assert_int_equal(kiln_patch_commit(p, "unknown"), KILN_E_INTERNAL);
    close_fixture(&f);
    open_fixture(&f, chain);
    y = kiln_patch_node(p, "Softmax", f.graph->inputs, 1);
    kiln_patch_int(p, y, "no_such_attribute", 1);
    assert_int_equal(kiln_patch_commit(p, "unknown"), KILN_E_INTERNAL);
    close_fixture(&f);
}

/* Passes switched off do nothing; unknown names are known to be unknown. */
static void test_switches(void **state) {
    (void)state;
    fixture f;
    kiln_pass_info *infos;
    size_t n;
    open_fixture(&f, "graph \"g\"\nin x: float32[2]\na = Identity(x)\ny = Relu(a)\nout y\nend\n");
    assert_int_equal(kiln_infer_graph(f.graph, NULL), KILN_OK);
    const char *const off[] = {"identity", NULL};
    kiln_pass_options options = {.off = off};
    assert_int_equal(kiln_passes_run(f.graph, &options, &infos, &n, NULL), KILN_OK);
    assert_int_equal(f.graph->n_nodes, 2);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(infos[i].rewrites, 0);
        assert_int_equal(infos[i].off, strcmp(infos[i].name, "identity") == 0);
    }
    assert_int_equal(kiln_passes_run(f.graph, NULL, &infos, &n, NULL), KILN_OK);
    assert_int_equal(f.graph->n_nodes, 1);
    assert_true(kiln_pass_exists("identity"));
    assert_false(kiln_pass_exists("identify"));
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlap),  cmocka_unit_test(test_forwarding),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_switches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
