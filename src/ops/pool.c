/* pool.c - MaxPool, AveragePool and LpPool.
 *
 * MaxPool gives NaN where its window holds one (its index that of the last), as PyTorch and ONNX's
 * own reference do; padding counts for nothing, and a window of nothing else gives the lowest
 * value. AveragePool divides by the elements read, with count_include_pad also by the padding that
 * was asked for (not by what ceil_mode lets a window reach beyond it). */
#include "ops/pool.h"

#include <math.h>

#include "ops/bulk.h"

#define SHARED_ROWS                                                                              \
    KILN_A_ENUM(kiln_pool_attrs, auto_pad, kiln_auto_pad_words, KILN_PAD_NOTSET),                \
        KILN_A_INT(kiln_pool_attrs, ceil_mode, 0), KILN_A_INTS(kiln_pool_attrs, dilations),      \
        KILN_A_INTS_REQUIRED(kiln_pool_attrs, kernel_shape), KILN_A_INTS(kiln_pool_attrs, pads), \
        KILN_A_INTS(kiln_pool_attrs, strides)

static const kiln_attr average_table[] = {SHARED_ROWS,
                                          KILN_A_INT(kiln_pool_attrs, count_include_pad, 0)};
static const kiln_attr max_table[] = {SHARED_ROWS, KILN_A_INT(kiln_pool_attrs, storage_order, 0)};
static const kiln_attr lp_table[] = {SHARED_ROWS, KILN_A_INT(kiln_pool_attrs, p, 2)};

static kiln_status read_window(kiln_window *w, const kiln_pool_attrs *a, int32_t n,
                               kiln_diag *diag) {
    const kiln_window_attrs attrs = {.auto_pad = a->auto_pad,
                                     .ceil_mode = a->ceil_mode,
                                     .dilations = a->dilations,
                                     .pads = a->pads,
                                     .strides = a->strides};
    if (a->kernel_shape.n != n) {
        return kiln_fail(diag, KILN_F_ATTR_VALUE, "kernel_shape has %lld items for %d spatial dims",
                         (long long)a->kernel_shape.n, n);
    }
    return kiln_window_read(w, diag, n, &attrs, a->kernel_shape.v);
}

kiln_status kiln_pool_window(kiln_window *w, const kiln_pool_attrs *a, const kiln_tensor *x,
                             const kiln_tensor *y, kiln_diag *diag) {
    KILN_TRY(read_window(w, a, x->rank - 2, diag));
    kiln_window_resolve_tensors(w, x, y);
    return KILN_OK;
}

/* Output i: X's images and channels, and the window's sizes. */
static kiln_status pool_output(kiln_infer *c, int32_t i, kiln_dtype dtype, int32_t n) {
    kiln_dim *dims = kiln_infer_dims(c, i, dtype, n < 0 ? KILN_RANK_UNKNOWN : n + 2);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    if (n < 0) {
        return KILN_OK;
    }
    kiln_window w;
    dims[0] = kiln_infer_dim(c, 0, 0);
    dims[1] = kiln_infer_dim(c, 0, 1);
    KILN_TRY(read_window(&w, c->attrs, n, c->diag));
    return kiln_window_out(&w, c, c->in[0].type.dims + 2, dims + 2);
}

static kiln_status infer(kiln_infer *c) {
    int32_t n;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_window_rank(c, 0, &n));
    return pool_output(c, 0, c->in[0].type.dtype, n);
}

static kiln_status infer_lp(kiln_infer *c) {
    const kiln_pool_attrs *a = c->attrs;
    if (a->p < 1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "p is %lld, it must be at least 1", (long long)a->p);
    }
    return infer(c);
}

static kiln_status infer_max(kiln_infer *c) {
    const kiln_pool_attrs *a = c->attrs;
    int32_t n;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT | KILN_T(I8) | KILN_T(U8)));
    KILN_TRY(kiln_window_rank(c, 0, &n));
    if (a->storage_order != 0 && a->storage_order != 1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "storage_order is %lld", (long long)a->storage_order);
    }
    KILN_TRY(pool_output(c, 0, c->in[0].type.dtype, n));
    return c->n_out > 1 ? pool_output(c, 1, KILN_DTYPE_I64, n) : KILN_OK;
}

/* ---- Reference ---- */

/* The part of one window that lies inside the input: indices lo, lo + dilation, ... < hi per dim.
 * */
typedef struct region {
    int64_t lo[KILN_MAX_SPATIAL], hi[KILN_MAX_SPATIAL];
    bool empty;
} region;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Taps of dim i whose position is below `end`, starting at `start` (which may be negative). */
static int64_t taps_below(const kiln_window *w, int32_t i, int64_t start, int64_t end) {
    int64_t d = w->dilation[i];
    return end <= start ? 0 : least(w->kernel[i], (end - start + d - 1) / d);
}

static region make_region(const kiln_window *w, const int64_t *o) {
    region r = {.empty = false};
    for (int32_t i = 0; i < w->n; i++) {
        int64_t d = w->dilation[i], start = o[i] * w->stride[i] - w->pad_begin[i];
        r.lo[i] = start >= 0 ? start : start + (-start + d - 1) / d * d;
        r.hi[i] = start + taps_below(w, i, start, w->in[i]) * d;
        r.empty = r.empty || r.lo[i] >= r.hi[i];
    }
    return r;
}

/* Elements of the window at o within the padded input: what count_include_pad divides by. */
static double padded_count(const kiln_window *w, const int64_t *o) {
    double count = 1;
    for (int32_t i = 0; i < w->n; i++) {
        int64_t start = o[i] * w->stride[i] - w->pad_begin[i];
        count *= (double)taps_below(w, i, start, w->in[i] + w->pad_end[i]);
    }
    return count;
}

/* Moves idx to the region's next element; false after the last. */
static bool next(const kiln_window *w, const region *r, int64_t *idx) {
    for (int32_t i = w->n - 1; i >= 0; i--) {
        idx[i] += w->dilation[i];
        if (idx[i] < r->hi[i]) {
            return true;
        }
        idx[i] = r->lo[i];
    }
    return false;
}

static int64_t flatten(const kiln_window *w, const int64_t *idx) {
    int64_t at = 0;
    for (int32_t i = 0; i < w->n; i++) {
        at = at * w->in[i] + idx[i];
    }
    return at;
}

/* The same with the first spatial dim innermost (storage_order 1). */
static int64_t flatten_columns(const kiln_window *w, const int64_t *idx) {
    int64_t at = 0;
    for (int32_t i = w->n - 1; i >= 0; i--) {
        at = at * w->in[i] + idx[i];
    }
    return at;
}

/* One window's result. *arg: index of the maximum in the plane, -1 if there is none. */
typedef double window_fn(const kiln_window *w, const kiln_pool_attrs *a, const int64_t *o,
                         const double *plane, int64_t *arg);

static double window_max(const kiln_window *w, const kiln_pool_attrs *a, const int64_t *o,
                         const double *plane, int64_t *arg) {
    region r = make_region(w, o);
    double best = -INFINITY;
    *arg = -1;
    if (r.empty) {
        return best;
    }
    int64_t idx[KILN_MAX_SPATIAL];
    for (int32_t i = 0; i < w->n; i++) {
        idx[i] = r.lo[i];
    }
    do {
        double v = plane[flatten(w, idx)];
        if (v > best || isnan(v) || *arg < 0) {
            best = v > best || isnan(v) ? v : best;
            *arg = a->storage_order ? flatten_columns(w, idx) : flatten(w, idx);
        }
    } while (next(w, &r, idx));
    return best;
}

/* Sum of |x|^power over the window (power 0: of x); *count elements. */
static double window_sum(const kiln_window *w, const int64_t *o, const double *plane, int64_t power,
                         double *count) {
    region r = make_region(w, o);
    double sum = 0;
    *count = 0;
    if (r.empty) {
        return 0;
    }
    int64_t idx[KILN_MAX_SPATIAL];
    for (int32_t i = 0; i < w->n; i++) {
        idx[i] = r.lo[i];
    }
    do {
        double v = plane[flatten(w, idx)];
        sum += power ? pow(fabs(v), (double)power) : v;
        *count += 1;
    } while (next(w, &r, idx));
    return sum;
}

static double window_average(const kiln_window *w, const kiln_pool_attrs *a, const int64_t *o,
                             const double *plane, int64_t *arg) {
    double count, sum = window_sum(w, o, plane, 0, &count);
    (void)arg;
    count = a->count_include_pad ? padded_count(w, o) : count;
    return count > 0 ? sum / count : 0;
}

static double window_lp(const kiln_window *w, const kiln_pool_attrs *a, const int64_t *o,
                        const double *plane, int64_t *arg) {
    double count, sum = window_sum(w, o, plane, a->p, &count);
    (void)arg;
    return pow(sum, 1 / (double)a->p);
}

static kiln_status apply(kiln_ref *c, window_fn *f) {
    const kiln_pool_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0), *indices = kiln_ref_out(c, 1);
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    kiln_window w;
    KILN_TRY(kiln_pool_window(&w, a, x, y, c->diag));
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    double *plane;
    KILN_ALLOC(plane, c->arena, w.in_count);
    for (int64_t p = 0; p < x->dims[0] * x->dims[1]; p++) {
        kiln_load_f64(x, p * w.in_count, w.in_count, plane);
        for (int64_t i = 0; i < w.out_count; i++) {
            int64_t o[KILN_MAX_SPATIAL], arg = -1;
            kiln_unflatten(i, w.out, w.n, o);
            KILN_TRY(kiln_ref_poll(c));
            double v = f(&w, a, o, plane, &arg);
            bool lowest = v == -INFINITY && !kiln_dtype_is_float(y->dtype);
            v = lowest ? (y->dtype == KILN_DTYPE_I8 ? INT8_MIN : 0) : v;
            kiln_set_f64(y->dtype, y->data, p * w.out_count + i, v);
            if (indices) {
                ((int64_t *)indices->data)[p * w.out_count + i] =
                    arg < 0 ? -1 : p * w.in_count + arg;
            }
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static kiln_status ref_max(kiln_ref *c) {
    return apply(c, window_max);
}
static kiln_status ref_average(kiln_ref *c) {
    return apply(c, window_average);
}
static kiln_status ref_lp(kiln_ref *c) {
    return apply(c, window_lp);
}

static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    const kiln_pool_attrs *a = node->attrs;
    kiln_tensor y = {0};
    (void)in;
    int64_t n = kiln_type_to_tensor(&out->type, &y) ? kiln_tensor_count(&y) : 0;
    for (int64_t i = 0; i < a->kernel_shape.n; i++) {
        if (!kiln_mul_i64(n, a->kernel_shape.v[i], &n)) {
            n = INT64_MAX;
            break;
        }
    }
    result->macs = n;
}

const kiln_op kiln_op_max_pool = {
    .name = "MaxPool",
    .domain = "",
    .since = 22,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 2,
    KILN_OP_ATTRS(max_table, kiln_pool_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_max,
    .ref = ref_max,
    .cost = cost,
};

const kiln_op kiln_op_average_pool = {
    .name = "AveragePool",
    .domain = "",
    .since = 22,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(average_table, kiln_pool_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref_average,
    .cost = cost,
};

const kiln_op kiln_op_lp_pool = {
    .name = "LpPool",
    .domain = "",
    .since = 22,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(lp_table, kiln_pool_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer_lp,
    .ref = ref_lp,
    .cost = cost,
};
