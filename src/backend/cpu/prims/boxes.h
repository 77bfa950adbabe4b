/* boxes.h - one box against many: which of them may overlap it by more than a limit.
 *
 * The many lie as a structure of arrays. The test is made in float32, and its doubt always counts
 * as an overlap: what it passes over surely is none, what it finds the caller decides exactly.
 *
 *     kiln_box_query q = kiln_box_query_init(&box, limit);
 *     for (at = p->next(&kept, 0, n, &q); at < n; at = p->next(&kept, at + 1, n, &q)) {
 *         if (overlaps(&box, at)) { return true; }
 *     }
 *
 * Boxes a and b with areas A and B and the common area C overlap by C / (A + B - C), which is more
 * than t exactly when C (1 + t) > t (A + B). In float32 each factor of C is off by at most 2^-24 of
 * itself, the product and the areas likewise; SLACK covers several times that and the rounding of
 * the double division it stands for. TINY covers products flushed to zero. Coordinates that are no
 * floats are to be rounded outward, areas must not be too large: both only add doubt. An infinite C
 * is an overlap.
 */
#ifndef KILN_BACKEND_CPU_PRIMS_BOXES_H
#define KILN_BACKEND_CPU_PRIMS_BOXES_H

#include "base/compiler.h"

/* All lower and upper ends are in order; area is at most KILN_BOX_AREA. */
typedef struct kiln_box_f32 {
    float y0, x0, y1, x1, area;
} kiln_box_f32;

#define KILN_BOX_AREA 0x1p125f

/* n boxes from each pointer on. */
typedef struct kiln_box_list {
    float *y0, *x0, *y1, *x1, *area;
} kiln_box_list;

typedef struct kiln_box_query {
    kiln_box_f32 box;
    float common, both; /* C * common + TINY is held against (A + B) * both */
} kiln_box_query;

#define KILN_BOX_SLACK 0x1p-20f
#define KILN_BOX_TINY 1e-30f

/* limit in [0, 1]. */
static inline kiln_box_query kiln_box_query_init(const kiln_box_f32 *box, double limit) {
    return (kiln_box_query){.box = *box,
                            .common = (float)(1 + limit) * (1 + KILN_BOX_SLACK),
                            .both = (float)limit * (1 - KILN_BOX_SLACK)};
}

typedef struct kiln_boxes_prims {
    /* The first of boxes [begin, end) that may overlap the query's by more than the limit; or end.
     */
    int64_t (*next)(const kiln_box_list *list, int64_t begin, int64_t end,
                    const kiln_box_query *query);
} kiln_boxes_prims;

extern const kiln_boxes_prims kiln_boxes_prims_portable;
extern const kiln_boxes_prims kiln_boxes_prims_avx2;
extern const kiln_boxes_prims kiln_boxes_prims_avx512;

#endif
