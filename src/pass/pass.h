/* pass.h - canonicalising passes: from an imported graph to the same graph in its simplest
 * exportable form. Input: an indexed, inferred graph; output: the same, rewritten in place through
 * patches.
 *
 *     kiln_pass_options options = {.off = (const char *const[]){"layer_norm", NULL}};
 *     KILN_TRY(kiln_passes_run(graph, &options, &infos, &n_infos, diag));
 *
 * A pass is one file that defines `const kiln_pass kiln_pass_<id>` and one line in passes.def. Its
 * `visit` looks at one node of a const graph and may describe rewrites (ir/patch.h); or its `scan`
 * looks at a whole graph, bodies one by one. The runner sweeps a pass until nothing more is found,
 * and all passes until none finds anything. Every rewrite is exact in real arithmetic.
 */
#ifndef KILN_PASS_PASS_H
#define KILN_PASS_PASS_H

#include "ir/patch.h"

typedef struct kiln_pass {
    const char *name;
    kiln_status (*visit)(kiln_patch *p, const kiln_node *node);
    kiln_status (*scan)(kiln_patch *p, const kiln_graph *graph);
} kiln_pass;

typedef struct kiln_pass_options {
    const char *const *off; /* names of passes to leave out; NULL-terminated, or NULL */
    int32_t stop_after;     /* apply at most this many rewrites over all passes; 0: no limit */
    const char *only;       /* run this pass alone (tests); NULL: all */
} kiln_pass_options;

/* Runs all passes of passes.def to a fixed point. `infos` (in graph->arena) tells what each did,
 * in the table's order. The graph is indexed, inferred and verified afterwards. */
kiln_status kiln_passes_run(kiln_graph *graph, const kiln_pass_options *options,
                            kiln_pass_info **infos, size_t *n_infos, kiln_diag *diag);
/* True when a pass of that name exists. */
bool kiln_pass_exists(const char *name);
/* Name of pass i, or NULL past the end. */
const char *kiln_pass_name(size_t i);

#endif
