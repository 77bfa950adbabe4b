/* top_k.c - TopK of numbers of at most 32 bits: rows along the axis, each by one member. */
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/kernels/ranking.h"
#include "ops/attrs.h"
#include "ops/index.h"
#include "ops/ops.h"

typedef struct top_k_state {
    kiln_dtype dtype;
    bool descending, has_values, has_indices;
    int32_t bytes; /* of an element */
    int64_t n, k, inner, rows;
} top_k_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, top_k)) {
        return kiln_claim_refuse(c, "it runs TopK");
    }
    const kiln_type *t = &node->in[0]->type;
    if (t->kind != KILN_KIND_TENSOR || t->rank < 1 || !kiln_ranking_takes(t->dtype)) {
        return kiln_claim_refuse(c,
                                 "it takes tensors of known rank, of numbers of at most 32 bits");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_top_k, node, 2, node->n_out, 1);
    if (r) {
        memcpy(r->in, node->in, 2 * sizeof(kiln_value *));
    }
    return r;
}

static kiln_status bind(kiln_binder *b) {
    const kiln_top_k_attrs *a = b->claim->anchor->attrs;
    const kiln_tensor *x = &b->in[0].tensor;
    top_k_state *s;
    KILN_ALLOC(s, b->arena, 1);
    int32_t axis = kiln_axis_of(a->axis, x->rank);
    s->dtype = x->dtype;
    s->descending = a->largest != 0;
    s->bytes = kiln_move_bytes(x->dtype);
    s->n = x->dims[axis];
    s->inner = kiln_index_span(x->dims + axis + 1, x->rank - axis - 1);
    for (int32_t i = 0; i < b->claim->n_out; i++) {
        if (b->out[i].layout) {
            s->k = b->out[i].tensor.dims[axis];
            *(i ? &s->has_indices : &s->has_values) = true;
        }
    }
    if (s->n > INT32_MAX) {
        return kiln_fail(b->diag, KILN_F_OVERFLOW, "TopK over an axis of size %lld",
                         (long long)s->n);
    }
    s->rows = s->k ? kiln_index_span(x->dims, axis) * s->inner : 0;
    b->scratch_bytes = kiln_ranking_bytes(s->n);
    b->state = s;
    return KILN_OK;
}

#define PICK(type)                                                             \
    for (int64_t j = 0; j < s->k; j++) {                                       \
        ((type *)y)[j * s->inner] = ((const type *)x)[r->items[j] * s->inner]; \
    }                                                                          \
    break

static void pick(const top_k_state *s, const kiln_ranking *r, const void *x, void *y) {
    switch (s->bytes) {
    case 1:
        PICK(uint8_t);
    case 2:
        PICK(uint16_t);
    default:
        PICK(uint32_t);
    }
}

static void run(const kiln_call *call, const kiln_team *team) {
    const top_k_state *s = call->state;
    char *scratch = call->scratch + (size_t)team->rank * call->scratch_bytes;
    int64_t begin, end;
    kiln_team_split(team, s->rows, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t from = i / s->inner * s->n * s->inner + i % s->inner;
        int64_t to = i / s->inner * s->k * s->inner + i % s->inner;
        const char *x = (const char *)call->in[0] + from * s->bytes;
        kiln_ranking r = kiln_ranking_at(scratch, s->n);
        kiln_ranking_load(&r, s->dtype, x, s->inner, s->n, s->descending);
        kiln_ranking_first(&r, s->k);
        if (s->has_values) {
            pick(s, &r, x, (char *)call->out[0] + to * s->bytes);
        }
        for (int64_t j = 0; s->has_indices && j < s->k; j++) {
            ((int64_t *)call->out[1])[to + j * s->inner] = r.items[j];
        }
    }
}

const kiln_kernel kiln_kernel_top_k = {
    .name = "top_k",
    .claim = claim,
    .bind = bind,
    .run = run,
};
