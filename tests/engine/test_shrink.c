/* Files cut off while they are in use: with `no_mmap` an engine, and a model with its external
 * data, go on as if nothing had happened. Mapped ones cannot, which is what their contract says;
 * that they die of it here shows that the files' bytes were still needed. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/samples.h"

enum { BATCH = 2, SEED = 5, SAME = 0, DIFFERS = 1, BROKEN = 2 };

static char engine_path[512], model_path[512], data_path[520];

static int write_files(void **state) {
    (void)state;
    const char *folder = getenv("KILN_TMP");
    folder = folder ? folder : "/tmp";
    snprintf(engine_path, sizeof engine_path, "%s/shrink.kiln", folder);
    snprintf(model_path, sizeof model_path, "%s/shrink.onnx", folder);
    snprintf(data_path, sizeof data_path, "%s.data", model_path);
    kiln_engine *engine = build_sample(0, NULL);
    kiln_status status = kiln_engine_save(engine, engine_path, NULL);
    status = status ? status : kiln_engine_export(engine, model_path, 1, NULL);
    kiln_engine_destroy(engine);
    return status ? -1 : access(data_path, R_OK);
}

static int remove_files(void **state) {
    (void)state;
    remove(engine_path);
    remove(model_path);
    remove(data_path);
    return 0;
}

static kiln_status load_engine(kiln_engine **out, bool copy, bool cut) {
    const kiln_load_options options = {.size = sizeof options, .no_mmap = copy};
    kiln_status status = kiln_engine_load(out, NULL, engine_path, &options, NULL);
    return !status && cut && truncate(engine_path, 0) ? KILN_E_IO : status;
}

/* Built after the cut. */
static kiln_status load_model(kiln_engine **out, bool copy, bool cut) {
    const kiln_model_options options = {.size = sizeof options, .no_mmap = copy};
    kiln_model *model;
    KILN_TRY(kiln_model_load(&model, NULL, model_path, &options, NULL));
    kiln_status status =
        cut && (truncate(model_path, 0) || truncate(data_path, 0)) ? KILN_E_IO : KILN_OK;
    status = status ? status : kiln_engine_build(out, model, NULL, NULL);
    kiln_model_destroy(model);
    return status;
}

typedef kiln_status load_fn(kiln_engine **out, bool copy, bool cut);

static int compare(load_fn *load, bool copy) {
    kiln_engine *whole, *cut;
    outcome a = {0}, b = {0};
    if (load(&whole, copy, false) || run_engine(whole, BATCH, SEED, NULL, &a, NULL) ||
        load(&cut, copy, true) || run_engine(cut, BATCH, SEED, NULL, &b, NULL)) {
        return BROKEN;
    }
    int result = same_outcome(&a, &b) ? SAME : DIFFERS;
    free_outcome(&a);
    free_outcome(&b);
    kiln_engine_destroy(whole);
    kiln_engine_destroy(cut);
    return result;
}

/* In a process of its own, which may die. */
static int compare_apart(load_fn *load, bool copy) {
    int status = -1;
    assert_int_equal(write_files(NULL), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGBUS, SIG_DFL);
        _exit(compare(load, copy));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void copies_outlive_their_files(void **state) {
    (void)state;
    assert_int_equal(compare_apart(load_engine, true), SAME);
    assert_int_equal(compare_apart(load_model, true), SAME);
}

static void mapped_files_must_stay(void **state) {
    (void)state;
    /* The signal, or the exit status of a sanitizer that catches it. */
    assert_int_not_equal(compare_apart(load_engine, false), SAME);
    assert_int_not_equal(compare_apart(load_model, false), SAME);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_outlive_their_files),
        cmocka_unit_test(mapped_files_must_stay),
    };
    return cmocka_run_group_tests(tests, NULL, remove_files);
}
