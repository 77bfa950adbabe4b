/* softmax_f32.c - float32 Softmax, LogSoftmax and LpNormalization along one axis, in any layout. */
#include "backend/cpu/axes.h"
#include "backend/cpu/prims/norm.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct softmax_state {
    const kiln_norm_prims *prims;
    bool is_norm;
    kiln_softmax_args softmax;
    kiln_lpnorm_args norm;
    int64_t units;
} softmax_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, softmax) && !KILN_IS(node, log_softmax) &&
        !KILN_IS(node, lp_normalization)) {
        return kiln_claim_refuse(c, "it runs Softmax, LogSoftmax and LpNormalization");
    }
    if (!kiln_value_is_f32(node->in[0]) || node->in[0]->type.rank < 1) {
        return kiln_claim_refuse(c, "it takes float32 of rank 1 and above");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_softmax_f32, node, 1, 1, 1);
    if (!r) {
        return NULL;
    }
    r->in[0] = node->in[0];
    r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_ANY;
    r->same_layout = true;
    r->in_place = 0;
    return r;
}

static kiln_status bind(kiln_binder *b) {
    const kiln_node *node = b->claim->anchor;
    softmax_state *s;
    KILN_ALLOC(s, b->arena, 1);
    int32_t rank = b->in[0].tensor.rank;
    b->state = s;
    s->prims = b->target->prims->norm;
    s->is_norm = KILN_IS(node, lp_normalization);
    const kiln_lp_norm_attrs *norm = node->attrs;
    const kiln_axis_attrs *softmax = node->attrs;
    kiln_lane lane =
        kiln_lane_at(&b->in[0], kiln_axis_of(s->is_norm ? norm->axis : softmax->axis, rank));
    s->softmax =
        (kiln_softmax_args){.n = lane.n, .inner = lane.inner, .log = KILN_IS(node, log_softmax)};
    s->norm = (kiln_lpnorm_args){
        .n = lane.n, .inner = lane.inner, .p = s->is_norm ? (int32_t)norm->p : 0};
    s->units = lane.n > 0 ? kiln_lane_units(lane.outer, lane.inner) : 0;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const softmax_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->units, &begin, &end);
    if (begin >= end) {
        return;
    }
    if (s->is_norm) {
        kiln_lpnorm_args norm = s->norm;
        norm.x = call->in[0];
        norm.y = call->out[0];
        s->prims->lpnorm(&norm, begin, end);
        return;
    }
    kiln_softmax_args softmax = s->softmax;
    softmax.x = call->in[0];
    softmax.y = call->out[0];
    s->prims->softmax(&softmax, begin, end);
}

const kiln_kernel kiln_kernel_softmax_f32 = {
    .name = "softmax_f32",
    .claim = claim,
    .bind = bind,
    .run = run,
};
