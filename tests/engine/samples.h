/* samples.h - small networks for tests of engines and execution, their inputs, and runs of them.
 *
 *     for (size_t i = 0; i < KILN_COUNT_OF(samples); i++) {
 *         kiln_model *model;
 *         assert_int_equal(samples[i].make(&model, env, diag), KILN_OK);
 *         ...
 *         outcome a = {0}, b = {0};
 *         assert_int_equal(run_engine(engine, &options, &a), KILN_OK);
 *         assert_true(same_outcome(&a, &b));
 *
 * Together they have packed weights, fused regions, bodies that capture, an embedding, sequences,
 * an output that only the data can size, and values within one another. */
#ifndef KILN_TESTS_ENGINE_SAMPLES_H
#define KILN_TESTS_ENGINE_SAMPLES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "kiln/graph.h"
#include "kiln/kiln.h"

typedef struct sample {
    const char *name;
    kiln_status (*make)(kiln_model **out, const kiln_env *env, kiln_diag *diag);
} sample;

/* ---- Building ---- */

enum { MAX_CONSTANT = 9216 };

/* A float constant with varied, reproducible elements in [-0.5, 0.5). */
static inline kiln_ref_value noise(kiln_builder *b, int32_t rank, const int64_t *dims,
                                   kiln_diag *diag) {
    static const kiln_tensor none;
    kiln_tensor t = none;
    float data[MAX_CONSTANT];
    t.dtype = KILN_DTYPE_F32;
    t.rank = rank;
    for (int32_t d = 0; d < rank; d++) {
        t.dims[d] = dims[d];
    }
    uint32_t state = (uint32_t)(rank * 977 + dims[0] * 131 + dims[rank - 1]);
    int64_t n = kiln_tensor_count(&t);
    for (int64_t i = 0; i < n && i < MAX_CONSTANT; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (float)(state >> 8) / (float)(1 << 24) - 0.5f;
    }
    t.data = data;
    t.cap_bytes = (size_t)n * sizeof *data;
    return kiln_builder_constant(b, NULL, &t, diag);
}

static inline kiln_ref_value constant_i64(kiln_builder *b, int32_t rank, int64_t n,
                                          const int64_t *v, kiln_diag *diag) {
    kiln_tensor t = {.dtype = KILN_DTYPE_I64, .rank = rank, .dims = {n}};
    t.data = (void *)(uintptr_t)v;
    t.cap_bytes = (size_t)n * sizeof *v;
    return kiln_builder_constant(b, NULL, &t, diag);
}

static inline kiln_ref_value apply(kiln_builder *b, const char *op, kiln_ref_value x,
                                   kiln_ref_value y, kiln_diag *diag) {
    const kiln_ref_value in[] = {x, y};
    return kiln_builder_node(b, "", op, in, y == KILN_NO_VALUE ? 1 : 2, NULL, 0, diag);
}

static inline kiln_status make_digits(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    return kiln_model_load(out, env, "examples/digits/digits.onnx", NULL, diag);
}

/* Conv + Relu, pooling, Gemm: fused regions with packed weights, a dynamic batch. */
static inline kiln_status make_conv(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    const int64_t pads[] = {1, 1, 1, 1}, kernel[] = {2, 2}, strides[] = {2, 2};
    const kiln_attribute conv[] = {
        {.name = "pads", .kind = KILN_ATTRIBUTE_INTS, .ints = pads, .n = 4}};
    const kiln_attribute pool[] = {
        {.name = "kernel_shape", .kind = KILN_ATTRIBUTE_INTS, .ints = kernel, .n = 2},
        {.name = "strides", .kind = KILN_ATTRIBUTE_INTS, .ints = strides, .n = 2},
    };
    kiln_ref_value x =
        kiln_builder_input(b, "x", KILN_DTYPE_F32, 4, (const int64_t[]){-1, 3, 8, 8}, diag);
    kiln_ref_value w = noise(b, 4, (const int64_t[]){8, 3, 3, 3}, diag);
    kiln_ref_value bias = noise(b, 1, (const int64_t[]){8}, diag);
    const kiln_ref_value in[] = {x, w, bias};
    kiln_ref_value y = kiln_builder_node(b, "", "Conv", in, 3, conv, 1, diag);
    y = apply(b, "Relu", y, KILN_NO_VALUE, diag);
    y = kiln_builder_node(b, "", "MaxPool", &y, 1, pool, 2, diag);
    y = apply(b, "Flatten", y, KILN_NO_VALUE, diag);
    kiln_ref_value m = noise(b, 2, (const int64_t[]){128, 10}, diag);
    y = apply(b, "MatMul", y, m, diag);
    (void)kiln_builder_output(b, y, "y", diag);
    return kiln_builder_finish(out, b, diag);
}

/* A convolution that the kernel with several tactics takes, and one that the direct one does. */
static inline kiln_status make_winograd(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    const int64_t pads[] = {1, 1, 1, 1};
    const kiln_attribute conv[] = {
        {.name = "pads", .kind = KILN_ATTRIBUTE_INTS, .ints = pads, .n = 4}};
    kiln_ref_value x =
        kiln_builder_input(b, "x", KILN_DTYPE_F32, 4, (const int64_t[]){-1, 4, 28, 28}, diag);
    kiln_ref_value in[] = {x, noise(b, 4, (const int64_t[]){32, 4, 3, 3}, diag)};
    kiln_ref_value y = kiln_builder_node(b, "", "Conv", in, 2, conv, 1, diag);
    in[0] = apply(b, "Relu", y, KILN_NO_VALUE, diag);
    in[1] = noise(b, 4, (const int64_t[]){32, 32, 3, 3}, diag);
    y = kiln_builder_node(b, "", "Conv", in, 2, conv, 1, diag);
    (void)kiln_builder_output(b, apply(b, "Add", y, in[0], diag), "y", diag);
    return kiln_builder_finish(out, b, diag);
}

/* If: both branches capture x. */
static inline kiln_status make_if(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    kiln_ref_value c = kiln_builder_input(b, "c", KILN_DTYPE_BOOL, 0, NULL, diag);
    kiln_ref_value x =
        kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, (const int64_t[]){-1, 6}, diag);
    kiln_builder *then = kiln_builder_body(b, "then"), *other = kiln_builder_body(b, "else");
    if (!then || !other) {
        kiln_builder_destroy(b);
        return KILN_E_MEMORY;
    }
    kiln_ref_value w = noise(then, 2, (const int64_t[]){6, 6}, diag);
    (void)kiln_builder_output(then, apply(then, "MatMul", x, w, diag), "t", diag);
    (void)kiln_builder_output(other, apply(other, "Add", x, x, diag), "e", diag);
    const kiln_attribute bodies[] = {
        {.name = "then_branch", .kind = KILN_ATTRIBUTE_GRAPH, .graph = then},
        {.name = "else_branch", .kind = KILN_ATTRIBUTE_GRAPH, .graph = other},
    };
    kiln_ref_value y = kiln_builder_node(b, "", "If", &c, 1, bodies, 2, diag);
    (void)kiln_builder_output(b, apply(b, "Sigmoid", y, KILN_NO_VALUE, diag), "y", diag);
    return kiln_builder_finish(out, b, diag);
}

/* Loop: a state that is multiplied each time, and its history as a scan output. */
static inline kiln_status make_loop(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    kiln_ref_value trips = kiln_builder_input(b, "trips", KILN_DTYPE_I64, 0, NULL, diag);
    kiln_ref_value x = kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, (const int64_t[]){4, 4}, diag);
    kiln_ref_value w = noise(b, 2, (const int64_t[]){4, 4}, diag);
    kiln_builder *body = kiln_builder_body(b, "body");
    if (!body) {
        kiln_builder_destroy(b);
        return KILN_E_MEMORY;
    }
    (void)kiln_builder_input(body, "i", KILN_DTYPE_I64, 0, NULL, diag);
    kiln_ref_value go = kiln_builder_input(body, "go", KILN_DTYPE_BOOL, 0, NULL, diag);
    kiln_ref_value s =
        kiln_builder_input(body, "s", KILN_DTYPE_F32, 2, (const int64_t[]){4, 4}, diag);
    kiln_ref_value next =
        apply(body, "Tanh", apply(body, "MatMul", s, w, diag), KILN_NO_VALUE, diag);
    (void)kiln_builder_output(body, apply(body, "Identity", go, KILN_NO_VALUE, diag), "go_on",
                              diag);
    (void)kiln_builder_output(body, next, "next", diag);
    (void)kiln_builder_output(body, apply(body, "Add", next, s, diag), "sum", diag);
    const kiln_attribute a = {.name = "body", .kind = KILN_ATTRIBUTE_GRAPH, .graph = body};
    const kiln_ref_value in[] = {trips, KILN_NO_VALUE, x};
    kiln_ref_value outs[2];
    (void)kiln_builder_nodes(b, "", "Loop", in, 3, &a, 1, outs, 2, diag);
    (void)kiln_builder_output(b, outs[0], "last", diag);
    (void)kiln_builder_output(b, outs[1], "history", diag);
    return kiln_builder_finish(out, b, diag);
}

/* An embedding: integer inputs index a table of constants. */
static inline kiln_status make_embedding(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    kiln_ref_value ids =
        kiln_builder_input(b, "ids", KILN_DTYPE_I64, 2, (const int64_t[]){-1, 5}, diag);
    kiln_ref_value table = noise(b, 2, (const int64_t[]){32, 12}, diag);
    kiln_ref_value y = apply(b, "Gather", table, ids, diag);
    y = apply(b, "Add", y, noise(b, 1, (const int64_t[]){12}, diag), diag);
    y = apply(b, "Softmax", y, KILN_NO_VALUE, diag);
    (void)kiln_builder_output(b, y, "y", diag);
    return kiln_builder_finish(out, b, diag);
}

/* A sequence made, indexed and joined; one graph output is the sequence itself. */
static inline kiln_status make_sequence(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    kiln_ref_value x = kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, (const int64_t[]){6, 4}, diag);
    const int64_t two = 2, one = 1;
    kiln_ref_value parts = apply(b, "SplitToSequence", x, constant_i64(b, 0, 1, &two, diag), diag);
    kiln_ref_value second = apply(b, "SequenceAt", parts, constant_i64(b, 0, 1, &one, diag), diag);
    const kiln_attribute axis = {.name = "axis", .kind = KILN_ATTRIBUTE_INT, .i = 1};
    kiln_ref_value joined =
        kiln_builder_node(b, "", "ConcatFromSequence", &parts, 1, &axis, 1, diag);
    (void)kiln_builder_output(b, apply(b, "Exp", second, KILN_NO_VALUE, diag), "second", diag);
    (void)kiln_builder_output(b, joined, "joined", diag);
    (void)kiln_builder_output(b, parts, "parts", diag);
    return kiln_builder_finish(out, b, diag);
}

/* The number of positive elements decides an output's shape, and of what follows it. */
static inline kiln_status make_nonzero(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    kiln_ref_value x =
        kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, (const int64_t[]){-1, 7}, diag);
    kiln_ref_value found =
        apply(b, "NonZero", apply(b, "Relu", x, KILN_NO_VALUE, diag), KILN_NO_VALUE, diag);
    kiln_ref_value places = apply(b, "Transpose", found, KILN_NO_VALUE, diag);
    (void)kiln_builder_output(b, apply(b, "GatherND", x, places, diag), "positive", diag);
    return kiln_builder_finish(out, b, diag);
}

/* Scan: a running sum along a dynamic axis, and its history as a scan output. */
static inline kiln_status make_scan(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    kiln_ref_value x =
        kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, (const int64_t[]){-1, 6}, diag);
    kiln_ref_value start = noise(b, 1, (const int64_t[]){6}, diag);
    kiln_builder *body = kiln_builder_body(b, "body");
    if (!body) {
        kiln_builder_destroy(b);
        return KILN_E_MEMORY;
    }
    kiln_ref_value sum =
        kiln_builder_input(body, "sum", KILN_DTYPE_F32, 1, (const int64_t[]){6}, diag);
    kiln_ref_value row =
        kiln_builder_input(body, "row", KILN_DTYPE_F32, 1, (const int64_t[]){6}, diag);
    kiln_ref_value next = apply(body, "Add", sum, row, diag);
    (void)kiln_builder_output(body, next, "next", diag);
    (void)kiln_builder_output(body, apply(body, "Tanh", next, KILN_NO_VALUE, diag), "seen", diag);
    const kiln_attribute a[] = {
        {.name = "body", .kind = KILN_ATTRIBUTE_GRAPH, .graph = body},
        {.name = "num_scan_inputs", .kind = KILN_ATTRIBUTE_INT, .i = 1},
    };
    const kiln_ref_value in[] = {start, x};
    kiln_ref_value outs[2];
    (void)kiln_builder_nodes(b, "", "Scan", in, 2, a, 2, outs, 2, diag);
    (void)kiln_builder_output(b, outs[0], "total", diag);
    (void)kiln_builder_output(b, outs[1], "history", diag);
    return kiln_builder_finish(out, b, diag);
}

/* x[first ..] along axis 0. */
static inline kiln_ref_value rows_from(kiln_builder *b, kiln_ref_value x, int64_t first,
                                       kiln_diag *diag) {
    static const int64_t all = INT64_MAX;
    const kiln_ref_value in[] = {x, constant_i64(b, 1, 1, &first, diag),
                                 constant_i64(b, 1, 1, &all, diag)};
    return kiln_builder_node(b, "", "Slice", in, 3, NULL, 0, diag);
}

/* Rows taken out of values and joined again: parts of the input, of one another and of outputs. */
static inline kiln_status make_parts(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    const kiln_attribute axis[] = {{.name = "axis", .kind = KILN_ATTRIBUTE_INT, .i = 0}};
    kiln_ref_value x =
        kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, (const int64_t[]){-1, 6}, diag);
    kiln_ref_value rest = rows_from(b, x, 1, diag), last = rows_from(b, x, -1, diag);
    kiln_ref_value p = apply(b, "Sigmoid", rest, KILN_NO_VALUE, diag);
    kiln_ref_value q = apply(b, "Tanh", last, KILN_NO_VALUE, diag);
    const kiln_ref_value inner[] = {apply(b, "Exp", q, KILN_NO_VALUE, diag),
                                    apply(b, "Neg", p, KILN_NO_VALUE, diag)};
    const kiln_ref_value outer[] = {p, q};
    kiln_ref_value i = kiln_builder_node(b, "", "Concat", inner, 2, axis, 1, diag);
    kiln_ref_value o = kiln_builder_node(b, "", "Concat", outer, 2, axis, 1, diag);
    (void)kiln_builder_output(b, rest, "input_part", diag);
    (void)kiln_builder_output(b, o, "joined", diag);
    (void)kiln_builder_output(b, q, "joined_part", diag);
    (void)kiln_builder_output(b, rows_from(b, i, 1, diag), "inner_part", diag);
    (void)kiln_builder_output(b, apply(b, "Sub", i, o, diag), "difference", diag);
    return kiln_builder_finish(out, b, diag);
}

static const sample samples[] = {
    {"digits", make_digits},     {"conv", make_conv},           {"if", make_if},
    {"loop", make_loop},         {"embedding", make_embedding}, {"sequence", make_sequence},
    {"nonzero", make_nonzero},   {"scan", make_scan},           {"parts", make_parts},
    {"winograd", make_winograd},
};

enum { N_SAMPLES = sizeof samples / sizeof *samples, MAX_INPUTS = 4 };

/* ---- Profiles ---- */

/* Ranges 1..4..8 for all dynamic dims; out has room for MAX_INPUTS of them. */
static inline size_t make_profile(const kiln_model *model, kiln_shape_range *out) {
    kiln_io io;
    size_t n = 0;
    for (size_t i = 0; kiln_model_input(model, i, &io); i++) {
        kiln_shape_range r = {.name = io.name, .rank = io.rank};
        bool dynamic = false;
        for (int32_t d = 0; d < io.rank; d++) {
            bool is_open = io.dims[d] < 0;
            dynamic = dynamic || is_open;
            r.min[d] = is_open ? 1 : io.dims[d];
            r.opt[d] = is_open ? 4 : io.dims[d];
            r.max[d] = is_open ? 8 : io.dims[d];
        }
        if (dynamic) {
            out[n++] = r;
        }
    }
    return n;
}

/* ---- Running ---- */

/* Inputs of an engine, filled from a seed; dynamic dims become `batch`. */
typedef struct input_set {
    kiln_io io[MAX_INPUTS];
    kiln_tensor tensors[MAX_INPUTS];
    size_t n;
} input_set;

static inline void fill_input(kiln_tensor *t, uint32_t *state) {
    int64_t n = kiln_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        *state = *state * 1664525u + 1013904223u;
        uint32_t draw = *state >> 8;
        if (t->dtype == KILN_DTYPE_F32) {
            ((float *)t->data)[i] = (float)draw / (float)(1 << 23) - 1.0f;
        } else if (t->dtype == KILN_DTYPE_I64) {
            ((int64_t *)t->data)[i] = (int64_t)(draw % 7);
        } else if (t->dtype == KILN_DTYPE_BOOL) {
            ((uint8_t *)t->data)[i] = draw & 1;
        } else {
            memset((uint8_t *)t->data + (size_t)i * (size_t)kiln_dtype_bits(t->dtype) / 8, 1,
                   (size_t)kiln_dtype_bits(t->dtype) / 8);
        }
    }
}

/* False when the engine has inputs of other kinds, or above max_bytes. */
static inline bool make_inputs(input_set *s, const kiln_engine *engine, int64_t batch,
                               uint32_t seed, size_t max_bytes) {
    memset(s, 0, sizeof *s);
    for (size_t i = 0; kiln_engine_input(engine, i, &s->io[s->n]); i++) {
        const kiln_io *io = &s->io[s->n];
        kiln_tensor *t = &s->tensors[s->n];
        if (s->n + 1 == MAX_INPUTS || io->is_sequence || kiln_dtype_bits(io->dtype) < 8) {
            return false;
        }
        t->dtype = io->dtype;
        t->rank = io->rank < 0 ? 1 : io->rank;
        for (int32_t d = 0; d < t->rank; d++) {
            t->dims[d] = io->rank < 0 || io->dims[d] < 0 ? batch : io->dims[d];
        }
        if (kiln_tensor_count(t) < 0 || kiln_tensor_bytes(t) > max_bytes) {
            return false;
        }
        t->cap_bytes = kiln_tensor_bytes(t);
        t->data = malloc(t->cap_bytes ? t->cap_bytes : 1);
        s->n++;
        if (!t->data) {
            return false;
        }
        fill_input(t, &seed);
    }
    return true;
}

static inline void free_inputs(input_set *s) {
    for (size_t i = 0; i < s->n; i++) {
        free(s->tensors[i].data);
    }
    s->n = 0;
}

static inline kiln_status bind_inputs(kiln_context *context, const input_set *s, kiln_diag *diag) {
    for (size_t i = 0; i < s->n; i++) {
        KILN_TRY(kiln_context_bind(context, s->io[i].name, &s->tensors[i], diag));
    }
    return KILN_OK;
}

/* All outputs of a run: for each item dtype, rank, dims and elements, one after the other. */
typedef struct outcome {
    uint8_t *bytes;
    size_t len;
} outcome;

static inline void append(outcome *o, const void *src, size_t n) {
    uint8_t *grown = realloc(o->bytes, o->len + n + 1);
    assert_non_null(grown);
    if (n > 0) {
        memcpy(grown + o->len, src, n);
    }
    o->bytes = grown;
    o->len += n;
}

static inline void take_outcome(outcome *o, const kiln_context *context,
                                const kiln_engine *engine) {
    kiln_io io;
    o->len = 0;
    for (size_t i = 0; kiln_engine_output(engine, i, &io); i++) {
        size_t items = kiln_context_output_items(context, i);
        append(o, &items, sizeof items);
        for (size_t k = 0; k < items; k++) {
            const kiln_tensor *t = kiln_context_output_item(context, i, k);
            assert_non_null(t);
            append(o, &t->dtype, sizeof t->dtype);
            append(o, t->dims, (size_t)t->rank * sizeof *t->dims);
            append(o, t->data, kiln_tensor_bytes(t));
        }
    }
}

static inline void free_outcome(outcome *o) {
    free(o->bytes);
    *o = (outcome){0};
}

static inline bool same_outcome(const outcome *a, const outcome *b) {
    return a->len == b->len && a->len > 0 && memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* A context of its own, one run on inputs of this batch and seed. */
static inline kiln_status run_engine(const kiln_engine *engine, int64_t batch, uint32_t seed,
                                     const kiln_context_options *options, outcome *out,
                                     kiln_diag *diag) {
    input_set in;
    kiln_context *context;
    KILN_TRY(kiln_context_create(&context, engine, options, diag));
    assert_true(make_inputs(&in, engine, batch, seed, SIZE_MAX / 2));
    kiln_status status = bind_inputs(context, &in, diag);
    status = status ? status : kiln_context_run(context, diag);
    if (status == KILN_OK && out) {
        take_outcome(out, context, engine);
    }
    kiln_context_destroy(context);
    free_inputs(&in);
    return status;
}

/* ---- Failing with the findings ---- */

static inline void show(const kiln_diag *diag) {
    char text[1024];
    for (size_t i = 0; i < kiln_diag_count(diag); i++) {
        kiln_finding_format(kiln_diag_get(diag, i), text, sizeof text);
        print_error("%s\n", text);
    }
}

#define MUST(diag, call)                                                   \
    do {                                                                   \
        kiln_status must_status = (call);                                  \
        if (must_status != KILN_OK) {                                      \
            show(diag);                                                    \
            print_error("%s: %s\n", #call, kiln_status_name(must_status)); \
        }                                                                  \
        assert_int_equal(must_status, KILN_OK);                            \
    } while (0)

static inline kiln_diag *new_diag(void) {
    kiln_diag *diag;
    assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
    return diag;
}

/* Builds sample i with these options; the model is given back. */
static inline kiln_engine *build_sample(size_t i, const kiln_build_options *options) {
    kiln_diag *diag = new_diag();
    kiln_model *model;
    kiln_engine *engine;
    MUST(diag, samples[i].make(&model, NULL, diag));
    MUST(diag, kiln_engine_build(&engine, model, options, diag));
    kiln_model_destroy(model);
    kiln_diag_destroy(diag);
    return engine;
}

#endif
