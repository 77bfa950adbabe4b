/* integer_products.c - ConvInteger and MatMulInteger in the form that kernels run: weights whose
 * zero point is 0 (int8) or 128 (uint8), the sums read by a Cast and scaled alone.
 *
 * A weight w counts as w - z. With the middle m of its type that is (w - m) + (m - z), so that
 *
 *     P(x, w, z) = P(x, w, m) + P(x, m - z, 0)
 *
 * where the second product has the same number everywhere: one output channel tells it for all,
 * except in groups. Quantizers also add the bias to the sums, as integers that the run makes from
 * its scales. Both are taken apart behind the Cast:
 *
 *     Cast(P + r) * s     becomes     Cast(P(x, w, m)) * s + Cast(r) * s + Cast(P(x, m - z, 0)) * s
 */
#include <string.h>

#include "ops/ops.h"
#include "pass/match.h"

/* A product, and what is done with its sums. */
typedef struct product {
    const kiln_node *node, *cast;
    const kiln_node *add, *mul;  /* or NULL */
    kiln_value *addend, *factor; /* theirs */
    int64_t middle, shift;       /* m, m - z */
} product;

static const kiln_node *made_by_product(const kiln_value *v) {
    const kiln_node *n = kiln_made_by_only(v, "ConvInteger");
    return n ? n : kiln_made_by_only(v, "MatMulInteger");
}

/* Middle and shift, where every zero point of the constant weights is the same. */
static bool read_weights(product *r) {
    const kiln_value *w = r->node->in[1], *zero = kiln_node_in(r->node, 3);
    const kiln_tensor *zeros = zero ? kiln_value_data(zero) : NULL;
    const kiln_type *t = &w->type;
    if (!kiln_value_is_const(w) || !kiln_type_is_static(t) ||
        (t->dtype != KILN_DTYPE_U8 && t->dtype != KILN_DTYPE_I8)) {
        return false;
    }
    if (zero && (!zeros || kiln_tensor_count(zeros) < 1)) {
        return false;
    }
    const int64_t z = zeros ? kiln_get_i64(zeros->dtype, zeros->data, 0) : 0;
    if (zero && !kiln_all_equal(zero, (double)z)) {
        return false;
    }
    r->middle = t->dtype == KILN_DTYPE_U8 ? 128 : 0;
    r->shift = r->middle - z;
    return r->shift >= -127 && r->shift <= 127;
}

/* The pattern that ends in this Cast. */
static bool match(const kiln_node *cast, product *r) {
    *r = (product){.cast = cast};
    if (!kiln_is_op(cast, "Cast") || cast->out[0]->type.dtype != KILN_DTYPE_F32) {
        return false;
    }
    r->node = made_by_product(cast->in[0]);
    const kiln_node *add = r->node ? NULL : kiln_made_by_only(cast->in[0], "Add");
    for (int i = 0; add && i < 2 && !r->node; i++) {
        r->node = made_by_product(add->in[i]);
        r->add = add;
        r->addend = add->in[1 - i];
    }
    if (!r->node || kiln_rank(r->node->in[1]) < 2 || !read_weights(r)) {
        return false;
    }
    r->mul = kiln_only_user(cast, "Mul");
    if (r->mul) {
        r->factor = r->mul->in[r->mul->in[0] == cast->out[0] ? 1 : 0];
    }
    return r->shift != 0 || r->add;
}

/* Weights that are `shift` everywhere. */
static kiln_value *even_weights(kiln_patch *p, const product *r) {
    const kiln_type *w = &r->node->in[1]->type;
    const bool is_conv = kiln_is_op(r->node, "ConvInteger");
    kiln_tensor t = {.dtype = KILN_DTYPE_I8, .rank = w->rank};
    memcpy(t.dims, w->dims, (size_t)w->rank * sizeof *t.dims);
    if (!is_conv) {
        t.dims[w->rank - 1] = 1;
    } else if (kiln_node_int(r->node, "group", 1) == 1) {
        t.dims[0] = 1;
    }
    t.cap_bytes = kiln_tensor_bytes(&t);
    t.data = kiln_patch_scratch(p, (int64_t)t.cap_bytes, 1);
    if (!t.data) {
        return NULL;
    }
    memset(t.data, (int)r->shift, t.cap_bytes);
    return kiln_patch_constant(p, &t);
}

/* Cast(v) * factor. */
static kiln_value *scaled(kiln_patch *p, const product *r, kiln_value *v) {
    kiln_node *cast = kiln_patch_like(p, r->cast, &v, 1, 1);
    kiln_value *in[] = {cast ? cast->out[0] : NULL, r->factor};
    return r->factor ? kiln_patch_node(p, "Mul", in, 2) : in[0];
}

static kiln_value *product_of(kiln_patch *p, const product *r, kiln_value *w, kiln_value *zero) {
    kiln_value *in[] = {r->node->in[0], w, kiln_node_in(r->node, 2), zero};
    kiln_node *n = kiln_patch_like(p, r->node, in, zero ? 4 : 3, 1);
    return n ? n->out[0] : NULL;
}

static kiln_value *plus(kiln_patch *p, kiln_value *a, kiln_value *b) {
    kiln_value *in[] = {a, b};
    return kiln_patch_node(p, "Add", in, 2);
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    product r;
    if (!match(n, &r)) {
        return KILN_OK;
    }
    kiln_value *w = r.node->in[1];
    const kiln_dtype dtype = w->type.dtype;
    kiln_value *middle = r.middle ? kiln_patch_scalar(p, dtype, (double)r.middle) : NULL;
    kiln_value *y = scaled(p, &r, product_of(p, &r, w, middle));
    if (r.add) {
        y = plus(p, y, scaled(p, &r, r.addend));
        kiln_patch_touch(p, r.add);
    }
    if (r.shift != 0) {
        y = plus(p, y, scaled(p, &r, product_of(p, &r, even_weights(p, &r), NULL)));
    }
    kiln_patch_touch(p, r.node);
    kiln_patch_touch(p, r.cast);
    kiln_patch_replace(p, r.mul ? r.mul->out[0] : r.cast->out[0], y);
    return kiln_patch_commit(p, r.shift != 0 ? "the weights' zero point moves to the middle"
                                             : "the bias is added to floats");
}

const kiln_pass kiln_pass_integer_products = {.name = "integer_products", .visit = visit};
