/* gather_nd.c - GatherND and GatherElements: slices, or single elements, chosen by index. */
#include <string.h>

#include "backend/cpu/kernels/indexed.h"
#include "ops/attrs.h"
#include "ops/index.h"
#include "ops/ops.h"

typedef struct gather_nd_state {
    const kiln_node *node;
    bool slices;        /* GatherND */
    kiln_indexed lanes; /* GatherElements */
    kiln_indexed_fn *fn;
    int64_t tuples, per_batch, inner_bytes;
    int32_t depth;
    int64_t dims[KILN_MAX_RANK]; /* that indices choose from */
} gather_nd_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, gather_nd) && !KILN_IS(node, gather_elements)) {
        return kiln_claim_refuse(c, "it runs GatherND and GatherElements");
    }
    return kiln_indexed_claim(c, &kiln_kernel_gather_nd, node);
}

#define KILN_GATHER(type)                                                                 \
    static void gather_##type(void *large, void *small, const int64_t *offset, int64_t n, \
                              int64_t step) {                                             \
        const type *x = large;                                                            \
        type *y = small;                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                 \
            y[i] = offset[i] < 0 ? 0 : x[offset[i] + i * step];                           \
        }                                                                                 \
    }
KILN_GATHER(uint8_t)
KILN_GATHER(uint16_t)
KILN_GATHER(uint32_t)
KILN_GATHER(uint64_t)

static void bind_slices(gather_nd_state *s, const kiln_tensor *x, const kiln_tensor *index,
                        int32_t batch_dims, int32_t bytes) {
    s->slices = true;
    s->depth = (int32_t)index->dims[index->rank - 1];
    s->tuples = kiln_index_span(index->dims, index->rank - 1);
    s->per_batch = kiln_index_span(index->dims + batch_dims, index->rank - 1 - batch_dims);
    int32_t first = batch_dims + s->depth;
    s->inner_bytes = kiln_index_span(x->dims + first, x->rank - first) * bytes;
    memcpy(s->dims, x->dims + batch_dims, (size_t)s->depth * sizeof *s->dims);
}

static kiln_status bind(kiln_binder *b) {
    const kiln_node *node = b->claim->anchor;
    const kiln_tensor *x = &b->in[0].tensor, *index = &b->in[1].tensor;
    gather_nd_state *s;
    KILN_ALLOC(s, b->arena, 1);
    int32_t bytes = kiln_move_bytes(x->dtype);
    s->node = node;
    s->lanes.index_dtype = index->dtype;
    s->lanes.bytes = bytes;
    if (KILN_IS(node, gather_nd)) {
        const kiln_gather_nd_attrs *a = node->attrs;
        bind_slices(s, x, index, (int32_t)a->batch_dims, bytes);
    } else {
        const kiln_axis_attrs *a = node->attrs;
        kiln_indexed_elements(&s->lanes, index, x, a->axis);
        s->depth = 1;
        s->dims[0] = s->lanes.n;
        s->tuples = kiln_tensor_count(index);
        s->fn = bytes == 1   ? gather_uint8_t
                : bytes == 2 ? gather_uint16_t
                : bytes == 4 ? gather_uint32_t
                             : gather_uint64_t;
    }
    b->state = s;
    return KILN_OK;
}

/* Bytes [begin, end) of the output, which is one slice per tuple. */
static void copy_slices(const gather_nd_state *s, const int64_t *index, const char *x, char *y,
                        int64_t begin, int64_t end) {
    for (int64_t i = begin / s->inner_bytes; i * s->inner_bytes < end; i++) {
        int64_t at = kiln_indexed_slice(index + i * s->depth, s->depth, s->dims, i / s->per_batch);
        int64_t from = i * s->inner_bytes, skip = begin > from ? begin - from : 0;
        int64_t to = from + s->inner_bytes < end ? from + s->inner_bytes : end;
        if (at >= 0) {
            memcpy(y + from + skip, x + at * s->inner_bytes + skip, (size_t)(to - from - skip));
        }
    }
}

/* Slices [begin, end) of a few bytes. `bytes`, and depth where it is 1, are constants once this is
 * inlined. */
static inline void copy_short(const gather_nd_state *s, const int64_t *index, const char *x,
                              char *y, int64_t begin, int64_t end, int64_t bytes, int32_t depth) {
    int64_t batch = begin / s->per_batch, left = (batch + 1) * s->per_batch - begin;
    for (int64_t i = begin; i < end; i++) {
        int64_t at = kiln_indexed_slice(index + i * depth, depth, s->dims, batch);
        if (at >= 0) {
            memcpy(y + i * bytes, x + at * bytes, (size_t)bytes);
        }
        if (--left == 0) {
            left = s->per_batch;
            batch++;
        }
    }
}

#define KILN_SHORT(n)                                            \
    case n:                                                      \
        if (s->depth == 1) {                                     \
            copy_short(s, index, x, y, begin, end, n, 1);        \
        } else {                                                 \
            copy_short(s, index, x, y, begin, end, n, s->depth); \
        }                                                        \
        break;

static void run_slices(const gather_nd_state *s, const kiln_call *call, const kiln_team *team) {
    const int64_t *index = call->in[1];
    const char *x = call->in[0];
    char *y = call->out[0];
    int64_t begin, end, bytes = s->inner_bytes;
    bool few = bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16;
    kiln_team_split(team, few ? s->tuples : s->tuples * bytes, &begin, &end);
    if (begin >= end) {
        return;
    }
    switch (bytes) {
        KILN_SHORT(1)
        KILN_SHORT(2)
        KILN_SHORT(4)
        KILN_SHORT(8)
        KILN_SHORT(16)
    default:
        copy_slices(s, index, x, y, begin, end);
    }
}

static void run(const kiln_call *call, const kiln_team *team) {
    const gather_nd_state *s = call->state;
    int64_t begin, end;
    if (team->rank == 0) {
        call->env->status = kiln_indexed_check(call, s->node, s->lanes.index_dtype, call->in[1],
                                               s->tuples, s->depth, s->dims);
    }
    if (s->slices) {
        run_slices(s, call, team);
        return;
    }
    kiln_team_split(team, s->lanes.lanes, &begin, &end);
    if (begin < end) {
        kiln_indexed_walk(&s->lanes, s->fn, call->in[1], call->in[0], call->out[0], begin, end);
    }
}

const kiln_kernel kiln_kernel_gather_nd = {
    .name = "gather_nd",
    .claim = claim,
    .bind = bind,
    .run = run,
};
