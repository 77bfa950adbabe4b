/* observer.h - what was seen of one tensor: a histogram made on the way.
 *
 * KILN_BINS bins on each side of zero cover |x| < 2^exponent. When a larger value comes the range
 * doubles and pairs of bins merge. Widths are powers of two and bins are aligned to multiples of
 * them, so that merging gives the very counts that the wider bins would have counted: the result is
 * a function of the data, not of its order, and observers of two halves merge exactly. Zeros have a
 * count of their own, since every quantization represents them exactly.
 *
 *     kiln_observer o;
 *     kiln_observer_init(&o);
 *     KILN_TRY(kiln_observer_add(&o, &tensor, arena, diag));       // any number of times
 *     o.max, o.bins[1][i], ...
 */
#ifndef KILN_QUANT_OBSERVER_H
#define KILN_QUANT_OBSERVER_H

#include "base/arena.h"
#include "base/diag.h"

enum {
    KILN_BIN_BITS = 13,
    KILN_BINS = 1 << KILN_BIN_BITS, /* on each side: 128 KiB a tensor */
};

/* Counts stay exact as doubles. */
#define KILN_OBSERVER_MAX_COUNT (UINT64_C(1) << 53)

typedef struct kiln_observer {
    uint64_t *bins[2]; /* [0] x < 0, [1] x > 0; bin i counts |x| in [i, i + 1) * width. NULL
                          while nothing but zeros was seen */
    int32_t exponent;  /* of max(-min, max) as frexp gives it, with bins */
    uint64_t count;    /* finite elements */
    uint64_t zeros, nans, infs;
    float min, max; /* of the finite elements; +inf and -inf without any */
} kiln_observer;

/* Nothing seen yet. */
void kiln_observer_init(kiln_observer *o);
/* Counts a tensor of float16, bfloat16, float32 or float64 elements, read as float32. Bins come
 * from `arena`, which must be the same each time. KILN_F_DTYPE; KILN_F_DATA_LIMIT;
 * KILN_E_MEMORY, with nothing counted. */
kiln_status kiln_observer_add(kiln_observer *o, const kiln_tensor *t, kiln_arena *arena,
                              kiln_diag *diag);
/* Counts everything `from` has counted. KILN_F_DATA_LIMIT, KILN_E_MEMORY. */
kiln_status kiln_observer_merge(kiln_observer *o, const kiln_observer *from, kiln_arena *arena,
                                kiln_diag *diag);

/* Makes the bins, or widens them, for values up to |x| = amax. Nothing for 0. KILN_E_MEMORY. */
kiln_status kiln_observer_cover(kiln_observer *o, float amax, kiln_arena *arena);

/* The greatest |x|. */
static inline float kiln_observer_amax(const kiln_observer *o) {
    return o->count == 0 ? 0 : (-o->min > o->max ? -o->min : o->max);
}
/* Width of a bin. */
double kiln_observer_width(const kiln_observer *o);

/* Least and greatest element of each index of `axis` (lo and hi hold dims[axis] items), for
 * constants of float type. *nonfinite gets the number of NaN and infinities, which are left out;
 * an index without finite elements gives 0 and 0. */
void kiln_channel_ranges(const kiln_tensor *t, int32_t axis, float *lo, float *hi,
                         int64_t *nonfinite);

#endif
