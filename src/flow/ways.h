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

/* The layers of an engine that rules have built, with up to most_ways ways of each, the likeliest
 * ones; none is known or chosen. `place` says what the times of all layers depend on. Strings are
 * the engine's and the kernels', all else is in `arena`. KILN_E_MEMORY. */
kiln_status kiln_ways_list(kiln_ways *out, const kiln_engine *rules, const kiln_text *place,
                           size_t most_ways, kiln_arena *arena);

#endif
