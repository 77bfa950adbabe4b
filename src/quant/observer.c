#include "quant/observer.h"

#include <math.h>
#include <string.h>

#include "ops/lanes.h"
#include "ops/util.h"

/* Elements converted to float32 at a time. */
enum { CHUNK = 1024 };

void kiln_observer_init(kiln_observer *o) {
    *o = (kiln_observer){.min = INFINITY, .max = -INFINITY};
}

double kiln_observer_width(const kiln_observer *o) {
    return ldexp(1, o->exponent - KILN_BIN_BITS);
}

/* ---- Range ---- */

/* Merges 2^shift neighbours into one, towards zero. */
static void merge_bins(uint64_t *bins, int32_t shift) {
    for (int32_t i = 1; i < KILN_BINS; i++) {
        uint64_t n = bins[i];
        bins[i] = 0;
        bins[i >> shift] += n;
    }
}

kiln_status kiln_observer_cover(kiln_observer *o, float amax, kiln_arena *arena) {
    int exponent;
    if (!(amax > 0)) {
        return KILN_OK;
    }
    (void)frexpf(amax, &exponent);
    if (!o->bins[0]) {
        uint64_t *bins;
        KILN_ALLOC(bins, arena, 2 * KILN_BINS);
        o->bins[0] = bins;
        o->bins[1] = bins + KILN_BINS;
        o->exponent = exponent;
    }
    if (exponent > o->exponent) {
        int32_t shift = exponent - o->exponent;
        shift = shift < KILN_BIN_BITS ? shift : KILN_BIN_BITS;
        merge_bins(o->bins[0], shift);
        merge_bins(o->bins[1], shift);
        o->exponent = exponent;
    }
    return KILN_OK;
}

/* ---- Counting ---- */

/* Of one chunk. */
typedef struct extent {
    float min, max;
    int64_t nans, infs;
} extent;

static extent extent_of(const float *x, int64_t n) {
    extent e = {INFINITY, -INFINITY, 0, 0};
    for (int64_t i = 0; i < n; i++) {
        bool finite = fabsf(x[i]) < INFINITY;
        e.min = finite && x[i] < e.min ? x[i] : e.min;
        e.max = finite && x[i] > e.max ? x[i] : e.max;
        e.nans += isnan(x[i]) ? 1 : 0;
        e.infs += isinf(x[i]) ? 1 : 0;
    }
    return e;
}

/* The product with a power of two is exact, so that a value's bin does not depend on the bins it
 * was in before. */
static void count_bins(kiln_observer *o, const float *x, int64_t n) {
    double per_unit = ldexp(1, KILN_BIN_BITS - o->exponent);
    for (int64_t i = 0; i < n; i++) {
        double v = x[i];
        if (v == 0) {
            o->zeros++;
        } else if (fabs(v) < (double)INFINITY) {
            o->bins[v > 0][(int32_t)(fabs(v) * per_unit)]++;
        }
    }
}

static kiln_status add_chunk(kiln_observer *o, const float *x, int64_t n, kiln_arena *arena) {
    extent e = extent_of(x, n);
    int64_t finite = n - e.nans - e.infs;
    if (finite > 0) {
        float amax = -e.min > e.max ? -e.min : e.max;
        KILN_TRY(kiln_observer_cover(o, amax, arena));
        if (amax > 0) {
            count_bins(o, x, n);
        } else {
            o->zeros += (uint64_t)finite;
        }
        /* + 0 turns -0 into 0 */
        o->min = e.min < o->min ? e.min + 0.0f : o->min;
        o->max = e.max > o->max ? e.max + 0.0f : o->max;
    }
    o->count += (uint64_t)finite;
    o->nans += (uint64_t)e.nans;
    o->infs += (uint64_t)e.infs;
    return KILN_OK;
}

static kiln_status check_total(uint64_t have, uint64_t more, kiln_diag *diag) {
    if (more > KILN_OBSERVER_MAX_COUNT - have) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "a tensor has more than 2^53 elements in all");
    }
    return KILN_OK;
}

static uint64_t total(const kiln_observer *o) {
    return o->count + o->nans + o->infs;
}

/* The greatest finite |x| of elements of any float type. */
static float amax_of(const kiln_tensor *t, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++) {
        float v = fabsf((float)kiln_get_f64(t->dtype, t->data, i));
        most = v > most && v < INFINITY ? v : most;
    }
    return most;
}

kiln_status kiln_observer_add(kiln_observer *o, const kiln_tensor *t, kiln_arena *arena,
                              kiln_diag *diag) {
    int64_t n = kiln_tensor_count(t);
    if (!kiln_dtype_is_float(t->dtype) || kiln_dtype_size(t->dtype) < 2) {
        return kiln_fail(diag, KILN_F_DTYPE, "a tensor of %s cannot be calibrated",
                         kiln_dtype_name(t->dtype));
    }
    if (n < 0) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "the tensor's dims are impossible");
    }
    KILN_TRY(check_total(total(o), (uint64_t)n, diag));
    if (t->dtype == KILN_DTYPE_F32) {
        return add_chunk(o, t->data, n, arena);
    }
    /* All bins first, so that memory does not run out half way. */
    KILN_TRY(kiln_observer_cover(o, amax_of(t, n), arena));
    for (int64_t at = 0; at < n; at += CHUNK) {
        float x[CHUNK];
        int64_t m = n - at < CHUNK ? n - at : CHUNK;
        for (int64_t i = 0; i < m; i++) {
            x[i] = (float)kiln_get_f64(t->dtype, t->data, at + i);
        }
        KILN_TRY(add_chunk(o, x, m, arena));
    }
    return KILN_OK;
}

kiln_status kiln_observer_merge(kiln_observer *o, const kiln_observer *from, kiln_arena *arena,
                                kiln_diag *diag) {
    KILN_TRY(check_total(total(o), total(from), diag));
    KILN_TRY(kiln_observer_cover(o, kiln_observer_amax(from), arena));
    for (int32_t side = 0; side < 2 && from->bins[0]; side++) {
        int32_t shift = o->exponent - from->exponent;
        shift = shift < KILN_BIN_BITS ? shift : KILN_BIN_BITS;
        for (int32_t i = 0; i < KILN_BINS; i++) {
            o->bins[side][i >> shift] += from->bins[side][i];
        }
    }
    o->count += from->count;
    o->zeros += from->zeros;
    o->nans += from->nans;
    o->infs += from->infs;
    o->min = from->min < o->min ? from->min : o->min;
    o->max = from->max > o->max ? from->max : o->max;
    return KILN_OK;
}

/* ---- Channels ---- */

void kiln_channel_ranges(const kiln_tensor *t, int32_t axis, float *lo, float *hi,
                         int64_t *nonfinite) {
    kiln_lanes l = kiln_lanes_of(t, axis);
    int64_t count = kiln_tensor_count(t);
    *nonfinite = 0;
    for (int64_t c = 0; c < l.n; c++) {
        lo[c] = INFINITY;
        hi[c] = -INFINITY;
    }
    for (int64_t i = 0; i < count; i++) {
        float v = (float)kiln_get_f64(t->dtype, t->data, i);
        int64_t c = i / l.inner % l.n;
        if (!(fabsf(v) < INFINITY)) {
            (*nonfinite)++;
            continue;
        }
        lo[c] = v < lo[c] ? v : lo[c];
        hi[c] = v > hi[c] ? v : hi[c];
    }
    for (int64_t c = 0; c < l.n; c++) {
        lo[c] = lo[c] < INFINITY ? lo[c] : 0;
        hi[c] = hi[c] > -INFINITY ? hi[c] : 0;
    }
}
