/* recurrent.h - the sizes and activations of LSTM, GRU and RNN, for kernels and passes. */
#ifndef KILN_OPS_RECURRENT_H
#define KILN_OPS_RECURRENT_H

#include "ops/attrs.h"
#include "ops/util.h"

typedef enum kiln_cell { KILN_CELL_RNN, KILN_CELL_GRU, KILN_CELL_LSTM } kiln_cell;

typedef enum kiln_cell_act {
    KILN_CELL_SIGMOID,
    KILN_CELL_TANH,
    KILN_CELL_RELU,
    KILN_CELL_AFFINE,           /* alpha x + beta */
    KILN_CELL_LEAKY_RELU,       /* x < 0 ? alpha x : x */
    KILN_CELL_THRESHOLDED_RELU, /* x >= alpha ? x : 0 */
    KILN_CELL_SCALED_TANH,      /* alpha tanh(beta x) */
    KILN_CELL_HARD_SIGMOID,     /* clamp(alpha x + beta, 0, 1) */
    KILN_CELL_ELU,              /* x < 0 ? alpha (e^x - 1) : x */
    KILN_CELL_SOFTSIGN,         /* x / (1 + |x|) */
    KILN_CELL_SOFTPLUS,         /* log(1 + e^x) */
} kiln_cell_act;

typedef struct kiln_cell_activation {
    kiln_cell_act kind;
    float alpha, beta;
} kiln_cell_activation;

/* Inputs of all three operators; GRU and RNN end at H0. */
enum {
    KILN_RNN_X,
    KILN_RNN_W,
    KILN_RNN_R,
    KILN_RNN_B,
    KILN_RNN_LENS,
    KILN_RNN_H0,
    KILN_RNN_C0,
    KILN_RNN_P
};

/* Gates of a cell: LSTM 4 (i o f c), GRU 3 (z r h), RNN 1. */
static inline int64_t kiln_cell_gates(kiln_cell cell) {
    return cell == KILN_CELL_LSTM ? 4 : cell == KILN_CELL_GRU ? 3 : 1;
}
/* Activations of one direction: LSTM 3 (f g h), GRU 2 (f g), RNN 1. */
static inline int32_t kiln_cell_act_count(kiln_cell cell) {
    return cell == KILN_CELL_LSTM ? 3 : cell == KILN_CELL_GRU ? 2 : 1;
}

/* The activations, direction by direction, with alpha and beta given out in order to those that
 * take them. act holds 6 entries. Fails on unknown names and on a list of the wrong length. */
kiln_status kiln_cell_activations(kiln_cell cell, const kiln_rnn_attrs *a, kiln_diag *diag,
                                  kiln_cell_activation *act);

/* f(v) for one value. */
double kiln_cell_apply(const kiln_cell_activation *f, double v);

#endif
