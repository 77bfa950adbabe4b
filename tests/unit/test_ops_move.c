/* test_ops_move.c - shape computations over symbols vanish, impossible attributes are refused,
 * loops stay within their limits. What the operators compute is the ONNX node tests' business. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "ops/attrs.h"
#include "ops/util.h"

typedef struct world {
    kiln_env *env;
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *graph;
    kiln_diag *diag;
} world;

static int setup(void **state) {
    static world w;
    memset(&w, 0, sizeof w);
    kiln_limits limits = {.size = sizeof limits, .loop_trips = 1000, .tensor_bytes = 1 << 20};
    kiln_env_options options = {.size = sizeof options, .limits = &limits};
    assert_int_equal(kiln_env_create(&w.env, &options), KILN_OK);
    kiln_arena_init(&w.arena, w.env);
    kiln_dims_init(&w.dims, &w.arena);
    assert_int_equal(kiln_graph_create(&w.graph, &w.arena, &w.dims, w.env, NULL, "g"), KILN_OK);
    assert_int_equal(kiln_diag_create(&w.diag, NULL), KILN_OK);
    *state = &w;
    return 0;
}

static int teardown(void **state) {
    world *w = *state;
    kiln_diag_destroy(w->diag);
    kiln_arena_free(&w->arena);
    kiln_env_destroy(w->env);
    return 0;
}

static kiln_value *input(world *w, kiln_dtype dtype, int32_t rank, const kiln_dim *dims) {
    kiln_type t = kiln_type_tensor(dtype, rank, dims);
    kiln_value *v;
    assert_int_equal(kiln_graph_input(&v, w->graph, NULL, &t), KILN_OK);
    return v;
}

static kiln_value *ints(world *w, const int64_t *v, int64_t n) {
    kiln_value *value;
    assert_int_equal(kiln_graph_ints(&value, w->graph, v, n), KILN_OK);
    return value;
}

static kiln_value *one(world *w, int64_t v) {
    return ints(w, &v, 1);
}

static kiln_node *node(world *w, const char *op, kiln_value *const *in, int32_t n_in) {
    kiln_node *n;
    assert_non_null(kiln_op_find("", op));
    assert_int_equal(kiln_graph_node(&n, w->graph, kiln_op_find("", op), NULL, in, n_in, 1),
                     KILN_OK);
    return n;
}

static kiln_value *inferred(world *w, kiln_node *n) {
    assert_int_equal(kiln_infer_node(w->graph, n, w->diag), KILN_OK);
    return n->out[0];
}

static kiln_value *apply(world *w, const char *op, kiln_value *a, kiln_value *b) {
    kiln_value *in[] = {a, b};
    return inferred(w, node(w, op, in, b ? 2 : 1));
}

static kiln_value *slice(world *w, kiln_value *x, int64_t from, int64_t to, int64_t axis) {
    kiln_value *in[] = {x, one(w, from), one(w, to), one(w, axis)};
    return inferred(w, node(w, "Slice", in, 4));
}

static kiln_value *concat(world *w, kiln_value *const *in, int32_t n) {
    kiln_node *c = node(w, "Concat", in, n);
    ((kiln_axis_attrs *)c->attrs)->axis = 0;
    return inferred(w, c);
}

/* x.reshape(x.shape[0], x.shape[1] // 4, 4, -1), as an exporter writes it. */
static void reshape_by_computed_shape(void **state) {
    world *w = *state;
    kiln_dim n = kiln_dim_symbol(&w->dims, "N"), t = kiln_dim_symbol(&w->dims, "T");
    kiln_dim dims[] = {n, t, 64, 8}, four = 4;
    kiln_value *x = input(w, KILN_DTYPE_F32, 4, dims);
    kiln_value *shape = apply(w, "Shape", x, NULL);
    kiln_value *first = slice(w, shape, 0, 1, 0), *scalar = apply(w, "Squeeze", first, NULL);
    kiln_value *rows = apply(w, "Unsqueeze", scalar, one(w, 0));
    kiln_value *second = apply(w, "Gather", shape, one(w, -3));
    kiln_value *parts[] = {rows, apply(w, "Div", second, one(w, four)), one(w, 4), one(w, -1)};
    kiln_value *y = apply(w, "Reshape", x, concat(w, parts, 4));
    assert_int_equal(y->type.rank, 4);
    assert_true(y->type.dims[0] == n);
    assert_true(y->type.dims[1] == kiln_dim_div(&w->dims, t, 4));
    assert_int_equal(y->type.dims[2], 4);

    kiln_value *flat[] = {first, one(w, -1)};
    y = apply(w, "Reshape", x, concat(w, flat, 2));
    assert_true(y->type.dims[1] == kiln_dim_mul(&w->dims, t, 512));
    kiln_value *merge[] = {one(w, -1), one(w, 256)};
    y = apply(w, "Reshape", x, concat(w, merge, 2));
    assert_true(y->type.dims[0] == kiln_dim_mul(&w->dims, kiln_dim_mul(&w->dims, n, t), 2));
}

static void symbolic_slices(void **state) {
    world *w = *state;
    kiln_dim n = kiln_dim_symbol(&w->dims, "N");
    kiln_value *x = input(w, KILN_DTYPE_F32, 1, &n);
    assert_true(slice(w, x, 0, INT64_MAX, 0)->type.dims[0] == n);
    assert_true(slice(w, x, 1, INT64_MAX, 0)->type.dims[0] == kiln_dim_sub(&w->dims, n, 1));
    assert_true(slice(w, x, 0, -1, 0)->type.dims[0] == kiln_dim_sub(&w->dims, n, 1));
    assert_true(slice(w, x, -1, INT64_MAX, 0)->type.dims[0] == 1);
    assert_true(slice(w, x, 0, 4, 0)->type.dims[0] == kiln_dim_min(&w->dims, n, 4));
    kiln_value *range[] = {one(w, 0), apply(w, "Shape", x, NULL), one(w, 1)};
    assert_true(inferred(w, node(w, "Range", range, 3))->type.dims[0] == n);
    kiln_value *wide = apply(w, "Expand", one(w, 7), apply(w, "Shape", x, NULL));
    assert_true(wide->type.dims[0] == n);
}

static void contents_are_exact(void **state) {
    world *w = *state;
    int64_t v[] = {1, 2, 3, 4, 5, 6}, grid[] = {2, 3}, twice[] = {2, 1};
    kiln_value *x = apply(w, "Reshape", ints(w, v, 6), ints(w, grid, 2));
    kiln_value *t = apply(w, "Transpose", x, NULL);
    int64_t turned[] = {1, 4, 2, 5, 3, 6};
    assert_int_equal(t->n_contents, 6);
    assert_memory_equal(t->contents, turned, sizeof turned);
    kiln_value *tiled = apply(w, "Tile", x, ints(w, twice, 2));
    assert_int_equal(tiled->n_contents, 12);
    assert_int_equal(tiled->contents[11], 6);
    kiln_value *cut[] = {ints(w, v, 6), one(w, -1), one(w, INT64_MIN), one(w, 0), one(w, -2)};
    kiln_value *back = inferred(w, node(w, "Slice", cut, 5));
    int64_t odd[] = {6, 4, 2};
    assert_int_equal(back->n_contents, 3);
    assert_memory_equal(back->contents, odd, sizeof odd);
}

/* Each line must be refused, whatever the order of checks. */
static void impossible_requests(void **state) {
    world *w = *state;
    kiln_dim d[] = {4, 6};
    kiln_value *x = input(w, KILN_DTYPE_F32, 2, d);
    int64_t big = INT64_C(1) << 50, two[] = {-1, -1}, uneven[] = {5, -1}, many[] = {big, big};
    int64_t same[] = {0, 0}, zero = 0, pads[] = {0, INT64_C(1) << 40, 0, INT64_C(1) << 40};
    struct {
        const char *op;
        kiln_value *in[5];
        int32_t n;
    } cases[] = {
        {"Reshape", {x, ints(w, two, 2)}, 2},
        {"Reshape", {x, ints(w, uneven, 2)}, 2},
        {"Reshape", {x, ints(w, many, 2)}, 2},
        {"Slice", {x, one(w, 0), one(w, 1), one(w, 0), ints(w, &zero, 1)}, 5},
        {"Slice", {x, ints(w, same, 2), ints(w, two, 2), ints(w, same, 2)}, 4},
        {"Slice", {x, one(w, 0), one(w, 1), one(w, INT64_MIN)}, 4},
        {"Gather", {x, one(w, 4)}, 2},
        {"Gather", {x, one(w, INT64_MIN)}, 2},
        {"Expand", {x, ints(w, many, 2)}, 2},
        {"Tile", {x, ints(w, many, 2)}, 2},
        {"Tile", {x, ints(w, two, 2)}, 2},
        {"Pad", {x, ints(w, pads, 4)}, 2},
        {"Pad", {x, ints(w, pads, 3)}, 2},
        {"ConstantOfShape", {ints(w, many, 2)}, 1},
        {"ConstantOfShape", {ints(w, two, 2)}, 1},
        {"Range", {one(w, 0), one(w, big), ints(w, &zero, 1)}, 3},
        {"Range", {one(w, INT64_MIN), one(w, INT64_MAX), one(w, 1)}, 3},
        {"TopK", {x, one(w, 7)}, 2},
        {"TopK", {x, one(w, -1)}, 2},
        {"Squeeze", {x, one(w, 0)}, 2},
        {"Unsqueeze", {x, ints(w, same, 2)}, 2},
        {"Split", {x, ints(w, uneven, 2)}, 2},
        {"OneHot", {one(w, 0), one(w, -1), ints(w, same, 2)}, 3},
        {"DepthToSpace", {x}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kiln_node *n = node(w, cases[i].op, cases[i].in, cases[i].n);
        size_t before = kiln_diag_count(w->diag);
        if (kiln_infer_node(w->graph, n, w->diag) == KILN_OK) {
            fail_msg("case %zu, %s, was accepted", i, cases[i].op);
        }
        assert_true(kiln_diag_count(w->diag) == before + 1);
    }
}

/* A loop whose body adds its carried value to itself and keeps the condition it is given. */
static kiln_node *make_loop(world *w, int64_t trips, bool go) {
    kiln_graph *body;
    kiln_type counter = kiln_type_tensor(KILN_DTYPE_I64, 0, NULL);
    kiln_type flag = kiln_type_tensor(KILN_DTYPE_BOOL, 0, NULL);
    kiln_dim three = 3;
    kiln_type state = kiln_type_tensor(KILN_DTYPE_I64, 1, &three);
    assert_int_equal(kiln_graph_create(&body, &w->arena, &w->dims, w->env, w->graph, "body"),
                     KILN_OK);
    kiln_value *i, *cond, *x;
    assert_int_equal(kiln_graph_input(&i, body, "i", &counter), KILN_OK);
    assert_int_equal(kiln_graph_input(&cond, body, "cond", &flag), KILN_OK);
    assert_int_equal(kiln_graph_input(&x, body, "x", &state), KILN_OK);
    kiln_node *add;
    kiln_value *both[] = {x, x};
    assert_int_equal(kiln_graph_node(&add, body, kiln_op_find("", "Add"), "a", both, 2, 1),
                     KILN_OK);
    kiln_graph_output(body, cond);
    kiln_graph_output(body, add->out[0]);
    kiln_graph_output(body, x);
    int64_t ones[] = {1, 2, 3};
    kiln_value *trip = one(w, trips), *start;
    kiln_tensor t = {
        .dtype = KILN_DTYPE_BOOL, .data = kiln_arena_copy(&w->arena, &go, 1), .cap_bytes = 1};
    assert_int_equal(kiln_graph_constant(&start, w->graph, "go", &t), KILN_OK);
    kiln_value *in[] = {trip, start, ints(w, ones, 3)};
    kiln_node *loop;
    assert_int_equal(kiln_graph_node(&loop, w->graph, kiln_op_find("", "Loop"), "loop", in, 3, 2),
                     KILN_OK);
    loop->bodies = kiln_arena_array(&w->arena, 1, sizeof *loop->bodies);
    loop->bodies[0] = body;
    loop->n_bodies = 1;
    kiln_graph_output(w->graph, loop->out[0]);
    kiln_graph_output(w->graph, loop->out[1]);
    return loop;
}

static kiln_status run_loop(world *w, int64_t trips, bool go, kiln_datum *out) {
    make_loop(w, trips, go);
    assert_int_equal(kiln_infer_graph(w->graph, w->diag), KILN_OK);
    assert_int_equal(kiln_graph_index(w->graph), KILN_OK);
    return kiln_eval_graph(w->graph, NULL, out, NULL, &w->arena, w->diag);
}

static void loop_runs(void **state) {
    world *w = *state;
    kiln_datum out[2];
    assert_int_equal(run_loop(w, 5, true, out), KILN_OK);
    const int64_t *x = out[0].tensor.data, *steps = out[1].tensor.data;
    assert_int_equal(x[2], 3 * 32);
    assert_int_equal(out[1].tensor.dims[0], 5);
    assert_int_equal(steps[4 * 3], 16);
    assert_true(w->graph->outputs[1]->type.dims[0] == 5);
}

static void loop_without_condition_runs(void **state) {
    world *w = *state;
    kiln_datum out[2];
    kiln_node *loop = make_loop(w, 5, false);
    loop->in[1] = NULL;
    assert_int_equal(kiln_infer_graph(w->graph, w->diag), KILN_OK);
    assert_int_equal(kiln_graph_index(w->graph), KILN_OK);
    assert_int_equal(kiln_eval_graph(w->graph, NULL, out, NULL, &w->arena, w->diag), KILN_OK);
    assert_int_equal(((const int64_t *)out[0].tensor.data)[2], 3 * 32);
}

static void endless_loop_that_never_starts(void **state) {
    world *w = *state;
    kiln_datum out[2];
    assert_int_equal(run_loop(w, INT64_MAX, false, out), KILN_OK);
    assert_int_equal(((const int64_t *)out[0].tensor.data)[2], 3);
    assert_int_equal(out[1].tensor.dims[0], 0);
    assert_int_equal(out[1].tensor.dims[1], 3);
}

static void endless_loop_is_stopped(void **state) {
    world *w = *state;
    kiln_datum out[2];
    assert_int_equal(run_loop(w, 1001, true, out), KILN_E_LIMIT);
    assert_string_equal(kiln_diag_get(w->diag, 0)->code, "E0706");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(reshape_by_computed_shape),
        TEST(symbolic_slices),
        TEST(contents_are_exact),
        TEST(impossible_requests),
        TEST(loop_runs),
        TEST(loop_without_condition_runs),
        TEST(endless_loop_that_never_starts),
        TEST(endless_loop_is_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
