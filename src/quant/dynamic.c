#include "quant/dynamic.h"

#include <string.h>

#include "base/diag.h"
#include "ops/attrs.h"
#include "ops/ops.h"
#include "quant/mark.h"
#include "quant/rewrite.h"

/* Outputs of a DynamicQuantizeLinear. */
enum { Q, SCALE, ZERO, N_QUANTIZED };

/* The weights of a product, as operands: nodes that share them share these. */
typedef struct product_weights {
    kiln_weight_job job; /* with the layer's factor as alpha */
    bool transposed;
    kiln_value *w, *scale, *zero; /* zero: NULL for 0 */
} product_weights;

typedef struct placer {
    kiln_rewrite r;
    const kiln_place_options *options;
    kiln_choice choice;
    kiln_node **quantized; /* per value id: its DynamicQuantizeLinear */
    product_weights *done;
    size_t n_done, cap_done;
} placer;

/* ---- What has a form ---- */

static bool is_recurrent(const kiln_node *n) {
    return n->op == &kiln_op_lstm || n->op == &kiln_op_gru;
}

/* Why a layer has none, or NULL. */
static const char *unfit(const kiln_node *n) {
    if (n->op == &kiln_op_matmul && (n->in[0]->constant || !n->in[1]->constant)) {
        return "runtime scales need constant weights as the second operand";
    }
    if (n->op == &kiln_op_matmul && n->in[1]->type.rank != 2) {
        return "its weights are no matrix";
    }
    if (n->op == &kiln_op_gemm && ((const kiln_gemm_attrs *)n->attrs)->transA) {
        return "it transposes its activations";
    }
    return n->op == &kiln_op_conv_transpose ? "ONNX has no integer form of it" : NULL;
}

/* Leaves the layers that have a form; what stands between them stays float. */
static kiln_status restrict_choice(placer *p) {
    const kiln_graph *g = p->r.graph;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        kiln_node_choice *c = &p->choice.nodes[n->id];
        bool layer = kiln_op_rule_of(n->op)->kind == KILN_QUANT_WEIGHTED;
        const char *wrong = !layer    ? "only layers with weights have runtime scales"
                            : c->int8 ? unfit(n)
                                      : NULL;
        const kiln_rule *rule = kiln_rules_find(&p->options->rules, n);
        if (wrong && c->asked && (!layer || rule->kind == KILN_RULE_NAME)) {
            kiln_diag_at_node(p->r.diag, n->name, n->op->name);
            return kiln_fail(p->r.diag, KILN_F_PRECISION, "int8 cannot be had: %s", wrong);
        }
        if (wrong) {
            c->int8 = false;
            c->reason = wrong;
        }
    }
    return KILN_OK;
}

/* ---- Pieces ---- */

static kiln_status quantize(placer *p, kiln_value *x, kiln_node **out) {
    kiln_node **q = &p->quantized[x->id];
    if (!*q) {
        KILN_TRY(kiln_rewrite_node(&p->r, q, &kiln_op_dynamic_quantize_linear, &x, 1, N_QUANTIZED,
                                   x->name, "quantized", x->producer));
        KILN_TRY(kiln_rewrite_name(&p->r, (*q)->out[SCALE], x->name, "scale"));
        KILN_TRY(kiln_rewrite_name(&p->r, (*q)->out[ZERO], x->name, "zero_point"));
    }
    *out = *q;
    return KILN_OK;
}

static kiln_weight_job job_of(const placer *p, const kiln_node *n, const kiln_layer_use *layer,
                              int32_t i) {
    kiln_layer_option o = kiln_layer_option_of(p->options, n);
    return (kiln_weight_job){.weight = n->in[layer->w[i].in],
                             .axis = o.per_tensor ? -1 : layer->w[i].axis,
                             .bits = o.weight_bits,
                             .calibrator = o.weight_calibrator,
                             .alpha = 1};
}

static kiln_status transpose(kiln_tensor *t, kiln_arena *arena) {
    const int64_t n = t->dims[0], k = t->dims[1];
    const int8_t *src = t->data;
    int8_t *dst;
    KILN_ALLOC(dst, arena, n * k);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < k; j++) {
            dst[j * n + i] = src[i * k + j];
        }
    }
    t->data = dst;
    t->dims[0] = k;
    t->dims[1] = n;
    return KILN_OK;
}

/* A vector along the channels, which `spatial` dims follow. */
static void lift(kiln_tensor *t, int32_t spatial) {
    for (int32_t d = 0; d < spatial && t->rank > 0; d++) {
        t->dims[t->rank++] = 1;
    }
}

/* y = a op b, in the layer's name. */
static kiln_status binary(placer *p, const kiln_op *op, kiln_value *a, kiln_value *b,
                          const char *what, const kiln_node *n, kiln_value **y) {
    kiln_value *const in[] = {a, b};
    kiln_node *made;
    KILN_TRY(kiln_rewrite_node(&p->r, &made, op, in, 2, 1, n->out[0]->name, what, n));
    *y = made->out[0];
    return KILN_OK;
}

/* The constant bias as it is added to the result, and multiplied by Gemm's beta; NULL: none. */
static kiln_status bias_of(placer *p, const kiln_node *n, int32_t spatial, kiln_value **out) {
    kiln_value *bias = kiln_node_in(n, 2);
    float beta = n->op == &kiln_op_gemm ? ((const kiln_gemm_attrs *)n->attrs)->beta : 1.0f;
    *out = bias;
    if (n->op == &kiln_op_matmul || !bias) {
        *out = NULL;
        return KILN_OK;
    }
    if (spatial > 0) {
        kiln_tensor t;
        KILN_TRY(kiln_const_eval(bias, &t, p->r.graph->arena, p->r.diag));
        lift(&t, spatial);
        KILN_TRY(kiln_rewrite_constant(&p->r, out, &t, bias->name, "column"));
    }
    if (beta != 1.0f) {
        kiln_value *factor;
        KILN_TRY(kiln_graph_scalar(&factor, p->r.graph, beta));
        return binary(p, &kiln_op_mul, bias, factor, "bias", n, out);
    }
    return KILN_OK;
}

/* ---- Layers ---- */

static const product_weights *find_done(const placer *p, const product_weights *like) {
    for (size_t i = 0; i < p->n_done; i++) {
        const product_weights *d = &p->done[i];
        const kiln_weight_job *a = &d->job, *b = &like->job;
        if (a->weight == b->weight && a->axis == b->axis && a->bits == b->bits &&
            a->calibrator == b->calibrator && a->alpha == b->alpha &&
            d->transposed == like->transposed) {
            return d;
        }
    }
    return NULL;
}

/* int8 as uint8 with zero point 128: ONNX Runtime's products by int8 saturate in between on
 * machines without dot-product instructions, those by uint8 do not. */
static kiln_status make_unsigned(placer *p, product_weights *out, kiln_tensor *t,
                                 const char *name) {
    uint8_t *bytes = t->data, *zero;
    kiln_tensor z = {.dtype = KILN_DTYPE_U8, .cap_bytes = 1};
    for (int64_t i = 0, n = kiln_tensor_count(t); i < n; i++) {
        bytes[i] ^= 0x80;
    }
    t->dtype = KILN_DTYPE_U8;
    KILN_ALLOC(zero, p->r.graph->arena, 1);
    *zero = 128;
    z.data = zero;
    return kiln_rewrite_constant(&p->r, &out->zero, &z, name, "zero_point");
}

/* The integer weights and their scales as the product's operands. */
static kiln_status weights_of(placer *p, const kiln_node *n, const kiln_layer_use *layer,
                              int32_t spatial, product_weights *out) {
    kiln_weight made;
    *out = (product_weights){.job = job_of(p, n, layer, 0),
                             .transposed = n->op == &kiln_op_gemm &&
                                           ((const kiln_gemm_attrs *)n->attrs)->transB};
    out->job.alpha = layer->alpha;
    const product_weights *done = find_done(p, out);
    if (done) {
        *out = *done;
        return KILN_OK;
    }
    const char *name = out->job.weight->name;
    KILN_TRY(kiln_rewrite_weight(&p->r, &made, &out->job, n));
    if (out->transposed) {
        KILN_TRY(transpose(&made.data, p->r.graph->arena));
    }
    float *s = made.scale.data;
    for (int64_t i = 0; i < kiln_tensor_count(&made.scale); i++) {
        s[i] *= (float)layer->alpha;
    }
    lift(&made.scale, spatial);
    if (p->options->style == KILN_QDQ_ONNXRUNTIME) {
        KILN_TRY(make_unsigned(p, out, &made.data, name));
    }
    KILN_TRY(kiln_rewrite_constant(&p->r, &out->w, &made.data, name, "quantized"));
    KILN_TRY(kiln_rewrite_constant(&p->r, &out->scale, &made.scale, name, "scale"));
    KILN_PUSH(&p->r.scratch, p->done, p->n_done, p->cap_done, *out);
    return KILN_OK;
}

static kiln_status place_product(placer *p, kiln_node *n, const kiln_layer_use *layer) {
    bool conv = n->op == &kiln_op_conv;
    int32_t spatial = conv ? n->in[1]->type.rank - 2 : 0;
    kiln_node *q, *product, *cast;
    kiln_value *scale, *bias, *y;
    product_weights w;
    KILN_TRY(quantize(p, n->in[layer->x[0]], &q));
    KILN_TRY(weights_of(p, n, layer, spatial, &w));
    KILN_TRY(bias_of(p, n, spatial, &bias));
    kiln_value *const in[] = {q->out[Q], w.w, q->out[ZERO], w.zero};
    const char *name = n->out[0]->name;
    KILN_TRY(kiln_rewrite_node(&p->r, &product,
                               conv ? &kiln_op_conv_integer : &kiln_op_matmul_integer, in,
                               w.zero ? 4 : 3, 1, name, "sums", n));
    if (conv) {
        product->attrs = n->attrs;
    }
    KILN_TRY(kiln_rewrite_node(&p->r, &cast, &kiln_op_cast, product->out, 1, 1, name, "floats", n));
    ((kiln_cast_attrs *)cast->attrs)->to = KILN_DTYPE_F32;
    KILN_TRY(binary(p, &kiln_op_mul, q->out[SCALE], w.scale, "scales", n, &scale));
    KILN_TRY(binary(p, &kiln_op_mul, cast->out[0], scale, "scaled", n, &y));
    if (bias) {
        KILN_TRY(binary(p, &kiln_op_add, y, bias, "biased", n, &y));
    }
    /* The last node takes the place of the layer. */
    p->r.nodes[p->r.n_nodes - 1]->out[0] = n->out[0];
    p->r.nodes[p->r.n_nodes - 1]->name = n->name;
    return KILN_OK;
}

static kiln_status place_recurrent(placer *p, kiln_node *n, const kiln_layer_use *layer) {
    kiln_node *q, *x;
    kiln_value **old = n->in;
    KILN_ALLOC(n->in, p->r.graph->arena, n->n_in);
    memcpy(n->in, old, (size_t)n->n_in * sizeof *old);
    KILN_TRY(quantize(p, old[layer->x[0]], &q));
    KILN_TRY(kiln_rewrite_node(&p->r, &x, &kiln_op_dequantize_linear, q->out, N_QUANTIZED, 1,
                               old[layer->x[0]]->name, "dequantized", n));
    n->in[layer->x[0]] = x->out[0];
    for (int32_t i = 0; i < layer->n_w; i++) {
        kiln_weight_job job = job_of(p, n, layer, i);
        KILN_TRY(kiln_rewrite_weight_of(&p->r, &n->in[layer->w[i].in], &job, n));
    }
    return kiln_rewrite_append(&p->r, n);
}

static kiln_status place_graph(placer *p, kiln_placed *out) {
    kiln_graph *g = p->r.graph;
    const int32_t n_values = kiln_graph_root(g)->n_values;
    KILN_TRY(kiln_choose(&p->choice, g, p->options, NULL, NULL, &p->r.scratch, p->r.diag));
    KILN_TRY(restrict_choice(p));
    KILN_ALLOC(p->quantized, &p->r.scratch, n_values);
    KILN_TRY(kiln_mark_nodes(&p->choice, p->r.diag));
    KILN_TRY(kiln_placed_report(out, &p->choice, g->arena));
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        kiln_layer_use layer;
        if (!p->choice.nodes[n->id].int8 || kiln_layer_use_of(n, &layer)) {
            KILN_TRY(kiln_rewrite_append(&p->r, n));
        } else {
            KILN_TRY(is_recurrent(n) ? place_recurrent(p, n, &layer) : place_product(p, n, &layer));
        }
    }
    for (int32_t i = 0; i < n_values; i++) {
        out->n_quantized += p->quantized[i] ? 1 : 0;
    }
    return KILN_OK;
}

static kiln_status place_bodies(kiln_placed *out, const kiln_graph *g,
                                const kiln_place_options *options, kiln_diag *diag);

/* The root is verified when its bodies are done. */
static kiln_status place_all(kiln_placed *out, kiln_graph *g, const kiln_place_options *options,
                             kiln_diag *diag) {
    placer p = {.r = {.graph = g, .diag = diag}, .options = options};
    kiln_arena_init(&p.r.scratch, g->env);
    kiln_status status = place_graph(&p, out);
    status = status ? status : place_bodies(out, g, options, diag);
    if (status == KILN_OK && g->parent) {
        kiln_rewrite_take(&p.r);
    } else if (status == KILN_OK) {
        status = kiln_rewrite_finish(&p.r);
    }
    kiln_arena_free(&p.r.scratch);
    return status;
}

/* The network's first and last layers are those of the root. */
static kiln_status place_bodies(kiln_placed *out, const kiln_graph *g,
                                const kiln_place_options *options, kiln_diag *diag) {
    kiln_place_options inside = *options;
    inside.keep_first = inside.keep_last = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int32_t b = 0; b < g->nodes[i]->n_bodies; b++) {
            KILN_TRY(place_all(out, g->nodes[i]->bodies[b], &inside, diag));
        }
    }
    return KILN_OK;
}

kiln_status kiln_place_dynamic(kiln_placed *out, kiln_graph *graph,
                               const kiln_place_options *options, kiln_diag *diag) {
    *out = (kiln_placed){0};
    return place_all(out, graph, options, diag);
}
