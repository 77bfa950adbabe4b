/* image_png.c - PNG by libpng.
 *
 * libpng reports errors by longjmp; each function that calls it sets the target itself, and what
 * must survive the jump lives in a struct. Its memory comes from the environment's allocator.
 * Ancillary chunks other than tRNS are skipped unread, so that text and profiles cost nothing. */
#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "base/checked.h"
#include "base/env.h"
#include "base/file.h"
#include "data/image_codec.h"

/* Largest memory for any one chunk but the pixels: palettes are tiny. */
enum { CHUNK_BYTES = 1 << 20 };

/* ---- Memory: kiln_env_release wants the size back, so each block begins with it ---- */

enum { SIZE_SLOT = 64 };

typedef struct memory {
    const kiln_env *env;
    bool failed; /* libpng reports it as an error like any other */
} memory;

static png_voidp png_alloc(png_structp png, png_alloc_size_t bytes) {
    memory *m = png_get_mem_ptr(png);
    size_t total;
    uint8_t *block = kiln_add_size(bytes, SIZE_SLOT, &total) ? kiln_env_alloc(m->env, total) : NULL;
    if (!block) {
        m->failed = true;
        return NULL;
    }
    memcpy(block, &total, sizeof total);
    return block + SIZE_SLOT;
}

static void png_release(png_structp png, png_voidp ptr) {
    if (ptr) {
        const memory *m = png_get_mem_ptr(png);
        uint8_t *block = (uint8_t *)ptr - SIZE_SLOT;
        size_t total;
        memcpy(&total, block, sizeof total);
        kiln_env_release(m->env, block, total);
    }
}

/* ---- Errors ---- */

typedef struct report {
    char text[160];
} report;

static void on_error(png_structp png, png_const_charp text) {
    report *r = png_get_error_ptr(png);
    size_t len = strlen(text);
    len = len < sizeof r->text - 1 ? len : sizeof r->text - 1;
    memcpy(r->text, text, len);
    r->text[len] = '\0';
    png_longjmp(png, 1);
}

/* Warnings concern metadata that is skipped anyway. */
static void on_warning(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

/* ---- Reading ---- */

typedef struct reader {
    const kiln_image_input *in;
    size_t at;
    report error;
    memory memory;
    png_structp png;
    png_infop info;
    kiln_status status; /* of our own checks, which do not jump */
    size_t channels;
    uint8_t *pixels;
} reader;

static void on_read(png_structp png, png_bytep dst, size_t bytes) {
    reader *r = png_get_io_ptr(png);
    if (bytes > r->in->size - r->at) {
        png_error(png, "the file ends early");
    }
    memcpy(dst, r->in->bytes + r->at, bytes);
    r->at += bytes;
}

static void set_limits(png_structp png) {
    png_set_user_limits(png, KILN_IMAGE_MAX_SIDE, KILN_IMAGE_MAX_SIDE);
    png_set_chunk_malloc_max(png, CHUNK_BYTES);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    static const png_byte keep[] = "tRNS";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_AS_DEFAULT, keep, 1);
}

/* Everything becomes 8-bit RGB, or RGBA where alpha is wanted. */
static void set_transforms(reader *r) {
    png_structp png = r->png;
    png_byte type = png_get_color_type(png, r->info);
    bool transparent = (type & PNG_COLOR_MASK_ALPHA) || png_get_valid(png, r->info, PNG_INFO_tRNS);
    png_set_scale_16(png);
    png_set_palette_to_rgb(png);
    if (type == PNG_COLOR_TYPE_GRAY) {
        png_set_expand_gray_1_2_4_to_8(png);
    }
    png_set_gray_to_rgb(png);
    r->channels = r->in->options->composite && transparent ? 4 : 3;
    if (r->channels == 4) {
        png_set_tRNS_to_alpha(png);
    } else {
        png_set_strip_alpha(png);
    }
}

/* All libpng calls of a read: fills r->pixels, which is out->pixels or scratch for RGBA. Returns
 * false after a libpng error. */
static bool read_png(reader *r, kiln_image *out) {
    if (setjmp(png_jmpbuf(r->png))) {
        return false;
    }
    png_set_read_fn(r->png, r, on_read);
    set_limits(r->png);
    png_read_info(r->png, r->info);
    r->status = kiln_image_alloc(out, png_get_image_width(r->png, r->info),
                                 png_get_image_height(r->png, r->info), r->in);
    if (r->status != KILN_OK) {
        return true;
    }
    set_transforms(r);
    int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    size_t row = (size_t)out->width * r->channels;
    if (png_get_rowbytes(r->png, r->info) != row) {
        png_error(r->png, "unexpected row size");
    }
    /* Interlaced passes read rows that earlier ones left, so they must hold something. */
    r->pixels =
        r->channels == 3 ? out->pixels : kiln_arena_raw(r->in->arena, row * (size_t)out->height);
    if (!r->pixels) {
        r->status = KILN_E_MEMORY;
        return true;
    }
    memset(r->pixels, 0, row * (size_t)out->height);
    for (int pass = 0; pass < passes; ++pass) {
        for (int32_t y = 0; y < out->height; ++y) {
            png_read_row(r->png, r->pixels + (size_t)y * row, NULL);
        }
    }
    png_read_end(r->png, NULL);
    return true;
}

/* rgb = alpha * rgba + (1 - alpha) * background, rounded. */
static void blend(uint8_t *rgb, const uint8_t *rgba, size_t pixels, const uint8_t background[3]) {
    for (size_t i = 0; i < pixels; ++i, rgb += 3, rgba += 4) {
        for (int32_t c = 0; c < 3; ++c) {
            rgb[c] = (uint8_t)((rgba[c] * rgba[3] + background[c] * (255 - rgba[3]) + 127) / 255);
        }
    }
}

kiln_status kiln_png_decode(kiln_image *out, const kiln_image_input *in) {
    reader r = {.in = in, .memory = {in->arena->env, false}};
    r.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &r.error, on_error, on_warning,
                                     &r.memory, png_alloc, png_release);
    r.info = r.png ? png_create_info_struct(r.png) : NULL;
    if (!r.info) {
        png_destroy_read_struct(&r.png, NULL, NULL);
        return KILN_E_MEMORY;
    }
    bool ok = read_png(&r, out);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    if (r.memory.failed) {
        return KILN_E_MEMORY;
    }
    if (!ok) {
        return kiln_fail(in->diag, KILN_F_DATA_FORMAT, "PNG cannot be decoded: %s", r.error.text);
    }
    if (r.status == KILN_OK && r.channels == 4) {
        blend(out->pixels, r.pixels, (size_t)out->width * (size_t)out->height,
              in->options->background);
    }
    return r.status;
}

/* ---- Writing ---- */

typedef struct png_out {
    report error;
    memory memory;
    kiln_writer writer;
    kiln_status status; /* of the writer */
    kiln_diag *diag;
    png_structp png;
    png_infop info;
} png_out;

static void on_write(png_structp png, png_bytep src, size_t bytes) {
    png_out *w = png_get_io_ptr(png);
    w->status = kiln_writer_put(&w->writer, src, bytes, w->diag);
    if (w->status != KILN_OK) {
        png_error(png, "write failed");
    }
}

static void on_flush(png_structp png) {
    (void)png;
}

/* All libpng calls of a write. Returns false after an error. */
static bool write_png(png_out *w, const kiln_image *image) {
    if (setjmp(png_jmpbuf(w->png))) {
        return false;
    }
    png_set_write_fn(w->png, w, on_write, on_flush);
    png_set_IHDR(w->png, w->info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 image->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(w->png, w->info);
    size_t row = (size_t)image->width * (size_t)image->channels;
    for (int32_t y = 0; y < image->height; ++y) {
        png_write_row(w->png, image->pixels + (size_t)y * row);
    }
    png_write_end(w->png, NULL);
    return true;
}

static kiln_status write_whole(png_out *w, const kiln_image *image, const char *path) {
    w->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &w->error, on_error, on_warning,
                                       &w->memory, png_alloc, png_release);
    w->info = w->png ? png_create_info_struct(w->png) : NULL;
    if (!w->info) {
        png_destroy_write_struct(&w->png, NULL);
        return KILN_E_MEMORY;
    }
    kiln_status status = kiln_writer_open(&w->writer, path, w->diag);
    if (status == KILN_OK) {
        bool ok = write_png(w, image);
        status = w->status;
        if (!ok && w->memory.failed) {
            status = KILN_E_MEMORY;
        } else if (!ok && status == KILN_OK) {
            status =
                kiln_fail(w->diag, KILN_F_FILE_WRITE, "PNG cannot be written: %s", w->error.text);
        }
        if (status == KILN_OK) {
            status = kiln_writer_commit(&w->writer, w->diag);
        }
        kiln_writer_abandon(&w->writer);
    }
    png_destroy_write_struct(&w->png, &w->info);
    return status;
}

kiln_status kiln_image_write_png(const kiln_image *image, const char *path, const kiln_env *env,
                                 kiln_diag *diag) {
    if ((image->channels != 1 && image->channels != 3) || image->width < 1 || image->height < 1) {
        return kiln_fail(diag, KILN_F_OPTION, "a picture of %dx%d with %d channels is no PNG",
                         image->width, image->height, image->channels);
    }
    png_out w = {.diag = diag, .memory = {env, false}};
    return write_whole(&w, image, path);
}
