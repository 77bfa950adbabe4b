/* rows.h - what a layer multiplies its weights with, as rows of a matrix: some of them.
 *
 * Row p of a convolution holds, for every group, channel and tap, the element that the tap reads at
 * output position p, 0 in the padding; of a product, row p of its left operand. So y = W row.
 *
 *     kiln_row_source src;
 *     if (kiln_row_source_of(&src, node, weight_dims)) {
 *         KILN_TRY(kiln_row_source_bind(&src, &x, diag));        // *src.positions rows
 *         kiln_row_get(&src, x.data, p, row);                    // [groups * k]
 *     } */
#ifndef KILN_QUANT_ROWS_H
#define KILN_QUANT_ROWS_H

#include "ir/graph.h"
#include "ops/window.h"

typedef struct kiln_row_source {
    const kiln_node *node;
    const kiln_type *weight;
    bool conv;
    int64_t groups, k; /* of each group */
    int64_t n_out;     /* rows of weights, over all groups */
    /* Weight of output o and element i of its group's row: o * stride_out + i * stride_k. */
    int64_t stride_out, stride_k;
    /* After binding: */
    int64_t positions, channels, plane;
    kiln_window win;
} kiln_row_source;

/* For a Conv, a Gemm whose left operand is not transposed, or a MatMul by a matrix on the right;
 * false for others. `weight` is the type of operand 1. */
bool kiln_row_source_of(kiln_row_source *out, const kiln_node *node, const kiln_type *weight);
/* For an input of this shape; false when it does not fit the node. */
bool kiln_row_source_bind(kiln_row_source *s, const kiln_tensor *x);
/* Row p, 0 <= p < positions, of a bound source, from the elements of x. */
void kiln_row_get(const kiln_row_source *s, const float *x, int64_t p, float *row);

#endif
