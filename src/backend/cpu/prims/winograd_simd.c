/* winograd_simd.c - convolutions that are 3x3 in a plane by F(2x2,3x3) and F(4x4,3x3). Compiled
 * once per ISA.
 *
 * Legend: m outputs and t = m + 2 inputs a side of a tile; taps are the t * t elements of a
 * transformed tile; a block is some tiles in row-major order of image, plane, line, column; a group
 * is the output channels that are computed together; V and M are a block's transformed inputs and
 * transformed outputs; depth is the length of the products, c_in for each plane of the kernel.
 *
 * A unit is a block times a range of groups. It transforms its inputs once, V[tap][tile][depth]
 * (what several output planes of a block read, once for each: a few percent of the whole);
 * then for each group come t * t small products M[tap][tile][group] and the outputs' transform with
 * the epilogue. Weights lie [group][tap] as packed panels, so that a unit reads them in one sweep.
 * Both transforms are two passes of the one-dimensional one, vectors along the channels.
 *
 * One dimension, from points 0, +-a, +-b, infinity (Toom-Cook; b only for m = 4): with P(x) the
 * product of (x - p) over the finite points,
 *     B^T, row of p: the coefficients of P(x) / (x - p); of infinity: those of P(x)
 *     G, row of p: (1, p, p^2) / P'(p); of infinity: (0, 0, 1)
 *     A^T, row i: p^i; of infinity: 1 in the last row
 * Rows of +-p share their even and odd parts.
 */
#include "backend/cpu/prims/conv_walk.h"
#include "backend/cpu/prims/vecmath.h"
#include "backend/cpu/prims/winograd.h"

enum {
    MAX_SIDE = 6,              /* t */
    PIECE = 64,                /* output channels: whole panels on every ISA */
    BLOCK_BYTES = 768 * 1024,  /* of V, and of M for one piece */
    OUTPUT_BYTES = 640 * 1024, /* of M */
    LEAST_TILES = 12,          /* in a block, if there are so many */
    MOST_TILES = 48,
    MOST_CHAIN = 512, /* multiply-adds in a row: longer sums are made of several */
    INPUT_COST = 8,   /* transforming an input, in output channels of its products */
};

#define UNROLL KILN_UNROLL(16)

/* Squares of the points. m = 2 has 1 alone. */
#define POINT_A 0.75
#define POINT_B 1.25

extern const kiln_gemm_prims KILN_ISA_SYMBOL(kiln_gemm_prims);

static const kiln_gemm_prims *gemm(void) {
    return &KILN_ISA_SYMBOL(kiln_gemm_prims);
}

/* ---- Weights ---- */

/* The rows of G times a column of three; t of them. */
static void weights_1d(double *u, int64_t step, const double g[3], int64_t m) {
    const double a = m == 2 ? 1 : POINT_A, b = m == 2 ? 0 : POINT_B;
    const double a2 = a * a, b2 = b * b;
    const double at_a = m == 2 ? 2 * a2 : 2 * a2 * (a2 - b2), at_b = 2 * b2 * (b2 - a2);
    u[0] = g[0] / (m == 2 ? -a2 : a2 * b2);
    u[step] = (g[0] + a * g[1] + a2 * g[2]) / at_a;
    u[2 * step] = (g[0] - a * g[1] + a2 * g[2]) / at_a;
    if (m == 4) {
        u[3 * step] = (g[0] + b * g[1] + b2 * g[2]) / at_b;
        u[4 * step] = (g[0] - b * g[1] + b2 * g[2]) / at_b;
    }
    u[(m + 1) * step] = g[2];
}

/* G g G^T. */
static void weights_2d(double u[MAX_SIDE * MAX_SIDE], const float g[9], int64_t m) {
    const int64_t t = m + 2;
    double rows[3 * MAX_SIDE]; /* g G^T */
    for (int64_t i = 0; i < 3; i++) {
        const double line[3] = {g[3 * i], g[3 * i + 1], g[3 * i + 2]};
        weights_1d(rows + i * t, 1, line, m);
    }
    for (int64_t j = 0; j < t; j++) {
        const double column[3] = {rows[j], rows[t + j], rows[2 * t + j]};
        weights_1d(u + j, t, column, m);
    }
}

static int64_t taps_count(const kiln_winograd_args *a) {
    return (a->tile + 2) * (a->tile + 2);
}

static int64_t depth_of(const kiln_conv_args *c) {
    return c->kernel[0] * c->c_in;
}

/* The products of a tap are cut along their depth, so that rounding does not grow with it: its
 * packed matrix is one for each chain. */
static int64_t chains_of(const kiln_conv_args *c) {
    return i64_ceil_div(depth_of(c), MOST_CHAIN);
}

typedef struct chain {
    int64_t first, depth; /* of the products */
    int64_t at, floats;   /* in the matrix */
} chain;

/* The chain after `before`; an empty one starts them. */
static chain next_chain(const kiln_conv_args *c, const chain *before, int64_t i) {
    chain n = {.first = before->first + before->depth, .at = before->at + before->floats};
    n.depth = i64_part(depth_of(c), chains_of(c), i + 1) - n.first;
    n.floats = gemm()->packed_bytes(n.depth, c->c_out) / (int64_t)sizeof(float);
    return n;
}

/* Floats of a tap's packed matrix. */
static int64_t matrix_floats(const kiln_conv_args *c) {
    chain n = {0};
    for (int64_t i = 0; i < chains_of(c); i++) {
        n = next_chain(c, &n, i);
    }
    return n.at + n.floats;
}

static int64_t packed_bytes(const kiln_winograd_args *a) {
    return taps_count(a) * matrix_floats(a->conv) * (int64_t)sizeof(float);
}

/* The part of a channel's column that belongs to a chain; column: of tap 0. */
static void pack_column(float *column, int64_t matrix, const float *src, const chain *of,
                        const kiln_winograd_args *a) {
    const kiln_conv_args *c = a->conv;
    const int64_t nr = gemm()->nr, taps = taps_count(a), planes = c->kernel[0];
    double u[MAX_SIDE * MAX_SIDE];
    for (int64_t k = 0; k < of->depth; k++) {
        const int64_t plane = (of->first + k) / c->c_in, channel = (of->first + k) % c->c_in;
        weights_2d(u, src + (channel * planes + plane) * 9, a->tile);
        for (int64_t tap = 0; tap < taps; tap++) {
            column[tap * matrix + k * nr] = (float)u[tap];
        }
    }
}

/* The panels of gemm.h, a matrix for each chain of each tap. */
static void pack(void *packed, const float *src, const kiln_winograd_args *a) {
    const kiln_conv_args *c = a->conv;
    const int64_t nr = gemm()->nr, matrix = matrix_floats(c), filter = depth_of(c) * 9;
    float *panels = packed;
    chain of = {0};
    memset(panels, 0, (size_t)(taps_count(a) * matrix) * sizeof *panels);
    for (int64_t i = 0; i < chains_of(c); i++) {
        of = next_chain(c, &of, i);
        for (int64_t n = 0; n < c->c_out; n++) {
            float *column = panels + of.at + n / nr * nr * of.depth + n % nr;
            pack_column(column, matrix, src + n * filter, &of, a);
        }
    }
}

/* ---- Cutting ---- */

/* The problem with what follows from it. */
typedef struct job {
    const kiln_conv_args *a;
    int64_t m, t, taps;
    int64_t lines, columns; /* tiles of a plane */
    int64_t depth;
    int64_t tiles;
    int64_t blocks, block_tiles; /* the most tiles of a block */
    int64_t pieces;              /* of the output channels, which ranges are made of */
    int64_t group;               /* the most channels of a group */
    int64_t ldv, v_tap;          /* floats from tile to tile and from tap to tap */
    int64_t m_tap;
    int64_t matrix; /* floats of a tap's weights */
} job;

static job describe(const kiln_winograd_args *g) {
    const kiln_conv_args *a = g->conv;
    job j = {.a = a, .m = g->tile, .t = g->tile + 2, .taps = taps_count(g)};
    j.lines = i64_ceil_div(a->out[1], j.m);
    j.columns = i64_ceil_div(a->out[2], j.m);
    j.tiles = a->batch * a->out[0] * j.lines * j.columns;
    j.depth = depth_of(a);
    j.matrix = matrix_floats(a);
    j.pieces = i64_ceil_div(a->c_out, PIECE);
    /* Not a multiple of 2 KiB, or the rows of a register tile would share sets of the cache. */
    j.ldv = i64_ceil_div(j.depth, 16) * 16;
    j.ldv += j.ldv % 512 == 0 ? 16 : 0;
    int64_t tile_bytes = j.taps * (j.ldv + PIECE) * (int64_t)sizeof(float);
    int64_t most = i64_min(MOST_TILES, i64_max(LEAST_TILES, BLOCK_BYTES / tile_bytes));
    j.blocks = i64_ceil_div(j.tiles, most);
    j.block_tiles = j.blocks > 0 ? i64_ceil_div(j.tiles, j.blocks) : 0;
    /* An odd number of cache lines: neighbouring taps fall into different sets. */
    j.v_tap = i64_ceil_div(j.block_tiles * j.ldv, 32) * 32 + 16;
    int64_t channel_bytes = i64_max(1, j.block_tiles * j.taps * (int64_t)sizeof(float));
    j.group = i64_max(1, i64_min(j.pieces, OUTPUT_BYTES / channel_bytes / PIECE)) * PIECE;
    j.m_tap = j.block_tiles * j.group + 16;
    return j;
}

/* Ranges of output channels: as many as share the work best among the threads, where each repeats
 * the transform of the inputs. */
static int64_t units(const kiln_winograd_args *g, int32_t threads) {
    const job j = describe(g);
    int64_t best = 1, least = INT64_MAX;
    for (int64_t ranges = 1; ranges <= j.pieces; ranges++) {
        int64_t unit = INPUT_COST + i64_ceil_div(j.pieces, ranges) * PIECE;
        int64_t time = i64_ceil_div(j.blocks * ranges, i64_max(1, threads)) * unit;
        best = time < least ? ranges : best;
        least = i64_min(least, time);
    }
    return j.blocks * best;
}

typedef struct scratch {
    int64_t bytes;
    float *zeros; /* a pixel of padding */
    float *v, *m;
    float *spare; /* M of one tap */
} scratch;

/* base NULL: the size alone. */
static scratch lay_out(const job *j, char *base) {
    int64_t zeros = round64(j->ldv * (int64_t)sizeof(float));
    int64_t v = round64(j->taps * j->v_tap * (int64_t)sizeof(float));
    int64_t m = round64(j->taps * j->m_tap * (int64_t)sizeof(float));
    int64_t spare = round64(j->m_tap * (int64_t)sizeof(float));
    scratch s = {.bytes = zeros + v + m + spare};
    if (base) {
        s.zeros = (float *)base;
        s.v = (float *)(base + zeros);
        s.m = (float *)(base + zeros + v);
        s.spare = (float *)(base + zeros + v + m);
    }
    return s;
}

static int64_t scratch_bytes(const kiln_winograd_args *g) {
    const job j = describe(g);
    return lay_out(&j, NULL).bytes;
}

/* Where a tile's first output pixel is. */
typedef struct place {
    int64_t n, d, h, w;
} place;

static place place_of(const job *j, int64_t tile) {
    int64_t plane = tile / (j->lines * j->columns);
    return (place){.n = plane / j->a->out[0],
                   .d = plane % j->a->out[0],
                   .h = tile / j->columns % j->lines * j->m,
                   .w = tile % j->columns * j->m};
}

/* Number of an output pixel of the tile's. */
static int64_t row_of(const job *j, const place *p, int64_t line) {
    const kiln_conv_args *a = j->a;
    return ((p->n * a->out[0] + p->d) * a->out[1] + p->h + line) * a->out[2] + p->w;
}

/* ---- Inputs ---- */

/* B^T d. */
KILN_INLINE void input_1d(kiln_vf v[MAX_SIDE], const kiln_vf d[MAX_SIDE], int m) {
    if (m == 2) {
        v[0] = vf_sub(d[2], d[0]);
        v[1] = vf_add(d[2], d[1]);
        v[2] = vf_sub(d[2], d[1]);
        v[3] = vf_sub(d[3], d[1]);
        return;
    }
    const kiln_vf a = vf_set1((float)POINT_A), b = vf_set1((float)POINT_B);
    const kiln_vf a2 = vf_set1((float)(POINT_A * POINT_A));
    const kiln_vf b2 = vf_set1((float)(POINT_B * POINT_B));
    const kiln_vf product = vf_set1((float)(POINT_A * POINT_A * POINT_B * POINT_B));
    const kiln_vf sum = vf_set1((float)(POINT_A * POINT_A + POINT_B * POINT_B));
    kiln_vf even_a = vf_fnma(b2, d[2], d[4]), odd_a = vf_fnma(b2, d[1], d[3]);
    kiln_vf even_b = vf_fnma(a2, d[2], d[4]), odd_b = vf_fnma(a2, d[1], d[3]);
    v[0] = vf_fma(product, d[0], vf_fnma(sum, d[2], d[4]));
    v[1] = vf_fma(a, odd_a, even_a);
    v[2] = vf_fnma(a, odd_a, even_a);
    v[3] = vf_fma(b, odd_b, even_b);
    v[4] = vf_fnma(b, odd_b, even_b);
    v[5] = vf_fma(product, d[1], vf_fnma(sum, d[3], d[5]));
}

/* Transforms channels [c, c + lanes) of the tile whose pixels are given. */
KILN_INLINE void input_vector(float *v, int64_t v_tap, const float *const *pixel, int64_t c,
                              int64_t lanes, int m) {
    const int t = m + 2;
    kiln_vf rows[MAX_SIDE][MAX_SIDE]; /* transposed: B^T d, by column */
    UNROLL for (int j = 0; j < t; j++) {
        kiln_vf d[MAX_SIDE];
        UNROLL for (int i = 0; i < t; i++) {
            const float *p = pixel[i * t + j] + c;
            d[i] = lanes == KILN_VLEN ? vf_load(p) : vf_load_tail(p, lanes);
        }
        input_1d(rows[j], d, m);
    }
    UNROLL for (int i = 0; i < t; i++) {
        kiln_vf d[MAX_SIDE], out[MAX_SIDE];
        UNROLL for (int j = 0; j < t; j++) {
            d[j] = rows[j][i];
        }
        input_1d(out, d, m);
        UNROLL for (int j = 0; j < t; j++) {
            vf_store(v + (i * t + j) * v_tap + c, out[j]);
        }
    }
}

KILN_INLINE void input_tile(const job *j, const float *const *pixel, float *v, int m) {
    const int64_t channels = j->a->c_in, whole = channels / KILN_VLEN * KILN_VLEN;
    for (int64_t c = 0; c < whole; c += KILN_VLEN) {
        input_vector(v, j->v_tap, pixel, c, KILN_VLEN, m);
    }
    if (whole < channels) {
        input_vector(v, j->v_tap, pixel, whole, channels - whole, m);
    }
}

static void input_tile_2(const job *j, const float *const *pixel, float *v) {
    input_tile(j, pixel, v, 2);
}

static void input_tile_4(const job *j, const float *const *pixel, float *v) {
    input_tile(j, pixel, v, 4);
}

/* The pixels a tile reads of the input plane that plane k of the kernel meets: padding reads
 * zeros. */
static void point_tile(const job *j, const place *p, int64_t k, const float *zeros,
                       const float **pixel) {
    const kiln_conv_args *a = j->a;
    const int64_t d = p->d * a->stride[0] - a->pad[0] + k * a->dilation[0];
    const bool exists = inside(d, a->in[0]);
    const float *image = a->x + p->n * a->x_batch + (exists ? d * a->x_stride[0] : 0);
    for (int64_t i = 0; i < j->t; i++) {
        int64_t h = p->h - a->pad[1] + i;
        for (int64_t l = 0; l < j->t; l++) {
            int64_t w = p->w - a->pad[2] + l;
            bool valid = exists && inside(h, a->in[1]) && inside(w, a->in[2]);
            *pixel++ = valid ? image + h * a->x_stride[1] + w * a->x_stride[2] : zeros;
        }
    }
}

/* The last vector of a plane's channels may reach into what is written next: the following plane,
 * tile, or the gap between taps. */
static void transform_inputs(const job *j, int64_t first, int64_t count, const scratch *s) {
    const float *pixel[MAX_SIDE * MAX_SIDE];
    for (int64_t i = 0; i < count; i++) {
        const place p = place_of(j, first + i);
        for (int64_t k = 0; k < j->a->kernel[0]; k++) {
            point_tile(j, &p, k, s->zeros, pixel);
            float *v = s->v + i * j->ldv + k * j->a->c_in;
            (j->m == 2 ? input_tile_2 : input_tile_4)(j, pixel, v);
        }
    }
}

/* ---- Outputs ---- */

/* A^T m. */
KILN_INLINE void output_1d(kiln_vf y[MAX_SIDE], const kiln_vf s[MAX_SIDE], int m) {
    const kiln_vf even_a = vf_add(s[1], s[2]), odd_a = vf_sub(s[1], s[2]);
    if (m == 2) {
        y[0] = vf_add(s[0], even_a);
        y[1] = vf_add(odd_a, s[3]);
        return;
    }
    const kiln_vf even_b = vf_add(s[3], s[4]), odd_b = vf_sub(s[3], s[4]);
    const float a = (float)POINT_A, b = (float)POINT_B;
    y[0] = vf_add(s[0], vf_add(even_a, even_b));
    y[1] = vf_fma(vf_set1(a), odd_a, vf_mul(vf_set1(b), odd_b));
    y[2] = vf_fma(vf_set1(a * a), even_a, vf_mul(vf_set1(b * b), even_b));
    y[3] = vf_fma(vf_set1(a * a * a), odd_a, vf_fma(vf_set1(b * b * b), odd_b, s[5]));
}

/* One tile of a group: where its first output is, and how much of it is inside the image. */
typedef struct target {
    const float *m;
    int64_t m_tap;
    float *y;
    const float *residual, *bias; /* or NULL */
    int64_t lines, columns;       /* outputs that exist */
    int64_t channels;
} target;

KILN_INLINE kiln_vf load_lanes(const float *p, int64_t lanes) {
    return lanes == KILN_VLEN ? vf_load(p) : vf_load_tail(p, lanes);
}

/* The epilogue of a vector of channels. */
typedef struct ending {
    kiln_vf bias, slope, lo, hi;
    bool leaky, hard_swish;
    const float *before, *after; /* the residual, on either side of the activation; or NULL */
    int64_t ld_residual;
} ending;

KILN_INLINE ending ending_of(const kiln_epilogue *e, const target *o, int64_t c, int64_t lanes) {
    const float *residual = o->residual ? o->residual + c : NULL;
    return (ending){.bias = o->bias ? load_lanes(o->bias + c, lanes) : vf_zero(),
                    .slope = vf_set1(e->slope),
                    .lo = vf_set1(e->lo),
                    .hi = vf_set1(e->hi),
                    .leaky = e->slope != 1.0f,
                    .hard_swish = e->hard_swish,
                    .before = e->act_first ? NULL : residual,
                    .after = e->act_first ? residual : NULL,
                    .ld_residual = e->ld_residual};
}

/* The output `at` pixels behind the tile's first. */
KILN_INLINE void finish(const ending *e, kiln_vf s, float *y, int64_t ldy, int64_t at,
                        int64_t lanes) {
    s = vf_add(s, e->bias);
    if (e->before) {
        s = vf_add(s, load_lanes(e->before + at * e->ld_residual, lanes));
    }
    if (e->leaky) {
        s = vf_select(vf_lt(s, vf_zero()), vf_mul(s, e->slope), s);
    }
    if (e->hard_swish) {
        s = vf_hard_swish(s);
    }
    s = vf_clamp(s, e->lo, e->hi);
    if (e->after) {
        s = vf_add(s, load_lanes(e->after + at * e->ld_residual, lanes));
    }
    if (lanes == KILN_VLEN) {
        vf_store(y + at * ldy, s);
    } else {
        vf_store_tail(y + at * ldy, lanes, s);
    }
}

/* whole: all of the tile's outputs exist. */
KILN_INLINE void output_vector(const job *j, const target *o, int64_t c, int64_t lanes, bool whole,
                               int m) {
    const int t = m + 2;
    kiln_vf rows[MAX_SIDE][MAX_SIDE]; /* A^T M, by row */
    UNROLL for (int k = 0; k < t; k++) {
        kiln_vf s[MAX_SIDE], y[MAX_SIDE];
        UNROLL for (int i = 0; i < t; i++) {
            s[i] = vf_load(o->m + (i * t + k) * o->m_tap + c);
        }
        output_1d(y, s, m);
        UNROLL for (int i = 0; i < m; i++) {
            rows[i][k] = y[i];
        }
    }
    const ending e = ending_of(&j->a->epilogue, o, c, lanes);
    const int64_t ldy = j->a->ldy, width = j->a->out[2];
    UNROLL for (int i = 0; i < m; i++) {
        kiln_vf y[MAX_SIDE];
        if (!whole && i >= o->lines) {
            break;
        }
        output_1d(y, rows[i], m);
        UNROLL for (int k = 0; k < m; k++) {
            if (whole || k < o->columns) {
                finish(&e, y[k], o->y + c, ldy, i * width + k, lanes);
            }
        }
    }
}

KILN_INLINE void output_tile(const job *j, const target *o, int m) {
    const int64_t whole = o->channels / KILN_VLEN * KILN_VLEN;
    const bool inner = o->lines == m && o->columns == m;
    for (int64_t c = 0; c < whole; c += KILN_VLEN) {
        if (inner) {
            output_vector(j, o, c, KILN_VLEN, true, m);
        } else {
            output_vector(j, o, c, KILN_VLEN, false, m);
        }
    }
    if (whole < o->channels) {
        output_vector(j, o, whole, o->channels - whole, false, m);
    }
}

static void output_tile_2(const job *j, const target *o) {
    output_tile(j, o, 2);
}

static void output_tile_4(const job *j, const target *o) {
    output_tile(j, o, 4);
}

/* Output channels that are computed together. */
typedef struct group {
    int64_t channel, channels;
} group;

/* What runs behind the epilogue, over the outputs of `count` tiles of one line. */
static void run_post(const job *j, const place *p, int64_t count, int64_t channel, int64_t n) {
    const kiln_conv_args *a = j->a;
    int64_t columns = i64_min(count * j->m, a->out[2] - p->w);
    for (int64_t i = 0; i < j->m && p->h + i < a->out[1]; i++) {
        int64_t row = row_of(j, p, i);
        a->epilogue.post(a->epilogue.post_arg, a->y + row * a->ldy + channel, a->ldy, row, columns,
                         channel, n);
    }
}

static void transform_outputs(const job *j, const group *g, int64_t first, int64_t count,
                              const scratch *s) {
    const kiln_conv_args *a = j->a;
    const kiln_epilogue *e = &a->epilogue;
    const int64_t channel = g->channel;
    target o = {
        .m_tap = j->m_tap, .bias = e->bias ? e->bias + channel : NULL, .channels = g->channels};
    for (int64_t i = 0; i < count; i++) {
        const place p = place_of(j, first + i);
        int64_t row = row_of(j, &p, 0);
        o.m = s->m + i * j->group;
        o.y = a->y + row * a->ldy + channel;
        o.residual = e->residual ? e->residual + row * e->ld_residual + channel : NULL;
        o.lines = i64_min(j->m, a->out[1] - p.h);
        o.columns = i64_min(j->m, a->out[2] - p.w);
        (j->m == 2 ? output_tile_2 : output_tile_4)(j, &o);
    }
    for (int64_t i = 0, n; e->post && i < count; i += n) {
        const place p = place_of(j, first + i);
        n = i64_min(count - i, j->columns - p.w / j->m);
        run_post(j, &p, n, channel, o.channels);
    }
}

/* ---- Running ---- */

/* Each chain adds to what the one before it gave, in turn in the spare place and in the tap's, so
 * that the last gives the tap's. */
static void multiply_tap(const job *j, const group *c, kiln_gemm_args *g, int64_t tap,
                         const scratch *s) {
    const kiln_conv_args *a = j->a;
    const float *w = (const float *)a->w + tap * j->matrix;
    const int64_t chains = chains_of(a);
    chain of = {0};
    g->epilogue = KILN_EPILOGUE_NONE;
    g->epilogue.ld_residual = j->group;
    for (int64_t i = 0; i < chains; i++) {
        of = next_chain(a, &of, i);
        g->k = of.depth;
        g->a = s->v + tap * j->v_tap + of.first;
        g->b = w + of.at + c->channel * of.depth;
        g->c = (chains - i) % 2 ? s->m + tap * j->m_tap : s->spare;
        gemm()->run(g, 0, gemm()->tiles(g));
        g->epilogue.residual = g->c;
    }
}

static void multiply(const job *j, const group *c, int64_t count, const scratch *s) {
    kiln_gemm_args g = {.m = count, .n = c->channels, .lda = j->ldv, .ldc = j->group};
    for (int64_t tap = 0; tap < j->taps; tap++) {
        multiply_tap(j, c, &g, tap, s);
    }
}

static void run(const kiln_winograd_args *g, int64_t count, int64_t begin, int64_t end,
                void *memory) {
    const job j = describe(g);
    const scratch s = lay_out(&j, memory);
    if (begin >= end) {
        return;
    }
    memset(s.zeros, 0, (size_t)j.a->c_in * sizeof *s.zeros);
    const int64_t ranges = count / j.blocks;
    for (int64_t i = begin; i < end; i++) {
        const int64_t range = i / j.blocks, block = i % j.blocks;
        const int64_t first = i64_part(j.tiles, j.blocks, block);
        const int64_t tiles = i64_part(j.tiles, j.blocks, block + 1) - first;
        const int64_t last = i64_min(j.a->c_out, i64_part(j.pieces, ranges, range + 1) * PIECE);
        group c = {.channel = i64_part(j.pieces, ranges, range) * PIECE};
        transform_inputs(&j, first, tiles, &s);
        for (; c.channel < last; c.channel += j.group) {
            c.channels = i64_min(j.group, last - c.channel);
            multiply(&j, &c, tiles, &s);
            transform_outputs(&j, &c, first, tiles, &s);
        }
    }
}

const kiln_winograd_prims KILN_ISA_SYMBOL(kiln_winograd_prims) = {
    .isa = KILN_ISA_NAME,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .units = units,
    .run = run,
};
