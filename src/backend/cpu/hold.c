/* hold.c - see hold.h: values that moves connect are joined into sets (union-find), and a set is
 * held in bfloat16 as a whole or not at all. */
#include "backend/cpu/hold.h"

#include "base/diag.h"

typedef struct holder {
    const kiln_plan *plan;
    int32_t *up;    /* per value id: towards the representative of its set */
    bool *can;      /* per value, then per representative: all that make and read it can */
    bool *rounding; /* what makes it, or some reader, rounds */
} holder;

static int32_t find(holder *h, int32_t id) {
    while (h->up[id] != id) {
        h->up[id] = h->up[h->up[id]];
        id = h->up[id];
    }
    return id;
}

static void join(holder *h, int32_t a, int32_t b) {
    a = find(h, a);
    b = find(h, b);
    h->up[b] = a;
    h->can[a] = h->can[a] && h->can[b];
    h->rounding[a] = h->rounding[a] || h->rounding[b];
}

static bool is_float(const kiln_value *v) {
    return v->type.kind == KILN_KIND_TENSOR && v->type.dtype == KILN_DTYPE_F32;
}

static void see_outputs(holder *h, const kiln_claim *c) {
    for (int32_t i = 0; i < c->n_out; i++) {
        const kiln_value *v = c->out[i];
        h->can[v->id] = c->out_held[i] != KILN_HELD_FULL && is_float(v) && v->n_outputs == 0;
        h->rounding[v->id] = c->out_held[i] == KILN_HELD_ROUNDS;
    }
}

static void see_inputs(holder *h, const kiln_claim *c) {
    for (int32_t i = 0; i < c->n_in; i++) {
        const kiln_value *v = c->in[i];
        if (v) {
            h->can[v->id] = h->can[v->id] && c->in_held[i] != KILN_HELD_FULL;
            h->rounding[v->id] = h->rounding[v->id] || c->in_held[i] == KILN_HELD_ROUNDS;
        }
    }
}

/* All operands of a move that are not FULL, joined with its first output. */
static void join_operands(holder *h, const kiln_claim *c) {
    for (int32_t i = 0; i < c->n_in; i++) {
        if (c->in[i] && c->in_held[i] != KILN_HELD_FULL) {
            join(h, c->out[0]->id, c->in[i]->id);
        }
    }
    for (int32_t i = 1; i < c->n_out; i++) {
        join(h, c->out[0]->id, c->out[i]->id);
    }
}

kiln_status kiln_cpu_hold(const kiln_plan *plan, size_t n_values, bool **out, kiln_arena *arena) {
    holder h = {.plan = plan};
    KILN_ALLOC(h.up, arena, n_values);
    KILN_ALLOC(h.can, arena, n_values);
    KILN_ALLOC(h.rounding, arena, n_values);
    KILN_ALLOC(*out, arena, n_values);
    for (size_t i = 0; i < n_values; i++) {
        h.up[i] = (int32_t)i;
    }
    for (size_t i = 0; i < plan->n_claims; i++) {
        see_outputs(&h, plan->claims[i]);
    }
    for (size_t i = 0; i < plan->n_claims; i++) {
        see_inputs(&h, plan->claims[i]);
    }
    for (size_t i = 0; i < plan->n_claims; i++) {
        if (plan->claims[i]->same_held) {
            join_operands(&h, plan->claims[i]);
        }
    }
    for (size_t i = 0; i < n_values; i++) {
        const int32_t set = find(&h, (int32_t)i);
        (*out)[i] = h.can[set] && h.rounding[set];
    }
    return KILN_OK;
}
