/* Calibration files, TensorRT's cache and ONNX Runtime's JSON: there and back, and hostile ones. */
#include "test_quant_common.h"

#include <unistd.h>

#include "base/file.h"
#include "kiln/quant.h"

static const char *tmp_path(const char *name) {
    static char path[512];
    const char *dir = getenv("KILN_TMP");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "/tmp", name);
    return path;
}

static void put(const char *path, const void *data, size_t bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
}

static size_t get(const char *path, uint8_t *data, size_t cap) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(data, 1, cap, f);
    fclose(f);
    return n;
}

static kiln_calibration *sample_calibration(bench *b, uint64_t seed) {
    kiln_calibration *c;
    assert_int_equal(kiln_calibration_create(&c, NULL), KILN_OK);
    assert_int_equal(
        kiln_calibration_describe(c, "00112233445566778899aabbccddeeff", "scale=1/255", b->diag),
        KILN_OK);
    const char *const names[] = {"relu", "conv", "", "zero"};
    const shape_of_data kinds[] = {RELU, OUTLIER, SKEWED, GAUSS};
    for (int i = 0; i < 4; i++) {
        float *x = draw_all(b, kinds[i], 1000, seed + (uint64_t)i);
        x[3] = i == 2 ? NAN : x[3];
        for (int k = 0; i == 3 && k < 1000; k++) {
            x[k] = 0;
        }
        kiln_tensor t = flat(x, 1000);
        assert_int_equal(kiln_calibration_observe(c, names[i], &t, b->diag), KILN_OK);
        kiln_calibration_count_sample(c, x, 4000);
    }
    return c;
}

static void assert_same_calibration(const kiln_calibration *a, const kiln_calibration *b) {
    kiln_calibration_info x, y;
    kiln_calibration_get_info(a, &x);
    kiln_calibration_get_info(b, &y);
    assert_string_equal(x.model_hash, y.model_hash);
    assert_string_equal(x.data_hash, y.data_hash);
    assert_string_equal(x.preprocess, y.preprocess);
    assert_true(x.samples == y.samples && x.tensors == y.tensors);
    for (size_t i = 0; i < a->n_tensors; i++) {
        assert_string_equal(a->tensors[i]->name, b->tensors[i]->name);
        assert_same(&a->tensors[i]->seen, &b->tensors[i]->seen);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    bench b;
    kiln_calibration *back;
    bench_open(&b);
    kiln_calibration *c = sample_calibration(&b, 1);
    const char *path = tmp_path("net.calib");
    assert_int_equal(kiln_calibration_write(c, path, b.diag), KILN_OK);
    assert_int_equal(kiln_calibration_read(&back, NULL, path, b.diag), KILN_OK);
    assert_same_calibration(c, back);
    kiln_seen seen;
    assert_true(kiln_calibration_get(back, 0, &seen) && strcmp(seen.name, "") == 0);
    assert_true(seen.nans == 1 && seen.count == 999);
    assert_true(kiln_calibration_get(back, 3, &seen) && seen.zeros == 1000);
    assert_false(kiln_calibration_get(back, 4, &seen));
    kiln_calibration_destroy(back);
    kiln_calibration_destroy(c);
    bench_close(&b);
}

/* Two halves merge to what one pass over all gives, in either order. */
static void test_merge(void **state) {
    (void)state;
    bench b;
    bench_open(&b);
    kiln_calibration *x = sample_calibration(&b, 1), *y = sample_calibration(&b, 50), *one, *two;
    assert_int_equal(kiln_calibration_create(&one, NULL), KILN_OK);
    assert_int_equal(kiln_calibration_create(&two, NULL), KILN_OK);
    assert_int_equal(kiln_calibration_merge(one, x, b.diag), KILN_OK);
    assert_int_equal(kiln_calibration_merge(one, y, b.diag), KILN_OK);
    assert_int_equal(kiln_calibration_merge(two, y, b.diag), KILN_OK);
    assert_int_equal(kiln_calibration_merge(two, x, b.diag), KILN_OK);
    assert_same_calibration(one, two);
    assert_true(one->samples == 8);
    assert_int_equal(
        kiln_calibration_describe(y, "ff112233445566778899aabbccddeeff", "scale=1/255", b.diag),
        KILN_OK);
    assert_int_equal(kiln_calibration_merge(x, y, b.diag), KILN_E_USAGE);
    assert_int_equal(
        kiln_calibration_describe(y, "00112233445566778899aabbccddeeff", "scale=1", b.diag),
        KILN_OK);
    assert_int_equal(kiln_calibration_merge(x, y, b.diag), KILN_E_USAGE);
    assert_int_equal(kiln_calibration_describe(y, "0011", "", b.diag), KILN_E_USAGE);
    kiln_calibration *all[] = {x, y, one, two};
    for (int i = 0; i < 4; i++) {
        kiln_calibration_destroy(all[i]);
    }
    bench_close(&b);
}

enum { MAX_BYTES = 1 << 16 };

static kiln_status read_bytes(bench *b, const uint8_t *bytes, size_t n) {
    kiln_calibration *c;
    const char *path = tmp_path("bad.calib");
    put(path, bytes, n);
    kiln_status status = kiln_calibration_read(&c, NULL, path, b->diag);
    if (status == KILN_OK) {
        kiln_calibration_destroy(c);
    }
    return status;
}

/* Writes the hash that belongs to the bytes before it. */
static void forge(uint8_t *bytes, size_t n) {
    kiln_hash128 h = kiln_hash_128(bytes, n - 16);
    for (int i = 0; i < 8; i++) {
        bytes[n - 16 + (size_t)i] = (uint8_t)(h.high >> (8 * i));
        bytes[n - 8 + (size_t)i] = (uint8_t)(h.low >> (8 * i));
    }
}

/* Every flipped bit and every shorter file is refused; with the hash made right, nothing crashes
 * and what is accepted adds up. */
static void test_damage(void **state) {
    (void)state;
    bench b;
    kiln_calibration *c;
    static uint8_t good[MAX_BYTES], bad[MAX_BYTES];
    bench_open(&b);
    float x[] = {1, 0, -2, 0.75f};
    kiln_tensor t = flat(x, 4);
    assert_int_equal(kiln_calibration_create(&c, NULL), KILN_OK);
    assert_int_equal(kiln_calibration_observe(c, "a", &t, b.diag), KILN_OK);
    t.dims[0] = 2;
    assert_int_equal(kiln_calibration_observe(c, "b", &t, b.diag), KILN_OK);
    const char *path = tmp_path("good.calib");
    assert_int_equal(kiln_calibration_write(c, path, b.diag), KILN_OK);
    size_t n = get(path, good, MAX_BYTES);
    kiln_calibration_destroy(c);
    assert_int_equal(read_bytes(&b, good, n), KILN_OK);
    size_t accepted = 0, body = 8 + 4 + 4 + 16 + 16 + 8;
    for (size_t i = 0; i < n * 8; i++) {
        memcpy(bad, good, n);
        bad[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(read_bytes(&b, bad, n), KILN_E_MALFORMED);
        forge(bad, n);
        kiln_status status = read_bytes(&b, bad, n);
        accepted += i / 8 >= body && i / 8 < n - 16 && status == KILN_OK ? 1 : 0;
        assert_true(status == KILN_OK || status == KILN_E_MALFORMED ||
                    status == KILN_E_UNSUPPORTED);
    }
    /* Of the tensors only letters of names, NaN and infinity counts and low bits of extremes can be
     * others than they are. */
    assert_true(accepted > 0 && accepted < (n - body) * 4);
    for (size_t len = 0; len < n; len++) {
        assert_int_equal(read_bytes(&b, good, len), KILN_E_MALFORMED);
        if (len >= 24) {
            memcpy(bad, good, len);
            forge(bad, len);
            assert_int_equal(read_bytes(&b, bad, len), KILN_E_MALFORMED);
        }
    }
    bench_close(&b);
}

/* Failing to write leaves the old file. */
static void test_write_failure(void **state) {
    (void)state;
    bench b;
    bench_open(&b);
    kiln_calibration *c = sample_calibration(&b, 1), *back;
    assert_int_equal(kiln_calibration_write(c, "/no/such/folder/x", b.diag), KILN_E_IO);
    assert_int_equal(kiln_calibration_read(&back, NULL, "/no/such/folder/x", b.diag), KILN_E_IO);
    kiln_calibration_destroy(c);
    bench_close(&b);
}

/* ---- TensorRT ---- */

static kiln_status read_ranges(bench *b, const char *text, kiln_ranges **out) {
    const char *path = tmp_path("ranges.txt");
    put(path, text, strlen(text));
    return kiln_ranges_read(out, NULL, path, b->diag);
}

static void test_trt(void **state) {
    (void)state;
    bench b;
    kiln_ranges *r;
    static const char text[] = "TRT-8601-EntropyCalibration2\n"
                               "(Unnamed Layer* 50) [Convolution]_output: 3c010a14\n"
                               "input: 0: 3f800000\n"
                               "zero: 00000000\n";
    bench_open(&b);
    assert_int_equal(read_ranges(&b, text, &r), KILN_OK);
    const kiln_range *one = kiln_ranges_find(r, "input: 0");
    assert_non_null(one);
    assert_true(one->hi == 127 && one->lo == -127 && isnan(one->sqnr_db));
    one = kiln_ranges_find(r, "(Unnamed Layer* 50) [Convolution]_output");
    assert_non_null(one);
    assert_true(one->hi == (double)0x1.021428p-7f * 127);
    assert_null(kiln_ranges_find(r, "other"));
    /* Back, byte for byte. */
    const char *path = tmp_path("back.cache");
    static uint8_t bytes[4096];
    assert_int_equal(kiln_ranges_write_trt(r, path, b.diag), KILN_OK);
    size_t n = get(path, bytes, sizeof bytes);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(bytes, text, n);
    kiln_range odd = {.name = "a\nb", .lo = 0, .hi = 1};
    assert_int_equal(kiln_ranges_set(r, &odd, b.diag), KILN_OK);
    assert_int_equal(kiln_ranges_write_trt(r, path, b.diag), KILN_E_USAGE);
    assert_int_equal(get(path, bytes, sizeof bytes), n);
    kiln_ranges_destroy(r);
    bench_close(&b);
}

/* A random list survives the round; a scale's every bit does. */
static void test_trt_bits(void **state) {
    (void)state;
    bench b;
    kiln_ranges *r, *back;
    uint64_t seed = 17;
    bench_open(&b);
    assert_int_equal(kiln_ranges_create(&r, NULL), KILN_OK);
    for (int i = 0; i < 2000; i++) {
        char name[16];
        float scale = (float)ldexp(next_unit(&seed), (int)(next_unit(&seed) * 200) - 100);
        snprintf(name, sizeof name, "t%d", i);
        kiln_range x = {.name = name, .lo = -127 * (double)scale, .hi = 127 * (double)scale};
        assert_int_equal(kiln_ranges_set(r, &x, b.diag), KILN_OK);
    }
    const char *path = tmp_path("many.cache");
    assert_int_equal(kiln_ranges_write_trt(r, path, b.diag), KILN_OK);
    assert_int_equal(kiln_ranges_read(&back, NULL, path, b.diag), KILN_OK);
    for (size_t i = 0; i < 2000; i++) {
        const kiln_range *x = kiln_ranges_get(r, i), *y = kiln_ranges_get(back, i);
        assert_non_null(y);
        assert_string_equal(x->name, y->name);
        assert_true(x->hi == y->hi && x->lo == y->lo);
    }
    assert_null(kiln_ranges_get(back, 2000));
    kiln_ranges_destroy(r);
    kiln_ranges_destroy(back);
    bench_close(&b);
}

/* ---- ONNX Runtime ---- */

static void check_json(bench *b, const char *text, double lo, double hi) {
    kiln_ranges *r;
    assert_int_equal(read_ranges(b, text, &r), KILN_OK);
    const kiln_range *x = kiln_ranges_find(r, "conv");
    assert_non_null(x);
    assert_true(x->lo == lo && x->hi == hi);
    kiln_ranges_destroy(r);
}

static void test_ort(void **state) {
    (void)state;
    bench b;
    bench_open(&b);
    check_json(&b, "{\"conv\": [-1.5, 2.25], \"b\": [0, 1]}", -1.5, 2.25);
    check_json(&b, "{\"conv\": {\"lowest\": 0.5, \"highest\": 2, \"CLS\": \"TensorData\"}}", 0, 2);
    check_json(&b,
               "{\"CLS\": \"TensorsData\", \"calibration_method\": {\"CLS\": \"CalibrationMethod\","
               "\"value\": \"CalibrationMethod.Percentile\"}, \"smooth_quant\": false, \"data\": "
               "{\"conv\": {\"lowest\": {\"data\": -3.0, \"dtype\": \"float32\", \"CLS\": "
               "\"numpy.array\"}, \"highest\": {\"data\": [4], \"dtype\": \"float32\", \"CLS\": "
               "\"numpy.array\"}, \"hist\": {\"data\": [1, 2]}, \"CLS\": \"TensorData\"}}}",
               -3, 4);
    bench_close(&b);
}

/* Stored bad files: each is refused as malformed. */
static void test_bad_ranges(void **state) {
    (void)state;
    bench b;
    bench_open(&b);
    size_t n = 0;
    for (;; n++) {
        char path[256];
        kiln_ranges *r;
        snprintf(path, sizeof path, "tests/golden/bad_ranges/%02zu.txt", n);
        if (access(path, R_OK) != 0) {
            break;
        }
        kiln_status status = kiln_ranges_read(&r, NULL, path, b.diag);
        if (status != KILN_E_MALFORMED) {
            fail_msg("%s: %s", path, kiln_status_name(status));
        }
    }
    assert_true(n >= 20);
    bench_close(&b);
}

static void test_ranges(void **state) {
    (void)state;
    bench b;
    kiln_ranges *r;
    bench_open(&b);
    assert_int_equal(kiln_ranges_create(&r, NULL), KILN_OK);
    kiln_range bad[] = {{.name = "a", .lo = 1, .hi = 0},
                        {.name = "a", .lo = (double)-INFINITY},
                        {.name = "a", .hi = (double)NAN},
                        {.name = NULL}};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(kiln_ranges_set(r, &bad[i], b.diag), KILN_E_USAGE);
    }
    kiln_calibration *c = sample_calibration(&b, 5);
    assert_int_equal(kiln_ranges_calibrate(r, c, NULL, b.diag), KILN_OK);
    assert_true(kiln_ranges_find(r, "relu")->lo == 0);
    assert_true(kiln_ranges_find(r, "zero")->hi == 0);
    assert_true(kiln_ranges_find(r, "")->lo < 0);
    kiln_range x, best[2];
    size_t n;
    assert_int_equal(kiln_calibration_range(c, "conv", NULL, &x, b.diag), KILN_OK);
    assert_int_equal(kiln_calibration_candidates(c, "conv", NULL, best, 2, &n, b.diag), KILN_OK);
    assert_true(n == 6 && best[0].hi == x.hi && best[0].sqnr_db > best[1].sqnr_db);
    assert_int_equal(kiln_calibration_range(c, "conv9", NULL, &x, b.diag), KILN_E_USAGE);
    kiln_calibration_destroy(c);
    kiln_ranges_destroy(r);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_merge),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_write_failure),
        cmocka_unit_test(test_trt),        cmocka_unit_test(test_trt_bits),
        cmocka_unit_test(test_ort),        cmocka_unit_test(test_bad_ranges),
        cmocka_unit_test(test_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
