/* move.h - moving elements: strided copies and transposes, padding, gathering rows, resizing.
 *
 * One copy primitive serves every layout change whose source and destination are both strided:
 * transposes, NCHW <-> NHWC, permutes, slices with steps and negative steps, concat and split
 * (one copy per part), space-to-depth and back (a permute of rank 6), expand (source stride 0).
 *
 *     NCHW -> NHWC of [N, C, S] floats: dims N S C
 *     const int64_t dims[] = {N, S, C}, src[] = {C * S, 1, S}, dst[] = {S * C, C, 1};
 *     kiln_copy_plan plan;
 *     kiln_copy_plan_make(&plan, 4, 3, dims, src, dst);
 *     prims->copy(&plan, x, y, 0, plan.units);
 *
 * All ranges may be cut anywhere. Sources and destinations do not overlap. Element types do not
 * matter but for their size; resize is float32.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_MOVE_H
#define KILN_BACKEND_CPU_PRIMS_MOVE_H

#include "base/compiler.h"

enum { KILN_COPY_RANK = 8 };

typedef enum kiln_copy_kind {
    KILN_COPY_ROWS,      /* the last dim is contiguous on both sides */
    KILN_COPY_TRANSPOSE, /* the last dim is contiguous in dst, the one before it in src */
    KILN_COPY_STRIDED,   /* anything else: element by element along the last dim */
} kiln_copy_kind;

/* The collapsed space, destination order. Strides in elements. */
typedef struct kiln_copy_plan {
    kiln_copy_kind kind;
    int32_t element_bytes; /* 1, 2, 4, 8 */
    int32_t rank;          /* 1 .. KILN_COPY_RANK */
    int64_t dims[KILN_COPY_RANK];
    int64_t src[KILN_COPY_RANK];
    int64_t dst[KILN_COPY_RANK];
    int64_t outer;  /* product of the dims a unit does not span */
    int64_t group;  /* outer rows per unit (ROWS, STRIDED) */
    int64_t piece;  /* elements per unit of a cut row (ROWS), or of the transposed dim */
    int64_t pieces; /* units per outer index */
    int64_t units;  /* what copy's range counts */
} kiln_copy_plan;

/* Plans dst[i . dst_stride] = src[i . src_stride] for all i below dims. Strides in elements, any
 * sign (destination strides must not make elements coincide). Errors: KILN_E_UNSUPPORTED when more
 * than KILN_COPY_RANK dims remain after collapsing or the element size is none of 1, 2, 4, 8. */
kiln_status kiln_copy_plan_make(kiln_copy_plan *plan, int32_t element_bytes, int32_t rank,
                                const int64_t *dims, const int64_t *src_stride,
                                const int64_t *dst_stride);

/* ---- Padding ------------------------------------------------------------------------------- */

typedef enum kiln_pad_mode {
    KILN_PAD_CONSTANT,
    KILN_PAD_EDGE,
    KILN_PAD_REFLECT,
    KILN_PAD_WRAP
} kiln_pad_mode;

/* Fills map[0 .. out): the input index each output index takes, -1 for the constant. `before` may
 * be negative (cropping), and so may out - in - before. Needs in >= 1 unless the mode is
 * CONSTANT. */
void kiln_pad_map(int32_t *map, kiln_pad_mode mode, int64_t in, int64_t out, int64_t before);

/* y = x with every dim mapped. The last dim's element may itself be a run of unpadded dims:
 * item_bytes is its size. Unit: one row of the last dim, 0 .. product of out[0 .. rank-2]. */
typedef struct kiln_pad_args {
    int32_t rank; /* 1 .. KILN_COPY_RANK */
    int64_t in[KILN_COPY_RANK], out[KILN_COPY_RANK];
    const int32_t *map[KILN_COPY_RANK]; /* from kiln_pad_map */
    int64_t item_bytes;                 /* a multiple of value_bytes */
    int32_t value_bytes;                /* 1, 2, 4, 8 */
    uint64_t value;                     /* the constant's bits, low bytes first */
    const void *x;
    void *y;
} kiln_pad_args;

/* ---- Gathering rows
 * ---------------------------------------------------------------------------- */

/* y[outer, count, row] = x[outer, n, row] at indices: ONNX Gather, negative indices from the end.
 * Unit: one row of 0 .. outer * count. */
typedef struct kiln_gather_args {
    int64_t n, count, row_bytes;
    int32_t index_bytes; /* 4 or 8: int32 or int64 indices */
    const void *index;   /* [count] */
    const void *x;
    void *y;
} kiln_gather_args;

/* ---- Resizing
 * ------------------------------------------------------------------------------------ */

typedef enum kiln_resize_mode {
    KILN_RESIZE_NEAREST,
    KILN_RESIZE_LINEAR,
    KILN_RESIZE_CUBIC
} kiln_resize_mode;

typedef enum kiln_resize_coord {
    KILN_COORD_HALF_PIXEL,
    KILN_COORD_HALF_PIXEL_SYMMETRIC,
    KILN_COORD_PYTORCH_HALF_PIXEL,
    KILN_COORD_ALIGN_CORNERS,
    KILN_COORD_ASYMMETRIC,
    KILN_COORD_TF_CROP,
} kiln_resize_coord;

typedef enum kiln_resize_round {
    KILN_ROUND_PREFER_FLOOR,
    KILN_ROUND_PREFER_CEIL,
    KILN_ROUND_FLOOR,
    KILN_ROUND_CEIL,
} kiln_resize_round;

/* One axis, as ONNX Resize describes it. */
typedef struct kiln_resize_spec {
    kiln_resize_mode mode;
    kiln_resize_coord coord;
    kiln_resize_round round; /* NEAREST */
    bool exclude_outside;    /* taps outside weigh nothing; the rest are scaled to sum 1 */
    bool antialias;          /* LINEAR and CUBIC: widen the filter when shrinking */
    int64_t in, out;
    double scale;             /* as the model gives it, or out / in; > 0 and finite */
    float roi_start, roi_end; /* TF_CROP, normalised */
    float cubic_a;            /* usually -0.75 */
} kiln_resize_spec;

/* Input taps per output element. */
int32_t kiln_resize_taps(const kiln_resize_spec *spec);
/* Fills index and weight, [out][taps] each. Index -1 in the first tap: outside a TF_CROP region. */
void kiln_resize_table(int32_t *index, float *weight, const kiln_resize_spec *spec);

typedef struct kiln_resize_axis {
    int64_t in, out;
    int32_t taps;
    const int32_t *index;
    const float *weight;
} kiln_resize_axis;

/* x[batch, D, H, W, C] -> y[batch, OD, OH, OW, C]; lower ranks lead with axes of one tap, index 0,
 * weight 1. Unit: one output row, 0 .. batch * OD * OH. */
typedef struct kiln_resize_args {
    kiln_resize_axis axis[3]; /* depth, height, width */
    int64_t channels;
    float outside; /* value outside a TF_CROP region */
    const float *x;
    float *y;
} kiln_resize_args;

/* Floats of scratch each thread gives to resize. */
static inline int64_t kiln_resize_scratch(const kiln_resize_args *args) {
    return args->axis[2].in * args->channels;
}

typedef struct kiln_move_prims {
    void (*copy)(const kiln_copy_plan *plan, const void *src, void *dst, int64_t unit0,
                 int64_t unit1);
    void (*pad)(const kiln_pad_args *args, int64_t row0, int64_t row1);
    /* Returns the first unit whose index is out of range, or -1. The rows before it are written. */
    int64_t (*gather)(const kiln_gather_args *args, int64_t row0, int64_t row1);
    void (*resize)(const kiln_resize_args *args, float *scratch, int64_t row0, int64_t row1);
} kiln_move_prims;

extern const kiln_move_prims kiln_move_prims_portable;
extern const kiln_move_prims kiln_move_prims_avx2;
extern const kiln_move_prims kiln_move_prims_avx512;

#endif
