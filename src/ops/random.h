/* random.h - a counter-based random generator: number i of a stream is a function of (seed, i)
 * alone, so results depend neither on the order nor on the number of threads.
 *
 * Philox 4x32 with 10 rounds (Salmon and others, "Parallel random numbers: as easy as 1, 2, 3").
 *
 *     kiln_random r = {.key = seed};
 *     double u = kiln_random_uniform(&r, i);      // [0, 1)
 */
#ifndef KILN_OPS_RANDOM_H
#define KILN_OPS_RANDOM_H

#include <math.h>

#include "base/compiler.h"

typedef struct kiln_random {
    uint64_t key;
} kiln_random;

static inline void kiln_random_block(const kiln_random *r, uint64_t counter, uint32_t out[4]) {
    uint32_t x[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t k0 = (uint32_t)r->key, k1 = (uint32_t)(r->key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)x[0] * UINT32_C(0xD2511F53),
                 b = (uint64_t)x[2] * UINT32_C(0xCD9E8D57);
        x[0] = (uint32_t)(b >> 32) ^ x[1] ^ k0;
        x[1] = (uint32_t)b;
        x[2] = (uint32_t)(a >> 32) ^ x[3] ^ k1;
        x[3] = (uint32_t)a;
        k0 += UINT32_C(0x9E3779B9);
        k1 += UINT32_C(0xBB67AE85);
    }
    for (int i = 0; i < 4; i++) {
        out[i] = x[i];
    }
}

/* 53 random bits as a number in [0, 1). */
static inline double kiln_random_unit(uint32_t hi, uint32_t lo) {
    return (double)((uint64_t)hi << 21 ^ lo >> 11) * 0x1p-53;
}

static inline double kiln_random_uniform(const kiln_random *r, uint64_t i) {
    uint32_t x[4];
    kiln_random_block(r, i, x);
    return kiln_random_unit(x[0], x[1]);
}

/* Mean 0, variance 1 (Box and Muller). */
static inline double kiln_random_normal(const kiln_random *r, uint64_t i) {
    uint32_t x[4];
    kiln_random_block(r, i, x);
    double u = 1.0 - kiln_random_unit(x[0], x[1]), v = kiln_random_unit(x[2], x[3]);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

#endif
