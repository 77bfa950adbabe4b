/* constant.c - the seven ways a Constant node says what it holds. */
#include <string.h>

#include "onnx/import.h"

static kiln_tensor tensor_of(kiln_dtype dtype, int32_t rank, int64_t n, const void *data,
                             size_t bytes) {
    kiln_tensor t = {.dtype = dtype, .rank = rank, .dims = {n}, .cap_bytes = bytes};
    t.data = (void *)(uintptr_t)data;
    if (rank == 0) {
        t.dims[0] = 0;
    }
    return t;
}

static kiln_status scalar(kiln_importer *im, kiln_dtype dtype, const void *src, size_t bytes,
                          kiln_tensor *t) {
    void *data = kiln_arena_copy(im->arena, src, bytes);
    *t = tensor_of(dtype, 0, 0, data, bytes);
    return data ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_import_constant_node(kiln_importer *im, kiln_source *s, kiln_stored_tensor *out) {
    memset(out, 0, sizeof *out);
    if (s->n_attrs != 1) {
        return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE,
                         "a Constant has one attribute, this one has %d", s->n_attrs);
    }
    const kiln_source_attr *a = &s->attrs[0];
    kiln_tensor *t = &out->tensor;
    kiln_ints ints;
    kiln_floats floats;
    kiln_strings strings;
    const char *text;
    if (kiln_view_is(a->pb.name, "value") && a->pb.type == KILN_PB_TENSOR && a->pb.t.p) {
        return kiln_decode_tensor(&im->d, &a->pb.t, out);
    }
    if (kiln_view_is(a->pb.name, "sparse_value") && a->pb.type == KILN_PB_SPARSE_TENSOR) {
        return kiln_decode_sparse(&im->d, &a->pb.sparse_tensor, out);
    }
    if (kiln_view_is(a->pb.name, "value_int") && a->pb.type == KILN_PB_INT) {
        return scalar(im, KILN_DTYPE_I64, &a->pb.i, sizeof(int64_t), t);
    }
    if (kiln_view_is(a->pb.name, "value_float") && a->pb.type == KILN_PB_FLOAT) {
        return scalar(im, KILN_DTYPE_F32, &a->pb.f, sizeof(float), t);
    }
    if (kiln_view_is(a->pb.name, "value_string") && a->pb.type == KILN_PB_STRING) {
        KILN_TRY(kiln_decoder_text(&im->d, a->pb.s, &text));
        return scalar(im, KILN_DTYPE_STRING, &text, sizeof text, t);
    }
    if (kiln_view_is(a->pb.name, "value_ints") && a->pb.type == KILN_PB_INTS) {
        KILN_TRY(kiln_attr_ints(im, a, &ints));
        *t = tensor_of(KILN_DTYPE_I64, 1, ints.n, ints.v, (size_t)ints.n * sizeof *ints.v);
        return KILN_OK;
    }
    if (kiln_view_is(a->pb.name, "value_floats") && a->pb.type == KILN_PB_FLOATS) {
        KILN_TRY(kiln_attr_floats(im, a, &floats));
        *t = tensor_of(KILN_DTYPE_F32, 1, floats.n, floats.v, (size_t)floats.n * sizeof *floats.v);
        return KILN_OK;
    }
    if (kiln_view_is(a->pb.name, "value_strings") && a->pb.type == KILN_PB_STRINGS) {
        KILN_TRY(kiln_attr_strings(im, a, &strings));
        *t = tensor_of(KILN_DTYPE_STRING, 1, strings.n, strings.v,
                       (size_t)strings.n * sizeof *strings.v);
        return KILN_OK;
    }
    return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE,
                     "a Constant has no attribute \"%.*s\" of this kind", (int)a->pb.name.n,
                     a->pb.name.p);
}
