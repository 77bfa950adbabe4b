/* preprocess.h - from a picture to the numbers a network wants.
 *
 *     resize > crop > color > (pixel * scale - mean) / std > layout > dtype
 *
 * in that order. The description is plain data, stored as JSON beside results so that they can be
 * repeated; all zero is the identity: the picture's own size, RGB, values 0..255, NCHW, float32.
 *
 *     kiln_preprocess pre = {0};
 *     KILN_TRY(kiln_preprocess_parse(&pre, "resize=256 crop=224 scale=1/255 "
 *                                          "mean=0.485,0.456,0.406 std=0.229,0.224,0.225", diag));
 *     kiln_tensor x;
 *     KILN_TRY(kiln_preprocess_apply(&x, &pre, &image, arena, diag));   // x.dims = 3, 224, 224
 *
 * The keys of the text form, which are the command's flags and the JSON's fields too:
 *
 *     resize   none | WxH | S (shorter side to S, aspect kept)
 *              letterbox:WxH (aspect kept, padded)
 *     interp   bilinear | bicubic     antialiased, as Pillow and torchvision resize pictures
 *              bilinear-plain | bicubic-plain   the 2x2 or 4x4 nearest pixels, as OpenCV
 *              nearest
 *     pad      letterbox fill value, 0..255          pad-at    center | top-left
 *     crop     none | WxH | S (S x S), from the centre
 *     color    rgb | bgr | gray (ITU-R BT.601 weights)
 *     scale    multiplier, a number or a fraction such as 1/255
 *     mean, std   one number, or one for each channel in the order of `color`, on scaled values
 *     layout   nchw | nhwc            dtype     float32 | uint8 (rounded and saturated)
 */
#ifndef KILN_DATA_PREPROCESS_H
#define KILN_DATA_PREPROCESS_H

#include "base/arena.h"
#include "base/diag.h"
#include "base/json.h"
#include "data/image.h"

typedef enum kiln_resize {
    KILN_RESIZE_NONE,
    KILN_RESIZE_EXACT,
    KILN_RESIZE_SHORTER,
    KILN_RESIZE_LETTERBOX,
} kiln_resize;

typedef enum kiln_interp {
    KILN_INTERP_BILINEAR, /* antialiased */
    KILN_INTERP_BICUBIC,  /* antialiased, a = -0.5 */
    KILN_INTERP_BILINEAR_PLAIN,
    KILN_INTERP_BICUBIC_PLAIN, /* a = -0.75 */
    KILN_INTERP_NEAREST,
} kiln_interp;

typedef enum kiln_pad_at { KILN_PAD_CENTER, KILN_PAD_TOP_LEFT } kiln_pad_at;
typedef enum kiln_color { KILN_COLOR_RGB, KILN_COLOR_BGR, KILN_COLOR_GRAY } kiln_color;
typedef enum kiln_pixel_layout { KILN_PIXELS_NCHW, KILN_PIXELS_NHWC } kiln_pixel_layout;

enum { KILN_PREPROCESS_CHANNELS = 3 };

typedef struct kiln_preprocess {
    kiln_resize resize;
    int32_t resize_w, resize_h; /* SHORTER: both are the side */
    kiln_interp interp;
    int32_t pad_value;
    kiln_pad_at pad_at;
    int32_t crop_w, crop_h; /* 0: no crop */
    kiln_color color;
    double scale;       /* 0: 1 */
    int32_t mean_count; /* 0, 1 or the number of channels */
    int32_t std_count;
    double mean[KILN_PREPROCESS_CHANNELS];
    double std[KILN_PREPROCESS_CHANNELS];
    kiln_pixel_layout layout;
    kiln_dtype dtype; /* NONE: F32; else F32 or U8 */
} kiln_preprocess;

/* Sets one key from text. KILN_E_USAGE names the key and the value it does not take. */
kiln_status kiln_preprocess_set(kiln_preprocess *pre, const char *key, const char *value,
                                kiln_diag *diag);
/* Sets every "key=value" of a text separated by spaces or semicolons, then validates. */
kiln_status kiln_preprocess_parse(kiln_preprocess *pre, const char *text, kiln_diag *diag);
/* Checks values set by hand: sizes, counts, std != 0, finite numbers. KILN_E_USAGE. */
kiln_status kiln_preprocess_check(const kiln_preprocess *pre, kiln_diag *diag);
/* True when nothing is set. */
bool kiln_preprocess_is_identity(const kiln_preprocess *pre);

/* A JSON object with the keys above: {"resize": "256", "scale": 0.5, "mean": [1, 2, 3]}. Absent
 * keys keep their zero, unknown or repeated ones are refused (KILN_E_MALFORMED). */
kiln_status kiln_preprocess_from_json(kiln_preprocess *out, const char *json, size_t len,
                                      kiln_diag *diag);

/* Writes that object: every key that is not zero. */
void kiln_preprocess_to_json(kiln_json *json, const kiln_preprocess *pre);

/* Channels of the result: 1 for COLOR_GRAY and for one-channel pictures (MNIST), else 3. */
int32_t kiln_preprocess_channels(const kiln_preprocess *pre, const kiln_image *image);

/* Runs all steps on a picture of 1 or 3 channels. The tensor (rank 3, no batch dim) comes from
 * `arena`. KILN_E_USAGE when the
 * crop is larger than the resized picture, KILN_E_LIMIT when that has too many pixels. */
kiln_status kiln_preprocess_apply(kiln_tensor *out, const kiln_preprocess *pre,
                                  const kiln_image *image, kiln_arena *arena, kiln_diag *diag);

/* Resizes to width x height (both >= 1, checked against the limits). Pixels come from `arena`. */
kiln_status kiln_image_resize(kiln_image *out, const kiln_image *in, int32_t width, int32_t height,
                              kiln_interp interp, kiln_arena *arena, kiln_diag *diag);

#endif
