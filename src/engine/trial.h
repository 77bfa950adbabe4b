/* trial.h - what the ways in which layers would run need and come to, without running them.
 *
 * Both are known once ways are bound to shapes, which the cover is not. A trial covers a graph
 * for a target, compiles and binds it; it packs no weights and takes no memory for activations.
 *
 *     kiln_status status = kiln_cover_trial_open(&t, graph, &target, inputs, env, diag);
 *     for (size_t i = 0; status == KILN_OK && kiln_cover_trial_get(&t, i, &call); i++) {
 *         ... call.bytes ...
 *     }
 *     kiln_cover_trial_close(&t);
 */
#ifndef KILN_ENGINE_TRIAL_H
#define KILN_ENGINE_TRIAL_H

#include "exec/exec.h"

typedef struct kiln_cover_trial {
    kiln_arena arena;
    kiln_plan *plan; /* NULL where covering failed */
    kiln_exec *exec; /* NULL where binding failed */
} kiln_cover_trial;

/* One region of the graph as it would run. */
typedef struct kiln_cover_trial_call {
    const kiln_claim *claim;
    size_t bytes; /* beside its operands: what threads share and what one of them has */
    uint64_t way; /* kiln_binder.way */
} kiln_cover_trial_call;

/* Inputs: types and shapes of the graph's, without data. Regions behind one that the data sizes,
 * and those of bodies, are not in it. To be closed after errors too. Errors: of covering and
 * binding. */
kiln_status kiln_cover_trial_open(kiln_cover_trial *out, const kiln_graph *graph,
                                  const kiln_cpu_target *target, const kiln_datum *inputs,
                                  const kiln_env *env, kiln_diag *diag);
void kiln_cover_trial_close(kiln_cover_trial *trial);
/* Call i; false past the end. */
bool kiln_cover_trial_get(const kiln_cover_trial *trial, size_t i, kiln_cover_trial_call *out);

#endif
