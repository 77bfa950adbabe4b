/* matmul_core.c - see matmul_core.h. */
#include "ops/matmul_core.h"

#include "ops/bulk.h"

/* dst[i] = element at + i * step of t. */
static void load_f64(const kiln_tensor *t, int64_t at, int64_t step, int64_t n, double *dst) {
    if (step == 1) {
        kiln_load_f64(t, at, n, dst);
        return;
    }
    if (t->dtype == KILN_DTYPE_F32) {
        const float *src = (const float *)t->data + at;
        for (int64_t i = 0; i < n; i++) {
            dst[i] = src[i * step];
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        dst[i] = kiln_get_f64(t->dtype, t->data, at + i * step);
    }
}

static void load_u64(const kiln_tensor *t, int64_t at, int64_t step, int64_t n, uint64_t *dst) {
    for (int64_t i = 0; i < n; i++) {
        dst[i] = (uint64_t)kiln_get_i64(t->dtype, t->data, at + i * step);
    }
}

enum { BLOCK = 16 }; /* rows of A that share one pass over B */

/* Rows of A stand interleaved, so that one element of a column of B meets BLOCK of them at once;
 * each element of Y is still one sum from the first to the last k. */
#define DEFINE_PRODUCT(name, type, load)                                        \
    kiln_status name(kiln_ref *c, const kiln_product *p, type *y) {             \
        kiln_arena_mark mark = kiln_arena_here(c->arena);                       \
        type *rows, *line;                                                      \
        KILN_ALLOC(line, c->arena, p->k);                                       \
        rows = kiln_arena_array(c->arena, (size_t)p->k, BLOCK * sizeof *rows);  \
        if (!rows) {                                                            \
            return KILN_E_MEMORY;                                               \
        }                                                                       \
        for (int64_t m = 0; m < p->m; m += BLOCK) {                             \
            KILN_TRY(kiln_ref_poll(c));                                         \
            int64_t count = p->m - m < BLOCK ? p->m - m : BLOCK;                \
            for (int64_t i = 0; i < count; i++) {                               \
                load(p->a, p->a_at + (m + i) * p->a_row, p->a_col, p->k, line); \
                for (int64_t k = 0; k < p->k; k++) {                            \
                    rows[k * BLOCK + i] = line[k];                              \
                }                                                               \
            }                                                                   \
            for (int64_t n = 0; n < p->n; n++) {                                \
                type sums[BLOCK] = {0};                                         \
                load(p->b, p->b_at + n * p->b_col, p->b_row, p->k, line);       \
                for (int64_t k = 0; k < p->k; k++) {                            \
                    for (int64_t i = 0; i < BLOCK; i++) {                       \
                        sums[i] += rows[k * BLOCK + i] * line[k];               \
                    }                                                           \
                }                                                               \
                for (int64_t i = 0; i < count; i++) {                           \
                    y[(m + i) * p->n + n] += sums[i];                           \
                }                                                               \
            }                                                                   \
        }                                                                       \
        kiln_arena_rewind(c->arena, mark);                                      \
        return KILN_OK;                                                         \
    }

DEFINE_PRODUCT(kiln_product_f64, double, load_f64)
DEFINE_PRODUCT(kiln_product_u64, uint64_t, load_u64)

/* ---- Batches ---- */

/* Rank of the leading dims. */
static int32_t batch_rank(const kiln_tensor *t) {
    return t->rank > 2 ? t->rank - 2 : 0;
}

static void make_product(kiln_product *p, const kiln_tensor *a, const kiln_tensor *b) {
    bool row = a->rank == 1, column = b->rank == 1;
    *p = (kiln_product){.a = a, .b = b, .a_col = 1};
    p->k = a->dims[a->rank - 1];
    p->m = row ? 1 : a->dims[a->rank - 2];
    p->n = column ? 1 : b->dims[b->rank - 1];
    p->a_row = p->k;
    p->b_row = column ? 1 : p->n;
    p->b_col = 1;
}

/* The output's leading dims and the operands' steps through them, in whole matrices. */
static void make_walk(kiln_walk *w, const kiln_tensor *a, const kiln_tensor *b) {
    int32_t ra = batch_rank(a), rb = batch_rank(b), rank = ra > rb ? ra : rb;
    int64_t dims[KILN_MAX_RANK], strides[KILN_MAX_RANK];
    for (int32_t i = 0; i < rank; i++) {
        int64_t da = i >= rank - ra ? a->dims[i - rank + ra] : 1;
        int64_t db = i >= rank - rb ? b->dims[i - rank + rb] : 1;
        dims[i] = da == 1 ? db : da;
    }
    kiln_walk_init(w, dims, rank);
    kiln_broadcast_strides(a->dims, ra, dims, rank, strides);
    kiln_walk_operand(w, strides);
    kiln_broadcast_strides(b->dims, rb, dims, rank, strides);
    kiln_walk_operand(w, strides);
}

#define DEFINE_MATMUL(name, type, product)                                    \
    kiln_status name(kiln_ref *c, const kiln_tensor *a, const kiln_tensor *b, \
                     const kiln_tensor *out, type *y) {                       \
        if (kiln_tensor_count(out) == 0) {                                    \
            return KILN_OK;                                                   \
        }                                                                     \
        kiln_product p;                                                       \
        kiln_walk w;                                                          \
        make_product(&p, a, b);                                               \
        make_walk(&w, a, b);                                                  \
        do {                                                                  \
            p.a_at = w.offset[0] * p.m * p.k;                                 \
            p.b_at = w.offset[1] * p.k * p.n;                                 \
            KILN_TRY(product(c, &p, y));                                      \
            y += p.m * p.n;                                                   \
        } while (kiln_walk_next(&w));                                         \
        return KILN_OK;                                                       \
    }

DEFINE_MATMUL(kiln_matmul_f64, double, kiln_product_f64)
DEFINE_MATMUL(kiln_matmul_u64, uint64_t, kiln_product_u64)

/* ---- Inference ---- */

static kiln_status broadcast_leading(kiln_infer *c, int32_t a, int32_t b, int32_t rank,
                                     kiln_dim *dims) {
    int32_t ra = kiln_infer_in_rank(c, a), rb = kiln_infer_in_rank(c, b);
    for (int32_t i = 0; i < rank; i++) { /* counted from the last leading dim */
        kiln_dim da = i < ra - 2 ? kiln_infer_dim(c, a, ra - 3 - i) : 1;
        kiln_dim db = i < rb - 2 ? kiln_infer_dim(c, b, rb - 3 - i) : 1;
        if (!kiln_dim_broadcast(c->dims, da, db, &dims[rank - 1 - i])) {
            return KILN_INFER_FAIL(c, SHAPE, "leading dims %lld and %lld do not broadcast",
                                   (long long)da, (long long)db);
        }
    }
    return KILN_OK;
}

kiln_status kiln_matmul_infer(kiln_infer *c, int32_t a, int32_t b, kiln_dtype dtype) {
    KILN_TRY(kiln_infer_rank(c, a, 1, -1));
    KILN_TRY(kiln_infer_rank(c, b, 1, -1));
    int32_t ra = kiln_infer_in_rank(c, a), rb = kiln_infer_in_rank(c, b);
    if (ra < 0 || rb < 0) {
        return kiln_infer_dims(c, 0, dtype, KILN_RANK_UNKNOWN) ? KILN_OK : KILN_E_MEMORY;
    }
    kiln_dim ka = kiln_infer_dim(c, a, -1), kb = kiln_infer_dim(c, b, rb == 1 ? 0 : -2);
    if (kiln_dim_differ(ka, kb)) {
        return KILN_INFER_FAIL(c, SHAPE, "A has %lld columns, B has %lld rows", (long long)ka,
                               (long long)kb);
    }
    int32_t la = ra > 2 ? ra - 2 : 0, lb = rb > 2 ? rb - 2 : 0, leading = la > lb ? la : lb;
    kiln_dim *dims = kiln_infer_dims(c, 0, dtype, leading + (ra > 1) + (rb > 1));
    if (!dims) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(broadcast_leading(c, a, b, leading, dims));
    if (ra > 1) {
        dims[leading++] = kiln_infer_dim(c, a, -2);
    }
    if (rb > 1) {
        dims[leading] = kiln_infer_dim(c, b, -1);
    }
    return KILN_OK;
}

int64_t kiln_matmul_macs(const kiln_fact *out, kiln_dim k) {
    kiln_tensor y = {0};
    int64_t macs;
    if (!kiln_dim_known(k) || !kiln_type_to_tensor(&out->type, &y)) {
        return 0;
    }
    return kiln_mul_i64(kiln_tensor_count(&y), k, &macs) ? macs : INT64_MAX;
}

void kiln_matmul_cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                      kiln_cost *cost) {
    const kiln_type *a = &in[0].type;
    (void)node;
    cost->macs = a->rank > 0 ? kiln_matmul_macs(out, a->dims[a->rank - 1]) : 0;
}
