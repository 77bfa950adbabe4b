/* attention.h - fused scaled dot-product attention: Y = softmax(scale Q K^T + mask) V, float32.
 *
 * Nothing of size [q_len, kv_len] is ever written to memory: a block of KILN_ATTENTION_ROWS queries
 * keeps its scores in per-thread scratch. Tensors are read and written where they lie, by strides
 * per batch, head and row, so that [B, H, L, D], [B, L, H, D] and a packed QKV buffer all serve
 * without a transpose; elements of a row are contiguous.
 *
 *     X[B, L, 3, H, D] packed, Y[B, L, H, D]:
 *     kiln_attention_args a = {.batch = B, .heads = H, .kv_heads = H, .q_len = L, .kv_len = L,
 *         .qk_dim = D, .v_dim = D, .scale = 1 / sqrtf(D),
 *         .q = x, .q_stride = {L * 3 * H * D, D, 3 * H * D},
 *         .k = x + H * D, .k_stride = {...}, .v = x + 2 * H * D, .v_stride = {...},
 *         .y = y, .y_stride = {L * H * D, D, H * D}};
 *     float *scratch = ...;                                  kiln_attention_scratch(&a) floats
 *     prims->attention(&a, scratch, 0, kiln_attention_units(&a));
 *
 * Units (batch, head, block of queries) are independent; any cut of their range gives the same
 * bits. Up to key_block keys the softmax is the plain one; longer rows go block by block with a
 * running maximum and sum (Milakov and Gimelshein, 2018), whose order depends on key_block alone.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_ATTENTION_H
#define KILN_BACKEND_CPU_PRIMS_ATTENTION_H

#include "base/compiler.h"

enum {
    KILN_ATTENTION_ROWS = 32,  /* queries per unit */
    KILN_ATTENTION_KEYS = 512, /* default key_block */
    KILN_ATTENTION_PAD = 16,   /* keys of slack in scratch */
};

typedef struct kiln_attention_args {
    int64_t batch, heads;
    int64_t kv_heads; /* divides heads; query head h reads key/value head h / (heads / kv_heads) */
    int64_t q_len, kv_len; /* kv_len >= 1 */
    int64_t qk_dim, v_dim;
    float scale;   /* multiplies Q */
    float softcap; /* scores s become cap tanh(s / cap) before the mask; 0: none */
    bool causal;   /* query i sees keys j <= i + causal_offset only */
    int64_t causal_offset;
    bool zero_empty;   /* a query that sees no key (all -inf) gives zeros instead of NaN */
    int64_t key_block; /* keys per softmax block; 0: KILN_ATTENTION_KEYS */
    /* Strides in elements: {batch, head, row}. */
    const float *q; /* [batch, heads, q_len, qk_dim] */
    int64_t q_stride[3];
    const float *k; /* [batch, kv_heads, kv_len, qk_dim] */
    int64_t k_stride[3];
    const float *v; /* [batch, kv_heads, kv_len, v_dim] */
    int64_t v_stride[3];
    const float *mask; /* NULL or added to scores: [batch, heads, q_len, kv_len], any stride 0 */
    int64_t mask_stride[4];
    float *y; /* [batch, heads, q_len, v_dim] */
    int64_t y_stride[3];
} kiln_attention_args;

static inline int64_t kiln_attention_units(const kiln_attention_args *args) {
    return args->batch * args->heads *
           ((args->q_len + KILN_ATTENTION_ROWS - 1) / KILN_ATTENTION_ROWS);
}

static inline int64_t kiln_attention_key_block(const kiln_attention_args *args) {
    int64_t block = args->key_block > 0 ? args->key_block : KILN_ATTENTION_KEYS;
    return block < args->kv_len ? block : args->kv_len;
}

/* Floats of scratch per thread, aligned to 64 bytes. */
static inline int64_t kiln_attention_scratch(const kiln_attention_args *args) {
    return KILN_ATTENTION_ROWS *
           (args->qk_dim + args->v_dim + 3 + KILN_ATTENTION_PAD + kiln_attention_key_block(args));
}

typedef struct kiln_attention_prims {
    void (*attention)(const kiln_attention_args *args, float *scratch, int64_t unit0,
                      int64_t unit1);
} kiln_attention_prims;

extern const kiln_attention_prims kiln_attention_prims_portable;
extern const kiln_attention_prims kiln_attention_prims_avx2;
extern const kiln_attention_prims kiln_attention_prims_avx512;

#endif
