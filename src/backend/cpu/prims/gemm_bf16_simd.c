/* gemm_bf16_simd.c - GEMM with weights in bfloat16: the form of gemm_form.h. */
#define KILN_FORM FORM_BF16
#include "backend/cpu/prims/gemm_simd.c"
