/* norm_f32.c - float32 layer, RMS, instance and group normalization, and LRN.
 *
 * Layer and RMS normalization take the addition along that makes their input, when no product has
 * it in its epilogue: each row is added, kept where others read the sum, and normalized while it
 * is in the cache. A QuantizeLinear behind them is taken along. */
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/fuse.h"
#include "backend/cpu/prims/norm.h"
#include "ops/attrs.h"
#include "ops/ops.h"

enum { X, SCALE, BIAS };

/* What the region is, when it is not one node. */
typedef struct norm_params {
    kiln_node *norm;
    int32_t residual; /* number of the claim's input that is added to x, or -1 */
    bool keeps_sum;   /* out 1 is x + residual */
    kiln_fused fused; /* layer and RMS: the quantizer of the result, if one follows */
} norm_params;

typedef struct norm_state norm_state;
typedef void norm_fn(const norm_state *s, const kiln_call *call, int64_t begin, int64_t end,
                     void *scratch);

struct norm_state {
    const kiln_norm_prims *prims;
    norm_fn *fn;
    kiln_layernorm_args layer;
    kiln_groupnorm_args group;
    kiln_lrn_args lrn;
    bool has_bias, has_mean, has_inv_std, keeps_sum;
    int32_t residual;
    bool last; /* group norm over channels-last */
    int64_t units;
    kiln_fused_state fused;
    bool narrows;
    int64_t slice; /* rows that wait in scratch for their quantizer */
};

/* ---- Claims ---- */

/* v is float32 and has exactly the dims of type from `axis` on, whatever ones stand before. */
static bool covers(const kiln_value *v, const kiln_type *type, int32_t axis) {
    int32_t n = type->rank - axis;
    if (!kiln_value_is_f32(v) || v->type.rank < n) {
        return false;
    }
    for (int32_t d = 0; d < v->type.rank; d++) {
        int32_t of = d + type->rank - v->type.rank;
        kiln_dim want = of < axis ? 1 : type->dims[of];
        if (v->type.dims[d] != want || want == KILN_DIM_UNKNOWN) {
            return false;
        }
    }
    return true;
}

/* A claim of the node with n_in inputs, those of the node. */
static kiln_claim *new_claim(kiln_claimer *c, kiln_node *node, int32_t n_in, int32_t n_out) {
    kiln_claim *r =
        kiln_claim_new(c, &kiln_kernel_norm_f32, node, n_in, n_out, sizeof(norm_params));
    if (r) {
        *(norm_params *)r->params = (norm_params){.norm = node, .residual = -1};
        memcpy(r->in, node->in, (size_t)n_in * sizeof *r->in);
    }
    return r;
}

static bool is_layer(const kiln_node *node) {
    return KILN_IS(node, layer_normalization) || KILN_IS(node, rms_normalization);
}

static kiln_claim *claim_layer(kiln_claimer *c, kiln_node *node) {
    const kiln_norm_attrs *a = node->attrs;
    const kiln_type *x = &node->in[X]->type;
    kiln_value *bias = kiln_node_in(node, BIAS);
    int32_t axis = kiln_axis_of(a->axis, x->rank);
    if (!covers(node->in[SCALE], x, axis) || (bias && !covers(bias, x, axis))) {
        return kiln_claim_refuse(c, "scale or bias do not have the dims that are normalized");
    }
    for (int32_t i = 0; i < node->n_out; i++) {
        if (!kiln_value_is_f32(node->out[i])) {
            return kiln_claim_refuse(c, "an output is not float32");
        }
    }
    kiln_claim *r = new_claim(c, node, bias ? 3 : 2, node->n_out);
    if (!r) {
        return NULL;
    }
    norm_params *p = r->params;
    if (node->n_out == 1 &&
        !kiln_fuse_quantizer(c, r, &p->fused, node->out[0], x->rank - 1, r->out_layouts[0])) {
        return NULL;
    }
    r->in_place = p->fused.narrows ? -1 : 0;
    if (node->n_out == 1) {
        kiln_fuse_hold(c, r, &p->fused);
    }
    return r;
}

/* The first reader of the sum, when it is a normalization: what else reads the sum comes after the
 * region then. */
static kiln_node *find_norm(const kiln_claimer *c, const kiln_node *add) {
    const kiln_value *sum = add->out[0];
    kiln_node *first = sum->n_users > 0 ? sum->users[0] : NULL;
    for (int32_t i = 1; i < sum->n_users; i++) {
        first = sum->users[i]->id < first->id ? sum->users[i] : first;
    }
    if (!first || !is_layer(first) || first->n_out != 1 || first->in[X] != sum ||
        !c->is_free(c, first) || !kiln_value_is_const(first->in[SCALE]) ||
        (kiln_node_in(first, BIAS) && !kiln_value_is_const(first->in[BIAS]))) {
        return NULL;
    }
    return first;
}

/* x + residual, normalized; the sum is kept where others read it too. */
static kiln_claim *claim_sum(kiln_claimer *c, kiln_node *add) {
    const kiln_type *t = &add->out[0]->type;
    if (kiln_target_is_off(c->target, "fuse_norm_residual")) {
        return kiln_claim_refuse(c, "fuse_norm_residual is off");
    }
    for (int32_t i = 0; i < 2; i++) {
        if (!kiln_value_is_f32(add->in[i]) || !kiln_type_same_shape(&add->in[i]->type, t)) {
            return kiln_claim_refuse(c, "it adds only float32 of the same shape");
        }
    }
    kiln_node *norm = find_norm(c, add);
    kiln_claim *r = norm ? claim_layer(c, norm) : NULL;
    if (!r) {
        return kiln_claim_refuse(c, "no normalization follows that it runs");
    }
    norm_params *p = r->params;
    const kiln_value *sum = add->out[0];
    kiln_value **out = kiln_arena_array(c->arena, 2, sizeof(kiln_value *));
    uint8_t *row = kiln_arena_array(c->arena, 2, 1), *held = kiln_arena_array(c->arena, 2, 1);
    p->residual = kiln_claim_input(c, r, add->in[1], KILN_LAYOUT_ROW);
    p->keeps_sum = sum->n_users > 1 || sum->n_outputs > 0;
    if (!out || !row || !held || p->residual < 0 || !kiln_claim_add(c, r, add)) {
        c->status = KILN_E_MEMORY;
        return NULL;
    }
    memset(row, KILN_LAYOUT_ROW, 2);
    out[0] = r->out[0];
    out[1] = add->out[0];
    r->anchor = add;
    r->in[X] = add->in[0];
    r->out = out;
    r->out_layouts = row;
    held[0] = r->out_held[0];
    r->out_held = held;
    r->n_out = p->keeps_sum ? 2 : 1;
    return r;
}

static kiln_claim *claim_channels(kiln_claimer *c, kiln_node *node) {
    if (!kiln_value_is_f32(node->in[SCALE]) || !kiln_value_is_f32(node->in[BIAS])) {
        return kiln_claim_refuse(c, "scale or bias are not float32");
    }
    kiln_claim *r = new_claim(c, node, 3, 1);
    if (r) {
        r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_ANY;
        r->same_layout = true;
        r->in_place = 0;
    }
    return r;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    bool layer = is_layer(node);
    bool channels = KILN_IS(node, instance_normalization) || KILN_IS(node, group_normalization);
    if (KILN_IS(node, add)) {
        return claim_sum(c, node);
    }
    if (!layer && !channels && !KILN_IS(node, lrn)) {
        return kiln_claim_refuse(
            c, "it runs LayerNormalization, RMSNormalization, InstanceNormalization, "
               "GroupNormalization and LRN, and an addition before one of the first two");
    }
    if (!kiln_value_is_f32(node->in[X]) || !kiln_value_is_f32(node->out[0])) {
        return kiln_claim_refuse(c, "it takes float32 of known rank");
    }
    if (layer || channels) {
        return layer ? claim_layer(c, node) : claim_channels(c, node);
    }
    kiln_claim *r = new_claim(c, node, 1, 1);
    if (r) {
        r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_LAST;
    }
    return r;
}

/* ---- Running ---- */

/* Slices of rows wait in scratch for their quantizer, or to be rounded. */
static void run_narrow(const norm_state *s, const kiln_call *call, kiln_layernorm_args a,
                       int64_t begin, int64_t end, float *scratch) {
    const int64_t cols = a.cols;
    kiln_epilogue e;
    kiln_program_post_args post;
    kiln_fuse_resolve(&s->fused, call, &e, &post);
    a.x += begin * cols;
    a.residual = a.residual ? a.residual + begin * cols : NULL;
    a.sum = a.sum ? a.sum + begin * cols : NULL;
    a.y = scratch;
    for (int64_t rows; begin < end; begin += rows) {
        rows = s->slice < end - begin ? s->slice : end - begin;
        s->prims->layernorm(&a, 0, rows);
        e.post(e.post_arg, scratch, cols, begin, rows, 0, cols);
        a.x += rows * cols;
        a.residual = a.residual ? a.residual + rows * cols : NULL;
        a.sum = a.sum ? a.sum + rows * cols : NULL;
    }
}

static void run_layer(const norm_state *s, const kiln_call *call, int64_t begin, int64_t end,
                      void *scratch) {
    kiln_layernorm_args a = s->layer;
    a.x = call->in[X];
    a.scale = call->in[SCALE];
    a.bias = s->has_bias ? call->in[BIAS] : NULL;
    a.residual = s->residual >= 0 ? call->in[s->residual] : NULL;
    a.sum = s->keeps_sum ? call->out[1] : NULL;
    if (s->narrows) {
        run_narrow(s, call, a, begin, end, scratch);
        return;
    }
    a.y = call->out[0];
    a.mean = s->has_mean ? call->out[1] : NULL;
    a.inv_std = s->has_inv_std ? call->out[2] : NULL;
    s->prims->layernorm(&a, begin, end);
}

static void run_group(const norm_state *s, const kiln_call *call, int64_t begin, int64_t end,
                      void *scratch) {
    (void)scratch;
    kiln_groupnorm_args a = s->group;
    a.x = call->in[X];
    a.scale = call->in[SCALE];
    a.bias = call->in[BIAS];
    a.y = call->out[0];
    if (s->last) {
        s->prims->groupnorm_last(&a, begin, end);
    } else {
        s->prims->groupnorm_first(&a, begin, end);
    }
}

static void run_lrn(const norm_state *s, const kiln_call *call, int64_t begin, int64_t end,
                    void *scratch) {
    (void)scratch;
    kiln_lrn_args a = s->lrn;
    a.x = call->in[X];
    a.y = call->out[0];
    s->prims->lrn(&a, begin, end);
}

/* ---- Binding ---- */

static void bind_layer(kiln_binder *b, norm_state *s) {
    const norm_params *p = b->claim->params;
    const kiln_norm_attrs *a = p->norm->attrs;
    const kiln_tensor *x = &b->in[X].tensor;
    int64_t cols = 1, rows = 1;
    int32_t axis = kiln_axis_of(a->axis, x->rank);
    for (int32_t d = 0; d < x->rank; d++) {
        *(d < axis ? &rows : &cols) *= x->dims[d];
    }
    s->fn = run_layer;
    s->units = rows;
    s->layer = (kiln_layernorm_args){.cols = cols,
                                     .eps = a->epsilon,
                                     .rms = KILN_IS(p->norm, rms_normalization),
                                     .x_ld = cols,
                                     .residual_ld = cols,
                                     .sum_ld = cols,
                                     .y_ld = cols};
    s->residual = p->residual;
    s->keeps_sum = p->keeps_sum;
    s->has_bias = kiln_node_in(p->norm, BIAS) != NULL;
    s->has_mean = p->norm->n_out > 1;
    s->has_inv_std = p->norm->n_out > 2;
    s->narrows = p->fused.narrows || b->out[0].tensor.dtype == KILN_DTYPE_BF16;
    if (s->narrows) {
        enum { SLICE_FLOATS = 4096 };
        kiln_fuse_bind(&s->fused, &p->fused, b, cols);
        s->slice = cols < SLICE_FLOATS && cols > 0 ? SLICE_FLOATS / cols : 1;
        b->scratch_bytes = (size_t)(s->slice * cols) * sizeof(float);
    }
}

static void bind_group(kiln_binder *b, norm_state *s) {
    const kiln_norm_attrs *a = b->claim->anchor->attrs;
    const kiln_operand *x = &b->in[X];
    int64_t channels = x->tensor.dims[1], images = x->tensor.dims[0];
    bool instance = KILN_IS(b->claim->anchor, instance_normalization);
    s->fn = run_group;
    s->last = x->layout == KILN_LAYOUT_LAST && x->tensor.rank >= 3;
    s->group = (kiln_groupnorm_args){.batch = images,
                                     .spatial = kiln_tensor_count(&x->tensor) / images / channels,
                                     .channels = channels,
                                     .groups = instance ? channels : a->num_groups,
                                     .eps = a->epsilon};
    s->units = s->last ? kiln_groupnorm_units(&s->group) : images * s->group.groups;
}

static void bind_lrn(kiln_binder *b, norm_state *s) {
    const kiln_lrn_attrs *a = b->claim->anchor->attrs;
    const kiln_tensor *x = &b->in[X].tensor;
    s->fn = run_lrn;
    s->lrn = (kiln_lrn_args){.channels = x->dims[1],
                             .size = a->size,
                             .alpha = a->alpha,
                             .beta = a->beta,
                             .bias = a->bias};
    s->units = kiln_tensor_count(x) / x->dims[1];
}

static kiln_status bind(kiln_binder *b) {
    norm_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->prims = b->target->prims->norm;
    b->state = s;
    if (is_layer(((const norm_params *)b->claim->params)->norm)) {
        bind_layer(b, s);
    } else if (kiln_tensor_count(&b->in[X].tensor) > 0) {
        if (KILN_IS(b->claim->anchor, lrn)) {
            bind_lrn(b, s);
        } else {
            bind_group(b, s);
        }
    }
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const norm_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->units, &begin, &end);
    if (begin < end) {
        s->fn(s, call, begin, end, call->scratch + (size_t)team->rank * call->scratch_bytes);
    }
}

const kiln_kernel kiln_kernel_norm_f32 = {
    .name = "norm_f32",
    .claim = claim,
    .bind = bind,
    .run = run,
};
