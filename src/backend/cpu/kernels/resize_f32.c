/* resize_f32.c - Resize of the spatial dims of channels-last images: nearest, linear, cubic of
 * float32, nearest of every other type. */
#include <math.h>
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/prims/move.h"
#include "ops/attrs.h"
#include "ops/ops.h"

enum { X, ROI, SCALES, SIZES };
enum { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL }; /* kiln_resize_attrs' nearest_mode */

typedef struct resize_state {
    const kiln_move_prims *prims;
    kiln_resize_args args;
    int64_t rows;
    int64_t pixel_bytes; /* of a type that is only copied; 0: float32 */
} resize_state;

/* A length l of the input corresponds to l * up / down of the output. */
typedef struct ratio {
    double up, down;
} ratio;

/* ---- Claim ---- */

/* The input is there and has elements. */
static bool given(const kiln_node *node, int32_t i) {
    const kiln_value *v = kiln_node_in(node, i);
    return v && v->type.rank == 1 && kiln_dim_known(v->type.dims[0]) && v->type.dims[0] > 0;
}

/* Place of axis d in scales and sizes, or -1. */
static int64_t place_of(const kiln_resize_attrs *a, int32_t d, int32_t rank) {
    for (int64_t i = 0; a->axes.v && i < a->axes.n; i++) {
        if (kiln_axis_of(a->axes.v[i], rank) == d) {
            return i;
        }
    }
    return a->axes.v ? -1 : d;
}

/* Batch and channels keep their sizes, whatever the shapes. */
static bool is_spatial(const kiln_node *node, const kiln_tensor *scales) {
    const kiln_type *x = &node->in[X]->type, *y = &node->out[0]->type;
    for (int32_t d = 0; d < 2; d++) {
        int64_t at = place_of(node->attrs, d, x->rank);
        if (scales ? at >= 0 && ((const float *)scales->data)[at] != 1.0f
                   : x->dims[d] == KILN_DIM_UNKNOWN || x->dims[d] != y->dims[d]) {
            return false;
        }
    }
    return true;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, resize)) {
        return kiln_claim_refuse(c, "it runs Resize");
    }
    const kiln_resize_attrs *a = node->attrs;
    const kiln_value *x = node->in[X];
    bool by_size = given(node, SIZES);
    bool copies =
        a->mode == 0 && x->type.kind == KILN_KIND_TENSOR && kiln_move_bytes(x->type.dtype);
    if (!(copies || kiln_value_is_f32(x)) || x->type.rank < 3 || x->type.rank > 5 ||
        node->out[0]->type.rank < 0) {
        return kiln_claim_refuse(
            c, "it takes float32, or any type for nearest, with 1 to 3 spatial dims");
    }
    if (a->antialias || a->coordinate_transformation_mode == KILN_RESIZE_TF_CROP ||
        a->keep_aspect_ratio_policy != 0 ||
        (a->coordinate_transformation_mode == KILN_RESIZE_ALIGN_CORNERS && !by_size)) {
        return kiln_claim_refuse(
            c, "it has no antialias, regions, ratio policies or aligned corners by scale");
    }
    const kiln_tensor *scales = NULL;
    if (!by_size) {
        scales = given(node, SCALES) ? kiln_small_data(node->in[SCALES]) : NULL;
        if (!scales) {
            return kiln_claim_refuse(c, "the scales are not constant");
        }
    }
    if (!is_spatial(node, scales)) {
        return kiln_claim_refuse(c, "batch or channels may be resized too");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_resize_f32, node, 1, 1, 1);
    if (!r) {
        return NULL;
    }
    r->in[0] = node->in[X];
    r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_LAST;
    return kiln_claim_shape_inputs(c, r, node, 1) ? r : NULL;
}

/* ---- Bind ---- */

/* Where output i lies on the input axis. The order of the operations is what decides ties in
 * nearest. */
static double source(int32_t mode, ratio r, int64_t in, int64_t out, int64_t i) {
    double n = (double)in, o = (double)i;
    switch (mode) {
    case KILN_RESIZE_ALIGN_CORNERS:
        return out == 1 ? 0 : o * (n - 1) / ((double)out - 1);
    case KILN_RESIZE_ASYMMETRIC:
        return o * r.down / r.up;
    case KILN_RESIZE_PYTORCH_HALF_PIXEL:
        return out == 1 ? 0 : (o + 0.5) * r.down / r.up - 0.5;
    case KILN_RESIZE_HALF_PIXEL_SYMMETRIC:
        return (o + 0.5 - (double)out / 2) * r.down / r.up + n / 2 - 0.5;
    default:
        return (o + 0.5) * r.down / r.up - 0.5;
    }
}

static void nearest_table(const kiln_resize_attrs *a, ratio r, int64_t in, int64_t out,
                          int32_t *index, float *weight) {
    for (int64_t i = 0; i < out; i++) {
        double at = source(a->coordinate_transformation_mode, r, in, out, i), low = floor(at),
               part = at - low;
        bool up = a->nearest_mode == PREFER_FLOOR  ? part > 0.5
                  : a->nearest_mode == PREFER_CEIL ? part >= 0.5
                                                   : a->nearest_mode == CEIL && part > 0;
        index[i] = (int32_t)fmin(fmax(low + up, 0), (double)(in - 1));
        weight[i] = 1;
    }
}

static kiln_status make_axis(kiln_binder *b, kiln_resize_axis *axis, int64_t in, int64_t out,
                             ratio r) {
    const kiln_resize_attrs *a = b->claim->anchor->attrs;
    static const kiln_resize_mode modes[] = {KILN_RESIZE_NEAREST, KILN_RESIZE_LINEAR,
                                             KILN_RESIZE_CUBIC};
    static const kiln_resize_coord coords[] = {
        [KILN_RESIZE_HALF_PIXEL] = KILN_COORD_HALF_PIXEL,
        [KILN_RESIZE_HALF_PIXEL_SYMMETRIC] = KILN_COORD_HALF_PIXEL_SYMMETRIC,
        [KILN_RESIZE_PYTORCH_HALF_PIXEL] = KILN_COORD_PYTORCH_HALF_PIXEL,
        [KILN_RESIZE_ALIGN_CORNERS] = KILN_COORD_ALIGN_CORNERS,
        [KILN_RESIZE_ASYMMETRIC] = KILN_COORD_ASYMMETRIC,
    };
    bool same = in == out && r.up == r.down;
    kiln_resize_spec spec = {.mode = same ? KILN_RESIZE_NEAREST : modes[a->mode],
                             .coord = coords[a->coordinate_transformation_mode],
                             .exclude_outside = a->exclude_outside != 0,
                             .in = in,
                             .out = out,
                             .scale = r.up / r.down,
                             .cubic_a = a->cubic_coeff_a};
    int32_t *index;
    float *weight;
    axis->in = in;
    axis->out = out;
    axis->taps = kiln_resize_taps(&spec);
    if (in > INT32_MAX || out > INT32_MAX) {
        return kiln_fail(b->diag, KILN_F_RUN_LIMIT,
                         "an axis of %lld elements is too long to resize",
                         (long long)(in > out ? in : out));
    }
    KILN_ALLOC(index, b->arena, out * axis->taps);
    KILN_ALLOC(weight, b->arena, out * axis->taps);
    if (same) {
        for (int64_t i = 0; i < out; i++) {
            index[i] = (int32_t)i;
            weight[i] = 1;
        }
    } else if (spec.mode == KILN_RESIZE_NEAREST) {
        nearest_table(a, r, in, out, index, weight);
    } else {
        kiln_resize_table(index, weight, &spec);
    }
    axis->index = index;
    axis->weight = weight;
    return KILN_OK;
}

static ratio ratio_of(const kiln_node *node, int32_t d, int64_t in, int64_t out) {
    int64_t at = place_of(node->attrs, d, node->in[X]->type.rank);
    if (at < 0 || given(node, SIZES)) {
        return (ratio){(double)out, (double)in};
    }
    return (ratio){(double)((const float *)kiln_small_data(node->in[SCALES])->data)[at], 1};
}

static kiln_status bind(kiln_binder *b) {
    resize_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[0].tensor, *y = &b->out[0].tensor;
    int32_t n = x->rank - 2;
    b->state = s;
    s->prims = b->target->prims->move;
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    for (int32_t i = 0; i < 3; i++) {
        int32_t d = i - (3 - n) + 2;
        int64_t in = d < 2 ? 1 : x->dims[d], out = d < 2 ? 1 : y->dims[d];
        ratio r = d < 2 ? (ratio){1, 1} : ratio_of(b->claim->anchor, d, in, out);
        KILN_TRY(make_axis(b, &s->args.axis[i], in, out, r));
    }
    s->args.channels = x->dims[1];
    s->rows = x->dims[0] * s->args.axis[0].out * s->args.axis[1].out;
    if (x->dtype != KILN_DTYPE_F32) {
        s->pixel_bytes = x->dims[1] * kiln_move_bytes(x->dtype);
        return KILN_OK;
    }
    b->scratch_bytes = (size_t)kiln_resize_scratch(&s->args) * sizeof(float);
    return KILN_OK;
}

/* Output rows [begin, end), pixel by pixel. */
static void copy_rows(const resize_state *s, const char *x, char *y, int64_t begin, int64_t end) {
    const kiln_resize_axis *depth = &s->args.axis[0], *height = &s->args.axis[1],
                           *width = &s->args.axis[2];
    size_t bytes = (size_t)s->pixel_bytes;
    y += begin * width->out * s->pixel_bytes;
    for (int64_t r = begin; r < end; r++) {
        int64_t image = r / height->out / depth->out;
        int64_t plane = image * depth->in + depth->index[r / height->out % depth->out];
        int64_t row = plane * height->in + height->index[r % height->out];
        const char *line = x + row * width->in * s->pixel_bytes;
        for (int64_t i = 0; i < width->out; i++, y += bytes) {
            memcpy(y, line + width->index[i] * s->pixel_bytes, bytes);
        }
    }
}

static void run(const kiln_call *call, const kiln_team *team) {
    const resize_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->rows, &begin, &end);
    if (begin >= end) {
        return;
    }
    if (s->pixel_bytes > 0) {
        copy_rows(s, call->in[0], call->out[0], begin, end);
        return;
    }
    kiln_resize_args args = s->args;
    args.x = call->in[0];
    args.y = call->out[0];
    char *scratch = call->scratch + (size_t)team->rank * call->scratch_bytes;
    s->prims->resize(&args, (float *)(void *)scratch, begin, end);
}

const kiln_kernel kiln_kernel_resize_f32 = {
    .name = "resize_f32",
    .claim = claim,
    .bind = bind,
    .run = run,
};
