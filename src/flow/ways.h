/* ways.h - the layers of an engine that can run in more than one way, and their ways.
 *
 * Layers that are alike in all that their times depend on (operators, attributes, types, layouts,
 * the machine, threads) are of one kind, and what is found of one holds for all: ways belong to
 * kinds. A kind's key names it in the timing cache.
 *
 *     kiln_ways ways;
 *     KILN_TRY(kiln_ways_list(&ways, rules, place, 8, arena));
 *     for (size_t i = 0; i < ways.n_layers; i++) { ... ways.layers[i].kind->ways ... }
 */
#ifndef KILN_FLOW_WAYS_H
#define KILN_FLOW_WAYS_H

#include "base/text.h"
#include "engine/engine.h"
#include "flow/timings.h"

/* Layers that are timed at most, of one network: those with the most multiply-adds. */
enum { KILN_MOST_TIMED_LAYERS = 1024 };

typedef struct kiln_layer_way {
    const char *kernel, *tactic;
    const char *name; /* "kernel/tactic", as timings call it */
    kiln_timing timing;
    bool known; /* the timing is */
} kiln_layer_way;

typedef struct kiln_layer_kind {
    kiln_hash128 key;
    kiln_layer_way *ways;
    size_t n_ways;
    int64_t chosen; /* of the ways; -1: the rules' */
} kiln_layer_kind;

typedef struct kiln_timed_layer {
    const char *name, *output; /* of the anchor node, and of the value it makes */
    kiln_layer_kind *kind;
} kiln_timed_layer;

typedef struct kiln_ways {
    kiln_timed_layer *layers; /* in the order in which they run */
    size_t n_layers;
    kiln_layer_kind *kinds;
    size_t n_kinds;
    size_t n_left_out; /* layers beyond the most that are timed */
} kiln_ways;

/* What is to be listed. */
typedef struct kiln_ways_wanted {
    const kiln_engine *rules; /* as rules have built it */
    const kiln_text *place;   /* what the times of all layers depend on */
    size_t most;              /* ways of a layer, the likeliest ones */
    const kiln_datum *inputs; /* shapes of the graph's inputs, without data */
    int64_t end_ns;           /* by kiln_now_ns: from then on ways are no longer told apart */
} kiln_ways_wanted;

/* The layers of an engine and their ways; none is known or chosen. A way that comes to the same as
 * the rules' or as one before, at these shapes, is not among them. Strings are the engine's and the
 * kernels', all else is in `arena`. KILN_E_MEMORY. */
kiln_status kiln_ways_list(kiln_ways *out, const kiln_ways_wanted *wanted, kiln_arena *arena);

#endif
