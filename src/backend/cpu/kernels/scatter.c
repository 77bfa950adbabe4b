/* scatter.c - ScatterND and ScatterElements: a copy of x with slices, or single elements, replaced
 * by updates or reduced with them.
 *
 * Places may be hit more than once, and the order counts: each member does all that happens to the
 * places it owns, in the order of the indices. */
#include "ops/scatter.h"

#include <string.h>

#include "backend/cpu/kernels/indexed.h"
#include "ops/index.h"
#include "ops/ops.h"

/* y[i] takes or is reduced with u[i]. */
typedef void slice_fn(void *y, const void *u, int64_t n);

typedef struct scatter_state {
    const kiln_node *node;
    bool slices;        /* ScatterND */
    kiln_indexed lanes; /* ScatterElements */
    kiln_indexed_fn *fn;
    slice_fn *slice; /* NULL: a copy */
    int64_t elements, tuples, inner;
    int32_t bytes, depth;
    int64_t dims[KILN_MAX_RANK]; /* that indices choose from */
} scatter_state;

/* ---- What happens to an element: a of x, b of the updates ---- */

/* name, stored type, type of the arithmetic, result. Floats are reduced as the operator's
 * reference does it; integers wrap. */
#define KILN_SCATTERS(X)                        \
    X(none_8, uint8_t, uint8_t, b)              \
    X(none_16, uint16_t, uint16_t, b)           \
    X(none_32, uint32_t, uint32_t, b)           \
    X(none_64, uint64_t, uint64_t, b)           \
    X(add_f32, float, double, a + b)            \
    X(mul_f32, float, double, a *b)             \
    X(min_f32, float, double, b < a ? b : a)    \
    X(max_f32, float, double, b > a ? b : a)    \
    X(add_i32, uint32_t, uint32_t, a + b)       \
    X(mul_i32, uint32_t, uint32_t, a *b)        \
    X(min_i32, int32_t, int32_t, b < a ? b : a) \
    X(max_i32, int32_t, int32_t, b < a ? a : b) \
    X(add_i64, uint64_t, uint64_t, a + b)       \
    X(mul_i64, uint64_t, uint64_t, a *b)        \
    X(min_i64, int64_t, int64_t, b < a ? b : a) \
    X(max_i64, int64_t, int64_t, b < a ? a : b)

#define KILN_SCATTER(name, type, wide, result)                                            \
    static type one_##name(wide a, wide b) {                                              \
        (void)a;                                                                          \
        return (type)(result);                                                            \
    }                                                                                     \
    static void slice_##name(void *dst, const void *src, int64_t n) {                     \
        type *y = dst;                                                                    \
        const type *u = src;                                                              \
        for (int64_t i = 0; i < n; i++) {                                                 \
            y[i] = one_##name(y[i], u[i]);                                                \
        }                                                                                 \
    }                                                                                     \
    static void places_##name(void *large, void *small, const int64_t *offset, int64_t n, \
                              int64_t step) {                                             \
        type *y = large;                                                                  \
        const type *u = small;                                                            \
        for (int64_t i = 0; i < n; i++) {                                                 \
            if (offset[i] >= 0) {                                                         \
                y[offset[i] + i * step] = one_##name(y[offset[i] + i * step], u[i]);      \
            }                                                                             \
        }                                                                                 \
    }
KILN_SCATTERS(KILN_SCATTER)

typedef struct form {
    slice_fn *slice;
    kiln_indexed_fn *places;
} form;
#define KILN_FORM(name) \
    { slice_##name, places_##name }
#define KILN_FORMS(type) \
    { KILN_FORM(add_##type), KILN_FORM(mul_##type), KILN_FORM(min_##type), KILN_FORM(max_##type) }
/* By mode, from KILN_SCATTER_ADD on. */
static const form f32_forms[] = KILN_FORMS(f32);
static const form i32_forms[] = KILN_FORMS(i32);
static const form i64_forms[] = KILN_FORMS(i64);
static const form copies[] = {KILN_FORM(none_8), KILN_FORM(none_16), KILN_FORM(none_32),
                              KILN_FORM(none_64)};

/* NULL when there is none. */
static const form *find_form(kiln_dtype dtype, int32_t mode) {
    int32_t bytes = kiln_move_bytes(dtype);
    if (mode == KILN_SCATTER_NONE) {
        return &copies[bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3];
    }
    const form *forms = dtype == KILN_DTYPE_F32   ? f32_forms
                        : dtype == KILN_DTYPE_I32 ? i32_forms
                        : dtype == KILN_DTYPE_I64 ? i64_forms
                                                  : NULL;
    return forms ? &forms[mode - KILN_SCATTER_ADD] : NULL;
}

/* ---- The kernel ---- */

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, scatter_nd) && !KILN_IS(node, scatter_elements)) {
        return kiln_claim_refuse(c, "it runs ScatterND and ScatterElements");
    }
    const kiln_scatter_attrs *a = node->attrs;
    if (!find_form(node->in[0]->type.dtype, a->reduction)) {
        return kiln_claim_refuse(c, "it reduces float32, int32 and int64");
    }
    return kiln_indexed_claim(c, &kiln_kernel_scatter, node);
}

static kiln_status bind(kiln_binder *b) {
    const kiln_node *node = b->claim->anchor;
    const kiln_scatter_attrs *a = node->attrs;
    const kiln_tensor *x = &b->in[0].tensor, *index = &b->in[1].tensor;
    const form *f = find_form(x->dtype, a->reduction);
    scatter_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->node = node;
    s->bytes = s->lanes.bytes = kiln_move_bytes(x->dtype);
    s->lanes.index_dtype = index->dtype;
    s->elements = kiln_tensor_count(x);
    s->fn = f->places;
    s->slice = a->reduction == KILN_SCATTER_NONE ? NULL : f->slice;
    s->slices = KILN_IS(node, scatter_nd);
    if (s->slices) {
        s->depth = (int32_t)index->dims[index->rank - 1];
        s->tuples = kiln_index_span(index->dims, index->rank - 1);
        s->inner = kiln_index_span(x->dims + s->depth, x->rank - s->depth);
        memcpy(s->dims, x->dims, (size_t)s->depth * sizeof *s->dims);
    } else {
        kiln_indexed_elements(&s->lanes, index, x, a->axis);
        s->depth = 1;
        s->dims[0] = s->lanes.n;
        s->tuples = kiln_tensor_count(index);
    }
    b->state = s;
    return KILN_OK;
}

/* Elements [begin, end) of y, which hold x: whatever the updates do to them. */
static void update_slices(const scatter_state *s, const int64_t *index, const char *updates,
                          char *y, int64_t begin, int64_t end) {
    for (int64_t i = 0; i < s->tuples; i++) {
        int64_t at = kiln_indexed_slice(index + i * s->depth, s->depth, s->dims, 0);
        int64_t from = at * s->inner, to = from + s->inner;
        int64_t lo = from > begin ? from : begin, hi = to < end ? to : end;
        if (at < 0 || lo >= hi) {
            continue;
        }
        const char *u = updates + (i * s->inner + lo - from) * s->bytes;
        if (s->slice) {
            s->slice(y + lo * s->bytes, u, hi - lo);
        } else {
            memcpy(y + lo * s->bytes, u, (size_t)((hi - lo) * s->bytes));
        }
    }
}

static void run(const kiln_call *call, const kiln_team *team) {
    const scatter_state *s = call->state;
    int64_t begin, end;
    if (team->rank == 0) {
        call->env->status = kiln_indexed_check(call, s->node, s->lanes.index_dtype, call->in[1],
                                               s->tuples, s->depth, s->dims);
    }
    kiln_team_split(team, s->elements, &begin, &end);
    if (begin < end) {
        memcpy((char *)call->out[0] + begin * s->bytes,
               (const char *)call->in[0] + begin * s->bytes, (size_t)((end - begin) * s->bytes));
    }
    if (s->slices) {
        update_slices(s, call->in[1], call->in[2], call->out[0], begin, end);
        return;
    }
    kiln_team_barrier(team);
    kiln_team_split(team, s->lanes.lanes, &begin, &end);
    kiln_indexed_walk(&s->lanes, s->fn, call->in[1], call->out[0], call->in[2], begin, end);
}

const kiln_kernel kiln_kernel_scatter = {
    .name = "scatter",
    .claim = claim,
    .bind = bind,
    .run = run,
};
