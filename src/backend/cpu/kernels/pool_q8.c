/* pool_q8.c - pools of bytes over channels-last images.
 *
 * MaxPool of uint8 or int8 stands alone. AveragePool, GlobalAveragePool and ReduceMean over all
 * spatial axes are regions: DequantizeLinear, the pool, [QuantizeLinear], computed by integer sums
 * and one rounding (prims/pool.h has the formula). Against ONNX's formula, which rounds every float
 * sum and quotient, the result is the same but where the exact quotient lies within some float ulps
 * of a tie; there it may be one step off. */
#include "backend/cpu/axes.h"
#include "backend/cpu/kernels/pool_shape.h"
#include "ops/ops.h"
#include "ops/quantize.h"

typedef struct pool_params {
    kiln_pool_kind kind;
    kiln_pool_q8_args q8; /* types, zero points and steps */
} pool_params;

typedef struct pool_state {
    const kiln_pool_prims *prims;
    kiln_pool_q8_args q8;
    int64_t units;
} pool_state;

/* Elements of a window, so that sums stay below 2^31. */
enum { MAX_WINDOW = 1 << 23 };

/* One scale for uint8, all constants. */
static bool reads_bytes(const kiln_node *n, kiln_quant *q) {
    return kiln_quant_read(n, q) && q->n == 1 && q->dtype == KILN_DTYPE_U8;
}

static kiln_claim *make(kiln_claimer *c, kiln_node *node, const kiln_pool_kind *kind) {
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_pool_q8, node, 1, 1, sizeof(pool_params));
    if (!r) {
        return NULL;
    }
    ((pool_params *)r->params)->kind = *kind;
    r->in[0] = node->in[0];
    r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_LAST;
    return r;
}

static kiln_claim *claim_max(kiln_claimer *c, kiln_node *node, const kiln_pool_kind *kind) {
    kiln_dtype dtype = node->in[0]->type.dtype;
    if (dtype != KILN_DTYPE_U8 && dtype != KILN_DTYPE_I8) {
        return kiln_claim_refuse(c, "it takes 8-bit integers");
    }
    kiln_claim *r = make(c, node, kind);
    if (r) {
        ((pool_params *)r->params)->q8.is_signed = dtype == KILN_DTYPE_I8;
    }
    return r;
}

static kiln_claim *claim_average(kiln_claimer *c, kiln_node *node, const kiln_pool_kind *kind) {
    kiln_node *d = node->in[0]->producer;
    kiln_quant x, y;
    bool own = d && KILN_IS(d, dequantize_linear) && c->is_free(c, d) &&
               kiln_claim_next(c, node->in[0]) == node;
    if (!own || !reads_bytes(d, &x)) {
        return kiln_claim_refuse(c, "no DequantizeLinear of its own gives it uint8 of one scale");
    }
    kiln_claim *r = make(c, node, kind);
    if (!r || !kiln_claim_add(c, r, d)) {
        return NULL;
    }
    kiln_pool_q8_args *g = &((pool_params *)r->params)->q8;
    g->x_zero = (int32_t)kiln_quant_zero(&x, 0);
    g->x_step = (double)x.scale[0];
    g->to_float = true;
    r->in[0] = d->in[0];
    kiln_node *q = kiln_claim_next(c, node->out[0]);
    if (q && KILN_IS(q, quantize_linear) && reads_bytes(q, &y)) {
        g->to_float = false;
        g->y_zero = (int32_t)kiln_quant_zero(&y, 0);
        g->y_step = (double)y.scale[0];
        r->out[0] = q->out[0];
        return kiln_claim_add(c, r, q) ? r : NULL;
    }
    return r;
}

/* ReduceMean over all spatial axes and no other. */
static bool means_image(const kiln_node *node) {
    const int64_t *axes;
    int64_t n;
    uint32_t seen = 0;
    if (!KILN_IS(node, reduce_mean) || !kiln_claim_ints(kiln_node_in(node, 1), &axes, &n)) {
        return false;
    }
    int32_t rank = node->in[0]->type.rank;
    for (int64_t i = 0; i < n && rank >= 3; i++) {
        seen |= UINT32_C(1) << kiln_axis_of(axes[i], rank);
    }
    return rank >= 3 && seen == (UINT32_C(1) << rank) - 4;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_pool_kind kind = {KILN_POOL_AVG, true};
    bool mean = means_image(node);
    if (!mean && (!kiln_pool_kind_of(node, &kind) || kind.op == KILN_POOL_LP)) {
        return kiln_claim_refuse(c, "it runs MaxPool, AveragePool and means of whole images");
    }
    const char *refusal = mean ? NULL : kiln_pool_refusal(node, &kind);
    if (refusal) {
        return kiln_claim_refuse(c, "%s", refusal);
    }
    return kind.op == KILN_POOL_MAX ? claim_max(c, node, &kind) : claim_average(c, node, &kind);
}

static kiln_status bind(kiln_binder *b) {
    const pool_params *p = b->claim->params;
    pool_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->prims = b->target->prims->pool;
    s->q8 = p->q8;
    b->state = s;
    if (kiln_tensor_count(&b->out[0].tensor) == 0) {
        return KILN_OK;
    }
    kiln_pool_args *g = &s->q8.shape;
    KILN_TRY(kiln_pool_bind(b, b->claim->anchor, &p->kind, g, &s->units));
    double window = (double)g->kernel[0] * (double)g->kernel[1] * (double)g->kernel[2];
    if (p->kind.op == KILN_POOL_AVG && window > MAX_WINDOW) {
        return kiln_fail(b->diag, KILN_F_RUN_LIMIT, "a window of %.0f bytes is too large to sum",
                         window);
    }
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const pool_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->units, &begin, &end);
    if (begin < end) {
        kiln_pool_q8_args args = s->q8;
        args.x = call->in[0];
        args.y = call->out[0];
        s->prims->pool_q8(&args, begin, end);
    }
}

const kiln_kernel kiln_kernel_pool_q8 = {
    .name = "pool_q8",
    .claim = claim,
    .bind = bind,
    .run = run,
};
