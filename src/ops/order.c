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

/* The bits of a double in the order of its values: negative ones are flipped. */
static int64_t float_key(double v) {
    int64_t bits;
    if (isnan(v)) {
        return INT64_MAX;
    }
    v = v == 0 ? 0 : v; /* the two zeros are equal */
    memcpy(&bits, &v, sizeof bits);
    return bits < 0 ? bits ^ INT64_MAX : bits;
}

void kiln_order_keys(const kiln_tensor *t, int64_t at, int64_t stride, int64_t n, bool descending,
                     int64_t *keys) {
    const float *f = t->dtype == KILN_DTYPE_F32 ? t->data : NULL;
    bool is_float = kiln_dtype_is_float(t->dtype);
    for (int64_t i = 0; i < n; i++, at += stride) {
        if (f) {
            keys[i] = float_key((double)f[at]);
        } else if (is_float) {
            keys[i] = float_key(kiln_get_f64(t->dtype, t->data, at));
        } else {
            int64_t v = kiln_get_i64(t->dtype, t->data, at);
            keys[i] = t->dtype == KILN_DTYPE_U64 ? v ^ INT64_MIN : v;
        }
        keys[i] = descending ? ~keys[i] : keys[i];
    }
}

/* Item a comes after item b. */
static bool after(const int64_t *keys, int64_t a, int64_t b) {
    return keys[a] != keys[b] ? keys[a] > keys[b] : a > b;
}

/* Lets heap[i] sink among n items, of which the last one stands at the top. */
static void sink(const int64_t *keys, int64_t *heap, int64_t n, int64_t i) {
    int64_t item = heap[i];
    for (int64_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && after(keys, heap[child + 1], heap[child])) {
            child++;
        }
        if (!after(keys, heap[child], item)) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = item;
}

void kiln_order_first(const int64_t *keys, int64_t n, int64_t k, int64_t *items) {
    for (int64_t i = 0; i < k; i++) {
        items[i] = i;
    }
    for (int64_t i = k / 2 - 1; i >= 0; i--) {
        sink(keys, items, k, i);
    }
    for (int64_t i = k; i < n && k > 0; i++) {
        if (after(keys, items[0], i)) {
            items[0] = i;
            sink(keys, items, k, 0);
        }
    }
    for (int64_t last = k - 1; last > 0; last--) {
        int64_t item = items[last];
        items[last] = items[0];
        items[0] = item;
        sink(keys, items, last, 0);
    }
}
