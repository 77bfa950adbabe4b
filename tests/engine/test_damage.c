/* A damaged engine is refused, whatever bit of it changed and wherever it was cut; one whose
 * hashes an attacker made right again is refused or runs within its memory (which the sanitizers
 * watch). KILN_ROUNDS sets how many such files each sample gets [4000]. */
#include "engine/forge.h"
#include "engine/samples.h"

/* ctest-timeout: 900 */

typedef struct image {
    kiln_engine *built;
    uint8_t *bytes; /* aligned to 64, `len` long and not a byte more */
    size_t len;
} image;

static uint8_t *exact_copy(const uint8_t *bytes, size_t len) {
    void *copy;
    assert_int_equal(posix_memalign(&copy, 64, len ? len : 1), 0);
    memcpy(copy, bytes, len);
    return copy;
}

static image open_image(size_t sample_index) {
    kiln_diag *diag = new_diag();
    image im = {.built = build_sample(sample_index, NULL)};
    void *bytes;
    MUST(diag, kiln_engine_save_memory(im.built, &bytes, &im.len, diag));
    im.bytes = exact_copy(bytes, im.len);
    kiln_free(NULL, bytes, im.len);
    kiln_diag_destroy(diag);
    return im;
}

static void close_image(image *im) {
    free(im->bytes);
    kiln_engine_destroy(im->built);
}

static kiln_status try_load(const uint8_t *bytes, size_t len, bool verify) {
    const kiln_load_options options = {.size = sizeof options, .verify = verify};
    kiln_engine *engine = NULL;
    kiln_status status = kiln_engine_load_memory(&engine, NULL, bytes, len, &options, NULL);
    assert_true((status == KILN_OK) == (engine != NULL));
    kiln_engine_destroy(engine);
    return status;
}

static void expect_refused(const image *im, size_t byte, int bit, bool verify) {
    im->bytes[byte] ^= (uint8_t)(1 << bit);
    kiln_status status = try_load(im->bytes, im->len, verify);
    im->bytes[byte] ^= (uint8_t)(1 << bit);
    if (status != KILN_E_ENGINE) {
        print_error("bit %d of byte %zu of %zu: %s\n", bit, byte, im->len,
                    kiln_status_name(status));
    }
    assert_int_equal(status, KILN_E_ENGINE);
}

static void every_bit_of_the_front_is_guarded(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        image im = open_image(i);
        for (size_t byte = 0; byte < FORGE_FRONT; byte++) {
            for (int bit = 0; bit < 8; bit++) {
                expect_refused(&im, byte, bit, false);
            }
        }
        close_image(&im);
    }
}

/* Sections and the padding before them: all bytes up to the weights, then the weights under
 * verify. */
static void a_bit_of_every_byte_is_guarded(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        image im = open_image(i);
        size_t weights = 0, n = 0;
        assert_true(forge_section(im.bytes, im.len, KILN_SECTION_WEIGHTS, &weights, &n));
        assert_int_equal(weights + n, im.len);
        size_t step = n > 16384 ? 61 : 1;
        for (size_t byte = FORGE_FRONT; byte < weights; byte++) {
            expect_refused(&im, byte, (int)(byte % 8), false);
        }
        for (size_t byte = weights; byte < im.len; byte += step) {
            expect_refused(&im, byte, (int)(byte % 8), true);
        }
        assert_int_equal(try_load(im.bytes, im.len, true), KILN_OK);
        close_image(&im);
    }
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        image im = open_image(i);
        size_t step = im.len > 32768 ? 7 : 1;
        for (size_t len = 0; len < im.len; len += step) {
            uint8_t *cut = exact_copy(im.bytes, len);
            assert_int_equal(try_load(cut, len, false), KILN_E_ENGINE);
            free(cut);
        }
        close_image(&im);
    }
}

static void extension_and_splicing_are_refused(void **state) {
    (void)state;
    image a = open_image(1), b = open_image(4);
    uint8_t *longer;
    assert_int_equal(posix_memalign((void **)&longer, 64, a.len + 64), 0);
    memset(longer, 0, a.len + 64);
    memcpy(longer, a.bytes, a.len);
    for (size_t extra = 1; extra <= 64; extra++) {
        assert_int_equal(try_load(longer, a.len + extra, false), KILN_E_ENGINE);
    }
    /* The length in the header follows, and so do the hashes: something stands behind the
     * sections. */
    forge_put(longer + FORGE_LENGTH_AT, a.len + 64);
    forge_hashes(longer, a.len + 64);
    assert_int_equal(try_load(longer, a.len + 64, false), KILN_E_ENGINE);
    free(longer);
    /* The front of one engine with the sections of another. */
    memcpy(a.bytes, b.bytes, FORGE_FRONT);
    assert_int_equal(try_load(a.bytes, a.len, false), KILN_E_ENGINE);
    close_image(&a);
    close_image(&b);
}

/* Two sections swapped in the table, hashes right. */
static void swapped_sections_are_refused(void **state) {
    (void)state;
    for (int i = 0; i < KILN_SECTION_WEIGHTS; i++) {
        image im = open_image(1);
        uint8_t entry[KILN_ENTRY_BYTES];
        memcpy(entry, forge_entry(im.bytes, i), sizeof entry);
        memcpy(forge_entry(im.bytes, i), forge_entry(im.bytes, i + 1), sizeof entry);
        memcpy(forge_entry(im.bytes, i + 1), entry, sizeof entry);
        forge_hashes(im.bytes, im.len);
        assert_int_equal(try_load(im.bytes, im.len, false), KILN_E_ENGINE);
        close_image(&im);
    }
}

/* ---- An attacker who makes the hashes right ---- */

static uint32_t draw(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Changes one to three places between the header's length and the weights. */
static void tamper(uint8_t *bytes, size_t weights, uint32_t *state) {
    static const uint8_t odd[] = {0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 26};
    uint32_t edits = 1 + draw(state) % 3;
    for (uint32_t k = 0; k < edits; k++) {
        bool table = draw(state) % 16 == 0;
        size_t from = table ? KILN_HEADER_BYTES : FORGE_FRONT;
        size_t to = table ? FORGE_FRONT : weights;
        size_t at = from + draw(state) % (to - from);
        uint32_t kind = draw(state) % 4;
        if (kind == 0) {
            bytes[at] ^= (uint8_t)(1u << draw(state) % 8);
        } else if (kind == 1) {
            bytes[at] = odd[draw(state) % sizeof odd];
        } else if (kind == 2) {
            bytes[at] = (uint8_t)(bytes[at] + (draw(state) % 2 ? 1 : -1));
        } else {
            size_t n = 1 + draw(state) % 8, source = from + draw(state) % (to - from);
            n = n > to - at ? to - at : n;
            n = n > to - source ? to - source : n;
            memmove(bytes + at, bytes + source, n);
        }
    }
}

/* Runs what could be loaded: any status is right as long as memory is. */
static bool run_forged(const kiln_env *env, const uint8_t *bytes, size_t len) {
    static const kiln_context_options one = {.size = sizeof one, .threads = 1};
    kiln_engine *engine;
    kiln_context *context;
    kiln_diag *diag = new_diag();
    kiln_status status = kiln_engine_load_memory(&engine, env, bytes, len, NULL, diag);
    assert_true(status == KILN_OK || status == KILN_E_ENGINE || status == KILN_E_LIMIT ||
                status == KILN_E_MEMORY);
    kiln_diag_destroy(diag);
    if (status != KILN_OK) {
        return false;
    }
    if (kiln_context_create(&context, engine, &one, NULL) == KILN_OK) {
        input_set in;
        if (make_inputs(&in, engine, 2, 5, 1 << 20) && bind_inputs(context, &in, NULL) == KILN_OK &&
            kiln_context_run(context, NULL) == KILN_OK) {
            outcome o = {0};
            take_outcome(&o, context, engine);
            free_outcome(&o);
        }
        kiln_context_destroy(context);
        free_inputs(&in);
    }
    kiln_engine_destroy(engine);
    return true;
}

static void forged_files_stay_within_memory(void **state) {
    (void)state;
    const kiln_limits limits = {.size = sizeof limits,
                                .tensor_bytes = 1 << 22,
                                .memory_bytes = 1 << 24,
                                .fold_bytes = 1 << 20,
                                .loop_trips = 100};
    const kiln_env_options options = {.size = sizeof options, .limits = &limits};
    const char *rounds_text = getenv("KILN_ROUNDS");
    int rounds = rounds_text ? (int)strtol(rounds_text, NULL, 10) : 4000;
    uint32_t seed = 2463534242u;
    kiln_env *env;
    assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
    for (size_t i = 0; i < N_SAMPLES; i++) {
        image im = open_image(i);
        size_t weights = 0, n = 0, loaded = 0;
        assert_true(forge_section(im.bytes, im.len, KILN_SECTION_WEIGHTS, &weights, &n));
        assert_true(run_forged(env, im.bytes, im.len));
        uint8_t *forged = exact_copy(im.bytes, im.len);
        for (int k = 0; k < rounds; k++) {
            memcpy(forged, im.bytes, weights);
            tamper(forged, weights, &seed);
            forge_hashes(forged, im.len);
            loaded += run_forged(env, forged, im.len);
        }
        print_message("%s: %zu of %d forged files could be loaded\n", samples[i].name, loaded,
                      rounds);
        assert_true(loaded > 0 && loaded < (size_t)rounds);
        free(forged);
        close_image(&im);
    }
    kiln_env_destroy(env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_of_the_front_is_guarded),
        cmocka_unit_test(a_bit_of_every_byte_is_guarded),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(extension_and_splicing_are_refused),
        cmocka_unit_test(swapped_sections_are_refused),
        cmocka_unit_test(forged_files_stay_within_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
