/* compress.c - Compress: the slices of an axis (or elements) for which a condition holds. */
#include "ops/index.h"

typedef struct compress_attrs {
    int64_t axis; /* KILN_ABSENT: of the flattened input */
} compress_attrs;

static const kiln_attr table[] = {KILN_A_INT(compress_attrs, axis, KILN_ABSENT)};

static kiln_status infer(kiln_infer *c) {
    int64_t a = ((const compress_attrs *)c->attrs)->axis;
    int32_t rank = kiln_infer_in_rank(c, 0), axis = 0;
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(BOOL)));
    bool flat = a == KILN_ABSENT;
    if (rank >= 0 && !flat) {
        KILN_TRY(kiln_infer_axis(c, a, rank, "axis", &axis));
    }
    kiln_dim n = rank < 0 ? KILN_DIM_UNKNOWN
                 : flat   ? kiln_dim_product(c->dims, c->in[0].type.dims, rank)
                          : kiln_infer_dim(c, 0, axis);
    kiln_dim len = kiln_infer_dim(c, 1, 0);
    if (kiln_dim_known(n) && kiln_dim_known(len) && len > n) {
        return KILN_INFER_FAIL(c, SHAPE, "condition has %lld entries for %lld", (long long)len,
                               (long long)n);
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, flat ? 1 : rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < (flat ? 1 : rank); d++) {
        out[d] = d == axis ? kiln_dim_found(c->dims, n) : c->in[0].type.dims[d];
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *condition = kiln_ref_in(c, 1);
    const uint8_t *holds = condition->data;
    int64_t a = ((const compress_attrs *)c->attrs)->axis, n = condition->dims[0], kept = 0;
    bool flat = a == KILN_ABSENT;
    int32_t axis = flat ? 0 : (int32_t)(a < 0 ? a + x->rank : a);
    int64_t dims[KILN_MAX_RANK] = {0}, outer = 1, inner = 1, size = kiln_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        kept += holds[i] != 0;
    }
    if (!flat) {
        outer = kiln_index_span(x->dims, axis);
        inner = kiln_index_span(x->dims + axis + 1, x->rank - axis - 1);
        size = x->dims[axis];
        for (int32_t d = 0; d < x->rank; d++) {
            dims[d] = x->dims[d];
        }
    }
    dims[axis] = kept;
    KILN_TRY(kiln_ref_output(c, 0, x->dtype, flat ? 1 : x->rank, dims));
    kiln_tensor *y = kiln_ref_out(c, 0);
    for (int64_t o = 0, at = 0; o < outer; o++) {
        for (int64_t i = 0; i < n; i++) {
            if (holds[i]) {
                kiln_copy_elements(x->dtype, y->data, at, x->data, (o * size + i) * inner, inner);
                at += inner;
            }
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_compress = {
    .name = "Compress",
    .domain = "",
    .since = 28,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_DATA_SIZED,
    KILN_OP_ATTRS(table, compress_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
