/* quantize.h - float32 to uint8 at a scale found at run time, and packed weights to float32.
 *
 *     lo = hi = 0;
 *     p->range(x, n, &lo, &hi);                   widens [lo, hi]; NaN is passed over
 *     p->quantize(y, x, n, scale, zero);          sat(round_half_even(x / scale) + zero), NaN: zero
 *
 * Both take any part of an array, and the bits do not depend on the parts.
 *
 *     p->panel(dst, &codes);          a panel of kiln_gemm_prims, (code - zero) * scale
 *     p->dots(sums, &codes, x);       a row times it, without storing it
 */
#ifndef KILN_BACKEND_CPU_PRIMS_QUANTIZE_H
#define KILN_BACKEND_CPU_PRIMS_QUANTIZE_H

#include "base/compiler.h"

typedef enum kiln_codes_kind {
    KILN_CODES_S8,
    KILN_CODES_U8,
    KILN_CODES_S4,
    KILN_CODES_U4
} kiln_codes_kind;

/* k rows of nr codes. Codes of 4 bits: rows 2 i and 2 i + 1 share nr bytes, the even one in the low
 * bits. nr is that of the instruction set's kiln_gemm_prims. */
typedef struct kiln_codes {
    kiln_codes_kind kind;
    int64_t k, nr;
    int64_t block;      /* rows that share scales, at least 1 */
    const void *code;   /* k * nr bytes, or (k + 1) / 2 * nr */
    const float *scale; /* [ceil(k / block), nr] */
    const float *zero;  /* likewise, or NULL: all 0 */
} kiln_codes;

typedef struct kiln_quantize_prims {
    const char *isa;
    void (*range)(const float *x, int64_t n, float *lo, float *hi);
    void (*quantize)(uint8_t *y, const float *x, int64_t n, float scale, int32_t zero);
    void (*panel)(float *dst, const kiln_codes *codes); /* dst[k, nr] */
    /* sums[nr] of the row x[k] times those floats, in kiln_gemm_prims' order. */
    void (*dots)(float *sums, const kiln_codes *codes, const float *x);
} kiln_quantize_prims;

extern const kiln_quantize_prims kiln_quantize_prims_portable;
extern const kiln_quantize_prims kiln_quantize_prims_avx2;
extern const kiln_quantize_prims kiln_quantize_prims_avx512;

#endif
