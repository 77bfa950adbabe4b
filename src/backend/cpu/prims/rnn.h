/* rnn.h - the recurrent part of LSTM, GRU and simple RNN, one direction, float32.
 *
 * The input part X W^T + bias of all steps is one matrix product done elsewhere; what is left is,
 * per step, h R^T and the gates. R is packed by blocks of KILN_RNN_LANES hidden units with all
 * gates of a block side by side, so that the gates, the cell update and the activations of a block
 * happen in registers. Blocks of hidden units are independent within a phase: a team splits them
 * and meets at a barrier after each phase, batches and directions need no barrier at all. Results
 * do not depend on the split.
 *
 * Gate order and equations are those of the ONNX operators LSTM (i o f c), GRU (z r h) and RNN,
 * with `clip` applied to the gates' inputs.
 *
 *     kiln_rnn_pack(packed, KILN_RNN_LSTM, hidden, R);               once, at build time
 *     kiln_rnn_args a = {.kind = KILN_RNN_LSTM, .steps = T, .batch = B, .hidden = H, .xw = xw, ...,
 *         .act = {KILN_ACT_SIGMOID, KILN_ACT_TANH, KILN_ACT_TANH}};
 *     kiln_rnn_run(prims, &a, team);                                 by every member of the team
 */
#ifndef KILN_BACKEND_CPU_PRIMS_RNN_H
#define KILN_BACKEND_CPU_PRIMS_RNN_H

#include "base/compiler.h"
#include "base/pool.h"

enum { KILN_RNN_LANES = 16 };

typedef enum kiln_rnn_kind { KILN_RNN_SIMPLE, KILN_RNN_GRU, KILN_RNN_LSTM } kiln_rnn_kind;

typedef enum kiln_rnn_act {
    KILN_ACT_SIGMOID,
    KILN_ACT_TANH,
    KILN_ACT_RELU,
    KILN_ACT_AFFINE,           /* alpha x + beta */
    KILN_ACT_LEAKY_RELU,       /* x < 0 ? alpha x : x */
    KILN_ACT_THRESHOLDED_RELU, /* x >= alpha ? x : 0 */
    KILN_ACT_SCALED_TANH,      /* alpha tanh(beta x) */
    KILN_ACT_HARD_SIGMOID,     /* clamp(alpha x + beta, 0, 1) */
    KILN_ACT_ELU,              /* x < 0 ? alpha (e^x - 1) : x */
    KILN_ACT_SOFTSIGN,         /* x / (1 + |x|) */
    KILN_ACT_SOFTPLUS,         /* log(1 + e^x) */
} kiln_rnn_act;

typedef struct kiln_rnn_args {
    kiln_rnn_kind kind;
    int64_t steps, batch, hidden;
    bool reverse;             /* from each sequence's end to its start */
    const int32_t *lens;      /* [batch] or NULL: all steps; values are held to 0 .. steps */
    bool linear_before_reset; /* GRU */
    bool input_forget;        /* LSTM: f = 1 - i */
    float clip;               /* 0: none */
    kiln_rnn_act act[3];      /* ONNX's f, g, h */
    float alpha[3], beta[3];
    /* [steps, batch, gates * hidden]: X W^T + Wb + Rb (GRU with linear_before_reset: without the
     * h gate's Rb) */
    const float *xw;
    int64_t xw_step, xw_batch; /* strides, elements */
    const float *r;            /* packed by kiln_rnn_pack; or */
    const int8_t *r8;          /* by kiln_rnn_pack_bytes, where r is NULL, and */
    const float *r_scale;      /* by kiln_rnn_pack_scales: R is scale * byte */
    const float *rb_h;         /* [hidden] or NULL: Rb of the h gate, linear_before_reset only */
    const float *peephole;     /* [3 * hidden] i o f, or NULL; LSTM */
    const float *h0, *c0;      /* [batch, hidden] or NULL: zeros */
    float *y;                  /* [steps, batch, hidden] or NULL; zeros past a sequence's end */
    int64_t y_step, y_batch;
    float *y_h, *y_c; /* [batch, hidden] or NULL: the last states */
    float *state;     /* kiln_rnn_state(args) floats: working memory shared by the team */
} kiln_rnn_args;

static inline int64_t kiln_rnn_gates(kiln_rnn_kind kind) {
    return kind == KILN_RNN_LSTM ? 4 : kind == KILN_RNN_GRU ? 3 : 1;
}

/* Blocks of hidden units: what step's range counts. */
static inline int64_t kiln_rnn_blocks(int64_t hidden) {
    return (hidden + KILN_RNN_LANES - 1) / KILN_RNN_LANES;
}

/* Elements of the packed R. */
static inline int64_t kiln_rnn_packed(kiln_rnn_kind kind, int64_t hidden) {
    return kiln_rnn_blocks(hidden) * hidden * kiln_rnn_gates(kind) * KILN_RNN_LANES;
}

/* Floats of the packed scales of R's rows. */
static inline int64_t kiln_rnn_scales(kiln_rnn_kind kind, int64_t hidden) {
    return kiln_rnn_blocks(hidden) * kiln_rnn_gates(kind) * KILN_RNN_LANES;
}

/* Two hidden states by turns, the cell state, and the GRU's z and r h. */
static inline int64_t kiln_rnn_state(const kiln_rnn_args *args) {
    return 5 * args->batch * args->hidden;
}

/* Phases of a step: 2 for the GRU that resets before the product, with a barrier between. */
static inline int kiln_rnn_phases(const kiln_rnn_args *args) {
    return args->kind == KILN_RNN_GRU && !args->linear_before_reset ? 2 : 1;
}

/* Packs R[gates * hidden, hidden] (row-major, ONNX order) into dst, kiln_rnn_packed floats:
 * per block of units, per gate group ({i o f c}, {z r} then {h}, {all}): [k][gate][lane], lanes
 * past the last unit zero. */
void kiln_rnn_pack(float *dst, kiln_rnn_kind kind, int64_t hidden, const float *r);
/* The same for bytes, and scale[gates * hidden] of R's rows as [block][gate][lane]. */
void kiln_rnn_pack_bytes(int8_t *dst, kiln_rnn_kind kind, int64_t hidden, const int8_t *r);
void kiln_rnn_pack_scales(float *dst, kiln_rnn_kind kind, int64_t hidden, const float *scale);

typedef struct kiln_rnn_prims {
    /* Sets the working state of units [batch0, batch1) to h0 and c0. */
    void (*begin)(const kiln_rnn_args *args, int64_t batch0, int64_t batch1);
    /* Phase `phase` of step `step` for hidden blocks [block0, block1) and samples
     * [batch0, batch1). */
    void (*step)(const kiln_rnn_args *args, int64_t step, int phase, int64_t block0, int64_t block1,
                 int64_t batch0, int64_t batch1);
    /* Copies the last states to y_h and y_c. */
    void (*end)(const kiln_rnn_args *args, int64_t batch0, int64_t batch1);
} kiln_rnn_prims;

extern const kiln_rnn_prims kiln_rnn_prims_portable;
extern const kiln_rnn_prims kiln_rnn_prims_avx2;
extern const kiln_rnn_prims kiln_rnn_prims_avx512;

/* Runs all steps; every member of the team calls it with the same args. Hidden blocks are split
 * over the members, with a barrier after each phase. The states are complete on return. */
void kiln_rnn_run(const kiln_rnn_prims *prims, const kiln_rnn_args *args, const kiln_team *team);

#endif
