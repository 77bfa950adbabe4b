/* quantize.h - how scales and zero points lie over a tensor: per tensor, per axis, or per block. */
#ifndef KILN_OPS_QUANTIZE_H
#define KILN_OPS_QUANTIZE_H

#include "ops/attrs.h"
#include "ops/lanes.h"

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

#endif
