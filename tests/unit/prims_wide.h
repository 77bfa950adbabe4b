/* prims_wide.h - the prims of narrow numbers at AVX-512's width in plain arithmetic, which run on
 * any machine: PAIRS as `wide`, the four-byte form as `widevnni`, bfloat16 by dot products as a
 * form of its own. CMakeLists.txt compiles them. */
#ifndef KILN_TESTS_UNIT_PRIMS_WIDE_H
#define KILN_TESTS_UNIT_PRIMS_WIDE_H

#include "backend/cpu/prims/conv.h"
#include "backend/cpu/prims/conv_q8.h"
#include "backend/cpu/prims/depthwise_q8.h"
#include "backend/cpu/prims/gemm_q8.h"

extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_wide, kiln_gemm_q8_prims_widevnni;
extern const kiln_conv_q8_prims kiln_conv_q8_prims_wide, kiln_conv_q8_prims_widevnni;
extern const kiln_depthwise_q8_prims kiln_depthwise_q8_prims_wide, kiln_depthwise_q8_prims_widevnni;
extern const kiln_gemm_prims kiln_gemm_bf16_prims_wide, kiln_gemm_dot_prims_wide;
extern const kiln_conv_prims kiln_conv_bf16_prims_wide, kiln_conv_dot_prims_wide;

#endif
