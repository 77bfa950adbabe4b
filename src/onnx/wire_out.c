/* wire_out.c - writing protobuf's wire format. */
#include "base/checked.h"
#include "onnx/wire.h"

#include <string.h>

/* Makes room for n more bytes. */
static bool reserve(kiln_out *out, size_t n) {
    size_t need;
    if (out->failed || !kiln_add_size(out->len, n, &need)) {
        out->failed = true;
        return false;
    }
    if (need <= out->cap) {
        return true;
    }
    size_t cap = out->cap ? out->cap : 1024;
    while (cap < need) {
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    }
    uint8_t *data = kiln_arena_raw(out->arena, cap);
    if (!data) {
        out->failed = true;
        return false;
    }
    if (out->len) {
        memcpy(data, out->data, out->len);
    }
    out->data = data;
    out->cap = cap;
    return true;
}

void kiln_out_bytes(kiln_out *out, const void *src, size_t n) {
    if (n && reserve(out, n)) {
        memcpy(out->data + out->len, src, n);
        out->len += n;
    }
}

static size_t encode_varint(uint8_t buf[10], uint64_t v) {
    size_t n = 0;
    while (v >= 0x80) {
        buf[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    buf[n++] = (uint8_t)v;
    return n;
}

void kiln_out_raw_varint(kiln_out *out, uint64_t v) {
    uint8_t buf[10];
    kiln_out_bytes(out, buf, encode_varint(buf, v));
}

static void tag(kiln_out *out, uint32_t field, kiln_wire_type type) {
    kiln_out_raw_varint(out, (uint64_t)field << 3 | (uint64_t)type);
}

void kiln_out_varint(kiln_out *out, uint32_t field, uint64_t v) {
    tag(out, field, KILN_WIRE_VARINT);
    kiln_out_raw_varint(out, v);
}

void kiln_out_float(kiln_out *out, uint32_t field, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint8_t buf[4] = {(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16),
                      (uint8_t)(bits >> 24)};
    tag(out, field, KILN_WIRE_I32);
    kiln_out_bytes(out, buf, sizeof buf);
}

void kiln_out_head(kiln_out *out, uint32_t field, size_t n) {
    tag(out, field, KILN_WIRE_LEN);
    kiln_out_raw_varint(out, n);
}

void kiln_out_data(kiln_out *out, uint32_t field, const void *src, size_t n) {
    kiln_out_head(out, field, n);
    kiln_out_bytes(out, src, n);
}

void kiln_out_text(kiln_out *out, uint32_t field, const char *text) {
    kiln_out_data(out, field, text, strlen(text));
}

size_t kiln_out_begin(kiln_out *out, uint32_t field) {
    tag(out, field, KILN_WIRE_LEN);
    return out->len;
}

void kiln_out_end(kiln_out *out, size_t begin) {
    if (out->failed) {
        return;
    }
    uint8_t buf[10];
    size_t len = out->len - begin;
    size_t n = encode_varint(buf, len);
    if (reserve(out, n)) {
        memmove(out->data + begin + n, out->data + begin, len);
        memcpy(out->data + begin, buf, n);
        out->len += n;
    }
}
