/* The public tables that belong to no object: statuses, element types, tensor sizes, the
 * version. */
#include "base/checked.h"

#include <string.h>
#include <strings.h>

#ifndef KILN_VERSION
#define KILN_VERSION "0.1.0"
#endif

const char *kiln_version(void) {
    return KILN_VERSION;
}

/* Indexed by -status. Memory is a limit of the machine and shares the exit status of limits. */
static const struct {
    const char *name;
    int exit_code;
} statuses[] = {
    [-KILN_OK] = {"ok", 0},
    [-KILN_E_CHECK] = {"check failed", 1},
    [-KILN_E_USAGE] = {"wrong usage", 2},
    [-KILN_E_MALFORMED] = {"malformed input", 3},
    [-KILN_E_UNSUPPORTED] = {"unsupported", 4},
    [-KILN_E_BACKEND] = {"backend not available", 5},
    [-KILN_E_LIMIT] = {"limit reached", 6},
    [-KILN_E_IO] = {"input or output failed", 7},
    [-KILN_E_ENGINE] = {"engine damaged or foreign", 8},
    [-KILN_E_DELEGATE] = {"delegate failed", 9},
    [-KILN_E_MEMORY] = {"out of memory", 6},
    [-KILN_E_CANCELLED] = {"cancelled", 130},
    [-KILN_E_INTERNAL] = {"internal error", 70},
};

/* -1 for a number that is no status. */
static int status_index(kiln_status status) {
    int value = (int)status;
    return value <= 0 && value > -(int)KILN_COUNT_OF(statuses) ? -value : -1;
}

const char *kiln_status_name(kiln_status status) {
    int i = status_index(status);
    return i < 0 ? "unknown status" : statuses[i].name;
}

int kiln_status_exit_code(kiln_status status) {
    int i = status_index(status);
    return i < 0 ? 70 : statuses[i].exit_code;
}

static const struct {
    const char *name;
    int bits;
    const char *aliases; /* separated by one blank */
} dtypes[KILN_DTYPE_COUNT] = {
    [KILN_DTYPE_NONE] = {"none", 0, ""},
    [KILN_DTYPE_F32] = {"float32", 32, "fp32 f32 float"},
    [KILN_DTYPE_U8] = {"uint8", 8, "u8"},
    [KILN_DTYPE_I8] = {"int8", 8, "i8 s8"},
    [KILN_DTYPE_U16] = {"uint16", 16, "u16"},
    [KILN_DTYPE_I16] = {"int16", 16, "i16 s16"},
    [KILN_DTYPE_I32] = {"int32", 32, "i32 s32 int"},
    [KILN_DTYPE_I64] = {"int64", 64, "i64 s64 long"},
    [KILN_DTYPE_STRING] = {"string", 0, "str"},
    [KILN_DTYPE_BOOL] = {"bool", 8, "boolean"},
    [KILN_DTYPE_F16] = {"float16", 16, "fp16 f16 half"},
    [KILN_DTYPE_F64] = {"float64", 64, "fp64 f64 double"},
    [KILN_DTYPE_U32] = {"uint32", 32, "u32"},
    [KILN_DTYPE_U64] = {"uint64", 64, "u64"},
    [KILN_DTYPE_C64] = {"complex64", 64, "c64"},
    [KILN_DTYPE_C128] = {"complex128", 128, "c128"},
    [KILN_DTYPE_BF16] = {"bfloat16", 16, "bf16"},
    [KILN_DTYPE_F8E4M3FN] = {"float8e4m3fn", 8, "float8_e4m3fn f8e4m3fn fp8"},
    [KILN_DTYPE_F8E4M3FNUZ] = {"float8e4m3fnuz", 8, "float8_e4m3fnuz f8e4m3fnuz"},
    [KILN_DTYPE_F8E5M2] = {"float8e5m2", 8, "float8_e5m2 f8e5m2"},
    [KILN_DTYPE_F8E5M2FNUZ] = {"float8e5m2fnuz", 8, "float8_e5m2fnuz f8e5m2fnuz"},
    [KILN_DTYPE_U4] = {"uint4", 4, "u4"},
    [KILN_DTYPE_I4] = {"int4", 4, "i4 s4"},
    [KILN_DTYPE_F4E2M1] = {"float4e2m1", 4, "float4_e2m1fn float4e2m1fn f4e2m1 fp4"},
    [KILN_DTYPE_F8E8M0] = {"float8e8m0", 8, "float8_e8m0fnu float8e8m0fnu f8e8m0"},
    [KILN_DTYPE_U2] = {"uint2", 2, "u2"},
    [KILN_DTYPE_I2] = {"int2", 2, "i2 s2"},
};

static bool is_dtype(kiln_dtype dtype) {
    return (int)dtype >= 0 && (int)dtype < KILN_DTYPE_COUNT;
}

const char *kiln_dtype_name(kiln_dtype dtype) {
    return is_dtype(dtype) ? dtypes[dtype].name : "?";
}

int kiln_dtype_bits(kiln_dtype dtype) {
    return is_dtype(dtype) ? dtypes[dtype].bits : 0;
}

static bool in_list(const char *list, const char *word) {
    size_t len = strlen(word);
    while (*list) {
        size_t item = strcspn(list, " ");
        if (item == len && strncasecmp(list, word, len) == 0) {
            return true;
        }
        list += item + (list[item] == ' ');
    }
    return false;
}

kiln_dtype kiln_dtype_parse(const char *name) {
    for (int i = KILN_DTYPE_NONE + 1; name && i < KILN_DTYPE_COUNT; i++) {
        if (in_list(dtypes[i].name, name) || in_list(dtypes[i].aliases, name)) {
            return (kiln_dtype)i;
        }
    }
    return KILN_DTYPE_NONE;
}

int64_t kiln_tensor_count(const kiln_tensor *t) {
    int64_t count;
    bool fits =
        t->rank >= 0 && t->rank <= KILN_MAX_RANK && kiln_dims_count(t->dims, t->rank, &count);
    return fits ? count : -1;
}

size_t kiln_tensor_bytes(const kiln_tensor *t) {
    size_t bytes;
    return kiln_dtype_bytes(t->dtype, kiln_tensor_count(t), &bytes) ? bytes : SIZE_MAX;
}
