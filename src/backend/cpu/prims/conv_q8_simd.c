/* conv_q8_simd.c - 8-bit convolutions as products of staged patches. Compiled once per ISA.
 *
 * Legend as in conv_simd.c: a tap is one kernel position, a pixel one output position; depth the
 * input channels of a group, taps * depth the length K of a sum; cols the output channels of a
 * group; lines are rows of output pixels along W. */
#include "backend/cpu/prims/conv_q8.h"
#include "backend/cpu/prims/conv_walk.h"
#include "backend/cpu/prims/q8_floats.h"
#include "backend/cpu/prims/q8_stage.h"

/* The problem with what follows from it. */
typedef struct conv_q8_job {
    const kiln_gemm_q8_prims *q;
    const kiln_conv_args *a;
    bool wide;
    bool joined; /* the taps of a kernel row lie side by side */
    int64_t depth, cols, taps, k;
    int64_t row_bytes;    /* of a staged patch */
    int64_t rows;         /* most pixels of one block */
    int64_t row_blocks;   /* blocks of pixels, or of lines when transposed */
    int64_t group_panels; /* panels of a unit */
    int64_t col_blocks;
} conv_q8_job;

static conv_q8_job describe(const kiln_gemm_q8_prims *q, const kiln_conv_args *a) {
    conv_q8_job c = {.q = q, .a = a, .wide = q->group == 2};
    c.depth = a->c_in / a->groups;
    c.cols = a->c_out / a->groups;
    c.taps = volume(a->kernel);
    c.k = c.taps * c.depth;
    c.joined = a->dilation[2] == 1 && a->x_stride[2] == c.depth;
    c.row_bytes = q->stage_bytes(c.k);
    const int64_t lines = a->batch * a->out[0] * a->out[1], pixels = lines * a->out[2];
    const int64_t panels = q->panels(c.cols);
    const q8_unit u =
        q8_cut(pixels, c.k, panels, q->nr, q->mr, c.row_bytes, a->groups, &a->blocking);
    if (a->transposed) {
        c.row_blocks = i64_ceil_div(lines, i64_max(1, u.rows / i64_max(1, a->out[2])));
        c.rows = line_pixels(a);
    } else {
        c.row_blocks = i64_ceil_div(pixels, u.rows);
        c.rows = i64_ceil_div(pixels, i64_max(1, c.row_blocks));
    }
    c.group_panels = u.panels;
    c.col_blocks = i64_ceil_div(panels, u.panels);
    return c;
}

/* A tap of a transposed convolution's line: its input line, NULL for padding, and the pixel there
 * that the first output reads. */
typedef struct line_tap {
    const uint8_t *line;
    int64_t w;
} line_tap;

static int64_t stage_area(const conv_q8_job *c) {
    return round64(c->rows * c->row_bytes + STAGE_SLACK);
}

static int64_t tap_area(const conv_q8_job *c) {
    return c->a->transposed ? round64(c->taps * (int64_t)sizeof(line_tap)) : 0;
}

/* Behind the staged patches and the taps: the floats that wait for their post, of a slice of a
 * block, or of a unit's columns of a line. */
static float *waiting(const conv_q8_job *c, char *scratch) {
    return (float *)(void *)(scratch + stage_area(c) + tap_area(c));
}

static int64_t scratch_of(const kiln_gemm_q8_prims *q, const kiln_conv_args *a, bool narrows) {
    if (is_gemm(a)) {
        kiln_gemm_q8_args g = {.m = a->batch * volume(a->out),
                               .n = a->c_out,
                               .k = a->c_in,
                               .epilogue = {.narrows = narrows}};
        return q->scratch_bytes(&g);
    }
    conv_q8_job c = describe(q, a);
    int64_t floats = 0;
    for (int64_t rows = c.rows; narrows && !a->transposed && rows > 0; rows--) {
        floats = i64_max(floats, narrow_bytes(rows, q->nr));
    }
    if (narrows && a->transposed) {
        floats = a->out[2] * i64_min(c.cols, c.group_panels * q->nr) * (int64_t)sizeof(float);
    }
    return stage_area(&c) + tap_area(&c) + floats;
}

/* ---- Staging ---- */

/* One kernel row of a patch: `taps` pixels of depth bytes, the first at input pixel w of `line`,
 * which is NULL in the padding. */
KILN_INLINE void stage_kernel_row(const conv_q8_job *c, uint8_t zero, const uint8_t *line,
                                  int64_t w, char *row, int64_t at) {
    const kiln_conv_args *a = c->a;
    const int64_t taps = a->kernel[2], step = a->dilation[2], depth = c->depth;
    if (!line) {
        stage_fill(c->wide, row, at, zero, taps * depth);
        return;
    }
    if (c->joined) {
        int64_t first = i64_min(taps, i64_max(0, -w));
        int64_t end = i64_max(first, i64_min(taps, a->in[2] - w));
        if (first > 0) {
            stage_fill(c->wide, row, at, zero, first * depth);
        }
        if (end > first) {
            stage_copy(c->wide, row, at + first * depth, line + (w + first) * depth,
                       (end - first) * depth);
        }
        if (end < taps) {
            stage_fill(c->wide, row, at + end * depth, zero, (taps - end) * depth);
        }
        return;
    }
    for (int64_t t = 0; t < taps; t++, w += step, at += depth) {
        if (inside(w, a->in[2])) {
            stage_copy(c->wide, row, at, line + w * a->x_stride[2], depth);
        } else {
            stage_fill(c->wide, row, at, zero, depth);
        }
    }
}

static void stage_pixel(const conv_q8_job *c, uint8_t zero, const uint8_t *x, const position *p,
                        char *row) {
    const kiln_conv_args *a = c->a;
    const int64_t w = p->w * a->stride[2] - a->pad[2], taps = a->kernel[2], depth = c->depth;
    const bool wide = c->wide, inner = c->joined && w >= 0 && w + taps <= a->in[2];
    const int64_t lines = a->kernel[1], line_step = a->x_stride[1], dilation = a->dilation[1];
    const int64_t height = a->in[1], h0 = p->h * a->stride[1] - a->pad[1];
    int64_t at = 0, d = p->d * a->stride[0] - a->pad[0];
    x += p->n * a->x_batch;
    for (int64_t kd = 0; kd < a->kernel[0]; kd++, d += a->dilation[0]) {
        const uint8_t *plane = inside(d, a->in[0]) ? x + d * a->x_stride[0] : NULL;
        int64_t h = h0;
        for (int64_t kh = 0; kh < lines; kh++, h += dilation, at += taps * depth) {
            const uint8_t *line = plane && inside(h, height) ? plane + h * line_step : NULL;
            if (inner && line) {
                stage_copy(wide, row, at, line + w * depth, taps * depth);
            } else {
                stage_kernel_row(c, zero, line, w, row, at);
            }
        }
    }
    stage_end(wide, row, at);
}

/* ---- Running ---- */

/* A unit's columns: panels of one group. */
typedef struct column_block {
    int64_t group;
    int64_t first; /* in the group */
    int64_t count;
    int64_t channel; /* the first one's output channel */
} column_block;

static column_block columns_at(const conv_q8_job *c, int64_t i) {
    column_block r = {.group = i / c->col_blocks};
    int64_t width = c->group_panels * c->q->nr;
    r.first = i % c->col_blocks * width;
    r.count = i64_min(width, c->cols - r.first);
    r.channel = r.group * c->cols + r.first;
    return r;
}

/* Where the packed matrix of residue r begins, in a group, `before` rows of B standing in the
 * residues before it: every matrix starts at a multiple of 4 rows and has 4 rows of room. */
static int64_t residue_bytes(const kiln_gemm_q8_prims *q, int64_t cols, int64_t before, int64_t r) {
    return i64_ceil_div(before + 4 * r, 4) * q->packed_bytes(4, cols);
}

/* Position of tap k along each axis. */
static void tap_position(const kiln_conv_args *a, int64_t k, int64_t tap[3]) {
    tap[0] = k / (a->kernel[1] * a->kernel[2]);
    tap[1] = k / a->kernel[2] % a->kernel[1];
    tap[2] = k % a->kernel[2];
}

static int64_t residue_of_tap(const kiln_conv_args *a, int64_t k) {
    int64_t tap[3], r = 0;
    tap_position(a, k, tap);
    for (int i = 0; i < 3; i++) {
        r = r * a->stride[i] + tap[i] * a->dilation[i] % a->stride[i];
    }
    return r;
}

static int64_t taps_of_residue(const kiln_conv_args *a, int64_t r) {
    return taps_of(a, 0, r / (a->stride[1] * a->stride[2])) *
           taps_of(a, 1, r / a->stride[2] % a->stride[1]) * taps_of(a, 2, r % a->stride[2]);
}

/* A block of m staged rows of length k whose outputs are the rows from `row` on, `step` apart.
 * floats: where they wait for their post, or NULL. */
static void multiply_block(const conv_q8_job *c, const kiln_conv_q8_args *g,
                           const column_block *cols, const char *staged, int64_t m, int64_t k,
                           const int8_t *b, int64_t row, int64_t step, int64_t residue_row,
                           float *floats) {
    const kiln_conv_args *a = c->a;
    const int64_t item = g->epilogue.to_float ? (int64_t)sizeof(float) : 1;
    kiln_q8_epilogue e = g->epilogue;
    q8_aim(&e, row, cols->channel);
    e.start += residue_row * g->ld_start;
    e.ld_residual *= step;
    const int64_t words = i64_ceil_div(k, c->q->group);
    kiln_gemm_q8_block block = {.m = m,
                                .n = cols->count,
                                .k = k,
                                .a = staged,
                                .lda_bytes = c->row_bytes,
                                .b = b + cols->first * words * c->q->group,
                                .c = (char *)g->y + (row * a->ldy + cols->channel) * item,
                                .ldc = a->ldy * step,
                                .epilogue = &e};
    if (floats && !a->transposed) {
        narrow_block(&block, c->q->nr, c->q->group, c->q->block, row, cols->channel, floats);
        return;
    }
    if (floats) {
        block.c = floats + row % a->out[2] * cols->count;
        block.ldc = cols->count * step;
    }
    c->q->block(&block);
}

static void run_pixels(const conv_q8_job *c, const kiln_conv_q8_args *g, const column_block *cols,
                       int64_t row_block, char *scratch) {
    const kiln_conv_args *a = c->a;
    int64_t total = a->batch * volume(a->out);
    int64_t first = i64_part(total, c->row_blocks, row_block);
    int64_t count = i64_part(total, c->row_blocks, row_block + 1) - first;
    const uint8_t *x = g->x + cols->group * c->depth;
    position p = position_of(a, first);
    for (int64_t i = 0; i < count; i++, advance(a, &p)) {
        stage_pixel(c, g->x_zero, x, &p, scratch + i * c->row_bytes);
    }
    const int8_t *w = (const int8_t *)g->w + cols->group * c->q->packed_bytes(c->k, c->cols);
    float *floats = g->epilogue.narrows ? waiting(c, scratch) : NULL;
    multiply_block(c, g, cols, scratch, count, c->k, w, first, 1, 0, floats);
    floats_block(&g->epilogue, g->y, a->ldy, first, count, cols->channel, cols->count);
}

/* The taps that reach the pixels first, first + stride, ... of the line at p, in the order of
 * pack_transposed. Returns how many. */
static int64_t point_taps(const conv_q8_job *c, const uint8_t *x, const position *p, int64_t first,
                          line_tap *out) {
    const kiln_conv_args *a = c->a;
    const int64_t at[3] = {p->d, p->h, first};
    int64_t n = 0;
    for (int64_t k = 0; k < c->taps; k++) {
        int64_t tap[3];
        bool mine = true;
        tap_position(a, k, tap);
        for (int i = 0; i < 3; i++) {
            mine = mine && (at[i] + a->pad[i] - tap[i] * a->dilation[i]) % a->stride[i] == 0;
        }
        if (mine) {
            int64_t d = source_of(a, 0, p->d, tap[0]), h = source_of(a, 1, p->h, tap[1]);
            bool valid = d >= 0 && h >= 0;
            out[n].line = valid ? x + d * a->x_stride[0] + h * a->x_stride[1] : NULL;
            out[n++].w = (first + a->pad[2] - tap[2] * a->dilation[2]) / a->stride[2];
        }
    }
    return n;
}

/* Stages the m pixels of a residue of a line: from one to the next every tap moves on by one. */
static void stage_residue(const conv_q8_job *c, uint8_t zero, const line_tap *taps, int64_t n,
                          int64_t m, char *row) {
    const kiln_conv_args *a = c->a;
    for (int64_t i = 0; i < m; i++, row += c->row_bytes) {
        for (int64_t t = 0; t < n; t++) {
            int64_t w = taps[t].w + i;
            if (taps[t].line && inside(w, a->in[2])) {
                stage_copy(c->wide, row, t * c->depth, taps[t].line + w * a->x_stride[2], c->depth);
            } else {
                stage_fill(c->wide, row, t * c->depth, zero, c->depth);
            }
        }
        stage_end(c->wide, row, n * c->depth);
    }
}

/* One line of a transposed convolution: the pixels of each residue along W are a block of their
 * own, `stride` rows apart. */
static void run_line(const conv_q8_job *c, const kiln_conv_q8_args *g, const column_block *cols,
                     int64_t line, char *scratch) {
    const kiln_conv_args *a = c->a;
    line_tap *taps = (line_tap *)(void *)(scratch + stage_area(c));
    float *floats = g->epilogue.narrows ? waiting(c, scratch) : NULL;
    position p = position_of(a, line * a->out[2]);
    const uint8_t *x = g->x + p.n * a->x_batch + cols->group * c->depth;
    const int8_t *w =
        (const int8_t *)g->w + cols->group * residue_bytes(c->q, c->cols, c->k, volume(a->stride));
    int64_t rd = residue_of(a, 0, p.d), rh = residue_of(a, 1, p.h);
    residue d = residue_at(a, 0, rd), h = residue_at(a, 1, rh);
    int64_t before = (d.before * a->kernel[1] + d.count * h.before) * a->kernel[2];
    for (int64_t first = 0; first < i64_min(a->stride[2], a->out[2]); first++) {
        int64_t rw = residue_of(a, 2, first);
        residue v = residue_at(a, 2, rw);
        int64_t r = (rd * a->stride[1] + rh) * a->stride[2] + rw;
        int64_t n = point_taps(c, x, &p, first, taps);
        int64_t m = i64_ceil_div(a->out[2] - first, a->stride[2]);
        int64_t skipped = (before + d.count * h.count * v.before) * c->depth;
        stage_residue(c, g->x_zero, taps, n, m, scratch);
        multiply_block(c, g, cols, scratch, m, n * c->depth,
                       w + residue_bytes(c->q, c->cols, skipped, r), line * a->out[2] + first,
                       a->stride[2], r, floats);
    }
    if (floats) {
        floats_at(g->epilogue.floats, floats, cols->count, line * a->out[2], a->out[2],
                  cols->channel, cols->count);
    }
}

static kiln_gemm_q8_args as_gemm(const kiln_conv_args *a, const kiln_conv_q8_args *g) {
    return (kiln_gemm_q8_args){.m = a->batch * volume(a->out),
                               .n = a->c_out,
                               .k = a->c_in,
                               .a = g ? g->x : NULL,
                               .lda = a->x_stride[2],
                               .b = g ? g->w : NULL,
                               .c = g ? g->y : NULL,
                               .ldc = a->ldy,
                               .epilogue = g ? g->epilogue : (kiln_q8_epilogue){.lo = 0}};
}

static int64_t tiles_of_conv(const kiln_gemm_q8_prims *q, const kiln_conv_args *a) {
    if (a->batch <= 0 || volume(a->out) <= 0 || a->c_out <= 0) {
        return 0;
    }
    if (is_gemm(a)) {
        kiln_gemm_q8_args g = as_gemm(a, NULL);
        return q->tiles(&g);
    }
    conv_q8_job c = describe(q, a);
    return c.row_blocks * c.col_blocks * a->groups;
}

static void run_conv(const kiln_gemm_q8_prims *q, const kiln_conv_q8_args *g, int64_t begin,
                     int64_t end, void *scratch) {
    const kiln_conv_args *a = &g->shape;
    if (begin >= end) {
        return;
    }
    if (is_gemm(a)) {
        kiln_gemm_q8_args gemm = as_gemm(a, g);
        q->run(&gemm, begin, end, scratch);
        return;
    }
    const conv_q8_job c = describe(q, a);
    for (int64_t i = begin; i < end; i++) {
        column_block cols = columns_at(&c, i / c.row_blocks);
        if (!a->transposed) {
            run_pixels(&c, g, &cols, i % c.row_blocks, scratch);
            continue;
        }
        int64_t lines = a->batch * a->out[0] * a->out[1];
        int64_t first = i64_part(lines, c.row_blocks, i % c.row_blocks);
        int64_t last = i64_part(lines, c.row_blocks, i % c.row_blocks + 1);
        for (int64_t line = first; line < last; line++) {
            run_line(&c, g, &cols, line, scratch);
        }
        floats_block(&g->epilogue, g->y, a->ldy, first * a->out[2], (last - first) * a->out[2],
                     cols.channel, cols.count);
    }
}

/* ---- Packing ---- */

static int64_t packed_of(const kiln_gemm_q8_prims *q, const kiln_conv_args *a) {
    int64_t k = volume(a->kernel) * (a->c_in / a->groups), cols = a->c_out / a->groups;
    return a->groups * (a->transposed ? residue_bytes(q, cols, k, volume(a->stride))
                                      : q->packed_bytes(k, cols));
}

static void pack_conv(const kiln_gemm_q8_prims *q, int8_t *dst, const int8_t *src,
                      const kiln_conv_args *a) {
    const int64_t taps = volume(a->kernel), depth = a->c_in / a->groups;
    const int64_t k = taps * depth, cols = a->c_out / a->groups, panels = q->panels(cols);
    const int64_t group_bytes = packed_of(q, a) / a->groups;
    for (int64_t g = 0; g < a->groups; g++, dst += group_bytes, src += k * cols) {
        if (!a->transposed) {
            q->pack(dst, src, k, cols, 1, k, 0, 0, panels);
            continue;
        }
        for (int64_t r = 0, before = 0; r < volume(a->stride); r++) {
            int64_t n = taps_of_residue(a, r);
            q->pack(dst + residue_bytes(q, cols, before * depth, r), src + before * depth,
                    n * depth, cols, 1, k, 0, 0, panels);
            before += n;
        }
    }
}

/* Taps by residue, ascending in each. */
static int64_t tap_of(const kiln_conv_args *a, int64_t place) {
    if (!a->transposed) {
        return place;
    }
    for (int64_t r = 0; r < volume(a->stride); r++) {
        int64_t n = taps_of_residue(a, r);
        for (int64_t k = 0; place < n && k < volume(a->kernel); k++) {
            if (residue_of_tap(a, k) == r && place-- == 0) {
                return k;
            }
        }
        place -= n;
    }
    return 0;
}

/* ---- Tables: one for each form of the product ---- */

#define CONV_PRIMS(name, product, symbol)                                            \
    static int64_t name##_packed_bytes(const kiln_conv_args *a) {                    \
        return packed_of(&product, a);                                               \
    }                                                                                \
    static void name##_pack(void *dst, const int8_t *src, const kiln_conv_args *a) { \
        pack_conv(&product, dst, src, a);                                            \
    }                                                                                \
    static int64_t name##_scratch_bytes(const kiln_conv_args *a, bool narrows) {     \
        return scratch_of(&product, a, narrows);                                     \
    }                                                                                \
    static int64_t name##_tiles(const kiln_conv_args *a) {                           \
        return tiles_of_conv(&product, a);                                           \
    }                                                                                \
    static void name##_run(const kiln_conv_q8_args *g, int64_t begin, int64_t end,   \
                           void *scratch) {                                          \
        run_conv(&product, g, begin, end, scratch);                                  \
    }                                                                                \
    const kiln_conv_q8_prims symbol = {                                              \
        .isa = KILN_ISA_NAME,                                                        \
        .tap = tap_of,                                                               \
        .residue = residue_of_tap,                                                   \
        .packed_bytes = name##_packed_bytes,                                         \
        .pack = name##_pack,                                                         \
        .scratch_bytes = name##_scratch_bytes,                                       \
        .tiles = name##_tiles,                                                       \
        .run = name##_run,                                                           \
    };

CONV_PRIMS(conv_pairs, KILN_ISA_SYMBOL(kiln_gemm_q8_prims), KILN_ISA_SYMBOL(kiln_conv_q8_prims))
#if defined(KILN_ISA_avx512)
CONV_PRIMS(conv_quads, kiln_gemm_q8_prims_avx512vnni, kiln_conv_q8_prims_avx512vnni)
CONV_PRIMS(conv_tiles, kiln_gemm_q8_prims_amx, kiln_conv_q8_prims_amx)
#elif defined(KILN_ISA_avx2)
CONV_PRIMS(conv_quads, kiln_gemm_q8_prims_avxvnni, kiln_conv_q8_prims_avxvnni)
#elif defined(KILN_Q8_QUADS)
CONV_PRIMS(conv_quads, KILN_Q8_QUADS, KILN_Q8_QUADS_CONV)
#endif
#if defined(KILN_Q8_TILES)
CONV_PRIMS(conv_tiles, KILN_Q8_TILES, KILN_Q8_TILES_CONV)
#endif
