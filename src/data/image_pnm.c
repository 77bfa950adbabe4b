/* image_pnm.c - the two simple picture kinds: binary PPM/PGM (P6, P5) and uncompressed BMP. */
#include <inttypes.h>
#include <string.h>

#include "data/image_codec.h"

/* ---- PPM and PGM: "P6 width height maxval" in text, then samples ---- */

static bool is_space(uint8_t c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Reads a decimal number at *at, skipping white space and # comments before it. */
static bool pnm_number(const kiln_image_input *in, size_t *at, int64_t *out) {
    size_t i = *at;
    while (i < in->size && (is_space(in->bytes[i]) || in->bytes[i] == '#')) {
        if (in->bytes[i] == '#') {
            while (i < in->size && in->bytes[i] != '\n') {
                ++i;
            }
        } else {
            ++i;
        }
    }
    size_t start = i;
    int64_t value = 0;
    while (i < in->size && in->bytes[i] >= '0' && in->bytes[i] <= '9' && i - start < 10) {
        value = value * 10 + (in->bytes[i] - '0');
        ++i;
    }
    *at = i;
    *out = value;
    return i > start;
}

/* `count` samples of `bytes` bytes (big-endian) scaled from 0..maxval to 0..255. */
static void pnm_scale(uint8_t *dst, const uint8_t *src, size_t count, size_t bytes,
                      uint32_t maxval) {
    for (size_t i = 0; i < count; ++i) {
        uint32_t v = bytes == 1 ? src[i] : (uint32_t)src[2 * i] << 8 | src[2 * i + 1];
        v = v > maxval ? maxval : v;
        dst[i] = (uint8_t)((v * 255 + maxval / 2) / maxval);
    }
}

/* Spreads `count` grey samples at the front of pixels over three channels, in place. */
static void grey_to_rgb(uint8_t *pixels, size_t count) {
    for (size_t i = count; i-- > 0;) {
        uint8_t v = pixels[i];
        memset(pixels + 3 * i, v, 3);
    }
}

kiln_status kiln_pnm_decode(kiln_image *out, const kiln_image_input *in) {
    int64_t width;
    int64_t height;
    int64_t maxval;
    size_t at = 2;
    if (!pnm_number(in, &at, &width) || !pnm_number(in, &at, &height) ||
        !pnm_number(in, &at, &maxval) || at >= in->size || !is_space(in->bytes[at]) || maxval < 1 ||
        maxval > 65535) {
        return kiln_fail(in->diag, KILN_F_DATA_FORMAT, "PPM header is broken");
    }
    ++at;
    KILN_TRY(kiln_image_alloc(out, width, height, in));
    size_t channels = in->bytes[1] == '6' ? 3 : 1;
    size_t sample = maxval > 255 ? 2 : 1;
    size_t pixels = (size_t)width * (size_t)height;
    if (in->size - at < pixels * channels * sample) {
        return kiln_fail(in->diag, KILN_F_DATA_FORMAT,
                         "PPM of %" PRId64 "x%" PRId64 " needs %zu bytes of samples, has %zu",
                         width, height, pixels * channels * sample, in->size - at);
    }
    pnm_scale(out->pixels, in->bytes + at, pixels * channels, sample, (uint32_t)maxval);
    if (channels == 1) {
        grey_to_rgb(out->pixels, pixels);
    }
    return KILN_OK;
}

/* ---- BMP ---- */

static uint32_t le16(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t le32(const uint8_t *p) {
    return le16(p) | le16(p + 2) << 16;
}

enum {
    BMP_FILE_HEADER = 14,
    BMP_INFO_HEADER = 40,
    BMP_RGB = 0,
    BMP_BITFIELDS = 3,
};

typedef struct bmp_layout {
    int64_t width, height;
    uint32_t bits;
    bool top_down;
    size_t pixels_at;
    size_t row_bytes; /* rows are padded to four bytes */
    size_t palette_at;
    uint32_t colors;
} bmp_layout;

/* 32-bit bit fields other than plain BGRA are rare enough to refuse. */
static bool plain_bitfields(const kiln_image_input *in, uint32_t bits) {
    size_t masks = BMP_FILE_HEADER + BMP_INFO_HEADER;
    return bits == 32 && in->size >= masks + 12 && le32(in->bytes + masks) == 0x00ff0000u &&
           le32(in->bytes + masks + 4) == 0x0000ff00u && le32(in->bytes + masks + 8) == 0x000000ffu;
}

static kiln_status bmp_header(bmp_layout *out, const kiln_image_input *in) {
    const uint8_t *b = in->bytes;
    if (in->size < BMP_FILE_HEADER + BMP_INFO_HEADER) {
        return kiln_fail(in->diag, KILN_F_DATA_FORMAT, "BMP ends inside its header");
    }
    uint32_t info = le32(b + 14);
    uint32_t compression = le32(b + 30);
    int64_t height = (int32_t)le32(b + 22);
    *out = (bmp_layout){
        .width = (int32_t)le32(b + 18),
        .height = height < 0 ? -height : height,
        .top_down = height < 0,
        .bits = le16(b + 28),
        .pixels_at = le32(b + 10),
        .colors = le32(b + 46),
    };
    bool known =
        compression == BMP_RGB || (compression == BMP_BITFIELDS && plain_bitfields(in, out->bits));
    if (info < BMP_INFO_HEADER || info > in->size - BMP_FILE_HEADER || le16(b + 26) != 1) {
        return kiln_fail(in->diag, KILN_F_DATA_FORMAT, "BMP header is broken");
    }
    if (!known || (out->bits != 8 && out->bits != 24 && out->bits != 32)) {
        return kiln_fail(in->diag, KILN_F_DATA_UNSUPPORTED,
                         "BMP with %u bits a pixel and compression %u is not read", out->bits,
                         compression);
    }
    out->palette_at = BMP_FILE_HEADER + (size_t)info;
    if (out->bits == 8) {
        out->colors = out->colors == 0 ? 256 : out->colors;
        if (out->colors > 256 || in->size - out->palette_at < (size_t)out->colors * 4) {
            return kiln_fail(in->diag, KILN_F_DATA_FORMAT, "BMP palette of %u colours is broken",
                             out->colors);
        }
    }
    return KILN_OK;
}

static kiln_status bmp_row(uint8_t *dst, const uint8_t *src, const bmp_layout *layout,
                           const kiln_image_input *in) {
    size_t step = layout->bits / 8;
    for (int64_t x = 0; x < layout->width; ++x, src += step, dst += 3) {
        const uint8_t *bgr = src;
        if (layout->bits == 8) {
            if (*src >= layout->colors) {
                return kiln_fail(in->diag, KILN_F_DATA_FORMAT,
                                 "BMP uses colour %u of a palette of %u", *src, layout->colors);
            }
            bgr = in->bytes + layout->palette_at + (size_t)*src * 4;
        }
        dst[0] = bgr[2];
        dst[1] = bgr[1];
        dst[2] = bgr[0];
    }
    return KILN_OK;
}

kiln_status kiln_bmp_decode(kiln_image *out, const kiln_image_input *in) {
    bmp_layout layout = {0};
    KILN_TRY(bmp_header(&layout, in));
    KILN_TRY(kiln_image_alloc(out, layout.width, layout.height, in));
    layout.row_bytes = ((size_t)layout.width * (layout.bits / 8) + 3) & ~(size_t)3;
    size_t need = layout.row_bytes * (size_t)layout.height;
    if (layout.pixels_at > in->size || in->size - layout.pixels_at < need) {
        return kiln_fail(in->diag, KILN_F_DATA_FORMAT,
                         "BMP of %" PRId64 "x%" PRId64
                         " needs %zu bytes of pixels at %zu, the file "
                         "has %zu bytes",
                         layout.width, layout.height, need, layout.pixels_at, in->size);
    }
    for (int64_t y = 0; y < layout.height; ++y) {
        int64_t row = layout.top_down ? y : layout.height - 1 - y;
        KILN_TRY(bmp_row(out->pixels + (size_t)y * (size_t)layout.width * 3,
                         in->bytes + layout.pixels_at + (size_t)row * layout.row_bytes, &layout,
                         in));
    }
    return KILN_OK;
}
