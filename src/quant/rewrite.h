/* rewrite.h - the node list of a graph that is being quantized, as it grows: what placing Q/DQ
 * pairs (place.c) and runtime scales (dynamic.c) share.
 *
 *     kiln_rewrite r = {.graph = graph, .diag = diag};
 *     kiln_arena_init(&r.scratch, graph->env);
 *     for (each node n of the graph) {
 *         KILN_TRY(kiln_rewrite_node(&r, &made, op, in, 3, 1, n->name, "quantized", n));
 *         KILN_TRY(kiln_rewrite_append(&r, n));
 *     }
 *     KILN_TRY(kiln_rewrite_finish(&r));              // the list becomes the graph's
 *     kiln_arena_free(&r.scratch);
 */
#ifndef KILN_QUANT_REWRITE_H
#define KILN_QUANT_REWRITE_H

#include "quant/weights.h"

typedef struct kiln_rewrite {
    kiln_graph *graph;
    kiln_diag *diag;
    kiln_arena scratch;
    kiln_weight_cache cache;
    kiln_node **nodes; /* the new list, in the graph's arena */
    size_t n_nodes, cap_nodes;
} kiln_rewrite;

kiln_status kiln_rewrite_append(kiln_rewrite *r, kiln_node *node);
/* Names v "from_what", made unique. */
kiln_status kiln_rewrite_name(kiln_rewrite *r, kiln_value *v, const char *from, const char *what);
/* A new node at the end of the list, it and its first output named "from_what"; `source` (may be
 * NULL) is the node it came from. */
kiln_status kiln_rewrite_node(kiln_rewrite *r, kiln_node **out, const kiln_op *op,
                              kiln_value *const *in, int32_t n_in, int32_t n_out, const char *from,
                              const char *what, const kiln_node *source);
/* A new constant "from_what"; the bytes are borrowed for the graph's lifetime. */
kiln_status kiln_rewrite_constant(kiln_rewrite *r, kiln_value **out, const kiln_tensor *tensor,
                                  const char *from, const char *what);
/* The weight behind a DequantizeLinear along `axis` (-1: one scale); *out is its output. */
kiln_status kiln_rewrite_dequantize(kiln_rewrite *r, kiln_value **out, const kiln_weight *w,
                                    int32_t axis, const char *name, const kiln_node *source);
/* Quantizes the job's weight for `node`, which a failure names. */
kiln_status kiln_rewrite_weight(kiln_rewrite *r, kiln_weight *out, const kiln_weight_job *job,
                                const kiln_node *node);
/* Both, for a job without bias; an equal job gives the same value again. */
kiln_status kiln_rewrite_weight_of(kiln_rewrite *r, kiln_value **out, const kiln_weight_job *job,
                                   const kiln_node *node);
/* The list becomes the graph's: for bodies, which are sorted and verified with their root. */
void kiln_rewrite_take(kiln_rewrite *r);
/* The list becomes the graph's, which is sorted, verified and inferred. */
kiln_status kiln_rewrite_finish(kiln_rewrite *r);

#endif
