/* trilu.c - Trilu: the upper or lower triangle of each matrix, zero elsewhere. */
#include "ops/move.h"

typedef struct trilu_attrs {
    int64_t upper;
} trilu_attrs;

static const kiln_attr table[] = {KILN_A_INT(trilu_attrs, upper, 1)};

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 2, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 0, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    int64_t n = kiln_infer_length(c, 1);
    if (kiln_infer_has(c, 1) && n >= 0 && n != 1) {
        return KILN_INFER_FAIL(c, SHAPE, "k has %lld elements, needs 1", (long long)n);
    }
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *diagonal = kiln_ref_in(c, 1);
    kiln_tensor *y = kiln_ref_out(c, 0);
    bool upper = ((const trilu_attrs *)c->attrs)->upper != 0;
    int64_t rows = x->dims[x->rank - 2], columns = x->dims[x->rank - 1];
    int64_t k = diagonal ? ((const int64_t *)diagonal->data)[0] : 0;
    /* Beyond these, all or nothing is kept. */
    k = k > columns ? columns : k < -rows ? -rows : k;
    if (kiln_tensor_count(x) == 0) {
        return KILN_OK;
    }
    for (int64_t r = 0, n = kiln_tensor_count(x) / columns; r < n; r++) {
        int64_t edge = r % rows + k + !upper; /* first kept column, or the first not kept */
        edge = edge < 0 ? 0 : edge > columns ? columns : edge;
        int64_t from = upper ? edge : 0, count = upper ? columns - edge : edge;
        kiln_copy_elements(y->dtype, y->data, r * columns + from, x->data, r * columns + from,
                           count);
    }
    return KILN_OK;
}

const kiln_op kiln_op_trilu = {
    .name = "Trilu",
    .domain = "",
    .since = 14,
    .min_in = 1,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, trilu_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
