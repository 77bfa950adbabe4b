/* conv_dot_simd.c - convolutions in bfloat16 by dot products of pairs: the form of gemm_form.h.
 * Only AVX-512 has the instruction; other instruction sets make nothing of this file. */
#if defined(KILN_ISA_avx512) || defined(KILN_DOT_FORM)
#define KILN_FORM FORM_DOT
#include "backend/cpu/prims/conv_simd.c"
#endif
