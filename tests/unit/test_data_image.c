/* Pictures: every variant against Pillow's pixels, hostile files, PNG writing. */
#include "unit/test_data_common.h"

#include "data/image.h"

/* Largest difference between two pictures of one size. */
static int difference(const kiln_image *a, const kiln_image *b) {
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, b->channels);
    int most = 0;
    for (int32_t i = 0; i < a->width * a->height * a->channels; ++i) {
        int d = abs(a->pixels[i] - b->pixels[i]);
        most = d > most ? d : most;
    }
    return most;
}

static void check_picture(fixture *f, const char *name, const char *truth,
                          const kiln_image_options *options, int tolerance) {
    kiln_image image;
    kiln_image want;
    assert_ok(f, kiln_image_read(&image, golden(f, name), options, &f->arena, f->diag));
    assert_ok(f, kiln_image_read(&want, golden(f, truth), NULL, &f->arena, f->diag));
    int d = difference(&image, &want);
    if (d > tolerance) {
        print_message("%s: differs by %d\n", name, d);
    }
    assert_true(d <= tolerance);
}

static void decodes_every_variant(void **state) {
    static const struct {
        const char *name;
        const char *truth;
        int tolerance; /* 1 where both sides compute */
    } cases[] = {
        {"good_rgb.png", "good_rgb.png.ppm", 0},
        {"good_rgb16.png", "good_rgb.png.ppm", 0},
        {"good_interlaced.png", "good_rgb.png.ppm", 0},
        {"good_animated.png", "good_rgb.png.ppm", 0},
        {"good_alpha.png", "good_rgb.png.ppm", 0},
        {"good_palette.png", "good_palette.png.ppm", 0},
        {"good_gray.png", "good_gray.png.ppm", 0},
        {"good_gray.pgm", "good_gray.png.ppm", 0},
        {"good_bit.png", "good_bit.png.ppm", 0},
        {"good_rgb.bmp", "good_rgb.png.ppm", 0},
        {"good_palette.bmp", "good_palette.bmp.ppm", 0},
        {"good_420.jpg", "good_420.jpg.ppm", 0},
        {"good_progressive.jpg", "good_progressive.jpg.ppm", 0},
        {"good_gray.jpg", "good_gray.jpg.ppm", 0},
        {"good_cmyk.jpg", "good_cmyk.jpg.ppm", 1},
    };
    fixture *f = *state;
    for (size_t i = 0; i < KILN_COUNT_OF(cases); ++i) {
        check_picture(f, cases[i].name, cases[i].truth, NULL, cases[i].tolerance);
    }
}

static void composites_alpha_when_asked(void **state) {
    fixture *f = *state;
    const kiln_image_options over = {.composite = true, .background = {255, 128, 0}};
    check_picture(f, "good_alpha.png", "good_alpha.png.ppm", &over, 1);
    check_picture(f, "good_rgb.png", "good_rgb.png.ppm", &over, 0);
}

/* Otherwise the comparison above could not fail. */
static void comparison_sees_a_flipped_bit(void **state) {
    fixture *f = *state;
    kiln_image a;
    kiln_image b;
    assert_ok(f, kiln_image_read(&a, golden(f, "good_rgb.png"), NULL, &f->arena, f->diag));
    assert_ok(f, kiln_image_read(&b, golden(f, "good_rgb.png.ppm"), NULL, &f->arena, f->diag));
    b.pixels[100] ^= 1;
    assert_int_equal(difference(&a, &b), 1);
}

static void refuses_hostile_pictures(void **state) {
    static const struct {
        const char *name;
        kiln_status status;
        const char *part;
    } cases[] = {
        {"bad_wide.png", KILN_E_MALFORMED, "PNG"},
        {"bad_wider.png", KILN_E_MALFORMED, "PNG"},
        {"bad_mpixels.png", KILN_E_LIMIT, "64 megapixels"},
        {"bad_no_pixels.png", KILN_E_MALFORMED, "PNG"},
        {"bad_truncated.png", KILN_E_MALFORMED, "ends early"},
        {"bad_crc.png", KILN_E_MALFORMED, "PNG"},
        {"bad_truncated.jpg", KILN_E_MALFORMED, "remature end"},
        {"bad_mpixels.jpg", KILN_E_LIMIT, "64 megapixels"},
        {"bad_short.ppm", KILN_E_MALFORMED, "needs 27 bytes"},
        {"bad_huge.ppm", KILN_E_LIMIT, "megapixels"},
        {"bad_size.bmp", KILN_E_MALFORMED, "BMP"},
        {"good_f32.npy", KILN_E_MALFORMED, "no PNG"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < KILN_COUNT_OF(cases); ++i) {
        kiln_image image;
        print_message("%s\n", cases[i].name);
        assert_refused(f,
                       kiln_image_read(&image, golden(f, cases[i].name), NULL, &f->arena, f->diag),
                       cases[i].status, cases[i].part);
        check_finding(f, cases[i].name);
    }
}

/* A progressive JPEG whose last scan stands there `times` times. */
static uint8_t *repeat_scan(fixture *f, size_t *out_bytes, size_t times) {
    kiln_file file;
    assert_ok(
        f, kiln_file_open(&file, f->env, golden(f, "good_progressive.jpg"), 1 << 20, 0, f->diag));
    size_t scan = file.bytes;
    while (file.data[scan - 2] != 0xff || file.data[scan - 1] != 0xda) {
        --scan;
    }
    scan -= 2;
    size_t len = file.bytes - 2 - scan; /* up to the end-of-image marker */
    *out_bytes = scan + len * times + 2;
    uint8_t *bytes = kiln_arena_raw(&f->arena, *out_bytes);
    memcpy(bytes, file.data, scan);
    for (size_t i = 0; i < times; ++i) {
        memcpy(bytes + scan + i * len, file.data + scan, len);
    }
    memcpy(bytes + *out_bytes - 2, "\xff\xd9", 2);
    kiln_file_close(&file);
    return bytes;
}

static void refuses_endless_scans(void **state) {
    fixture *f = *state;
    kiln_image image;
    size_t size;
    const uint8_t *bytes = repeat_scan(f, &size, 1);
    assert_ok(f, kiln_image_decode(&image, bytes, size, NULL, &f->arena, f->diag));
    bytes = repeat_scan(f, &size, 100000);
    assert_refused(f, kiln_image_decode(&image, bytes, size, NULL, &f->arena, f->diag),
                   KILN_E_LIMIT, "scans");
}

/* Every truncation and flipped bit of every good file: an error or a picture, never a crash. */
static void survives_damage_everywhere(void **state) {
    static const char *const names[] = {
        "good_rgb.png", "good_palette.png",     "good_interlaced.png",
        "good_rgb.bmp", "good_palette.bmp",     "good_gray.pgm",
        "good_420.jpg", "good_progressive.jpg", "good_cmyk.jpg",
    };
    fixture *f = *state;
    for (size_t k = 0; k < KILN_COUNT_OF(names); ++k) {
        kiln_file file;
        assert_ok(f, kiln_file_open(&file, f->env, golden(f, names[k]), 1 << 20, 0, f->diag));
        for (size_t i = 0; i < file.bytes; ++i) {
            kiln_arena_mark mark = kiln_arena_here(&f->arena);
            kiln_image image;
            uint8_t *bytes = kiln_arena_copy(&f->arena, file.data, file.bytes);
            kiln_status cut = kiln_image_decode(&image, bytes, i, NULL, &f->arena, f->diag);
            bytes[i] ^= (uint8_t)(1 << i % 8);
            kiln_status flipped =
                kiln_image_decode(&image, bytes, file.bytes, NULL, &f->arena, f->diag);
            assert_true(cut == KILN_OK || kiln_diag_count(f->diag) > 0);
            assert_true(flipped == KILN_OK || kiln_diag_count(f->diag) > 0);
            kiln_diag_clear(f->diag);
            kiln_arena_rewind(&f->arena, mark);
        }
        kiln_file_close(&file);
    }
}

static void limit_is_the_environments(void **state) {
    fixture *f = *state;
    const kiln_limits limits = {.size = sizeof limits, .image_mpixels = 1};
    const kiln_env_options options = {.size = sizeof options, .limits = &limits};
    kiln_env *env;
    kiln_image image;
    kiln_arena arena;
    char bytes[64] = "P5 1001 1000 255\n";
    assert_ok(f, kiln_env_create(&env, &options));
    kiln_arena_init(&arena, env);
    assert_refused(f, kiln_image_decode(&image, bytes, sizeof bytes, NULL, &arena, f->diag),
                   KILN_E_LIMIT, "1 megapixels");
    memcpy(bytes, "P5 1000 1000", 12);
    assert_refused(f, kiln_image_decode(&image, bytes, sizeof bytes, NULL, &arena, f->diag),
                   KILN_E_MALFORMED, "needs");
    kiln_arena_free(&arena);
    kiln_env_destroy(env);
}

static void pnm_scales_and_skips_comments(void **state) {
    fixture *f = *state;
    kiln_image image;
    static const char text[] = "P5 # a\n#b\n2 1 # c\n15\n\x0f\x05";
    assert_ok(f, kiln_image_decode(&image, text, sizeof text - 1, NULL, &f->arena, f->diag));
    assert_int_equal(image.pixels[0], 255);
    assert_int_equal(image.pixels[3], 85);
    static const char deep[] = "P5 1 1 65535\n\x80\x80";
    assert_ok(f, kiln_image_decode(&image, deep, sizeof deep - 1, NULL, &f->arena, f->diag));
    assert_int_equal(image.pixels[2], 128);
}

static void writes_png(void **state) {
    fixture *f = *state;
    kiln_image image;
    kiln_image back;
    const char *path = temp(f, "written.png");
    assert_ok(f, kiln_image_read(&image, golden(f, "good_rgb.png"), NULL, &f->arena, f->diag));
    assert_ok(f, kiln_image_write_png(&image, path, f->env, f->diag));
    assert_ok(f, kiln_image_read(&back, path, NULL, &f->arena, f->diag));
    assert_int_equal(difference(&image, &back), 0);
    uint8_t gray[] = {0, 100, 255};
    const kiln_image line = {3, 1, 1, gray};
    assert_ok(f, kiln_image_write_png(&line, path, f->env, f->diag));
    assert_ok(f, kiln_image_read(&back, path, NULL, &f->arena, f->diag));
    assert_int_equal(back.pixels[3], 100);
    const kiln_image four = {3, 1, 4, gray};
    assert_refused(f, kiln_image_write_png(&four, path, f->env, f->diag), KILN_E_USAGE,
                   "4 channels");
    assert_refused(f, kiln_image_write_png(&line, "/nonexistent/a.png", f->env, f->diag), KILN_E_IO,
                   "/nonexistent");
    remove(path);
}

static void reads_shared_photographs(void **state) {
    static const char *const names[] = {
        "kitten_224.png", "fish.png", "gorilla.png", "bus.jpg", "kimono.jpg", "n01440764_3198.png",
    };
    fixture *f = *state;
    for (size_t i = 0; i < KILN_COUNT_OF(names); ++i) {
        char name[128];
        snprintf(name, sizeof name, "data/images_imagenet_like/%s", names[i]);
        const char *path = shared(f, name);
        if (!path) {
            skip();
        }
        kiln_image image;
        assert_ok(f, kiln_image_read(&image, path, NULL, &f->arena, f->diag));
        assert_true(image.width >= 200 && image.height >= 150);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(decodes_every_variant, set_up, tear_down),
        cmocka_unit_test_setup_teardown(composites_alpha_when_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(comparison_sees_a_flipped_bit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_hostile_pictures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_endless_scans, set_up, tear_down),
        cmocka_unit_test_setup_teardown(survives_damage_everywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limit_is_the_environments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pnm_scales_and_skips_comments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writes_png, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_shared_photographs, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
