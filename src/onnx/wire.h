/* wire.h - a bounded reader and a small writer of protobuf's wire format.
 *
 * A message is a view of bytes; nothing is decoded before it is asked for, and nothing is copied.
 * Every step is bounded: a field must end inside its message, nesting is limited, and a work budget
 * bounds the number of fields read from one file however often its parts are visited.
 *
 *     kiln_wire wire = {.base = bytes, .max_depth = 64, .budget = 1 << 20, .diag = diag};
 *     kiln_msg msg = {bytes, bytes + len, 0};
 *     kiln_field f;
 *     while (kiln_wire_more(&msg)) {
 *         KILN_TRY(kiln_wire_next(&wire, &msg, &f));       // advances msg.p
 *         if (f.number == 7 && f.type == KILN_WIRE_LEN) { ... f.data, f.len ... }
 *     }
 *
 * Errors carry the byte offset from `base`.
 */
#ifndef KILN_ONNX_WIRE_H
#define KILN_ONNX_WIRE_H

#include "base/arena.h"
#include "base/diag.h"

typedef enum kiln_wire_type {
    KILN_WIRE_VARINT = 0,
    KILN_WIRE_I64 = 1,
    KILN_WIRE_LEN = 2,
    KILN_WIRE_I32 = 5,
} kiln_wire_type;

/* What the messages of one file share. */
typedef struct kiln_wire {
    const uint8_t *base; /* where offsets count from */
    uint64_t budget;     /* fields that may still be read */
    uint32_t max_depth;
    uint32_t max_name; /* bytes of one name */
    kiln_diag *diag;
} kiln_wire;

/* The bytes of a message, or what is left of them. p == NULL: no message. */
typedef struct kiln_msg {
    const uint8_t *p, *end;
    uint32_t depth;
} kiln_msg;

typedef struct kiln_field {
    uint32_t number;
    kiln_wire_type type;
    uint64_t bits;       /* VARINT, I64, I32: the value, zero-extended */
    const uint8_t *data; /* LEN: the bytes; else where the value begins */
    size_t len;          /* LEN */
    const uint8_t *at;   /* the field's tag */
} kiln_field;

/* A view of text that need not end in NUL. */
typedef struct kiln_view {
    const char *p;
    size_t n;
} kiln_view;

static inline bool kiln_wire_more(const kiln_msg *msg) {
    return msg->p < msg->end;
}
static inline int64_t kiln_wire_offset(const kiln_wire *wire, const void *at) {
    return (const uint8_t *)at - wire->base;
}

/* Reads the next field of a message that has more. Refuses groups, wire types 6 and 7, field 0,
 * varints longer than ten bytes and fields that pass the message's end. */
kiln_status kiln_wire_next(kiln_wire *wire, kiln_msg *msg, kiln_field *out);
/* A LEN field as a message, one level deeper. */
kiln_status kiln_wire_enter(kiln_wire *wire, const kiln_msg *parent, const kiln_field *field,
                            kiln_msg *out);
/* A varint inside [*p, end); advances *p. */
kiln_status kiln_wire_varint(kiln_wire *wire, const uint8_t **p, const uint8_t *end, uint64_t *out);
/* Number of elements in packed varints: the bytes whose top bit is clear. */
size_t kiln_wire_count_varints(const uint8_t *data, size_t len);

bool kiln_view_is(kiln_view v, const char *text);
bool kiln_view_equal(kiln_view a, kiln_view b);
static inline kiln_view kiln_view_of(const char *text, size_t n) {
    kiln_view v = {text, n};
    return v;
}

/* Little-endian loads from unaligned bytes. */
uint32_t kiln_load_u32(const void *p);
uint64_t kiln_load_u64(const void *p);

/* ---- Writing ---- */

/* A growing buffer in an arena. Appends never report failure themselves: `failed` stays set once
 * memory ran out, and is checked at the end. */
typedef struct kiln_out {
    kiln_arena *arena;
    uint8_t *data;
    size_t len, cap;
    bool failed;
} kiln_out;

void kiln_out_bytes(kiln_out *out, const void *src, size_t n);
void kiln_out_raw_varint(kiln_out *out, uint64_t v);
void kiln_out_varint(kiln_out *out, uint32_t field, uint64_t v);
void kiln_out_float(kiln_out *out, uint32_t field, float v);
void kiln_out_data(kiln_out *out, uint32_t field, const void *src, size_t n);
void kiln_out_text(kiln_out *out, uint32_t field, const char *text);
/* Tag and length of a LEN field whose `n` bytes the caller appends next. */
void kiln_out_head(kiln_out *out, uint32_t field, size_t n);
/* A nested message: fields written between begin and end belong to it. end inserts the length,
 * which moves the message's bytes by the length of a varint. */
size_t kiln_out_begin(kiln_out *out, uint32_t field);
void kiln_out_end(kiln_out *out, size_t begin);

#endif
