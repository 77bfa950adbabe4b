/* test_ops_math.c - inference of mathematical operators: shape arithmetic over symbols, window
 * sizes, and refusal of impossible attributes. What they compute is the ONNX node tests' business,
 * but for cases that those leave out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "ops/attrs.h"
#include "ops/cost.h"
#include "ops/util.h"

typedef struct world {
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *graph;
    kiln_diag *diag;
} world;

static int setup(void **state) {
    static world w;
    memset(&w, 0, sizeof w);
    kiln_arena_init(&w.arena, NULL);
    kiln_dims_init(&w.dims, &w.arena);
    assert_int_equal(kiln_graph_create(&w.graph, &w.arena, &w.dims, NULL, NULL, "g"), KILN_OK);
    assert_int_equal(kiln_diag_create(&w.diag, NULL), KILN_OK);
    *state = &w;
    return 0;
}

static int teardown(void **state) {
    world *w = *state;
    kiln_diag_destroy(w->diag);
    kiln_arena_free(&w->arena);
    return 0;
}

static kiln_value *input(world *w, kiln_dtype dtype, int32_t rank, const kiln_dim *dims) {
    kiln_type t = kiln_type_tensor(dtype, rank, dims);
    kiln_value *v;
    assert_int_equal(kiln_graph_input(&v, w->graph, NULL, &t), KILN_OK);
    return v;
}

/* A vector of int64 whose contents are these dims. */
static kiln_value *shape(world *w, const kiln_dim *v, int64_t n) {
    kiln_value *value = input(w, KILN_DTYPE_I64, 1, &n);
    value->contents = kiln_arena_copy(&w->arena, v, (size_t)n * sizeof *v);
    value->n_contents = n;
    return value;
}

static kiln_node *node(world *w, const char *op, kiln_value *const *in, int32_t n_in) {
    kiln_node *n;
    assert_non_null(kiln_op_find("", op));
    assert_int_equal(kiln_graph_node(&n, w->graph, kiln_op_find("", op), NULL, in, n_in, 1),
                     KILN_OK);
    return n;
}

static kiln_value *apply(world *w, const char *op, kiln_value *a, kiln_value *b) {
    kiln_value *in[] = {a, b};
    kiln_node *n = node(w, op, in, b ? 2 : 1);
    assert_int_equal(kiln_infer_node(w->graph, n, w->diag), KILN_OK);
    return n->out[0];
}

static void arithmetic_on_symbols(void **state) {
    world *w = *state;
    kiln_dim n = kiln_dim_symbol(&w->dims, "N");
    kiln_value *x = shape(w, (kiln_dim[]){n, 6, -7}, 3), *two = shape(w, (kiln_dim[]){2}, 1);
    const kiln_dim *sum = apply(w, "Add", x, two)->contents;
    assert_int_equal(sum[0], kiln_dim_add(&w->dims, n, 2));
    assert_int_equal(sum[1], 8);
    const kiln_dim *quotient = apply(w, "Div", x, two)->contents;
    assert_int_equal(quotient[0], kiln_dim_div(&w->dims, n, 2));
    assert_int_equal(quotient[2], -3); /* truncated, not rounded down */
    const kiln_dim *remainder = apply(w, "Mod", x, two)->contents;
    assert_int_equal(remainder[2], 1);
    const kiln_dim *zero = apply(w, "Div", x, shape(w, (kiln_dim[]){0}, 1))->contents;
    assert_int_equal(zero[1], 0);
    assert_int_equal(apply(w, "ReduceProd", shape(w, (kiln_dim[]){n, 3}, 2), NULL)->contents[0],
                     kiln_dim_mul(&w->dims, n, 3));
}

/* Expand's target as exporters write it: Where(Equal(shape, -1), 1, shape). */
static void where_equal_minus_one(void **state) {
    world *w = *state;
    kiln_dim n = kiln_dim_symbol(&w->dims, "N");
    kiln_value *x = shape(w, (kiln_dim[]){n, -1, 4}, 3);
    kiln_value *test = apply(w, "Equal", x, shape(w, (kiln_dim[]){-1}, 1));
    kiln_value *in[] = {test, shape(w, (kiln_dim[]){1}, 1), x};
    kiln_node *where = node(w, "Where", in, 3);
    assert_int_equal(kiln_infer_node(w->graph, where, w->diag), KILN_OK);
    assert_int_equal(where->out[0]->contents[0], n);
    assert_int_equal(where->out[0]->contents[1], 1);
    assert_int_equal(where->out[0]->contents[2], 4);
}

static void int32_contents_do_not_wrap(void **state) {
    world *w = *state;
    kiln_dim one = 1;
    kiln_value *x = input(w, KILN_DTYPE_I32, 1, &one);
    x->contents = &(kiln_dim){INT32_MAX};
    x->n_contents = 1;
    assert_null(apply(w, "Add", x, x)->contents);
}

/* Sizes of MaxPool over [1, 1, in] for kernel 3, stride 2. */
static kiln_dim pooled(world *w, kiln_dim in, int64_t pad, bool ceil_mode, int32_t auto_pad) {
    kiln_value *x = input(w, KILN_DTYPE_F32, 3, (kiln_dim[]){1, 1, in});
    kiln_node *n = node(w, "MaxPool", &x, 1);
    kiln_pool_attrs *a = n->attrs;
    int64_t pads[] = {pad, pad};
    a->kernel_shape = (kiln_ints){(int64_t[]){3}, 1};
    a->strides = (kiln_ints){(int64_t[]){2}, 1};
    a->pads = (kiln_ints){pads, 2};
    a->ceil_mode = ceil_mode;
    a->auto_pad = auto_pad;
    assert_int_equal(kiln_infer_node(w->graph, n, w->diag), KILN_OK);
    return n->out[0]->type.dims[2];
}

static void window_sizes(void **state) {
    world *w = *state;
    assert_int_equal(pooled(w, 8, 0, false, KILN_PAD_NOTSET), 3);
    assert_int_equal(pooled(w, 8, 0, true, KILN_PAD_NOTSET), 4);
    /* ceil((8 + 2 - 3) / 2) + 1 = 5 windows; the fifth starts at 8 - 1 = 7, still inside. */
    assert_int_equal(pooled(w, 8, 1, true, KILN_PAD_NOTSET), 5);
    /* Of ceil((5 + 4 - 3) / 2) + 1 = 4 windows the last starts in the end padding: at 6 - 2 = 4 < 5
     * it does not; with 4 elements, ceil(5 / 2) + 1 = 4, it starts at 4 = the input's end: dropped.
     * */
    assert_int_equal(pooled(w, 5, 2, true, KILN_PAD_NOTSET), 4);
    assert_int_equal(pooled(w, 4, 2, true, KILN_PAD_NOTSET), 3);
    assert_int_equal(pooled(w, 7, 0, false, KILN_PAD_SAME_UPPER), 4);
    assert_int_equal(pooled(w, 7, 0, false, KILN_PAD_VALID), 3);
    kiln_dim n = kiln_dim_symbol(&w->dims, "N");
    kiln_dim half = kiln_dim_div(&w->dims, kiln_dim_sub(&w->dims, n, 1), 2);
    assert_int_equal(pooled(w, n, 1, false, KILN_PAD_NOTSET), kiln_dim_add(&w->dims, half, 1));
}

/* Convolutions that no shape makes possible. */
static void conv_refusals(void **state) {
    static const struct {
        int64_t group, stride, dilation, pad;
    } bad[] = {
        {0, 1, 1, 0}, {3, 1, 1, 0},  {INT64_MAX, 1, 1, 0},        {1, 0, 1, 0},
        {1, 1, 0, 0}, {1, 1, 1, -1}, {1, INT64_C(1) << 31, 1, 0}, {1, 1, INT64_C(1) << 31, 0},
        {1, 1, 1, 5}, {1, 1, 1, 0},  {1, 1, 1, INT64_C(1) << 40}, {-1, 1, 1, 0},
    };
    world *w = *state;
    int32_t accepted = 0;
    for (size_t i = 0; i < KILN_COUNT_OF(bad); i++) {
        kiln_value *in[] = {input(w, KILN_DTYPE_F32, 3, (kiln_dim[]){1, 4, 8}),
                            input(w, KILN_DTYPE_F32, 3, (kiln_dim[]){6, 4, 3})};
        kiln_node *n = node(w, "Conv", in, 2);
        kiln_conv_attrs *a = n->attrs;
        int64_t pads[] = {bad[i].pad, bad[i].pad};
        a->group = bad[i].group;
        a->strides = (kiln_ints){&bad[i].stride, 1};
        a->dilations = (kiln_ints){&bad[i].dilation, 1};
        a->pads = (kiln_ints){pads, 2};
        kiln_status status = kiln_infer_node(w->graph, n, w->diag);
        accepted += status == KILN_OK;
        assert_true(status == KILN_OK || status == KILN_E_MALFORMED);
    }
    assert_int_equal(accepted, 2); /* pads 5 and the plain one */
}

/* The node's outputs for one input of n floats. */
static void evaluate(world *w, kiln_node *n, const float *x, int64_t length, kiln_datum *out) {
    kiln_datum in = {.kind = KILN_KIND_TENSOR};
    in.tensor = (kiln_tensor){.dtype = KILN_DTYPE_F32, .rank = 3, .dims = {1, 1, length}};
    in.tensor.data = kiln_arena_copy(&w->arena, x, (size_t)length * sizeof *x);
    in.tensor.cap_bytes = (size_t)length * sizeof *x;
    assert_int_equal(kiln_infer_node(w->graph, n, w->diag), KILN_OK);
    assert_int_equal(kiln_eval_node(n, &in, out, NULL, &w->arena, w->diag), KILN_OK);
}

/* SAME padding is never negative, as ONNX's shape inference has it: the first window begins at
 * element 0 also where the strides skip elements. */
static void same_padding_of_wide_strides(void **state) {
    world *w = *state;
    for (int32_t lower = 0; lower < 2; lower++) {
        kiln_value *x = input(w, KILN_DTYPE_F32, 3, (kiln_dim[]){1, 1, 6});
        kiln_node *n = node(w, "AveragePool", &x, 1);
        kiln_pool_attrs *a = n->attrs;
        kiln_datum y;
        a->kernel_shape = (kiln_ints){.v = (int64_t[]){1}, .n = 1};
        a->strides = (kiln_ints){.v = (int64_t[]){3}, .n = 1};
        a->auto_pad = lower ? KILN_PAD_SAME_LOWER : KILN_PAD_SAME_UPPER;
        evaluate(w, n, (float[]){1, 2, 3, 4, 5, 6}, 6, &y);
        assert_int_equal(y.tensor.dims[2], 2);
        assert_true(((float *)y.tensor.data)[0] == 1 && ((float *)y.tensor.data)[1] == 4);
    }
}

/* The windows of PyTorch's max_pool1d over the same numbers. */
static void maximum_of_nan(void **state) {
    static const float x[] = {NAN, 1, 2, 3, NAN, -INFINITY, NAN, NAN, -INFINITY, -INFINITY};
    static const int64_t at[] = {0, 2, 3, 4, 4, 6, 7, 7, 8};
    world *w = *state;
    kiln_value *in = input(w, KILN_DTYPE_F32, 3, (kiln_dim[]){1, 1, 10});
    kiln_node *n;
    kiln_datum y[2];
    assert_int_equal(kiln_graph_node(&n, w->graph, kiln_op_find("", "MaxPool"), NULL, &in, 1, 2),
                     KILN_OK);
    ((kiln_pool_attrs *)n->attrs)->kernel_shape = (kiln_ints){.v = (int64_t[]){2}, .n = 1};
    evaluate(w, n, x, 10, y);
    for (size_t i = 0; i < KILN_COUNT_OF(at); i++) {
        float got = ((float *)y[0].tensor.data)[i], want = x[at[i]];
        assert_true(isnan(want) ? isnan(got) : got == want);
        assert_int_equal(((int64_t *)y[1].tensor.data)[i], at[i]);
    }
}

static void einsum_refusals(void **state) {
    static const char *const bad[] = {"",           "ij",        "ij,jk,kl", "ij,jk->ii",
                                      "ij,jk->iz",  "ij,j",      "ij,jk-",   "i.j,jk",
                                      "ij,jk->ik,", "......,jk", "ij,j3",    "ij,jk->ik->"};
    world *w = *state;
    for (size_t i = 0; i < KILN_COUNT_OF(bad); i++) {
        kiln_value *x = input(w, KILN_DTYPE_F32, 2, (kiln_dim[]){3, 3}), *in[] = {x, x};
        kiln_node *n = node(w, "Einsum", in, 2);
        ((kiln_einsum_attrs *)n->attrs)->equation = bad[i];
        assert_int_equal(kiln_infer_node(w->graph, n, w->diag), KILN_E_MALFORMED);
    }
}

static void einsum_costs(void **state) {
    world *w = *state;
    const kiln_dim symbol = kiln_dim_symbol(w->graph->dims, "N");
    kiln_value *a = input(w, KILN_DTYPE_F32, 2, (kiln_dim[]){3, 4}),
               *b = input(w, KILN_DTYPE_F32, 2, (kiln_dim[]){4, 5}),
               *c = input(w, KILN_DTYPE_F32, 2, (kiln_dim[]){5, 6}),
               *open = input(w, KILN_DTYPE_F32, 2, (kiln_dim[]){symbol, 4});
    const struct {
        const char *equation;
        kiln_value *in[3];
        int32_t n;
        int64_t macs;
    } cases[] = {{"ij,jk->ik", {a, b}, 2, 3 * 4 * 5},
                 {"ij,jk,kl->il", {a, b, c}, 3, 3 * 4 * 5 + 3 * 5 * 6},
                 {"ij,jk->", {a, b}, 2, 4 * 5}, /* i is summed away before */
                 {"ij,kl->ijkl", {a, c}, 2, 3 * 4 * 5 * 6},
                 {"...j,jk", {open, b}, 2, 4 * 5},
                 {"ij->j", {a}, 1, 0}};
    for (size_t i = 0; i < KILN_COUNT_OF(cases); i++) {
        kiln_node *n = node(w, "Einsum", (kiln_value **)(uintptr_t)cases[i].in, cases[i].n);
        ((kiln_einsum_attrs *)n->attrs)->equation = cases[i].equation;
        assert_int_equal(kiln_infer_node(w->graph, n, w->diag), KILN_OK);
        assert_int_equal(kiln_node_macs(n, NULL), cases[i].macs);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(arithmetic_on_symbols, setup, teardown),
        cmocka_unit_test_setup_teardown(where_equal_minus_one, setup, teardown),
        cmocka_unit_test_setup_teardown(int32_contents_do_not_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(window_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(conv_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(same_padding_of_wide_strides, setup, teardown),
        cmocka_unit_test_setup_teardown(maximum_of_nan, setup, teardown),
        cmocka_unit_test_setup_teardown(einsum_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(einsum_costs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
