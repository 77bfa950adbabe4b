/* Importing a model with 200 MB of external data peaks below 2 x file + 64 MiB of resident
 * memory, mapped pages included. The model is written here, by hand, and read in a process of its
 * own.
 *
 * ctest-labels: zoo
 * ctest-timeout: 600 */
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "engine/samples.h"
#include "onnx/wire.h"

enum { TENSORS = 50, ROWS = 1000, COLUMNS = 1000, SLACK_KIB = 64 << 10 };

#define TENSOR_BYTES ((size_t)ROWS * COLUMNS * sizeof(float))

static void scratch_path(char *path, size_t cap, const char *name) {
    const char *folder = getenv("KILN_TMP");
    snprintf(path, cap, "%s/%s", folder ? folder : "/tmp", name);
}

/* Field numbers are those of onnx.proto. */
static void put_value_info(kiln_out *out, uint32_t field, const char *name) {
    size_t value = kiln_out_begin(out, field);
    kiln_out_text(out, 1, name);
    size_t type = kiln_out_begin(out, 2), tensor = kiln_out_begin(out, 1);
    kiln_out_varint(out, 1, KILN_DTYPE_F32);
    size_t shape = kiln_out_begin(out, 2);
    for (int d = 0; d < 2; d++) {
        size_t dim = kiln_out_begin(out, 1);
        kiln_out_varint(out, 1, d == 0 ? 1 : COLUMNS);
        kiln_out_end(out, dim);
    }
    kiln_out_end(out, shape);
    kiln_out_end(out, tensor);
    kiln_out_end(out, type);
    kiln_out_end(out, value);
}

static void put_entry(kiln_out *out, const char *key, const char *value) {
    size_t entry = kiln_out_begin(out, 13);
    kiln_out_text(out, 1, key);
    kiln_out_text(out, 2, value);
    kiln_out_end(out, entry);
}

static void put_layer(kiln_out *out, int i) {
    char weight[32], from[32], to[32], offset[32], length[32];
    snprintf(weight, sizeof weight, "w%d", i);
    snprintf(from, sizeof from, i ? "h%d" : "x", i);
    snprintf(to, sizeof to, i + 1 < TENSORS ? "h%d" : "y", i + 1);
    snprintf(offset, sizeof offset, "%zu", (size_t)i * TENSOR_BYTES);
    snprintf(length, sizeof length, "%zu", TENSOR_BYTES);
    size_t node = kiln_out_begin(out, 1);
    kiln_out_text(out, 1, from);
    kiln_out_text(out, 1, weight);
    kiln_out_text(out, 2, to);
    kiln_out_text(out, 4, "MatMul");
    kiln_out_end(out, node);
    size_t tensor = kiln_out_begin(out, 5);
    kiln_out_varint(out, 1, ROWS);
    kiln_out_varint(out, 1, COLUMNS);
    kiln_out_varint(out, 2, KILN_DTYPE_F32);
    kiln_out_text(out, 8, weight);
    put_entry(out, "location", "large.data");
    put_entry(out, "offset", offset);
    put_entry(out, "length", length);
    kiln_out_varint(out, 14, 1);
    kiln_out_end(out, tensor);
}

static size_t write_model(const char *path) {
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    kiln_out out = {.arena = &arena};
    kiln_out_varint(&out, 1, 8);
    size_t graph = kiln_out_begin(&out, 7);
    kiln_out_text(&out, 2, "large");
    for (int i = 0; i < TENSORS; i++) {
        put_layer(&out, i);
    }
    put_value_info(&out, 11, "x");
    put_value_info(&out, 12, "y");
    kiln_out_end(&out, graph);
    size_t opset = kiln_out_begin(&out, 8);
    kiln_out_varint(&out, 2, 17);
    kiln_out_end(&out, opset);
    assert_false(out.failed);
    FILE *file = fopen(path, "wb");
    assert_true(file && fwrite(out.data, 1, out.len, file) == out.len && fclose(file) == 0);
    size_t len = out.len;
    kiln_arena_free(&arena);
    return len;
}

static size_t write_data(const char *path) {
    uint32_t block[16384], state = 1;
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t done = 0; done < TENSORS * TENSOR_BYTES; done += sizeof block) {
        for (size_t i = 0; i < KILN_COUNT_OF(block); i++) {
            state = state * 1664525u + 1013904223u;
            block[i] = 0x3c000000u | state >> 9; /* floats near 0.01 */
        }
        assert_int_equal(fwrite(block, sizeof block, 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (size_t)st.st_size;
}

static long peak_kib(void) {
    char line[256];
    long peak = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        if (sscanf(line, "VmHWM: %ld", &peak) == 1) {
            break;
        }
    }
    if (status) {
        fclose(status);
    }
    return peak;
}

/* The child: loads, and writes its peak. `read_all`: copies instead of mapping, so that all of
 * the data is resident. */
static int load_and_measure(const char *path, bool copy) {
    const kiln_model_options options = {.size = sizeof options, .no_mmap = copy};
    kiln_model *model;
    kiln_diag *diag = new_diag();
    if (kiln_model_load(&model, NULL, path, &options, diag) != KILN_OK) {
        show(diag);
        return 1;
    }
    kiln_model_info info;
    kiln_model_get_info(model, &info);
    bool complete = info.parameters == (size_t)TENSORS * ROWS * COLUMNS;
    kiln_model_destroy(model);
    kiln_diag_destroy(diag);
    printf("%ld\n", peak_kib());
    return complete ? 0 : 1;
}

static long peak_of_import(const char *path, const char *mode) {
    char command[8192], exe[512];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    assert_true(n > 0);
    exe[n] = 0;
    snprintf(command, sizeof command, "'%s' %s '%s'", exe, mode, path);
    FILE *child = popen(command, "r");
    long peak = -1;
    assert_non_null(child);
    assert_int_equal(fscanf(child, "%ld", &peak), 1);
    assert_int_equal(pclose(child), 0);
    return peak;
}

static void import_stays_below_twice_the_file(void **state) {
    (void)state;
    char model[512], data[512];
    scratch_path(model, sizeof model, "large.onnx");
    scratch_path(data, sizeof data, "large.data");
    long file_kib = (long)((write_model(model) + write_data(data)) / 1024);
    assert_true(file_kib > 190000);
    static const char *const modes[] = {"map", "copy"};
    for (size_t i = 0; i < KILN_COUNT_OF(modes); i++) {
        long peak = peak_of_import(model, modes[i]);
        print_message("%s: file %ld KiB, peak %ld KiB (%.2f x)\n", modes[i], file_kib, peak,
                      (double)peak / (double)file_kib);
        assert_true(peak > 0 && peak < 2 * file_kib + SLACK_KIB);
        /* What is read into memory is seen by the measure. */
        assert_true(i == 0 || peak > file_kib);
    }
    unlink(model);
    unlink(data);
}

int main(int argc, char **argv) {
    if (argc == 3) {
        return load_and_measure(argv[2], strcmp(argv[1], "copy") == 0);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(import_stays_below_twice_the_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
