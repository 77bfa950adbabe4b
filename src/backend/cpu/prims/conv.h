/* conv.h - float convolution and transposed convolution over channels-last activations.
 *
 * One form serves all ranks: spatial axes are always D, H, W; a 2-D problem has D = 1, a 1-D
 * problem D = H = 1 (kernel, stride, dilation 1, pad 0 there). Depthwise problems belong to
 * depthwise.h.
 *
 *     kiln_conv_args c = {.batch = 1, .groups = 1, .c_in = 64, .c_out = 64,
 *                         .in = {1, 56, 56}, .out = {1, 56, 56}, .kernel = {1, 3, 3},
 *                         .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .pad = {0, 1, 1},
 *                         .x_batch = 56 * 56 * 64, .x_stride = {56 * 56 * 64, 56 * 64, 64},
 *                         .x_channel = 1, .ldy = 64, .epilogue = KILN_EPILOGUE_NONE};
 *     const kiln_conv_prims *p = &kiln_conv_prims_avx2;
 *     w = alloc(p->packed_bytes(&c));      p->pack(w, oihw_weights, &c);        (at build time)
 *     scratch = alloc(p->scratch_bytes(&c));                                    (one per thread)
 *     c.x = x; c.w = w; c.y = y;
 *     p->run(&c, begin, end, scratch);                        (any split of [0, p->tiles(&c)))
 *
 * How it runs: a block of output pixels is a block product whose rows are gathered (gemm.h). Either
 * each row is a list of pointers, one per kernel tap, to the channels of an input pixel or to a row
 * of zeros (KILN_CONV_GATHER), or the pixels' patches are copied into scratch first
 * (KILN_CONV_PATCH, for few channels and for planar input), or the input lines are copied, with
 * their padding, and rows stand in them at equal distances (KILN_CONV_LINES). A 1x1 convolution
 * without stride or padding is one GEMM. In a transposed convolution with stride s the outputs of
 * one residue modulo s see only the taps of that residue: each is an ordinary small convolution.
 *
 * Forms of the weights are those of gemm.h. Where a word holds two elements, x is what `stage` of
 * the GEMM prims made of each pixel's channels of a group, the strides of x count words, and planar
 * is not for it.
 *
 * Every output is one chain of multiply-adds in the order of the packed weights that starts at
 * zero, so the bits depend on neither the split nor the tactic. Padded taps multiply zeros.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_CONV_H
#define KILN_BACKEND_CPU_PRIMS_CONV_H

#include "backend/cpu/prims/gemm.h"

typedef enum kiln_conv_tactic {
    KILN_CONV_AUTO = 0,
    KILN_CONV_GATHER, /* needs x_channel == 1 and not planar */
    KILN_CONV_PATCH,  /* not for transposed */
    KILN_CONV_LINES,  /* of 1-D and 2-D, not transposed, not planar; any x_channel; others: AUTO */
} kiln_conv_tactic;

typedef struct kiln_conv_args {
    int64_t batch, groups;
    int64_t c_in, c_out; /* of all groups; multiples of groups */
    int64_t in[3], out[3], kernel[3];
    int64_t stride[3], dilation[3]; /* >= 1 */
    int64_t pad[3]; /* before each axis; what stands after it follows from out. May be negative */
    /* Transposed: out = (in - 1) * stride - pads + dilation * (kernel - 1) + 1 + output padding. */
    bool transposed;
    /* Packed order [channel][tap] instead of [tap][channel]. Not with transposed or lines. */
    bool planar;
    /* Input element (n, d, h, w, c) is at
     *     x[n * x_batch + d * x_stride[0] + h * x_stride[1] + w * x_stride[2] + c * x_channel].
     * Channels-last has x_channel 1; an NCHW image as it comes has x_channel H * W, and wants
     * planar. */
    const float *x;
    int64_t x_batch, x_stride[3], x_channel;
    const void *w; /* packed */
    /* Output pixel p of image n, in row-major order of D, H, W, is row n * pixels + p:
     * c_out channels at y + row * ldy. The epilogue's residual and post use the same rows. */
    float *y;
    int64_t ldy;
    kiln_epilogue epilogue;
    kiln_conv_tactic tactic;
    kiln_gemm_blocking blocking; /* block_rows: output pixels. Not for gathered tiles: tile_rows */
} kiln_conv_args;

typedef struct kiln_conv_prims {
    const char *isa;
    /* Packed weights. The size and the layout depend on groups, c_in, c_out, kernel, transposed,
     * planar and, when transposed, on stride and dilation; no other field is read. Source: ONNX
     * order, dense:
     *     convolution  [c_out][c_in / groups][D][H][W]
     *     transposed   [c_in][c_out / groups][D][H][W] */
    int64_t (*packed_bytes)(const kiln_conv_args *args);
    void (*pack)(void *dst, const float *src, const kiln_conv_args *args);
    /* Bytes of scratch for each thread that calls run, 64-byte aligned, contents irrelevant. */
    int64_t (*scratch_bytes)(const kiln_conv_args *args);
    /* Units of work, and running a range of them. */
    int64_t (*tiles)(const kiln_conv_args *args);
    void (*run)(const kiln_conv_args *args, int64_t tile_begin, int64_t tile_end, void *scratch);
} kiln_conv_prims;

extern const kiln_conv_prims kiln_conv_prims_portable;
extern const kiln_conv_prims kiln_conv_prims_avx2;
extern const kiln_conv_prims kiln_conv_prims_avx512;

#endif
