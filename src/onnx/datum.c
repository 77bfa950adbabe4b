/* datum.c - single values in files of their own: TensorProto, SequenceProto, OptionalProto. */
#include <string.h>

#include "base/checked.h"
#include "onnx/encode.h"
#include "onnx/onnx.h"
#include "onnx/tensor.h"

/* Sequences of sequences and optionals of them; ONNX nests no deeper in practice. */
enum { MAX_NESTING = 4 };

static kiln_msg whole(const void *bytes, size_t len) {
    kiln_msg msg = {bytes, (const uint8_t *)bytes + len, 0};
    return msg;
}

kiln_status kiln_tensor_from_pb(kiln_tensor *out, const char **name, const void *bytes, size_t len,
                                kiln_arena *arena, const kiln_env *env, kiln_diag *diag) {
    kiln_decoder d;
    kiln_msg msg = whole(bytes, len);
    kiln_stored_tensor stored;
    kiln_decoder_init(&d, bytes, len, arena, env, diag);
    KILN_TRY(kiln_decode_tensor(&d, &msg, &stored));
    *out = stored.tensor;
    if (name) {
        *name = kiln_arena_text(arena, stored.name.p, stored.name.n);
    }
    return !name || *name ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status decode_datum(kiln_decoder *d, kiln_kind kind, const kiln_msg *msg, int depth,
                                kiln_datum *out);

/* The n elements in `field` of a sequence or optional, each of `kind`. */
static kiln_status decode_items(kiln_decoder *d, kiln_kind kind, const kiln_msg *msg,
                                uint32_t field, size_t n, int depth, kiln_datum *out) {
    kiln_msg at = *msg, sub;
    size_t bytes;
    void *items;
    if (!kiln_mul_size(n, sizeof(kiln_datum), &bytes)) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(kiln_decoder_alloc(d, bytes, &items));
    memset(items, 0, bytes);
    out->items = items;
    out->n_items = (int64_t)n;
    for (size_t i = 0; i < n; i++) {
        KILN_TRY(kiln_pb_each(&d->wire, &at, field, &sub));
        KILN_TRY(decode_datum(d, kind, &sub, depth + 1, &out->items[i]));
    }
    return KILN_OK;
}

static kiln_status decode_datum(kiln_decoder *d, kiln_kind kind, const kiln_msg *msg, int depth,
                                kiln_datum *out) {
    kiln_pb_sequence pb;
    kiln_stored_tensor stored;
    memset(out, 0, sizeof *out);
    if (depth > MAX_NESTING) {
        return kiln_fail(d->diag, KILN_F_WIRE_DEPTH, "values are nested deeper than %d",
                         MAX_NESTING);
    }
    out->kind = kind;
    if (kind == KILN_KIND_TENSOR) {
        KILN_TRY(kiln_decode_tensor(d, msg, &stored));
        out->tensor = stored.tensor;
        return KILN_OK;
    }
    KILN_TRY(kiln_pb_decode(&d->wire, &kiln_pb_sequence_desc, msg, &pb));
    size_t kinds = (pb.n_tensors != 0) + (pb.n_sequences != 0) + (pb.n_optionals != 0);
    bool single = kind == KILN_KIND_OPTIONAL;
    if (kinds > 1 || (single && pb.n_tensors + pb.n_sequences + pb.n_optionals > 1)) {
        return kiln_fail(d->diag, KILN_F_DATA_FORMAT,
                         "a %s mixes kinds of elements or has too many",
                         single ? "OptionalProto" : "SequenceProto");
    }
    if (pb.n_tensors) {
        return decode_items(d, KILN_KIND_TENSOR, msg, KILN_PB_SEQUENCE_TENSOR, pb.n_tensors, depth,
                            out);
    }
    if (pb.n_sequences) {
        return decode_items(d, KILN_KIND_SEQUENCE, msg, KILN_PB_SEQUENCE_SEQUENCE, pb.n_sequences,
                            depth, out);
    }
    if (pb.n_optionals) {
        return decode_items(d, KILN_KIND_OPTIONAL, msg, KILN_PB_SEQUENCE_OPTIONAL, pb.n_optionals,
                            depth, out);
    }
    return KILN_OK;
}

kiln_status kiln_datum_from_pb(kiln_datum *out, kiln_kind kind, kiln_kind elem_kind,
                               const void *bytes, size_t len, kiln_arena *arena,
                               const kiln_env *env, kiln_diag *diag) {
    kiln_decoder d;
    kiln_msg msg = whole(bytes, len);
    kiln_decoder_init(&d, bytes, len, arena, env, diag);
    KILN_TRY(decode_datum(&d, kind, &msg, 0, out));
    bool wrong = kind != KILN_KIND_TENSOR && out->n_items > 0 && elem_kind != KILN_KIND_NONE &&
                 out->items[0].kind != elem_kind;
    return wrong
               ? kiln_fail(diag, KILN_F_DATA_FORMAT, "the elements of a value are of another kind")
               : KILN_OK;
}

/* ---- Writing ---- */

static void put_strings(kiln_out *out, const kiln_tensor *t, int64_t count) {
    const char *const *text = t->data;
    for (int64_t i = 0; i < count; i++) {
        kiln_out_text(out, KILN_PB_TENSOR_STRING_DATA, text[i] ? text[i] : "");
    }
}

void kiln_put_tensor_head(kiln_out *out, const kiln_tensor *t, const char *name) {
    for (int32_t i = 0; i < t->rank; i++) {
        kiln_out_varint(out, KILN_PB_TENSOR_DIMS, (uint64_t)t->dims[i]);
    }
    kiln_out_varint(out, 2, (uint64_t)t->dtype);
    if (name && name[0]) {
        kiln_out_text(out, 8, name);
    }
}

void kiln_put_tensor(kiln_out *out, const kiln_tensor *t, const char *name) {
    kiln_put_tensor_head(out, t, name);
    if (t->dtype == KILN_DTYPE_STRING) {
        put_strings(out, t, kiln_tensor_count(t));
    } else {
        kiln_out_data(out, KILN_PB_TENSOR_RAW_DATA, t->data, kiln_tensor_bytes(t));
    }
}

kiln_status kiln_tensor_to_pb(void **out, size_t *len, const kiln_tensor *t, const char *name,
                              kiln_arena *arena) {
    kiln_out w = {.arena = arena};
    if (kiln_tensor_bytes(t) == SIZE_MAX) {
        return KILN_E_LIMIT;
    }
    kiln_put_tensor(&w, t, name);
    if (w.failed) {
        return KILN_E_MEMORY;
    }
    *out = w.data;
    *len = w.len;
    return KILN_OK;
}
