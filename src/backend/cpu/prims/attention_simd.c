/* attention_simd.c - fused attention.
 *
 * Everything is computed transposed: scores S^T[key][query], a vector holding neighbouring queries.
 * Then K and V are read as they lie (K element by element, broadcast; V in vectors), only the small
 * block of Q is packed, and the softmax of all queries runs down the keys without any horizontal
 * step.
 *
 *   scores   S^T[j][i] = sum_d K[j][d] Q^T[d][i]      tile KEY_TILE keys x 2 vectors of queries
 *   softmax  down j, per lane i
 *   values   Y[i][e] = sum_j S^T[j][i] V[j][e]        tile ROW_TILE queries x 3 vectors of V
 */
#include "backend/cpu/prims/attention.h"
#include "backend/cpu/prims/vecmath.h"

#if KILN_VREGS >= 32
enum { KEY_TILE = 12, ROW_TILE = 8 };
#else
enum { KEY_TILE = 6, ROW_TILE = 4 };
#endif

/* Keys whose values stay cached while all tiles of a unit use them. */
enum { VALUE_KEYS = 128 };
enum { LANE_STEP = 2 * KILN_VLEN > ROW_TILE ? 2 * KILN_VLEN : ROW_TILE };

/* One unit's work. Lane i is query q0 + i; lanes from `rows` on are zero queries, not stored. */
typedef struct block {
    const kiln_attention_args *a;
    const float *q, *k, *v; /* at (batch, head), q at q0 */
    const float *mask;      /* at (batch, head, q0), or NULL */
    float *y;
    int64_t q0, rows, lanes;
    float *qt;     /* [qk_dim][lanes] */
    float *scores; /* [key_block + slack][lanes] */
    float *acc;    /* [lanes][v_dim], between key blocks */
    float *max;    /* [lanes] running maximum */
    float *sum;    /* [lanes] running sum */
    float *fix;    /* [lanes] factor for acc: exp(old max - new max) */
} block;

static block block_begin(const kiln_attention_args *a, float *scratch, int64_t unit) {
    int64_t per_head = (a->q_len + KILN_ATTENTION_ROWS - 1) / KILN_ATTENTION_ROWS;
    int64_t q0 = unit % per_head * KILN_ATTENTION_ROWS;
    int64_t h = unit / per_head % a->heads;
    int64_t n = unit / per_head / a->heads;
    int64_t kv = h / (a->heads / a->kv_heads);
    block b = {.a = a, .q0 = q0};
    b.rows = a->q_len - q0 < KILN_ATTENTION_ROWS ? a->q_len - q0 : KILN_ATTENTION_ROWS;
    b.lanes = (b.rows + LANE_STEP - 1) / LANE_STEP * LANE_STEP;
    b.q = a->q + n * a->q_stride[0] + h * a->q_stride[1] + q0 * a->q_stride[2];
    b.k = a->k + n * a->k_stride[0] + kv * a->k_stride[1];
    b.v = a->v + n * a->v_stride[0] + kv * a->v_stride[1];
    b.y = a->y + n * a->y_stride[0] + h * a->y_stride[1] + q0 * a->y_stride[2];
    if (a->mask != NULL) {
        b.mask = a->mask + n * a->mask_stride[0] + h * a->mask_stride[1] + q0 * a->mask_stride[2];
    }
    b.max = scratch;
    b.sum = b.max + KILN_ATTENTION_ROWS;
    b.fix = b.sum + KILN_ATTENTION_ROWS;
    b.qt = b.fix + KILN_ATTENTION_ROWS;
    b.acc = b.qt + KILN_ATTENTION_ROWS * a->qk_dim;
    b.scores = b.acc + KILN_ATTENTION_ROWS * a->v_dim;
    return b;
}

static void pack_queries(const block *b) {
    for (int64_t i = 0; i < b->lanes; i++) {
        const float *q = b->q + i * b->a->q_stride[2];
        for (int64_t d = 0; d < b->a->qk_dim; d++) {
            b->qt[d * b->lanes + i] = i < b->rows ? q[d] * b->a->scale : 0.0f;
        }
    }
}

/* Scores of KEY_TILE keys from key j on for two vectors of lanes; keys past the last repeat it,
 * into the slack. */
KILN_INLINE void score_tile(const block *b, float *s, int64_t j, int64_t lane) {
    const float *k[KEY_TILE];
    kiln_vf acc[KEY_TILE][2];
    KILN_UNROLL(12)
    for (int r = 0; r < KEY_TILE; r++) {
        int64_t key = j + r < b->a->kv_len ? j + r : b->a->kv_len - 1;
        k[r] = b->k + key * b->a->k_stride[2];
        acc[r][0] = acc[r][1] = vf_zero();
    }
    const float *qt = b->qt + lane;
    for (int64_t d = 0; d < b->a->qk_dim; d++, qt += b->lanes) {
        kiln_vf q0 = vf_load(qt);
        kiln_vf q1 = vf_load(qt + KILN_VLEN);
        KILN_UNROLL(12)
        for (int r = 0; r < KEY_TILE; r++) {
            kiln_vf kv = vf_set1(k[r][d]);
            acc[r][0] = vf_fma(kv, q0, acc[r][0]);
            acc[r][1] = vf_fma(kv, q1, acc[r][1]);
        }
    }
    KILN_UNROLL(12)
    for (int r = 0; r < KEY_TILE; r++) {
        vf_store(s + r * b->lanes + lane, acc[r][0]);
        vf_store(s + r * b->lanes + lane + KILN_VLEN, acc[r][1]);
    }
}

static void compute_scores(const block *b, int64_t j0, int64_t keys) {
    for (int64_t j = 0; j < keys; j += KEY_TILE) {
        for (int64_t lane = 0; lane < b->lanes; lane += 2 * KILN_VLEN) {
            score_tile(b, b->scores + j * b->lanes, j0 + j, lane);
        }
    }
}

/* The mask of key j for all lanes. */
static void load_mask(const block *b, int64_t j, float *m) {
    int64_t stride = b->a->mask_stride[2];
    const float *src = b->mask + j * b->a->mask_stride[3];
    for (int64_t i = 0; i < b->lanes; i++) {
        m[i] = i < b->rows ? src[i * stride] : 0.0f;
    }
}

/* Softcap, mask and causality, where there are any. */
static void adjust_scores(const block *b, int64_t j0, int64_t keys) {
    const kiln_attention_args *a = b->a;
    /* The first key that some lane may not see. */
    int64_t first_hidden = a->causal ? b->q0 + a->causal_offset + 1 : INT64_MAX;
    if (a->softcap == 0.0f && a->mask == NULL && j0 + keys <= first_hidden) {
        return;
    }
    float lane_index[KILN_VLEN];
    for (int i = 0; i < KILN_VLEN; i++) {
        lane_index[i] = (float)i;
    }
    for (int64_t j = j0; j < j0 + keys; j++) {
        float m[KILN_ATTENTION_ROWS] = {0};
        if (a->mask != NULL) {
            load_mask(b, j, m);
        }
        for (int64_t i = 0; i < b->lanes; i += KILN_VLEN) {
            float *p = b->scores + (j - j0) * b->lanes + i;
            kiln_vf s = vf_load(p);
            if (a->softcap != 0.0f) {
                kiln_vf cap = vf_set1(a->softcap);
                s = vf_mul(cap, vf_tanh(vf_div(s, cap)));
            }
            s = vf_add(s, vf_load(m + i));
            if (j >= first_hidden) {
                /* Lane i sees key j when i > j - first_hidden. */
                kiln_vf need = vf_set1((float)(j - first_hidden - i));
                s = vf_select(vf_gt(vf_load(lane_index), need), s, vf_set1(-INFINITY));
            }
            vf_store(p, s);
        }
    }
}

/* exp(x - max) with a maximum of -inf taken as 0, so that hidden rows give zeros, not NaN. */
KILN_INLINE kiln_vf finite_max(kiln_vf m) {
    return vf_select(vf_eq(m, vf_set1(-INFINITY)), vf_zero(), m);
}

/* n keys' scores become exp(score - shift); returns the sum over the keys. */
KILN_INLINE kiln_vf exp_keys(float *s, int64_t ld, int n, kiln_vf shift) {
    kiln_vf e[VF_TOGETHER];
    VF_EACH(n) {
        e[i] = vf_sub(vf_load(s + i * ld), shift);
    }
    vf_exp_n(e, n);
    VF_EACH(n) {
        vf_store(s + i * ld, e[i]);
    }
    return n == 1 ? e[0] : vf_add(vf_add(e[0], e[1]), vf_add(e[2], e[3]));
}

/* Scores become exp(score - max); max, sum and fix are brought up to date. */
static void softmax_block(const block *b, int64_t keys, bool first) {
    for (int64_t i = 0; i < b->lanes; i += KILN_VLEN) {
        float *s = b->scores + i;
        kiln_vf old = first ? vf_set1(-INFINITY) : vf_load(b->max + i);
        kiln_vf m0 = old, m1 = old;
        int64_t j = 0;
        for (; j + 2 <= keys; j += 2) {
            m0 = vf_max_nan(m0, vf_load(s + j * b->lanes));
            m1 = vf_max_nan(m1, vf_load(s + (j + 1) * b->lanes));
        }
        m0 = j < keys ? vf_max_nan(m0, vf_load(s + j * b->lanes)) : m0;
        kiln_vf max = vf_max_nan(m0, m1);
        kiln_vf shift = finite_max(max);
        kiln_vf sum = vf_zero();
        for (j = 0; j + VF_TOGETHER <= keys; j += VF_TOGETHER) {
            sum = vf_add(sum, exp_keys(s + j * b->lanes, b->lanes, VF_TOGETHER, shift));
        }
        for (; j < keys; j++) {
            sum = vf_add(sum, exp_keys(s + j * b->lanes, b->lanes, 1, shift));
        }
        if (!first) {
            kiln_vf fix = vf_exp(vf_sub(old, shift));
            vf_store(b->fix + i, fix);
            sum = vf_fma(vf_load(b->sum + i), fix, sum);
        }
        vf_store(b->max + i, max);
        vf_store(b->sum + i, sum);
    }
}

/* A run of keys of one softmax block, and how its products join the unit's. */
typedef struct value_run {
    int64_t key, keys;    /* first key and count */
    const float *weights; /* [keys][lanes] */
    bool first;           /* starts from zero instead of acc */
    bool rescale;         /* multiplies acc by fix */
    bool final;           /* goes to y, divided by sum, instead of acc */
} value_run;

/* ROW_TILE queries times nv vectors of value columns, the last of them `last` lanes wide. */
KILN_INLINE void value_tile(const block *b, const value_run *run, int64_t i, int64_t e, int nv,
                            int64_t last) {
    kiln_vf acc[ROW_TILE][3];
    int64_t width = b->a->v_dim;
    KILN_UNROLL(8)
    for (int r = 0; r < ROW_TILE; r++) {
        kiln_vf fix = vf_set1(run->rescale ? b->fix[i + r] : 1.0f);
        KILN_UNROLL(3)
        for (int v = 0; v < nv; v++) {
            int64_t lanes = v == nv - 1 ? last : KILN_VLEN;
            const float *p = b->acc + (i + r) * width + e + v * KILN_VLEN;
            acc[r][v] = run->first ? vf_zero() : vf_mul(vf_load_upto(p, lanes), fix);
        }
    }
    const float *value = b->v + run->key * b->a->v_stride[2] + e;
    const float *weight = run->weights + i;
    for (int64_t j = 0; j < run->keys; j++) {
        kiln_vf x[3];
        KILN_UNROLL(3)
        for (int v = 0; v < nv; v++) {
            x[v] = vf_load_upto(value + v * KILN_VLEN, v == nv - 1 ? last : KILN_VLEN);
        }
        KILN_UNROLL(8)
        for (int r = 0; r < ROW_TILE; r++) {
            kiln_vf w = vf_set1(weight[r]);
            KILN_UNROLL(3)
            for (int v = 0; v < nv; v++) {
                acc[r][v] = vf_fma(w, x[v], acc[r][v]);
            }
        }
        value += b->a->v_stride[2];
        weight += b->lanes;
    }
    for (int r = 0; r < ROW_TILE && i + r < b->rows; r++) {
        float sum = b->sum[i + r];
        float k = sum == 0.0f && b->a->zero_empty ? 0.0f : 1.0f / sum;
        for (int v = 0; v < nv; v++) {
            int64_t lanes = v == nv - 1 ? last : KILN_VLEN;
            float *p = run->final ? b->y + (i + r) * b->a->y_stride[2] : b->acc + (i + r) * width;
            kiln_vf out = run->final ? vf_mul(acc[r][v], vf_set1(k)) : acc[r][v];
            vf_store_upto(p + e + v * KILN_VLEN, lanes, out);
        }
    }
}

static void value_tiles(const block *b, const value_run *run) {
    for (int64_t i = 0; i < b->rows; i += ROW_TILE) {
        int64_t e = 0;
        for (; e + 3 * KILN_VLEN <= b->a->v_dim; e += 3 * KILN_VLEN) {
            value_tile(b, run, i, e, 3, KILN_VLEN);
        }
        for (; e + 2 * KILN_VLEN <= b->a->v_dim; e += 2 * KILN_VLEN) {
            value_tile(b, run, i, e, 2, KILN_VLEN);
        }
        for (; e < b->a->v_dim; e += KILN_VLEN) {
            value_tile(b, run, i, e, 1, b->a->v_dim - e);
        }
    }
}

static void compute_values(const block *b, int64_t j0, int64_t keys, bool first, bool final) {
    for (int64_t j = 0; j < keys; j += VALUE_KEYS) {
        value_run run = {.key = j0 + j,
                         .keys = keys - j < VALUE_KEYS ? keys - j : VALUE_KEYS,
                         .weights = b->scores + j * b->lanes,
                         .first = first && j == 0,
                         .rescale = !first && j == 0,
                         .final = final && j + VALUE_KEYS >= keys};
        value_tiles(b, &run);
    }
}

/* A query block that sees no key at all. */
static void write_empty(const block *b) {
    for (int64_t i = 0; i < b->rows; i++) {
        for (int64_t e = 0; e < b->a->v_dim; e++) {
            b->y[i * b->a->y_stride[2] + e] = b->a->zero_empty ? 0.0f : NAN;
        }
    }
}

static void attention(const kiln_attention_args *a, float *scratch, int64_t unit0, int64_t unit1) {
    int64_t step = kiln_attention_key_block(a);
    for (int64_t unit = unit0; unit < unit1; unit++) {
        block b = block_begin(a, scratch, unit);
        int64_t end = a->kv_len;
        if (a->causal && b.q0 + b.rows + a->causal_offset < end) {
            end = b.q0 + b.rows + a->causal_offset;
        }
        if (end <= 0) {
            write_empty(&b);
            continue;
        }
        pack_queries(&b);
        for (int64_t j0 = 0; j0 < end; j0 += step) {
            int64_t keys = end - j0 < step ? end - j0 : step;
            compute_scores(&b, j0, keys);
            adjust_scores(&b, j0, keys);
            softmax_block(&b, keys, j0 == 0);
            compute_values(&b, j0, keys, j0 == 0, j0 + keys == end);
        }
    }
}

const kiln_attention_prims KILN_ISA_SYMBOL(kiln_attention_prims) = {.attention = attention};
