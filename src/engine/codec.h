/* codec.h - bytes of an engine file's sections: little-endian numbers, counted strings.
 *
 * The writer grows a buffer in an arena; the reader stays within its bytes and turns bad once a
 * read would leave them, after which it yields zeros: callers check `bad` where they would act on
 * what they read. */
#ifndef KILN_ENGINE_CODEC_H
#define KILN_ENGINE_CODEC_H

#include "base/arena.h"

typedef struct kiln_enc {
    kiln_arena *arena;
    uint8_t *data;
    size_t len, cap;
    bool oom;
} kiln_enc;

void kiln_enc_bytes(kiln_enc *e, const void *src, size_t n);
void kiln_enc_u32(kiln_enc *e, uint32_t v);
void kiln_enc_u64(kiln_enc *e, uint64_t v);
void kiln_enc_f64(kiln_enc *e, double v);
/* NULL is kept apart from "". */
void kiln_enc_text(kiln_enc *e, const char *text);

typedef struct kiln_dec {
    kiln_arena *arena;
    const uint8_t *data;
    size_t len, at;
    bool bad, oom;
} kiln_dec;

/* n bytes in place, or NULL. */
const uint8_t *kiln_dec_bytes(kiln_dec *d, size_t n);
uint32_t kiln_dec_u32(kiln_dec *d);
uint64_t kiln_dec_u64(kiln_dec *d);
double kiln_dec_f64(kiln_dec *d);
/* A count whose items take at least item_bytes each in what is left; bad otherwise. */
size_t kiln_dec_count(kiln_dec *d, size_t item_bytes);
const char *kiln_dec_text(kiln_dec *d);

#endif
