/* Profiles: what is refused when one is given, how it travels through the file, what a context
 * refuses, and that its memory is there from the start. */
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/forge.h"
#include "engine/tiny_onnx.h"

enum { SEED = 4 };

static const kiln_shape_range conv_range = {
    .name = "x", .rank = 4, .min = {2, 3, 8, 8}, .opt = {4, 3, 8, 8}, .max = {64, 3, 8, 8}};

static kiln_build_options with(const kiln_shape_range *profile, size_t n) {
    return (kiln_build_options){
        .size = sizeof(kiln_build_options), .profile = profile, .n_profile = n};
}

/* y = a + b; a is [N,T]. */
static kiln_model *two_inputs(kiln_arena *arena, const char *of_b, kiln_diag *diag) {
    kiln_out o = {.arena = arena};
    kiln_model *model;
    size_t graph = tiny_begin(&o);
    tiny_node(&o, "Add", "a", "b", "y", -1);
    tiny_value(&o, TINY_INPUT, "a", TINY_TENSOR, KILN_DTYPE_F32, "N,T");
    tiny_value(&o, TINY_INPUT, "b", TINY_TENSOR, KILN_DTYPE_F32, of_b);
    tiny_value(&o, TINY_OUTPUT, "y", TINY_TENSOR, KILN_DTYPE_F32, "N,T");
    tiny_end(&o, graph);
    MUST(diag, kiln_model_load_memory(&model, NULL, o.data, o.len, NULL, diag));
    return model;
}

/* y = Reshape(x, [-1, 4]): the length of x must divide by 4. */
static kiln_status make_reshape(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    const int64_t target[] = {-1, 4};
    kiln_ref_value x = kiln_builder_input(b, "x", KILN_DTYPE_F32, 1, (const int64_t[]){-1}, diag);
    kiln_ref_value y = apply(b, "Reshape", x, constant_i64(b, 1, 2, target, diag), diag);
    (void)kiln_builder_output(b, y, "y", diag);
    return kiln_builder_finish(out, b, diag);
}

/* ---- Building ---- */

static const kiln_finding *newest(const kiln_diag *diag) {
    size_t n = kiln_diag_count(diag);
    assert_true(n > 0);
    return kiln_diag_get(diag, n - 1);
}

static const kiln_finding *refusal(const kiln_model *model, const kiln_shape_range *profile,
                                   size_t n, kiln_status expected, kiln_diag *diag) {
    const kiln_build_options options = with(profile, n);
    kiln_engine *engine = NULL;
    kiln_diag_clear(diag);
    assert_int_equal(kiln_engine_build(&engine, model, &options, diag), expected);
    assert_null(engine);
    return newest(diag);
}

static void expect_refused(const kiln_model *model, const kiln_shape_range *profile, size_t n,
                           const char *words, kiln_diag *diag) {
    const kiln_finding *f = refusal(model, profile, n, KILN_E_USAGE, diag);
    if (!strstr(f->message, words)) {
        print_error("\"%s\" lacks \"%s\"\n", f->message, words);
        fail();
    }
}

static void profiles_that_do_not_fit_are_refused(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_model *model;
    MUST(diag, make_conv(&model, NULL, diag));
    kiln_shape_range r = conv_range;
    r.name = "nobody";
    expect_refused(model, &r, 1, "no tensor input \"nobody\"", diag);
    r = conv_range;
    r.rank = 3;
    expect_refused(model, &r, 1, "has rank 4, its range in the profile has 3", diag);
    r.rank = 99;
    expect_refused(model, &r, 1, "has rank 4, its range in the profile has 99", diag);
    r = conv_range;
    r.opt[0] = 65;
    expect_refused(model, &r, 1, "dim 0 min 2, opt 65, max 64", diag);
    r = conv_range;
    r.min[0] = -1;
    expect_refused(model, &r, 1, "dim 0 min -1", diag);
    r = conv_range;
    r.max[1] = 4;
    expect_refused(model, &r, 1, "dim 1 = 3, the profile gives 3 to 4", diag);
    const kiln_shape_range twice[] = {conv_range, conv_range};
    expect_refused(model, twice, 2, "two ranges for input \"x\"", diag);
    r = conv_range;
    r.max[0] = INT64_MAX;
    assert_string_equal(refusal(model, &r, 1, KILN_E_LIMIT, diag)->code, "E0406");
    expect_refused(model, NULL, 1, "NULL", diag);
    kiln_model_destroy(model);
    kiln_diag_destroy(diag);
}

static void shared_symbols_agree(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    const kiln_shape_range a = {
        .name = "a", .rank = 2, .min = {1, 8}, .opt = {2, 16}, .max = {4, 32}};
    kiln_shape_range both[] = {a, a};
    both[1].name = "b";
    both[1].opt[1] = 17;
    kiln_model *model = two_inputs(&arena, "N,T", diag);
    expect_refused(model, both, 2,
                   "dim 1 of input \"a\" and dim 1 of input \"b\" are both T, the profile gives "
                   "8..16..32 and 8..17..32",
                   diag);
    /* One range says all of the other input too. */
    kiln_engine *engine;
    kiln_build_options options = with(&a, 1);
    MUST(diag, kiln_engine_build(&engine, model, &options, diag));
    for (size_t i = 0; i < 2; i++) {
        kiln_io io;
        assert_true(kiln_engine_input(engine, i, &io) && io.has_range);
        assert_memory_equal(io.min, a.min, sizeof io.min);
        assert_memory_equal(io.opt, a.opt, sizeof io.opt);
        assert_memory_equal(io.max, a.max, sizeof io.max);
    }
    kiln_engine_info info;
    kiln_engine_get_info(engine, &info);
    assert_non_null(strstr(info.command, "--dynamic-shape a:1..2..4x8..16..32"));
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    /* But not of a symbol of its own, or of an unknown rank. */
    model = two_inputs(&arena, "N,U", diag);
    expect_refused(model, &a, 1, "input \"b\" has dynamic dims", diag);
    kiln_model_destroy(model);
    model = two_inputs(&arena, NULL, diag);
    expect_refused(model, &a, 1, "input \"b\" has dynamic dims", diag);
    both[1].opt[1] = 16;
    options = with(both, 2);
    MUST(diag, kiln_engine_build(&engine, model, &options, diag));
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    kiln_arena_free(&arena);
    kiln_diag_destroy(diag);
}

static void the_graph_must_be_possible_at_all_three(void **state) {
    (void)state;
    static const struct {
        int64_t min, opt, max;
        const char *where;
    } rows[] = {{6, 8, 16, "min"}, {4, 9, 16, "opt"}, {4, 8, 18, "max"}};
    kiln_diag *diag = new_diag();
    kiln_model *model;
    MUST(diag, make_reshape(&model, NULL, diag));
    for (size_t i = 0; i < KILN_COUNT_OF(rows); i++) {
        const kiln_shape_range r = {.name = "x",
                                    .rank = 1,
                                    .min = {rows[i].min},
                                    .opt = {rows[i].opt},
                                    .max = {rows[i].max}};
        const kiln_finding *f = refusal(model, &r, 1, KILN_E_MALFORMED, diag);
        assert_string_equal(f->op, "Reshape");
        assert_true(f->node && *f->node);
        assert_non_null(strstr(f->chain, rows[i].where));
    }
    const kiln_shape_range right = {.name = "x", .rank = 1, .min = {4}, .opt = {8}, .max = {16}};
    const kiln_build_options options = with(&right, 1);
    kiln_engine *engine;
    MUST(diag, kiln_engine_build(&engine, model, &options, diag));
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    kiln_diag_destroy(diag);
}

static void a_range_of_one_number_is_that_number(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    kiln_model *model = two_inputs(&arena, "N,T", diag);
    const kiln_shape_range a = {
        .name = "a", .rank = 2, .min = {1, 8}, .opt = {2, 8}, .max = {4, 8}};
    const kiln_build_options options = with(&a, 1);
    kiln_engine *engine;
    kiln_io io;
    MUST(diag, kiln_engine_build(&engine, model, &options, diag));
    assert_true(kiln_engine_input(engine, 1, &io));
    assert_string_equal(io.type, "float32[N,8]");
    assert_true(io.dims[0] == -1 && io.dims[1] == 8);
    assert_true(kiln_engine_output(engine, 0, &io));
    assert_string_equal(io.type, "float32[N,8]");
    assert_false(io.has_range);
    /* The model stays as it was. */
    assert_true(kiln_model_input(model, 0, &io));
    assert_string_equal(io.type, "float32[N,T]");
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    kiln_arena_free(&arena);
    kiln_diag_destroy(diag);
}

/* ---- Files ---- */

static kiln_engine *build_conv(const kiln_shape_range *profile, size_t n, kiln_diag *diag) {
    const kiln_build_options options = with(profile, n);
    kiln_model *model;
    kiln_engine *engine;
    MUST(diag, make_conv(&model, NULL, diag));
    MUST(diag, kiln_engine_build(&engine, model, &options, diag));
    kiln_model_destroy(model);
    return engine;
}

static void check_loaded(kiln_engine *engine, const void *bytes, size_t len, kiln_diag *diag) {
    kiln_io io;
    void *again;
    size_t again_len;
    assert_true(kiln_engine_input(engine, 0, &io) && io.has_range);
    assert_memory_equal(io.min, conv_range.min, sizeof io.min);
    assert_memory_equal(io.opt, conv_range.opt, sizeof io.opt);
    assert_memory_equal(io.max, conv_range.max, sizeof io.max);
    assert_int_equal(run_engine(engine, 65, SEED, NULL, NULL, NULL), KILN_E_USAGE);
    assert_int_equal(run_engine(engine, 1, SEED, NULL, NULL, NULL), KILN_E_USAGE);
    MUST(diag, run_engine(engine, 64, SEED, NULL, NULL, diag));
    MUST(diag, kiln_engine_save_memory(engine, &again, &again_len, diag));
    assert_int_equal(again_len, len);
    assert_memory_equal(again, bytes, len);
    kiln_free(NULL, again, again_len);
    kiln_engine_destroy(engine);
}

static void a_profile_is_kept_in_file_and_memory(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *built = build_conv(&conv_range, 1, diag), *loaded;
    const char *folder = getenv("KILN_TMP");
    char path[512];
    void *bytes;
    size_t len;
    snprintf(path, sizeof path, "%s/profile.kiln", folder ? folder : "/tmp");
    MUST(diag, kiln_engine_save_memory(built, &bytes, &len, diag));
    MUST(diag, kiln_engine_save(built, path, diag));
    MUST(diag, kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag));
    check_loaded(loaded, bytes, len, diag);
    MUST(diag, kiln_engine_load(&loaded, NULL, path, NULL, diag));
    check_loaded(loaded, bytes, len, diag);
    check_loaded(built, bytes, len, diag);
    kiln_free(NULL, bytes, len);
    kiln_diag_destroy(diag);
    unlink(path);
}

/* Readers of format 1 would not heed a profile and must refuse it; all else they still read. */
static void only_profiles_need_the_newer_reader(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    for (size_t n = 0; n < 2; n++) {
        kiln_engine *engine = build_conv(&conv_range, n, diag);
        uint8_t *bytes;
        size_t len;
        MUST(diag, kiln_engine_save_memory(engine, (void **)&bytes, &len, diag));
        assert_int_equal(bytes[FORGE_OLDEST_AT], n == 0 ? 1 : 2);
        kiln_free(NULL, bytes, len);
        kiln_engine_destroy(engine);
    }
    kiln_diag_destroy(diag);
}

/* A file of format 1 is one of format 2 without the end of META: the count of ranges (8 bytes) and
 * that of widened nodes (4). */
enum { FORMAT_2_BYTES = 12 };
static void files_of_format_1_are_read(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_conv(NULL, 0, diag), *loaded;
    uint8_t *bytes;
    size_t len, at = 0, n = 0;
    kiln_io io;
    MUST(diag, kiln_engine_save_memory(engine, (void **)&bytes, &len, diag));
    assert_true(forge_section(bytes, len, KILN_SECTION_META, &at, &n));
    assert_true(forge_get(bytes + at + n - FORMAT_2_BYTES) == 0);
    bytes[FORGE_VERSION_AT] = 1;
    forge_hashes(bytes, len);
    assert_int_equal(kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag), KILN_E_ENGINE);
    forge_put(forge_entry(bytes, KILN_SECTION_META) + 16, n - FORMAT_2_BYTES);
    forge_hashes(bytes, len);
    MUST(diag, kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag));
    assert_true(kiln_engine_input(loaded, 0, &io) && !io.has_range);
    MUST(diag, run_engine(loaded, 65, SEED, NULL, NULL, diag));
    kiln_engine_destroy(loaded);
    kiln_engine_destroy(engine);
    kiln_free(NULL, bytes, len);
    kiln_diag_destroy(diag);
}

/* Every byte of the stored ranges, changed, with the hashes right: refused, or a profile that is
 * one. */
static void forged_profiles_are_refused_or_hold(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_conv(&conv_range, 1, diag);
    uint8_t *bytes;
    size_t len, at = 0, n = 0, refused = 0, accepted = 0;
    MUST(diag, kiln_engine_save_memory(engine, (void **)&bytes, &len, diag));
    assert_true(forge_section(bytes, len, KILN_SECTION_META, &at, &n));
    const size_t stored = 8 + 4 + 4 + 4 * 3 * 8;
    for (size_t i = at + n - stored; i < at + n; i++) {
        static const uint8_t flips[] = {1, 0x80, 0xff};
        for (size_t k = 0; k < KILN_COUNT_OF(flips); k++) {
            kiln_engine *loaded;
            kiln_io io;
            bytes[i] ^= flips[k];
            forge_hashes(bytes, len);
            kiln_diag_clear(diag);
            if (kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag) == KILN_OK) {
                accepted++;
                assert_true(kiln_engine_input(loaded, 0, &io) && io.has_range);
                assert_true(io.min[0] >= 0 && io.min[0] <= io.opt[0] && io.opt[0] <= io.max[0]);
                assert_true(io.min[1] == 3 && io.max[3] == 8);
                (void)run_engine(loaded, 4, SEED, NULL, NULL, NULL);
                kiln_engine_destroy(loaded);
            } else {
                refused++;
                assert_string_equal(newest(diag)->code, "E0601");
            }
            bytes[i] ^= flips[k];
        }
    }
    print_message("%zu forged profiles refused, %zu are profiles\n", refused, accepted);
    assert_true(refused > 200 && accepted > 0);
    kiln_free(NULL, bytes, len);
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
}

/* ---- Running ---- */

static atomic_size_t largest_request;

static void *watch_alloc(void *user, size_t bytes) {
    void *p = NULL;
    (void)user;
    if (bytes > atomic_load(&largest_request)) {
        atomic_store(&largest_request, bytes);
    }
    return posix_memalign(&p, 64, bytes) == 0 ? p : NULL;
}

static void watch_release(void *user, void *ptr, size_t bytes) {
    (void)user;
    (void)bytes;
    free(ptr);
}

typedef struct world {
    kiln_env *env;
    kiln_diag *diag;
    kiln_engine *engine;
    kiln_context *context;
    input_set inputs; /* batch 80 */
} world;

static world open_world(size_t n_profile) {
    const kiln_allocator allocator = {watch_alloc, watch_release, NULL};
    const kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
    const kiln_context_options one = {.size = sizeof one, .threads = 1};
    const kiln_build_options build = with(&conv_range, n_profile);
    world w = {.diag = new_diag()};
    kiln_model *model;
    MUST(w.diag, kiln_env_create(&w.env, &options));
    MUST(w.diag, make_conv(&model, w.env, w.diag));
    MUST(w.diag, kiln_engine_build(&w.engine, model, &build, w.diag));
    kiln_model_destroy(model);
    MUST(w.diag, kiln_context_create(&w.context, w.engine, &one, w.diag));
    assert_true(make_inputs(&w.inputs, w.engine, 80, SEED, SIZE_MAX / 2));
    return w;
}

static void close_world(world *w) {
    kiln_context_destroy(w->context);
    kiln_engine_destroy(w->engine);
    kiln_env_destroy(w->env);
    kiln_diag_destroy(w->diag);
    free_inputs(&w->inputs);
}

static kiln_status run_batch(world *w, int64_t batch) {
    kiln_tensor t = w->inputs.tensors[0];
    t.dims[0] = batch;
    kiln_diag_clear(w->diag);
    KILN_TRY(kiln_context_bind(w->context, "x", &t, w->diag));
    return kiln_context_run(w->context, w->diag);
}

static void shapes_outside_are_refused_in_words(void **state) {
    (void)state;
    world w = open_world(1);
    kiln_tensor flat = {.dtype = KILN_DTYPE_F32, .rank = 1, .dims = {8}};
    MUST(w.diag, run_batch(&w, 5));
    assert_int_equal(run_batch(&w, 65), KILN_E_USAGE);
    const kiln_finding *f = newest(w.diag);
    assert_string_equal(f->code, "E0702");
    assert_string_equal(f->message, "input \"x\" has dim 0 = 65, the engine's profile has 2 to 64");
    assert_non_null(strstr(f->hint, "--dynamic-shape x:"));
    assert_int_equal(run_batch(&w, 1), KILN_E_USAGE);
    assert_int_equal(kiln_context_bind(w.context, "x", &flat, w.diag), KILN_E_USAGE);
    kiln_tensor wide = w.inputs.tensors[0];
    wide.dims[0] = 5;
    wide.dims[3] = 9;
    assert_int_equal(kiln_context_bind(w.context, "x", &wide, w.diag), KILN_E_USAGE);
    assert_string_equal(newest(w.diag)->message,
                        "input \"x\" has dim 3 = 9, the engine's profile has 8");
    /* What was bound before is still. */
    MUST(w.diag, kiln_context_run(w.context, w.diag));
    assert_int_equal(kiln_context_output(w.context, 0)->dims[0], 5);
    MUST(w.diag, run_batch(&w, 2));
    MUST(w.diag, run_batch(&w, 64));
    close_world(&w);
}

/* At creation there is room for max: later shapes ask for small pieces, never for activations. */
static void a_profile_makes_room_at_creation(void **state) {
    (void)state;
    static const int64_t batches[] = {64, 2, 33, 47, 5, 64, 63, 62, 61, 60, 59};
    world ranged = open_world(1), free_world = open_world(0);
    size_t room = kiln_context_memory(ranged.context, NULL);
    assert_int_equal(kiln_context_memory(free_world.context, NULL), 0);
    /* Batch 64 needs its convolution's output at least. */
    assert_true(room > 64 * 8 * 8 * 8 * sizeof(float));
    atomic_store(&largest_request, 0);
    for (size_t i = 0; i < KILN_COUNT_OF(batches); i++) {
        MUST(ranged.diag, run_batch(&ranged, batches[i]));
        assert_int_equal(kiln_context_output(ranged.context, 0)->dims[0], batches[i]);
        assert_int_equal(kiln_context_memory(ranged.context, NULL), room);
        assert_true(i > 0 || atomic_load(&largest_request) == 0);
    }
    assert_true(atomic_load(&largest_request) < 16 << 10);
    /* Without one the activations come with the shapes. */
    MUST(free_world.diag, run_batch(&free_world, 2));
    size_t small = kiln_context_memory(free_world.context, NULL);
    atomic_store(&largest_request, 0);
    MUST(free_world.diag, run_batch(&free_world, 64));
    assert_true(kiln_context_memory(free_world.context, NULL) > small);
    assert_true(atomic_load(&largest_request) > 64 * 8 * 8 * 8 * sizeof(float));
    close_world(&ranged);
    close_world(&free_world);
}

static void max_beyond_the_memory_limit_is_refused_at_creation(void **state) {
    (void)state;
    const kiln_limits limits = {.size = sizeof limits, .memory_bytes = 64 << 10};
    const kiln_env_options options = {.size = sizeof options, .limits = &limits};
    const kiln_build_options build = with(&conv_range, 1);
    kiln_diag *diag = new_diag();
    kiln_env *env;
    kiln_model *model;
    kiln_engine *engine;
    kiln_context *context = NULL;
    MUST(diag, kiln_env_create(&env, &options));
    MUST(diag, make_conv(&model, env, diag));
    MUST(diag, kiln_engine_build(&engine, model, &build, diag));
    assert_int_equal(kiln_context_create(&context, engine, NULL, diag), KILN_E_LIMIT);
    assert_null(context);
    assert_non_null(strstr(newest(diag)->chain, "max"));
    kiln_model_destroy(model);
    kiln_engine_destroy(engine);
    kiln_env_destroy(env);
    kiln_diag_destroy(diag);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profiles_that_do_not_fit_are_refused),
        cmocka_unit_test(shared_symbols_agree),
        cmocka_unit_test(the_graph_must_be_possible_at_all_three),
        cmocka_unit_test(a_range_of_one_number_is_that_number),
        cmocka_unit_test(a_profile_is_kept_in_file_and_memory),
        cmocka_unit_test(only_profiles_need_the_newer_reader),
        cmocka_unit_test(files_of_format_1_are_read),
        cmocka_unit_test(forged_profiles_are_refused_or_hold),
        cmocka_unit_test(shapes_outside_are_refused_in_words),
        cmocka_unit_test(a_profile_makes_room_at_creation),
        cmocka_unit_test(max_beyond_the_memory_limit_is_refused_at_creation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
