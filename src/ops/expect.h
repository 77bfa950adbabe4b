/* expect.h - holding an input's shape against the shape an operator needs.
 *
 *     const kiln_dim want[] = {directions, gates, input_size};
 *     KILN_TRY(kiln_expect_shape(c, W, "W", 3, want));
 *
 * KILN_DIM_UNKNOWN in `want` accepts everything, as does an input that is left out or whose dims
 * are not known. */
#ifndef KILN_OPS_EXPECT_H
#define KILN_OPS_EXPECT_H

#include "ops/util.h"

/* Refuses input i if dim d (negative counts from the end) is surely not `want`. */
kiln_status kiln_expect_dim(const kiln_infer *c, int32_t i, int32_t d, kiln_dim want,
                            const char *what);
/* Refuses input i unless it has this rank and these dims. */
kiln_status kiln_expect_shape(const kiln_infer *c, int32_t i, const char *what, int32_t rank,
                              const kiln_dim *want);
/* Refuses input i unless it holds a single element: rank 0, or all dims 1. */
kiln_status kiln_expect_single(const kiln_infer *c, int32_t i, const char *what);
/* Makes output i with these dims. */
kiln_status kiln_infer_output(kiln_infer *c, int32_t i, kiln_dtype dtype, int32_t rank,
                              const kiln_dim *dims);
/* Product of two attributes or sizes; refuses what does not fit 62 bits. */
kiln_status kiln_expect_product(const kiln_infer *c, int64_t a, int64_t b, const char *what,
                                int64_t *out);
/* dim / parts, refused when it surely has a remainder; KILN_DIM_UNKNOWN stays. */
kiln_status kiln_expect_split(const kiln_infer *c, kiln_dim dim, int64_t parts, const char *what,
                              kiln_dim *out);

#endif
