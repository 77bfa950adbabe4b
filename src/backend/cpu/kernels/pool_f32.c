/* pool_f32.c - float32 MaxPool, AveragePool, LpPool and their global forms over channels-last
 * images. */
#include "backend/cpu/axes.h"
#include "backend/cpu/prims/pool.h"
#include "ops/ops.h"
#include "ops/pool.h"

typedef struct pool_params {
    kiln_pool_op op;
    bool global;
} pool_params;

typedef struct pool_state {
    const kiln_pool_prims *prims;
    bool global;
    kiln_pool_args pool;
    kiln_global_pool_args whole;
    int64_t units;
} pool_state;

static const struct {
    const kiln_op *op;
    pool_params params;
} table[] = {
    {&kiln_op_max_pool, {KILN_POOL_MAX, false}},
    {&kiln_op_average_pool, {KILN_POOL_AVG, false}},
    {&kiln_op_lp_pool, {KILN_POOL_LP, false}},
    {&kiln_op_global_max_pool, {KILN_POOL_MAX, true}},
    {&kiln_op_global_average_pool, {KILN_POOL_AVG, true}},
    {&kiln_op_global_lp_pool, {KILN_POOL_LP, true}},
};

static const pool_params *find(const kiln_node *node) {
    for (size_t i = 0; i < KILN_COUNT_OF(table); i++) {
        if (table[i].op == node->op) {
            return &table[i].params;
        }
    }
    return NULL;
}

static int64_t power_of(const kiln_node *node, const pool_params *p) {
    return p->op == KILN_POOL_LP ? ((const kiln_pool_attrs *)node->attrs)->p : 1;
}

/* A window that may lie in the padding as a whole averages nothing. */
static bool pads_windows(const kiln_pool_attrs *a) {
    int64_t n = a->kernel_shape.n;
    for (int64_t i = 0; a->pads.v && i < a->pads.n; i++) {
        int64_t dilation = a->dilations.v ? a->dilations.v[i % n] : 1;
        if (a->pads.v[i] > (a->kernel_shape.v[i % n] - 1) * dilation) {
            return true;
        }
    }
    return false;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    const pool_params *p = find(node);
    if (!p) {
        return kiln_claim_refuse(c, "it runs pools");
    }
    const kiln_value *x = node->in[0];
    if (!kiln_value_is_f32(x) || x->type.rank < 3 || (!p->global && x->type.rank > 5)) {
        return kiln_claim_refuse(c, "it takes float32 with 1 to 3 spatial dims");
    }
    if (node->n_out > 1 && (node->out[1]->n_users > 0 || node->out[1]->n_outputs > 0)) {
        return kiln_claim_refuse(c, "the indices are wanted too");
    }
    if (power_of(node, p) > INT32_MAX) {
        return kiln_claim_refuse(c, "p is too large");
    }
    if (!p->global && pads_windows(node->attrs)) {
        return kiln_claim_refuse(c, "a window may lie in the padding");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_pool_f32, node, 1, 1, sizeof(pool_params));
    if (!r) {
        return NULL;
    }
    *(pool_params *)r->params = *p;
    r->in[0] = node->in[0];
    r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_LAST;
    return r;
}

static void lift(const int64_t *src, int32_t n, int64_t lead, int64_t dst[3]) {
    for (int32_t i = 0; i < 3; i++) {
        dst[i] = i < 3 - n ? lead : src[i - (3 - n)];
    }
}

static kiln_status bind_windows(kiln_binder *b, pool_state *s, const pool_params *p) {
    const kiln_pool_attrs *a = b->claim->anchor->attrs;
    const kiln_tensor *x = &b->in[0].tensor, *y = &b->out[0].tensor;
    kiln_window w;
    KILN_TRY(kiln_pool_window(&w, a, x, y, b->diag));
    kiln_pool_args *g = &s->pool;
    g->op = p->op;
    g->p = (int32_t)power_of(b->claim->anchor, p);
    g->include_pad = p->op == KILN_POOL_AVG && a->count_include_pad;
    g->batch = x->dims[0];
    g->channels = x->dims[1];
    lift(w.in, w.n, 1, g->in);
    lift(w.out, w.n, 1, g->out);
    lift(w.kernel, w.n, 1, g->kernel);
    lift(w.stride, w.n, 1, g->stride);
    lift(w.dilation, w.n, 1, g->dilation);
    lift(w.pad_begin, w.n, 0, g->pad);
    lift(w.pad_end, w.n, 0, g->pad_end);
    s->units = g->batch * g->out[0] * g->out[1] * g->out[2];
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const pool_params *p = b->claim->params;
    pool_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[0].tensor, *y = &b->out[0].tensor;
    s->prims = b->target->prims->pool;
    s->global = p->global;
    b->state = s;
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    if (!p->global) {
        return bind_windows(b, s, p);
    }
    s->units = x->dims[0] * x->dims[1];
    s->whole = (kiln_global_pool_args){.op = p->op,
                                       .p = (int32_t)power_of(b->claim->anchor, p),
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
