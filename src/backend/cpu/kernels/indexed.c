#include "backend/cpu/kernels/indexed.h"

#include "ops/index.h"

enum { PIECE = 256 };

/* ---- Boxes ---- */

static void add_dim(kiln_box *b, int64_t small, int64_t large) {
    int32_t last = b->rank - 1;
    if (small == large && last >= 0) {
        b->small[last] *= small;
        b->large[last] *= large;
    } else {
        b->small[b->rank] = small;
        b->large[b->rank++] = large;
    }
}

/* The length of what is contiguous in both. */
static int64_t run_of(const kiln_box *b) {
    return b->rank ? b->small[b->rank - 1] : 1;
}

/* Where element i of the small box lies in the large one. */
static int64_t place(const kiln_box *b, int64_t i) {
    int64_t at = 0, stride = 1;
    for (int32_t d = b->rank - 1; d >= 0; d--) {
        at += i % b->small[d] * stride;
        i /= b->small[d];
        stride *= b->large[d];
    }
    return at;
}

/* ---- Claims ---- */

kiln_claim *kiln_indexed_claim(kiln_claimer *c, const kiln_kernel *kernel, kiln_node *node) {
    for (int32_t i = 0; i < node->n_in; i++) {
        const kiln_type *t = &node->in[i]->type;
        if (t->kind != KILN_KIND_TENSOR || t->rank < 0 || kiln_move_bytes(t->dtype) == 0) {
            return kiln_claim_refuse(c, "it takes known ranks and elements of whole bytes");
        }
    }
    kiln_claim *r = kiln_claim_new(c, kernel, node, node->n_in, 1, 1);
    for (int32_t i = 0; r && i < node->n_in; i++) {
        r->in[i] = node->in[i];
    }
    return r;
}

/* ---- Elements ---- */

void kiln_indexed_elements(kiln_indexed *s, const kiln_tensor *small, const kiln_tensor *large,
                           int64_t axis) {
    int32_t a = kiln_axis_of(axis, large->rank);
    for (int32_t d = 0; d < large->rank; d++) {
        if (d != a) {
            add_dim(d < a ? &s->outer : &s->inner, small->dims[d], large->dims[d]);
        }
    }
    s->count = small->dims[a];
    s->n = large->dims[a];
    s->inner_small = kiln_index_span(s->inner.small, s->inner.rank);
    s->inner_large = kiln_index_span(s->inner.large, s->inner.rank);
    s->lanes = s->count ? kiln_index_span(s->outer.small, s->outer.rank) * s->inner_small : 0;
}

/* offset[i] = the place along the axis, as elements; -1 for an index out of range. */
#define KILN_DECODE(type)                                         \
    for (int64_t i = 0; i < n; i++) {                             \
        int64_t v = ((const type *)index)[from + i];              \
        v = v < 0 ? v + s->n : v;                                 \
        offset[i] = v < 0 || v >= s->n ? -1 : v * s->inner_large; \
    }

static void decode(const kiln_indexed *s, const void *index, int64_t from, int64_t n,
                   int64_t *offset) {
    if (s->index_dtype == KILN_DTYPE_I32) {
        KILN_DECODE(int32_t)
    } else {
        KILN_DECODE(int64_t)
    }
}

/* One run: n elements of small from `from`, which belong at large[at + offset + i * step]. */
static void run_piece(const kiln_indexed *s, kiln_indexed_fn *fn, const void *index, char *large,
                      char *small, int64_t at, int64_t from, int64_t n, int64_t step) {
    int64_t offset[PIECE];
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t m = n - i < PIECE ? n - i : PIECE;
        decode(s, index, from + i, m, offset);
        fn(large + (at + i * step) * s->bytes, small + (from + i) * s->bytes, offset, m, step);
    }
}

/* Lanes [i0, i1) of outer position o. */
static void walk_block(const kiln_indexed *s, kiln_indexed_fn *fn, const void *index, char *large,
                       char *small, int64_t o, int64_t i0, int64_t i1) {
    int64_t base = place(&s->outer, o) * s->n * s->inner_large, run = run_of(&s->inner);
    if (s->inner_small == 1) { /* what is contiguous runs along the axis */
        run_piece(s, fn, index, large, small, base, o * s->count, s->count, 0);
        return;
    }
    for (int64_t j = 0; j < s->count; j++) {
        for (int64_t i = i0, next; i < i1; i = next) {
            next = i - i % run + run;
            next = next < i1 ? next : i1;
            run_piece(s, fn, index, large, small, base + place(&s->inner, i),
                      (o * s->count + j) * s->inner_small + i, next - i, 1);
        }
    }
}

void kiln_indexed_walk(const kiln_indexed *s, kiln_indexed_fn *fn, const void *index, char *large,
                       char *small, int64_t lane0, int64_t lane1) {
    while (lane0 < lane1) {
        int64_t o = lane0 / s->inner_small, i0 = lane0 % s->inner_small;
        int64_t left = lane1 - lane0, rest = s->inner_small - i0;
        int64_t n = left < rest ? left : rest;
        walk_block(s, fn, index, large, small, o, i0, i0 + n);
        lane0 += n;
    }
}

/* ---- Checks ---- */

/* Whether every index is in range; without a branch for each. `step` is depth. */
#define KILN_ALL_IN(type, step)                                \
    for (int32_t d = 0; d < depth; d++) {                      \
        int64_t lo = -dims[d], hi = dims[d] - 1;               \
        for (int64_t i = 0; i < count; i++) {                  \
            int64_t v = ((const type *)index)[i * (step) + d]; \
            bad |= (unsigned)(v < lo) | (unsigned)(v > hi);    \
        }                                                      \
    }

static bool all_in(kiln_dtype dtype, const void *index, int64_t count, int32_t depth,
                   const int64_t *dims) {
    unsigned bad = 0;
    if (dtype == KILN_DTYPE_I32) {
        KILN_ALL_IN(int32_t, depth)
    } else if (depth == 1) {
        KILN_ALL_IN(int64_t, 1)
    } else {
        KILN_ALL_IN(int64_t, depth)
    }
    return !bad;
}

kiln_status kiln_indexed_check(const kiln_call *call, const kiln_node *node, kiln_dtype dtype,
                               const void *index, int64_t count, int32_t depth,
                               const int64_t *dims) {
    int64_t k;
    if (all_in(dtype, index, count, depth, dims)) {
        return KILN_OK;
    }
    kiln_diag_at_node(call->env->diag, node->name, node->op->name);
    for (int64_t i = 0; i < count * depth; i++) {
        KILN_TRY(
            kiln_index_in(call->env->diag, kiln_get_i64(dtype, index, i), dims[i % depth], &k));
    }
    return KILN_OK;
}
