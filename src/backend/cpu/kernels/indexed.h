/* indexed.h - what the kernels share whose places data decides: GatherND and ScatterND, whose
 * indices name slices, GatherElements and ScatterElements, whose indices name one element each.
 *
 * The elements' operators see a small tensor (indices; also updates, or what is gathered) lie at
 * the origin of a large one, but along the axis, where the indices say the place:
 *
 *     kiln_indexed_elements(&s, &b->in[1].tensor, &b->in[0].tensor, axis);
 *     kiln_indexed_walk(&s, fn, index, large, small, lane0, lane1);
 *
 * calls fn for pieces of small in the order in which they lie; a lane is a line along the axis, so
 * that members who share out the lanes never meet at a place. Member 0 checks all indices
 * (kiln_indexed_check) while the others go on: what is out of range has the offset -1 and is left
 * alone. */
#ifndef KILN_BACKEND_CPU_KERNELS_INDEXED_H
#define KILN_BACKEND_CPU_KERNELS_INDEXED_H

#include "backend/cpu/axes.h"

/* Row-major dims of a box at the origin of a larger one, those that are equal taken together. */
typedef struct kiln_box {
    int32_t rank;
    int64_t small[KILN_MAX_RANK], large[KILN_MAX_RANK];
} kiln_box;

typedef struct kiln_indexed {
    kiln_dtype index_dtype;
    int32_t bytes;         /* of an element */
    kiln_box outer, inner; /* dims before and behind the axis */
    int64_t count, n;      /* along the axis: of small, of large */
    int64_t inner_small, inner_large;
    int64_t lanes; /* of small */
} kiln_indexed;

/* Element i of a piece of small belongs to large[offset[i] + i * step], offset[i] < 0: to nothing;
 * both pointers at the first. */
typedef void kiln_indexed_fn(void *large, void *small, const int64_t *offset, int64_t n,
                             int64_t step);

/* Claims x and what chooses of it as ROW operands. */
kiln_claim *kiln_indexed_claim(kiln_claimer *c, const kiln_kernel *kernel, kiln_node *node);

void kiln_indexed_elements(kiln_indexed *s, const kiln_tensor *small, const kiln_tensor *large,
                           int64_t axis);
void kiln_indexed_walk(const kiln_indexed *s, kiln_indexed_fn *fn, const void *index, char *large,
                       char *small, int64_t lane0, int64_t lane1);

/* `count` tuples of `depth` indices into dims: fails at the node for the first out of range. */
kiln_status kiln_indexed_check(const kiln_call *call, const kiln_node *node, kiln_dtype dtype,
                               const void *index, int64_t count, int32_t depth,
                               const int64_t *dims);

/* Number of the slice that a tuple names within slice `at` of what stands before; -1: out of range.
 */
static inline int64_t kiln_indexed_slice(const int64_t *tuple, int32_t depth, const int64_t *dims,
                                         int64_t at) {
    for (int32_t d = 0; d < depth; d++) {
        int64_t v = tuple[d] < 0 ? tuple[d] + dims[d] : tuple[d];
        if (v < 0 || v >= dims[d]) {
            return -1;
        }
        at = at * dims[d] + v;
    }
    return at;
}

#endif
