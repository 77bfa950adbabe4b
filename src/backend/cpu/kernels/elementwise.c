/* elementwise.c - a chain of elementwise nodes as one block-wise program over the output's
 * elements.
 *
 * The region grows from its anchor along single uses, as long as the shape stays the same;
 * whatever else the nodes read is broadcast by strides. Blocks are split over the team. */
#include <string.h>

#include "backend/cpu/chain.h"
#include "backend/cpu/operand.h"
#include "ops/ops.h"

typedef struct elementwise_params {
    kiln_chain chain;
} elementwise_params;

typedef struct elementwise_state {
    const kiln_program_prims *prims;
    const kiln_program *program;
    kiln_program_plan plan;
} elementwise_state;

/* A region while it grows. */
typedef struct region {
    kiln_claimer *c;
    kiln_claim *claim;
    kiln_chain *chain;
} region;

/* The DequantizeLinear that makes an operand of the node, if it makes it for nobody else. */
static kiln_node *own_dequantizer(const region *r, const kiln_node *node, int32_t k) {
    const kiln_value *v = node->in[k];
    kiln_node *d = v ? v->producer : NULL;
    bool own = d && KILN_IS(d, dequantize_linear) && kiln_claim_next(r->c, v) == node;
    return own && r->c->is_free(r->c, d) && kiln_chain_takes(d) ? d : NULL;
}

/* Takes the node, and before it what dequantizes its operands, `through` (may be NULL) among them;
 * or leaves the region as it was. */
static bool add(region *r, kiln_node *node, const kiln_node *through) {
    kiln_chain before = *r->chain;
    kiln_node **nodes = r->claim->nodes;
    int32_t n_nodes = r->claim->n_nodes;
    bool fits = kiln_chain_takes(node), joined = !through;
    for (int32_t k = 0; k < node->n_in && fits && r->c->status == KILN_OK; k++) {
        kiln_node *d = own_dequantizer(r, node, k);
        if (d && kiln_chain_add(r->chain, d)) {
            fits = kiln_claim_add(r->c, r->claim, d);
            joined = joined || d == through;
        }
    }
    fits = fits && joined && kiln_chain_add(r->chain, node) &&
           (node == r->claim->anchor || kiln_claim_add(r->c, r->claim, node));
    if (!fits) {
        *r->chain = before;
        r->claim->nodes = nodes;
        r->claim->n_nodes = n_nodes;
    }
    return fits;
}

/* The node that goes on from v. A DequantizeLinear belongs to whoever reads it, which comes next
 * with it if it is elementwise; one that only the graph's outputs read comes itself. */
static kiln_node *follow(const kiln_claimer *c, const kiln_value *v, kiln_node **through) {
    kiln_node *next = kiln_claim_next(c, v);
    *through = NULL;
    if (!next || !KILN_IS(next, dequantize_linear) || next->out[0]->n_users == 0) {
        return next;
    }
    *through = next;
    return kiln_claim_next(c, next->out[0]);
}

/* What the chain reads, in any layout where that is a matter of strides. */
static bool list_inputs(region *r, const kiln_value *last) {
    for (int32_t i = 0; i < r->chain->n_in; i++) {
        kiln_value *v = (kiln_value *)r->chain->in[i];
        bool full = v->type.rank == last->type.rank && r->chain->axis[i] == 0;
        if (kiln_claim_input(r->c, r->claim, v, full ? KILN_LAYOUT_ANY : KILN_LAYOUT_ROW) < 0) {
            return false;
        }
        if (r->claim->in_place < 0 && full && v->type.dtype == last->type.dtype &&
            kiln_type_same_shape(&v->type, &last->type)) {
            r->claim->in_place = i;
        }
    }
    return true;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!kiln_chain_takes(node)) {
        return kiln_claim_refuse(c, "the program has no instruction for it, or a type is not "
                                    "float32, bool or 8-bit");
    }
    region r = {.c = c};
    r.claim = kiln_claim_new(c, &kiln_kernel_elementwise, node, 0, 1, sizeof(elementwise_params));
    if (!r.claim) {
        return NULL;
    }
    r.chain = &((elementwise_params *)r.claim->params)->chain;
    kiln_chain_init(r.chain);
    if (!add(&r, node, NULL)) {
        return kiln_claim_refuse(c, "it needs more registers than the program has");
    }
    kiln_value *last = node->out[0];
    bool fuse = !kiln_target_is_off(c->target, "fuse_elementwise");
    kiln_node *through, *next = fuse ? follow(c, last, &through) : NULL;
    for (; next; next = follow(c, last, &through)) {
        if (next->n_out != 1 || !kiln_type_same_shape(&next->out[0]->type, &last->type) ||
            !add(&r, next, through)) {
            break;
        }
        last = next->out[0];
    }
    r.claim->out[0] = last;
    r.claim->out_layouts[0] = KILN_LAYOUT_ANY;
    if (!kiln_chain_finish(r.chain, &last, 1)) {
        return kiln_claim_refuse(c, "it needs more registers than the program has");
    }
    r.claim->same_layout = true;
    return list_inputs(&r, last) ? r.claim : NULL;
}

/* A vector along one axis of the space, which is counted from the end. */
static void axis_strides(const kiln_operand *out, int32_t axis, int64_t *strides) {
    int32_t rank = out->tensor.rank;
    for (int32_t d = 0; d < rank; d++) {
        strides[d] = 0;
    }
    strides[kiln_physical_axis(rank + axis, rank, out->layout)] = 1;
}

static kiln_status bind(kiln_binder *b) {
    const elementwise_params *p = b->claim->params;
    elementwise_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->prims = b->target->prims->program;
    s->program = &p->chain.program;
    kiln_prog_view *views;
    const kiln_operand *out = &b->out[0];
    int32_t rank = out->tensor.rank;
    KILN_ALLOC(views, b->arena, b->claim->n_in + 1);
    for (int32_t i = 0; i <= b->claim->n_in; i++) {
        const kiln_operand *o = i < b->claim->n_in ? &b->in[i] : out;
        views[i].dtype = o->tensor.dtype;
        if (i < b->claim->n_in && p->chain.axis[i] != 0) {
            axis_strides(out, p->chain.axis[i], views[i].stride);
        } else {
            kiln_operand_strides(o, out, views[i].stride);
        }
    }
    int64_t dims[KILN_MAX_RANK];
    kiln_physical_dims(&out->tensor, out->layout, dims);
    KILN_TRY(kiln_program_plan_make(&s->plan, s->program, rank, dims, views));
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const elementwise_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->plan.blocks, &begin, &end);
    if (begin < end) {
        s->prims->run(s->program, &s->plan, (const void *const *)call->in, call->out, begin, end);
    }
}

const kiln_kernel kiln_kernel_elementwise = {
    .name = "elementwise",
    .claim = claim,
    .bind = bind,
    .run = run,
};
