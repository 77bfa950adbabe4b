/* values.h - elements of any numeric type as doubles.
 *
 *     double block[64];
 *     kiln_values_load(block, &tensor, first, 64);
 *
 * Exact for every type but the 64-bit integers, which round to the nearest double beyond 2^53.
 * Complex numbers count as two elements each, real part first. */
#ifndef KILN_DATA_VALUES_H
#define KILN_DATA_VALUES_H

#include "base/compiler.h"

/* Numbers that kiln_values_load sees in one element: 2 for complex types, 1 for the other numeric
 * types, 0 for strings and types it cannot read. */
int32_t kiln_values_per_element(kiln_dtype dtype);

/* Writes numbers [first, first + count) of the flattened tensor to dst. The caller has checked the
 * range and that kiln_values_per_element is not 0. */
void kiln_values_load(double *dst, const kiln_tensor *src, int64_t first, int64_t count);

/* One number: slow, for spot reads. */
double kiln_value_at(const kiln_tensor *src, int64_t index);

#endif
