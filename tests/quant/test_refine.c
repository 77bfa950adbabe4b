/* Rounding weights by what a layer reads, and biases by the mean error: rows against the reference,
 * sums against their definition, rounding against every possible choice, and both in a graph. */
#include "pass/graphs.h"

#include "quant/place.h"
#include "quant/refine.h"

static double unit(uint64_t *s) {
    return (double)(next_random(s) >> 40) / (1 << 23) - 1;
}

/* ---- Rows ---- */

static const char layers[] = "graph \"conv\"\n"
                             "in x: float32[2,4,7,6]\n"
                             "const w: float32[6,2,3,2] = rand(1)\n"
                             "y = Conv(x, w, _) {group=2, pads=[1,0,2,1], strides=[2,1], "
                             "dilations=[1,2]}\n"
                             "out y\n"
                             "end\n"
                             "graph \"same\"\n"
                             "in x: float32[2,3,7]\n"
                             "const w: float32[2,3,4] = rand(1)\n"
                             "y = Conv(x, w, _) {auto_pad=SAME_UPPER, strides=[2]}\n"
                             "out y\n"
                             "end\n"
                             "graph \"gemm\"\n"
                             "in x: float32[3,5]\n"
                             "const w: float32[4,5] = rand(1)\n"
                             "y = Gemm(x, w, _) {transB=1}\n"
                             "out y\n"
                             "end\n"
                             "graph \"matmul\"\n"
                             "in x: float32[2,3,5]\n"
                             "const w: float32[5,4] = rand(1)\n"
                             "y = MatMul(x, w)\n"
                             "out y\n"
                             "end\n";

/* The layer's result from rows of its input and the weights at their strides. */
static void check_rows(world *w) {
    kiln_row_source s;
    uint64_t seed = 3;
    const kiln_node *n = w->graph->nodes[0];
    kiln_datum x = random_input(w, w->graph->inputs[0], &seed), y;
    const float *weight = kiln_value_data(n->in[1])->data;
    assert_int_equal(kiln_eval_graph(w->graph, &x, &y, NULL, &w->arena, w->diag), KILN_OK);
    assert_true(kiln_row_source_of(&s, n, &n->in[1]->type));
    assert_true(kiln_row_source_bind(&s, &x.tensor));
    assert_int_equal(s.positions * s.n_out, kiln_tensor_count(&y.tensor));
    float *row = kiln_arena_array(&w->arena, (size_t)(s.groups * s.k), sizeof *row);
    int64_t plane = s.conv ? s.win.out_count : 1;
    for (int64_t p = 0; p < s.positions; p++) {
        kiln_row_get(&s, x.tensor.data, p, row);
        for (int64_t o = 0; o < s.n_out; o++) {
            double sum = 0;
            for (int64_t i = 0; i < s.k; i++) {
                sum += (double)row[o / (s.n_out / s.groups) * s.k + i] *
                       (double)weight[o * s.stride_out + i * s.stride_k];
            }
            int64_t at = (p / plane * s.n_out + o) * plane + p % plane;
            assert_true(fabs(sum - (double)((float *)y.tensor.data)[at]) < 1e-4);
        }
    }
}

static void test_rows(void **state) {
    (void)state;
    const char *start;
    size_t len, count = 0;
    for (const char *at = layers; next_graph(&at, &start, &len); count++) {
        world w;
        world_open(&w, start, len);
        check_rows(&w);
        world_close(&w);
    }
    assert_int_equal(count, 4);
}

/* ---- Sums ---- */

enum { K = 10, GROUPS = 2, ROWS = 101 };

static void test_gram(void **state) {
    (void)state;
    for (int centered = 0; centered < 2; centered++) {
        kiln_arena arena;
        kiln_gram g;
        float x[ROWS * GROUPS * K], q[ROWS * GROUPS * K];
        uint64_t seed = 11;
        for (int i = 0; i < ROWS * GROUPS * K; i++) {
            x[i] = (float)(unit(&seed) + 0.5);
            q[i] = nearbyintf(x[i] * 8) / 8;
        }
        kiln_arena_init(&arena, NULL);
        assert_int_equal(kiln_gram_init(&g, GROUPS, K, true, &arena), KILN_OK);
        kiln_gram_add(&g, x, q, 40);
        kiln_gram_add(&g, x + 40 * GROUPS * K, q + 40 * GROUPS * K, ROWS - 40);
        kiln_gram_finish(&g, centered != 0);
        for (int group = 0; group < GROUPS; group++) {
            for (int i = 0; i < K * K; i++) {
                int a = group * K + i / K, b = group * K + i % K;
                double sum = 0, ma = 0, mb = 0, mx = 0;
                for (int r = 0; r < ROWS; r++) {
                    double u = (double)q[r * GROUPS * K + a], v = (double)q[r * GROUPS * K + b];
                    sum += u * v / ROWS;
                    ma += u / ROWS;
                    mb += v / ROWS;
                    mx += (double)x[r * GROUPS * K + a] / ROWS;
                }
                sum -= centered ? ma * mb : 0;
                double got = (double)kiln_gram_matrix(&g, group)[i];
                sum *= a == b ? 1 : (double)ROWS / (ROWS + K);
                assert_true(fabs(got - sum) < 1e-5);
                assert_true(fabs(g.sum_q[a] - ma) < 1e-9 && fabs(g.sum_x[a] - mx) < 1e-9);
            }
        }
        kiln_arena_free(&arena);
    }
}

/* ---- Rounding ---- */

static double loss(const int8_t *q, const float *w, float scale, const float *h) {
    double sum = 0;
    for (int i = 0; i < K; i++) {
        for (int j = 0; j < K; j++) {
            double a = (double)q[i] * (double)scale - (double)w[i];
            double b = (double)q[j] * (double)scale - (double)w[j];
            sum += a * b * (double)h[i * K + j];
        }
    }
    return sum;
}

/* Against the nearest and against the best of all floors and ceilings, over many rows. */
static void test_round(void **state) {
    (void)state;
    uint64_t seed = 17;
    double nearest_sum = 0, found_sum = 0, best_sum = 0;
    for (int t = 0; t < 40; t++) {
        float w[K], h[K * K] = {0}, b[3 * K], scratch[2 * K];
        const float scale = 0.1f;
        int8_t q[K], nearest[K], other[K];
        for (int i = 0; i < 3 * K; i++) {
            b[i] = (float)unit(&seed);
        }
        for (int i = 0; i < K * K; i++) {
            for (int r = 0; r < 3; r++) {
                h[i] += b[r * K + i / K] * b[r * K + i % K];
            }
            h[i] += i / K == i % K ? 0.05f : 0;
        }
        for (int i = 0; i < K; i++) {
            w[i] = (float)(0.65 * unit(&seed));
            nearest[i] = (int8_t)nearbyintf(w[i] / scale);
        }
        int64_t moved = kiln_round_row(q, w, scale, 8, h, K, scratch);
        double found = loss(q, w, scale, h), start = loss(nearest, w, scale, h), best = start;
        int64_t differ = 0;
        for (int i = 0; i < K; i++) {
            differ += q[i] != nearest[i] ? 1 : 0;
            assert_true(fabsf((float)q[i] - w[i] / scale) < 1.0f && abs(q[i]) < 8);
        }
        assert_int_equal(moved, differ);
        for (int bits = 0; bits < 1 << K; bits++) {
            for (int i = 0; i < K; i++) {
                float v = w[i] / scale;
                other[i] = (int8_t)(bits >> i & 1 ? ceilf(v) : floorf(v));
            }
            best = fmin(best, loss(other, w, scale, h));
        }
        assert_true(found <= start + 1e-7 && found >= best - 1e-7);
        nearest_sum += start;
        found_sum += found;
        best_sum += best;
    }
    assert_true(found_sum < 0.4 * nearest_sum);
    assert_true(found_sum < 2.5 * best_sum);
}

/* Independent inputs: the nearest is best. */
static void test_round_apart(void **state) {
    (void)state;
    uint64_t seed = 23;
    float w[K], h[K * K] = {0}, scratch[2 * K];
    int8_t q[K];
    for (int i = 0; i < K; i++) {
        w[i] = (float)(2 * unit(&seed));
        h[i * K + i] = (float)i; /* one that is never read among them */
    }
    assert_int_equal(kiln_round_row(q, w, 0.1f, 8, h, K, scratch), 0);
    for (int i = 0; i < K; i++) {
        float nearest = nearbyintf(w[i] / 0.1f);
        assert_int_equal(q[i], (int)fminf(fmaxf(nearest, -7), 7));
    }
}

/* ---- In a graph ---- */

static const char network[] = "graph \"g\"\n"
                              "in x: float32[40,6,5,5]\n"
                              "const w: float32[8,6,3,3] = rand(1)\n"
                              "const b: float32[8] = rand(2)\n"
                              "const u: float32[8,4] = rand(3)\n"
                              "const c: float32[4] = rand(4)\n"
                              "const g: float32[4,3] = rand(5)\n"
                              "a = Conv(x, w, b)\n"
                              "r = Relu(a)\n"
                              "t = Transpose(r) {perm=[0,2,3,1]}\n"
                              "m = MatMul(t, u)\n"
                              "n = Add(m, c)\n"
                              "f = Relu(n)\n"
                              "p = Transpose(f) {perm=[0,3,1,2]}\n"
                              "h = GlobalAveragePool(p)\n"
                              "i = Flatten(h)\n"
                              "y = Gemm(i, g, _)\n"
                              "out y\n"
                              "end\n";

typedef struct tapped {
    kiln_refiner *refiner;
    kiln_ranges *ranges;
    kiln_diag *diag;
} tapped;

static kiln_status tap(void *user, const kiln_value *value, const kiln_datum *datum) {
    tapped *t = user;
    if (datum->kind != KILN_KIND_TENSOR || datum->tensor.dtype != KILN_DTYPE_F32) {
        return KILN_OK;
    }
    if (t->refiner) {
        return kiln_refiner_wants(t->refiner, value->name)
                   ? kiln_refiner_see(t->refiner, value->name, &datum->tensor)
                   : KILN_OK;
    }
    kiln_range r = {.name = value->name};
    for (int64_t i = 0; i < kiln_tensor_count(&datum->tensor); i++) {
        double v = (double)((const float *)datum->tensor.data)[i];
        r.lo = fmin(r.lo, v);
        r.hi = fmax(r.hi, v);
    }
    return kiln_ranges_set(t->ranges, &r, t->diag);
}

/* Runs a graph on its random input; the tap sees it and every value. */
static const kiln_tensor *run(world *w, tapped *t, kiln_datum *out) {
    uint64_t seed = 31;
    kiln_datum x = random_input(w, w->graph->inputs[0], &seed);
    const kiln_eval_options o = {.tap = t ? tap : NULL, .tap_user = t};
    if (t) {
        assert_int_equal(tap(t, w->graph->inputs[0], &x), KILN_OK);
    }
    assert_int_equal(kiln_eval_graph(w->graph, &x, out, &o, &w->arena, w->diag), KILN_OK);
    return &out->tensor;
}

/* Squared error of the outputs, and of their means over the batch. */
static void errors(const kiln_tensor *a, const kiln_tensor *b, double *square, double *mean) {
    *square = *mean = 0;
    for (int64_t c = 0; c < 3; c++) {
        double sum = 0;
        for (int64_t i = c; i < kiln_tensor_count(a); i += 3) {
            double e = (double)((float *)a->data)[i] - (double)((float *)b->data)[i];
            *square += e * e;
            sum += e;
        }
        *mean += fabs(sum);
    }
}

static void refine(world *before, world *after, bool round, bool bias, kiln_qdq_style style,
                   double *square, double *mean) {
    kiln_datum x, y;
    kiln_refiner r;
    tapped t = {.diag = before->diag};
    kiln_placed placed;
    const kiln_layer_option four = {.pattern = "*", .weight_bits = 4};
    const kiln_place_options o = {.style = style, .layers = &four, .n_layers = 1};
    assert_int_equal(kiln_ranges_create(&t.ranges, NULL), KILN_OK);
    const kiln_tensor *want = run(before, &t, &x);
    assert_int_equal(kiln_place(&placed, after->graph, &o, t.ranges, after->diag), KILN_OK);
    assert_int_equal(placed.n_int8_layers, 3);
    kiln_ranges_destroy(t.ranges);
    assert_int_equal(
        kiln_refiner_init(&r, after->graph, before->graph, round, bias, &after->arena, after->diag),
        KILN_OK);
    assert_int_equal(r.n, 3);
    r.samples = 40;
    t.refiner = &r;
    int passes = 0;
    while (kiln_refiner_begin(&r)) {
        (void)run(before, &t, &x);
        assert_int_equal(kiln_refiner_end(&r), KILN_OK);
        passes++;
    }
    assert_int_equal(passes, round || bias ? 1 : 0);
    assert_int_equal(r.n_rounded, round ? 3 : 0);
    /* For ONNX Runtime what the MatMul gives is quantized before the Add. */
    assert_int_equal(r.n_corrected, !bias ? 0 : style == KILN_QDQ_ONNXRUNTIME ? 2 : 3);
    kiln_refiner_free(&r);
    const kiln_node *last = after->graph->outputs[0]->producer;
    const kiln_value *added = kiln_node_in(last, 2); /* in the form that the others have */
    assert_int_equal(added != NULL, bias);
    assert_true(!added || (added->constant != NULL) == (style != KILN_QDQ_ONNXRUNTIME));
    assert_int_equal(kiln_graph_sort(after->graph, after->diag), KILN_OK);
    assert_int_equal(kiln_graph_verify(after->graph, after->diag), KILN_OK);
    errors(want, run(after, NULL, &y), square, mean);
}

static void test_graph(void **state) {
    (void)state;
    for (int style = 0; style < 3; style++) {
        double square[4], mean[4];
        for (int what = 0; what < 4; what++) {
            world before, after;
            world_open(&before, network, sizeof network - 1);
            world_open(&after, network, sizeof network - 1);
            refine(&before, &after, (what & 1) != 0, (what & 2) != 0, (kiln_qdq_style)style,
                   &square[what], &mean[what]);
            world_close(&before);
            world_close(&after);
        }
        assert_true(square[1] < square[0] && square[2] < square[0] && square[3] < 0.6 * square[0]);
        assert_true(mean[2] < 0.5 * mean[0] && mean[3] < 0.5 * mean[0]);
    }
}

/* A channel far beyond the range in one row of 40: the bias, which all rows share, does not answer
 * for what is cut off there. */
static void test_cut_off(void **state) {
    (void)state;
    static const char source[] = "graph \"g\"\n"
                                 "in x: float32[40,4]\n"
                                 "const w: float32[4,3] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}\n"
                                 "const b: float32[3] = {0.25, 0.5, 0.75}\n"
                                 "y = Gemm(x, w, b)\n"
                                 "out y\n"
                                 "end\n";
    world before, after;
    kiln_refiner r;
    kiln_ranges *ranges;
    kiln_placed placed;
    float x[160] = {0};
    const kiln_range range = {.name = "x", .lo = -1, .hi = 1};
    const kiln_place_options o = {.style = KILN_QDQ_KILN};
    world_open(&before, source, sizeof source - 1);
    world_open(&after, source, sizeof source - 1);
    assert_int_equal(kiln_ranges_create(&ranges, NULL), KILN_OK);
    assert_int_equal(kiln_ranges_set(ranges, &range, after.diag), KILN_OK);
    assert_int_equal(kiln_place(&placed, after.graph, &o, ranges, after.diag), KILN_OK);
    kiln_ranges_destroy(ranges);
    assert_int_equal(
        kiln_refiner_init(&r, after.graph, before.graph, false, true, &after.arena, after.diag),
        KILN_OK);
    r.samples = 40;
    x[5] = 1000;
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {40, 4}, .data = x};
    assert_true(kiln_refiner_begin(&r));
    assert_int_equal(kiln_refiner_see(&r, "x", &t), KILN_OK);
    assert_int_equal(kiln_refiner_end(&r), KILN_OK);
    assert_int_equal(r.n_corrected, 1);
    kiln_refiner_free(&r);
    const float *b = kiln_value_data(after.graph->outputs[0]->producer->in[2])->data;
    for (int i = 0; i < 3; i++) {
        assert_true(fabsf(b[i] - 0.25f * (float)(i + 1)) < 0.01f);
    }
    world_close(&before);
    world_close(&after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),  cmocka_unit_test(test_gram),
        cmocka_unit_test(test_round), cmocka_unit_test(test_round_apart),
        cmocka_unit_test(test_graph), cmocka_unit_test(test_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
