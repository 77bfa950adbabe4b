/* Hashes against published vectors, and the processor's features under a mask. */
#define _GNU_SOURCE 1

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/hash.h"

static void expect_sha(void (*init)(kiln_sha *), const char *data, size_t bytes, size_t repeat,
                       const char *hex) {
    kiln_sha sha;
    uint8_t digest[KILN_SHA256_BYTES];
    char text[2 * KILN_SHA256_BYTES + 1];
    init(&sha);
    for (size_t i = 0; i < repeat; i++) {
        kiln_sha_update(&sha, data, bytes);
    }
    kiln_hex(text, digest, kiln_sha_final(&sha, digest));
    assert_string_equal(text, hex);
}

/* Examples of FIPS 180 ("abc", 448 bits, a million times "a") and of the empty message. */
static void test_sha_vectors(void **state) {
    (void)state;
    const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    expect_sha(kiln_sha1_init, "", 0, 1, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    expect_sha(kiln_sha1_init, "abc", 3, 1, "a9993e364706816aba3e25717850c26c9cd0d89d");
    expect_sha(kiln_sha1_init, two, 56, 1, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    expect_sha(kiln_sha1_init, "aaaaaaaaaa", 10, 100000,
               "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    expect_sha(kiln_sha256_init, "", 0, 1,
               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect_sha(kiln_sha256_init, "abc", 3, 1,
               "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_sha(kiln_sha256_init, two, 56, 1,
               "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    expect_sha(kiln_sha256_init, "aaaaaaaaaa", 10, 100000,
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Cutting the message anywhere changes nothing. */
static void test_sha_pieces(void **state) {
    (void)state;
    uint8_t data[200], whole[32], parts[32];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7);
    }
    for (size_t len = 0; len < sizeof data; len++) {
        kiln_sha sha;
        kiln_sha256_init(&sha);
        kiln_sha_update(&sha, data, len);
        kiln_sha_final(&sha, whole);
        kiln_sha256_init(&sha);
        kiln_sha_update(&sha, data, len / 3);
        kiln_sha_update(&sha, data + len / 3, len - len / 3);
        kiln_sha_final(&sha, parts);
        assert_memory_equal(whole, parts, sizeof whole);
    }
}

/* XXH3 of the empty message with seed 0, from the reference implementation's test vectors. */
static void test_xxh3(void **state) {
    (void)state;
    assert_true(kiln_hash_64("", 0) == 0x2D06800538D394C2u);
    kiln_hash128 h = kiln_hash_128("", 0);
    assert_true(h.low == 0x6001C324468D497Fu && h.high == 0x99AA06D3014798D8u);
    unsigned char data[1000] = {0};
    uint64_t before = kiln_hash_64(data, sizeof data);
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] ^= 1;
        assert_true(kiln_hash_64(data, sizeof data) != before);
        data[i] ^= 1;
    }
}

static void test_cpu_levels(void **state) {
    (void)state;
    static const char *const names[] = {"portable",   "avx2",       "avxvnni", "avx512",
                                        "avx512vnni", "avx512bf16", "amx"};
    const uint32_t everything = KILN_ISA_AVX512 | KILN_CPU_AVXVNNI | KILN_CPU_VNNI | KILN_CPU_BF16 |
                                KILN_CPU_AMX_INT8 | KILN_CPU_AMX_BF16;
    for (size_t i = 0; i < KILN_COUNT_OF(names); i++) {
        uint32_t features = everything;
        assert_true(kiln_cpu_limit(names[i], &features));
        assert_string_equal(kiln_cpu_level_name(features), names[i]);
        uint32_t none = 0;
        assert_true(kiln_cpu_limit(names[i], &none) && none == 0);
    }
    uint32_t features = everything;
    assert_false(kiln_cpu_limit("avx9000", &features));
    assert_int_equal(features, everything);
    assert_string_equal(kiln_cpu_level_name(everything), "amx");
}

/* Runs first, before anything asks for the features. */
static void test_cpu_mask(void **state) {
    (void)state;
    assert_int_equal(setenv("KILN_MAX_ISA", "portable", 1), 0);
    assert_int_equal(kiln_cpu_features(), KILN_ISA_PORTABLE);
    assert_int_equal(unsetenv("KILN_MAX_ISA"), 0);
    assert_int_equal(kiln_cpu_features(), KILN_ISA_PORTABLE);
    kiln_cpu_info info;
    kiln_cpu_describe(&info);
    assert_true(info.l1d_bytes >= 0 && memchr(info.model, '\0', sizeof info.model));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_mask),    cmocka_unit_test(test_cpu_levels),
        cmocka_unit_test(test_sha_vectors), cmocka_unit_test(test_sha_pieces),
        cmocka_unit_test(test_xxh3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
