/* tiny_onnx.h - small ONNX files written field by field, for models that the builder cannot make:
 * symbols that inputs share, sequences, optionals. Field numbers are those of onnx.proto.
 *
 *     kiln_out out = {.arena = &arena};
 *     size_t graph = tiny_begin(&out);
 *     tiny_node(&out, "Add", "a", "b", "y");
 *     tiny_value(&out, TINY_INPUT, "a", TINY_TENSOR, KILN_DTYPE_F32, "N,4");
 *     ...
 *     tiny_end(&out, graph);
 *     kiln_model_load_memory(&model, env, out.data, out.len, NULL, diag);
 */
#ifndef KILN_TESTS_ENGINE_TINY_ONNX_H
#define KILN_TESTS_ENGINE_TINY_ONNX_H

#include "engine/samples.h"
#include "onnx/wire.h"

enum {
    TINY_INPUT = 11, /* fields of GraphProto */
    TINY_OUTPUT = 12,
    TINY_TENSOR = 0, /* a tensor itself, or fields of TypeProto around it */
    TINY_SEQUENCE = 4,
    TINY_OPTIONAL = 9,
};

static inline size_t tiny_begin(kiln_out *out) {
    kiln_out_varint(out, 1, 8);
    size_t graph = kiln_out_begin(out, 7);
    kiln_out_text(out, 2, "tiny");
    return graph;
}

static inline void tiny_end(kiln_out *out, size_t graph) {
    kiln_out_end(out, graph);
    size_t opset = kiln_out_begin(out, 8);
    kiln_out_varint(out, 2, 18);
    kiln_out_end(out, opset);
    assert_false(out->failed);
}

/* dims: "N,4", or NULL for a tensor whose rank is not known. */
static inline void tiny_tensor_type(kiln_out *out, kiln_dtype dtype, const char *dims) {
    size_t tensor = kiln_out_begin(out, 1);
    kiln_out_varint(out, 1, (uint64_t)dtype);
    if (dims) {
        size_t shape = kiln_out_begin(out, 2);
        while (*dims) {
            char word[32];
            size_t n = strcspn(dims, ","), dim = kiln_out_begin(out, 1);
            snprintf(word, sizeof word, "%.*s", (int)n, dims);
            if (*word >= '0' && *word <= '9') {
                kiln_out_varint(out, 1, (uint64_t)strtoll(word, NULL, 10));
            } else {
                kiln_out_text(out, 2, word);
            }
            kiln_out_end(out, dim);
            dims += n + (dims[n] == ',');
        }
        kiln_out_end(out, shape);
    }
    kiln_out_end(out, tensor);
}

static inline void tiny_value(kiln_out *out, uint32_t field, const char *name, uint32_t container,
                              kiln_dtype dtype, const char *dims) {
    size_t value = kiln_out_begin(out, field);
    kiln_out_text(out, 1, name);
    size_t type = kiln_out_begin(out, 2);
    if (container != TINY_TENSOR) {
        size_t outer = kiln_out_begin(out, container), elem = kiln_out_begin(out, 1);
        tiny_tensor_type(out, dtype, dims);
        kiln_out_end(out, elem);
        kiln_out_end(out, outer);
    } else {
        tiny_tensor_type(out, dtype, dims);
    }
    kiln_out_end(out, type);
    kiln_out_end(out, value);
}

/* A node of one or two inputs, named after its output. axis: that attribute, or -1. */
static inline void tiny_node(kiln_out *out, const char *op, const char *a, const char *b,
                             const char *to, int64_t axis) {
    size_t node = kiln_out_begin(out, 1);
    kiln_out_text(out, 1, a);
    if (b) {
        kiln_out_text(out, 1, b);
    }
    kiln_out_text(out, 2, to);
    kiln_out_text(out, 3, to);
    kiln_out_text(out, 4, op);
    if (axis >= 0) {
        size_t attribute = kiln_out_begin(out, 5);
        kiln_out_text(out, 1, "axis");
        kiln_out_varint(out, 3, (uint64_t)axis);
        kiln_out_varint(out, 20, 2); /* INT */
        kiln_out_end(out, attribute);
    }
    kiln_out_end(out, node);
}

#endif
