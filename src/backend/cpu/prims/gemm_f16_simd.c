/* gemm_f16_simd.c - GEMM with weights in float16: the form of gemm_form.h. */
#define KILN_FORM FORM_F16
#include "backend/cpu/prims/gemm_simd.c"
