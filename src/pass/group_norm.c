/* group_norm.c - Reshape to [N, groups, rest], InstanceNormalization, Reshape back, Mul and Add per
 * channel: GroupNormalization, which is what older exporters meant by it. */
#include "pass/fold.h"

/* A constant of one number per channel of x ([N, C, ...]), as [C]; NULL when v is none. */
static kiln_value *per_channel(kiln_patch *p, kiln_value *v, const kiln_value *x) {
    int32_t shift = kiln_rank(x) - kiln_rank(v);
    int64_t channels = kiln_dim_at(x, 1), n = 0;
    if (!v->constant || kiln_rank(v) < 0 || shift < 0 || channels < 1 ||
        v->type.dtype != x->type.dtype) {
        return NULL;
    }
    for (int32_t d = shift; d < kiln_rank(x); d++) {
        if (kiln_dim_at(v, d - shift) != (d == 1 ? channels : 1)) {
            return NULL;
        }
    }
    double *e = shift <= 1 ? kiln_fold_doubles(p, v, &n) : NULL;
    return e && n == channels ? kiln_fold_vector(p, x->type.dtype, e, 1, &channels) : NULL;
}

static kiln_value *other_input(const kiln_node *n, const kiln_value *v) {
    return n->in[n->in[0] == v];
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    if (!kiln_is_op(n, "InstanceNormalization") || !kiln_patch_can(p, "GroupNormalization") ||
        !kiln_all_equal(n->in[1], 1.0) || !kiln_all_equal(n->in[2], 0.0)) {
        return KILN_OK;
    }
    const kiln_node *apart = kiln_made_by_only(n->in[0], "Reshape");
    const kiln_node *back = kiln_only_user(n, "Reshape");
    const kiln_node *mul = back ? kiln_only_user(back, "Mul") : NULL;
    const kiln_node *add = mul ? kiln_only_user(mul, "Add") : NULL;
    kiln_value *x = apart ? apart->in[0] : NULL;
    kiln_dim groups = kiln_dim_at(n->in[0], 1), channels = kiln_dim_at(x, 1);
    if (!add || kiln_rank(x) < 3 || kiln_rank(n->in[0]) < 3 || groups < 1 || channels < 1 ||
        channels % groups != 0 || kiln_dim_at(n->in[0], 0) != kiln_dim_at(x, 0) ||
        kiln_dim_at(x, 0) == KILN_DIM_UNKNOWN || !kiln_same_type(x, back->out[0]) ||
        !kiln_same_type(x, add->out[0])) {
        return KILN_OK;
    }
    kiln_value *scale = per_channel(p, other_input(mul, back->out[0]), x);
    kiln_value *bias = per_channel(p, other_input(add, mul->out[0]), x);
    if (!scale || !bias) {
        return KILN_OK;
    }
    kiln_patch_touch(p, apart);
    kiln_patch_touch(p, n);
    kiln_patch_touch(p, back);
    kiln_patch_touch(p, mul);
    kiln_value *in[] = {x, scale, bias};
    kiln_value *y = kiln_patch_node(p, "GroupNormalization", in, 3);
    kiln_patch_int(p, y, "num_groups", groups);
    kiln_patch_float(p, y, "epsilon", kiln_node_float(n, "epsilon", 1e-5f));
    kiln_patch_replace(p, add->out[0], y);
    return kiln_patch_commit(p, "group normalization");
}

const kiln_pass kiln_pass_group_norm = {.name = "group_norm", .visit = visit};
