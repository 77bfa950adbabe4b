/* probe.h - loops that run at a core's limits: what shares of a peak are shares of.
 *
 * Each multiplies over and over in as many independent chains as cover the latency, or passes over
 * a buffer. Callers time them; whether the processor has the dot products and tiles is theirs to
 * know (KILN_CPU_VNNI, AVXVNNI, BF16, AMX_INT8, AMX_BF16). */
#ifndef KILN_BACKEND_CPU_PRIMS_PROBE_H
#define KILN_BACKEND_CPU_PRIMS_PROBE_H

#include "base/compiler.h"

typedef enum kiln_probe_product {
    KILN_PROBE_F32,         /* multiply-adds of float32 */
    KILN_PROBE_PAIRS,       /* 8-bit numbers widened to 16 bits, multiplied and added in pairs */
    KILN_PROBE_QUADS,       /* dot products of four bytes; needs VNNI */
    KILN_PROBE_BF16,        /* dot products of two bfloat16; needs AVX512-BF16 */
    KILN_PROBE_TILE_BYTES,  /* of bytes on tile registers; needs AMX-INT8 */
    KILN_PROBE_TILE_HALVES, /* of bfloat16 there; needs AMX-BF16 */
    KILN_PROBE_PRODUCTS,
} kiln_probe_product;

typedef struct kiln_probe_prims {
    const char *isa;
    /* Runs `steps` rounds and returns the multiply-adds done, 0 where this vector code has no such
     * product. *sink takes a result, so that nothing is left out. */
    double (*multiply)(kiln_probe_product product, int64_t steps, float *sink);
    /* Reads or writes n floats, a multiple of 128 aligned to 64 bytes, `passes` times. */
    float (*read)(const float *x, int64_t n, int64_t passes);
    void (*write)(float *x, int64_t n, int64_t passes);
} kiln_probe_prims;

/* A chain of n dependent integer multiplications of 3 cycles each, for the clock. */
uint64_t kiln_probe_chain(int64_t n);
enum { KILN_PROBE_CHAIN_CYCLES = 3 };

extern const kiln_probe_prims kiln_probe_prims_portable;
extern const kiln_probe_prims kiln_probe_prims_avx2;
extern const kiln_probe_prims kiln_probe_prims_avx512;

#endif
