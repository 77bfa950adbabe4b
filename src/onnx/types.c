/* types.c - TypeProto to kiln_type. */
#include <string.h>

#include "onnx/import.h"

enum { MAX_TYPE_DEPTH = 4 }; /* sequences and optionals around a tensor */

static kiln_status dim_symbol(kiln_importer *im, kiln_view param, kiln_view name, size_t i,
                              kiln_dim *out) {
    const char *text = param.n ? kiln_arena_text(im->arena, param.p, param.n)
                               : kiln_arena_printf(im->arena, "%.*s_d%zu", (int)name.n, name.p, i);
    if (!text) {
        return KILN_E_MEMORY;
    }
    *out = kiln_dim_symbol(im->dims, text);
    return *out == KILN_DIM_UNKNOWN ? KILN_E_MEMORY : KILN_OK;
}

static kiln_status tensor_shape(kiln_importer *im, const kiln_msg *msg, kiln_view name, bool body,
                                kiln_type *out) {
    kiln_pb_shape shape;
    kiln_msg at, sub;
    kiln_dim *dims;
    KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_shape_desc, msg, &shape));
    if (shape.n_dims > KILN_MAX_RANK) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT,
                         "\"%.*s\" has %zu dims, at most %d are possible", (int)name.n, name.p,
                         shape.n_dims, KILN_MAX_RANK);
    }
    KILN_ALLOC(dims, im->arena, shape.n_dims);
    at = shape.head.self;
    for (size_t i = 0; i < shape.n_dims; i++) {
        kiln_pb_dim dim;
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, KILN_PB_SHAPE_DIM, &sub));
        KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_dim_desc, &sub, &dim));
        if (kiln_pb_has(&dim.head, KILN_PB_DIM_VALUE) && dim.value >= 0 && dim.param.n == 0) {
            dims[i] = dim.value;
        } else if (body) {
            dims[i] = KILN_DIM_UNKNOWN;
        } else {
            KILN_TRY(dim_symbol(im, dim.param, name, i, &dims[i]));
        }
    }
    out->rank = (int32_t)shape.n_dims;
    out->dims = dims;
    return KILN_OK;
}

static kiln_status tensor_type(kiln_importer *im, const kiln_msg *msg, kiln_view name, bool body,
                               kiln_type *out) {
    kiln_pb_tensor_type pb;
    KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_tensor_type_desc, msg, &pb));
    out->kind = KILN_KIND_TENSOR;
    out->rank = KILN_RANK_UNKNOWN;
    KILN_TRY(kiln_decode_dtype(&im->d, pb.elem_type, &out->dtype));
    return pb.shape.p ? tensor_shape(im, &pb.shape, name, body, out) : KILN_OK;
}

kiln_status kiln_import_type(kiln_importer *im, const kiln_msg *msg, kiln_view name, bool body,
                             kiln_type *out) {
    kiln_msg at = *msg;
    memset(out, 0, sizeof *out);
    for (int depth = 0; depth <= MAX_TYPE_DEPTH; depth++) {
        kiln_pb_type pb;
        kiln_pb_elem_type elem;
        kiln_type *inner;
        KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_type_desc, &at, &pb));
        if (pb.tensor.p) {
            return tensor_type(im, &pb.tensor, name, body, out);
        }
        if (!pb.sequence.p && !pb.optional.p) {
            bool named = pb.map.p || pb.sparse.p || pb.opaque.p;
            if (!named && depth == 0) {
                return KILN_OK;
            }
            return kiln_fail(im->d.diag, KILN_F_DTYPE_UNKNOWN,
                             "\"%.*s\" is no tensor, sequence or optional", (int)name.n, name.p);
        }
        out->kind = pb.sequence.p ? KILN_KIND_SEQUENCE : KILN_KIND_OPTIONAL;
        KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_elem_type_desc,
                                pb.sequence.p ? &pb.sequence : &pb.optional, &elem));
        KILN_ALLOC(inner, im->arena, 1);
        out->elem = inner;
        if (!elem.elem.p) {
            return kiln_fail(im->d.diag, KILN_F_GRAPH, "the elements of \"%.*s\" have no type",
                             (int)name.n, name.p);
        }
        at = elem.elem;
        out = inner;
    }
    return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT,
                     "the type of \"%.*s\" is nested deeper than %d", (int)name.n, name.p,
                     MAX_TYPE_DEPTH);
}

kiln_status kiln_type_spell(kiln_importer *im, const kiln_msg *msg, const char **out) {
    static const char *const heads[] = {[KILN_KIND_TENSOR] = "tensor(",
                                        [KILN_KIND_SEQUENCE] = "seq(",
                                        [KILN_KIND_OPTIONAL] = "optional("};
    kiln_type type;
    const char *text = "", *tail = "";
    KILN_TRY(kiln_import_type(im, msg, kiln_view_of("type", 4), true, &type));
    for (const kiln_type *t = &type; t && t->kind != KILN_KIND_NONE && text && tail; t = t->elem) {
        text = kiln_arena_printf(im->arena, "%s%s%s", text, heads[t->kind],
                                 t->kind == KILN_KIND_TENSOR ? kiln_dtype_name(t->dtype) : "");
        tail = kiln_arena_printf(im->arena, "%s)", tail);
    }
    *out = text && tail ? kiln_arena_printf(im->arena, "%s%s", text, tail) : NULL;
    return *out ? KILN_OK : KILN_E_MEMORY;
}
