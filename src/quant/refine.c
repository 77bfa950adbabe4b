#include "quant/refine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/ops.h"
#include "quant/scales.h"

enum {
    LEAST_ROWS = 2048, /* for the products of a layer, or as many as it has inputs */
    MEAN_ROWS = 16384,
    ROWS_AT_ONCE = 16,
    SAMPLES_GUESS = 256,
};

/* ---- Which layers ---- */

static kiln_node *made_by(const kiln_value *v, const kiln_op *op) {
    return v && !v->constant && v->producer && v->producer->op == op ? v->producer : NULL;
}

/* float32 scale, int8 constant, of one scale for all or one for each output. */
static bool weights_fit(const kiln_refined *l) {
    kiln_quant w;
    const kiln_tensor *q = kiln_value_data(l->dequant->in[0]);
    bool fits = q && q->dtype == KILN_DTYPE_I8 && kiln_quant_read(l->dequant, &w) &&
                l->weight->type.dtype == KILN_DTYPE_F32 &&
                kiln_type_same_shape(&l->weight->type, &l->dequant->out[0]->type) &&
                (w.n == 1 || w.n == l->rows.n_out);
    for (int64_t i = 0; fits && i < w.n; i++) {
        fits = kiln_quant_zero(&w, i) == 0;
    }
    return fits;
}

static const kiln_node *same_name(const kiln_graph *g, const kiln_node *n) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i]->op == n->op && strcmp(g->nodes[i]->name, n->name) == 0 &&
            strcmp(g->nodes[i]->out[0]->name, n->out[0]->name) == 0) {
            return g->nodes[i];
        }
    }
    return NULL;
}

static bool read_layer(kiln_refined *l, kiln_node *n, const kiln_graph *from) {
    kiln_node *x = n->n_in > 1 ? made_by(n->in[0], &kiln_op_dequantize_linear) : NULL;
    kiln_node *q = x ? made_by(x->in[0], &kiln_op_quantize_linear) : NULL;
    *l = (kiln_refined){.node = n, .random = 1};
    l->dequant = n->n_in > 1 ? made_by(n->in[1], &kiln_op_dequantize_linear) : NULL;
    if (!q || !l->dequant || !l->dequant->in[0]->constant || !kiln_quant_read(x, &l->xq) ||
        l->xq.n != 1 || !kiln_row_source_of(&l->rows, n, &n->in[1]->type)) {
        return false;
    }
    const kiln_node *was = same_name(from, n);
    l->weight = was ? was->in[1] : NULL;
    l->x = q->in[0]->name;
    return l->weight && l->weight->constant && weights_fit(l);
}

static bool is_int_bias(const kiln_node *n) {
    return n->op == &kiln_op_dequantize_linear && n->in[0]->constant &&
           n->in[0]->type.dtype == KILN_DTYPE_I32;
}

kiln_status kiln_refiner_init(kiln_refiner *r, kiln_graph *graph, const kiln_graph *from,
                              bool round, bool bias, kiln_arena *arena, kiln_diag *diag) {
    *r = (kiln_refiner){.graph = graph, .diag = diag};
    kiln_arena_init(&r->sums, graph->env);
    for (size_t i = 0; i < graph->n_nodes; i++) {
        kiln_refined l;
        r->int_biases = r->int_biases || is_int_bias(graph->nodes[i]);
        if (read_layer(&l, graph->nodes[i], from)) {
            /* Weights that several layers share are rounded for none of them alone. */
            l.round = round && l.dequant->out[0]->n_users == 1 &&
                      kiln_gram_bytes(l.rows.groups, l.rows.k, true) <= KILN_REFINE_BYTES;
            l.bias = bias;
            KILN_PUSH(arena, r->layers, r->n, r->cap, l);
        }
    }
    return KILN_OK;
}

void kiln_refiner_free(kiln_refiner *r) {
    if (r->graph) {
        kiln_arena_free(&r->sums);
    }
}

/* ---- Passes ---- */

bool kiln_refiner_begin(kiln_refiner *r) {
    size_t used = 0;
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        kiln_refined *l = &r->layers[i];
        size_t bytes = kiln_gram_bytes(l->rows.groups, l->rows.k, l->round);
        l->active = false;
        if (l->done || (!l->round && !l->bias)) {
            continue;
        }
        if (!any ||
            bytes <= KILN_REFINE_BYTES - (used < KILN_REFINE_BYTES ? used : KILN_REFINE_BYTES)) {
            l->active = any = true;
            l->gram = (kiln_gram){0};
            used += bytes;
        }
    }
    return any;
}

bool kiln_refiner_wants(const kiln_refiner *r, const char *name) {
    for (size_t i = 0; i < r->n; i++) {
        if (r->layers[i].active && strcmp(r->layers[i].x, name) == 0) {
            return true;
        }
    }
    return false;
}

static double next_unit(uint64_t *s) {
    *s = *s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(*s >> 11) * 0x1p-53;
}

/* How many rows of this tensor are taken, so that all samples together give what is wanted. */
static int64_t rows_wanted(const kiln_refiner *r, const kiln_refined *l, const kiln_tensor *x) {
    int64_t total = l->round ? (l->rows.k > LEAST_ROWS ? l->rows.k : LEAST_ROWS) : MEAN_ROWS;
    int64_t samples = r->samples > 0 ? r->samples : SAMPLES_GUESS;
    int64_t batch = x->rank > 1 && x->dims[0] > 0 ? x->dims[0] : 1;
    int64_t n = (total + samples - 1) / samples * batch;
    return n < l->rows.positions ? n : l->rows.positions;
}

/* What the range cuts off is few rows' own: it counts as read without, or the mean would answer
 * for it in all the others. */
static void quantize_rows(const kiln_quant *q, float *x, float *out, int64_t n) {
    const int64_t zero = kiln_quant_zero(q, 0);
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / q->scale[0];
        int64_t steps = kiln_quantize_saturate((double)v, zero, q->dtype) - zero;
        out[i] = (float)steps * q->scale[0];
        x[i] = fabsf(v - (float)steps) > 0.5f ? out[i] : x[i];
    }
}

/* One row of each of n even parts of all positions. */
static kiln_status take_rows(kiln_refiner *r, kiln_refined *l, const kiln_tensor *x) {
    int64_t width = l->rows.groups * l->rows.k, n = rows_wanted(r, l, x), have = 0;
    double part = (double)l->rows.positions / (double)(n > 0 ? n : 1);
    kiln_arena scratch;
    kiln_arena_init(&scratch, r->graph->env);
    float *rows = kiln_arena_array(&scratch, (size_t)width, 2 * ROWS_AT_ONCE * sizeof *rows);
    if (!rows) {
        kiln_arena_free(&scratch);
        return KILN_E_MEMORY;
    }
    float *quantized = rows + ROWS_AT_ONCE * width;
    for (int64_t i = 0; i < n; i++) {
        int64_t p = (int64_t)(((double)i + next_unit(&l->random)) * part);
        p = p < l->rows.positions ? p : l->rows.positions - 1;
        kiln_row_get(&l->rows, x->data, p, rows + have++ * width);
        if (have == ROWS_AT_ONCE || i + 1 == n) {
            quantize_rows(&l->xq, rows, quantized, have * width);
            kiln_gram_add(&l->gram, rows, quantized, have);
            have = 0;
        }
    }
    kiln_arena_free(&scratch);
    return KILN_OK;
}

kiln_status kiln_refiner_see(kiln_refiner *r, const char *name, const kiln_tensor *x) {
    for (size_t i = 0; i < r->n; i++) {
        kiln_refined *l = &r->layers[i];
        if (!l->active || strcmp(l->x, name) != 0 || x->dtype != KILN_DTYPE_F32 ||
            !kiln_row_source_bind(&l->rows, x)) {
            continue;
        }
        if (!l->gram.sum_x) {
            KILN_TRY(kiln_gram_init(&l->gram, l->rows.groups, l->rows.k, l->round, &r->sums));
        }
        KILN_TRY(take_rows(r, l, x));
    }
    return KILN_OK;
}

/* ---- Rewriting ---- */

typedef struct rewrite {
    kiln_refiner *r;
    kiln_refined *l;
    kiln_arena scratch;
    kiln_quant w; /* of the weights */
    const float *was;
    int8_t *now;   /* a copy of the int8 weights, the graph's own */
    double *shift; /* [n_out] what the biases are to gain */
} rewrite;

/* |q| < half for all of them, half a power of two: what the bits of the layer allow. */
static int32_t half_of(const int8_t *q, int64_t n) {
    int32_t half = 2;
    for (int64_t i = 0; i < n; i++) {
        while (abs(q[i]) >= half && half < 128) {
            half *= 2;
        }
    }
    return half;
}

static kiln_status round_all(rewrite *w, int64_t count) {
    const kiln_row_source *s = &w->l->rows;
    float *row, *scratch;
    int8_t *q;
    int32_t half = half_of(w->now, count);
    KILN_ALLOC(row, &w->scratch, s->k);
    KILN_ALLOC(scratch, &w->scratch, 2 * s->k);
    KILN_ALLOC(q, &w->scratch, s->k);
    for (int64_t o = 0; o < s->n_out; o++) {
        int64_t at = o * s->stride_out, group = o / (s->n_out / s->groups);
        for (int64_t i = 0; i < s->k; i++) {
            row[i] = w->was[at + i * s->stride_k];
        }
        w->r->moved += kiln_round_row(q, row, w->w.scale[w->w.n == 1 ? 0 : o], half,
                                      kiln_gram_matrix(&w->l->gram, group), s->k, scratch);
        for (int64_t i = 0; i < s->k; i++) {
            w->now[at + i * s->stride_k] = q[i];
        }
    }
    w->r->weights += count;
    w->r->n_rounded++;
    return KILN_OK;
}

/* W E[x] - Wq E[xq], in units of the layer's result. */
static void find_shift(rewrite *w) {
    const kiln_row_source *s = &w->l->rows;
    const kiln_gram *g = &w->l->gram;
    bool gemm = w->l->node->op == &kiln_op_gemm;
    double alpha = gemm ? (double)((const kiln_gemm_attrs *)w->l->node->attrs)->alpha : 1;
    for (int64_t o = 0; o < s->n_out; o++) {
        int64_t at = o * s->stride_out, first = o / (s->n_out / s->groups) * s->k;
        double scale = (double)w->w.scale[w->w.n == 1 ? 0 : o], sum = 0;
        for (int64_t i = 0; i < s->k; i++) {
            sum += (double)w->was[at + i * s->stride_k] * g->sum_x[first + i];
            sum -= (double)w->now[at + i * s->stride_k] * scale * g->sum_q[first + i];
        }
        w->shift[o] = alpha * sum;
    }
}

/* A constant of its own for input `in` of the node, like `t` with new bytes. */
static kiln_status put_constant(kiln_graph *g, kiln_node *n, int32_t in, const char *name,
                                kiln_tensor t, void *data) {
    const char *fresh = kiln_graph_fresh_name(g, name);
    t.data = data;
    t.cap_bytes = kiln_tensor_bytes(&t);
    return fresh ? kiln_graph_constant(&n->in[in], g, fresh, &t) : KILN_E_MEMORY;
}

/* Room for input `in` of the node, nothing so far. */
static kiln_status widen_inputs(kiln_graph *g, kiln_node *n, int32_t in) {
    if (in >= n->n_in) {
        kiln_value **more;
        KILN_ALLOC(more, g->arena, in + 1);
        memcpy(more, n->in, (size_t)n->n_in * sizeof *more);
        n->in = more;
        n->n_in = in + 1;
    }
    return KILN_OK;
}

/* bias + shift for a float vector at input `in` of n, which is missing, or whose elements are those
 * of the outputs; *fits is false when it is neither. */
static kiln_status shift_float(rewrite *w, kiln_node *n, int32_t in, bool *fits) {
    kiln_graph *g = w->r->graph;
    int64_t count = w->l->rows.n_out;
    kiln_value *old = kiln_node_in(n, in);
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 1, .dims = {count}};
    float *sum;
    if (old) {
        *fits = old->constant && old->type.dtype == KILN_DTYPE_F32;
        KILN_TRY(*fits ? kiln_const_eval(old, &t, &w->scratch, w->r->diag) : KILN_OK);
        *fits =
            *fits && t.rank > 0 && t.dims[t.rank - 1] == count && kiln_tensor_count(&t) == count;
    }
    if (!*fits) {
        return KILN_OK;
    }
    KILN_ALLOC(sum, g->arena, count);
    for (int64_t i = 0; i < count; i++) {
        sum[i] = (float)((old ? (double)((const float *)t.data)[i] : 0) + w->shift[i]);
    }
    KILN_TRY(widen_inputs(g, n, in));
    return put_constant(g, n, in, old ? old->name : n->name, t, sum);
}

/* A new int32 bias in steps of the products of scales, behind a DequantizeLinear. */
static kiln_status add_int(rewrite *w, kiln_node *n, int32_t in) {
    kiln_graph *g = w->r->graph;
    int64_t count = w->l->rows.n_out;
    kiln_tensor step = {.dtype = KILN_DTYPE_F32, .rank = 1, .dims = {count}};
    kiln_tensor sum = {.dtype = KILN_DTYPE_I32, .rank = 1, .dims = {count}}, zero = sum;
    kiln_node *d;
    bool gemm = n->op == &kiln_op_gemm;
    double alpha = gemm ? (double)((const kiln_gemm_attrs *)n->attrs)->alpha : 1;
    KILN_TRY(kiln_graph_node(&d, g, &kiln_op_dequantize_linear,
                             kiln_graph_fresh_name(g, "bias_dequantized"),
                             (kiln_value *[]){n->in[0], n->in[0], n->in[0]}, 3, 1));
    float *steps;
    int32_t *sums, *zeros;
    KILN_ALLOC(steps, g->arena, count);
    KILN_ALLOC(sums, g->arena, count);
    KILN_ALLOC(zeros, g->arena, count);
    for (int64_t i = 0; i < count; i++) {
        double w_scale = (double)w->w.scale[w->w.n == 1 ? 0 : i];
        steps[i] = (float)(alpha * (double)w->l->xq.scale[0] * w_scale);
        sums[i] =
            (int32_t)kiln_quantize_saturate(w->shift[i] / (double)steps[i], 0, KILN_DTYPE_I32);
    }
    KILN_TRY(put_constant(g, d, 0, "bias_quantized", sum, sums));
    KILN_TRY(put_constant(g, d, 1, "bias_scale", step, steps));
    KILN_TRY(put_constant(g, d, 2, "bias_zero_point", zero, zeros));
    ((kiln_quant_attrs *)d->attrs)->axis = 0;
    KILN_TRY(widen_inputs(g, n, in));
    n->in[in] = d->out[0];
    return KILN_OK;
}

/* The same for an int32 bias behind a DequantizeLinear. */
static kiln_status shift_int(rewrite *w, kiln_node *dequant, bool *fits) {
    const kiln_tensor *t = kiln_value_data(dequant->in[0]);
    const kiln_tensor *scale = kiln_value_data(kiln_node_in(dequant, 1));
    int64_t count = w->l->rows.n_out, n = scale ? kiln_tensor_count(scale) : 0;
    int32_t *sum;
    *fits = t && scale && t->dtype == KILN_DTYPE_I32 && scale->dtype == KILN_DTYPE_F32 &&
            kiln_tensor_count(t) == count && (n == 1 || n == count);
    if (!*fits) {
        return KILN_OK;
    }
    KILN_ALLOC(sum, w->r->graph->arena, count);
    for (int64_t i = 0; i < count; i++) {
        double step = (double)((const float *)scale->data)[n == 1 ? 0 : i];
        double v = (double)((const int32_t *)t->data)[i] + w->shift[i] / step;
        sum[i] = (int32_t)kiln_quantize_saturate(v, 0, KILN_DTYPE_I32);
    }
    return put_constant(w->r->graph, dequant, 0, dequant->in[0]->name, *t, sum);
}

/* The Add of a constant behind a MatMul, or NULL; *in gets the operand. */
static kiln_node *add_behind(const kiln_node *n, int32_t *in) {
    const kiln_value *y = n->out[0];
    kiln_node *add = y->n_users == 1 && y->n_outputs == 0 ? y->users[0] : NULL;
    if (!add || add->op != &kiln_op_add) {
        return NULL;
    }
    *in = add->in[0] == y ? 1 : 0;
    return add->in[*in]->constant ? add : NULL;
}

static kiln_status shift_bias(rewrite *w) {
    kiln_node *n = w->l->node;
    int32_t in = 2;
    bool fits = true;
    if (n->op == &kiln_op_matmul) {
        n = add_behind(n, &in);
        if (!n) {
            return KILN_OK;
        }
    }
    if (n->op == &kiln_op_gemm) {
        float beta = ((const kiln_gemm_attrs *)n->attrs)->beta;
        fits = beta == 1.0f;
    }
    kiln_node *dequant = made_by(kiln_node_in(n, in), &kiln_op_dequantize_linear);
    if (fits && !kiln_node_in(n, in) && w->r->int_biases) {
        KILN_TRY(add_int(w, n, in));
    } else if (fits) {
        KILN_TRY(dequant ? shift_int(w, dequant, &fits) : shift_float(w, n, in, &fits));
    }
    w->r->n_corrected += fits ? 1 : 0;
    return KILN_OK;
}

static kiln_status rewrite_layer(rewrite *w) {
    kiln_graph *g = w->r->graph;
    kiln_refined *l = w->l;
    kiln_value *q = l->dequant->in[0];
    const kiln_tensor *old = kiln_value_data(q);
    kiln_tensor was;
    int64_t count = kiln_tensor_count(old);
    kiln_gram_finish(&l->gram, l->bias);
    KILN_TRY(kiln_const_eval(l->weight, &was, &w->scratch, w->r->diag));
    w->was = was.data;
    w->now = kiln_arena_copy(g->arena, old->data, (size_t)count);
    KILN_TRY(w->now && kiln_quant_read(l->dequant, &w->w) ? KILN_OK : KILN_E_MEMORY);
    if (l->round) {
        KILN_TRY(round_all(w, count));
        KILN_TRY(put_constant(g, l->dequant, 0, q->name, *old, w->now));
    }
    if (l->bias) {
        KILN_ALLOC(w->shift, &w->scratch, l->rows.n_out);
        find_shift(w);
        KILN_TRY(shift_bias(w));
    }
    return KILN_OK;
}

kiln_status kiln_refiner_end(kiln_refiner *r) {
    kiln_status status = KILN_OK;
    for (size_t i = 0; i < r->n && status == KILN_OK; i++) {
        kiln_refined *l = &r->layers[i];
        rewrite w = {.r = r, .l = l};
        l->done = l->done || l->active;
        if (!l->active || !(l->gram.rows > 0)) {
            continue;
        }
        kiln_arena_init(&w.scratch, r->graph->env);
        status = rewrite_layer(&w);
        kiln_arena_free(&w.scratch);
    }
    kiln_arena_free(&r->sums);
    kiln_arena_init(&r->sums, r->graph->env);
    return status;
}
