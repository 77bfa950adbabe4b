/* prims_util.h - what the tests of src/backend/cpu/prims share: the instruction sets this CPU has,
 * repeatable random numbers, buffers between guard bands, and comparison in ulps.
 *
 *     for (int isa = 0; isa < ISA_COUNT; isa++) {
 *         if (!isa_present(isa)) { continue; }
 *         float *x = guard_floats(n, 1);      one element off alignment
 *         ...
 *         guard_free(x);                      fails the test if the band before it was touched
 *     }
 */
#ifndef KILN_TESTS_UNIT_PRIMS_UTIL_H
#define KILN_TESTS_UNIT_PRIMS_UTIL_H

#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

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
#include <sys/mman.h>

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

/* Memory that ends where an unreadable page begins, behind a band of known bytes: reading or
 * writing past the end traps, writing before the start is found by guard_free. Where that end
 * would leave the start aligned to 64 and `misalign` is not 0, the block moves down by it and the
 * gap is a band too. */
enum { GUARD = 256, GUARD_BYTE = 0xa5, GUARD_PAGE = 4096 };

typedef struct guard_head {
    unsigned char *raw;
    size_t body, bytes, gap;
} guard_head;

static inline void *guard_bytes(size_t bytes, size_t misalign) {
    guard_head h = {.bytes = bytes};
    h.body = (GUARD + bytes + misalign + GUARD_PAGE - 1) / GUARD_PAGE * GUARD_PAGE;
    h.raw =
        mmap(NULL, h.body + GUARD_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (h.raw == MAP_FAILED || mprotect(h.raw + h.body, GUARD_PAGE, PROT_NONE) != 0) {
        abort();
    }
    unsigned char *p = h.raw + h.body - bytes;
    if ((uintptr_t)p % 64 == 0) {
        p -= misalign;
        h.gap = misalign;
    }
    memset(h.raw, GUARD_BYTE, h.body);
    memcpy(p - GUARD, &h, sizeof h);
    return p;
}

static inline float *guard_floats(int64_t n, size_t misalign_floats) {
    return guard_bytes((size_t)n * sizeof(float), misalign_floats * sizeof(float));
}

static inline void guard_free(void *ptr) {
    unsigned char *p = ptr;
    guard_head h;
    memcpy(&h, p - GUARD, sizeof h);
    for (unsigned char *q = p - GUARD + sizeof h; q < p; q++) {
        assert_int_equal(*q, GUARD_BYTE);
    }
    for (size_t i = 0; i < h.gap; i++) {
        assert_int_equal(p[h.bytes + i], GUARD_BYTE);
    }
    munmap(h.raw, h.body + GUARD_PAGE);
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
