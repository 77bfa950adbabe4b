/* pass.h - canonicalising passes: from an imported graph to the same graph in its simplest exportable
 * form. Input: an indexed, inferred graph; output: the same, rewritten in place through patches.
 */
#ifndef KILN_PASS_PASS_H
#define KILN_PASS_PASS_H

#include "ir/graph.h"

typedef struct kiln_pass_options {
    const char *const *off; /* names of passes to leave out; NULL-terminated, or NULL */
    int32_t stop_after;     /* apply at most this many rewrites over all passes; 0: no limit */
} kiln_pass_options;

/* Runs all passes of passes.def to a fixed point. `infos` (in graph->arena) tells what each did, in the
 * table's order. The graph is indexed, inferred and verified afterwards. */
kiln_status kiln_passes_run(kiln_graph *graph, const kiln_pass_options *options, kiln_pass_info **infos,
                            size_t *n_infos, kiln_diag *diag);
/* True when a pass of that name exists. */
bool kiln_pass_exists(const char *name);

#endif
