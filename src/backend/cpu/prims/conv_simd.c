/* conv_simd.c - convolutions as gathered block products. Compiled once per ISA and form of the
 * weights (gemm_form.h).
 *
 * Legend: a tap is one kernel position (kd, kh, kw); a pixel one output position; depth the words
 * of the input channels of a group, taps * depth the length K of an output's sum; cols the output
 * channels of a group; lines are rows of output pixels along W.
 */
#include "backend/cpu/prims/conv_walk.h"
#include "backend/cpu/prims/gemm_form.h"
#if FORM_IS_F32
#include "backend/cpu/prims/conv_few.h"
#endif

enum {
    PATCH_DEPTH = 16,          /* auto: fewer channels than this are copied as patches */
    PATCH_BYTES = 32 * 1024,   /* of patches in a unit */
    LINES_BYTES = 64 * 1024,   /* of copied lines in a unit, about */
    TABLE_BYTES = 32 * 1024,   /* of row pointers in a unit */
    PIXELS = 96,               /* most pixels of a unit */
    WEIGHT_BYTES = 256 * 1024, /* of packed weights in a unit */
    CONV_UNITS = 64,           /* enough for 16 threads to share evenly */
    /* No unit smaller than this for the sake of more units. */
    CONV_UNIT_MACS = (FORM_IS_TILES ? 4 : 1) * 256 * 1024,
};

extern const kiln_gemm_prims KILN_ISA_SYMBOL(FORM_GEMM_PRIMS);

static const kiln_gemm_prims *gemm(void) {
    return &KILN_ISA_SYMBOL(FORM_GEMM_PRIMS);
}

/* Items of the packed weights of k words. */
static int64_t packed_items(int64_t k, int64_t cols) {
    return gemm()->panels(cols) * gemm()->nr * k;
}

/* The problem with what follows from it. */
typedef struct conv_job {
    const kiln_conv_args *a;
    int64_t depth, cols, taps;
    int64_t pixels; /* of one image */
    bool patch, lines;
    bool rows_last;       /* units that follow each other share rows, made once for them */
    int64_t rows;         /* most pixels of one block; lines when they are copied */
    int64_t row_blocks;   /* blocks of pixels, or of lines when transposed */
    int64_t group_panels; /* panels of a unit */
    int64_t col_blocks;
} conv_job;

/* Words of a pixel, all groups. */
static int64_t pixel_words(const conv_job *c) {
    return c->a->groups * c->depth;
}

static bool copies_lines(const conv_job *c);
static int64_t line_words(const conv_job *c);
static int64_t copied_words(const conv_job *c, int64_t lines);

/* Most pixels of a unit, or lines where those are the rows; k: words of a sum. */
static int64_t most_rows(const conv_job *c, int64_t k) {
    const kiln_conv_args *a = c->a;
    if (c->lines) {
        int64_t bytes = line_words(c) * a->stride[1] * (int64_t)sizeof(float);
        return i64_max(1, LINES_BYTES / i64_max(1, bytes));
    }
    int64_t row_bytes = c->patch ? k * 4 : i64_max(1, c->taps) * (int64_t)sizeof(float *);
    int64_t rows = i64_max(12, (c->patch ? PATCH_BYTES : TABLE_BYTES) / row_bytes);
    rows = i64_min(a->blocking.block_rows > 0 ? a->blocking.block_rows : PIXELS, rows);
    return a->transposed ? i64_max(1, rows / i64_max(1, a->out[2])) : rows;
}

static bool copies_patches(const conv_job *c) {
    const kiln_conv_args *a = c->a;
    bool few = c->depth < PATCH_DEPTH && c->taps > 1 && a->groups == 1;
    bool must = a->planar || a->x_channel != 1;
    return must || a->tactic == KILN_CONV_PATCH || (a->tactic == KILN_CONV_AUTO && few);
}

static conv_job describe(const kiln_conv_args *a) {
    conv_job c = {.a = a, .depth = form_words(a->c_in / a->groups), .cols = a->c_out / a->groups};
    c.taps = volume(a->kernel);
    c.pixels = volume(a->out);
    c.lines = copies_lines(&c);
    c.patch = !a->transposed && !c.lines && copies_patches(&c);
    int64_t k = i64_max(1, c.taps * c.depth);
    int64_t panels = gemm()->panels(c.cols);
    int64_t panel_bytes = gemm()->nr * k * (int64_t)sizeof(form_item);
    c.rows_last = a->blocking.rows_last || a->groups > 1 || (FORM_IS_TILES && c.lines);
    int64_t total = a->batch * (c.lines || a->transposed ? a->out[0] * a->out[1] : c.pixels);
    int64_t macs = a->batch * c.pixels * c.cols * k * a->groups;
    int64_t group_bytes = a->blocking.group_bytes > 0 ? a->blocking.group_bytes : WEIGHT_BYTES;
    int64_t group = i64_min(panels, i64_max(1, group_bytes / panel_bytes));
    int64_t per_unit = most_rows(&c, k);
    /* Rows of a unit from which they are halved for the sake of more units. */
    const int64_t least = !c.lines ? 24 : FORM_IS_TILES ? 8 : 2;
    for (;;) {
        int64_t units = i64_ceil_div(total, per_unit) * i64_ceil_div(panels, group) * a->groups;
        if (units >= CONV_UNITS || macs / i64_max(1, units) < 2 * CONV_UNIT_MACS) {
            break;
        }
        if (!FORM_IS_TILES && !c.patch && !c.lines && group > 1) {
            group = i64_ceil_div(group, 2);
        } else if (per_unit >= least) {
            per_unit /= 2;
        } else {
            break;
        }
    }
    c.rows = a->transposed ? line_pixels(a) : i64_min(per_unit, i64_max(1, total));
    c.row_blocks = i64_ceil_div(total, per_unit);
    c.group_panels = group;
    c.col_blocks = i64_ceil_div(panels, i64_max(1, group));
    return c;
}

/* Scratch of a thread: zeros for padded taps, pointers of the rows, of a patch's lines, patches. */
typedef struct conv_scratch {
    float *zeros;
    const float **rows;
    uint64_t *alive;     /* of each row: its taps that are not padding, the first 64 */
    const float **lines; /* of a patch */
    float *patches;      /* or copied lines */
    int64_t held;        /* the first output row, or line, that rows and lines are of; -1: none */
} conv_scratch;

static int64_t lay_out(const conv_job *c, char *base, conv_scratch *s) {
    int64_t zeros = round64(pixel_words(c) * (int64_t)sizeof(float));
    int64_t per_row = c->patch ? 1 : c->taps;
    int64_t rows = round64((c->lines ? 1 : c->rows) * per_row * (int64_t)sizeof(float *));
    int64_t patch = (c->taps * c->depth + KILN_VLEN) * (int64_t)sizeof(float);
    int64_t patches = c->patch   ? round64(c->rows * patch)
                      : c->lines ? round64(copied_words(c, c->rows) * (int64_t)sizeof(float))
                                 : 0;
    int64_t lines = c->patch ? round64(c->taps * c->depth * (int64_t)sizeof(float *)) : 0;
    int64_t alive = c->patch || c->lines ? 0 : round64(c->rows * (int64_t)sizeof(uint64_t));
    if (base) {
        s->zeros = (float *)base;
        s->rows = (const float **)(base + zeros);
        s->lines = (const float **)(base + zeros + rows);
        s->alive = (uint64_t *)(base + zeros + rows + lines);
        s->patches = (float *)(base + zeros + rows + lines + alive);
    }
    return zeros + rows + lines + alive + patches;
}

static int64_t scratch_bytes(const kiln_conv_args *a) {
#if FORM_IS_F32
    if (is_few(a)) {
        const few_job f = few_describe(a);
        return few_lay_out(&f, NULL, NULL);
    }
#endif
    conv_job c = describe(a);
    return lay_out(&c, NULL, NULL);
}

/* Pointers of `count` pixels from output row `first` on: [pixel][tap], of the first group; those of
 * the others are as far from them as their channels. */
static void point_rows(const conv_job *c, int64_t first, int64_t count, conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    if (s->held == first) {
        return;
    }
    s->held = first;
    const float **out = s->rows;
    position p = position_of(a, first);
    for (int64_t i = 0; i < count; i++, advance(a, &p)) {
        const float **begin = out;
        uint64_t alive = 0;
        const float *x = a->x + p.n * a->x_batch;
        int64_t w0 = p.w * a->stride[2] - a->pad[2];
        for (int64_t kd = 0; kd < a->kernel[0]; kd++) {
            int64_t d = p.d * a->stride[0] - a->pad[0] + kd * a->dilation[0];
            for (int64_t kh = 0; kh < a->kernel[1]; kh++) {
                int64_t h = p.h * a->stride[1] - a->pad[1] + kh * a->dilation[1];
                bool line_inside = inside(d, a->in[0]) && inside(h, a->in[1]);
                int64_t line = d * a->x_stride[0] + h * a->x_stride[1];
                for (int64_t kw = 0; kw < a->kernel[2]; kw++) {
                    int64_t w = w0 + kw * a->dilation[2];
                    bool valid = line_inside && inside(w, a->in[2]);
                    alive |= (uint64_t)valid << ((out - begin) & 63);
                    *out++ = valid ? x + (line + w * a->x_stride[2]) : s->zeros;
                }
            }
        }
        s->alive[i] = alive;
    }
}

/* How a patch is copied: from `rows` input lines, one for each kernel row (of each channel when
 * planar), `taps` pieces of `piece` floats each. Patches are written in ascending order, so a copy
 * may spill up to a vector past its end: the next one, or the space after the last patch, takes
 * that. */
typedef struct patches {
    const float **line; /* [rows], NULL for one of padding */
    int64_t rows;
    int64_t taps, piece;
    int64_t dilation; /* input pixels from tap to tap */
    int64_t pixel;    /* floats from input pixel to pixel */
    int64_t element;  /* floats between the floats of a piece */
    int64_t width;    /* input pixels of a line */
    bool joined;      /* the pieces of a kernel row lie side by side */
} patches;

/* A patch whose taps all lie inside the lines, joined. */
KILN_INLINE void copy_inner_patch(const patches *q, float *dst, int64_t at) {
    int64_t n = q->taps * q->piece;
    int64_t whole = n / KILN_VLEN * KILN_VLEN;
    kiln_vm mask = vm_tail(n - whole);
    for (int64_t r = 0; r < q->rows; r++, dst += n) {
        const float *src = q->line[r];
        if (!src) {
            memset(dst, 0, (size_t)n * sizeof *dst);
            continue;
        }
        for (int64_t i = 0; i < whole; i += KILN_VLEN) {
            vf_store(dst + i, vf_load(src + at + i));
        }
        if (whole < n) {
            vf_store(dst + whole, vf_load_mask(src + at + whole, mask));
        }
    }
}

/* Any patch: its first tap reads input pixel w, which may lie in the padding like any other. */
static void copy_outer_patch(const patches *q, float *dst, int64_t w) {
    int64_t whole = q->piece / KILN_VLEN * KILN_VLEN;
    kiln_vm mask = vm_tail(q->piece - whole);
    for (int64_t r = 0; r < q->rows; r++) {
        for (int64_t t = 0; t < q->taps; t++, dst += q->piece) {
            int64_t at = w + t * q->dilation;
            if (!q->line[r] || !inside(at, q->width)) {
                memset(dst, 0, (size_t)q->piece * sizeof *dst);
                continue;
            }
            const float *src = q->line[r] + at * q->pixel;
            if (q->element != 1) {
                for (int64_t j = 0; j < q->piece; j++) {
                    dst[j] = src[j * q->element];
                }
                continue;
            }
            for (int64_t i = 0; i < whole; i += KILN_VLEN) {
                vf_store(dst + i, vf_load(src + i));
            }
            if (whole < q->piece) {
                vf_store(dst + whole, vf_load_mask(src + whole, mask));
            }
        }
    }
}

/* The input lines of the kernel rows of an output line at p. */
static void point_lines(const conv_job *c, int64_t group, const position *p, const float **line) {
    const kiln_conv_args *a = c->a;
    const float *image = a->x + p->n * a->x_batch + group * c->depth * a->x_channel;
    int64_t planes = a->planar ? c->depth : 1;
    for (int64_t plane = 0; plane < planes; plane++, image += a->x_channel) {
        int64_t d = p->d * a->stride[0] - a->pad[0];
        for (int64_t kd = 0; kd < a->kernel[0]; kd++, d += a->dilation[0]) {
            int64_t h = p->h * a->stride[1] - a->pad[1];
            for (int64_t kh = 0; kh < a->kernel[1]; kh++, h += a->dilation[1]) {
                bool valid = inside(d, a->in[0]) && inside(h, a->in[1]);
                int64_t at = d * a->x_stride[0] + h * a->x_stride[1];
                *line++ = valid ? image + at : NULL;
            }
        }
    }
}

/* Floats from patch to patch. */
static int64_t patch_floats(const conv_job *c) {
    return c->taps * c->depth + KILN_VLEN;
}

/* Copies the patches of `count` pixels from output row `first` on and points the rows at them. */
static void copy_patches(const conv_job *c, int64_t group, int64_t first, int64_t count,
                         conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    patches q = {.line = s->lines,
                 .rows = (a->planar ? c->depth : 1) * a->kernel[0] * a->kernel[1],
                 .taps = a->kernel[2],
                 .piece = a->planar ? 1 : c->depth,
                 .dilation = a->dilation[2],
                 .pixel = a->x_stride[2],
                 .element = a->planar ? 1 : a->x_channel,
                 .width = a->in[2]};
    q.joined = q.element == 1 && q.dilation * q.pixel == q.piece;
    const int64_t reach = (q.taps - 1) * q.dilation;
    position p = position_of(a, first);
    float *dst = s->patches;
    for (int64_t i = 0; i < count; i++, advance(a, &p), dst += patch_floats(c)) {
        if (i == 0 || p.w == 0) {
            point_lines(c, group, &p, s->lines);
        }
        s->rows[i] = dst;
        int64_t w = p.w * a->stride[2] - a->pad[2];
        if (q.joined && w >= 0 && w + reach < q.width) {
            copy_inner_patch(&q, dst, w * q.pixel);
        } else {
            copy_outer_patch(&q, dst, w);
        }
    }
}

/* A unit's columns: panels of one group. */
typedef struct column_block {
    int64_t group;
    int64_t first; /* in the group */
    int64_t count;
    int64_t channel; /* the first one's output channel */
} column_block;

static column_block columns_at(const conv_job *c, int64_t i) {
    column_block r = {.group = i / c->col_blocks};
    int64_t width = c->group_panels * gemm()->nr;
    r.first = i % c->col_blocks * width;
    r.count = i64_min(width, c->cols - r.first);
    r.channel = r.group * c->cols + r.first;
    return r;
}

/* Epilogue pointers of a block whose first output row is `row`. */
static void aim_epilogue(kiln_gemm_gather *g, const kiln_epilogue *e, int64_t row,
                         int64_t channel) {
    g->bias = e->bias ? e->bias + channel : NULL;
    g->residual = e->residual ? e->residual + row * e->ld_residual + channel : NULL;
}

static void run_pixels(const conv_job *c, const column_block *cols, int64_t row_block,
                       conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    int64_t total = a->batch * c->pixels;
    int64_t first = i64_part(total, c->row_blocks, row_block);
    int64_t count = i64_part(total, c->row_blocks, row_block + 1) - first;
    int64_t k = c->taps * c->depth;
    if (c->patch) {
        copy_patches(c, cols->group, first, count, s);
    } else {
        point_rows(c, first, count, s);
    }
    const form_item *w = (const form_item *)a->w + cols->group * packed_items(k, c->cols);
    kiln_gemm_gather g = {.m = count,
                          .n = cols->count,
                          .taps = c->patch ? 1 : c->taps,
                          .depth = c->patch ? k : c->depth,
                          .row = s->rows,
                          .shift = c->patch ? 0 : cols->group * c->depth,
                          .alive = c->patch ? NULL : s->alive,
                          .b = w + cols->first * k,
                          .c = a->y + first * a->ldy + cols->channel,
                          .ldc = a->ldy,
                          .epilogue = &a->epilogue};
    aim_epilogue(&g, &a->epilogue, first, cols->channel);
    gemm()->gather(&g);
    if (a->epilogue.post) {
        a->epilogue.post(a->epilogue.post_arg, g.c, a->ldy, first, count, cols->channel,
                         cols->count);
    }
}

/* ---- Copied lines (KILN_CONV_LINES)
 *
 * The input lines that a block of output lines reads are copied into scratch, channels last, with
 * zeros where the padding is. Every kernel row is then one piece of kw * depth words, and from one
 * output pixel to the next all pieces move on by stride * depth: no pointers per pixel, no patches,
 * and tall register tiles. An input line is copied about kernel / stride times less often than a
 * patch would copy it, so this pays most for few channels: the first layer of a network. */

/* Lines of pixels as they stand serve all groups. */
static bool copies_groups(const conv_job *c) {
    return c->a->groups > 1 && c->a->x_channel == 1 && c->a->x_stride[2] == pixel_words(c);
}

/* Words of a pixel in a copied line, and of the line. */
static int64_t copied_pixel(const conv_job *c) {
    return copies_groups(c) ? pixel_words(c) : c->depth;
}
static int64_t line_words(const conv_job *c) {
    return line_reach(c->a) * copied_pixel(c);
}

/* Words that the input lines under so many output lines take. */
static int64_t copied_words(const conv_job *c, int64_t lines) {
    return line_places(c->a, lines) * line_words(c);
}

/* Pieces of a pixel: a kernel row each, or a tap each where dilation or groups part the taps. */
static bool pieces_are_rows(const conv_job *c) {
    return c->a->dilation[2] == 1 && !copies_groups(c);
}

/* Whether copying lines is best where nothing is asked for. Tiles read whole steps where they
 * stand, everything else they must put together. Group convolutions of few columns leave a gathered
 * tile of one vector, too few sums to hide how long each takes; strided tiles are twice as tall. */
static bool prefers_lines(const conv_job *c) {
    const kiln_conv_args *a = c->a;
    if (FORM_IS_TILES) {
        const int64_t piece = c->depth * (pieces_are_rows(c) ? a->kernel[2] : 1);
        return c->taps > 1 && a->x_channel == 1 && piece % 16 == 0;
    }
    return KILN_VREGS == 32 && copies_groups(c) && c->cols <= KILN_VLEN && c->depth >= PATCH_DEPTH;
}

static bool copies_lines(const conv_job *c) {
    const kiln_conv_args *a = c->a;
    const bool can = !a->transposed && !a->planar && a->kernel[0] == 1 && a->in[0] == 1 &&
                     a->out[0] == 1 && a->pad[0] == 0;
    return can &&
           (a->tactic == KILN_CONV_LINES || (a->tactic == KILN_CONV_AUTO && prefers_lines(c)));
}

/* Copies `reach` pixels from input pixel w0 on. */
static void copy_line(float *dst, const float *src, int64_t w0, int64_t reach, const conv_job *c) {
    const kiln_conv_args *a = c->a;
    const int64_t depth = copied_pixel(c), pixel = a->x_stride[2], channel = a->x_channel;
    const int64_t before = i64_min(reach, i64_max(0, -w0));
    const int64_t end = i64_max(before, i64_min(reach, a->in[2] - w0));
    memset(dst, 0, (size_t)(before * depth) * sizeof *dst);
    memset(dst + end * depth, 0, (size_t)((reach - end) * depth) * sizeof *dst);
    const float *from = src + (w0 + before) * pixel;
    float *to = dst + before * depth;
    if (channel == 1 && pixel == depth) {
        memcpy(to, from, (size_t)((end - before) * depth) * sizeof *dst);
        return;
    }
    if (channel == 1) {
        for (int64_t w = before; w < end; w++, to += depth, from += pixel) {
            memcpy(to, from, (size_t)depth * sizeof *dst);
        }
        return;
    }
    for (int64_t i = 0; i < depth; i++) {
        for (int64_t w = 0; w < end - before; w++) {
            to[w * depth + i] = from[i * channel + w * pixel];
        }
    }
}

/* Copies the input lines under output lines [begin, end), all of one image. */
static void copy_lines(const conv_job *c, int64_t group, int64_t begin, int64_t end,
                       conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    if (s->held == begin && (a->groups == 1 || copies_groups(c))) {
        return;
    }
    s->held = begin;
    const float *image = a->x + begin / a->out[1] * a->x_batch;
    image += copies_groups(c) ? 0 : group * c->depth * a->x_channel;
    const int64_t first = begin % a->out[1] * a->stride[1] - a->pad[1];
    for (int64_t i = 0; i < lines_under(a, end - begin); i++) {
        const int64_t at = first + i;
        float *dst = s->patches + line_place(a, end - begin, i) * line_words(c);
        if (inside(at, a->in[1])) {
            copy_line(dst, image + at * a->x_stride[1], -a->pad[2], line_reach(a), c);
        } else {
            memset(dst, 0, (size_t)line_words(c) * sizeof *dst);
        }
    }
}

/* The pieces of the first of n output lines, for its first pixel. */
static void point_pieces(const conv_job *c, int64_t n, conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    const bool whole = pieces_are_rows(c);
    const float **out = s->rows;
    for (int64_t kh = 0; kh < a->kernel[1]; kh++) {
        const float *row = s->patches + line_place(a, n, kh * a->dilation[1]) * line_words(c);
        for (int64_t kw = 0; kw < (whole ? 1 : a->kernel[2]); kw++) {
            *out++ = row + kw * a->dilation[2] * copied_pixel(c);
        }
    }
}

/* Output lines [begin, end), all of one image. */
static void run_copied(const conv_job *c, const column_block *cols, int64_t begin, int64_t end,
                       conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    const int64_t k = c->taps * c->depth, row = begin * a->out[2];
    const int64_t pieces = pieces_are_rows(c) ? a->kernel[1] : c->taps;
    const form_item *w = (const form_item *)a->w + cols->group * packed_items(k, c->cols);
    kiln_gemm_gather g = {.m = (end - begin) * a->out[2],
                          .run = a->out[2],
                          .run_words = line_words(c),
                          .n = cols->count,
                          .taps = pieces,
                          .depth = k / pieces,
                          .row = s->rows,
                          .shift = copies_groups(c) ? cols->group * c->depth : 0,
                          .lda = a->stride[2] * copied_pixel(c),
                          .b = w + cols->first * k,
                          .c = a->y + row * a->ldy + cols->channel,
                          .ldc = a->ldy,
                          .epilogue = &a->epilogue};
    copy_lines(c, cols->group, begin, end, s);
    point_pieces(c, end - begin, s);
    aim_epilogue(&g, &a->epilogue, row, cols->channel);
    gemm()->gather(&g);
    if (a->epilogue.post) {
        a->epilogue.post(a->epilogue.post_arg, g.c, a->ldy, row, g.m, cols->channel, cols->count);
    }
}

static void run_line_block(const conv_job *c, const column_block *cols, int64_t block,
                           conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    const int64_t total = a->batch * a->out[1];
    const int64_t end = i64_part(total, c->row_blocks, block + 1);
    for (int64_t line = i64_part(total, c->row_blocks, block); line < end;) {
        const int64_t stop = i64_min(end, (line / a->out[1] + 1) * a->out[1]);
        run_copied(c, cols, line, stop, s);
        line = stop;
    }
}

/* Pointers of the pixels first, first + stride, ... of the line at p, `taps` each, in the order of
 * pack_transposed. From one of them to the next, every tap moves on by one input pixel. */
static void point_line(const conv_job *c, const position *p, int64_t first, int64_t taps,
                       const float *x, conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    const int64_t at[3] = {p->d, p->h, first};
    const int64_t *stride = a->stride;
    int64_t count = i64_ceil_div(a->out[2] - first, stride[2]);
    const float **out = s->rows;
    for (int64_t k = 0; k < c->taps; k++) {
        const int64_t tap[3] = {k / (a->kernel[1] * a->kernel[2]), k / a->kernel[2] % a->kernel[1],
                                k % a->kernel[2]};
        bool mine = true;
        for (int i = 0; i < 3; i++) {
            mine = mine && (at[i] + a->pad[i] - tap[i] * a->dilation[i]) % stride[i] == 0;
        }
        if (!mine) {
            continue;
        }
        int64_t d = source_of(a, 0, p->d, tap[0]);
        int64_t h = source_of(a, 1, p->h, tap[1]);
        int64_t w = (first + a->pad[2] - tap[2] * a->dilation[2]) / stride[2];
        for (int64_t i = 0; i < count; i++, w++) {
            bool valid = d >= 0 && h >= 0 && inside(w, a->in[2]);
            int64_t offset = d * a->x_stride[0] + h * a->x_stride[1] + w * a->x_stride[2];
            out[i * taps] = valid ? x + offset : s->zeros;
        }
        out++;
    }
}

/* One line of a transposed convolution: the pixels of each residue along W are a block of their
 * own, `stride` rows apart. */
static void run_line(const conv_job *c, const column_block *cols, int64_t line, conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    position p = position_of(a, line * a->out[2]);
    const float *x = a->x + p.n * a->x_batch + cols->group * c->depth;
    const form_item *w =
        (const form_item *)a->w + cols->group * packed_items(c->taps * c->depth, c->cols);
    residue d = residue_at(a, 0, residue_of(a, 0, p.d));
    residue h = residue_at(a, 1, residue_of(a, 1, p.h));
    int64_t before = (d.before * a->kernel[1] + d.count * h.before) * a->kernel[2];
    kiln_epilogue e = a->epilogue;
    e.ld_residual *= a->stride[2];
    for (int64_t first = 0; first < i64_min(a->stride[2], a->out[2]); first++) {
        residue v = residue_at(a, 2, residue_of(a, 2, first));
        int64_t taps = d.count * h.count * v.count;
        int64_t skipped = before + d.count * h.count * v.before;
        point_line(c, &p, first, taps, x, s);
        int64_t row = line * a->out[2] + first;
        int64_t panel_items = packed_items(c->depth, c->cols);
        kiln_gemm_gather g = {.m = i64_ceil_div(a->out[2] - first, a->stride[2]),
                              .n = cols->count,
                              .taps = taps,
                              .depth = c->depth,
                              .row = s->rows,
                              .b = w + skipped * panel_items + cols->first * taps * c->depth,
                              .c = a->y + row * a->ldy + cols->channel,
                              .ldc = a->ldy * a->stride[2],
                              .epilogue = &e};
        aim_epilogue(&g, &a->epilogue, row, cols->channel);
        gemm()->gather(&g);
    }
}

static void run_lines(const conv_job *c, const column_block *cols, int64_t row_block,
                      conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    int64_t total = a->batch * a->out[0] * a->out[1];
    int64_t begin = i64_part(total, c->row_blocks, row_block);
    int64_t end = i64_part(total, c->row_blocks, row_block + 1);
    for (int64_t line = begin; line < end; line++) {
        run_line(c, cols, line, s);
    }
    if (a->epilogue.post) {
        int64_t row = begin * a->out[2];
        int64_t rows = (end - begin) * a->out[2];
        a->epilogue.post(a->epilogue.post_arg, a->y + row * a->ldy + cols->channel, a->ldy, row,
                         rows, cols->channel, cols->count);
    }
}

static kiln_gemm_args as_gemm(const kiln_conv_args *a) {
    return (kiln_gemm_args){.m = a->batch * volume(a->out),
                            .n = a->c_out,
                            .k = form_words(a->c_in),
                            .a = a->x,
                            .lda = a->x_stride[2],
                            .b = a->w,
                            .c = a->y,
                            .ldc = a->ldy,
                            .epilogue = a->epilogue,
                            .blocking = a->blocking};
}

static int64_t conv_tiles(const kiln_conv_args *a) {
    if (a->batch <= 0 || volume(a->out) <= 0 || a->c_out <= 0) {
        return 0;
    }
    if (is_gemm(a)) {
        kiln_gemm_args g = as_gemm(a);
        return gemm()->tiles(&g);
    }
#if FORM_IS_F32
    if (is_few(a)) {
        const few_job f = few_describe(a);
        return f.blocks * f.strips;
    }
#endif
    conv_job c = describe(a);
    return c.row_blocks * c.col_blocks * a->groups;
}

static void conv_run(const kiln_conv_args *a, int64_t tile_begin, int64_t tile_end, void *memory) {
    if (tile_begin >= tile_end) {
        return;
    }
    if (is_gemm(a)) {
        kiln_gemm_args g = as_gemm(a);
        gemm()->run(&g, tile_begin, tile_end);
        return;
    }
#if FORM_IS_F32
    if (is_few(a)) {
        few_run(a, tile_begin, tile_end, gemm()->nr, memory);
        return;
    }
#endif
    const conv_job c = describe(a);
    conv_scratch s = {.held = -1};
    lay_out(&c, memory, &s);
    memset(s.zeros, 0, (size_t)pixel_words(&c) * sizeof(float));
    const int64_t col_blocks = c.col_blocks * a->groups;
    const bool rows_last = c.rows_last;
    for (int64_t i = tile_begin; i < tile_end; i++) {
        column_block cols = columns_at(&c, rows_last ? i % col_blocks : i / c.row_blocks);
        const int64_t row_block = rows_last ? i / col_blocks : i % c.row_blocks;
        if (a->transposed) {
            run_lines(&c, &cols, row_block, &s);
        } else if (c.lines) {
            run_line_block(&c, &cols, row_block, &s);
        } else {
            run_pixels(&c, &cols, row_block, &s);
        }
    }
}

static int64_t conv_packed_bytes(const kiln_conv_args *a) {
    int64_t k = volume(a->kernel) * form_words(a->c_in / a->groups);
    return a->groups * packed_items(k, a->c_out / a->groups) * (int64_t)sizeof(form_item);
}

/* Where a tap's weights stand: element (i, n) of `channels` x `cols` at
 * src[i * stride_k + n * stride_n]. */
typedef struct tap_source {
    const float *src;
    int64_t channels, cols, stride_k, stride_n;
} tap_source;

/* Writes the words of one tap in every panel. `k` is the length of the panels, `row` the tap's
 * first row in them. */
static void pack_tap(form_item *dst, const tap_source *t, int64_t k, int64_t row,
                     int64_t row_step) {
    int64_t nr = gemm()->nr;
    for (int64_t n = 0; n < gemm()->panels(t->cols) * nr; n++) {
        form_item *d = dst + n / nr * k * nr + n % nr;
        for (int64_t i = 0; i < form_words(t->channels); i++) {
            d[(row + i * row_step) * nr] =
                n < t->cols ? form_pack(t->src + n * t->stride_n, t->stride_k, t->channels, i) : 0;
        }
    }
}

/* Taps sorted by residue, each residue a packed matrix of its own. */
static void pack_transposed(form_item *dst, const float *src, const kiln_conv_args *a) {
    int64_t taps = volume(a->kernel);
    tap_source t = {.channels = a->c_in / a->groups, .cols = a->c_out / a->groups};
    t.stride_k = t.cols * taps;
    t.stride_n = taps;
    int64_t depth = form_words(t.channels);
    for (int64_t r = 0; r < volume(a->stride); r++) {
        const int64_t want[3] = {r / (a->stride[1] * a->stride[2]), r / a->stride[2] % a->stride[1],
                                 r % a->stride[2]};
        int64_t count = taps_of(a, 0, want[0]) * taps_of(a, 1, want[1]) * taps_of(a, 2, want[2]);
        int64_t row = 0;
        for (int64_t k = 0; k < taps; k++) {
            const int64_t tap[3] = {k / (a->kernel[1] * a->kernel[2]),
                                    k / a->kernel[2] % a->kernel[1], k % a->kernel[2]};
            bool mine = true;
            for (int i = 0; i < 3; i++) {
                mine = mine && tap[i] * a->dilation[i] % a->stride[i] == want[i];
            }
            if (mine) {
                t.src = src + k;
                pack_tap(dst, &t, count * depth, row, 1);
                row += depth;
            }
        }
        dst += packed_items(count * depth, t.cols);
    }
}

static void conv_pack(void *packed, const float *src, const kiln_conv_args *a) {
    form_item *dst = packed;
    int64_t taps = volume(a->kernel);
    int64_t channels = a->c_in / a->groups;
    int64_t cols = a->c_out / a->groups;
    int64_t depth = form_words(channels);
    for (int64_t g = 0; g < a->groups; g++) {
        if (a->transposed) {
            pack_transposed(dst, src, a);
        }
        for (int64_t t = 0; t < taps && !a->transposed; t++) {
            const tap_source source = {src + t, channels, cols, taps, taps * channels};
            pack_tap(dst, &source, taps * depth, a->planar ? t : t * depth, a->planar ? taps : 1);
        }
        dst += packed_items(taps * depth, cols);
        src += taps * channels * cols;
    }
}

const kiln_conv_prims KILN_ISA_SYMBOL(FORM_CONV_PRIMS) = {
    .isa = KILN_ISA_NAME,
    .packed_bytes = conv_packed_bytes,
    .pack = conv_pack,
    .scratch_bytes = scratch_bytes,
    .tiles = conv_tiles,
    .run = conv_run,
};
