/* quantize_moves.c - what moves or compares values does so on integers.
 *
 * A DequantizeLinear goes down through such nodes and a QuantizeLinear up, until they meet and
 * cancel (quantize_pairs), or stand at the kernels that take them along. Bytes are moved instead of
 * floats, and a convolution sees its QuantizeLinear through a pool or a Concat. All exact: with one
 * scale for the tensor, quantizing is a monotone function of each element by itself. */
#include "ops/quantize.h"
#include "pass/match.h"

/* How many elements come out for those that go in. */
typedef enum effect { SAME, MORE, FEWER } effect;

typedef struct mover {
    const char *op;
    effect effect;
    bool all_inputs; /* every input is data, not the first alone */
    bool (*fits)(const kiln_node *n);
} mover;

static bool one_output(const kiln_node *n) {
    return n->n_out == 1;
}

/* Nearest neighbours, and nothing made up outside the image. */
static bool is_nearest(const kiln_node *n) {
    return kiln_node_int(n, "mode", -1) == 0 &&
           kiln_node_int(n, "coordinate_transformation_mode", -1) != KILN_RESIZE_TF_CROP;
}

/* Fills with 0, which becomes the zero point, or with what is there already. */
static bool fills_zero(const kiln_node *n) {
    double fill = 0;
    const kiln_value *v = kiln_node_in(n, 2);
    return kiln_node_int(n, "mode", -1) != 0 || !v || (kiln_scalar(v, &fill) && fill == 0);
}

static const mover movers[] = {
    {"Reshape", SAME, false, NULL},        {"Transpose", SAME, false, NULL},
    {"Flatten", SAME, false, NULL},        {"Squeeze", SAME, false, NULL},
    {"Unsqueeze", SAME, false, NULL},      {"DepthToSpace", SAME, false, NULL},
    {"SpaceToDepth", SAME, false, NULL},   {"Concat", SAME, true, NULL},
    {"Expand", MORE, false, NULL},         {"Tile", MORE, false, NULL},
    {"Pad", MORE, false, fills_zero},      {"Resize", MORE, false, is_nearest},
    {"MaxPool", FEWER, false, one_output}, {"Slice", FEWER, false, NULL},
    {"Split", SAME, false, NULL},          {"Gather", FEWER, false, NULL},
};

static const mover *find_mover(const kiln_node *n) {
    for (size_t i = 0; n && i < KILN_COUNT_OF(movers); i++) {
        if (kiln_is_op(n, movers[i].op)) {
            return !movers[i].fits || movers[i].fits(n) ? &movers[i] : NULL;
        }
    }
    return NULL;
}

static int32_t data_inputs(const mover *m, const kiln_node *n) {
    return m->all_inputs ? n->n_in : 1;
}

/* Pools of ONNX know integers of 8 bits alone. */
static bool takes(const kiln_node *n, const kiln_quant *q) {
    return q->n == 1 && (!kiln_is_op(n, "MaxPool") || kiln_dtype_bits(q->dtype) == 8);
}

/* The mover on integers: `in` holds its data inputs. */
static kiln_node *make_mover(kiln_patch *p, const kiln_node *n, const mover *m, kiln_value **in,
                             const kiln_node *quantizer, const kiln_quant *q) {
    bool fills = kiln_is_op(n, "Pad") && kiln_node_int(n, "mode", -1) == 0;
    for (int32_t k = data_inputs(m, n); k < n->n_in; k++) {
        in[k] = n->in[k];
    }
    if (fills) {
        kiln_value *zero = kiln_node_in(quantizer, 2);
        bool scalar = zero && kiln_rank(zero) == 0;
        in[2] = scalar ? zero : kiln_patch_scalar(p, q->dtype, (double)kiln_quant_zero(q, 0));
    }
    return kiln_patch_like(p, n, in, fills && n->n_in < 3 ? 3 : n->n_in, n->n_out);
}

/* The same Q or DQ of x. */
static kiln_value *requantizer(kiln_patch *p, const kiln_node *like, kiln_value *x) {
    kiln_value *in[] = {x, like->in[1], kiln_node_in(like, 2)};
    kiln_node *y = kiln_patch_like(p, like, in, like->n_in, 1);
    return y ? y->out[0] : NULL;
}

/* ---- DequantizeLinear goes down ---- */

/* All data inputs are dequantized with the same single scale: one of the nodes. */
static const kiln_node *dequantized(const kiln_node *n, int32_t n_data, kiln_quant *q) {
    for (int32_t k = 0; k < n_data; k++) {
        kiln_quant other;
        const kiln_node *d = kiln_made_by(n->in[k], "DequantizeLinear");
        if (!d || !kiln_quant_read(d, &other) || other.n != 1 ||
            (k > 0 && !kiln_quant_same(q, &other))) {
            return NULL;
        }
        *q = other;
    }
    return n_data > 0 ? n->in[0]->producer : NULL;
}

static kiln_status sink(kiln_patch *p, const kiln_node *n, const mover *m) {
    kiln_quant q;
    kiln_value **in;
    int32_t n_data = data_inputs(m, n);
    const kiln_node *d = dequantized(n, n_data, &q);
    if (!d || !takes(n, &q)) {
        return KILN_OK;
    }
    KILN_ALLOC(in, p->arena, n->n_in + 3);
    for (int32_t k = 0; k < n_data; k++) {
        in[k] = n->in[k]->producer->in[0];
        if (kiln_used_once(n->in[k])) {
            kiln_patch_touch(p, n->in[k]->producer);
        }
    }
    kiln_node *moved = make_mover(p, n, m, in, d, &q);
    for (int32_t i = 0; i < n->n_out; i++) {
        kiln_patch_replace(p, n->out[i], moved ? requantizer(p, d, moved->out[i]) : NULL);
    }
    return kiln_patch_commit(p, "dequantized after moving");
}

/* Scales along one axis follow it through a Transpose. */
static kiln_status sink_axis(kiln_patch *p, const kiln_node *n) {
    const kiln_node *d = kiln_made_by_only(n->in[0], "DequantizeLinear");
    int64_t perm[KILN_MAX_RANK];
    int32_t rank, axis = 0;
    kiln_quant q;
    if (!d || !kiln_quant_read(d, &q) || q.n == 1 || !kiln_transpose_perm(n, perm, &rank)) {
        return KILN_OK;
    }
    while (axis < rank && perm[axis] != q.axis) {
        axis++;
    }
    kiln_patch_touch(p, d);
    kiln_node *moved = kiln_patch_like(p, n, &d->in[0], 1, 1);
    kiln_value *y = moved ? requantizer(p, d, moved->out[0]) : NULL;
    kiln_patch_int(p, y, "axis", axis);
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, "dequantized after moving");
}

/* ---- QuantizeLinear goes up ---- */

/* Quantizing what goes into the mover is no more work than what comes out, or a kernel will do it
 * as it writes. */
static bool pays(const mover *m, const kiln_node *n) {
    const kiln_value *x = n->in[0];
    return m->effect != FEWER || (x->producer && kiln_used_once(x));
}

static kiln_status hoist(kiln_patch *p, const kiln_node *n) {
    kiln_quant q;
    kiln_value **in;
    const kiln_node *above = kiln_used_once(n->in[0]) ? n->in[0]->producer : NULL;
    const mover *m = above && above->n_out == 1 ? find_mover(above) : NULL;
    if (!m || !pays(m, above) || !kiln_quant_read(n, &q) || !takes(above, &q)) {
        return KILN_OK;
    }
    KILN_ALLOC(in, p->arena, above->n_in + 3);
    for (int32_t k = 0; k < data_inputs(m, above); k++) {
        in[k] = requantizer(p, n, above->in[k]);
    }
    kiln_patch_touch(p, above);
    kiln_node *moved = make_mover(p, above, m, in, n, &q);
    kiln_patch_replace(p, n->out[0], moved ? moved->out[0] : NULL);
    return kiln_patch_commit(p, "quantized before moving");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    const mover *m = find_mover(n);
    if (m) {
        KILN_TRY(sink(p, n, m));
        return kiln_patch_taken(p, n) || !kiln_is_op(n, "Transpose") ? KILN_OK : sink_axis(p, n);
    }
    return kiln_is_op(n, "QuantizeLinear") ? hoist(p, n) : KILN_OK;
}

const kiln_pass kiln_pass_quantize_moves = {.name = "quantize_moves", .visit = visit};
