/* Placing QuantizeLinear and DequantizeLinear in the graphs of place.in gives those of place.out,
 * which compute nearly the same.
 *
 * A graph's name says how: "[not ]STYLE[ RULES]: what it shows", "dynamic" being Kiln's style with
 * scales found at run time. Ranges are the extremes over the
 * inputs that are evaluated. KILN_GOLDEN_UPDATE=1 writes place.out: read the difference before
 * keeping it. */
#include "pass/graphs.h"

#include "quant/calibration.h"
#include "quant/place.h"
#include "quant/trt_rules.h"

enum { SEEDS = 4, MIN_SQNR_DB = 22 };

typedef struct spec {
    kiln_place_options options;
    bool refused;
} spec;

static void read_spec(spec *s, world *w) {
    static const char *const styles[] = {"kiln", "tensorrt", "onnxruntime", "dynamic"};
    const char *name = w->graph->name;
    *s = (spec){.refused = strncmp(name, "not ", 4) == 0};
    name += s->refused ? 4 : 0;
    size_t len = strcspn(name, " :"), style = 0;
    while (style < 4 && (strlen(styles[style]) != len || strncmp(name, styles[style], len) != 0)) {
        style++;
    }
    assert_true(style < 4);
    s->options.dynamic = style == 3;
    s->options.style = s->options.dynamic ? KILN_QDQ_KILN : (kiln_qdq_style)style;
    const char *end = strstr(name, ": ");
    assert_non_null(end);
    char *rules = kiln_arena_text(&w->arena, name + len, (size_t)(end - name) - len);
    assert_int_equal(kiln_rules_parse(&s->options.rules, rules, &w->arena, w->diag), KILN_OK);
}

/* ---- Ranges from the float graph ---- */

typedef struct watcher {
    kiln_calibration *seen;
    kiln_diag *diag;
} watcher;

static kiln_status watch(void *user, const kiln_value *value, const kiln_datum *datum) {
    watcher *x = user;
    if (datum->kind == KILN_KIND_TENSOR && datum->tensor.dtype == KILN_DTYPE_F32) {
        return kiln_calibration_observe(x->seen, value->name, &datum->tensor, x->diag);
    }
    return KILN_OK;
}

static kiln_datum *run_watched(world *w, uint64_t seed, watcher *x) {
    kiln_graph *g = w->graph;
    kiln_datum *in = kiln_arena_array(&w->arena, g->n_inputs + 1, sizeof *in);
    kiln_datum *out = kiln_arena_array(&w->arena, g->n_outputs + 1, sizeof *out);
    assert_true(in && out);
    const kiln_eval_options options = {.tap = x ? watch : NULL, .tap_user = x};
    for (size_t i = 0; i < g->n_inputs; i++) {
        in[i] = random_input(w, g->inputs[i], &seed);
        if (x) {
            assert_int_equal(watch(x, g->inputs[i], &in[i]), KILN_OK);
        }
    }
    if (kiln_eval_graph(g, in, out, &options, &w->arena, w->diag)) {
        fail_with(w->diag, "the graph cannot be evaluated");
    }
    return out;
}

static kiln_ranges *ranges_of(world *w, const spec *s) {
    kiln_ranges *ranges;
    watcher x = {.diag = w->diag};
    const kiln_calibrate_options how = {.size = sizeof how,
                                        .calibrator = KILN_CALIBRATOR_MAX,
                                        .symmetric = s->options.style == KILN_QDQ_TENSORRT};
    assert_int_equal(kiln_calibration_create(&x.seen, NULL), KILN_OK);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        (void)run_watched(w, seed, &x);
    }
    assert_int_equal(kiln_ranges_create(&ranges, NULL), KILN_OK);
    assert_int_equal(kiln_ranges_calibrate(ranges, x.seen, &how, w->diag), KILN_OK);
    kiln_calibration_destroy(x.seen);
    return ranges;
}

/* ---- Checks ---- */

/* Every value that is asked for is quantized: once, with a pair. */
static void check_needed(const world *before, const world *after, const spec *s) {
    kiln_needed *needed;
    size_t n, quantize = 0;
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    assert_int_equal(
        kiln_place_needed(&needed, &n, before->graph, &s->options, &arena, before->diag), KILN_OK);
    for (size_t i = 0; i < after->graph->n_nodes; i++) {
        const kiln_node *node = after->graph->nodes[i];
        if (node->op != &kiln_op_quantize_linear) {
            continue;
        }
        quantize++;
        bool listed = false;
        for (size_t k = 0; k < n; k++) {
            listed = listed || strcmp(needed[k].name, node->in[0]->name) == 0;
        }
        assert_true(listed);
        assert_true(node->out[0]->n_users == 1);
        assert_ptr_equal(node->out[0]->users[0]->op, &kiln_op_dequantize_linear);
        assert_true(node->out[0]->users[0]->out[0]->n_users > 0);
    }
    assert_int_equal(quantize, n);
    kiln_arena_free(&arena);
}

static void check_close(world *before, world *after, const char *name) {
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        kiln_datum *x = run_watched(before, seed, NULL), *y = run_watched(after, seed, NULL);
        double signal = 0, noise = 0;
        for (size_t i = 0; i < before->graph->n_outputs; i++) {
            const kiln_tensor *a = &x[i].tensor, *b = &y[i].tensor;
            assert_int_equal(a->dtype, b->dtype);
            assert_string_equal(before->graph->outputs[i]->name, after->graph->outputs[i]->name);
            assert_int_equal(kiln_tensor_count(a), kiln_tensor_count(b));
            for (int64_t k = 0; k < kiln_tensor_count(a); k++) {
                double u = kiln_get_f64(a->dtype, a->data, k);
                double e = u - kiln_get_f64(b->dtype, b->data, k);
                signal += u * u;
                noise += e * e;
            }
        }
        assert_true(noise > 0); /* 8 bits were used */
        if (10 * log10(signal / noise) < MIN_SQNR_DB) {
            fail_msg("%s: SQNR %.1f dB", name, 10 * log10(signal / noise));
        }
    }
}

static void print_choices(kiln_text *out, const kiln_placed *placed) {
    kiln_text_printf(out, "# %zu of %zu layers, %zu values\n", placed->n_int8_layers,
                     placed->n_layers, placed->n_quantized);
    for (size_t i = 0; i < placed->n_nodes; i++) {
        const kiln_node_precision *n = &placed->nodes[i];
        assert_true(n->int8 == (n->reason == NULL));
        if (!n->int8) {
            kiln_text_printf(out, "# %s (%s): %s\n", n->name, n->op, n->reason);
        }
    }
}

static void run_case(const char *src, size_t len, kiln_text *result) {
    world before, after;
    spec s;
    kiln_placed placed;
    world_open(&before, src, len);
    world_open(&after, src, len);
    read_spec(&s, &before);
    kiln_ranges *ranges = ranges_of(&before, &s);
    if (kiln_place(&placed, after.graph, &s.options, ranges, after.diag)) {
        fail_with(after.diag, after.graph->name);
    }
    assert_int_equal(placed.n_missing, 0);
    assert_int_equal(s.refused, placed.n_quantized == 0);
    print_choices(result, &placed);
    if (s.options.style == KILN_QDQ_TENSORRT) {
        assert_int_equal(kiln_trt_check(after.graph, after.diag), 0);
    }
    assert_int_equal(kiln_graph_dump(result, after.graph), KILN_OK);
    kiln_text_char(result, '\n');
    check_needed(&before, &after, &s);
    if (!s.refused) {
        check_close(&before, &after, after.graph->name);
    }
    kiln_ranges_destroy(ranges);
    world_close(&before);
    world_close(&after);
}

static void test_golden(void **state) {
    (void)state;
    const char *start, *path = "tests/quant/place.out";
    size_t len, count = 0;
    kiln_text result;
    char *text = read_text("tests/quant/place.in", &len);
    assert_non_null(text);
    kiln_text_init(&result, NULL);
    for (const char *at = text; next_graph(&at, &start, &len); count++) {
        run_case(start, len, &result);
    }
    assert_true(count >= 14);
    if (getenv("KILN_GOLDEN_UPDATE")) {
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(result.data, 1, result.len, f), result.len);
        fclose(f);
    } else {
        char *golden = read_text(path, &len);
        assert_non_null(golden);
        assert_string_equal(result.data, golden);
        test_free(golden);
    }
    kiln_text_free(&result);
    test_free(text);
}

/* ---- What cannot be had ---- */

static const char two_layers[] = "graph \"g\"\n"
                                 "in x: float32[1,4]\n"
                                 "const w: float32[4,4] = rand(1)\n"
                                 "const v: float32[4,4] = rand(2)\n"
                                 "a = MatMul(x, w) @first\n"
                                 "b = Softmax(a) @soft\n"
                                 "c = MatMul(b, v) @second\n"
                                 "out c\n"
                                 "end\n";

/* Places with these rules and ranges for the named values of [-4, 4]. */
static kiln_status place_with(kiln_place_options *o, const char *rules, const char *const *names,
                              kiln_placed *placed) {
    world w;
    kiln_ranges *ranges;
    world_open(&w, two_layers, sizeof two_layers - 1);
    assert_int_equal(kiln_ranges_create(&ranges, NULL), KILN_OK);
    for (size_t i = 0; names[i]; i++) {
        kiln_range r = {.name = names[i], .lo = -4, .hi = 4};
        assert_int_equal(kiln_ranges_set(ranges, &r, w.diag), KILN_OK);
    }
    assert_int_equal(kiln_rules_parse(&o->rules, rules, &w.arena, w.diag), KILN_OK);
    kiln_status status = kiln_place(placed, w.graph, o, ranges, w.diag);
    o->rules = (kiln_rules){0};
    kiln_ranges_destroy(ranges);
    world_close(&w);
    return status;
}

static void test_refusals(void **state) {
    (void)state;
    const char *const all[] = {"x", "b", NULL}, *const one[] = {"b", NULL}, *const none[] = {NULL};
    kiln_place_options o = {.style = KILN_QDQ_KILN};
    kiln_placed p;
    assert_int_equal(place_with(&o, "type:Softmax=int8", all, &p), KILN_E_UNSUPPORTED);
    assert_int_equal(place_with(&o, "name:soft=int8", all, &p), KILN_E_UNSUPPORTED);
    assert_int_equal(place_with(&o, "name:s*=int8,name:soft=fp32", all, &p), KILN_OK);
    assert_int_equal(p.n_int8_layers, 2);
    assert_int_equal(place_with(&o, "fp32,name:first=int8", all, &p), KILN_OK);
    assert_true(p.n_int8_layers == 1 && p.n_quantized == 1);
    assert_int_equal(place_with(&o, "bf16", all, &p), KILN_OK);
    assert_int_equal(p.n_quantized, 0);
    assert_int_equal(place_with(&o, "", one, &p), KILN_OK);
    assert_true(p.n_missing == 1 && p.n_int8_layers == 1 && p.n_quantized == 1);
    assert_int_equal(place_with(&o, "", none, &p), KILN_OK);
    assert_true(p.n_missing == 2 && p.n_int8_layers == 0 && p.n_quantized == 0);
    o.keep_first = 1;
    assert_int_equal(place_with(&o, "", all, &p), KILN_OK);
    assert_true(p.n_int8_layers == 1 && p.n_quantized == 1);
    o.keep_last = 1;
    assert_int_equal(place_with(&o, "", all, &p), KILN_OK);
    assert_int_equal(p.n_int8_layers, 0);
    o = (kiln_place_options){.dynamic = true, .keep_last = 1};
    assert_int_equal(place_with(&o, "", none, &p), KILN_OK);
    assert_true(p.n_int8_layers == 1 && p.n_quantized == 1 && p.n_missing == 0);
    assert_int_equal(place_with(&o, "type:Softmax=int8", none, &p), KILN_E_UNSUPPORTED);
}

/* A graph that has QuantizeLinear already, and weights that no scale can hold. */
static void test_unfit(void **state) {
    (void)state;
    static const char quantized[] = "graph \"q\"\n"
                                    "in x: float32[2]\n"
                                    "const s: float32[] = {0.5}\n"
                                    "const z: uint8[] = {0}\n"
                                    "q = QuantizeLinear(x, s, z)\n"
                                    "y = DequantizeLinear(q, s, z)\n"
                                    "out y\n"
                                    "end\n";
    world w;
    kiln_placed p;
    kiln_ranges *ranges;
    kiln_place_options o = {.style = KILN_QDQ_KILN};
    assert_int_equal(kiln_ranges_create(&ranges, NULL), KILN_OK);
    world_open(&w, quantized, sizeof quantized - 1);
    assert_int_equal(kiln_place(&p, w.graph, &o, ranges, w.diag), KILN_E_UNSUPPORTED);
    world_close(&w);
    world_open(&w, two_layers, sizeof two_layers - 1);
    kiln_range r = {.name = "x", .lo = -4, .hi = 4};
    assert_int_equal(kiln_ranges_set(ranges, &r, w.diag), KILN_OK);
    ((float *)w.graph->nodes[0]->in[1]->constant->tensor.data)[3] = NAN;
    assert_int_equal(kiln_place(&p, w.graph, &o, ranges, w.diag), KILN_E_UNSUPPORTED);
    kiln_ranges_destroy(ranges);
    world_close(&w);
}

/* Each graph of tensorrt.in breaks the rule that its name begins with, those called good none. */
static void test_tensorrt_rules(void **state) {
    (void)state;
    static const char *const rules[] = {"dtype", "zero-point", "scale", "scale-dtype", "shape",
                                        "block", "axis",       "pair",  "weights",     "good"};
    size_t seen[KILN_COUNT_OF(rules)] = {0}, len;
    const char *start;
    char *text = read_text("tests/quant/tensorrt.in", &len);
    assert_non_null(text);
    for (const char *at = text; next_graph(&at, &start, &len);) {
        world w;
        world_open(&w, start, len);
        const char *name = w.graph->name;
        size_t end = strcspn(name, ":"), rule = 0;
        while (strlen(rules[rule]) != end || strncmp(rules[rule], name, end) != 0) {
            rule++;
            assert_true(rule < KILN_COUNT_OF(rules));
        }
        seen[rule]++;
        size_t n = kiln_trt_check(w.graph, w.diag);
        if ((n == 0) != (strcmp(rules[rule], "good") == 0)) {
            fail_msg("%s: %zu findings", name, n);
        }
        assert_int_equal(kiln_diag_count(w.diag), n);
        for (size_t i = 0; i < n; i++) {
            char quoted[32];
            snprintf(quoted, sizeof quoted, "\"%s\"", rules[rule]);
            const kiln_finding *f = kiln_diag_get(w.diag, i);
            assert_int_equal(f->status, KILN_E_CHECK);
            if (!strstr(f->message, quoted)) {
                fail_msg("%s: %s", name, f->message);
            }
        }
        world_close(&w);
    }
    for (size_t i = 0; i < KILN_COUNT_OF(rules); i++) {
        assert_true(seen[i] > 0);
    }
    test_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_unfit),
        cmocka_unit_test(test_tensorrt_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
