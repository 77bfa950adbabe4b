/* checked.h - size arithmetic that cannot wrap.
 *
 * Every size that comes from a file or from tensor dims goes through these. Each returns true and
 * writes *out when the exact result fits, false otherwise. */
#ifndef KILN_BASE_CHECKED_H
#define KILN_BASE_CHECKED_H

#include "base/compiler.h"

static inline bool kiln_mul_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool kiln_add_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline bool kiln_sub_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_sub_overflow(a, b, out);
}
static inline bool kiln_mul_size(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool kiln_add_size(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

/* Product of n non-negative dims; false when one is negative or the product overflows. A zero dim
 * makes the product 0 whatever the others are. */
bool kiln_dims_count(const int64_t *dims, int32_t rank, int64_t *out);
/* Bytes of `count` elements of dtype, sub-byte types rounded up; strings count as pointers. */
bool kiln_dtype_bytes(kiln_dtype dtype, int64_t count, size_t *out);

/* bytes rounded up to a multiple of align (a power of two); false on overflow. */
static inline bool kiln_align_size(size_t bytes, size_t align, size_t *out) {
    size_t sum;
    if (!kiln_add_size(bytes, align - 1, &sum)) {
        return false;
    }
    *out = sum & ~(align - 1);
    return true;
}

#endif
