/* mark.h - which nodes are to be held in bfloat16 or float16.
 *
 * A node that does not become int8 gets the precision that the last fitting rule gives it, else
 * that of `others`: kiln_node.precision. It is a wish that graphs carry; who executes one obeys, or
 * says why not. Layers that a rule names must be obeyed; so must operators that a rule names by
 * type or by full name, layers or not. */
#ifndef KILN_QUANT_MARK_H
#define KILN_QUANT_MARK_H

#include "quant/choose.h"

/* Gives every node that is not int8 its precision; dtype NONE: float32. With scales found at run
 * time bodies are chosen for apart, else they are marked with the nodes around them.
 * KILN_F_PRECISION when a layer that must be obeyed has weights too large for float16; others with
 * such weights stay float32, and their reason says so. */
kiln_status kiln_mark_nodes(const kiln_choice *choice, kiln_diag *diag);

#endif
