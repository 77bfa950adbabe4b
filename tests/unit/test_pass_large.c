/* The passes take time and memory in proportion to the graph, and no recursion, on what is deep.
 * ctest-timeout: 600 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/timer.h"
#include "ops/ops.h"
#include "pass/pass.h"

#ifdef __SANITIZE_ADDRESS__
enum { LENGTH = 50000 };
#else
enum { LENGTH = 1000000 };
#endif

typedef struct fixture {
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *graph;
    kiln_value *x;
} fixture;

static void open_graph(fixture *f) {
    static const kiln_dim dims[] = {4};
    kiln_type type = kiln_type_tensor(KILN_DTYPE_F32, 1, dims);
    kiln_arena_init(&f->arena, NULL);
    kiln_dims_init(&f->dims, &f->arena);
    assert_int_equal(kiln_graph_create(&f->graph, &f->arena, &f->dims, NULL, NULL, "large"),
                     KILN_OK);
    assert_int_equal(kiln_graph_input(&f->x, f->graph, "x", &type), KILN_OK);
}

static kiln_value *add(fixture *f, const char *op, kiln_value *a, kiln_value *b) {
    kiln_value *in[] = {a, b};
    kiln_node *n;
    assert_int_equal(kiln_graph_node(&n, f->graph, kiln_op_find("", op), NULL, in, b ? 2 : 1, 1),
                     KILN_OK);
    return n->out[0];
}

static void run(fixture *f, kiln_value *y, size_t expected_nodes) {
    kiln_pass_info *infos;
    size_t n;
    assert_int_equal(kiln_graph_output(f->graph, y), KILN_OK);
    assert_int_equal(kiln_graph_index(f->graph), KILN_OK);
    assert_int_equal(kiln_infer_graph(f->graph, NULL), KILN_OK);
    int64_t start = kiln_now_ns();
    assert_int_equal(kiln_passes_run(f->graph, NULL, &infos, &n, NULL), KILN_OK);
    print_message("%.2f s, %zu nodes left\n", (double)(kiln_now_ns() - start) * 1e-9,
                  f->graph->n_nodes);
    assert_int_equal(f->graph->n_nodes, expected_nodes);
    kiln_arena_free(&f->arena);
}

static void test_chain_of_copies(void **state) {
    (void)state;
    fixture f;
    open_graph(&f);
    kiln_value *v = f.x;
    for (int i = 0; i < LENGTH; i++) {
        v = add(&f, "Identity", v, NULL);
    }
    run(&f, add(&f, "Relu", v, NULL), 1);
}

static void test_chain_that_stays(void **state) {
    (void)state;
    fixture f;
    open_graph(&f);
    kiln_value *v = f.x;
    for (int i = 0; i < LENGTH; i++) {
        v = add(&f, i % 2 ? "Exp" : "Neg", v, NULL);
    }
    run(&f, v, LENGTH);
}

/* Each step: two equal nodes and their sum. */
static void test_diamonds(void **state) {
    (void)state;
    fixture f;
    open_graph(&f);
    kiln_value *v = f.x;
    for (int i = 0; i < LENGTH / 3; i++) {
        v = add(&f, "Add", add(&f, "Neg", v, NULL), add(&f, "Neg", v, NULL));
    }
    run(&f, v, 2 * (LENGTH / 3));
}

/* c = c + c over and over: folded in one sweep, though as expressions it would double each time. */
static void test_constant_diamonds(void **state) {
    (void)state;
    fixture f;
    kiln_value *c;
    open_graph(&f);
    assert_int_equal(kiln_graph_scalar(&c, f.graph, 0.0f), KILN_OK);
    for (int i = 0; i < LENGTH / 10; i++) {
        c = add(&f, "Add", c, c);
    }
    run(&f, add(&f, "Max", f.x, c), 1);
}

/* The same where results are too large to compute at once. */
static void test_large_constant_diamonds(void **state) {
    (void)state;
    fixture f;
    kiln_value *c;
    open_graph(&f);
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {2048, 4}};
    t.data = kiln_arena_array(&f.arena, 2048 * 4, sizeof(float));
    assert_int_equal(kiln_graph_constant(&c, f.graph, "c", &t), KILN_OK);
    for (int i = 0; i < 300; i++) {
        c = add(&f, "Add", c, c);
    }
    run(&f, add(&f, "Max", f.x, c), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain_of_copies),
        cmocka_unit_test(test_chain_that_stays),
        cmocka_unit_test(test_diamonds),
        cmocka_unit_test(test_constant_diamonds),
        cmocka_unit_test(test_large_constant_diamonds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
