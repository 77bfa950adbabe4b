/* Matrices in 8 or 4 bits: which, at which scales, and what that leaves of a network. */
#include "pass/graphs.h"

#include "ops/attrs.h"
#include "quant/weight_only.h"

static const char network[] = "graph \"g\"\n"
                              "in x: float32[3,70]\n"
                              "const w: float32[70,40] = rand(1)\n"
                              "const v: float32[50,40] = rand(2)\n"
                              "const b: float32[50] = rand(3)\n"
                              "const s: float32[50,4] = rand(4)\n"
                              "const k: float32[50,50] = rand(5)\n"
                              "a = MatMul(x, w) @first\n"
                              "r = Relu(a)\n"
                              "c = Gemm(r, v, b) {transB=1} @second\n"
                              "d = MatMul(c, k) @third\n"
                              "y = MatMul(d, s) @small\n"
                              "out y\n"
                              "end\n";

static const kiln_node *node_of(const world *w, const char *name) {
    for (size_t i = 0; i < w->graph->n_nodes; i++) {
        if (strcmp(w->graph->nodes[i]->name, name) == 0) {
            return w->graph->nodes[i];
        }
    }
    fail_msg("no node %s", name);
    return NULL;
}

/* Scales are what the greatest of a block asks for, and codes within half a step. */
static void check_matrix(const world *before, const world *after, const char *name, int32_t bits,
                         int64_t block) {
    const kiln_node *was = node_of(before, name), *d = node_of(after, name)->in[1]->producer;
    const kiln_tensor *w = kiln_value_data(was->in[1]);
    bool flip = was->op == &kiln_op_gemm;
    assert_non_null(d);
    assert_ptr_equal(d->op, &kiln_op_dequantize_linear);
    const kiln_tensor *q = kiln_value_data(d->in[0]), *s = kiln_value_data(d->in[1]);
    const kiln_quant_attrs *a = d->attrs;
    assert_int_equal(q->dtype, bits == 8 ? KILN_DTYPE_I8 : KILN_DTYPE_I4);
    assert_int_equal(a->block_size, block);
    int64_t n_k = w->dims[flip], n_n = w->dims[!flip], size = block ? block : n_k;
    int64_t blocks = (n_k + size - 1) / size;
    assert_int_equal(a->axis, block ? flip : !flip);
    assert_int_equal(kiln_tensor_count(s), blocks * n_n);
    for (int64_t n = 0; n < n_n; n++) {
        for (int64_t g = 0; g < blocks; g++) {
            double most = 0;
            double scale = (double)((float *)s->data)[flip ? n * blocks + g : g * n_n + n];
            for (int64_t k = g * size; k < n_k && k < (g + 1) * size; k++) {
                int64_t i = flip ? n * n_k + k : k * n_n + n;
                double x = (double)((float *)w->data)[i];
                int64_t code = kiln_get_i64(q->dtype, q->data, i);
                most = fmax(most, fabs(x));
                assert_true(llabs(code) < 1 << (bits - 1));
                bool inside = fabs(x) < scale * ((1 << (bits - 1)) - 1);
                assert_true(!inside || fabs(x - (double)code * scale) <= 0.5001 * scale);
            }
            double top = most / ((1 << (bits - 1)) - 1);
            assert_true(scale <= top * 1.0001 && scale >= (bits == 8 ? 0.9999 : 0.59) * top);
        }
    }
}

static double sqnr(world *before, world *after) {
    kiln_datum *a = evaluate(before, 9), *b = evaluate(after, 9);
    double signal = 0, noise = 0;
    for (int64_t i = 0; i < kiln_tensor_count(&a->tensor); i++) {
        double u = (double)((float *)a->tensor.data)[i];
        double e = u - (double)((float *)b->tensor.data)[i];
        signal += u * u;
        noise += e * e;
    }
    return 10 * log10(signal / noise);
}

static void test_place(void **state) {
    (void)state;
    static const struct {
        int32_t bits;
        int64_t block;
        double least_db;
    } cases[] = {{8, 0, 35}, {8, 32, 38}, {4, 32, 12}, {4, 0, 10}, {4, 16, 13}};
    for (size_t i = 0; i < KILN_COUNT_OF(cases); i++) {
        world before, after;
        kiln_weight_only job = {.bits = cases[i].bits, .block = cases[i].block};
        world_open(&before, network, sizeof network - 1);
        world_open(&after, network, sizeof network - 1);
        assert_int_equal(kiln_weight_only_place(&job, after.graph, after.diag), KILN_OK);
        assert_int_equal(job.n_matrices, 3);
        assert_int_equal(job.weights, 70 * 40 + 50 * 40 + 50 * 50);
        assert_non_null(node_of(&after, "small")->in[1]->constant);
        check_matrix(&before, &after, "first", cases[i].bits, cases[i].block);
        check_matrix(&before, &after, "second", cases[i].bits, cases[i].block);
        check_matrix(&before, &after, "third", cases[i].bits, cases[i].block);
        double db = sqnr(&before, &after);
        if (!(db >= cases[i].least_db && db < 80)) {
            fail_msg("%d bits, blocks of %d: %.1f dB", cases[i].bits, (int)cases[i].block, db);
        }
        /* Once is enough. */
        assert_int_equal(kiln_weight_only_place(&job, after.graph, after.diag), KILN_E_UNSUPPORTED);
        world_close(&before);
        world_close(&after);
    }
}

static void test_rules(void **state) {
    (void)state;
    world w;
    kiln_rules rules;
    kiln_weight_only job = {.bits = 8, .rules = &rules};
    world_open(&w, network, sizeof network - 1);
    assert_int_equal(
        kiln_rules_parse(&rules, "int8,type:Gemm=fp32,name:fi*=fp32", &w.arena, w.diag), KILN_OK);
    assert_int_equal(kiln_weight_only_place(&job, w.graph, w.diag), KILN_OK);
    assert_int_equal(job.n_matrices, 1);
    assert_null(node_of(&w, "third")->in[1]->constant);
    world_close(&w);
}

static void test_not_finite(void **state) {
    (void)state;
    world w;
    kiln_weight_only job = {.bits = 8};
    world_open(&w, network, sizeof network - 1);
    ((float *)kiln_value_data(node_of(&w, "third")->in[1])->data)[7] = NAN;
    assert_int_equal(kiln_weight_only_place(&job, w.graph, w.diag), KILN_E_UNSUPPORTED);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_place),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
