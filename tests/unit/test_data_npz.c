/* .npz archives: NumPy's own, round trips, hostile ZIP structure. */
#include "unit/test_data_common.h"

#include "data/npz.h"
#include "data/values.h"

static void check_xy(fixture *f, const char *path) {
    kiln_npz *npz;
    kiln_tensor x;
    kiln_tensor y;
    static const int64_t labels[] = {2, 0, 1, 2};
    assert_ok(f, kiln_npz_open(&npz, path, f->env, f->diag));
    assert_int_equal(kiln_npz_count(npz), 2);
    assert_int_equal(kiln_npz_find(npz, "z"), -1);
    assert_ok(f, kiln_npz_read(&x, npz, kiln_npz_find(npz, "x"), &f->arena, f->diag));
    assert_ok(f, kiln_npz_read(&y, npz, kiln_npz_find(npz, "y"), &f->arena, f->diag));
    assert_int_equal(x.dtype, KILN_DTYPE_F32);
    assert_int_equal(x.dims[0], 4);
    assert_int_equal(x.dims[1], 3);
    for (int64_t i = 0; i < 12; ++i) {
        assert_near(kiln_value_at(&x, i), (double)i, 0);
    }
    assert_memory_equal(y.data, labels, sizeof labels);
    kiln_npz_close(npz);
}

static void reads_numpy_archives(void **state) {
    fixture *f = *state;
    check_xy(f, golden(f, "good_stored.npz"));
    check_xy(f, golden(f, "good_deflated.npz"));
}

/* Parts in any order, forwards and back, stored and deflated. */
static void reads_parts(void **state) {
    static const char *const names[] = {"good_stored.npz", "good_deflated.npz"};
    static const size_t at[] = {0, 16, 8, 24, 0};
    fixture *f = *state;
    for (size_t k = 0; k < KILN_COUNT_OF(names); ++k) {
        kiln_npz *npz;
        static const int64_t labels[] = {2, 0, 1, 2};
        assert_ok(f, kiln_npz_open(&npz, golden(f, names[k]), f->env, f->diag));
        int64_t y = kiln_npz_find(npz, "y");
        assert_int_equal(kiln_npz_stored(npz, y), k == 0);
        for (size_t i = 0; i < KILN_COUNT_OF(at); ++i) {
            int64_t v = -1;
            assert_ok(f, kiln_npz_bytes(&v, npz, y, at[i], sizeof v, f->diag));
            assert_int_equal(v, labels[at[i] / 8]);
        }
        kiln_npz_close(npz);
    }
}

static void writes_what_it_reads(void **state) {
    fixture *f = *state;
    float x[12];
    int64_t y[] = {2, 0, 1, 2};
    for (int i = 0; i < 12; ++i) {
        x[i] = (float)i;
    }
    const kiln_tensor tensors[] = {
        {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {4, 3}, .data = x},
        {.dtype = KILN_DTYPE_I64, .rank = 1, .dims = {4}, .data = y},
    };
    const char *const names[] = {"x", "y"};
    const char *const bad_names[] = {"x", "../y"};
    const char *path = temp(f, "written.npz");
    remove(path);
    assert_ok(f, kiln_npz_write(path, names, tensors, 2, f->env, f->diag));
    check_xy(f, path);
    kiln_file first;
    kiln_file second;
    const char *again = temp(f, "again.npz");
    remove(again);
    assert_ok(f, kiln_npz_write(again, names, tensors, 2, f->env, f->diag));
    assert_ok(f, kiln_file_open(&first, f->env, path, 1 << 20, 0, f->diag));
    assert_ok(f, kiln_file_open(&second, f->env, again, 1 << 20, 0, f->diag));
    assert_int_equal(first.bytes, second.bytes);
    assert_memory_equal(first.data, second.data, first.bytes);
    kiln_file_close(&first);
    kiln_file_close(&second);
    assert_refused(f, kiln_npz_write(again, bad_names, tensors, 2, f->env, f->diag), KILN_E_USAGE,
                   "../y");
    assert_refused(f, kiln_npz_write("/nonexistent/a.npz", names, tensors, 2, f->env, f->diag),
                   KILN_E_IO, "a.npz");
    check_xy(f, again);
    remove(path);
    remove(again);
}

static void refuses_hostile_archives(void **state) {
    static const struct {
        const char *name;
        kiln_status status;
        const char *part;
    } cases[] = {
        {"bad_twice.npz", KILN_E_MALFORMED, "x"},
        {"bad_parent.npz", KILN_E_MALFORMED, "../x.npy"},
        {"bad_absolute.npz", KILN_E_MALFORMED, "/x.npy"},
        {"bad_bzip2.npz", KILN_E_UNSUPPORTED, "compression 12"},
        {"bad_bomb.npz", KILN_E_LIMIT, "1000:1"},
        {"bad_short.npz", KILN_E_MALFORMED, "need 48 bytes"},
        {"bad_encrypted.npz", KILN_E_UNSUPPORTED, "encrypted"},
        {"bad_zip64.npz", KILN_E_MALFORMED, "ZIP"},
        {"good_f32.npy", KILN_E_MALFORMED, "ZIP"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < KILN_COUNT_OF(cases); ++i) {
        kiln_npz *npz = NULL;
        print_message("%s\n", cases[i].name);
        assert_refused(f, kiln_npz_open(&npz, golden(f, cases[i].name), f->env, f->diag),
                       cases[i].status, cases[i].part);
        check_finding(f, cases[i].name);
        assert_null(npz);
    }
}

/* The checksum is compared once a member has been read to its end. */
static void refuses_damaged_elements(void **state) {
    fixture *f = *state;
    kiln_npz *npz;
    kiln_tensor x;
    assert_refused(f,
                   kiln_npz_open(&npz, golden(f, "bad_crc.npz"), f->env, f->diag)
                       ? KILN_E_MALFORMED
                       : kiln_npz_read(&x, npz, 0, &f->arena, f->diag),
                   KILN_E_MALFORMED, "CRC");
}

/* Every truncation and every flipped byte: an error or the right data, never a crash. */
static void survives_damage_everywhere(void **state) {
    fixture *f = *state;
    kiln_file file;
    const char *path = temp(f, "damaged.npz");
    assert_ok(f,
              kiln_file_open(&file, f->env, golden(f, "good_deflated.npz"), 1 << 20, 0, f->diag));
    uint8_t *bytes = kiln_arena_copy(&f->arena, file.data, file.bytes);
    size_t refused = 0;
    for (size_t i = 0; i < file.bytes; ++i) {
        kiln_npz *npz;
        kiln_tensor t;
        bytes[i] ^= 0x41;
        write_bytes(f, path, bytes, file.bytes);
        bytes[i] ^= 0x41;
        kiln_diag_clear(f->diag);
        kiln_status status = kiln_npz_open(&npz, path, f->env, f->diag);
        if (status == KILN_OK) {
            for (int64_t k = 0; k < kiln_npz_count(npz) && status == KILN_OK; ++k) {
                status = kiln_npz_read(&t, npz, k, &f->arena, f->diag);
            }
            kiln_npz_close(npz);
        }
        refused += status != KILN_OK;
    }
    assert_true(refused > file.bytes / 2);
    kiln_file_close(&file);
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_numpy_archives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_parts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writes_what_it_reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_hostile_archives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_damaged_elements, set_up, tear_down),
        cmocka_unit_test_setup_teardown(survives_damage_everywhere, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
