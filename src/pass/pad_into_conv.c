/* pad_into_conv.c - zero padding in front of a convolution becomes its own; likewise in front of an
 * average pool that counts its padding, and minus infinity in front of a max pool. */
#include <math.h>

#include "pass/match.h"

enum { MAX_SPATIAL = KILN_MAX_RANK - 2 };

/* Spatial paddings of a Pad node of constant mode, in the order of `pads` attributes. */
static bool read_pad(const kiln_node *pad, int32_t rank, double *value, int64_t *out) {
    int64_t amounts[2 * KILN_MAX_RANK], axes[KILN_MAX_RANK], all[2 * KILN_MAX_RANK] = {0};
    const kiln_value *fill = kiln_node_in(pad, 2), *list = kiln_node_in(pad, 3);
    int64_t n = kiln_known_ints(pad->in[1], amounts, 2 * KILN_MAX_RANK);
    int64_t n_axes = list ? kiln_known_ints(list, axes, KILN_MAX_RANK) : rank;
    *value = 0.0;
    if (kiln_node_int(pad, "mode", 0) != 0 || n < 0 || n != 2 * n_axes ||
        (fill && !kiln_scalar(fill, value))) {
        return false;
    }
    for (int64_t i = 0; i < n_axes; i++) {
        int64_t a = list ? axes[i] : i;
        a = a < 0 ? a + rank : a;
        if (a < 0 || a >= rank || amounts[i] < 0 || amounts[n_axes + i] < 0) {
            return false;
        }
        all[a] = amounts[i];
        all[rank + a] = amounts[n_axes + i];
    }
    int32_t spatial = rank - 2;
    for (int32_t d = 0; d < spatial; d++) {
        out[d] = all[2 + d];
        out[spatial + d] = all[rank + 2 + d];
    }
    return all[0] == 0 && all[1] == 0 && all[rank] == 0 && all[rank + 1] == 0;
}

/* Window sizes in elements: (kernel - 1) * dilation + 1. */
static bool is_within_window(const kiln_node *n, const int64_t *pads, int32_t spatial) {
    const kiln_ints *kernel = kiln_node_ints(n, "kernel_shape"),
                    *dilation = kiln_node_ints(n, "dilations");
    for (int32_t d = 0; d < spatial; d++) {
        int64_t extent = kernel && kernel->n == spatial ? kernel->v[d] : 0;
        extent = (extent - 1) * (dilation ? dilation->v[d] : 1) + 1;
        if (pads[d] >= extent || pads[spatial + d] >= extent) {
            return false;
        }
    }
    return true;
}

/* Which fill value a node's own padding stands for. */
static bool fits(const kiln_node *n, double value, const int64_t *old, const int64_t *pads,
                 int32_t spatial) {
    bool had_none = true;
    for (int32_t d = 0; d < 2 * spatial; d++) {
        had_none = had_none && old[d] == 0;
    }
    if (kiln_is_op(n, "Conv")) {
        return value == 0.0;
    }
    if (kiln_node_int(n, "ceil_mode", 0) != 0 || !is_within_window(n, pads, spatial)) {
        return false;
    }
    if (kiln_is_op(n, "AveragePool")) {
        return value == 0.0 && (had_none || kiln_node_int(n, "count_include_pad", 0) != 0);
    }
    return value == -INFINITY && n->n_out == 1;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    int64_t added[2 * MAX_SPATIAL], pads[2 * MAX_SPATIAL], old[2 * MAX_SPATIAL] = {0};
    double value;
    if (!kiln_is_op(n, "Conv") && !kiln_is_op(n, "AveragePool") && !kiln_is_op(n, "MaxPool")) {
        return KILN_OK;
    }
    const kiln_node *pad = kiln_made_by_only(n->in[0], "Pad");
    int32_t rank = kiln_rank(n->in[0]), spatial = rank - 2;
    int64_t mode = kiln_node_int(n, "auto_pad", KILN_PAD_NOTSET);
    const kiln_ints *own = kiln_node_ints(n, "pads");
    if (!pad || rank < 3 || (mode != KILN_PAD_NOTSET && mode != KILN_PAD_VALID) ||
        (own && own->n != 2 * spatial) || !read_pad(pad, rank, &value, added)) {
        return KILN_OK;
    }
    for (int32_t d = 0; d < 2 * spatial; d++) {
        old[d] = own && mode == KILN_PAD_NOTSET ? own->v[d] : 0;
        if (!kiln_add_i64(old[d], added[d], &pads[d])) {
            return KILN_OK;
        }
    }
    if (!fits(n, value, old, pads, spatial)) {
        return KILN_OK;
    }
    kiln_value *in[3] = {pad->in[0], kiln_node_in(n, 1), kiln_node_in(n, 2)};
    kiln_patch_touch(p, pad);
    kiln_node *made = kiln_patch_like(p, n, in, n->n_in, 1);
    kiln_value *y = made ? made->out[0] : NULL;
    kiln_patch_int(p, y, "auto_pad", KILN_PAD_NOTSET);
    kiln_patch_ints(p, y, "pads", pads, 2 * spatial);
    if (kiln_is_op(n, "AveragePool")) {
        kiln_patch_int(p, y, "count_include_pad", 1);
    }
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, "padding moves in");
}

const kiln_pass kiln_pass_pad_into_conv = {.name = "pad_into_conv", .visit = visit};
