/* kernel.h - what the files of the CPU backend see: kernels, claims and the vector code.
 *
 * A kernel file holds one `const kiln_kernel kiln_kernel_<name>`; kernels.def names it.
 */
#ifndef KILN_BACKEND_CPU_KERNEL_H
#define KILN_BACKEND_CPU_KERNEL_H

#include "backend/backend.h"
#include "backend/cpu/prims/prims.h"

#define KILN_KERNEL(id) extern const kiln_kernel kiln_kernel_##id;
#define KILN_FUSION(name)
#include "backend/cpu/kernels.def"
#undef KILN_KERNEL
#undef KILN_FUSION
extern const kiln_kernel
    kiln_kernel_convert; /* between layouts; made by the compiler, claims nothing */

#endif
