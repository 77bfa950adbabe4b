/* prims_util.h - what the tests of src/backend/cpu/prims share: the instruction sets this CPU has,
 * repeatable random numbers, buffers between guard bands, and comparison in ulps.
 *
 *     for (int isa = 0; isa < ISA_COUNT; isa++) {
 *         if (!isa_present(isa)) { continue; }
 *         float *x = guard_floats(n, 1);      one element off alignment
 *         ...
 *         guard_free(x);                      fails the test if a guard band was touched
 *     }
 */
#ifndef KILN_TESTS_UNIT_PRIMS_UTIL_H
#define KILN_TESTS_UNIT_PRIMS_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ISA_PORTABLE, ISA_AVX2, ISA_AVX512, ISA_COUNT };

/* The three exported structs of one prims header, indexed by ISA. */
#define ISA_TABLE(type) \
    static const type *const prims_of[ISA_COUNT] = {&type##_portable, &type##_avx2, &type##_avx512}

static inline bool isa_present(int isa) {
    if (isa == ISA_AVX2) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    if (isa == ISA_AVX512) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
    return true;
}

/* xorshift64*; each test seeds it, so failures repeat. */
typedef struct rng {
    uint64_t state;
} rng;

static inline uint32_t rng_u32(rng *r) {
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return (uint32_t)((r->state * 0x2545f4914f6cdd1dull) >> 32);
}

static inline float rng_float(rng *r, float lo, float hi) {
    return lo + (hi - lo) * (float)(rng_u32(r) >> 8) * 0x1p-24f;
}

static inline void rng_fill(rng *r, float *x, int64_t n, float lo, float hi) {
    for (int64_t i = 0; i < n; i++) {
        x[i] = rng_float(r, lo, hi);
    }
}

/* Memory between two guard bands of GUARD bytes. The head holds the size. */
enum { GUARD = 256, GUARD_BYTE = 0xa5 };

static inline void *guard_bytes(size_t bytes, size_t misalign) {
    size_t total = bytes + 2 * GUARD + misalign;
    unsigned char *raw = aligned_alloc(64, (total + 63) / 64 * 64);
    if (raw == NULL) {
        abort();
    }
    memset(raw, GUARD_BYTE, total);
    memcpy(raw, &bytes, sizeof bytes);
    memcpy(raw + sizeof bytes, &misalign, sizeof misalign);
    unsigned char *p = raw + GUARD + misalign;
    memcpy(p - 2 * sizeof misalign, &misalign, sizeof misalign);
    return p;
}

static inline float *guard_floats(int64_t n, size_t misalign_floats) {
    return guard_bytes((size_t)n * sizeof(float), misalign_floats * sizeof(float));
}

static inline void guard_free(void *ptr) {
    unsigned char *p = ptr;
    size_t bytes;
    size_t misalign;
    memcpy(&misalign, p - 2 * sizeof misalign, sizeof misalign);
    unsigned char *raw = p - misalign - GUARD;
    memcpy(&bytes, raw, sizeof bytes);
    for (unsigned char *q = raw + 2 * sizeof bytes; q < p - 2 * sizeof misalign; q++) {
        assert_int_equal(*q, GUARD_BYTE);
    }
    for (unsigned char *q = p - sizeof misalign; q < p; q++) {
        assert_int_equal(*q, GUARD_BYTE);
    }
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(p[bytes + i], GUARD_BYTE);
    }
    free(raw);
}

/* Distance to the true value in units of the float spacing there; 0 when both are NaN or equal. */
static inline double ulps(float got, double want) {
    if (isnan(want) || isnan(got)) {
        return isnan(want) && isnan(got) ? 0.0 : INFINITY;
    }
    if ((double)got == want || got == (float)want) {
        return 0.0;
    }
    if (isinf(want) || isinf(got)) {
        return INFINITY;
    }
    double mag = fabs(want) < 0x1p-126 ? 0x1p-126 : fabs(want);
    return fabs((double)got - want) / ldexp(1.0, ilogb(mag) - 23);
}

/* |got - want| <= abs + rel |want|, NaN and infinities alike. */
static inline bool close_enough(float got, double want, double abs_tol, double rel_tol) {
    if (isnan(want) || isnan(got)) {
        return isnan(want) && isnan(got);
    }
    if (isinf(want) || isinf(got)) {
        return (double)got == want;
    }
    return fabs((double)got - want) <= abs_tol + rel_tol * fabs(want);
}

static inline void assert_close(const char *what, int64_t i, float got, double want, double abs_tol,
                                double rel_tol) {
    if (!close_enough(got, want, abs_tol, rel_tol)) {
        print_error("%s: element %lld is %.9g, want %.9g\n", what, (long long)i, (double)got, want);
        fail();
    }
}

/* Calls body(begin, end, arg) over [0, n) cut into `ways` pieces. */
static inline void in_pieces(int64_t n, int ways, void (*body)(void *, int64_t, int64_t),
                             void *arg) {
    for (int w = 0; w < ways; w++) {
        body(arg, n * w / ways, n * (w + 1) / ways);
    }
}

static const int split_ways[] = {1, 2, 3, 7};

#endif
