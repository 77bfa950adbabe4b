/* reverse_sequence.c - ReverseSequence: the first elements of each sequence in
 * a batch, reversed. */
#include "ops/index.h"

typedef struct reverse_attrs {
    int64_t batch_axis, time_axis;
} reverse_attrs;

static const kiln_attr table[] = {
    KILN_A_INT(reverse_attrs, batch_axis, 1),
    KILN_A_INT(reverse_attrs, time_axis, 0),
};

static kiln_status infer(kiln_infer *c) {
    const reverse_attrs *a = c->attrs;
    KILN_TRY(kiln_infer_rank(c, 0, 2, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    if (a->batch_axis < 0 || a->batch_axis > 1 || a->time_axis != 1 - a->batch_axis) {
        return KILN_INFER_FAIL(c, ATTR_VALUE,
                               "batch_axis = %lld and time_axis = %lld must be 0 and 1",
                               (long long)a->batch_axis, (long long)a->time_axis);
    }
    kiln_dim batch = kiln_infer_dim(c, 0, (int32_t)a->batch_axis), n = kiln_infer_dim(c, 1, 0);
    if (kiln_dim_differ(batch, n)) {
        return KILN_INFER_FAIL(c, SHAPE, "sequence_lens has %lld entries for a batch of %lld",
                               (long long)n, (long long)batch);
    }
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    const int64_t *lens = kiln_ref_in(c, 1)->data;
    int64_t b_axis = ((const reverse_attrs *)c->attrs)->batch_axis, steps = x->dims[1 - b_axis];
    int64_t inner = kiln_index_span(x->dims + 2, x->rank - 2);
    for (int64_t b = 0; b < x->dims[b_axis]; b++) {
        if (lens[b] < 0 || lens[b] > steps) {
            return KILN_INFER_FAIL(c, INDEX,
                                   "sequence_lens[%lld] = %lld is out of range for %lld steps",
                                   (long long)b, (long long)lens[b], (long long)steps);
        }
        for (int64_t t = 0; t < steps; t++) {
            int64_t from = t < lens[b] ? lens[b] - 1 - t : t;
            int64_t to_at = b_axis ? t * x->dims[1] + b : b * steps + t;
            int64_t from_at = b_axis ? from * x->dims[1] + b : b * steps + from;
            kiln_copy_elements(x->dtype, y->data, to_at * inner, x->data, from_at * inner, inner);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_reverse_sequence = {
    .name = "ReverseSequence",
    .domain = "",
    .since = 28,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, reverse_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
