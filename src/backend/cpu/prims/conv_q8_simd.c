/* conv_q8_simd.c - 8-bit convolutions as products of staged lines, or patches. Compiled per ISA.
 *
 * Legend as in conv_simd.c: a tap is one kernel position, a pixel one output position; depth the
 * input channels of a group, taps * depth the length K of a sum; cols the output channels of a
 * group; lines are rows of pixels along W; a plane is one D of an image. */
#include "backend/cpu/prims/conv_q8.h"
#include "backend/cpu/prims/conv_walk.h"
#include "backend/cpu/prims/q8_floats.h"
#include "backend/cpu/prims/q8_stage.h"
#include "backend/cpu/prims/tiles.h"

/* The problem with what follows from it. */
typedef struct conv_q8_job {
    const kiln_gemm_q8_prims *q;
    const kiln_conv_args *a;
    bool wide;
    bool joined;    /* the taps of a kernel row lie side by side */
    bool lines;     /* staged as such, not patches */
    bool rows_last; /* units that follow each other share rows */
    int64_t groups; /* of columns: joined ones count as one */
    int64_t depth, cols, taps, k;
    int64_t pieces, words; /* of a row: patches are one */
    int64_t row_bytes;     /* of a staged patch or line */
    int64_t rows;          /* most pixels of one block; lines in `lines` */
    int64_t row_blocks;    /* blocks of pixels, or of lines when transposed or staged as lines */
    int64_t group_panels;  /* panels of a unit */
    int64_t col_blocks;
} conv_q8_job;

enum {
    SHARED_BYTES = 512 * 1024, /* packed weights up to this are near, whatever the order of units */
    LINES_BYTES = 256 * 1024,  /* most staged bytes for one output line */
    SHORT_LINE = 4,
};

static bool stages_lines(const kiln_conv_args *a) {
    return !a->transposed && a->tactic != KILN_CONV_PATCH && a->kernel[0] == 1 &&
           a->kernel[1] * a->kernel[2] > 1;
}

/* A piece is a kernel row, else a tap. */
static bool pieces_are_rows(const kiln_conv_args *a) {
    return a->groups == 1 && a->dilation[2] == 1;
}

/* Groups that are joined to one: as many as a piece has room for. */
static int64_t joined_groups(const kiln_gemm_q8_prims *q, const kiln_conv_args *a) {
    const int64_t depth = a->c_in / a->groups;
    int64_t n = 1;
    for (int64_t i = 2; i <= a->groups && i * depth <= q->piece; i++) {
        n = a->groups % i == 0 ? i : n;
    }
    return q->piece > q->group ? n : 1;
}

/* What the layout of the packed weights depends on. */
static conv_q8_job layout_of(const kiln_gemm_q8_prims *q, const kiln_conv_args *a) {
    conv_q8_job c = {.q = q, .a = a, .wide = q->group == 2, .taps = volume(a->kernel)};
    c.lines = stages_lines(a);
    const int64_t join = c.lines ? joined_groups(q, a) : 1;
    c.groups = a->groups / join;
    c.depth = a->c_in / c.groups;
    c.cols = a->c_out / c.groups;
    c.k = c.taps * c.depth;
    c.pieces = !c.lines ? 1 : pieces_are_rows(a) ? a->kernel[1] : c.taps;
    const int64_t k = c.k / c.pieces;
    c.words = (c.lines ? i64_ceil_div(k, q->piece) * q->piece : k + q->group - 1) / q->group;
    return c;
}

/* Pixels of tiles' rows that one output line after the other takes. */
static int64_t line_pitch(const kiln_conv_args *a) {
    return line_reach(a) / a->stride[2];
}

/* Tiles of rows that a plane cut into blocks of n lines takes. */
static int64_t tiles_of_lines(const kiln_conv_args *a, int64_t n) {
    const int64_t rest = a->out[1] % n;
    const tile_lines whole = tile_lines_of(n, a->out[2], line_pitch(a));
    const tile_lines last = tile_lines_of(i64_max(1, rest), a->out[2], line_pitch(a));
    return a->out[1] / n * tile_lines_count(&whole, n) +
           (rest > 0 ? tile_lines_count(&last, rest) : 0);
}

/* Output lines of a block: about so many pixels, but not so few lines that most of what is staged
 * is staged for the blocks beside it, too; for tile registers a number that fills them well. */
static int64_t cut_lines_of(const conv_q8_job *c, int64_t pixels) {
    const kiln_conv_args *a = c->a;
    const bool ruled = a->blocking.block_rows == 0;
    int64_t n = i64_max(1, i64_min(a->out[1], (pixels + a->out[2] / 2) / i64_max(1, a->out[2])));
    while (ruled && n < a->out[1] && lines_under(a, n) > 2 * n * a->stride[1]) {
        n++;
    }
    int64_t best = n;
    for (int64_t i = n; c->q->mr > TILE_REGISTER_ROWS && i <= i64_min(a->out[1], 2 * n); i++) {
        best = tiles_of_lines(a, i) < tiles_of_lines(a, best) ? i : best;
    }
    return best;
}

static void cut_lines_job(conv_q8_job *c) {
    const kiln_conv_args *a = c->a;
    const kiln_gemm_q8_prims *q = c->q;
    const int64_t elements = line_reach(a) * a->c_in, panels = q->panels(c->cols);
    const int64_t planes = a->batch * a->out[0], pixels = planes * a->out[1] * a->out[2];
    const int64_t k = c->pieces * c->words * q->group;
    c->row_bytes = elements * (c->wide ? 2 : 1);
    const int64_t near = i64_max(1, c->row_bytes * a->stride[1] / i64_max(1, a->out[2]));
    const q8_unit u = q8_cut(pixels, k, panels, q->nr, q->mr, near, c->groups, &a->blocking);
    c->rows = cut_lines_of(c, u.rows);
    c->row_blocks = planes * i64_ceil_div(a->out[1], c->rows);
    c->group_panels = u.panels;
    c->col_blocks = i64_ceil_div(panels, u.panels);
    c->rows_last = c->groups > 1 || k * a->c_out <= SHARED_BYTES;
}

/* Whether zeros complete the pieces, or groups are joined: no patch has that layout. */
static bool is_completed(const conv_q8_job *c) {
    return c->groups != c->a->groups || c->pieces * c->words * c->q->group != c->k;
}

/* Lines too short for a register tile, or so long that few of them would be near. */
static bool prefers_patches(const conv_q8_job *c) {
    const kiln_conv_args *a = c->a;
    const int64_t bytes = line_reach(a) * a->c_in * (c->wide ? 2 : 1) * line_places(a, 1);
    const bool tiles = c->q->mr > TILE_REGISTER_ROWS;
    return !is_completed(c) && ((!tiles && a->out[2] < SHORT_LINE) || bytes > LINES_BYTES);
}

static conv_q8_job describe(const kiln_gemm_q8_prims *q, const kiln_conv_args *a) {
    conv_q8_job c = layout_of(q, a);
    if (c.lines && !prefers_patches(&c)) {
        cut_lines_job(&c);
        return c;
    }
    if (c.lines) { /* the packed weights are the same */
        c.lines = false;
        c.words *= c.pieces;
        c.pieces = 1;
    }
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

/* Most pixels of one block. */
static int64_t block_pixels(const conv_q8_job *c) {
    return c->lines ? c->rows * c->a->out[2] : c->rows;
}

/* A tap of a transposed convolution's line: its input line, NULL for padding, and the pixel there
 * that the first output reads. */
typedef struct line_tap {
    const uint8_t *line;
    int64_t w;
} line_tap;

static int64_t stage_area(const conv_q8_job *c) {
    const int64_t rows = c->lines ? line_places(c->a, c->rows) : c->rows;
    return round64(rows * c->row_bytes + STAGE_SLACK);
}

/* Taps of a line, or the pieces. */
static int64_t tap_area(const conv_q8_job *c) {
    return round64(c->a->transposed ? c->taps * (int64_t)sizeof(line_tap)
                                    : c->pieces * (int64_t)sizeof(char *));
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
    for (int64_t rows = block_pixels(&c); narrows && !a->transposed && rows > 0; rows--) {
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

/* An input line with its padding, all of it where `line` is NULL. */
static void stage_line(const conv_q8_job *c, uint8_t zero, const uint8_t *line, char *row) {
    const kiln_conv_args *a = c->a;
    const int64_t reach = line_reach(a), pixel = a->c_in, step = a->x_stride[2];
    const int64_t first = line ? i64_max(0, i64_min(reach, a->pad[2])) : reach;
    const int64_t end = line ? i64_max(first, i64_min(reach, a->in[2] + a->pad[2])) : reach;
    stage_fill(c->wide, row, 0, zero, first * pixel);
    if (first < end && step == pixel) {
        stage_copy(c->wide, row, first * pixel, line + (first - a->pad[2]) * pixel,
                   (end - first) * pixel);
    }
    for (int64_t w = first; step != pixel && w < end; w++) {
        stage_copy(c->wide, row, w * pixel, line + (w - a->pad[2]) * step, pixel);
    }
    stage_fill(c->wide, row, end * pixel, zero, (reach - end) * pixel);
}

/* The input lines under output lines [begin, begin + n) of a plane. */
static void stage_lines(const conv_q8_job *c, const kiln_conv_q8_args *g, int64_t plane,
                        int64_t begin, int64_t n, char *scratch) {
    const kiln_conv_args *a = c->a;
    const int64_t d = plane % a->out[0] * a->stride[0] - a->pad[0];
    const int64_t h0 = begin * a->stride[1] - a->pad[1];
    const uint8_t *x = g->x + plane / a->out[0] * a->x_batch;
    for (int64_t i = 0; i < lines_under(a, n); i++) {
        const bool is_there = inside(d, a->in[0]) && inside(h0 + i, a->in[1]);
        stage_line(c, g->x_zero,
                   is_there ? x + d * a->x_stride[0] + (h0 + i) * a->x_stride[1] : NULL,
                   scratch + line_place(a, n, i) * c->row_bytes);
    }
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

/* A block's staged rows are set; its outputs are the rows from `row` on, `step` apart. b: of the
 * group. floats: where they wait for their post, or NULL. */
static void multiply_block(const conv_q8_job *c, const kiln_conv_q8_args *g,
                           const column_block *cols, kiln_gemm_q8_block block, const int8_t *b,
                           int64_t row, int64_t step, int64_t residue_row, float *floats) {
    const kiln_conv_args *a = c->a;
    const int64_t item = g->epilogue.to_float ? (int64_t)sizeof(float) : 1;
    kiln_q8_epilogue e = g->epilogue;
    q8_aim(&e, row, cols->channel);
    e.start += residue_row * g->ld_start;
    e.ld_residual *= step;
    block.n = cols->count;
    block.b = b + cols->first * block.pieces * block.words * c->q->group;
    block.c = (char *)g->y + (row * a->ldy + cols->channel) * item;
    block.ldc = a->ldy * step;
    block.epilogue = &e;
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

/* m staged patches of k elements. */
static kiln_gemm_q8_block patches_of(const conv_q8_job *c, const char *const *staged, int64_t m,
                                     int64_t k) {
    return (kiln_gemm_q8_block){.m = m,
                                .run = m,
                                .pieces = 1,
                                .words = i64_ceil_div(k, c->q->group),
                                .row = staged,
                                .lda_bytes = c->row_bytes};
}

static const int8_t *weights_of(const conv_q8_job *c, const kiln_conv_q8_args *g, int64_t group) {
    const int64_t k = c->pieces * c->words * c->q->group;
    return (const int8_t *)g->w + group * c->q->packed_bytes(k, c->cols);
}

/* Block `i` of lines; *held is the one that is staged. */
static void run_lines(const conv_q8_job *c, const kiln_conv_q8_args *g, const column_block *cols,
                      int64_t i, int64_t *held, char *scratch) {
    const kiln_conv_args *a = c->a;
    const int64_t blocks = i64_ceil_div(a->out[1], c->rows), plane = i / blocks;
    const int64_t begin = i % blocks * c->rows, n = i64_min(c->rows, a->out[1] - begin);
    const int64_t item = c->wide ? 2 : 1, row = (plane * a->out[1] + begin) * a->out[2];
    const char **piece = (const char **)(void *)(scratch + stage_area(c));
    const bool rows = pieces_are_rows(a);
    if (*held != i) {
        stage_lines(c, g, plane, begin, n, scratch);
        *held = i;
    }
    for (int64_t p = 0; p < c->pieces; p++) {
        const int64_t kh = rows ? p : p / a->kernel[2], kw = rows ? 0 : p % a->kernel[2];
        piece[p] = scratch + line_place(a, n, kh * a->dilation[1]) * c->row_bytes +
                   kw * a->dilation[2] * a->c_in * item;
    }
    const kiln_gemm_q8_block block = {.m = n * a->out[2],
                                      .run = a->out[2],
                                      .run_bytes = c->row_bytes,
                                      .pieces = c->pieces,
                                      .words = c->words,
                                      .row = piece,
                                      .shift = cols->group * c->depth * item,
                                      .lda_bytes = a->stride[2] * a->c_in * item};
    float *floats = g->epilogue.narrows ? waiting(c, scratch) : NULL;
    multiply_block(c, g, cols, block, weights_of(c, g, cols->group), row, 1, 0, floats);
    floats_block(&g->epilogue, g->y, a->ldy, row, block.m, cols->channel, cols->count);
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
    const char *staged = scratch;
    float *floats = g->epilogue.narrows ? waiting(c, scratch) : NULL;
    multiply_block(c, g, cols, patches_of(c, &staged, count, c->k), weights_of(c, g, cols->group),
                   first, 1, 0, floats);
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
static void run_transposed(const conv_q8_job *c, const kiln_conv_q8_args *g,
                           const column_block *cols, int64_t line, char *scratch) {
    const kiln_conv_args *a = c->a;
    line_tap *taps = (line_tap *)(void *)(scratch + stage_area(c));
    const char *staged = scratch;
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
        multiply_block(c, g, cols, patches_of(c, &staged, m, n * c->depth),
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
    return c.row_blocks * c.col_blocks * c.groups;
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
    const int64_t col_blocks = c.col_blocks * c.groups;
    int64_t held = -1;
    for (int64_t i = begin; i < end; i++) {
        column_block cols = columns_at(&c, c.rows_last ? i % col_blocks : i / c.row_blocks);
        if (c.lines) {
            run_lines(&c, g, &cols, c.rows_last ? i / col_blocks : i % c.row_blocks, &held,
                      scratch);
            continue;
        }
        if (!a->transposed) {
            run_pixels(&c, g, &cols, i % c.row_blocks, scratch);
            continue;
        }
        int64_t lines = a->batch * a->out[0] * a->out[1];
        int64_t first = i64_part(lines, c.row_blocks, i % c.row_blocks);
        int64_t last = i64_part(lines, c.row_blocks, i % c.row_blocks + 1);
        for (int64_t line = first; line < last; line++) {
            run_transposed(&c, g, &cols, line, scratch);
        }
        floats_block(&g->epilogue, g->y, a->ldy, first * a->out[2], (last - first) * a->out[2],
                     cols.channel, cols.count);
    }
}

/* ---- Packing ---- */

static int64_t packed_of(const kiln_gemm_q8_prims *q, const kiln_conv_args *a) {
    const conv_q8_job c = layout_of(q, a);
    return c.groups * (a->transposed ? residue_bytes(q, c.cols, c.k, volume(a->stride))
                                     : q->packed_bytes(c.pieces * c.words * q->group, c.cols));
}

/* Element `at` of piece p of the group's column n, from its rows of the source; 0 where a joined
 * group's column meets another's channel. */
static int8_t piece_weight(const conv_q8_job *c, const int8_t *src, int64_t n, int64_t p,
                           int64_t at) {
    const kiln_conv_args *a = c->a;
    const int64_t depth = a->c_in / a->groups, row = n * c->taps * depth;
    if (pieces_are_rows(a)) {
        return src[row + p * a->kernel[2] * depth + at];
    }
    const bool own = n / (a->c_out / a->groups) == at / depth;
    return own ? src[row + p * depth + at % depth] : 0;
}

/* The packed matrix of a group, in the layout of kiln_gemm_q8_prims.pack, pieces completed. */
static void pack_pieces(const conv_q8_job *c, int8_t *dst, const int8_t *src) {
    const int64_t group = c->q->group, nr = c->q->nr, k = c->k / c->pieces;
    const int64_t words = c->pieces * c->words;
    for (int64_t n = 0; n < i64_ceil_div(c->cols, KILN_VLEN) * KILN_VLEN; n++) {
        const int64_t first = n / nr * nr;
        const int64_t width = i64_min(nr, i64_ceil_div(c->cols - first, KILN_VLEN) * KILN_VLEN);
        int8_t *d = dst + first * words * group + (n - first) * group;
        for (int64_t w = 0; w < words; w++, d += width * group) {
            for (int64_t i = 0; i < group; i++) {
                const int64_t at = w % c->words * group + i;
                d[i] = n < c->cols && at < k ? piece_weight(c, src, n, w / c->words, at) : 0;
            }
        }
    }
}

static void pack_conv(const kiln_gemm_q8_prims *q, int8_t *dst, const int8_t *src,
                      const kiln_conv_args *a) {
    const conv_q8_job c = layout_of(q, a);
    const int64_t taps = c.taps, depth = a->c_in / a->groups;
    const int64_t k = taps * depth, cols = c.cols, panels = q->panels(cols);
    const int64_t group_bytes = packed_of(q, a) / c.groups;
    const bool completed = c.lines && is_completed(&c);
    for (int64_t g = 0; g < c.groups; g++, dst += group_bytes, src += k * cols) {
        if (completed) {
            pack_pieces(&c, dst, src);
            continue;
        }
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
