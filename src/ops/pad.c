/* pad.c - Pad: elements added around a tensor, or cut off where a pad is negative. */
#include "ops/attrs.h"
#include "ops/move.h"

enum { CONSTANT, EDGE, REFLECT, WRAP };
static const char *const modes[] = {"constant", "edge", "reflect", "wrap", NULL};
static const kiln_attr table[] = {KILN_A_ENUM(kiln_pad_attrs, mode, modes, CONSTANT)};

static int64_t wrap(int64_t i, int64_t n) {
    return (i % n + n) % n;
}

/* Index `i` relative to a row of n > 0 elements, which may lie outside it. */
static int64_t source(int32_t mode, int64_t i, int64_t n) {
    if (i >= 0 && i < n) {
        return i;
    }
    switch (mode) {
    case EDGE:
        return i < 0 ? 0 : n - 1;
    case REFLECT: {
        int64_t k = n > 1 ? wrap(i, 2 * (n - 1)) : 0;
        return k < n ? k : 2 * (n - 1) - k;
    }
    case WRAP:
        return wrap(i, n);
    default:
        return -1;
    }
}

/* What negative pads leave of an axis of size n: its first index and size. */
static void kept(int32_t mode, int64_t n, int64_t begin, int64_t end, int64_t *first,
                 int64_t *size) {
    *first = mode != CONSTANT && begin < 0 ? -begin : 0;
    *size = n - *first + (mode != CONSTANT && end < 0 ? end : 0);
}

static kiln_status pad(kiln_arena *arena, int32_t mode, const int64_t *begin, const int64_t *end,
                       const kiln_tensor *x, const void *fill, kiln_tensor *y) {
    static const uint64_t zero[2] = {0, 0};
    int64_t strides[KILN_MAX_RANK], **map;
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    kiln_strides(x->dims, x->rank, strides);
    KILN_TRY(kiln_move_map(arena, y->rank, y->dims, &map));
    for (int32_t d = 0; d < y->rank; d++) {
        int64_t first, size;
        kept(mode, x->dims[d], begin[d], end[d], &first, &size);
        for (int64_t i = 0; i < y->dims[d]; i++) {
            int64_t k = source(mode, i - begin[d] - first, size);
            map[d][i] = k < 0 ? -1 : (k + first) * strides[d];
        }
    }
    kiln_move_mapped(y->dtype, y->rank, y->dims, y->data, x->data, map, fill ? fill : zero);
    return KILN_OK;
}

/* pads[i] of 2 * n belongs to axis axes[i % n]. */
static kiln_status spread(const kiln_infer *c, const kiln_dim *pads, const int64_t *axes, int64_t n,
                          int32_t rank, kiln_dim *begin, kiln_dim *end) {
    bool seen[KILN_MAX_RANK] = {false};
    for (int32_t d = 0; d < rank; d++) {
        begin[d] = end[d] = 0;
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t axis;
        KILN_TRY(kiln_infer_axis(c, axes ? axes[i] : i, rank, "axes", &axis));
        if (seen[axis]) {
            return KILN_INFER_FAIL(c, VALUE, "axes names axis %d twice", axis);
        }
        seen[axis] = true;
        begin[axis] = pads[i];
        end[axis] = pads[i + n];
    }
    return KILN_OK;
}

static kiln_status pad_dim(kiln_infer *c, int32_t mode, kiln_dim dim, kiln_dim begin, kiln_dim end,
                           int32_t d, kiln_dim *out) {
    *out = kiln_dim_add(c->dims, kiln_dim_add(c->dims, dim, begin), end);
    bool known = kiln_dim_known(begin) && kiln_dim_known(end) && kiln_dim_known(dim);
    if (known && (*out == KILN_DIM_UNKNOWN || *out < 0)) {
        return KILN_INFER_FAIL(c, SHAPE, "dim %d of size %lld cannot be padded by %lld and %lld", d,
                               (long long)dim, (long long)begin, (long long)end);
    }
    if (known && mode != CONSTANT && *out > 0) {
        int64_t first, size;
        kept(mode, dim, begin, end, &first, &size);
        if (size <= 0) {
            return KILN_INFER_FAIL(c, SHAPE,
                                   "mode \"%s\" has nothing to repeat in dim %d of size %lld",
                                   modes[mode], d, (long long)dim);
        }
    }
    return KILN_OK;
}

/* Pads per axis into begin and end; *known is false when inputs 1 or 3 are not known. */
static kiln_status read_pads(kiln_infer *c, int32_t rank, kiln_dim *begin, kiln_dim *end,
                             bool *known) {
    const int64_t *axes;
    int64_t n, n_axes, len = kiln_infer_length(c, 1);
    const kiln_dim *pads = kiln_infer_contents(c, 1, &n);
    KILN_TRY(kiln_infer_ints(c, 3, &axes, &n_axes));
    n_axes = kiln_infer_has(c, 3) ? kiln_infer_length(c, 3) : rank;
    if (len >= 0 && n_axes >= 0 && len != 2 * n_axes) {
        return KILN_INFER_FAIL(c, SHAPE, "pads has %lld entries for %lld axes", (long long)len,
                               (long long)n_axes);
    }
    *known = pads && rank >= 0 && (axes || !kiln_infer_has(c, 3));
    return *known ? spread(c, pads, axes, n_axes, rank, begin, end) : KILN_OK;
}

static kiln_status pad_contents(kiln_infer *c, int32_t mode, const kiln_dim *begin,
                                const kiln_dim *end) {
    kiln_tensor x, y, value;
    bool has_value = kiln_contents_in(c, 2, &value);
    if (!kiln_contents_in(c, 0, &x) || (kiln_infer_has(c, 2) && !has_value)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_contents_out(c, 0, &y));
    return y.data ? pad(c->arena, mode, begin, end, &x, has_value ? value.data : NULL, &y)
                  : KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    int32_t mode = ((const kiln_pad_attrs *)c->attrs)->mode, rank = kiln_infer_in_rank(c, 0);
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(kiln_infer_rank(c, 3, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 3, KILN_T_INDEX));
    int64_t values = kiln_infer_has(c, 2) ? kiln_infer_length(c, 2) : 1;
    if (values >= 0 && values != 1) {
        return KILN_INFER_FAIL(c, SHAPE, "constant_value has %lld elements, needs 1",
                               (long long)values);
    }
    kiln_dim begin[KILN_MAX_RANK], end[KILN_MAX_RANK];
    bool known;
    KILN_TRY(read_pads(c, rank, begin, end, &known));
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; known && d < rank; d++) {
        KILN_TRY(pad_dim(c, mode, c->in[0].type.dims[d], begin[d], end[d], d, &out[d]));
    }
    bool numbers = known;
    for (int32_t d = 0; known && d < rank; d++) {
        numbers = numbers && kiln_dim_known(begin[d]) && kiln_dim_known(end[d]);
    }
    return numbers ? pad_contents(c, mode, begin, end) : KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *pads = kiln_ref_in(c, 1), *value = kiln_ref_in(c, 2);
    const kiln_tensor *axes = kiln_ref_in(c, 3);
    int64_t begin[KILN_MAX_RANK] = {0}, end[KILN_MAX_RANK] = {0}, n = pads->dims[0] / 2;
    for (int64_t i = 0; i < n; i++) {
        int64_t axis = axes ? kiln_get_i64(axes->dtype, axes->data, i) : i;
        axis = axis < 0 ? axis + x->rank : axis;
        begin[axis] = ((const int64_t *)pads->data)[i];
        end[axis] = ((const int64_t *)pads->data)[i + n];
    }
    return pad(c->arena, ((const kiln_pad_attrs *)c->attrs)->mode, begin, end, x,
               value ? value->data : NULL, kiln_ref_out(c, 0));
}

const kiln_op kiln_op_pad = {
    .name = "Pad",
    .domain = "",
    .since = 25,
    .min_in = 2,
    .max_in = 4,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_pad_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
