/* attention.c - Attention: softmax(scale Q K^T + mask) V over heads, with key and value cache.
 *
 * Legend as in attention_core.h, with P past keys: L = P + the keys of K. Inputs are 4-D
 * [B, heads, rows, dim] or 3-D [B, rows, heads * dim]; caches and scores are always 4-D. */
#include <math.h>

#include "ops/attention_core.h"
#include "ops/bulk.h"

enum { Q, K, V, MASK, PAST_K, PAST_V, NONPAD };
enum { Y, PRESENT_K, PRESENT_V, SCORES };

static const kiln_attr table[] = {
    KILN_A_INT(kiln_attention_attrs, is_causal, 0),
    KILN_A_INT(kiln_attention_attrs, kv_num_heads, KILN_ABSENT),
    KILN_A_INT(kiln_attention_attrs, left_window_size, -1),
    KILN_A_INT(kiln_attention_attrs, q_num_heads, KILN_ABSENT),
    KILN_A_INT(kiln_attention_attrs, qk_matmul_output_mode, 0),
    KILN_A_INT(kiln_attention_attrs, right_window_size, -1),
    KILN_A_FLOAT(kiln_attention_attrs, scale, 0),
    KILN_A_FLOAT(kiln_attention_attrs, softcap, 0),
    KILN_A_INT(kiln_attention_attrs, softmax_precision, KILN_ABSENT),
};

/* ---- Inference ---- */

typedef struct shapes {
    kiln_dim batch, heads, kv_heads, q_len, new_len, past, total, qk_dim, v_dim;
} shapes;

static kiln_status check_attrs(const kiln_infer *c) {
    const kiln_attention_attrs *a = c->attrs;
    uint32_t floats = KILN_T_FLOAT;
    if (a->qk_matmul_output_mode < 0 || a->qk_matmul_output_mode > 3) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "qk_matmul_output_mode is %lld, not 0 to 3",
                               (long long)a->qk_matmul_output_mode);
    }
    if (!(a->scale >= 0) || isinf(a->scale) || !(a->softcap >= 0) || isinf(a->softcap)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "scale is %g, softcap is %g", (double)a->scale,
                               (double)a->softcap);
    }
    if (a->left_window_size < -1 || a->right_window_size < -1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "the window is %lld to the left, %lld to the right",
                               (long long)a->left_window_size, (long long)a->right_window_size);
    }
    int64_t p = a->softmax_precision;
    if (p != KILN_ABSENT && (p < 1 || p >= KILN_DTYPE_COUNT || !(floats >> p & 1))) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "softmax_precision is %lld, no float type",
                               (long long)p);
    }
    return KILN_OK;
}

/* The head count, row count and head size of input i. */
static kiln_status read_heads(const kiln_infer *c, int32_t i, int64_t heads, const char *what,
                              kiln_dim *n, kiln_dim *rows, kiln_dim *dim) {
    if (kiln_infer_in_rank(c, i) == 4) {
        *n = kiln_infer_dim(c, i, 1);
        *rows = kiln_infer_dim(c, i, 2);
        *dim = kiln_infer_dim(c, i, 3);
        if (heads != KILN_ABSENT && kiln_dim_differ(heads, *n)) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "%s has %lld heads, the attribute says %lld",
                                   what, (long long)*n, (long long)heads);
        }
        return KILN_OK;
    }
    *n = heads == KILN_ABSENT ? KILN_DIM_UNKNOWN : heads;
    *rows = kiln_infer_dim(c, i, 1);
    *dim = KILN_DIM_UNKNOWN;
    if (kiln_infer_in_rank(c, i) != 3) {
        return KILN_OK;
    }
    if (heads == KILN_ABSENT) {
        return KILN_INFER_FAIL(c, ATTRIBUTE, "3-D inputs need q_num_heads and kv_num_heads");
    }
    return kiln_expect_split(c, kiln_infer_dim(c, i, 2), heads, what, dim);
}

static kiln_status check_rank(const kiln_infer *c) {
    int32_t rank = kiln_infer_in_rank(c, Q);
    for (int32_t i = Q; i <= V; i++) {
        int32_t r = kiln_infer_in_rank(c, i);
        KILN_TRY(kiln_infer_rank(c, i, 3, 4));
        KILN_TRY(kiln_infer_dtype(c, i, KILN_T_FLOAT));
        if (rank >= 0 && r >= 0 && r != rank) {
            return KILN_INFER_FAIL(c, SHAPE, "Q has rank %d, input %d has %d", rank, i, r);
        }
    }
    return KILN_OK;
}

static kiln_status read_shapes(const kiln_infer *c, shapes *s) {
    const kiln_attention_attrs *a = c->attrs;
    kiln_dim v_heads, v_len, k_dim;
    KILN_TRY(check_rank(c));
    s->batch = kiln_infer_dim(c, Q, 0);
    KILN_TRY(read_heads(c, Q, a->q_num_heads, "Q", &s->heads, &s->q_len, &s->qk_dim));
    KILN_TRY(read_heads(c, K, a->kv_num_heads, "K", &s->kv_heads, &s->new_len, &k_dim));
    KILN_TRY(read_heads(c, V, a->kv_num_heads, "V", &v_heads, &v_len, &s->v_dim));
    KILN_TRY(kiln_expect_dim(c, K, 0, s->batch, "K"));
    KILN_TRY(kiln_expect_dim(c, V, 0, s->batch, "V"));
    if (kiln_dim_differ(s->qk_dim, k_dim) || kiln_dim_differ(s->kv_heads, v_heads) ||
        kiln_dim_differ(s->new_len, v_len)) {
        return KILN_INFER_FAIL(
            c, SHAPE,
            "Q, K and V do not fit: head sizes %lld and %lld, %lld and %lld heads, "
            "%lld and %lld keys",
            (long long)s->qk_dim, (long long)k_dim, (long long)s->kv_heads, (long long)v_heads,
            (long long)s->new_len, (long long)v_len);
    }
    bool known = kiln_dim_known(s->heads) && kiln_dim_known(s->kv_heads);
    if (known && (s->kv_heads < 1 || s->heads % s->kv_heads != 0)) {
        return KILN_INFER_FAIL(c, SHAPE, "%lld query heads cannot share %lld key heads",
                               (long long)s->heads, (long long)s->kv_heads);
    }
    s->past = kiln_infer_has(c, PAST_K) ? kiln_infer_dim(c, PAST_K, 2) : 0;
    s->total = kiln_dim_add(c->dims, s->past, s->new_len);
    return KILN_OK;
}

static kiln_status check_mask(const kiln_infer *c, const shapes *s) {
    int32_t rank = kiln_infer_in_rank(c, MASK);
    kiln_dim want[] = {s->batch, s->heads, s->q_len};
    KILN_TRY(kiln_infer_rank(c, MASK, 1, 4));
    KILN_TRY(kiln_infer_dtype(c, MASK, KILN_T_FLOAT | KILN_T(BOOL)));
    for (int32_t d = 2; d <= rank; d++) {
        kiln_dim got = kiln_infer_dim(c, MASK, -d);
        if (kiln_dim_differ(got, 1) && kiln_dim_differ(got, want[4 - d])) {
            return KILN_INFER_FAIL(c, SHAPE, "dim %d of the mask is %lld where %lld are needed",
                                   rank - d, (long long)got, (long long)want[4 - d]);
        }
    }
    kiln_dim keys = kiln_infer_dim(c, MASK, -1);
    if (kiln_dim_known(keys) && kiln_dim_known(s->total) && keys > s->total) {
        return KILN_INFER_FAIL(c, SHAPE, "the mask is for %lld keys, there are %lld",
                               (long long)keys, (long long)s->total);
    }
    return KILN_OK;
}

static kiln_status check_cache(const kiln_infer *c, const shapes *s) {
    kiln_dim key[] = {s->batch, s->kv_heads, s->past, s->qk_dim};
    kiln_dim value[] = {s->batch, s->kv_heads, s->past, s->v_dim};
    if (kiln_infer_has(c, PAST_K) != kiln_infer_has(c, PAST_V)) {
        return KILN_INFER_FAIL(c, ARITY, "past_key and past_value must be given together");
    }
    if (kiln_infer_has(c, NONPAD) && kiln_infer_has(c, PAST_K)) {
        return KILN_INFER_FAIL(c, ARITY, "nonpad_kv_seqlen cannot be used together with past_key");
    }
    KILN_TRY(kiln_infer_same_dtype(c, Q, K));
    KILN_TRY(kiln_infer_same_dtype(c, K, PAST_K));
    KILN_TRY(kiln_infer_same_dtype(c, V, PAST_V));
    KILN_TRY(kiln_infer_dtype(c, NONPAD, KILN_T(I64)));
    KILN_TRY(kiln_expect_shape(c, PAST_K, "past_key", 4, key));
    KILN_TRY(kiln_expect_shape(c, PAST_V, "past_value", 4, value));
    return kiln_expect_shape(c, NONPAD, "nonpad_kv_seqlen", 1, &s->batch);
}

static kiln_status infer(kiln_infer *c) {
    shapes s;
    KILN_TRY(check_attrs(c));
    KILN_TRY(read_shapes(c, &s));
    KILN_TRY(check_cache(c, &s));
    KILN_TRY(check_mask(c, &s));
    kiln_dtype t1 = c->in[Q].type.dtype, t2 = c->in[V].type.dtype;
    kiln_dim y3[] = {s.batch, s.q_len, kiln_dim_mul(c->dims, s.heads, s.v_dim)};
    kiln_dim y4[] = {s.batch, s.heads, s.q_len, s.v_dim};
    kiln_dim key[] = {s.batch, s.kv_heads, s.total, s.qk_dim};
    kiln_dim value[] = {s.batch, s.kv_heads, s.total, s.v_dim};
    kiln_dim scores[] = {s.batch, s.heads, s.q_len, s.total};
    int32_t rank = kiln_infer_in_rank(c, Q);
    KILN_TRY(kiln_infer_output(c, Y, t1, rank, rank == 3 ? y3 : y4));
    KILN_TRY(kiln_infer_output(c, PRESENT_K, t1, 4, key));
    KILN_TRY(kiln_infer_output(c, PRESENT_V, t2, 4, value));
    return kiln_infer_output(c, SCORES, t1, 4, scores);
}

/* ---- Reference ---- */

typedef struct masks {
    const kiln_attention_attrs *a;
    const kiln_tensor *mask;
    int64_t stride[3]; /* of the mask: batch, head, query; 0 where it is repeated */
    int64_t keys;      /* of the mask; past them nothing is seen */
    int64_t kv_len, past, q_len;
    const int64_t *nonpad;
} masks;

static void add_mask(const masks *m, int64_t at, double *row) {
    const kiln_tensor *t = m->mask;
    for (int64_t j = 0; j < m->kv_len; j++) {
        double v = -(double)INFINITY;
        if (j < m->keys) {
            v = kiln_get_f64(t->dtype, t->data, at + j);
            v = t->dtype == KILN_DTYPE_BOOL ? (v != 0 ? 0 : -(double)INFINITY) : v;
        }
        row[j] += v;
    }
}

static void bias(const void *user, int64_t b, int64_t h, int64_t i, double *row) {
    const masks *m = user;
    const kiln_attention_attrs *a = m->a;
    int64_t length = m->nonpad ? m->nonpad[b] : m->kv_len;
    int64_t at = i + (m->nonpad ? length - m->q_len : m->past), first = 0, last = length - 1;
    if (m->mask) {
        add_mask(m, b * m->stride[0] + h * m->stride[1] + i * m->stride[2], row);
    }
    if (a->is_causal) {
        last = at < last ? at : last;
    }
    if (a->right_window_size >= 0 && a->right_window_size < last - at) {
        last = at + a->right_window_size;
    }
    if (a->left_window_size >= 0 && a->left_window_size < at) {
        first = at - a->left_window_size;
    }
    for (int64_t j = 0; j < m->kv_len; j++) {
        if (j < first || j > last) {
            row[j] += -(double)INFINITY;
        }
    }
}

static kiln_status make_masks(const kiln_ref *c, const kiln_attention *job, masks *m) {
    const kiln_tensor *mask = kiln_ref_in(c, MASK), *nonpad = kiln_ref_in(c, NONPAD);
    int64_t s = mask ? mask->dims[mask->rank - 1] : 0;
    const kiln_tensor *past = kiln_ref_in(c, PAST_K);
    *m = (masks){.a = c->attrs,
                 .mask = mask,
                 .keys = s,
                 .kv_len = job->kv_len,
                 .q_len = job->q_len,
                 .past = past ? past->dims[2] : 0};
    for (int32_t d = 2; mask && d <= mask->rank; d++) {
        int64_t n = mask->dims[mask->rank - d];
        m->stride[4 - d] = n == 1 ? 0 : s;
        s *= n;
    }
    m->nonpad = nonpad ? nonpad->data : NULL;
    for (int64_t b = 0; nonpad && b < job->batch; b++) {
        if (m->nonpad[b] < 0 || m->nonpad[b] > job->kv_len) {
            return KILN_INFER_FAIL(c, VALUE, "nonpad_kv_seqlen[%lld] is %lld, there are %lld keys",
                                   (long long)b, (long long)m->nonpad[b], (long long)job->kv_len);
        }
    }
    return KILN_OK;
}

/* Q and K both get the root of the scale, in their own type. */
static void set_scale(kiln_attention *job, float scale) {
    double s = scale != 0 ? (double)scale : 1 / sqrt((double)job->qk_dim);
    job->q_scale = job->k_scale = kiln_round_to(job->round, sqrt(s));
}

static void give_present(kiln_ref *c, int32_t i, const double *v) {
    kiln_tensor *t = kiln_ref_out(c, i);
    if (t) {
        kiln_heads h = kiln_heads_of(t, 0);
        kiln_heads_store(t, &h, v);
    }
}

static kiln_status ref(kiln_ref *c) {
    const kiln_attention_attrs *a = c->attrs;
    const kiln_tensor *tq = kiln_ref_in(c, Q), *tk = kiln_ref_in(c, K), *tv = kiln_ref_in(c, V);
    const kiln_tensor *past = kiln_ref_in(c, PAST_K);
    kiln_heads hq = kiln_heads_of(tq, a->q_num_heads), hk = kiln_heads_of(tk, a->kv_num_heads);
    kiln_heads hv = kiln_heads_of(tv, a->kv_num_heads);
    kiln_attention job = {.batch = hq.batch,
                          .heads = hq.heads,
                          .kv_heads = hk.heads,
                          .q_len = hq.rows,
                          .kv_len = hk.rows + (past ? past->dims[2] : 0),
                          .qk_dim = hq.dim,
                          .v_dim = hv.dim,
                          .softcap = (double)a->softcap,
                          .round = tq->dtype,
                          .zero_masked = true,
                          .bias = bias};
    masks m;
    double *q, *k, *v, *y;
    KILN_TRY(make_masks(c, &job, &m));
    job.user = &m;
    job.softmax =
        a->softmax_precision == KILN_ABSENT ? KILN_DTYPE_NONE : (kiln_dtype)a->softmax_precision;
    job.stage[a->qk_matmul_output_mode] = kiln_ref_out(c, SCORES);
    set_scale(&job, a->scale);
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(kiln_heads_concat(c, NULL, tq, &hq, &q));
    KILN_TRY(kiln_heads_concat(c, past, tk, &hk, &k));
    KILN_TRY(kiln_heads_concat(c, kiln_ref_in(c, PAST_V), tv, &hv, &v));
    hq.dim = hv.dim;
    KILN_ALLOC(y, c->arena, kiln_tensor_count(kiln_ref_out(c, Y)));
    KILN_TRY(kiln_attention_run(c, &job, q, k, v, y));
    kiln_heads_store(kiln_ref_out(c, Y), &hq, y);
    give_present(c, PRESENT_K, k);
    give_present(c, PRESENT_V, v);
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    const kiln_attention_attrs *a = node->attrs;
    kiln_tensor q = {0}, k = {0}, v = {0}, past = {0};
    (void)out;
    if (!kiln_type_to_tensor(&in[Q].type, &q) || !kiln_type_to_tensor(&in[K].type, &k) ||
        !kiln_type_to_tensor(&in[V].type, &v) || q.rank < 3 ||
        (q.rank == 3 && a->q_num_heads < 1) || (q.rank == 3 && a->kv_num_heads < 1)) {
        return;
    }
    kiln_heads hq = kiln_heads_of(&q, a->q_num_heads), hk = kiln_heads_of(&k, a->kv_num_heads);
    kiln_heads hv = kiln_heads_of(&v, a->kv_num_heads);
    bool has_past =
        node->n_in > PAST_K && kiln_type_to_tensor(&in[PAST_K].type, &past) && past.rank == 4;
    int64_t keys = hk.rows + (has_past ? past.dims[2] : 0);
    result->macs = kiln_attention_macs(hq.batch * hq.heads * hq.rows, keys, hq.dim + hv.dim);
}

const kiln_op kiln_op_attention = {
    .name = "Attention",
    .domain = "",
    .since = 25,
    .min_in = 3,
    .max_in = 7,
    .min_out = 1,
    .max_out = 4,
    KILN_OP_ATTRS(table, kiln_attention_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
    .cost = cost,
};
