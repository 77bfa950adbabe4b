/* binary.c - operators of two broadcast inputs, and Max, Min, Mean, Sum of any number.
 *
 * Floats are computed in double and rounded once (exact for + - * / of float32 and narrower);
 * integers modulo their width. Division by zero is defined: quotient 0, remainder 0, so that no
 * input can trap. */
#include <math.h>
#include <string.h>

#include "ops/attrs.h"
#include "ops/elementwise.h"

typedef double float_fn(double a, double b);
/* Operands and result as 64-bit patterns, sign-extended where is_signed. */
typedef int64_t int_fn(int64_t a, int64_t b, bool is_signed);
typedef kiln_dim dim_fn(const kiln_infer *c, const kiln_dim *x);

/* ---- Formulas ---- */

static double f_add(double a, double b) {
    return a + b;
}
static double f_sub(double a, double b) {
    return a - b;
}
static double f_mul(double a, double b) {
    return a * b;
}
static double f_div(double a, double b) {
    return a / b;
}
static double f_max(double a, double b) {
    return isnan(a) || a > b ? a : b;
}
static double f_min(double a, double b) {
    return isnan(a) || a < b ? a : b;
}
/* Remainder with the sign of b. */
static double f_mod(double a, double b) {
    double r = fmod(a, b);
    if (r == 0) {
        return copysign(r, b);
    }
    return (r < 0) != (b < 0) ? r + b : r;
}
static double f_prelu(double x, double slope) {
    return x < 0 ? x * slope : x;
}
static double f_equal(double a, double b) {
    return a == b;
}
static double f_less(double a, double b) {
    return a < b;
}
static double f_less_or_equal(double a, double b) {
    return a <= b;
}
static double f_greater(double a, double b) {
    return a > b;
}
static double f_greater_or_equal(double a, double b) {
    return a >= b;
}

static bool less(int64_t a, int64_t b, bool is_signed) {
    return is_signed ? a < b : (uint64_t)a < (uint64_t)b;
}
static int64_t i_add(int64_t a, int64_t b, bool is_signed) {
    (void)is_signed;
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
static int64_t i_sub(int64_t a, int64_t b, bool is_signed) {
    (void)is_signed;
    return (int64_t)((uint64_t)a - (uint64_t)b);
}
static int64_t i_mul(int64_t a, int64_t b, bool is_signed) {
    (void)is_signed;
    return (int64_t)((uint64_t)a * (uint64_t)b);
}
static int64_t i_div(int64_t a, int64_t b, bool is_signed) {
    if (b == 0) {
        return 0;
    }
    if (!is_signed) {
        return (int64_t)((uint64_t)a / (uint64_t)b);
    }
    return b == -1 ? i_sub(0, a, true) : a / b;
}
/* Remainder of truncating division: the sign of a. */
static int64_t i_fmod(int64_t a, int64_t b, bool is_signed) {
    if (b == 0 || (is_signed && b == -1)) {
        return 0;
    }
    return is_signed ? a % b : (int64_t)((uint64_t)a % (uint64_t)b);
}
/* Remainder of flooring division: the sign of b. */
static int64_t i_mod(int64_t a, int64_t b, bool is_signed) {
    int64_t r = i_fmod(a, b, is_signed);
    return is_signed && r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static int64_t i_max(int64_t a, int64_t b, bool is_signed) {
    return less(a, b, is_signed) ? b : a;
}
static int64_t i_min(int64_t a, int64_t b, bool is_signed) {
    return less(b, a, is_signed) ? b : a;
}
static int64_t i_prelu(int64_t x, int64_t slope, bool is_signed) {
    return is_signed && x < 0 ? i_mul(x, slope, true) : x;
}
static int64_t i_and(int64_t a, int64_t b, bool is_signed) {
    (void)is_signed;
    return a & b;
}
static int64_t i_or(int64_t a, int64_t b, bool is_signed) {
    (void)is_signed;
    return a | b;
}
static int64_t i_xor(int64_t a, int64_t b, bool is_signed) {
    (void)is_signed;
    return a ^ b;
}
static int64_t i_equal(int64_t a, int64_t b, bool is_signed) {
    (void)is_signed;
    return a == b;
}
static int64_t i_less(int64_t a, int64_t b, bool is_signed) {
    return less(a, b, is_signed);
}
static int64_t i_less_or_equal(int64_t a, int64_t b, bool is_signed) {
    return !less(b, a, is_signed);
}
static int64_t i_greater(int64_t a, int64_t b, bool is_signed) {
    return less(b, a, is_signed);
}
static int64_t i_greater_or_equal(int64_t a, int64_t b, bool is_signed) {
    return !less(a, b, is_signed);
}

/* ---- Known contents ---- */

static bool both_known(const kiln_dim *x) {
    return kiln_dim_known(x[0]) && kiln_dim_known(x[1]);
}
static kiln_dim d_add(const kiln_infer *c, const kiln_dim *x) {
    return kiln_dim_add(c->dims, x[0], x[1]);
}
static kiln_dim d_sub(const kiln_infer *c, const kiln_dim *x) {
    return kiln_dim_sub(c->dims, x[0], x[1]);
}
static kiln_dim d_mul(const kiln_infer *c, const kiln_dim *x) {
    return kiln_dim_mul(c->dims, x[0], x[1]);
}
/* Division truncates, dims round down: the same where neither operand is negative. */
static kiln_dim d_div(const kiln_infer *c, const kiln_dim *x) {
    if (both_known(x)) {
        return i_div(x[0], x[1], true);
    }
    bool same = kiln_dim_known(x[1]) && x[1] > 0 && kiln_dim_nonneg(c->dims, x[0]);
    return same ? kiln_dim_div(c->dims, x[0], x[1]) : KILN_DIM_UNKNOWN;
}
static kiln_dim d_mod(const kiln_infer *c, const kiln_dim *x) {
    if (both_known(x)) {
        return i_mod(x[0], x[1], true);
    }
    if (!kiln_dim_known(x[1]) || x[1] <= 0) {
        return KILN_DIM_UNKNOWN;
    }
    kiln_dim whole = kiln_dim_mul(c->dims, kiln_dim_div(c->dims, x[0], x[1]), x[1]);
    return kiln_dim_sub(c->dims, x[0], whole);
}
static kiln_dim d_fmod(const kiln_infer *c, const kiln_dim *x) {
    if (both_known(x)) {
        return i_fmod(x[0], x[1], true);
    }
    return kiln_dim_nonneg(c->dims, x[0]) ? d_mod(c, x) : KILN_DIM_UNKNOWN;
}
static kiln_dim d_max(const kiln_infer *c, const kiln_dim *x) {
    return kiln_dim_max(c->dims, x[0], x[1]);
}
static kiln_dim d_min(const kiln_infer *c, const kiln_dim *x) {
    return kiln_dim_min(c->dims, x[0], x[1]);
}
static kiln_dim d_equal(const kiln_infer *c, const kiln_dim *x) {
    if (both_known(x)) {
        return x[0] == x[1];
    }
    if (x[0] == x[1] && x[0] != KILN_DIM_UNKNOWN) {
        return 1;
    }
    bool apart = (kiln_dim_known(x[0]) && x[0] < 0 && kiln_dim_nonneg(c->dims, x[1])) ||
                 (kiln_dim_known(x[1]) && x[1] < 0 && kiln_dim_nonneg(c->dims, x[0]));
    return apart ? 0 : KILN_DIM_UNKNOWN;
}
static kiln_dim d_less(const kiln_infer *c, const kiln_dim *x) {
    if (both_known(x)) {
        return x[0] < x[1];
    }
    bool above = kiln_dim_known(x[1]) && x[1] <= 0 && kiln_dim_nonneg(c->dims, x[0]);
    bool below = kiln_dim_known(x[0]) && x[0] < 0 && kiln_dim_nonneg(c->dims, x[1]);
    return below ? 1 : above ? 0 : KILN_DIM_UNKNOWN;
}
static kiln_dim d_greater(const kiln_infer *c, const kiln_dim *x) {
    const kiln_dim swapped[2] = {x[1], x[0]};
    return d_less(c, swapped);
}
static kiln_dim negate(kiln_dim v) {
    return kiln_dim_known(v) ? !v : v;
}
static kiln_dim d_less_or_equal(const kiln_infer *c, const kiln_dim *x) {
    return negate(d_greater(c, x));
}
static kiln_dim d_greater_or_equal(const kiln_infer *c, const kiln_dim *x) {
    return negate(d_less(c, x));
}
static kiln_dim d_and(const kiln_infer *c, const kiln_dim *x) {
    (void)c;
    return both_known(x) ? x[0] & x[1] : KILN_DIM_UNKNOWN;
}
static kiln_dim d_or(const kiln_infer *c, const kiln_dim *x) {
    (void)c;
    return both_known(x) ? x[0] | x[1] : KILN_DIM_UNKNOWN;
}
static kiln_dim d_xor(const kiln_infer *c, const kiln_dim *x) {
    (void)c;
    return both_known(x) ? x[0] ^ x[1] : KILN_DIM_UNKNOWN;
}

/* ---- Inference and reference of two inputs ---- */

static kiln_status infer_two(kiln_infer *c, uint32_t set, kiln_dtype out, dim_fn *contents) {
    KILN_TRY(kiln_infer_dtype(c, 0, set));
    KILN_TRY(kiln_infer_dtype(c, 1, set));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    kiln_dtype dtype = out != KILN_DTYPE_NONE ? out : c->in[0].type.dtype;
    KILN_TRY(kiln_infer_broadcast(c, 0, dtype, 0, 2));
    return contents ? kiln_contents_map(c, 2, contents) : KILN_OK;
}

static void row_f32(const kiln_rows *r, float *y, const float *a, const float *b, float_fn *f) {
    a += r->at[0];
    b += r->at[1];
    for (int64_t k = 0; k < r->n; k++) {
        y[r->out + k] = (float)f(a[k * r->step[0]], b[k * r->step[1]]);
    }
}

static void row_i64(const kiln_rows *r, int64_t *y, const int64_t *a, const int64_t *b, int_fn *g) {
    a += r->at[0];
    b += r->at[1];
    for (int64_t k = 0; k < r->n; k++) {
        y[r->out + k] = g(a[k * r->step[0]], b[k * r->step[1]], true);
    }
}

static void row_test_f32(const kiln_rows *r, uint8_t *y, const float *a, const float *b,
                         float_fn *f) {
    a += r->at[0];
    b += r->at[1];
    for (int64_t k = 0; k < r->n; k++) {
        y[r->out + k] = f(a[k * r->step[0]], b[k * r->step[1]]) != 0;
    }
}

static void row_test_i64(const kiln_rows *r, uint8_t *y, const int64_t *a, const int64_t *b,
                         int_fn *g) {
    a += r->at[0];
    b += r->at[1];
    for (int64_t k = 0; k < r->n; k++) {
        y[r->out + k] = g(a[k * r->step[0]], b[k * r->step[1]], true) != 0;
    }
}

static void row_float(const kiln_rows *r, kiln_tensor *y, const kiln_tensor *const *in,
                      float_fn *f) {
    for (int64_t k = 0; k < r->n; k++) {
        double a = kiln_get_f64(in[0]->dtype, in[0]->data, r->at[0] + k * r->step[0]);
        double b = kiln_get_f64(in[1]->dtype, in[1]->data, r->at[1] + k * r->step[1]);
        kiln_set_f64(y->dtype, y->data, r->out + k, f(a, b));
    }
}

static void row_int(const kiln_rows *r, kiln_tensor *y, const kiln_tensor *const *in, int_fn *g) {
    bool is_signed = kiln_dtype_is_signed_int(in[0]->dtype);
    for (int64_t k = 0; k < r->n; k++) {
        int64_t a = kiln_get_i64(in[0]->dtype, in[0]->data, r->at[0] + k * r->step[0]);
        int64_t b = kiln_get_i64(in[1]->dtype, in[1]->data, r->at[1] + k * r->step[1]);
        kiln_set_i64(y->dtype, y->data, r->out + k, g(a, b, is_signed));
    }
}

/* One row by the loop for its types, of which the most used have one of their own. */
static void row(const kiln_rows *r, kiln_tensor *y, const kiln_tensor *const *in, float_fn *f,
                int_fn *g) {
    kiln_dtype x = in[0]->dtype, z = y->dtype;
    const void *a = in[0]->data, *b = in[1]->data;
    bool alike = in[1]->dtype == x;
    if (alike && x == KILN_DTYPE_F32 && z == KILN_DTYPE_F32) {
        row_f32(r, y->data, a, b, f);
    } else if (alike && x == KILN_DTYPE_F32 && z == KILN_DTYPE_BOOL) {
        row_test_f32(r, y->data, a, b, f);
    } else if (alike && x == KILN_DTYPE_I64 && z == KILN_DTYPE_I64) {
        row_i64(r, y->data, a, b, g);
    } else if (alike && x == KILN_DTYPE_I64 && z == KILN_DTYPE_BOOL) {
        row_test_i64(r, y->data, a, b, g);
    } else if (kiln_dtype_is_float(x)) {
        row_float(r, y, in, f);
    } else {
        row_int(r, y, in, g);
    }
}

static kiln_status apply(kiln_ref *c, float_fn *f, int_fn *g) {
    const kiln_tensor *in[2] = {kiln_ref_in(c, 0), kiln_ref_in(c, 1)};
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_rows r;
    kiln_rows_init(&r, y, in, 2);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        row(&r, y, in, f, g);
    }
    return KILN_OK;
}

/* id, ONNX name, opset, input dtypes, output dtype (NONE: the inputs'), float and integer formula,
 * rule for contents, tolerance, further flags. */
#define OPERATOR(id, onnx, version, set, result, f, g, d, tol, more)   \
    static kiln_status infer_##id(kiln_infer *c) {                     \
        return infer_two(c, set, result, d);                           \
    }                                                                  \
    static kiln_status ref_##id(kiln_ref *c) {                         \
        return apply(c, f, g);                                         \
    }                                                                  \
    const kiln_op kiln_op_##id = {.name = onnx,                        \
                                  .domain = "",                        \
                                  .since = version,                    \
                                  .min_in = 2,                         \
                                  .max_in = 2,                         \
                                  .min_out = 1,                        \
                                  .max_out = 1,                        \
                                  .flags = KILN_OP_ELEMENTWISE | more, \
                                  .tolerance = tol,                    \
                                  .infer = infer_##id,                 \
                                  .ref = ref_##id};

#define ARITHMETIC(id, onnx, version, more)                                             \
    OPERATOR(id, onnx, version, KILN_T_NUMBER, KILN_DTYPE_NONE, f_##id, i_##id, d_##id, \
             KILN_TOL_ROUND, more)
#define COMPARISON(id, onnx, version, set, more) \
    OPERATOR(id, onnx, version, set, KILN_DTYPE_BOOL, f_##id, i_##id, d_##id, KILN_TOL_EXACT, more)
#define LOGICAL(id, onnx, version, set, formula)                                      \
    OPERATOR(id, onnx, version, set, KILN_DTYPE_NONE, NULL, i_##formula, d_##formula, \
             KILN_TOL_EXACT, KILN_OP_COMMUTATIVE)

ARITHMETIC(add, "Add", 14, KILN_OP_COMMUTATIVE)
ARITHMETIC(sub, "Sub", 14, 0)
ARITHMETIC(mul, "Mul", 14, KILN_OP_COMMUTATIVE)
ARITHMETIC(div, "Div", 14, 0)
COMPARISON(equal, "Equal", 19, KILN_T_NUMBER | KILN_T(BOOL), KILN_OP_COMMUTATIVE)
COMPARISON(less, "Less", 13, KILN_T_NUMBER, 0)
COMPARISON(less_or_equal, "LessOrEqual", 16, KILN_T_NUMBER, 0)
COMPARISON(greater, "Greater", 13, KILN_T_NUMBER, 0)
COMPARISON(greater_or_equal, "GreaterOrEqual", 16, KILN_T_NUMBER, 0)
LOGICAL(and, "And", 7, KILN_T(BOOL), and)
LOGICAL(or, "Or", 7, KILN_T(BOOL), or)
LOGICAL(xor, "Xor", 7, KILN_T(BOOL), xor)
LOGICAL(bitwise_and, "BitwiseAnd", 18, KILN_T_INT, and)
LOGICAL(bitwise_or, "BitwiseOr", 18, KILN_T_INT, or)
LOGICAL(bitwise_xor, "BitwiseXor", 18, KILN_T_INT, xor)

/* ---- Mod ---- */

static const kiln_attr mod_table[] = {KILN_A_INT(kiln_mod_attrs, fmod, 0)};

static kiln_status infer_mod(kiln_infer *c) {
    const kiln_mod_attrs *a = c->attrs;
    if (a->fmod != 0 && a->fmod != 1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "fmod is %lld; only 0 and 1 exist",
                               (long long)a->fmod);
    }
    return infer_two(c, KILN_T_NUMBER, KILN_DTYPE_NONE, a->fmod ? d_fmod : d_mod);
}

static kiln_status ref_mod(kiln_ref *c) {
    const kiln_mod_attrs *a = c->attrs;
    return a->fmod ? apply(c, fmod, i_fmod) : apply(c, f_mod, i_mod);
}

const kiln_op kiln_op_mod = {
    .name = "Mod",
    .domain = "",
    .since = 28,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    KILN_OP_ATTRS(mod_table, kiln_mod_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_mod,
    .ref = ref_mod,
};

/* ---- PRelu: the slope broadcasts to x, not x to the slope ---- */

static kiln_status infer_prelu(kiln_infer *c) {
    uint32_t set = KILN_T_FLOAT | KILN_T_INDEX | KILN_T(U32) | KILN_T(U64);
    KILN_TRY(infer_two(c, set, KILN_DTYPE_NONE, NULL));
    int32_t rank = kiln_infer_in_rank(c, 0);
    if (rank < 0 || c->out[0].type.rank < 0) {
        return KILN_OK;
    }
    bool grows = c->out[0].type.rank != rank;
    for (int32_t i = 0; i < rank && !grows; i++) {
        grows = kiln_dim_differ(c->out[0].type.dims[i], kiln_infer_dim(c, 0, i));
    }
    if (grows) {
        return KILN_INFER_FAIL(c, SHAPE, "the slope (rank %d) does not broadcast to x (rank %d)",
                               kiln_infer_in_rank(c, 1), rank);
    }
    return KILN_OK;
}

static kiln_status ref_prelu(kiln_ref *c) {
    return apply(c, f_prelu, i_prelu);
}

const kiln_op kiln_op_prelu = {
    .name = "PRelu",
    .domain = "",
    .since = 16,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    .tolerance = KILN_TOL_ROUND,
    .infer = infer_prelu,
    .ref = ref_prelu,
};

/* ---- Max, Min, Mean, Sum ---- */

static kiln_status infer_many(kiln_infer *c, uint32_t set, dim_fn *contents) {
    for (int32_t i = 0; i < c->n_in; i++) {
        if (!kiln_infer_has(c, i)) {
            return KILN_INFER_FAIL(c, ARITY, "input %d is left out", i);
        }
        KILN_TRY(kiln_infer_dtype(c, i, set));
        KILN_TRY(kiln_infer_same_dtype(c, 0, i));
    }
    KILN_TRY(kiln_infer_broadcast(c, 0, c->in[0].type.dtype, 0, c->n_in));
    return contents && c->n_in == 2 ? kiln_contents_map(c, 2, contents) : KILN_OK;
}

/* y[k] = f(y[k], x[k]) over an accumulator of doubles, or of integers when f is NULL. */
static void accumulate(const kiln_tensor *y, const kiln_tensor *x, void *acc, float_fn *f,
                       int_fn *g) {
    bool is_signed = kiln_dtype_is_signed_int(x->dtype);
    double *sum = acc;
    int64_t *bits = acc;
    kiln_rows r;
    kiln_rows_init(&r, y, &x, 1);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            int64_t at = r.at[0] + k * r.step[0], o = r.out + k;
            if (g) {
                bits[o] = g(bits[o], kiln_get_i64(x->dtype, x->data, at), is_signed);
            } else {
                sum[o] = f(sum[o], kiln_get_f64(x->dtype, x->data, at));
            }
        }
    }
}

static double f_last(double a, double b) {
    (void)a;
    return b;
}
static int64_t i_last(int64_t a, int64_t b, bool is_signed) {
    (void)a;
    (void)is_signed;
    return b;
}

static kiln_status apply_many(kiln_ref *c, float_fn *f, int_fn *g, double scale) {
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t n = kiln_tensor_count(y);
    bool is_float = kiln_dtype_is_float(y->dtype);
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    int64_t *acc;
    KILN_ALLOC(acc, c->arena, n);
    for (int32_t i = 0; i < c->n_in; i++) {
        accumulate(y, kiln_ref_in(c, i), acc, i ? f : f_last, is_float ? NULL : i ? g : i_last);
    }
    for (int64_t k = 0; k < n; k++) {
        if (is_float) {
            double v;
            memcpy(&v, &acc[k], sizeof v);
            kiln_set_f64(y->dtype, y->data, k, v * scale);
        } else {
            kiln_set_i64(y->dtype, y->data, k, acc[k]);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

#define VARIADIC(id, onnx, set, f, g, d, scale, more)                  \
    static kiln_status infer_##id(kiln_infer *c) {                     \
        return infer_many(c, set, d);                                  \
    }                                                                  \
    static kiln_status ref_##id(kiln_ref *c) {                         \
        return apply_many(c, f, g, scale);                             \
    }                                                                  \
    const kiln_op kiln_op_##id = {.name = onnx,                        \
                                  .domain = "",                        \
                                  .since = 13,                         \
                                  .min_in = 1,                         \
                                  .max_in = -1,                        \
                                  .min_out = 1,                        \
                                  .max_out = 1,                        \
                                  .flags = KILN_OP_ELEMENTWISE | more, \
                                  .tolerance = KILN_TOL_ROUND,         \
                                  .infer = infer_##id,                 \
                                  .ref = ref_##id};

VARIADIC(max, "Max", KILN_T_NUMBER, f_max, i_max, d_max, 1, KILN_OP_COMMUTATIVE)
VARIADIC(min, "Min", KILN_T_NUMBER, f_min, i_min, d_min, 1, KILN_OP_COMMUTATIVE)
VARIADIC(sum, "Sum", KILN_T_FLOAT, f_add, NULL, NULL, 1, KILN_OP_COMMUTATIVE)
VARIADIC(mean, "Mean", KILN_T_FLOAT, f_add, NULL, NULL, 1.0 / c->n_in, KILN_OP_COMMUTATIVE)
