/* smooth.h - which scales the channels of a seam get.
 *
 * One scale for all channels of a value wastes steps on small channels; one scale for each output
 * channel of a weight does so on small input channels. Dividing channel c of the value by
 *
 *     s[c] = a[c]^alpha / b[c]^(1 - alpha)            b: greatest weight that reads the channel
 *
 * moves the difference from the one to the other. Two choices of a:
 *
 *   equalize  the greatest weight that makes the channel, alpha 1/2: both sides get the same range
 *             (Nagel et al., ICCV 2019, eq. 11). Needs no data.
 *   smooth    how far the channel reaches (reach.h; Xiao et al., ICML 2023, eq. 4: the greatest
 *             |x|). a and b get exponents of their own, for each seam those of least error as
 *             rounding predicts it; the seam is left as it is where that is not much less. The
 *             error of a layer y = W x whose rounding steps are d for x and e[o] for row o of W,
 *             each uniform within half a step, in units of y's square:
 *
 *                 sum_o sum_c (W[o,c]^2 (d^2 / 12 p[c] + 4 cut[c]) + e[o]^2 / 12 E[x[c]^2])
 *                 / sum E[y^2]
 *
 *             p: share of elements that are not 0, which is represented exactly; cut: mean square
 *             of what the range is expected to cut off. The range, and d with it, is that of least
 *             error.
 *
 * At an inlet (seams.h) only outliers are scaled: the few channels of greatest range, each to the
 * range of the next one; how many, the same prediction says.
 *
 *     kiln_smoother s;
 *     KILN_TRY(kiln_smoother_init(&s, graph, arena));
 *     for (every batch) { for (every value) { kiln_smoother_see(&s, name, tensor); } }
 *     KILN_TRY(kiln_smoother_apply(&s, 0, graph, &scaled, diag)); */
#ifndef KILN_QUANT_SMOOTH_H
#define KILN_QUANT_SMOOTH_H

#include "base/hash.h"
#include "quant/reach.h"
#include "quant/seams.h"

typedef struct kiln_smoother {
    kiln_seams seams;
    kiln_channels_seen *seen; /* for the parts that are multiplied, seam after seam */
    size_t n_seen;
    bool inlets;  /* set after init: these alone are scaled */
    bool rounded; /* likewise: weights will be rounded by what layers read (rounding.h) */
    kiln_arena *arena;
} kiln_smoother;

/* What was done to a graph: seams that got scales, and a hash of these. */
typedef struct kiln_scaled {
    size_t seams, scaled;
    kiln_hash128 hash;
} kiln_scaled;

/* Equalizes the seams between layers in sweeps, until none changes by more than a percent. */
kiln_status kiln_equalize(kiln_graph *graph, kiln_scaled *out, kiln_diag *diag);

/* Finds the seams of an indexed graph. `arena` holds what is seen. */
kiln_status kiln_smoother_init(kiln_smoother *s, const kiln_graph *graph, kiln_arena *arena);
/* The value called so is read at a seam. */
bool kiln_smoother_wants(const kiln_smoother *s, const char *name);
/* Takes a tensor of it; other values are passed over. */
void kiln_smoother_see(kiln_smoother *s, const char *name, const kiln_tensor *tensor);
/* Scales the seams; alpha 0: the best for each, else in (0, 1], inlets apart. */
kiln_status kiln_smoother_apply(kiln_smoother *s, double alpha, kiln_graph *graph, kiln_scaled *out,
                                kiln_diag *diag);

#endif
