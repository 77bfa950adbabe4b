/* attrs.h - attribute structs that passes and kernels read too. Field names are ONNX's; absent
 * optional INTS have v == NULL. */
#ifndef KILN_OPS_ATTRS_H
#define KILN_OPS_ATTRS_H

#include "ir/op.h"

/* Padding modes of convolutions and pools (auto_pad), in the order of kiln_auto_pad_words. */
typedef enum kiln_auto_pad {
    KILN_PAD_NOTSET,
    KILN_PAD_SAME_UPPER,
    KILN_PAD_SAME_LOWER,
    KILN_PAD_VALID,
} kiln_auto_pad;
extern const char *const kiln_auto_pad_words[];

typedef struct kiln_conv_attrs {
    int32_t auto_pad;
    kiln_ints dilations;
    int64_t group;
    kiln_ints kernel_shape;
    kiln_ints pads;
    kiln_ints strides;
} kiln_conv_attrs;

typedef struct kiln_axis_attrs { /* Softmax, LogSoftmax, Hardmax, Concat, Gather, Flatten, ... */
    int64_t axis;
} kiln_axis_attrs;

typedef struct kiln_gather_nd_attrs { /* GatherND */
    int64_t batch_dims;
} kiln_gather_nd_attrs;

typedef struct kiln_perm_attrs { /* Transpose */
    kiln_ints perm;
} kiln_perm_attrs;

/* ---- Elementwise, convolutions, pools, matrices, reductions, norms, quantization ---- */

/* Activations with parameters, each operator using those its table lists: LeakyRelu, Elu, Celu,
 * Selu, ThresholdedRelu, HardSigmoid, Swish, SwiGLU, Shrink, Gelu. */
typedef struct kiln_activation_attrs {
    float alpha;
    float beta;          /* HardSigmoid */
    float gamma;         /* Selu */
    float bias, lambd;   /* Shrink */
    int32_t approximate; /* Gelu: 0 erf, 1 tanh */
} kiln_activation_attrs;

typedef struct kiln_mod_attrs {
    int64_t fmod;
} kiln_mod_attrs;

typedef struct kiln_conv_transpose_attrs {
    int32_t auto_pad;
    kiln_ints dilations;
    int64_t group;
    kiln_ints kernel_shape;
    kiln_ints output_padding;
    kiln_ints output_shape;
    kiln_ints pads;
    kiln_ints strides;
} kiln_conv_transpose_attrs;

typedef struct kiln_deform_conv_attrs {
    kiln_ints dilations;
    int64_t group;
    kiln_ints kernel_shape;
    int64_t offset_group;
    kiln_ints pads;
    kiln_ints strides;
} kiln_deform_conv_attrs;

typedef struct kiln_pool_attrs { /* MaxPool, AveragePool, LpPool, GlobalLpPool, MaxUnpool */
    int32_t auto_pad;
    int64_t ceil_mode;
    int64_t count_include_pad; /* AveragePool */
    kiln_ints dilations;
    kiln_ints kernel_shape;
    int64_t p; /* LpPool, GlobalLpPool */
    kiln_ints pads;
    int64_t storage_order; /* MaxPool */
    kiln_ints strides;
} kiln_pool_attrs;

typedef struct kiln_gemm_attrs {
    float alpha, beta;
    int64_t transA, transB;
} kiln_gemm_attrs;

typedef struct kiln_einsum_attrs {
    const char *equation;
} kiln_einsum_attrs;

typedef struct kiln_reduce_attrs { /* Reduce*; axes are input 1 */
    int64_t keepdims;
    int64_t noop_with_empty_axes;
} kiln_reduce_attrs;

typedef struct kiln_arg_attrs { /* ArgMax, ArgMin */
    int64_t axis;
    int64_t keepdims;
    int64_t select_last_index;
} kiln_arg_attrs;

typedef struct kiln_cumulative_attrs { /* CumSum, CumProd; the axis is input 1 */
    int64_t exclusive;
    int64_t reverse;
} kiln_cumulative_attrs;

/* LayerNormalization, RMSNormalization (axis, epsilon, stash_type), GroupNormalization (epsilon,
 * num_groups, stash_type), InstanceNormalization (epsilon). */
typedef struct kiln_norm_attrs {
    int64_t axis;
    float epsilon;
    int64_t num_groups;
    int64_t stash_type;
} kiln_norm_attrs;

typedef struct kiln_batch_norm_attrs {
    float epsilon, momentum;
    int64_t training_mode;
} kiln_batch_norm_attrs;

typedef struct kiln_lp_norm_attrs {
    int64_t axis;
    int64_t p;
} kiln_lp_norm_attrs;

typedef struct kiln_axes_attrs { /* MeanVarianceNormalization; absent: 0, 2, 3 */
    kiln_ints axes;
} kiln_axes_attrs;

typedef struct kiln_lrn_attrs {
    float alpha, beta, bias;
    int64_t size;
} kiln_lrn_attrs;

typedef struct kiln_quant_attrs { /* QuantizeLinear, DequantizeLinear */
    int64_t axis;
    int64_t block_size;
    int64_t output_dtype; /* 0: not given */
    int64_t precision;    /* QuantizeLinear; 0: not given */
    int64_t saturate;     /* QuantizeLinear */
} kiln_quant_attrs;

typedef struct kiln_cast_attrs { /* Cast, CastLike, BitCast */
    int32_t round_mode;          /* kiln_round_mode, for float8e8m0 */
    int64_t saturate;
    int64_t to; /* not in CastLike */
} kiln_cast_attrs;

/* ---- Data movement, control flow, generators, vision ---- */

typedef struct kiln_reshape_attrs {
    int64_t allowzero;
} kiln_reshape_attrs;

typedef struct kiln_split_attrs {
    int64_t axis;
    int64_t num_outputs; /* KILN_ABSENT: as many as the node has */
} kiln_split_attrs;

typedef struct kiln_pad_attrs {
    int32_t mode; /* 0 constant, 1 edge, 2 reflect, 3 wrap */
} kiln_pad_attrs;

typedef struct kiln_blocks_attrs { /* DepthToSpace, SpaceToDepth */
    int64_t blocksize;
    int32_t mode; /* 0 DCR, 1 CRD */
} kiln_blocks_attrs;

typedef struct kiln_resize_attrs {
    int64_t antialias;
    kiln_ints axes;
    int32_t coordinate_transformation_mode; /* kiln_resize_coords */
    float cubic_coeff_a;
    int64_t exclude_outside;
    float extrapolation_value;
    int32_t keep_aspect_ratio_policy; /* 0 stretch, 1 not_larger, 2 not_smaller */
    int32_t mode;                     /* 0 nearest, 1 linear, 2 cubic */
    int32_t nearest_mode; /* 0 round_prefer_floor, 1 round_prefer_ceil, 2 floor, 3 ceil */
} kiln_resize_attrs;

typedef enum kiln_resize_coords {
    KILN_RESIZE_HALF_PIXEL,
    KILN_RESIZE_HALF_PIXEL_SYMMETRIC,
    KILN_RESIZE_PYTORCH_HALF_PIXEL,
    KILN_RESIZE_ALIGN_CORNERS,
    KILN_RESIZE_ASYMMETRIC,
    KILN_RESIZE_TF_CROP,
} kiln_resize_coords;

/* ---- Recurrent networks and attention ---- */

typedef struct kiln_rnn_attrs { /* LSTM, GRU, RNN; see ops/recurrent.h for the activations */
    kiln_floats activation_alpha, activation_beta;
    kiln_strings activations;
    float clip;        /* 0: none */
    int32_t direction; /* 0 forward, 1 reverse, 2 bidirectional */
    int64_t hidden_size;
    int64_t input_forget;        /* LSTM */
    int64_t layout;              /* 0: [steps, batch, ...], 1: [batch, steps, ...] */
    int64_t linear_before_reset; /* GRU */
} kiln_rnn_attrs;

typedef struct kiln_attention_attrs {
    int64_t is_causal;
    int64_t kv_num_heads, q_num_heads;           /* KILN_ABSENT unless the inputs are 3-D */
    int64_t left_window_size, right_window_size; /* -1: unbounded */
    int64_t qk_matmul_output_mode; /* 0 scores, 1 after softcap, 2 with the mask, 3 probabilities */
    float scale;                   /* 0: 1 / sqrt(head size) */
    float softcap;                 /* 0: none */
    int64_t softmax_precision;     /* a dtype; KILN_ABSENT: the input's */
} kiln_attention_attrs;

typedef struct kiln_top_k_attrs {
    int64_t axis, largest, sorted;
} kiln_top_k_attrs;

typedef struct kiln_nms_attrs { /* NonMaxSuppression */
    int64_t center_point_box; /* x and y of the middle, width, height; else two corners, y first */
} kiln_nms_attrs;

typedef struct kiln_rotary_attrs { /* RotaryEmbedding, both domains */
    int64_t interleaved;
    int64_t is_packed_batching; /* com.microsoft */
    int64_t num_heads;
    int64_t rotary_embedding_dim; /* 0: the whole head */
    float scale;                  /* com.microsoft */
} kiln_rotary_attrs;

#endif
