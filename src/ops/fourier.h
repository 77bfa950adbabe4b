/* fourier.h - discrete Fourier transforms of complex doubles, any length.
 *
 * Powers of two by the iterative radix-2 algorithm, other lengths as a convolution of such a length
 * (Bluestein), so that no length costs more than O(n log n).
 */
#ifndef KILN_OPS_FOURIER_H
#define KILN_OPS_FOURIER_H

#include "ops/util.h"

/* x[0 .. 2n) (real and imaginary parts alternating) becomes its transform, sum over x[k] e^(-2 pi
 * i jk/n), or with + for `inverse` (not divided by n). n <= 2^40. */
kiln_status kiln_fourier(double *x, int64_t n, bool inverse, kiln_arena *arena);

#endif
