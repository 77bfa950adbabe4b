/* Models of older operator sets, functions and constants compute what tests/golden/upgrade says;
 * and what is exported and read again computes the same bits. */
#include <math.h>

#include "ops/util.h"
#include "test_onnx_common.h"

#define FOLDER "tests/golden/upgrade/"
enum { MAX_IO = 8 };

static const double relative = 2e-5; /* float32 sums of a few dozen terms; half rounds once */

/* The inputs of a case, then its outputs. */
static void read_values(kiln_datum *values, const char *path, kiln_arena *arena) {
    kiln_file file;
    assert_int_equal(kiln_file_open(&file, NULL, path, 1 << 20, KILN_FILE_COPY, NULL), KILN_OK);
    void *bytes = kiln_arena_copy(arena, file.data, file.bytes);
    assert_int_equal(kiln_datum_from_pb(values, KILN_KIND_SEQUENCE, KILN_KIND_TENSOR, bytes,
                                        file.bytes, arena, NULL, NULL),
                     KILN_OK);
    kiln_file_close(&file);
}

static bool near(const kiln_tensor *a, const kiln_tensor *b) {
    int64_t n = kiln_tensor_count(a);
    bool same = a->dtype == b->dtype && a->rank == b->rank;
    for (int32_t i = 0; same && i < a->rank; i++) {
        same = a->dims[i] == b->dims[i];
    }
    for (int64_t i = 0; same && i < n; i++) {
        double x = kiln_get_f64(a->dtype, a->data, i), y = kiln_get_f64(b->dtype, b->data, i);
        double ulp = a->dtype == KILN_DTYPE_F16 ? 1e-3 : relative;
        same = fabs(x - y) <= ulp * (1 + fabs(y));
    }
    return same;
}

static kiln_status evaluate(imported *m, const kiln_datum *in, kiln_datum *out) {
    kiln_status status = kiln_infer_graph(m->model.graph, m->diag);
    kiln_eval_options options = {.seed = 0};
    return status ? status : kiln_eval_graph(m->model.graph, in, out, &options, &m->arena, m->diag);
}

/* Exports, imports that, and expects the same bits. */
static bool round_trips(imported *m, const kiln_datum *in, const kiln_datum *out) {
    void *bytes;
    size_t len;
    imported again;
    kiln_datum second[MAX_IO];
    bool same =
        kiln_export_memory(&bytes, &len, m->model.graph, NULL, &m->arena, m->diag) == KILN_OK;
    if (!same) {
        return false;
    }
    import_bytes(&again, NULL, bytes, len);
    same = again.status == KILN_OK && again.model.n_upgraded == 0 &&
           evaluate(&again, in, second) == KILN_OK &&
           again.model.graph->n_outputs == m->model.graph->n_outputs;
    for (size_t i = 0; same && i < m->model.graph->n_outputs; i++) {
        size_t n = kiln_tensor_bytes(&out[i].tensor);
        same = n == kiln_tensor_bytes(&second[i].tensor) &&
               memcmp(out[i].tensor.data, second[i].tensor.data, n) == 0 &&
               strcmp(again.model.graph->outputs[i]->name, m->model.graph->outputs[i]->name) == 0;
    }
    if (!same) {
        print_findings(&again);
    }
    imported_end(&again);
    return same;
}

/* One case; with `spoil`, an expected value is changed first, and the comparison must see it. */
static bool run_case(const char *name, bool spoil) {
    char path[256];
    imported m;
    kiln_datum values, out[MAX_IO];
    snprintf(path, sizeof path, FOLDER "%s.onnx", name);
    import_path(&m, NULL, path, NULL);
    snprintf(path, sizeof path, FOLDER "%s.pb", name);
    read_values(&values, path, &m.arena);
    const kiln_graph *g = m.model.graph;
    bool ok = m.status == KILN_OK && g->n_inputs + g->n_outputs == (size_t)values.n_items &&
              g->n_outputs <= MAX_IO && evaluate(&m, values.items, out) == KILN_OK;
    for (size_t i = 0; ok && i < g->n_outputs; i++) {
        kiln_tensor *want = &values.items[g->n_inputs + i].tensor;
        if (spoil) {
            kiln_set_f64(want->dtype, want->data, 0, kiln_get_f64(want->dtype, want->data, 0) + 1);
        }
        ok = near(&out[i].tensor, want);
    }
    if (ok && !spoil) {
        ok = round_trips(&m, values.items, out);
    }
    if (!ok && !spoil) {
        print_message("%s: wrong\n", name);
        print_findings(&m);
    }
    imported_end(&m);
    return ok;
}

static void test_cases(void **state) {
    char name[128];
    int n = 0, bad = 0;
    (void)state;
    FILE *list = fopen(FOLDER "list.txt", "r");
    assert_non_null(list);
    while (fscanf(list, "%127s", name) == 1) {
        bad += !run_case(name, false);
        bad += run_case(name, true);
        n++;
    }
    fclose(list);
    assert_true(n >= 77);
    assert_int_equal(bad, 0);
}

static size_t count_op(const kiln_graph *g, const char *op) {
    size_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        n += strcmp(g->nodes[i]->op->name, op) == 0;
    }
    return n;
}

/* What types show to be needless is gone: a Softmax along the last axis, the type of a bound. */
static void test_settled(void **state) {
    (void)state;
    imported m;
    import_path(&m, NULL, FOLDER "softmax_11_axis_2.onnx", NULL);
    assert_int_equal(m.status, KILN_OK);
    assert_int_equal(m.model.graph->n_nodes, 1);
    assert_int_equal(m.model.n_upgraded, 1);
    imported_end(&m);
    import_path(&m, NULL, FOLDER "softmax_11_axis_1.onnx", NULL);
    assert_int_equal(m.model.graph->n_nodes, 4);
    imported_end(&m);
    import_path(&m, NULL, FOLDER "clip_10_f64.onnx", NULL);
    assert_int_equal(count_op(m.model.graph, "CastLike"), 0);
    assert_int_equal(m.model.graph->n_nodes, 1);
    assert_int_equal(m.model.graph->nodes[0]->in[2]->type.dtype, KILN_DTYPE_F64);
    imported_end(&m);
}

/* Inlined nodes carry the names of the calls they came through. */
static void test_function_names(void **state) {
    (void)state;
    imported m;
    import_path(&m, NULL, FOLDER "function_nested.onnx", NULL);
    assert_int_equal(m.status, KILN_OK);
    assert_int_equal(m.model.n_functions_inlined, 4);
    for (size_t i = 0; i < m.model.graph->n_nodes; i++) {
        assert_int_equal(m.model.graph->nodes[i]->n_sources, 1);
        assert_non_null(strchr(m.model.graph->nodes[i]->sources[0], '/'));
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(m.model.graph->nodes[i]->out[0]->name,
                                    m.model.graph->nodes[k]->out[0]->name);
        }
    }
    imported_end(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_settled),
        cmocka_unit_test(test_function_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
