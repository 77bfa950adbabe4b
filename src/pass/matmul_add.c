/* matmul_add.c - MatMul of matrices and a bias vector is Gemm. Of higher ranks they stay apart:
 * kernels take the bias along by themselves. */
#include "pass/match.h"

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    if (!kiln_is_op(n, "Add") || !kiln_is_float(n->out[0])) {
        return KILN_OK;
    }
    for (int32_t side = 0; side < 2; side++) {
        const kiln_node *mm = kiln_made_by_only(n->in[side], "MatMul");
        kiln_value *bias = n->in[1 - side];
        if (!mm || kiln_rank(mm->in[0]) != 2 || kiln_rank(mm->in[1]) != 2 || !bias->constant ||
            !kiln_value_is_const(mm->in[1]) || kiln_rank(bias) != 1 ||
            kiln_dim_at(bias, 0) != kiln_dim_at(n->out[0], 1) || kiln_dim_at(bias, 0) < 1 ||
            !kiln_same_type(mm->out[0], n->out[0])) {
            continue;
        }
        kiln_value *in[] = {mm->in[0], mm->in[1], bias};
        kiln_patch_touch(p, mm);
        kiln_patch_replace(p, n->out[0], kiln_patch_node(p, "Gemm", in, 3));
        return kiln_patch_commit(p, "matrix product and bias");
    }
    return KILN_OK;
}

const kiln_pass kiln_pass_matmul_add = {.name = "matmul_add", .visit = visit};
