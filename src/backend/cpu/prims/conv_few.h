/* conv_few.h - convolutions with few output channels, vectors along W. Part of conv_simd.c, for
 * weights in float32.
 *
 * With output channels along the vectors, three of them leave most lanes idle. Here a vector holds
 * KILN_VLEN neighbouring output pixels of one channel, and weights are broadcast. For that the
 * input lines that an output line needs are staged in scratch, one plane per channel, padding
 * written out; lines that the next output line needs too stay. With a stride along W, pixels of
 * equal residue lie side by side, so that every tap of a vector of outputs is one load:
 *
 *     line[channel][residue][i]   input pixel  i * stride + residue  from the strip's first on
 *
 * A unit of work is a strip of columns of a block of output lines. Sums are those of the other
 * tactics, bit for bit: one chain of multiply-adds in the order of the packed weights.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_CONV_FEW_H
#define KILN_BACKEND_CPU_PRIMS_CONV_FEW_H

#include "backend/cpu/prims/conv_walk.h"
#include "backend/cpu/prims/vecmath.h"

enum {
    FEW_COLS = 4,
    FEW_DEPTH = 16,
    FEW_STRIP = 512,           /* most output pixels of a strip */
    FEW_BYTES = 128 * 1024,    /* of staged lines, unless a strip would be very short */
    FEW_UNITS = 64,            /* enough for 16 threads to share evenly */
    FEW_UNIT_MACS = 64 * 1024, /* no unit smaller than this for the sake of more units */
    FEW_VECS = 8,              /* most vectors of a tile */
};

/* Whether that pays: the lines must fill vectors, and deep pixels, which the block product handles
 * well, must be cheap to stage. */
KILN_INLINE bool is_few(const kiln_conv_args *a) {
    const kiln_gemm_blocking *b = &a->blocking;
    bool ruled = a->tactic == KILN_CONV_AUTO && b->tile_rows == 0 && b->block_rows == 0 &&
                 b->group_bytes == 0 && !b->rows_last;
    bool fits = ruled && !a->transposed && a->groups == 1 && a->c_out <= FEW_COLS &&
                a->kernel[0] == 1 && volume(a->kernel) > 1;
    bool shallow = a->c_in < FEW_DEPTH && a->out[2] >= KILN_VLEN;
    return fits && (shallow || (a->stride[2] == 1 && a->out[2] >= 4 * KILN_VLEN));
}

typedef struct few_job {
    const kiln_conv_args *a;
    int64_t k, cols;
    int64_t strip, strips; /* output pixels of one; strips of a line */
    int64_t lines, blocks; /* output lines; blocks of them */
    int64_t plane;         /* floats of a residue of a channel of a line */
    int64_t line;          /* floats of a line */
    int64_t slots;         /* lines kept */
} few_job;

KILN_INLINE int64_t round_vec(int64_t n) {
    return i64_ceil_div(n, KILN_VLEN) * KILN_VLEN;
}

KILN_INLINE void few_widths(few_job *f, int64_t strip) {
    const kiln_conv_args *a = f->a;
    int64_t reach = (a->kernel[2] - 1) * a->dilation[2];
    f->strip = strip;
    f->plane = round_vec(round_vec(strip) + reach / a->stride[2] + 1);
    f->line = f->plane * a->stride[2] * a->c_in;
}

KILN_INLINE few_job few_describe(const kiln_conv_args *a) {
    few_job f = {.a = a, .k = volume(a->kernel) * a->c_in, .cols = a->c_out};
    int64_t strip = i64_min(FEW_STRIP, a->out[2]);
    f.slots = a->kernel[1];
    few_widths(&f, strip);
    while (strip > 8 * KILN_VLEN && f.slots * f.line * (int64_t)sizeof(float) > FEW_BYTES) {
        strip = round_vec(strip / 2);
        few_widths(&f, strip);
    }
    f.strips = i64_ceil_div(a->out[2], strip);
    f.lines = a->batch * a->out[0] * a->out[1];
    int64_t macs = i64_max(1, f.lines * a->out[2] * f.k * f.cols);
    int64_t wanted = i64_max(1, i64_min(FEW_UNITS, macs / FEW_UNIT_MACS));
    f.blocks = i64_max(1, i64_min(f.lines, i64_ceil_div(wanted, f.strips)));
    return f;
}

/* What stands in a slot; n < 0: nothing yet. */
typedef struct few_tag {
    int64_t n, d, h;
} few_tag;

typedef struct few_scratch {
    float *weights;     /* [k][cols] */
    const float **taps; /* [k]: where its pixels begin, for the current output line */
    few_tag *tags;
    float *lines;
} few_scratch;

KILN_INLINE int64_t few_lay_out(const few_job *f, char *base, few_scratch *s) {
    int64_t weights = round64(f->k * f->cols * (int64_t)sizeof(float));
    int64_t taps = round64(f->k * (int64_t)sizeof(float *));
    int64_t tags = round64(f->slots * (int64_t)sizeof(few_tag));
    int64_t lines = round64(f->slots * f->line * (int64_t)sizeof(float));
    if (base) {
        s->weights = (float *)base;
        s->taps = (const float **)(base + weights);
        s->tags = (few_tag *)(base + weights + taps);
        s->lines = (float *)(base + weights + taps + tags);
    }
    return weights + taps + tags + lines;
}

/* ---- Staging ---- */

/* n floats, every step-th of src where 0 <= from + i * by < width, zero elsewhere. */
static void few_row(float *dst, const float *src, int64_t n, int64_t from, int64_t by,
                    int64_t width, int64_t step) {
    int64_t first = from < 0 ? i64_min(n, i64_ceil_div(-from, by)) : 0;
    int64_t end = from < width ? i64_min(n, i64_ceil_div(width - from, by)) : 0;
    end = i64_max(first, end);
    memset(dst, 0, (size_t)first * sizeof *dst);
    if (by * step == 1 && first < end) {
        memcpy(dst + first, src + from + first, (size_t)(end - first) * sizeof *dst);
    } else {
        for (int64_t i = first; i < end; i++) {
            dst[i] = src[(from + i * by) * step];
        }
    }
    memset(dst + end, 0, (size_t)(n - end) * sizeof *dst);
}

typedef float few_quad __attribute__((vector_size(16)));

/* dst[c * plane + i] = src[i * pixel + c], 4 x 4. */
KILN_INLINE void few_turn(float *dst, int64_t plane, const float *src, int64_t pixel) {
    few_quad v[4], t[4];
    KILN_UNROLL(4) for (int i = 0; i < 4; i++) {
        memcpy(&v[i], src + i * pixel, sizeof v[i]);
    }
    t[0] = __builtin_shufflevector(v[0], v[2], 0, 4, 1, 5);
    t[1] = __builtin_shufflevector(v[0], v[2], 2, 6, 3, 7);
    t[2] = __builtin_shufflevector(v[1], v[3], 0, 4, 1, 5);
    t[3] = __builtin_shufflevector(v[1], v[3], 2, 6, 3, 7);
    v[0] = __builtin_shufflevector(t[0], t[2], 0, 4, 1, 5);
    v[1] = __builtin_shufflevector(t[0], t[2], 2, 6, 3, 7);
    v[2] = __builtin_shufflevector(t[1], t[3], 0, 4, 1, 5);
    v[3] = __builtin_shufflevector(t[1], t[3], 2, 6, 3, 7);
    KILN_UNROLL(4) for (int i = 0; i < 4; i++) {
        memcpy(dst + i * plane, &v[i], sizeof v[i]);
    }
}

/* The first `channels`, a multiple of 4, of n neighbouring pixels into their planes. */
static void few_turn_pixels(float *dst, int64_t plane, const float *src, int64_t pixel, int64_t n,
                            int64_t channels) {
    enum { CHUNK = 16 }; /* pixels: a cache line of each plane at once */
    for (int64_t i = 0; i < n; i += CHUNK) {
        int64_t end = i64_min(n, i + CHUNK), quads = i + (end - i) / 4 * 4;
        for (int64_t c = 0; c < channels; c += 4) {
            for (int64_t k = i; k < quads; k += 4) {
                few_turn(dst + c * plane + k, plane, src + k * pixel + c, pixel);
            }
            for (int64_t k = quads; k < end; k++) {
                for (int64_t q = c; q < c + 4; q++) {
                    dst[q * plane + k] = src[k * pixel + q];
                }
            }
        }
    }
}

/* Input line (n, d, h) from pixel w0 on. */
static void few_stage(const few_job *f, const few_tag *at, int64_t w0, float *dst) {
    const kiln_conv_args *a = f->a;
    if (!inside(at->d, a->in[0]) || !inside(at->h, a->in[1])) {
        memset(dst, 0, (size_t)f->line * sizeof *dst);
        return;
    }
    const float *x = a->x + at->n * a->x_batch + at->d * a->x_stride[0] + at->h * a->x_stride[1];
    int64_t turned = a->x_channel == 1 && a->stride[2] == 1 ? a->c_in / 4 * 4 : 0;
    if (turned) {
        int64_t first = i64_max(0, i64_min(f->plane, -w0));
        int64_t end = i64_max(first, i64_min(f->plane, a->in[2] - w0));
        for (int64_t c = 0; c < turned; c++) {
            memset(dst + c * f->plane, 0, (size_t)first * sizeof *dst);
            memset(dst + c * f->plane + end, 0, (size_t)(f->plane - end) * sizeof *dst);
        }
        if (first < end) {
            few_turn_pixels(dst + first, f->plane, x + (w0 + first) * a->x_stride[2],
                            a->x_stride[2], end - first, turned);
        }
    }
    x += turned * a->x_channel;
    dst += turned * f->plane;
    for (int64_t c = turned; c < a->c_in; c++, x += a->x_channel) {
        for (int64_t r = 0; r < a->stride[2]; r++, dst += f->plane) {
            few_row(dst, x, f->plane, w0 + r, a->stride[2], a->in[2], a->x_stride[2]);
        }
    }
}

/* Stages what the output line at p needs and is not there, and points the taps at it. */
static void few_point(const few_job *f, const position *p, int64_t first, few_scratch *s) {
    const kiln_conv_args *a = f->a;
    const int64_t kh = a->kernel[1], kw = a->kernel[2];
    for (int64_t i = 0; i < kh; i++) {
        few_tag want = {p->n, p->d * a->stride[0] - a->pad[0],
                        p->h * a->stride[1] - a->pad[1] + i * a->dilation[1]};
        int64_t slot = a->dilation[1] == 1 ? (want.h % kh + kh) % kh : i;
        few_tag *tag = &s->tags[slot];
        float *line = s->lines + slot * f->line;
        if (tag->n != want.n || tag->d != want.d || tag->h != want.h) {
            few_stage(f, &want, first * a->stride[2] - a->pad[2], line);
            *tag = want;
        }
        for (int64_t j = 0; j < kw; j++) {
            int64_t t = j * a->dilation[2];
            const float *x = line + t % a->stride[2] * f->plane + t / a->stride[2];
            for (int64_t c = 0; c < a->c_in; c++, x += f->plane * a->stride[2]) {
                s->taps[a->planar ? (c * kh + i) * kw + j : (i * kw + j) * a->c_in + c] = x;
            }
        }
    }
}

/* ---- Tiles ---- */

typedef struct few_tile {
    const float *const *taps;
    const float *weights;
    int64_t k, at;  /* at: the tile's first pixel in the strip */
    int64_t pixels; /* of the tile that are wanted */
    const kiln_epilogue *e;
    const float *residual; /* of the first pixel, or NULL */
    float *y;              /* of the first pixel */
    int64_t ldy;
} few_tile;

/* Residuals of KILN_VLEN pixels, 0 beyond `pixels`. */
KILN_INLINE kiln_vf few_residual(const few_tile *t, int col, int64_t first) {
    float r[KILN_VLEN];
    for (int64_t i = 0; i < KILN_VLEN; i++) {
        bool wanted = first + i < t->pixels;
        r[i] = wanted ? t->residual[(first + i) * t->e->ld_residual + col] : 0.0f;
    }
    return vf_load(r);
}

KILN_INLINE kiln_vf few_finish(const few_tile *t, kiln_vf s, int col, int64_t first) {
    const kiln_epilogue *e = t->e;
    if (e->bias) {
        s = vf_add(s, vf_set1(e->bias[col]));
    }
    if (t->residual && !e->act_first) {
        s = vf_add(s, few_residual(t, col, first));
    }
    if (e->slope != 1.0f) {
        s = vf_select(vf_lt(s, vf_zero()), vf_mul(s, vf_set1(e->slope)), s);
    }
    if (e->hard_swish) {
        s = vf_hard_swish(s);
    }
    s = vf_clamp(s, vf_set1(e->lo), vf_set1(e->hi));
    return t->residual && e->act_first ? vf_add(s, few_residual(t, col, first)) : s;
}

/* `vecs` vectors of pixels of each of `cols` channels. */
KILN_INLINE void few_product(const few_tile *t, int cols, int vecs) {
    kiln_vf sum[FEW_COLS][FEW_VECS];
    float out[FEW_COLS][FEW_VECS * KILN_VLEN];
    KILN_UNROLL(4) for (int o = 0; o < cols; o++) {
        KILN_UNROLL(8) for (int v = 0; v < vecs; v++) {
            sum[o][v] = vf_zero();
        }
    }
    for (int64_t k = 0; k < t->k; k++) {
        const float *x = t->taps[k] + t->at, *w = t->weights + k * cols;
        kiln_vf b[FEW_COLS];
        KILN_UNROLL(4) for (int o = 0; o < cols; o++) {
            b[o] = vf_set1(w[o]);
        }
        KILN_UNROLL(8) for (int v = 0; v < vecs; v++) {
            kiln_vf p = vf_load(x + v * KILN_VLEN);
            KILN_UNROLL(4) for (int o = 0; o < cols; o++) {
                sum[o][v] = vf_fma(p, b[o], sum[o][v]);
            }
        }
    }
    KILN_UNROLL(4) for (int o = 0; o < cols; o++) {
        KILN_UNROLL(8) for (int v = 0; v < vecs; v++) {
            vf_store(out[o] + v * KILN_VLEN, few_finish(t, sum[o][v], o, v * KILN_VLEN));
        }
    }
    for (int64_t i = 0; i < t->pixels; i++) {
        KILN_UNROLL(4) for (int o = 0; o < cols; o++) {
            t->y[i * t->ldy + o] = out[o][i];
        }
    }
}

/* Vectors of a whole tile: as many sums as there are registers for. */
KILN_INLINE int few_vecs(int64_t cols) {
    return cols == 1 ? 8 : cols <= 3 ? 4 : KILN_VREGS >= 32 ? 4 : 2;
}

KILN_INLINE void few_run_tile(const few_tile *t, int64_t cols, bool whole) {
    switch (cols * 2 + whole) {
    case 2:
        few_product(t, 1, 1);
        break;
    case 3:
        few_product(t, 1, few_vecs(1));
        break;
    case 4:
        few_product(t, 2, 1);
        break;
    case 5:
        few_product(t, 2, few_vecs(2));
        break;
    case 6:
        few_product(t, 3, 1);
        break;
    case 7:
        few_product(t, 3, few_vecs(3));
        break;
    case 8:
        few_product(t, 4, 1);
        break;
    default:
        few_product(t, 4, few_vecs(4));
        break;
    }
}

/* Pixels [first, first + n) of the output line whose pixel 0 is row `row`. */
static void few_line(const few_job *f, int64_t row, int64_t first, int64_t n,
                     const few_scratch *s) {
    const kiln_conv_args *a = f->a;
    const kiln_epilogue *e = &a->epilogue;
    few_tile t = {.taps = s->taps, .weights = s->weights, .k = f->k, .e = e, .ldy = a->ldy};
    for (t.at = 0; t.at < n;) {
        int64_t whole = few_vecs(f->cols) * KILN_VLEN;
        int64_t at = row + first + t.at;
        bool fits = n - t.at >= whole;
        t.pixels = i64_min(fits ? whole : KILN_VLEN, n - t.at);
        t.y = a->y + at * a->ldy;
        t.residual = e->residual ? e->residual + at * e->ld_residual : NULL;
        few_run_tile(&t, f->cols, fits);
        t.at += t.pixels;
    }
    if (e->post) {
        e->post(e->post_arg, a->y + (row + first) * a->ldy, a->ldy, row + first, n, 0, f->cols);
    }
}

static void few_run(const kiln_conv_args *a, int64_t begin, int64_t end, int64_t nr, char *memory) {
    const few_job f = few_describe(a);
    few_scratch s = {0};
    few_lay_out(&f, memory, &s);
    for (int64_t i = 0; i < f.k * f.cols; i++) {
        s.weights[i] = ((const float *)a->w)[i / f.cols * nr + i % f.cols];
    }
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t strip = unit % f.strips, block = unit / f.strips;
        int64_t first = strip * f.strip, n = i64_min(f.strip, a->out[2] - first);
        for (int64_t i = 0; i < f.slots; i++) {
            s.tags[i].n = -1;
        }
        for (int64_t line = i64_part(f.lines, f.blocks, block);
             line < i64_part(f.lines, f.blocks, block + 1); line++) {
            position p = position_of(a, line * a->out[2]);
            few_point(&f, &p, first, &s);
            few_line(&f, line * a->out[2], first, n, &s);
        }
    }
}

#endif
