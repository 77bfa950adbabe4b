#include "quant/seams.h"

#include <math.h>

#include "ops/attrs.h"
#include "ops/lanes.h"
#include "ops/ops.h"
#include "ops/util.h"
#include "quant/op_rules.h"

/* Where the channels of a value lie. */
typedef struct place {
    const kiln_value *v; /* NULL: not looked at yet */
    int32_t axis;
    int32_t seam;   /* number of the exploration that came here */
    int64_t repeat; /* elements along the axis for each channel */
} place;

typedef struct finder {
    const kiln_graph *graph;
    kiln_arena *arena;
    place *places; /* per value id */
    place *queue;  /* of the seam being explored */
    size_t n_queue, cap_queue;
    kiln_seam seam;
    int32_t number; /* of the exploration */
    bool good;
} finder;

static const int64_t ANY_SPAN = INT64_MAX;

/* ---- Values ---- */

static int64_t size_at(const kiln_value *v, int32_t axis) {
    bool known = v && v->type.kind == KILN_KIND_TENSOR && axis >= 0 && axis < v->type.rank;
    return known && kiln_dim_known(v->type.dims[axis]) ? v->type.dims[axis] : -1;
}

static bool is_f32(const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR && v->type.dtype == KILN_DTYPE_F32 &&
           v->type.rank > 0;
}

/* The value's channels are to lie along this axis; it joins the seam. */
static kiln_status join(finder *f, const kiln_value *v, int32_t axis, int64_t repeat) {
    bool fits = is_f32(v) && !v->constant && v->n_outputs == 0 && v->producer &&
                v->home == f->graph && size_at(v, axis) == f->seam.channels * repeat;
    if (!fits || !f->good) {
        f->good = false;
        return KILN_OK;
    }
    place *p = &f->places[v->id];
    if (p->v) {
        f->good = p->seam == f->number && p->axis == axis && p->repeat == repeat;
        return KILN_OK;
    }
    *p = (place){v, axis, f->number, repeat};
    KILN_PUSH(f->arena, f->queue, f->n_queue, f->cap_queue, *p);
    return KILN_OK;
}

/* ---- Constants on both sides ---- */

static bool is_constant(const kiln_value *v, int32_t rank) {
    return is_f32(v) && v->constant && (rank < 0 || v->type.rank == rank) &&
           kiln_type_is_static(&v->type);
}

static kiln_status divide(finder *f, kiln_node *n, int32_t in, int32_t axis, int64_t span,
                          bool weight) {
    kiln_seam_part part = {
        .node = n, .in = in, .axis = axis, .span = span, .repeat = 1, .weight = weight};
    KILN_PUSH(f->arena, f->seam.divide, f->seam.n_divide, f->seam.cap_divide, part);
    return KILN_OK;
}

static kiln_status multiply(finder *f, kiln_node *n, const place *x, int32_t axis, int64_t span,
                            int32_t out_axis) {
    kiln_seam_part part = {.node = n,
                           .in = 1,
                           .axis = axis,
                           .span = span,
                           .out_axis = out_axis,
                           .repeat = x->repeat,
                           .weight = true,
                           .x = x->v,
                           .x_axis = x->axis};
    KILN_PUSH(f->arena, f->seam.multiply, f->seam.n_multiply, f->seam.cap_multiply, part);
    return KILN_OK;
}

/* Bias `in`, left out or [channels]. */
static kiln_status divide_bias(finder *f, kiln_node *n, int32_t in) {
    const kiln_value *b = kiln_node_in(n, in);
    f->good = f->good && (!b || (is_constant(b, 1) && b->type.dims[0] == f->seam.channels));
    return b && f->good ? divide(f, n, in, 0, ANY_SPAN, false) : KILN_OK;
}

/* ---- Who makes a value ---- */

static bool is_conv(const kiln_node *n) {
    return n->op == &kiln_op_conv || n->op == &kiln_op_conv_transpose;
}

static int64_t groups_of(const kiln_node *n) {
    int64_t g = n->op == &kiln_op_conv ? ((const kiln_conv_attrs *)n->attrs)->group
                                       : ((const kiln_conv_transpose_attrs *)n->attrs)->group;
    return g > 0 ? g : 1;
}

/* Outer indices of a kernel [outer, per group, ...] that share a group. */
static int64_t span_of(const kiln_node *n) {
    int64_t span = n->in[1]->type.dims[0] / groups_of(n);
    return span > 0 ? span : 1;
}

static bool is_norm(const kiln_node *n) {
    return n->op == &kiln_op_layer_normalization || n->op == &kiln_op_rms_normalization;
}

/* The channels of a layer's result: their number and axis, or -1 for nodes that make none. */
static int64_t made_channels(const kiln_node *n, int32_t *axis) {
    const kiln_value *y = n->n_out > 0 ? n->out[0] : NULL, *w = kiln_node_in(n, 1);
    if (!is_f32(y) || !is_constant(w, -1)) {
        return -1;
    }
    *axis = y->type.rank - 1;
    if (is_conv(n)) {
        *axis = 1;
        return w->type.rank < 3         ? -1
               : n->op == &kiln_op_conv ? w->type.dims[0]
                                        : w->type.dims[1] * groups_of(n);
    }
    if (n->op == &kiln_op_gemm && w->type.rank == 2) {
        return w->type.dims[((const kiln_gemm_attrs *)n->attrs)->transB ? 0 : 1];
    }
    if (n->op == &kiln_op_matmul && w->type.rank >= 2) {
        return w->type.dims[w->type.rank - 1];
    }
    if (is_norm(n) && w->type.rank == 1 && n->n_out == 1) {
        int64_t at = ((const kiln_norm_attrs *)n->attrs)->axis;
        return at == -1 || at == *axis ? w->type.dims[0] : -1;
    }
    return -1;
}

/* Divides what a layer or normalization gives. */
static kiln_status divide_layer(finder *f, kiln_node *n) {
    int32_t rank = n->in[1]->type.rank;
    if (n->op == &kiln_op_conv) {
        KILN_TRY(divide(f, n, 1, 0, ANY_SPAN, true));
    } else if (n->op == &kiln_op_conv_transpose) {
        KILN_TRY(divide(f, n, 1, 1, span_of(n), true));
    } else if (n->op == &kiln_op_gemm) {
        bool flip = ((const kiln_gemm_attrs *)n->attrs)->transB != 0;
        KILN_TRY(divide(f, n, 1, flip ? 0 : 1, ANY_SPAN, true));
    } else {
        KILN_TRY(divide(f, n, 1, rank - 1, ANY_SPAN, !is_norm(n)));
    }
    return n->op == &kiln_op_matmul ? KILN_OK : divide_bias(f, n, 2);
}

/* ---- What stands between ---- */

/* f(s x) = s f(x) for each element or, along all axes but that of the channels, for a window of
 * them; the axis stays what it is. */
static bool is_homogeneous(const kiln_node *n, int32_t axis) {
    const kiln_op *pools[] = {&kiln_op_max_pool, &kiln_op_average_pool,
                              &kiln_op_global_average_pool, &kiln_op_global_max_pool};
    if (n->op == &kiln_op_relu || n->op == &kiln_op_leaky_relu || n->op == &kiln_op_identity) {
        return true;
    }
    for (size_t i = 0; i < KILN_COUNT_OF(pools); i++) {
        if (n->op == pools[i]) {
            return axis == 1 && n->n_out == 1;
        }
    }
    if (n->op == &kiln_op_resize) {
        const kiln_resize_attrs *a = n->attrs;
        return a->coordinate_transformation_mode != KILN_RESIZE_TF_CROP &&
               size_at(n->in[0], axis) == size_at(n->out[0], axis);
    }
    return n->op == &kiln_op_prelu && is_constant(kiln_node_in(n, 1), -1);
}

/* [N, C, ...] to [N, C * ...]: *repeat elements for each channel. */
static bool is_flatten(const kiln_node *n, int64_t *repeat) {
    const kiln_value *x = n->in[0], *y = n->out[0];
    bool op = n->op == &kiln_op_flatten || n->op == &kiln_op_reshape;
    *repeat = 1;
    if (!op || !is_f32(x) || !is_f32(y) || y->type.rank != 2 || x->type.rank < 2) {
        return false;
    }
    for (int32_t d = 2; d < x->type.rank; d++) {
        int64_t size = size_at(x, d);
        if (size < 1 || *repeat > INT32_MAX / size) {
            return false;
        }
        *repeat *= size;
    }
    int64_t c = size_at(x, 1);
    return c > 0 && c <= INT32_MAX && size_at(y, 1) == c * *repeat;
}

/* Transpose: where axis `from` of its input comes to lie; -1 when not known. */
static int32_t moved_axis(const kiln_node *n, int32_t from) {
    const kiln_ints *perm = &((const kiln_perm_attrs *)n->attrs)->perm;
    int32_t rank = n->in[0]->type.rank;
    for (int32_t d = 0; d < rank; d++) {
        int64_t src = !perm->v ? rank - 1 - d : d < perm->n ? perm->v[d] : -1;
        if (src == from) {
            return d;
        }
    }
    return -1;
}

/* The constant operand of a sum that has one number for each channel of the other. */
static bool adds_channels(const finder *f, const kiln_node *n, int32_t in, const place *x) {
    const kiln_value *c = n->in[in];
    if (!is_constant(c, -1) || x->repeat != 1 || c->type.rank > x->v->type.rank) {
        return false;
    }
    int32_t axis = x->axis - (x->v->type.rank - c->type.rank);
    return axis >= 0 && c->type.dims[axis] == f->seam.channels;
}

/* The operand that is made first; once, when the result is looked at. */
static kiln_status note_added(finder *f, kiln_node *n, const place *x) {
    if (x->v != n->out[0] || !n->in[0]->producer || !n->in[1]->producer) {
        return KILN_OK;
    }
    const int32_t first = n->in[0]->producer->id < n->in[1]->producer->id ? 0 : 1;
    kiln_seam_part part = {
        .node = n, .in = first, .x = n->in[first], .x_axis = x->axis, .repeat = x->repeat};
    KILN_PUSH(f->arena, f->seam.added, f->seam.n_added, f->seam.cap_added, part);
    return KILN_OK;
}

/* An addition that x is an operand or the result of. */
static kiln_status through_add(finder *f, kiln_node *n, const place *x) {
    const bool sum = !n->in[0]->constant && !n->in[1]->constant;
    f->seam.sums = f->seam.sums || sum;
    KILN_TRY(sum ? note_added(f, n, x) : KILN_OK);
    for (int32_t i = 0; i < 2; i++) {
        if (n->in[i]->constant) {
            const kiln_value *c = n->in[i];
            f->good = f->good && adds_channels(f, n, i, x);
            /* Once: when its result is looked at. */
            if (f->good && x->v == n->out[0]) {
                int32_t axis = x->axis - (x->v->type.rank - c->type.rank);
                KILN_TRY(divide(f, n, i, axis, ANY_SPAN, false));
            }
            continue;
        }
        bool same = n->in[i]->type.rank == n->out[0]->type.rank;
        f->good = f->good && same;
        KILN_TRY(join(f, n->in[i], x->axis, x->repeat));
    }
    return join(f, n->out[0], x->axis, x->repeat);
}

/* ---- Both ways from a value ---- */

static kiln_status look_up(finder *f, const place *x) {
    kiln_node *n = x->v->producer;
    int32_t axis = -1;
    int64_t repeat;
    if (x->v->producer_out != 0 || !kiln_node_in(n, 0)) {
        f->good = false;
    } else if (n->op == &kiln_op_add) {
        return through_add(f, n, x);
    } else if (made_channels(n, &axis) == f->seam.channels && x->axis == axis && x->repeat == 1) {
        return divide_layer(f, n);
    } else if (is_homogeneous(n, x->axis)) {
        return join(f, n->in[0], x->axis, x->repeat);
    } else if (n->op == &kiln_op_transpose && f->places[n->in[0]->id].v) {
        f->good = f->good && moved_axis(n, f->places[n->in[0]->id].axis) == x->axis;
    } else {
        f->good = f->good && is_flatten(n, &repeat) && f->places[n->in[0]->id].v;
    }
    return KILN_OK;
}

static kiln_status read_by_matrix(finder *f, kiln_node *n, const place *x) {
    const kiln_type *w = &n->in[1]->type;
    if (n->op == &kiln_op_gemm && w->rank == 2 && x->axis == 1) {
        const kiln_gemm_attrs *a = n->attrs;
        f->good = f->good && !a->transA;
        return multiply(f, n, x, a->transB ? 1 : 0, ANY_SPAN, a->transB ? 0 : 1);
    }
    if (n->op == &kiln_op_matmul && w->rank >= 2 && x->axis == x->v->type.rank - 1) {
        return multiply(f, n, x, w->rank - 2, ANY_SPAN, w->rank - 1);
    }
    f->good = false;
    return KILN_OK;
}

/* A layer whose input channels these are. */
static kiln_status read_by_layer(finder *f, kiln_node *n, const place *x) {
    if (n->in[0] != x->v || !is_constant(kiln_node_in(n, 1), -1) || kiln_node_in(n, 2) == x->v) {
        f->good = false;
        return KILN_OK;
    }
    if (!is_conv(n)) {
        return read_by_matrix(f, n, x);
    }
    bool plain = n->op == &kiln_op_conv;
    f->good = f->good && n->in[1]->type.rank >= 3 && x->axis == 1 && x->repeat == 1;
    return multiply(f, n, x, plain ? 1 : 0, plain ? span_of(n) : ANY_SPAN, plain ? 0 : 1);
}

static kiln_status look_down(finder *f, const place *x, kiln_node *n) {
    int64_t repeat;
    if (n->n_bodies > 0) {
        f->good = false;
        return KILN_OK;
    }
    if (n->op == &kiln_op_add) {
        return through_add(f, n, x);
    }
    if (n->in[0] == x->v && is_homogeneous(n, x->axis)) {
        return join(f, n->out[0], x->axis, x->repeat);
    }
    if (n->op == &kiln_op_transpose) {
        return join(f, n->out[0], moved_axis(n, x->axis), x->repeat);
    }
    if (n->in[0] == x->v && x->axis == 1 && x->repeat == 1 && is_flatten(n, &repeat)) {
        return join(f, n->out[0], 1, repeat);
    }
    return read_by_layer(f, n, x);
}

static kiln_status explore(finder *f, const kiln_value *from, int64_t channels, int32_t axis) {
    f->seam = (kiln_seam){.channels = channels};
    f->n_queue = 0;
    f->number++;
    f->good = true;
    KILN_TRY(join(f, from, axis, 1));
    for (size_t i = 0; i < f->n_queue && f->good; i++) {
        place x = f->queue[i];
        KILN_TRY(look_up(f, &x));
        for (int32_t k = 0; k < x.v->n_users && f->good; k++) {
            KILN_TRY(look_down(f, &x, x.v->users[k]));
        }
    }
    return KILN_OK;
}

/* ---- Inlets ---- */

/* The value is computed here: bytes of what is only moved are moved rather than floats. */
static bool is_computed(const kiln_value *v) {
    const kiln_node *n = v->producer;
    kiln_quant_kind kind = n ? kiln_op_rule_of(n->op)->kind : KILN_QUANT_NONE;
    return n && v->producer_out == 0 &&
           (is_norm(n) || kind == KILN_QUANT_SUM || kind == KILN_QUANT_CLAMP ||
            kind == KILN_QUANT_UNARY);
}

static bool reads_as_product(const kiln_node *n, const kiln_value *v) {
    int32_t uses = 0;
    for (int32_t i = 0; i < n->n_in; i++) {
        uses += n->in[i] == v ? 1 : 0;
    }
    return (n->op == &kiln_op_matmul || n->op == &kiln_op_gemm) && n->in[0] == v && uses == 1 &&
           is_constant(kiln_node_in(n, 1), -1);
}

/* The products among its readers. */
static kiln_status explore_inlet(finder *f, kiln_value *v) {
    const place x = {.v = v, .axis = v->type.rank - 1, .repeat = 1};
    f->seam = (kiln_seam){.channels = size_at(v, x.axis), .inlet = v};
    for (int32_t i = 0; i < v->n_users && f->seam.channels > 0; i++) {
        f->good = true;
        if (reads_as_product(v->users[i], v)) {
            KILN_TRY(read_by_matrix(f, v->users[i], &x));
        }
        if (!f->good) {
            f->seam.n_multiply = 0;
            return KILN_OK;
        }
    }
    return KILN_OK;
}

static kiln_status find_inlets(finder *f, const bool *in_seam, kiln_seams *out) {
    for (size_t i = 0; i < f->graph->n_nodes; i++) {
        kiln_value *v = f->graph->nodes[i]->n_out > 0 ? f->graph->nodes[i]->out[0] : NULL;
        if (!is_f32(v) || in_seam[v->id] || !is_computed(v)) {
            continue;
        }
        KILN_TRY(explore_inlet(f, v));
        if (f->seam.n_multiply > 0) {
            KILN_PUSH(f->arena, out->items, out->count, out->cap, f->seam);
        }
    }
    return KILN_OK;
}

kiln_status kiln_seams_find(kiln_seams *out, const kiln_graph *graph, kiln_arena *arena) {
    finder f = {.graph = graph, .arena = arena};
    bool *in_seam;
    *out = (kiln_seams){0};
    KILN_ALLOC(f.places, arena, graph->n_values);
    KILN_ALLOC(in_seam, arena, graph->n_values);
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const kiln_node *n = graph->nodes[i];
        int32_t axis = -1;
        int64_t channels = made_channels(n, &axis);
        if (channels < 1 || f.places[n->out[0]->id].v) {
            continue;
        }
        KILN_TRY(explore(&f, n->out[0], channels, axis));
        if (f.good && f.seam.n_multiply > 0) {
            KILN_PUSH(arena, out->items, out->count, out->cap, f.seam);
            for (size_t k = 0; k < f.n_queue; k++) {
                in_seam[f.queue[k].v->id] = true;
            }
        }
    }
    return find_inlets(&f, in_seam, out);
}

/* ---- Constants ---- */

kiln_status kiln_seam_magnitude(const kiln_seam_part *part, double *most, const kiln_env *env,
                                kiln_diag *diag) {
    kiln_arena scratch;
    kiln_tensor t;
    kiln_arena_init(&scratch, env);
    kiln_status status = kiln_const_eval(part->node->in[part->in], &t, &scratch, diag);
    if (status == KILN_OK) {
        kiln_lanes l = kiln_lanes_of(&t, part->axis);
        int64_t count = kiln_tensor_count(&t);
        for (int64_t i = 0; i < count; i++) {
            double *m = &most[kiln_seam_channel(part, l.n, l.inner, i)];
            *m = fmax(*m, fabs((double)((const float *)t.data)[i]));
        }
    }
    kiln_arena_free(&scratch);
    return status;
}

static kiln_status scale_part(kiln_seam_part *part, const double *s, bool divides, kiln_graph *g,
                              kiln_diag *diag) {
    kiln_value *old = part->node->in[part->in], *made;
    kiln_tensor t;
    KILN_TRY(kiln_const_eval(old, &t, g->arena, diag));
    kiln_lanes l = kiln_lanes_of(&t, part->axis);
    int64_t count = kiln_tensor_count(&t);
    const float *from = t.data;
    float *to = part->own ? t.data : kiln_arena_raw(g->arena, kiln_tensor_bytes(&t));
    if (!to) {
        return KILN_E_MEMORY;
    }
    for (int64_t i = 0; i < count; i++) {
        double c = s[kiln_seam_channel(part, l.n, l.inner, i)];
        to[i] = (float)(divides ? (double)from[i] / c : (double)from[i] * c);
    }
    if (part->own) {
        return KILN_OK;
    }
    const char *name = kiln_graph_fresh_name(g, old->name);
    t.data = to;
    KILN_TRY(name ? kiln_graph_constant(&made, g, name, &t) : KILN_E_MEMORY);
    part->node->in[part->in] = made;
    part->own = true;
    return KILN_OK;
}

/* A Mul by ones between the value and the products: what is divided then. */
static kiln_status open_inlet(kiln_seam *seam, kiln_graph *g) {
    kiln_value *v = seam->inlet;
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 1, .dims = {seam->channels}};
    kiln_node *n;
    float *ones;
    KILN_ALLOC(ones, g->arena, seam->channels);
    for (int64_t i = 0; i < seam->channels; i++) {
        ones[i] = 1;
    }
    t.data = ones;
    t.cap_bytes = (size_t)seam->channels * sizeof *ones;
    const char *name = kiln_arena_printf(g->arena, "%s_even", v->name);
    name = name ? kiln_graph_fresh_name(g, name) : NULL;
    kiln_value *in[2] = {v, NULL};
    KILN_TRY(name ? kiln_graph_constant(&in[1], g, NULL, &t) : KILN_E_MEMORY);
    KILN_TRY(kiln_graph_node(&n, g, &kiln_op_mul, name, in, 2, 1));
    KILN_TRY(kiln_node_add_sources(g, n, v->producer));
    n->stays = true;
    n->out[0]->name = name;
    n->out[0]->type = v->type;
    for (size_t i = 0; i < seam->n_multiply; i++) {
        seam->multiply[i].node->in[0] = n->out[0];
    }
    KILN_ALLOC(seam->divide, g->arena, 1);
    seam->divide[0] =
        (kiln_seam_part){.node = n, .in = 1, .span = ANY_SPAN, .repeat = 1, .own = true};
    seam->n_divide = seam->cap_divide = 1;
    return KILN_OK;
}

kiln_status kiln_seam_apply(kiln_seam *seam, const double *s, kiln_graph *graph, kiln_diag *diag) {
    if (seam->inlet && seam->n_divide == 0) {
        KILN_TRY(open_inlet(seam, graph));
    }
    for (size_t i = 0; i < seam->n_divide; i++) {
        KILN_TRY(scale_part(&seam->divide[i], s, true, graph, diag));
    }
    for (size_t i = 0; i < seam->n_multiply; i++) {
        KILN_TRY(scale_part(&seam->multiply[i], s, false, graph, diag));
    }
    return KILN_OK;
}
