/* Every file of tests/golden/bad gives the finding that expected.txt names, and no prefix or
 * flipped bit of the small ones does worse than be refused. */
#include "test_onnx_common.h"

#define FOLDER "tests/golden/bad/"
enum { SMALL = 600 };

typedef void each_fn(const char *path, const char *code, int *bad);

static int for_each(each_fn *fn, int *bad) {
    char name[128], code[16], path[256];
    int n = 0;
    FILE *list = fopen(FOLDER "expected.txt", "r");
    assert_non_null(list);
    while (fscanf(list, "%127s %15s", name, code) == 2) {
        snprintf(path, sizeof path, FOLDER "%s", name);
        fn(path, code, bad);
        n++;
    }
    fclose(list);
    return n;
}

static void expect_code(const char *path, const char *code, int *bad) {
    imported m;
    import_path(&m, NULL, path, NULL);
    if (strcmp(imported_code(&m), code) != 0) {
        print_message("%s: %s, expected %s\n", path, imported_code(&m), code);
        print_findings(&m);
        ++*bad;
    }
    imported_end(&m);
}

static void test_expected(void **state) {
    (void)state;
    int bad = 0;
    int n = for_each(expect_code, &bad);
    assert_true(n > 130);
    assert_int_equal(bad, 0);
}

/* With every byte of memory copied to a block of exactly its size, so that a sanitizer sees a read
 * past the end. */
static void import_exactly(const uint8_t *bytes, size_t len) {
    imported m;
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    import_bytes(&m, NULL, copy, len);
    if (m.status != KILN_OK) {
        assert_true(kiln_diag_count(m.diag) > 0);
        assert_int_not_equal(m.status, KILN_E_INTERNAL);
    }
    imported_end(&m);
    free(copy);
}

static void damage(const char *path, const char *code, int *bad) {
    uint8_t bytes[SMALL];
    FILE *f = fopen(path, "rb");
    (void)code;
    (void)bad;
    assert_non_null(f);
    size_t len = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    if (len == sizeof bytes) {
        return;
    }
    for (size_t n = 0; n < len; n++) {
        import_exactly(bytes, n);
    }
    for (size_t i = 0; i < len; i++) {
        for (int bit = 0; bit < 8; bit += 3) {
            bytes[i] ^= (uint8_t)(1 << bit);
            import_exactly(bytes, len);
            bytes[i] ^= (uint8_t)(1 << bit);
        }
    }
}

static void test_damaged(void **state) {
    (void)state;
    int bad = 0;
    for_each(damage, &bad);
}

/* A model from memory has no folder for its external data until it is given one. */
static void test_memory_external(void **state) {
    (void)state;
    kiln_file file;
    imported m;
    kiln_import_options options = {.external_root = "tests/golden/bad"};
    assert_int_equal(kiln_file_open(&file, NULL, FOLDER "external_good.onnx", 1 << 20, 0, NULL),
                     KILN_OK);
    import_bytes(&m, NULL, file.data, file.bytes);
    assert_string_equal(imported_code(&m), "E0205");
    imported_end(&m);

    imported_begin(&m, NULL);
    m.status = kiln_import_memory(&m.model, file.data, file.bytes, &options, &m.arena, &m.files,
                                  NULL, m.diag);
    assert_string_equal(imported_code(&m), "ok");
    const kiln_tensor *w = kiln_value_data(m.model.graph->nodes[0]->in[0]);
    assert_non_null(w);
    assert_float_equal(((float *)w->data)[0], 2, 0);
    assert_float_equal(((float *)w->data)[1], 3, 0);
    assert_int_equal(m.model.external_bytes, 24);
    imported_end(&m);
    kiln_file_close(&file);
}

static void test_checksum(void **state) {
    (void)state;
    imported m;
    kiln_import_options options = {.verify_checksums = true, .no_mmap = true};
    import_path(&m, NULL, FOLDER "external_checksum_unverified.onnx", &options);
    assert_string_equal(imported_code(&m), "E0208");
    imported_end(&m);
    import_path(&m, NULL, FOLDER "external_good.onnx", &options);
    assert_string_equal(imported_code(&m), "ok");
    imported_end(&m);
}

/* Findings say where: file, offset, node. */
static void test_places(void **state) {
    (void)state;
    imported m;
    import_path(&m, NULL, FOLDER "op_unknown.onnx", NULL);
    assert_int_equal(kiln_diag_count(m.diag), 2);
    const kiln_finding *f = kiln_diag_get(m.diag, 1);
    assert_string_equal(f->op, "Frob");
    assert_true(f->offset > 0);
    assert_string_equal(f->file, FOLDER "op_unknown.onnx");
    imported_end(&m);
    import_path(&m, NULL, FOLDER "graph_two_producers.onnx", NULL);
    assert_true(kiln_diag_get(m.diag, 0)->offset > 0);
    imported_end(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expected),        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_memory_external), cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
