/* image_jpeg.c - JPEG by TurboJPEG.
 *
 * The header gives the dimensions, which are checked before decoding. TJFLAG_LIMITSCANS stops files
 * that repeat a cheap scan many thousand times (a few KB that would decode for minutes). */
#include <string.h>
#include <turbojpeg.h>

#include "data/image_codec.h"

/* One CMYK pixel of inverted ink (255 = no ink) to RGB. */
static void cmyk_row(uint8_t *rgb, const uint8_t *cmyk, int32_t width) {
    for (int32_t x = 0; x < width; ++x, rgb += 3, cmyk += 4) {
        for (int32_t c = 0; c < 3; ++c) {
            rgb[c] = (uint8_t)((cmyk[c] * cmyk[3] + 127) / 255);
        }
    }
}

/* A truncated file is refused: its missing part would be silent grey. Other warnings (bytes between
 * markers, an unknown Adobe tag) leave the picture whole. */
static kiln_status decoded(tjhandle handle, int rc, const kiln_image_input *in) {
    if (rc == 0) {
        return KILN_OK;
    }
    const char *text = tjGetErrorStr2(handle);
    if (strstr(text, "scans")) {
        return kiln_fail(in->diag, KILN_F_DATA_LIMIT, "JPEG has too many progressive scans");
    }
    if (tjGetErrorCode(handle) == TJERR_WARNING && !strstr(text, "remature end")) {
        kiln_warn(in->diag, KILN_F_DATA_FORMAT, "JPEG is damaged: %s", text);
        return KILN_OK;
    }
    return kiln_fail(in->diag, KILN_F_DATA_FORMAT, "JPEG cannot be decoded: %s", text);
}

static kiln_status decode(tjhandle handle, kiln_image *out, const kiln_image_input *in) {
    int width;
    int height;
    int subsampling;
    int colorspace;
    unsigned long size = (unsigned long)in->size;
    if (tjDecompressHeader3(handle, in->bytes, size, &width, &height, &subsampling, &colorspace)) {
        return kiln_fail(in->diag, KILN_F_DATA_FORMAT, "JPEG header is broken: %s",
                         tjGetErrorStr2(handle));
    }
    KILN_TRY(kiln_image_alloc(out, width, height, in));
    if (colorspace != TJCS_CMYK && colorspace != TJCS_YCCK) {
        return decoded(handle,
                       tjDecompress2(handle, in->bytes, size, out->pixels, width, 0, height,
                                     TJPF_RGB, TJFLAG_LIMITSCANS),
                       in);
    }
    size_t pixels = (size_t)width * (size_t)height;
    kiln_arena_mark mark = kiln_arena_here(in->arena);
    uint8_t *cmyk = kiln_arena_raw(in->arena, pixels * 4);
    if (!cmyk) {
        return KILN_E_MEMORY;
    }
    kiln_status status = decoded(handle,
                                 tjDecompress2(handle, in->bytes, size, cmyk, width, 0, height,
                                               TJPF_CMYK, TJFLAG_LIMITSCANS),
                                 in);
    for (int32_t y = 0; status == KILN_OK && y < height; ++y) {
        size_t row = (size_t)y * (size_t)width;
        cmyk_row(out->pixels + row * 3, cmyk + row * 4, width);
    }
    kiln_arena_rewind(in->arena, mark);
    return status;
}

kiln_status kiln_jpeg_decode(kiln_image *out, const kiln_image_input *in) {
    tjhandle handle = tjInitDecompress();
    if (!handle) {
        return KILN_E_MEMORY;
    }
    kiln_status status = decode(handle, out, in);
    tjDestroy(handle);
    return status;
}
