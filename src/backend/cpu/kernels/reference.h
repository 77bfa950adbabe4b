/* reference.h - the kernel of last resort, for others to fall back to.
 *
 * A kernel with kiln_kernel.late runs steps that the data sizes. Where shapes, or known contents,
 * happen to say the size, such a step is bound like any other: it then has these as its bind and
 * run, provided that its claim has the anchor's inputs and outputs first, in their order.
 *
 *     const kiln_kernel kiln_kernel_non_zero = {..., .bind = kiln_reference_bind,
 *                                               .run = kiln_reference_run, .late = late};
 */
#ifndef KILN_BACKEND_CPU_KERNELS_REFERENCE_H
#define KILN_BACKEND_CPU_KERNELS_REFERENCE_H

#include "backend/cpu/kernel.h"

/* A claim of the node alone for the kernel, all operands in row order; NULL: out of memory. */
kiln_claim *kiln_reference_claim(kiln_claimer *c, const kiln_kernel *kernel, kiln_node *node);
kiln_status kiln_reference_bind(kiln_binder *b);
void kiln_reference_run(const kiln_call *call, const kiln_team *team);

#endif
