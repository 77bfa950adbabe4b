/* prims_wide.h - prims of products at AVX-512's width in plain arithmetic, which run on
 * any machine: PAIRS as `wide`, the four-byte form as `widevnni`, tile registers as `wideamx`,
 * bfloat16 by dot products and in tiles as forms of their own. CMakeLists.txt compiles them. */
#ifndef KILN_TESTS_UNIT_PRIMS_WIDE_H
#define KILN_TESTS_UNIT_PRIMS_WIDE_H

#include "backend/cpu/prims/conv.h"
#include "backend/cpu/prims/conv_q8.h"
#include "backend/cpu/prims/depthwise.h"
#include "backend/cpu/prims/depthwise_q8.h"
#include "backend/cpu/prims/gemm_q8.h"
#include "backend/cpu/prims/winograd.h"

extern const kiln_gemm_prims kiln_gemm_prims_wide;
extern const kiln_conv_prims kiln_conv_prims_wide;
extern const kiln_depthwise_prims kiln_depthwise_prims_wide;
extern const kiln_winograd_prims kiln_winograd_prims_wide;
extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_wide, kiln_gemm_q8_prims_widevnni;
extern const kiln_conv_q8_prims kiln_conv_q8_prims_wide, kiln_conv_q8_prims_widevnni;
extern const kiln_depthwise_q8_prims kiln_depthwise_q8_prims_wide, kiln_depthwise_q8_prims_widevnni;
extern const kiln_gemm_prims kiln_gemm_bf16_prims_wide, kiln_gemm_dot_prims_wide;
extern const kiln_conv_prims kiln_conv_bf16_prims_wide, kiln_conv_dot_prims_wide;
extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_wideamx;
extern const kiln_conv_q8_prims kiln_conv_q8_prims_wideamx;
extern const kiln_depthwise_prims kiln_depthwise_half_prims_wide;
extern const kiln_gemm_prims kiln_gemm_tile_prims_wide;
extern const kiln_conv_prims kiln_conv_tile_prims_wide;

/* Every form of the 8-bit prims, the one that others are compared with first: X(isa, rung, CPU
 * features). */
#define Q8_FORMS(X)                             \
    X(portable, KILN_ISA_PORTABLE, 0)           \
    X(wide, KILN_ISA_PORTABLE, 0)               \
    X(widevnni, KILN_ISA_PORTABLE, 0)           \
    X(avx2, KILN_ISA_AVX2, 0)                   \
    X(avxvnni, KILN_ISA_AVX2, KILN_CPU_AVXVNNI) \
    X(avx512, KILN_ISA_AVX512, 0)               \
    X(avx512vnni, KILN_ISA_AVX512, KILN_CPU_VNNI)

/* Those of products alone, on tile registers. */
#define Q8_TILE_FORMS(X)             \
    X(wideamx, KILN_ISA_PORTABLE, 0) \
    X(amx, KILN_ISA_AVX512, KILN_CPU_AMX_INT8)

#endif
