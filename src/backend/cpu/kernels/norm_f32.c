/* norm_f32.c - float32 layer, RMS, instance and group normalization, and LRN. */
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/prims/norm.h"
#include "ops/attrs.h"
#include "ops/ops.h"

enum { X, SCALE, BIAS };

typedef struct norm_state norm_state;
typedef void norm_fn(const norm_state *s, const kiln_call *call, int64_t begin, int64_t end);

struct norm_state {
    const kiln_norm_prims *prims;
    norm_fn *fn;
    kiln_layernorm_args layer;
    kiln_groupnorm_args group;
    kiln_lrn_args lrn;
    bool has_bias, has_mean, has_inv_std;
    bool last; /* group norm over channels-last */
    int64_t units;
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
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_norm_f32, node, bias ? 3 : 2, node->n_out, 1);
    if (r) {
        memcpy(r->in, node->in, (size_t)r->n_in * sizeof *r->in);
        r->in_place = 0;
    }
    return r;
}

static kiln_claim *claim_channels(kiln_claimer *c, kiln_node *node) {
    if (!kiln_value_is_f32(node->in[SCALE]) || !kiln_value_is_f32(node->in[BIAS])) {
        return kiln_claim_refuse(c, "scale or bias are not float32");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_norm_f32, node, 3, 1, 1);
    if (r) {
        memcpy(r->in, node->in, 3 * sizeof *r->in);
        r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_ANY;
        r->same_layout = true;
        r->in_place = 0;
    }
    return r;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    bool layer = KILN_IS(node, layer_normalization) || KILN_IS(node, rms_normalization);
    bool channels = KILN_IS(node, instance_normalization) || KILN_IS(node, group_normalization);
    if (!layer && !channels && !KILN_IS(node, lrn)) {
        return kiln_claim_refuse(
            c, "it runs LayerNormalization, RMSNormalization, InstanceNormalization, "
               "GroupNormalization and LRN");
    }
    if (!kiln_value_is_f32(node->in[X]) || !kiln_value_is_f32(node->out[0])) {
        return kiln_claim_refuse(c, "it takes float32 of known rank");
    }
    if (layer || channels) {
        return layer ? claim_layer(c, node) : claim_channels(c, node);
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_norm_f32, node, 1, 1, 1);
    if (r) {
        r->in[0] = node->in[0];
        r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_LAST;
    }
    return r;
}

/* ---- Running ---- */

static void run_layer(const norm_state *s, const kiln_call *call, int64_t begin, int64_t end) {
    kiln_layernorm_args a = s->layer;
    a.x = call->in[X];
    a.scale = call->in[SCALE];
    a.bias = s->has_bias ? call->in[BIAS] : NULL;
    a.y = call->out[0];
    a.mean = s->has_mean ? call->out[1] : NULL;
    a.inv_std = s->has_inv_std ? call->out[2] : NULL;
    s->prims->layernorm(&a, begin, end);
}

static void run_group(const norm_state *s, const kiln_call *call, int64_t begin, int64_t end) {
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

static void run_lrn(const norm_state *s, const kiln_call *call, int64_t begin, int64_t end) {
    kiln_lrn_args a = s->lrn;
    a.x = call->in[X];
    a.y = call->out[0];
    s->prims->lrn(&a, begin, end);
}

/* ---- Binding ---- */

static void bind_layer(kiln_binder *b, norm_state *s) {
    const kiln_norm_attrs *a = b->claim->anchor->attrs;
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
                                     .rms = KILN_IS(b->claim->anchor, rms_normalization),
                                     .x_ld = cols,
                                     .y_ld = cols};
    s->has_bias = b->claim->n_in > BIAS;
    s->has_mean = b->claim->n_out > 1;
    s->has_inv_std = b->claim->n_out > 2;
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
    bool layer = KILN_IS(b->claim->anchor, layer_normalization) ||
                 KILN_IS(b->claim->anchor, rms_normalization);
    if (layer) {
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
        s->fn(s, call, begin, end);
    }
}

const kiln_kernel kiln_kernel_norm_f32 = {
    .name = "norm_f32",
    .claim = claim,
    .bind = bind,
    .run = run,
};
