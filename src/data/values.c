/* values.c - elements of any numeric type as doubles (values.h). */
#include "data/values.h"

#include <string.h>

#include "base/half.h"

typedef void (*loader)(double *dst, const void *data, int64_t first, int64_t count);

/* One loader for each type: `expr` turns src[i] into a number. */
#define LOADER(name, type, expr)                                                       \
    static void load_##name(double *dst, const void *data, int64_t first, int64_t n) { \
        const type *src = (const type *)data + first;                                  \
        for (int64_t i = 0; i < n; ++i) {                                              \
            dst[i] = (double)(expr);                                                   \
        }                                                                              \
    }

/* Packed types: element k is `bits` bits wide, first in the low bits; `expr` sees its code `c`. */
#define PACKED_LOADER(name, bits, expr)                                                \
    static void load_##name(double *dst, const void *data, int64_t first, int64_t n) { \
        const uint8_t *src = data;                                                     \
        for (int64_t i = 0; i < n; ++i) {                                              \
            uint64_t bit = (uint64_t)(first + i) * (bits);                             \
            uint8_t c = (uint8_t)(src[bit / 8] >> (bit % 8) & ((1u << (bits)) - 1));   \
            dst[i] = (double)(expr);                                                   \
        }                                                                              \
    }

LOADER(f32, float, src[i])
LOADER(f64, double, src[i])
LOADER(u8, uint8_t, src[i])
LOADER(i8, int8_t, src[i])
LOADER(u16, uint16_t, src[i])
LOADER(i16, int16_t, src[i])
LOADER(u32, uint32_t, src[i])
LOADER(i32, int32_t, src[i])
LOADER(u64, uint64_t, src[i])
LOADER(i64, int64_t, src[i])
LOADER(bool, uint8_t, src[i] != 0)
LOADER(f16, uint16_t, kiln_f16_to_f32(src[i]))
LOADER(bf16, uint16_t, kiln_bf16_to_f32(src[i]))
LOADER(f8e4m3fn, uint8_t, kiln_f8_to_f32(KILN_DTYPE_F8E4M3FN, src[i]))
LOADER(f8e4m3fnuz, uint8_t, kiln_f8_to_f32(KILN_DTYPE_F8E4M3FNUZ, src[i]))
LOADER(f8e5m2, uint8_t, kiln_f8_to_f32(KILN_DTYPE_F8E5M2, src[i]))
LOADER(f8e5m2fnuz, uint8_t, kiln_f8_to_f32(KILN_DTYPE_F8E5M2FNUZ, src[i]))
LOADER(f8e8m0, uint8_t, kiln_e8m0_to_f32(src[i]))
PACKED_LOADER(u4, 4, c)
PACKED_LOADER(i4, 4, c < 8 ? (int)c : (int)c - 16)
PACKED_LOADER(u2, 2, c)
PACKED_LOADER(i2, 2, c < 2 ? (int)c : (int)c - 4)
PACKED_LOADER(f4e2m1, 4, kiln_f4_to_f32(c))

static const struct {
    loader load;
    int32_t per_element;
} types[KILN_DTYPE_COUNT] = {
    [KILN_DTYPE_F32] = {load_f32, 1},
    [KILN_DTYPE_F64] = {load_f64, 1},
    [KILN_DTYPE_U8] = {load_u8, 1},
    [KILN_DTYPE_I8] = {load_i8, 1},
    [KILN_DTYPE_U16] = {load_u16, 1},
    [KILN_DTYPE_I16] = {load_i16, 1},
    [KILN_DTYPE_U32] = {load_u32, 1},
    [KILN_DTYPE_I32] = {load_i32, 1},
    [KILN_DTYPE_U64] = {load_u64, 1},
    [KILN_DTYPE_I64] = {load_i64, 1},
    [KILN_DTYPE_BOOL] = {load_bool, 1},
    [KILN_DTYPE_F16] = {load_f16, 1},
    [KILN_DTYPE_BF16] = {load_bf16, 1},
    [KILN_DTYPE_C64] = {load_f32, 2},
    [KILN_DTYPE_C128] = {load_f64, 2},
    [KILN_DTYPE_F8E4M3FN] = {load_f8e4m3fn, 1},
    [KILN_DTYPE_F8E4M3FNUZ] = {load_f8e4m3fnuz, 1},
    [KILN_DTYPE_F8E5M2] = {load_f8e5m2, 1},
    [KILN_DTYPE_F8E5M2FNUZ] = {load_f8e5m2fnuz, 1},
    [KILN_DTYPE_F8E8M0] = {load_f8e8m0, 1},
    [KILN_DTYPE_U4] = {load_u4, 1},
    [KILN_DTYPE_I4] = {load_i4, 1},
    [KILN_DTYPE_U2] = {load_u2, 1},
    [KILN_DTYPE_I2] = {load_i2, 1},
    [KILN_DTYPE_F4E2M1] = {load_f4e2m1, 1},
};

int32_t kiln_values_per_element(kiln_dtype dtype) {
    return (uint32_t)dtype < KILN_DTYPE_COUNT ? types[dtype].per_element : 0;
}

void kiln_values_load(double *dst, const kiln_tensor *src, int64_t first, int64_t count) {
    if (count > 0) {
        types[src->dtype].load(dst, src->data, first, count);
    }
}

double kiln_value_at(const kiln_tensor *src, int64_t index) {
    double value;
    types[src->dtype].load(&value, src->data, index, 1);
    return value;
}
