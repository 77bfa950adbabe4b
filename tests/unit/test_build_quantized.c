/* The rewrites of quantized graphs for the CPU compute the same, and change what they should. */
#include "build/quantized.h"

#include "backend/backend.h"
#include "base/cpu.h"
#include "pass/graphs.h"

typedef kiln_status rewrite_fn(kiln_graph *graph, size_t *n, kiln_diag *diag);

/* Rewrites the graph; `n` things must change, and outputs must be equal bit for bit. */
static void check(rewrite_fn *rewrite, const char *text, size_t want, const char *expected) {
    world before, after;
    kiln_text got;
    size_t n = 0;
    world_open(&before, text, strlen(text));
    world_open(&after, text, strlen(text));
    assert_int_equal(rewrite(after.graph, &n, after.diag), KILN_OK);
    assert_int_equal(kiln_graph_verify(after.graph, after.diag), KILN_OK);
    kiln_text_init(&got, NULL);
    assert_int_equal(kiln_graph_dump(&got, after.graph), KILN_OK);
    if (n != want || (expected && !strstr(got.data, expected))) {
        fail_msg("%zu changes, not %zu:\n%s", n, want, got.data);
    }
    for (uint64_t seed = 1; seed < 4; seed++) {
        kiln_datum *a = evaluate(&before, seed), *b = evaluate(&after, seed);
        for (size_t i = 0; i < before.graph->n_outputs; i++) {
            assert_int_equal(a[i].tensor.dtype, b[i].tensor.dtype);
            size_t bytes = kiln_tensor_bytes(&a[i].tensor);
            assert_int_equal(bytes, kiln_tensor_bytes(&b[i].tensor));
            assert_memory_equal(a[i].tensor.data, b[i].tensor.data, bytes);
        }
    }
    kiln_text_free(&got);
    world_close(&before);
    world_close(&after);
}

static void test_pair(void **state) {
    (void)state;
    check(kiln_make_unsigned,
          "graph \"g\"\nin x: float32[2,3]\nconst s: float32[] = {0.01}\nconst z: int8[] = {-7}\n"
          "q = QuantizeLinear(x, s, z)\ny = DequantizeLinear(q, s, z)\nout y\nend\n",
          1, "= {121}");
    /* Zero points left out: as many as there are scales. */
    check(kiln_make_unsigned,
          "graph \"g\"\nin x: float32[2,3]\nconst s: float32[2] = {0.01, 0.02}\n"
          "q = QuantizeLinear(x, s) {axis=0, output_dtype=3}\n"
          "y = DequantizeLinear(q, s) {axis=0}\nout y\nend\n",
          1, "uint8[2] = {128, 128}");
}

static void test_movers(void **state) {
    (void)state;
    check(kiln_make_unsigned,
          "graph \"g\"\nin x: float32[1,2,4,4]\nconst s: float32[] = {0.01}\n"
          "const z: int8[] = {3}\nconst c: int8[1,1,4,4] = rand(1)\n"
          "const p: int64[8] = {0, 0, 1, 1, 0, 0, 1, 1}\nconst f: int8[] = {-128}\n"
          "q = QuantizeLinear(x, s, z)\nm = MaxPool(q) {kernel_shape=[2,2]}\n"
          "k = Pad(m, p)\nj = Pad(k, p, f)\na = MaxPool(j) {kernel_shape=[4,4]}\n"
          "b = Concat(a, c) {axis=1}\nt = Transpose(b) {perm=[0,2,3,1]}\n"
          "l, r = Split(t) {axis=1, num_outputs=2}\ne = Max(l, r)\n"
          "y = DequantizeLinear(e, s, z)\nout y\nend\n",
          10, "= {0}");
}

static void test_refused(void **state) {
    (void)state;
    /* An output, an input, a node that computes, a zero point that is computed. */
    check(kiln_make_unsigned,
          "graph \"g\"\nin x: float32[2,3]\nin w: int8[2,3]\nin zero: int8[]\n"
          "const s: float32[] = {0.01}\nconst z: int8[] = {-7}\n"
          "a = QuantizeLinear(x, s, z)\nb = QuantizeLinear(x, s, z)\n"
          "c = Concat(b, w) {axis=0}\nd = DequantizeLinear(c, s, z)\n"
          "e = QuantizeLinear(x, s, z)\nf = Add(e, e)\ng = QuantizeLinear(x, s, zero)\n"
          "h = DequantizeLinear(g, s, zero)\nout a\nout d\nout f\nout h\nend\n",
          0, NULL);
    /* Weights stay. */
    check(kiln_make_unsigned,
          "graph \"g\"\nin x: uint8[1,2]\nconst s: float32[] = {0.5}\nconst z: uint8[] = {7}\n"
          "const w: int8[2,2] = {1, -2, 3, 4}\nconst v: int8[] = {0}\n"
          "a = DequantizeLinear(x, s, z)\nb = DequantizeLinear(w, s, v)\ny = MatMul(a, b)\n"
          "out y\nend\n",
          0, NULL);
}

static void test_signed(void **state) {
    (void)state;
    /* A chain and a weight; another zero point stays, and so does what meets it. */
    check(kiln_make_signed,
          "graph \"g\"\nin x: float32[2,3]\nconst s: float32[] = {0.01}\n"
          "const z: uint8[] = {128}\nconst o: uint8[] = {100}\n"
          "const w: uint8[3,2] = {1, 2, 3, 128, 255, 0}\n"
          "q = QuantizeLinear(x, s, z)\nt = Transpose(q)\na = DequantizeLinear(t, s, z)\n"
          "b = DequantizeLinear(w, s, z)\ny = Add(a, b)\n"
          "e = QuantizeLinear(x, s, o)\nf = QuantizeLinear(x, s, z)\ng = Concat(e, f) {axis=0}\n"
          "h = DequantizeLinear(g, s, z)\nout y\nout h\nend\n",
          3, "int8[3,2] = {-127, -126, -125, 0, 127, -128}");
}

static void test_split(void **state) {
    (void)state;
    check(kiln_split_dequantize,
          "graph \"g\"\nin x: uint8[2,3]\nconst s: float32[] = {0.5}\nconst z: uint8[] = {7}\n"
          "d = DequantizeLinear(x, s, z)\na = Add(d, d)\nb = Exp(d)\nc = Mul(b, d)\n"
          "e = DequantizeLinear(x, s, z)\nf = Neg(e)\nout a\nout c\nout e\nout f\nend\n",
          3, NULL);
    /* A body keeps the node. */
    check(kiln_split_dequantize,
          "graph \"g\"\nin x: uint8[2,3]\nin p: bool[]\nconst s: float32[] = {0.5}\n"
          "const z: uint8[] = {7}\nd = DequantizeLinear(x, s, z)\nb = Exp(d)\n"
          "y = If(p) {\n  then_branch = graph \"t\"\n    u = Neg(d)\n    out u\n  end\n"
          "  else_branch = graph \"e\"\n    v = Abs(d)\n    out v\n  end\n}\nout b\nout y\nend\n",
          1, NULL);
}

/* Without the kernel that multiplies codes as they are. */
static kiln_status fold(kiln_graph *graph, size_t *n, kiln_diag *diag) {
    static const char *const off[] = {"gemm_codes", NULL};
    kiln_cpu_target target;
    kiln_cpu_target_init(&target, kiln_cpu_features(), off);
    return kiln_fold_weights(graph, &target, n, diag);
}

static kiln_status split_and_fold(kiln_graph *graph, size_t *n, kiln_diag *diag) {
    size_t n_split;
    kiln_status status = kiln_split_dequantize(graph, &n_split, diag);
    return status == KILN_OK && n_split > 0 ? fold(graph, n, diag) : status;
}

/* Two float readers share one DequantizeLinear; an elementwise region has its own. */
static void test_merge(void **state) {
    (void)state;
    check(split_and_fold,
          "graph \"g\"\nin x: uint8[2,3]\nin u: float32[3,2]\nin v: float32[3,4]\n"
          "const s: float32[] = {0.5}\nd = DequantizeLinear(x, s)\n"
          "a = MatMul(d, u)\nb = MatMul(d, v)\nc = Exp(d)\nout a\nout b\nout c\nend\n",
          1, NULL);
}

static void test_fold(void **state) {
    (void)state;
    /* Weight and bias of a float product; large weights stay expressions. */
    check(fold,
          "graph \"g\"\nin x: float32[2,3]\nconst s: float32[] = {0.5}\n"
          "const w: int8[3,2] = {1, -2, 3, 4, -5, 6}\nconst c: int32[2] = {4, 5}\n"
          "const v: int8[2,9000] = rand(3)\n"
          "a = DequantizeLinear(w, s)\nb = DequantizeLinear(c, s)\ny = Gemm(x, a, b)\n"
          "d = DequantizeLinear(v, s)\nz = MatMul(y, d)\nout y\nout z\nend\n",
          3, "float32[2,9000] = DequantizeLinear(v, s)");
    /* One that an elementwise region reads as bytes stays, and so does an output. */
    check(fold,
          "graph \"g\"\nin x: float32[2,3]\nconst s: float32[] = {0.5}\n"
          "const w: int8[3] = {1, -2, 3}\na = DequantizeLinear(w, s)\ny = Add(x, a)\n"
          "b = DequantizeLinear(w, s)\nout y\nout b\nend\n",
          0, NULL);
    /* In a body. */
    check(fold,
          "graph \"g\"\nin x: float32[2,3]\nin p: bool[]\nconst s: float32[] = {0.5}\n"
          "const w: int8[3,2] = {1, -2, 3, 4, -5, 6}\n"
          "y = If(p) {\n  then_branch = graph \"t\"\n    d = DequantizeLinear(w, s)\n"
          "    u = MatMul(x, d)\n    out u\n  end\n  else_branch = graph \"e\"\n"
          "    e = DequantizeLinear(w, s)\n    v = MatMul(x, e)\n    out v\n  end\n}\n"
          "out y\nend\n",
          2, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pair),    cmocka_unit_test(test_movers),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_signed),
        cmocka_unit_test(test_split),   cmocka_unit_test(test_merge),
        cmocka_unit_test(test_fold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
