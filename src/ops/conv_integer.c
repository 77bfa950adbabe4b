/* conv_integer.c - ConvInteger and QLinearConv: 8-bit convolutions with zero points.
 *
 * Sums of products of 8-bit numbers are exact in double; they leave as int32, modulo 2^32. */
#include <math.h>

#include "ops/conv_core.h"
#include "ops/requantize.h"

#define T_BYTE (KILN_T(I8) | KILN_T(U8))

/* A scalar or [1] input: per-tensor parameter. */
static kiln_status check_scalar(const kiln_infer *c, int32_t i, const char *what) {
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_rank(c, i, 0, 1));
    if (kiln_infer_in_rank(c, i) == 1 && kiln_dim_differ(kiln_infer_dim(c, i, 0), 1)) {
        return KILN_INFER_FAIL(c, SHAPE, "%s has %lld elements, it must be one", what,
                               (long long)kiln_infer_dim(c, i, 0));
    }
    return KILN_OK;
}

/* A scalar, [1] or [channels] input. */
static kiln_status check_channel(const kiln_infer *c, int32_t i, kiln_dim channels,
                                 const char *what) {
    if (!kiln_infer_has(c, i)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_rank(c, i, 0, 1));
    kiln_dim n = kiln_infer_in_rank(c, i) == 1 ? kiln_infer_dim(c, i, 0) : 1;
    if (kiln_dim_differ(n, 1) && kiln_dim_differ(n, channels)) {
        return KILN_INFER_FAIL(c, SHAPE, "%s has %lld elements for %lld output channels", what,
                               (long long)n, (long long)channels);
    }
    return KILN_OK;
}

static kiln_status infer_integer(kiln_infer *c) {
    kiln_dim channels;
    KILN_TRY(kiln_infer_dtype(c, 0, T_BYTE));
    KILN_TRY(kiln_infer_dtype(c, 1, T_BYTE));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(kiln_infer_same_dtype(c, 1, 3));
    KILN_TRY(kiln_conv_infer(c, 0, 1, KILN_DTYPE_I32, &channels));
    KILN_TRY(check_scalar(c, 2, "x_zero_point"));
    return check_channel(c, 3, channels, "w_zero_point");
}

static kiln_status infer_qlinear(kiln_infer *c) {
    kiln_dim channels;
    KILN_TRY(kiln_infer_dtype(c, 0, T_BYTE));
    KILN_TRY(kiln_infer_dtype(c, 3, T_BYTE));
    KILN_TRY(kiln_infer_dtype(c, 7, T_BYTE));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(kiln_infer_same_dtype(c, 3, 5));
    for (int32_t i = 1; i < 7; i += i == 1 ? 3 : 2) { /* the scales: 1, 4, 6 */
        KILN_TRY(kiln_infer_dtype(c, i, KILN_T(F32)));
    }
    KILN_TRY(kiln_conv_infer(c, 0, 3, c->in[7].type.dtype, &channels));
    KILN_TRY(check_scalar(c, 1, "x_scale"));
    KILN_TRY(check_scalar(c, 2, "x_zero_point"));
    KILN_TRY(check_channel(c, 4, channels, "w_scale"));
    KILN_TRY(check_channel(c, 5, channels, "w_zero_point"));
    KILN_TRY(check_scalar(c, 6, "y_scale"));
    KILN_TRY(check_scalar(c, 7, "y_zero_point"));
    if (kiln_infer_has(c, 8)) {
        KILN_TRY(kiln_infer_dtype(c, 8, KILN_T(I32)));
    }
    return kiln_infer_vector(c, 8, channels, "the bias");
}

/* Element m of a per-tensor or per-channel parameter; 0 when it is left out. */
static double channel(const kiln_tensor *t, int64_t m) {
    return t ? kiln_get_f64(t->dtype, t->data, kiln_tensor_count(t) > 1 ? m : 0) : 0;
}

/* Sums of one image into acc [M, out_count], starting from the bias. */
typedef struct sums {
    kiln_conv_job job;
    double *acc;
    int64_t plane, image;
} sums;

static kiln_status prepare(kiln_ref *c, sums *s, const kiln_tensor *x_zero,
                           const kiln_tensor *w_zero) {
    const kiln_conv_attrs *a = c->attrs;
    const kiln_tensor *y = kiln_ref_out(c, 0);
    double *zeros;
    s->job.group = a->group;
    KILN_TRY(kiln_conv_window(&s->job.win, a, s->job.x, s->job.w, y, c->diag));
    s->plane = s->job.win.out_count;
    s->image = y->dims[1] * s->plane;
    s->job.x_zero = channel(x_zero, 0);
    KILN_ALLOC(zeros, c->arena, y->dims[1]);
    for (int64_t m = 0; m < y->dims[1]; m++) {
        zeros[m] = channel(w_zero, m);
    }
    s->job.w_zero = zeros;
    KILN_ALLOC(s->job.plane, c->arena, s->job.win.in_count);
    KILN_ALLOC(s->acc, c->arena, s->image);
    return KILN_OK;
}

static kiln_status compute(const kiln_ref *c, sums *s, int64_t n, const kiln_tensor *bias) {
    for (int64_t i = 0; i < s->image; i++) {
        s->acc[i] = bias ? kiln_get_f64(bias->dtype, bias->data, i / s->plane) : 0;
    }
    return kiln_conv_image(c, &s->job, n, s->acc);
}

static kiln_status ref_integer(kiln_ref *c) {
    kiln_tensor *y = kiln_ref_out(c, 0);
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    sums s = {.job = {.x = kiln_ref_in(c, 0), .w = kiln_ref_in(c, 1)}};
    KILN_TRY(prepare(c, &s, kiln_ref_in(c, 2), kiln_ref_in(c, 3)));
    for (int64_t n = 0; n < y->dims[0]; n++) {
        KILN_TRY(compute(c, &s, n, NULL));
        for (int64_t i = 0; i < s.image; i++) {
            kiln_set_i64(y->dtype, y->data, n * s.image + i, (int64_t)s.acc[i]);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static kiln_status ref_qlinear(kiln_ref *c) {
    const kiln_tensor *x_scale = kiln_ref_in(c, 1), *w_scale = kiln_ref_in(c, 4);
    const kiln_tensor *y_scale = kiln_ref_in(c, 6), *y_zero = kiln_ref_in(c, 7);
    kiln_tensor *y = kiln_ref_out(c, 0);
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    sums s = {.job = {.x = kiln_ref_in(c, 0), .w = kiln_ref_in(c, 3)}};
    KILN_TRY(prepare(c, &s, kiln_ref_in(c, 2), kiln_ref_in(c, 5)));
    int64_t zero = kiln_get_i64(y_zero->dtype, y_zero->data, 0);
    for (int64_t n = 0; n < y->dims[0]; n++) {
        KILN_TRY(compute(c, &s, n, kiln_ref_in(c, 8)));
        for (int64_t i = 0; i < s.image; i++) {
            float m = kiln_requantize_scale((float)channel(x_scale, 0),
                                            (float)channel(w_scale, i / s.plane),
                                            (float)channel(y_scale, 0));
            int64_t q = kiln_requantize((int32_t)(uint32_t)(int64_t)s.acc[i], m, zero, y->dtype);
            kiln_set_i64(y->dtype, y->data, n * s.image + i, q);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static void cost_qlinear(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                         kiln_cost *cost) {
    (void)node;
    cost->macs = kiln_conv_macs(&in[3], out);
}

const kiln_op kiln_op_conv_integer = {
    .name = "ConvInteger",
    .domain = "",
    .since = 10,
    .min_in = 2,
    .max_in = 4,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(kiln_conv_table, kiln_conv_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_integer,
    .ref = ref_integer,
    .cost = kiln_conv_cost,
};

const kiln_op kiln_op_qlinear_conv = {
    .name = "QLinearConv",
    .domain = "",
    .since = 10,
    .min_in = 8,
    .max_in = 9,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(kiln_conv_table, kiln_conv_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer_qlinear,
    .ref = ref_qlinear,
    .cost = cost_qlinear,
};
