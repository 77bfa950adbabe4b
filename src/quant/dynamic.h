/* dynamic.h - 8-bit layers whose activations find their scale at run time: no calibration, but a
 * look at every activation before it is used.
 *
 *     kiln_place_options o = {.dynamic = true};
 *     KILN_TRY(kiln_place(&placed, copy, &o, NULL, diag));         // place.h
 *
 * Layers with constant weights alone are rewritten; all else stays float. x_q, x_scale and x_zero
 * are those of one DynamicQuantizeLinear for all readers of x, weights are int8 with a scale for
 * each output channel (for ONNX Runtime uint8, zero point 128: it multiplies those exactly on every
 * machine):
 *
 *     MatMul, Gemm    Cast(MatMulInteger(x_q, w_q, x_zero)) * (x_scale * w_scale) + bias
 *     Conv            Cast(ConvInteger(x_q, w_q, x_zero)) * (x_scale * w_scale) + bias
 *     LSTM, GRU       the same on DequantizeLinear(x_q, x_scale, x_zero) and dequantized weights
 *
 * so that the result is ONNX again, in the form in which ONNX Runtime and Kiln's kernels look for
 * fused products. MatMul by weights of other than two dims, ConvTranspose, and Gemm that transposes
 * its activations stay float. */
#ifndef KILN_QUANT_DYNAMIC_H
#define KILN_QUANT_DYNAMIC_H

#include "quant/place.h"

/* Rewrites an indexed, inferred root graph and its bodies, which are so again afterwards. Errors:
 * as of kiln_choose; KILN_F_PRECISION when a rule demands int8 of what has no such form, and for
 * weights that are not finite; MEMORY. */
kiln_status kiln_place_dynamic(kiln_placed *out, kiln_graph *graph,
                               const kiln_place_options *options, kiln_diag *diag);

#endif
