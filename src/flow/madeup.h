/* madeup.h - inputs that no data stands behind, for what shows whatever a network reads: which few
 * channels of its values are far larger than the others.
 *
 *     kiln_made_up made;
 *     kiln_made_up_init(&made, engine, graph);
 *     run.next = kiln_made_up_next;
 *     run.user = &made;
 *
 * Floats are drawn from [0, 1), indices into a constant table over all of its rows, other integers
 * are 0 or 1. Dims that are free and have no profile are a few for the first and some tens for the
 * others: values of a sequence of one stand for nothing. The same each time. */
#ifndef KILN_FLOW_MADEUP_H
#define KILN_FLOW_MADEUP_H

#include "flow/flow.h"
#include "ir/graph.h"

typedef struct kiln_made_up {
    const kiln_engine *engine;
    const kiln_graph *graph; /* with inputs of the same names, indexed */
    int64_t batches, done;
} kiln_made_up;

void kiln_made_up_init(kiln_made_up *m, const kiln_engine *engine, const kiln_graph *graph);
/* A kiln_sample_fn of a kiln_made_up. */
kiln_status kiln_made_up_next(void *made_up, kiln_tensors *out, kiln_diag *diag);

#endif
