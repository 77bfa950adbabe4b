/* depthwise_q8_simd.c - 8-bit depthwise convolution, channels along the vector. Compiled once per
 * ISA.
 *
 * Legend: a line is a row of outputs along W, a strip some neighbours of a line; a kernel row is
 * one (kd, kh); a group is `form` kernel rows whose bytes are interleaved (q8_dot.h), the last one
 * completed by rows with weights of zero; columns are the input pixels of a kernel row that a strip
 * sees. The strip is given by pointers to its columns, so that padding, dilation and strides cost
 * nothing in the inner loop. */
#include "backend/cpu/prims/conv_walk.h"
#include "backend/cpu/prims/depthwise_q8.h"
#include "backend/cpu/prims/q8_dot.h"
#include "backend/cpu/prims/q8_finish.h"

enum {
    STRIP = 8,                   /* most outputs of a strip */
    KERNEL_WIDTH = 7,            /* widest kernel with column sharing */
    STRIP_UNITS = 64,            /* enough for 16 threads to share evenly */
    STRIP_UNIT_MACS = 64 * 1024, /* no unit smaller than this for the sake of more units */
    CHUNK_VECS = 4,              /* fewest vectors of channels in a unit */
};

/* One strip. Its rows are kernel rows completed to whole groups when columns are shared, taps
 * otherwise. */
typedef struct strip {
    const uint8_t *const *column; /* shared: [columns][rows]; lone taps: [pixels][taps] */
    int64_t rows;
    int64_t pixels;
    int64_t multiplier; /* output channels of an input channel */
    const int8_t *w;    /* shared: [group][width][channels][form]; lone taps: [tap][channels] */
    int64_t channels;   /* of the output */
    int64_t begin, end; /* output channels to compute */
    char *y;            /* of the first pixel, channel 0 */
    int64_t ldy;        /* bytes */
    const uint8_t *residual;
    const kiln_q8_epilogue *epilogue;
} strip;

typedef void (*strip_fn)(const strip *s);

#define UNROLL_STRIP _Pragma("GCC unroll 32")

KILN_INLINE void end_strip(const strip *s, int pixels, int64_t c, int64_t lanes, bool to_float,
                           const kiln_vi *sum) {
    const q8_columns q = q8_columns_of(s->epilogue, c);
    const int64_t ldy = s->ldy, ld_residual = s->epilogue->ld_residual;
    const uint8_t *residual = s->residual ? s->residual + c : NULL;
    char *y = s->y + c * (to_float ? (int64_t)sizeof(float) : 1);
    UNROLL_STRIP for (int p = 0; p < pixels; p++) {
        const uint8_t *r = residual ? residual + p * ld_residual : NULL;
        q8_finish(&q, sum[p], r, to_float, y + p * ldy, lanes);
    }
}

KILN_INLINE void finish_strip(const strip *s, int pixels, int64_t c, const kiln_vi *sum) {
    if (s->epilogue->to_float) {
        end_strip(s, pixels, c, KILN_VLEN, true, sum);
    } else {
        end_strip(s, pixels, c, KILN_VLEN, false, sum);
    }
}

/* Column sharing: kernel rows of `width` taps, `stride` columns from output to output. Needs at
 * least a vector of channels: the last vector overlaps the one before when they do not come out
 * even. */
KILN_INLINE void shared_strip(const strip *s, int form, int pixels, int width, int stride) {
    const int columns = (pixels - 1) * stride + width;
    const int64_t rows = s->rows, tap_bytes = s->channels * form;
    for (int64_t c = s->begin;;) {
        kiln_vi sum[STRIP], start = vi_load(s->epilogue->start + c);
        UNROLL_STRIP for (int p = 0; p < pixels; p++) {
            sum[p] = start;
        }
        for (int64_t g = 0; g < rows / form; g++) {
            const uint8_t *const *column = s->column + g * form;
            const int8_t *w = s->w + g * width * tap_bytes + c * form;
            kiln_vi wv[KERNEL_WIDTH];
            UNROLL_STRIP for (int k = 0; k < width; k++) {
                wv[k] = load_b(form, w + k * tap_bytes);
            }
            UNROLL_STRIP for (int j = 0; j < columns; j++) {
                kiln_vi x = interleave(form, column + j * rows, c);
                UNROLL_STRIP for (int k = 0; k < width; k++) {
                    int p = (j - k) / stride;
                    if (j >= k && (j - k) % stride == 0 && p < pixels) {
                        sum[p] = dot(form, sum[p], x, wv[k]);
                    }
                }
            }
        }
        finish_strip(s, pixels, c, sum);
        if (c + KILN_VLEN >= s->end) {
            return;
        }
        c = i64_min(c + KILN_VLEN, s->end - KILN_VLEN);
    }
}

/* A vector of output channels' inputs: channel o reads input channel o / multiplier. */
KILN_INLINE kiln_vi load_inputs(const uint8_t *x, int64_t c, int64_t lanes, int64_t multiplier) {
    if (multiplier == 1) {
        return lanes == KILN_VLEN ? vi_load_u8(x + c) : vi_load_u8_tail(x + c, lanes);
    }
    int32_t lane[KILN_VLEN] = {0};
    for (int64_t i = 0; i < lanes; i++) {
        lane[i] = x[(c + i) / multiplier];
    }
    return vi_load(lane);
}

/* Lone taps: any kernel, any multiplier, any number of channels. A lane holds one 8-bit number, so
 * its upper pair counts nothing. */
static void general_strip(const strip *s) {
    for (int64_t c = s->begin; c < s->end; c += KILN_VLEN) {
        int64_t lanes = i64_min(KILN_VLEN, s->end - c);
        strip one = *s;
        for (int64_t p = 0; p < s->pixels; p++) {
            kiln_vi sum = vi_load(s->epilogue->start + c);
            for (int64_t t = 0; t < s->rows; t++) {
                const int8_t *w = s->w + t * s->channels + c;
                kiln_vi wv = lanes == KILN_VLEN ? vi_load_s8(w) : vi_load_s8_tail(w, lanes);
                sum = dot_pairs(
                    sum, load_inputs(s->column[p * s->rows + t], c, lanes, s->multiplier), wv);
            }
            end_strip(&one, 1, c, lanes, s->epilogue->to_float, &sum);
            one.y += s->ldy;
            one.residual = s->residual ? one.residual + s->epilogue->ld_residual : NULL;
        }
    }
}

/* Strips with column sharing: X(form, pixels, width, stride). Sums, the kernel row and a column
 * must fit sixteen registers. */
#define STRIPS_OF(X, form, width, stride) \
    X(form, 1, width, stride)             \
    X(form, 2, width, stride)             \
    X(form, 3, width, stride)             \
    X(form, 4, width, stride)             \
    X(form, 5, width, stride)             \
    X(form, 6, width, stride)             \
    X(form, 7, width, stride)
#define STRIPS(X, form)      \
    STRIPS_OF(X, form, 3, 1) \
    STRIPS_OF(X, form, 3, 2) \
    STRIPS_OF(X, form, 5, 1) \
    STRIPS_OF(X, form, 5, 2) \
    STRIPS_OF(X, form, 7, 1) \
    X(form, 8, 3, 1) X(form, 8, 3, 2) X(form, 8, 5, 1) X(form, 8, 5, 2)

#define DEFINE_STRIP(form, pixels, width, stride)                              \
    static void strip_##form##_##pixels##_##width##_##stride(const strip *s) { \
        shared_strip(s, form, pixels, width, stride);                          \
    }
STRIPS(DEFINE_STRIP, PAIRS)
STRIPS(DEFINE_STRIP, QUADS)

#define NAME_STRIP(form, pixels, width, stride) \
    [width / 2 - 1][stride - 1][pixels] = strip_##form##_##pixels##_##width##_##stride,
static const strip_fn strips[2][KERNEL_WIDTH / 2][2][STRIP + 1] = {{STRIPS(NAME_STRIP, PAIRS)},
                                                                   {STRIPS(NAME_STRIP, QUADS)}};

/* The problem with what follows from it. */
typedef struct depthwise_job {
    const kiln_conv_args *a;
    int form;
    bool shared;
    int64_t rows;    /* pointers of a column, or of a pixel's lone taps */
    int64_t strip;   /* most pixels of a strip */
    int64_t columns; /* of the widest strip */
    int64_t lines, line_blocks;
    int64_t chunks; /* of channels */
} depthwise_job;

static bool is_shared(const kiln_conv_args *a) {
    int64_t width = a->kernel[2], stride = a->stride[2];
    bool regular = (width == 3 || width == 5 || width == 7) && stride <= 2 && a->dilation[2] == 1;
    return regular && !(width == 7 && stride == 2) && a->c_in == a->c_out && a->c_out >= KILN_VLEN;
}

static depthwise_job describe_depthwise(const kiln_conv_args *a, int form) {
    depthwise_job d = {.a = a, .form = form, .shared = is_shared(a), .strip = STRIP};
    int64_t width = a->kernel[2], kernel_rows = a->kernel[0] * a->kernel[1];
    d.rows = d.shared ? i64_ceil_div(kernel_rows, form) * form : kernel_rows * width;
    d.strip = d.shared && width == 7 ? STRIP - 1 : STRIP;
    d.columns = d.shared ? (d.strip - 1) * a->stride[2] + width : d.strip;
    d.lines = a->batch * a->out[0] * a->out[1];
    int64_t macs = i64_max(1, a->out[2] * a->c_out * kernel_rows * width);
    int64_t wanted = i64_min(STRIP_UNITS, i64_max(1, d.lines * macs / STRIP_UNIT_MACS));
    int64_t widest = i64_max(1, a->c_out / (CHUNK_VECS * KILN_VLEN));
    d.line_blocks = i64_max(1, i64_min(d.lines, wanted));
    d.chunks = i64_min(widest, i64_ceil_div(wanted, d.line_blocks));
    return d;
}

/* First channel of chunk i: chunks are whole vectors, the last takes the rest. */
static int64_t chunk_begin(const depthwise_job *d, int64_t i) {
    int64_t channels = d->a->c_out;
    return i == d->chunks ? channels : i64_part(channels / KILN_VLEN, d->chunks, i) * KILN_VLEN;
}

/* Scratch of a thread: zero points for padding, columns of a strip. */
static int64_t zeros_bytes(const depthwise_job *d) {
    return round64(d->a->c_in);
}

static int64_t scratch_of(const kiln_conv_args *a, int form) {
    depthwise_job d = describe_depthwise(a, form);
    return zeros_bytes(&d) + round64(d.rows * d.columns * (int64_t)sizeof(uint8_t *));
}

/* The input line of kernel row k for the output line, or NULL in the padding. */
static const uint8_t *line_of(const depthwise_job *d, const uint8_t *x, int64_t line, int64_t k) {
    const kiln_conv_args *a = d->a;
    int64_t oh = line % a->out[1], od = line / a->out[1] % a->out[0];
    int64_t z = od * a->stride[0] - a->pad[0] + k / a->kernel[1] * a->dilation[0];
    int64_t h = oh * a->stride[1] - a->pad[1] + k % a->kernel[1] * a->dilation[1];
    bool valid = inside(z, a->in[0]) && inside(h, a->in[1]);
    x += line / a->out[1] / a->out[0] * a->x_batch;
    return valid ? x + z * a->x_stride[0] + h * a->x_stride[1] : NULL;
}

/* Fills the column table of the strip of `pixels` outputs from w0 on: for each kernel row its
 * columns, or its lone taps of each pixel. */
static void point_strip(const depthwise_job *d, const uint8_t *x, int64_t line, int64_t w0,
                        int64_t pixels, const uint8_t *zeros, const uint8_t **out) {
    const kiln_conv_args *a = d->a;
    const int64_t width = a->kernel[2], left = w0 * a->stride[2] - a->pad[2];
    const int64_t columns = (pixels - 1) * a->stride[2] + width;
    const int64_t kernel_rows = a->kernel[0] * a->kernel[1];
    for (int64_t k = 0; k < (d->shared ? d->rows : kernel_rows); k++) {
        const uint8_t *row = k < kernel_rows ? line_of(d, x, line, k) : NULL;
        for (int64_t j = 0; d->shared && j < columns; j++) {
            bool valid = row && inside(left + j, a->in[2]);
            out[j * d->rows + k] = valid ? row + (left + j) * a->x_stride[2] : zeros;
        }
        for (int64_t j = 0; !d->shared && j < pixels * width; j++) {
            int64_t w = left + j / width * a->stride[2] + j % width * a->dilation[2];
            bool valid = row && inside(w, a->in[2]);
            out[j / width * d->rows + k * width + j % width] =
                valid ? row + w * a->x_stride[2] : zeros;
        }
    }
}

static void run_line(const depthwise_job *d, const kiln_conv_q8_args *g, int64_t line, strip *s,
                     const uint8_t *zeros, const uint8_t **column) {
    const kiln_conv_args *a = d->a;
    const kiln_q8_epilogue *e = &g->epilogue;
    int64_t width = a->out[2], count = i64_ceil_div(width, d->strip);
    for (int64_t i = 0; i < count; i++) {
        int64_t w0 = i64_part(width, count, i), row = line * width + w0;
        s->pixels = i64_part(width, count, i + 1) - w0;
        s->y = (char *)g->y + row * s->ldy;
        s->residual = e->residual ? e->residual + row * e->ld_residual : NULL;
        point_strip(d, g->x, line, w0, s->pixels, zeros, column);
        if (d->shared) {
            strips[d->form == QUADS][a->kernel[2] / 2 - 1][a->stride[2] - 1][s->pixels](s);
        } else {
            general_strip(s);
        }
    }
}

static int64_t tiles_of_depthwise(const kiln_conv_args *a, int form) {
    if (a->batch <= 0 || volume(a->out) <= 0 || a->c_out <= 0) {
        return 0;
    }
    depthwise_job d = describe_depthwise(a, form);
    return d.line_blocks * d.chunks;
}

static void run_depthwise(const kiln_conv_q8_args *g, int64_t begin, int64_t end, char *scratch,
                          int form) {
    const kiln_conv_args *a = &g->shape;
    if (begin >= end) {
        return;
    }
    const depthwise_job d = describe_depthwise(a, form);
    const uint8_t **column = (const uint8_t **)(void *)(scratch + zeros_bytes(&d));
    memset(scratch, g->x_zero, (size_t)a->c_in);
    const int64_t item = g->epilogue.to_float ? (int64_t)sizeof(float) : 1;
    for (int64_t i = begin; i < end; i++) {
        strip s = {.column = column,
                   .rows = d.rows,
                   .multiplier = a->c_out / a->c_in,
                   .w = g->w,
                   .channels = a->c_out,
                   .begin = chunk_begin(&d, i % d.chunks),
                   .end = chunk_begin(&d, i % d.chunks + 1),
                   .ldy = a->ldy * item,
                   .epilogue = &g->epilogue};
        int64_t last = i64_part(d.lines, d.line_blocks, i / d.chunks + 1);
        for (int64_t line = i64_part(d.lines, d.line_blocks, i / d.chunks); line < last; line++) {
            run_line(&d, g, line, &s, (const uint8_t *)scratch, column);
        }
    }
}

static int64_t packed_of(const kiln_conv_args *a, int form) {
    int64_t kernel_rows = a->kernel[0] * a->kernel[1];
    int64_t rows = is_shared(a) ? i64_ceil_div(kernel_rows, form) * form : kernel_rows;
    return rows * a->kernel[2] * a->c_out;
}

static void pack_depthwise(int8_t *dst, const int8_t *src, const kiln_conv_args *a, int form) {
    const int64_t taps = volume(a->kernel), width = a->kernel[2];
    const int64_t per_lane = is_shared(a) ? form : 1;
    memset(dst, 0, (size_t)packed_of(a, form));
    for (int64_t i = 0; i < taps * a->c_out; i++) {
        int64_t channel = i / taps, row = i % taps / width, k = i % width;
        int64_t at = (row / per_lane * width + k) * a->c_out + channel;
        dst[at * per_lane + row % per_lane] = src[i];
    }
}

#define PRIMS(form, name, symbol)                                                    \
    static int64_t name##_packed_bytes(const kiln_conv_args *a) {                    \
        return packed_of(a, form);                                                   \
    }                                                                                \
    static void name##_pack(void *dst, const int8_t *src, const kiln_conv_args *a) { \
        pack_depthwise(dst, src, a, form);                                           \
    }                                                                                \
    static int64_t name##_scratch_bytes(const kiln_conv_args *a) {                   \
        return scratch_of(a, form);                                                  \
    }                                                                                \
    static int64_t name##_tiles(const kiln_conv_args *a) {                           \
        return tiles_of_depthwise(a, form);                                          \
    }                                                                                \
    static void name##_run(const kiln_conv_q8_args *g, int64_t begin, int64_t end,   \
                           void *scratch) {                                          \
        run_depthwise(g, begin, end, scratch, form);                                 \
    }                                                                                \
    const kiln_depthwise_q8_prims symbol = {                                         \
        .isa = KILN_ISA_NAME,                                                        \
        .packed_bytes = name##_packed_bytes,                                         \
        .pack = name##_pack,                                                         \
        .scratch_bytes = name##_scratch_bytes,                                       \
        .tiles = name##_tiles,                                                       \
        .run = name##_run,                                                           \
    };

PRIMS(PAIRS, pairs, KILN_ISA_SYMBOL(kiln_depthwise_q8_prims))
#if defined(KILN_ISA_avx512)
PRIMS(QUADS, quads, kiln_depthwise_q8_prims_avx512vnni)
#elif defined(KILN_ISA_avx2)
PRIMS(QUADS, quads, kiln_depthwise_q8_prims_avxvnni)
#elif defined(KILN_Q8_QUADS_DEPTHWISE)
PRIMS(QUADS, quads, KILN_Q8_QUADS_DEPTHWISE)
#endif
