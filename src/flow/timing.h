/* timing.h - which of two networks is faster, whole and layer by layer, on a machine where others
 * work too.
 *
 * Both run in turn, so that a disturbance or a change of the clock's frequency meets both, and what
 * counts is the median of the rounds and in how many of them one beat the other.
 *
 *     kiln_timed exact = {engine, context}, small = {engine8, context8};     // inputs bound
 *     kiln_race race;
 *     KILN_TRY(kiln_race_run(&race, &exact, &small, 300, diag));
 *     if (kiln_race_is_won(&race, 0.02)) { ... small is faster by 2 % or more ... }
 *
 * Layers are compared in cells. A step of a plan runs some nodes of the graph, and where the two
 * plans cut the graph differently (an addition that is the end of one convolution here and of
 * another there) their steps overlap: a cell is what overlapping steps run together. Quantizing and
 * dequantizing steps belong to the node whose result they convert, so that a cell holds all that
 * 8 bits cost and save at its place. */
#ifndef KILN_FLOW_TIMING_H
#define KILN_FLOW_TIMING_H

#include "base/arena.h"
#include "base/diag.h"
#include "kiln/quant.h"

typedef struct kiln_timed {
    const kiln_engine *engine;
    kiln_context *context; /* its inputs bound */
} kiln_timed;

/* Of b against a. */
typedef struct kiln_race {
    double a_ms, b_ms; /* medians */
    double ratio;      /* median of b / a */
    double wins;       /* share of rounds in which b took less time */
    int64_t rounds;
} kiln_race;

/* Runs both in turn for about `budget_ms`, at least 5 times each. Errors: of running. */
kiln_status kiln_race_run(kiln_race *out, const kiln_timed *a, const kiln_timed *b,
                          double budget_ms, const kiln_env *env, kiln_diag *diag);
/* b took less time by this share at the median, and in most rounds. */
bool kiln_race_is_won(const kiln_race *race, double margin);

/* The cell of a layer. */
typedef struct kiln_cell_time {
    int32_t cell;   /* layers of the same cell have the same number; -1: no step runs the layer */
    kiln_race race; /* of the cell's steps; milliseconds */
} kiln_cell_time;

/* Times the cells of n layers, named as both graphs do. */
kiln_status kiln_time_cells(kiln_cell_time *out, const char *const *layers, size_t n,
                            const kiln_timed *a, const kiln_timed *b, double budget_ms,
                            const kiln_env *env, kiln_diag *diag);

/* Binds made-up inputs, the same for every engine with the same inputs; dynamic dims are opt of the
 * profile, else 1. *list is to live as long as the context runs. */
kiln_status kiln_timed_inputs(kiln_tensors **list, const kiln_timed *t, const kiln_env *env,
                              kiln_diag *diag);

#endif
