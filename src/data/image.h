/* image.h - pictures in and out: PNG, JPEG, BMP, PPM/PGM to 8-bit RGB.
 *
 *     kiln_image image;
 *     KILN_TRY(kiln_image_read(&image, "cat.jpg", NULL, arena, diag));
 *     // image.pixels[(y * image.width + x) * 3 + c], c = 0 red, 1 green, 2 blue
 *
 * The kind is told from the bytes, never from the name. Every dimension is checked against the
 * environment's image_mpixels before anything of its size is allocated or decoded. Conventions:
 * 16-bit samples are scaled to 8; grey becomes three equal channels; CMYK and YCCK JPEGs are read
 * as inverted ink, as every common writer stores them; an animated PNG gives its default picture;
 * EXIF orientation, gamma and colour profiles are ignored.
 */
#ifndef KILN_DATA_IMAGE_H
#define KILN_DATA_IMAGE_H

#include "base/arena.h"
#include "base/diag.h"

/* Rows top to bottom without padding, pixels [height, width, channels] in u8. */
typedef struct kiln_image {
    int32_t width;
    int32_t height;
    int32_t channels; /* decoders give 3; 1 is grey, for writing and for data sets */
    uint8_t *pixels;
} kiln_image;

/* Zero: alpha is dropped, which leaves the colour stored beneath transparent pixels. */
typedef struct kiln_image_options {
    bool composite;        /* PNG alpha is blended over `background` instead */
    uint8_t background[3]; /* RGB */
} kiln_image_options;

/* Largest width or height of any picture, in or out. */
enum { KILN_IMAGE_MAX_SIDE = 1 << 20 };

/* Decodes a picture held in memory; pixels come from `arena`. KILN_E_MALFORMED for damaged or
 * truncated data and kinds it does not know, KILN_E_UNSUPPORTED for variants it does not read,
 * KILN_E_LIMIT for too many pixels or JPEG scans, KILN_E_MEMORY. options may be NULL. */
kiln_status kiln_image_decode(kiln_image *out, const void *bytes, size_t size,
                              const kiln_image_options *options, kiln_arena *arena,
                              kiln_diag *diag);
/* The same from a file; also KILN_E_IO. */
kiln_status kiln_image_read(kiln_image *out, const char *path, const kiln_image_options *options,
                            kiln_arena *arena, kiln_diag *diag);

/* True for a name that ends like a picture's: .png .jpg .jpeg .bmp .ppm .pgm in any case. */
bool kiln_image_name(const char *name);

/* Writes a picture of 1 or 3 channels as PNG. The file is the old one or the complete new one. */
kiln_status kiln_image_write_png(const kiln_image *image, const char *path, const kiln_env *env,
                                 kiln_diag *diag);

#endif
