/* forge.h - an attacker's tools: editing an engine file and making all its hashes right again.
 *
 *     bytes[at] ^= 1;
 *     forge_hashes(bytes, len);        // the file now passes every checksum that is always checked
 *
 * Offsets are read from the file's own table and used as far as they lie inside it. */
#ifndef KILN_TESTS_ENGINE_FORGE_H
#define KILN_TESTS_ENGINE_FORGE_H

#include <string.h>

#include "base/hash.h"
#include "engine/format.h"

enum {
    FORGE_FRONT = KILN_HEADER_BYTES + KILN_SECTION_COUNT * KILN_ENTRY_BYTES,
    FORGE_VERSION_AT = 8,
    FORGE_OLDEST_AT = 12,
    FORGE_LENGTH_AT = 16,
    FORGE_HASH_AT = 32,
};

static inline uint64_t forge_get(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

static inline void forge_put(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) {
        p[i] = (uint8_t)(v >> (8 * i));
    }
}

static inline uint8_t *forge_entry(uint8_t *bytes, int section) {
    return bytes + KILN_HEADER_BYTES + section * KILN_ENTRY_BYTES;
}

/* Where a section lies; false when the table points outside the file. */
static inline bool forge_section(uint8_t *bytes, size_t len, int section, size_t *offset,
                                 size_t *size) {
    const uint8_t *entry = forge_entry(bytes, section);
    uint64_t at = forge_get(entry + 8), n = forge_get(entry + 16);
    if (at > len || n > len - at) {
        return false;
    }
    *offset = (size_t)at;
    *size = (size_t)n;
    return true;
}

static inline void forge_hashes(uint8_t *bytes, size_t len) {
    size_t at, n;
    if (len < FORGE_FRONT) {
        return;
    }
    for (int i = 0; i < KILN_SECTION_WEIGHTS; i++) {
        if (forge_section(bytes, len, i, &at, &n)) {
            forge_put(forge_entry(bytes, i) + 32, kiln_hash_64(bytes + at, n));
        }
    }
    forge_put(bytes + FORGE_HASH_AT, 0);
    forge_put(bytes + FORGE_HASH_AT, kiln_hash_64(bytes, FORGE_FRONT));
}

#endif
