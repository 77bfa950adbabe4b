/* depthwise_half_simd.c - depthwise convolution of values held in bfloat16, beside the products of
 * pairs: only AVX-512 has their instructions, other instruction sets make nothing of this file. */
#if defined(KILN_ISA_avx512) || defined(KILN_DOT_FORM)
#define KILN_DEPTHWISE_HALF
#include "backend/cpu/prims/depthwise_simd.c"
#endif
