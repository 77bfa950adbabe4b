/* half.h - products that hold their weights in 16 bits: bfloat16 or float16 where a node's
 * precision asks for it.
 *
 * Sums are float32 in each. bfloat16: both operands are rounded to it (to nearest even); products
 * of two such numbers are exact in float32. float16: the weights are rounded to it, activations and
 * arithmetic stay float32, so that nothing overflows that did not before.
 *
 * A kernel of this kind stages its activations before it multiplies, where they are not held as the
 * prims take them (hold.h):
 *
 *     kiln_stage_hold(c, claim, channels);                          (claim)
 *     kiln_stage_bind(&s->stage, b, prims, rows, columns);          (bind)
 *     args.a = kiln_stage_run(&s->stage, call, team);               (run; all members meet)
 */
#ifndef KILN_BACKEND_CPU_KERNELS_HALF_H
#define KILN_BACKEND_CPU_KERNELS_HALF_H

#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/gemm.h"

/* The node's precision is the one the kernel computes in (NONE: any); refuses otherwise. */
bool kiln_half_asked(kiln_claimer *c, const kiln_node *node, const kiln_kernel *kernel);

/* Input 0 of the claim as `rows` rows of n elements, in the words that the prims take. */
typedef struct kiln_stage {
    /* Of the prims; NULL: read in place. */
    void (*stage)(float *dst, const float *src, int64_t rows, int64_t n);
    int64_t rows, n, words;
    bool in_words; /* whoever makes them, run returns rows of words */
} kiln_stage;

/* Input 0, rows of n elements, may be held in bfloat16. */
void kiln_stage_hold(const kiln_claimer *c, kiln_claim *claim, int64_t n);

/* Rows longer than a part are cut where that changes nothing. Adds to b->shared_bytes. */
void kiln_stage_bind(kiln_stage *s, kiln_binder *b, const kiln_gemm_prims *prims, int64_t rows,
                     int64_t n);
/* This member's share; returns where the words stand once all members have done theirs. */
const float *kiln_stage_run(const kiln_stage *s, const kiln_call *call, const kiln_team *team);

/* kiln_kernel.reference: the region's body, with the anchor's operands rounded as above. */
kiln_status kiln_half_reference(const kiln_claim *claim, const kiln_datum *in, kiln_datum *out,
                                kiln_arena *arena, kiln_diag *diag);

/* A kernel of such a family: `claim_for(c, node, kernel)`, pack, bind and run are the file's, for
 * every precision. */
#define KILN_PRODUCT_KERNEL(id, dtype, reference_, tactics_)          \
    static kiln_claim *claim_##id(kiln_claimer *c, kiln_node *node) { \
        return claim_for(c, node, &kiln_kernel_##id);                 \
    }                                                                 \
    const kiln_kernel kiln_kernel_##id = {                            \
        .name = #id,                                                  \
        .claim = claim_##id,                                          \
        .pack = pack,                                                 \
        .bind = bind,                                                 \
        .run = run,                                                   \
        .computes = KILN_DTYPE_##dtype,                               \
        .reference = reference_,                                      \
        .tactics = tactics_,                                          \
    };

#endif
