/* engine.h - the engine as its own files and the pipeline see it.
 *
 * An engine is the canonical graph, its plan and the packed weights. build fills one (api.c);
 * load reads one from a file. Both hand over the arenas that hold everything. */
#ifndef KILN_ENGINE_ENGINE_H
#define KILN_ENGINE_ENGINE_H

#include "backend/backend.h"
#include "base/file.h"
#include "engine/profile.h"

typedef struct kiln_refusal {
    const char *node, *kernel, *reason;
} kiln_refusal;

/* A layer that quantizing left float; kept in the file. */
typedef struct kiln_left_float {
    const char *node, *reason;
} kiln_left_float;

/* Described once, when model or engine are made, so that any thread may look. */
typedef struct kiln_ios {
    kiln_io *in, *out;
    size_t n_in, n_out;
} kiln_ios;

struct kiln_engine {
    const kiln_env *env;
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *graph; /* what the plan runs */
    /* Where the plan runs a lowered graph (build/widen.h, build/quantized.h): the graph as it is
     * exported, and its dims. Else NULL. */
    kiln_graph *canonical;
    kiln_dims canonical_dims;
    uint32_t n_widened; /* nodes that were of half-width floats; kept in the file */
    kiln_plan *plan;
    kiln_cpu_target target;
    const char **off;       /* target.off, owned */
    size_t workspace_bytes; /* that a layer may need beside its operands; 0: any number */
    kiln_engine_info info;
    kiln_shape_range *profile; /* per graph input, or NULL */
    kiln_ios ios;
    kiln_layer *layers; /* per step of the plan */
    kiln_layer *inner;  /* per step of its bodies, as kiln_plan_inner numbers them */
    size_t n_inner;
    kiln_pass_info *passes;
    size_t n_passes;
    kiln_refusal *refusals;
    size_t n_refusals, cap_refusals;
    kiln_left_float *left_float;
    size_t n_left_float;
    kiln_tried_way *tried; /* by the tuner; kept in the file */
    size_t n_tried;
    kiln_file *file;        /* mapped engine file, or NULL */
    struct kiln_hold *hold; /* keeps a model's files mapped while the engine reads them, or NULL */
};

/* An empty engine. */
kiln_status kiln_engine_new(kiln_engine **out, const kiln_env *env);
/* Fills in what is derived from graph and plan: layers, counts, io texts. */
kiln_status kiln_engine_describe(kiln_engine *engine);
/* What goes into a graph and out of it. Made into the graph's arena. */
kiln_status kiln_ios_make(kiln_ios *out, const kiln_graph *graph);
/* Item i of a list of n; false past the end. */
bool kiln_ios_get(const kiln_io *items, size_t n, size_t i, kiln_io *out);

/* A counted hold on the files behind a model's constants, shared by the model and engines built
 * from it. Thread-safe. */
typedef struct kiln_hold kiln_hold;
kiln_hold *kiln_hold_take(kiln_hold *hold);
void kiln_hold_drop(kiln_hold *hold);
/* Gives the memory of its mapped files back until they are read again; NULL is none. */
void kiln_hold_rest(const kiln_hold *hold);

#endif
