/* pool.h - the geometry of MaxPool, AveragePool and LpPool for kernels. */
#ifndef KILN_OPS_POOL_H
#define KILN_OPS_POOL_H

#include "ops/window.h"

/* The resolved window of a pool whose shapes infer has accepted. */
kiln_status kiln_pool_window(kiln_window *w, const kiln_pool_attrs *a, const kiln_tensor *x,
                             const kiln_tensor *y, kiln_diag *diag);

#endif
