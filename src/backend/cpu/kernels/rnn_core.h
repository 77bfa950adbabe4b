/* rnn_core.h - what the kernels of LSTM, GRU and RNN share.
 *
 * X W^T + bias of all steps and directions is one matrix product into a shared buffer, which is
 * what the kernels differ in; the recurrences follow. Directions go to two halves of the team.
 * Within a direction the samples are split, which needs no barrier, or the hidden units, with one
 * per phase.
 *
 *     claim   KILN_TRY kiln_rnn_read, kiln_rnn_operands
 *     bind    kiln_rnn_bind: sizes, b->shared_bytes
 *     run     the product into call->shared, then kiln_rnn_recur by all of the team
 *
 * Legend: T steps, B batch, I input size, H hidden size, D directions, width = gates * H.
 * X [T, B, I], Y [T, D, B, H]; with layout 1 X [B, T, I], Y [B, T, D, H]. */
#ifndef KILN_BACKEND_CPU_KERNELS_RNN_CORE_H
#define KILN_BACKEND_CPU_KERNELS_RNN_CORE_H

#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/rnn.h"
#include "ops/recurrent.h"

enum { KILN_RNN_OUTS = 3, KILN_RNN_MAX_DIRS = 2 };

typedef struct kiln_rnn_params {
    kiln_cell cell;
    int64_t dirs, input, hidden, width;
    bool batch_first;
    bool keeps_rb; /* GRU whose h gate adds its recurrent bias before the reset */
    bool peephole;
    int32_t lens_in, h0_in, c0_in;         /* numbers of the claim's inputs, or -1 */
    int32_t out[KILN_RNN_OUTS];            /* numbers of the claim's outputs, or -1 */
    kiln_rnn_args args[KILN_RNN_MAX_DIRS]; /* what attributes decide */
} kiln_rnn_params;

/* What a recurrence reads of the packed weights, for direction 0; others follow. */
typedef struct kiln_rnn_weights {
    const float *r;        /* packed; or */
    const int8_t *r8;      /* packed bytes, and */
    const float *r_scale;  /* their scales */
    const float *rb;       /* [dirs][hidden] */
    const float *peephole; /* [dirs][3 * hidden] */
} kiln_rnn_weights;

typedef struct kiln_rnn_bound {
    const kiln_rnn_params *p;
    const kiln_rnn_prims *prims;
    kiln_rnn_weights weights;
    kiln_rnn_args args[KILN_RNN_MAX_DIRS]; /* all but addresses */
    int64_t rows;                          /* T * B */
    int64_t y_dir;                         /* elements from one direction to the next in Y */
    size_t state_at;                       /* in the shared buffer, behind the product */
} kiln_rnn_bound;

/* Reads a node whose operands W and R are these values (dims alone are looked at) into *p. False:
 * refused (c->reason). */
bool kiln_rnn_read(kiln_claimer *c, const kiln_node *node, kiln_rnn_params *p);
/* Adds x, lengths and states to the claim's inputs, and its outputs. The claim has room for
 * KILN_RNN_OUTS outputs. False when out of memory. */
bool kiln_rnn_operands(kiln_claimer *c, kiln_claim *claim, kiln_rnn_params *p, kiln_value *x);

/* Both biases summed into bias[D][width], but for gates that add theirs later, which go to
 * rb[D][H]; and the peepholes. Blobs, NULL while measuring; zeros where the node has none. */
kiln_status kiln_rnn_pack_vectors(kiln_packer *k, const kiln_rnn_params *p, float *bias, float *rb,
                                  float *peephole);

/* Fills s for operands of these sizes. The product [rows][dirs * width] stands at the start of the
 * shared memory. */
void kiln_rnn_bind(kiln_rnn_bound *s, const kiln_rnn_params *p, kiln_binder *b);
/* The recurrences, by all of the team. Begins with a barrier. */
void kiln_rnn_recur(const kiln_rnn_bound *s, const kiln_call *call, const kiln_team *team);

#endif
