/* transpose.c - Transpose: axes in another order. */
#include "ops/attrs.h"
#include "ops/move.h"

static const kiln_attr table[] = {KILN_A_INTS(kiln_perm_attrs, perm)};

static int32_t source_axis(const kiln_perm_attrs *a, int32_t rank, int32_t d) {
    return a->perm.v ? (int32_t)a->perm.v[d] : rank - 1 - d;
}

static void permute(const kiln_perm_attrs *a, const kiln_tensor *x, kiln_tensor *y) {
    int64_t in[KILN_MAX_RANK], src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    kiln_strides(x->dims, x->rank, in);
    kiln_strides(y->dims, y->rank, dst);
    for (int32_t d = 0; d < x->rank; d++) {
        src[d] = in[source_axis(a, x->rank, d)];
    }
    kiln_move_box(y->dtype, y->rank, y->dims, y->data, 0, dst, x->data, 0, src);
}

static kiln_status check_perm(const kiln_infer *c, const kiln_ints *perm, int32_t rank) {
    bool seen[KILN_MAX_RANK] = {false};
    if (!perm->v) {
        return KILN_OK;
    }
    if (perm->n != rank) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "perm has %lld entries for rank %d",
                               (long long)perm->n, rank);
    }
    for (int32_t d = 0; d < rank; d++) {
        int64_t p = perm->v[d];
        if (p < 0 || p >= rank || seen[p]) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "perm[%d] = %lld is out of range or repeated", d,
                                   (long long)p);
        }
        seen[p] = true;
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const kiln_perm_attrs *a = c->attrs;
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    int32_t rank = kiln_infer_in_rank(c, 0);
    if (rank >= 0) {
        KILN_TRY(check_perm(c, &a->perm, rank));
    }
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < rank; d++) {
        out[d] = c->in[0].type.dims[source_axis(a, rank, d)];
    }
    kiln_tensor x, y;
    if (kiln_contents_in(c, 0, &x)) {
        KILN_TRY(kiln_contents_out(c, 0, &y));
        if (y.data) {
            permute(a, &x, &y);
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    permute(c->attrs, kiln_ref_in(c, 0), kiln_ref_out(c, 0));
    return KILN_OK;
}

const kiln_op kiln_op_transpose = {
    .name = "Transpose",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_perm_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
