/* unary.c - operators of one input whose output element depends on the same input element alone.
 *
 * Floats of every width are computed in double and rounded once; integers exactly. FLOATS rows give
 * the formula for floats, OPERATOR rows also one for integers. */
#include <math.h>

#include "ops/attrs.h"
#include "ops/elementwise.h"

typedef kiln_activation_attrs act;
typedef double float_fn(double x, const act *a);
typedef int64_t int_fn(int64_t x, bool is_signed);

/* ---- Formulas ---- */

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}
static double softplus(double x) {
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}
static double unit(double x) { /* clipped to [0, 1]; NaN stays */
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

/* Formulas of x alone: name, expression. */
#define PLAIN_FORMULAS(F)                                      \
    F(abs, fabs(x))                                            \
    F(acos, acos(x))                                           \
    F(acosh, acosh(x))                                         \
    F(asin, asin(x))                                           \
    F(asinh, asinh(x))                                         \
    F(atan, atan(x))                                           \
    F(atanh, atanh(x))                                         \
    F(ceil, ceil(x))                                           \
    F(cos, cos(x))                                             \
    F(cosh, cosh(x))                                           \
    F(erf, erf(x))                                             \
    F(exp, exp(x))                                             \
    F(floor, floor(x))                                         \
    F(log, log(x))                                             \
    F(neg, -x)                                                 \
    F(reciprocal, 1 / x)                                       \
    F(round, nearbyint(x))                                     \
    F(sigmoid, sigmoid(x))                                     \
    F(sign, x > 0 ? 1 : x < 0 ? -1 : x)                        \
    F(sin, sin(x))                                             \
    F(sinh, sinh(x))                                           \
    F(sqrt, sqrt(x))                                           \
    F(tan, tan(x))                                             \
    F(tanh, tanh(x))                                           \
    F(softplus, softplus(x))                                   \
    F(softsign, isinf(x) ? copysign(1, x) : x / (1 + fabs(x))) \
    F(relu, x < 0 ? 0 : x)                                     \
    F(hard_swish, x *unit(x / 6 + 0.5))                        \
    F(mish, x *tanh(softplus(x)))

#define DEFINE_PLAIN(id, expr)                     \
    static double f_##id(double x, const act *a) { \
        (void)a;                                   \
        return expr;                               \
    }
PLAIN_FORMULAS(DEFINE_PLAIN)

/* Formulas with attributes. */
static double f_leaky_relu(double x, const act *a) {
    return x < 0 ? a->alpha * x : x;
}
static double f_elu(double x, const act *a) {
    return x < 0 ? a->alpha * expm1(x) : x;
}
static double f_celu(double x, const act *a) {
    return x < 0 ? a->alpha * expm1(x / a->alpha) : x;
}
static double f_selu(double x, const act *a) {
    return a->gamma * (x > 0 ? x : a->alpha * expm1(x));
}
static double f_thresholded_relu(double x, const act *a) {
    return x > a->alpha || isnan(x) ? x : 0;
}
static double f_hard_sigmoid(double x, const act *a) {
    return unit((double)a->alpha * x + a->beta);
}
static double f_swish(double x, const act *a) {
    return x * sigmoid((double)a->alpha * x);
}
static double f_gelu(double x, const act *a) {
    const double sqrt_half = 0.70710678118654752440, sqrt_2_over_pi = 0.79788456080286535588;
    double g =
        a->approximate ? tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)) : erf(x * sqrt_half);
    return 0.5 * x * (1 + g);
}
static double f_shrink(double x, const act *a) {
    return x < -(double)a->lambd ? x + a->bias : x > a->lambd ? x - a->bias : isnan(x) ? x : 0;
}

static int64_t i_abs(int64_t x, bool is_signed) {
    return is_signed && x < 0 ? (int64_t)(0 - (uint64_t)x) : x;
}
static int64_t i_neg(int64_t x, bool is_signed) {
    (void)is_signed;
    return (int64_t)(0 - (uint64_t)x);
}
static int64_t i_sign(int64_t x, bool is_signed) {
    return is_signed && x < 0 ? -1 : x != 0;
}
static int64_t i_relu(int64_t x, bool is_signed) {
    return is_signed && x < 0 ? 0 : x;
}
static int64_t i_bitwise_not(int64_t x, bool is_signed) {
    (void)is_signed;
    return ~x;
}
static int64_t i_not(int64_t x, bool is_signed) {
    (void)is_signed;
    return x == 0;
}

/* ---- Inference ---- */

static kiln_dim dim_neg(const kiln_infer *c, const kiln_dim *x) {
    return kiln_dim_sub(c->dims, 0, x[0]);
}
static kiln_dim dim_abs(const kiln_infer *c, const kiln_dim *x) {
    if (kiln_dim_nonneg(c->dims, x[0])) {
        return x[0];
    }
    return kiln_dim_known(x[0]) ? -x[0] : KILN_DIM_UNKNOWN;
}
static kiln_dim dim_relu(const kiln_infer *c, const kiln_dim *x) {
    return kiln_dim_max(c->dims, x[0], 0);
}
static kiln_dim dim_sign(const kiln_infer *c, const kiln_dim *x) {
    (void)c;
    return kiln_dim_known(x[0]) ? (x[0] > 0) - (x[0] < 0) : KILN_DIM_UNKNOWN;
}
static kiln_dim dim_not(const kiln_infer *c, const kiln_dim *x) {
    (void)c;
    return kiln_dim_known(x[0]) ? x[0] == 0 : KILN_DIM_UNKNOWN;
}
static kiln_dim dim_bitwise_not(const kiln_infer *c, const kiln_dim *x) {
    return kiln_dim_sub(c->dims, -1, x[0]);
}

static kiln_status infer_same(kiln_infer *c, uint32_t set,
                              kiln_dim (*contents)(const kiln_infer *, const kiln_dim *)) {
    KILN_TRY(kiln_infer_dtype(c, 0, set));
    KILN_TRY(kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE));
    return contents ? kiln_contents_map(c, 1, contents) : KILN_OK;
}

/* ---- Reference ---- */

static kiln_status apply(kiln_ref *c, float_fn *f, int_fn *g) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    const act *a = c->attrs;
    int64_t n = kiln_tensor_count(x);
    if (g && !kiln_dtype_is_float(x->dtype)) {
        bool is_signed = kiln_dtype_is_signed_int(x->dtype);
        for (int64_t i = 0; i < n; i++) {
            kiln_set_i64(y->dtype, y->data, i, g(kiln_get_i64(x->dtype, x->data, i), is_signed));
        }
    } else if (x->dtype == KILN_DTYPE_F32 && y->dtype == KILN_DTYPE_F32) {
        const float *src = x->data;
        float *dst = y->data;
        for (int64_t i = 0; i < n; i++) {
            dst[i] = (float)f(src[i], a);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            kiln_set_f64(y->dtype, y->data, i, f(kiln_get_f64(x->dtype, x->data, i), a));
        }
    }
    return KILN_OK;
}

/* ---- The operators ---- */

static const char *const approximate_words[] = {"none", "tanh", NULL};

static const kiln_attr leaky_relu_table[] = {KILN_A_FLOAT(act, alpha, 0.01f)};
static const kiln_attr alpha_table[] = {KILN_A_FLOAT(act, alpha, 1.0f)};
static const kiln_attr selu_table[] = {KILN_A_FLOAT(act, alpha, 1.67326319217681884765625f),
                                       KILN_A_FLOAT(act, gamma, 1.05070102214813232421875f)};
static const kiln_attr hard_sigmoid_table[] = {KILN_A_FLOAT(act, alpha, 0.2f),
                                               KILN_A_FLOAT(act, beta, 0.5f)};
static const kiln_attr gelu_table[] = {KILN_A_ENUM(act, approximate, approximate_words, 0)};
static const kiln_attr shrink_table[] = {KILN_A_FLOAT(act, bias, 0.0f),
                                         KILN_A_FLOAT(act, lambd, 0.5f)};

#define EW KILN_OP_ELEMENTWISE
#define MONO (KILN_OP_ELEMENTWISE | KILN_OP_MONOTONE)
#define T_SIGNED (KILN_T_FLOAT | KILN_T_SINT)

/* One operator: id, ONNX name, opset, input dtypes, float formula, integer formula, rule for
 * contents, tolerance, flags, attributes. */
#define OPERATOR(id, onnx, version, set, f, g, contents, tol, op_flags, ...) \
    static kiln_status infer_##id(kiln_infer *c) {                           \
        return infer_same(c, set, contents);                                 \
    }                                                                        \
    static kiln_status ref_##id(kiln_ref *c) {                               \
        return apply(c, f, g);                                               \
    }                                                                        \
    const kiln_op kiln_op_##id = {.name = onnx,                              \
                                  .domain = "",                              \
                                  .since = version,                          \
                                  .min_in = 1,                               \
                                  .max_in = 1,                               \
                                  .min_out = 1,                              \
                                  .max_out = 1,                              \
                                  .flags = op_flags,                         \
                                  .tolerance = tol,                          \
                                  .infer = infer_##id,                       \
                                  .ref = ref_##id,                           \
                                  __VA_ARGS__};

#define FLOATS(id, onnx, version, op_flags, ...)                                            \
    OPERATOR(id, onnx, version, KILN_T_FLOAT, f_##id, NULL, NULL, KILN_TOL_ROUND, op_flags, \
             __VA_ARGS__)

FLOATS(acos, "Acos", 22, EW, .attrs = NULL)
FLOATS(acosh, "Acosh", 22, EW, .attrs = NULL)
FLOATS(asin, "Asin", 22, EW, .attrs = NULL)
FLOATS(asinh, "Asinh", 22, MONO, .attrs = NULL)
FLOATS(atan, "Atan", 22, MONO, .attrs = NULL)
FLOATS(atanh, "Atanh", 22, EW, .attrs = NULL)
FLOATS(ceil, "Ceil", 13, MONO, .attrs = NULL)
FLOATS(cos, "Cos", 22, EW, .attrs = NULL)
FLOATS(cosh, "Cosh", 22, EW, .attrs = NULL)
FLOATS(erf, "Erf", 13, MONO, .attrs = NULL)
FLOATS(exp, "Exp", 13, MONO, .attrs = NULL)
FLOATS(floor, "Floor", 13, MONO, .attrs = NULL)
FLOATS(log, "Log", 13, EW, .attrs = NULL)
FLOATS(reciprocal, "Reciprocal", 13, EW, .attrs = NULL)
FLOATS(round, "Round", 22, MONO, .attrs = NULL)
FLOATS(sigmoid, "Sigmoid", 13, MONO, .attrs = NULL)
FLOATS(sin, "Sin", 22, EW, .attrs = NULL)
FLOATS(sinh, "Sinh", 22, MONO, .attrs = NULL)
FLOATS(sqrt, "Sqrt", 13, EW, .attrs = NULL)
FLOATS(tan, "Tan", 22, EW, .attrs = NULL)
FLOATS(tanh, "Tanh", 13, MONO, .attrs = NULL)
FLOATS(softplus, "Softplus", 22, MONO, .attrs = NULL)
FLOATS(softsign, "Softsign", 22, MONO, .attrs = NULL)
FLOATS(hard_swish, "HardSwish", 22, EW, .attrs = NULL)
FLOATS(mish, "Mish", 22, EW, .attrs = NULL)
FLOATS(leaky_relu, "LeakyRelu", 16, EW, KILN_OP_ATTRS(leaky_relu_table, act))
FLOATS(elu, "Elu", 22, EW, KILN_OP_ATTRS(alpha_table, act))
FLOATS(celu, "Celu", 28, EW, KILN_OP_ATTRS(alpha_table, act))
FLOATS(selu, "Selu", 22, EW, KILN_OP_ATTRS(selu_table, act))
FLOATS(thresholded_relu, "ThresholdedRelu", 22, EW, KILN_OP_ATTRS(alpha_table, act))
FLOATS(hard_sigmoid, "HardSigmoid", 22, EW, KILN_OP_ATTRS(hard_sigmoid_table, act))
FLOATS(swish, "Swish", 24, EW, KILN_OP_ATTRS(alpha_table, act))
FLOATS(gelu, "Gelu", 20, EW, KILN_OP_ATTRS(gelu_table, act))
OPERATOR(shrink, "Shrink", 9, KILN_T_NUMBER, f_shrink, NULL, NULL, KILN_TOL_ROUND, EW,
         KILN_OP_ATTRS(shrink_table, act))
OPERATOR(abs, "Abs", 13, KILN_T_NUMBER, f_abs, i_abs, dim_abs, KILN_TOL_EXACT, EW, .attrs = NULL)
OPERATOR(neg, "Neg", 13, T_SIGNED, f_neg, i_neg, dim_neg, KILN_TOL_EXACT, EW, .attrs = NULL)
OPERATOR(sign, "Sign", 13, KILN_T_NUMBER, f_sign, i_sign, dim_sign, KILN_TOL_EXACT, MONO,
         .attrs = NULL)
OPERATOR(relu, "Relu", 14, T_SIGNED, f_relu, i_relu, dim_relu, KILN_TOL_EXACT, MONO, .attrs = NULL)
OPERATOR(bitwise_not, "BitwiseNot", 18, KILN_T_INT, NULL, i_bitwise_not, dim_bitwise_not,
         KILN_TOL_EXACT, EW, .attrs = NULL)
OPERATOR(not, "Not", 1, KILN_T(BOOL), NULL, i_not, dim_not, KILN_TOL_EXACT, EW, .attrs = NULL)
