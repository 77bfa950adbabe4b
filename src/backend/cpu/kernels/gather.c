/* gather.c - Gather: rows of x chosen by index. Every member copies its share; member 0 looks at
 * all indices first and ends the run when one is out of range. */
#include "backend/cpu/kernels/indexed.h"
#include "backend/cpu/prims/move.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct gather_state {
    const kiln_move_prims *prims;
    const kiln_node *node;
    kiln_gather_args args;
    kiln_dtype index_dtype;
    int64_t rows;
} gather_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, gather)) {
        return kiln_claim_refuse(c, "it runs Gather");
    }
    const kiln_type *x = &node->in[0]->type, *index = &node->in[1]->type;
    if (x->kind != KILN_KIND_TENSOR || x->rank < 1 || kiln_move_bytes(x->dtype) == 0 ||
        index->rank < 0) {
        return kiln_claim_refuse(c, "it takes known ranks and elements of whole bytes");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_gather, node, 2, 1, 1);
    if (r) {
        r->in[0] = node->in[0];
        r->in[1] = node->in[1];
    }
    return r;
}

static kiln_status bind(kiln_binder *b) {
    const kiln_axis_attrs *a = b->claim->anchor->attrs;
    gather_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[0].tensor, *index = &b->in[1].tensor;
    kiln_lane lane = kiln_lane_at(&b->in[0], kiln_axis_of(a->axis, x->rank));
    s->prims = b->target->prims->move;
    s->node = b->claim->anchor;
    s->index_dtype = index->dtype;
    s->args = (kiln_gather_args){.n = lane.n,
                                 .count = kiln_tensor_count(index),
                                 .row_bytes = lane.inner * kiln_move_bytes(x->dtype),
                                 .index_bytes = kiln_move_bytes(index->dtype)};
    s->rows = kiln_tensor_count(&b->out[0].tensor) > 0 ? lane.outer * s->args.count : 0;
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const gather_state *s = call->state;
    int64_t begin, end;
    if (team->rank == 0) {
        call->env->status = kiln_indexed_check(call, s->node, s->index_dtype, call->in[1],
                                               s->args.count, 1, &s->args.n);
    }
    kiln_team_split(team, s->rows, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_gather_args args = s->args;
    args.x = call->in[0];
    args.index = call->in[1];
    args.y = call->out[0];
    s->prims->gather(&args, begin, end);
}

const kiln_kernel kiln_kernel_gather = {
    .name = "gather",
    .claim = claim,
    .bind = bind,
    .run = run,
};
