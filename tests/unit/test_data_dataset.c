/* Data sets of every kind: exact samples and labels, sampling, hostile sets, out of memory. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "unit/test_data_sets.h"

#include "data/dataset.h"
#include "data/npy.h"
#include "data/values.h"

static void check_npz(fixture *f, const char *name, const char *label_name) {
    static const int64_t labels[] = {2, 0, 1, 2};
    kiln_dataset *ds =
        open_set(f, (kiln_dataset_spec){.path = golden(f, name), .labels = label_name});
    assert_string_equal(kiln_dataset_kind_name(kiln_dataset_kind_of(ds)), "npz");
    assert_int_equal(kiln_dataset_total(ds), 4);
    assert_true(kiln_dataset_has_labels(ds));
    for (int pass = 0; pass < 2; ++pass) {
        kiln_batch b = next(f, ds, 3);
        assert_int_equal(b.count, 3);
        assert_int_equal(b.input_count, 1);
        assert_string_equal(b.names[0], "x");
        assert_int_equal(b.inputs[0].dims[0], 3);
        assert_int_equal(b.inputs[0].dims[1], 3);
        for (int64_t i = 0; i < 9; ++i) {
            assert_near(kiln_value_at(&b.inputs[0], i), (double)i, 0);
        }
        assert_int_equal(b.labels[2].values[0], labels[2]);
        b = next(f, ds, 3);
        assert_int_equal(b.count, 1);
        assert_int_equal(b.first, 3);
        assert_int_equal(b.labels[0].values[0], labels[3]);
        assert_near(kiln_value_at(&b.inputs[0], 0), 9, 0);
        assert_int_equal(next(f, ds, 3).count, 0);
        kiln_dataset_rewind(ds);
    }
    kiln_dataset_close(ds);
}

static void npz_sets(void **state) {
    fixture *f = *state;
    check_npz(f, "good_stored.npz", NULL);
    check_npz(f, "good_deflated.npz", NULL);
    check_npz(f, "good_one_hot.npz", NULL);
    check_npz(f, "good_stored.npz", "y");
    refuse_set(f, KILN_E_USAGE, "\"z\"", .path = golden(f, "good_stored.npz"), .labels = "z");
    refuse_set(f, KILN_E_LIMIT, "bad_bomb.npz", .path = golden(f, "bad_bomb.npz"));
    refuse_set(f, KILN_E_USAGE, "known kind", .path = golden(f, "make.py"));
    refuse_set(f, KILN_E_IO, "absent.npz", .path = golden(f, "absent.npz"));
}

static void npy_and_raw_sets(void **state) {
    fixture *f = *state;
    float x[12];
    for (int i = 0; i < 12; ++i) {
        x[i] = (float)i;
    }
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 3, .dims = {3, 2, 2}, .data = x};
    const char *path = temp(f, "set.npy");
    const char *labels = temp(f, "set.txt");
    assert_ok(f, kiln_npy_write(&t, path, f->env, f->diag));
    write_bytes(f, labels, "7\n8\n9\n", 6);
    kiln_dataset *ds =
        open_set(f, (kiln_dataset_spec){.path = path, .labels = labels, .input = "in"});
    kiln_batch b = next(f, ds, 8);
    assert_int_equal(b.count, 3);
    assert_string_equal(b.names[0], "in");
    assert_memory_equal(b.inputs[0].data, x, sizeof x);
    assert_int_equal(b.labels[1].values[0], 8);
    kiln_dataset_close(ds);
    write_bytes(f, labels, "7\n8\n", 4);
    refuse_set(f, KILN_E_USAGE, "2 labels for 3", .path = path, .labels = labels);
    remove(path);

    path = temp(f, "set.bin");
    write_bytes(f, path, x, sizeof x);
    ds = open_set(f, (kiln_dataset_spec){.path = path, .rank = 2, .dims = {2, 3}});
    assert_int_equal(kiln_dataset_total(ds), 2);
    b = next(f, ds, 2);
    assert_memory_equal(b.inputs[0].data, x, sizeof x);
    assert_false(kiln_dataset_has_labels(ds));
    assert_int_equal(b.labels[0].count, 0);
    kiln_dataset_close(ds);
    refuse_set(f, KILN_E_MALFORMED, "48 bytes", .path = path, .rank = 1, .dims = {5});
    refuse_set(f, KILN_E_MALFORMED, "CIFAR", .path = path);
    remove(path);
    remove(labels);
}

static void write_gzip(const char *path, const void *bytes, size_t count) {
    gzFile file = gzopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, bytes, (unsigned)count), (int)count);
    gzclose(file);
}

/* Five 2x3 pictures whose pixels are 10 * number + position; labels 4 .. 0. */
static const uint8_t idx_images[16 + 30] = {
    0,  0,  8,  3,  0,  0,  0,  5,  0,  0,  0,  2,  0,  0,  0,  3,  0,  1,  2,  3,  4,  5,  10,
    11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25, 30, 31, 32, 33, 34, 35, 40, 41, 42, 43, 44, 45};
static const uint8_t idx_labels[8 + 5] = {0, 0, 8, 1, 0, 0, 0, 5, 4, 3, 2, 1, 0};

static void check_idx(fixture *f, const char *path) {
    kiln_dataset_spec spec = {.path = path, .shuffle = true, .seed = 5, .count = 4};
    assert_ok(f, kiln_preprocess_parse(&spec.preprocess, "scale=1/2", f->diag));
    kiln_dataset *ds = open_set(f, spec);
    assert_int_equal(kiln_dataset_total(ds), 5);
    assert_int_equal(kiln_dataset_count(ds), 4);
    kiln_batch b = next(f, ds, 100);
    assert_int_equal(b.count, 4);
    assert_int_equal(b.inputs[0].rank, 4);
    assert_int_equal(b.inputs[0].dims[1], 1);
    assert_int_equal(b.inputs[0].dims[2], 2);
    assert_int_equal(b.inputs[0].dims[3], 3);
    for (int64_t i = 0; i < 4; ++i) {
        int64_t number = 4 - b.labels[i].values[0];
        for (int64_t k = 0; k < 6; ++k) {
            assert_near(kiln_value_at(&b.inputs[0], i * 6 + k), (double)(10 * number + k) / 2, 0);
        }
    }
    kiln_dataset_close(ds);
}

static void idx_sets(void **state) {
    fixture *f = *state;
    const char *images = temp(f, "t-images-idx3-ubyte");
    const char *labels = temp(f, "t-labels-idx1-ubyte");
    write_bytes(f, images, idx_images, sizeof idx_images);
    write_bytes(f, labels, idx_labels, sizeof idx_labels);
    check_idx(f, images);
    write_bytes(f, labels, idx_labels, sizeof idx_labels - 1);
    refuse_set(f, KILN_E_MALFORMED, "t-labels-idx1-ubyte", .path = images);
    write_bytes(f, images, idx_images, sizeof idx_images - 1);
    refuse_set(f, KILN_E_MALFORMED, "needs 30 bytes", .path = images);
    write_bytes(f, images, "\0\0\7\3....", 8);
    refuse_set(f, KILN_E_MALFORMED, "like IDX", .path = images);
    write_bytes(f, images, "\0\0\10\3\377\377\377\377\377\377\377\377\377\377\377\377", 16);
    refuse_set(f, KILN_E_LIMIT, "too large", .path = images);
    write_bytes(f, images, "", 0);
    refuse_set(f, KILN_E_MALFORMED, "ends early", .path = images);
    remove(images);
    remove(labels);
    images = temp(f, "t-images-idx3-ubyte.gz");
    labels = temp(f, "t-labels-idx1-ubyte.gz");
    write_gzip(images, idx_images, sizeof idx_images);
    write_gzip(labels, idx_labels, sizeof idx_labels);
    check_idx(f, images);
    kiln_file file;
    assert_ok(f, kiln_file_open(&file, f->env, labels, 1 << 20, KILN_FILE_COPY, f->diag));
    write_bytes(f, labels, file.data, file.bytes / 2);
    kiln_file_close(&file);
    refuse_set(f, KILN_E_MALFORMED, "gzip", .path = images);
    remove(images);
    remove(labels);
}

static void cifar_sets(void **state) {
    fixture *f = *state;
    uint8_t *bytes = kiln_arena_array(&f->arena, 2, 3074);
    const char *path = temp(f, "batch.bin");
    bytes[0] = 3;
    bytes[1] = 11;               /* red of pixel 0 */
    bytes[1 + 1024] = 22;        /* green */
    bytes[1 + 2048 + 1023] = 33; /* blue of the last pixel */
    bytes[3073] = 9;
    write_bytes(f, path, bytes, 2 * 3073);
    kiln_dataset_spec spec = {.path = path};
    spec.preprocess.layout = KILN_PIXELS_NHWC;
    kiln_dataset *ds = open_set(f, spec);
    kiln_batch b = next(f, ds, 2);
    assert_int_equal(b.count, 2);
    assert_int_equal(b.labels[0].values[0], 3);
    assert_int_equal(b.labels[1].values[0], 9);
    assert_near(kiln_value_at(&b.inputs[0], 0), 11, 0);
    assert_near(kiln_value_at(&b.inputs[0], 1), 22, 0);
    assert_near(kiln_value_at(&b.inputs[0], 3071), 33, 0);
    kiln_dataset_close(ds);
    bytes[0] = 10;
    write_bytes(f, path, bytes, 3073);
    ds = open_set(f, spec);
    assert_refused(f, kiln_dataset_next(ds, 1, &b, f->diag), KILN_E_MALFORMED, "label 10");
    kiln_dataset_close(ds);
    bytes[1] = 99; /* CIFAR-100: coarse, fine */
    write_bytes(f, path, bytes, 2 * 3074);
    ds = open_set(f, spec);
    assert_int_equal(next(f, ds, 1).labels[0].values[0], 99);
    kiln_dataset_close(ds);
    remove(path);
}

static void copy_golden(fixture *f, const char *name, const char *target) {
    kiln_file file;
    assert_ok(f, kiln_file_open(&file, f->env, golden(f, name), 1 << 20, 0, f->diag));
    write_bytes(f, temp(f, target), file.data, file.bytes);
    kiln_file_close(&file);
}

/* set/cat/1.png, set/cat/2.JPG, set/dog/0.jpeg: pictures of one size, and a file that is none. */
static void make_folders(fixture *f) {
    mkdir(temp(f, "set"), 0777);
    mkdir(temp(f, "set/cat"), 0777);
    mkdir(temp(f, "set/dog"), 0777);
    copy_golden(f, "good_rgb.png", "set/cat/1.png");
    copy_golden(f, "good_gray.jpg", "set/cat/2.JPG");
    copy_golden(f, "good_420.jpg", "set/dog/0.jpeg");
    write_bytes(f, temp(f, "set/dog/notes.txt"), "x", 1);
}

static void remove_folders(fixture *f) {
    static const char *const made[] = {
        "set/cat/1.png", "set/cat/2.JPG",     "set/cat/3.ppm", "set/dog/0.jpeg",
        "set/dog/1.png", "set/dog/notes.txt", "classes.txt",   "labels.csv",
    };
    for (size_t i = 0; i < KILN_COUNT_OF(made); ++i) {
        remove(temp(f, made[i]));
    }
    rmdir(temp(f, "set/cat"));
    rmdir(temp(f, "set/dog"));
    rmdir(temp(f, "set"));
}

static void image_folders(void **state) {
    fixture *f = *state;
    make_folders(f);
    kiln_dataset *ds = open_set(f, (kiln_dataset_spec){.path = temp(f, "set")});
    assert_int_equal(kiln_dataset_total(ds), 3);
    assert_int_equal(kiln_dataset_classes(ds), 2);
    assert_string_equal(kiln_dataset_class(ds, 1), "dog");
    kiln_batch b = next(f, ds, 8);
    assert_int_equal(b.count, 3);
    assert_int_equal(b.inputs[0].dims[1], 3);
    assert_int_equal(b.inputs[0].dims[2], 17);
    assert_int_equal(b.labels[1].values[0], 0);
    assert_int_equal(b.labels[2].values[0], 1);
    assert_non_null(strstr(b.sources[1], "set/cat/2.JPG"));
    kiln_dataset_close(ds);

    /* The order of classes from a file. */
    write_bytes(f, temp(f, "classes.txt"), "dog\ncat\n", 8);
    ds =
        open_set(f, (kiln_dataset_spec){.path = temp(f, "set"), .classes = temp(f, "classes.txt")});
    assert_int_equal(next(f, ds, 1).labels[0].values[0], 1);
    kiln_dataset_close(ds);

    /* A damaged picture and one of another size are named. */
    copy_golden(f, "bad_truncated.png", "set/dog/1.png");
    copy_golden(f, "resize_source.ppm", "set/cat/3.ppm");
    ds = open_set(f, (kiln_dataset_spec){.path = temp(f, "set")});
    assert_refused(f, kiln_dataset_next(ds, 4, &b, f->diag), KILN_E_USAGE, "cat/3.ppm");
    kiln_dataset_close(ds);
    kiln_dataset_spec spec = {.path = temp(f, "set")};
    assert_ok(f, kiln_preprocess_parse(&spec.preprocess, "resize=8x8", f->diag));
    ds = open_set(f, spec);
    assert_refused(f, kiln_dataset_next(ds, 8, &b, f->diag), KILN_E_MALFORMED, "dog/1.png");
    kiln_dataset_close(ds);
    remove_folders(f);
}

/* A label file is the list of samples. */
static void label_files(void **state) {
    static const char csv[] = "file,label\ndog/0.jpeg,5|6,a dog\r\ncat/1.png, 7 \n\n";
    static const struct {
        const char *text;
        kiln_status status;
        const char *part;
    } bad[] = {
        {"a.png,1\n../../etc/passwd,2\n", KILN_E_MALFORMED, "leaves"},
        {"/etc/passwd,2\n", KILN_E_MALFORMED, "leaves"},
        {"a.png,1\nb.png,x\n", KILN_E_MALFORMED, "line 2"},
        {"a.png,1\n2\n", KILN_E_MALFORMED, "line 2"},
        {"a.png,99999999999999999999\nb.png,9|\n", KILN_E_MALFORMED, "line 2"},
        {"\n\n", KILN_E_USAGE, "0 labels"},
        {"1\n", KILN_E_USAGE, "labels"},
    };
    fixture *f = *state;
    make_folders(f);
    const char *labels = temp(f, "labels.csv");
    write_bytes(f, labels, csv, sizeof csv - 1);
    kiln_batch b;
    kiln_dataset *ds = open_set(f, (kiln_dataset_spec){.path = temp(f, "set"), .labels = labels});
    assert_int_equal(kiln_dataset_total(ds), 2);
    b = next(f, ds, 2);
    assert_int_equal(b.labels[0].count, 2);
    assert_int_equal(b.labels[0].values[1], 6);
    assert_int_equal(b.labels[1].values[0], 7);
    kiln_dataset_close(ds);
    for (size_t i = 0; i < KILN_COUNT_OF(bad); ++i) {
        write_bytes(f, labels, bad[i].text, strlen(bad[i].text));
        refuse_set(f, bad[i].status, bad[i].part, .path = temp(f, "set"), .labels = labels);
        labels = temp(f, "labels.csv");
    }
    write_bytes(f, labels, "missing.png,1\n", 14);
    ds = open_set(f, (kiln_dataset_spec){.path = temp(f, "set"), .labels = labels});
    assert_refused(f, kiln_dataset_next(ds, 1, &b, f->diag), KILN_E_IO, "missing.png");
    kiln_dataset_close(ds);
    remove_folders(f);
}

static void folders_without_samples(void **state) {
    fixture *f = *state;
    mkdir(temp(f, "set"), 0777);
    refuse_set(f, KILN_E_USAGE, "known kind", .path = temp(f, "set"));
    mkdir(temp(f, "set/dog"), 0777);
    refuse_set(f, KILN_E_USAGE, "no sample", .path = temp(f, "set"));
    remove_folders(f);
    kiln_dataset *ds = open_set(f, (kiln_dataset_spec){.path = golden(f, "good_rgb.png")});
    assert_int_equal(next(f, ds, 1).inputs[0].dims[3], 21);
    kiln_dataset_close(ds);
}

static void npy_folders(void **state) {
    fixture *f = *state;
    mkdir(temp(f, "arrays"), 0777);
    copy_golden(f, "good_f32.npy", "arrays/a.npy");
    copy_golden(f, "good_f32_big.npy", "arrays/b.npy");
    kiln_dataset *ds = open_set(f, (kiln_dataset_spec){.path = temp(f, "arrays")});
    kiln_batch b = next(f, ds, 2);
    assert_int_equal(b.inputs[0].rank, 4);
    assert_memory_equal(b.inputs[0].data, (float *)b.inputs[0].data + 24, 24 * sizeof(float));
    kiln_dataset_close(ds);
    kiln_dataset_spec spec = {.path = temp(f, "arrays"), .preprocess = {.scale = 2}};
    ds = open_set(f, spec);
    assert_refused(f, kiln_dataset_next(ds, 2, &b, f->diag), KILN_E_USAGE, "8-bit pictures");
    kiln_dataset_close(ds);
    remove(temp(f, "arrays/a.npy"));
    remove(temp(f, "arrays/b.npy"));
    rmdir(temp(f, "arrays"));
}

static void polygraphy_sets(void **state) {
    fixture *f = *state;
    kiln_dataset *ds = open_set(f, (kiln_dataset_spec){.path = golden(f, "good_polygraphy.json")});
    assert_int_equal(kiln_dataset_total(ds), 3);
    for (int i = 0; i < 3; ++i) {
        kiln_batch b = next(f, ds, 8);
        assert_int_equal(b.count, 1);
        assert_int_equal(b.input_count, 2);
        int a = strcmp(b.names[0], "a") == 0 ? 0 : 1;
        assert_int_equal(b.inputs[a].rank, 2);
        assert_int_equal(b.inputs[a].dims[0], 2);
        assert_near(kiln_value_at(&b.inputs[a], 5), i, 0);
        assert_int_equal(b.inputs[1 - a].dtype, KILN_DTYPE_I64);
        assert_near(kiln_value_at(&b.inputs[1 - a], 0), i, 0);
    }
    kiln_dataset_close(ds);
    ds = open_set(f, (kiln_dataset_spec){.path = golden(f, "good_polygraphy_results.json")});
    assert_int_equal(kiln_dataset_total(ds), 2);
    assert_string_equal(next(f, ds, 1).names[0], "out");
    assert_near(kiln_value_at(&next(f, ds, 1).inputs[0], 3), 1, 0);
    kiln_dataset_close(ds);
    static const char *const bad[] = {"bad_polygraphy_tensor.json", "bad_polygraphy_base64.json"};
    static const kiln_status status[] = {KILN_E_UNSUPPORTED, KILN_E_MALFORMED};
    for (size_t i = 0; i < KILN_COUNT_OF(bad); ++i) {
        kiln_batch b;
        ds = open_set(f, (kiln_dataset_spec){.path = golden(f, bad[i])});
        assert_refused(f, kiln_dataset_next(ds, 1, &b, f->diag), status[i], bad[i]);
        kiln_dataset_close(ds);
    }
    const char *path = temp(f, "deep.json");
    char *deep = kiln_arena_raw(&f->arena, 1000000);
    memset(deep, '[', 1000000);
    write_bytes(f, path, deep, 1000000);
    refuse_set(f, KILN_E_MALFORMED, "depth", .path = path);
    write_bytes(f, path, "{\"a\":1,\"a\":2}", 13);
    refuse_set(f, KILN_E_MALFORMED, "duplicate", .path = path);
    write_bytes(f, path, "[1, 2]", 6);
    refuse_set(f, KILN_E_MALFORMED, "first entry", .path = path);
    remove(path);
}

/* The documented recipe, written out again. */
static void shuffle_is_the_documented_one(void **state) {
    fixture *f = *state;
    uint8_t numbers[50];
    int64_t order[50];
    for (uint8_t i = 0; i < 50; ++i) {
        numbers[i] = i;
        order[i] = i;
    }
    const char *path = temp(f, "numbers.raw");
    write_bytes(f, path, numbers, sizeof numbers);
    uint64_t s = 42;
    for (int64_t k = 0; k < 50; ++k) {
        s += 0x9e3779b97f4a7c15u;
        uint64_t z = (s ^ (s >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        int64_t j = k + (int64_t)(z % (uint64_t)(50 - k));
        int64_t t = order[k];
        order[k] = order[j];
        order[j] = t;
    }
    kiln_dataset *ds = open_set(f, (kiln_dataset_spec){.path = path,
                                                       .dtype = KILN_DTYPE_U8,
                                                       .rank = 1,
                                                       .dims = {1},
                                                       .shuffle = true,
                                                       .seed = 42});
    kiln_batch b = next(f, ds, 50);
    bool moved = false;
    for (int64_t i = 0; i < 50; ++i) {
        assert_near(kiln_value_at(&b.inputs[0], i), (double)order[i], 0);
        moved |= order[i] != i;
    }
    assert_true(moved);
    kiln_dataset_close(ds);
    remove(path);
}

/* Opens, reads and closes while the n-th allocation fails, for every n until none does. */
static void out_of_memory_everywhere(void **state) {
    static const char *const names[] = {
        "good_stored.npz",      "good_deflated.npz", "good_f32_fortran.npy",
        "good_polygraphy.json", "good_rgb.png",      "good_cmyk.jpg",
    };
    fixture *f = *state;
    for (size_t k = 0; k < KILN_COUNT_OF(names); ++k) {
        kiln_dataset_spec spec = {.path = golden(f, names[k]), .shuffle = true};
        if (kiln_image_name(names[k])) {
            assert_ok(f, kiln_preprocess_parse(&spec.preprocess, "resize=40 color=gray", f->diag));
        }
        int64_t n = 0;
        for (bool failed = true; failed; failed = f->fail_at == 0) {
            kiln_dataset *ds = NULL;
            kiln_batch b = {.count = 1};
            f->fail_at = ++n;
            kiln_status status = kiln_dataset_open(&ds, &spec, f->env, NULL);
            while (status == KILN_OK && b.count > 0) {
                status = kiln_dataset_next(ds, 2, &b, NULL);
            }
            kiln_dataset_close(ds);
            /* An arena may do with a smaller block: then a failure is no failure. */
            assert_true(status == KILN_OK || (status == KILN_E_MEMORY && f->fail_at == 0));
        }
        f->fail_at = 0;
        print_message("%s: %d allocations\n", names[k], (int)n - 1);
        assert_true(n > 3);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(npz_sets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(npy_and_raw_sets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(idx_sets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cifar_sets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(image_folders, set_up, tear_down),
        cmocka_unit_test_setup_teardown(label_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(folders_without_samples, set_up, tear_down),
        cmocka_unit_test_setup_teardown(npy_folders, set_up, tear_down),
        cmocka_unit_test_setup_teardown(polygraphy_sets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shuffle_is_the_documented_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(out_of_memory_everywhere, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
