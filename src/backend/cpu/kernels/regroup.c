/* regroup.c - Reshape, Transpose, Reshape as one copy: channel shuffles, patches, windows.
 *
 * * The first view splits dims of x into parts, the transpose orders them anew, the second view
 * merges parts into the dims of y. When every part belongs to one dim on both sides it has a
 * stride on both sides, whatever their layout, and nothing needs to lie in rows. */
#include "backend/cpu/axes.h"
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/move.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct regroup_params {
    const kiln_node *transpose;
    int32_t
        of_x[KILN_COPY_RANK]; /* per part, in the order of the transpose's input: its dim of x */
    int32_t of_y[KILN_COPY_RANK]; /* per part, in the order of its output: its dim of y */
} regroup_params;

typedef struct regroup_state {
    const kiln_move_prims *prims;
    kiln_copy_plan plan;
} regroup_state;

/* Parts p that make up the dims of `whole`, in order: of[p] is the dim. Unknown sizes only match
 * whole. */
static bool factor(const kiln_type *whole, const kiln_type *parts, int32_t *of) {
    int32_t p = 0;
    for (int32_t d = 0; d < whole->rank; d++) {
        kiln_dim want = whole->dims[d];
        if (want == KILN_DIM_UNKNOWN || p == parts->rank) {
            return false;
        }
        if (parts->dims[p] == want) {
            of[p++] = d;
            continue;
        }
        int64_t product = 1;
        while (p < parts->rank && kiln_dim_known(want) && kiln_dim_known(parts->dims[p]) &&
               parts->dims[p] > 0 && product < want && parts->dims[p] <= want / product) {
            product *= parts->dims[p];
            of[p++] = d;
        }
        if (product != want) {
            return false;
        }
    }
    for (; p < parts->rank; p++) {
        if (parts->dims[p] != 1 || whole->rank == 0) {
            return false;
        }
        of[p] = whole->rank - 1;
    }
    return true;
}

static bool fits(const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR && v->type.rank >= 1 &&
           v->type.rank <= KILN_COPY_RANK && kiln_move_bytes(v->type.dtype) != 0;
}

/* The Transpose and the second Reshape after `first`, each the only reader of the one before. */
static bool follow(const kiln_claimer *c, const kiln_node *first, kiln_node **t, kiln_node **last) {
    *t = kiln_claim_next(c, first->out[0]);
    *last = *t && KILN_IS(*t, transpose) ? kiln_claim_next(c, (*t)->out[0]) : NULL;
    return *last && KILN_IS(*last, reshape) && fits((*t)->out[0]) && fits((*last)->out[0]);
}

/* A transpose that moves no elements is better off with the views around it. */
static bool is_view(const kiln_node *t) {
    const kiln_type *parts = &t->in[0]->type;
    return kiln_moves_units(t, parts) || kiln_puts_channels_last(t, parts->rank) ||
           kiln_puts_channels_first(t, parts->rank);
}

static kiln_claim *make(kiln_claimer *c, kiln_node *node, kiln_node *t, kiln_node *last) {
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_regroup, node, 1, 1, sizeof(regroup_params));
    if (!r) {
        return NULL;
    }
    regroup_params *p = r->params;
    p->transpose = t;
    if (!factor(&node->in[0]->type, &node->out[0]->type, p->of_x) ||
        !factor(&last->out[0]->type, &t->out[0]->type, p->of_y)) {
        return kiln_claim_refuse(c, "the views do not split and merge whole dims");
    }
    if (!kiln_claim_add(c, r, t) || !kiln_claim_add(c, r, last)) {
        return NULL;
    }
    r->in[0] = node->in[0];
    r->out[0] = last->out[0];
    bool images = node->in[0]->type.rank >= 3 && last->out[0]->type.rank >= 3;
    r->in_layouts[0] = r->out_layouts[0] = images ? KILN_LAYOUT_ANY : KILN_LAYOUT_ROW;
    r->same_layout = images;
    kiln_claim_hold_alike(r);
    bool listed = kiln_claim_shape_inputs(c, r, node, 1) && kiln_claim_shape_inputs(c, r, last, 1);
    return listed ? r : NULL;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_node *t, *last;
    if (!KILN_IS(node, reshape) || !fits(node->in[0]) || !fits(node->out[0])) {
        return kiln_claim_refuse(c, "it begins with a Reshape of up to %d dims", KILN_COPY_RANK);
    }
    if (!follow(c, node, &t, &last)) {
        return kiln_claim_refuse(c, "no Transpose and Reshape follow alone");
    }
    if (is_view(t)) {
        return kiln_claim_refuse(c, "the transpose is a view");
    }
    return make(c, node, t, last);
}

/* Strides of the parts, from those of the dims they belong to. */
static void part_strides(const kiln_operand *o, const int32_t *of, const int64_t *dims, int32_t n,
                         int64_t *strides) {
    int64_t own[KILN_MAX_RANK], inner = 1;
    kiln_logical_strides(o, own);
    for (int32_t p = n - 1; p >= 0; p--) {
        inner = p + 1 < n && of[p + 1] == of[p] ? inner * dims[p + 1] : 1;
        strides[p] = own[of[p]] * inner;
    }
}

static kiln_status bind(kiln_binder *b) {
    const regroup_params *p = b->claim->params;
    regroup_state *s;
    KILN_ALLOC(s, b->arena, 1);
    kiln_tensor from, to;
    int64_t x[KILN_MAX_RANK], src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    KILN_TRY(kiln_bind_tensor(b, p->transpose->in[0], &from));
    KILN_TRY(kiln_bind_tensor(b, p->transpose->out[0], &to));
    part_strides(&b->in[0], p->of_x, from.dims, from.rank, x);
    part_strides(&b->out[0], p->of_y, to.dims, to.rank, dst);
    for (int32_t d = 0; d < to.rank; d++) {
        src[d] = x[kiln_perm_at(p->transpose, to.rank, d)];
    }
    s->prims = b->target->prims->move;
    b->state = s;
    return kiln_copy_plan_make(&s->plan, kiln_move_bytes(b->out[0].tensor.dtype), to.rank, to.dims,
                               src, dst);
}

static void run(const kiln_call *call, const kiln_team *team) {
    const regroup_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->plan.units, &begin, &end);
    if (begin < end) {
        s->prims->copy(&s->plan, call->in[0], call->out[0], begin, end);
    }
}

const kiln_kernel kiln_kernel_regroup = {
    .name = "regroup",
    .claim = claim,
    .bind = bind,
    .run = run,
};
