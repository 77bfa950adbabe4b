/* prims_matrix.h - what the tests of the matrix and convolution prims share: guarded buffers, a
 * random stream, the list of instruction sets.
 *
 * A guarded buffer ends exactly at an unmapped page and begins with canaries, so that reading or
 * writing one float too far crashes and writing before it is seen. */
#ifndef KILN_TESTS_UNIT_PRIMS_MATRIX_H
#define KILN_TESTS_UNIT_PRIMS_MATRIX_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { ISA_COUNT = 4, CANARIES = 64, PAGE = 4096 };
#define CANARY 0x7fa5c3e1u /* a NaN no computation makes */

/* What the processor can run, in the order portable, wide, avx2, avx512; `wide` is the portable
 * rung with the tile shapes of AVX-512, compiled into the test. */
static inline int isa_present(int isa) {
    switch (isa) {
    case 2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case 3:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    default:
        return 1;
    }
}

typedef struct guarded {
    float *p; /* count floats, the last one just before an unmapped page */
    int64_t count;
    char *map;
    size_t map_bytes;
} guarded;

static inline void set_canaries(float *p, int64_t n) {
    uint32_t word = CANARY;
    for (int64_t i = 0; i < n; i++) {
        memcpy(p + i, &word, sizeof word);
    }
}

static inline int is_canary(const float *p) {
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word == CANARY;
}

static inline guarded guarded_new(int64_t count) {
    guarded g = {.count = count};
    size_t bytes = ((size_t)count + CANARIES) * sizeof(float);
    bytes = (bytes + PAGE - 1) / PAGE * PAGE;
    g.map_bytes = bytes + PAGE;
    void *map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    g.map = map;
    assert_int_equal(mprotect(g.map + bytes, PAGE, PROT_NONE), 0);
    g.p = (float *)(void *)(g.map + bytes) - count;
    set_canaries(g.p - CANARIES, count + CANARIES);
    return g;
}

static inline void guarded_free(guarded *g) {
    for (int i = 1; i <= CANARIES; i++) {
        assert_true(is_canary(g->p - i));
    }
    munmap(g->map, g->map_bytes);
}

/* Uniform in [-1, 1), 24 bits. */
static inline float random_float(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int32_t)(*state >> 40) - (1 << 23)) / 8388608.0f;
}

static inline int64_t random_int(uint64_t *state, int64_t lo, int64_t hi) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return lo + (int64_t)((*state >> 33) % (uint64_t)(hi - lo + 1));
}

static inline guarded guarded_random(int64_t count, uint64_t *state) {
    guarded g = guarded_new(count);
    for (int64_t i = 0; i < count; i++) {
        g.p[i] = random_float(state);
    }
    return g;
}

#endif
