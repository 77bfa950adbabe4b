/* conv_q8.h - 8-bit convolution and transposed convolution over channels-last uint8 activations.
 *
 * The geometry is a kiln_conv_args (conv.h) of which sizes and strides alone are read (x_batch,
 * x_stride and x_channel in elements of x; x_channel 1, not planar); output pixel p is row p of
 * c_out channels, ldy elements apart. Use is as for kiln_conv_prims:
 *
 *     kiln_conv_q8_args c = {.shape = {...}, .x_zero = 128, .epilogue = {...}};
 *     w = alloc(p->packed_bytes(&c.shape));    p->pack(w, weights, &c.shape);
 *     scratch = alloc(p->scratch_bytes(&c.shape, c.epilogue.narrows));          (one per thread)
 *     p->run(&c, begin, end, scratch);                      (any split of [0, p->tiles(&c.shape)))
 *
 * How it runs: what a block of output pixels reads is staged (q8_stage.h), padding filled with the
 * zero point, and multiplied as a block (gemm_q8.h). Where the kernel is one or two dimensional the
 * input lines are staged as they are, pixels at equal distances, all groups at once
 * (KILN_CONV_LINES, and what AUTO takes); otherwise, or for KILN_CONV_PATCH, each pixel's patch. A
 * 1x1 convolution without stride or padding is one GEMM. The residues of a transposed convolution
 * are blocks of their own.
 *
 * With lines, weights are packed piece by piece: kernel rows, or single taps where dilation or
 * groups part them, each completed by zeros to the pieces of the product. Tile registers take 64
 * channels in a step: narrower groups are joined until they fill it, zeros standing where a group's
 * columns meet another's channels. */
#ifndef KILN_BACKEND_CPU_PRIMS_CONV_Q8_H
#define KILN_BACKEND_CPU_PRIMS_CONV_Q8_H

#include "backend/cpu/prims/conv.h"
#include "backend/cpu/prims/gemm_q8.h"

typedef struct kiln_conv_q8_args {
    kiln_conv_args shape;
    const uint8_t *x;
    uint8_t x_zero; /* what padding holds */
    const void *w;  /* packed */
    void *y;        /* uint8, or float with epilogue.to_float */
    /* Transposed: an output sums the taps of one residue, so start has a row for each residue,
     * ld_start elements apart. */
    kiln_q8_epilogue epilogue;
    int64_t ld_start;
} kiln_conv_q8_args;

typedef struct kiln_conv_q8_prims {
    const char *isa;
    /* Packed weights; what size and layout depend on is as for kiln_conv_prims, and the tactic and
     * dilation. Source, dense:
     * [c_out][taps][c_in / groups], place i of the taps being kernel position tap(shape, i) in
     * row-major order of D, H, W. */
    int64_t (*tap)(const kiln_conv_args *shape, int64_t i);
    /* Transposed: the residue of a kernel position, in [0, product of the strides). */
    int64_t (*residue)(const kiln_conv_args *shape, int64_t tap);
    int64_t (*packed_bytes)(const kiln_conv_args *shape);
    void (*pack)(void *dst, const int8_t *src, const kiln_conv_args *shape);
    /* Bytes of scratch for each thread that calls run, 64-byte aligned, contents irrelevant. */
    int64_t (*scratch_bytes)(const kiln_conv_args *shape, bool narrows);
    int64_t (*tiles)(const kiln_conv_args *shape);
    void (*run)(const kiln_conv_q8_args *args, int64_t tile_begin, int64_t tile_end, void *scratch);
} kiln_conv_q8_prims;

extern const kiln_conv_q8_prims kiln_conv_q8_prims_portable;
extern const kiln_conv_q8_prims kiln_conv_q8_prims_avx2;
extern const kiln_conv_q8_prims kiln_conv_q8_prims_avxvnni;
extern const kiln_conv_q8_prims kiln_conv_q8_prims_avx512;
extern const kiln_conv_q8_prims kiln_conv_q8_prims_avx512vnni;
extern const kiln_conv_q8_prims kiln_conv_q8_prims_amx;

#endif
