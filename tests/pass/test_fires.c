/* Which pass does how much on which network: no count may fall below tests/pass/fires.txt.
 *
 * Networks are those of ../shared/models and of the zoo there; without them the test skips. The
 * zoo's weights are read from holes of the right size; the small ones, whose values passes look
 * at, get random numbers instead of zeros, single ones their stated value. KILN_GOLDEN_UPDATE=1
 * writes the list. ctest-labels: zoo
 * ctest-timeout: 900 */
#include <dirent.h>
#include <unistd.h>

#include "base/file.h"
#include "onnx/onnx.h"
#include "pass/graphs.h"

enum { MAX_LINES = 4096 };

typedef struct line {
    char network[160], pass[40];
    unsigned long count;
    bool seen;
} line;

static line golden[MAX_LINES];
static size_t n_golden;
static FILE *update;

static void read_golden(void) {
    FILE *f = fopen("tests/pass/fires.txt", "r");
    line l = {.count = 0};
    while (f && n_golden < MAX_LINES &&
           fscanf(f, "%159s %39s %lu\n", l.network, l.pass, &l.count) == 3) {
        golden[n_golden++] = l;
    }
    if (f) {
        fclose(f);
    }
}

static void check(const char *network, const kiln_pass_info *info) {
    if (update) {
        if (info->rewrites) {
            fprintf(update, "%s %s %zu\n", network, info->name, info->rewrites);
        }
        return;
    }
    for (size_t i = 0; i < n_golden; i++) {
        if (strcmp(golden[i].network, network) == 0 && strcmp(golden[i].pass, info->name) == 0) {
            golden[i].seen = true;
            if (info->rewrites < golden[i].count) {
                fail_msg("%s: pass %s made %zu rewrites, %lu before", network, info->name,
                         info->rewrites, golden[i].count);
            }
        }
    }
}

enum { SMALL_WEIGHT = 65536 };

/* The mean that the zoo's description states of the tensor at this offset of the weights. */
static float stated_mean(const char *json, size_t offset) {
    char key[64];
    float mean = 0;
    snprintf(key, sizeof key, "\"offset\": %zu,", offset);
    const char *at = strstr(json, key);
    at = at ? strstr(at, "\"mean\": ") : NULL;
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"mean\": %f", &mean), 1);
    return mean;
}

/* The mapped weights: the file as long as stated. */
static const kiln_file *find_weights(const char *json, const kiln_files *files) {
    unsigned long long total = 0;
    assert_int_equal(sscanf(json, "{\"total\": %llu", &total), 1);
    for (size_t i = 0; i < files->count; i++) {
        if (files->items[i]->bytes == total) {
            return files->items[i];
        }
    }
    fail_msg("the weights are not open");
    return NULL;
}

static void fill_one(kiln_graph *g, kiln_const *c, const char *json, const kiln_file *weights,
                     uint32_t seed) {
    const uint8_t *old = c->tensor.data;
    size_t bytes = kiln_tensor_bytes(&c->tensor);
    if (!old || old < weights->data || (size_t)(old - weights->data) >= weights->bytes) {
        return;
    }
    c->tensor.data = kiln_arena_array(g->arena, bytes, 1);
    assert_non_null(c->tensor.data);
    kiln_text_fill(&c->tensor, seed);
    if (bytes == sizeof(float)) {
        *(float *)c->tensor.data = stated_mean(json, (size_t)(old - weights->data));
    }
    c->big = false;
}

static void fill_small_weights(kiln_graph *g, const char *json, const kiln_file *weights) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->n_in; k++) {
            kiln_const *c = n->in[k] ? n->in[k]->constant : NULL;
            if (c && c->big && c->tensor.dtype == KILN_DTYPE_F32 &&
                kiln_tensor_count(&c->tensor) <= SMALL_WEIGHT) {
                fill_one(g, c, json, weights, (uint32_t)i);
            }
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            fill_small_weights(n->bodies[b], json, weights);
        }
    }
}

/* `json` describes weights that are holes, or is NULL. */
static void run_network(const char *path, const char *network, const char *json) {
    kiln_arena arena;
    kiln_files files = {.count = 0};
    kiln_import import;
    kiln_diag *diag;
    kiln_pass_info *infos;
    size_t n;
    kiln_arena_init(&arena, NULL);
    assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
    if (kiln_import_file(&import, path, &(kiln_import_options){0}, &arena, &files, NULL, diag) ||
        kiln_infer_graph(import.graph, diag)) {
        fail_with(diag, network);
    }
    if (json) {
        fill_small_weights(import.graph, json, find_weights(json, &files));
    }
    size_t before = kiln_graph_count(import.graph);
    if (kiln_passes_run(import.graph, NULL, &infos, &n, diag)) {
        fail_with(diag, network);
    }
    print_message("%s: %zu nodes, now %zu\n", network, before, kiln_graph_count(import.graph));
    for (size_t i = 0; i < n; i++) {
        check(network, &infos[i]);
    }
    for (size_t i = 0; i < files.count; i++) {
        kiln_file_close(files.items[i]);
    }
    kiln_diag_destroy(diag);
    kiln_arena_free(&arena);
}

/* A copy of the network in a folder of ours, its weights a hole. */
static void run_zoo_network(const char *zoo, const char *tmp, const char *stem) {
    char from[1200], to[1200], weights[1200];
    size_t len;
    unsigned long long total = 0;
    snprintf(from, sizeof from, "%s/%s.json", zoo, stem);
    char *json = read_text(from, &len);
    assert_non_null(json);
    assert_int_equal(sscanf(json, "{\"total\": %llu", &total), 1);
    snprintf(weights, sizeof weights, "%s/%s.weights", tmp, stem);
    FILE *f = fopen(weights, "wb");
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)total), 0);
    fclose(f);
    snprintf(from, sizeof from, "%s/%s.onnx", zoo, stem);
    snprintf(to, sizeof to, "%s/%s.onnx", tmp, stem);
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    char buf[4096];
    while ((len = fread(buf, 1, sizeof buf, in)) > 0) {
        assert_int_equal(fwrite(buf, 1, len, out), len);
    }
    fclose(in);
    fclose(out);
    char network[160];
    snprintf(network, sizeof network, "zoo/%.100s", stem);
    run_network(to, network, json);
    test_free(json);
    remove(to);
    remove(weights);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool has_suffix(const char *name, const char *suffix) {
    size_t n = strlen(name), k = strlen(suffix);
    return n > k && strcmp(name + n - k, suffix) == 0;
}

static void run_folder(const char *shared, const char *tmp, const char *folder) {
    char path[1024], file[2048];
    struct dirent **items;
    snprintf(path, sizeof path, "%s/%s", shared, folder);
    int n = scandir(path, &items, NULL, by_name);
    assert_true(n >= 0);
    for (int i = 0; i < n; i++) {
        const char *name = items[i]->d_name;
        if (has_suffix(name, ".onnx") && strcmp(folder, "zoo") == 0) {
            char stem[128];
            snprintf(stem, sizeof stem, "%.*s", (int)(strlen(name) - 5), name);
            run_zoo_network(path, tmp, stem);
        } else if (has_suffix(name, ".onnx")) {
            char network[160];
            snprintf(file, sizeof file, "%s/%s", path, name);
            snprintf(network, sizeof network, "%.70s/%.*s", folder, (int)(strlen(name) - 5), name);
            run_network(file, network, NULL);
        }
        free(items[i]);
    }
    free(items);
}

static void test_counts(void **state) {
    (void)state;
    const char *shared = getenv("KILN_SHARED"), *tmp = getenv("KILN_TMP");
    struct dirent **items;
    char path[1024];
    if (!shared || !*shared || !tmp) {
        print_message("no networks here: skipped\n");
        skip();
    }
    read_golden();
    if (getenv("KILN_GOLDEN_UPDATE")) {
        update = fopen("tests/pass/fires.txt", "w");
        assert_non_null(update);
    }
    snprintf(path, sizeof path, "%s/models", shared);
    int n = scandir(path, &items, NULL, by_name);
    assert_true(n > 2);
    for (int i = 0; i < n; i++) {
        if (items[i]->d_name[0] != '.' && items[i]->d_type == DT_DIR) {
            snprintf(path, sizeof path, "models/%.200s", items[i]->d_name);
            run_folder(shared, tmp, path);
        }
        free(items[i]);
    }
    free(items);
    run_folder(shared, tmp, "zoo");
    for (size_t i = 0; !update && i < n_golden; i++) {
        if (!golden[i].seen) {
            fail_msg("%s was not tried", golden[i].network);
        }
    }
    if (update) {
        fclose(update);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
