/* Seams between layers: which there are, that scaling them leaves what a network computes, and the
 * scales that equalizing and smoothing choose. */
#include "pass/graphs.h"

#include "quant/smooth.h"

/* A graph's name: "SEAMS DIVIDED MULTIPLIED: what it shows". */
static const char graphs[] =
    "graph \"1 2 1: layers with an activation between\"\n"
    "in x: float32[N,3,6,6]\n"
    "const w: float32[4,3,3,3] = rand(1)\n"
    "const b: float32[4] = rand(2)\n"
    "const v: float32[5,4,1,1] = rand(3)\n"
    "a = Conv(x, w, b)\n"
    "r = LeakyRelu(a)\n"
    "y = Conv(r, v, _)\n"
    "out y\n"
    "end\n"
    "graph \"2 2 2: groups and depthwise\"\n"
    "in x: float32[N,4,6,6]\n"
    "const w: float32[8,2,1,1] = rand(1)\n"
    "const d: float32[16,1,3,3] = rand(2)\n"
    "const g: float32[6,8,1,1] = rand(3)\n"
    "a = Conv(x, w, _) {group=2}\n"
    "r = Relu(a)\n"
    "b = Conv(r, d, _) {group=8, pads=[1,1,1,1]}\n"
    "s = Relu(b)\n"
    "y = Conv(s, g, _) {group=2}\n"
    "out y\n"
    "end\n"
    "graph \"1 2 2: transposed in groups, pools, flattened, both kinds of Gemm\"\n"
    "in x: float32[N,4,3,3]\n"
    "const w: float32[4,3,2,2] = rand(1)\n"
    "const b: float32[6] = rand(4)\n"
    "const v: float32[24,5] = rand(2)\n"
    "const u: float32[5,24] = rand(3)\n"
    "a = ConvTranspose(x, w, b) {group=2, strides=[2,2]}\n"
    "m = MaxPool(a) {kernel_shape=[3,3], strides=[3,3]}\n"
    "f = Flatten(m)\n"
    "y = Gemm(f, v, _)\n"
    "z = Gemm(f, u, _) {transB=1}\n"
    "out y\n"
    "out z\n"
    "end\n"
    "graph \"1 6 3: a residual stream, biases added behind products\"\n"
    "in x: float32[N,7,4]\n"
    "const w1: float32[4,4] = rand(1)\n"
    "const w2: float32[4,4] = rand(2)\n"
    "const w3: float32[4,4] = rand(3)\n"
    "const w4: float32[4,3] = rand(4)\n"
    "const w5: float32[4,4] = rand(6)\n"
    "const b1: float32[4] = rand(5)\n"
    "const b2: float32[1,1,4] = rand(7)\n"
    "const b3: float32[4] = rand(8)\n"
    "a = MatMul(x, w1)\n"
    "b = Add(b1, a)\n"
    "c = MatMul(b, w2)\n"
    "s = Softmax(c)\n"
    "d = MatMul(s, w3)\n"
    "e = Add(d, b2)\n"
    "f = Add(b, e)\n"
    "f2 = MatMul(f, w4)\n"
    "t = Sigmoid(f2)\n"
    "g = MatMul(s, w5)\n"
    "h = Add(g, b3)\n"
    "i = Add(f, h)\n"
    "j = Transpose(i) {perm=[0,1,2]}\n"
    "y = MatMul(j, w4)\n"
    "out t\n"
    "out y\n"
    "end\n"
    "graph \"1 2 2: behind a normalization\"\n"
    "in x: float32[N,5,4]\n"
    "const s: float32[4] = {0.5, 2, 1, 3}\n"
    "const b: float32[4] = {1, -2, 0, 0.5}\n"
    "const w: float32[4,3] = rand(1)\n"
    "const v: float32[4,2] = rand(2)\n"
    "n = LayerNormalization(x, s, b)\n"
    "y = MatMul(n, w)\n"
    "z = MatMul(n, v)\n"
    "out y\n"
    "out z\n"
    "end\n"
    "graph \"5 0 5: bounds, products, outputs, unequal sums and tied operands leave inlets\"\n"
    "in x: float32[N,4]\n"
    "const w: float32[4,4] = rand(1)\n"
    "const v: float32[4,4] = rand(2)\n"
    "const b: float32[1] = {0.5}\n"
    "const six: float32[] = {6}\n"
    "const zero: float32[] = {0}\n"
    "a = Gemm(x, w, _)\n"
    "c = Clip(a, zero, six)\n"
    "d = Gemm(c, v, _)\n"
    "e = Mul(d, x)\n"
    "f = Gemm(e, w, _)\n"
    "g = Gemm(f, v, _)\n"
    "h = Add(g, b)\n"
    "i = Gemm(h, w, _)\n"
    "j = Relu(i)\n"
    "k = Gemm(j, v, j)\n"
    "l = Sigmoid(k)\n"
    "m = Gemm(l, v, _)\n"
    "o = Add(m, x)\n"
    "y = Gemm(o, v, _)\n"
    "out f\n"
    "out y\n"
    "end\n";

static void reindex(world *w) {
    assert_int_equal(kiln_graph_sort(w->graph, w->diag), KILN_OK);
    assert_int_equal(kiln_graph_verify(w->graph, w->diag), KILN_OK);
}

static void scale_all(world *w, const kiln_seams *all, uint64_t seed) {
    for (size_t i = 0; i < all->count; i++) {
        double s[32];
        assert_in_range(all->items[i].channels, 1, 32);
        for (int64_t c = 0; c < all->items[i].channels; c++) {
            s[c] = exp2((double)(next_random(&seed) % 1000) / 125 - 4);
        }
        assert_int_equal(kiln_seam_apply(&all->items[i], s, w->graph, w->diag), KILN_OK);
    }
    reindex(w);
}

static void test_exact(void **state) {
    (void)state;
    const char *start;
    size_t len, count = 0;
    for (const char *at = graphs; next_graph(&at, &start, &len); count++) {
        world before, after;
        kiln_seams all;
        size_t seams = 0, divided = 0, multiplied = 0, d = 0, m = 0;
        world_open(&before, start, len);
        world_open(&after, start, len);
        const char *name = after.graph->name;
        assert_int_equal(sscanf(name, "%zu %zu %zu", &seams, &divided, &multiplied), 3);
        assert_int_equal(kiln_seams_find(&all, after.graph, &after.arena), KILN_OK);
        for (size_t i = 0; i < all.count; i++) {
            d += all.items[i].n_divide;
            m += all.items[i].n_multiply;
        }
        if (all.count != seams || d != divided || m != multiplied) {
            fail_msg("%s: %zu seams, %zu divided, %zu multiplied", name, all.count, d, m);
        }
        scale_all(&after, &all, 5);
        compare_worlds(&before, &after, name);
        scale_all(&after, &all, 6); /* constants that are its own by now */
        compare_worlds(&before, &after, name);
        world_close(&before);
        world_close(&after);
    }
    assert_int_equal(count, 6);
}

/* ---- Scales ---- */

static const float *constant_of(const world *w, const char *node, int32_t in) {
    for (size_t i = 0; i < w->graph->n_nodes; i++) {
        const kiln_node *n = w->graph->nodes[i];
        if (strcmp(n->out[0]->name, node) == 0) {
            return kiln_value_data(n->in[in])->data;
        }
    }
    fail_msg("no node makes %s", node);
    return NULL;
}

static const char pair[] = "graph \"g\"\n"
                           "in x: float32[N,2]\n"
                           "const w: float32[2,2] = {8, 1, -4, 0.5}\n"
                           "const b: float32[2] = {16, 1}\n"
                           "const v: float32[2,3] = {0.5, -0.25, 0, 1, 4, 2}\n"
                           "a = Gemm(x, w, b)\n"
                           "r = Relu(a)\n"
                           "y = Gemm(r, v, _)\n"
                           "out y\n"
                           "end\n";

/* Channel ranges 8, 1 and 0.5, 4: s = sqrt(8 / 0.5) = 4 and sqrt(1 / 4) = 1/2, then both sides have
 * 2 and 2. The factor that all channels share is free: scales have mean 1, here sqrt(2). */
static void test_equalize(void **state) {
    (void)state;
    world before, w;
    kiln_scaled done;
    world_open(&before, pair, sizeof pair - 1);
    world_open(&w, pair, sizeof pair - 1);
    assert_int_equal(kiln_equalize(w.graph, &done, w.diag), KILN_OK);
    assert_true(done.seams == 1 && done.scaled == 1);
    reindex(&w);
    compare_worlds(&before, &w, "equalized");
    const float *a = constant_of(&w, "a", 1), *b = constant_of(&w, "a", 2);
    const float *y = constant_of(&w, "y", 1);
    assert_true(fabs((double)a[0] / (2 * sqrt(2)) - 1) < 0.02);
    assert_true(fabs((double)a[1] / (2 * sqrt(2)) - 1) < 0.02);
    assert_true(fabs((double)b[0] / (4 * sqrt(2)) - 1) < 0.02);
    assert_true(fabs((double)y[0] / sqrt(2) - 1) < 0.02);
    assert_true(fabs((double)y[4] / sqrt(2) - 1) < 0.02);
    world_close(&before);
    world_close(&w);
}

/* A channel far greater than the others is brought down; alike ones are left alone. */
static void test_smooth(void **state) {
    (void)state;
    static const char source[] = "graph \"g\"\n"
                                 "in x: float32[N,8]\n"
                                 "const s: float32[8] = {1, 1, 1, 1, 1, 1, 1, 1}\n"
                                 "const w: float32[8,6] = rand(3)\n"
                                 "n = RMSNormalization(x, s)\n"
                                 "y = MatMul(n, w)\n"
                                 "out y\n"
                                 "end\n";
    for (int outlier = 0; outlier < 2; outlier++) {
        world w;
        kiln_smoother s;
        kiln_scaled done;
        float x[512 * 8];
        uint64_t seed = 9;
        world_open(&w, source, sizeof source - 1);
        assert_int_equal(kiln_smoother_init(&s, w.graph, &w.arena), KILN_OK);
        assert_true(kiln_smoother_wants(&s, "n") && !kiln_smoother_wants(&s, "x"));
        for (int i = 0; i < 512 * 8; i++) {
            double u = (double)(next_random(&seed) >> 40) / (1 << 23) - 1;
            x[i] = (float)(outlier && i % 8 == 2 ? 40 * u : u);
        }
        kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {512, 8}, .data = x};
        kiln_smoother_see(&s, "n", &t);
        assert_int_equal(kiln_smoother_apply(&s, 0, w.graph, &done, w.diag), KILN_OK);
        reindex(&w);
        const float *scale = constant_of(&w, "n", 1);
        for (int i = 0; outlier && i < 8; i++) {
            assert_true(i == 2 || scale[2] < scale[i] / 4);
        }
        assert_true(done.scaled == 1 || !outlier);
        world_close(&w);
    }
}

/* What data has shown of a channel in one row alone is not all that there is of it. */
static void test_hardly_seen(void **state) {
    (void)state;
    static const char source[] = "graph \"g\"\n"
                                 "in x: float32[N,8]\n"
                                 "const s: float32[8] = {1, 1, 1, 1, 1, 1, 1, 1}\n"
                                 "const w: float32[8,6] = rand(3)\n"
                                 "n = RMSNormalization(x, s)\n"
                                 "y = MatMul(n, w)\n"
                                 "out y\n"
                                 "end\n";
    world w;
    kiln_smoother s;
    kiln_scaled done;
    float x[512 * 8];
    uint64_t seed = 9;
    world_open(&w, source, sizeof source - 1);
    assert_int_equal(kiln_smoother_init(&s, w.graph, &w.arena), KILN_OK);
    for (int i = 0; i < 512 * 8; i++) {
        double u = (double)(next_random(&seed) >> 40) / (1 << 23) - 1;
        x[i] = (float)(i % 8 == 2 ? 40 * u : i % 8 == 5 ? (i == 805 ? 1e-3 : 0) : u);
    }
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {512, 8}, .data = x};
    kiln_smoother_see(&s, "n", &t);
    assert_int_equal(kiln_smoother_apply(&s, 0, w.graph, &done, w.diag), KILN_OK);
    assert_int_equal(done.scaled, 1);
    reindex(&w);
    const float *scale = constant_of(&w, "n", 1);
    assert_true(scale[5] < 3 * scale[0] && scale[5] > scale[0] / 3);
    world_close(&w);
}

/* A channel's tail is that of its distribution: what a limit cuts off of data to come. */
static void test_reach(void **state) {
    (void)state;
    enum { ROWS = 4096, INNER = 3 };
    static float x[ROWS * 2 * INNER];
    kiln_arena arena;
    uint64_t seed = 5;
    kiln_arena_init(&arena, NULL);
    kiln_channels_seen s = {.name = "y", .axis = 1, .n = 2};
    assert_int_equal(kiln_channels_init(&s, &arena), KILN_OK);
    for (int i = 0; i < ROWS * 2 * INNER; i++) {
        double u = ((double)(next_random(&seed) >> 12) + 1) / ((double)(UINT64_C(1) << 52) + 1);
        x[i] = i / INNER % 2 == 0 && i % INNER == 1 ? (float)-log(u) : 0;
    }
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 3, .dims = {ROWS, 2, INNER}, .data = x};
    kiln_channels_see(&s, &t);
    kiln_reach r[2] = {kiln_reach_of(&s, 0, 1), kiln_reach_of(&s, 1, 1)};
    assert_true(r[0].known && !r[1].known);
    assert_true(fabs(r[0].live - 1.0 / INNER) < 1e-6 && fabs(r[0].mean * INNER / 2 - 1) < 0.1);
    /* E[(x - L)^2; x > L] = 2 exp(-L) for an exponential, here of every third element. */
    for (double limit = 5; limit < 8; limit++) {
        double want = 2 * exp(-limit) / INNER, have = kiln_reach_cut(&r[0], 1, limit);
        assert_true(have > want / 3 && have < want * 3);
    }
    assert_true(kiln_reach_cut(&r[0], 0, 0) == 0 && kiln_reach_end(&r[0], 0) == 0);
    assert_true(kiln_reach_end(&r[0], 1) > r[0].side[1].far);
    double scratch[2];
    kiln_reach_fill(r, 2, scratch);
    assert_true(kiln_reach_end(&r[1], 1) > r[0].side[1].from);
    kiln_arena_free(&arena);
}

/* A value that others read too: one channel in 48 gets a factor on the way to the products, which
 * no pass moves back; what is alike is left alone. */
static void test_inlet(void **state) {
    (void)state;
    static const char source[] = "graph \"g\"\n"
                                 "in x: float32[N,8]\n"
                                 "const s: float32[8] = {1, 1, 1, 1, 1, 1, 1, 1}\n"
                                 "const w: float32[8,6] = rand(3)\n"
                                 "const v: float32[5,8] = rand(4)\n"
                                 "n = RMSNormalization(x, s)\n"
                                 "y = MatMul(n, w)\n"
                                 "z = Gemm(n, v, _) {transB=1}\n"
                                 "t = Sigmoid(n)\n"
                                 "out y\n"
                                 "out z\n"
                                 "out t\n"
                                 "end\n";
    for (int outlier = 0; outlier < 2; outlier++) {
        world before, w;
        kiln_smoother s;
        kiln_scaled done;
        float x[512 * 8];
        uint64_t seed = 9;
        world_open(&before, source, sizeof source - 1);
        world_open(&w, source, sizeof source - 1);
        assert_int_equal(kiln_smoother_init(&s, w.graph, &w.arena), KILN_OK);
        assert_true(s.seams.count == 1 && s.seams.items[0].inlet && s.n_seen == 2);
        for (int i = 0; i < 512 * 8; i++) {
            double u = (double)(next_random(&seed) >> 40) / (1 << 23) - 1;
            x[i] = (float)(outlier && i % 8 == 2 ? 40 * u : u);
        }
        kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {512, 8}, .data = x};
        kiln_smoother_see(&s, "n", &t);
        assert_int_equal(kiln_smoother_apply(&s, 0, w.graph, &done, w.diag), KILN_OK);
        assert_int_equal(done.scaled, outlier);
        reindex(&w);
        assert_int_equal(run_passes(&w, "scales", -1), 0);
        const kiln_node *y = w.graph->outputs[0]->producer, *z = w.graph->outputs[1]->producer;
        assert_true(y->in[0] == z->in[0]);
        assert_true(strcmp(w.graph->outputs[2]->producer->in[0]->name, "n") == 0);
        assert_int_equal(y->in[0]->producer->op == &kiln_op_mul, outlier);
        const float *f = outlier ? constant_of(&w, y->in[0]->name, 1) : NULL;
        for (int i = 0; f && i < 8; i++) {
            assert_true(i == 2 ? f[i] < 1.0f / 20 && f[i] > 1.0f / 60 : f[i] == 1);
        }
        compare_worlds(&before, &w, "inlet");
        world_close(&before);
        world_close(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),  cmocka_unit_test(test_equalize),
        cmocka_unit_test(test_smooth), cmocka_unit_test(test_hardly_seen),
        cmocka_unit_test(test_reach),  cmocka_unit_test(test_inlet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
