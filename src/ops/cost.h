/* cost.h - how much work a node or a graph is. Dynamic dims count as one. */
#ifndef KILN_OPS_COST_H
#define KILN_OPS_COST_H

#include "ir/graph.h"

/* Multiply-accumulates; 0 for operators without a cost function or values of unknown rank. */
int64_t kiln_node_macs(const kiln_node *node, const kiln_env *env);
/* The same of all nodes, bodies counted once; saturates. */
int64_t kiln_graph_macs(const kiln_graph *graph);

#endif
