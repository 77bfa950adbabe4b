/* conv_f16_simd.c - convolutions with weights in float16: the form of gemm_form.h. */
#define KILN_FORM FORM_F16
#include "backend/cpu/prims/conv_simd.c"
