/* program_simd.c - the register machine of program.h.
 *
 * One function per opcode runs it over a block; a table finds it. Inputs that are contiguous
 * float32 are not copied: their register points into the tensor. Likewise the last instruction
 * writes straight into a contiguous float32 output.
 */
#include "backend/cpu/prims/program.h"
#include "backend/cpu/prims/vecmath.h"

typedef void (*op_fn)(float *d, const float *a, const float *b, const float *c,
                      const kiln_prog_instr *in, int64_t n);

/* The three shapes of opcode. x, y, z are the operands' vectors, P and Q the immediates. */
#define OP_SIGNATURE(name)                                                          \
    static void op_##name(float *d, const float *a, const float *b, const float *c, \
                          const kiln_prog_instr *in, int64_t n)
#define OP_PROLOGUE                     \
    const kiln_vf P = vf_set1(in->p);   \
    const kiln_vf Q = vf_set1(in->q);   \
    (void)P, (void)Q, (void)b, (void)c; \
    int64_t i = 0;
#define OP1(name, expr)                              \
    OP_SIGNATURE(name) {                             \
        OP_PROLOGUE                                  \
        for (; i + KILN_VLEN <= n; i += KILN_VLEN) { \
            kiln_vf x = vf_load(a + i);              \
            vf_store(d + i, expr);                   \
        }                                            \
        if (i < n) {                                 \
            kiln_vf x = vf_load_tail(a + i, n - i);  \
            vf_store_tail(d + i, n - i, expr);       \
        }                                            \
    }
/* The same by a form for several vectors: f(v, count) works on v[0] to v[count - 1]. */
#define OP1_N(name, f)                                                           \
    OP_SIGNATURE(name) {                                                         \
        OP_PROLOGUE                                                              \
        kiln_vf v[VF_TOGETHER];                                                  \
        for (; i + VF_TOGETHER * KILN_VLEN <= n; i += VF_TOGETHER * KILN_VLEN) { \
            KILN_UNROLL(4) for (int k = 0; k < VF_TOGETHER; k++) {               \
                v[k] = vf_load(a + i + k * KILN_VLEN);                           \
            }                                                                    \
            f(v, VF_TOGETHER);                                                   \
            KILN_UNROLL(4) for (int k = 0; k < VF_TOGETHER; k++) {               \
                vf_store(d + i + k * KILN_VLEN, v[k]);                           \
            }                                                                    \
        }                                                                        \
        for (; i < n; i += KILN_VLEN) {                                          \
            v[0] = vf_load_upto(a + i, n - i);                                   \
            f(v, 1);                                                             \
            vf_store_upto(d + i, n - i, v[0]);                                   \
        }                                                                        \
    }
#define OP2(name, expr)                              \
    OP_SIGNATURE(name) {                             \
        OP_PROLOGUE                                  \
        for (; i + KILN_VLEN <= n; i += KILN_VLEN) { \
            kiln_vf x = vf_load(a + i);              \
            kiln_vf y = vf_load(b + i);              \
            vf_store(d + i, expr);                   \
        }                                            \
        if (i < n) {                                 \
            kiln_vf x = vf_load_tail(a + i, n - i);  \
            kiln_vf y = vf_load_tail(b + i, n - i);  \
            vf_store_tail(d + i, n - i, expr);       \
        }                                            \
    }
#define OP3(name, expr)                              \
    OP_SIGNATURE(name) {                             \
        OP_PROLOGUE                                  \
        for (; i + KILN_VLEN <= n; i += KILN_VLEN) { \
            kiln_vf x = vf_load(a + i);              \
            kiln_vf y = vf_load(b + i);              \
            kiln_vf z = vf_load(c + i);              \
            vf_store(d + i, expr);                   \
        }                                            \
        if (i < n) {                                 \
            kiln_vf x = vf_load_tail(a + i, n - i);  \
            kiln_vf y = vf_load_tail(b + i, n - i);  \
            kiln_vf z = vf_load_tail(c + i, n - i);  \
            vf_store_tail(d + i, n - i, expr);       \
        }                                            \
    }
/* Rare functions: libm, element by element. */
#define OP_LIBM1(name, fn)                \
    OP_SIGNATURE(name) {                  \
        (void)b, (void)c, (void)in;       \
        for (int64_t i = 0; i < n; i++) { \
            d[i] = fn(a[i]);              \
        }                                 \
    }
#define OP_LIBM2(name, fn)                \
    OP_SIGNATURE(name) {                  \
        (void)c, (void)in;                \
        for (int64_t i = 0; i < n; i++) { \
            d[i] = fn(a[i], b[i]);        \
        }                                 \
    }

#define ONE vf_set1(1.0f)
#define TRUTH(m) vf_select(m, ONE, vf_zero())
#define IS_TRUE(x) vf_ne(x, vf_zero())

static float python_mod(float x, float y) {
    float r = fmodf(x, y);
    if (r != 0.0f && (r < 0.0f) != (y < 0.0f)) {
        r += y;
    }
    return r == 0.0f ? copysignf(0.0f, y) : r;
}

KILN_INLINE kiln_vf elu(kiln_vf x, kiln_vf alpha) {
    return vf_select(vf_lt(x, vf_zero()), vf_mul(alpha, vf_expm1(vf_min(vf_zero(), x))), x);
}

KILN_INLINE kiln_vf celu(kiln_vf x, kiln_vf alpha) {
    kiln_vf low = vf_mul(alpha, vf_expm1(vf_div(x, alpha)));
    return vf_add(vf_max(vf_zero(), x), vf_min(vf_zero(), low));
}

KILN_INLINE kiln_vf shrink(kiln_vf x, kiln_vf lambd, kiln_vf bias) {
    kiln_vf y = vf_select(vf_lt(x, vf_neg(lambd)), vf_add(x, bias), vf_zero());
    return vf_select(vf_gt(x, lambd), vf_sub(x, bias), y);
}

KILN_INLINE kiln_vf sign(kiln_vf x) {
    kiln_vf y = vf_copysign(ONE, x);
    return vf_select(vf_eq(x, vf_zero()), vf_zero(), vf_select(vf_isnan(x), x, y));
}

KILN_INLINE kiln_vf isinf_signed(kiln_vf x, kiln_vf minus, kiln_vf plus) {
    kiln_vm lo = vm_and(vf_eq(x, vf_set1(-INFINITY)), IS_TRUE(minus));
    kiln_vm hi = vm_and(vf_eq(x, vf_set1(INFINITY)), IS_TRUE(plus));
    return TRUTH(vm_or(lo, hi));
}

/* QuantizeLinear: a true division, halves to even, NaN as 0. */
KILN_INLINE kiln_vf quantize(kiln_vf x, kiln_vf scale, kiln_vf zero, float lo, float hi) {
    kiln_vf v = vf_div(x, scale);
    v = vf_select(vf_isnan(v), vf_zero(), vf_round(v));
    return vf_clamp(vf_add(v, zero), vf_set1(lo), vf_set1(hi));
}

OP1(COPY, x)
OP2(ADD, vf_add(x, y))
OP2(SUB, vf_sub(x, y))
OP2(MUL, vf_mul(x, y))
OP2(DIV, vf_div(x, y))
OP2(MIN, vf_min_nan(x, y))
OP2(MAX, vf_max_nan(x, y))
OP_LIBM2(FMOD, fmodf)
OP_LIBM2(MOD, python_mod)
OP3(FMA, vf_fma(x, y, z))
OP1(AXPB, vf_fma(P, x, Q))
OP1(NEG, vf_neg(x))
OP1(ABS, vf_abs(x))
OP1(SQRT, vf_sqrt(x))
OP1(RSQRT, vf_div(ONE, vf_sqrt(x)))
OP1(RECIPROCAL, vf_div(ONE, x))
OP1_N(EXP, vf_exp_n)
OP1(LOG, vf_log(x))
OP1(LOG1P, vf_log1p(x))
OP1(EXPM1, vf_expm1(x))
OP1_N(TANH, vf_tanh_n)
OP1_N(SIGMOID, vf_sigmoid_n)
OP1_N(ERF, vf_erf_n)
OP1_N(GELU, vf_gelu_n)
OP1_N(GELU_TANH, vf_gelu_tanh_n)
#define SILU_N(v, count) vf_silu_n(v, count, P)
OP1_N(SILU, SILU_N)
OP1(HARDSIGMOID, vf_clamp(vf_fma(P, x, Q), vf_zero(), ONE))
OP1(HARDSWISH, vf_hard_swish(x))
OP1(MISH, vf_mish(x))
OP1(SOFTPLUS, vf_softplus(x))
OP1(SOFTSIGN, vf_div(x, vf_add(ONE, vf_abs(x))))
OP1(ELU, elu(x, P))
OP1(SELU, vf_mul(Q, elu(x, P)))
OP1(CELU, celu(x, P))
OP1(LEAKYRELU, vf_select(vf_lt(x, vf_zero()), vf_mul(P, x), x))
OP1(THRESHOLDEDRELU, vf_select(vf_gt(x, P), x, vf_zero()))
OP1(SHRINK, shrink(x, P, Q))
OP2(PRELU, vf_select(vf_lt(x, vf_zero()), vf_mul(x, y), x))
OP1(RELU, vf_max(vf_zero(), x))
OP1(CLIP, vf_clamp(x, P, Q))
OP1(FLOOR, vf_floor(x))
OP1(CEIL, vf_ceil(x))
OP1(ROUND, vf_round(x))
OP1(TRUNC, vf_truncate(x))
OP1(SIGN, sign(x))
OP1(SIN, vf_sin(x))
OP1(COS, vf_cos(x))
OP_LIBM1(TAN, tanf)
OP_LIBM1(ASIN, asinf)
OP_LIBM1(ACOS, acosf)
OP_LIBM1(ATAN, atanf)
OP_LIBM1(SINH, sinhf)
OP_LIBM1(COSH, coshf)
OP_LIBM1(ASINH, asinhf)
OP_LIBM1(ACOSH, acoshf)
OP_LIBM1(ATANH, atanhf)
OP2(EQ, TRUTH(vf_eq(x, y)))
OP2(NE, TRUTH(vf_ne(x, y)))
OP2(LT, TRUTH(vf_lt(x, y)))
OP2(LE, TRUTH(vf_le(x, y)))
OP2(GT, TRUTH(vf_gt(x, y)))
OP2(GE, TRUTH(vf_ge(x, y)))
OP1(NOT, TRUTH(vf_eq(x, vf_zero())))
OP2(AND, TRUTH(vm_and(IS_TRUE(x), IS_TRUE(y))))
OP2(OR, TRUTH(vm_or(IS_TRUE(x), IS_TRUE(y))))
OP2(XOR, vf_sub(TRUTH(vm_or(IS_TRUE(x), IS_TRUE(y))), TRUTH(vm_and(IS_TRUE(x), IS_TRUE(y)))))
OP3(WHERE, vf_select(IS_TRUE(x), y, z))
OP1(ISNAN, TRUTH(vf_isnan(x)))
OP1(ISINF, isinf_signed(x, P, Q))
OP1(DEQUANT, vf_mul(vf_sub(x, Q), P))
OP3(DEQUANT_BY, vf_mul(vf_sub(x, z), y))
OP1(QUANT_U8, quantize(x, P, Q, 0.0f, 255.0f))
OP3(QUANT_U8_BY, quantize(x, y, z, 0.0f, 255.0f))
OP1(QUANT_S8, quantize(x, P, Q, -128.0f, 127.0f))
OP3(QUANT_S8_BY, quantize(x, y, z, -128.0f, 127.0f))

/* x^0.5 differs from sqrt at -0 and -inf. */
OP1(pow_half,
    vf_select(vf_eq(x, vf_set1(-INFINITY)), vf_set1(INFINITY), vf_sqrt(vf_add(x, vf_zero()))))
OP1(square, vf_mul(x, x))
OP1(cube, vf_mul(vf_mul(x, x), x))
OP_LIBM2(pow_any, powf)

OP_SIGNATURE(POW) {
    static const struct {
        float exponent;
        op_fn fn;
    } fast[] = {{2.0f, op_square},
                {0.5f, op_pow_half},
                {3.0f, op_cube},
                {1.0f, op_COPY},
                {-1.0f, op_RECIPROCAL}};
    bool uniform = true;
    for (int64_t i = 1; i < n; i++) {
        uniform = uniform && b[i] == b[0];
    }
    for (size_t k = 0; uniform && k < KILN_COUNT_OF(fast); k++) {
        if (b[0] == fast[k].exponent) {
            fast[k].fn(d, a, b, c, in, n);
            return;
        }
    }
    op_pow_any(d, a, b, c, in, n);
}

#define OP_ENTRY(name, operands) op_##name,
static const op_fn op_table[] = {KILN_PROG_OPS(OP_ENTRY)};

/* Element types: read_* fills n floats from elements `stride` apart, write_* is the inverse. The
 * saturating bounds keep conversions defined for every float. */
typedef void (*read_fn)(float *d, const void *src, int64_t stride, int64_t n);
typedef void (*write_fn)(void *dst, const float *s, int64_t stride, int64_t n);
/* Bytes, dequantized and quantized on the way. */
typedef void (*dequantize_fn)(float *d, const void *src, int64_t stride, int64_t n,
                              kiln_prog_affine a);
typedef void (*quantize_fn)(void *dst, const float *s, int64_t stride, int64_t n,
                            kiln_prog_affine a);

static float saturate(float x, float lo, float hi) {
    return x > lo ? (x < hi ? x : hi) : lo;
}

#define READER(name, type)                                                          \
    static void read_##name(float *d, const void *src, int64_t stride, int64_t n) { \
        const type *s = src;                                                        \
        if (stride == 1) {                                                          \
            for (int64_t i = 0; i < n; i++) {                                       \
                d[i] = (float)s[i];                                                 \
            }                                                                       \
            return;                                                                 \
        }                                                                           \
        for (int64_t i = 0; i < n; i++) {                                           \
            d[i] = (float)s[i * stride];                                            \
        }                                                                           \
    }
#define WRITER(name, type, expr)                                                     \
    static void write_##name(void *dst, const float *s, int64_t stride, int64_t n) { \
        type *d = dst;                                                               \
        for (int64_t i = 0; i < n; i++) {                                            \
            float x = s[i];                                                          \
            d[i * stride] = (type)(expr);                                            \
        }                                                                            \
    }
READER(f32, float)
READER(f64, double)
READER(i32, int32_t)
READER(i64, int64_t)
WRITER(f32, float, x)
WRITER(f64, double, x)
WRITER(bool, uint8_t, x != 0.0f)
WRITER(i32, int32_t, (int64_t)saturate(x, -2147483648.0f, 2147483520.0f))
WRITER(i64, int64_t, saturate(x, -0x1p63f, 0x1.fffffep62f))

static void read_bool(float *d, const void *src, int64_t stride, int64_t n) {
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) {
        d[i] = s[i * stride] != 0 ? 1.0f : 0.0f;
    }
}

KILN_INLINE kiln_vf from_byte(kiln_vf x, kiln_prog_affine a) {
    bool plain = a.scale == 0.0f;
    return plain ? x : vf_mul(vf_sub(x, vf_set1(a.zero)), vf_set1(a.scale));
}
/* vf_max gives its second operand for NaN: the lower bound, as saturate does. */
KILN_INLINE kiln_vf to_byte(kiln_vf x, kiln_prog_affine a, float lo, float hi) {
    bool plain = a.scale == 0.0f;
    return plain ? vf_min(vf_max(x, vf_set1(lo)), vf_set1(hi))
                 : quantize(x, vf_set1(a.scale), vf_set1(a.zero), lo, hi);
}

#define BYTE_IO(name, type, load, store, lo, hi)                                        \
    static void dequantize_##name(float *d, const void *src, int64_t stride, int64_t n, \
                                  kiln_prog_affine a) {                                 \
        const type *s = src;                                                            \
        int64_t i = 0;                                                                  \
        for (; stride == 1 && i + KILN_VLEN <= n; i += KILN_VLEN) {                     \
            vf_store(d + i, from_byte(vf_from_vi(load(s + i)), a));                     \
        }                                                                               \
        for (; i < n; i++) {                                                            \
            d[i] = from_byte(vf_set1((float)s[i * stride]), a)[0];                      \
        }                                                                               \
    }                                                                                   \
    static void quantize_##name(void *dst, const float *s, int64_t stride, int64_t n,   \
                                kiln_prog_affine a) {                                   \
        type *d = dst;                                                                  \
        int64_t i = 0;                                                                  \
        for (; stride == 1 && i + KILN_VLEN <= n; i += KILN_VLEN) {                     \
            store(d + i, vi_trunc(to_byte(vf_load(s + i), a, lo, hi)));                 \
        }                                                                               \
        for (; i < n; i++) {                                                            \
            d[i * stride] = (type)to_byte(vf_set1(s[i]), a, lo, hi)[0];                 \
        }                                                                               \
    }                                                                                   \
    static void read_##name(float *d, const void *src, int64_t stride, int64_t n) {     \
        dequantize_##name(d, src, stride, n, (kiln_prog_affine){0});                    \
    }                                                                                   \
    static void write_##name(void *dst, const float *s, int64_t stride, int64_t n) {    \
        quantize_##name(dst, s, stride, n, (kiln_prog_affine){0});                      \
    }
BYTE_IO(u8, uint8_t, vi_load_u8, vi_store_u8, 0.0f, 255.0f)
BYTE_IO(i8, int8_t, vi_load_s8, vi_store_s8, -128.0f, 127.0f)

#define HALF_IO(name)                                                                \
    static void read_##name(float *d, const void *src, int64_t stride, int64_t n) {  \
        const uint16_t *s = src;                                                     \
        int64_t i = 0;                                                               \
        for (; stride == 1 && i + KILN_VLEN <= n; i += KILN_VLEN) {                  \
            vf_store(d + i, vf_load_##name(s + i));                                  \
        }                                                                            \
        for (; i < n; i++) {                                                         \
            d[i] = vf_load_##name##_tail(s + i * stride, 1)[0];                      \
        }                                                                            \
    }                                                                                \
    static void write_##name(void *dst, const float *s, int64_t stride, int64_t n) { \
        uint16_t *d = dst;                                                           \
        int64_t i = 0;                                                               \
        for (; stride == 1 && i + KILN_VLEN <= n; i += KILN_VLEN) {                  \
            vf_store_##name(d + i, vf_load(s + i));                                  \
        }                                                                            \
        for (; i < n; i++) {                                                         \
            vf_store_##name##_tail(d + i * stride, 1, vf_set1(s[i]));                \
        }                                                                            \
    }
HALF_IO(f16)
HALF_IO(bf16)

typedef struct element_io {
    read_fn read;
    write_fn write;
    int64_t bytes;
    dequantize_fn dequantize;
    quantize_fn quantize;
} element_io;

static const element_io io_table[KILN_DTYPE_COUNT] = {
    [KILN_DTYPE_F32] = {read_f32, write_f32, 4, NULL, NULL},
    [KILN_DTYPE_F64] = {read_f64, write_f64, 8, NULL, NULL},
    [KILN_DTYPE_F16] = {read_f16, write_f16, 2, NULL, NULL},
    [KILN_DTYPE_BF16] = {read_bf16, write_bf16, 2, NULL, NULL},
    [KILN_DTYPE_U8] = {read_u8, write_u8, 1, dequantize_u8, quantize_u8},
    [KILN_DTYPE_I8] = {read_i8, write_i8, 1, dequantize_i8, quantize_i8},
    [KILN_DTYPE_BOOL] = {read_bool, write_bool, 1, NULL, NULL},
    [KILN_DTYPE_I32] = {read_i32, write_i32, 4, NULL, NULL},
    [KILN_DTYPE_I64] = {read_i64, write_i64, 8, NULL, NULL},
};

/* Which part of the space a block covers: rows of `cols` elements from column col of row0 on. */
typedef struct extent {
    int64_t row0, rows, col, cols;
} extent;

static extent block_extent(const kiln_program_plan *plan, int64_t block) {
    int64_t inner = plan->dims[plan->rank - 1];
    extent e = {.row0 = block, .rows = 1, .col = 0, .cols = inner};
    if (plan->chunks == 1) {
        e.row0 = block * plan->rows;
        e.rows = plan->rows < plan->outer - e.row0 ? plan->rows : plan->outer - e.row0;
    } else {
        e.row0 = block / plan->chunks;
        e.col = block % plan->chunks * plan->chunk;
        e.cols = plan->chunk < inner - e.col ? plan->chunk : inner - e.col;
    }
    return e;
}

/* Steps through the rows of the space: the offset of the current row in one view. */
typedef struct row_walk {
    int64_t index[KILN_PROG_RANK];
    int64_t offset;
} row_walk;

static row_walk walk_begin(const kiln_program_plan *plan, const int64_t *stride, int64_t row) {
    row_walk w = {.offset = 0};
    for (int32_t d = plan->rank - 2; d >= 0; d--) {
        w.index[d] = row % plan->dims[d];
        row /= plan->dims[d];
        w.offset += w.index[d] * stride[d];
    }
    return w;
}

static void walk_next(row_walk *w, const kiln_program_plan *plan, const int64_t *stride) {
    for (int32_t d = plan->rank - 2; d >= 0; d--) {
        w->offset += stride[d];
        if (++w->index[d] < plan->dims[d]) {
            return;
        }
        w->offset -= stride[d] * plan->dims[d];
        w->index[d] = 0;
    }
}

/* The block's first element, for views that are contiguous over a block. */
static int64_t line_offset(const kiln_program_plan *plan, const kiln_prog_port *port, extent e) {
    if (port->access == KILN_PROG_FLAT) {
        return e.row0 * plan->dims[plan->rank - 1] + e.col;
    }
    return walk_begin(plan, port->stride, e.row0).offset + e.col;
}

static bool contiguous(const kiln_prog_port *port) {
    return port->access == KILN_PROG_FLAT || port->access == KILN_PROG_LINES;
}

static void read_line(float *reg, const element_io *io, const void *src, int64_t stride, int64_t n,
                      kiln_prog_affine a) {
    if (a.scale != 0.0f) {
        io->dequantize(reg, src, stride, n, a);
    } else {
        io->read(reg, src, stride, n);
    }
}

static void write_line(void *dst, const element_io *io, const float *reg, int64_t stride, int64_t n,
                       kiln_prog_affine a) {
    if (a.scale != 0.0f) {
        io->quantize(dst, reg, stride, n, a);
    } else {
        io->write(dst, reg, stride, n);
    }
}

static void fill(float *reg, const kiln_program_plan *plan, const kiln_prog_port *port,
                 const void *base, extent e, kiln_prog_affine a) {
    const element_io *io = &io_table[port->dtype];
    if (contiguous(port)) {
        const char *src = (const char *)base + line_offset(plan, port, e) * io->bytes;
        read_line(reg, io, src, 1, e.rows * e.cols, a);
        return;
    }
    int64_t stride = port->stride[plan->rank - 1];
    row_walk w = walk_begin(plan, port->stride, e.row0);
    for (int64_t r = 0; r < e.rows; r++) {
        const char *src = (const char *)base + (w.offset + e.col * stride) * io->bytes;
        read_line(reg + r * e.cols, io, src, stride, e.cols, a);
        walk_next(&w, plan, port->stride);
    }
}

static void drain(const float *reg, const kiln_program_plan *plan, const kiln_prog_port *port,
                  void *base, extent e, kiln_prog_affine a) {
    const element_io *io = &io_table[port->dtype];
    if (contiguous(port)) {
        char *dst = (char *)base + line_offset(plan, port, e) * io->bytes;
        write_line(dst, io, reg, 1, e.rows * e.cols, a);
        return;
    }
    int64_t stride = port->stride[plan->rank - 1];
    row_walk w = walk_begin(plan, port->stride, e.row0);
    for (int64_t r = 0; r < e.rows; r++) {
        char *dst = (char *)base + (w.offset + e.col * stride) * io->bytes;
        write_line(dst, io, reg + r * e.cols, stride, e.cols, a);
        walk_next(&w, plan, port->stride);
    }
}

typedef struct machine {
    const float *in[KILN_PROG_REGS]; /* where each register is read */
    float *own[KILN_PROG_REGS];      /* where each register is written: its block of `store` */
    float store[KILN_PROG_REGS][KILN_PROG_BLOCK] KILN_ALIGNED(64);
} machine;

/* Registers at home, constants filled. */
static void machine_begin(machine *m, const kiln_program *p) {
    for (int32_t r = 0; r < KILN_PROG_REGS; r++) {
        m->own[r] = m->store[r];
        m->in[r] = m->store[r];
    }
    for (int32_t k = 0; k < p->consts; k++) {
        float *reg = m->store[p->inputs + k];
        kiln_vf v = vf_set1(p->constant[k]);
        for (int64_t i = 0; i < KILN_PROG_BLOCK; i += KILN_VLEN) {
            vf_store(reg + i, v);
        }
    }
}

static void execute(machine *m, const kiln_program *p, float *direct, int64_t n) {
    for (int32_t i = 0; i < p->instrs; i++) {
        const kiln_prog_instr *in = &p->instr[i];
        float *d = direct != NULL && i == p->instrs - 1 ? direct : m->own[in->dst];
        op_table[in->op](d, m->in[in->a % KILN_PROG_REGS], m->in[in->b % KILN_PROG_REGS],
                         m->in[in->c % KILN_PROG_REGS], in, n);
    }
}

/* The output that the last instruction may write in place of its register, or -1. */
static int32_t direct_output(const kiln_program *p, const kiln_program_plan *plan) {
    if (p->outputs != 1 || p->instrs == 0 || p->output[0] != p->instr[p->instrs - 1].dst) {
        return -1;
    }
    bool direct = plan->out[0].dtype == KILN_DTYPE_F32 && contiguous(&plan->out[0]);
    return direct ? 0 : -1;
}

static void run(const kiln_program *p, const kiln_program_plan *plan, const void *const *in,
                void *const *out, int64_t block0, int64_t block1) {
    machine m;
    machine_begin(&m, p);
    int32_t direct = direct_output(p, plan);
    for (int32_t k = 0; k < p->inputs && block0 < block1; k++) {
        if (plan->in[k].access == KILN_PROG_ONCE) {
            extent e = {.rows = plan->rows, .cols = plan->chunk};
            fill(m.store[k], plan, &plan->in[k], in[k], e, p->load[k]);
        }
    }
    for (int64_t block = block0; block < block1; block++) {
        extent e = block_extent(plan, block);
        for (int32_t k = 0; k < p->inputs; k++) {
            const kiln_prog_port *port = &plan->in[k];
            if (port->dtype == KILN_DTYPE_F32 && contiguous(port)) {
                m.in[k] = (const float *)in[k] + line_offset(plan, port, e);
            } else if (port->access != KILN_PROG_ONCE) {
                fill(m.store[k], plan, port, in[k], e, p->load[k]);
            }
        }
        float *target = direct < 0 ? NULL : (float *)out[0] + line_offset(plan, &plan->out[0], e);
        execute(&m, p, target, e.rows * e.cols);
        for (int32_t k = 0; k < p->outputs && direct < 0; k++) {
            kiln_prog_affine none = {0};
            drain(m.in[p->output[k]], plan, &plan->out[k], out[k], e, k == 0 ? p->store : none);
        }
    }
}

/* One piece of a matrix block: `rows` rows of `cols` columns packed in a register. */
typedef struct patch {
    float *c;
    int64_t ldc, row, rows, col, cols;
} patch;

static void post_input(machine *m, int32_t k, const kiln_post_operand *o, const patch *p) {
    float *reg = m->store[k];
    if (o->kind == KILN_POST_SCALAR || (o->kind == KILN_POST_ROWS && p->rows == 1)) {
        read_f32(reg, o->data + (o->kind == KILN_POST_ROWS ? p->row : 0), 0, p->rows * p->cols);
        return;
    }
    const float *src = p->c;
    int64_t ld = p->ldc;
    if (o->kind == KILN_POST_COLUMNS) {
        src = o->data + p->col;
        ld = 0;
    } else if (o->kind == KILN_POST_MATRIX) {
        src = o->data + p->row * o->ld + p->col;
        ld = o->ld;
    }
    if (o->kind == KILN_POST_ROWS) {
        for (int64_t r = 0; r < p->rows; r++) {
            read_f32(reg + r * p->cols, o->data + p->row + r, 0, p->cols);
        }
        return;
    }
    if (p->rows == 1) {
        m->in[k] = src;
        return;
    }
    for (int64_t r = 0; r < p->rows; r++) {
        memcpy(reg + r * p->cols, src + r * ld, (size_t)p->cols * sizeof(float));
    }
}

static void post_patch(machine *m, const kiln_program_post_args *args, const patch *p) {
    const kiln_program *program = args->program;
    for (int32_t k = 0; k < program->inputs; k++) {
        post_input(m, k, &args->in[k], p);
    }
    bool last =
        program->instrs > 0 && program->output[0] == program->instr[program->instrs - 1].dst;
    bool direct = last && p->rows == 1 && !args->narrow;
    execute(m, program, direct ? p->c : NULL, p->rows * p->cols);
    const float *result = m->in[program->output[0]];
    for (int64_t r = 0; r < p->rows && !direct; r++, result += p->cols) {
        if (args->narrow) {
            const element_io *io = &io_table[args->narrow_type];
            const int64_t at = (p->row + r) * args->ld_narrow + p->col;
            write_line((char *)args->narrow + at * io->bytes, io, result, 1, p->cols,
                       program->store);
        } else {
            memmove(p->c + r * p->ldc, result, (size_t)p->cols * sizeof(float));
        }
    }
}

/* All operands lie row after row without gaps, and none goes along columns or rows: the block is as
 * good as one long row. */
static bool is_dense(const kiln_program_post_args *args, int64_t ldc, int64_t col0, int64_t cols) {
    bool dense = ldc == cols && col0 == 0 && (!args->narrow || args->ld_narrow == cols);
    for (int32_t k = 0; k < args->program->inputs && dense; k++) {
        const kiln_post_operand *o = &args->in[k];
        dense = o->kind == KILN_POST_SELF || o->kind == KILN_POST_SCALAR ||
                (o->kind == KILN_POST_MATRIX && o->ld == cols);
    }
    return dense;
}

/* One function of the block itself: it needs no registers. */
static bool is_map(const kiln_program_post_args *args) {
    const kiln_program *p = args->program;
    return p->inputs == 1 && p->consts == 0 && p->instrs == 1 && !args->narrow &&
           p->output[0] == p->instr[0].dst;
}

/* Narrow blocks are packed, several rows to a register; wide ones go row by row in place. */
static void post(const void *arg, float *c, int64_t ldc, int64_t row0, int64_t rows, int64_t col0,
                 int64_t cols) {
    const kiln_program_post_args *args = arg;
    if (is_dense(args, ldc, col0, cols)) {
        col0 = row0 * cols;
        cols *= rows;
        row0 = 0;
        rows = 1;
    }
    if (is_map(args)) {
        const kiln_prog_instr *in = args->program->instr;
        for (int64_t i = 0; i < rows; i++) {
            op_table[in->op](c + i * ldc, c + i * ldc, c + i * ldc, c + i * ldc, in, cols);
        }
        return;
    }
    machine m;
    machine_begin(&m, args->program);
    int64_t width = cols < KILN_PROG_BLOCK ? cols : KILN_PROG_BLOCK;
    int64_t height = cols >= KILN_PROG_BLOCK / 4 ? 1 : KILN_PROG_BLOCK / (cols > 0 ? cols : 1);
    for (int64_t i = 0; i < rows; i += height) {
        for (int64_t j = 0; j < cols; j += width) {
            patch p = {.c = c + i * ldc + j,
                       .ldc = ldc,
                       .row = row0 + i,
                       .rows = height < rows - i ? height : rows - i,
                       .col = col0 + j,
                       .cols = width < cols - j ? width : cols - j};
            for (int32_t k = 0; k < args->program->inputs; k++) {
                m.in[k] = m.store[k];
            }
            post_patch(&m, args, &p);
        }
    }
}

const kiln_program_prims KILN_ISA_SYMBOL(kiln_program_prims) = {.run = run, .post = post};
