/* linear_attention.c - LinearAttention: a recurrent state S per head instead of a softmax over
 * keys.
 *
 * Legend: B batch, T steps, H query heads, G key and value heads (query head h reads head
 * h / (H / G)), D head size of Q and K, E of V. query [B, T, H*D], key [B, T, G*D], value [B, T,
 * G*E], state [B, G, D, E], decay [B, T, G*D] or [B, T, G], beta [B, T, G] or [B, T, 1]. Each step:
 *
 *     S = exp(decay) S                        gated, gated_delta
 *     v = beta (v - S' k)                     delta, gated_delta
 *     S = S + k v';  output = scale * S' q
 */
#include <math.h>

#include "ops/bulk.h"
#include "ops/expect.h"

typedef struct linear_attrs {
    int64_t chunk_size;
    int64_t kv_num_heads, q_num_heads;
    float scale;
    int32_t update_rule;
} linear_attrs;

enum { LINEAR, GATED, DELTA, GATED_DELTA };
static const char *const rules[] = {"linear", "gated", "delta", "gated_delta", NULL};
static const kiln_attr table[] = {
    KILN_A_INT(linear_attrs, chunk_size, 64),
    KILN_A_INT_REQUIRED(linear_attrs, kv_num_heads),
    KILN_A_INT_REQUIRED(linear_attrs, q_num_heads),
    KILN_A_FLOAT(linear_attrs, scale, 0),
    KILN_A_ENUM(linear_attrs, update_rule, rules, GATED_DELTA),
};

enum { QUERY, KEY, VALUE, PAST, DECAY, BETA };

static bool is_gated(const linear_attrs *a) {
    return a->update_rule == GATED || a->update_rule == GATED_DELTA;
}
static bool is_delta(const linear_attrs *a) {
    return a->update_rule == DELTA || a->update_rule == GATED_DELTA;
}

/* ---- Inference ---- */

static kiln_status check_attrs(const kiln_infer *c) {
    const linear_attrs *a = c->attrs;
    if (a->kv_num_heads < 1 || a->q_num_heads < 1 || a->q_num_heads % a->kv_num_heads != 0) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "%lld query heads cannot share %lld key heads",
                               (long long)a->q_num_heads, (long long)a->kv_num_heads);
    }
    if (!isfinite(a->scale)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "scale is %g", (double)a->scale);
    }
    if (kiln_infer_has(c, DECAY) != is_gated(a) || kiln_infer_has(c, BETA) != is_delta(a)) {
        return KILN_INFER_FAIL(c, ARITY, "update_rule \"%s\" takes %s and %s",
                               rules[a->update_rule], is_gated(a) ? "decay" : "no decay",
                               is_delta(a) ? "beta" : "no beta");
    }
    return KILN_OK;
}

/* Last dim of input i must be one of two sizes. */
static kiln_status check_either(const kiln_infer *c, int32_t i, const char *what, kiln_dim p,
                                kiln_dim q) {
    kiln_dim got = kiln_infer_has(c, i) ? kiln_infer_dim(c, i, 2) : KILN_DIM_UNKNOWN;
    if (kiln_dim_differ(got, p) && kiln_dim_differ(got, q)) {
        return KILN_INFER_FAIL(c, SHAPE, "the last dim of %s is %lld, it must be %lld or %lld",
                               what, (long long)got, (long long)p, (long long)q);
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const linear_attrs *a = c->attrs;
    kiln_dim d, e, batch = kiln_infer_dim(c, QUERY, 0), steps = kiln_infer_dim(c, QUERY, 1);
    KILN_TRY(check_attrs(c));
    KILN_TRY(kiln_infer_dtype(c, QUERY, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, PAST, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_rank(c, QUERY, 3, 3));
    KILN_TRY(kiln_infer_rank(c, VALUE, 3, 3));
    KILN_TRY(kiln_expect_split(c, kiln_infer_dim(c, QUERY, 2), a->q_num_heads, "query", &d));
    KILN_TRY(kiln_expect_split(c, kiln_infer_dim(c, VALUE, 2), a->kv_num_heads, "value", &e));
    kiln_dim keys = kiln_dim_mul(c->dims, d, a->kv_num_heads), any = KILN_DIM_UNKNOWN;
    kiln_dim key[] = {batch, steps, keys}, row[] = {batch, steps, any};
    kiln_dim state[] = {batch, a->kv_num_heads, d, e};
    for (int32_t i = KEY; i <= BETA; i++) {
        if (i != PAST) {
            KILN_TRY(kiln_infer_same_dtype(c, QUERY, i));
        }
    }
    KILN_TRY(kiln_expect_shape(c, KEY, "key", 3, key));
    KILN_TRY(kiln_expect_shape(c, VALUE, "value", 3, row));
    KILN_TRY(kiln_expect_shape(c, DECAY, "decay", 3, row));
    KILN_TRY(kiln_expect_shape(c, BETA, "beta", 3, row));
    KILN_TRY(kiln_expect_shape(c, PAST, "past_state", 4, state));
    KILN_TRY(check_either(c, DECAY, "decay", keys, a->kv_num_heads));
    KILN_TRY(check_either(c, BETA, "beta", a->kv_num_heads, 1));
    kiln_dim out[] = {batch, steps, kiln_dim_mul(c->dims, e, a->q_num_heads)};
    kiln_dtype dtype = c->in[QUERY].type.dtype;
    KILN_TRY(kiln_infer_output(c, 0, dtype, 3, out));
    return kiln_infer_output(c, 1, kiln_infer_has(c, PAST) ? c->in[PAST].type.dtype : dtype, 4,
                             state);
}

/* ---- Reference ---- */

typedef struct head {
    const linear_attrs *a;
    int64_t d, e, decays; /* decays: 1 for the head, or d */
    double *s;            /* [d, e] */
    double *k, *v, *q, *decay, *y;
    double beta, scale;
} head;

static void decay_state(head *h) {
    for (int64_t i = 0; i < h->d; i++) {
        double f = exp(h->decay[h->decays == 1 ? 0 : i]);
        for (int64_t j = 0; j < h->e; j++) {
            h->s[i * h->e + j] *= f;
        }
    }
}

/* y = S' x. */
static void retrieve(const head *h, const double *x, double *y) {
    for (int64_t j = 0; j < h->e; j++) {
        y[j] = 0;
    }
    for (int64_t i = 0; i < h->d; i++) {
        for (int64_t j = 0; j < h->e; j++) {
            y[j] += x[i] * h->s[i * h->e + j];
        }
    }
}

static void update(head *h) {
    if (is_gated(h->a)) {
        decay_state(h);
    }
    if (is_delta(h->a)) {
        retrieve(h, h->k, h->y);
        for (int64_t j = 0; j < h->e; j++) {
            h->v[j] = h->beta * (h->v[j] - h->y[j]);
        }
    }
    for (int64_t i = 0; i < h->d; i++) {
        for (int64_t j = 0; j < h->e; j++) {
            h->s[i * h->e + j] += h->k[i] * h->v[j];
        }
    }
}

static void step(kiln_ref *c, head *h, int64_t row, int64_t g) {
    const kiln_tensor *decay = kiln_ref_in(c, DECAY), *beta = kiln_ref_in(c, BETA);
    int64_t groups = h->a->kv_num_heads, share = h->a->q_num_heads / groups;
    kiln_load_f64(kiln_ref_in(c, KEY), (row * groups + g) * h->d, h->d, h->k);
    kiln_load_f64(kiln_ref_in(c, VALUE), (row * groups + g) * h->e, h->e, h->v);
    if (decay) {
        kiln_load_f64(decay, (row * groups + g) * h->decays, h->decays, h->decay);
    }
    if (beta) {
        bool one = beta->dims[2] == 1;
        h->beta = kiln_get_f64(beta->dtype, beta->data, one ? row : row * groups + g);
    }
    update(h);
    for (int64_t n = g * share; n < (g + 1) * share; n++) {
        int64_t at = row * h->a->q_num_heads + n;
        kiln_load_f64(kiln_ref_in(c, QUERY), at * h->d, h->d, h->q);
        retrieve(h, h->q, h->y);
        for (int64_t j = 0; j < h->e; j++) {
            h->y[j] *= h->scale;
        }
        kiln_store_f64(kiln_ref_out(c, 0), at * h->e, h->e, h->y);
    }
}

static kiln_status ref(kiln_ref *c) {
    const linear_attrs *a = c->attrs;
    const kiln_tensor *q = kiln_ref_in(c, QUERY), *v = kiln_ref_in(c, VALUE);
    const kiln_tensor *past = kiln_ref_in(c, PAST), *decay = kiln_ref_in(c, DECAY);
    kiln_tensor *present = kiln_ref_out(c, 1), state;
    int64_t steps = q->dims[1], groups = a->kv_num_heads;
    head h = {.a = a, .d = q->dims[2] / a->q_num_heads, .e = v->dims[2] / groups, .decays = 1};
    h.scale = a->scale != 0 ? (double)a->scale : 1 / sqrt((double)h.d);
    h.decays = decay && decay->dims[2] != groups ? h.d : 1;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    const int64_t dims[] = {h.d, h.e};
    KILN_TRY(kiln_ref_scratch(c, &state, KILN_DTYPE_F64, 2, dims));
    h.s = state.data;
    KILN_ALLOC(h.k, c->arena, h.d);
    KILN_ALLOC(h.q, c->arena, h.d);
    KILN_ALLOC(h.decay, c->arena, h.d + 1);
    KILN_ALLOC(h.v, c->arena, h.e);
    KILN_ALLOC(h.y, c->arena, h.e);
    for (int64_t n = 0; n < q->dims[0] * groups; n++) {
        int64_t size = h.d * h.e, b = n / groups;
        for (int64_t i = 0; i < size; i++) {
            h.s[i] = past ? kiln_get_f64(past->dtype, past->data, n * size + i) : 0;
        }
        for (int64_t t = 0; t < steps; t++) {
            KILN_TRY(kiln_ref_poll(c));
            step(c, &h, b * steps + t, n % groups);
        }
        if (present) {
            kiln_store_f64(present, n * size, size, h.s);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_linear_attention = {
    .name = "LinearAttention",
    .domain = "",
    .since = 27,
    .min_in = 3,
    .max_in = 6,
    .min_out = 1,
    .max_out = 2,
    KILN_OP_ATTRS(table, linear_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
