/* make.c - small helpers with which upgrades make nodes and constants. */
#include <string.h>

#include "onnx/upgrade.h"

static kiln_status fresh(const kiln_frame *frame, const kiln_source *s, kiln_value **out) {
    const char *base = s->n_out > 0 && s->out[0] ? s->out[0]->name : s->op;
    const char *name = kiln_graph_fresh_name(frame->graph, base);
    return name ? kiln_graph_value(out, frame->graph, name) : KILN_E_MEMORY;
}

kiln_status kiln_make(kiln_importer *im, kiln_frame *frame, const kiln_source *s, const char *op,
                      kiln_value *const *in, int32_t n_in, const char *attr, int64_t attr_value,
                      kiln_value **out) {
    kiln_source made;
    kiln_value *result;
    KILN_TRY(fresh(frame, s, &result));
    KILN_TRY(kiln_source_make(im, s, op, in, n_in, &result, 1, &made));
    *out = result;
    if (attr) {
        KILN_TRY(kiln_source_set_int(im, &made, attr, attr_value));
    }
    return kiln_emit(im, frame, &made, NULL);
}

kiln_status kiln_make_last(kiln_importer *im, kiln_frame *frame, const kiln_source *s,
                           const char *op, kiln_value *const *in, int32_t n_in, kiln_node **node) {
    kiln_source made;
    KILN_TRY(kiln_source_make(im, s, op, in, n_in, s->out, s->n_out, &made));
    return kiln_emit(im, frame, &made, node);
}

static kiln_status constant(kiln_importer *im, const kiln_frame *frame, kiln_dtype dtype,
                            int32_t rank, const int64_t *dims, const void *src, size_t bytes,
                            kiln_value **out) {
    kiln_tensor t = {.dtype = dtype, .rank = rank, .cap_bytes = bytes};
    for (int32_t i = 0; i < rank; i++) {
        t.dims[i] = dims[i];
    }
    t.data = kiln_arena_copy(im->arena, src, bytes);
    if (!t.data) {
        return KILN_E_MEMORY;
    }
    const char *name = kiln_graph_fresh_name(frame->graph, "c");
    return name ? kiln_graph_constant(out, frame->graph, name, &t) : KILN_E_MEMORY;
}

kiln_status kiln_make_int(kiln_importer *im, const kiln_frame *frame, int64_t v, kiln_value **out) {
    return constant(im, frame, KILN_DTYPE_I64, 0, NULL, &v, sizeof v, out);
}

kiln_status kiln_make_ints(kiln_importer *im, const kiln_frame *frame, const int64_t *v, int64_t n,
                           kiln_value **out) {
    return constant(im, frame, KILN_DTYPE_I64, 1, &n, v, (size_t)n * sizeof *v, out);
}

kiln_status kiln_make_floats(kiln_importer *im, const kiln_frame *frame, const float *v,
                             int32_t rank, const int64_t *dims, kiln_value **out) {
    size_t count = 1;
    for (int32_t i = 0; i < rank; i++) {
        count *= (size_t)dims[i];
    }
    return constant(im, frame, KILN_DTYPE_F32, rank, dims, v, count * sizeof *v, out);
}

kiln_status kiln_make_like(kiln_importer *im, kiln_frame *frame, const kiln_source *s,
                           kiln_value *value, kiln_value *like, kiln_value **out) {
    kiln_source made;
    kiln_node *node;
    kiln_value *in[] = {value, like};
    kiln_value *result;
    KILN_TRY(fresh(frame, s, &result));
    KILN_TRY(kiln_source_make(im, s, "CastLike", in, 2, &result, 1, &made));
    *out = result;
    KILN_TRY(kiln_emit(im, frame, &made, &node));
    if (node && value->constant) {
        kiln_unsettled u = {.graph = frame->graph, .node = node};
        KILN_PUSH(&im->lists, im->unsettled, im->n_unsettled, im->cap_unsettled, u);
    }
    return KILN_OK;
}

kiln_status kiln_make_float_like(kiln_importer *im, kiln_frame *frame, const kiln_source *s,
                                 float v, kiln_value *like, kiln_value **out) {
    kiln_value *scalar;
    KILN_TRY(kiln_make_floats(im, frame, &v, 0, NULL, &scalar));
    return kiln_make_like(im, frame, s, scalar, like, out);
}
