/* sign.c - int8 as uint8 and back: see quantized.h.
 *
 * Values that movers connect change together or not at all: they are joined into sets (union-find
 * over value ids), a set is spoiled by any member that something else makes or reads, and what is
 * left is rewritten. Linear in the size of the graph. */
#include "build/quantized.h"

#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

/* Constants up to this size are converted. */
enum { MAX_CONSTANT_BYTES = 64 * 1024 };

/* Adding or taking away 128 flips the sign bit. */
enum { FLIP = 0x80 };

typedef struct shifter {
    kiln_dtype from, to; /* I8 and U8 in some order */
    bool centred;        /* only where all zero points become 0 */
    int32_t *up;         /* per value id: towards the representative of its set */
    uint8_t *spoiled;    /* per representative */
    size_t n_values;
} shifter;

static bool is_from(const shifter *s, const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR && v->type.dtype == s->from;
}

static int32_t find(shifter *s, int32_t id) {
    while (s->up[id] != id) {
        s->up[id] = s->up[s->up[id]];
        id = s->up[id];
    }
    return id;
}

static void spoil(shifter *s, const kiln_value *v) {
    s->spoiled[find(s, v->id)] = 1;
}

static void join(shifter *s, const kiln_value *a, const kiln_value *b) {
    int32_t ra = find(s, a->id), rb = find(s, b->id);
    s->up[rb] = ra;
    s->spoiled[ra] |= s->spoiled[rb];
}

/* ---- Nodes that commute with adding a constant to all elements ---- */

/* Which inputs are data: the first, all from `first` on. */
typedef struct mover {
    const kiln_op *op;
    int32_t first, count; /* count 0: all */
} mover;

static const mover movers[] = {
    {&kiln_op_concat, 0, 0},    {&kiln_op_depth_to_space, 0, 1}, {&kiln_op_expand, 0, 1},
    {&kiln_op_flatten, 0, 1},   {&kiln_op_gather, 0, 1},         {&kiln_op_identity, 0, 1},
    {&kiln_op_max, 0, 0},       {&kiln_op_max_pool, 0, 1},       {&kiln_op_min, 0, 0},
    {&kiln_op_pad, 0, 1},       {&kiln_op_reshape, 0, 1},        {&kiln_op_resize, 0, 1},
    {&kiln_op_slice, 0, 1},     {&kiln_op_space_to_depth, 0, 1}, {&kiln_op_split, 0, 1},
    {&kiln_op_squeeze, 0, 1},   {&kiln_op_tile, 0, 1},           {&kiln_op_transpose, 0, 1},
    {&kiln_op_unsqueeze, 0, 1}, {&kiln_op_where, 1, 2},
};

static const mover *find_mover(const kiln_node *n) {
    for (size_t i = 0; i < KILN_COUNT_OF(movers); i++) {
        if (movers[i].op == n->op) {
            return &movers[i];
        }
    }
    return NULL;
}

/* Resize copies elements, and makes none up. */
static bool only_moves(const kiln_node *n) {
    const kiln_resize_attrs *a = n->attrs;
    return n->op != &kiln_op_resize ||
           (a->mode == 0 && a->coordinate_transformation_mode != KILN_RESIZE_TF_CROP);
}

static bool is_data(const mover *m, int32_t k) {
    return k >= m->first && (m->count == 0 || k < m->first + m->count);
}

/* ---- Constants ---- */

static const kiln_tensor *convertible(const shifter *s, const kiln_value *v) {
    const kiln_tensor *t = kiln_value_data(v);
    return t && t->dtype == s->from && kiln_tensor_bytes(t) <= MAX_CONSTANT_BYTES ? t : NULL;
}

/* `from` NULL: zeros. */
static kiln_status make_constant(const shifter *s, kiln_graph *g, const kiln_tensor *shape,
                                 const uint8_t *from, kiln_value **out) {
    kiln_tensor t = *shape;
    int64_t n = kiln_tensor_count(shape);
    uint8_t *data;
    const char *name = kiln_graph_fresh_name(g, *out ? (*out)->name : "zero");
    KILN_TRY(name ? KILN_OK : KILN_E_MEMORY);
    KILN_ALLOC(data, g->arena, n);
    for (int64_t i = 0; i < n; i++) {
        data[i] = (from ? from[i] : 0) ^ FLIP;
    }
    t.dtype = s->to;
    t.cap_bytes = (size_t)n;
    t.data = data;
    return kiln_graph_constant(out, g, name, &t);
}

static kiln_status convert(const shifter *s, kiln_graph *g, kiln_value **v) {
    const kiln_tensor *t = kiln_value_data(*v);
    return make_constant(s, g, t, t->data, v);
}

/* ---- Which values may change ---- */

static bool is_centred(const kiln_tensor *zero) {
    int64_t n = zero ? kiln_tensor_count(zero) : 0;
    for (int64_t i = 0; i < n; i++) {
        if (((const uint8_t *)zero->data)[i] != FLIP) {
            return false;
        }
    }
    return n > 0;
}

/* The zero point can be read, or stands for as many zeros as there are scales; and may change. */
static bool has_known_zero(const shifter *s, const kiln_node *n) {
    const kiln_value *zero = kiln_node_in(n, 2);
    const kiln_tensor *t = convertible(s, zero);
    kiln_tensor scales = {.rank = 0};
    if (s->centred) {
        return is_centred(t);
    }
    return zero ? t != NULL : kiln_type_to_tensor(&n->in[1]->type, &scales);
}

/* A constant behind a DequantizeLinear that may change: only towards a zero point of 0. */
static bool is_centred_constant(const shifter *s, const kiln_node *n) {
    return s->centred && n->op == &kiln_op_dequantize_linear && is_from(s, n->in[0]) &&
           kiln_value_data(n->in[0]) && has_known_zero(s, n);
}

/* Values of other graphs are spoiled: their own graph cannot see what is done here. */
static void join_mover(shifter *s, const kiln_graph *g, const kiln_node *n, const mover *m) {
    const kiln_value *first = NULL;
    bool spoils = !only_moves(n) || (n->op == &kiln_op_max_pool && n->n_out > 1);
    for (int32_t k = 0; k < n->n_in + n->n_out; k++) {
        const kiln_value *v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (!is_from(s, v) || (k < n->n_in && !is_data(m, k))) {
            continue;
        }
        if (v->constant) {
            spoils = spoils || !convertible(s, v);
            continue;
        }
        spoils = spoils || v->home != g;
        if (first) {
            join(s, first, v);
        }
        first = v;
    }
    if (n->op == &kiln_op_pad && ((const kiln_pad_attrs *)n->attrs)->mode == 0 &&
        kiln_node_in(n, 2) && !convertible(s, n->in[2])) {
        spoils = true;
    }
    if (first && spoils) {
        spoil(s, first);
    }
}

/* What neither moves nor quantizes spoils what it reads and makes. */
static void spoil_all(shifter *s, const kiln_node *n) {
    for (int32_t k = 0; k < n->n_in + n->n_out; k++) {
        const kiln_value *v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (is_from(s, v) && !v->constant) {
            spoil(s, v);
        }
    }
}

static void survey(shifter *s, const kiln_graph *g) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        spoil(s, g->inputs[i]);
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        if (!g->outputs[i]->constant) {
            spoil(s, g->outputs[i]);
        }
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        const mover *m = find_mover(n);
        bool quantizes = n->op == &kiln_op_quantize_linear,
             dequantizes = n->op == &kiln_op_dequantize_linear;
        if (m) {
            join_mover(s, g, n, m);
        } else if ((!quantizes && !dequantizes) || !has_known_zero(s, n) ||
                   (dequantizes && n->in[0]->home != g)) {
            spoil_all(s, n);
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            survey(s, n->bodies[b]);
        }
    }
}

/* ---- Changing them ---- */

static bool changes(shifter *s, const kiln_value *v) {
    return is_from(s, v) && !v->constant && !s->spoiled[find(s, v->id)];
}

static kiln_status shift_zero(const shifter *s, kiln_graph *g, kiln_node *n) {
    kiln_tensor scales = {.rank = 0};
    if (kiln_node_in(n, 2)) {
        return convert(s, g, &n->in[2]);
    }
    kiln_value **in;
    KILN_ALLOC(in, g->arena, 3);
    in[0] = n->in[0];
    in[1] = n->in[1];
    kiln_type_to_tensor(&n->in[1]->type, &scales);
    KILN_TRY(make_constant(s, g, &scales, NULL, &in[2]));
    n->in = in;
    n->n_in = 3;
    return KILN_OK;
}

static kiln_status shift_fill(const shifter *s, kiln_graph *g, kiln_node *n) {
    const kiln_tensor scalar = {.rank = 0};
    if (((const kiln_pad_attrs *)n->attrs)->mode != 0) {
        return KILN_OK;
    }
    if (kiln_node_in(n, 2)) {
        return convert(s, g, &n->in[2]);
    }
    kiln_value **in;
    KILN_ALLOC(in, g->arena, 4);
    for (int32_t k = 0; k < n->n_in; k++) {
        in[k] = n->in[k];
    }
    KILN_TRY(make_constant(s, g, &scalar, NULL, &in[2]));
    n->in = in;
    n->n_in = n->n_in < 3 ? 3 : n->n_in;
    return KILN_OK;
}

static kiln_status shift_mover(shifter *s, kiln_graph *g, kiln_node *n, const mover *m) {
    bool any = false;
    for (int32_t k = 0; k < n->n_out; k++) {
        any = any || changes(s, n->out[k]);
    }
    for (int32_t k = 0; k < n->n_in && any; k++) {
        if (is_data(m, k) && is_from(s, n->in[k]) && n->in[k]->constant) {
            KILN_TRY(convert(s, g, &n->in[k]));
        }
    }
    return any && n->op == &kiln_op_pad ? shift_fill(s, g, n) : KILN_OK;
}

static kiln_status shift_graph(shifter *s, kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        const mover *m = find_mover(n);
        if (m) {
            KILN_TRY(shift_mover(s, g, n, m));
        } else if (n->op == &kiln_op_quantize_linear && changes(s, n->out[0])) {
            ((kiln_quant_attrs *)n->attrs)->output_dtype = 0;
            KILN_TRY(shift_zero(s, g, n));
        } else if (n->op == &kiln_op_dequantize_linear && changes(s, n->in[0])) {
            KILN_TRY(shift_zero(s, g, n));
        } else if (is_centred_constant(s, n)) {
            KILN_TRY(shift_zero(s, g, n));
            KILN_TRY(convert(s, g, &n->in[0]));
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(shift_graph(s, n->bodies[b]));
        }
    }
    return KILN_OK;
}

static void count(shifter *s, const kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->n_out; k++) {
            s->n_values += changes(s, n->out[k]);
        }
        s->n_values += is_centred_constant(s, n);
        for (int32_t b = 0; b < n->n_bodies; b++) {
            count(s, n->bodies[b]);
        }
    }
}

static kiln_status shift(shifter *s, kiln_graph *graph, size_t *n_values, kiln_diag *diag) {
    KILN_ALLOC(s->up, graph->arena, graph->n_values);
    KILN_ALLOC(s->spoiled, graph->arena, graph->n_values);
    for (int32_t i = 0; i < graph->n_values; i++) {
        s->up[i] = i;
    }
    survey(s, graph);
    count(s, graph);
    *n_values = s->n_values;
    if (s->n_values == 0) {
        return KILN_OK;
    }
    KILN_TRY(shift_graph(s, graph));
    KILN_TRY(kiln_graph_index(graph));
    return kiln_infer_graph(graph, diag);
}

kiln_status kiln_make_unsigned(kiln_graph *graph, size_t *n_values, kiln_diag *diag) {
    shifter s = {.from = KILN_DTYPE_I8, .to = KILN_DTYPE_U8};
    return shift(&s, graph, n_values, diag);
}

kiln_status kiln_make_signed(kiln_graph *graph, size_t *n_values, kiln_diag *diag) {
    shifter s = {.from = KILN_DTYPE_U8, .to = KILN_DTYPE_I8, .centred = true};
    return shift(&s, graph, n_values, diag);
}

bool kiln_is_quantized(const kiln_graph *graph) {
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const kiln_node *n = graph->nodes[i];
        if (n->op == &kiln_op_quantize_linear || n->op == &kiln_op_dequantize_linear) {
            return true;
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            if (kiln_is_quantized(n->bodies[b])) {
                return true;
            }
        }
    }
    return false;
}
