#include "backend/cpu/kernels/q8_dynamic.h"

#include <math.h>

#include "backend/cpu/operand.h"
#include "ops/ops.h"
#include "ops/util.h"

/* ---- Claiming ---- */

static bool is_bytes(const kiln_value *v, kiln_dtype dtype) {
    return v->type.kind == KILN_KIND_TENSOR && v->type.dtype == dtype;
}

/* Why the operands do not fit, or NULL. */
static const char *check_operands(const kiln_node *node) {
    const kiln_value *x = node->in[0], *w = node->in[1], *zero = kiln_node_in(node, 2);
    bool is_signed = is_bytes(w, KILN_DTYPE_I8);
    if (!is_bytes(x, KILN_DTYPE_U8) || x->type.rank < 2) {
        return "the activations are no uint8 matrix";
    }
    if (!w->constant || !kiln_type_is_static(&w->type) ||
        (!is_signed && !is_bytes(w, KILN_DTYPE_U8))) {
        return "the second operand is no constant of bytes";
    }
    if (zero && kiln_type_elements(&zero->type) != 1) {
        return "the activations have more than one zero point";
    }
    return kiln_q8_zeros_are(kiln_node_in(node, 3), is_signed ? 0 : 128)
               ? NULL
               : "the weights' zero points are not 0 (int8) or 128 (uint8)";
}

static bool is_single(const kiln_value *v) {
    return kiln_value_is_f32(v) && kiln_type_elements(&v->type) == 1;
}

typedef struct claimer {
    kiln_claimer *c;
    kiln_claim *claim;
    kiln_q8_dynamic *d;
    const kiln_type *type; /* of the result */
    int32_t channel;
} claimer;

static bool is_vector(const claimer *k, const kiln_value *v) {
    return kiln_value_is_f32(v) && kiln_is_axis_vector(v, k->type, k->channel);
}

static bool is_factor(const claimer *k, const kiln_value *v) {
    return v->constant && (is_single(v) || is_vector(k, v));
}

/* v is a constant times a number that the run knows: takes the product along. */
static bool take_product(const claimer *k, const kiln_value *v) {
    kiln_node *mul = kiln_claim_producer(k->c, v, &kiln_op_mul);
    for (int32_t i = 0; mul && i < 2; i++) {
        kiln_value *factor = mul->in[i], *scale = mul->in[1 - i];
        if (is_factor(k, factor) && !scale->constant && is_single(scale) &&
            kiln_claim_add(k->c, k->claim, mul)) {
            k->d->w_scale = factor;
            k->d->scale_in = kiln_claim_input(k->c, k->claim, scale, KILN_LAYOUT_ROW);
            return true;
        }
    }
    return false;
}

/* The factor of the sums. Nodes of the region may not lie between it and the product. */
static bool take_factor(const claimer *k, kiln_value *v) {
    if (is_factor(k, v)) {
        k->d->w_scale = v;
        return true;
    }
    if (v->constant || take_product(k, v)) {
        return !v->constant;
    }
    if (is_single(v)) {
        k->d->scale_in = kiln_claim_input(k->c, k->claim, v, KILN_LAYOUT_ROW);
        return true;
    }
    if (is_vector(k, v)) {
        k->d->scales_in = kiln_claim_input(k->c, k->claim, v, KILN_LAYOUT_ROW);
        return true;
    }
    return false;
}

/* The operand of n that is not `mine`, if n is `op` and keeps the shape; or NULL. */
static kiln_value *operand_of(const claimer *k, const kiln_node *n, const kiln_op *op,
                              const kiln_value *mine) {
    if (!n || n->op != op || (n->in[0] == mine) == (n->in[1] == mine) ||
        !kiln_type_same_shape(&n->out[0]->type, k->type)) {
        return NULL;
    }
    return n->in[0] == mine ? n->in[1] : n->in[0];
}

bool kiln_q8_dynamic_claim(kiln_claimer *c, kiln_claim *claim, kiln_q8_dynamic *d, int32_t channel,
                           int64_t n, kiln_layout mask) {
    kiln_node *node = claim->anchor;
    const claimer k = {c, claim, d, &node->out[0]->type, channel};
    *d = (kiln_q8_dynamic){.zero_in = -1, .scale_in = -1, .scales_in = -1, .n = n};
    const char *wrong = check_operands(node);
    kiln_node *cast = wrong ? NULL : kiln_claim_next(c, node->out[0]);
    if (!wrong && (!cast || !KILN_IS(cast, cast) || !kiln_value_is_f32(cast->out[0]))) {
        wrong = "no cast to float32 alone reads the sums";
    }
    if (wrong) {
        kiln_claim_refuse(c, "%s", wrong);
        return false;
    }
    claim->in[0] = node->in[0];
    claim->in_layouts[0] = (uint8_t)mask;
    kiln_value *zero = kiln_node_in(node, 2), *y = cast->out[0];
    d->zero_in = zero ? kiln_claim_input(c, claim, zero, KILN_LAYOUT_ROW) : -1;
    kiln_node *next = kiln_claim_add(c, claim, cast) ? kiln_claim_next(c, y) : NULL;
    kiln_value *factor = operand_of(&k, next, &kiln_op_mul, y);
    if (factor && take_factor(&k, factor)) {
        y = next->out[0];
        next = kiln_claim_add(c, claim, next) ? kiln_claim_next(c, y) : NULL;
    }
    kiln_value *bias = operand_of(&k, next, &kiln_op_add, y);
    if (bias && bias->constant && is_vector(&k, bias) &&
        !kiln_target_is_off(c->target, "fuse_bias")) {
        d->bias = bias;
        y = next->out[0];
        kiln_claim_add(c, claim, next);
    }
    int32_t before = claim->n_nodes;
    if (!kiln_fuse_chain(c, claim, &d->fused, y, channel, NULL, mask, false)) {
        return false;
    }
    d->has_tail = claim->n_nodes > before;
    return true;
}

/* ---- Tables ---- */

float *kiln_q8_dynamic_blob(kiln_packer *k, const kiln_q8_dynamic *d, kiln_status *status) {
    return kiln_pack_blob(k, (size_t)kiln_q8_table_bytes(d->n, 1), status);
}

kiln_status kiln_q8_dynamic_pack(kiln_packer *k, const kiln_q8_dynamic *d, float *blob) {
    kiln_tensor t;
    float *bias = blob + kiln_q8_stride(d->n);
    for (int64_t i = 0; i < d->n; i++) {
        blob[i] = 1;
    }
    if (d->w_scale) {
        KILN_TRY(kiln_pack_constant(k, d->w_scale, &t));
        int64_t count = kiln_tensor_count(&t);
        for (int64_t i = 0; i < d->n; i++) {
            blob[i] = ((const float *)t.data)[i % count];
        }
    }
    if (d->bias) {
        KILN_TRY(kiln_pack_constant(k, d->bias, &t));
        for (int64_t i = 0; i < d->n; i++) {
            bias[i] = ((const float *)t.data)[i];
        }
    }
    return KILN_OK;
}

/* ---- Binding and running ---- */

void kiln_q8_dynamic_bind(kiln_q8_dynamic_bound *s, const kiln_q8_dynamic *d, kiln_binder *b) {
    s->d = d;
    kiln_fuse_bind(&s->fused, &d->fused, b, d->n);
    b->shared_bytes = 2 * (size_t)kiln_q8_stride(d->n) * sizeof(float);
}

int32_t kiln_q8_dynamic_zero(const kiln_q8_dynamic_bound *s, const kiln_call *call) {
    return s->d->zero_in >= 0 ? *(const uint8_t *)call->in[s->d->zero_in] : 0;
}

void kiln_q8_dynamic_begin(const kiln_q8_dynamic_bound *s, const kiln_call *call,
                           const kiln_team *team, const void *blob, kiln_q8_epilogue *epilogue,
                           kiln_epilogue *floats, kiln_program_post_args *post) {
    const kiln_q8_dynamic *d = s->d;
    const int64_t stride = kiln_q8_stride(d->n);
    const float *factor = blob, *bias = factor + stride;
    const int32_t *sums = (const int32_t *)(const void *)(bias + stride);
    const float *scales = d->scales_in >= 0 ? call->in[d->scales_in] : NULL;
    float *scale = call->shared, one = 1;
    int32_t *start = (int32_t *)call->shared + stride, zero = kiln_q8_dynamic_zero(s, call);
    int64_t begin, end;
    one = d->scale_in >= 0 ? *(const float *)call->in[d->scale_in] : one;
    kiln_team_split(team, stride, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        start[i] = -zero * sums[i];
        scale[i] = scales && i < d->n ? scales[i] : factor[i] * one;
    }
    kiln_team_barrier(team);
    if (d->has_tail) {
        kiln_fuse_resolve(&s->fused, call, floats, post);
    }
    *epilogue = (kiln_q8_epilogue){.start = start,
                                   .scale = scale,
                                   .offset = bias,
                                   .lo = -INFINITY,
                                   .hi = INFINITY,
                                   .to_float = true,
                                   .floats = d->has_tail ? floats : NULL};
}
