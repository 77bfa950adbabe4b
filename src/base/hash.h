/* hash.h - checksums and content identities.
 *
 * XXH3 finds damage and keys caches: several bytes a cycle, no resistance to an attacker. SHA-256
 * names content. SHA-1 is here only because ONNX states external data's checksum in it.
 *
 *     kiln_hash128 h = kiln_hash_128(section, bytes);
 *
 *     kiln_sha sha;
 *     kiln_sha256_init(&sha);
 *     kiln_sha_update(&sha, data, bytes);
 *     size_t len = kiln_sha_final(&sha, digest);     // 32
 */
#ifndef KILN_BASE_HASH_H
#define KILN_BASE_HASH_H

#include "base/compiler.h"

typedef struct kiln_hash128 {
    uint64_t low, high;
} kiln_hash128;

/* XXH3 with seed 0; the numbers do not depend on the byte order of the machine. */
uint64_t kiln_hash_64(const void *data, size_t bytes);
kiln_hash128 kiln_hash_128(const void *data, size_t bytes);

enum { KILN_SHA1_BYTES = 20, KILN_SHA256_BYTES = 32 };

typedef struct kiln_sha {
    uint32_t state[8];
    uint64_t bytes; /* taken so far */
    uint8_t block[64];
    int words; /* of state that make the digest: 5 for SHA-1, 8 for SHA-256 */
} kiln_sha;

void kiln_sha1_init(kiln_sha *sha);
void kiln_sha256_init(kiln_sha *sha);
void kiln_sha_update(kiln_sha *sha, const void *data, size_t bytes);
/* Writes the digest (20 or 32 bytes) and returns its length. */
size_t kiln_sha_final(kiln_sha *sha, uint8_t digest[KILN_SHA256_BYTES]);

/* Lower-case hexadecimal digits and a NUL: 2 * bytes + 1 characters. */
void kiln_hex(char *dst, const uint8_t *src, size_t bytes);

#endif
