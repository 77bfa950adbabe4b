/* random.c - RandomNormal, RandomUniform, their Like forms, Bernoulli and Multinomial. The seed is
 * the attribute's where there is one, else the run's. */
#include "ops/random.h"

#include <string.h>

#include "ops/util.h"

typedef struct random_attrs {
    int64_t dtype; /* KILN_ABSENT: the input's */
    float high, low, mean, scale;
    int64_t sample_size;
    float seed; /* -INFINITY: not given */
    kiln_ints shape;
} random_attrs;

#define SEED KILN_A_FLOAT(random_attrs, seed, -INFINITY)

static const kiln_attr normal_table[] = {
    KILN_A_INT(random_attrs, dtype, KILN_DTYPE_F32), KILN_A_FLOAT(random_attrs, mean, 0.0f),
    KILN_A_FLOAT(random_attrs, scale, 1.0f),         SEED,
    KILN_A_INTS_REQUIRED(random_attrs, shape),
};
static const kiln_attr normal_like_table[] = {
    KILN_A_INT(random_attrs, dtype, KILN_ABSENT),
    KILN_A_FLOAT(random_attrs, mean, 0.0f),
    KILN_A_FLOAT(random_attrs, scale, 1.0f),
    SEED,
};
static const kiln_attr uniform_table[] = {
    KILN_A_INT(random_attrs, dtype, KILN_DTYPE_F32), KILN_A_FLOAT(random_attrs, high, 1.0f),
    KILN_A_FLOAT(random_attrs, low, 0.0f),           SEED,
    KILN_A_INTS_REQUIRED(random_attrs, shape),
};
static const kiln_attr uniform_like_table[] = {
    KILN_A_INT(random_attrs, dtype, KILN_ABSENT),
    KILN_A_FLOAT(random_attrs, high, 1.0f),
    KILN_A_FLOAT(random_attrs, low, 0.0f),
    SEED,
};
static const kiln_attr bernoulli_table[] = {
    KILN_A_INT(random_attrs, dtype, KILN_ABSENT),
    SEED,
};
static const kiln_attr multinomial_table[] = {
    KILN_A_INT(random_attrs, dtype, KILN_DTYPE_I32),
    KILN_A_INT(random_attrs, sample_size, 1),
    SEED,
};

static kiln_status out_dtype(const kiln_infer *c, uint32_t set, kiln_dtype *out) {
    int64_t dtype = ((const random_attrs *)c->attrs)->dtype;
    if (dtype == KILN_ABSENT) {
        dtype = c->in[0].type.dtype;
    }
    if (dtype < 0 || dtype >= KILN_DTYPE_COUNT || (dtype && !(set >> dtype & 1))) {
        return KILN_INFER_FAIL(c, DTYPE, "the operator does not make element type %lld (%s)",
                               (long long)dtype, kiln_dtype_name((kiln_dtype)dtype));
    }
    *out = (kiln_dtype)dtype;
    return KILN_OK;
}

static kiln_status shape_infer(kiln_infer *c) {
    const kiln_ints *shape = &((const random_attrs *)c->attrs)->shape;
    kiln_dtype dtype = KILN_DTYPE_NONE;
    KILN_TRY(out_dtype(c, KILN_T_FLOAT, &dtype));
    if (shape->n > KILN_MAX_RANK) {
        return KILN_INFER_FAIL(c, VARIANT, "shape has %lld dims; at most %d are supported",
                               (long long)shape->n, KILN_MAX_RANK);
    }
    kiln_dim *out = kiln_infer_dims(c, 0, dtype, (int32_t)shape->n);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int64_t d = 0; d < shape->n; d++) {
        if (shape->v[d] < 0) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "shape[%lld] = %lld is negative", (long long)d,
                                   (long long)shape->v[d]);
        }
        out[d] = shape->v[d];
    }
    return KILN_OK;
}

static kiln_status like_infer(kiln_infer *c) {
    kiln_dtype dtype = KILN_DTYPE_NONE;
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(out_dtype(c, KILN_T_FLOAT, &dtype));
    return kiln_infer_like(c, 0, 0, dtype);
}

static kiln_random stream(const kiln_ref *c) {
    float seed = ((const random_attrs *)c->attrs)->seed;
    kiln_random r = {.key = c->seed};
    if (isfinite(seed)) {
        uint32_t bits;
        memcpy(&bits, &seed, sizeof bits);
        r.key = bits;
    }
    return r;
}

static kiln_status normal_ref(kiln_ref *c) {
    const random_attrs *a = c->attrs;
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_random r = stream(c);
    for (int64_t i = 0, n = kiln_tensor_count(y); i < n; i++) {
        kiln_set_f64(y->dtype, y->data, i,
                     a->mean + a->scale * kiln_random_normal(&r, (uint64_t)i));
    }
    return KILN_OK;
}

static kiln_status uniform_ref(kiln_ref *c) {
    const random_attrs *a = c->attrs;
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_random r = stream(c);
    double span = (double)a->high - a->low;
    for (int64_t i = 0, n = kiln_tensor_count(y); i < n; i++) {
        kiln_set_f64(y->dtype, y->data, i, a->low + span * kiln_random_uniform(&r, (uint64_t)i));
    }
    return KILN_OK;
}

static kiln_status bernoulli_infer(kiln_infer *c) {
    kiln_dtype dtype = KILN_DTYPE_NONE;
    KILN_TRY(kiln_infer_rank(c, 0, 0, KILN_MAX_RANK));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(out_dtype(c, KILN_T_NUMBER | KILN_T(BOOL), &dtype));
    return kiln_infer_like(c, 0, 0, dtype);
}

static kiln_status bernoulli_ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_random r = stream(c);
    for (int64_t i = 0, n = kiln_tensor_count(y); i < n; i++) {
        bool one = kiln_random_uniform(&r, (uint64_t)i) < kiln_get_f64(x->dtype, x->data, i);
        kiln_set_i64(y->dtype, y->data, i, one);
    }
    return KILN_OK;
}

static kiln_status multinomial_infer(kiln_infer *c) {
    int64_t n = ((const random_attrs *)c->attrs)->sample_size;
    kiln_dtype dtype = KILN_DTYPE_NONE;
    KILN_TRY(kiln_infer_rank(c, 0, 2, 2));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(out_dtype(c, KILN_T_INDEX, &dtype));
    if (n < 0) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "sample_size = %lld is negative", (long long)n);
    }
    if (kiln_infer_dim(c, 0, 1) == 0) {
        return KILN_INFER_FAIL(c, SHAPE, "there are no classes to choose from");
    }
    kiln_dim *out = kiln_infer_dims(c, 0, dtype, 2);
    if (!out) {
        return KILN_E_MEMORY;
    }
    out[0] = kiln_infer_dim(c, 0, 0);
    out[1] = n;
    return KILN_OK;
}

/* Rows of logarithms of probabilities, known up to a factor. */
static kiln_status multinomial_ref(kiln_ref *c) {
    kiln_tensor *y = kiln_ref_out(c, 0);
    const kiln_tensor *in = kiln_ref_in(c, 0);
    kiln_random r = stream(c);
    int64_t classes = in->dims[1], samples = y->dims[1];
    double *x, *sums;
    KILN_TRY(kiln_ref_doubles(c, in, &x));
    KILN_ALLOC(sums, c->arena, classes);
    for (int64_t b = 0; b < in->dims[0]; b++) {
        const double *row = x + b * classes;
        double most = row[0], sum = 0;
        for (int64_t k = 0; k < classes; k++) {
            most = row[k] > most ? row[k] : most;
        }
        for (int64_t k = 0; k < classes; k++) {
            sums[k] = sum += exp(row[k] - most);
        }
        for (int64_t s = 0; s < samples; s++) {
            double u = sum * kiln_random_uniform(&r, (uint64_t)(b * samples + s));
            int64_t k = 0;
            while (k < classes - 1 && !(u < sums[k])) {
                k++;
            }
            kiln_set_i64(y->dtype, y->data, b * samples + s, k);
        }
    }
    return KILN_OK;
}

#define RANDOM_OP(id, onnx_name, n, table, infer_fn, ref_fn) \
    const kiln_op kiln_op_##id = {                           \
        .name = onnx_name,                                   \
        .domain = "",                                        \
        .since = 22,                                         \
        .min_in = n,                                         \
        .max_in = n,                                         \
        .min_out = 1,                                        \
        .max_out = 1,                                        \
        .flags = KILN_OP_RANDOM,                             \
        KILN_OP_ATTRS(table, random_attrs),                  \
        .tolerance = KILN_TOL_RANDOM,                        \
        .infer = infer_fn,                                   \
        .ref = ref_fn,                                       \
    }

RANDOM_OP(random_normal, "RandomNormal", 0, normal_table, shape_infer, normal_ref);
RANDOM_OP(random_normal_like, "RandomNormalLike", 1, normal_like_table, like_infer, normal_ref);
RANDOM_OP(random_uniform, "RandomUniform", 0, uniform_table, shape_infer, uniform_ref);
RANDOM_OP(random_uniform_like, "RandomUniformLike", 1, uniform_like_table, like_infer, uniform_ref);
RANDOM_OP(bernoulli, "Bernoulli", 1, bernoulli_table, bernoulli_infer, bernoulli_ref);
RANDOM_OP(multinomial, "Multinomial", 1, multinomial_table, multinomial_infer, multinomial_ref);
