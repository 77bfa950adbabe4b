/* sequence_tensor.c - ConcatFromSequence and SplitToSequence: between one tensor and a list of
 * them. */
#include "ops/flow.h"
#include "ops/index.h"
#include "ops/move.h"

typedef struct join_attrs {
    int64_t axis, new_axis;
} join_attrs;

typedef struct cut_attrs {
    int64_t axis, keepdims;
} cut_attrs;

static const kiln_attr join_table[] = {
    KILN_A_INT_REQUIRED(join_attrs, axis),
    KILN_A_INT(join_attrs, new_axis, 0),
};
static const kiln_attr cut_table[] = {
    KILN_A_INT(cut_attrs, axis, 0),
    KILN_A_INT(cut_attrs, keepdims, 1),
};

static kiln_status join_infer(kiln_infer *c) {
    const join_attrs *a = c->attrs;
    const kiln_type *t = &c->in[0].type;
    if (t->kind != KILN_KIND_SEQUENCE) {
        return KILN_INFER_FAIL(c, DTYPE, "input 0 must be a sequence");
    }
    if (a->new_axis != 0 && a->new_axis != 1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "new_axis = %lld is neither 0 nor 1",
                               (long long)a->new_axis);
    }
    int32_t rank = t->elem ? t->elem->rank : KILN_RANK_UNKNOWN, axis = 0;
    if (rank >= 0) {
        rank += (int32_t)a->new_axis;
        KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
    }
    kiln_dim *out = kiln_infer_dims(c, 0, t->elem ? t->elem->dtype : KILN_DTYPE_NONE, rank);
    for (int32_t d = 0; out && d < rank; d++) {
        out[d] = d == axis ? kiln_dim_found(c->dims, KILN_DIM_UNKNOWN)
                           : t->elem->dims[a->new_axis && d > axis ? d - 1 : d];
    }
    return out ? KILN_OK : KILN_E_MEMORY;
}

/* An item seen with the new axis in place. */
static kiln_tensor item_view(const kiln_tensor *item, bool new_axis, int32_t axis) {
    kiln_tensor t = *item;
    if (new_axis) {
        for (int32_t d = t.rank++; d > axis; d--) {
            t.dims[d] = t.dims[d - 1];
        }
        t.dims[axis] = 1;
    }
    return t;
}

static kiln_status join_ref(kiln_ref *c) {
    const join_attrs *a = c->attrs;
    const kiln_datum *s = &c->in[0];
    if (s->n_items == 0) {
        return KILN_INFER_FAIL(c, VALUE, "the sequence is empty");
    }
    bool new_axis = a->new_axis != 0;
    int32_t rank = s->items[0].tensor.rank + new_axis;
    if (a->axis < -(int64_t)rank || a->axis >= rank || rank > KILN_MAX_RANK) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "axis = %lld is out of range for rank %d",
                               (long long)a->axis, rank);
    }
    int32_t axis = (int32_t)(a->axis < 0 ? a->axis + rank : a->axis);
    kiln_tensor sum = item_view(&s->items[0].tensor, new_axis, axis);
    for (int64_t i = 1; i < s->n_items; i++) {
        const kiln_tensor *item = &s->items[i].tensor;
        bool fits = item->rank + new_axis == rank && item->dtype == sum.dtype;
        kiln_tensor t = fits ? item_view(item, new_axis, axis) : sum;
        for (int32_t d = 0; fits && d < rank; d++) {
            fits = d == axis || t.dims[d] == sum.dims[d];
        }
        if (!fits || !kiln_add_i64(sum.dims[axis], t.dims[axis], &sum.dims[axis])) {
            return KILN_INFER_FAIL(c, SHAPE, "item %lld of the sequence does not fit the first one",
                                   (long long)i);
        }
    }
    if (!kiln_ref_out(c, 0)->data) {
        KILN_TRY(kiln_ref_output(c, 0, sum.dtype, rank, sum.dims));
    }
    int64_t dst[KILN_MAX_RANK], src[KILN_MAX_RANK], at = 0;
    kiln_strides(sum.dims, rank, dst);
    for (int64_t i = 0; i < s->n_items; i++) {
        kiln_tensor t = item_view(&s->items[i].tensor, new_axis, axis);
        kiln_strides(t.dims, rank, src);
        kiln_move_box(t.dtype, rank, t.dims, kiln_ref_out(c, 0)->data, at * dst[axis], dst, t.data,
                      0, src);
        at += t.dims[axis];
    }
    return KILN_OK;
}

static kiln_status cut_infer(kiln_infer *c) {
    const cut_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0), axis = 0;
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 0, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_INDEX));
    if (rank >= 0) {
        KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
    }
    bool split = kiln_infer_has(c, 1), drop = !split && !a->keepdims;
    kiln_type *elem;
    kiln_dim *dims;
    KILN_ALLOC(elem, c->arena, 1);
    KILN_ALLOC(dims, c->arena, rank < 0 ? 0 : rank);
    for (int32_t d = 0, k = 0; d < rank; d++) {
        if (d != axis) {
            dims[k++] = c->in[0].type.dims[d];
        } else if (!drop) {
            dims[k++] = split ? KILN_DIM_UNKNOWN : 1;
        }
    }
    *elem = kiln_type_tensor(c->in[0].type.dtype, rank < 0 ? rank : rank - drop, dims);
    c->out[0].type = (kiln_type){.kind = KILN_KIND_SEQUENCE, .elem = elem};
    return KILN_OK;
}

/* Size of piece i: the list's entry, or the scalar's value (less for the last piece). */
static int64_t piece(const kiln_tensor *split, int64_t i, int64_t left) {
    if (!split) {
        return 1;
    }
    int64_t size = kiln_get_i64(split->dtype, split->data, split->rank ? i : 0);
    return split->rank == 0 && size > left ? left : size;
}

static kiln_status count_pieces(kiln_ref *c, const kiln_tensor *split, int64_t n, int64_t *count) {
    int64_t left = n;
    *count = n;
    if (split && split->rank == 0) {
        int64_t size = kiln_get_i64(split->dtype, split->data, 0);
        if (size < 1) {
            return KILN_INFER_FAIL(c, VALUE, "split = %lld is not positive", (long long)size);
        }
        *count = n ? (n - 1) / size + 1 : 0;
    } else if (split) {
        *count = split->dims[0];
        for (int64_t i = 0; i < *count; i++) {
            int64_t size = kiln_get_i64(split->dtype, split->data, i);
            if (size < 0 || size > left) {
                return KILN_INFER_FAIL(c, VALUE, "split[%lld] = %lld is out of range", (long long)i,
                                       (long long)size);
            }
            left -= size;
        }
        if (left) {
            return KILN_INFER_FAIL(c, SHAPE, "split leaves %lld of an axis of size %lld",
                                   (long long)left, (long long)n);
        }
    }
    return KILN_OK;
}

static kiln_status cut_ref(kiln_ref *c) {
    const cut_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *split = kiln_ref_in(c, 1);
    int32_t axis = (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    int64_t n, at = 0, src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    bool drop = !split && !a->keepdims;
    KILN_TRY(count_pieces(c, split, x->dims[axis], &n));
    KILN_ALLOC(c->out[0].items, c->arena, n);
    c->out[0].n_items = n;
    kiln_strides(x->dims, x->rank, src);
    for (int64_t i = 0; i < n; i++) {
        kiln_datum *d = &c->out[0].items[i];
        kiln_tensor shape = *x;
        shape.dims[axis] = piece(split, i, x->dims[axis] - at);
        d->kind = KILN_KIND_TENSOR;
        KILN_TRY(kiln_ref_scratch(c, &d->tensor, x->dtype, x->rank, shape.dims));
        kiln_strides(shape.dims, x->rank, dst);
        kiln_move_box(x->dtype, x->rank, shape.dims, d->tensor.data, 0, dst, x->data,
                      at * src[axis], src);
        at += shape.dims[axis];
        for (int32_t k = axis; drop && k < x->rank - 1; k++) {
            d->tensor.dims[k] = x->dims[k + 1];
        }
        d->tensor.rank -= drop;
    }
    return KILN_OK;
}

const kiln_op kiln_op_concat_from_sequence = {
    .name = "ConcatFromSequence",
    .domain = "",
    .since = 11,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ANY_KIND,
    KILN_OP_ATTRS(join_table, join_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = join_infer,
    .ref = join_ref,
};

const kiln_op kiln_op_split_to_sequence = {
    .name = "SplitToSequence",
    .domain = "",
    .since = 24,
    .min_in = 1,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(cut_table, cut_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = cut_infer,
    .ref = cut_ref,
};
