/* attention_core.h - scaled dot-product attention for references, and how heads lie in tensors.
 *
 * Legend: B batch, H query heads, G key and value heads (G divides H; query head h reads head
 * h / (H / G)), S queries, L keys, D head size of Q and K, E of V. Everything is double and dense:
 * q [B, H, S, D], k [B, G, L, D], v [B, G, L, E], y [B, H, S, E], scores [B, H, S, L]. */
#ifndef KILN_OPS_ATTENTION_CORE_H
#define KILN_OPS_ATTENTION_CORE_H

#include "ops/attrs.h"
#include "ops/expect.h"

enum {
    KILN_SCORES_RAW,    /* Q K^T, scaled */
    KILN_SCORES_CAPPED, /* after the soft cap */
    KILN_SCORES_BIASED, /* with what the mask adds */
    KILN_SCORES_PROBS,  /* after softmax */
    KILN_SCORES_STAGES,
};

typedef struct kiln_attention {
    int64_t batch, heads, kv_heads, q_len, kv_len, qk_dim, v_dim;
    double q_scale, k_scale; /* multiply Q and K */
    double softcap;          /* scores s become cap * tanh(s / cap); 0: none */
    kiln_dtype round;   /* F16 or BF16: every stage is rounded to it; anything else: not at all */
    kiln_dtype softmax; /* the same for the softmax; NONE: like the other stages */
    /* Adds to row[0..kv_len), zero at first, what the masks add to the scores of query i. NULL:
     * nothing */
    void (*bias)(const void *user, int64_t b, int64_t h, int64_t i, double *row);
    const void *user;
    bool zero_masked;   /* a query whose bias is -inf throughout gives zeros instead of NaN */
    const double *sink; /* [heads] an extra score that only takes part in the sum, or NULL */
    kiln_tensor *stage[KILN_SCORES_STAGES]; /* NULL, or scores to be stored here, in its dtype */
} kiln_attention;

/* y = softmax(q k^T) v. Scratch is given back. */
kiln_status kiln_attention_run(kiln_ref *c, const kiln_attention *a, const double *q,
                               const double *k, const double *v, double *y);

/* Heads of a tensor: 3-D [B, rows, heads * dim] or 4-D [B, heads, rows, dim]. */
typedef struct kiln_heads {
    int64_t batch, heads, rows, dim;
} kiln_heads;
/* heads is used for a 3-D tensor and must divide its last dim. */
kiln_heads kiln_heads_of(const kiln_tensor *t, int64_t heads);
/* Copies t into dst [B, heads, total, dim] as rows first .. first + h.rows of every head. */
void kiln_heads_load(const kiln_tensor *t, const kiln_heads *h, int64_t total, int64_t first,
                     double *dst);
/* Stores y [B, heads, rows, dim] into t, 3-D or 4-D. */
void kiln_heads_store(kiln_tensor *t, const kiln_heads *h, const double *y);
/* past (may be NULL; [B, heads, P, dim]) followed by t, in a new array [B, heads, P
 * + rows, dim]. */
kiln_status kiln_heads_concat(kiln_ref *c, const kiln_tensor *past, const kiln_tensor *t,
                              const kiln_heads *h, double **out);

/* B * H * S * L * (D + E), or INT64_MAX when that is too many. */
int64_t kiln_attention_macs(int64_t rows, int64_t keys, int64_t dims);

#endif
