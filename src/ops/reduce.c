/* reduce.c - ReduceSum, Mean, Max, Min, Prod, L1, L2, LogSum, LogSumExp, SumSquare.
 *
 * Each is a start value, a fold over the elements and a finish. With an empty set of axes and
 * noop_with_empty_axes every element is a set of its own. */
#include "ops/reduce.h"

#include <math.h>
#include <string.h>

static const kiln_attr table[] = {
    KILN_A_INT(kiln_reduce_attrs, keepdims, 1),
    KILN_A_INT(kiln_reduce_attrs, noop_with_empty_axes, 0),
};

/* ---- Inference ---- */

/* Output whose shape is open because the axes are not known yet. */
static kiln_status open_output(kiln_infer *c, kiln_dtype dtype) {
    const kiln_reduce_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0);
    int64_t n = kiln_infer_length(c, 1);
    int32_t out = KILN_RANK_UNKNOWN;
    if (rank >= 0 && (a->keepdims || (n > 0 && n <= rank))) {
        out = a->keepdims ? rank : rank - (int32_t)n;
    }
    return kiln_infer_dims(c, 0, dtype, out) ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_reduce_mask(const kiln_infer *c, const int64_t *axes, int64_t n, int32_t rank,
                             bool noop, bool *mask) {
    memset(mask, n == 0 && !noop, KILN_MAX_RANK * sizeof mask[0]);
    for (int64_t i = 0; i < n; i++) {
        int32_t axis;
        KILN_TRY(kiln_infer_axis(c, axes[i], rank, "axes", &axis));
        if (mask[axis]) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "axis %d is named twice", axis);
        }
        mask[axis] = true;
    }
    return KILN_OK;
}

/* Sum, product, maximum and minimum of the known contents of a vector reduced to one element. */
static kiln_status reduce_contents(kiln_infer *c, bool reduced,
                                   kiln_dim (*fn)(kiln_dims *, kiln_dim, kiln_dim)) {
    int64_t n = 0;
    const kiln_dim *v = kiln_infer_contents(c, 0, &n);
    bool wide = c->in[0].type.dtype == KILN_DTYPE_I64 || c->in[0].type.dtype == KILN_DTYPE_I32;
    if (!fn || !v || !wide || !reduced || n < 1 || kiln_infer_in_rank(c, 0) != 1) {
        return KILN_OK;
    }
    kiln_dim acc = v[0];
    for (int64_t i = 1; i < n; i++) {
        acc = fn(c->dims, acc, v[i]);
    }
    bool wraps = c->in[0].type.dtype == KILN_DTYPE_I32 && kiln_dim_known(acc) &&
                 (acc < INT32_MIN || acc > INT32_MAX);
    return wraps ? KILN_OK : kiln_infer_set_contents(c, 0, &acc, 1);
}

static kiln_status infer_reduce(kiln_infer *c, uint32_t set,
                                kiln_dim (*fn)(kiln_dims *, kiln_dim, kiln_dim)) {
    const kiln_reduce_attrs *a = c->attrs;
    const int64_t *axes;
    int64_t n;
    int32_t rank = kiln_infer_in_rank(c, 0);
    bool mask[KILN_MAX_RANK];
    KILN_TRY(kiln_infer_dtype(c, 0, set));
    kiln_dtype dtype = c->in[0].type.dtype;
    KILN_TRY(kiln_infer_ints(c, 1, &axes, &n));
    if (kiln_infer_has(c, 1)) {
        KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
        KILN_TRY(kiln_infer_rank(c, 1, 0, 1));
    }
    bool known = !kiln_infer_has(c, 1) || axes || kiln_infer_length(c, 1) == 0;
    if (rank < 0 || !known) {
        return open_output(c, dtype);
    }
    KILN_TRY(kiln_reduce_mask(c, axes, n, rank, a->noop_with_empty_axes != 0, mask));
    int32_t out_rank = 0;
    for (int32_t i = 0; i < rank; i++) {
        out_rank += !mask[i] || a->keepdims;
    }
    kiln_dim *dims = kiln_infer_dims(c, 0, dtype, out_rank);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    for (int32_t i = 0, o = 0; i < rank; i++) {
        if (!mask[i]) {
            dims[o++] = kiln_infer_dim(c, 0, i);
        } else if (a->keepdims) {
            dims[o++] = 1;
        }
    }
    return reduce_contents(c, rank == 1 && mask[0], fn);
}

/* ---- Folds ---- */

/* acc of set o; LogSumExp keeps the set's maximum beside it. */
typedef double fold_fn(double acc, double x, double max);
typedef int64_t int_fold_fn(int64_t acc, int64_t x, bool is_signed);

static double fold_sum(double acc, double x, double max) {
    (void)max;
    return acc + x;
}
static double fold_prod(double acc, double x, double max) {
    (void)max;
    return acc * x;
}
static double fold_max(double acc, double x, double max) {
    (void)max;
    return isnan(acc) || acc > x ? acc : x;
}
static double fold_min(double acc, double x, double max) {
    (void)max;
    return isnan(acc) || acc < x ? acc : x;
}
static double fold_abs(double acc, double x, double max) {
    (void)max;
    return acc + fabs(x);
}
static double fold_square(double acc, double x, double max) {
    (void)max;
    return acc + x * x;
}
static double fold_exp(double acc, double x, double max) {
    return acc + exp(x - max);
}

static int64_t int_sum(int64_t acc, int64_t x, bool is_signed) {
    (void)is_signed;
    return (int64_t)((uint64_t)acc + (uint64_t)x);
}
static int64_t int_prod(int64_t acc, int64_t x, bool is_signed) {
    (void)is_signed;
    return (int64_t)((uint64_t)acc * (uint64_t)x);
}
static int64_t int_max(int64_t acc, int64_t x, bool is_signed) {
    bool greater = is_signed ? x > acc : (uint64_t)x > (uint64_t)acc;
    return greater ? x : acc;
}
static int64_t int_min(int64_t acc, int64_t x, bool is_signed) {
    bool less = is_signed ? x < acc : (uint64_t)x < (uint64_t)acc;
    return less ? x : acc;
}
static int64_t int_abs(int64_t acc, int64_t x, bool is_signed) {
    return is_signed && x < 0 ? int_sum(acc, (int64_t)(0 - (uint64_t)x), true)
                              : int_sum(acc, x, is_signed);
}
static int64_t int_square(int64_t acc, int64_t x, bool is_signed) {
    return int_sum(acc, int_prod(x, x, is_signed), is_signed);
}

/* What makes one operator. */
typedef enum finish { NOTHING, DIVIDE, SQRT, LOG, LOG_SHIFTED } finish;
typedef struct rule {
    fold_fn *fold;
    double start;
    int_fold_fn *int_fold;
    enum { START_ZERO, START_ONE, START_LOWEST, START_HIGHEST } int_start;
    finish finish;
} rule;

/* ---- Reference ---- */

void kiln_reduce_strides(const kiln_tensor *x, const bool *mask, int64_t *strides) {
    int64_t step = 1;
    for (int32_t i = x->rank - 1; i >= 0; i--) {
        strides[i] = mask[i] ? 0 : step;
        step *= mask[i] ? 1 : x->dims[i];
    }
}

static void fold_floats(const kiln_tensor *x, const int64_t *strides, const rule *r, double *acc,
                        const double *max) {
    kiln_walk w;
    kiln_walk_init(&w, x->dims, x->rank);
    kiln_walk_operand(&w, strides);
    if (kiln_walk_empty(&w)) {
        return;
    }
    int64_t i = 0;
    do {
        int64_t o = w.offset[0];
        acc[o] = r->fold(acc[o], kiln_get_f64(x->dtype, x->data, i++), max ? max[o] : 0);
    } while (kiln_walk_next(&w));
}

static double finished(double v, double max, finish f, double count) {
    switch (f) {
    case DIVIDE:
        return v / count;
    case SQRT:
        return sqrt(v);
    case LOG:
        return log(v);
    case LOG_SHIFTED:
        return log(v) + max;
    case NOTHING:
        break;
    }
    return v;
}

static kiln_status reduce_floats(kiln_ref *c, const rule *r, const int64_t *strides, double count) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t n = kiln_tensor_count(y);
    double *acc, *max = NULL;
    KILN_ALLOC(acc, c->arena, n);
    if (r->finish == LOG_SHIFTED) {
        static const rule greatest = {.fold = fold_max};
        KILN_ALLOC(max, c->arena, n);
        for (int64_t o = 0; o < n; o++) {
            max[o] = -INFINITY;
        }
        fold_floats(x, strides, &greatest, max, NULL);
        for (int64_t o = 0; o < n; o++) {
            max[o] = isinf(max[o]) ? 0 : max[o];
        }
    }
    for (int64_t o = 0; o < n; o++) {
        acc[o] = r->start;
    }
    fold_floats(x, strides, r, acc, max);
    for (int64_t o = 0; o < n; o++) {
        kiln_set_f64(y->dtype, y->data, o, finished(acc[o], max ? max[o] : 0, r->finish, count));
    }
    return KILN_OK;
}

static int64_t int_start(const rule *r, kiln_dtype dtype) {
    bool is_signed = kiln_dtype_is_signed_int(dtype);
    int bits = dtype == KILN_DTYPE_BOOL ? 1 : kiln_dtype_bits(dtype);
    int64_t highest = (int64_t)(UINT64_MAX >> (64 - bits + is_signed));
    switch (r->int_start) {
    case START_ONE:
        return 1;
    case START_LOWEST:
        return is_signed ? -highest - 1 : 0;
    case START_HIGHEST:
        return highest;
    case START_ZERO:
        break;
    }
    return 0;
}

static kiln_status reduce_ints(kiln_ref *c, const rule *r, const int64_t *strides, double count) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    bool is_signed = kiln_dtype_is_signed_int(x->dtype);
    int64_t n = kiln_tensor_count(y), i = 0, *acc;
    KILN_ALLOC(acc, c->arena, n);
    for (int64_t o = 0; o < n; o++) {
        acc[o] = int_start(r, x->dtype);
    }
    kiln_walk w;
    kiln_walk_init(&w, x->dims, x->rank);
    kiln_walk_operand(&w, strides);
    if (!kiln_walk_empty(&w)) {
        do {
            int64_t o = w.offset[0];
            acc[o] = r->int_fold(acc[o], kiln_get_i64(x->dtype, x->data, i++), is_signed);
        } while (kiln_walk_next(&w));
    }
    for (int64_t o = 0; o < n; o++) {
        if (r->finish == NOTHING) {
            kiln_set_i64(y->dtype, y->data, o, acc[o]);
        } else {
            double v = is_signed ? (double)acc[o] : (double)(uint64_t)acc[o];
            v = finished(v, 0, r->finish, count > 0 ? count : 1);
            kiln_set_f64(y->dtype, y->data, o, v);
        }
    }
    return KILN_OK;
}

static kiln_status apply(kiln_ref *c, const rule *r) {
    const kiln_reduce_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *which = kiln_ref_in(c, 1);
    int64_t n = which ? kiln_tensor_count(which) : 0, strides[KILN_MAX_RANK];
    bool mask[KILN_MAX_RANK] = {false};
    double count = 1;
    for (int32_t i = 0; i < x->rank; i++) {
        mask[i] = n == 0 && !a->noop_with_empty_axes;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t axis = kiln_get_i64(which->dtype, which->data, i);
        mask[axis < 0 ? axis + x->rank : axis] = true;
    }
    for (int32_t i = 0; i < x->rank; i++) {
        count *= mask[i] ? (double)x->dims[i] : 1;
    }
    if (kiln_tensor_count(kiln_ref_out(c, 0)) == 0) {
        return KILN_OK;
    }
    kiln_reduce_strides(x, mask, strides);
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(kiln_dtype_is_float(x->dtype) ? reduce_floats(c, r, strides, count)
                                           : reduce_ints(c, r, strides, count));
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    kiln_tensor x = {0};
    (void)node;
    (void)out;
    result->macs = kiln_type_to_tensor(&in->type, &x) ? kiln_tensor_count(&x) : 0;
}

/* ---- The operators ---- */

#define T_WITH_BOOL (KILN_T_NUMBER | KILN_T(BOOL))

#define OPERATOR(id, onnx, version, set, dims_fn, tol, ...)                \
    static kiln_status infer_##id(kiln_infer *c) {                         \
        return infer_reduce(c, set, dims_fn);                              \
    }                                                                      \
    static kiln_status ref_##id(kiln_ref *c) {                             \
        static const rule r = {__VA_ARGS__};                               \
        return apply(c, &r);                                               \
    }                                                                      \
    const kiln_op kiln_op_##id = {.name = onnx,                            \
                                  .domain = "",                            \
                                  .since = version,                        \
                                  .min_in = 1,                             \
                                  .max_in = 2,                             \
                                  .min_out = 1,                            \
                                  .max_out = 1,                            \
                                  KILN_OP_ATTRS(table, kiln_reduce_attrs), \
                                  .tolerance = tol,                        \
                                  .infer = infer_##id,                     \
                                  .ref = ref_##id,                         \
                                  .cost = cost};

OPERATOR(reduce_sum, "ReduceSum", 13, KILN_T_NUMBER, kiln_dim_add, KILN_TOL_REDUCE, fold_sum, 0,
         int_sum, START_ZERO, NOTHING)
OPERATOR(reduce_mean, "ReduceMean", 18, KILN_T_NUMBER, NULL, KILN_TOL_REDUCE, fold_sum, 0, int_sum,
         START_ZERO, DIVIDE)
OPERATOR(reduce_prod, "ReduceProd", 18, KILN_T_NUMBER, kiln_dim_mul, KILN_TOL_REDUCE, fold_prod, 1,
         int_prod, START_ONE, NOTHING)
OPERATOR(reduce_max, "ReduceMax", 20, T_WITH_BOOL, kiln_dim_max, KILN_TOL_EXACT, fold_max,
         -INFINITY, int_max, START_LOWEST, NOTHING)
OPERATOR(reduce_min, "ReduceMin", 20, T_WITH_BOOL, kiln_dim_min, KILN_TOL_EXACT, fold_min, INFINITY,
         int_min, START_HIGHEST, NOTHING)
OPERATOR(reduce_l1, "ReduceL1", 18, KILN_T_NUMBER, NULL, KILN_TOL_REDUCE, fold_abs, 0, int_abs,
         START_ZERO, NOTHING)
OPERATOR(reduce_l2, "ReduceL2", 18, KILN_T_NUMBER, NULL, KILN_TOL_REDUCE, fold_square, 0,
         int_square, START_ZERO, SQRT)
OPERATOR(reduce_sum_square, "ReduceSumSquare", 18, KILN_T_NUMBER, NULL, KILN_TOL_REDUCE,
         fold_square, 0, int_square, START_ZERO, NOTHING)
OPERATOR(reduce_log_sum, "ReduceLogSum", 28, KILN_T_NUMBER, NULL, KILN_TOL_REDUCE, fold_sum, 0,
         int_sum, START_ZERO, LOG)
OPERATOR(reduce_log_sum_exp, "ReduceLogSumExp", 28, KILN_T_FLOAT, NULL, KILN_TOL_REDUCE, fold_exp,
         0, NULL, START_ZERO, LOG_SHIFTED)
