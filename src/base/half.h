/* half.h - narrow floating-point formats: conversion to and from float, exactly rounded.
 *
 * Bit patterns travel as unsigned integers. Rounding is to nearest, ties to even, in one step, with
 * gradual underflow; nothing depends on the floating-point mode of the thread.
 *
 *     uint16_t h = kiln_f32_to_f16(1.5f);            // 0x3E00
 *     uint8_t q = kiln_f32_to_f8(KILN_DTYPE_F8E4M3FN, 1e9f, true);  // 0x7E: 448
 *
 * Formats, with E exponent bits, M mantissa bits and exponent bias B:
 *
 *     name       E M  B    largest  Inf   NaN          source
 *     f16        5 10 15   65504    yes   yes          IEEE 754 binary16
 *     bf16       8 7  127  3.39e38  yes   yes          upper half of binary32
 *     f8e4m3fn   4 3  7    448      no    S.1111.111   OCP 8-bit floating point, rev 1.0
 *     f8e5m2     5 2  15   57344    yes   S.11111.*    OCP 8-bit floating point, rev 1.0
 *     f8e4m3fnuz 4 3  8    240      no    0x80, no -0  arXiv 2206.02915
 *     f8e5m2fnuz 5 2  16   57344    no    0x80, no -0  arXiv 2206.02915
 *     f4e2m1     2 1  1    6        no    no           OCP Microscaling, rev 1.0
 *     f8e8m0     8 0  127  2^127    no    0xFF         OCP Microscaling, rev 1.0: no sign, no zero
 *
 * From double, go through kiln_f64_to_f32_odd: rounding to odd keeps what the second rounding needs
 * to know, so that the two steps equal one (Boldo and Melquiond 2008). */
#ifndef KILN_BASE_HALF_H
#define KILN_BASE_HALF_H

#include <string.h>

#include "base/compiler.h"

static inline uint32_t kiln_f32_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float kiln_f32_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The code, without sign, of the finite magnitude `abs_bits` (a float's bits) in a format of M =
 * mantissa_bits (1..10) and B = bias (1..127). The rounding may carry past the format's largest
 * finite code: the caller compares. */
static inline uint32_t kiln_narrow_code(uint32_t abs_bits, int mantissa_bits, int bias) {
    int field = (int)(abs_bits >> 23);
    int min_field = 128 - bias; /* float's exponent field of the format's smallest normal */
    int drop = 23 - mantissa_bits;
    uint32_t significand;
    if (field >= min_field) {
        significand = abs_bits - ((uint32_t)(127 - bias) << 23);
    } else {
        significand = (abs_bits & 0x7FFFFF) | (field ? 0x800000u : 0u);
        drop += min_field - (field ? field : 1);
        drop = drop > 25 ? 25 : drop; /* significand < 2^24: everything below rounds to zero */
    }
    uint32_t code = significand >> drop;
    uint32_t rest = significand & ((1u << drop) - 1);
    uint32_t half = 1u << (drop - 1);
    return code + (rest > half || (rest == half && (code & 1)));
}

/* The float of a finite magnitude code; B < 127. */
static inline float kiln_widen_code(uint32_t code, int mantissa_bits, int bias) {
    uint32_t field = code >> mantissa_bits;
    if (field == 0) {
        return (float)code * kiln_f32_from_bits((uint32_t)(128 - bias - mantissa_bits) << 23);
    }
    return kiln_f32_from_bits((code << (23 - mantissa_bits)) + ((uint32_t)(127 - bias) << 23));
}

/* NaN payloads keep their upper bits and become quiet, as the F16C instructions do it. */
static inline uint16_t kiln_f32_to_f16(float x) {
    uint32_t bits = kiln_f32_bits(x), abs = bits & 0x7FFFFFFF, sign = bits >> 16 & 0x8000;
    uint32_t code;
    if (abs > 0x7F800000) {
        code = 0x7E00 | (abs >> 13 & 0x3FF);
    } else {
        code = abs == 0x7F800000 ? 0x7C00 : kiln_narrow_code(abs, 10, 15);
        code = code > 0x7C00 ? 0x7C00 : code;
    }
    return (uint16_t)(sign | code);
}

static inline float kiln_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, code = h & 0x7FFFu;
    if (code >= 0x7C00) {
        uint32_t quiet = code > 0x7C00 ? 0x400000u : 0u;
        return kiln_f32_from_bits(sign | 0x7F800000 | quiet | (code & 0x3FF) << 13);
    }
    return kiln_f32_from_bits(sign | kiln_f32_bits(kiln_widen_code(code, 10, 15)));
}

static inline uint16_t kiln_f32_to_bf16(float x) {
    uint32_t bits = kiln_f32_bits(x), abs = bits & 0x7FFFFFFF;
    if (abs > 0x7F800000) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    /* Adding just under half, and one more when the kept part is odd, carries as rounding does; the
     * largest float becomes infinity. */
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline float kiln_bf16_to_f32(uint16_t b) {
    return kiln_f32_from_bits((uint32_t)b << 16);
}

/* x as a float, rounded to odd: exact, or the neighbour whose last bit is set. */
float kiln_f64_to_f32_odd(double x);
uint16_t kiln_f64_to_f16(double x);
uint16_t kiln_f64_to_bf16(double x);

/* dtype is one of KILN_DTYPE_F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ. What does not fit becomes
 * the largest finite value with `saturate`, else infinity where there is one and NaN where there is
 * none (tables of ONNX Cast). NaN keeps its sign where the format has one. */
uint8_t kiln_f32_to_f8(kiln_dtype dtype, float x, bool saturate);
float kiln_f8_to_f32(kiln_dtype dtype, uint8_t code);

/* Saturates; NaN becomes a zero of the opposite sign, as in the ml_dtypes package that ONNX's
 * reference implementation uses (the format has no NaN). Codes are in the low four bits. */
uint8_t kiln_f32_to_f4(float x);
float kiln_f4_to_f32(uint8_t code);

typedef enum kiln_round_mode {
    KILN_ROUND_UP,      /* away from zero */
    KILN_ROUND_DOWN,    /* towards zero */
    KILN_ROUND_NEAREST, /* ties up */
} kiln_round_mode;

/* A power of two, or NaN (0xFF). The sign is ignored. Out of range (zero, less than 2^-127, larger
 * than 2^127 after rounding): the nearest end with `saturate`, else NaN. */
uint8_t kiln_f32_to_e8m0(float x, kiln_round_mode mode, bool saturate);
float kiln_e8m0_to_f32(uint8_t code);

#endif
