/* test_prims_program.c - elementary functions, every opcode, broadcasting, element types, the post
 * hook and range splits of backend/cpu/prims/program.h, on every instruction set present. */
#include "prims_util.h"

#include "backend/cpu/prims/program.h"

ISA_TABLE(kiln_program_prims);

/* ---- one opcode over a vector ---- */

static void run1(const kiln_program_prims *prims, kiln_prog_instr in, int operands,
                 const float *const *src, float *dst, int64_t n) {
    in.dst = (uint8_t)operands;
    in.a = 0;
    in.b = 1;
    in.c = 2;
    kiln_program p = {.inputs = operands,
                      .instrs = 1,
                      .outputs = 1,
                      .regs = operands + 1,
                      .instr = &in,
                      .output = {(uint8_t)operands}};
    kiln_prog_view views[4];
    const void *ins[3];
    for (int i = 0; i <= operands; i++) {
        views[i] = (kiln_prog_view){.dtype = KILN_DTYPE_F32, .stride = {1}};
        if (i < operands) {
            ins[i] = src[i];
        }
    }
    kiln_program_plan plan;
    assert_int_equal(kiln_program_plan_make(&plan, &p, 1, &n, views), KILN_OK);
    void *outs[1] = {dst};
    prims->run(&p, &plan, ins, outs, 0, plan.blocks);
}

/* What each opcode should give, in double precision. */
static double d_sigmoid(double x) {
    return 1.0 / (1.0 + exp(-x));
}
static double d_elu(double x, double p) {
    return x < 0 ? p * expm1(x) : x;
}
static double d_clamp(double x, double lo, double hi) {
    return isnan(x) ? x : x < lo ? lo : x > hi ? hi : x;
}
static double d_softplus(double x) {
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}
static double d_mod(double x, double y) {
    double r = fmod(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
/* In float, as QuantizeLinear and DequantizeLinear are defined. */
static double d_quantize(double x, double scale, double zero, double lo, double hi) {
    float v = (float)x / (float)scale;
    v = isnan(v) ? 0 : rintf(v);
    return d_clamp(v + (float)zero, lo, hi);
}
static double d_dequantize(double x, double scale, double zero) {
    float distance = (float)x - (float)zero;
    return distance * (float)scale;
}
static double d_nanmin(double x, double y) {
    return isnan(x) || isnan(y) ? NAN : x < y ? x : y;
}
static double d_nanmax(double x, double y) {
    return isnan(x) || isnan(y) ? NAN : x > y ? x : y;
}

typedef struct op_case {
    kiln_prog_op op;
    const char *name;
    int operands;
    float p, q;
    float lo, hi;     /* range of the random operands */
    double ulp;       /* allowed error with FMA */
    double abs_floor; /* allowed absolute error, for functions that cross zero */
    double (*want)(double x, double y, double z, double p, double q);
} op_case;

#define WANT(name, expr)                                                          \
    static double want_##name(double x, double y, double z, double p, double q) { \
        (void)x, (void)y, (void)z, (void)p, (void)q;                              \
        return expr;                                                              \
    }
#define CASES(C)                                                                                 \
    C(COPY, 1, 0, 0, -9, 9, 0, 0, x)                                                             \
    C(ADD, 2, 0, 0, -9, 9, 0.51, 0, x + y)                                                       \
    C(SUB, 2, 0, 0, -9, 9, 0.51, 0, x - y)                                                       \
    C(MUL, 2, 0, 0, -9, 9, 0.51, 0, x *y)                                                        \
    C(DIV, 2, 0, 0, -9, 9, 0.51, 0, x / y)                                                       \
    C(POW, 2, 0, 0, 0.1f, 9, 1.0, 0, pow(x, y))                                                  \
    C(MIN, 2, 0, 0, -9, 9, 0, 0, d_nanmin(x, y))                                                 \
    C(MAX, 2, 0, 0, -9, 9, 0, 0, d_nanmax(x, y))                                                 \
    C(FMOD, 2, 0, 0, -9, 9, 0, 0, fmod(x, y))                                                    \
    C(MOD, 2, 0, 0, -9, 9, 1, 1e-6, d_mod(x, y))                                                 \
    C(FMA, 3, 0, 0, -9, 9, 1, 1e-5, fma(x, y, z))                                                \
    C(AXPB, 1, 1.5f, -0.25f, -9, 9, 1, 2e-6, fma(p, x, q))                                       \
    C(NEG, 1, 0, 0, -9, 9, 0, 0, -x)                                                             \
    C(ABS, 1, 0, 0, -9, 9, 0, 0, fabs(x))                                                        \
    C(SQRT, 1, 0, 0, -1, 99, 0.51, 0, sqrt(x))                                                   \
    C(RSQRT, 1, 0, 0, 0, 99, 1.5, 0, 1 / sqrt(x))                                                \
    C(RECIPROCAL, 1, 0, 0, -9, 9, 0.51, 0, 1 / x)                                                \
    C(EXP, 1, 0, 0, -87.3f, 88.9f, 2, 0, exp(x))                                                 \
    C(LOG, 1, 0, 0, 0, 4, 2, 0, log(x))                                                          \
    C(LOG1P, 1, 0, 0, -1, 4, 4, 0, log1p(x))                                                     \
    C(EXPM1, 1, 0, 0, -20, 89, 3, 0, expm1(x))                                                   \
    C(TANH, 1, 0, 0, -12, 12, 4, 0, tanh(x))                                                     \
    C(SIGMOID, 1, 0, 0, -87, 40, 4, 0, d_sigmoid(x))                                             \
    C(ERF, 1, 0, 0, -5, 5, 4, 0, erf(x))                                                         \
    C(GELU, 1, 0, 0, -9, 9, 4, 4e-7, isinf(x) && x < 0 ? 0 : x * 0.5 * erfc(-x / sqrt(2)))       \
    C(GELU_TANH, 1, 0, 0, -9, 9, 8, 4e-7,                                                        \
      isinf(x) && x < 0 ? 0                                                                      \
                        : 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))) \
    C(SILU, 1, 1.702f, 0, -50, 50, 80, 1e-7, isinf(x) && x < 0 ? 0 : x * d_sigmoid(p * x))       \
    C(HARDSIGMOID, 1, 0.2f, 0.5f, -9, 9, 2, 1e-7, d_clamp(p *x + q, 0, 1))                       \
    C(HARDSWISH, 1, 0, 0, -9, 9, 3, 6e-7, x *d_clamp(x / 6 + 0.5, 0, 1))                         \
    C(MISH, 1, 0, 0, -40, 40, 12, 0, isinf(x) && x < 0 ? 0 : x * tanh(d_softplus(x)))            \
    C(SOFTPLUS, 1, 0, 0, -60, 60, 5, 0, d_softplus(x))                                           \
    C(SOFTSIGN, 1, 0, 0, -9, 9, 2, 0, isinf(x) ? NAN : x / (1 + fabs(x)))                        \
    C(ELU, 1, 1.25f, 0, -20, 20, 4, 0, d_elu(x, p))                                              \
    C(SELU, 1, 1.6732632f, 1.0507010f, -20, 20, 5, 0, q *d_elu(x, p))                            \
    C(CELU, 1, 1.3f, 0, -20, 20, 5, 0, d_nanmax(0, x) + d_nanmin(0, p * expm1(x / p)))           \
    C(LEAKYRELU, 1, 0.01f, 0, -9, 9, 0.51, 0, x < 0 ? p * x : x)                                 \
    C(THRESHOLDEDRELU, 1, 1, 0, -9, 9, 0, 0, x > p ? x : 0)                                      \
    C(SHRINK, 1, 0.5f, 0.25f, -2, 2, 0.51, 0, x<-p ? x + q : x> p ? x - q : 0)                   \
    C(PRELU, 2, 0, 0, -9, 9, 0.51, 0, x < 0 ? x * y : x)                                         \
    C(RELU, 1, 0, 0, -9, 9, 0, 0, x < 0 ? 0 : x)                                                 \
    C(CLIP, 1, -1, 6, -9, 9, 0, 0, d_clamp(x, p, q))                                             \
    C(FLOOR, 1, 0, 0, -9, 9, 0, 0, floor(x))                                                     \
    C(CEIL, 1, 0, 0, -9, 9, 0, 0, ceil(x))                                                       \
    C(ROUND, 1, 0, 0, -9, 9, 0, 0, nearbyint(x))                                                 \
    C(TRUNC, 1, 0, 0, -9, 9, 0, 0, trunc(x))                                                     \
    C(SIGN, 1, 0, 0, -9, 9, 0, 0, isnan(x) ? x : (x > 0) - (x < 0))                              \
    C(SIN, 1, 0, 0, -9000, 9000, 4, 2.5e-7, sin(x))                                              \
    C(COS, 1, 0, 0, -9000, 9000, 4, 2.5e-7, cos(x))                                              \
    C(TAN, 1, 0, 0, -9, 9, 2, 0, tan(x))                                                         \
    C(ASIN, 1, 0, 0, -1, 1, 2, 0, asin(x))                                                       \
    C(ACOS, 1, 0, 0, -1, 1, 2, 0, acos(x))                                                       \
    C(ATAN, 1, 0, 0, -9, 9, 2, 0, atan(x))                                                       \
    C(SINH, 1, 0, 0, -9, 9, 3, 0, sinh(x))                                                       \
    C(COSH, 1, 0, 0, -9, 9, 3, 0, cosh(x))                                                       \
    C(ASINH, 1, 0, 0, -9, 9, 3, 0, asinh(x))                                                     \
    C(ACOSH, 1, 0, 0, 1, 9, 3, 0, acosh(x))                                                      \
    C(ATANH, 1, 0, 0, -1, 1, 3, 0, atanh(x))                                                     \
    C(EQ, 2, 0, 0, -2, 2, 0, 0, x == y)                                                          \
    C(NE, 2, 0, 0, -2, 2, 0, 0, x != y)                                                          \
    C(LT, 2, 0, 0, -2, 2, 0, 0, x < y)                                                           \
    C(LE, 2, 0, 0, -2, 2, 0, 0, x <= y)                                                          \
    C(GT, 2, 0, 0, -2, 2, 0, 0, x > y)                                                           \
    C(GE, 2, 0, 0, -2, 2, 0, 0, x >= y)                                                          \
    C(NOT, 1, 0, 0, -2, 2, 0, 0, x == 0)                                                         \
    C(AND, 2, 0, 0, -2, 2, 0, 0, x != 0 && y != 0)                                               \
    C(OR, 2, 0, 0, -2, 2, 0, 0, x != 0 || y != 0)                                                \
    C(XOR, 2, 0, 0, -2, 2, 0, 0, (x != 0) != (y != 0))                                           \
    C(WHERE, 3, 0, 0, -2, 2, 0, 0, x != 0 ? y : z)                                               \
    C(ISNAN, 1, 0, 0, -2, 2, 0, 0, isnan(x))                                                     \
    C(ISINF, 1, 0, 1, -2, 2, 0, 0, isinf(x) && x > 0)                                            \
    C(DEQUANT, 1, 0.013f, 7, 0, 255, 0, 0, d_dequantize(x, p, q))                                \
    C(DEQUANT_BY, 3, 0, 0, 0, 255, 0, 0, d_dequantize(x, y, z))                                  \
    C(QUANT_U8, 1, 0.013f, 7, -2, 5, 0, 0, d_quantize(x, p, q, 0, 255))                          \
    C(QUANT_U8_BY, 3, 0, 0, -3, 3, 0, 0, d_quantize(x, y, z, 0, 255))                            \
    C(QUANT_S8, 1, 0.013f, -7, -2, 5, 0, 0, d_quantize(x, p, q, -128, 127))                      \
    C(QUANT_S8_BY, 3, 0, 0, -3, 3, 0, 0, d_quantize(x, y, z, -128, 127))
#define CASE_WANT(op, operands, p, q, lo, hi, ulp, floor, expr) WANT(op, expr)
#define CASE_ROW(op, operands, p, q, lo, hi, ulp, floor, expr) \
    {KILN_PROG_##op, #op, operands, p, q, lo, hi, ulp, floor, want_##op},
CASES(CASE_WANT)
static const op_case op_cases[] = {CASES(CASE_ROW)};

static const float specials[] = {0.0f,   -0.0f,  1.0f,  -1.0f,   INFINITY, -INFINITY, NAN,
                                 1e-30f, -3.0f,  1e-6f, -1e-6f,  0.5f,     2.5f,      -2.5f,
                                 1e30f,  -1e30f, 88.8f, -200.0f, 4.0f,     6.0f};

static void check_op(const kiln_program_prims *prims, int isa, const op_case *c, int64_t n,
                     bool special) {
    rng r = {.state = 77u + c->op};
    float *src[3];
    for (int k = 0; k < 3; k++) {
        src[k] = guard_floats(n, (size_t)k);
        rng_fill(&r, src[k], n, c->lo, c->hi);
        for (int64_t i = 0; special && i < n; i++) {
            src[k][i] = specials[(size_t)(k == 0 ? i : i / 20) % KILN_COUNT_OF(specials)];
        }
        for (int64_t i = k; i < n; i += 5) {
            if (c->hi == 2.0f && !special) {
                src[k][i] = (float)(rng_u32(&r) % 2);
            }
        }
    }
    float *dst = guard_floats(n, 1);
    kiln_prog_instr in = {.op = (uint8_t)c->op, .p = c->p, .q = c->q};
    run1(prims, in, c->operands, (const float *const *)src, dst, n);
    double slack = isa == ISA_PORTABLE && c->ulp >= 1.0 ? 1.5 : 0.0;
    for (int64_t i = 0; i < n; i++) {
        double want = c->want(src[0][i], src[1][i], src[2][i], c->p, c->q);
        double got = dst[i];
        double err = ulps(dst[i], want);
        bool fine = err <= c->ulp + slack || fabs(got - want) <= c->abs_floor * (1 + slack);
        fine = fine || (special && fabs(got - want) < 1e-37);
        if (!fine) {
            print_error("%s isa %d: f(%.9g, %.9g, %.9g) = %.9g, want %.9g (%.2f ulp)\n", c->name,
                        isa, (double)src[0][i], (double)src[1][i], (double)src[2][i], got, want,
                        err);
            fail();
        }
    }
    for (int k = 0; k < 3; k++) {
        guard_free(src[k]);
    }
    guard_free(dst);
}

static void test_ops(void **state) {
    (void)state;
    assert_int_equal(KILN_COUNT_OF(op_cases), KILN_PROG_OP_COUNT);
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!isa_present(isa)) {
            continue;
        }
        for (size_t k = 0; k < KILN_COUNT_OF(op_cases); k++) {
            check_op(prims_of[isa], isa, &op_cases[k], 20011, false);
            check_op(prims_of[isa], isa, &op_cases[k], 17, false);
            if (op_cases[k].op != KILN_PROG_SIN && op_cases[k].op != KILN_PROG_COS) {
                check_op(prims_of[isa], isa, &op_cases[k], op_cases[k].operands > 1 ? 403 : 23,
                         true);
            }
        }
    }
}

static void test_pow_fast(void **state) {
    (void)state;
    const float exponents[] = {2.0f, 0.5f, 3.0f, 1.0f, -1.0f, 0.0f, 1.7f};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!isa_present(isa)) {
            continue;
        }
        for (size_t e = 0; e < KILN_COUNT_OF(exponents); e++) {
            float x[21];
            float y[21];
            float z[21];
            for (int i = 0; i < 21; i++) {
                x[i] = i < 20 ? specials[i] : 0.7f;
                y[i] = exponents[e];
            }
            const float *src[2] = {x, y};
            run1(prims_of[isa], (kiln_prog_instr){.op = KILN_PROG_POW}, 2, src, z, 21);
            for (int i = 0; i < 21; i++) {
                assert_true(ulps(z[i], pow(x[i], y[i])) <= 1.5);
            }
        }
    }
}

/* ---- broadcasting, element types, splits ---- */

typedef struct space {
    int32_t rank;
    int64_t dims[8];
    int64_t x[8], y[8], out[8]; /* strides */
} space;

static const space spaces[] = {
    {1, {1}, {1}, {1}, {1}},
    {2, {5, 7}, {7, 1}, {7, 1}, {7, 1}},
    {2, {33, 64}, {64, 1}, {0, 1}, {64, 1}},                   /* per-channel vector */
    {2, {9, 1500}, {1500, 1}, {0, 1}, {1500, 1}},              /* the same, long rows */
    {2, {9, 1500}, {1500, 1}, {1, 0}, {1500, 1}},              /* per-row scalar */
    {2, {40, 17}, {17, 1}, {1, 0}, {17, 1}},                   /* the same, short rows */
    {3, {4, 3, 300}, {900, 300, 1}, {0, 0, 0}, {900, 300, 1}}, /* scalar */
    {3, {4, 6, 5}, {30, 5, 1}, {30, 1, 6}, {30, 5, 1}},        /* transposed operand */
    {4, {2, 3, 4, 5}, {60, 20, 5, 1}, {0, 5, 0, 1}, {60, 20, 5, 1}},
    {3, {3, 1, 700}, {1400, 0, 2}, {-700, 0, 1}, {700, 9, 1}}, /* steps and a negative stride */
    {3, {6, 2, 10}, {20, 10, 1}, {10, 0, 1}, {40, 20, 2}},     /* strided output */
    {8,
     {2, 1, 2, 1, 2, 2, 1, 3},
     {24, 0, 12, 0, 6, 3, 0, 1},
     {0, 0, 3, 0, 6, 0, 0, 1},
     {24, 0, 12, 0, 6, 3, 0, 1}},
};

static const kiln_dtype dtypes[] = {KILN_DTYPE_F32,  KILN_DTYPE_F16, KILN_DTYPE_BF16,
                                    KILN_DTYPE_F64,  KILN_DTYPE_U8,  KILN_DTYPE_I8,
                                    KILN_DTYPE_BOOL, KILN_DTYPE_I32, KILN_DTYPE_I64};

/* Small integers, exact in every element type. */
static void poke(void *base, kiln_dtype dtype, int64_t i, int v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    switch (dtype) {
    case KILN_DTYPE_F32:
        ((float *)base)[i] = f;
        break;
    case KILN_DTYPE_F64:
        ((double *)base)[i] = f;
        break;
    case KILN_DTYPE_BF16:
        ((uint16_t *)base)[i] = (uint16_t)(bits >> 16);
        break;
    case KILN_DTYPE_F16:
        ((uint16_t *)base)[i] =
            v == 0 ? 0
                   : (uint16_t)((bits >> 16 & 0x8000) | (((bits >> 13) - (112u << 10)) & 0x7fff));
        break;
    case KILN_DTYPE_U8:
    case KILN_DTYPE_BOOL:
        ((uint8_t *)base)[i] = (uint8_t)v;
        break;
    case KILN_DTYPE_I8:
        ((int8_t *)base)[i] = (int8_t)v;
        break;
    case KILN_DTYPE_I32:
        ((int32_t *)base)[i] = v;
        break;
    default:
        ((int64_t *)base)[i] = v;
        break;
    }
}

static bool holds(const void *base, kiln_dtype dtype, int64_t i, int v) {
    uint64_t want[1] = {0};
    poke(want, dtype, 0, v);
    int bytes = kiln_dtype_bits(dtype) / 8;
    return memcmp(want, (const char *)base + i * bytes, (size_t)bytes) == 0;
}

typedef struct job {
    const kiln_program_prims *prims;
    const kiln_program *p;
    const kiln_program_plan *plan;
    const void *in[2];
    void *out[1];
} job;

static void run_job(void *arg, int64_t b0, int64_t b1) {
    job *j = arg;
    j->prims->run(j->p, j->plan, j->in, j->out, b0, b1);
}

/* x - y with x and y small integers, so that every type is exact. */
static void check_space(int isa, const space *s, kiln_dtype tx, kiln_dtype ty, kiln_dtype to,
                        int ways) {
    enum { ROOM = 20000, ORIGIN = 4000 };
    void *x = guard_bytes(ROOM * 8, 8);
    void *y = guard_bytes(ROOM * 8, 8);
    void *out = guard_bytes(ROOM * 8, 8);
    memset(out, 0x11, ROOM * 8);
    int bx = kiln_dtype_bits(tx) / 8;
    int by = kiln_dtype_bits(ty) / 8;
    int bo = kiln_dtype_bits(to) / 8;
    for (int64_t i = 0; i < ROOM; i++) {
        poke(x, tx, i, tx == KILN_DTYPE_BOOL ? 1 : (int)(2 + i % 5));
        poke(y, ty, i, ty == KILN_DTYPE_BOOL ? (int)(i % 2) : (int)(i % 3));
    }
    const kiln_prog_instr code[] = {{.op = KILN_PROG_SUB, .dst = 2, .a = 0, .b = 1},
                                    {.op = KILN_PROG_ABS, .dst = 2, .a = 2}};
    const kiln_program p = {
        .inputs = 2, .instrs = 2, .outputs = 1, .regs = 3, .instr = code, .output = {2}};
    kiln_prog_view views[3] = {{.dtype = tx}, {.dtype = ty}, {.dtype = to}};
    memcpy(views[0].stride, s->x, sizeof s->x);
    memcpy(views[1].stride, s->y, sizeof s->y);
    memcpy(views[2].stride, s->out, sizeof s->out);
    kiln_program_plan plan;
    assert_int_equal(kiln_program_plan_make(&plan, &p, s->rank, s->dims, views), KILN_OK);
    job j = {prims_of[isa],
             &p,
             &plan,
             {(char *)x + ORIGIN * bx, (char *)y + ORIGIN * by},
             {(char *)out + ORIGIN * bo}};
    in_pieces(plan.blocks, ways, run_job, &j);
    int64_t total = 1;
    for (int32_t d = 0; d < s->rank; d++) {
        total *= s->dims[d];
    }
    for (int64_t i = 0; i < total; i++) {
        int64_t rest = i;
        int64_t ox = ORIGIN;
        int64_t oy = ORIGIN;
        int64_t oo = ORIGIN;
        for (int32_t d = s->rank - 1; d >= 0; d--) {
            int64_t k = rest % s->dims[d];
            rest /= s->dims[d];
            ox += k * s->x[d];
            oy += k * s->y[d];
            oo += k * s->out[d];
        }
        int vx = tx == KILN_DTYPE_BOOL ? 1 : (int)(2 + ox % 5);
        int vy = ty == KILN_DTYPE_BOOL ? (int)(oy % 2) : (int)(oy % 3);
        int want = to == KILN_DTYPE_BOOL ? vx != vy : abs(vx - vy);
        assert_true(holds(out, to, oo, want));
    }
    guard_free(x);
    guard_free(y);
    guard_free(out);
}

static void test_broadcast(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!isa_present(isa)) {
            continue;
        }
        for (size_t k = 0; k < KILN_COUNT_OF(spaces); k++) {
            for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
                check_space(isa, &spaces[k], KILN_DTYPE_F32, KILN_DTYPE_F32, KILN_DTYPE_F32,
                            split_ways[w]);
            }
            for (size_t t = 0; t < KILN_COUNT_OF(dtypes); t++) {
                check_space(isa, &spaces[k], dtypes[t], KILN_DTYPE_F32, KILN_DTYPE_F32, 1);
                check_space(isa, &spaces[k], KILN_DTYPE_F32, dtypes[t], dtypes[(t + 4) % 9], 2);
                check_space(isa, &spaces[k], KILN_DTYPE_F32, KILN_DTYPE_U8, dtypes[t], 1);
            }
        }
    }
}

static void test_in_place_and_two_outputs(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!isa_present(isa)) {
            continue;
        }
        int64_t n = 1801;
        float *x = guard_floats(n, 1);
        float *y = guard_floats(n, 0);
        for (int64_t i = 0; i < n; i++) {
            x[i] = (float)(i - 900);
        }
        const float k = 3.0f;
        const kiln_prog_instr code[] = {{.op = KILN_PROG_MUL, .dst = 2, .a = 0, .b = 1},
                                        {.op = KILN_PROG_RELU, .dst = 3, .a = 2}};
        const kiln_program p = {.inputs = 1,
                                .consts = 1,
                                .instrs = 2,
                                .outputs = 2,
                                .regs = 4,
                                .constant = &k,
                                .instr = code,
                                .output = {3, 2}};
        kiln_prog_view views[3] = {{.dtype = KILN_DTYPE_F32, .stride = {1}},
                                   {.dtype = KILN_DTYPE_F32, .stride = {1}},
                                   {.dtype = KILN_DTYPE_F32, .stride = {1}}};
        kiln_program_plan plan;
        assert_int_equal(kiln_program_plan_make(&plan, &p, 1, &n, views), KILN_OK);
        const void *in[1] = {x};
        void *out[2] = {x, y};
        prims_of[isa]->run(&p, &plan, in, out, 0, plan.blocks);
        for (int64_t i = 0; i < n; i++) {
            float v = 3.0f * (float)(i - 900);
            assert_true(y[i] == v && x[i] == (v > 0 ? v : 0));
        }
        guard_free(x);
        guard_free(y);
    }
}

static void test_refused(void **state) {
    (void)state;
    kiln_prog_instr code = {.op = KILN_PROG_RELU, .dst = 0, .a = 0};
    kiln_program p = {.inputs = 1, .instrs = 1, .outputs = 1, .regs = 2, .instr = &code};
    assert_false(kiln_program_valid(&p)); /* writes an input */
    code.dst = 1;
    assert_true(kiln_program_valid(&p));
    code.a = 2;
    assert_false(kiln_program_valid(&p)); /* reads past the registers */
    code.a = 0;
    int64_t dim = 4;
    kiln_prog_view views[2] = {{.dtype = KILN_DTYPE_C64, .stride = {1}},
                               {.dtype = KILN_DTYPE_F32, .stride = {1}}};
    kiln_program_plan plan;
    assert_int_equal(kiln_program_plan_make(&plan, &p, 1, &dim, views), KILN_E_UNSUPPORTED);
    int64_t dims[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    kiln_prog_view wild[2] = {{.dtype = KILN_DTYPE_F32, .stride = {9, 90, 1, 70, 3, 50, 11, 400}},
                              {.dtype = KILN_DTYPE_F32, .stride = {128, 64, 32, 16, 8, 4, 2, 1}}};
    assert_int_equal(kiln_program_plan_make(&plan, &p, 8, dims, wild), KILN_E_UNSUPPORTED);
    dim = 0;
    views[0].dtype = KILN_DTYPE_F32;
    assert_int_equal(kiln_program_plan_make(&plan, &p, 1, &dim, views), KILN_OK);
    assert_int_equal(plan.blocks, 0);
}

/* ---- the matrix hook ---- */

static void check_post(int isa, int64_t rows, int64_t cols) {
    enum { ROW0 = 3, COL0 = 2, LDC = 1100, LDM = 1107 };
    float *c = guard_floats((rows + ROW0) * LDC, 1);
    float *m = guard_floats((rows + ROW0) * LDM, 0);
    float *bias = guard_floats(LDC, 0);
    float *scale = guard_floats(rows + ROW0, 0);
    rng r = {.state = 5};
    rng_fill(&r, c, (rows + ROW0) * LDC, -1, 1);
    rng_fill(&r, m, (rows + ROW0) * LDM, -1, 1);
    rng_fill(&r, bias, LDC, -1, 1);
    rng_fill(&r, scale, rows + ROW0, -1, 1);
    float *before = guard_floats((rows + ROW0) * LDC, 0);
    memcpy(before, c, (size_t)((rows + ROW0) * LDC) * sizeof *c);
    const float half = 0.5f;
    const kiln_prog_instr code[] = {{.op = KILN_PROG_ADD, .dst = 5, .a = 0, .b = 1},
                                    {.op = KILN_PROG_MUL, .dst = 5, .a = 5, .b = 2},
                                    {.op = KILN_PROG_ADD, .dst = 5, .a = 5, .b = 3},
                                    {.op = KILN_PROG_MUL, .dst = 5, .a = 5, .b = 4}};
    const kiln_program p = {
        .inputs = 5, .instrs = 4, .outputs = 1, .regs = 6, .instr = code, .output = {5}};
    kiln_program_post_args args = {.program = &p,
                                   .in = {{KILN_POST_SELF, NULL, 0},
                                          {KILN_POST_COLUMNS, bias, 0},
                                          {KILN_POST_ROWS, scale, 0},
                                          {KILN_POST_MATRIX, m, LDM},
                                          {KILN_POST_SCALAR, &half, 0}}};
    prims_of[isa]->post(&args, c + ROW0 * LDC + COL0, LDC, ROW0, rows, COL0, cols);
    for (int64_t i = 0; i < rows + ROW0; i++) {
        for (int64_t j = 0; j < LDC; j++) {
            float want = before[i * LDC + j];
            if (i >= ROW0 && j >= COL0 && j < COL0 + cols) {
                want = ((want + bias[j]) * scale[i] + m[i * LDM + j]) * half;
            }
            assert_true(c[i * LDC + j] == want);
        }
    }
    guard_free(c);
    guard_free(m);
    guard_free(bias);
    guard_free(scale);
    guard_free(before);
}

static void test_post(void **state) {
    (void)state;
    const int64_t sizes[][2] = {{1, 1}, {6, 16}, {5, 33}, {50, 100}, {3, 512}, {2, 1029}, {200, 3}};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(sizes); k++) {
            check_post(isa, sizes[k][0], sizes[k][1]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops),       cmocka_unit_test(test_pow_fast),
        cmocka_unit_test(test_broadcast), cmocka_unit_test(test_in_place_and_two_outputs),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_post),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
