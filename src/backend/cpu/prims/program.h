/* program.h - an elementwise chain run as one block-wise program.
 *
 * A program is a list of instructions over registers; a register is a block of up to
 * KILN_PROG_BLOCK floats that stays in the first-level cache. A chain of any length therefore reads
 * each input once and writes each output once, whatever broadcasting or element types are involved.
 *
 * Registers are numbered: inputs first, then constants, then temporaries. Instructions write
 * temporaries only; outputs name any register. y = relu(x * scale + 1):
 *
 *     const float one = 1.0f;
 *     const kiln_prog_instr code[] = {
 *         {.op = KILN_PROG_FMA, .dst = 3, .a = 0, .b = 1, .c = 2},
 *         {.op = KILN_PROG_RELU, .dst = 3, .a = 3},
 *     };
 *     const kiln_program p = {.inputs = 2, .consts = 1, .instrs = 2, .outputs = 1, .regs = 4,
 *                             .constant = &one, .instr = code, .output = {3}};
 *     kiln_program_plan plan;
 *     kiln_program_plan_make(&plan, &p, rank, dims, views);         views: x, scale, y
 *     prims->run(&p, &plan, in, out, 0, plan.blocks);                 or any ranges covering it
 *
 * Inputs are read, converted to float32, and outputs converted from it, by the view's element type:
 * F32, F16, BF16, F64, U8, I8, BOOL, I32, I64 (32- and 64-bit integers are exact below 2^24 only).
 * Strides are in elements, any sign, 0 for broadcasting; so numpy broadcasting is a matter of
 * strides.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_PROGRAM_H
#define KILN_BACKEND_CPU_PRIMS_PROGRAM_H

#include "base/compiler.h"

enum {
    KILN_PROG_BLOCK = 512, /* floats in one register */
    KILN_PROG_REGS = 24,
    KILN_PROG_INPUTS = 12,
    KILN_PROG_OUTPUTS = 4,
    KILN_PROG_RANK = 6, /* dims left after collapsing */
};

/* Instructions, as X(NAME, operands). p and q are the instruction's immediates. Comparisons and
 * logic give 1.0 or 0.0; logic takes any non-zero as true. */
#define KILN_PROG_OPS(X)                                                            \
    X(COPY, 1)            /* a */                                                   \
    X(ADD, 2)             /* a + b */                                               \
    X(SUB, 2)             /* a - b */                                               \
    X(MUL, 2)             /* a * b */                                               \
    X(DIV, 2)             /* a / b */                                               \
    X(POW, 2)             /* a ^ b; exact powers 1, 2, 3, -1 and 0.5 are fast */    \
    X(MIN, 2)             /* NaN if either is */                                    \
    X(MAX, 2)             /* NaN if either is */                                    \
    X(FMOD, 2)            /* C fmod: sign of a */                                   \
    X(MOD, 2)             /* numpy mod: sign of b */                                \
    X(FMA, 3)             /* a * b + c */                                           \
    X(AXPB, 1)            /* p * a + q */                                           \
    X(NEG, 1)             /* -a */                                                  \
    X(ABS, 1)             /* |a| */                                                 \
    X(SQRT, 1)            /* square root */                                         \
    X(RSQRT, 1)           /* 1 / sqrt(a) */                                         \
    X(RECIPROCAL, 1)      /* 1 / a */                                               \
    X(EXP, 1)             /* e^a */                                                 \
    X(LOG, 1)             /* natural logarithm */                                   \
    X(LOG1P, 1)           /* log(1 + a) */                                          \
    X(EXPM1, 1)           /* e^a - 1 */                                             \
    X(TANH, 1)            /* hyperbolic tangent */                                  \
    X(SIGMOID, 1)         /* 1 / (1 + e^-a) */                                      \
    X(ERF, 1)             /* error function */                                      \
    X(GELU, 1)            /* a Phi(a), by erf */                                    \
    X(GELU_TANH, 1)       /* a Phi(a), the tanh approximation */                    \
    X(SILU, 1)            /* a sigmoid(p a) */                                      \
    X(HARDSIGMOID, 1)     /* max(0, min(1, p a + q)) */                             \
    X(HARDSWISH, 1)       /* a max(0, min(1, a / 6 + 1/2)) */                       \
    X(MISH, 1)            /* a tanh(softplus(a)) */                                 \
    X(SOFTPLUS, 1)        /* log(1 + e^a) */                                        \
    X(SOFTSIGN, 1)        /* a / (1 + |a|) */                                       \
    X(ELU, 1)             /* a < 0 ? p (e^a - 1) : a */                             \
    X(SELU, 1)            /* q (a < 0 ? p (e^a - 1) : a) */                         \
    X(CELU, 1)            /* max(0, a) + min(0, p (e^(a/p) - 1)) */                 \
    X(LEAKYRELU, 1)       /* a < 0 ? p a : a */                                     \
    X(THRESHOLDEDRELU, 1) /* a > p ? a : 0 */                                       \
    X(SHRINK, 1)          /* lambd p, bias q: a < -p ? a + q : a > p ? a - q : 0 */ \
    X(PRELU, 2)           /* a < 0 ? b a : a */                                     \
    X(RELU, 1)            /* max(0, a), NaN stays */                                \
    X(CLIP, 1)            /* to [p, q], NaN stays */                                \
    X(FLOOR, 1)           /* towards -inf */                                        \
    X(CEIL, 1)            /* towards +inf */                                        \
    X(ROUND, 1)           /* nearest, halves to even */                             \
    X(TRUNC, 1)           /* towards zero */                                        \
    X(SIGN, 1)            /* -1, 0, 1; NaN stays */                                 \
    X(SIN, 1)             /* radians, as all below */                               \
    X(COS, 1)                                                                       \
    X(TAN, 1)                                                                       \
    X(ASIN, 1)                                                                      \
    X(ACOS, 1)                                                                      \
    X(ATAN, 1)                                                                      \
    X(SINH, 1)                                                                      \
    X(COSH, 1)                                                                      \
    X(ASINH, 1)                                                                     \
    X(ACOSH, 1)                                                                     \
    X(ATANH, 1)                                                                     \
    X(EQ, 2)  /* a == b */                                                          \
    X(NE, 2)  /* a != b */                                                          \
    X(LT, 2)  /* a < b */                                                           \
    X(LE, 2)  /* a <= b */                                                          \
    X(GT, 2)  /* a > b */                                                           \
    X(GE, 2)  /* a >= b */                                                          \
    X(NOT, 1) /* a == 0 */                                                          \
    X(AND, 2)                                                                       \
    X(OR, 2)                                                                        \
    X(XOR, 2)                                                                       \
    X(WHERE, 3) /* a != 0 ? b : c */                                                \
    X(ISNAN, 1)                                                                     \
    X(ISINF, 1)       /* p != 0 takes -inf, q != 0 takes +inf */                    \
    X(DEQUANT, 1)     /* (a - q) p: scale p, zero point q */                        \
    X(DEQUANT_BY, 3)  /* (a - c) b */                                               \
    X(QUANT_U8, 1)    /* a / p to the nearest, + q, to [0, 255]; NaN gives q */     \
    X(QUANT_U8_BY, 3) /* the same with b and c */                                   \
    X(QUANT_S8, 1)    /* to [-128, 127] */                                          \
    X(QUANT_S8_BY, 3)

#define KILN_PROG_ENUM(name, operands) KILN_PROG_##name,
typedef enum kiln_prog_op { KILN_PROG_OPS(KILN_PROG_ENUM) KILN_PROG_OP_COUNT } kiln_prog_op;

typedef struct kiln_prog_instr {
    uint8_t op;      /* kiln_prog_op */
    uint8_t dst;     /* a temporary; may be one of the operands */
    uint8_t a, b, c; /* registers; those the op does not take are ignored */
    float p, q;      /* immediates */
} kiln_prog_instr;

/* (x - zero) * scale, or x / scale + zero the other way; scale 0: nothing. */
typedef struct kiln_prog_affine {
    float scale, zero;
} kiln_prog_affine;

/* Plain data, borrowed arrays. */
typedef struct kiln_program {
    int32_t inputs;  /* <= KILN_PROG_INPUTS */
    int32_t consts;  /* constants, registers inputs .. inputs+consts-1 */
    int32_t instrs;  /* >= 0 */
    int32_t outputs; /* 1 .. KILN_PROG_OUTPUTS */
    int32_t regs;    /* all registers, <= KILN_PROG_REGS */
    const float *constant;
    const kiln_prog_instr *instr;
    uint8_t output[KILN_PROG_OUTPUTS]; /* register of each output */
    /* Bytes that are dequantized as they are read, and quantized as output 0 is written: DEQUANT,
     * QUANT_U8 and QUANT_S8 without a register in between. */
    kiln_prog_affine load[KILN_PROG_INPUTS], store;
} kiln_program;

/* How one input or output lies over the iteration space. */
typedef struct kiln_prog_view {
    kiln_dtype dtype;
    int64_t stride[KILN_MAX_RANK]; /* elements, one per dim of the space */
} kiln_prog_view;

/* How a view meets the blocks. */
typedef enum kiln_prog_access {
    KILN_PROG_WALK,  /* row by row with any strides */
    KILN_PROG_FLAT,  /* element i of the space is element i of the view */
    KILN_PROG_ONCE,  /* the same for every block: filled once per call */
    KILN_PROG_LINES, /* contiguous along the inner dim, and a block lies within one row */
} kiln_prog_access;

typedef struct kiln_prog_port {
    kiln_dtype dtype;
    kiln_prog_access access;
    int64_t stride[KILN_PROG_RANK];
} kiln_prog_port;

/* The collapsed space and its cutting into blocks. Either a block is `rows` whole rows of the inner
 * dim (chunks == 1), or a row is cut into `chunks` pieces of `chunk` elements (rows == 1). */
typedef struct kiln_program_plan {
    int32_t rank; /* 1 .. KILN_PROG_RANK; the last dim is the inner one */
    int64_t dims[KILN_PROG_RANK];
    int64_t outer; /* product of all dims but the inner */
    int64_t rows, chunks, chunk;
    int64_t blocks; /* what run's range counts */
    kiln_prog_port in[KILN_PROG_INPUTS];
    kiln_prog_port out[KILN_PROG_OUTPUTS];
} kiln_program_plan;

/* Checks the program and cuts the space `dims` (row-major, rank <= KILN_MAX_RANK) into blocks.
 * views: one per input, then one per output. Errors: KILN_E_UNSUPPORTED when an element type is not
 * handled or more than KILN_PROG_RANK dims remain; KILN_E_INTERNAL for a program that breaks the
 * rules above. An output may be the memory of an input with the same view; other overlaps, outputs
 * with a stride of 0 over a dim > 1, and outputs that only pass on an input whose memory another
 * output overwrites are the caller's to avoid. */
kiln_status kiln_program_plan_make(kiln_program_plan *plan, const kiln_program *program,
                                   int32_t rank, const int64_t *dims, const kiln_prog_view *views);

/* Whether the registers and opcodes of a program are in range (plan_make asks it too). */
bool kiln_program_valid(const kiln_program *program);

/* An input of a program that runs over a block of a row-major matrix. */
typedef enum kiln_post_kind {
    KILN_POST_SELF,    /* the block itself */
    KILN_POST_COLUMNS, /* data[col] */
    KILN_POST_ROWS,    /* data[row] */
    KILN_POST_MATRIX,  /* data[row * ld + col] */
    KILN_POST_SCALAR,  /* data[0] */
} kiln_post_kind;

typedef struct kiln_post_operand {
    kiln_post_kind kind;
    const float *data; /* at row 0, column 0 of the whole matrix */
    int64_t ld;
} kiln_post_operand;

/* `arg` of prims->post. The program has one output, which replaces the block; or, with `narrow`, is
 * written as elements of that type into that matrix, (row, col) at element row * ld_narrow + col,
 * U8 quantized by program->store, and the block is undefined afterwards. */
typedef struct kiln_program_post_args {
    const kiln_program *program;
    kiln_post_operand in[KILN_PROG_INPUTS];
    void *narrow;
    kiln_dtype narrow_type; /* U8 or BF16 */
    int64_t ld_narrow;
} kiln_program_post_args;

typedef struct kiln_program_prims {
    /* Runs blocks [block0, block1) of the plan. in and out: first element of each view. */
    void (*run)(const kiln_program *program, const kiln_program_plan *plan, const void *const *in,
                void *const *out, int64_t block0, int64_t block1);
    /* Applies args (kiln_program_post_args) in place to c[i * ldc + j], i < rows, j < cols, which
     * is the block at (row0, col0) of the whole matrix: the hook that matrix products call. */
    void (*post)(const void *args, float *c, int64_t ldc, int64_t row0, int64_t rows, int64_t col0,
                 int64_t cols);
} kiln_program_prims;

extern const kiln_program_prims kiln_program_prims_portable;
extern const kiln_program_prims kiln_program_prims_avx2;
extern const kiln_program_prims kiln_program_prims_avx512;

#endif
