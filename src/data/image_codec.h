/* image_codec.h - what the decoders of image.h share. Each decoder is handed bytes that begin like
 * its kind and fills `out` with three channels. */
#ifndef KILN_DATA_IMAGE_CODEC_H
#define KILN_DATA_IMAGE_CODEC_H

#include "data/image.h"

typedef struct kiln_image_input {
    const uint8_t *bytes;
    size_t size;
    const kiln_image_options *options; /* never NULL */
    kiln_arena *arena;
    kiln_diag *diag;
} kiln_image_input;

/* Checks width, height (any values) against the limits, then allocates out->pixels for three
 * channels, not zeroed. */
kiln_status kiln_image_alloc(kiln_image *out, int64_t width, int64_t height,
                             const kiln_image_input *in);

kiln_status kiln_png_decode(kiln_image *out, const kiln_image_input *in);
kiln_status kiln_jpeg_decode(kiln_image *out, const kiln_image_input *in);
kiln_status kiln_bmp_decode(kiln_image *out, const kiln_image_input *in);
kiln_status kiln_pnm_decode(kiln_image *out, const kiln_image_input *in);

#endif
