/* depthwise_simd.c - depthwise convolution, channels along the vector. Compiled once per ISA and
 * element type of x: depthwise_half_simd.c has bfloat16.
 *
 * Legend: a line is a row of outputs along W, a strip some neighbours of a line; a kernel row is
 * one (kd, kh); columns are the input pixels of a kernel row that a strip sees. The strip is given
 * by pointers to its columns, so that padding, dilation and strides cost nothing in the inner loop.
 */
#include "backend/cpu/prims/conv_walk.h"
#include "backend/cpu/prims/depthwise.h"
#include "backend/cpu/prims/simd.h"
#include "backend/cpu/prims/vecmath.h"
#include "base/half.h"

enum {
    STRIP = 8,                   /* most outputs of a strip */
    KERNEL_WIDTH = 7,            /* widest kernel with column sharing */
    STRIP_UNITS = 64,            /* enough for 16 threads to share evenly */
    STRIP_UNIT_MACS = 64 * 1024, /* no unit smaller than this for the sake of more units */
    CHUNK_VECS = 4,              /* fewest vectors of channels in a unit */
};

#if defined(KILN_DEPTHWISE_HALF)
#define DEPTHWISE_PRIMS kiln_depthwise_half_prims
typedef uint16_t element;
KILN_VFN(kiln_vf, load_x, (const element *p), vf_load_bf16(p))
KILN_VFN(kiln_vf, load_x_tail, (const element *p, int64_t n), vf_load_bf16_tail(p, n))
KILN_INLINE float widen_x(element x) {
    return kiln_bf16_to_f32(x);
}
#else
#define DEPTHWISE_PRIMS kiln_depthwise_prims
typedef float element;
KILN_VFN(kiln_vf, load_x, (const element *p), vf_load(p))
KILN_VFN(kiln_vf, load_x_tail, (const element *p, int64_t n), vf_load_tail(p, n))
KILN_INLINE float widen_x(element x) {
    return x;
}
#endif

typedef struct strip {
    const element *const
        *column; /* at an edge [rows][columns], inside [rows]; lone taps: [taps][pixels] */
    const int64_t *first_tap; /* of each row */
    int64_t rows;
    int64_t step; /* elements from column to column when there is one pointer a row */
    int64_t pixels;
    int64_t multiplier; /* output channels of an input channel */
    const float *w;     /* [tap][channels] */
    int64_t channels;   /* of the output */
    int64_t begin, end; /* output channels to compute */
    float *y;           /* of the first pixel, channel 0 */
    int64_t ldy;
    const float *residual;
    const kiln_epilogue *epilogue;
} strip;

typedef void (*strip_fn)(const strip *s);

#define UNROLL_STRIP KILN_UNROLL(32)

/* The sums of a strip's channels c start at the bias ... */
KILN_INLINE void begin_strip(const strip *s, int pixels, int64_t c, bool whole, kiln_vm mask,
                             kiln_vf *sum) {
    const float *bias = s->epilogue->bias;
    kiln_vf b = vf_zero();
    if (bias) {
        b = whole ? vf_load(bias + c) : vf_load_mask(bias + c, mask);
    }
    UNROLL_STRIP for (int p = 0; p < pixels; p++) {
        sum[p] = b;
    }
}

KILN_INLINE void add_residual(const strip *s, int pixels, int64_t c, bool whole, kiln_vm mask,
                              kiln_vf *sum) {
    const float *at = s->residual + c;
    const int64_t step = s->epilogue->ld_residual;
    UNROLL_STRIP for (int p = 0; p < pixels; p++) {
        const float *r = at + p * step;
        sum[p] = vf_add(sum[p], whole ? vf_load(r) : vf_load_mask(r, mask));
    }
}

/* ... and end here: residual, activation, store. mask holds the lanes when not all. */
KILN_INLINE void end_strip(const strip *s, int pixels, int64_t c, bool whole, kiln_vm mask,
                           kiln_vf *sum) {
    const kiln_epilogue *e = s->epilogue;
    if (s->residual && !e->act_first) {
        add_residual(s, pixels, c, whole, mask, sum);
    }
    if (e->slope != 1.0f) {
        kiln_vf slope = vf_set1(e->slope);
        UNROLL_STRIP for (int p = 0; p < pixels; p++) {
            sum[p] = vf_select(vf_lt(sum[p], vf_zero()), vf_mul(sum[p], slope), sum[p]);
        }
    }
    if (e->hard_swish) {
        UNROLL_STRIP for (int p = 0; p < pixels; p++) {
            sum[p] = vf_hard_swish(sum[p]);
        }
    }
    kiln_vf lo = vf_set1(e->lo);
    kiln_vf hi = vf_set1(e->hi);
    UNROLL_STRIP for (int p = 0; p < pixels; p++) {
        sum[p] = vf_clamp(sum[p], lo, hi);
    }
    if (s->residual && e->act_first) {
        add_residual(s, pixels, c, whole, mask, sum);
    }
    float *y = s->y + c;
    const int64_t ldy = s->ldy;
#if defined(KILN_DEPTHWISE_HALF)
    if (e->result) {
        uint16_t *at = e->result + (y - e->origin);
        const int64_t lanes = s->end - c;
        UNROLL_STRIP for (int p = 0; p < pixels; p++) {
            if (whole) {
                vf_store_bf16(at + p * ldy, sum[p]);
            } else {
                vf_store_bf16_tail(at + p * ldy, lanes, sum[p]);
            }
        }
        return;
    }
#endif
    UNROLL_STRIP for (int p = 0; p < pixels; p++) {
        if (whole) {
            vf_store(y + p * ldy, sum[p]);
        } else {
            vf_store_mask(y + p * ldy, mask, sum[p]);
        }
    }
}

/* Column sharing: kernel rows of `width` taps, `stride` columns from output to output. Needs at
 * least a vector of channels: the last vector overlaps the one before when they do not come out
 * even. Inside the input, columns are one step apart and only a row's first has a pointer. */
KILN_INLINE void shared_strip(const strip *s, int pixels, int width, int stride, bool edge) {
    const int columns = (pixels - 1) * stride + width;
    const kiln_vm all = vm_tail(KILN_VLEN);
    const int64_t step = s->step;
    int64_t c = s->begin;
    for (;;) {
        kiln_vf sum[STRIP];
        begin_strip(s, pixels, c, true, all, sum);
        for (int64_t r = 0; r < s->rows; r++) {
            const element *const *column = s->column + (edge ? r * columns : r);
            const float *w = s->w + s->first_tap[r] * s->channels + c;
            const element *at = column[0] + c;
            kiln_vf wv[KERNEL_WIDTH];
            UNROLL_STRIP for (int k = 0; k < width; k++) {
                wv[k] = vf_load(w + k * s->channels);
            }
            UNROLL_STRIP for (int j = 0; j < columns; j++) {
                kiln_vf x = load_x(edge ? column[j] + c : at);
                at += step;
                UNROLL_STRIP for (int k = 0; k < width; k++) {
                    int p = (j - k) / stride;
                    if (j >= k && (j - k) % stride == 0 && p < pixels) {
                        sum[p] = vf_fma(wv[k], x, sum[p]);
                    }
                }
            }
        }
        end_strip(s, pixels, c, true, all, sum);
        if (c + KILN_VLEN >= s->end) {
            return;
        }
        c = i64_min(c + KILN_VLEN, s->end - KILN_VLEN);
    }
}

/* A vector of output channels' inputs: channel o reads input channel o / multiplier. */
KILN_INLINE kiln_vf load_inputs(const element *x, int64_t c, int64_t lanes, int64_t multiplier) {
    if (multiplier == 1) {
        return lanes == KILN_VLEN ? load_x(x + c) : load_x_tail(x + c, lanes);
    }
    float lane[KILN_VLEN] = {0};
    int64_t at = c / multiplier;
    int64_t left = multiplier - c % multiplier;
    for (int64_t i = 0; i < lanes; i++) {
        lane[i] = widen_x(x[at]);
        if (--left == 0) {
            at++;
            left = multiplier;
        }
    }
    return vf_load(lane);
}

/* Lone taps: any kernel, any multiplier, any number of channels. */
static void general_strip(const strip *s) {
    for (int64_t c = s->begin; c < s->end; c += KILN_VLEN) {
        int64_t lanes = i64_min(KILN_VLEN, s->end - c);
        kiln_vm mask = vm_tail(lanes);
        kiln_vf sum[STRIP];
        begin_strip(s, STRIP, c, lanes == KILN_VLEN, mask, sum);
        for (int64_t t = 0; t < s->rows; t++) {
            const element *const *x = s->column + t * s->pixels;
            kiln_vf w = vf_load_mask(s->w + s->first_tap[t] * s->channels + c, mask);
            if (s->pixels == STRIP && lanes == KILN_VLEN && s->multiplier == 1) {
                UNROLL_STRIP for (int p = 0; p < STRIP; p++) {
                    sum[p] = vf_fma(w, load_x(x[p] + c), sum[p]);
                }
                continue;
            }
            UNROLL_STRIP for (int p = 0; p < STRIP; p++) {
                if (p < s->pixels) {
                    sum[p] = vf_fma(w, load_inputs(x[p], c, lanes, s->multiplier), sum[p]);
                }
            }
        }
        for (int64_t p = 0; p < s->pixels; p++) {
            strip one = *s;
            one.y += p * s->ldy;
            one.residual = s->residual ? s->residual + p * s->epilogue->ld_residual : NULL;
            end_strip(&one, 1, c, lanes == KILN_VLEN, mask, sum + p);
        }
    }
}

/* Strips with column sharing: X(pixels, width, stride). Sums, the kernel row and a column must fit
 * sixteen registers. */
#define STRIPS_OF(X, width, stride) \
    X(1, width, stride)             \
    X(2, width, stride)             \
    X(3, width, stride)             \
    X(4, width, stride) X(5, width, stride) X(6, width, stride) X(7, width, stride)
#define STRIPS(X)      \
    STRIPS_OF(X, 3, 1) \
    STRIPS_OF(X, 3, 2) \
    STRIPS_OF(X, 5, 1) \
    STRIPS_OF(X, 5, 2) STRIPS_OF(X, 7, 1) X(8, 3, 1) X(8, 3, 2) X(8, 5, 1) X(8, 5, 2)

#define DEFINE_STRIP(pixels, width, stride)                           \
    static void inner_##pixels##_##width##_##stride(const strip *s) { \
        shared_strip(s, pixels, width, stride, false);                \
    }                                                                 \
    static void edge_##pixels##_##width##_##stride(const strip *s) {  \
        shared_strip(s, pixels, width, stride, true);                 \
    }
STRIPS(DEFINE_STRIP)

#define NAME_STRIP(pixels, width, stride)                                       \
    [width / 2 - 1][stride - 1][pixels] = {inner_##pixels##_##width##_##stride, \
                                           edge_##pixels##_##width##_##stride},
static const strip_fn strips[KERNEL_WIDTH / 2][2][STRIP + 1][2] = {STRIPS(NAME_STRIP)};

/* The problem with what follows from it. */
typedef struct depthwise_job {
    const kiln_conv_args *a;
    bool shared;
    int64_t strip;   /* most pixels of a strip */
    int64_t columns; /* of the widest strip, one kernel row */
    line_cut cut;
} depthwise_job;

static depthwise_job describe_depthwise(const kiln_conv_args *a) {
    depthwise_job d = {.a = a, .strip = STRIP};
    int64_t width = a->kernel[2];
    int64_t stride = a->stride[2];
    bool regular = (width == 3 || width == 5 || width == 7) && stride <= 2 && a->dilation[2] == 1;
    d.shared =
        regular && !(width == 7 && stride == 2) && a->c_in == a->c_out && a->c_out >= KILN_VLEN;
    d.strip = d.shared && width == 7 ? STRIP - 1 : STRIP;
    d.columns = d.shared ? (d.strip - 1) * stride + width : d.strip * width;
    d.cut = cut_lines(a, STRIP_UNITS, STRIP_UNIT_MACS, CHUNK_VECS);
    return d;
}

/* Scratch of a thread: zeros for padded columns, columns of a strip, first taps of its rows. */
typedef struct strip_scratch {
    element *zeros;
    const element **column;
    int64_t *first_tap;
} strip_scratch;

static int64_t lay_out_strip(const depthwise_job *d, char *base, strip_scratch *s) {
    int64_t rows = d->a->kernel[0] * d->a->kernel[1];
    int64_t zeros = i64_ceil_div(d->a->c_in * 4, 64) * 64;
    int64_t columns = i64_ceil_div(rows * d->columns * (int64_t)sizeof(float *), 64) * 64;
    int64_t taps = rows * (d->shared ? 1 : d->a->kernel[2]);
    if (base) {
        s->zeros = (element *)base;
        s->column = (const element **)(base + zeros);
        s->first_tap = (int64_t *)(base + zeros + columns);
    }
    return zeros + columns + i64_ceil_div(taps * (int64_t)sizeof(int64_t), 64) * 64;
}

static bool within(int64_t i, int64_t n) {
    return (uint64_t)i < (uint64_t)n;
}

/* Whether the strip of `pixels` outputs from w0 on sees padding. */
static bool at_edge(const depthwise_job *d, int64_t w0, int64_t pixels) {
    const kiln_conv_args *a = d->a;
    int64_t left = w0 * a->stride[2] - a->pad[2];
    return left < 0 || left + (pixels - 1) * a->stride[2] + a->kernel[2] > a->in[2];
}

/* Points at the columns of the strip of `pixels` outputs from w0 on; `x` is the kernel row's input
 * line. Returns one past the last pointer written. */
static const element **point_columns(const depthwise_job *d, const element *x, int64_t w0,
                                     int64_t pixels, const element *zeros, const element **out) {
    const kiln_conv_args *a = d->a;
    int64_t left = w0 * a->stride[2] - a->pad[2];
    if (d->shared && !at_edge(d, w0, pixels)) {
        *out++ = x + left * a->x_stride[2];
        return out;
    }
    if (d->shared) {
        int64_t columns = (pixels - 1) * a->stride[2] + a->kernel[2];
        for (int64_t j = 0; j < columns; j++) {
            int64_t w = left + j;
            *out++ = within(w, a->in[2]) ? x + w * a->x_stride[2] : zeros;
        }
        return out;
    }
    for (int64_t k = 0; k < a->kernel[2]; k++) {
        for (int64_t p = 0; p < pixels; p++) {
            int64_t w = left + k * a->dilation[2] + p * a->stride[2];
            *out++ = within(w, a->in[2]) ? x + w * a->x_stride[2] : zeros;
        }
    }
    return out;
}

/* Fills the column table of a strip: the kernel rows that meet the input, in tap order. */
static void point_strip(const depthwise_job *d, int64_t line, int64_t w0, strip *s,
                        strip_scratch *m) {
    const kiln_conv_args *a = d->a;
    int64_t oh = line % a->out[1];
    int64_t od = line / a->out[1] % a->out[0];
    const element *image =
        (const element *)(const void *)a->x + line / a->out[1] / a->out[0] * a->x_batch;
    const element **out = m->column;
    s->rows = 0;
    for (int64_t k = 0; k < a->kernel[0] * a->kernel[1]; k++) {
        int64_t z = od * a->stride[0] - a->pad[0] + k / a->kernel[1] * a->dilation[0];
        int64_t h = oh * a->stride[1] - a->pad[1] + k % a->kernel[1] * a->dilation[1];
        if (!within(z, a->in[0]) || !within(h, a->in[1])) {
            continue;
        }
        const element *x = image + z * a->x_stride[0] + h * a->x_stride[1];
        out = point_columns(d, x, w0, s->pixels, m->zeros, out);
        int64_t lone = d->shared ? 1 : a->kernel[2];
        for (int64_t t = 0; t < lone; t++) {
            m->first_tap[s->rows++] = k * a->kernel[2] + t;
        }
    }
}

static void depthwise_line(const depthwise_job *d, int64_t line, strip *s, strip_scratch *m) {
    const kiln_conv_args *a = d->a;
    const kiln_epilogue *e = &a->epilogue;
    int64_t width = a->out[2];
    int64_t count = i64_ceil_div(width, d->strip);
    for (int64_t i = 0; i < count; i++) {
        int64_t w0 = i64_part(width, count, i);
        int64_t row = line * width + w0;
        s->pixels = i64_part(width, count, i + 1) - w0;
        s->y = a->y + row * a->ldy;
        s->residual = e->residual ? e->residual + row * e->ld_residual : NULL;
        point_strip(d, line, w0, s, m);
        if (d->shared) {
            bool edge = at_edge(d, w0, s->pixels);
            strips[a->kernel[2] / 2 - 1][a->stride[2] - 1][s->pixels][edge](s);
        } else {
            general_strip(s);
        }
    }
}

static int64_t depthwise_tiles(const kiln_conv_args *a) {
    if (a->batch <= 0 || volume(a->out) <= 0 || a->c_out <= 0) {
        return 0;
    }
    depthwise_job d = describe_depthwise(a);
    return d.cut.blocks * d.cut.chunks;
}

static void depthwise_run(const kiln_conv_args *a, int64_t tile_begin, int64_t tile_end,
                          void *memory) {
    if (tile_begin >= tile_end) {
        return;
    }
    const depthwise_job d = describe_depthwise(a);
    const kiln_epilogue *e = &a->epilogue;
    strip_scratch m = {0};
    lay_out_strip(&d, memory, &m);
    memset(m.zeros, 0, (size_t)a->c_in * sizeof *m.zeros);
    for (int64_t i = tile_begin; i < tile_end; i++) {
        int64_t first = i64_part(d.cut.lines, d.cut.blocks, i / d.cut.chunks);
        int64_t last = i64_part(d.cut.lines, d.cut.blocks, i / d.cut.chunks + 1);
        strip s = {.column = m.column,
                   .first_tap = m.first_tap,
                   .step = a->x_stride[2],
                   .multiplier = a->c_out / a->c_in,
                   .w = a->w,
                   .channels = a->c_out,
                   .begin = chunk_begin(&d.cut, i % d.cut.chunks),
                   .end = chunk_begin(&d.cut, i % d.cut.chunks + 1),
                   .ldy = a->ldy,
                   .epilogue = e};
        for (int64_t line = first; line < last; line++) {
            depthwise_line(&d, line, &s, &m);
        }
        if (e->post) {
            int64_t row = first * a->out[2];
            e->post(e->post_arg, a->y + row * a->ldy + s.begin, a->ldy, row,
                    (last - first) * a->out[2], s.begin, s.end - s.begin);
        }
    }
}

static int64_t depthwise_packed_bytes(const kiln_conv_args *a) {
    return volume(a->kernel) * a->c_out * (int64_t)sizeof(float);
}

static void depthwise_pack(void *packed, const float *src, const kiln_conv_args *a) {
    float *dst = packed;
    int64_t taps = volume(a->kernel);
    for (int64_t i = 0; i < taps * a->c_out; i++) {
        dst[i % taps * a->c_out + i / taps] = src[i];
    }
}

static int64_t depthwise_scratch_bytes(const kiln_conv_args *a) {
    depthwise_job d = describe_depthwise(a);
    return lay_out_strip(&d, NULL, NULL);
}

const kiln_depthwise_prims KILN_ISA_SYMBOL(DEPTHWISE_PRIMS) = {
    .isa = KILN_ISA_NAME,
    .packed_bytes = depthwise_packed_bytes,
    .pack = depthwise_pack,
    .scratch_bytes = depthwise_scratch_bytes,
    .tiles = depthwise_tiles,
    .run = depthwise_run,
};
