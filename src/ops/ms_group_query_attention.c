/* ms_group_query_attention.c - com.microsoft GroupQueryAttention: causal attention with a key and
 * value cache, rotary embedding and shared heads, as decoders of large language models use it.
 *
 * Legend as in attention_core.h: H query heads, G key heads, D head size; query [B, S, H * D]
 * alone, or followed by the S new keys and values in one tensor of (H + 2 G) * D columns. The cache
 * in has P rows, the cache out R = max(P, total_sequence_length). Image b holds seqlens_k[b] + 1
 * tokens in all; its new tokens follow the last of its old ones, in a prompt (total_sequence_length
 * = S) there are none. */
#include <math.h>

#include "ops/attention_core.h"
#include "ops/bulk.h"

typedef struct gqa_attrs {
    int64_t causal, do_rotary;
    const char *k_quant_type;
    int64_t kv_cache_bit_width, kv_num_heads, local_window_size, num_heads, qk_output;
    int64_t rotary_interleaved;
    float scale;
    int64_t sliding_window_cache, smooth_softmax;
    float softcap;
    const char *v_quant_type;
} gqa_attrs;

enum { Q, K, V, PAST_K, PAST_V, LENS, TOTAL, COS, SIN, POSITIONS, ADDED, SINK, N_IN };

static const kiln_attr table[] = {
    KILN_A_INT(gqa_attrs, causal, 1),
    KILN_A_INT(gqa_attrs, do_rotary, 0),
    KILN_A_STRING(gqa_attrs, k_quant_type, "NONE"),
    KILN_A_INT(gqa_attrs, kv_cache_bit_width, 0),
    KILN_A_INT_REQUIRED(gqa_attrs, kv_num_heads),
    KILN_A_INT(gqa_attrs, local_window_size, -1),
    KILN_A_INT_REQUIRED(gqa_attrs, num_heads),
    KILN_A_INT(gqa_attrs, qk_output, 0),
    KILN_A_INT(gqa_attrs, rotary_interleaved, 0),
    KILN_A_FLOAT(gqa_attrs, scale, 0),
    KILN_A_INT(gqa_attrs, sliding_window_cache, 0),
    KILN_A_INT(gqa_attrs, smooth_softmax, 0),
    KILN_A_FLOAT(gqa_attrs, softcap, 0),
    KILN_A_STRING(gqa_attrs, v_quant_type, "NONE"),
};

/* ---- Inference ---- */

static bool is_none(const char *text) {
    return !text || (text[0] == 'N' && text[1] == 'O');
}

static kiln_status check_attrs(const kiln_infer *c) {
    const gqa_attrs *a = c->attrs;
    if (a->num_heads < 1 || a->num_heads > INT32_MAX || a->kv_num_heads < 1 ||
        a->num_heads % a->kv_num_heads != 0) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "%lld query heads cannot share %lld key heads",
                               (long long)a->num_heads, (long long)a->kv_num_heads);
    }
    if (!(a->scale >= 0) || isinf(a->scale) || !(a->softcap >= 0) || isinf(a->softcap)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "scale is %g, softcap is %g", (double)a->scale,
                               (double)a->softcap);
    }
    if (a->local_window_size < -1 || (a->causal != 0 && a->causal != 1)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "local_window_size is %lld, causal is %lld",
                               (long long)a->local_window_size, (long long)a->causal);
    }
    if (!is_none(a->k_quant_type) || !is_none(a->v_quant_type) || a->qk_output ||
        a->sliding_window_cache) {
        return KILN_INFER_FAIL(c, VARIANT,
                               "quantized or windowed caches and qk_output are not supported");
    }
    if (!kiln_infer_has(c, LENS) || !kiln_infer_has(c, TOTAL)) {
        return KILN_INFER_FAIL(c, ARITY, "seqlens_k and total_sequence_length are required");
    }
    for (int32_t i = N_IN; i < c->n_in; i++) {
        if (kiln_infer_has(c, i)) {
            return KILN_INFER_FAIL(c, VARIANT, "input %d is not supported", i);
        }
    }
    return KILN_OK;
}

static kiln_status check_types(const kiln_infer *c) {
    static const int32_t same[] = {K, V, PAST_K, PAST_V, COS, SIN};
    KILN_TRY(kiln_infer_dtype(c, Q, KILN_T_FLOAT));
    for (size_t i = 0; i < KILN_COUNT_OF(same); i++) {
        KILN_TRY(kiln_infer_same_dtype(c, Q, same[i]));
    }
    KILN_TRY(kiln_infer_dtype(c, LENS, KILN_T(I32)));
    KILN_TRY(kiln_infer_dtype(c, TOTAL, KILN_T(I32)));
    KILN_TRY(kiln_infer_dtype(c, POSITIONS, KILN_T(I64)));
    KILN_TRY(kiln_infer_dtype(c, ADDED, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, SINK, KILN_T_FLOAT));
    if (kiln_infer_has(c, K) != kiln_infer_has(c, V) ||
        kiln_infer_has(c, PAST_K) != kiln_infer_has(c, PAST_V)) {
        return KILN_INFER_FAIL(c, ARITY, "keys and values must be given together");
    }
    return kiln_infer_rank(c, Q, 3, 3);
}

/* Head size, from the columns of the query. */
static kiln_status head_size(const kiln_infer *c, kiln_dim *out) {
    const gqa_attrs *a = c->attrs;
    int64_t parts = a->num_heads + (kiln_infer_has(c, K) ? 0 : 2 * a->kv_num_heads);
    return kiln_expect_split(c, kiln_infer_dim(c, Q, 2), parts, "query", out);
}

static kiln_status check_rotary(const kiln_infer *c, kiln_dim head) {
    const gqa_attrs *a = c->attrs;
    kiln_dim half = kiln_infer_dim(c, COS, 1), any = KILN_DIM_UNKNOWN, sines[] = {any, half};
    kiln_dim ids[] = {kiln_infer_dim(c, Q, 0), kiln_infer_dim(c, Q, 1)};
    if (a->do_rotary == 0) {
        return KILN_OK;
    }
    if (!kiln_infer_has(c, COS) || !kiln_infer_has(c, SIN)) {
        return KILN_INFER_FAIL(c, ARITY, "do_rotary needs cos_cache and sin_cache");
    }
    sines[0] = kiln_infer_dim(c, COS, 0);
    KILN_TRY(kiln_infer_rank(c, COS, 2, 2));
    KILN_TRY(kiln_expect_shape(c, SIN, "sin_cache", 2, sines));
    KILN_TRY(kiln_expect_shape(c, POSITIONS, "position_ids", 2, ids));
    if (kiln_dim_known(half) && kiln_dim_known(head) && half > head / 2) {
        return KILN_INFER_FAIL(c, SHAPE, "cos_cache has %lld columns for heads of %lld",
                               (long long)half, (long long)head);
    }
    return KILN_OK;
}

static kiln_status check_added(const kiln_infer *c, kiln_dim total) {
    const gqa_attrs *a = c->attrs;
    kiln_dim any = KILN_DIM_UNKNOWN, want[] = {any, any, kiln_infer_dim(c, Q, 1), any};
    kiln_dim first[] = {kiln_infer_dim(c, Q, 0), a->num_heads}, keys = kiln_infer_dim(c, ADDED, 3);
    KILN_TRY(kiln_expect_shape(c, ADDED, "attention_bias", 4, want));
    for (int32_t d = 0; d < 2 && kiln_infer_has(c, ADDED); d++) {
        kiln_dim n = kiln_infer_dim(c, ADDED, d);
        if (kiln_dim_differ(n, 1) && kiln_dim_differ(n, first[d])) {
            return KILN_INFER_FAIL(c, SHAPE,
                                   "dim %d of attention_bias is %lld, it must be 1 or %lld", d,
                                   (long long)n, (long long)first[d]);
        }
    }
    if (kiln_infer_has(c, ADDED) && kiln_dim_known(keys) && kiln_dim_known(total) && keys < total) {
        return KILN_INFER_FAIL(c, SHAPE, "attention_bias is for %lld keys, there are %lld",
                               (long long)keys, (long long)total);
    }
    return KILN_OK;
}

/* total_sequence_length, or a size that it decides. */
static kiln_dim total_length(kiln_infer *c) {
    int64_t n;
    const kiln_dim *v = kiln_infer_contents(c, TOTAL, &n);
    return v && n == 1 && v[0] != KILN_DIM_UNKNOWN ? v[0]
                                                   : kiln_dim_found(c->dims, KILN_DIM_UNKNOWN);
}

static kiln_status infer(kiln_infer *c) {
    const gqa_attrs *a = c->attrs;
    kiln_dim head, any = KILN_DIM_UNKNOWN, batch = kiln_infer_dim(c, Q, 0),
                   rows = kiln_infer_dim(c, Q, 1);
    KILN_TRY(check_attrs(c));
    KILN_TRY(check_types(c));
    KILN_TRY(head_size(c, &head));
    kiln_dim key[] = {batch, rows, kiln_dim_mul(c->dims, head, a->kv_num_heads)};
    kiln_dim cache[] = {batch, a->kv_num_heads, any, head}, total = total_length(c);
    KILN_TRY(kiln_expect_shape(c, K, "key", 3, key));
    KILN_TRY(kiln_expect_shape(c, V, "value", 3, key));
    KILN_TRY(kiln_expect_shape(c, PAST_K, "past_key", 4, cache));
    cache[2] = kiln_infer_has(c, PAST_K) ? kiln_infer_dim(c, PAST_K, 2) : 0;
    KILN_TRY(kiln_expect_shape(c, PAST_V, "past_value", 4, cache));
    KILN_TRY(kiln_infer_length(c, LENS) >= 0 && kiln_dim_differ(kiln_infer_length(c, LENS), batch)
                 ? KILN_INFER_FAIL(c, SHAPE, "seqlens_k has %lld items for a batch of %lld",
                                   (long long)kiln_infer_length(c, LENS), (long long)batch)
                 : KILN_OK);
    KILN_TRY(kiln_infer_rank(c, LENS, 1, 1));
    KILN_TRY(kiln_expect_single(c, TOTAL, "total_sequence_length"));
    KILN_TRY(check_rotary(c, head));
    KILN_TRY(check_added(c, total));
    kiln_dim heads = a->num_heads;
    KILN_TRY(kiln_expect_shape(c, SINK, "head_sink", 1, &heads));
    if (kiln_dim_known(total) && kiln_dim_known(rows) && total < rows) {
        return KILN_INFER_FAIL(c, VALUE, "total_sequence_length is %lld with %lld new tokens",
                               (long long)total, (long long)rows);
    }
    kiln_dim y[] = {batch, rows, kiln_dim_mul(c->dims, head, heads)};
    cache[2] = cache[2] == 0 ? total : kiln_dim_max(c->dims, cache[2], total);
    kiln_dtype dtype = c->in[Q].type.dtype;
    KILN_TRY(kiln_infer_output(c, 0, dtype, 3, y));
    KILN_TRY(kiln_infer_output(c, 1, dtype, 4, cache));
    return kiln_infer_output(c, 2, dtype, 4, cache);
}

/* ---- Reference ---- */

typedef struct gqa {
    const gqa_attrs *a;
    int64_t batch, rows, dim, cache; /* cache = R */
    int64_t *past;                   /* [batch] tokens before the new ones */
    int64_t *total;                  /* [batch] tokens in all */
    const kiln_tensor *added;
} gqa;

static kiln_status read_lengths(kiln_ref *c, gqa *g, int64_t total) {
    const int32_t *lens = kiln_ref_in(c, LENS)->data;
    const kiln_tensor *old = kiln_ref_in(c, PAST_K);
    int64_t held = old ? old->dims[2] : 0;
    KILN_ALLOC(g->past, c->arena, g->batch);
    KILN_ALLOC(g->total, c->arena, g->batch);
    for (int64_t b = 0; b < g->batch; b++) {
        bool prompt = total == g->rows;
        g->total[b] = (int64_t)lens[b] + 1;
        g->past[b] = prompt ? 0 : g->total[b] - g->rows;
        if (g->total[b] < 0 || g->total[b] > total || g->past[b] < 0 || g->past[b] > held) {
            return KILN_INFER_FAIL(c, VALUE, "seqlens_k[%lld] is %d with %lld new tokens of %lld",
                                   (long long)b, lens[b], (long long)g->rows, (long long)total);
        }
    }
    return KILN_OK;
}

/* Rotates the rows of one head in place; row r is at position `first` + r unless
 * ids say otherwise. */
static kiln_status rotate(kiln_ref *c, const gqa *g, int64_t b, double *v, double *angle) {
    const kiln_tensor *cosines = kiln_ref_in(c, COS), *sines = kiln_ref_in(c, SIN),
                      *ids = kiln_ref_in(c, POSITIONS);
    int64_t half = cosines->dims[1];
    bool pairs = g->a->rotary_interleaved != 0;
    for (int64_t r = 0; r < g->rows; r++, v += g->dim) {
        int64_t at = g->past[b] + r;
        at = ids ? ((const int64_t *)ids->data)[b * g->rows + r] : at < g->total[b] ? at : 0;
        if (at < 0 || at >= cosines->dims[0]) {
            return KILN_INFER_FAIL(c, INDEX, "position %lld, the caches hold %lld", (long long)at,
                                   (long long)cosines->dims[0]);
        }
        kiln_load_f64(cosines, at * half, half, angle);
        kiln_load_f64(sines, at * half, half, angle + half);
        for (int64_t k = 0; k < half; k++) {
            double *p = pairs ? v + 2 * k : v + k, *q = pairs ? p + 1 : p + half, x = *p, y = *q;
            *p = angle[k] * x - angle[half + k] * y;
            *q = angle[half + k] * x + angle[k] * y;
        }
    }
    return KILN_OK;
}

/* Heads of the columns from `first` on of t [B, S, columns], as [B, heads, length, D]: old rows of
 * `past` first, then the new ones, rotated on request. */
static kiln_status gather(kiln_ref *c, const gqa *g, const kiln_tensor *t, int64_t first,
                          int64_t heads, const kiln_tensor *past, int64_t length, bool rotary,
                          double **out) {
    kiln_tensor all;
    const int64_t dims[] = {g->batch, heads, length, g->dim};
    double *angle;
    KILN_TRY(kiln_ref_scratch(c, &all, KILN_DTYPE_F64, 4, dims));
    KILN_ALLOC(angle, c->arena, g->dim + 2);
    *out = all.data;
    for (int64_t n = 0; n < g->batch * heads; n++) {
        int64_t b = n / heads, before = length == g->rows && !past ? 0 : g->past[b];
        double *head = *out + n * length * g->dim;
        if (past) {
            kiln_load_f64(past, n * past->dims[2] * g->dim, before * g->dim, head);
        }
        head += before * g->dim;
        for (int64_t r = 0; r < g->rows; r++) {
            int64_t at = (b * g->rows + r) * t->dims[2] + first + n % heads * g->dim;
            kiln_load_f64(t, at, g->dim, head + r * g->dim);
        }
        if (rotary && g->a->do_rotary) {
            KILN_TRY(rotate(c, g, b, head, angle));
        }
    }
    return KILN_OK;
}

static void bias(const void *user, int64_t b, int64_t h, int64_t i, double *row) {
    const gqa *g = user;
    int64_t at = g->past[b] + i, last = g->total[b] - 1, first = 0;
    if (g->a->causal) {
        last = at < last ? at : last;
    }
    if (g->a->local_window_size > 0 && at - g->a->local_window_size + 1 > 0) {
        first = at - g->a->local_window_size + 1;
    }
    for (int64_t j = 0; j < g->cache; j++) {
        row[j] = j < first || j > last ? -(double)INFINITY : 0;
    }
    const kiln_tensor *t = g->added;
    if (t) {
        int64_t image = t->dims[0] == 1 ? 0 : b, head = t->dims[1] == 1 ? 0 : h, keys = t->dims[3];
        int64_t from = ((image * t->dims[1] + head) * g->rows + i) * keys;
        for (int64_t j = first; j <= last && j < keys; j++) {
            row[j] += kiln_get_f64(t->dtype, t->data, from + j);
        }
    }
}

static kiln_status read_sink(kiln_ref *c, const gqa *g, const double **out) {
    const kiln_tensor *sink = kiln_ref_in(c, SINK);
    double *v;
    *out = NULL;
    if (!sink && g->a->smooth_softmax != 1) {
        return KILN_OK;
    }
    KILN_ALLOC(v, c->arena, g->a->num_heads);
    if (sink) {
        kiln_load_f64(sink, 0, g->a->num_heads, v);
    }
    *out = v;
    return KILN_OK;
}

static kiln_status load(kiln_ref *c, const gqa *g, double **q, double **k, double **v) {
    const kiln_tensor *tq = kiln_ref_in(c, Q), *tk = kiln_ref_in(c, K), *tv = kiln_ref_in(c, V);
    int64_t heads = g->a->num_heads, groups = g->a->kv_num_heads, at = tk ? 0 : heads * g->dim;
    KILN_TRY(gather(c, g, tq, 0, heads, NULL, g->rows, true, q));
    KILN_TRY(gather(c, g, tk ? tk : tq, at, groups, kiln_ref_in(c, PAST_K), g->cache, true, k));
    at += tk ? 0 : groups * g->dim;
    return gather(c, g, tv ? tv : tq, at, groups, kiln_ref_in(c, PAST_V), g->cache, false, v);
}

static kiln_status ref(kiln_ref *c) {
    const gqa_attrs *a = c->attrs;
    const kiln_tensor *tq = kiln_ref_in(c, Q), *total = kiln_ref_in(c, TOTAL),
                      *past = kiln_ref_in(c, PAST_K);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t all = ((const int32_t *)total->data)[0], held = past ? past->dims[2] : 0;
    gqa g = {.a = a,
             .batch = tq->dims[0],
             .rows = tq->dims[1],
             .dim = y->dims[2] / a->num_heads,
             .cache = held > all ? held : all,
             .added = kiln_ref_in(c, ADDED)};
    double *q, *k, *v, *out;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(read_lengths(c, &g, all));
    KILN_TRY(load(c, &g, &q, &k, &v));
    kiln_attention job = {.batch = g.batch,
                          .heads = a->num_heads,
                          .kv_heads = a->kv_num_heads,
                          .q_len = g.rows,
                          .kv_len = g.cache,
                          .qk_dim = g.dim,
                          .v_dim = g.dim,
                          .k_scale = 1,
                          .softcap = (double)a->softcap,
                          .bias = bias,
                          .user = &g,
                          .zero_masked = true};
    job.q_scale = a->scale != 0 ? (double)a->scale : 1 / sqrt((double)g.dim);
    KILN_TRY(read_sink(c, &g, &job.sink));
    KILN_ALLOC(out, c->arena, kiln_tensor_count(y));
    KILN_TRY(kiln_attention_run(c, &job, q, k, v, out));
    kiln_heads h = {g.batch, a->num_heads, g.rows, g.dim};
    kiln_heads_store(y, &h, out);
    for (int32_t i = 1; i <= 2; i++) {
        kiln_tensor *present = kiln_ref_out(c, i);
        if (present) {
            kiln_store_f64(present, 0, kiln_tensor_count(present), i == 1 ? k : v);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_ms_group_query_attention = {
    .name = "GroupQueryAttention",
    .domain = "com.microsoft",
    .since = 1,
    .min_in = 1,
    .max_in = 16,
    .min_out = 1,
    .max_out = 3,
    KILN_OP_ATTRS(table, gqa_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
