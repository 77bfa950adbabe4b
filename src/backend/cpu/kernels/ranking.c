#include "backend/cpu/kernels/ranking.h"

#include <string.h>

enum {
    DIGIT = 8, /* bits a pass of the sort looks at */
    FEW = 24,  /* pairs that insertion sorts sooner */
    TOP = 11,  /* the first k are told from the rest by 2^TOP parts of the range */
};

size_t kiln_ranking_bytes(int64_t n) {
    return 4 * (((size_t)n * sizeof(uint32_t) + 63) & ~(size_t)63);
}

kiln_ranking kiln_ranking_at(void *memory, int64_t n) {
    size_t part = kiln_ranking_bytes(n) / 4;
    char *at = memory;
    return (kiln_ranking){.keys = (void *)at,
                          .items = (void *)(at + part),
                          .other_keys = (void *)(at + 2 * part),
                          .other_items = (void *)(at + 3 * part),
                          .n = n};
}

/* ---- Keys ---- */

#define SIGN 0x80000000u

uint32_t kiln_ranking_key(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) {
        return UINT32_MAX;
    }
    bits = x == 0 ? 0 : bits;
    return bits ^ (bits & SIGN ? UINT32_MAX : SIGN);
}

static uint32_t bf16_key(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return kiln_ranking_key(f);
}

static uint32_t f16_key(uint16_t x) {
    uint32_t magnitude = x & 0x7fffu, bits = magnitude == 0 ? 0 : (uint32_t)x << 16;
    return magnitude > 0x7c00 ? UINT32_MAX : bits ^ (bits & SIGN ? UINT32_MAX : SIGN);
}

static uint32_t signed_key(int32_t x) {
    return (uint32_t)x ^ SIGN;
}

#define UNSIGNED_KEY(x) (x)
#define KEYS(type, key)                                         \
    for (int64_t i = 0; i < n; i++) {                           \
        r->keys[i] = key(((const type *)x)[i * stride]) ^ flip; \
    }                                                           \
    break

bool kiln_ranking_takes(kiln_dtype dtype) {
    switch (dtype) {
    case KILN_DTYPE_F32:
    case KILN_DTYPE_F16:
    case KILN_DTYPE_BF16:
    case KILN_DTYPE_I32:
    case KILN_DTYPE_U32:
    case KILN_DTYPE_I16:
    case KILN_DTYPE_U16:
    case KILN_DTYPE_I8:
    case KILN_DTYPE_U8:
        return true;
    default:
        return false;
    }
}

void kiln_ranking_load(kiln_ranking *r, kiln_dtype dtype, const void *x, int64_t stride, int64_t n,
                       bool descending) {
    uint32_t flip = descending ? UINT32_MAX : 0;
    r->n = n;
    for (int64_t i = 0; i < n; i++) {
        r->items[i] = (int32_t)i;
    }
    switch (dtype) {
    case KILN_DTYPE_F32:
        KEYS(float, kiln_ranking_key);
    case KILN_DTYPE_F16:
        KEYS(uint16_t, f16_key);
    case KILN_DTYPE_BF16:
        KEYS(uint16_t, bf16_key);
    case KILN_DTYPE_I32:
        KEYS(int32_t, signed_key);
    case KILN_DTYPE_U32:
        KEYS(uint32_t, UNSIGNED_KEY);
    case KILN_DTYPE_I16:
        KEYS(int16_t, signed_key);
    case KILN_DTYPE_U16:
        KEYS(uint16_t, UNSIGNED_KEY);
    case KILN_DTYPE_I8:
        KEYS(int8_t, signed_key);
    default:
        KEYS(uint8_t, UNSIGNED_KEY);
    }
}

/* ---- Sorting ---- */

static void sort_few(kiln_ranking *r) {
    for (int64_t i = 1; i < r->n; i++) {
        uint32_t key = r->keys[i];
        int32_t item = r->items[i];
        int64_t k = i;
        for (; k > 0 && r->keys[k - 1] > key; k--) {
            r->keys[k] = r->keys[k - 1];
            r->items[k] = r->items[k - 1];
        }
        r->keys[k] = key;
        r->items[k] = item;
    }
}

/* One pass: pairs in the order of the digit that begins at `shift`, whose counts are given. */
static void pass(kiln_ranking *r, int shift, const int32_t *counts) {
    int32_t at[1 << DIGIT], sum = 0;
    for (int d = 0; d < 1 << DIGIT; d++) {
        at[d] = sum;
        sum += counts[d];
    }
    for (int64_t i = 0; i < r->n; i++) {
        int32_t to = at[r->keys[i] >> shift & ((1 << DIGIT) - 1)]++;
        r->other_keys[to] = r->keys[i];
        r->other_items[to] = r->items[i];
    }
    uint32_t *keys = r->keys;
    int32_t *items = r->items;
    r->keys = r->other_keys;
    r->items = r->other_items;
    r->other_keys = keys;
    r->other_items = items;
}

void kiln_ranking_sort(kiln_ranking *r) {
    int32_t counts[32 / DIGIT][1 << DIGIT] = {0};
    if (r->n <= FEW) {
        sort_few(r);
        return;
    }
    for (int64_t i = 0; i < r->n; i++) {
        for (int p = 0; p < 32 / DIGIT; p++) {
            counts[p][r->keys[i] >> p * DIGIT & ((1 << DIGIT) - 1)]++;
        }
    }
    uint32_t any = r->keys[0];
    for (int p = 0; p < 32 / DIGIT; p++) {
        if (counts[p][any >> p * DIGIT & ((1 << DIGIT) - 1)] != r->n) {
            pass(r, p * DIGIT, counts[p]);
        }
    }
}

/* Leaves what may be among the first k: everything up to the part of the keys' range, cut into
 * 2^TOP, in which the k-th lies. */
static void leave_first(kiln_ranking *r, int64_t k) {
    int32_t counts[1 << TOP] = {0};
    uint32_t low = UINT32_MAX, high = 0, last = 0;
    for (int64_t i = 0; i < r->n; i++) {
        low = r->keys[i] < low ? r->keys[i] : low;
        high = r->keys[i] > high ? r->keys[i] : high;
    }
    int shift = 0;
    while ((high - low) >> shift >= 1 << TOP) {
        shift++;
    }
    for (int64_t i = 0; i < r->n; i++) {
        counts[(r->keys[i] - low) >> shift]++;
    }
    for (int64_t sum = counts[0]; sum < k; sum += counts[last]) {
        last++;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < r->n; i++) {
        r->keys[n] = r->keys[i];
        r->items[n] = r->items[i];
        n += (r->keys[i] - low) >> shift <= last;
    }
    r->n = n;
}

void kiln_ranking_first(kiln_ranking *r, int64_t k) {
    if (k < r->n && r->n > FEW) {
        leave_first(r, k);
    }
    kiln_ranking_sort(r);
    r->n = k < r->n ? k : r->n;
}
