/* exec.h - runs a plan. Input: a plan, its blobs, tensors; output: tensors. Invariant: what ran
 * before at the same shapes allocates nothing the second time.
 *
 * A frame runs one plan (the model's, or that of a body) and keeps what it bound. Binding infers
 * concrete shapes step by step, places buffers, and lets each kernel prepare a call. It stops at a
 * step whose outputs only the data can size (NonZero, Loop, ...): such a late step runs on its own,
 * by the reference, and the steps after it are bound to what it found. So a frame holds a tree of
 * segments: the root's key is the input shapes, a child's the shapes its late step made. Steps
 * whose results follow from the shapes alone are computed at binding and vanish from the run.
 *
 *     kiln_exec *x;
 *     kiln_exec_create(&x, plan, target, &options, diag);
 *     kiln_exec_run(x, inputs, diag);            // kiln_datum per graph input
 *     const kiln_datum *y = kiln_exec_output(x, 0);   // valid until the next run
 */
#ifndef KILN_EXEC_EXEC_H
#define KILN_EXEC_EXEC_H

#include "backend/backend.h"

typedef struct kiln_exec kiln_exec;

typedef struct kiln_exec_options {
    const kiln_env *env;
    kiln_pool *pool; /* borrowed; NULL: the caller's thread alone */
    int32_t threads; /* at most this many of the pool; 0: all */
    uint64_t seed;   /* for random operators */
    kiln_regions regions;
    bool measuring; /* it is only bound, never run, and takes no memory for activations */
} kiln_exec_options;

kiln_status kiln_exec_create(kiln_exec **out, const kiln_plan *plan, const kiln_cpu_target *target,
                             const kiln_exec_options *options, kiln_diag *diag);
void kiln_exec_destroy(kiln_exec *exec);

/* Runs once. inputs: one datum per graph input, types and shapes already checked by the caller;
 * their memory must stay until the outputs have been read (an output may be an input's memory). */
kiln_status kiln_exec_run(kiln_exec *exec, const kiln_datum *inputs, kiln_diag *diag);
/* Output i of the last run. */
const kiln_datum *kiln_exec_output(const kiln_exec *exec, int32_t i);
/* Output i of later runs goes straight to `buffer` of cap bytes when it fits and a step makes it;
 * NULL: to Kiln's memory. */
void kiln_exec_set_output(kiln_exec *exec, int32_t i, void *buffer, size_t cap_bytes);
/* That buffer, or NULL. */
void *kiln_exec_user_output(const kiln_exec *exec, int32_t i, size_t *cap_bytes);
/* Binds for these shapes without running, so that the first run allocates nothing. */
kiln_status kiln_exec_bind(kiln_exec *exec, const kiln_datum *inputs, kiln_diag *diag);

/* May be called from any thread: the run under way, and every later one until kiln_exec_allow,
 * ends with KILN_E_CANCELLED. */
void kiln_exec_cancel(kiln_exec *exec);
/* Forgets earlier cancelling. Called before a run by the thread that starts it, so that
 * cancelling after that reaches the run even when it works on another thread. */
void kiln_exec_allow(kiln_exec *exec);

/* Called with every value that tapped() wants, once it is computed; inner values of a region are
 * replayed by the reference from the region's inputs (replayed = true). Both NULL: no taps. */
typedef struct kiln_taps {
    bool (*wants)(void *user, const kiln_value *value);
    kiln_status (*see)(void *user, const kiln_value *value, const kiln_datum *datum, bool replayed);
    void *user;
} kiln_taps;
void kiln_exec_set_taps(kiln_exec *exec, const kiln_taps *taps);

/* Per-step times: sums over the runs since it was switched on. */
void kiln_exec_set_profile(kiln_exec *exec, bool on);
/* Nanoseconds spent in step i of the plan, those in its bodies' steps not counted, and how often it
 * ran; false past the end. */
bool kiln_exec_profile(const kiln_exec *exec, size_t step, int64_t *t_ns, int64_t *runs);
/* Likewise of step i of the bodies, as kiln_plan_inner numbers them. */
bool kiln_exec_profile_inner(const kiln_exec *exec, size_t step, int64_t *t_ns, int64_t *runs);
/* Whole runs. */
void kiln_exec_profile_total(const kiln_exec *exec, int64_t *t_ns, int64_t *runs);

typedef struct kiln_needs {
    size_t step;  /* of the plan */
    size_t bytes; /* beside its operands: what threads share and what one of them has */
    uint64_t way; /* kiln_binder.way */
} kiln_needs;
/* Of bound call i, at the shapes bound last and up to the first late step; false past the end. */
bool kiln_exec_needs(const kiln_exec *exec, size_t i, kiln_needs *out);
/* Bytes held for activations and scratch at the shapes bound so far. */
size_t kiln_exec_memory(const kiln_exec *exec, size_t *scratch_bytes);

#endif
