/* graph.h - build a model in memory, node by node, instead of loading one from a file.
 *
 *     kiln_builder *b;
 *     kiln_builder_create(&b, NULL);
 *     kiln_ref_value x = kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, (const int64_t[]){-1, 64},
 *     diag);
 *     kiln_ref_value w = kiln_builder_constant(b, "w", &weights, diag);
 *     const kiln_ref_value in[] = {x, w};
 *     kiln_ref_value y = kiln_builder_node(b, "", "MatMul", in, 2, NULL, 0, diag);
 *     kiln_builder_output(b, y, "y", diag);
 *     kiln_model *model;
 *     kiln_builder_finish(&model, b, diag);       // then as with a loaded model
 *
 * Operators and attributes are ONNX's in their newest form (kiln_model_op lists names;
 * docs/operators.md). The first failure makes the builder fail: later calls return KILN_NO_VALUE
 * and finish returns the status, so that calls need not be checked one by one. One thread at a
 * time. */
#ifndef KILN_GRAPH_H
#define KILN_GRAPH_H

#include "kiln/kiln.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kiln_builder kiln_builder;

/* A value of a builder. */
typedef int32_t kiln_ref_value;
/* Stands for an optional input that is left out, and is what failed calls return. */
#define KILN_NO_VALUE ((kiln_ref_value)-1)

typedef enum kiln_attribute_kind {
    KILN_ATTRIBUTE_INT,
    KILN_ATTRIBUTE_FLOAT,
    KILN_ATTRIBUTE_STRING,
    KILN_ATTRIBUTE_INTS,
    KILN_ATTRIBUTE_FLOATS,
    KILN_ATTRIBUTE_TENSOR,
    KILN_ATTRIBUTE_GRAPH,
} kiln_attribute_kind;

/* An attribute: `name`, `kind` and the member that belongs to it. Everything is copied. */
typedef struct kiln_attribute {
    const char *name;
    kiln_attribute_kind kind;
    int64_t i;
    float f;
    const char *s;
    const int64_t *ints;
    const float *floats;
    size_t n; /* items of ints or floats */
    const kiln_tensor *t;
    kiln_builder *graph; /* a body made by kiln_builder_body, complete with inputs and outputs */
} kiln_attribute;

/* An empty builder. */
KILN_API kiln_status kiln_builder_create(kiln_builder **out, const kiln_env *env);
/* A builder for a body graph (If, Loop, Scan) of a node of `parent`. Values of the parent may be
 * used in it. It belongs to the parent and is given back with it. NULL after a failure. */
KILN_API kiln_builder *kiln_builder_body(kiln_builder *parent, const char *name);
/* Gives back a builder that was not finished. */
KILN_API void kiln_builder_destroy(kiln_builder *builder);

/* A tensor input; dims of -1 are dynamic; rank -1: any shape. */
KILN_API kiln_ref_value kiln_builder_input(kiln_builder *builder, const char *name,
                                           kiln_dtype dtype, int32_t rank, const int64_t *dims,
                                           kiln_diag *diag);
/* A constant; the data is copied. A NULL name gets a fresh one. */
KILN_API kiln_ref_value kiln_builder_constant(kiln_builder *builder, const char *name,
                                              const kiln_tensor *tensor, kiln_diag *diag);
/* A node with one output. */
KILN_API kiln_ref_value kiln_builder_node(kiln_builder *builder, const char *domain, const char *op,
                                          const kiln_ref_value *inputs, size_t n_inputs,
                                          const kiln_attribute *attributes, size_t n_attributes,
                                          kiln_diag *diag);
/* A node with n_outputs outputs, written to `outputs`. Errors: UNSUPPORTED (operator), MALFORMED
 * (attribute, number of inputs or outputs). */
KILN_API kiln_status kiln_builder_nodes(kiln_builder *builder, const char *domain, const char *op,
                                        const kiln_ref_value *inputs, size_t n_inputs,
                                        const kiln_attribute *attributes, size_t n_attributes,
                                        kiln_ref_value *outputs, size_t n_outputs, kiln_diag *diag);
/* Makes a value a graph output under this name. */
KILN_API kiln_status kiln_builder_output(kiln_builder *builder, kiln_ref_value value,
                                         const char *name, kiln_diag *diag);

/* Checks the graph, infers all types and turns the builder into a model; the builder is gone,
 * also after a failure. */
KILN_API kiln_status kiln_builder_finish(kiln_model **out, kiln_builder *builder, kiln_diag *diag);

#ifdef __cplusplus
}
#endif

#endif /* KILN_GRAPH_H */
