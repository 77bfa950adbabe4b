/* attention.c - softmax(scale * Q K^T [+ mask]) V of 4-D heads is Attention.
 *
 * Q, K, V are [batch, heads, length, size]. The scale may stand on the scores, on Q, on K, or in
 * parts on each; K^T is a Transpose of anything, of which the last two axes are swapped back.
 */
#include <math.h>

#include "pass/match.h"

enum { MAX_TOUCHED = 12 };

typedef struct found {
    const kiln_node *touched[MAX_TOUCHED];
    int n_touched;
    double scale;
    kiln_value *q, *kt, *v, *mask;
    const kiln_node *transpose; /* gives kt, or NULL */
} found;

static void touch(found *f, const kiln_node *n) {
    f->touched[f->n_touched++] = n;
}

/* Strips one multiplication or division by a number off v. */
static kiln_value *strip_scale(found *f, kiln_value *v) {
    const kiln_node *mul = kiln_made_by_only(v, "Mul"), *div = kiln_made_by_only(v, "Div");
    kiln_value *x;
    double s;
    if (mul && kiln_split_any_scalar(mul, &s, &x) && kiln_same_type(x, v)) {
        f->scale *= s;
        touch(f, mul);
        return x;
    }
    if (div && kiln_scalar(div->in[1], &s) && s != 0.0 && kiln_same_type(div->in[0], v)) {
        f->scale /= s;
        touch(f, div);
        return div->in[0];
    }
    return v;
}

/* Scores plus a mask that does not enlarge them. */
static kiln_value *strip_mask(found *f, kiln_value *v) {
    const kiln_node *add = kiln_made_by_only(v, "Add");
    for (int32_t side = 0; add && side < 2; side++) {
        kiln_value *scores = add->in[1 - side], *mask = add->in[side];
        kiln_value *product = strip_scale(&(found){.scale = 1.0}, scores);
        if (kiln_made_by_only(product, "MatMul") && kiln_same_type(scores, v) &&
            kiln_rank(mask) >= 2 && kiln_rank(mask) <= 4 &&
            mask->type.dtype == scores->type.dtype && kiln_dim_at(mask, -1) == kiln_dim_at(v, -1)) {
            f->mask = mask;
            touch(f, add);
            return scores;
        }
    }
    return v;
}

static bool read_scores(found *f, kiln_value *scores) {
    kiln_value *v = strip_scale(f, strip_mask(f, scores));
    const kiln_node *qk = kiln_made_by_only(v, "MatMul");
    if (!qk) {
        return false;
    }
    touch(f, qk);
    f->q = strip_scale(f, qk->in[0]);
    f->kt = strip_scale(f, qk->in[1]);
    f->transpose = kiln_made_by(f->kt, "Transpose");
    return true;
}

/* Four dims that fit, a type that the operator computes in, a scale that it takes. */
static bool is_expressible(const found *f) {
    return kiln_rank(f->q) == 4 && kiln_rank(f->kt) == 4 && kiln_rank(f->v) == 4 &&
           kiln_dim_at(f->q, 0) == kiln_dim_at(f->kt, 0) &&
           kiln_dim_at(f->q, 0) == kiln_dim_at(f->v, 0) &&
           kiln_dim_at(f->q, 1) == kiln_dim_at(f->kt, 1) &&
           kiln_dim_at(f->q, 1) == kiln_dim_at(f->v, 1) &&
           kiln_dim_at(f->q, 0) != KILN_DIM_UNKNOWN && kiln_dim_at(f->q, 1) != KILN_DIM_UNKNOWN &&
           kiln_is_float(f->q) && f->q->type.dtype != KILN_DTYPE_F64 && isfinite((float)f->scale) &&
           f->scale > 0.0;
}

/* K itself: the axes of the transpose with the last two swapped. */
static kiln_value *make_key(kiln_patch *p, const found *f) {
    int64_t perm[KILN_MAX_RANK] = {0, 1, 2, 3};
    int32_t rank = 4;
    if (f->transpose && (!kiln_transpose_perm(f->transpose, perm, &rank) || rank != 4)) {
        return NULL;
    }
    int64_t swap = perm[2];
    perm[2] = perm[3];
    perm[3] = swap;
    kiln_value *x = f->transpose ? f->transpose->in[0] : f->kt;
    if (perm[0] == 0 && perm[1] == 1 && perm[2] == 2) {
        return x;
    }
    kiln_value *k = kiln_patch_node(p, "Transpose", &x, 1);
    kiln_patch_ints(p, k, "perm", perm, 4);
    return k;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    found f = {.scale = 1.0};
    const kiln_node *softmax =
        kiln_is_op(n, "MatMul") ? kiln_made_by_only(n->in[0], "Softmax") : NULL;
    if (!softmax || !kiln_patch_can(p, "Attention")) {
        return KILN_OK;
    }
    int64_t axis = kiln_node_int(softmax, "axis", -1);
    f.v = n->in[1];
    if ((axis != -1 && axis != 3) || !read_scores(&f, softmax->in[0]) || !is_expressible(&f)) {
        return KILN_OK;
    }
    for (int i = 0; i < f.n_touched; i++) {
        kiln_patch_touch(p, f.touched[i]);
    }
    kiln_patch_touch(p, softmax);
    if (f.transpose && kiln_used_once(f.kt)) {
        kiln_patch_touch(p, f.transpose);
    }
    kiln_value *in[] = {f.q, make_key(p, &f), f.v, f.mask};
    if (!in[1]) {
        return KILN_OK;
    }
    kiln_value *y = kiln_patch_node(p, "Attention", in, f.mask ? 4 : 3);
    kiln_patch_float(p, y, "scale", (float)f.scale);
    kiln_patch_replace(p, n->out[0], y);
    return kiln_patch_commit(p, "attention");
}

const kiln_pass kiln_pass_attention = {.name = "attention", .visit = visit};
