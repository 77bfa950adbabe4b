/* scales.c - a number per channel, multiplied or added next to a layer with constant weights,
 * moves into its weights and bias.
 *
 * After the layer, for output channel m:   c[m] * (W x + b)[m] = ((c[m] W[m]) x + c[m] b[m])
 *                                          (W x + b)[m] + c[m] = (W x + (b[m] + c[m]))
 * Before it, for input channel k:          W (c x) = (W[.,k] c[k]) x     (padding is zero: c * 0 =
 * 0)
 *
 * Factors that are to stay where they are (node->stays) do.
 *
 * Weights become expression constants (the recipe stays visible), biases are computed at once.
 */
#include <math.h>

#include "pass/fold.h"

typedef struct layer {
    const kiln_node *node;
    kiln_value *x, *weight, *bias; /* bias may be NULL */
    int32_t out_axis, in_axis;     /* of the weight; -1: a channel is spread over several */
    int32_t channel_axis;          /* of the layer's result, from its end: rank of it minus this */
    int64_t n_out, n_in;           /* channels */
    bool takes_bias;               /* has an input for it */
} layer;

/* ---- Layers ---- */

static bool read_conv(const kiln_node *n, layer *l) {
    bool transposed = kiln_is_op(n, "ConvTranspose");
    int64_t group = kiln_node_int(n, "group", 1);
    int64_t w0 = kiln_dim_at(l->weight, 0), w1 = kiln_dim_at(l->weight, 1);
    l->bias = kiln_node_in(n, 2);
    l->takes_bias = true;
    l->channel_axis = kiln_rank(l->weight) - 1;
    l->n_out = transposed ? w1 * group : w0;
    l->n_in = transposed ? w0 : w1 * group;
    l->out_axis = !transposed ? 0 : group == 1 ? 1 : w1 == 1 ? 0 : -1;
    l->in_axis = transposed ? 0 : group == 1 ? 1 : w1 == 1 && w0 == group ? 0 : -1;
    return true;
}

static bool read_gemm(const kiln_node *n, layer *l) {
    bool flip = kiln_node_int(n, "transB", 0) != 0;
    if (kiln_node_float(n, "alpha", 1) != 1.0f || kiln_node_float(n, "beta", 1) != 1.0f) {
        return false;
    }
    l->bias = kiln_node_in(n, 2);
    l->takes_bias = true;
    l->channel_axis = 1;
    l->out_axis = flip ? 0 : 1;
    l->in_axis = kiln_node_int(n, "transA", 0) ? -1 : flip ? 1 : 0;
    l->n_out = kiln_dim_at(l->weight, l->out_axis);
    l->n_in = kiln_dim_at(l->weight, flip ? 1 : 0);
    return true;
}

static bool read_matmul(layer *l) {
    if (kiln_rank(l->weight) != 2) {
        return false;
    }
    l->channel_axis = 1;
    l->out_axis = 1;
    l->in_axis = 0;
    l->n_out = kiln_dim_at(l->weight, 1);
    l->n_in = kiln_dim_at(l->weight, 0);
    return true;
}

static bool read_layer(const kiln_node *n, layer *l) {
    *l = (layer){.node = n};
    if (!n || n->n_in < 2 || n->n_out != 1 || !kiln_value_is_const(n->in[1]) ||
        !kiln_is_float(n->in[1]) || kiln_static_count(n->in[1]) < 1) {
        return false;
    }
    l->x = n->in[0];
    l->weight = n->in[1];
    bool ok = kiln_is_op(n, "Gemm")                                     ? read_gemm(n, l)
              : kiln_is_op(n, "MatMul")                                 ? read_matmul(l)
              : kiln_is_op(n, "Conv") || kiln_is_op(n, "ConvTranspose") ? read_conv(n, l)
                                                                        : false;
    bool plain_bias = !l->bias || (l->bias->constant && kiln_rank(l->bias) == 1 &&
                                   kiln_dim_at(l->bias, 0) == l->n_out);
    return ok && plain_bias;
}

/* ---- Channel constants ---- */

/* The n channel numbers of constant c, which is broadcast against a result of this rank whose
 * channels are `axis` from the end. NULL when c varies along another axis, or would widen the
 * result. */
static double *channel_numbers(kiln_patch *p, const kiln_value *c, const kiln_value *result,
                               int32_t axis, int64_t n) {
    int64_t count;
    int32_t rank = kiln_rank(c);
    if (!kiln_value_is_const(c) || !kiln_is_float(c) || rank < 0 || rank > kiln_rank(result) ||
        n < 1) {
        return NULL;
    }
    for (int32_t d = 1; d <= rank; d++) {
        kiln_dim size = kiln_dim_at(c, -d);
        if (size != 1 && !(d == axis && size == n)) {
            return NULL;
        }
    }
    double *e = kiln_fold_doubles(p, c, &count);
    if (!e || count == n) {
        return e;
    }
    double *wide = count == 1 ? kiln_patch_scratch(p, n, sizeof *wide) : NULL;
    for (int64_t i = 0; wide && i < n; i++) {
        wide[i] = e[0];
    }
    return wide;
}

static bool all_finite(const double *v, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(v[i])) {
            return false;
        }
    }
    return true;
}

/* weight * c along one of its axes. */
static kiln_value *scale_weight(kiln_patch *p, const layer *l, const double *c, int64_t n,
                                int32_t axis) {
    int64_t dims[KILN_MAX_RANK];
    kiln_tensor type = {.rank = 0};
    int32_t rank = kiln_rank(l->weight);
    for (int32_t d = 0; d < rank; d++) {
        dims[d] = d == axis ? n : 1;
    }
    kiln_value *in[] = {l->weight, kiln_fold_vector(p, l->weight->type.dtype, c, rank, dims)};
    if (!in[1] || !kiln_type_to_tensor(&l->weight->type, &type)) {
        return NULL;
    }
    return kiln_fold_make(p, "Mul", in, 2, &type);
}

static kiln_value *make_bias(kiln_patch *p, const layer *l, const double *scale,
                             const double *add) {
    int64_t count = 0;
    double *b = l->bias ? kiln_fold_doubles(p, l->bias, &count)
                        : kiln_patch_scratch(p, l->n_out, sizeof *b);
    for (int64_t i = 0; b && i < l->n_out; i++) {
        b[i] = b[i] * (scale ? scale[i] : 1.0) + (add ? add[i] : 0.0);
    }
    return b && all_finite(b, l->n_out)
               ? kiln_fold_vector(p, l->weight->type.dtype, b, 1, &l->n_out)
               : NULL;
}

/* The layer again with other weights; the result replaces that of `last`. */
static kiln_status rebuild(kiln_patch *p, const layer *l, kiln_value *x, kiln_value *weight,
                           kiln_value *bias, const kiln_node *last, const char *what) {
    kiln_value *in[] = {x, weight, bias};
    if (!weight) {
        kiln_patch_drop(p);
        return KILN_OK;
    }
    kiln_patch_touch(p, l->node);
    kiln_node *made = kiln_patch_like(p, l->node, in, bias ? 3 : 2, 1);
    kiln_patch_replace(p, last->out[0], made ? made->out[0] : NULL);
    return kiln_patch_commit(p, what);
}

/* ---- After the layer ---- */

/* n multiplies or adds a constant to *data. Differences and quotients count with sign and inverse.
 * */
static bool read_affine(kiln_patch *p, const kiln_node *n, const layer *l, int32_t side,
                        double **scale, double **add) {
    bool is_mul = kiln_is_op(n, "Mul"), is_div = kiln_is_op(n, "Div"),
         is_sub = kiln_is_op(n, "Sub");
    double *c = channel_numbers(p, n->in[1 - side], n->out[0], l->channel_axis, l->n_out);
    *scale = *add = NULL;
    if (!c || (side == 1 && (is_div || is_sub))) {
        return false;
    }
    for (int64_t i = 0; i < l->n_out; i++) {
        c[i] = is_div ? 1.0 / c[i] : is_sub ? -c[i] : c[i];
    }
    *(is_mul || is_div ? scale : add) = c;
    return all_finite(c, l->n_out);
}

static kiln_status after(kiln_patch *p, const kiln_node *n, int32_t side) {
    layer l;
    double *scale, *add;
    kiln_value *y = n->in[side];
    if (y->constant || !kiln_used_once(y) || !read_layer(y->producer, &l) ||
        !kiln_same_type(y, n->out[0]) || !read_affine(p, n, &l, side, &scale, &add) ||
        (add && !l.takes_bias) || (scale && l.out_axis < 0)) {
        return KILN_OK;
    }
    kiln_value *bias = l.bias;
    if (add || (scale && l.bias)) {
        bias = make_bias(p, &l, scale, add);
        if (!bias) {
            kiln_patch_drop(p);
            return KILN_OK;
        }
    }
    kiln_value *weight = scale ? scale_weight(p, &l, scale, l.n_out, l.out_axis) : l.weight;
    return rebuild(p, &l, l.x, weight, bias, n,
                   scale ? "scale after the layer" : "bias after the layer");
}

/* (x W + b) * c of a MatMul with its bias beside it: x (W c) + b c. */
static kiln_status after_bias(kiln_patch *p, const kiln_node *n, int32_t side) {
    layer l;
    double *scale, *none, *b;
    const kiln_node *add = kiln_made_by_only(n->in[side], "Add");
    for (int32_t s = 0; add && s < 2; s++) {
        kiln_value *y = add->in[s];
        if (y->constant || !kiln_used_once(y) || !read_layer(y->producer, &l) || l.takes_bias ||
            !kiln_same_type(y, n->out[0]) || !read_affine(p, n, &l, side, &scale, &none) ||
            !scale) {
            continue;
        }
        b = channel_numbers(p, add->in[1 - s], y, l.channel_axis, l.n_out);
        for (int64_t i = 0; b && i < l.n_out; i++) {
            b[i] *= scale[i];
        }
        kiln_value *weight = b ? scale_weight(p, &l, scale, l.n_out, l.out_axis) : NULL;
        if (!weight || !all_finite(b, l.n_out)) {
            continue;
        }
        kiln_value *in[] = {l.x, weight};
        kiln_patch_touch(p, l.node);
        kiln_patch_touch(p, add);
        kiln_value *sum[] = {kiln_patch_node(p, "MatMul", in, 2),
                             kiln_fold_vector(p, l.weight->type.dtype, b, 1, &l.n_out)};
        kiln_patch_replace(p, n->out[0], kiln_patch_node(p, "Add", sum, 2));
        return kiln_patch_commit(p, "scale after MatMul and bias");
    }
    kiln_patch_drop(p);
    return KILN_OK;
}

/* ---- Before the layer ---- */

static kiln_status before(kiln_patch *p, const kiln_node *n) {
    layer l;
    if (!read_layer(n, &l) || l.in_axis < 0 || l.x->constant || !kiln_used_once(l.x)) {
        return KILN_OK;
    }
    const kiln_node *mul = kiln_made_by(l.x, "Mul"), *div = kiln_made_by(l.x, "Div");
    const kiln_node *by = mul ? mul : div;
    for (int32_t side = 0; by && !by->stays && side < (mul ? 2 : 1); side++) {
        double *c = channel_numbers(p, by->in[1 - side], by->out[0], l.channel_axis, l.n_in);
        if (!c || by->in[side]->constant || !kiln_same_type(by->in[side], l.x)) {
            continue;
        }
        for (int64_t i = 0; div && i < l.n_in; i++) {
            c[i] = 1.0 / c[i];
        }
        if (!all_finite(c, l.n_in)) {
            return KILN_OK;
        }
        kiln_patch_touch(p, by);
        return rebuild(p, &l, by->in[side], scale_weight(p, &l, c, l.n_in, l.in_axis), l.bias, n,
                       "scale before the layer");
    }
    return KILN_OK;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    bool scaling = !n->stays && (kiln_is_op(n, "Mul") || kiln_is_op(n, "Div"));
    bool adding = kiln_is_op(n, "Add") || kiln_is_op(n, "Sub");
    for (int32_t side = 0; side < 2 && (scaling || adding); side++) {
        KILN_TRY(after(p, n, side));
        if (scaling && !kiln_patch_taken(p, n)) {
            KILN_TRY(after_bias(p, n, side));
        }
        if (kiln_patch_taken(p, n)) {
            return KILN_OK;
        }
    }
    return before(p, n);
}

const kiln_pass kiln_pass_scales = {.name = "scales", .visit = visit};
