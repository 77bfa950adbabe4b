/* bind.c - from shapes to calls: infer, place (place.c), prepare. */
#include <string.h>

#include "base/env.h"
#include "exec/binding.h"

bool kiln_step_is_always_late(const kiln_plan *plan, const kiln_step *step) {
    (void)plan;
    const kiln_claim *claim = step->claim;
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        const kiln_node *n = claim->nodes[i];
        if (n->n_bodies > 0) {
            return true;
        }
        for (int32_t k = 0; k < n->n_in + n->n_out; k++) {
            const kiln_value *v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
            if (v && (v->type.kind != KILN_KIND_TENSOR || v->type.dtype == KILN_DTYPE_STRING)) {
                return true;
            }
        }
    }
    return false;
}

static kiln_fact **fact_slot(const kiln_binding *b, const kiln_value *v) {
    return &b->seg->facts[v->id - b->frame->plan->graph->first_id];
}

kiln_status kiln_binding_fact(kiln_binding *b, const kiln_value *v, kiln_fact *out) {
    memset(out, 0, sizeof *out);
    if (!v) {
        return KILN_OK;
    }
    if (v->constant) {
        *out = kiln_value_fact(v);
        if (out->data && !out->contents) {
            kiln_datum d = {.kind = KILN_KIND_TENSOR, .tensor = *out->data};
            KILN_TRY(kiln_datum_fact(&d, &b->seg->arena, out));
            out->data = kiln_value_data(v);
        }
        return KILN_OK;
    }
    const kiln_graph *g = b->frame->plan->graph;
    if (v->home == g) {
        const kiln_fact *f = *fact_slot(b, v);
        if (f) {
            *out = *f;
        }
        return KILN_OK;
    }
    for (size_t i = 0; i < g->n_captures; i++) {
        if (g->captures[i] == v) {
            const kiln_datum *d = &b->frame->slots[b->frame->plan->capture_slots[i]];
            KILN_TRY(kiln_datum_type(d, &b->seg->arena, &out->type));
        }
    }
    return KILN_OK;
}

/* Contents may hold expressions of this binding's table, which does not outlive it. */
static kiln_status forget_expressions(kiln_binding *b, kiln_fact *f) {
    bool all = true;
    for (int64_t i = 0; f->contents && i < f->n_contents; i++) {
        all = all && kiln_dim_known(f->contents[i]);
    }
    if (all) {
        return KILN_OK;
    }
    kiln_dim *known;
    KILN_ALLOC(known, &b->seg->arena, f->n_contents);
    for (int64_t i = 0; i < f->n_contents; i++) {
        known[i] = kiln_dim_known(f->contents[i]) ? f->contents[i] : KILN_DIM_UNKNOWN;
    }
    f->contents = known;
    return KILN_OK;
}

static kiln_status set_fact(kiln_binding *b, const kiln_value *v, const kiln_fact *fact) {
    kiln_fact *copy = kiln_arena_copy(&b->seg->arena, fact, sizeof *fact);
    if (!copy) {
        return KILN_E_MEMORY;
    }
    *fact_slot(b, v) = copy;
    return KILN_OK;
}

/* A datum's type alone: its values change from run to run, so nothing may be concluded from them.
 */
static kiln_status set_datum_fact(kiln_binding *b, const kiln_value *v, const kiln_datum *d) {
    kiln_fact f = {0};
    KILN_TRY(kiln_datum_type(d, &b->seg->arena, &f.type));
    return set_fact(b, v, &f);
}

static kiln_status infer_one(kiln_binding *b, const kiln_node *n) {
    kiln_fact *facts;
    KILN_ALLOC(facts, &b->scratch, n->n_in + n->n_out);
    for (int32_t k = 0; k < n->n_in; k++) {
        KILN_TRY(kiln_binding_fact(b, n->in[k], &facts[k]));
    }
    KILN_TRY(kiln_infer_concrete(n, facts, facts + n->n_in, &b->seg->arena, &b->dims,
                                 b->frame->exec->env, b->diag));
    for (int32_t k = 0; k < n->n_out; k++) {
        KILN_TRY(forget_expressions(b, &facts[n->n_in + k]));
        KILN_TRY(set_fact(b, n->out[k], &facts[n->n_in + k]));
    }
    return KILN_OK;
}

/* Infers a step's nodes. *late: some output's size is not known. */
static kiln_status infer_step(kiln_binding *b, const kiln_step *step, bool *late) {
    const kiln_claim *claim = step->claim;
    *late = kiln_step_is_always_late(b->frame->plan, step);
    for (int32_t i = 0; i < claim->n_nodes && !*late; i++) {
        const kiln_node *n = claim->nodes[i];
        KILN_TRY(infer_one(b, n));
        for (int32_t k = 0; k < n->n_out; k++) {
            *late = *late || !kiln_type_is_static(&(*fact_slot(b, n->out[k]))->type);
        }
    }
    return KILN_OK;
}

/* The tensor whose elements a fact knows, made in the segment's arena. False when it knows too
 * little. */
static bool materialize(kiln_binding *b, const kiln_fact *f, kiln_tensor *t) {
    memset(t, 0, sizeof *t);
    if (!f->contents || !kiln_type_to_tensor(&f->type, t) ||
        kiln_tensor_count(t) != f->n_contents) {
        return false;
    }
    for (int64_t i = 0; i < f->n_contents; i++) {
        if (!kiln_dim_known(f->contents[i])) {
            return false;
        }
    }
    t->cap_bytes = kiln_tensor_bytes(t);
    t->data = kiln_arena_array(&b->seg->arena, t->cap_bytes, 1);
    for (int64_t i = 0; t->data && i < f->n_contents; i++) {
        kiln_set_i64(t->dtype, t->data, i, f->contents[i]);
    }
    return t->data != NULL;
}

/* Results that follow from shapes are made now; true when that is all the step does. */
static bool fold_step(kiln_binding *b, const kiln_step *step) {
    const kiln_claim *claim = step->claim;
    if (step->claim_index < 0 || claim->n_out == 0) {
        return false;
    }
    kiln_tensor t;
    for (int32_t i = 0; i < claim->n_out; i++) {
        const kiln_fact *f = *fact_slot(b, claim->out[i]);
        const kiln_slot *slot = &b->frame->plan->slots[step->out[i]];
        if (slot->layout != KILN_LAYOUT_ROW || slot->half || !f || !materialize(b, f, &t)) {
            return false;
        }
        b->seg->places[step->out[i]] = (kiln_place){.kind = KILN_PLACE_DATA, .data = t.data};
        /* Later steps may read the elements too. */
        kiln_tensor *kept = kiln_arena_copy(&b->seg->arena, &t, sizeof t);
        if (!kept) {
            return false;
        }
        (*fact_slot(b, claim->out[i]))->data = kept;
    }
    return true;
}

static const kiln_fact *binder_fact(const kiln_binder *self, const kiln_value *v) {
    kiln_binding *b = (kiln_binding *)self->facts;
    if (v->home == b->frame->plan->graph && *fact_slot(b, v)) {
        return *fact_slot(b, v);
    }
    kiln_fact *f = kiln_arena_array(&b->scratch, 1, sizeof *f);
    return f && kiln_binding_fact(b, v, f) == KILN_OK ? f : NULL;
}

static kiln_status make_operand(kiln_binding *b, int32_t slot, kiln_operand *out) {
    memset(out, 0, sizeof *out);
    if (slot < 0) {
        return KILN_OK;
    }
    const kiln_slot *s = &b->frame->plan->slots[slot];
    kiln_fact f;
    KILN_TRY(kiln_binding_fact(b, s->value, &f));
    kiln_type_to_tensor(&f.type, &out->tensor);
    out->tensor.dtype = kiln_slot_dtype(s, out->tensor.dtype);
    out->tensor.data = f.data ? f.data->data : NULL;
    out->tensor.cap_bytes = kiln_tensor_bytes(&out->tensor);
    out->layout = s->layout;
    return KILN_OK;
}

kiln_status kiln_binding_open(kiln_binding *b, int32_t s, kiln_arena *arena, kiln_binder *out) {
    const kiln_plan *p = b->frame->plan;
    const kiln_step *step = &p->steps[s];
    const kiln_claim *claim = step->claim;
    kiln_operand *in;
    KILN_ALLOC(in, &b->scratch, claim->n_in + claim->n_out);
    for (int32_t i = 0; i < claim->n_in + claim->n_out; i++) {
        int32_t slot = i < claim->n_in ? step->in[i] : step->out[i - claim->n_in];
        KILN_TRY(make_operand(b, slot, &in[i]));
    }
    *out = (kiln_binder){.claim = claim,
                         .target = b->frame->exec->target,
                         .in = in,
                         .out = in + claim->n_in,
                         .blobs = step->claim_index < 0 ? NULL : p->blobs[step->claim_index],
                         .fact = binder_fact,
                         .facts = b,
                         .arena = arena,
                         .diag = b->diag};
    return KILN_OK;
}

kiln_status kiln_binding_call(kiln_binding *b, int32_t s, const kiln_kernel *kernel,
                              const void *state, kiln_bound **out) {
    const kiln_claim *claim = b->frame->plan->steps[s].claim;
    kiln_segment *seg = b->seg;
    if ((size_t)seg->n_bound == b->cap_bound) {
        kiln_bound *more;
        KILN_ALLOC(more, &seg->arena, 2 * b->cap_bound + 1);
        if (seg->n_bound > 0) {
            memcpy(more, seg->bound, (size_t)seg->n_bound * sizeof *more);
        }
        seg->bound = more;
        b->cap_bound = 2 * b->cap_bound + 1;
    }
    kiln_bound *bound = &seg->bound[seg->n_bound++];
    KILN_ALLOC(bound->ptrs, &seg->arena, claim->n_in + claim->n_out);
    bound->step = s;
    bound->call = (kiln_call){
        .kernel = kernel, .state = state, .in = bound->ptrs, .out = bound->ptrs + claim->n_in};
    *out = bound;
    return KILN_OK;
}

static kiln_status bind_step(kiln_binding *b, int32_t s) {
    const kiln_claim *claim = b->frame->plan->steps[s].claim;
    kiln_binder binder;
    kiln_bound *bound;
    KILN_TRY(kiln_binding_open(b, s, &b->seg->arena, &binder));
    kiln_diag_at_node(b->diag, claim->anchor ? claim->anchor->name : NULL, NULL);
    KILN_TRY(claim->kernel->bind(&binder));
    kiln_diag_at_node(b->diag, NULL, NULL);
    KILN_TRY(kiln_binding_call(b, s, claim->kernel, binder.state, &bound));
    bound->call.blobs = binder.blobs;
    bound->call.scratch_bytes = (binder.scratch_bytes + 63) & ~(size_t)63;
    bound->way = binder.way;
    bound->shared_bytes = (binder.shared_bytes + 63) & ~(size_t)63;
    kiln_segment *seg = b->seg;
    seg->scratch_bytes = bound->call.scratch_bytes > seg->scratch_bytes ? bound->call.scratch_bytes
                                                                        : seg->scratch_bytes;
    seg->shared_bytes =
        binder.shared_bytes > seg->shared_bytes ? binder.shared_bytes : seg->shared_bytes;
    return KILN_OK;
}

/* Infers from seg->first until a late step; folds what shapes decide. */
static kiln_status infer_segment(kiln_binding *b) {
    const kiln_plan *p = b->frame->plan;
    int32_t s = b->seg->first;
    for (bool late = false; s < (int32_t)p->n_steps; s++) {
        if (p->steps[s].claim_index >= 0) {
            KILN_TRY(infer_step(b, &p->steps[s], &late));
            if (late) {
                break;
            }
            b->done[s - b->seg->first] = fold_step(b, &p->steps[s]);
        }
    }
    b->seg->end = s;
    return KILN_OK;
}

static kiln_status reserve_memory(kiln_frame *frame, kiln_segment *seg, kiln_diag *diag) {
    kiln_exec *x = frame->exec;
    int32_t threads = kiln_pool_threads(x->pool);
    if (x->threads > 0 && x->threads < threads) {
        threads = x->threads;
    }
    if (x->measuring) {
        return KILN_OK;
    }
    size_t scratch, bytes;
    bool fits = kiln_align_size(seg->shared_bytes, 64, &seg->shared_bytes) &&
                kiln_mul_size(seg->scratch_bytes, (size_t)threads, &scratch) &&
                kiln_add_size(seg->shared_bytes, scratch, &scratch) &&
                kiln_add_size(seg->activation_bytes, scratch, &bytes);
    uint64_t limit = kiln_env_limits(x->env)->memory_bytes;
    if (!fits || bytes > limit) {
        return kiln_fail(diag, KILN_F_RUN_LIMIT,
                         "the run would need more than the limit of %llu bytes",
                         (unsigned long long)limit);
    }
    frame->n_depths = seg->depth < frame->n_depths ? frame->n_depths : seg->depth + 1;
    KILN_TRY(kiln_buffer_reserve(&frame->buffers[seg->depth], seg->activation_bytes, x->env));
    return kiln_buffer_reserve(&x->scratch, scratch, x->env);
}

static kiln_status bind_all(kiln_binding *b) {
    const kiln_plan *p = b->frame->plan;
    size_t n_steps = p->n_steps - (size_t)b->seg->first;
    KILN_ALLOC(b->done, &b->scratch, n_steps);
    KILN_ALLOC(b->seg->places, &b->seg->arena, p->n_slots);
    KILN_ALLOC(b->seg->bound, &b->seg->arena, n_steps);
    b->cap_bound = n_steps;
    KILN_TRY(infer_segment(b));
    KILN_TRY(kiln_binding_place(b));
    for (int32_t s = b->seg->first; s < b->seg->end; s++) {
        KILN_TRY(kiln_binding_guard(b, s));
        if (!b->done[s - b->seg->first] && !p->steps[s].claim->alias) {
            KILN_TRY(bind_step(b, s));
        }
    }
    return reserve_memory(b->frame, b->seg, b->diag);
}

/* Facts a new segment starts from: its parent's, and those of what just came to be. */
static kiln_status start_facts(kiln_binding *b, const kiln_segment *parent) {
    kiln_frame *f = b->frame;
    const kiln_graph *g = f->plan->graph;
    size_t n = (size_t)(g->end_id - g->first_id);
    KILN_ALLOC(b->seg->facts, &b->seg->arena, n);
    if (!parent) {
        for (size_t i = 0; i < g->n_inputs; i++) {
            KILN_TRY(set_datum_fact(b, g->inputs[i], &f->slots[f->plan->input_slots[i]]));
        }
        return KILN_OK;
    }
    memcpy(b->seg->facts, parent->facts, n * sizeof(kiln_fact *));
    const kiln_step *late = &f->plan->steps[parent->end];
    for (int32_t i = 0; i < late->claim->n_out; i++) {
        kiln_datum made = f->slots[late->out[i]];
        made.tensor.dtype = f->plan->slots[late->out[i]].half ? KILN_DTYPE_F32 : made.tensor.dtype;
        KILN_TRY(set_datum_fact(b, late->claim->out[i], &made));
    }
    return KILN_OK;
}

kiln_status kiln_segment_bind(kiln_frame *frame, kiln_segment *seg, kiln_diag *diag) {
    kiln_binding b = {.frame = frame, .seg = seg, .diag = diag};
    kiln_arena_init(&b.scratch, frame->exec->env);
    kiln_dims_init(&b.dims, &b.scratch);
    kiln_status status = start_facts(&b, seg->parent);
    status = status ? status : bind_all(&b);
    status = status == KILN_OK && b.dims.oom ? KILN_E_MEMORY : status;
    kiln_arena_free(&b.scratch);
    return status;
}
