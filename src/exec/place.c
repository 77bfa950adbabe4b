/* place.c - where each slot's bytes are: buffers, aliases, and parts of one another.
 *
 * First the steps are walked in order. Each output gets a buffer, or is an alias where the claim
 * says so; the walk notes from when to when a buffer is needed. A step that only moves bytes about
 * may find that they need not move at this shape (kiln_kernel.parts): what Split and Slice give
 * becomes parts of what they read, and what Concat reads is written into its output from the
 * start. A buffer that holds parts lives from the first to the last use of any of them. Graph
 * outputs stay whole, so that they can be the caller's buffers.
 *
 * Then outputs take over the buffers of inputs that die, and the buffers are laid out. */
#include <string.h>

#include "exec/binding.h"

static int32_t root_slot(const kiln_binding *b, int32_t slot) {
    const kiln_slot *slots = b->frame->plan->slots;
    for (;;) {
        if (b->seg->places[slot].kind == KILN_PLACE_ALIAS) {
            slot = b->seg->places[slot].alias_of;
        } else if (b->seg->places[slot].kind == KILN_PLACE_NONE && slots[slot].alias_of >= 0) {
            slot = slots[slot].alias_of;
        } else {
            return slot;
        }
    }
}

static void touch(kiln_binding *b, int32_t slot, int32_t step) {
    kiln_lifetime *life = &b->uses[root_slot(b, slot)].life;
    life->last = step > life->last ? step : life->last;
}

/* Slots that steps at or after `end`, bodies or the outputs read must live through the segment. */
static void touch_rest(kiln_binding *b) {
    const kiln_plan *p = b->frame->plan;
    for (size_t s = (size_t)b->seg->end; s < p->n_steps; s++) {
        for (int32_t i = 0; i < p->steps[s].claim->n_in; i++) {
            if (p->steps[s].in[i] >= 0) {
                touch(b, p->steps[s].in[i], b->seg->end);
            }
        }
    }
    for (size_t i = 0; i < p->graph->n_outputs; i++) {
        touch(b, p->output_slots[i], b->seg->end);
    }
}

/* Size of the buffer that a slot needs. A constant or a capture in another layout has no fact among
 * the segment's: the place keeps it. */
static kiln_status size_buffer(kiln_binding *b, int32_t slot, size_t *bytes) {
    const kiln_slot *s = &b->frame->plan->slots[slot];
    const kiln_value *v = s->value;
    kiln_place *place = &b->seg->places[slot];
    kiln_fact f;
    kiln_tensor t = {0};
    KILN_TRY(kiln_binding_fact(b, v, &f));
    if (!kiln_type_to_tensor(&f.type, &t)) {
        return kiln_fail(b->diag, KILN_F_INTERNAL, "value \"%s\" has no size at binding", v->name);
    }
    t.dtype = kiln_slot_dtype(s, t.dtype);
    *place = (kiln_place){.kind = KILN_PLACE_BUFFER};
    *bytes = kiln_tensor_bytes(&t);
    if (v->constant || v->home != b->frame->plan->graph) {
        place->fact = kiln_arena_copy(&b->seg->arena, &f, sizeof f);
        return place->fact ? KILN_OK : KILN_E_MEMORY;
    }
    return KILN_OK;
}

/* ---- Parts ---- */

/* A buffer that need not be: its bytes are those of another, or a part of them. What is known of
 * its dims stays. */
static void make_alias(kiln_binding *b, int32_t slot, int32_t of) {
    const kiln_fact *fact = b->seg->places[slot].fact;
    b->seg->places[slot] = (kiln_place){.kind = KILN_PLACE_ALIAS, .alias_of = of, .fact = fact};
}

static void make_part(kiln_binding *b, int32_t slot, int32_t of, int64_t at) {
    make_alias(b, slot, of);
    b->seg->places[slot].is_part = true;
    b->seg->places[slot].offset = (size_t)at;
}

/* The buffer that has just the bytes of this slot, or -1: they are a part already, come from
 * outside the segment, or have to stay whole. */
static int32_t whole_buffer(const kiln_binding *b, int32_t slot) {
    const kiln_slot *slots = b->frame->plan->slots;
    const kiln_place *places = b->seg->places;
    while (slot >= 0 && places[slot].kind != KILN_PLACE_BUFFER) {
        bool whole = places[slot].kind == KILN_PLACE_ALIAS && !places[slot].is_part;
        slot = whole                                  ? places[slot].alias_of
               : places[slot].kind == KILN_PLACE_NONE ? slots[slot].alias_of
                                                      : -1;
    }
    return slot >= 0 && !b->uses[slot].is_output ? slot : -1;
}

/* What the slot holds is made within output `of` from the start. */
static bool make_within(kiln_binding *b, int32_t slot, int32_t of, int64_t at) {
    int32_t from = slot >= 0 ? whole_buffer(b, slot) : -1;
    if (from < 0 || from == of) {
        return false;
    }
    const kiln_lifetime *in = &b->uses[from].life;
    kiln_lifetime *out = &b->uses[of].life;
    out->first = in->first < out->first ? in->first : out->first;
    out->last = in->last > out->last ? in->last : out->last;
    make_part(b, from, of, at);
    return true;
}

/* What the step gives lies within its input `of`. */
static bool give_within(kiln_binding *b, int32_t slot, int32_t of, int64_t at) {
    if (of < 0 || b->seg->places[slot].kind != KILN_PLACE_BUFFER || b->uses[slot].is_output) {
        return false;
    }
    make_part(b, slot, of, at);
    return true;
}

/* Asks the step's kernel what need not move. */
static kiln_status place_parts(kiln_binding *b, int32_t s) {
    const kiln_step *step = &b->frame->plan->steps[s];
    const kiln_claim *claim = step->claim;
    kiln_binder binder;
    kiln_parts parts = {.of_output = false};
    if (!claim->kernel->parts) {
        return KILN_OK;
    }
    int32_t most = claim->n_in > claim->n_out ? claim->n_in : claim->n_out;
    KILN_ALLOC(parts.at, &b->scratch, most);
    memset(parts.at, -1, (size_t)most * sizeof *parts.at);
    KILN_TRY(kiln_binding_open(b, s, &b->scratch, &binder));
    KILN_TRY(claim->kernel->parts(&binder, &parts));
    int32_t n = parts.of_output ? claim->n_in : claim->n_out;
    bool all = n > 0;
    for (int32_t i = 0; i < n; i++) {
        int64_t at = parts.at[i];
        bool placed = at >= 0 && (parts.of_output ? make_within(b, step->in[i], step->out[0], at)
                                                  : give_within(b, step->out[i], step->in[0], at));
        all = all && placed;
    }
    b->done[s - b->seg->first] = all;
    return KILN_OK;
}

/* ---- Lifetimes ---- */

/* Slots that graph outputs lie in. */
static void mark_outputs(kiln_binding *b) {
    const kiln_plan *p = b->frame->plan;
    for (size_t i = 0; i < p->graph->n_outputs; i++) {
        for (int32_t s = p->output_slots[i]; s >= 0; s = p->slots[s].alias_of) {
            b->uses[s].is_output = true;
        }
    }
}

static kiln_status place_step(kiln_binding *b, int32_t s) {
    const kiln_plan *p = b->frame->plan;
    const kiln_step *step = &p->steps[s];
    for (int32_t i = 0; i < step->claim->n_in; i++) {
        if (step->in[i] >= 0) {
            touch(b, step->in[i], s);
        }
    }
    for (int32_t i = 0; i < step->claim->n_out; i++) {
        int32_t slot = step->out[i];
        kiln_place *place = &b->seg->places[slot];
        if (p->slots[slot].alias_of >= 0) {
            *place = (kiln_place){.kind = KILN_PLACE_ALIAS, .alias_of = p->slots[slot].alias_of};
        } else {
            kiln_lifetime *life = &b->uses[slot].life;
            life->first = life->last = s;
            KILN_TRY(size_buffer(b, slot, &life->bytes));
        }
    }
    return place_parts(b, s);
}

/* First sweep: which slots the segment makes, and until when each is needed. */
static kiln_status find_lifetimes(kiln_binding *b) {
    for (int32_t s = b->seg->first; s < b->seg->end; s++) {
        if (!b->done[s - b->seg->first]) {
            KILN_TRY(place_step(b, s));
        }
    }
    touch_rest(b);
    return KILN_OK;
}

/* Slots that are another layout of the same bytes have no step that makes them. */
static void place_relabels(kiln_binding *b) {
    const kiln_plan *p = b->frame->plan;
    for (size_t i = 0; i < p->n_slots; i++) {
        int32_t from = p->slots[i].alias_of;
        if (from >= 0 && p->slots[from].value == p->slots[i].value &&
            b->seg->places[i].kind == KILN_PLACE_NONE) {
            b->seg->places[i] = (kiln_place){.kind = KILN_PLACE_ALIAS, .alias_of = from};
        }
    }
}

/* Second sweep: an output takes over the buffer of an input that dies at this step. */
static void take_over(kiln_binding *b) {
    const kiln_plan *p = b->frame->plan;
    for (int32_t s = b->seg->first; s < b->seg->end; s++) {
        const kiln_step *step = &p->steps[s];
        int32_t i = step->claim->in_place;
        if (b->done[s - b->seg->first] || i < 0 || i >= step->claim->n_in || step->in[i] < 0) {
            continue;
        }
        int32_t from = root_slot(b, step->in[i]), to = step->out[0];
        kiln_slot_use *in = &b->uses[from], *out = &b->uses[to];
        if (b->seg->places[from].kind != KILN_PLACE_BUFFER ||
            b->seg->places[to].kind != KILN_PLACE_BUFFER || in->life.last != s ||
            in->life.bytes != out->life.bytes) {
            continue;
        }
        bool once = true;
        for (int32_t k = 0; k < step->claim->n_in; k++) {
            once = once && (k == i || step->in[k] < 0 || root_slot(b, step->in[k]) != from);
        }
        if (once) {
            in->life.last = out->life.last;
            make_alias(b, to, from);
        }
    }
}

static kiln_status place_buffers(kiln_binding *b) {
    const kiln_plan *p = b->frame->plan;
    kiln_lifetime *items;
    int32_t *owner;
    size_t n = 0;
    KILN_ALLOC(items, &b->scratch, p->n_slots);
    KILN_ALLOC(owner, &b->scratch, p->n_slots);
    for (size_t i = 0; i < p->n_slots; i++) {
        if (b->seg->places[i].kind == KILN_PLACE_BUFFER) {
            items[n] = b->uses[i].life;
            owner[n++] = (int32_t)i;
        }
    }
    KILN_TRY(kiln_plan_memory(&b->seg->activation_bytes, items, n, &b->scratch));
    for (size_t i = 0; i < n; i++) {
        b->seg->places[owner[i]].offset = items[i].offset;
        b->seg->places[owner[i]].bytes = (int64_t)items[i].bytes;
    }
    return KILN_OK;
}

kiln_status kiln_binding_place(kiln_binding *b) {
    KILN_ALLOC(b->uses, &b->scratch, b->frame->plan->n_slots);
    mark_outputs(b);
    KILN_TRY(find_lifetimes(b));
    place_relabels(b);
    take_over(b);
    return place_buffers(b);
}
