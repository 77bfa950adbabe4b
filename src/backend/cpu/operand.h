/* operand.h - shapes and strides of operands at claim and bind time. */
#ifndef KILN_BACKEND_CPU_OPERAND_H
#define KILN_BACKEND_CPU_OPERAND_H

#include "backend/cpu/kernel.h"

/* Number of elements when all dims are numbers, else -1. */
int64_t kiln_type_elements(const kiln_type *t);

/* Strides in elements of `o` as seen through `out`'s shape (numpy broadcasting), one per physical
 * dim of `out`, outermost first. */
void kiln_operand_strides(const kiln_operand *o, const kiln_operand *out, int64_t *strides);
/* Strides in elements of `o` itself per logical (ONNX) axis. */
void kiln_logical_strides(const kiln_operand *o, int64_t *strides);

/* A constant, or any value, that varies along `axis` of `type` alone and has its full length
 * there. */
bool kiln_is_axis_vector(const kiln_value *v, const kiln_type *type, int32_t axis);

#endif
