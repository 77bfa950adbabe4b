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

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!kiln_chain_takes(node)) {
        return kiln_claim_refuse(
            c, "the program has no instruction for it, or a type is not float32 or bool");
    }
    kiln_claim *r =
        kiln_claim_new(c, &kiln_kernel_elementwise, node, 0, 1, sizeof(elementwise_params));
    if (!r) {
        return NULL;
    }
    kiln_chain *chain = &((elementwise_params *)r->params)->chain;
    kiln_chain_init(chain);
    if (!kiln_chain_add(chain, node)) {
        return kiln_claim_refuse(c, "it needs more registers than the program has");
    }
    kiln_value *last = node->out[0];
    bool fuse = !kiln_target_is_off(c->target, "fuse_elementwise");
    for (kiln_node *next = fuse ? kiln_claim_next(c, last) : NULL; next;
         next = kiln_claim_next(c, last)) {
        if (!kiln_chain_takes(next) || !kiln_type_same_shape(&next->out[0]->type, &last->type) ||
            !kiln_chain_add(chain, next)) {
            break;
        }
        if (!kiln_claim_add(c, r, next)) {
            return NULL;
        }
        last = next->out[0];
    }
    r->out[0] = last;
    r->out_layouts[0] = KILN_LAYOUT_ANY;
    if (!kiln_chain_finish(chain, &last, 1)) {
        return kiln_claim_refuse(c, "it needs more registers than the program has");
    }
    for (int32_t i = 0; i < chain->n_in; i++) {
        kiln_value *v = (kiln_value *)chain->in[i];
        bool full = v->type.rank == last->type.rank;
        if (kiln_claim_input(c, r, v, full ? KILN_LAYOUT_ANY : KILN_LAYOUT_ROW) < 0) {
            return NULL;
        }
        if (r->in_place < 0 && v->type.dtype == last->type.dtype &&
            kiln_type_same_shape(&v->type, &last->type)) {
            r->in_place = i;
        }
    }
    r->same_layout = true;
    return r;
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
        kiln_operand_strides(o, out, views[i].stride);
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
