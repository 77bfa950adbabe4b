/* flex_attention.c - ai.onnx.preview FlexAttention: attention whose scores and probabilities pass
 * through a body each.
 *
 * Legend as in attention_core.h. A body takes and gives one tensor [B, H, S, L] of the softmax's
 * element type; a body with no outputs is one that was left out. */
#include <math.h>

#include "ops/attention_core.h"
#include "ops/bulk.h"
#include "ops/matmul_core.h"

typedef struct flex_attrs {
    float scale;
    int64_t softmax_precision;
} flex_attrs;

enum { Q, K, V };
enum { PROB_MOD, SCORE_MOD };

static const kiln_attr table[] = {
    {.name = "prob_mod", .kind = KILN_ATTR_GRAPH},
    KILN_A_FLOAT(flex_attrs, scale, 0),
    {.name = "score_mod", .kind = KILN_ATTR_GRAPH},
    KILN_A_INT(flex_attrs, softmax_precision, KILN_ABSENT),
};

static kiln_dtype softmax_dtype(const flex_attrs *a, kiln_dtype input) {
    if (a->softmax_precision != KILN_ABSENT) {
        return (kiln_dtype)a->softmax_precision;
    }
    return input == KILN_DTYPE_F64 ? KILN_DTYPE_F64 : KILN_DTYPE_F32;
}

/* ---- Inference ---- */

static kiln_status infer_body(kiln_infer *c, int32_t which, const kiln_type *type) {
    const kiln_graph *body = c->node->bodies[which];
    kiln_fact in = {.type = *type}, out = {0};
    if (body->n_outputs == 0) {
        return KILN_OK;
    }
    if (body->n_inputs != 1 || body->n_outputs != 1) {
        return KILN_INFER_FAIL(c, ARITY,
                               "body \"%s\" has %zu inputs and %zu outputs, needs one of each",
                               body->name, body->n_inputs, body->n_outputs);
    }
    KILN_TRY(c->body(c, body, &in, 1, &out));
    const kiln_type *t = &out.type;
    bool fits =
        t->kind == KILN_KIND_TENSOR && t->dtype == type->dtype && (t->rank < 0 || t->rank == 4);
    for (int32_t d = 0; fits && t->rank == 4 && d < 4; d++) {
        fits = !kiln_dim_differ(t->dims[d], type->dims[d]);
    }
    return fits ? KILN_OK
                : KILN_INFER_FAIL(c, SHAPE, "body \"%s\" must keep the type and shape of its input",
                                  body->name);
}

static kiln_status infer(kiln_infer *c) {
    const flex_attrs *a = c->attrs;
    uint32_t floats = KILN_T_FLOAT;
    int64_t p = a->softmax_precision;
    if (p != KILN_ABSENT && (p < 1 || p >= KILN_DTYPE_COUNT || !(floats >> p & 1))) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "softmax_precision is %lld, no float type",
                               (long long)p);
    }
    if (!(a->scale >= 0) || isinf(a->scale)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "scale is %g", (double)a->scale);
    }
    KILN_TRY(kiln_infer_dtype(c, Q, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, Q, K));
    KILN_TRY(kiln_infer_same_dtype(c, Q, V));
    KILN_TRY(kiln_infer_rank(c, Q, 4, 4));
    KILN_TRY(kiln_infer_rank(c, K, 4, 4));
    kiln_dim batch = kiln_infer_dim(c, Q, 0), heads = kiln_infer_dim(c, Q, 1),
             any = KILN_DIM_UNKNOWN;
    kiln_dim groups = kiln_infer_dim(c, K, 1), keys = kiln_infer_dim(c, K, 2);
    kiln_dim k[] = {batch, any, any, kiln_infer_dim(c, Q, 3)}, v[] = {batch, groups, keys, any};
    KILN_TRY(kiln_expect_shape(c, K, "K", 4, k));
    KILN_TRY(kiln_expect_shape(c, V, "V", 4, v));
    if (kiln_dim_known(heads) && kiln_dim_known(groups) && (groups < 1 || heads % groups != 0)) {
        return KILN_INFER_FAIL(c, SHAPE, "%lld query heads cannot share %lld key heads",
                               (long long)heads, (long long)groups);
    }
    kiln_dim *scores;
    KILN_ALLOC(scores, c->arena, 4);
    scores[0] = batch;
    scores[1] = heads;
    scores[2] = kiln_infer_dim(c, Q, 2);
    scores[3] = keys;
    kiln_type type = kiln_type_tensor(softmax_dtype(a, c->in[Q].type.dtype), 4, scores);
    KILN_TRY(infer_body(c, SCORE_MOD, &type));
    KILN_TRY(infer_body(c, PROB_MOD, &type));
    kiln_dim y[] = {batch, heads, scores[2], kiln_infer_dim(c, V, 3)};
    return kiln_infer_output(c, 0, c->in[Q].type.dtype, 4, y);
}

/* ---- Reference ---- */

/* scores = the body's answer to scores, if there is a body. */
static kiln_status modify(kiln_ref *c, int32_t which, kiln_tensor *scores) {
    const kiln_graph *body = c->node->bodies[which];
    kiln_datum in = {.kind = KILN_KIND_TENSOR, .tensor = *scores}, out = {0};
    if (body->n_outputs == 0) {
        return KILN_OK;
    }
    KILN_TRY(c->body(c, body, &in, 1, &out));
    bool fits =
        out.kind == KILN_KIND_TENSOR && out.tensor.dtype == scores->dtype && out.tensor.rank == 4;
    for (int32_t d = 0; fits && d < 4; d++) {
        fits = out.tensor.dims[d] == scores->dims[d];
    }
    if (!fits) {
        return KILN_INFER_FAIL(c, SHAPE, "body \"%s\" must keep the type and shape of its input",
                               body->name);
    }
    *scores = out.tensor;
    return KILN_OK;
}

static kiln_status make_scores(kiln_ref *c, kiln_tensor *scores) {
    const flex_attrs *a = c->attrs;
    const kiln_tensor *tq = kiln_ref_in(c, Q), *tk = kiln_ref_in(c, K);
    kiln_heads hq = kiln_heads_of(tq, 0), hk = kiln_heads_of(tk, 0);
    double *q, *k, *v, *y, scale = a->scale != 0 ? (double)a->scale : 1 / sqrt((double)hq.dim);
    kiln_attention job = {.batch = hq.batch,
                          .heads = hq.heads,
                          .kv_heads = hk.heads,
                          .q_len = hq.rows,
                          .kv_len = hk.rows,
                          .qk_dim = hq.dim,
                          .v_dim = 0,
                          .round = tq->dtype};
    job.q_scale = job.k_scale = kiln_round_to(job.round, sqrt(scale));
    job.stage[KILN_SCORES_RAW] = scores;
    KILN_TRY(kiln_heads_concat(c, NULL, tq, &hq, &q));
    KILN_TRY(kiln_heads_concat(c, NULL, tk, &hk, &k));
    KILN_ALLOC(v, c->arena, 1);
    KILN_ALLOC(y, c->arena, 1);
    return kiln_attention_run(c, &job, q, k, v, y);
}

static void softmax(kiln_tensor *t) {
    int64_t n = t->dims[3], rows = n ? kiln_tensor_count(t) / n : 0;
    for (int64_t r = 0; r < rows; r++) {
        double greatest = -(double)INFINITY, sum = 0;
        for (int64_t j = r * n; j < (r + 1) * n; j++) {
            double v = kiln_get_f64(t->dtype, t->data, j);
            greatest = v > greatest || isnan(v) ? v : greatest;
        }
        for (int64_t j = r * n; j < (r + 1) * n; j++) {
            double e = exp(kiln_get_f64(t->dtype, t->data, j) - greatest);
            sum += e;
        }
        for (int64_t j = r * n; j < (r + 1) * n; j++) {
            double e = exp(kiln_get_f64(t->dtype, t->data, j) - greatest);
            kiln_set_f64(t->dtype, t->data, j, e / sum);
        }
    }
}

static kiln_status weigh(kiln_ref *c, const kiln_tensor *probs) {
    const kiln_tensor *v = kiln_ref_in(c, V);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t keys = v->dims[2], dim = v->dims[3], rows = probs->dims[2],
            share = y->dims[1] / v->dims[1];
    double *out;
    KILN_ALLOC(out, c->arena, rows * dim);
    for (int64_t n = 0; n < y->dims[0] * y->dims[1]; n++) {
        int64_t from = n / y->dims[1] * v->dims[1] + n % y->dims[1] / share;
        kiln_product p = {.a = probs,
                          .b = v,
                          .m = rows,
                          .k = keys,
                          .n = dim,
                          .a_at = n * rows * keys,
                          .a_row = keys,
                          .a_col = 1,
                          .b_at = from * keys * dim,
                          .b_row = dim,
                          .b_col = 1};
        for (int64_t i = 0; i < rows * dim; i++) {
            out[i] = 0;
        }
        KILN_TRY(kiln_product_f64(c, &p, out));
        kiln_store_f64(y, n * rows * dim, rows * dim, out);
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *q = kiln_ref_in(c, Q), *k = kiln_ref_in(c, K);
    const int64_t dims[] = {q->dims[0], q->dims[1], q->dims[2], k->dims[2]};
    kiln_tensor scores, probs;
    if (kiln_tensor_count(kiln_ref_out(c, 0)) == 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_ref_scratch(c, &scores, softmax_dtype(c->attrs, q->dtype), 4, dims));
    KILN_TRY(kiln_ref_scratch(c, &probs, scores.dtype, 4, dims));
    KILN_TRY(make_scores(c, &scores));
    KILN_TRY(modify(c, SCORE_MOD, &scores));
    kiln_copy_elements(scores.dtype, probs.data, 0, scores.data, 0, kiln_tensor_count(&scores));
    softmax(&probs);
    KILN_TRY(modify(c, PROB_MOD, &probs));
    return weigh(c, &probs);
}

const kiln_op kiln_op_flex_attention = {
    .name = "FlexAttention",
    .domain = "ai.onnx.preview",
    .since = 1,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, flex_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
