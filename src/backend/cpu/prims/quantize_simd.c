/* quantize_simd.c - see quantize.h. Compiled once per ISA. */
#include "backend/cpu/prims/quantize.h"
#include "backend/cpu/prims/simd.h"

/* vf_min and vf_max return their second operand when either is NaN. */
static void range(const float *x, int64_t n, float *lo, float *hi) {
    kiln_vf low = vf_set1(*lo), high = vf_set1(*hi);
    int64_t i = 0;
    for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
        kiln_vf v = vf_load(x + i);
        low = vf_min(v, low);
        high = vf_max(v, high);
    }
    /* Lanes past the end count as zero, which [lo, hi] need not hold. */
    for (; i < n; i++) {
        *lo = x[i] < *lo ? x[i] : *lo;
        *hi = x[i] > *hi ? x[i] : *hi;
    }
    float l = vf_hmin(low), h = vf_hmax(high);
    *lo = l < *lo ? l : *lo;
    *hi = h > *hi ? h : *hi;
}

KILN_INLINE kiln_vi quantized(kiln_vf x, kiln_vf scale, kiln_vf lo, kiln_vf hi, kiln_vi zero) {
    kiln_vf q = vf_div(x, scale);
    q = vf_select(vf_isnan(q), vf_zero(), q);
    return vi_add(vi_from_vf(vf_min(vf_max(q, lo), hi)), zero);
}

static void quantize(uint8_t *y, const float *x, int64_t n, float scale, int32_t zero) {
    const kiln_vf s = vf_set1(scale), lo = vf_set1((float)-zero), hi = vf_set1((float)(255 - zero));
    const kiln_vi z = vi_set1(zero);
    int64_t i = 0;
    for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
        vi_store_u8(y + i, quantized(vf_load(x + i), s, lo, hi, z));
    }
    if (i < n) {
        vi_store_u8_tail(y + i, n - i, quantized(vf_load_tail(x + i, n - i), s, lo, hi, z));
    }
}

/* ---- Weights ---- */

/* Columns of a panel of gemm_simd.c. */
enum { VECTORS = 2, NR = VECTORS * KILN_VLEN };

KILN_INLINE kiln_vi load_code(kiln_codes_kind kind, const void *row, int64_t j, int64_t odd) {
    if (kind == KILN_CODES_S8) {
        return vi_load_s8((const int8_t *)row + j);
    }
    kiln_vi v = vi_load_u8((const uint8_t *)row + j);
    if (kind == KILN_CODES_U8) {
        return v;
    }
    v = vi_shl(v, odd ? 24 : 28);
    return kind == KILN_CODES_S4 ? vi_shr(v, 28) : vi_shr_logical(v, 28);
}

KILN_INLINE bool is_half(kiln_codes_kind kind) {
    return kind == KILN_CODES_S4 || kind == KILN_CODES_U4;
}

/* Weights of row k from column j on. Names of their own: stores of floats may change *c for all
 * that a compiler knows. */
typedef struct block {
    const uint8_t *code;
    kiln_vf scale[VECTORS], zero[VECTORS]; /* of the columns of a panel */
} block;

KILN_INLINE block begin_block(const kiln_codes *c, int64_t from) {
    block b = {.code = c->code};
    for (int64_t v = 0; v < VECTORS; v++) {
        const int64_t at = from / c->block * NR + v * KILN_VLEN;
        b.scale[v] = vf_load(c->scale + at);
        b.zero[v] = c->zero ? vf_load(c->zero + at) : vf_zero();
    }
    return b;
}

KILN_INLINE kiln_vf weights_at(const block *b, kiln_codes_kind kind, bool zeros, int64_t k,
                               int64_t v) {
    const uint8_t *row = b->code + (is_half(kind) ? k / 2 : k) * NR;
    kiln_vf code = vf_from_vi(load_code(kind, row, v * KILN_VLEN, k & 1));
    return vf_mul(zeros ? vf_sub(code, b->zero[v]) : code, b->scale[v]);
}

KILN_INLINE void panel_of(float *dst, const kiln_codes *c, kiln_codes_kind kind, bool zeros) {
    const int64_t n = c->k, step = c->block;
    for (int64_t from = 0; from < n; from += step) {
        const block b = begin_block(c, from);
        for (int64_t k = from; k < i64_min(n, from + step); k++) {
            for (int64_t v = 0; v < VECTORS; v++) {
                vf_store(dst + k * NR + v * KILN_VLEN, weights_at(&b, kind, zeros, k, v));
            }
        }
    }
}

/* One chain of multiply-adds for each column, as kiln_gemm_prims computes it. */
KILN_INLINE void dots_of(float *sums, const kiln_codes *c, const float *x, kiln_codes_kind kind,
                         bool zeros) {
    const int64_t n = c->k, step = c->block;
    kiln_vf acc[VECTORS] = {vf_zero(), vf_zero()};
    for (int64_t from = 0; from < n; from += step) {
        const block b = begin_block(c, from);
        for (int64_t k = from; k < i64_min(n, from + step); k++) {
            const kiln_vf a = vf_set1(x[k]);
            for (int64_t v = 0; v < VECTORS; v++) {
                acc[v] = vf_fma(a, weights_at(&b, kind, zeros, k, v), acc[v]);
            }
        }
    }
    for (int64_t v = 0; v < VECTORS; v++) {
        vf_store(sums + v * KILN_VLEN, acc[v]);
    }
}

#define KIND(kind)                                                           \
    static void panel_##kind(float *dst, const kiln_codes *c) {              \
        if (c->zero) {                                                       \
            panel_of(dst, c, KILN_CODES_##kind, true);                       \
        } else {                                                             \
            panel_of(dst, c, KILN_CODES_##kind, false);                      \
        }                                                                    \
    }                                                                        \
    static void dots_##kind(float *s, const kiln_codes *c, const float *x) { \
        if (c->zero) {                                                       \
            dots_of(s, c, x, KILN_CODES_##kind, true);                       \
        } else {                                                             \
            dots_of(s, c, x, KILN_CODES_##kind, false);                      \
        }                                                                    \
    }
KIND(S8)
KIND(U8)
KIND(S4)
KIND(U4)

static void panel(float *dst, const kiln_codes *c) {
    static void (*const of[])(float *dst, const kiln_codes *c) = {panel_S8, panel_U8, panel_S4,
                                                                  panel_U4};
    of[c->kind](dst, c);
}

static void dots(float *sums, const kiln_codes *c, const float *x) {
    static void (*const of[])(float *sums, const kiln_codes *c,
                              const float *x) = {dots_S8, dots_U8, dots_S4, dots_U4};
    of[c->kind](sums, c, x);
}

const kiln_quantize_prims KILN_ISA_SYMBOL(kiln_quantize_prims) = {
    .isa = KILN_ISA_NAME,
    .range = range,
    .quantize = quantize,
    .panel = panel,
    .dots = dots,
};
