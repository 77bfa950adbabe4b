/* frame.h - what the files of exec share: frames and their segments.
 *
 * Segments of one depth (the roots; what follows the first late step; ...) never hold data at the
 * same time, so that each depth has one buffer, as large as the largest of its segments needs.
 * Scratch lasts for one step and is one buffer for all frames. */
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
    size_t shared_bytes;
    uint64_t way; /* kiln_binder.way */
    void **ptrs;  /* call.in, then call.out */
} kiln_bound;

/* Checks targets of the step that is called next; no step itself (guard.c). */
extern const kiln_kernel kiln_guard_kernel;

/* Where a slot's bytes are in this segment. */
typedef struct kiln_place {
    enum {
        KILN_PLACE_NONE,   /* not made in this segment */
        KILN_PLACE_BUFFER, /* offset in the segment's buffer */
        KILN_PLACE_DATA,   /* data: made at binding (results that follow from shapes) */
        KILN_PLACE_ALIAS,  /* of another slot, or of a part of it */
    } kind;
    bool is_part;  /* of an alias: the slot may be longer */
    size_t offset; /* in the segment's buffer; of an alias: in the other slot */
    void *data;
    int32_t alias_of;
    int64_t bytes;
    const kiln_fact *fact; /* NULL: the value's in the segment's facts */
} kiln_place;

typedef struct kiln_segment kiln_segment;
struct kiln_segment {
    kiln_arena arena;
    uint64_t serial;    /* no other segment of the exec had or will have it */
    int32_t first, end; /* steps [first, end); end is a late step or n_steps */
    int32_t depth;      /* late steps before it */
    int64_t *key;       /* shapes it was bound to */
    size_t n_key;
    kiln_fact **facts;  /* per value id - graph->first_id, or NULL */
    kiln_place *places; /* per slot */
    kiln_bound *bound;
    int32_t n_bound;
    size_t activation_bytes;
    size_t scratch_bytes; /* per member */
    size_t shared_bytes;
    /* The cache's: */
    kiln_segment *parent;
    kiln_segment *children; /* bound after the late step at `end`, by its shapes */
    kiln_segment *sibling;
    kiln_segment *older, *newer; /* all segments of the frame, in the order they were bound */
    uint64_t used;               /* the run that last did */
};

typedef struct kiln_frame kiln_frame;
struct kiln_frame {
    kiln_exec *exec;
    const kiln_plan *plan;
    kiln_arena arena;     /* as long as the frame */
    kiln_arena late;      /* data made by late steps, until the next run */
    kiln_datum *slots;    /* per slot: dims and address in the current run */
    uint64_t *filled;     /* per slot: serial of the segment whose dims it holds, or 0 */
    kiln_buffer *buffers; /* per depth */
    int32_t n_depths;     /* of segments bound so far */
    kiln_segment *roots;
    kiln_segment *newest;
    int32_t n_segments;
    uint64_t run;                 /* number of the current one */
    int64_t *step_ns, *step_runs; /* per step, while profiling */
    kiln_frame **bodies;          /* per plan->bodies */
    kiln_datum *outputs;          /* per graph output */
};

struct kiln_exec {
    const kiln_env *env;
    const kiln_cpu_target *target;
    kiln_pool *pool;
    int32_t threads;
    uint64_t seed;
    kiln_regions regions;
    bool measuring;
    kiln_arena arena;
    kiln_frame *root;
    kiln_buffer scratch; /* of the step that runs: shared bytes, then each member's */
    uint64_t n_serials;  /* given out */
    void **user_outputs; /* per graph output of the root */
    size_t *user_caps;
    atomic_int cancelled;
    kiln_run_env run_env;
    kiln_arena run_arena; /* run_env.arena */
    bool has_taps;
    kiln_taps taps;
    bool profiling;
    int64_t inner_ns;     /* taken by steps since the late step that runs began */
    int64_t run_ns, runs; /* of the whole, while profiling */
};

/* The root segment for the frame's inputs and captures, or the child of `parent` for what its late
 * step made (read from frame->slots); bound now if it was not, with buffers large enough for it.
 * Beyond as many segments as KILN_KEPT_SHAPES sets of shapes may need, those used longest ago are
 * forgotten, but none of the current run's. */
enum { KILN_KEPT_SHAPES = 16 };
kiln_status kiln_frame_segment(kiln_frame *frame, kiln_segment *parent, kiln_segment **out,
                               kiln_diag *diag);
/* Binds a segment that the cache has made, with its key, to the shapes in frame->slots. */
kiln_status kiln_segment_bind(kiln_frame *frame, kiln_segment *seg, kiln_diag *diag);
/* Forgets all segments. */
void kiln_frame_forget(kiln_frame *frame);

/* Runs the frame: inputs per graph input; captures are in their slots. */
kiln_status kiln_frame_run(kiln_frame *frame, const kiln_datum *inputs, kiln_diag *diag);
/* The datum of v from the frame's slots in layout ROW and its own type (copied into arena where it
 * is held otherwise). */
kiln_status kiln_frame_row(kiln_frame *frame, int32_t slot, kiln_datum *out, kiln_arena *arena);
/* Adds a run of the step that took so long, not counting steps of bodies. */
void kiln_frame_time(kiln_frame *frame, int32_t step, int64_t t_ns);
/* Runs the late step `step` by its kernel, or the reference. */
kiln_status kiln_frame_late(kiln_frame *frame, int32_t step, kiln_diag *diag);
/* The outputs of a step's region by its reference, in arena: integer regions by the kernel's own,
 * others by those of their nodes. */
kiln_status kiln_frame_reference(kiln_frame *frame, int32_t step, kiln_datum *out,
                                 kiln_arena *arena, kiln_diag *diag);
/* Copies a tensor in ROW order to the slot's address, as the slot holds it. */
void kiln_frame_store(kiln_frame *frame, int32_t slot, const kiln_datum *row);
/* Replays the inner values of a step's region for the taps. */
kiln_status kiln_frame_tap(kiln_frame *frame, int32_t step, kiln_diag *diag);

kiln_status kiln_frame_create(kiln_frame **out, kiln_exec *exec, const kiln_plan *plan,
                              kiln_diag *diag);
void kiln_frame_destroy(kiln_frame *frame);

kiln_status kiln_buffer_reserve(kiln_buffer *buffer, size_t bytes, const kiln_env *env);

/* A step that binding leaves to the reference whatever the shapes: bodies, sequences, strings. */
bool kiln_step_is_always_late(const kiln_plan *plan, const kiln_step *step);

#endif
