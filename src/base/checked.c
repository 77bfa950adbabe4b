#include "base/checked.h"

bool kiln_dims_count(const int64_t *dims, int32_t rank, int64_t *out) {
    bool zero = false;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] < 0) {
            return false;
        }
        zero = zero || dims[i] == 0;
    }
    int64_t count = zero ? 0 : 1;
    for (int32_t i = 0; i < rank && !zero; i++) {
        if (!kiln_mul_i64(count, dims[i], &count)) {
            return false;
        }
    }
    *out = count;
    return true;
}

bool kiln_dtype_bytes(kiln_dtype dtype, int64_t count, size_t *out) {
    if (count < 0) {
        return false;
    }
    if (dtype == KILN_DTYPE_STRING) {
        return kiln_mul_size((size_t)count, sizeof(char *), out);
    }
    size_t bits = (size_t)kiln_dtype_bits(dtype);
    if (bits == 0) {
        return false;
    }
    if (bits >= 8) {
        return kiln_mul_size((size_t)count, bits / 8, out);
    }
    size_t per_byte = 8 / bits;
    *out = (size_t)count / per_byte + ((size_t)count % per_byte != 0);
    return true;
}
