/* test_ops_inputs.c - what inference refuses for every operator before the operator itself looks:
 * inputs that are no tensors, required inputs left out, too many inputs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "ops/util.h"

enum { MOST = 8 };

typedef struct world {
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *graph;
    kiln_diag *diag;
    kiln_value *tensor, *sequence, *optional;
} world;

static int setup(void **state) {
    static world w;
    static const kiln_dim three = 3;
    static const kiln_type elem = {
        .kind = KILN_KIND_TENSOR, .dtype = KILN_DTYPE_F32, .rank = 1, .dims = &three};
    const kiln_type list = {.kind = KILN_KIND_SEQUENCE, .elem = &elem};
    const kiln_type maybe = {.kind = KILN_KIND_OPTIONAL, .elem = &elem};
    memset(&w, 0, sizeof w);
    kiln_arena_init(&w.arena, NULL);
    kiln_dims_init(&w.dims, &w.arena);
    assert_int_equal(kiln_graph_create(&w.graph, &w.arena, &w.dims, NULL, NULL, "g"), KILN_OK);
    assert_int_equal(kiln_diag_create(&w.diag, NULL), KILN_OK);
    assert_int_equal(kiln_graph_input(&w.tensor, w.graph, "tensor", &elem), KILN_OK);
    assert_int_equal(kiln_graph_input(&w.sequence, w.graph, "sequence", &list), KILN_OK);
    assert_int_equal(kiln_graph_input(&w.optional, w.graph, "optional", &maybe), KILN_OK);
    *state = &w;
    return 0;
}

static int teardown(void **state) {
    world *w = *state;
    kiln_diag_destroy(w->diag);
    kiln_arena_free(&w->arena);
    return 0;
}

/* Infers op over n inputs, all tensors but input `at`, and demands a finding of this code. */
static void refuses(world *w, const kiln_op *op, int32_t n, int32_t at, kiln_value *odd,
                    const char *code) {
    kiln_value *in[MOST + 1];
    kiln_node *node;
    for (int32_t i = 0; i < n; i++) {
        in[i] = i == at ? odd : w->tensor;
    }
    assert_int_equal(kiln_graph_detached(&node, w->graph, op, NULL, in, n, op->min_out), KILN_OK);
    kiln_diag_clear(w->diag);
    assert_int_equal(kiln_infer_node(w->graph, node, w->diag), KILN_E_MALFORMED);
    const kiln_finding *f = kiln_diag_get(w->diag, 0);
    assert_non_null(f);
    assert_string_equal(f->code, code);
}

static void only_tensors(void **state) {
    world *w = *state;
    size_t refused = 0;
    for (size_t k = 0; k < kiln_op_count(); k++) {
        const kiln_op *op = kiln_op_at(k);
        int32_t n = op->max_in < 0 || op->max_in > MOST ? op->min_in : op->max_in;
        for (int32_t i = 0; i < n && !(op->flags & KILN_OP_ANY_KIND); i++) {
            refuses(w, op, n, i, w->sequence, "E0402");
            refuses(w, op, n, i, w->optional, "E0402");
            refused++;
        }
    }
    assert_true(refused > kiln_op_count());
}

static void required_inputs(void **state) {
    world *w = *state;
    for (size_t k = 0; k < kiln_op_count(); k++) {
        const kiln_op *op = kiln_op_at(k);
        for (int32_t i = 0; i < op->min_in; i++) {
            refuses(w, op, op->min_in, i, NULL, "E0305");
        }
        if (op->min_in > 0) {
            refuses(w, op, op->min_in - 1, -1, NULL, "E0305");
        }
        if (op->max_in >= 0 && op->max_in < MOST) {
            refuses(w, op, op->max_in + 1, -1, NULL, "E0305");
        }
    }
}

/* Those that may take anything do: a sequence goes through Identity and has a length. */
static void any_kind(void **state) {
    world *w = *state;
    kiln_node *node;
    assert_int_equal(
        kiln_graph_node(&node, w->graph, kiln_op_find("", "Identity"), NULL, &w->sequence, 1, 1),
        KILN_OK);
    assert_int_equal(kiln_infer_node(w->graph, node, w->diag), KILN_OK);
    assert_int_equal(node->out[0]->type.kind, KILN_KIND_SEQUENCE);
    assert_int_equal(kiln_graph_node(&node, w->graph, kiln_op_find("", "SequenceLength"), NULL,
                                     &node->out[0], 1, 1),
                     KILN_OK);
    assert_int_equal(kiln_infer_node(w->graph, node, w->diag), KILN_OK);
    assert_int_equal(node->out[0]->type.dtype, KILN_DTYPE_I64);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_tensors, setup, teardown),
        cmocka_unit_test_setup_teardown(required_inputs, setup, teardown),
        cmocka_unit_test_setup_teardown(any_kind, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
