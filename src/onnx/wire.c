/* wire.c - reading protobuf's wire format. */
#include "onnx/wire.h"

#include <string.h>

enum { VARINT_MAX_BYTES = 10, GROUP_BEGIN = 3, GROUP_END = 4, FIELD_NUMBER_MAX = (1 << 29) - 1 };

uint32_t kiln_load_u32(const void *p) {
    const uint8_t *b = p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t kiln_load_u64(const void *p) {
    const uint8_t *b = p;
    return (uint64_t)kiln_load_u32(b) | (uint64_t)kiln_load_u32(b + 4) << 32;
}

bool kiln_view_is(kiln_view v, const char *text) {
    size_t n = strlen(text);
    return v.n == n && (n == 0 || memcmp(v.p, text, n) == 0);
}

bool kiln_view_equal(kiln_view a, kiln_view b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static kiln_status fail_at(kiln_wire *wire, const uint8_t *at, kiln_finding_id id,
                           const char *text) {
    kiln_diag_at_offset(wire->diag, kiln_wire_offset(wire, at));
    kiln_status status = kiln_fail(wire->diag, id, "%s", text);
    kiln_diag_at_offset(wire->diag, -1);
    return status;
}

kiln_status kiln_wire_varint(kiln_wire *wire, const uint8_t **p, const uint8_t *end,
                             uint64_t *out) {
    const uint8_t *at = *p;
    uint64_t v = 0;
    for (int i = 0; i < VARINT_MAX_BYTES; i++) {
        if (at + i >= end) {
            return fail_at(wire, *p, KILN_F_WIRE_TRUNCATED, "a varint is cut off");
        }
        uint8_t byte = at[i];
        v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *p = at + i + 1;
            *out = v;
            return KILN_OK;
        }
    }
    return fail_at(wire, *p, KILN_F_WIRE_VARINT, "a varint is longer than ten bytes");
}

size_t kiln_wire_count_varints(const uint8_t *data, size_t len) {
    size_t count = 0;
    for (size_t i = 0; i < len; i++) {
        count += data[i] < 0x80;
    }
    return count;
}

/* The bytes of a fixed-width value or of a LEN field's contents. */
static kiln_status take(kiln_wire *wire, kiln_msg *msg, uint64_t n, kiln_field *f) {
    if (n > (uint64_t)(msg->end - msg->p)) {
        kiln_diag_at_offset(wire->diag, kiln_wire_offset(wire, f->at));
        kiln_status status = kiln_fail(
            wire->diag, KILN_F_WIRE_TRUNCATED, "field %u has %llu bytes, its message has %llu left",
            f->number, (unsigned long long)n, (unsigned long long)(msg->end - msg->p));
        kiln_diag_at_offset(wire->diag, -1);
        return status;
    }
    f->data = msg->p;
    f->len = (size_t)n;
    msg->p += n;
    return KILN_OK;
}

kiln_status kiln_wire_next(kiln_wire *wire, kiln_msg *msg, kiln_field *out) {
    uint64_t tag;
    out->at = msg->p;
    if (wire->budget == 0) {
        return fail_at(wire, msg->p, KILN_F_GRAPH_LIMIT,
                       "reading the model takes more steps than its size accounts for");
    }
    wire->budget--;
    KILN_TRY(kiln_wire_varint(wire, &msg->p, msg->end, &tag));
    if (tag >> 3 == 0 || tag >> 3 > FIELD_NUMBER_MAX) {
        return fail_at(wire, out->at, KILN_F_WIRE_TYPE, "a field has an impossible number");
    }
    out->number = (uint32_t)(tag >> 3);
    out->type = (kiln_wire_type)(tag & 7);
    out->bits = 0;
    out->len = 0;
    switch (tag & 7) {
    case KILN_WIRE_VARINT:
        out->data = msg->p;
        return kiln_wire_varint(wire, &msg->p, msg->end, &out->bits);
    case KILN_WIRE_I64:
        KILN_TRY(take(wire, msg, 8, out));
        out->bits = kiln_load_u64(out->data);
        return KILN_OK;
    case KILN_WIRE_I32:
        KILN_TRY(take(wire, msg, 4, out));
        out->bits = kiln_load_u32(out->data);
        return KILN_OK;
    case KILN_WIRE_LEN: {
        uint64_t n;
        KILN_TRY(kiln_wire_varint(wire, &msg->p, msg->end, &n));
        return take(wire, msg, n, out);
    }
    case GROUP_BEGIN:
    case GROUP_END:
        return fail_at(wire, out->at, KILN_F_WIRE_TYPE,
                       "a field is a group, which ONNX does not use");
    default:
        return fail_at(wire, out->at, KILN_F_WIRE_TYPE,
                       "a field has a wire type that does not exist");
    }
}

kiln_status kiln_wire_enter(kiln_wire *wire, const kiln_msg *parent, const kiln_field *field,
                            kiln_msg *out) {
    if (parent->depth + 1 > wire->max_depth) {
        return fail_at(wire, field->at, KILN_F_WIRE_DEPTH, "messages are nested too deeply");
    }
    out->p = field->data;
    out->end = field->data + field->len;
    out->depth = parent->depth + 1;
    return KILN_OK;
}
