#include "quant/weights.h"

#include <stdlib.h>

#include "ops/lanes.h"
#include "ops/ops.h"
#include "quant/observer.h"
#include "quant/scales.h"

typedef struct kiln_weight_done {
    kiln_weight_job job;
    kiln_value *value;
} kiln_weight_done;

kiln_value *kiln_weight_find(const kiln_weight_cache *cache, const kiln_weight_job *job) {
    for (size_t i = 0; i < cache->count && !job->bias; i++) {
        const kiln_weight_job *k = &cache->items[i].job;
        if (k->weight == job->weight && !k->bias && k->axis == job->axis && k->bits == job->bits &&
            k->calibrator == job->calibrator && k->percentile == job->percentile) {
            return cache->items[i].value;
        }
    }
    return NULL;
}

kiln_status kiln_weight_keep(kiln_weight_cache *cache, const kiln_weight_job *job,
                             kiln_value *value, kiln_arena *arena) {
    kiln_weight_done done = {*job, value};
    KILN_PUSH(arena, cache->items, cache->count, cache->cap, done);
    return KILN_OK;
}

/* ---- Scales ---- */

enum { MSE_STEPS = 64, MSE_LEAST = 8 };

typedef struct job {
    const kiln_weight_job *j;
    kiln_tensor w; /* the constant's elements */
    kiln_lanes lanes;
    int64_t n;     /* scales */
    float *sorted; /* [elements of a scale], for percentiles */
    kiln_arena scratch;
    kiln_diag *diag;
} job;

/* The scale of least squared error for the elements of scale c, among shares of the largest. */
static float least_squares(const job *k, int64_t c, float largest) {
    const float *w = k->w.data;
    const int64_t inner = k->j->axis < 0 ? kiln_tensor_count(&k->w) : k->lanes.inner;
    const int64_t outer = k->j->axis < 0 ? 1 : k->lanes.outer;
    const int32_t half = 1 << (k->j->bits - 1);
    float best = largest;
    double least = (double)INFINITY;
    for (int32_t step = MSE_STEPS; step >= MSE_LEAST; step--) {
        kiln_qparams q = {.scale = largest * (float)step / MSE_STEPS,
                          .qlo = 1 - half,
                          .qhi = half - 1,
                          .dtype = KILN_DTYPE_I8};
        double error = 0;
        for (int64_t o = 0; o < outer && q.scale >= KILN_SCALE_MIN; o++) {
            const float *x = w + (o * k->n + c) * inner;
            for (int64_t i = 0; i < inner; i++) {
                double e =
                    (double)x[i] - (double)kiln_dequantize_value(&q, kiln_quantize_value(&q, x[i]));
                error += e * e;
            }
        }
        if (q.scale >= KILN_SCALE_MIN && error < least) {
            least = error;
            best = q.scale;
        }
    }
    return best;
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The magnitude that `percentile` of scale c's elements do not exceed, interpolated between
 * neighbours in order of size. */
static float percentile_of(const job *k, int64_t c) {
    const float *w = k->w.data;
    const int64_t inner = k->j->axis < 0 ? kiln_tensor_count(&k->w) : k->lanes.inner;
    const int64_t outer = k->j->axis < 0 ? 1 : k->lanes.outer;
    int64_t count = outer * inner;
    for (int64_t i = 0; i < count; i++) {
        k->sorted[i] = fabsf(w[(i / inner * k->n + c) * inner + i % inner]);
    }
    qsort(k->sorted, (size_t)count, sizeof *k->sorted, by_size);
    double at = (double)(count - 1) * k->j->percentile / 100;
    int64_t low = (int64_t)at, high = low + 1 < count ? low + 1 : low;
    double part = at - (double)low;
    return (float)((1 - part) * (double)k->sorted[low] + part * (double)k->sorted[high]);
}

static double bias_at(const kiln_tensor *bias, int64_t c) {
    return bias->data && c < kiln_tensor_count(bias) ? kiln_get_f64(bias->dtype, bias->data, c) : 0;
}

/* The scale that the largest bias of the channels sharing it asks for. */
static float bias_floor(const job *k, const kiln_tensor *bias, int64_t c) {
    double most = 0;
    int64_t n = bias->data ? kiln_tensor_count(bias) : 0;
    for (int64_t i = k->n == 1 ? 0 : c; i < (k->n == 1 ? n : c + 1); i++) {
        most = fmax(most, fabs(bias_at(bias, i)));
    }
    return kiln_weight_scale_floor(most, k->j->x_scale * k->j->alpha);
}

static kiln_status find_scales(job *k, const kiln_tensor *bias, float *scale) {
    float *lo, *hi;
    int64_t odd;
    kiln_tensor flat = k->w;
    KILN_ALLOC(lo, &k->scratch, k->n);
    KILN_ALLOC(hi, &k->scratch, k->n);
    if (k->j->calibrator == KILN_CALIBRATOR_PERCENTILE) {
        KILN_ALLOC(k->sorted, &k->scratch, kiln_tensor_count(&k->w) / (k->n > 0 ? k->n : 1));
    }
    if (k->j->axis < 0) {
        flat.rank = 2;
        flat.dims[0] = 1;
        flat.dims[1] = kiln_tensor_count(&k->w);
    }
    kiln_channel_ranges(&flat, k->j->axis < 0 ? 0 : k->j->axis, lo, hi, &odd);
    if (odd > 0) {
        return kiln_fail(k->diag, KILN_F_PRECISION,
                         "int8 cannot be had: %lld of the weights are NaN or infinite",
                         (long long)odd);
    }
    for (int64_t c = 0; c < k->n; c++) {
        float amax = -lo[c] > hi[c] ? -lo[c] : hi[c];
        float most = k->sorted ? percentile_of(k, c) : amax;
        float floor = bias_floor(k, bias, c);
        /* Mostly zeros: what is left is the layer. */
        scale[c] = kiln_weight_scale((double)(most > 0 ? most : amax), k->j->bits);
        if (k->j->calibrator == KILN_CALIBRATOR_MSE && amax > 0) {
            scale[c] = least_squares(k, c, scale[c]);
        }
        /* A channel of zeros has no scale of its own. */
        scale[c] = amax > 0 && scale[c] > floor ? scale[c] : bias->data ? floor : scale[c];
    }
    return KILN_OK;
}

/* ---- Tensors ---- */

static kiln_status make_tensor(kiln_tensor *out, kiln_dtype dtype, int64_t n, bool scalar,
                               kiln_arena *arena) {
    *out = (kiln_tensor){.dtype = dtype, .rank = scalar ? 0 : 1, .dims = {scalar ? 0 : n}};
    out->cap_bytes = kiln_tensor_bytes(out);
    out->data = kiln_arena_array(arena, out->cap_bytes, 1);
    return out->data ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status quantize_bias(job *k, const kiln_tensor *bias, const float *w_scale,
                                 kiln_weight *out, kiln_arena *arena) {
    int64_t n = kiln_tensor_count(bias);
    KILN_TRY(make_tensor(&out->data, KILN_DTYPE_I32, n, false, arena));
    KILN_TRY(make_tensor(&out->scale, KILN_DTYPE_F32, n, false, arena));
    KILN_TRY(make_tensor(&out->zero, KILN_DTYPE_I32, n, false, arena));
    for (int64_t i = 0; i < n; i++) {
        double s = k->j->alpha * k->j->x_scale * (double)w_scale[k->n == 1 ? 0 : i];
        double b = nearbyint(bias_at(bias, i) / (double)(float)s);
        ((float *)out->scale.data)[i] = (float)s;
        kiln_set_i64(KILN_DTYPE_I32, out->data.data, i,
                     kiln_quantize_saturate(b, 0, KILN_DTYPE_I32));
    }
    return KILN_OK;
}

static kiln_status quantize(job *k, kiln_weight *out, kiln_arena *arena) {
    kiln_tensor bias = {.data = NULL};
    const kiln_weight_job *j = k->j;
    *out = (kiln_weight){0};
    KILN_TRY(kiln_const_eval(j->weight, &k->w, &k->scratch, k->diag));
    k->lanes = kiln_lanes_of(&k->w, j->axis < 0 ? 0 : j->axis);
    k->n = j->axis < 0 ? 1 : k->w.dims[j->axis];
    if (j->bias) {
        KILN_TRY(kiln_const_eval(j->bias, &bias, &k->scratch, k->diag));
    }
    KILN_TRY(make_tensor(&out->scale, KILN_DTYPE_F32, k->n, j->axis < 0, arena));
    KILN_TRY(make_tensor(&out->zero, KILN_DTYPE_I8, k->n, j->axis < 0, arena));
    KILN_TRY(find_scales(k, &bias, out->scale.data));
    out->data = k->w;
    out->data.dtype = KILN_DTYPE_I8;
    out->data.cap_bytes = kiln_tensor_bytes(&out->data);
    out->data.data = kiln_arena_raw(arena, out->data.cap_bytes);
    if (!out->data.data) {
        return KILN_E_MEMORY;
    }
    kiln_quantize_weight(out->data.data, &k->w, j->axis, out->scale.data, j->bits);
    if (j->bias) {
        KILN_ALLOC(out->bias, arena, 1);
        return quantize_bias(k, &bias, out->scale.data, out->bias, arena);
    }
    return KILN_OK;
}

kiln_status kiln_weight_quantize(kiln_weight *out, const kiln_weight_job *j, kiln_arena *arena,
                                 const kiln_env *env, kiln_diag *diag) {
    job k = {.j = j, .diag = diag};
    kiln_arena_init(&k.scratch, env);
    kiln_status status = quantize(&k, out, arena);
    kiln_arena_free(&k.scratch);
    return status;
}
