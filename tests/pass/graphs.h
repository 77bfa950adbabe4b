/* graphs.h - reading golden graphs, running passes on them, and comparing what they compute. */
#ifndef KILN_TESTS_PASS_GRAPHS_H
#define KILN_TESTS_PASS_GRAPHS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "ops/ops.h"
#include "ops/util.h"
#include "pass/pass.h"

/* A graph in an arena of its own. */
typedef struct world {
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *graph;
    kiln_diag *diag;
} world;

static inline void fail_with(const kiln_diag *diag, const char *what) {
    char text[512] = "";
    for (size_t i = 0; i < kiln_diag_count(diag); i++) {
        kiln_finding_format(kiln_diag_get(diag, i), text, sizeof text);
        print_error("%s\n", text);
    }
    fail_msg("%s", what);
}

static inline void world_open(world *w, const char *text, size_t len) {
    memset(w, 0, sizeof *w);
    kiln_arena_init(&w->arena, NULL);
    kiln_dims_init(&w->dims, &w->arena);
    assert_int_equal(kiln_diag_create(&w->diag, NULL), KILN_OK);
    if (kiln_graph_parse(&w->graph, text, len, kiln_op_find, &w->arena, &w->dims, NULL, w->diag) ||
        kiln_graph_sort(w->graph, w->diag) || kiln_graph_verify(w->graph, w->diag) ||
        kiln_infer_graph(w->graph, w->diag)) {
        fail_with(w->diag, "the golden graph cannot be read");
    }
}

static inline void world_close(world *w) {
    kiln_diag_destroy(w->diag);
    kiln_arena_free(&w->arena);
}

/* Rewrites applied in all. */
static inline size_t run_passes(world *w, const char *only, int32_t stop_after) {
    kiln_pass_options options = {.only = only, .stop_after = stop_after};
    kiln_pass_info *infos;
    size_t n, total = 0;
    if (kiln_passes_run(w->graph, &options, &infos, &n, w->diag)) {
        fail_with(w->diag, "the passes failed");
    }
    for (size_t i = 0; i < n; i++) {
        total += infos[i].rewrites;
    }
    return total;
}

/* ---- Evaluation ---- */

static inline uint64_t next_random(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static inline int64_t size_of_dim(const kiln_dims *dims, kiln_dim d) {
    const kiln_dim_entry *e = kiln_dim_get(dims, d);
    return kiln_dim_known(d) ? d : e && e->name ? 2 + e->name[0] % 3 : 3;
}

static inline kiln_datum random_input(world *w, const kiln_value *v, uint64_t *seed) {
    kiln_datum d = {.kind = KILN_KIND_TENSOR};
    kiln_tensor *t = &d.tensor;
    t->dtype = v->type.dtype;
    t->rank = v->type.rank;
    for (int32_t i = 0; i < t->rank; i++) {
        t->dims[i] = size_of_dim(&w->dims, v->type.dims[i]);
    }
    t->cap_bytes = kiln_tensor_bytes(t);
    t->data = kiln_arena_array(&w->arena, t->cap_bytes, 1);
    assert_non_null(t->data);
    for (int64_t i = 0; i < kiln_tensor_count(t); i++) {
        uint64_t r = next_random(seed);
        if (kiln_dtype_is_float(t->dtype)) {
            kiln_set_f64(t->dtype, t->data, i, (double)(r >> 40) / (double)(1 << 22) - 2.0);
        } else {
            kiln_set_i64(t->dtype, t->data, i,
                         (int64_t)(r >> 20 & (t->dtype == KILN_DTYPE_BOOL ? 1 : 7)));
        }
    }
    return d;
}

static inline kiln_datum *evaluate(world *w, uint64_t seed) {
    kiln_graph *g = w->graph;
    kiln_datum *in = kiln_arena_array(&w->arena, g->n_inputs + 1, sizeof *in);
    kiln_datum *out = kiln_arena_array(&w->arena, g->n_outputs + 1, sizeof *out);
    assert_non_null(in);
    assert_non_null(out);
    for (size_t i = 0; i < g->n_inputs; i++) {
        in[i] = random_input(w, g->inputs[i], &seed);
    }
    if (kiln_eval_graph(g, in, out, NULL, &w->arena, w->diag)) {
        fail_with(w->diag, "the graph cannot be evaluated");
    }
    return out;
}

/* Largest difference allowed, as a share of the tensor's range. Rewrites reorder a few roundings
 * of sums over tens of elements: some ulps. */
static inline double tolerance(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_F16 || dtype == KILN_DTYPE_BF16 ? 4e-3 : 1e-5;
}

static inline bool same_tensor(const kiln_tensor *a, const kiln_tensor *b) {
    if (a->dtype != b->dtype || a->rank != b->rank ||
        memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) != 0) {
        return false;
    }
    int64_t n = kiln_tensor_count(a);
    if (!kiln_dtype_is_float(a->dtype)) {
        return memcmp(a->data, b->data, kiln_tensor_bytes(a)) == 0;
    }
    double range = 0;
    for (int64_t i = 0; i < n; i++) {
        range = fmax(range, fabs(kiln_get_f64(a->dtype, a->data, i)));
    }
    for (int64_t i = 0; i < n; i++) {
        double x = kiln_get_f64(a->dtype, a->data, i), y = kiln_get_f64(b->dtype, b->data, i);
        bool close = fabs(x - y) <= tolerance(a->dtype) * range || (isnan(x) && isnan(y)) || x == y;
        if (!close) {
            return false;
        }
    }
    return true;
}

/* Flips the bit that changes the largest element most. */
static inline void flip_bit(kiln_tensor *t) {
    int64_t n = kiln_tensor_count(t), at = 0;
    size_t size = kiln_dtype_size(t->dtype);
    bool is_float = kiln_dtype_is_float(t->dtype);
    for (int64_t i = 0; is_float && i < n; i++) {
        if (fabs(kiln_get_f64(t->dtype, t->data, i)) > fabs(kiln_get_f64(t->dtype, t->data, at))) {
            at = i;
        }
    }
    if (n > 0) {
        ((uint8_t *)t->data)[(size_t)(at + 1) * size - 1] ^= is_float ? 0x40 : 1;
    }
}

static inline void compare_worlds(world *before, world *after, const char *what) {
    for (uint64_t seed = 1; seed <= 3; seed++) {
        kiln_datum *a = evaluate(before, seed * 77), *b = evaluate(after, seed * 77);
        for (size_t i = 0; i < before->graph->n_outputs; i++) {
            if (a[i].kind != b[i].kind || a[i].kind != KILN_KIND_TENSOR) {
                continue;
            }
            if (!same_tensor(&a[i].tensor, &b[i].tensor)) {
                fail_msg("%s: output %zu of graph \"%s\" differs", what, i, before->graph->name);
            }
            if (kiln_tensor_count(&b[i].tensor) > 0) {
                flip_bit(&b[i].tensor);
                assert_false(same_tensor(&a[i].tensor, &b[i].tensor));
            }
        }
    }
}

/* ---- Files of several graphs ---- */

static inline char *read_text(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        return NULL;
    }
    char *text = test_malloc(1 << 20);
    *len = fread(text, 1, (1 << 20) - 1, f);
    text[*len] = 0;
    fclose(f);
    return text;
}

/* The next graph from *at on: it ends with a line "end" that is not indented. False at the end. */
static inline bool next_graph(const char **at, const char **start, size_t *len) {
    *start = strstr(*at, "graph \"");
    const char *end = *start ? strstr(*start, "\nend\n") : NULL;
    if (!end) {
        return false;
    }
    *len = (size_t)(end + 5 - *start);
    *at = end + 5;
    return true;
}

#endif
