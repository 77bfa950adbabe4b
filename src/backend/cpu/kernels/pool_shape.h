/* pool_shape.h - what the pool kernels share: which pool a node is, whether its windows are ones
 * they run, and the windows at bind time. */
#ifndef KILN_BACKEND_CPU_KERNELS_POOL_SHAPE_H
#define KILN_BACKEND_CPU_KERNELS_POOL_SHAPE_H

#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/pool.h"

typedef struct kiln_pool_kind {
    kiln_pool_op op;
    bool global;
} kiln_pool_kind;

/* False when the node is no pool. */
bool kiln_pool_kind_of(const kiln_node *node, kiln_pool_kind *out);
/* Why the kernels do not run this pool, whatever its type; NULL when they do. */
const char *kiln_pool_refusal(const kiln_node *node, const kiln_pool_kind *kind);
/* p of LpPool, 1 for the others. */
int32_t kiln_pool_power(const kiln_node *node, const kiln_pool_kind *kind);
/* Fills the shape (not x and y); a global pool has one window, the image. *units is the number of
 * output pixels. The output is not empty. */
kiln_status kiln_pool_bind(const kiln_binder *b, const kiln_node *node, const kiln_pool_kind *kind,
                           kiln_pool_args *out, int64_t *units);

#endif
