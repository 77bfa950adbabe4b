/* quantize.c - QuantizeLinear and DequantizeLinear.
 *
 * y = sat(round_half_even(x / scale) + zero) and x = (y - zero) * scale, with one scale per tensor,
 * per index of an axis, or per block along it. The quotient is rounded to the type of the scale (or
 * to `precision`) before it is rounded to an integer. */
#include "ops/quantize.h"

#include "ops/bulk.h"
#include "ops/narrow.h"
#include "ops/ops.h"
#include "ops/requantize.h"

#define T_F8 (KILN_T(F8E4M3FN) | KILN_T(F8E4M3FNUZ) | KILN_T(F8E5M2) | KILN_T(F8E5M2FNUZ))
#define T_QUANT                                                                                   \
    (KILN_T(I8) | KILN_T(U8) | KILN_T(I16) | KILN_T(U16) | KILN_T(I4) | KILN_T(U4) | KILN_T(I2) | \
     KILN_T(U2) | T_F8 | KILN_T(F4E2M1))
#define T_HALF_FLOAT (KILN_T(F32) | KILN_T(F16) | KILN_T(BF16))

static const kiln_attr quantize_table[] = {
    KILN_A_INT(kiln_quant_attrs, axis, 1),         KILN_A_INT(kiln_quant_attrs, block_size, 0),
    KILN_A_INT(kiln_quant_attrs, output_dtype, 0), KILN_A_INT(kiln_quant_attrs, precision, 0),
    KILN_A_INT(kiln_quant_attrs, saturate, 1),
};
static const kiln_attr dequantize_table[] = {
    KILN_A_INT(kiln_quant_attrs, axis, 1),
    KILN_A_INT(kiln_quant_attrs, block_size, 0),
    KILN_A_INT(kiln_quant_attrs, output_dtype, 0),
};

/* ---- Inference ---- */

static bool dtype_in(int64_t dtype, uint32_t set) {
    return dtype > 0 && dtype < KILN_DTYPE_COUNT && ((set >> dtype) & 1);
}

static kiln_status check_blocks(const kiln_infer *c, int32_t axis, int64_t block) {
    int32_t rank = kiln_infer_in_rank(c, 0);
    for (int32_t i = 0; i < rank; i++) {
        kiln_dim x = kiln_infer_dim(c, 0, i), s = kiln_infer_dim(c, 1, i);
        bool both = kiln_dim_known(x) && kiln_dim_known(s);
        int64_t want = i == axis && both ? x / block + (x % block != 0) : x;
        if (both && s != want) {
            return KILN_INFER_FAIL(
                c, SHAPE,
                "dim %d of the scale is %lld, %lld are needed for %lld in blocks of "
                "%lld along axis %d",
                i, (long long)s, (long long)want, (long long)x, (long long)block, axis);
        }
    }
    return KILN_OK;
}

/* The scale is a scalar, [1], [dim of the axis], or with block_size of x's rank. */
static kiln_status check_scale(const kiln_infer *c) {
    const kiln_quant_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0), scale_rank = kiln_infer_in_rank(c, 1), axis;
    if (a->block_size < 0) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "block_size is %lld", (long long)a->block_size);
    }
    if (rank < 0 || scale_rank < 0) {
        return KILN_OK;
    }
    bool single = true;
    for (int32_t i = 0; i < scale_rank; i++) {
        single = single && kiln_infer_dim(c, 1, i) == 1;
    }
    if (single && (scale_rank <= 1 || a->block_size == 0)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
    if (a->block_size > 0) {
        KILN_TRY(kiln_infer_rank(c, 1, rank, rank));
        return check_blocks(c, axis, a->block_size);
    }
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    kiln_dim n = kiln_infer_dim(c, 1, 0), dim = kiln_infer_dim(c, 0, axis);
    if (kiln_dim_differ(n, dim)) {
        return KILN_INFER_FAIL(c, SHAPE, "%lld scales for %lld indices of axis %d", (long long)n,
                               (long long)dim, axis);
    }
    return KILN_OK;
}

/* The zero point has the scale's shape (a scalar also stands for [1] and the reverse). */
static kiln_status check_zero(const kiln_infer *c) {
    int32_t rs = kiln_infer_in_rank(c, 1), rz = kiln_infer_in_rank(c, 2);
    if (!kiln_infer_has(c, 2) || rs < 0 || rz < 0) {
        return KILN_OK;
    }
    for (int32_t i = 1; i <= rs || i <= rz; i++) {
        kiln_dim s = i <= rs ? kiln_infer_dim(c, 1, -i) : 1;
        kiln_dim z = i <= rz ? kiln_infer_dim(c, 2, -i) : 1;
        if (kiln_dim_differ(s, z)) {
            return KILN_INFER_FAIL(c, SHAPE, "the zero point has %lld where the scale has %lld",
                                   (long long)z, (long long)s);
        }
    }
    return KILN_OK;
}

static kiln_status infer_quantize(kiln_infer *c) {
    const kiln_quant_attrs *a = c->attrs;
    bool has_zero = kiln_infer_has(c, 2);
    int64_t to = has_zero ? (int64_t)c->in[2].type.dtype : a->output_dtype;
    to = to ? to : KILN_DTYPE_U8;
    KILN_TRY(kiln_infer_dtype(c, 0, T_HALF_FLOAT | KILN_T(I32)));
    KILN_TRY(kiln_infer_dtype(c, 1, T_HALF_FLOAT | KILN_T(I32) | KILN_T(F8E8M0)));
    if (!dtype_in(to, T_QUANT)) {
        return KILN_INFER_FAIL(c, VARIANT, "quantizing to element type %lld", (long long)to);
    }
    if (has_zero && a->output_dtype && a->output_dtype != to) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "output_dtype is %lld, the zero point's type %lld",
                               (long long)a->output_dtype, (long long)to);
    }
    if (a->precision && !dtype_in(a->precision, KILN_T_FLOAT)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "precision is %lld, no float type",
                               (long long)a->precision);
    }
    KILN_TRY(check_scale(c));
    KILN_TRY(check_zero(c));
    return kiln_infer_like(c, 0, 0, (kiln_dtype)to);
}

static kiln_status infer_dequantize(kiln_infer *c) {
    const kiln_quant_attrs *a = c->attrs;
    kiln_dtype scale = c->in[1].type.dtype;
    int64_t to = a->output_dtype ? a->output_dtype : (int64_t)scale;
    KILN_TRY(kiln_infer_dtype(c, 0, T_QUANT | KILN_T(I32)));
    KILN_TRY(kiln_infer_dtype(c, 1, T_HALF_FLOAT | KILN_T(F8E8M0)));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    if (!dtype_in(to, T_HALF_FLOAT)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "the output would have element type %lld",
                               (long long)to);
    }
    KILN_TRY(check_scale(c));
    KILN_TRY(check_zero(c));
    return kiln_infer_like(c, 0, 0, (kiln_dtype)to);
}

/* ---- Reference ---- */

kiln_scale_map kiln_scale_map_of(const kiln_tensor *x, const kiln_tensor *scale, int64_t axis,
                                 int64_t block) {
    kiln_scale_map m = {.single = kiln_tensor_count(scale) == 1};
    if (!m.single) {
        int32_t at = (int32_t)(axis < 0 ? axis + x->rank : axis);
        m.lanes = kiln_lanes_of(x, at);
        m.block = block;
        m.groups = block ? scale->dims[at] : m.lanes.n;
    }
    return m;
}

static kiln_dtype quotient_dtype(const kiln_quant_attrs *a, const kiln_tensor *x,
                                 const kiln_tensor *scale) {
    if (a->precision) {
        return (kiln_dtype)a->precision;
    }
    if (scale->dtype == KILN_DTYPE_F8E8M0) {
        return kiln_dtype_is_float(x->dtype) ? x->dtype : KILN_DTYPE_F32;
    }
    return kiln_dtype_is_float(scale->dtype) ? scale->dtype : KILN_DTYPE_F64;
}

static kiln_status ref_quantize(kiln_ref *c) {
    const kiln_quant_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *scale = kiln_ref_in(c, 1), *zero = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    const kiln_cast_rule rule = {.saturate = a->saturate != 0};
    kiln_dtype precision = quotient_dtype(a, x, scale);
    kiln_scale_map map = kiln_scale_map_of(x, scale, a->axis, a->block_size);
    bool is_int = kiln_dtype_is_int(y->dtype);
    int64_t n = kiln_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        int64_t s = kiln_scale_index(&map, i);
        double v = kiln_round_to(precision, kiln_get_f64(x->dtype, x->data, i));
        v /= kiln_round_to(precision, kiln_get_f64(scale->dtype, scale->data, s));
        v = kiln_round_to(precision, v);
        if (is_int) {
            int64_t z = zero ? kiln_get_i64(zero->dtype, zero->data, s) : 0;
            kiln_set_i64(y->dtype, y->data, i, kiln_quantize_saturate(v, z, y->dtype));
        } else {
            double z = zero ? kiln_get_f64(zero->dtype, zero->data, s) : 0;
            kiln_store_cast(y, i, v + z, &rule);
        }
    }
    return KILN_OK;
}

static kiln_status ref_dequantize(kiln_ref *c) {
    const kiln_quant_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0), *scale = kiln_ref_in(c, 1), *zero = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_scale_map map = kiln_scale_map_of(x, scale, a->axis, a->block_size);
    int64_t n = kiln_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        int64_t s = kiln_scale_index(&map, i);
        double z = zero ? kiln_get_f64(zero->dtype, zero->data, s) : 0;
        double v = kiln_round_to(KILN_DTYPE_F32, kiln_get_f64(x->dtype, x->data, i) - z);
        v = kiln_round_to(KILN_DTYPE_F32, v * kiln_get_f64(scale->dtype, scale->data, s));
        kiln_set_f64(y->dtype, y->data, i, v);
    }
    return KILN_OK;
}

/* ---- Constant parameters ---- */

/* Far from overflow and from the subnormals, times or divided by 2^16. */
#define LEAST_SCALE 0x1p-100f
#define GREATEST_SCALE 0x1p100f

static bool good_scales(const kiln_tensor *t) {
    const float *v = t->data;
    int64_t n = kiln_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        if (!(v[i] >= LEAST_SCALE && v[i] <= GREATEST_SCALE)) {
            return false;
        }
    }
    return n > 0;
}

static bool good_attrs(const kiln_quant_attrs *a, bool quantizes) {
    bool no_blocks = a->block_size == 0;
    return quantizes ? no_blocks && (a->precision == 0 || a->precision == KILN_DTYPE_F32)
                     : no_blocks && (a->output_dtype == 0 || a->output_dtype == KILN_DTYPE_F32);
}

bool kiln_quant_read(const kiln_node *node, kiln_quant *out) {
    bool quantizes = node->op == &kiln_op_quantize_linear;
    if (!quantizes && node->op != &kiln_op_dequantize_linear) {
        return false;
    }
    const kiln_value *floats = quantizes ? node->in[0] : node->out[0];
    const kiln_value *ints = quantizes ? node->out[0] : node->in[0];
    const kiln_quant_attrs *a = node->attrs;
    const kiln_value *zero = kiln_node_in(node, 2);
    const kiln_tensor *scale = kiln_value_data(node->in[1]);
    bool narrow = dtype_in(ints->type.dtype, KILN_T(I8) | KILN_T(U8) | KILN_T(I16) | KILN_T(U16));
    if (!narrow || floats->type.dtype != KILN_DTYPE_F32 || !scale ||
        scale->dtype != KILN_DTYPE_F32 || !good_scales(scale) || !good_attrs(a, quantizes)) {
        return false;
    }
    *out = (kiln_quant){.dtype = ints->type.dtype,
                        .scale = scale->data,
                        .zero = kiln_value_data(zero),
                        .n = kiln_tensor_count(scale)};
    if (zero && (!out->zero || kiln_tensor_count(out->zero) != out->n)) {
        return false;
    }
    int32_t rank = ints->type.rank;
    out->axis = (int32_t)(a->axis < 0 ? a->axis + rank : a->axis);
    return out->n == 1 || (rank > 0 && out->axis >= 0 && out->axis < rank);
}

bool kiln_quant_same(const kiln_quant *a, const kiln_quant *b) {
    if (a->dtype != b->dtype || a->n != b->n || (a->n > 1 && a->axis != b->axis)) {
        return false;
    }
    for (int64_t i = 0; i < a->n; i++) {
        if (a->scale[i] != b->scale[i] || kiln_quant_zero(a, i) != kiln_quant_zero(b, i)) {
            return false;
        }
    }
    return true;
}

const kiln_op kiln_op_quantize_linear = {
    .name = "QuantizeLinear",
    .domain = "",
    .since = 28,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(quantize_table, kiln_quant_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_quantize,
    .ref = ref_quantize,
};

const kiln_op kiln_op_dequantize_linear = {
    .name = "DequantizeLinear",
    .domain = "",
    .since = 28,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(dequantize_table, kiln_quant_attrs),
    .tolerance = KILN_TOL_ROUND,
    .infer = infer_dequantize,
    .ref = ref_dequantize,
};
