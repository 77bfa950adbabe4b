#include "quant/weight_only.h"

#include <math.h>

#include "ops/attrs.h"
#include "ops/ops.h"
#include "quant/scales.h"

/* Shares of the greatest magnitude that are tried for 4 bits. */
enum { STEPS = 20, LEAST_STEP = 12, LEAST_WEIGHTS = 256 };

/* A constant whose rows are chosen, and what stands for it. */
typedef struct table {
    const kiln_value *weight;
    kiln_value *code, *scale, *zero;
} table;

typedef struct placer {
    kiln_weight_only *job;
    kiln_graph *graph;
    kiln_diag *diag;
    kiln_node **nodes; /* the new list */
    size_t n, cap;
    table *tables; /* of this graph */
    size_t n_tables, cap_tables;
} placer;

/* A matrix [k, n] as it lies: element (k, n) at k * step_k + n * step_n. */
typedef struct matrix {
    const float *w;
    int64_t k, n, step_k, step_n, block, blocks;
    bool trans_b;
} matrix;

/* ---- Scales ---- */

static double error_of(const float *w, int64_t step, int64_t n, const kiln_qparams *q) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float x = w[i * step];
        double e = (double)x - (double)kiln_dequantize_value(q, kiln_quantize_value(q, x));
        sum += e * e;
    }
    return sum;
}

/* Of n weights, `step` apart. */
static float scale_of(const float *w, int64_t step, int64_t n, int32_t bits) {
    const int32_t half = 1 << (bits - 1);
    float amax = 0;
    for (int64_t i = 0; i < n; i++) {
        float m = fabsf(w[i * step]);
        amax = m > amax ? m : amax;
    }
    float most = kiln_weight_scale((double)amax, bits), best = most;
    double least = (double)INFINITY;
    for (int32_t k = STEPS; bits < 8 && amax > 0 && k >= LEAST_STEP; k--) {
        kiln_qparams q = {.scale = most * (float)k / STEPS,
                          .qlo = 1 - half,
                          .qhi = half - 1,
                          .dtype = KILN_DTYPE_I8};
        double error = error_of(w, step, n, &q);
        if (q.scale >= KILN_SCALE_MIN && error < least) {
            least = error;
            best = q.scale;
        }
    }
    return best;
}

/* ---- A matrix ---- */

/* The node multiplies by a constant matrix that is large enough. */
static bool is_wanted(const placer *p, const kiln_node *n) {
    const kiln_value *w = n->n_in > 1 ? n->in[1] : NULL;
    bool product = n->op == &kiln_op_matmul || n->op == &kiln_op_gemm;
    if (!product || !w || !w->constant || w->type.kind != KILN_KIND_TENSOR ||
        w->type.dtype != KILN_DTYPE_F32 || w->type.rank != 2 || !kiln_type_is_static(&w->type) ||
        w->type.dims[0] < 1 || w->type.dims[0] * w->type.dims[1] < LEAST_WEIGHTS) {
        return false;
    }
    const kiln_rule *rule = p->job->rules ? kiln_rules_find(p->job->rules, n) : NULL;
    return !rule || rule->dtype == KILN_DTYPE_I8;
}

static kiln_status check_finite(const placer *p, const kiln_tensor *t) {
    int64_t odd = 0, count = kiln_tensor_count(t);
    for (int64_t i = 0; i < count; i++) {
        odd += isfinite(((const float *)t->data)[i]) ? 0 : 1;
    }
    return odd == 0 ? KILN_OK
                    : kiln_fail(p->diag, KILN_F_PRECISION,
                                "%lld of the weights are NaN or infinite", (long long)odd);
}

static kiln_status make(kiln_tensor *out, kiln_dtype dtype, int32_t rank, int64_t d0, int64_t d1,
                        kiln_arena *arena) {
    *out = (kiln_tensor){.dtype = dtype, .rank = rank, .dims = {d0, d1}};
    out->cap_bytes = kiln_tensor_bytes(out);
    out->data = kiln_arena_array(arena, out->cap_bytes, 1);
    return out->data ? KILN_OK : KILN_E_MEMORY;
}

static void quantize(const matrix *m, int32_t bits, kiln_tensor *code, kiln_tensor *scale) {
    const int32_t half = 1 << (bits - 1);
    kiln_qparams q = {.qlo = 1 - half, .qhi = half - 1, .dtype = KILN_DTYPE_I8};
    for (int64_t n = 0; n < m->n; n++) {
        for (int64_t b = 0; b < m->blocks; b++) {
            int64_t from = b * m->block, to = from + m->block < m->k ? from + m->block : m->k;
            q.scale = scale_of(m->w + from * m->step_k + n * m->step_n, m->step_k, to - from, bits);
            int64_t at = m->trans_b ? n * m->blocks + b : b * m->n + n;
            ((float *)scale->data)[at] = q.scale;
            for (int64_t k = from; k < to; k++) {
                int64_t i = k * m->step_k + n * m->step_n;
                kiln_set_i64(code->dtype, code->data, i, kiln_quantize_value(&q, m->w[i]));
            }
        }
    }
}

static kiln_status constant(placer *p, const char *name, const char *what, const kiln_tensor *t,
                            kiln_value **out) {
    const char *prefix = kiln_arena_printf(p->graph->arena, "%s_%s", name, what);
    const char *fresh = prefix ? kiln_graph_fresh_name(p->graph, prefix) : NULL;
    return fresh ? kiln_graph_constant(out, p->graph, fresh, t) : KILN_E_MEMORY;
}

/* The DequantizeLinear that stands for the weight of n. */
static kiln_status dequantize(placer *p, kiln_node *n, const matrix *m, const kiln_tensor *code,
                              const kiln_tensor *scale) {
    kiln_value *in[2];
    kiln_node *d;
    const char *name = n->in[1]->name;
    KILN_TRY(constant(p, name, "quantized", code, &in[0]));
    KILN_TRY(constant(p, name, "scale", scale, &in[1]));
    KILN_TRY(kiln_graph_detached(&d, p->graph, &kiln_op_dequantize_linear, NULL, in, 2, 1));
    const char *fresh = kiln_graph_fresh_name(p->graph, "dequantized");
    if (!fresh) {
        return KILN_E_MEMORY;
    }
    d->name = d->out[0]->name = fresh;
    bool blocks = p->job->block > 0;
    kiln_quant_attrs *a = d->attrs;
    a->block_size = blocks ? m->block : 0;
    a->axis = m->trans_b == blocks; /* blocks lie along K, single scales along N */
    KILN_TRY(kiln_node_add_sources(p->graph, d, n));
    KILN_PUSH(p->graph->arena, p->nodes, p->n, p->cap, d);
    n->in[1] = d->out[0];
    return KILN_OK;
}

/* ---- A table ---- */

static bool is_row_gather(const kiln_node *n) {
    int64_t axis = n->op == &kiln_op_gather ? ((const kiln_axis_attrs *)n->attrs)->axis : 1;
    return axis == 0 || axis == -2;
}

/* The node chooses rows of a constant matrix that nothing else reads, so that its floats can go. */
static bool is_table(const placer *p, const kiln_node *n) {
    const kiln_value *w = n->n_in > 1 ? n->in[0] : NULL;
    if (!is_row_gather(n) || !w->constant || w->type.kind != KILN_KIND_TENSOR ||
        w->type.dtype != KILN_DTYPE_F32 || w->type.rank != 2 || !kiln_type_is_static(&w->type) ||
        w->type.dims[0] < 1 || w->type.dims[0] * w->type.dims[1] < LEAST_WEIGHTS) {
        return false;
    }
    for (int32_t i = 0; i < w->n_users; i++) {
        if (!is_row_gather(w->users[i]) || w->users[i]->in[0] != w) {
            return false;
        }
    }
    const kiln_rule *rule = p->job->rules ? kiln_rules_find(p->job->rules, n) : NULL;
    return w->n_outputs == 0 && (!rule || rule->dtype == KILN_DTYPE_I8);
}

/* int8 as uint8 of zero point 128, as bytes are held here. */
static void make_unsigned(kiln_tensor *t) {
    uint8_t *bytes = t->data;
    for (int64_t i = 0, n = kiln_tensor_count(t); i < n; i++) {
        bytes[i] ^= 0x80;
    }
    t->dtype = KILN_DTYPE_U8;
}

/* The rows in 8 bits and their scales [rows, 1], made once. */
static kiln_status table_of(placer *p, const kiln_value *w, kiln_arena *scratch,
                            const table **out) {
    const int64_t rows = w->type.dims[0], size = w->type.dims[1];
    kiln_tensor floats, code, scale, zero;
    table made = {.weight = w};
    for (size_t i = 0; i < p->n_tables; i++) {
        if (p->tables[i].weight == w) {
            *out = &p->tables[i];
            return KILN_OK;
        }
    }
    matrix m = {.k = size, .n = rows, .step_k = 1, .step_n = size, .block = size, .blocks = 1};
    m.trans_b = true;
    KILN_TRY(kiln_const_eval(w, &floats, scratch, p->diag));
    KILN_TRY(check_finite(p, &floats));
    m.w = floats.data;
    KILN_TRY(make(&code, KILN_DTYPE_I8, 2, rows, size, p->graph->arena));
    KILN_TRY(make(&scale, KILN_DTYPE_F32, 2, rows, 1, p->graph->arena));
    quantize(&m, 8, &code, &scale);
    make_unsigned(&code);
    KILN_TRY(constant(p, w->name, "quantized", &code, &made.code));
    KILN_TRY(constant(p, w->name, "scale", &scale, &made.scale));
    KILN_TRY(make(&zero, KILN_DTYPE_U8, 0, 0, 0, p->graph->arena));
    *(uint8_t *)zero.data = 128;
    KILN_TRY(constant(p, w->name, "zero_point", &zero, &made.zero));
    KILN_PUSH(p->graph->arena, p->tables, p->n_tables, p->cap_tables, made);
    p->job->n_tables++;
    p->job->weights += rows * size;
    *out = &p->tables[p->n_tables - 1];
    return KILN_OK;
}

static kiln_status append(placer *p, const kiln_op *op, kiln_value *const *in, int32_t n_in,
                          const kiln_node *from, kiln_node **out) {
    KILN_TRY(kiln_graph_detached(out, p->graph, op, NULL, in, n_in, 1));
    const char *fresh = kiln_graph_fresh_name(p->graph, "row");
    KILN_TRY(fresh ? KILN_OK : KILN_E_MEMORY);
    (*out)->name = (*out)->out[0]->name = fresh;
    KILN_TRY(kiln_node_add_sources(p->graph, *out, from));
    KILN_PUSH(p->graph->arena, p->nodes, p->n, p->cap, *out);
    return KILN_OK;
}

/* Gather(table, i) as float(Gather(codes, i)) * Gather(scales, i): what is chosen becomes floats,
 * not the table. The last node takes the place of n. */
static kiln_status place_table(placer *p, kiln_node *n, kiln_arena *scratch) {
    const table *t;
    kiln_value *one;
    kiln_node *rows, *scales, *floats, *product;
    KILN_TRY(table_of(p, n->in[0], scratch, &t));
    KILN_TRY(kiln_graph_scalar(&one, p->graph, 1.0f));
    kiln_value *const code[] = {t->code, n->in[1]}, *const scale[] = {t->scale, n->in[1]};
    KILN_TRY(append(p, &kiln_op_gather, code, 2, n, &rows));
    KILN_TRY(append(p, &kiln_op_gather, scale, 2, n, &scales));
    rows->attrs = scales->attrs = n->attrs;
    kiln_value *const byte[] = {rows->out[0], one, t->zero};
    KILN_TRY(append(p, &kiln_op_dequantize_linear, byte, 3, n, &floats));
    kiln_value *const both[] = {floats->out[0], scales->out[0]};
    KILN_TRY(append(p, &kiln_op_mul, both, 2, n, &product));
    product->out[0] = n->out[0];
    product->name = n->name;
    return KILN_OK;
}

/* ---- Places ---- */

static kiln_status place_matrix(placer *p, kiln_node *n, kiln_arena *scratch) {
    const kiln_type *type = &n->in[1]->type;
    const kiln_weight_only *job = p->job;
    kiln_tensor w, code, scale;
    bool flip = n->op == &kiln_op_gemm && ((const kiln_gemm_attrs *)n->attrs)->transB != 0;
    matrix m = {.k = type->dims[flip], .n = type->dims[!flip], .trans_b = flip};
    m.step_k = flip ? 1 : m.n;
    m.step_n = flip ? m.k : 1;
    m.block = job->block > 0 ? job->block : m.k;
    m.blocks = (m.k + m.block - 1) / m.block;
    KILN_TRY(kiln_const_eval(n->in[1], &w, scratch, p->diag));
    KILN_TRY(check_finite(p, &w));
    m.w = w.data;
    KILN_TRY(make(&code, job->bits == 8 ? KILN_DTYPE_I8 : KILN_DTYPE_I4, 2, type->dims[0],
                  type->dims[1], p->graph->arena));
    if (job->block > 0) {
        KILN_TRY(make(&scale, KILN_DTYPE_F32, 2, flip ? m.n : m.blocks, flip ? m.blocks : m.n,
                      p->graph->arena));
    } else {
        KILN_TRY(make(&scale, KILN_DTYPE_F32, 1, m.n, 0, p->graph->arena));
    }
    quantize(&m, job->bits, &code, &scale);
    p->job->n_matrices++;
    p->job->weights += m.k * m.n;
    return dequantize(p, n, &m, &code, &scale);
}

static kiln_status place_node(placer *p, kiln_node *n) {
    kiln_arena scratch;
    bool chosen = is_table(p, n);
    kiln_status status = KILN_OK;
    kiln_arena_init(&scratch, p->graph->env);
    if (chosen) {
        status = place_table(p, n, &scratch);
    } else if (is_wanted(p, n)) {
        status = place_matrix(p, n, &scratch);
    }
    kiln_arena_free(&scratch);
    KILN_TRY(status);
    if (!chosen) {
        KILN_PUSH(p->graph->arena, p->nodes, p->n, p->cap, n);
    }
    return KILN_OK;
}

/* The nodes of p's graph, then those of its bodies. */
static kiln_status place_graph(placer *p) {
    kiln_graph *g = p->graph;
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        kiln_diag_at_node(p->diag, n->name, n->op->name);
        if (n->op == &kiln_op_dequantize_linear || n->op == &kiln_op_quantize_linear) {
            return kiln_fail(p->diag, KILN_F_PRECISION, "the graph is quantized already");
        }
        KILN_TRY(place_node(p, n));
    }
    kiln_diag_at_node(p->diag, NULL, NULL);
    g->nodes = p->nodes;
    g->n_nodes = p->n;
    g->cap_nodes = p->cap;
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int32_t b = 0; b < g->nodes[i]->n_bodies; b++) {
            placer inside = {.job = p->job, .graph = g->nodes[i]->bodies[b], .diag = p->diag};
            KILN_TRY(place_graph(&inside));
        }
    }
    return KILN_OK;
}

static kiln_status place_all(placer *p) {
    KILN_TRY(place_graph(p));
    KILN_TRY(kiln_graph_sort(p->graph, p->diag));
    KILN_TRY(kiln_graph_verify(p->graph, p->diag));
    return kiln_infer_graph(p->graph, p->diag);
}

kiln_status kiln_weight_only_place(kiln_weight_only *job, kiln_graph *graph, kiln_diag *diag) {
    placer p = {.job = job, .graph = graph, .diag = diag};
    job->n_matrices = job->n_tables = 0;
    job->weights = 0;
    kiln_status status = place_all(&p);
    kiln_diag_at_node(diag, NULL, NULL);
    return status;
}
