/* proto.c - tables of onnx.proto's messages, and the one decoder that reads them. */
#include "onnx/proto.h"

#include <string.h>

#include "base/text.h"

typedef enum row_kind {
    ROW_INT,     /* varint -> int64_t */
    ROW_FLOAT,   /* fixed32 -> float */
    ROW_TEXT,    /* -> kiln_view: UTF-8 without NUL, of bounded length */
    ROW_BYTES,   /* -> kiln_view */
    ROW_MSG,     /* -> kiln_msg */
    ROW_COUNT,   /* repeated messages or strings -> size_t */
    ROW_VARINTS, /* repeated varints, packed or not -> size_t */
    ROW_FIXED32,
    ROW_FIXED64,
} row_kind;

typedef struct row {
    uint32_t number;
    row_kind kind;
    size_t offset;
} row;

struct kiln_pb_desc {
    const char *name;
    const row *rows;
    size_t n_rows;
    size_t bytes;
};

#define R(type, number, kind, field) \
    { number, kind, offsetof(type, field) }
#define DESC(id, text)                                                                   \
    const kiln_pb_desc kiln_pb_##id##_desc = {text, id##_rows, KILN_COUNT_OF(id##_rows), \
                                              sizeof(kiln_pb_##id)}

static const row model_rows[] = {
    R(kiln_pb_model, 1, ROW_INT, ir_version),
    R(kiln_pb_model, 2, ROW_TEXT, producer_name),
    R(kiln_pb_model, 3, ROW_TEXT, producer_version),
    R(kiln_pb_model, KILN_PB_MODEL_GRAPH, ROW_MSG, graph),
    R(kiln_pb_model, KILN_PB_MODEL_OPSET_IMPORT, ROW_COUNT, n_opset_imports),
    R(kiln_pb_model, KILN_PB_MODEL_FUNCTIONS, ROW_COUNT, n_functions),
};
DESC(model, "ModelProto");

static const row graph_rows[] = {
    R(kiln_pb_graph, KILN_PB_GRAPH_NODE, ROW_COUNT, n_nodes),
    R(kiln_pb_graph, 2, ROW_TEXT, name),
    R(kiln_pb_graph, KILN_PB_GRAPH_INITIALIZER, ROW_COUNT, n_initializers),
    R(kiln_pb_graph, KILN_PB_GRAPH_INPUT, ROW_COUNT, n_inputs),
    R(kiln_pb_graph, KILN_PB_GRAPH_OUTPUT, ROW_COUNT, n_outputs),
    R(kiln_pb_graph, KILN_PB_GRAPH_SPARSE_INITIALIZER, ROW_COUNT, n_sparse_initializers),
};
DESC(graph, "GraphProto");

static const row node_rows[] = {
    R(kiln_pb_node, KILN_PB_NODE_INPUT, ROW_COUNT, n_inputs),
    R(kiln_pb_node, KILN_PB_NODE_OUTPUT, ROW_COUNT, n_outputs),
    R(kiln_pb_node, 3, ROW_TEXT, name),
    R(kiln_pb_node, 4, ROW_TEXT, op_type),
    R(kiln_pb_node, KILN_PB_NODE_ATTRIBUTE, ROW_COUNT, n_attributes),
    R(kiln_pb_node, 7, ROW_TEXT, domain),
    R(kiln_pb_node, 8, ROW_TEXT, overload),
};
DESC(node, "NodeProto");

static const row attribute_rows[] = {
    R(kiln_pb_attribute, 1, ROW_TEXT, name),
    R(kiln_pb_attribute, KILN_PB_ATTRIBUTE_F, ROW_FLOAT, f),
    R(kiln_pb_attribute, KILN_PB_ATTRIBUTE_I, ROW_INT, i),
    R(kiln_pb_attribute, KILN_PB_ATTRIBUTE_S, ROW_BYTES, s),
    R(kiln_pb_attribute, KILN_PB_ATTRIBUTE_T, ROW_MSG, t),
    R(kiln_pb_attribute, KILN_PB_ATTRIBUTE_G, ROW_MSG, g),
    R(kiln_pb_attribute, KILN_PB_ATTRIBUTE_FLOATS, ROW_FIXED32, n_floats),
    R(kiln_pb_attribute, KILN_PB_ATTRIBUTE_INTS, ROW_VARINTS, n_ints),
    R(kiln_pb_attribute, KILN_PB_ATTRIBUTE_STRINGS, ROW_COUNT, n_strings),
    R(kiln_pb_attribute, 14, ROW_MSG, tp),
    R(kiln_pb_attribute, 20, ROW_INT, type),
    R(kiln_pb_attribute, 21, ROW_TEXT, ref_attr_name),
    R(kiln_pb_attribute, 22, ROW_MSG, sparse_tensor),
};
DESC(attribute, "AttributeProto");

static const row tensor_rows[] = {
    R(kiln_pb_tensor, KILN_PB_TENSOR_DIMS, ROW_VARINTS, n_dims),
    R(kiln_pb_tensor, 2, ROW_INT, data_type),
    R(kiln_pb_tensor, KILN_PB_TENSOR_FLOAT_DATA, ROW_FIXED32, n_float),
    R(kiln_pb_tensor, KILN_PB_TENSOR_INT32_DATA, ROW_VARINTS, n_int32),
    R(kiln_pb_tensor, KILN_PB_TENSOR_STRING_DATA, ROW_COUNT, n_string),
    R(kiln_pb_tensor, KILN_PB_TENSOR_INT64_DATA, ROW_VARINTS, n_int64),
    R(kiln_pb_tensor, 8, ROW_TEXT, name),
    R(kiln_pb_tensor, KILN_PB_TENSOR_RAW_DATA, ROW_BYTES, raw_data),
    R(kiln_pb_tensor, KILN_PB_TENSOR_DOUBLE_DATA, ROW_FIXED64, n_double),
    R(kiln_pb_tensor, KILN_PB_TENSOR_UINT64_DATA, ROW_VARINTS, n_uint64),
    R(kiln_pb_tensor, KILN_PB_TENSOR_EXTERNAL_DATA, ROW_COUNT, n_external),
    R(kiln_pb_tensor, 14, ROW_INT, data_location),
};
DESC(tensor, "TensorProto");

static const row sparse_rows[] = {
    R(kiln_pb_sparse, 1, ROW_MSG, values),
    R(kiln_pb_sparse, 2, ROW_MSG, indices),
    R(kiln_pb_sparse, KILN_PB_SPARSE_DIMS, ROW_VARINTS, n_dims),
};
DESC(sparse, "SparseTensorProto");

static const row value_info_rows[] = {
    R(kiln_pb_value_info, 1, ROW_TEXT, name),
    R(kiln_pb_value_info, 2, ROW_MSG, type),
};
DESC(value_info, "ValueInfoProto");

static const row type_rows[] = {
    R(kiln_pb_type, 1, ROW_MSG, tensor), R(kiln_pb_type, 4, ROW_MSG, sequence),
    R(kiln_pb_type, 5, ROW_MSG, map),    R(kiln_pb_type, 7, ROW_MSG, opaque),
    R(kiln_pb_type, 8, ROW_MSG, sparse), R(kiln_pb_type, 9, ROW_MSG, optional),
};
DESC(type, "TypeProto");

static const row tensor_type_rows[] = {
    R(kiln_pb_tensor_type, 1, ROW_INT, elem_type),
    R(kiln_pb_tensor_type, 2, ROW_MSG, shape),
};
DESC(tensor_type, "TypeProto.Tensor");

static const row elem_type_rows[] = {R(kiln_pb_elem_type, 1, ROW_MSG, elem)};
DESC(elem_type, "TypeProto.Sequence");

static const row shape_rows[] = {R(kiln_pb_shape, KILN_PB_SHAPE_DIM, ROW_COUNT, n_dims)};
DESC(shape, "TensorShapeProto");

static const row dim_rows[] = {
    R(kiln_pb_dim, KILN_PB_DIM_VALUE, ROW_INT, value),
    R(kiln_pb_dim, KILN_PB_DIM_PARAM, ROW_TEXT, param),
};
DESC(dim, "TensorShapeProto.Dimension");

static const row function_rows[] = {
    R(kiln_pb_function, 1, ROW_TEXT, name),
    R(kiln_pb_function, KILN_PB_FUNCTION_INPUT, ROW_COUNT, n_inputs),
    R(kiln_pb_function, KILN_PB_FUNCTION_OUTPUT, ROW_COUNT, n_outputs),
    R(kiln_pb_function, KILN_PB_FUNCTION_ATTRIBUTE, ROW_COUNT, n_attributes),
    R(kiln_pb_function, KILN_PB_FUNCTION_NODE, ROW_COUNT, n_nodes),
    R(kiln_pb_function, KILN_PB_FUNCTION_OPSET_IMPORT, ROW_COUNT, n_opset_imports),
    R(kiln_pb_function, 10, ROW_TEXT, domain),
    R(kiln_pb_function, KILN_PB_FUNCTION_ATTRIBUTE_PROTO, ROW_COUNT, n_attribute_protos),
    R(kiln_pb_function, 13, ROW_TEXT, overload),
};
DESC(function, "FunctionProto");

static const row opset_id_rows[] = {
    R(kiln_pb_opset_id, 1, ROW_TEXT, domain),
    R(kiln_pb_opset_id, 2, ROW_INT, version),
};
DESC(opset_id, "OperatorSetIdProto");

static const row entry_rows[] = {
    R(kiln_pb_entry, 1, ROW_BYTES, key),
    R(kiln_pb_entry, 2, ROW_BYTES, value),
};
DESC(entry, "StringStringEntryProto");

static const row sequence_rows[] = {
    R(kiln_pb_sequence, 2, ROW_INT, elem_type),
    R(kiln_pb_sequence, KILN_PB_SEQUENCE_TENSOR, ROW_COUNT, n_tensors),
    R(kiln_pb_sequence, KILN_PB_SEQUENCE_SEQUENCE, ROW_COUNT, n_sequences),
    R(kiln_pb_sequence, KILN_PB_SEQUENCE_OPTIONAL, ROW_COUNT, n_optionals),
};
DESC(sequence, "SequenceProto");

static kiln_status wrong_type(kiln_wire *wire, const char *message, const kiln_field *f) {
    kiln_diag_at_offset(wire->diag, kiln_wire_offset(wire, f->at));
    kiln_status status = kiln_fail(wire->diag, KILN_F_WIRE_TYPE, "field %u of %s has wire type %d",
                                   f->number, message, (int)f->type);
    kiln_diag_at_offset(wire->diag, -1);
    return status;
}

static kiln_status check_text(kiln_wire *wire, const kiln_field *f) {
    const char *text = (const char *)f->data;
    bool nul = f->len && memchr(text, 0, f->len);
    if (f->len <= wire->max_name && !nul && kiln_utf8_valid(text, f->len)) {
        return KILN_OK;
    }
    kiln_diag_at_offset(wire->diag, kiln_wire_offset(wire, f->at));
    kiln_status status =
        f->len > wire->max_name
            ? kiln_fail(wire->diag, KILN_F_GRAPH_LIMIT,
                        "a name has %zu bytes, the limit is %u (name_bytes)", f->len,
                        wire->max_name)
            : kiln_fail(wire->diag, KILN_F_WIRE_TEXT, "%s",
                        nul ? "a name holds a NUL byte" : "a name is not valid UTF-8");
    kiln_diag_at_offset(wire->diag, -1);
    return status;
}

/* Number of elements one occurrence of a repeated number field holds; 0 with *ok false when the
 * wire type does not fit. */
static size_t count_numbers(const kiln_field *f, row_kind kind, bool *ok) {
    *ok = true;
    if (f->type == KILN_WIRE_LEN) {
        switch (kind) {
        case ROW_VARINTS:
            *ok = f->len == 0 || f->data[f->len - 1] < 0x80;
            return kiln_wire_count_varints(f->data, f->len);
        case ROW_FIXED32:
            *ok = f->len % 4 == 0;
            return f->len / 4;
        default:
            *ok = f->len % 8 == 0;
            return f->len / 8;
        }
    }
    *ok = (kind == ROW_VARINTS && f->type == KILN_WIRE_VARINT) ||
          (kind == ROW_FIXED32 && f->type == KILN_WIRE_I32) ||
          (kind == ROW_FIXED64 && f->type == KILN_WIRE_I64);
    return *ok ? 1 : 0;
}

static void add(void *field, size_t n) {
    size_t count;
    memcpy(&count, field, sizeof count);
    count += n;
    memcpy(field, &count, sizeof count);
}

static kiln_status store_view(kiln_wire *wire, const kiln_field *f, bool text, void *field) {
    if (text) {
        KILN_TRY(check_text(wire, f));
    }
    kiln_view view = {(const char *)f->data, f->len};
    memcpy(field, &view, sizeof view);
    return KILN_OK;
}

static kiln_status store(kiln_wire *wire, const kiln_pb_desc *desc, const row *r,
                         const kiln_msg *parent, const kiln_field *f, void *field) {
    static const kiln_wire_type wanted[] = {
        [ROW_INT] = KILN_WIRE_VARINT, [ROW_FLOAT] = KILN_WIRE_I32, [ROW_TEXT] = KILN_WIRE_LEN,
        [ROW_BYTES] = KILN_WIRE_LEN,  [ROW_MSG] = KILN_WIRE_LEN,   [ROW_COUNT] = KILN_WIRE_LEN};
    if (r->kind >= ROW_VARINTS) {
        bool ok;
        add(field, count_numbers(f, r->kind, &ok));
        return ok ? KILN_OK : wrong_type(wire, desc->name, f);
    }
    if (f->type != wanted[r->kind]) {
        return wrong_type(wire, desc->name, f);
    }
    switch (r->kind) {
    case ROW_INT:
        memcpy(field, &f->bits, sizeof(int64_t));
        return KILN_OK;
    case ROW_FLOAT: {
        uint32_t bits = (uint32_t)f->bits;
        memcpy(field, &bits, sizeof(float));
        return KILN_OK;
    }
    case ROW_TEXT:
        return store_view(wire, f, true, field);
    case ROW_BYTES:
        return store_view(wire, f, false, field);
    case ROW_MSG: {
        kiln_msg sub;
        KILN_TRY(kiln_wire_enter(wire, parent, f, &sub));
        memcpy(field, &sub, sizeof sub);
        return KILN_OK;
    }
    default:
        add(field, 1);
        return KILN_OK;
    }
}

kiln_status kiln_pb_decode(kiln_wire *wire, const kiln_pb_desc *desc, const kiln_msg *msg,
                           void *out) {
    kiln_pb_head head = {.self = *msg};
    kiln_msg at = *msg;
    memset(out, 0, desc->bytes);
    while (kiln_wire_more(&at)) {
        kiln_field f;
        KILN_TRY(kiln_wire_next(wire, &at, &f));
        for (size_t i = 0; i < desc->n_rows; i++) {
            const row *r = &desc->rows[i];
            if (r->number == f.number) {
                head.seen |= UINT32_C(1) << f.number;
                KILN_TRY(store(wire, desc, r, msg, &f, (char *)out + r->offset));
                break;
            }
        }
    }
    memcpy(out, &head, sizeof head);
    return KILN_OK;
}

/* The next field `number` of type LEN from *at on; *found tells whether there is one. */
static kiln_status find(kiln_wire *wire, kiln_msg *at, uint32_t number, kiln_field *f,
                        bool *found) {
    while (kiln_wire_more(at)) {
        KILN_TRY(kiln_wire_next(wire, at, f));
        if (f->number == number && f->type == KILN_WIRE_LEN) {
            *found = true;
            return KILN_OK;
        }
    }
    *found = false;
    return KILN_OK;
}

kiln_status kiln_pb_each(kiln_wire *wire, kiln_msg *at, uint32_t number, kiln_msg *out) {
    kiln_field f;
    bool found;
    KILN_TRY(find(wire, at, number, &f, &found));
    if (!found) {
        out->p = out->end = NULL;
        return KILN_OK;
    }
    return kiln_wire_enter(wire, at, &f, out);
}

kiln_status kiln_pb_each_view(kiln_wire *wire, kiln_msg *at, uint32_t number, bool text,
                              kiln_view *out) {
    kiln_field f;
    bool found;
    KILN_TRY(find(wire, at, number, &f, &found));
    if (!found) {
        *out = kiln_view_of(NULL, 0);
        return KILN_OK;
    }
    return store_view(wire, &f, text, out);
}

/* Element i of a repeated varint field. */
static kiln_status put_varint(kiln_wire *wire, void *dst, size_t i, uint64_t bits,
                              const kiln_pb_narrow *narrow) {
    int64_t v = (int64_t)bits;
    if (!narrow) {
        ((int64_t *)dst)[i] = v;
        return KILN_OK;
    }
    if (narrow->from_int32) {
        v = (int32_t)(uint32_t)bits;
    }
    if (v < narrow->min || v > narrow->max) {
        return kiln_fail(wire->diag, KILN_F_INITIALIZER,
                         "element %zu of a tensor is %lld, which its type cannot hold", i,
                         (long long)v);
    }
    memcpy((char *)dst + i * narrow->width, &v, narrow->width);
    return KILN_OK;
}

kiln_status kiln_pb_varints(kiln_wire *wire, const kiln_msg *msg, uint32_t number, void *dst,
                            size_t count, const kiln_pb_narrow *narrow) {
    kiln_msg at = *msg;
    size_t n = 0;
    while (kiln_wire_more(&at)) {
        kiln_field f;
        KILN_TRY(kiln_wire_next(wire, &at, &f));
        if (f.number != number) {
            continue;
        }
        if (f.type == KILN_WIRE_VARINT && n < count) {
            KILN_TRY(put_varint(wire, dst, n++, f.bits, narrow));
        }
        for (const uint8_t *p = f.data, *end = f.data + f.len; p < end && n < count;) {
            uint64_t v;
            KILN_TRY(kiln_wire_varint(wire, &p, end, &v));
            KILN_TRY(put_varint(wire, dst, n++, v, narrow));
        }
    }
    return KILN_OK;
}

kiln_status kiln_pb_fixed(kiln_wire *wire, const kiln_msg *msg, uint32_t number, void *dst,
                          size_t count, size_t item_bytes) {
    kiln_msg at = *msg;
    char *to = dst;
    size_t left = count * item_bytes;
    while (kiln_wire_more(&at)) {
        kiln_field f;
        KILN_TRY(kiln_wire_next(wire, &at, &f));
        if (f.number == number && f.len <= left) {
            memcpy(to, f.data, f.len);
            to += f.len;
            left -= f.len;
        }
    }
    return KILN_OK;
}

kiln_status kiln_pb_fixed_view(kiln_wire *wire, const kiln_msg *msg, uint32_t number, size_t bytes,
                               kiln_view *out) {
    kiln_msg at = *msg;
    *out = kiln_view_of(NULL, 0);
    while (kiln_wire_more(&at)) {
        kiln_field f;
        KILN_TRY(kiln_wire_next(wire, &at, &f));
        if (f.number == number && f.len == bytes) {
            *out = kiln_view_of((const char *)f.data, f.len);
            return KILN_OK;
        }
    }
    return KILN_OK;
}
