/* move.h - moving elements, and known contents along with them.
 *
 * Shape computations (Shape, Gather, Slice, Concat, ...) vanish because every operator that only
 * moves elements moves the known contents of small integer tensors too: contents are int64 dims in
 * row-major order, so an operator's own reference runs on them as on an int64 tensor.
 *
 *     kiln_tensor x, y;
 *     if (kiln_contents_in(c, 0, &x)) {                  // contents of input 0 as a tensor
 *         KILN_TRY(kiln_contents_out(c, 0, &y));         // room for those of output 0
 *         if (y.data) { permute(attrs, &x, &y); }
 *     }
 */
#ifndef KILN_OPS_MOVE_H
#define KILN_OPS_MOVE_H

#include "ops/util.h"

/* The known contents of input i as an int64 tensor of its shape; false when they or its shape are
 * not known. Elements may be symbolic or unknown dims: they may be moved, not calculated with. */
bool kiln_contents_in(const kiln_infer *c, int32_t i, kiln_tensor *t);
/* Gives output o contents to fill, as an int64 tensor of its shape. t->data == NULL when its shape
 * is not known or too large to track. Call it when all other conditions hold: the elements start
 * as 0. */
kiln_status kiln_contents_out(kiln_infer *c, int32_t o, kiln_tensor *t);
/* Output o has the contents of input i in the same order. */
kiln_status kiln_contents_pass(kiln_infer *c, int32_t o, int32_t i);

/* The number of elements if it is known, else -1. */
int64_t kiln_type_count(const kiln_type *type);

/* Copies the elements of a box of `dims` between two strided arrays of one dtype; strides and
 * starts are in elements. Boxes without elements are fine. */
void kiln_move_box(kiln_dtype dtype, int32_t rank, const int64_t *dims, void *dst, int64_t dst_at,
                   const int64_t *dst_strides, const void *src, int64_t src_at,
                   const int64_t *src_strides);

/* Fills dst, row-major of shape `dims`: the element at idx is element map[0][idx[0]] +
 * map[1][idx[1]] + ... of src, or element 0 of `fill` where one of these is negative. Needs
 * count(dims) > 0. */
void kiln_move_mapped(kiln_dtype dtype, int32_t rank, const int64_t *dims, void *dst,
                      const void *src, int64_t *const *map, const void *fill);
/* Room for the maps of kiln_move_mapped: map[d] has dims[d] entries. */
kiln_status kiln_move_map(kiln_arena *arena, int32_t rank, const int64_t *dims, int64_t ***map);
/* n elements from index `at` become element 0 of `value`. */
void kiln_move_fill(kiln_dtype dtype, void *dst, int64_t at, int64_t n, const void *value);

/* ref of operators that only change the shape: output 0 gets the elements of input 0. */
kiln_status kiln_ref_view(kiln_ref *c);

#endif
