/* ms_attention.c - com.microsoft Attention: one product makes Q, K and V, then attention over
 * heads.
 *
 * Legend as in ms_attention.h; input [B, S, I], weights [I, D + D + E] and bias of the hidden sizes
 * of Q and K (D), V (E); past and present [2, B, H, rows, head size]. */
#include <math.h>

#include "ops/bulk.h"
#include "ops/matmul_core.h"
#include "ops/ms_attention.h"

typedef struct ms_attrs {
    int64_t do_rotary;
    float mask_filter_value;
    int64_t num_heads;
    int64_t past_present_share_buffer;
    kiln_ints qkv_hidden_sizes;
    int64_t rotary_embedding_dim;
    float scale;
    int64_t unidirectional;
} ms_attrs;

enum { INPUT, WEIGHTS, BIAS, MASK, PAST, ADDED, PAST_LENGTH };

static const kiln_attr table[] = {
    KILN_A_INT(ms_attrs, do_rotary, 0),       KILN_A_FLOAT(ms_attrs, mask_filter_value, -10000),
    KILN_A_INT_REQUIRED(ms_attrs, num_heads), KILN_A_INT(ms_attrs, past_present_share_buffer, 0),
    KILN_A_INTS(ms_attrs, qkv_hidden_sizes),  KILN_A_INT(ms_attrs, rotary_embedding_dim, 0),
    KILN_A_FLOAT(ms_attrs, scale, 0),         KILN_A_INT(ms_attrs, unidirectional, 0),
};

/* ---- Inference ---- */

/* Hidden sizes of Q (and K) and V; unknown where the weights' columns are. */
static kiln_status hidden_sizes(const kiln_infer *c, kiln_dim *qk, kiln_dim *v) {
    const ms_attrs *a = c->attrs;
    const kiln_ints *sizes = &a->qkv_hidden_sizes;
    kiln_dim columns = kiln_infer_dim(c, WEIGHTS, 1), head;
    if (!sizes->v) {
        KILN_TRY(kiln_expect_split(c, columns, 3, "the weights' columns", qk));
        *v = *qk;
        return kiln_expect_split(c, *qk, a->num_heads, "num_heads", &head);
    }
    bool fits = sizes->n == 3 && sizes->v[0] == sizes->v[1];
    for (int64_t i = 0; fits && i < 3; i++) {
        fits = sizes->v[i] > 0 && sizes->v[i] <= INT32_MAX && sizes->v[i] % a->num_heads == 0;
    }
    if (!fits || kiln_dim_differ(columns, 2 * sizes->v[0] + sizes->v[2])) {
        return KILN_INFER_FAIL(c, ATTR_VALUE,
                               "qkv_hidden_sizes does not fit %lld heads and %lld columns",
                               (long long)a->num_heads, (long long)columns);
    }
    *qk = sizes->v[0];
    *v = sizes->v[2];
    return KILN_OK;
}

static kiln_status check_inputs(const kiln_infer *c, kiln_dim *qk, kiln_dim *v) {
    const ms_attrs *a = c->attrs;
    kiln_dim columns = kiln_infer_dim(c, WEIGHTS, 1);
    KILN_TRY(kiln_ms_attention_check(c, a->num_heads, a->scale));
    if (a->do_rotary || a->past_present_share_buffer || kiln_infer_has(c, PAST_LENGTH)) {
        return KILN_INFER_FAIL(c, VARIANT,
                               "do_rotary and past_present_share_buffer are not supported");
    }
    KILN_TRY(kiln_infer_dtype(c, INPUT, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, INPUT, WEIGHTS));
    KILN_TRY(kiln_infer_same_dtype(c, INPUT, BIAS));
    KILN_TRY(kiln_infer_same_dtype(c, INPUT, PAST));
    KILN_TRY(kiln_infer_rank(c, INPUT, 3, 3));
    KILN_TRY(kiln_infer_rank(c, WEIGHTS, 2, 2));
    KILN_TRY(kiln_expect_dim(c, WEIGHTS, 0, kiln_infer_dim(c, INPUT, 2), "the weights"));
    KILN_TRY(kiln_expect_shape(c, BIAS, "the bias", 1, &columns));
    return hidden_sizes(c, qk, v);
}

static kiln_status infer(kiln_infer *c) {
    const ms_attrs *a = c->attrs;
    kiln_dim qk = KILN_DIM_UNKNOWN, v = KILN_DIM_UNKNOWN, head, any = KILN_DIM_UNKNOWN;
    KILN_TRY(check_inputs(c, &qk, &v));
    kiln_dim batch = kiln_infer_dim(c, INPUT, 0), rows = kiln_infer_dim(c, INPUT, 1);
    KILN_TRY(kiln_expect_split(c, qk, a->num_heads, "num_heads", &head));
    kiln_dim past[] = {2, batch, a->num_heads, any, head};
    KILN_TRY(kiln_expect_shape(c, PAST, "past", 5, past));
    bool cached = kiln_infer_has(c, PAST) || c->n_out > 1;
    if (cached && kiln_dim_differ(qk, v)) {
        return KILN_INFER_FAIL(c, VARIANT,
                               "past and present with different hidden sizes of K and V");
    }
    kiln_dim before = kiln_infer_has(c, PAST) ? kiln_infer_dim(c, PAST, 3) : 0;
    past[3] = kiln_dim_add(c->dims, before, rows);
    KILN_TRY(kiln_ms_masks_check(c, MASK, ADDED, batch, a->num_heads, rows, past[3]));
    kiln_dim y[] = {batch, rows, v};
    KILN_TRY(kiln_infer_output(c, 0, c->in[INPUT].type.dtype, 3, y));
    return kiln_infer_output(c, 1, c->in[INPUT].type.dtype, 5, past);
}

/* ---- Reference ---- */

typedef struct project {
    int64_t rows, columns;
    double *all; /* [rows, columns] input * weights + bias */
} project;

static kiln_status multiply(kiln_ref *c, project *p) {
    const kiln_tensor *x = kiln_ref_in(c, INPUT), *w = kiln_ref_in(c, WEIGHTS),
                      *bias = kiln_ref_in(c, BIAS);
    kiln_product product = {.a = x,
                            .b = w,
                            .m = p->rows,
                            .k = w->dims[0],
                            .n = p->columns,
                            .a_row = w->dims[0],
                            .a_col = 1,
                            .b_row = p->columns,
                            .b_col = 1};
    kiln_tensor all;
    const int64_t dims[] = {p->rows, p->columns};
    KILN_TRY(kiln_ref_scratch(c, &all, KILN_DTYPE_F64, 2, dims));
    p->all = all.data;
    for (int64_t i = 0; bias && i < p->rows; i++) {
        kiln_load_f64(bias, 0, p->columns, p->all + i * p->columns);
    }
    return kiln_product_f64(c, &product, p->all);
}

/* Columns first .. of the projection as [B, H, P + S, dim], after half `which` of the
 * past if any. */
static kiln_status take(kiln_ref *c, const project *p, const kiln_heads *h, int64_t first,
                        int32_t which, double **out) {
    const kiln_tensor *past = which >= 0 ? kiln_ref_in(c, PAST) : NULL;
    int64_t before = past ? past->dims[3] : 0, total = before + h->rows;
    kiln_tensor all;
    const int64_t dims[] = {h->batch, h->heads, total, h->dim};
    KILN_TRY(kiln_ref_scratch(c, &all, KILN_DTYPE_F64, 4, dims));
    *out = all.data;
    for (int64_t n = 0; n < h->batch * h->heads; n++) {
        double *head = *out + n * total * h->dim;
        if (past) {
            int64_t at = (which * h->batch * h->heads + n) * before * h->dim;
            kiln_load_f64(past, at, before * h->dim, head);
        }
        for (int64_t r = 0; r < h->rows; r++) {
            const double *src =
                p->all + (n / h->heads * h->rows + r) * p->columns + first + n % h->heads * h->dim;
            for (int64_t d = 0; d < h->dim; d++) {
                head[(before + r) * h->dim + d] = src[d];
            }
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const ms_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, INPUT), *past = kiln_ref_in(c, PAST);
    kiln_tensor *y = kiln_ref_out(c, 0), *present = kiln_ref_out(c, 1);
    project p = {.rows = x->dims[0] * x->dims[1], .columns = kiln_ref_in(c, WEIGHTS)->dims[1]};
    int64_t v_size = y->dims[2], size = (p.columns - v_size) / 2;
    kiln_heads h = {x->dims[0], a->num_heads, x->dims[1], size / a->num_heads}, hv = h;
    kiln_ms_masks m = {.mask = kiln_ref_in(c, MASK),
                       .bias = kiln_ref_in(c, ADDED),
                       .batch = h.batch,
                       .q_len = h.rows,
                       .past = past ? past->dims[3] : 0,
                       .filter = (double)a->mask_filter_value,
                       .causal = a->unidirectional != 0};
    m.kv_len = m.past + h.rows;
    hv.dim = v_size / a->num_heads;
    kiln_attention job = {.batch = h.batch,
                          .heads = h.heads,
                          .kv_heads = h.heads,
                          .q_len = h.rows,
                          .kv_len = m.kv_len,
                          .qk_dim = h.dim,
                          .v_dim = hv.dim,
                          .k_scale = 1,
                          .bias = kiln_ms_masks_add,
                          .user = &m};
    job.q_scale = a->scale != 0 ? (double)a->scale : 1 / sqrt((double)h.dim);
    double *q, *k, *v, *out;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(multiply(c, &p));
    KILN_TRY(take(c, &p, &h, 0, -1, &q));
    KILN_TRY(take(c, &p, &h, size, 0, &k));
    KILN_TRY(take(c, &p, &hv, 2 * size, 1, &v));
    KILN_ALLOC(out, c->arena, kiln_tensor_count(y));
    KILN_TRY(kiln_attention_run(c, &job, q, k, v, out));
    kiln_heads_store(y, &hv, out);
    if (present) {
        int64_t half = kiln_tensor_count(present) / 2;
        kiln_store_f64(present, 0, half, k);
        kiln_store_f64(present, half, half, v);
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_ms_attention = {
    .name = "Attention",
    .domain = "com.microsoft",
    .since = 1,
    .min_in = 2,
    .max_in = 7,
    .min_out = 1,
    .max_out = 2,
    KILN_OP_ATTRS(table, ms_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
