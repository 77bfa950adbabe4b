/* q8_dynamic.h - what follows the integer product of a dynamically quantized layer:
 *
 *     [x_scale * w_scale]    MatMulInteger or ConvInteger    Cast    [Mul]    [Add bias]    fuse.h
 *
 * x is uint8 with a zero point, and the factor of the Mul with a scale, that are known at run time
 * only; w is constant, int8 with zero point 0 or uint8 with 128. Each run makes the tables of
 * the epilogue (gemm_q8.h) from the weights' column sums and the constant part of the factor, which
 * the team shares; then it meets. In real numbers written s * (q - z) that is
 *
 *     y = float(sum (x - zx) w) * (sx sw) + bias        each operation rounded once
 */
#ifndef KILN_BACKEND_CPU_KERNELS_Q8_DYNAMIC_H
#define KILN_BACKEND_CPU_KERNELS_Q8_DYNAMIC_H

#include "backend/cpu/kernels/q8_region.h"

typedef struct kiln_q8_dynamic {
    kiln_fused fused;
    const kiln_value *w_scale; /* constant part of the factor: one, or one a column; or NULL: 1 */
    const kiln_value *bias;    /* constant, one a column; or NULL */
    int32_t zero_in;           /* numbers of the claim's inputs, or -1: x's zero point */
    int32_t scale_in;          /* one number */
    int32_t scales_in;         /* one a column */
    int64_t n;                 /* columns */
    bool has_tail;             /* float work follows */
} kiln_q8_dynamic;

/* Takes along what follows `claim->anchor`, whose n columns lie along axis `channel` of its result,
 * and sets the claim's input 0, activations, and its output 0, both in layouts `mask`. False: the
 * claim is refused (c->reason), or out of memory. */
bool kiln_q8_dynamic_claim(kiln_claimer *c, kiln_claim *claim, kiln_q8_dynamic *d, int32_t channel,
                           int64_t n, kiln_layout mask);

/* The blob of constant tables: factor, bias, and behind them the sums of the columns, which the
 * caller adds to. NULL with *status while measuring or when out of memory. */
float *kiln_q8_dynamic_blob(kiln_packer *k, const kiln_q8_dynamic *d, kiln_status *status);
static inline int32_t *kiln_q8_dynamic_sums(const kiln_q8_dynamic *d, float *blob) {
    return (int32_t *)(void *)(blob + 2 * kiln_q8_stride(d->n));
}

/* Fills factor and bias. */
kiln_status kiln_q8_dynamic_pack(kiln_packer *k, const kiln_q8_dynamic *d, float *blob);

typedef struct kiln_q8_dynamic_bound {
    const kiln_q8_dynamic *d;
    kiln_fused_state fused;
} kiln_q8_dynamic_bound;

/* Sets b->shared_bytes. */
void kiln_q8_dynamic_bind(kiln_q8_dynamic_bound *s, const kiln_q8_dynamic *d, kiln_binder *b);

/* The zero point of this run. */
int32_t kiln_q8_dynamic_zero(const kiln_q8_dynamic_bound *s, const kiln_call *call);
/* Makes the tables of this run, by all of the team, which then meets. `blob` is the packed one.
 * Fills the epilogue; `floats` and `post` back it. */
void kiln_q8_dynamic_begin(const kiln_q8_dynamic_bound *s, const kiln_call *call,
                           const kiln_team *team, const void *blob, kiln_q8_epilogue *epilogue,
                           kiln_epilogue *floats, kiln_program_post_args *post);

#endif
