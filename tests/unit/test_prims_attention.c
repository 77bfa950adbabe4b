/* test_prims_attention.c - fused attention of backend/cpu/prims/attention.h against a plain
 * double-precision model, on every instruction set present: layouts, masks, causality, grouped
 * heads, key blocks, empty rows, splits. */
#include "prims_util.h"

#include "backend/cpu/prims/attention.h"

ISA_TABLE(kiln_attention_prims);

typedef struct job {
    const kiln_attention_prims *prims;
    const kiln_attention_args *args;
} job;

static void run_job(void *arg, int64_t a, int64_t b) {
    job *j = arg;
    float *scratch = guard_floats(kiln_attention_scratch(j->args), 0);
    j->prims->attention(j->args, scratch, a, b);
    guard_free(scratch);
}

/* One query's result, and whether it sees any key. */
static void reference(const kiln_attention_args *a, int64_t n, int64_t h, int64_t i, double *y) {
    const float *q = a->q + n * a->q_stride[0] + h * a->q_stride[1] + i * a->q_stride[2];
    int64_t kv = h / (a->heads / a->kv_heads);
    double *s = malloc((size_t)a->kv_len * sizeof *s);
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < a->kv_len; j++) {
        const float *k = a->k + n * a->k_stride[0] + kv * a->k_stride[1] + j * a->k_stride[2];
        double dot = 0;
        for (int64_t d = 0; d < a->qk_dim; d++) {
            dot += (double)q[d] * (double)a->scale * (double)k[d];
        }
        if (a->softcap != 0.0f) {
            dot = (double)a->softcap * tanh(dot / (double)a->softcap);
        }
        if (a->mask != NULL) {
            dot += (double)a->mask[n * a->mask_stride[0] + h * a->mask_stride[1] +
                                   i * a->mask_stride[2] + j * a->mask_stride[3]];
        }
        s[j] = a->causal && j > i + a->causal_offset ? -INFINITY : dot;
        max = s[j] > max ? s[j] : max;
    }
    for (int64_t e = 0; e < a->v_dim; e++) {
        y[e] = 0;
    }
    for (int64_t j = 0; j < a->kv_len; j++) {
        const float *v = a->v + n * a->v_stride[0] + kv * a->v_stride[1] + j * a->v_stride[2];
        double p = isinf(max) ? 0 : exp(s[j] - max);
        sum += p;
        for (int64_t e = 0; e < a->v_dim; e++) {
            y[e] += p * (double)v[e];
        }
    }
    for (int64_t e = 0; e < a->v_dim; e++) {
        y[e] = sum == 0 && a->zero_empty ? 0 : y[e] / sum;
    }
    free(s);
}

typedef struct shape {
    int64_t batch, heads, kv_heads, q_len, kv_len, qk_dim, v_dim;
} shape;

/* layout 0: [B, H, L, D]; 1: [B, L, H, D]. */
static void set_strides(int64_t *st, int layout, int64_t heads, int64_t len, int64_t dim) {
    st[0] = heads * len * dim;
    st[1] = layout == 0 ? len * dim : dim;
    st[2] = layout == 0 ? dim : heads * dim;
}

enum { MASK_NONE, MASK_KEYS, MASK_FULL, MASK_HIDE, MASK_COUNT };

static void check(int isa, const shape *s, int layout, int mask_kind, int variant) {
    kiln_attention_args a = {.batch = s->batch,
                             .heads = s->heads,
                             .kv_heads = s->kv_heads,
                             .q_len = s->q_len,
                             .kv_len = s->kv_len,
                             .qk_dim = s->qk_dim,
                             .v_dim = s->v_dim,
                             .scale = 0.3f};
    a.causal = variant & 1;
    a.causal_offset = s->kv_len - s->q_len - (variant & 8 ? 3 : 0);
    a.softcap = variant & 2 ? 2.0f : 0.0f;
    a.key_block = variant & 4 ? 13 : 0;
    a.zero_empty = (variant & 8) != 0;
    int64_t nq = s->batch * s->heads * s->q_len, nk = s->batch * s->kv_heads * s->kv_len;
    float *q = guard_floats(nq * s->qk_dim, 1), *k = guard_floats(nk * s->qk_dim, 2);
    float *v = guard_floats(nk * s->v_dim, 3), *y = guard_floats(nq * s->v_dim, 1);
    float *mask = guard_floats(nq * s->kv_len, 1), *first = guard_floats(nq * s->v_dim, 0);
    rng r = {.state = 99};
    rng_fill(&r, q, nq * s->qk_dim, -1, 1);
    rng_fill(&r, k, nk * s->qk_dim, -1, 1);
    rng_fill(&r, v, nk * s->v_dim, -1, 1);
    rng_fill(&r, mask, nq * s->kv_len, -2, 2);
    for (int64_t i = 0; i < nq * s->kv_len && mask_kind != MASK_FULL; i++) {
        bool hide = mask_kind == MASK_HIDE && i / s->kv_len % 5 == 2; /* whole rows */
        mask[i] = hide || rng_u32(&r) % 4 == 0 ? -INFINITY : 0.0f;
    }
    set_strides(a.q_stride, layout, s->heads, s->q_len, s->qk_dim);
    set_strides(a.k_stride, layout, s->kv_heads, s->kv_len, s->qk_dim);
    set_strides(a.v_stride, layout, s->kv_heads, s->kv_len, s->v_dim);
    set_strides(a.y_stride, layout, s->heads, s->q_len, s->v_dim);
    a.q = q;
    a.k = k;
    a.v = v;
    a.y = y;
    if (mask_kind != MASK_NONE) {
        bool keys_only = mask_kind == MASK_KEYS;
        const int64_t full[4] = {s->heads * s->q_len * s->kv_len, s->q_len * s->kv_len, s->kv_len,
                                 1};
        const int64_t keys[4] = {s->kv_len, 0, 0, 1};
        memcpy(a.mask_stride, keys_only ? keys : full, sizeof full);
        a.mask = mask;
    }
    job j = {prims_of[isa], &a};
    for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
        memset(y, 0x55, (size_t)(nq * s->v_dim) * 4);
        in_pieces(kiln_attention_units(&a), split_ways[w], run_job, &j);
        if (w == 0) {
            memcpy(first, y, (size_t)(nq * s->v_dim) * 4);
        }
        assert_memory_equal(first, y, (size_t)(nq * s->v_dim) * 4);
    }
    double *want = malloc((size_t)s->v_dim * sizeof *want);
    for (int64_t row = 0; row < nq; row++) {
        int64_t i = row % s->q_len, h = row / s->q_len % s->heads, n = row / s->q_len / s->heads;
        reference(&a, n, h, i, want);
        const float *got = y + n * a.y_stride[0] + h * a.y_stride[1] + i * a.y_stride[2];
        for (int64_t e = 0; e < s->v_dim; e++) {
            assert_close("attention", row, got[e], want[e], 2e-6, 2e-6);
        }
    }
    free(want);
    float *all[] = {q, k, v, y, mask, first};
    for (size_t i = 0; i < KILN_COUNT_OF(all); i++) {
        guard_free(all[i]);
    }
}

static void test_attention(void **state) {
    (void)state;
    const shape shapes[] = {
        {1, 1, 1, 1, 1, 1, 1},     {2, 3, 3, 5, 7, 8, 8},     {1, 2, 2, 33, 33, 64, 64},
        {1, 4, 2, 40, 50, 24, 40}, {2, 2, 1, 1, 77, 16, 100}, {1, 1, 1, 70, 19, 5, 3},
    };
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(shapes); k++) {
            for (int mask = 0; mask < MASK_COUNT; mask++) {
                for (int variant = 0; variant < 16; variant++) {
                    check(isa, &shapes[k], variant % 2, mask, variant);
                    check(isa, &shapes[k], (variant + 1) % 2, mask, variant);
                }
            }
        }
    }
}

/* One buffer holding Q, K and V side by side, read in place. */
static void test_packed(void **state) {
    (void)state;
    enum { L = 37, H = 2, D = 16 };
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!isa_present(isa)) {
            continue;
        }
        float *x = guard_floats(L * 3 * H * D, 1), *y = guard_floats(L * H * D, 1);
        rng r = {.state = 4};
        rng_fill(&r, x, L * 3 * H * D, -1, 1);
        kiln_attention_args a = {.batch = 1,
                                 .heads = H,
                                 .kv_heads = H,
                                 .q_len = L,
                                 .kv_len = L,
                                 .qk_dim = D,
                                 .v_dim = D,
                                 .scale = 0.25f,
                                 .q = x,
                                 .k = x + H * D,
                                 .v = x + 2 * H * D,
                                 .q_stride = {0, D, 3 * H * D},
                                 .k_stride = {0, D, 3 * H * D},
                                 .v_stride = {0, D, 3 * H * D},
                                 .y = y,
                                 .y_stride = {0, D, H * D}};
        job j = {prims_of[isa], &a};
        run_job(&j, 0, kiln_attention_units(&a));
        for (int64_t i = 0; i < L * H; i++) {
            double want[D];
            reference(&a, 0, i % H, i / H, want);
            for (int e = 0; e < D; e++) {
                assert_close("packed", i, y[i * D + e], want[e], 2e-6, 2e-6);
            }
        }
        guard_free(x);
        guard_free(y);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention),
                                       cmocka_unit_test(test_packed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
