/* narrow.h - storing a number in any numeric dtype by Cast's rules. */
#ifndef KILN_OPS_NARROW_H
#define KILN_OPS_NARROW_H

#include "base/half.h"
#include "ops/util.h"

typedef struct kiln_cast_rule {
    bool saturate;              /* float8: clamp instead of Inf or NaN */
    kiln_round_mode round_mode; /* float8e8m0 */
} kiln_cast_rule;

/* Element i of t = v. Floats round to nearest even; integers and 4-bit integers truncate toward
 * zero, 32- and 64-bit ones saturate where ONNX leaves the result open, narrower ones wrap. */
void kiln_store_cast(kiln_tensor *t, int64_t i, double v, const kiln_cast_rule *rule);

#endif
