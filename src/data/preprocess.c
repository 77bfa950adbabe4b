/* preprocess.c - resize, crop, colour, normalisation and layout of one picture (preprocess.h). */
#include "data/preprocess.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/env.h"

enum { LEVELS = 256 };

bool kiln_preprocess_is_identity(const kiln_preprocess *pre) {
    return pre->resize == KILN_RESIZE_NONE && pre->crop_w == 0 && pre->color == KILN_COLOR_RGB &&
           (pre->scale == 0 || pre->scale == 1) && pre->mean_count == 0 && pre->std_count == 0 &&
           pre->layout == KILN_PIXELS_NCHW && pre->dtype == KILN_DTYPE_NONE;
}

static bool valid_side(int32_t side) {
    return side >= 1 && side <= KILN_IMAGE_MAX_SIDE;
}

static kiln_status check_normalisation(const kiln_preprocess *pre, kiln_diag *diag) {
    int32_t channels = pre->color == KILN_COLOR_GRAY ? 1 : KILN_PREPROCESS_CHANNELS;
    const int32_t counts[] = {pre->mean_count, pre->std_count};
    for (size_t i = 0; i < KILN_COUNT_OF(counts); ++i) {
        if (counts[i] != 0 && counts[i] != 1 && counts[i] != channels) {
            return kiln_fail(diag, KILN_F_OPTION, "%s has %d values, takes 1 or %d",
                             i == 0 ? "mean" : "std", counts[i], channels);
        }
    }
    for (int32_t i = 0; i < pre->mean_count; ++i) {
        if (!isfinite(pre->mean[i])) {
            return kiln_fail(diag, KILN_F_OPTION, "mean is not a finite number");
        }
    }
    for (int32_t i = 0; i < pre->std_count; ++i) {
        if (!isfinite(pre->std[i]) || pre->std[i] == 0) {
            return kiln_fail(diag, KILN_F_OPTION, "std must be a finite number other than 0");
        }
    }
    return isfinite(pre->scale) ? KILN_OK
                                : kiln_fail(diag, KILN_F_OPTION, "scale is not a finite number");
}

kiln_status kiln_preprocess_check(const kiln_preprocess *pre, kiln_diag *diag) {
    if (pre->resize != KILN_RESIZE_NONE &&
        (!valid_side(pre->resize_w) || !valid_side(pre->resize_h))) {
        return kiln_fail(diag, KILN_F_OPTION, "resize to %dx%d is not a picture size",
                         pre->resize_w, pre->resize_h);
    }
    if ((pre->crop_w || pre->crop_h) && (!valid_side(pre->crop_w) || !valid_side(pre->crop_h))) {
        return kiln_fail(diag, KILN_F_OPTION, "crop to %dx%d is not a picture size", pre->crop_w,
                         pre->crop_h);
    }
    if (pre->pad_value < 0 || pre->pad_value > 255) {
        return kiln_fail(diag, KILN_F_OPTION, "pad is %d, takes 0..255", pre->pad_value);
    }
    if (pre->dtype != KILN_DTYPE_NONE && pre->dtype != KILN_DTYPE_F32 &&
        pre->dtype != KILN_DTYPE_U8) {
        return kiln_fail(diag, KILN_F_OPTION, "dtype is %s, takes float32 or uint8",
                         kiln_dtype_name(pre->dtype));
    }
    return check_normalisation(pre, diag);
}

int32_t kiln_preprocess_channels(const kiln_preprocess *pre, const kiln_image *image) {
    return pre->color == KILN_COLOR_GRAY ? 1 : image->channels;
}

/* ---- Geometry ---- */

/* The picture in the middle or the corner of a larger one of pad_value. */
static kiln_status pad(kiln_image *out, const kiln_image *in, const kiln_preprocess *pre,
                       kiln_arena *arena) {
    size_t step = (size_t)in->channels;
    size_t bytes = (size_t)pre->resize_w * (size_t)pre->resize_h * step;
    *out = (kiln_image){pre->resize_w, pre->resize_h, in->channels, kiln_arena_raw(arena, bytes)};
    if (!out->pixels) {
        return KILN_E_MEMORY;
    }
    bool center = pre->pad_at == KILN_PAD_CENTER;
    int32_t x0 = center ? (out->width - in->width) / 2 : 0;
    int32_t y0 = center ? (out->height - in->height) / 2 : 0;
    memset(out->pixels, pre->pad_value, bytes);
    for (int32_t y = 0; y < in->height; ++y) {
        memcpy(out->pixels + ((size_t)(y0 + y) * (size_t)out->width + (size_t)x0) * step,
               in->pixels + (size_t)y * (size_t)in->width * step, (size_t)in->width * step);
    }
    return KILN_OK;
}

/* a * num / den, at least 1; clamped to the largest side, which the limits then refuse. */
static int32_t scaled(int32_t a, double num, double den, double rounding) {
    double v = floor(a * num / den + rounding);
    return v < 1 ? 1 : (v > KILN_IMAGE_MAX_SIDE + 1.0 ? KILN_IMAGE_MAX_SIDE + 1 : (int32_t)v);
}

static kiln_status resize(kiln_image *out, const kiln_image *in, const kiln_preprocess *pre,
                          kiln_arena *arena, kiln_diag *diag) {
    int32_t w = pre->resize_w;
    int32_t h = pre->resize_h;
    if (pre->resize == KILN_RESIZE_SHORTER) {
        /* The longer side is truncated, as torchvision does. */
        bool wide = in->width > in->height;
        w = wide ? scaled(in->width, pre->resize_h, in->height, 0) : pre->resize_w;
        h = wide ? pre->resize_h : scaled(in->height, pre->resize_w, in->width, 0);
    } else if (pre->resize == KILN_RESIZE_LETTERBOX) {
        bool fit_width = (int64_t)in->width * h > (int64_t)in->height * w;
        h = fit_width ? scaled(in->height, w, in->width, 0.5) : h;
        w = fit_width ? w : scaled(in->width, h, in->height, 0.5);
        kiln_image fitted;
        KILN_TRY(kiln_image_resize(&fitted, in, w, h, pre->interp, arena, diag));
        return pad(out, &fitted, pre, arena);
    }
    return kiln_image_resize(out, in, w, h, pre->interp, arena, diag);
}

/* The centre's first pixel: half of the rest, rounded to even as torchvision's center crop. */
static int32_t center(int32_t size, int32_t crop) {
    int32_t rest = size - crop;
    int32_t half = rest / 2;
    return rest % 2 == 1 && half % 2 == 1 ? half + 1 : half;
}

/* A crop is a view: `first` is its top left pixel in rows of image->width. */
typedef struct view {
    const uint8_t *first;
    int32_t width, height, channels;
    size_t row_bytes;
} view;

static kiln_status crop(view *out, const kiln_image *image, const kiln_preprocess *pre,
                        kiln_diag *diag) {
    int32_t w = pre->crop_w ? pre->crop_w : image->width;
    int32_t h = pre->crop_h ? pre->crop_h : image->height;
    if (w > image->width || h > image->height) {
        return kiln_fail(diag, KILN_F_OPTION, "a crop of %dx%d does not fit a picture of %dx%d", w,
                         h, image->width, image->height);
    }
    size_t step = (size_t)image->channels;
    size_t row = (size_t)image->width * step;
    *out = (view){
        .first = image->pixels + (size_t)center(image->height, h) * row +
                 (size_t)center(image->width, w) * step,
        .width = w,
        .height = h,
        .channels = image->channels,
        .row_bytes = row,
    };
    return KILN_OK;
}

/* ---- Values ---- */

/* One pixel has only 256 values a channel: (v * scale - mean) / std is computed in double and
 * rounded once, here. */
static void fill_table(float table[LEVELS], const kiln_preprocess *pre, int32_t channel) {
    double scale = pre->scale == 0 ? 1 : pre->scale;
    double mean = pre->mean_count == 0 ? 0 : pre->mean[pre->mean_count == 1 ? 0 : channel];
    double std = pre->std_count == 0 ? 1 : pre->std[pre->std_count == 1 ? 0 : channel];
    for (int32_t v = 0; v < LEVELS; ++v) {
        table[v] = (float)((v * scale - mean) / std);
    }
}

static uint8_t saturate(float v) {
    float r = nearbyintf(v);
    return !(r > 0) ? 0 : (r >= 255 ? 255 : (uint8_t)r);
}

/* BT.601 luma in 16-bit fixed point: 0.299 R + 0.587 G + 0.114 B, weights summing to 65536. */
static uint8_t luma(const uint8_t *rgb) {
    return (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 32768u) >> 16);
}

static uint8_t pixel_channel(const uint8_t *pixel, const kiln_preprocess *pre, int32_t channels,
                             int32_t c) {
    if (channels == 1) {
        return pixel[0];
    }
    switch (pre->color) {
    case KILN_COLOR_GRAY:
        return luma(pixel);
    case KILN_COLOR_BGR:
        return pixel[2 - c];
    case KILN_COLOR_RGB:
        break;
    }
    return pixel[c];
}

/* Writes channel c of every pixel; consecutive pixels lie `stride` elements apart in dst. */
static void write_channel(void *dst, kiln_dtype dtype, size_t stride, const view *v,
                          const kiln_preprocess *pre, int32_t c) {
    float table[LEVELS];
    uint8_t table_u8[LEVELS];
    fill_table(table, pre, c);
    for (int32_t i = 0; i < LEVELS; ++i) {
        table_u8[i] = saturate(table[i]);
    }
    size_t at = 0;
    for (int32_t y = 0; y < v->height; ++y) {
        const uint8_t *pixel = v->first + (size_t)y * v->row_bytes;
        for (int32_t x = 0; x < v->width; ++x, pixel += v->channels, at += stride) {
            uint8_t level = pixel_channel(pixel, pre, v->channels, c);
            if (dtype == KILN_DTYPE_U8) {
                ((uint8_t *)dst)[at] = table_u8[level];
            } else {
                ((float *)dst)[at] = table[level];
            }
        }
    }
}

static void write_values(kiln_tensor *out, const kiln_preprocess *pre, const view *v,
                         int32_t channels) {
    size_t element = out->dtype == KILN_DTYPE_U8 ? 1 : sizeof(float);
    size_t plane = (size_t)v->width * (size_t)v->height;
    bool nhwc = pre->layout == KILN_PIXELS_NHWC;
    for (int32_t c = 0; c < channels; ++c) {
        size_t first = nhwc ? (size_t)c : (size_t)c * plane;
        write_channel((uint8_t *)out->data + first * element, out->dtype,
                      nhwc ? (size_t)channels : 1, v, pre, c);
    }
}

/* The per-channel counts of a one-channel picture are known only now. */
static kiln_status check_counts(const kiln_preprocess *pre, int32_t channels, kiln_diag *diag) {
    if ((pre->mean_count > 1 && pre->mean_count != channels) ||
        (pre->std_count > 1 && pre->std_count != channels)) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "mean and std have %d and %d values, the picture has %d channels",
                         pre->mean_count, pre->std_count, channels);
    }
    return KILN_OK;
}

/* Geometry in `scratch`, then values in `arena`. */
static kiln_status apply(kiln_tensor *out, const kiln_preprocess *pre, const kiln_image *image,
                         kiln_arena *scratch, kiln_arena *arena, kiln_diag *diag) {
    kiln_image resized = *image;
    if (pre->resize != KILN_RESIZE_NONE) {
        KILN_TRY(resize(&resized, image, pre, scratch, diag));
    }
    view v;
    KILN_TRY(crop(&v, &resized, pre, diag));
    int32_t channels = kiln_preprocess_channels(pre, image);
    KILN_TRY(check_counts(pre, channels, diag));
    bool nhwc = pre->layout == KILN_PIXELS_NHWC;
    *out = (kiln_tensor){
        .dtype = pre->dtype == KILN_DTYPE_NONE ? KILN_DTYPE_F32 : pre->dtype,
        .rank = 3,
        .dims = {nhwc ? v.height : channels, nhwc ? v.width : v.height, nhwc ? channels : v.width},
    };
    out->cap_bytes = kiln_tensor_bytes(out);
    out->data = kiln_arena_raw(arena, out->cap_bytes);
    if (!out->data) {
        return KILN_E_MEMORY;
    }
    write_values(out, pre, &v, channels);
    return KILN_OK;
}

kiln_status kiln_preprocess_apply(kiln_tensor *out, const kiln_preprocess *pre,
                                  const kiln_image *image, kiln_arena *arena, kiln_diag *diag) {
    KILN_TRY(kiln_preprocess_check(pre, diag));
    kiln_arena scratch;
    kiln_arena_init(&scratch, arena->env);
    kiln_status status = apply(out, pre, image, &scratch, arena, diag);
    kiln_arena_free(&scratch);
    return status;
}
