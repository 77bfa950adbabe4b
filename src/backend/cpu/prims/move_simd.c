/* move_simd.c - the movers of move.h.
 *
 * Transposes work on square tiles of 16-byte vectors: interleaving row i with row i + n/2, log2(n)
 * times over, transposes an n x n tile of n-lane vectors. That one rule serves 1-, 2-, 4- and
 * 8-byte elements.
 */
#include "backend/cpu/prims/move.h"
#include "backend/cpu/prims/vecmath.h"

typedef uint8_t vec1 __attribute__((vector_size(16)));
typedef uint16_t vec2 __attribute__((vector_size(16)));
typedef uint32_t vec4 __attribute__((vector_size(16)));
typedef uint64_t vec8 __attribute__((vector_size(16)));

#define LOW1(a, b) \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH1(a, b) \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define LOW2(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH2(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define LOW4(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH4(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define LOW8(a, b) __builtin_shufflevector(a, b, 0, 2)
#define HIGH8(a, b) __builtin_shufflevector(a, b, 1, 3)

/* Source rows this far apart, or a multiple, fall on few sets of the first-level cache; their lines
 * are then read once into a local buffer. */
enum { CROWDED_BYTES = 2048 };

/* For elements of B bytes: tile_B transposes one n x n tile; plane_B transposes `rows` source-order
 * runs: dst[r * dst_ld + c] = src[c * src_ld + r], r < rows, c < cols; strided_B copies a row. */
#define MOVERS(B, type, n)                                                                        \
    KILN_INLINE void tile_##B(type *d, int64_t dst_ld, const type *s, int64_t src_ld) {           \
        vec##B v[n];                                                                              \
        vec##B t[n];                                                                              \
        KILN_UNROLL(16) for (int i = 0; i < n; i++) {                                             \
            memcpy(&v[i], s + i * src_ld, 16);                                                    \
        }                                                                                         \
        KILN_UNROLL(4) for (int stage = 1; stage < n; stage *= 2) {                               \
            KILN_UNROLL(16) for (int i = 0; i < n / 2; i++) {                                     \
                t[2 * i] = LOW##B(v[i], v[i + n / 2]);                                            \
                t[2 * i + 1] = HIGH##B(v[i], v[i + n / 2]);                                       \
            }                                                                                     \
            KILN_UNROLL(16) for (int i = 0; i < n; i++) {                                         \
                v[i] = t[i];                                                                      \
            }                                                                                     \
        }                                                                                         \
        KILN_UNROLL(16) for (int i = 0; i < n; i++) {                                             \
            memcpy(d + i * dst_ld, &v[i], 16);                                                    \
        }                                                                                         \
    }                                                                                             \
    static void strided_##B(void *dst, int64_t ds, const void *src, int64_t ss, int64_t len) {    \
        type *d = dst;                                                                            \
        const type *s = src;                                                                      \
        for (int64_t i = 0; i < len; i++) {                                                       \
            d[i * ds] = s[i * ss];                                                                \
        }                                                                                         \
    }                                                                                             \
    static void plane_##B(void *dst, int64_t dst_ld, const void *src, int64_t src_ld,             \
                          int64_t rows, int64_t cols) {                                           \
        type *d = dst;                                                                            \
        const type *s = src;                                                                      \
        enum { LINE = 64 / B };                                                                   \
        int64_t full_rows = rows / n * n;                                                         \
        int64_t full_cols = cols / n * n;                                                         \
        bool crowded = full_rows == LINE && src_ld * B % CROWDED_BYTES == 0;                      \
        /* A cache line of each destination row before the next rows. */                          \
        for (int64_t c0 = 0; c0 < full_cols; c0 += LINE) {                                        \
            int64_t c1 = c0 + LINE < full_cols ? c0 + LINE : full_cols;                           \
            type local[LINE * LINE];                                                              \
            const type *from = s + c0 * src_ld;                                                   \
            int64_t from_ld = src_ld;                                                             \
            for (int64_t c = c0; c < c1 && crowded; c++) {                                        \
                memcpy(local + (c - c0) * LINE, s + c * src_ld, 64);                              \
            }                                                                                     \
            if (crowded) {                                                                        \
                from = local;                                                                     \
                from_ld = LINE;                                                                   \
            }                                                                                     \
            for (int64_t r = 0; r < full_rows; r += n) {                                          \
                for (int64_t c = c0; c < c1; c += n) {                                            \
                    tile_##B(d + r * dst_ld + c, dst_ld, from + (c - c0) * from_ld + r, from_ld); \
                }                                                                                 \
            }                                                                                     \
        }                                                                                         \
        for (int64_t r = full_rows; r < rows; r++) {                                              \
            strided_##B(d + r * dst_ld, 1, s + r, src_ld, full_cols);                             \
        }                                                                                         \
        for (int64_t c = full_cols; c < cols; c++) {                                              \
            strided_##B(d + c, dst_ld, s + c * src_ld, 1, rows);                                  \
        }                                                                                         \
    }
MOVERS(1, uint8_t, 16)
MOVERS(2, uint16_t, 8)
MOVERS(4, uint32_t, 4)
MOVERS(8, uint64_t, 2)

typedef struct mover {
    void (*strided)(void *dst, int64_t ds, const void *src, int64_t ss, int64_t len);
    void (*plane)(void *dst, int64_t dst_ld, const void *src, int64_t src_ld, int64_t rows,
                  int64_t cols);
} mover;

static const mover movers[9] = {
    [1] = {strided_1, plane_1},
    [2] = {strided_2, plane_2},
    [4] = {strided_4, plane_4},
    [8] = {strided_8, plane_8},
};

/* The outer dims' index and both offsets, in elements. */
typedef struct copy_walk {
    int64_t index[KILN_COPY_RANK];
    int64_t src, dst;
} copy_walk;

static copy_walk walk_begin(const kiln_copy_plan *p, int32_t outer_rank, int64_t at) {
    copy_walk w = {.src = 0};
    for (int32_t d = outer_rank - 1; d >= 0; d--) {
        w.index[d] = at % p->dims[d];
        at /= p->dims[d];
        w.src += w.index[d] * p->src[d];
        w.dst += w.index[d] * p->dst[d];
    }
    return w;
}

static void walk_next(copy_walk *w, const kiln_copy_plan *p, int32_t outer_rank) {
    for (int32_t d = outer_rank - 1; d >= 0; d--) {
        w->src += p->src[d];
        w->dst += p->dst[d];
        if (++w->index[d] < p->dims[d]) {
            return;
        }
        w->src -= p->src[d] * p->dims[d];
        w->dst -= p->dst[d] * p->dims[d];
        w->index[d] = 0;
    }
}

static void copy_transposed(const kiln_copy_plan *p, const char *src, char *dst, int64_t unit) {
    int64_t bytes = p->element_bytes;
    int32_t last = p->rank - 1;
    copy_walk w = walk_begin(p, p->rank - 2, unit / p->pieces);
    int64_t r0 = unit % p->pieces * p->piece;
    int64_t rows = p->dims[last - 1] - r0 < p->piece ? p->dims[last - 1] - r0 : p->piece;
    movers[bytes].plane(dst + (w.dst + r0 * p->dst[last - 1]) * bytes, p->dst[last - 1],
                        src + (w.src + r0) * bytes, p->src[last], rows, p->dims[last]);
}

/* Rows this short are not worth a call of memcpy. */
enum { SHORT_ROW_BYTES = 32 };

static void copy_rows(const kiln_copy_plan *p, const char *src, char *dst, int64_t unit) {
    int64_t bytes = p->element_bytes;
    int32_t last = p->rank - 1;
    int64_t row = unit / p->pieces * p->group;
    int64_t begin = unit % p->pieces * p->piece;
    int64_t len = p->dims[last] - begin < p->piece ? p->dims[last] - begin : p->piece;
    bool whole = p->kind == KILN_COPY_ROWS && len * bytes > SHORT_ROW_BYTES;
    src += begin * p->src[last] * bytes;
    dst += begin * p->dst[last] * bytes;
    copy_walk w = walk_begin(p, last, row);
    for (int64_t r = 0; r < p->group && row + r < p->outer; r++) {
        if (whole) {
            memcpy(dst + w.dst * bytes, src + w.src * bytes, (size_t)(len * bytes));
        } else {
            movers[bytes].strided(dst + w.dst * bytes, p->dst[last], src + w.src * bytes,
                                  p->src[last], len);
        }
        walk_next(&w, p, last);
    }
}

static void copy(const kiln_copy_plan *p, const void *src, void *dst, int64_t unit0,
                 int64_t unit1) {
    for (int64_t u = unit0; u < unit1; u++) {
        if (p->kind == KILN_COPY_TRANSPOSE) {
            copy_transposed(p, src, dst, u);
        } else {
            copy_rows(p, src, dst, u);
        }
    }
}

/* Repeats the constant over `bytes` bytes, a multiple of its size: one copy, then doubling. */
static void fill_value(char *dst, const kiln_pad_args *a, int64_t bytes) {
    if (bytes <= 0) {
        return;
    }
    int64_t done = a->value_bytes;
    memcpy(dst, &a->value, (size_t)done);
    while (done < bytes) {
        int64_t n = done < bytes - done ? done : bytes - done;
        memcpy(dst + done, dst, (size_t)n);
        done += n;
    }
}

/* One row of the last dim; `x` is the input row, NULL where an outer dim is in the constant
 * part. */
static void pad_row(const kiln_pad_args *a, const char *x, char *y) {
    const int32_t *map = a->map[a->rank - 1];
    int64_t out = a->out[a->rank - 1];
    if (x == NULL) {
        fill_value(y, a, out * a->item_bytes);
        return;
    }
    for (int64_t o = 0; o < out;) {
        int64_t run = 1;
        if (map[o] < 0) {
            while (o + run < out && map[o + run] < 0) {
                run++;
            }
            fill_value(y + o * a->item_bytes, a, run * a->item_bytes);
        } else {
            while (o + run < out && map[o + run] == map[o] + run) {
                run++;
            }
            memcpy(y + o * a->item_bytes, x + map[o] * a->item_bytes,
                   (size_t)(run * a->item_bytes));
        }
        o += run;
    }
}

static void pad(const kiln_pad_args *a, int64_t row0, int64_t row1) {
    int32_t last = a->rank - 1;
    for (int64_t r = row0; r < row1; r++) {
        int64_t rest = r;
        int64_t step = a->in[last];
        int64_t offset = 0;
        bool inside = true;
        for (int32_t d = last - 1; d >= 0; d--) {
            int64_t i = a->map[d][rest % a->out[d]];
            rest /= a->out[d];
            inside = inside && i >= 0;
            offset += i * step;
            step *= a->in[d];
        }
        const char *x = inside ? (const char *)a->x + offset * a->item_bytes : NULL;
        pad_row(a, x, (char *)a->y + r * a->out[last] * a->item_bytes);
    }
}

/* Rows of `bytes` each: a constant once this is inlined, for the short ones. */
KILN_INLINE int64_t gather_rows(const kiln_gather_args *a, int64_t row0, int64_t row1,
                                int64_t bytes) {
    const char *x = (const char *)a->x + row0 / a->count * a->n * bytes;
    int64_t k = row0 % a->count;
    for (int64_t r = row0; r < row1; r++) {
        int64_t i =
            a->index_bytes == 4 ? ((const int32_t *)a->index)[k] : ((const int64_t *)a->index)[k];
        i = i < 0 ? i + a->n : i;
        if (i < 0 || i >= a->n) {
            return r;
        }
        memcpy((char *)a->y + r * bytes, x + i * bytes, (size_t)bytes);
        if (++k == a->count) {
            k = 0;
            x += a->n * bytes;
        }
    }
    return -1;
}

static int64_t gather(const kiln_gather_args *a, int64_t row0, int64_t row1) {
    switch (a->row_bytes) {
    case 1:
        return gather_rows(a, row0, row1, 1);
    case 2:
        return gather_rows(a, row0, row1, 2);
    case 4:
        return gather_rows(a, row0, row1, 4);
    case 8:
        return gather_rows(a, row0, row1, 8);
    case 16:
        return gather_rows(a, row0, row1, 16);
    default:
        return gather_rows(a, row0, row1, a->row_bytes);
    }
}

/* y (+)= w * x. */
static void accumulate(float *y, const float *x, float w, bool first, int64_t n) {
    kiln_vf k = vf_set1(w);
    for (int64_t i = 0; i < n; i += KILN_VLEN) {
        kiln_vf v = vf_load_upto(x + i, n - i);
        v = first ? vf_mul(k, v) : vf_fma(k, v, vf_load_upto(y + i, n - i));
        vf_store_upto(y + i, n - i, v);
    }
}

/* Taps that weigh something. */
static int32_t live_taps(const kiln_resize_axis *axis, int64_t o) {
    int32_t n = 0;
    for (int32_t t = 0; t < axis->taps; t++) {
        n += axis->weight[o * axis->taps + t] != 0.0f;
    }
    return n;
}

/* Blends the input rows that an output row needs; a single row of weight 1 is used where it lies.
 * Returns NULL outside the crop region. */
static const float *blend_rows(const kiln_resize_args *a, float *scratch, int64_t n, int64_t od,
                               int64_t oh) {
    const kiln_resize_axis *D = &a->axis[0];
    const kiln_resize_axis *H = &a->axis[1];
    int64_t width = a->axis[2].in * a->channels;
    if (D->index[od * D->taps] < 0 || H->index[oh * H->taps] < 0) {
        return NULL;
    }
    bool single = live_taps(D, od) * live_taps(H, oh) == 1;
    bool first = true;
    for (int32_t td = 0; td < D->taps; td++) {
        for (int32_t th = 0; th < H->taps; th++) {
            int64_t d = D->index[od * D->taps + td];
            int64_t h = H->index[oh * H->taps + th];
            float w = D->weight[od * D->taps + td] * H->weight[oh * H->taps + th];
            const float *row = a->x + ((n * D->in + d) * H->in + h) * width;
            if (single && w == 1.0f) {
                return row;
            }
            if (w != 0.0f) {
                accumulate(scratch, row, w, first, width);
                first = false;
            }
        }
    }
    return scratch;
}

static void resize_pixel(const kiln_resize_args *a, const float *row, float *y, int64_t ow) {
    const kiln_resize_axis *W = &a->axis[2];
    const int32_t *index = W->index + ow * W->taps;
    const float *weight = W->weight + ow * W->taps;
    if (row == NULL || index[0] < 0) {
        for (int64_t c = 0; c < a->channels; c++) {
            y[c] = a->outside;
        }
        return;
    }
    if (W->taps == 1) {
        memcpy(y, row + index[0] * a->channels, (size_t)a->channels * sizeof(float));
        return;
    }
    for (int64_t c = 0; c < a->channels; c += KILN_VLEN) {
        int64_t left = a->channels - c;
        kiln_vf s = vf_zero();
        for (int32_t t = 0; t < W->taps; t++) {
            if (weight[t] != 0.0f) {
                kiln_vf v = vf_load_upto(row + index[t] * a->channels + c, left);
                s = vf_fma(vf_set1(weight[t]), v, s);
            }
        }
        vf_store_upto(y + c, left, s);
    }
}

static void resize(const kiln_resize_args *a, float *scratch, int64_t row0, int64_t row1) {
    int64_t width = a->axis[2].out;
    for (int64_t r = row0; r < row1; r++) {
        int64_t oh = r % a->axis[1].out;
        int64_t od = r / a->axis[1].out % a->axis[0].out;
        int64_t n = r / a->axis[1].out / a->axis[0].out;
        const float *row = blend_rows(a, scratch, n, od, oh);
        for (int64_t ow = 0; ow < width; ow++) {
            resize_pixel(a, row, a->y + (r * width + ow) * a->channels, ow);
        }
    }
}

const kiln_move_prims KILN_ISA_SYMBOL(kiln_move_prims) = {
    .copy = copy,
    .pad = pad,
    .gather = gather,
    .resize = resize,
};
