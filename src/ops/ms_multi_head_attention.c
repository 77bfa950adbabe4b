/* ms_multi_head_attention.c - com.microsoft MultiHeadAttention: attention over heads with
 * projection biases, key padding and cache.
 *
 * Legend as in ms_attention.h; query [B, S, D], key [B, L, D], value [B, L, E], or key and value of
 * another layer's cache, [B, H, L, head size]. */
#include <math.h>

#include "ops/bulk.h"
#include "ops/ms_attention.h"

typedef struct mha_attrs {
    float mask_filter_value;
    int64_t num_heads;
    float scale;
    int64_t unidirectional;
} mha_attrs;

enum { Q, K, V, BIAS, MASK, ADDED, PAST_K, PAST_V, PAST_LENGTH, CACHE };

static const kiln_attr table[] = {
    KILN_A_FLOAT(mha_attrs, mask_filter_value, -10000),
    KILN_A_INT_REQUIRED(mha_attrs, num_heads),
    KILN_A_FLOAT(mha_attrs, scale, 0),
    KILN_A_INT(mha_attrs, unidirectional, 0),
};

/* ---- Inference ---- */

static kiln_status check_variant(const kiln_infer *c) {
    const mha_attrs *a = c->attrs;
    KILN_TRY(kiln_ms_attention_check(c, a->num_heads, a->scale));
    if (kiln_infer_in_rank(c, Q) == 5 || kiln_infer_in_rank(c, K) == 5 || !kiln_infer_has(c, K) ||
        !kiln_infer_has(c, V)) {
        return KILN_INFER_FAIL(c, VARIANT, "packed queries, keys and values are not supported");
    }
    if (kiln_infer_has(c, PAST_LENGTH) || kiln_infer_has(c, CACHE)) {
        return KILN_INFER_FAIL(c, VARIANT, "shared cache buffers are not supported");
    }
    if (kiln_infer_has(c, PAST_K) != kiln_infer_has(c, PAST_V)) {
        return KILN_INFER_FAIL(c, ARITY, "past_key and past_value must be given together");
    }
    KILN_TRY(kiln_infer_dtype(c, Q, KILN_T_FLOAT));
    for (int32_t i = K; i <= PAST_V; i++) {
        if (i != MASK && i != ADDED) {
            KILN_TRY(kiln_infer_same_dtype(c, Q, i));
        }
    }
    KILN_TRY(kiln_infer_rank(c, Q, 3, 3));
    KILN_TRY(kiln_infer_rank(c, K, 3, 4));
    int32_t rank = kiln_infer_in_rank(c, K);
    return rank < 0 ? kiln_infer_rank(c, V, 3, 4) : kiln_infer_rank(c, V, rank, rank);
}

/* Keys and head size of input i, K or V. */
static kiln_status key_shape(const kiln_infer *c, int32_t i, kiln_dim *rows, kiln_dim *head) {
    const mha_attrs *a = c->attrs;
    const char *what = i == K ? "key" : "value";
    KILN_TRY(kiln_expect_dim(c, i, 0, kiln_infer_dim(c, Q, 0), what));
    if (kiln_infer_in_rank(c, i) == 4) {
        *rows = kiln_infer_dim(c, i, 2);
        *head = kiln_infer_dim(c, i, 3);
        return kiln_expect_dim(c, i, 1, a->num_heads, what);
    }
    *rows = kiln_infer_dim(c, i, 1);
    return kiln_expect_split(c, kiln_infer_dim(c, i, 2), a->num_heads, what, head);
}

static kiln_status infer(kiln_infer *c) {
    const mha_attrs *a = c->attrs;
    kiln_dim head, k_head, v_head, rows, v_rows, any = KILN_DIM_UNKNOWN;
    KILN_TRY(check_variant(c));
    kiln_dim batch = kiln_infer_dim(c, Q, 0), q_len = kiln_infer_dim(c, Q, 1);
    KILN_TRY(kiln_expect_split(c, kiln_infer_dim(c, Q, 2), a->num_heads, "query", &head));
    KILN_TRY(key_shape(c, K, &rows, &k_head));
    KILN_TRY(key_shape(c, V, &v_rows, &v_head));
    if (kiln_dim_differ(head, k_head) || kiln_dim_differ(rows, v_rows)) {
        return KILN_INFER_FAIL(c, SHAPE, "head sizes %lld and %lld, %lld keys and %lld values",
                               (long long)head, (long long)k_head, (long long)rows,
                               (long long)v_rows);
    }
    kiln_dim before = kiln_infer_has(c, PAST_K) ? kiln_infer_dim(c, PAST_K, 2) : 0;
    kiln_dim key[] = {batch, a->num_heads, any, head},
             value[] = {batch, a->num_heads, before, v_head};
    KILN_TRY(kiln_expect_shape(c, PAST_K, "past_key", 4, key));
    KILN_TRY(kiln_expect_shape(c, PAST_V, "past_value", 4, value));
    key[2] = value[2] = kiln_dim_add(c->dims, before, rows);
    kiln_dim size = kiln_dim_mul(c->dims, head, a->num_heads),
             v_size = kiln_dim_mul(c->dims, v_head, a->num_heads);
    kiln_dim bias = kiln_dim_add(c->dims, kiln_dim_mul(c->dims, size, 2), v_size),
             y[] = {batch, q_len, v_size};
    KILN_TRY(kiln_expect_shape(c, BIAS, "the bias", 1, &bias));
    KILN_TRY(kiln_ms_masks_check(c, MASK, ADDED, batch, a->num_heads, q_len, key[2]));
    kiln_dtype dtype = c->in[Q].type.dtype;
    KILN_TRY(kiln_infer_output(c, 0, dtype, 3, y));
    KILN_TRY(kiln_infer_output(c, 1, dtype, 4, key));
    return kiln_infer_output(c, 2, dtype, 4, value);
}

/* ---- Reference ---- */

/* Adds bias elements first .. to rows `from` on of v [B, heads, total, dim]. */
static kiln_status add_bias(kiln_ref *c, const kiln_heads *h, int64_t total, int64_t from,
                            int64_t first, double *v) {
    const kiln_tensor *bias = kiln_ref_in(c, BIAS);
    double *line;
    if (!bias) {
        return KILN_OK;
    }
    KILN_ALLOC(line, c->arena, h->heads * h->dim);
    kiln_load_f64(bias, first, h->heads * h->dim, line);
    for (int64_t n = 0; n < h->batch * h->heads; n++) {
        for (int64_t r = from; r < total; r++) {
            for (int64_t d = 0; d < h->dim; d++) {
                v[(n * total + r) * h->dim + d] += line[n % h->heads * h->dim + d];
            }
        }
    }
    return KILN_OK;
}

static void give(kiln_ref *c, int32_t i, const double *v) {
    kiln_tensor *t = kiln_ref_out(c, i);
    if (t) {
        kiln_store_f64(t, 0, kiln_tensor_count(t), v);
    }
}

static kiln_status ref(kiln_ref *c) {
    const mha_attrs *a = c->attrs;
    const kiln_tensor *tk = kiln_ref_in(c, K), *tv = kiln_ref_in(c, V),
                      *past = kiln_ref_in(c, PAST_K);
    kiln_heads hq = kiln_heads_of(kiln_ref_in(c, Q), a->num_heads),
               hk = kiln_heads_of(tk, a->num_heads);
    kiln_heads hv = kiln_heads_of(tv, a->num_heads);
    kiln_ms_masks m = {.mask = kiln_ref_in(c, MASK),
                       .bias = kiln_ref_in(c, ADDED),
                       .batch = hq.batch,
                       .q_len = hq.rows,
                       .past = past ? past->dims[2] : 0,
                       .filter = (double)a->mask_filter_value,
                       .causal = a->unidirectional != 0};
    m.kv_len = m.past + hk.rows;
    kiln_attention job = {.batch = hq.batch,
                          .heads = hq.heads,
                          .kv_heads = hq.heads,
                          .q_len = hq.rows,
                          .kv_len = m.kv_len,
                          .qk_dim = hq.dim,
                          .v_dim = hv.dim,
                          .k_scale = 1,
                          .bias = kiln_ms_masks_add,
                          .user = &m};
    job.q_scale = a->scale != 0 ? (double)a->scale : 1 / sqrt((double)hq.dim);
    double *q, *k, *v, *out;
    int64_t size = hq.heads * hq.dim;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(kiln_heads_concat(c, NULL, kiln_ref_in(c, Q), &hq, &q));
    KILN_TRY(kiln_heads_concat(c, past, tk, &hk, &k));
    KILN_TRY(kiln_heads_concat(c, kiln_ref_in(c, PAST_V), tv, &hv, &v));
    KILN_TRY(add_bias(c, &hq, hq.rows, 0, 0, q));
    if (tk->rank == 3) {
        KILN_TRY(add_bias(c, &hk, m.kv_len, m.past, size, k));
        KILN_TRY(add_bias(c, &hv, m.kv_len, m.past, 2 * size, v));
    }
    KILN_ALLOC(out, c->arena, kiln_tensor_count(kiln_ref_out(c, 0)));
    KILN_TRY(kiln_attention_run(c, &job, q, k, v, out));
    hq.dim = hv.dim;
    kiln_heads_store(kiln_ref_out(c, 0), &hq, out);
    give(c, 1, k);
    give(c, 2, v);
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_ms_multi_head_attention = {
    .name = "MultiHeadAttention",
    .domain = "com.microsoft",
    .since = 1,
    .min_in = 1,
    .max_in = 10,
    .min_out = 1,
    .max_out = 3,
    KILN_OP_ATTRS(table, mha_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
