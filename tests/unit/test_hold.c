/* test_hold.c - values held in bfloat16 between the steps of a plan (hold.h): which ones are, that
 * products alone then give the same bits as when each rounds its operand itself, and that whoever
 * reads a held value finds it rounded.
 *
 * Products run by the forms that take pairs, in plain C (prims_wide.h): no processor needed. */
#include "pass/graphs.h"

#include "backend/backend.h"
#include "backend/cpu/kernel.h"
#include "base/cpu.h"
#include "base/half.h"
#include "exec/exec.h"
#include "prims_wide.h"

typedef enum pairs { DOT, TILES, FORMS } pairs;

/* One graph planned for the forms of pairs. */
typedef struct bench {
    world w;
    kiln_prims prims;
    kiln_cpu_target target;
    kiln_plan *plan;
    kiln_datum *inputs;
} bench;

static bool is_product(const kiln_node *n) {
    return KILN_IS(n, conv) || KILN_IS(n, gemm) || KILN_IS(n, matmul);
}

static void make_inputs(bench *b) {
    const kiln_graph *g = b->w.graph;
    b->inputs = kiln_arena_array(&b->w.arena, g->n_inputs, sizeof *b->inputs);
    for (size_t i = 0; i < g->n_inputs; i++) {
        kiln_tensor *t = &b->inputs[i].tensor;
        b->inputs[i].kind = KILN_KIND_TENSOR;
        assert_true(kiln_type_to_tensor(&g->inputs[i]->type, t));
        t->cap_bytes = kiln_tensor_bytes(t);
        t->data = kiln_arena_array(&b->w.arena, t->cap_bytes, 1);
        kiln_text_fill(t, (uint32_t)i + 1);
    }
}

static void open_bench(bench *b, const char *text, pairs form, const char *const *off) {
    world_open(&b->w, text, strlen(text));
    for (size_t i = 0; i < b->w.graph->n_nodes; i++) {
        kiln_node *n = b->w.graph->nodes[i];
        n->precision.dtype = is_product(n) ? KILN_DTYPE_BF16 : KILN_DTYPE_NONE;
    }
    kiln_cpu_target_init(&b->target, 0, off);
    b->prims = *b->target.prims;
    b->prims.gemm_bf16 = form == DOT ? &kiln_gemm_dot_prims_wide : &kiln_gemm_tile_prims_wide;
    b->prims.conv_bf16 = form == DOT ? &kiln_conv_dot_prims_wide : &kiln_conv_tile_prims_wide;
    b->prims.depthwise_half = &kiln_depthwise_half_prims_wide;
    b->target.prims = &b->prims;
    const kiln_packing packing = {0};
    if (kiln_cpu_plan_graph(&b->plan, b->w.graph, NULL, &b->target, &b->w.arena, NULL, NULL,
                            b->w.diag) ||
        kiln_cpu_pack(b->plan, &b->target, &packing, &b->w.arena, b->w.diag)) {
        fail_with(b->w.diag, "no plan");
    }
    make_inputs(b);
}

static void close_bench(bench *b) {
    world_close(&b->w);
}

/* The steps whose first output is held in bfloat16, as a string of their kernels' initials. */
static void expect_held(const bench *b, const char *names) {
    char text[256] = "";
    for (size_t i = 0; i < b->plan->n_steps; i++) {
        const kiln_slot *s = &b->plan->slots[b->plan->steps[i].out[0]];
        if (s->half) {
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", s->value->name);
        }
    }
    assert_string_equal(text, names);
}

typedef struct watched {
    const char *name;
    int64_t seen, rough; /* elements, and those that no bfloat16 is */
} watched;

static bool wants(void *user, const kiln_value *v) {
    return strcmp(v->name, ((watched *)user)->name) == 0;
}

static kiln_status see(void *user, const kiln_value *v, const kiln_datum *d, bool replayed) {
    watched *w = user;
    (void)v, (void)replayed;
    assert_int_equal(d->tensor.dtype, KILN_DTYPE_F32);
    for (int64_t i = 0; i < kiln_tensor_count(&d->tensor); i++) {
        float x = ((const float *)d->tensor.data)[i];
        w->seen++;
        w->rough += kiln_bf16_to_f32(kiln_f32_to_bf16(x)) != x;
    }
    return KILN_OK;
}

/* Output 0, to be freed. */
static float *run(bench *b, int32_t threads, watched *w, int64_t *n) {
    kiln_exec *x;
    kiln_pool *pool;
    const kiln_pool_options team = {.size = sizeof team, .threads = threads};
    assert_int_equal(kiln_pool_create(&pool, NULL, &team), KILN_OK);
    kiln_exec_options o = {.pool = pool, .threads = threads};
    assert_int_equal(kiln_exec_create(&x, b->plan, &b->target, &o, b->w.diag), KILN_OK);
    if (w) {
        kiln_exec_set_taps(x, &(kiln_taps){wants, see, w});
    }
    if (kiln_exec_run(x, b->inputs, b->w.diag)) {
        fail_with(b->w.diag, "the run failed");
    }
    const kiln_tensor *t = &kiln_exec_output(x, 0)->tensor;
    assert_int_equal(t->dtype, KILN_DTYPE_F32);
    *n = kiln_tensor_count(t);
    float *copy = malloc((size_t)*n * sizeof *copy);
    memcpy(copy, t->data, (size_t)*n * sizeof *copy);
    kiln_exec_destroy(x);
    kiln_pool_destroy(pool);
    return copy;
}

static double distance(const float *a, const float *b, int64_t n) {
    double sum = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(sum / size);
}

/* Runs the graph both ways; `bound`: relative distance allowed, 0 for the same bits. */
static void check(const char *text, const char *held, double bound) {
    static const char *const off[] = {"hold_half", NULL};
    for (pairs f = DOT; f < FORMS; f++) {
        bench a, b;
        int64_t n, m;
        open_bench(&a, text, f, NULL);
        open_bench(&b, text, f, off);
        expect_held(&a, held);
        expect_held(&b, "");
        float *want = run(&b, 1, NULL, &m), *one = run(&a, 1, NULL, &n);
        assert_int_equal(n, m);
        assert_true(n > 0 && isfinite(one[0]));
        const double d = distance(one, want, n);
        if (!(d <= bound)) {
            fail_msg("form %d: off by %g, bound %g", (int)f, d, bound);
        }
        assert_true(bound == 0 || d > 0);
        for (int32_t threads = 2; threads <= 3; threads++) {
            float *more = run(&a, threads, NULL, &n);
            assert_memory_equal(more, one, (size_t)n * sizeof *one);
            free(more);
        }
        free(want);
        free(one);
        close_bench(&a);
        close_bench(&b);
    }
}

#define CONV(y, x, w) y " = Conv(" x ", " w ", _) "
#define SAME "{kernel_shape=[3,3], pads=[1,1,1,1]}"

/* Products, the maximum and moves alone read what is held. 200 channels: sums in several parts. */
static const char chain[] =
    "graph \"chain\"\n"
    "in x: float32[2,4,9,7]\n"
    "const w0: float32[200,4,3,3] = rand(1)\n"
    "const w1: float32[24,200,3,3] = rand(2)\n"
    "const w2: float32[10,24,1,1] = rand(3)\n"
    "const w3: float32[6,34,3,3] = rand(4)\n"
    "const b0: float32[200] = rand(5)\n"
    "a = Conv(x, w0, b0) " SAME "\n"
    "a1 = Relu(a)\n"
    "p = MaxPool(a1) {kernel_shape=[3,3], pads=[1,1,1,1]}\n" CONV("b", "p", "w1") SAME
    "\n"
    "b1 = Sigmoid(b)\n" CONV("c", "b1", "w2") "{kernel_shape=[1,1]}\n"
                                              "j = Concat(b1, c) {axis=1}\n" CONV("y", "j", "w3")
                                                  SAME "\n"
                                                       "out y\nend\n";

static void products_give_the_same_bits(void **state) {
    (void)state;
    check(chain, "a1 p b1 c j ", 0);
}

/* An odd number of channels is no row of whole words: the product rounds for itself. */
static const char odd[] = "graph \"odd\"\n"
                          "in x: float32[1,4,5,5]\n"
                          "const w0: float32[7,4,3,3] = rand(1)\n"
                          "const w1: float32[8,7,3,3] = rand(2)\n"
                          "const w2: float32[6,4,3,3] = rand(3)\n" CONV("a", "x", "w0") SAME
    "\n" CONV("b", "a", "w1") SAME
    "\n" CONV("y", "b", "w2") "{group=2, kernel_shape=[3,3], pads=[1,1,1,1]}\nout y\nend\n";

static void odd_rows_are_rounded_by_who_reads(void **state) {
    (void)state;
    check(odd, "b ", 0);
}

static const char layers[] = "graph \"layers\"\n"
                             "in x: float32[3,5,12]\n"
                             "const w0: float32[12,70] = rand(1)\n"
                             "const w1: float32[70,34] = rand(2)\n"
                             "const w2: float32[34,9] = rand(3)\n"
                             "const flat: int64[2] = {15, 34}\n"
                             "const scale: float32[12] = rand(4)\n"
                             "n = LayerNormalization(x, scale, scale)\n"
                             "a = MatMul(n, w0)\n"
                             "a1 = Tanh(a)\n"
                             "b = MatMul(a1, w1)\n"
                             "r = Reshape(b, flat)\n"
                             "y = Gemm(r, w2, _)\n"
                             "out y\nend\n";

static void matrices_and_views_too(void **state) {
    (void)state;
    check(layers, "n a1 b r ", 0);
}

/* A residual is read as it is held, before and after an activation; elementwise nodes too. */
static const char residual[] = "graph \"residual\"\n"
                               "in x: float32[1,8,6,6]\n"
                               "const w0: float32[8,8,3,3] = rand(1)\n"
                               "const w1: float32[8,8,3,3] = rand(2)\n"
                               "const w2: float32[8,8,3,3] = rand(3)\n"
                               "const g: float32[8,1,1] = rand(4)\n" CONV("a", "x", "w0") SAME
    "\n" CONV("b", "a", "w1") SAME "\ns = Add(b, a)\nt = Relu(s)\n" CONV("c", "t", "w2") SAME
    "\nd = Relu(c)\ne = Add(d, t)\nf = Mul(e, g)\n"
    "h = Add(f, e)\n" CONV("y", "h", "w0") SAME "\nout y\nend\n";

static void residuals_are_read_as_they_are_held(void **state) {
    (void)state;
    check(residual, "a t e h ", 0x1p-7);
}

/* What stands between products reads and writes what is held: depthwise convolutions of several
 * shapes, averages, batch normalization behind a concatenation. */
static const char between[] =
    "graph \"between\"\n"
    "in x: float32[1,4,12,9]\n"
    "const w0: float32[72,4,1,1] = rand(1)\n"
    "const d0: float32[72,1,3,3] = rand(2)\n"
    "const d1: float32[144,1,5,1] = rand(3)\n"
    "const w1: float32[6,144,1,1] = rand(4)\n"
    "const scale: float32[150] = rand(5)\n"
    "const shift: float32[150] = rand(6)\n"
    "const var: float32[150] = Abs(scale)\n"
    "const w2: float32[10,150,1,1] = rand(7)\n"
    "a = Conv(x, w0, _) {kernel_shape=[1,1]}\n"
    "b = Conv(a, d0, _) {group=72, kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]}\n"
    "c = Conv(b, d1, _) {group=72, kernel_shape=[5,1], pads=[2,0,2,0]}\n"
    "d = Relu(c)\n" CONV("e", "d", "w1") "{kernel_shape=[1,1]}\n"
                                         "f = AveragePool(e) {kernel_shape=[3,3], pads=[1,1,1,1]}\n"
                                         "g = Concat(d, f) {axis=1}\n"
                                         "h = BatchNormalization(g, scale, shift, shift, var)\n"
                                         "i = Relu(h)\n" CONV("j", "i",
                                                              "w2") "{kernel_shape=[1,1]}\n"
                                                                    "y = GlobalAveragePool(j)\n"
                                                                    "out y\nend\n";

static void what_stands_between_takes_part(void **state) {
    (void)state;
    check(between, "a d e f g i j ", 0x1p-6);
}

/* What a graph gives out stays exact. */
static void outputs_stay_float(void **state) {
    (void)state;
    static const char text[] = "graph \"outs\"\n"
                               "in x: float32[1,8,6,6]\n"
                               "const w0: float32[8,8,3,3] = rand(1)\n" CONV("a", "x", "w0") SAME
        "\n" CONV("y", "a", "w0") SAME "\nout y\nout a\nend\n";
    check(text, "", 0);
}

static void taps_see_what_is_held(void **state) {
    (void)state;
    bench b;
    int64_t n;
    watched held = {.name = "t"}, free_ = {.name = "y"};
    open_bench(&b, residual, TILES, NULL);
    free(run(&b, 2, &held, &n));
    free(run(&b, 2, &free_, &n));
    assert_int_equal(held.seen, 8 * 6 * 6);
    assert_int_equal(held.rough, 0);
    assert_true(free_.rough > 0);
    close_bench(&b);
}

/* ---- Depthwise prims ---- */

#if defined(__x86_64__)
extern const kiln_depthwise_prims kiln_depthwise_half_prims_avx512;
#endif

static const struct {
    const kiln_depthwise_prims *floats, *halves;
    bool avx512;
} depthwise[] = {
    {&kiln_depthwise_prims_wide, &kiln_depthwise_half_prims_wide, false},
#if defined(__x86_64__)
    {&kiln_depthwise_prims_avx512, &kiln_depthwise_half_prims_avx512, true},
#endif
};

/* The same bits from bfloat16 as from floats of those values; `result` has them rounded. */
static void check_depthwise(size_t set, int64_t channels, int64_t width, int64_t stride) {
    enum { SIDE = 11, MOST = 5 * SIDE * 80 };
    static float x[MOST], w[49 * 80], packed[49 * 80], want[MOST], got[MOST];
    static uint16_t half[MOST], result[MOST];
    static _Alignas(64) char scratch[1 << 18];
    const int64_t out = (SIDE - 1) / stride + 1;
    kiln_conv_args a = {.batch = 1,
                        .groups = channels,
                        .c_in = channels,
                        .c_out = channels,
                        .in = {1, 5, SIDE},
                        .out = {1, 5, out},
                        .kernel = {1, 1, width},
                        .stride = {1, 1, stride},
                        .dilation = {1, 1, 1},
                        .pad = {0, 0, width / 2},
                        .x_stride = {5 * SIDE * channels, SIDE * channels, channels},
                        .x_channel = 1,
                        .w = packed,
                        .ldy = channels,
                        .epilogue = KILN_EPILOGUE_NONE};
    for (int64_t i = 0; i < 5 * SIDE * channels; i++) {
        half[i] = kiln_f32_to_bf16((float)(i * 7919 % 1009) / 512 - 1);
        x[i] = kiln_bf16_to_f32(half[i]);
    }
    for (int64_t i = 0; i < width * channels; i++) {
        w[i] = (float)(i * 31 % 17) / 16 - 0.4f;
    }
    depthwise[set].floats->pack(packed, w, &a);
    assert_true(depthwise[set].floats->scratch_bytes(&a) <= (int64_t)sizeof scratch);
    a.x = x;
    a.y = want;
    depthwise[set].floats->run(&a, 0, depthwise[set].floats->tiles(&a), scratch);
    a.x = (const float *)(const void *)half;
    a.y = got;
    a.epilogue.origin = got;
    depthwise[set].halves->run(&a, 0, depthwise[set].halves->tiles(&a), scratch);
    assert_memory_equal(got, want, (size_t)(5 * out * channels) * sizeof *got);
    a.epilogue.result = result;
    memset(result, 0, sizeof result);
    depthwise[set].halves->run(&a, 0, depthwise[set].halves->tiles(&a), scratch);
    for (int64_t i = 0; i < MOST; i++) {
        assert_int_equal(result[i], i < 5 * out * channels ? kiln_f32_to_bf16(want[i]) : 0);
    }
}

static void depthwise_reads_bfloat16(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{3, 3, 1},  {16, 3, 2}, {33, 5, 1}, {72, 5, 2},
                                        {80, 7, 1}, {40, 7, 2}, {64, 1, 1}};
    for (size_t s = 0; s < KILN_COUNT_OF(depthwise); s++) {
        const bool present =
            !depthwise[s].avx512 || kiln_cpu_isa(kiln_cpu_features()) >= KILN_ISA_AVX512;
        for (size_t i = 0; present && i < KILN_COUNT_OF(shapes); i++) {
            check_depthwise(s, shapes[i][0], shapes[i][1], shapes[i][2]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_give_the_same_bits),
        cmocka_unit_test(odd_rows_are_rounded_by_who_reads),
        cmocka_unit_test(matrices_and_views_too),
        cmocka_unit_test(residuals_are_read_as_they_are_held),
        cmocka_unit_test(what_stands_between_takes_part),
        cmocka_unit_test(outputs_stay_float),
        cmocka_unit_test(taps_see_what_is_held),
        cmocka_unit_test(depthwise_reads_bfloat16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
