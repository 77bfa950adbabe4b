/* pool_simd.c - the pools of pool.h: per output pixel, up to four vectors of channels at a time are
 * accumulated in registers over the window.
 */
#include "backend/cpu/prims/pool.h"
#include "backend/cpu/prims/vecmath.h"

enum { PART = 64 };

/* The part of a window that lies inside the image, in units of dilation steps. */
typedef struct window {
    int64_t first[3]; /* input coordinate of the first tap inside */
    int64_t taps[3];
    int64_t count; /* what an average divides by */
} window;

/* Taps k of [0, kernel) with 0 <= start + k * dilation < limit: returns the first, *n how many. */
static int64_t taps_inside(int64_t start, int64_t kernel, int64_t dilation, int64_t limit,
                           int64_t *n) {
    int64_t lo = start < 0 ? (-start + dilation - 1) / dilation : 0;
    int64_t hi = limit <= start ? 0 : (limit - start + dilation - 1) / dilation;
    hi = hi < kernel ? hi : kernel;
    *n = hi > lo ? hi - lo : 0;
    return lo;
}

static window window_at(const kiln_pool_args *a, const int64_t *o) {
    window w = {.count = 1};
    int64_t padded = 1;
    for (int d = 0; d < 3; d++) {
        int64_t start = o[d] * a->stride[d] - a->pad[d];
        int64_t lo = taps_inside(start, a->kernel[d], a->dilation[d], a->in[d], &w.taps[d]);
        w.first[d] = start + lo * a->dilation[d];
        w.count *= w.taps[d];
        int64_t all;
        taps_inside(start + a->pad[d], a->kernel[d], a->dilation[d],
                    a->in[d] + a->pad[d] + a->pad_end[d], &all);
        padded *= all;
    }
    if (a->include_pad) {
        w.count = padded;
    }
    return w;
}

KILN_INLINE kiln_vf power(kiln_vf x, int32_t p) {
    kiln_vf base = vf_abs(x);
    kiln_vf y = base;
    for (int32_t i = 1; i < p; i++) {
        y = vf_mul(y, base);
    }
    return y;
}

KILN_INLINE kiln_vf step(kiln_pool_op op, int32_t p, kiln_vf s, kiln_vf x) {
    if (op == KILN_POOL_MAX) {
        return vf_max_nan(s, x);
    }
    return vf_add(s, op == KILN_POOL_AVG ? x : power(x, p));
}

KILN_INLINE kiln_vf start(kiln_pool_op op) {
    return vf_set1(op == KILN_POOL_MAX ? -INFINITY : 0.0f);
}

static kiln_vf finish(kiln_pool_op op, int32_t p, kiln_vf s, float count) {
    if (op == KILN_POOL_AVG) {
        return vf_div(s, vf_set1(count));
    }
    if (op == KILN_POOL_LP && p == 2) {
        return vf_sqrt(s);
    }
    if (op == KILN_POOL_LP && p > 2) {
        for (int i = 0; i < KILN_VLEN; i++) {
            s[i] = powf(s[i], 1.0f / (float)p);
        }
    }
    return s;
}

/* Up to a vector of elements from number `at` on. */
KILN_INLINE kiln_vf load_elements(const void *x, bool half, int64_t at, int64_t n) {
    if (!half) {
        return vf_load_upto((const float *)x + at, n);
    }
    const uint16_t *p = (const uint16_t *)x + at;
    return n >= KILN_VLEN ? vf_load_bf16(p) : vf_load_bf16_tail(p, n);
}

KILN_INLINE void store_elements(void *y, bool half, int64_t at, int64_t n, kiln_vf v) {
    uint16_t *p = (uint16_t *)y + at;
    if (!half) {
        vf_store_upto((float *)y + at, n, v);
    } else if (n >= KILN_VLEN) {
        vf_store_bf16(p, v);
    } else {
        vf_store_bf16_tail(p, n, v);
    }
}

/* nv vectors of channels, the last of them possibly partial, of the image and the output pixel
 * whose elements begin at these numbers. */
KILN_INLINE void pool_vectors(const kiln_pool_args *a, kiln_pool_op op, bool half, const window *w,
                              int64_t image, int64_t y, int64_t lanes, int nv) {
    kiln_vf s[4];
    for (int v = 0; v < nv; v++) {
        s[v] = start(op);
    }
    int64_t dx = a->dilation[2] * a->channels;
    for (int64_t d = 0; d < w->taps[0]; d++) {
        for (int64_t h = 0; h < w->taps[1]; h++) {
            int64_t plane = w->first[0] + d * a->dilation[0];
            int64_t row = plane * a->in[1] + w->first[1] + h * a->dilation[1];
            int64_t x = image + (row * a->in[2] + w->first[2]) * a->channels;
            for (int64_t k = 0; k < w->taps[2]; k++, x += dx) {
                KILN_UNROLL(4)
                for (int v = 0; v < nv; v++) {
                    int64_t left = nv > 1 ? KILN_VLEN : lanes;
                    s[v] = step(op, a->p, s[v], load_elements(a->x, half, x + v * KILN_VLEN, left));
                }
            }
        }
    }
    for (int v = 0; v < nv; v++) {
        kiln_vf r = finish(op, a->p, s[v], (float)w->count);
        store_elements(a->y, a->half_y, y + v * KILN_VLEN, nv > 1 ? KILN_VLEN : lanes, r);
    }
}

#define POOL_PIXEL(name, op, half)                                                         \
    static void name(const kiln_pool_args *a, const window *w, int64_t image, int64_t y) { \
        int64_t c = 0;                                                                     \
        for (; c + 4 * KILN_VLEN <= a->channels; c += 4 * KILN_VLEN) {                     \
            pool_vectors(a, op, half, w, image + c, y + c, 4 * KILN_VLEN, 4);              \
        }                                                                                  \
        for (; c < a->channels; c += KILN_VLEN) {                                          \
            pool_vectors(a, op, half, w, image + c, y + c, a->channels - c, 1);            \
        }                                                                                  \
    }
POOL_PIXEL(pixel_max, KILN_POOL_MAX, false)
POOL_PIXEL(pixel_avg, KILN_POOL_AVG, false)
POOL_PIXEL(pixel_lp, KILN_POOL_LP, false)
POOL_PIXEL(half_pixel_max, KILN_POOL_MAX, true)
POOL_PIXEL(half_pixel_avg, KILN_POOL_AVG, true)
POOL_PIXEL(half_pixel_lp, KILN_POOL_LP, true)

/* The window of output pixel i, and its image. */
static window window_of(const kiln_pool_args *a, int64_t i, int64_t *image) {
    int64_t o[3];
    for (int d = 2; d >= 0; d--) {
        o[d] = i % a->out[d];
        i /= a->out[d];
    }
    *image = i;
    return window_at(a, o);
}

static void pool(const kiln_pool_args *a, int64_t begin, int64_t end) {
    static void (*const pixel[][2])(const kiln_pool_args *, const window *, int64_t,
                                    int64_t) = {[KILN_POOL_MAX] = {pixel_max, half_pixel_max},
                                                [KILN_POOL_AVG] = {pixel_avg, half_pixel_avg},
                                                [KILN_POOL_LP] = {pixel_lp, half_pixel_lp}};
    int64_t image = a->in[0] * a->in[1] * a->in[2] * a->channels;
    for (int64_t i = begin; i < end; i++) {
        int64_t n;
        window w = window_of(a, i, &n);
        pixel[a->op][a->half_x](a, &w, n * image, i * a->channels);
    }
}

/* nv vectors of channels over all pixels. */
KILN_INLINE void global_vectors(const kiln_global_pool_args *a, kiln_pool_op op, bool half,
                                int64_t x, float *y, int64_t lanes, int nv) {
    kiln_vf total[4];
    for (int v = 0; v < nv; v++) {
        total[v] = start(op);
    }
    for (int64_t s0 = 0; s0 < a->spatial; s0 += PART) {
        int64_t s1 = a->spatial - s0 < PART ? a->spatial : s0 + PART;
        kiln_vf part[4];
        for (int v = 0; v < nv; v++) {
            part[v] = start(op);
        }
        for (int64_t s = s0; s < s1; s++) {
            const int64_t px = x + s * a->channels;
            KILN_UNROLL(4)
            for (int v = 0; v < nv; v++) {
                int64_t left = nv > 1 ? KILN_VLEN : lanes;
                part[v] =
                    step(op, a->p, part[v], load_elements(a->x, half, px + v * KILN_VLEN, left));
            }
        }
        for (int v = 0; v < nv; v++) {
            total[v] =
                op == KILN_POOL_MAX ? vf_max_nan(total[v], part[v]) : vf_add(total[v], part[v]);
        }
    }
    for (int v = 0; v < nv; v++) {
        kiln_vf r = finish(op, a->p, total[v], (float)a->spatial);
        vf_store_upto(y + v * KILN_VLEN, nv > 1 ? KILN_VLEN : lanes, r);
    }
}

#define GLOBAL_RANGE(name, op, half)                                                   \
    static void name(const kiln_global_pool_args *a, int64_t x, float *y, int64_t n) { \
        int64_t c = 0;                                                                 \
        for (; c + 4 * KILN_VLEN <= n; c += 4 * KILN_VLEN) {                           \
            global_vectors(a, op, half, x + c, y + c, 4 * KILN_VLEN, 4);               \
        }                                                                              \
        for (; c < n; c += KILN_VLEN) {                                                \
            global_vectors(a, op, half, x + c, y + c, n - c, 1);                       \
        }                                                                              \
    }
GLOBAL_RANGE(global_max, KILN_POOL_MAX, false)
GLOBAL_RANGE(global_avg, KILN_POOL_AVG, false)
GLOBAL_RANGE(global_lp, KILN_POOL_LP, false)
GLOBAL_RANGE(half_global_max, KILN_POOL_MAX, true)
GLOBAL_RANGE(half_global_avg, KILN_POOL_AVG, true)
GLOBAL_RANGE(half_global_lp, KILN_POOL_LP, true)

static void global_pool(const kiln_global_pool_args *a, int64_t begin, int64_t end) {
    static void (*const range[][2])(const kiln_global_pool_args *, int64_t, float *,
                                    int64_t) = {[KILN_POOL_MAX] = {global_max, half_global_max},
                                                [KILN_POOL_AVG] = {global_avg, half_global_avg},
                                                [KILN_POOL_LP] = {global_lp, half_global_lp}};
    for (int64_t i = begin; i < end;) {
        int64_t image = i / a->channels;
        int64_t c = i % a->channels;
        int64_t n = a->channels - c < end - i ? a->channels - c : end - i;
        range[a->op][a->half_x](a, image * a->spatial * a->channels + c, a->y + i, n);
        i += n;
    }
}

/* ---- Bytes ---- */

enum { BYTES = 64 }; /* channels that a block of the maximum keeps in registers */

/* Calls visit(x) for the pixel x of each tap inside the window. */
#define FOR_TAPS(a, w, image, visit)                                                            \
    for (int64_t d = 0; d < (w)->taps[0]; d++) {                                                \
        for (int64_t h = 0; h < (w)->taps[1]; h++) {                                            \
            int64_t row = ((w)->first[0] + d * (a)->dilation[0]) * (a)->in[1] + (w)->first[1] + \
                          h * (a)->dilation[1];                                                 \
            const uint8_t *x = (image) + (row * (a)->in[2] + (w)->first[2]) * (a)->channels;    \
            for (int64_t k = 0; k < (w)->taps[2]; k++, x += (a)->dilation[2] * (a)->channels) { \
                visit;                                                                          \
            }                                                                                   \
        }                                                                                       \
    }

/* `flip` turns int8 into uint8 of the same order. n <= BYTES. */
KILN_INLINE void max_block(const kiln_pool_args *a, const window *w, const uint8_t *image,
                           uint8_t *y, int64_t n, uint8_t flip) {
    uint8_t best[BYTES] = {0};
    FOR_TAPS(
        a, w, image, for (int64_t c = 0; c < n; c++) {
            uint8_t v = x[c] ^ flip;
            best[c] = v > best[c] ? v : best[c];
        })
    for (int64_t c = 0; c < n; c++) {
        y[c] = best[c] ^ flip;
    }
}

static void max_pixel(const kiln_pool_q8_args *a, const window *w, const uint8_t *image,
                      uint8_t *y) {
    int64_t c = 0, channels = a->shape.channels;
    uint8_t flip = a->is_signed ? 0x80 : 0;
    for (; c + BYTES <= channels; c += BYTES) {
        max_block(&a->shape, w, image + c, y + c, BYTES, flip);
    }
    if (c < channels) {
        max_block(&a->shape, w, image + c, y + c, channels - c, flip);
    }
}

/* nv vectors of channels, the last of them possibly partial. */
KILN_INLINE void sum_vectors(const kiln_pool_q8_args *a, const window *w, const uint8_t *image,
                             int64_t at, float m, int64_t lanes, int nv) {
    const kiln_pool_args *g = &a->shape;
    int64_t inside = w->taps[0] * w->taps[1] * w->taps[2];
    kiln_vi s[4];
    for (int v = 0; v < nv; v++) {
        s[v] = vi_set1((int32_t)(-inside * a->x_zero));
    }
    FOR_TAPS(
        g, w, image, for (int v = 0; v < nv; v++) {
            kiln_vi part = nv > 1 || lanes >= KILN_VLEN ? vi_load_u8(x + v * KILN_VLEN)
                                                        : vi_load_u8_tail(x, lanes);
            s[v] = vi_add(s[v], part);
        })
    for (int v = 0; v < nv; v++, at += KILN_VLEN) {
        int64_t left = nv > 1 ? KILN_VLEN : lanes;
        kiln_vf r = vf_mul(vf_from_vi(s[v]), vf_set1(m));
        if (a->to_float) {
            vf_store_upto((float *)a->y + at, left, r);
            continue;
        }
        r = vf_select(vf_isnan(r), vf_zero(), vf_round(r)); /* an empty image */
        r = vf_add(r, vf_set1((float)a->y_zero));
        kiln_vi q = vi_trunc(vf_clamp(r, vf_zero(), vf_set1(255.0f)));
        if (left >= KILN_VLEN) {
            vi_store_u8((uint8_t *)a->y + at, q);
        } else {
            vi_store_u8_tail((uint8_t *)a->y + at, left, q);
        }
    }
}

static void average_pixel(const kiln_pool_q8_args *a, const window *w, const uint8_t *image,
                          int64_t at) {
    int64_t c = 0, channels = a->shape.channels;
    double step = a->to_float ? 1.0 : a->y_step;
    float m = (float)(a->x_step / ((double)w->count * step));
    for (; c + 4 * KILN_VLEN <= channels; c += 4 * KILN_VLEN) {
        sum_vectors(a, w, image + c, at + c, m, 4 * KILN_VLEN, 4);
    }
    for (; c < channels; c += KILN_VLEN) {
        sum_vectors(a, w, image + c, at + c, m, channels - c, 1);
    }
}

static void pool_q8(const kiln_pool_q8_args *a, int64_t begin, int64_t end) {
    const kiln_pool_args *g = &a->shape;
    int64_t image = g->in[0] * g->in[1] * g->in[2] * g->channels;
    for (int64_t i = begin; i < end; i++) {
        int64_t n;
        window w = window_of(g, i, &n);
        if (g->op == KILN_POOL_MAX) {
            max_pixel(a, &w, a->x + n * image, (uint8_t *)a->y + i * g->channels);
        } else {
            average_pixel(a, &w, a->x + n * image, i * g->channels);
        }
    }
}

const kiln_pool_prims KILN_ISA_SYMBOL(kiln_pool_prims) = {
    .pool = pool,
    .global_pool = global_pool,
    .pool_q8 = pool_q8,
};
