/* depthwise_q8_lines.h - rolling lines of the 8-bit depthwise convolution.
 *
 * Legend: a line is a row of outputs along W; a kernel row is one (kd, kh); a group is up to `form`
 * kernel rows whose bytes are interleaved (q8_dot.h); a column is what the kernel rows hold at one
 * input pixel.
 *
 * For one vector of channels, columns pass from left to right, each built once. It is the last
 * column of one output, the first of another, and so on: their sums stay in registers and move on
 * by one place from output to output. Four vectors go together where there are that many
 * (q8_lanes.h): a row is then one load, and four vectors of results become bytes in three shuffles.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_DEPTHWISE_Q8_LINES_H
#define KILN_BACKEND_CPU_PRIMS_DEPTHWISE_Q8_LINES_H

#include "backend/cpu/prims/conv_walk.h"
#include "backend/cpu/prims/q8_dot.h"
#include "backend/cpu/prims/q8_finish.h"
#include "backend/cpu/prims/q8_lanes.h"

enum {
    MAX_ROWS = 7,   /* kernel rows of a rolling line */
    FOUR_WIDTH = 5, /* widest kernel that runs four vectors at a time */
    FOUR_GROUPS = 3,
    MAX_LINES = 8, /* lines that are computed together */
};

#define UNROLL_LINE KILN_UNROLL(8)

/* One line of outputs. */
typedef struct line_at {
    const uint8_t *row[MAX_ROWS]; /* rolling: kernel rows at input column 0; a line of zero points
                                     for those in the padding */
    char *y;                      /* of the first output, channel `begin` of the lines */
    const uint8_t *residual;
} line_at;

/* Lines that are computed together, so that weights are brought into registers once. */
typedef struct line {
    line_at at[MAX_LINES];
    int64_t count;
    const uint8_t *zeros; /* a zero point for every channel */
    int64_t step;         /* bytes from column to column */
    int64_t left;         /* input column of the first output's first tap; may be < 0 */
    int64_t in, out;      /* columns */
    const int8_t *w;      /* rolling: [group][width][channels][form]; else [tap][channels] */
    int64_t channels;     /* of the output */
    int64_t begin, end;   /* output channels to compute */
    int64_t ldy;          /* bytes */
    const kiln_q8_epilogue *epilogue;
} line;

typedef void (*line_fn)(const line *l);

/* ---- Rolling lines ---- */

/* The groups of column w, or of a column in the padding. */
KILN_INLINE void load_column(const line *l, const uint8_t *const *row, int form, int rows,
                             int64_t w, int64_t c, bool inner, kiln_vi *x) {
    const int64_t at = inner ? w * l->step + c : c;
    const uint8_t *p[MAX_ROWS];
    UNROLL_LINE for (int r = 0; r < rows; r++) {
        p[r] = inner ? row[r] : l->zeros;
    }
    UNROLL_LINE for (int r = 0; r < rows; r += form) {
        x[r / form] = interleave(form, rows - r < form ? rows - r : form, p + r, at);
    }
}

/* Adds a column's products to the sums: tap k stands `k / stride` outputs back. */
KILN_INLINE void add_column(int form, int rows, int width, int stride, int first, const kiln_vi *x,
                            const kiln_vi *w, kiln_vi *sum) {
    const int groups = (rows + form - 1) / form;
    UNROLL_LINE for (int k = first; k < width; k += stride) {
        UNROLL_LINE for (int g = 0; g < groups; g++) {
            sum[k / stride] = dot(form, sum[k / stride], x[g], w[g * width + k]);
        }
    }
}

/* What one vector of channels of a line keeps. sum[i] belongs to the output i before the one whose
 * first column is at hand; the oldest is finished by that column. */
typedef struct roller {
    const uint8_t *row[MAX_ROWS];
    kiln_vi w[MAX_ROWS * MAX_ROWS];
    kiln_vi start, sum[MAX_ROWS];
    q8_columns q;
    char *y;
    const uint8_t *residual;
    int64_t c;
} roller;

/* The columns of output o, which are inside the input unless `checked`. */
KILN_INLINE void roll(const line *l, roller *k, int form, int rows, int width, int stride,
                      bool to_float, int64_t o, bool checked) {
    const int oldest = (width - 1) / stride;
    const int64_t column = l->left + o * stride;
    kiln_vi x[MAX_ROWS];
    bool inner = !checked || inside(column, l->in);
    load_column(l, k->row, form, rows, column, k->c, inner, x);
    add_column(form, rows, width, stride, 0, x, k->w, k->sum);
    if (!checked || o >= oldest) {
        q8_finish(&k->q, k->sum[oldest], k->residual, to_float, k->y, KILN_VLEN);
        k->y += l->ldy;
        k->residual = k->residual ? k->residual + l->epilogue->ld_residual : NULL;
    }
    if (stride == 2) {
        inner = !checked || inside(column + 1, l->in);
        load_column(l, k->row, form, rows, column + 1, k->c, inner, x);
        add_column(form, rows, width, stride, 1, x, k->w, k->sum);
    }
    UNROLL_LINE for (int i = oldest; i > 0; i--) {
        k->sum[i] = k->sum[i - 1];
    }
    k->sum[0] = k->start;
}

/* The steps that give an output and whose columns lie inside the input. */
typedef struct span {
    int64_t begin, end;
} span;

KILN_INLINE span unchecked(const line *l, int64_t steps, int oldest, int stride) {
    int64_t begin = i64_max(oldest, i64_ceil_div(i64_max(0, -l->left), stride));
    return (span){i64_min(begin, steps), i64_min(steps, (l->in - l->left) / stride)};
}

KILN_INLINE void rolling_vector(const line *l, int form, int rows, int width, int stride,
                                bool to_float, int64_t c) {
    const int groups = (rows + form - 1) / form, oldest = (width - 1) / stride;
    const int64_t steps = l->out + oldest;
    const span inner = unchecked(l, steps, oldest, stride);
    roller k = {
        .start = vi_load(l->epilogue->start + c), .q = q8_columns_of(l->epilogue, c), .c = c};
    UNROLL_LINE for (int i = 0; i < groups * width; i++) {
        k.w[i] = load_b(form, l->w + (i * l->channels + c) * form);
    }
    for (const line_at *at = l->at; at < l->at + l->count; at++) {
        k.y = at->y + (c - l->begin) * (to_float ? (int64_t)sizeof(float) : 1);
        k.residual = at->residual ? at->residual + c : NULL;
        UNROLL_LINE for (int r = 0; r < rows; r++) {
            k.row[r] = at->row[r];
        }
        UNROLL_LINE for (int i = 0; i <= oldest; i++) {
            k.sum[i] = k.start;
        }
        int64_t o = 0;
        for (; o < inner.begin; o++) {
            roll(l, &k, form, rows, width, stride, to_float, o, true);
        }
        for (; o < inner.end; o++) {
            roll(l, &k, form, rows, width, stride, to_float, o, false);
        }
        for (; o < steps; o++) {
            roll(l, &k, form, rows, width, stride, to_float, o, true);
        }
    }
}

/* ---- Four vectors at a time ---- */

/* What four vectors of channels of a line keep. */
typedef struct roller4 {
    kiln_vi w[FOUR_GROUPS * FOUR_WIDTH][4];
    kiln_vi start[4], sum[FOUR_WIDTH][4];
    kiln_vf scale[4], offset[4];
    int32_t zero; /* of bytes, and their bounds */
    uint8_t lo, hi;
    const uint8_t *row[MAX_ROWS];
    char *y;
    int64_t c;
} roller4;

/* No result leaves 32 bits before it is rounded, since sums do not: |v| <= 2^30. */
KILN_INLINE bool four_fit(const kiln_q8_epilogue *e, int64_t c) {
    const kiln_vf scale = vf_set1(0x1p-2f), offset = vf_set1(0x1p29f);
    for (int64_t i = c; i < c + LANES_CHANNELS; i += KILN_VLEN) {
        if (vm_any(vm_or(vf_lt(scale, vf_abs(vf_load(e->scale + i))),
                         vf_lt(offset, vf_abs(vf_load(e->offset + i)))))) {
            return false;
        }
    }
    return true;
}

/* Builds column `at` and adds its products to the sums, as load_column and add_column. */
KILN_INLINE void pass_column4(const line *l, roller4 *k, int form, int rows, int width, int stride,
                              int first, int64_t at, bool inner) {
    const int64_t offset = inner ? at * l->step + k->c : k->c;
    kiln_vi x[FOUR_GROUPS][4];
    UNROLL_LINE for (int r = 0; r < rows; r += form) {
        const int n = rows - r < form ? rows - r : form;
        const uint8_t *p[QUADS];
        UNROLL_LINE for (int i = 0; i < n; i++) {
            p[i] = (inner ? k->row[r + i] : l->zeros) + offset;
        }
        lanes_interleave(form, x[r / form], p, n);
    }
    UNROLL_LINE for (int j = 0; j < 4; j++) {
        UNROLL_LINE for (int t = first; t < width; t += stride) {
            kiln_vi sum = k->sum[t / stride][j];
            UNROLL_LINE for (int r = 0; r < rows; r += form) {
                sum = dot(form, sum, x[r / form][j], k->w[r / form * width + t][j]);
            }
            k->sum[t / stride][j] = sum;
        }
    }
}

KILN_INLINE void finish4(const line *l, const roller4 *k, const kiln_vi *sum, bool to_float) {
    const kiln_q8_epilogue *e = l->epilogue;
    kiln_vi v[4];
    UNROLL_LINE for (int j = 0; j < 4; j++) {
        kiln_vf x = vf_add(vf_mul(vf_from_vi(sum[j]), k->scale[j]), k->offset[j]);
        v[j] =
            to_float ? vf_bits(vf_min(vf_max(x, vf_set1(e->lo)), vf_set1(e->hi))) : vi_from_vf(x);
    }
    if (to_float) {
        lanes_back(v);
        memcpy(k->y, v, sizeof v);
    } else {
        lanes_store((uint8_t *)k->y, v, k->zero, k->lo, k->hi);
    }
}

/* As roll. */
KILN_INLINE void roll4(const line *l, roller4 *k, int form, int rows, int width, int stride,
                       bool to_float, int64_t o, bool checked) {
    const int oldest = (width - 1) / stride;
    const int64_t column = l->left + o * stride;
    pass_column4(l, k, form, rows, width, stride, 0, column, !checked || inside(column, l->in));
    if (!checked || o >= oldest) {
        finish4(l, k, k->sum[oldest], to_float);
        k->y += l->ldy;
    }
    if (stride == 2) {
        pass_column4(l, k, form, rows, width, stride, 1, column + 1,
                     !checked || inside(column + 1, l->in));
    }
    UNROLL_LINE for (int j = 0; j < 4; j++) {
        UNROLL_LINE for (int i = oldest; i > 0; i--) {
            k->sum[i][j] = k->sum[i - 1][j];
        }
        k->sum[0][j] = k->start[j];
    }
}

KILN_INLINE void begin4(const line *l, roller4 *k, int form, int rows, int width, int64_t c) {
    const int groups = (rows + form - 1) / form;
    const kiln_q8_epilogue *e = l->epilogue;
    kiln_vi scale[4], offset[4];
    k->c = c;
    k->zero = e->zero;
    if (!e->to_float) {
        k->lo = (uint8_t)((int32_t)e->lo + e->zero);
        k->hi = (uint8_t)((int32_t)e->hi + e->zero);
    }
    UNROLL_LINE for (int i = 0; i < groups * width; i++) {
        lanes_load_b(form, k->w[i], l->w + (i * l->channels + c) * form);
    }
    lanes_load(k->start, e->start + c);
    lanes_load(scale, e->scale + c);
    lanes_load(offset, e->offset + c);
    UNROLL_LINE for (int j = 0; j < 4; j++) {
        k->scale[j] = vi_as_vf(scale[j]);
        k->offset[j] = vi_as_vf(offset[j]);
    }
}

KILN_INLINE void begin_line4(const line *l, roller4 *k, const line_at *at, int rows, int oldest,
                             bool to_float) {
    k->y = at->y + (k->c - l->begin) * (to_float ? (int64_t)sizeof(float) : 1);
    UNROLL_LINE for (int r = 0; r < rows; r++) {
        k->row[r] = at->row[r];
    }
    UNROLL_LINE for (int j = 0; j < 4; j++) {
        UNROLL_LINE for (int i = 0; i <= oldest; i++) {
            k->sum[i][j] = k->start[j];
        }
    }
}

KILN_INLINE void rolling_four(const line *l, int form, int rows, int width, int stride,
                              bool to_float, int64_t c) {
    const int oldest = (width - 1) / stride;
    const int64_t steps = l->out + oldest;
    const span inner = unchecked(l, steps, oldest, stride);
    roller4 k;
    begin4(l, &k, form, rows, width, c);
    for (const line_at *at = l->at; at < l->at + l->count; at++) {
        begin_line4(l, &k, at, rows, oldest, to_float);
        int64_t o = 0;
        for (; o < inner.begin; o++) {
            roll4(l, &k, form, rows, width, stride, to_float, o, true);
        }
        for (; o < inner.end; o++) {
            roll4(l, &k, form, rows, width, stride, to_float, o, false);
        }
        for (; o < steps; o++) {
            roll4(l, &k, form, rows, width, stride, to_float, o, true);
        }
    }
}

/* As many channels from the lines' first on as are worth four vectors at a time; returns where the
 * rest begins. The last four may overlap those before. */
KILN_INLINE int64_t rolling_fours(const line *l, int form, int rows, int width, int stride,
                                  bool to_float) {
    int64_t c = l->begin;
    const bool able = l->end - c >= LANES_CHANNELS && !l->at[0].residual;
    while (able && l->end - c > KILN_VLEN) {
        int64_t at = i64_min(c, l->end - LANES_CHANNELS);
        if (!four_fit(l->epilogue, at)) {
            break;
        }
        rolling_four(l, form, rows, width, stride, to_float, at);
        c = at + LANES_CHANNELS;
    }
    return c;
}

/* The last vector overlaps the one before when the channels do not come out even. */
KILN_INLINE void rolling_line(const line *l, int form, int rows, int width, int stride,
                              bool to_float) {
    const bool fours = KILN_VLEN >= 8 && width <= FOUR_WIDTH;
    int64_t c = fours ? rolling_fours(l, form, rows, width, stride, to_float) : l->begin;
    for (; c < l->end; c += KILN_VLEN) {
        int64_t at = i64_min(c, l->end - KILN_VLEN);
        rolling_vector(l, form, rows, width, stride, to_float, at);
    }
}

/* X(form, rows, width, stride) */
#define LINES_OF(X, form, rows, width) X(form, rows, width, 1) X(form, rows, width, 2)
#define LINES(X, form)      \
    LINES_OF(X, form, 1, 3) \
    LINES_OF(X, form, 1, 5) \
    LINES_OF(X, form, 1, 7) \
    LINES_OF(X, form, 3, 3) \
    LINES_OF(X, form, 5, 5) \
    LINES_OF(X, form, 7, 7)

#define DEFINE_LINE(form, rows, width, stride)                             \
    static void line_##form##_##rows##_##width##_##stride(const line *l) { \
        if (l->epilogue->to_float) {                                       \
            rolling_line(l, form, rows, width, stride, true);              \
        } else {                                                           \
            rolling_line(l, form, rows, width, stride, false);             \
        }                                                                  \
    }
LINES(DEFINE_LINE, PAIRS)
LINES(DEFINE_LINE, QUADS)

#define NAME_LINE(form, rows, width, stride) \
    [rows != 1][width / 2 - 1][stride - 1] = line_##form##_##rows##_##width##_##stride,
static const line_fn rolling[2][2][3][2] = {{LINES(NAME_LINE, PAIRS)}, {LINES(NAME_LINE, QUADS)}};

#endif
