/* layer_norm.c - layer and RMS normalization from their pieces.
 *
 *     layer:  d / sqrt(mean(d^2) + epsilon) [* scale] [+ bias],  d = x - mean(x)
 *     RMS:    x / sqrt(mean(x^2) + epsilon) [* scale]
 *
 * with means over the last axes. The division may be one by Sqrt, a Mul by Reciprocal(Sqrt), or a
 * power.
 */
#include "pass/fold.h"

enum { MAX_TOUCHED = 16 };

typedef struct found {
    const kiln_node *touched[MAX_TOUCHED];
    int n_touched;
    kiln_value *x;
    bool centred;   /* layer normalization; else RMS */
    int32_t n_axes; /* the last of x's */
    double epsilon;
    const kiln_node *last; /* gives the result so far */
    kiln_value *scale, *bias;
} found;

static void touch(found *f, const kiln_node *n) {
    if (n && f->n_touched < MAX_TOUCHED) {
        f->touched[f->n_touched++] = n;
    }
}

/* v = mean(m) over the last axes, kept: m, or NULL. */
static kiln_value *mean_of(found *f, const kiln_value *v, int32_t *n_axes) {
    const kiln_node *mean = kiln_made_by(v, "ReduceMean");
    uint32_t axes;
    if (!mean || kiln_node_int(mean, "keepdims", 1) == 0 || !kiln_reduce_axes(mean, &axes) ||
        !kiln_axes_are_last(axes, kiln_rank(mean->in[0]), n_axes)) {
        return NULL;
    }
    touch(f, mean);
    return mean->in[0];
}

/* v = s * s or pow(s, 2): s, or NULL. */
static kiln_value *root_of(found *f, const kiln_value *v) {
    const kiln_node *mul = kiln_made_by_only(v, "Mul"), *power = kiln_made_by_only(v, "Pow");
    touch(f, mul ? mul : power);
    if (mul) {
        return mul->in[0] == mul->in[1] ? mul->in[0] : NULL;
    }
    return power && kiln_scalar_is(power->in[1], 2.0) ? power->in[0] : NULL;
}

/* v = x - mean(x) over the last n_axes: x, or NULL. */
static kiln_value *centred_of(found *f, const kiln_value *v, int32_t n_axes) {
    const kiln_node *sub = kiln_made_by(v, "Sub");
    int32_t n;
    kiln_value *x = sub ? mean_of(f, sub->in[1], &n) : NULL;
    if (!x || x != sub->in[0] || n != n_axes) {
        return NULL;
    }
    touch(f, sub);
    return x;
}

/* n divides d by sqrt(s): both, through any of the spellings. */
static bool read_division(found *f, const kiln_node *n, kiln_value **d, kiln_value **s) {
    const kiln_node *root;
    if (kiln_is_op(n, "Div")) {
        root = kiln_made_by_only(n->in[1], "Sqrt");
        const kiln_node *power = kiln_made_by_only(n->in[1], "Pow");
        root = root ? root : power && kiln_scalar_is(power->in[1], 0.5) ? power : NULL;
        touch(f, root);
        *d = n->in[0];
        *s = root ? root->in[0] : NULL;
        return root != NULL;
    }
    for (int32_t side = 0; side < 2 && kiln_is_op(n, "Mul"); side++) {
        const kiln_node *inverse = kiln_made_by_only(n->in[side], "Reciprocal");
        const kiln_node *power = kiln_made_by_only(n->in[side], "Pow");
        const kiln_node *div = kiln_made_by_only(n->in[side], "Div");
        inverse = inverse ? inverse : div && kiln_scalar_is(div->in[0], 1.0) ? div : NULL;
        root = inverse ? kiln_made_by_only(inverse->in[inverse->n_in - 1], "Sqrt") : NULL;
        root = root ? root : power && kiln_scalar_is(power->in[1], -0.5) ? power : NULL;
        if (root) {
            touch(f, inverse);
            touch(f, root);
            *d = n->in[1 - side];
            *s = root->in[0];
            return true;
        }
    }
    return false;
}

static bool read_norm(found *f, const kiln_node *n) {
    kiln_value *d, *s, *variance, *square, *root;
    int32_t n_axes;
    if (!read_division(f, n, &d, &s)) {
        return false;
    }
    const kiln_node *add = kiln_made_by_only(s, "Add");
    if (!add || !kiln_split_any_scalar(add, &f->epsilon, &variance)) {
        return false;
    }
    touch(f, add);
    touch(f, n);
    square = mean_of(f, variance, &n_axes);
    root = square ? root_of(f, square) : NULL;
    if (!root) {
        return false;
    }
    f->n_axes = n_axes;
    kiln_value *x = centred_of(f, d, n_axes);
    if (x) {
        f->x = x;
        f->centred = true;
        return root == d || centred_of(f, root, n_axes) == x;
    }
    f->x = d;
    return root == d;
}

/* v, seen without leading ones, has exactly the normalized dims. */
static bool is_parameter(const found *f, const kiln_value *v) {
    int32_t rank = kiln_rank(v), shift = rank - f->n_axes;
    for (int32_t d = 0; d < rank; d++) {
        kiln_dim have = v->type.dims[d];
        kiln_dim want = d < shift ? 1 : kiln_dim_at(f->x, d - shift - f->n_axes);
        if (have != want || have == KILN_DIM_UNKNOWN) {
            return false;
        }
    }
    return shift >= 0 && v->type.dtype == f->x->type.dtype && (shift == 0 || v->constant);
}

/* The parameter of a Mul or Add that follows and is all that follows. */
static kiln_value *follow(found *f, const char *op) {
    const kiln_node *next = kiln_only_user(f->last, op);
    if (!next || !kiln_same_shape(next->out[0], f->x) || next->in[0] == next->in[1]) {
        return NULL;
    }
    kiln_value *v = next->in[next->in[0] == f->last->out[0]];
    if (!is_parameter(f, v)) {
        return NULL;
    }
    touch(f, next);
    f->last = next;
    return v;
}

static kiln_value *parameter(kiln_patch *p, const found *f, kiln_value *v) {
    int64_t dims[KILN_MAX_RANK];
    int64_t n = 1;
    for (int32_t d = 0; d < f->n_axes; d++) {
        dims[d] = kiln_dim_at(f->x, d - f->n_axes);
        n *= dims[d] > 0 ? dims[d] : 1;
    }
    double *e = v ? kiln_fold_doubles(p, v, &n) : kiln_patch_scratch(p, n, sizeof *e);
    for (int64_t i = 0; e && !v && i < n; i++) {
        e[i] = 1.0;
    }
    return e ? kiln_fold_vector(p, f->x->type.dtype, e, f->n_axes, dims) : NULL;
}

static bool has_static_axes(const found *f) {
    int64_t n = 1;
    for (int32_t d = 1; d <= f->n_axes; d++) {
        kiln_dim size = kiln_dim_at(f->x, -d);
        if (size <= 0 || !kiln_mul_i64(n, size, &n) || n > (1 << 24)) {
            return false;
        }
    }
    return true;
}

static kiln_status make(kiln_patch *p, found *f) {
    const char *op = f->centred ? "LayerNormalization" : "RMSNormalization";
    if (!kiln_patch_can(p, op)) {
        return KILN_OK;
    }
    for (int i = 0; i < f->n_touched; i++) {
        kiln_patch_touch(p, f->touched[i]);
    }
    bool as_is = f->scale && kiln_rank(f->scale) == f->n_axes;
    kiln_value *in[] = {f->x, as_is ? f->scale : parameter(p, f, f->scale), NULL};
    if (f->bias) {
        in[2] = kiln_rank(f->bias) == f->n_axes ? f->bias : parameter(p, f, f->bias);
    }
    if (!in[1] || (f->bias && !in[2])) {
        return KILN_OK;
    }
    kiln_value *y = kiln_patch_node(p, op, in, f->bias ? 3 : 2);
    kiln_patch_int(p, y, "axis", -f->n_axes);
    kiln_patch_float(p, y, "epsilon", (float)f->epsilon);
    kiln_patch_replace(p, f->last->out[0], y);
    return kiln_patch_commit(p, f->centred ? "layer normalization" : "RMS normalization");
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    found f = {.last = n};
    if ((!kiln_is_op(n, "Div") && !kiln_is_op(n, "Mul")) || !read_norm(&f, n) ||
        !kiln_is_float(f.x) || f.x->type.dtype == KILN_DTYPE_F64 ||
        !kiln_same_type(f.x, n->out[0]) || !has_static_axes(&f)) {
        return KILN_OK;
    }
    f.scale = follow(&f, "Mul");
    if (f.centred) {
        f.bias = follow(&f, "Add");
    }
    return make(p, &f);
}

const kiln_pass kiln_pass_layer_norm = {.name = "layer_norm", .visit = visit};
