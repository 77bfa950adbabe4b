/* conv_walk.h - where a convolution's pixels and taps lie, whatever their element type.
 *
 * Legend as in conv_simd.c. All sizes and strides come from kiln_conv_args; none of its pointers is
 * read here. */
#ifndef KILN_BACKEND_CPU_PRIMS_CONV_WALK_H
#define KILN_BACKEND_CPU_PRIMS_CONV_WALK_H

#include "backend/cpu/prims/conv.h"
#include "backend/cpu/prims/simd.h"

KILN_INLINE int64_t volume(const int64_t v[3]) {
    return v[0] * v[1] * v[2];
}

/* A 1x1 convolution that is one matrix product over all pixels. */
KILN_INLINE bool is_gemm(const kiln_conv_args *a) {
    bool unit = a->groups == 1 && !a->transposed && a->x_channel == 1 && volume(a->kernel) == 1;
    int64_t distance = a->x_stride[2];
    for (int i = 2; i >= 0; i--) {
        bool flat = a->in[i] == 1 || a->x_stride[i] == distance;
        unit = unit && flat && a->stride[i] == 1 && a->pad[i] == 0 && a->in[i] == a->out[i];
        distance *= a->in[i];
    }
    return unit && (a->batch == 1 || a->x_batch == distance);
}

/* Pixels of a line that share a residue modulo the stride, at most. */
KILN_INLINE int64_t line_pixels(const kiln_conv_args *a) {
    return i64_ceil_div(a->out[2], a->stride[2]);
}

/* ---- Copied lines
 *
 * Where the input lines under a block of output lines are copied with their padding, pixels stand
 * at equal distances: from one output pixel of a line to the next, every tap moves on by stride
 * pixels. Lines that output lines which follow each other read by the same tap stand one after the
 * other, so that from line to line every tap moves on by one copied line. */

/* Pixels of a copied line: what the taps reach, a multiple of the stride. */
KILN_INLINE int64_t line_reach(const kiln_conv_args *a) {
    int64_t reach = (a->out[2] - 1) * a->stride[2] + (a->kernel[2] - 1) * a->dilation[2] + 1;
    return i64_ceil_div(reach, a->stride[2]) * a->stride[2];
}

/* Input lines under n output lines that follow each other. */
KILN_INLINE int64_t lines_under(const kiln_conv_args *a, int64_t n) {
    return (n - 1) * a->stride[1] + (a->kernel[1] - 1) * a->dilation[1] + 1;
}

/* Copied lines for n output lines, and where the i-th of those under them stands. */
KILN_INLINE int64_t line_places(const kiln_conv_args *a, int64_t n) {
    return i64_ceil_div(lines_under(a, n), a->stride[1]) * a->stride[1];
}
KILN_INLINE int64_t line_place(const kiln_conv_args *a, int64_t n, int64_t i) {
    return i % a->stride[1] * (line_places(a, n) / a->stride[1]) + i / a->stride[1];
}

KILN_INLINE int64_t round64(int64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

/* Depthwise problems in units: blocks of lines times chunks of channels. There are `wanted` units,
 * fewer where they would be smaller than unit_macs; chunks are whole vectors, chunk_vecs at least,
 * and the last takes the rest. */
typedef struct line_cut {
    int64_t lines, blocks, chunks, channels;
} line_cut;

KILN_INLINE line_cut cut_lines(const kiln_conv_args *a, int64_t wanted, int64_t unit_macs,
                               int64_t chunk_vecs) {
    line_cut c = {.lines = a->batch * a->out[0] * a->out[1], .channels = a->c_out};
    int64_t macs = i64_max(1, a->out[2] * a->c_out * volume(a->kernel));
    wanted = i64_min(wanted, i64_max(1, c.lines * macs / unit_macs));
    int64_t widest = i64_max(1, a->c_out / (chunk_vecs * KILN_VLEN));
    c.blocks = i64_max(1, i64_min(c.lines, wanted));
    c.chunks = i64_min(widest, i64_ceil_div(wanted, c.blocks));
    return c;
}

/* First channel of chunk i. */
KILN_INLINE int64_t chunk_begin(const line_cut *c, int64_t i) {
    return i == c->chunks ? c->channels
                          : i64_part(c->channels / KILN_VLEN, c->chunks, i) * KILN_VLEN;
}

/* Where an output pixel stands, and its step to the next one in row-major order. */
typedef struct position {
    int64_t n, d, h, w;
} position;

KILN_INLINE position position_of(const kiln_conv_args *a, int64_t row) {
    position p;
    p.w = row % a->out[2];
    row /= a->out[2];
    p.h = row % a->out[1];
    row /= a->out[1];
    p.d = row % a->out[0];
    p.n = row / a->out[0];
    return p;
}

KILN_INLINE void advance(const kiln_conv_args *a, position *p) {
    if (++p->w < a->out[2]) {
        return;
    }
    p->w = 0;
    if (++p->h < a->out[1]) {
        return;
    }
    p->h = 0;
    if (++p->d < a->out[0]) {
        return;
    }
    p->d = 0;
    p->n++;
}

KILN_INLINE bool inside(int64_t i, int64_t n) {
    return (uint64_t)i < (uint64_t)n;
}

/* The taps of one axis that reach the outputs of one residue: the k with k * dilation congruent to
 * it modulo the stride. */
typedef struct residue {
    int64_t before; /* taps of smaller residues */
    int64_t count;
} residue;

KILN_INLINE int64_t taps_of(const kiln_conv_args *a, int axis, int64_t r) {
    int64_t n = 0;
    for (int64_t k = 0; k < a->kernel[axis]; k++) {
        n += k * a->dilation[axis] % a->stride[axis] == r;
    }
    return n;
}

KILN_INLINE residue residue_at(const kiln_conv_args *a, int axis, int64_t r) {
    residue s = {0};
    for (int64_t i = 0; i < r; i++) {
        s.before += taps_of(a, axis, i);
    }
    s.count = taps_of(a, axis, r);
    return s;
}

/* Residue of an output coordinate. Never negative, whatever the pad. */
KILN_INLINE int64_t residue_of(const kiln_conv_args *a, int axis, int64_t out) {
    int64_t r = (out + a->pad[axis]) % a->stride[axis];
    return r < 0 ? r + a->stride[axis] : r;
}

/* The tap's input coordinate for an output of its residue: an exact division. -1: padding. */
KILN_INLINE int64_t source_of(const kiln_conv_args *a, int axis, int64_t out, int64_t k) {
    int64_t at = out + a->pad[axis] - k * a->dilation[axis];
    return at < 0 || at / a->stride[axis] >= a->in[axis] ? -1 : at / a->stride[axis];
}

#endif
