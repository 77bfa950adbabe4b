/* gemm_q8.h - 8-bit matrix product with packed weights and a requantizing epilogue, one set per
 * instruction set and dot product.
 *
 *     C[M,N] = epilogue(start[N] + row_start[M] + A[M,K] * B[K,N])   A uint8, B int8, sums int32
 *
 * A lies in memory as it is, zero point and all: what the zero point adds to a sum, -zero * (sum of
 * the column of B), stands in start. Sums are exact as long as 255 * 128 * K < 2^31
 * (KILN_Q8_MAX_K), so neither blocking, nor threads, nor the instruction set changes a bit of C.
 *
 *     const kiln_gemm_q8_prims *p = target->prims->gemm_q8;
 *     b = alloc(p->packed_bytes(k, n));                                      (64-byte aligned)
 *     p->pack(b, weights, k, n, n, 1, 0, 0, p->panels(n));                   (row-major [K,N])
 *     kiln_gemm_q8_args g = {.m = m, .n = n, .k = k, .a = x, .lda = k, .b = b, .c = y, .ldc = n,
 *                            .epilogue = {...}};
 *     scratch = alloc(p->scratch_bytes(&g));                                 (one per thread)
 *     p->run(&g, 0, p->tiles(&g), scratch);                                  (one thread)
 *
 * Forms of the inner product: `group` 2 multiplies pairs of 16-bit numbers (multiply-add of
 * words, exact everywhere), so rows of A are widened into scratch, block by block; `group` 4 takes
 * four bytes at a time (dot-product instructions, or tile registers: tiles.h) and reads A in place
 * when K is a multiple of 4.
 *
 * Packed layout: panels of nr columns, the last as many whole vectors as it needs;
 * [ceil(K / group)][columns of the panel][group], zeros beyond K and N. Memory of A, C and residual
 * is touched only inside the matrices. */
#ifndef KILN_BACKEND_CPU_PRIMS_GEMM_Q8_H
#define KILN_BACKEND_CPU_PRIMS_GEMM_Q8_H

#include "backend/cpu/prims/gemm.h"

enum {
    KILN_Q8_MAX_K = 65792,
    KILN_Q8_TABLE_PAD = 16, /* elements readable past the end of start, scale and offset */
};

/* What a finished sum s of row m, column n becomes. Every operation rounds once, none contracts:
 *
 *     v = float(s) * scale[n] + offset[n]
 *     v = round_half_even(clamp(v, inner_lo, inner_hi)) * inner_scale          (with inner)
 *     v = v + float(residual[m, n] - residual_zero) * residual_scale           (with a residual)
 *     v = clamp(v, lo, hi)                                                     NaN becomes lo
 *     C[m, n] = round_half_even(v) + zero      or, to_float, v itself
 *
 * For 8-bit output lo and hi are integers and lo + zero, hi + zero lie in 0..255: clamping first
 * gives the same as saturating last, and ReLU and Clip are tighter bounds. inner is the rounding of
 * a product that is quantized before the residual is added; it needs a residual. */
typedef struct kiln_q8_epilogue {
    const int32_t *start;
    const float *scale, *offset;
    const uint8_t *residual; /* (m, n) at residual[m * ld_residual + n], or NULL */
    int64_t ld_residual;
    int32_t residual_zero;
    float residual_scale;
    float inner_scale, inner_lo, inner_hi;
    float lo, hi;
    int32_t zero;
    bool inner, to_float;
    const kiln_epilogue *floats; /* what happens to float results then, or NULL */
    /* to_float: results stand in scratch and nothing is written to C; floats->post, which sees
     * every block of them, takes them where they belong. */
    bool narrows;
} kiln_q8_epilogue;

/* Any of m, n, k may be 0. */
typedef struct kiln_gemm_q8_args {
    int64_t m, n, k;
    const uint8_t *a; /* (m, k) at a[m * lda + k] */
    int64_t lda;
    const void *b; /* packed */
    void *c;       /* uint8, or float with to_float; (m, n) at element m * ldc + n; no overlap;
                      unused when the epilogue narrows */
    int64_t ldc;
    const int32_t *row_start; /* [m] or NULL */
    kiln_q8_epilogue epilogue;
    kiln_gemm_blocking blocking; /* block_rows and group_bytes */
} kiln_gemm_q8_args;

/* A block of staged rows (see stage below) times panels of b. c and the epilogue's pointers stand
 * at the block's first element. Rows stand in lines of `run` (m is a multiple of it) and consist of
 * pieces of whole words: piece p of row i is at
 *
 *     row[p] + shift + i / run * run_bytes + i % run * lda_bytes
 *
 * run_bytes is a multiple of lda_bytes, and what stands between the rows of two lines may be read.
 * Several pieces have a multiple of `piece` elements each. */
typedef struct kiln_gemm_q8_block {
    int64_t m, n;
    int64_t pieces, words; /* words of a piece; b's follow each other */
    const char *const *row;
    int64_t shift, lda_bytes, run, run_bytes;
    const void *b;
    void *c;
    int64_t ldc;
    const int32_t *row_start;
    const kiln_q8_epilogue *epilogue;
} kiln_gemm_q8_block;

typedef struct kiln_gemm_q8_prims {
    const char *isa;
    int32_t nr;    /* columns of a packed panel */
    int32_t mr;    /* rows of the tallest register tile */
    int32_t group; /* elements of K in a word: 2 or 4 */
    int32_t piece; /* elements of K that a piece of a row of a block has a multiple of */
    int64_t (*panels)(int64_t n);
    int64_t (*packed_bytes)(int64_t k, int64_t n);
    /* Packs panels [panel_begin, panel_end) of the matrix whose element (k, n) is
     * src[k * stride_k + n * stride_n] ^ flip, as int8: flip 0x80 turns a uint8 into value - 128.
     * dst is the start of panel 0. */
    void (*pack)(void *dst, const void *src, int64_t k, int64_t n, int64_t stride_k,
                 int64_t stride_n, uint8_t flip, int64_t panel_begin, int64_t panel_end);
    /* sums[j] = factor * (sum of packed column j), for the whole vectors of these panels. */
    void (*columns)(int32_t *sums, const void *b, int64_t k, int64_t n, int32_t factor,
                    int64_t panel_begin, int64_t panel_end);
    int32_t (*sum)(const uint8_t *x, int64_t n);
    /* Units of work, scratch of a thread (64-byte aligned), and running a range of units. */
    int64_t (*tiles)(const kiln_gemm_q8_args *args);
    int64_t (*scratch_bytes)(const kiln_gemm_q8_args *args);
    void (*run)(const kiln_gemm_q8_args *args, int64_t tile_begin, int64_t tile_end, void *scratch);
    /* Rows put together by the caller (q8_stage.h): a staged row of one piece has stage_bytes(k)
     * bytes, of which ceil(k / group) words count. */
    int64_t (*stage_bytes)(int64_t k);
    void (*block)(const kiln_gemm_q8_block *block);
} kiln_gemm_q8_prims;

extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_portable;
extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_avx2;
extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_avxvnni;
extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_avx512;
extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_avx512vnni;
extern const kiln_gemm_q8_prims kiln_gemm_q8_prims_amx;

#endif
