/* batch_norm.c - BatchNormalization with constant statistics is one Mul and one Add per channel,
 * which the pass `scales` then folds into the weights beside it.
 *
 *     y = (x - mean) * s + b = x * s + (b - mean * s),  s = scale / sqrt(variance + epsilon)
 */
#include <math.h>

#include "pass/fold.h"

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    double *e[4]; /* scale, b, mean, variance */
    int64_t count = 0, channels = kiln_dim_at(n->n_in > 0 ? n->in[0] : NULL, 1);
    int32_t rank = kiln_rank(n->n_in > 0 ? n->in[0] : NULL);
    if (!kiln_is_op(n, "BatchNormalization") || n->n_out != 1 ||
        kiln_node_int(n, "training_mode", 0) != 0 || rank < 2 || !kiln_is_float(n->in[0])) {
        return KILN_OK;
    }
    for (int32_t k = 0; k < 4; k++) {
        int64_t len = 0;
        e[k] = kiln_fold_doubles(p, n->in[k + 1], &len);
        if (!e[k] || len < 1 || (k > 0 && len != count)) {
            return KILN_OK;
        }
        count = len;
    }
    if (kiln_dim_known(channels) && channels != count) {
        return KILN_OK;
    }
    double epsilon = (double)kiln_node_float(n, "epsilon", 1e-5f);
    int64_t dims[KILN_MAX_RANK];
    for (int64_t i = 0; i < count; i++) {
        e[0][i] /= sqrt(e[3][i] + epsilon);
        e[1][i] -= e[2][i] * e[0][i];
        if (!isfinite(e[0][i]) || !isfinite(e[1][i])) {
            return KILN_OK;
        }
    }
    for (int32_t d = 0; d < rank - 1; d++) {
        dims[d] = d == 0 ? count : 1;
    }
    kiln_dtype dtype = n->in[0]->type.dtype;
    kiln_value *mul[] = {n->in[0], kiln_fold_vector(p, dtype, e[0], rank - 1, dims)};
    kiln_value *add[] = {kiln_patch_node(p, "Mul", mul, 2),
                         kiln_fold_vector(p, dtype, e[1], rank - 1, dims)};
    kiln_patch_replace(p, n->out[0], kiln_patch_node(p, "Add", add, 2));
    return kiln_patch_commit(p, "constant statistics");
}

const kiln_pass kiln_pass_batch_norm = {.name = "batch_norm", .visit = visit};
