/* conv_lines.h - convolutions over padded copies of input lines (KILN_CONV_LINES); part of
 * conv_simd.c.
 *
 * The input lines that a block of output lines reads are copied into scratch, channels last, with
 * zeros where the padding is. Every kernel row is then one piece of kw * depth words, and from one
 * output pixel to the next all pieces move on by stride * depth: no pointers per pixel, no patches,
 * and tall register tiles. An input line is copied about kernel / stride times less often than a
 * patch would copy it, so this pays most for few channels: the first layer of a network. */
#ifndef KILN_BACKEND_CPU_PRIMS_CONV_LINES_H
#define KILN_BACKEND_CPU_PRIMS_CONV_LINES_H

/* Words that a copied line reaches over. */
static int64_t line_reach(const conv_job *c) {
    const kiln_conv_args *a = c->a;
    return (a->out[2] - 1) * a->stride[2] + (a->kernel[2] - 1) * a->dilation[2] + 1;
}

/* Input lines under n output lines that follow each other. */
static int64_t lines_under(const kiln_conv_args *a, int64_t n) {
    return (n - 1) * a->stride[1] + (a->kernel[1] - 1) * a->dilation[1] + 1;
}

/* Words that the input lines under so many output lines take. */
static int64_t copied_words(const conv_job *c, int64_t lines) {
    return lines_under(c->a, lines) * line_reach(c) * c->depth;
}

static bool can_copy_lines(const kiln_conv_args *a) {
    return !a->transposed && !a->planar && a->kernel[0] == 1 && a->in[0] == 1 && a->out[0] == 1 &&
           a->pad[0] == 0;
}

/* Pieces of a pixel: a kernel row each, or a tap each where dilation parts the taps. */
static int64_t line_pieces(const kiln_conv_args *a) {
    return a->dilation[2] == 1 ? a->kernel[1] : a->kernel[1] * a->kernel[2];
}

/* Copies `reach` pixels from input pixel w0 on. */
static void copy_line(float *dst, const float *src, int64_t w0, int64_t reach, const conv_job *c) {
    const kiln_conv_args *a = c->a;
    const int64_t depth = c->depth, pixel = a->x_stride[2], channel = a->x_channel;
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

/* Copies the input lines under `count` output lines from line h on of image n. */
static void copy_lines(const conv_job *c, int64_t group, int64_t n, int64_t h, int64_t count,
                       float *dst) {
    const kiln_conv_args *a = c->a;
    const float *image = a->x + n * a->x_batch + group * c->depth * a->x_channel;
    const int64_t reach = line_reach(c), first = h * a->stride[1] - a->pad[1];
    for (int64_t i = 0; i < lines_under(a, count); i++, dst += reach * c->depth) {
        const int64_t at = first + i;
        if (inside(at, a->in[1])) {
            copy_line(dst, image + at * a->x_stride[1], -a->pad[2], reach, c);
        } else {
            memset(dst, 0, (size_t)(reach * c->depth) * sizeof *dst);
        }
    }
}

/* The pieces of output line i of those copied, for its first pixel. */
static void point_pieces(const conv_job *c, int64_t i, conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    const int64_t line = line_reach(c) * c->depth;
    const bool whole = a->dilation[2] == 1;
    const float **out = s->rows;
    for (int64_t kh = 0; kh < a->kernel[1]; kh++) {
        const float *row = s->patches + (i * a->stride[1] + kh * a->dilation[1]) * line;
        for (int64_t kw = 0; kw < (whole ? 1 : a->kernel[2]); kw++) {
            *out++ = row + kw * a->dilation[2] * c->depth;
        }
    }
}

/* Output lines [begin, end), all of one image. */
static void run_copied(const conv_job *c, const column_block *cols, int64_t begin, int64_t end,
                       conv_scratch *s) {
    const kiln_conv_args *a = c->a;
    const int64_t k = c->taps * c->depth, pieces = line_pieces(a);
    const form_item *w = (const form_item *)a->w + cols->group * packed_items(k, c->cols);
    copy_lines(c, cols->group, begin / a->out[1], begin % a->out[1], end - begin, s->patches);
    for (int64_t line = begin; line < end; line++) {
        const int64_t row = line * a->out[2];
        kiln_gemm_gather g = {.m = a->out[2],
                              .n = cols->count,
                              .taps = pieces,
                              .depth = k / pieces,
                              .row = s->rows,
                              .lda = a->stride[2] * c->depth,
                              .b = w + cols->first * k,
                              .c = a->y + row * a->ldy + cols->channel,
                              .ldc = a->ldy,
                              .epilogue = &a->epilogue};
        point_pieces(c, line - begin, s);
        aim_epilogue(&g, &a->epilogue, row, cols->channel);
        gemm()->gather(&g);
        if (a->epilogue.post) {
            a->epilogue.post(a->epilogue.post_arg, g.c, a->ldy, row, a->out[2], cols->channel,
                             cols->count);
        }
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

#endif
