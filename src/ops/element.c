/* element.c - one element of any numeric type, as double or int64. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "ops/util.h"

size_t kiln_dtype_size(kiln_dtype dtype) {
    return (size_t)kiln_dtype_bits(dtype) / 8;
}

bool kiln_dtype_is_signed_int(kiln_dtype dtype) {
    const uint32_t set = KILN_T_SINT | KILN_T(I4) | KILN_T(I2);
    return set >> dtype & 1;
}

bool kiln_dtype_is_int(kiln_dtype dtype) {
    const uint32_t set = KILN_T_UINT | KILN_T(U4) | KILN_T(U2);
    return kiln_dtype_is_signed_int(dtype) || (set >> dtype & 1);
}

bool kiln_dtype_is_float(kiln_dtype dtype) {
    const uint32_t set = KILN_T_FLOAT | KILN_T(F8E4M3FN) | KILN_T(F8E4M3FNUZ) | KILN_T(F8E5M2) |
                         KILN_T(F8E5M2FNUZ) | KILN_T(F4E2M1) | KILN_T(F8E8M0);
    return set >> dtype & 1;
}

/* Element i of an array of `bits`-wide codes (2 or 4), the first in the low bits. */
static uint8_t get_packed(const void *data, int64_t i, int bits) {
    int per_byte = 8 / bits;
    uint8_t byte = ((const uint8_t *)data)[i / per_byte];
    return (uint8_t)(byte >> (i % per_byte * bits) & ((1 << bits) - 1));
}

static void set_packed(void *data, int64_t i, int bits, uint8_t code) {
    int per_byte = 8 / bits;
    int shift = (int)(i % per_byte) * bits;
    int mask = ((1 << bits) - 1) << shift;
    uint8_t *byte = (uint8_t *)data + i / per_byte;
    *byte = (uint8_t)((*byte & ~mask) | (code << shift & mask));
}

/* Integer element types with a C type of their own. */
#define INT_TYPES(X) \
    X(BOOL, uint8_t) \
    X(U8, uint8_t)   \
    X(I8, int8_t)    \
    X(U16, uint16_t) \
    X(I16, int16_t)  \
    X(U32, uint32_t) \
    X(I32, int32_t)  \
    X(U64, uint64_t) \
    X(I64, int64_t)

int64_t kiln_get_i64(kiln_dtype dtype, const void *data, int64_t i) {
    switch (dtype) {
#define X(name, type)       \
    case KILN_DTYPE_##name: \
        return (int64_t)((const type *)data)[i];
        INT_TYPES(X)
#undef X
    case KILN_DTYPE_U4:
        return get_packed(data, i, 4);
    case KILN_DTYPE_I4:
        return (int64_t)(get_packed(data, i, 4) ^ 8) - 8;
    case KILN_DTYPE_U2:
        return get_packed(data, i, 2);
    case KILN_DTYPE_I2:
        return (int64_t)(get_packed(data, i, 2) ^ 2) - 2;
    default: {
        /* A float: toward zero, saturated, NaN to 0. */
        if (!kiln_dtype_is_float(dtype)) {
            return 0;
        }
        double d = kiln_get_f64(dtype, data, i);
        if (!(d > -9.3e18)) {
            return d < 0 ? INT64_MIN : 0;
        }
        return d >= 9223372036854775807.0    ? INT64_MAX
               : d <= -9223372036854775808.0 ? INT64_MIN
                                             : (int64_t)d;
    }
    }
}

void kiln_set_i64(kiln_dtype dtype, void *data, int64_t i, int64_t v) {
    switch (dtype) {
    case KILN_DTYPE_BOOL:
        ((uint8_t *)data)[i] = v != 0;
        return;
#define X(name, type)                \
    case KILN_DTYPE_##name:          \
        ((type *)data)[i] = (type)v; \
        return;
        X(U8, uint8_t)
        X(I8, int8_t)
        X(U16, uint16_t)
        X(I16, int16_t)
        X(U32, uint32_t)
        X(I32, int32_t)
        X(U64, uint64_t)
        X(I64, int64_t)
#undef X
    case KILN_DTYPE_U4:
    case KILN_DTYPE_I4:
        set_packed(data, i, 4, (uint8_t)(v & 15));
        return;
    case KILN_DTYPE_U2:
    case KILN_DTYPE_I2:
        set_packed(data, i, 2, (uint8_t)(v & 3));
        return;
    default:
        if (kiln_dtype_is_float(dtype)) {
            kiln_set_f64(dtype, data, i, (double)v);
        }
    }
}

double kiln_get_f64(kiln_dtype dtype, const void *data, int64_t i) {
    const uint8_t *bytes = data;
    switch (dtype) {
    case KILN_DTYPE_F32:
        return (double)((const float *)data)[i];
    case KILN_DTYPE_F64:
        return ((const double *)data)[i];
    case KILN_DTYPE_F16:
        return (double)kiln_f16_to_f32(((const uint16_t *)data)[i]);
    case KILN_DTYPE_BF16:
        return (double)kiln_bf16_to_f32(((const uint16_t *)data)[i]);
    case KILN_DTYPE_F8E4M3FN:
    case KILN_DTYPE_F8E4M3FNUZ:
    case KILN_DTYPE_F8E5M2:
    case KILN_DTYPE_F8E5M2FNUZ:
        return (double)kiln_f8_to_f32(dtype, bytes[i]);
    case KILN_DTYPE_F8E8M0:
        return (double)kiln_e8m0_to_f32(bytes[i]);
    case KILN_DTYPE_F4E2M1:
        return (double)kiln_f4_to_f32(get_packed(data, i, 4));
    case KILN_DTYPE_U64:
        return (double)((const uint64_t *)data)[i];
    case KILN_DTYPE_NONE:
    case KILN_DTYPE_STRING:
    case KILN_DTYPE_C64:
    case KILN_DTYPE_C128:
        return 0;
    default:
        return (double)kiln_get_i64(dtype, data, i);
    }
}

void kiln_set_f64(kiln_dtype dtype, void *data, int64_t i, double v) {
    uint8_t *bytes = data;
    switch (dtype) {
    case KILN_DTYPE_F32:
        ((float *)data)[i] = (float)v;
        return;
    case KILN_DTYPE_F64:
        ((double *)data)[i] = v;
        return;
    case KILN_DTYPE_F16:
        ((uint16_t *)data)[i] = kiln_f64_to_f16(v);
        return;
    case KILN_DTYPE_BF16:
        ((uint16_t *)data)[i] = kiln_f64_to_bf16(v);
        return;
    case KILN_DTYPE_F8E4M3FN:
    case KILN_DTYPE_F8E4M3FNUZ:
    case KILN_DTYPE_F8E5M2:
    case KILN_DTYPE_F8E5M2FNUZ:
        bytes[i] = kiln_f32_to_f8(dtype, kiln_f64_to_f32_odd(v), true);
        return;
    case KILN_DTYPE_F8E8M0:
        bytes[i] = kiln_f32_to_e8m0((float)v, KILN_ROUND_NEAREST, true);
        return;
    case KILN_DTYPE_F4E2M1:
        set_packed(data, i, 4, kiln_f32_to_f4(kiln_f64_to_f32_odd(v)));
        return;
    case KILN_DTYPE_BOOL:
        bytes[i] = v != 0;
        return;
    case KILN_DTYPE_U64:
        ((uint64_t *)data)[i] = v >= 9223372036854775808.0 && v < 18446744073709551616.0
                                    ? (uint64_t)(v - 9223372036854775808.0) + (UINT64_C(1) << 63)
                                    : (uint64_t)kiln_get_i64(KILN_DTYPE_F64, &v, 0);
        return;
    case KILN_DTYPE_NONE:
    case KILN_DTYPE_STRING:
    case KILN_DTYPE_C64:
    case KILN_DTYPE_C128:
        return;
    default:
        kiln_set_i64(dtype, data, i, kiln_get_i64(KILN_DTYPE_F64, &v, 0));
    }
}

void kiln_copy_elements(kiln_dtype dtype, void *dst, int64_t di, const void *src, int64_t si,
                        int64_t n) {
    int bits = kiln_dtype_bits(dtype);
    if (dtype == KILN_DTYPE_STRING) {
        bits = 8 * (int)sizeof(char *);
    }
    if (bits >= 8) {
        size_t size = (size_t)bits / 8;
        memcpy((char *)dst + (size_t)di * size, (const char *)src + (size_t)si * size,
               (size_t)n * size);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        set_packed(dst, di + i, bits, get_packed(src, si + i, bits));
    }
}
