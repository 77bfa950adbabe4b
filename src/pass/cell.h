/* cell.h - what recurrent cells are recognised by: gates as linear forms.
 *
 * However an exporter writes a gate, before its activation it is a sum of matrix products and
 * biases: one product for all gates whose result is split or sliced, one product per gate, a
 * product with the input and the state joined, biases added before or after. kiln_gate_read
 * follows one gate's columns through all of that down to (operand, rows and columns of a constant
 * matrix) pairs; the makers put the pieces together again in ONNX's gate order, as constant
 * expressions.
 *
 *     kiln_cell_match m = {.hidden = 128};
 *     kiln_gate i, o;
 *     if (kiln_gate_read(&m, sigmoid->in[0], &i) && ...) {
 *         kiln_value *w = kiln_cell_weight(p, &m, parts, 4);      // [1, 4 * 128, inputs]
 */
#ifndef KILN_PASS_CELL_H
#define KILN_PASS_CELL_H

#include "pass/fold.h"

enum { KILN_GATE_PRODUCTS = 2, KILN_GATE_BIASES = 4, KILN_CELL_TOUCHED = 64 };

/* x[batch, n] times rows [row, row + n) and columns [col, col + hidden) of a constant matrix. */
typedef struct kiln_gate_product {
    kiln_value *x, *weight;
    bool transposed; /* weight is [columns, rows] */
    int64_t row, col, n;
} kiln_gate_product;

/* Elements [at, at + hidden) of a constant, or its only one. */
typedef struct kiln_gate_bias {
    kiln_value *v;
    int64_t at;
} kiln_gate_bias;

typedef struct kiln_gate {
    kiln_gate_product product[KILN_GATE_PRODUCTS];
    kiln_gate_bias bias[KILN_GATE_BIASES];
    int n_products, n_biases;
    const kiln_node *mul; /* a Mul among the terms, or NULL */
} kiln_gate;

typedef struct kiln_cell_match {
    int64_t hidden;
    const kiln_node *touched[KILN_CELL_TOUCHED];
    int n_touched;
} kiln_cell_match;

/* False when there are too many. */
bool kiln_cell_touch(kiln_cell_match *m, const kiln_node *n);
/* Reads v [batch, hidden] as a gate. False when it is none. */
bool kiln_gate_read(kiln_cell_match *m, kiln_value *v, kiln_gate *gate);
/* The gate's product with x, or NULL. */
const kiln_gate_product *kiln_gate_with(const kiln_gate *gate, const kiln_value *x);

/* [1, n * hidden, inputs] from n products with the same operand. NULL: out of memory. */
kiln_value *kiln_cell_weight(kiln_patch *p, const kiln_cell_match *m,
                             const kiln_gate_product *const *parts, int n);
/* [1, 2 * n * hidden]: the biases of the n gates added to the input's product, then those added
 * to the state's (NULL gates have none). NULL when there is none at all (*none is set), or out of
 * memory. */
kiln_value *kiln_cell_bias(kiln_patch *p, const kiln_cell_match *m, kiln_dtype dtype,
                           const kiln_gate *const *input, const kiln_gate *const *state, int n,
                           bool *none);
/* A new Unsqueeze or Squeeze of axis 0. */
kiln_value *kiln_cell_axis(kiln_patch *p, const char *op, kiln_value *v);

/* n runs on from another node of its operator (initial states = last states, same weights): the
 * whole chain that ends at n becomes one node over the joined steps. */
kiln_status kiln_cell_chain(kiln_patch *p, const kiln_node *n, bool has_cell_state);

#endif
