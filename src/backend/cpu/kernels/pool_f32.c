/* pool_f32.c - float32 MaxPool, AveragePool, LpPool and their global forms over channels-last
 * images. */
#include "backend/cpu/kernels/pool_shape.h"
#include "ops/util.h"

typedef struct pool_state {
    const kiln_pool_prims *prims;
    bool global;
    kiln_pool_args pool;
    kiln_global_pool_args whole;
    int64_t units;
} pool_state;

/* Where values may be bfloat16. Rounding and the maximum may change places. */
static void hold(kiln_claim *r, const kiln_pool_kind *kind) {
    r->in_held[0] = KILN_HELD_HALF;
    r->out_held[0] = kind->global ? KILN_HELD_FULL : KILN_HELD_HALF;
    r->same_held = kind->op == KILN_POOL_MAX && !kind->global;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_pool_kind kind;
    if (!kiln_pool_kind_of(node, &kind)) {
        return kiln_claim_refuse(c, "it runs pools");
    }
    if (!kiln_value_is_f32(node->in[0])) {
        return kiln_claim_refuse(c, "it takes float32");
    }
    const char *refusal = kiln_pool_refusal(node, &kind);
    if (refusal) {
        return kiln_claim_refuse(c, "%s", refusal);
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_pool_f32, node, 1, 1, sizeof(kiln_pool_kind));
    if (!r) {
        return NULL;
    }
    *(kiln_pool_kind *)r->params = kind;
    r->in[0] = node->in[0];
    r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_LAST;
    hold(r, &kind);
    return r;
}

static kiln_status bind(kiln_binder *b) {
    const kiln_pool_kind *kind = b->claim->params;
    const kiln_node *node = b->claim->anchor;
    pool_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[0].tensor, *y = &b->out[0].tensor;
    s->prims = b->target->prims->pool;
    s->global = kind->global;
    b->state = s;
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    const bool half_x = x->dtype == KILN_DTYPE_BF16;
    if (!kind->global) {
        KILN_TRY(kiln_pool_bind(b, node, kind, &s->pool, &s->units));
        s->pool.half_x = half_x;
        s->pool.half_y = y->dtype == KILN_DTYPE_BF16;
        return KILN_OK;
    }
    s->units = x->dims[0] * x->dims[1];
    s->whole = (kiln_global_pool_args){.op = kind->op,
                                       .p = kiln_pool_power(node, kind),
                                       .half_x = half_x,
                                       .spatial = kiln_tensor_count(x) / s->units,
                                       .channels = x->dims[1]};
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const pool_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->units, &begin, &end);
    if (begin >= end) {
        return;
    }
    if (s->global) {
        kiln_global_pool_args whole = s->whole;
        whole.x = call->in[0];
        whole.y = call->out[0];
        s->prims->global_pool(&whole, begin, end);
        return;
    }
    kiln_pool_args pool = s->pool;
    pool.x = call->in[0];
    pool.y = call->out[0];
    s->prims->pool(&pool, begin, end);
}

const kiln_kernel kiln_kernel_pool_f32 = {
    .name = "pool_f32",
    .claim = claim,
    .bind = bind,
    .run = run,
};
