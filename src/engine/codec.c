#include "engine/codec.h"

#include <string.h>

#include "base/checked.h"

#define TEXT_NULL UINT32_MAX

void kiln_enc_bytes(kiln_enc *e, const void *src, size_t n) {
    if (e->oom || n == 0) {
        return;
    }
    if (n > e->cap - e->len) {
        size_t cap = e->cap * 2 + n + 4096;
        uint8_t *grown = kiln_arena_raw(e->arena, cap);
        if (!grown) {
            e->oom = true;
            return;
        }
        if (e->len > 0) {
            memcpy(grown, e->data, e->len);
        }
        e->data = grown;
        e->cap = cap;
    }
    memcpy(e->data + e->len, src, n);
    e->len += n;
}

void kiln_enc_u64(kiln_enc *e, uint64_t v) {
    uint8_t b[8];
    for (int i = 0; i < 8; i++) {
        b[i] = (uint8_t)(v >> (8 * i));
    }
    kiln_enc_bytes(e, b, sizeof b);
}

void kiln_enc_f64(kiln_enc *e, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    kiln_enc_u64(e, bits);
}

void kiln_enc_u32(kiln_enc *e, uint32_t v) {
    uint8_t b[4];
    for (int i = 0; i < 4; i++) {
        b[i] = (uint8_t)(v >> (8 * i));
    }
    kiln_enc_bytes(e, b, sizeof b);
}

void kiln_enc_text(kiln_enc *e, const char *text) {
    if (!text) {
        kiln_enc_u32(e, TEXT_NULL);
        return;
    }
    size_t n = strlen(text);
    kiln_enc_u32(e, (uint32_t)n);
    kiln_enc_bytes(e, text, n);
}

const uint8_t *kiln_dec_bytes(kiln_dec *d, size_t n) {
    if (d->bad || n > d->len - d->at) {
        d->bad = true;
        return NULL;
    }
    const uint8_t *p = d->data + d->at;
    d->at += n;
    return p;
}

uint64_t kiln_dec_u64(kiln_dec *d) {
    const uint8_t *p = kiln_dec_bytes(d, 8);
    uint64_t v = 0;
    for (int i = 0; p && i < 8; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

double kiln_dec_f64(kiln_dec *d) {
    uint64_t bits = kiln_dec_u64(d);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

uint32_t kiln_dec_u32(kiln_dec *d) {
    const uint8_t *p = kiln_dec_bytes(d, 4);
    uint32_t v = 0;
    for (int i = 0; p && i < 4; i++) {
        v |= (uint32_t)p[i] << (8 * i);
    }
    return v;
}

size_t kiln_dec_count(kiln_dec *d, size_t item_bytes) {
    uint64_t n = kiln_dec_u64(d);
    if (d->bad || n > (d->len - d->at) / (item_bytes ? item_bytes : 1)) {
        d->bad = true;
        return 0;
    }
    return (size_t)n;
}

const char *kiln_dec_text(kiln_dec *d) {
    uint32_t n = kiln_dec_u32(d);
    if (n == TEXT_NULL) {
        return NULL;
    }
    const uint8_t *p = kiln_dec_bytes(d, n);
    char *text = p ? kiln_arena_text(d->arena, (const char *)p, n) : NULL;
    if (p && !text) {
        d->oom = true;
    }
    return text;
}
