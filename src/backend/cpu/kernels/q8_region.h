/* q8_region.h - what the 8-bit kernels claim: a product or convolution between quantized values.
 *
 *     [DQ(x)] [DQ(w)] [DQ(bias)]  anchor  [Add bias] [Add DQ(r)] [Relu, Clip ...] [Q]
 *
 * (without that Q also whatever of fuse.h follows, and a Q after that) or, where the product is
 * quantized before something is added to it,
 *
 *     ... anchor  [Add bias] [Relu, Clip ...] Q DQ  Add DQ(r) [Relu, Clip ...] [Q]
 *
 * x, r and the result are uint8 with one scale and zero point each; w is constant, int8 with zero
 * point 0 or uint8 with zero point 128, its scales along the output channels. Without the last Q
 * the region gives float32. With real numbers written s * (q - z) the region computes
 *
 *     y = sum (sx (x - zx)) (sw w) + bias + sr (r - zr)        then clamped, then y / sy, rounded
 *
 * which the kernels bring to one exact sum and a few float operations, each rounded once:
 *
 *     acc = sum x w - zx sum w                                          int32
 *     v = float(acc) * (sx sw / sy) + bias / sy + float(r - zr) * (sr / sy)
 *     q = int(round_half_even(clamp(v, lo, hi))) + zy
 *
 * With a Q in between, v is first clamped, rounded and brought from that Q's steps to those of y.
 * The factors are computed in double and rounded to float32 once. (bias / sy stays a float number:
 * in units of acc a bias need not fit an integer when its channel's weights are tiny.) Against the
 * nodes' own references a result is off by one step at most. */
#ifndef KILN_BACKEND_CPU_KERNELS_Q8_REGION_H
#define KILN_BACKEND_CPU_KERNELS_Q8_REGION_H

#include "backend/cpu/fuse.h"
#include "backend/cpu/prims/gemm_q8.h"

/* One scale and zero point. */
typedef struct kiln_q8_scalar {
    double scale;
    int32_t zero;
} kiln_q8_scalar;

typedef struct kiln_q8_region {
    const kiln_node *anchor;
    const kiln_node *w;       /* DequantizeLinear of the weights; NULL: an activation */
    kiln_q8_scalar w_scalar;  /* of that */
    const kiln_value *bias;   /* float vector along the channels, or NULL */
    int32_t channel;          /* axis of the output with one weight scale each */
    int32_t residual_in;      /* number of the claim's input, or -1 */
    kiln_q8_scalar x, y, r;   /* y: only with to_uint8 */
    kiln_q8_scalar inner;     /* of the Q before the residual */
    float inner_lo, inner_hi; /* real bounds of the activation before that Q */
    float lo, hi;             /* of the last activation */
    double alpha;             /* factor of the product (Gemm) */
    bool has_inner, to_uint8;
    const kiln_value *last; /* where the arithmetic above ends */
    kiln_fused tail;        /* without to_uint8: float work from there on */
    bool has_tail;
} kiln_q8_region;

/* Reads the single constant scale and zero point of a Q or DQ node between float32 and uint8. */
bool kiln_q8_read_scalar(const kiln_node *node, kiln_q8_scalar *out);

/* Why the DequantizeLinear's constant weights do not fit, with scales along `channel`, or NULL. */
const char *kiln_q8_check_weights(const kiln_node *dq, int32_t channel);

/* Starts the region around `anchor`, whose output's channels lie along `channel` and whose weights'
 * along `w_channel`: takes the nodes before it along and sets the claim's input 0 to x in layout
 * `mask`. `bias` (may be NULL) is the anchor's own. False: the claim is refused (c->reason), or out
 * of memory. */
bool kiln_q8_begin(kiln_claimer *c, kiln_claim *claim, kiln_q8_region *region, int32_t channel,
                   int32_t w_channel, kiln_value *bias, kiln_layout mask);
/* The same for a MatMul whose second operand is an activation too: inputs 0 and 1, both ROW. */
bool kiln_q8_begin_pair(kiln_claimer *c, kiln_claim *claim, kiln_q8_region *region,
                        int32_t channel);
/* Takes along what follows and sets the claim's output 0. */
bool kiln_q8_extend(kiln_claimer *c, kiln_claim *claim, kiln_q8_region *region, kiln_layout mask);

/* A constant's bytes as int8, uint8 less 128, dense in ONNX's order. */
kiln_status kiln_q8_bytes(kiln_packer *p, const kiln_value *value, kiln_tensor *out);
/* Zero points that are all `want`; NULL stands for zero. */
bool kiln_q8_zeros_are(const kiln_value *zero, int64_t want);

/* The epilogue's tables for n channels in one blob of kiln_q8_table_bytes: scale, offset, then
 * `rows` rows of start, each kiln_q8_stride(n) elements. Fills scale and offset; start is zero. */
static inline int64_t kiln_q8_stride(int64_t n) {
    return n + KILN_Q8_TABLE_PAD;
}
int64_t kiln_q8_table_bytes(int64_t n, int64_t rows);
kiln_status kiln_q8_tables(const kiln_q8_region *region, int64_t n, void *blob, kiln_arena *scratch,
                           kiln_diag *diag);

/* A constant matrix [k, n], or [n, k] when transposed. */
typedef struct kiln_q8_matrix {
    int64_t k, n;
    bool transposed;
    int32_t factor;
} kiln_q8_matrix;
/* Packs the bytes of `value` as the next blob, and makes tables with one row of start as the one
 * after it: start is factor times the sum of each column, the rest zero. *tables is NULL where
 * kiln_pack_blob wants no contents. */
kiln_status kiln_q8_pack_matrix(kiln_packer *p, const kiln_value *value, const kiln_q8_matrix *w,
                                float **tables);

/* For a second activation: scale and offset, the same for all columns; no start. */
void kiln_q8_pair_scales(const kiln_q8_region *region, int64_t n, float *tables);

/* The epilogue over such a blob. */
kiln_q8_epilogue kiln_q8_epilogue_of(const kiln_q8_region *region, int64_t n, const void *blob);

/* What a bound kernel keeps of the region, and for each run: `floats` and `args` back the epilogue
 * and must live as long as the run. */
typedef struct kiln_q8_bound {
    const kiln_q8_region *region;
    kiln_fused_state tail;
} kiln_q8_bound;
void kiln_q8_bind(kiln_q8_bound *bound, const kiln_q8_region *region, const kiln_binder *b,
                  int64_t n);
void kiln_q8_resolve(const kiln_q8_bound *bound, const kiln_call *call, kiln_q8_epilogue *io,
                     kiln_epilogue *floats, kiln_program_post_args *args);

/* Moves what was resolved on by `elements` of the result: to the next of several matrices. */
void kiln_q8_advance(const kiln_q8_bound *bound, kiln_q8_epilogue *io, kiln_epilogue *floats,
                     kiln_program_post_args *args, int64_t elements);

/* kiln_kernel.reference for kernels whose params begin with a kiln_q8_region. */
kiln_status kiln_q8_reference(const kiln_claim *claim, const kiln_datum *in, kiln_datum *out,
                              kiln_arena *arena, kiln_diag *diag);

#endif
