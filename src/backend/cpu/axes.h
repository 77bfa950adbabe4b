/* axes.h - what kernels over any layout share: an axis as (outer, n, inner), shape operands, moves.
 *
 *     kiln_lane lane = kiln_lane_at(&b->in[0], axis);
 *     in memory x is lane.outer x lane.n x lane.inner
 *
 * Shape operands (starts, pads, repeats ...) are read at bind time, from what the binding knows of
 * them; those that are no constants become inputs of the claim, so that a late step has them at
 * hand.
 */
#ifndef KILN_BACKEND_CPU_AXES_H
#define KILN_BACKEND_CPU_AXES_H

#include "backend/cpu/kernel.h"

/* An axis of a tensor as it lies in memory. */
typedef struct kiln_lane {
    int64_t outer, n, inner;
} kiln_lane;

/* `axis` is logical and within the rank. */
kiln_lane kiln_lane_at(const kiln_operand *o, int32_t axis);

/* axis in [-rank, rank) made non-negative. */
static inline int32_t kiln_axis_of(int64_t axis, int32_t rank) {
    return (int32_t)(axis < 0 ? axis + rank : axis);
}

/* Bytes of an element that moves as a whole: 1, 2, 4 or 8; 0 for strings and all other types. */
int32_t kiln_move_bytes(kiln_dtype dtype);

/* Adds the node's inputs from `first` on that are no constants to the claim, in ROW. */
bool kiln_claim_shape_inputs(kiln_claimer *c, kiln_claim *claim, const kiln_node *node,
                             int32_t first);

/* The integers that input i of the node holds at this binding, in the binder's arena; *n of
 * them. A left out input has *v == NULL and *n == 0. Fails with KILN_E_INTERNAL when they are
 * not known. */
kiln_status kiln_bind_ints(const kiln_binder *b, const kiln_node *node, int32_t i,
                           const int64_t **v, int64_t *n);

/* The ints of a small constant, 0 elements counting as known. False when v is no such constant. */
bool kiln_claim_ints(const kiln_value *v, const int64_t **data, int64_t *n);

/* Where axis d of a Transpose's output comes from. */
int64_t kiln_perm_at(const kiln_node *transpose, int32_t rank, int32_t d);
/* Dims of x that are not surely 1 keep their order: the bytes stay as they are. */
bool kiln_moves_units(const kiln_node *transpose, const kiln_type *x);
/* Axis 1 goes to the end, the others close up; and back: the last axis goes to place 1. From
 * rank 3 on. */
bool kiln_puts_channels_last(const kiln_node *transpose, int32_t rank);
bool kiln_puts_channels_first(const kiln_node *transpose, int32_t rank);

/* What a team member does of `tiles` tiles of each of `matrices` matrices, matrix by matrix:
 *
 *     kiln_tile_share s = kiln_tile_share_of(team, matrices, tiles);
 *     for (kiln_tile_run r; kiln_tile_next(&s, &r);) { tiles [r.from, r.to) of r.matrix } */
typedef struct kiln_tile_share {
    int64_t begin, end, tiles;
} kiln_tile_share;
typedef struct kiln_tile_run {
    int64_t matrix, from, to;
} kiln_tile_run;
kiln_tile_share kiln_tile_share_of(const kiln_team *team, int64_t matrices, int64_t tiles);
bool kiln_tile_next(kiln_tile_share *share, kiln_tile_run *run);

/* Rows of a tensor seen as a matrix whose columns are its last dim. */
int64_t kiln_matrix_rows(const kiln_tensor *x);

/* Type of a value as a tensor at this binding. */
kiln_status kiln_bind_tensor(const kiln_binder *b, const kiln_value *v, kiln_tensor *out);

#endif
