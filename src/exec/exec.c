#include "exec/exec.h"

#include <string.h>

#include "base/env.h"
#include "base/timer.h"
#include "exec/frame.h"

kiln_status kiln_buffer_reserve(kiln_buffer *buffer, size_t bytes, const kiln_env *env) {
    if (bytes <= buffer->bytes && buffer->data) {
        return KILN_OK;
    }
    bytes = bytes < 64 ? 64 : bytes;
    char *data = kiln_env_alloc(env, bytes);
    if (!data) {
        return KILN_E_MEMORY;
    }
    kiln_env_release(env, buffer->data, buffer->bytes);
    buffer->data = data;
    buffer->bytes = bytes;
    return KILN_OK;
}

/* Constants get their addresses once, expressions among them their values. */
static kiln_status fill_constants(kiln_frame *f, kiln_diag *diag) {
    for (size_t i = 0; i < f->plan->n_slots; i++) {
        const kiln_slot *slot = &f->plan->slots[i];
        if (slot->value->constant && slot->layout == KILN_LAYOUT_ROW) {
            f->slots[i].kind = KILN_KIND_TENSOR;
            KILN_TRY(kiln_const_eval(slot->value, &f->slots[i].tensor, &f->arena, diag));
        }
    }
    return KILN_OK;
}

static kiln_status fill_frame(kiln_frame *f, kiln_diag *diag) {
    const kiln_plan *p = f->plan;
    KILN_ALLOC(f->slots, &f->arena, p->n_slots);
    KILN_ALLOC(f->filled, &f->arena, p->n_slots);
    KILN_ALLOC(f->buffers, &f->arena, p->n_steps + 1);
    KILN_ALLOC(f->outputs, &f->arena, p->graph->n_outputs);
    KILN_ALLOC(f->bodies, &f->arena, p->n_bodies);
    KILN_ALLOC(f->step_ns, &f->arena, p->n_steps);
    KILN_ALLOC(f->step_runs, &f->arena, p->n_steps);
    KILN_TRY(fill_constants(f, diag));
    for (size_t i = 0; i < p->n_bodies; i++) {
        KILN_TRY(kiln_frame_create(&f->bodies[i], f->exec, p->bodies[i], diag));
    }
    return KILN_OK;
}

kiln_status kiln_frame_create(kiln_frame **out, kiln_exec *exec, const kiln_plan *plan,
                              kiln_diag *diag) {
    kiln_frame *f = kiln_env_alloc(exec->env, sizeof *f);
    if (!f) {
        return KILN_E_MEMORY;
    }
    memset(f, 0, sizeof *f);
    f->exec = exec;
    f->plan = plan;
    kiln_arena_init(&f->arena, exec->env);
    kiln_arena_init(&f->late, exec->env);
    kiln_status status = fill_frame(f, diag);
    if (status != KILN_OK) {
        kiln_frame_destroy(f);
        return status;
    }
    *out = f;
    return KILN_OK;
}

void kiln_frame_destroy(kiln_frame *f) {
    if (!f) {
        return;
    }
    const kiln_env *env = f->exec->env;
    for (size_t i = 0; f->bodies && i < f->plan->n_bodies; i++) {
        kiln_frame_destroy(f->bodies[i]);
    }
    kiln_frame_forget(f);
    for (int32_t i = 0; i < f->n_depths; i++) {
        kiln_env_release(env, f->buffers[i].data, f->buffers[i].bytes);
    }
    kiln_arena_free(&f->late);
    kiln_arena_free(&f->arena);
    kiln_env_release(env, f, sizeof *f);
}

static kiln_status fill_exec(kiln_exec *x, const kiln_plan *plan, kiln_diag *diag) {
    size_t n = plan->graph->n_outputs;
    KILN_ALLOC(x->user_outputs, &x->arena, n);
    KILN_ALLOC(x->user_caps, &x->arena, n);
    return kiln_frame_create(&x->root, x, plan, diag);
}

kiln_status kiln_exec_create(kiln_exec **out, const kiln_plan *plan, const kiln_cpu_target *target,
                             const kiln_exec_options *options, kiln_diag *diag) {
    kiln_exec *x = kiln_env_alloc(options->env, sizeof *x);
    if (!x) {
        return KILN_E_MEMORY;
    }
    memset(x, 0, sizeof *x);
    x->env = options->env;
    x->target = target;
    x->pool = options->pool;
    x->threads = options->threads;
    x->seed = options->seed;
    x->regions = options->regions;
    x->measuring = options->measuring;
    kiln_arena_init(&x->arena, x->env);
    kiln_arena_init(&x->run_arena, x->env);
    x->run_env.arena = &x->run_arena;
    x->run_env.seed = options->seed;
    x->run_env.cancelled = &x->cancelled;
    kiln_status status = fill_exec(x, plan, diag);
    if (status != KILN_OK) {
        kiln_exec_destroy(x);
        return status;
    }
    *out = x;
    return KILN_OK;
}

void kiln_exec_destroy(kiln_exec *exec) {
    if (!exec) {
        return;
    }
    const kiln_env *env = exec->env;
    kiln_frame_destroy(exec->root);
    kiln_env_release(env, exec->scratch.data, exec->scratch.bytes);
    kiln_arena_free(&exec->run_arena);
    kiln_arena_free(&exec->arena);
    kiln_env_release(env, exec, sizeof *exec);
}

kiln_status kiln_exec_run(kiln_exec *exec, const kiln_datum *inputs, kiln_diag *diag) {
    /* Late steps work outside of the team, in the same mode. */
    unsigned mode = kiln_float_mode_enter();
    int64_t start_ns = exec->profiling ? kiln_now_ns() : 0;
    kiln_status status = kiln_frame_run(exec->root, inputs, diag);
    if (exec->profiling) {
        exec->run_ns += kiln_now_ns() - start_ns;
        exec->runs++;
    }
    kiln_float_mode_leave(mode);
    return status;
}

const kiln_datum *kiln_exec_output(const kiln_exec *exec, int32_t i) {
    return &exec->root->outputs[i];
}

void kiln_exec_set_output(kiln_exec *exec, int32_t i, void *buffer, size_t cap_bytes) {
    exec->user_outputs[i] = buffer;
    exec->user_caps[i] = cap_bytes;
}

void *kiln_exec_user_output(const kiln_exec *exec, int32_t i, size_t *cap_bytes) {
    *cap_bytes = exec->user_caps[i];
    return exec->user_outputs[i];
}

kiln_status kiln_exec_bind(kiln_exec *exec, const kiln_datum *inputs, kiln_diag *diag) {
    kiln_frame *f = exec->root;
    f->run++;
    for (size_t i = 0; i < f->plan->graph->n_inputs; i++) {
        f->slots[f->plan->input_slots[i]] = inputs[i];
    }
    kiln_segment *seg;
    return kiln_frame_segment(f, NULL, &seg, diag);
}

void kiln_exec_allow(kiln_exec *exec) {
    atomic_store(&exec->cancelled, 0);
}

void kiln_exec_cancel(kiln_exec *exec) {
    atomic_store(&exec->cancelled, 1);
}

void kiln_exec_set_taps(kiln_exec *exec, const kiln_taps *taps) {
    exec->has_taps = taps != NULL;
    if (taps) {
        exec->taps = *taps;
    }
}

/* ---- Profile ---- */

static void forget_times(kiln_frame *f) {
    if (f->plan->n_steps > 0) {
        memset(f->step_ns, 0, f->plan->n_steps * sizeof *f->step_ns);
        memset(f->step_runs, 0, f->plan->n_steps * sizeof *f->step_runs);
    }
    for (size_t i = 0; i < f->plan->n_bodies; i++) {
        forget_times(f->bodies[i]);
    }
}

void kiln_exec_set_profile(kiln_exec *exec, bool on) {
    exec->profiling = on;
    if (on) {
        exec->run_ns = exec->runs = 0;
        forget_times(exec->root);
    }
}

static bool read_times(const kiln_frame *f, size_t step, int64_t *t_ns, int64_t *runs) {
    if (!f || step >= f->plan->n_steps) {
        return false;
    }
    *t_ns = f->step_ns[step];
    *runs = f->step_runs[step];
    return true;
}

bool kiln_exec_profile(const kiln_exec *exec, size_t step, int64_t *t_ns, int64_t *runs) {
    return read_times(exec->root, step, t_ns, runs);
}

/* The frame of a body's plan. */
static const kiln_frame *frame_of(const kiln_frame *f, const kiln_plan *plan) {
    const kiln_frame *found = f->plan == plan ? f : NULL;
    for (size_t i = 0; i < f->plan->n_bodies && !found; i++) {
        found = frame_of(f->bodies[i], plan);
    }
    return found;
}

bool kiln_exec_profile_inner(const kiln_exec *exec, size_t step, int64_t *t_ns, int64_t *runs) {
    const kiln_plan *plan = kiln_plan_inner(exec->root->plan, &step);
    return plan && read_times(frame_of(exec->root, plan), step, t_ns, runs);
}

void kiln_exec_profile_total(const kiln_exec *exec, int64_t *t_ns, int64_t *runs) {
    *t_ns = exec->run_ns;
    *runs = exec->runs;
}

bool kiln_exec_needs(const kiln_exec *exec, size_t i, kiln_needs *out) {
    const kiln_segment *s = exec->root->newest;
    if (!s || i >= (size_t)s->n_bound) {
        return false;
    }
    const kiln_bound *b = &s->bound[i];
    *out = (kiln_needs){(size_t)b->step, b->shared_bytes + b->call.scratch_bytes, b->way};
    return true;
}

static size_t frame_memory(const kiln_frame *f) {
    size_t sum = f->late.total_bytes;
    for (int32_t i = 0; i < f->n_depths; i++) {
        sum += f->buffers[i].bytes;
    }
    for (size_t i = 0; i < f->plan->n_bodies; i++) {
        sum += frame_memory(f->bodies[i]);
    }
    return sum;
}

size_t kiln_exec_memory(const kiln_exec *exec, size_t *scratch_bytes) {
    if (scratch_bytes) {
        *scratch_bytes = exec->scratch.bytes;
    }
    return frame_memory(exec->root) + exec->scratch.bytes;
}
