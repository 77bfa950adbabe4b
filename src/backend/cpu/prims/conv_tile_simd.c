/* conv_tile_simd.c - convolutions in bfloat16 on tile registers: the form of gemm_form.h. Only
 * processors with AVX-512 have them; other instruction sets make nothing of this file. */
#if defined(KILN_ISA_avx512) || defined(KILN_TILE_FORM)
#define KILN_FORM FORM_TILES
#include "backend/cpu/prims/conv_simd.c"
#endif
