/* quantize_last.c - QuantizeLinear of a graph input in NCHW to bytes in NHWC, for the convolutions
 * behind it: one pass instead of a quantizing and a converting one.
 *
 * A block of pixels at a time: its planes become bytes in scratch, which then change places while
 * they are in the first cache. The bytes are those of elementwise.
 *
 * Legend: N images, C channels, S pixels of an image. */
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/move.h"
#include "backend/cpu/prims/quantize.h"
#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

/* Bytes of a block, which fit the first cache beside their floats. */
enum { BLOCK_BYTES = 6144, LEAST_PIXELS = 64, BLOCK_STEP = 16 };

typedef struct quantize_state {
    const kiln_quantize_prims *quantize;
    const kiln_move_prims *move;
    float scale;
    int32_t zero;
    int64_t c, s, pixels; /* pixels: of a block */
    int64_t blocks;       /* of an image */
    int64_t units;
    kiln_copy_plan whole, rest; /* rest: of the last block */
} quantize_state;

/* ---- Claim ---- */

static const kiln_tensor *scalar(const kiln_value *v, kiln_dtype dtype) {
    const kiln_tensor *t = v ? kiln_small_data(v) : NULL;
    return t && t->dtype == dtype && kiln_tensor_count(t) == 1 ? t : NULL;
}

/* What reads channels last. */
static bool is_spatial(const kiln_node *n) {
    const kiln_op *ops[] = {&kiln_op_conv, &kiln_op_conv_transpose, &kiln_op_max_pool,
                            &kiln_op_average_pool, &kiln_op_global_average_pool};
    for (size_t i = 0; i < KILN_COUNT_OF(ops); i++) {
        if (n->op == ops[i]) {
            return true;
        }
    }
    return false;
}

static bool read_by_spatial(const kiln_value *bytes) {
    for (int32_t i = 0; i < bytes->n_users; i++) {
        const kiln_node *d = bytes->users[i];
        bool fits = KILN_IS(d, dequantize_linear) && d->in[0] == bytes;
        for (int32_t k = 0; fits && k < d->out[0]->n_users; k++) {
            fits = is_spatial(d->out[0]->users[k]);
        }
        if (!fits) {
            return false;
        }
    }
    return true;
}

static const char *unfit(const kiln_node *node) {
    const kiln_value *x = node->in[0], *y = node->out[0], *zero = kiln_node_in(node, 2);
    const kiln_quant_attrs *a = node->attrs;
    if (!kiln_value_is_f32(x) || x->producer || x->constant) {
        return "it takes float32 inputs of the graph";
    }
    if (x->type.rank < 3 || x->type.dims[1] == 1) {
        return "its operand has the same bytes in both layouts";
    }
    if (y->type.dtype != KILN_DTYPE_U8 || a->block_size != 0 ||
        (a->precision != 0 && a->precision != KILN_DTYPE_F32) ||
        !scalar(node->in[1], KILN_DTYPE_F32) || (zero && !scalar(zero, KILN_DTYPE_U8))) {
        return "it gives uint8 by one constant scale and zero point";
    }
    return read_by_spatial(y) ? NULL : "not only convolutions and pools read its result";
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, quantize_linear)) {
        return kiln_claim_refuse(c, "it runs QuantizeLinear");
    }
    const char *wrong = unfit(node);
    if (wrong) {
        return kiln_claim_refuse(c, "%s", wrong);
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_quantize_last, node, 1, 1, 0);
    if (r) {
        r->in[0] = node->in[0];
        r->in_layouts[0] = KILN_LAYOUT_ROW;
        r->out_layouts[0] = KILN_LAYOUT_LAST;
    }
    return r;
}

/* ---- Run ---- */

static kiln_status plan_copy(kiln_copy_plan *plan, int64_t pixels, int64_t channels) {
    const int64_t dims[] = {pixels, channels}, src[] = {1, pixels}, dst[] = {channels, 1};
    return kiln_copy_plan_make(plan, 1, 2, dims, src, dst);
}

static kiln_status bind(kiln_binder *b) {
    const kiln_node *node = b->claim->anchor;
    const kiln_value *zero = kiln_node_in(node, 2);
    const kiln_tensor *x = &b->in[0].tensor;
    quantize_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->quantize = b->target->prims->quantize;
    s->move = b->target->prims->move;
    s->scale = *(const float *)scalar(node->in[1], KILN_DTYPE_F32)->data;
    s->zero = zero ? *(const uint8_t *)scalar(zero, KILN_DTYPE_U8)->data : 0;
    s->c = x->dims[1];
    s->s = 1;
    for (int32_t d = 2; d < x->rank; d++) {
        s->s *= x->dims[d];
    }
    int64_t fit = s->c > 0 ? BLOCK_BYTES / s->c / BLOCK_STEP * BLOCK_STEP : 0;
    s->pixels = fit > LEAST_PIXELS ? fit : LEAST_PIXELS;
    s->blocks = (s->s + s->pixels - 1) / s->pixels;
    s->units = kiln_tensor_count(x) > 0 ? x->dims[0] * s->blocks : 0;
    b->scratch_bytes = (size_t)(s->pixels * s->c);
    b->state = s;
    if (s->units == 0) {
        return KILN_OK;
    }
    KILN_TRY(plan_copy(&s->whole, s->pixels, s->c));
    return plan_copy(&s->rest, s->s - (s->blocks - 1) * s->pixels, s->c);
}

static void run(const kiln_call *call, const kiln_team *team) {
    const quantize_state *s = call->state;
    int64_t begin, end;
    uint8_t *planes = (uint8_t *)call->scratch + (size_t)team->rank * call->scratch_bytes;
    kiln_team_split(team, s->units, &begin, &end);
    for (int64_t u = begin; u < end; u++) {
        int64_t image = u / s->blocks, at = u % s->blocks * s->pixels;
        bool last = s->s - at < s->pixels;
        int64_t pixels = last ? s->s - at : s->pixels;
        const kiln_copy_plan *plan = last ? &s->rest : &s->whole;
        const float *x = (const float *)call->in[0] + image * s->c * s->s + at;
        for (int64_t k = 0; k < s->c; k++) {
            s->quantize->quantize(planes + k * pixels, x + k * s->s, pixels, s->scale, s->zero);
        }
        s->move->copy(plan, planes, (uint8_t *)call->out[0] + (image * s->s + at) * s->c, 0,
                      plan->units);
    }
}

const kiln_kernel kiln_kernel_quantize_last = {
    .name = "quantize_last",
    .claim = claim,
    .bind = bind,
    .run = run,
};
