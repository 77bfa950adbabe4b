/* timing.h - which of two networks is faster, whole and layer by layer, on a machine where others
 * work too.
 *
 * Both run in turn, so that a disturbance or a change of the clock's frequency meets both, and what
 * counts is the median of the rounds and in how many of them one beat the other.
 *
 *     kiln_timed exact = {0}, small = {0};
 *     KILN_TRY(kiln_timed_open(&exact, engine, pool, env, diag)); ...
 *     kiln_race race;
 *     KILN_TRY(kiln_race_run(&race, &exact, &small, &(kiln_timing_limits){300}, env, diag));
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

/* A network that is timed. */
typedef struct kiln_timed {
    const kiln_engine *engine;
    kiln_context *context;
    kiln_tensors *inputs; /* made up and bound */
    bool is_own;          /* engine and context are given back with it */
} kiln_timed;

/* Takes the engine and makes it run, on pool or (NULL) one thread. Inputs are made up: the same for
 * every engine with the same inputs; dynamic dims are opt of the profile, else 1. What is there is
 * given back by kiln_timed_close, after errors too; all zero it is closed. */
kiln_status kiln_timed_open(kiln_timed *out, kiln_engine *engine, kiln_pool *pool,
                            const kiln_env *env, kiln_diag *diag);
/* The same of an engine and a context that stay the caller's. */
kiln_status kiln_timed_borrow(kiln_timed *out, const kiln_engine *engine, kiln_context *context,
                              const kiln_env *env, kiln_diag *diag);
void kiln_timed_close(kiln_timed *t);

/* How long to measure, and what ends it sooner. */
typedef struct kiln_timing_limits {
    double budget_ms;
    int64_t end_ns;            /* by kiln_now_ns: no run begins later; 0: no such time */
    bool (*go_on)(void *user); /* asked before each run; NULL: always */
    void *user;
} kiln_timing_limits;

/* Runs of each network without which a race tells nothing, those to warm up included. */
enum { KILN_RACE_LEAST_RUNS = 7 };

/* Of b against a. */
typedef struct kiln_race {
    double a_ms, b_ms; /* medians */
    double ratio;      /* median of b / a */
    double wins;       /* share of rounds in which b took less time */
    int64_t rounds;    /* 0: it was ended before it told anything */
} kiln_race;

/* Runs both in turn for about the budget, but KILN_RACE_LEAST_RUNS times each where nothing ends
 * it. Errors: of running. */
kiln_status kiln_race_run(kiln_race *out, const kiln_timed *a, const kiln_timed *b,
                          const kiln_timing_limits *limits, const kiln_env *env, kiln_diag *diag);
/* b took less time by this share at the median, and in most rounds. */
bool kiln_race_is_won(const kiln_race *race, double margin);

/* The cell of a layer. */
typedef struct kiln_cell_time {
    int32_t cell;   /* layers of the same cell have the same number; -1: no step runs the layer */
    kiln_race race; /* of the cell's steps; milliseconds */
} kiln_cell_time;

/* Times the cells of n layers, named as both graphs do; limits as of a race. */
kiln_status kiln_time_cells(kiln_cell_time *out, const char *const *layers, size_t n,
                            const kiln_timed *a, const kiln_timed *b,
                            const kiln_timing_limits *limits, const kiln_env *env, kiln_diag *diag);

#endif
