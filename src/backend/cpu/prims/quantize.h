/* quantize.h - float32 to uint8 at a scale found at run time.
 *
 *     lo = hi = 0;
 *     p->range(x, n, &lo, &hi);                   widens [lo, hi]; NaN is passed over
 *     p->quantize(y, x, n, scale, zero);          sat(round_half_even(x / scale) + zero), NaN: zero
 *
 * Both take any part of an array, and the bits do not depend on the parts. */
#ifndef KILN_BACKEND_CPU_PRIMS_QUANTIZE_H
#define KILN_BACKEND_CPU_PRIMS_QUANTIZE_H

#include "base/compiler.h"

typedef struct kiln_quantize_prims {
    const char *isa;
    void (*range)(const float *x, int64_t n, float *lo, float *hi);
    void (*quantize)(uint8_t *y, const float *x, int64_t n, float scale, int32_t zero);
} kiln_quantize_prims;

extern const kiln_quantize_prims kiln_quantize_prims_portable;
extern const kiln_quantize_prims kiln_quantize_prims_avx2;
extern const kiln_quantize_prims kiln_quantize_prims_avx512;

#endif
