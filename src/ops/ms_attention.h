/* ms_attention.h - what the attention operators of com.microsoft share: their masks.
 *
 * Legend as in attention_core.h, with P past keys and T = L keys in all. A mask of integers is
 *   [B] or [1]   how many keys are seen                   [2 * B]  ends, then first keys
 *   [B, T]       1 where a key is seen                    [B, S, T], [B, 1, M, M] per query
 * Keys that are not seen get mask_filter_value added to their scores, not -inf; keys after the
 * query of a unidirectional node get the lowest float. */
#ifndef KILN_OPS_MS_ATTENTION_H
#define KILN_OPS_MS_ATTENTION_H

#include "ops/attention_core.h"

typedef struct kiln_ms_masks {
    const kiln_tensor *mask; /* or NULL */
    const kiln_tensor *bias; /* added: [B or 1, H or 1, S, T], or NULL */
    int64_t batch, q_len, kv_len, past;
    double filter;
    bool causal;
} kiln_ms_masks;

/* Refuses masks and biases of other shapes; `what` i: index of the mask, j: of the bias. */
kiln_status kiln_ms_masks_check(const kiln_infer *c, int32_t i, int32_t j, kiln_dim batch,
                                kiln_dim heads, kiln_dim q_len, kiln_dim kv_len);
/* kiln_attention's bias, with a kiln_ms_masks as user. */
void kiln_ms_masks_add(const void *user, int64_t b, int64_t h, int64_t i, double *row);

/* What attributes and inputs of Attention and MultiHeadAttention have in common. */
kiln_status kiln_ms_attention_check(const kiln_infer *c, int64_t num_heads, float scale);

#endif
