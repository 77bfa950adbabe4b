/* Precision rules: what they say of which node; and weights as the options of a layer want them. */
#include "test_quant_common.h"

#include "ops/ops.h"
#include "quant/rules.h"
#include "quant/weights.h"

static void test_glob(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool fits;
    } cases[] = {
        {"", "", true},          {"*", "", true},          {"a", "", false},
        {"a*c", "abc", true},    {"a*c", "ac", true},      {"a*c", "abcd", false},
        {"*b*b*", "abab", true}, {"*b*b*", "abaa", false}, {"?b?", "abc", true},
        {"?b?", "ab", false},    {"*.mp", "x.m.mp", true}, {"a**", "a", true},
        {"Conv", "conv", false}, {"a\\*b", "a*b", true},   {"a\\*b", "axb", false},
        {"\\?", "?", true},      {"\\?", "x", false},      {"a\\\\b", "a\\b", true},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(cases); i++) {
        assert_int_equal(kiln_glob(cases[i].pattern, cases[i].text, false), cases[i].fits);
    }
    assert_true(kiln_glob("conv*", "ConvTranspose", true));
    /* Linear or quadratic, never exponential. */
    char many[2001];
    memset(many, 'a', 2000);
    many[2000] = 0;
    assert_false(kiln_glob("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", many, false));
}

static kiln_node node_of(const kiln_op *op, const char *name, const char **sources, int32_t n);

/* A pattern made of any name fits it and no other, through a list of rules. */
static void test_escape(void **state) {
    (void)state;
    static const char *const names[] = {"/a/conv", "a,b", "x*", "x?y", "a\\b", "p#q", "k=v", "é"};
    for (size_t i = 0; i < KILN_COUNT_OF(names); i++) {
        bench b;
        kiln_rules r;
        kiln_text text;
        bench_open(&b);
        kiln_text_init(&text, NULL);
        kiln_text_puts(&text, "int8,name:");
        kiln_rule_escape(&text, names[i]);
        kiln_text_puts(&text, "=fp32\n");
        assert_true(kiln_text_ok(&text));
        assert_int_equal(kiln_rules_parse(&r, text.data, &b.arena, b.diag), KILN_OK);
        assert_int_equal(r.count, 2);
        for (size_t k = 0; k < KILN_COUNT_OF(names); k++) {
            kiln_node n = node_of(&kiln_op_conv, names[k], NULL, 0);
            assert_int_equal(kiln_rules_find(&r, &n)->dtype,
                             i == k ? KILN_DTYPE_F32 : KILN_DTYPE_I8);
        }
        kiln_text_free(&text);
        bench_close(&b);
    }
}

static kiln_node node_of(const kiln_op *op, const char *name, const char **sources, int32_t n) {
    return (kiln_node){.op = op, .name = name, .sources = sources, .n_sources = n};
}

static void test_rules(void **state) {
    (void)state;
    bench b;
    kiln_rules r;
    bench_open(&b);
    const char *sources[] = {"old", "/layer1/layer1.0/conv1/Conv"};
    const kiln_node conv = node_of(&kiln_op_conv, "fused", sources, 2);
    const kiln_node gemm = node_of(&kiln_op_gemm, "/fc/Gemm", NULL, 0);
    assert_int_equal(kiln_rules_parse(&r, NULL, &b.arena, b.diag), KILN_OK);
    assert_null(kiln_rules_find(&r, &conv));
    const char *text = " type:Conv=int8 , name:/fc*=fp32 # the head\n"
                       "# nothing else\n"
                       "name:layer1.0.*=bf16\r\n,,name:old=fp16";
    assert_int_equal(kiln_rules_parse(&r, text, &b.arena, b.diag), KILN_OK);
    assert_int_equal(r.count, 4);
    assert_int_equal(kiln_rules_find(&r, &gemm)->dtype, KILN_DTYPE_F32);
    assert_int_equal(kiln_rules_find(&r, &conv)->dtype, KILN_DTYPE_F16);
    assert_int_equal(kiln_rules_parse(&r, "name:old=fp16,type:conv=int8", &b.arena, b.diag),
                     KILN_OK);
    assert_int_equal(kiln_rules_find(&r, &conv)->dtype, KILN_DTYPE_I8);
    assert_null(kiln_rules_find(&r, &gemm));
    assert_int_equal(kiln_rules_parse(&r, "name:layer1.0.conv1=fp32", &b.arena, b.diag), KILN_OK);
    assert_non_null(kiln_rules_find(&r, &conv));
    assert_int_equal(kiln_rules_parse(&r, "name:layer1.conv1=fp32", &b.arena, b.diag), KILN_OK);
    assert_null(kiln_rules_find(&r, &conv));
    assert_int_equal(kiln_rules_parse(&r, "type:Conv=int8,fp32", &b.arena, b.diag), KILN_OK);
    assert_int_equal(kiln_rules_find(&r, &conv)->kind, KILN_RULE_ALL);
    const char *bad[] = {
        "int9",       "Conv=int8", "type:Conv",       "type:=int8", "name:x=int32",
        "type:Conv=", "=int8",     "type:Conv=int8=", "int8;fp32",  "type :Conv=int8"};
    for (size_t i = 0; i < KILN_COUNT_OF(bad); i++) {
        assert_int_equal(kiln_rules_parse(&r, bad[i], &b.arena, b.diag), KILN_E_USAGE);
    }
    /* Names that only look like modules. */
    const char *odd[] = {"/", "//", "/a", "a/b/c", "/a//b", "/a/a.b.c/Conv"};
    assert_int_equal(kiln_rules_parse(&r, "name:a.b.c=fp32", &b.arena, b.diag), KILN_OK);
    for (size_t i = 0; i < KILN_COUNT_OF(odd); i++) {
        const kiln_node n = node_of(&kiln_op_conv, odd[i], NULL, 0);
        assert_int_equal(kiln_rules_find(&r, &n) != NULL, i == 5);
    }
    bench_close(&b);
}

/* ---- Weights ---- */

enum { OUT = 8, IN = 300 };

static double weight_error(const float *x, const kiln_weight *w) {
    const int8_t *q = w->data.data;
    const float *scale = w->scale.data;
    double sum = 0;
    for (int i = 0; i < OUT * IN; i++) {
        float s = scale[w->scale.rank ? i / IN : 0];
        double e = (double)x[i] - (double)((float)q[i] * s);
        sum += e * e;
    }
    return sum;
}

static void test_weights(void **state) {
    (void)state;
    bench b;
    kiln_dims dims;
    kiln_graph *g;
    kiln_value *w, *bias;
    bench_open(&b);
    kiln_dims_init(&dims, &b.arena);
    assert_int_equal(kiln_graph_create(&g, &b.arena, &dims, NULL, NULL, "g"), KILN_OK);
    float *x = draw_all(&b, LAPLACE, OUT * IN, 4);
    memset(x, 0, IN * sizeof *x); /* a channel without weights, its bias aside */
    float beta[OUT] = {3, 1e6f, 0, -1};
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {OUT, IN}, .data = x};
    kiln_tensor c = {.dtype = KILN_DTYPE_F32, .rank = 1, .dims = {OUT}, .data = beta};
    assert_int_equal(kiln_graph_constant(&w, g, "w", &t), KILN_OK);
    assert_int_equal(kiln_graph_constant(&bias, g, "b", &c), KILN_OK);
    double last = (double)INFINITY;
    for (int bits = 2; bits <= 8; bits++) {
        kiln_weight plain, best, single;
        kiln_weight_job job = {.weight = w, .bits = bits, .alpha = 1, .x_scale = 0.01};
        assert_int_equal(kiln_weight_quantize(&plain, &job, &b.arena, NULL, b.diag), KILN_OK);
        job.calibrator = KILN_CALIBRATOR_MSE;
        assert_int_equal(kiln_weight_quantize(&best, &job, &b.arena, NULL, b.diag), KILN_OK);
        job.axis = -1;
        assert_int_equal(kiln_weight_quantize(&single, &job, &b.arena, NULL, b.diag), KILN_OK);
        assert_true(plain.scale.rank == 1 && single.scale.rank == 0);
        double e = weight_error(x, &best);
        assert_true(e <= weight_error(x, &plain) && e <= weight_error(x, &single));
        assert_true(bits > 5 || e < 0.9 * weight_error(x, &plain));
        assert_true(e < last);
        last = e;
        for (int i = 0; i < OUT * IN; i++) {
            assert_true(abs(((int8_t *)plain.data.data)[i]) < 1 << (bits - 1));
        }
    }
    /* Biases in int32: within half a step, also beside weights that are zero or far smaller. */
    kiln_weight_job job = {.weight = w, .bias = bias, .bits = 8, .alpha = 0.5, .x_scale = 0.01};
    kiln_weight made;
    assert_int_equal(kiln_weight_quantize(&made, &job, &b.arena, NULL, b.diag), KILN_OK);
    for (int i = 0; i < OUT; i++) {
        double s = (double)((float *)made.bias->scale.data)[i];
        double back = s * (double)((int32_t *)made.bias->data.data)[i];
        assert_true(fabs(back - (double)beta[i]) <= 0.501 * s);
        assert_true(fabs(s / (0.5 * 0.01 * (double)((float *)made.scale.data)[i]) - 1) < 1e-6);
        assert_true(abs(((int32_t *)made.bias->data.data)[i]) <= 1 << 30);
    }
    bench_close(&b);
}

/* numpy.percentile(abs(x), p) of each channel, by hand: 0..299 in some order, times the channel. */
static void test_weight_percentile(void **state) {
    (void)state;
    bench b;
    kiln_dims dims;
    kiln_graph *g;
    kiln_value *w;
    bench_open(&b);
    kiln_dims_init(&dims, &b.arena);
    assert_int_equal(kiln_graph_create(&g, &b.arena, &dims, NULL, NULL, "g"), KILN_OK);
    float x[IN * OUT];
    for (int i = 0; i < IN * OUT; i++) {
        int c = i % OUT; /* channels run fastest */
        x[i] = (float)((i / OUT * 7 % IN) * (c + 1) * (i % 3 ? -1 : 1));
    }
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {IN, OUT}, .data = x};
    assert_int_equal(kiln_graph_constant(&w, g, "w", &t), KILN_OK);
    kiln_weight made;
    kiln_weight_job job = {.weight = w,
                           .axis = 1,
                           .bits = 8,
                           .alpha = 1,
                           .calibrator = KILN_CALIBRATOR_PERCENTILE,
                           .percentile = 90};
    assert_int_equal(kiln_weight_quantize(&made, &job, &b.arena, NULL, b.diag), KILN_OK);
    for (int c = 0; c < OUT; c++) {
        double most = 127 * (double)((float *)made.scale.data)[c];
        assert_true(fabs(most / (269.1 * (c + 1)) - 1) < 1e-6);
    }
    /* A median of zeros is no scale. */
    job.percentile = 50.0001;
    memset(x, 0, (sizeof x) / 4 * 3);
    assert_int_equal(kiln_weight_quantize(&made, &job, &b.arena, NULL, b.diag), KILN_OK);
    assert_true(((float *)made.scale.data)[0] > 0.5f);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glob),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_weight_percentile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
