/* late.c - steps that only the data can size, run by the reference or a kernel that knows how;
 * references of other steps; and replays for taps. */
#include <string.h>

#include "base/half.h"
#include "base/timer.h"
#include "exec/frame.h"

/* The elements of a value are in ONNX's order and type, and as the slot holds them. */
static bool is_plain(const kiln_slot *slot) {
    return slot->layout == KILN_LAYOUT_ROW && !slot->half;
}

static void copy_element(kiln_dtype to, void *dst, int64_t i, kiln_dtype from, const void *src,
                         int64_t k) {
    if (to == from) {
        kiln_copy_elements(to, dst, i, src, k, 1);
    } else if (to == KILN_DTYPE_BF16) {
        ((uint16_t *)dst)[i] = kiln_f32_to_bf16(((const float *)src)[k]);
    } else {
        ((float *)dst)[i] = kiln_bf16_to_f32(((const uint16_t *)src)[k]);
    }
}

/* Copies all elements of a tensor of `dtype` out of the slot, or into it. */
static void convert(const kiln_tensor *t, const kiln_slot *slot, kiln_dtype dtype, const void *src,
                    void *dst, bool into) {
    const kiln_dtype held = kiln_slot_dtype(slot, dtype);
    const kiln_dtype to = into ? held : dtype, from = into ? dtype : held;
    const bool last = slot->layout == KILN_LAYOUT_LAST;
    const int64_t n = last ? t->dims[0] : 1, c = last ? t->dims[1] : 1;
    int64_t inner = last ? 1 : kiln_tensor_count(t);
    for (int32_t d = 2; last && d < t->rank; d++) {
        inner *= t->dims[d];
    }
    for (int64_t b = 0; b < n; b++) {
        for (int64_t k = 0; k < c; k++) {
            for (int64_t s = 0; s < inner; s++) {
                int64_t row = (b * c + k) * inner + s, at = (b * inner + s) * c + k;
                copy_element(to, dst, into ? at : row, from, src, into ? row : at);
            }
        }
    }
}

kiln_status kiln_frame_row(kiln_frame *f, int32_t slot, kiln_datum *out, kiln_arena *arena) {
    const kiln_slot *s = &f->plan->slots[slot];
    *out = f->slots[slot];
    if (is_plain(s) || out->kind != KILN_KIND_TENSOR) {
        return KILN_OK;
    }
    kiln_tensor *t = &out->tensor;
    t->dtype = s->value->type.dtype;
    t->cap_bytes = kiln_tensor_bytes(t);
    void *row = kiln_arena_raw(arena, t->cap_bytes);
    if (!row) {
        return KILN_E_MEMORY;
    }
    convert(t, s, t->dtype, t->data, row, false);
    t->data = row;
    return KILN_OK;
}

/* Values of a region while it is run node by node. */
typedef struct region {
    kiln_frame *frame;
    const kiln_step *step;
    kiln_datum *known; /* parallel to values */
    const kiln_value **values;
    size_t n, cap;
    kiln_arena *arena;
} region;

static kiln_status know(region *r, const kiln_value *v, const kiln_datum *d) {
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 16;
        kiln_datum *known = kiln_arena_array(r->arena, cap, sizeof *known);
        const kiln_value **values = kiln_arena_array(r->arena, cap, sizeof *values);
        if (!known || !values) {
            return KILN_E_MEMORY;
        }
        if (r->n > 0) {
            memcpy(known, r->known, r->n * sizeof *known);
            memcpy(values, r->values, r->n * sizeof *values);
        }
        r->known = known;
        r->values = values;
        r->cap = cap;
    }
    r->values[r->n] = v;
    r->known[r->n++] = *d;
    return KILN_OK;
}

static kiln_status find(region *r, const kiln_value *v, kiln_datum *out, kiln_diag *diag) {
    memset(out, 0, sizeof *out);
    if (!v) {
        return KILN_OK;
    }
    for (size_t i = r->n; i-- > 0;) {
        if (r->values[i] == v) {
            *out = r->known[i];
            return KILN_OK;
        }
    }
    if (v->constant) {
        out->kind = KILN_KIND_TENSOR;
        return kiln_const_eval(v, &out->tensor, r->arena, diag);
    }
    return kiln_fail(diag, KILN_F_INTERNAL, "value \"%s\" is not at hand for the reference",
                     v->name);
}

/* Bodies run on frames of their own; what they give is copied, since the frame will be run again.
 */
static kiln_status copy_datum(kiln_datum *d, kiln_arena *arena) {
    if (d->kind == KILN_KIND_TENSOR) {
        d->tensor.cap_bytes = kiln_tensor_bytes(&d->tensor);
        d->tensor.data = kiln_arena_copy(arena, d->tensor.data, d->tensor.cap_bytes);
        return d->tensor.data ? KILN_OK : KILN_E_MEMORY;
    }
    if (d->n_items > 0) {
        d->items = kiln_arena_copy(arena, d->items, (size_t)d->n_items * sizeof *d->items);
        if (!d->items) {
            return KILN_E_MEMORY;
        }
        for (int64_t i = 0; i < d->n_items; i++) {
            KILN_TRY(copy_datum(&d->items[i], arena));
        }
    }
    return KILN_OK;
}

/* Captures of a body come from the frame around it: from its own slots, whatever made them. */
static kiln_status pass_captures(region *r, kiln_frame *body, kiln_diag *diag) {
    const kiln_graph *g = body->plan->graph;
    for (size_t i = 0; i < g->n_captures; i++) {
        KILN_TRY(find(r, g->captures[i], &body->slots[body->plan->capture_slots[i]], diag));
    }
    return KILN_OK;
}

static kiln_status run_body(kiln_ref *self, const kiln_graph *graph, const kiln_datum *inputs,
                            int32_t n_inputs, kiln_datum *outputs) {
    region *r = self->driver;
    kiln_frame *f = r->frame, *body = NULL;
    for (size_t i = 0; i < f->plan->n_bodies; i++) {
        body = f->plan->body_graphs[i] == graph ? f->bodies[i] : body;
    }
    if (!body || (size_t)n_inputs != graph->n_inputs) {
        return kiln_fail(self->diag, KILN_F_ARITY,
                         "body \"%s\" takes %zu inputs, the operator gives %d", graph->name,
                         graph->n_inputs, n_inputs);
    }
    KILN_TRY(pass_captures(r, body, self->diag));
    KILN_TRY(kiln_frame_run(body, inputs, self->diag));
    for (size_t i = 0; i < graph->n_outputs; i++) {
        outputs[i] = body->outputs[i];
        KILN_TRY(copy_datum(&outputs[i], self->arena));
    }
    return KILN_OK;
}

/* A kernel of its own for a step that the data sizes. */
typedef struct late_kernel {
    const kiln_kernel *kernel;
    kiln_late by;
} late_kernel;

static kiln_status run_late(kiln_ref *c) {
    const late_kernel *k = c->driver;
    return k->kernel->late(c, &k->by);
}

/* by_kernel: where it has one; taps and comparisons ask for references. */
static kiln_status run_node(region *r, const kiln_node *n, bool by_kernel, kiln_diag *diag) {
    kiln_datum *in;
    KILN_ALLOC(in, r->arena, n->n_in + n->n_out);
    for (int32_t k = 0; k < n->n_in; k++) {
        KILN_TRY(find(r, n->in[k], &in[k], diag));
    }
    kiln_hooks hooks = {.body = run_body,
                        .driver = r,
                        .seed = r->frame->exec->seed + (uint64_t)n->id,
                        .cancelled = &r->frame->exec->cancelled};
    const kiln_exec *x = r->frame->exec;
    late_kernel late = {r->step->claim->kernel, {x->target, x->pool, x->threads}};
    if (by_kernel && late.kernel->late && x->regions != KILN_REGIONS_REFERENCE) {
        hooks.instead = run_late;
        hooks.driver = &late;
    }
    KILN_TRY(kiln_eval_node(n, in, in + n->n_in, &hooks, r->arena, diag));
    for (int32_t k = 0; k < n->n_out; k++) {
        KILN_TRY(know(r, n->out[k], &in[n->n_in + k]));
    }
    return KILN_OK;
}

static kiln_status start(region *r, kiln_frame *f, int32_t s, kiln_arena *arena) {
    *r = (region){.frame = f, .step = &f->plan->steps[s], .arena = arena};
    for (int32_t i = 0; i < r->step->claim->n_in; i++) {
        if (r->step->in[i] >= 0) {
            kiln_datum d;
            KILN_TRY(kiln_frame_row(f, r->step->in[i], &d, arena));
            KILN_TRY(know(r, r->step->claim->in[i], &d));
        }
    }
    return KILN_OK;
}

/* Puts a value of the region into its slot, in the slot's layout. */
static kiln_status put(region *r, int32_t slot, const kiln_datum *d, kiln_diag *diag) {
    kiln_frame *f = r->frame;
    const kiln_value *v = f->plan->slots[slot].value;
    if (v->type.kind == KILN_KIND_TENSOR && v->type.rank >= 0 && d->kind == KILN_KIND_TENSOR &&
        d->tensor.rank != v->type.rank) {
        return kiln_fail(diag, KILN_F_INTERNAL, "value \"%s\" has rank %d, was inferred to have %d",
                         v->name, d->tensor.rank, v->type.rank);
    }
    f->slots[slot] = *d;
    f->filled[slot] = 0;
    const kiln_slot *s = &f->plan->slots[slot];
    if (is_plain(s)) {
        return KILN_OK;
    }
    kiln_tensor *t = &f->slots[slot].tensor;
    t->dtype = kiln_slot_dtype(s, t->dtype);
    t->cap_bytes = kiln_tensor_bytes(t);
    t->data = kiln_arena_raw(r->arena, t->cap_bytes);
    if (!t->data) {
        return KILN_E_MEMORY;
    }
    convert(t, s, d->tensor.dtype, d->tensor.data, t->data, true);
    return KILN_OK;
}

static kiln_status see(kiln_frame *f, const kiln_value *v, const kiln_datum *d, bool replayed) {
    kiln_exec *x = f->exec;
    if (!x->has_taps || !x->taps.wants(x->taps.user, v)) {
        return KILN_OK;
    }
    return x->taps.see(x->taps.user, v, d, replayed);
}

static kiln_status run_step(kiln_frame *f, int32_t s, kiln_diag *diag) {
    region r;
    KILN_TRY(start(&r, f, s, &f->late));
    const kiln_claim *claim = r.step->claim;
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        KILN_TRY(run_node(&r, claim->nodes[i], true, diag));
    }
    for (int32_t i = 0; i < claim->n_out; i++) {
        kiln_datum d;
        KILN_TRY(find(&r, claim->out[i], &d, diag));
        KILN_TRY(put(&r, r.step->out[i], &d, diag));
        KILN_TRY(see(f, claim->out[i], &d, false));
    }
    return KILN_OK;
}

kiln_status kiln_frame_late(kiln_frame *f, int32_t s, kiln_diag *diag) {
    kiln_exec *x = f->exec;
    if (!x->profiling) {
        return run_step(f, s, diag);
    }
    int64_t outer_ns = x->inner_ns, start_ns = kiln_now_ns();
    x->inner_ns = 0;
    kiln_status status = run_step(f, s, diag);
    int64_t t_ns = kiln_now_ns() - start_ns, own_ns = t_ns - x->inner_ns;
    kiln_frame_time(f, s, own_ns);
    x->inner_ns = outer_ns + t_ns;
    return status;
}

void kiln_frame_store(kiln_frame *f, int32_t slot, const kiln_datum *row) {
    void *to = f->slots[slot].tensor.data;
    const kiln_slot *s = &f->plan->slots[slot];
    if (is_plain(s)) {
        memcpy(to, row->tensor.data, kiln_tensor_bytes(&row->tensor));
    } else {
        convert(&row->tensor, s, row->tensor.dtype, row->tensor.data, to, true);
    }
}

/* By the arithmetic that the kernel states. */
static kiln_status eval_stated(region *r, kiln_datum *out, kiln_diag *diag) {
    const kiln_claim *claim = r->step->claim;
    kiln_datum *in;
    KILN_ALLOC(in, r->arena, claim->n_in + 1);
    for (int32_t i = 0; i < claim->n_in; i++) {
        const kiln_value *v = claim->in[i];
        if (v && !v->constant) {
            KILN_TRY(find(r, v, &in[i], diag));
        }
    }
    return claim->kernel->reference(claim, in, out, r->arena, diag);
}

kiln_status kiln_frame_reference(kiln_frame *f, int32_t s, kiln_datum *out, kiln_arena *arena,
                                 kiln_diag *diag) {
    region r;
    KILN_TRY(start(&r, f, s, arena));
    const kiln_claim *claim = r.step->claim;
    if (claim->kernel->reference) {
        return eval_stated(&r, out, diag);
    }
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        KILN_TRY(run_node(&r, claim->nodes[i], false, diag));
    }
    for (int32_t i = 0; i < claim->n_out; i++) {
        KILN_TRY(find(&r, claim->out[i], &out[i], diag));
    }
    return KILN_OK;
}

static bool is_output(const kiln_claim *claim, const kiln_value *v) {
    for (int32_t i = 0; i < claim->n_out; i++) {
        if (claim->out[i] == v) {
            return true;
        }
    }
    return false;
}

static bool taps_inside(const kiln_frame *f, const kiln_claim *claim) {
    const kiln_taps *taps = &f->exec->taps;
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        for (int32_t k = 0; k < claim->nodes[i]->n_out; k++) {
            const kiln_value *v = claim->nodes[i]->out[k];
            if (!is_output(claim, v) && taps->wants(taps->user, v)) {
                return true;
            }
        }
    }
    return false;
}

kiln_status kiln_frame_tap(kiln_frame *f, int32_t s, kiln_diag *diag) {
    const kiln_claim *claim = f->plan->steps[s].claim;
    if (f->plan->steps[s].claim_index < 0 || !taps_inside(f, claim)) {
        return KILN_OK;
    }
    kiln_arena arena;
    kiln_arena_init(&arena, f->exec->env);
    region r;
    kiln_status status = start(&r, f, s, &arena);
    for (int32_t i = 0; i < claim->n_nodes && status == KILN_OK; i++) {
        const kiln_node *n = claim->nodes[i];
        status = run_node(&r, n, false, diag);
        for (int32_t k = 0; k < n->n_out && status == KILN_OK; k++) {
            if (!is_output(claim, n->out[k])) {
                status = see(f, n->out[k], &r.known[r.n - (size_t)n->n_out + (size_t)k], true);
            }
        }
    }
    kiln_arena_free(&arena);
    return status;
}
