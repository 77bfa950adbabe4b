/* reference.c - the kernel of last resort: one node, by the operator's reference, on member 0.
 *
 * It claims everything. Captures of bodies are operands too, so that the plan keeps them at hand.
 * Nodes whose outputs the data sizes never get here: the runner treats them as late steps. */
#include "backend/cpu/kernels/reference.h"

#include <string.h>

#include "base/env.h"
#include "ops/util.h"

static bool has_input(const kiln_claim *claim, const kiln_value *v) {
    for (int32_t i = 0; i < claim->n_in; i++) {
        if (claim->in[i] == v) {
            return true;
        }
    }
    return false;
}

kiln_claim *kiln_reference_claim(kiln_claimer *c, const kiln_kernel *kernel, kiln_node *node) {
    kiln_claim *r = kiln_claim_new(c, kernel, node, node->n_in, node->n_out, 0);
    for (int32_t i = 0; r && i < node->n_in; i++) {
        r->in[i] = node->in[i];
    }
    return r;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_claim *r = kiln_reference_claim(c, &kiln_kernel_reference, node);
    for (int32_t b = 0; r && b < node->n_bodies; b++) {
        const kiln_graph *body = node->bodies[b];
        for (size_t i = 0; i < body->n_captures; i++) {
            if (!has_input(r, body->captures[i]) &&
                kiln_claim_input(c, r, body->captures[i], KILN_LAYOUT_ROW) < 0) {
                return NULL;
            }
        }
    }
    return r;
}

typedef struct reference_state {
    const kiln_node *node;
    const kiln_env *env;
    kiln_fact *facts; /* of the outputs */
    kiln_datum *in;   /* dims at binding; addresses are set for each run in a copy */
    kiln_datum *out;
} reference_state;

static void set_datum(kiln_datum *d, const kiln_operand *operand) {
    if (operand->layout) {
        d->kind = KILN_KIND_TENSOR;
        d->tensor = operand->tensor;
    }
}

kiln_status kiln_reference_bind(kiln_binder *b) {
    const kiln_node *node = b->claim->anchor;
    reference_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->node = node;
    KILN_ALLOC(s->in, b->arena, node->n_in);
    KILN_ALLOC(s->out, b->arena, node->n_out);
    KILN_ALLOC(s->facts, b->arena, node->n_out);
    for (int32_t i = 0; i < node->n_in; i++) {
        set_datum(&s->in[i], &b->in[i]);
    }
    for (int32_t i = 0; i < node->n_out; i++) {
        set_datum(&s->out[i], &b->out[i]);
        const kiln_fact *f = b->fact(b, node->out[i]);
        if (!f) {
            return KILN_E_MEMORY;
        }
        s->facts[i] = *f;
    }
    b->state = s;
    return KILN_OK;
}

static kiln_status run_once(const kiln_call *call, const reference_state *s) {
    const kiln_node *n = s->node;
    kiln_datum *in, *out;
    KILN_ALLOC(in, call->env->arena, n->n_in + n->n_out);
    out = in + n->n_in;
    for (int32_t i = 0; i < n->n_in; i++) {
        in[i] = s->in[i];
        in[i].tensor.data = call->in[i];
    }
    for (int32_t i = 0; i < n->n_out; i++) {
        out[i] = s->out[i];
        out[i].tensor.data = call->out[i];
        memset(call->out[i], 0, out[i].tensor.cap_bytes);
    }
    kiln_ref c = {.node = n,
                  .attrs = n->attrs,
                  .n_in = n->n_in,
                  .n_out = n->n_out,
                  .in = in,
                  .out = out,
                  .facts = s->facts,
                  .arena = call->env->arena,
                  .diag = call->env->diag,
                  .limits = kiln_env_limits(call->env->arena->env),
                  .seed = call->env->seed + (uint64_t)n->id,
                  .cancelled = call->env->cancelled};
    kiln_diag_at_node(c.diag, n->name, n->op->name);
    KILN_TRY(n->op->ref(&c));
    /* An operator that made its output itself, instead of filling the one at hand. */
    for (int32_t i = 0; i < n->n_out; i++) {
        if (out[i].tensor.data != call->out[i]) {
            memcpy(call->out[i], out[i].tensor.data, kiln_tensor_bytes(&s->out[i].tensor));
        }
    }
    kiln_diag_at_node(c.diag, NULL, NULL);
    return KILN_OK;
}

void kiln_reference_run(const kiln_call *call, const kiln_team *team) {
    if (team->rank == 0) {
        call->env->status = run_once(call, call->state);
        kiln_arena_recycle(call->env->arena);
    }
}

const kiln_kernel kiln_kernel_reference = {
    .name = "reference",
    .claim = claim,
    .bind = kiln_reference_bind,
    .run = kiln_reference_run,
};
