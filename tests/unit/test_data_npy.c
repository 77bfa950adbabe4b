/* .npy and raw files: NumPy's own files, round trips, hostile headers. */
#include "unit/test_data_common.h"

#include "data/npy.h"
#include "data/raw.h"
#include "data/values.h"

/* Element k of every golden array is (k - 5) / 4, in row-major order of [2, 3, 4]. */
static void check_golden(fixture *f, const char *name, kiln_dtype dtype, double scale) {
    kiln_tensor t;
    assert_ok(f, kiln_npy_read(&t, golden(f, name), &f->arena, f->diag));
    assert_int_equal(t.dtype, dtype);
    assert_int_equal(t.rank, 3);
    assert_int_equal(t.dims[0], 2);
    assert_int_equal(t.dims[1], 3);
    assert_int_equal(t.dims[2], 4);
    for (int64_t k = 0; k < 24; ++k) {
        double want = (double)(k - 5) / 4 * scale;
        want = dtype == KILN_DTYPE_BOOL ? want > 0 : want;
        assert_near(kiln_value_at(&t, k), want, 0);
    }
}

static void reads_numpy_files(void **state) {
    fixture *f = *state;
    check_golden(f, "good_f32.npy", KILN_DTYPE_F32, 1);
    check_golden(f, "good_f32_fortran.npy", KILN_DTYPE_F32, 1);
    check_golden(f, "good_f32_big.npy", KILN_DTYPE_F32, 1);
    check_golden(f, "good_i16_big_fortran_v2.npy", KILN_DTYPE_I16, 4);
    check_golden(f, "good_f16_v3.npy", KILN_DTYPE_F16, 1);
    check_golden(f, "good_bool.npy", KILN_DTYPE_BOOL, 1);
}

static void reads_complex_scalar_and_empty(void **state) {
    fixture *f = *state;
    kiln_tensor t;
    assert_ok(f, kiln_npy_read(&t, golden(f, "good_c64.npy"), &f->arena, f->diag));
    assert_int_equal(t.dtype, KILN_DTYPE_C64);
    for (int64_t k = 0; k < 48; ++k) {
        assert_near(kiln_value_at(&t, k), (double)(k / 2 - 5) / 4, 0);
    }
    assert_ok(f, kiln_npy_read(&t, golden(f, "good_scalar.npy"), &f->arena, f->diag));
    assert_int_equal(t.rank, 0);
    assert_near(kiln_value_at(&t, 0), 2.5, 0);
    assert_ok(f, kiln_npy_read(&t, golden(f, "good_empty.npy"), &f->arena, f->diag));
    assert_int_equal(t.rank, 2);
    assert_int_equal(kiln_tensor_count(&t), 0);
    assert_int_equal(t.dims[1], 3);
}

static void views_without_copying(void **state) {
    fixture *f = *state;
    kiln_file file;
    kiln_tensor t;
    assert_ok(f, kiln_file_open(&file, f->env, golden(f, "good_f32.npy"), 1 << 20, 0, f->diag));
    assert_ok(f, kiln_npy_decode(&t, file.data, file.bytes, &f->arena, f->diag));
    assert_ptr_equal(t.data, file.data + 128);
    kiln_file_close(&file);
}

static void round_trip_of_every_type(void **state) {
    static const kiln_dtype dtypes[] = {
        KILN_DTYPE_F32, KILN_DTYPE_F64, KILN_DTYPE_F16, KILN_DTYPE_BOOL, KILN_DTYPE_U8,
        KILN_DTYPE_I8,  KILN_DTYPE_U16, KILN_DTYPE_I16, KILN_DTYPE_U32,  KILN_DTYPE_I32,
        KILN_DTYPE_U64, KILN_DTYPE_I64, KILN_DTYPE_C64, KILN_DTYPE_C128,
    };
    fixture *f = *state;
    uint8_t bytes[16 * 6];
    for (size_t i = 0; i < sizeof bytes; ++i) {
        bytes[i] = (uint8_t)(i * 37 % 2);
    }
    for (size_t i = 0; i < KILN_COUNT_OF(dtypes); ++i) {
        kiln_tensor t = {.dtype = dtypes[i], .rank = 2, .dims = {3, 2}, .data = bytes};
        kiln_tensor back;
        const char *path = temp(f, "round.npy");
        assert_ok(f, kiln_npy_write(&t, path, f->env, f->diag));
        assert_ok(f, kiln_npy_read(&back, path, &f->arena, f->diag));
        assert_int_equal(back.dtype, dtypes[i]);
        assert_int_equal(back.rank, 2);
        assert_memory_equal(back.dims, t.dims, sizeof t.dims);
        assert_memory_equal(back.data, bytes, kiln_tensor_bytes(&t));
        remove(path);
    }
}

static void bf16_is_widened_on_writing(void **state) {
    fixture *f = *state;
    uint16_t values[] = {0x3f80, 0xc000};
    kiln_tensor t = {.dtype = KILN_DTYPE_BF16, .rank = 1, .dims = {2}, .data = values};
    kiln_tensor back;
    const char *path = temp(f, "bf16.npy");
    assert_ok(f, kiln_npy_write(&t, path, f->env, f->diag));
    assert_ok(f, kiln_npy_read(&back, path, &f->arena, f->diag));
    assert_int_equal(back.dtype, KILN_DTYPE_F32);
    assert_near(((float *)back.data)[0], 1, 0);
    assert_near(((float *)back.data)[1], -2, 0);
    t.dtype = KILN_DTYPE_F8E5M2;
    assert_refused(f, kiln_npy_write(&t, path, f->env, f->diag), KILN_E_UNSUPPORTED, "float8e5m2");
    remove(path);
}

/* A version 1 file with this header and `extra` bytes of elements. */
static kiln_status decode(fixture *f, const char *header, size_t extra) {
    uint8_t bytes[4096] = "\x93NUMPY\x01";
    size_t len = strlen(header);
    bytes[8] = (uint8_t)(len & 255);
    bytes[9] = (uint8_t)(len >> 8);
    memcpy(bytes + 10, header, len);
    kiln_tensor t;
    return kiln_npy_decode(&t, bytes, 10 + len + extra, &f->arena, f->diag);
}

static void refuses_hostile_headers(void **state) {
    static const struct {
        const char *header;
        size_t bytes;
        kiln_status status;
        const char *part;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", 4, KILN_OK, NULL},
        {"{\"shape\":(2L,),\"descr\":\"|u1\",\"fortran_order\":True}", 2, KILN_OK, NULL},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", 5, KILN_E_MALFORMED,
         "has 5"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", 3, KILN_E_MALFORMED,
         "has 3"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }\n", 4,
         KILN_E_MALFORMED, "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1+1,), }\n", 8, KILN_E_MALFORMED,
         "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n", 4, KILN_E_MALFORMED,
         "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1), }\n", 4, KILN_E_MALFORMED,
         "shape"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }\n", 4, KILN_E_MALFORMED, "fortran"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", 8, KILN_E_UNSUPPORTED,
         "pickled"},
        {"{'descr': '<U2', 'fortran_order': False, 'shape': (1,), }\n", 8, KILN_E_UNSUPPORTED,
         "<U2"},
        {"{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }\n", 3, KILN_E_UNSUPPORTED,
         "<f3"},
        {"{'descr': '|f4', 'fortran_order': False, 'shape': (1,), }\n", 4, KILN_E_UNSUPPORTED,
         "|f4"},
        {"{'descr': [('a','<f4')], 'fortran_order': False, 'shape': (1,)}\n", 4, KILN_E_UNSUPPORTED,
         "record"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n", 4,
         KILN_E_MALFORMED, "twice"},
        {"{'descr': '<f4', 'fortran_order': False}\n", 4, KILN_E_MALFORMED, "lacks"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}\n", 4, KILN_E_MALFORMED,
         "unknown key"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} + 1\n", 4, KILN_E_MALFORMED,
         "dict"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8)}\n", 4,
         KILN_E_LIMIT, "too large"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}\n", 4,
         KILN_E_MALFORMED, "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': "
         "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
         "1,1,1,1,1,1,1,1,1,1,1,1)}\n",
         4, KILN_E_LIMIT, "32"},
        {"", 4, KILN_E_MALFORMED, "dict"},
        {"{'descr': '<f4", 4, KILN_E_MALFORMED, "descr"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < KILN_COUNT_OF(cases); ++i) {
        kiln_diag_clear(f->diag);
        kiln_status status = decode(f, cases[i].header, cases[i].bytes);
        if (status != cases[i].status) {
            print_message("case %zu: %s", i, cases[i].header);
            show_findings(f);
        }
        assert_int_equal(status, cases[i].status);
        if (cases[i].part) {
            check_finding(f, cases[i].part);
        }
    }
}

static void refuses_broken_prefixes(void **state) {
    fixture *f = *state;
    kiln_tensor t;
    uint8_t bytes[64] = "\x93NUMPY\x01";
    bytes[8] = 60;
    assert_refused(f, kiln_npy_decode(&t, bytes, 64, &f->arena, f->diag), KILN_E_MALFORMED,
                   "header");
    bytes[6] = 9;
    assert_refused(f, kiln_npy_decode(&t, bytes, 64, &f->arena, f->diag), KILN_E_UNSUPPORTED,
                   "9.0");
    bytes[6] = 2;
    bytes[11] = 0x7f;
    assert_refused(f, kiln_npy_decode(&t, bytes, 64, &f->arena, f->diag), KILN_E_LIMIT, "limit");
    bytes[0] = 'X';
    assert_refused(f, kiln_npy_decode(&t, bytes, 64, &f->arena, f->diag), KILN_E_MALFORMED,
                   "begin");
    assert_refused(f, kiln_npy_decode(&t, bytes, 0, &f->arena, f->diag), KILN_E_MALFORMED, "begin");
}

static void refuses_numpy_objects(void **state) {
    fixture *f = *state;
    kiln_tensor t;
    assert_refused(f, kiln_npy_read(&t, golden(f, "bad_object.npy"), &f->arena, f->diag),
                   KILN_E_UNSUPPORTED, "bad_object.npy");
    assert_refused(f, kiln_npy_read(&t, golden(f, "bad_record.npy"), &f->arena, f->diag),
                   KILN_E_UNSUPPORTED, "record");
    assert_refused(f, kiln_npy_read(&t, golden(f, "bad_text.npy"), &f->arena, f->diag),
                   KILN_E_UNSUPPORTED, "<U2");
    assert_refused(f, kiln_npy_read(&t, golden(f, "absent.npy"), &f->arena, f->diag), KILN_E_IO,
                   "absent.npy");
}

static void raw_files_must_fit(void **state) {
    fixture *f = *state;
    float values[6] = {1, 2, 3, 4, 5, 6};
    const int64_t dims[] = {2, 3};
    const int64_t wide[] = {2, 4};
    const int64_t huge[] = {INT64_MAX, 4};
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {2, 3}, .data = values};
    kiln_tensor back;
    const char *path = temp(f, "raw.bin");
    assert_ok(f, kiln_raw_write(&t, path, f->diag));
    assert_ok(f, kiln_raw_read(&back, path, KILN_DTYPE_F32, dims, 2, &f->arena, f->diag));
    assert_memory_equal(back.data, values, sizeof values);
    assert_refused(f, kiln_raw_read(&back, path, KILN_DTYPE_F32, wide, 2, &f->arena, f->diag),
                   KILN_E_MALFORMED, "24 bytes");
    assert_refused(f, kiln_raw_read(&back, path, KILN_DTYPE_F32, huge, 2, &f->arena, f->diag),
                   KILN_E_USAGE, "raw");
    assert_refused(f, kiln_raw_read(&back, path, KILN_DTYPE_STRING, dims, 2, &f->arena, f->diag),
                   KILN_E_USAGE, "raw");
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_numpy_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_complex_scalar_and_empty, set_up, tear_down),
        cmocka_unit_test_setup_teardown(views_without_copying, set_up, tear_down),
        cmocka_unit_test_setup_teardown(round_trip_of_every_type, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bf16_is_widened_on_writing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_hostile_headers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_broken_prefixes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_numpy_objects, set_up, tear_down),
        cmocka_unit_test_setup_teardown(raw_files_must_fit, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
