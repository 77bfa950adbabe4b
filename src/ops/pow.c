/* pow.c - Pow: base and exponent may have different types; the result has the base's. */
#include <math.h>

#include "ops/elementwise.h"

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT | KILN_T_INDEX));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_NUMBER));
    return kiln_infer_broadcast(c, 0, c->in[0].type.dtype, 0, 2);
}

/* Integer power modulo 2^64 by squaring. */
static int64_t power(int64_t base, uint64_t exponent) {
    uint64_t result = 1, square = (uint64_t)base;
    for (uint64_t e = exponent; e; e >>= 1) {
        if (e & 1) {
            result *= square;
        }
        square *= square;
    }
    return (int64_t)result;
}

/* Integers with a negative exponent: 1/base^n truncated. */
static int64_t inverse(int64_t base, uint64_t exponent) {
    if (base == 1) {
        return 1;
    }
    return base == -1 ? (exponent & 1 ? -1 : 1) : 0;
}

static void integer_element(kiln_tensor *y, int64_t o, const kiln_tensor *e, int64_t base,
                            int64_t at) {
    if (kiln_dtype_is_float(e->dtype)) {
        double v = pow((double)base, kiln_get_f64(e->dtype, e->data, at));
        kiln_set_f64(y->dtype, y->data, o, v);
        return;
    }
    int64_t n = kiln_get_i64(e->dtype, e->data, at);
    bool negative = n < 0 && kiln_dtype_is_signed_int(e->dtype);
    int64_t v = negative ? inverse(base, 0 - (uint64_t)n) : power(base, (uint64_t)n);
    kiln_set_i64(y->dtype, y->data, o, v);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *in[2] = {kiln_ref_in(c, 0), kiln_ref_in(c, 1)};
    kiln_tensor *y = kiln_ref_out(c, 0);
    bool is_float = kiln_dtype_is_float(y->dtype);
    kiln_rows r;
    kiln_rows_init(&r, y, in, 2);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            int64_t b = r.at[0] + k * r.step[0], e = r.at[1] + k * r.step[1];
            if (is_float) {
                double v = pow(kiln_get_f64(in[0]->dtype, in[0]->data, b),
                               kiln_get_f64(in[1]->dtype, in[1]->data, e));
                kiln_set_f64(y->dtype, y->data, r.out + k, v);
            } else {
                int64_t base = kiln_get_i64(in[0]->dtype, in[0]->data, b);
                integer_element(y, r.out + k, in[1], base, e);
            }
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_pow = {
    .name = "Pow",
    .domain = "",
    .since = 15,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    .tolerance = KILN_TOL_ROUND,
    .infer = infer,
    .ref = ref,
};
