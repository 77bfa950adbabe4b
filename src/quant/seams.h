/* seams.h - where channels may change their scale without changing what a network computes.
 *
 * Between the layers that make a value and the layers that read it, each channel can be divided by
 * a number on the one side and multiplied by it on the other:
 *
 *     y = W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1)         S = diag(s), s > 0
 *
 * for every f that works on channels apart and has f(s x) = s f(x): Relu, pools, means, additions
 * of values that are divided alike, and what only moves channels as a whole (positive homogeneity;
 * Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
 * 2019, section 4.1). Normalizations divide by their scale and bias (Xiao et al., "SmoothQuant",
 * ICML 2023). A seam is all values that hang together in this way, such as a residual stream, with
 * the constants on both sides.
 *
 *     kiln_seams all;
 *     KILN_TRY(kiln_seams_find(&all, graph, arena));
 *     for (size_t i = 0; i < all.count; i++) {
 *         ... choose s[all.items[i].channels] ...
 *         KILN_TRY(kiln_seam_apply(&all.items[i], s, graph, diag));    // in place
 *     }
 *
 * Where a value belongs to no seam, for what makes it or for its other readers, its channels can
 * still be divided on the way to the products that read it, by a Mul of its own: an inlet. That
 * costs a factor for each element, which whatever makes the value can take along.
 *
 * Applied, the network is the same but for the rounding of its constants. */
#ifndef KILN_QUANT_SEAMS_H
#define KILN_QUANT_SEAMS_H

#include "ir/graph.h"

/* A constant, and which channel each of its elements belongs to: element k along `axis`, behind
 * outer index o, is of channel o / span * n + k / repeat, where n is the size of the axis. */
typedef struct kiln_seam_part {
    kiln_node *node;
    int32_t in; /* of the node */
    int32_t axis;
    int64_t span;   /* more than any o but for groups of a convolution */
    int64_t repeat; /* more than 1 behind a Flatten */
    bool weight;    /* a matrix or kernel, not a vector of biases or norms */
    /* Of parts that are multiplied: the weight's axis of output channels, the value that the node
     * reads, its axis of channels. */
    int32_t out_axis;
    const kiln_value *x;
    int32_t x_axis;
    bool own; /* applied before: the constant is the graph's own */
} kiln_seam_part;

typedef struct kiln_seam {
    int64_t channels;
    bool sums; /* values of the seam are added up: a residual stream */
    kiln_value
        *inlet; /* not NULL: an inlet behind this value, nothing to divide before it is used */
    kiln_seam_part *divide, *multiply;
    size_t n_divide, cap_divide, n_multiply, cap_multiply;
    /* Of each addition of two values, the one made first: the other's layer may add it in 8 bits.
     * Only node, x, x_axis and repeat are told. */
    kiln_seam_part *added;
    size_t n_added, cap_added;
} kiln_seam;

typedef struct kiln_seams {
    kiln_seam *items;
    size_t count, cap;
} kiln_seams;

/* All seams of an indexed, inferred root graph, in the order of their first layers. Nodes are those
 * of the graph; lists are made in `arena`. KILN_E_MEMORY. */
kiln_status kiln_seams_find(kiln_seams *out, const kiln_graph *graph, kiln_arena *arena);

/* Divides and multiplies by s[channels], all finite and positive: the nodes get constants of their
 * own in the graph's arena, an inlet its Mul. The graph is to be sorted and indexed again.
 * KILN_E_MEMORY and what evaluating constants brings. */
kiln_status kiln_seam_apply(kiln_seam *seam, const double *s, kiln_graph *graph, kiln_diag *diag);

/* most[c] = max(most[c], |element|) over the elements of a part, which belong to channels c. */
kiln_status kiln_seam_magnitude(const kiln_seam_part *part, double *most, const kiln_env *env,
                                kiln_diag *diag);

/* The channel of element i of a part's constant, whose lanes around part->axis these are. */
static inline int64_t kiln_seam_channel(const kiln_seam_part *part, int64_t n, int64_t inner,
                                        int64_t i) {
    return i / (inner * n) / part->span * n + i / inner % n / part->repeat;
}

#endif
