/* slice.c - Slice: every step-th element from start to end, per axis. */
#include "ops/move.h"

/* What is taken of one axis: numbers where they are known, symbolic dims elsewhere. */
typedef struct cut {
    kiln_dim start, end;
    int64_t step; /* 0: not known */
} cut;

typedef struct plan {
    cut axis[KILN_MAX_RANK];
    bool sliced[KILN_MAX_RANK];
    bool known; /* which axes are sliced */
} plan;

static int64_t clamp(int64_t v, int64_t lo, int64_t hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

/* First index and count of a cut of an axis of size n. */
static void cut_range(const cut *k, int64_t n, int64_t *first, int64_t *count) {
    int64_t step = k->step < -INT64_MAX ? -INT64_MAX : k->step;
    int64_t lo = step > 0 ? 0 : -1, hi = step > 0 ? n : n - 1;
    int64_t start = clamp(k->start < 0 ? k->start + n : k->start, 0, hi);
    int64_t end = clamp(k->end < 0 ? k->end + n : k->end, lo, hi);
    int64_t span = step > 0 ? end - start : start - end;
    int64_t size = step > 0 ? step : -step;
    *first = start;
    *count = span <= 0 || n == 0 ? 0 : (span - 1) / size + 1;
}

/* Sizes at or above this can only mean "to the end". */
#define FAR (INT64_C(1) << 31)

/* Where a symbolic axis of size n is cut at v, for step > 0. Symbols are taken to be at least 1. */
static kiln_dim symbolic_bound(kiln_infer *c, kiln_dim v, kiln_dim n) {
    if (!kiln_dim_known(v)) {
        return v == n ? n : kiln_dim_min(c->dims, v, n);
    }
    if (v >= FAR) {
        return n;
    }
    if (v == 0 || v == 1) {
        return v;
    }
    if (v > 0) {
        return kiln_dim_min(c->dims, n, v);
    }
    if (v <= -FAR) {
        return 0;
    }
    kiln_dim at = kiln_dim_add(c->dims, n, v);
    return v == -1 ? at : kiln_dim_max(c->dims, at, 0);
}

/* Size for a negative step: known for the whole dim alone. */
static kiln_dim backward_size(kiln_infer *c, const cut *k, kiln_dim n) {
    bool whole = kiln_dim_known(k->start) && kiln_dim_known(k->end) && k->end <= -FAR &&
                 (k->start >= FAR || k->start == -1);
    if (!whole || k->step <= -FAR) {
        return KILN_DIM_UNKNOWN;
    }
    return kiln_dim_div(c->dims, kiln_dim_add(c->dims, n, -k->step - 1), -k->step);
}

static kiln_dim cut_size(kiln_infer *c, const cut *k, kiln_dim n) {
    if (k->step == 0 || k->start == KILN_DIM_UNKNOWN || k->end == KILN_DIM_UNKNOWN ||
        n == KILN_DIM_UNKNOWN) {
        return KILN_DIM_UNKNOWN;
    }
    if (kiln_dim_known(n) && kiln_dim_known(k->start) && kiln_dim_known(k->end)) {
        int64_t first, count;
        cut_range(k, n, &first, &count);
        return count;
    }
    if (k->step < 0) {
        return backward_size(c, k, n);
    }
    kiln_dim from = symbolic_bound(c, k->start, n), to = symbolic_bound(c, k->end, n);
    kiln_dim size = kiln_dim_sub(c->dims, to, from);
    if (to == n && kiln_dim_known(k->start) && k->start < 0 && k->start > -FAR) {
        size = k->start == -1 ? 1 : kiln_dim_min(c->dims, n, -k->start); /* the last ones */
    }
    if (from != 0 && to != n) {
        size = kiln_dim_max(c->dims, size, 0);
    }
    return k->step == 1 ? size
                        : kiln_dim_div(c->dims, kiln_dim_add(c->dims, size, k->step - 1), k->step);
}

static kiln_status check_list(const kiln_infer *c, int32_t i, const char *name, int64_t n) {
    int64_t len = kiln_infer_length(c, i);
    KILN_TRY(kiln_infer_dtype(c, i, KILN_T_INDEX));
    KILN_TRY(kiln_infer_rank(c, i, 1, 1));
    if (kiln_infer_has(c, i) && len >= 0 && n >= 0 && len != n) {
        return KILN_INFER_FAIL(c, SHAPE, "%s has %lld entries, starts has %lld", name,
                               (long long)len, (long long)n);
    }
    return KILN_OK;
}

static kiln_status make_plan(kiln_infer *c, int32_t rank, plan *p) {
    const int64_t *axes, *steps;
    int64_t n_axes, n_steps, n_starts, n_ends, n = kiln_infer_length(c, 1);
    KILN_TRY(check_list(c, 1, "starts", n));
    KILN_TRY(check_list(c, 2, "ends", n));
    KILN_TRY(check_list(c, 3, "axes", n));
    KILN_TRY(check_list(c, 4, "steps", n));
    KILN_TRY(kiln_infer_ints(c, 3, &axes, &n_axes));
    KILN_TRY(kiln_infer_ints(c, 4, &steps, &n_steps));
    const kiln_dim *starts = kiln_infer_contents(c, 1, &n_starts);
    const kiln_dim *ends = kiln_infer_contents(c, 2, &n_ends);
    p->known = n >= 0 && (axes || !kiln_infer_has(c, 3));
    if (rank < 0 || !p->known) {
        return KILN_OK;
    }
    if (!axes && n > rank) {
        return KILN_INFER_FAIL(c, SHAPE, "starts has %lld entries for rank %d", (long long)n, rank);
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t axis;
        KILN_TRY(kiln_infer_axis(c, axes ? axes[i] : i, rank, "axes", &axis));
        if (p->sliced[axis]) {
            return KILN_INFER_FAIL(c, VALUE, "axes names axis %d twice", axis);
        }
        if (steps && steps[i] == 0) {
            return KILN_INFER_FAIL(c, VALUE, "steps[%lld] is 0", (long long)i);
        }
        p->sliced[axis] = true;
        p->axis[axis] =
            (cut){starts ? starts[i] : KILN_DIM_UNKNOWN, ends ? ends[i] : KILN_DIM_UNKNOWN,
                  steps ? steps[i] : !kiln_infer_has(c, 4)};
    }
    return KILN_OK;
}

static void take(const cut *cuts, const bool *sliced, const kiln_tensor *x, kiln_tensor *y) {
    int64_t src[KILN_MAX_RANK], dst[KILN_MAX_RANK], at = 0;
    kiln_strides(x->dims, x->rank, src);
    kiln_strides(y->dims, y->rank, dst);
    if (kiln_tensor_count(y) == 0) {
        return;
    }
    for (int32_t d = 0; d < x->rank; d++) {
        int64_t first, count;
        if (sliced[d]) {
            cut_range(&cuts[d], x->dims[d], &first, &count);
            at += first * src[d];
            /* A stride counts only where a second element is taken. */
            src[d] = count > 1 ? src[d] * cuts[d].step : 0;
        }
    }
    kiln_move_box(y->dtype, y->rank, y->dims, y->data, 0, dst, x->data, at, src);
}

static kiln_status slice_contents(kiln_infer *c, const plan *p) {
    kiln_tensor x, y;
    if (!kiln_contents_in(c, 0, &x) || kiln_type_count(&c->out[0].type) < 0) {
        return KILN_OK;
    }
    for (int32_t d = 0; d < x.rank; d++) {
        const cut *k = &p->axis[d];
        if (p->sliced[d] &&
            (!kiln_dim_known(k->start) || !kiln_dim_known(k->end) || k->step == 0)) {
            return KILN_OK;
        }
    }
    KILN_TRY(kiln_contents_out(c, 0, &y));
    if (y.data) {
        take(p->axis, p->sliced, &x, &y);
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 1, KILN_MAX_RANK));
    int32_t rank = kiln_infer_in_rank(c, 0);
    plan p = {.known = false};
    KILN_TRY(make_plan(c, rank, &p));
    kiln_dim *out = kiln_infer_dims(c, 0, c->in[0].type.dtype, rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; p.known && d < rank; d++) {
        kiln_dim n = c->in[0].type.dims[d];
        out[d] = p.sliced[d] ? cut_size(c, &p.axis[d], n) : n;
        if (out[d] == KILN_DIM_UNKNOWN) {
            out[d] = kiln_dim_found(c->dims, n);
        }
    }
    return p.known ? slice_contents(c, &p) : KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *starts = kiln_ref_in(c, 1),
                      *ends = kiln_ref_in(c, 2);
    const kiln_tensor *axes = kiln_ref_in(c, 3), *steps = kiln_ref_in(c, 4);
    cut cuts[KILN_MAX_RANK];
    bool sliced[KILN_MAX_RANK] = {false};
    for (int64_t i = 0; i < starts->dims[0]; i++) {
        int64_t axis = axes ? kiln_get_i64(axes->dtype, axes->data, i) : i;
        axis = axis < 0 ? axis + x->rank : axis;
        sliced[axis] = true;
        cuts[axis].start = kiln_get_i64(starts->dtype, starts->data, i);
        cuts[axis].end = kiln_get_i64(ends->dtype, ends->data, i);
        cuts[axis].step = steps ? kiln_get_i64(steps->dtype, steps->data, i) : 1;
    }
    take(cuts, sliced, x, kiln_ref_out(c, 0));
    return KILN_OK;
}

const kiln_op kiln_op_slice = {
    .name = "Slice",
    .domain = "",
    .since = 13,
    .min_in = 3,
    .max_in = 5,
    .min_out = 1,
    .max_out = 1,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
