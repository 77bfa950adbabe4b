/* softmax_f32.c - float32 Softmax, LogSoftmax and LpNormalization along one axis, in any layout. A
 * QuantizeLinear behind a Softmax along rows is taken along. */
#include "backend/cpu/axes.h"
#include "backend/cpu/fuse.h"
#include "backend/cpu/prims/norm.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct softmax_params {
    kiln_fused fused; /* the quantizer of rows, if one follows */
} softmax_params;

typedef struct softmax_state {
    const kiln_norm_prims *prims;
    kiln_fused_state fused;
    int64_t slice; /* rows that wait in scratch for their quantizer; 0: none do */
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
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_softmax_f32, node, 1, 1, sizeof(softmax_params));
    if (!r) {
        return NULL;
    }
    softmax_params *p = r->params;
    int32_t last = node->in[0]->type.rank - 1;
    r->in[0] = node->in[0];
    if (KILN_IS(node, softmax) &&
        kiln_axis_of(((const kiln_axis_attrs *)node->attrs)->axis, last + 1) == last &&
        !kiln_fuse_quantizer(c, r, &p->fused, node->out[0], last, KILN_LAYOUT_ROW)) {
        return NULL;
    }
    if (p->fused.narrows) {
        r->in_layouts[0] = KILN_LAYOUT_ROW;
        return r;
    }
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
    const softmax_params *p = b->claim->params;
    if (p->fused.narrows && lane.n > 0) {
        enum { SLICE_FLOATS = 4096 };
        kiln_fuse_bind(&s->fused, &p->fused, b, lane.n);
        s->slice = lane.n < SLICE_FLOATS ? SLICE_FLOATS / lane.n : 1;
        b->scratch_bytes = (size_t)(s->slice * lane.n) * sizeof(float);
    }
    return KILN_OK;
}

static void run_narrow(const softmax_state *s, const kiln_call *call, int64_t begin, int64_t end,
                       float *scratch) {
    kiln_softmax_args a = s->softmax;
    kiln_epilogue e;
    kiln_program_post_args post;
    kiln_fuse_resolve(&s->fused, call, &e, &post);
    a.y = scratch;
    for (int64_t rows; begin < end; begin += rows) {
        rows = s->slice < end - begin ? s->slice : end - begin;
        a.x = (const float *)call->in[0] + begin * a.n;
        s->prims->softmax(&a, 0, rows);
        e.post(e.post_arg, scratch, a.n, begin, rows, 0, a.n);
    }
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
    if (s->slice > 0) {
        run_narrow(s, call, begin, end,
                   (float *)(call->scratch + (size_t)team->rank * call->scratch_bytes));
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
