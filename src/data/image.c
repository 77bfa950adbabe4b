/* image.c - telling picture kinds apart and what their decoders share (image.h). */
#include "data/image.h"

#include <inttypes.h>
#include <string.h>

#include "data/image_codec.h"
#include "data/input.h"

kiln_status kiln_image_alloc(kiln_image *out, int64_t width, int64_t height,
                             const kiln_image_input *in) {
    uint32_t mpixels = kiln_env_limits(in->arena->env)->image_mpixels;
    if (width < 1 || height < 1) {
        return kiln_fail(in->diag, KILN_F_DATA_FORMAT, "picture is %" PRId64 "x%" PRId64 " pixels",
                         width, height);
    }
    if (width > KILN_IMAGE_MAX_SIDE || height > KILN_IMAGE_MAX_SIDE ||
        width * height > (int64_t)mpixels * 1000000) {
        return kiln_fail(in->diag, KILN_F_DATA_LIMIT,
                         "picture of %" PRId64 "x%" PRId64
                         " pixels is over the limit of %u megapixels",
                         width, height, mpixels);
    }
    *out = (kiln_image){.width = (int32_t)width, .height = (int32_t)height, .channels = 3};
    out->pixels = kiln_arena_raw(in->arena, (size_t)width * (size_t)height * 3);
    return out->pixels ? KILN_OK : KILN_E_MEMORY;
}

typedef struct kind {
    const char *magic;
    size_t magic_bytes;
    kiln_status (*decode)(kiln_image *out, const kiln_image_input *in);
} kind;

static const kind kinds[] = {
    {"\x89PNG\r\n\x1a\n", 8, kiln_png_decode},
    {"\xff\xd8\xff", 3, kiln_jpeg_decode},
    {"BM", 2, kiln_bmp_decode},
    {"P5", 2, kiln_pnm_decode},
    {"P6", 2, kiln_pnm_decode},
};

kiln_status kiln_image_decode(kiln_image *out, const void *bytes, size_t size,
                              const kiln_image_options *options, kiln_arena *arena,
                              kiln_diag *diag) {
    static const kiln_image_options defaults = {0};
    const kiln_image_input in = {bytes, size, options ? options : &defaults, arena, diag};
    for (size_t i = 0; i < KILN_COUNT_OF(kinds); ++i) {
        if (size >= kinds[i].magic_bytes &&
            memcmp(bytes, kinds[i].magic, kinds[i].magic_bytes) == 0) {
            return kinds[i].decode(out, &in);
        }
    }
    return kiln_fail(diag, KILN_F_DATA_FORMAT,
                     "the file is no PNG, JPEG, BMP, PPM or PGM picture (%zu bytes)", size);
}

bool kiln_image_name(const char *name) {
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm"};
    size_t len = strlen(name);
    for (size_t i = 0; i < KILN_COUNT_OF(endings); ++i) {
        size_t n = strlen(endings[i]);
        bool same = len > n;
        for (size_t k = 0; same && k < n; ++k) {
            char c = name[len - n + k];
            c = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
            same = c == endings[i][k];
        }
        if (same) {
            return true;
        }
    }
    return false;
}

kiln_status kiln_image_read(kiln_image *out, const char *path, const kiln_image_options *options,
                            kiln_arena *arena, kiln_diag *diag) {
    kiln_file file;
    KILN_TRY(kiln_input_open(&file, path, arena->env, diag));
    kiln_status status = kiln_image_decode(out, file.data, file.bytes, options, arena, diag);
    return kiln_input_close(&file, status, diag);
}
