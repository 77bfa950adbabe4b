/* move.c - what move.h prepares at bind time: copy plans, padding maps, resize tables. */
#include "backend/cpu/prims/move.h"

#include <math.h>
#include <stdlib.h>

typedef struct copy_dim {
    int64_t dim, src, dst;
} copy_dim;

/* Destination order: larger strides first; insertion sort, stable, at most KILN_MAX_RANK dims. */
static void sort_dims(copy_dim *d, int32_t n) {
    for (int32_t i = 1; i < n; i++) {
        copy_dim key = d[i];
        int32_t j = i - 1;
        for (; j >= 0 && llabs(d[j].dst) < llabs(key.dst); j--) {
            d[j + 1] = d[j];
        }
        d[j + 1] = key;
    }
}

static int32_t merge_dims(copy_dim *d, int32_t n) {
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++) {
        copy_dim *last = &d[kept - (kept > 0)];
        if (kept > 0 && last->src == d[i].src * d[i].dim && last->dst == d[i].dst * d[i].dim) {
            last->dim *= d[i].dim;
            last->src = d[i].src;
            last->dst = d[i].dst;
        } else {
            d[kept++] = d[i];
        }
    }
    return kept;
}

/* Moves the dim that is contiguous in src next to the last, where the transpose kernel wants it. */
static bool arrange_transpose(copy_dim *d, int32_t n) {
    for (int32_t i = 0; i < n - 1; i++) {
        if (d[i].src == 1 && d[i].dim > 1) {
            copy_dim t = d[i];
            for (int32_t j = i; j < n - 2; j++) {
                d[j] = d[j + 1];
            }
            d[n - 2] = t;
            return true;
        }
    }
    return false;
}

/* A unit moves about this many bytes: large enough to hide the call, small enough to balance. */
enum { UNIT_BYTES = 32768, LINE_BYTES = 64 };

static void cut_units(kiln_copy_plan *plan) {
    int32_t spanned = plan->kind == KILN_COPY_TRANSPOSE ? 2 : 1;
    plan->outer = 1;
    for (int32_t i = 0; i < plan->rank - spanned; i++) {
        plan->outer *= plan->dims[i];
    }
    int64_t last = plan->dims[plan->rank - 1];
    int64_t bytes = plan->element_bytes;
    plan->group = 1;
    plan->pieces = 1;
    plan->piece = last;
    if (plan->kind == KILN_COPY_TRANSPOSE) {
        plan->piece = LINE_BYTES / bytes;
        plan->pieces = (plan->dims[plan->rank - 2] + plan->piece - 1) / plan->piece;
    } else if (last * bytes > 2 * UNIT_BYTES) {
        plan->piece = UNIT_BYTES / bytes;
        plan->pieces = (last + plan->piece - 1) / plan->piece;
    } else if (last > 0) {
        plan->group = UNIT_BYTES / (last * bytes) > 0 ? UNIT_BYTES / (last * bytes) : 1;
    }
    plan->units = (plan->outer + plan->group - 1) / plan->group * plan->pieces;
}

kiln_status kiln_copy_plan_make(kiln_copy_plan *plan, int32_t element_bytes, int32_t rank,
                                const int64_t *dims, const int64_t *src_stride,
                                const int64_t *dst_stride) {
    bool known =
        element_bytes == 1 || element_bytes == 2 || element_bytes == 4 || element_bytes == 8;
    if (!known || rank < 0 || rank > KILN_MAX_RANK) {
        return KILN_E_UNSUPPORTED;
    }
    copy_dim d[KILN_MAX_RANK];
    int32_t n = 0;
    bool empty = false;
    for (int32_t i = 0; i < rank; i++) {
        empty = empty || dims[i] == 0;
        if (dims[i] != 1) {
            d[n++] = (copy_dim){dims[i], src_stride[i], dst_stride[i]};
        }
    }
    if (n == 0) {
        d[n++] = (copy_dim){1, 1, 1};
    }
    sort_dims(d, n);
    n = merge_dims(d, n);
    if (n > KILN_COPY_RANK) {
        return KILN_E_UNSUPPORTED;
    }
    *plan = (kiln_copy_plan){.kind = KILN_COPY_STRIDED, .element_bytes = element_bytes, .rank = n};
    if (d[n - 1].dst == 1 && d[n - 1].src == 1) {
        plan->kind = KILN_COPY_ROWS;
    } else if (d[n - 1].dst == 1 && arrange_transpose(d, n)) {
        plan->kind = KILN_COPY_TRANSPOSE;
    }
    for (int32_t i = 0; i < n; i++) {
        plan->dims[i] = d[i].dim;
        plan->src[i] = d[i].src;
        plan->dst[i] = d[i].dst;
    }
    cut_units(plan);
    if (empty) {
        plan->units = 0;
    }
    return KILN_OK;
}

/* i modulo n into [0, n). */
static int64_t wrap(int64_t i, int64_t n) {
    int64_t r = i % n;
    return r < 0 ? r + n : r;
}

void kiln_pad_map(int32_t *map, kiln_pad_mode mode, int64_t in, int64_t out, int64_t before) {
    for (int64_t o = 0; o < out; o++) {
        int64_t i = o - before;
        if (mode == KILN_PAD_EDGE) {
            i = i < 0 ? 0 : i >= in ? in - 1 : i;
        } else if (mode == KILN_PAD_WRAP) {
            i = wrap(i, in);
        } else if (mode == KILN_PAD_REFLECT) {
            int64_t period = in > 1 ? 2 * (in - 1) : 1;
            i = wrap(i, period);
            i = i < in ? i : period - i;
        } else if (i < 0 || i >= in) {
            i = -1;
        }
        map[o] = (int32_t)i;
    }
}

/* Where output element o lies on the input axis, as the ONNX Resize specification has it. */
static double raw_coordinate(const kiln_resize_spec *s, int64_t o) {
    double x = (double)o;
    double in = (double)s->in;
    double out = (double)s->out;
    double scale = s->scale;
    switch (s->coord) {
    case KILN_COORD_HALF_PIXEL:
        return (x + 0.5) / scale - 0.5;
    case KILN_COORD_HALF_PIXEL_SYMMETRIC:
        return in / 2.0 * (1.0 - out / (scale * in)) + (x + 0.5) / scale - 0.5;
    case KILN_COORD_PYTORCH_HALF_PIXEL:
        return s->out > 1 ? (x + 0.5) / scale - 0.5 : 0.0;
    case KILN_COORD_ALIGN_CORNERS:
        return s->out > 1 ? x * (in - 1.0) / (out - 1.0) : 0.0;
    case KILN_COORD_ASYMMETRIC:
        return x / scale;
    case KILN_COORD_TF_CROP: {
        double start = (double)s->roi_start;
        double end = (double)s->roi_end;
        return s->out > 1 ? (start + x * (end - start) / (out - 1.0)) * (in - 1.0)
                          : 0.5 * (start + end) * (in - 1.0);
    }
    }
    return x;
}

/* The same, held within what an int64_t can index. */
static double source_coordinate(const kiln_resize_spec *s, int64_t o) {
    double x = raw_coordinate(s, o);
    return x < -1e15 ? -1e15 : x > 1e15 ? 1e15 : x;
}

static double nearest(const kiln_resize_spec *s, double x) {
    switch (s->round) {
    case KILN_ROUND_PREFER_FLOOR:
        return ceil(x - 0.5);
    case KILN_ROUND_PREFER_CEIL:
        return floor(x + 0.5);
    case KILN_ROUND_FLOOR:
        return floor(x);
    case KILN_ROUND_CEIL:
        return ceil(x);
    }
    return x;
}

/* How much the filter is widened: 1 unless anti-aliasing shrinks. */
static double stretch(const kiln_resize_spec *s) {
    double scale = s->scale;
    return s->antialias && scale < 1.0 ? 1.0 / scale : 1.0;
}

int32_t kiln_resize_taps(const kiln_resize_spec *s) {
    if (s->mode == KILN_RESIZE_NEAREST) {
        return 1;
    }
    double radius = s->mode == KILN_RESIZE_LINEAR ? 1.0 : 2.0;
    return 2 * (int32_t)ceil(radius * stretch(s));
}

/* Keys' cubic convolution kernel (Keys, 1981) and the triangle. */
static double filter(const kiln_resize_spec *s, double distance) {
    double d = fabs(distance);
    if (s->mode == KILN_RESIZE_LINEAR) {
        return d < 1.0 ? 1.0 - d : 0.0;
    }
    double a = (double)s->cubic_a;
    if (d <= 1.0) {
        return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    }
    return d < 2.0 ? ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a : 0.0;
}

static int64_t clamp_index(int64_t i, int64_t n) {
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

void kiln_resize_table(int32_t *index, float *weight, const kiln_resize_spec *s) {
    int32_t taps = kiln_resize_taps(s);
    double widen = stretch(s);
    for (int64_t o = 0; o < s->out; o++, index += taps, weight += taps) {
        double x = source_coordinate(s, o);
        if (s->mode == KILN_RESIZE_NEAREST) {
            index[0] = (int32_t)clamp_index((int64_t)nearest(s, x), s->in);
            weight[0] = 1.0f;
        }
        double sum = 0.0;
        int64_t first = (int64_t)floor(x) - (taps / 2 - 1);
        for (int32_t t = 0; t < taps && s->mode != KILN_RESIZE_NEAREST; t++) {
            double w = filter(s, ((double)(first + t) - x) / widen);
            bool outside = first + t < 0 || first + t >= s->in;
            w = s->exclude_outside && outside ? 0.0 : w;
            sum += w;
            weight[t] = (float)w;
            index[t] = (int32_t)clamp_index(first + t, s->in);
        }
        bool rescale = s->mode != KILN_RESIZE_NEAREST && (widen > 1.0 || s->exclude_outside);
        for (int32_t t = 0; t < taps && rescale; t++) {
            weight[t] = (float)((double)weight[t] / sum);
        }
        if (s->coord == KILN_COORD_TF_CROP && (x < 0.0 || x > (double)(s->in - 1))) {
            index[0] = -1;
        }
    }
}
