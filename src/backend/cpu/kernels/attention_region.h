/* attention_region.h - the part of a graph that attention_f32 runs in one step.
 *
 * softmax(scale Q K^T + mask) V as the operator Attention, or spelled MatMul, Mul or Div, Add,
 * Softmax, MatMul. Transposes and views that only move heads about are taken along and become
 * strides. The claim is made at the first node of the region, which may be such a Transpose:
 *
 *     kiln_claim *r = kiln_attention_claim(c, &kiln_kernel_attention_f32, node);
 *     const kiln_attention_params *p = r->params;   // inputs 0 to 2: Q, K, V; output 0: Y
 *
 * Legend: B batch, H query heads, G key and value heads, S queries, L keys, D head size. */
#ifndef KILN_BACKEND_CPU_KERNELS_ATTENTION_REGION_H
#define KILN_BACKEND_CPU_KERNELS_ATTENTION_REGION_H

#include "backend/cpu/kernel.h"

/* What an axis of an operand means. */
enum { KILN_HEADS_BATCH, KILN_HEADS_HEAD, KILN_HEADS_LINE, KILN_HEADS_SIZE, KILN_HEADS_ROLES };

/* Where the axes of an operand are: axis[role], or -1. `packed` is the head count when heads and
 * sizes share the last axis, else 0. */
typedef struct kiln_head_axes {
    int32_t axis[KILN_HEADS_ROLES]; /* batches and heads of -1 are one */
    int64_t packed;
} kiln_head_axes;

/* Something added to the scores, its leading dims (all one) beyond theirs left away. */
typedef struct kiln_added_mask {
    kiln_value *value;
    int32_t drop;
} kiln_added_mask;
enum { KILN_MAX_MASKS = 2 };

typedef struct kiln_attention_params {
    kiln_head_axes q, k, v, y;
    float scale; /* 0: 1 / sqrt(D) */
    float softcap;
    bool causal, zero_empty;
    int64_t ahead;       /* causal: how many keys past its own a query sees */
    int32_t scores_rank; /* what masks are broadcast to: 4, or 3 without heads */
    kiln_added_mask masks[KILN_MAX_MASKS];
    int32_t n_masks; /* two are constants, summed when packing */
    /* Numbers of the claim's operands, or -1. */
    int32_t mask_in, past_k_in, past_v_in, present_k_out, present_v_out;
} kiln_attention_params;

/* The region that begins at `node`, or NULL with c->reason set. */
kiln_claim *kiln_attention_claim(kiln_claimer *c, const kiln_kernel *kernel, kiln_node *node);

#endif
