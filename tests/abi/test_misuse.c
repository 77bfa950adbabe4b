/* Wrong calls are told so: KILN_E_USAGE and a sentence, nothing is changed, nothing crashes. */
#include <math.h>

#include "engine/samples.h"

static kiln_diag *diag;

/* Expects the status, and one finding that says it; clears the diag. */
static void expect(kiln_status got, kiln_status want) {
    if (got != want) {
        show(diag);
        print_error("got %s, expected %s\n", kiln_status_name(got), kiln_status_name(want));
    }
    assert_int_equal(got, want);
    assert_true(kiln_diag_count(diag) > 0);
    assert_int_equal(kiln_diag_get(diag, kiln_diag_count(diag) - 1)->status, want);
    assert_true(strlen(kiln_diag_get(diag, 0)->message) > 8);
    kiln_diag_clear(diag);
}

static void nothing_to_load(void **state) {
    (void)state;
    kiln_model *model = NULL;
    kiln_engine *engine = NULL;
    expect(kiln_model_load(&model, NULL, NULL, NULL, diag), KILN_E_USAGE);
    expect(kiln_model_load_memory(&model, NULL, NULL, 10, NULL, diag), KILN_E_USAGE);
    expect(kiln_engine_load(&engine, NULL, NULL, NULL, diag), KILN_E_USAGE);
    expect(kiln_engine_load_memory(&engine, NULL, NULL, 10, NULL, diag), KILN_E_USAGE);
    expect(kiln_engine_build(&engine, NULL, NULL, diag), KILN_E_USAGE);
    expect(kiln_model_load(&model, NULL, "examples/no/such.onnx", NULL, diag), KILN_E_IO);
    expect(kiln_engine_load(&engine, NULL, "examples/no/such.kiln", NULL, diag), KILN_E_IO);
    expect(kiln_engine_load(&engine, NULL, "examples", NULL, diag), KILN_E_IO);
    expect(kiln_engine_load(&engine, NULL, "examples/digits/digits.onnx", NULL, diag),
           KILN_E_ENGINE);
    assert_null(model);
    assert_null(engine);
    static const char byte[65];
    expect(kiln_engine_load_memory(&engine, NULL, byte + (((uintptr_t)byte & 63) == 0), 64, NULL,
                                   diag),
           KILN_E_USAGE);
}

/* Every option struct: without a size, and with a field that this version does not know. */
static void option_structs_without_a_size(void **state) {
    (void)state;
    kiln_model *model = NULL;
    kiln_engine *engine = build_sample(1, NULL), *other = NULL;
    kiln_context *context = NULL;
    const kiln_model_options m = {.no_mmap = true};
    const kiln_build_options b = {.portable = true};
    const kiln_load_options l = {.verify = true};
    const kiln_context_options c = {.threads = 1};
    expect(kiln_model_load(&model, NULL, "examples/digits/digits.onnx", &m, diag), KILN_E_USAGE);
    MUST(diag, kiln_model_load(&model, NULL, "examples/digits/digits.onnx", NULL, diag));
    expect(kiln_engine_build(&other, model, &b, diag), KILN_E_USAGE);
    expect(kiln_engine_load(&other, NULL, "examples/digits/digits.onnx", &l, diag), KILN_E_USAGE);
    expect(kiln_context_create(&context, engine, &c, diag), KILN_E_USAGE);
    struct {
        kiln_context_options known;
        int64_t later;
    } newer = {.known = {.size = sizeof newer, .threads = 1}, .later = 1};
    expect(kiln_context_create(&context, engine, &newer.known, diag), KILN_E_USAGE);
    newer.later = 0;
    MUST(diag, kiln_context_create(&context, engine, &newer.known, diag));
    kiln_pool *pool = NULL;
    const kiln_pool_options p = {.threads = 2}, negative = {.size = sizeof negative, .threads = -1};
    assert_int_equal(kiln_pool_create(&pool, NULL, &p), KILN_E_USAGE);
    assert_int_equal(kiln_pool_create(&pool, NULL, &negative), KILN_E_USAGE);
    const kiln_limits no_size = {.nodes = 1};
    const kiln_env_options e = {.size = sizeof e, .limits = &no_size};
    kiln_env *env = NULL;
    assert_int_equal(kiln_env_create(&env, &e), KILN_E_USAGE);
    assert_true(!pool && !env && !other);
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
}

static void unknown_names_in_options(void **state) {
    (void)state;
    kiln_model *model;
    kiln_engine *engine = NULL;
    const char *const off[] = {"no_such_pass", NULL};
    const kiln_build_options pass = {.size = sizeof pass, .off = off};
    const kiln_build_options isa = {.size = sizeof isa, .max_isa = "mmx"};
    const kiln_shape stranger = {.name = "nobody", .rank = 1, .dims = {1}};
    const kiln_shape deep = {.name = "image", .rank = KILN_MAX_RANK + 1};
    const kiln_shape flat = {.name = "image", .rank = 2, .dims = {1, 64}}, nameless = {.rank = 1};
    const kiln_shape *const wrong[] = {&stranger, &deep, &flat, &nameless};
    MUST(diag, make_digits(&model, NULL, diag));
    expect(kiln_engine_build(&engine, model, &pass, diag), KILN_E_USAGE);
    expect(kiln_engine_build(&engine, model, &isa, diag), KILN_E_USAGE);
    assert_null(engine);
    kiln_model_destroy(model);
    for (size_t i = 0; i < KILN_COUNT_OF(wrong); i++) {
        const kiln_model_options o = {.size = sizeof o, .overrides = wrong[i], .n_overrides = 1};
        expect(kiln_model_load(&model, NULL, "examples/digits/digits.onnx", &o, diag),
               KILN_E_USAGE);
    }
}

static void wrong_inputs(void **state) {
    (void)state;
    kiln_engine *engine = build_sample(1, NULL);
    kiln_context *context;
    float data[3 * 8 * 8] = {0};
    const kiln_tensor good = {.dtype = KILN_DTYPE_F32,
                              .rank = 4,
                              .dims = {1, 3, 8, 8},
                              .data = data,
                              .cap_bytes = sizeof data};
    MUST(diag, kiln_context_create(&context, engine, NULL, diag));
    assert_null(kiln_context_output(context, 0));
    expect(kiln_context_run(context, diag), KILN_E_USAGE);
    expect(kiln_context_prepare(context, diag), KILN_E_USAGE);
    expect(kiln_context_bind(context, "nobody", &good, diag), KILN_E_USAGE);
    expect(kiln_context_bind(context, NULL, &good, diag), KILN_E_USAGE);
    expect(kiln_context_bind(context, "x", NULL, diag), KILN_E_USAGE);
    expect(kiln_context_bind_sequence(context, "x", &good, 1, diag), KILN_E_USAGE);
    expect(kiln_context_bind_output(context, "nobody", data, 4, diag), KILN_E_USAGE);
    expect(kiln_context_bind_output(context, NULL, data, 4, diag), KILN_E_USAGE);
    kiln_tensor bad = good;
    bad.dtype = KILN_DTYPE_F64;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    bad = good;
    bad.rank = 3;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    bad.rank = KILN_MAX_RANK + 1;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    bad.rank = -1;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    bad = good;
    bad.dims[1] = 4;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    bad = good;
    bad.dims[0] = -2;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    bad.dims[0] = INT64_MAX / 2;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    bad = good;
    bad.cap_bytes--;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    bad = good;
    bad.data = NULL;
    expect(kiln_context_bind(context, "x", &bad, diag), KILN_E_USAGE);
    /* Still nothing is bound; then all is well. */
    expect(kiln_context_run(context, diag), KILN_E_USAGE);
    MUST(diag, kiln_context_bind(context, "x", &good, diag));
    MUST(diag, kiln_context_run(context, diag));
    kiln_io io;
    assert_non_null(kiln_context_output(context, 0));
    assert_null(kiln_context_output(context, 1));
    assert_null(kiln_context_output_item(context, 0, 1));
    assert_int_equal(kiln_context_output_items(context, 9), 0);
    assert_false(kiln_engine_input(engine, 1, &io));
    assert_false(kiln_engine_output(engine, 1, &io));
    int64_t t_ns, runs;
    kiln_layer layer;
    assert_false(kiln_context_profile(context, 10000, &t_ns, &runs));
    assert_false(kiln_engine_layer(engine, 10000, &layer));
    assert_int_equal(kiln_context_wait(context), KILN_OK);
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
}

static void engines_that_cannot_run(void **state) {
    (void)state;
    const kiln_build_options o = {.size = sizeof o, .canonical_only = true};
    kiln_engine *engine = build_sample(1, &o);
    kiln_context *context = NULL;
    void *bytes = NULL;
    size_t len = 0;
    expect(kiln_context_create(&context, engine, NULL, diag), KILN_E_USAGE);
    expect(kiln_engine_save_memory(engine, &bytes, &len, diag), KILN_E_USAGE);
    expect(kiln_engine_save(engine, NULL, diag), KILN_E_USAGE);
    expect(kiln_engine_export(engine, NULL, 0, diag), KILN_E_USAGE);
    assert_true(!context && !bytes);
    kiln_engine_destroy(engine);
}

static void destroying_nothing(void **state) {
    (void)state;
    kiln_context_destroy(NULL);
    kiln_engine_destroy(NULL);
    kiln_model_destroy(NULL);
    kiln_diag_destroy(NULL);
    kiln_pool_destroy(NULL);
    kiln_env_destroy(NULL);
    kiln_builder_destroy(NULL);
    kiln_free(NULL, NULL, 0);
    assert_int_equal(kiln_diag_count(NULL), 0);
    assert_null(kiln_diag_get(diag, 0));
    assert_int_equal(kiln_pool_threads(NULL), 1);
    assert_false(kiln_engine_recognize("KILN", 4));
}

/* ---- The builder: the first mistake makes it fail ---- */

static void finish_fails(kiln_builder *b, kiln_status want) {
    kiln_model *model = NULL;
    assert_int_equal(kiln_builder_input(b, "late", KILN_DTYPE_F32, 0, NULL, diag), KILN_NO_VALUE);
    assert_int_equal(kiln_builder_finish(&model, b, diag), want);
    assert_null(model);
    kiln_diag_clear(diag);
}

static kiln_builder *new_builder(kiln_ref_value *x) {
    kiln_builder *b;
    assert_int_equal(kiln_builder_create(&b, NULL), KILN_OK);
    *x = kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, (const int64_t[]){2, 3}, diag);
    assert_true(*x != KILN_NO_VALUE);
    return b;
}

static void builders_remember_the_first_mistake(void **state) {
    (void)state;
    kiln_ref_value x;
    kiln_builder *b = new_builder(&x);
    assert_int_equal(apply(b, "NoSuchOperator", x, KILN_NO_VALUE, diag), KILN_NO_VALUE);
    finish_fails(b, KILN_E_UNSUPPORTED);
    b = new_builder(&x);
    assert_int_equal(apply(b, "Relu", 77, KILN_NO_VALUE, diag), KILN_NO_VALUE);
    finish_fails(b, KILN_E_USAGE);
    b = new_builder(&x);
    const kiln_attribute unknown = {.name = "colour", .kind = KILN_ATTRIBUTE_INT, .i = 1};
    assert_int_equal(kiln_builder_node(b, "", "Relu", &x, 1, &unknown, 1, diag), KILN_NO_VALUE);
    finish_fails(b, KILN_E_MALFORMED);
    b = new_builder(&x);
    assert_int_equal(kiln_builder_input(b, "y", (kiln_dtype)99, 0, NULL, diag), KILN_NO_VALUE);
    finish_fails(b, KILN_E_USAGE);
    b = new_builder(&x);
    const kiln_tensor hollow = {.dtype = KILN_DTYPE_F32, .rank = 1, .dims = {4}};
    assert_int_equal(kiln_builder_constant(b, "c", &hollow, diag), KILN_NO_VALUE);
    finish_fails(b, KILN_E_USAGE);
    b = new_builder(&x);
    assert_int_equal(kiln_builder_output(b, KILN_NO_VALUE, "y", diag), KILN_E_USAGE);
    finish_fails(b, KILN_E_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_load),
        cmocka_unit_test(option_structs_without_a_size),
        cmocka_unit_test(unknown_names_in_options),
        cmocka_unit_test(wrong_inputs),
        cmocka_unit_test(engines_that_cannot_run),
        cmocka_unit_test(destroying_nothing),
        cmocka_unit_test(builders_remember_the_first_mistake),
    };
    diag = new_diag();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kiln_diag_destroy(diag);
    return failed;
}
