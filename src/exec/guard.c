/* guard.c - shapes that only the run knows, held against what inference concluded without them.
 *
 * Reshape and Expand can have but one result where their target is known in part or not at all:
 * x[2,3,4] expands to itself whatever [a, b, c] may say, since dims that are not 1 stay. The step
 * is bound to that result. A target that says another is an error of the model or its inputs,
 * which the step would never notice: a call before it infers again, with the target at hand. */
#include <string.h>

#include "exec/binding.h"

typedef struct guard {
    const kiln_node *node;
    kiln_fact *in; /* the node's inputs as binding knew them */
    kiln_type out;
    kiln_tensor target; /* without its data */
    int32_t operand;    /* of the claim: the target */
} guard;

static kiln_status check(const guard *g, const kiln_call *call) {
    kiln_run_env *env = call->env;
    kiln_datum target = {.kind = KILN_KIND_TENSOR, .tensor = g->target};
    kiln_fact *in = kiln_arena_copy(env->arena, g->in, (size_t)g->node->n_in * sizeof *in), out;
    kiln_dims dims;
    if (!in) {
        return KILN_E_MEMORY;
    }
    target.tensor.data = call->in[g->operand];
    kiln_dims_init(&dims, env->arena);
    KILN_TRY(kiln_datum_fact(&target, env->arena, &in[1]));
    KILN_TRY(kiln_infer_concrete(g->node, in, &out, env->arena, &dims, env->arena->env, env->diag));
    for (int32_t d = 0; d < g->out.rank; d++) {
        if (out.type.rank != g->out.rank || out.type.dims[d] != g->out.dims[d]) {
            kiln_diag_at_node(env->diag, g->node->name, g->node->op->name);
            return kiln_fail(env->diag, KILN_F_SHAPE,
                             "the target does not give the only shape that is possible: dim %d is "
                             "to be %lld",
                             d, (long long)g->out.dims[d]);
        }
    }
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    if (team->rank == 0) {
        call->env->status = check(call->state, call);
    }
}

const kiln_kernel kiln_guard_kernel = {.name = "guard", .run = run};

/* Some entry of the node's target is not known at this binding. */
static kiln_status is_open(kiln_binding *b, const kiln_node *n, bool *open) {
    kiln_fact f;
    *open = false;
    if (!(n->op->flags & KILN_OP_TARGET) || n->in[1]->constant) {
        return KILN_OK;
    }
    KILN_TRY(kiln_binding_fact(b, n->in[1], &f));
    *open = !f.contents;
    for (int64_t i = 0; f.contents && i < f.n_contents; i++) {
        *open = *open || !kiln_dim_known(f.contents[i]);
    }
    return KILN_OK;
}

static kiln_status make(kiln_binding *b, const kiln_node *n, int32_t operand, guard **out) {
    guard *g;
    kiln_fact y;
    KILN_ALLOC(g, &b->seg->arena, 1);
    KILN_ALLOC(g->in, &b->seg->arena, n->n_in);
    for (int32_t k = 0; k < n->n_in; k++) {
        KILN_TRY(kiln_binding_fact(b, n->in[k], &g->in[k]));
    }
    KILN_TRY(kiln_binding_fact(b, n->out[0], &y));
    kiln_type_to_tensor(&g->in[1].type, &g->target);
    g->target.cap_bytes = kiln_tensor_bytes(&g->target);
    g->node = n;
    g->out = y.type;
    g->operand = operand;
    *out = g;
    return KILN_OK;
}

kiln_status kiln_binding_guard(kiln_binding *b, int32_t s) {
    const kiln_step *step = &b->frame->plan->steps[s];
    const kiln_claim *claim = step->claim;
    for (int32_t i = 0; step->claim_index >= 0 && i < claim->n_nodes; i++) {
        const kiln_node *n = claim->nodes[i];
        bool open;
        KILN_TRY(is_open(b, n, &open));
        for (int32_t k = 0; open && k < claim->n_in; k++) {
            if (claim->in[k] == n->in[1] && step->in[k] >= 0) {
                guard *g;
                kiln_bound *bound;
                KILN_TRY(make(b, n, k, &g));
                KILN_TRY(kiln_binding_call(b, s, &kiln_guard_kernel, g, &bound));
                open = false;
            }
        }
    }
    return KILN_OK;
}
