/* max_unpool.c - MaxUnpool: puts values back where MaxPool found them, zeros elsewhere.
 *
 * Indices count in the tensor that the attributes describe; an output_shape input only enlarges it.
 * */
#include "ops/window.h"

static const kiln_attr table[] = {
    KILN_A_INTS_REQUIRED(kiln_pool_attrs, kernel_shape),
    KILN_A_INTS(kiln_pool_attrs, pads),
    KILN_A_INTS(kiln_pool_attrs, strides),
};

enum { X, INDICES, OUTPUT_SHAPE };

static kiln_status read_window(kiln_window *w, const kiln_pool_attrs *a, int32_t n,
                               kiln_diag *diag) {
    const kiln_window_attrs attrs = {.pads = a->pads, .strides = a->strides};
    if (a->kernel_shape.n != n) {
        return kiln_fail(diag, KILN_F_ATTR_VALUE, "kernel_shape has %lld items for %d spatial dims",
                         (long long)a->kernel_shape.n, n);
    }
    return kiln_window_read(w, diag, n, &attrs, a->kernel_shape.v);
}

/* Size of spatial dim i that the attributes describe, from X's; -1 if it does not fit. */
static int64_t described(const kiln_window *w, int32_t i, int64_t in) {
    int64_t span, size, rest = w->kernel[i] - w->pad_begin[i] - w->pad_end[i];
    bool fits = kiln_mul_i64(in - 1, w->stride[i], &span) && kiln_add_i64(span, rest, &size);
    return fits ? size : -1;
}

static kiln_status stated_shape(kiln_infer *c, kiln_dim *dims, int32_t rank) {
    int64_t n = 0;
    const kiln_dim *v = kiln_infer_contents(c, OUTPUT_SHAPE, &n);
    if (v && n != rank) {
        return KILN_INFER_FAIL(c, SHAPE, "output_shape has %lld elements for rank %d", (long long)n,
                               rank);
    }
    for (int32_t i = 0; v && i < rank; i++) {
        if (kiln_dim_known(v[i]) && v[i] < 0) {
            return KILN_INFER_FAIL(c, VALUE, "output_shape[%d] is %lld", i, (long long)v[i]);
        }
        dims[i] = v[i];
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    int32_t n;
    KILN_TRY(kiln_infer_dtype(c, X, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, INDICES, KILN_T(I64)));
    KILN_TRY(kiln_window_rank(c, X, &n));
    kiln_dim *dims = kiln_infer_dims(c, 0, c->in[X].type.dtype, n < 0 ? KILN_RANK_UNKNOWN : n + 2);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    if (n < 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_rank(c, INDICES, n + 2, n + 2));
    for (int32_t i = 0; i < n + 2; i++) {
        kiln_dim a = kiln_infer_dim(c, X, i), b = kiln_infer_dim(c, INDICES, i);
        if (kiln_dim_differ(a, b)) {
            return KILN_INFER_FAIL(c, SHAPE, "dim %d is %lld in X, %lld in I", i, (long long)a,
                                   (long long)b);
        }
    }
    kiln_window w;
    KILN_TRY(read_window(&w, c->attrs, n, c->diag));
    if (kiln_infer_has(c, OUTPUT_SHAPE)) {
        KILN_TRY(kiln_infer_dtype(c, OUTPUT_SHAPE, KILN_T(I64)));
        return stated_shape(c, dims, n + 2);
    }
    for (int32_t i = 0; i < n + 2; i++) {
        kiln_dim in = kiln_infer_dim(c, X, i);
        if (i < 2) {
            dims[i] = in;
            continue;
        }
        kiln_dim span = kiln_dim_mul(c->dims, kiln_dim_sub(c->dims, in, 1), w.stride[i - 2]);
        int64_t rest = w.kernel[i - 2] - w.pad_begin[i - 2] - w.pad_end[i - 2];
        dims[i] = kiln_dim_add(c->dims, span, rest);
        if (kiln_dim_known(dims[i]) && dims[i] < 0) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "pads leave an output of %lld in spatial dim %d",
                                   (long long)dims[i], i - 2);
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, X), *indices = kiln_ref_in(c, INDICES);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_tensor shape = {.dtype = x->dtype, .rank = x->rank};
    kiln_window w;
    KILN_TRY(read_window(&w, c->attrs, x->rank - 2, c->diag));
    for (int32_t i = 0; i < x->rank; i++) {
        shape.dims[i] = i < 2 ? x->dims[i] : described(&w, i - 2, x->dims[i]);
    }
    int64_t total = kiln_tensor_count(&shape), n = kiln_tensor_count(x);
    for (int64_t k = 0; k < n; k++) {
        int64_t at[KILN_MAX_SPATIAL + 2], to = 0;
        int64_t index = ((const int64_t *)indices->data)[k];
        if (index < 0 || index >= total) {
            return KILN_INFER_FAIL(c, INDEX, "index %lld is outside a tensor of %lld elements",
                                   (long long)index, (long long)total);
        }
        kiln_unflatten(index, shape.dims, shape.rank, at);
        for (int32_t i = 0; i < y->rank; i++) {
            if (at[i] >= y->dims[i]) {
                return KILN_INFER_FAIL(c, INDEX, "index %lld falls outside output_shape in dim %d",
                                       (long long)index, i);
            }
            to = to * y->dims[i] + at[i];
        }
        kiln_copy_elements(x->dtype, y->data, to, x->data, k, 1);
    }
    return KILN_OK;
}

const kiln_op kiln_op_max_unpool = {
    .name = "MaxUnpool",
    .domain = "",
    .since = 22,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_pool_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
