/* proto.h - the messages of onnx.proto, as plain structs of views.
 *
 * Decoding is lazy: a struct holds a message's scalar fields, how many elements its repeated fields
 * have, and where its nested messages lie. Repeated fields are walked where they are needed, so
 * that a file full of empty nodes costs nothing.
 *
 *     kiln_pb_graph g;
 *     KILN_TRY(kiln_pb_decode(wire, &kiln_pb_graph_desc, &msg, &g));
 *     kiln_msg at = g.head.self, node;
 *     for (;;) {
 *         KILN_TRY(kiln_pb_each(wire, &at, KILN_PB_GRAPH_NODE, &node));
 *         if (!node.p) { break; }
 *         ...
 *     }
 *
 * A singular field that occurs twice counts as its last occurrence. Unknown fields are skipped;
 * known ones with another wire type are refused.
 */
#ifndef KILN_ONNX_PROTO_H
#define KILN_ONNX_PROTO_H

#include "onnx/wire.h"

/* Every message struct begins with one. */
typedef struct kiln_pb_head {
    kiln_msg self; /* the whole message */
    uint32_t seen; /* bit n: field n is there */
} kiln_pb_head;

static inline bool kiln_pb_has(const kiln_pb_head *head, uint32_t field) {
    return (head->seen >> field & 1) != 0;
}

typedef struct kiln_pb_model {
    kiln_pb_head head;
    int64_t ir_version;
    kiln_view producer_name, producer_version;
    kiln_msg graph;
    size_t n_opset_imports, n_functions;
} kiln_pb_model;

typedef struct kiln_pb_graph {
    kiln_pb_head head;
    kiln_view name;
    size_t n_nodes, n_initializers, n_sparse_initializers, n_inputs, n_outputs;
} kiln_pb_graph;

typedef struct kiln_pb_node {
    kiln_pb_head head;
    kiln_view name, op_type, domain, overload;
    size_t n_inputs, n_outputs, n_attributes;
} kiln_pb_node;

/* AttributeProto.type. */
typedef enum kiln_pb_attr_type {
    KILN_PB_UNDEFINED = 0,
    KILN_PB_FLOAT = 1,
    KILN_PB_INT = 2,
    KILN_PB_STRING = 3,
    KILN_PB_TENSOR = 4,
    KILN_PB_GRAPH = 5,
    KILN_PB_FLOATS = 6,
    KILN_PB_INTS = 7,
    KILN_PB_STRINGS = 8,
    KILN_PB_TENSORS = 9,
    KILN_PB_GRAPHS = 10,
    KILN_PB_SPARSE_TENSOR = 11,
    KILN_PB_SPARSE_TENSORS = 12,
    KILN_PB_TYPE_PROTO = 13,
    KILN_PB_TYPE_PROTOS = 14,
} kiln_pb_attr_type;

typedef struct kiln_pb_attribute {
    kiln_pb_head head;
    kiln_view name, ref_attr_name;
    int64_t type, i;
    float f;
    kiln_view s;
    kiln_msg t, g, tp, sparse_tensor;
    size_t n_floats, n_ints, n_strings;
} kiln_pb_attribute;

typedef struct kiln_pb_tensor {
    kiln_pb_head head;
    kiln_view name;
    int64_t data_type, data_location;
    kiln_view raw_data;
    size_t n_dims, n_float, n_int32, n_string, n_int64, n_double, n_uint64, n_external;
} kiln_pb_tensor;

typedef struct kiln_pb_sparse {
    kiln_pb_head head;
    kiln_msg values, indices;
    size_t n_dims;
} kiln_pb_sparse;

typedef struct kiln_pb_value_info {
    kiln_pb_head head;
    kiln_view name;
    kiln_msg type;
} kiln_pb_value_info;

typedef struct kiln_pb_type {
    kiln_pb_head head;
    kiln_msg tensor, sequence, map, opaque, sparse, optional;
} kiln_pb_type;

/* TypeProto.Tensor; of TypeProto.Sequence and .Optional, `elem` is the element's type. */
typedef struct kiln_pb_tensor_type {
    kiln_pb_head head;
    int64_t elem_type;
    kiln_msg shape;
} kiln_pb_tensor_type;

typedef struct kiln_pb_elem_type {
    kiln_pb_head head;
    kiln_msg elem;
} kiln_pb_elem_type;

typedef struct kiln_pb_shape {
    kiln_pb_head head;
    size_t n_dims;
} kiln_pb_shape;

typedef struct kiln_pb_dim {
    kiln_pb_head head;
    int64_t value;
    kiln_view param;
} kiln_pb_dim;

typedef struct kiln_pb_function {
    kiln_pb_head head;
    kiln_view name, domain, overload;
    size_t n_inputs, n_outputs, n_nodes, n_opset_imports, n_attributes, n_attribute_protos;
} kiln_pb_function;

typedef struct kiln_pb_opset_id {
    kiln_pb_head head;
    kiln_view domain;
    int64_t version;
} kiln_pb_opset_id;

typedef struct kiln_pb_entry { /* StringStringEntryProto; values may be any bytes */
    kiln_pb_head head;
    kiln_view key, value;
} kiln_pb_entry;

typedef struct kiln_pb_sequence { /* SequenceProto, and OptionalProto with at most one element */
    kiln_pb_head head;
    int64_t elem_type;
    size_t n_tensors, n_sequences, n_optionals;
} kiln_pb_sequence;

/* Field numbers of what is walked. */
enum {
    KILN_PB_MODEL_OPSET_IMPORT = 8,
    KILN_PB_MODEL_GRAPH = 7,
    KILN_PB_MODEL_FUNCTIONS = 25,
    KILN_PB_GRAPH_NODE = 1,
    KILN_PB_GRAPH_INITIALIZER = 5,
    KILN_PB_GRAPH_INPUT = 11,
    KILN_PB_GRAPH_OUTPUT = 12,
    KILN_PB_GRAPH_SPARSE_INITIALIZER = 15,
    KILN_PB_NODE_INPUT = 1,
    KILN_PB_NODE_OUTPUT = 2,
    KILN_PB_NODE_ATTRIBUTE = 5,
    KILN_PB_ATTRIBUTE_F = 2,
    KILN_PB_ATTRIBUTE_I = 3,
    KILN_PB_ATTRIBUTE_S = 4,
    KILN_PB_ATTRIBUTE_T = 5,
    KILN_PB_ATTRIBUTE_G = 6,
    KILN_PB_ATTRIBUTE_FLOATS = 7,
    KILN_PB_ATTRIBUTE_INTS = 8,
    KILN_PB_ATTRIBUTE_STRINGS = 9,
    KILN_PB_ATTRIBUTE_GRAPHS = 11,
    KILN_PB_TENSOR_DIMS = 1,
    KILN_PB_TENSOR_FLOAT_DATA = 4,
    KILN_PB_TENSOR_INT32_DATA = 5,
    KILN_PB_TENSOR_STRING_DATA = 6,
    KILN_PB_TENSOR_INT64_DATA = 7,
    KILN_PB_TENSOR_RAW_DATA = 9,
    KILN_PB_TENSOR_DOUBLE_DATA = 10,
    KILN_PB_TENSOR_UINT64_DATA = 11,
    KILN_PB_TENSOR_EXTERNAL_DATA = 13,
    KILN_PB_SPARSE_DIMS = 3,
    KILN_PB_SHAPE_DIM = 1,
    KILN_PB_DIM_VALUE = 1,
    KILN_PB_DIM_PARAM = 2,
    KILN_PB_FUNCTION_INPUT = 4,
    KILN_PB_FUNCTION_OUTPUT = 5,
    KILN_PB_FUNCTION_ATTRIBUTE = 6,
    KILN_PB_FUNCTION_NODE = 7,
    KILN_PB_FUNCTION_OPSET_IMPORT = 9,
    KILN_PB_FUNCTION_ATTRIBUTE_PROTO = 11,
    KILN_PB_SEQUENCE_TENSOR = 3,
    KILN_PB_SEQUENCE_SEQUENCE = 5,
    KILN_PB_SEQUENCE_OPTIONAL = 7,
};

typedef struct kiln_pb_desc kiln_pb_desc;
extern const kiln_pb_desc kiln_pb_model_desc, kiln_pb_graph_desc, kiln_pb_node_desc,
    kiln_pb_attribute_desc, kiln_pb_tensor_desc, kiln_pb_sparse_desc, kiln_pb_value_info_desc,
    kiln_pb_type_desc, kiln_pb_tensor_type_desc, kiln_pb_elem_type_desc, kiln_pb_shape_desc,
    kiln_pb_dim_desc, kiln_pb_function_desc, kiln_pb_opset_id_desc, kiln_pb_entry_desc,
    kiln_pb_sequence_desc;

/* Decodes a message into its struct, which is zeroed first. */
kiln_status kiln_pb_decode(kiln_wire *wire, const kiln_pb_desc *desc, const kiln_msg *msg,
                           void *out);

/* The next occurrence of a repeated message from *at on, which moves behind it; out->p is NULL when
 * there is none. */
kiln_status kiln_pb_each(kiln_wire *wire, kiln_msg *at, uint32_t number, kiln_msg *out);
/* The same for strings; `text` demands UTF-8 without NUL. out->p is NULL at the end. */
kiln_status kiln_pb_each_view(kiln_wire *wire, kiln_msg *at, uint32_t number, bool text,
                              kiln_view *out);
/* How varints become tensor elements: little-endian of `width` bytes, each within [min, max]. */
typedef struct kiln_pb_narrow {
    size_t width;
    int64_t min, max;
    bool from_int32; /* the field is an int32: only the low 32 bits of a varint count */
} kiln_pb_narrow;
/* All elements of a repeated varint field of `msg`, packed or not, `count` as counted by decode.
 * narrow == NULL: int64s. */
kiln_status kiln_pb_varints(kiln_wire *wire, const kiln_msg *msg, uint32_t number, void *dst,
                            size_t count, const kiln_pb_narrow *narrow);
/* The same for fixed-width fields: their little-endian bytes. */
kiln_status kiln_pb_fixed(kiln_wire *wire, const kiln_msg *msg, uint32_t number, void *dst,
                          size_t count, size_t item_bytes);
/* The bytes of such a fixed-width field if they lie in one packed run, else p == NULL. */
kiln_status kiln_pb_fixed_view(kiln_wire *wire, const kiln_msg *msg, uint32_t number, size_t bytes,
                               kiln_view *out);

#endif
