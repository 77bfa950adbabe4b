/* Files made to cost more than they hold: each is refused, or read, within the memory its size
 * allows, on a small stack; and running out of memory anywhere is an error, not a leak. */
#define _GNU_SOURCE 1

#include <pthread.h>

#include "onnx/wire.h"
#include "test_onnx_common.h"

#define MIB ((size_t)1 << 20)
enum { SMALL_STACK = 256 << 10, MILLION = 1000000 };

/* ---- Building files ---- */

static void put_opset(kiln_out *out) {
    kiln_out_varint(out, 1, 8);
    size_t set = kiln_out_begin(out, 8);
    kiln_out_varint(out, 2, 17);
    kiln_out_end(out, set);
}

/* A float input or output "name" of shape [2]. */
static void put_info(kiln_out *out, uint32_t field, const char *name) {
    static const uint8_t type[] = {0x0a, 0x08, 0x08, 0x01, 0x12, 0x04, 0x0a, 0x02, 0x08, 0x02};
    size_t info = kiln_out_begin(out, field);
    kiln_out_text(out, 1, name);
    kiln_out_data(out, 2, type, sizeof type);
    kiln_out_end(out, info);
}

static void put_node(kiln_out *out, const char *op, const char *domain, const char *in,
                     const char *result) {
    size_t node = kiln_out_begin(out, 1);
    kiln_out_text(out, 1, in);
    kiln_out_text(out, 2, result);
    kiln_out_text(out, 4, op);
    if (domain) {
        kiln_out_text(out, 7, domain);
    }
    kiln_out_end(out, node);
}

/* ---- Importing with the peak in view, on a small stack ---- */

typedef struct job {
    const kiln_out *file;
    char code[16];
    size_t peak, nodes;
} job;

static void *run_job(void *arg) {
    job *j = arg;
    counted c;
    imported m;
    kiln_env *env = counted_env(&c, NULL);
    size_t before = c.live;
    memset(&m, 0, sizeof m);
    kiln_arena_init(&m.arena, env);
    kiln_diag_create(&m.diag, NULL);
    m.status = kiln_import_memory(&m.model, j->file->data, j->file->len, NULL, &m.arena, &m.files,
                                  env, m.diag);
    snprintf(j->code, sizeof j->code, "%s", imported_code(&m));
    j->nodes = m.status == KILN_OK ? kiln_graph_count(m.model.graph) : 0;
    kiln_arena_free(&m.arena);
    kiln_diag_destroy(m.diag);
    j->peak = c.live == before ? c.peak : SIZE_MAX;
    kiln_env_destroy(env);
    return NULL;
}

static job import_small_stack(const kiln_out *file) {
    pthread_attr_t attr;
    pthread_t thread;
    job j = {.file = file};
    assert_false(file->failed);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, SMALL_STACK), 0);
    assert_int_equal(pthread_create(&thread, &attr, run_job, &j), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    return j;
}

/* Memory besides the file itself, which the promise counts once: file + 64 MiB are left. */
static void expect(const kiln_out *file, const char *code) {
    job j = import_small_stack(file);
    assert_string_equal(j.code, code);
    assert_in_range(j.peak, 0, file->len + 64 * MIB);
}

/* A model whose graph, or whose field `field`, is `count` times the two bytes of an empty
 * message. */
static void repeat_empty(uint32_t in_graph, uint32_t field, size_t count, const char *code) {
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    kiln_out file = {.arena = &arena};
    put_opset(&file);
    size_t graph = in_graph ? kiln_out_begin(&file, 7) : 0;
    for (size_t i = 0; i < count; i++) {
        kiln_out_data(&file, field, NULL, 0);
    }
    if (in_graph) {
        kiln_out_end(&file, graph);
    } else {
        kiln_out_data(&file, 7, NULL, 0);
    }
    expect(&file, code);
    kiln_arena_free(&arena);
}

static void test_empty_messages(void **state) {
    (void)state;
    repeat_empty(1, 1, 10 * MILLION, "E0309");  /* nodes: over the limit */
    repeat_empty(1, 1, MILLION, "E0301");       /* nodes: no operator */
    repeat_empty(1, 5, 10 * MILLION, "E0308");  /* initializers */
    repeat_empty(1, 11, 10 * MILLION, "E0301"); /* inputs */
    repeat_empty(1, 12, 10 * MILLION, "E0301"); /* outputs */
    repeat_empty(0, 25, 10 * MILLION, "E0309"); /* functions */
    repeat_empty(0, 8, 10 * MILLION, "E0309");  /* operator sets */
}

/* One node with a million of something. */
static void repeat_in_node(uint32_t field, size_t count, const char *code) {
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    kiln_out file = {.arena = &arena};
    put_opset(&file);
    size_t graph = kiln_out_begin(&file, 7);
    size_t node = kiln_out_begin(&file, 1);
    kiln_out_text(&file, 4, "Relu");
    for (size_t i = 0; i < count; i++) {
        kiln_out_data(&file, field, NULL, 0);
    }
    kiln_out_end(&file, node);
    kiln_out_end(&file, graph);
    expect(&file, code);
    kiln_arena_free(&arena);
}

static void test_wide_node(void **state) {
    (void)state;
    repeat_in_node(1, 10 * MILLION, "E0309");
    repeat_in_node(2, 10 * MILLION, "E0309");
    repeat_in_node(5, 10 * MILLION, "E0309");
}

/* A chain of a million nodes is read, sorted backwards too, without recursion. What it becomes is
 * larger than the promise for refused files allows, but linear. */
static void chain(size_t n, bool backwards) {
    kiln_arena arena;
    char in[32], result[32];
    kiln_arena_init(&arena, NULL);
    kiln_out file = {.arena = &arena};
    put_opset(&file);
    size_t graph = kiln_out_begin(&file, 7);
    put_info(&file, 11, "n0");
    snprintf(result, sizeof result, "n%zu", n);
    put_info(&file, 12, result);
    for (size_t k = 0; k < n; k++) {
        size_t i = backwards ? n - 1 - k : k;
        snprintf(in, sizeof in, "n%zu", i);
        snprintf(result, sizeof result, "n%zu", i + 1);
        put_node(&file, "Relu", NULL, in, result);
    }
    kiln_out_end(&file, graph);
    job j = import_small_stack(&file);
    assert_string_equal(j.code, "ok");
    assert_int_equal(j.nodes, n);
    assert_in_range(j.peak, 0, n * 1024);
    kiln_arena_free(&arena);
}

static void test_chain(void **state) {
    (void)state;
    chain(MILLION, false);
    chain(200000, true);
}

static void test_fan_out(void **state) {
    kiln_arena arena;
    char result[32];
    (void)state;
    kiln_arena_init(&arena, NULL);
    kiln_out file = {.arena = &arena};
    put_opset(&file);
    size_t graph = kiln_out_begin(&file, 7);
    put_info(&file, 11, "x");
    for (int i = 0; i < 100000; i++) {
        snprintf(result, sizeof result, "n%d", i);
        put_node(&file, "Relu", NULL, "x", result);
    }
    put_info(&file, 12, result);
    kiln_out_end(&file, graph);
    job j = import_small_stack(&file);
    assert_string_equal(j.code, "ok");
    kiln_arena_free(&arena);
}

/* Graphs in attributes of nodes of graphs, 5,000 deep: 54 KB. */
static void test_deep(void **state) {
    kiln_arena arena;
    size_t begins[3 * 5000];
    size_t n = 0;
    (void)state;
    kiln_arena_init(&arena, NULL);
    kiln_out file = {.arena = &arena};
    put_opset(&file);
    size_t graph = kiln_out_begin(&file, 7);
    while (n < KILN_COUNT_OF(begins)) {
        begins[n++] = kiln_out_begin(&file, 1);
        kiln_out_text(&file, 4, "If");
        begins[n++] = kiln_out_begin(&file, 5);
        kiln_out_text(&file, 1, "then_branch");
        kiln_out_varint(&file, 20, 5);
        begins[n++] = kiln_out_begin(&file, 6);
    }
    while (n > 0) {
        kiln_out_end(&file, begins[--n]);
    }
    kiln_out_end(&file, graph);
    job j = import_small_stack(&file);
    assert_string_not_equal(j.code, "ok");
    assert_in_range(j.peak, 0, 64 * MIB);
    size_t function = kiln_out_begin(&file, 25);
    kiln_out_text(&file, 1, "f");
    kiln_out_end(&file, function);
    j = import_small_stack(&file);
    assert_string_equal(j.code, "E0104");
    assert_in_range(j.peak, 0, 64 * MIB);
    kiln_arena_free(&arena);
}

/* A function whose one node has a long name, called often: names must not multiply. */
static void test_function_names(void **state) {
    kiln_arena arena;
    char in[32], result[32], *name = malloc(60000);
    (void)state;
    memset(name, 'n', 59999);
    name[59999] = 0;
    kiln_arena_init(&arena, NULL);
    kiln_out file = {.arena = &arena};
    put_opset(&file);
    size_t function = kiln_out_begin(&file, 25);
    kiln_out_text(&file, 1, "g");
    kiln_out_text(&file, 4, "a");
    kiln_out_text(&file, 5, "b");
    kiln_out_text(&file, 10, "d");
    for (int i = 0; i < 2; i++) {
        size_t node = kiln_out_begin(&file, 7);
        kiln_out_text(&file, 1, i ? name : "a");
        kiln_out_text(&file, 2, i ? "b" : name);
        kiln_out_text(&file, 4, "Relu");
        kiln_out_end(&file, node);
    }
    kiln_out_end(&file, function);
    size_t graph = kiln_out_begin(&file, 7);
    put_info(&file, 11, "n0");
    for (int i = 0; i < 100000; i++) {
        snprintf(in, sizeof in, "n%d", i);
        snprintf(result, sizeof result, "n%d", i + 1);
        put_node(&file, "g", "d", in, result);
    }
    put_info(&file, 12, result);
    kiln_out_end(&file, graph);
    job j = import_small_stack(&file);
    assert_string_equal(j.code, "E0309");
    assert_in_range(j.peak, 0, 512 * MIB);
    kiln_arena_free(&arena);
    free(name);
}

/* ---- Running out of memory ---- */

static void sweep(const char *path) {
    counted c;
    kiln_env *env = counted_env(&c, NULL);
    size_t before = c.live;
    long n = 0;
    for (bool done = false; !done; n++) {
        imported m;
        imported_begin(&m, env);
        c.calls = 0;
        c.fail_at = n;
        m.status = kiln_import_file(&m.model, path, NULL, &m.arena, &m.files, env, m.diag);
        if (m.status == KILN_OK) {
            void *bytes;
            size_t len;
            m.status = kiln_export_memory(&bytes, &len, m.model.graph, NULL, &m.arena, m.diag);
        }
        done = c.calls <= n;
        c.fail_at = -1;
        assert_true(m.status == KILN_OK || m.status == KILN_E_MEMORY);
        assert_true(!done || m.status == KILN_OK);
        imported_end(&m);
        assert_int_equal(c.live, before);
    }
    assert_true(n > 1);
    kiln_env_destroy(env);
}

static void test_memory_sweep(void **state) {
    (void)state;
    sweep("tests/golden/bad/function_good.onnx");
    sweep("tests/golden/bad/graph_unsorted.onnx");
    sweep("tests/golden/bad/tensor_sparse_good.onnx");
    sweep("tests/golden/bad/external_good.onnx");
    sweep("tests/golden/upgrade/clip_10_f64.onnx");
    sweep("tests/golden/upgrade/softmax_11_axis_2.onnx");
    sweep("tests/golden/upgrade/function_with_if.onnx");
    sweep("tests/golden/upgrade/constant_forms.onnx");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_messages), cmocka_unit_test(test_wide_node),
        cmocka_unit_test(test_chain),          cmocka_unit_test(test_fan_out),
        cmocka_unit_test(test_deep),           cmocka_unit_test(test_function_names),
        cmocka_unit_test(test_memory_sweep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
