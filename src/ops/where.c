/* where.c - Where: elements of x where the condition holds, of y elsewhere. */
#include <string.h>

#include "ops/elementwise.h"

static kiln_dim choose(const kiln_infer *c, const kiln_dim *x) {
    (void)c;
    if (!kiln_dim_known(x[0])) {
        return x[1] == x[2] ? x[1] : KILN_DIM_UNKNOWN;
    }
    return x[0] ? x[1] : x[2];
}

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T(BOOL)));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_ANY));
    KILN_TRY(kiln_infer_dtype(c, 2, KILN_T_ANY));
    KILN_TRY(kiln_infer_same_dtype(c, 1, 2));
    KILN_TRY(kiln_infer_broadcast(c, 0, c->in[1].type.dtype, 0, 3));
    return kiln_contents_map(c, 3, choose);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *in[3] = {kiln_ref_in(c, 0), kiln_ref_in(c, 1), kiln_ref_in(c, 2)};
    kiln_tensor *y = kiln_ref_out(c, 0);
    const uint8_t *condition = in[0]->data;
    kiln_rows r;
    kiln_rows_init(&r, y, in, 3);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            int32_t from = condition[r.at[0] + k * r.step[0]] ? 1 : 2;
            int64_t at = r.at[from] + k * r.step[from];
            kiln_copy_elements(y->dtype, y->data, r.out + k, in[from]->data, at, 1);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_where = {
    .name = "Where",
    .domain = "",
    .since = 16,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
