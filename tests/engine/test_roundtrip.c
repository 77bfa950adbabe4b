/* An engine saved and loaded, from a file or from memory, gives the same bits as the one that was
 * built; building again gives the same bytes; other instruction sets and versions are refused by
 * name. */
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/forge.h"
#include "engine/samples.h"

enum { BATCH = 3, SEED = 11, SMALL_WORKSPACE = 8 << 10 };

static void *saved(const kiln_engine *engine, size_t *len) {
    kiln_diag *diag = new_diag();
    void *bytes;
    MUST(diag, kiln_engine_save_memory(engine, &bytes, len, diag));
    kiln_diag_destroy(diag);
    return bytes;
}

static void scratch_path(char *path, size_t cap, const char *name) {
    const char *folder = getenv("KILN_TMP");
    snprintf(path, cap, "%s/%s", folder ? folder : "/tmp", name);
}

/* Runs of two engines on two inputs agree bit for bit, and the inputs matter. */
static void expect_same(const kiln_engine *a, const kiln_engine *b, kiln_diag *diag) {
    outcome x = {0}, y = {0}, other = {0};
    MUST(diag, run_engine(a, BATCH, SEED, NULL, &x, diag));
    MUST(diag, run_engine(b, BATCH, SEED, NULL, &y, diag));
    MUST(diag, run_engine(b, BATCH, SEED + 1, NULL, &other, diag));
    assert_true(same_outcome(&x, &y));
    assert_false(same_outcome(&x, &other));
    free_outcome(&x);
    free_outcome(&y);
    free_outcome(&other);
}

static void check_round_trip(size_t i, const kiln_build_options *options) {
    kiln_diag *diag = new_diag();
    kiln_engine *built = build_sample(i, options), *from_memory, *from_file;
    const kiln_load_options verify = {.size = sizeof verify, .verify = true, .no_mmap = i % 2 == 0};
    char path[512];
    size_t len, again_len;
    void *bytes = saved(built, &len);
    assert_true(kiln_engine_recognize(bytes, len));
    MUST(diag, kiln_engine_load_memory(&from_memory, NULL, bytes, len, &verify, diag));
    scratch_path(path, sizeof path, "sample.kiln");
    MUST(diag, kiln_engine_save(built, path, diag));
    MUST(diag, kiln_engine_load(&from_file, NULL, path, &verify, diag));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, len);
    expect_same(built, from_memory, diag);
    expect_same(built, from_file, diag);
    /* A loaded engine can be saved again, and is the same. */
    void *again = saved(from_file, &again_len);
    assert_int_equal(again_len, len);
    assert_memory_equal(again, bytes, len);
    kiln_free(NULL, again, again_len);
    kiln_engine_destroy(from_file);
    kiln_engine_destroy(from_memory);
    kiln_engine_destroy(built);
    kiln_free(NULL, bytes, len);
    kiln_diag_destroy(diag);
    unlink(path);
}

static void same_bits_after_loading(void **state) {
    (void)state;
    const kiln_build_options portable = {.size = sizeof portable, .portable = true};
    for (size_t i = 0; i < N_SAMPLES; i++) {
        check_round_trip(i, NULL);
        check_round_trip(i, &portable);
    }
}

static void rebuilding_gives_the_same_bytes(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        kiln_engine *a = build_sample(i, NULL), *b = build_sample(i, NULL);
        size_t a_len, b_len;
        void *a_bytes = saved(a, &a_len), *b_bytes = saved(b, &b_len);
        assert_int_equal(a_len, b_len);
        assert_memory_equal(a_bytes, b_bytes, a_len);
        kiln_free(NULL, a_bytes, a_len);
        kiln_free(NULL, b_bytes, b_len);
        kiln_engine_destroy(a);
        kiln_engine_destroy(b);
    }
}

/* The instruction sets below the best of this machine, "portable" among them. */
static size_t lower_sets(const char **names, size_t cap) {
    static const char *const all[] = {"portable", "avx2", "avx512"};
    size_t n = 0;
    kiln_engine *best = build_sample(1, NULL);
    kiln_engine_info info;
    kiln_engine_get_info(best, &info);
    for (size_t i = 0; i < KILN_COUNT_OF(all) && n < cap && strcmp(all[i], info.isa) != 0; i++) {
        names[n++] = all[i];
    }
    kiln_engine_destroy(best);
    return n;
}

/* Replaces the first text `from` in a section of the engine's file by one of the same length,
 * hashes right. */
static bool rename_in(uint8_t *bytes, size_t len, kiln_section_kind section, const char *from,
                      const char *to) {
    size_t at = 0, n = 0, k = strlen(from);
    assert_int_equal(k, strlen(to));
    assert_true(forge_section(bytes, len, section, &at, &n));
    for (size_t i = at; i + k <= at + n; i++) {
        if (memcmp(bytes + i, from, k) == 0) {
            memcpy(bytes + i, to, k);
            forge_hashes(bytes, len);
            return true;
        }
    }
    return false;
}

static const kiln_finding *newest(const kiln_diag *diag) {
    size_t n = kiln_diag_count(diag);
    assert_true(n > 0);
    return kiln_diag_get(diag, n - 1);
}

static void engines_of_lower_sets_run(void **state) {
    (void)state;
    const char *names[4];
    size_t n = lower_sets(names, KILN_COUNT_OF(names));
    kiln_diag *diag = new_diag();
    for (size_t i = 0; i < n; i++) {
        const kiln_build_options options = {.size = sizeof options, .max_isa = names[i]};
        kiln_engine *built = build_sample(1, &options), *loaded;
        kiln_engine_info info;
        size_t len;
        void *bytes = saved(built, &len);
        MUST(diag, kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag));
        kiln_engine_get_info(loaded, &info);
        assert_string_equal(info.isa, names[i]);
        expect_same(built, loaded, diag);
        kiln_engine_destroy(loaded);
        kiln_engine_destroy(built);
        kiln_free(NULL, bytes, len);
    }
    kiln_diag_destroy(diag);
}

/* The sample's engine as bytes that name an instruction set this machine has not. */
static uint8_t *foreign(bool portable, size_t *len) {
    const kiln_build_options options = {.size = sizeof options, .portable = portable};
    kiln_engine *built = build_sample(1, &options);
    kiln_engine_info info;
    kiln_engine_get_info(built, &info);
    uint8_t *bytes = saved(built, len);
    static const char *const absent[] = {"neon", "avx9", "avx999", "foreigns"};
    bool done = false;
    for (size_t i = 0; i < KILN_COUNT_OF(absent) && !done; i++) {
        done = strlen(absent[i]) == strlen(info.isa) &&
               rename_in(bytes, *len, KILN_SECTION_META, info.isa, absent[i]);
    }
    kiln_engine_destroy(built);
    assert_true(done);
    return bytes;
}

static void unknown_sets_are_refused(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *loaded = NULL;
    size_t len;
    uint8_t *bytes = foreign(false, &len);
    assert_int_equal(kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag), KILN_E_ENGINE);
    assert_null(loaded);
    kiln_free(NULL, bytes, len);
    kiln_diag_destroy(diag);
}

static size_t sample_named(const char *name) {
    size_t i = 0;
    while (strcmp(samples[i].name, name) != 0) {
        i++;
    }
    return i;
}

/* The last layer that convolves. */
static kiln_layer last_conv(const kiln_engine *engine) {
    kiln_layer layer, last = {0};
    for (size_t i = 0; kiln_engine_layer(engine, i, &layer); i++) {
        last = strncmp(layer.ops, "Conv", 4) == 0 ? layer : last;
    }
    assert_non_null(last.name);
    return last;
}

/* Scratch of a context of one thread, at batch 1. */
static size_t scratch_of(const kiln_engine *engine) {
    const kiln_context_options one = {.size = sizeof one, .threads = 1};
    kiln_diag *diag = new_diag();
    kiln_context *context;
    input_set in;
    size_t bytes;
    MUST(diag, kiln_context_create(&context, engine, &one, diag));
    assert_true(make_inputs(&in, engine, 1, SEED, SIZE_MAX / 2));
    MUST(diag, bind_inputs(context, &in, diag));
    MUST(diag, kiln_context_run(context, diag));
    (void)kiln_context_memory(context, &bytes);
    free_inputs(&in);
    kiln_context_destroy(context);
    kiln_diag_destroy(diag);
    return bytes;
}

/* What a machine without the instructions says: run in a process of its own, in which
 * KILN_MAX_ISA is set from the start. */
static void load_on_a_lesser_machine(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *loaded = NULL;
    kiln_engine_info info;
    char path[512];
    scratch_path(path, sizeof path, "fixed.kiln");
    assert_int_equal(kiln_engine_load(&loaded, NULL, path, NULL, diag), KILN_E_ENGINE);
    assert_null(loaded);
    assert_string_equal(newest(diag)->code, "E0603");
    assert_non_null(strstr(newest(diag)->message, "portable"));
    assert_non_null(strstr(newest(diag)->hint, "kiln build"));
    kiln_diag_clear(diag);
    scratch_path(path, sizeof path, "portable.kiln");
    MUST(diag, kiln_engine_load(&loaded, NULL, path, NULL, diag));
    assert_int_equal(newest(diag)->severity, KILN_SEV_WARNING);
    kiln_engine_get_info(loaded, &info);
    assert_string_equal(info.isa, "portable");
    kiln_engine *small;
    scratch_path(path, sizeof path, "small.kiln");
    MUST(diag, kiln_engine_load(&small, NULL, path, NULL, diag));
    assert_true(scratch_of(small) <= SMALL_WORKSPACE);
    kiln_engine_destroy(small);
    kiln_engine *exact;
    scratch_path(path, sizeof path, "exact.kiln");
    MUST(diag, kiln_engine_load(&exact, NULL, path, NULL, diag));
    assert_string_equal(last_conv(exact).kernel, "conv_f32");
    kiln_engine_destroy(exact);
    kiln_engine *built = build_sample(0, NULL);
    expect_same(loaded, built, diag);
    kiln_engine_destroy(built);
    kiln_engine_destroy(loaded);
    kiln_diag_destroy(diag);
}

static void save_sample(const char *name, size_t which, kiln_build_options options) {
    options.size = sizeof options;
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_sample(which, &options);
    char path[512];
    scratch_path(path, sizeof path, name);
    MUST(diag, kiln_engine_save(engine, path, diag));
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
}

static void other_sets_are_refused_or_planned_again(void **state) {
    (void)state;
    const char *names[4];
    if (lower_sets(names, KILN_COUNT_OF(names)) == 0) {
        print_message("this machine has no instruction set below its best\n");
        return;
    }
    const size_t winograd = sample_named("winograd");
    const kiln_build_options fixed = {0}, portable = {.portable = true};
    const kiln_build_options exact = {.portable = true, .exact = true};
    const kiln_build_options small = {.portable = true, .workspace_bytes = SMALL_WORKSPACE};
    save_sample("fixed.kiln", 0, fixed);
    save_sample("portable.kiln", 0, portable);
    save_sample("exact.kiln", winograd, exact);
    save_sample("small.kiln", winograd, small);
    pid_t child = fork();
    if (child == 0) {
        setenv("KILN_MAX_ISA", "portable", 1);
        execl("/proc/self/exe", "test_roundtrip", "lesser", (char *)NULL);
        _exit(127);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void newer_versions_are_refused_by_name(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *built = build_sample(1, NULL), *loaded = NULL;
    size_t len;
    uint8_t *bytes = saved(built, &len);
    /* Newer, but readable by this version: what is in it decides. */
    bytes[FORGE_VERSION_AT] = KILN_FORMAT_VERSION + 5;
    forge_hashes(bytes, len);
    MUST(diag, kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag));
    kiln_engine_destroy(loaded);
    loaded = NULL;
    bytes[FORGE_OLDEST_AT] = KILN_FORMAT_VERSION + 5;
    forge_hashes(bytes, len);
    assert_int_equal(kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag), KILN_E_ENGINE);
    assert_null(loaded);
    assert_string_equal(newest(diag)->code, "E0602");
    char words[32];
    snprintf(words, sizeof words, "format %d", KILN_FORMAT_VERSION + 5);
    assert_non_null(strstr(newest(diag)->message, words));
    assert_non_null(strstr(newest(diag)->message, kiln_version()));
    assert_non_null(strstr(newest(diag)->hint, "kiln build"));
    /* Such a file is still recognized as an engine, whatever follows its first bytes. */
    memset(bytes + 8, 0xff, len - 8);
    assert_true(kiln_engine_recognize(bytes, len));
    assert_false(kiln_engine_recognize(bytes, 7));
    kiln_free(NULL, bytes, len);
    kiln_engine_destroy(built);
    kiln_diag_destroy(diag);
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The best of ten loads of the small network; the bound is far above what it takes, and far below
 * building. */
static void loading_takes_milliseconds(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *built = build_sample(0, NULL);
    char path[512];
    double best = 1e9;
    scratch_path(path, sizeof path, "time.kiln");
    MUST(diag, kiln_engine_save(built, path, diag));
    for (int k = 0; k < 10; k++) {
        kiln_engine *loaded;
        kiln_context *context;
        const kiln_context_options one = {.size = sizeof one, .threads = 1};
        double start = now_ms();
        MUST(diag, kiln_engine_load(&loaded, NULL, path, NULL, diag));
        MUST(diag, kiln_context_create(&context, loaded, &one, diag));
        double took = now_ms() - start;
        best = took < best ? took : best;
        kiln_context_destroy(context);
        kiln_engine_destroy(loaded);
    }
    print_message("load and context: %.2f ms\n", best);
    assert_true(best < 50);
    unlink(path);
    kiln_engine_destroy(built);
    kiln_diag_destroy(diag);
}

/* A file says which tactic its weights are packed for; another one, or none of the kernel's, is
 * refused. */
static void files_keep_tactics(void **state) {
    (void)state;
    static const char *const wrong[] = {"conv_winograd_f32/f43", "conv_winograd_f32/f99"};
    const size_t which = sample_named("winograd");
    kiln_engine *by_rules = build_sample(which, NULL), *loaded;
    const kiln_way f23 = {
        .layer = last_conv(by_rules).name, .kernel = "conv_winograd_f32", .tactic = "f23"};
    const kiln_build_options options = {.size = sizeof options, .choices = &f23, .n_choices = 1};
    kiln_engine *built = build_sample(which, &options);
    kiln_diag *diag = new_diag();
    for (size_t i = 0; i < KILN_COUNT_OF(wrong); i++) {
        size_t len;
        void *bytes = saved(built, &len);
        assert_true(rename_in(bytes, len, KILN_SECTION_PLAN, "conv_winograd_f32/f23", wrong[i]));
        assert_int_equal(kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag),
                         KILN_E_ENGINE);
        kiln_free(NULL, bytes, len);
    }
    kiln_engine_destroy(built);
    kiln_engine_destroy(by_rules);
    kiln_diag_destroy(diag);
}

/* Why a kernel did not take the engine's last convolution. */
static const char *why_not(const kiln_engine *engine, const char *word) {
    const char *why, *found = NULL;
    for (size_t i = 0; (why = kiln_engine_refusal(engine, last_conv(engine).name, i)); i++) {
        found = strstr(why, word) ? why : found;
    }
    return found;
}

/* The first reason, of any layer, that a way needs too much memory; "": there is none. */
static const char *why_any(const kiln_engine *engine) {
    kiln_layer layer;
    const char *why;
    for (size_t i = 0; kiln_engine_layer(engine, i, &layer); i++) {
        for (size_t k = 0; (why = kiln_engine_refusal(engine, layer.name, k)); k++) {
            if (strstr(why, "beside its operands")) {
                return why;
            }
        }
    }
    return "";
}

/* By rules a convolution runs directly where that is expected to be faster, and says so. */
static void small_convolutions_run_directly(void **state) {
    (void)state;
    kiln_engine *engine = build_sample(sample_named("conv"), NULL);
    assert_string_equal(last_conv(engine).kernel, "conv_f32");
    assert_non_null(why_not(engine, "not expected to gain"));
    kiln_engine_destroy(engine);
}

/* `exact` leaves out the kernel that approximates, says so, and is kept in the file. */
static void exact_engines_stay_exact(void **state) {
    (void)state;
    const kiln_build_options exact = {.size = sizeof exact, .exact = true};
    const size_t which = sample_named("winograd");
    kiln_diag *diag = new_diag();
    kiln_engine *fast = build_sample(which, NULL), *built = build_sample(which, &exact), *loaded;
    kiln_engine_info info;
    size_t len;
    assert_string_equal(last_conv(fast).kernel, "conv_winograd_f32");
    assert_string_equal(last_conv(built).kernel, "conv_f32");
    assert_non_null(why_not(built, "approximates"));
    void *bytes = saved(built, &len);
    MUST(diag, kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag));
    kiln_engine_get_info(loaded, &info);
    assert_non_null(strstr(info.command, " --exact"));
    expect_same(built, loaded, diag);
    kiln_engine_destroy(loaded);
    kiln_engine_destroy(built);
    kiln_engine_destroy(fast);
    kiln_free(NULL, bytes, len);
    kiln_diag_destroy(diag);
}

/* Least memory leaves out the kernel that packs weights into more bytes, says so, and is kept. */
static void small_engines_stay_small(void **state) {
    (void)state;
    const kiln_build_options options = {.size = sizeof options, .goal = KILN_GOAL_MEMORY};
    const size_t which = sample_named("winograd");
    kiln_diag *diag = new_diag();
    kiln_engine *fast = build_sample(which, NULL), *built = build_sample(which, &options), *loaded;
    kiln_engine_info info, large;
    size_t len;
    assert_string_equal(last_conv(built).kernel, "conv_f32");
    assert_non_null(why_not(built, "packs weights"));
    kiln_engine_get_info(fast, &large);
    kiln_engine_get_info(built, &info);
    assert_true(info.weight_bytes < large.weight_bytes);
    void *bytes = saved(built, &len);
    MUST(diag, kiln_engine_load_memory(&loaded, NULL, bytes, len, NULL, diag));
    kiln_engine_get_info(loaded, &info);
    assert_non_null(strstr(info.command, " --goal memory"));
    expect_same(built, loaded, diag);
    kiln_engine_destroy(loaded);
    kiln_engine_destroy(built);
    kiln_engine_destroy(fast);
    kiln_free(NULL, bytes, len);
    kiln_diag_destroy(diag);
}

/* Ways that need more than the workspace are refused by name, one after the other, until layers
 * need no more or have no way left. */
static void workspaces_are_kept(void **state) {
    (void)state;
    const size_t which = sample_named("winograd");
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_sample(which, NULL);
    kiln_build_options options = {.size = sizeof options, .workspace_bytes = scratch_of(engine)};
    const size_t most = options.workspace_bytes;
    size_t steps = 0;
    kiln_status status = KILN_OK;
    kiln_engine_destroy(engine);
    kiln_model *model;
    MUST(diag, samples[which].make(&model, NULL, diag));
    while (status == KILN_OK) {
        status = kiln_engine_build(&engine, model, &options, diag);
        if (status == KILN_OK) {
            const size_t got = scratch_of(engine);
            assert_true(got <= options.workspace_bytes);
            assert_true(steps == 0 ? got == most
                                   : !!strstr(why_any(engine), "beside its operands"));
            options.workspace_bytes = got - 1;
            steps++;
            kiln_engine_destroy(engine);
        }
    }
    assert_true(steps > 1);
    assert_int_equal(status, KILN_E_LIMIT);
    assert_non_null(strstr(newest(diag)->message, "at least"));
    kiln_model_destroy(model);
    kiln_diag_destroy(diag);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "lesser") == 0) {
        const struct CMUnitTest lesser[] = {cmocka_unit_test(load_on_a_lesser_machine)};
        return cmocka_run_group_tests(lesser, NULL, NULL);
    }
    unsetenv("KILN_MAX_ISA");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_after_loading),
        cmocka_unit_test(rebuilding_gives_the_same_bytes),
        cmocka_unit_test(engines_of_lower_sets_run),
        cmocka_unit_test(unknown_sets_are_refused),
        cmocka_unit_test(other_sets_are_refused_or_planned_again),
        cmocka_unit_test(newer_versions_are_refused_by_name),
        cmocka_unit_test(loading_takes_milliseconds),
        cmocka_unit_test(files_keep_tactics),
        cmocka_unit_test(small_convolutions_run_directly),
        cmocka_unit_test(exact_engines_stay_exact),
        cmocka_unit_test(small_engines_stay_small),
        cmocka_unit_test(workspaces_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
