/* quantize.h - how scales and zero points lie over a tensor: per tensor, per axis, or per block.
 * And what a node with constant ones says:
 *
 *     kiln_quant q, d;
 *     if (kiln_quant_read(quantize, &q) && kiln_quant_read(dequantize, &d) &&
 *         kiln_quant_same(&q, &d)) {
 *         ... QuantizeLinear(DequantizeLinear(x)) is x, bit for bit
 *     } */
#ifndef KILN_OPS_QUANTIZE_H
#define KILN_OPS_QUANTIZE_H

#include "ir/graph.h"
#include "ops/attrs.h"
#include "ops/lanes.h"
#include "ops/util.h"

/* Element i of the tensor has scale number kiln_scale_index(&map, i). */
typedef struct kiln_scale_map {
    kiln_lanes lanes; /* of the tensor around the axis */
    int64_t block;    /* elements along the axis that share a scale; 0: per axis or per tensor */
    int64_t groups;   /* scales along the axis */
    bool single;      /* one scale for all */
} kiln_scale_map;

/* For a tensor and a scale whose shapes infer has accepted. */
kiln_scale_map kiln_scale_map_of(const kiln_tensor *x, const kiln_tensor *scale, int64_t axis,
                                 int64_t block);

static inline int64_t kiln_scale_index(const kiln_scale_map *m, int64_t i) {
    if (m->single) {
        return 0;
    }
    int64_t along = i / m->lanes.inner % m->lanes.n;
    if (m->block == 0) {
        return along;
    }
    int64_t outer = i / (m->lanes.inner * m->lanes.n);
    return (outer * m->groups + along / m->block) * m->lanes.inner + i % m->lanes.inner;
}

/* The constants of a QuantizeLinear or DequantizeLinear between float32 and integers of 8 or 16
 * bits. All scales are positive and of such a size that (q - zero) * scale is a normal number for
 * every q: quantizing it again gives q, and both directions are monotone. */
typedef struct kiln_quant {
    kiln_dtype dtype;        /* of the integers */
    const float *scale;      /* n of them */
    const kiln_tensor *zero; /* n of them, or NULL: all 0 */
    int64_t n;               /* 1: for the whole tensor */
    int32_t axis;            /* otherwise: the axis they run along, not negative */
} kiln_quant;

/* False when the node is neither operator, a parameter is no stored constant, or what they say is
 * not as above. */
bool kiln_quant_read(const kiln_node *node, kiln_quant *out);
/* Same integers, scales and zero points. */
bool kiln_quant_same(const kiln_quant *a, const kiln_quant *b);

static inline int64_t kiln_quant_zero(const kiln_quant *q, int64_t i) {
    return q->zero ? kiln_get_i64(q->zero->dtype, q->zero->data, i) : 0;
}

#endif
