#include "backend/cpu/kernels/q8_region.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/chain.h"
#include "backend/cpu/operand.h"
#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

/* ---- Reading scales ---- */

static bool is_dtype(const kiln_value *v, kiln_dtype dtype) {
    return v && v->type.kind == KILN_KIND_TENSOR && v->type.dtype == dtype && v->type.rank >= 0;
}

bool kiln_q8_read_scalar(const kiln_node *node, kiln_q8_scalar *out) {
    const kiln_value *q = KILN_IS(node, quantize_linear) ? node->out[0] : node->in[0];
    const kiln_value *f = KILN_IS(node, quantize_linear) ? node->in[0] : node->out[0];
    const kiln_value *zero = kiln_node_in(node, 2);
    const kiln_tensor *s = kiln_small_data(node->in[1]), *z = zero ? kiln_small_data(zero) : NULL;
    if (!is_dtype(q, KILN_DTYPE_U8) || !kiln_value_is_f32(f) || !s || s->dtype != KILN_DTYPE_F32 ||
        kiln_tensor_count(s) != 1 || (zero && !z) ||
        ((const kiln_quant_attrs *)node->attrs)->precision) {
        return false;
    }
    out->scale = (double)*(const float *)s->data;
    out->zero = z ? *(const uint8_t *)z->data : 0;
    return isfinite(out->scale) && out->scale > 0;
}

bool kiln_q8_zeros_are(const kiln_value *zero, int64_t want) {
    const kiln_tensor *t = zero ? kiln_small_data(zero) : NULL;
    if (!zero) {
        return want == 0;
    }
    for (int64_t i = 0, n = t ? kiln_tensor_count(t) : 0; i < n; i++) {
        if (kiln_get_i64(t->dtype, t->data, i) != want) {
            return false;
        }
    }
    return t != NULL;
}

const char *kiln_q8_check_weights(const kiln_node *dq, int32_t channel) {
    const kiln_value *w = dq->in[0], *scale = dq->in[1];
    const kiln_quant_attrs *a = dq->attrs;
    bool is_signed = is_dtype(w, KILN_DTYPE_I8);
    if (!w->constant || !scale->constant || !kiln_type_is_static(&w->type)) {
        return "the weights are not constant";
    }
    if (!is_signed && !is_dtype(w, KILN_DTYPE_U8)) {
        return "the weights are neither int8 nor uint8";
    }
    int64_t axis = a->axis < 0 ? a->axis + w->type.rank : a->axis;
    bool single = kiln_type_elements(&scale->type) == 1;
    if (scale->type.dtype != KILN_DTYPE_F32 || a->block_size != 0 || (!single && axis != channel)) {
        return "the weights' scales do not lie along the output channels";
    }
    if (!kiln_q8_zeros_are(kiln_node_in(dq, 2), is_signed ? 0 : 128)) {
        return "the weights' zero points are not 0 (int8) or 128 (uint8)";
    }
    return NULL;
}

/* ---- Claiming ---- */

static bool refuse(kiln_claimer *c, const char *reason) {
    kiln_claim_refuse(c, "%s", reason);
    return false;
}

/* A DequantizeLinear that only v's one reader sees, of uint8 by one scale. */
static kiln_node *dequantized(kiln_claimer *c, const kiln_value *v, kiln_q8_scalar *scalar) {
    kiln_node *dq = kiln_claim_producer(c, v, &kiln_op_dequantize_linear);
    return dq && !dq->in[0]->constant && kiln_q8_read_scalar(dq, scalar) ? dq : NULL;
}

/* The bias is a float constant, or dequantized from one. Takes that node along. */
static bool take_bias(kiln_claimer *c, kiln_claim *claim, kiln_q8_region *g, kiln_value *v) {
    if (!kiln_value_is_f32(v)) {
        return false;
    }
    if (!v->constant) {
        kiln_node *dq = kiln_claim_producer(c, v, &kiln_op_dequantize_linear);
        if (!dq || !dq->in[0]->constant || !dq->in[1]->constant ||
            (kiln_node_in(dq, 2) && !dq->in[2]->constant) || !kiln_claim_add(c, claim, dq)) {
            return false;
        }
    }
    g->bias = v;
    return true;
}

static void init_region(kiln_q8_region *g, const kiln_node *anchor, int32_t channel) {
    *g = (kiln_q8_region){.anchor = anchor,
                          .channel = channel,
                          .residual_in = -1,
                          .lo = -INFINITY,
                          .hi = INFINITY,
                          .alpha = 1};
}

bool kiln_q8_begin_pair(kiln_claimer *c, kiln_claim *claim, kiln_q8_region *g, int32_t channel) {
    const kiln_node *anchor = claim->anchor;
    init_region(g, anchor, channel);
    kiln_node *a = dequantized(c, anchor->in[0], &g->x);
    kiln_node *b = dequantized(c, anchor->in[1], &g->w_scalar);
    if (!a || !b || a == b) {
        return refuse(c, "its inputs are not dequantized from uint8 by one scale each");
    }
    int64_t k = a->in[0]->type.dims[a->in[0]->type.rank - 1];
    if (kiln_dim_known(k) && k > KILN_Q8_MAX_K) {
        return refuse(c, "a sum would be too long for 32 bits");
    }
    claim->in[0] = a->in[0];
    claim->in[1] = b->in[0];
    return kiln_claim_add(c, claim, a) && kiln_claim_add(c, claim, b);
}

bool kiln_q8_begin(kiln_claimer *c, kiln_claim *claim, kiln_q8_region *g, int32_t channel,
                   int32_t w_channel, kiln_value *bias, kiln_layout mask) {
    kiln_node *anchor = claim->anchor;
    init_region(g, anchor, channel);
    kiln_node *x = dequantized(c, anchor->in[0], &g->x);
    kiln_node *w = kiln_claim_producer(c, anchor->in[1], &kiln_op_dequantize_linear);
    if (!x) {
        return refuse(c, "its input is not dequantized from uint8 by one scale");
    }
    const char *wrong = w ? kiln_q8_check_weights(w, w_channel) : "the weights are not dequantized";
    if (wrong) {
        return refuse(c, wrong);
    }
    int64_t n = w->in[0]->type.dims[w_channel], count = kiln_type_elements(&w->in[0]->type);
    if (n == 0 || count == 0 || count / n > KILN_Q8_MAX_K) {
        return refuse(c, "a sum would be empty, or too long for 32 bits");
    }
    g->w = w;
    const kiln_type *y = &anchor->out[0]->type;
    bool vector = bias && (kiln_is_axis_vector(bias, y, channel) ||
                           (bias->type.rank == 1 && bias->type.dims[0] == y->dims[channel]));
    if (bias && (!vector || !take_bias(c, claim, g, bias))) {
        return refuse(c, "the bias is no constant vector along the channels");
    }
    claim->in[0] = x->in[0];
    claim->in_layouts[0] = (uint8_t)mask;
    return kiln_claim_add(c, claim, x) && kiln_claim_add(c, claim, w);
}

/* ---- What follows ---- */

typedef struct extender {
    kiln_claimer *c;
    kiln_claim *claim;
    kiln_q8_region *g;
    kiln_value *last;
    kiln_layout mask;
    bool acted; /* a clamp has been taken */
} extender;

static bool extend_bias(extender *e, const kiln_node *n, kiln_value *other) {
    return KILN_IS(n, add) && other && !e->g->bias && e->g->residual_in < 0 && !e->acted &&
           !kiln_target_is_off(e->c->target, "fuse_bias") && take_bias(e->c, e->claim, e->g, other);
}

static bool extend_residual(extender *e, const kiln_node *n, const kiln_value *other) {
    kiln_q8_scalar scalar;
    if (!KILN_IS(n, add) || !other || e->g->residual_in >= 0 || e->acted ||
        kiln_target_is_off(e->c->target, "fuse_residual") ||
        !kiln_type_same_shape(&other->type, &e->last->type)) {
        return false;
    }
    kiln_node *dq = dequantized(e->c, other, &scalar);
    if (!dq || !kiln_claim_add(e->c, e->claim, dq)) {
        return false;
    }
    e->g->r = scalar;
    e->g->residual_in = kiln_claim_input(e->c, e->claim, dq->in[0], e->mask);
    return e->g->residual_in >= 0;
}

static float clamped(float v, float lo, float hi) {
    return fminf(hi, fmaxf(lo, v));
}

/* One clamp after another is a clamp. */
static bool extend_activation(extender *e, const kiln_node *n) {
    float lo = 0, hi = INFINITY;
    bool fits = KILN_IS(n, relu) || (KILN_IS(n, clip) && kiln_clip_bounds(n, &lo, &hi));
    if (!fits || n->in[0] != e->last || kiln_target_is_off(e->c->target, "fuse_activation")) {
        return false;
    }
    e->g->lo = clamped(e->g->lo, lo, hi);
    e->g->hi = clamped(e->g->hi, lo, hi);
    e->acted = true;
    return true;
}

/* The operand of a two-input node that is not `mine`. */
static kiln_value *other_operand(const kiln_node *n, const kiln_value *mine) {
    if (n->n_in != 2 || !n->in[0] || !n->in[1] || (n->in[0] == mine) == (n->in[1] == mine)) {
        return NULL;
    }
    return n->in[0] == mine ? n->in[1] : n->in[0];
}

/* Q, DQ by the same scale and zero point, Add of a residual: takes all three along. *last is the
 * sum. */
static bool extend_inner(extender *e, kiln_node *quantize) {
    kiln_q8_scalar q, dq;
    kiln_node *n = kiln_claim_next(e->c, quantize->out[0]);
    kiln_node *add = n && KILN_IS(n, dequantize_linear) ? kiln_claim_next(e->c, n->out[0]) : NULL;
    kiln_value *other = add ? other_operand(add, n->out[0]) : NULL;
    if (!other || !kiln_q8_read_scalar(quantize, &q) || !kiln_q8_read_scalar(n, &dq) ||
        q.scale != dq.scale || q.zero != dq.zero) {
        return false;
    }
    extender after = *e;
    after.last = n->out[0];
    after.acted = false;
    if (!extend_residual(&after, add, other)) {
        return false;
    }
    e->g->has_inner = true;
    e->g->inner = q;
    e->g->inner_lo = e->g->lo;
    e->g->inner_hi = e->g->hi;
    e->g->lo = -INFINITY;
    e->g->hi = INFINITY;
    e->acted = false;
    e->last = add->out[0];
    return kiln_claim_add(e->c, e->claim, quantize) && kiln_claim_add(e->c, e->claim, n) &&
           kiln_claim_add(e->c, e->claim, add);
}

bool kiln_q8_extend(kiln_claimer *c, kiln_claim *claim, kiln_q8_region *g, kiln_layout mask) {
    extender e = {.c = c, .claim = claim, .g = g, .last = g->anchor->out[0], .mask = mask};
    const kiln_type *shape = &e.last->type;
    for (kiln_node *n = kiln_claim_next(c, e.last); n && !g->to_uint8;
         n = kiln_claim_next(c, e.last)) {
        kiln_value *other = other_operand(n, e.last);
        if (n->n_out != 1 || !kiln_type_same_shape(&n->out[0]->type, shape)) {
            break;
        }
        if (KILN_IS(n, quantize_linear) && n->in[0] == e.last && extend_inner(&e, n)) {
            continue;
        }
        if (KILN_IS(n, quantize_linear) && n->in[0] == e.last && kiln_q8_read_scalar(n, &g->y)) {
            g->to_uint8 = true;
        } else if (!kiln_value_is_f32(n->out[0]) ||
                   !(extend_bias(&e, n, other) || extend_residual(&e, n, other) ||
                     extend_activation(&e, n))) {
            break;
        }
        if (!kiln_claim_add(c, claim, n)) {
            return false;
        }
        e.last = n->out[0];
    }
    g->last = e.last;
    claim->out[0] = e.last;
    claim->out_layouts[0] = (uint8_t)mask;
    if (!g->to_uint8) {
        int32_t before = claim->n_nodes;
        if (!kiln_fuse_chain(c, claim, &g->tail, e.last, g->channel, NULL, mask, true)) {
            return false;
        }
        g->has_tail = claim->n_nodes > before;
    }
    return c->status == KILN_OK;
}

/* ---- Packing ---- */

kiln_status kiln_q8_bytes(kiln_packer *p, const kiln_value *value, kiln_tensor *out) {
    KILN_TRY(kiln_pack_constant(p, value, out));
    if (out->dtype == KILN_DTYPE_U8) {
        int64_t n = kiln_tensor_count(out);
        const uint8_t *src = out->data;
        int8_t *dst;
        KILN_ALLOC(dst, p->scratch, n);
        for (int64_t i = 0; i < n; i++) {
            dst[i] = (int8_t)(src[i] - 128);
        }
        out->data = dst;
        out->dtype = KILN_DTYPE_I8;
    }
    return KILN_OK;
}

kiln_status kiln_q8_pack_matrix(kiln_packer *p, const kiln_value *value, const kiln_q8_matrix *w,
                                float **tables) {
    const kiln_gemm_q8_prims *gemm = p->target->prims->gemm_q8;
    kiln_status status, second;
    void *packed = kiln_pack_blob(p, (size_t)gemm->packed_bytes(w->k, w->n), &status);
    *tables = kiln_pack_blob(p, (size_t)kiln_q8_table_bytes(w->n, 1), &second);
    if (!packed || !*tables) {
        *tables = NULL;
        return status ? status : second;
    }
    kiln_tensor source;
    KILN_TRY(kiln_q8_bytes(p, value, &source));
    const int8_t *src = source.data;
    const int64_t step_k = w->transposed ? 1 : w->n, step_n = w->transposed ? w->k : 1;
    int32_t *start = (int32_t *)(void *)(*tables + 2 * kiln_q8_stride(w->n));
    for (int64_t i = 0; i < w->k * w->n; i++) {
        start[w->transposed ? i / w->k : i % w->n] += w->factor * src[i];
    }
    gemm->pack(packed, src, w->k, w->n, step_k, step_n, 0, 0, gemm->panels(w->n));
    return KILN_OK;
}

int64_t kiln_q8_table_bytes(int64_t n, int64_t rows) {
    return (2 + rows) * kiln_q8_stride(n) * (int64_t)sizeof(float);
}

/* The bias as doubles: a constant, or what its DequantizeLinear makes of constants. */
static kiln_status read_bias(const kiln_value *bias, double *out, int64_t n, kiln_arena *scratch,
                             kiln_diag *diag) {
    kiln_tensor t;
    if (bias->constant) {
        KILN_TRY(kiln_const_eval(bias, &t, scratch, diag));
    } else {
        const kiln_node *dq = bias->producer;
        kiln_datum in[3] = {{.kind = KILN_KIND_NONE}}, result = {.kind = KILN_KIND_NONE};
        for (int32_t i = 0; i < dq->n_in && i < 3; i++) {
            if (dq->in[i]) {
                in[i].kind = KILN_KIND_TENSOR;
                KILN_TRY(kiln_const_eval(dq->in[i], &in[i].tensor, scratch, diag));
            }
        }
        KILN_TRY(kiln_eval_node(dq, in, &result, NULL, scratch, diag));
        t = result.tensor;
    }
    for (int64_t i = 0; i < n; i++) {
        out[i] = kiln_get_f64(t.dtype, t.data, i);
    }
    return KILN_OK;
}

/* What one step of the result is worth. */
static double result_unit(const kiln_q8_region *g) {
    return g->to_uint8 ? g->y.scale : 1;
}

void kiln_q8_pair_scales(const kiln_q8_region *g, int64_t n, float *tables) {
    double unit = g->has_inner ? g->inner.scale : result_unit(g);
    for (int64_t i = 0; i < kiln_q8_stride(n); i++) {
        tables[i] = (float)(g->x.scale * g->w_scalar.scale / unit);
        tables[kiln_q8_stride(n) + i] = 0;
    }
}

kiln_status kiln_q8_tables(const kiln_q8_region *g, int64_t n, void *blob, kiln_arena *scratch,
                           kiln_diag *diag) {
    kiln_tensor sw;
    double *bias;
    float *scale = blob, *offset = scale + kiln_q8_stride(n);
    double unit = g->has_inner ? g->inner.scale : result_unit(g);
    KILN_TRY(kiln_const_eval(g->w->in[1], &sw, scratch, diag));
    KILN_ALLOC(bias, scratch, n);
    if (g->bias) {
        KILN_TRY(read_bias(g->bias, bias, n, scratch, diag));
    }
    int64_t n_scales = kiln_tensor_count(&sw);
    for (int64_t i = 0; i < n; i++) {
        double w = kiln_get_f64(sw.dtype, sw.data, i % n_scales);
        scale[i] = (float)(g->x.scale * w * g->alpha / unit);
        offset[i] = (float)(bias[i] / unit);
    }
    return KILN_OK;
}

/* A real bound as QuantizeLinear rounds it, less its zero point. */
static float bound(kiln_q8_scalar q, float v) {
    float steps = nearbyintf(v / (float)q.scale), zero = (float)q.zero;
    return clamped(steps, -zero, 255 - zero);
}

kiln_q8_epilogue kiln_q8_epilogue_of(const kiln_q8_region *g, int64_t n, const void *blob) {
    const float *scale = blob, *start = scale + 2 * kiln_q8_stride(n);
    kiln_q8_epilogue e = {.scale = scale,
                          .offset = scale + kiln_q8_stride(n),
                          .start = (const int32_t *)(const void *)start,
                          .residual_zero = g->r.zero,
                          .residual_scale = (float)(g->r.scale / result_unit(g)),
                          .lo = g->to_uint8 ? bound(g->y, g->lo) : g->lo,
                          .hi = g->to_uint8 ? bound(g->y, g->hi) : g->hi,
                          .zero = g->y.zero,
                          .inner = g->has_inner,
                          .to_float = !g->to_uint8,
                          .narrows = g->tail.narrows};
    if (g->has_inner) {
        e.inner_scale = (float)(g->inner.scale / result_unit(g));
        e.inner_lo = bound(g->inner, g->inner_lo);
        e.inner_hi = bound(g->inner, g->inner_hi);
    }
    return e;
}

void kiln_q8_bind(kiln_q8_bound *bound, const kiln_q8_region *g, const kiln_binder *b, int64_t n) {
    bound->region = g;
    kiln_fuse_bind(&bound->tail, &g->tail, b, n);
}

void kiln_q8_resolve(const kiln_q8_bound *bound, const kiln_call *call, kiln_q8_epilogue *io,
                     kiln_epilogue *floats, kiln_program_post_args *args) {
    const kiln_q8_region *g = bound->region;
    io->residual = g->residual_in >= 0 ? call->in[g->residual_in] : NULL;
    io->floats = NULL;
    if (g->has_tail) {
        kiln_fuse_resolve(&bound->tail, call, floats, args);
        io->floats = floats;
    }
}

void kiln_q8_advance(const kiln_q8_bound *bound, kiln_q8_epilogue *io, kiln_epilogue *floats,
                     kiln_program_post_args *args, int64_t elements) {
    io->residual = io->residual ? io->residual + elements : NULL;
    if (io->floats) {
        kiln_fuse_advance(&bound->tail, floats, args, elements);
    }
}

/* ---- The integer reference ---- */

/* The integers of a tensor less their zero point, as doubles: the operators' references compute
 * exactly with those. */
static kiln_status centered(kiln_datum *out, const kiln_tensor *q, int32_t zero,
                            kiln_arena *arena) {
    double *v;
    int64_t n = kiln_tensor_count(q);
    KILN_ALLOC(v, arena, n);
    for (int64_t i = 0; i < n; i++) {
        v[i] = (double)(kiln_get_i64(q->dtype, q->data, i) - zero);
    }
    *out = (kiln_datum){.kind = KILN_KIND_TENSOR, .tensor = *q};
    out->tensor.dtype = KILN_DTYPE_F64;
    out->tensor.data = v;
    out->tensor.cap_bytes = (size_t)n * sizeof *v;
    return KILN_OK;
}

/* acc: the anchor by its reference, on integers, without bias and factor. */
static kiln_status exact_sums(const kiln_q8_region *g, const kiln_datum *inputs, kiln_tensor *acc,
                              kiln_arena *arena, kiln_diag *diag) {
    kiln_tensor w = inputs[g->w ? 0 : 1].tensor;
    kiln_datum in[2], out = {.kind = KILN_KIND_NONE};
    kiln_node bare = *g->anchor;
    bare.n_in = 2;
    if (KILN_IS(&bare, gemm)) {
        kiln_gemm_attrs *attrs = kiln_arena_copy(arena, bare.attrs, sizeof *attrs);
        if (!attrs) {
            return KILN_E_MEMORY;
        }
        attrs->alpha = 1;
        bare.attrs = attrs;
    }
    int32_t zero = g->w_scalar.zero;
    if (g->w) {
        KILN_TRY(kiln_const_eval(g->w->in[0], &w, arena, diag));
        zero = w.dtype == KILN_DTYPE_U8 ? 128 : 0;
    }
    KILN_TRY(centered(&in[0], &inputs[0].tensor, g->x.zero, arena));
    KILN_TRY(centered(&in[1], &w, zero, arena));
    KILN_TRY(kiln_eval_node(&bare, in, &out, NULL, arena, diag));
    *acc = out.tensor;
    return KILN_OK;
}

/* Like the vector code's: NaN becomes lo. */
static float clamp_steps(float v, float lo, float hi) {
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

static float finish(const kiln_q8_epilogue *e, float v, const kiln_tensor *r, int64_t i) {
    if (e->inner) {
        v = nearbyintf(clamp_steps(v, e->inner_lo, e->inner_hi)) * e->inner_scale;
    }
    if (r) {
        float d = (float)(((const uint8_t *)r->data)[i] - e->residual_zero);
        float skip = d * e->residual_scale;
        v = v + skip;
    }
    return clamp_steps(v, e->lo, e->hi);
}

/* The integer part: the value g->last. */
static kiln_status integer_part(const kiln_q8_region *g, const kiln_datum *in, kiln_datum *out,
                                kiln_arena *arena, kiln_diag *diag) {
    kiln_tensor acc, *y = &out->tensor;
    char *blob;
    KILN_TRY(exact_sums(g, in, &acc, arena, diag));
    int64_t count = kiln_tensor_count(&acc), n = acc.dims[g->channel], inner = 1;
    for (int32_t d = g->channel + 1; d < acc.rank; d++) {
        inner *= acc.dims[d];
    }
    KILN_ALLOC(blob, arena, kiln_q8_table_bytes(n, 1));
    if (g->w) {
        KILN_TRY(kiln_q8_tables(g, n, blob, arena, diag));
    } else {
        kiln_q8_pair_scales(g, n, (float *)(void *)blob);
    }
    const kiln_q8_epilogue e = kiln_q8_epilogue_of(g, n, blob);
    const kiln_tensor *r = g->residual_in >= 0 ? &in[g->residual_in].tensor : NULL;
    *out = (kiln_datum){.kind = KILN_KIND_TENSOR, .tensor = acc};
    y->dtype = g->to_uint8 ? KILN_DTYPE_U8 : KILN_DTYPE_F32;
    y->cap_bytes = kiln_tensor_bytes(y);
    y->data = kiln_arena_array(arena, y->cap_bytes, 1);
    if (!y->data) {
        return KILN_E_MEMORY;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t channel = i / inner % n;
        float product = (float)((const double *)acc.data)[i] * e.scale[channel];
        float v = finish(&e, product + e.offset[channel], r, i);
        if (e.to_float) {
            ((float *)y->data)[i] = v;
        } else {
            ((uint8_t *)y->data)[i] = (uint8_t)((int32_t)nearbyintf(v) + e.zero);
        }
    }
    return KILN_OK;
}

/* What a node of the tail reads: an input of the claim, or what a node before it made. */
static kiln_status tail_operand(const kiln_claim *claim, const kiln_datum *in,
                                const kiln_value *last, const kiln_datum *made, const kiln_value *v,
                                kiln_datum *out, kiln_arena *arena, kiln_diag *diag) {
    *out = (kiln_datum){.kind = KILN_KIND_NONE};
    if (v == last) {
        *out = *made;
    } else if (v && v->constant) {
        out->kind = KILN_KIND_TENSOR;
        return kiln_const_eval(v, &out->tensor, arena, diag);
    }
    for (int32_t i = 0; i < claim->n_in && v && v != last; i++) {
        *out = claim->in[i] == v ? in[i] : *out;
    }
    return KILN_OK;
}

kiln_status kiln_q8_reference(const kiln_claim *claim, const kiln_datum *in, kiln_datum *out,
                              kiln_arena *arena, kiln_diag *diag) {
    const kiln_q8_region *g = claim->params;
    const kiln_value *last = g->last;
    KILN_TRY(integer_part(g, in, out, arena, diag));
    /* The tail is a chain: each node reads the one before. */
    for (int32_t k = 0; k < claim->n_nodes && g->has_tail; k++) {
        const kiln_node *n = claim->nodes[k];
        kiln_datum *operands, result = {.kind = KILN_KIND_NONE};
        if (n->id <= g->last->producer->id) {
            continue;
        }
        KILN_ALLOC(operands, arena, n->n_in);
        for (int32_t i = 0; i < n->n_in; i++) {
            KILN_TRY(tail_operand(claim, in, last, out, n->in[i], &operands[i], arena, diag));
        }
        KILN_TRY(kiln_eval_node(n, operands, &result, NULL, arena, diag));
        *out = result;
        last = n->out[0];
    }
    return KILN_OK;
}
