/* gemm.h - float matrix product with packed weights and a fused epilogue, one set per ISA and form
 * of the weights.
 *
 *     C[M,N] = epilogue(A[M,K] * B[K,N])
 *
 * A and C are row-major with a row distance (lda, ldc) in elements; B is packed once, at build time
 * for weights or in the run for a product of two activations:
 *
 *     const kiln_gemm_prims *p = &kiln_gemm_prims_avx2;
 *     float *b = alloc(p->packed_bytes(k, n));                     (64-byte aligned)
 *     p->pack(b, weights, k, n, n, 1, 0, p->panels(n));            (row-major [K,N] source)
 *     kiln_gemm_args g = {.m = m, .n = n, .k = k, .a = x, .lda = k, .b = b, .c = y, .ldc = n,
 *                         .epilogue = KILN_EPILOGUE_NONE};
 *     p->run(&g, 0, p->tiles(&g));                                 (one thread)
 *
 * Several threads split [0, tiles) between them in any way: a tile is a block of rows times a block
 * of columns, and every element of C is one chain of K multiply-adds in ascending k that starts at
 * zero (on tile registers, of steps of 32 elements: tiles.h), whatever the blocking. So the bits
 * depend on the instruction set alone, never on the split.
 * Batches are loops of the caller.
 *
 * Forms: the weights are packed as float32, or in 16 bits (gemm_form.h), and the sums are float32
 * in each. For bfloat16 the elements of A must be rounded, too, and where the instruction set
 * multiplies pairs of them, A holds two in each word: `stage` makes such rows, K and lda then count
 * words.
 *
 * Packed layout: panels [ceil(N / nr)][words of K][nr], columns beyond N zero. nr is the prims'
 * constant.
 * Memory is read and written only inside the matrices as described, at any float alignment.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_GEMM_H
#define KILN_BACKEND_CPU_PRIMS_GEMM_H

#include "base/compiler.h"

#include <math.h>

/* What happens to a finished sum s of row m, column n before it is stored:
 *
 *     s += bias[n]
 *     act_first false: s = act(s + residual[m, n])     act_first true: s = act(s) + residual[m, n]
 *     act(s) = clamp(h(s < 0 ? slope * s : s), lo, hi)    NaN stays NaN
 *     h(s) = hard_swish ? s clamp(s / 6 + 1/2, 0, 1) : s
 *
 * then post, if any, runs over each finished block of C while it is in cache. */
typedef struct kiln_epilogue {
    const float *bias; /* [N], or NULL */
    const float
        *residual; /* (m, n) at residual[m * ld_residual + n], or NULL; must not overlap C */
    int64_t ld_residual;
    float slope;  /* 1: none; 0.01: a leaky ReLU */
    float lo, hi; /* -inf, inf: none; 0, inf: ReLU; 0, 6: ReLU6 */
    bool act_first;
    bool hard_swish;
    /* Forms whose word is a pair: bfloat16 in memory, element (m, n) where C has it when counted
     * from `origin`, the first element of C. result: what is stored, rounded, in place of C, which
     * then holds partial sums alone; not with post. addend: what is added in place of residual. */
    const float *origin;
    uint16_t *result;
    const uint16_t *addend;
    /* Called for every block [row0, row0 + rows) x [col0, col0 + cols) of C exactly once; c points
     * at the block's first element. Blocks tile C; their shapes are not part of the contract. */
    void (*post)(const void *arg, float *c, int64_t ldc, int64_t row0, int64_t rows, int64_t col0,
                 int64_t cols);
    const void *post_arg;
} kiln_epilogue;

/* The identity, as an initializer or compound literal. A zeroed struct is not the identity. */
#define KILN_EPILOGUE_NONE ((kiln_epilogue){.slope = 1.0f, .lo = -INFINITY, .hi = INFINITY})

/* How a product is cut up; 0: as the prims' rules say. Changes the time, never a bit. */
typedef struct kiln_gemm_blocking {
    int32_t tile_rows;   /* tallest register tile */
    int32_t block_rows;  /* rows of A that stay near while a group of panels passes */
    int32_t group_bytes; /* of B in a group */
    bool rows_last;      /* units that follow each other share rows of A, not a group of B */
} kiln_gemm_blocking;

/* Any of m, n, k may be 0; k == 0 stores epilogue(0). */
typedef struct kiln_gemm_args {
    int64_t m, n, k; /* k in words */
    const float *a;  /* (m, k) at a[m * lda + k] */
    int64_t lda;
    const void *b; /* packed */
    float *c;      /* (m, n) at c[m * ldc + n]; must not overlap a or b */
    int64_t ldc;
    kiln_epilogue epilogue;
    kiln_gemm_blocking blocking;
} kiln_gemm_args;

/* A block product whose rows are gathered: row m of A is `taps` pieces of `depth` words, piece t
 * at row[m * taps + t] + shift, or, where lda is not 0, at row[t] + shift + m * lda;
 * K = taps * depth. Convolutions are made of these. All panels of [0, n) are computed, rows [0, m)
 * of c are written (c, residual: row 0 of the block; bias: column 0). */
typedef struct kiln_gemm_gather {
    int64_t m, n, taps, depth;
    const float *const *row;
    int64_t shift;
    /* Where lda is not 0: rows in lines of `run`, row m at row[t] + shift + m / run * run_words +
     * m % run * lda; m is a multiple of run, run_words of lda. run 0: one line. */
    int64_t run, run_words;
    /* Bit t of alive[m]: piece t of row m has words other than zeros. NULL: all have. Pieces that
     * are zeros for all rows of a register tile are left out. */
    const uint64_t *alive;
    int64_t lda;
    const void *b; /* packed panels of this block's columns */
    float *c;
    int64_t ldc;
    const kiln_epilogue *epilogue; /* post is not called */
    const float *bias; /* replace the epilogue's own, already advanced to this block; or NULL */
    const float *residual;
} kiln_gemm_gather;

typedef struct kiln_gemm_prims {
    const char *isa;
    int32_t nr;    /* columns of a packed panel */
    int32_t mr;    /* rows of the gathered register tile */
    int32_t step;  /* elements of A in a word: 1 or 2 */
    int32_t whole; /* partial sums of up to so many words never rest in C */
    /* Panels of n columns, and the bytes of all of them for depth k, in elements. The caller has
     * checked that (n + nr) * k * 4 fits an int64. */
    int64_t (*panels)(int64_t n);
    int64_t (*packed_bytes)(int64_t k, int64_t n);
    /* Packs panels [panel_begin, panel_end) of the matrix whose element (k, n) is
     * src[k * stride_k + n * stride_n]. dst is the start of panel 0. */
    void (*pack)(void *dst, const float *src, int64_t k, int64_t n, int64_t stride_k,
                 int64_t stride_n, int64_t panel_begin, int64_t panel_end);
    /* Rows of n elements, dense, as rows of ceil(n / step) words of A, rounded as the form wants
     * them; NULL when A is read as it is. */
    void (*stage)(float *dst, const float *src, int64_t rows, int64_t n);
    /* Units of work, and running a range of them. */
    int64_t (*tiles)(const kiln_gemm_args *args);
    void (*run)(const kiln_gemm_args *args, int64_t tile_begin, int64_t tile_end);
    /* One gathered block, on the calling thread. */
    void (*gather)(const kiln_gemm_gather *args);
} kiln_gemm_prims;

extern const kiln_gemm_prims kiln_gemm_prims_portable;
extern const kiln_gemm_prims kiln_gemm_prims_avx2;
extern const kiln_gemm_prims kiln_gemm_prims_avx512;

#endif
