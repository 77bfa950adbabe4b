/* winograd.h - float32 convolutions that are 3x3 in a plane by Winograd's minimal filtering: fewer
 * multiplications for a stated error.
 *
 * F(m x m, 3x3) computes m x m outputs from an input tile of t = m + 2 pixels squared with t * t
 * multiplications for each pair of channels, where the direct way takes 9 * m * m: 2.25 times fewer
 * for m = 2, four times fewer for m = 4 (S. Winograd, "Arithmetic Complexity of Computations",
 * 1980; A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Per tile
 *
 *     Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A        (* elementwise)
 *
 * so that the t * t "taps" of the transformed tiles are one product each of [tiles, c_in] by
 * [c_in, c_out]; those are gemm.h's.
 *
 * A kernel of several planes adds them up in the transformed domain: the products then have c_in
 * rows for each plane, which meets an input plane, or zeros, by any stride, dilation and padding.
 *
 * The problem is a kiln_conv_args (conv.h) with kernel {any, 3, 3}, stride and dilation
 * {any, 1, 1}, one group, not transposed, not planar, x_channel == 1; tactic is ignored. Use is as
 * for kiln_conv_prims, but the cut into units may follow the number of threads that will share
 * them:
 *
 *     kiln_winograd_args g = {.conv = &c, .tile = 4};
 *     w = alloc(p->packed_bytes(&g));      p->pack(w, oihw_weights, &g);        (at build time)
 *     scratch = alloc(p->scratch_bytes(&g));                                    (one per thread)
 *     n = p->units(&g, threads);
 *     p->run(&g, n, begin, end, scratch);                          (any split of [0, n))
 *
 * An output depends on its tile alone and is computed by one chain of operations, so the bits
 * depend on neither the split nor the number of units.
 *
 * Error: the points of interpolation are 0, +-1, infinity (m = 2) and 0, +-3/4, +-5/4, infinity
 * (m = 4), whose reciprocal balance halves the error of the usual 0, +-1, +-2. Weights are
 * transformed in double. Relative to the norm of the exact output about 5e-7 (m = 2) and 1e-6
 * (m = 4) on random data of few channels; it grows with the root of the products' length up to 512
 * (3e-6), beyond which they are sums of several. An infinity or NaN spreads to all outputs of the
 * tiles that read it.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_WINOGRAD_H
#define KILN_BACKEND_CPU_PRIMS_WINOGRAD_H

#include "backend/cpu/prims/conv.h"

typedef struct kiln_winograd_args {
    const kiln_conv_args *conv;
    int64_t tile; /* m: 2 or 4 */
} kiln_winograd_args;

typedef struct kiln_winograd_prims {
    const char *isa;
    /* Packed weights; size and layout depend on c_in, c_out, kernel and the tile alone. Source:
     * ONNX's [c_out][c_in][D][3][3], dense. */
    int64_t (*packed_bytes)(const kiln_winograd_args *args);
    void (*pack)(void *dst, const float *src, const kiln_winograd_args *args);
    /* Bytes of scratch for each thread that calls run, 64-byte aligned, contents irrelevant. */
    int64_t (*scratch_bytes)(const kiln_winograd_args *args);
    /* Units of work for so many threads, and running a range of them. */
    int64_t (*units)(const kiln_winograd_args *args, int32_t threads);
    void (*run)(const kiln_winograd_args *args, int64_t units, int64_t begin, int64_t end,
                void *scratch);
} kiln_winograd_prims;

extern const kiln_winograd_prims kiln_winograd_prims_portable;
extern const kiln_winograd_prims kiln_winograd_prims_avx2;
extern const kiln_winograd_prims kiln_winograd_prims_avx512;

#endif
