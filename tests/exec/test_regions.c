/* Integer regions of an engine against their references, on the inputs they get while it runs. */
#include <math.h>

#include "engine/engine.h"
#include "engine/samples.h"
#include "kiln/quant.h"

#define DIGITS "examples/digits/"

/* The digits network in 8 bits. */
static kiln_engine *build_int8(kiln_diag *diag) {
    kiln_model *model, *int8;
    kiln_engine *engine;
    kiln_context *context;
    kiln_calibration *calibration;
    const kiln_calibrate_run run = {
        .size = sizeof run, .data = DIGITS "digits_calib.npz", .count = 50};
    MUST(diag, make_digits(&model, NULL, diag));
    MUST(diag, kiln_engine_build(&engine, model, NULL, diag));
    MUST(diag, kiln_context_create(&context, engine, NULL, diag));
    MUST(diag, kiln_calibration_create(&calibration, NULL));
    MUST(diag, kiln_calibrate(calibration, engine, context, NULL, &run, NULL, diag));
    MUST(diag, kiln_quantize(&int8, model, calibration, NULL, NULL, diag));
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    MUST(diag, kiln_engine_build(&engine, int8, NULL, diag));
    kiln_calibration_destroy(calibration);
    kiln_model_destroy(int8);
    kiln_model_destroy(model);
    return engine;
}

static kiln_status evaluate(kiln_evaluate_result *out, const kiln_engine *engine,
                            kiln_regions regions, kiln_diag *diag) {
    const kiln_context_options two = {.size = sizeof two, .threads = 2, .regions = regions};
    const kiln_context_options fast = {.size = sizeof fast, .threads = 1};
    kiln_context *context, *reference;
    MUST(diag, kiln_context_create(&context, engine, &two, diag));
    MUST(diag, kiln_context_create(&reference, engine, &fast, diag));
    const kiln_evaluate_options o = {.size = sizeof o,
                                     .data = DIGITS "digits_test.npz",
                                     .count = 60,
                                     .batch = 6,
                                     .reference = reference};
    kiln_status status = kiln_evaluate(out, engine, context, NULL, &o, diag);
    kiln_context_destroy(reference);
    kiln_context_destroy(context);
    return status;
}

/* Claims whose kernel states its arithmetic. */
static int64_t integer_region(const kiln_engine *engine, size_t *count) {
    int64_t last = -1;
    *count = 0;
    for (size_t i = 0; i < engine->plan->n_claims; i++) {
        if (engine->plan->claims[i]->kernel->reference) {
            last = (int64_t)i;
            ++*count;
        }
    }
    return last;
}

static void regions_equal_their_references(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_int8(diag);
    kiln_evaluate_result r;
    size_t regions;
    integer_region(engine, &regions);
    assert_true(regions >= 6);
    MUST(diag, evaluate(&r, engine, KILN_REGIONS_CHECKED, diag));
    assert_int_equal(r.samples, 60);
    assert_true(isinf(r.sqnr_db)); /* the kernels' results */
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
}

/* What runs by references alone has the same bytes between its regions, so that only the float
 * logits may differ, by rounding. */
static void references_alone_give_the_same(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_int8(diag);
    kiln_evaluate_result r;
    MUST(diag, evaluate(&r, engine, KILN_REGIONS_REFERENCE, diag));
    assert_true(r.agreement == 1 && r.sqnr_db > 100);
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
}

static bool is_named(const kiln_diag *diag, const char *name) {
    bool named = false;
    for (size_t i = 0; i < kiln_diag_count(diag); i++) {
        named = named || strstr(kiln_diag_get(diag, i)->message, name);
    }
    return named;
}

/* A kernel that computes something else, here by weights that were changed, is found out. */
static void a_wrong_region_is_named(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_int8(diag);
    kiln_evaluate_result r;
    bool found = false;
    for (size_t i = 0; i < engine->plan->n_claims && !found; i++) {
        const kiln_claim *claim = engine->plan->claims[i];
        kiln_dtype out = claim->out[0]->type.dtype;
        if (claim->kernel->reference && out == KILN_DTYPE_U8) {
            unsigned char *packed = (unsigned char *)(uintptr_t)engine->plan->blobs[i][0].data;
            for (size_t k = 0; k < engine->plan->blobs[i][0].bytes; k++) {
                packed[k] ^= 0x15;
            }
            assert_int_equal(evaluate(&r, engine, KILN_REGIONS_CHECKED, diag), KILN_E_CHECK);
            assert_true(is_named(diag, claim->anchor->name));
            found = true;
        }
    }
    assert_true(found);
    kiln_diag_clear(diag);
    MUST(diag, evaluate(&r, engine, KILN_REGIONS_FAST, diag));
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_equal_their_references),
        cmocka_unit_test(references_alone_give_the_same),
        cmocka_unit_test(a_wrong_region_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
