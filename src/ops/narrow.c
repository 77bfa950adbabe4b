/* narrow.c - see narrow.h. */
#include "ops/narrow.h"

#include <math.h>

/* v toward zero into [lo, hi]; NaN gives 0. */
static int64_t truncate(double v, int64_t lo, int64_t hi) {
    if (isnan(v)) {
        return 0;
    }
    return v <= (double)lo ? lo : v >= (double)hi ? hi : (int64_t)v;
}

void kiln_store_cast(kiln_tensor *t, int64_t i, double v, const kiln_cast_rule *rule) {
    uint8_t *bytes = t->data;
    switch (t->dtype) {
    case KILN_DTYPE_F8E4M3FN:
    case KILN_DTYPE_F8E4M3FNUZ:
    case KILN_DTYPE_F8E5M2:
    case KILN_DTYPE_F8E5M2FNUZ:
        bytes[i] = kiln_f32_to_f8(t->dtype, kiln_f64_to_f32_odd(v), rule->saturate);
        return;
    case KILN_DTYPE_F8E8M0:
        bytes[i] = kiln_f32_to_e8m0((float)v, rule->round_mode, rule->saturate);
        return;
    case KILN_DTYPE_U32:
        kiln_set_i64(t->dtype, t->data, i, truncate(v, v < 0 ? INT32_MIN : 0, UINT32_MAX));
        return;
    case KILN_DTYPE_I64:
        kiln_set_i64(t->dtype, t->data, i, truncate(v, INT64_MIN, INT64_MAX));
        return;
    default:
        if (t->dtype == KILN_DTYPE_U64 || t->dtype == KILN_DTYPE_BOOL ||
            !kiln_dtype_is_int(t->dtype)) {
            kiln_set_f64(t->dtype, t->data, i, v);
        } else {
            kiln_set_i64(t->dtype, t->data, i, truncate(v, INT32_MIN, INT32_MAX));
        }
    }
}
