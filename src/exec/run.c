/* run.c - working through the segments of a frame. */
#include <string.h>

#include "base/env.h"
#include "base/timer.h"
#include "exec/frame.h"

/* One segment in the hands of a team. */
typedef struct team_run {
    kiln_frame *frame;
    kiln_segment *seg;
    int32_t begin, end; /* of seg->bound */
    /* Whether to stop after step i stands in stop[i & 1]: member 0 writes it before the barrier
     * that all read it after, and writes it next two barriers later. */
    bool stop[2];
    bool profile;
} team_run;

void kiln_frame_time(kiln_frame *f, int32_t step, int64_t t_ns) {
    f->step_ns[step] += t_ns;
    f->step_runs[step]++;
    f->exec->inner_ns += t_ns;
}

static void work(void *arg, const kiln_team *team) {
    team_run *r = arg;
    kiln_exec *x = r->frame->exec;
    for (int32_t i = r->begin; i < r->end; i++) {
        const kiln_bound *bound = &r->seg->bound[i];
        int64_t start = r->profile && team->rank == 0 ? kiln_now_ns() : 0;
        bound->call.kernel->run(&bound->call, team);
        if (team->rank == 0) {
            r->stop[i & 1] = x->run_env.status != KILN_OK ||
                             atomic_load_explicit(&x->cancelled, memory_order_relaxed) != 0;
        }
        kiln_team_barrier(team);
        if (r->profile && team->rank == 0) {
            kiln_frame_time(r->frame, bound->step, kiln_now_ns() - start);
        }
        if (r->stop[i & 1]) {
            return;
        }
    }
}

static kiln_status finish(kiln_exec *x, kiln_diag *diag) {
    kiln_arena_recycle(&x->run_arena);
    if (x->run_env.status == KILN_OK && atomic_load(&x->cancelled)) {
        return kiln_fail(diag, KILN_F_RUN_CANCELLED, "the run was cancelled");
    }
    return x->run_env.status;
}

static kiln_status run_bound(kiln_frame *f, kiln_segment *seg, int32_t begin, int32_t end,
                             kiln_diag *diag) {
    kiln_exec *x = f->exec;
    team_run r = {.frame = f, .seg = seg, .begin = begin, .end = end, .profile = x->profiling};
    x->run_env.status = KILN_OK;
    x->run_env.diag = diag;
    kiln_pool_run(x->pool, x->threads, work, &r);
    return finish(x, diag);
}

/* The address of a slot the segment makes, no alias. */
static void *address(const kiln_frame *f, const kiln_segment *seg, int32_t slot) {
    const kiln_place *p = &seg->places[slot];
    return p->kind == KILN_PLACE_BUFFER ? f->buffers[seg->depth].data + p->offset : p->data;
}

/* The slot that owns the bytes of this one, as far as this segment knows. */
static int32_t owner(const kiln_segment *seg, int32_t slot) {
    while (seg->places[slot].kind == KILN_PLACE_ALIAS) {
        slot = seg->places[slot].alias_of;
    }
    return slot;
}

/* Outputs whose buffer is the user's: the slot that owns the bytes is moved there. */
static void redirect_outputs(kiln_frame *f, const kiln_segment *seg) {
    kiln_exec *x = f->exec;
    if (f != x->root) {
        return;
    }
    for (size_t i = 0; i < f->plan->graph->n_outputs; i++) {
        int32_t slot = owner(seg, f->plan->output_slots[i]);
        const kiln_place *p = &seg->places[slot];
        if (x->user_outputs[i] && p->kind == KILN_PLACE_BUFFER &&
            (size_t)p->bytes <= x->user_caps[i]) {
            f->slots[slot].tensor.data = x->user_outputs[i];
        }
    }
}

/* Dims of a slot the segment makes: once, until another segment has filled it. */
static void fill_dims(kiln_frame *f, const kiln_segment *seg, size_t i) {
    const kiln_plan *p = f->plan;
    kiln_datum *d = &f->slots[i];
    if (f->filled[i] != seg->serial) {
        const kiln_fact *fact = seg->places[i].fact;
        fact = fact ? fact : seg->facts[p->slots[i].value->id - p->graph->first_id];
        memset(d, 0, sizeof *d);
        d->kind = KILN_KIND_TENSOR;
        kiln_type_to_tensor(&fact->type, &d->tensor);
        d->tensor.dtype = kiln_slot_dtype(&p->slots[i], d->tensor.dtype);
        d->tensor.cap_bytes = kiln_tensor_bytes(&d->tensor);
        f->filled[i] = seg->serial;
    }
}

/* An alias has the address of what it stands for, or one within; another layout of the same value
 * has its dims too, whoever made it. */
static void fill_alias(kiln_frame *f, const kiln_segment *seg, size_t i) {
    const kiln_slot *slots = f->plan->slots;
    if (slots[i].alias_of >= 0 && slots[slots[i].alias_of].value == slots[i].value) {
        f->slots[i] = f->slots[slots[i].alias_of];
        f->filled[i] = 0;
    } else {
        fill_dims(f, seg, i);
    }
    size_t offset = 0;
    for (int32_t s = (int32_t)i; seg->places[s].kind == KILN_PLACE_ALIAS;
         s = seg->places[s].alias_of) {
        offset += seg->places[s].offset;
    }
    f->slots[i].tensor.data = (char *)f->slots[owner(seg, (int32_t)i)].tensor.data + offset;
}

/* Fills in dims and addresses of the slots the segment makes. */
static void fill_slots(kiln_frame *f, const kiln_segment *seg) {
    size_t n = f->plan->n_slots;
    for (size_t i = 0; i < n; i++) {
        int kind = seg->places[i].kind;
        if (kind == KILN_PLACE_BUFFER || kind == KILN_PLACE_DATA) {
            fill_dims(f, seg, i);
            f->slots[i].tensor.data = address(f, seg, (int32_t)i);
        }
    }
    redirect_outputs(f, seg);
    for (size_t i = 0; i < n; i++) {
        if (seg->places[i].kind == KILN_PLACE_ALIAS) {
            fill_alias(f, seg, i);
        }
    }
}

static void fill_calls(kiln_frame *f, kiln_segment *seg) {
    char *shared = f->exec->scratch.data;
    char *scratch = shared + seg->shared_bytes;
    for (int32_t i = 0; i < seg->n_bound; i++) {
        kiln_bound *b = &seg->bound[i];
        const kiln_step *step = &f->plan->steps[b->step];
        int32_t n_in = step->claim->n_in;
        for (int32_t k = 0; k < n_in + step->claim->n_out; k++) {
            int32_t slot = k < n_in ? step->in[k] : step->out[k - n_in];
            b->ptrs[k] = slot < 0 ? NULL : f->slots[slot].tensor.data;
        }
        b->call.shared = shared;
        b->call.scratch = scratch;
        b->call.env = &f->exec->run_env;
    }
}

/* ---- One step at a time ---- */

/* Steps apart that results may be: none where the kernel states its arithmetic; elsewhere floats
 * that are rounded to 8 bits may fall to the other side. -1: they are not compared. */
static int32_t steps_apart(const kiln_claim *claim, const kiln_tensor *t) {
    bool bytes = t->dtype == KILN_DTYPE_U8 || t->dtype == KILN_DTYPE_I8;
    return !bytes ? -1 : claim->kernel->reference ? 0 : 1;
}

static kiln_status compare(const kiln_claim *claim, const kiln_value *v, const kiln_datum *want,
                           const kiln_datum *got, kiln_diag *diag) {
    int32_t apart = steps_apart(claim, &got->tensor);
    int64_t n = apart < 0 ? 0 : kiln_tensor_count(&got->tensor);
    for (int64_t i = 0; i < n; i++) {
        int64_t a = kiln_get_i64(want->tensor.dtype, want->tensor.data, i);
        int64_t b = kiln_get_i64(got->tensor.dtype, got->tensor.data, i);
        if ((a > b ? a - b : b - a) > apart) {
            return kiln_fail(diag, KILN_F_COMPARE,
                             "region \"%s\": kernel %s gives %lld for \"%s\"[%lld], its reference "
                             "%lld",
                             claim->anchor->name, claim->kernel->name, (long long)b, v->name,
                             (long long)i, (long long)a);
        }
    }
    return KILN_OK;
}

static kiln_status run_beside(kiln_frame *f, kiln_segment *seg, int32_t at, kiln_arena *arena,
                              kiln_diag *diag) {
    const kiln_step *step = &f->plan->steps[seg->bound[at].step];
    const kiln_claim *claim = step->claim;
    kiln_datum *want;
    KILN_ALLOC(want, arena, claim->n_out);
    KILN_TRY(kiln_frame_reference(f, seg->bound[at].step, want, arena, diag));
    if (f->exec->regions == KILN_REGIONS_REFERENCE) {
        for (int32_t i = 0; i < claim->n_out; i++) {
            kiln_frame_store(f, step->out[i], &want[i]);
        }
        return KILN_OK;
    }
    KILN_TRY(run_bound(f, seg, at, at + 1, diag));
    for (int32_t i = 0; i < claim->n_out; i++) {
        kiln_datum got;
        KILN_TRY(kiln_frame_row(f, step->out[i], &got, arena));
        KILN_TRY(compare(claim, claim->out[i], &want[i], &got, diag));
    }
    return KILN_OK;
}

static bool makes_bytes(const kiln_claim *claim) {
    for (int32_t i = 0; i < claim->n_out; i++) {
        kiln_dtype d = claim->out[i]->type.dtype;
        if (d == KILN_DTYPE_U8 || d == KILN_DTYPE_I8) {
            return true;
        }
    }
    return false;
}

/* Bound step `at` by its kernel, its reference, or both. */
static kiln_status run_one(kiln_frame *f, kiln_segment *seg, int32_t at, kiln_diag *diag) {
    kiln_exec *x = f->exec;
    const kiln_step *step = &f->plan->steps[seg->bound[at].step];
    bool beside = step->claim_index >= 0 &&
                  (x->regions == KILN_REGIONS_REFERENCE ||
                   (x->regions == KILN_REGIONS_CHECKED && makes_bytes(step->claim)));
    if (!beside) {
        return run_bound(f, seg, at, at + 1, diag);
    }
    kiln_arena arena;
    kiln_arena_init(&arena, x->env);
    kiln_status status = run_beside(f, seg, at, &arena, diag);
    kiln_arena_free(&arena);
    return status;
}

/* With taps, and where references run, the same calls run one at a time, each looked at before the
 * next may reuse its inputs. */
static kiln_status run_stepwise(kiln_frame *f, kiln_segment *seg, kiln_diag *diag) {
    int32_t next = 0;
    for (int32_t s = seg->first; s < seg->end; s++) {
        for (; next < seg->n_bound && seg->bound[next].step == s; next++) {
            bool guard = seg->bound[next].call.kernel == &kiln_guard_kernel;
            if (f->exec->has_taps && !guard) {
                KILN_TRY(kiln_frame_tap(f, s, diag));
            }
            KILN_TRY(guard ? run_bound(f, seg, next, next + 1, diag) : run_one(f, seg, next, diag));
        }
        const kiln_step *step = &f->plan->steps[s];
        bool seen = f->exec->has_taps && step->claim_index >= 0;
        for (int32_t i = 0; seen && i < step->claim->n_out; i++) {
            const kiln_value *v = step->claim->out[i];
            if (f->exec->taps.wants(f->exec->taps.user, v)) {
                kiln_datum d;
                KILN_TRY(kiln_frame_row(f, step->out[i], &d, &f->late));
                KILN_TRY(f->exec->taps.see(f->exec->taps.user, v, &d, false));
            }
        }
    }
    return KILN_OK;
}

kiln_status kiln_frame_run(kiln_frame *f, const kiln_datum *inputs, kiln_diag *diag) {
    const kiln_plan *p = f->plan;
    kiln_arena_recycle(&f->late);
    f->run++;
    for (size_t i = 0; i < p->graph->n_inputs; i++) {
        f->slots[p->input_slots[i]] = inputs[i];
    }
    kiln_segment *seg = NULL;
    for (;;) {
        if (atomic_load_explicit(&f->exec->cancelled, memory_order_relaxed)) {
            return kiln_fail(diag, KILN_F_RUN_CANCELLED, "the run was cancelled");
        }
        KILN_TRY(kiln_frame_segment(f, seg, &seg, diag));
        fill_slots(f, seg);
        fill_calls(f, seg);
        if (f->exec->has_taps || f->exec->regions != KILN_REGIONS_FAST) {
            KILN_TRY(run_stepwise(f, seg, diag));
        } else if (seg->n_bound > 0) {
            KILN_TRY(run_bound(f, seg, 0, seg->n_bound, diag));
        }
        if (seg->end == (int32_t)p->n_steps) {
            break;
        }
        KILN_TRY(kiln_frame_late(f, seg->end, diag));
    }
    for (size_t i = 0; i < p->graph->n_outputs; i++) {
        f->outputs[i] = f->slots[p->output_slots[i]];
    }
    return KILN_OK;
}
