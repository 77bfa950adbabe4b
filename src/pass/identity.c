/* identity.c - nodes whose output equals their first (or other) input, element for element. */
#include <math.h>

#include "pass/match.h"

/* Each rule returns the value the node's output equals, or NULL. */

static kiln_value *always(const kiln_node *n) {
    return n->in[0];
}

static kiln_value *alone(const kiln_node *n) {
    return n->n_in == 1 ? n->in[0] : NULL;
}

static kiln_value *same_dtype(const kiln_node *n) {
    bool same = kiln_is_tensor(n->in[0]) && kiln_is_tensor(n->out[0]) &&
                n->in[0]->type.dtype == n->out[0]->type.dtype &&
                n->in[0]->type.dtype != KILN_DTYPE_NONE;
    return same ? n->in[0] : NULL;
}

static kiln_value *same_shape(const kiln_node *n) {
    return kiln_same_type(n->in[0], n->out[0]) && kiln_target_is_sure(n) ? n->in[0] : NULL;
}

static bool all_ints(const kiln_value *v, int64_t x) {
    int64_t e[KILN_MAX_RANK * 2];
    int64_t n = kiln_known_ints(v, e, KILN_MAX_RANK * 2);
    for (int64_t i = 0; i < n; i++) {
        if (e[i] != x) {
            return false;
        }
    }
    return n >= 0;
}

static kiln_value *slice(const kiln_node *n) {
    const kiln_value *steps = kiln_node_in(n, 4);
    return !steps || all_ints(steps, 1) ? same_shape(n) : NULL;
}

static kiln_value *pad(const kiln_node *n) {
    return all_ints(n->in[1], 0) ? n->in[0] : NULL;
}

static kiln_value *tile(const kiln_node *n) {
    return all_ints(n->in[1], 1) ? n->in[0] : NULL;
}

static kiln_value *dropout(const kiln_node *n) {
    const kiln_value *training = kiln_node_in(n, 2);
    bool mask = n->n_out > 1 && (n->out[1]->n_users > 0 || n->out[1]->n_outputs > 0);
    double on = 0.0;
    bool known = !training || kiln_scalar(training, &on);
    return known && on == 0.0 && !mask ? n->in[0] : NULL;
}

static kiln_value *transpose(const kiln_node *n) {
    int64_t perm[KILN_MAX_RANK];
    int32_t rank;
    if (!kiln_transpose_perm(n, perm, &rank)) {
        return NULL;
    }
    for (int32_t d = 0; d < rank; d++) {
        if (perm[d] != d) {
            return NULL;
        }
    }
    return n->in[0];
}

/* The other operand, where the constant one is neutral and neither broadcasts it nor converts it.
 * */
static kiln_value *neutral(const kiln_node *n, double x, int32_t first) {
    for (int32_t side = first; side < 2; side++) {
        kiln_value *other = n->in[1 - side];
        bool is_neutral =
            kiln_all_equal(n->in[side], x) || (x == 0.0 && kiln_all_equal(n->in[side], -0.0));
        if (is_neutral && !other->constant && kiln_same_type(other, n->out[0])) {
            return other;
        }
    }
    return NULL;
}

static kiln_value *add(const kiln_node *n) {
    return neutral(n, 0.0, 0);
}
static kiln_value *sub(const kiln_node *n) {
    return neutral(n, 0.0, 1);
}
static kiln_value *mul(const kiln_node *n) {
    return neutral(n, 1.0, 0);
}
static kiln_value *div_or_pow(const kiln_node *n) {
    return neutral(n, 1.0, 1);
}

static kiln_value *clip(const kiln_node *n) {
    double lo, hi;
    const kiln_value *min = kiln_node_in(n, 1), *max = kiln_node_in(n, 2);
    bool open_min = !min || (kiln_is_float(n->in[0]) && kiln_scalar(min, &lo) && lo == -INFINITY);
    bool open_max = !max || (kiln_is_float(n->in[0]) && kiln_scalar(max, &hi) && hi == INFINITY);
    return open_min && open_max ? n->in[0] : NULL;
}

/* Element i of x along the axis, as a slice of size one: x, else NULL. */
static kiln_value *element(const kiln_value *slice, int64_t i, int64_t axis) {
    const kiln_node *reshape = kiln_made_by(slice, "Reshape");
    reshape = reshape ? reshape : kiln_made_by(slice, "Unsqueeze");
    const kiln_node *gather = reshape ? kiln_made_by(reshape->in[0], "Gather") : NULL;
    int64_t index;
    if (!gather || kiln_rank(gather->in[1]) != 0 ||
        kiln_known_ints(gather->in[1], &index, 1) != 1 || index != i ||
        kiln_node_int(gather, "axis", 0) != axis || kiln_dim_at(slice, (int32_t)axis) != 1) {
        return NULL;
    }
    return gather->in[0];
}

/* All parts of one value, joined again in their order: those of a Split, or all its elements. */
static kiln_value *concat(const kiln_node *n) {
    int64_t axis = kiln_node_int(n, "axis", 0);
    const kiln_node *split = kiln_made_by(n->in[0], "Split");
    if (n->n_in == 1 || axis < 0) {
        return alone(n);
    }
    kiln_value *x = split ? split->in[0] : element(n->in[0], 0, axis);
    bool whole = x && kiln_same_type(x, n->out[0]) &&
                 (!split || (split->n_out == n->n_in && kiln_node_int(split, "axis", 0) == axis));
    for (int32_t i = 0; whole && i < n->n_in; i++) {
        whole = split ? n->in[i] == split->out[i] : element(n->in[i], i, axis) == x;
    }
    return whole ? x : NULL;
}

static const struct rule {
    const char *op;
    kiln_value *(*equal)(const kiln_node *n);
} rules[] = {
    {"Identity", always},
    {"Dropout", dropout},
    {"Cast", same_dtype},
    {"CastLike", same_dtype},
    {"Reshape", same_shape},
    {"Flatten", same_shape},
    {"Squeeze", same_shape},
    {"Unsqueeze", same_shape},
    {"Expand", same_shape},
    {"Slice", slice},
    {"Pad", pad},
    {"Tile", tile},
    {"Transpose", transpose},
    {"Concat", concat},
    {"Sum", alone},
    {"Max", alone},
    {"Min", alone},
    {"Mean", alone},
    {"Add", add},
    {"Sub", sub},
    {"Mul", mul},
    {"Div", div_or_pow},
    {"Pow", div_or_pow},
    {"Clip", clip},
};

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    for (size_t i = 0; i < KILN_COUNT_OF(rules); i++) {
        if (kiln_is_op(n, rules[i].op)) {
            kiln_value *same = rules[i].equal(n);
            return same ? kiln_patch_bypass(p, n, same, "passes its input through") : KILN_OK;
        }
    }
    return KILN_OK;
}

const kiln_pass kiln_pass_identity = {.name = "identity", .visit = visit};
