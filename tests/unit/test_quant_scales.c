/* Scales and zero points, and quantizing with them as QuantizeLinear and DequantizeLinear do. */
#include "test_quant_common.h"

#include "ops/ops.h"

static void test_params(void **state) {
    (void)state;
    kiln_qparams q = kiln_qparams_of(-1, 2, &(kiln_scheme){8, true});
    assert_true(q.scale == (float)(2.0 / 127) && q.zero == 0 && q.dtype == KILN_DTYPE_I8);
    assert_true(q.qlo == -128 && q.qhi == 127);
    q = kiln_qparams_of(-1, 2, &(kiln_scheme){8, false});
    assert_true(q.scale == (float)(3.0 / 255) && q.zero == 85 && q.dtype == KILN_DTYPE_U8);
    q = kiln_qparams_of(0, 6, &(kiln_scheme){8, false});
    assert_true(q.scale == (float)(6.0 / 255) && q.zero == 0);
    q = kiln_qparams_of(-6, -1, &(kiln_scheme){8, false});
    assert_true(q.scale == (float)(6.0 / 255) && q.zero == 255);
    q = kiln_qparams_of(3, 6, &(kiln_scheme){4, false});
    assert_true(q.scale == (float)(6.0 / 15) && q.zero == 0 && q.qhi == 15);
    q = kiln_qparams_of(-3, 3, &(kiln_scheme){2, true});
    assert_true(q.scale == 3 && q.qlo == -2 && q.qhi == 1);
}

/* Over ranges of all sizes: positive normal scales, zero exact, nothing inside clipped by more than
 * the rounding of the zero point. */
static void test_properties(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        kiln_scheme scheme = {2 + i % 7, i % 2 == 0};
        double size = ldexp(1, (int)(next_unit(&seed) * 300) - 160);
        double lo = (next_unit(&seed) - 0.7) * size, hi = lo + next_unit(&seed) * size;
        kiln_qparams q = kiln_qparams_of(lo, hi, &scheme);
        assert_true(isnormal(q.scale) && q.scale >= KILN_SCALE_MIN && q.scale <= KILN_SCALE_MAX);
        assert_true(q.zero >= q.qlo && q.zero <= q.qhi);
        assert_true(kiln_quantize_value(&q, 0) == q.zero && kiln_dequantize_value(&q, q.zero) == 0);
        assert_true(kiln_quantize_value(&q, NAN) == q.zero);
        assert_true(kiln_quantize_value(&q, INFINITY) == q.qhi);
        assert_true(kiln_quantize_value(&q, -INFINITY) == q.qlo);
        for (int k = 0; k < 3 && size < 0x1p59 && size > 0x1p-50; k++) {
            double x = k == 0 ? lo : k == 1 ? hi : (lo + hi) / 2;
            double y = (double)kiln_dequantize_value(&q, kiln_quantize_value(&q, (float)x));
            assert_true(fabs(x - y) <= (double)q.scale * 1.0001);
        }
    }
    /* Extremes. */
    const double far = 0x1.fffffep127;
    for (int sym = 0; sym < 2; sym++) {
        kiln_scheme scheme = {8, sym};
        assert_true(kiln_qparams_of(-far, far, &scheme).scale == KILN_SCALE_MAX);
        assert_true(kiln_qparams_of(0, 1e-40, &scheme).scale == KILN_SCALE_MIN);
        assert_true(kiln_qparams_of(0, 0, &scheme).scale == 1);
        assert_true(kiln_qparams_of(0, 0, &scheme).zero == 0);
    }
}

/* The same numbers from the operators' references. */
static void test_against_ops(void **state) {
    (void)state;
    enum { N = 4096 };
    bench b;
    kiln_dims dims;
    bench_open(&b);
    kiln_dims_init(&dims, &b.arena);
    for (int sym = 0; sym < 2; sym++) {
        float *x = draw_all(&b, LAPLACE, N, 9);
        kiln_qparams q = kiln_qparams_of(-3, 5, &(kiln_scheme){8, sym});
        for (int i = 0; i < 600; i++) { /* ties */
            x[i] = ((float)i - 300.5f) * q.scale;
        }
        uint8_t zero = (uint8_t)q.zero;
        kiln_graph *g;
        kiln_value *in[3], *back[3];
        kiln_node *n, *m;
        assert_int_equal(kiln_graph_create(&g, &b.arena, &dims, NULL, NULL, "g"), KILN_OK);
        const kiln_dim shape[] = {N};
        kiln_type type = kiln_type_tensor(KILN_DTYPE_F32, 1, shape);
        kiln_tensor z = {.dtype = q.dtype, .data = &zero, .cap_bytes = 1};
        assert_int_equal(kiln_graph_input(&in[0], g, "x", &type), KILN_OK);
        assert_int_equal(kiln_graph_scalar(&in[1], g, q.scale), KILN_OK);
        assert_int_equal(kiln_graph_constant(&in[2], g, "z", &z), KILN_OK);
        assert_int_equal(kiln_graph_node(&n, g, &kiln_op_quantize_linear, NULL, in, 3, 1), KILN_OK);
        memcpy(back, in, sizeof back);
        back[0] = n->out[0];
        assert_int_equal(kiln_graph_node(&m, g, &kiln_op_dequantize_linear, NULL, back, 3, 1),
                         KILN_OK);
        assert_int_equal(kiln_graph_output(g, n->out[0]), KILN_OK);
        assert_int_equal(kiln_graph_output(g, m->out[0]), KILN_OK);
        assert_int_equal(kiln_graph_index(g), KILN_OK);
        assert_int_equal(kiln_infer_graph(g, b.diag), KILN_OK);
        kiln_datum input = {.kind = KILN_KIND_TENSOR, .tensor = flat(x, N)}, out[2] = {{0}};
        assert_int_equal(kiln_eval_graph(g, &input, out, NULL, &b.arena, b.diag), KILN_OK);
        for (int i = 0; i < N; i++) {
            int64_t have = kiln_get_i64(q.dtype, out[0].tensor.data, i);
            int32_t want = kiln_quantize_value(&q, x[i]);
            assert_int_equal(have, want);
            assert_true(kiln_dequantize_value(&q, want) == ((float *)out[1].tensor.data)[i]);
        }
    }
    bench_close(&b);
}

static void test_weights(void **state) {
    (void)state;
    float w[] = {1, -0.5f, 0.25f, 0, 0, 0, 2, 100, -3}; /* [3, 3] */
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {3, 3}, .data = w};
    float scale[3] = {kiln_weight_scale(1, 8), kiln_weight_scale(0, 8), kiln_weight_scale(100, 4)};
    assert_true(scale[0] == (float)(1.0 / 127) && scale[1] == 1 && scale[2] == (float)(100.0 / 7));
    int8_t out[9];
    const int8_t rows[] = {127, -64, 32, 0, 0, 0, 0, 7, 0};
    kiln_quantize_weight(out, &t, 0, scale, 8);
    assert_memory_equal(out, rows, 9);
    const float columns[3] = {1, 50, 1};
    const int8_t want[] = {1, 0, 0, 0, 0, 0, 2, 2, -3};
    kiln_quantize_weight(out, &t, 1, columns, 8);
    assert_memory_equal(out, want, 9);
    const float one = 0.125f;
    const int8_t narrow[] = {7, -4, 2, 0, 0, 0, 7, 7, -7};
    kiln_quantize_weight(out, &t, -1, &one, 4);
    assert_memory_equal(out, narrow, 9);
    /* A bias far larger than the weights still fits in int32, with half of it left. */
    for (double bias = 1e-6; bias < 1e6; bias *= 10) {
        double s = (double)kiln_weight_scale_floor(-bias, 0.02);
        assert_true(bias / (s * 0.02) <= 0x1p30 * 1.0001);
    }
    assert_true(kiln_weight_scale_floor(0, 0.02) == KILN_SCALE_MIN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_params),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_against_ops),
        cmocka_unit_test(test_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
