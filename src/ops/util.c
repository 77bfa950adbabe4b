#include "ops/util.h"

#include <string.h>

#include "base/env.h"

int32_t kiln_infer_in_rank(const kiln_infer *c, int32_t i) {
    if (i >= c->n_in || c->in[i].type.kind != KILN_KIND_TENSOR) {
        return KILN_RANK_UNKNOWN;
    }
    return c->in[i].type.rank;
}

kiln_dim kiln_infer_dim(const kiln_infer *c, int32_t i, int32_t d) {
    int32_t rank = kiln_infer_in_rank(c, i);
    if (d < 0) {
        d += rank;
    }
    return rank >= 0 && d >= 0 && d < rank ? c->in[i].type.dims[d] : KILN_DIM_UNKNOWN;
}

kiln_status kiln_infer_rank(const kiln_infer *c, int32_t i, int32_t lo, int32_t hi) {
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    if (c->in[i].type.kind != KILN_KIND_TENSOR) {
        return KILN_INFER_FAIL(c, DTYPE, "input %d must be a tensor", i);
    }
    int32_t rank = c->in[i].type.rank;
    if (rank < 0 || (rank >= lo && (hi < 0 || rank <= hi))) {
        return KILN_OK;
    }
    if (hi < 0) {
        return KILN_INFER_FAIL(c, SHAPE, "input %d has rank %d, needs at least %d", i, rank, lo);
    }
    return KILN_INFER_FAIL(c, SHAPE, "input %d has rank %d, needs %d to %d", i, rank, lo, hi);
}

kiln_status kiln_infer_dtype(const kiln_infer *c, int32_t i, uint32_t set) {
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    if (c->in[i].type.kind != KILN_KIND_TENSOR) {
        return KILN_INFER_FAIL(c, DTYPE, "input %d must be a tensor", i);
    }
    kiln_dtype d = c->in[i].type.dtype;
    if (d != KILN_DTYPE_NONE && !(set >> d & 1)) {
        return KILN_INFER_FAIL(c, DTYPE, "input %d is %s, which the operator does not take", i,
                               kiln_dtype_name(d));
    }
    return KILN_OK;
}

kiln_status kiln_infer_same_dtype(const kiln_infer *c, int32_t i, int32_t j) {
    if (!kiln_infer_has(c, i) || !kiln_infer_has(c, j)) {
        return KILN_OK;
    }
    if (c->in[i].type.kind != KILN_KIND_TENSOR || c->in[j].type.kind != KILN_KIND_TENSOR) {
        return KILN_INFER_FAIL(c, DTYPE, "inputs %d and %d must be tensors", i, j);
    }
    kiln_dtype a = c->in[i].type.dtype, b = c->in[j].type.dtype;
    if (a != b && a != KILN_DTYPE_NONE && b != KILN_DTYPE_NONE) {
        return KILN_INFER_FAIL(c, DTYPE,
                               "inputs %d and %d must have one element type, have %s and %s", i, j,
                               kiln_dtype_name(a), kiln_dtype_name(b));
    }
    return KILN_OK;
}

kiln_status kiln_infer_axis(const kiln_infer *c, int64_t axis, int32_t rank, const char *what,
                            int32_t *out) {
    *out = 0;
    if (axis < -(int64_t)rank || axis >= rank) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "%s = %lld is out of range for rank %d", what,
                               (long long)axis, rank);
    }
    *out = (int32_t)(axis < 0 ? axis + rank : axis);
    return KILN_OK;
}

kiln_status kiln_infer_ints(kiln_infer *c, int32_t i, const int64_t **v, int64_t *n) {
    *v = NULL;
    *n = 0;
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    const kiln_fact *f = &c->in[i];
    if (f->data) {
        int64_t count = kiln_tensor_count(f->data);
        int64_t *ints;
        KILN_ALLOC(ints, c->arena, count);
        for (int64_t k = 0; k < count; k++) {
            ints[k] = kiln_get_i64(f->data->dtype, f->data->data, k);
        }
        *v = ints;
        *n = count;
        return KILN_OK;
    }
    if (!f->contents) {
        return KILN_OK;
    }
    for (int64_t k = 0; k < f->n_contents; k++) {
        if (!kiln_dim_known(f->contents[k])) {
            return KILN_OK;
        }
    }
    *v = f->contents;
    *n = f->n_contents;
    return KILN_OK;
}

const kiln_dim *kiln_infer_contents(const kiln_infer *c, int32_t i, int64_t *n) {
    *n = 0;
    if (!kiln_infer_has(c, i) || !c->in[i].contents) {
        return NULL;
    }
    *n = c->in[i].n_contents;
    return c->in[i].contents;
}

kiln_status kiln_infer_floats(kiln_infer *c, int32_t i, const double **v, int64_t *n) {
    *v = NULL;
    *n = 0;
    const kiln_tensor *t = kiln_infer_has(c, i) ? c->in[i].data : NULL;
    if (!t) {
        return KILN_OK;
    }
    int64_t count = kiln_tensor_count(t);
    double *d;
    KILN_ALLOC(d, c->arena, count);
    for (int64_t k = 0; k < count; k++) {
        d[k] = kiln_get_f64(t->dtype, t->data, k);
    }
    *v = d;
    *n = count;
    return KILN_OK;
}

int64_t kiln_infer_length(const kiln_infer *c, int32_t i) {
    int32_t rank = kiln_infer_in_rank(c, i);
    if (rank == 0) {
        return 1;
    }
    kiln_dim d = rank == 1 ? kiln_infer_dim(c, i, 0) : KILN_DIM_UNKNOWN;
    return kiln_dim_known(d) ? d : -1;
}

kiln_dim *kiln_infer_dims(kiln_infer *c, int32_t i, kiln_dtype dtype, int32_t rank) {
    kiln_dim *dims = kiln_arena_array(c->arena, rank > 0 ? (size_t)rank : 1, sizeof *dims);
    if (!dims) {
        return NULL;
    }
    for (int32_t d = 0; d < rank; d++) {
        dims[d] = KILN_DIM_UNKNOWN;
    }
    if (i < c->n_out) {
        c->out[i].type = kiln_type_tensor(dtype, rank, dims);
    }
    return dims;
}

kiln_status kiln_infer_like(kiln_infer *c, int32_t i, int32_t j, kiln_dtype dtype) {
    if (i >= c->n_out) {
        return KILN_OK;
    }
    c->out[i].type = c->in[j].type;
    if (dtype != KILN_DTYPE_NONE) {
        c->out[i].type.dtype = dtype;
    }
    return KILN_OK;
}

kiln_status kiln_infer_set_contents(kiln_infer *c, int32_t i, const kiln_dim *v, int64_t n) {
    if (n > KILN_MAX_CONTENTS || i >= c->n_out) {
        return KILN_OK;
    }
    kiln_dim *copy = kiln_arena_copy(c->arena, v, (size_t)n * sizeof *v);
    if (!copy) {
        return KILN_E_MEMORY;
    }
    c->out[i].contents = copy;
    c->out[i].n_contents = n;
    return KILN_OK;
}

bool kiln_dim_broadcast(kiln_dims *dims, kiln_dim a, kiln_dim b, kiln_dim *out) {
    if (a == b || b == 1) {
        *out = a;
    } else if (a == 1) {
        *out = b;
    } else if (kiln_dim_known(a) && kiln_dim_known(b)) {
        return false;
    } else if (kiln_dim_known(a) || kiln_dim_known(b)) {
        /* A number above one decides: the other is equal to it, or one. A zero also decides. */
        *out = kiln_dim_known(a) ? a : b;
    } else {
        *out = kiln_dim_max(dims, a, b);
    }
    return true;
}

kiln_status kiln_infer_broadcast(kiln_infer *c, int32_t i, kiln_dtype dtype, int32_t first,
                                 int32_t count) {
    int32_t rank = 0;
    for (int32_t k = first; k < first + count; k++) {
        int32_t r = kiln_infer_in_rank(c, k);
        if (!kiln_infer_has(c, k)) {
            continue;
        }
        if (r < 0) {
            return kiln_infer_dims(c, i, dtype, KILN_RANK_UNKNOWN) ? KILN_OK : KILN_E_MEMORY;
        }
        rank = r > rank ? r : rank;
    }
    kiln_dim *dims = kiln_infer_dims(c, i, dtype, rank);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < rank; d++) {
        dims[d] = 1;
        for (int32_t k = first; k < first + count; k++) {
            int32_t at = d - (rank - kiln_infer_in_rank(c, k));
            if (!kiln_infer_has(c, k) || at < 0) {
                continue;
            }
            kiln_dim in = c->in[k].type.dims[at], sum = dims[d];
            if (!kiln_dim_broadcast(c->dims, sum, in, &dims[d])) {
                return KILN_INFER_FAIL(c, SHAPE,
                                       "input %d has %lld in dim %d where the others have %lld", k,
                                       (long long)in, at, (long long)sum);
            }
        }
    }
    return KILN_OK;
}

static kiln_status new_tensor(kiln_ref *c, kiln_tensor *t, kiln_dtype dtype, int32_t rank,
                              const int64_t *dims) {
    memset(t, 0, sizeof *t);
    t->dtype = dtype;
    t->rank = rank;
    if (rank > KILN_MAX_RANK) {
        return kiln_fail(c->diag, KILN_F_VARIANT, "a tensor of rank %d; at most %d is supported",
                         rank, KILN_MAX_RANK);
    }
    for (int32_t i = 0; i < rank; i++) {
        t->dims[i] = dims[i];
    }
    t->cap_bytes = kiln_tensor_bytes(t);
    if (t->cap_bytes == SIZE_MAX || t->cap_bytes > c->limits->tensor_bytes) {
        return kiln_fail(c->diag, KILN_F_RUN_SIZE,
                         "a tensor would be larger than the limit of %llu bytes",
                         (unsigned long long)c->limits->tensor_bytes);
    }
    t->data = kiln_arena_array(c->arena, t->cap_bytes, 1);
    return t->data ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_ref_output(kiln_ref *c, int32_t i, kiln_dtype dtype, int32_t rank,
                            const int64_t *dims) {
    kiln_tensor t;
    if (i >= c->n_out) {
        return KILN_OK;
    }
    KILN_TRY(new_tensor(c, &t, dtype, rank, dims));
    c->out[i] = (kiln_datum){.kind = KILN_KIND_TENSOR, .tensor = t};
    return KILN_OK;
}

kiln_status kiln_ref_scratch(kiln_ref *c, kiln_tensor *out, kiln_dtype dtype, int32_t rank,
                             const int64_t *dims) {
    return new_tensor(c, out, dtype, rank, dims);
}

kiln_status kiln_ref_poll(const kiln_ref *c) {
    if (c->cancelled && atomic_load_explicit(c->cancelled, memory_order_relaxed)) {
        return kiln_fail(c->diag, KILN_F_RUN_CANCELLED, "the run was cancelled");
    }
    return KILN_OK;
}

kiln_status kiln_ref_doubles(kiln_ref *c, const kiln_tensor *t, double **out) {
    int64_t n = kiln_tensor_count(t);
    double *d;
    KILN_ALLOC(d, c->arena, n);
    for (int64_t i = 0; i < n; i++) {
        d[i] = kiln_get_f64(t->dtype, t->data, i);
    }
    *out = d;
    return KILN_OK;
}

kiln_status kiln_ref_ints(kiln_ref *c, const kiln_tensor *t, int64_t **out) {
    int64_t n = kiln_tensor_count(t);
    int64_t *v;
    KILN_ALLOC(v, c->arena, n);
    for (int64_t i = 0; i < n; i++) {
        v[i] = kiln_get_i64(t->dtype, t->data, i);
    }
    *out = v;
    return KILN_OK;
}

void kiln_strides(const int64_t *dims, int32_t rank, int64_t *strides) {
    int64_t s = 1;
    for (int32_t i = rank - 1; i >= 0; i--) {
        strides[i] = s;
        s *= dims[i];
    }
}

void kiln_broadcast_strides(const int64_t *dims, int32_t r, const int64_t *out_dims, int32_t R,
                            int64_t *strides) {
    int64_t s = 1;
    for (int32_t i = R - 1; i >= 0; i--) {
        int32_t at = i - (R - r);
        strides[i] = at < 0 || (dims[at] == 1 && out_dims[i] != 1) ? 0 : s;
        s *= at < 0 ? 1 : dims[at];
    }
}

void kiln_walk_init(kiln_walk *w, const int64_t *dims, int32_t rank) {
    memset(w, 0, sizeof *w);
    w->rank = rank;
    for (int32_t i = 0; i < rank; i++) {
        w->dims[i] = dims[i];
    }
}

int32_t kiln_walk_operand(kiln_walk *w, const int64_t *strides) {
    for (int32_t i = 0; i < w->rank; i++) {
        w->strides[w->n][i] = strides[i];
    }
    return w->n++;
}

bool kiln_walk_next(kiln_walk *w) {
    for (int32_t d = w->rank - 1; d >= 0; d--) {
        w->idx[d]++;
        for (int32_t k = 0; k < w->n; k++) {
            w->offset[k] += w->strides[k][d];
        }
        if (w->idx[d] < w->dims[d]) {
            return true;
        }
        for (int32_t k = 0; k < w->n; k++) {
            w->offset[k] -= w->strides[k][d] * w->dims[d];
        }
        w->idx[d] = 0;
    }
    return false;
}

bool kiln_walk_empty(const kiln_walk *w) {
    for (int32_t i = 0; i < w->rank; i++) {
        if (w->dims[i] == 0) {
            return true;
        }
    }
    return false;
}
