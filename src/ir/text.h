/* text.h - a graph as readable text: what golden tests compare and what people look at.
 *
 *     graph "net"
 *     in x: float32[N,3,8,8]
 *     const w: float32[4,3,3,3] = rand(7)
 *     const two: float32[] = {2}
 *     const w2: float32[4,3,3,3] = Mul(w, two)
 *     y = Conv(x, w2, _) {kernel_shape=[3,3], pads=[1,1,1,1]} @conv1 from conv1 mul_3
 *     a, b = Split(y, _) {axis=1, num_outputs=2}
 *     z = If(c) {
 *       then_branch = graph "then"
 *         ...
 *       end
 *     }
 *     out a
 *     end
 *
 * One statement a line. Names are bare when they look like identifiers (letters, digits and _ . /
 * ~ -), else quoted with \" \\ \xHH. `_` stands for an input left out; a value of that name is
 * quoted. Attributes at their defaults are not written. `@` gives the node's name where it is not
 * its first output's, `from` its sources where they are not just its name. A constant is its
 * elements; `rand(seed)`, a fixed sequence for seeds 0 to 255; an operator applied to constants
 * (an expression); or, dumped only, `hash(digits)` of bytes too long to show. Constants stand
 * before the nodes of the root graph. Inferred types are not part of the text, except those of
 * inputs.
 */
#ifndef KILN_IR_TEXT_H
#define KILN_IR_TEXT_H

#include "base/text.h"
#include "ir/graph.h"

/* Constants up to this many elements are written out. */
enum { KILN_TEXT_INLINE = 32 };

/* Appends operator, attributes and types of a node, without names: equal for nodes that compute
 * alike on operands of the same types. */
kiln_status kiln_node_describe(kiln_text *text, const kiln_graph *graph, const kiln_node *node);
/* Appends the text of an indexed graph. */
kiln_status kiln_graph_dump(kiln_text *text, const kiln_graph *graph);

typedef const kiln_op *kiln_op_finder(const char *domain, const char *name);

/* Reads src[0..len) into a new graph, which is indexed but not inferred. Strict: the first thing
 * it does not understand is an error with its line. dump(parse(s)) == s for every dumped s without
 * hashes. */
kiln_status kiln_graph_parse(kiln_graph **out, const char *src, size_t len, kiln_op_finder *find,
                             kiln_arena *arena, kiln_dims *dims, const kiln_env *env,
                             kiln_diag *diag);

/* Fills a numeric tensor with the sequence `rand(seed)`: floats in [-1, 1), integers in [0, 8),
 * bools. */
void kiln_text_fill(kiln_tensor *t, uint32_t seed);

#endif
