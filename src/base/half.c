#include "base/half.h"

typedef struct f8_format {
    int mantissa_bits;
    int bias;
    uint8_t max; /* code of the largest finite magnitude */
    uint8_t
        inf; /* what overflow becomes without saturation: infinity, or NaN where there is none */
    uint8_t nan;
    bool unsigned_zero; /* 0x80 is NaN, zero and NaN have no sign */
} f8_format;

static const f8_format *format_of(kiln_dtype dtype) {
    static const f8_format formats[] = {
        [KILN_DTYPE_F8E4M3FN - KILN_DTYPE_F8E4M3FN] = {3, 7, 0x7E, 0x7F, 0x7F, false},
        [KILN_DTYPE_F8E4M3FNUZ - KILN_DTYPE_F8E4M3FN] = {3, 8, 0x7F, 0x80, 0x80, true},
        [KILN_DTYPE_F8E5M2 - KILN_DTYPE_F8E4M3FN] = {2, 15, 0x7B, 0x7C, 0x7E, false},
        [KILN_DTYPE_F8E5M2FNUZ - KILN_DTYPE_F8E4M3FN] = {2, 16, 0x7F, 0x80, 0x80, true},
    };
    return &formats[dtype - KILN_DTYPE_F8E4M3FN];
}

float kiln_f64_to_f32_odd(double x) {
    uint64_t wide;
    memcpy(&wide, &x, sizeof wide);
    wide &= UINT64_MAX >> 1;
    if (wide > (uint64_t)0x7FF << 52) {
        return (float)x;
    }
    float near = (float)x;
    double back = near;
    uint64_t back_bits;
    memcpy(&back_bits, &back, sizeof back_bits);
    back_bits &= UINT64_MAX >> 1;
    uint32_t bits = kiln_f32_bits(near);
    if (back_bits > wide) {
        bits--; /* magnitudes order as their bits do: step back towards zero */
    }
    return kiln_f32_from_bits(back_bits != wide ? bits | 1 : bits);
}

uint16_t kiln_f64_to_f16(double x) {
    return kiln_f32_to_f16(kiln_f64_to_f32_odd(x));
}

uint16_t kiln_f64_to_bf16(double x) {
    return kiln_f32_to_bf16(kiln_f64_to_f32_odd(x));
}

uint8_t kiln_f32_to_f8(kiln_dtype dtype, float x, bool saturate) {
    const f8_format *f = format_of(dtype);
    uint32_t bits = kiln_f32_bits(x), abs = bits & 0x7FFFFFFF, sign = bits >> 24 & 0x80;
    uint32_t code;
    if (abs > 0x7F800000) {
        code = f->nan;
    } else if (abs == 0x7F800000) {
        code = saturate ? f->max : f->inf;
    } else {
        code = kiln_narrow_code(abs, f->mantissa_bits, f->bias);
        if (code > f->max) {
            code = saturate ? f->max : f->inf;
        }
    }
    if (f->unsigned_zero && (code == 0 || code == f->nan)) {
        return (uint8_t)code;
    }
    return (uint8_t)(sign | code);
}

float kiln_f8_to_f32(kiln_dtype dtype, uint8_t code) {
    const f8_format *f = format_of(dtype);
    uint32_t sign = (uint32_t)(code & 0x80) << 24, abs = code & 0x7Fu;
    if (f->unsigned_zero && code == f->nan) {
        return kiln_f32_from_bits(0x7FC00000);
    }
    if (abs > f->max) {
        bool infinite = abs == f->inf && f->inf != f->nan;
        return kiln_f32_from_bits(sign | (infinite ? 0x7F800000 : 0x7FC00000));
    }
    return kiln_f32_from_bits(sign |
                              kiln_f32_bits(kiln_widen_code(abs, f->mantissa_bits, f->bias)));
}

uint8_t kiln_f32_to_f4(float x) {
    uint32_t bits = kiln_f32_bits(x), abs = bits & 0x7FFFFFFF, sign = bits >> 28 & 8;
    if (abs > 0x7F800000) {
        return (uint8_t)(sign ^ 8);
    }
    uint32_t code = kiln_narrow_code(abs, 1, 1);
    return (uint8_t)(sign | (code > 7 ? 7 : code));
}

float kiln_f4_to_f32(uint8_t code) {
    uint32_t sign = (uint32_t)(code & 8) << 28;
    return kiln_f32_from_bits(sign | kiln_f32_bits(kiln_widen_code(code & 7, 1, 1)));
}

uint8_t kiln_f32_to_e8m0(float x, kiln_round_mode mode, bool saturate) {
    uint32_t abs = kiln_f32_bits(x) & 0x7FFFFFFF;
    if (abs > 0x7F800000) {
        return 0xFF;
    }
    if (abs < 0x00400000) { /* 2^-127 as a subnormal float */
        return saturate ? 0 : 0xFF;
    }
    /* Field 0 stands for 2^-127 here, which leaves one fraction bit less. */
    uint32_t field = abs >> 23;
    uint32_t fraction = field ? abs & 0x7FFFFF : (abs & 0x3FFFFF) << 1;
    bool up =
        (mode == KILN_ROUND_UP && fraction) || (mode == KILN_ROUND_NEAREST && fraction >= 0x400000);
    field += up;
    return (uint8_t)(field < 0xFF ? field : saturate ? 0xFE : 0xFF);
}

float kiln_e8m0_to_f32(uint8_t code) {
    if (code == 0xFF) {
        return kiln_f32_from_bits(0x7FC00000);
    }
    return kiln_f32_from_bits(code ? (uint32_t)code << 23 : 0x00400000);
}
