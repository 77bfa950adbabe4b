/* rotary.c - RotaryEmbedding: pairs of elements of each head rotated by position.
 *
 * Legend: B batch, H heads, S positions, D head size, R rotated elements of a head (all when
 * rotary_embedding_dim is 0). X is 4-D [B, H, S, D] or 3-D [B, S, H * D]; the caches hold R / 2
 * cosines and sines for each position: [positions, R / 2] with position ids, else [B, S, R / 2].
 * Pair k is elements (2 k, 2 k + 1) when interleaved, else (k, k + R / 2).
 *
 * com.microsoft has the position ids as input 1, a scalar offset or [B, S], and gets by without
 * num_heads for 4-D input. */
#include "ops/attention_core.h"
#include "ops/bulk.h"

#define COMMON_ROWS                                                                             \
    KILN_A_INT(kiln_rotary_attrs, interleaved, 0), KILN_A_INT(kiln_rotary_attrs, num_heads, 0), \
        KILN_A_INT(kiln_rotary_attrs, rotary_embedding_dim, 0)

static const kiln_attr table[] = {COMMON_ROWS};
static const kiln_attr ms_table[] = {COMMON_ROWS,
                                     KILN_A_INT(kiln_rotary_attrs, is_packed_batching, 0),
                                     KILN_A_FLOAT(kiln_rotary_attrs, scale, 1)};

typedef struct inputs {
    int32_t cos, sin, ids;
} inputs;
static const inputs standard = {1, 2, 3}, microsoft = {2, 3, 1};

/* ---- Inference ---- */

static kiln_status check_ids(const kiln_infer *c, const inputs *in, kiln_dim batch, kiln_dim rows) {
    kiln_dim want[] = {batch, rows};
    KILN_TRY(kiln_infer_dtype(c, in->ids, KILN_T(I64)));
    if (in == &microsoft && kiln_infer_in_rank(c, in->ids) >= 0 &&
        kiln_infer_in_rank(c, in->ids) < 2) {
        return kiln_expect_single(c, in->ids, "position_ids");
    }
    return kiln_expect_shape(c, in->ids, "position_ids", 2, want);
}

static kiln_status check_caches(const kiln_infer *c, const inputs *in, kiln_dim batch,
                                kiln_dim rows, kiln_dim half) {
    bool by_id = kiln_infer_has(c, in->ids);
    kiln_dim want[] = {batch, rows, half}, line[] = {KILN_DIM_UNKNOWN, half};
    for (int32_t k = 0; k < 2; k++) {
        int32_t i = k ? in->sin : in->cos;
        const char *what = k ? "sin_cache" : "cos_cache";
        KILN_TRY(kiln_infer_same_dtype(c, 0, i));
        KILN_TRY(by_id ? kiln_expect_shape(c, i, what, 2, line)
                       : kiln_expect_shape(c, i, what, 3, want));
    }
    return kiln_expect_dim(c, in->sin, 0, kiln_infer_dim(c, in->cos, 0), "sin_cache");
}

/* Head size, or KILN_DIM_UNKNOWN. */
static kiln_status head_size(const kiln_infer *c, const inputs *in, int64_t heads, kiln_dim *dim) {
    const kiln_rotary_attrs *a = c->attrs;
    kiln_dim half = kiln_infer_dim(c, in->cos, -1);
    if (kiln_infer_in_rank(c, 0) == 4) {
        *dim = kiln_infer_dim(c, 0, 3);
        return KILN_OK;
    }
    *dim = KILN_DIM_UNKNOWN;
    if (kiln_infer_in_rank(c, 0) != 3) {
        return KILN_OK;
    }
    if (heads == 0 && in == &microsoft && a->rotary_embedding_dim == 0) {
        *dim = kiln_dim_mul(c->dims, half, 2);
        if (kiln_dim_known(*dim)) {
            kiln_dim n;
            return kiln_expect_split(c, kiln_infer_dim(c, 0, 2), *dim, "the heads of X", &n);
        }
        return KILN_OK;
    }
    return kiln_expect_split(c, kiln_infer_dim(c, 0, 2), heads, "num_heads", dim);
}

static kiln_status infer_with(kiln_infer *c, const inputs *in) {
    const kiln_rotary_attrs *a = c->attrs;
    kiln_dim dim, half, rotated;
    KILN_TRY(kiln_infer_rank(c, 0, 3, 4));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(head_size(c, in, a->num_heads, &dim));
    if (a->rotary_embedding_dim < 0 || (kiln_dim_known(dim) && a->rotary_embedding_dim > dim)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "rotary_embedding_dim is %lld, a head has %lld",
                               (long long)a->rotary_embedding_dim, (long long)dim);
    }
    rotated = a->rotary_embedding_dim ? a->rotary_embedding_dim : dim;
    KILN_TRY(kiln_expect_split(c, rotated, 2, "the rotated elements", &half));
    kiln_dim batch = kiln_infer_dim(c, 0, 0), rows = kiln_infer_dim(c, 0, -2);
    rows = kiln_infer_in_rank(c, 0) < 0 ? KILN_DIM_UNKNOWN : rows;
    KILN_TRY(check_ids(c, in, batch, rows));
    KILN_TRY(check_caches(c, in, batch, rows, half));
    return kiln_infer_like(c, 0, 0, KILN_DTYPE_NONE);
}

static kiln_status infer(kiln_infer *c) {
    return infer_with(c, &standard);
}

static kiln_status infer_ms(kiln_infer *c) {
    const kiln_rotary_attrs *a = c->attrs;
    if (a->is_packed_batching || a->scale != 1) {
        return KILN_INFER_FAIL(c, VARIANT, "is_packed_batching %lld or scale %g is not supported",
                               (long long)a->is_packed_batching, (double)a->scale);
    }
    return infer_with(c, &microsoft);
}

/* ---- Reference ---- */

/* One head in place: r rotated elements, angles' cosines and sines r / 2 each. */
static void rotate(double *v, int64_t r, bool interleaved, const double *cosines,
                   const double *sines) {
    for (int64_t k = 0; k < r / 2; k++) {
        double *a = interleaved ? v + 2 * k : v + k, *b = interleaved ? a + 1 : a + r / 2;
        double x = *a, y = *b;
        *a = cosines[k] * x - sines[k] * y;
        *b = sines[k] * x + cosines[k] * y;
    }
}

/* Row of the caches for position s of image b. */
static kiln_status cache_row(const kiln_ref *c, const inputs *in, int64_t b, int64_t s,
                             int64_t rows, int64_t *out) {
    const kiln_tensor *ids = kiln_ref_in(c, in->ids), *cache = kiln_ref_in(c, in->cos);
    int64_t at = b * rows + s;
    if (!ids) {
        *out = at;
        return KILN_OK;
    }
    const int64_t *v = ids->data;
    int64_t id;
    if (ids->rank == 2) {
        id = v[at];
    } else if (v[0] < 0 || v[0] > cache->dims[0]) {
        id = -1;
    } else {
        id = v[0] + s;
    }
    if (id < 0 || id >= cache->dims[0]) {
        return KILN_INFER_FAIL(c, INDEX, "position %lld, the caches hold %lld", (long long)id,
                               (long long)cache->dims[0]);
    }
    *out = id;
    return KILN_OK;
}

static kiln_status rotate_all(kiln_ref *c, const inputs *in, const kiln_heads *h, double *v) {
    const kiln_rotary_attrs *a = c->attrs;
    const kiln_tensor *cosines = kiln_ref_in(c, in->cos), *sines = kiln_ref_in(c, in->sin);
    int64_t r = a->rotary_embedding_dim ? a->rotary_embedding_dim : h->dim, half = r / 2, row = 0;
    double *angle;
    KILN_ALLOC(angle, c->arena, 2 * half);
    for (int64_t b = 0; b < h->batch; b++) {
        for (int64_t s = 0; s < h->rows; s++) {
            KILN_TRY(cache_row(c, in, b, s, h->rows, &row));
            kiln_load_f64(cosines, row * half, half, angle);
            kiln_load_f64(sines, row * half, half, angle + half);
            for (int64_t n = 0; n < h->heads; n++) {
                rotate(v + ((b * h->heads + n) * h->rows + s) * h->dim, r, a->interleaved != 0,
                       angle, angle + half);
            }
        }
    }
    return KILN_OK;
}

static kiln_status ref_with(kiln_ref *c, const inputs *in) {
    const kiln_rotary_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *cache = kiln_ref_in(c, in->cos);
    int64_t heads = a->num_heads;
    if (x->rank == 3 && heads == 0) {
        heads = x->dims[2] / (2 * cache->dims[cache->rank - 1]);
    }
    kiln_heads h = kiln_heads_of(x, heads);
    double *v;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(kiln_heads_concat(c, NULL, x, &h, &v));
    KILN_TRY(rotate_all(c, in, &h, v));
    kiln_heads_store(kiln_ref_out(c, 0), &h, v);
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    return ref_with(c, &standard);
}
static kiln_status ref_ms(kiln_ref *c) {
    return ref_with(c, &microsoft);
}

#define OPERATOR(id, home, version, least, rows, infer_fn, ref_fn)        \
    const kiln_op kiln_op_##id = {.name = "RotaryEmbedding",              \
                                  .domain = home,                         \
                                  .since = version,                       \
                                  .min_in = least,                        \
                                  .max_in = 4,                            \
                                  .min_out = 1,                           \
                                  .max_out = 1,                           \
                                  KILN_OP_ATTRS(rows, kiln_rotary_attrs), \
                                  .tolerance = KILN_TOL_ROUND,            \
                                  .infer = infer_fn,                      \
                                  .ref = ref_fn};

OPERATOR(rotary_embedding, "", 23, 3, table, infer, ref)
OPERATOR(ms_rotary_embedding, "com.microsoft", 1, 4, ms_table, infer_ms, ref_ms)
