/* frame.h - what bind.c, run.c and late.c share: frames and their segments. */
#ifndef KILN_EXEC_FRAME_H
#define KILN_EXEC_FRAME_H

#include <stdatomic.h>

#include "exec/exec.h"
#include "ops/util.h"

/* A buffer that only grows. */
typedef struct kiln_buffer {
    char *data;
    size_t bytes;
} kiln_buffer;

/* One bound step. */
typedef struct kiln_bound {
    kiln_call call;
    int32_t step; /* in the plan */
    void **ptrs;  /* call.in, then call.out */
} kiln_bound;

/* Where a slot's bytes are in this segment. */
typedef struct kiln_place {
    enum {
        KILN_PLACE_NONE,   /* not made in this segment */
        KILN_PLACE_BUFFER, /* offset in the segment's buffer */
        KILN_PLACE_DATA,   /* data: made at binding (results that follow from shapes) */
        KILN_PLACE_ALIAS,  /* of another slot */
    } kind;
    size_t offset;
    void *data;
    int32_t alias_of;
    int64_t bytes;
    const kiln_fact *fact; /* NULL: the value's in the segment's facts */
} kiln_place;

typedef struct kiln_segment kiln_segment;
struct kiln_segment {
    kiln_arena arena;
    int32_t first, end; /* steps [first, end); end is a late step or n_steps */
    int64_t *key;       /* shapes it was bound to */
    size_t n_key;
    kiln_fact **facts;  /* per value id - graph->first_id, or NULL */
    kiln_place *places; /* per slot */
    kiln_bound *bound;
    int32_t n_bound;
    kiln_buffer buffer;
    size_t activation_bytes; /* of the buffer; scratch follows */
    size_t scratch_bytes;    /* per member */
    size_t shared_bytes;
    kiln_segment *children; /* bound after the late step at `end`, by its shapes */
    kiln_segment *next;     /* sibling */
    int32_t n_children;
};

typedef struct kiln_frame kiln_frame;
struct kiln_frame {
    kiln_exec *exec;
    const kiln_plan *plan;
    kiln_frame *outer;
    kiln_arena arena; /* as long as the frame */
    kiln_arena late;  /* data made by late steps, until the next run */
    kiln_arena_mark late_start;
    kiln_datum *slots;           /* per slot: dims and address in the current run */
    const kiln_segment **filled; /* per slot: the segment whose dims it holds */
    kiln_segment *roots;
    int32_t n_roots;
    kiln_frame **bodies; /* per plan->bodies */
    kiln_datum *outputs; /* per graph output */
};

struct kiln_exec {
    const kiln_env *env;
    const kiln_cpu_target *target;
    kiln_pool *pool;
    int32_t threads;
    uint64_t seed;
    kiln_arena arena;
    kiln_frame *root;
    void **user_outputs; /* per graph output of the root */
    size_t *user_caps;
    atomic_int cancelled;
    kiln_run_env run_env;
    kiln_arena run_arena; /* run_env.arena */
    bool has_taps;
    kiln_taps taps;
    bool profiling;
    int64_t *step_ns, *step_runs;
};

/* The root segment for the frame's inputs and captures, or the child of `parent` for what its late
 * step made (read from frame->slots); bound now if it was not. */
kiln_status kiln_frame_segment(kiln_frame *frame, kiln_segment *parent, kiln_segment **out,
                               kiln_diag *diag);
void kiln_segments_free(kiln_segment *list, const kiln_env *env);

/* Runs the frame: inputs per graph input; captures are read from `outer` frames. */
kiln_status kiln_frame_run(kiln_frame *frame, const kiln_datum *inputs, kiln_diag *diag);
/* The datum of v from the frame's slots in layout ROW (copied into arena where it lies
 * otherwise). */
kiln_status kiln_frame_row(kiln_frame *frame, int32_t slot, kiln_datum *out, kiln_arena *arena);
/* Runs the late step `step` by the reference. */
kiln_status kiln_frame_late(kiln_frame *frame, int32_t step, kiln_diag *diag);
/* Replays the inner values of a step's region for the taps. */
kiln_status kiln_frame_tap(kiln_frame *frame, int32_t step, kiln_diag *diag);

kiln_status kiln_frame_create(kiln_frame **out, kiln_exec *exec, const kiln_plan *plan,
                              kiln_frame *outer, kiln_diag *diag);
void kiln_frame_destroy(kiln_frame *frame);

kiln_status kiln_buffer_reserve(kiln_buffer *buffer, size_t bytes, const kiln_env *env);

/* A step that binding leaves to the reference whatever the shapes: bodies, sequences, strings. */
bool kiln_step_is_always_late(const kiln_plan *plan, const kiln_step *step);

#endif
