/* window.h - the geometry of sliding windows: convolutions and pools.
 *
 * A kiln_window is what the attributes say once defaults are filled in and every value is checked.
 * Output sizes are dims, so that they may be symbolic; pads of auto_pad follow from sizes and are
 * resolved when those are numbers:
 *
 *     kiln_window w;
 *     const kiln_window_attrs attrs = {.pads = a->pads, .strides = a->strides};
 *     KILN_TRY(kiln_window_read(&w, c->diag, n, &attrs, kernel));
 *     KILN_TRY(kiln_window_out(&w, c, in_dims, out_dims));          // infer
 *     kiln_window_resolve(&w, in_sizes, out_sizes);                 // kernels and ref: pads, sizes
 *
 * Sizes are bounded so that no formula below can overflow: kernel, stride, dilation and pads <
 * 2^31, dims <= 2^62.
 */
#ifndef KILN_OPS_WINDOW_H
#define KILN_OPS_WINDOW_H

#include "ops/attrs.h"
#include "ops/util.h"

enum { KILN_MAX_SPATIAL = 6 };

typedef struct kiln_window {
    int32_t n; /* spatial dims */
    kiln_auto_pad auto_pad;
    bool ceil_mode;
    int64_t kernel[KILN_MAX_SPATIAL];
    int64_t stride[KILN_MAX_SPATIAL];
    int64_t dilation[KILN_MAX_SPATIAL];
    int64_t pad_begin[KILN_MAX_SPATIAL]; /* auto_pad SAME: valid after kiln_window_resolve */
    int64_t pad_end[KILN_MAX_SPATIAL];
    /* After kiln_window_resolve: */
    int64_t in[KILN_MAX_SPATIAL], out[KILN_MAX_SPATIAL];
    int64_t in_count, out_count, taps; /* products of in, out, kernel; INT64_MAX if too many */
} kiln_window;

typedef struct kiln_window_attrs {
    int32_t auto_pad;
    int64_t ceil_mode;
    kiln_ints dilations, pads, strides; /* absent: 1, 0, 1 */
} kiln_window_attrs;

/* kernel: n sizes that are known; the attributes' lists must have n (pads: 2 n) items. Fails with
 * KILN_F_ATTR_VALUE on kernels, strides or dilations < 1, pads < 0, and on any value >= 2^31; with
 * KILN_F_VARIANT when n is over KILN_MAX_SPATIAL. */
kiln_status kiln_window_read(kiln_window *w, kiln_diag *diag, int32_t n,
                             const kiln_window_attrs *attrs, const int64_t *kernel);

/* Output sizes of a convolution or pool over n input sizes. Fails when the window is surely larger
 * than the padded input. With ceil_mode a last partial window counts, unless it starts in the
 * padding at the end. */
kiln_status kiln_window_out(const kiln_window *w, const kiln_infer *c, const kiln_dim *in,
                            kiln_dim *out);

/* Fills in, out, the counts, and the pads where auto_pad asks for it. */
void kiln_window_resolve(kiln_window *w, const int64_t *in, const int64_t *out);

/* The same from input dims [N, C, in...] and output dims [N, C, out...]. */
void kiln_window_resolve_tensors(kiln_window *w, const kiln_tensor *x, const kiln_tensor *y);

/* dilation * (kernel - 1) + 1 */
static inline int64_t kiln_window_extent(const kiln_window *w, int32_t i) {
    return w->dilation[i] * (w->kernel[i] - 1) + 1;
}

/* Splits the row-major number `flat` into indices over dims; n of them. */
void kiln_unflatten(int64_t flat, const int64_t *dims, int32_t n, int64_t *index);

/* Output positions o of dim i, lo <= o < hi, whose tap k reads inside the input. */
void kiln_window_span(const kiln_window *w, int32_t i, int64_t k, int64_t *lo, int64_t *hi);

/* Refuses a rank outside [3, KILN_MAX_SPATIAL + 2]; *n spatial dims, or -1 when not known. */
kiln_status kiln_window_rank(const kiln_infer *c, int32_t input, int32_t *n);

/* Kernel sizes of a convolution: dims 2.. of the weight, held against kernel_shape if given.
 * *known is false if they are not known yet. */
kiln_status kiln_window_kernel(const kiln_infer *c, int32_t weight, int32_t n,
                               const kiln_ints *kernel_shape, int64_t *kernel, bool *known);

/* Checks an input that must be 1-D of `size` elements (either may be unknown). */
kiln_status kiln_infer_vector(const kiln_infer *c, int32_t i, kiln_dim size, const char *what);

#endif
