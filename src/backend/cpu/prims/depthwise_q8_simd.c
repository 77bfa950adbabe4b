/* depthwise_q8_simd.c - 8-bit depthwise convolution, channels along the vector. Compiled once per
 * ISA.
 *
 * Legend as in depthwise_q8_lines.h, which computes the lines of small kernels; here are all other
 * kernels, units of work, packing. */
#include "backend/cpu/prims/depthwise_q8.h"
#include "backend/cpu/prims/depthwise_q8_lines.h"
#include "backend/cpu/prims/q8_floats.h"

enum {
    LINE_UNITS = 64,            /* enough for 16 threads to share evenly */
    LINE_UNIT_MACS = 64 * 1024, /* no unit smaller than this for the sake of more units */
    CHUNK_VECS = 4,             /* fewest vectors of channels in a unit */
};

/* ---- Lone taps ---- */

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

/* The problem with what follows from it. */
typedef struct depthwise_job {
    const kiln_conv_args *a;
    int form;
    bool rolls;
    line_cut cut;
} depthwise_job;

static int64_t rows_of(const kiln_conv_args *a) {
    return a->kernel[0] * a->kernel[1];
}

static bool rolls(const kiln_conv_args *a) {
    const int64_t width = a->kernel[2], rows = rows_of(a);
    return (width == 3 || width == 5 || width == 7) && (rows == 1 || rows == width) &&
           a->stride[2] <= 2 && a->dilation[2] == 1 && a->c_in == a->c_out && a->c_out >= KILN_VLEN;
}

static depthwise_job describe_depthwise(const kiln_conv_args *a, int form) {
    depthwise_job d = {.a = a, .form = form, .rolls = rolls(a)};
    d.cut = cut_lines(a, LINE_UNITS, LINE_UNIT_MACS, CHUNK_VECS);
    return d;
}

/* Zero points for padding, as a whole line where lines roll. */
static int64_t padding_bytes(const kiln_conv_args *a) {
    return round64(rolls(a) ? a->in[2] * a->x_stride[2] : a->c_in);
}

/* Lines of so many bytes of floats that wait for their post at a time. */
static int64_t together(int64_t line_bytes) {
    return i64_max(1, i64_min(MAX_LINES, NARROW_BYTES / i64_max(1, line_bytes)));
}

/* Scratch of a thread: those, and chunks of lines of floats that wait. */
static int64_t scratch_of(const kiln_conv_args *a, int form, bool narrows) {
    depthwise_job d = describe_depthwise(a, form);
    int64_t most = 0;
    for (int64_t i = 0; i < d.cut.chunks && narrows; i++) {
        int64_t channels = chunk_begin(&d.cut, i + 1) - chunk_begin(&d.cut, i);
        int64_t line_bytes = a->out[2] * channels * (int64_t)sizeof(float);
        most = i64_max(most, together(line_bytes) * line_bytes);
    }
    return padding_bytes(a) + most;
}

/* The input line of kernel row k for the output line, or NULL in the padding. */
static const uint8_t *line_of(const depthwise_job *d, const uint8_t *x, int64_t at, int64_t k) {
    const kiln_conv_args *a = d->a;
    int64_t oh = at % a->out[1], od = at / a->out[1] % a->out[0];
    int64_t z = od * a->stride[0] - a->pad[0] + k / a->kernel[1] * a->dilation[0];
    int64_t h = oh * a->stride[1] - a->pad[1] + k % a->kernel[1] * a->dilation[1];
    bool valid = inside(z, a->in[0]) && inside(h, a->in[1]);
    x += at / a->out[1] / a->out[0] * a->x_batch;
    return valid ? x + z * a->x_stride[0] + h * a->x_stride[1] : NULL;
}

/* One vector of channels of one output, any kernel, any multiplier, any number of channels. A lane
 * holds one 8-bit number, so its upper half counts nothing. */
static void lone_taps(const depthwise_job *d, const line *l, const uint8_t *x, int64_t at,
                      int64_t o, int64_t c, int64_t lanes) {
    const kiln_conv_args *a = d->a;
    kiln_vi sum = vi_load(l->epilogue->start + c);
    const int8_t *w = l->w + c;
    for (int64_t k = 0; k < rows_of(a); k++) {
        const uint8_t *row = line_of(d, x, at, k);
        for (int64_t t = 0; t < a->kernel[2]; t++, w += l->channels) {
            int64_t column = l->left + o * a->stride[2] + t * a->dilation[2];
            const uint8_t *p = row && inside(column, a->in[2]) ? row + column * l->step : l->zeros;
            kiln_vi wv = lanes == KILN_VLEN ? vi_load_s8(w) : vi_load_s8_tail(w, lanes);
            sum = dot_pairs(sum, load_inputs(p, c, lanes, a->c_out / a->c_in), wv);
        }
    }
    const bool to_float = l->epilogue->to_float;
    const q8_columns q = q8_columns_of(l->epilogue, c);
    const uint8_t *residual = l->at[0].residual;
    q8_finish(&q, sum, residual ? residual + o * l->epilogue->ld_residual + c : NULL, to_float,
              l->at[0].y + o * l->ldy + (c - l->begin) * (to_float ? (int64_t)sizeof(float) : 1),
              lanes);
}

/* Line `at` of the problem as the lines' number i; y is where its channel `begin` goes. */
static void aim_line(const depthwise_job *d, const kiln_conv_q8_args *g, int64_t at, line *l,
                     int64_t i, char *y) {
    const kiln_q8_epilogue *e = &g->epilogue;
    line_at *to = &l->at[i];
    to->y = y;
    to->residual = e->residual ? e->residual + at * d->a->out[2] * e->ld_residual : NULL;
    for (int64_t k = 0; d->rolls && k < rows_of(d->a); k++) {
        const uint8_t *row = line_of(d, g->x, at, k);
        to->row[k] = row ? row : l->zeros;
    }
}

static void compute_lines(const depthwise_job *d, const kiln_conv_q8_args *g, int64_t at,
                          const line *l) {
    const kiln_conv_args *a = d->a;
    if (d->rolls) {
        rolling[d->form == QUADS][rows_of(a) != 1][a->kernel[2] / 2 - 1][a->stride[2] - 1](l);
        return;
    }
    for (int64_t o = 0; o < a->out[2]; o++) {
        for (int64_t c = l->begin; c < l->end; c += KILN_VLEN) {
            lone_taps(d, l, g->x, at, o, c, i64_min(KILN_VLEN, l->end - c));
        }
    }
}

/* Lines [first, last) of the lines' channels. floats: where they wait for their post, or NULL. */
static void run_lines(const depthwise_job *d, const kiln_conv_q8_args *g, int64_t first,
                      int64_t last, line *l, float *floats) {
    const int64_t out = d->a->out[2], count = l->end - l->begin;
    const int64_t item = g->epilogue.to_float ? (int64_t)sizeof(float) : 1;
    const int64_t most = !d->rolls ? 1 : floats ? together(out * count * item) : MAX_LINES;
    l->ldy = (floats ? count : d->a->ldy) * item;
    for (int64_t at = first; at < last; at += l->count) {
        char *y = floats ? (char *)floats : (char *)g->y + at * out * l->ldy + l->begin * item;
        l->count = i64_min(most, last - at);
        for (int64_t i = 0; i < l->count; i++) {
            aim_line(d, g, at + i, l, i, y + i * out * l->ldy);
        }
        compute_lines(d, g, at, l);
        if (floats) {
            floats_at(g->epilogue.floats, floats, count, at * out, l->count * out, l->begin, count);
        }
    }
}

static int64_t tiles_of_depthwise(const kiln_conv_args *a, int form) {
    if (a->batch <= 0 || volume(a->out) <= 0 || a->c_out <= 0) {
        return 0;
    }
    depthwise_job d = describe_depthwise(a, form);
    return d.cut.blocks * d.cut.chunks;
}

static void run_depthwise(const kiln_conv_q8_args *g, int64_t begin, int64_t end, void *scratch,
                          int form) {
    const kiln_conv_args *a = &g->shape;
    if (begin >= end) {
        return;
    }
    const depthwise_job d = describe_depthwise(a, form);
    void *after = (char *)scratch + padding_bytes(a);
    float *floats = g->epilogue.narrows ? after : NULL;
    memset(scratch, g->x_zero, (size_t)padding_bytes(a));
    line l = {.zeros = scratch,
              .step = a->x_stride[2],
              .left = -a->pad[2],
              .in = a->in[2],
              .out = a->out[2],
              .w = g->w,
              .channels = a->c_out,
              .epilogue = &g->epilogue};
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i64_part(d.cut.lines, d.cut.blocks, i / d.cut.chunks);
        int64_t last = i64_part(d.cut.lines, d.cut.blocks, i / d.cut.chunks + 1);
        l.begin = chunk_begin(&d.cut, i % d.cut.chunks);
        l.end = chunk_begin(&d.cut, i % d.cut.chunks + 1);
        run_lines(&d, g, first, last, &l, floats);
        floats_block(&g->epilogue, g->y, a->ldy, first * a->out[2], (last - first) * a->out[2],
                     l.begin, l.end - l.begin);
    }
}

static int64_t packed_of(const kiln_conv_args *a, int form) {
    int64_t rows = rolls(a) ? i64_ceil_div(rows_of(a), form) * form : rows_of(a);
    return rows * a->kernel[2] * a->c_out;
}

static void pack_depthwise(int8_t *dst, const int8_t *src, const kiln_conv_args *a, int form) {
    const int64_t taps = volume(a->kernel), width = a->kernel[2];
    const int64_t per_lane = rolls(a) ? form : 1;
    memset(dst, 0, (size_t)packed_of(a, form));
    for (int64_t i = 0; i < taps * a->c_out; i++) {
        int64_t channel = i / taps, row = i % taps / width, k = i % width;
        int64_t at = (row / per_lane * width + k) * a->c_out + channel;
        dst[at * per_lane + row % per_lane] = src[i];
    }
}

#define DEPTHWISE_PRIMS(form, name, symbol)                                          \
    static int64_t name##_packed_bytes(const kiln_conv_args *a) {                    \
        return packed_of(a, form);                                                   \
    }                                                                                \
    static void name##_pack(void *dst, const int8_t *src, const kiln_conv_args *a) { \
        pack_depthwise(dst, src, a, form);                                           \
    }                                                                                \
    static int64_t name##_scratch_bytes(const kiln_conv_args *a, bool narrows) {     \
        return scratch_of(a, form, narrows);                                         \
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

DEPTHWISE_PRIMS(PAIRS, depthwise_pairs, KILN_ISA_SYMBOL(kiln_depthwise_q8_prims))
#if defined(KILN_ISA_avx512)
DEPTHWISE_PRIMS(QUADS, depthwise_quads, kiln_depthwise_q8_prims_avx512vnni)
#elif defined(KILN_ISA_avx2)
DEPTHWISE_PRIMS(QUADS, depthwise_quads, kiln_depthwise_q8_prims_avxvnni)
#elif defined(KILN_Q8_QUADS_DEPTHWISE)
DEPTHWISE_PRIMS(QUADS, depthwise_quads, KILN_Q8_QUADS_DEPTHWISE)
#endif
