#include "ir/text_const.h"

#include <string.h>

#include "base/half.h"

/* ---- One element ---- */

typedef struct integer {
    kiln_dtype dtype;
    uint8_t bytes;
    bool is_signed;
} integer;

static const integer integers[] = {
    {KILN_DTYPE_BOOL, 1, false}, {KILN_DTYPE_U8, 1, false},  {KILN_DTYPE_I8, 1, true},
    {KILN_DTYPE_U16, 2, false},  {KILN_DTYPE_I16, 2, true},  {KILN_DTYPE_U32, 4, false},
    {KILN_DTYPE_I32, 4, true},   {KILN_DTYPE_U64, 8, false}, {KILN_DTYPE_I64, 8, true},
};

static const integer *find_integer(kiln_dtype dtype) {
    for (size_t i = 0; i < KILN_COUNT_OF(integers); i++) {
        if (integers[i].dtype == dtype) {
            return &integers[i];
        }
    }
    return NULL;
}

static bool is_real(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_F32 || dtype == KILN_DTYPE_F64 || dtype == KILN_DTYPE_F16 ||
           dtype == KILN_DTYPE_BF16;
}

bool kiln_text_shows(kiln_dtype dtype) {
    return is_real(dtype) || find_integer(dtype);
}

static int64_t get_integer(const integer *k, const void *data, int64_t i) {
    uint64_t bits = 0;
    for (int b = k->bytes - 1; b >= 0; b--) {
        bits = bits << 8 | ((const uint8_t *)data)[(size_t)i * k->bytes + (size_t)b];
    }
    int shift = 64 - 8 * k->bytes;
    return k->is_signed ? (int64_t)(bits << shift) >> shift : (int64_t)bits;
}

static void set_integer(const integer *k, void *data, int64_t i, int64_t v) {
    for (int b = 0; b < k->bytes; b++) {
        ((uint8_t *)data)[(size_t)i * k->bytes + (size_t)b] = (uint8_t)((uint64_t)v >> (8 * b));
    }
}

static void set_real(kiln_dtype dtype, void *data, int64_t i, double v) {
    float f = (float)v;
    if (dtype == KILN_DTYPE_F64) {
        memcpy((double *)data + i, &v, sizeof v);
    } else if (dtype == KILN_DTYPE_F32) {
        memcpy((float *)data + i, &f, sizeof f);
    } else {
        uint16_t h = dtype == KILN_DTYPE_F16 ? kiln_f32_to_f16(f) : kiln_f32_to_bf16(f);
        memcpy((uint16_t *)data + i, &h, sizeof h);
    }
}

void kiln_text_element(kiln_text *text, const kiln_tensor *t, int64_t i) {
    const integer *k = find_integer(t->dtype);
    if (k) {
        int64_t v = get_integer(k, t->data, i);
        kiln_text_printf(text, t->dtype == KILN_DTYPE_U64 ? "%llu" : "%lld", (unsigned long long)v);
    } else if (t->dtype == KILN_DTYPE_F64) {
        kiln_text_double(text, ((const double *)t->data)[i]);
    } else if (t->dtype == KILN_DTYPE_F32) {
        kiln_text_float(text, ((const float *)t->data)[i]);
    } else {
        uint16_t h = ((const uint16_t *)t->data)[i];
        kiln_text_float(text,
                        t->dtype == KILN_DTYPE_F16 ? kiln_f16_to_f32(h) : kiln_bf16_to_f32(h));
    }
}

bool kiln_text_read_element(kiln_tensor *t, int64_t i, const char *src, size_t len) {
    const integer *k = find_integer(t->dtype);
    double v;
    int64_t n;
    if (k) {
        if (!kiln_parse_i64(src, len, &n)) {
            return false;
        }
        set_integer(k, t->data, i, n);
        return get_integer(k, t->data, i) == n;
    }
    if (!is_real(t->dtype) || !kiln_parse_double(src, len, &v)) {
        return false;
    }
    set_real(t->dtype, t->data, i, v);
    return true;
}

/* ---- rand(seed) ---- */

static uint64_t draw(uint32_t seed, int64_t i) {
    /* SplitMix64 (Steele, Lea, Flood 2014). */
    uint64_t z = (uint64_t)seed * UINT64_C(0xD1342543DE82EF95) +
                 ((uint64_t)i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void fill_one(kiln_tensor *t, uint32_t seed, int64_t i, int64_t at) {
    const integer *k = find_integer(t->dtype);
    uint64_t r = draw(seed, i);
    if (k) {
        set_integer(k, t->data, at, (int64_t)(t->dtype == KILN_DTYPE_BOOL ? r & 1 : r & 7));
    } else {
        set_real(t->dtype, t->data, at, (double)(r >> 44) / (double)(1 << 19) - 1.0);
    }
}

void kiln_text_fill(kiln_tensor *t, uint32_t seed) {
    int64_t n = kiln_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        fill_one(t, seed, i, i);
    }
}

int32_t kiln_text_find_seed(const kiln_tensor *t) {
    int64_t n = kiln_tensor_count(t);
    uint64_t one;
    kiln_tensor probe = {.dtype = t->dtype, .data = &one};
    size_t size = (size_t)kiln_dtype_bits(t->dtype) / 8;
    for (uint32_t seed = 0; seed < 256; seed++) {
        int64_t i = 0;
        for (; i < n; i++) {
            fill_one(&probe, seed, i, 0);
            if (memcmp(&one, (const char *)t->data + (size_t)i * size, size) != 0) {
                break;
            }
        }
        if (i == n) {
            return (int32_t)seed;
        }
    }
    return -1;
}
