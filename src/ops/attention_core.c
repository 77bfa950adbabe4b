/* attention_core.c - see attention_core.h. */
#include "ops/attention_core.h"

#include <math.h>
#include <string.h>

#include "ops/bulk.h"
#include "ops/softmax.h"

/* ---- Heads ---- */

kiln_heads kiln_heads_of(const kiln_tensor *t, int64_t heads) {
    if (t->rank == 4) {
        return (kiln_heads){t->dims[0], t->dims[1], t->dims[2], t->dims[3]};
    }
    return (kiln_heads){t->dims[0], heads, t->dims[1], t->dims[2] / heads};
}

/* Where (b, head, row) begins in a 3-D or 4-D tensor. */
static int64_t row_at(const kiln_tensor *t, const kiln_heads *h, int64_t b, int64_t n, int64_t r) {
    int64_t row =
        t->rank == 4 ? (b * h->heads + n) * h->rows + r : (b * h->rows + r) * h->heads + n;
    return row * h->dim;
}

void kiln_heads_load(const kiln_tensor *t, const kiln_heads *h, int64_t total, int64_t first,
                     double *dst) {
    for (int64_t b = 0; b < h->batch; b++) {
        for (int64_t n = 0; n < h->heads; n++) {
            double *head = dst + ((b * h->heads + n) * total + first) * h->dim;
            for (int64_t r = 0; r < h->rows; r++) {
                kiln_load_f64(t, row_at(t, h, b, n, r), h->dim, head + r * h->dim);
            }
        }
    }
}

void kiln_heads_store(kiln_tensor *t, const kiln_heads *h, const double *y) {
    for (int64_t b = 0; b < h->batch; b++) {
        for (int64_t n = 0; n < h->heads; n++) {
            for (int64_t r = 0; r < h->rows; r++, y += h->dim) {
                kiln_store_f64(t, row_at(t, h, b, n, r), h->dim, y);
            }
        }
    }
}

kiln_status kiln_heads_concat(kiln_ref *c, const kiln_tensor *past, const kiln_tensor *t,
                              const kiln_heads *h, double **out) {
    kiln_tensor all;
    kiln_heads before = past ? kiln_heads_of(past, h->heads) : (kiln_heads){0};
    int64_t total = before.rows + h->rows;
    const int64_t dims[] = {h->batch, h->heads, total, h->dim};
    KILN_TRY(kiln_ref_scratch(c, &all, KILN_DTYPE_F64, 4, dims));
    *out = all.data;
    if (past) {
        kiln_heads_load(past, &before, total, 0, *out);
    }
    kiln_heads_load(t, h, total, before.rows, *out);
    return KILN_OK;
}

/* ---- Attention ---- */

typedef struct run {
    const kiln_attention *a;
    double *kt;   /* [qk_dim, kv_len] one head of K, transposed and scaled */
    double *q;    /* [qk_dim] one query, scaled */
    double *row;  /* [kv_len] its scores */
    double *bias; /* [kv_len] */
} run;

static bool rounds(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_F16 || dtype == KILN_DTYPE_BF16;
}

static void round_row(kiln_dtype dtype, double *v, int64_t n) {
    for (int64_t i = 0; rounds(dtype) && i < n; i++) {
        v[i] = kiln_round_to(dtype, v[i]);
    }
}

static void load_key(run *r, const double *k) {
    const kiln_attention *a = r->a;
    for (int64_t j = 0; j < a->kv_len; j++) {
        for (int64_t d = 0; d < a->qk_dim; d++) {
            r->kt[d * a->kv_len + j] = k[j * a->qk_dim + d] * a->k_scale;
        }
    }
    round_row(a->round, r->kt, a->qk_dim * a->kv_len);
}

static void scores(run *r, const double *q) {
    const kiln_attention *a = r->a;
    for (int64_t d = 0; d < a->qk_dim; d++) {
        r->q[d] = q[d] * a->q_scale;
    }
    round_row(a->round, r->q, a->qk_dim);
    memset(r->row, 0, (size_t)a->kv_len * sizeof *r->row);
    for (int64_t d = 0; d < a->qk_dim; d++) {
        const double *line = r->kt + d * a->kv_len;
        for (int64_t j = 0; j < a->kv_len; j++) {
            r->row[j] += r->q[d] * line[j];
        }
    }
    round_row(a->round, r->row, a->kv_len);
}

static void keep(const run *r, int stage, int64_t number, const double *row) {
    kiln_tensor *t = r->a->stage[stage];
    if (t) {
        kiln_store_f64(t, number * r->a->kv_len, r->a->kv_len, row);
    }
}

static void cap(run *r) {
    const kiln_attention *a = r->a;
    for (int64_t j = 0; a->softcap > 0 && j < a->kv_len; j++) {
        r->row[j] = a->softcap * tanh(r->row[j] / a->softcap);
    }
    round_row(a->softcap > 0 ? a->round : KILN_DTYPE_NONE, r->row, a->kv_len);
}

/* Adds the bias; true when the query sees no key. */
static bool add_bias(run *r, int64_t b, int64_t h, int64_t i) {
    const kiln_attention *a = r->a;
    bool masked = true;
    if (!a->bias) {
        return false;
    }
    memset(r->bias, 0, (size_t)a->kv_len * sizeof *r->bias);
    a->bias(a->user, b, h, i, r->bias);
    for (int64_t j = 0; j < a->kv_len; j++) {
        masked = masked && r->bias[j] == -(double)INFINITY;
        r->row[j] += r->bias[j];
    }
    round_row(a->round, r->row, a->kv_len);
    return masked;
}

static void softmax(run *r, int64_t h) {
    const kiln_attention *a = r->a;
    kiln_dtype dtype = a->softmax ? a->softmax : a->round;
    round_row(dtype, r->row, a->kv_len);
    kiln_softmax_row(r->row, a->kv_len, dtype, a->sink ? a->sink + h : NULL);
    round_row(a->round, r->row, a->kv_len);
}

static void query(run *r, int64_t b, int64_t h, int64_t i, const double *q, const double *v,
                  double *y) {
    const kiln_attention *a = r->a;
    int64_t number = (b * a->heads + h) * a->q_len + i;
    scores(r, q);
    keep(r, KILN_SCORES_RAW, number, r->row);
    cap(r);
    keep(r, KILN_SCORES_CAPPED, number, r->row);
    bool masked = add_bias(r, b, h, i) && a->zero_masked;
    keep(r, KILN_SCORES_BIASED, number, r->row);
    if (masked) {
        memset(r->row, 0, (size_t)a->kv_len * sizeof *r->row);
    } else {
        softmax(r, h);
    }
    keep(r, KILN_SCORES_PROBS, number, r->row);
    memset(y, 0, (size_t)a->v_dim * sizeof *y);
    for (int64_t j = 0; !masked && j < a->kv_len; j++) {
        for (int64_t e = 0; e < a->v_dim; e++) {
            y[e] += r->row[j] * v[j * a->v_dim + e];
        }
    }
}

kiln_status kiln_attention_run(kiln_ref *c, const kiln_attention *a, const double *q,
                               const double *k, const double *v, double *y) {
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    kiln_tensor kt;
    const int64_t dims[] = {a->qk_dim, a->kv_len};
    run r = {.a = a};
    KILN_TRY(kiln_ref_scratch(c, &kt, KILN_DTYPE_F64, 2, dims));
    r.kt = kt.data;
    KILN_ALLOC(r.q, c->arena, a->qk_dim);
    KILN_ALLOC(r.row, c->arena, a->kv_len);
    KILN_ALLOC(r.bias, c->arena, a->kv_len);
    int64_t share = a->kv_heads ? a->heads / a->kv_heads : 1;
    for (int64_t n = 0; n < a->batch * a->heads; n++) {
        int64_t b = n / a->heads, h = n % a->heads, from = b * a->kv_heads + h / share;
        if (h % share == 0) {
            load_key(&r, k + from * a->kv_len * a->qk_dim);
        }
        for (int64_t i = 0; i < a->q_len; i++) {
            int64_t row = n * a->q_len + i;
            KILN_TRY(kiln_ref_poll(c));
            query(&r, b, h, i, q + row * a->qk_dim, v + from * a->kv_len * a->v_dim,
                  y + row * a->v_dim);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

int64_t kiln_attention_macs(int64_t rows, int64_t keys, int64_t dims) {
    int64_t macs;
    bool fits = kiln_mul_i64(rows, keys, &macs) && kiln_mul_i64(macs, dims, &macs);
    return fits ? macs : INT64_MAX;
}
