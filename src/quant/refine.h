/* refine.h - better weights and biases for layers that are quantized already, from what the float
 * network reads there.
 *
 *   round  weights go to the neighbour on their grid that leaves the least error of the layer's
 *          output (rounding.h)
 *   bias   the mean error of each output channel, W E[x] - Wq E[xq], goes into its bias: rounding
 *          shifts means, and shifts add up over layers (Nagel et al., ICCV 2019, section 4.2;
 *          here with the means of data instead of those that batch norms promise). What the range
 *          of x cuts off is no such shift, but few rows' own: it does not count
 *
 * Each layer is corrected for what its own rounding does to the float network's values, so that one
 * pass over the data does for all and no correction answers for another's. The sums of layers with
 * many inputs are large: a pass takes as many layers as fit the limit.
 *
 *     kiln_refiner r;
 *     KILN_TRY(kiln_refiner_init(&r, int8_graph, float_graph, true, true, arena, diag));
 *     while (kiln_refiner_begin(&r)) {                         // another pass over the data
 *         for (every value) { KILN_TRY(kiln_refiner_see(&r, name, tensor)); }
 *         KILN_TRY(kiln_refiner_end(&r));                      // rewrites these layers
 *     }
 *
 * Layers: Conv, Gemm and MatMul by constant weights that read DequantizeLinear of a value of the
 * same name in both graphs. A MatMul's bias is that of an Add behind it. */
#ifndef KILN_QUANT_REFINE_H
#define KILN_QUANT_REFINE_H

#include "ops/quantize.h"
#include "quant/rounding.h"
#include "quant/rows.h"

enum { KILN_REFINE_BYTES = 256 << 20 }; /* of sums, a pass */

typedef struct kiln_refined {
    kiln_node *node;          /* of the quantized graph */
    kiln_node *dequant;       /* of its weight */
    const kiln_value *weight; /* float, of the float graph */
    const char *x;            /* the value read */
    kiln_quant xq;
    kiln_row_source rows;
    bool round, bias; /* to be done */
    bool active, done;
    uint64_t random;
    kiln_gram gram;
} kiln_refined;

typedef struct kiln_refiner {
    kiln_graph *graph;
    kiln_refined *layers; /* in the graph's order */
    size_t n, cap;
    kiln_arena sums; /* of a pass */
    int64_t samples; /* expected; 0: not known */
    bool int_biases; /* the graph's biases are int32 behind a DequantizeLinear: so are new ones */
    size_t n_rounded, n_corrected;
    int64_t moved, weights;
    kiln_diag *diag;
} kiln_refiner;

/* Lists the layers of an indexed graph that kiln_place made of `from`, which is indexed too.
 * KILN_E_MEMORY. */
kiln_status kiln_refiner_init(kiln_refiner *r, kiln_graph *graph, const kiln_graph *from,
                              bool round, bool bias, kiln_arena *arena, kiln_diag *diag);
void kiln_refiner_free(kiln_refiner *r);
/* Chooses the layers of the next pass; false when all are done. */
bool kiln_refiner_begin(kiln_refiner *r);
bool kiln_refiner_wants(const kiln_refiner *r, const char *name);
/* Takes rows of a value at the layers of this pass. KILN_E_MEMORY. */
kiln_status kiln_refiner_see(kiln_refiner *r, const char *name, const kiln_tensor *x);
/* Rewrites the layers of this pass; the graph is to be indexed again. KILN_E_MEMORY. */
kiln_status kiln_refiner_end(kiln_refiner *r);

#endif
