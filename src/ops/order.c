#include "ops/order.h"

#include <math.h>
#include <string.h>

static void merge(const int64_t *src, int64_t *dst, int64_t lo, int64_t mid, int64_t hi,
                  kiln_order_fn *compare, const void *user) {
    int64_t a = lo, b = mid;
    for (int64_t i = lo; i < hi; i++) {
        bool left = a < mid && (b >= hi || compare(user, src[a], src[b]) <= 0);
        dst[i] = left ? src[a++] : src[b++];
    }
}

void kiln_order_sort(int64_t *items, int64_t *scratch, int64_t n, kiln_order_fn *compare,
                     const void *user) {
    int64_t *src = items, *dst = scratch;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * width) {
            int64_t mid = lo + width < n ? lo + width : n, hi = mid + width < n ? mid + width : n;
            merge(src, dst, lo, mid, hi, compare, user);
        }
        int64_t *t = src;
        src = dst;
        dst = t;
    }
    if (src != items && n > 0) {
        memcpy(items, src, (size_t)n * sizeof *items);
    }
}

int kiln_order_elements(const kiln_tensor *t, int64_t a, int64_t b) {
    if (t->dtype == KILN_DTYPE_STRING) {
        const char *const *s = t->data;
        return strcmp(s[a] ? s[a] : "", s[b] ? s[b] : "");
    }
    if (kiln_dtype_is_float(t->dtype)) {
        double x = kiln_get_f64(t->dtype, t->data, a), y = kiln_get_f64(t->dtype, t->data, b);
        if (isnan(x) || isnan(y)) {
            return (isnan(x) != 0) - (isnan(y) != 0);
        }
        return (x > y) - (x < y);
    }
    int64_t x = kiln_get_i64(t->dtype, t->data, a), y = kiln_get_i64(t->dtype, t->data, b);
    if (t->dtype == KILN_DTYPE_U64) {
        return ((uint64_t)x > (uint64_t)y) - ((uint64_t)x < (uint64_t)y);
    }
    return (x > y) - (x < y);
}
