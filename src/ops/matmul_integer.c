/* matmul_integer.c - MatMulInteger and QLinearMatMul: products of 8-bit matrices with zero points.
 *
 * Zero points and scales are scalars, vectors (one per row of A, per column of B), or have the
 * operand's rank with 1 in place of the dims they do not vary over. */
#include "ops/attrs.h"
#include "ops/elementwise.h"
#include "ops/matmul_core.h"
#include "ops/narrow.h"
#include "ops/requantize.h"

#define T_BYTE (KILN_T(I8) | KILN_T(U8))
#define T_F8 (KILN_T(F8E4M3FN) | KILN_T(F8E4M3FNUZ) | KILN_T(F8E5M2) | KILN_T(F8E5M2FNUZ))

/* ---- Parameters that vary by row or column ---- */

/* Shape of parameter p as seen by an operand of this rank: a vector for rows becomes [M, 1]. */
static kiln_tensor aligned(const kiln_tensor *p, int32_t rank, bool rows) {
    kiln_tensor t = *p;
    if (p->rank == 1 && rank >= 2 && rows && p->dims[0] != 1) {
        t.rank = 2;
        t.dims[1] = 1;
    }
    return t;
}

static kiln_status check_parameter(const kiln_infer *c, int32_t i, int32_t operand, bool rows,
                                   const char *what) {
    int32_t rank = kiln_infer_in_rank(c, operand), r = kiln_infer_in_rank(c, i);
    if (!kiln_infer_has(c, i) || rank < 0 || r < 0) {
        return KILN_OK;
    }
    if (r > rank) {
        return KILN_INFER_FAIL(c, SHAPE, "%s has rank %d, its matrix %d", what, r, rank);
    }
    for (int32_t d = 1; d <= r; d++) { /* from the last dim */
        int32_t at = r == 1 && rows && rank >= 2 ? 2 : d;
        bool summed = rows || rank == 1 ? at == 1 : at == 2;
        kiln_dim own = kiln_infer_dim(c, i, -d);
        kiln_dim dim = summed ? 1 : kiln_infer_dim(c, operand, -at);
        if (kiln_dim_differ(own, 1) && kiln_dim_differ(own, dim)) {
            return KILN_INFER_FAIL(c, SHAPE, "%s has %lld where its matrix allows %lld", what,
                                   (long long)own, (long long)dim);
        }
    }
    return KILN_OK;
}

/* out = x - zero as float64, in scratch memory. */
static kiln_status subtract(kiln_ref *c, const kiln_tensor *x, const kiln_tensor *zero, bool rows,
                            kiln_tensor *out) {
    KILN_TRY(kiln_ref_scratch(c, out, KILN_DTYPE_F64, x->rank, x->dims));
    kiln_tensor z = zero ? aligned(zero, x->rank, rows) : (kiln_tensor){0};
    const kiln_tensor *in[2] = {x, &z};
    double *dst = out->data;
    kiln_rows r;
    kiln_rows_init(&r, out, in, zero ? 2 : 1);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            int64_t at = r.at[1] + k * r.step[1];
            double v = kiln_get_f64(x->dtype, x->data, r.at[0] + k * r.step[0]);
            dst[r.out + k] = zero ? v - kiln_get_f64(z.dtype, z.data, at) : v;
        }
    }
    return KILN_OK;
}

/* ---- MatMulInteger ---- */

static kiln_status infer_integer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, T_BYTE));
    KILN_TRY(kiln_infer_dtype(c, 1, T_BYTE));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(kiln_infer_same_dtype(c, 1, 3));
    KILN_TRY(check_parameter(c, 2, 0, true, "a_zero_point"));
    KILN_TRY(check_parameter(c, 3, 1, false, "b_zero_point"));
    return kiln_matmul_infer(c, 0, 1, KILN_DTYPE_I32);
}

static kiln_status ref_integer(kiln_ref *c) {
    kiln_tensor a, b, *y = kiln_ref_out(c, 0);
    int64_t n = kiln_tensor_count(y);
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    double *sums;
    KILN_TRY(subtract(c, kiln_ref_in(c, 0), kiln_ref_in(c, 2), true, &a));
    KILN_TRY(subtract(c, kiln_ref_in(c, 1), kiln_ref_in(c, 3), false, &b));
    KILN_ALLOC(sums, c->arena, n);
    KILN_TRY(kiln_matmul_f64(c, &a, &b, y, sums));
    for (int64_t i = 0; i < n; i++) {
        kiln_set_i64(y->dtype, y->data, i, (int64_t)sums[i]);
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_matmul_integer = {
    .name = "MatMulInteger",
    .domain = "",
    .since = 10,
    .min_in = 2,
    .max_in = 4,
    .min_out = 1,
    .max_out = 1,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_integer,
    .ref = ref_integer,
    .cost = kiln_matmul_cost,
};

/* ---- QLinearMatMul ---- */

enum { A, A_SCALE, A_ZERO, B, B_SCALE, B_ZERO, Y_SCALE, Y_ZERO };

static kiln_status check_single(const kiln_infer *c, int32_t i, const char *what) {
    int32_t rank = kiln_infer_in_rank(c, i);
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim n = kiln_infer_dim(c, i, d);
        if (kiln_dim_differ(n, 1)) {
            return KILN_INFER_FAIL(c, VARIANT, "%s has %lld elements; only one is supported", what,
                                   (long long)n);
        }
    }
    return KILN_OK;
}

static kiln_status infer_qlinear(kiln_infer *c) {
    static const int32_t scales[] = {A_SCALE, B_SCALE, Y_SCALE};
    KILN_TRY(kiln_infer_dtype(c, A, T_BYTE | T_F8));
    KILN_TRY(kiln_infer_dtype(c, B, T_BYTE | T_F8));
    KILN_TRY(kiln_infer_dtype(c, Y_ZERO, T_BYTE | T_F8));
    KILN_TRY(kiln_infer_same_dtype(c, A, A_ZERO));
    KILN_TRY(kiln_infer_same_dtype(c, B, B_ZERO));
    for (size_t i = 0; i < KILN_COUNT_OF(scales); i++) {
        KILN_TRY(kiln_infer_dtype(c, scales[i], KILN_T(F32) | KILN_T(F16) | KILN_T(BF16)));
    }
    KILN_TRY(check_parameter(c, A_SCALE, A, true, "a_scale"));
    KILN_TRY(check_parameter(c, A_ZERO, A, true, "a_zero_point"));
    KILN_TRY(check_parameter(c, B_SCALE, B, false, "b_scale"));
    KILN_TRY(check_parameter(c, B_ZERO, B, false, "b_zero_point"));
    KILN_TRY(kiln_matmul_infer(c, A, B, c->in[Y_ZERO].type.dtype));
    bool vector = kiln_infer_in_rank(c, A) == 1 || kiln_infer_in_rank(c, B) == 1;
    for (int32_t i = 0; vector && i < 2; i++) {
        KILN_TRY(check_single(c, scales[i], "a scale of a product with a vector"));
    }
    KILN_TRY(check_single(c, Y_SCALE, "y_scale"));
    return check_single(c, Y_ZERO, "y_zero_point");
}

/* Factors of every output element: a_scale over rows and leading dims, b_scale over columns. */
static void scale_outputs(kiln_ref *c, const double *sums) {
    kiln_tensor *y = kiln_ref_out(c, 0);
    const kiln_tensor *y_scale = kiln_ref_in(c, Y_SCALE), *y_zero = kiln_ref_in(c, Y_ZERO);
    const kiln_tensor *lhs = kiln_ref_in(c, A), *rhs = kiln_ref_in(c, B);
    kiln_tensor a = aligned(kiln_ref_in(c, A_SCALE), lhs->rank, true);
    kiln_tensor b = aligned(kiln_ref_in(c, B_SCALE), rhs->rank, false);
    const kiln_tensor *in[2] = {&a, &b};
    float to = (float)kiln_get_f64(y_scale->dtype, y_scale->data, 0);
    double zero = kiln_get_f64(y_zero->dtype, y_zero->data, 0);
    bool is_float = kiln_dtype_is_float(y->dtype);
    kiln_rows r;
    kiln_rows_init(&r, y, in, 2);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            float sa = (float)kiln_get_f64(a.dtype, a.data, r.at[0] + k * r.step[0]);
            float sb = (float)kiln_get_f64(b.dtype, b.data, r.at[1] + k * r.step[1]);
            float m = kiln_requantize_scale(sa, sb, to), v = (float)sums[r.out + k] * m;
            if (is_float) {
                kiln_store_cast(y, r.out + k, v + zero, &(kiln_cast_rule){.saturate = true});
            } else {
                int64_t q = kiln_quantize_saturate(v, (int64_t)zero, y->dtype);
                kiln_set_i64(y->dtype, y->data, r.out + k, q);
            }
        }
    }
}

static kiln_status ref_qlinear(kiln_ref *c) {
    kiln_tensor a, b, *y = kiln_ref_out(c, 0);
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    double *sums;
    KILN_TRY(subtract(c, kiln_ref_in(c, A), kiln_ref_in(c, A_ZERO), true, &a));
    KILN_TRY(subtract(c, kiln_ref_in(c, B), kiln_ref_in(c, B_ZERO), false, &b));
    KILN_ALLOC(sums, c->arena, kiln_tensor_count(y));
    KILN_TRY(kiln_matmul_f64(c, &a, &b, y, sums));
    scale_outputs(c, sums);
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static void cost_qlinear(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                         kiln_cost *cost) {
    const kiln_type *a = &in[A].type;
    (void)node;
    cost->macs = a->rank > 0 ? kiln_matmul_macs(out, a->dims[a->rank - 1]) : 0;
}

const kiln_op kiln_op_qlinear_matmul = {
    .name = "QLinearMatMul",
    .domain = "",
    .since = 21,
    .min_in = 8,
    .max_in = 8,
    .min_out = 1,
    .max_out = 1,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_qlinear,
    .ref = ref_qlinear,
    .cost = cost_qlinear,
};
