/* image_resize.c - separable resampling of 8-bit pictures.
 *
 * Output pixel i covers input position c = (i + 0.5) * in / out. Its value is the sum of the input
 * pixels within the filter's support around c, weighted by the filter and normalised to 1. With
 * antialiasing the filter is stretched by the reduction factor, so that every input pixel counts
 * and each pass is rounded to 8 bits (Pillow's convention); without, the support stays 1 (bilinear)
 * or 2 (bicubic) pixels, the border is repeated, and only the result is rounded (OpenCV's).
 *
 * Rows are resized horizontally once, in order, into a ring that is as tall as the vertical filter:
 * scratch memory is a few rows, whatever the picture's height. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "data/preprocess.h"

typedef struct filter {
    double support; /* half width at scale 1 */
    double cubic_a; /* bicubic's free parameter; 0: bilinear */
    bool antialias;
} filter;

static const filter filters[] = {
    [KILN_INTERP_BILINEAR] = {.support = 1, .antialias = true},
    [KILN_INTERP_BICUBIC] = {.support = 2, .cubic_a = -0.5, .antialias = true},
    [KILN_INTERP_BILINEAR_PLAIN] = {.support = 1},
    [KILN_INTERP_BICUBIC_PLAIN] = {.support = 2, .cubic_a = -0.75},
};

/* Keys' cubic convolution kernel (Keys 1981, eq. 4 with free a), or the triangle. */
static double weigh(const filter *f, double x) {
    double a = f->cubic_a;
    x = fabs(x);
    if (a == 0) {
        return x < 1 ? 1 - x : 0;
    }
    if (x < 1) {
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    }
    return x < 2 ? a * (((x - 5) * x + 8) * x - 4) : 0;
}

/* For each output position the input range and its weights. */
typedef struct taps {
    int32_t *first;
    int32_t *count;
    float *weights; /* [out][most] */
    int32_t most;
} taps;

static int32_t clamp_index(int64_t i, int32_t size) {
    return i < 0 ? 0 : (i >= size ? size - 1 : (int32_t)i);
}

static void fill_taps(taps *t, int32_t i, const filter *f, int32_t in, double scale) {
    double stretch = f->antialias && scale > 1 ? scale : 1;
    double center = (i + 0.5) * scale;
    int64_t lo = (int64_t)floor(center - f->support * stretch + 0.5);
    int64_t hi = (int64_t)floor(center + f->support * stretch + 0.5);
    int32_t first = clamp_index(lo, in);
    float *weights = t->weights + (size_t)i * (size_t)t->most;
    double sum = 0;
    int32_t last = first;
    for (int64_t x = lo; x < hi; ++x) {
        if (f->antialias && (x < 0 || x >= in)) {
            continue;
        }
        double w = weigh(f, ((double)x - center + 0.5) / stretch);
        last = clamp_index(x, in);
        weights[last - first] += (float)w;
        sum += w;
    }
    t->first[i] = first;
    t->count[i] = last - first + 1;
    for (int32_t k = 0; k < t->count[i]; ++k) {
        weights[k] = (float)(weights[k] / sum);
    }
}

static kiln_status make_taps(taps *t, const filter *f, int32_t in, int32_t out, kiln_arena *arena) {
    double scale = (double)in / out;
    double stretch = f->antialias && scale > 1 ? scale : 1;
    t->most = (int32_t)ceil(f->support * stretch) * 2 + 1;
    KILN_ALLOC(t->first, arena, out);
    KILN_ALLOC(t->count, arena, out);
    KILN_ALLOC(t->weights, arena, (size_t)out * (size_t)t->most);
    for (int32_t i = 0; i < out; ++i) {
        fill_taps(t, i, f, in, scale);
    }
    return KILN_OK;
}

static uint8_t round_u8(float v) {
    return v <= 0 ? 0 : (v >= 255 ? 255 : (uint8_t)(v + 0.5f));
}

static void resize_row(float *dst, const uint8_t *src, const taps *t, int32_t out, int32_t channels,
                       bool round) {
    for (int32_t i = 0; i < out; ++i) {
        const float *w = t->weights + (size_t)i * (size_t)t->most;
        const uint8_t *p = src + (size_t)t->first[i] * (size_t)channels;
        for (int32_t c = 0; c < channels; ++c) {
            float sum = 0;
            for (int32_t k = 0; k < t->count[i]; ++k) {
                sum += w[k] * (float)p[k * channels + c];
            }
            *dst++ = round ? (float)round_u8(sum) : sum;
        }
    }
}

static void blend_rows(uint8_t *dst, const float *ring, const taps *t, int32_t y, size_t width) {
    const float *w = t->weights + (size_t)y * (size_t)t->most;
    for (size_t x = 0; x < width; ++x) {
        float sum = 0;
        for (int32_t k = 0; k < t->count[y]; ++k) {
            sum += w[k] * ring[(size_t)((t->first[y] + k) % t->most) * width + x];
        }
        dst[x] = round_u8(sum);
    }
}

static kiln_status resample(kiln_image *out, const kiln_image *in, const filter *f,
                            kiln_arena *arena) {
    taps h;
    taps v;
    size_t width = (size_t)out->width * (size_t)out->channels;
    KILN_TRY(make_taps(&h, f, in->width, out->width, arena));
    KILN_TRY(make_taps(&v, f, in->height, out->height, arena));
    float *ring;
    KILN_ALLOC(ring, arena, (size_t)v.most * width);
    int32_t next = 0;
    for (int32_t y = 0; y < out->height; ++y) {
        next = next < v.first[y] ? v.first[y] : next;
        for (; next < v.first[y] + v.count[y]; ++next) {
            const uint8_t *row =
                in->pixels + (size_t)next * (size_t)in->width * (size_t)in->channels;
            resize_row(ring + (size_t)(next % v.most) * width, row, &h, out->width, out->channels,
                       f->antialias);
        }
        blend_rows(out->pixels + (size_t)y * width, ring, &v, y, width);
    }
    return KILN_OK;
}

/* Input index of each output position. The position is summed up step by step as Pillow does, so
 * that positions on the edge of two pixels fall to the same side. */
static kiln_status nearest_indices(int32_t **out, int32_t in, int32_t size, kiln_arena *arena) {
    int32_t *index;
    double step = (double)in / size;
    double at = step * 0.5;
    KILN_ALLOC(index, arena, size);
    for (int32_t i = 0; i < size; ++i, at += step) {
        index[i] = clamp_index((int64_t)at, in);
    }
    *out = index;
    return KILN_OK;
}

static kiln_status resize_nearest(kiln_image *out, const kiln_image *in, kiln_arena *arena) {
    int32_t *columns;
    int32_t *rows;
    KILN_TRY(nearest_indices(&columns, in->width, out->width, arena));
    KILN_TRY(nearest_indices(&rows, in->height, out->height, arena));
    size_t step = (size_t)in->channels;
    uint8_t *dst = out->pixels;
    for (int32_t y = 0; y < out->height; ++y) {
        const uint8_t *row = in->pixels + (size_t)rows[y] * (size_t)in->width * step;
        for (int32_t x = 0; x < out->width; ++x, dst += step) {
            memcpy(dst, row + (size_t)columns[x] * step, step);
        }
    }
    return KILN_OK;
}

kiln_status kiln_image_resize(kiln_image *out, const kiln_image *in, int32_t width, int32_t height,
                              kiln_interp interp, kiln_arena *arena, kiln_diag *diag) {
    int64_t most = (int64_t)kiln_env_limits(arena->env)->image_mpixels * 1000000;
    if (width < 1 || height < 1 || in->width < 1 || in->height < 1) {
        return kiln_fail(diag, KILN_F_OPTION, "a picture cannot be resized to %dx%d", width,
                         height);
    }
    if (width > KILN_IMAGE_MAX_SIDE || height > KILN_IMAGE_MAX_SIDE ||
        (int64_t)width * height > most) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT,
                         "resizing to %dx%d is over the limit of %" PRId64 " pixels", width, height,
                         most);
    }
    size_t bytes = (size_t)width * (size_t)height * (size_t)in->channels;
    *out = (kiln_image){.width = width, .height = height, .channels = in->channels};
    out->pixels = kiln_arena_raw(arena, bytes);
    if (!out->pixels) {
        return KILN_E_MEMORY;
    }
    if (width == in->width && height == in->height) {
        memcpy(out->pixels, in->pixels, bytes);
        return KILN_OK;
    }
    kiln_arena_mark mark = kiln_arena_here(arena);
    kiln_status status = interp == KILN_INTERP_NEAREST ? resize_nearest(out, in, arena)
                                                       : resample(out, in, &filters[interp], arena);
    kiln_arena_rewind(arena, mark);
    return status;
}
