/* External data through links and odd files, and models written to files. */
#define _GNU_SOURCE 1

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test_onnx_common.h"

#define BAD "tests/golden/bad/"

static char folder[] = "/tmp/kiln-onnx-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static const char *at(const char *name) {
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void copy(const char *from, const char *to) {
    kiln_file file;
    assert_int_equal(kiln_file_open(&file, NULL, from, 1 << 24, 0, NULL), KILN_OK);
    assert_int_equal(kiln_file_write(to, file.data, file.bytes, NULL), KILN_OK);
    kiln_file_close(&file);
}

static void expect(const char *name, const char *code) {
    imported m;
    import_path(&m, NULL, at(name), NULL);
    if (strcmp(imported_code(&m), code) != 0) {
        print_findings(&m);
    }
    assert_string_equal(imported_code(&m), code);
    imported_end(&m);
}

/* external_good.onnx names weights.bin beside it; what stands there changes. */
static void test_odd_files(void **state) {
    (void)state;
    assert_int_equal(mkdir(at("a"), 0700), 0);
    copy(BAD "external_good.onnx", at("a/m.onnx"));
    copy(BAD "weights.bin", at("outside.bin"));
    expect("a/m.onnx", "E0201");
    assert_int_equal(symlink("../outside.bin", at("a/weights.bin")), 0);
    expect("a/m.onnx", "E0205");
    assert_int_equal(unlink(at("a/weights.bin")), 0);
    assert_int_equal(symlink("/dev/zero", at("a/weights.bin")), 0);
    expect("a/m.onnx", "E0205");
    assert_int_equal(unlink(at("a/weights.bin")), 0);
    assert_int_equal(mkfifo(at("a/weights.bin"), 0600), 0);
    expect("a/m.onnx", "E0201");
    assert_int_equal(unlink(at("a/weights.bin")), 0);
    assert_int_equal(mkdir(at("a/weights.bin"), 0700), 0);
    expect("a/m.onnx", "E0201");
    assert_int_equal(rmdir(at("a/weights.bin")), 0);
    assert_int_equal(link(at("outside.bin"), at("a/weights.bin")), 0);
    expect("a/m.onnx", "ok"); /* a hard link is a file like any other */
    assert_int_equal(truncate(at("a/weights.bin"), 12), 0);
    expect("a/m.onnx", "E0206");
}

/* A hub's cache: both files are links into a folder of blobs. */
static void test_hub(void **state) {
    (void)state;
    assert_int_equal(mkdir(at("blobs"), 0700), 0);
    assert_int_equal(mkdir(at("snapshot"), 0700), 0);
    copy(BAD "external_good.onnx", at("blobs/1"));
    copy(BAD "weights.bin", at("blobs/2"));
    assert_int_equal(symlink("../blobs/1", at("snapshot/m.onnx")), 0);
    assert_int_equal(symlink("../blobs/2", at("snapshot/weights.bin")), 0);
    expect("snapshot/m.onnx", "ok");
}

/* Tensors that overlap, and one in the model's own file, see the bytes that stand there. */
static void test_shared_bytes(void **state) {
    static const float numbers[] = {0, 1, 2, 3, 4, 5};
    (void)state;
    imported m;
    kiln_file file;
    import_path(&m, NULL, BAD "external_overlap.onnx", NULL);
    assert_string_equal(imported_code(&m), "ok");
    const kiln_node *add = m.model.graph->nodes[0];
    assert_memory_equal(kiln_value_data(add->in[0])->data, numbers + 1, 16);
    assert_memory_equal(kiln_value_data(add->in[1])->data, numbers + 2, 16);
    imported_end(&m);
    import_path(&m, NULL, BAD "external_itself.onnx", NULL);
    assert_string_equal(imported_code(&m), "ok");
    assert_int_equal(kiln_file_open(&file, NULL, BAD "external_itself.onnx", 1 << 20, 0, NULL), 0);
    assert_memory_equal(kiln_value_data(m.model.graph->nodes[0]->in[0])->data, file.data, 8);
    kiln_file_close(&file);
    imported_end(&m);
}

static void expect_same(const kiln_graph *a, const kiln_graph *b) {
    assert_int_equal(a->n_nodes, b->n_nodes);
    for (size_t i = 0; i < a->n_nodes; i++) {
        assert_string_equal(a->nodes[i]->op->name, b->nodes[i]->op->name);
        assert_int_equal(a->nodes[i]->n_in, b->nodes[i]->n_in);
        for (int32_t k = 0; k < a->nodes[i]->n_in; k++) {
            const kiln_tensor *x = kiln_value_data(a->nodes[i]->in[k]),
                              *y = kiln_value_data(b->nodes[i]->in[k]);
            assert_true(!x == !y);
            if (x) {
                assert_int_equal(kiln_tensor_bytes(x), kiln_tensor_bytes(y));
                assert_memory_equal(x->data, y->data, kiln_tensor_bytes(x));
            }
        }
    }
}

/* Weights inside or beside, the model read back is the same; symbols of shapes keep their names. */
static void test_export(void **state) {
    static const size_t thresholds[] = {0, 1, 1024};
    (void)state;
    for (size_t i = 0; i < KILN_COUNT_OF(thresholds); i++) {
        imported m, back;
        kiln_export_options options = {.external_threshold = thresholds[i]};
        import_path(&m, NULL, "examples/digits/digits.onnx", NULL);
        assert_int_equal(m.status, KILN_OK);
        assert_int_equal(kiln_infer_graph(m.model.graph, m.diag), KILN_OK);
        assert_int_equal(kiln_export_file(m.model.graph, at("e.onnx"), &options, NULL, m.diag),
                         KILN_OK);
        assert_int_equal(access(at("e.onnx.data"), F_OK) == 0, thresholds[i] != 0);
        import_path(&back, NULL, at("e.onnx"), NULL);
        print_findings(&back);
        assert_int_equal(back.status, KILN_OK);
        assert_int_equal(back.model.external_bytes != 0, thresholds[i] != 0);
        expect_same(m.model.graph, back.model.graph);
        const kiln_type *was = &m.model.graph->inputs[0]->type,
                        *is = &back.model.graph->inputs[0]->type;
        assert_int_equal(was->rank, is->rank);
        for (int32_t d = 0; d < was->rank; d++) {
            assert_string_equal(kiln_dim_text(m.model.graph->dims, was->dims[d], &m.arena),
                                kiln_dim_text(back.model.graph->dims, is->dims[d], &back.arena));
        }
        imported_end(&back);
        imported_end(&m);
    }
}

/* A target that cannot be written leaves nothing behind. */
static void test_export_fails(void **state) {
    (void)state;
    imported m;
    import_path(&m, NULL, "examples/digits/digits.onnx", NULL);
    assert_int_equal(kiln_export_file(m.model.graph, at("no/such/e.onnx"), NULL, NULL, m.diag),
                     KILN_E_IO);
    imported_end(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_odd_files),    cmocka_unit_test(test_hub),
        cmocka_unit_test(test_shared_bytes), cmocka_unit_test(test_export),
        cmocka_unit_test(test_export_fails),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
