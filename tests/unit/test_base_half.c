/* Narrow floats. The oracle here is arithmetic on doubles: a format's finite values are listed from
 * its definition, and the conversion of x must give the nearest of them, ties to the even code. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/half.h"

typedef struct format {
    int exponent_bits, mantissa_bits, bias;
    uint32_t max;                /* code of the largest finite magnitude */
    uint32_t (*encode)(float x); /* without saturation where there is a choice */
    float (*decode)(uint32_t code);
    uint32_t over; /* code of what overflows */
    bool unsigned_zero;
} format;

#define F8(name, dtype)                              \
    static uint32_t encode_##name(float x) {         \
        return kiln_f32_to_f8(dtype, x, false);      \
    }                                                \
    static float decode_##name(uint32_t code) {      \
        return kiln_f8_to_f32(dtype, (uint8_t)code); \
    }
F8(e4m3fn, KILN_DTYPE_F8E4M3FN)
F8(e4m3fnuz, KILN_DTYPE_F8E4M3FNUZ)
F8(e5m2, KILN_DTYPE_F8E5M2)
F8(e5m2fnuz, KILN_DTYPE_F8E5M2FNUZ)

static uint32_t encode_f16(float x) {
    return kiln_f32_to_f16(x);
}
static float decode_f16(uint32_t code) {
    return kiln_f16_to_f32((uint16_t)code);
}
static uint32_t encode_bf16(float x) {
    return kiln_f32_to_bf16(x);
}
static float decode_bf16(uint32_t code) {
    return kiln_bf16_to_f32((uint16_t)code);
}
static uint32_t encode_f4(float x) {
    return kiln_f32_to_f4(x);
}
static float decode_f4(uint32_t code) {
    return kiln_f4_to_f32((uint8_t)code);
}

static const format formats[] = {
    {5, 10, 15, 0x7BFF, encode_f16, decode_f16, 0x7C00, false},
    {8, 7, 127, 0x7F7F, encode_bf16, decode_bf16, 0x7F80, false},
    {4, 3, 7, 0x7E, encode_e4m3fn, decode_e4m3fn, 0x7F, false},
    {4, 3, 8, 0x7F, encode_e4m3fnuz, decode_e4m3fnuz, 0x80, true},
    {5, 2, 15, 0x7B, encode_e5m2, decode_e5m2, 0x7C, false},
    {5, 2, 16, 0x7F, encode_e5m2fnuz, decode_e5m2fnuz, 0x80, true},
    {2, 1, 1, 0x7, encode_f4, decode_f4, 0x7, false},
};

static double value_of(const format *f, uint32_t code) {
    int field = (int)(code >> f->mantissa_bits);
    double fraction = (double)(code & ((1u << f->mantissa_bits) - 1));
    double scale = ldexp(1, -f->mantissa_bits);
    return field ? ldexp(1 + fraction * scale, field - f->bias)
                 : ldexp(fraction * scale, 1 - f->bias);
}

static uint32_t sign_of(const format *f) {
    return 1u << (f->exponent_bits + f->mantissa_bits);
}

static void expect(const format *f, double x, uint32_t magnitude) {
    float narrow = (float)x;
    assert_true((double)narrow == x);
    assert_int_equal(f->encode(narrow), magnitude);
    bool no_sign = f->unsigned_zero && (magnitude == 0 || magnitude == f->over);
    assert_int_equal(f->encode(-narrow), no_sign ? magnitude : magnitude | sign_of(f));
}

/* Every code survives the round trip; between neighbours, the midpoint goes to the even code and
 * one float to either side of it goes to the nearer neighbour. */
static void test_every_code_and_tie(void **state) {
    (void)state;
    for (size_t i = 0; i < KILN_COUNT_OF(formats); i++) {
        const format *f = &formats[i];
        for (uint32_t code = 0; code <= f->max; code++) {
            double low = value_of(f, code), high = value_of(f, code + 1);
            assert_true((double)f->decode(code) == low);
            expect(f, low, code);
            if (!f->unsigned_zero || code) {
                assert_true((double)f->decode(code | sign_of(f)) == -low);
            }
            double middle = (low + high) / 2;
            if (middle > (double)HUGE_VALF || (double)(float)middle != middle) {
                continue;
            }
            uint32_t next = code == f->max ? f->over : code + 1;
            expect(f, middle, code % 2 ? next : code);
            expect(f, nextafterf((float)middle, 0), code);
            expect(f, nextafterf((float)middle, HUGE_VALF), next);
        }
        expect(f, (double)HUGE_VALF, f->over);
        expect(f, 0x1p-149, 0);
    }
}

/* Rounding is monotonic and never further than half a step, over a walk through all floats. */
static void test_nearest_everywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < KILN_COUNT_OF(formats); i++) {
        const format *f = &formats[i];
        double max = value_of(f, f->max);
        for (uint32_t bits = 0; bits < 0x7F800000; bits += 4099) {
            double x = (double)kiln_f32_from_bits(bits);
            if (x > max) {
                break;
            }
            uint32_t code = f->encode((float)x);
            double here = value_of(f, code);
            assert_true(code <= f->max);
            assert_true(code == 0 || fabs(here - x) <= fabs(value_of(f, code - 1) - x));
            assert_true(fabs(here - x) <= fabs(value_of(f, code + 1) - x));
        }
    }
}

static void test_not_a_number(void **state) {
    (void)state;
    assert_int_equal(kiln_f32_to_f16(kiln_f32_from_bits(0x7F800001)), 0x7E00);
    assert_int_equal(kiln_f32_to_f16(kiln_f32_from_bits(0xFFC02000)), 0xFE01);
    assert_int_equal(kiln_f32_to_bf16(kiln_f32_from_bits(0x7F800001)), 0x7FC0);
    assert_int_equal(kiln_f32_to_bf16(kiln_f32_from_bits(0xFFFFFFFF)), 0xFFFF);
    for (uint32_t code = 0x7C01; code <= 0x7FFF; code++) {
        assert_true(isnan(kiln_f16_to_f32((uint16_t)code)));
        assert_true(isnan(kiln_f16_to_f32((uint16_t)(code | 0x8000))));
    }
    assert_true(kiln_f16_to_f32(0xFC00) == -HUGE_VALF);
    static const struct {
        kiln_dtype dtype;
        uint8_t nan, negative_nan, max;
    } f8[] = {
        {KILN_DTYPE_F8E4M3FN, 0x7F, 0xFF, 0x7E},
        {KILN_DTYPE_F8E4M3FNUZ, 0x80, 0x80, 0x7F},
        {KILN_DTYPE_F8E5M2, 0x7E, 0xFE, 0x7B},
        {KILN_DTYPE_F8E5M2FNUZ, 0x80, 0x80, 0x7F},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(f8); i++) {
        for (int saturate = 0; saturate < 2; saturate++) {
            assert_int_equal(kiln_f32_to_f8(f8[i].dtype, kiln_f32_from_bits(0x7FC00000), saturate),
                             f8[i].nan);
            assert_int_equal(kiln_f32_to_f8(f8[i].dtype, kiln_f32_from_bits(0xFFC00000), saturate),
                             f8[i].negative_nan);
        }
        assert_true(isnan(kiln_f8_to_f32(f8[i].dtype, f8[i].nan)));
        assert_true(isnan(kiln_f8_to_f32(f8[i].dtype, f8[i].negative_nan)));
        assert_int_equal(kiln_f32_to_f8(f8[i].dtype, HUGE_VALF, true), f8[i].max);
        assert_int_equal(kiln_f32_to_f8(f8[i].dtype, -1e30f, true), f8[i].max | 0x80);
    }
    assert_true(kiln_f8_to_f32(KILN_DTYPE_F8E5M2, 0xFC) == -HUGE_VALF);
    assert_int_equal(kiln_f32_to_f4(-HUGE_VALF), 0xF);
    assert_int_equal(kiln_f32_to_f4(kiln_f32_from_bits(0x7FC00000)), 0x8);
}

static void test_e8m0(void **state) {
    (void)state;
    for (int code = 0; code < 255; code++) {
        float x = kiln_e8m0_to_f32((uint8_t)code);
        assert_true((double)x == ldexp(1, code - 127));
        for (int saturate = 0; saturate < 2; saturate++) {
            assert_int_equal(kiln_f32_to_e8m0(x, KILN_ROUND_UP, saturate), code);
            assert_int_equal(kiln_f32_to_e8m0(x, KILN_ROUND_DOWN, saturate), code);
            assert_int_equal(kiln_f32_to_e8m0(-x, KILN_ROUND_NEAREST, saturate), code);
        }
        int next = code + 1;
        float above = nextafterf(x, HUGE_VALF), tie = 1.5f * x;
        assert_int_equal(kiln_f32_to_e8m0(above, KILN_ROUND_UP, false), next);
        assert_int_equal(kiln_f32_to_e8m0(above, KILN_ROUND_DOWN, false), code);
        assert_int_equal(kiln_f32_to_e8m0(above, KILN_ROUND_NEAREST, false), code);
        assert_int_equal(kiln_f32_to_e8m0(tie, KILN_ROUND_NEAREST, false), next);
        assert_int_equal(kiln_f32_to_e8m0(tie, KILN_ROUND_NEAREST, true), next == 255 ? 254 : next);
        assert_int_equal(kiln_f32_to_e8m0(nextafterf(tie, 0), KILN_ROUND_NEAREST, false), code);
    }
    assert_int_equal(kiln_f32_to_e8m0(0, KILN_ROUND_UP, true), 0);
    assert_int_equal(kiln_f32_to_e8m0(0, KILN_ROUND_NEAREST, false), 0xFF);
    assert_int_equal(kiln_f32_to_e8m0(HUGE_VALF, KILN_ROUND_UP, true), 0xFE);
    assert_int_equal(kiln_f32_to_e8m0(HUGE_VALF, KILN_ROUND_NEAREST, false), 0xFF);
    assert_int_equal(kiln_f32_to_e8m0(0x1p-149f, KILN_ROUND_UP, true), 0);
    assert_int_equal(kiln_f32_to_e8m0(kiln_f32_from_bits(0x7FC00000), KILN_ROUND_UP, true), 0xFF);
    assert_true(isnan(kiln_e8m0_to_f32(0xFF)));
}

/* Values just beside a tie of the narrow format, too close for a float to tell apart. */
static void test_from_double_rounds_once(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 0x7BFF; code++) {
        const format *f = &formats[0];
        double middle = (value_of(f, code) + value_of(f, code + 1)) / 2;
        assert_int_equal(kiln_f64_to_f16(nextafter(middle, 0)), code);
        assert_int_equal(kiln_f64_to_f16(nextafter(middle, HUGE_VAL)), code + 1);
        assert_int_equal(kiln_f64_to_f16(-middle), 0x8000 | (code % 2 ? code + 1 : code));
    }
    for (uint32_t code = 0; code < 0x7F7F; code++) {
        const format *f = &formats[1];
        double middle = (value_of(f, code) + value_of(f, code + 1)) / 2;
        assert_int_equal(kiln_f64_to_bf16(nextafter(middle, 0)), code);
        assert_int_equal(kiln_f64_to_bf16(nextafter(middle, HUGE_VAL)), code + 1);
    }
    assert_int_equal(kiln_f64_to_f16(1e300), 0x7C00);
    assert_int_equal(kiln_f64_to_f16(-HUGE_VAL), 0xFC00);
    assert_int_equal(kiln_f64_to_bf16(1e-300), 0);
    assert_true(isnan(kiln_f64_to_f32_odd((double)NAN)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_and_tie),
        cmocka_unit_test(test_nearest_everywhere),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_e8m0),
        cmocka_unit_test(test_from_double_rounds_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
