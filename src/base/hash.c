/* SHA-1 and SHA-256 after FIPS 180-4, whose names (H, W, K, a..h) are kept; the two differ in the
 * compression of one block and in the initial state only. */
#include "base/hash.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t kiln_hash_64(const void *data, size_t bytes) {
    return XXH3_64bits(data, bytes);
}

kiln_hash128 kiln_hash_128(const void *data, size_t bytes) {
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    return (kiln_hash128){h.low64, h.high64};
}

static uint32_t rotate_left(uint32_t x, int n) {
    return x << n | x >> (32 - n);
}

static uint32_t rotate_right(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

static uint32_t load_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_be32(uint8_t *p, uint32_t x) {
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(x >> (24 - 8 * i));
    }
}

static void compress_sha1(uint32_t H[8], const uint8_t *block) {
    uint32_t W[80];
    for (int t = 0; t < 80; t++) {
        W[t] = t < 16 ? load_be32(block + 4 * t)
                      : rotate_left(W[t - 3] ^ W[t - 8] ^ W[t - 14] ^ W[t - 16], 1);
    }
    uint32_t a = H[0], b = H[1], c = H[2], d = H[3], e = H[4];
    for (int t = 0; t < 80; t++) {
        static const uint32_t K[4] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
        uint32_t f = t < 20   ? (b & c) ^ (~b & d)
                     : t < 40 ? b ^ c ^ d
                     : t < 60 ? (b & c) ^ (b & d) ^ (c & d)
                              : b ^ c ^ d;
        uint32_t T = rotate_left(a, 5) + f + e + K[t / 20] + W[t];
        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = T;
    }
    H[0] += a;
    H[1] += b;
    H[2] += c;
    H[3] += d;
    H[4] += e;
}

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t K256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void compress_sha256(uint32_t H[8], const uint8_t *block) {
    uint32_t W[64], v[8];
    for (int t = 0; t < 16; t++) {
        W[t] = load_be32(block + 4 * t);
    }
    for (int t = 16; t < 64; t++) {
        uint32_t x = W[t - 15], y = W[t - 2];
        uint32_t s0 = rotate_right(x, 7) ^ rotate_right(x, 18) ^ x >> 3;
        uint32_t s1 = rotate_right(y, 17) ^ rotate_right(y, 19) ^ y >> 10;
        W[t] = W[t - 16] + s0 + W[t - 7] + s1;
    }
    memcpy(v, H, sizeof v); /* a..h */
    for (int t = 0; t < 64; t++) {
        uint32_t a = v[0], b = v[1], c = v[2], e = v[4], f = v[5], g = v[6];
        uint32_t S1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t S0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t T1 = v[7] + S1 + ((e & f) ^ (~e & g)) + K256[t] + W[t];
        uint32_t T2 = S0 + ((a & b) ^ (a & c) ^ (b & c));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += T1;
        v[0] = T1 + T2;
    }
    for (int i = 0; i < 8; i++) {
        H[i] += v[i];
    }
}

void kiln_sha1_init(kiln_sha *sha) {
    *sha = (kiln_sha){
        .state = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0},
        .words = KILN_SHA1_BYTES / 4,
    };
}

void kiln_sha256_init(kiln_sha *sha) {
    *sha = (kiln_sha){
        .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                  0x1f83d9ab, 0x5be0cd19},
        .words = KILN_SHA256_BYTES / 4,
    };
}

static void compress(kiln_sha *sha, const uint8_t *block) {
    (sha->words == KILN_SHA1_BYTES / 4 ? compress_sha1 : compress_sha256)(sha->state, block);
}

void kiln_sha_update(kiln_sha *sha, const void *data, size_t bytes) {
    const uint8_t *src = data;
    size_t held = sha->bytes % 64;
    sha->bytes += bytes;
    if (held) {
        size_t part = bytes < 64 - held ? bytes : 64 - held;
        memcpy(sha->block + held, src, part);
        src += part;
        bytes -= part;
        if (held + part < 64) {
            return;
        }
        compress(sha, sha->block);
    }
    for (; bytes >= 64; bytes -= 64, src += 64) {
        compress(sha, src);
    }
    if (bytes) {
        memcpy(sha->block, src, bytes);
    }
}

size_t kiln_sha_final(kiln_sha *sha, uint8_t digest[KILN_SHA256_BYTES]) {
    /* A one bit, zeros, and the length in bits as the last eight bytes of a block. */
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = sha->bytes * 8;
    uint8_t length[8];
    store_be32(length, (uint32_t)(bits >> 32));
    store_be32(length + 4, (uint32_t)bits);
    kiln_sha_update(sha, padding, 1 + (119 - sha->bytes % 64) % 64);
    kiln_sha_update(sha, length, sizeof length);
    for (int i = 0; i < sha->words; i++) {
        store_be32(digest + 4 * i, sha->state[i]);
    }
    return (size_t)sha->words * 4;
}

void kiln_hex(char *dst, const uint8_t *src, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        dst[2 * i] = "0123456789abcdef"[src[i] >> 4];
        dst[2 * i + 1] = "0123456789abcdef"[src[i] & 15];
    }
    dst[2 * bytes] = '\0';
}
