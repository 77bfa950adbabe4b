/* NonMaxSuppression by its kernel against the operator's reference: random boxes in every form,
 * crowds and empty fields, ties, boxes without extent, infinities and NaN, all options. */
#include <math.h>

#include "engine/samples.h"

enum { MAX_BOXES = 700, ROUNDS = 240 };

typedef struct nms_case {
    int64_t batch, classes, n, most, center;
    int32_t inputs; /* of the node: 2 to 5, the last ones left out */
    float iou, least;
    int32_t field; /* how the boxes lie */
} nms_case;

static uint32_t state_of_rng;

static uint32_t next_random(uint32_t below) {
    state_of_rng = state_of_rng * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(state_of_rng >> 4) * below >> 28);
}

static float uniform(float lo, float hi) {
    return lo + (hi - lo) * (float)next_random(1 << 20) / (float)(1 << 20);
}

static kiln_engine *build(const nms_case *k, kiln_diag *diag) {
    kiln_builder *b;
    kiln_model *model;
    kiln_engine *engine;
    MUST(diag, kiln_builder_create(&b, NULL));
    kiln_tensor iou = {.dtype = KILN_DTYPE_F32, .data = (void *)(uintptr_t)&k->iou, .cap_bytes = 4};
    kiln_tensor least = iou;
    least.data = (void *)(uintptr_t)&k->least;
    kiln_ref_value in[5] = {
        kiln_builder_input(b, "boxes", KILN_DTYPE_F32, 3, (const int64_t[]){-1, -1, 4}, diag),
        kiln_builder_input(b, "scores", KILN_DTYPE_F32, 3, (const int64_t[]){-1, -1, -1}, diag),
        constant_i64(b, 1, 1, &k->most, diag), kiln_builder_constant(b, NULL, &iou, diag),
        kiln_builder_constant(b, NULL, &least, diag)};
    const kiln_attribute center = {
        .name = "center_point_box", .kind = KILN_ATTRIBUTE_INT, .i = k->center};
    kiln_ref_value y =
        kiln_builder_node(b, "", "NonMaxSuppression", in, k->inputs, &center, 1, diag);
    (void)kiln_builder_output(b, y, "y", diag);
    MUST(diag, kiln_builder_finish(&model, b, diag));
    MUST(diag, kiln_engine_build(&engine, model, NULL, diag));
    kiln_model_destroy(model);
    return engine;
}

/* A coordinate pair of a box of this field. */
static void place(const nms_case *k, float *v) {
    static const float odd[] = {INFINITY, -INFINITY, NAN, 0, -0.0f, 3e38f, 1e-30f, -3e38f};
    float x = uniform(0, 100), y = uniform(0, 100), w = uniform(1, 20), h = uniform(1, 20);
    switch (k->field) {
    case 0: /* a crowd */
        break;
    case 1: /* far apart, in groups */
        x += 1000.0f * (float)next_random(90);
        y += next_random(2) ? 500.0f : 0.0f;
        break;
    case 2: /* on a coarse lattice: many equal boxes and equal overlaps */
        x = (float)next_random(6), y = (float)next_random(6);
        w = (float)next_random(4), h = (float)next_random(4);
        break;
    case 3: /* lengths of many magnitudes */
        w = ldexpf(1, (int)next_random(12) - 6), h = ldexpf(1, (int)next_random(30) - 15);
        y += 10000.0f * (float)next_random(20);
        break;
    default: /* unheard-of numbers among others */
        x = next_random(3) ? x : odd[next_random(8)];
        w = next_random(5) ? w : odd[next_random(8)];
        y = next_random(5) ? y * 1e18f : odd[next_random(8)];
        h = next_random(9) ? h * 1e18f : odd[next_random(8)];
    }
    bool swap = !k->center && next_random(2);
    float corners[4] = {swap ? y + h : y, x, swap ? y : y + h, x + w}, middle[4] = {x, y, w, h};
    memcpy(v, k->center ? middle : corners, sizeof corners);
}

static void run(kiln_engine *engine, kiln_tensor *in, kiln_regions regions, int32_t threads,
                int64_t **rows, int64_t *n, kiln_diag *diag) {
    const kiln_context_options o = {.size = sizeof o, .threads = threads, .regions = regions};
    kiln_context *c;
    MUST(diag, kiln_context_create(&c, engine, &o, diag));
    MUST(diag, kiln_context_bind(c, "boxes", &in[0], diag));
    MUST(diag, kiln_context_bind(c, "scores", &in[1], diag));
    MUST(diag, kiln_context_run(c, diag));
    const kiln_tensor *y = kiln_context_output(c, 0);
    *n = y->dims[0];
    *rows = malloc((size_t)(*n * 3 + 1) * sizeof **rows);
    memcpy(*rows, y->data, (size_t)*n * 3 * sizeof **rows);
    kiln_context_destroy(c);
}

/* Returns how many rows there were. */
static int64_t check(const nms_case *k, kiln_diag *diag) {
    int64_t n_boxes = k->batch * k->n, n_scores = k->batch * k->classes * k->n;
    float *boxes = malloc((size_t)n_boxes * 4 * sizeof *boxes + 1);
    float *scores = malloc((size_t)n_scores * sizeof *scores + 1);
    int64_t *want, *got, n_want, n_got;
    for (int64_t i = 0; i < n_boxes; i++) {
        place(k, boxes + 4 * i);
    }
    for (int64_t i = 0; i < n_scores; i++) {
        scores[i] = next_random(2) ? uniform(-1, 1) : (float)next_random(5) / 4;
        scores[i] = next_random(50) ? scores[i] : next_random(2) ? NAN : -0.0f;
    }
    kiln_tensor in[2] = {
        {.dtype = KILN_DTYPE_F32, .rank = 3, .dims = {k->batch, k->n, 4}},
        {.dtype = KILN_DTYPE_F32, .rank = 3, .dims = {k->batch, k->classes, k->n}}};
    in[0].data = boxes;
    in[1].data = scores;
    for (int i = 0; i < 2; i++) {
        in[i].cap_bytes = kiln_tensor_bytes(&in[i]);
    }
    kiln_engine *engine = build(k, diag);
    run(engine, in, KILN_REGIONS_REFERENCE, 1, &want, &n_want, diag);
    for (int32_t threads = 1; threads <= 3; threads++) {
        run(engine, in, KILN_REGIONS_FAST, threads, &got, &n_got, diag);
        assert_int_equal(n_got, n_want);
        assert_memory_equal(got, want, (size_t)n_want * 3 * sizeof *want);
        free(got);
    }
    free(want);
    free(boxes);
    free(scores);
    kiln_engine_destroy(engine);
    return n_want;
}

static void the_kernel_chooses_what_the_reference_does(void **state) {
    (void)state;
    static const float limits[] = {0, 0.3f, 0.5f, 0.9f, 1};
    kiln_diag *diag = new_diag();
    int64_t rows = 0;
    state_of_rng = 7;
    for (int32_t i = 0; i < ROUNDS; i++) {
        nms_case k = {.batch = 1 + next_random(3),
                      .classes = 1 + next_random(4),
                      .n = next_random(i % 8 ? 120 : MAX_BOXES),
                      .center = next_random(2),
                      .inputs = i % 6 ? 5 : 2 + (int32_t)next_random(4),
                      .iou = limits[next_random(5)],
                      .least = uniform(-1.2f, 0.8f),
                      .field = i % 5};
        k.most = next_random(3) ? INT64_MAX : next_random(12);
        rows += check(&k, diag);
    }
    assert_true(rows > 20 * ROUNDS);
    kiln_diag_destroy(diag);
}

static void a_limit_that_is_no_share_is_refused(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    nms_case k = {.most = 3, .inputs = 4, .iou = 1.5f};
    kiln_engine *engine = build(&k, diag);
    float zero[4] = {0};
    kiln_tensor boxes = {.dtype = KILN_DTYPE_F32, .rank = 3, .dims = {1, 1, 4}, .cap_bytes = 16};
    kiln_tensor scores = {.dtype = KILN_DTYPE_F32, .rank = 3, .dims = {1, 1, 1}, .cap_bytes = 4};
    boxes.data = scores.data = zero;
    kiln_context *c;
    MUST(diag, kiln_context_create(&c, engine, NULL, diag));
    MUST(diag, kiln_context_bind(c, "boxes", &boxes, diag));
    MUST(diag, kiln_context_bind(c, "scores", &scores, diag));
    assert_int_equal(kiln_context_run(c, diag), KILN_E_MALFORMED);
    kiln_context_destroy(c);
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_chooses_what_the_reference_does),
        cmocka_unit_test(a_limit_that_is_no_share_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
