/* weights.h - constant weights as int8 with their scales, and biases as int32 beside them.
 *
 *     kiln_weight_job job = {.weight = w, .axis = 0, .bits = 8, .alpha = 1};
 *     kiln_weight made;
 *     KILN_TRY(kiln_weight_quantize(&made, &job, arena, env, diag));
 *     made.data, made.scale, made.zero        // inputs of a DequantizeLinear
 */
#ifndef KILN_QUANT_WEIGHTS_H
#define KILN_QUANT_WEIGHTS_H

#include "ir/graph.h"
#include "kiln/quant.h"

typedef struct kiln_weight_job {
    const kiln_value *weight; /* float32 constant, stored or an expression */
    const kiln_value *bias;   /* likewise [channels], to become int32; or NULL */
    int32_t axis;             /* of the weight, one scale for each index; -1: one for all */
    int32_t bits;
    kiln_calibrator calibrator; /* MSE: least squared error; PERCENTILE: that share of a scale's
                                   weights is inside; others: the greatest magnitude */
    double percentile;          /* of PERCENTILE */
    double alpha, x_scale; /* a bias of scale alpha * x_scale * w_scale is added to the product */
} kiln_weight_job;

typedef struct kiln_weight {
    kiln_tensor data, scale, zero; /* int8; float32 and int8 [channels], or scalars */
    struct kiln_weight *bias;      /* int32, float32, int32 [channels]; or NULL */
} kiln_weight;

/* Tensors are made in `arena`. KILN_F_PRECISION for numbers that are not finite; KILN_E_MEMORY. */
kiln_status kiln_weight_quantize(kiln_weight *out, const kiln_weight_job *job, kiln_arena *arena,
                                 const kiln_env *env, kiln_diag *diag);

/* Weights that several nodes use are quantized once, as long as the job is the same. */
typedef struct kiln_weight_cache {
    struct kiln_weight_done *items;
    size_t count, cap;
} kiln_weight_cache;

/* What kiln_weight_keep was given for an equal job, or NULL; NULL for jobs with a bias. */
kiln_value *kiln_weight_find(const kiln_weight_cache *cache, const kiln_weight_job *job);
kiln_status kiln_weight_keep(kiln_weight_cache *cache, const kiln_weight_job *job,
                             kiln_value *value, kiln_arena *arena);

#endif
