/* What the tests of src/quant share: random tensors of several shapes of distribution, findings. */
#ifndef KILN_TESTS_QUANT_COMMON_H
#define KILN_TESTS_QUANT_COMMON_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/diag.h"
#include "quant/calibration.h"
#include "quant/calibrators.h"

typedef struct bench {
    kiln_arena arena;
    kiln_diag *diag;
} bench;

static inline void bench_open(bench *b) {
    kiln_arena_init(&b->arena, NULL);
    assert_int_equal(kiln_diag_create(&b->diag, NULL), KILN_OK);
}

static inline void bench_close(bench *b) {
    kiln_diag_destroy(b->diag);
    kiln_arena_free(&b->arena);
}

static inline double next_unit(uint64_t *s) {
    *s = *s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(*s >> 11) * 0x1p-53;
}

/* Kinds of data that networks show. */
typedef enum shape_of_data {
    GAUSS,   /* weights, pre-activations */
    LAPLACE, /* heavier tails */
    RELU,    /* half zeros */
    SKEWED,  /* -0.3 .. large: Swish */
    OUTLIER, /* GAUSS and one value forty times as large */
    UNIFORM,
    N_SHAPES,
} shape_of_data;

static inline float draw(shape_of_data kind, uint64_t *s) {
    double u = next_unit(s), v = next_unit(s);
    double gauss = sqrt(-2 * log(u + 1e-300)) * cos(6.283185307179586 * v);
    switch (kind) {
    case LAPLACE:
        return (float)((v < 0.5 ? 1 : -1) * log(u + 1e-300));
    case RELU:
        return (float)(gauss > 0 ? gauss : 0);
    case SKEWED:
        return (float)(2 * gauss / (1 + exp(-2 * gauss)));
    case UNIFORM:
        return (float)(6 * u - 2);
    default:
        return (float)gauss;
    }
}

static inline float *draw_all(bench *b, shape_of_data kind, int64_t n, uint64_t seed) {
    float *x = kiln_arena_array(&b->arena, (size_t)n, sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = draw(kind, &seed);
    }
    if (kind == OUTLIER) {
        x[n / 2] = 160;
    }
    return x;
}

static inline kiln_tensor flat(float *x, int64_t n) {
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 1, .dims = {n}, .data = x};
    t.cap_bytes = (size_t)n * sizeof *x;
    return t;
}

static inline void observe(bench *b, kiln_observer *o, float *x, int64_t n) {
    kiln_tensor t = flat(x, n);
    assert_int_equal(kiln_observer_add(o, &t, &b->arena, b->diag), KILN_OK);
}

static inline void assert_same(const kiln_observer *a, const kiln_observer *b) {
    assert_true(a->count == b->count && a->zeros == b->zeros);
    assert_true(a->nans == b->nans && a->infs == b->infs);
    assert_true(a->min == b->min && a->max == b->max);
    assert_int_equal(a->bins[0] != NULL, b->bins[0] != NULL);
    if (a->bins[0]) {
        assert_int_equal(a->exponent, b->exponent);
        assert_memory_equal(a->bins[0], b->bins[0], KILN_BINS * sizeof(uint64_t));
        assert_memory_equal(a->bins[1], b->bins[1], KILN_BINS * sizeof(uint64_t));
    }
}

#endif
