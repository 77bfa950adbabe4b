/* norm.c - LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization:
 * statistics over runs of contiguous elements.
 *
 * A run is `length` elements; element k of the input has run k / length. stash_type only names the
 * precision of the statistics; they are double here, and the outputs Mean and InvStdDev have its
 * type. */
#include <math.h>

#include "ops/bulk.h"
#include "ops/elementwise.h"
#include "ops/window.h"

static const kiln_attr layer_table[] = {
    KILN_A_INT(kiln_norm_attrs, axis, -1),
    KILN_A_FLOAT(kiln_norm_attrs, epsilon, 1e-5f),
    KILN_A_INT(kiln_norm_attrs, stash_type, 1),
};
static const kiln_attr instance_table[] = {KILN_A_FLOAT(kiln_norm_attrs, epsilon, 1e-5f)};
static const kiln_attr group_table[] = {
    KILN_A_FLOAT(kiln_norm_attrs, epsilon, 1e-5f),
    KILN_A_INT_REQUIRED(kiln_norm_attrs, num_groups),
    KILN_A_INT(kiln_norm_attrs, stash_type, 1),
};

enum { X, SCALE, BIAS };

/* ---- Inference ---- */

/* Input i must broadcast to X's dims from `axis` on. */
static kiln_status check_affine(const kiln_infer *c, int32_t i, int32_t axis, const char *what) {
    int32_t rank = kiln_infer_in_rank(c, X), r = kiln_infer_in_rank(c, i);
    if (!kiln_infer_has(c, i) || r < 0) {
        return KILN_OK;
    }
    if (r > rank) {
        return KILN_INFER_FAIL(c, SHAPE, "%s has rank %d, X has %d", what, r, rank);
    }
    for (int32_t d = 1; d <= r; d++) {
        kiln_dim own = kiln_infer_dim(c, i, -d), dim = kiln_infer_dim(c, X, -d);
        if (kiln_dim_differ(own, 1) && kiln_dim_differ(own, dim)) {
            return KILN_INFER_FAIL(c, SHAPE, "%s has %lld where X has %lld (axis %d)", what,
                                   (long long)own, (long long)dim, axis);
        }
    }
    return KILN_OK;
}

static kiln_status check_stash(const kiln_infer *c, int64_t stash) {
    uint32_t set = KILN_T_FLOAT;
    if (stash < 1 || stash >= KILN_DTYPE_COUNT || !((set >> stash) & 1)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "stash_type is %lld, no float type",
                               (long long)stash);
    }
    return KILN_OK;
}

static kiln_status infer_layer(kiln_infer *c) {
    const kiln_norm_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, X), axis = 0;
    KILN_TRY(kiln_infer_dtype(c, X, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, SCALE, KILN_T_FLOAT));
    KILN_TRY(check_stash(c, a->stash_type));
    KILN_TRY(kiln_infer_rank(c, X, 1, -1));
    bool rms = c->node->op->max_in == 2;
    KILN_TRY(kiln_infer_like(c, 0, X, rms ? c->in[SCALE].type.dtype : KILN_DTYPE_NONE));
    if (rank >= 0) {
        KILN_TRY(kiln_infer_axis(c, a->axis, rank, "axis", &axis));
        KILN_TRY(check_affine(c, SCALE, axis, "the scale"));
        KILN_TRY(check_affine(c, BIAS, axis, "the bias"));
    }
    for (int32_t i = 1; i < c->n_out; i++) {
        kiln_dim *dims = kiln_infer_dims(c, i, (kiln_dtype)a->stash_type, rank);
        if (!dims) {
            return KILN_E_MEMORY;
        }
        for (int32_t d = 0; d < rank; d++) {
            dims[d] = d < axis ? kiln_infer_dim(c, X, d) : 1;
        }
    }
    return KILN_OK;
}

static kiln_status infer_channels(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, X, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, X, SCALE));
    KILN_TRY(kiln_infer_same_dtype(c, X, BIAS));
    KILN_TRY(kiln_infer_rank(c, X, 2, -1));
    KILN_TRY(kiln_infer_vector(c, SCALE, kiln_infer_dim(c, X, 1), "the scale"));
    KILN_TRY(kiln_infer_vector(c, BIAS, kiln_infer_dim(c, X, 1), "the bias"));
    return kiln_infer_like(c, 0, X, KILN_DTYPE_NONE);
}

static kiln_status infer_group(kiln_infer *c) {
    const kiln_norm_attrs *a = c->attrs;
    kiln_dim channels = kiln_infer_dim(c, X, 1);
    KILN_TRY(check_stash(c, a->stash_type));
    if (a->num_groups < 1 || (kiln_dim_known(channels) && channels % a->num_groups != 0)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "num_groups is %lld for %lld channels",
                               (long long)a->num_groups, (long long)channels);
    }
    return infer_channels(c);
}

/* ---- Reference ---- */

typedef struct stats {
    double mean, inverse; /* 1 / sqrt(variance + epsilon) */
} stats;

static stats measure(const double *v, int64_t n, double epsilon, bool centred) {
    double mean = 0, sum = 0;
    for (int64_t i = 0; centred && i < n; i++) {
        mean += v[i];
    }
    mean = centred ? mean / (double)n : 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (v[i] - mean) * (v[i] - mean);
    }
    return (stats){.mean = mean, .inverse = 1 / sqrt(sum / (double)n + epsilon)};
}

/* Normalizes every run of x into out (float64 scratch); saves the statistics where asked. */
static kiln_status normalize(kiln_ref *c, int64_t length, double epsilon, bool centred,
                             kiln_tensor *out) {
    const kiln_tensor *x = kiln_ref_in(c, X);
    kiln_tensor *means = c->n_out > 1 ? kiln_ref_out(c, 1) : NULL;
    kiln_tensor *inverses = c->n_out > 2 ? kiln_ref_out(c, 2) : NULL;
    KILN_TRY(kiln_ref_scratch(c, out, KILN_DTYPE_F64, x->rank, x->dims));
    double *v = out->data;
    int64_t runs = length ? kiln_tensor_count(x) / length : 0;
    for (int64_t r = 0; r < runs; r++, v += length) {
        KILN_TRY(kiln_ref_poll(c));
        kiln_load_f64(x, r * length, length, v);
        stats s = measure(v, length, epsilon, centred);
        for (int64_t i = 0; i < length; i++) {
            v[i] = (v[i] - s.mean) * s.inverse;
        }
        if (means) {
            kiln_set_f64(means->dtype, means->data, r, s.mean);
        }
        if (inverses) {
            kiln_set_f64(inverses->dtype, inverses->data, r, s.inverse);
        }
    }
    return KILN_OK;
}

static kiln_status apply_layer(kiln_ref *c, bool centred) {
    const kiln_norm_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, X), *bias = kiln_ref_in(c, BIAS);
    kiln_tensor *y = kiln_ref_out(c, 0), unit;
    int64_t length = kiln_tensor_count(x) ? 1 : 0;
    for (int64_t d = a->axis < 0 ? a->axis + x->rank : a->axis; d < x->rank; d++) {
        length *= length ? x->dims[d] : 1;
    }
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(normalize(c, length, a->epsilon, centred, &unit));
    const kiln_tensor *in[3] = {&unit, kiln_ref_in(c, SCALE), bias};
    kiln_rows r;
    kiln_rows_init(&r, y, in, bias ? 3 : 2);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            double v = ((const double *)unit.data)[r.at[0] + k * r.step[0]];
            v *= kiln_get_f64(in[1]->dtype, in[1]->data, r.at[1] + k * r.step[1]);
            if (bias) {
                v += kiln_get_f64(bias->dtype, bias->data, r.at[2] + k * r.step[2]);
            }
            kiln_set_f64(y->dtype, y->data, r.out + k, v);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

/* Runs of whole channels, `groups` per image. */
static kiln_status apply_channels(kiln_ref *c, int64_t groups) {
    const kiln_norm_attrs *a = c->attrs;
    const kiln_tensor *scale = kiln_ref_in(c, SCALE), *bias = kiln_ref_in(c, BIAS);
    kiln_tensor *y = kiln_ref_out(c, 0), unit;
    int64_t n = kiln_tensor_count(y);
    if (n == 0) {
        return KILN_OK;
    }
    int64_t channels = y->dims[1], plane = n / y->dims[0] / channels;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(normalize(c, n / y->dims[0] / groups, a->epsilon, true, &unit));
    for (int64_t i = 0; i < n; i++) {
        int64_t ch = i / plane % channels;
        double v = ((const double *)unit.data)[i] * kiln_get_f64(scale->dtype, scale->data, ch);
        kiln_set_f64(y->dtype, y->data, i, v + kiln_get_f64(bias->dtype, bias->data, ch));
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static kiln_status ref_layer(kiln_ref *c) {
    return apply_layer(c, true);
}
static kiln_status ref_rms(kiln_ref *c) {
    return apply_layer(c, false);
}
static kiln_status ref_instance(kiln_ref *c) {
    return apply_channels(c, kiln_ref_in(c, X)->dims[1]);
}
static kiln_status ref_group(kiln_ref *c) {
    const kiln_norm_attrs *a = c->attrs;
    return apply_channels(c, a->num_groups);
}

#define OPERATOR(id, onnx, version, least, most, outs, rows, infer_fn, ref_fn) \
    const kiln_op kiln_op_##id = {.name = onnx,                                \
                                  .domain = "",                                \
                                  .since = version,                            \
                                  .min_in = least,                             \
                                  .max_in = most,                              \
                                  .min_out = 1,                                \
                                  .max_out = outs,                             \
                                  KILN_OP_ATTRS(rows, kiln_norm_attrs),        \
                                  .tolerance = KILN_TOL_REDUCE,                \
                                  .infer = infer_fn,                           \
                                  .ref = ref_fn};

OPERATOR(layer_normalization, "LayerNormalization", 17, 2, 3, 3, layer_table, infer_layer,
         ref_layer)
OPERATOR(rms_normalization, "RMSNormalization", 23, 2, 2, 1, layer_table, infer_layer, ref_rms)
OPERATOR(instance_normalization, "InstanceNormalization", 22, 3, 3, 1, instance_table,
         infer_channels, ref_instance)
OPERATOR(group_normalization, "GroupNormalization", 21, 3, 3, 1, group_table, infer_group,
         ref_group)
