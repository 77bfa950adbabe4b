/* unique.c - Unique: the different elements, or slices of an axis, of a tensor. */
#include "ops/index.h"
#include "ops/order.h"

typedef struct unique_attrs {
    int64_t axis; /* KILN_ABSENT: elements of the flattened input */
    int64_t sorted;
} unique_attrs;

static const kiln_attr table[] = {
    KILN_A_INT(unique_attrs, axis, KILN_ABSENT),
    KILN_A_INT(unique_attrs, sorted, 1),
};

static kiln_status infer(kiln_infer *c) {
    const unique_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0), axis = 0;
    bool flat = a->axis == KILN_ABSENT;
    KILN_TRY(kiln_infer_rank(c, 0, flat ? 0 : 1, KILN_MAX_RANK));
    if (rank >= 0 && !flat) {
        KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
    }
    kiln_dim n = rank < 0 ? KILN_DIM_UNKNOWN
                 : flat   ? kiln_dim_product(c->dims, c->in[0].type.dims, rank)
                          : kiln_infer_dim(c, 0, axis);
    kiln_dim found = kiln_dim_found(c->dims, n);
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, flat ? 1 : rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < (flat ? 1 : rank); d++) {
        out[d] = d == axis ? found : c->in[0].type.dims[d];
    }
    for (int32_t i = 1; i < 4; i++) {
        out = kiln_infer_dims(c, i, KILN_DTYPE_I64, 1);
        if (!out) {
            return KILN_E_MEMORY;
        }
        out[0] = i == 2 ? n : found;
    }
    return KILN_OK;
}

/* The items compared: slice i of the axis is the elements (o * n + i) * inner + j. */
typedef struct slices {
    const kiln_tensor *x;
    int64_t outer, n, inner;
} slices;

static int compare(const void *user, int64_t a, int64_t b) {
    const slices *s = user;
    for (int64_t o = 0; o < s->outer; o++) {
        for (int64_t j = 0; j < s->inner; j++) {
            int order = kiln_order_elements(s->x, (o * s->n + a) * s->inner + j,
                                            (o * s->n + b) * s->inner + j);
            if (order) {
                return order;
            }
        }
    }
    return 0;
}

static int by_number(const void *user, int64_t a, int64_t b) {
    const int64_t *first = user;
    return (first[a] > first[b]) - (first[a] < first[b]);
}

/* Groups of equal items, in the order in which they leave. */
typedef struct groups {
    int64_t n;
    int64_t *first, *count; /* per group */
    int64_t *of;            /* per item */
} groups;

static kiln_status find_groups(kiln_ref *c, const slices *s, bool sorted, groups *g) {
    int64_t *items, *scratch, *rank, n = s->n;
    KILN_ALLOC(items, c->arena, n);
    KILN_ALLOC(scratch, c->arena, n);
    KILN_ALLOC(rank, c->arena, n);
    KILN_ALLOC(g->first, c->arena, n);
    KILN_ALLOC(g->count, c->arena, n);
    KILN_ALLOC(g->of, c->arena, n);
    for (int64_t i = 0; i < n; i++) {
        items[i] = i;
    }
    kiln_order_sort(items, scratch, n, compare, s);
    int64_t *first = scratch; /* by value order */
    g->n = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || compare(s, items[i - 1], items[i]) != 0) {
            first[g->n++] = items[i];
        }
        g->of[items[i]] = g->n - 1;
    }
    for (int64_t i = 0; i < g->n; i++) {
        items[i] = i;
    }
    if (!sorted) {
        kiln_order_sort(items, g->count, g->n, by_number, first);
    }
    for (int64_t i = 0; i < g->n; i++) {
        rank[items[i]] = i;
        g->first[i] = first[items[i]];
        g->count[i] = 0;
    }
    for (int64_t i = 0; i < n; i++) {
        g->of[i] = rank[g->of[i]];
        g->count[g->of[i]]++;
    }
    return KILN_OK;
}

static kiln_status give_ints(kiln_ref *c, int32_t i, const int64_t *v, int64_t n) {
    if (i < c->n_out) {
        KILN_TRY(kiln_ref_output(c, i, KILN_DTYPE_I64, 1, &n));
        kiln_copy_elements(KILN_DTYPE_I64, kiln_ref_out(c, i)->data, 0, v, 0, n);
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const unique_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    bool flat = a->axis == KILN_ABSENT;
    int32_t axis = flat ? 0 : (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    int64_t dims[KILN_MAX_RANK] = {0};
    slices s = {x, 1, kiln_tensor_count(x), 1};
    if (!flat) {
        s = (slices){x, kiln_index_span(x->dims, axis), x->dims[axis],
                     kiln_index_span(x->dims + axis + 1, x->rank - axis - 1)};
        for (int32_t d = 0; d < x->rank; d++) {
            dims[d] = x->dims[d];
        }
    }
    groups g;
    KILN_TRY(find_groups(c, &s, a->sorted != 0, &g));
    dims[axis] = g.n;
    KILN_TRY(kiln_ref_output(c, 0, x->dtype, flat ? 1 : x->rank, dims));
    for (int64_t o = 0; o < s.outer; o++) {
        for (int64_t i = 0; i < g.n; i++) {
            kiln_copy_elements(x->dtype, kiln_ref_out(c, 0)->data, (o * g.n + i) * s.inner, x->data,
                               (o * s.n + g.first[i]) * s.inner, s.inner);
        }
    }
    KILN_TRY(give_ints(c, 1, g.first, g.n));
    KILN_TRY(give_ints(c, 2, g.of, s.n));
    return give_ints(c, 3, g.count, g.n);
}

const kiln_op kiln_op_unique = {
    .name = "Unique",
    .domain = "",
    .since = 28,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 4,
    .flags = KILN_OP_DATA_SIZED,
    KILN_OP_ATTRS(table, unique_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
