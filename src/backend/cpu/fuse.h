/* fuse.h - what products and convolutions take along: bias, activation, residual, any elementwise
 * rest.
 *
 * At claim time kiln_fuse_chain walks the single uses of the product's output. What fits the
 * in-register epilogue (bias, one residual, one clamp, leaky ReLU or HardSwish) goes there; from
 * the first node that does not, the rest becomes a program that runs over each finished block;
 * kernels that can keep their blocks in scratch let it end in a QuantizeLinear to uint8. At bind
 * time kiln_fuse_bind, and for each run kiln_fuse_resolve, turn that into a kiln_epilogue over a
 * matrix of rows x channels.
 *
 * Where the result is held in bfloat16 (hold.h), the matrix is scratch that the team shares, and
 * the epilogue or the program writes the result:
 *
 *     kiln_fuse_hold(c, claim, &p->fused);                            (claim)
 *     kiln_fuse_bind_matrix(&s->fused, b, false, true);               (bind)
 *     args.y = kiln_fuse_matrix(&s->fused, call);                     (run) */
#ifndef KILN_BACKEND_CPU_FUSE_H
#define KILN_BACKEND_CPU_FUSE_H

#include "backend/cpu/chain.h"
#include "backend/cpu/prims/gemm.h"

typedef struct kiln_fused {
    int32_t channel; /* logical axis of the product's output that is the matrix's columns */
    int32_t bias_in; /* number of the claim's input, or -1 */
    int32_t residual_in;
    float slope, lo, hi;
    bool act_first, hard_swish;
    bool has_post;
    bool narrows;                      /* post writes the region's result, as bytes */
    kiln_chain post;                   /* its input 0 is the matrix itself */
    int32_t post_in[KILN_PROG_INPUTS]; /* claim inputs of the post program's inputs from 1 on */
    kiln_post_kind post_kind[KILN_PROG_INPUTS];
} kiln_fused;

/* Starts from `out`, the product's value (n columns along axis `channel`), and extends the claim;
 * out 0 of the claim becomes the last value taken. `bias` (may be NULL) is the product's own.
 * mask: the layouts of the output, which residuals share. bytes: a last QuantizeLinear is taken
 * too. False when out of memory. */
bool kiln_fuse_chain(kiln_claimer *c, kiln_claim *claim, kiln_fused *fused, kiln_value *out,
                     int32_t channel, kiln_value *bias, kiln_layout mask, bool bytes);
/* The same for kernels without an epilogue: a QuantizeLinear and nothing else. */
bool kiln_fuse_quantizer(kiln_claimer *c, kiln_claim *claim, kiln_fused *fused, kiln_value *out,
                         int32_t channel, kiln_layout mask);

/* The result, and for products of pairs a residual in the epilogue, may be held in bfloat16. */
void kiln_fuse_hold(const kiln_claimer *c, kiln_claim *claim, const kiln_fused *fused);

/* What a kernel's bound state keeps. */
typedef struct kiln_fused_state {
    const kiln_fused *fused;
    const kiln_program_prims *prims;
    int64_t columns;
    bool half, adds_half; /* how result and residual are held */
    bool in_registers;    /* the epilogue itself rounds the result */
    bool has_matrix;      /* in the shared memory ... */
    size_t matrix_at;     /* ... from this byte on */
} kiln_fused_state;
void kiln_fuse_bind(kiln_fused_state *s, const kiln_fused *fused, const kiln_binder *b,
                    int64_t columns);
/* For a result held in bfloat16. rounds: the prims know `result` and `addend` of the epilogue, so
 * that it needs no post, and no matrix unless partial sums rest in one. Adds the matrix that is
 * needed to b->shared_bytes. */
void kiln_fuse_bind_matrix(kiln_fused_state *s, kiln_binder *b, bool rounds, bool rests);
/* Where the kernel's matrix stands in this run: the result itself, or scratch. Without a matrix
 * that is no place to read or write. */
float *kiln_fuse_matrix(const kiln_fused_state *s, const kiln_call *call);
/* The epilogue for this run. `args` backs the post program and must live as long as the run. */
void kiln_fuse_resolve(const kiln_fused_state *s, const kiln_call *call, kiln_epilogue *out,
                       kiln_program_post_args *args);
/* Moves it on by `elements` of the result: to the next of several matrices. */
void kiln_fuse_advance(const kiln_fused_state *s, kiln_epilogue *io, kiln_program_post_args *args,
                       int64_t elements);

#endif
